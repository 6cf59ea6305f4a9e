/* recipes/media/audio.c - see recipes/media/audio.h. The only file that knows libsndfile. */
#include "recipes/media/audio.h"

#include <math.h>
#include <sndfile.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/media/resample.h"

enum {
    PIECE = 4096, /* frames decoded at a time */
    MOST_CHANNELS = 64,
    LEAST_RATE = 1000,
    MOST_RATE = 768000,
    LOG_BYTES = 8192
};

struct sound {
    const char *path;
    int fd;
    SNDFILE *file;
    SF_INFO info;
};

static void close_sound(struct sound *s)
{
    if (s->file != NULL)
        sf_close(s->file);
    if (s->fd >= 0)
        close(s->fd);
}

/* libsndfile reads a WAV or AIFF whose data chunk claims more than the file holds as if it were whole,
 * and only its log says "data : 64000 (should be 12000)". Programs that write into a pipe cannot know
 * the size and claim none or the largest; those are whole. */
static mb_status check_length(const struct sound *s)
{
    char text[LOG_BYTES];
    const char *at = text;

    if (sf_command(s->file, SFC_GET_LOG_INFO, text, sizeof text) <= 0)
        return MB_OK;
    while ((at = strstr(at, "(should be ")) != NULL) {
        const char *line = at, *claim;

        while (line > text && line[-1] != '\n')
            line--;
        claim = strchr(line, ':');
        const long long held = strtoll(at + strlen("(should be "), NULL, 10);
        const long long said = claim != NULL && claim < at ? strtoll(claim + 1, NULL, 10) : 0;
        const bool data = strncmp(line, "data", 4) == 0 || strncmp(line, " SSND", 5) == 0;

        at++;
        MB_REQUIRE(!data || said <= held || said >= 0x7ffff000LL, MB_EDATA,
                   "%s is cut short: its header promises %lld bytes of sound, it holds %lld",
                   s->path, said, held);
    }
    return MB_OK;
}

static mb_status open_sound(const char *path, struct sound *s)
{
    int64_t size;

    *s = (struct sound){.path = path, .fd = -1};
    MB_TRY(mb_file_open(path, MB_EDATA, &s->fd, &size));
    MB_REQUIRE(size > 0, MB_EDATA, "%s is empty, expected a sound file", path);
    s->file = sf_open_fd(s->fd, SFM_READ, &s->info, 0);
    MB_REQUIRE(s->file != NULL, MB_EDATA, "%s cannot be read as sound: %s", path,
               sf_strerror(NULL));
    MB_REQUIRE(s->info.samplerate >= LEAST_RATE && s->info.samplerate <= MOST_RATE, MB_EDATA,
               "%s has %d samples a second, expected %d to %d", path, s->info.samplerate,
               LEAST_RATE, MOST_RATE);
    MB_REQUIRE(s->info.channels >= 1 && s->info.channels <= MOST_CHANNELS, MB_EDATA,
               "%s has %d channels, expected 1 to %d", path, s->info.channels, MOST_CHANNELS);
    MB_TRY(check_length(s));
    MB_REQUIRE(s->info.frames > 0, MB_EDATA, "%s holds no sound", path);
    MB_REQUIRE(s->info.frames < (int64_t)1 << 40, MB_EDATA,
               "%s does not say how long it is, or is longer than any sound", path);
    return MB_OK;
}

static mb_audio_info info_of(const struct sound *s)
{
    return (mb_audio_info){.frames = s->info.frames,
                           .samples = mb_resampled(s->info.frames, s->info.samplerate),
                           .rate = s->info.samplerate,
                           .channels = s->info.channels};
}

mb_status mb_audio_look(const char *path, mb_audio_info *out)
{
    struct sound s;
    mb_status st;

    MB_TRY_GOTO(open_sound(path, &s), st, done);
    *out = info_of(&s);
done:
    close_sound(&s);
    return st;
}

/* The mean of the channels, in place: n frames of `channels` become n samples. */
static mb_status mix(const struct sound *s, float *x, int64_t n)
{
    const int channels = s->info.channels;

    for (int64_t i = 0; i < n; i++) {
        float sum = 0.0f;

        for (int c = 0; c < channels; c++)
            sum += x[i * channels + c];
        x[i] = channels == 1 ? sum : sum / (float)channels;
        MB_REQUIRE(isfinite(x[i]), MB_EDATA, "%s holds samples that are not numbers", s->path);
    }
    return MB_OK;
}

/* The frames that an MP3 decoder gives are not quite those that were counted beforehand. */
static bool counts_exactly(const struct sound *s)
{
    return (s->info.format & SF_FORMAT_TYPEMASK) != SF_FORMAT_MPEG;
}

static mb_status decode(const struct sound *s, float *piece, mb_resampler *r)
{
    int64_t done = 0;

    for (;;) {
        const int64_t n = sf_readf_float(s->file, piece, PIECE);

        MB_REQUIRE(n >= 0 && sf_error(s->file) == SF_ERR_NO_ERROR, MB_EDATA,
                   "%s cannot be decoded after %lld of %lld frames: %s", s->path, (long long)done,
                   (long long)s->info.frames, sf_strerror(s->file));
        if (n == 0)
            break;
        MB_TRY(mix(s, piece, n));
        MB_TRY(mb_resampler_put(r, piece, n));
        done += n;
    }
    MB_REQUIRE(done >= s->info.frames || !counts_exactly(s), MB_EDATA,
               "%s is cut short: its header promises %lld frames, it holds %lld", s->path,
               (long long)s->info.frames, (long long)done);
    return mb_resampler_end(r);
}

mb_status mb_audio_read(const char *path, double seconds, float **x, int64_t *n)
{
    struct sound s;
    mb_resampler *r = NULL;
    float *piece = NULL, *all = NULL;
    mb_status st;

    MB_TRY_GOTO(open_sound(path, &s), st, done);
    const mb_audio_info info = info_of(&s);
    if ((double)info.frames > seconds * info.rate) {
        st = MB_RAISE(MB_EDATA, "%s lasts %.1f seconds, expected at most %g", path,
                      (double)info.frames / info.rate, seconds);
        goto done;
    }
    MB_TRY_GOTO(MB_NEW_ARRAY(&all, info.samples), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&piece, (int64_t)PIECE * info.channels), st, done);
    MB_TRY_GOTO(mb_resampler_new(info.rate, MB_AUDIO_RATE, all, info.samples, &r), st, done);
    st = decode(&s, piece, r);
    if (st == MB_OK) {
        *x = all;
        *n = info.samples;
        all = NULL;
    }
done:
    mb_resampler_free(r);
    mb_free(piece);
    mb_free(all);
    close_sound(&s);
    return st;
}
