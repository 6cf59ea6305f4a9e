/* autograd/ops/rmsnorm.c - RMS normalisation (Zhang & Sennrich 2019, arXiv:1910.07467).
 *
 *     y  = w * x * r            r = 1 / sqrt(mean(x^2) + eps)
 *     dw = sum over rows of dy * x * r
 *     dx = r * (dy*w - x * r^2 * mean(dy*w*x))
 *
 * r is saved: one float per row.
 */
#include "autograd/ops.h"

enum { X, W };
enum { RSTD };

static mb_status forward(mb_tape *t, mb_call *c)
{
    const float *eps = c->attr;

    return MB_RUN(mb_tape_exec(t), rmsnorm_fwd, mb_out(c, 0), &c->saved[RSTD], mb_in(c, X),
                  mb_in(c, W), *eps);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    return MB_RUN(mb_tape_exec(t), rmsnorm_bwd, c->d_in[X], c->d_in[W], c->d_out[0], mb_in(c, X),
                  mb_in(c, W), &c->saved[RSTD], c->acc[X]);
}

mb_status mb_rmsnorm(mb_tape *t, mb_var *x, mb_var *w, float eps, mb_var **y)
{
    mb_call c = {.op = &mb_op_rmsnorm, .in = {x, w}, .needs_in = 3};

    MB_REQUIRE(mb_tensor_count(&w->value) == mb_cols(&x->value), MB_ESHAPE,
               "rmsnorm: weight has %lld entries, the input's last axis %lld",
               (long long)mb_tensor_count(&w->value), (long long)mb_cols(&x->value));
    MB_TRY(mb_tape_attr(t, &eps, sizeof eps, &c.attr));
    MB_TRY(mb_tape_value(t, x->value.dtype, 2, x->value.dim, &c.out[0]));
    MB_TRY(mb_tape_saved(t, &c, RSTD, MB_DTYPE_F32, 1, x->value.dim));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const struct {
        int64_t rows, cols;
        float eps;
    } cases[] = {{1, 2, 1e-5f}, {3, 7, 1e-6f}, {70, 33, 1e-5f}};
    mb_var *x, *w;

    *y = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    MB_TRY(mb_sample_var(t, cases[i].rows, cases[i].cols, &x));
    MB_TRY(mb_sample_var(t, 0, cases[i].cols, &w));
    MB_TRY(mb_tape_seed(t, w, 0.0f, NULL)); /* a weight's gradient exists beforehand */
    return mb_rmsnorm(t, x, w, cases[i].eps, y);
}

const mb_op mb_op_rmsnorm = {.name = "rmsnorm",
                             .forward = forward,
                             .backward = backward,
                             .remake = forward,
                             .sample = sample};
