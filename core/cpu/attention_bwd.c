/* core/cpu/attention_bwd.c - attention, backward.
 *
 *     P = exp(S' - lse), S' = cap(scale Q K^T)        recomputed block by block
 *     dV = drop(P)^T dO,  dP = drop(dO V^T)
 *     dS = P (dP - D) cap'(S),  D = rowsum(dO * O)    the softmax's backward
 *     dQ = scale dS K,  dK = scale dS^T Q
 *
 * A pair of blocks (64 queries, 64 keys) is the unit of arithmetic. What a key block's dK and dV get
 * comes from the heads that share it and their query blocks, in this order; dQ of a query block gets
 * its key blocks in ascending order.
 *
 * Two ways to share that out over threads, which give the same bits because each sum is formed by
 * the same additions in the same order:
 *
 *     whole   a thread has a (sequence, key head) with all its pairs, by query blocks; keys and
 *             values are packed once, and dK and dV gathered in workspace, linear in the length.
 *             Five products per pair.
 *     apart   when there are too few of those: first dK, dV by (sequence, key head, key block),
 *             then dQ by (sequence, head, query block). Seven products per pair.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "core/cpu/attention_tile.h"
#include "core/cpu/sizes.h"
#include "core/cpu/strip.h"
#include "core/cpu/vecmath.h"

enum { Q = MB_ATT_Q, K = MB_ATT_K };

typedef struct job {
    const mb_attention *at;
    const mb_tensor *q, *k, *v, *o, *d_o, *lse;
    mb_tensor *dq, *dk, *dv;
    bool acc;
    mb_att_form form;
    mb_att_scores scores;
    float *work;
    int64_t work_floats; /* per thread */
} job;

/* A block of keys: packed, and its gradients. */
typedef struct keys {
    uint32_t *k_across, *k_down, *v_across;
    float *dk, *dv;
} keys;

/* A thread's buffers. */
typedef struct buffers {
    mb_att_packed q, d_o;
    uint32_t *left, *words; /* keys on their way to other forms; P or dS as a left operand */
    float *s, *dp, *dq;
    float *blocks; /* keys of a sequence, or of one block */
    float delta[Q], lse[Q];
} buffers;

static int64_t floats_of_keys(const mb_att_form *f)
{
    return 3 * f->size + 2 * K * f->width;
}

static int64_t floats_per_thread(const mb_att_form *f, const mb_attention *at)
{
    return 5 * f->size + 3 * Q * K + Q * f->width +
           mb_ceil_div(at->max_len > 0 ? at->max_len : 1, K) * floats_of_keys(f);
}

size_t mb_cpu_attention_bwd_workspace(mb_exec *ex, mb_tensor *dq, mb_tensor *dk, mb_tensor *dv,
                                      const mb_tensor *d_o, const mb_tensor *q, const mb_tensor *k,
                                      const mb_tensor *v, const mb_tensor *o, const mb_tensor *lse,
                                      const mb_attention *at, bool acc)
{
    const mb_att_form f = mb_att_form_of(q, at);

    return (size_t)(ex->threads * floats_per_thread(&f, at)) * sizeof(float);
}

static buffers buffers_of(const job *jb)
{
    const mb_att_form *f = &jb->form;
    float *work = jb->work + omp_get_thread_num() * jb->work_floats;
    buffers b = {.s = work, .dp = work + Q * K, .dq = work + 3 * Q * K};
    uint32_t *words = (uint32_t *)(b.dq + Q * f->width);

    b.words = (uint32_t *)(b.dp + Q * K);
    b.left = words;
    b.q.left = words + f->size;
    b.d_o.left = words + 2 * f->size;
    b.q.down = f->pairs ? words + 3 * f->size : b.q.left;
    b.d_o.down = f->pairs ? words + 4 * f->size : b.d_o.left;
    b.blocks = (float *)(words + 5 * f->size);
    return b;
}

static keys keys_at(const job *jb, const buffers *b, int64_t block)
{
    const mb_att_form *f = &jb->form;
    float *at = b->blocks + block * floats_of_keys(f);
    uint32_t *words = (uint32_t *)(at + 2 * K * f->width);

    return (keys){words, words + f->size, words + 2 * f->size, at, at + K * f->width};
}

