/* core/alloc.h - the only place that asks the system for memory.
 *
 * Every block is aligned to 64 bytes and counted. mb_alloc_count() lets a training step prove that
 * it allocated nothing. MBUYU_ALLOC_FAIL_AT=n makes the n-th request fail, for torture tests.
 * Thread-safe.
 */
#ifndef MB_CORE_ALLOC_H
#define MB_CORE_ALLOC_H

#include <stdarg.h>
#include <stdint.h>

#include "core/status.h"

/* For the start of a program: large blocks that libraries free go back to the system too, as ours
 * do. Left to itself glibc learns from the first of them to keep up to 32 MiB per thread, in holes
 * that grow with every checkpoint and that no plan knows. */
void mb_alloc_init(void);
/* After much work of a library: what it freed in small blocks goes back to the system too. */
void mb_alloc_trim(void);

/* Zeroed bytes; the caller owns *out and gives it to mb_free. Zero bytes give a valid pointer.
 * MB_ENOMEM says `what` was being made and how much was asked for. */
mb_status mb_alloc(size_t bytes, const char *what, void **out) MB_MUST_USE;
/* As mb_alloc for n*size bytes, checked for overflow. */
mb_status mb_alloc_array(size_t n, size_t size, const char *what, void **out) MB_MUST_USE;
/* Grows a block of *capacity elements so that it holds at least `need`; old contents are kept,
 * new ones zeroed. *p may be NULL with *capacity 0. */
mb_status mb_grow(void **p, size_t *capacity, size_t need, size_t size,
                  const char *what) MB_MUST_USE;
/* Whole pages straight from the system, zeroed, not counted as touched until used; for arenas and
 * large buffers. Freed with mb_pages_free. */
mb_status mb_pages(size_t bytes, const char *what, void **out) MB_MUST_USE;
void mb_pages_free(void *p, size_t bytes);
void mb_free(void *p); /* NULL is allowed */

/* Owned copies of strings. */
mb_status mb_strdup(const char *s, char **out) MB_MUST_USE;
mb_status mb_strndup(const char *s, size_t n, char **out) MB_MUST_USE;
mb_status mb_asprintf(char **out, const char *fmt, ...) MB_PRINTF(2, 3) MB_MUST_USE;

int64_t mb_alloc_count(void); /* requests so far of this thread */
/* For tests: the n-th request from now on fails, of whatever thread; 0: none. */
void mb_alloc_fail_at(int64_t n);
int64_t mb_alloc_live(void); /* bytes now live */

/* Typed forms: MB_NEW(p), MB_NEW_ARRAY(p, n). They yield a status. */
#define MB_NEW(p)          mb_alloc(sizeof **(p), #p, (void **)(p))
#define MB_NEW_ARRAY(p, n) mb_alloc_array((size_t)(n), sizeof **(p), #p, (void **)(p))

#endif
