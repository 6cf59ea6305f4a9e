/* recipes/tokenizers/words.h - private: the words of text files and how often each occurs. */
#ifndef MB_RECIPES_TOKENIZERS_WORDS_H
#define MB_RECIPES_TOKENIZERS_WORDS_H

#include "recipes/tokenizers/model.h"
#include "recipes/tokenizers/train.h"

typedef struct tok_word {
    const char *p; /* in the list's vocabulary */
    uint32_t n;
    int64_t count;
} tok_word;

typedef struct tok_words {
    mb_vocab *vocab; /* word -> place in `count` */
    int64_t *count;
    size_t capacity;
    tok_word *at; /* most frequent first, of equals by their bytes */
    size_t n;
    int64_t lines, bytes, dropped;
    int64_t too_long; /* words of more than TOK_MAX_TOKEN_BYTES, which are not counted */
    mb_bytes held;    /* lines held out, at most 16 MiB, with their ends */
} tok_words;

/* Counts the words that `t` cuts the lines of the files into; with `ends`, a line's end belongs to
 * it. A word is cut once more before every U+2581 that follows something else. With `hold`, every
 * hold-th line is not counted but added to `held`. Threads share the lines; the result
 * does not depend on their number. */
mb_status tok_words_count(const mb_tokenizer *t, const char *const *files, size_t n_files,
                          bool ends, int hold, int64_t max_words, tok_words *out) MB_MUST_USE;
void tok_words_release(tok_words *w);

#endif
