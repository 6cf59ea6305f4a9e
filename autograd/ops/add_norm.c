/* autograd/ops/add_norm.c - a residual addition and the norm of it, in one pass over the rows.
 *
 *     sum = a + b                 y = norm(sum)
 *     da = db = d(sum) + dnorm(sum)^T dy
 *
 * The norms are those of ops/rmsnorm.c and ops/layernorm.c, the bits those of `add` and then the
 * norm. Both terms of the gradient meet where one of them has to be anyway: in the gradient that
 * arrived at sum, or, when y is all that was used (post-norm), at once in that of a or b.
 */
#include "autograd/ops.h"

enum { A, B, W, BIAS };
enum { SUM, Y };
enum { RSTD, MEAN };

/* dx (+)= the norm's backward at x = sum, and the gradients of its weights. */
typedef mb_status norm_backward(mb_tape *t, mb_call *c, mb_tensor *dx, bool acc);

/* An input whose gradient holds nothing yet, to be written before the other one's. */
static mb_tensor *unwritten(const mb_call *c)
{
    for (int i = A; i <= B && c->in[A] != c->in[B]; i++)
        if (c->d_in[i] != NULL && !c->acc[i])
            return c->d_in[i];
    return NULL;
}

/* Where the gradient of sum is put together; NULL when neither input wants it. */
static mb_status gather(mb_tape *t, mb_call *c, mb_tensor *own, mb_tensor **d_sum)
{
    const mb_tensor *sum = mb_out(c, SUM);

    *d_sum = NULL;
    if (c->d_in[A] == NULL && c->d_in[B] == NULL)
        return MB_OK;
    *d_sum = c->d_out[SUM] != NULL ? c->d_out[SUM] : unwritten(c);
    if (*d_sum != NULL)
        return MB_OK;
    *d_sum = own;
    return mb_tape_temporary(t, sum->dtype, sum->ndim, sum->dim, own);
}

static mb_status backward(mb_tape *t, mb_call *c, norm_backward *norm)
{
    mb_tensor own, *d_sum;

    MB_TRY(gather(t, c, &own, &d_sum));
    if (c->d_out[Y] != NULL)
        MB_TRY(norm(t, c, d_sum, c->d_out[SUM] != NULL));
    for (int i = A; i <= B; i++) {
        if (c->d_in[i] == NULL || c->d_in[i] == d_sum)
            continue;
        if (c->acc[i])
            MB_TRY(MB_RUN(mb_tape_exec(t), axpy, c->d_in[i], 1.0f, d_sum));
        else
            MB_TRY(MB_RUN(mb_tape_exec(t), copy, c->d_in[i], d_sum));
    }
    return MB_OK;
}

/* What both front functions do once the weights' shapes fit. */
static mb_status apply(mb_tape *t, mb_call *c, mb_var **sum, mb_var **y)
{
    const mb_var *a = c->in[A], *b = c->in[B];
    char sa[64], sb[64];

    MB_REQUIRE(mb_tensor_same_shape(&a->value, &b->value), MB_ESHAPE, "%s: %s and %s differ",
               c->op->name, mb_tensor_shape(&a->value, sa, sizeof sa),
               mb_tensor_shape(&b->value, sb, sizeof sb));
    c->needs_in = 1u << W | 1u << BIAS;
    c->needs_out = 1u << SUM;
    MB_TRY(mb_tape_value(t, a->value.dtype, 2, a->value.dim, &c->out[SUM]));
    MB_TRY(mb_tape_value(t, a->value.dtype, 2, a->value.dim, &c->out[Y]));
    MB_TRY(mb_tape_apply(t, c));
    /* a trained norm alone is no reason to differentiate what comes after the sum */
    c->out[SUM]->needs_grad = c->out[SUM]->needs_grad && (a->needs_grad || b->needs_grad);
    *sum = c->out[SUM];
    *y = c->out[Y];
    return MB_OK;
}

/* Cases of the gradient test: what is used of the call, and what its inputs are. */
enum use { Y_ONLY, SUM_ONLY, BOTH, A_AGAIN, BOTH_AGAIN, A_FIXED, SAME_TWICE };

