/* recipes/tokenizers/cache.h - private: the ids of the words a work space met last.
 *
 * Words repeat. One slot per hash, the newer wins: a fixed amount of memory, and no effect on any
 * result.
 */
#ifndef MB_RECIPES_TOKENIZERS_CACHE_H
#define MB_RECIPES_TOKENIZERS_CACHE_H

#include "recipes/tokenizers/tokenizer.h"

enum { TOK_CACHE_BYTES = 36, TOK_CACHE_IDS = 12 };

typedef struct tok_cached {
    uint8_t bytes, n; /* bytes 0: empty */
    bool barred;
    char word[TOK_CACHE_BYTES];
    int32_t id[TOK_CACHE_IDS];
} tok_cached;

typedef struct tok_cache {
    tok_cached *slot;
} tok_cache;

mb_status tok_cache_init(tok_cache *c) MB_MUST_USE;
void tok_cache_release(tok_cache *c);
/* NULL: not there. `barred` says under which of the two readings of special tokens. */
const tok_cached *tok_cache_get(const tok_cache *c, const char *word, size_t n, bool barred);
/* Does nothing for what is too long to keep. */
void tok_cache_put(tok_cache *c, const char *word, size_t n, bool barred, const int32_t *id,
                   size_t n_ids);

#endif