/* with_down: keys are an operand of dQ. */
static void load_keys(const job *jb, const buffers *b, const mb_att_pair *p, int64_t kv,
                      const keys *to, bool with_down)
{
    const mb_att_form *f = &jb->form;
    const int64_t row = jb->at->k_start[p->s] + p->k0;
    const mb_att_packed k = {.left = f->pairs    ? NULL
                                     : with_down ? to->k_down
                                                 : b->left,
                             .across = to->k_across,
                             .down = with_down ? to->k_down : NULL};
    const mb_att_packed v = {.left = f->pairs ? NULL : b->left, .across = to->v_across};

    mb_att_pack(f, &k, jb->k, row, kv * f->hd, p->k_rows);
    mb_att_pack(f, &v, jb->v, row, kv * f->hd, p->k_rows);
}

static void load_queries(const job *jb, buffers *b, const mb_att_pair *p, int64_t head)
{
    const mb_att_form *f = &jb->form;
    const int64_t row = jb->at->q_start[p->s] + p->q0, col = head * f->hd;
    const float *lse = mb_row(jb->lse, head) + row;
    mb_strip os, ds;

    mb_att_fetch(jb->o, row, col, p->q_rows, f->hd);
    mb_att_pack(f, &b->q, jb->q, row, col, p->q_rows);
    mb_att_pack(f, &b->d_o, jb->d_o, row, col, p->q_rows);
    for (int64_t i = 0; i < p->q_rows; i++) {
        b->delta[i] = mb_att_dot(mb_strip_read(ds, jb->d_o, row + i, col, f->hd),
                                 mb_strip_read(os, jb->o, row + i, col, f->hd), f->hd);
        b->lse[i] = lse[i] * MB_ATT_LOG2E;
    }
}

/* s: products of q and k -> dropped probabilities; dp: gradients of those -> gradients of the
 * scores. keep: NULL without dropout. */
MB_INLINE void softmax_row_backward(float *restrict s, float *restrict dp,
                                    const float *restrict keep, int lo, int hi, mb_att_scores by,
                                    float lse, float delta, const int columns)
{
    float slope[K];

    if (by.capped)
        for (int j = 0; j < columns; j++) {
            const float t = mb_tanhf(s[j] * by.in);

            s[j] = by.out * t;
            slope[j] = 1.0f - t * t;
        }
    for (int j = 0; j < columns; j++) {
        const float p = mb_att_exp2((by.capped ? s[j] : s[j] * by.in) - lse);
        const float ds = p * ((keep != NULL ? dp[j] * keep[j] : dp[j]) - delta);

        s[j] = keep != NULL ? p * keep[j] : p;
        dp[j] = by.capped ? ds * slope[j] : ds;
    }
    if (lo > 0 || hi < columns)
        for (int j = 0; j < columns; j++) {
            const bool seen = (j >= lo) & (j < hi);

            s[j] = seen ? s[j] : 0.0f;
            dp[j] = seen ? dp[j] : 0.0f;
        }
}

MB_INLINE void softmax_columns_backward(const job *jb, buffers *b, const mb_att_pair *p,
                                        int64_t head, const int columns)
{
    const mb_attention *at = jb->at;
    const int64_t offset = (int64_t)at->k_len[p->s] - at->q_len[p->s];

    for (int64_t i = 0; i < p->q_rows; i++) {
        const int64_t pos = offset + p->q0 + i;
        const mb_span seen = mb_att_within(mb_att_keys(at, p->s, pos), p->k0, K);
        const int lo = (int)seen.lo, hi = (int)seen.hi;
        float *s = b->s + i * K, *dp = b->dp + i * K, keep[K];

        if (at->bias != NULL)
            mb_att_add_bias(at, head, pos, p->k0, seen, s);
        if (at->dropout > 0.0f) {
            mb_att_dropout(at, head, at->q_start[p->s] + p->q0 + i, pos, p->k0, keep);
            softmax_row_backward(s, dp, keep, lo, hi, jb->scores, b->lse[i], b->delta[i], columns);
        } else if (jb->scores.capped) {
            softmax_row_backward(s, dp, NULL, lo, hi, jb->scores, b->lse[i], b->delta[i], columns);
        } else {
            const mb_att_scores plain = {jb->scores.in, 1.0f, false};

            softmax_row_backward(s, dp, NULL, lo, hi, plain, b->lse[i], b->delta[i], columns);
        }
    }
}

