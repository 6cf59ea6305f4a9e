/* tests/unit/test_bases.c - adapters of one base: its weights once in memory, their bits as alone. */
#include <sys/stat.h>
#include <unistd.h>

#include "core/cpu/cpu.h"
#include "recipes/data/collate.h"
#include "recipes/export/adapter.h"
#include "recipes/export/peft.h"
#include "recipes/train/session.h"
#include "tests/unit/data_test.h"

enum { TOKENS = 24, MOST_LOGITS = TOKENS * 1024, LAST = -1 };

static const struct subject {
    const char *folder;
    mb_head head;
    int64_t seen; /* tokens of a text */
    bool saves;   /* the adapter has modules of its own */
} subjects[] = {
    {"lora-llama", MB_HEAD_CAUSAL_LM, TOKENS, false},
    {"dora-qwen2", MB_HEAD_CAUSAL_LM, TOKENS, false},
    {"lora-gpt2-conv1d", MB_HEAD_CAUSAL_LM, TOKENS, false},
    {"rslora-bert", MB_HEAD_SEQUENCE, 1, true},
};
enum { SUBJECTS = sizeof subjects / sizeof subjects[0] };

/* The base, or one of its adapters: both where they belong, or from another folder (an adapter's path may be
 * absolute). */
static mb_engine *open_at(const char *base, const struct subject *s, const char *adapter,
                          mb_bases *all)
{
    char reference[300], of[MB_PATH_MAX];
    mb_session_options o = {.path = base,
                            .adapter_path = adapter != NULL ? of : NULL,
                            .head = s->head,
                            .bases = all,
                            .quiet = true,
                            .engine = {.threads = 1}};
    mb_engine *e;

    snprintf(reference, sizeof reference, "%s/reference/%s", MB_TEST_DATA, s->folder);
    if (adapter != NULL)
        OK(mb_path_join(of, sizeof of, reference, adapter));
    OK(mb_cpu_init());
    OK(mb_session_open(&o, &e, NULL));
    return e;
}

static mb_engine *open(const struct subject *s, const char *adapter, mb_bases *all)
{
    char path[300];

    snprintf(path, sizeof path, "%s/reference/%s", MB_TEST_DATA, s->folder);
    return open_at(path, s, adapter, all);
}

/* What a text of TOKENS gives; returns how many numbers. */
static int64_t ask(const struct subject *s, mb_engine *e, float *out)
{
    mb_batch *b;
    mb_tensor logits;

    OK(mb_batch_new(TOKENS, 1, &b));
    b->start[0] = b->k_start[0] = 0;
    b->len[0] = b->k_len[0] = TOKENS;
    b->n_seq = 1;
    b->max_len = b->used = b->tokens = TOKENS;
    for (int32_t i = 0; i < TOKENS; i++) {
        b->ids[i] = 3 + 5 * i;
        b->position[i] = i;
        b->segment[i] = 0;
    }
    OK(mb_engine_reserve_for(e, b, false, 0));
    OK(mb_engine_logits(e, b, NULL, &logits));
    assert_int_equal(mb_rows(&logits), s->seen);
    assert_true(mb_tensor_count(&logits) <= MOST_LOGITS);
    memcpy(out, logits.data, (size_t)mb_tensor_bytes(&logits));
    mb_batch_free(b);
    return mb_tensor_count(&logits);
}

static void assert_bits(const struct subject *s, mb_engine *e, const float *want, int64_t n)
{
    static float got[MOST_LOGITS];

    assert_int_equal(ask(s, e, got), n);
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%s: number %lld of %lld is %.9g, alone %.9g", s->folder, (long long)i,
                     (long long)n, (double)got[i], (double)want[i]);
}

/* Of the family's weights, those it has from others or its own. */
static size_t weight_bytes(const mb_engine *e, bool lent)
{
    size_t bytes = 0;

    for (int i = 0; i < e->model->n_weights; i++)
        if (e->model->weight[i].row != NULL && e->model->weight[i].lent == lent)
            bytes += (size_t)mb_tensor_bytes(&e->model->weight[i].value);
    return bytes;
}

