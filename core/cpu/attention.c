/* core/cpu/attention.c - attention with online softmax, forward.
 *
 *     S = cap(scale Q K^T), P = softmax(S + mask), O = dropout(P) V
 *
 * as in FlashAttention (Dao et al. 2022): a block of queries meets its keys block by block, with a
 * running row maximum m and sum l; when m grows, what was summed before is scaled by e^(m - m').
 * lse = m + log l is kept for the backward. Work is shared out by (sequence, head, query block);
 * each is done by one thread in the order of its keys, so no bit depends on the threads. Few
 * queries (generation) take one query at a time straight from where K and V lie.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "core/cpu/attention_block.h"
#include "core/cpu/vec16.h"
#include "core/cpu/vecmath.h"

enum { Q = MB_ATT_Q, K = MB_ATT_K, FEW_QUERIES = 8 };

typedef struct job {
    const mb_attention *at;
    const mb_tensor *q, *k, *v;
    mb_tensor *o, *lse;
    mb_sgemm_fn *sgemm;
    float *work;
    int64_t work_floats; /* per thread */
} job;

/* One block of queries of one head, and its thread's buffers. */
typedef struct block {
    int64_t s, head, from, rows; /* queries [from, from+rows) of sequence s */
    float *q, *k, *v, *p, *o;
    float m[Q], l[Q], rescale[Q];
} block;

static int64_t floats_per_thread(const mb_attention *at)
{
    return (2 * Q + 2 * K) * at->head_dim + Q * K;
}

size_t mb_cpu_attention_fwd_workspace(mb_exec *ex, mb_tensor *o, mb_tensor *lse, const mb_tensor *q,
                                      const mb_tensor *k, const mb_tensor *v,
                                      const mb_attention *at)
{
    return (size_t)(ex->threads * floats_per_thread(at)) * sizeof(float);
}

/* Row of scores -> probabilities not yet divided by their sum. Only [lo, hi) is visible. */
MB_INLINE float softmax_row(float *restrict s, int lo, int hi, float cap, float *m, float *l)
{
    float top, base, rescale;

    if (cap > 0.0f)
        for (int j = 0; j < K; j++)
            s[j] = cap * mb_tanhf(s[j] * (1.0f / cap));
    for (int j = 0; j < K; j++)
        s[j] = j >= lo && j < hi ? s[j] : -INFINITY;
    top = mb_maxf(s, K);
    top = top > *m ? top : *m;
    if (top == -INFINITY && hi <= lo) {
        memset(s, 0, K * sizeof *s);
        return 1.0f;
    }
    base = top == -INFINITY ? 0.0f : top; /* keys seen, but all scores are -inf or NaN */
    for (int j = 0; j < K; j++)
        s[j] = mb_expf(s[j] - base);
    rescale = mb_expf(*m - base);
    *l = *l * rescale + mb_sumf(s, K);
    *m = top;
    return rescale;
}

MB_CPU_CLONES
static void softmax_block(const job *jb, block *b, int64_t k0)
{
    const mb_attention *at = jb->at;
    const int64_t offset = (int64_t)at->k_len[b->s] - at->q_len[b->s];

    for (int64_t i = 0; i < b->rows; i++) {
        const mb_span keys = mb_att_keys(at, b->s, offset + b->from + i);
        const int64_t lo = keys.lo - k0, hi = keys.hi - k0;

        b->rescale[i] = softmax_row(b->p + i * K,
                                    lo < 0   ? 0
                                    : lo > K ? K
                                             : (int)lo,
                                    hi < 0   ? 0
                                    : hi > K ? K
                                             : (int)hi,
                                    at->softcap, &b->m[i], &b->l[i]);
    }
    for (int64_t i = 0; i < b->rows; i++)
        if (b->rescale[i] != 1.0f)
            for (int64_t d = 0; d < at->head_dim; d++)
                b->o[i * at->head_dim + d] *= b->rescale[i];
}

