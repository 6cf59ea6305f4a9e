/* autograd/load.c - see autograd/load.h. */
#include "autograd/load.h"

#include <stdio.h>
#include <string.h>

#include "autograd/positions.h"
#include "core/alloc.h"
#include "core/log.h"
#include "core/rng.h"

enum { NAME_MAX_BYTES = 256, PIECE = 1 << 20 }; /* elements that are read at a time */

/* ---- names -------------------------------------------------------------------------------- */

bool mb_weight_gguf_name(const mb_model *m, const mb_weight *w, char *out, size_t size)
{
    const char *pattern = w->row != NULL ? w->row->gguf : NULL;
    const char *at = pattern != NULL ? strstr(pattern, "{l}") : NULL;
    const int64_t l = w->layer < m->config.layers ? w->layer : w->layer - m->config.layers;

    if (pattern == NULL)
        return false;
    if (at == NULL)
        snprintf(out, size, "%s", pattern);
    else
        snprintf(out, size, "%.*s%lld%s", (int)(at - pattern), pattern, (long long)l, at + 3);
    return true;
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);

    return n >= k && strcmp(s + n - k, end) == 0;
}

int64_t mb_find_spelling(const mb_model_family *fam, const mb_tensor_file *f, const char *name)
{
    const size_t prefix = strlen(fam->prefix);
    const char *bare = prefix > 0 && strncmp(name, fam->prefix, prefix) == 0 ? name + prefix : name;
    int64_t at = mb_tensor_file_find(f, name);

    if (at < 0 && bare != name)
        at = mb_tensor_file_find(f, bare);
    if (at < 0 && prefix > 0 && bare == name) { /* an embedder's, in a file of another head */
        char whole[NAME_MAX_BYTES];
        snprintf(whole, sizeof whole, "%s%s", fam->prefix, name);
        at = mb_tensor_file_find(f, whole);
    }
    for (int i = 0; at < 0 && fam->rename != NULL && fam->rename[i][0] != NULL; i++) {
        char old[NAME_MAX_BYTES];
        if (!ends_with(name, fam->rename[i][1]))
            continue;
        snprintf(old, sizeof old, "%.*s%s", (int)(strlen(name) - strlen(fam->rename[i][1])), name,
                 fam->rename[i][0]);
        at = mb_tensor_file_find(f, old);
        if (at < 0 && bare != name)
            at = mb_tensor_file_find(f, old + prefix);
    }
    return at;
}

static int64_t find_weight(const mb_model *m, const mb_tensor_file *f, const mb_weight *w)
{
    char name[NAME_MAX_BYTES];

    if (mb_tensor_file_gguf(f) == NULL)
        return mb_find_spelling(m->family, f, w->name);
    return mb_weight_gguf_name(m, w, name, sizeof name) ? mb_tensor_file_find(f, name) : -1;
}

static bool ignorable(const mb_model *m, const char *name)
{
    for (int i = 0; m->family->ignore[i] != NULL; i++)
        if (strstr(name, m->family->ignore[i]) != NULL)
            return true;
    /* weights the family knows but this head or this tying does not use */
    for (const mb_weight_row *r = m->family->globals; r->name != NULL; r++)
        if ((r->has != NULL && !r->has(&m->config)) &&
            (ends_with(r->name, name) || (r->gguf != NULL && strcmp(r->gguf, name) == 0)))
            return true;
    return false;
}

/* ---- values ------------------------------------------------------------------------------- */

/* Elements [from, from + n), which no block crosses. */
static mb_status load_range(mb_tensor_file *f, int64_t i, int64_t from, int64_t n, mb_exec *ex,
                            mb_arena *scratch, float *dst)
{
    const mb_dtype d = mb_tensor_file_info(f, i)->dtype;
    const size_t mark = mb_arena_used(scratch);
    const int64_t at = mb_dtype_bytes(d, from), bytes = mb_dtype_bytes(d, n);
    mb_tensor numbers = mb_tensor_1d(dst, MB_DTYPE_F32, n);
    void *p;

    if (d == MB_DTYPE_F32)
        return mb_tensor_file_read(f, i, dst, at, bytes);
    MB_TRY(mb_arena_take(scratch, (size_t)bytes, &p));
    MB_TRY(mb_tensor_file_read(f, i, p, at, bytes));
    const mb_tensor raw = mb_tensor_1d(p, d, n);
    if (mb_dtype_is_quantised(d))
        MB_TRY(MB_RUN(ex, dequantise, &numbers, &raw));
    else
        MB_TRY(MB_RUN(ex, cast, &numbers, &raw));
    mb_arena_rewind(scratch, mark);
    return MB_OK;
}

