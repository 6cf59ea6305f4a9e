/* recipes/tokenizers/extend.h - more tokens for the tokenizer of a model, learned from local text.
 *
 * The text is cut as the model's tokenizer cuts it, and neighbouring tokens that occur together most
 * often become new ones, one at a time. Old ids stay what they are. What changes in tokenizer.json:
 *
 *     BPE         merges after all others, and their tokens
 *     Unigram     pieces with the log of their share as score, or a little more than what their parts
 *                 have together, so that they are used
 *     WordPiece   words and continuations
 *
 * Bytes (of byte fallback), unknown and added tokens are not joined.
 */
#ifndef MB_RECIPES_TOKENIZERS_EXTEND_H
#define MB_RECIPES_TOKENIZERS_EXTEND_H

#include "recipes/tokenizers/tokenizer.h"

typedef struct mb_tok_extension {
    mb_tokenizer *tokenizer; /* the new one; mb_tokenizer_save writes it */
    int32_t first, n;        /* ids of the new tokens: first ... first + n - 1 */
    mb_ids parts; /* token first + i is made of parts[begin[i] .. begin[i + 1]), old ids */
    size_t *begin;
    int64_t lines, held_words, tokens_before, tokens_after; /* of every tenth line, held out */
} mb_tok_extension;

/* `add` tokens, or as many as the text gives pairs that occur at least twice. MB_ENOTSUP for a
 * tokenizer that has no tokenizer.json (a SentencePiece file). */
mb_status mb_tokenizer_extend(const mb_tokenizer *t, int64_t add, int64_t max_words,
                              const char *const *files, size_t n_files,
                              mb_tok_extension *out) MB_MUST_USE;
void mb_tok_extension_release(mb_tok_extension *x);

#endif
