/* recipes/metrics/symbols.h - texts as numbers: code points of letters, ids of words.
 *
 * What is white space, a letter or a lower-case letter is as in Python's str, for that is what the
 * programs compute with whose numbers are compared with ours.
 */
#ifndef MB_RECIPES_METRICS_SYMBOLS_H
#define MB_RECIPES_METRICS_SYMBOLS_H

#include "recipes/tokenizers/bytes.h"

/* All zero is empty. */
typedef struct mb_symbols {
    int32_t *at;
    size_t n, capacity;
} mb_symbols;

mb_status mb_symbols_reserve(mb_symbols *s, size_t more) MB_MUST_USE;
mb_status mb_symbols_push(mb_symbols *s, int32_t x) MB_MUST_USE;
void mb_symbols_release(mb_symbols *s);

bool mb_is_space(int32_t c);        /* str.isspace */
bool mb_is_alphanumeric(int32_t c); /* str.isalnum */

/* Replace *out by the code points of a valid UTF-8 text, in lower case if asked for. */
mb_status mb_letters_of(const char *text, bool lower, mb_symbols *out) MB_MUST_USE;
/* Takes white space off the end, and off the beginning too. */
void mb_letters_rstrip(mb_symbols *s);
void mb_letters_strip(mb_symbols *s);
/* Takes all white space out. */
void mb_letters_squeeze(mb_symbols *s);
/* Appends the id of the word of letters [from, to); the same letters, the same id. */
mb_status mb_word_push(mb_vocab *words, const mb_symbols *letters, size_t from, size_t to,
                       mb_symbols *out) MB_MUST_USE;
/* Replaces *out by the words between white space. */
mb_status mb_words_of(const mb_symbols *letters, mb_vocab *words, mb_symbols *out) MB_MUST_USE;

#endif
