/* recipes/train/metrics.h - measurements of a run and where they go.
 *
 * The trainer makes one record per logged step, evaluation and end of run, and hands it to all
 * sinks; a sink is one file and one line in sinks.def: a JSONL log, TensorBoard event files,
 * trainer_state.json, the terminal. Only rank 0 opens sinks; nothing here is collective.
 *
 *     MB_TRY(mb_sinks_open(&run, names, &sinks));      // names: report_to; NULL-terminated
 *     mb_metrics m = {.step = 10, .epoch = 0.05};
 *     mb_metrics_add(&m, "loss", 4.1);
 *     MB_TRY(mb_sinks_log(sinks, &m));                 // at logging_steps
 *     mb_sinks_progress(sinks, &p);                    // every step; draws the bar
 *     MB_TRY(mb_sinks_checkpoint(sinks, dir, step));   // into a checkpoint folder being written
 *     mb_sinks_best(sinks, 2.97, "out/checkpoint-000200");
 *     MB_TRY(mb_sinks_close(&sinks));
 *
 * Names are Hugging Face's: loss, grad_norm, learning_rate, num_tokens, tokens_per_second,
 * train_runtime, eval_loss, eval_accuracy ... A value that is not finite is kept as such in event
 * files and is null in JSON.
 */
#ifndef MB_RECIPES_TRAIN_METRICS_H
#define MB_RECIPES_TRAIN_METRICS_H

#include <stdint.h>

#include "core/json.h"

enum { MB_METRICS_MAX = 1400 }; /* 20 metrics and the rows of 64 groups, and all else */

typedef struct mb_metrics {
    int64_t step; /* applied optimizer steps */
    double epoch;
    int n;
    struct {
        const char *name; /* borrowed; a constant, or the job's */
        double value;
        bool of_group; /* one of many: not for a line on a screen */
    } item[MB_METRICS_MAX];
} mb_metrics;

/* Beyond MB_METRICS_MAX values it is a defect. */
void mb_metrics_add(mb_metrics *m, const char *name, double value);
void mb_metrics_add_of_group(mb_metrics *m, const char *name, double value);
/* NULL when there is no such value. */
const double *mb_metrics_get(const mb_metrics *m, const char *name);
/* Puts all values into a JSON object; what begins with num_ or ends with _rows is a count, written whole. */
mb_status mb_metrics_to_json(const mb_metrics *m, mb_json object) MB_MUST_USE;

/* What does not change during the run. Strings are copied. */
typedef struct mb_metric_run {
    const char *output_dir;
    const char *resume_dir; /* optional: the checkpoint this run goes on from */
    int64_t resume_step;    /* its step; everything logged after it is dropped */
    int64_t max_steps, train_batch_size, logging_steps, eval_steps, save_steps;
    double num_train_epochs;
    int terminal; /* file descriptor of the progress line, -1 for none; usually 2 */
} mb_metric_run;

/* What a step adds to the progress line. */
typedef struct mb_progress {
    int64_t step, total;
    double loss, learning_rate, tokens_per_second; /* NaN: not shown */
} mb_progress;

/* One sink. Every function but open and close is optional: NULL means nothing to do. */
typedef struct mb_sink_kind {
    const char *name;
    bool always; /* opened whatever report_to says */
    mb_status (*open)(const mb_metric_run *run, void **state);
    mb_status (*log)(void *state, const mb_metrics *m);
    void (*progress)(void *state, const mb_progress *p);
    void (*best)(void *state, double metric, const char *checkpoint);
    mb_status (*checkpoint)(void *state, const char *dir, int64_t step);
    mb_status (*close)(void *state); /* frees state, also when it fails */
} mb_sink_kind;

extern const mb_sink_kind *const mb_sink_kinds[]; /* NULL-terminated */

typedef struct mb_sinks mb_sinks;

/* Opens the sinks named in the NULL-terminated list (may be NULL) and those that are always there.
 * "none" is allowed; MB_EARG names a word that is no sink. The caller owns *out. */
mb_status mb_sinks_open(const mb_metric_run *run, const char *const *names,
                        mb_sinks **out) MB_MUST_USE;
mb_status mb_sinks_log(mb_sinks *s, const mb_metrics *m) MB_MUST_USE;
void mb_sinks_progress(mb_sinks *s, const mb_progress *p);
void mb_sinks_best(mb_sinks *s, double metric, const char *checkpoint);
mb_status mb_sinks_checkpoint(mb_sinks *s, const char *dir, int64_t step) MB_MUST_USE;
/* Sets *s to NULL; closes all of them even if one fails and returns the first failure. */
mb_status mb_sinks_close(mb_sinks **s);

#endif
