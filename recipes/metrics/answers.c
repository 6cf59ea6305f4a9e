/* recipes/metrics/answers.c - see answers.h. Strings are ids of one map, lists are stretches of common
 * arrays; so a row is a few numbers, and classes are told apart by comparing ids. */
#include "recipes/metrics/answers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/data/rowfile.h"
#include "recipes/tokenizers/bytes.h"

struct mb_answers_store {
    mb_answers rows; /* what callers hold */
    bool borrowed;
    mb_answer_row *row;
    size_t row_capacity;
    mb_vocab *text;
    int32_t *id;
    double *number;
    struct {
        double *share;
        int32_t *id;
        size_t share_capacity, id_capacity;
    } p;
    size_t n_ids, id_capacity, n_numbers, number_capacity, n_shares;
};

static struct mb_answers_store *store_of(mb_answers *r)
{
    return (struct mb_answers_store *)(uintptr_t)r->store;
}

mb_status mb_answers_new(mb_answers **out)
{
    struct mb_answers_store *s;
    mb_status st;

    MB_TRY(MB_NEW(&s));
    st = mb_vocab_new(1024, &s->text);
    if (st != MB_OK) {
        mb_free(s);
        return st;
    }
    s->rows.store = s;
    *out = &s->rows;
    return MB_OK;
}

void mb_answers_free(mb_answers *r)
{
    struct mb_answers_store *s;

    if (r == NULL)
        return;
    s = store_of(r);
    mb_free(s->row);
    if (!s->borrowed) {
        mb_vocab_free(s->text);
        mb_free(s->id);
        mb_free(s->number);
        mb_free(s->p.share);
        mb_free(s->p.id);
    }
    mb_free(s);
}

const char *mb_answers_text(const mb_answers *r, int32_t id)
{
    size_t n;
    int32_t same;

    return mb_vocab_at(r->store->text, (size_t)id, &n, &same);
}

int32_t mb_answers_n_texts(const mb_answers *r)
{
    return (int32_t)mb_vocab_count(r->store->text);
}

static mb_status id_of(struct mb_answers_store *s, const char *text, size_t n, int32_t *id)
{
    bool added;

    *id = mb_vocab_find(s->text, text, n);
    if (*id >= 0)
        return MB_OK;
    MB_REQUIRE(mb_vocab_count(s->text) < INT32_MAX, MB_ENOTSUP,
               "predictions: more than %d different strings", INT32_MAX);
    *id = (int32_t)mb_vocab_count(s->text);
    return mb_vocab_add(s->text, text, n, *id, &added);
}

static mb_status add_text(struct mb_answers_store *s, mb_json v)
{
    const char *text;
    size_t n;
    int32_t id;

    MB_TRY(mb_json_string(v, &text, &n));
    MB_TRY(id_of(s, text, n, &id));
    MB_TRY(mb_grow((void **)&s->id, &s->id_capacity, s->n_ids + 1, sizeof *s->id, "strings"));
    s->id[s->n_ids++] = id;
    return MB_OK;
}

static mb_status add_number(struct mb_answers_store *s, mb_json v, bool *whole)
{
    double x;

    MB_TRY(mb_json_real(v, &x));
    *whole = *whole && x == floor(x) && fabs(x) < 0x1p31;
    MB_TRY(mb_grow((void **)&s->number, &s->number_capacity, s->n_numbers + 1, sizeof *s->number,
                   "numbers"));
    s->number[s->n_numbers++] = x;
    return MB_OK;
}

static mb_status read_list(struct mb_answers_store *s, mb_json list, mb_value *v)
{
    const bool numbers = mb_json_is_number(mb_json_at(list, 0));

    v->kind = numbers ? MB_VALUE_NUMBERS : MB_VALUE_TEXTS;
    v->n = (int64_t)mb_json_count(list);
    v->first = (int64_t)(numbers ? s->n_numbers : s->n_ids);
    v->whole = true;
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(numbers ? add_number(s, it.value, &v->whole) : add_text(s, it.value));
    return MB_OK;
}

