/* core/cpu/gemm_pairs.c - what multiplies bf16 in pairs, and how pairs are made.
 *
 * With avx512_bf16 (core/cpu/pairs.h) six rows by 64 columns of sums stay in registers while k goes
 * by; per pair of k that is 24 of these instructions for ten loads. tests/bench/bench_gemm.c measures 340
 * to 418 GFLOP/s for a step's products on two Zen 4 cores, the head's weight gradient 300, although a
 * panel is packed anew in every product: so no second, packed copy of the weights is kept.
 *
 * The plain form widens pairs and multiplies in f32. Both add k in order, so their sums agree within
 * rounding and each gives a row the same bits wherever it stands.
 */
#include "core/cpu/cpu.h"
#include "core/cpu/gemm_bf16.h"
#include "core/cpu/init.h"
#include "core/cpu/pairs.h"
#include "core/cpu/vec16.h"

enum { VECTORS = MB_PAIR_COLS / 16, ROWS = MB_PAIR_ROWS };

typedef uint32_t vec16u_any __attribute__((vector_size(64), aligned(4), may_alias));

/* ---- products, plain ---------------------------------------------------------------------------------- */

/* Sixteen columns at a time: that many sums fit the registers of every processor. */
MB_INLINE void plain_rows(float *sum, const uint16_t *a, int64_t row, int64_t step, const int rows,
                          const uint32_t *panel, int64_t pairs, bool add)
{
    for (int j = 0; j < MB_PAIR_COLS; j += 16) {
        mb_vec16 acc[ROWS] = {0};

        for (int i = 0; i < rows && add; i++)
            acc[i] = MB_LOAD16(sum + i * MB_PAIR_COLS + j);
        for (int64_t l = 0; l < pairs; l++) {
            const mb_vec16u b = *(const vec16u_any *)(panel + l * MB_PAIR_COLS + j);
            const mb_vec16 low = (mb_vec16)(b << 16), high = (mb_vec16)(b & 0xffff0000u);
            for (int i = 0; i < rows; i++) {
                const uint32_t u = mb_pair_at(a + i * row + l * step);
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

/* ---- products, avx512_bf16 ------------------------------------------------------------------ */

#ifdef MB_HAS_PAIRS

MB_PAIRS MB_INLINE void native_rows(float *sum, const uint16_t *a, int64_t row, int64_t step,
                                    const int rows, const uint32_t *panel, int64_t pairs, bool add)
{
    mb_pairs_tile(sum, MB_PAIR_COLS, a, row, step, panel, MB_PAIR_COLS, pairs, add, rows, VECTORS);
}

MB_PAIRS static void pairs_native(float *sum, const uint16_t *a, int64_t row, int64_t step,
                                  int rows, const uint32_t *panel, int64_t pairs, bool add)
{
    BY_ROWS(native_rows)
}

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

mb_pairs_fn *mb_cpu_pairs(void)
{
#ifdef MB_HAS_PAIRS
    if (mb_cpu_bf16_is_native())
        return pairs_native;
#endif
    return pairs_plain;
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
