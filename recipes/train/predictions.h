/* recipes/train/predictions.h - what a model said of the rows of an evaluation, as one list.
 *
 * Every rank notes the rows it runs, in whatever order; then they are gathered on rank 0 by their
 * numbers, so that what follows depends neither on ranks nor on micro-batches. A row is a line of JSON
 * (recipes/metrics/answers.h): what is written to a file is what the metrics were computed from, and
 * `mbuyu score` of that file says the same numbers.
 *
 *     MB_TRY(mb_predictions_new(&p));
 *     MB_TRY(mb_predictions_row(p, row, &object));              // for each row of this rank
 *     MB_TRY(mb_json_set_string(object, "prediction", ...));
 *     MB_TRY(mb_json_set_string(object, "label", ...));
 *     MB_TRY(mb_predictions_gather(p, comm));                   // on all ranks
 *     MB_TRY(mb_predictions_score(p, comm, metric, n, &options, value, NULL));
 *
 * A task says how its rows are made in tasks.def, as an mb_answer_fn.
 */
#ifndef MB_RECIPES_TRAIN_PREDICTIONS_H
#define MB_RECIPES_TRAIN_PREDICTIONS_H

#include "core/comm.h"
#include "recipes/metrics/metric.h"

typedef struct mb_predictions mb_predictions;

/* The caller owns *out. */
mb_status mb_predictions_new(mb_predictions **out) MB_MUST_USE;
void mb_predictions_free(mb_predictions *p); /* NULL is allowed */

/* Begins a row: *object holds its number and gets the rest. It is good until the next row is begun or
 * the rows are gathered. Rows with the same number keep the order in which they were begun. */
mb_status mb_predictions_row(mb_predictions *p, int64_t row, mb_json *object) MB_MUST_USE;

/* Moves all rows to rank 0, by number; other ranks have none then. Collective over a communicator for
 * host memory. */
mb_status mb_predictions_gather(mb_predictions *p, mb_comm *comm) MB_MUST_USE;

/* The rows this rank has: their number, and line i without its newline, borrowed. */
int64_t mb_predictions_count(const mb_predictions *p);
const char *mb_predictions_line(const mb_predictions *p, int64_t i, size_t *n);

/* Writes the file, whole or not at all; on the rank that has the rows. */
mb_status mb_predictions_write(const mb_predictions *p, const char *path) MB_MUST_USE;

/* The same metrics of the rows of each group. */
typedef struct mb_group_scores {
    char *const *name;
    int n;
    double
        *value; /* (n, metrics + 1), the last one the number of its rows; NaN and 0 without any */
} mb_group_scores;

/* After gathering: value[i] of metric[i] over all rows, and of groups (NULL: none), the same on all ranks.
 * Collective. */
mb_status mb_predictions_score(const mb_predictions *p, mb_comm *comm,
                               const mb_metric *const *metric, int n, const mb_metric_options *o,
                               double *value, const mb_group_scores *groups) MB_MUST_USE;

#endif
