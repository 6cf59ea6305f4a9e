/* autograd/ops/linear.c - y = x W^T + bias, with an optional low-rank adapter (LoRA, Hu et al. 2021,
 * arXiv:2106.09685) that is added inside the same op:
 *
 *     h  = s drop(x) A^T           (R,r)          y += h B^T
 *     dh = s dy B                                 dB += dy^T h,  dA += dh^T drop(x)
 *     dx = dy W + drop'(dh A)                     dW += dy^T x,  dbias += sum of rows of dy
 *
 * Only h is saved. A frozen W gets no dW and, without an adapter, its input is not kept; a W with rows that
 * are trained by themselves (autograd/live_rows.h) gives these theirs.
 */
#include "autograd/ops.h"
#include "core/rng.h"

enum { X, W, BIAS, A, B, ROWS };
enum { H };

static bool drops(const mb_linear_args *a)
{
    return a->drop.p > 0.0f;
}

static mb_status forward(mb_tape *t, mb_call *c)
{
    const mb_linear_args *a = c->attr;
    mb_exec *ex = mb_tape_exec(t);
    const mb_tensor *in = mb_in(c, X);
    mb_tensor dropped = {0};

    if (c->in[A] == NULL)
        return MB_RUN(ex, gemm, mb_out(c, 0), in, false, mb_in(c, W), !a->transposed, 1.0f, 0.0f,
                      mb_in(c, BIAS));
    if (drops(a)) {
        MB_TRY(mb_tape_temporary(t, in->dtype, 2, in->dim, &dropped));
        MB_TRY(MB_RUN(ex, dropout, &dropped, in, &a->drop, false));
        in = &dropped;
    }
    MB_TRY(MB_RUN(ex, gemm, &c->saved[H], in, false, mb_in(c, A), true, a->lora_scale, 0.0f, NULL));
    return MB_RUN(ex, gemm_adapted, mb_out(c, 0), mb_in(c, X), mb_in(c, W), !a->transposed,
                  &c->saved[H], mb_in(c, B), true, 0.0f, mb_in(c, BIAS));
}

static mb_status dx_of_base(mb_tape *t, mb_call *c)
{
    const mb_linear_args *a = c->attr;

    return MB_RUN(mb_tape_exec(t), gemm, c->d_in[X], c->d_out[0], false, mb_in(c, W), a->transposed,
                  1.0f, c->acc[X] ? 1.0f : 0.0f, NULL);
}

static mb_status adapter_backward(mb_tape *t, mb_call *c)
{
    const mb_linear_args *a = c->attr;
    mb_exec *ex = mb_tape_exec(t);
    const mb_tensor *dy = c->d_out[0], *in = mb_in(c, X);
    mb_tensor dh, wide = {0};

    MB_TRY(mb_tape_temporary(t, in->dtype, 2, c->saved[H].dim, &dh));
    if (drops(a))
        MB_TRY(mb_tape_temporary(t, in->dtype, 2, in->dim, &wide));
    MB_TRY(MB_RUN(ex, gemm, &dh, dy, false, mb_in(c, B), false, a->lora_scale, 0.0f, NULL));
    if (c->d_in[B] != NULL)
        MB_TRY(MB_RUN(ex, gemm, c->d_in[B], dy, true, &c->saved[H], false, 1.0f,
                      c->acc[B] ? 1.0f : 0.0f, NULL));
    if (c->d_in[A] != NULL) {
        if (drops(a)) {
            MB_TRY(MB_RUN(ex, dropout, &wide, in, &a->drop, false));
            in = &wide;
        }
        MB_TRY(MB_RUN(ex, gemm, c->d_in[A], &dh, true, in, false, 1.0f, c->acc[A] ? 1.0f : 0.0f,
                      NULL));
    }
    if (c->d_in[X] == NULL)
        return MB_OK;
    if (!drops(a))
        return MB_RUN(ex, gemm_adapted, c->d_in[X], dy, mb_in(c, W), a->transposed, &dh,
                      mb_in(c, A), false, c->acc[X] ? 1.0f : 0.0f, NULL);
    MB_TRY(dx_of_base(t, c));
    MB_TRY(MB_RUN(ex, gemm, &wide, &dh, false, mb_in(c, A), false, 1.0f, 0.0f, NULL));
    return MB_RUN(ex, dropout, c->d_in[X], &wide, &a->drop, true);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const mb_linear_args *a = c->attr;
    mb_exec *ex = mb_tape_exec(t);
    const mb_tensor *dy = c->d_out[0], *in = mb_in(c, X);

    if (c->in[A] != NULL)
        MB_TRY(adapter_backward(t, c));
    else if (c->d_in[X] != NULL)
        MB_TRY(dx_of_base(t, c));
    if (c->d_in[W] != NULL && !a->transposed)
        MB_TRY(
            MB_RUN(ex, gemm, c->d_in[W], dy, true, in, false, 1.0f, c->acc[W] ? 1.0f : 0.0f, NULL));
    if (c->d_in[W] != NULL && a->transposed)
        MB_TRY(
            MB_RUN(ex, gemm, c->d_in[W], in, true, dy, false, 1.0f, c->acc[W] ? 1.0f : 0.0f, NULL));
    if (c->in[ROWS] != NULL && c->d_in[ROWS] != NULL)
        MB_TRY(mb_live_rows_linear_bwd(t, c->in[W]->live, c->d_in[ROWS], dy, in,
                                       c->acc[ROWS] ? 1.0f : 0.0f));
    if (c->in[BIAS] != NULL && c->d_in[BIAS] != NULL)
        MB_TRY(MB_RUN(ex, bias_bwd, c->d_in[BIAS], dy));
    return MB_OK;
}

