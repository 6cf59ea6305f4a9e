/* core/cuda/unfold.cu - the windows of a convolution over rows, laid side by side, and back.
 *
 * Every thread writes elements of its own: a column of x and its place in a window are one column of y,
 * and an element of dx adds its windows in their order.
 */
#include "core/cuda/each.h"

namespace {

template <typename T> struct unfold_each {
    mb_mat<T> y;
    mb_mat<const T> x;
    mb_unfold u;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        const int64_t s = row / u.out_len, c = col / u.kernel, j = col % u.kernel;
        const int64_t from = row % u.out_len * u.stride + j - u.pad;
        const bool there = from >= 0 && from < u.in_len && s * u.in_len + from < x.rows;

        y.row(row)[col] = there ? x.row(s * u.in_len + from)[c] : T{};
    }
};

template <typename T> struct fold_each {
    mb_mat<T> dx;
    mb_mat<const T> dy;
    mb_unfold u;
    bool acc;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        const int64_t s = row / u.in_len, place = row % u.in_len + u.pad;
        float sum[1] = {0.0f}, part[1];

        if (acc)
            mb_load<1>(sum, dx.row(row) + col);
        for (int64_t j = 0; j < u.kernel && j <= place; j++) {
            const int64_t t = (place - j) / u.stride, i = s * u.out_len + t;

            if ((place - j) % u.stride == 0 && t < u.out_len && i < dy.rows) {
                mb_load<1>(part, dy.row(i) + col * u.kernel + j);
                sum[0] += part[0];
            }
        }
        mb_store<1>(dx.row(row) + col, sum);
    }
};

mb_status check(const char *kernel, const mb_tensor *wide, const mb_tensor *narrow,
                const mb_unfold *u)
{
    const mb_tensor *const t[] = {wide, narrow};

    MB_TRY(mb_each_alike(kernel, 2, t));
    MB_REQUIRE(mb_cols(wide) == mb_cols(narrow) * u->kernel && u->in_len > 0 && u->out_len > 0,
               MB_EBUG, "%s: shapes that do not fit", kernel);
    return MB_OK;
}

} // namespace

mb_status mb_cuda_unfold(mb_exec *ex, mb_tensor *y, const mb_tensor *x, const mb_unfold *u)
{
    const mb_each e = {mb_rows(y), mb_cols(y), 1};

    MB_TRY(check("unfold", y, x, u));
    MB_CUDA_DISPATCH(x->dtype,
                     return mb_each_launch<1>(
                         ex, e, unfold_each<T>{mb_mat_of<T>(y), mb_mat_of<const T>(x), *u}));
    return MB_OK;
}

mb_status mb_cuda_unfold_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dy, const mb_unfold *u,
                             bool acc)
{
    if (dx == nullptr)
        return MB_OK;
    const mb_each e = {mb_rows(dx), mb_cols(dx), 1};

    MB_TRY(check("unfold_bwd", dy, dx, u));
    MB_CUDA_DISPATCH(dx->dtype,
                     return mb_each_launch<1>(
                         ex, e, fold_each<T>{mb_mat_of<T>(dx), mb_mat_of<const T>(dy), *u, acc}));
    return MB_OK;
}
