/* recipes/data/listen.c - see recipes/data/listen.h.
 *
 * A ring of places: expect fills it at `expected`, threads make the features of `begun`, take empties
 * it at `taken`; the three only grow, and place i is i mod ahead.
 */
#include "recipes/data/listen.h"

#include <pthread.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/media/audio.h"
#include "recipes/media/mel.h"

enum { MOST_THREADS = 16 };

struct place {
    const mb_store *store;
    int64_t row;
    float *frames;
    bool ready;
    mb_status st;
    char *sentence; /* owned; of a failure */
};

struct mb_listener {
    mb_frames frames;
    mb_mel *mel;
    struct place *place;
    float *memory;
    int64_t ahead, expected, begun, taken;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t thread[MOST_THREADS];
    int n_threads;
    bool ending;
};

static mb_status listen(const mb_listener *l, const mb_store *s, int64_t row, float *to)
{
    const int64_t frames = 2 * l->frames.tokens;
    const char *path = mb_store_media(s, row);
    char place[MB_STORE_PLACE];
    float *x = NULL;
    int64_t n = 0;
    mb_status st = mb_audio_read(path, (double)frames * MB_MEL_HOP / MB_AUDIO_RATE, &x, &n);

    if (st != MB_OK)
        return mb_status_prefix(st, "%s: ", mb_store_place(s, row, place, sizeof place));
    mb_mel_compute(l->mel, x, n, frames, to);
    mb_free(x);
    return MB_OK;
}

static void make(mb_listener *l, struct place *p)
{
    p->st = listen(l, p->store, p->row, p->frames);
    if (p->st == MB_OK)
        return;
    if (mb_strdup(mb_status_sentence(), &p->sentence) != MB_OK)
        p->sentence = NULL;
    mb_status_clear();
}

static void *run(void *arg)
{
    mb_listener *l = arg;

    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->ending && l->begun == l->expected)
            pthread_cond_wait(&l->work, &l->lock);
        if (l->ending)
            break;
        struct place *p = &l->place[l->begun++ % l->ahead];

        pthread_mutex_unlock(&l->lock);
        make(l, p);
        pthread_mutex_lock(&l->lock);
        p->ready = true;
        pthread_cond_broadcast(&l->done);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

mb_status mb_listener_new(const mb_frames *f, int64_t ahead, int threads, mb_listener **out)
{
    const int64_t each = 2 * f->tokens * f->bins;
    mb_listener *l;
    mb_status st;

    MB_TRY(MB_NEW(&l));
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->done, NULL);
    l->frames = *f;
    l->ahead = ahead;
    MB_TRY_GOTO(mb_mel_new(f->bins, &l->mel), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&l->place, ahead), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&l->memory, ahead * each), st, fail);
    for (int64_t i = 0; i < ahead; i++)
        l->place[i].frames = l->memory + i * each;
    while (l->n_threads < threads && l->n_threads < MOST_THREADS) {
        if (pthread_create(&l->thread[l->n_threads], NULL, run, l) != 0) {
            st = MB_RAISE(MB_ENOMEM, "no thread can be started to read sounds");
            goto fail;
        }
        l->n_threads++;
    }
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
    pthread_mutex_lock(&l->lock);
    l->ending = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_threads; i++)
        pthread_join(l->thread[i], NULL);
    for (int64_t i = 0; l->place != NULL && i < l->ahead; i++)
        mb_free(l->place[i].sentence);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->done);
    pthread_mutex_destroy(&l->lock);
    mb_mel_free(l->mel);
    mb_free(l->memory);
    mb_free(l->place);
    mb_free(l);
}

void mb_listener_expect(mb_listener *l, const mb_store *s, const int64_t *row, int64_t n)
{
    if (l->n_threads == 0)
        return;
    pthread_mutex_lock(&l->lock);
    for (int64_t i = 0; i < n && l->expected - l->taken < l->ahead; i++) {
        struct place *p = &l->place[l->expected++ % l->ahead];

        p->store = s;
        p->row = row[i];
        p->ready = false;
    }
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
}

bool mb_listener_idle(const mb_listener *l)
{
    return l->expected == l->taken;
}

void mb_listener_need(mb_listener *l, const mb_store *s, const int64_t *row, int64_t n)
{
    if (mb_listener_idle(l))
        mb_listener_expect(l, s, row, n);
}

/* The first place when it holds this row, once it is ready. */
static struct place *first(mb_listener *l, const mb_store *s, int64_t row)
{
    struct place *p = &l->place[l->taken % l->ahead];

    pthread_mutex_lock(&l->lock);
    if (l->taken == l->expected || p->store != s || p->row != row)
        p = NULL;
    while (p != NULL && !p->ready)
        pthread_cond_wait(&l->done, &l->lock);
    pthread_mutex_unlock(&l->lock);
    return p;
}

mb_status mb_listener_take(mb_listener *l, const mb_store *s, int64_t row, float *to)
{
    struct place *p = first(l, s, row);
    mb_status st;

    if (p == NULL)
        return listen(l, s, row, to);
    st = p->st;
    if (st == MB_OK)
        memcpy(to, p->frames, (size_t)(2 * l->frames.tokens * l->frames.bins) * sizeof *to);
    else
        st = MB_RAISE(st, "%s", p->sentence != NULL ? p->sentence : "not enough memory");
    mb_free(p->sentence);
    p->sentence = NULL;
    pthread_mutex_lock(&l->lock);
    l->taken++;
    pthread_mutex_unlock(&l->lock);
    return st;
}
