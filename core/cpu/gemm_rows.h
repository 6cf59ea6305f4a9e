/* core/cpu/gemm_rows.h - C = alpha X op(W) + beta C (+ bias), each row by itself.
 *
 * The bits of a row of C depend on its row of X and on W alone: each number is one sum in one order,
 * whatever the number of rows. For X W^T sixteen lanes each sum every sixteenth product and are added
 * as a tree at the end (core/cpu/vecmath.h); for X W the products are added in the order of k.
 *
 * W may be GGUF blocks: the product is that of the numbers they stand for, which are made of them
 * again for every product, near where they are used: they take a fraction of the memory and its time.
 *
 * With few rows W comes from memory once and that is what takes the time; with many, panels of W stay
 * in the second-level cache while rows of X go by.
 */
#ifndef MB_CORE_CPU_GEMM_ROWS_H
#define MB_CORE_CPU_GEMM_ROWS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/dtype.h"

/* X (m, k), W (k, n) or, tw, (n, k); ld: elements from row to row. */
typedef struct mb_gemm_rows {
    int64_t m, n, k;
    const float *x, *bias; /* bias (n) or NULL */
    const void *w;
    mb_dtype type; /* of W: F32, or, tw, blocks, rows one behind the other */
    float *c;
    int64_t ldx, ldw, ldc;
    bool tw, by_eight; /* by_eight: without AVX-512, for the test that it gives the same bits */
    float alpha, beta;
    float *workspace;
} mb_gemm_rows;

/* Bytes of workspace, by shapes and type. */
size_t mb_cpu_gemm_rows_workspace(const mb_gemm_rows *p, int threads);
void mb_cpu_gemm_rows(const mb_gemm_rows *p, int threads);

#endif
