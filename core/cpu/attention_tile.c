/* core/cpu/attention_tile.c - see core/cpu/attention_tile.h. */
#include "core/cpu/attention_tile.h"

#include <string.h>

#include "core/cpu/gemm_panels.h"
#include "core/cpu/init.h"
#include "core/cpu/sizes.h"
#include "core/cpu/strip.h"
#include "core/cpu/words.h"

enum { Q = MB_ATT_Q, K = MB_ATT_K, ROWS = MB_ATT_ROWS };

mb_att_form mb_att_form_of(const mb_tensor *q, const mb_attention *at)
{
    const unsigned features = mb_cpu_features();
    mb_att_form f = {.hd = at->head_dim,
                     .width = mb_round_up(at->head_dim, 16),
                     .columns = (features & MB_CPU_AVX512) != 0 ? 64
                                : (features & MB_CPU_AVX2) != 0 ? 16
                                                                : 8};

#ifdef MB_HAS_WORDS
    f.pairs = q->dtype == MB_DTYPE_BF16 && mb_cpu_gemm_words(MB_DTYPE_BF16, false)->per == 2;
#endif
    f.words = f.pairs ? mb_round_up(mb_att_words(&f, f.hd), 16) : f.width;
    f.size = Q * f.words;
    return f;
}

/* ---- packing -------------------------------------------------------------------------------- */

/* to(c, 64) = from(rows, c) transposed, both of words; rows and c multiples of 16. */
MB_CPU_CLONES
static void transpose(uint32_t *restrict to, const uint32_t *restrict from, int64_t rows, int64_t c)
{
    for (int64_t i = 0; i < rows; i += 16)
        for (int64_t j = 0; j < c; j += 16)
            mb_transpose16(to + j * K + i, K, from + i * c + j, c * (int64_t)sizeof *from);
}

/* A row's part in a head is a few cache lines, far from the next: too short for the processor to
 * foresee. */
void mb_att_fetch(const mb_tensor *t, int64_t row, int64_t col, int64_t rows, int64_t n)
{
    const int64_t bytes = mb_dtype_bytes(t->dtype, n);

    for (int64_t i = 0; i < rows; i++) {
        const char *at =
            (const char *)t->data + mb_dtype_bytes(t->dtype, (row + i) * mb_row_stride(t) + col);

        for (int64_t j = 0; j < bytes; j += 64)
            __builtin_prefetch(at + j, 0, 2);
    }
}

/* Rows as they are, in f32 or in pairs; zero to the end of each and for the rows that are missing to
 * a multiple of 16. */
static void copy_rows(const mb_att_form *f, uint32_t *to, const mb_tensor *t, int64_t row,
                      int64_t col, int64_t rows)
{
    const size_t size = (size_t)f->words * sizeof *to;
    const size_t bytes = f->pairs ? (size_t)f->hd * sizeof(uint16_t) : (size_t)f->hd * sizeof *to;
    float strip[MB_ATT_MAX_HEAD];

    mb_att_fetch(t, row, col, rows, f->hd);
    for (int64_t i = 0; i < rows; i++, to += f->words) {
        const void *from = f->pairs ? (const void *)mb_at16(t, row + i, col)
                                    : mb_strip_read(strip, t, row + i, col, f->hd);

        memcpy(to, from, bytes);
        memset((char *)to + bytes, 0, size - bytes);
    }
    memset(to, 0, (size_t)(mb_round_up(rows, 16) - rows) * size);
}

void mb_att_pack(const mb_att_form *f, const mb_att_packed *to, const mb_tensor *t, int64_t row,
                 int64_t col, int64_t rows)
{
    if (to->left != NULL)
        copy_rows(f, to->left, t, row, col, rows);
    if (f->pairs) {
        const uint16_t *x = mb_at16(t, row, col);

        if (to->left == NULL)
            mb_att_fetch(t, row, col, rows, f->hd);
        if (to->across != NULL)
            mb_cpu_pairs_across(to->across, K, K, x, mb_row_stride(t), f->hd, rows);
        if (to->down != NULL)
            mb_cpu_pairs_down(to->down, f->width, f->width, x, mb_row_stride(t), rows, f->hd);
        return;
    }
    if (to->down != NULL && to->down != to->left)
        copy_rows(f, to->down, t, row, col, rows);
    if (to->across != NULL)
        transpose(to->across, to->left, mb_round_up(rows, 16), f->words);
}

