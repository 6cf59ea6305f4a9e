/* recipes/serve/vocab_bytes.h - the bytes each token of a vocabulary puts into a text, which may be half a
 * character: for logprobs ("bytes") and for rules about what may come next.
 *
 * Special tokens have none. What a decoder does at the beginning of a text (SentencePiece takes a
 * space away there) is not shown.
 */
#ifndef MB_RECIPES_SERVE_VOCAB_BYTES_H
#define MB_RECIPES_SERVE_VOCAB_BYTES_H

#include "recipes/tokenizers/tokenizer.h"

typedef struct mb_vocab_bytes mb_vocab_bytes;

/* The caller owns *out; the tokenizer is borrowed until it returns. */
mb_status mb_vocab_bytes_new(const mb_tokenizer *t, mb_vocab_bytes **out) MB_MUST_USE;
void mb_vocab_bytes_free(mb_vocab_bytes *v); /* NULL is allowed */
/* Borrowed; NULL with *n 0 for what is no token. */
const char *mb_vocab_bytes_of(const mb_vocab_bytes *v, int32_t id, size_t *n);
int32_t mb_vocab_bytes_count(const mb_vocab_bytes *v);

#endif