mb_status mb_load_f32(mb_tensor_file *f, int64_t i, mb_exec *ex, mb_arena *scratch, mb_tensor *dst)
{
    return load_range(f, i, 0, mb_tensor_count(dst), ex, scratch, mb_f32(dst));
}

/* llama.cpp stores q and k with the two halves of each head interleaved: its row 2i + j of a head is
 * Hugging Face's row i + j * head_dim/2. `rows` rows of row_bytes, whole heads. */
static mb_status unpermute(const mb_model *m, void *x, int64_t rows, size_t row_bytes,
                           mb_arena *scratch)
{
    const int64_t hd = m->config.head_dim;
    const size_t mark = mb_arena_used(scratch);
    void *p;

    MB_TRY(mb_arena_take(scratch, (size_t)hd * row_bytes, &p));
    for (int64_t head = 0; head < rows / hd; head++) {
        char *at = (char *)x + (size_t)(head * hd) * row_bytes;
        memcpy(p, at, (size_t)hd * row_bytes);
        for (int64_t i = 0; i < hd / 2; i++)
            for (int64_t j = 0; j < 2; j++)
                memcpy(at + (size_t)(i + j * hd / 2) * row_bytes,
                       (const char *)p + (size_t)(2 * i + j) * row_bytes, row_bytes);
    }
    mb_arena_rewind(scratch, mark);
    return MB_OK;
}

/* A weight is read in whole rows, of a permuted one in whole heads: this many at a time. */
static int64_t piece_rows(const mb_model *m, const mb_weight *w)
{
    const int64_t row = w->value.ndim > 1 ? mb_tensor_count(&w->value) / w->value.dim[0] : 1,
                  hd = (w->row->flags & (MB_W_ROPE_Q | MB_W_ROPE_K)) != 0 ? m->config.head_dim : 1;
    const int64_t n = PIECE / row / hd * hd;

    return n > hd ? n : hd;
}

/* Room for a piece as the file has it, for its numbers, and for a head. */
size_t mb_model_load_bytes(const mb_model *m)
{
    int64_t most = PIECE, head = 0;

    for (int i = 0; i < m->n_weights; i++) {
        const mb_weight *w = &m->weight[i];
        if (w->row == NULL)
            continue;
        if (w->value.ndim < 2 && mb_tensor_count(&w->value) > most)
            most = mb_tensor_count(&w->value);
        if (w->value.ndim < 2)
            continue;
        const int64_t row = mb_tensor_count(&w->value) / w->value.dim[0],
                      n = piece_rows(m, w) * row;
        most = n > most ? n : most;
        if ((w->row->flags & MB_W_CONV1D) != 0 && mb_tensor_count(&w->value) > most)
            most = mb_tensor_count(&w->value); /* turned as a whole */
        head = m->config.head_dim * row > head ? m->config.head_dim * row : head;
    }
    return (size_t)(2 * most + head) * sizeof(float) + 4096;
}

/* GGUF has a linear layer's matrix as (out,in), whatever the family's own files have. */
static bool is_turned(const mb_tensor_file *f, const mb_weight *w)
{
    return mb_tensor_file_gguf(f) != NULL && (w->row->flags & MB_W_CONV1D) != 0;
}

/* Rows that the file leaves out in front. */
static int64_t rows_ahead(const mb_model *m, const mb_tensor_file *f, const mb_weight *w)
{
    return mb_tensor_file_gguf(f) != NULL && (w->row->flags & MB_W_GGUF_BEHIND) != 0
               ? m->config.first_position
               : 0;
}

static mb_status check_found(const mb_model *m, const mb_tensor_file *f, int64_t at,
                             const mb_weight *w, const char *path)
{
    const mb_tensor_info *info = mb_tensor_file_info(f, at);
    const mb_tensor found = mb_tensor_of(NULL, MB_DTYPE_F32, info->ndim, info->dim);
    mb_tensor want = w->value;
    char a[96], b[96];

    if (is_turned(f, w) && want.ndim == 2)
        want = mb_tensor_of(NULL, MB_DTYPE_F32, 2, (int64_t[]){want.dim[1], want.dim[0]});
    else if (want.ndim == 2)
        want = mb_tensor_of(NULL, MB_DTYPE_F32, 2,
                            (int64_t[]){want.dim[0] - rows_ahead(m, f, w), want.dim[1]});
    MB_REQUIRE(mb_tensor_same_shape(&found, &want), MB_EMODEL,
               "%s: tensor '%s' has shape %s; this model's %s needs %s", path, info->name,
               mb_tensor_shape(&found, a, sizeof a), w->name, mb_tensor_shape(&want, b, sizeof b));
    return MB_OK;
}

