/* core/cpu/activation.c - activation functions and gated units.
 *
 * An activation is a value and a slope at x, and one row of a table, made from them by UNIT:
 *
 *     silu x/(1+e^-x);  gelu x/2 (1+erf(x/sqrt 2));  gelu_tanh x/2 (1+tanh(sqrt(2/pi)(x+0.044715
 *     x^3)));  relu max(x, 0), slope 0 at 0;  tanh
 *
 * Strips of any types stay in the first-level cache between steps (core/cpu/strip.h). Where all is
 * bf16 and the processor has AVX-512, numbers stay in registers from reading to rounding instead; the
 * bits are the same.
 */
#include "core/cpu/init.h"
#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

typedef struct unit {
    /* value[i] = f(x[i]); slope[i] = f'(x[i]) unless slope is NULL */
    void (*strip)(float *restrict value, float *restrict slope, const float *restrict x, int64_t n);
    /* bf16: y = f(gate) up, up NULL for 1 */
    void (*fwd)(uint16_t *y, const uint16_t *gate, const uint16_t *up, int64_t n);
    /* bf16: dgate = dy up f'(gate); dup = dy f(gate); up and dup NULL: none */
    void (*bwd)(uint16_t *dgate, uint16_t *dup, const uint16_t *dy, const uint16_t *gate,
                const uint16_t *up, int64_t n);
} unit;

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

/* A place may be written that is read in the same step: iterations know nothing of each other. */
#define EACH  _Pragma("omp simd") for (int64_t i = 0; i < n; i++)
#define AT(x) mb_bf16_to_f32((x)[i])

#define UNIT(name)                                                                              \
    MB_CPU_CLONES static void name##_strip(float *restrict value, float *restrict slope,        \
                                           const float *restrict x, int64_t n)                  \
    {                                                                                           \
        float s;                                                                                \
                                                                                                \
        if (slope == NULL)                                                                      \
            for (int64_t i = 0; i < n; i++)                                                     \
                value[i] = name##_at(x[i], &s);                                                 \
        else                                                                                    \
            for (int64_t i = 0; i < n; i++)                                                     \
                value[i] = name##_at(x[i], slope + i);                                          \
    }                                                                                           \
    MB_CPU_CLONES static void name##_fwd(uint16_t *y, const uint16_t *gate, const uint16_t *up, \
                                         int64_t n)                                             \
    {                                                                                           \
        float s;                                                                                \
                                                                                                \
        if (up == NULL)                                                                         \
            EACH y[i] = mb_f32_to_bf16(name##_at(AT(gate), &s));                                \
        else                                                                                    \
            EACH y[i] = mb_f32_to_bf16(name##_at(AT(gate), &s) * AT(up));                       \
    }                                                                                           \
    MB_CPU_CLONES static void name##_bwd(uint16_t *dgate, uint16_t *dup, const uint16_t *dy,    \
                                         const uint16_t *gate, const uint16_t *up, int64_t n)   \
    {                                                                                           \
        if (up == NULL)                                                                         \
            EACH                                                                                \
            {                                                                                   \
                float s;                                                                        \
                name##_at(AT(gate), &s);                                                        \
                dgate[i] = mb_f32_to_bf16(AT(dy) * s);                                          \
            }                                                                                   \
        else                                                                                    \
            EACH                                                                                \
            {                                                                                   \
                const float g = AT(dy);                                                         \
                float s, value = name##_at(AT(gate), &s);                                       \
                dgate[i] = mb_f32_to_bf16(g * AT(up) * s);                                      \
                dup[i] = mb_f32_to_bf16(g * value);                                             \
            }                                                                                   \
    }                                                                                           \
    static const unit name##_unit = {name##_strip, name##_fwd, name##_bwd};

UNIT(silu)
UNIT(gelu)
UNIT(gelu_tanh)
UNIT(relu)
UNIT(tanh)

static const unit *const activation[MB_ACT_COUNT] = {
    [MB_ACT_SILU] = &silu_unit, [MB_ACT_GELU] = &gelu_unit, [MB_ACT_GELU_TANH] = &gelu_tanh_unit,
    [MB_ACT_RELU] = &relu_unit, [MB_ACT_TANH] = &tanh_unit,
};

/* Without AVX-512 gcc leaves those loops scalar: strips are four times as fast there. */
static bool direct_bf16(const mb_tensor *const t[], int n)
{
    if ((mb_cpu_features() & MB_CPU_AVX512) == 0)
        return false;
    for (int i = 0; i < n; i++)
        if (t[i] == NULL || t[i]->dtype != MB_DTYPE_BF16)
            return false;
    return true;
}

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
    const bool direct = direct_bf16(all, up != NULL ? 3 : 2);
    const int team = mb_team(ex, mb_tensor_count(y));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        mb_strip value, in;

        if (direct) {
            activation[f]->fwd(mb_at16(y, at.row, at.col), mb_at16(gate, at.row, at.col),
                               up != NULL ? mb_at16(up, at.row, at.col) : NULL, at.n);
            continue;
        }
        for (int64_t i = 0; i < at.n; i += MB_STRIP) {
            const int64_t n = mb_strip_length(at.n, i), col = at.col + i;

            activation[f]->strip(value, NULL, mb_strip_read(in, gate, at.row, col, n), n);
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
    const bool direct = !acc && direct_bf16(all, 3);
    const int team = mb_team(ex, mb_tensor_count(x));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        mb_strip value, slope, in;

        if (direct) {
            activation[f]->bwd(mb_at16(dx, at.row, at.col), NULL, mb_at16(dy, at.row, at.col),
                               mb_at16(x, at.row, at.col), NULL, at.n);
            continue;
        }
        for (int64_t i = 0; i < at.n; i += MB_STRIP) {
            const int64_t n = mb_strip_length(at.n, i), col = at.col + i;

            activation[f]->strip(value, slope, mb_strip_read(in, x, at.row, col, n), n);
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
    const bool direct = !acc && direct_bf16(all, 5);
    const int team = mb_team(ex, mb_tensor_count(gate));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        mb_strip value, slope, g, in, out;

        if (direct) {
            activation[f]->bwd(mb_at16(dgate, at.row, at.col), mb_at16(dup, at.row, at.col),
                               mb_at16(dy, at.row, at.col), mb_at16(gate, at.row, at.col),
                               mb_at16(up, at.row, at.col), at.n);
            continue;
        }
        for (int64_t i = 0; i < at.n; i += MB_STRIP) {
            const int64_t n = mb_strip_length(at.n, i), col = at.col + i;

            activation[f]->strip(value, slope, mb_strip_read(in, gate, at.row, col, n), n);
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
