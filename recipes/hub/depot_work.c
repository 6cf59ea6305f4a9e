/* recipes/hub/depot_work.c - one thread for requests that take their time: commits, joining parts. The
 * order they came in is the order they are done in. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/hub/depot_inside.h"

struct mb_depot_job {
    void (*run)(mb_depot *d, mb_http_reply *r, void *state);
    void (*drop)(void *state);
    void *state;
    mb_http_reply *reply;
    mb_depot_job *next;
};

/* With the lock held: after work_stop nothing may come in, for nobody would end its reply. */
static mb_status enqueue(mb_depot *d, mb_http_request *q, mb_depot_job *job)
{
    MB_REQUIRE(!d->stop, MB_EIO, "the hub is stopping");
    MB_TRY(mb_http_later(q, &job->reply));
    if (d->last != NULL)
        d->last->next = job;
    else
        d->first = job;
    d->last = job;
    pthread_cond_signal(&d->wake);
    return MB_OK;
}

mb_status mb_depot_later(mb_depot *d, mb_http_request *q,
                         void (*run)(mb_depot *d, mb_http_reply *r, void *state),
                         void (*drop)(void *state), void *state)
{
    mb_depot_job *job = NULL;
    mb_status st;

    MB_TRY_GOTO(MB_NEW(&job), st, done);
    *job = (mb_depot_job){.run = run, .drop = drop, .state = state};
    pthread_mutex_lock(&d->lock);
    st = enqueue(d, q, job);
    pthread_mutex_unlock(&d->lock);
done:
    if (st != MB_OK) {
        mb_free(job);
        drop(state);
    }
    return st;
}

static mb_depot_job *next_job(mb_depot *d)
{
    mb_depot_job *job;

    pthread_mutex_lock(&d->lock);
    while (d->first == NULL && !d->stop)
        pthread_cond_wait(&d->wake, &d->lock);
    job = d->stop ? NULL : d->first;
    if (job != NULL) {
        d->first = job->next;
        if (d->first == NULL)
            d->last = NULL;
    }
    pthread_mutex_unlock(&d->lock);
    return job;
}

static void *work(void *arg)
{
    mb_depot *d = arg;

    for (mb_depot_job *job; (job = next_job(d)) != NULL;) {
        job->run(d, job->reply, job->state);
        job->drop(job->state);
        mb_free(job);
    }
    return NULL;
}

mb_status mb_depot_work_start(mb_depot *d)
{
    MB_REQUIRE(pthread_create(&d->worker, NULL, work, d) == 0, MB_ENOMEM, "no thread can be made");
    d->working = true;
    return MB_OK;
}

void mb_depot_work_stop(mb_depot *d)
{
    if (!d->working)
        return;
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->worker, NULL);
    d->working = false;
    for (mb_depot_job *job = d->first, *next; job != NULL; job = next) {
        next = job->next;
        mb_http_reply_drop(job->reply);
        job->drop(job->state);
        mb_free(job);
    }
    d->first = d->last = NULL;
}

void mb_depot_reply_json(mb_http_reply *r, int status, mb_json_doc *doc)
{
    char *text = NULL;
    size_t n = 0;

    if (mb_json_text(mb_json_root(doc), 0, &text, &n) == MB_OK) {
        mb_http_reply_send(r, status, "application/json; charset=utf-8", text, n);
    } else {
        mb_status_clear();
        mb_http_reply_drop(r);
    }
    mb_free(text);
    mb_json_free(doc);
}

void mb_depot_reply_failed(mb_http_reply *r, mb_status st, mb_shelf_miss miss)
{
    char sentence[600], *body = NULL;
    const char *code;
    size_t n = 0;
    const int status = mb_depot_miss_status(st, miss, &code);

    snprintf(sentence, sizeof sentence, "%s", mb_status_sentence());
    mb_status_clear();
    if (status >= 500)
        mb_log_warn("%s", sentence);
    if (mb_depot_error_body(sentence, &body, &n) == MB_OK) {
        mb_http_reply_send(r, status, "application/json", body, n);
    } else {
        mb_status_clear();
        mb_http_reply_drop(r);
    }
    mb_free(body);
}
