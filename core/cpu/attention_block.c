/* core/cpu/attention_block.c - geometry, masks and block copies of attention. */
#include "core/cpu/attention_block.h"

#include <string.h>

#include "core/cpu/strip.h"
#include "core/rng.h"

static int64_t clip(int64_t x, int64_t lo, int64_t hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

mb_span mb_att_keys(const mb_attention *at, int64_t s, int64_t pos)
{
    const int64_t n = at->k_len[s];
    mb_span keys = {0, n};

    if (at->window > 0)
        keys.lo = clip(pos - at->window + 1, 0, n);
    if (at->causal)
        keys.hi = clip(pos + 1, 0, n);
    else if (at->window > 0)
        keys.hi = clip(pos + at->window, 0, n);
    if (keys.hi < keys.lo)
        keys.hi = keys.lo;
    return keys;
}

/* Both ends of what is visible grow with the position, so the first and last query bound it. */
mb_span mb_att_keys_of(const mb_attention *at, int64_t s, int64_t from, int64_t to)
{
    const int64_t offset = (int64_t)at->k_len[s] - at->q_len[s];
    const mb_span first = mb_att_keys(at, s, offset + from);
    const mb_span last = mb_att_keys(at, s, offset + to - 1);

    return last.hi <= first.lo ? (mb_span){0, 0} : (mb_span){first.lo, last.hi};
}

mb_span mb_att_queries_of(const mb_attention *at, int64_t s, int64_t from, int64_t to)
{
    const int64_t n = at->q_len[s], offset = (int64_t)at->k_len[s] - n;
    int64_t lo = 0, hi = n;

    if (at->causal)
        lo = clip(from - offset, 0, n);
    else if (at->window > 0)
        lo = clip(from - at->window + 1 - offset, 0, n);
    if (at->window > 0)
        hi = clip(to - 1 + at->window - offset, 0, n);
    return hi <= lo ? (mb_span){0, 0} : (mb_span){lo, hi};
}

static mb_span blocks_of(mb_span rows, int64_t block)
{
    return (mb_span){rows.lo / block, (rows.hi + block - 1) / block};
}

mb_span mb_att_key_blocks(const mb_attention *at, int64_t s, int64_t from, int64_t to)
{
    return blocks_of(mb_att_keys_of(at, s, from, to), MB_ATT_K);
}

mb_span mb_att_query_blocks(const mb_attention *at, int64_t s, int64_t from, int64_t to)
{
    return blocks_of(mb_att_queries_of(at, s, from, to), MB_ATT_Q);
}

MB_CPU_CLONES
static void add_row(float *restrict to, const float *restrict from, int64_t n)
{
    for (int64_t d = 0; d < n; d++)
        to[d] += from[d];
}

void mb_att_store(mb_tensor *t, int64_t row, int64_t col, const float *from, int64_t ld,
                  int64_t rows, int64_t n, bool acc)
{
    mb_strip strip;

    for (int64_t i = 0; i < rows; i++, from += ld) {
        float *to = mb_strip_open(strip, t, row + i, col, n, acc);

        if (acc)
            add_row(to, from, n);
        else if (t->dtype == MB_DTYPE_F32)
            memcpy(to, from, (size_t)n * sizeof *to);
        mb_strip_close(acc ? to : from, t, row + i, col, n);
    }
}

/* Philox for the block's MB_ATT_K / 4 counters side by side, so that it vectorises. */
MB_CPU_CLONES
static void keep_block(float *restrict keep, uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2,
                       uint32_t c3, float p)
{
    const float scale = 1.0f / (1.0f - p);
    uint32_t w[4][MB_ATT_K / 4];

    for (uint32_t i = 0; i < MB_ATT_K / 4; i++) {
        const mb_rng_block b = mb_philox(key, c0, c1, c2, c3 + i);

        w[0][i] = b.w[0];
        w[1][i] = b.w[1];
        w[2][i] = b.w[2];
        w[3][i] = b.w[3];
    }
    for (int i = 0; i < MB_ATT_K / 4; i++) {
        keep[4 * i] = mb_rng_unit(w[0][i]) >= p ? scale : 0.0f;
        keep[4 * i + 1] = mb_rng_unit(w[1][i]) >= p ? scale : 0.0f;
        keep[4 * i + 2] = mb_rng_unit(w[2][i]) >= p ? scale : 0.0f;
        keep[4 * i + 3] = mb_rng_unit(w[3][i]) >= p ? scale : 0.0f;
    }
}

void mb_att_dropout(const mb_attention *at, int64_t head, int64_t row, int64_t pos, int64_t k0,
                    float *keep)
{
    const uint64_t key = mb_rng_key(at->seed, at->site, (uint64_t)head);

    keep_block(keep, key, (uint32_t)at->ordinal[row], at->step, (uint32_t)pos, (uint32_t)(k0 / 4),
               at->dropout);
}

static void zero_rows(mb_tensor *t, int64_t from, int64_t to)
{
    for (int64_t r = from; r < to; r++)
        memset((char *)t->data + mb_dtype_bytes(t->dtype, r * mb_row_stride(t)), 0,
               (size_t)mb_dtype_bytes(t->dtype, mb_cols(t)));
}

void mb_att_zero_gaps(mb_tensor *t, int64_t n_seq, const int32_t *start, const int32_t *len)
{
    int64_t next = 0;

    for (int64_t s = 0; s < n_seq; s++) {
        if (start[s] < next) { /* not in order: the gaps are not known this way */
            zero_rows(t, 0, mb_rows(t));
            return;
        }
        next = (int64_t)start[s] + len[s];
    }
    next = 0;
    for (int64_t s = 0; s < n_seq; s++) {
        zero_rows(t, next, start[s]);
        next = (int64_t)start[s] + len[s];
    }
    zero_rows(t, next, mb_rows(t));
}

int64_t mb_att_most_blocks(int64_t n_seq, const int32_t *len, int64_t block)
{
    int64_t most = 0;

    for (int64_t s = 0; s < n_seq; s++)
        most = len[s] > most ? len[s] : most;
    return (most + block - 1) / block;
}

mb_status mb_att_check(const char *kernel, const mb_tensor *q, const mb_tensor *k,
                       const mb_tensor *v, const mb_attention *at)
{
    MB_REQUIRE(at->head_dim >= 1 && at->head_dim <= MB_ATT_MAX_HEAD, MB_ENOTSUP,
               "%s: heads of %lld elements; at most %d are supported", kernel,
               (long long)at->head_dim, MB_ATT_MAX_HEAD);
    MB_REQUIRE(at->kv_heads > 0 && at->heads > 0 && at->heads % at->kv_heads == 0, MB_ESHAPE,
               "%s: %lld query heads cannot share %lld key heads", kernel, (long long)at->heads,
               (long long)at->kv_heads);
    MB_REQUIRE(mb_cols(q) == at->heads * at->head_dim &&
                   mb_cols(k) == at->kv_heads * at->head_dim && mb_cols(v) == mb_cols(k) &&
                   mb_rows(v) == mb_rows(k),
               MB_ESHAPE,
               "%s: q has %lld columns, k %lld, v %lld; %lld and %lld heads of %lld do "
               "not fit",
               kernel, (long long)mb_cols(q), (long long)mb_cols(k), (long long)mb_cols(v),
               (long long)at->heads, (long long)at->kv_heads, (long long)at->head_dim);
    MB_REQUIRE((q->dtype == MB_DTYPE_F32 || q->dtype == MB_DTYPE_BF16) && k->dtype == q->dtype &&
                   v->dtype == q->dtype,
               MB_ENOTSUP,
               "%s: q, k and v of types %s, %s and %s; all F32 or all BF16 is supported", kernel,
               mb_dtype_name(q->dtype), mb_dtype_name(k->dtype), mb_dtype_name(v->dtype));
    MB_REQUIRE(at->dropout >= 0.0f && at->dropout < 1.0f, MB_EARG,
               "%s: dropout %g is not in [0, 1)", kernel, (double)at->dropout);
    for (int64_t s = 0; s < at->n_seq; s++)
        MB_REQUIRE(at->q_len[s] >= 0 && at->k_len[s] >= 0 && at->q_len[s] <= at->max_len &&
                       at->k_len[s] <= at->max_len && at->q_start[s] >= 0 && at->k_start[s] >= 0 &&
                       at->q_start[s] + (int64_t)at->q_len[s] <= mb_rows(q) &&
                       at->k_start[s] + (int64_t)at->k_len[s] <= mb_rows(k),
                   MB_ESHAPE,
                   "%s: sequence %lld (queries %d+%d, keys %d+%d) leaves its tensors of %lld and "
                   "%lld rows or exceeds max_len %lld",
                   kernel, (long long)s, at->q_start[s], at->q_len[s], at->k_start[s], at->k_len[s],
                   (long long)mb_rows(q), (long long)mb_rows(k), (long long)at->max_len);
    return MB_OK;
}
