/* core/cpu/gemm_bf16.c - C = alpha op(A) op(B) + beta C (+ bias) of bf16 matrices, sums in f32.
 *
 * C is cut into panels of 64 columns and ranges of rows. Whoever takes one packs op(B)'s 64 columns
 * into pairs, which stay in its cache while the rows go by six at a time (core/cpu/gemm_pairs.c).
 * Where k is long, it takes several panels, so that a block of A is still near for the next.
 * Rows of A that lie along k are read where they are; a transposed A (weight gradients: k is
 * tokens) is packed first, by all threads, in groups of 48 columns. Where such an A has far more
 * columns than B (gradients of an adapter's B), A and B change places and C is made across: A's
 * columns are packed once, into panels, by whoever multiplies with them.
 *
 * An adapter's product joins the sums before they leave: its panel lies behind the last of B.
 *
 * Each number of C is one sum over k in order, in blocks of K_BLOCK between which it waits in f32.
 * No cut changes it: its bits depend on k alone, not on threads, rows or neighbours. It is rounded
 * once, after alpha, beta and bias.
 */
#include "core/cpu/gemm_bf16.h"

#include <omp.h>
#include <string.h>

#include "core/cpu/strip.h"

enum {
    K_BLOCK = 2048,            /* a panel of 256 KiB */
    WANTED_UNITS = 8,          /* per thread, so that all end together */
    MOST_RANK = 512,           /* of an adapter */
    LEAST_ROWS = 96,           /* of a unit: what packing its panel is spread over */
    STRIP_ROWS = 512,          /* most of a unit whose sums wait between blocks of k ... */
    STRIP_PANELS = 8,          /* ... and of its panels, for all of which A is read once ... */
    NEAR_ELEMENTS = 8 << 20,   /* ... where it is larger than this and comes from afar */
    PACKED_ELEMENTS = 1 << 19, /* of A packed at once, per thread: they stay in its cache */
    PACKING_THREADS = 16       /* most that this grows with */
};

typedef struct product {
    int64_t m, n, k, lda, ldb;
    const uint16_t *a, *b;
    const mb_tensor *c, *bias;
    bool ta, tb;
    bool across; /* what is computed is C transposed: m, n, a, b are those of that */
    float alpha, beta;
    /* the adapter; rank 0: none */
    const uint16_t *h, *hb;
    int64_t rank, ldh, ldhb;
    bool thb;
    /* the cut */
    bool packs_a;
    int64_t pairs;      /* of k */
    int64_t block_rows; /* of C, for which A is packed at once: all when it is not */
    int64_t unit_rows, unit_panels;
    uint16_t *packed; /* A: (groups of rows, pairs, MB_PAIR_GROUP) pairs */
    char *own;        /* own_bytes per thread: panel, sums that wait */
    size_t own_bytes;
} product;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t round_up(int64_t a, int64_t b)
{
    return ceil_div(a, b) * b;
}

/* Pairs of rows that lie along k are read as they are, but not beyond the end of the last. */
static void cut(product *p, int threads)
{
    const int64_t panels = ceil_div(p->n, MB_PAIR_COLS), block = least(p->pairs, K_BLOCK / 2);
    const int64_t packed = least(threads, PACKING_THREADS) * PACKED_ELEMENTS;
    int64_t rows;

    p->block_rows = p->m;
    if (p->packs_a)
        p->block_rows = least(p->m, round_up(packed / (2 * p->pairs) + 1, MB_PAIR_GROUP));
    rows = ceil_div(p->block_rows, ceil_div(WANTED_UNITS * threads, panels));
    rows = rows < LEAST_ROWS ? LEAST_ROWS : rows;
    if (p->pairs > block && rows > STRIP_ROWS)
        rows = ceil_div(rows, ceil_div(rows, STRIP_ROWS));
    p->unit_rows = round_up(rows, MB_PAIR_GROUP);
    p->unit_panels = 1;
    p->own_bytes = (size_t)((block + p->rank / 2) * MB_PAIR_COLS) * sizeof(uint32_t);
    if (p->pairs > block) {
        const int64_t units = ceil_div(p->block_rows, p->unit_rows) * panels;
        if (p->m * p->k > NEAR_ELEMENTS && units > WANTED_UNITS * threads / 2)
            p->unit_panels = least(units / (WANTED_UNITS * threads / 2), STRIP_PANELS);
        p->own_bytes += (size_t)(p->unit_rows * p->unit_panels * MB_PAIR_COLS) * sizeof(float);
    }
}

static size_t packed_bytes(const product *p)
{
    return p->packs_a
               ? (size_t)(round_up(p->block_rows, MB_PAIR_GROUP) * p->pairs) * sizeof(uint32_t)
               : 0;
}

