/* core/alloc.c - see core/alloc.h. Each block carries a 64-byte head with its size. Large blocks are
 * pages of their own: freed, they go back to the system, where malloc would keep them. */
#include "core/alloc.h"

#include <limits.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
enum { HEAD = 64, LARGE = INT_MAX }; /* the sanitizer watches what malloc gave */
#else
enum { HEAD = 64, LARGE = 1 << 20 };
#endif

void mb_alloc_init(void)
{
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
    mallopt(M_MMAP_THRESHOLD, LARGE);
    mallopt(M_TRIM_THRESHOLD, LARGE);
#endif
}

void mb_alloc_trim(void)
{
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
    malloc_trim(0);
#endif
}

static _Atomic int64_t n_requests, live_bytes;
static _Atomic int64_t fail_at = -1; /* -1: the environment was not asked yet; 0: never */

static _Thread_local int64_t n_mine;

static bool must_fail(void)
{
    const int64_t n = atomic_fetch_add(&n_requests, 1) + 1;

    n_mine++;
    if (atomic_load(&fail_at) < 0) {
        const char *s = getenv("MBUYU_ALLOC_FAIL_AT");
        atomic_store(&fail_at, s != NULL ? strtoll(s, NULL, 10) : 0);
    }
    return atomic_load(&fail_at) == n;
}

void mb_alloc_fail_at(int64_t n)
{
    atomic_store(&fail_at, n > 0 ? atomic_load(&n_requests) + n : 0);
}

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p != MAP_FAILED ? p : NULL;
}

/* bytes + HEAD zeroed bytes; NULL when there are none. */
static void *take(size_t bytes)
{
    char *p;

    if (bytes >= LARGE)
        return map(bytes + HEAD);
    p = aligned_alloc(HEAD, (bytes + HEAD + HEAD - 1) / HEAD * HEAD);
    if (p != NULL)
        memset(p + HEAD, 0, bytes);
    return p;
}

mb_status mb_alloc(size_t bytes, const char *what, void **out)
{
    char *p = NULL;

    if (bytes <= SIZE_MAX - 2 * HEAD && !must_fail())
        p = take(bytes);
    if (p == NULL)
        return MB_RAISE(MB_ENOMEM, "not enough memory for %s: %zu bytes asked, %lld in use", what,
                        bytes, (long long)mb_alloc_live());
    memcpy(p, &bytes, sizeof bytes);
    atomic_fetch_add(&live_bytes, (int64_t)bytes);
    *out = p + HEAD;
    return MB_OK;
}

mb_status mb_alloc_array(size_t n, size_t size, const char *what, void **out)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes))
        return MB_RAISE(MB_ENOMEM, "not enough memory for %s: %zu elements of %zu bytes", what, n,
                        size);
    return mb_alloc(bytes, what, out);
}

mb_status mb_grow(void **p, size_t *capacity, size_t need, size_t size, const char *what)
{
    size_t wanted = *capacity < 8 ? 8 : *capacity;
    void *q;

    if (need <= *capacity)
        return MB_OK;
    while (wanted < need)
        wanted = wanted > SIZE_MAX / 2 ? need : wanted * 2;
    MB_TRY(mb_alloc_array(wanted, size, what, &q));
    if (*p != NULL)
        memcpy(q, *p, *capacity * size);
    mb_free(*p);
    *p = q;
    *capacity = wanted;
    return MB_OK;
}

mb_status mb_pages(size_t bytes, const char *what, void **out)
{
    void *p = NULL;

    if (bytes == 0)
        bytes = 1;
    if (!must_fail())
        p = map(bytes);
    MB_REQUIRE(p != NULL, MB_ENOMEM, "not enough memory for %s: %zu bytes asked", what, bytes);
    atomic_fetch_add(&live_bytes, (int64_t)bytes);
    *out = p;
    return MB_OK;
}

void mb_pages_free(void *p, size_t bytes)
{
    if (p == NULL)
        return;
    if (bytes == 0)
        bytes = 1;
    atomic_fetch_sub(&live_bytes, (int64_t)bytes);
    munmap(p, bytes);
}

void mb_free(void *p)
{
    size_t bytes;

    if (p == NULL)
        return;
    memcpy(&bytes, (char *)p - HEAD, sizeof bytes);
    atomic_fetch_sub(&live_bytes, (int64_t)bytes);
    if (bytes >= LARGE)
        munmap((char *)p - HEAD, bytes + HEAD);
    else
        free((char *)p - HEAD);
}

mb_status mb_strndup(const char *s, size_t n, char **out)
{
    void *p;

    MB_TRY(mb_alloc(n + 1, "a string", &p));
    memcpy(p, s, n);
    *out = p;
    return MB_OK;
}

mb_status mb_strdup(const char *s, char **out)
{
    return mb_strndup(s, strlen(s), out);
}

mb_status mb_asprintf(char **out, const char *fmt, ...)
{
    va_list ap;
    void *p;

    va_start(ap, fmt);
    const int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    MB_TRY(mb_alloc((size_t)n + 1, "a string", &p));
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    *out = p;
    return MB_OK;
}

int64_t mb_alloc_count(void)
{
    return n_mine;
}

int64_t mb_alloc_live(void)
{
    return atomic_load(&live_bytes);
}
