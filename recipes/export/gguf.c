/* recipes/export/gguf.c - see recipes/export/gguf.h. */
#include "recipes/export/gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/quantise.h"
#include "core/path.h"
#include "recipes/export/weights.h"

enum { NAME_MAX_BYTES = 256, PIECE = 1 << 20 };

/* A weight on its way into the file. */
struct sink {
    mb_gguf_writer *w;
    const mb_model *m;
    int threads;
    const mb_weight *v;
    mb_dtype dtype;
    float scale;     /* what its numbers are multiplied by */
    float *numbers;  /* a piece, changed as the file has it */
    uint8_t *blocks; /* the same in the file's type */
    size_t numbers_capacity, blocks_capacity;
    float *whole; /* of a matrix that is turned; NULL: none */
};

static bool is_turned(const mb_weight *v)
{
    return (v->row->flags & MB_W_CONV1D) != 0 && v->value.ndim == 2;
}

static int64_t head_rows(const mb_model *m, const mb_weight *v)
{
    return (v->row->flags & (MB_W_ROPE_Q | MB_W_ROPE_K)) != 0 ? m->config.head_dim : 1;
}

/* The row that row r of a head's halves becomes when they are interleaved. */
static int64_t interleaved(int64_t r, int64_t hd)
{
    const int64_t i = r % hd;

    return r - i + (i < hd / 2 ? 2 * i : 2 * (i - hd / 2) + 1);
}

void mb_gguf_permute(const float *x, int64_t rows, int64_t row, int64_t hd, float *y)
{
    for (int64_t r = 0; r < rows; r++)
        memcpy(y + interleaved(r, hd) * row, x + r * row, (size_t)row * sizeof *x);
}

void mb_gguf_unpermute(const float *x, int64_t rows, int64_t row, int64_t hd, float *y)
{
    for (int64_t r = 0; r < rows; r++)
        memcpy(y + r * row, x + interleaved(r, hd) * row, (size_t)row * sizeof *x);
}

static mb_status append(struct sink *s, const float *numbers, int64_t n)
{
    const int64_t bytes = mb_dtype_bytes(s->dtype, n);

    MB_TRY(
        mb_grow((void **)&s->blocks, &s->blocks_capacity, (size_t)bytes, 1, "a tensor's blocks"));
    const mb_status st = mb_quantise(s->dtype, numbers, n, s->blocks, s->threads);
    if (st != MB_OK)
        return mb_status_prefix(st, "weight %s: ", s->v->name);
    return mb_gguf_append(s->w, s->blocks, bytes);
}

/* Whole rows, of permuted weights whole heads. */
static mb_status append_rows(struct sink *s, const float *x, int64_t rows, int64_t row)
{
    const int64_t hd = head_rows(s->m, s->v), n = rows * row;
    const bool plus_1 = (s->v->row->flags & MB_W_GGUF_PLUS_1) != 0;

    MB_TRY(mb_grow((void **)&s->numbers, &s->numbers_capacity, (size_t)n, sizeof *s->numbers,
                   "a piece of a tensor"));
    if (hd > 1)
        mb_gguf_permute(x, rows, row, hd, s->numbers);
    else
        memcpy(s->numbers, x, (size_t)n * sizeof *x);
    for (int64_t i = 0; i < n && (plus_1 || s->scale != 1.0f); i++)
        s->numbers[i] = s->numbers[i] * s->scale + (plus_1 ? 1.0f : 0.0f);
    return append(s, s->numbers, n);
}

static mb_status take_piece(void *ctx, int64_t from, int64_t n, float *numbers)
{
    struct sink *s = ctx;
    const mb_tensor *v = &s->v->value;
    const int64_t row = v->ndim > 1 ? mb_tensor_count(v) / v->dim[0] : 1,
                  hd = head_rows(s->m, s->v),
                  ahead =
                      (s->v->row->flags & MB_W_GGUF_BEHIND) != 0 ? s->m->config.first_position : 0;
    int64_t each = PIECE / row / hd * hd, at = from / row, end = (from + n) / row;

    if (s->whole != NULL) {
        memcpy(s->whole + from, numbers, (size_t)n * sizeof *numbers);
        return MB_OK;
    }
    each = each > hd ? each : hd;
    for (at = at > ahead ? at : ahead; at < end; at += each) {
        const int64_t rows = end - at < each ? end - at : each;
        MB_TRY(append_rows(s, numbers + (at * row - from), rows, row));
    }
    return MB_OK;
}