static product sizes_of(const mb_exec *ex, const mb_tensor *c, const mb_tensor *a, bool ta, bool tb,
                        const mb_tensor *bias, const mb_tensor *h)
{
    product p = {.m = mb_rows(c),
                 .n = mb_cols(c),
                 .k = ta ? mb_rows(a) : mb_cols(a),
                 .ta = ta,
                 .tb = tb,
                 .rank = h != NULL ? mb_cols(h) : 0};

    p.across = p.k > 0 && ta && !tb && bias == NULL && c->dtype == MB_DTYPE_F32 &&
               p.n <= MB_PAIR_COLS && p.m >= 4 * p.n;
    if (p.across) {
        p.m = mb_cols(c);
        p.n = mb_rows(c);
    }
    p.pairs = (p.k + 1) / 2;
    p.packs_a = ta || p.k % 2 != 0;
    if (p.m > 0 && p.n > 0 && p.k > 0)
        cut(&p, ex->threads);
    return p;
}

bool mb_cpu_gemm_bf16_adds(int64_t k, int64_t rank)
{
    return k > 0 && k % 2 == 0 && rank > 0 && rank % 2 == 0 && rank <= MOST_RANK;
}

size_t mb_cpu_gemm_bf16_workspace(const mb_exec *ex, const mb_tensor *c, const mb_tensor *a,
                                  bool ta, bool tb, const mb_tensor *bias, const mb_tensor *h)
{
    const product p = sizes_of(ex, c, a, ta, tb, bias, h);

    return packed_bytes(&p) + (size_t)ex->threads * p.own_bytes;
}

/* The bias of n columns; NULL: none. */
static const float *bias_of(const product *p, float *strip, int64_t j0, int64_t n)
{
    return mb_strip_read(strip, p->bias, 0, j0, n);
}

/* ---- a unit: rows of a panel ---------------------------------------------------------------- */

/* Columns [j0, j0 + n) and rows [k0, k0 + k) of op(B). */
static void pack_panel(uint32_t *to, int64_t width, const uint16_t *b, int64_t ldb, bool tb,
                       int64_t j0, int64_t n, int64_t k0, int64_t k)
{
    if (tb)
        mb_cpu_pack_cols(to, width, b + j0 * ldb + k0, ldb, k, n);
    else
        mb_cpu_pack_rows(to, width, b + k0 * ldb + j0, ldb, k, n);
}

/* A tile of C is written when its sums are there; it comes into the cache meanwhile. */
static void fetch(const mb_tensor *c, int64_t i, int64_t rows, int64_t j0, int64_t n)
{
    const int64_t size = c->dtype == MB_DTYPE_F32 ? 4 : 2, ld = mb_row_stride(c) * size;
    const char *at = (const char *)c->data + i * ld + j0 * size;

    for (int64_t r = 0; r < rows; r++, at += ld)
        for (int64_t b = 0; b < n * size; b += 64)
            __builtin_prefetch(at + b, 1);
}

/* Rows [i, i + rows) and columns [j, j + n) of C transposed. */
static void finish_across(const mb_pairs_out *out, const float *sum, int64_t width, int64_t i,
                          int rows, int64_t j, int64_t n)
{
    for (int64_t col = 0; col < n; col++) {
        float *c = mb_row(out->c, j + col) + i;

        for (int r = 0; r < rows; r++)
            c[r] =
                out->alpha * sum[r * width + col] + (out->beta != 0.0f ? out->beta * c[r] : 0.0f);
    }
}

/* Block k0 of k for rows [i0, i0 + rows) of the panel of columns from j0; A's packed part starts at
 * row `base`. Sums that are not done lie in `waiting`, (rows, width). */
static void run_panel(const product *p, const mb_pairs *pairs_of, int64_t base, int64_t i0,
                      int64_t rows, int64_t j0, int64_t k0, uint32_t *panel, float *waiting)
{
    const int64_t n = least(MB_PAIR_COLS, p->n - j0), width = round_up(n, 16),
                  full = mb_pairs_rows(width), k = least(K_BLOCK, p->k - k0), pairs = (k + 1) / 2;
    const bool last = k0 + k == p->k;
    uint32_t *adapter = panel + pairs * MB_PAIR_COLS;
    float tile[MB_PAIR_TILE] __attribute__((aligned(64))), strip[MB_PAIR_COLS];
    const mb_pairs_out out = {p->c, bias_of(p, strip, j0, n), p->alpha, p->beta};

    pack_panel(panel, width, p->b, p->ldb, p->tb, j0, n, k0, k);
    if (last && p->rank > 0)
        pack_panel(adapter, width, p->hb, p->ldhb, p->thb, j0, n, 0, p->rank);
    for (int64_t i = i0; i < i0 + rows; i += full) {
        const int64_t height = least(full, i0 + rows - i), in = i - base;
        float *sum = p->k > K_BLOCK ? waiting + (i - i0) * width : tile;
        const uint16_t *a = p->a + i * p->lda + k0;
        int64_t row = p->lda, step = 2;

        if (p->packs_a) {
            a = p->packed +
                2 * ((in / MB_PAIR_GROUP * p->pairs + k0 / 2) * MB_PAIR_GROUP + in % MB_PAIR_GROUP);
            row = 2;
            step = 2 * MB_PAIR_GROUP;
        }
        if (last && !p->across)
            fetch(p->c, i, height, j0, n);
        pairs_of->multiply(sum, a, row, step, (int)height, panel, width, pairs, k0 > 0);
        if (last && p->rank > 0)
            pairs_of->multiply(sum, p->h + i * p->ldh, p->ldh, 2, (int)height, adapter, width,
                               p->rank / 2, true);
        if (last && p->across)
            finish_across(&out, sum, width, i, (int)height, j0, n);
        else if (last)
            pairs_of->finish(&out, sum, width, i, (int)height, j0, n);
    }
}

