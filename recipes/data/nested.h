/* recipes/data/nested.h - rows that lie inside others: SQuAD's own files, version 1.1 and 2.0.
 *
 *     {"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers", ...}]}]}]}
 *
 * Each question becomes a row {"id", "title", "context", "question", "answers"}, with whatever else it
 * has, as Hugging Face's version of the data has it; plausible_answers stay what they are.
 *
 *     if (mb_nested_open(text, n, name, line, &x) ...) x NULL: it is no such row
 *     MB_TRY(mb_nested_next(x, &text, &n, &more));
 */
#ifndef MB_RECIPES_DATA_NESTED_H
#define MB_RECIPES_DATA_NESTED_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mb_nested mb_nested;

/* *out is NULL, and that is fine, for a row without paragraphs of questions. Messages begin with
 * "name:line:column:". The caller owns *out. */
mb_status mb_nested_open(const char *text, size_t n, const char *name, int64_t line,
                         mb_nested **out) MB_MUST_USE;
void mb_nested_close(mb_nested *x); /* NULL is allowed */
/* The next question as JSON, borrowed until the one after it. */
mb_status mb_nested_next(mb_nested *x, const char **text, size_t *n, bool *more) MB_MUST_USE;

#endif
