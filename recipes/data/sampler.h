/* recipes/data/sampler.h - which rows a global step trains on: a pure function of (seed, step).
 *
 *     unit          a row, or with packing a bin of rows of at most max_length tokens
 *     micro-batch   `micro_units` consecutive units (per_device_train_batch_size)
 *     step          `step_units` consecutive units (global_batch_size) of one epoch; the last step
 *                   of an epoch may have fewer
 *
 * The order of an epoch is a Fisher-Yates shuffle drawn from Philox with the key (seed,
 * MB_SITE_SHUFFLE, epoch); bins are filled from windows of that order and shuffled with the key (seed,
 * MB_SITE_BINS, epoch). Ranks appear nowhere: they share the micro-batches of a step out among
 * themselves with mb_micro_range. A row's ordinal is its place in the shuffled order, the same with
 * and without packing, because it keys the row's dropouts.
 *
 *     mb_sampler *s;
 *     MB_TRY(mb_sampler_new(&opts, &s));
 *     for (int64_t i = first; i < mb_sampler_steps(s); i++) {
 *         MB_TRY(mb_sampler_step(s, i, &st));
 *         mb_micro_range(st.n_micro, rank, size, &from, &to);
 *         for (int64_t m = from; m < to; m++)
 *             mb_step_micro(&st, m, &micro);
 *
 * mb_sampler_step allocates nothing. One sampler, one thread; not collective.
 */
#ifndef MB_RECIPES_DATA_SAMPLER_H
#define MB_RECIPES_DATA_SAMPLER_H

#include <stdint.h>

#include "core/status.h"

typedef struct mb_sampler mb_sampler;

typedef struct mb_sampler_options {
    uint64_t seed;
    int64_t n_rows;         /* rows to draw from */
    const int64_t *rows;    /* optional: n_rows row numbers of the store; NULL: 0 .. n_rows-1 */
    const int64_t *offset;  /* the store's token offsets: row r has offset[r+1]-offset[r] tokens */
    const int32_t *trained; /* optional: trained tokens per row of the store; NULL counts rows */
    bool shuffle;           /* false: in the given order, every epoch the same (evaluation) */
    bool packing;
    int64_t max_length;  /* capacity of a bin, in tokens; with packing only */
    int64_t micro_units; /* units per micro-batch, > 0 */
    int64_t step_units;  /* units per global step, > 0 */
    double epochs;       /* may be fractional; used unless max_steps > 0 */
    int64_t max_steps;   /* > 0: exactly that many steps, wrapping epochs; else by epochs */
} mb_sampler_options;

/* One global step. The arrays are borrowed from the sampler and valid until the next call. */
typedef struct mb_step {
    int64_t step, epoch;
    int64_t step_in_epoch, steps_in_epoch;
    double epochs_done; /* after this step: epoch + fraction */
    int64_t n_units, n_micro, micro_units;
    int64_t n_rows, tokens;
    int64_t trained;        /* trained tokens (rows when trained was NULL) of all micro-batches */
    const int64_t *row;     /* (n_rows) row numbers of the store */
    const int32_t *ordinal; /* (n_rows) place in the shuffled order of the epoch */
    const int64_t *unit_at; /* (n_units+1) unit u holds rows unit_at[u]-unit_at[0] and following */
    const int64_t *length;  /* internal: token offsets, for mb_step_micro */
    const int32_t *trained_of;
} mb_step;

typedef struct mb_micro {
    int64_t n_rows, tokens, trained;
    const int64_t *row;
    const int32_t *ordinal;
} mb_micro;

/* Copies what it needs of the options but borrows rows, offset and trained. MB_EARG: sizes that are
 * not positive, a row without tokens or longer than max_length with packing. MB_EDATA: no rows. */
mb_status mb_sampler_new(const mb_sampler_options *o, mb_sampler **out) MB_MUST_USE;
void mb_sampler_free(mb_sampler *s); /* NULL is allowed */

int64_t mb_sampler_steps(const mb_sampler *s);           /* of the whole run */
int64_t mb_sampler_steps_per_epoch(const mb_sampler *s); /* of epoch 0 */
int64_t mb_sampler_units_per_epoch(const mb_sampler *s); /* of epoch 0 */
/* The most tokens, and the most rows, of any micro-batch of the run: sizes buffers and plan. */
int64_t mb_sampler_max_tokens(const mb_sampler *s);
int64_t mb_sampler_max_rows(const mb_sampler *s);
/* The most micro-batches a step has. */
int64_t mb_sampler_max_micro(const mb_sampler *s);

/* 0 <= step < mb_sampler_steps(s), in any order; following steps are cheap. */
mb_status mb_sampler_step(mb_sampler *s, int64_t step, mb_step *out) MB_MUST_USE;
void mb_step_micro(const mb_step *st, int64_t m, mb_micro *out); /* 0 <= m < n_micro */

/* Micro-batches [*from, *to) are rank's: contiguous blocks, the first n_micro % size one larger. */
void mb_micro_range(int64_t n_micro, int rank, int size, int64_t *from, int64_t *to);

#endif
