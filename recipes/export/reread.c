/* recipes/export/reread.c - see recipes/export/reread.h. */
#include "recipes/export/reread.h"

#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/export/weights.h"

enum { CHUNK = 1 << 19, NAME_MAX_BYTES = 384 }; /* numbers compared at a time */

struct reader {
    const mb_export *e;
    bool adapter;
    mb_tensor_file *file;
    int64_t at; /* the tensor in it */
    int64_t tensors, numbers;
    char *found;  /* CHUNK numbers of the file */
    void *wanted; /* the model's, in the file's type */
};

static bool is_written(const struct reader *r, const mb_weight *w)
{
    return r->adapter ? w->trained : w->row != NULL;
}

static mb_dtype written_type(const struct reader *r)
{
    return r->adapter ? MB_DTYPE_F32 : r->e->dtype;
}

static mb_status compare_chunk(struct reader *r, int64_t from, int64_t n, float *numbers)
{
    const mb_dtype dtype = written_type(r);
    const int64_t begin = mb_dtype_bytes(dtype, from), bytes = mb_dtype_bytes(dtype, n);
    const void *wanted = numbers;

    if (dtype != MB_DTYPE_F32) {
        const mb_tensor in = mb_tensor_1d(numbers, MB_DTYPE_F32, n);
        mb_tensor out = mb_tensor_1d(r->wanted, dtype, n);
        MB_TRY(MB_RUN(r->e->ex, cast, &out, &in));
        wanted = r->wanted;
    }
    MB_TRY(mb_tensor_file_read(r->file, r->at, r->found, begin, bytes));
    MB_REQUIRE(memcmp(r->found, wanted, (size_t)bytes) == 0, MB_EIO,
               "%s: tensor '%s', numbers %lld to %lld: what is read is not what was written",
               mb_tensor_file_path(r->file, r->at), mb_tensor_file_info(r->file, r->at)->name,
               (long long)from, (long long)(from + n - 1));
    return MB_OK;
}

static mb_status compare_piece(void *ctx, int64_t from, int64_t n, float *numbers)
{
    for (int64_t i = 0; i < n; i += CHUNK)
        MB_TRY(compare_chunk(ctx, from + i, n - i < CHUNK ? n - i : CHUNK, numbers + i));
    return MB_OK;
}

static mb_status compare_weight(struct reader *r, const mb_weight *w, const char *name,
                                mb_tensor_file *base)
{
    char a[96], b[96];

    r->at = mb_tensor_file_find(r->file, name);
    MB_REQUIRE(r->at >= 0, MB_EIO, "%s: tensor '%s' is missing of what was written",
               mb_tensor_file_name(r->file), name);
    const mb_tensor_info *info = mb_tensor_file_info(r->file, r->at);
    const mb_tensor found = mb_tensor_of(NULL, info->dtype, info->ndim, info->dim);
    MB_REQUIRE(info->dtype == written_type(r) && mb_tensor_same_shape(&found, &w->value), MB_EIO,
               "%s: tensor '%s' is %s %s, written as %s %s", mb_tensor_file_path(r->file, r->at),
               info->name, mb_dtype_name(info->dtype), mb_tensor_shape(&found, a, sizeof a),
               mb_dtype_name(written_type(r)), mb_tensor_shape(&w->value, b, sizeof b));
    r->tensors++;
    r->numbers += mb_tensor_count(&w->value);
    return mb_export_weight(r->e, w, base, compare_piece, r);
}

/* A weight, and rows of tokens where a file has them a second time. */
static mb_status compare_written(struct reader *r, const mb_weight *w, mb_tensor_file *base)
{
    const mb_token_rows *rows = w->token_rows;
    char name[NAME_MAX_BYTES];

    if (r->adapter && rows != NULL && rows->twin != NULL)
        MB_TRY(compare_weight(r, rows->values, rows->twin, base));
    if (!is_written(r, w))
        return MB_OK;
    if (r->adapter)
        mb_weight_peft_name(w, name, sizeof name);
    return compare_weight(r, w, r->adapter ? name : w->name, base);
}

static mb_status compare_all(struct reader *r)
{
    const mb_model *m = r->e->model;
    mb_tensor_file *base = NULL;
    mb_status st = mb_export_open_base(r->e, &base);

    for (int i = 0; i < m->n_weights && st == MB_OK; i++)
        st = compare_written(r, &m->weight[i], base);
    mb_tensor_file_close(base);
    if (st == MB_OK)
        MB_REQUIRE(r->tensors == mb_tensor_file_count(r->file), MB_EIO,
                   "%s has %lld tensors, written were %lld", mb_tensor_file_name(r->file),
                   (long long)mb_tensor_file_count(r->file), (long long)r->tensors);
    return st;
}

static mb_status reread(struct reader *r, const char *path)
{
    mb_status st = MB_OK;

    MB_TRY(mb_tensor_file_open(path, &r->file));
    MB_TRY_GOTO(mb_alloc(CHUNK * sizeof(float), "reading again", (void **)&r->found), st, done);
    MB_TRY_GOTO(mb_alloc(CHUNK * sizeof(float), "reading again", &r->wanted), st, done);
    MB_TRY_GOTO(compare_all(r), st, done);
    mb_log_info("%s, read again: %lld tensors, %lld numbers, each as in memory", path,
                (long long)r->tensors, (long long)r->numbers);
done:
    mb_free(r->found);
    mb_free(r->wanted);
    mb_tensor_file_close(r->file);
    return st;
}

mb_status mb_export_reread_hf(const mb_export *e, const char *dir)
{
    struct reader r = {.e = e};

    return reread(&r, dir);
}

mb_status mb_export_reread_peft(const mb_export *e, const char *dir)
{
    struct reader r = {.e = e, .adapter = true};
    char path[MB_PATH_MAX];

    MB_TRY(mb_path_join(path, sizeof path, dir, "adapter_model.safetensors"));
    return reread(&r, path);
}
