/* core/cuda/row_loss.cu - binary cross-entropy and squared error of rows of few columns.
 *
 * A warp has a row: classes are few.
 */
#include "core/cuda/cuda.h"

namespace {

enum { WARPS = 8 };

MB_DEVICE double loss_of(mb_row_loss loss, double x, double y)
{
    if (loss == MB_ROW_LOSS_SQUARED)
        return (x - y) * (x - y);
    return fmax(x, 0.0) - x * y + log1p(exp(-fabs(x)));
}

MB_DEVICE double slope_of(mb_row_loss loss, double x, double y)
{
    if (loss == MB_ROW_LOSS_SQUARED)
        return 2.0 * (x - y);
    return 1.0 / (1.0 + exp(-x)) - y;
}

template <typename T>
MB_GLOBAL void MB_BOUNDS(WARPS * 32)
    row_loss_fwd_kernel(float *out, mb_mat<const T> x, const float *y, mb_row_loss loss)
{
    const int64_t r = (int64_t)blockIdx.x * WARPS + mb_warp();
    double sum = 0.0;

    for (int64_t c = mb_lane(); r < x.rows && c < x.cols; c += 32)
        sum += loss_of(loss, (double)mb_to_f32(x.row(r)[c]), (double)y[r * x.cols + c]);
    sum = mb_warp_sum(sum);
    if (r < x.rows && mb_lane() == 0)
        out[r] = (float)(-sum / (double)x.cols);
}

template <typename T>
MB_GLOBAL void MB_BOUNDS(WARPS * 32)
    row_loss_bwd_kernel(mb_mat<T> dx, const float *dout, mb_mat<const T> x, const float *y,
                        mb_row_loss loss, bool acc)
{
    const int64_t r = (int64_t)blockIdx.x * WARPS + mb_warp();

    for (int64_t c = mb_lane(); r < x.rows && c < x.cols; c += 32) {
        const double slope =
            slope_of(loss, (double)mb_to_f32(x.row(r)[c]), (double)y[r * x.cols + c]);
        const float g = (float)(-(double)dout[r] / (double)x.cols * slope);
        T *to = dx.row(r) + c;

        *to = mb_from_f32<T>(acc ? mb_to_f32(*to) + g : g);
    }
}

} // namespace

mb_status mb_cuda_row_loss_fwd(mb_exec *ex, mb_tensor *out, const mb_tensor *x, const mb_tensor *y,
                               mb_row_loss loss)
{
    MB_REQUIRE(mb_tensor_count(out) == mb_rows(x) && mb_tensor_count(y) == mb_tensor_count(x),
               MB_EBUG, "row_loss: shapes do not fit");
    MB_CUDA_DISPATCH(x->dtype,
                     MB_LAUNCH(ex, (row_loss_fwd_kernel<T>), mb_div_up(mb_rows(x), WARPS),
                               WARPS * 32, 0, mb_f32(out), mb_mat_of<const T>(x), mb_f32(y), loss));
    return MB_OK;
}

mb_status mb_cuda_row_loss_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dout,
                               const mb_tensor *x, const mb_tensor *y, mb_row_loss loss, bool acc)
{
    if (dx == nullptr)
        return MB_OK;
    MB_CUDA_DISPATCH(x->dtype, MB_LAUNCH(ex, (row_loss_bwd_kernel<T>), mb_div_up(mb_rows(x), WARPS),
                                         WARPS * 32, 0, mb_mat_of<T>(dx), mb_f32(dout),
                                         mb_mat_of<const T>(x), mb_f32(y), loss, acc));
    return MB_OK;
}
