/* recipes/cmd/verify.c - holds a model's arithmetic against numbers that PyTorch gave.
 *
 * golden.safetensors (scripts/make_reference.py writes it) holds a batch, its logits, loss, every
 * gradient, ten AdamW losses and the parameters after the third step. Rows of the batch are laid end
 * to end without their padding, so the comparison covers packing too. The first forward and backward
 * take the plain path with whole logits; the ten steps take the fused head.
 *
 * Bounds (f32), printed with the worst tensor of each kind:
 *     logits     1e-4 * max(1, max|ref|), where attention_mask is 1
 *     loss       1e-5
 *     gradients  1e-4 * max|ref| + 1e-6
 *     losses     2e-4 over ten steps
 *     parameters 1e-5 after three steps, where the stored gradient exceeds 1e-4: below that Adam
 *                turns rounding noise into whole steps
 *     adapter    2e-4 after ten steps, likewise; logits of the merged one 1e-4 * max(1, max|ref|)
 *
 * In 16 bits (--dtype; f16 on GPUs) values are rounded to 2^-8 (bf16) or 2^-11 (f16) of themselves at each
 * op, and the bounds are wider: see `bounds`. What is added to gradients covers the biases of keys, whose
 * gradient is nothing but rounding.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "autograd/load.h"
#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/cpu/gemm.h"
#include "core/path.h"
#include "optim/optimizer.h"
#include "recipes/commands.h"
#include "recipes/config/hub_path.h"
#include "recipes/data/collate.h"
#include "recipes/data/frames.h"
#include "recipes/data/patches.h"
#include "recipes/export/adapter.h"
#include "recipes/train/session.h"

/* By what the model computes in. Logits and gradients: shares of the largest number compared with. */
static const struct bounds {
    double logits, loss, gradients, floor, losses, parameters, adapter;
} bounds[] = {
    [MB_DTYPE_F32] = {1e-4, 1e-5, 1e-4, 1e-6, 2e-4, 1e-5, 2e-4},
    [MB_DTYPE_F16] = {4e-3, 1e-3, 1e-2, 4e-5, 1e-2, 1e-3, 1e-2},
    [MB_DTYPE_BF16] = {3e-2, 1e-2, 5e-2, 2e-4, 5e-2, 5e-3, 2e-2},
};

enum { STEPS = 10, PARAMETERS_AFTER = 3 };

struct kind {
    const char *name;
    double bound; /* of worst */
    double worst; /* error / allowed error */
    double error, allowed;
    char where[400];
    int compared;
};

enum { LOGITS, LOSS, GRADIENTS, LOSSES, PARAMETERS, ADAPTER, MERGED, KINDS };

struct verify {
    mb_tensor_file *golden;
    const char *golden_path, *model_path, *adapter;
    mb_device_kind device_kind;
    mb_dtype dtype;
    mb_device *device;
    mb_engine *e;
    mb_arena *memory; /* what golden tensors are read into */
    float *copy;      /* of a weight or gradient of the device */
    size_t copy_capacity;
    mb_batch *batch, *source; /* source: the encoder's side, or NULL */
    int32_t *mask;            /* (B,T), NULL when there is none */
    int64_t rows, columns;    /* B, T */
    struct kind kind[KINDS];
};

static void note(struct kind *k, const char *where, double error, double allowed)
{
    const double share = isnan(error) ? INFINITY : error / allowed;

    k->compared++;
    if (k->compared > 1 && share <= k->worst)
        return;
    k->worst = share;
    k->error = error;
    k->allowed = allowed;
    snprintf(k->where, sizeof k->where, "%s", where);
}

/* ---- golden tensors ----------------------------------------------------------------------- */

static mb_status read_golden(struct verify *v, const char *name, mb_dtype dtype, mb_tensor *out)
{
    const int64_t at = mb_tensor_file_find(v->golden, name);
    void *p;

    MB_REQUIRE(at >= 0, MB_EMODEL, "%s: tensor '%s' is missing", v->golden_path, name);
    const mb_tensor_info *info = mb_tensor_file_info(v->golden, at);
    MB_REQUIRE(info->dtype == dtype, MB_EMODEL, "%s: tensor '%s' is %s, expected %s",
               v->golden_path, name, mb_dtype_name(info->dtype), mb_dtype_name(dtype));
    MB_TRY(mb_arena_take(v->memory, (size_t)info->bytes, &p));
    *out = mb_tensor_of(p, dtype, info->ndim, info->dim);
    return mb_tensor_file_read(v->golden, at, p, 0, info->bytes);
}

static bool has_golden(const struct verify *v, const char *name)
{
    return mb_tensor_file_find(v->golden, name) >= 0;
}

/* ---- the batch ---------------------------------------------------------------------------- */

