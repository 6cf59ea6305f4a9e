/* recipes/media/audio.h - sound files as samples: mono, 16 kHz, float32.
 *
 *     mb_audio_info info;
 *     MB_TRY(mb_audio_look("a.wav", &info));           // the header alone
 *     MB_TRY(mb_audio_read("a.wav", 30.0, &x, &n));    // n == info.samples
 *     ...
 *     mb_free(x);
 *
 * WAV, FLAC, OGG (Vorbis, Opus) and what else libsndfile reads. Channels are averaged; other rates are
 * resampled by libsoxr at its high quality, as librosa does: below 3 kHz the error is under -110 dB, up
 * to 7 kHz the gain is right to 0.01 dB, what would alias is below -100 dB (tests/unit/test_audio.c).
 * Functions may be called from several threads at once. Errors are MB_EDATA and name the file.
 */
#ifndef MB_RECIPES_MEDIA_AUDIO_H
#define MB_RECIPES_MEDIA_AUDIO_H

#include <stdint.h>

#include "core/status.h"

enum { MB_AUDIO_RATE = 16000 };

/* What the header says; samples: how many there will be at MB_AUDIO_RATE. */
typedef struct mb_audio_info {
    int64_t frames, samples;
    int rate, channels;
} mb_audio_info;

/* Reads the header. No sound, rates outside 1 to 768 kHz, more than 64 channels and files that are
 * shorter than their header says are errors. */
mb_status mb_audio_look(const char *path, mb_audio_info *out) MB_MUST_USE;

/* All samples; the caller owns *x. More than `seconds` are refused before anything is decoded. A file
 * that ends early and samples that are not finite are errors. */
mb_status mb_audio_read(const char *path, double seconds, float **x, int64_t *n) MB_MUST_USE;

#endif
