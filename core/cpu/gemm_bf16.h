/* core/cpu/gemm_bf16.h - products of bf16 matrices, summed in f32 (core/cpu/gemm_bf16.c), and what
 * computes a few rows and columns of one (core/cpu/gemm_pairs.c). */
#ifndef MB_CORE_CPU_GEMM_BF16_H
#define MB_CORE_CPU_GEMM_BF16_H

#include "core/kernels.h"

/* H op(B), added before C is rounded: h (M,R), b (R,N) or, with tb, (N,R). */
typedef struct mb_gemm_adapter {
    const mb_tensor *h, *b;
    bool tb;
} mb_gemm_adapter;

/* The gemm kernel for A and B in bf16; C bf16 or f32, bias bf16 or f32. `also`, where
 * mb_cpu_gemm_bf16_adds says so, or NULL. */
mb_status mb_cpu_gemm_bf16(mb_exec *ex, mb_tensor *c, const mb_tensor *a, bool ta,
                           const mb_tensor *b, bool tb, float alpha, float beta,
                           const mb_tensor *bias, const mb_gemm_adapter *also) MB_MUST_USE;
bool mb_cpu_gemm_bf16_adds(int64_t k, int64_t rank);
/* h: of the adapter, or NULL */
size_t mb_cpu_gemm_bf16_workspace(const mb_exec *ex, const mb_tensor *c, const mb_tensor *a,
                                  bool ta, bool tb, const mb_tensor *bias, const mb_tensor *h);

/* Whether products of pairs run on instructions of the processor (avx512_bf16). Off: plain C, about
 * as fast as f32. For tests and benchmarks: turns them off, or on again where they exist; between
 * kernels only. */
bool mb_cpu_bf16_is_native(void);
void mb_cpu_bf16_native(bool on);

/* Operands are taken in pairs along the summed dimension: 32 bits with element 2l in the low and 2l+1
 * in the high half. A panel is (pairs, width) of them from op(B); width is 16, 32, 48 or
 * MB_PAIR_COLS. A tile is so many rows as fill the registers with sums of that width. */
enum { MB_PAIR_COLS = 64, MB_PAIR_GROUP = 48, MB_PAIR_TILE = 6 * 64 };

static inline int mb_pairs_rows(int64_t width)
{
    return width == 64 ? 6 : width == 48 ? 8 : width == 32 ? 12 : 16;
}

/* What becomes of sums: C = alpha sum + beta C + bias, rounded once to C's type (f32 or bf16). */
typedef struct mb_pairs_out {
    const mb_tensor *c;
    const float *bias; /* of the panel's columns; NULL: none */
    float alpha, beta;
} mb_pairs_out;

typedef struct mb_pairs {
    /* sum(rows, width) (+)= A(rows, 2 pairs) panel. The pair (i, l) of A starts at element
     * i * row + l * step of a. rows <= mb_pairs_rows(width); `add`: onto what sum holds. The bits of
     * a row do not depend on `rows` or `width`. */
    void (*multiply)(float *sum, const uint16_t *a, int64_t row, int64_t step, int rows,
                     const uint32_t *panel, int64_t width, int64_t pairs, bool add);
    /* rows [i, i + rows) and columns [j, j + n) of C from sum(rows, width) */
    void (*finish)(const mb_pairs_out *out, const float *sum, int64_t width, int64_t i, int rows,
                   int64_t j, int64_t n);
} mb_pairs;
const mb_pairs *mb_cpu_pairs(void);

/* to(ceil(k/2), width) = pairs of x: to[l, j] = (x(2l, j), x(2l+1, j)); zero where j >= cols or
 * 2l + 1 >= k. width: a multiple of 16. x is (k, cols) with rows ld apart ... */
void mb_cpu_pack_rows(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld, int64_t k,
                      int64_t cols);
/* ... or lies there as (cols, k). */
void mb_cpu_pack_cols(uint32_t *to, int64_t width, const uint16_t *x, int64_t ld, int64_t k,
                      int64_t cols);

#endif