static void adapters_have_their_base_once_and_answer_as_alone(void **state)
{
    static const char *const names[] = {NULL, "adapter-before", "adapter-after-10-steps"};
    static float alone[3][MOST_LOGITS];

    for (int k = 0; k < SUBJECTS; k++) {
        const struct subject *s = &subjects[k];
        mb_engine *e[3];
        mb_bases *all;
        int64_t n = 0;

        for (int i = 0; i < 3; i++) {
            e[i] = open(s, names[i], NULL);
            n = ask(s, e[i], alone[i]);
            mb_engine_free(e[i]);
        }
        assert_memory_not_equal(alone[0], alone[2], (size_t)n * sizeof(float));
        OK(mb_bases_new(&all));
        e[0] = open(s, names[0], all);
        const size_t base = mb_bases_bytes(all);
        assert_true(base > 0);
        for (int i = 1; i < 3; i++) {
            e[i] = open(s, names[i], all);
            assert_int_equal(mb_bases_bytes(all), base);
            if (s->saves)
                assert_in_range(weight_bytes(e[i], false), 1, base / 2);
            else
                assert_int_equal(weight_bytes(e[i], true), base);
            assert_true(e[i]->run_bytes < e[0]->run_bytes);
        }
        for (int round = 0; round < 2; round++)
            for (int i = 0; i < 3; i++)
                assert_bits(s, e[i], alone[i], n);
        mb_engine_free(e[0]); /* its weights stay for the others */
        assert_int_equal(mb_bases_bytes(all), base);
        assert_bits(s, e[2], alone[2], n);
        mb_engine_free(e[2]);
        assert_bits(s, e[1], alone[1], n);
        mb_engine_free(e[1]);
        assert_int_equal(mb_bases_bytes(all), 0);
        mb_bases_free(all);
    }
}

/* A folder like the reference's with its own file of weights; `bits` of one of its numbers are turned (LAST, or
 * counted from 0). */
static const char *copy_of(const char *name, const char *folder_name, int64_t number, uint32_t bits)
{
    static char dir[300];
    char from[300], to[400];
    uint64_t header;
    uint32_t turned;
    char *text, *at;
    struct stat st;
    FILE *f;

    snprintf(dir, sizeof dir, "%s/%s", root, folder_name);
    mkdir(dir, 0700);
    snprintf(from, sizeof from, "%s/reference/%s/config.json", MB_TEST_DATA, name);
    snprintf(to, sizeof to, "%s/config.json", dir);
    unlink(to);
    assert_int_equal(symlink(from, to), 0);
    snprintf(from, sizeof from, "%s/reference/%s/model.safetensors", MB_TEST_DATA, name);
    assert_int_equal(stat(from, &st), 0);
    OK(mb_alloc((size_t)st.st_size, "a copy", (void **)&text));
    f = fopen(from, "rb");
    assert_non_null(f);
    assert_int_equal(fread(text, 1, (size_t)st.st_size, f), st.st_size);
    fclose(f);
    memcpy(&header, text, sizeof header);
    at = number == LAST ? text + st.st_size - sizeof turned
                        : text + sizeof header + header + number * (int64_t)sizeof turned;
    memcpy(&turned, at, sizeof turned);
    turned ^= bits;
    memcpy(at, &turned, sizeof turned);
    snprintf(to, sizeof to, "%s/model.safetensors", dir);
    OK(mb_file_write_atomic(to, text, (size_t)st.st_size));
    mb_free(text);
    return dir;
}

static void other_files_are_the_same_base_if_all_their_numbers_are(void **state)
{
    const struct subject *s = &subjects[0];
    mb_engine *first, *copy, *other, *adapter;
    mb_bases *all;

    OK(mb_bases_new(&all));
    first = open(s, NULL, all);
    const size_t base = mb_bases_bytes(all);
    copy = open_at(copy_of(s->folder, "copy", LAST, 0), s, "adapter-before", all);
    assert_int_equal(mb_bases_bytes(all), base);
    assert_ptr_equal(copy->base, first->base);
    other = open_at(copy_of(s->folder, "other", LAST, 1), s, NULL, all);
    assert_int_equal(mb_bases_bytes(all), 2 * base);
    adapter = open_at(copy_of(s->folder, "another", LAST, 1), s, "adapter-before", all);
    assert_int_equal(mb_bases_bytes(all), 2 * base);
    assert_ptr_equal(adapter->base, other->base);
    mb_engine_free(other);
    mb_engine_free(first);
    mb_engine_free(adapter);
    assert_int_equal(mb_bases_bytes(all), base);
    mb_engine_free(copy);
    mb_bases_free(all);
}

/* An adapter of this base that has rows of its own for some tokens of the first table. */
static const char *rows_for(const char *base, const struct subject *s)
{
    static char dir[300];
    static const int32_t ids[] = {8, 13};
    mb_token_wish wish = {.id = ids, .n = 2};
    mb_token_wish tokens = {.module = "embed_tokens", .id = ids, .n = 2};
    mb_peft peft = mb_peft_defaults();
    mb_session_options o = {.path = base,
                            .head = s->head,
                            .trained = MB_TRAINED_LORA,
                            .lora = {.tokens = &wish, .n_tokens = 1},
                            .quiet = true,
                            .engine = {.threads = 1}};
    const float number = 0.5f;
    mb_engine *e;

    snprintf(dir, sizeof dir, "%s/rows", root);
    mkdir(dir, 0700);
    OK(mb_session_open(&o, &e, NULL));
    for (int i = 0; i < e->model->n_weights; i++)
        if (e->model->weight[i].trained)
            OK(mb_weight_write(e->model, &e->model->weight[i], 0, 1, &number));
    OK(mb_adapter_write_tensors(e->model, dir));
    mb_engine_free(e);
    peft.tokens_alone = true;
    peft.tokens = &tokens;
    peft.n_tokens = 1;
    OK(mb_peft_write(dir, &peft));
    return dir;
}

