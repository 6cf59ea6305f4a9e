/* autograd/ops/add.c - y = a + b; the gradient goes to both unchanged. */
#include "autograd/ops.h"

static mb_status forward(mb_tape *t, mb_call *c)
{
    return MB_RUN(mb_tape_exec(t), add, mb_out(c, 0), mb_in(c, 0), mb_in(c, 1));
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    for (int i = 0; i < 2; i++) {
        if (c->d_in[i] != NULL && c->acc[i])
            MB_TRY(MB_RUN(mb_tape_exec(t), axpy, c->d_in[i], 1.0f, c->d_out[0]));
        else if (c->d_in[i] != NULL)
            MB_TRY(MB_RUN(mb_tape_exec(t), copy, c->d_in[i], c->d_out[0]));
    }
    return MB_OK;
}

mb_status mb_add(mb_tape *t, mb_var *a, mb_var *b, mb_var **y)
{
    mb_call c = {.op = &mb_op_add, .in = {a, b}};
    char sa[64], sb[64];

    MB_REQUIRE(mb_tensor_same_shape(&a->value, &b->value), MB_ESHAPE, "add: %s and %s differ",
               mb_tensor_shape(&a->value, sa, sizeof sa),
               mb_tensor_shape(&b->value, sb, sizeof sb));
    MB_TRY(mb_tape_value(t, a->value.dtype, a->value.ndim, a->value.dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const int64_t shape[][2] = {{1, 1}, {3, 7}, {5, 64}};
    mb_var *a, *b;

    *y = NULL;
    if (i > 3)
        return MB_OK;
    if (i == 3) { /* the same value twice */
        MB_TRY(mb_sample_var(t, 2, 5, &a));
        return mb_add(t, a, a, y);
    }
    MB_TRY(mb_sample_var(t, shape[i][0], shape[i][1], &a));
    MB_TRY(mb_sample_var(t, shape[i][0], shape[i][1], &b));
    return mb_add(t, a, b, y);
}

const mb_op mb_op_add = {.name = "add", .forward = forward, .backward = backward, .sample = sample};
