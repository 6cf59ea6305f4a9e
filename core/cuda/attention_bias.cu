/* core/cuda/attention_bias.cu - attention's bias by distance: made from buckets, and its gradient.
 *
 * A block owns 64 neighbouring distances of a head and adds up dS over all pairs of them: sequence by
 * sequence, 16 queries at a time, in an order that depends on shapes alone. Scores and dP of a pair
 * are dot products of one thread, over pieces of 32 columns that lie in shared memory.
 */
#include "core/cuda/attention_tile.h"

namespace {

enum { FAR = 64, ROWS = 16, PIECE = 32, LANES = 4, EACH = ROWS / LANES, THREADS = FAR * LANES };
enum { KEYS = ROWS + FAR, LD = PIECE + 1 };

template <typename T> struct tensors {
    att_mat<const T> q, k, v, o, d_o;
    const float *lse;
    int64_t lse_stride;
};

/* Rows [0, n) of which `first` is row 0's place in a sequence of len rows from `start` on; columns from
 * c on; zeros where there is nothing. */
template <typename T>
MB_DEVICE void load_piece(float *to, const att_mat<const T> &from, int start, int first, int len,
                          int head, int hd, int c, int n)
{
    for (int i = (int)threadIdx.x; i < n * PIECE; i += THREADS) {
        const int r = first + i / PIECE, d = c + i % PIECE;

        to[i / PIECE * LD + i % PIECE] =
            r >= 0 && r < len && d < hd ? mb_to_f32(from.at(start + r, head, hd)[d]) : 0.0f;
    }
}

template <typename T>
MB_GLOBAL void MB_BOUNDS(THREADS) bias_backward(att_args a, mb_mat<float> dbias, tensors<T> t)
{
    MB_SHARED(float, sq, ROWS *LD);
    MB_SHARED(float, sdo, ROWS *LD);
    MB_SHARED(float, sk, KEYS *LD);
    MB_SHARED(float, sv, KEYS *LD);
    MB_SHARED(float, delta, ROWS);
    MB_SHARED(float, sums, THREADS);
    const int head = (int)(blockIdx.x % (unsigned)a.heads), kv = head / a.group;
    const int x = (int)threadIdx.x % FAR, y = (int)threadIdx.x / FAR;
    const int column0 = (int)(blockIdx.x / (unsigned)a.heads) * FAR, d0 = column0 - a.far;
    const uint64_t key = mb_rng_key(a.seed, a.site, (uint64_t)head);
    const float bias = column0 + x <= 2 * a.far
                           ? a.bias[(int64_t)head * (2 * a.far + 1) + column0 + x] * a.inverse
                           : 0.0f;
    float sum = 0.0f;

    for (int n = 0; n < a.n_seq && (a.causal == 0 || d0 <= 0); n++) {
        const att_seq seq = att_sequence(a, n);

        for (int i0 = 0; i0 < seq.q_len; i0 += ROWS) {
            const int k0 = seq.offset + i0 + d0; /* of query i0 at the first distance */
            float s[EACH] = {}, dp[EACH] = {};

            if (k0 + KEYS <= 0 || k0 >= seq.k_len)
                continue;
            __syncthreads(); /* nobody reads the delta before */
            {
                const int r = (int)threadIdx.x / 16, lane = (int)threadIdx.x % 16;
                float d = 0.0f;

                if (i0 + r < seq.q_len) {
                    const T *o = t.o.at(seq.q_start + i0 + r, head, a.hd);
                    const T *d_o = t.d_o.at(seq.q_start + i0 + r, head, a.hd);

                    for (int c = lane; c < a.hd; c += 16)
                        d = fmaf(mb_to_f32(o[c]), mb_to_f32(d_o[c]), d);
                }
                MB_UNROLL
                for (int m = 8; m > 0; m /= 2)
                    d += mb_shfl_xor(d, m);
                if (lane == 0)
                    delta[r] = d;
            }
            for (int c = 0; c < a.hd; c += PIECE) {
                __syncthreads(); /* nobody reads the piece before */
                load_piece(sq, t.q, seq.q_start, i0, seq.q_len, head, a.hd, c, ROWS);
                load_piece(sdo, t.d_o, seq.q_start, i0, seq.q_len, head, a.hd, c, ROWS);
                load_piece(sk, t.k, seq.k_start, k0, seq.k_len, kv, a.hd, c, KEYS);
                load_piece(sv, t.v, seq.k_start, k0, seq.k_len, kv, a.hd, c, KEYS);
                __syncthreads(); /* the piece is here */
                MB_UNROLL
                for (int i = 0; i < EACH; i++) {
                    const int r = y * EACH + i;

                    for (int d = 0; d < PIECE; d++) {
                        s[i] = fmaf(sq[r * LD + d], sk[(r + x) * LD + d], s[i]);
                        dp[i] = fmaf(sdo[r * LD + d], sv[(r + x) * LD + d], dp[i]);
                    }
                }
            }
            MB_UNROLL
            for (int i = 0; i < EACH; i++) {
                const int r = y * EACH + i, pos = seq.offset + i0 + r, kp = k0 + r + x;
                const att_span see = att_keys(a, seq.k_len, pos);

                if (i0 + r < seq.q_len && kp >= see.lo && kp < see.hi) {
                    const int row = seq.q_start + i0 + r;
                    const float natural = (s[i] + bias) * a.scale;
                    const float capped = a.cap > 0.0f ? tanhf((s[i] + bias) * a.factor) : 0.0f;
                    const float score = a.cap > 0.0f ? a.cap * capped : natural;
                    const float p = expf(score - t.lse[head * t.lse_stride + row]);
                    const float keep =
                        a.dropout > 0.0f ? att_keep_one(a, key, a.ordinal[row], pos, kp) : 1.0f;

                    sum += p * (dp[i] * keep - delta[r]) * (1.0f - capped * capped);
                }
            }
        }
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (y == 0 && column0 + x <= 2 * a.far) {
        MB_UNROLL
        for (int i = 1; i < LANES; i++)
            sum += sums[i * FAR + x];
        dbias.row(head)[column0 + x] += sum;
    }
}

template <typename T>
mb_status run(const mb_exec *ex, mb_tensor *dbias, const mb_tensor *d_o, const mb_tensor *q,
              const mb_tensor *k, const mb_tensor *v, const mb_tensor *o, const mb_tensor *lse,
              const mb_attention *at)
{
    const int64_t hd = at->head_dim;
    const att_args a = att_args_of<float>(at, FAR); /* scores in natural units */
    tensors<T> t;

    t.q = att_mat_of<const T>(q, hd);
    t.k = att_mat_of<const T>(k, hd);
    t.v = att_mat_of<const T>(v, hd);
    t.o = att_mat_of<const T>(o, hd);
    t.d_o = att_mat_of<const T>(d_o, hd);
    t.lse = mb_f32(lse);
    t.lse_stride = mb_row_stride(lse);
    MB_LAUNCH(ex, (bias_backward<T>), mb_div_up(2 * at->max_len - 1, FAR) * at->heads, THREADS, 0,
              a, mb_mat_of<float>(dbias), t);
    return MB_OK;
}

/* ---- from buckets ---------------------------------------------------------------------------- */

enum { BUCKET_THREADS = 256 };

template <typename T>
MB_GLOBAL void MB_BOUNDS(BUCKET_THREADS)
    bucket_forward(mb_mat<float> y, const int32_t *ids, mb_mat<const T> w)
{
    const int64_t i = (int64_t)blockIdx.x * BUCKET_THREADS + threadIdx.x;

    if (i < y.rows * y.cols)
        y.row(i / y.cols)[i % y.cols] = mb_to_f32(w.row(ids[i % y.cols])[i / y.cols]);
}

/* A thread for an element of dw, which looks at all distances. */
MB_GLOBAL void MB_BOUNDS(BUCKET_THREADS)
    bucket_backward(mb_mat<float> dw, const int32_t *ids, mb_mat<const float> dy)
{
    const int64_t i = (int64_t)blockIdx.x * BUCKET_THREADS + threadIdx.x;

    if (i >= dw.rows * dw.cols)
        return;
    const int64_t bucket = i / dw.cols, head = i % dw.cols;
    float sum = dw.row(bucket)[head];

    for (int64_t m = 0; m < dy.cols; m++)
        if (ids[m] == bucket)
            sum += dy.row(head)[m];
    dw.row(bucket)[head] = sum;
}

template <typename T>
mb_status bucket_run(const mb_exec *ex, mb_tensor *y, const mb_tensor *ids, const mb_tensor *w)
{
    MB_LAUNCH(ex, (bucket_forward<T>), mb_div_up(mb_rows(y) * mb_cols(y), BUCKET_THREADS),
              BUCKET_THREADS, 0, mb_mat_of<float>(y), mb_i32(ids), mb_mat_of<const T>(w));
    return MB_OK;
}

} /* namespace */

size_t mb_cuda_attention_bias_bwd_workspace(mb_exec *, mb_tensor *, const mb_tensor *,
                                            const mb_tensor *, const mb_tensor *, const mb_tensor *,
                                            const mb_tensor *, const mb_tensor *,
                                            const mb_attention *)
{
    return 0;
}

mb_status mb_cuda_attention_bias_bwd(mb_exec *ex, mb_tensor *dbias, const mb_tensor *d_o,
                                     const mb_tensor *q, const mb_tensor *k, const mb_tensor *v,
                                     const mb_tensor *o, const mb_tensor *lse,
                                     const mb_attention *at)
{
    MB_TRY(att_check("attention_bias_bwd", q, k, v, at));
    MB_REQUIRE(at->bias != nullptr && dbias->dtype == MB_DTYPE_F32 && mb_rows(dbias) == at->heads &&
                   mb_cols(dbias) == 2 * at->max_len - 1,
               MB_EBUG, "attention_bias_bwd: dbias is not f32 (heads, 2 max_len - 1)");
    if (at->n_seq == 0)
        return MB_OK;
    MB_CUDA_DISPATCH(q->dtype, return run<T>(ex, dbias, d_o, q, k, v, o, lse, at));
}

mb_status mb_cuda_bucket_bias_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *ids,
                                  const mb_tensor *w)
{
    MB_REQUIRE(mb_tensor_count(ids) == mb_cols(y) && mb_cols(w) == mb_rows(y), MB_EBUG,
               "bucket_bias_fwd: shapes do not fit");
    MB_CUDA_DISPATCH(w->dtype, return bucket_run<T>(ex, y, ids, w));
}

mb_status mb_cuda_bucket_bias_bwd(mb_exec *ex, mb_tensor *dw, const mb_tensor *ids,
                                  const mb_tensor *dy)
{
    if (dw == nullptr)
        return MB_OK;
    MB_LAUNCH(ex, bucket_backward, mb_div_up(mb_rows(dw) * mb_cols(dw), BUCKET_THREADS),
              BUCKET_THREADS, 0, mb_mat_of<float>(dw), mb_i32(ids), mb_mat_of<const float>(dy));
    return MB_OK;
}
