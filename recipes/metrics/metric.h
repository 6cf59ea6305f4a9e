/* recipes/metrics/metric.h - the table of metrics, generated from metrics.def.
 *
 * A metric is a pure function of rows in memory (recipes/metrics/answers.h): the same rows in the same
 * order give the same bits. What the functions are made of, for callers with arrays of their own, is
 * in classes.h, numbers.h, tags.h, squad.h, translation.h, rouge.h, edits.h and
 * ranking.h.
 *
 *     const mb_metric *m = mb_metric_find("f1", MB_READS_TAGS);
 *     mb_scores s;
 *     MB_TRY(mb_metric_compute(m, rows, NULL, &s));     // s.at[0].value
 *
 * To add one: a line in metrics.def and its function in the file of its group.
 */
#ifndef MB_RECIPES_METRICS_METRIC_H
#define MB_RECIPES_METRICS_METRIC_H

#include "recipes/metrics/answers.h"

typedef enum mb_metric_reads {
    MB_READS_NOTHING, /* of a task: there are no predictions */
    MB_READS_CLASS,
    MB_READS_SETS,
    MB_READS_NUMBER,
    MB_READS_TAGS,
    MB_READS_TEXT,
    MB_READS_RANK,
} mb_metric_reads;

/* How BLEU and chrF look at text. */
typedef struct mb_metric_options {
    const char *tokenize; /* bleu: 13a, intl, zh, char or none; NULL: 13a */
    bool lowercase;       /* bleu, chrf: before anything else */
} mb_metric_options;

/* at[0] is the metric, what follows it belongs to it (counts of errors, precisions ...). */
enum { MB_SCORES_MAX = 12 };
typedef struct mb_scores {
    int n;
    struct {
        const char *name; /* a constant */
        double value;
        bool count; /* a whole number of things */
    } at[MB_SCORES_MAX];
} mb_scores;
void mb_scores_add(mb_scores *s, const char *name, double value);
void mb_scores_count(mb_scores *s, const char *name, int64_t n);

typedef struct mb_metric {
    const char *name, *eval_name; /* "f1", "eval_f1" */
    mb_metric_reads reads;
    bool greater_is_better;
    mb_status (*run)(const mb_answers *rows, const mb_metric_options *o, mb_scores *out);
    const char *help;
} mb_metric;

extern const mb_metric mb_metric_table[];
extern const int mb_n_metrics;
/* "class", "tags" ...; what rows must hold for it. */
const char *mb_metric_reads_name(mb_metric_reads reads);

/* "f1" or "eval_f1"; NULL when there is none that reads this. */
const mb_metric *mb_metric_find(const char *name, mb_metric_reads reads);
/* What the rows can be: the first kind they fit of TAGS, SETS, CLASS, NUMBER, TEXT, RANK. */
mb_status mb_metric_fits(const mb_answers *rows, mb_metric_reads reads) MB_MUST_USE;
/* *out: what all of these names can read in these rows. MB_EARG for a name that is none, or one that
 * the rows are not for. n 0: what the rows look most like. */
mb_status mb_metric_kind(const mb_answers *rows, const char *const *name, int64_t n,
                         mb_metric_reads *out) MB_MUST_USE;
/* `o` may be NULL. A value that is not defined for the rows (a correlation of equal numbers, a curve
 * with one class) is NaN. MB_EDATA: rows that it cannot read. */
mb_status mb_metric_compute(const mb_metric *m, const mb_answers *rows, const mb_metric_options *o,
                            mb_scores *out) MB_MUST_USE;
/* The names for `reads`, or all with MB_READS_NOTHING, with commas; for messages. */
const char *mb_metric_names(mb_metric_reads reads, char *text, size_t size);

#define MB_METRIC(name, reads, better, fn, help) \
    mb_status fn(const mb_answers *, const mb_metric_options *, mb_scores *) MB_MUST_USE;
#include "recipes/metrics/metrics.def"

#endif
