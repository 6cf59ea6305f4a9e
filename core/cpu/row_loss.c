/* core/cpu/row_loss.c - binary cross-entropy and squared error of rows of few columns. */
#include <math.h>

#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

static double loss_of(mb_row_loss loss, double x, double y)
{
    if (loss == MB_ROW_LOSS_SQUARED)
        return (x - y) * (x - y);
    return fmax(x, 0.0) - x * y + log1p(exp(-fabs(x)));
}

static double slope_of(mb_row_loss loss, double x, double y)
{
    if (loss == MB_ROW_LOSS_SQUARED)
        return 2.0 * (x - y);
    return 1.0 / (1.0 + exp(-x)) - y;
}

mb_status mb_cpu_row_loss_fwd(mb_exec *ex, mb_tensor *out, const mb_tensor *x, const mb_tensor *y,
                              mb_row_loss loss)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);
    const int team = mb_team(ex, rows * n);

    MB_ASSERT(mb_tensor_count(out) == rows && mb_tensor_count(y) == rows * n);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        mb_strip strip;
        double sum = 0.0;

        for (int64_t i = 0; i < n; i += MB_STRIP) {
            const int64_t m = mb_strip_length(n, i);
            const float *v = mb_strip_read(strip, x, r, i, m), *want = mb_f32(y) + r * n + i;

            for (int64_t k = 0; k < m; k++)
                sum += loss_of(loss, (double)v[k], (double)want[k]);
        }
        mb_f32(out)[r] = (float)(-sum / (double)n);
    }
    return MB_OK;
}

mb_status mb_cpu_row_loss_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dout, const mb_tensor *x,
                              const mb_tensor *y, mb_row_loss loss, bool acc)
{
    if (dx == NULL)
        return MB_OK;
    const int64_t rows = mb_rows(x), n = mb_cols(x);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const double outer = -(double)mb_f32(dout)[r] / (double)n;
        mb_strip xs, ds;

        for (int64_t i = 0; i < n; i += MB_STRIP) {
            const int64_t m = mb_strip_length(n, i);
            const float *v = mb_strip_read(xs, x, r, i, m), *want = mb_f32(y) + r * n + i;
            float *d = mb_strip_open(ds, dx, r, i, m, acc);

            for (int64_t k = 0; k < m; k++) {
                const float g = (float)(outer * slope_of(loss, (double)v[k], (double)want[k]));
                d[k] = acc ? d[k] + g : g;
            }
            mb_strip_close(d, dx, r, i, m);
        }
    }
    return MB_OK;
}