static const struct {
    int64_t rows, cols;
    enum use use;
} cases[] = {
    {1, 3, Y_ONLY}, {3, 7, Y_ONLY},  {70, 33, Y_ONLY},   {3, 7, SUM_ONLY}, {1, 3, BOTH},
    {70, 33, BOTH}, {3, 7, A_AGAIN}, {3, 7, BOTH_AGAIN}, {3, 7, A_FIXED},  {3, 7, SAME_TWICE},
};

/* a, b, w and bias (NULL: none); *a is NULL when there is no case i. */
static mb_status sample_inputs(mb_tape *t, int i, mb_var **a, mb_var **b, mb_var **w, mb_var **bias)
{
    *a = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    const int64_t dim[2] = {cases[i].rows, cases[i].cols};
    if (cases[i].use == A_FIXED) {
        MB_TRY(mb_tape_value(t, MB_DTYPE_F32, 2, dim, a));
        MB_TRY(MB_RUN(mb_tape_exec(t), fill, &(*a)->value, 0.5f));
    } else {
        MB_TRY(mb_sample_var(t, dim[0], dim[1], a));
    }
    *b = *a;
    if (cases[i].use != SAME_TWICE)
        MB_TRY(mb_sample_var(t, dim[0], dim[1], b));
    MB_TRY(mb_sample_var(t, 0, dim[1], w));
    MB_TRY(mb_tape_seed(t, *w, 0.0f, NULL)); /* weights' gradients exist beforehand */
    if (bias == NULL)
        return MB_OK;
    MB_TRY(mb_sample_var(t, 0, dim[1], bias));
    return mb_tape_seed(t, *bias, 0.0f, NULL);
}

/* What of them is differentiated. An input that is used again later has a gradient before the call
 * gives it one. */
static mb_status sample_use(mb_tape *t, int i, mb_var *a, mb_var *b, mb_var *sum, mb_var **y)
{
    switch (cases[i].use) {
    case SUM_ONLY:
        *y = sum;
        return MB_OK;
    case BOTH:
    case A_FIXED:
        return mb_glu(t, sum, *y, MB_ACT_SILU, y);
    case A_AGAIN:
        return mb_add(t, *y, a, y);
    case BOTH_AGAIN:
        MB_TRY(mb_add(t, *y, a, y));
        return mb_add(t, *y, b, y);
    case Y_ONLY:
    case SAME_TWICE:
        break;
    }
    return MB_OK;
}

/* ---- RMSNorm ------------------------------------------------------------------------------ */

static mb_status rms_forward(mb_tape *t, mb_call *c)
{
    const mb_rmsnorm_args *n = c->attr;

    return MB_RUN(mb_tape_exec(t), add_rmsnorm_fwd, mb_out(c, Y), mb_out(c, SUM), &c->saved[RSTD],
                  mb_in(c, A), mb_in(c, B), mb_in(c, W), n->offset, n->eps);
}

static mb_status rms_remake(mb_tape *t, mb_call *c)
{
    const mb_rmsnorm_args *n = c->attr;

    return MB_RUN(mb_tape_exec(t), rmsnorm_fwd, mb_out(c, Y), &c->saved[RSTD], mb_out(c, SUM),
                  mb_in(c, W), n->offset, n->eps);
}

static mb_status rms_norm(mb_tape *t, mb_call *c, mb_tensor *dx, bool acc)
{
    const mb_rmsnorm_args *n = c->attr;

    return MB_RUN(mb_tape_exec(t), rmsnorm_bwd, dx, c->d_in[W], c->d_out[Y], mb_out(c, SUM),
                  mb_in(c, W), n->offset, &c->saved[RSTD], acc);
}

static mb_status rms_backward(mb_tape *t, mb_call *c)
{
    return backward(t, c, rms_norm);
}

mb_status mb_add_rmsnorm(mb_tape *t, mb_var *a, mb_var *b, mb_var *w, const mb_rmsnorm_args *n,
                         mb_var **sum, mb_var **y)
{
    mb_call c = {.op = &mb_op_add_rmsnorm, .in = {a, b, w}};

    MB_REQUIRE(mb_tensor_count(&w->value) == mb_cols(&a->value), MB_ESHAPE,
               "add_rmsnorm: weight has %lld entries, the input's last axis %lld",
               (long long)mb_tensor_count(&w->value), (long long)mb_cols(&a->value));
    MB_TRY(mb_tape_attr(t, n, sizeof *n, &c.attr));
    MB_TRY(mb_tape_saved(t, &c, RSTD, MB_DTYPE_F32, 1, a->value.dim));
    return apply(t, &c, sum, y);
}