static void add_target(mb_batch *b, int64_t row, int32_t label)
{
    b->target_row[b->n_targets] = (int32_t)row;
    b->target_label[b->n_targets] = label;
    b->target_weight[b->n_targets] = 1.0f;
    b->n_targets++;
}

static int64_t row_length(const struct verify *v, int64_t r)
{
    int64_t n = 0;

    for (int64_t t = 0; t < v->columns; t++)
        n += v->mask == NULL || v->mask[r * v->columns + t] != 0;
    return n;
}

/* What a row is trained on; NULL: nothing of this kind. */
struct wanted {
    mb_tensor labels, starts, ends;
    bool values; /* labels are numbers */
};

static void add_values(mb_batch *b, int64_t r, const float *value)
{
    add_target(b, r, 0);
    memcpy(b->target_value + r * b->n_values, value, (size_t)b->n_values * sizeof *value);
}

static void add_span(mb_batch *b, int64_t r, const struct wanted *w)
{
    add_target(b, r, mb_i32(&w->starts)[r]);
    add_target(b, r, mb_i32(&w->ends)[r]);
    b->target_weight[b->n_targets - 1] = b->target_weight[b->n_targets - 2] = 0.5f;
}

/* The first rows are anchors; after as many come their candidates and those of nobody. */
static void add_anchor(const struct verify *v, mb_batch *b, int64_t r)
{
    const int64_t anchors = v->rows / 2;

    if (r < anchors)
        add_target(b, r, (int32_t)(anchors + r));
}

static void add_targets(const struct verify *v, const struct wanted *w, int64_t r, int64_t n)
{
    const mb_head head = v->e->model->config.head;
    const int64_t shift = head == MB_HEAD_CAUSAL_LM ? 1 : 0, at = v->batch->used;

    if (head == MB_HEAD_EMBED)
        add_anchor(v, v->batch, r);
    else if (head == MB_HEAD_SPAN)
        add_span(v->batch, r, w);
    else if (w->values)
        add_values(v->batch, r, mb_f32(&w->labels) + r * v->batch->n_values);
    else if (head == MB_HEAD_SEQUENCE)
        add_target(v->batch, r, mb_i32(&w->labels)[r]);
    else if (head != MB_HEAD_SEQ2SEQ) /* whose targets are the decoder's */
        for (int64_t t = shift; t < n; t++)
            if (mb_i32(&w->labels)[r * v->columns + t] >= 0)
                add_target(v->batch, at + t - shift, mb_i32(&w->labels)[r * v->columns + t]);
}

static void fill_row(struct verify *v, const int32_t *ids, const struct wanted *w, int64_t r)
{
    mb_batch *b = v->batch;
    const int64_t n = row_length(v, r), at = b->used;

    b->start[r] = b->k_start[r] = (int32_t)at;
    b->len[r] = b->k_len[r] = (int32_t)n;
    b->seq_ordinal[r] = (int32_t)r;
    for (int64_t t = 0; t < n; t++) {
        b->ids[at + t] = ids[r * v->columns + t];
        b->position[at + t] = (int32_t)t;
        b->ordinal[at + t] = (int32_t)r;
    }
    add_targets(v, w, r, n);
    b->used += n;
    b->n_seq++;
    if (n > b->max_len)
        b->max_len = n;
}

static mb_status check_range(const struct verify *v, const char *name, const mb_tensor *t,
                             int32_t least, int64_t below)
{
    for (int64_t i = 0; i < mb_tensor_count(t); i++)
        MB_REQUIRE(mb_i32(t)[i] >= least && mb_i32(t)[i] < below, MB_EMODEL,
                   "%s: %s holds %d, expected %d to %lld", v->golden_path, name, mb_i32(t)[i],
                   least, (long long)below - 1);
    return MB_OK;
}

/* What the batch's arrays will be indexed with. */
static mb_status check_inputs(const struct verify *v, const mb_tensor *ids)
{
    const mb_model_config *c = &v->e->model->config;

    MB_TRY(check_range(v, "in.input_ids", ids, 0, c->vocab));
    for (int64_t r = 0; r < v->rows; r++)
        MB_REQUIRE(row_length(v, r) > 0, MB_EMODEL, "%s: row %lld has no token", v->golden_path,
                   (long long)r);
    MB_REQUIRE(v->columns <= c->positions, MB_EMODEL,
               "%s: rows of %lld tokens, the model has %lld positions", v->golden_path,
               (long long)v->columns, (long long)c->positions);
    return MB_OK;
}

static mb_status fits(const struct verify *v, const char *name, const mb_tensor *t, int64_t rows,
                      int64_t cols)
{
    MB_REQUIRE(t->ndim >= 1 && t->dim[0] == rows && mb_tensor_count(t) == rows * cols, MB_EMODEL,
               "%s: in.input_ids and %s do not fit together", v->golden_path, name);
    return MB_OK;
}

