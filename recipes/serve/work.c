/* recipes/serve/work.c - requests that take time and are no text: one thread, one after the other. */
#include <string.h>

#include "core/alloc.h"
#include "recipes/serve/api_inside.h"

static const size_t MOST_BYTES = (size_t)512 << 20; /* of bodies that wait or are at work */

static void forget(const struct waiting *w)
{
    w->work->release(w->own);
    mb_free(w->own);
}

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
            w.work->run(a, w.own, w.reply);
        forget(&w);
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
            forget(&w);
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

static mb_status read_json(mb_api *a, mb_http_request *q, const struct waiting *w, mb_fault *f)
{
    mb_json_doc *doc;
    mb_status st;

    MB_TRY(mb_api_body(q, &doc));
    st = w->work->json(a, mb_json_root(doc), w->own, f);
    mb_json_free(doc);
    return st;
}

static mb_status read_form(mb_api *a, mb_http_request *q, const struct waiting *w, mb_fault *f)
{
    size_t n;
    const char *body = mb_http_whole(q, &n);
    mb_form *form;
    mb_status st;

    MB_TRY(MB_NEW(&form));
    st = mb_form_parse(mb_http_head(q, "Content-Type"), body, n, form);
    if (st == MB_OK)
        st = w->work->form(a, form, w->own, f);
    mb_free(form);
    return st;
}

static bool is_form(const mb_http_request *q, const mb_work *w)
{
    const char *type = mb_http_head(q, "Content-Type");

    return w->json == NULL ||
           (w->form != NULL && type != NULL && strncmp(type, "multipart/", 10) == 0);
}

/* *full: it is not taken. */
static mb_status take(mb_api *a, mb_http_request *q, struct waiting *w, bool *full)
{
    mb_status st = MB_OK;

    pthread_mutex_lock(&a->lock);
    if (!has_room(a, w->bytes))
        drop_gone(a);
    *full = !has_room(a, w->bytes);
    if (!*full)
        st = mb_http_later(q, &w->reply);
    if (!*full && st == MB_OK) {
        a->waiting[(a->first + a->n_waiting) % a->o.queue] = *w;
        a->bytes += w->bytes;
        a->n_waiting++;
        pthread_cond_signal(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    return st;
}

mb_status mb_api_work(mb_api *a, mb_http_request *q, const mb_work *work)
{
    struct waiting w = {.work = work};
    mb_fault f = {0};
    bool full = false;
    mb_status st;

    mb_http_whole(q, &w.bytes);
    MB_TRY(mb_alloc(work->bytes, "a request", &w.own));
    st = is_form(q, work) ? read_form(a, q, &w, &f) : read_json(a, q, &w, &f);
    if (st != MB_OK) {
        forget(&w);
        return mb_api_refuse(q, st, &f);
    }
    st = take(a, q, &w, &full);
    if (st == MB_OK && !full)
        return MB_OK;
    forget(&w);
    MB_TRY(st);
    f = (mb_fault){.status = 429, .code = "rate_limit_exceeded"};
    MB_TRY(mb_http_add(q, "Retry-After", "2"));
    return mb_api_refuse(q, MB_RAISE(MB_EARG, "too many requests wait: come again"), &f);
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
        forget(&a->waiting[a->first]);
    }
}
