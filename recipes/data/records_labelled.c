/* recipes/data/records_labelled.c - rows that carry what a task learns: classes, numbers, tags of words,
 * answers, sentences that belong together.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "recipes/data/records_inside.h"

enum { MAX_LABEL = 1000000, MAX_LIST = 1 << 20 };

/* Room for the entries of a list, or for one value. */
static mb_status reserve(mb_record *rec, size_t n, size_t size, void **out)
{
    MB_REQUIRE(n <= MAX_LIST, MB_EDATA, "a list has %zu entries, at most %d can be read", n,
               MAX_LIST);
    return mb_record_take(rec, (n + 1) * size, out);
}

/* ---- classes and numbers ------------------------------------------------------------------- */

static mb_status label_of_text(const char *text, mb_label *out)
{
    MB_REQUIRE(text[0] != '\0', MB_EDATA, "the label is empty");
    if (!mb_text_is_integer(text, &out->id))
        out->name = text;
    return MB_OK;
}

static mb_status label_of_json(mb_json v, mb_label *out)
{
    bool truth;

    if (mb_json_is(v, MB_JSON_STRING)) {
        MB_TRY(mb_json_string(v, &out->name, NULL));
        MB_REQUIRE(out->name[0] != '\0', MB_EDATA, "the label is empty");
        return MB_OK;
    }
    if (!mb_json_is(v, MB_JSON_BOOL))
        return mb_json_int(v, &out->id);
    MB_TRY(mb_json_bool(v, &truth));
    out->id = truth;
    return MB_OK;
}

static mb_status label_in_range(const mb_label *l)
{
    MB_REQUIRE(l->name != NULL || (l->id >= 0 && l->id < MAX_LABEL), MB_EDATA,
               "the label is %lld, it must be between 0 and %d", (long long)l->id, MAX_LABEL - 1);
    return MB_OK;
}

static mb_status labels_of_list(mb_json list, mb_record *rec)
{
    void *p;

    MB_TRY(reserve(rec, mb_json_count(list), sizeof *rec->label, &p));
    rec->label = p;
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it)) {
        MB_TRY(label_of_json(it.value, &rec->label[rec->n_labels]));
        MB_TRY(label_in_range(&rec->label[rec->n_labels++]));
    }
    return MB_OK;
}

static mb_status one_label(const struct mb_row_value *v, mb_record *rec)
{
    void *p;

    MB_TRY(reserve(rec, 1, sizeof *rec->label, &p));
    rec->label = p;
    MB_TRY(v->text != NULL ? label_of_text(v->text, rec->label)
                           : label_of_json(v->json, rec->label));
    rec->n_labels = 1;
    return label_in_range(rec->label);
}

/* A list in JSON, also in a table's cell; one label is a list of one. */
static mb_status several_labels(const struct mb_row_value *v, const char *field, mb_record *rec)
{
    mb_json list;

    if (v->text != NULL && v->text[0] != '[')
        return v->text[0] == '\0' ? MB_OK : one_label(v, rec);
    MB_TRY(mb_row_json(v, field, rec, &list));
    return mb_json_is(list, MB_JSON_ARRAY) ? labels_of_list(list, rec) : one_label(v, rec);
}

static mb_status number(const char *field, double d, mb_record *rec)
{
    MB_REQUIRE(isfinite(d) && fabs(d) <= 1e30, MB_EDATA, "%s is %g, which is not a number to learn",
               field, d);
    rec->value[rec->n_values++] = (float)d;
    return MB_OK;
}

static mb_status number_of_text(const char *field, const char *text, mb_record *rec)
{
    char *end;
    const double d = strtod(text, &end);

    MB_REQUIRE(end != text && *end == '\0', MB_EDATA, "%s is \"%s\", a number is expected", field,
               text);
    return number(field, d, rec);
}

static mb_status numbers(const struct mb_row_value *v, const char *field, mb_record *rec)
{
    mb_json list;
    double d;
    void *p;

    if (v->text != NULL && v->text[0] != '[') {
        MB_TRY(reserve(rec, 1, sizeof *rec->value, &p));
        rec->value = p;
        return number_of_text(field, v->text, rec);
    }
    MB_TRY(mb_row_json(v, field, rec, &list));
    const bool several = mb_json_is(list, MB_JSON_ARRAY);
    MB_TRY(reserve(rec, several ? mb_json_count(list) : 1, sizeof *rec->value, &p));
    rec->value = p;
    if (!several) {
        MB_TRY(mb_json_real(list, &d));
        return number(field, d, rec);
    }
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it)) {
        MB_TRY(mb_json_real(it.value, &d));
        MB_TRY(number(field, d, rec));
    }
    MB_REQUIRE(rec->n_values > 0, MB_EDATA, "%s is an empty list", field);
    return MB_OK;
}

static mb_status build_labels(const struct mb_row *row, mb_record *rec)
{
    static const char *const classes[] = {"label", "labels", NULL};
    static const char *const ratings[] = {"label", "labels", "score", NULL};
    const mb_want rows = mb_records_wanted(row->r);
    struct mb_row_value v;
    const char *field = mb_row_first(row, rows == MB_WANT_NUMBERS ? ratings : classes, &v);

    rec->labelled = field != NULL;
    if (field == NULL)
        return MB_OK; /* the store asks whether that is right */
    if (rows == MB_WANT_NUMBERS)
        return numbers(&v, field, rec);
    if (rows == MB_WANT_CLASSES)
        return several_labels(&v, field, rec);
    return one_label(&v, rec);
}

