/* core/cpu/gemm_pairs.c - what multiplies bf16 in pairs, and how pairs are made.
 *
 * With avx512_bf16 (core/cpu/pairs.h) six rows by 64 columns of sums, or more rows of a narrower
 * panel, stay in registers while k goes by; what a product takes beside that is what its operands and
 * its result cost (tests/bench/bench_gemm.c).
 *
 * The plain form widens pairs and multiplies in f32. Both add k in order, so their sums agree within
 * rounding and each gives a row the same bits wherever it stands. The processor's instructions take
 * numbers below 1e-38 for zero, in products and when they round.
 */
#include "core/cpu/cpu.h"
#include "core/cpu/gemm_bf16.h"
#include "core/cpu/init.h"
#include "core/cpu/pairs.h"
#include "core/cpu/strip.h"
#include "core/cpu/vec16.h"

/* Rows that are packed lie far apart, at powers of two even in the same few places of the first
 * cache, so it is the second that is asked for them in time. */
enum {
    FEW = 6,   /* rows of a tile at the end of a range, in every width */
    AHEAD = 32 /* rows that are asked for before they are packed */
};

typedef uint32_t vec8u __attribute__((vector_size(32), may_alias));
typedef uint32_t vec8u_any __attribute__((vector_size(32), aligned(4), may_alias));

/* ---- products, plain ------------------------------------------------------------------------ */

/* Sixteen columns at a time, as two halves that are registers of AVX2: twelve of them for the sums of
 * six rows, two for the panel's numbers and one for a row's. The even numbers of all pairs of a step
 * come before the odd ones. */
MB_INLINE void plain_rows(float *sum, const uint16_t *a, int64_t row, int64_t step, const int rows,
                          const uint32_t *panel, int64_t width, int64_t pairs, bool add)
{
    for (int64_t j = 0; j < width; j += 16) {
        mb_vec8 left[FEW] = {0}, right[FEW] = {0};

        for (int i = 0; i < rows && add; i++) {
            left[i] = MB_LOAD8(sum + i * width + j);
            right[i] = MB_LOAD8(sum + i * width + j + 8);
        }
        for (int64_t l = 0; l < pairs; l++) {
            const uint32_t *b = panel + l * width + j;

            for (int odd = 0; odd < 2; odd++) {
                const vec8u x = *(const vec8u_any *)b, y = *(const vec8u_any *)(b + 8);
                const mb_vec8 bl = odd ? (mb_vec8)(x & 0xffff0000u) : (mb_vec8)(x << 16);
                const mb_vec8 br = odd ? (mb_vec8)(y & 0xffff0000u) : (mb_vec8)(y << 16);

                for (int i = 0; i < rows; i++) {
                    const uint32_t u = mb_pair_at(a + i * row + l * step);
                    const float f = mb_float_of_bits(odd ? u & 0xffff0000u : u << 16);

                    left[i] += f * bl;
                    right[i] += f * br;
                }
            }
        }
        for (int i = 0; i < rows; i++) {
            MB_STORE8(sum + i * width + j, left[i]);
            MB_STORE8(sum + i * width + j + 8, right[i]);
        }
    }
}

/* body(n) for the rows that are left, at most FEW, n a constant */
#define BY_ROWS(rows, body) \
    switch (rows) {         \
    case 1:                 \
        body(1);            \
        break;              \
    case 2:                 \
        body(2);            \
        break;              \
    case 3:                 \
        body(3);            \
        break;              \
    case 4:                 \
        body(4);            \
        break;              \
    case 5:                 \
        body(5);            \
        break;              \
    default:                \
        body(FEW);          \
    }

MB_CPU_CLONES
static void multiply_plain(float *sum, const uint16_t *a, int64_t row, int64_t step, int rows,
                           const uint32_t *panel, int64_t width, int64_t pairs, bool add)
{
    for (; rows > 0; rows -= FEW, sum += FEW * width, a += FEW * row) {
#define BODY(n) plain_rows(sum, a, row, step, n, panel, width, pairs, add)
        BY_ROWS(rows, BODY)
#undef BODY
    }
}

