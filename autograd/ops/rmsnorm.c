/* autograd/ops/rmsnorm.c - RMS normalisation (Zhang & Sennrich 2019, arXiv:1910.07467).
 *
 *     y  = v * x * r            v = offset + w, r = 1 / sqrt(mean(x^2) + eps)
 *     dw = sum over rows of dy * x * r
 *     dx = r * (dy*v - x * r^2 * mean(dy*v*x))
 *
 * over each stretch of w's length: whole rows, or each head of them. r is saved: one float a stretch.
 */
#include "autograd/ops.h"

enum { X, W };
enum { RSTD };

/* x with a row for each stretch of n. */
static mb_tensor stretches(const mb_tensor *x, int64_t n)
{
    return mb_cols(x) == n ? *x : mb_tensor_2d(x->data, x->dtype, mb_tensor_count(x) / n, n);
}

static mb_status forward(mb_tape *t, mb_call *c)
{
    const mb_rmsnorm_args *a = c->attr;
    const int64_t n = mb_tensor_count(mb_in(c, W));
    const mb_tensor x = stretches(mb_in(c, X), n);
    mb_tensor y = stretches(mb_out(c, 0), n);

    return MB_RUN(mb_tape_exec(t), rmsnorm_fwd, &y, &c->saved[RSTD], &x, mb_in(c, W), a->offset,
                  a->eps);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const mb_rmsnorm_args *a = c->attr;
    const int64_t n = mb_tensor_count(mb_in(c, W));
    const mb_tensor x = stretches(mb_in(c, X), n), dy = stretches(c->d_out[0], n);
    mb_tensor dx = c->d_in[X] != NULL ? stretches(c->d_in[X], n) : (mb_tensor){0};

    return MB_RUN(mb_tape_exec(t), rmsnorm_bwd, c->d_in[X] != NULL ? &dx : NULL, c->d_in[W], &dy,
                  &x, mb_in(c, W), a->offset, &c->saved[RSTD], c->acc[X]);
}

mb_status mb_rmsnorm(mb_tape *t, mb_var *x, mb_var *w, const mb_rmsnorm_args *a, mb_var **y)
{
    mb_call c = {.op = &mb_op_rmsnorm, .in = {x, w}, .needs_in = 3};

    const int64_t n = mb_tensor_count(&w->value), cols = mb_cols(&x->value);
    MB_REQUIRE(cols % n == 0, MB_ESHAPE,
               "rmsnorm: weight has %lld entries, the input's last axis %lld", (long long)n,
               (long long)cols);
    MB_REQUIRE(cols == n || (x->base == NULL && mb_tensor_is_contiguous(&x->value)), MB_EBUG,
               "rmsnorm: heads of a view of columns");
    const int64_t count = mb_rows(&x->value) * (cols / n);
    MB_TRY(mb_tape_attr(t, a, sizeof *a, &c.attr));
    MB_TRY(mb_tape_value(t, x->value.dtype, 2, x->value.dim, &c.out[0]));
    MB_TRY(mb_tape_saved(t, &c, RSTD, MB_DTYPE_F32, 1, &count));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const struct {
        int64_t rows, cols, heads;
        mb_rmsnorm_args a;
    } cases[] = {
        {1, 2, 1, {1e-5f, 0}}, {3, 7, 1, {1e-6f, 0}},  {70, 33, 1, {1e-5f, 0}},
        {5, 6, 3, {1e-6f, 1}}, {66, 9, 2, {1e-5f, 0}}, {40, 5, 1, {1e-6f, 1}},
    };
    mb_var *x, *w;

    *y = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    MB_TRY(mb_sample_var(t, cases[i].rows, cases[i].cols * cases[i].heads, &x));
    MB_TRY(mb_sample_var(t, 0, cases[i].cols, &w));
    MB_TRY(mb_tape_seed(t, w, 0.0f, NULL)); /* a weight's gradient exists beforehand */
    return mb_rmsnorm(t, x, w, &cases[i].a, y);
}

const mb_op mb_op_rmsnorm = {.name = "rmsnorm",
                             .forward = forward,
                             .backward = backward,
                             .remake = forward,
                             .sample = sample};
