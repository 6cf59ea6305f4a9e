/* core/cpu/dequantise.c - GGUF blocks to f32.
 *
 * Formats as in ggml-common.h (ggml-org/ggml), numbers bit for bit those of the gguf Python package:
 * products and sums in f32, in its order, without fused multiply-add (see CMakeLists.txt). Scales
 * are little-endian f16. The 32-element types keep element i in the low and i+16 in the high nibble
 * of byte i; the K types cut 256 elements into groups with small integer scales of their own.
 */
#include "core/cpu/dequantise.h"

#include "core/cpu/init.h"
#include "core/cpu/rows.h"

enum { QK = 32, QK_K = 256 };

typedef void (*blocks_fn)(float *restrict y, const uint8_t *restrict x, int64_t blocks);

/* As mb_f16_to_f32, in the caller's vectors: a power of two is exact, also of subnormal numbers. */
static inline float half_at(const uint8_t *x)
{
    const uint32_t h = (uint32_t)(x[0] | x[1] << 8), size = h & 0x7fffu;
    union {
        uint32_t u;
        float f;
    } v = {.u = size << 13};

    v.f *= 0x1p112f;
    v.u |= size >= 0x7c00u ? 0x7f800000u : 0; /* infinite or not a number */
    v.u |= (h & 0x8000u) << 16;
    return v.f;
}

static inline uint32_t word_at(const uint8_t *x)
{
    return (uint32_t)x[0] | (uint32_t)x[1] << 8 | (uint32_t)x[2] << 16 | (uint32_t)x[3] << 24;
}

/* d, 16 bytes: d (q - 8) */
MB_CPU_CLONES static void q4_0(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 18, y += QK) {
        const float d = half_at(x);

#pragma omp simd
        for (int i = 0; i < 16; i++)
            y[i] = d * (float)((x[2 + i] & 15) - 8);
#pragma omp simd
        for (int i = 0; i < 16; i++)
            y[i + 16] = d * (float)((x[2 + i] >> 4) - 8);
    }
}

/* d, m, 16 bytes: d q + m */
MB_CPU_CLONES static void q4_1(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 20, y += QK) {
        const float d = half_at(x), m = half_at(x + 2);

#pragma omp simd
        for (int i = 0; i < 16; i++)
            y[i] = d * (float)(x[4 + i] & 15) + m;
#pragma omp simd
        for (int i = 0; i < 16; i++)
            y[i + 16] = d * (float)(x[4 + i] >> 4) + m;
    }
}

/* d, 32 fifth bits, 16 bytes: d (q - 16) */
MB_CPU_CLONES static void q5_0(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 22, y += QK) {
        const float d = half_at(x);
        const uint32_t high = word_at(x + 2);

#pragma omp simd
        for (int i = 0; i < 16; i++)
            y[i] = d * (float)((int)((x[6 + i] & 15) | (high >> i & 1) << 4) - 16);
#pragma omp simd
        for (int i = 0; i < 16; i++)
            y[i + 16] = d * (float)((int)((x[6 + i] >> 4) | (high >> (i + 16) & 1) << 4) - 16);
    }
}

/* d, m, 32 fifth bits, 16 bytes: d q + m */
MB_CPU_CLONES static void q5_1(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 24, y += QK) {
        const float d = half_at(x), m = half_at(x + 2);
        const uint32_t high = word_at(x + 4);

#pragma omp simd
        for (int i = 0; i < 16; i++)
            y[i] = d * (float)(int)((x[8 + i] & 15) | (high >> i & 1) << 4) + m;
#pragma omp simd
        for (int i = 0; i < 16; i++)
            y[i + 16] = d * (float)(int)((x[8 + i] >> 4) | (high >> (i + 16) & 1) << 4) + m;
    }
}

/* d, 32 signed bytes: q d */
MB_CPU_CLONES static void q8_0(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 34, y += QK) {
        const float d = half_at(x);

#pragma omp simd
        for (int i = 0; i < QK; i++)
            y[i] = (float)(int8_t)x[2 + i] * d;
    }
}

/* 16 bytes of 4-bit scale and minimum, 64 bytes of 2-bit q, d, dmin: (d sc) q - (dmin mn), groups
 * of 16. Byte 32 h + i holds elements 128 h + i, + 32, + 64, + 96. */
