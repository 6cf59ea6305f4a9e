/* core/cpu/rmsnorm.c - RMSNorm (Zhang & Sennrich, arXiv:1910.07467), also of a sum.
 *
 *     y = v * x * rstd,  v = offset + w,  rstd = 1/sqrt(mean(x^2) + eps)
 *     dx = rstd * (v*dy - x * rstd^2 * mean(v*dy*x)),  dw += sum over rows of dy * x * rstd
 */
#include <math.h>

#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

MB_CPU_CLONES static void add_squares(float *restrict lanes, const float *x, int64_t n)
{
    float lane[MB_LANES];

    memcpy(lane, lanes, sizeof lane);
    mb_dot_lanes(lane, x, x, n);
    memcpy(lanes, lane, sizeof lane);
}

/* lanes += (offset + w) * dy * x */
MB_CPU_CLONES static void add_products(float *restrict lanes, const float *w, float offset,
                                       const float *dy, const float *x, int64_t n)
{
    float lane[MB_LANES];
    int64_t i = 0;

    memcpy(lane, lanes, sizeof lane);
    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            lane[l] += (offset + w[i + l]) * dy[i + l] * x[i + l];
    for (int l = 0; i + l < n; l++)
        lane[l] += (offset + w[i + l]) * dy[i + l] * x[i + l];
    memcpy(lanes, lane, sizeof lane);
}

MB_CPU_CLONES static void normalise(float *y, const float *x, const float *w, float offset,
                                    float rstd, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = (offset + w[i]) * (x[i] * rstd);
}

/* dx (+)= rstd * (offset + w) * dy - c * x */
MB_CPU_CLONES static void row_dx(float *dx, const float *dy, const float *x, const float *w,
                                 float offset, float rstd, float c, bool acc, int64_t n)
{
    if (acc) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dx[i] += rstd * ((offset + w[i]) * dy[i]) - c * x[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dx[i] = rstd * ((offset + w[i]) * dy[i]) - c * x[i];
    }
}

MB_CPU_CLONES static void row_dw(float *restrict dw, const float *restrict dy,
                                 const float *restrict x, float rstd, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dw[i] += dy[i] * (x[i] * rstd);
}

struct strips {
    mb_kept x, w, dy;
    mb_strip to;
};

static void forget(struct strips *k)
{
    k->x.from = k->w.from = k->dy.from = NULL;
}

/* y and rstd of row r; `lanes` has the squares of x. */
static void finish_row(mb_tensor *y, mb_tensor *rstd, const mb_tensor *x, const mb_tensor *w,
                       float offset, const float *lanes, float eps, int64_t r, struct strips *k)
{
    const int64_t n = mb_cols(x);
    const float s = 1.0f / sqrtf(mb_fold_lanes(lanes) / (float)n + eps);

    if (rstd != NULL)
        mb_f32(rstd)[r] = s;
    for (int64_t c = 0; c < n; c += MB_STRIP) {
        const int64_t m = mb_strip_length(n, c);
        const float *row = mb_kept_read(&k->x, x, r, c, m), *wc = mb_kept_read(&k->w, w, 0, c, m);
        float *to = mb_strip_open(k->to, y, r, c, m, false);

        normalise(to, row, wc, offset, s, m);
        mb_strip_close(to, y, r, c, m);
    }
}

/* All rows of x, which is a, or where b is given becomes a + b: the norm is that of the rounded sum. */
static mb_status forward(mb_exec *ex, mb_tensor *y, mb_tensor *rstd, const mb_tensor *x,
                         const mb_tensor *a, const mb_tensor *b, const mb_tensor *w, float offset,
                         float eps)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);

    MB_ASSERT(mb_rows(y) == rows && mb_cols(y) == n && mb_tensor_count(w) == n);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel num_threads(team)
    {
        struct strips k;

        forget(&k);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            float lanes[MB_LANES] = {0};

            for (int64_t c = 0; c < n; c += MB_STRIP) {
                const int64_t m = mb_strip_length(n, c);

                if (b != NULL)
                    mb_cpu_add_strip(x, a, b, r, c, m);
                add_squares(lanes, mb_kept_read(&k.x, x, r, c, m), m);
            }
            finish_row(y, rstd, x, w, offset, lanes, eps, r, &k);
        }
    }
    return MB_OK;
}

