/* recipes/tokenizers/encoder.h - private: a model at work: its work space, and the ids of the words
 * it met last.
 *
 * Words repeat. One slot per hash, the newer wins: a fixed amount of memory, and no effect on any
 * result.
 */
#ifndef MB_RECIPES_TOKENIZERS_ENCODER_H
#define MB_RECIPES_TOKENIZERS_ENCODER_H

#include "recipes/tokenizers/tokenizer.h"

/* For one call at a time. */
typedef struct tok_encoder {
    const struct tok_model *model;
    const void *data; /* the model's; borrowed */
    void *work;
    struct tok_slot *slot;
} tok_encoder;

mb_status tok_encoder_init(tok_encoder *e, const struct tok_model *model,
                           const void *data) MB_MUST_USE;
void tok_encoder_release(tok_encoder *e); /* zeroes are allowed */
/* Appends the ids of word[0..n), n > 0; `barred` as a model has it, the same array whenever it is not
 * NULL. */
mb_status tok_encoder_word(tok_encoder *e, const char *word, size_t n, const uint8_t *barred,
                           mb_ids *out) MB_MUST_USE;

#endif
