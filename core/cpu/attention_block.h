/* core/cpu/attention_block.h - what attention's forward and backward share: geometry and blocks.
 *
 * A sequence's queries and keys are cut into blocks of 64 from its own start. A block is packed
 * into a buffer of fixed size, so what is computed for a sequence does not depend on its neighbours
 * or its place. T x T never exists.
 */
#ifndef MB_CORE_CPU_ATTENTION_BLOCK_H
#define MB_CORE_CPU_ATTENTION_BLOCK_H

#include "core/cpu/cpu.h"

enum { MB_ATT_Q = 64, MB_ATT_K = 64, MB_ATT_MAX_HEAD = 256 };

/* Keys [lo, hi) of a sequence, or queries. */
typedef struct mb_span {
    int64_t lo, hi;
} mb_span;

/* The part of x in [from, from + n), counted from there. */
static inline mb_span mb_att_within(mb_span x, int64_t from, int64_t n)
{
    const int64_t lo = x.lo - from, hi = x.hi - from;

    return (mb_span){lo < 0 ? 0 : lo > n ? n : lo, hi < 0 ? 0 : hi > n ? n : hi};
}

/* Keys that a query at position `pos` among the keys of sequence s sees; may be empty. */
mb_span mb_att_keys(const mb_attention *at, int64_t s, int64_t pos);
/* Queries of sequence s that see any of keys [from, to), and those of its keys that queries
 * [from, to) see any of. */
mb_span mb_att_queries_of(const mb_attention *at, int64_t s, int64_t from, int64_t to);
mb_span mb_att_keys_of(const mb_attention *at, int64_t s, int64_t from, int64_t to);
/* Key blocks that queries [from, to) of sequence s see any key of. */
mb_span mb_att_key_blocks(const mb_attention *at, int64_t s, int64_t from, int64_t to);
/* Query blocks of sequence s that see any of keys [from, to). */
mb_span mb_att_query_blocks(const mb_attention *at, int64_t s, int64_t from, int64_t to);

/* Rows of t from `row` on, columns [col, col + n) = from, whose rows are ld apart, or += when acc.
 * Rounded once. */
void mb_att_store(mb_tensor *t, int64_t row, int64_t col, const float *from, int64_t ld,
                  int64_t rows, int64_t n, bool acc);

/* keep[0..MB_ATT_K) = 0 or 1/(1-p) for keys k0.. of the query at tensor row `row`, position pos. */
void mb_att_dropout(const mb_attention *at, int64_t head, int64_t row, int64_t pos, int64_t k0,
                    float *keep);

/* Rows of t that belong to no sequence become zero. */
void mb_att_zero_gaps(mb_tensor *t, int64_t n_seq, const int32_t *start, const int32_t *len);

/* Blocks of the longest q_len or k_len, so that units of work can be numbered. */
int64_t mb_att_most_blocks(int64_t n_seq, const int32_t *len, int64_t block);

/* Shapes, heads and sequences fit together. kernel: for messages. */
mb_status mb_att_check(const char *kernel, const mb_tensor *q, const mb_tensor *k,
                       const mb_tensor *v, const mb_attention *at) MB_MUST_USE;

#endif
