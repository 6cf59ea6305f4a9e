/* core/cpu/gemm.h - f32 matrix products on the CPU: providers, and which one is used.
 *
 * A provider multiplies small matrices in one thread (OpenBLAS's cblas_sgemm, oneDNN's dnnl_sgemm).
 * Tiles, pieces of K, threads and edges are ours (core/cpu/gemm.c), so a result depends on shapes
 * and the provider alone. Or all of it is ours: "own", packed panels (core/cpu/gemm_panels.c).
 * mb_cpu_init chooses from the processor:
 *
 *     x86-64 with AVX2 or more    oneDNN
 *     anything else               OpenBLAS   (oneDNN has no fast f32 kernel of its own there)
 *
 * and own where that one fails its check. oneDNN is preferred to OpenBLAS for its speed (200 to 224 GFLOP/s
 * on two cores of Zen 4, OpenBLAS 0.3.21 160 to 184, as Cooperlake) and because of rows: their bits must
 * not depend on where they stand. Of panels they never do. With tiles of whole multiples of 48 rows that
 * holds for oneDNN's SSE4.1, AVX, AVX2 and AVX-512 kernels and for OpenBLAS's Nehalem, Sandybridge,
 * SkylakeX and Cooperlake, but not for OpenBLAS's Haswell and Zen, whose kernel adds every second group
 * of six rows in another order. It is preferred to own because neither is faster in all that a step
 * multiplies (GFLOP/s, a core of Emerald Rapids, whose peak is 175; oneDNN 2.6.3; 2048 rows y = x W^T,
 * dx = dy W, dW = dy^T x with W 1536 x 576, and 512 rows with W 2048 x 2048; best of fifteen in turns), and
 * a step takes the same time:
 *
 *               y      dx     dW     512 rows y
 *     oneDNN    152    166    167    146
 *     own       163    158    153    161
 *
 * MBUYU_GEMM=own|openblas|onednn forces one. Before a provider is used it multiplies some small odd
 * matrices, compared with plain loops; one that is wrong or crashes there is not used.
 */
#ifndef MB_CORE_CPU_GEMM_H
#define MB_CORE_CPU_GEMM_H

#include <stdint.h>

#include "core/status.h"

/* C(m,n) = alpha op(A) op(B) + beta C, row-major, leading dimensions in elements, in the calling
 * thread alone. beta 0 ignores C. */
typedef void mb_sgemm_fn(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                         const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                         float *c, int64_t ldc);

typedef struct mb_gemm_provider {
    const char *name;
    mb_sgemm_fn *sgemm;  /* NULL: products go by panels */
    void (*start)(void); /* once, before the first product; unused without sgemm */
    void (*describe)(char *text, size_t bytes); /* "openblas 0.3.21 SkylakeX" */
} mb_gemm_provider;

extern const mb_gemm_provider mb_gemm_openblas; /* core/cpu/gemm_openblas.c */
extern const mb_gemm_provider mb_gemm_onednn;   /* core/cpu/gemm_onednn.c */

/* Picks a provider and checks it; part of mb_cpu_init. MB_EARG: MBUYU_GEMM names none,
 * MB_ENOTSUP: that one does not multiply rightly. */
mb_status mb_cpu_gemm_init(void) MB_MUST_USE;

/* For tests and benchmarks, between kernels: use this provider from now on. MB_EARG when there is
 * none of that name, MB_ENOTSUP when it failed its check. */
mb_status mb_cpu_gemm_use(const char *name) MB_MUST_USE;
/* Whether the provider exists and passed its check. */
bool mb_cpu_gemm_available(const char *name);
/* The provider in use with version and kernel, "none" before mb_cpu_init. */
const char *mb_cpu_gemm_provider(void);
/* Whether a row of the provider in use has the same bits wherever it stands (see above). */
bool mb_cpu_gemm_rows_exact(void);
/* Whether f32 goes by panels. */
bool mb_cpu_gemm_is_own(void);
/* About what the provider in use takes, beside workspace, to pack operands on so many threads. */
size_t mb_cpu_gemm_library_bytes(int threads);
/* What the provider in use multiplies with, NULL where products are our own. Only within a parallel region in which
 * mb_cpu_one_thread() was called. */
mb_sgemm_fn *mb_cpu_sgemm(void);

/* First thing in a parallel region whose threads call a provider: it must not fork further. The
 * setting belongs to the region's implicit task and ends with it. */
void mb_cpu_one_thread(void);

#endif
