/* core/cpu/gemm_openblas.c - OpenBLAS as a provider of matrix products; the only <cblas.h>. */
#include <cblas.h>
#include <stdio.h>

#include "core/cpu/gemm.h"

static CBLAS_TRANSPOSE op(bool transposed)
{
    return transposed ? CblasTrans : CblasNoTrans;
}

static void sgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                  int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    cblas_sgemm(CblasRowMajor, op(ta), op(tb), (blasint)m, (blasint)n, (blasint)k, alpha, a,
                (blasint)lda, b, (blasint)ldb, beta, c, (blasint)ldc);
}

static void start(void)
{
    openblas_set_num_threads(1); /* whichever variant of the library is loaded */
}

/* openblas_get_config() begins "OpenBLAS 0.3.21 ...". */
static void describe(char *text, size_t bytes)
{
    char version[32] = "";

    if (sscanf(openblas_get_config(), "OpenBLAS %31s", version) != 1)
        version[0] = '\0';
    snprintf(text, bytes, "openblas %s %s", version, openblas_get_corename());
}

const mb_gemm_provider mb_gemm_openblas = {
    .name = "openblas", .sgemm = sgemm, .start = start, .describe = describe};
