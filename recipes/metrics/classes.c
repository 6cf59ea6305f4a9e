/* recipes/metrics/classes.c - see classes.h; and the metrics of rows with a class or several. */
#include "recipes/metrics/classes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/metrics/metric.h"
#include "recipes/tokenizers/bytes.h"

/* ---- of counts ---------------------------------------------------------------------------- */

static double share(double part, double of)
{
    return of > 0 ? part / of : 0.0;
}

void mb_class_count_rows(mb_class_count *c, const int32_t *predicted, const int32_t *label,
                         int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        c[label[i]].labelled++;
        c[predicted[i]].predicted++;
        c[label[i]].right += label[i] == predicted[i];
    }
}

double mb_class_precision(const mb_class_count *c)
{
    return share((double)c->right, (double)c->predicted);
}

double mb_class_recall(const mb_class_count *c)
{
    return share((double)c->right, (double)c->labelled);
}

double mb_class_f1(const mb_class_count *c)
{
    return share(2.0 * (double)c->right, (double)(c->labelled + c->predicted));
}

static mb_class_count sum_of(const mb_class_count *c, int64_t n)
{
    mb_class_count sum = {0};

    for (int64_t k = 0; k < n; k++) {
        sum.right += c[k].right;
        sum.labelled += c[k].labelled;
        sum.predicted += c[k].predicted;
    }
    return sum;
}

double mb_class_mean(const mb_class_count *c, int64_t n_classes, mb_average average, bool all,
                     double (*of)(const mb_class_count *c))
{
    double sum = 0.0, weights = 0.0;

    if (average == MB_AVERAGE_MICRO) {
        const mb_class_count total = sum_of(c, n_classes);
        return of(&total);
    }
    for (int64_t k = 0; k < n_classes; k++) {
        const double there = all || c[k].labelled + c[k].predicted > 0 ? 1.0 : 0.0;
        const double w = average == MB_AVERAGE_MACRO ? there : (double)c[k].labelled;
        sum += w * of(&c[k]);
        weights += w;
    }
    return share(sum, weights);
}

double mb_class_accuracy(const mb_class_count *c, int64_t n_classes)
{
    const mb_class_count sum = sum_of(c, n_classes);

    return share((double)sum.right, (double)sum.labelled);
}

double mb_class_matthews(const mb_class_count *c, int64_t n_classes)
{
    const mb_class_count sum = sum_of(c, n_classes);
    const double n = (double)sum.labelled;
    double both = 0.0, predicted = 0.0, labelled = 0.0;

    for (int64_t k = 0; k < n_classes; k++) {
        both += (double)c[k].predicted * (double)c[k].labelled;
        predicted += (double)c[k].predicted * (double)c[k].predicted;
        labelled += (double)c[k].labelled * (double)c[k].labelled;
    }
    const double spread = (n * n - predicted) * (n * n - labelled);
    return spread > 0 ? ((double)sum.right * n - both) / sqrt(spread) : 0.0;
}

struct scored {
    double score;
    bool positive;
};

static int by_score(const void *a, const void *b)
{
    const double x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;

    return (x > y) - (x < y);
}

mb_status mb_roc_auc(const double *score, const bool *positive, int64_t n, double *out)
{
    struct scored *s;
    double ranks = 0.0, positives = 0.0;

    for (int64_t i = 0; i < n; i++)
        if (isnan(score[i])) {
            *out = (double)NAN;
            return MB_OK;
        }
    MB_TRY(MB_NEW_ARRAY(&s, n));
    for (int64_t i = 0; i < n; i++)
        s[i] = (struct scored){score[i], positive[i]};
    qsort(s, (size_t)n, sizeof *s, by_score);
    for (int64_t i = 0, j; i < n; i = j) {
        double here = 0.0;
        for (j = i; j < n && s[j].score == s[i].score; j++)
            here += s[j].positive;
        ranks += here * 0.5 * (double)(i + j + 1); /* the mean of i+1 .. j */
        positives += here;
    }
    mb_free(s);
    const double pairs = positives * ((double)n - positives);
    *out = pairs > 0 ? (ranks - 0.5 * positives * (positives + 1.0)) / pairs : (double)NAN;
    return MB_OK;
}

