/* core/cpu/elementwise.c - copy, axpy, fill, scale, add, and the sum over rows (bias_bwd).
 *
 * Everything here moves memory: a span function per kernel, one driver that cuts the tensors.
 */
#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

typedef void (*span_fn)(float *y, const float *a, const float *b, float s, int64_t n);

MB_CPU_CLONES static void axpy_span(float *y, const float *a, const float *b, float s, int64_t n)
{
    (void)b;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] += s * a[i];
}

MB_CPU_CLONES static void fill_span(float *y, const float *a, const float *b, float s, int64_t n)
{
    (void)a, (void)b;
    for (int64_t i = 0; i < n; i++)
        y[i] = s;
}

MB_CPU_CLONES static void scale_span(float *y, const float *a, const float *b, float s, int64_t n)
{
    (void)b;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = s * a[i];
}

MB_CPU_CLONES static void add_span(float *y, const float *a, const float *b, float s, int64_t n)
{
    (void)s;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

/* `acc`: f reads y. */
static mb_status each_span(const mb_exec *ex, span_fn f, const mb_tensor *y, bool acc,
                           const mb_tensor *a, const mb_tensor *b, float s)
{
    const mb_spans sp = mb_spans_of(3, (const mb_tensor *const[]){y, a, b});
    const int team = mb_team(ex, mb_tensor_count(y));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        mb_strip ys, as, bs;

        for (int64_t i = 0; i < at.n; i += MB_STRIP) {
            const int64_t n = mb_strip_length(at.n, i), col = at.col + i;
            float *to = mb_strip_open(ys, y, at.row, col, n, acc);

            f(to, mb_strip_read(as, a, at.row, col, n), mb_strip_read(bs, b, at.row, col, n), s, n);
            mb_strip_close(to, y, at.row, col, n);
        }
    }
    return MB_OK;
}

/* Any type: bytes are moved. */
mb_status mb_cpu_copy(mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    MB_ASSERT(y->dtype == x->dtype);
    const mb_spans sp = mb_spans_of(2, (const mb_tensor *const[]){y, x});
    const mb_dtype d = y->dtype;

    /* a span starts at a multiple of MB_SPAN, hence of every block */
    const int team = mb_team(ex, mb_tensor_count(y));

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t k = 0; k < sp.count; k++) {
        const mb_span at = mb_span_at(&sp, k);
        const int64_t to = at.row * mb_row_stride(y) + at.col;
        const int64_t from = at.row * mb_row_stride(x) + at.col;

        memcpy((char *)y->data + mb_dtype_bytes(d, to),
               (const char *)x->data + mb_dtype_bytes(d, from), (size_t)mb_dtype_bytes(d, at.n));
    }
    return MB_OK;
}

mb_status mb_cpu_axpy(mb_exec *ex, mb_tensor *y, float alpha, const mb_tensor *x)
{
    return each_span(ex, axpy_span, y, true, x, NULL, alpha);
}

mb_status mb_cpu_fill(mb_exec *ex, mb_tensor *y, float value)
{
    return each_span(ex, fill_span, y, false, NULL, NULL, value);
}

mb_status mb_cpu_scale(mb_exec *ex, mb_tensor *y, float alpha, const mb_tensor *x)
{
    return each_span(ex, scale_span, y, false, x, NULL, alpha);
}

mb_status mb_cpu_add(mb_exec *ex, mb_tensor *y, const mb_tensor *a, const mb_tensor *b)
{
    return each_span(ex, add_span, y, false, a, b, 0.0f);
}

void mb_cpu_add_partials(const mb_exec *ex, float *out, const float *partial, int64_t blocks,
                         int64_t n)
{
    const int64_t piece = 1024;
    const int team = mb_team(ex, blocks * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t from = 0; from < n; from += piece) {
        const int64_t m = n - from < piece ? n - from : piece;
        float sum[1024];

        memset(sum, 0, sizeof sum);
        for (int64_t b = 0; b < blocks; b++)
            add_span(sum, sum, partial + b * n + from, 0.0f, m);
        add_span(out + from, out + from, sum, 0.0f, m);
    }
}

size_t mb_cpu_bias_bwd_workspace(mb_exec *ex, mb_tensor *db, const mb_tensor *dy)
{
    (void)ex;
    return db == NULL ? 0 : sizeof(float) * (size_t)(mb_row_blocks(mb_rows(dy)) * mb_cols(dy));
}

mb_status mb_cpu_bias_bwd(mb_exec *ex, mb_tensor *db, const mb_tensor *dy)
{
    if (db == NULL)
        return MB_OK;
    const int64_t rows = mb_rows(dy), n = mb_cols(dy), blocks = mb_row_blocks(rows);
    float *partial = ex->workspace;

    MB_ASSERT(mb_tensor_count(db) == n && db->dtype == MB_DTYPE_F32);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t end = (b + 1) * MB_ROW_BLOCK < rows ? (b + 1) * MB_ROW_BLOCK : rows;
        mb_strip strip;
        float *sum = partial + b * n;

        memset(sum, 0, sizeof *sum * (size_t)n);
        for (int64_t r = b * MB_ROW_BLOCK; r < end; r++)
            for (int64_t c = 0; c < n; c += MB_STRIP) {
                const int64_t m = mb_strip_length(n, c);

                add_span(sum + c, sum + c, mb_strip_read(strip, dy, r, c, m), 0.0f, m);
            }
    }
    mb_cpu_add_partials(ex, mb_f32(db), partial, blocks, n);
    return MB_OK;
}
