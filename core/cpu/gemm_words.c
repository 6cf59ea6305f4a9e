/* core/cpu/gemm_words.c - what multiplies words, and how words are made (core/cpu/gemm_panels.h).
 *
 * With AVX-512 (core/cpu/words.h) six rows by 64 columns of sums, or more rows of a narrower panel, stay
 * in registers while k goes by; what a product takes beside that is what its operands and its result
 * cost (tests/bench/bench_gemm.c). Words are pairs of bf16 where the processor multiplies these faster
 * than f32, as AMD's do. Intel's with AMX make half as many products of bf16 in a cycle as of f32; there,
 * and where there are no instructions for pairs, bf16 is widened as it is made into words.
 *
 * The plain form is C. All add k in order, so their sums agree within rounding and each gives a row the
 * same bits wherever it stands. The processor's instructions take numbers of bf16 below 1e-38 for zero,
 * in products and when they round.
 */
#include <string.h>

#include "core/cpu/cpu.h"
#include "core/cpu/gemm_panels.h"
#include "core/cpu/init.h"
#include "core/cpu/strip.h"
#include "core/cpu/vec16.h"
#include "core/cpu/words.h"

/* Rows that are packed lie far apart, at powers of two even in the same few places of the first
 * cache, so it is the second that is asked for them in time. */
enum {
    FEW = 6,    /* rows of a tile at the end of a range, in every width */
    AHEAD = 32, /* rows that are asked for before they are packed */
    NEAR = 64   /* rows whose parts stay in the first cache while they are transposed */
};

/* body(n, ...) for the rows that are left, at most FEW, n a constant */
#define BY_ROWS(rows, body, ...) \
    switch (rows) {              \
    case 1:                      \
        body(1, __VA_ARGS__);    \
        break;                   \
    case 2:                      \
        body(2, __VA_ARGS__);    \
        break;                   \
    case 3:                      \
        body(3, __VA_ARGS__);    \
        break;                   \
    case 4:                      \
        body(4, __VA_ARGS__);    \
        break;                   \
    case 5:                      \
        body(5, __VA_ARGS__);    \
        break;                   \
    default:                     \
        body(FEW, __VA_ARGS__);  \
    }

/* ---- products, plain ------------------------------------------------------------------------ */

/* Sixteen columns at a time, as two halves that are registers of AVX2: twelve of them for the sums of
 * six rows, two for the panel's numbers and one for a row's. */
MB_INLINE void plain_rows(float *sum, const char *a, int64_t row, int64_t step, const int rows,
                          const float *panel, int64_t width, int64_t words, bool add)
{
    for (int64_t j = 0; j < width; j += 16) {
        mb_vec8 left[FEW] = {0}, right[FEW] = {0};

        for (int i = 0; i < rows && add; i++) {
            left[i] = MB_LOAD8(sum + i * width + j);
            right[i] = MB_LOAD8(sum + i * width + j + 8);
        }
        for (int64_t l = 0; l < words; l++) {
            const float *b = panel + l * width + j;
            const mb_vec8 bl = MB_LOAD8(b), br = MB_LOAD8(b + 8);

            for (int i = 0; i < rows; i++) {
                const float f = mb_float_of_bits(mb_word_at(a + i * row + l * step));

                left[i] += f * bl;
                right[i] += f * br;
            }
        }
        for (int i = 0; i < rows; i++) {
            MB_STORE8(sum + i * width + j, left[i]);
            MB_STORE8(sum + i * width + j + 8, right[i]);
        }
    }
}

