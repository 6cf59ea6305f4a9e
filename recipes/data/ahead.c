/* recipes/data/ahead.c - see recipes/data/ahead.h.
 *
 * A ring of places: expect fills it at `expected`, threads make what is at `begun`, take empties it at
 * `taken`; the three only grow, and place i is i mod places. A thread works on a place of its own
 * between begun and ready, without the lock.
 */
#include "recipes/data/ahead.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

enum { SENTENCE = 512 };

struct place {
    mb_ahead_row row;
    float *numbers;
    bool ready;
    mb_status st;
    char sentence[SENTENCE];
};

struct worker {
    mb_ahead *of;
    int number;
    pthread_t thread;
};

struct mb_ahead {
    mb_ahead_fn make;
    void *ctx;
    struct place *place;
    float *memory;
    int64_t floats, places, expected, begun, taken;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    struct worker worker[MB_AHEAD_MOST_THREADS];
    int threads; /* that were started */
    bool ending;
};

static void make(mb_ahead *a, int thread, struct place *p)
{
    p->st = a->make(a->ctx, thread, &p->row, p->numbers);
    if (p->st == MB_OK)
        return;
    snprintf(p->sentence, sizeof p->sentence, "%s", mb_status_sentence());
    mb_status_clear();
}

static void *run(void *arg)
{
    const struct worker *w = arg;
    mb_ahead *a = w->of;

    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (!a->ending && a->begun == a->expected)
            pthread_cond_wait(&a->work, &a->lock);
        if (a->ending)
            break;
        struct place *p = &a->place[a->begun++ % a->places];

        pthread_mutex_unlock(&a->lock);
        make(a, w->number, p);
        pthread_mutex_lock(&a->lock);
        p->ready = true;
        pthread_cond_broadcast(&a->done);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

static mb_status start(mb_ahead *a, int threads)
{
    while (a->threads < threads && a->threads < MB_AHEAD_MOST_THREADS) {
        struct worker *w = &a->worker[a->threads];

        w->of = a;
        w->number = a->threads;
        MB_REQUIRE(pthread_create(&w->thread, NULL, run, w) == 0, MB_ENOMEM,
                   "no thread can be started to read rows ahead");
        a->threads++;
    }
    return MB_OK;
}

mb_status mb_ahead_new(mb_ahead_fn fn, void *ctx, int64_t floats, int64_t places, int threads,
                       mb_ahead **out)
{
    mb_ahead *a;
    mb_status st;

    MB_TRY(MB_NEW(&a));
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->work, NULL);
    pthread_cond_init(&a->done, NULL);
    a->make = fn;
    a->ctx = ctx;
    a->floats = floats;
    a->places = places;
    MB_TRY_GOTO(MB_NEW_ARRAY(&a->place, places), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&a->memory, places * floats), st, fail);
    for (int64_t i = 0; i < places; i++)
        a->place[i].numbers = a->memory + i * floats;
    MB_TRY_GOTO(start(a, threads), st, fail);
    *out = a;
    return MB_OK;
fail:
    mb_ahead_free(a);
    return st;
}

void mb_ahead_free(mb_ahead *a)
{
    if (a == NULL)
        return;
    pthread_mutex_lock(&a->lock);
    a->ending = true;
    pthread_cond_broadcast(&a->work);
    pthread_mutex_unlock(&a->lock);
    for (int i = 0; i < a->threads; i++)
        pthread_join(a->worker[i].thread, NULL);
    pthread_cond_destroy(&a->work);
    pthread_cond_destroy(&a->done);
    pthread_mutex_destroy(&a->lock);
    mb_free(a->memory);
    mb_free(a->place);
    mb_free(a);
}

static bool same(const mb_ahead_row *x, const mb_ahead_row *y)
{
    return x->store == y->store && x->row == y->row && x->seed == y->seed && x->step == y->step &&
           x->ordinal == y->ordinal;
}

bool mb_ahead_expect(mb_ahead *a, const mb_ahead_row *row)
{
    struct place *p = &a->place[a->expected % a->places];

    if (a->threads == 0 || a->expected - a->taken == a->places)
        return false;
    pthread_mutex_lock(&a->lock);
    p->row = *row;
    p->ready = false;
    a->expected++;
    pthread_cond_signal(&a->work);
    pthread_mutex_unlock(&a->lock);
    return true;
}

bool mb_ahead_idle(const mb_ahead *a)
{
    return a->expected == a->taken;
}

bool mb_ahead_is_next(const mb_ahead *a, const mb_ahead_row *row)
{
    return !mb_ahead_idle(a) && same(&a->place[a->taken % a->places].row, row);
}

/* Waits for the first place, which stays until it is given back. */
static struct place *first(mb_ahead *a)
{
    struct place *p = &a->place[a->taken % a->places];

    pthread_mutex_lock(&a->lock);
    while (!p->ready)
        pthread_cond_wait(&a->done, &a->lock);
    pthread_mutex_unlock(&a->lock);
    return p;
}

static void give_back(mb_ahead *a)
{
    pthread_mutex_lock(&a->lock);
    a->taken++;
    pthread_mutex_unlock(&a->lock);
}

mb_status mb_ahead_take(mb_ahead *a, const mb_ahead_row *row, float *to)
{
    mb_status st;

    if (!mb_ahead_is_next(a, row))
        return a->make(a->ctx, a->threads, row, to);
    const struct place *p = first(a);
    st = p->st == MB_OK ? MB_OK : MB_RAISE(p->st, "%s", p->sentence);
    if (st == MB_OK)
        memcpy(to, p->numbers, (size_t)a->floats * sizeof *to);
    give_back(a);
    return st;
}

void mb_ahead_forget(mb_ahead *a)
{
    while (!mb_ahead_idle(a)) {
        (void)first(a);
        give_back(a);
    }
}
