/* autograd/ops/layernorm.c - layer normalisation (Ba et al. 2016, arXiv:1607.06450).
 *
 *     y  = w * h + b            h = (x - mean) * r,  r = 1 / sqrt(var + eps)
 *     dw = sum over rows of dy * h,  db = sum over rows of dy
 *     dx = r * (g - mean(g) - h * mean(g*h)),  g = dy * w
 */
#include "autograd/ops.h"

enum { X, W, B };
enum { MEAN, RSTD };

static mb_status forward(mb_tape *t, mb_call *c)
{
    const float *eps = c->attr;

    return MB_RUN(mb_tape_exec(t), layernorm_fwd, mb_out(c, 0), &c->saved[MEAN], &c->saved[RSTD],
                  mb_in(c, X), mb_in(c, W), mb_in(c, B), *eps);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    return MB_RUN(mb_tape_exec(t), layernorm_bwd, c->d_in[X], c->d_in[W], c->d_in[B], c->d_out[0],
                  mb_in(c, X), mb_in(c, W), &c->saved[MEAN], &c->saved[RSTD], c->acc[X]);
}

mb_status mb_layernorm(mb_tape *t, mb_var *x, mb_var *w, mb_var *b, float eps, mb_var **y)
{
    mb_call c = {.op = &mb_op_layernorm, .in = {x, w, b}, .needs_in = 7};

    MB_REQUIRE(mb_tensor_count(&w->value) == mb_cols(&x->value) &&
                   mb_tensor_count(&b->value) == mb_cols(&x->value),
               MB_ESHAPE,
               "layernorm: weight has %lld and bias %lld entries, the input's last axis "
               "%lld",
               (long long)mb_tensor_count(&w->value), (long long)mb_tensor_count(&b->value),
               (long long)mb_cols(&x->value));
    MB_TRY(mb_tape_attr(t, &eps, sizeof eps, &c.attr));
    MB_TRY(mb_tape_value(t, x->value.dtype, 2, x->value.dim, &c.out[0]));
    MB_TRY(mb_tape_saved(t, &c, MEAN, MB_DTYPE_F32, 1, x->value.dim));
    MB_TRY(mb_tape_saved(t, &c, RSTD, MB_DTYPE_F32, 1, x->value.dim));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const int64_t shape[][2] = {{1, 3}, {3, 7}, {70, 33}};
    mb_var *x, *w, *b;

    *y = NULL;
    if (i >= (int)(sizeof shape / sizeof shape[0]))
        return MB_OK;
    MB_TRY(mb_sample_var(t, shape[i][0], shape[i][1], &x));
    MB_TRY(mb_sample_var(t, 0, shape[i][1], &w));
    MB_TRY(mb_sample_var(t, 0, shape[i][1], &b));
    MB_TRY(mb_tape_seed(t, w, 0.0f, NULL)); /* weights' gradients exist beforehand */
    MB_TRY(mb_tape_seed(t, b, 0.0f, NULL));
    return mb_layernorm(t, x, w, b, 1e-5f, y);
}

const mb_op mb_op_layernorm = {.name = "layernorm",
                               .forward = forward,
                               .backward = backward,
                               .remake = forward,
                               .sample = sample};
