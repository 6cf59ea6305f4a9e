/* core/cpu/attention.c - attention with online softmax, forward.
 *
 *     S = cap(scale Q K^T + bias), P = softmax(S + mask), O = dropout(P) V
 *
 * as in FlashAttention (Dao et al. 2022): a block of queries meets its keys block by block, with a
 * running row maximum m and sum l; when m grows, what was summed before is scaled by 2^(m - m'). It
 * grows only where scores exceed it by far, so that most blocks scale nothing.
 * Scores are in units of log 2, so that exponentials are of base 2. lse = log(2) m + log l is kept
 * for the backward.
 *
 * An item is a block of queries of one head. A thread takes a few items that share their keys, so
 * that keys and values are packed once for them; each item meets its keys in their order, so no bit
 * depends on the threads. Few queries (generation) take one query at a time straight from where K
 * and V lie.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "core/cpu/attention_paged.h"
#include "core/cpu/attention_tile.h"
#include "core/cpu/strip.h"
#include "core/cpu/vec16.h"
#include "core/cpu/vecmath.h"
#include "core/cpu/words.h"

enum { Q = MB_ATT_Q, K = MB_ATT_K, FEW_QUERIES = 8, MOST_ITEMS = 8, SLACK = 8 };

typedef struct job {
    const mb_attention *at;
    const mb_tensor *q, *k, *v;
    mb_tensor *o, *lse;
    mb_att_form form;
    mb_att_scores scores;
    float *work;
    int64_t work_floats; /* per thread */
} job;

/* A block of queries of one head. */
typedef struct item {
    int64_t head, from, rows; /* queries [from, from + rows) of the sequence */
    mb_span blocks;           /* of keys it sees any of */
    uint32_t *q;              /* packed */
    float *o, *l, m[Q];       /* l: in lanes, added up at the end */
} item;

/* Items of sequence s that share key head kv, and a thread's buffers. */
typedef struct unit {
    int64_t s, kv, n;
    item item[MOST_ITEMS];
    uint32_t *k, *v, *p; /* packed */
    uint32_t *left;      /* keys on their way to k */
    float *scores;
} unit;

static int64_t floats_per_thread(const mb_att_form *f)
{
    return MOST_ITEMS * (f->size + Q * (f->width + MB_LANES)) + 3 * f->size + 2 * Q * K;
}

size_t mb_cpu_attention_fwd_workspace(mb_exec *ex, mb_tensor *o, mb_tensor *lse, const mb_tensor *q,
                                      const mb_tensor *k, const mb_tensor *v,
                                      const mb_attention *at)
{
    const mb_att_form f = mb_att_form_of(q, at);

    if (at->pages != NULL)
        return mb_att_paged_workspace(ex, q, at);
    return (size_t)(ex->threads * floats_per_thread(&f)) * sizeof(float);
}

MB_INLINE float larger(float a, float b)
{
    return a > b ? a : b;
}

/* Of a row of 16, 32 or 64 scores times `factor`, the largest of each lane, and their sum by lane as
 * if 64 were there, the rest zero. Loops of fixed length, so that they become vectors. NaN is not
 * heeded. */
MB_INLINE void largest_by_lane(float *restrict top, const float *restrict s, float factor,
                               const int columns)
{
    for (int l = 0; l < 16; l++) {
        float most = s[l] * factor;

        for (int j = 16; j < columns; j += 16)
            most = larger(most, s[l + j] * factor);
        top[l] = most;
    }
}

MB_INLINE float lane_sum(const float *s, const int columns)
{
    const float first = columns > 16 ? s[0] + s[16] : s[0];

    return columns > 32 ? first + (s[32] + s[48]) : first;
}

/* Scores capped, and what a query does not see at minus infinity once it is multiplied by `factor`. */
MB_INLINE void cap_and_hide(float *restrict s, mb_span seen, mb_att_scores by, float factor,
                            const int columns)
{
    if (by.capped)
        for (int j = 0; j < columns; j++)
            s[j] = by.out * mb_tanhf(s[j] * by.in);
    if (seen.lo > 0 || seen.hi < columns) {
        const int lo = (int)seen.lo, hi = (int)seen.hi;
        const float hidden = -INFINITY / factor;

        for (int j = 0; j < columns; j++)
            s[j] = (j >= lo) & (j < hi) ? s[j] : hidden;
    }
}