/* in.labels: classes (B), classes of tokens (B,T), numbers (B,C); in.start_positions and
 * in.end_positions (B); nothing for embeddings. */
static mb_status read_wanted(struct verify *v, struct wanted *w)
{
    const mb_model_config *c = &v->e->model->config;
    const bool whole = c->head == MB_HEAD_SEQUENCE;

    *w = (struct wanted){.values = c->loss == MB_LOSS_SIGMOID || c->loss == MB_LOSS_SQUARED};
    if (c->head == MB_HEAD_EMBED)
        return MB_OK;
    if (c->head == MB_HEAD_SPAN) {
        MB_TRY(read_golden(v, "in.start_positions", MB_DTYPE_I32, &w->starts));
        MB_TRY(read_golden(v, "in.end_positions", MB_DTYPE_I32, &w->ends));
        MB_TRY(fits(v, "in.start_positions", &w->starts, v->rows, 1));
        MB_TRY(fits(v, "in.end_positions", &w->ends, v->rows, 1));
        for (int64_t r = 0; r < v->rows; r++)
            MB_REQUIRE(mb_i32(&w->starts)[r] >= 0 && mb_i32(&w->ends)[r] >= 0 &&
                           mb_i32(&w->starts)[r] < row_length(v, r) &&
                           mb_i32(&w->ends)[r] < row_length(v, r),
                       MB_EMODEL, "%s: the answer of row %lld is outside the row", v->golden_path,
                       (long long)r);
        return MB_OK;
    }
    MB_TRY(read_golden(v, "in.labels", w->values ? MB_DTYPE_F32 : MB_DTYPE_I32, &w->labels));
    const bool own_length = c->head == MB_HEAD_SEQ2SEQ && w->labels.ndim == 2;
    MB_TRY(fits(v, "in.labels", &w->labels, v->rows,
                w->values    ? c->labels
                : whole      ? 1
                : own_length ? w->labels.dim[1]
                             : v->columns));
    if (w->values)
        return MB_OK;
    return check_range(v, "in.labels", &w->labels, whole ? 0 : -100,
                       whole || c->head == MB_HEAD_TOKENS ? c->labels : c->vocab);
}

static mb_status new_batch(struct verify *v, int64_t tokens)
{
    mb_batch *b;

    MB_TRY(mb_batch_new(tokens, v->rows, &v->batch));
    b = v->batch;
    b->tokens = mb_shape_class(tokens, tokens);
    for (int64_t s = 0; s < b->max_seq; s++)
        b->start[s] = -1;
    return MB_OK;
}

static mb_status end_batch(struct verify *v)
{
    mb_batch *b = v->batch;

    mb_batch_end_targets(b);
    MB_REQUIRE(b->n_targets > 0, MB_EMODEL, "%s: no label is trained", v->golden_path);
    return MB_OK;
}

/* in.pixel_values (B,C,H,W), in.labels (B). */
static mb_status image_batch(struct verify *v)
{
    const mb_model_config *c = &v->e->model->config;
    const mb_patches p = mb_patches_of(c);
    mb_tensor pixels, labels;

    MB_TRY(read_golden(v, "in.pixel_values", MB_DTYPE_F32, &pixels));
    MB_TRY(read_golden(v, "in.labels", MB_DTYPE_I32, &labels));
    MB_REQUIRE(pixels.ndim == 4 && pixels.dim[0] > 0 && pixels.dim[1] == p.channels &&
                   pixels.dim[2] == p.height && pixels.dim[3] == p.width && labels.ndim == 1 &&
                   labels.dim[0] == pixels.dim[0],
               MB_EMODEL,
               "%s: in.pixel_values and in.labels do not fit together, or the model's images of "
               "%lld by %lld pixels in %lld channels",
               v->golden_path, (long long)p.height, (long long)p.width, (long long)p.channels);
    MB_TRY(check_range(v, "in.labels", &labels, 0, c->labels));
    v->rows = pixels.dim[0];
    v->columns = mb_patches_tokens(&p);
    MB_TRY(new_batch(v, v->rows * v->columns));
    MB_TRY(mb_patches_reserve(&p, v->batch));
    for (int64_t r = 0; r < v->rows; r++) {
        const float *planes = mb_f32(&pixels) + r * p.channels * p.height * p.width;
        mb_patches_append(&p, v->batch, (int32_t)r);
        mb_patches_cut(&p, planes, mb_patches_rows(&p, v->batch, r));
        add_target(v->batch, r, mb_i32(&labels)[r]);
    }
    return end_batch(v);
}

/* The decoder's side: row r reads a start token and its labels but the last, up to its last one that
 * is trained. */
