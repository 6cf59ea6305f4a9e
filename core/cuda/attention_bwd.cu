/* core/cuda/attention_bwd.cu - attention, backward.
 *
 *     P = exp(S' - lse), S' = cap(scale Q K^T)        recomputed tile by tile
 *     dV = drop(P)^T dO,  dP = drop(dO V^T)
 *     dS = P (dP - D) cap'(S),  D = rowsum(dO * O)    the softmax's backward
 *     dQ = scale dS K,  dK = scale dS^T Q
 *
 * Three launches: D into workspace; dK and dV by tiles of keys, which meet all query tiles of all
 * heads that share them; dQ by tiles of queries. S and dP are computed twice, seven products instead
 * of five: the price of sums without atomics, in an order that depends on shapes alone.
 *
 * 16-bit: one tile stays (keys, or queries), the other streams by. dK, dV take the transposed scores
 * S^T = K Q^T: so P^T and dS^T are in place to be left operands, as dS is for dQ. Of what streams,
 * the tensor that is used first and last (Q, or K) has two buffers, the other (dO, or V) one, which
 * is filled again during the last product. For heads wider than 128 dK and dV together do not fit
 * into registers: one launch for each.
 */
#include "core/cuda/attention_tile.h"

namespace {

template <typename T> struct tensors {
    att_mat<const T> q, k, v, d_o;
    const float *lse, *delta; /* (heads, Tq) */
    int64_t lse_stride, delta_stride;
};

/* ---- D -------------------------------------------------------------------------------------- */

enum { DELTA_THREADS = 256, DELTA_LANES = 8 };

/* 8 lanes for a row of a head, 8 elements each at a time. */
template <typename T>
MB_GLOBAL void MB_BOUNDS(DELTA_THREADS)
    delta_kernel(float *delta, int64_t stride, att_mat<const T> o, att_mat<const T> d_o,
                 int64_t rows, int heads, int hd)
{
    constexpr int N = 16 / (int)sizeof(T);
    const int64_t unit = ((int64_t)blockIdx.x * DELTA_THREADS + threadIdx.x) / DELTA_LANES;
    const int lane = (int)threadIdx.x % DELTA_LANES;
    const int64_t row = unit / heads;
    const int head = (int)(unit % heads);
    float sum = 0.0f;

    if (row < rows) {
        const T *x = o.at((int)row, head, hd), *y = d_o.at((int)row, head, hd);

        for (int c = lane * 8; c < hd; c += DELTA_LANES * 8)
            MB_UNROLL
        for (int i = 0; i < 8; i += N) {
            float a[N] = {}, b[N] = {};

            if (o.vec != 0 && d_o.vec != 0) {
                if (c + i < hd) {
                    mb_load(a, x + c + i);
                    mb_load(b, y + c + i);
                }
            } else {
                MB_UNROLL
                for (int e = 0; e < N; e++) {
                    a[e] = c + i + e < hd ? mb_to_f32(x[c + i + e]) : 0.0f;
                    b[e] = c + i + e < hd ? mb_to_f32(y[c + i + e]) : 0.0f;
                }
            }
            MB_UNROLL
            for (int e = 0; e < N; e++)
                sum = fmaf(a[e], b[e], sum);
        }
    }
    MB_UNROLL
    for (int m = DELTA_LANES / 2; m > 0; m /= 2)
        sum += mb_shfl_xor(sum, m);
    if (lane == 0 && row < rows)
        delta[head * stride + row] = sum;
}

/* ---- places --------------------------------------------------------------------------------- */

/* A block's tile of keys of one key head, or of queries of one head. */
struct place {
    att_seq seq;
    int head, from, rows;
};

MB_DEVICE place key_place(const att_args &a, int tile, int block)
{
    const int i = block / a.kv_heads;
    place p;

    p.head = block % a.kv_heads;
    p.seq = att_sequence(a, i % a.n_seq);
    p.from = i / a.n_seq * tile; /* the first keys are seen by most when causal */
    p.rows = att_least(tile, p.seq.k_len - p.from);
    return p;
}

MB_DEVICE place query_place(const att_args &a, int tile)
{
    const int i = (int)(blockIdx.x / (unsigned)a.heads);
    place p;

    p.head = (int)(blockIdx.x % (unsigned)a.heads);
    p.seq = att_sequence(a, i % a.n_seq);
    p.from = (a.blocks - 1 - i / a.n_seq) * tile;
    p.rows = att_least(tile, p.seq.q_len - p.from);
    return p;
}

/* A tile of queries that streams by, of the heads that share a key head one after the other. */
struct stop {
    int head, q0;
};

/* The next; queries [ends.lo, ends.hi), in whole tiles, are to be visited. */
MB_DEVICE stop stop_after(const att_span &ends, const stop &s, int tile)
{
    const int q0 = s.q0 + tile;

    if (q0 < ends.hi)
        return {s.head, q0};
    return {s.head + 1, ends.lo};
}

/* Scores (dots) and dP -> dropped probabilities and gradients of the scores, of one element (f32). */
MB_DEVICE void softmax_backward(const att_args &a, float &s, float &dp, float lse, float delta,
                                float keep, bool seen, int head, int q_pos, int k_pos)
{
    const float score = att_score(a, s, head, q_pos, k_pos);
    const float p = expf(score - lse);

    dp = seen ? p * (dp * keep - delta) * att_slope(a, score) : 0.0f;
    s = seen ? p * keep : 0.0f;
}

/* The same of one element (16-bit) when dP is dropped already and P is not yet. */
MB_DEVICE void softmax_backward_2(const att_args &a, float &s, float &dp, float lse, float delta)
{
    const float p = mb_exp2(s - lse);

    dp = p * (dp - delta) * att_slope(a, s);
    s = p;
}

/* lse in the scores' units and D of a query row; one that is not there has no probabilities. */
template <typename T>
MB_DEVICE void row_numbers(const att_args &a, const tensors<T> &t, int head, int64_t row,
                           bool there, float &lse, float &delta)
{
    lse = there ? t.lse[head * t.lse_stride + row] * a.unit : INFINITY;
    delta = there ? t.delta[head * t.delta_stride + row] : 0.0f;
}

/* ---- 16-bit: dK, dV ------------------------------------------------------------------------- */

enum { DK = 1, DV = 2 };

/* What thread i < 2 BQ fetches of a stop: lse of its row i, or D of row i - BQ. */
template <int BQ, typename T>
MB_DEVICE float row_number(const att_args &a, const tensors<T> &t, const att_seq &seq,
                           const stop &s)
{
    const int i = (int)threadIdx.x, r = s.q0 + i % BQ;
    const bool there = r < seq.q_len;

    if (i < BQ)
        return there ? t.lse[s.head * t.lse_stride + seq.q_start + r] * a.unit : INFINITY;
    return there ? t.delta[s.head * t.delta_stride + seq.q_start + r] : 0.0f;
}

template <typename T, int HD, int MT, int BQ, int WHAT>
MB_GLOBAL void MB_BOUNDS(ATT_TC, 1)
    keys_16(att_args a, att_mat<T> dk, att_mat<T> dv, tensors<T> t, bool acc)
{
    constexpr int BK = 16 * MT * ATT_WARPS, NQ = BQ / 8;
    constexpr int WIDE_K = WHAT & DK ? HD : 8, WIDE_V = WHAT & DV ? HD : 8;
    MB_SMEM(att_line, tiles);
    T *sk = reinterpret_cast<T *>(tiles), *sq = sk + BK * HD, *sdo = sq + 2 * BQ * HD;
    float *numbers = reinterpret_cast<float *>(sdo + BQ * HD); /* twice BQ of lse, BQ of D */
    int *ends = reinterpret_cast<int *>(numbers + 4 * BQ);     /* of the queries to visit */
    T *sv = reinterpret_cast<T *>(ends + 4);                   /* only for dK */
    const place p = key_place(a, BK, (int)blockIdx.x);

    if (p.rows <= 0)
        return;
    const att_seq &seq = p.seq;
    const int row = mb_warp() * 16 * MT;
    const att_span visit = att_query_tiles(a, seq, p.from, p.from + p.rows, BQ);
    const int stops = (visit.hi - visit.lo) * a.group;
    float sum_k[MT][WIDE_K / 8][4], sum_v[MT][WIDE_V / 8][4];

    stop here = {p.head * a.group, visit.lo * BQ};

    att_clear(sum_k);
    att_clear(sum_v);
    if (stops > 0) {
        att_load<T, HD, BK, ATT_TC>(sk, t.k.at(seq.k_start + p.from, p.head, a.hd), t.k.stride,
                                    t.k.vec, p.rows, a.hd);
        if (WHAT & DK)
            att_load<T, HD, BK, ATT_TC>(sv, t.v.at(seq.k_start + p.from, p.head, a.hd), t.v.stride,
                                        t.v.vec, p.rows, a.hd);
        att_load<T, HD, BQ, ATT_TC>(sq, t.q.at(seq.q_start + here.q0, here.head, a.hd), t.q.stride,
                                    t.q.vec, seq.q_len - here.q0, a.hd);
        mb_cp_commit();
        att_load<T, HD, BQ, ATT_TC>(sdo, t.d_o.at(seq.q_start + here.q0, here.head, a.hd),
                                    t.d_o.stride, t.d_o.vec, seq.q_len - here.q0, a.hd);
        mb_cp_commit();
        if (threadIdx.x < 2 * BQ)
            numbers[threadIdx.x] = row_number<BQ>(a, t, seq, here);
        if (threadIdx.x < 2)
            ends[threadIdx.x] = threadIdx.x == 0 ? visit.lo * BQ : visit.hi * BQ;
    }
    for (int i = 0; i < stops; i++) {
        const T *q = sq + i % 2 * BQ * HD;
        const float *lse = numbers + i % 2 * 2 * BQ, *delta = lse + BQ;
        float s[MT][NQ][4], dp[MT][NQ][4];
        uint32_t keep[MT]; /* a bit for each score */
        float number = 0.0f;

        mb_cp_wait<1>();
        __syncthreads(); /* Q is here, and nobody reads the one before */
        const stop next = stop_after({ends[0], ends[1]}, here, BQ);
        if (i + 1 < stops) {
            att_load<T, HD, BQ, ATT_TC>(sq + (i + 1) % 2 * BQ * HD,
                                        t.q.at(seq.q_start + next.q0, next.head, a.hd), t.q.stride,
                                        t.q.vec, seq.q_len - next.q0, a.hd);
            if (threadIdx.x < 2 * BQ)
                number = row_number<BQ>(a, t, seq, next);
        }
        mb_cp_commit();
        if (a.dropout > 0.0f) {
            const uint64_t key = mb_rng_key(a.seed, a.site, (uint64_t)mb_opaque(here.head));

            MB_UNROLL
            for (int m = 0; m < MT; m++)
                keep[m] = 0;
            MB_ROLLED
            for (int n = 0; n < NQ; n++) {
                const int r = n * 8 + mb_opaque(mb_lane()) % 4 * 2, last = seq.q_len - here.q0 - 1;
                const int pos[2] = {seq.offset + here.q0 + r, seq.offset + here.q0 + r + 1};
                const int ordinal[2] = {a.ordinal[seq.q_start + here.q0 + att_least(r, last)],
                                        a.ordinal[seq.q_start + here.q0 + att_least(r + 1, last)]};

                MB_UNROLL
                for (int m = 0; m < MT; m++)
                    keep[m] |= att_keep_columns(a, key, ordinal, pos, p.from + row + m * 16)
                               << 4 * n;
            }
        }
        att_clear(s);
        att_mma_nt<T, HD, MT, BQ>(s, sk, row, q);
        if (i + 1 < stops && threadIdx.x < 2 * BQ)
            numbers[(i + 1) % 2 * 2 * BQ + threadIdx.x] = number;
        mb_cp_wait<1>();
        __syncthreads(); /* dO is here */
        att_clear(dp);
        if (WHAT & DK)
            att_mma_nt<T, HD, MT, BQ>(dp, sv, row, sdo);

        const int lane = mb_opaque(mb_lane()), q1 = lane % 4 * 2; /* its first query */
        const int pos = seq.offset + here.q0 + q1, k0 = p.from + row + lane / 4;

        if (a.dropout > 0.0f)
            att_drop(dp, a, keep);
        att_scores<true>(s, a, here.head, pos, k0);
        MB_UNROLL
        for (int n = 0; n < NQ; n++)
            MB_UNROLL
        for (int h = 0; h < 2; h++) {
            const float l = lse[n * 8 + q1 + h], d = delta[n * 8 + q1 + h];

            MB_UNROLL
            for (int m = 0; m < MT; m++) {
                softmax_backward_2(a, s[m][n][h], dp[m][n][h], l, d);
                softmax_backward_2(a, s[m][n][h + 2], dp[m][n][h + 2], l, d);
            }
        }
        if (!att_all_seen(a, seq, here.q0, att_least(BQ, seq.q_len - here.q0), p.from, BK)) {
            att_mask<true>(s, a, seq.k_len, pos, k0, 0.0f);
            att_mask<true>(dp, a, seq.k_len, pos, k0, 0.0f);
        }
        if (a.dropout > 0.0f)
            att_drop(s, a, keep);
        if constexpr ((WHAT & DV) != 0)
            att_mma_nn<T, HD, MT, BQ>(sum_v, s, sdo);
        __syncthreads(); /* nobody reads this dO */
        if (i + 1 < stops) {
            att_load<T, HD, BQ, ATT_TC>(sdo, t.d_o.at(seq.q_start + next.q0, next.head, a.hd),
                                        t.d_o.stride, t.d_o.vec, seq.q_len - next.q0, a.hd);
        }
        mb_cp_commit();
        if constexpr ((WHAT & DK) != 0)
            att_mma_nn<T, HD, MT, BQ>(sum_k, dp, q);
        here = next;
    }
    mb_cp_wait<0>();
    const place end =
        key_place(a, BK, mb_opaque((int)blockIdx.x)); /* p again: no registers in the loop */
    if constexpr ((WHAT & DK) != 0) {
        MB_UNROLL
        for (int m = 0; m < MT; m++)
            MB_UNROLL
        for (int n = 0; n < HD / 8; n++)
            MB_UNROLL
        for (int e = 0; e < 4; e++)
            sum_k[m][n][e] *= a.scale;
        if (dk.data != nullptr)
            att_store<T, HD, MT>(sum_k, sv, row, dk.at(end.seq.k_start + end.from, end.head, a.hd),
                                 dk.stride, dk.vec, end.rows, a.hd, acc);
    }
    if constexpr ((WHAT & DV) != 0)
        if (dv.data != nullptr)
            att_store<T, HD, MT>(sum_v, sk, row, dv.at(end.seq.k_start + end.from, end.head, a.hd),
                                 dv.stride, dv.vec, end.rows, a.hd, acc);
}

/* ---- 16-bit: dQ ----------------------------------------------------------------------------- */

template <typename T, int HD, int MT, int BK>
MB_GLOBAL void MB_BOUNDS(ATT_TC, 1) queries_16(att_args a, att_mat<T> dq, tensors<T> t, bool acc)
{
    constexpr int BQ = 16 * MT * ATT_WARPS, NK = BK / 8;
    MB_SMEM(att_line, tiles);
    T *sq = reinterpret_cast<T *>(tiles), *sdo = sq + BQ * HD, *sk = sdo + BQ * HD;
    T *sv = sk + 2 * BK * HD;
    const place p = query_place(a, BQ);

    if (p.rows <= 0)
        return;
    const att_seq &seq = p.seq;
    const int kv = p.head / a.group, row = mb_warp() * 16 * MT;
    const int g = mb_lane() / 4, c2 = mb_lane() % 4 * 2;
    const int row0 = seq.q_start + p.from;
    const att_span visit = att_key_tiles(a, seq, p.from, p.from + p.rows, BK);
    const int pos0 = seq.offset + p.from + row + g; /* of row g of the warp */
    const uint64_t key = mb_rng_key(a.seed, a.site, (uint64_t)p.head);
    float sum[MT][HD / 8][4], lse[MT][2], delta[MT][2];

    att_clear(sum);
    if (visit.lo < visit.hi) {
        const int k_row = seq.k_start + visit.lo * BK;

        att_load<T, HD, BQ, ATT_TC>(sq, t.q.at(row0, p.head, a.hd), t.q.stride, t.q.vec, p.rows,
                                    a.hd);
        att_load<T, HD, BQ, ATT_TC>(sdo, t.d_o.at(row0, p.head, a.hd), t.d_o.stride, t.d_o.vec,
                                    p.rows, a.hd);
        att_load<T, HD, BK, ATT_TC>(sk, t.k.at(k_row, kv, a.hd), t.k.stride, t.k.vec,
                                    seq.k_len - visit.lo * BK, a.hd);
        mb_cp_commit();
        att_load<T, HD, BK, ATT_TC>(sv, t.v.at(k_row, kv, a.hd), t.v.stride, t.v.vec,
                                    seq.k_len - visit.lo * BK, a.hd);
        mb_cp_commit();
    }
    MB_UNROLL
    for (int m = 0; m < MT; m++)
        MB_UNROLL
    for (int h = 0; h < 2; h++) {
        const int r = row + m * 16 + g + h * 8;

        row_numbers(a, t, p.head, row0 + r, r < p.rows, lse[m][h], delta[m][h]);
    }
    for (int j = visit.lo; j < visit.hi; j++) {
        const int k0 = j * BK, stage = (j - visit.lo) % 2;
        const T *k = sk + stage * BK * HD;
        float s[MT][NK][4], dp[MT][NK][4];
        uint32_t keep[MT]; /* a bit for each score */

        mb_cp_wait<1>();
        __syncthreads(); /* K is here, and nobody reads the one before */
        if (j + 1 < visit.hi)
            att_load<T, HD, BK, ATT_TC>(sk + (1 - stage) * BK * HD,
                                        t.k.at(seq.k_start + k0 + BK, kv, a.hd), t.k.stride,
                                        t.k.vec, seq.k_len - k0 - BK, a.hd);
        mb_cp_commit();
        if (a.dropout > 0.0f)
            att_keep_tile<BK>(keep, a, key, seq, p.from, p.rows, row, k0);
        att_clear(s);
        att_mma_nt<T, HD, MT, BK>(s, sq, row, k);
        mb_cp_wait<1>();
        __syncthreads(); /* V is here */
        att_clear(dp);
        att_mma_nt<T, HD, MT, BK>(dp, sdo, row, sv);
        __syncthreads(); /* nobody reads this V */
        if (j + 1 < visit.hi)
            att_load<T, HD, BK, ATT_TC>(sv, t.v.at(seq.k_start + k0 + BK, kv, a.hd), t.v.stride,
                                        t.v.vec, seq.k_len - k0 - BK, a.hd);
        mb_cp_commit();

        if (a.dropout > 0.0f)
            att_drop(dp, a, keep);
        att_scores<false>(s, a, p.head, pos0, k0 + c2);
        MB_UNROLL
        for (int m = 0; m < MT; m++)
            MB_UNROLL
        for (int n = 0; n < NK; n++)
            MB_UNROLL
        for (int e = 0; e < 4; e++)
            softmax_backward_2(a, s[m][n][e], dp[m][n][e], lse[m][e / 2], delta[m][e / 2]);
        if (!att_all_seen(a, seq, p.from, p.rows, k0, BK))
            att_mask<false>(dp, a, seq.k_len, pos0, k0 + c2, 0.0f);
        att_mma_nn<T, HD, MT, BK>(sum, dp, k);
    }
    mb_cp_wait<0>();
    MB_UNROLL
    for (int m = 0; m < MT; m++)
        MB_UNROLL
    for (int n = 0; n < HD / 8; n++)
        MB_UNROLL
    for (int e = 0; e < 4; e++)
        sum[m][n][e] *= a.scale;
    att_store<T, HD, MT>(sum, sq, row, dq.at(row0, p.head, a.hd), dq.stride, dq.vec, p.rows, a.hd,
                         acc);
}

/* ---- f32 ------------------------------------------------------------------------------------ */

/* Threads (y, x): keys y RK + j, queries x + 16 i. */
template <int HD, int BK, int BQ>
MB_GLOBAL void MB_BOUNDS(ATT_F32, 1)
    keys_f32(att_args a, att_mat<float> dk, att_mat<float> dv, tensors<float> t, bool acc)
{
    constexpr int RK = BK / 16, RQ = BQ / 16;
    MB_SMEM(att_line, tiles);
    float *sk = reinterpret_cast<float *>(tiles), *sv = sk + BK * (HD + 4);
    float *sq = sv + BK * (HD + 4), *sdo = sq + BQ * (HD + 4);
    float *sp = sdo + BQ * (HD + 4), *sds = sp + BQ * (BK + 4);
    const place p = key_place(a, BK, (int)blockIdx.x);

    if (p.rows <= 0)
        return;
    const att_seq &seq = p.seq;
    const int x = (int)threadIdx.x & 15, y = (int)threadIdx.x >> 4;
    const att_span visit = att_query_tiles(a, seq, p.from, p.from + p.rows, BQ);
    const int stops = (visit.hi - visit.lo) * a.group;
    float sum_k[RK][HD / 16] = {}, sum_v[RK][HD / 16] = {};
    stop here = {p.head * a.group, visit.lo * BQ};

    att_load<float, HD, BK, ATT_F32>(sk, t.k.at(seq.k_start + p.from, p.head, a.hd), t.k.stride,
                                     t.k.vec, p.rows, a.hd);
    att_load<float, HD, BK, ATT_F32>(sv, t.v.at(seq.k_start + p.from, p.head, a.hd), t.v.stride,
                                     t.v.vec, p.rows, a.hd);
    for (int i = 0; i < stops; i++) {
        const uint64_t key = mb_rng_key(a.seed, a.site, (uint64_t)here.head);
        float s[RK][RQ], dp[RK][RQ];

        __syncthreads(); /* nobody reads what was here before */
        att_load<float, HD, BQ, ATT_F32>(sq, t.q.at(seq.q_start + here.q0, here.head, a.hd),
                                         t.q.stride, t.q.vec, seq.q_len - here.q0, a.hd);
        att_load<float, HD, BQ, ATT_F32>(sdo, t.d_o.at(seq.q_start + here.q0, here.head, a.hd),
                                         t.d_o.stride, t.d_o.vec, seq.q_len - here.q0, a.hd);
        mb_cp_commit();
        mb_cp_wait<0>();
        __syncthreads();
        att_dots<HD>(s, sk, sq, a.hd);
        att_dots<HD>(dp, sv, sdo, a.hd);
        MB_UNROLL
        for (int n = 0; n < RQ; n++) {
            const int r = x + 16 * n, pos = seq.offset + here.q0 + r;
            const att_span see = att_keys(a, seq.k_len, pos);
            float lse, delta, column[RK];

            row_numbers(a, t, here.head, seq.q_start + here.q0 + r, r < seq.q_len - here.q0, lse,
                        delta);
            MB_UNROLL
            for (int j = 0; j < RK; j++) {
                const int kp = p.from + y * RK + j;
                const float keep =
                    a.dropout > 0.0f
                        ? att_keep_one(a, key,
                                       a.ordinal[seq.q_start + here.q0 +
                                                 att_least(r, seq.q_len - here.q0 - 1)],
                                       pos, kp)
                        : 1.0f;

                softmax_backward(a, s[j][n], dp[j][n], lse, delta, keep,
                                 kp >= see.lo && kp < see.hi, here.head, pos, kp);
                column[j] = s[j][n];
            }
            mb_store(sp + r * (BK + 4) + y * RK, column);
            MB_UNROLL
            for (int j = 0; j < RK; j++)
                column[j] = dp[j][n];
            mb_store(sds + r * (BK + 4) + y * RK, column);
        }
        __syncthreads();
        att_add<HD, RK, BQ>(sum_v, sp, sdo);
        att_add<HD, RK, BQ>(sum_k, sds, sq);
        here = stop_after({visit.lo * BQ, visit.hi * BQ}, here, BQ);
    }
    mb_cp_wait<0>();
    if (dk.data != nullptr)
        att_store_f32<HD>(sum_k, dk.at(seq.k_start + p.from, p.head, a.hd), dk.stride, p.rows, a.hd,
                          a.scale, acc);
    if (dv.data != nullptr)
        att_store_f32<HD>(sum_v, dv.at(seq.k_start + p.from, p.head, a.hd), dv.stride, p.rows, a.hd,
                          1.0f, acc);
}

/* Threads (y, x): queries y RQ + i, keys x + 16 j. */
template <int HD, int BQ, int BK>
MB_GLOBAL void MB_BOUNDS(ATT_F32, 1)
    queries_f32(att_args a, att_mat<float> dq, tensors<float> t, bool acc)
{
    constexpr int RQ = BQ / 16, RK = BK / 16;
    MB_SMEM(att_line, tiles);
    float *sq = reinterpret_cast<float *>(tiles), *sdo = sq + BQ * (HD + 4);
    float *sk = sdo + BQ * (HD + 4), *sv = sk + BK * (HD + 4), *sds = sv + BK * (HD + 4);
    const place p = query_place(a, BQ);

    if (p.rows <= 0)
        return;
    const att_seq &seq = p.seq;
    const int kv = p.head / a.group;
    const int x = (int)threadIdx.x & 15, y = (int)threadIdx.x >> 4;
    const int row0 = seq.q_start + p.from;
    const att_span visit = att_key_tiles(a, seq, p.from, p.from + p.rows, BK);
    const uint64_t key = mb_rng_key(a.seed, a.site, (uint64_t)p.head);
    float sum[RQ][HD / 16] = {}, lse[RQ], delta[RQ];
    int ordinal[RQ];

    MB_UNROLL
    for (int i = 0; i < RQ; i++) {
        const int r = y * RQ + i;

        row_numbers(a, t, p.head, row0 + r, r < p.rows, lse[i], delta[i]);
        ordinal[i] = a.dropout > 0.0f ? a.ordinal[row0 + att_least(r, p.rows - 1)] : 0;
    }
    att_load<float, HD, BQ, ATT_F32>(sq, t.q.at(row0, p.head, a.hd), t.q.stride, t.q.vec, p.rows,
                                     a.hd);
    att_load<float, HD, BQ, ATT_F32>(sdo, t.d_o.at(row0, p.head, a.hd), t.d_o.stride, t.d_o.vec,
                                     p.rows, a.hd);
    for (int j = visit.lo; j < visit.hi; j++) {
        const int k0 = j * BK;
        float s[RQ][RK], dp[RQ][RK];

        __syncthreads();
        att_load<float, HD, BK, ATT_F32>(sk, t.k.at(seq.k_start + k0, kv, a.hd), t.k.stride,
                                         t.k.vec, seq.k_len - k0, a.hd);
        att_load<float, HD, BK, ATT_F32>(sv, t.v.at(seq.k_start + k0, kv, a.hd), t.v.stride,
                                         t.v.vec, seq.k_len - k0, a.hd);
        mb_cp_commit();
        mb_cp_wait<0>();
        __syncthreads();
        att_dots<HD>(s, sq, sk, a.hd);
        att_dots<HD>(dp, sdo, sv, a.hd);
        MB_UNROLL
        for (int n = 0; n < RK; n++) {
            const int kp = k0 + x + 16 * n;
            float column[RQ];

            MB_UNROLL
            for (int i = 0; i < RQ; i++) {
                const int pos = seq.offset + p.from + y * RQ + i;
                const att_span see = att_keys(a, seq.k_len, pos);
                const float keep =
                    a.dropout > 0.0f ? att_keep_one(a, key, ordinal[i], pos, kp) : 1.0f;

                softmax_backward(a, s[i][n], dp[i][n], lse[i], delta[i], keep,
                                 kp >= see.lo && kp < see.hi, p.head, pos, kp);
                column[i] = dp[i][n];
            }
            mb_store(sds + (x + 16 * n) * (BQ + 4) + y * RQ, column);
        }
        __syncthreads();
        att_add<HD, RQ, BK>(sum, sds, sk);
    }
    mb_cp_wait<0>();
    att_store_f32<HD>(sum, dq.at(row0, p.head, a.hd), dq.stride, p.rows, a.hd, a.scale, acc);
}

/* ---- launches ------------------------------------------------------------------------------- */

struct call {
    mb_tensor *dq, *dk, *dv;
    const mb_tensor *d_o, *q, *k, *v, *o, *lse;
    float *delta;
    const mb_attention *at;
    bool acc;
};

template <typename T> tensors<T> tensors_of(const call *c)
{
    const int64_t hd = c->at->head_dim;
    tensors<T> t;

    t.q = att_mat_of<const T>(c->q, hd);
    t.k = att_mat_of<const T>(c->k, hd);
    t.v = att_mat_of<const T>(c->v, hd);
    t.d_o = att_mat_of<const T>(c->d_o, hd);
    t.lse = mb_f32(c->lse);
    t.lse_stride = mb_row_stride(c->lse);
    t.delta = c->delta;
    t.delta_stride = mb_rows(c->q);
    return t;
}

template <typename T, int HD, int MT, int BQ, int WHAT>
mb_status launch_keys_16(const mb_exec *ex, const call *c)
{
    constexpr int BK = 16 * MT * ATT_WARPS;
    const int64_t hd = c->at->head_dim;
    const att_args a = att_args_of<T>(c->at, BK);

    MB_LAUNCH(ex, (keys_16<T, HD, MT, BQ, WHAT>), a.blocks * c->at->n_seq * c->at->kv_heads, ATT_TC,
              ((WHAT & DK ? 2 : 1) * BK + 3 * BQ) * HD * sizeof(T) + (4 * BQ + 4) * sizeof(float),
              a, att_mat_of<T>(c->dk, hd), att_mat_of<T>(c->dv, hd), tensors_of<T>(c), c->acc);
    return MB_OK;
}

template <typename T, int HD, int MT, int BK>
mb_status launch_queries_16(const mb_exec *ex, const call *c)
{
    constexpr int BQ = 16 * MT * ATT_WARPS;
    const att_args a = att_args_of<T>(c->at, BQ);

    MB_LAUNCH(ex, (queries_16<T, HD, MT, BK>), a.blocks * c->at->n_seq * c->at->heads, ATT_TC,
              (2 * BQ + 3 * BK) * HD * sizeof(T), a, att_mat_of<T>(c->dq, c->at->head_dim),
              tensors_of<T>(c), c->acc);
    return MB_OK;
}

template <int HD, int BK, int BQ> mb_status launch_keys_f32(const mb_exec *ex, const call *c)
{
    const int64_t hd = c->at->head_dim;
    const att_args a = att_args_of<float>(c->at, BK);

    MB_LAUNCH(ex, (keys_f32<HD, BK, BQ>), a.blocks * c->at->n_seq * c->at->kv_heads, ATT_F32,
              (2 * (BK + BQ) * (HD + 4) + 2 * BQ * (BK + 4)) * sizeof(float), a,
              att_mat_of<float>(c->dk, hd), att_mat_of<float>(c->dv, hd), tensors_of<float>(c),
              c->acc);
    return MB_OK;
}

template <int HD, int BQ, int BK> mb_status launch_queries_f32(const mb_exec *ex, const call *c)
{
    const att_args a = att_args_of<float>(c->at, BQ);

    MB_LAUNCH(ex, (queries_f32<HD, BQ, BK>), a.blocks * c->at->n_seq * c->at->heads, ATT_F32,
              (2 * (BK + BQ) * (HD + 4) + BK * (BQ + 4)) * sizeof(float), a,
              att_mat_of<float>(c->dq, c->at->head_dim), tensors_of<float>(c), c->acc);
    return MB_OK;
}

/* Tiles by head_dim: accumulators within 255 registers; shared memory within 64 KiB up to
 * head_dim 128, within 99 KiB above. */
template <typename T> mb_status keys(const mb_exec *ex, const call *c)
{
    const int64_t hd = c->at->head_dim;

    if constexpr (sizeof(T) == 4)
        return hd <= 32    ? launch_keys_f32<32, 64, 32>(ex, c)
               : hd <= 64  ? launch_keys_f32<64, 32, 32>(ex, c)
               : hd <= 128 ? launch_keys_f32<128, 32, 16>(ex, c)
                           : launch_keys_f32<256, 16, 16>(ex, c);
    else if (hd <= 128)
        return hd <= 32   ? launch_keys_16<T, 32, 2, 32, DK | DV>(ex, c)
               : hd <= 64 ? launch_keys_16<T, 64, 1, 64, DK | DV>(ex, c)
               : hd <= 96 ? launch_keys_16<T, 96, 1, 32, DK | DV>(ex, c)
                          : launch_keys_16<T, 128, 1, 32, DK | DV>(ex, c);
    if constexpr (sizeof(T) == 2) {
        if (c->dk != nullptr)
            MB_TRY(hd <= 192 ? (launch_keys_16<T, 192, 1, 32, DK>(ex, c))
                             : (launch_keys_16<T, 256, 1, 16, DK>(ex, c)));
        if (c->dv != nullptr)
            MB_TRY(hd <= 192 ? (launch_keys_16<T, 192, 1, 32, DV>(ex, c))
                             : (launch_keys_16<T, 256, 1, 32, DV>(ex, c)));
    }
    return MB_OK;
}

template <typename T> mb_status queries(const mb_exec *ex, const call *c)
{
    const int64_t hd = c->at->head_dim;

    if constexpr (sizeof(T) == 4)
        return hd <= 32    ? launch_queries_f32<32, 64, 32>(ex, c)
               : hd <= 64  ? launch_queries_f32<64, 64, 32>(ex, c)
               : hd <= 128 ? launch_queries_f32<128, 32, 16>(ex, c)
                           : launch_queries_f32<256, 16, 16>(ex, c);
    else
        return hd <= 32    ? launch_queries_16<T, 32, 2, 64>(ex, c)
               : hd <= 64  ? launch_queries_16<T, 64, 2, 32>(ex, c)
               : hd <= 96  ? launch_queries_16<T, 96, 1, 64>(ex, c)
               : hd <= 128 ? launch_queries_16<T, 128, 1, 32>(ex, c)
               : hd <= 192 ? launch_queries_16<T, 192, 1, 32>(ex, c)
                           : launch_queries_16<T, 256, 1, 16>(ex, c);
}

template <typename T> mb_status run(const mb_exec *ex, const call *c)
{
    const mb_attention *at = c->at;
    const int64_t hd = at->head_dim, rows = mb_rows(c->q);

    if (!c->acc) {
        MB_TRY(att_zero_gaps<T>(ex, c->dq, at->n_seq, at->q_start, at->q_len));
        MB_TRY(att_zero_gaps<T>(ex, c->dk, at->n_seq, at->k_start, at->k_len));
        MB_TRY(att_zero_gaps<T>(ex, c->dv, at->n_seq, at->k_start, at->k_len));
    }
    if (at->n_seq == 0 || at->max_len == 0)
        return MB_OK;
    MB_LAUNCH(ex, (delta_kernel<T>), mb_div_up(rows * at->heads * DELTA_LANES, DELTA_THREADS),
              DELTA_THREADS, 0, c->delta, rows, att_mat_of<const T>(c->o, hd),
              att_mat_of<const T>(c->d_o, hd), rows, (int)at->heads, (int)hd);
    if (c->dk != nullptr || c->dv != nullptr)
        MB_TRY(keys<T>(ex, c));
    if (c->dq != nullptr)
        MB_TRY(queries<T>(ex, c));
    return MB_OK;
}

mb_status like(const mb_tensor *a, const mb_tensor *b, const char *what)
{
    MB_REQUIRE(a == nullptr ||
                   (a->dtype == b->dtype && mb_rows(a) == mb_rows(b) && mb_cols(a) == mb_cols(b)),
               MB_EBUG, "attention_bwd: %s has not the shape and type it belongs to", what);
    return MB_OK;
}

} /* namespace */