MB_CPU_CLONES
static void multiply_plain(float *sum, const void *a, int64_t row, int64_t step, int rows,
                           const uint32_t *panel, int64_t width, int64_t words, bool add)
{
    const char *from = a;

    for (; rows > 0; rows -= FEW, sum += FEW * width, from += FEW * row) {
#define PLAIN(n, panel) plain_rows(sum, from, row, step, n, panel, width, words, add)
        BY_ROWS(rows, PLAIN, (const float *)panel)
#undef PLAIN
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

static void finish_plain(const mb_sums_out *out, const float *sum, int64_t width, int64_t i,
                         int rows, int64_t j, int64_t n)
{
    float strip[MB_PANEL_COLS];

    for (int r = 0; r < rows; r++) {
        float *to = mb_strip_open(strip, out->c, i + r, j, n, out->beta != 0.0f);

        end_row(to, sum + r * width, out->bias, n, out->alpha, out->beta);
        mb_strip_close(to, out->c, i + r, j, n);
    }
}

/* ---- products, AVX-512 ---------------------------------------------------------------------- */

#ifdef MB_HAS_WORDS

/* The full tiles of each width, and a few rows of any. Of a narrow panel so little is computed per row
 * of A that the next rows must be asked for early, where they lie along k. */
#define TILE(rows, width, pairs, ahead)                                                      \
    mb_words_tile(sum, width, from, row, step, panel, width, words, add, rows, (width) / 16, \
                  pairs, ahead)
#define AT_WIDTH(kind, pairs, width, full)                                                        \
    MB_WORDS static void multiply_##kind##_##width(float *sum, const char *from, int64_t row,     \
                                                   int64_t step, int rows, const uint32_t *panel, \
                                                   int64_t words, bool add)                       \
    {                                                                                             \
        if (rows == (full) && step == 4 && (width) < MB_PANEL_COLS)                               \
            TILE(full, width, pairs, true);                                                       \
        else if (rows == (full))                                                                  \
            TILE(full, width, pairs, false);                                                      \
        else                                                                                      \
            for (; rows > 0; rows -= FEW, sum += FEW * (width), from += FEW * row)                \
                BY_ROWS(rows, TILE, width, pairs, false)                                          \
    }
#define KIND(kind, pairs)                                                                       \
    AT_WIDTH(kind, pairs, 16, 16)                                                               \
    AT_WIDTH(kind, pairs, 32, 12)                                                               \
    AT_WIDTH(kind, pairs, 48, 8)                                                                \
    AT_WIDTH(kind, pairs, 64, 6)                                                                \
    static void multiply_##kind(float *sum, const void *a, int64_t row, int64_t step, int rows, \
                                const uint32_t *panel, int64_t width, int64_t words, bool add)  \
    {                                                                                           \
        (width == 64   ? multiply_##kind##_64                                                   \
         : width == 48 ? multiply_##kind##_48                                                   \
         : width == 32 ? multiply_##kind##_32                                                   \
                       : multiply_##kind##_16)(sum, a, row, step, rows, panel, words, add);     \
    }
KIND(pairs, true)
KIND(wide, false)

MB_WORDS MB_INLINE __m512 widened(__m256i x)
{
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16);
}

/* For C in f32, and with avx512_bf16 in bf16. */
MB_WORDS static void finish_512(const mb_sums_out *out, const float *sum, int64_t width, int64_t i,
                                int rows, int64_t j0, int64_t n)
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

static void finish_wide(const mb_sums_out *out, const float *sum, int64_t width, int64_t i,
                        int rows, int64_t j, int64_t n)
{
    if (out->c->dtype == MB_DTYPE_F32 || (mb_cpu_features() & MB_CPU_AVX512_BF16) != 0)
        finish_512(out, sum, width, i, rows, j, n);
    else
        finish_plain(out, sum, width, i, rows, j, n);
}

#endif

/* ---- pairs of bf16 -------------------------------------------------------------------------- */

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

static void single_pairs(uint32_t *to, int64_t ldt, const uint16_t *x, int64_t ld, int64_t pairs,
                         int64_t cols)
{
    for (int64_t j = 0; j < cols; j++)
        for (int64_t l = 0; l < pairs; l++)
            to[l * ldt + j] = mb_word_at(x + j * ld + 2 * l);
}

/* to(words, cols) = from(cols, words) of words; rows of `from` ld bytes apart; multiples of 16. */
MB_CPU_CLONES
static void squares(uint32_t *to, int64_t ldt, const void *from, int64_t ld, int64_t words,
                    int64_t cols)
{
    for (int64_t j0 = 0; j0 < cols; j0 += NEAR)
        for (int64_t l = 0; l < words; l += 16)
            for (int64_t j = j0; j < cols && j < j0 + NEAR; j += 16)
                mb_transpose16(to + l * ldt + j, ldt, (const char *)from + j * ld + 4 * l, ld);
}

/* Columns from `cols` on. */
static void clear(uint32_t *to, int64_t ldt, int64_t width, int64_t words, int64_t cols)
{
    for (int64_t l = 0; l < words && cols < width; l++)
        memset(to + l * ldt + cols, 0, (size_t)(width - cols) * sizeof *to);
}

void mb_cpu_pairs_down(uint32_t *to, int64_t ldt, int64_t width, const void *from, int64_t ld,
                       int64_t k, int64_t cols)
{
    const uint16_t *x = from;

    for (int64_t l = 0; 2 * l < k; l++) {
        for (int64_t j = 0; j < cols; j += 32) {
            __builtin_prefetch(x + (2 * l + AHEAD) * ld + j, 0, 2);
            __builtin_prefetch(x + (2 * l + AHEAD + 1) * ld + j, 0, 2);
        }
        interleave(to + l * ldt, x + 2 * l * ld, 2 * l + 1 < k ? x + (2 * l + 1) * ld : NULL, cols);
    }
    clear(to, ldt, width, (k + 1) / 2, cols);
}

