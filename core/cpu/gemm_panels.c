/* core/cpu/gemm_panels.c - C = alpha op(A) op(B) + beta C (+ bias) of packed operands, sums in f32.
 *
 * C is cut into panels of 64 columns and ranges of rows. Whoever takes one packs op(B)'s 64 columns
 * into words, which stay in its cache while the rows go by six at a time (core/cpu/gemm_words.c).
 * Where k is long, it takes several panels, so that a block of A is still near for the next.
 * Rows of A that lie along k are read where they are, if they are words already; bf16 that is widened
 * and a transposed A (weight gradients: k is tokens) are made into words first, by all threads, some rows
 * at a time. Where a transposed A has far more columns than B (gradients of an adapter's B), A and B
 * change places and C is made across: A's columns are packed once, into panels, by whoever multiplies
 * with them.
 *
 * An adapter's product joins the sums before they leave: its panel lies behind the last of B.
 *
 * Each number of C is one sum over k in order, in blocks of BLOCK words between which it waits in f32.
 * No cut changes it: its bits depend on k alone, not on threads, rows or neighbours. It is rounded
 * once, after alpha, beta and bias. Only where a processor has slow products of pairs does it matter, as
 * for f32 (core/cpu/gemm.c), whether there are fewer than MB_GEMM_FEW_ROWS rows or all are to be alike:
 * those are of pairs.
 */
#include "core/cpu/gemm_panels.h"

#include <omp.h>
#include <string.h>

#include "core/cpu/gemm_tiles.h"
#include "core/cpu/sizes.h"
#include "core/cpu/strip.h"

enum {
    BLOCK = 1024,     /* words of k: a panel of 256 KiB */
    WANTED_UNITS = 8, /* per thread, so that all end together */
    MOST_RANK = 512,  /* of an adapter */
    NARROW_COLS = 16, /* of so few, making words decides what a product takes */
    LEAST_ROWS = 96,  /* of a unit: what packing its panel is spread over */
    STRIP_ROWS = 512, /* most of a unit whose sums wait between blocks of k: its panels are made
                       * for each; of words of f32, which cost twice, twice as many ... */
    STRIP_PANELS = 8, /* ... and of its panels, for all of which A is read once ... */
    NEAR_ELEMENTS = 8 << 20, /* ... where it is larger than this and comes from afar */
    PACKED_WORDS = 1 << 18,  /* of A packed at once, per thread: groups stay in its cache ... */
    WIDENED_WORDS = 1 << 21, /* ... rows, which are read as fast from the next, come from there */
    PACKING_THREADS = 16,    /* most that this grows with */
    APART = 16               /* words between rows of packed words, lest they share a place */
};

typedef struct product {
    const mb_gemm_words *w;
    int64_t m, n, k, lda, ldb;
    const char *a, *b;
    const mb_tensor *c, *bias;
    bool ta, tb;
    bool across; /* what is computed is C transposed: m, n, a, b are those of that */
    float alpha, beta;
    /* the adapter; rank 0: none */
    const char *h, *hb;
    int64_t rank, ldh, ldhb;
    bool thb;
    /* the cut */
    bool packs_a;
    int64_t words;      /* of k */
    int64_t row_words;  /* of a packed row of A, perhaps with the adapter's behind */
    int64_t block_rows; /* of C, for which A is packed at once: all when it is not */
    int64_t unit_rows, unit_panels;
    uint32_t *packed; /* A: (groups of rows, row_words, w->group) words */
    char *own;        /* own_bytes per thread: panel, sums that wait */
    size_t own_bytes;
} product;

static bool packs_adapter(const product *p)
{
    return p->rank > 0 && !p->w->in_place;
}

static int64_t rank_words(const product *p)
{
    return p->rank / p->w->per;
}

