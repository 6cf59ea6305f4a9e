/* core/cuda/elementwise.cu - copy, axpy, fill, scale, add, and the sum over rows (bias_bwd).
 *
 * bias_bwd adds in two launches: blocks of rows into partial sums in workspace, then the partial
 * sums of a column, both in an order that the shape gives.
 */
#include "core/cuda/each.h"

namespace {

/* ---- copy ------------------------------------------------------------------------------------ */

template <typename U> struct copy_each {
    U *y;
    const U *x;
    int64_t y_stride, x_stride;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        y[row * y_stride + col] = x[row * x_stride + col];
    }
};

template <typename U>
mb_status copy_units(const mb_exec *ex, const mb_each &e, mb_tensor *y, const mb_tensor *x)
{
    const int64_t size = (int64_t)sizeof(U);
    const mb_each units = {e.rows, mb_dtype_bytes(y->dtype, e.cols) / size, 1};
    const copy_each<U> f = {static_cast<U *>(y->data), static_cast<const U *>(x->data),
                            mb_dtype_bytes(y->dtype, mb_row_stride(y)) / size,
                            mb_dtype_bytes(x->dtype, mb_row_stride(x)) / size};

    return mb_each_launch<1>(ex, units, f);
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

template <typename Y, typename T> struct axpy_each {
    mb_mat<Y> y;
    mb_mat<const T> x;
    float alpha;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        float a[N], b[N];

        mb_load<N>(a, y.row(row) + col);
        mb_load<N>(b, x.row(row) + col);
        MB_UNROLL
        for (int i = 0; i < N; i++)
            a[i] += mb_mul(alpha, b[i]);
        mb_store<N>(y.row(row) + col, a);
    }
};

template <typename T> struct fill_each {
    mb_mat<T> y;
    float value;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        float a[N];

        MB_UNROLL
        for (int i = 0; i < N; i++)
            a[i] = value;
        mb_store<N>(y.row(row) + col, a);
    }
};

template <typename T> struct scale_each {
    mb_mat<T> y;
    mb_mat<const T> x;
    float alpha;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        float a[N];

        mb_load<N>(a, x.row(row) + col);
        MB_UNROLL
        for (int i = 0; i < N; i++)
            a[i] *= alpha;
        mb_store<N>(y.row(row) + col, a);
    }
};

template <typename T> struct add_each {
    mb_mat<T> y;
    mb_mat<const T> a, b;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        float u[N], v[N];

        mb_load<N>(u, a.row(row) + col);
        mb_load<N>(v, b.row(row) + col);
        MB_UNROLL
        for (int i = 0; i < N; i++)
            u[i] += v[i];
        mb_store<N>(y.row(row) + col, u);
    }
};

/* ---- sums over rows -------------------------------------------------------------------------- */

enum { SUM_WARPS = 8, SUM_BLOCK = 32 * SUM_WARPS };

/* Rows per partial sum: long enough to keep the partial sums few, from the shape alone. */
int64_t sum_rows(int64_t rows)
{
    const int64_t least = mb_div_up(rows, 256);

    return (least < 64 ? 64 : least + SUM_WARPS - 1) / SUM_WARPS * SUM_WARPS;
}

/* sum[0] becomes the sum of the block's warps, in their order; warp 0 has it. */
template <int N> MB_DEVICE void sum_warps(float (&sum)[N], float *shared)
{
    MB_UNROLL
    for (int i = 0; i < N; i++)
        shared[(mb_warp() * N + i) * 32 + mb_lane()] = sum[i];
    __syncthreads();
    if (mb_warp() != 0)
        return;
    for (int w = 1; w < SUM_WARPS; w++) {
        MB_UNROLL
        for (int i = 0; i < N; i++)
            sum[i] += shared[(w * N + i) * 32 + mb_lane()];
    }
}

/* A block has 32 * N columns of `per` rows; its warps take every eighth row. */
template <typename T, int N>
MB_GLOBAL void MB_BOUNDS(SUM_BLOCK)
    sum_rows_kernel(float *partial, mb_mat<const T> dy, int64_t per, unsigned tiles)
{
    MB_SHARED(float, shared, SUM_BLOCK *N);
    const unsigned block = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    const int64_t col = ((int64_t)tile * 32 + mb_lane()) * N;
    const int64_t from = block * per, end = from + per < dy.rows ? from + per : dy.rows;
    float sum[N] = {};

    if (col < dy.cols) {
        MB_UNROLL_BY(4)
        for (int64_t r = from + mb_warp(); r < end; r += SUM_WARPS) {
            float v[N];

            mb_load<N>(v, dy.row(r) + col);
            MB_UNROLL
            for (int i = 0; i < N; i++)
                sum[i] += v[i];
        }
    }
    sum_warps<N>(sum, shared);
    if (mb_warp() == 0 && col < dy.cols) {
        MB_UNROLL
        for (int i = 0; i < N; i++)
            partial[(int64_t)block * dy.cols + col + i] = sum[i];
    }
}

/* A block has 32 columns; its warps take every eighth partial sum. */
MB_GLOBAL void MB_BOUNDS(SUM_BLOCK)
    sum_partial_kernel(float *db, const float *partial, int64_t blocks, int64_t cols)
{
    MB_SHARED(float, shared, SUM_BLOCK);
    const int64_t col = (int64_t)blockIdx.x * 32 + mb_lane();
    float sum[1] = {};

    if (col < cols) {
        MB_UNROLL_BY(4)
        for (int64_t b = mb_warp(); b < blocks; b += SUM_WARPS)
            sum[0] += partial[b * cols + col];
    }
    sum_warps<1>(sum, shared);
    if (mb_warp() == 0 && col < cols)
        db[col] += sum[0];
}