static void decoder_row(struct verify *v, const int32_t *label, int64_t r)
{
    const mb_model_config *c = &v->e->model->config;
    mb_batch *b = v->batch;
    const int64_t at = b->used;
    int64_t n = v->columns;

    while (n > 1 && label[n - 1] < 0)
        n--;
    b->start[r] = b->k_start[r] = (int32_t)at;
    b->len[r] = b->k_len[r] = (int32_t)n;
    b->seq_ordinal[r] = (int32_t)r;
    for (int64_t t = 0; t < n; t++) {
        const int64_t before = t == 0 ? c->decoder_start_id : label[t - 1];

        b->ids[at + t] = (int32_t)(before >= 0 ? before : c->pad_id);
        b->position[at + t] = (int32_t)t;
        b->ordinal[at + t] = (int32_t)r;
        if (label[t] >= 0)
            add_target(b, at + t, label[t]);
    }
    b->used += n;
    b->n_seq++;
    if (n > b->max_len)
        b->max_len = n;
}

/* v->batch becomes the source of a new one, made from labels (B,U). */
static mb_status decoder_batch(struct verify *v, const mb_tensor *labels)
{
    const mb_model_config *c = &v->e->model->config;

    MB_REQUIRE(c->decoder_start_id >= 0 && c->decoder_start_id < c->vocab && c->pad_id >= 0 &&
                   c->pad_id < c->vocab,
               MB_EMODEL, "%s: config.json gives no decoder_start_token_id and pad_token_id",
               v->model_path);
    v->source = v->batch;
    v->batch = NULL;
    v->columns = labels->dim[1];
    MB_TRY(new_batch(v, v->rows * v->columns));
    for (int64_t r = 0; r < v->rows; r++)
        decoder_row(v, mb_i32(labels) + r * v->columns, r);
    v->batch->source = v->source;
    return MB_OK;
}

/* in.input_features (B,bins,frames), in.labels (B,U). */
static mb_status sound_batch(struct verify *v)
{
    const mb_model_config *c = &v->e->model->config;
    mb_tensor sound, labels;

    MB_TRY(read_golden(v, "in.input_features", MB_DTYPE_F32, &sound));
    MB_TRY(read_golden(v, "in.labels", MB_DTYPE_I32, &labels));
    MB_REQUIRE(sound.ndim == 3 && sound.dim[0] > 0 && sound.dim[1] == c->mel_bins &&
                   sound.dim[2] > 0 && sound.dim[2] % 2 == 0 &&
                   sound.dim[2] <= 2 * c->source_positions && labels.ndim == 2 &&
                   labels.dim[0] == sound.dim[0] && labels.dim[1] > 0,
               MB_EMODEL,
               "%s: in.input_features and in.labels do not fit together, or the model's up to %lld "
               "frames of %lld numbers",
               v->golden_path, (long long)(2 * c->source_positions), (long long)c->mel_bins);
    MB_TRY(check_range(v, "in.labels", &labels, -100, c->vocab));
    const mb_frames f = {.bins = c->mel_bins, .tokens = sound.dim[2] / 2};
    v->rows = sound.dim[0];
    MB_TRY(new_batch(v, v->rows * f.tokens));
    MB_TRY(mb_frames_reserve(&f, v->batch));
    for (int64_t r = 0; r < v->rows; r++) {
        mb_frames_append(&f, v->batch, (int32_t)r);
        mb_frames_turn(&f, mb_f32(&sound) + r * sound.dim[1] * sound.dim[2],
                       mb_frames_rows(&f, v->batch, r));
    }
    MB_TRY(decoder_batch(v, &labels));
    return end_batch(v);
}

static mb_status make_batch(struct verify *v)
{
    const mb_model_config *c = &v->e->model->config;
    mb_tensor ids, mask;
    struct wanted w;

    if (c->family->sees_images)
        return image_batch(v);
    if (c->mel_bins > 0)
        return sound_batch(v);

    MB_TRY(read_golden(v, "in.input_ids", MB_DTYPE_I32, &ids));
    MB_REQUIRE(ids.ndim == 2 && ids.dim[0] > 0 && ids.dim[1] > 0, MB_EMODEL,
               "%s: in.input_ids is not a matrix", v->golden_path);
    v->rows = ids.dim[0];
    v->columns = ids.dim[1];
    if (has_golden(v, "in.attention_mask")) {
        MB_TRY(read_golden(v, "in.attention_mask", MB_DTYPE_I32, &mask));
        MB_REQUIRE(mb_tensor_same_shape(&ids, &mask), MB_EMODEL,
                   "%s: in.attention_mask has another shape than in.input_ids", v->golden_path);
        v->mask = mask.data;
    }
    MB_TRY(check_inputs(v, &ids));
    MB_TRY(read_wanted(v, &w));
    MB_TRY(new_batch(v, v->rows * v->columns));
    MB_TRY(mb_batch_reserve_values(v->batch, w.values ? c->labels : 1));
    for (int64_t r = 0; r < v->rows; r++)
        fill_row(v, ids.data, &w, r);
    if (c->head == MB_HEAD_SEQ2SEQ)
        MB_TRY(decoder_batch(v, &w.labels));
    return end_batch(v);
}