MB_CPU_CLONES
static void end_row(float *restrict c, const float *restrict sum, const float *restrict bias,
                    int64_t n, float alpha, float beta)
{
    for (int64_t j = 0; j < n; j++)
        c[j] =
            alpha * sum[j] + (beta != 0.0f ? beta * c[j] : 0.0f) + (bias != NULL ? bias[j] : 0.0f);
}

static void finish_plain(const mb_pairs_out *out, const float *sum, int64_t width, int64_t i,
                         int rows, int64_t j, int64_t n)
{
    float strip[MB_PAIR_COLS];

    for (int r = 0; r < rows; r++) {
        float *to = mb_strip_open(strip, out->c, i + r, j, n, out->beta != 0.0f);

        end_row(to, sum + r * width, out->bias, n, out->alpha, out->beta);
        mb_strip_close(to, out->c, i + r, j, n);
    }
}

static const mb_pairs plain = {multiply_plain, finish_plain};

/* ---- products, avx512_bf16 ------------------------------------------------------------------ */

#ifdef MB_HAS_PAIRS

/* The full tiles of each width, and a few rows of any. Of a narrow panel so little is computed per row
 * of A that the next rows must be asked for early, where they lie along k. */
#define NATIVE_WIDTH(width, full)                                                                 \
    MB_PAIRS static void multiply_##width(float *sum, const uint16_t *a, int64_t row,             \
                                          int64_t step, int rows, const uint32_t *panel,          \
                                          int64_t pairs, bool add)                                \
    {                                                                                             \
        if (rows == (full) && step == 2 && (width) < MB_PAIR_COLS)                                \
            mb_pairs_tile(sum, width, a, row, 2, panel, width, pairs, add, full, (width) / 16,    \
                          true);                                                                  \
        else if (rows == (full))                                                                  \
            mb_pairs_tile(sum, width, a, row, step, panel, width, pairs, add, full, (width) / 16, \
                          false);                                                                 \
        else                                                                                      \
            for (; rows > 0; rows -= FEW, sum += FEW * (width), a += FEW * row)                   \
                BY_ROWS(rows, NATIVE_FEW_##width)                                                 \
    }
#define NATIVE_FEW(n, width) \
    mb_pairs_tile(sum, width, a, row, step, panel, width, pairs, add, n, (width) / 16, false)
#define NATIVE_FEW_16(n) NATIVE_FEW(n, 16)
#define NATIVE_FEW_32(n) NATIVE_FEW(n, 32)
#define NATIVE_FEW_48(n) NATIVE_FEW(n, 48)
#define NATIVE_FEW_64(n) NATIVE_FEW(n, 64)
NATIVE_WIDTH(16, 16)
NATIVE_WIDTH(32, 12)
NATIVE_WIDTH(48, 8)
NATIVE_WIDTH(64, 6)

static void multiply_native(float *sum, const uint16_t *a, int64_t row, int64_t step, int rows,
                            const uint32_t *panel, int64_t width, int64_t pairs, bool add)
{
    switch (width) {
    case 16:
        multiply_16(sum, a, row, step, rows, panel, pairs, add);
        break;
    case 32:
        multiply_32(sum, a, row, step, rows, panel, pairs, add);
        break;
    case 48:
        multiply_48(sum, a, row, step, rows, panel, pairs, add);
        break;
    default:
        multiply_64(sum, a, row, step, rows, panel, pairs, add);
    }
}

MB_PAIRS MB_INLINE __m512 widened(__m256i x)
{
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16);
}

