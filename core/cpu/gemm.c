/* core/cpu/gemm.c - C = alpha op(A) op(B) + beta C (+ bias) in tiles, over threads.
 *
 * Products of bf16 matrices, and of f32 where those are our own (core/cpu/gemm.h), are
 * core/cpu/gemm_panels.c's. The rest is of providers:
 *
 * C is cut into tiles and K into blocks. A tile is computed by one thread with one provider call per
 * block of K, the blocks in order, so threads never meet. Both cuts depend on shapes only, but for
 * the height of tiles, which changes no bit: as tall as leaves every thread some.
 *
 * Rows of C that are tokens (A not transposed) get the same bits wherever they stand and whatever
 * else is in the batch, so the cut of N and K does not look at M there, and the last tile of rows
 * is made up to a height at which the provider's kernels do not change (core/cpu/gemm_tiles.h).
 * Fewer than MB_GEMM_FEW_ROWS rows, as when generating, are memory-bound: products of our own, whose rows
 * do not depend on one another either (but differ in the last bits from those of a tile). They are
 * what computes any number of rows where all must be alike (mb_exec.rows_alike).
 *
 * When A is transposed (weight gradients) M and N are features and K is tokens. With few tiles of C
 * K is also cut into pieces whose sums are formed apart and added in order.
 */
#include "core/cpu/gemm.h"

#include <omp.h>
#include <string.h>

#include "core/cpu/cpu.h"
#include "core/cpu/dequantise.h"
#include "core/cpu/gemm_panels.h"
#include "core/cpu/gemm_rows.h"
#include "core/cpu/gemm_tiles.h"
#include "core/cpu/sizes.h"

enum {
    WANTED_UNITS = 16, /* units of work below which K is cut into pieces */
    WANTED_TILES = 4,  /* per thread, of tall ones */
    LEAST_PIECE = 256, /* of K */
};

typedef struct product {
    int64_t m, n, k;
    const float *a, *b, *bias;
    float *c;
    int64_t lda, ldb, ldc;
    bool ta, tb;
    float alpha, beta;
    mb_dtype type; /* of B: F32, or blocks */
    /* the cut */
    int64_t tile_m, tile_n, tiles_m, tiles_n;
    int64_t block_k;         /* of one provider call */
    int64_t pieces, piece_k; /* of K; more than one only when ta */
    float *partial;          /* (pieces, m, n) when pieces > 1 */
    float *edge;             /* edge_floats per thread: A's and C's last rows made up to a tile */
    int64_t edge_floats;
    int64_t row_step;
    mb_sgemm_fn *sgemm;
} product;

/* Nearly equal parts of at most `most`, multiples of 16. */
static int64_t part(int64_t n, int64_t most)
{
    return n <= most ? n : mb_round_up(mb_ceil_div(n, mb_ceil_div(n, most)), 16);
}

static void cut(product *p, int threads)
{
    p->tile_m = MB_GEMM_TILE_ROWS;
    p->row_step = mb_gemm_row_step();
    p->tile_n = part(p->n, MB_GEMM_TILE_COLS);
    p->tiles_n = p->n > 0 ? mb_ceil_div(p->n, p->tile_n) : 0;
    if (!p->ta && p->row_step < MB_GEMM_TILE_ROWS &&
        mb_ceil_div(p->m, MB_GEMM_TALL_ROWS) * p->tiles_n >= WANTED_TILES * threads)
        p->tile_m = MB_GEMM_TALL_ROWS;
    p->tiles_m = mb_ceil_div(p->m, p->tile_m);
    p->pieces = 1;
    if (p->ta && p->tiles_m * p->tiles_n > 0)
        p->pieces = mb_least(mb_ceil_div(WANTED_UNITS, p->tiles_m * p->tiles_n),
                             p->k / LEAST_PIECE > 0 ? p->k / LEAST_PIECE : 1);
    p->piece_k = p->pieces > 1 ? mb_round_up(mb_ceil_div(p->k, p->pieces), 16) : p->k;
    p->pieces = p->piece_k > 0 ? mb_ceil_div(p->k, p->piece_k) : 1;
    p->block_k = part(p->piece_k, p->ta ? MB_GEMM_TOKENS : MB_GEMM_TILE_K);
    p->edge_floats = 0;
    if (!p->ta && p->m % p->tile_m != 0)
        p->edge_floats = p->tile_m * mb_round_up(p->block_k, 16) + p->tile_m * p->tile_n;
}