/* ---- comparisons -------------------------------------------------------------------------- */

static double largest(const mb_tensor *t)
{
    double m = 0.0;

    for (int64_t i = 0; i < mb_tensor_count(t); i++)
        m = fmax(m, fabs((double)mb_f32(t)[i]));
    return m;
}

static double difference(const float *a, const float *b, int64_t n)
{
    double m = 0.0;

    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        m = isnan(d) ? NAN : fmax(m, d);
        if (isnan(m))
            return m;
    }
    return m;
}

static mb_status compare_logits(struct verify *v, const mb_tensor *logits, const mb_tensor *ref,
                                int kind)
{
    const mb_model_config *c = &v->e->model->config;
    const int64_t width = mb_cols(logits);
    const bool whole = c->head == MB_HEAD_SEQUENCE || c->head == MB_HEAD_EMBED;
    const int64_t dim[] = {v->rows, whole ? width : v->columns, width};
    const mb_tensor wanted = mb_tensor_of(NULL, MB_DTYPE_F32, whole ? 2 : 3, dim);
    const double allowed = bounds[v->dtype].logits * fmax(1.0, largest(ref));
    char where[64], a[96], b[96];

    MB_REQUIRE(mb_tensor_same_shape(ref, &wanted), MB_EMODEL,
               "%s: %s has shape %s, the model's logits %s", v->golden_path,
               kind == MERGED ? "merged.logits" : "out.logits", mb_tensor_shape(ref, a, sizeof a),
               mb_tensor_shape(&wanted, b, sizeof b));
    for (int64_t r = 0; r < v->rows; r++) {
        const int64_t n = whole ? 1 : v->batch->len[r];
        for (int64_t t = 0; t < n; t++) {
            const float *mine = mb_row(logits, whole ? r : v->batch->start[r] + t);
            const float *theirs = mb_f32(ref) + (whole ? r : r * v->columns + t) * width;
            snprintf(where, sizeof where, "row %lld, token %lld", (long long)r, (long long)t);
            note(&v->kind[kind], where, difference(mine, theirs, width), allowed);
        }
    }
    return MB_OK;
}

/* A weight or gradient where the host can read it, good until the next call. */
static mb_status here(struct verify *v, const mb_weight *w, bool gradient, mb_tensor *out)
{
    const mb_tensor *t = gradient ? &w->grad : &w->value;

    *out = *t;
    if (mb_device_is_host(v->device) && t->dtype == MB_DTYPE_F32)
        return MB_OK;
    out->dtype = MB_DTYPE_F32;
    MB_TRY(mb_grow((void **)&v->copy, &v->copy_capacity, (size_t)mb_tensor_count(t),
                   sizeof *v->copy, "a copy of a weight"));
    out->data = v->copy;
    return gradient ? mb_weight_read_grad(v->e->model, w, v->copy)
                    : mb_weight_read(v->e->model, w, 0, mb_tensor_count(t), v->copy);
}

static void disk_name(const struct verify *v, const mb_weight *w, char *out, size_t size)
{
    if (v->adapter != NULL)
        mb_weight_peft_name(w, out, size);
    else
        snprintf(out, size, "%s", w->name);
}

static mb_status golden_of(struct verify *v, const char *what, const mb_weight *w, mb_tensor *out,
                           char *name, size_t size)
{
    char full[400];

    disk_name(v, w, name, size);
    snprintf(full, sizeof full, "%s.%s", what, name);
    MB_TRY(read_golden(v, full, MB_DTYPE_F32, out));
    MB_REQUIRE(mb_tensor_count(out) == mb_tensor_count(&w->value), MB_EMODEL,
               "%s: tensor '%s' has %lld numbers, the model %lld", v->golden_path, full,
               (long long)mb_tensor_count(out), (long long)mb_tensor_count(&w->value));
    return MB_OK;
}

