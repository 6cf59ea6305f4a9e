/* core/cpu/gemm_onednn.c - oneDNN as a provider of matrix products; the only <dnnl.h>.
 * dnnl_sgemm is the same in versions 2 and 3. */
#include <dnnl.h>
#include <stdio.h>

#include "core/cpu/gemm.h"

/* The status says only whether the arguments make sense; ours are checked before. */
static void sgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                  int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    if (dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) !=
        dnnl_success)
        MB_BUG("oneDNN refused a product of %lld x %lld x %lld", (long long)m, (long long)n,
               (long long)k);
}

static void start(void)
{
}

static const char *isa_name(dnnl_cpu_isa_t isa)
{
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } names[] = {
        {dnnl_cpu_isa_sse41, "SSE41"},
        {dnnl_cpu_isa_avx, "AVX"},
        {dnnl_cpu_isa_avx2, "AVX2"},
        {dnnl_cpu_isa_avx512_core, "AVX512"},
        {dnnl_cpu_isa_avx512_core_vnni, "AVX512_VNNI"},
        {dnnl_cpu_isa_avx512_core_bf16, "AVX512_BF16"},
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].isa == isa)
            return names[i].name;
    return "other";
}

static void describe(char *text, size_t bytes)
{
    const dnnl_version_t *v = dnnl_version();

    snprintf(text, bytes, "onednn %d.%d.%d %s", v->major, v->minor, v->patch,
             isa_name(dnnl_get_effective_cpu_isa()));
}

const mb_gemm_provider mb_gemm_onednn = {
    .name = "onednn", .sgemm = sgemm, .start = start, .describe = describe};
