/* autograd/ops/row_losses.c - logprob(R) = -mean over columns of l(x(R,C), y); see mb_row_loss. */
#include "autograd/ops.h"

struct attr {
    mb_tensor y;
    mb_row_loss loss;
};

static mb_status forward(mb_tape *t, mb_call *c)
{
    const struct attr *a = c->attr;

    return MB_RUN(mb_tape_exec(t), row_loss_fwd, mb_out(c, 0), mb_in(c, 0), &a->y, a->loss);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const struct attr *a = c->attr;

    return MB_RUN(mb_tape_exec(t), row_loss_bwd, c->d_in[0], c->d_out[0], mb_in(c, 0), &a->y,
                  a->loss, c->acc[0]);
}

mb_status mb_row_losses(mb_tape *t, mb_var *x, const mb_tensor *y, mb_row_loss loss,
                        mb_var **logprob)
{
    const struct attr a = {.y = *y, .loss = loss};
    const int64_t rows = mb_rows(&x->value);
    mb_call c = {.op = &mb_op_row_losses, .in = {x}, .needs_in = 1};

    MB_REQUIRE(mb_tensor_count(y) == mb_tensor_count(&x->value), MB_ESHAPE,
               "row_losses: %lld values for %lld outputs", (long long)mb_tensor_count(y),
               (long long)mb_tensor_count(&x->value));
    MB_TRY(mb_tape_attr(t, &a, sizeof a, &c.attr));
    MB_TRY(mb_tape_value(t, MB_DTYPE_F32, 1, &rows, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *logprob = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const struct {
        int64_t rows, cols;
        mb_row_loss loss;
    } cases[] = {{1, 1, MB_ROW_LOSS_SQUARED},
                 {9, 5, MB_ROW_LOSS_SQUARED},
                 {1, 1, MB_ROW_LOSS_SIGMOID},
                 {5, 37, MB_ROW_LOSS_SIGMOID}};
    static float want[5 * 37];
    mb_var *x;

    *y = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    const mb_tensor values = mb_tensor_1d(want, MB_DTYPE_F32, cases[i].rows * cases[i].cols);
    for (int64_t k = 0; k < cases[i].rows * cases[i].cols; k++)
        want[k] = k % 3 == 0 ? 1.0f : 0.0f;
    MB_TRY(mb_sample_var(t, cases[i].rows, cases[i].cols, &x));
    return mb_row_losses(t, x, &values, cases[i].loss, y);
}

const mb_op mb_op_row_losses = {
    .name = "row_losses", .forward = forward, .backward = backward, .sample = sample};
