/* core/cpu/gemm_rows.c - see core/cpu/gemm_rows.h. */
#include "core/cpu/gemm_rows.h"

#include <omp.h>
#include <string.h>

#include "core/cpu/cpu.h"
#include "core/cpu/dequantise.h"
#include "core/cpu/init.h"
#include "core/cpu/sizes.h"
#include "core/cpu/vec16.h"
#include "core/cpu/vecmath.h"

enum {
    MOST_COLS = 128,         /* columns of C per unit */
    LEAST_COLS = 8,          /* ... and a multiple of this */
    PANEL_FLOATS = 64 << 10, /* of W per unit: half a second-level cache */
    NEAR_FLOATS = 4 << 10,   /* of X at a time: half a first-level cache */
    DOT_ROWS = 3,            /* ... and a multiple of this, */
    MOST_ROWS = 24,          /* at most */
    STRIP = 8                /* vectors of eight columns at a time of X W */
};

static void finish_row(const mb_gemm_rows *p, float *c, const float *sum, int64_t j0, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        float y = p->alpha * sum[j];

        if (p->beta != 0.0f)
            y += p->beta * c[j];
        c[j] = p->bias != NULL ? y + p->bias[j0 + j] : y;
    }
}

/* ---- X W^T -------------------------------------------------------------------------------- */

typedef float vec4 __attribute__((vector_size(16), may_alias));

/* mb_fold_lanes of sixteen lanes in two registers. */
MB_INLINE float fold(const mb_vec8 *low, const mb_vec8 *high)
{
    const mb_vec8 eight = *low + *high;
    const vec4 four = ((const vec4 *)&eight)[0] + ((const vec4 *)&eight)[1];

    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* sum[i * MOST_COLS + j] = (row i of x) . (row j of w) for R rows of x and C of w: all sums stay in
 * registers, the sixteen lanes of one in PARTS of them. k is a multiple of MB_LANES. */
#define DOTS(KIND, NAME, VEC, LOAD, PARTS, R, C)                                        \
    KIND void NAME##_##R##_##C(float *sum, const float *x, int64_t ldx, const float *w, \
                               int64_t ldw, int64_t k)                                  \
    {                                                                                   \
        const VEC zero = {0};                                                           \
        VEC lanes[PARTS][R][C];                                                         \
                                                                                        \
        for (int p = 0; p < PARTS; p++)                                                 \
            for (int i = 0; i < R; i++)                                                 \
                for (int j = 0; j < C; j++)                                             \
                    lanes[p][i][j] = zero;                                              \
        for (int64_t l = 0; l < k; l += MB_LANES)                                       \
            for (int p = 0; p < PARTS; p++) {                                           \
                const int64_t at = l + p * (MB_LANES / PARTS);                          \
                VEC y[C];                                                               \
                                                                                        \
                for (int j = 0; j < C; j++)                                             \
                    y[j] = LOAD(w + j * ldw + at);                                      \
                for (int i = 0; i < R; i++) {                                           \
                    const VEC a = LOAD(x + i * ldx + at);                               \
                                                                                        \
                    for (int j = 0; j < C; j++)                                         \
                        lanes[p][i][j] += a * y[j];                                     \
                }                                                                       \
            }                                                                           \
        for (int i = 0; i < R; i++)                                                     \
            for (int j = 0; j < C; j++) {                                               \
                const mb_vec8 *low = (const mb_vec8 *)&lanes[0][i][j];                  \
                const mb_vec8 *high =                                                   \
                    PARTS == 1 ? low + 1 : (const mb_vec8 *)&lanes[PARTS - 1][i][j];    \
                                                                                        \
                sum[i * MOST_COLS + j] = fold(low, high);                               \
            }                                                                           \
    }

DOTS(MB_INLINE, dots, mb_vec8, MB_LOAD8, 2, 3, 2)
DOTS(MB_INLINE, dots, mb_vec8, MB_LOAD8, 2, 1, 4)
DOTS(MB_INLINE, dots, mb_vec8, MB_LOAD8, 2, 1, 1)

