/* recipes/export/vocabulary.c - a model folder with more rows for more tokens. */
#include "recipes/export/vocabulary.h"

#include <stdio.h>
#include <string.h>

#include "autograd/model.h"
#include "core/alloc.h"
#include "core/formats/safetensors_writer.h"
#include "core/formats/tensor_file.h"
#include "core/path.h"
#include "recipes/config/token_ids.h"
#include "recipes/export/hf_folder.h"

#define SHARD_BYTES 5000000000
enum { MAX_CONFIG = 16 << 20, PIECE = 8 << 20 };

struct resizer {
    const mb_tok_extension *x;
    const mb_model_family *family;
    mb_tensor_file *file;
    mb_safetensors_writer *out;
    int64_t before, after;
    char *buffer; /* PIECE bytes */
};

static mb_status find_family(struct resizer *r, mb_json config, const char *base)
{
    const char *type;

    MB_TRY(mb_json_get_string(config, "model_type", "", &type));
    for (size_t i = 0; mb_model_families[i] != NULL; i++)
        for (const char *const *t = mb_model_families[i]->model_types; *t != NULL; t++)
            if (strcmp(*t, type) == 0)
                r->family = mb_model_families[i];
    MB_REQUIRE(r->family != NULL, MB_ENOTSUP, "%s: model_type \"%.60s\" is not supported", base,
               type);
    return mb_json_need_int(config, "vocab_size", 1, INT32_MAX, &r->before);
}

/* Files leave out or add the name of the base model in front ("transformer."). */
static bool same_weight(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);
    const char *longer = n > m ? a : b, *shorter = n > m ? b : a;
    const size_t more = strlen(longer) - strlen(shorter);

    return strcmp(longer + more, shorter) == 0 && (more == 0 || longer[more - 1] == '.');
}

/* The dimension of a tensor that counts tokens; -1: none. */
static int token_dim(const struct resizer *r, const mb_tensor_info *t)
{
    for (const mb_weight_row *row = r->family->globals; row->name != NULL; row++) {
        if (!same_weight(row->name, t->name))
            continue;
        for (int d = 0; row->shape[2 * d] != '\0'; d++) {
            if (row->shape[2 * d] == 'V')
                return d;
            if (row->shape[2 * d + 1] == '\0')
                break;
        }
    }
    return -1;
}

static mb_status check_tensor(const struct resizer *r, const mb_tensor_info *t, int dim)
{
    MB_REQUIRE(dim == 0 || t->ndim == 2, MB_ENOTSUP,
               "%s: tensor '%s' counts tokens in dimension %d", mb_tensor_file_name(r->file),
               t->name, dim);
    MB_REQUIRE(dim == 0 || t->dim[0] == 1, MB_ENOTSUP,
               "%s: tensor '%s' counts tokens in dimension %d", mb_tensor_file_name(r->file),
               t->name, dim);
    MB_REQUIRE(t->dim[dim] == r->before, MB_EMODEL,
               "%s: tensor '%s' has %lld rows, but vocab_size is %lld",
               mb_tensor_file_name(r->file), t->name, (long long)t->dim[dim], (long long)r->before);
    MB_REQUIRE(t->dtype == MB_DTYPE_F32 || t->dtype == MB_DTYPE_BF16 || t->dtype == MB_DTYPE_F16,
               MB_ENOTSUP, "%s: tensor '%s' has a type whose rows cannot be averaged",
               mb_tensor_file_name(r->file), t->name);
    return MB_OK;
}

static mb_status declare(struct resizer *r, mb_resized *out)
{
    for (int64_t i = 0; i < mb_tensor_file_count(r->file); i++) {
        const mb_tensor_info *t = mb_tensor_file_info(r->file, i);
        const int d = token_dim(r, t);
        int64_t dim[MB_MAX_DIMS];
        memcpy(dim, t->dim, sizeof dim);
        if (d >= 0) {
            MB_TRY(check_tensor(r, t, d));
            dim[d] = r->after;
            MB_REQUIRE(out->n < MB_MOST_RESIZED, MB_ENOTSUP, "more than %d tensors to resize",
                       MB_MOST_RESIZED);
            snprintf(out->what[out->n++], sizeof out->what[0], "%.100s: %lld rows, now %lld",
                     t->name, (long long)r->before, (long long)r->after);
        }
        MB_TRY(mb_safetensors_declare(r->out, t->name, t->dtype, t->ndim, dim));
    }
    MB_REQUIRE(out->n > 0, MB_EMODEL, "%s: no tensor has a row per token",
               mb_tensor_file_name(r->file));
    return MB_OK;
}

/* Bytes [from, to) of a tensor as they are. */
static mb_status copy(struct resizer *r, int64_t i, int64_t from, int64_t to)
{
    for (; from < to;) {
        const int64_t n = to - from < PIECE ? to - from : PIECE;
        MB_TRY(mb_tensor_file_read(r->file, i, r->buffer, from, n));
        MB_TRY(mb_safetensors_append(r->out, r->buffer, n));
        from += n;
    }
    return MB_OK;
}

static float value_at(mb_dtype dtype, const char *row, int64_t k)
{
    uint16_t half;

    if (dtype == MB_DTYPE_F32) {
        float x;
        memcpy(&x, row + 4 * k, 4);
        return x;
    }
    memcpy(&half, row + 2 * k, 2);
    return dtype == MB_DTYPE_BF16 ? mb_bf16_to_f32(half) : mb_f16_to_f32(half);
}

