/* recipes/media/resample.h - samples at one rate become samples at another; libsoxr does it.
 *
 * Output goes to a buffer of a known length: what the resampler gives beyond it is left out, what it
 * does not give is 0.
 */
#ifndef MB_RECIPES_MEDIA_RESAMPLE_H
#define MB_RECIPES_MEDIA_RESAMPLE_H

#include <stdint.h>

#include "core/status.h"

typedef struct mb_resampler mb_resampler;

/* How many samples n samples at `rate` are at MB_AUDIO_RATE: rounded to the nearest, at least 1. */
int64_t mb_resampled(int64_t n, int rate);

/* Writes to `out`, which is zeroed and borrowed. The caller owns *r. */
mb_status mb_resampler_new(int from, int to, float *out, int64_t n, mb_resampler **r) MB_MUST_USE;
void mb_resampler_free(mb_resampler *r); /* NULL is allowed */
mb_status mb_resampler_put(mb_resampler *r, const float *x, int64_t n) MB_MUST_USE;
/* No more input comes: the rest is written. */
mb_status mb_resampler_end(mb_resampler *r) MB_MUST_USE;

#endif
