/* core/cpu/rope.c - rotary position embedding (Su et al., arXiv:2104.09864), half layout.
 *
 * In each head, for i < half:  y[i] = x[i] cos - x[i+half] sin,  y[i+half] = x[i+half] cos +
 * x[i] sin, with the angles of the row's position. The inverse is the rotation by -angle, which is
 * also the transpose, hence the backward.
 */
#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

/* One head. sign is -1 for the inverse. */
MB_CPU_CLONES static void rotate(float *y, const float *x, const float *c, const float *s,
                                 float sign, int64_t half, bool acc)
{
    if (acc) {
#pragma omp simd
        for (int64_t i = 0; i < half; i++) {
            const float a = x[i], b = x[i + half], sn = sign * s[i];

            y[i] += a * c[i] - b * sn;
            y[i + half] += b * c[i] + a * sn;
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < half; i++) {
            const float a = x[i], b = x[i + half], sn = sign * s[i];

            y[i] = a * c[i] - b * sn;
            y[i + half] = b * c[i] + a * sn;
        }
    }
}

static void keep(float *y, const float *x, int64_t n, bool acc)
{
    if (acc) {
        for (int64_t i = 0; i < n; i++)
            y[i] += x[i];
    } else if (y != x) {
        memcpy(y, x, sizeof *y * (size_t)n);
    }
}

mb_status mb_cpu_rope(mb_exec *ex, mb_tensor *y, const mb_tensor *x, const mb_tensor *cos_table,
                      const mb_tensor *sin_table, const mb_tensor *positions, int64_t head_dim,
                      bool inverse, bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x), half = mb_cols(cos_table);
    const int32_t *position = mb_i32(positions);

    MB_ASSERT(head_dim > 0 && n % head_dim == 0 && 2 * half <= head_dim);
    MB_ASSERT(mb_rows(y) == rows && mb_cols(y) == n && mb_tensor_count(positions) == rows);
    MB_REQUIRE(head_dim <= MB_STRIP || (x->dtype == MB_DTYPE_F32 && y->dtype == MB_DTYPE_F32),
               MB_ENOTSUP, "rope: heads of %lld elements, in 16 bits at most %d",
               (long long)head_dim, MB_STRIP);
    const int64_t step = head_dim <= MB_STRIP ? MB_STRIP / head_dim * head_dim : head_dim;
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *c = mb_row(cos_table, position[r]), *s = mb_row(sin_table, position[r]);
        mb_strip xs, ys;

        for (int64_t col = 0; col < n; col += step) {
            const int64_t m = n - col < step ? n - col : step;
            const float *from = mb_strip_read(xs, x, r, col, m);
            float *to = mb_strip_open(ys, y, r, col, m, acc);

            for (int64_t h = 0; h < m; h += head_dim) {
                rotate(to + h, from + h, c, s, inverse ? -1.0f : 1.0f, half, acc);
                if (2 * half < head_dim)
                    keep(to + h + 2 * half, from + h + 2 * half, head_dim - 2 * half, acc);
            }
            mb_strip_close(to, y, r, col, m);
        }
    }
    return MB_OK;
}