void mb_cpu_pairs_across(uint32_t *to, int64_t ldt, int64_t width, const void *from, int64_t ld,
                         int64_t k, int64_t cols)
{
    const int64_t pairs = k / 2, whole = pairs / 16 * 16, square = cols / 16 * 16;
    const uint16_t *x = from;

    squares(to, ldt, x, 2 * ld, whole, square);
    single_pairs(to + whole * ldt, ldt, x + 2 * whole, ld, pairs - whole, square);
    single_pairs(to + square, ldt, x + square * ld, ld, pairs, cols - square);
    if (k % 2 != 0)
        for (int64_t j = 0; j < cols; j++)
            to[pairs * ldt + j] = x[j * ld + k - 1];
    clear(to, ldt, width, (k + 1) / 2, cols);
}

/* ---- f32, and bf16 widened ------------------------------------------------------------------ */

/* to(k, width) = from(k, cols) and zeros, of numbers of `size` bytes. Constants where this is inlined:
 * `size`, and of whole panels `cols`. */
MB_INLINE void copy_down(uint32_t *restrict to, int64_t ldt, const int64_t width,
                         const char *restrict from, int64_t ld, int64_t k, const int64_t cols,
                         const int64_t size)
{
    for (int64_t l = 0; l < k; l++, to += ldt, from += ld * size) {
        for (int64_t j = 0; j < cols * size && cols <= MB_PANEL_COLS; j += 64)
            __builtin_prefetch(from + AHEAD * ld * size + j, 0, 2);
        if (size == 2)
            for (int64_t j = 0; j < cols; j++)
                to[j] = (uint32_t)((const uint16_t *)from)[j] << 16;
        else
            for (int64_t j = 0; j < cols; j++)
                to[j] = mb_word_at(from + 4 * j);
        for (int64_t j = cols; j < width; j++)
            to[j] = 0;
    }
}

MB_CPU_CLONES
static void f32_down(uint32_t *to, int64_t ldt, int64_t width, const void *from, int64_t ld,
                     int64_t k, int64_t cols)
{
    if (cols == MB_PANEL_COLS && width == cols)
        copy_down(to, ldt, MB_PANEL_COLS, from, ld, k, MB_PANEL_COLS, 4);
    else
        copy_down(to, ldt, width, from, ld, k, cols, 4);
}

MB_CPU_CLONES
static void bf16_down(uint32_t *to, int64_t ldt, int64_t width, const void *from, int64_t ld,
                      int64_t k, int64_t cols)
{
    if (cols == MB_PANEL_COLS && width == cols)
        copy_down(to, ldt, MB_PANEL_COLS, from, ld, k, MB_PANEL_COLS, 2);
    else
        copy_down(to, ldt, width, from, ld, k, cols, 2);
}

static void f32_across(uint32_t *to, int64_t ldt, int64_t width, const void *from, int64_t ld,
                       int64_t k, int64_t cols)
{
    const int64_t whole = k / 16 * 16, square = cols / 16 * 16;
    const float *x = from;

    squares(to, ldt, x, 4 * ld, whole, square);
    for (int64_t j = 0; j < cols; j++)
        for (int64_t l = j < square ? whole : 0; l < k; l++)
            to[l * ldt + j] = mb_word_at(x + j * ld + l);
    clear(to, ldt, width, k, cols);
}

/* 32 numbers of k of 16 columns: pairs are transposed, then parted. */
MB_INLINE void parted_square(uint32_t *to, int64_t ldt, const uint16_t *x, int64_t ld)
{
    uint32_t pairs[16 * 16] __attribute__((aligned(64)));

    mb_transpose16(pairs, 16, x, 2 * ld);
    for (int i = 0; i < 16; i++, to += 2 * ldt) {
        for (int c = 0; c < 16; c++)
            to[c] = pairs[16 * i + c] << 16;
        for (int c = 0; c < 16; c++)
            to[ldt + c] = pairs[16 * i + c] & 0xffff0000u;
    }
}

MB_CPU_CLONES
static void parted_squares(uint32_t *to, int64_t ldt, const uint16_t *x, int64_t ld, int64_t k,
                           int64_t cols)
{
    for (int64_t j0 = 0; j0 < cols; j0 += NEAR)
        for (int64_t l = 0; l < k; l += 32)
            for (int64_t j = j0; j < cols && j < j0 + NEAR; j += 16)
                parted_square(to + l * ldt + j, ldt, x + j * ld + l, ld);
}