/* Of sixteen rows: m, from their largest scores by lane; what is subtracted from scores, and what
 * was summed before is multiplied by. m grows only when scores exceed it by SLACK: P stays below
 * 2^SLACK, and sums are seldom scaled. */
MB_INLINE bool raise_maxima(float *restrict m, float *restrict base, float *restrict rescale,
                            const float *tops)
{
    float turned[16 * 16];
    int changed = 0;

    mb_transpose16((uint32_t *)turned, 16, tops, 16 * sizeof *tops);
    for (int n = 8; n > 0; n /= 2)
        for (int j = 0; j < n * 16; j++)
            turned[j] = larger(turned[j], turned[j + n * 16]);
    for (int i = 0; i < 16; i++) {
        const float top = turned[i] > m[i] + SLACK ? turned[i] : m[i];

        base[i] = top == -INFINITY ? 0.0f : top; /* nothing seen, or all is -inf or NaN */
        rescale[i] = mb_att_exp2(m[i] - base[i]);
        changed |= m[i] != top;
        m[i] = top;
    }
    return changed != 0;
}

MB_INLINE void softmax_columns(const job *jb, const unit *u, item *it, const mb_att_pair *p,
                               const int columns)
{
    const int64_t offset = (int64_t)jb->at->k_len[u->s] - jb->at->q_len[u->s];
    const int64_t width = jb->form.width;
    const bool all = mb_att_all_seen(jb->at, p);
    const float factor = jb->scores.capped ? 1.0f : jb->scores.in;
    float tops[16 * 16] = {0}, base[16], rescale[16];

    for (int64_t from = 0; from < it->rows; from += 16) {
        const int64_t n = it->rows - from < 16 ? it->rows - from : 16;
        float *rows = u->scores + from * K;

        for (int64_t i = 0; i < n; i++) {
            const mb_span keys =
                all ? (mb_span){0, p->k_rows}
                    : mb_att_within(mb_att_keys(jb->at, u->s, offset + it->from + from + i), p->k0,
                                    K);

            if (jb->at->bias != NULL)
                mb_att_add_bias(jb->at, it->head, offset + it->from + from + i, p->k0, keys,
                                rows + i * K);
            cap_and_hide(rows + i * K, keys, jb->scores, factor, columns);
            largest_by_lane(tops + i * 16, rows + i * K, factor, columns);
        }
        const bool changed = raise_maxima(it->m + from, base, rescale, tops);

        for (int64_t i = 0; i < n; i++) {
            float *s = rows + i * K, *l = it->l + (from + i) * MB_LANES;

            for (int j = 0; j < columns; j++)
                s[j] = mb_att_exp2(s[j] * factor - base[i]);
            for (int j = 0; j < MB_LANES; j++)
                l[j] = l[j] * rescale[i] + lane_sum(s + j, columns);
        }
        for (int64_t i = 0; i < n && changed; i++)
            for (int64_t d = 0; d < width; d++)
                it->o[(from + i) * width + d] *= rescale[i];
    }
}

/* Rows of products -> probabilities not yet divided by their sums. Of a short block's rows only the
 * columns are touched that have keys; the sums are the same. */
MB_CPU_CLONES
static void softmax_block(const job *jb, const unit *u, item *it, const mb_att_pair *p)
{
    if (p->k_rows <= 16)
        softmax_columns(jb, u, it, p, 16);
    else if (p->k_rows <= 32)
        softmax_columns(jb, u, it, p, 32);
    else
        softmax_columns(jb, u, it, p, K);
}

static void drop(const job *jb, const unit *u, const item *it, int64_t k0)
{
    const mb_attention *at = jb->at;
    const int64_t offset = (int64_t)at->k_len[u->s] - at->q_len[u->s];

    for (int64_t i = 0; i < it->rows; i++) {
        float keep[K];

        mb_att_dropout(at, it->head, at->q_start[u->s] + it->from + i, offset + it->from + i, k0,
                       keep);
        for (int j = 0; j < K; j++)
            u->scores[i * K + j] *= keep[j];
    }
}

