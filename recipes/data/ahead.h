/* recipes/data/ahead.h - rows of numbers made by threads of their own, ahead of who takes them.
 *
 *     mb_ahead_new(make, ctx, floats, places, threads, &a);
 *     mb_ahead_expect(a, &row);          // in the order in which they will be taken
 *     mb_ahead_take(a, &row, to);        // waits until it is there
 *
 * What was not expected, or not in this order, is made when it is taken, by who takes it. What a row
 * becomes must not depend on who makes it. expect and take belong to one thread.
 */
#ifndef MB_RECIPES_DATA_AHEAD_H
#define MB_RECIPES_DATA_AHEAD_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

enum { MB_AHEAD_MOST_THREADS = 16 };

/* Which row, of what, for which step: whatever `make` wants to know. */
typedef struct mb_ahead_row {
    const void *store; /* borrowed until the row is taken */
    int64_t row;
    uint64_t seed;
    uint32_t step;
    int32_t ordinal;
} mb_ahead_row;

/* Makes a row's numbers as thread 0 .. threads-1, or as `threads`: the one that takes. */
typedef mb_status (*mb_ahead_fn)(void *ctx, int thread, const mb_ahead_row *row, float *to);

typedef struct mb_ahead mb_ahead;

/* Room for `places` rows of `floats` numbers. ctx is borrowed; the caller owns *out. */
mb_status mb_ahead_new(mb_ahead_fn make, void *ctx, int64_t floats, int64_t places, int threads,
                       mb_ahead **out) MB_MUST_USE;
void mb_ahead_free(mb_ahead *a); /* NULL is allowed; ends what is being made */

/* False: there is no place left. */
bool mb_ahead_expect(mb_ahead *a, const mb_ahead_row *row);
bool mb_ahead_idle(const mb_ahead *a); /* is nothing expected? */
/* Is this the next that was expected? */
bool mb_ahead_is_next(const mb_ahead *a, const mb_ahead_row *row);
/* A failure is that of `make`. */
mb_status mb_ahead_take(mb_ahead *a, const mb_ahead_row *row, float *to) MB_MUST_USE;
/* What is expected is not wanted any more. */
void mb_ahead_forget(mb_ahead *a);

#endif
