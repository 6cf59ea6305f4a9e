/* core/cpu/halves.c - a float as two halves, of which the upper one is a bf16 number by itself. */
#include "core/cpu/rows.h"

MB_CPU_CLONES static void split(uint16_t *restrict hi, uint16_t *restrict lo,
                                const float *restrict x, int64_t n)
{
    uint16_t none;

    if (lo == NULL)
        for (int64_t i = 0; i < n; i++)
            hi[i] = mb_bf16_split(x[i], &none);
    else
        for (int64_t i = 0; i < n; i++)
            hi[i] = mb_bf16_split(x[i], lo + i);
}

MB_CPU_CLONES static void join(float *restrict x, const uint16_t *restrict hi,
                               const uint16_t *restrict lo, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = mb_bf16_join(hi[i], lo[i]);
}

mb_status mb_cpu_split_bf16(mb_exec *ex, mb_tensor *hi, mb_tensor *lo, const mb_tensor *x)
{
    const mb_spans sp = mb_spans_of(3, (const mb_tensor *const[]){x, hi, lo});
    const int team = mb_team(ex, mb_tensor_count(x));

    MB_ASSERT(sp.merged && hi->dtype == MB_DTYPE_BF16 && x->dtype == MB_DTYPE_F32);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);

        split((uint16_t *)hi->data + at.col, lo != NULL ? (uint16_t *)lo->data + at.col : NULL,
              mb_f32(x) + at.col, at.n);
    }
    return MB_OK;
}

mb_status mb_cpu_join_bf16(mb_exec *ex, mb_tensor *x, const mb_tensor *hi, const mb_tensor *lo)
{
    const mb_spans sp = mb_spans_of(3, (const mb_tensor *const[]){x, hi, lo});
    const int team = mb_team(ex, mb_tensor_count(x));

    MB_ASSERT(sp.merged && hi->dtype == MB_DTYPE_BF16 && x->dtype == MB_DTYPE_F32);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);

        join(mb_f32(x) + at.col, (const uint16_t *)hi->data + at.col,
             (const uint16_t *)lo->data + at.col, at.n);
    }
    return MB_OK;
}