static mb_status read_value(struct mb_answers_store *s, mb_json j, mb_value *v)
{
    switch (mb_json_kind(j)) {
    case MB_JSON_INT:
    case MB_JSON_REAL:
        v->kind = MB_VALUE_NUMBER;
        MB_TRY(mb_json_real(j, &v->number));
        v->whole = v->number == floor(v->number) && fabs(v->number) < 0x1p31;
        return MB_OK;
    case MB_JSON_STRING:
        v->kind = MB_VALUE_TEXT;
        v->first = (int64_t)s->n_ids;
        v->n = 1;
        return add_text(s, j);
    case MB_JSON_ARRAY:
        return read_list(s, j, v);
    case MB_JSON_NULL: /* as JSON writes what is not finite */
        v->kind = MB_VALUE_NUMBER;
        v->number = (double)NAN;
        return MB_OK;
    default:
        return mb_json_fault(j, "must be a string, a number or a list of these");
    }
}

static mb_status add_share(struct mb_answers_store *s, double x, int32_t id)
{
    const size_t need = s->n_shares + 1;

    MB_TRY(mb_grow((void **)&s->p.share, &s->p.share_capacity, need, sizeof *s->p.share, "shares"));
    MB_TRY(mb_grow((void **)&s->p.id, &s->p.id_capacity, need, sizeof *s->p.id, "shares"));
    s->p.share[s->n_shares] = x;
    s->p.id[s->n_shares++] = id;
    return MB_OK;
}

static mb_status read_shares(struct mb_answers_store *s, mb_json j, mb_answer_row *row)
{
    row->first = (int64_t)s->n_shares;
    row->n = (int64_t)mb_json_count(j);
    if (!mb_json_is(j, MB_JSON_ARRAY) && !mb_json_is(j, MB_JSON_OBJECT))
        return mb_json_fault(j, "must be a list of numbers, or an object of names and numbers");
    for (mb_json_it it = mb_json_first(j); mb_json_more(&it); mb_json_next(&it)) {
        double x = (double)NAN; /* null, too */
        int32_t id = -1;
        if (!mb_json_is(it.value, MB_JSON_NULL))
            MB_TRY(mb_json_real(it.value, &x));
        if (it.key != NULL)
            MB_TRY(id_of(s, it.key, strlen(it.key), &id));
        MB_TRY(add_share(s, x, id));
    }
    return MB_OK;
}

/* The first of the fields that is there. */
static mb_json any_of(mb_json object, const char *const *name)
{
    for (; name[1] != NULL; name++)
        if (!mb_json_is(mb_json_get(object, *name), MB_JSON_ABSENT))
            break;
    return mb_json_get(object, *name);
}

static mb_status read_row(struct mb_answers_store *s, mb_json object, mb_answer_row *row)
{
    static const char *const said[] = {"prediction", "predictions", "completion", NULL};
    static const char *const right[] = {"reference", "references", "label", "labels", NULL};
    const mb_json answer = any_of(object, said), scores = mb_json_get(object, "scores");
    const mb_json truth = any_of(object, right), p = mb_json_get(object, "probabilities");
    const mb_json group = mb_json_get(object, "group");

    if (!mb_json_is(object, MB_JSON_OBJECT))
        return mb_json_fault(object, "must be an object");
    if (mb_json_is(answer, MB_JSON_ABSENT) && !mb_json_is_set(scores))
        return mb_json_fault(object, "has no \"prediction\"");
    if (!mb_json_is_set(truth))
        return mb_json_fault(object, "has neither \"label\" nor \"reference\"");
    MB_TRY(mb_json_get_int(object, "row", s->rows.n, &row->row));
    if (!mb_json_is(answer, MB_JSON_ABSENT))
        MB_TRY(read_value(s, answer, &row->said));
    MB_TRY(read_value(s, truth, &row->right));
    row->per_token = mb_json_is(mb_json_get(object, "tokens"), MB_JSON_ARRAY) &&
                     (int64_t)mb_json_count(mb_json_get(object, "tokens")) == row->said.n &&
                     row->said.n == row->right.n;
    row->ranked = mb_json_is_set(scores);
    if (row->ranked || mb_json_is_set(p))
        MB_TRY(read_shares(s, row->ranked ? scores : p, row));
    row->group = -1;
    if (mb_json_is_set(group)) {
        const char *name;
        size_t n;
        MB_TRY(mb_json_string(group, &name, &n));
        MB_TRY(id_of(s, name, n, &row->group));
    }
    return MB_OK;
}

