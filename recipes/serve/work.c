/* recipes/serve/work.c - requests that take time and are no text: one thread, one after the other. */
#include "core/alloc.h"
#include "recipes/serve/api_inside.h"

static const size_t MOST_BYTES = (size_t)512 << 20; /* of bodies that wait or are at work */

static void *work(void *arg)
{
    mb_api *a = arg;

    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (a->n_waiting == 0 && !a->stops)
            pthread_cond_wait(&a->changed, &a->lock);
        if (a->stops)
            break;
        const struct waiting w = a->waiting[a->first];

        a->first = (a->first + 1) % a->o.queue;
        a->n_waiting--;
        a->busy = true;
        pthread_mutex_unlock(&a->lock);
        if (mb_http_reply_gone(w.reply))
            mb_http_reply_drop(w.reply);
        else
            w.work.run(a, w.work.own, w.reply);
        w.work.release(w.work.own);
        mb_status_clear();
        pthread_mutex_lock(&a->lock);
        a->bytes -= w.bytes;
        a->busy = false;
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* Those whose clients hung up leave; the others keep their order. With the lock held. */
static void drop_gone(mb_api *a)
{
    for (int64_t n = a->n_waiting; n > 0; n--) {
        const struct waiting w = a->waiting[a->first];

        a->first = (a->first + 1) % a->o.queue;
        if (mb_http_reply_gone(w.reply)) {
            mb_http_reply_drop(w.reply);
            w.work.release(w.work.own);
            a->bytes -= w.bytes;
            a->n_waiting--;
        } else {
            a->waiting[(a->first + a->n_waiting - 1) % a->o.queue] = w;
        }
    }
}

static bool has_room(mb_api *a, size_t bytes)
{
    return !a->stops && a->n_waiting < a->o.queue && a->bytes + bytes <= MOST_BYTES;
}

mb_status mb_api_work(mb_api *a, mb_http_request *q, const mb_work *w)
{
    size_t bytes;
    bool full;

    mb_http_whole(q, &bytes);
    pthread_mutex_lock(&a->lock);
    if (!has_room(a, bytes))
        drop_gone(a);
    full = !has_room(a, bytes);
    if (!full) {
        struct waiting *at = &a->waiting[(a->first + a->n_waiting) % a->o.queue];
        const mb_status st = mb_http_later(q, &at->reply);

        if (st != MB_OK) {
            pthread_mutex_unlock(&a->lock);
            w->release(w->own);
            return st;
        }
        at->work = *w;
        at->bytes = bytes;
        a->bytes += bytes;
        a->n_waiting++;
        pthread_cond_signal(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    if (full) {
        const mb_fault f = {.status = 429, .code = "rate_limit_exceeded"};

        w->release(w->own);
        MB_TRY(mb_http_add(q, "Retry-After", "2"));
        return mb_api_refuse(q, MB_RAISE(MB_EARG, "too many requests wait: come again"), &f);
    }
    return MB_OK;
}

mb_status mb_api_work_start(mb_api *a)
{
    sigset_t all, before;
    int failed;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&a->worker, NULL, work, a);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    MB_REQUIRE(failed == 0, MB_ENOMEM, "a thread cannot be started");
    a->works = true;
    return MB_OK;
}

void mb_api_work_stop(mb_api *a)
{
    if (!a->works)
        return;
    pthread_mutex_lock(&a->lock);
    a->stops = true;
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->worker, NULL);
    for (; a->n_waiting > 0; a->n_waiting--, a->first = (a->first + 1) % a->o.queue) {
        mb_http_reply_drop(a->waiting[a->first].reply);
        a->waiting[a->first].work.release(a->waiting[a->first].work.own);
    }
}
