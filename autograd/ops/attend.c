/* autograd/ops/attend.c - multi-head attention over sequences laid end to end.
 *
 *     s = scale * q k^T + bias (soft-capped, masked)    p = softmax(s)    o = drop(p) v
 *
 * by online softmax (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022): only the
 * log-sum-exp of each row is saved, and the backward recomputes p block by block.
 */
#include "autograd/ops.h"
#include "core/rng.h"

enum { Q, K, V, BIAS };
enum { LSE };

static mb_status forward(mb_tape *t, mb_call *c)
{
    return MB_RUN(mb_tape_exec(t), attention_fwd, mb_out(c, 0), &c->saved[LSE], mb_in(c, Q),
                  mb_in(c, K), mb_in(c, V), c->attr);
}

static mb_status bias_backward(mb_tape *t, mb_call *c)
{
    mb_exec *ex = mb_tape_exec(t);

    if (c->d_in[BIAS] == NULL)
        return MB_OK;
    if (!c->acc[BIAS])
        MB_TRY(MB_RUN(ex, fill, c->d_in[BIAS], 0.0f));
    return MB_RUN(ex, attention_bias_bwd, c->d_in[BIAS], c->d_out[0], mb_in(c, Q), mb_in(c, K),
                  mb_in(c, V), mb_out(c, 0), &c->saved[LSE], c->attr);
}

/* The kernel has one `acc` for its three outputs: when they differ, fresh ones start from zero. */
static mb_status backward(mb_tape *t, mb_call *c)
{
    mb_exec *ex = mb_tape_exec(t);

    MB_TRY(bias_backward(t, c));
    const bool any = c->acc[Q] || c->acc[K] || c->acc[V];

    for (int i = Q; any && i <= V; i++)
        if (c->d_in[i] != NULL && !c->acc[i])
            MB_TRY(MB_RUN(ex, fill, c->d_in[i], 0.0f));
    return MB_RUN(ex, attention_bwd, c->d_in[Q], c->d_in[K], c->d_in[V], c->d_out[0], mb_in(c, Q),
                  mb_in(c, K), mb_in(c, V), mb_out(c, 0), &c->saved[LSE], c->attr, any);
}

mb_status mb_attend(mb_tape *t, mb_var *q, mb_var *k, mb_var *v, mb_var *bias,
                    const mb_attention *at, mb_var **o)
{
    mb_call c = {.op = &mb_op_attend, .in = {q, k, v, bias}, .needs_in = 15, .needs_out = 1};
    const int64_t lse[2] = {at->heads, mb_rows(&q->value)};
    mb_attention a = *at;

    MB_REQUIRE(at->kv_heads > 0 && at->heads % at->kv_heads == 0, MB_ESHAPE,
               "attention: %lld heads cannot share %lld key-value heads", (long long)at->heads,
               (long long)at->kv_heads);
    MB_REQUIRE(mb_cols(&q->value) == at->heads * at->head_dim &&
                   mb_cols(&k->value) == at->kv_heads * at->head_dim &&
                   mb_cols(&v->value) == at->kv_heads * at->head_dim,
               MB_ESHAPE, "attention: widths %lld, %lld, %lld are not %lld and %lld heads of %lld",
               (long long)mb_cols(&q->value), (long long)mb_cols(&k->value),
               (long long)mb_cols(&v->value), (long long)at->heads, (long long)at->kv_heads,
               (long long)at->head_dim);
    MB_REQUIRE(at->head_dim <= 256, MB_ENOTSUP, "attention: head size %lld is above 256",
               (long long)at->head_dim);
    MB_REQUIRE(bias == NULL ||
                   (bias->value.dtype == MB_DTYPE_F32 && mb_rows(&bias->value) == at->heads &&
                    mb_cols(&bias->value) == 2 * at->max_len - 1),
               MB_ESHAPE, "attention: a bias of %lld x %lld for %lld heads and up to %lld keys",
               (long long)(bias == NULL ? 0 : mb_rows(&bias->value)),
               (long long)(bias == NULL ? 0 : mb_cols(&bias->value)), (long long)at->heads,
               (long long)at->max_len);
    a.bias = bias != NULL ? mb_f32(&bias->value) : NULL;
    if (!mb_tape_is_training(t))
        a.dropout = 0.0f;
    MB_TRY(mb_tape_attr(t, &a, sizeof a, &c.attr));
    MB_TRY(mb_tape_value(t, q->value.dtype, 2, q->value.dim, &c.out[0]));
    MB_TRY(mb_tape_saved(t, &c, LSE, MB_DTYPE_F32, 2, lse));
    MB_TRY(mb_tape_apply(t, &c));
    *o = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const int32_t start[] = {0, 5, 6}, len[] = {5, 1, 7};
    static const int32_t ordinal[13] = {3, 3, 3, 3, 3, 4, 9, 9, 9, 9, 9, 9, 9};
    static const int32_t one_start[] = {0}, q_len[] = {3}, k_len[] = {9};
    static const mb_attention cases[] = {
        {.heads = 1, .kv_heads = 1, .head_dim = 4, .causal = true},
        {.heads = 4, .kv_heads = 2, .head_dim = 6, .causal = true}, /* grouped queries */
        {.heads = 2, .kv_heads = 2, .head_dim = 8, .causal = false},
        {.heads = 2, .kv_heads = 1, .head_dim = 5, .causal = true, .window = 3},
        {.heads = 2, .kv_heads = 1, .head_dim = 4, .causal = true, .softcap = 2.0f},
        {.heads = 2, .kv_heads = 2, .head_dim = 4, .causal = true, .dropout = 0.3f, .seed = 1},
        {.heads = 2, .kv_heads = 2, .head_dim = 4, .causal = true, .n_seq = -1}, /* longer keys */
        {.heads = 2, .kv_heads = 1, .head_dim = 4, .causal = false},             /* with a bias */
        {.heads = 2,
         .kv_heads = 2,
         .head_dim = 6,
         .causal = true,
         .softcap = 2.0f,
         .dropout = 0.2f},
        {.heads = 2, .kv_heads = 2, .head_dim = 4, .causal = true, .n_seq = -1},
    };
    enum { FIRST_BIASED = 7 };
    mb_var *q, *k, *v, *bias = NULL;

    *y = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    mb_attention at = cases[i];
    const bool longer = at.n_seq < 0;
    at.scale = 0.5f;
    at.site = MB_SITE_MODEL;
    at.n_seq = longer ? 1 : 3;
    at.q_start = longer ? one_start : start;
    at.k_start = at.q_start;
    at.q_len = longer ? q_len : len;
    at.k_len = longer ? k_len : len;
    at.max_len = 9;
    at.ordinal = ordinal;
    MB_TRY(mb_sample_var(t, longer ? 3 : 13, at.heads * at.head_dim, &q));
    MB_TRY(mb_sample_var(t, longer ? 9 : 13, at.kv_heads * at.head_dim, &k));
    MB_TRY(mb_sample_var(t, longer ? 9 : 13, at.kv_heads * at.head_dim, &v));
    if (i >= FIRST_BIASED)
        MB_TRY(mb_sample_var(t, at.heads, 2 * at.max_len - 1, &bias));
    return mb_attend(t, q, k, v, bias, &at, y);
}

const mb_op mb_op_attend = {
    .name = "attend", .forward = forward, .backward = backward, .sample = sample};