mb_status mb_answers_add(mb_answers *r, mb_json object)
{
    struct mb_answers_store *s = store_of(r);
    mb_answer_row row = {0};

    MB_TRY(read_row(s, object, &row));
    MB_TRY(mb_grow((void **)&s->row, &s->row_capacity, (size_t)r->n + 1, sizeof *s->row, "rows"));
    s->row[r->n++] = row;
    r->row = s->row;
    r->id = s->id;
    r->number = s->number;
    r->share = s->p.share;
    r->share_id = s->p.id;
    return MB_OK;
}

static mb_status read_all(mb_rowfile *f, const char *path, mb_answers *r)
{
    mb_row_text line;
    bool more;

    for (;;) {
        mb_json_doc *doc;
        mb_status st;
        MB_TRY(mb_rowfile_next(f, &line, &more));
        if (!more)
            break;
        MB_TRY(mb_json_parse(line.text, line.n, path, line.line - 1, MB_EDATA, &doc));
        st = mb_answers_add(r, mb_json_root(doc));
        mb_json_free(doc);
        if (st != MB_OK)
            return mb_status_prefix(st, "line %lld of ", (long long)line.line);
    }
    MB_REQUIRE(r->n > 0, MB_EDATA, "%s: no predictions in it", path);
    return MB_OK;
}

mb_status mb_answers_read(const char *path, mb_answers **out)
{
    mb_rowfile *f = NULL;
    mb_answers *r = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_rowfile_open(path, MB_ROWFILE_JSONL, MB_TEXT_LINE, &f));
    MB_TRY_GOTO(mb_answers_new(&r), st, done);
    MB_TRY_GOTO(read_all(f, path, r), st, done);
    *out = r;
    r = NULL;
done:
    mb_answers_free(r);
    mb_rowfile_close(f);
    return st;
}

mb_status mb_answers_of_group(const mb_answers *r, int32_t group, mb_answers **out)
{
    struct mb_answers_store *s;
    int64_t n = 0;
    mb_status st;

    MB_TRY(MB_NEW(&s));
    *s = *r->store;
    s->borrowed = true;
    s->rows = *r;
    s->rows.store = s;
    st = MB_NEW_ARRAY(&s->row, r->n);
    if (st != MB_OK) {
        mb_free(s);
        return st;
    }
    for (int64_t i = 0; i < r->n; i++)
        if (r->row[i].group == group)
            s->row[n++] = r->row[i];
    s->rows.row = s->row;
    s->rows.n = n;
    *out = &s->rows;
    return MB_OK;
}

static int by_name(const void *a, const void *b, void *rows)
{
    return strcmp(mb_answers_text(rows, *(const int32_t *)a),
                  mb_answers_text(rows, *(const int32_t *)b));
}

mb_status mb_answers_groups(const mb_answers *r, int32_t **out, int *n)
{
    int32_t *id;
    bool *seen;

    MB_TRY(MB_NEW_ARRAY(&id, mb_answers_n_texts(r)));
    mb_status st = MB_NEW_ARRAY(&seen, mb_answers_n_texts(r));
    if (st != MB_OK) {
        mb_free(id);
        return st;
    }
    *n = 0;
    for (int64_t i = 0; i < r->n; i++) {
        const int32_t g = r->row[i].group;
        if (g >= 0 && !seen[g]) {
            seen[g] = true;
            id[(*n)++] = g;
        }
    }
    mb_free(seen);
    qsort_r(id, (size_t)*n, sizeof *id, by_name, (void *)(uintptr_t)r);
    *out = id;
    return MB_OK;
}
