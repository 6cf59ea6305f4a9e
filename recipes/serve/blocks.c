/* recipes/serve/blocks.c - see recipes/serve/blocks.h. */
#include "recipes/serve/blocks.h"

#include <string.h>

#include "core/alloc.h"

enum { ROOTS = 1 << 16, NONE = -1 };

struct block {
    int32_t held;
    int32_t prev, next;      /* in the ring of those nobody holds; entry n is its ends */
    int32_t same;            /* next of its bucket */
    uint64_t number, before; /* number 0: nothing is known of it */
    int32_t token[MB_BLOCK_TOKENS];
};

struct mb_blocks {
    int64_t n, held, known;
    uint64_t numbers; /* given */
    struct block *at; /* n + 1 */
    int32_t *bucket;
    uint64_t mask;
};

mb_status mb_blocks_new(int64_t n, mb_blocks **out)
{
    mb_blocks *b;
    uint64_t buckets = 1;
    mb_status st;

    MB_REQUIRE(n >= 1 && n < INT32_MAX, MB_EARG, "a cache of %lld blocks", (long long)n);
    while (buckets < (uint64_t)n)
        buckets *= 2;
    MB_TRY(MB_NEW(&b));
    b->n = n;
    b->numbers = ROOTS;
    b->mask = buckets - 1;
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->at, n + 1), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->bucket, buckets), st, fail);
    for (uint64_t i = 0; i < buckets; i++)
        b->bucket[i] = NONE;
    for (int64_t i = 0; i <= n; i++) {
        b->at[i].prev = (int32_t)(i > 0 ? i - 1 : n);
        b->at[i].next = (int32_t)(i < n ? i + 1 : 0);
    }
    *out = b;
    return MB_OK;
fail:
    mb_blocks_free(b);
    return st;
}

void mb_blocks_free(mb_blocks *b)
{
    if (b == NULL)
        return;
    mb_free(b->at);
    mb_free(b->bucket);
    mb_free(b);
}

int64_t mb_blocks_count(const mb_blocks *b)
{
    return b->n;
}

int64_t mb_blocks_held(const mb_blocks *b)
{
    return b->held;
}

int64_t mb_blocks_known(const mb_blocks *b)
{
    return b->known;
}

uint64_t mb_blocks_root(int root)
{
    return (uint64_t)root + 1;
}

/* ---- the ring of those nobody holds -------------------------------------------------------- */

static void leave_ring(mb_blocks *b, int32_t i)
{
    b->at[b->at[i].prev].next = b->at[i].next;
    b->at[b->at[i].next].prev = b->at[i].prev;
    b->known -= b->at[i].number != 0;
    b->held++;
}

/* Behind block `after` (n: first to be taken). */
static void join_ring(mb_blocks *b, int32_t i, int32_t after)
{
    const int32_t next = b->at[after].next;

    b->at[i].prev = after;
    b->at[i].next = next;
    b->at[after].next = b->at[next].prev = i;
    b->known += b->at[i].number != 0;
    b->held--;
}

/* ---- what is known ------------------------------------------------------------------------- */

static int32_t *bucket_of(mb_blocks *b, uint64_t before, const int32_t *token)
{
    uint64_t h = before * 0x9e3779b97f4a7c15u;

    for (int i = 0; i < MB_BLOCK_TOKENS; i++) {
        h = (h ^ (uint32_t)token[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 29;
    }
    return &b->bucket[h & b->mask];
}

static int32_t look_up(const mb_blocks *b, int32_t first, uint64_t before, const int32_t *token)
{
    int32_t i = first;

    while (i != NONE &&
           (b->at[i].before != before || memcmp(b->at[i].token, token, sizeof b->at[i].token) != 0))
        i = b->at[i].same;
    return i;
}

static void forget(mb_blocks *b, int32_t i)
{
    int32_t *at;

    if (b->at[i].number == 0)
        return;
    at = bucket_of(b, b->at[i].before, b->at[i].token);
    while (*at != i)
        at = &b->at[*at].same;
    *at = b->at[i].same;
    b->at[i].number = 0;
}

int32_t mb_blocks_take(mb_blocks *b)
{
    const int32_t i = b->at[b->n].next;

    if (i == b->n)
        return NONE;
    leave_ring(b, i);
    forget(b, i);
    b->at[i].held = 1;
    return i;
}

void mb_blocks_drop(mb_blocks *b, int32_t i)
{
    if (--b->at[i].held == 0)
        join_ring(b, i, b->at[i].number != 0 ? b->at[b->n].prev : (int32_t)b->n);
}

static int32_t hold(mb_blocks *b, int32_t i)
{
    if (b->at[i].held++ == 0)
        leave_ring(b, i);
    return i;
}

int32_t mb_blocks_find(mb_blocks *b, uint64_t before, const int32_t *token, uint64_t *number)
{
    const int32_t i = look_up(b, *bucket_of(b, before, token), before, token);

    if (i == NONE)
        return NONE;
    *number = b->at[i].number;
    return hold(b, i);
}

int32_t mb_blocks_publish(mb_blocks *b, int32_t block, uint64_t before, const int32_t *token,
                          uint64_t *number)
{
    int32_t *first = bucket_of(b, before, token);
    const int32_t known = look_up(b, *first, before, token);
    struct block *x = &b->at[block];

    if (known != NONE && known != block) {
        hold(b, known);
        mb_blocks_drop(b, block);
        *number = b->at[known].number;
        return known;
    }
    x->number = ++b->numbers;
    x->before = before;
    memcpy(x->token, token, sizeof x->token);
    x->same = *first;
    *first = block;
    *number = x->number;
    return block;
}