static mb_status compare_gradients(struct verify *v)
{
    const mb_model *m = v->e->model;
    char name[384];
    mb_tensor ref, mine;
    int64_t n = 0, stored = 0;

    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *w = &m->weight[i];
        if (!w->trained)
            continue;
        MB_TRY(golden_of(v, "grad", w, &ref, name, sizeof name));
        MB_TRY(here(v, w, true, &mine));
        note(&v->kind[GRADIENTS], name,
             difference(mb_f32(&mine), mb_f32(&ref), mb_tensor_count(&ref)),
             bounds[v->dtype].gradients * largest(&ref) + bounds[v->dtype].floor);
        n++;
    }
    for (int64_t i = 0; i < mb_tensor_file_count(v->golden); i++)
        stored += strncmp(mb_tensor_file_info(v->golden, i)->name, "grad.", 5) == 0;
    MB_REQUIRE(n == stored, MB_ENUM, "%s holds %lld gradients, the model has %lld trained tensors",
               v->golden_path, (long long)stored, (long long)n);
    return MB_OK;
}

/* |value - ref| where the stored gradient is large enough to mean something. */
static double settled_difference(const mb_tensor *value, const mb_tensor *ref,
                                 const mb_tensor *grad)
{
    double m = 0.0;

    for (int64_t i = 0; i < mb_tensor_count(ref); i++) {
        if (fabs((double)mb_f32(grad)[i]) <= 1e-4)
            continue;
        const double d = fabs((double)mb_f32(value)[i] - (double)mb_f32(ref)[i]);
        if (isnan(d))
            return d;
        m = fmax(m, d);
    }
    return m;
}

static mb_status compare_parameters(struct verify *v)
{
    const mb_model *m = v->e->model;
    char name[384];
    mb_tensor ref, grad, mine;

    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *w = &m->weight[i];
        if (!w->trained)
            continue;
        MB_TRY(golden_of(v, "param", w, &ref, name, sizeof name));
        MB_TRY(golden_of(v, "grad", w, &grad, name, sizeof name));
        MB_TRY(here(v, w, false, &mine));
        note(&v->kind[PARAMETERS], name, settled_difference(&mine, &ref, &grad),
             bounds[v->dtype].parameters);
    }
    return MB_OK;
}

/* ---- adapters ----------------------------------------------------------------------------- */

static mb_status compare_adapter(struct verify *v, const char *dir)
{
    const mb_model *m = v->e->model;
    mb_tensor_file *golden = v->golden, *after = NULL;
    char path[4096], name[384];
    mb_tensor ref, grad, mine;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(path, sizeof path, dir, "adapter_model.safetensors"));
    MB_TRY(mb_tensor_file_open(path, &after));
    for (int i = 0; i < m->n_weights && st == MB_OK; i++) {
        const mb_weight *w = &m->weight[i];
        if (!w->trained)
            continue;
        MB_TRY_GOTO(golden_of(v, "grad", w, &grad, name, sizeof name), st, done);
        v->golden = after;
        st = read_golden(v, name, MB_DTYPE_F32, &ref);
        v->golden = golden;
        if (st == MB_OK && !mb_tensor_same_shape(&ref, &w->value))
            st = MB_RAISE(MB_EMODEL, "%s: tensor '%s' has another shape than the adapter's", path,
                          name);
        if (st == MB_OK)
            st = here(v, w, false, &mine);
        if (st == MB_OK)
            note(&v->kind[ADAPTER], name, settled_difference(&mine, &ref, &grad),
                 bounds[v->dtype].adapter);
    }
done:
    mb_tensor_file_close(after);
    return st;
}

/* The adapter PyTorch had after ten steps, merged by us, against its merged model's logits. */
static mb_status compare_merged(struct verify *v, const char *dir, const char *merged)
{
    mb_tensor_file *golden = v->golden, *f = NULL;
    const char *golden_path = v->golden_path;
    mb_tensor logits, ref;
    mb_status st = MB_OK;

    MB_TRY(mb_adapter_load(v->e->model, dir, &v->e->host));
    MB_TRY(mb_model_merge_lora(v->e->model, &v->e->ex));
    MB_TRY(mb_engine_logits(v->e, v->batch, NULL, &logits));
    MB_TRY(mb_tensor_file_open(merged, &f));
    v->golden = f;
    v->golden_path = merged;
    MB_TRY_GOTO(read_golden(v, "merged.logits", MB_DTYPE_F32, &ref), st, done);
    st = compare_logits(v, &logits, &ref, MERGED);
done:
    v->golden = golden;
    v->golden_path = golden_path;
    mb_tensor_file_close(f);
    return st;
}

static mb_status after_ten_steps(struct verify *v)
{
    char dir[4096], merged[4096];

    if (v->adapter == NULL)
        return MB_OK;
    MB_TRY(mb_path_join(dir, sizeof dir, v->model_path, "adapter-after-10-steps"));
    MB_TRY(mb_path_join(merged, sizeof merged, v->model_path, "merged.safetensors"));
    if (!mb_path_is_dir(dir))
        return MB_OK;
    MB_TRY(compare_adapter(v, dir));
    return mb_path_exists(merged) ? compare_merged(v, dir, merged) : MB_OK;
}