static void drop(const job *jb, const block *b, int64_t k0)
{
    const mb_attention *at = jb->at;
    const int64_t offset = (int64_t)at->k_len[b->s] - at->q_len[b->s];

    for (int64_t i = 0; i < b->rows; i++) {
        float keep[K];

        mb_att_dropout(at, b->head, at->q_start[b->s] + b->from + i, offset + b->from + i, k0,
                       keep);
        for (int j = 0; j < K; j++)
            b->p[i * K + j] *= keep[j];
    }
}

/* o = O / l and lse; a query that sees nothing gives 0 and -inf. */
static void finish(const job *jb, block *b)
{
    const int64_t hd = jb->at->head_dim, row0 = jb->at->q_start[b->s] + b->from;

    for (int64_t i = 0; i < b->rows; i++) {
        const float inverse = b->l[i] > 0.0f ? 1.0f / b->l[i] : b->l[i]; /* NaN stays NaN */

        for (int64_t d = 0; d < hd; d++)
            b->o[i * hd + d] *= inverse;
        if (jb->lse != NULL)
            mb_row(jb->lse, b->head)[row0 + i] =
                b->l[i] == 0.0f ? -INFINITY : b->m[i] + logf(b->l[i]);
    }
    mb_att_store(jb->o, row0, b->head * hd, b->o, b->rows, hd, false);
}

static void start_rows(block *b, int64_t rows, int64_t hd)
{
    for (int64_t i = 0; i < rows; i++) {
        b->m[i] = -INFINITY;
        b->l[i] = 0.0f;
    }
    memset(b->o, 0, (size_t)(rows * hd) * sizeof(float));
}

static void many_queries(const job *jb, block *b)
{
    const mb_attention *at = jb->at;
    const int64_t hd = at->head_dim, kv = b->head / (at->heads / at->kv_heads);
    const mb_span blocks = mb_att_key_blocks(at, b->s, b->from, b->from + b->rows);

    start_rows(b, Q, hd);
    mb_att_load(b->q, jb->q, at->q_start[b->s] + b->from, b->head * hd, b->rows, hd, at->scale);
    for (int64_t k0 = blocks.lo * K; k0 < blocks.hi * K; k0 += K) {
        const int64_t left = at->k_len[b->s] - k0, n = left < K ? left : K;
        const int64_t row = at->k_start[b->s] + k0;

        mb_att_load(b->k, jb->k, row, kv * hd, n, hd, 1.0f);
        mb_att_load(b->v, jb->v, row, kv * hd, n, hd, 1.0f);
        jb->sgemm(false, true, Q, K, hd, 1.0f, b->q, hd, b->k, hd, 0.0f, b->p, K);
        softmax_block(jb, b, k0);
        if (b->rows < Q)
            memset(b->p + b->rows * K, 0, (size_t)((Q - b->rows) * K) * sizeof(float));
        if (at->dropout > 0.0f)
            drop(jb, b, k0);
        jb->sgemm(false, false, Q, hd, K, 1.0f, b->p, K, b->v, hd, 1.0f, b->o, hd);
    }
    finish(jb, b);
}

/* scores[j] = q . (row j of keys) for n keys */
MB_CPU_CLONES
static void score_keys(float *scores, const float *q, const float *keys, int64_t ld, int64_t n,
                       int64_t hd)
{
    for (int64_t j = 0; j < n; j++) {
        mb_vec16 acc = {0};
        float lane[MB_LANES];
        int64_t d = 0;

        for (; d + 16 <= hd; d += 16)
            acc += MB_LOAD16(q + d) * MB_LOAD16(keys + j * ld + d);
        MB_STORE16(lane, acc);
        for (int64_t i = d; i < hd; i++)
            lane[i - d] += q[i] * keys[j * ld + i];
        scores[j] = mb_fold_lanes(lane);
    }
}

MB_CPU_CLONES
static void add_values(float *restrict o, const float *restrict p, const float *restrict values,
                       int64_t ld, int64_t n, int64_t hd)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t d = 0; d < hd; d++)
            o[d] += p[j] * values[j * ld + d];
}

/* n rows of hd floats and how far apart they are: where they lie, or widened in `buffer`. */
typedef struct rows {
    const float *at;
    int64_t ld;
} rows;

