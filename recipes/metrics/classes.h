/* recipes/metrics/classes.h - classification: counts per class and what is made of them.
 *
 * F1 = 2 right / (labelled + predicted); what would divide by zero is 0, as scikit-learn has it.
 */
#ifndef MB_RECIPES_METRICS_CLASSES_H
#define MB_RECIPES_METRICS_CLASSES_H

#include "recipes/metrics/metric.h"

typedef struct mb_class_count {
    int64_t right, labelled, predicted; /* rows */
} mb_class_count;

/* Adds rows with one class each; classes are 0 .. n_classes-1. */
void mb_class_count_rows(mb_class_count *c, const int32_t *predicted, const int32_t *label,
                         int64_t n);
double mb_class_precision(const mb_class_count *c);
double mb_class_recall(const mb_class_count *c);
double mb_class_f1(const mb_class_count *c);

typedef enum mb_average {
    MB_AVERAGE_MICRO,    /* of the sums over classes */
    MB_AVERAGE_MACRO,    /* over the classes */
    MB_AVERAGE_WEIGHTED, /* over the classes, by rows that have them */
} mb_average;

/* `all`: classes that are in no row and predicted for none count too, as 0. */
double mb_class_mean(const mb_class_count *c, int64_t n_classes, mb_average average, bool all,
                     double (*of)(const mb_class_count *c));
double mb_class_accuracy(const mb_class_count *c, int64_t n_classes);
/* Of several classes: Gorodkin 2004. 0 when one side has a single class. */
double mb_class_matthews(const mb_class_count *c, int64_t n_classes);
/* Of scores and whether the row is positive; equal scores count half. NaN with one kind of row. */
mb_status mb_roc_auc(const double *score, const bool *positive, int64_t n, double *out) MB_MUST_USE;

/* The classes of rows: all that are there, in the order of their numbers or names. */
typedef struct mb_classes {
    int64_t n;
    char **name;           /* (n) */
    mb_class_count *count; /* (n) */
    int64_t *confusion;    /* (n,n) rows labelled i and predicted j; NULL beyond MB_CONFUSION_MAX */
} mb_classes;
enum { MB_CONFUSION_MAX = 1000 };

/* MB_EDATA: rows without a class each. The caller owns *out. */
mb_status mb_classes_of(const mb_answers *rows, mb_classes **out) MB_MUST_USE;
void mb_classes_free(mb_classes *c); /* NULL is allowed */
/* A metric over the classes that `classes` finds in rows; `of` NULL is accuracy. */
mb_status mb_class_score(const mb_answers *rows,
                         mb_status (*classes)(const mb_answers *rows, mb_classes **out),
                         const char *name, mb_average average, double (*of)(const mb_class_count *),
                         mb_scores *out) MB_MUST_USE;
#define MB_CLASS_METRIC(fn, classes, name, average, of)                              \
    mb_status fn(const mb_answers *rows, const mb_metric_options *o, mb_scores *out) \
    {                                                                                \
        return mb_class_score(rows, classes, name, average, of, out);                \
    }
/* Tables as text, owned by the caller: precision, recall, F1 and rows of each class and their means;
 * the confusion matrix, labels down, predictions across. */
mb_status mb_classes_report(const mb_classes *c, char **out) MB_MUST_USE;
mb_status mb_classes_matrix(const mb_classes *c, char **out) MB_MUST_USE;

#endif
