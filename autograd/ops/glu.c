/* autograd/ops/glu.c - gated unit y = f(gate) * up (Shazeer, arXiv:2002.05202; SwiGLU: f = SiLU). */
#include "autograd/ops.h"

enum { GATE, UP };

static mb_status forward(mb_tape *t, mb_call *c)
{
    const mb_activation *f = c->attr;

    return MB_RUN(mb_tape_exec(t), glu_fwd, mb_out(c, 0), mb_in(c, GATE), mb_in(c, UP), *f);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const mb_activation *f = c->attr;
    const bool any = c->acc[GATE] || c->acc[UP];

    for (int i = GATE; any && i <= UP; i++)
        if (c->d_in[i] != NULL && !c->acc[i])
            MB_TRY(MB_RUN(mb_tape_exec(t), fill, c->d_in[i], 0.0f));
    return MB_RUN(mb_tape_exec(t), glu_bwd, c->d_in[GATE], c->d_in[UP], c->d_out[0], mb_in(c, GATE),
                  mb_in(c, UP), *f, any);
}

mb_status mb_glu(mb_tape *t, mb_var *gate, mb_var *up, mb_activation f, mb_var **y)
{
    mb_call c = {.op = &mb_op_glu, .in = {gate, up}, .needs_in = 3};

    MB_REQUIRE(mb_tensor_same_shape(&gate->value, &up->value), MB_ESHAPE,
               "glu: gate has %lld columns, up %lld", (long long)mb_cols(&gate->value),
               (long long)mb_cols(&up->value));
    MB_TRY(mb_tape_attr(t, &f, sizeof f, &c.attr));
    MB_TRY(mb_tape_value(t, gate->value.dtype, 2, gate->value.dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    mb_var *gate, *up;

    *y = NULL;
    if (i >= MB_ACT_COUNT)
        return MB_OK;
    MB_TRY(mb_sample_var(t, 2, 9 + i, &gate));
    MB_TRY(mb_sample_var(t, 2, 9 + i, &up));
    return mb_glu(t, gate, up, (mb_activation)i, y);
}

const mb_op mb_op_glu = {
    .name = "glu", .forward = forward, .backward = backward, .remake = forward, .sample = sample};