/* The last sixteen. */
MB_CPU_CLONES
static void widened_squares(uint32_t *to, int64_t ldt, const uint16_t *x, int64_t ld, int64_t cols)
{
    uint32_t wide[16 * 16] __attribute__((aligned(64)));

    for (int64_t j = 0; j < cols; j += 16) {
        for (int i = 0; i < 16; i++)
            for (int c = 0; c < 16; c++)
                wide[16 * i + c] = (uint32_t)x[(j + i) * ld + c] << 16;
        mb_transpose16(to + j, ldt, wide, 16 * sizeof *wide);
    }
}

static void bf16_across(uint32_t *to, int64_t ldt, int64_t width, const void *from, int64_t ld,
                        int64_t k, int64_t cols)
{
    const int64_t pairs = k / 32 * 32, whole = k / 16 * 16, square = cols / 16 * 16;
    const uint16_t *x = from;

    parted_squares(to, ldt, x, ld, pairs, square);
    if (whole > pairs)
        widened_squares(to + pairs * ldt, ldt, x + pairs, ld, square);
    for (int64_t j = 0; j < cols; j++)
        for (int64_t l = j < square ? whole : 0; l < k; l++)
            to[l * ldt + j] = (uint32_t)x[j * ld + l] << 16;
    clear(to, ldt, width, k, cols);
}

/* ---- which ---------------------------------------------------------------------------------- */

#define BF16_WIDENED \
    .per = 1, .size = 2, .group = 1, .in_place = false, .down = bf16_down, .across = bf16_across
#define F32 \
    .per = 1, .size = 4, .group = 1, .in_place = true, .down = f32_down, .across = f32_across

static const mb_gemm_words plain_bf16 = {
    .name = "widened, plain", .multiply = multiply_plain, .finish = finish_plain, BF16_WIDENED};
static const mb_gemm_words plain_f32 = {
    .name = "plain", .multiply = multiply_plain, .finish = finish_plain, F32};
#ifdef MB_HAS_WORDS
static const mb_gemm_words wide_bf16 = {
    .name = "widened, AVX-512", .multiply = multiply_wide, .finish = finish_wide, BF16_WIDENED};
static const mb_gemm_words wide_f32 = {
    .name = "AVX-512", .multiply = multiply_wide, .finish = finish_wide, F32};
static const mb_gemm_words pairs_bf16 = {.name = "pairs, avx512_bf16",
                                         .per = 2,
                                         .size = 2,
                                         .group = MB_PANEL_ROWS,
                                         .in_place = true,
                                         .multiply = multiply_pairs,
                                         .finish = finish_512,
                                         .down = mb_cpu_pairs_down,
                                         .across = mb_cpu_pairs_across};
#endif

static mb_words_kind wanted = MB_WORDS_BEST;

#ifdef MB_HAS_WORDS
static mb_words_kind best(bool bf16, bool narrow)
{
    const unsigned features = mb_cpu_features();
    const unsigned pairs = narrow ? MB_CPU_AVX512_BF16 : MB_CPU_FAST_PAIRS;

    if ((features & MB_CPU_AVX512) == 0)
        return MB_WORDS_PLAIN;
    return bf16 && (features & pairs) != 0 ? MB_WORDS_PAIRS : MB_WORDS_WIDE;
}

#endif

const mb_gemm_words *mb_cpu_gemm_words(mb_dtype type, bool narrow)
{
    const bool bf16 = type == MB_DTYPE_BF16;

    MB_ASSERT(bf16 || type == MB_DTYPE_F32);
#ifdef MB_HAS_WORDS
    const mb_words_kind kind = wanted != MB_WORDS_BEST ? wanted : best(bf16, narrow);

    if (kind == MB_WORDS_PAIRS && bf16)
        return &pairs_bf16;
    if (kind != MB_WORDS_PLAIN)
        return bf16 ? &wide_bf16 : &wide_f32;
#endif
    return bf16 ? &plain_bf16 : &plain_f32;
}

bool mb_cpu_gemm_words_use(mb_words_kind kind)
{
    bool has = true;

#ifdef MB_HAS_WORDS
    const unsigned features = mb_cpu_features();

    if (kind == MB_WORDS_WIDE || kind == MB_WORDS_PAIRS)
        has = (features & MB_CPU_AVX512) != 0;
    if (kind == MB_WORDS_PAIRS)
        has = has && (features & MB_CPU_AVX512_BF16) != 0;
#else
    has = kind == MB_WORDS_BEST || kind == MB_WORDS_PLAIN;
#endif
    if (has)
        wanted = kind;
    return has;
}
