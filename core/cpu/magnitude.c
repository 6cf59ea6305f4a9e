/* core/cpu/magnitude.c - what DoRA (Liu et al. 2024, arXiv:2402.09353) adds to a low-rank adapter.
 *
 *     n_j^2 = |W_j|^2 + 2 s b_j (W A^T)_j + s^2 b_j (A A^T) b_j      gain_j = m_j / n_j
 *     y = x gain + bias by columns,  dm_j += sum over rows of dy x / n_j
 *
 * n_j is the length of row j of W + s B A, which is never made.
 */
#include <math.h>

#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

MB_CPU_CLONES static void add_squares(float *restrict sum, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        sum[i] += x[i] * x[i];
}

MB_CPU_CLONES static void add_products(float *restrict sum, const float *a, const float *b,
                                       int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        sum[i] += a[i] * b[i];
}

MB_CPU_CLONES static void gain_span(float *y, const float *x, const float *gain, const float *bias,
                                    bool acc, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = (acc ? y[i] : 0.0f) + (x[i] * gain[i] + (bias != NULL ? bias[i] : 0.0f));
}

/* |W_j|^2 of a row of W. */
static float row_squares(const mb_tensor *w, int64_t j)
{
    const int64_t n = mb_cols(w);
    float lanes[MB_LANES] = {0};
    mb_strip strip;

    for (int64_t c = 0; c < n; c += MB_STRIP) {
        const int64_t m = mb_strip_length(n, c);
        const float *x = mb_strip_read(strip, w, j, c, m);

        mb_dot_lanes(lanes, x, x, m);
    }
    return mb_fold_lanes(lanes);
}

/* The same of n columns from `from` on. */
static void column_squares(const mb_tensor *w, int64_t from, int64_t n, float *out)
{
    mb_strip strip;

    memset(out, 0, sizeof *out * (size_t)n);
    for (int64_t r = 0; r < mb_rows(w); r++)
        add_squares(out, mb_strip_read(strip, w, r, from, n), n);
}

/* 2 s b_j wa_j + s^2 b_j aa b_j */
static float adapter_squares(const mb_tensor *b, const mb_tensor *wa, const mb_tensor *aa, float s,
                             int64_t j)
{
    const int64_t rank = mb_cols(b);
    float lanes[MB_LANES] = {0}, sum = 0.0f;
    mb_strip strip;
    const float *row = mb_strip_read(strip, b, j, 0, rank);

    mb_dot_lanes(lanes, row, mb_row(wa, j), rank);
    for (int64_t k = 0; k < rank; k++) {
        float with[MB_LANES] = {0};

        mb_dot_lanes(with, row, mb_row(aa, k), rank);
        sum += row[k] * mb_fold_lanes(with);
    }
    return s * (2.0f * mb_fold_lanes(lanes) + s * sum);
}

mb_status mb_cpu_magnitude_gain(mb_exec *ex, mb_tensor *gain, mb_tensor *rnorm, const mb_tensor *m,
                                const mb_tensor *w, bool tw, const mb_tensor *b,
                                const mb_tensor *wa, const mb_tensor *aa, float s)
{
    const int64_t n = mb_rows(b), strips = (n + MB_STRIP - 1) / MB_STRIP;

    MB_ASSERT(mb_tensor_count(m) == n && (tw ? mb_cols(w) : mb_rows(w)) == n);
    MB_ASSERT(mb_rows(wa) == n && mb_cols(wa) == mb_cols(b) && mb_rows(aa) == mb_cols(b));
    MB_ASSERT(mb_cols(b) <= MB_STRIP);
    const int team = mb_team(ex, mb_tensor_count(w));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < strips; k++) {
        const int64_t from = k * MB_STRIP, count = mb_strip_length(n, from);
        mb_strip squares, strip;
        const float *magnitude = mb_strip_read(strip, m, 0, from, count);

        if (tw)
            column_squares(w, from, count, squares);
        for (int64_t i = 0; i < count; i++) {
            const float base = tw ? squares[i] : row_squares(w, from + i);
            const float all = base + adapter_squares(b, wa, aa, s, from + i);
            const float r = 1.0f / sqrtf(all > 0.0f ? all : 0.0f);

            mb_f32(rnorm)[from + i] = r;
            mb_f32(gain)[from + i] = magnitude[i] * r;
        }
    }
    return MB_OK;
}

mb_status mb_cpu_scale_columns(mb_exec *ex, mb_tensor *y, const mb_tensor *x, const mb_tensor *gain,
                               const mb_tensor *bias, bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);

    MB_ASSERT(mb_rows(y) == rows && mb_cols(y) == n && mb_tensor_count(gain) == n);
    MB_ASSERT(bias == NULL || mb_tensor_count(bias) == n);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < n; c += MB_STRIP) {
            const int64_t m = mb_strip_length(n, c);
            mb_strip xs, bs, ys;
            float *to = mb_strip_open(ys, y, r, c, m, acc);

            gain_span(to, mb_strip_read(xs, x, r, c, m), mb_f32(gain) + c,
                      mb_strip_read(bs, bias, 0, c, m), acc, m);
            mb_strip_close(to, y, r, c, m);
        }
    return MB_OK;
}

size_t mb_cpu_scale_columns_bwd_workspace(mb_exec *ex, mb_tensor *dm, const mb_tensor *dy,
                                          const mb_tensor *x, const mb_tensor *rnorm)
{
    (void)ex, (void)dm, (void)x, (void)rnorm;
    return sizeof(float) * (size_t)((mb_row_blocks(mb_rows(dy)) + 1) * mb_cols(dy));
}

mb_status mb_cpu_scale_columns_bwd(mb_exec *ex, mb_tensor *dm, const mb_tensor *dy,
                                   const mb_tensor *x, const mb_tensor *rnorm)
{
    const int64_t rows = mb_rows(dy), n = mb_cols(dy), blocks = mb_row_blocks(rows);
    float *all = ex->workspace, *partial = all + n;

    MB_ASSERT(mb_rows(x) == rows && mb_cols(x) == n && mb_tensor_count(rnorm) == n);
    MB_ASSERT(mb_tensor_count(dm) == n && dm->dtype == MB_DTYPE_F32);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t end = (b + 1) * MB_ROW_BLOCK < rows ? (b + 1) * MB_ROW_BLOCK : rows;
        float *sum = partial + b * n;

        memset(sum, 0, sizeof *sum * (size_t)n);
        for (int64_t r = b * MB_ROW_BLOCK; r < end; r++)
            for (int64_t c = 0; c < n; c += MB_STRIP) {
                const int64_t m = mb_strip_length(n, c);
                mb_strip ys, xs;

                add_products(sum + c, mb_strip_read(ys, dy, r, c, m), mb_strip_read(xs, x, r, c, m),
                             m);
            }
    }
    memset(all, 0, sizeof *all * (size_t)n);
    mb_cpu_add_partials(ex, all, partial, blocks, n);
    add_products(mb_f32(dm), all, mb_f32(rnorm), n);
    return MB_OK;
}
