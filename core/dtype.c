/* core/dtype.c - see core/dtype.h. */
#include "core/dtype.h"

#include <string.h>

static const struct {
    const char *tag;
    int64_t block, bytes;
} table[] = {
#define MB_DTYPE(name, tag, block, bytes) {tag, block, bytes},
#include "core/dtypes.def"
#undef MB_DTYPE
};

const char *mb_dtype_name(mb_dtype d)
{
    return (unsigned)d < MB_DTYPE_COUNT ? table[d].tag : "?";
}

int64_t mb_dtype_block(mb_dtype d)
{
    return table[d].block;
}

int64_t mb_dtype_block_bytes(mb_dtype d)
{
    return table[d].bytes;
}

bool mb_dtype_is_quantised(mb_dtype d)
{
    return table[d].block > 1;
}

bool mb_dtype_from_name(const char *tag, mb_dtype *out)
{
    for (int i = 0; i < MB_DTYPE_COUNT; i++) {
        if (strcmp(table[i].tag, tag) == 0) {
            *out = (mb_dtype)i;
            return true;
        }
    }
    return false;
}

int64_t mb_dtype_bytes(mb_dtype d, int64_t n)
{
    MB_ASSERT(n % table[d].block == 0);
    return n / table[d].block * table[d].bytes;
}

float mb_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t exponent = (h >> 10) & 0x1fu;
    const uint32_t mantissa = h & 0x3ffu;
    union {
        uint32_t u;
        float f;
    } v;

    if (exponent == 0) {
        /* zero or subnormal: mantissa * 2^-24 is exact in f32 */
        v.f = (float)mantissa * 0x1p-24f;
        v.u |= sign;
    } else if (exponent == 31) {
        v.u = sign | 0x7f800000u | (mantissa << 13);
    } else {
        v.u = sign | ((exponent + 112u) << 23) | (mantissa << 13);
    }
    return v.f;
}

uint16_t mb_f32_to_f16(float f)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = f};
    const uint16_t sign = (uint16_t)((v.u >> 16) & 0x8000u);
    const uint32_t bits = v.u & 0x7fffffffu;

    if (bits > 0x7f800000u)
        return sign | 0x7e00u; /* NaN */
    if (bits >= 0x477ff000u)
        return sign | 0x7c00u; /* rounds to infinity */
    if (bits < 0x38800000u) {
        /* subnormal: adding 0.5 puts the wanted bits, rounded to even, at the bottom */
        union {
            float f;
            uint32_t u;
        } s = {.u = bits};
        s.f += 0.5f;
        return sign | (uint16_t)(s.u - 0x3f000000u);
    }
    return sign | (uint16_t)((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13);
}
