/* core/cpu/attention_bwd.c - attention, backward.
 *
 *     P = exp(S' - lse), S' = cap(scale Q K^T)        recomputed block by block
 *     dV = drop(P)^T dO,  dP = drop(dO V^T)
 *     dS = P (dP - D) cap'(S),  D = rowsum(dO * O)    the softmax's backward
 *     dQ = scale dS K,  dK = dS^T scale Q
 *
 * A pair of blocks (64 queries, 64 keys) is the unit of arithmetic. It is visited by key blocks,
 * and for each by the heads that share it and their query blocks, in this order; so dK and dV of a
 * key block are summed locally, and dQ of a query block gets its key blocks in ascending order.
 *
 * Two ways to share that out over threads, which give the same bits because each sum is formed by
 * the same additions in the same order:
 *
 *     whole   a thread has a (sequence, key head) with all its blocks; dQ of its heads is gathered
 *             in workspace, linear in the length. Five products per pair.
 *     apart   when there are too few of those: first dK, dV by (sequence, key head, key block),
 *             then dQ by (sequence, head, query block). Seven products per pair.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "core/cpu/attention_block.h"
#include "core/cpu/vecmath.h"

enum { Q = MB_ATT_Q, K = MB_ATT_K };

typedef struct job {
    const mb_attention *at;
    const mb_tensor *q, *k, *v, *o, *d_o, *lse;
    mb_tensor *dq, *dk, *dv;
    bool acc;
    mb_sgemm_fn *sgemm;
    float *work;
    int64_t work_floats; /* per thread */
} job;

/* A thread's buffers: blocks of Q or K rows of head_dim, scores, and dQ of the heads at work. */
typedef struct buffers {
    float *q, *d_o, *k, *v, *dk, *dv, *s, *dp, *dq;
    float delta[Q], lse[Q];
} buffers;

/* A pair of blocks of sequence s. */
typedef struct pair {
    int64_t s, head, q0, q_rows, k0, k_rows;
} pair;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t round_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b * b;
}

static int64_t floats_per_thread(const mb_attention *at)
{
    const int64_t hd = at->head_dim, group = at->heads / at->kv_heads;

    return (2 * Q + 4 * K) * hd + 2 * Q * K + group * round_up(at->max_len, Q) * hd;
}

size_t mb_cpu_attention_bwd_workspace(mb_exec *ex, mb_tensor *dq, mb_tensor *dk, mb_tensor *dv,
                                      const mb_tensor *d_o, const mb_tensor *q, const mb_tensor *k,
                                      const mb_tensor *v, const mb_tensor *o, const mb_tensor *lse,
                                      const mb_attention *at, bool acc)
{
    return (size_t)(ex->threads * floats_per_thread(at)) * sizeof(float);
}

static buffers buffers_of(const job *jb)
{
    const int64_t hd = jb->at->head_dim;
    buffers b = {.q = jb->work + omp_get_thread_num() * jb->work_floats};

    b.d_o = b.q + Q * hd;
    b.k = b.d_o + Q * hd;
    b.v = b.k + K * hd;
    b.dk = b.v + K * hd;
    b.dv = b.dk + K * hd;
    b.s = b.dv + K * hd;
    b.dp = b.s + Q * K;
    b.dq = b.dp + Q * K;
    return b;
}

static void load_keys(const job *jb, buffers *b, const pair *p)
{
    const int64_t hd = jb->at->head_dim, kv = p->head / (jb->at->heads / jb->at->kv_heads);
    const int64_t row = jb->at->k_start[p->s] + p->k0;

    mb_att_load(b->k, jb->k, row, kv * hd, p->k_rows, hd, 1.0f);
    mb_att_load(b->v, jb->v, row, kv * hd, p->k_rows, hd, 1.0f);
}

MB_CPU_CLONES
static void load_queries(const job *jb, buffers *b, const pair *p)
{
    const int64_t hd = jb->at->head_dim, row = jb->at->q_start[p->s] + p->q0;
    const float *lse = mb_row(jb->lse, p->head) + row;

    mb_att_load(b->d_o, jb->d_o, row, p->head * hd, p->q_rows, hd, 1.0f);
    mb_att_load(b->q, jb->o, row, p->head * hd, p->q_rows, hd, 1.0f);
    for (int64_t i = 0; i < p->q_rows; i++) {
        b->delta[i] = mb_dotf(b->d_o + i * hd, b->q + i * hd, hd);
        b->lse[i] = lse[i];
    }
    mb_att_load(b->q, jb->q, row, p->head * hd, p->q_rows, hd, jb->at->scale);
}

