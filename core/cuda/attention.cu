/* core/cuda/attention.cu - attention with online softmax, forward.
 *
 *     S = cap(scale Q K^T), P = softmax(S + mask), O = dropout(P) V
 *
 * A block has a tile of queries of one head and meets its keys tile by tile, with a running maximum
 * m and sum l per row; when m grows, what was summed before is scaled by e^(m - m'). lse = m + log l
 * is kept for the backward.
 *
 * 16-bit (FlashAttention-2, Dao 2023, arXiv:2307.08691): queries are split over warps, so that
 * scores stay in the registers of the warp that makes them and are the left operand of P V. While
 * Q K^T of a tile runs, its V arrives; while P V runs, the next K.
 *
 * f32: register tiles of FMAs; K and V take turns in one buffer, P goes through shared memory.
 */
#include "core/cuda/attention_tile.h"

namespace {

/* The block's place: tiles at the end of a sequence, which see most keys when causal, come first;
 * heads that share keys are neighbours. */
struct place {
    att_seq seq;
    int head, from, rows;
};

template <int BQ> MB_DEVICE place place_of(const att_args &a)
{
    const int i = (int)(blockIdx.x / (unsigned)a.heads);
    place p;

    p.head = (int)(blockIdx.x % (unsigned)a.heads);
    p.seq = att_sequence(a, i % a.n_seq);
    p.from = (a.blocks - 1 - i / a.n_seq) * BQ;
    p.rows = att_least(BQ, p.seq.q_len - p.from);
    return p;
}

/* ---- 16-bit --------------------------------------------------------------------------------- */

/* A row's new maximum over the quad that shares it. */
MB_DEVICE float quad_max(float x)
{
    x = fmaxf(x, mb_shfl_xor(x, 1));
    return fmaxf(x, mb_shfl_xor(x, 2));
}

MB_DEVICE float quad_sum(float x)
{
    x += mb_shfl_xor(x, 1);
    return x + mb_shfl_xor(x, 2);
}

template <typename T, int HD, int MT, int BK>
MB_GLOBAL void MB_BOUNDS(ATT_TC, 1)
    forward_16(att_args a, att_mat<T> o, float *lse, int64_t lse_stride, att_mat<const T> q,
               att_mat<const T> k, att_mat<const T> v)
{
    constexpr int BQ = 16 * MT * ATT_WARPS, NK = BK / 8;
    MB_SMEM(att_line, tiles);
    T *sq = reinterpret_cast<T *>(tiles), *sk = sq + BQ * HD, *sv = sk + BK * HD;
    const place p = place_of<BQ>(a);

    if (p.rows <= 0)
        return;
    const att_seq &seq = p.seq;
    const int kv = p.head / a.group, row = mb_warp() * 16 * MT;
    const int g = mb_lane() / 4, t = mb_lane() % 4;
    const int pos0 = seq.offset + p.from + row + g; /* of row g of the warp */
    const att_span tiles_k = att_key_tiles(a, seq, p.from, p.from + p.rows, BK);
    const uint64_t key = mb_rng_key(a.seed, a.site, (uint64_t)p.head);
    float acc[MT][HD / 8][4], m[MT][2], l[MT][2];

    att_clear(acc);
    MB_UNROLL
    for (int i = 0; i < MT; i++)
        MB_UNROLL
    for (int h = 0; h < 2; h++) {
        m[i][h] = -INFINITY;
        l[i][h] = 0.0f;
    }
    att_load<T, HD, BQ, ATT_TC>(sq, q.at(seq.q_start + p.from, p.head, a.hd), q.stride, q.vec,
                                p.rows, a.hd);
    if (tiles_k.lo < tiles_k.hi)
        att_load<T, HD, BK, ATT_TC>(sk, k.at(seq.k_start + tiles_k.lo * BK, kv, a.hd), k.stride,
                                    k.vec, seq.k_len - tiles_k.lo * BK, a.hd);
    mb_cp_commit();

    for (int j = tiles_k.lo; j < tiles_k.hi; j++) {
        const int k0 = j * BK;
        float s[MT][NK][4];
        uint32_t keep[MT]; /* a bit for each score */

        mb_cp_wait<0>();
        __syncthreads(); /* K is here, and nobody reads the V before */
        att_load<T, HD, BK, ATT_TC>(sv, v.at(seq.k_start + k0, kv, a.hd), v.stride, v.vec,
                                    seq.k_len - k0, a.hd);
        mb_cp_commit();
        if (a.dropout > 0.0f)
            att_keep_tile<BK>(keep, a, key, seq, p.from, p.rows, row, k0);
        att_clear(s);
        att_mma_nt<T, HD, MT, BK>(s, sq, row, sk);
        mb_cp_wait<0>();
        __syncthreads(); /* V is here, and nobody reads this K */
        if (j + 1 < tiles_k.hi)
            att_load<T, HD, BK, ATT_TC>(sk, k.at(seq.k_start + k0 + BK, kv, a.hd), k.stride, k.vec,
                                        seq.k_len - k0 - BK, a.hd);
        mb_cp_commit();

        att_scores<false>(s, a, p.head, pos0, k0 + 2 * t);
        if (!att_all_seen(a, seq, p.from, p.rows, k0, BK))
            att_mask<false>(s, a, seq.k_len, pos0, k0 + 2 * t, -INFINITY);
        MB_UNROLL
        for (int i = 0; i < MT; i++)
            MB_UNROLL
        for (int h = 0; h < 2; h++) {
            float top = m[i][h];

            MB_UNROLL
            for (int n = 0; n < NK; n++)
                top = fmaxf(top, fmaxf(s[i][n][2 * h], s[i][n][2 * h + 1]));
            top = quad_max(top);
            const float base = top == -INFINITY ? 0.0f : top;
            const float rescale = mb_exp2(m[i][h] - base);

            m[i][h] = top;
            l[i][h] *= rescale;
            MB_UNROLL
            for (int n = 0; n < NK; n++)
                MB_UNROLL
            for (int e = 2 * h; e < 2 * h + 2; e++) {
                s[i][n][e] = mb_exp2(s[i][n][e] - base);
                l[i][h] += s[i][n][e];
            }
            MB_UNROLL
            for (int n = 0; n < HD / 8; n++) {
                acc[i][n][2 * h] *= rescale;
                acc[i][n][2 * h + 1] *= rescale;
            }
        }
        if (a.dropout > 0.0f)
            att_drop(s, a, keep);
        att_mma_nn<T, HD, MT, BK>(acc, s, sv);
    }

    mb_cp_wait<0>();
    __syncthreads(); /* a block that saw no keys still has Q under way */
    MB_UNROLL
    for (int i = 0; i < MT; i++)
        MB_UNROLL
    for (int h = 0; h < 2; h++) {
        const int r = row + i * 16 + g + h * 8;
        const float sum = quad_sum(l[i][h]);
        const float inverse = sum > 0.0f ? 1.0f / sum : sum; /* NaN stays NaN */

        MB_UNROLL
        for (int n = 0; n < HD / 8; n++) {
            acc[i][n][2 * h] *= inverse;
            acc[i][n][2 * h + 1] *= inverse;
        }
        if (lse != nullptr && t == 0 && r < p.rows)
            lse[p.head * lse_stride + seq.q_start + p.from + r] =
                sum == 0.0f ? -INFINITY : m[i][h] / a.unit + logf(sum);
    }
    att_store<T, HD, MT>(acc, sq, row, o.at(seq.q_start + p.from, p.head, a.hd), o.stride, o.vec,
                         p.rows, a.hd, false);
}

/* ---- f32 ------------------------------------------------------------------------------------ */

template <int HD, int BQ, int BK>
MB_GLOBAL void MB_BOUNDS(ATT_F32, 1)
    forward_f32(att_args a, att_mat<float> o, float *lse, int64_t lse_stride,
                att_mat<const float> q, att_mat<const float> k, att_mat<const float> v)
{
    constexpr int RQ = BQ / 16, RK = BK / 16;
    MB_SMEM(att_line, tiles);
    float *sq = reinterpret_cast<float *>(tiles), *skv = sq + BQ * (HD + 4),
          *sp = skv + BK * (HD + 4);
    const place p = place_of<BQ>(a);

    if (p.rows <= 0)
        return;
    const att_seq &seq = p.seq;
    const int kv = p.head / a.group;
    const int x = (int)threadIdx.x & 15, y = (int)threadIdx.x >> 4;
    const att_span tiles_k = att_key_tiles(a, seq, p.from, p.from + p.rows, BK);
    const uint64_t key = mb_rng_key(a.seed, a.site, (uint64_t)p.head);
    float acc[RQ][HD / 16] = {}, m[RQ], l[RQ];
    int ordinal[RQ];

    MB_UNROLL
    for (int i = 0; i < RQ; i++) {
        m[i] = -INFINITY;
        l[i] = 0.0f;
        ordinal[i] = 0;
        if (a.dropout > 0.0f)
            ordinal[i] = a.ordinal[seq.q_start + p.from + att_least(y * RQ + i, p.rows - 1)];
    }
    att_load<float, HD, BQ, ATT_F32>(sq, q.at(seq.q_start + p.from, p.head, a.hd), q.stride, q.vec,
                                     p.rows, a.hd);
    for (int j = tiles_k.lo; j < tiles_k.hi; j++) {
        const int k0 = j * BK;
        float s[RQ][RK];

        __syncthreads(); /* nobody reads the V before */
        att_load<float, HD, BK, ATT_F32>(skv, k.at(seq.k_start + k0, kv, a.hd), k.stride, k.vec,
                                         seq.k_len - k0, a.hd);
        mb_cp_commit();
        mb_cp_wait<0>();
        __syncthreads();
        att_dots<HD>(s, sq, skv, a.hd);
        __syncthreads(); /* nobody reads this K */
        att_load<float, HD, BK, ATT_F32>(skv, v.at(seq.k_start + k0, kv, a.hd), v.stride, v.vec,
                                         seq.k_len - k0, a.hd);
        mb_cp_commit();
        MB_UNROLL
        for (int i = 0; i < RQ; i++) {
            const int pos = seq.offset + p.from + y * RQ + i;
            const att_span see = att_keys(a, seq.k_len, pos);
            float top = m[i], sum = 0.0f;

            MB_UNROLL
            for (int n = 0; n < RK; n++) {
                const int kp = k0 + x + 16 * n;

                s[i][n] = kp >= see.lo && kp < see.hi ? att_score(a, s[i][n], p.head, pos, kp)
                                                      : -INFINITY;
                top = fmaxf(top, s[i][n]);
            }
            MB_UNROLL
            for (int lanes = 8; lanes > 0; lanes /= 2)
                top = fmaxf(top, mb_shfl_xor(top, lanes));
            const float base = top == -INFINITY ? 0.0f : top, rescale = expf(m[i] - base);

            MB_UNROLL
            for (int n = 0; n < RK; n++) {
                s[i][n] = expf(s[i][n] - base);
                sum += s[i][n];
            }
            MB_UNROLL
            for (int lanes = 8; lanes > 0; lanes /= 2)
                sum += mb_shfl_xor(sum, lanes);
            m[i] = top;
            l[i] = l[i] * rescale + sum;
            if (a.dropout > 0.0f)
                MB_UNROLL
            for (int n = 0; n < RK; n++)
                s[i][n] *= att_keep_one(a, key, ordinal[i], pos, k0 + x + 16 * n);
            MB_UNROLL
            for (int e = 0; e < HD / 16; e++)
                acc[i][e] *= rescale;
        }
        MB_UNROLL
        for (int n = 0; n < RK; n++) {
            float column[RQ];

            MB_UNROLL
            for (int i = 0; i < RQ; i++)
                column[i] = s[i][n];
            mb_store(sp + (x + 16 * n) * (BQ + 4) + y * RQ, column);
        }
        mb_cp_wait<0>();
        __syncthreads(); /* V and P are here */
        att_add<HD, RQ, BK>(acc, sp, skv);
    }
    MB_UNROLL
    for (int i = 0; i < RQ; i++) {
        const float inverse = l[i] > 0.0f ? 1.0f / l[i] : l[i]; /* NaN stays NaN */
        const int r = y * RQ + i;

        MB_UNROLL
        for (int e = 0; e < HD / 16; e++)
            acc[i][e] *= inverse;
        if (lse != nullptr && x == 0 && r < p.rows)
            lse[p.head * lse_stride + seq.q_start + p.from + r] =
                l[i] == 0.0f ? -INFINITY : m[i] + logf(l[i]);
    }
    att_store_f32<HD>(acc, o.at(seq.q_start + p.from, p.head, a.hd), o.stride, p.rows, a.hd, 1.0f,
                      false);
    mb_cp_wait<0>();
}

/* ---- launches ------------------------------------------------------------------------------- */

struct call {
    mb_tensor *o, *lse;
    const mb_tensor *q, *k, *v;
    const mb_attention *at;
};

template <typename T, int HD, int MT, int BK> mb_status launch_16(const mb_exec *ex, const call *c)
{
    constexpr int BQ = 16 * MT * ATT_WARPS;
    const int64_t hd = c->at->head_dim;
    const att_args a = att_args_of<T>(c->at, BQ);

    MB_LAUNCH(ex, (forward_16<T, HD, MT, BK>), a.blocks * c->at->n_seq * c->at->heads, ATT_TC,
              (BQ + 2 * BK) * HD * sizeof(T), a, att_mat_of<T>(c->o, hd),
              c->lse != nullptr ? mb_f32(c->lse) : nullptr,
              c->lse != nullptr ? mb_row_stride(c->lse) : 0, att_mat_of<const T>(c->q, hd),
              att_mat_of<const T>(c->k, hd), att_mat_of<const T>(c->v, hd));
    return MB_OK;
}

template <int HD, int BQ, int BK> mb_status launch_f32(const mb_exec *ex, const call *c)
{
    const int64_t hd = c->at->head_dim;
    const att_args a = att_args_of<float>(c->at, BQ);

    MB_LAUNCH(ex, (forward_f32<HD, BQ, BK>), a.blocks * c->at->n_seq * c->at->heads, ATT_F32,
              ((BQ + BK) * (HD + 4) + BK * (BQ + 4)) * sizeof(float), a,
              att_mat_of<float>(c->o, hd), c->lse != nullptr ? mb_f32(c->lse) : nullptr,
              c->lse != nullptr ? mb_row_stride(c->lse) : 0, att_mat_of<const float>(c->q, hd),
              att_mat_of<const float>(c->k, hd), att_mat_of<const float>(c->v, hd));
    return MB_OK;
}

/* Tiles by head_dim: accumulators within 255 registers, shared memory within 64 KiB. */
template <typename T> mb_status run(const mb_exec *ex, const call *c)
{
    const int64_t hd = c->at->head_dim;

    MB_TRY(att_zero_gaps<T>(ex, c->o, c->at->n_seq, c->at->q_start, c->at->q_len));
    if constexpr (sizeof(T) == 4)
        return hd <= 32    ? launch_f32<32, 64, 64>(ex, c)
               : hd <= 64  ? launch_f32<64, 64, 64>(ex, c)
               : hd <= 128 ? launch_f32<128, 64, 32>(ex, c)
                           : launch_f32<256, 32, 16>(ex, c);
    else
        return hd <= 32    ? launch_16<T, 32, 2, 64>(ex, c)
               : hd <= 64  ? launch_16<T, 64, 2, 64>(ex, c)
               : hd <= 96  ? launch_16<T, 96, 2, 64>(ex, c)
               : hd <= 128 ? launch_16<T, 128, 2, 32>(ex, c)
               : hd <= 192 ? launch_16<T, 192, 1, 32>(ex, c)
                           : launch_16<T, 256, 1, 32>(ex, c);
}

} /* namespace */