MB_INLINE void whole_dots(float *sum, const mb_gemm_rows *p, const float *x, const float *w,
                          int64_t m, int64_t n)
{
    const int64_t whole = m / 3 * 3;

    for (int64_t j = 0; j < n && whole > 0; j += 2) {
        for (int64_t i = 0; i < whole && j + 2 <= n; i += 3)
            dots_3_2(sum + i * MOST_COLS + j, x + i * p->ldx, p->ldx, w + j * p->ldw, p->ldw, p->k);
        for (int64_t i = 0; i < whole && j + 1 == n; i++)
            dots_1_1(sum + i * MOST_COLS + j, x + i * p->ldx, 0, w + j * p->ldw, 0, p->k);
    }
    for (int64_t i = whole; i < m; i++) {
        const float *row = x + i * p->ldx;
        int64_t j = 0;

        for (; j + 4 <= n; j += 4)
            dots_1_4(sum + i * MOST_COLS + j, row, 0, w + j * p->ldw, p->ldw, p->k);
        for (; j < n; j++)
            dots_1_1(sum + i * MOST_COLS + j, row, 0, w + j * p->ldw, 0, p->k);
    }
}

MB_INLINE void odd_dots(float *sum, const mb_gemm_rows *p, const float *x, const float *w,
                        int64_t m, int64_t n)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            sum[i * MOST_COLS + j] = mb_dotf(x + i * p->ldx, w + j * p->ldw, p->k);
}

typedef void dots_fn(float *sum, const mb_gemm_rows *p, const float *x, const float *w, int64_t m,
                     int64_t n);

MB_CPU_CLONES
static void any_dots(float *sum, const mb_gemm_rows *p, const float *x, const float *w, int64_t m,
                     int64_t n)
{
    if (p->k % MB_LANES != 0)
        odd_dots(sum, p, x, w, m, n);
    else
        whole_dots(sum, p, x, w, m, n);
}

/* Where sixteen lanes are one register: the sums of the clone for AVX-512, twice as many at a time. */
#if MB_CPU_CLONED
#define WIDE __attribute__((target("arch=x86-64-v4"))) static

#define WIDE_INLINE WIDE inline __attribute__((always_inline))

DOTS(WIDE_INLINE, wide, mb_vec16, MB_LOAD16, 1, 6, 4)
DOTS(WIDE_INLINE, wide, mb_vec16, MB_LOAD16, 1, 3, 4)
DOTS(WIDE_INLINE, wide, mb_vec16, MB_LOAD16, 1, 1, 4)
DOTS(WIDE_INLINE, wide, mb_vec16, MB_LOAD16, 1, 1, 1)

WIDE void wide_dots(float *sum, const mb_gemm_rows *p, const float *x, const float *w, int64_t m,
                    int64_t n)
{
    const int64_t four = n / 4 * 4;

    for (int64_t j = 0; j < four; j += 4) {
        const float *col = w + j * p->ldw;
        int64_t i = 0;

        for (; i + 6 <= m; i += 6)
            wide_6_4(sum + i * MOST_COLS + j, x + i * p->ldx, p->ldx, col, p->ldw, p->k);
        for (; i + 3 <= m; i += 3)
            wide_3_4(sum + i * MOST_COLS + j, x + i * p->ldx, p->ldx, col, p->ldw, p->k);
        for (; i < m; i++)
            wide_1_4(sum + i * MOST_COLS + j, x + i * p->ldx, 0, col, p->ldw, p->k);
    }
    for (int64_t j = four; j < n; j++)
        for (int64_t i = 0; i < m; i++)
            wide_1_1(sum + i * MOST_COLS + j, x + i * p->ldx, 0, w + j * p->ldw, 0, p->k);
}

static dots_fn *dots_for(const mb_gemm_rows *p)
{
    const bool wide = (mb_cpu_features() & MB_CPU_AVX512) != 0 && !p->by_eight;

    return wide && p->k % MB_LANES == 0 ? wide_dots : any_dots;
}
#else
static dots_fn *dots_for(const mb_gemm_rows *p)
{
    (void)p;
    return any_dots;
}
#endif

/* Columns [j0, j0 + n) of rows [i0, i0 + m); w: row j0 of W. */
static void panel_of_dots(const mb_gemm_rows *p, const float *w, int64_t i0, int64_t m, int64_t j0,
                          int64_t n)
{
    float sum[MOST_ROWS * MOST_COLS];

    dots_for(p)(sum, p, p->x + i0 * p->ldx, w, m, n);
    for (int64_t i = 0; i < m; i++)
        finish_row(p, p->c + (i0 + i) * p->ldc + j0, sum + i * MOST_COLS, j0, n);
}