/* (in,out) as (out,in). */
static mb_status append_turned(struct sink *s)
{
    const int64_t in = s->v->value.dim[0], out = s->v->value.dim[1];
    const int64_t each = PIECE / in > 1 ? PIECE / in : 1;

    MB_TRY(mb_grow((void **)&s->numbers, &s->numbers_capacity, (size_t)(each * in),
                   sizeof *s->numbers, "a piece of a tensor"));
    for (int64_t o = 0; o < out; o += each) {
        const int64_t n = out - o < each ? out - o : each;
        for (int64_t k = 0; k < n; k++)
            for (int64_t i = 0; i < in; i++)
                s->numbers[k * in + i] = s->whole[i * out + o + k];
        MB_TRY(append(s, s->numbers, n * in));
    }
    return MB_OK;
}

static mb_status append_weight(struct sink *s, const mb_export *e, const mb_weight *v, float scale,
                               const char *name, mb_tensor_file *base)
{
    mb_status st;

    s->v = v;
    s->scale = scale;
    s->dtype = mb_gguf_type_of(e->model, v, name, e->dtype);
    if (!is_turned(v))
        return mb_export_weight(e, v, base, take_piece, s);
    MB_TRY(mb_alloc((size_t)mb_tensor_count(&v->value) * sizeof(float), "a matrix to turn",
                    (void **)&s->whole));
    st = mb_export_weight(e, v, base, take_piece, s);
    if (st == MB_OK)
        st = append_turned(s);
    mb_free(s->whole);
    s->whole = NULL;
    return st;
}

/* ---- the model ---------------------------------------------------------------------------- */

/* The head, where logits are scaled: llama.cpp does not, so the weights are. */
static const mb_weight *scaled_head(const mb_model *m)
{
    const mb_model_config *c = &m->config;

    if (c->logit_scale == 0.0f || c->logit_scale == 1.0f)
        return NULL;
    return mb_model_find(m, c->tied ? "shared.weight" : "lm_head.weight");
}

/* The name of the i-th weight in the file; false: it is an adapter's, or written as a scaled head. */
static bool named(const mb_model *m, int i, char *name)
{
    const mb_weight *v = &m->weight[i];

    return v->row != NULL && (v != scaled_head(m) || m->config.tied) &&
           mb_weight_gguf_name(m, v, name, NAME_MAX_BYTES);
}

static mb_status declare(const mb_export *e, mb_gguf_writer *w, const mb_weight *v,
                         const char *name)
{
    int64_t dim[2] = {v->value.dim[0], v->value.ndim > 1 ? v->value.dim[1] : 1};

    MB_REQUIRE(v->value.ndim <= 2, MB_ENOTSUP, "weight %s has %d dimensions", v->name,
               v->value.ndim);
    if (is_turned(v)) {
        dim[0] = v->value.dim[1];
        dim[1] = v->value.dim[0];
    }
    if ((v->row->flags & MB_W_GGUF_BEHIND) != 0)
        dim[0] -= e->model->config.first_position;
    return mb_gguf_declare(w, name, mb_gguf_type_of(e->model, v, name, e->dtype), v->value.ndim,
                           dim);
}

/* Llama 3's stretched rotation: divisors of its frequencies. */
static mb_status declare_rope(const mb_model *m, mb_gguf_writer *w)
{
    return m->config.rope.type == MB_ROPE_LLAMA3
               ? mb_gguf_declare(w, "rope_freqs.weight", MB_DTYPE_F32, 1,
                                 (int64_t[]){m->config.rope.rotated / 2})
               : MB_OK;
}