mb_status mb_build_class(const struct mb_row *row, mb_record *rec)
{
    static const char *const single[] = {"text", "sentence", NULL};
    struct mb_row_value v;

    rec->kind = MB_RECORD_CLASS;
    if (mb_row_first(row, single, &v) != NULL) {
        MB_TRY(mb_row_value_text(&v, &rec->text));
    } else {
        MB_TRY(mb_row_need_text(row, "sentence1", &rec->text));
        if (mb_row_find(row, "sentence2", &v))
            MB_TRY(mb_row_value_text(&v, &rec->text2));
    }
    return build_labels(row, rec);
}

/* ---- lists of texts ------------------------------------------------------------------------ */

static mb_status texts_of_list(mb_json list, mb_record *rec)
{
    for (mb_json_it it = mb_json_first(list); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(mb_json_string(it.value, &rec->list[rec->n_list++], NULL));
    return MB_OK;
}

static mb_status reserve_texts(mb_record *rec, size_t n)
{
    void *p;

    MB_TRY(reserve(rec, n, sizeof *rec->list, &p));
    rec->list = p;
    return MB_OK;
}

mb_status mb_build_words(const struct mb_row *row, mb_record *rec)
{
    static const char *const tags[] = {"ner_tags", "tags", "labels", NULL};
    struct mb_row_value v;
    mb_json list;

    rec->kind = MB_RECORD_WORDS;
    MB_REQUIRE(mb_row_find(row, "tokens", &v) && v.text == NULL, MB_EDATA,
               "tokens must be a list of words, which a table cannot hold");
    list = v.json;
    if (!mb_json_is(list, MB_JSON_ARRAY))
        return mb_json_fault(list, "must be a list of words");
    MB_TRY(reserve_texts(rec, mb_json_count(list)));
    MB_TRY(texts_of_list(list, rec));
    const char *field = mb_row_first(row, tags, &v);
    rec->labelled = field != NULL;
    if (field == NULL)
        return MB_OK;
    if (!mb_json_is(v.json, MB_JSON_ARRAY))
        return mb_json_fault(v.json, "must be a list of tags");
    MB_TRY(labels_of_list(v.json, rec));
    MB_REQUIRE(rec->n_labels == rec->n_list, MB_EDATA, "the row has %lld tokens and %lld %s",
               (long long)rec->n_list, (long long)rec->n_labels, mb_row_column(row, field));
    return MB_OK;
}

/* ---- questions ----------------------------------------------------------------------------- */

static mb_status add_answer(mb_json text, mb_json start, mb_record *rec)
{
    int64_t at;

    MB_TRY(mb_json_string(text, &rec->list[rec->n_list], NULL));
    MB_TRY(mb_json_int(start, &at));
    MB_REQUIRE(at >= 0, MB_EDATA, "answer_start is %lld", (long long)at);
    if (rec->n_list++ == 0)
        rec->answer_start = at;
    return MB_OK;
}

/* {text: [...], answer_start: [...]} or [{text, answer_start}, ...]. */
static mb_status add_answers(mb_json v, mb_record *rec)
{
    const mb_json text = mb_json_get(v, "text"), start = mb_json_get(v, "answer_start");

    if (mb_json_is(v, MB_JSON_ARRAY)) {
        MB_TRY(reserve_texts(rec, mb_json_count(v)));
        for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it))
            MB_TRY(add_answer(mb_json_get(it.value, "text"), mb_json_get(it.value, "answer_start"),
                              rec));
        return MB_OK;
    }
    if (!mb_json_is(text, MB_JSON_ARRAY) || mb_json_count(text) != mb_json_count(start))
        return mb_json_fault(v, "must have the lists text and answer_start, of the same length");
    MB_TRY(reserve_texts(rec, mb_json_count(text)));
    for (size_t i = 0; i < mb_json_count(text); i++)
        MB_TRY(add_answer(mb_json_at(text, i), mb_json_at(start, i), rec));
    return MB_OK;
}

mb_status mb_build_question(const struct mb_row *row, mb_record *rec)
{
    struct mb_row_value v;
    mb_json answers;

    rec->kind = MB_RECORD_QUESTION;
    rec->answer_start = -1;
    MB_TRY(mb_row_need_text(row, "question", &rec->text));
    MB_TRY(mb_row_need_text(row, "context", &rec->text2));
    rec->labelled = mb_row_find(row, "answers", &v);
    if (!rec->labelled)
        return MB_OK;
    MB_TRY(mb_row_json(&v, "answers", rec, &answers));
    return add_answers(answers, rec);
}

/* ---- sentences that belong together -------------------------------------------------------- */

static mb_status negatives(const struct mb_row *row, mb_record *rec)
{
    struct mb_row_value v;

    if (!mb_row_find(row, "negative", &v))
        return MB_OK;
    if (v.text == NULL && mb_json_is(v.json, MB_JSON_ARRAY))
        return texts_of_list(v.json, rec);
    return mb_row_value_text(&v, &rec->list[rec->n_list++]);
}

mb_status mb_build_sentences(const struct mb_row *row, mb_record *rec)
{
    struct mb_row_value v;
    const bool pair = !mb_row_find(row, "anchor", &v);
    size_t more = 1;

    rec->kind = MB_RECORD_SENTENCES;
    if (mb_row_find(row, "negative", &v) && v.text == NULL)
        more += mb_json_count(v.json);
    MB_TRY(reserve_texts(rec, 2 + more));
    MB_TRY(mb_row_need_text(row, pair ? "sentence1" : "anchor", &rec->list[rec->n_list++]));
    MB_TRY(mb_row_need_text(row, pair ? "sentence2" : "positive", &rec->list[rec->n_list++]));
    rec->labelled = pair && mb_row_find(row, "score", &v);
    if (rec->labelled)
        return numbers(&v, "score", rec);
    return pair ? MB_OK : negatives(row, rec);
}
