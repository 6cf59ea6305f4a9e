/* autograd/ops/scale.c - y = alpha x; dx = alpha dy. */
#include "autograd/ops.h"

static mb_status forward(mb_tape *t, mb_call *c)
{
    const float *alpha = c->attr;

    return MB_RUN(mb_tape_exec(t), scale, mb_out(c, 0), *alpha, mb_in(c, 0));
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const float *alpha = c->attr;

    if (c->acc[0])
        return MB_RUN(mb_tape_exec(t), axpy, c->d_in[0], *alpha, c->d_out[0]);
    return MB_RUN(mb_tape_exec(t), scale, c->d_in[0], *alpha, c->d_out[0]);
}

mb_status mb_scale(mb_tape *t, mb_var *x, float alpha, mb_var **y)
{
    mb_call c = {.op = &mb_op_scale, .in = {x}};

    MB_TRY(mb_tape_attr(t, &alpha, sizeof alpha, &c.attr));
    MB_TRY(mb_tape_value(t, x->value.dtype, x->value.ndim, x->value.dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const struct {
        int64_t rows, cols;
        float alpha;
        bool again; /* x is used once more */
    } cases[] = {{1, 1, 2.5f, false}, {7, 33, -1.0f, false}, {5, 6, 0.75f, true}};
    mb_var *x;

    *y = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    MB_TRY(mb_sample_var(t, cases[i].rows, cases[i].cols, &x));
    MB_TRY(mb_scale(t, x, cases[i].alpha, y));
    return cases[i].again ? mb_add(t, x, *y, y) : MB_OK;
}

const mb_op mb_op_scale = {
    .name = "scale", .forward = forward, .backward = backward, .sample = sample};