static mb_status append_rope(const mb_model *m, mb_gguf_writer *w)
{
    const mb_rope_config *r = &m->config.rope;

    for (int64_t i = 0; r->type == MB_ROPE_LLAMA3 && i < r->rotated / 2; i++) {
        const float divisor = (float)mb_rope_divisor(r, i);
        MB_TRY(mb_gguf_append(w, &divisor, sizeof divisor));
    }
    return MB_OK;
}

static mb_status declare_all(const mb_export *e, mb_gguf_writer *w)
{
    const mb_model *m = e->model;
    char name[NAME_MAX_BYTES];

    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *v = &m->weight[i];
        if (named(m, i, name))
            MB_TRY(declare(e, w, v, name));
        else
            MB_REQUIRE(v->row == NULL || v == scaled_head(m), MB_ENOTSUP,
                       "weight %s has no place in GGUF", v->name);
    }
    if (scaled_head(m) != NULL)
        MB_TRY(declare(e, w, scaled_head(m), "output.weight"));
    return declare_rope(m, w);
}

static mb_status append_all(const mb_export *e, struct sink *s)
{
    const mb_model *m = e->model;
    mb_tensor_file *base = NULL;
    char name[NAME_MAX_BYTES];
    mb_status st = mb_export_open_base(e, &base);

    for (int i = 0; i < m->n_weights && st == MB_OK; i++)
        if (named(m, i, name))
            st = append_weight(s, e, &m->weight[i], 1.0f, name, base);
    if (st == MB_OK && scaled_head(m) != NULL)
        st = append_weight(s, e, scaled_head(m), m->config.logit_scale, "output.weight", base);
    mb_tensor_file_close(base);
    return st == MB_OK ? append_rope(m, s->w) : st;
}

static mb_status write_model(const mb_export *e, mb_gguf_writer *w)
{
    struct sink s = {.w = w, .m = e->model, .threads = e->ex->threads};
    const mb_ids none = {0};

    MB_TRY(mb_gguf_keys(e, w));
    MB_TRY(mb_tokenizer_put_gguf(e->tokenizer, e->model->config.vocab,
                                 e->ends != NULL ? e->ends : &none, e->chat_template, w));
    MB_TRY(declare_all(e, w));
    mb_status st = append_all(e, &s);
    mb_free(s.numbers);
    mb_free(s.blocks);
    return st == MB_OK ? mb_gguf_writer_finish(w) : st;
}

mb_status mb_export_gguf(const mb_export *e, const char *path)
{
    mb_gguf_writer *w = NULL;
    mb_status st;

    MB_TRY(mb_gguf_writer_new(path, &w));
    st = write_model(e, w);
    mb_gguf_writer_free(w);
    return st;
}

/* ---- an adapter --------------------------------------------------------------------------- */

static mb_status check_adapter(const mb_export *e, const mb_peft *p)
{
    const mb_model *m = e->model;

    MB_REQUIRE(!p->dora, MB_ENOTSUP,
               "llama.cpp has no DoRA: merge the adapter into its base (format=gguf does)");
    for (int i = 0; i < m->n_weights; i++) {
        char module[384];
        mb_weight_module(&m->weight[i], module, sizeof module);
        MB_REQUIRE(m->weight[i].token_rows == NULL, MB_ENOTSUP,
                   "%s has rows of its own for single tokens, which have no place in an adapter's "
                   "GGUF: merge them into its base (format=gguf)",
                   module);
        MB_REQUIRE(
            m->weight[i].row == NULL || !mb_peft_saves(p, module), MB_ENOTSUP,
            "%s was trained whole, which has no place in an adapter's GGUF: merge it into its "
            "base (format=gguf)",
            module);
    }
    return MB_OK;
}

static mb_status adapter_name(const mb_model *m, const mb_weight *v, const char *end, char *out)
{
    char name[NAME_MAX_BYTES];

    MB_REQUIRE(mb_weight_gguf_name(m, v, name, sizeof name), MB_ENOTSUP,
               "weight %s has no place in GGUF", v->name);
    snprintf(out, 2 * NAME_MAX_BYTES, "%s.%s", name, end);
    return MB_OK;
}

