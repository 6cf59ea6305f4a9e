/* core/cpu/activation.c - activation functions and gated units.
 *
 * An activation is a value and a slope at x, and one row of a table, made from them by STRIP:
 *
 *     silu x/(1+e^-x);  gelu x/2 (1+erf(x/sqrt 2));  gelu_tanh x/2 (1+tanh(sqrt(2/pi)(x+0.044715
 *     x^3)));  relu max(x, 0), slope 0 at 0;  tanh
 *
 * Strips of any types stay in the first-level cache between steps (core/cpu/strip.h). For bf16 that is
 * as fast as one loop from reading to rounding, whose long chains keep the processor waiting.
 */
#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

/* value[i] = f(x[i]); slope[i] = f'(x[i]) unless slope is NULL */
typedef void activation_fn(float *restrict value, float *restrict slope, const float *restrict x,
                           int64_t n);

MB_INLINE float sigmoid(float x)
{
    return 1.0f / (1.0f + mb_expf(-x));
}

MB_INLINE float silu_at(float x, float *slope)
{
    const float s = sigmoid(x);

    *slope = s * (1.0f + x * (1.0f - s));
    return x * s;
}

MB_INLINE float gelu_at(float x, float *slope)
{
    float density;
    const float below = mb_normalf(x, &density);

    *slope = below + x * density;
    return x * below;
}

/* (1 + tanh u)/2 is sigmoid(2u), which needs one exponential and keeps small values exact. Beyond
 * 16 both ends are reached; the bound keeps the cubic from overflowing. */
MB_INLINE float gelu_tanh_at(float x, float *slope)
{
    const float k = 1.59576912f, cubic = 0.044715f; /* k = 2 sqrt(2/pi) */
    const float low = x < -16.0f ? -16.0f : x, c = low > 16.0f ? 16.0f : low;
    const float s = sigmoid(k * (c + cubic * c * c * c));

    *slope = s + c * s * (1.0f - s) * (k * (1.0f + 3.0f * cubic * c * c));
    return x * s;
}

MB_INLINE float relu_at(float x, float *slope)
{
    *slope = x > 0.0f ? 1.0f : 0.0f;
    return x < 0.0f ? 0.0f : x;
}

MB_INLINE float tanh_at(float x, float *slope)
{
    const float y = mb_tanhf(x);

    *slope = 1.0f - y * y;
    return y;
}

#define STRIP(name)                                                                      \
    MB_CPU_CLONES static void name##_strip(float *restrict value, float *restrict slope, \
                                           const float *restrict x, int64_t n)           \
    {                                                                                    \
        float s;                                                                         \
                                                                                         \
        if (slope == NULL)                                                               \
            for (int64_t i = 0; i < n; i++)                                              \
                value[i] = name##_at(x[i], &s);                                          \
        else                                                                             \
            for (int64_t i = 0; i < n; i++)                                              \
                value[i] = name##_at(x[i], slope + i);                                   \
    }

STRIP(silu)
STRIP(gelu)
STRIP(gelu_tanh)
STRIP(relu)
STRIP(tanh)

static activation_fn *const activation[MB_ACT_COUNT] = {
    [MB_ACT_SILU] = silu_strip, [MB_ACT_GELU] = gelu_strip, [MB_ACT_GELU_TANH] = gelu_tanh_strip,
    [MB_ACT_RELU] = relu_strip, [MB_ACT_TANH] = tanh_strip,
};

/* y (+)= a * b */
MB_CPU_CLONES static void product(float *y, const float *a, const float *b, bool acc, int64_t n)
{
    if (acc) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] += a[i] * b[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = a[i] * b[i];
    }
}

/* y (+)= a * b * c */
MB_CPU_CLONES static void product3(float *y, const float *a, const float *b, const float *c,
                                   bool acc, int64_t n)
{
    if (acc) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] += a[i] * b[i] * c[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = a[i] * b[i] * c[i];
    }
}

/* y = f(gate) up; up NULL for 1 */
static mb_status forward(mb_exec *ex, mb_tensor *y, const mb_tensor *gate, const mb_tensor *up,
                         mb_activation f)
{
    const mb_tensor *const all[] = {y, gate, up};
    const mb_spans sp = mb_spans_of(3, all);
    const int team = mb_team(ex, mb_tensor_count(y));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        mb_strip value, in;

        for (int64_t i = 0; i < at.n; i += MB_STRIP) {
            const int64_t n = mb_strip_length(at.n, i), col = at.col + i;

            activation[f](value, NULL, mb_strip_read(in, gate, at.row, col, n), n);
            const float *u = mb_strip_read(in, up, at.row, col, n);
            float *to = mb_strip_open(value, y, at.row, col, n, false);

            if (u != NULL)
                product(to, value, u, false, n);
            else if (to != value)
                memcpy(to, value, sizeof *value * (size_t)n);
            mb_strip_close(to, y, at.row, col, n);
        }
    }
    return MB_OK;
}

mb_status mb_cpu_activation_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *x, mb_activation f)
{
    return forward(ex, y, x, NULL, f);
}

mb_status mb_cpu_glu_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *gate, const mb_tensor *up,
                         mb_activation f)
{
    return forward(ex, y, gate, up, f);
}

mb_status mb_cpu_activation_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dy, const mb_tensor *x,
                                mb_activation f, bool acc)
{
    if (dx == NULL)
        return MB_OK;
    const mb_tensor *const all[] = {dx, dy, x};
    const mb_spans sp = mb_spans_of(3, all);
    const int team = mb_team(ex, mb_tensor_count(x));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        mb_strip value, slope, in;

        for (int64_t i = 0; i < at.n; i += MB_STRIP) {
            const int64_t n = mb_strip_length(at.n, i), col = at.col + i;

            activation[f](value, slope, mb_strip_read(in, x, at.row, col, n), n);
            const float *g = mb_strip_read(in, dy, at.row, col, n);
            float *to = mb_strip_open(value, dx, at.row, col, n, acc);

            product(to, g, slope, acc, n);
            mb_strip_close(to, dx, at.row, col, n);
        }
    }
    return MB_OK;
}

mb_status mb_cpu_glu_bwd(mb_exec *ex, mb_tensor *dgate, mb_tensor *dup, const mb_tensor *dy,
                         const mb_tensor *gate, const mb_tensor *up, mb_activation f, bool acc)
{
    const mb_tensor *const all[] = {gate, up, dy, dgate, dup};
    const mb_spans sp = mb_spans_of(5, all);
    const int team = mb_team(ex, mb_tensor_count(gate));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        mb_strip value, slope, g, in, out;

        for (int64_t i = 0; i < at.n; i += MB_STRIP) {
            const int64_t n = mb_strip_length(at.n, i), col = at.col + i;

            activation[f](value, slope, mb_strip_read(in, gate, at.row, col, n), n);
            /* dy may be the place of dgate or dup */
            const float *d = mb_strip_read(g, dy, at.row, col, n);
            if (d != g)
                memcpy(g, d, sizeof *g * (size_t)n);
            if (dgate != NULL) {
                const float *u = mb_strip_read(in, up, at.row, col, n);
                float *to = mb_strip_open(out, dgate, at.row, col, n, acc);

                product3(to, g, u, slope, acc, n);
                mb_strip_close(to, dgate, at.row, col, n);
            }
            if (dup != NULL) {
                float *to = mb_strip_open(out, dup, at.row, col, n, acc);

                product(to, g, value, acc, n);
                mb_strip_close(to, dup, at.row, col, n);
            }
        }
    }
    return MB_OK;
}
