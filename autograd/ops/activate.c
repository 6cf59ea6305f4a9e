/* autograd/ops/activate.c - y = f(x) element by element; dx = f'(x) dy. f: see mb_activation. */
#include "autograd/ops.h"

static mb_status forward(mb_tape *t, mb_call *c)
{
    const mb_activation *f = c->attr;

    return MB_RUN(mb_tape_exec(t), activation_fwd, mb_out(c, 0), mb_in(c, 0), *f);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const mb_activation *f = c->attr;

    return MB_RUN(mb_tape_exec(t), activation_bwd, c->d_in[0], c->d_out[0], mb_in(c, 0), *f,
                  c->acc[0]);
}

mb_status mb_activate(mb_tape *t, mb_var *x, mb_activation f, mb_var **y)
{
    mb_call c = {.op = &mb_op_activate, .in = {x}, .needs_in = 1};

    MB_TRY(mb_tape_attr(t, &f, sizeof f, &c.attr));
    MB_TRY(mb_tape_value(t, x->value.dtype, x->value.ndim, x->value.dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    mb_var *x;

    *y = NULL;
    if (i >= MB_ACT_COUNT)
        return MB_OK;
    MB_TRY(mb_sample_var(t, 3 + i, 11, &x));
    return mb_activate(t, x, (mb_activation)i, y);
}

const mb_op mb_op_activate = {.name = "activate",
                              .forward = forward,
                              .backward = backward,
                              .remake = forward,
                              .sample = sample};
