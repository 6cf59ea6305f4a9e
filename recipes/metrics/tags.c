/* recipes/metrics/tags.c - see tags.h; and the metrics of rows of tags. */
#include "recipes/metrics/tags.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/metrics/metric.h"
#include "recipes/tokenizers/bytes.h"

static bool ends(char before, char now, bool other_type)
{
    if (before == 'E' || before == 'S')
        return true;
    if ((before == 'B' || before == 'I') && (now == 'B' || now == 'S' || now == 'O'))
        return true;
    return before != 'O' && before != '.' && other_type;
}

static bool begins(char before, char now, bool other_type)
{
    if (now == 'B' || now == 'S')
        return true;
    if ((before == 'E' || before == 'S' || before == 'O') && (now == 'E' || now == 'I'))
        return true;
    return now != 'O' && now != '.' && other_type;
}

/* The part after the first letter and a hyphen; "_" where there is none. */
static mb_status type_of(mb_vocab *types, const char *tag, int32_t *type)
{
    const char *name = tag[0] != '\0' ? tag + 1 : tag;
    const char *hyphen = strchr(name, '-');
    bool added;

    name = hyphen != NULL ? hyphen + 1 : name;
    name = *name != '\0' ? name : "_";
    *type = mb_vocab_find(types, name, strlen(name));
    if (*type >= 0)
        return MB_OK;
    *type = (int32_t)mb_vocab_count(types);
    return mb_vocab_add(types, name, strlen(name), *type, &added);
}

mb_status mb_entities_of(const mb_answers *rows, const int32_t *tag, int64_t n, mb_vocab *types,
                         mb_entity *entity, int64_t *n_entities)
{
    char before = 'O';
    int32_t type_before = -1;
    int64_t first = 0;

    *n_entities = 0;
    for (int64_t i = 0; i <= n; i++) {
        const char *t = i < n ? mb_answers_text(rows, tag[i]) : "O";
        int32_t type;
        MB_TRY(type_of(types, t, &type));
        const bool other = type != type_before;
        if (ends(before, t[0], other))
            entity[(*n_entities)++] = (mb_entity){type_before, first, i - 1};
        if (begins(before, t[0], other))
            first = i;
        before = t[0];
        type_before = type;
    }
    return MB_OK;
}

struct counting {
    mb_vocab *types;
    mb_class_count *count; /* by type */
    size_t capacity;
    mb_entity *said, *right; /* of a row */
};

static bool same(const mb_entity *a, const mb_entity *b)
{
    return a->type == b->type && a->first == b->first && a->last == b->last;
}

/* Entities come in the order of their ends. */
static mb_status count_row(const mb_answers *r, const mb_answer_row *row, struct counting *c)
{
    int64_t said, right, j = 0;

    MB_TRY(mb_entities_of(r, r->id + row->said.first, row->said.n, c->types, c->said, &said));
    MB_TRY(mb_entities_of(r, r->id + row->right.first, row->right.n, c->types, c->right, &right));
    MB_TRY(mb_grow((void **)&c->count, &c->capacity, mb_vocab_count(c->types), sizeof *c->count,
                   "types"));
    for (int64_t i = 0; i < right; i++)
        c->count[c->right[i].type].labelled++;
    for (int64_t i = 0; i < said; i++) {
        c->count[c->said[i].type].predicted++;
        while (j < right && c->right[j].last < c->said[i].last)
            j++;
        if (j < right && same(&c->right[j], &c->said[i]))
            c->count[c->said[i].type].right++;
    }
    return MB_OK;
}

static mb_status count_all(const mb_answers *r, struct counting *c)
{
    int64_t longest = 0;

    for (int64_t i = 0; i < r->n; i++) {
        longest = r->row[i].said.n > longest ? r->row[i].said.n : longest;
        longest = r->row[i].right.n > longest ? r->row[i].right.n : longest;
    }
    MB_TRY(mb_vocab_new(16, &c->types));
    MB_TRY(MB_NEW_ARRAY(&c->said, longest + 1));
    MB_TRY(MB_NEW_ARRAY(&c->right, longest + 1));
    for (int64_t i = 0; i < r->n; i++)
        MB_TRY(count_row(r, &r->row[i], c));
    return MB_OK;
}

static const char *type_name(const mb_vocab *types, int64_t i)
{
    size_t n;
    int32_t id;

    return mb_vocab_at(types, (size_t)i, &n, &id);
}

static int by_name(const void *a, const void *b, void *types)
{
    return strcmp(type_name(types, *(const int64_t *)a), type_name(types, *(const int64_t *)b));
}

/* Types that have an entity on either side, by name. */
static mb_status list_types(const struct counting *c, int64_t *order, mb_classes *out)
{
    const int64_t n = (int64_t)mb_vocab_count(c->types);

    MB_TRY(MB_NEW_ARRAY(&out->name, n));
    MB_TRY(MB_NEW_ARRAY(&out->count, n));
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, (size_t)n, sizeof *order, by_name, c->types);
    for (int64_t i = 0; i < n; i++) {
        const mb_class_count *count = &c->count[order[i]];
        if (count->labelled + count->predicted == 0)
            continue;
        out->count[out->n] = *count;
        MB_TRY(mb_strdup(type_name(c->types, order[i]), &out->name[out->n++]));
    }
    return MB_OK;
}

mb_status mb_tags_of(const mb_answers *rows, mb_classes **out)
{
    struct counting c = {0};
    int64_t *order = NULL;
    mb_classes *k = NULL;
    mb_status st = MB_OK;

    MB_TRY_GOTO(count_all(rows, &c), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&order, mb_vocab_count(c.types)), st, done);
    MB_TRY_GOTO(MB_NEW(&k), st, done);
    MB_TRY_GOTO(list_types(&c, order, k), st, done);
    *out = k;
    k = NULL;
done:
    mb_classes_free(k);
    mb_free(order);
    mb_free(c.said);
    mb_free(c.right);
    mb_free(c.count);
    mb_vocab_free(c.types);
    return st;
}

MB_CLASS_METRIC(mb_metric_tags_f1, mb_tags_of, "f1", MB_AVERAGE_MICRO, mb_class_f1)
MB_CLASS_METRIC(mb_metric_tags_precision, mb_tags_of, "precision", MB_AVERAGE_MICRO,
                mb_class_precision)
MB_CLASS_METRIC(mb_metric_tags_recall, mb_tags_of, "recall", MB_AVERAGE_MICRO, mb_class_recall)
MB_CLASS_METRIC(mb_metric_tags_f1_macro, mb_tags_of, "f1_macro", MB_AVERAGE_MACRO, mb_class_f1)
MB_CLASS_METRIC(mb_metric_tags_f1_weighted, mb_tags_of, "f1_weighted", MB_AVERAGE_WEIGHTED,
                mb_class_f1)

mb_status mb_metric_tags_accuracy(const mb_answers *rows, const mb_metric_options *o,
                                  mb_scores *out)
{
    double right = 0.0, all = 0.0;

    for (int64_t i = 0; i < rows->n; i++) {
        const mb_answer_row *row = &rows->row[i];
        for (int64_t k = 0; k < row->said.n; k++)
            right += rows->id[row->said.first + k] == rows->id[row->right.first + k];
        all += (double)row->said.n;
    }
    mb_scores_add(out, "accuracy", all > 0 ? right / all : 0.0);
    return MB_OK;
}