MB_CPU_CLONES static void q2_k(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 84, y += QK_K) {
        const uint8_t *scale = x, *q = x + 16;
        const float d = half_at(x + 80), dmin = half_at(x + 82);

        for (int g = 0; g < 16; g++) {
            const float dl = d * (float)(scale[g] & 15), ml = dmin * (float)(scale[g] >> 4);
            const uint8_t *from = q + g / 8 * 32 + g % 2 * 16;
            const int shift = g % 8 / 2 * 2;

#pragma omp simd
            for (int i = 0; i < 16; i++)
                y[16 * g + i] = dl * (float)(from[i] >> shift & 3) - ml;
        }
    }
}

/* 32 bytes of third bits, 64 bytes of 2-bit q, 12 bytes of sixteen 6-bit scales, d:
 * d (sc - 32) (q - 4 [bit clear]) */
MB_CPU_CLONES static void q3_k(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 110, y += QK_K) {
        const uint8_t *mask = x, *q = x + 32, *packed = x + 96;
        const float d = half_at(x + 108);

        for (int g = 0; g < 16; g++) {
            const int low = packed[g % 8] >> (g / 8 * 4) & 15;
            const int high = packed[8 + g % 4] >> (g / 4 * 2) & 3;
            const float dl = d * (float)((low | high << 4) - 32);
            const uint8_t *from = q + g / 8 * 32 + g % 2 * 16, *bit = mask + g % 2 * 16;
            const int shift = g % 8 / 2 * 2, at = g / 2;

#pragma omp simd
            for (int i = 0; i < 16; i++)
                y[16 * g + i] =
                    dl * (float)((from[i] >> shift & 3) - ((bit[i] >> at & 1) != 0 ? 0 : 4));
        }
    }
}

/* The eight 6-bit scales and minima of Q4_K and Q5_K. */
static inline void scale_min(const uint8_t *s, int g, int *scale, int *min)
{
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[g + 4] & 63;
    } else {
        *scale = (s[g + 4] & 15) | (s[g - 4] >> 2 & 48);
        *min = s[g + 4] >> 4 | (s[g] >> 2 & 48);
    }
}

/* d, dmin, 12 bytes of scales, 128 bytes: (d sc) q - (dmin mn), groups of 32. Byte 32 h + i holds
 * elements 64 h + i and 64 h + 32 + i. */
MB_CPU_CLONES static void q4_k(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 144, y += QK_K) {
        const float d = half_at(x), dmin = half_at(x + 2);

        for (int g = 0; g < 8; g++) {
            const uint8_t *from = x + 16 + g / 2 * 32;
            const int shift = g % 2 * 4;
            int scale, min;

            scale_min(x + 4, g, &scale, &min);
            const float dl = d * (float)scale, ml = dmin * (float)min;
#pragma omp simd
            for (int i = 0; i < 32; i++)
                y[32 * g + i] = dl * (float)(from[i] >> shift & 15) - ml;
        }
    }
}

/* As Q4_K with 32 bytes of fifth bits (bit g of byte i for group g) before the nibbles. */
MB_CPU_CLONES static void q5_k(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 176, y += QK_K) {
        const float d = half_at(x), dmin = half_at(x + 2);
        const uint8_t *high = x + 16;

        for (int g = 0; g < 8; g++) {
            const uint8_t *from = x + 48 + g / 2 * 32;
            const int shift = g % 2 * 4;
            int scale, min;

            scale_min(x + 4, g, &scale, &min);
            const float dl = d * (float)scale, ml = dmin * (float)min;
#pragma omp simd
            for (int i = 0; i < 32; i++)
                y[32 * g + i] =
                    dl * (float)((from[i] >> shift & 15) | (high[i] >> g & 1) << 4) - ml;
        }
    }
}

/* 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, d: (d sc) (q - 32), groups
 * of 16. Half h: low byte 64 h + i (i < 64) holds elements 128 h + i and + 64; pair byte 32 h + i
 * holds the pairs of 128 h + i, + 32, + 64, + 96. */
MB_CPU_CLONES static void q6_k(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 210, y += QK_K) {
        const uint8_t *low = x, *high = x + 128;
        const float d = half_at(x + 208);

        for (int g = 0; g < 16; g++) {
            const float dl = d * (float)(int8_t)x[192 + g];
            const int half = g / 8, part = g % 8;
            const uint8_t *l = low + 64 * half + part % 4 * 16;
            const uint8_t *h = high + 32 * half + part % 2 * 16;
            const int shift = part / 4 * 4, pair = part / 2 * 2;

#pragma omp simd
            for (int i = 0; i < 16; i++)
                y[16 * g + i] = dl * (float)(((l[i] >> shift & 15) | (h[i] >> pair & 3) << 4) - 32);
        }
    }
}

