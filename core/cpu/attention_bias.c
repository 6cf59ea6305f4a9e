/* core/cpu/attention_bias.c - attention's bias by distance: made from buckets, and its gradient.
 *
 * The gradient of a distance is the sum of dS over all pairs of that distance. dS is computed block by
 * block as attention_bwd does. A unit is a head and a lane: lane i of LANES takes the sequences whose
 * number leaves i, one after the other, so that there is some work for every thread and no order of
 * additions depends on them; then the lanes are added up in order.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "core/cpu/attention_tile.h"
#include "core/cpu/strip.h"

enum { Q = MB_ATT_Q, K = MB_ATT_K, LANES = 8 };

typedef struct job {
    const mb_attention *at;
    const mb_tensor *q, *k, *v, *o, *d_o, *lse;
    mb_att_form form;
    mb_att_scores scores;
    float *work, *sums; /* per thread; (heads, LANES, distances) */
    int64_t work_floats, distances;
} job;

/* A thread's buffers. */
typedef struct buffers {
    mb_att_packed q, d_o, k, v;
    float *s, *dp;
    float delta[Q], lse[Q];
} buffers;

static int64_t floats_per_thread(const mb_att_form *f)
{
    return 6 * f->size + 2 * Q * K;
}

static int64_t distances_of(const mb_attention *at)
{
    return at->max_len > 0 ? 2 * at->max_len - 1 : 1;
}

size_t mb_cpu_attention_bias_bwd_workspace(mb_exec *ex, mb_tensor *dbias, const mb_tensor *d_o,
                                           const mb_tensor *q, const mb_tensor *k,
                                           const mb_tensor *v, const mb_tensor *o,
                                           const mb_tensor *lse, const mb_attention *at)
{
    const mb_att_form f = mb_att_form_of(q, at);

    (void)dbias, (void)d_o, (void)k, (void)v, (void)o, (void)lse;
    return (size_t)(ex->threads * floats_per_thread(&f) + at->heads * LANES * distances_of(at)) *
           sizeof(float);
}

static buffers buffers_of(const job *jb)
{
    const mb_att_form *f = &jb->form;
    float *work = jb->work + omp_get_thread_num() * jb->work_floats;
    buffers b = {.s = work, .dp = work + Q * K};
    uint32_t *words = (uint32_t *)(b.dp + Q * K);

    b.q.left = words;
    b.d_o.left = words + f->size;
    b.k.across = words + 2 * f->size;
    b.k.left = f->pairs ? NULL : words + 3 * f->size;
    b.v.across = words + 4 * f->size;
    b.v.left = f->pairs ? NULL : words + 5 * f->size;
    return b;
}

static void load_queries(const job *jb, buffers *b, const mb_att_pair *p, int64_t head)
{
    const mb_att_form *f = &jb->form;
    const int64_t row = jb->at->q_start[p->s] + p->q0, col = head * f->hd;
    mb_strip os, ds;

    mb_att_pack(f, &b->q, jb->q, row, col, p->q_rows);
    mb_att_pack(f, &b->d_o, jb->d_o, row, col, p->q_rows);
    for (int64_t i = 0; i < p->q_rows; i++) {
        b->delta[i] = mb_att_dot(mb_strip_read(ds, jb->d_o, row + i, col, f->hd),
                                 mb_strip_read(os, jb->o, row + i, col, f->hd), f->hd);
        b->lse[i] = mb_row(jb->lse, head)[row + i] * MB_ATT_LOG2E;
    }
}

/* One row: products of q and k in s, of dO and v in dp; sum[j] += dS of key j. keep: NULL without
 * dropout. */
MB_INLINE void add_row(float *restrict sum, const float *restrict s, const float *restrict dp,
                       const float *restrict keep, const float *restrict bias, int lo, int hi,
                       mb_att_scores by, float inverse_scale, float lse, float delta)
{
    for (int j = lo; j < hi; j++) {
        const float x = (s[j] + bias[j] * inverse_scale) * by.in;
        const float t = by.capped ? mb_tanhf(x) : 0.0f;
        const float p = mb_att_exp2((by.capped ? by.out * t : x) - lse);

        sum[j] += p * ((keep != NULL ? dp[j] * keep[j] : dp[j]) - delta) * (1.0f - t * t);
    }
}

MB_CPU_CLONES
static void add_pair(const job *jb, const buffers *b, const mb_att_pair *p, int64_t head,
                     float *sums)
{
    const mb_attention *at = jb->at;
    const int64_t offset = (int64_t)at->k_len[p->s] - at->q_len[p->s];
    const float inverse_scale = 1.0f / at->scale;

    for (int64_t i = 0; i < p->q_rows; i++) {
        const int64_t pos = offset + p->q0 + i, first = p->k0 - pos + at->max_len - 1;
        const mb_span seen = mb_att_within(mb_att_keys(at, p->s, pos), p->k0, K);
        float keep[K];

        if (seen.lo >= seen.hi)
            continue;
        if (at->dropout > 0.0f)
            mb_att_dropout(at, head, at->q_start[p->s] + p->q0 + i, pos, p->k0, keep);
        add_row(sums + first, b->s + i * K, b->dp + i * K, at->dropout > 0.0f ? keep : NULL,
                at->bias + head * jb->distances + first, (int)seen.lo, (int)seen.hi, jb->scores,
                inverse_scale, b->lse[i], b->delta[i]);
    }
}