MB_PAIRS static void finish_native(const mb_pairs_out *out, const float *sum, int64_t width,
                                   int64_t i, int rows, int64_t j0, int64_t n)
{
    const __m512 alpha = _mm512_set1_ps(out->alpha), beta = _mm512_set1_ps(out->beta);
    const bool is_f32 = out->c->dtype == MB_DTYPE_F32, adds = out->beta != 0.0f;
    const int64_t ld = mb_row_stride(out->c);

    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 some = n - j >= 16 ? (__mmask16)0xffff : (__mmask16)((1 << (n - j)) - 1);
        const __m512 bias =
            out->bias != NULL ? _mm512_maskz_loadu_ps(some, out->bias + j) : _mm512_setzero_ps();
        float *f = (float *)out->c->data + i * ld + j0 + j;
        uint16_t *h = (uint16_t *)out->c->data + i * ld + j0 + j;

        for (int r = 0; r < rows; r++, f += ld, h += ld) {
            __m512 x = _mm512_fmadd_ps(alpha, _mm512_loadu_ps(sum + r * width + j), bias);

            if (is_f32) {
                if (adds)
                    x = _mm512_fmadd_ps(beta, _mm512_maskz_loadu_ps(some, f), x);
                _mm512_mask_storeu_ps(f, some, x);
            } else {
                if (adds)
                    x = _mm512_fmadd_ps(beta, widened(_mm256_maskz_loadu_epi16(some, h)), x);
                _mm256_mask_storeu_epi16(h, some, (__m256i)_mm512_cvtneps_pbh(x));
            }
        }
    }
}

static const mb_pairs native = {multiply_native, finish_native};

#endif

/* ---- which ---------------------------------------------------------------------------------- */

static bool turned_off;

bool mb_cpu_bf16_is_native(void)
{
#ifdef MB_HAS_PAIRS
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

const mb_pairs *mb_cpu_pairs(void)
{
#ifdef MB_HAS_PAIRS
    if (mb_cpu_bf16_is_native())
        return &native;
#endif
    return &plain;
}

/* ---- packing ------------------------------------------------------------------------------- */

/* Pairs [0, n) of two rows of x, the second perhaps missing. */
MB_CPU_CLONES
static void interleave(uint32_t *restrict to, const uint16_t *restrict even,
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

static void single_cols(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld, int64_t pairs,
                        int64_t cols)
{
    for (int64_t j = 0; j < cols; j++)
        for (int64_t l = 0; l < pairs; l++)
            to[l * width + j] = mb_pair_at(x + j * ld + 2 * l);
}

MB_CPU_CLONES
static void squares(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld, int64_t pairs,
                    int64_t cols)
{
    for (int64_t l = 0; l < pairs; l += 16)
        for (int64_t j = 0; j < cols; j += 16)
            mb_transpose16(to + l * width + j, width, x + j * ld + 2 * l, ld * (int64_t)sizeof *x);
}

void mb_cpu_pack_rows(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld, int64_t k,
                      int64_t cols)
{
    for (int64_t l = 0; 2 * l < k; l++, to += width) {
        for (int64_t j = 0; j < cols; j += 32) {
            __builtin_prefetch(x + (2 * l + AHEAD) * ld + j, 0, 2);
            __builtin_prefetch(x + (2 * l + AHEAD + 1) * ld + j, 0, 2);
        }
        interleave(to, x + 2 * l * ld, 2 * l + 1 < k ? x + (2 * l + 1) * ld : NULL, cols);
        memset(to + cols, 0, (size_t)(width - cols) * sizeof *to);
    }
}

void mb_cpu_pack_cols(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld, int64_t k,
                      int64_t cols)
{
    const int64_t pairs = k / 2, whole = pairs / 16 * 16, square = cols / 16 * 16;

    squares(to, width, x, ld, whole, square);
    single_cols(to + whole * width, width, x + 2 * whole, ld, pairs - whole, square);
    single_cols(to + square, width, x + square * ld, ld, pairs, cols - square);
    if (k % 2 != 0)
        for (int64_t j = 0; j < cols; j++)
            to[pairs * width + j] = x[j * ld + k - 1];
    for (int64_t l = 0; l < (k + 1) / 2 && cols < width; l++)
        memset(to + l * width + cols, 0, (size_t)(width - cols) * sizeof *to);
}
