/* core/cpu/span_xent.c - cross-entropy over the rows of a sequence, for its two columns. */
#include <math.h>
#include <string.h>

#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

static float at(const mb_tensor *x, int64_t row, int64_t col)
{
    float one[1];

    return *mb_strip_read(one, x, row, col, 1);
}

/* log of the sum of e^x over rows of a column. */
static double log_sum(const mb_tensor *x, int64_t from, int64_t n, int64_t col)
{
    double max = -INFINITY, sum = 0.0;

    for (int64_t t = 0; t < n; t++)
        max = fmax(max, (double)at(x, from + t, col));
    for (int64_t t = 0; t < n; t++)
        sum += exp((double)at(x, from + t, col) - max);
    return max + log(sum);
}

mb_status mb_cpu_span_xent_fwd(mb_exec *ex, mb_tensor *out, const mb_tensor *x,
                               const mb_tensor *label, const mb_tensor *start, const mb_tensor *len)
{
    const int64_t n = 2 * mb_tensor_count(start);
    const int team = mb_team(ex, 2 * mb_rows(x));

    MB_ASSERT(mb_cols(x) == 2 && mb_tensor_count(out) == n && mb_tensor_count(label) == n);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const int64_t from = mb_i32(start)[i / 2], rows = mb_i32(len)[i / 2], col = i % 2;

        mb_f32(out)[i] = 0.0f;
        if (rows == 0)
            continue;
        MB_ASSERT(mb_i32(label)[i] >= 0 && mb_i32(label)[i] < rows);
        mb_f32(out)[i] =
            (float)((double)at(x, from + mb_i32(label)[i], col) - log_sum(x, from, rows, col));
    }
    return MB_OK;
}

static void add_one(const mb_tensor *dx, int64_t row, int64_t col, double g)
{
    float one[1], *d = mb_strip_open(one, dx, row, col, 1, true);

    *d = (float)((double)*d + g);
    mb_strip_close(d, dx, row, col, 1);
}

mb_status mb_cpu_span_xent_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dout,
                               const mb_tensor *x, const mb_tensor *label, const mb_tensor *start,
                               const mb_tensor *len, bool acc)
{
    if (dx == NULL)
        return MB_OK;
    const int64_t n = 2 * mb_tensor_count(start);
    const int team = mb_team(ex, 2 * mb_rows(x));

    if (!acc)
        MB_TRY(mb_cpu_fill(ex, dx, 0.0f));
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const int64_t from = mb_i32(start)[i / 2], rows = mb_i32(len)[i / 2], col = i % 2;
        const double outer = (double)mb_f32(dout)[i];
        const double sum = rows > 0 ? log_sum(x, from, rows, col) : 0.0;

        for (int64_t t = 0; t < rows; t++) {
            const double p = exp((double)at(x, from + t, col) - sum);
            add_one(dx, from + t, col, outer * ((t == mb_i32(label)[i] ? 1.0 : 0.0) - p));
        }
    }
    return MB_OK;
}