static void put_value(mb_dtype dtype, char *row, int64_t k, float x)
{
    if (dtype == MB_DTYPE_F32) {
        memcpy(row + 4 * k, &x, 4);
        return;
    }
    const uint16_t half = dtype == MB_DTYPE_BF16 ? mb_f32_to_bf16(x) : mb_f32_to_f16(x);
    memcpy(row + 2 * k, &half, 2);
}

/* The row of new token k: the mean of its pieces' rows. */
static mb_status mean_row(struct resizer *r, int64_t i, int64_t width, int32_t k, float *sum,
                          char *row)
{
    const mb_tensor_info *t = mb_tensor_file_info(r->file, i);
    const size_t first = r->x->begin[k], end = r->x->begin[k + 1];
    const int64_t row_bytes = width * (t->dtype == MB_DTYPE_F32 ? 4 : 2);

    memset(sum, 0, (size_t)width * sizeof *sum);
    for (size_t j = first; j < end; j++) {
        MB_TRY(mb_tensor_file_read(r->file, i, row, r->x->parts.id[j] * row_bytes, row_bytes));
        for (int64_t c = 0; c < width; c++)
            sum[c] += value_at(t->dtype, row, c);
    }
    for (int64_t c = 0; c < width; c++)
        put_value(t->dtype, row, c, sum[c] / (float)(end - first));
    return mb_safetensors_append(r->out, row, row_bytes);
}

static mb_status widen(struct resizer *r, int64_t i, int dim)
{
    const mb_tensor_info *t = mb_tensor_file_info(r->file, i);
    const int64_t width = dim == 0 && t->ndim == 2 ? t->dim[1] : 1;
    const int64_t row_bytes = t->bytes / r->before, first = r->x->first;
    float *sum = NULL;
    char *row = NULL;
    mb_status st = MB_OK;

    MB_TRY_GOTO(MB_NEW_ARRAY(&sum, width), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&row, row_bytes), st, done);
    MB_TRY_GOTO(copy(r, i, 0, (first < r->before ? first : r->before) * row_bytes), st, done);
    for (int64_t k = r->before; k < first; k++) /* ids without a token */
        MB_TRY_GOTO(mb_safetensors_append(r->out, row, row_bytes), st, done);
    for (int32_t k = 0; k < r->x->n; k++)
        MB_TRY_GOTO(mean_row(r, i, width, k, sum, row), st, done);
    if (first + r->x->n < r->before)
        st = copy(r, i, (first + r->x->n) * row_bytes, t->bytes);
done:
    mb_free(sum);
    mb_free(row);
    return st;
}

static mb_status write_weights(struct resizer *r, const char *dir, mb_resized *out)
{
    mb_status st;

    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(mb_safetensors_writer_new(dir, "model", SHARD_BYTES, &r->out));
    MB_TRY_GOTO(MB_NEW_ARRAY(&r->buffer, PIECE), st, done);
    MB_TRY_GOTO(declare(r, out), st, done);
    for (int64_t i = 0; i < mb_tensor_file_count(r->file); i++) {
        const mb_tensor_info *t = mb_tensor_file_info(r->file, i);
        const int d = token_dim(r, t);
        st = d >= 0 ? widen(r, i, d) : copy(r, i, 0, t->bytes);
        if (st != MB_OK)
            goto done;
    }
    st = mb_safetensors_finish(r->out);
done:
    mb_safetensors_writer_free(r->out);
    mb_free(r->buffer);
    return st;
}

static mb_status save_tokenizer(void *ctx, const char *dir)
{
    return mb_tokenizer_save(ctx, dir);
}

static mb_status resize(struct resizer *r, mb_json config, const char *base, const char *dir,
                        mb_resized *out)
{
    MB_TRY(find_family(r, config, base));
    r->after = r->x->first + r->x->n;
    r->after = r->after > r->before ? r->after : r->before;
    for (size_t j = 0; j < r->x->parts.n; j++)
        MB_REQUIRE(r->x->parts.id[j] < r->before, MB_EMODEL,
                   "%s: the tokenizer has the id %d, but vocab_size is %lld", base,
                   (int)r->x->parts.id[j], (long long)r->before);
    MB_TRY(mb_tensor_file_open(base, &r->file));
    MB_TRY(write_weights(r, dir, out));
    out->before = r->before;
    out->after = r->after;
    MB_TRY(mb_token_ids_note(config, r->x->first, r->x->first + r->x->n - 1));
    const mb_hf_folder folder = {.config = config,
                                 .base_dir = base,
                                 .edits = {.vocab_size = r->after},
                                 .write_tokenizer = save_tokenizer,
                                 .tokenizer_ctx = r->x->tokenizer};
    return mb_hf_write_folder(dir, &folder);
}

mb_status mb_resize_vocabulary(const char *base, const char *dir, const mb_tok_extension *x,
                               mb_resized *out)
{
    struct resizer r = {.x = x};
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;

    *out = (mb_resized){0};
    MB_TRY(mb_path_join(path, sizeof path, dir, "config.json"));
    MB_REQUIRE(!mb_path_exists(path), MB_EARG,
               "'%s' holds a model: give the larger one a folder of its own", dir);
    MB_TRY(mb_path_join(path, sizeof path, base, "config.json"));
    MB_TRY(mb_json_read(path, MB_EMODEL, MAX_CONFIG, &doc));
    const mb_status st = resize(&r, mb_json_root(doc), base, dir, out);
    mb_tensor_file_close(r.file);
    mb_json_free(doc);
    return st;
}
