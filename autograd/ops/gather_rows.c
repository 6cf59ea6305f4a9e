/* autograd/ops/gather_rows.c - y(i, :) = x(index[i], :); dx(index[i], :) += dy(i, :). */
#include "autograd/ops.h"

static mb_status forward(mb_tape *t, mb_call *c)
{
    return MB_RUN(mb_tape_exec(t), gather_rows, mb_out(c, 0), mb_in(c, 0), c->attr);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    if (!c->acc[0])
        MB_TRY(MB_RUN(mb_tape_exec(t), fill, c->d_in[0], 0.0f));
    return MB_RUN(mb_tape_exec(t), scatter_rows, c->d_in[0], c->d_out[0], c->attr);
}

mb_status mb_gather_rows(mb_tape *t, mb_var *x, const mb_tensor *index, mb_var **y)
{
    mb_call c = {.op = &mb_op_gather_rows, .in = {x}};
    const int64_t dim[2] = {mb_tensor_count(index), mb_cols(&x->value)};

    MB_TRY(mb_tape_attr(t, index, sizeof *index, &c.attr));
    MB_TRY(mb_tape_value(t, x->value.dtype, 2, dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static int32_t rows[] = {3, 0, -1, 5};
    const mb_tensor index = mb_tensor_1d(rows, MB_DTYPE_I32, 4);
    mb_var *x;

    *y = NULL;
    if (i > 0)
        return MB_OK;
    MB_TRY(mb_sample_var(t, 6, 5, &x));
    return mb_gather_rows(t, x, &index, y);
}

const mb_op mb_op_gather_rows = {
    .name = "gather_rows", .forward = forward, .backward = backward, .sample = sample};
