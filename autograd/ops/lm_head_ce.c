/* autograd/ops/lm_head_ce.c - output head and cross-entropy, in chunks of the trained rows.
 *
 * For each chunk of at most 288 targets: gather their hidden rows, logits = h W^T + bias, then
 * softmax_xent turns the logits into log-probabilities and, in training, into d(loss)/d(logits) in
 * place (in f32 whatever the model computes in; they are then rounded to its type), from which
 * dW += dlogits^T h, dbias, and the hidden rows' gradient dlogits W follow at once. So the forward
 * does the whole of the backward, logits are never whole, and rows without a target cost nothing
 * (the idea of cut cross-entropy, Wijmans et al. 2024, arXiv:2411.09009).
 *
 * W is far larger than the cache and must be packed for every product, and dW is in f32: adding to
 * it costs as much as the product of one chunk. Where the model computes in 16 bits, gradients
 * therefore wait for the dlogits of several chunks. Of rows of W that are trained by themselves
 * (autograd/live_rows.h) the columns of dlogits are taken that are theirs.
 */
#include "autograd/batch.h"
#include "autograd/ops.h"

enum { HIDDEN, W, BIAS, ROWS };
enum { CHUNK = 288, DH_CHUNKS = 2, DW_CHUNKS = 4 };

struct work {
    mb_tensor logits;         /* (CHUNK, V) */
    mb_tensor h, dh, dlogits; /* (waits, D), (waits, D), (waits, V) */
    int64_t waits;            /* rows that gradients wait for */
    bool apart;               /* dlogits are in the model's type, not logits themselves */
    mb_tensor *d_hidden, *d_w, *d_bias, *d_rows; /* NULL: not wanted */
};

/* n targets from `from`, the first of them at row `at` of what gradients wait for. */
static mb_status chunk(mb_tape *t, mb_call *c, const struct work *w, int64_t from, int64_t at,
                       int64_t n)
{
    const mb_head_args *a = c->attr;
    mb_exec *ex = mb_tape_exec(t);
    const bool train =
        w->d_hidden != NULL || w->d_w != NULL || w->d_bias != NULL || w->d_rows != NULL;
    const mb_tensor index = mb_tensor_1d((void *)(uintptr_t)(a->row + from), MB_DTYPE_I32, n);
    const mb_tensor label = mb_tensor_1d((void *)(uintptr_t)(a->label + from), MB_DTYPE_I32, n);
    const mb_tensor weight = mb_tensor_1d((void *)(uintptr_t)(a->weight + from), MB_DTYPE_F32, n);
    mb_tensor h = mb_tensor_rows(&w->h, at, n), logits = mb_tensor_rows(&w->logits, 0, n);
    mb_tensor dlogits = w->apart ? mb_tensor_rows(&w->dlogits, at, n) : logits;
    mb_tensor logprob = mb_tensor_rows(mb_out(c, 0), from, n);

    MB_TRY(MB_RUN(ex, gather_rows, &h, mb_in(c, HIDDEN), &index));
    MB_TRY(MB_RUN(ex, gemm, &logits, &h, false, mb_in(c, W), true, 1.0f, 0.0f, mb_in(c, BIAS)));
    MB_TRY(MB_RUN(ex, softmax_xent, &logits, &logprob, &label, &weight,
                  train ? a->grad_scale : 0.0f, a->softcap, a->logit_scale));
    if (w->apart)
        MB_TRY(MB_RUN(ex, cast, &dlogits, &logits));
    if (w->d_bias != NULL)
        MB_TRY(MB_RUN(ex, bias_bwd, w->d_bias, &dlogits));
    return MB_OK;
}

/* Gradients of the first n rows that wait: targets from `from`. */
static mb_status gradients(mb_tape *t, mb_call *c, const struct work *w, int64_t from, int64_t n)
{
    const mb_head_args *a = c->attr;
    const mb_tensor index = mb_tensor_1d((void *)(uintptr_t)(a->row + from), MB_DTYPE_I32, n);
    const mb_tensor h = mb_tensor_rows(&w->h, 0, n);
    const mb_tensor dlogits = mb_tensor_rows(w->apart ? &w->dlogits : &w->logits, 0, n);
    mb_exec *ex = mb_tape_exec(t);

    if (w->d_hidden != NULL) {
        mb_tensor dh = mb_tensor_rows(&w->dh, 0, n);
        MB_TRY(MB_RUN(ex, gemm, &dh, &dlogits, false, mb_in(c, W), false, 1.0f, 0.0f, NULL));
        MB_TRY(MB_RUN(ex, scatter_rows, w->d_hidden, &dh, &index));
    }
    if (w->d_rows != NULL)
        return mb_live_rows_linear_bwd(t, c->in[W]->live, w->d_rows, &dlogits, &h, 1.0f);
    if (w->d_w == NULL)
        return MB_OK;
    return MB_RUN(ex, gemm, w->d_w, &dlogits, true, &h, false, 1.0f, 1.0f, NULL);
}

/* Every size that a last chunk, and what waits with it, may have. */
static mb_status plan(mb_tape *t, mb_call *c, const struct work *w, int64_t most)
{
    for (int64_t n = MB_ROW_PAD; n <= most; n += MB_ROW_PAD)
        MB_TRY(chunk(t, c, w, 0, 0, n));
    for (int64_t n = MB_ROW_PAD; n <= w->waits; n += MB_ROW_PAD)
        MB_TRY(gradients(t, c, w, 0, n));
    return MB_OK;
}

