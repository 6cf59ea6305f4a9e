/* core/arena.h - memory that is freed all at once.
 *
 * mbuyu knows three lifetimes, and each is an arena:
 *
 *     run      weights, gradients, optimizer state, tables   until the process ends
 *     step     what one micro-batch's tape needs             until mb_arena_reset()
 *     scratch  a kernel's workspace                          until mb_arena_rewind()
 *
 * Nothing in an arena is freed by itself, so "who owns this?" is answered by which arena it came
 * from. An arena reserves address space and never grows. Not thread-safe: one arena, one thread.
 *
 * A *counting* arena (capacity SIZE_MAX) has no memory: it hands out offsets disguised as pointers,
 * so that the planning device can measure what a run will take. They must never be dereferenced.
 */
#ifndef MB_CORE_ARENA_H
#define MB_CORE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mb_arena mb_arena;

/* Reserves `capacity` bytes of zeroed pages, touched only when used; SIZE_MAX makes a counting
 * arena. `name` (borrowed, a literal) is used in messages. The caller owns *out. */
mb_status mb_arena_new(const char *name, size_t capacity, mb_arena **out) MB_MUST_USE;
/* The same over memory from elsewhere, of a device for example: mb_arena_free gives it back through
 * `release` (optional), also when this fails. */
typedef void (*mb_arena_release)(void *owner, void *base, size_t capacity);
mb_status mb_arena_over(const char *name, void *base, size_t capacity, mb_arena_release release,
                        void *owner, mb_arena **out) MB_MUST_USE;
void mb_arena_free(mb_arena *a); /* NULL is allowed */

/* Bytes aligned to 64, not zeroed after a reset; borrowed from the arena. MB_ENOMEM names the
 * capacity, what is in use and what was asked for. */
mb_status mb_arena_take(mb_arena *a, size_t bytes, void **out) MB_MUST_USE;
/* A copy of a text; not for a counting arena, which has no memory. */
mb_status mb_arena_strdup(mb_arena *a, const char *text, const char **out) MB_MUST_USE;

void mb_arena_reset(mb_arena *a);             /* forget everything; capacity is kept */
size_t mb_arena_used(const mb_arena *a);      /* a mark to rewind to */
void mb_arena_rewind(mb_arena *a, size_t to); /* forget what was taken since the mark */
size_t mb_arena_peak(const mb_arena *a);      /* the most that was ever in use */
/* For what gets its place later: never mapped, and not NULL; counting arenas begin there. */
void *mb_arena_nowhere(void);
bool mb_arena_is_counting(const mb_arena *a);

#endif
