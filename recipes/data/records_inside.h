/* recipes/data/records_inside.h - private: a row seen through its fields, for the formats.
 *
 * A format is a line in records.c: the fields that tell it, and a function that builds the record.
 */
#ifndef MB_RECIPES_DATA_RECORDS_INSIDE_H
#define MB_RECIPES_DATA_RECORDS_INSIDE_H

#include "core/json.h"
#include "recipes/data/records.h"

/* The value of a canonical field whether the row is a JSON object or a line of a table. */
struct mb_row {
    const mb_records *r;
    mb_json object;     /* of a JSON row */
    const char **field; /* of a table's row, one per column */
};

/* A field's value: JSON, or a table's text. */
struct mb_row_value {
    mb_json json;
    const char *text;
};

/* The field's name in the file, for messages. */
const char *mb_row_column(const struct mb_row *row, const char *canonical);
/* Is there a value, and which? null counts as absent. */
bool mb_row_find(const struct mb_row *row, const char *canonical, struct mb_row_value *v);
/* The first of a NULL-terminated list of fields that is there; NULL: none. */
const char *mb_row_first(const struct mb_row *row, const char *const *canonical,
                         struct mb_row_value *v);
mb_status mb_row_value_text(const struct mb_row_value *v, const char **out) MB_MUST_USE;
/* A field that must be there and be a text. */
mb_status mb_row_need_text(const struct mb_row *row, const char *canonical,
                           const char **out) MB_MUST_USE;
/* A value as JSON: what a table's cell holds is parsed. */
mb_status mb_row_json(const struct mb_row_value *v, const char *canonical, mb_record *rec,
                      mb_json *out) MB_MUST_USE;
/* Memory that lives as long as the record, zeroed. */
mb_status mb_record_take(mb_record *rec, size_t bytes, void **out) MB_MUST_USE;
/* A whole decimal number, and nothing else. */
bool mb_text_is_integer(const char *s, int64_t *out);
mb_want mb_records_wanted(const mb_records *r);

/* records_labelled.c */
mb_status mb_build_class(const struct mb_row *row, mb_record *rec) MB_MUST_USE;
mb_status mb_build_words(const struct mb_row *row, mb_record *rec) MB_MUST_USE;
mb_status mb_build_question(const struct mb_row *row, mb_record *rec) MB_MUST_USE;
mb_status mb_build_sentences(const struct mb_row *row, mb_record *rec) MB_MUST_USE;

#endif