/* ---- of rows ------------------------------------------------------------------------------ */

/* Classes as rows name them, made into 0 .. n-1: numbers by size, names in their order. */
struct naming {
    int64_t n, size;
    bool numbers;
    int64_t *key; /* (n) sorted: numbers, or ids of names in the order of names */
    int32_t *of;  /* names: (number of strings) class of an id, -1: no class */
};

static int by_number(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static int by_name(const void *a, const void *b, void *rows)
{
    return strcmp(mb_answers_text(rows, (int32_t) * (const int64_t *)a),
                  mb_answers_text(rows, (int32_t) * (const int64_t *)b));
}

static int64_t key_at(const mb_answers *r, const mb_value *v, int64_t i)
{
    switch (v->kind) {
    case MB_VALUE_NUMBER:
        return (int64_t)v->number;
    case MB_VALUE_NUMBERS:
        return (int64_t)r->number[v->first + i];
    default:
        return r->id[v->first + i];
    }
}

static int64_t keys_of(const mb_value *v)
{
    return v->kind == MB_VALUE_NUMBER ? 1 : v->n;
}

static bool is_number(const mb_value *v)
{
    return v->kind == MB_VALUE_NUMBER || v->kind == MB_VALUE_NUMBERS;
}

static mb_status all_keys(const mb_answers *r, struct naming *c)
{
    int64_t room = 0;

    for (int64_t i = 0; i < r->n; i++) {
        const mb_answer_row *row = &r->row[i];
        c->numbers = c->numbers || is_number(&row->said) || is_number(&row->right);
        room += keys_of(&row->said) + keys_of(&row->right) + row->n;
    }
    MB_TRY(MB_NEW_ARRAY(&c->key, room));
    for (int64_t i = 0; i < r->n; i++) {
        const mb_answer_row *row = &r->row[i];
        for (int64_t k = 0; k < keys_of(&row->said); k++)
            c->key[c->size++] = key_at(r, &row->said, k);
        for (int64_t k = 0; k < keys_of(&row->right); k++)
            c->key[c->size++] = key_at(r, &row->right, k);
        for (int64_t k = 0; k < row->n; k++) {
            const bool listed = r->share_id[row->first + k] < 0;
            MB_REQUIRE(listed == c->numbers, MB_EDATA,
                       "predictions: row %lld has probabilities of %s, and its classes are %s",
                       (long long)row->row, listed ? "numbers" : "names",
                       c->numbers ? "numbers" : "names");
            c->key[c->size++] = listed ? k : r->share_id[row->first + k];
        }
    }
    return MB_OK;
}

static void sort_keys(const mb_answers *r, struct naming *c)
{
    if (c->numbers)
        qsort(c->key, (size_t)c->size, sizeof *c->key, by_number);
    else
        qsort_r(c->key, (size_t)c->size, sizeof *c->key, by_name, (void *)(uintptr_t)r);
    for (int64_t i = 0; i < c->size; i++)
        if (c->n == 0 || c->key[i] != c->key[c->n - 1])
            c->key[c->n++] = c->key[i];
}

static void naming_release(struct naming *c)
{
    mb_free(c->key);
    mb_free(c->of);
}

static mb_status naming_of(const mb_answers *r, struct naming *c)
{
    MB_TRY(all_keys(r, c));
    sort_keys(r, c);
    MB_REQUIRE(c->n <= INT32_MAX, MB_ENOTSUP, "more than %d classes", INT32_MAX);
    if (c->numbers)
        return MB_OK;
    MB_TRY(MB_NEW_ARRAY(&c->of, mb_answers_n_texts(r)));
    for (int32_t i = 0; i < mb_answers_n_texts(r); i++)
        c->of[i] = -1;
    for (int64_t k = 0; k < c->n; k++)
        c->of[c->key[k]] = (int32_t)k;
    return MB_OK;
}

static int32_t class_of(const struct naming *c, int64_t key)
{
    if (!c->numbers)
        return c->of[key];
    const int64_t *at = bsearch(&key, c->key, (size_t)c->n, sizeof *c->key, by_number);
    return at != NULL ? (int32_t)(at - c->key) : -1;
}

/* ---- one class a row ---------------------------------------------------------------------- */

static void count_one(const mb_answers *r, const struct naming *c, int64_t *confusion,
                      mb_class_count *count)
{
    for (int64_t i = 0; i < r->n; i++) {
        const int32_t said = class_of(c, key_at(r, &r->row[i].said, 0));
        const int32_t right = class_of(c, key_at(r, &r->row[i].right, 0));
        mb_class_count_rows(count, &said, &right, 1);
        if (confusion != NULL)
            confusion[right * c->n + said]++;
    }
}

static mb_status name_classes(const mb_answers *r, const struct naming *c, mb_classes *out)
{
    char number[32];

    MB_TRY(MB_NEW_ARRAY(&out->name, c->n));
    for (int64_t k = 0; k < c->n; k++) {
        snprintf(number, sizeof number, "%lld", (long long)c->key[k]);
        MB_TRY(
            mb_strdup(c->numbers ? number : mb_answers_text(r, (int32_t)c->key[k]), &out->name[k]));
    }
    return MB_OK;
}

mb_status mb_classes_of(const mb_answers *rows, mb_classes **out)
{
    struct naming names = {0};
    mb_classes *c = NULL;
    mb_status st = MB_OK;

    MB_TRY_GOTO(mb_metric_fits(rows, MB_READS_CLASS), st, done);
    MB_TRY_GOTO(naming_of(rows, &names), st, done);
    MB_TRY_GOTO(MB_NEW(&c), st, done);
    c->n = names.n;
    MB_TRY_GOTO(name_classes(rows, &names, c), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&c->count, c->n), st, done);
    if (c->n <= MB_CONFUSION_MAX)
        MB_TRY_GOTO(MB_NEW_ARRAY(&c->confusion, c->n * c->n), st, done);
    count_one(rows, &names, c->confusion, c->count);
    *out = c;
    c = NULL;
done:
    mb_classes_free(c);
    naming_release(&names);
    return st;
}

