/* recipes/serve/http_reply.c - answers that come later, whole or as streams. */
#include <string.h>

#include "core/alloc.h"
#include "recipes/serve/http_server.h"

enum {
    STREAM_WAITING = 1 << 20, /* bytes */
    STREAM_LARGE = 256 << 10, /* of one write */
    STREAM_MOST = 128 << 20,
};

void mb_http_reply_let_go(mb_http_reply *r)
{
    if (atomic_fetch_sub(&r->holders, 1) != 1)
        return;
    if (r->response != NULL)
        MHD_destroy_response(r->response);
    mb_http_forget_added(r->added, &r->n_added);
    pthread_mutex_destroy(&r->lock);
    mb_free(r->data);
    mb_free(r);
}

/* With the lock held. */
void mb_http_reply_resume(mb_http_reply *r)
{
    if (!r->suspended || r->c == NULL)
        return;
    r->suspended = false;
    MHD_resume_connection(r->c);
}

mb_status mb_http_later(mb_http_request *q, mb_http_reply **out)
{
    mb_http_reply *r;

    MB_REQUIRE(q->response == NULL && q->reply == NULL, MB_EBUG, "%s %s was answered twice",
               q->method, q->url.path);
    MB_REQUIRE(!atomic_load(&q->s->stopping), MB_EIO, "the server is stopping");
    MB_TRY(MB_NEW(&r));
    pthread_mutex_init(&r->lock, NULL);
    atomic_store(&r->holders, 2);
    r->s = q->s;
    r->c = q->c;
    memcpy(r->added, q->added, sizeof r->added);
    r->n_added = q->n_added;
    q->n_added = 0;
    q->reply = r;
    mb_http_watch(q->s, q->c, r);
    r->suspended = true;
    MHD_suspend_connection(q->c);
    *out = r;
    return MB_OK;
}

void mb_http_reply_add(mb_http_reply *r, const char *name, const char *value)
{
    pthread_mutex_lock(&r->lock);
    if (mb_http_add_to(r->added, &r->n_added, name, value) != MB_OK)
        mb_status_clear();
    pthread_mutex_unlock(&r->lock);
}

static void settle(mb_http_reply *r, int status, const char *type, struct MHD_Response *response)
{
    if (response == NULL) {
        r->dropped = true;
    } else {
        mb_http_dress(r->s, response, type, r->added, r->n_added);
        r->response = response;
        r->status = status;
    }
    mb_http_reply_resume(r);
}

void mb_http_reply_send(mb_http_reply *r, int status, const char *type, const void *body, size_t n)
{
    pthread_mutex_lock(&r->lock);
    settle(r, status, type, mb_http_plain(body, n));
    pthread_mutex_unlock(&r->lock);
    mb_http_reply_let_go(r);
}

static ssize_t read_stream(void *arg, uint64_t at, char *to, size_t room)
{
    mb_http_reply *r = arg;
    ssize_t n = 0;

    pthread_mutex_lock(&r->lock);
    if (r->dropped || atomic_load(&r->gone)) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (r->n > r->at) {
        n = (ssize_t)(r->n - r->at < room ? r->n - r->at : room);
        memcpy(to, r->data + r->at, (size_t)n);
        r->at += (size_t)n;
        if (r->at == r->n)
            r->at = r->n = r->large = 0;
    } else if (r->ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (atomic_load(&r->s->stopping)) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else {
        r->suspended = true;
        MHD_suspend_connection(r->c);
    }
    pthread_mutex_unlock(&r->lock);
    return n;
}

void mb_http_reply_begin(mb_http_reply *r, int status, const char *type)
{
    pthread_mutex_lock(&r->lock);
    r->streams = true;
    settle(r, status, type,
           MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 << 10, read_stream, r, NULL));
    pthread_mutex_unlock(&r->lock);
}

/* A client cannot have read what was written at once, however fast it is: only what came in small
 * pieces since then tells that it does not read. With the lock held. */
static bool takes_nothing(const mb_http_reply *r, size_t n)
{
    const size_t from = r->large > r->at ? r->large : r->at;
    const size_t more = n >= STREAM_LARGE ? 0 : n;

    return r->n - from + more > STREAM_WAITING || r->n - r->at + n > STREAM_MOST;
}

static void forget_read(mb_http_reply *r)
{
    memmove(r->data, r->data + r->at, r->n - r->at);
    r->n -= r->at;
    r->large -= r->large < r->at ? r->large : r->at;
    r->at = 0;
}

void mb_http_reply_write(mb_http_reply *r, const void *data, size_t n)
{
    pthread_mutex_lock(&r->lock);
    if (takes_nothing(r, n))
        atomic_store(&r->gone, true);
    if (!atomic_load(&r->gone)) {
        if (r->at > 0 && r->n + n > r->capacity)
            forget_read(r);
        if (mb_grow((void **)&r->data, &r->capacity, r->n + n, 1, "a stream") == MB_OK) {
            memcpy(r->data + r->n, data, n);
            r->n += n;
            if (n >= STREAM_LARGE)
                r->large = r->n;
        } else {
            mb_status_clear();
            atomic_store(&r->gone, true);
        }
    }
    mb_http_reply_resume(r);
    pthread_mutex_unlock(&r->lock);
}

void mb_http_reply_end(mb_http_reply *r)
{
    pthread_mutex_lock(&r->lock);
    if (r->streams)
        r->ended = true;
    else
        r->dropped = true;
    mb_http_reply_resume(r);
    pthread_mutex_unlock(&r->lock);
    mb_http_reply_let_go(r);
}

bool mb_http_reply_gone(const mb_http_reply *r)
{
    return atomic_load(&r->gone);
}

void mb_http_reply_drop(mb_http_reply *r)
{
    pthread_mutex_lock(&r->lock);
    r->dropped = true;
    mb_http_reply_resume(r);
    pthread_mutex_unlock(&r->lock);
    mb_http_reply_let_go(r);
}