/* Where rows of one adapter are merged the next one's are in another table, whether the base's own is in memory
 * (round 0) or had rows of its first model. */
static void rows_of_tokens_stand_in_the_table_of_their_own_base(void **state)
{
    static float alone[MOST_LOGITS];
    const struct subject *s = &subjects[0];
    char merged[300];
    mb_engine *first, *e;
    mb_bases *all;

    snprintf(merged, sizeof merged, "%s", copy_of(s->folder, "merged", 23 * 64, 1u << 22));
    const char *const rows = rows_for(merged, s);
    e = open_at(merged, s, rows, NULL);
    const int64_t n = ask(s, e, alone);
    mb_engine_free(e);
    for (int round = 0; round < 2; round++) {
        OK(mb_bases_new(&all));
        first = open(s, round > 0 ? rows : NULL, all);
        e = open_at(merged, s, rows, all);
        assert_bits(s, e, alone, n);
        assert_ptr_not_equal(e->base, first->base);
        mb_engine_free(e);
        e = open_at(copy_of(s->folder, "same", LAST, 0), s, rows, all);
        assert_ptr_equal(e->base, first->base);
        mb_engine_free(first);
        mb_engine_free(e);
        mb_bases_free(all);
    }
}

static void a_folder_that_was_written_again_is_another_base(void **state)
{
    static float before[MOST_LOGITS], after[MOST_LOGITS];
    const struct subject *s = &subjects[0];
    mb_engine *e, *again;
    mb_bases *all;

    OK(mb_bases_new(&all));
    e = open_at(copy_of(s->folder, "written", LAST, 0), s, NULL, all);
    const int64_t n = ask(s, e, before);
    const size_t base = mb_bases_bytes(all);
    again = open_at(copy_of(s->folder, "written", LAST, 1u << 30), s, NULL, all);
    assert_int_equal(mb_bases_bytes(all), 2 * base);
    ask(s, again, after);
    assert_memory_not_equal(before, after, (size_t)n * sizeof(float));
    assert_bits(s, e, before, n);
    mb_engine_free(e);
    mb_engine_free(again);
    mb_bases_free(all);
}

/* What was taken of a base by a model that could not be opened is given back. */
static void a_model_that_cannot_be_opened_leaves_nothing(void **state)
{
    const struct subject *s = &subjects[0];
    char path[300], half[300], to[400];
    mb_session_options o = {.path = path,
                            .head = s->head,
                            .adapter_path = half,
                            .quiet = true,
                            .engine = {.threads = 1}};
    mb_engine *e, *none;

    snprintf(path, sizeof path, "%s/reference/%s/adapter-before/adapter_config.json", MB_TEST_DATA,
             s->folder);
    snprintf(half, sizeof half, "%s/half", root);
    snprintf(to, sizeof to, "%s/adapter_config.json", half);
    mkdir(half, 0700);
    assert_int_equal(symlink(path, to), 0); /* without its tensors */
    snprintf(path, sizeof path, "%s/reference/%s", MB_TEST_DATA, s->folder);
    OK(mb_bases_new(&o.bases));
    for (int round = 0; round < 2; round++) { /* as the first of its base, and beside another */
        e = round > 0 ? open(s, NULL, o.bases) : NULL;
        const size_t base = mb_bases_bytes(o.bases);
        assert_int_equal(mb_session_open(&o, &none, NULL), MB_EMODEL);
        assert_non_null(strstr(mb_status_sentence(), "half"));
        mb_status_clear();
        assert_int_equal(mb_bases_bytes(o.bases), base);
        mb_engine_free(e);
        assert_int_equal(mb_bases_bytes(o.bases), 0);
    }
    mb_bases_free(o.bases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_have_their_base_once_and_answer_as_alone),
        cmocka_unit_test(other_files_are_the_same_base_if_all_their_numbers_are),
        cmocka_unit_test(rows_of_tokens_stand_in_the_table_of_their_own_base),
        cmocka_unit_test(a_folder_that_was_written_again_is_another_base),
        cmocka_unit_test(a_model_that_cannot_be_opened_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
