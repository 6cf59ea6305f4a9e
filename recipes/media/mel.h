/* recipes/media/mel.h - log-mel features as Whisper wants them (Radford et al. 2022,
 * arXiv:2212.04356), equal to those of transformers' WhisperFeatureExtractor within 1e-4
 * (tests/peers/speech.py).
 *
 * Frames of 400 samples every 160 (25 and 10 ms at 16 kHz), centred, the signal reflected at its ends;
 * a periodic Hann window; power of 201 frequencies; triangular filters on Slaney's mel scale, each of
 * area 1; then
 *
 *     y = log10(max(x, 1e-10)),  y = max(y, largest y of the clip - 8),  out = (y + 4) / 4
 */
#ifndef MB_RECIPES_MEDIA_MEL_H
#define MB_RECIPES_MEDIA_MEL_H

#include <stdint.h>

#include "core/status.h"

enum { MB_MEL_HOP = 160, MB_MEL_WINDOW = 400, MB_MEL_MOST_BINS = 256 };

typedef struct mb_mel mb_mel;

/* Tables for `bins` filters (Whisper: 80, large-v3: 128). The caller owns *out; using it from several
 * threads at once is fine. */
mb_status mb_mel_new(int64_t bins, mb_mel **out) MB_MUST_USE;
void mb_mel_free(mb_mel *m); /* NULL is allowed */

/* out(frames, bins), one row a frame, of frames * MB_MEL_HOP samples at 16 kHz: the first of x, and
 * zeros where x(n) is shorter. frames >= 2. */
void mb_mel_compute(const mb_mel *m, const float *x, int64_t n, int64_t frames, float *out);

#endif
