/* recipes/generate/prompts.h - what shall be answered: from a text, a file, or standard input.
 *
 *     .txt      one prompt a line; empty lines are skipped
 *     .jsonl    one object a line: prompt (a text, or a list of messages) or messages
 *     .json     a list of such objects
 *
 * Rows of training files are prompts too: a completion is kept beside, to compare answers with, and
 * assistant messages at the end of a conversation are left out. field_map gives the columns of prompt, messages and completion.
 */
#ifndef MB_RECIPES_GENERATE_PROMPTS_H
#define MB_RECIPES_GENERATE_PROMPTS_H

#include "core/json.h"
#include "recipes/data/records.h"

typedef struct mb_prompt_row {
    char *text;            /* the prompt, or NULL: */
    mb_record chat;        /* a conversation, */
    mb_json_doc *messages; /* and how it was written, for the output: root.messages */
    char *reference;       /* the row's own completion; NULL: none */
} mb_prompt_row;

typedef struct mb_prompt_rows {
    mb_prompt_row *at;
    size_t n, capacity;
} mb_prompt_rows;

/* Adds a text of n bytes; as_chat: as the message of a user. MB_EDATA for what is not UTF-8. */
mb_status mb_prompt_rows_add(mb_prompt_rows *p, const char *text, size_t n,
                             bool as_chat) MB_MUST_USE;
/* Adds all rows of a file; as_chat: texts are messages of a user. `field` may be NULL. Messages begin
 * with "file:line: ". */
mb_status mb_prompt_rows_read(mb_prompt_rows *p, const char *path, const mb_field_map *field,
                              int n_fields, bool as_chat) MB_MUST_USE;
/* Adds all of standard input as one prompt, without a newline at its end. */
mb_status mb_prompt_rows_stdin(mb_prompt_rows *p, bool as_chat) MB_MUST_USE;
void mb_prompt_rows_release(mb_prompt_rows *p);
/* The row as a record; borrowed from it. */
mb_record mb_prompt_row_record(const mb_prompt_row *row);

#endif