/* All of a turned matrix, its rows made of the file's columns. */
static mb_status read_turned(mb_tensor_file *f, int64_t at, const mb_weight *w, mb_exec *ex,
                             mb_arena *scratch, float *place, mb_piece_fn fn, void *ctx)
{
    const int64_t in = w->value.dim[0], out = w->value.dim[1];
    const size_t mark = mb_arena_used(scratch);
    void *whole, *row;

    MB_TRY(mb_arena_take(scratch, (size_t)(in * out) * sizeof(float), &whole));
    MB_TRY(mb_arena_take(scratch, (size_t)out * sizeof(float), &row));
    for (int64_t o = 0; o < out; o++)
        MB_TRY(load_range(f, at, o * in, in, ex, scratch, (float *)whole + o * in));
    for (int64_t i = 0; i < in; i++) {
        float *to = place != NULL ? place + i * out : row;
        for (int64_t o = 0; o < out; o++)
            to[o] = ((const float *)whole)[o * in + i];
        if (fn != NULL)
            MB_TRY(fn(ctx, i * out, out, to));
    }
    mb_arena_rewind(scratch, mark);
    return MB_OK;
}

/* Rows that no token reads, where a file leaves them out. */
static mb_status give_zeros(int64_t n, mb_arena *scratch, float *place, mb_piece_fn fn, void *ctx)
{
    const size_t mark = mb_arena_used(scratch);
    void *zeros = place;

    if (zeros == NULL)
        MB_TRY(mb_arena_take(scratch, (size_t)n * sizeof(float), &zeros));
    memset(zeros, 0, (size_t)n * sizeof(float));
    if (fn != NULL)
        MB_TRY(fn(ctx, 0, n, zeros));
    mb_arena_rewind(scratch, mark);
    return MB_OK;
}

/* Tensor `at` of the file, as this model's weight, piece by piece: into `place`, where all of it has
 * room, or through scratch; `fn` (optional) is given each. */
static mb_status read_pieces(const mb_model *m, mb_tensor_file *f, int64_t at, const mb_weight *w,
                             mb_exec *ex, mb_arena *scratch, float *place, mb_piece_fn fn,
                             void *ctx)
{
    const int64_t all = w->value.ndim > 1 ? w->value.dim[0] : mb_tensor_count(&w->value),
                  row = all > 0 ? mb_tensor_count(&w->value) / all : 0, ahead = rows_ahead(m, f, w),
                  rows = all - ahead;
    const bool permuted =
        mb_tensor_file_gguf(f) != NULL && (w->row->flags & (MB_W_ROPE_Q | MB_W_ROPE_K)) != 0;
    const bool plus_1 = mb_tensor_file_gguf(f) != NULL && (w->row->flags & MB_W_GGUF_PLUS_1) != 0;
    const int64_t each = w->value.ndim > 1 ? piece_rows(m, w) : rows;

    if (is_turned(f, w) && w->value.ndim == 2)
        return read_turned(f, at, w, ex, scratch, place, fn, ctx);
    if (ahead > 0)
        MB_TRY(give_zeros(ahead * row, scratch, place, fn, ctx));
    for (int64_t r = 0; r < rows; r += each) {
        const int64_t n = rows - r < each ? rows - r : each;
        const size_t mark = mb_arena_used(scratch);
        void *to = place != NULL ? place + (ahead + r) * row : NULL;
        if (to == NULL)
            MB_TRY(mb_arena_take(scratch, (size_t)(n * row) * sizeof(float), &to));
        MB_TRY(load_range(f, at, r * row, n * row, ex, scratch, to));
        if (permuted)
            MB_TRY(unpermute(m, to, n, (size_t)row * sizeof(float), scratch));
        for (int64_t i = 0; plus_1 && i < n * row; i++)
            ((float *)to)[i] -= 1.0f;
        if (fn != NULL)
            MB_TRY(fn(ctx, (ahead + r) * row, n * row, to));
        mb_arena_rewind(scratch, mark);
    }
    return MB_OK;
}

/* Where pieces of a weight go that is not in its place already. */
struct target {
    const mb_model *m;
    const mb_weight *w;
};

