/* recipes/data/inspect.h - rows as they will be trained, for people.
 *
 * Trained tokens are green on a terminal and stand in [brackets] elsewhere. What is shown comes from
 * the token store, the same the trainer reads: nothing is rendered a second time.
 */
#ifndef MB_RECIPES_DATA_INSPECT_H
#define MB_RECIPES_DATA_INSPECT_H

#include <stdio.h>

#include "core/json.h"
#include "recipes/data/pictures.h"
#include "recipes/data/store.h"

enum { MB_INSPECT_COUNTS = 15 /* before the labels */, MB_INSPECT_WHAT = 64 };

typedef struct mb_inspect {
    FILE *out;
    bool colour;
    bool tokens;           /* also one line per token: position, id, mark, token */
    const char *save;      /* a folder for pictures; NULL: none */
    mb_pictures *pictures; /* not NULL where pictures are saved */
    uint64_t seed;         /* of the run */
} mb_inspect;

/* Colour when `out` is a terminal and NO_COLOR is not set. */
mb_inspect mb_inspect_to(FILE *out);
/* Where row r is from, its tokens, its text. */
mb_status mb_inspect_row(const mb_inspect *to, const mb_store *s, const mb_tokenizer *tok,
                         int64_t r) MB_MUST_USE;
/* The same of a picture: its file, size and class; as the model is given it in step 0, to->save/ROW.png
 * when that is not NULL. */
mb_status mb_inspect_picture(const mb_inspect *to, const mb_store *s, int64_t r) MB_MUST_USE;
/* The counts of the whole store, one per line, those that are 0 too: what was looked for. */
void mb_inspect_counts(const mb_inspect *to, const mb_store *s);

/* What is learned from the row, behind its place: ", 6 trained", ", label 3 (boot)". */
void mb_inspect_labels(FILE *out, const mb_store *s, int64_t r);
/* The i-th count: MB_INSPECT_COUNTS of them, then one a label. False: there are no more. */
bool mb_inspect_count(const mb_store *s, int i, char what[MB_INSPECT_WHAT], double *n);

/* inspect_json.c: the same as JSON, for other programs: a row is
 *
 *     {"row": 0, "place": "chat.jsonl:1: 28 tokens, 6 trained", "spans": [{"text", "trained"}, ...]}
 *
 * of pictures without spans; counts are [{"what", "n"}, ...]. `to` is an array. */
mb_status mb_inspect_row_json(const mb_store *s, const mb_tokenizer *tok, int64_t r,
                              mb_json to) MB_MUST_USE;
mb_status mb_inspect_counts_json(const mb_store *s, mb_json to) MB_MUST_USE;

#endif