static product product_of(const mb_exec *ex, const mb_tensor *c, const mb_tensor *a, bool ta,
                          const mb_tensor *b, bool tb, float alpha, float beta,
                          const mb_tensor *bias)
{
    product p = {.m = mb_rows(c),
                 .n = mb_cols(c),
                 .k = ta ? mb_rows(a) : mb_cols(a),
                 .a = mb_f32(a),
                 .b = mb_f32(b),
                 .bias = bias != NULL ? mb_f32(bias) : NULL,
                 .c = mb_f32(c),
                 .lda = mb_row_stride(a),
                 .ldb = mb_row_stride(b),
                 .ldc = mb_row_stride(c),
                 .ta = ta,
                 .tb = tb,
                 .alpha = alpha,
                 .beta = beta,
                 .type = b->dtype};

    cut(&p, ex->threads);
    return p;
}

static bool goes_by_rows(const mb_exec *ex, const product *p)
{
    return !p->ta && (p->m < MB_GEMM_FEW_ROWS || ex->rows_alike || p->type != MB_DTYPE_F32);
}

static bool goes_by_panels(const mb_exec *ex, const product *p, mb_dtype type)
{
    return type == MB_DTYPE_BF16 || (mb_cpu_gemm_is_own() && !goes_by_rows(ex, p));
}

static mb_gemm_rows by_rows(const product *p, void *workspace)
{
    return (mb_gemm_rows){.m = p->m,
                          .n = p->n,
                          .k = p->k,
                          .x = p->a,
                          .w = p->b,
                          .bias = p->bias,
                          .c = p->c,
                          .ldx = p->lda,
                          .ldw = p->ldb,
                          .ldc = p->ldc,
                          .tw = p->tb,
                          .alpha = p->alpha,
                          .beta = p->beta,
                          .type = p->type,
                          .workspace = workspace};
}

size_t mb_cpu_gemm_workspace(mb_exec *ex, mb_tensor *c, const mb_tensor *a, bool ta,
                             const mb_tensor *b, bool tb, float alpha, float beta,
                             const mb_tensor *bias)
{
    const product p = product_of(ex, c, a, ta, b, tb, alpha, beta, bias);
    const int64_t partial = p.pieces > 1 ? p.pieces * p.m * p.n : 0;

    if (goes_by_panels(ex, &p, a->dtype))
        return mb_cpu_gemm_panels_workspace(ex, c, a, ta, tb, bias, NULL);
    if (goes_by_rows(ex, &p)) {
        const mb_gemm_rows r = by_rows(&p, NULL);

        return mb_cpu_gemm_rows_workspace(&r, ex->threads);
    }
    return (size_t)(partial + ex->threads * p.edge_floats) * sizeof(float);
}

/* Tiles ------------------------------------------------------------------------------------- */

/* A rectangle of C and a range of K. */
typedef struct unit {
    int64_t i0, rows, j0, cols, k0, k1;
} unit;

static void copy_rows(float *to, int64_t ldt, const float *from, int64_t ldf, int64_t rows,
                      int64_t cols)
{
    for (int64_t i = 0; i < rows; i++)
        memcpy(to + i * ldt, from + i * ldf, (size_t)cols * sizeof(float));
}

/* The blocks of K in order, into c (height >= rows, which the caller provides for). */
static void run_blocks(const product *p, const unit *u, int64_t height, float *a_edge, float *c,
                       int64_t ldc, float beta)
{
    for (int64_t k0 = u->k0; k0 < u->k1; k0 += p->block_k) {
        const int64_t k = mb_least(p->block_k, u->k1 - k0);
        const float *a = p->ta ? p->a + k0 * p->lda + u->i0 : p->a + u->i0 * p->lda + k0;
        const float *b = p->tb ? p->b + u->j0 * p->ldb + k0 : p->b + k0 * p->ldb + u->j0;
        int64_t lda = p->lda;

        if (height > u->rows) {
            copy_rows(a_edge, k, a, lda, u->rows, k);
            memset(a_edge + u->rows * k, 0, (size_t)((height - u->rows) * k) * sizeof(float));
            a = a_edge;
            lda = k;
        }
        p->sgemm(p->ta, p->tb, height, u->cols, k, p->alpha, a, lda, b, p->ldb,
                 k0 == u->k0 ? beta : 1.0f, c, ldc);
    }
}

static void add_bias(const product *p, const unit *u)
{
    for (int64_t i = u->i0; i < u->i0 + u->rows; i++) {
        float *restrict c = p->c + i * p->ldc + u->j0;
        const float *restrict bias = p->bias + u->j0;

        for (int64_t j = 0; j < u->cols; j++)
            c[j] += bias[j];
    }
}