/* s: scores -> dropped probabilities; dp: gradients of those -> gradients of the scores. */
MB_INLINE void softmax_row_backward(float *restrict s, float *restrict dp,
                                    const float *restrict keep, int lo, int hi, float cap,
                                    float lse, float delta)
{
    float slope[K];

    for (int j = 0; j < K; j++)
        slope[j] = 1.0f;
    if (cap > 0.0f) {
        for (int j = 0; j < K; j++) {
            const float t = mb_tanhf(s[j] * (1.0f / cap));

            s[j] = cap * t;
            slope[j] = 1.0f - t * t;
        }
    }
    for (int j = 0; j < K; j++) {
        const float p = mb_expf(s[j] - lse);
        const float ds = p * (dp[j] * keep[j] - delta) * slope[j];
        const bool seen = j >= lo && j < hi;

        s[j] = seen ? p * keep[j] : 0.0f;
        dp[j] = seen ? ds : 0.0f;
    }
}

MB_CPU_CLONES
static void softmax_backward(const job *jb, buffers *b, const pair *p)
{
    const mb_attention *at = jb->at;
    const int64_t offset = (int64_t)at->k_len[p->s] - at->q_len[p->s];
    float keep[K];

    for (int j = 0; j < K; j++)
        keep[j] = 1.0f;
    for (int64_t i = 0; i < p->q_rows; i++) {
        const int64_t pos = offset + p->q0 + i;
        const mb_span keys = mb_att_keys(at, p->s, pos);
        const int64_t lo = keys.lo - p->k0, hi = keys.hi - p->k0;

        if (at->dropout > 0.0f)
            mb_att_dropout(at, p->head, at->q_start[p->s] + p->q0 + i, pos, p->k0, keep);
        softmax_row_backward(b->s + i * K, b->dp + i * K, keep, lo < 0 ? 0 : (int)least(lo, K),
                             hi < 0 ? 0 : (int)least(hi, K), at->softcap, b->lse[i], b->delta[i]);
    }
    memset(b->s + p->q_rows * K, 0, (size_t)((Q - p->q_rows) * K) * sizeof(float));
    memset(b->dp + p->q_rows * K, 0, (size_t)((Q - p->q_rows) * K) * sizeof(float));
}

/* After this s holds dropped probabilities and dp the gradients of the scores. */
static void run_pair(const job *jb, buffers *b, const pair *p)
{
    const int64_t hd = jb->at->head_dim;

    jb->sgemm(false, true, Q, K, hd, 1.0f, b->q, hd, b->k, hd, 0.0f, b->s, K);
    jb->sgemm(false, true, Q, K, hd, 1.0f, b->d_o, hd, b->v, hd, 0.0f, b->dp, K);
    softmax_backward(jb, b, p);
}

static void add_to_keys(const job *jb, buffers *b)
{
    const int64_t hd = jb->at->head_dim;

    jb->sgemm(true, false, K, hd, Q, 1.0f, b->s, K, b->d_o, hd, 1.0f, b->dv, hd);
    jb->sgemm(true, false, K, hd, Q, 1.0f, b->dp, K, b->q, hd, 1.0f, b->dk, hd);
}

static void add_to_queries(const job *jb, const buffers *b, float *dq)
{
    const int64_t hd = jb->at->head_dim;

    jb->sgemm(false, false, Q, hd, K, jb->at->scale, b->dp, K, b->k, hd, 1.0f, dq, hd);
}

static void store(const job *jb, mb_tensor *t, int64_t row, int64_t col, const float *from,
                  int64_t rows)
{
    if (t != NULL)
        mb_att_store(t, row, col, from, rows, jb->at->head_dim, jb->acc);
}

/* Key block p->k0 of key head kv: dK and dV, and dQ into b->dq unless that is done apart. */
static void run_key_block(const job *jb, buffers *b, pair *p, int64_t kv, bool with_queries)
{
    const mb_attention *at = jb->at;
    const int64_t hd = at->head_dim, group = at->heads / at->kv_heads;
    const int64_t padded = round_up(at->q_len[p->s], Q);

    p->k_rows = least(K, at->k_len[p->s] - p->k0);
    const mb_span blocks = mb_att_query_blocks(at, p->s, p->k0, p->k0 + p->k_rows);

    p->head = kv * group;
    load_keys(jb, b, p);
    memset(b->dk, 0, (size_t)(K * hd) * sizeof(float));
    memset(b->dv, 0, (size_t)(K * hd) * sizeof(float));
    for (int64_t g = 0; g < group; g++) {
        p->head = kv * group + g;
        for (int64_t i = blocks.lo; i < blocks.hi; i++) {
            p->q0 = i * Q;
            p->q_rows = least(Q, at->q_len[p->s] - p->q0);
            load_queries(jb, b, p);
            run_pair(jb, b, p);
            add_to_keys(jb, b);
            if (with_queries)
                add_to_queries(jb, b, b->dq + (g * padded + p->q0) * hd);
        }
    }
    store(jb, jb->dk, at->k_start[p->s] + p->k0, kv * hd, b->dk, p->k_rows);
    store(jb, jb->dv, at->k_start[p->s] + p->k0, kv * hd, b->dv, p->k_rows);
}

