/* core/cuda/attention_tile.h - what attention's forward and backward share on the device.
 *
 * A sequence's queries and keys are cut into tiles from its own start, of sizes that follow from the
 * type and head_dim alone; so what is computed for a sequence does not depend on its neighbours, on
 * max_len or on its place. The host knows no lengths: there is a block for every tile that max_len
 * allows, and those beyond a length end at once.
 *
 * A tile of R rows and HD (head_dim rounded up, the rest zero) columns lies in shared memory
 *     f32      HD + 4 floats apart: an odd number of 16-byte pieces, so 8 rows meet 8 bank groups
 *     16-bit   without gaps, the 16-byte pieces of a row permuted by its number, for ldmatrix
 *
 * 16-bit products are made by warps of which each owns 16 * MT rows of the tile that stays ("a");
 * the other tile ("b") streams by. Accumulators of scores are in place to be the left operand of
 * the next product, so neither scores nor probabilities touch memory.
 *
 * Scores are kept in units of `unit`: 1 for f32 (expf), log2(e) for 16-bit types (2^x is what the
 * hardware has).
 */
#ifndef MB_CORE_CUDA_ATTENTION_TILE_H
#define MB_CORE_CUDA_ATTENTION_TILE_H

#include <math.h>

#include "core/cuda/cuda.h"
#include "core/rng.h"

enum { ATT_MAX_HEAD = 256, ATT_WARPS = 4, ATT_TC = 32 * ATT_WARPS, ATT_F32 = 256 };

/* ---- the call, as kernels take it ----------------------------------------------------------- */

/* No gaps between members: a launch's arguments are known bytes. */
struct att_args {
    const int32_t *q_start, *q_len, *k_start, *k_len, *ordinal;
    const float *bias; /* by distance, of dots times scale; nullptr: none */
    uint64_t seed, site;
    uint32_t step;
    int far;       /* the longest distance the bias has: max_len - 1 */
    float inverse; /* 1 / scale */
    int heads, kv_heads, group, hd, n_seq;
    int blocks;          /* tiles of max_len: of queries or of keys, as the kernel wants */
    int causal, window;  /* window 0: none */
    float scale;         /* of dots */
    float unit, factor;  /* score = factor dot, */
    float cap, out;      /* or cap tanh(factor dot) when cap > 0; out: 1 / cap */
    float dropout, kept; /* kept: 1 / (1 - dropout) */
};

/* A tensor of heads; vec: 16 bytes at once are allowed. */
template <typename T> struct att_mat {
    T *data;
    int64_t stride, vec;

    MB_DEVICE T *at(int row, int head, int hd) const
    {
        return data + row * stride + head * hd;
    }
};

template <typename T> static inline att_mat<T> att_mat_of(const mb_tensor *t, int64_t hd)
{
    att_mat<T> m = {nullptr, 0, 0};

    if (t != nullptr) {
        m.data = static_cast<T *>(t->data);
        m.stride = mb_row_stride(t);
        m.vec = (size_t)hd * sizeof(T) % 16 == 0 && (size_t)m.stride * sizeof(T) % 16 == 0 &&
                reinterpret_cast<uintptr_t>(m.data) % 16 == 0;
    }
    return m;
}

