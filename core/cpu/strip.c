/* core/cpu/strip.c - see core/cpu/strip.h. The conversions of core/dtype.c without branches. */
#include "core/cpu/strip.h"

#include "core/cpu/vecmath.h"

/* 2^112 moves a half's exponent to a float's; a subnormal half is normalised by a subtraction. */
static inline float half_to_float(uint16_t h)
{
    const uint32_t bits = (uint32_t)(h & 0x7fffu) << 13, exponent = bits & 0x0f800000u;
    const uint32_t normal = bits + (112u << 23);
    const uint32_t tiny =
        mb_bits_of_float(mb_float_of_bits(bits + (113u << 23)) - mb_float_of_bits(113u << 23));
    const uint32_t huge = bits + (224u << 23);
    const uint32_t v = exponent == 0 ? tiny : (exponent == 0x0f800000u ? huge : normal);

    return mb_float_of_bits(v | (uint32_t)(h & 0x8000u) << 16);
}

static inline uint16_t float_to_half(float f)
{
    const uint32_t u = mb_bits_of_float(f), bits = u & 0x7fffffffu;
    const uint32_t normal = (bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    const uint32_t tiny = mb_bits_of_float(mb_float_of_bits(bits) + 0.5f) - 0x3f000000u;
    const uint32_t finite = bits < 0x38800000u ? tiny : normal;
    const uint32_t large = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;

    return (uint16_t)((bits >= 0x477ff000u ? large : finite) | (u >> 16 & 0x8000u));
}

MB_CPU_CLONES void mb_cpu_widen_bf16(float *restrict out, const void *restrict in, int64_t n)
{
    const uint16_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = mb_bf16_to_f32(x[i]);
}

MB_CPU_CLONES void mb_cpu_widen_f16(float *restrict out, const void *restrict in, int64_t n)
{
    const uint16_t *x = in;

    for (int64_t i = 0; i < n; i++)
        out[i] = half_to_float(x[i]);
}

MB_CPU_CLONES void mb_cpu_narrow_bf16(void *restrict out, const float *restrict in, int64_t n)
{
    uint16_t *y = out;

    for (int64_t i = 0; i < n; i++)
        y[i] = mb_f32_to_bf16(in[i]);
}

MB_CPU_CLONES void mb_cpu_narrow_f16(void *restrict out, const float *restrict in, int64_t n)
{
    uint16_t *y = out;

    for (int64_t i = 0; i < n; i++)
        y[i] = float_to_half(in[i]);
}

MB_CPU_CLONES static void add(float *sum, const float *a, const float *b, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        sum[i] = a[i] + b[i];
}

void mb_cpu_add_strip(const mb_tensor *sum, const mb_tensor *a, const mb_tensor *b, int64_t row,
                      int64_t col, int64_t n)
{
    mb_strip as, bs;
    const float *x = mb_strip_read(as, a, row, col, n), *y = mb_strip_read(bs, b, row, col, n);
    float *to = mb_strip_open(as, sum, row, col, n, false);

    add(to, x, y, n);
    mb_strip_close(to, sum, row, col, n);
}
