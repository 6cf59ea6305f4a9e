/* autograd/ops/bucket_bias.c - y(n, m) = w(ids[m], n); dw(id, n) += sum of dy(n, m) where ids[m] is id.
 *
 * Attention's bias by distance (Raffel et al. 2020, arXiv:1910.10683), in f32 whatever the model
 * computes in: the gradients of all layers meet in dy.
 */
#include "autograd/ops.h"

enum { W };

static mb_status forward(mb_tape *t, mb_call *c)
{
    return MB_RUN(mb_tape_exec(t), bucket_bias_fwd, mb_out(c, 0), c->attr, mb_in(c, W));
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    MB_REQUIRE(c->acc[W], MB_EBUG, "bucket_bias: the weight's gradient must exist");
    return MB_RUN(mb_tape_exec(t), bucket_bias_bwd, c->d_in[W], c->attr, c->d_out[0]);
}

mb_status mb_bucket_bias(mb_tape *t, const mb_tensor *ids, mb_var *w, mb_var **y)
{
    mb_call c = {.op = &mb_op_bucket_bias, .in = {w}};
    const int64_t dim[2] = {mb_cols(&w->value), mb_tensor_count(ids)};

    MB_REQUIRE(w->value.ndim == 2, MB_ESHAPE, "bucket_bias: the weight has %d dimensions, not 2",
               w->value.ndim);
    MB_TRY(mb_tape_attr(t, ids, sizeof *ids, &c.attr));
    MB_TRY(mb_tape_value(t, MB_DTYPE_F32, 2, dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static int32_t ids[] = {4, 4, 4, 3, 1, 0, 2, 2, 3};
    const mb_tensor index = mb_tensor_1d(ids, MB_DTYPE_I32, i == 0 ? 1 : 9);
    mb_var *w;
    mb_tensor *g;
    bool acc;

    *y = NULL;
    if (i > 1)
        return MB_OK;
    MB_TRY(mb_sample_var(t, 5, i == 0 ? 1 : 3, &w));
    MB_TRY(mb_tape_grad(t, w, &g, &acc)); /* exists beforehand, as a weight's */
    MB_TRY(MB_RUN(mb_tape_exec(t), fill, g, 0.0f));
    return mb_bucket_bias(t, &index, w, y);
}

const mb_op mb_op_bucket_bias = {
    .name = "bucket_bias", .forward = forward, .backward = backward, .sample = sample};