MB_CPU_CLONES
void mb_att_scale(float *x, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

MB_CPU_CLONES
float mb_att_dot(const float *a, const float *b, int64_t n)
{
    return mb_dotf(a, b, n);
}

/* ---- products in f32 ------------------------------------------------------------------------ */

/* Four rows of `vectors` times `lanes` columns; all sums stay in registers. A vector is what one
 * register holds: gcc keeps wider ones in memory. */
#define TILE(lanes)                                                                           \
    typedef float vec##lanes __attribute__((vector_size(4 * lanes), aligned(4), may_alias));  \
    MB_INLINE void tile_f32_##lanes(float *c, int64_t ldc, const float *a, int64_t row,       \
                                    int64_t step, const float *b, int64_t ldb, int64_t depth, \
                                    bool add, const int vectors)                              \
    {                                                                                         \
        const vec##lanes zero = {0};                                                          \
        vec##lanes sum[ROWS][4];                                                              \
                                                                                              \
        for (int i = 0; i < ROWS; i++)                                                        \
            for (int j = 0; j < vectors; j++)                                                 \
                sum[i][j] = add ? *(const vec##lanes *)(c + i * ldc + lanes * j) : zero;      \
        for (int64_t l = 0; l < depth; l++) {                                                 \
            vec##lanes y[4];                                                                  \
                                                                                              \
            for (int j = 0; j < vectors; j++)                                                 \
                y[j] = *(const vec##lanes *)(b + l * ldb + lanes * j);                        \
            for (int i = 0; i < ROWS; i++) {                                                  \
                const float x = a[i * row + l * step];                                        \
                                                                                              \
                for (int j = 0; j < vectors; j++)                                             \
                    sum[i][j] += x * y[j];                                                    \
            }                                                                                 \
        }                                                                                     \
        for (int i = 0; i < ROWS; i++)                                                        \
            for (int j = 0; j < vectors; j++)                                                 \
                *(vec##lanes *)(c + i * ldc + lanes * j) = sum[i][j];                         \
    }

TILE(16)
TILE(8)
TILE(4)

MB_CPU_CLONES
static void product_f32(float *c, int64_t ldc, const float *a, int64_t row, int64_t step,
                        const float *b, int64_t ldb, int64_t m, int64_t n, int64_t depth, bool add,
                        int64_t most)
{
    for (int64_t j = 0, left = n; left > 0; left -= most, j += most) {
        for (int64_t i = 0; i < m; i += ROWS) {
            float *at = c + i * ldc + j;
            const float *x = a + i * row, *y = b + j;

            if (most == 8)
                tile_f32_4(at, ldc, x, row, step, y, ldb, depth, add, 2);
            else if (most == 16)
                tile_f32_8(at, ldc, x, row, step, y, ldb, depth, add, 2);
            else if (left >= 64)
                tile_f32_16(at, ldc, x, row, step, y, ldb, depth, add, 4);
            else if (left >= 48)
                tile_f32_16(at, ldc, x, row, step, y, ldb, depth, add, 3);
            else if (left >= 32)
                tile_f32_16(at, ldc, x, row, step, y, ldb, depth, add, 2);
            else
                tile_f32_16(at, ldc, x, row, step, y, ldb, depth, add, 1);
        }
    }
}

/* ---- products of pairs ---------------------------------------------------------------------- */

#ifdef MB_HAS_WORDS

MB_WORDS static void product_pairs(float *c, int64_t ldc, mb_att_left a, const uint32_t *b,
                                   int64_t ldb, int64_t m, int64_t n, int64_t depth, bool add)
{
    const int64_t row = 4 * a.row, step = 4 * a.step; /* in bytes */

    for (int64_t j = 0; j < n; j += 64) {
        for (int64_t i = 0; i < m; i += ROWS) {
            float *at = c + i * ldc + j;
            const char *x = (const char *)a.at + i * row;
            const uint32_t *y = b + j;

            if (n - j >= 64)
                mb_words_tile(at, ldc, x, row, step, y, ldb, depth, add, ROWS, 4, true, false);
            else if (n - j >= 48)
                mb_words_tile(at, ldc, x, row, step, y, ldb, depth, add, ROWS, 3, true, false);
            else if (n - j >= 32)
                mb_words_tile(at, ldc, x, row, step, y, ldb, depth, add, ROWS, 2, true, false);
            else
                mb_words_tile(at, ldc, x, row, step, y, ldb, depth, add, ROWS, 1, true, false);
        }
    }
}

MB_WORDS static void round_rows(uint32_t *to, const float *x, int64_t rows)
{
    for (int64_t i = 0; i < rows * K; i += 32)
        _mm512_storeu_si512(to + i / 2, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16),
                                                                     _mm512_loadu_ps(x + i)));
}

/* to(rows / 2, 64): row 2 i in the low halves, 2 i + 1 in the high. */
MB_WORDS static void round_columns(uint32_t *to, const float *x, int64_t rows)
{
    uint16_t order[32];

    for (uint16_t i = 0; i < 32; i++)
        order[i] = (uint16_t)(i % 2 * 16 + i / 2);
    const __m512i interleave = _mm512_loadu_si512(order);

    for (int64_t i = 0; i < rows; i += 2, x += 2 * K, to += K)
        for (int j = 0; j < K; j += 16) {
            const __m512i both =
                (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + K + j), _mm512_loadu_ps(x + j));

            _mm512_storeu_si512(to + j, _mm512_permutexvar_epi16(interleave, both));
        }
}