static void run_tile(const product *p, const unit *u)
{
    const int64_t height = p->ta ? u->rows : mb_round_up(u->rows, p->row_step);
    float *c = p->c + u->i0 * p->ldc + u->j0;

    if (height == u->rows) {
        run_blocks(p, u, height, NULL, c, p->ldc, p->beta);
    } else {
        float *a_edge = p->edge + omp_get_thread_num() * p->edge_floats;
        float *c_edge = a_edge + p->tile_m * mb_round_up(p->block_k, 16);

        memset(c_edge, 0, (size_t)(height * u->cols) * sizeof(float));
        if (p->beta != 0.0f)
            copy_rows(c_edge, u->cols, c, p->ldc, u->rows, u->cols);
        run_blocks(p, u, height, a_edge, c_edge, u->cols, p->beta);
        copy_rows(c, p->ldc, c_edge, u->cols, u->rows, u->cols);
    }
    if (p->bias != NULL)
        add_bias(p, u);
}

/* Row i of C from the partial sums, which are added in order. */
static void gather_pieces(const product *p, int64_t i)
{
    float *restrict c = p->c + i * p->ldc;

    for (int64_t j = 0; j < p->n; j++)
        c[j] = (p->beta != 0.0f ? p->beta * c[j] : 0.0f) + p->partial[i * p->n + j];
    for (int64_t piece = 1; piece < p->pieces; piece++) {
        const float *restrict from = p->partial + (piece * p->m + i) * p->n;

        for (int64_t j = 0; j < p->n; j++)
            c[j] += from[j];
    }
    if (p->bias != NULL)
        for (int64_t j = 0; j < p->n; j++)
            c[j] += p->bias[j];
}

static void run_unit(const product *p, int64_t at)
{
    const int64_t piece = at % p->pieces, tile = at / p->pieces;
    unit u = {.i0 = tile % p->tiles_m * p->tile_m,
              .j0 = tile / p->tiles_m * p->tile_n,
              .k0 = piece * p->piece_k};

    u.rows = mb_least(p->tile_m, p->m - u.i0);
    u.cols = mb_least(p->tile_n, p->n - u.j0);
    u.k1 = mb_least(u.k0 + p->piece_k, p->k);
    if (p->pieces == 1)
        run_tile(p, &u);
    else
        run_blocks(p, &u, u.rows, NULL, p->partial + (piece * p->m + u.i0) * p->n + u.j0, p->n,
                   0.0f);
}

static void tiles(const product *p, int threads)
{
    const int64_t units = p->tiles_m * p->tiles_n * p->pieces;

#pragma omp parallel num_threads(threads)
    {
        mb_cpu_one_thread();
#pragma omp for schedule(dynamic)
        for (int64_t at = 0; at < units; at++)
            run_unit(p, at);
        if (p->pieces > 1) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < p->m; i++)
                gather_pieces(p, i);
        }
    }
}

/* K = 0: nothing to add. */
static void no_products(const product *p)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            float *c = p->c + i * p->ldc + j;

            *c = (p->beta != 0.0f ? p->beta * *c : 0.0f) + (p->bias != NULL ? p->bias[j] : 0.0f);
        }
}

static mb_status check(const product *p, const mb_tensor *c, const mb_tensor *a, const mb_tensor *b,
                       const mb_tensor *bias)
{
    const int64_t am = p->ta ? mb_cols(a) : mb_rows(a);
    const int64_t bk = p->tb ? mb_cols(b) : mb_rows(b), bn = p->tb ? mb_rows(b) : mb_cols(b);

    const bool blocks = a->dtype == MB_DTYPE_F32 && !p->ta && p->tb &&
                        mb_cpu_dequantises(b->dtype) && mb_tensor_is_contiguous(b);

    MB_REQUIRE((blocks || a->dtype == b->dtype) &&
                   (a->dtype == MB_DTYPE_F32 || a->dtype == MB_DTYPE_BF16) &&
                   (c->dtype == MB_DTYPE_F32 || c->dtype == a->dtype),
               MB_ENOTSUP,
               "gemm: types %s = %s x %s; the CPU multiplies F32, BF16, and F32 with a transposed "
               "matrix of blocks",
               mb_dtype_name(c->dtype), mb_dtype_name(a->dtype), mb_dtype_name(b->dtype));
    MB_REQUIRE(am == p->m && bk == p->k && bn == p->n, MB_ESHAPE,
               "gemm: (%lld x %lld) = (%lld x %lld) times (%lld x %lld) does not fit",
               (long long)p->m, (long long)p->n, (long long)am, (long long)p->k, (long long)bk,
               (long long)bn);
    MB_REQUIRE(bias == NULL || mb_tensor_count(bias) == p->n, MB_ESHAPE,
               "gemm: the bias has %lld entries for %lld columns", (long long)mb_tensor_count(bias),
               (long long)p->n);
    MB_REQUIRE(p->m < INT32_MAX && p->n < INT32_MAX && p->k < INT32_MAX && p->lda < INT32_MAX &&
                   p->ldb < INT32_MAX && p->ldc < INT32_MAX,
               MB_ENOTSUP, "gemm: a side of 2^31 or more (%lld x %lld x %lld)", (long long)p->m,
               (long long)p->n, (long long)p->k);
    return MB_OK;
}

