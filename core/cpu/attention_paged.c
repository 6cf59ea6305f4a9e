/* core/cpu/attention_paged.c - see core/cpu/attention_paged.h.
 *
 * A row is a query of one head. Rows that share a key head are taken 64 at a time, those of a query
 * beside one another: with one query a sequence (generation) a block of keys is still read once for
 * all heads that share it. Blocks lie as the products of core/cpu/attention_tile.h read them: nothing
 * is packed.
 */
#include "core/cpu/attention_paged.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "core/cpu/attention_tile.h"
#include "core/cpu/strip.h"
#include "core/cpu/vecmath.h"

enum { ROWS = 64, K = MB_KV_PAGE, SLACK = 8 };

_Static_assert((int)MB_KV_PAGE == (int)MB_ATT_K, "a page is a block of keys");

typedef struct job {
    const mb_attention *at;
    const mb_tensor *q, *k, *v;
    mb_tensor *o, *lse;
    mb_att_form form;
    mb_att_scores scores;
    int64_t group; /* query heads to a key head */
    float *work;
    int64_t work_floats; /* per thread */
} job;

/* Rows [from, from + n) of sequence s and key head kv: row r is query r / group of head
 * kv group + r % group. */
typedef struct unit {
    int64_t s, kv, from, n;
    float *q, *scores, *o; /* (ROWS, width), (ROWS, K), (ROWS, width) */
    float *l, *m;          /* (ROWS, MB_LANES), (ROWS) */
} unit;

static mb_att_form form_of(const mb_attention *at, const mb_tensor *q)
{
    mb_att_form f = mb_att_form_of(q, at);

    f.pairs = false;
    f.words = f.width;
    return f;
}

static int64_t floats_per_thread(const mb_att_form *f)
{
    return ROWS * (2 * f->width + K + MB_LANES + 1);
}

size_t mb_att_paged_workspace(const mb_exec *ex, const mb_tensor *q, const mb_attention *at)
{
    const mb_att_form f = form_of(at, q);

    return (size_t)(ex->threads * floats_per_thread(&f)) * sizeof(float);
}

/* ---- putting rows into their blocks ------------------------------------------------------- */

static int64_t page(const mb_attention *at, int64_t s, int64_t pos)
{
    return at->pages->table[s * at->pages->columns + pos / K];
}

static void put(const job *jb, int64_t s, int64_t i)
{
    const mb_attention *at = jb->at;
    const int64_t hd = at->head_dim, width = jb->form.width, heads = at->kv_heads;
    const int64_t pos = (int64_t)at->k_len[s] - at->q_len[s] + i, row = at->q_start[s] + i;
    const int64_t block = page(at, s, pos), in = pos % K;
    float strip[MB_ATT_MAX_HEAD];

    for (int64_t h = 0; h < heads; h++) {
        float *k = at->pages->k + (block * heads + h) * hd * K + in;
        float *v = at->pages->v + ((block * heads + h) * K + in) * width;
        const float *x = mb_strip_read(strip, jb->k, row, h * hd, hd);

        for (int64_t d = 0; d < hd; d++)
            k[d * K] = x[d];
        x = mb_strip_read(strip, jb->v, row, h * hd, hd);
        memcpy(v, x, (size_t)hd * sizeof(float));
        memset(v + hd, 0, (size_t)(width - hd) * sizeof(float));
    }
}

/* ---- softmax ------------------------------------------------------------------------------ */

MB_INLINE float larger(float a, float b)
{
    return a > b ? a : b;
}

/* One row of scores -> probabilities not yet divided by their sum; l and o are rescaled when the
 * running maximum grows (core/cpu/attention.c says why it seldom does). */