static void cut(product *p, int threads)
{
    const int64_t panels = mb_ceil_div(p->n, MB_PANEL_COLS), block = mb_least(p->words, BLOCK);
    const int64_t packed =
        mb_least(threads, PACKING_THREADS) * (p->w->group > 1 ? PACKED_WORDS : WIDENED_WORDS);
    const int64_t strip = p->w->per > 1 ? STRIP_ROWS : 2 * STRIP_ROWS;
    int64_t rows;

    p->row_words = p->words + (packs_adapter(p) ? rank_words(p) : 0);
    if (p->w->group == 1)
        p->row_words = mb_round_up(p->row_words, APART) + APART;
    p->block_rows = p->m;
    if (p->packs_a)
        p->block_rows = mb_least(p->m, mb_round_up(packed / p->row_words + 1, MB_PANEL_ROWS));
    rows = mb_ceil_div(p->block_rows, mb_ceil_div(WANTED_UNITS * threads, panels));
    rows = rows < LEAST_ROWS ? LEAST_ROWS : rows;
    p->unit_panels = 1;
    p->own_bytes = (size_t)((block + rank_words(p)) * MB_PANEL_COLS) * sizeof(uint32_t);
    if (p->words > block) { /* sums wait: bytes that grow with m, as plans rely on */
        const bool afar = p->m * p->k > NEAR_ELEMENTS;
        const int64_t most_rows = mb_round_up(mb_least(rows, strip), MB_PANEL_ROWS);
        const int64_t most_panels = afar ? mb_least(panels, STRIP_PANELS) : 1;

        p->own_bytes += (size_t)(most_rows * most_panels * MB_PANEL_COLS) * sizeof(float);
        if (rows > strip)
            rows = mb_ceil_div(rows, mb_ceil_div(rows, strip));
        const int64_t units = mb_ceil_div(p->block_rows, mb_round_up(rows, MB_PANEL_ROWS)) * panels;
        if (afar && units > WANTED_UNITS * threads / 2)
            p->unit_panels = mb_least(units / (WANTED_UNITS * threads / 2), most_panels);
    }
    p->unit_rows = mb_round_up(rows, MB_PANEL_ROWS);
}

static size_t packed_bytes(const product *p)
{
    return p->packs_a ? (size_t)(mb_round_up(p->block_rows, MB_PANEL_ROWS) * p->row_words) *
                            sizeof(uint32_t)
                      : 0;
}

/* Pairs of rows that lie along k are read as they are, but not beyond the end of the last. */
static product sizes_of(const mb_exec *ex, const mb_tensor *c, const mb_tensor *a, bool ta, bool tb,
                        const mb_tensor *bias, const mb_tensor *h)
{
    const bool narrow =
        !ta && (ex->rows_alike || mb_rows(c) < MB_GEMM_FEW_ROWS || mb_cols(c) <= NARROW_COLS);
    product p = {.w = mb_cpu_gemm_words(a->dtype, narrow),
                 .m = mb_rows(c),
                 .n = mb_cols(c),
                 .k = ta ? mb_rows(a) : mb_cols(a),
                 .ta = ta,
                 .tb = tb,
                 .rank = h != NULL ? mb_cols(h) : 0};

    p.across = p.k > 0 && ta && !tb && bias == NULL && c->dtype == MB_DTYPE_F32 &&
               p.n <= MB_PANEL_COLS && p.m >= 4 * p.n;
    if (p.across) {
        p.m = mb_cols(c);
        p.n = mb_rows(c);
    }
    p.words = mb_ceil_div(p.k, p.w->per);
    p.packs_a = ta || !p.w->in_place || p.k % p.w->per != 0;
    if (p.m > 0 && p.n > 0 && p.k > 0)
        cut(&p, ex->threads);
    return p;
}

bool mb_cpu_gemm_panels_adds(int64_t k, int64_t rank)
{
    return k > 0 && k % 2 == 0 && rank > 0 && rank % 2 == 0 && rank <= MOST_RANK;
}