mb_status mb_cpu_rmsnorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *rstd, const mb_tensor *x,
                             const mb_tensor *w, float offset, float eps)
{
    return forward(ex, y, rstd, x, x, NULL, w, offset, eps);
}

mb_status mb_cpu_add_rmsnorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *sum, mb_tensor *rstd,
                                 const mb_tensor *a, const mb_tensor *b, const mb_tensor *w,
                                 float offset, float eps)
{
    MB_ASSERT(mb_rows(sum) == mb_rows(a) && mb_cols(sum) == mb_cols(a));
    MB_ASSERT(mb_rows(b) == mb_rows(a) && mb_cols(b) == mb_cols(a));
    return forward(ex, y, rstd, sum, a, b, w, offset, eps);
}

size_t mb_cpu_rmsnorm_bwd_workspace(mb_exec *ex, mb_tensor *dx, mb_tensor *dw, const mb_tensor *dy,
                                    const mb_tensor *x, const mb_tensor *w, float offset,
                                    const mb_tensor *rstd, bool acc)
{
    (void)ex, (void)dx, (void)x, (void)w, (void)offset, (void)rstd, (void)acc;
    return dw == NULL ? 0 : sizeof(float) * (size_t)(mb_row_blocks(mb_rows(dy)) * mb_cols(dy));
}

/* Row r of dx, and its part of dw; either may be NULL. */
static void row_backward(mb_tensor *dx, float *dw, const mb_tensor *dy, const mb_tensor *x,
                         const mb_tensor *w, float offset, float s, bool acc, int64_t r,
                         struct strips *k)
{
    const int64_t n = mb_cols(x);
    float lanes[MB_LANES] = {0};

    for (int64_t c = 0; c < n; c += MB_STRIP) {
        const int64_t m = mb_strip_length(n, c);
        const float *g = mb_kept_read(&k->dy, dy, r, c, m), *row = mb_kept_read(&k->x, x, r, c, m);

        if (dw != NULL)
            row_dw(dw + c, g, row, s, m);
        if (dx != NULL)
            add_products(lanes, mb_kept_read(&k->w, w, 0, c, m), offset, g, row, m);
    }
    if (dx == NULL)
        return;
    const float slope = mb_fold_lanes(lanes) * s * s * s / (float)n;
    for (int64_t c = 0; c < n; c += MB_STRIP) {
        const int64_t m = mb_strip_length(n, c);
        const float *g = mb_kept_read(&k->dy, dy, r, c, m), *row = mb_kept_read(&k->x, x, r, c, m);
        float *to = mb_strip_open(k->to, dx, r, c, m, acc);

        row_dx(to, g, row, mb_kept_read(&k->w, w, 0, c, m), offset, s, slope, acc, m);
        mb_strip_close(to, dx, r, c, m);
    }
}

mb_status mb_cpu_rmsnorm_bwd(mb_exec *ex, mb_tensor *dx, mb_tensor *dw, const mb_tensor *dy,
                             const mb_tensor *x, const mb_tensor *w, float offset,
                             const mb_tensor *rstd, bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x), blocks = mb_row_blocks(rows);
    float *partial = dw == NULL ? NULL : ex->workspace;

    MB_ASSERT(mb_rows(dy) == rows && mb_cols(dy) == n && mb_tensor_count(w) == n);
    MB_ASSERT(dw == NULL || dw->dtype == MB_DTYPE_F32);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t end = (b + 1) * MB_ROW_BLOCK < rows ? (b + 1) * MB_ROW_BLOCK : rows;
        struct strips k;

        forget(&k);
        if (partial != NULL)
            memset(partial + b * n, 0, sizeof *partial * (size_t)n);
        for (int64_t r = b * MB_ROW_BLOCK; r < end; r++)
            row_backward(dx, partial == NULL ? NULL : partial + b * n, dy, x, w, offset,
                         mb_f32(rstd)[r], acc, r, &k);
    }
    if (partial != NULL)
        mb_cpu_add_partials(ex, mb_f32(dw), partial, blocks, n);
    return MB_OK;
}