void mb_classes_free(mb_classes *c)
{
    if (c == NULL)
        return;
    for (int64_t k = 0; c->name != NULL && k < c->n; k++)
        mb_free(c->name[k]);
    mb_free(c->name);
    mb_free(c->count);
    mb_free(c->confusion);
    mb_free(c);
}

mb_status mb_class_score(const mb_answers *rows,
                         mb_status (*classes)(const mb_answers *rows, mb_classes **out),
                         const char *name, mb_average average, double (*of)(const mb_class_count *),
                         mb_scores *out)
{
    mb_classes *c;

    MB_TRY(classes(rows, &c));
    mb_scores_add(out, name,
                  of != NULL ? mb_class_mean(c->count, c->n, average, false, of)
                             : mb_class_accuracy(c->count, c->n));
    mb_classes_free(c);
    return MB_OK;
}

MB_CLASS_METRIC(mb_metric_accuracy, mb_classes_of, "accuracy", MB_AVERAGE_MICRO, NULL)
MB_CLASS_METRIC(mb_metric_f1, mb_classes_of, "f1", MB_AVERAGE_MACRO, mb_class_f1)
MB_CLASS_METRIC(mb_metric_f1_micro, mb_classes_of, "f1_micro", MB_AVERAGE_MICRO, mb_class_f1)
MB_CLASS_METRIC(mb_metric_f1_weighted, mb_classes_of, "f1_weighted", MB_AVERAGE_WEIGHTED,
                mb_class_f1)