size_t mb_cpu_gemm_panels_workspace(const mb_exec *ex, const mb_tensor *c, const mb_tensor *a,
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
static void pack_panel(const mb_gemm_words *w, uint32_t *to, int64_t width, const char *b,
                       int64_t ldb, bool tb, int64_t j0, int64_t n, int64_t k0, int64_t k)
{
    if (tb)
        w->across(to, width, width, b + (j0 * ldb + k0) * w->size, ldb, k, n);
    else
        w->down(to, width, width, b + (k0 * ldb + j0) * w->size, ldb, k, n);
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
static void finish_across(const mb_sums_out *out, const float *sum, int64_t width, int64_t i,
                          int rows, int64_t j, int64_t n)
{
    for (int64_t col = 0; col < n; col++) {
        float *c = mb_row(out->c, j + col) + i;

        for (int r = 0; r < rows; r++)
            c[r] =
                out->alpha * sum[r * width + col] + (out->beta != 0.0f ? out->beta * c[r] : 0.0f);
    }
}

/* Words of A, or of the adapter's H, from which tiles are multiplied. */
typedef struct source {
    const char *at;
    int64_t row, step; /* bytes */
} source;

/* Row i, which is `in` rows from the first that is packed, from word l0 on. */
static source left_of(const product *p, int64_t i, int64_t in, int64_t l0)
{
    const int64_t group = p->w->group;

    if (!p->packs_a)
        return (source){p->a + (i * p->lda + l0 * p->w->per) * p->w->size, p->lda * p->w->size,
                        sizeof(uint32_t)};
    return (source){
        (const char *)(p->packed + (in / group * p->row_words + l0) * group + in % group),
        (group > 1 ? 1 : p->row_words) * (int64_t)sizeof(uint32_t),
        group * (int64_t)sizeof(uint32_t)};
}

static source left_of_adapter(const product *p, int64_t i, int64_t in)
{
    if (packs_adapter(p))
        return left_of(p, i, in, p->words);
    return (source){p->h + i * p->ldh * p->w->size, p->ldh * p->w->size, sizeof(uint32_t)};
}

/* Words [l0, l0 + BLOCK) of k for rows [i0, i0 + rows) of the panel of columns from j0; A's packed part
 * starts at row `base`. Sums that are not done lie in `waiting`, (rows, width). */
static void run_panel(const product *p, int64_t base, int64_t i0, int64_t rows, int64_t j0,
                      int64_t l0, uint32_t *panel, float *waiting)
{
    const mb_gemm_words *w = p->w;
    const int64_t n = mb_least(MB_PANEL_COLS, p->n - j0), width = mb_round_up(n, 16),
                  full = mb_tile_rows(width), words = mb_least(BLOCK, p->words - l0),
                  k0 = l0 * w->per, k = mb_least(BLOCK * w->per, p->k - k0);
    const bool last = l0 + words == p->words;
    uint32_t *adapter = panel + words * MB_PANEL_COLS;
    float tile[MB_PANEL_TILE] __attribute__((aligned(64))), strip[MB_PANEL_COLS];
    const mb_sums_out out = {p->c, bias_of(p, strip, j0, n), p->alpha, p->beta};

    pack_panel(w, panel, width, p->b, p->ldb, p->tb, j0, n, k0, k);
    if (last && p->rank > 0)
        pack_panel(w, adapter, width, p->hb, p->ldhb, p->thb, j0, n, 0, p->rank);
    for (int64_t i = i0; i < i0 + rows; i += full) {
        const int64_t height = mb_least(full, i0 + rows - i);
        float *sum = p->words > BLOCK ? waiting + (i - i0) * width : tile;
        source a = left_of(p, i, i - base, l0);

        if (last && !p->across)
            fetch(p->c, i, height, j0, n);
        w->multiply(sum, a.at, a.row, a.step, (int)height, panel, width, words, l0 > 0);
        if (last && p->rank > 0) {
            a = left_of_adapter(p, i, i - base);
            w->multiply(sum, a.at, a.row, a.step, (int)height, adapter, width, rank_words(p), true);
        }
        if (last && p->across)
            finish_across(&out, sum, width, i, (int)height, j0, n);
        else if (last)
            w->finish(&out, sum, width, i, (int)height, j0, n);
    }
}

/* Rows [i0, i0 + rows) of the panels of columns [j0, j1). */
static void run_unit(const product *p, int64_t base, int64_t i0, int64_t rows, int64_t j0,
                     int64_t j1)
{
    uint32_t *panel = (uint32_t *)(p->own + (size_t)omp_get_thread_num() * p->own_bytes);
    float *waiting = (float *)(panel + (mb_least(p->words, BLOCK) + rank_words(p)) * MB_PANEL_COLS);

    for (int64_t l0 = 0; l0 < p->words; l0 += BLOCK)
        for (int64_t j = j0; j < j1; j += MB_PANEL_COLS)
            run_panel(p, base, i0, rows, j, l0, panel, waiting + (j - j0) * rows);
}

/* How many rows of A are made into words at a time: a whole group, or squares of both types. */
static int64_t packing_step(const product *p)
{
    return p->w->group > 1 ? p->w->group : MB_PANEL_COLS;
}

/* n rows of op(A), at most so many, from row `base + first`. */
static void pack_rows(const product *p, int64_t base, int64_t first, int64_t n)
{
    const mb_gemm_words *w = p->w;
    const int64_t i = base + first, ld = p->row_words;
    uint32_t *to = p->packed + first * ld;

    if (w->group > 1 && p->ta)
        w->down(to, MB_PANEL_ROWS, MB_PANEL_ROWS, p->a + i * w->size, p->lda, p->k, n);
    else if (w->group > 1)
        w->across(to, MB_PANEL_ROWS, MB_PANEL_ROWS, p->a + i * p->lda * w->size, p->lda, p->k, n);
    else if (p->ta) /* words lie as in a panel of rows of A, transposed */
        w->across(to, ld, p->k, p->a + i * w->size, p->lda, n, p->k);
    else
        w->down(to, ld, p->k, p->a + i * p->lda * w->size, p->lda, n, p->k);
    if (packs_adapter(p))
        w->down(to + p->words, ld, p->rank, p->h + i * p->ldh * w->size, p->ldh, n, p->rank);
}

/* Rows [base, base + rows) of C; all threads of the team. */
static void run_block(const product *p, int64_t base, int64_t rows)
{
    const int64_t ranges = mb_ceil_div(rows, p->unit_rows), cols = p->unit_panels * MB_PANEL_COLS;

    if (p->packs_a) {
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < rows; first += packing_step(p))
            pack_rows(p, base, first, mb_least(packing_step(p), rows - first));
    }
#pragma omp for schedule(dynamic)
    for (int64_t u = 0; u < ranges * mb_ceil_div(p->n, cols); u++) {
        const int64_t i0 = u % ranges * p->unit_rows, j0 = u / ranges * cols;
        run_unit(p, base, base + i0, mb_least(p->unit_rows, rows - i0), j0,
                 mb_least(p->n, j0 + cols));
    }
}

static void no_products(const product *p)
{
    const float zeros[MB_PANEL_COLS] = {0};
    float strip[MB_PANEL_COLS];

    for (int64_t j0 = 0; j0 < p->n; j0 += MB_PANEL_COLS) {
        const int64_t n = mb_least(MB_PANEL_COLS, p->n - j0);
        const mb_sums_out out = {p->c, bias_of(p, strip, j0, n), p->alpha, p->beta};
        for (int64_t i = 0; i < p->m; i++)
            p->w->finish(&out, zeros, MB_PANEL_COLS, i, 1, j0, n);
    }
}

mb_status mb_cpu_gemm_panels(mb_exec *ex, mb_tensor *c, const mb_tensor *a, bool ta,
                             const mb_tensor *b, bool tb, float alpha, float beta,
                             const mb_tensor *bias, const mb_gemm_adapter *also)
{
    product p = sizes_of(ex, c, a, ta, tb, bias, also != NULL ? also->h : NULL);
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
        no_products(&p);
        return MB_OK;
    }
    p.packed = ex->workspace;
    p.own = (char *)ex->workspace + packed_bytes(&p);
#pragma omp parallel num_threads(team)
    for (int64_t base = 0; base < p.m; base += p.block_rows)
        run_block(&p, base, mb_least(p.block_rows, p.m - base));
    return MB_OK;
}
