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
#include "core/cpu/strip.h"
#include "core/cpu/vec16.h"

MB_CPU_CLONES static void add_sum(float *restrict lanes, const float *x, int64_t n)
{
    float lane[MB_LANES];

    memcpy(lane, lanes, sizeof lane);
    mb_sum_lanes(lane, x, n);
    memcpy(lanes, lane, sizeof lane);
}

/* lanes += (x - mean)^2 */
MB_CPU_CLONES static void add_deviations(float *restrict lanes, const float *x, float mean,
                                         int64_t n)
{
    float lane[MB_LANES];
    int64_t i = 0;

    memcpy(lane, lanes, sizeof lane);
    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            lane[l] += (x[i + l] - mean) * (x[i + l] - mean);
    for (int l = 0; i + l < n; l++)
        lane[l] += (x[i + l] - mean) * (x[i + l] - mean);
    memcpy(lanes, lane, sizeof lane);
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

/* Lanes of the sums of g = w*dy and of g * (x - mean). */
struct sums {
    float sum[MB_LANES], dot[MB_LANES];
};

MB_INLINE void store_sums(struct sums *k, const mb_vec8 *sum, const mb_vec8 *dot)
{
    for (int h = 0; h < 2; h++) {
        MB_STORE8(k->sum + 8 * h, sum[h]);
        MB_STORE8(k->dot + 8 * h, dot[h]);
    }
}

MB_CPU_CLONES static void add_sums(struct sums *restrict k, const float *w, const float *dy,
                                   const float *x, float mean, int64_t n)
{
    mb_vec8 sum[2] = {MB_LOAD8(k->sum), MB_LOAD8(k->sum + 8)};
    mb_vec8 dot[2] = {MB_LOAD8(k->dot), MB_LOAD8(k->dot + 8)};
    int64_t i = 0;

    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int h = 0; h < 2; h++) {
            const int64_t at = i + 8 * h;
            const mb_vec8 g = MB_LOAD8(w + at) * MB_LOAD8(dy + at);

            sum[h] += g;
            dot[h] += g * (MB_LOAD8(x + at) - mean);
        }
    store_sums(k, sum, dot);
    for (int l = 0; i + l < n; l++) {
        k->sum[l] += w[i + l] * dy[i + l];
        k->dot[l] += w[i + l] * dy[i + l] * (x[i + l] - mean);
    }
}

/* The same with w = 1. */
MB_CPU_CLONES static void add_plain_sums(struct sums *restrict k, const float *dy, const float *x,
                                         float mean, int64_t n)
{
    mb_vec8 sum[2] = {MB_LOAD8(k->sum), MB_LOAD8(k->sum + 8)};
    mb_vec8 dot[2] = {MB_LOAD8(k->dot), MB_LOAD8(k->dot + 8)};
    int64_t i = 0;

    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int h = 0; h < 2; h++) {
            const int64_t at = i + 8 * h;

            sum[h] += MB_LOAD8(dy + at);
            dot[h] += MB_LOAD8(dy + at) * (MB_LOAD8(x + at) - mean);
        }
    store_sums(k, sum, dot);
    for (int l = 0; i + l < n; l++) {
        k->sum[l] += dy[i + l];
        k->dot[l] += dy[i + l] * (x[i + l] - mean);
    }
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

struct strips {
    mb_kept x, w, b, dy;
    mb_strip to;
};

static void forget(struct strips *k)
{
    k->x.from = k->w.from = k->b.from = k->dy.from = NULL;
}

/* y, mean and rstd of row r; `lanes` has the sum of x. mean and rstd may be NULL. */
static void finish_row(mb_tensor *y, mb_tensor *mean, mb_tensor *rstd, const mb_tensor *x,
                       const mb_tensor *w, const mb_tensor *b, const float *lanes, float eps,
                       int64_t r, struct strips *k)
{
    const int64_t n = mb_cols(x);
    const float at = mb_fold_lanes(lanes) / (float)n;
    float squares[MB_LANES] = {0};

    for (int64_t c = 0; c < n; c += MB_STRIP) {
        const int64_t m = mb_strip_length(n, c);

        add_deviations(squares, mb_kept_read(&k->x, x, r, c, m), at, m);
    }
    const float s = 1.0f / sqrtf(mb_fold_lanes(squares) / (float)n + eps);

    if (mean != NULL)
        mb_f32(mean)[r] = at;
    if (rstd != NULL)
        mb_f32(rstd)[r] = s;
    for (int64_t c = 0; c < n; c += MB_STRIP) {
        const int64_t m = mb_strip_length(n, c);
        float *to = mb_strip_open(k->to, y, r, c, m, false);

        normalise(to, mb_kept_read(&k->x, x, r, c, m), mb_kept_read(&k->w, w, 0, c, m),
                  mb_kept_read(&k->b, b, 0, c, m), at, s, m);
        mb_strip_close(to, y, r, c, m);
    }
}

/* All rows of x, which is a, or where b is given becomes a + b: the norm is that of the rounded sum. */
static mb_status forward(mb_exec *ex, mb_tensor *y, mb_tensor *mean, mb_tensor *rstd,
                         const mb_tensor *x, const mb_tensor *a, const mb_tensor *b,
                         const mb_tensor *w, const mb_tensor *bias, float eps)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);

    MB_ASSERT(mb_rows(y) == rows && mb_cols(y) == n);
    MB_ASSERT((w == NULL || mb_tensor_count(w) == n) &&
              (bias == NULL || mb_tensor_count(bias) == n));
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
                add_sum(lanes, mb_kept_read(&k.x, x, r, c, m), m);
            }
            finish_row(y, mean, rstd, x, w, bias, lanes, eps, r, &k);
        }
    }
    return MB_OK;
}