static mb_status want(mb_tape *t, mb_var *v, bool zero, mb_tensor **grad)
{
    bool acc;

    *grad = NULL;
    if (!mb_tape_is_training(t) || v == NULL || !v->needs_grad)
        return MB_OK;
    MB_TRY(mb_tape_grad(t, v, grad, &acc));
    if (!acc && zero)
        MB_TRY(MB_RUN(mb_tape_exec(t), fill, *grad, 0.0f));
    return MB_OK;
}

static mb_status forward(mb_tape *t, mb_call *c)
{
    const mb_head_args *a = c->attr;
    const int64_t d = mb_cols(mb_in(c, HIDDEN)), v = mb_in(c, W)->dim[0];
    const int64_t most = a->capacity < CHUNK ? a->capacity : CHUNK;
    const mb_dtype dtype = mb_in(c, HIDDEN)->dtype;
    const bool train = mb_tape_is_training(t);
    struct work w = {.waits = most, .apart = train && dtype != MB_DTYPE_F32};
    int64_t at = 0;

    if (w.apart) {
        w.waits = (c->in[W]->needs_grad ? DW_CHUNKS : DH_CHUNKS) * CHUNK;
        w.waits = a->capacity < w.waits ? a->capacity : w.waits;
    }
    MB_TRY(mb_tape_temporary(t, dtype, 2, (const int64_t[]){w.waits, d}, &w.h));
    MB_TRY(mb_tape_temporary(t, MB_DTYPE_F32, 2, (const int64_t[]){most, v}, &w.logits));
    if (w.apart)
        MB_TRY(mb_tape_temporary(t, dtype, 2, (const int64_t[]){w.waits, v}, &w.dlogits));
    MB_TRY(want(t, c->in[HIDDEN], true, &w.d_hidden));
    MB_TRY(want(t, c->in[W], true, &w.d_w));
    MB_TRY(want(t, c->in[BIAS], true, &w.d_bias));
    MB_TRY(want(t, c->in[ROWS], true, &w.d_rows));
    if (w.d_hidden != NULL)
        MB_TRY(mb_tape_temporary(t, dtype, 2, (const int64_t[]){w.waits, d}, &w.dh));
    if (mb_tape_exec(t)->planning)
        return plan(t, c, &w, most);
    for (int64_t from = 0; from < a->n; from += most) {
        const int64_t left = (a->n - from + MB_ROW_PAD - 1) / MB_ROW_PAD * MB_ROW_PAD,
                      n = left < most ? left : most;

        MB_TRY(chunk(t, c, &w, from, at, n));
        at += n;
        if (at == w.waits || from + most >= a->n) {
            MB_TRY(gradients(t, c, &w, from + n - at, at));
            at = 0;
        }
    }
    return MB_OK;
}

mb_status mb_lm_head_ce(mb_tape *t, mb_var *hidden, const mb_head_args *a, mb_var **logprob)
{
    mb_call c = {.op = &mb_op_lm_head_ce, .in = {hidden, a->w, a->bias, mb_live_rows_of(a->w)}};
    const mb_tensor *w = &a->w->value;

    MB_REQUIRE(w->ndim == 2 && mb_cols(w) == mb_cols(&hidden->value), MB_ESHAPE,
               "lm_head_ce: the head takes %lld columns, hidden has %lld", (long long)mb_cols(w),
               (long long)mb_cols(&hidden->value));
    MB_REQUIRE(a->capacity > 0 && a->capacity % MB_ROW_PAD == 0 && a->n <= a->capacity, MB_EBUG,
               "lm_head_ce: %lld targets, capacity %lld", (long long)a->n, (long long)a->capacity);
    MB_TRY(mb_tape_attr(t, a, sizeof *a, &c.attr));
    MB_TRY(mb_tape_value(t, MB_DTYPE_F32, 1, &a->capacity, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    mb_tape_keep(t, c.out[0]);
    *logprob = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const struct {
        int64_t rows, d, v, n;
        bool bias;
        float softcap, scale;
        bool live; /* rows of W are trained by themselves */
    } cases[] = {
        {4, 3, 5, 2, false, 0, 1, false},
        {9, 6, 21, 7, true, 0, 0.7f, false},
        {300, 4, 11, 290, true, 3.0f, 1, false}, /* more than one chunk */
        {300, 6, 12, 290, true, 0, 0.7f, true},
    };
    static int32_t row[336], label[336];
    static float weight[336];
    mb_head_args a = {.grad_scale = 1.0f, .row = row, .label = label, .weight = weight};
    mb_var *h;

    *y = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    a.n = cases[i].n;
    a.capacity = (cases[i].n + MB_ROW_PAD - 1) / MB_ROW_PAD * MB_ROW_PAD;
    a.softcap = cases[i].softcap;
    a.logit_scale = cases[i].scale;
    for (int64_t j = 0; j < a.capacity; j++) {
        row[j] = j < a.n ? (int32_t)(j + cases[i].rows - a.n) : -1;
        label[j] = (int32_t)(j * 7 % cases[i].v);
        weight[j] = j < a.n ? -mb_sample_projection(j) : 0.0f;
    }
    MB_TRY(mb_sample_var(t, cases[i].rows, cases[i].d, &h));
    if (cases[i].live)
        MB_TRY(mb_live_rows_sample(t, cases[i].v, cases[i].d, &a.w));
    else
        MB_TRY(mb_sample_var(t, cases[i].v, cases[i].d, &a.w));
    if (cases[i].bias)
        MB_TRY(mb_sample_var(t, 0, cases[i].v, &a.bias));
    return mb_lm_head_ce(t, h, &a, y);
}

const mb_op mb_op_lm_head_ce = {.name = "lm_head_ce", .forward = forward, .sample = sample};
