/* recipes/tokenizers/trie.h - which strings of a set begin at a place of a text.
 *
 * One hash table holds all edges: (node, byte) -> (child, value), so a step is one look and strings
 * may be added in any order. The root is node 0.
 *
 *     for (uint32_t node = 0; p < end && mb_trie_step(t, &node, *p, &value); p++)
 *         if (value >= 0)
 *             ... a string ends after *p ...
 */
#ifndef MB_RECIPES_TOKENIZERS_TRIE_H
#define MB_RECIPES_TOKENIZERS_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mb_trie_edge {
    uint64_t key; /* (node << 8 | byte) + 1; 0 is a free slot */
    uint32_t child;
    int32_t value; /* of the string that ends here, -1: none does */
} mb_trie_edge;

typedef struct mb_trie {
    mb_trie_edge *edge;
    size_t mask, n; /* n edges; the newest node has the number n */
} mb_trie;

/* `bytes`: an estimate of all strings' bytes; more is fine. */
mb_status mb_trie_init(mb_trie *t, size_t bytes) MB_MUST_USE;
void mb_trie_release(mb_trie *t);
/* value >= 0. A string that is there keeps the value it has. Empty strings are ignored. */
mb_status mb_trie_add(mb_trie *t, const char *p, size_t n, int32_t value) MB_MUST_USE;

static inline size_t mb_trie_slot(const mb_trie *t, uint64_t key)
{
    const uint64_t h = key * 0x9e3779b97f4a7c15u;
    return (size_t)(h >> 32) & t->mask;
}

/* Follows the edge `byte` of *node; false when there is none. */
static inline bool mb_trie_step(const mb_trie *t, uint32_t *node, char byte, int32_t *value)
{
    const uint64_t key = ((uint64_t)*node << 8 | (uint8_t)byte) + 1;

    for (size_t s = mb_trie_slot(t, key);; s = (s + 1) & t->mask) {
        const mb_trie_edge *e = &t->edge[s];
        if (e->key == key) {
            *node = e->child;
            *value = e->value;
            return true;
        }
        if (e->key == 0)
            return false;
    }
}

#endif
