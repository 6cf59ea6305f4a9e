/* recipes/metrics/metric.c - the table, and which metrics rows are for. */
#include "recipes/metrics/metric.h"

#include <stdio.h>
#include <string.h>

#define GREATER true
#define LESS    false
const mb_metric mb_metric_table[] = {
#define MB_METRIC(metric, kind, better, fn, text) \
    {.name = (metric),                            \
     .eval_name = "eval_" metric,                 \
     .reads = MB_READS_##kind,                    \
     .greater_is_better = (better),               \
     .run = (fn),                                 \
     .help = (text)},
#include "recipes/metrics/metrics.def"
};
const int mb_n_metrics = sizeof mb_metric_table / sizeof *mb_metric_table;

/* What rows must hold, and how it is called. */
static const struct {
    const char *name;
    mb_value_kind said[2], right[2];
} kinds[] = {
    [MB_READS_NOTHING] = {"nothing", {0}, {0}},
    [MB_READS_CLASS] = {"a class and a label",
                        {MB_VALUE_NUMBER, MB_VALUE_TEXT},
                        {MB_VALUE_NUMBER, MB_VALUE_TEXT}},
    [MB_READS_SETS] = {"lists of classes",
                       {MB_VALUE_NUMBERS, MB_VALUE_TEXTS},
                       {MB_VALUE_NUMBERS, MB_VALUE_TEXTS}},
    [MB_READS_NUMBER] = {"two numbers", {MB_VALUE_NUMBER}, {MB_VALUE_NUMBER}},
    [MB_READS_TAGS] = {"two lists of tags of one length", {MB_VALUE_TEXTS}, {MB_VALUE_TEXTS}},
    [MB_READS_TEXT] = {"a text and its references",
                       {MB_VALUE_TEXT},
                       {MB_VALUE_TEXT, MB_VALUE_TEXTS}},
    [MB_READS_RANK] = {"scores and the number of the right one", {0}, {MB_VALUE_NUMBER}},
};

const char *mb_metric_reads_name(mb_metric_reads reads)
{
    return kinds[reads].name;
}

void mb_scores_add(mb_scores *s, const char *name, double value)
{
    if (s->n == MB_SCORES_MAX)
        MB_BUG("a metric with more than %d values", MB_SCORES_MAX);
    s->at[s->n].name = name;
    s->at[s->n++].value = value;
}

void mb_scores_count(mb_scores *s, const char *name, int64_t n)
{
    mb_scores_add(s, name, (double)n);
    s->at[s->n - 1].count = true;
}

static bool is_named(const mb_metric *m, const char *name)
{
    return strcmp(m->name, name) == 0 || strcmp(m->eval_name, name) == 0;
}

const mb_metric *mb_metric_find(const char *name, mb_metric_reads reads)
{
    for (int i = 0; i < mb_n_metrics; i++)
        if (mb_metric_table[i].reads == reads && is_named(&mb_metric_table[i], name))
            return &mb_metric_table[i];
    return NULL;
}

static bool allowed(const mb_value *v, const mb_value_kind *kind)
{
    return v->kind == kind[0] || (kind[1] != MB_VALUE_NONE && v->kind == kind[1]);
}

/* B, I, E or S, a hyphen and a type, or O: what tells rows of tags from rows of several classes. */
static bool tags_entities(const mb_answers *rows, const mb_answer_row *r)
{
    for (int64_t i = 0; i < r->right.n; i++) {
        const char *tag = mb_answers_text(rows, rows->id[r->right.first + i]);
        if (strcmp(tag, "O") != 0 &&
            (tag[0] == '\0' || strchr("BIES", tag[0]) == NULL || tag[1] != '-'))
            return false;
    }
    return true;
}

static bool whole(const mb_value *v)
{
    return (v->kind != MB_VALUE_NUMBER && v->kind != MB_VALUE_NUMBERS) || v->whole;
}

/* An empty list has no type of its own. */
static bool same_type(const mb_value *a, const mb_value *b)
{
    const bool lists = a->kind >= MB_VALUE_NUMBERS && b->kind >= MB_VALUE_NUMBERS;

    return a->kind == b->kind || (lists && (a->n == 0 || b->n == 0));
}

static bool has_twice(const mb_answers *rows, const mb_value *v)
{
    for (int64_t i = 1; v->kind == MB_VALUE_TEXTS && i < v->n; i++)
        for (int64_t k = 0; k < i; k++)
            if (rows->id[v->first + i] == rows->id[v->first + k])
                return true;
    return false;
}

/* Lists that cannot be sets: a class twice, or a tag for each of the row's tokens. */
static bool is_sequence(const mb_answers *rows, const mb_answer_row *r)
{
    return r->per_token || has_twice(rows, &r->right) || has_twice(rows, &r->said);
}