size_t mb_cuda_attention_fwd_workspace(mb_exec *, mb_tensor *, mb_tensor *, const mb_tensor *,
                                       const mb_tensor *, const mb_tensor *, const mb_attention *)
{
    return 0;
}

mb_status mb_cuda_attention_fwd(mb_exec *ex, mb_tensor *o, mb_tensor *lse, const mb_tensor *q,
                                const mb_tensor *k, const mb_tensor *v, const mb_attention *at)
{
    const call c = {o, lse, q, k, v, at};

    MB_REQUIRE(at->pages == nullptr, MB_ENOTSUP,
               "attention_fwd: keys and values in pages are read by the CPU only");
    MB_TRY(att_check("attention_fwd", q, k, v, at));
    MB_REQUIRE(o->dtype == q->dtype && mb_rows(o) == mb_rows(q) && mb_cols(o) == mb_cols(q),
               MB_EBUG, "attention_fwd: the output is not like the queries");
    MB_REQUIRE(lse == nullptr || (lse->dtype == MB_DTYPE_F32 && mb_rows(lse) == at->heads &&
                                  mb_cols(lse) == mb_rows(q)),
               MB_EBUG, "attention_fwd: lse must be f32 (heads, queries)");
    MB_CUDA_DISPATCH(q->dtype, return run<T>(ex, &c));
}
