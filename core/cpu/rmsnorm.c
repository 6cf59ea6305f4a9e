/* core/cpu/rmsnorm.c - RMSNorm (Zhang & Sennrich, arXiv:1910.07467), also of a sum.
 *
 *     y = w * x * rstd,  rstd = 1/sqrt(mean(x^2) + eps)
 *     dx = rstd * (w*dy - x * rstd^2 * mean(w*dy*x)),  dw += sum over rows of dy * x * rstd
 */
#include <math.h>

#include "core/cpu/rows.h"

MB_CPU_CLONES static float sum_squares(const float *x, int64_t n)
{
    return mb_dotf(x, x, n);
}

/* sum of w * dy * x */
MB_CPU_CLONES static float sum_products(const float *w, const float *dy, const float *x, int64_t n)
{
    float lane[MB_LANES] = {0};
    int64_t i = 0;

    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            lane[l] += w[i + l] * dy[i + l] * x[i + l];
    for (int l = 0; i + l < n; l++)
        lane[l] += w[i + l] * dy[i + l] * x[i + l];
    return mb_fold_lanes(lane);
}

MB_CPU_CLONES static void add_rows(float *sum, const float *a, const float *b, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        sum[i] = a[i] + b[i];
}

MB_CPU_CLONES static void normalise(float *y, const float *x, const float *w, float rstd, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = w[i] * (x[i] * rstd);
}

/* dx (+)= rstd * w * dy - c * x */
MB_CPU_CLONES static void row_dx(float *dx, const float *dy, const float *x, const float *w,
                                 float rstd, float c, bool acc, int64_t n)
{
    if (acc) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dx[i] += rstd * (w[i] * dy[i]) - c * x[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dx[i] = rstd * (w[i] * dy[i]) - c * x[i];
    }
}

MB_CPU_CLONES static void row_dw(float *restrict dw, const float *restrict dy,
                                 const float *restrict x, float rstd, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dw[i] += dy[i] * (x[i] * rstd);
}

mb_status mb_cpu_rmsnorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *rstd, const mb_tensor *x,
                             const mb_tensor *w, float eps)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);

    MB_ASSERT(mb_rows(y) == rows && mb_cols(y) == n && mb_tensor_count(w) == n);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *row = mb_row(x, r);
        const float s = 1.0f / sqrtf(sum_squares(row, n) / (float)n + eps);

        if (rstd != NULL)
            mb_f32(rstd)[r] = s;
        normalise(mb_row(y, r), row, mb_f32(w), s, n);
    }
    return MB_OK;
}

mb_status mb_cpu_add_rmsnorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *sum, mb_tensor *rstd,
                                 const mb_tensor *a, const mb_tensor *b, const mb_tensor *w,
                                 float eps)
{
    const int64_t rows = mb_rows(a), n = mb_cols(a);

    MB_ASSERT(mb_rows(y) == rows && mb_cols(y) == n && mb_rows(sum) == rows && mb_cols(sum) == n);
    MB_ASSERT(mb_rows(b) == rows && mb_cols(b) == n && mb_tensor_count(w) == n);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *row = mb_row(sum, r);

        add_rows(row, mb_row(a, r), mb_row(b, r), n);
        const float s = 1.0f / sqrtf(sum_squares(row, n) / (float)n + eps);
        if (rstd != NULL)
            mb_f32(rstd)[r] = s;
        normalise(mb_row(y, r), row, mb_f32(w), s, n);
    }
    return MB_OK;
}

size_t mb_cpu_rmsnorm_bwd_workspace(mb_exec *ex, mb_tensor *dx, mb_tensor *dw, const mb_tensor *dy,
                                    const mb_tensor *x, const mb_tensor *w, const mb_tensor *rstd,
                                    bool acc)
{
    (void)ex, (void)dx, (void)x, (void)w, (void)rstd, (void)acc;
    return dw == NULL ? 0 : sizeof(float) * (size_t)(mb_row_blocks(mb_rows(dy)) * mb_cols(dy));
}

mb_status mb_cpu_rmsnorm_bwd(mb_exec *ex, mb_tensor *dx, mb_tensor *dw, const mb_tensor *dy,
                             const mb_tensor *x, const mb_tensor *w, const mb_tensor *rstd,
                             bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x), blocks = mb_row_blocks(rows);
    float *partial = dw == NULL ? NULL : ex->workspace;

    MB_ASSERT(mb_rows(dy) == rows && mb_cols(dy) == n && mb_tensor_count(w) == n);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t end = (b + 1) * MB_ROW_BLOCK < rows ? (b + 1) * MB_ROW_BLOCK : rows;

        if (partial != NULL)
            memset(partial + b * n, 0, sizeof *partial * (size_t)n);
        for (int64_t r = b * MB_ROW_BLOCK; r < end; r++) {
            const float s = mb_f32(rstd)[r];
            const float *g = mb_row(dy, r), *row = mb_row(x, r);

            if (partial != NULL)
                row_dw(partial + b * n, g, row, s, n);
            if (dx != NULL) {
                const float c = sum_products(mb_f32(w), g, row, n) * s * s * s / (float)n;
                row_dx(mb_row(dx, r), g, row, mb_f32(w), s, c, acc, n);
            }
        }
    }
    if (partial != NULL)
        mb_cpu_add_partials(ex, mb_f32(dw), partial, blocks, n);
    return MB_OK;
}
