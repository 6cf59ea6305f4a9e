/* recipes/metrics/report.c - see report.h. */
#include "recipes/metrics/report.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/metrics/tags.h"

/* Rows and the metrics to compute of them. */
struct asked {
    mb_metric_reads reads;
    const char *const *metric;
    int n;
    const mb_metric_options *o;
};

static bool has_shares(const mb_answers *r)
{
    for (int64_t i = 0; i < r->n; i++)
        if (r->row[i].n == 0)
            return false;
    return true;
}

/* Without a list: what can be said of these rows without knowing more. */
static bool is_asked(const struct asked *a, const mb_metric *m, const mb_answers *rows, int classes)
{
    if (m->reads != a->reads)
        return false;
    for (int i = 0; i < a->n; i++)
        if (strcmp(a->metric[i], m->name) == 0 || strcmp(a->metric[i], m->eval_name) == 0)
            return true;
    if (a->n > 0 || (strcmp(m->name, "f1_binary") == 0 && classes > 2))
        return false;
    return strcmp(m->name, "roc_auc") != 0 || has_shares(rows);
}

static mb_status add_details(const mb_scores *s, mb_json to)
{
    mb_json details = mb_json_get(to, "details"), own;

    if (s->n == 1)
        return MB_OK;
    if (!mb_json_is_set(details))
        MB_TRY(mb_json_set_object(to, "details", &details));
    MB_TRY(mb_json_set_object(details, s->at[0].name, &own));
    for (int k = 1; k < s->n; k++)
        MB_TRY(s->at[k].count ? mb_json_set_int(own, s->at[k].name, (int64_t)s->at[k].value)
                              : mb_json_set_real(own, s->at[k].name, s->at[k].value));
    return MB_OK;
}

static mb_status add_metrics(const mb_answers *rows, const struct asked *a, int classes, mb_json to)
{
    MB_TRY(mb_json_set_int(to, "rows", rows->n));
    for (int i = 0; i < mb_n_metrics; i++) {
        const mb_metric *m = &mb_metric_table[i];
        mb_scores s;
        if (!is_asked(a, m, rows, classes))
            continue;
        MB_TRY(mb_metric_compute(m, rows, a->o, &s));
        MB_TRY(mb_json_set_real(to, m->name, s.at[0].value));
        MB_TRY(add_details(&s, to));
    }
    return MB_OK;
}

static mb_status add_classes(const mb_classes *c, mb_json to)
{
    mb_json list, matrix;

    MB_TRY(mb_json_set_object(to, "classes", &list));
    for (int64_t k = 0; k < c->n; k++) {
        mb_json one;
        MB_TRY(mb_json_set_object(list, c->name[k], &one));
        MB_TRY(mb_json_set_real(one, "precision", mb_class_precision(&c->count[k])));
        MB_TRY(mb_json_set_real(one, "recall", mb_class_recall(&c->count[k])));
        MB_TRY(mb_json_set_real(one, "f1", mb_class_f1(&c->count[k])));
        MB_TRY(mb_json_set_int(one, "rows", c->count[k].labelled));
    }
    if (c->confusion == NULL)
        return MB_OK;
    MB_TRY(mb_json_set_array(to, "confusion_matrix", &matrix));
    for (int64_t i = 0; i < c->n; i++) {
        mb_json row;
        MB_TRY(mb_json_set_array(matrix, NULL, &row));
        for (int64_t j = 0; j < c->n; j++)
            MB_TRY(mb_json_set_int(row, NULL, c->confusion[i * c->n + j]));
    }
    return MB_OK;
}

static mb_status add_groups(const mb_answers *rows, const struct asked *a, int classes, mb_json to)
{
    int32_t *group;
    int n;
    mb_json all;
    mb_status st = MB_OK;

    MB_TRY(mb_answers_groups(rows, &group, &n));
    if (n > 0)
        MB_TRY_GOTO(mb_json_set_object(to, "groups", &all), st, done);
    for (int g = 0; g < n; g++) {
        mb_answers *some;
        mb_json own;
        MB_TRY_GOTO(mb_json_set_object(all, mb_answers_text(rows, group[g]), &own), st, done);
        MB_TRY_GOTO(mb_answers_of_group(rows, group[g], &some), st, done);
        st = add_metrics(some, a, classes, own);
        mb_answers_free(some);
        MB_TRY_GOTO(st, st, done);
        mb_json_remove(own, "details");
    }
done:
    mb_free(group);
    return st;
}

/* The classes of rows that have some; NULL for others. */
static mb_status classes_of(const mb_answers *rows, mb_metric_reads reads, mb_classes **out)
{
    *out = NULL;
    if (reads == MB_READS_CLASS)
        return mb_classes_of(rows, out);
    return reads == MB_READS_TAGS ? mb_tags_of(rows, out) : MB_OK;
}

