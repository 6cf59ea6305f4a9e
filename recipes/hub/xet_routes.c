/* recipes/hub/xet_routes.c - uploads by Xet over HTTP; see recipes/hub/xet.h.
 *
 * Xorbs are checked as they come, in the server's threads: a piece is at most some milliseconds of
 * work. Shards take as long as their files are large; one thread of our own takes them in turn.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/hub/xet_inside.h"

enum { WAITING_MAX = 64 };

struct mb_xet_job {
    struct mb_xet_job *next;
    mb_http_reply *reply;
    char path[MB_PATH_MAX]; /* the shard */
};

/* A shard that comes in goes to a file: up to 64 MiB each, from as many clients as there are. */
struct shard {
    mb_xet *x;
    char path[MB_PATH_MAX]; /* "" once a job has it */
    int fd;
    int64_t n;
};

static mb_xet *store(void *arg)
{
    return *(mb_xet **)arg;
}

/* Is this our address, and the token good? Otherwise it has been answered. */
static bool admitted(mb_xet *x, mb_http_request *q)
{
    const char *id = mb_http_part(q, "store"), *token = mb_http_head(q, "Authorization");
    static const char bearer[] = "Bearer ";

    if (x == NULL || id == NULL || strcmp(id, x->id) != 0) {
        mb_http_refuse(q, 404, "not_found", "this address takes no uploads by Xet (any more)");
        return false;
    }
    if (token == NULL || strncmp(token, bearer, sizeof bearer - 1) != 0 ||
        !mb_xet_token_good(x, token + sizeof bearer - 1, time(NULL))) {
        mb_http_refuse(q, 401, "unauthorized",
                       "the token for uploads by Xet is missing, wrong or "
                       "too old");
        return false;
    }
    return true;
}

/* --- the token */

mb_status mb_xet_token(mb_xet *x, mb_http_request *q)
{
    const int64_t until = (int64_t)time(NULL) + x->o.token_seconds;
    char token[MB_XET_TOKEN], url[1024], exp[24], *text = NULL;
    mb_json_doc *doc = NULL;
    mb_json root;
    mb_status st;
    size_t n;

    mb_xet_token_make(x, until, token);
    snprintf(url, sizeof url, "%s/xet/%s", mb_http_origin(q), x->id);
    snprintf(exp, sizeof exp, "%lld", (long long)until);
    MB_TRY(mb_json_doc_new("a token", &doc));
    root = mb_json_root(doc);
    MB_TRY_GOTO(mb_json_set_string(root, "accessToken", token), st, done);
    MB_TRY_GOTO(mb_json_set_int(root, "exp", until), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "casUrl", url), st, done);
    MB_TRY_GOTO(mb_json_text(root, 0, &text, &n), st, done);
    MB_TRY_GOTO(mb_http_add(q, "X-Xet-Access-Token", token), st, done);
    MB_TRY_GOTO(mb_http_add(q, "X-Xet-Token-Expiration", exp), st, done);
    MB_TRY_GOTO(mb_http_add(q, "X-Xet-Cas-Url", url), st, done);
    MB_TRY_GOTO(mb_http_add(q, "Cache-Control", "no-store"), st, done);
    st = mb_http_answer(q, 200, "application/json", text, n);
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

/* --- xorbs */

static mb_status xorb_begin(void *arg, mb_http_request *q, void **state)
{
    mb_xet_coming *c;

    if (!admitted(store(arg), q))
        return MB_OK;
    MB_TRY(mb_xet_coming_new(store(arg), mb_http_part(q, "hash"), &c));
    *state = c;
    return MB_OK;
}

static mb_status xorb_piece(void *state, const void *data, size_t n)
{
    return mb_xet_coming_add(state, data, n);
}

static mb_status xorb_end(void *arg, mb_http_request *q)
{
    bool inserted;

    MB_TRY(mb_xet_coming_end(mb_http_state(q), &inserted));
    const char *text = inserted ? "{\"was_inserted\":true}" : "{\"was_inserted\":false}";
    return mb_http_answer(q, 200, "application/json", text, strlen(text));
}

static void xorb_drop(void *state)
{
    mb_xet_coming_free(state);
}

/* --- shards: in */

static void shard_drop(void *state)
{
    struct shard *s = state;

    if (s == NULL)
        return;
    if (s->fd >= 0)
        close(s->fd);
    if (s->path[0] != '\0')
        unlink(s->path);
    mb_free(s);
}

static mb_status shard_begin(void *arg, mb_http_request *q, void **state)
{
    struct shard *s;
    mb_status st;

    if (!admitted(store(arg), q))
        return MB_OK;
    MB_TRY(MB_NEW(&s));
    s->x = store(arg);
    s->fd = -1;
    st = mb_xet_scratch(s->x, s->path, sizeof s->path, &s->fd);
    if (st != MB_OK)
        shard_drop(s);
    else
        *state = s;
    return st;
}

static mb_status shard_piece(void *state, const void *data, size_t n)
{
    struct shard *s = state;

    MB_TRY(mb_pwrite_all(s->fd, data, n, s->n, s->path));
    s->n += (int64_t)n;
    return MB_OK;
}