/* ---- the run ------------------------------------------------------------------------------ */

static double weight_of(const mb_batch *b)
{
    double sum = 0.0;

    for (int64_t i = 0; i < b->n_targets; i++)
        sum += (double)b->target_weight[i];
    return sum;
}

static mb_status first_pass(struct verify *v)
{
    mb_tensor logits, ref, loss;
    mb_micro_result r;

    MB_TRY(mb_engine_zero_grad(v->e));
    MB_TRY(mb_engine_plain(v->e, v->batch, weight_of(v->batch), &logits, &r));
    MB_TRY(read_golden(v, "out.loss", MB_DTYPE_F32, &loss));
    MB_REQUIRE(mb_tensor_count(&loss) == 1, MB_EMODEL, "%s: out.loss has %lld entries, not 1",
               v->golden_path, (long long)mb_tensor_count(&loss));
    note(&v->kind[LOSS], "loss", fabs(r.loss / r.weight - (double)mb_f32(&loss)[0]),
         bounds[v->dtype].loss);
    MB_TRY(compare_gradients(v));
    MB_TRY(mb_engine_logits(v->e, v->batch, NULL, &logits));
    MB_TRY(read_golden(v, "out.logits", MB_DTYPE_F32, &ref));
    return compare_logits(v, &logits, &ref, LOGITS);
}

static mb_status update(struct verify *v, mb_tensor *state, int64_t t, float grad_scale)
{
    static const mb_optim_hyper hyper = {
        .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f};
    mb_flat *f = &v->e->flat;
    const mb_optim_param param = {
        .whole = f->own_param, .hi = f->half, .lo = f->own_low, .joined = mb_f32(&state[2])};
    const mb_optim_step step = {.t = t, .lr = 1e-3f, .grad_scale = grad_scale};

    MB_TRY(mb_optim_update(mb_optim_find("adamw"), &v->e->ex, &hyper, &step, f, 0, f->count, &param,
                           state, f->grad));
    return mb_flat_round(&v->e->ex, f);
}

static mb_status ten_steps(struct verify *v, mb_tensor *state)
{
    mb_tensor losses;
    char where[32];

    MB_TRY(read_golden(v, "train.losses", MB_DTYPE_F32, &losses));
    MB_REQUIRE(mb_tensor_count(&losses) == STEPS, MB_EMODEL,
               "%s: train.losses has %lld entries, "
               "not %d",
               v->golden_path, (long long)mb_tensor_count(&losses), STEPS);
    for (int s = 0; s < STEPS; s++) {
        mb_micro_result r;
        MB_TRY(mb_engine_zero_grad(v->e));
        MB_TRY(mb_engine_micro(v->e, v->batch, true, &r));
        snprintf(where, sizeof where, "step %d", s);
        note(&v->kind[LOSSES], where, fabs(r.loss / r.weight - (double)mb_f32(&losses)[s]),
             bounds[v->dtype].losses);
        MB_TRY(update(v, state, s + 1, (float)(1.0 / r.weight)));
        if (s + 1 == PARAMETERS_AFTER)
            MB_TRY(compare_parameters(v));
    }
    return after_ten_steps(v);
}

static mb_status with_optimizer(struct verify *v)
{
    const int64_t n = v->e->flat.count;
    mb_arena *memory = NULL;
    mb_tensor state[3]; /* two moments, and parameters that are being joined */
    mb_status st = MB_OK;
    void *p;

    for (int i = 0; i < v->e->flat.n_segments; i++) /* as the reference does */
        v->e->flat.segment[i].decay = true;
    MB_TRY(mb_device_arena(v->device, "optimizer state", 3 * (size_t)n * sizeof(float) + 4096,
                           &memory));
    for (int i = 0; i < 3; i++) {
        MB_TRY_GOTO(mb_arena_take(memory, (size_t)n * sizeof(float), &p), st, done);
        state[i] = mb_tensor_1d(p, MB_DTYPE_F32, n);
        MB_TRY_GOTO(mb_device_zero(v->device, &state[i]), st, done);
    }
    st = ten_steps(v, state);
done:
    mb_arena_free(memory);
    return st;
}

static mb_status report(const struct verify *v)
{
    const bool host = mb_device_is_host(v->device);
    bool good = true;

    printf("%s (%s, %s, %s%s)\n", v->model_path, v->e->model->family->name, mb_dtype_name(v->dtype),
           host ? "gemm " : "", host ? mb_cpu_gemm_provider() : v->device->class_);
    for (int i = 0; i < KINDS; i++) {
        const struct kind *k = &v->kind[i];
        if (k->compared == 0)
            continue;
        const bool ok = k->worst <= 1.0;
        printf("  %-10s %s  worst %.3g, allowed %.3g  (%d compared; %s)\n", k->name,
               ok ? "ok  " : "FAIL", k->error, k->allowed, k->compared, k->where);
        good = good && ok;
    }
    MB_REQUIRE(good, MB_ENUM, "%s does not agree with %s", v->model_path, v->golden_path);
    return MB_OK;
}

