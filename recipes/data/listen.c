/* recipes/data/listen.c - see recipes/data/listen.h; who reads ahead is recipes/data/ahead.c. */
#include "recipes/data/listen.h"

#include "core/alloc.h"
#include "recipes/data/ahead.h"
#include "recipes/media/audio.h"
#include "recipes/media/mel.h"

struct mb_listener {
    mb_frames frames;
    mb_mel *mel;
    mb_ahead *ahead;
};

static mb_status listen(void *ctx, int thread, const mb_ahead_row *row, float *to)
{
    const mb_listener *l = ctx;
    const int64_t frames = 2 * l->frames.tokens;
    const char *path = mb_store_media(row->store, row->row);
    char place[MB_STORE_PLACE];
    float *x = NULL;
    int64_t n = 0;
    mb_status st = mb_audio_read(path, (double)frames * MB_MEL_HOP / MB_AUDIO_RATE, &x, &n);

    (void)thread;
    if (st != MB_OK)
        return mb_status_prefix(st,
                                "%s: ", mb_store_place(row->store, row->row, place, sizeof place));
    mb_mel_compute(l->mel, x, n, frames, to);
    mb_free(x);
    return MB_OK;
}

mb_status mb_listener_new(const mb_frames *f, int64_t ahead, int threads, mb_listener **out)
{
    mb_listener *l;
    mb_status st;

    MB_TRY(MB_NEW(&l));
    l->frames = *f;
    MB_TRY_GOTO(mb_mel_new(f->bins, &l->mel), st, fail);
    MB_TRY_GOTO(mb_ahead_new(listen, l, 2 * f->tokens * f->bins, ahead, threads, &l->ahead), st,
                fail);
    *out = l;
    return MB_OK;
fail:
    mb_listener_free(l);
    return st;
}

void mb_listener_free(mb_listener *l)
{
    if (l == NULL)
        return;
    mb_ahead_free(l->ahead);
    mb_mel_free(l->mel);
    mb_free(l);
}

void mb_listener_expect(mb_listener *l, const mb_store *s, const int64_t *row, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!mb_ahead_expect(l->ahead, &(mb_ahead_row){.store = s, .row = row[i]}))
            return;
}

bool mb_listener_idle(const mb_listener *l)
{
    return mb_ahead_idle(l->ahead);
}

void mb_listener_need(mb_listener *l, const mb_store *s, const int64_t *row, int64_t n)
{
    if (mb_listener_idle(l))
        mb_listener_expect(l, s, row, n);
}

mb_status mb_listener_take(mb_listener *l, const mb_store *s, int64_t row, float *to)
{
    return mb_ahead_take(l->ahead, &(mb_ahead_row){.store = s, .row = row}, to);
}