static const blocks_fn dequantiser[MB_DTYPE_COUNT] = {
    [MB_DTYPE_Q4_0] = q4_0, [MB_DTYPE_Q4_1] = q4_1, [MB_DTYPE_Q5_0] = q5_0, [MB_DTYPE_Q5_1] = q5_1,
    [MB_DTYPE_Q8_0] = q8_0, [MB_DTYPE_Q2_K] = q2_k, [MB_DTYPE_Q3_K] = q3_k, [MB_DTYPE_Q4_K] = q4_k,
    [MB_DTYPE_Q5_K] = q5_k, [MB_DTYPE_Q6_K] = q6_k,
};

/* Of the types met most, eight numbers at a time: gcc takes bytes to ints by way of shorts. */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define AVX2         __attribute__((target("avx2"))) static
#define FROM(x)      _mm_loadu_si128((const __m128i *)(x))
#define UPPER(q)     _mm_srli_si128(q, 8)
#define LOW(q)       _mm_and_si128(q, _mm_set1_epi8(15))
#define HIGH(q)      LOW(_mm_srli_epi16(q, 4))
#define UNSIGNED(q)  _mm256_cvtepu8_epi32(q)
#define NUMBERS(q)   _mm256_cvtepi32_ps(q)
#define STORE(to, v) _mm256_storeu_ps(to, v)

AVX2 void q4_0_avx2(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    const __m256i eight = _mm256_set1_epi32(8);

    for (int64_t b = 0; b < blocks; b++, x += 18, y += QK) {
        const __m256 d = _mm256_set1_ps(half_at(x));
        const __m128i q = FROM(x + 2), part[] = {LOW(q), UPPER(LOW(q)), HIGH(q), UPPER(HIGH(q))};

        for (int i = 0; i < 4; i++)
            STORE(y + 8 * i, _mm256_mul_ps(d, NUMBERS(_mm256_sub_epi32(UNSIGNED(part[i]), eight))));
    }
}

AVX2 void q4_1_avx2(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 20, y += QK) {
        const __m256 d = _mm256_set1_ps(half_at(x)), m = _mm256_set1_ps(half_at(x + 2));
        const __m128i q = FROM(x + 4), part[] = {LOW(q), UPPER(LOW(q)), HIGH(q), UPPER(HIGH(q))};

        for (int i = 0; i < 4; i++)
            STORE(y + 8 * i, _mm256_add_ps(_mm256_mul_ps(d, NUMBERS(UNSIGNED(part[i]))), m));
    }
}

AVX2 void q8_0_avx2(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 34, y += QK) {
        const __m256 d = _mm256_set1_ps(half_at(x));
        const __m128i q = FROM(x + 2), r = FROM(x + 18), part[] = {q, UPPER(q), r, UPPER(r)};

        for (int i = 0; i < 4; i++)
            STORE(y + 8 * i, _mm256_mul_ps(NUMBERS(_mm256_cvtepi8_epi32(part[i])), d));
    }
}

/* Sixteen at a time. */
#define AVX512     __attribute__((target("avx512f"))) static
#define SIXTEEN(q) _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(q))
#define ALL(x)     _mm512_set1_ps(x)
#define PUT(to, v) _mm512_storeu_ps(to, v)

AVX512 void q4_0_avx512(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 18, y += QK) {
        const __m512 d = ALL(half_at(x)), eight = ALL(8.0f);
        const __m128i q = FROM(x + 2);

        PUT(y, _mm512_mul_ps(d, _mm512_sub_ps(SIXTEEN(LOW(q)), eight)));
        PUT(y + 16, _mm512_mul_ps(d, _mm512_sub_ps(SIXTEEN(HIGH(q)), eight)));
    }
}

AVX512 void q4_1_avx512(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 20, y += QK) {
        const __m512 d = ALL(half_at(x)), m = ALL(half_at(x + 2));
        const __m128i q = FROM(x + 4);

        PUT(y, _mm512_add_ps(_mm512_mul_ps(d, SIXTEEN(LOW(q))), m));
        PUT(y + 16, _mm512_add_ps(_mm512_mul_ps(d, SIXTEEN(HIGH(q))), m));
    }
}

AVX512 void q8_0_avx512(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 34, y += QK) {
        const __m512 d = ALL(half_at(x));

        for (int i = 0; i < QK; i += 16)
            PUT(y + i, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(FROM(x + 2 + i))), d));
    }
}

