/* autograd/ops/magnitude.c - the trained length of each output of an adapted layer (DoRA, Liu et al.
 * 2024, arXiv:2402.09353).
 *
 *     y = g u + bias          g_j = m_j / n_j,  n_j = |row j of W + s B A|
 *     du = g dy               dm_j = sum over rows of dy u / n_j
 *
 * n is a constant to the backward, as the paper (section 4.3) and PEFT have it: W, A and B get their
 * gradients through u alone.
 */
#include "autograd/ops.h"

enum { U, M, W, A, B, BIAS };
enum { GAIN, RNORM };

static mb_status forward(mb_tape *t, mb_call *c)
{
    const mb_magnitude_args *a = c->attr;
    const int64_t n = mb_cols(mb_in(c, U)), rank = mb_cols(mb_in(c, B));
    mb_exec *ex = mb_tape_exec(t);
    mb_tensor wa, aa;

    MB_TRY(mb_tape_temporary(t, MB_DTYPE_F32, 2, (const int64_t[]){n, rank}, &wa));
    MB_TRY(mb_tape_temporary(t, MB_DTYPE_F32, 2, (const int64_t[]){rank, rank}, &aa));
    MB_TRY(MB_RUN(ex, gemm, &wa, mb_in(c, W), a->transposed, mb_in(c, A), true, 1.0f, 0.0f, NULL));
    MB_TRY(MB_RUN(ex, gemm, &aa, mb_in(c, A), false, mb_in(c, A), true, 1.0f, 0.0f, NULL));
    MB_TRY(MB_RUN(ex, magnitude_gain, &c->saved[GAIN], &c->saved[RNORM], mb_in(c, M), mb_in(c, W),
                  a->transposed, mb_in(c, B), &wa, &aa, a->lora_scale));
    return MB_RUN(ex, scale_columns, mb_out(c, 0), mb_in(c, U), &c->saved[GAIN], mb_in(c, BIAS),
                  false);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    mb_exec *ex = mb_tape_exec(t);

    if (c->d_in[M] != NULL)
        MB_TRY(
            MB_RUN(ex, scale_columns_bwd, c->d_in[M], c->d_out[0], mb_in(c, U), &c->saved[RNORM]));
    if (c->in[BIAS] != NULL && c->d_in[BIAS] != NULL)
        MB_TRY(MB_RUN(ex, bias_bwd, c->d_in[BIAS], c->d_out[0]));
    if (c->d_in[U] == NULL)
        return MB_OK;
    return MB_RUN(ex, scale_columns, c->d_in[U], c->d_out[0], &c->saved[GAIN], NULL, c->acc[U]);
}

mb_status mb_magnitude(mb_tape *t, mb_var *u, const mb_magnitude_args *a, mb_var **y)
{
    mb_call c = {.op = &mb_op_magnitude, .in = {u, a->m, a->w, a->lora_a, a->lora_b, a->bias}};
    const int64_t n = mb_cols(&u->value);

    MB_REQUIRE(mb_tensor_count(&a->m->value) == n && a->lora_b->value.dim[0] == n &&
                   a->w->value.dim[a->transposed ? 1 : 0] == n,
               MB_ESHAPE, "magnitude: %lld lengths, %lld outputs",
               (long long)mb_tensor_count(&a->m->value), (long long)n);
    c.needs_in = 1u << U;
    MB_TRY(mb_tape_attr(t, a, sizeof *a, &c.attr));
    MB_TRY(mb_tape_value(t, u->value.dtype, 2, u->value.dim, &c.out[0]));
    MB_TRY(mb_tape_saved(t, &c, GAIN, MB_DTYPE_F32, 1, &n));
    MB_TRY(mb_tape_saved(t, &c, RNORM, MB_DTYPE_F32, 1, &n));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status constant(mb_tape *t, float *at, int64_t rows, int64_t cols, mb_var **v)
{
    const mb_tensor value = mb_tensor_2d(at, MB_DTYPE_F32, rows, cols);

    for (int64_t i = 0; i < rows * cols; i++)
        at[i] = 0.3f + mb_sample_projection(i);
    return mb_tape_constant(t, &value, v);
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const struct {
        int64_t rows, in, out, rank;
        bool bias, transposed, again;
    } cases[] = {
        {1, 1, 1, 1, false, false, false},
        {3, 7, 5, 2, true, false, false},
        {66, 6, 33, 3, true, true, false},
        {5, 4, 6, 2, false, false, true},
    };
    static float w[200], la[32], lb[128];
    mb_magnitude_args a = {.lora_scale = 1.5f};
    mb_var *u;

    *y = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    const int64_t in = cases[i].in, out = cases[i].out;
    a.transposed = cases[i].transposed;
    MB_TRY(constant(t, w, a.transposed ? in : out, a.transposed ? out : in, &a.w));
    MB_TRY(constant(t, la, cases[i].rank, in, &a.lora_a));
    MB_TRY(constant(t, lb, out, cases[i].rank, &a.lora_b));
    MB_TRY(mb_sample_var(t, cases[i].rows, out, &u));
    MB_TRY(mb_sample_var(t, 0, out, &a.m));
    MB_TRY(mb_tape_seed(t, a.m, 0.0f, NULL)); /* a weight's gradient exists beforehand */
    if (cases[i].bias) {
        MB_TRY(mb_sample_var(t, 0, out, &a.bias));
        MB_TRY(mb_tape_seed(t, a.bias, 0.0f, NULL));
    }
    MB_TRY(mb_magnitude(t, u, &a, y));
    return cases[i].again ? mb_add(t, u, *y, y) : MB_OK;
}

const mb_op mb_op_magnitude = {
    .name = "magnitude", .forward = forward, .backward = backward, .sample = sample};