static void start(const job *jb, item *it)
{
    for (int64_t i = 0; i < (it->rows + 15) / 16 * 16; i++) /* maxima are raised by sixteens */
        it->m[i] = -INFINITY;
    memset(it->l, 0, (size_t)(it->rows * MB_LANES) * sizeof *it->l);
    memset(it->o, 0, (size_t)(mb_att_padded(it->rows) * jb->form.width) * sizeof(float));
}

/* o = O / l and lse; a query that sees nothing gives 0 and -inf. */
static void finish(const job *jb, const unit *u, item *it)
{
    const mb_att_form *f = &jb->form;
    const int64_t row0 = jb->at->q_start[u->s] + it->from;

    for (int64_t i = 0; i < it->rows; i++) {
        const float l = mb_fold_lanes(it->l + i * MB_LANES);
        const float inverse = l > 0.0f ? 1.0f / l : l; /* NaN stays NaN */

        mb_att_scale(it->o + i * f->width, f->hd, inverse);
        if (jb->lse != NULL)
            mb_row(jb->lse, it->head)[row0 + i] =
                l == 0.0f ? -INFINITY : it->m[i] * MB_ATT_LN2 + logf(l);
    }
    mb_att_store(jb->o, row0, it->head * f->hd, it->o, f->width, it->rows, f->hd, false);
}

/* One item and one block of n keys from k0 on, which is packed. */
static void meet(const job *jb, const unit *u, item *it, int64_t k0, int64_t n)
{
    const mb_att_form *f = &jb->form;
    const mb_att_pair pair = {.s = u->s, .q0 = it->from, .q_rows = it->rows, .k0 = k0, .k_rows = n};

    mb_att_over_head(f, jb->at, &pair, u->scores, it->q, u->k);
    softmax_block(jb, u, it, &pair);
    if (jb->at->dropout > 0.0f)
        drop(jb, u, it, k0);
    memset(u->scores + it->rows * K, 0,
           (size_t)((mb_att_padded(it->rows) - it->rows) * K) * sizeof(float));
    mb_att_add_over_keys(f, jb->at, &pair, it->o, mb_att_by_rows(f, u->p, u->scores, it->rows),
                         u->v);
}

/* Asks for the rows of an item while another is at work. */
static void fetch(const mb_tensor *t, const mb_attention *at, const unit *u, const item *it)
{
    mb_att_fetch(t, at->q_start[u->s] + it->from, it->head * at->head_dim, it->rows, at->head_dim);
}

static void many_queries(const job *jb, unit *u)
{
    const mb_attention *at = jb->at;
    const mb_att_form *f = &jb->form;
    mb_span blocks = u->item[0].blocks;
    const mb_att_packed k = {.left = f->pairs ? NULL : u->left, .across = u->k}, v = {.down = u->v};

    for (int64_t i = 0; i < u->n; i++) {
        const item *it = &u->item[i];

        start(jb, &u->item[i]);
        blocks.lo = it->blocks.lo < blocks.lo ? it->blocks.lo : blocks.lo;
        blocks.hi = it->blocks.hi > blocks.hi ? it->blocks.hi : blocks.hi;
    }
    for (int64_t j = blocks.lo; j < blocks.hi; j++) {
        const int64_t left = at->k_len[u->s] - j * K, n = left < K ? left : K;
        const int64_t row = at->k_start[u->s] + j * K;

        mb_att_pack(f, &k, jb->k, row, u->kv * f->hd, n);
        mb_att_pack(f, &v, jb->v, row, u->kv * f->hd, n);
        for (int64_t i = 0; i < u->n; i++) {
            item *it = &u->item[i];

            if (j < it->blocks.lo || j >= it->blocks.hi)
                continue;
            if (j == it->blocks.lo) {
                const mb_att_packed q = {.left = it->q};

                mb_att_pack(f, &q, jb->q, at->q_start[u->s] + it->from, it->head * f->hd, it->rows);
                if (i + 1 < u->n)
                    fetch(jb->q, at, u, it + 1);
            }
            if (j + 1 == it->blocks.hi)
                fetch(jb->o, at, u, it);
            meet(jb, u, it, j * K, n);
        }
    }
    for (int64_t i = 0; i < u->n; i++)
        finish(jb, u, &u->item[i]);
}