MB_CLASS_METRIC(mb_metric_precision, mb_classes_of, "precision", MB_AVERAGE_MACRO,
                mb_class_precision)
MB_CLASS_METRIC(mb_metric_recall, mb_classes_of, "recall", MB_AVERAGE_MACRO, mb_class_recall)

mb_status mb_metric_f1_binary(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    mb_classes *c;
    mb_status st = MB_OK;

    MB_TRY(mb_classes_of(rows, &c));
    if (c->n > 2)
        st = MB_RAISE(MB_EDATA, "f1_binary: there are %lld classes, not two", (long long)c->n);
    else
        mb_scores_add(out, "f1_binary", c->n == 2 ? mb_class_f1(&c->count[1]) : 0.0);
    mb_classes_free(c);
    return st;
}

mb_status mb_metric_matthews(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    mb_classes *c;

    MB_TRY(mb_classes_of(rows, &c));
    mb_scores_add(out, "matthews_correlation", mb_class_matthews(c->count, c->n));
    mb_classes_free(c);
    return MB_OK;
}

/* ---- curves ------------------------------------------------------------------------------- */

static bool has_class(const mb_answers *r, const struct naming *c, const mb_value *v, int32_t k)
{
    for (int64_t i = 0; i < keys_of(v); i++)
        if (class_of(c, key_at(r, v, i)) == k)
            return true;
    return false;
}

/* The row's probability of class k; MB_EDATA when it says none. Rows name their classes in one
 * order, so *place, where the last row had it, is looked at first. */
static mb_status probability(const mb_answers *r, const struct naming *c, const mb_answer_row *row,
                             int32_t k, int64_t *place, double *out)
{
    for (int64_t i = 0; i < row->n; i++) {
        const int64_t at = (*place + i) % row->n;
        const int32_t id = r->share_id[row->first + at];
        if ((id < 0 ? at : id) == c->key[k]) {
            *place = at;
            *out = r->share[row->first + at];
            return MB_OK;
        }
    }
    return MB_RAISE(MB_EDATA, "roc_auc: row %lld has no probability of every class",
                    (long long)row->row);
}

static mb_status auc_of(const mb_answers *r, const struct naming *c, int32_t k, double *score,
                        bool *positive, double *out)
{
    int64_t place = 0;

    for (int64_t i = 0; i < r->n; i++) {
        MB_TRY(probability(r, c, &r->row[i], k, &place, &score[i]));
        positive[i] = has_class(r, c, &r->row[i].right, k);
    }
    return mb_roc_auc(score, positive, r->n, out);
}

/* Mean over the classes that some rows have and others have not. */
static mb_status mean_auc(const mb_answers *r, struct naming *c, bool one_of_two, double *out)
{
    double *score = NULL, sum = 0.0;
    bool *positive = NULL;
    int64_t n = 0;
    mb_status st = MB_OK;

    MB_TRY_GOTO(naming_of(r, c), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&score, r->n), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&positive, r->n), st, done);
    /* of two classes one says all */
    for (int32_t k = one_of_two && c->n == 2 ? 1 : 0; k < c->n; k++) {
        double auc;
        MB_TRY_GOTO(auc_of(r, c, k, score, positive, &auc), st, done);
        sum += isnan(auc) ? 0.0 : auc;
        n += !isnan(auc);
    }
    *out = n > 0 ? sum / (double)n : (double)NAN;
done:
    mb_free(score);
    mb_free(positive);
    return st;
}

static mb_status roc_auc(const mb_answers *rows, bool one_of_two, mb_scores *out)
{
    struct naming names = {0};
    double auc = 0.0;
    const mb_status st = mean_auc(rows, &names, one_of_two, &auc);

    naming_release(&names);
    if (st == MB_OK)
        mb_scores_add(out, "roc_auc", auc);
    return st;
}

