/* recipes/data/words.h - words to ids one by one, and where in the text each id comes from.
 *
 * For labels of words and for answers inside a text. Tokenizers that tell a word at the start of a text
 * from one behind a space get the space, as transformers asks for with add_prefix_space. A token's
 * place inside its word follows from the lengths of the word's tokens; where they do not add up to the
 * word's (a normaliser changed it, a piece is unknown) each of them stands for the whole word.
 */
#ifndef MB_RECIPES_DATA_WORDS_H
#define MB_RECIPES_DATA_WORDS_H

#include "recipes/tokenizers/tokenizer.h"

typedef struct mb_words {
    const mb_tokenizer *tokenizer; /* borrowed */
    bool spaced;                   /* a word behind a space has other ids */
    bool bytes;                    /* a token's characters are bytes */
} mb_words;

mb_status mb_words_for(const mb_tokenizer *t, mb_words *out) MB_MUST_USE;
/* Appends the ids of one word. `space`: one stands in front of it. */
mb_status mb_words_encode(const mb_words *w, const char *word, size_t n, bool space,
                          mb_ids *out) MB_MUST_USE;
/* Appends the ids of a text, and two numbers per id: the bytes [from, to) of the text it stands for. */
mb_status mb_words_encode_text(const mb_words *w, const char *text, mb_ids *out,
                               mb_ids *places) MB_MUST_USE;
/* Bytes that the first n characters of a text take; -1 when it has fewer. */
int64_t mb_text_bytes(const char *text, int64_t n);

#endif