/* As far as there are keys: beyond, nobody reads. */
MB_CPU_CLONES
static void softmax_backward(const job *jb, buffers *b, const mb_att_pair *p, int64_t head)
{
    if (p->k_rows <= 16)
        softmax_columns_backward(jb, b, p, head, 16);
    else if (p->k_rows <= 32)
        softmax_columns_backward(jb, b, p, head, 32);
    else
        softmax_columns_backward(jb, b, p, head, K);
}

/* After this s holds dropped probabilities and dp the gradients of the scores. */
static void run_pair(const job *jb, buffers *b, const mb_att_pair *p, int64_t head, const keys *k)
{
    const int64_t rest = mb_least(Q - p->q_rows, MB_ATT_ROWS);

    mb_att_over_head(&jb->form, jb->at, p, b->s, b->q.left, k->k_across);
    mb_att_over_head(&jb->form, jb->at, p, b->dp, b->d_o.left, k->v_across);
    softmax_backward(jb, b, p, head);
    memset(b->s + p->q_rows * K, 0, (size_t)(rest * K) * sizeof(float));
    memset(b->dp + p->q_rows * K, 0, (size_t)(rest * K) * sizeof(float));
}

static void add_to_keys(const job *jb, buffers *b, const mb_att_pair *p, const keys *k)
{
    const mb_att_form *f = &jb->form;

    mb_att_add_over_queries(f, jb->at, p, k->dv, mb_att_by_columns(f, b->words, b->s, p->q_rows),
                            b->d_o.down);
    mb_att_add_over_queries(f, jb->at, p, k->dk, mb_att_by_columns(f, b->words, b->dp, p->q_rows),
                            b->q.down);
}

static void add_to_queries(const job *jb, buffers *b, const mb_att_pair *p, const keys *k)
{
    const mb_att_form *f = &jb->form;

    mb_att_add_over_keys(f, jb->at, p, b->dq, mb_att_by_rows(f, b->words, b->dp, p->q_rows),
                         k->k_down);
}

static void store(const job *jb, mb_tensor *t, int64_t row, int64_t col, float *from, int64_t rows,
                  float factor)
{
    const mb_att_form *f = &jb->form;

    if (t == NULL)
        return;
    mb_att_scale(from, rows * f->width, factor);
    mb_att_store(t, row, col, from, f->width, rows, f->hd, jb->acc);
}

static void store_keys(const job *jb, const mb_att_pair *p, int64_t kv, const keys *k)
{
    const int64_t row = jb->at->k_start[p->s] + p->k0, col = kv * jb->form.hd;

    store(jb, jb->dk, row, col, k->dk, p->k_rows, jb->at->scale);
    store(jb, jb->dv, row, col, k->dv, p->k_rows, 1.0f);
}

static void clear_keys(const job *jb, const mb_att_pair *p, const keys *k)
{
    const size_t bytes = (size_t)(mb_att_padded(p->k_rows) * jb->form.width) * sizeof(float);

    memset(k->dk, 0, bytes);
    memset(k->dv, 0, bytes);
}

static void set_keys(const job *jb, mb_att_pair *p, int64_t block)
{
    p->k0 = block * K;
    p->k_rows = mb_least(K, jb->at->k_len[p->s] - p->k0);
}

static void set_queries(const job *jb, mb_att_pair *p, int64_t block)
{
    p->q0 = block * Q;
    p->q_rows = mb_least(Q, jb->at->q_len[p->s] - p->q0);
}

/* The part of the next query block that is asked for while this one meets the i-th of n key blocks. */
static void fetch_next(const job *jb, const mb_att_pair *p, int64_t head, int64_t i, int64_t n)
{
    const int64_t hd = jb->form.hd, len = jb->at->q_len[p->s];
    const bool last = p->q0 + Q >= len;
    const int64_t q0 = last ? 0 : p->q0 + Q, rows = mb_least(Q, len - q0);
    const int64_t from = rows * i / n, to = rows * (i + 1) / n;
    const int64_t row = jb->at->q_start[p->s] + q0 + from, col = (head + last) * hd;

    if (head + last == jb->at->heads)
        return;
    mb_att_fetch(jb->q, row, col, to - from, hd);
    mb_att_fetch(jb->d_o, row, col, to - from, hd);
    mb_att_fetch(jb->o, row, col, to - from, hd);
    if (jb->dq != NULL)
        mb_att_fetch(jb->dq, row, col, to - from, hd);
}