mb_status mb_cpu_gemm(mb_exec *ex, mb_tensor *c, const mb_tensor *a, bool ta, const mb_tensor *b,
                      bool tb, float alpha, float beta, const mb_tensor *bias)
{
    product p = product_of(ex, c, a, ta, b, tb, alpha, beta, bias);

    MB_TRY(check(&p, c, a, b, bias));
    if (goes_by_panels(ex, &p, a->dtype))
        return mb_cpu_gemm_panels(ex, c, a, ta, b, tb, alpha, beta, bias, NULL);
    if (p.m == 0 || p.n == 0)
        return MB_OK;
    if (p.k == 0) {
        no_products(&p);
    } else if (goes_by_rows(ex, &p)) {
        const mb_gemm_rows r = by_rows(&p, ex->workspace);

        mb_cpu_gemm_rows(&r, ex->threads);
    } else {
        p.sgemm = mb_cpu_sgemm();
        MB_REQUIRE(p.sgemm != NULL, MB_EBUG, "gemm called before mb_cpu_init");
        p.partial = ex->workspace;
        p.edge = (float *)ex->workspace + (p.pieces > 1 ? p.pieces * p.m * p.n : 0);
        tiles(&p, ex->threads);
    }
    return MB_OK;
}

/* One sum in f32 where it can be; else C is rounded between the two. */
static bool is_one_sum(const mb_exec *ex, const product *base, const mb_tensor *x,
                       const mb_tensor *h)
{
    return h->dtype == x->dtype && goes_by_panels(ex, base, x->dtype) &&
           mb_cpu_gemm_panels_adds(mb_cols(x), mb_cols(h));
}

size_t mb_cpu_gemm_adapted_workspace(mb_exec *ex, mb_tensor *c, const mb_tensor *x,
                                     const mb_tensor *w, bool tw, const mb_tensor *h,
                                     const mb_tensor *b, bool tb, float beta, const mb_tensor *bias)
{
    const product base = product_of(ex, c, x, false, w, tw, 1.0f, beta, bias);

    if (is_one_sum(ex, &base, x, h))
        return mb_cpu_gemm_panels_workspace(ex, c, x, false, tw, bias, h);
    const size_t one = mb_cpu_gemm_workspace(ex, c, x, false, w, tw, 1.0f, beta, bias);
    const size_t two = mb_cpu_gemm_workspace(ex, c, h, false, b, tb, 1.0f, 1.0f, NULL);
    return one > two ? one : two;
}

mb_status mb_cpu_gemm_adapted(mb_exec *ex, mb_tensor *c, const mb_tensor *x, const mb_tensor *w,
                              bool tw, const mb_tensor *h, const mb_tensor *b, bool tb, float beta,
                              const mb_tensor *bias)
{
    const product base = product_of(ex, c, x, false, w, tw, 1.0f, beta, bias);
    const product adapter = product_of(ex, c, h, false, b, tb, 1.0f, 1.0f, NULL);
    const mb_gemm_adapter also = {h, b, tb};

    if (!is_one_sum(ex, &base, x, h)) {
        MB_TRY(mb_cpu_gemm(ex, c, x, false, w, tw, 1.0f, beta, bias));
        return mb_cpu_gemm(ex, c, h, false, b, tb, 1.0f, 1.0f, NULL);
    }
    MB_TRY(check(&base, c, x, w, bias));
    MB_TRY(check(&adapter, c, h, b, NULL));
    return mb_cpu_gemm_panels(ex, c, x, false, w, tw, 1.0f, beta, bias, &also);
}