static mb_status store(void *ctx, int64_t from, int64_t n, float *numbers)
{
    const struct target *t = ctx;

    return mb_weight_write(t->m, t->w, from, n, numbers);
}

/* ---- blocks that stay --------------------------------------------------------------------- */

static bool stays(const mb_model *m, const mb_tensor_file *f, int64_t at, const mb_weight *w)
{
    const mb_tensor_info *info = mb_tensor_file_info(f, at);
    const unsigned never = MB_W_CONV1D | MB_W_GGUF_PLUS_1 | MB_W_FIXED;

    return w->row != NULL && !w->trained && w->value.ndim == 2 && w->lora_m == NULL &&
           w->token_rows == NULL && (w->row->flags & never) == 0 &&
           (w->row->flags & (MB_W_LINEAR | MB_W_EMBED)) != 0 && !is_turned(f, w) &&
           rows_ahead(m, f, w) == 0 && strcmp(w->row->shape, "P D") != 0 &&
           mb_dtype_is_quantised(info->dtype) &&
           mb_cols(&w->value) % mb_dtype_block(info->dtype) == 0;
}

int mb_model_keep_blocks(mb_model *m, const mb_tensor_file *f)
{
    int n = 0;

    for (int i = 0; i < m->n_weights && mb_tensor_file_gguf(f) != NULL; i++) {
        mb_weight *w = &m->weight[i];
        const int64_t at = w->row != NULL ? find_weight(m, f, w) : -1;

        if (at < 0 || !stays(m, f, at, w))
            continue;
        w->value.dtype = mb_tensor_file_info(f, at)->dtype;
        w->blocks = true;
        n++;
    }
    return n;
}

/* As the file has it, but for the order of rows. */
static mb_status load_blocks(const mb_model *m, mb_tensor_file *f, int64_t at, mb_weight *w,
                             mb_arena *scratch)
{
    const int64_t rows = mb_rows(&w->value), bytes = mb_tensor_bytes(&w->value);

    MB_TRY(mb_tensor_file_read(f, at, w->value.data, 0, bytes));
    if ((w->row->flags & (MB_W_ROPE_Q | MB_W_ROPE_K)) == 0)
        return MB_OK;
    return unpermute(m, w->value.data, rows, (size_t)(bytes / rows), scratch);
}

static mb_status load_one(mb_model *m, mb_tensor_file *f, const char *path, int64_t at,
                          mb_weight *w, mb_exec *ex, mb_arena *scratch)
{
    const bool here = mb_weight_is_here(m, w);
    struct target t = {m, w};

    MB_TRY(check_found(m, f, at, w, path));
    if (w->lent)
        return MB_OK;
    if (w->blocks)
        return load_blocks(m, f, at, w, scratch);
    return read_pieces(m, f, at, w, ex, scratch, here ? mb_f32(&w->value) : NULL,
                       here ? NULL : store, &t);
}

mb_status mb_model_read_file(const mb_model *m, const mb_weight *w, mb_tensor_file *f,
                             const char *path, mb_exec *ex, mb_piece_fn fn, void *ctx)
{
    const int64_t at = find_weight(m, f, w);
    mb_arena *scratch = NULL;
    mb_status st;

    MB_REQUIRE(at >= 0, MB_EMODEL, "%s: tensor '%s' is missing", path, w->name);
    MB_TRY(check_found(m, f, at, w, path));
    MB_TRY(mb_arena_new("a weight", mb_model_load_bytes(m), &scratch));
    st = read_pieces(m, f, at, w, ex, scratch, NULL, fn, ctx);
    mb_arena_free(scratch);
    return st;
}

/* Standard deviation of a matrix's first values. */
static double spread(const mb_model *m, const mb_weight *w)
{
    if (m->family->init_std != NULL)
        return m->family->init_std(&m->config, w->row);
    return m->config.init_std > 0.0f ? (double)m->config.init_std : 0.02;
}

/* A buffer's first value: zero, but for the waves that are the positions of sound. */
static float fixed_value(const mb_model *m, const mb_weight *w, int64_t i)
{
    const int64_t cols = mb_cols(&w->value);

    return m->config.mel_bins > 0 && strcmp(w->row->shape, "A D") == 0
               ? mb_position_wave(i / cols, i % cols, cols)
               : 0.0f;
}

