/* core/cpu/unfold.c - the windows of a convolution over rows, laid side by side, and back.
 *
 * A convolution is then one matrix product with the weight as it is stored (out, in, kernel). Both ways
 * are gathers: threads take whole rows of what is written, and a row adds its windows in their order.
 */
#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

enum { MOST_KERNEL = 64 };

/* The row of x that element j of window i begins with, -1: none. */
static int64_t source_of(const mb_unfold *u, int64_t rows, int64_t i, int64_t j)
{
    const int64_t s = i / u->out_len, from = i % u->out_len * u->stride + j - u->pad;

    return from >= 0 && from < u->in_len && s * u->in_len + from < rows ? s * u->in_len + from : -1;
}

#define SPREAD(type)                                                           \
    static void spread_##type(type *y, int64_t step, const type *x, int64_t n) \
    {                                                                          \
        for (int64_t c = 0; c < n; c++)                                        \
            y[c * step] = x != NULL ? x[c] : 0;                                \
    }
SPREAD(uint16_t)
SPREAD(uint32_t)
#undef SPREAD

/* Bits are copied, whatever the type. */
mb_status mb_cpu_unfold(mb_exec *ex, mb_tensor *y, const mb_tensor *x, const mb_unfold *u)
{
    const int64_t rows = mb_rows(y), n = mb_cols(x), k = u->kernel;
    const int64_t size = mb_dtype_block_bytes(x->dtype);
    const int team = mb_team(ex, rows * n * k);

    MB_ASSERT(mb_cols(y) == n * k && y->dtype == x->dtype && (size == 2 || size == 4));
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < k; j++) {
            const int64_t r = source_of(u, mb_rows(x), i, j);
            char *to = (char *)y->data + (i * mb_row_stride(y) + j) * size;
            const char *from = r < 0 ? NULL : (const char *)x->data + r * mb_row_stride(x) * size;

            if (size == 2)
                spread_uint16_t((void *)to, k, (const void *)from, n);
            else
                spread_uint32_t((void *)to, k, (const void *)from, n);
        }
    return MB_OK;
}

static void add_every(float *y, const float *x, int64_t step, int64_t n)
{
    for (int64_t c = 0; c < n; c++)
        y[c] += x[c * step];
}

/* n columns of row r of dx from column `col`. */
static void fold_part(const mb_tensor *dx, const mb_tensor *dy, const mb_unfold *u, int64_t r,
                      int64_t col, int64_t n, bool acc)
{
    const int64_t s = r / u->in_len, at = r % u->in_len + u->pad, k = u->kernel;
    mb_strip xs, ys;
    float *sum = mb_strip_open(xs, dx, r, col, n, acc);

    if (!acc)
        memset(sum, 0, sizeof *sum * (size_t)n);
    for (int64_t j = 0; j < k && j <= at; j++) {
        const int64_t t = (at - j) / u->stride, i = s * u->out_len + t;

        if ((at - j) % u->stride != 0 || t >= u->out_len || i >= mb_rows(dy))
            continue;
        add_every(sum, mb_strip_read(ys, dy, i, col * k, n * k) + j, k, n);
    }
    mb_strip_close(sum, dx, r, col, n);
}

mb_status mb_cpu_unfold_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dy, const mb_unfold *u,
                            bool acc)
{
    if (dx == NULL)
        return MB_OK;
    const int64_t rows = mb_rows(dx), n = mb_cols(dx), k = u->kernel, piece = MB_STRIP / k;
    const int team = mb_team(ex, rows * n * k);

    MB_ASSERT(mb_cols(dy) == n * k && k <= MOST_KERNEL);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < n; c += piece)
            fold_part(dx, dy, u, r, c, n - c < piece ? n - c : piece, acc);
    return MB_OK;
}