static rows rows_of(const mb_tensor *t, int64_t row, int64_t col, int64_t n, int64_t hd,
                    float *buffer)
{
    if (t->dtype == MB_DTYPE_F32)
        return (rows){mb_row(t, row) + col, mb_row_stride(t)};
    mb_att_load(buffer, t, row, col, n, hd, 1.0f);
    return (rows){buffer, hd};
}

/* A single query: b->rows is 1. */
static void one_query(const job *jb, block *b)
{
    const mb_attention *at = jb->at;
    const int64_t hd = at->head_dim, kv = b->head / (at->heads / at->kv_heads);
    const mb_span blocks = mb_att_key_blocks(at, b->s, b->from, b->from + 1);

    start_rows(b, 1, hd);
    mb_att_load(b->q, jb->q, at->q_start[b->s] + b->from, b->head * hd, 1, hd, at->scale);
    for (int64_t k0 = blocks.lo * K; k0 < blocks.hi * K; k0 += K) {
        const int64_t left = at->k_len[b->s] - k0, n = left < K ? left : K;
        const int64_t row = at->k_start[b->s] + k0;
        const rows k = rows_of(jb->k, row, kv * hd, n, hd, b->k);
        const rows v = rows_of(jb->v, row, kv * hd, n, hd, b->v);

        memset(b->p, 0, K * sizeof(float));
        score_keys(b->p, b->q, k.at, k.ld, n, hd);
        b->rows = 1;
        softmax_block(jb, b, k0);
        if (at->dropout > 0.0f)
            drop(jb, b, k0);
        add_values(b->o, b->p, v.at, v.ld, n, hd);
    }
    finish(jb, b);
}

/* Unit `at` of (sequence, query block, head); blocks at the end of a sequence, which see most keys
 * when causal, come first. */
static void run_unit(const job *jb, int64_t unit, int64_t most)
{
    const mb_attention *at = jb->at;
    const int64_t hd = at->head_dim;
    block b = {.head = unit % at->heads, .s = unit / at->heads % at->n_seq};
    const int64_t blocks = (at->q_len[b.s] + Q - 1) / Q;
    const int64_t i = most - 1 - unit / at->heads / at->n_seq;

    if (i >= blocks)
        return;
    b.q = jb->work + omp_get_thread_num() * jb->work_floats;
    b.o = b.q + Q * hd;
    b.k = b.o + Q * hd;
    b.v = b.k + K * hd;
    b.p = b.v + K * hd;
    b.from = i * Q;
    b.rows = at->q_len[b.s] - b.from < Q ? at->q_len[b.s] - b.from : Q;
    if (at->q_len[b.s] > FEW_QUERIES) {
        many_queries(jb, &b);
        return;
    }
    for (int64_t from = 0, n = b.rows; from < n; from++) {
        b.from = from;
        b.rows = 1;
        one_query(jb, &b);
    }
}

mb_status mb_cpu_attention_fwd(mb_exec *ex, mb_tensor *o, mb_tensor *lse, const mb_tensor *q,
                               const mb_tensor *k, const mb_tensor *v, const mb_attention *at)
{
    const job jb = {.at = at,
                    .q = q,
                    .k = k,
                    .v = v,
                    .o = o,
                    .lse = lse,
                    .sgemm = mb_cpu_sgemm(),
                    .work = ex->workspace,
                    .work_floats = floats_per_thread(at)};

    MB_TRY(mb_att_check("attention_fwd", q, k, v, at));
    MB_REQUIRE(jb.sgemm != NULL, MB_EBUG, "attention_fwd called before mb_cpu_init");
    mb_att_zero_gaps(o, at->n_seq, at->q_start, at->q_len);

    const int64_t most = mb_att_most_blocks(at->n_seq, at->q_len, Q);
    const int64_t units = at->n_seq * at->heads * most;

#pragma omp parallel num_threads(ex->threads)
    {
        mb_cpu_one_thread();
#pragma omp for schedule(dynamic)
        for (int64_t u = 0; u < units; u++)
            run_unit(&jb, u, most);
    }
    return MB_OK;
}
