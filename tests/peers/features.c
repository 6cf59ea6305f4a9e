/* tests/peers/features.c - what becomes of sound files, for tests/peers/speech.py.
 *
 *     features BINS FRAMES FOLDER FILE...
 *
 * writes FOLDER/0.samples and FOLDER/0.mel for the first file and so on, raw float32: what is heard, at
 * 16 kHz, and FRAMES rows of BINS log-mel values.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/media/audio.h"
#include "recipes/media/mel.h"

static mb_status one(const mb_mel *mel, int64_t bins, int64_t frames, const char *folder, int i,
                     const char *file)
{
    char path[MB_PATH_MAX];
    float *x = NULL, *y = NULL;
    int64_t n = 0;
    mb_status st;

    MB_TRY(mb_audio_read(file, 3600.0, &x, &n));
    MB_TRY_GOTO(MB_NEW_ARRAY(&y, frames * bins), st, done);
    mb_mel_compute(mel, x, n, frames, y);
    snprintf(path, sizeof path, "%s/%d.samples", folder, i);
    MB_TRY_GOTO(mb_file_write_atomic(path, x, (size_t)n * sizeof *x), st, done);
    snprintf(path, sizeof path, "%s/%d.mel", folder, i);
    st = mb_file_write_atomic(path, y, (size_t)(frames * bins) * sizeof *y);
done:
    mb_free(x);
    mb_free(y);
    return st;
}

int main(int argc, char **argv)
{
    mb_mel *mel = NULL;
    mb_status st;

    if (argc < 5)
        return 2;
    const int64_t bins = atoll(argv[1]), frames = atoll(argv[2]);

    st = mb_mel_new(bins, &mel);
    for (int i = 4; i < argc && st == MB_OK; i++)
        st = one(mel, bins, frames, argv[3], i - 4, argv[i]);
    if (st != MB_OK)
        fprintf(stderr, "%s\n", mb_status_sentence());
    mb_mel_free(mel);
    return mb_status_exit_code(st);
}