/* Unit of (sequence, key head): everything. */
static void run_whole(const job *jb, int64_t unit)
{
    const mb_attention *at = jb->at;
    const int64_t hd = at->head_dim, group = at->heads / at->kv_heads, kv = unit % at->kv_heads;
    pair p = {.s = unit / at->kv_heads};
    const int64_t padded = round_up(at->q_len[p.s], Q);
    buffers b = buffers_of(jb);

    memset(b.dq, 0, (size_t)(group * padded * hd) * sizeof(float));
    for (p.k0 = 0; p.k0 < at->k_len[p.s]; p.k0 += K)
        run_key_block(jb, &b, &p, kv, true);
    for (int64_t g = 0; g < group; g++)
        store(jb, jb->dq, at->q_start[p.s], (kv * group + g) * hd, b.dq + g * padded * hd,
              at->q_len[p.s]);
}

/* Unit of (key block, sequence, key head): dK and dV. */
static void run_keys_apart(const job *jb, int64_t unit)
{
    const mb_attention *at = jb->at;
    pair p = {.s = unit / at->kv_heads % at->n_seq, .k0 = unit / at->kv_heads / at->n_seq * K};
    buffers b = buffers_of(jb);

    if (p.k0 < at->k_len[p.s])
        run_key_block(jb, &b, &p, unit % at->kv_heads, false);
}

/* Unit of (query block, sequence, head): dQ. */
static void run_queries_apart(const job *jb, int64_t unit, int64_t most)
{
    const mb_attention *at = jb->at;
    const int64_t hd = at->head_dim;
    pair p = {.head = unit % at->heads,
              .s = unit / at->heads % at->n_seq,
              .q0 = (most - 1 - unit / at->heads / at->n_seq) * Q};
    buffers b = buffers_of(jb);

    if (p.q0 >= at->q_len[p.s])
        return;
    p.q_rows = least(Q, at->q_len[p.s] - p.q0);
    const mb_span blocks = mb_att_key_blocks(at, p.s, p.q0, p.q0 + p.q_rows);

    memset(b.dq, 0, (size_t)(Q * hd) * sizeof(float));
    load_queries(jb, &b, &p);
    for (int64_t j = blocks.lo; j < blocks.hi; j++) {
        p.k0 = j * K;
        p.k_rows = least(K, at->k_len[p.s] - p.k0);
        load_keys(jb, &b, &p);
        run_pair(jb, &b, &p);
        add_to_queries(jb, &b, b.dq);
    }
    store(jb, jb->dq, at->q_start[p.s] + p.q0, p.head * hd, b.dq, p.q_rows);
}

static void run_all(const job *jb, int threads)
{
    const mb_attention *at = jb->at;
    const int64_t whole = at->n_seq * at->kv_heads;
    const int64_t most_q = mb_att_most_blocks(at->n_seq, at->q_len, Q);
    const int64_t most_k = mb_att_most_blocks(at->n_seq, at->k_len, K);
    const bool apart = threads > 1 && whole < 3 * threads;

#pragma omp parallel num_threads(threads)
    {
        mb_cpu_one_thread();
        if (!apart) {
#pragma omp for schedule(dynamic)
            for (int64_t u = 0; u < whole; u++)
                run_whole(jb, u);
        } else {
#pragma omp for schedule(dynamic) nowait
            for (int64_t u = 0; u < whole * most_k; u++)
                run_keys_apart(jb, u);
#pragma omp for schedule(dynamic)
            for (int64_t u = 0; u < at->n_seq * at->heads * most_q; u++)
                run_queries_apart(jb, u, most_q);
        }
    }
}

mb_status mb_cpu_attention_bwd(mb_exec *ex, mb_tensor *dq, mb_tensor *dk, mb_tensor *dv,
                               const mb_tensor *d_o, const mb_tensor *q, const mb_tensor *k,
                               const mb_tensor *v, const mb_tensor *o, const mb_tensor *lse,
                               const mb_attention *at, bool acc)
{
    const job jb = {.at = at,
                    .q = q,
                    .k = k,
                    .v = v,
                    .o = o,
                    .d_o = d_o,
                    .lse = lse,
                    .dq = dq,
                    .dk = dk,
                    .dv = dv,
                    .acc = acc,
                    .sgemm = mb_cpu_sgemm(),
                    .work = ex->workspace,
                    .work_floats = floats_per_thread(at)};

    MB_TRY(mb_att_check("attention_bwd", q, k, v, at));
    MB_REQUIRE(jb.sgemm != NULL, MB_EBUG, "attention_bwd called before mb_cpu_init");
    if (!acc) {
        if (dq != NULL)
            mb_att_zero_gaps(dq, at->n_seq, at->q_start, at->q_len);
        if (dk != NULL)
            mb_att_zero_gaps(dk, at->n_seq, at->k_start, at->k_len);
        if (dv != NULL)
            mb_att_zero_gaps(dv, at->n_seq, at->k_start, at->k_len);
    }
    run_all(&jb, ex->threads);
    return MB_OK;
}