mb_status mb_metric_roc_auc(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    return roc_auc(rows, true, out);
}

mb_status mb_metric_sets_roc_auc(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    return roc_auc(rows, false, out);
}

/* ---- several classes a row ---------------------------------------------------------------- */

static void mark(const mb_answers *r, const struct naming *c, const mb_value *v, uint8_t bit,
                 uint8_t *has)
{
    for (int64_t i = 0; i < keys_of(v); i++)
        has[class_of(c, key_at(r, v, i))] |= bit;
}

/* Counts the classes of a row, each once; has[] is zero before and after. True: all are right. */
static bool count_set(const mb_answers *r, const struct naming *c, const mb_answer_row *row,
                      uint8_t *has, mb_class_count *count)
{
    const mb_value *value[] = {&row->said, &row->right};
    bool all_right = true;

    mark(r, c, &row->said, 1, has);
    mark(r, c, &row->right, 2, has);
    for (int side = 0; side < 2; side++)
        for (int64_t i = 0; i < keys_of(value[side]); i++) {
            const int32_t k = class_of(c, key_at(r, value[side], i));
            count[k].predicted += has[k] & 1;
            count[k].labelled += has[k] >> 1;
            count[k].right += has[k] == 3;
            all_right = all_right && (has[k] == 3 || has[k] == 0);
            has[k] = 0;
        }
    return all_right;
}

static mb_status of_sets(const mb_answers *r, const char *name, mb_average average,
                         double (*of)(const mb_class_count *), mb_scores *out)
{
    struct naming names = {0};
    mb_class_count *count = NULL;
    uint8_t *has = NULL;
    double right = 0.0;
    mb_status st = MB_OK;

    MB_TRY_GOTO(naming_of(r, &names), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&count, names.n), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&has, names.n), st, done);
    for (int64_t i = 0; i < r->n; i++)
        right += count_set(r, &names, &r->row[i], has, count);
    mb_scores_add(out, name,
                  of != NULL ? mb_class_mean(count, names.n, average, true, of)
                             : right / (double)r->n);
done:
    mb_free(has);
    mb_free(count);
    naming_release(&names);
    return st;
}

#define OF_SETS(fn, name, average, of)                                               \
    mb_status fn(const mb_answers *rows, const mb_metric_options *o, mb_scores *out) \
    {                                                                                \
        return of_sets(rows, name, average, of, out);                                \
    }
OF_SETS(mb_metric_sets_accuracy, "accuracy", MB_AVERAGE_MICRO, NULL)
OF_SETS(mb_metric_sets_f1, "f1", MB_AVERAGE_MACRO, mb_class_f1)
OF_SETS(mb_metric_sets_f1_micro, "f1_micro", MB_AVERAGE_MICRO, mb_class_f1)
OF_SETS(mb_metric_sets_f1_weighted, "f1_weighted", MB_AVERAGE_WEIGHTED, mb_class_f1)
OF_SETS(mb_metric_sets_precision, "precision", MB_AVERAGE_MACRO, mb_class_precision)
OF_SETS(mb_metric_sets_recall, "recall", MB_AVERAGE_MACRO, mb_class_recall)

/* ---- tables ------------------------------------------------------------------------------- */

