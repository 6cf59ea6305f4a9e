/* recipes/metrics/answers.h - what a model said of rows, and what was right: all that a metric reads.
 *
 * Rows come as JSON objects, one a line, from a file (`mbuyu eval predictions=...` writes it, `mbuyu
 * score` reads it) or from an evaluation as it goes:
 *
 *     {"row": 3, "prediction": "good", "label": "bad", "probabilities": {"good": 0.6, "bad": 0.4}}
 *     {"row": 3, "prediction": 2, "label": 2, "probabilities": [0.1, 0.2, 0.7]}
 *     {"row": 3, "prediction": ["news", "sport"], "label": ["news"]}         several classes at once
 *     {"row": 3, "prediction": 0.71, "label": 0.65}
 *     {"row": 3, "prediction": ["B-PER", "O"], "label": ["B-PER", "I-PER"]}  a tag per token, of "tokens"
 *     {"row": 3, "prediction": "good day", "reference": "good morning", "group": "sw-en"}
 *     {"row": 3, "prediction": "good day", "reference": ["good morning", "hello"]}
 *     {"row": 3, "scores": [0.2, 0.9, 0.4], "label": 1}                      ranked candidates
 *
 * "label" and "reference" are two names of one thing, as are their plurals; so are "prediction" and
 * the "completion" of `mbuyu generate --json`. "row" is the number of
 * the row in the data (absent: the line's), "group" a language or another key for tables. Other
 * fields are left alone.
 *
 *     mb_answers_new(&rows); mb_answers_add(rows, object) ...; mb_metric_compute(...); mb_answers_free(rows);
 *
 * Strings are kept once each. Not thread-safe; nothing here is collective.
 */
#ifndef MB_RECIPES_METRICS_ANSWERS_H
#define MB_RECIPES_METRICS_ANSWERS_H

#include <stdint.h>

#include "core/json.h"

typedef enum mb_value_kind {
    MB_VALUE_NONE,
    MB_VALUE_NUMBER, /* one number */
    MB_VALUE_TEXT,   /* one string */
    MB_VALUE_NUMBERS,
    MB_VALUE_TEXTS,
} mb_value_kind;

typedef struct mb_value {
    mb_value_kind kind;
    bool whole;    /* numbers without a fraction */
    double number; /* NUMBER */
    int64_t first; /* TEXT, TEXTS, NUMBERS: in mb_answers.id or .number */
    int64_t n;
} mb_value;

typedef struct mb_answer_row {
    int64_t row;
    mb_value said, right;
    int64_t first, n; /* probabilities or scores, in mb_answers.share */
    bool ranked;      /* they are scores of candidates */
    bool per_token;   /* it has as many "tokens" as prediction and label have entries */
    int32_t group;    /* id of its name; -1: none */
} mb_answer_row;

typedef struct mb_answers {
    int64_t n;
    const mb_answer_row *row; /* (n) in the order of their numbers once sorted */
    const int32_t *id;        /* strings of values */
    const double *number;     /* numbers of NUMBERS */
    const double *share;      /* probabilities and scores */
    const int32_t *share_id;  /* id of the class's name; -1: the place in the list says which */
    const struct mb_answers_store *store;
} mb_answers;

/* The caller owns *out. */
mb_status mb_answers_new(mb_answers **out) MB_MUST_USE;
void mb_answers_free(mb_answers *r); /* NULL is allowed */
/* Takes over what is in `object`. Errors are the document's, with the field. */
mb_status mb_answers_add(mb_answers *r, mb_json object) MB_MUST_USE;
/* Reads a JSONL file of at most 64 MiB a line. MB_EDATA names the line; also for a file without rows. */
mb_status mb_answers_read(const char *path, mb_answers **out) MB_MUST_USE;
/* The rows of one group (an id; all strings stay those of `r`), in order; *out borrows from r and is
 * freed first. */
mb_status mb_answers_of_group(const mb_answers *r, int32_t group, mb_answers **out) MB_MUST_USE;

/* The string of an id, zero-terminated; borrowed until the next mb_answers_add. */
const char *mb_answers_text(const mb_answers *r, int32_t id);
int32_t mb_answers_n_texts(const mb_answers *r); /* ids are below */
/* The ids of the groups, in the order of their names; owned by the caller. */
mb_status mb_answers_groups(const mb_answers *r, int32_t **out, int *n) MB_MUST_USE;

#endif