MB_CPU_CLONES
static void softmax_row(float *restrict s, float *restrict l, float *restrict o, float *m,
                        int64_t width, mb_span seen, mb_att_scores by)
{
    const float factor = by.capped ? 1.0f : by.in;
    float top[MB_LANES];

    if (by.capped)
        for (int j = 0; j < K; j++)
            s[j] = by.out * mb_tanhf(s[j] * by.in);
    if (seen.lo > 0 || seen.hi < K) {
        const int lo = (int)seen.lo, hi = (int)seen.hi;

        for (int j = 0; j < K; j++)
            s[j] = (j >= lo) & (j < hi) ? s[j] * factor : -INFINITY;
    } else {
        for (int j = 0; j < K; j++)
            s[j] = s[j] * factor;
    }
    for (int j = 0; j < MB_LANES; j++)
        top[j] = larger(larger(s[j], s[j + 16]), larger(s[j + 32], s[j + 48]));
    for (int n = MB_LANES / 2; n > 0; n /= 2)
        for (int j = 0; j < n; j++)
            top[j] = larger(top[j], top[j + n]);

    const float max = top[0] > *m + SLACK ? top[0] : *m;
    const float base = max == -INFINITY ? 0.0f : max;

    if (max != *m) {
        const float rescale = mb_att_exp2(*m - base);

        for (int j = 0; j < MB_LANES; j++)
            l[j] *= rescale;
        for (int64_t d = 0; d < width; d++)
            o[d] *= rescale;
        *m = max;
    }
    for (int j = 0; j < K; j++)
        s[j] = mb_att_exp2(s[j] - base);
    for (int j = 0; j < MB_LANES; j++)
        l[j] += (s[j] + s[j + 16]) + (s[j + 32] + s[j + 48]);
}

/* ---- a unit ------------------------------------------------------------------------------- */

static void begin(const job *jb, const unit *u)
{
    const mb_attention *at = jb->at;
    const int64_t width = jb->form.width, hd = at->head_dim;
    float strip[MB_ATT_MAX_HEAD];

    memset(u->q, 0, (size_t)(mb_att_padded(u->n) * width) * sizeof(float));
    memset(u->o, 0, (size_t)(mb_att_padded(u->n) * width) * sizeof(float));
    memset(u->l, 0, (size_t)(u->n * MB_LANES) * sizeof(float));
    for (int64_t r = 0; r < u->n; r++) {
        const int64_t row = at->q_start[u->s] + (u->from + r) / jb->group;
        const int64_t head = u->kv * jb->group + (u->from + r) % jb->group;

        memcpy(u->q + r * width, mb_strip_read(strip, jb->q, row, head * hd, hd),
               (size_t)hd * sizeof(float));
        u->m[r] = -INFINITY;
    }
}

static void finish(const job *jb, const unit *u)
{
    const mb_attention *at = jb->at;
    const int64_t hd = at->head_dim, width = jb->form.width;

    for (int64_t r = 0; r < u->n; r++) {
        const int64_t row = at->q_start[u->s] + (u->from + r) / jb->group;
        const int64_t head = u->kv * jb->group + (u->from + r) % jb->group;
        const float l = mb_fold_lanes(u->l + r * MB_LANES);

        mb_att_scale(u->o + r * width, hd, l > 0.0f ? 1.0f / l : l);
        if (jb->lse != NULL)
            mb_row(jb->lse, head)[row] = l == 0.0f ? -INFINITY : u->m[r] * MB_ATT_LN2 + logf(l);
        mb_att_store(jb->o, row, head * hd, u->o + r * width, width, 1, hd, false);
    }
}

/* Block j of keys, of which n are there. */
static void meet(const job *jb, const unit *u, int64_t j, int64_t n)
{
    const mb_attention *at = jb->at;
    const mb_att_form *f = &jb->form;
    const int64_t offset = (int64_t)at->k_len[u->s] - at->q_len[u->s];
    const int64_t at_head = page(at, u->s, j * K) * at->kv_heads + u->kv;
    const float *k = at->pages->k + at_head * f->hd * K, *v = at->pages->v + at_head * K * f->width;
    const mb_att_left q = {(const uint32_t *)u->q, f->width, 1};
    const mb_att_left p = {(const uint32_t *)u->scores, K, 1};

    mb_att_product(f, u->scores, K, q, (const uint32_t *)k, K, u->n, K, f->hd, false);
    for (int64_t r = 0; r < u->n; r++) {
        const int64_t pos = offset + (u->from + r) / jb->group;
        mb_span seen = mb_att_within(mb_att_keys(at, u->s, pos), j * K, K);
        float *s = u->scores + r * K;

        seen.hi = seen.hi < n ? seen.hi : n;
        if (at->bias != NULL)
            mb_att_add_bias(at, u->kv * jb->group + (u->from + r) % jb->group, pos, j * K, seen, s);
        softmax_row(s, u->l + r * MB_LANES, u->o + r * f->width, u->m + r, f->width, seen,
                    jb->scores);
    }
    mb_att_product(f, u->o, f->width, p, (const uint32_t *)v, f->width, u->n, f->width, n, true);
}

