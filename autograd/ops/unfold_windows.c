/* autograd/ops/unfold_windows.c - y[t, c k + j] = x[t stride + j - pad, c] within each sequence: the windows of
 * a convolution over rows, side by side. With linear and a weight (out, in, k) seen as (out, in k) it is
 * torch.nn.Conv1d.
 */
#include "autograd/ops.h"

static mb_status forward(mb_tape *t, mb_call *c)
{
    return MB_RUN(mb_tape_exec(t), unfold, mb_out(c, 0), mb_in(c, 0), c->attr);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    return MB_RUN(mb_tape_exec(t), unfold_bwd, c->d_in[0], c->d_out[0], c->attr, c->acc[0]);
}

/* Whole sequences become whole sequences; what is left over becomes what it would begin. */
static int64_t rows_of(const mb_unfold *u, int64_t rows)
{
    const int64_t rest = (rows % u->in_len + u->stride - 1) / u->stride;

    return rows / u->in_len * u->out_len + (rest < u->out_len ? rest : u->out_len);
}

mb_status mb_unfold_windows(mb_tape *t, mb_var *x, const mb_unfold *u, mb_var **y)
{
    mb_call c = {.op = &mb_op_unfold_windows, .in = {x}};

    MB_REQUIRE(u->in_len > 0 && u->kernel > 0 && u->stride > 0 && u->pad >= 0 &&
                   u->out_len == (u->in_len + 2 * u->pad - u->kernel) / u->stride + 1,
               MB_ESHAPE, "unfold: %lld windows of %lld rows from sequences of %lld rows",
               (long long)u->out_len, (long long)u->kernel, (long long)u->in_len);
    const int64_t dim[2] = {rows_of(u, mb_rows(&x->value)), mb_cols(&x->value) * u->kernel};
    MB_TRY(mb_tape_attr(t, u, sizeof *u, &c.attr));
    MB_TRY(mb_tape_value(t, x->value.dtype, 2, dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const struct {
        int64_t rows, cols;
        mb_unfold u;
    } cases[] = {
        {1, 1, {1, 1, 1, 1, 0}},  {6, 5, {6, 6, 3, 1, 1}},  {12, 7, {6, 3, 3, 2, 1}},
        {10, 3, {5, 3, 3, 2, 1}}, {13, 4, {4, 2, 3, 2, 1}}, {40, 33, {8, 2, 5, 4, 2}},
    };
    mb_var *x;

    *y = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    MB_TRY(mb_sample_var(t, cases[i].rows, cases[i].cols, &x));
    return mb_unfold_windows(t, x, &cases[i].u, y);
}

const mb_op mb_op_unfold_windows = {
    .name = "unfold_windows", .forward = forward, .backward = backward, .sample = sample};
