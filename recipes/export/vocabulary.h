/* recipes/export/vocabulary.h - a model folder with more rows for more tokens.
 *
 * Every weight with a row per token (the family's table says which: input embedding, untied head,
 * the head's bias) gets a row for each new token: the mean, taken in f32, of the rows of the old
 * tokens it is made of. All other bytes are copied. Rows that the old embedding has beyond its
 * tokens (padding to a round number) are used first.
 */
#ifndef MB_RECIPES_EXPORT_VOCABULARY_H
#define MB_RECIPES_EXPORT_VOCABULARY_H

#include "recipes/tokenizers/extend.h"

enum { MB_MOST_RESIZED = 8 };

typedef struct mb_resized {
    int64_t before, after; /* vocab_size of config.json */
    int n;
    char what[MB_MOST_RESIZED][160]; /* "model.embed_tokens.weight  384 x 64 -> 400 x 64" */
} mb_resized;

/* Writes weights, config.json (with a note of the new ids: recipes/config/token_ids.h), the new tokenizer and the base's generation settings into `dir`, which
 * must not hold a model (MB_EARG). MB_EMODEL: a table that has not vocab_size rows. */
mb_status mb_resize_vocabulary(const char *base, const char *dir, const mb_tok_extension *x,
                               mb_resized *out) MB_MUST_USE;

#endif
