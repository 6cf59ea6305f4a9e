/* recipes/export/weights.c - see recipes/export/weights.h. */
#include "recipes/export/weights.h"

#include "core/alloc.h"

enum { PIECE = 1 << 20 };

/* A frozen weight that the model holds rounded, or a table in which trained rows stand: the file has it as
 * it came. */
static bool in_file(const mb_export *e, const mb_weight *w)
{
    return w->row != NULL && !w->trained &&
           (e->model->dtype != MB_DTYPE_F32 || w->token_rows != NULL);
}

mb_status mb_export_open_base(const mb_export *e, mb_tensor_file **out)
{
    const mb_model *m = e->model;

    *out = NULL;
    for (int i = 0; i < m->n_weights; i++)
        if (in_file(e, &m->weight[i]))
            return mb_tensor_file_open(e->base, out);
    return MB_OK;
}

/* Rows of a piece: about PIECE numbers, in whole heads. */
static int64_t piece_rows(const mb_model *m, int64_t rows, int64_t row)
{
    const int64_t heads = PIECE / (row * m->config.head_dim);
    const int64_t n = (heads > 1 ? heads : 1) * m->config.head_dim;

    return n < rows ? n : rows;
}

/* Of a weight the host cannot use in its place. */
static mb_status give_read(const mb_export *e, const mb_weight *w, mb_piece_fn fn, void *ctx)
{
    const int64_t count = mb_tensor_count(&w->value),
                  rows = w->value.ndim > 1 ? w->value.dim[0] : 1, row = count / rows,
                  each = rows > 1 ? piece_rows(e->model, rows, row) * row : count;
    float *numbers = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_alloc((size_t)each * sizeof *numbers, "the export", (void **)&numbers));
    for (int64_t from = 0; from < count && st == MB_OK; from += each) {
        const int64_t n = count - from < each ? count - from : each;
        st = mb_weight_read(e->model, w, from, n, numbers);
        if (st == MB_OK)
            st = fn(ctx, from, n, numbers);
    }
    mb_free(numbers);
    return st;
}

mb_status mb_export_weight(const mb_export *e, const mb_weight *w, mb_tensor_file *base,
                           mb_piece_fn fn, void *ctx)
{
    if (in_file(e, w))
        return mb_model_read_file(e->model, w, base, e->base, e->ex, fn, ctx);
    if (mb_weight_is_here(e->model, w))
        return fn(ctx, 0, mb_tensor_count(&w->value), mb_f32(&w->value));
    return give_read(e, w, fn, ctx);
}
