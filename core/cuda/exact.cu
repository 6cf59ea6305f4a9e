/* core/cuda/exact.cu - flat gradients: norms by grain, and sums that no order can change.
 *
 * Integers add exactly, so a gradient counted in units of 2^-shift and summed in 64 bits is the same
 * whatever order, thread or rank its parts come from. Maxima are taken over the bits of magnitudes,
 * which order like integers, and flags are or-ed: order-free as well. All results are the bits of
 * core/cpu/exact.c: a square of a float is exact in f64, a multiplication by a power of two too, so
 * contraction changes nothing here.
 */
#include <float.h>
#include <math.h>

#include "core/cuda/cuda.h"

namespace {

enum { LANES = 16, BLOCK = 256, WARPS = BLOCK / 32, LENGTH = 4, ROUNDS = 4 };
enum { SPAN = BLOCK * LENGTH * ROUNDS }; /* elements of a block */

const uint32_t ONE = 0x3f800000u; /* the bits of 1.0f */

/* Half a warp sums a grain as the CPU does: element i in lane i % 16, in order, then the lanes as a
 * tree of halves. */
MB_GLOBAL MB_BOUNDS(BLOCK) void sumsq_kernel(double *out, const float *x, int64_t n)
{
    const int64_t grain = ((int64_t)blockIdx.x * WARPS + mb_warp()) * 2 + mb_lane() / LANES;
    const int64_t left = n - grain * MB_GRAIN;
    const int count = left < 0 ? 0 : left < MB_GRAIN ? (int)left : MB_GRAIN;
    const float *from = x + grain * MB_GRAIN;
    double sum = 0.0;
    int i = mb_lane() % LANES;

    for (; i + 7 * LANES < count; i += 8 * LANES) { /* eight in flight */
        float v[8];

        MB_UNROLL
        for (int j = 0; j < 8; j++)
            v[j] = from[i + j * LANES];
        MB_UNROLL
        for (int j = 0; j < 8; j++)
            sum += (double)v[j] * (double)v[j];
    }
    for (; i < count; i += LANES)
        sum += (double)from[i] * (double)from[i];
    for (int half = LANES / 2; half > 0; half /= 2)
        sum += mb_shfl_xor(sum, half);
    if (count > 0 && mb_lane() % LANES == 0)
        out[grain] = sum;
}

/* What a thread saw: the largest finite magnitude as bits. */
struct seen {
    uint32_t max;
    uint32_t not_finite, too_large; /* 1 or 0 */
};

MB_DEVICE bool look(seen &s, float x)
{
    const uint32_t bits = mb_bits(x) & 0x7fffffffu;

    if (bits >= 0x7f800000u) {
        s.not_finite = 1;
        return false;
    }
    s.max = bits > s.max ? bits : s.max;
    return true;
}

/* One atomic of each kind for a block at most. */
MB_DEVICE void report(uint32_t *out, const seen &s, float *part)
{
    const float max = mb_block_max(mb_from_bits(s.max), part);

    if (threadIdx.x == 0 && max > 0.0f)
        mb_atomic_max(out, mb_bits(max));
    if (mb_ballot(s.not_finite != 0) != 0 && mb_lane() == 0)
        mb_atomic_or(out + 1, ONE);
    if (mb_ballot(s.too_large != 0) != 0 && mb_lane() == 0)
        mb_atomic_or(out + 2, ONE);
}

/* What g adds in units, 0 when it is left out. */
MB_DEVICE int64_t units(seen &s, float g, double unit, double limit)
{
    const double v = (double)g * unit;

    if (!look(s, g))
        return 0;
    if (!(fabs(v) < limit)) {
        s.too_large = 1;
        return 0;
    }
    return (int64_t)rint(v);
}

MB_GLOBAL MB_BOUNDS(BLOCK) void add_kernel(int64_t *acc, float *g, int64_t n, double unit,
                                           double limit, uint32_t *out, bool vector)
{
    MB_SHARED(float, part, 32);
    const int64_t first = (int64_t)blockIdx.x * SPAN + (int)threadIdx.x * LENGTH;
    seen s = {0, 0, 0};

    for (int k = 0; k < ROUNDS; k++) {
        const int64_t at = first + k * BLOCK * LENGTH;

        if (vector && at + LENGTH <= n) {
            const mb_vec<float, 4> v = *reinterpret_cast<const mb_vec<float, 4> *>(g + at);
            const mb_vec<float, 4> zeros = {};
            mb_vec<int64_t, 2> sum[2];

            MB_UNROLL
            for (int h = 0; h < 2; h++) {
                sum[h] = *reinterpret_cast<const mb_vec<int64_t, 2> *>(acc + at + 2 * h);
                sum[h].at[0] += units(s, v.at[2 * h], unit, limit);
                sum[h].at[1] += units(s, v.at[2 * h + 1], unit, limit);
                *reinterpret_cast<mb_vec<int64_t, 2> *>(acc + at + 2 * h) = sum[h];
            }
            *reinterpret_cast<mb_vec<float, 4> *>(g + at) = zeros;
        } else {
            for (int64_t i = at; i < at + LENGTH && i < n; i++) {
                acc[i] += units(s, g[i], unit, limit);
                g[i] = 0.0f;
            }
        }
    }
    report(out, s, part);
}

/* A block adds a span. */
MB_GLOBAL MB_BOUNDS(BLOCK) void merge_kernel(int64_t *acc, const int64_t *x, int64_t n)
{
    const int64_t from = (int64_t)blockIdx.x * SPAN, end = from + SPAN;

    for (int64_t i = from + threadIdx.x; i < end && i < n; i += BLOCK)
        acc[i] += x[i];
}

MB_GLOBAL MB_BOUNDS(BLOCK) void take_kernel(float *g, int64_t *acc, int64_t n, double factor,
                                            bool vector)
{
    const int64_t first = (int64_t)blockIdx.x * SPAN + (int)threadIdx.x * LENGTH;

    for (int k = 0; k < ROUNDS; k++) {
        const int64_t at = first + k * BLOCK * LENGTH;

        if (vector && at + LENGTH <= n) {
            mb_vec<int64_t, 2> *const sum = reinterpret_cast<mb_vec<int64_t, 2> *>(acc + at);
            const mb_vec<int64_t, 2> low = sum[0], high = sum[1], zeros = {};
            const float v[LENGTH] = {
                (float)((double)low.at[0] * factor), (float)((double)low.at[1] * factor),
                (float)((double)high.at[0] * factor), (float)((double)high.at[1] * factor)};

            mb_store(g + at, v);
            sum[0] = zeros;
            sum[1] = zeros;
        } else {
            for (int64_t i = at; i < at + LENGTH && i < n; i++) {
                g[i] = (float)((double)acc[i] * factor);
                acc[i] = 0;
            }
        }
    }
}

/* A block has SPAN columns of a row. */
template <typename T>
MB_GLOBAL MB_BOUNDS(BLOCK) void absmax_kernel(uint32_t *out, mb_mat<T> x, uint32_t spans,
                                              bool vector)
{
    MB_SHARED(float, part, 32);
    const T *row = x.row(blockIdx.x / spans);
    const int64_t first = (int64_t)(blockIdx.x % spans) * SPAN + (int)threadIdx.x * LENGTH;
    seen s = {0, 0, 0};

    for (int k = 0; k < ROUNDS; k++) {
        const int64_t at = first + k * BLOCK * LENGTH;

        if (vector && at + LENGTH <= x.cols) {
            float v[LENGTH];

            mb_load(v, row + at);
            MB_UNROLL
            for (int i = 0; i < LENGTH; i++)
                look(s, v[i]);
        } else {
            for (int64_t i = at; i < at + LENGTH && i < x.cols; i++)
                look(s, mb_to_f32(row[i]));
        }
    }
    report(out, s, part);
}

bool flat(const mb_tensor *t, mb_dtype dtype, int64_t n)
{
    return t->dtype == dtype && mb_tensor_count(t) == n && mb_tensor_is_contiguous(t);
}

bool aligned(const mb_tensor *t, size_t bytes)
{
    return reinterpret_cast<uintptr_t>(t->data) % bytes == 0;
}

/* The limits of a maximum and two flags in device memory. */
bool report_fits(const mb_tensor *out, int64_t n)
{
    return out->dtype == MB_DTYPE_F32 && mb_tensor_count(out) >= n;
}

template <typename T> mb_status absmax(mb_exec *ex, mb_tensor *out, const mb_tensor *x)
{
    mb_mat<T> m = mb_mat_of<T>(x);

    if (mb_tensor_is_contiguous(x)) {
        m.cols *= m.rows;
        m.rows = 1;
    }
    const bool vector = aligned(x, LENGTH * sizeof(T)) && (m.rows == 1 || m.stride % LENGTH == 0);
    const int64_t spans = mb_div_up(m.cols, SPAN);

    MB_LAUNCH(ex, (absmax_kernel<T>), m.rows * spans, BLOCK, 0, static_cast<uint32_t *>(out->data),
              m, (uint32_t)spans, vector);
    return MB_OK;
}

} // namespace