/* Eight numbers from element i of x on, and one. */
typedef uint16_t vec8_u16 __attribute__((vector_size(16), aligned(2), may_alias));
typedef uint32_t vec8_u32 __attribute__((vector_size(32)));
#define EIGHT(x, bf16, i)                                                                         \
    ((bf16) ? (mb_vec8)(__builtin_convertvector(*(const vec8_u16 *)((const uint16_t *)(x) + (i)), \
                                                vec8_u32)                                         \
                        << 16)                                                                    \
            : (mb_vec8)MB_LOAD8((const float *)(x) + (i)))

MB_INLINE float element(const void *x, bool bf16, int64_t i)
{
    return bf16 ? mb_bf16_to_f32(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

/* scores[j] = q . (row j of keys) for n keys */
MB_INLINE void score(float *scores, const float *q, const void *keys, const bool bf16, int64_t ld,
                     int64_t n, int64_t hd)
{
    for (int64_t j = 0; j < n; j++) {
        mb_vec8 acc[2] = {{0}, {0}};
        float lane[MB_LANES];
        int64_t d = 0;

        for (; d + MB_LANES <= hd; d += MB_LANES)
            for (int h = 0; h < 2; h++)
                acc[h] += MB_LOAD8(q + d + 8 * h) * EIGHT(keys, bf16, j * ld + d + 8 * h);
        MB_STORE8(lane, acc[0]);
        MB_STORE8(lane + 8, acc[1]);
        for (int64_t i = d; i < hd; i++)
            lane[i - d] += q[i] * element(keys, bf16, j * ld + i);
        scores[j] = mb_fold_lanes(lane);
    }
}

MB_INLINE void add(float *restrict o, const float *restrict p, const void *values, const bool bf16,
                   int64_t ld, int64_t n, int64_t hd)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t d = 0; d < hd; d++)
            o[d] += p[j] * element(values, bf16, j * ld + d);
}

MB_CPU_CLONES
static void score_keys(float *scores, const float *q, const void *keys, bool bf16, int64_t ld,
                       int64_t n, int64_t hd)
{
    if (bf16)
        score(scores, q, keys, true, ld, n, hd);
    else
        score(scores, q, keys, false, ld, n, hd);
}

MB_CPU_CLONES
static void add_values(float *o, const float *p, const void *values, bool bf16, int64_t ld,
                       int64_t n, int64_t hd)
{
    if (bf16)
        add(o, p, values, true, ld, n, hd);
    else
        add(o, p, values, false, ld, n, hd);
}

static const void *place(const mb_tensor *t, int64_t row, int64_t col)
{
    return (const char *)t->data + mb_dtype_bytes(t->dtype, row * mb_row_stride(t) + col);
}

/* An item of a single query. */
static void one_query(const job *jb, const unit *u, item *it)
{
    const mb_attention *at = jb->at;
    const int64_t hd = at->head_dim, ldk = mb_row_stride(jb->k), ldv = mb_row_stride(jb->v);
    const bool bf16 = jb->k->dtype == MB_DTYPE_BF16;
    float strip[MB_ATT_MAX_HEAD];
    const float *q = mb_strip_read(strip, jb->q, at->q_start[u->s] + it->from, it->head * hd, hd);

    start(jb, it);
    for (int64_t j = it->blocks.lo; j < it->blocks.hi; j++) {
        const int64_t left = at->k_len[u->s] - j * K, n = left < K ? left : K;
        const int64_t row = at->k_start[u->s] + j * K;
        const mb_att_pair pair = {
            .s = u->s, .q0 = it->from, .q_rows = it->rows, .k0 = j * K, .k_rows = n};

        memset(u->scores, 0, K * sizeof(float));
        score_keys(u->scores, q, place(jb->k, row, u->kv * hd), bf16, ldk, n, hd);
        softmax_block(jb, u, it, &pair);
        if (at->dropout > 0.0f)
            drop(jb, u, it, j * K);
        add_values(it->o, u->scores, place(jb->v, row, u->kv * hd), bf16, ldv, n, hd);
    }
    finish(jb, u, it);
}

