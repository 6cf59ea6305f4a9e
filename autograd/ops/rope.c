/* autograd/ops/rope.c - rotary position embedding (Su et al. 2021, arXiv:2104.09864).
 *
 *     y_i = x_i cos - x_{i+h} sin        y_{i+h} = x_{i+h} cos + x_i sin      i < h = rot/2
 *
 * in each head, with cos and sin of (position, i) from tables. Pairs are the two halves, as Hugging
 * Face stores weights. A rotation's transpose is its inverse, so the backward rotates back.
 */
#include "autograd/ops.h"

struct attr {
    mb_tensor cos_table, sin_table, positions;
    int64_t head_dim;
};

static mb_status run(mb_tape *t, const struct attr *a, mb_tensor *y, const mb_tensor *x,
                     bool inverse, bool acc)
{
    return MB_RUN(mb_tape_exec(t), rope, y, x, &a->cos_table, &a->sin_table, &a->positions,
                  a->head_dim, inverse, acc);
}

static mb_status forward(mb_tape *t, mb_call *c)
{
    return run(t, c->attr, mb_out(c, 0), mb_in(c, 0), false, false);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    return run(t, c->attr, c->d_in[0], c->d_out[0], true, c->acc[0]);
}

mb_status mb_rope(mb_tape *t, mb_var *x, const mb_tensor *cos_table, const mb_tensor *sin_table,
                  const mb_tensor *positions, int64_t head_dim, mb_var **y)
{
    const struct attr a = {.cos_table = *cos_table,
                           .sin_table = *sin_table,
                           .positions = *positions,
                           .head_dim = head_dim};
    mb_call c = {.op = &mb_op_rope, .in = {x}};

    MB_REQUIRE(mb_cols(&x->value) % head_dim == 0 && 2 * mb_cols(cos_table) <= head_dim, MB_ESHAPE,
               "rope: width %lld, head size %lld, %lld angles", (long long)mb_cols(&x->value),
               (long long)head_dim, (long long)mb_cols(cos_table));
    MB_TRY(mb_tape_attr(t, &a, sizeof a, &c.attr));
    MB_TRY(mb_tape_value(t, x->value.dtype, 2, x->value.dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static float cosines[8] = {1, 1, 0.5403f, 0.9801f, -0.4161f, 0.9211f, -0.99f, 0.8253f};
    static float sines[8] = {0, 0, 0.8415f, 0.1987f, 0.9093f, 0.3894f, 0.1411f, 0.5646f};
    static int32_t positions[] = {0, 1, 2, 3, 0, 1};
    const mb_tensor ct = mb_tensor_2d(cosines, MB_DTYPE_F32, 4, 2);
    const mb_tensor st = mb_tensor_2d(sines, MB_DTYPE_F32, 4, 2);
    const mb_tensor pos = mb_tensor_1d(positions, MB_DTYPE_I32, 6);
    const int64_t head_dim = i == 0 ? 4 : 6; /* the second keeps two columns unrotated */
    mb_var *x;

    *y = NULL;
    if (i > 1)
        return MB_OK;
    MB_TRY(mb_sample_var(t, 6, 3 * head_dim, &x));
    return mb_rope(t, x, &ct, &st, &pos, head_dim, y);
}

const mb_op mb_op_rope = {
    .name = "rope", .forward = forward, .backward = backward, .sample = sample};
