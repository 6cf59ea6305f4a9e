/* core/cpu/layernorm.c - LayerNorm (Ba, Kiros & Hinton, arXiv:1607.06450), also of a sum.
 *
 *     h = (x - mean) * rstd,  y = w*h + b,  rstd = 1/sqrt(var + eps), var over D (not D-1)
 *     dx = rstd * (w*dy - mean(w*dy) - h * mean(w*dy*h)),  dw += sum dy*h,  db += sum dy
 *
 * The variance is taken around the mean in a second pass: the row is in the cache by then. w and b
 * may be NULL (1 and 0).
 */
#include <math.h>

#include "core/cpu/rows.h"
#include "core/cpu/vec16.h"

MB_CPU_CLONES static float row_sum(const float *x, int64_t n)
{
    return mb_sumf(x, n);
}

/* sum of (x - mean)^2 */
MB_CPU_CLONES static float sum_deviations(const float *x, float mean, int64_t n)
{
    float lane[MB_LANES] = {0};
    int64_t i = 0;

    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            lane[l] += (x[i + l] - mean) * (x[i + l] - mean);
    for (int l = 0; i + l < n; l++)
        lane[l] += (x[i + l] - mean) * (x[i + l] - mean);
    return mb_fold_lanes(lane);
}

MB_CPU_CLONES static void add_rows(float *sum, const float *a, const float *b, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        sum[i] = a[i] + b[i];
}

MB_CPU_CLONES static void normalise(float *y, const float *x, const float *w, const float *b,
                                    float mean, float rstd, int64_t n)
{
    if (w != NULL && b != NULL) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * rstd * w[i] + b[i];
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * rstd;
    if (w != NULL) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] *= w[i];
    }
    if (b != NULL) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] += b[i];
    }
}

/* Sums of g = w*dy and of g * (x - mean). */
MB_CPU_CLONES static void row_sums(float *restrict out, const float *w, const float *dy,
                                   const float *x, float mean, int64_t n)
{
    mb_vec16 sums = {0}, dots = {0};
    float sum[MB_LANES], dot[MB_LANES];
    int64_t i = 0;

    for (; i + MB_LANES <= n; i += MB_LANES) {
        const mb_vec16 g = MB_LOAD16(w + i) * MB_LOAD16(dy + i);

        sums += g;
        dots += g * (MB_LOAD16(x + i) - mean);
    }
    MB_STORE16(sum, sums);
    MB_STORE16(dot, dots);
    for (int l = 0; i + l < n; l++) {
        sum[l] += w[i + l] * dy[i + l];
        dot[l] += w[i + l] * dy[i + l] * (x[i + l] - mean);
    }
    out[0] = mb_fold_lanes(sum);
    out[1] = mb_fold_lanes(dot);
}

/* The same with w = 1. */
MB_CPU_CLONES static void plain_sums(float *restrict out, const float *dy, const float *x,
                                     float mean, int64_t n)
{
    mb_vec16 sums = {0}, dots = {0};
    float sum[MB_LANES], dot[MB_LANES];
    int64_t i = 0;

    for (; i + MB_LANES <= n; i += MB_LANES) {
        sums += MB_LOAD16(dy + i);
        dots += MB_LOAD16(dy + i) * (MB_LOAD16(x + i) - mean);
    }
    MB_STORE16(sum, sums);
    MB_STORE16(dot, dots);
    for (int l = 0; i + l < n; l++) {
        sum[l] += dy[i + l];
        dot[l] += dy[i + l] * (x[i + l] - mean);
    }
    out[0] = mb_fold_lanes(sum);
    out[1] = mb_fold_lanes(dot);
}

struct row {
    float mean, rstd;
    float g_mean; /* mean(w*dy) */
    float slope;  /* mean(w*dy*h) * rstd: what multiplies (x - mean) */
};

MB_CPU_CLONES static void row_dx(float *dx, const float *dy, const float *x, const float *w,
                                 const struct row *k, bool acc, int64_t n)
{
    const float mean = k->mean, rstd = k->rstd, g_mean = k->g_mean, slope = k->slope;

    if (w != NULL && acc) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dx[i] += rstd * (dy[i] * w[i] - g_mean - (x[i] - mean) * slope);
    } else if (w != NULL) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dx[i] = rstd * (dy[i] * w[i] - g_mean - (x[i] - mean) * slope);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dx[i] = (acc ? dx[i] : 0.0f) + rstd * (dy[i] - g_mean - (x[i] - mean) * slope);
    }
}

MB_CPU_CLONES static void row_dw(float *restrict dw, const float *restrict dy,
                                 const float *restrict x, const struct row *k, int64_t n)
{
    const float mean = k->mean, rstd = k->rstd;

    for (int64_t i = 0; i < n; i++)
        dw[i] += dy[i] * ((x[i] - mean) * rstd);
}

MB_CPU_CLONES static void row_db(float *restrict db, const float *restrict dy, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        db[i] += dy[i];
}

static const float *values(const mb_tensor *t)
{
    return t == NULL ? NULL : mb_f32(t);
}

