/* core/cpu/quantise.c - see core/cpu/quantise.h; the blocks of 256 are in quantise_k.c.
 *
 * Formats as in ggml-common.h (ggml-org/ggml); rounding as in its reference quantisers, which the gguf
 * package repeats: a block's number of the largest magnitude decides the scale.
 */
#include "core/cpu/quantise.h"

#include <math.h>
#include <string.h>

enum { QK = 32, PIECE = 1 << 12 }; /* blocks that a thread takes at a time */

static void put_half(uint8_t *y, float x)
{
    const uint16_t h = mb_f32_to_f16(x);

    y[0] = (uint8_t)h;
    y[1] = (uint8_t)(h >> 8);
}

/* The number of the largest magnitude, with its sign; the first of several. */
static float extreme(const float *x)
{
    float most = 0.0f, at = 0.0f;

    for (int i = 0; i < QK; i++)
        if (fabsf(x[i]) > most) {
            most = fabsf(x[i]);
            at = x[i];
        }
    return at;
}

static void ends(const float *x, float *least, float *most)
{
    *least = *most = x[0];
    for (int i = 1; i < QK; i++) {
        *least = x[i] < *least ? x[i] : *least;
        *most = x[i] > *most ? x[i] : *most;
    }
}

static float inverse(float d)
{
    return d != 0.0f ? 1.0f / d : 0.0f;
}

/* x id + half, rounded down, at most `most`. */
static uint32_t level(float x, float id, float half, uint32_t most)
{
    const uint32_t q = (uint32_t)(int32_t)(x * id + half);

    return q < most ? q : most;
}

/* The same rounded once, as a fused multiply-add does: what the reference of Q4_0 relies on. */
static uint32_t level_fused(float x, float id, double half, uint32_t most)
{
    const uint32_t q = (uint32_t)(int32_t)(float)((double)x * (double)id + half);

    return q < most ? q : most;
}