static mb_status run(struct verify *v)
{
    MB_TRY(make_batch(v));
    MB_TRY(mb_engine_reserve_for(v->e, v->batch, true, 0));
    v->e->model->dropout_scale = 0.0f;
    MB_TRY(first_pass(v));
    MB_TRY(with_optimizer(v));
    return report(v);
}

/* For what is read, gradients more than once, an adapter, its merged logits, and AdamW's state. */
static size_t golden_bytes(const mb_tensor_file *f)
{
    size_t bytes = 1 << 20;

    for (int64_t i = 0; i < mb_tensor_file_count(f); i++)
        bytes += 6 * ((size_t)mb_tensor_file_info(f, i)->bytes + 64);
    return bytes;
}

static mb_status open_all(struct verify *v)
{
    mb_session_options o = {.path = v->model_path,
                            .adapter_path = v->adapter,
                            .trained = v->adapter != NULL ? MB_TRAINED_ADAPTER : MB_TRAINED_ALL,
                            .quiet = true,
                            .engine = {.threads = mb_default_threads()}};
    mb_json_doc *doc = NULL;

    MB_TRY(mb_cpu_init());
    MB_TRY(mb_device_open(v->device_kind, 0, mb_default_threads(), &v->device));
    o.engine.device = v->device;
    o.engine.dtype = v->dtype;
    MB_REQUIRE(v->dtype != MB_DTYPE_F16 || !mb_device_is_host(v->device), MB_ENOTSUP,
               "--dtype f16 is for GPUs");
    MB_TRY(mb_model_config_doc(v->model_path, &doc));
    o.head = mb_model_config_head(doc, MB_HEAD_CAUSAL_LM);
    mb_json_free(doc);
    MB_TRY(mb_tensor_file_open(v->golden_path, &v->golden));
    MB_TRY(mb_arena_new("reference numbers", golden_bytes(v->golden), &v->memory));
    return mb_session_open(&o, &v->e, NULL);
}

static mb_status dtype_of(const char *name, mb_dtype *out)
{
    static const char *const names[] = {
        [MB_DTYPE_F32] = "f32", [MB_DTYPE_F16] = "f16", [MB_DTYPE_BF16] = "bf16"};

    for (int i = 0; i <= MB_DTYPE_BF16; i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        *out = (mb_dtype)i;
        return MB_OK;
    }
    return MB_RAISE(MB_EARG, "--dtype is f32, bf16 or f16, not '%s'", name);
}

mb_status mb_cmd_verify(int argc, char **argv)
{
    struct verify v = {.kind = {[LOGITS] = {.name = "logits"},
                                [LOSS] = {.name = "loss"},
                                [GRADIENTS] = {.name = "gradients"},
                                [LOSSES] = {.name = "losses"},
                                [PARAMETERS] = {.name = "parameters"},
                                [ADAPTER] = {.name = "adapter"},
                                [MERGED] = {.name = "merged"}}};
    char adapter[MB_PATH_MAX], model[MB_PATH_MAX];
    mb_status st;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--adapter") == 0 && i + 1 < argc)
            v.adapter = argv[++i];
        else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            MB_TRY(mb_device_kind_of(argv[++i], &v.device_kind));
        else if (strcmp(argv[i], "--dtype") == 0 && i + 1 < argc)
            MB_TRY(dtype_of(argv[++i], &v.dtype));
        else if (v.model_path == NULL)
            v.model_path = argv[i];
        else
            v.golden_path = argv[i];
    }
    MB_REQUIRE(v.golden_path != NULL, MB_EARG,
               "usage: mbuyu verify MODEL_DIR golden.safetensors [--adapter DIR] [--device "
               "auto|cpu|cuda] [--dtype f32|bf16|f16]");
    MB_TRY(mb_hub_model(v.model_path, model, sizeof model));
    v.model_path = model;
    MB_TRY(mb_path_join(adapter, sizeof adapter, v.model_path, "adapter-before"));
    if (v.adapter == NULL && mb_path_is_dir(adapter))
        v.adapter = adapter;
    st = open_all(&v);
    if (st == MB_OK)
        st = run(&v);
    mb_batch_free(v.batch);
    mb_batch_free(v.source);
    mb_engine_free(v.e);
    mb_device_close(v.device);
    mb_arena_free(v.memory);
    mb_free(v.copy);
    mb_tensor_file_close(v.golden);
    return st;
}
