/* core/cpu/gemm_pairs.c - what multiplies bf16 in pairs, and how pairs are made.
 *
 * With avx512_bf16 a vdpbf16ps adds the products of 16 pairs to 16 sums. Six rows by 64 columns of
 * sums stay in registers while k goes by; per pair of k that is 24 of these instructions for ten
 * loads. Measured beside oneDNN 2.6.3 (tests/bench/bench_gemm.c) it is as fast or faster with the
 * panel packed in every product, so no second, packed copy of the weights is kept.
 *
 * The plain form widens pairs and multiplies in f32. Both add k in order, so their sums agree within
 * rounding and each gives a row the same bits wherever it stands.
 */
#include <string.h>

#include "core/cpu/cpu.h"
#include "core/cpu/gemm_bf16.h"
#include "core/cpu/init.h"
#include "core/cpu/vec16.h"
#include "core/cpu/vecmath.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_NATIVE 1
#include <immintrin.h>
#define NATIVE __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#endif

enum { VECTORS = MB_PAIR_COLS / 16, ROWS = MB_PAIR_ROWS };

typedef uint32_t vec16u __attribute__((vector_size(64), may_alias));
typedef uint32_t vec16u_any __attribute__((vector_size(64), aligned(4), may_alias));

static inline uint32_t pair_at(const uint16_t *a)
{
    uint32_t u;

    memcpy(&u, a, sizeof u);
    return u;
}

/* ---- plain ---------------------------------------------------------------------------------- */

/* Sixteen columns at a time: that many sums fit the registers of every processor. */
MB_INLINE void plain_rows(float *sum, const uint16_t *a, int64_t row, int64_t step, const int rows,
                          const uint32_t *panel, int64_t pairs, bool add)
{
    for (int j = 0; j < MB_PAIR_COLS; j += 16) {
        mb_vec16 acc[ROWS] = {0};

        for (int i = 0; i < rows && add; i++)
            acc[i] = MB_LOAD16(sum + i * MB_PAIR_COLS + j);
        for (int64_t l = 0; l < pairs; l++) {
            const vec16u b = *(const vec16u_any *)(panel + l * MB_PAIR_COLS + j);
            const mb_vec16 low = (mb_vec16)(b << 16), high = (mb_vec16)(b & 0xffff0000u);
            for (int i = 0; i < rows; i++) {
                const uint32_t u = pair_at(a + i * row + l * step);
                acc[i] += mb_float_of_bits(u << 16) * low;
                acc[i] += mb_float_of_bits(u & 0xffff0000u) * high;
            }
        }
        for (int i = 0; i < rows; i++)
            MB_STORE16(sum + i * MB_PAIR_COLS + j, acc[i]);
    }
}

#define BY_ROWS(body)                                     \
    switch (rows) {                                       \
    case 1:                                               \
        body(sum, a, row, step, 1, panel, pairs, add);    \
        break;                                            \
    case 2:                                               \
        body(sum, a, row, step, 2, panel, pairs, add);    \
        break;                                            \
    case 3:                                               \
        body(sum, a, row, step, 3, panel, pairs, add);    \
        break;                                            \
    case 4:                                               \
        body(sum, a, row, step, 4, panel, pairs, add);    \
        break;                                            \
    case 5:                                               \
        body(sum, a, row, step, 5, panel, pairs, add);    \
        break;                                            \
    default:                                              \
        body(sum, a, row, step, ROWS, panel, pairs, add); \
    }

MB_CPU_CLONES
static void pairs_plain(float *sum, const uint16_t *a, int64_t row, int64_t step, int rows,
                        const uint32_t *panel, int64_t pairs, bool add){BY_ROWS(plain_rows)}

/* Pairs [0, n) of two rows of x, the second perhaps missing. */
MB_CPU_CLONES static void interleave_plain(uint32_t *restrict to, const uint16_t *restrict even,
                                           const uint16_t *restrict odd, int64_t n)
{
    if (odd == NULL) {
        for (int64_t j = 0; j < n; j++)
            to[j] = even[j];
    } else {
        for (int64_t j = 0; j < n; j++)
            to[j] = even[j] | (uint32_t)odd[j] << 16;
    }
}

static void cols_plain(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld, int64_t pairs,
                       int64_t cols)
{
    for (int64_t j = 0; j < cols; j++)
        for (int64_t l = 0; l < pairs; l++)
            to[l * width + j] = pair_at(x + j * ld + 2 * l);
}