#endif

/* ---- which ---------------------------------------------------------------------------------- */

mb_att_left mb_att_by_rows(const mb_att_form *f, uint32_t *buffer, const float *x, int64_t rows)
{
#ifdef MB_HAS_WORDS
    if (f->pairs) {
        round_rows(buffer, x, mb_round_up(rows, ROWS));
        return (mb_att_left){buffer, K / 2, 1};
    }
#endif
    return (mb_att_left){(const uint32_t *)x, K, 1};
}

mb_att_left mb_att_by_columns(const mb_att_form *f, uint32_t *buffer, const float *x, int64_t rows)
{
#ifdef MB_HAS_WORDS
    if (f->pairs) {
        round_columns(buffer, x, rows);
        return (mb_att_left){buffer, 1, K};
    }
#endif
    return (mb_att_left){(const uint32_t *)x, 1, K};
}

void mb_att_product(const mb_att_form *f, float *c, int64_t ldc, mb_att_left a, const uint32_t *b,
                    int64_t ldb, int64_t m, int64_t n, int64_t depth, bool add)
{
#ifdef MB_HAS_WORDS
    if (f->pairs) {
        product_pairs(c, ldc, a, b, ldb, m, n, depth, add);
        return;
    }
#endif
    product_f32(c, ldc, (const float *)a.at, a.row, a.step, (const float *)b, ldb, m, n, depth, add,
                f->columns);
}

/* ---- pairs of blocks ------------------------------------------------------------------------ */

bool mb_att_all_seen(const mb_attention *at, const mb_att_pair *p)
{
    const int64_t first = (int64_t)at->k_len[p->s] - at->q_len[p->s] + p->q0;

    return mb_att_keys(at, p->s, first).hi >= p->k0 + p->k_rows &&
           mb_att_keys(at, p->s, first + p->q_rows - 1).lo <= p->k0;
}

/* Rows [from, from + n) of a pair's queries or keys, and what they see of the other side. */
typedef struct group {
    int64_t from, n;
    mb_span seen;
} group;

static group query_group(const mb_attention *at, const mb_att_pair *p, int64_t from, int64_t step)
{
    group g = {.from = from, .n = p->q_rows - from < step ? p->q_rows - from : step};
    const int64_t q = p->q0 + from;

    g.seen = mb_att_within(mb_att_keys_of(at, p->s, q, q + g.n), p->k0, p->k_rows);
    return g;
}

static group key_group(const mb_attention *at, const mb_att_pair *p, int64_t from, int64_t step)
{
    group g = {.from = from, .n = p->k_rows - from < step ? p->k_rows - from : step};
    const int64_t k = p->k0 + from;

    g.seen = mb_att_within(mb_att_queries_of(at, p->s, k, k + g.n), p->q0, p->q_rows);
    return g;
}

void mb_att_over_head(const mb_att_form *f, const mb_attention *at, const mb_att_pair *p, float *c,
                      const uint32_t *left, const uint32_t *across)
{
    const int64_t step = mb_att_all_seen(at, p) ? Q : 16; /* columns go by 16 as well */

    for (int64_t i = 0; i < p->q_rows; i += step) {
        const group g = query_group(at, p, i, step);
        const int64_t lo = g.seen.lo / 16 * 16, hi = mb_round_up(g.seen.hi, 16);
        const mb_att_left a = {left + i * f->words, f->words, 1};

        mb_att_product(f, c + i * K + lo, K, a, across + lo, K, g.n, hi - lo,
                       mb_att_words(f, f->hd), false);
    }
}

/* Sums over what a group sees. */
static void add_group(const mb_att_form *f, float *c, mb_att_left a, const uint32_t *down, group g)
{
    const int64_t lo = f->pairs ? g.seen.lo / 2 : g.seen.lo, hi = mb_att_words(f, g.seen.hi);

    a.at += g.from * a.row + lo * a.step;
    if (hi > lo)
        mb_att_product(f, c + g.from * f->width, f->width, a, down + lo * f->width, f->width, g.n,
                       f->width, hi - lo, true);
}

void mb_att_add_over_keys(const mb_att_form *f, const mb_attention *at, const mb_att_pair *p,
                          float *c, mb_att_left a, const uint32_t *down)
{
    const int64_t step = mb_att_all_seen(at, p) ? Q : ROWS;

    for (int64_t i = 0; i < p->q_rows; i += step)
        add_group(f, c, a, down, query_group(at, p, i, step));
}

void mb_att_add_over_queries(const mb_att_form *f, const mb_attention *at, const mb_att_pair *p,
                             float *c, mb_att_left a, const uint32_t *down)
{
    const int64_t step = mb_att_all_seen(at, p) ? K : ROWS;

    for (int64_t i = 0; i < p->k_rows; i += step)
        add_group(f, c, a, down, key_group(at, p, i, step));
}
