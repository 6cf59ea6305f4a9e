/* core/cpu/attention_tile.h - the arithmetic of a block of attention: packed operands and products.
 *
 *     C(m, n) (+)= A(m, depth) B(depth, n)        C and the sums f32, n a multiple of 16
 *
 * B lies packed, n words a row; an element (i, l) of A is a word anywhere. A word is one f32, or,
 * where the tensors are bf16 and the processor multiplies pairs of them faster (MB_CPU_FAST_PAIRS), a pair
 * along the summed dimension. What is computed in a block (P, dS) is rounded to bf16 for the next product
 * then. Elsewhere bf16 is widened as it is packed.
 *
 * A block of 64 queries or keys is packed in up to three forms:
 *
 *     left     rows as A of sums over the head           (64, words)
 *     across   transposed, as B of sums over the head    (words of a head, 64)
 *     down     as B of sums over the block's rows        (words of 64, width)
 *
 * Each sum runs over l in order, one product after the other: its bits depend on nothing else.
 */
#ifndef MB_CORE_CPU_ATTENTION_TILE_H
#define MB_CORE_CPU_ATTENTION_TILE_H

#include "core/cpu/attention_block.h"
#include "core/cpu/vecmath.h"

typedef struct mb_att_form {
    bool pairs;      /* a word is two bf16 */
    int64_t hd;      /* elements of a head */
    int64_t width;   /* hd rounded up to 16: floats a row of what is summed */
    int64_t words;   /* of a row of `left` */
    int64_t size;    /* words of a packed block, any form */
    int64_t columns; /* of C at a time: as many as registers hold */
} mb_att_form;

mb_att_form mb_att_form_of(const mb_tensor *q, const mb_attention *at);
/* Words that n elements along a summed dimension are. */
static inline int64_t mb_att_words(const mb_att_form *f, int64_t n)
{
    return f->pairs ? (n + 1) / 2 : n;
}

/* A block's packed forms, each f->size words. NULL: not wanted. `left` may be `down` when words are
 * f32: they are the same; otherwise across needs left, which is written first. */
typedef struct mb_att_packed {
    uint32_t *left, *across, *down;
} mb_att_packed;

/* Rows [row, row + rows) of t, columns [col, col + hd). */
void mb_att_pack(const mb_att_form *f, const mb_att_packed *to, const mb_tensor *t, int64_t row,
                 int64_t col, int64_t rows);

/* Asks for these rows, for the second-level cache, ahead of their use. */
void mb_att_fetch(const mb_tensor *t, int64_t row, int64_t col, int64_t rows, int64_t n);

/* A: word (i, l) at at[i * row + l * step]. */
typedef struct mb_att_left {
    const uint32_t *at;
    int64_t row, step;
} mb_att_left;

/* x(64, 64) f32 as A, or its transpose: in `buffer` as pairs, or where it is. Of x only the first
 * `rows` rows are there; as many more as complete a pair or a tile of four must be zero. */
mb_att_left mb_att_by_rows(const mb_att_form *f, uint32_t *buffer, const float *x, int64_t rows);
mb_att_left mb_att_by_columns(const mb_att_form *f, uint32_t *buffer, const float *x, int64_t rows);

/* Rows of A and C are taken by fours: m is rounded up to that. */
enum { MB_ATT_ROWS = 4 };
static inline int64_t mb_att_padded(int64_t rows)
{
    return (rows + MB_ATT_ROWS - 1) / MB_ATT_ROWS * MB_ATT_ROWS;
}
void mb_att_product(const mb_att_form *f, float *c, int64_t ldc, mb_att_left a, const uint32_t *b,
                    int64_t ldb, int64_t m, int64_t n, int64_t depth, bool add);

/* A block of queries of sequence s and one of keys. The products of a pair leave out what no query
 * of a group of rows sees. */
typedef struct mb_att_pair {
    int64_t s, q0, q_rows, k0, k_rows;
} mb_att_pair;

/* Whether each query sees all keys of the block. */
bool mb_att_all_seen(const mb_attention *at, const mb_att_pair *p);

/* c(64, 64) = left across: a row per query, a column per key. */
void mb_att_over_head(const mb_att_form *f, const mb_attention *at, const mb_att_pair *p, float *c,
                      const uint32_t *left, const uint32_t *across);
/* c(64, width) += a down, a row per query and sums over the keys; a is zero where a key is not
 * seen. */
void mb_att_add_over_keys(const mb_att_form *f, const mb_attention *at, const mb_att_pair *p,
                          float *c, mb_att_left a, const uint32_t *down);
/* c(64, width) += a down, a row per key and sums over the queries, likewise. */
void mb_att_add_over_queries(const mb_att_form *f, const mb_attention *at, const mb_att_pair *p,
                             float *c, mb_att_left a, const uint32_t *down);

/* Products of q and k to scores in units of log 2: s in, or tanh(s in) out with a cap. */
typedef struct mb_att_scores {
    float in, out;
    bool capped;
} mb_att_scores;

#define MB_ATT_LN2   0x1.62e43p-1f
#define MB_ATT_LOG2E 0x1.715476p+0f

static inline mb_att_scores mb_att_scores_of(const mb_attention *at)
{
    if (at->softcap > 0.0f)
        return (mb_att_scores){at->scale / at->softcap, at->softcap * MB_ATT_LOG2E, true};
    return (mb_att_scores){at->scale * MB_ATT_LOG2E, 1.0f, false};
}

/* s += bias / scale, for a query at `pos` and the block's keys from k0 on; only keys [lo, hi), counted
 * from k0, have a place in the table. */
static inline void mb_att_add_bias(const mb_attention *at, int64_t head, int64_t pos, int64_t k0,
                                   mb_span seen, float *s)
{
    const float *bias = at->bias + head * (2 * at->max_len - 1) + k0 - pos + at->max_len - 1;
    const float inverse_scale = 1.0f / at->scale;

    for (int64_t j = seen.lo; j < seen.hi; j++)
        s[j] += bias[j] * inverse_scale;
}

/* x *= factor; a . b */
void mb_att_scale(float *x, int64_t n, float factor);
float mb_att_dot(const float *a, const float *b, int64_t n);

/* 2^x for x <= 0 or little more: 0 below -126, NaN stays NaN, else 2 ulp. The polynomial is a minimax
 * fit of 2^x on [-1/2, 1/2] with value 1 at 0. */
MB_INLINE float mb_att_exp2(float x)
{
    const float magic = 0x1.8p23f + 127.0f; /* leaves n + 127 in the low bits */
    const float c = x < -127.0f ? -127.0f : x;
    const float shifted = c + magic;
    const float f = c - (shifted - magic);
    float p = 1.3264727e-03f;

    p = p * f + 9.671513e-03f;
    p = p * f + 5.5507336e-02f;
    p = p * f + 2.4022242e-01f;
    p = p * f + 6.93147e-01f;
    p = p * f + 1.0f;
    return p * mb_float_of_bits(mb_bits_of_float(shifted) << 23);
}

#endif