mb_status mb_score_json(const mb_answers *rows, const char *const *metric, int n,
                        const mb_metric_options *o, mb_json object)
{
    struct asked a = {.metric = metric, .n = n, .o = o};
    mb_classes *c;
    mb_status st;

    MB_TRY(mb_metric_kind(rows, metric, n, &a.reads));
    MB_TRY(classes_of(rows, a.reads, &c));
    const int classes = c != NULL ? (int)c->n : 0;
    MB_TRY_GOTO(add_metrics(rows, &a, classes, object), st, done);
    if (c != NULL)
        MB_TRY_GOTO(add_classes(c, object), st, done);
    st = add_groups(rows, &a, classes, object);
done:
    mb_classes_free(c);
    return st;
}

/* ---- as text ------------------------------------------------------------------------------ */

static bool is_value(const mb_json_it *it)
{
    return mb_json_is_number(it->value) || mb_json_is(it->value, MB_JSON_NULL);
}

static mb_status add_number(mb_bytes *t, mb_json v)
{
    double x = (double)NAN;

    if (mb_json_is(v, MB_JSON_INT)) {
        int64_t i;
        MB_TRY(mb_json_int(v, &i));
        return mb_bytes_printf(t, " %12lld", (long long)i);
    }
    if (mb_json_is_number(v))
        MB_TRY(mb_json_real(v, &x));
    return mb_bytes_printf(t, " %12.4f", x);
}

static mb_status add_values(mb_bytes *t, mb_json object)
{
    for (mb_json_it it = mb_json_first(object); mb_json_more(&it); mb_json_next(&it)) {
        if (!is_value(&it))
            continue;
        MB_TRY(mb_bytes_puts(t, it.key));
        for (size_t i = strlen(it.key); i < 24; i++)
            MB_TRY(mb_bytes_puts(t, " "));
        MB_TRY(add_number(t, it.value));
        MB_TRY(mb_bytes_puts(t, "\n"));
    }
    return MB_OK;
}

/* A line per group, a column per metric. */
static mb_status add_group_table(mb_bytes *t, mb_json groups)
{
    mb_json_it line = mb_json_first(groups);

    if (!mb_json_more(&line))
        return MB_OK;
    MB_TRY(mb_bytes_puts(t, "\n"));
    for (mb_json_it it = mb_json_first(line.value); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(mb_bytes_printf(t, " %12.12s", it.key));
    MB_TRY(mb_bytes_puts(t, "  group\n"));
    for (; mb_json_more(&line); mb_json_next(&line)) {
        for (mb_json_it it = mb_json_first(line.value); mb_json_more(&it); mb_json_next(&it))
            MB_TRY(add_number(t, it.value));
        MB_TRY(mb_bytes_puts(t, "  "));
        MB_TRY(mb_bytes_puts(t, line.key));
        MB_TRY(mb_bytes_puts(t, "\n"));
    }
    return MB_OK;
}

static mb_status add_class_tables(mb_bytes *t, const mb_answers *rows, mb_json object)
{
    const mb_metric_reads reads =
        mb_json_is_set(mb_json_get(object, "confusion_matrix")) ? MB_READS_CLASS : MB_READS_TAGS;
    mb_classes *c;
    char *table = NULL, *matrix = NULL;
    mb_status st = MB_OK;

    if (!mb_json_is_set(mb_json_get(object, "classes")))
        return MB_OK;
    MB_TRY(classes_of(rows, reads, &c));
    MB_TRY_GOTO(mb_classes_report(c, &table), st, done);
    MB_TRY_GOTO(mb_bytes_puts(t, "\n"), st, done);
    MB_TRY_GOTO(mb_bytes_puts(t, table), st, done);
    if (c->confusion == NULL)
        goto done;
    MB_TRY_GOTO(mb_classes_matrix(c, &matrix), st, done);
    MB_TRY_GOTO(mb_bytes_puts(t, "\nlabels down, predictions across\n"), st, done);
    MB_TRY_GOTO(mb_bytes_puts(t, matrix), st, done);
done:
    mb_free(matrix);
    mb_free(table);
    mb_classes_free(c);
    return st;
}

mb_status mb_score_text(const mb_answers *rows, const char *const *metric, int n,
                        const mb_metric_options *o, char **out)
{
    mb_json_doc *doc = NULL;
    mb_bytes t = {0};
    mb_status st = MB_OK;

    MB_TRY(mb_json_doc_new("scores", &doc));
    const mb_json root = mb_json_root(doc);
    MB_TRY_GOTO(mb_score_json(rows, metric, n, o, root), st, done);
    MB_TRY_GOTO(add_values(&t, root), st, done);
    MB_TRY_GOTO(add_class_tables(&t, rows, root), st, done);
    MB_TRY_GOTO(add_group_table(&t, mb_json_get(root, "groups")), st, done);
    MB_TRY_GOTO(mb_bytes_end(&t), st, done);
    st = mb_strdup(t.p, out);
done:
    mb_bytes_release(&t);
    mb_json_free(doc);
    return st;
}
