/* core/cuda/magnitude.cu - what DoRA (Liu et al. 2024, arXiv:2402.09353) adds to a low-rank adapter.
 *
 *     n_j^2 = |W_j|^2 + 2 s b_j (W A^T)_j + s^2 b_j (A A^T) b_j      gain_j = m_j / n_j
 *     y = x gain + bias by columns,  dm_j += sum over rows of dy x / n_j
 *
 * A row of W belongs to a warp; a column of a transposed W, as the columns of the backward, to a lane
 * of a block whose warps deal the rows and are added in their order.
 */
#include "core/cuda/each.h"

namespace {

enum { WARPS = 8 };

/* 2 s b_j wa_j + s^2 b_j aa b_j */
template <typename T>
MB_DEVICE float adapter_squares(const T *b, const float *wa, const float *aa, int rank, float s)
{
    float with_w = 0.0f, with_a = 0.0f;

    for (int k = 0; k < rank; k++) {
        const float bk = mb_to_f32(b[k]);
        float sum = 0.0f;

        for (int l = 0; l < rank; l++)
            sum += mb_to_f32(b[l]) * aa[k * rank + l];
        with_w += bk * wa[k];
        with_a += bk * sum;
    }
    return s * (2.0f * with_w + s * with_a);
}

template <typename T>
MB_DEVICE void give_gain(float *gain, float *rnorm, const T *m, int64_t j, float squares)
{
    const float r = 1.0f / sqrtf(squares > 0.0f ? squares : 0.0f);

    rnorm[j] = r;
    gain[j] = mb_to_f32(m[j]) * r;
}

template <typename T>
MB_GLOBAL MB_BOUNDS(32 * WARPS) void gain_of_rows(float *gain, float *rnorm, const T *m,
                                                  mb_mat<const T> w, mb_mat<const T> b,
                                                  const float *wa, const float *aa, float s)
{
    const int64_t j = (int64_t)blockIdx.x * WARPS + mb_warp();
    float sum = 0.0f;

    if (j >= w.rows) /* only whole warps */
        return;
    for (int64_t c = mb_lane(); c < w.cols; c += 32) {
        const float v = mb_to_f32(w.row(j)[c]);

        sum += v * v;
    }
    sum = mb_warp_sum(sum);
    if (mb_lane() == 0)
        give_gain(gain, rnorm, m, j,
                  sum + adapter_squares(b.row(j), wa + j * b.cols, aa, (int)b.cols, s));
}

/* The sum of the warps' values of one column, in the warps' order; of use in warp 0. */
MB_DEVICE float add_warps(float *part, float v)
{
    part[threadIdx.x] = v;
    __syncthreads();
    v = part[mb_lane()];
    for (int w = 1; w < WARPS; w++)
        v += part[w * 32 + mb_lane()];
    return v;
}

template <typename T>
MB_GLOBAL MB_BOUNDS(32 * WARPS) void gain_of_columns(float *gain, float *rnorm, const T *m,
                                                     mb_mat<const T> w, mb_mat<const T> b,
                                                     const float *wa, const float *aa, float s)
{
    MB_SHARED(float, part, 32 * WARPS);
    const int64_t j = (int64_t)blockIdx.x * 32 + mb_lane();
    float sum = 0.0f;

    for (int64_t r = mb_warp(); r < w.rows && j < w.cols; r += WARPS) {
        const float v = mb_to_f32(w.row(r)[j]);

        sum += v * v;
    }
    sum = add_warps(part, sum);
    if (mb_warp() == 0 && j < w.cols)
        give_gain(gain, rnorm, m, j,
                  sum + adapter_squares(b.row(j), wa + j * b.cols, aa, (int)b.cols, s));
}

template <typename T> struct scale_columns_each {
    mb_mat<T> y;
    mb_mat<const T> x;
    const float *gain;
    const T *bias;
    bool acc;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        const T from = x.row(row)[col];
        T *to = y.row(row) + col;
        const float v =
            mb_mul(mb_to_f32(from), gain[col]) + (bias != nullptr ? mb_to_f32(bias[col]) : 0.0f);

        *to = mb_from_f32<T>((acc ? mb_to_f32(*to) : 0.0f) + v);
    }
};

