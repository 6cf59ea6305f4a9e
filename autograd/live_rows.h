/* autograd/live_rows.h - a frozen table of which some rows are trained by themselves.
 *
 *     table[id[i], :] = rows[i, :]
 *
 * (PEFT's trainable tokens: huggingface/peft, src/peft/tuners/trainable_tokens/layer.py). The rows are
 * written into the table wherever it is put on the tape, so what reads it, as an embedding or as an
 * output head, is the same as without them. The ops that differentiate by a table, embedding, linear
 * and lm_head_ce, have the rows as one more input and add up gradients for these rows alone; a head and
 * an embedding that are one table both add to them.
 */
#ifndef MB_AUTOGRAD_LIVE_ROWS_H
#define MB_AUTOGRAD_LIVE_ROWS_H

#include "autograd/tape.h"

/* Neighbours: the table's rows [first, first + n) are the trained rows [row, row + n). */
typedef struct mb_row_run {
    int64_t first, row, n;
} mb_row_run;

typedef struct mb_live_rows {
    mb_var *var;    /* (n, D), of the table's type */
    mb_tensor slot; /* i32 (V, 1): which trained row stands for a row of the table, -1: none */
    const mb_row_run *run;
    int n_runs;
} mb_live_rows;

/* Writes the rows into the table, now, and makes them its: table->live. What r points to is borrowed
 * until the reset. The table must get no gradient of its own (MB_EBUG). */
mb_status mb_live_rows_put(mb_tape *t, mb_var *table, const mb_live_rows *r) MB_MUST_USE;

/* table->live->var, or NULL: an op's input. */
mb_var *mb_live_rows_of(const mb_var *table);

/* d_rows += their part of the gradient of y = table[ids], as embedding_bwd (core/kernels.def). */
mb_status mb_live_rows_embedding_bwd(mb_tape *t, const mb_live_rows *r, mb_tensor *d_rows,
                                     const mb_tensor *ids, const mb_tensor *dy,
                                     int64_t skip) MB_MUST_USE;
/* d_rows = beta d_rows + their part of the gradient of y = x table^T. */
mb_status mb_live_rows_linear_bwd(mb_tape *t, const mb_live_rows *r, mb_tensor *d_rows,
                                  const mb_tensor *dy, const mb_tensor *x, float beta) MB_MUST_USE;

/* For samples: a frozen table of v rows, 5 to 32, and d columns, at most 32, of which the last and rows 1
 * and 2 are trained: a sample input with a gradient that exists beforehand, as a weight's. */
mb_status mb_live_rows_sample(mb_tape *t, int64_t v, int64_t d, mb_var **table) MB_MUST_USE;

#endif