/* One row; mean and rstd may be NULL. */
static void row_forward(float *y, float *mean, float *rstd, const float *x, const float *w,
                        const float *b, float eps, int64_t n)
{
    const float m = row_sum(x, n) / (float)n;
    const float s = 1.0f / sqrtf(sum_deviations(x, m, n) / (float)n + eps);

    if (mean != NULL)
        *mean = m;
    if (rstd != NULL)
        *rstd = s;
    normalise(y, x, w, b, m, s, n);
}

static float *value_at(const mb_tensor *t, int64_t r)
{
    return t == NULL ? NULL : mb_f32(t) + r;
}

mb_status mb_cpu_layernorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *mean, mb_tensor *rstd,
                               const mb_tensor *x, const mb_tensor *w, const mb_tensor *b,
                               float eps)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);

    MB_ASSERT(mb_rows(y) == rows && mb_cols(y) == n);
    MB_ASSERT((w == NULL || mb_tensor_count(w) == n) && (b == NULL || mb_tensor_count(b) == n));
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        row_forward(mb_row(y, r), value_at(mean, r), value_at(rstd, r), mb_row(x, r), values(w),
                    values(b), eps, n);
    return MB_OK;
}

mb_status mb_cpu_add_layernorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *sum, mb_tensor *mean,
                                   mb_tensor *rstd, const mb_tensor *a, const mb_tensor *b,
                                   const mb_tensor *w, const mb_tensor *bias, float eps)
{
    const int64_t rows = mb_rows(a), n = mb_cols(a);

    MB_ASSERT(mb_rows(y) == rows && mb_cols(y) == n && mb_rows(sum) == rows && mb_cols(sum) == n);
    MB_ASSERT(mb_rows(b) == rows && mb_cols(b) == n);
    MB_ASSERT((w == NULL || mb_tensor_count(w) == n) &&
              (bias == NULL || mb_tensor_count(bias) == n));
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        add_rows(mb_row(sum, r), mb_row(a, r), mb_row(b, r), n);
        row_forward(mb_row(y, r), value_at(mean, r), value_at(rstd, r), mb_row(sum, r), values(w),
                    values(bias), eps, n);
    }
    return MB_OK;
}

size_t mb_cpu_layernorm_bwd_workspace(mb_exec *ex, mb_tensor *dx, mb_tensor *dw, mb_tensor *db,
                                      const mb_tensor *dy, const mb_tensor *x, const mb_tensor *w,
                                      const mb_tensor *mean, const mb_tensor *rstd, bool acc)
{
    (void)ex, (void)dx, (void)x, (void)w, (void)mean, (void)rstd, (void)acc;
    const int64_t sums = (dw != NULL) + (db != NULL);

    return sizeof(float) * (size_t)(sums * mb_row_blocks(mb_rows(dy)) * mb_cols(dy));
}

mb_status mb_cpu_layernorm_bwd(mb_exec *ex, mb_tensor *dx, mb_tensor *dw, mb_tensor *db,
                               const mb_tensor *dy, const mb_tensor *x, const mb_tensor *w,
                               const mb_tensor *mean, const mb_tensor *rstd, bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x), blocks = mb_row_blocks(rows);
    float *pw = dw == NULL ? NULL : ex->workspace;
    float *pb = db == NULL ? NULL : (float *)ex->workspace + (dw == NULL ? 0 : blocks * n);

    MB_ASSERT(mb_rows(dy) == rows && mb_cols(dy) == n);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t blk = 0; blk < blocks; blk++) {
        const int64_t end = (blk + 1) * MB_ROW_BLOCK < rows ? (blk + 1) * MB_ROW_BLOCK : rows;

        if (pw != NULL)
            memset(pw + blk * n, 0, sizeof *pw * (size_t)n);
        if (pb != NULL)
            memset(pb + blk * n, 0, sizeof *pb * (size_t)n);
        for (int64_t r = blk * MB_ROW_BLOCK; r < end; r++) {
            struct row k = {.mean = mb_f32(mean)[r], .rstd = mb_f32(rstd)[r]};
            const float *g = mb_row(dy, r), *row = mb_row(x, r);

            if (pw != NULL)
                row_dw(pw + blk * n, g, row, &k, n);
            if (pb != NULL)
                row_db(pb + blk * n, g, n);
            if (dx != NULL) {
                float sums[2];

                if (w == NULL)
                    plain_sums(sums, g, row, k.mean, n);
                else
                    row_sums(sums, mb_f32(w), g, row, k.mean, n);
                k.g_mean = sums[0] / (float)n;
                k.slope = sums[1] / (float)n * k.rstd * k.rstd;
                row_dx(mb_row(dx, r), g, row, values(w), &k, acc, n);
            }
        }
    }
    if (pw != NULL)
        mb_cpu_add_partials(ex, mb_f32(dw), pw, blocks, n);
    if (pb != NULL)
        mb_cpu_add_partials(ex, mb_f32(db), pb, blocks, n);
    return MB_OK;
}
