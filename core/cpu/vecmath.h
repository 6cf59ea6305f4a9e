/* core/cpu/vecmath.h - exp, tanh, the normal distribution and sums that gcc vectorises.
 *
 * The bodies are straight-line f32 code without calls, tables or branches that remain, so a loop
 * over them becomes vector code at -O3 inside a function marked MB_CPU_CLONES. Polynomials are
 * minimax fits (Lawson's iteration on Chebyshev nodes in double precision).
 *
 *     mb_expf    2 ulp; exp(-inf) = 0, overflow gives inf, NaN stays NaN, subnormal results kept
 *     mb_tanhf   3e-7 relative, at most 1e-7 absolute
 *     mb_normalf 2e-7 absolute, 3e-6 relative down to 1e-18
 *
 * A sum of floats in a fixed order cannot be vectorised by the compiler. Those that matter add into
 * MB_LANES partial sums, element i into lane i % MB_LANES, and fold the lanes in one fixed order:
 * the result depends on the length only.
 */
#ifndef MB_CORE_CPU_VECMATH_H
#define MB_CORE_CPU_VECMATH_H

#include <stdint.h>

/* Into every clone of the caller: what stays a call is compiled for the base instruction set. */
#define MB_INLINE static inline __attribute__((always_inline))

enum { MB_LANES = 16 };

MB_INLINE float mb_float_of_bits(uint32_t u)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = u};
    return v.f;
}

MB_INLINE uint32_t mb_bits_of_float(float f)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = f};
    return v.u;
}

MB_INLINE float mb_absf(float x)
{
    return mb_float_of_bits(mb_bits_of_float(x) & 0x7fffffffu);
}

/* |x| with the sign of s */
MB_INLINE float mb_signf(float x, float s)
{
    return mb_float_of_bits((mb_bits_of_float(x) & 0x7fffffffu) |
                            (mb_bits_of_float(s) & 0x80000000u));
}

/* e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln(2)/2. Adding 1.5 * 2^23 rounds to an integer that
 * then stands in the low bits. 2^n is applied as two factors so that n = 128 and subnormals work. */
MB_INLINE float mb_expf(float x)
{
    const float magic = 0x1.8p23f;
    float c = x > 89.0f ? 89.0f : x;

    c = c < -104.0f ? -104.0f : c;
    const float shifted = c * 1.44269504f + magic;
    const float n = shifted - magic;
    const int32_t i = (int32_t)(mb_bits_of_float(shifted) - mb_bits_of_float(magic));
    const float r = (c - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.395297e-03f;

    p = p * r + 8.3703216e-03f;
    p = p * r + 4.1666168e-02f;
    p = p * r + 1.6666507e-01f;
    p = p * r + 0.5f;
    p = (p * r) * r + r;
    const int32_t half = i >> 1;
    const float f1 = mb_float_of_bits((uint32_t)(half + 127) << 23);
    const float f2 = mb_float_of_bits((uint32_t)(i - half + 127) << 23);
    return (p * f1 + f1) * f2;
}

/* |x| < 0.625: x + x z P(z), z = x^2; beyond: 1 - 2 / (e^(2|x|) + 1). */
MB_INLINE float mb_tanhf(float x)
{
    const float a = mb_absf(x), z = x * x;
    const float e = mb_expf(a > 20.0f ? 40.0f : a + a);
    const float far = mb_signf(1.0f - 2.0f / (e + 1.0f), x);
    float p = 2.1227426e-03f;

    p = p * z - 8.1562767e-03f;
    p = p * z + 2.16926054e-02f;
    p = p * z - 5.3945378e-02f;
    p = p * z + 1.33331959e-01f;
    p = p * z - 3.3333331e-01f;
    return a < 0.625f ? x + x * z * p : (x != x ? x : far);
}

/* The standard normal distribution below x, Phi(x) = (1 + erf(x / sqrt 2)) / 2, and its density.
 * Phi(-a) = e^(-a^2/2) P(a) / Q(a), a rational fit of erfcx: nothing cancels in the left tail. Beyond
 * 14.5 the exponential is 0. */
MB_INLINE float mb_normalf(float x, float *density)
{
    const float a = mb_absf(x), c = a > 14.5f ? 14.5f : a;
    const float e = mb_expf(-0.5f * c * c);
    float p = 3.72809509e-03f, q = 9.34474126e-03f;

    p = p * c + 3.80094469e-02f;
    p = p * c + 1.75438759e-01f;
    p = p * c + 4.27752898e-01f;
    p = p * c + 0.5f;
    q = q * c + 9.52856189e-02f;
    q = q * c + 4.48892963e-01f;
    q = q * c + 1.17009001f;
    q = q * c + 1.65339054f;
    q = q * c + 1.0f;
    const float tail = e * p / q;

    *density = 0.398942280f * e;
    return x < 0.0f ? tail : 1.0f - tail;
}

/* The MB_LANES partial sums added as a tree: 8 pairs, 4, 2, 1. */
MB_INLINE float mb_fold_lanes(const float *lane)
{
    float s[MB_LANES / 2];

    for (int i = 0; i < 8; i++)
        s[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++)
        s[i] += s[i + 4];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* Adds to the lanes: a row may come in pieces, all but the last of whole MB_LANES. */
MB_INLINE void mb_dot_lanes(float *lane, const float *a, const float *b, int64_t n)
{
    int64_t i = 0;

    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            lane[l] += a[i + l] * b[i + l];
    for (int l = 0; i + l < n; l++)
        lane[l] += a[i + l] * b[i + l];
}

MB_INLINE void mb_sum_lanes(float *lane, const float *a, int64_t n)
{
    int64_t i = 0;

    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            lane[l] += a[i + l];
    for (int l = 0; i + l < n; l++)
        lane[l] += a[i + l];
}

MB_INLINE float mb_dotf(const float *a, const float *b, int64_t n)
{
    float lane[MB_LANES] = {0};

    mb_dot_lanes(lane, a, b, n);
    return mb_fold_lanes(lane);
}

MB_INLINE float mb_sumf(const float *a, int64_t n)
{
    float lane[MB_LANES] = {0};

    mb_sum_lanes(lane, a, n);
    return mb_fold_lanes(lane);
}

MB_INLINE float mb_maxf(const float *a, int64_t n)
{
    float lane[MB_LANES];
    int64_t i = 0;

    for (int l = 0; l < MB_LANES; l++)
        lane[l] = -__builtin_inff();
    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            lane[l] = a[i + l] > lane[l] ? a[i + l] : lane[l];
    for (int l = 0; i + l < n; l++)
        lane[l] = a[i + l] > lane[l] ? a[i + l] : lane[l];
    for (int l = 1; l < MB_LANES; l++)
        lane[0] = lane[l] > lane[0] ? lane[l] : lane[0];
    return lane[0];
}

#endif
