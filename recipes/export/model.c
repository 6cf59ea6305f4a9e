/* recipes/export/model.c - see recipes/export/model.h. */
#include "recipes/export/model.h"

#include <stdio.h>
#include <string.h>

#include "autograd/load.h"
#include "core/alloc.h"
#include "core/formats/safetensors_writer.h"
#include "core/path.h"
#include "recipes/export/adapter.h"
#include "recipes/export/hf_folder.h"
#include "recipes/export/sentence_files.h"
#include "recipes/export/weights.h"
#include "recipes/media/image_processor.h"
#include "recipes/media/mel_config.h"

enum {
    CHUNK = 1 << 20, /* elements converted at a time */
    MODULE_MAX = 384,
};

static bool written(const mb_weight *w)
{
    return w->row != NULL; /* adapters have no row */
}

/* What pieces of a weight go through on their way into the file. */
struct piece {
    mb_safetensors_writer *w;
    const mb_export *e;
    void *work; /* CHUNK numbers */
};

/* n numbers in the type of the export. */
static mb_status append_numbers(void *ctx, int64_t from, int64_t n, float *numbers)
{
    const struct piece *p = ctx;

    (void)from;
    if (p->e->dtype == MB_DTYPE_F32)
        return mb_safetensors_append(p->w, numbers, n * (int64_t)sizeof *numbers);
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int64_t k = n - at < CHUNK ? n - at : CHUNK;
        const mb_tensor in = mb_tensor_1d(numbers + at, MB_DTYPE_F32, k);
        mb_tensor out = mb_tensor_1d(p->work, p->e->dtype, k);
        MB_TRY(MB_RUN(p->e->ex, cast, &out, &in));
        MB_TRY(mb_safetensors_append(p->w, p->work, mb_tensor_bytes(&out)));
    }
    return MB_OK;
}

static mb_status write_all(const mb_export *e, mb_safetensors_writer *w, void *work)
{
    const mb_model *m = e->model;

    for (int i = 0; i < m->n_weights; i++)
        if (written(&m->weight[i]))
            MB_TRY(mb_safetensors_declare(w, m->weight[i].name, e->dtype, m->weight[i].value.ndim,
                                          m->weight[i].value.dim));
    mb_tensor_file *base = NULL;
    struct piece p = {w, e, work};
    mb_status st = mb_export_open_base(e, &base);
    for (int i = 0; i < m->n_weights && st == MB_OK; i++)
        if (written(&m->weight[i]))
            st = mb_export_weight(e, &m->weight[i], base, append_numbers, &p);
    mb_tensor_file_close(base);
    return st == MB_OK ? mb_safetensors_finish(w) : st;
}

static mb_status write_weights(const mb_export *e, const char *dir)
{
    mb_safetensors_writer *w = NULL;
    void *work = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_alloc(CHUNK * sizeof(float), "the export", &work));
    MB_TRY_GOTO(mb_safetensors_writer_new(dir, "model", e->max_shard_bytes, &w), st, done);
    st = write_all(e, w, work);
done:
    mb_safetensors_writer_free(w);
    mb_free(work);
    return st;
}

/* generate() of transformers then asks for this language, instead of guessing one. */
static mb_status name_language(const mb_export *e, const char *dir)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc;
    mb_status st;

    MB_TRY(mb_path_join(path, sizeof path, dir, "generation_config.json"));
    MB_TRY(mb_json_read(path, MB_EMODEL, 1 << 24, &doc));
    mb_json_remove(mb_json_root(doc), "forced_decoder_ids"); /* how it was said before */
    st = mb_json_set_string(mb_json_root(doc), "language", e->language);
    if (st == MB_OK)
        st = mb_json_set_string(mb_json_root(doc), "task", e->speech_task);
    if (st == MB_OK)
        st = mb_json_write(mb_json_root(doc), 2, path);
    mb_json_free(doc);
    return st;
}

/* generate() of transformers then stops where mbuyu does: its list has every token that ends an answer. */
static mb_status name_ends(const mb_export *e, const char *dir)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc;
    mb_json list;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(path, sizeof path, dir, "generation_config.json"));
    if (e->ends == NULL || e->ends->n < 2 || !mb_path_is_file(path))
        return MB_OK;
    MB_TRY(mb_json_read(path, MB_EMODEL, 1 << 24, &doc));
    const mb_json old = mb_json_get(mb_json_root(doc), "eos_token_id");
    if (mb_json_is(old, MB_JSON_ARRAY) && mb_json_count(old) == e->ends->n)
        goto done; /* the same: they were taken from there first */
    MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), "eos_token_id", &list), st, done);
    for (size_t i = 0; i < e->ends->n; i++)
        MB_TRY_GOTO(mb_json_set_int(list, NULL, e->ends->id[i]), st, done);
    st = mb_json_write(mb_json_root(doc), 2, path);
done:
    mb_json_free(doc);
    return st;
}

/* The template a model was trained with, where it is not the tokenizer's. Readers prefer this file. */
static mb_status write_template(const mb_export *e, const char *dir)
{
    const char *own = mb_tokenizer_chat_template(e->tokenizer);
    char path[MB_PATH_MAX];

    if (e->chat_template == NULL || (own != NULL && strcmp(own, e->chat_template) == 0))
        return MB_OK;
    MB_TRY(mb_path_join(path, sizeof path, dir, "chat_template.jinja"));
    return mb_file_write_atomic(path, e->chat_template, strlen(e->chat_template));
}

