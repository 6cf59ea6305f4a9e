/* core/code8.h - blockwise numbers in 8 bits: dynamic tree codes (Dettmers et al., arXiv:2110.02861).
 *
 * A block is a scale and 256 codes; element i is scale * value(code[i]). Values have a decade
 * e = 0..6 and, the higher the decade, the more steps within it, w = e (DYN8) or e + 1 (DYNU8):
 *
 *     value = 10^(e-6) (0.9 (J + 1/2) / 2^w - 0.8),   2^w <= J < 2^(w+1)
 *
 *     DYN8     any sign   code J = 1..127, with 128 added: minus; 0: zero; 128: one
 *     DYNU8    >= 0       code J = 2..255;                        0: zero; 1: one
 *
 * An element gets the code of the nearest value, to some millionths, computed and not searched: within the
 * limits of its decade
 * J = floor((|x| 10^(6-e) + 0.8) / 0.9 * 2^w). Two things differ from the paper. The scale of DYN8 has
 * the sign of the block's largest magnitude, of plus when both are equal, so that this element is
 * exactly `one`: there is no code for minus one. And what is above zero stays above zero in DYNU8: a
 * second moment that vanished beside a first one would make Adam's next step huge.
 *
 * Blocks whose scale is below 2^-100 are all zero. So every number a block stands for is a normal
 * float, a relative error of 2^-20 leads to the same code, and coding what was decoded gives the same
 * block, bit for bit: f32 numbers in a checkpoint lose nothing.
 */
#ifndef MB_CORE_CODE8_H
#define MB_CORE_CODE8_H

#include <string.h>

#include "core/dtype.h"

enum { MB_CODE8_BLOCK = 256 };

typedef struct mb_code8 {
    float scale;
    uint8_t code[MB_CODE8_BLOCK];
} mb_code8;

/* n numbers, whole blocks of `d` (DYN8 or DYNU8), of host memory. `to` of a read may end where `from`
 * ends. */
void mb_code8_read(float *to, const mb_code8 *from, mb_dtype d, int64_t n);
void mb_code8_write(mb_code8 *to, mb_dtype d, const float *from, int64_t n);

/* ---- one element, for kernels ------------------------------------------------------------- */

#ifdef __CUDACC__
#define MB_CODE8 __host__ __device__ __forceinline__
#else
#define MB_CODE8 static inline __attribute__((always_inline))
#endif

MB_CODE8 float mb_code8_of_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

MB_CODE8 uint32_t mb_code8_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    return u;
}

/* The value of J; `more`: w - e. */
MB_CODE8 float mb_code8_value(int j, int more)
{
    const uint32_t u = mb_code8_bits((float)j + 0.5f); /* its fraction is that of J in the decade */
    const float f = mb_code8_of_bits((u & 0x7fffffu) | 0x3f800000u);
    const uint32_t e = (u >> 23) - 127u - (uint32_t)more;
    float unit = (e & 1u) != 0 ? 1e-5f : 1e-6f;

    unit = (e & 2u) != 0 ? unit * 1e2f : unit;
    unit = (e & 4u) != 0 ? unit * 1e4f : unit;
    return unit * (0.9f * f - 0.8f);
}

/* The J whose value is nearest to a >= 0, at least the first. Decade e begins in the middle between
 * the last value of the one before and its own first. The factor 10^(6-e) / 0.9 has e in its last bits,
 * which is nothing beside half a step. */
MB_CODE8 int mb_code8_nearest(float a, int more)
{
    uint32_t u = 0x4987a238u; /* 10^6 / 0.9 */

#define MB_CODE8_DECADE(e, ten, bits) \
    u = a > (float)(1.0 / (ten)*0.1 * (1.0 + 1.8 / (double)(1 << ((e) + more)))) ? (bits) + (e) : u
    MB_CODE8_DECADE(1, 1e5, 0x47d90390u);
    MB_CODE8_DECADE(2, 1e4, 0x462d9c70u);
    MB_CODE8_DECADE(3, 1e3, 0x448ae390u);
    MB_CODE8_DECADE(4, 1e2, 0x42de38e8u);
    MB_CODE8_DECADE(5, 1e1, 0x4131c720u);
    MB_CODE8_DECADE(6, 1e0, 0x3f8e38e8u);
#undef MB_CODE8_DECADE
    const float low = mb_code8_of_bits((127u + (uint32_t)more + (u & 7u)) << 23); /* 2^w */
    const float least = a > 1.1e-7f ? a : 1.1e-7f, most = 1.999f * low;
    const float j = low * (least * mb_code8_of_bits(u) + (float)(8.0 / 9.0));

    return (int)(j > most ? most : j);
}

MB_CODE8 float mb_code8_signed(int code)
{
    float v = mb_code8_value(code & 127, 0);

    v = code > 128 ? -v : v;
    v = code == 128 ? 1.0f : v;
    return code == 0 ? 0.0f : v;
}

MB_CODE8 float mb_code8_unsigned(int code)
{
    float v = mb_code8_value(code, 1);

    v = code == 1 ? 1.0f : v;
    return code == 0 ? 0.0f : v;
}

/* x in units of the scale */
MB_CODE8 int mb_code8_from_signed(float x)
{
    const uint32_t u = mb_code8_bits(x);
    const float a = mb_code8_of_bits(u & 0x7fffffffu);
    int code = mb_code8_nearest(a, 0) | (int)(u >> 24 & 128u);

    code = a > 2.75e-7f ? code : 0;
    return x > (float)(1.0 - 0.225 / 64) ? 128 : code;
}

MB_CODE8 int mb_code8_from_unsigned(float x)
{
    int code = mb_code8_nearest(x, 1);

    code = x > 0.0f ? code : 0;
    return x > (float)(1.0 - 0.225 / 128) ? 1 : code;
}

/* The scale of a block from the bits of its largest number above zero and of that of its largest
 * number below it, 0 where there is none. */
MB_CODE8 float mb_code8_scale(uint32_t above, uint32_t below)
{
    const uint32_t magnitude = below & 0x7fffffffu, most = above >= magnitude ? above : below;
    const bool small = (most & 0x7fffffffu) < 0x0d800000u; /* 2^-100 */

    return small ? 0.0f : mb_code8_of_bits(most);
}

#endif
