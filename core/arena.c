/* core/arena.c - see core/arena.h. */
#include "core/arena.h"

#include <string.h>

#include "core/alloc.h"

/* With a sanitizer, bytes that are not taken are poisoned: an overrun inside an arena is caught
 * like one on the heap. A gap of one line between blocks makes room for that. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
enum { GAP = 64 };
#define HIDE(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define SHOW(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
enum { GAP = 0 };
#define HIDE(p, n) ((void)(p), (void)(n))
#define SHOW(p, n) ((void)(p), (void)(n))
#endif

struct mb_arena {
    const char *name;
    char *base;
    size_t capacity, used, peak;
    bool counting, foreign; /* foreign: not from mb_pages */
    mb_arena_release release;
    void *owner;
};

void *mb_arena_nowhere(void)
{
    return (void *)(uintptr_t)0x10000000000;
}

mb_status mb_arena_new(const char *name, size_t capacity, mb_arena **out)
{
    mb_arena *a = NULL;
    void *base = mb_arena_nowhere();

    MB_TRY(MB_NEW(&a));
    a->name = name;
    a->counting = capacity == SIZE_MAX;
    capacity = a->counting ? SIZE_MAX / 4 : (capacity + 63) / 64 * 64;
    a->capacity = capacity;
    if (!a->counting) {
        const mb_status st = mb_pages(capacity, name, &base);
        if (st != MB_OK) {
            mb_free(a);
            return mb_trace(st, __FILE__, __LINE__, "mb_pages");
        }
        HIDE(base, capacity);
    }
    a->base = base;
    *out = a;
    return MB_OK;
}

mb_status mb_arena_over(const char *name, void *base, size_t capacity, mb_arena_release release,
                        void *owner, mb_arena **out)
{
    mb_arena *a = NULL;
    const mb_status st = MB_NEW(&a);

    if (st != MB_OK) {
        if (release != NULL)
            release(owner, base, capacity);
        return st;
    }
    *a = (mb_arena){.name = name,
                    .base = base,
                    .capacity = capacity,
                    .foreign = true,
                    .release = release,
                    .owner = owner};
    *out = a;
    return MB_OK;
}

void mb_arena_free(mb_arena *a)
{
    if (a == NULL)
        return;
    if (a->foreign && a->release != NULL)
        a->release(a->owner, a->base, a->capacity);
    if (!a->counting && !a->foreign) {
        SHOW(a->base, a->capacity);
        mb_pages_free(a->base, a->capacity);
    }
    mb_free(a);
}

mb_status mb_arena_take(mb_arena *a, size_t bytes, void **out)
{
    const size_t from = (a->used + 63) / 64 * 64;

    MB_REQUIRE(from <= a->capacity && bytes + GAP <= a->capacity - from, MB_ENOMEM,
               "%s memory: %zu bytes asked, %zu of %zu in use", a->name, bytes, a->used,
               a->capacity);
    if (!a->counting && !a->foreign)
        SHOW(a->base + from, bytes);
    *out = a->base + from;
    a->used = from + bytes + GAP;
    if (a->used > a->peak)
        a->peak = a->used;
    return MB_OK;
}

mb_status mb_arena_strdup(mb_arena *a, const char *text, const char **out)
{
    const size_t n = strlen(text) + 1;
    void *p;

    MB_TRY(mb_arena_take(a, n, &p));
    memcpy(p, text, n);
    *out = p;
    return MB_OK;
}

void mb_arena_reset(mb_arena *a)
{
    mb_arena_rewind(a, 0);
}

size_t mb_arena_used(const mb_arena *a)
{
    return a->used;
}

void mb_arena_rewind(mb_arena *a, size_t to)
{
    MB_ASSERT(to <= a->used);
    if (!a->counting && !a->foreign)
        HIDE(a->base + (to + 63) / 64 * 64, a->capacity - (to + 63) / 64 * 64);
    a->used = to;
}

size_t mb_arena_peak(const mb_arena *a)
{
    return a->peak;
}

bool mb_arena_is_counting(const mb_arena *a)
{
    return a->counting;
}
