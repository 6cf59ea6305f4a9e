/* core/cpu/gemm_panels.h - products of packed operands, summed in f32 (core/cpu/gemm_panels.c), and what
 * computes a few rows and columns of one (core/cpu/gemm_words.c). */
#ifndef MB_CORE_CPU_GEMM_PANELS_H
#define MB_CORE_CPU_GEMM_PANELS_H

#include "core/kernels.h"

/* H op(B), added before C is rounded: h (M,R), b (R,N) or, with tb, (N,R). */
typedef struct mb_gemm_adapter {
    const mb_tensor *h, *b;
    bool tb;
} mb_gemm_adapter;

/* The gemm kernel for A and B both bf16 or both f32; C f32 or their type, bias bf16 or f32. `also`, where
 * mb_cpu_gemm_panels_adds says so, or NULL. */
mb_status mb_cpu_gemm_panels(mb_exec *ex, mb_tensor *c, const mb_tensor *a, bool ta,
                             const mb_tensor *b, bool tb, float alpha, float beta,
                             const mb_tensor *bias, const mb_gemm_adapter *also) MB_MUST_USE;
bool mb_cpu_gemm_panels_adds(int64_t k, int64_t rank);
/* h: of the adapter, or NULL */
size_t mb_cpu_gemm_panels_workspace(const mb_exec *ex, const mb_tensor *c, const mb_tensor *a,
                                    bool ta, bool tb, const mb_tensor *bias, const mb_tensor *h);

/* Operands are taken in words along the summed dimension: an f32, or 32 bits with element 2l of bf16 in
 * the low and 2l+1 in the high half, a pair. A panel is (words, width) of them from op(B); width is 16,
 * 32, 48 or MB_PANEL_COLS. A tile is so many rows as fill the registers with sums of that width. */
enum { MB_PANEL_COLS = 64, MB_PANEL_ROWS = 48, MB_PANEL_TILE = 6 * 64 };

static inline int mb_tile_rows(int64_t width)
{
    return width == 64 ? 6 : width == 48 ? 8 : width == 32 ? 12 : 16;
}

/* What becomes of sums: C = alpha sum + beta C + bias, rounded once to C's type (f32 or bf16). */
typedef struct mb_sums_out {
    const mb_tensor *c;
    const float *bias; /* of the panel's columns; NULL: none */
    float alpha, beta;
} mb_sums_out;

/* How operands of a type become words, and what multiplies these. */
typedef struct mb_gemm_words {
    const char *name; /* "pairs, avx512_bf16" */
    int64_t per;      /* elements of k in a word: 1 or 2 */
    int64_t size;     /* bytes of an element */
    int64_t group; /* rows of A that are made into words: (groups of so many rows, words, group) */
    bool in_place; /* rows of A that lie along k need not be made into words, k % per being 0 */
    /* sum(rows, width) (+)= A(rows, words) panel. Word (i, l) of A starts at byte i * row + l * step
     * of a. rows <= mb_tile_rows(width); `add`: onto what sum holds. The bits of a row do not depend
     * on `rows` or `width`. */
    void (*multiply)(float *sum, const void *a, int64_t row, int64_t step, int rows,
                     const uint32_t *panel, int64_t width, int64_t words, bool add);
    /* rows [i, i + rows) and columns [j, j + n) of C from sum(rows, width) */
    void (*finish)(const mb_sums_out *out, const float *sum, int64_t width, int64_t i, int rows,
                   int64_t j, int64_t n);
    /* to(ceil(k / per), width), rows ldt apart, = words of x; zero where column >= cols or k is not
     * whole. x is (k, cols) with rows ld elements apart ... */
    void (*down)(uint32_t *to, int64_t ldt, int64_t width, const void *x, int64_t ld, int64_t k,
                 int64_t cols);
    /* ... or lies there as (cols, k). */
    void (*across)(uint32_t *to, int64_t ldt, int64_t width, const void *x, int64_t ld, int64_t k,
                   int64_t cols);
} mb_gemm_words;

/* F32 or BF16: what is best on this processor. Of bf16, pairs where they are multiplied faster than f32
 * (MB_CPU_FAST_PAIRS) or, if they are multiplied at all, where the product is `narrow`: so little is
 * computed with a word that making it decides. Else bf16 is widened as it is made into words. */
const mb_gemm_words *mb_cpu_gemm_words(mb_dtype type, bool narrow);

/* For tests and benchmarks, between kernels: whether to use instructions that not every processor has
 * (MB_WORDS_BEST: the rule above). False: this processor lacks them. */
typedef enum mb_words_kind {
    MB_WORDS_BEST,
    MB_WORDS_PAIRS, /* avx512_bf16 */
    MB_WORDS_WIDE,  /* AVX-512, f32 */
    MB_WORDS_PLAIN, /* C, f32 */
    MB_WORDS_KINDS
} mb_words_kind;
bool mb_cpu_gemm_words_use(mb_words_kind kind);

/* Pairs of bf16 as `down` and `across` make them. */
void mb_cpu_pairs_down(uint32_t *to, int64_t ldt, int64_t width, const void *x, int64_t ld,
                       int64_t k, int64_t cols);
void mb_cpu_pairs_across(uint32_t *to, int64_t ldt, int64_t width, const void *x, int64_t ld,
                         int64_t k, int64_t cols);

#endif