template <typename T> static inline att_args att_args_of(const mb_attention *at, int64_t tile)
{
    att_args a;

    a.heads = (int)at->heads;
    a.kv_heads = (int)at->kv_heads;
    a.group = (int)(at->heads / at->kv_heads);
    a.hd = (int)at->head_dim;
    a.n_seq = (int)at->n_seq;
    a.blocks = (int)mb_div_up(at->max_len, tile);
    a.window = (int)(at->window < (1 << 30) ? at->window : 1 << 30);
    a.causal = at->causal ? 1 : 0;
    a.scale = at->scale;
    a.unit = sizeof(T) == 4 ? 1.0f : 1.44269504088896341f;
    a.cap = at->softcap > 0.0f ? at->softcap * a.unit : 0.0f;
    a.factor = at->softcap > 0.0f ? at->scale / at->softcap : at->scale * a.unit;
    a.out = at->softcap > 0.0f ? 1.0f / a.cap : 0.0f;
    a.q_start = at->q_start;
    a.q_len = at->q_len;
    a.k_start = at->k_start;
    a.k_len = at->k_len;
    a.ordinal = at->ordinal;
    a.bias = at->bias;
    a.far = (int)at->max_len - 1;
    a.inverse = 1.0f / at->scale;
    a.dropout = at->dropout;
    a.kept = 1.0f / (1.0f - at->dropout);
    a.seed = at->seed;
    a.site = at->site;
    a.step = at->step;
    return a;
}

/* What the host can know about shapes. */
static inline mb_status att_check(const char *kernel, const mb_tensor *q, const mb_tensor *k,
                                  const mb_tensor *v, const mb_attention *at)
{
    MB_REQUIRE(at->head_dim >= 1 && at->head_dim <= ATT_MAX_HEAD, MB_ENOTSUP,
               "%s: heads of %lld elements; at most %d are supported", kernel,
               (long long)at->head_dim, (int)ATT_MAX_HEAD);
    MB_REQUIRE(at->kv_heads > 0 && at->heads > 0 && at->heads % at->kv_heads == 0, MB_ESHAPE,
               "%s: %lld query heads cannot share %lld key heads", kernel, (long long)at->heads,
               (long long)at->kv_heads);
    MB_REQUIRE(
        mb_cols(q) == at->heads * at->head_dim && mb_cols(k) == at->kv_heads * at->head_dim &&
            mb_cols(v) == mb_cols(k) && mb_rows(v) == mb_rows(k),
        MB_ESHAPE, "%s: q has %lld columns, k %lld, v %lld; %lld and %lld heads of %lld do not fit",
        kernel, (long long)mb_cols(q), (long long)mb_cols(k), (long long)mb_cols(v),
        (long long)at->heads, (long long)at->kv_heads, (long long)at->head_dim);
    MB_REQUIRE(k->dtype == q->dtype && v->dtype == q->dtype, MB_EBUG,
               "%s: q, k and v have different types", kernel);
    MB_REQUIRE(at->dropout >= 0.0f && at->dropout < 1.0f, MB_EARG,
               "%s: dropout %g is not in [0, 1)", kernel, (double)at->dropout);
    MB_REQUIRE(at->n_seq >= 0 && at->max_len >= 0 && at->max_len < 1 << 30, MB_ESHAPE,
               "%s: %lld sequences of up to %lld rows", kernel, (long long)at->n_seq,
               (long long)at->max_len);
    return MB_OK;
}

/* ---- geometry ------------------------------------------------------------------------------- */

/* Query i of the sequence sits at position offset + i of its keys. */
struct att_seq {
    int q_start, k_start, q_len, k_len, offset;
};

struct att_span {
    int lo, hi;
};

MB_DEVICE att_seq att_sequence(const att_args &a, int s)
{
    att_seq q;

    q.q_start = a.q_start[s];
    q.k_start = a.k_start[s];
    q.q_len = a.q_len[s];
    q.k_len = a.k_len[s];
    q.offset = q.k_len - q.q_len;
    return q;
}