size_t mb_cuda_attention_bwd_workspace(mb_exec *, mb_tensor *, mb_tensor *, mb_tensor *,
                                       const mb_tensor *, const mb_tensor *q, const mb_tensor *,
                                       const mb_tensor *, const mb_tensor *, const mb_tensor *,
                                       const mb_attention *at, bool)
{
    return (size_t)(mb_rows(q) * at->heads) * sizeof(float); /* D */
}

mb_status mb_cuda_attention_bwd(mb_exec *ex, mb_tensor *dq, mb_tensor *dk, mb_tensor *dv,
                                const mb_tensor *d_o, const mb_tensor *q, const mb_tensor *k,
                                const mb_tensor *v, const mb_tensor *o, const mb_tensor *lse,
                                const mb_attention *at, bool acc)
{
    const call c = {dq, dk, dv, d_o, q, k, v, o, lse, static_cast<float *>(ex->workspace), at, acc};

    MB_TRY(att_check("attention_bwd", q, k, v, at));
    MB_TRY(like(dq, q, "dq"));
    MB_TRY(like(dk, k, "dk"));
    MB_TRY(like(dv, v, "dv"));
    MB_TRY(like(d_o, q, "d_o"));
    MB_TRY(like(o, q, "o"));
    MB_REQUIRE(lse->dtype == MB_DTYPE_F32 && mb_rows(lse) == at->heads &&
                   mb_cols(lse) == mb_rows(q),
               MB_EBUG, "attention_bwd: lse must be f32 (heads, queries)");
    MB_CUDA_DISPATCH(q->dtype, return run<T>(ex, &c));
}