template <typename T>
MB_GLOBAL MB_BOUNDS(32 * WARPS) void scale_columns_bwd(float *dm, mb_mat<const T> dy,
                                                       mb_mat<const T> x, const float *rnorm)
{
    MB_SHARED(float, part, 32 * WARPS);
    const int64_t j = (int64_t)blockIdx.x * 32 + mb_lane();
    float sum = 0.0f;

    for (int64_t r = mb_warp(); r < x.rows && j < x.cols; r += WARPS)
        sum += mb_to_f32(dy.row(r)[j]) * mb_to_f32(x.row(r)[j]);
    sum = add_warps(part, sum);
    if (mb_warp() == 0 && j < x.cols)
        dm[j] += sum * rnorm[j];
}

bool is_f32(const mb_tensor *t, int64_t n)
{
    return mb_tensor_count(t) == n && t->dtype == MB_DTYPE_F32;
}

} // namespace

mb_status mb_cuda_magnitude_gain(mb_exec *ex, mb_tensor *gain, mb_tensor *rnorm, const mb_tensor *m,
                                 const mb_tensor *w, bool tw, const mb_tensor *b,
                                 const mb_tensor *wa, const mb_tensor *aa, float s)
{
    const int64_t n = mb_rows(b), rank = mb_cols(b);

    MB_REQUIRE(is_f32(gain, n) && is_f32(rnorm, n) && mb_tensor_count(m) == n &&
                   (tw ? mb_cols(w) : mb_rows(w)) == n && is_f32(wa, n * rank) &&
                   is_f32(aa, rank * rank) && m->dtype == w->dtype && b->dtype == w->dtype,
               MB_EBUG, "magnitude_gain: shapes or types do not fit");
    MB_CUDA_DISPATCH(w->dtype, {
        const mb_mat<const T> wm = mb_mat_of<const T>(w), bm = mb_mat_of<const T>(b);
        const T *mv = static_cast<const T *>(m->data);

        if (tw)
            MB_LAUNCH(ex, gain_of_columns<T>, mb_div_up(n, 32), 32 * WARPS, 0, mb_f32(gain),
                      mb_f32(rnorm), mv, wm, bm, mb_f32(wa), mb_f32(aa), s);
        else
            MB_LAUNCH(ex, gain_of_rows<T>, mb_div_up(n, WARPS), 32 * WARPS, 0, mb_f32(gain),
                      mb_f32(rnorm), mv, wm, bm, mb_f32(wa), mb_f32(aa), s);
    });
    return MB_OK;
}

mb_status mb_cuda_scale_columns(mb_exec *ex, mb_tensor *y, const mb_tensor *x,
                                const mb_tensor *gain, const mb_tensor *bias, bool acc)
{
    const mb_each e = {mb_rows(x), mb_cols(x), 1};

    MB_REQUIRE(
        mb_tensor_same_shape(y, x) && y->dtype == x->dtype && is_f32(gain, e.cols) &&
            (bias == nullptr || (mb_tensor_count(bias) == e.cols && bias->dtype == x->dtype)),
        MB_EBUG, "scale_columns: shapes or types do not fit");
    MB_CUDA_DISPATCH(x->dtype, {
        const scale_columns_each<T> f = {
            mb_mat_of<T>(y), mb_mat_of<const T>(x), mb_f32(gain),
            bias == nullptr ? nullptr : static_cast<const T *>(bias->data), acc};

        MB_TRY(mb_each_launch<1>(ex, e, f));
    });
    return MB_OK;
}

size_t mb_cuda_scale_columns_bwd_workspace(mb_exec *, mb_tensor *, const mb_tensor *,
                                           const mb_tensor *, const mb_tensor *)
{
    return 0;
}

mb_status mb_cuda_scale_columns_bwd(mb_exec *ex, mb_tensor *dm, const mb_tensor *dy,
                                    const mb_tensor *x, const mb_tensor *rnorm)
{
    const int64_t n = mb_cols(x);

    MB_REQUIRE(mb_tensor_same_shape(dy, x) && dy->dtype == x->dtype && is_f32(dm, n) &&
                   is_f32(rnorm, n),
               MB_EBUG, "scale_columns_bwd: shapes or types do not fit");
    MB_CUDA_DISPATCH(x->dtype, MB_LAUNCH(ex, scale_columns_bwd<T>, mb_div_up(n, 32), 32 * WARPS, 0,
                                         mb_f32(dm), mb_mat_of<const T>(dy), mb_mat_of<const T>(x),
                                         mb_f32(rnorm)));
    return MB_OK;
}
