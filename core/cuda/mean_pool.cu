/* core/cuda/mean_pool.cu - the mean of the rows of each sequence.
 *
 * A block has a sequence, its threads the columns; rows are added in their order.
 */
#include "core/cuda/cuda.h"

namespace {

enum { BLOCK = 256 };

template <typename T>
MB_GLOBAL void MB_BOUNDS(BLOCK) mean_pool_fwd_kernel(mb_mat<float> y, mb_mat<const T> x,
                                                     const int32_t *start, const int32_t *len)
{
    const int64_t s = blockIdx.x, from = start[s], n = len[s];
    const float share = n > 0 ? 1.0f / (float)n : 0.0f;

    for (int64_t c = threadIdx.x; c < x.cols; c += BLOCK) {
        float sum = 0.0f;

        for (int64_t t = 0; t < n; t++)
            sum += mb_to_f32(x.row(from + t)[c]);
        y.row(s)[c] = mb_mul(sum, share);
    }
}

template <typename T>
MB_GLOBAL void MB_BOUNDS(BLOCK) mean_pool_bwd_kernel(mb_mat<T> dx, mb_mat<const float> dy,
                                                     const int32_t *start, const int32_t *len)
{
    const int64_t s = blockIdx.x, from = start[s], n = len[s];
    const float share = n > 0 ? 1.0f / (float)n : 0.0f;

    for (int64_t c = threadIdx.x; c < dx.cols; c += BLOCK) {
        const float g = mb_mul(share, dy.row(s)[c]);

        for (int64_t t = from; t < from + n; t++)
            dx.row(t)[c] = mb_from_f32<T>(mb_to_f32(dx.row(t)[c]) + g);
    }
}

} // namespace

mb_status mb_cuda_mean_pool_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *x,
                                const mb_tensor *start, const mb_tensor *len)
{
    MB_REQUIRE(mb_cols(x) == mb_cols(y) && y->dtype == MB_DTYPE_F32 &&
                   mb_tensor_count(start) == mb_rows(y),
               MB_EBUG, "mean_pool: shapes do not fit");
    MB_CUDA_DISPATCH(x->dtype, MB_LAUNCH(ex, (mean_pool_fwd_kernel<T>), mb_rows(y), BLOCK, 0,
                                         mb_mat_of<float>(y), mb_mat_of<const T>(x), mb_i32(start),
                                         mb_i32(len)));
    return MB_OK;
}

mb_status mb_cuda_mean_pool_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dy,
                                const mb_tensor *start, const mb_tensor *len, bool acc)
{
    if (dx == nullptr)
        return MB_OK;
    if (!acc)
        MB_TRY(mb_cuda_fill(ex, dx, 0.0f));
    MB_CUDA_DISPATCH(dx->dtype, MB_LAUNCH(ex, (mean_pool_bwd_kernel<T>), mb_rows(dy), BLOCK, 0,
                                          mb_mat_of<T>(dx), mb_mat_of<const float>(dy),
                                          mb_i32(start), mb_i32(len)));
    return MB_OK;
}