static mb_status check(const mb_var *x, const mb_linear_args *a)
{
    const mb_tensor *w = &a->w->value;
    const int64_t in = w->dim[a->transposed ? 0 : 1], out = w->dim[a->transposed ? 1 : 0];

    MB_REQUIRE(w->ndim == 2 && in == mb_cols(&x->value), MB_ESHAPE,
               "linear: weight takes %lld columns, the input has %lld", (long long)in,
               (long long)mb_cols(&x->value));
    MB_REQUIRE(a->bias == NULL || mb_tensor_count(&a->bias->value) == out, MB_ESHAPE,
               "linear: bias has %lld entries for %lld outputs",
               (long long)mb_tensor_count(&a->bias->value), (long long)out);
    MB_REQUIRE((a->lora_a == NULL) == (a->lora_b == NULL), MB_EBUG, "linear: half an adapter");
    MB_REQUIRE(a->w->live == NULL || !a->transposed, MB_EBUG, "linear: rows of a turned weight");
    if (a->lora_a != NULL)
        MB_REQUIRE(mb_cols(&a->lora_a->value) == in && a->lora_b->value.dim[0] == out &&
                       a->lora_b->value.dim[1] == a->lora_a->value.dim[0],
                   MB_ESHAPE,
                   "linear: adapter of %lld x %lld and %lld x %lld on a weight of %lld x "
                   "%lld",
                   (long long)a->lora_a->value.dim[0], (long long)a->lora_a->value.dim[1],
                   (long long)a->lora_b->value.dim[0], (long long)a->lora_b->value.dim[1],
                   (long long)out, (long long)in);
    return MB_OK;
}

mb_status mb_linear(mb_tape *t, mb_var *x, const mb_linear_args *a, mb_var **y)
{
    mb_call c = {.op = &mb_op_linear,
                 .in = {x, a->w, a->bias, a->lora_a, a->lora_b, mb_live_rows_of(a->w)}};
    mb_linear_args args = *a;

    MB_TRY(check(x, a));
    if (!mb_tape_is_training(t))
        args.drop.p = 0.0f;
    const int64_t dim[2] = {mb_rows(&x->value), a->w->value.dim[a->transposed ? 1 : 0]};
    if (a->w->needs_grad || a->lora_a != NULL || c.in[ROWS] != NULL)
        c.needs_in |= 1u << X;
    if (x->needs_grad)
        c.needs_in |= 1u << W;
    c.needs_in |= 1u << A | 1u << B;
    MB_TRY(mb_tape_attr(t, &args, sizeof args, &c.attr));
    MB_TRY(mb_tape_value(t, x->value.dtype, 2, dim, &c.out[0]));
    if (a->lora_a != NULL)
        MB_TRY(mb_tape_saved(t, &c, H, x->value.dtype, 2,
                             (const int64_t[]){dim[0], a->lora_a->value.dim[0]}));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const struct {
        int64_t rows, in, out, rank;
        bool bias, transposed;
        float dropout;
        bool live; /* rows of W are trained by themselves */
    } cases[] = {
        {1, 1, 1, 0, false, false, 0, false},  {3, 7, 5, 0, true, false, 0, false},
        {4, 6, 9, 0, true, true, 0, false},    {5, 8, 6, 2, false, false, 0, false},
        {5, 6, 8, 3, true, true, 0.3f, false}, {66, 17, 33, 4, true, false, 0.5f, false},
        {9, 7, 6, 0, true, false, 0, true},
    };
    static int32_t ordinal[66], position[66];
    mb_linear_args a = {0};
    mb_var *x;

    *y = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    for (int r = 0; r < 66; r++) {
        ordinal[r] = r / 7;
        position[r] = r % 7;
    }
    a.transposed = cases[i].transposed;
    a.lora_scale = 1.5f;
    a.drop = (mb_dropout){.p = cases[i].dropout,
                          .seed = 2,
                          .site = MB_SITE_MODEL,
                          .ordinal = ordinal,
                          .position = position};
    MB_TRY(mb_sample_var(t, cases[i].rows, cases[i].in, &x));
    if (cases[i].live)
        MB_TRY(mb_live_rows_sample(t, cases[i].out, cases[i].in, &a.w));
    else
        MB_TRY(mb_sample_var(t, a.transposed ? cases[i].in : cases[i].out,
                             a.transposed ? cases[i].out : cases[i].in, &a.w));
    if (cases[i].bias) {
        MB_TRY(mb_sample_var(t, 0, cases[i].out, &a.bias));
        MB_TRY(mb_tape_seed(t, a.bias, 0.0f, NULL)); /* exists beforehand */
    }
    if (cases[i].rank > 0) {
        MB_TRY(mb_sample_var(t, cases[i].rank, cases[i].in, &a.lora_a));
        MB_TRY(mb_sample_var(t, cases[i].out, cases[i].rank, &a.lora_b));
    }
    return mb_linear(t, x, &a, y);
}

const mb_op mb_op_linear = {
    .name = "linear", .forward = forward, .backward = backward, .sample = sample};
