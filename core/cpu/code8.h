/* core/cpu/code8.h - whole blocks of core/code8.h, for loops that vectorise: to be inlined into
 * functions marked MB_CPU_CLONES, in files built without contraction.
 */
#ifndef MB_CORE_CPU_CODE8_H
#define MB_CORE_CPU_CODE8_H

#include "core/code8.h"
#include "core/cpu/vecmath.h"

MB_INLINE void mb_code8_unpack(float *restrict to, const mb_code8 *from, bool is_signed)
{
    const float scale = from->scale;

    if (is_signed)
#pragma omp simd
        for (int i = 0; i < MB_CODE8_BLOCK; i++)
            to[i] = mb_code8_signed(from->code[i]) * scale;
    else
#pragma omp simd
        for (int i = 0; i < MB_CODE8_BLOCK; i++)
            to[i] = mb_code8_unsigned(from->code[i]) * scale;
}

/* Floats of one sign order like their bits: maxima are of integers, which vectorise. */
MB_INLINE float mb_code8_scale_of(const float *x, bool is_signed)
{
    int32_t above = 0;
    uint32_t below = 0;

    for (int i = 0; i < MB_CODE8_BLOCK; i++) {
        const uint32_t u = mb_bits_of_float(x[i]);

        above = (int32_t)u > above ? (int32_t)u : above;
        below = u > below ? u : below;
    }
    return mb_code8_scale((uint32_t)above, is_signed && below > 0x80000000u ? below : 0);
}

MB_INLINE void mb_code8_pack(mb_code8 *to, const float *restrict from, bool is_signed)
{
    const float scale = mb_code8_scale_of(from, is_signed);
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;

    to->scale = scale;
    if (is_signed)
#pragma omp simd
        for (int i = 0; i < MB_CODE8_BLOCK; i++)
            to->code[i] = (uint8_t)mb_code8_from_signed(from[i] * inverse);
    else
#pragma omp simd
        for (int i = 0; i < MB_CODE8_BLOCK; i++)
            to->code[i] = (uint8_t)mb_code8_from_unsigned(from[i] * inverse);
}

#endif
