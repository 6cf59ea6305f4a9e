/* core/cpu/rows.h - how CPU kernels are cut for threads, and how they add up.
 *
 * Work is cut into pieces that depend on shapes only: whole rows, blocks of MB_ROW_BLOCK rows, or
 * spans of at most MB_SPAN elements of a row. Threads take pieces; a sum belongs to one piece, and
 * the pieces' sums are added in their order. So a result never depends on the number of threads.
 *
 * Inside a piece sums run in MB_LANES lanes (core/cpu/vecmath.h). These files are compiled without
 * contraction to fused multiply-add, so that vector bodies, scalar tails and the clones for other
 * processors round alike.
 */
#ifndef MB_CORE_CPU_ROWS_H
#define MB_CORE_CPU_ROWS_H

#include <string.h>

#include "core/cpu/cpu.h"
#include "core/cpu/vecmath.h"

enum {
    MB_ROW_BLOCK = 64, /* rows whose contributions to a weight's gradient are summed together */
    MB_SPAN = 16384    /* elements */
};

/* Threads worth using for `work` elements: starting a team costs some microseconds. */
static inline int mb_team(const mb_exec *ex, int64_t work)
{
    return work < 16384 || ex->threads < 1 ? 1 : ex->threads;
}

/* The pieces of an elementwise kernel. Tensors that are all contiguous count as one long row. */
typedef struct mb_spans {
    int64_t cols, per_row, count;
    bool merged;
} mb_spans;

typedef struct mb_span {
    int64_t row, col, n;
} mb_span;

/* Of n tensors of the same shape; NULL entries are skipped, the first must be there. */
static inline mb_spans mb_spans_of(int n, const mb_tensor *const *t)
{
    mb_spans s = {.cols = mb_cols(t[0]), .merged = true};
    int64_t rows = mb_rows(t[0]);

    for (int i = 0; i < n; i++) {
        if (t[i] == NULL)
            continue;
        MB_ASSERT(mb_rows(t[i]) == rows && mb_cols(t[i]) == s.cols);
        s.merged = s.merged && (rows <= 1 || mb_tensor_is_contiguous(t[i]));
    }
    if (s.merged) {
        s.cols *= rows;
        rows = 1;
    }
    s.per_row = (s.cols + MB_SPAN - 1) / MB_SPAN;
    s.count = rows * s.per_row;
    return s;
}

static inline mb_span mb_span_at(const mb_spans *s, int64_t k)
{
    mb_span at = {.row = k / s->per_row, .col = k % s->per_row * MB_SPAN};

    at.n = s->cols - at.col < MB_SPAN ? s->cols - at.col : MB_SPAN;
    return at;
}

static inline float *mb_span_f32(const mb_tensor *t, const mb_span *at)
{
    return t == NULL ? NULL : mb_row(t, at->row) + at->col;
}

static inline int64_t mb_row_blocks(int64_t rows)
{
    return (rows + MB_ROW_BLOCK - 1) / MB_ROW_BLOCK;
}

/* word[4 j + k]: word k of Philox block (c0, c1, c2, first + j), j below MB_PHILOX_BLOCKS. */
enum { MB_PHILOX_BLOCKS = 64 };
void mb_cpu_philox(uint32_t *restrict word, uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2,
                   uint32_t first);

/* out[0..n) += the sum of partial[0..blocks)[n], added in that order. */
void mb_cpu_add_partials(const mb_exec *ex, float *out, const float *partial, int64_t blocks,
                         int64_t n);

#endif