/* What turns the users' texts, pictures or sounds into what the model reads. */
static mb_status write_inputs(void *ctx, const char *dir)
{
    const mb_export *e = ctx;
    const mb_model_config *c = &e->model->config;
    mb_image_processor p;

    if (c->mel_bins > 0)
        MB_TRY(mb_mel_config_write(mb_path_is_dir(e->base) ? e->base : NULL, c->mel_bins,
                                   c->source_positions / 50, dir));
    if (!c->family->sees_images) {
        MB_TRY(mb_tokenizer_save(e->tokenizer, dir));
        return write_template(e, dir);
    }
    MB_TRY(mb_image_processor_read(e->base, c->image_height, c->image_width, c->channels, &p));
    return mb_image_processor_write(&p, "ViTImageProcessor", e->base, dir);
}

mb_status mb_export_not_the_base(const mb_export *e, const char *dir)
{
    char a[MB_PATH_MAX], b[MB_PATH_MAX];

    if (!mb_path_exists(dir))
        return MB_OK;
    MB_TRY(mb_path_real(dir, a, sizeof a));
    MB_TRY(mb_path_real(e->base, b, sizeof b));
    MB_REQUIRE(strcmp(a, b) != 0, MB_EARG,
               "%s is the base model itself: choose another folder to write to", dir);
    return MB_OK;
}

static const char *dtype_word(mb_dtype d)
{
    return d == MB_DTYPE_BF16 ? "bfloat16" : d == MB_DTYPE_F16 ? "float16" : "float32";
}

static mb_hf_edits edits(const mb_export *e)
{
    const mb_model_config *c = &e->model->config;
    mb_hf_edits out = {.dtype = dtype_word(e->dtype), .tied = c->tied ? 1 : -1};

    /* a family shared by several classes (Mistral) keeps the class it came with */
    if (mb_json_count(mb_json_get(e->config, "architectures")) == 0 ||
        (c->head != MB_HEAD_CAUSAL_LM && c->head != MB_HEAD_SEQ2SEQ))
        out.architecture = c->family->architecture[c->head];
    if (c->head == MB_HEAD_SEQUENCE || c->head == MB_HEAD_TOKENS) {
        out.num_labels = c->labels;
        out.label = e->label;
    }
    if (c->head == MB_HEAD_SEQUENCE)
        out.problem_type = c->loss == MB_LOSS_SIGMOID   ? "multi_label_classification"
                           : c->loss == MB_LOSS_SQUARED ? "regression"
                                                        : "single_label_classification";
    return out;
}

mb_status mb_export_hf(const mb_export *e, const char *dir)
{
    const mb_hf_folder f = {.config = e->config,
                            .base_dir = mb_path_is_dir(e->base) ? e->base : NULL,
                            .edits = edits(e),
                            .write_tokenizer = write_inputs,
                            .tokenizer_ctx = (void *)(uintptr_t)e,
                            .card = e->card};

    MB_TRY(mb_export_not_the_base(e, dir));
    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(mb_hf_write_folder(dir, &f));
    if (e->model->config.head == MB_HEAD_EMBED)
        MB_TRY(mb_sentence_files_write(dir, f.base_dir, e->model->config.width,
                                       e->model->config.positions));
    if (e->model->config.mel_bins > 0 && e->language != NULL)
        MB_TRY(name_language(e, dir));
    MB_TRY(name_ends(e, dir));
    return write_weights(e, dir);
}

mb_status mb_export_peft(const mb_export *e, const mb_peft *p, const char *dir)
{
    MB_TRY(mb_export_not_the_base(e, dir));
    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(mb_adapter_write_tensors(e->model, dir));
    MB_TRY(mb_peft_write(dir, p));
    MB_TRY(write_inputs((void *)(uintptr_t)e, dir));
    return e->card != NULL ? mb_card_write(dir, e->card) : MB_OK;
}

/* Numbers on their way, those of a frozen weight out of the base, and a tokenizer's text. */
size_t mb_export_bytes(const mb_model *m)
{
    return 2 * CHUNK * sizeof(float) + (m->dtype != MB_DTYPE_F32 ? mb_model_load_bytes(m) : 0) +
           (size_t)m->config.vocab * 128;
}

/* ---- what PEFT calls target_modules -------------------------------------------------------- */

static bool ends_with_parts(const char *module, const char *end)
{
    const size_t n = strlen(module), k = strlen(end);

    return n >= k && strcmp(module + n - k, end) == 0 && (n == k || module[n - k - 1] == '.');
}

/* Would PEFT put an adapter where there is none? */
static bool names_too_much(const mb_model *m, const char *end)
{
    char module[MODULE_MAX];

    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *w = &m->weight[i];

        if (w->row == NULL || w->lora_a != NULL || w->value.ndim != 2)
            continue;
        mb_weight_module(w, module, sizeof module);
        if (ends_with_parts(module, end))
            return true;
    }
    return false;
}

/* The shortest ending of a module's path that names only modules with adapters. */
static const char *shortest(const mb_model *m, const char *module)
{
    const char *end = module + strlen(module);

    while (end > module) {
        do
            end--;
        while (end > module && end[-1] != '.');
        if (!names_too_much(m, end))
            break;
    }
    return end;
}

static bool listed(const char *const *names, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

mb_status mb_export_targets(const mb_model *m, const char **names, int most, int64_t *count)
{
    char module[MODULE_MAX];
    int n = 0;

    for (int i = 0; i < m->n_weights; i++) {
        const char *end;

        if (m->weight[i].lora_a == NULL)
            continue;
        mb_weight_module(&m->weight[i], module, sizeof module);
        end = shortest(m, module);
        if (listed(names, n, end))
            continue;
        MB_REQUIRE(n < most, MB_ENOTSUP, "an adapter on more than %d kinds of modules", most);
        MB_TRY(mb_arena_strdup(m->strings, end, &names[n++]));
    }
    *count = n;
    return MB_OK;
}
