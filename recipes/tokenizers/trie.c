/* recipes/tokenizers/trie.c - a trie whose edges are a hash table. */
#include "recipes/tokenizers/trie.h"

#include "core/alloc.h"

/* The most slots: the slot of an edge comes from 32 bits of its hash. */
#define MAX_SLOTS ((size_t)1 << 31)

static mb_trie_edge *find(const mb_trie *t, uint64_t key)
{
    size_t s = mb_trie_slot(t, key);

    while (t->edge[s].key != 0 && t->edge[s].key != key)
        s = (s + 1) & t->mask;
    return &t->edge[s];
}

static mb_status resize(mb_trie *t, size_t slots)
{
    mb_trie fresh = {.mask = slots - 1, .n = t->n};

    MB_REQUIRE(slots <= MAX_SLOTS, MB_EMODEL, "a vocabulary with more than %zu bytes", slots / 2);
    MB_TRY(MB_NEW_ARRAY(&fresh.edge, slots));
    for (size_t s = 0; t->edge != NULL && s <= t->mask; s++)
        if (t->edge[s].key != 0)
            *find(&fresh, t->edge[s].key) = t->edge[s];
    mb_free(t->edge);
    *t = fresh;
    return MB_OK;
}

mb_status mb_trie_init(mb_trie *t, size_t bytes)
{
    size_t slots = 64;

    while (slots < bytes && slots < (size_t)1 << 22)
        slots *= 2;
    *t = (mb_trie){0};
    return resize(t, slots);
}

void mb_trie_release(mb_trie *t)
{
    mb_free(t->edge);
    *t = (mb_trie){0};
}

mb_status mb_trie_add(mb_trie *t, const char *p, size_t n, int32_t value)
{
    uint32_t node = 0;
    mb_trie_edge *e = NULL;

    for (size_t i = 0; i < n; i++) {
        const uint64_t key = ((uint64_t)node << 8 | (uint8_t)p[i]) + 1;
        if (t->n * 2 >= t->mask)
            MB_TRY(resize(t, (t->mask + 1) * 2));
        e = find(t, key);
        if (e->key == 0)
            *e = (mb_trie_edge){key, (uint32_t)++t->n, -1};
        node = e->child;
    }
    if (e != NULL && e->value < 0)
        e->value = value;
    return MB_OK;
}
