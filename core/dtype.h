/* core/dtype.h - the element types of core/dtypes.def and what is known about each. */
#ifndef MB_CORE_DTYPE_H
#define MB_CORE_DTYPE_H

#include <stdint.h>

#include "core/status.h"

typedef enum mb_dtype {
#define MB_DTYPE(name, tag, block, bytes) MB_DTYPE_##name,
#include "core/dtypes.def"
#undef MB_DTYPE
    MB_DTYPE_COUNT
} mb_dtype;

const char *mb_dtype_name(mb_dtype d);    /* "F32": the tag safetensors and GGUF use */
int64_t mb_dtype_block(mb_dtype d);       /* elements in one block, 1 for ordinary types */
int64_t mb_dtype_block_bytes(mb_dtype d); /* bytes of one block */
bool mb_dtype_is_quantised(mb_dtype d);   /* has blocks of several elements */
bool mb_dtype_from_name(const char *tag, mb_dtype *out);
/* Bytes of n elements; n must be a multiple of the block. */
int64_t mb_dtype_bytes(mb_dtype d, int64_t n);

/* Conversions of one value; round to nearest even, NaN stays NaN. */
static inline float mb_bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)h << 16};
    return v.f;
}

/* A float as two halves: the upper one is f to the nearest BF16, ties away from zero; the bits of f are
 * (hi << 16) + lo as a number with a sign. Exact for every f but NaN, of which one is made whose upper
 * half is NaN, too. */
static inline uint16_t mb_bf16_split(float f, uint16_t *lo)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = f};
    v.u = f == f ? v.u : 0x7fc00000u;
    *lo = (uint16_t)v.u;
    return (uint16_t)((v.u + 0x8000u) >> 16);
}

static inline float mb_bf16_join(uint16_t hi, uint16_t lo)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = ((uint32_t)hi << 16) + (uint32_t)(int32_t)(int16_t)lo};
    return v.f;
}

static inline uint16_t mb_f32_to_bf16(float f)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = f};
    if ((v.u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((v.u >> 16) | 0x40u);
    return (uint16_t)((v.u + 0x7fffu + ((v.u >> 16) & 1u)) >> 16);
}

float mb_f16_to_f32(uint16_t h);
uint16_t mb_f32_to_f16(float f);

#endif