extern "C" mb_status mb_cuda_grain_sumsq(mb_exec *ex, mb_tensor *out, const mb_tensor *x)
{
    const int64_t n = mb_tensor_count(x), grains = mb_div_up(n, MB_GRAIN);

    MB_REQUIRE(flat(x, MB_DTYPE_F32, n) && out->dtype == MB_DTYPE_F64 &&
                   mb_tensor_count(out) >= grains,
               MB_EBUG, "grain_sumsq: shapes or types do not fit");
    MB_LAUNCH(ex, sumsq_kernel, mb_div_up(grains, 2 * WARPS), BLOCK, 0,
              static_cast<double *>(out->data), mb_f32(x), n);
    return MB_OK;
}

extern "C" mb_status mb_cuda_exact_add(mb_exec *ex, mb_tensor *acc, mb_tensor *g, int shift,
                                       double limit, mb_tensor *out)
{
    const int64_t n = mb_tensor_count(g);
    const double most = limit < 0x1p62 ? limit : 0x1p62;

    MB_REQUIRE(flat(g, MB_DTYPE_F32, n) && flat(acc, MB_DTYPE_I64, n) && report_fits(out, 3),
               MB_EBUG, "exact_add: shapes or types do not fit");
    MB_LAUNCH(ex, add_kernel, mb_div_up(n, SPAN), BLOCK, 0, static_cast<int64_t *>(acc->data),
              mb_f32(g), n, ldexp(1.0, shift), most, static_cast<uint32_t *>(out->data),
              aligned(acc, 16) && aligned(g, 16));
    return MB_OK;
}