/* ---- avx512_bf16 ---------------------------------------------------------------------------- */

#ifdef HAS_NATIVE

NATIVE MB_INLINE void native_rows(float *sum, const uint16_t *a, int64_t row, int64_t step,
                                  const int rows, const uint32_t *panel, int64_t pairs, bool add)
{
    __m512 acc[ROWS][VECTORS];

    for (int i = 0; i < rows; i++)
        for (int j = 0; j < VECTORS; j++)
            acc[i][j] =
                add ? _mm512_loadu_ps(sum + i * MB_PAIR_COLS + 16 * j) : _mm512_setzero_ps();
    for (int64_t l = 0; l < pairs; l++) {
        __m512bh b[VECTORS];
        for (int j = 0; j < VECTORS; j++)
            b[j] = (__m512bh)_mm512_loadu_si512(panel + l * MB_PAIR_COLS + 16 * j);
        for (int i = 0; i < rows; i++) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32((int)pair_at(a + i * row + l * step));
            for (int j = 0; j < VECTORS; j++)
                acc[i][j] = _mm512_dpbf16_ps(acc[i][j], x, b[j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < VECTORS; j++)
            _mm512_storeu_ps(sum + i * MB_PAIR_COLS + 16 * j, acc[i][j]);
}

NATIVE static void pairs_native(float *sum, const uint16_t *a, int64_t row, int64_t step, int rows,
                                const uint32_t *panel, int64_t pairs,
                                bool add){BY_ROWS(native_rows)}

/* 16 x 16 pairs, transposed. */
NATIVE MB_INLINE void transpose16(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld)
{
    __m512i r[16], t[16];

    for (int i = 0; i < 16; i++)
        r[i] = _mm512_loadu_si512(x + i * ld);
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
    for (int i = 0; i < 16; i++)
        _mm512_storeu_si512(to + i * width, r[i]);
}

/* The pairs and columns that whole squares cover; the rest is plain. */
NATIVE static void cols_native(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld,
                               int64_t pairs, int64_t cols)
{
    const int64_t whole_cols = cols / 16 * 16, whole_pairs = pairs / 16 * 16;

    for (int64_t l = 0; l < whole_pairs; l += 16)
        for (int64_t j = 0; j < whole_cols; j += 16)
            transpose16(to + l * width + j, width, x + j * ld + 2 * l, ld);
    cols_plain(to + whole_pairs * width, width, x + 2 * whole_pairs, ld, pairs - whole_pairs,
               whole_cols);
    cols_plain(to + whole_cols, width, x + whole_cols * ld, ld, pairs, cols - whole_cols);
}

#endif

/* ---- which ---------------------------------------------------------------------------------- */

static bool turned_off;

bool mb_cpu_bf16_is_native(void)
{
#ifdef HAS_NATIVE
    const unsigned wanted = MB_CPU_AVX512 | MB_CPU_AVX512_BF16;

    return !turned_off && (mb_cpu_features() & wanted) == wanted;
#else
    return false;
#endif
}

void mb_cpu_bf16_native(bool on)
{
    turned_off = !on;
}

mb_pairs_fn *mb_cpu_pairs(void)
{
#ifdef HAS_NATIVE
    if (mb_cpu_bf16_is_native())
        return pairs_native;
#endif
    return pairs_plain;
}

void mb_cpu_pack_rows(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld, int64_t k,
                      int64_t cols)
{
    for (int64_t l = 0; 2 * l < k; l++, to += width) {
        interleave_plain(to, x + 2 * l * ld, 2 * l + 1 < k ? x + (2 * l + 1) * ld : NULL, cols);
        memset(to + cols, 0, (size_t)(width - cols) * sizeof *to);
    }
}

void mb_cpu_pack_cols(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld, int64_t k,
                      int64_t cols)
{
    const int64_t pairs = k / 2;

#ifdef HAS_NATIVE
    if (mb_cpu_bf16_is_native())
        cols_native(to, width, x, ld, pairs, cols);
    else
#endif
        cols_plain(to, width, x, ld, pairs, cols);
    if (k % 2 != 0)
        for (int64_t j = 0; j < cols; j++)
            to[pairs * width + j] = x[j * ld + k - 1];
    for (int64_t l = 0; l < (k + 1) / 2 && cols < width; l++)
        memset(to + l * width + cols, 0, (size_t)(width - cols) * sizeof *to);
}
