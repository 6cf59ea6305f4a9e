/* core/cpu/embedding.c - rows picked by an index: embedding tables, gather and scatter.
 *
 * The gradient of a table touches only the rows that occur. Threads share the columns, so each adds
 * its part of every row in order of r: no atomics, and one fixed order of additions per element.
 */
#include "core/cpu/dequantise.h"
#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

MB_CPU_CLONES static void add_row(float *restrict y, const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

/* n columns of row r of x to row `to` of y */
static void add_columns(const mb_tensor *y, int64_t to, const mb_tensor *x, int64_t r, int64_t col,
                        int64_t n)
{
    mb_strip xs, ys;

    for (int64_t i = 0; i < n; i += MB_STRIP) {
        const int64_t m = mb_strip_length(n, i), c = col + i;
        float *sum = mb_strip_open(ys, y, to, c, m, true);

        add_row(sum, mb_strip_read(xs, x, r, c, m), m);
        mb_strip_close(sum, y, to, c, m);
    }
}

/* y(i, :) = x(index[i], :), zeros where the index is negative. */
static void pick_rows(const mb_exec *ex, mb_tensor *y, const mb_tensor *x, const int32_t *index)
{
    const int64_t rows = mb_rows(y), n = mb_cols(y), size = mb_dtype_block_bytes(y->dtype);

    MB_ASSERT(mb_cols(x) == n && x->dtype == y->dtype && mb_dtype_block(x->dtype) == 1);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        char *to = (char *)y->data + r * mb_row_stride(y) * size;

        if (index[r] < 0)
            memset(to, 0, (size_t)(n * size));
        else
            memcpy(to, (const char *)x->data + index[r] * mb_row_stride(x) * size,
                   (size_t)(n * size));
    }
}

/* The same of a table of blocks. */
static void make_rows(const mb_exec *ex, mb_tensor *y, const mb_tensor *x, const int32_t *index)
{
    const int64_t rows = mb_rows(y), n = mb_cols(y);

    MB_ASSERT(mb_cols(x) == n && y->dtype == MB_DTYPE_F32 && mb_cpu_dequantises(x->dtype));
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        if (index[r] < 0)
            memset(mb_row(y, r), 0, (size_t)n * sizeof(float));
        else
            mb_cpu_dequantise_blocks(x->dtype, mb_row(y, r),
                                     (const char *)x->data + mb_dtype_bytes(x->dtype, index[r] * n),
                                     n);
    }
}

mb_status mb_cpu_embedding_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *ids, const mb_tensor *w)
{
    MB_ASSERT(mb_tensor_count(ids) == mb_rows(y));
    if (mb_dtype_is_quantised(w->dtype)) {
        make_rows(ex, y, w, mb_i32(ids));
        return MB_OK;
    }
    pick_rows(ex, y, w, mb_i32(ids));
    return MB_OK;
}

mb_status mb_cpu_gather_rows(mb_exec *ex, mb_tensor *y, const mb_tensor *x, const mb_tensor *index)
{
    MB_ASSERT(mb_tensor_count(index) == mb_rows(y));
    pick_rows(ex, y, x, mb_i32(index));
    return MB_OK;
}

size_t mb_cpu_embedding_bwd_workspace(mb_exec *ex, mb_tensor *dw, const mb_tensor *ids,
                                      const mb_tensor *dy, int64_t skip)
{
    (void)ex, (void)dw, (void)ids, (void)dy, (void)skip;
    return 0;
}

mb_status mb_cpu_embedding_bwd(mb_exec *ex, mb_tensor *dw, const mb_tensor *ids,
                               const mb_tensor *dy, int64_t skip)
{
    if (dw == NULL)
        return MB_OK;
    const int64_t rows = mb_rows(dy), n = mb_cols(dy);
    const int32_t *id = mb_i32(ids);
    const int team = mb_team(ex, rows * n);
    /* columns per thread, whole cache lines; which thread adds does not change the order */
    const int64_t width = ((n + team - 1) / team + 15) / 16 * 16;

    MB_ASSERT(mb_tensor_count(ids) == rows && mb_cols(dw) == n && dw->dtype == MB_DTYPE_F32);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t from = 0; from < n; from += width) {
        const int64_t m = n - from < width ? n - from : width;

        for (int64_t r = 0; r < rows; r++)
            if (id[r] >= 0 && id[r] != skip)
                add_columns(dw, id[r], dy, r, from, m);
    }
    return MB_OK;
}

mb_status mb_cpu_scatter_rows(mb_exec *ex, mb_tensor *dx, const mb_tensor *dy,
                              const mb_tensor *index)
{
    if (dx == NULL)
        return MB_OK;
    const int64_t rows = mb_rows(dy), n = mb_cols(dy);
    const int32_t *to = mb_i32(index);

    MB_ASSERT(mb_tensor_count(index) == rows && mb_cols(dx) == n);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        if (to[r] >= 0)
            add_columns(dx, to[r], dy, r, 0, n);
    return MB_OK;
}
