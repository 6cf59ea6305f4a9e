/* core/cpu/activation.c - activation functions and gated units.
 *
 * An activation is one row of a table: a function that turns a strip of x into values and, when
 * asked, slopes. The kernels combine strips that stay in the first-level cache:
 *
 *     silu x/(1+e^-x);  gelu x/2 (1+erf(x/sqrt 2));  gelu_tanh x/2 (1+tanh(sqrt(2/pi)(x+0.044715
 *     x^3)));  relu max(x, 0), slope 0 at 0;  tanh
 */
#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

/* value[i] = f(x[i]); slope[i] = f'(x[i]) unless slope is NULL. */
typedef void (*strip_fn)(float *restrict value, float *restrict slope, const float *restrict x,
                         int64_t n);

static inline float sigmoid(float x)
{
    return 1.0f / (1.0f + mb_expf(-x));
}

MB_CPU_CLONES static void silu(float *restrict value, float *restrict slope,
                               const float *restrict x, int64_t n)
{
    if (slope == NULL) {
        for (int64_t i = 0; i < n; i++)
            value[i] = x[i] * sigmoid(x[i]);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const float s = sigmoid(x[i]);

        value[i] = x[i] * s;
        slope[i] = s * (1.0f + x[i] * (1.0f - s));
    }
}

MB_CPU_CLONES static void gelu(float *restrict value, float *restrict slope,
                               const float *restrict x, int64_t n)
{
    const float root_half = 0.70710678f, density = 0.39894228f; /* 1/sqrt(2 pi) */

    if (slope == NULL) {
        for (int64_t i = 0; i < n; i++)
            value[i] = x[i] * (0.5f * (1.0f + mb_erff(x[i] * root_half)));
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const float cdf = 0.5f * (1.0f + mb_erff(x[i] * root_half));

        value[i] = x[i] * cdf;
        slope[i] = cdf + x[i] * density * mb_expf(-0.5f * x[i] * x[i]);
    }
}

/* (1 + tanh u)/2 is sigmoid(2u), which needs one exponential and keeps small values exact. Beyond
 * 16 both ends are reached; the bound keeps the cubic from overflowing. */
MB_CPU_CLONES static void gelu_tanh(float *restrict value, float *restrict slope,
                                    const float *restrict x, int64_t n)
{
    const float k = 1.59576912f, cubic = 0.044715f; /* k = 2 sqrt(2/pi) */

    if (slope == NULL) {
        for (int64_t i = 0; i < n; i++) {
            const float low = x[i] < -16.0f ? -16.0f : x[i], c = low > 16.0f ? 16.0f : low;

            value[i] = x[i] * sigmoid(k * (c + cubic * c * c * c));
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const float low = x[i] < -16.0f ? -16.0f : x[i], c = low > 16.0f ? 16.0f : low;
        const float s = sigmoid(k * (c + cubic * c * c * c));

        value[i] = x[i] * s;
        slope[i] = s + c * s * (1.0f - s) * (k * (1.0f + 3.0f * cubic * c * c));
    }
}

MB_CPU_CLONES static void relu(float *restrict value, float *restrict slope,
                               const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        value[i] = x[i] < 0.0f ? 0.0f : x[i];
    if (slope == NULL)
        return;
    for (int64_t i = 0; i < n; i++)
        slope[i] = x[i] > 0.0f ? 1.0f : 0.0f;
}

MB_CPU_CLONES static void hyperbolic(float *restrict value, float *restrict slope,
                                     const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        value[i] = mb_tanhf(x[i]);
    if (slope == NULL)
        return;
    for (int64_t i = 0; i < n; i++)
        slope[i] = 1.0f - value[i] * value[i];
}

static const strip_fn activation[MB_ACT_COUNT] = {
    [MB_ACT_SILU] = silu, [MB_ACT_GELU] = gelu,       [MB_ACT_GELU_TANH] = gelu_tanh,
    [MB_ACT_RELU] = relu, [MB_ACT_TANH] = hyperbolic,
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

mb_status mb_cpu_activation_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *x, mb_activation f)
{
    const mb_spans sp = mb_spans_of(2, (const mb_tensor *const[]){y, x});
    const int team = mb_team(ex, mb_tensor_count(y));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        mb_strip value, in;

        for (int64_t i = 0; i < at.n; i += MB_STRIP) {
            const int64_t n = mb_strip_length(at.n, i), col = at.col + i;
            float *to = mb_strip_open(value, y, at.row, col, n, false);

            activation[f](value, NULL, mb_strip_read(in, x, at.row, col, n), n);
            if (to != value)
                memcpy(to, value, sizeof *value * (size_t)n);
            mb_strip_close(value, y, at.row, col, n);
        }
    }
    return MB_OK;
}

mb_status mb_cpu_activation_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dy, const mb_tensor *x,
                                mb_activation f, bool acc)
{
    if (dx == NULL)
        return MB_OK;
    const mb_spans sp = mb_spans_of(3, (const mb_tensor *const[]){dx, dy, x});
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

mb_status mb_cpu_glu_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *gate, const mb_tensor *up,
                         mb_activation f)
{
    const mb_spans sp = mb_spans_of(3, (const mb_tensor *const[]){y, gate, up});
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

            product(to, value, u, false, n);
            mb_strip_close(to, y, at.row, col, n);
        }
    }
    return MB_OK;
}

mb_status mb_cpu_glu_bwd(mb_exec *ex, mb_tensor *dgate, mb_tensor *dup, const mb_tensor *dy,
                         const mb_tensor *gate, const mb_tensor *up, mb_activation f, bool acc)
{
    const mb_spans sp = mb_spans_of(5, (const mb_tensor *const[]){gate, up, dy, dgate, dup});
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