/* Rows [i0, i0 + rows) of the panels of columns [j0, j1). */
static void run_unit(const product *p, const mb_pairs *pairs_of, int64_t base, int64_t i0,
                     int64_t rows, int64_t j0, int64_t j1)
{
    uint32_t *panel = (uint32_t *)(p->own + (size_t)omp_get_thread_num() * p->own_bytes);
    float *waiting = (float *)(panel + (least(p->pairs, K_BLOCK / 2) + p->rank / 2) * MB_PAIR_COLS);

    for (int64_t k0 = 0; k0 < p->k; k0 += K_BLOCK)
        for (int64_t j = j0; j < j1; j += MB_PAIR_COLS)
            run_panel(p, pairs_of, base, i0, rows, j, k0, panel, waiting + (j - j0) * rows);
}

/* Group g of the rows of op(A) from `base`. */
static void pack_group(const product *p, int64_t base, int64_t g)
{
    const int64_t i = base + g * MB_PAIR_GROUP, n = least(MB_PAIR_GROUP, p->m - i);
    uint32_t *to = (uint32_t *)p->packed + g * p->pairs * MB_PAIR_GROUP;

    if (p->ta)
        mb_cpu_pack_rows(to, MB_PAIR_GROUP, p->a + i, p->lda, p->k, n);
    else
        mb_cpu_pack_cols(to, MB_PAIR_GROUP, p->a + i * p->lda, p->lda, p->k, n);
}

/* Rows [base, base + rows) of C; all threads of the team. */
static void run_block(const product *p, const mb_pairs *pairs_of, int64_t base, int64_t rows)
{
    const int64_t ranges = ceil_div(rows, p->unit_rows), cols = p->unit_panels * MB_PAIR_COLS;

    if (p->packs_a) {
#pragma omp for schedule(dynamic)
        for (int64_t g = 0; g < ceil_div(rows, MB_PAIR_GROUP); g++)
            pack_group(p, base, g);
    }
#pragma omp for schedule(dynamic)
    for (int64_t u = 0; u < ranges * ceil_div(p->n, cols); u++) {
        const int64_t i0 = u % ranges * p->unit_rows, j0 = u / ranges * cols;
        run_unit(p, pairs_of, base, base + i0, least(p->unit_rows, rows - i0), j0,
                 least(p->n, j0 + cols));
    }
}

static void no_products(const product *p, const mb_pairs *pairs_of)
{
    const float zeros[MB_PAIR_COLS] = {0};
    float strip[MB_PAIR_COLS];

    for (int64_t j0 = 0; j0 < p->n; j0 += MB_PAIR_COLS) {
        const int64_t n = least(MB_PAIR_COLS, p->n - j0);
        const mb_pairs_out out = {p->c, bias_of(p, strip, j0, n), p->alpha, p->beta};
        for (int64_t i = 0; i < p->m; i++)
            pairs_of->finish(&out, zeros, MB_PAIR_COLS, i, 1, j0, n);
    }
}

mb_status mb_cpu_gemm_bf16(mb_exec *ex, mb_tensor *c, const mb_tensor *a, bool ta,
                           const mb_tensor *b, bool tb, float alpha, float beta,
                           const mb_tensor *bias, const mb_gemm_adapter *also)
{
    product p = sizes_of(ex, c, a, ta, tb, bias, also != NULL ? also->h : NULL);
    const mb_pairs *pairs_of = mb_cpu_pairs();
    const int team = p.m * p.n * p.k < 65536 ? 1 : ex->threads;

    const mb_tensor *left = p.across ? b : a, *right = p.across ? a : b;
    p.a = left->data;
    p.b = right->data;
    p.c = c;
    p.bias = bias;
    p.lda = mb_row_stride(left);
    p.ldb = mb_row_stride(right);
    p.alpha = alpha;
    p.beta = beta;
    if (also != NULL) {
        p.h = also->h->data;
        p.hb = also->b->data;
        p.ldh = mb_row_stride(also->h);
        p.ldhb = mb_row_stride(also->b);
        p.thb = also->tb;
    }
    if (p.m == 0 || p.n == 0)
        return MB_OK;
    if (p.k == 0) {
        no_products(&p, pairs_of);
        return MB_OK;
    }
    p.packed = ex->workspace;
    p.own = (char *)ex->workspace + packed_bytes(&p);
#pragma omp parallel num_threads(team)
    for (int64_t base = 0; base < p.m; base += p.block_rows)
        run_block(&p, pairs_of, base, least(p.block_rows, p.m - base));
    return MB_OK;
}