mb_status mb_cpu_layernorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *mean, mb_tensor *rstd,
                               const mb_tensor *x, const mb_tensor *w, const mb_tensor *b,
                               float eps)
{
    return forward(ex, y, mean, rstd, x, x, NULL, w, b, eps);
}

mb_status mb_cpu_add_layernorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *sum, mb_tensor *mean,
                                   mb_tensor *rstd, const mb_tensor *a, const mb_tensor *b,
                                   const mb_tensor *w, const mb_tensor *bias, float eps)
{
    MB_ASSERT(mb_rows(sum) == mb_rows(a) && mb_cols(sum) == mb_cols(a));
    MB_ASSERT(mb_rows(b) == mb_rows(a) && mb_cols(b) == mb_cols(a));
    return forward(ex, y, mean, rstd, sum, a, b, w, bias, eps);
}

size_t mb_cpu_layernorm_bwd_workspace(mb_exec *ex, mb_tensor *dx, mb_tensor *dw, mb_tensor *db,
                                      const mb_tensor *dy, const mb_tensor *x, const mb_tensor *w,
                                      const mb_tensor *mean, const mb_tensor *rstd, bool acc)
{
    (void)ex, (void)dx, (void)x, (void)w, (void)mean, (void)rstd, (void)acc;
    const int64_t sums = (dw != NULL) + (db != NULL);

    return sizeof(float) * (size_t)(sums * mb_row_blocks(mb_rows(dy)) * mb_cols(dy));
}

/* Row r of dx, and its part of dw and db; any may be NULL. */
static void row_backward(mb_tensor *dx, float *dw, float *db, const mb_tensor *dy,
                         const mb_tensor *x, const mb_tensor *w, struct row row, bool acc,
                         int64_t r, struct strips *k)
{
    const int64_t n = mb_cols(x);
    struct sums sums = {0};

    for (int64_t c = 0; c < n; c += MB_STRIP) {
        const int64_t m = mb_strip_length(n, c);
        const float *g = mb_kept_read(&k->dy, dy, r, c, m), *h = mb_kept_read(&k->x, x, r, c, m);

        if (dw != NULL)
            row_dw(dw + c, g, h, &row, m);
        if (db != NULL)
            row_db(db + c, g, m);
        if (dx != NULL && w == NULL)
            add_plain_sums(&sums, g, h, row.mean, m);
        else if (dx != NULL)
            add_sums(&sums, mb_kept_read(&k->w, w, 0, c, m), g, h, row.mean, m);
    }
    if (dx == NULL)
        return;
    row.g_mean = mb_fold_lanes(sums.sum) / (float)n;
    row.slope = mb_fold_lanes(sums.dot) / (float)n * row.rstd * row.rstd;
    for (int64_t c = 0; c < n; c += MB_STRIP) {
        const int64_t m = mb_strip_length(n, c);
        const float *g = mb_kept_read(&k->dy, dy, r, c, m), *h = mb_kept_read(&k->x, x, r, c, m);
        float *to = mb_strip_open(k->to, dx, r, c, m, acc);

        row_dx(to, g, h, mb_kept_read(&k->w, w, 0, c, m), &row, acc, m);
        mb_strip_close(to, dx, r, c, m);
    }
}

mb_status mb_cpu_layernorm_bwd(mb_exec *ex, mb_tensor *dx, mb_tensor *dw, mb_tensor *db,
                               const mb_tensor *dy, const mb_tensor *x, const mb_tensor *w,
                               const mb_tensor *mean, const mb_tensor *rstd, bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x), blocks = mb_row_blocks(rows);
    float *pw = dw == NULL ? NULL : ex->workspace;
    float *pb = db == NULL ? NULL : (float *)ex->workspace + (dw == NULL ? 0 : blocks * n);

    MB_ASSERT(mb_rows(dy) == rows && mb_cols(dy) == n);
    MB_ASSERT((dw == NULL || dw->dtype == MB_DTYPE_F32) &&
              (db == NULL || db->dtype == MB_DTYPE_F32));
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t blk = 0; blk < blocks; blk++) {
        const int64_t end = (blk + 1) * MB_ROW_BLOCK < rows ? (blk + 1) * MB_ROW_BLOCK : rows;
        struct strips k;

        forget(&k);
        if (pw != NULL)
            memset(pw + blk * n, 0, sizeof *pw * (size_t)n);
        if (pb != NULL)
            memset(pb + blk * n, 0, sizeof *pb * (size_t)n);
        for (int64_t r = blk * MB_ROW_BLOCK; r < end; r++) {
            const struct row row = {.mean = mb_f32(mean)[r], .rstd = mb_f32(rstd)[r]};

            row_backward(dx, pw == NULL ? NULL : pw + blk * n, pb == NULL ? NULL : pb + blk * n, dy,
                         x, w, row, acc, r, &k);
        }
    }
    if (pw != NULL)
        mb_cpu_add_partials(ex, mb_f32(dw), pw, blocks, n);
    if (pb != NULL)
        mb_cpu_add_partials(ex, mb_f32(db), pb, blocks, n);
    return MB_OK;
}