/* Columns on a terminal, nearly: characters, not bytes. */
static int width_of(const char *s)
{
    int n = 0;

    for (; *s != '\0'; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static int name_width(const mb_classes *c)
{
    int width = 12; /* "weighted avg" */

    for (int64_t k = 0; k < c->n; k++)
        width = width_of(c->name[k]) > width ? width_of(c->name[k]) : width;
    return width;
}

static mb_status add_name(mb_bytes *t, const char *name, int width)
{
    MB_TRY(mb_bytes_puts(t, name));
    for (int i = width_of(name); i < width; i++)
        MB_TRY(mb_bytes_puts(t, " "));
    return MB_OK;
}

/* To the right in `width` columns, cut to one less. */
static mb_status add_heading(mb_bytes *t, const char *name, int width)
{
    const char *end = name;
    int n = 0;

    for (; *end != '\0'; end++)
        if (((unsigned char)*end & 0xc0) != 0x80 && ++n == width)
            break;
    for (int i = n < width ? n : width - 1; i < width; i++)
        MB_TRY(mb_bytes_puts(t, " "));
    return mb_bytes_add(t, name, (size_t)(end - name));
}

static mb_status report_line(mb_bytes *t, const char *name, int width, double precision,
                             double recall, double f1, int64_t rows)
{
    MB_TRY(add_name(t, name, width));
    return mb_bytes_printf(t, "  %9.4f  %9.4f  %9.4f  %9lld\n", precision, recall, f1,
                           (long long)rows);
}

static mb_status report_means(mb_bytes *t, const mb_classes *c, int width)
{
    static const struct {
        const char *name;
        mb_average average;
    } means[] = {{"micro avg", MB_AVERAGE_MICRO},
                 {"macro avg", MB_AVERAGE_MACRO},
                 {"weighted avg", MB_AVERAGE_WEIGHTED}};
    const int64_t rows = sum_of(c->count, c->n).labelled;

    for (int i = 0; i < 3; i++) {
        const mb_average a = means[i].average;
        MB_TRY(report_line(t, means[i].name, width,
                           mb_class_mean(c->count, c->n, a, false, mb_class_precision),
                           mb_class_mean(c->count, c->n, a, false, mb_class_recall),
                           mb_class_mean(c->count, c->n, a, false, mb_class_f1), rows));
    }
    return MB_OK;
}

static mb_status report(mb_bytes *t, const mb_classes *c)
{
    const int width = name_width(c);

    MB_TRY(add_name(t, "class", width));
    MB_TRY(mb_bytes_puts(t, "  precision     recall         f1       rows\n"));
    for (int64_t k = 0; k < c->n; k++)
        MB_TRY(report_line(t, c->name[k], width, mb_class_precision(&c->count[k]),
                           mb_class_recall(&c->count[k]), mb_class_f1(&c->count[k]),
                           c->count[k].labelled));
    return report_means(t, c, width);
}

static mb_status matrix(mb_bytes *t, const mb_classes *c)
{
    const int width = name_width(c);

    MB_REQUIRE(c->confusion != NULL, MB_ENOTSUP,
               "a confusion matrix of %lld classes; at most %d are drawn", (long long)c->n,
               MB_CONFUSION_MAX);
    MB_TRY(add_name(t, "", width));
    for (int64_t j = 0; j < c->n; j++)
        MB_TRY(add_heading(t, c->name[j], 10));
    MB_TRY(mb_bytes_puts(t, "\n"));
    for (int64_t i = 0; i < c->n; i++) {
        MB_TRY(add_name(t, c->name[i], width));
        for (int64_t j = 0; j < c->n; j++)
            MB_TRY(mb_bytes_printf(t, " %9lld", (long long)c->confusion[i * c->n + j]));
        MB_TRY(mb_bytes_puts(t, "\n"));
    }
    return MB_OK;
}

static mb_status as_text(mb_status (*write)(mb_bytes *, const mb_classes *), const mb_classes *c,
                         char **out)
{
    mb_bytes t = {0};
    mb_status st = write(&t, c);

    if (st == MB_OK)
        st = mb_bytes_end(&t);
    if (st == MB_OK)
        st = mb_strdup(t.p, out);
    mb_bytes_release(&t);
    return st;
}

mb_status mb_classes_report(const mb_classes *c, char **out)
{
    return as_text(report, c, out);
}

mb_status mb_classes_matrix(const mb_classes *c, char **out)
{
    return as_text(matrix, c, out);
}
