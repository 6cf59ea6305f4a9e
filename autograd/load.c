/* autograd/load.c - see autograd/load.h. */
#include "autograd/load.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/rng.h"

enum { NAME_MAX_BYTES = 256 };

/* ---- names -------------------------------------------------------------------------------- */

static void with_layer(const char *pattern, int64_t layer, char *out)
{
    const char *at = strstr(pattern, "{l}");

    if (at == NULL)
        snprintf(out, NAME_MAX_BYTES, "%s", pattern);
    else
        snprintf(out, NAME_MAX_BYTES, "%.*s%lld%s", (int)(at - pattern), pattern, (long long)layer,
                 at + 3);
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);

    return n >= k && strcmp(s + n - k, end) == 0;
}

/* Finds `name` as files may spell it: as it is, without the family's prefix, with an old ending. */
static int64_t find_spelling(const mb_model_family *fam, const mb_tensor_file *f, const char *name)
{
    const size_t prefix = strlen(fam->prefix);
    const char *bare = prefix > 0 && strncmp(name, fam->prefix, prefix) == 0 ? name + prefix : name;
    int64_t at = mb_tensor_file_find(f, name);

    if (at < 0 && bare != name)
        at = mb_tensor_file_find(f, bare);
    for (int i = 0; at < 0 && fam->rename[i][0] != NULL; i++) {
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
        return find_spelling(m->family, f, w->name);
    if (w->row->gguf == NULL)
        return -1;
    with_layer(w->row->gguf, w->layer, name);
    return mb_tensor_file_find(f, name);
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

mb_status mb_load_f32(mb_tensor_file *f, int64_t i, mb_exec *ex, mb_arena *scratch, mb_tensor *dst)
{
    const mb_tensor_info *info = mb_tensor_file_info(f, i);
    const size_t mark = mb_arena_used(scratch);
    mb_tensor raw;
    void *p;

    if (info->dtype == MB_DTYPE_F32)
        return mb_tensor_file_read(f, i, dst->data, 0, info->bytes);
    MB_TRY(mb_arena_take(scratch, (size_t)info->bytes, &p));
    MB_TRY(mb_tensor_file_read(f, i, p, 0, info->bytes));
    raw = mb_tensor_of(p, info->dtype, info->ndim, info->dim);
    if (mb_dtype_is_quantised(info->dtype))
        MB_TRY(MB_RUN(ex, dequantise, dst, &raw));
    else
        MB_TRY(MB_RUN(ex, cast, dst, &raw));
    mb_arena_rewind(scratch, mark);
    return MB_OK;
}

/* llama.cpp stores q and k with the two halves of each head interleaved: its row 2i + j of a head is
 * Hugging Face's row i + j * head_dim/2. */
static mb_status unpermute(const mb_model *m, mb_tensor *t, mb_arena *scratch)
{
    const int64_t hd = m->config.head_dim, row = mb_tensor_count(t) / t->dim[0];
    const size_t row_bytes = (size_t)row * sizeof(float), mark = mb_arena_used(scratch);
    void *p;

    MB_TRY(mb_arena_take(scratch, (size_t)hd * row_bytes, &p));
    for (int64_t head = 0; head < t->dim[0] / hd; head++) {
        float *at = mb_f32(t) + head * hd * row;
        memcpy(p, at, (size_t)hd * row_bytes);
        for (int64_t i = 0; i < hd / 2; i++)
            for (int64_t j = 0; j < 2; j++)
                memcpy(at + (i + j * hd / 2) * row, (float *)p + (2 * i + j) * row, row_bytes);
    }
    mb_arena_rewind(scratch, mark);
    return MB_OK;
}

/* Where a weight's numbers are put together: in their place when the host can write there. */
static mb_status host_value(const mb_model *m, const mb_weight *w, mb_arena *scratch,
                            mb_tensor *out)
{
    *out = w->value;
    if (mb_weight_is_here(m, w))
        return MB_OK;
    out->dtype = MB_DTYPE_F32;
    return mb_arena_take(scratch, (size_t)mb_tensor_bytes(out), &out->data);
}

static mb_status store(const mb_model *m, const mb_weight *w, const mb_tensor *value)
{
    return value->data == w->value.data ? MB_OK : mb_weight_write(m, w, mb_f32(value));
}

/* Tensor `at` of the file, as this model's weight. */
static mb_status read_value(const mb_model *m, mb_tensor_file *f, const char *path, int64_t at,
                            const mb_weight *w, mb_exec *ex, mb_arena *scratch, mb_tensor *value)
{
    const mb_tensor_info *info = mb_tensor_file_info(f, at);
    const mb_tensor found = mb_tensor_of(NULL, MB_DTYPE_F32, info->ndim, info->dim);
    char a[96], b[96];

    MB_REQUIRE(mb_tensor_same_shape(&found, &w->value), MB_EMODEL,
               "%s: tensor '%s' has shape %s; this model's %s needs %s", path, info->name,
               mb_tensor_shape(&found, a, sizeof a), w->name,
               mb_tensor_shape(&w->value, b, sizeof b));
    MB_TRY(mb_load_f32(f, at, ex, scratch, value));
    if (mb_tensor_file_gguf(f) != NULL && (w->row->flags & (MB_W_ROPE_Q | MB_W_ROPE_K)) != 0)
        MB_TRY(unpermute(m, value, scratch));
    return MB_OK;
}

static mb_status load_one(mb_model *m, mb_tensor_file *f, const char *path, int64_t at,
                          mb_weight *w, mb_exec *ex, mb_arena *scratch)
{
    const size_t mark = mb_arena_used(scratch);
    mb_tensor value;

    MB_TRY(host_value(m, w, scratch, &value));
    MB_TRY(read_value(m, f, path, at, w, ex, scratch, &value));
    MB_TRY(store(m, w, &value));
    mb_arena_rewind(scratch, mark);
    return MB_OK;
}

mb_status mb_model_read_file(const mb_model *m, const mb_weight *w, mb_tensor_file *f,
                             const char *path, mb_exec *ex, float *to)
{
    const int64_t at = find_weight(m, f, w);
    mb_arena *scratch = NULL;
    mb_tensor value = w->value;
    mb_status st;

    MB_REQUIRE(at >= 0, MB_EMODEL, "%s: tensor '%s' is missing", path, w->name);
    value.data = to;
    value.dtype = MB_DTYPE_F32;
    const size_t head = (size_t)(m->config.head_dim * mb_cols(&value)) * sizeof(float);
    MB_TRY(mb_arena_new("a weight", (size_t)mb_tensor_file_info(f, at)->bytes + head + 4096,
                        &scratch));
    st = read_value(m, f, path, at, w, ex, scratch, &value);
    mb_arena_free(scratch);
    return st;
}

static mb_status init_fresh(const mb_model *m, mb_weight *w, uint64_t seed, int index,
                            mb_arena *scratch)
{
    const uint64_t key = mb_rng_key(seed, MB_SITE_INIT, (uint64_t)index);
    const int64_t n = mb_tensor_count(&w->value);
    const bool norm = (w->row->flags & MB_W_NO_DECAY) != 0 && ends_with(w->name, ".weight");
    const size_t mark = mb_arena_used(scratch);
    mb_tensor value;

    MB_TRY(host_value(m, w, scratch, &value));
    for (int64_t i = 0; i < n; i++)
        mb_f32(&value)[i] = norm                 ? 1.0f
                            : w->value.ndim == 1 ? 0.0f
                                                 : (float)(0.02 * mb_rng_normal(key, (uint64_t)i));
    MB_TRY(store(m, w, &value));
    mb_arena_rewind(scratch, mark);
    w->fresh = true;
    return MB_OK;
}

/* llama.cpp keeps Llama 3's stretched rotation only as divisors per frequency; leaving them out would
 * change the model without a word. */
static mb_status rope_factors_are_one(mb_tensor_file *f, const char *path)
{
    const int64_t at = mb_tensor_file_find(f, "rope_freqs.weight");
    float factor[256];

    if (at < 0)
        return MB_OK;
    const mb_tensor_info *info = mb_tensor_file_info(f, at);
    MB_REQUIRE(info->dtype == MB_DTYPE_F32 && info->bytes <= (int64_t)sizeof factor, MB_EMODEL,
               "%s: tensor 'rope_freqs.weight' is not a short list of F32", path);
    MB_TRY(mb_tensor_file_read(f, at, factor, 0, info->bytes));
    for (int64_t i = 0; i < info->bytes / (int64_t)sizeof(float); i++)
        MB_REQUIRE(
            factor[i] == 1.0f, MB_ENOTSUP,
            "%s scales its rotary frequencies (rope_freqs.weight, as Llama 3.1 does), which is "
            "read from Hugging Face folders only",
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

static size_t largest_tensor(mb_tensor_file *f)
{
    int64_t most = 0;

    for (int64_t i = 0; i < mb_tensor_file_count(f); i++)
        if (mb_tensor_file_info(f, i)->bytes > most)
            most = mb_tensor_file_info(f, i)->bytes;
    return (size_t)most;
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
        MB_REQUIRE((w->row->flags & MB_W_NEW) != 0, MB_EMODEL,
                   "%s: tensor '%s' is missing; a %s model needs it", path, w->name,
                   m->family->name);
        MB_TRY(init_fresh(m, w, seed, i, scratch));
        mb_log_info("new weight: %s (not in %s), initialised from seed %llu", w->name, path,
                    (unsigned long long)seed);
        report->fresh++;
    }
    return check_unknown(m, f, path, used, report);
}

static size_t largest_weight(const mb_model *m)
{
    int64_t most = 0;

    for (int i = 0; i < m->n_weights; i++)
        if (mb_tensor_count(&m->weight[i].value) > most)
            most = mb_tensor_count(&m->weight[i].value);
    return (size_t)most * sizeof(float);
}

mb_status mb_model_load(mb_model *m, mb_tensor_file *f, const char *path, mb_exec *ex,
                        uint64_t seed, mb_load_report *report)
{
    const size_t head =
        (size_t)(m->config.head_dim *
                 (m->config.width > m->config.ffn ? m->config.width : m->config.ffn)) *
        sizeof(float);
    mb_arena *scratch = NULL;
    bool *used = NULL;
    mb_status st = MB_OK;

    *report = (mb_load_report){0};
    MB_TRY(rope_factors_are_one(f, path));
    const bool in_place =
        mb_device_is_host(m->device) && m->flat->stage < 3 && m->dtype == MB_DTYPE_F32;
    const size_t value = in_place ? 0 : largest_weight(m);
    MB_TRY_GOTO(mb_arena_new("loading", largest_tensor(f) + head + value + 4096, &scratch), st,
                done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&used, mb_tensor_file_count(f) + 1), st, done);
    MB_TRY_GOTO(load_all(m, f, path, ex, seed, scratch, used, report), st, done);
done:
    mb_free(used);
    mb_arena_free(scratch);
    return st;
}
