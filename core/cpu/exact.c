/* core/cpu/exact.c - flat gradients: norms by grain, and sums that no order can change.
 *
 * Integers add exactly, so a gradient counted in units of 2^-shift and summed in 64 bits is the same
 * whatever order, thread or rank its parts come from. Flags and maxima are order-free as well.
 */
#include <float.h>
#include <math.h> /* ldexp */

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

enum { STRIP = 1024 };

/* What a strip or span saw. */
struct seen {
    float max; /* of finite |x| */
    int not_finite, too_large;
};

static void merge(struct seen *all, const struct seen *s)
{
    all->max = s->max > all->max ? s->max : all->max;
    all->not_finite |= s->not_finite;
    all->too_large |= s->too_large;
}

/* The largest |x| as bits: magnitudes order like integers, infinity and NaN above all others. */
MB_CPU_CLONES static uint32_t top_bits(const float *x, int64_t n)
{
    uint32_t top = 0;

    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = mb_bits_of_float(x[i]) & 0x7fffffffu;

        top = bits > top ? bits : top;
    }
    return top;
}

/* Element by element: leaves out what is not finite or too large, clearing it in x when `clear`. */
static struct seen look(float *x, double unit, double limit, int64_t n, bool clear)
{
    struct seen s = {0};

    for (int64_t i = 0; i < n; i++) {
        const float a = mb_absf(x[i]);

        if (!(a <= FLT_MAX)) {
            s.not_finite = 1;
        } else {
            s.max = a > s.max ? a : s.max;
            if ((double)a * unit < limit)
                continue;
            s.too_large = 1;
        }
        if (clear)
            x[i] = 0.0f;
    }
    return s;
}

static inline int64_t bits_of_double(double d)
{
    union {
        double d;
        int64_t i;
    } v = {.d = d};
    return v.i;
}

/* acc += rint(g * unit), g = 0, for |g * unit| < 2^62. Adding 1.5 * 2^52 rounds to an integer that
 * then stands in the low bits; it is done for the multiple of 2^32 and for the rest, both exact, as
 * plain SSE2 and AVX2 cannot convert to 64 bits. */
MB_CPU_CLONES static void add_strip(int64_t *restrict acc, float *restrict g, double unit,
                                    int64_t n)
{
    const double magic = 0x1.8p52;
    const int64_t zero = bits_of_double(magic);

    for (int64_t i = 0; i < n; i++) {
        const double v = (double)g[i] * unit;
        const double high = v * 0x1p-32 + magic;
        const double low = (v - (high - magic) * 0x1p32) + magic;
        const uint64_t units = (uint64_t)(bits_of_double(high) - zero) << 32;

        acc[i] = (int64_t)((uint64_t)acc[i] + units + (uint64_t)(bits_of_double(low) - zero));
        g[i] = 0.0f;
    }
}

static struct seen add_span(int64_t *acc, float *g, double unit, double limit, int64_t n)
{
    struct seen all = {0};

    for (int64_t i = 0; i < n; i += STRIP) {
        const int64_t m = n - i < STRIP ? n - i : STRIP;
        const uint32_t top = top_bits(g + i, m);
        struct seen s = {.max = mb_float_of_bits(top)};

        if (!(s.max <= FLT_MAX && (double)s.max * unit < limit))
            s = look(g + i, unit, limit, m, true);
        add_strip(acc + i, g + i, unit, m);
        merge(&all, &s);
    }
    return all;
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
        const struct seen s = add_span(sum + at.col, mb_f32(g) + at.col, unit, most, at.n);

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

MB_CPU_CLONES static void merge_span(int64_t *restrict acc, const int64_t *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        acc[i] += x[i];
}

mb_status mb_cpu_exact_merge(mb_exec *ex, mb_tensor *acc, const mb_tensor *x)
{
    const mb_spans sp = mb_spans_of(2, (const mb_tensor *const[]){acc, x});
    int64_t *sum = acc->data;
    const int64_t *more = x->data;

    MB_ASSERT(sp.merged && acc->dtype == MB_DTYPE_I64 && x->dtype == MB_DTYPE_I64);
    const int team = mb_team(ex, sp.cols);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);

        merge_span(sum + at.col, more + at.col, at.n);
    }
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
        float *from = mb_span_f32(x, &at);
        struct seen s = {.max = mb_float_of_bits(top_bits(from, at.n))};

        if (!(s.max <= FLT_MAX))
            s = look(from, 0.0, 1.0, at.n, false);
        max = s.max > max ? s.max : max;
        not_finite |= s.not_finite;
    }
    float *o = mb_f32(out);
    o[0] = max > o[0] ? max : o[0];
    o[1] = not_finite ? 1.0f : o[1];
    return MB_OK;
}