/* Low nibbles of q[0..32) by halves; the fifth bits are returned. */
static uint32_t pack(const uint32_t *q, uint8_t *y)
{
    uint32_t high = 0;

    for (int i = 0; i < 16; i++)
        y[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
    for (int i = 0; i < QK; i++)
        high |= (q[i] >> 4 & 1) << i;
    return high;
}

static void put_word(uint8_t *y, uint32_t w)
{
    for (int i = 0; i < 4; i++)
        y[i] = (uint8_t)(w >> 8 * i);
}

static void q4_0(const float *x, uint8_t *y)
{
    const float d = extreme(x) / -8.0f, id = inverse(d);
    uint32_t q[QK];

    put_half(y, d);
    for (int i = 0; i < QK; i++)
        q[i] = level_fused(x[i], id, 8.5, 15);
    pack(q, y + 2);
}

static void q4_1(const float *x, uint8_t *y)
{
    float least, most;
    uint32_t q[QK];

    ends(x, &least, &most);
    const float d = (most - least) / 15.0f, id = inverse(d);
    put_half(y, d);
    put_half(y + 2, least);
    for (int i = 0; i < QK; i++)
        q[i] = level(x[i] - least, id, 0.5f, 15);
    pack(q, y + 4);
}

static void q5_0(const float *x, uint8_t *y)
{
    const float d = extreme(x) / -16.0f, id = inverse(d);
    uint32_t q[QK];

    put_half(y, d);
    for (int i = 0; i < QK; i++)
        q[i] = level(x[i], id, 16.5f, 31);
    put_word(y + 2, pack(q, y + 6));
}

static void q5_1(const float *x, uint8_t *y)
{
    float least, most;
    uint32_t q[QK];

    ends(x, &least, &most);
    const float d = (most - least) / 31.0f, id = inverse(d);
    put_half(y, d);
    put_half(y + 2, least);
    for (int i = 0; i < QK; i++)
        q[i] = level(x[i] - least, id, 0.5f, 31);
    put_word(y + 4, pack(q, y + 8));
}

static void q8_0(const float *x, uint8_t *y)
{
    const float d = fabsf(extreme(x)) / 127.0f, id = inverse(d);

    put_half(y, d);
    for (int i = 0; i < QK; i++)
        y[2 + i] = (uint8_t)(int8_t)roundf(x[i] * id);
}

static void f32(const float *x, uint8_t *y)
{
    memcpy(y, x, sizeof *x);
}

static void f16(const float *x, uint8_t *y)
{
    put_half(y, *x);
}

static void bf16(const float *x, uint8_t *y)
{
    const uint16_t h = mb_f32_to_bf16(*x);

    y[0] = (uint8_t)h;
    y[1] = (uint8_t)(h >> 8);
}

/* A block, and how many halves at its beginning or end are scales that must be finite. */
static const struct kind {
    void (*block)(const float *x, uint8_t *y);
    int half[2]; /* where they are; -1: none */
} kinds[MB_DTYPE_COUNT] = {
    [MB_DTYPE_F32] = {f32, {-1, -1}},
    [MB_DTYPE_F16] = {f16, {0, -1}},
    [MB_DTYPE_BF16] = {bf16, {-1, -1}},
    [MB_DTYPE_Q4_0] = {q4_0, {0, -1}},
    [MB_DTYPE_Q4_1] = {q4_1, {0, 2}},
    [MB_DTYPE_Q5_0] = {q5_0, {0, -1}},
    [MB_DTYPE_Q5_1] = {q5_1, {0, 2}},
    [MB_DTYPE_Q8_0] = {q8_0, {0, -1}},
    [MB_DTYPE_Q4_K] = {mb_quantise_q4_k, {0, 2}},
    [MB_DTYPE_Q5_K] = {mb_quantise_q5_k, {0, 2}},
    [MB_DTYPE_Q6_K] = {mb_quantise_q6_k, {208, -1}},
};

bool mb_quantises_to(mb_dtype d)
{
    return d < MB_DTYPE_COUNT && kinds[d].block != NULL;
}

static bool halves_are_finite(const struct kind *k, const uint8_t *y)
{
    for (int i = 0; i < 2; i++)
        if (k->half[i] >= 0 && (y[k->half[i] + 1] & 0x7c) == 0x7c)
            return false;
    return true;
}

static bool all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

mb_status mb_quantise(mb_dtype to, const float *x, int64_t n, void *y, int threads)
{
    const struct kind *k = &kinds[to];
    const int64_t each = mb_dtype_block(to), bytes = mb_dtype_block_bytes(to);
    const int64_t blocks = n / each, pieces = (blocks + PIECE - 1) / PIECE;
    int64_t unknown = 0, large = 0;

    MB_REQUIRE(mb_quantises_to(to), MB_ENOTSUP, "%s is not written", mb_dtype_name(to));
    MB_REQUIRE(n % each == 0, MB_ESHAPE, "%lld numbers are not whole blocks of %s (%lld)",
               (long long)n, mb_dtype_name(to), (long long)each);
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : unknown, large)
    for (int64_t p = 0; p < pieces; p++) {
        const int64_t end = (p + 1) * PIECE < blocks ? (p + 1) * PIECE : blocks;

        for (int64_t b = p * PIECE; b < end; b++) {
            uint8_t *to_block = (uint8_t *)y + b * bytes;

            if (!all_finite(x + b * each, each)) {
                unknown++;
                continue;
            }
            k->block(x + b * each, to_block);
            large += !halves_are_finite(k, to_block);
        }
    }
    MB_REQUIRE(unknown == 0, MB_ENUM, "%lld blocks hold numbers that are not finite",
               (long long)unknown);
    MB_REQUIRE(large == 0, MB_ENUM, "%lld blocks hold numbers too large for %s", (long long)large,
               mb_dtype_name(to));
    return MB_OK;
}
