/* tests/unit/test_reread.c - what a run leaves is read again: one byte that is not the model's is found and its
 * tensor named. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cpu/cpu.h"
#include "core/path.h"
#include "recipes/export/adapter.h"
#include "recipes/export/reread.h"
#include "recipes/train/session.h"
#include "tests/unit/root_test.h"

#define MODEL MB_TEST_DATA "/reference/llama"

static char file[MB_PATH_MAX];
static mb_engine *engine;
static mb_json_doc *config;
static mb_tokenizer *tokenizer;

static int drop(void **state)
{
    mb_engine_free(engine);
    mb_json_free(config);
    mb_tokenizer_free(tokenizer);
    engine = NULL;
    config = NULL;
    tokenizer = NULL;
    return remove_root(state);
}

/* A model of the folder's, and where it is written; `name` is the file of its tensors. */
static mb_export opened(mb_trained trained, mb_dtype dtype, const char *name)
{
    static const char *const all_linear[] = {"all-linear"};
    const mb_session_options o = {
        .path = MODEL,
        .head = MB_HEAD_CAUSAL_LM,
        .trained = trained,
        .lora = {.r = 4, .alpha = 8, .targets = all_linear, .n_targets = 1},
        .quiet = true,
        .engine = {.threads = 1},
    };

    OK(mb_cpu_init());
    assert_int_equal(make_root(NULL), 0);
    OK(mb_path_join(file, sizeof file, root, name));
    OK(mb_session_open(&o, &engine, &config));
    OK(mb_tokenizer_load(MODEL, &tokenizer));
    return (mb_export){.model = engine->model,
                       .ex = &engine->host,
                       .config = mb_json_root(config),
                       .base = MODEL,
                       .tokenizer = tokenizer,
                       .dtype = dtype,
                       .max_shard_bytes = (int64_t)1 << 40};
}

/* Bit 0 of a byte; at < 0: from the end. */
static void flip(off_t at)
{
    const int fd = open(file, O_RDWR);
    uint8_t byte;

    assert_true(fd >= 0);
    assert_true(lseek(fd, at, at < 0 ? SEEK_END : SEEK_SET) >= 0);
    assert_int_equal(read(fd, &byte, 1), 1);
    byte ^= 1;
    assert_true(lseek(fd, -1, SEEK_CUR) >= 0);
    assert_int_equal(write(fd, &byte, 1), 1);
    close(fd);
}

static off_t first_number(void)
{
    const int fd = open(file, O_RDONLY);
    uint64_t header;

    assert_int_equal(read(fd, &header, sizeof header), sizeof header);
    close(fd);
    return (off_t)(header + sizeof header);
}

static void refuses(mb_status st, const char *words)
{
    assert_int_equal(st, MB_EIO);
    if (strstr(mb_status_sentence(), words) == NULL)
        fail_msg("no '%s' in: %s", words, mb_status_sentence());
    mb_status_clear();
}

static void a_models_folder_has_every_number_or_is_refused(void **state)
{
    static const mb_dtype types[] = {MB_DTYPE_F32, MB_DTYPE_BF16, MB_DTYPE_F16};

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const mb_export e = opened(MB_TRAINED_ALL, types[i], "model.safetensors");
        const mb_weight *w = mb_model_find(e.model, "model.norm.weight");

        OK(mb_export_hf(&e, root));
        OK(mb_export_reread_hf(&e, root));
        flip(-1);
        refuses(mb_export_reread_hf(&e, root), "what is read is not what was written");
        flip(-1);
        flip(first_number());
        refuses(mb_export_reread_hf(&e, root), "numbers 0 to");
        flip(first_number());
        OK(mb_export_reread_hf(&e, root));
        ((float *)w->value.data)[3] += 1.0f;
        refuses(mb_export_reread_hf(&e, root), "'model.norm.weight', numbers 0 to 63");
        assert_int_equal(drop(NULL), 0);
    }
}

static void a_folder_of_another_type_is_refused(void **state)
{
    mb_export e = opened(MB_TRAINED_ALL, MB_DTYPE_BF16, "model.safetensors");

    OK(mb_export_hf(&e, root));
    e.dtype = MB_DTYPE_F32;
    refuses(mb_export_reread_hf(&e, root), "is BF16 [384, 64], written as F32 [384, 64]");
    assert_int_equal(drop(NULL), 0);
}

static void an_adapters_file_has_every_number_or_is_refused(void **state)
{
    const mb_export e = opened(MB_TRAINED_LORA, MB_DTYPE_F32, "adapter_model.safetensors");

    OK(mb_adapter_write_tensors(e.model, root));
    OK(mb_export_reread_peft(&e, root));
    flip(-4);
    refuses(mb_export_reread_peft(&e, root), ".lora_");
    assert_int_equal(drop(NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_models_folder_has_every_number_or_is_refused),
        cmocka_unit_test(a_folder_of_another_type_is_refused),
        cmocka_unit_test(an_adapters_file_has_every_number_or_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