/* Into the queue, unless it is full or closed: then *queued is false. */
static mb_status enqueue(struct shard *s, mb_http_request *q, bool *queued)
{
    struct mb_xet_job *job = NULL;
    mb_xet *x = s->x;
    mb_status st;

    MB_TRY(MB_NEW(&job));
    pthread_mutex_lock(&x->lock);
    *queued = !x->stopping && x->waiting < WAITING_MAX;
    st = *queued ? mb_http_later(q, &job->reply) : MB_OK;
    if (st == MB_OK && *queued) {
        memcpy(job->path, s->path, sizeof job->path);
        s->path[0] = '\0';
        *x->last = job;
        x->last = &job->next;
        x->waiting++;
        job = NULL;
        pthread_cond_signal(&x->wake);
    }
    pthread_mutex_unlock(&x->lock);
    mb_free(job);
    return st;
}

static mb_status shard_end(void *arg, mb_http_request *q)
{
    bool queued;

    MB_TRY(enqueue(mb_http_state(q), q, &queued));
    if (queued)
        return MB_OK;
    MB_TRY(mb_http_add(q, "Retry-After", "5"));
    return mb_http_refuse(q, 503, "busy", "%d shards wait already", WAITING_MAX);
}

/* --- shards: the thread that puts files together */

static mb_status job_run(mb_xet *x, const struct mb_xet_job *job)
{
    char *shard;
    mb_status st;
    size_t n;

    MB_TRY(mb_file_read(job->path, MB_XET_SHARD_MAX, &shard, &n));
    st = mb_xet_files(x, (const uint8_t *)shard, n);
    mb_free(shard);
    return st;
}

static void job_end(struct mb_xet_job *job, mb_status st)
{
    static const char done[] = "{\"result\":1}";
    const char *sentence = mb_status_sentence();

    if (st == MB_OK)
        mb_http_reply_send(job->reply, 200, "application/json", done, sizeof done - 1);
    else
        mb_http_reply_send(job->reply, st == MB_EARG ? 400 : 500, "text/plain; charset=utf-8",
                           sentence, strlen(sentence));
    mb_status_clear();
    unlink(job->path);
    mb_free(job);
}

static void *work(void *arg)
{
    mb_xet *x = arg;

    pthread_mutex_lock(&x->lock);
    for (;;) {
        while (x->first == NULL && !x->stopping)
            pthread_cond_wait(&x->wake, &x->lock);
        if (x->stopping)
            break;
        struct mb_xet_job *job = x->first;
        x->first = job->next;
        if (x->first == NULL)
            x->last = &x->first;
        x->waiting--;
        pthread_mutex_unlock(&x->lock);
        job_end(job, job_run(x, job));
        pthread_mutex_lock(&x->lock);
    }
    pthread_mutex_unlock(&x->lock);
    return NULL;
}

mb_status mb_xet_worker_start(mb_xet *x)
{
    const int e = pthread_create(&x->worker, NULL, work, x);

    MB_REQUIRE(e == 0, MB_ENOMEM, "no thread for uploads: %s", strerror(e));
    x->started = true;
    return MB_OK;
}

void mb_xet_stop(mb_xet *x)
{
    if (x == NULL || !x->started)
        return;
    pthread_mutex_lock(&x->lock);
    x->stopping = true;
    pthread_cond_signal(&x->wake);
    pthread_mutex_unlock(&x->lock);
    pthread_join(x->worker, NULL); /* after the shard it is at */
    x->started = false;
    for (struct mb_xet_job *job = x->first, *next; job != NULL; job = next) {
        next = job->next;
        mb_http_reply_drop(job->reply);
        unlink(job->path);
        mb_free(job);
    }
    x->first = NULL;
    x->last = &x->first;
}

/* --- everything else: clients ask, and do without. What they send is read, so that they hear it. */

static mb_status nothing_piece(void *state, const void *data, size_t n)
{
    return MB_OK;
}

static mb_status nothing(void *arg, mb_http_request *q)
{
    return mb_http_refuse(q, 404, "not_found", "not here");
}

const mb_http_route mb_xet_routes[MB_XET_ROUTES] = {
    {.method = "POST",
     .path = "/xet/{store}/v1/xorbs/default/{hash}",
     .handler = xorb_end,
     .body = MB_HTTP_PIECES,
     .body_max = MB_XET_XORB_MAX + MB_XET_FOOTER_MAX,
     .flags = MB_HTTP_OPEN,
     .begin = xorb_begin,
     .piece = xorb_piece,
     .drop = xorb_drop},
    {.method = "POST",
     .path = "/xet/{store}/v1/shards",
     .handler = shard_end,
     .body = MB_HTTP_PIECES,
     .body_max = MB_XET_SHARD_MAX,
     .flags = MB_HTTP_OPEN,
     .begin = shard_begin,
     .piece = shard_piece,
     .drop = shard_drop},
    {.method = "POST",
     .path = "/xet/{rest*}",
     .handler = nothing,
     .body = MB_HTTP_PIECES,
     .body_max = MB_XET_SHARD_MAX,
     .flags = MB_HTTP_OPEN,
     .piece = nothing_piece},
    {.method = "GET", .path = "/xet/{rest*}", .handler = nothing, .flags = MB_HTTP_OPEN},
};