/* Query block p->q0 of a head: dQ, and what its pairs add to dK and dV if `whole`. Otherwise keys
 * are packed one by one. */
static void run_query_block(const job *jb, buffers *b, mb_att_pair *p, int64_t head, bool whole)
{
    const mb_attention *at = jb->at;
    const mb_span blocks = mb_att_key_blocks(at, p->s, p->q0, p->q0 + p->q_rows);

    memset(b->dq, 0, (size_t)(mb_att_padded(p->q_rows) * jb->form.width) * sizeof(float));
    load_queries(jb, b, p, head);
    for (int64_t j = blocks.lo; j < blocks.hi; j++) {
        const keys k = keys_at(jb, b, whole ? j : 0);

        set_keys(jb, p, j);
        if (!whole)
            load_keys(jb, b, p, head / (at->heads / at->kv_heads), &k, true);
        fetch_next(jb, p, head, j - blocks.lo, blocks.hi - blocks.lo);
        run_pair(jb, b, p, head, &k);
        if (whole)
            add_to_keys(jb, b, p, &k);
        add_to_queries(jb, b, p, &k);
    }
    store(jb, jb->dq, at->q_start[p->s] + p->q0, head * at->head_dim, b->dq, p->q_rows, at->scale);
}

/* Unit of (sequence, key head): everything. */
static void run_whole(const job *jb, int64_t unit)
{
    const mb_attention *at = jb->at;
    const int64_t group = at->heads / at->kv_heads, kv = unit % at->kv_heads;
    mb_att_pair p = {.s = unit / at->kv_heads};
    const int64_t key_blocks = mb_ceil_div(at->k_len[p.s], K);
    buffers b = buffers_of(jb);

    for (int64_t j = 0; j < key_blocks; j++) {
        const keys k = keys_at(jb, &b, j);

        set_keys(jb, &p, j);
        load_keys(jb, &b, &p, kv, &k, true);
        clear_keys(jb, &p, &k);
    }
    for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
        for (int64_t i = 0; i < mb_ceil_div(at->q_len[p.s], Q); i++) {
            set_queries(jb, &p, i);
            run_query_block(jb, &b, &p, head, true);
        }
    }
    for (int64_t j = 0; j < key_blocks; j++) {
        const keys k = keys_at(jb, &b, j);

        set_keys(jb, &p, j);
        store_keys(jb, &p, kv, &k);
    }
}

/* Unit of (key block, sequence, key head): dK and dV. */
static void run_keys_apart(const job *jb, int64_t unit)
{
    const mb_attention *at = jb->at;
    const int64_t group = at->heads / at->kv_heads, kv = unit % at->kv_heads;
    const int64_t block = unit / at->kv_heads / at->n_seq;
    mb_att_pair p = {.s = unit / at->kv_heads % at->n_seq};
    buffers b = buffers_of(jb);
    const keys k = keys_at(jb, &b, 0);

    if (block * K >= at->k_len[p.s])
        return;
    set_keys(jb, &p, block);
    load_keys(jb, &b, &p, kv, &k, false);
    clear_keys(jb, &p, &k);
    const mb_span blocks = mb_att_query_blocks(at, p.s, p.k0, p.k0 + p.k_rows);

    for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
        for (int64_t i = blocks.lo; i < blocks.hi; i++) {
            set_queries(jb, &p, i);
            load_queries(jb, &b, &p, head);
            run_pair(jb, &b, &p, head, &k);
            add_to_keys(jb, &b, &p, &k);
        }
    }
    store_keys(jb, &p, kv, &k);
}

/* Unit of (query block, sequence, head): dQ. */
static void run_queries_apart(const job *jb, int64_t unit, int64_t most)
{
    const mb_attention *at = jb->at;
    const int64_t block = most - 1 - unit / at->heads / at->n_seq;
    mb_att_pair p = {.s = unit / at->heads % at->n_seq};
    buffers b = buffers_of(jb);

    if (block * Q >= at->q_len[p.s])
        return;
    set_queries(jb, &p, block);
    run_query_block(jb, &b, &p, unit % at->heads, false);
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
    const mb_att_form form = mb_att_form_of(q, at);
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
                    .form = form,
                    .scores = mb_att_scores_of(at),
                    .work = ex->workspace,
                    .work_floats = floats_per_thread(&form, at)};

    MB_TRY(mb_att_check("attention_bwd", q, k, v, at));
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