static bool row_fits(const mb_answers *rows, const mb_answer_row *r, mb_metric_reads reads)
{
    if (!allowed(&r->said, kinds[reads].said) || !allowed(&r->right, kinds[reads].right))
        return false;
    switch (reads) {
    case MB_READS_SETS:
        if (is_sequence(rows, r))
            return false;
        return same_type(&r->said, &r->right) && whole(&r->said) && whole(&r->right);
    case MB_READS_CLASS:
        return same_type(&r->said, &r->right) && whole(&r->said) && whole(&r->right);
    case MB_READS_TAGS:
        return r->said.n == r->right.n;
    case MB_READS_RANK:
        return r->ranked && r->right.whole && r->right.number >= 0 &&
               r->right.number < (double)r->n;
    case MB_READS_TEXT:
        return r->right.n > 0;
    default:
        return true;
    }
}

mb_status mb_metric_fits(const mb_answers *rows, mb_metric_reads reads)
{
    for (int64_t i = 0; i < rows->n; i++)
        MB_REQUIRE(row_fits(rows, &rows->row[i], reads), MB_EDATA,
                   "predictions: row %lld does not hold %s", (long long)rows->row[i].row,
                   kinds[reads].name);
    return MB_OK;
}

static bool all_fit(const mb_answers *rows, mb_metric_reads reads)
{
    for (int64_t i = 0; i < rows->n; i++)
        if (!row_fits(rows, &rows->row[i], reads))
            return false;
    return true;
}

/* `sure`: tags that are of no entities, such as parts of speech, might as well be sets of classes, if
 * they can be such. */
static bool fits(const mb_answers *rows, mb_metric_reads reads, bool sure)
{
    bool entities = true;

    if (!all_fit(rows, reads))
        return false;
    for (int64_t i = 0; sure && reads == MB_READS_TAGS && entities && i < rows->n; i++)
        entities = tags_entities(rows, &rows->row[i]);
    return entities || !all_fit(rows, MB_READS_SETS);
}

/* Does an earlier line have this name, among those asked for? */
static bool named_before(int i, mb_metric_reads reads)
{
    for (int k = 0; k < i; k++)
        if ((reads == MB_READS_NOTHING || mb_metric_table[k].reads == reads) &&
            strcmp(mb_metric_table[k].name, mb_metric_table[i].name) == 0)
            return true;
    return false;
}

const char *mb_metric_names(mb_metric_reads reads, char *text, size_t size)
{
    size_t n = 0;

    text[0] = '\0';
    for (int i = 0; i < mb_n_metrics; i++) {
        const mb_metric *m = &mb_metric_table[i];
        if ((reads == MB_READS_NOTHING || m->reads == reads) && !named_before(i, reads) && n < size)
            n += (size_t)snprintf(text + n, size - n, "%s%s", n > 0 ? ", " : "", m->name);
    }
    return text;
}

static bool known(const char *name)
{
    for (int i = 0; i < mb_n_metrics; i++)
        if (is_named(&mb_metric_table[i], name))
            return true;
    return false;
}

static bool all_known(const char *const *name, int64_t n, mb_metric_reads reads)
{
    for (int64_t i = 0; i < n; i++)
        if (mb_metric_find(name[i], reads) == NULL)
            return false;
    return true;
}

mb_status mb_metric_kind(const mb_answers *rows, const char *const *name, int64_t n,
                         mb_metric_reads *out)
{
    /* what is more particular comes first */
    static const mb_metric_reads order[] = {MB_READS_TAGS,  MB_READS_SETS,   MB_READS_RANK,
                                            MB_READS_CLASS, MB_READS_NUMBER, MB_READS_TEXT};
    enum { ORDERS = sizeof order / sizeof *order };
    char names[512];
    bool some = false;

    for (int64_t i = 0; i < n; i++)
        MB_REQUIRE(known(name[i]), MB_EARG, "there is no metric \"%s\"; there are %s", name[i],
                   mb_metric_names(MB_READS_NOTHING, names, sizeof names));
    for (int k = 0; k < 2 * ORDERS; k++) {
        const mb_metric_reads reads = order[k % ORDERS];
        const bool all = all_known(name, n, reads);
        some = some || all;
        if (all && fits(rows, reads, k < ORDERS)) {
            *out = reads;
            return MB_OK;
        }
    }
    MB_REQUIRE(some, MB_EARG, "no rows can be read by all of these metrics: %s%s%s ...", name[0],
               n > 1 ? ", " : "", n > 1 ? name[1] : "");
    for (int k = 0; k < ORDERS; k++) /* the sentence of the likeliest */
        if (n > 0 && all_known(name, n, order[k]))
            return mb_metric_fits(rows, order[k]);
    return MB_RAISE(MB_EDATA, "predictions: rows of several kinds, or of none that a metric reads");
}

mb_status mb_metric_compute(const mb_metric *m, const mb_answers *rows, const mb_metric_options *o,
                            mb_scores *out)
{
    static const mb_metric_options defaults = {0};

    MB_TRY(mb_metric_fits(rows, m->reads));
    MB_REQUIRE(rows->n > 0, MB_EDATA, "%s of no rows", m->name);
    memset(out, 0, sizeof *out);
    return m->run(rows, o != NULL ? o : &defaults, out);
}