template <typename T, int N>
mb_status sum_rows_launch(mb_exec *ex, const mb_tensor *dy, int64_t per, int64_t blocks)
{
    const int64_t tiles = mb_div_up(mb_cols(dy), 32 * N);

    MB_LAUNCH(ex, (sum_rows_kernel<T, N>), blocks * tiles, SUM_BLOCK, 0,
              static_cast<float *>(ex->workspace), mb_mat_of<const T>(dy), per, (unsigned)tiles);
    return MB_OK;
}

} // namespace

/* Any type: bytes are moved. */
mb_status mb_cuda_copy(mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    const mb_tensor *const t[] = {y, x};
    mb_each e;

    MB_TRY(mb_each_alike("copy", 2, t));
    MB_TRY(mb_each_of("copy", 2, t, 1, &e));
    const int width = mb_byte_width(e.rows, mb_dtype_bytes(y->dtype, e.cols), 2, t);

    MB_BYTE_DISPATCH(width, return copy_units<U>(ex, e, y, x));
    return MB_OK;
}

/* The sum may be f32 and what is added of another type. */
mb_status mb_cuda_axpy(mb_exec *ex, mb_tensor *y, float alpha, const mb_tensor *x)
{
    const mb_tensor *const t[] = {y, x};
    const bool mixed = y->dtype == MB_DTYPE_F32 && x->dtype != MB_DTYPE_F32;
    mb_each e;

    if (!mixed)
        MB_TRY(mb_each_alike("axpy", 2, t));
    MB_CUDA_DISPATCH(x->dtype, {
        constexpr int most = mb_each_wide<T>;

        MB_TRY(mb_each_of("axpy", 2, t, mixed ? 4 : most, &e));
        if (mixed)
            return mb_each_run<4>(
                ex, e, axpy_each<float, T>{mb_mat_of<float>(y), mb_mat_of<const T>(x), alpha});
        return mb_each_run<most>(ex, e,
                                 axpy_each<T, T>{mb_mat_of<T>(y), mb_mat_of<const T>(x), alpha});
    });
    return MB_OK;
}

mb_status mb_cuda_fill(mb_exec *ex, mb_tensor *y, float value)
{
    const mb_tensor *const t[] = {y};
    mb_each e;

    MB_CUDA_DISPATCH(y->dtype, {
        MB_TRY(mb_each_of("fill", 1, t, mb_each_wide<T>, &e));
        return mb_each_run<mb_each_wide<T>>(ex, e, fill_each<T>{mb_mat_of<T>(y), value});
    });
    return MB_OK;
}

mb_status mb_cuda_scale(mb_exec *ex, mb_tensor *y, float alpha, const mb_tensor *x)
{
    const mb_tensor *const t[] = {y, x};
    mb_each e;

    MB_TRY(mb_each_alike("scale", 2, t));
    MB_CUDA_DISPATCH(y->dtype, {
        MB_TRY(mb_each_of("scale", 2, t, mb_each_wide<T>, &e));
        return mb_each_run<mb_each_wide<T>>(
            ex, e, scale_each<T>{mb_mat_of<T>(y), mb_mat_of<const T>(x), alpha});
    });
    return MB_OK;
}

mb_status mb_cuda_add(mb_exec *ex, mb_tensor *y, const mb_tensor *a, const mb_tensor *b)
{
    const mb_tensor *const t[] = {y, a, b};
    mb_each e;

    MB_TRY(mb_each_alike("add", 3, t));
    MB_CUDA_DISPATCH(y->dtype, {
        MB_TRY(mb_each_of("add", 3, t, mb_each_wide<T>, &e));
        return mb_each_run<mb_each_wide<T>>(
            ex, e, add_each<T>{mb_mat_of<T>(y), mb_mat_of<const T>(a), mb_mat_of<const T>(b)});
    });
    return MB_OK;
}

size_t mb_cuda_bias_bwd_workspace(mb_exec *ex, mb_tensor *db, const mb_tensor *dy)
{
    (void)ex;
    if (db == nullptr)
        return 0;
    const int64_t rows = mb_rows(dy);

    return sizeof(float) * (size_t)(mb_div_up(rows, sum_rows(rows)) * mb_cols(dy));
}

mb_status mb_cuda_bias_bwd(mb_exec *ex, mb_tensor *db, const mb_tensor *dy)
{
    if (db == nullptr)
        return MB_OK;
    const int64_t rows = mb_rows(dy), cols = mb_cols(dy);
    const int64_t per = sum_rows(rows), blocks = mb_div_up(rows, per);

    MB_REQUIRE(mb_tensor_count(db) == cols && db->dtype == MB_DTYPE_F32, MB_EBUG,
               "bias_bwd: db must be one F32 per column");
    if (rows == 0)
        return MB_OK;
    MB_CUDA_DISPATCH(dy->dtype, {
        if (mb_vec_width<T>(1, &dy, 4) == 4)
            MB_TRY((sum_rows_launch<T, 4>(ex, dy, per, blocks)));
        else
            MB_TRY((sum_rows_launch<T, 1>(ex, dy, per, blocks)));
    });
    MB_LAUNCH(ex, sum_partial_kernel, mb_div_up(cols, 32), SUM_BLOCK, 0, mb_f32(db),
              static_cast<const float *>(ex->workspace), blocks, cols);
    return MB_OK;
}