static void run_sequence(const job *jb, buffers *b, int64_t s, int64_t head, float *sums)
{
    const mb_attention *at = jb->at;
    const mb_att_form *f = &jb->form;
    const int64_t kv = head / (at->heads / at->kv_heads);

    for (int64_t q0 = 0; q0 < at->q_len[s]; q0 += Q) {
        const int64_t left = at->q_len[s] - q0;
        mb_att_pair p = {.s = s, .q0 = q0, .q_rows = left < Q ? left : Q};
        const mb_span blocks = mb_att_key_blocks(at, s, q0, q0 + p.q_rows);

        load_queries(jb, b, &p, head);
        for (int64_t j = blocks.lo; j < blocks.hi; j++) {
            const int64_t row = at->k_start[s] + j * K, rest = at->k_len[s] - j * K;

            p.k0 = j * K;
            p.k_rows = rest < K ? rest : K;
            mb_att_pack(f, &b->k, jb->k, row, kv * f->hd, p.k_rows);
            mb_att_pack(f, &b->v, jb->v, row, kv * f->hd, p.k_rows);
            mb_att_over_head(f, at, &p, b->s, b->q.left, b->k.across);
            mb_att_over_head(f, at, &p, b->dp, b->d_o.left, b->v.across);
            add_pair(jb, b, &p, head, sums);
        }
    }
}

static void run_unit(const job *jb, int64_t unit)
{
    const int64_t head = unit / LANES, lane = unit % LANES;
    float *sums = jb->sums + unit * jb->distances;
    buffers b = buffers_of(jb);

    memset(sums, 0, (size_t)jb->distances * sizeof *sums);
    for (int64_t s = lane; s < jb->at->n_seq; s += LANES)
        run_sequence(jb, &b, s, head, sums);
}

static void add_lanes(const job *jb, mb_tensor *dbias, int64_t head)
{
    float *to = mb_row(dbias, head);

    for (int64_t lane = 0; lane < LANES; lane++) {
        const float *from = jb->sums + (head * LANES + lane) * jb->distances;

        for (int64_t i = 0; i < jb->distances; i++)
            to[i] += from[i];
    }
}

mb_status mb_cpu_attention_bias_bwd(mb_exec *ex, mb_tensor *dbias, const mb_tensor *d_o,
                                    const mb_tensor *q, const mb_tensor *k, const mb_tensor *v,
                                    const mb_tensor *o, const mb_tensor *lse,
                                    const mb_attention *at)
{
    const mb_att_form form = mb_att_form_of(q, at);
    job jb = {.at = at,
              .q = q,
              .k = k,
              .v = v,
              .o = o,
              .d_o = d_o,
              .lse = lse,
              .form = form,
              .scores = mb_att_scores_of(at),
              .work = ex->workspace,
              .work_floats = floats_per_thread(&form),
              .distances = distances_of(at)};

    jb.sums = jb.work + ex->threads * jb.work_floats;
    MB_TRY(mb_att_check("attention_bias_bwd", q, k, v, at));
    MB_REQUIRE(at->bias != NULL && dbias->dtype == MB_DTYPE_F32 && mb_rows(dbias) == at->heads &&
                   mb_cols(dbias) == jb.distances,
               MB_EBUG, "attention_bias_bwd: dbias is not f32 (heads, 2 max_len - 1)");
#pragma omp parallel num_threads(ex->threads)
    {
#pragma omp for schedule(dynamic)
        for (int64_t u = 0; u < at->heads * LANES; u++)
            run_unit(&jb, u);
#pragma omp for schedule(static)
        for (int64_t h = 0; h < at->heads; h++)
            add_lanes(&jb, dbias, h);
    }
    return MB_OK;
}

/* ---- from buckets -------------------------------------------------------------------------- */

mb_status mb_cpu_bucket_bias_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *ids,
                                 const mb_tensor *w)
{
    const int64_t heads = mb_rows(y), n = mb_cols(y);
    const int32_t *id = mb_i32(ids);

    (void)ex;
    MB_ASSERT(mb_tensor_count(ids) == n && mb_cols(w) == heads && y->dtype == MB_DTYPE_F32);
    for (int64_t m = 0; m < n; m++) {
        for (int64_t h = 0; h < heads; h += MB_STRIP) {
            const int64_t some = mb_strip_length(heads, h);
            mb_strip strip;
            const float *row = mb_strip_read(strip, w, id[m], h, some);

            for (int64_t i = 0; i < some; i++)
                mb_row(y, h + i)[m] = row[i];
        }
    }
    return MB_OK;
}

mb_status mb_cpu_bucket_bias_bwd(mb_exec *ex, mb_tensor *dw, const mb_tensor *ids,
                                 const mb_tensor *dy)
{
    const int64_t heads = mb_rows(dy), n = mb_cols(dy);
    const int32_t *id = mb_i32(ids);

    (void)ex;
    if (dw == NULL)
        return MB_OK;
    MB_ASSERT(mb_tensor_count(ids) == n && mb_cols(dw) == heads && dw->dtype == MB_DTYPE_F32);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t m = 0; m < n; m++)
            mb_row(dw, id[m])[h] += mb_row(dy, h)[m];
    return MB_OK;
}