MB_DEVICE int att_clip(int x, int lo, int hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

MB_DEVICE int att_least(int a, int b)
{
    return a < b ? a : b;
}

/* Keys that a query at position `pos` sees; lo >= hi: none. */
MB_DEVICE att_span att_keys(const att_args &a, int k_len, int pos)
{
    att_span keys = {0, k_len};

    if (a.window > 0)
        keys.lo = att_clip(pos - a.window + 1, 0, k_len);
    if (a.causal != 0)
        keys.hi = att_clip(pos + 1, 0, k_len);
    else if (a.window > 0)
        keys.hi = att_clip(pos + a.window, 0, k_len);
    return keys;
}

/* Tiles of `tile` keys of which queries [from, to) see any. Both ends of what is visible grow with
 * the position, so the first and the last query bound it. */
MB_DEVICE att_span att_key_tiles(const att_args &a, const att_seq &q, int from, int to, int tile)
{
    const att_span first = att_keys(a, q.k_len, q.offset + from);
    const att_span last = att_keys(a, q.k_len, q.offset + to - 1);

    if (last.hi <= first.lo)
        return {0, 0};
    return {first.lo / tile, (last.hi + tile - 1) / tile};
}

/* Tiles of `tile` queries that see any of keys [from, to). */
MB_DEVICE att_span att_query_tiles(const att_args &a, const att_seq &q, int from, int to, int tile)
{
    const int n = q.q_len;
    int lo = 0, hi = n;

    if (a.causal != 0)
        lo = att_clip(from - q.offset, 0, n);
    else if (a.window > 0)
        lo = att_clip(from - a.window + 1 - q.offset, 0, n);
    if (a.window > 0)
        hi = att_clip(to - 1 + a.window - q.offset, 0, n);
    if (hi <= lo)
        return {0, 0};
    return {lo / tile, (hi + tile - 1) / tile};
}

/* Whether all of queries [q0, q0 + rows) see all of keys [k0, k0 + n). */
MB_DEVICE bool att_all_seen(const att_args &a, const att_seq &q, int q0, int rows, int k0, int n)
{
    return att_keys(a, q.k_len, q.offset + q0).hi >= k0 + n &&
           att_keys(a, q.k_len, q.offset + q0 + rows - 1).lo <= k0;
}

/* ---- scores and dropout --------------------------------------------------------------------- */

/* The bias of a pair, as a dot product. Pairs beyond the sequence, which are masked, have some. */
MB_DEVICE float att_bias(const att_args &a, int head, int q_pos, int k_pos)
{
    const int at = att_clip(k_pos - q_pos + a.far, 0, 2 * a.far);

    return a.bias[(int64_t)head * (2 * a.far + 1) + at] * a.inverse;
}

/* The score of a query and a key from their dot product. */
template <bool CAP> MB_DEVICE float att_score_as(const att_args &a, float dot)
{
    return CAP ? a.cap * tanhf(dot * a.factor) : dot * a.factor;
}

MB_DEVICE float att_score(const att_args &a, float dot, int head, int q_pos, int k_pos)
{
    if (a.bias != nullptr)
        dot += att_bias(a, head, q_pos, k_pos);
    return a.cap > 0.0f ? att_score_as<true>(a, dot) : att_score_as<false>(a, dot);
}

/* d score / d (scale dot) of a capped score. */
MB_DEVICE float att_slope(const att_args &a, float score)
{
    const float t = score * a.out;

    return 1.0f - t * t;
}

/* e^x of natural units, 2^x of log2 units. */
template <typename T> MB_DEVICE float att_exp(float x)
{
    if constexpr (sizeof(T) == 4)
        return expf(x);
    else
        return mb_exp2(x);
}

MB_DEVICE bool att_keep(const att_args &a, uint32_t word)
{
    return mb_rng_unit(word) >= a.dropout;
}

/* The factor of one (query, key). */
MB_DEVICE float att_keep_one(const att_args &a, uint64_t key, int ordinal, int q_pos, int k_pos)
{
    const mb_rng_block b =
        mb_philox(key, (uint32_t)ordinal, a.step, (uint32_t)q_pos, (uint32_t)k_pos / 4);
    const int w = k_pos & 3;
    const bool keep = att_keep(a, w == 0 ? b.w[0] : w == 1 ? b.w[1] : w == 2 ? b.w[2] : b.w[3]);

    return keep ? a.kept : 0.0f;
}

/* Of an accumulator's 4 elements, as bits. Its rows are queries (ordinal[], q_pos[]: of rows g and
 * g + 8) and its columns keys k8, .., k8 + 7. A Philox block is 4 keys of a query, so two lanes share
 * one: the even one makes that of row g, the odd one that of row g + 8. */
MB_DEVICE uint32_t att_keep_rows(const att_args &a, uint64_t key, const int (&ordinal)[2],
                                 const int (&q_pos)[2], int k8)
{
    const bool odd = (mb_lane() & 1) != 0;
    const uint32_t k4 = (uint32_t)k8 / 4 + (uint32_t)(mb_lane() & 2) / 2;
    const mb_rng_block b = mb_philox(key, (uint32_t)(odd ? ordinal[1] : ordinal[0]), a.step,
                                     (uint32_t)(odd ? q_pos[1] : q_pos[0]), k4);
    uint32_t mine = 0; /* of the block's words */

    MB_UNROLL
    for (int i = 0; i < 4; i++)
        mine |= (uint32_t)att_keep(a, b.w[i]) << i;
    const uint32_t other = mb_shfl_xor(mine, 1);
    return odd ? other >> 2 | (mine & 12u) : (mine & 3u) | (other & 3u) << 2;
}

/* Of the warp's rows [row, row + 16 MT) of a tile of queries (from `from` on, `rows` of them) and N
 * keys from k0 on: bit 4 n + e of keep[m]. */
template <int N, int MT>
MB_DEVICE void att_keep_tile(uint32_t (&keep)[MT], const att_args &a, uint64_t key,
                             const att_seq &seq, int from, int rows, int row, int k0)
{
    MB_UNROLL
    for (int m = 0; m < MT; m++) {
        const int r = row + m * 16 + mb_opaque(mb_lane()) / 4;
        const int pos[2] = {seq.offset + from + r, seq.offset + from + r + 8};
        const int ordinal[2] = {a.ordinal[seq.q_start + from + att_least(r, rows - 1)],
                                a.ordinal[seq.q_start + from + att_least(r + 8, rows - 1)]};

        keep[m] = 0;
        MB_ROLLED
        for (int n = 0; n < N / 8; n++)
            keep[m] |= att_keep_rows(a, key, ordinal, pos, k0 + n * 8) << 4 * n;
    }
}

/* The same when rows are keys k8 + g and k8 + g + 8 and columns 2t, 2t + 1 are queries. Four lanes
 * (g = 4i .. 4i + 3) need four blocks, one word of each: every lane makes one, and the 4 x 4 bits
 * are transposed. */
MB_DEVICE uint32_t att_keep_columns(const att_args &a, uint64_t key, const int (&ordinal)[2],
                                    const int (&q_pos)[2], int k8)
{
    const int g = mb_opaque(mb_lane()) / 4, word = g & 3;
    const bool b0 = (g & 1) != 0, b1 = (g & 2) != 0;
    const mb_rng_block b = mb_philox(key, (uint32_t)(b0 ? ordinal[1] : ordinal[0]), a.step,
                                     (uint32_t)(b0 ? q_pos[1] : q_pos[0]),
                                     (uint32_t)(k8 + (g & 4) + (b1 ? 8 : 0)) / 4);
    uint32_t all = 0; /* bit 4 i + w: word w of lane i's block */

    MB_UNROLL
    for (int i = 0; i < 4; i++)
        all |= (uint32_t)att_keep(a, b.w[i]) << (4 * word + i);
    all |= mb_shfl_xor(all, 4);
    all |= mb_shfl_xor(all, 8);
    all >>= word;
    return (all & 1u) | (all >> 3 & 2u) | (all >> 6 & 4u) | (all >> 9 & 8u);
}

/* ---- tiles in shared memory ----------------------------------------------------------------- */

/* What MB_SMEM is asked for: tiles are of 16-byte pieces. */
struct alignas(16) att_line {
    unsigned char byte[16];
};

/* Where 16-byte piece c of row r is. */
template <typename T, int HD> MB_DEVICE int att_piece(int r, int c)
{
    if constexpr (sizeof(T) == 4)
        return r * (HD + 4) + c * 4;
    else if constexpr (HD % 64 == 0)
        return r * HD + (c ^ (r & 7)) * 8;
    else /* rows begin in the first or the second half of the banks */
        return r * HD + (c ^ ((r >> 1) & 3)) * 8;
}

/* `rows` rows of hd elements into a tile of R, the rest zero; asynchronous: commit and wait. */
template <typename T, int HD, int R, int THREADS>
MB_DEVICE void att_load(T *tile, const T *from, int64_t ld, int64_t vec, int rows, int hd)
{
    constexpr int N = 16 / (int)sizeof(T), PIECES = HD / N;
    const int thread = mb_opaque((int)threadIdx.x);
    static_assert(R * PIECES % THREADS == 0 || R * PIECES < THREADS, "odd tile");

    if (vec != 0) {
        MB_UNROLL
        for (int n = 0; n < (R * PIECES + THREADS - 1) / THREADS; n++) {
            const int i = n * THREADS + thread, r = i / PIECES, c = i % PIECES;
            const bool there = r < rows && c * N < hd;

            if (R * PIECES % THREADS == 0 || i < R * PIECES)
                mb_cp_async(tile + att_piece<T, HD>(r, c), there ? from + r * ld + c * N : from,
                            there);
        }
    } else {
        MB_ROLLED
        for (int i = thread; i < R * HD; i += THREADS) {
            const int r = i / HD, c = i % HD;

            tile[att_piece<T, HD>(r, c / N) + c % N] =
                r < rows && c < hd ? from[r * ld + c] : mb_from_f32<T>(0.0f);
        }
    }
}

/* ---- 16-bit products ------------------------------------------------------------------------ */

/* c += a b^T: rows [row, row + 16 MT) of tile a and the N rows of tile b, over HD columns. */
template <typename T, int HD, int MT, int N>
MB_DEVICE void att_mma_nt(float (&c)[MT][N / 8][4], const T *a, int row, const T *b)
{
    const int lane = mb_opaque(mb_lane());

    MB_UNROLL
    for (int k = 0; k < HD / 16; k++) {
        uint32_t x[MT][4];

        MB_UNROLL
        for (int m = 0; m < MT; m++)
            mb_ldmatrix<false>(
                x[m], a + att_piece<T, HD>(row + m * 16 + (lane & 15), 2 * k + (lane >> 4)));
        MB_UNROLL
        for (int n = 0; n < N / 16; n++) {
            uint32_t y[4];

            mb_ldmatrix<false>(y, b + att_piece<T, HD>(n * 16 + (lane & 7) + (lane >> 4) * 8,
                                                       2 * k + ((lane >> 3) & 1)));
            MB_UNROLL
            for (int m = 0; m < MT; m++) {
                mb_mma<T>(c[m][2 * n], x[m], y[0], y[1]);
                mb_mma<T>(c[m][2 * n + 1], x[m], y[2], y[3]);
            }
        }
    }
}

/* c += p b: p in accumulators, rounded to T; b's N rows are summed over. */
template <typename T, int HD, int MT, int N>
MB_DEVICE void att_mma_nn(float (&c)[MT][HD / 8][4], const float (&p)[MT][N / 8][4], const T *b)
{
    const int lane = mb_opaque(mb_lane());

    MB_UNROLL
    for (int k = 0; k < N / 16; k++) {
        uint32_t x[MT][4];

        MB_UNROLL
        for (int m = 0; m < MT; m++) {
            x[m][0] = mb_pair<T>(p[m][2 * k][0], p[m][2 * k][1]);
            x[m][1] = mb_pair<T>(p[m][2 * k][2], p[m][2 * k][3]);
            x[m][2] = mb_pair<T>(p[m][2 * k + 1][0], p[m][2 * k + 1][1]);
            x[m][3] = mb_pair<T>(p[m][2 * k + 1][2], p[m][2 * k + 1][3]);
        }
        MB_UNROLL
        for (int n = 0; n < HD / 16; n++) {
            uint32_t y[4];

            mb_ldmatrix<true>(y, b + att_piece<T, HD>(k * 16 + (lane & 15), 2 * n + (lane >> 4)));
            MB_UNROLL
            for (int m = 0; m < MT; m++) {
                mb_mma<T>(c[m][2 * n], x[m], y[0], y[1]);
                mb_mma<T>(c[m][2 * n + 1], x[m], y[2], y[3]);
            }
        }
    }
}

/* A lane's elements of an accumulator of scores, (m, n, e), are of query q0 and key k0 moved by
 *     rows are queries       q0 + 16 m + 8 (e / 2)    k0 + 8 n + e % 2
 *     columns are queries    q0 + 8 n + e % 2         k0 + 16 m + 8 (e / 2)
 * What depends on the call alone is asked once per tile, not per element. */
template <bool CAP, int MT, int N>
MB_DEVICE void att_scores_as(float (&s)[MT][N][4], const att_args &a)
{
    MB_UNROLL
    for (int m = 0; m < MT; m++)
        MB_UNROLL
    for (int n = 0; n < N; n++)
        MB_UNROLL
    for (int e = 0; e < 4; e++)
        s[m][n][e] = att_score_as<CAP>(a, s[m][n][e]);
}

template <bool COLUMNS, int MT, int N>
MB_DEVICE void att_add_bias(float (&s)[MT][N][4], const att_args &a, int head, int q0, int k0)
{
    MB_UNROLL
    for (int m = 0; m < MT; m++)
        MB_UNROLL
    for (int n = 0; n < N; n++)
        MB_UNROLL
    for (int e = 0; e < 4; e++) {
        const int x = 16 * m + e / 2 * 8, y = 8 * n + e % 2;

        s[m][n][e] += att_bias(a, head, q0 + (COLUMNS ? y : x), k0 + (COLUMNS ? x : y));
    }
}

/* Dots -> scores. */
template <bool COLUMNS, int MT, int N>
MB_DEVICE void att_scores(float (&s)[MT][N][4], const att_args &a, int head, int q0, int k0)
{
    if (a.bias != nullptr)
        att_add_bias<COLUMNS>(s, a, head, q0, k0);
    if (a.cap > 0.0f)
        att_scores_as<true>(s, a);
    else
        att_scores_as<false>(s, a);
}

/* What is not seen becomes `value`. */
template <bool COLUMNS, int MT, int N>
MB_DEVICE void att_mask(float (&s)[MT][N][4], const att_args &a, int k_len, int q0, int k0,
                        float value)
{
    constexpr int OUTER = COLUMNS ? N : MT, INNER = COLUMNS ? MT : N;

    MB_UNROLL
    for (int i = 0; i < OUTER; i++)
        MB_UNROLL
    for (int h = 0; h < 2; h++) {
        const att_span see = att_keys(a, k_len, q0 + (COLUMNS ? 8 * i + h : 16 * i + 8 * h));

        MB_UNROLL
        for (int j = 0; j < INNER; j++)
            MB_UNROLL
        for (int l = 0; l < 2; l++) {
            const int k = k0 + (COLUMNS ? 16 * j + 8 * l : 8 * j + l);
            float &x = COLUMNS ? s[j][i][2 * l + h] : s[i][j][2 * h + l];

            x = k >= see.lo && k < see.hi ? x : value;
        }
    }
}

/* Elements whose bit is not set become 0, the others grow. */
template <int MT, int N>
MB_DEVICE void att_drop(float (&s)[MT][N][4], const att_args &a, const uint32_t (&keep)[MT])
{
    MB_UNROLL
    for (int m = 0; m < MT; m++)
        MB_UNROLL
    for (int n = 0; n < N; n++)
        MB_UNROLL
    for (int e = 0; e < 4; e++)
        s[m][n][e] *= (keep[m] >> (4 * n + e) & 1u) != 0 ? a.kept : 0.0f;
}

/* An accumulator that is zero. */
template <int MT, int N> MB_DEVICE void att_clear(float (&c)[MT][N][4])
{
    MB_UNROLL
    for (int m = 0; m < MT; m++)
        MB_UNROLL
    for (int n = 0; n < N; n++)
        MB_UNROLL
    for (int i = 0; i < 4; i++)
        c[m][n][i] = 0.0f;
}

/* The warp's rows [row, row + 16 MT) of an accumulator to memory at `to` (row 0 of the block), as
 * far as there are `rows`. `own` is a tile whose rows of this number nobody but this warp uses. */
template <typename T, int HD, int MT>
MB_DEVICE void att_store(const float (&c)[MT][HD / 8][4], T *own, int row, T *to, int64_t ld,
                         int64_t vec, int rows, int hd, bool acc)
{
    const int lane = mb_lane(), g = lane / 4, t = lane % 4;

    if (acc || vec == 0) {
        MB_UNROLL
        for (int m = 0; m < MT; m++)
            MB_UNROLL
        for (int n = 0; n < HD / 8; n++)
            MB_UNROLL
        for (int i = 0; i < 4; i++) {
            const int r = row + m * 16 + g + i / 2 * 8, d = n * 8 + 2 * t + i % 2;

            if (r < rows && d < hd) {
                T *e = to + r * ld + d;

                *e = mb_from_f32<T>((acc ? mb_to_f32(*e) : 0.0f) + c[m][n][i]);
            }
        }
        return;
    }
    mb_syncwarp();
    MB_UNROLL
    for (int m = 0; m < MT; m++)
        MB_UNROLL
    for (int n = 0; n < HD / 8; n++)
        MB_UNROLL
    for (int i = 0; i < 2; i++)
        *reinterpret_cast<uint32_t *>(own + att_piece<T, HD>(row + m * 16 + g + i * 8, n) + 2 * t) =
            mb_pair<T>(c[m][n][2 * i], c[m][n][2 * i + 1]);
    mb_syncwarp();
    for (int i = lane; i < 16 * MT * (HD / 8); i += 32) {
        const int r = row + i / (HD / 8), p = i % (HD / 8);

        if (r < rows && p * 8 < hd)
            *reinterpret_cast<mb_vec<uint32_t, 4> *>(to + r * ld + p * 8) =
                *reinterpret_cast<const mb_vec<uint32_t, 4> *>(own + att_piece<T, HD>(r, p));
    }
}

/* ---- f32 products: 256 threads as 16 x 16 (y, x) -------------------------------------------- */

/* c[i][j] = (row y RA + i of a) . (row x + 16 j of b) */
template <int HD, int RA, int RB>
MB_DEVICE void att_dots(float (&c)[RA][RB], const float *a, const float *b, int hd)
{
    const int x = (int)threadIdx.x & 15, y = (int)threadIdx.x >> 4;

    MB_UNROLL
    for (int i = 0; i < RA; i++)
        MB_UNROLL
    for (int j = 0; j < RB; j++)
        c[i][j] = 0.0f;
    for (int d = 0; d < hd; d += 4) { /* what is beyond hd is zero */
        float p[RA][4], q[RB][4];

        MB_UNROLL
        for (int i = 0; i < RA; i++)
            mb_load(p[i], a + (y * RA + i) * (HD + 4) + d);
        MB_UNROLL
        for (int j = 0; j < RB; j++)
            mb_load(q[j], b + (x + 16 * j) * (HD + 4) + d);
        MB_UNROLL
        for (int i = 0; i < RA; i++)
            MB_UNROLL
        for (int j = 0; j < RB; j++)
            MB_UNROLL
        for (int e = 0; e < 4; e++)
            c[i][j] = fmaf(p[i][e], q[j][e], c[i][j]);
    }
}

/* Columns of thread x: HD / 16, in runs of att_run that lie 16 runs apart. */
template <int HD> constexpr int att_run = HD >= 64 ? 4 : HD / 16;

template <int HD> MB_DEVICE int att_column(int c) /* of its c-th */
{
    constexpr int N = att_run<HD>;

    return (c / N * 16 + ((int)threadIdx.x & 15)) * N + c % N;
}

/* c[i][..] += sum over n of p(n, y R + i) b(n, its columns); p has rows of 16 R + 4. */
template <int HD, int R, int N>
MB_DEVICE void att_add(float (&c)[R][HD / 16], const float *p, const float *b)
{
    constexpr int RUN = att_run<HD>;
    const int y = (int)threadIdx.x >> 4;

    for (int n = 0; n < N; n++) {
        float f[R];

        mb_load(f, p + n * (16 * R + 4) + y * R);
        MB_UNROLL
        for (int e = 0; e < HD / 16; e += RUN) {
            float w[RUN];

            mb_load(w, b + n * (HD + 4) + att_column<HD>(e));
            MB_UNROLL
            for (int i = 0; i < R; i++)
                MB_UNROLL
            for (int j = 0; j < RUN; j++)
                c[i][e + j] = fmaf(f[i], w[j], c[i][e + j]);
        }
    }
}

/* c to memory: row y R + i, as far as there are `rows`. */
template <int HD, int R>
MB_DEVICE void att_store_f32(const float (&c)[R][HD / 16], float *to, int64_t ld, int rows, int hd,
                             float factor, bool acc)
{
    const int y = (int)threadIdx.x >> 4;

    MB_UNROLL
    for (int i = 0; i < R; i++)
        MB_UNROLL
    for (int e = 0; e < HD / 16; e++) {
        const int r = y * R + i, d = att_column<HD>(e);

        if (r < rows && d < hd) {
            float *at = to + r * ld + d;

            *at = (acc ? *at : 0.0f) + c[i][e] * factor;
        }
    }
}

/* ---- rows that belong to no sequence -------------------------------------------------------- */

enum { ATT_GAP_ROWS = 256 };

template <typename T>
MB_GLOBAL void MB_BOUNDS(ATT_GAP_ROWS)
    att_gaps_kernel(mb_mat<T> t, int n_seq, const int32_t *start, const int32_t *len)
{
    MB_SHARED(int, owned, ATT_GAP_ROWS);
    const int64_t first = (int64_t)blockIdx.x * ATT_GAP_ROWS, mine = first + threadIdx.x;
    int found = 0;

    for (int s = 0; s < n_seq; s++)
        found |= mine >= start[s] && mine < (int64_t)start[s] + len[s];
    owned[threadIdx.x] = found;
    __syncthreads();
    for (int r = mb_warp(); r < ATT_GAP_ROWS && first + r < t.rows; r += ATT_GAP_ROWS / 32)
        if (owned[r] == 0)
            for (int64_t c = mb_lane(); c < t.cols; c += 32)
                t.row(first + r)[c] = mb_from_f32<T>(0.0f);
}

template <typename T>
static inline mb_status att_zero_gaps(const mb_exec *ex, const mb_tensor *t, int64_t n_seq,
                                      const int32_t *start, const int32_t *len)
{
    if (t != nullptr)
        MB_LAUNCH(ex, (att_gaps_kernel<T>), mb_div_up(mb_rows(t), ATT_GAP_ROWS), ATT_GAP_ROWS, 0,
                  mb_mat_of<T>(t), (int)n_seq, start, len);
    return MB_OK;
}

#endif
