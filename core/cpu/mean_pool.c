/* core/cpu/mean_pool.c - the mean of the rows of each sequence. */
#include <string.h>

#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

mb_status mb_cpu_mean_pool_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *x,
                               const mb_tensor *start, const mb_tensor *len)
{
    const int64_t n_seq = mb_rows(y), n = mb_cols(y);
    const int team = mb_team(ex, mb_rows(x) * n);

    MB_ASSERT(mb_cols(x) == n && y->dtype == MB_DTYPE_F32 && mb_tensor_count(start) == n_seq);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t s = 0; s < n_seq; s++) {
        const int64_t from = mb_i32(start)[s], rows = mb_i32(len)[s];
        const float share = rows > 0 ? 1.0f / (float)rows : 0.0f;
        mb_strip strip;

        for (int64_t i = 0; i < n; i += MB_STRIP) {
            const int64_t m = mb_strip_length(n, i);
            float *to = mb_row(y, s) + i;

            memset(to, 0, (size_t)m * sizeof *to);
            for (int64_t t = 0; t < rows; t++) {
                const float *v = mb_strip_read(strip, x, from + t, i, m);
                for (int64_t k = 0; k < m; k++)
                    to[k] += v[k];
            }
            for (int64_t k = 0; k < m; k++)
                to[k] *= share;
        }
    }
    return MB_OK;
}

mb_status mb_cpu_mean_pool_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dy,
                               const mb_tensor *start, const mb_tensor *len, bool acc)
{
    if (dx == NULL)
        return MB_OK;
    const int64_t n_seq = mb_rows(dy), n = mb_cols(dy);
    const int team = mb_team(ex, mb_rows(dx) * n);

    if (!acc) /* rows of no sequence */
        MB_TRY(mb_cpu_fill(ex, dx, 0.0f));
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t s = 0; s < n_seq; s++) {
        const int64_t from = mb_i32(start)[s], rows = mb_i32(len)[s];
        const float share = rows > 0 ? 1.0f / (float)rows : 0.0f;
        mb_strip strip;

        for (int64_t t = from; t < from + rows; t++) {
            for (int64_t i = 0; i < n; i += MB_STRIP) {
                const int64_t m = mb_strip_length(n, i);
                const float *g = mb_row(dy, s) + i;
                float *d = mb_strip_open(strip, dx, t, i, m, true);

                for (int64_t k = 0; k < m; k++)
                    d[k] += share * g[k];
                mb_strip_close(d, dx, t, i, m);
            }
        }
    }
    return MB_OK;
}
