/* recipes/tokenizers/cache.c - the ids of the words a work space met last. */
#include "recipes/tokenizers/cache.h"

#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/bytes.h"

enum { SLOTS = 1 << 14 };

mb_status tok_cache_init(tok_cache *c)
{
    return MB_NEW_ARRAY(&c->slot, SLOTS);
}

void tok_cache_release(tok_cache *c)
{
    mb_free(c->slot);
    c->slot = NULL;
}

static tok_cached *slot_of(const tok_cache *c, const char *word, size_t n)
{
    return &c->slot[mb_bytes_hash(word, n) & (SLOTS - 1)];
}

const tok_cached *tok_cache_get(const tok_cache *c, const char *word, size_t n, bool barred)
{
    if (n > TOK_CACHE_BYTES)
        return NULL;
    const tok_cached *s = slot_of(c, word, n);
    return s->bytes == n && s->barred == barred && memcmp(s->word, word, n) == 0 ? s : NULL;
}

void tok_cache_put(tok_cache *c, const char *word, size_t n, bool barred, const int32_t *id,
                   size_t n_ids)
{
    if (n > TOK_CACHE_BYTES || n_ids > TOK_CACHE_IDS)
        return;
    tok_cached *s = slot_of(c, word, n);
    s->bytes = (uint8_t)n;
    s->n = (uint8_t)n_ids;
    s->barred = barred;
    memcpy(s->word, word, n);
    if (n_ids > 0)
        memcpy(s->id, id, n_ids * sizeof *id);
}