extern "C" mb_status mb_cuda_exact_merge(mb_exec *ex, mb_tensor *acc, const mb_tensor *x)
{
    const int64_t n = mb_tensor_count(acc);

    MB_REQUIRE(flat(acc, MB_DTYPE_I64, n) && flat(x, MB_DTYPE_I64, n), MB_EBUG,
               "exact_merge: shapes or types do not fit");
    MB_LAUNCH(ex, merge_kernel, mb_div_up(n, SPAN), BLOCK, 0, static_cast<int64_t *>(acc->data),
              static_cast<const int64_t *>(x->data), n);
    return MB_OK;
}

extern "C" mb_status mb_cuda_exact_take(mb_exec *ex, mb_tensor *g, mb_tensor *acc, double factor)
{
    const int64_t n = mb_tensor_count(g);

    MB_REQUIRE(flat(g, MB_DTYPE_F32, n) && flat(acc, MB_DTYPE_I64, n), MB_EBUG,
               "exact_take: shapes or types do not fit");
    MB_LAUNCH(ex, take_kernel, mb_div_up(n, SPAN), BLOCK, 0, mb_f32(g),
              static_cast<int64_t *>(acc->data), n, factor, aligned(acc, 16) && aligned(g, 16));
    return MB_OK;
}

extern "C" mb_status mb_cuda_absmax(mb_exec *ex, mb_tensor *out, const mb_tensor *x)
{
    MB_REQUIRE(report_fits(out, 2), MB_EBUG, "absmax: shapes or types do not fit");
    if (mb_tensor_count(x) == 0)
        return MB_OK;
    MB_CUDA_DISPATCH(x->dtype, MB_TRY(absmax<T>(ex, out, x)));
    return MB_OK;
}