static void few_queries(const job *jb, unit *u)
{
    for (int64_t i = 0; i < u->n; i++) {
        for (int64_t from = 0; from < u->item[i].rows; from++) {
            item it = {.head = u->item[i].head,
                       .from = from,
                       .rows = 1,
                       .blocks = mb_att_key_blocks(jb->at, u->s, from, from + 1),
                       .o = u->item[i].o,
                       .l = u->item[i].l};

            one_query(jb, u, &it);
        }
    }
}

/* The unit-th piece of work: `per` items of one sequence and key head. Items at the end of a
 * sequence, which see most keys when causal, come first. */
static void run_unit(const job *jb, int64_t number, int64_t per, int64_t pieces)
{
    const mb_attention *at = jb->at;
    const mb_att_form *f = &jb->form;
    const int64_t group = at->heads / at->kv_heads;
    unit u = {.kv = number % at->kv_heads, .s = number / at->kv_heads % at->n_seq};
    const int64_t first = (pieces - 1 - number / at->kv_heads / at->n_seq) * per;
    const int64_t items = (at->q_len[u.s] + Q - 1) / Q * group;
    float *work = jb->work + omp_get_thread_num() * jb->work_floats;

    for (; u.n < per && first + u.n < items; u.n++) {
        item *it = &u.item[u.n];

        it->head = u.kv * group + (first + u.n) % group;
        it->from = (first + u.n) / group * Q;
        it->rows = at->q_len[u.s] - it->from < Q ? at->q_len[u.s] - it->from : Q;
        it->blocks = mb_att_key_blocks(at, u.s, it->from, it->from + it->rows);
    }
    for (int64_t i = 0; i < MOST_ITEMS; i++, work += f->size) {
        u.item[i].o = work;
        u.item[i].l = work += Q * f->width;
        u.item[i].q = (uint32_t *)(work += Q * MB_LANES);
    }
    u.scores = work;
    u.p = (uint32_t *)(u.scores + Q * K);
    u.v = u.p + Q * K;
    u.k = u.v + f->size;
    u.left = u.k + f->size;
    if (u.n == 0)
        return;
    if (at->q_len[u.s] > FEW_QUERIES)
        many_queries(jb, &u);
    else
        few_queries(jb, &u);
}

mb_status mb_cpu_attention_fwd(mb_exec *ex, mb_tensor *o, mb_tensor *lse, const mb_tensor *q,
                               const mb_tensor *k, const mb_tensor *v, const mb_attention *at)
{
    if (at->pages != NULL)
        return mb_att_paged(ex, o, lse, q, k, v, at);

    const mb_att_form form = mb_att_form_of(q, at);
    const job jb = {.at = at,
                    .q = q,
                    .k = k,
                    .v = v,
                    .o = o,
                    .lse = lse,
                    .form = form,
                    .scores = mb_att_scores_of(at),
                    .work = ex->workspace,
                    .work_floats = floats_per_thread(&form)};

    MB_TRY(mb_att_check("attention_fwd", q, k, v, at));
    mb_att_zero_gaps(o, at->n_seq, at->q_start, at->q_len);

    /* Several units for each thread, or they wait for the last. */
    const int64_t most = mb_att_most_blocks(at->n_seq, at->q_len, Q) * (at->heads / at->kv_heads);
    const int64_t fair = most * at->n_seq * at->kv_heads / (6 * ex->threads);
    const int64_t per = fair < 1 ? 1 : fair > MOST_ITEMS ? MOST_ITEMS : fair;
    const int64_t pieces = (most + per - 1) / per;

#pragma omp parallel for schedule(dynamic) num_threads(ex->threads)
    for (int64_t n = 0; n < at->n_seq * at->kv_heads * pieces; n++)
        run_unit(&jb, n, per, pieces);
    return MB_OK;
}
