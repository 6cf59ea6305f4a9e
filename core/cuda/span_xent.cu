/* core/cuda/span_xent.cu - cross-entropy over the rows of a sequence, for its two columns.
 *
 * A block has a column of a sequence. Rows of no sequence are cleared first, with all others.
 */
#include "core/cuda/cuda.h"

namespace {

enum { BLOCK = 128 };

/* log of the sum of e^x over rows [from, from + n) of a column: of the whole block. */
template <typename T>
MB_DEVICE double log_sum(const mb_mat<const T> &x, int64_t from, int64_t n, int64_t col,
                         float *part, double *parts)
{
    float max = -INFINITY;
    double sum = 0.0;

    for (int64_t t = threadIdx.x; t < n; t += BLOCK)
        max = fmaxf(max, mb_to_f32(x.row(from + t)[col]));
    max = mb_block_max(max, part);
    for (int64_t t = threadIdx.x; t < n; t += BLOCK)
        sum += exp((double)mb_to_f32(x.row(from + t)[col]) - (double)max);
    return (double)max + log(mb_block_sum(sum, parts));
}

template <typename T>
MB_GLOBAL void MB_BOUNDS(BLOCK)
    span_xent_fwd_kernel(float *out, mb_mat<const T> x, const int32_t *label, const int32_t *start,
                         const int32_t *len)
{
    MB_SHARED(float, part, 32);
    MB_SHARED(double, parts, 32);
    const int64_t i = blockIdx.x, from = start[i / 2], n = len[i / 2], col = i % 2;
    const double sum = log_sum(x, from, n, col, part, parts);

    if (threadIdx.x == 0)
        out[i] = n > 0 ? (float)((double)mb_to_f32(x.row(from + label[i])[col]) - sum) : 0.0f;
}

template <typename T>
MB_GLOBAL void MB_BOUNDS(BLOCK)
    span_xent_bwd_kernel(mb_mat<T> dx, const float *dout, mb_mat<const T> x, const int32_t *label,
                         const int32_t *start, const int32_t *len)
{
    MB_SHARED(float, part, 32);
    MB_SHARED(double, parts, 32);
    const int64_t i = blockIdx.x, from = start[i / 2], n = len[i / 2], col = i % 2;
    const double sum = log_sum(x, from, n, col, part, parts);

    for (int64_t t = threadIdx.x; t < n; t += BLOCK) {
        const double p = exp((double)mb_to_f32(x.row(from + t)[col]) - sum);
        T *to = dx.row(from + t) + col;

        *to = mb_from_f32<T>(
            (float)((double)mb_to_f32(*to) + (double)dout[i] * ((t == label[i] ? 1.0 : 0.0) - p)));
    }
}

} // namespace

mb_status mb_cuda_span_xent_fwd(mb_exec *ex, mb_tensor *out, const mb_tensor *x,
                                const mb_tensor *label, const mb_tensor *start,
                                const mb_tensor *len)
{
    const int64_t n = 2 * mb_tensor_count(start);

    MB_REQUIRE(mb_cols(x) == 2 && mb_tensor_count(out) == n && mb_tensor_count(label) == n, MB_EBUG,
               "span_xent: shapes do not fit");
    MB_CUDA_DISPATCH(x->dtype,
                     MB_LAUNCH(ex, (span_xent_fwd_kernel<T>), n, BLOCK, 0, mb_f32(out),
                               mb_mat_of<const T>(x), mb_i32(label), mb_i32(start), mb_i32(len)));
    return MB_OK;
}

mb_status mb_cuda_span_xent_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dout,
                                const mb_tensor *x, const mb_tensor *label, const mb_tensor *start,
                                const mb_tensor *len, bool acc)
{
    if (dx == nullptr)
        return MB_OK;
    if (!acc)
        MB_TRY(mb_cuda_fill(ex, dx, 0.0f));
    MB_CUDA_DISPATCH(x->dtype,
                     MB_LAUNCH(ex, (span_xent_bwd_kernel<T>), 2 * mb_tensor_count(start), BLOCK, 0,
                               mb_mat_of<T>(dx), mb_f32(dout), mb_mat_of<const T>(x), mb_i32(label),
                               mb_i32(start), mb_i32(len)));
    return MB_OK;
}
