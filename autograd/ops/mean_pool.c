/* autograd/ops/mean_pool.c - y(S,D) f32 = mean of the rows of each sequence of x(T,D). */
#include "autograd/ops.h"

struct attr {
    mb_tensor start, len;
};

static mb_status forward(mb_tape *t, mb_call *c)
{
    const struct attr *a = c->attr;

    return MB_RUN(mb_tape_exec(t), mean_pool_fwd, mb_out(c, 0), mb_in(c, 0), &a->start, &a->len);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const struct attr *a = c->attr;

    return MB_RUN(mb_tape_exec(t), mean_pool_bwd, c->d_in[0], c->d_out[0], &a->start, &a->len,
                  c->acc[0]);
}

mb_status mb_mean_pool(mb_tape *t, mb_var *x, const mb_tensor *start, const mb_tensor *len,
                       mb_var **y)
{
    const struct attr a = {.start = *start, .len = *len};
    const int64_t dim[2] = {mb_tensor_count(start), mb_cols(&x->value)};
    mb_call c = {.op = &mb_op_mean_pool, .in = {x}};

    MB_TRY(mb_tape_attr(t, &a, sizeof a, &c.attr));
    MB_TRY(mb_tape_value(t, MB_DTYPE_F32, 2, dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static int32_t start[] = {0, 1, 8, -1}, len[] = {1, 6, 33, 0};
    const mb_tensor starts = mb_tensor_1d(start, MB_DTYPE_I32, 4);
    const mb_tensor lens = mb_tensor_1d(len, MB_DTYPE_I32, 4);
    mb_var *x;

    *y = NULL;
    if (i > 0)
        return MB_OK;
    MB_TRY(mb_sample_var(t, 44, 19, &x));
    return mb_mean_pool(t, x, &starts, &lens, y);
}

const mb_op mb_op_mean_pool = {
    .name = "mean_pool", .forward = forward, .backward = backward, .sample = sample};