static void run_unit(const job *jb, int64_t s, int64_t kv, int64_t from)
{
    const mb_attention *at = jb->at;
    const int64_t rows = at->q_len[s] * jb->group, width = jb->form.width;
    unit u = {.s = s, .kv = kv, .from = from, .n = rows - from < ROWS ? rows - from : ROWS};

    u.q = jb->work + omp_get_thread_num() * jb->work_floats;
    u.o = u.q + ROWS * width;
    u.scores = u.o + ROWS * width;
    u.l = u.scores + ROWS * K;
    u.m = u.l + ROWS * MB_LANES;
    begin(jb, &u);

    const mb_span blocks =
        mb_att_key_blocks(at, s, from / jb->group, (from + u.n - 1) / jb->group + 1);
    for (int64_t j = blocks.lo; j < blocks.hi; j++)
        meet(jb, &u, j, at->k_len[s] - j * K < K ? at->k_len[s] - j * K : K);
    finish(jb, &u);
}

static mb_status check(const mb_attention *at, const mb_tensor *q, const mb_tensor *k)
{
    MB_REQUIRE(at->dropout == 0.0f, MB_EBUG, "attention_fwd: dropout with keys in pages");
    MB_REQUIRE(mb_cols(q) == at->heads * at->head_dim && mb_cols(k) == at->kv_heads * at->head_dim,
               MB_ESHAPE,
               "attention_fwd: q has %lld columns and k %lld; %lld and %lld heads of "
               "%lld do not fit",
               (long long)mb_cols(q), (long long)mb_cols(k), (long long)at->heads,
               (long long)at->kv_heads, (long long)at->head_dim);
    for (int64_t s = 0; s < at->n_seq; s++)
        MB_REQUIRE(
            at->q_len[s] >= 0 && at->q_len[s] <= at->k_len[s] &&
                at->k_len[s] <= at->pages->columns * K && at->q_start[s] >= 0 &&
                at->q_start[s] + (int64_t)at->q_len[s] <= mb_rows(q),
            MB_ESHAPE,
            "attention_fwd: sequence %lld (queries %d+%d, %d keys) leaves its tensor of %lld "
            "rows or its %lld pages",
            (long long)s, at->q_start[s], at->q_len[s], at->k_len[s], (long long)mb_rows(q),
            (long long)at->pages->columns);
    return MB_OK;
}

mb_status mb_att_paged(mb_exec *ex, mb_tensor *o, mb_tensor *lse, const mb_tensor *q,
                       const mb_tensor *k, const mb_tensor *v, const mb_attention *at)
{
    const mb_att_form form = form_of(at, q);
    const job jb = {.at = at,
                    .q = q,
                    .k = k,
                    .v = v,
                    .o = o,
                    .lse = lse,
                    .form = form,
                    .scores = mb_att_scores_of(at),
                    .group = at->heads / at->kv_heads,
                    .work = ex->workspace,
                    .work_floats = floats_per_thread(&form)};

    MB_TRY(check(at, q, k));
    mb_att_zero_gaps(o, at->n_seq, at->q_start, at->q_len);

    const int64_t most = mb_att_most_blocks(at->n_seq, at->q_len, 1);
    const int64_t pieces = (most * jb.group + ROWS - 1) / ROWS;

#pragma omp parallel num_threads(ex->threads)
    {
#pragma omp for schedule(dynamic, 4)
        for (int64_t n = 0; n < at->n_seq * most; n++)
            if (n % most < at->q_len[n / most])
                put(&jb, n / most, n % most);
#pragma omp for schedule(dynamic)
        for (int64_t n = 0; n < at->n_seq * at->kv_heads * pieces; n++) {
            const int64_t s = n / at->kv_heads % at->n_seq;
            const int64_t from = (pieces - 1 - n / at->kv_heads / at->n_seq) * ROWS;

            if (from < at->q_len[s] * jb.group)
                run_unit(&jb, s, n % at->kv_heads, from);
        }
    }
    return MB_OK;
}