static mb_status init_fresh(const mb_model *m, mb_weight *w, uint64_t seed, int index,
                            mb_arena *scratch)
{
    const uint64_t key = mb_rng_key(seed, MB_SITE_INIT, (uint64_t)index);
    const int64_t count = mb_tensor_count(&w->value);
    const bool norm = (w->row->flags & MB_W_NO_DECAY) != 0 && ends_with(w->name, ".weight");
    const double std = spread(m, w);
    const size_t mark = mb_arena_used(scratch);
    void *p;

    MB_TRY(mb_arena_take(scratch, PIECE * sizeof(float), &p));
    for (int64_t from = 0; from < count; from += PIECE) {
        const int64_t n = count - from < PIECE ? count - from : PIECE;
        float *x = p;
        for (int64_t i = 0; i < n; i++)
            x[i] = mb_weight_is_fixed(w) ? fixed_value(m, w, from + i)
                   : norm                ? 1.0f - m->config.norm_offset
                   : w->value.ndim == 1  ? 0.0f
                                         : (float)(std * mb_rng_normal(key, (uint64_t)(from + i)));
        MB_TRY(mb_weight_write(m, w, from, n, x));
    }
    mb_arena_rewind(scratch, mark);
    w->fresh = true;
    return MB_OK;
}

/* Leaving them out would change the model without a word. */
static mb_status no_long_factors(mb_tensor_file *f, const char *path)
{
    MB_REQUIRE(mb_tensor_file_find(f, "rope_factors_short.weight") < 0, MB_ENOTSUP,
               "%s scales its rotary frequencies (rope_factors_short.weight, as long Phi-3 does), "
               "which is read from Hugging Face folders only",
               path);
    return MB_OK;
}

static mb_status check_unknown(const mb_model *m, mb_tensor_file *f, const char *path,
                               const bool *used, mb_load_report *report)
{
    for (int64_t i = 0; i < mb_tensor_file_count(f); i++) {
        const char *name = mb_tensor_file_info(f, i)->name;

        if (used[i])
            continue;
        MB_REQUIRE(ignorable(m, name), MB_EMODEL,
                   "%s: tensor '%s' is unknown to %s models; nothing was left out silently", path,
                   name, m->family->name);
        report->ignored++;
    }
    return MB_OK;
}

static mb_status load_all(mb_model *m, mb_tensor_file *f, const char *path, mb_exec *ex,
                          uint64_t seed, mb_arena *scratch, bool *used, mb_load_report *report)
{
    for (int i = 0; i < m->n_weights; i++) {
        mb_weight *w = &m->weight[i];
        if (w->row == NULL)
            continue; /* an adapter's */
        const int64_t at = find_weight(m, f, w);
        if (at >= 0) {
            MB_TRY(load_one(m, f, path, at, w, ex, scratch));
            used[at] = true;
            report->loaded++;
            continue;
        }
        MB_REQUIRE((w->row->flags & (MB_W_NEW | MB_W_FIXED)) != 0, MB_EMODEL,
                   "%s: tensor '%s' is missing; a %s model needs it", path, w->name,
                   m->family->name);
        MB_TRY(init_fresh(m, w, seed, i, scratch));
        mb_log_info("new weight: %s (not in %s), initialised from seed %llu", w->name, path,
                    (unsigned long long)seed);
        report->fresh++;
    }
    return check_unknown(m, f, path, used, report);
}

mb_status mb_model_load(mb_model *m, mb_tensor_file *f, const char *path, mb_exec *ex,
                        uint64_t seed, mb_load_report *report)
{
    mb_arena *scratch = NULL;
    bool *used = NULL;
    mb_status st = MB_OK;

    *report = (mb_load_report){0};
    MB_TRY(no_long_factors(f, path));
    MB_TRY_GOTO(mb_arena_new("loading", mb_model_load_bytes(m), &scratch), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&used, mb_tensor_file_count(f) + 1), st, done);
    MB_TRY_GOTO(load_all(m, f, path, ex, seed, scratch, used, report), st, done);
done:
    mb_free(used);
    mb_arena_free(scratch);
    return st;
}

mb_status mb_model_init(mb_model *m, uint64_t seed)
{
    mb_arena *scratch = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_arena_new("first values", mb_model_load_bytes(m), &scratch));
    for (int i = 0; i < m->n_weights && st == MB_OK; i++) {
        if (m->weight[i].row == NULL)
            continue; /* an adapter's */
        st = init_fresh(m, &m->weight[i], seed, i, scratch);
        m->weight[i].fresh = false; /* the whole model is */
    }
    mb_arena_free(scratch);
    return st;
}