AVX512 void q4_k_avx512(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 144, y += QK_K) {
        const float d = half_at(x), dmin = half_at(x + 2);

        for (int g = 0; g < 8; g++) {
            int scale, min;

            scale_min(x + 4, g, &scale, &min);
            const __m512 dl = ALL(d * (float)scale), ml = ALL(dmin * (float)min);
            for (int i = 0; i < 32; i += 16) {
                const __m128i q = FROM(x + 16 + g / 2 * 32 + i);
                PUT(y + 32 * g + i,
                    _mm512_sub_ps(_mm512_mul_ps(dl, SIXTEEN(g % 2 == 0 ? LOW(q) : HIGH(q))), ml));
            }
        }
    }
}

AVX512 void q6_k_avx512(float *restrict y, const uint8_t *restrict x, int64_t blocks)
{
    const __m128i two_bits = _mm_set1_epi8(48);

    for (int64_t b = 0; b < blocks; b++, x += 210, y += QK_K) {
        const float d = half_at(x + 208);

        for (int g = 0; g < 16; g++) {
            const int part = g % 8;
            const __m128i l = FROM(x + g / 8 * 64 + part % 4 * 16);
            const __m128i h = FROM(x + 128 + g / 8 * 32 + part % 2 * 16);
            const __m128i up = part < 4 ? _mm_slli_epi16(h, 4 - part / 2 * 2)
                                        : _mm_srli_epi16(h, part / 2 * 2 - 4);
            const __m128i q =
                _mm_or_si128(part < 4 ? LOW(l) : HIGH(l), _mm_and_si128(up, two_bits));

            PUT(y + 16 * g, _mm512_mul_ps(ALL(d * (float)(int8_t)x[192 + g]),
                                          _mm512_sub_ps(SIXTEEN(q), ALL(32.0f))));
        }
    }
}

static blocks_fn dequantiser_by(unsigned features, mb_dtype type)
{
    static const blocks_fn by_eight[MB_DTYPE_COUNT] = {
        [MB_DTYPE_Q4_0] = q4_0_avx2, [MB_DTYPE_Q4_1] = q4_1_avx2, [MB_DTYPE_Q8_0] = q8_0_avx2};
    static const blocks_fn by_sixteen[MB_DTYPE_COUNT] = {[MB_DTYPE_Q4_0] = q4_0_avx512,
                                                         [MB_DTYPE_Q4_1] = q4_1_avx512,
                                                         [MB_DTYPE_Q8_0] = q8_0_avx512,
                                                         [MB_DTYPE_Q4_K] = q4_k_avx512,
                                                         [MB_DTYPE_Q6_K] = q6_k_avx512};

    if (by_sixteen[type] != NULL && (features & MB_CPU_AVX512) != 0)
        return by_sixteen[type];
    return by_eight[type] != NULL && (features & MB_CPU_AVX2) != 0 ? by_eight[type]
                                                                   : dequantiser[type];
}
#else
static blocks_fn dequantiser_by(unsigned features, mb_dtype type)
{
    (void)features;
    return dequantiser[type];
}
#endif

void mb_cpu_dequantise_blocks(mb_dtype type, float *y, const void *x, int64_t n)
{
    mb_cpu_dequantise_blocks_by(mb_cpu_features(), type, y, x, n);
}

void mb_cpu_dequantise_blocks_by(unsigned features, mb_dtype type, float *y, const void *x,
                                 int64_t n)
{
    dequantiser_by(features, type)(y, x, n / mb_dtype_block(type));
}

bool mb_cpu_dequantises(mb_dtype type)
{
    return dequantiser[type] != NULL;
}

mb_status mb_cpu_dequantise(mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    const mb_dtype from = x->dtype;

    MB_ASSERT(y->dtype == MB_DTYPE_F32);
    if (!mb_dtype_is_quantised(from))
        return mb_cpu_cast(ex, y, x);
    const blocks_fn f = dequantiser_by(mb_cpu_features(), from);
    MB_REQUIRE(f != NULL, MB_ENOTSUP, "dequantise: no kernel for %s", mb_dtype_name(from));
    MB_REQUIRE(mb_cols(x) % mb_dtype_block(from) == 0, MB_ESHAPE,
               "dequantise: rows of %lld elements are not whole blocks of %s (%lld)",
               (long long)mb_cols(x), mb_dtype_name(from), (long long)mb_dtype_block(from));

    const mb_spans sp = mb_spans_of(2, (const mb_tensor *const[]){y, x});
    /* a span starts at a multiple of MB_SPAN, hence of every block */
    const int team = mb_team(ex, mb_tensor_count(y));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        const int64_t in = at.row * mb_row_stride(x) + at.col;

        f(mb_span_f32(y, &at), (const uint8_t *)x->data + mb_dtype_bytes(from, in),
          at.n / mb_dtype_block(from));
    }
    return MB_OK;
}