static mb_status adapter_keys(const mb_export *e, const mb_peft *p, mb_gguf_writer *w)
{
    const mb_model *m = e->model;
    /* the scale is alpha / r there */
    const double alpha = p->rslora ? p->alpha * sqrt((double)p->r) : p->alpha;

    MB_TRY(mb_gguf_check(m));
    MB_TRY(mb_gguf_put_string(w, "general.architecture", m->family->gguf_arch));
    MB_TRY(mb_gguf_put_string(w, "general.type", "adapter"));
    MB_TRY(mb_gguf_put_string(
        w, "general.name", e->card != NULL && e->card->title != NULL ? e->card->title : "adapter"));
    MB_TRY(mb_gguf_put_u32(w, "general.file_type", mb_gguf_file_type(e->dtype)));
    MB_TRY(mb_gguf_put_string(w, "general.base_model.0.name", mb_path_base(e->base)));
    MB_TRY(mb_gguf_put_u32(w, "general.base_model.count", 1));
    MB_TRY(mb_gguf_put_string(w, "adapter.type", "lora"));
    return mb_gguf_put_f32(w, "adapter.lora.alpha", (float)alpha);
}

static mb_status append_factor(const mb_export *e, struct sink *s, const mb_weight *factor,
                               bool permuted)
{
    const mb_tensor *v = &factor->value;
    const int64_t n = mb_tensor_count(v);
    float *x = NULL;
    mb_status st;

    MB_TRY(mb_alloc((size_t)(2 * n) * sizeof *x, "an adapter's copy", (void **)&x));
    st = mb_weight_read(e->model, factor, 0, n, x);
    if (permuted)
        mb_gguf_permute(x, v->dim[0], v->dim[1], e->model->config.head_dim, x + n);
    s->v = factor;
    s->dtype = e->dtype;
    if (st == MB_OK)
        st = append(s, permuted ? x + n : x, n);
    mb_free(x);
    return st;
}

static mb_status write_adapter(const mb_export *e, const mb_peft *p, mb_gguf_writer *w,
                               struct sink *s)
{
    const mb_model *m = e->model;
    char name[2 * NAME_MAX_BYTES];

    MB_TRY(check_adapter(e, p));
    MB_TRY(adapter_keys(e, p, w));
    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *v = &m->weight[i];
        if (v->lora_a == NULL)
            continue;
        MB_TRY(adapter_name(m, v, "lora_a", name));
        MB_TRY(mb_gguf_declare(w, name, e->dtype, 2, v->lora_a->value.dim));
        MB_TRY(adapter_name(m, v, "lora_b", name));
        MB_TRY(mb_gguf_declare(w, name, e->dtype, 2, v->lora_b->value.dim));
    }
    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *v = &m->weight[i];
        if (v->lora_a == NULL)
            continue;
        MB_TRY(append_factor(e, s, v->lora_a, false));
        MB_TRY(append_factor(e, s, v->lora_b, head_rows(m, v) > 1));
    }
    return mb_gguf_writer_finish(w);
}

mb_status mb_export_gguf_lora(const mb_export *e, const mb_peft *p, const char *path)
{
    mb_gguf_writer *w = NULL;
    mb_status st;

    MB_REQUIRE(!mb_dtype_is_quantised(e->dtype), MB_EARG,
               "an adapter is written as f32, f16 or bf16, not as %s", mb_dtype_name(e->dtype));
    MB_TRY(mb_gguf_writer_new(path, &w));
    struct sink s = {.w = w, .m = e->model, .threads = e->ex->threads};
    st = write_adapter(e, p, w, &s);
    mb_free(s.blocks);
    mb_gguf_writer_free(w);
    return st;
}

mb_status mb_export_gguf_path(const mb_export *e, const char *dir, char path[4096])
{
    const char *title = e->card != NULL && e->card->title != NULL ? e->card->title : "model";
    char name[300];

    snprintf(name, sizeof name, "%.200s-%s.gguf", title, mb_gguf_type_word(e->dtype));
    return mb_path_join(path, MB_PATH_MAX, dir, name);
}