static mb_status rms_sample(mb_tape *t, int i, mb_var **y)
{
    const mb_rmsnorm_args n = {.eps = 1e-5f, .offset = (float)(i % 2)};
    mb_var *a, *b, *w, *sum;

    *y = NULL;
    MB_TRY(sample_inputs(t, i, &a, &b, &w, NULL));
    if (a == NULL)
        return MB_OK;
    MB_TRY(mb_add_rmsnorm(t, a, b, w, &n, &sum, y));
    return sample_use(t, i, a, b, sum, y);
}

const mb_op mb_op_add_rmsnorm = {.name = "add_rmsnorm",
                                 .forward = rms_forward,
                                 .backward = rms_backward,
                                 .remake = rms_remake,
                                 .again = Y,
                                 .sample = rms_sample};

/* ---- LayerNorm ---------------------------------------------------------------------------- */

static mb_status layer_forward(mb_tape *t, mb_call *c)
{
    const float *eps = c->attr;

    return MB_RUN(mb_tape_exec(t), add_layernorm_fwd, mb_out(c, Y), mb_out(c, SUM), &c->saved[MEAN],
                  &c->saved[RSTD], mb_in(c, A), mb_in(c, B), mb_in(c, W), mb_in(c, BIAS), *eps);
}

static mb_status layer_remake(mb_tape *t, mb_call *c)
{
    const float *eps = c->attr;

    return MB_RUN(mb_tape_exec(t), layernorm_fwd, mb_out(c, Y), &c->saved[MEAN], &c->saved[RSTD],
                  mb_out(c, SUM), mb_in(c, W), mb_in(c, BIAS), *eps);
}

static mb_status layer_norm(mb_tape *t, mb_call *c, mb_tensor *dx, bool acc)
{
    return MB_RUN(mb_tape_exec(t), layernorm_bwd, dx, c->d_in[W], c->d_in[BIAS], c->d_out[Y],
                  mb_out(c, SUM), mb_in(c, W), &c->saved[MEAN], &c->saved[RSTD], acc);
}

static mb_status layer_backward(mb_tape *t, mb_call *c)
{
    return backward(t, c, layer_norm);
}

mb_status mb_add_layernorm(mb_tape *t, mb_var *a, mb_var *b, mb_var *w, mb_var *bias, float eps,
                           mb_var **sum, mb_var **y)
{
    mb_call c = {.op = &mb_op_add_layernorm, .in = {a, b, w, bias}};

    MB_REQUIRE(mb_tensor_count(&w->value) == mb_cols(&a->value) &&
                   mb_tensor_count(&bias->value) == mb_cols(&a->value),
               MB_ESHAPE,
               "add_layernorm: weight has %lld and bias %lld entries, the input's last axis %lld",
               (long long)mb_tensor_count(&w->value), (long long)mb_tensor_count(&bias->value),
               (long long)mb_cols(&a->value));
    MB_TRY(mb_tape_attr(t, &eps, sizeof eps, &c.attr));
    MB_TRY(mb_tape_saved(t, &c, RSTD, MB_DTYPE_F32, 1, a->value.dim));
    MB_TRY(mb_tape_saved(t, &c, MEAN, MB_DTYPE_F32, 1, a->value.dim));
    return apply(t, &c, sum, y);
}

static mb_status layer_sample(mb_tape *t, int i, mb_var **y)
{
    mb_var *a, *b, *w, *bias, *sum;

    *y = NULL;
    MB_TRY(sample_inputs(t, i, &a, &b, &w, &bias));
    if (a == NULL)
        return MB_OK;
    MB_TRY(mb_add_layernorm(t, a, b, w, bias, 1e-5f, &sum, y));
    return sample_use(t, i, a, b, sum, y);
}

const mb_op mb_op_add_layernorm = {.name = "add_layernorm",
                                   .forward = layer_forward,
                                   .backward = layer_backward,
                                   .remake = layer_remake,
                                   .again = Y,
                                   .sample = layer_sample};