/* ---- X W ---------------------------------------------------------------------------------- */

MB_CPU_CLONES
static void panel_of_sums(const mb_gemm_rows *p, int64_t i0, int64_t m, int64_t j0, int64_t n)
{
    const float *w = p->w;

    for (int64_t i = i0; i < i0 + m; i++) {
        const float *x = p->x + i * p->ldx;
        float sum[MOST_COLS] = {0};
        int64_t j = 0;

        for (; j + 8 * STRIP <= n; j += 8 * STRIP) {
            mb_vec8 acc[STRIP] = {0};

            for (int64_t l = 0; l < p->k; l++)
                for (int v = 0; v < STRIP; v++)
                    acc[v] += x[l] * MB_LOAD8(w + l * p->ldw + j0 + j + 8 * v);
            for (int v = 0; v < STRIP; v++)
                MB_STORE8(sum + j + 8 * v, acc[v]);
        }
        for (int64_t l = 0; l < p->k && j < n; l++)
            for (int64_t c = j; c < n; c++)
                sum[c] += x[l] * w[l * p->ldw + j0 + c];
        finish_row(p, p->c + i * p->ldc + j0, sum, j0, n);
    }
}

/* ---- units -------------------------------------------------------------------------------- */

/* floats / k, a multiple of `step` in [lo, hi]. */
static int64_t fitting(int64_t floats, int64_t k, int64_t step, int64_t lo, int64_t hi)
{
    const int64_t n = floats / (k > 0 ? k : 1) / step * step;

    return n < lo ? lo : n > hi ? hi : n;
}

/* How C is cut: columns of a unit, those of them whose W is made of blocks at a time, rows of X. */
typedef struct cut {
    int64_t cols, at_once, rows;
} cut;

static cut cut_of(const mb_gemm_rows *p)
{
    cut c = {.cols = MOST_COLS, .rows = fitting(NEAR_FLOATS, p->k, DOT_ROWS, DOT_ROWS, MOST_ROWS)};

    if (p->tw)
        c.cols = fitting(PANEL_FLOATS, p->k, LEAST_COLS, LEAST_COLS, MOST_COLS);
    c.at_once = p->m <= c.rows ? LEAST_COLS : c.cols;
    return c;
}

size_t mb_cpu_gemm_rows_workspace(const mb_gemm_rows *p, int threads)
{
    return p->type == MB_DTYPE_F32 ? 0 : (size_t)(threads * cut_of(p).cols * p->k) * sizeof(float);
}

static void rows_of(const mb_gemm_rows *p, const cut *c, const float *w, int64_t j0, int64_t n)
{
    for (int64_t i = 0; i < p->m; i += c->rows) {
        const int64_t m = mb_least(c->rows, p->m - i);

        if (p->tw)
            panel_of_dots(p, w, i, m, j0, n);
        else
            panel_of_sums(p, i, m, j0, n);
    }
}

static void run_unit(const mb_gemm_rows *p, const cut *c, float *room, int64_t j0, int64_t n)
{
    if (p->type == MB_DTYPE_F32) {
        rows_of(p, c, (const float *)p->w + j0 * p->ldw, j0, n);
        return;
    }
    for (int64_t j = j0; j < j0 + n; j += c->at_once) {
        const int64_t cols = mb_least(c->at_once, j0 + n - j);

        mb_cpu_dequantise_blocks(
            p->type, room, (const char *)p->w + mb_dtype_bytes(p->type, j * p->k), cols * p->k);
        rows_of(p, c, room, j, cols);
    }
}

void mb_cpu_gemm_rows(const mb_gemm_rows *p, int threads)
{
    const cut c = cut_of(p);
    const int64_t units = mb_ceil_div(p->n, c.cols);

#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t u = 0; u < units; u++)
        run_unit(p, &c, p->workspace + omp_get_thread_num() * c.cols * p->k, u * c.cols,
                 mb_least(c.cols, p->n - u * c.cols));
}
