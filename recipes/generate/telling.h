/* recipes/generate/telling.h - the text of an answer, told while its tokens come, up to a stop text.
 *
 *     MB_TRY(mb_telling_begin(&t, detokenizer, last_of_prompt, most_tokens));
 *     MB_TRY(mb_telling_add(&t, id, &stop, &stopped));          for every token but an end token
 *     text = mb_telling_take(&t, &stop, &n);                    what can be told by now
 *     ...
 *     MB_TRY(mb_telling_end(&t, stopped));
 *     text = mb_telling_take(&t, NULL, &n);                     the rest; t.text is all of it
 *
 * What is told is always whole characters, and never a stop text or what could be the beginning of one.
 * Memory is taken at the beginning, for 16 bytes a token; a longer text takes more.
 */
#ifndef MB_RECIPES_GENERATE_TELLING_H
#define MB_RECIPES_GENERATE_TELLING_H

#include "recipes/tokenizers/bytes.h"
#include "recipes/tokenizers/tokenizer.h"

/* Stop texts, none of them empty; borrowed. */
typedef struct mb_stop_texts {
    const char *const *text;
    int64_t n;
} mb_stop_texts;

/* All zero before the first; the memory is kept from answer to answer. */
typedef struct mb_telling {
    mb_detokenizer *detokenizer; /* borrowed until the end */
    mb_bytes text;               /* of the answer, ended */
    size_t told;
} mb_telling;

/* The answer's text goes on behind that of the prompt's last token: a first space is kept. */
mb_status mb_telling_begin(mb_telling *t, mb_detokenizer *d, int32_t last_of_prompt,
                           int64_t most_tokens) MB_MUST_USE;
/* *stopped: a stop text came; the text ends before it. */
mb_status mb_telling_add(mb_telling *t, int32_t id, const mb_stop_texts *stop,
                         bool *stopped) MB_MUST_USE;
/* What was not told yet, *n bytes of it (0: nothing); all of it with stop NULL. */
const char *mb_telling_take(mb_telling *t, const mb_stop_texts *stop, size_t *n);
/* Characters that are not whole become U+FFFD, unless the answer was `stopped` before them. */
mb_status mb_telling_end(mb_telling *t, bool stopped) MB_MUST_USE;
void mb_telling_release(mb_telling *t);

#endif
