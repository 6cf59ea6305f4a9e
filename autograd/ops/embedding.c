/* autograd/ops/embedding.c - y(r, :) = w[ids[r], :]; dw[id, :] += sum of dy over rows with that id, for the
 * whole table or those of its rows that are trained by themselves (autograd/live_rows.h).
 */
#include "autograd/ops.h"

enum { W, ROWS };

struct attr {
    mb_tensor ids;
    int64_t skip;
};

static mb_status forward(mb_tape *t, mb_call *c)
{
    const struct attr *a = c->attr;

    return MB_RUN(mb_tape_exec(t), embedding_fwd, mb_out(c, 0), &a->ids, mb_in(c, W));
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const struct attr *a = c->attr;

    if (c->in[ROWS] != NULL) {
        MB_REQUIRE(c->acc[ROWS], MB_EBUG, "embedding: the rows' gradient must exist");
        return mb_live_rows_embedding_bwd(t, c->in[W]->live, c->d_in[ROWS], &a->ids, c->d_out[0],
                                          a->skip);
    }
    MB_REQUIRE(c->acc[W], MB_EBUG, "embedding: the table's gradient must exist");
    return MB_RUN(mb_tape_exec(t), embedding_bwd, c->d_in[W], &a->ids, c->d_out[0], a->skip);
}

mb_status mb_embedding(mb_tape *t, const mb_tensor *ids, mb_var *w, int64_t skip, mb_var **y)
{
    const struct attr a = {.ids = *ids, .skip = skip};
    mb_call c = {.op = &mb_op_embedding, .in = {w, mb_live_rows_of(w)}};
    const int64_t dim[2] = {mb_tensor_count(ids), mb_cols(&w->value)};

    MB_REQUIRE(w->value.ndim == 2, MB_ESHAPE, "embedding: the table has %d dimensions, not 2",
               w->value.ndim);
    MB_TRY(mb_tape_attr(t, &a, sizeof a, &c.attr));
    const mb_dtype d =
        mb_dtype_is_quantised(w->value.dtype) ? MB_DTYPE_F32 : w->value.dtype; /* blocks: frozen */
    MB_TRY(mb_tape_value(t, d, 2, dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static int32_t ids[] = {4, 0, 4, 2, 4, 1, 0};
    const mb_tensor index = mb_tensor_1d(ids, MB_DTYPE_I32, i == 0 ? 1 : 7);
    mb_var *w;

    *y = NULL;
    if (i > 2)
        return MB_OK;
    if (i == 2) {
        MB_TRY(mb_live_rows_sample(t, 5, 17, &w));
    } else {
        MB_TRY(mb_sample_var(t, 5, i == 0 ? 3 : 17, &w));
        MB_TRY(mb_tape_seed(t, w, 0.0f, NULL)); /* exists beforehand, as a weight's */
    }
    return mb_embedding(t, &index, w, -1, y);
}

const mb_op mb_op_embedding = {
    .name = "embedding", .forward = forward, .backward = backward, .sample = sample};
