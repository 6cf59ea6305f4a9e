/* recipes/metrics/report.h - all that is to be said of rows: metrics, tables by class and by group.
 *
 *     {"rows": 200, "accuracy": 0.91, "f1": 0.88,
 *      "details": {"wer": {"hits": 812, ...}},
 *      "classes": {"good": {"precision": 0.9, "recall": 0.8, "f1": 0.85, "rows": 90}, ...},
 *      "confusion_matrix": [[80, 10], [5, 105]],            labels down, in the order of "classes"
 *      "groups": {"sw": {"rows": 120, "accuracy": 0.93, ...}, ...}}
 */
#ifndef MB_RECIPES_METRICS_REPORT_H
#define MB_RECIPES_METRICS_REPORT_H

#include "recipes/metrics/metric.h"

/* With n 0 every metric that reads such rows; roc_auc only where there are probabilities. */
mb_status mb_score_json(const mb_answers *rows, const char *const *metric, int n,
                        const mb_metric_options *o, mb_json object) MB_MUST_USE;
/* The same as tables for people, owned by the caller. */
mb_status mb_score_text(const mb_answers *rows, const char *const *metric, int n,
                        const mb_metric_options *o, char **out) MB_MUST_USE;

#endif
