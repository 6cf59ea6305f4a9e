/* core/cpu/exact.c - flat gradients: norms by grain, and sums that no order can change.
 *
 * Integers add exactly, so a gradient counted in units of 2^-shift and summed in 64 bits is the same
 * whatever order, thread or rank its parts come from. Flags and maxima are order-free as well.
 */
#include <float.h>
#include <math.h>

#include "core/cpu/rows.h"

/* Sum of squares in f64, element i in lane i % MB_LANES. */
MB_CPU_CLONES static double sum_squares(const float *x, int64_t n)
{
    double lane[MB_LANES] = {0};
    int64_t i = 0;

    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            lane[l] += (double)x[i + l] * (double)x[i + l];
    for (int l = 0; i + l < n; l++)
        lane[l] += (double)x[i + l] * (double)x[i + l];
    for (int half = MB_LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

mb_status mb_cpu_grain_sumsq(mb_exec *ex, mb_tensor *out, const mb_tensor *x)
{
    const int64_t n = mb_tensor_count(x), grains = (n + MB_GRAIN - 1) / MB_GRAIN;
    double *sum = out->data;

    MB_ASSERT(out->dtype == MB_DTYPE_F64 && mb_tensor_count(out) >= grains);
    const int team = mb_team(ex, n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t g = 0; g < grains; g++) {
        const int64_t left = n - g * MB_GRAIN;

        sum[g] = sum_squares(mb_f32(x) + g * MB_GRAIN, left < MB_GRAIN ? left : MB_GRAIN);
    }
    return MB_OK;
}

/* What a span saw. */
struct seen {
    float max; /* of finite |x| */
    int not_finite, too_large;
};

MB_CPU_CLONES static void add_span(int64_t *restrict acc, float *restrict g, double unit,
                                   double limit, int64_t n, struct seen *restrict seen)
{
    float max = 0.0f;
    int not_finite = 0, too_large = 0;

#pragma omp simd reduction(max : max) reduction(| : not_finite, too_large)
    for (int64_t i = 0; i < n; i++) {
        const float a = mb_absf(g[i]);
        const int infinite = !(a <= FLT_MAX);
        const double v = (double)g[i] * unit;
        const int large = !infinite && !((double)a * unit < limit);
        const double w = infinite | large ? 0.0 : v;

        not_finite |= infinite;
        too_large |= large;
        max = !infinite && a > max ? a : max;
        acc[i] += (int64_t)rint(w);
        g[i] = 0.0f;
    }
    *seen = (struct seen){max, not_finite, too_large};
}

mb_status mb_cpu_exact_add(mb_exec *ex, mb_tensor *acc, mb_tensor *g, int shift, double limit,
                           mb_tensor *out)
{
    const mb_spans sp = mb_spans_of(2, (const mb_tensor *const[]){g, acc});
    const double unit = ldexp(1.0, shift), most = limit < 0x1p62 ? limit : 0x1p62;
    int64_t *sum = acc->data;
    float max = 0.0f;
    int not_finite = 0, too_large = 0;

    MB_ASSERT(sp.merged && acc->dtype == MB_DTYPE_I64 && mb_tensor_count(out) >= 3);
    const int team = mb_team(ex, sp.cols);

#pragma omp parallel for num_threads(team) schedule(static) reduction(max    \
                                                                      : max) \
    reduction(|                                                              \
              : not_finite, too_large)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        struct seen s;

        add_span(sum + at.col, mb_f32(g) + at.col, unit, most, at.n, &s);
        max = s.max > max ? s.max : max;
        not_finite |= s.not_finite;
        too_large |= s.too_large;
    }
    float *o = mb_f32(out);
    o[0] = max > o[0] ? max : o[0];
    o[1] = not_finite ? 1.0f : o[1];
    o[2] = too_large ? 1.0f : o[2];
    return MB_OK;
}

MB_CPU_CLONES static void take_span(float *restrict g, int64_t *restrict acc, double factor,
                                    int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        g[i] = (float)((double)acc[i] * factor);
        acc[i] = 0;
    }
}

mb_status mb_cpu_exact_take(mb_exec *ex, mb_tensor *g, mb_tensor *acc, double factor)
{
    const mb_spans sp = mb_spans_of(2, (const mb_tensor *const[]){g, acc});
    int64_t *sum = acc->data;

    MB_ASSERT(sp.merged && acc->dtype == MB_DTYPE_I64);
    const int team = mb_team(ex, sp.cols);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);

        take_span(mb_f32(g) + at.col, sum + at.col, factor, at.n);
    }
    return MB_OK;
}

MB_CPU_CLONES static void absmax_span(const float *x, int64_t n, struct seen *restrict seen)
{
    float max = 0.0f;
    int not_finite = 0;

#pragma omp simd reduction(max : max) reduction(| : not_finite)
    for (int64_t i = 0; i < n; i++) {
        const float a = mb_absf(x[i]);
        const int infinite = !(a <= FLT_MAX);

        not_finite |= infinite;
        max = !infinite && a > max ? a : max;
    }
    *seen = (struct seen){.max = max, .not_finite = not_finite};
}

mb_status mb_cpu_absmax(mb_exec *ex, mb_tensor *out, const mb_tensor *x)
{
    const mb_spans sp = mb_spans_of(1, (const mb_tensor *const[]){x});
    float max = 0.0f;
    int not_finite = 0;

    MB_ASSERT(mb_tensor_count(out) >= 2);
    const int team = mb_team(ex, mb_tensor_count(x));

#pragma omp parallel for num_threads(team) schedule(static) reduction(max    \
                                                                      : max) \
    reduction(|                                                              \
              : not_finite)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        struct seen s;

        absmax_span(mb_span_f32(x, &at), at.n, &s);
        max = s.max > max ? s.max : max;
        not_finite |= s.not_finite;
    }
    float *o = mb_f32(out);
    o[0] = max > o[0] ? max : o[0];
    o[1] = not_finite ? 1.0f : o[1];
    return MB_OK;
}
