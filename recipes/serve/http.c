/* recipes/serve/http.c - the server of http.h over libmicrohttpd, which speaks HTTP.
 *
 * A few threads with epoll serve all connections. A request that is answered later is suspended: its
 * connection is then in nobody's epoll, so a thread of ours watches its socket for the client hanging
 * up. The same thread closes connections that take too long (the library's own limit begins anew with
 * every byte).
 *
 * Locks: server.lock (places), then reply.lock. The library's are taken inside both.
 */
#include "recipes/serve/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/serve/http_inside.h"

enum {
    THREADS = 2,
    CONNECTIONS = 4096,
    HEAD_MAX = 16 << 10,
    POOL_SPARE = 16 << 10, /* of a connection, for answers' heads */
    IDLE_SECONDS = 60,
    HEADER_SECONDS = 20,
    BODY_GRACE_SECONDS = 30,
    BODY_LEAST_RATE = 256,    /* bytes per second */
    DRAIN_MAX = 8 << 20,      /* of a refused body, so that the client reads why */
    STREAM_WAITING = 1 << 20, /* bytes */
    STREAM_LARGE = 256 << 10, /* of one write */
    STREAM_MOST = 128 << 20,
    ADDED = 16, /* headers of one answer */
    OTHER_DESCRIPTORS = 256,
};
static const int64_t BODIES_MAX = (int64_t)512 << 20;

typedef enum phase { CLOSED, HEAD, BODY, ANSWER } phase;

/* A connection, by its descriptor. */
struct place {
    phase phase;
    bool first; /* no request has been answered yet */
    uint32_t turn;
    double since; /* of the phase */
    int64_t bytes;
    mb_http_reply *reply; /* watched for its client */
};

struct added {
    char *name, *value;
};

struct mb_http {
    struct MHD_Daemon *daemon;
    mb_http_options o;
    int port;
    bool any_address;
    char bound[INET6_ADDRSTRLEN], machine[256];
    atomic_bool stopping, quiet;
    atomic_int inside; /* calls into handlers */
    atomic_llong body_bytes;
    pthread_mutex_t lock;
    struct place *place;
    size_t n_places;
    int epoll;
    pthread_t watcher;
    bool watches;
};

struct mb_http_request {
    mb_http *s;
    struct MHD_Connection *c;
    char *raw;
    char method[16];
    mb_url url;
    const mb_http_route *route;
    mb_url_fill fill[MB_URL_FILLS];
    char *filled[MB_URL_FILLS];
    int n_fills;
    char origin[300], peer[INET6_ADDRSTRLEN];
    bool begun, piecewise, over; /* over: no more of the body is wanted */
    mb_status failed;            /* of `begin` or `piece` */
    char *sentence;
    void *state;
    char *body;
    size_t n_body, body_capacity;
    int64_t drained;
    struct added added[ADDED];
    int n_added;
    struct MHD_Response *response;
    int status;
    mb_http_reply *reply;
};

struct mb_http_reply {
    pthread_mutex_t lock;
    atomic_int holders; /* whoever answers, and the request */
    atomic_bool gone;
    mb_http *s;
    struct MHD_Connection *c; /* NULL: ended */
    bool suspended, dropped, streams, ended;
    struct added added[ADDED];
    int n_added;
    struct MHD_Response *response;
    int status;
    char *data;
    size_t at, n, capacity;
    size_t large; /* until here data is of large writes, and what stood before them */
};

/* ---- answers ------------------------------------------------------------------------------ */

static void forget_added(struct added *a, int *n)
{
    for (int i = 0; i < *n; i++) {
        mb_free(a[i].name);
        mb_free(a[i].value);
    }
    *n = 0;
}

static void dress(const mb_http *s, struct MHD_Response *r, const char *type, const struct added *a,
                  int n)
{
    if (type != NULL)
        MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    for (const mb_http_header *h = s->o.headers; h != NULL && h->name != NULL; h++)
        MHD_add_response_header(r, h->name, h->value);
    for (int i = 0; i < n; i++)
        MHD_add_response_header(r, a[i].name, a[i].value);
}

static struct MHD_Response *plain(const void *body, size_t n)
{
    return MHD_create_response_from_buffer(n, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
}

static mb_status set_response(mb_http_request *q, int status, const char *type,
                              struct MHD_Response *r)
{
    if (q->response != NULL || q->reply != NULL) {
        if (r != NULL)
            MHD_destroy_response(r);
        return MB_RAISE(MB_EBUG, "%s %s was answered twice", q->method, q->url.path);
    }
    MB_REQUIRE(r != NULL, MB_ENOMEM, "not enough memory for an answer");
    dress(q->s, r, type, q->added, q->n_added);
    q->response = r;
    q->status = status;
    return MB_OK;
}

mb_status mb_http_answer(mb_http_request *q, int status, const char *type, const void *body,
                         size_t n)
{
    return set_response(q, status, type, plain(body, n));
}

static mb_status add(struct added *list, int *n, const char *name, const char *value)
{
    struct added *a = &list[*n];

    MB_REQUIRE(*n < ADDED, MB_EBUG, "more than %d headers for one answer", ADDED);
    MB_REQUIRE(strpbrk(value, "\r\n") == NULL && strpbrk(name, "\r\n: ") == NULL, MB_EARG,
               "the header %.40s would hold a line break", name);
    MB_TRY(mb_strdup(name, &a->name));
    if (mb_strdup(value, &a->value) != MB_OK) {
        mb_free(a->name);
        return MB_ENOMEM;
    }
    ++*n;
    return MB_OK;
}

mb_status mb_http_add(mb_http_request *q, const char *name, const char *value)
{
    return add(q->added, &q->n_added, name, value);
}

static mb_status answer_part(mb_http_request *q, int fd, int64_t first, int64_t count, int status,
                             const char *type)
{
    struct MHD_Response *r;

    if (count == 0) {
        close(fd);
        return set_response(q, status, type, plain("", 0));
    }
    r = MHD_create_response_from_fd_at_offset64((uint64_t)count, fd, (uint64_t)first);
    if (r == NULL)
        close(fd);
    return set_response(q, status, type, r);
}

mb_status mb_http_answer_file(mb_http_request *q, int fd, int64_t size, const char *type,
                              const char *etag)
{
    const char *range = mb_http_head(q, "Range"), *condition = mb_http_head(q, "If-None-Match");
    const char *if_range = mb_http_head(q, "If-Range");
    char quoted[160], place[96];
    int64_t first, count;
    mb_range_kind kind;
    mb_status st = mb_http_add(q, "Accept-Ranges", "bytes");

    if (etag != NULL && st == MB_OK) {
        snprintf(quoted, sizeof quoted, "\"%s\"", etag);
        st = mb_http_add(q, "ETag", quoted);
    }
    if (st != MB_OK || (etag != NULL && condition != NULL && mb_etag_listed(condition, etag))) {
        close(fd);
        return st != MB_OK ? st : set_response(q, 304, NULL, plain("", 0));
    }
    if (if_range != NULL && (etag == NULL || strcmp(if_range, quoted) != 0))
        range = NULL;
    kind = mb_range_read(range, size, &first, &count);
    if (kind == MB_RANGE_ALL)
        return answer_part(q, fd, 0, size, 200, type);
    if (kind == MB_RANGE_BEYOND) {
        close(fd);
        snprintf(place, sizeof place, "bytes */%lld", (long long)size);
        MB_TRY(mb_http_add(q, "Content-Range", place));
        return mb_http_refuse(q, 416, "range_not_satisfiable", "the file has %lld bytes",
                              (long long)size);
    }
    snprintf(place, sizeof place, "bytes %lld-%lld/%lld", (long long)first,
             (long long)(first + count - 1), (long long)size);
    st = mb_http_add(q, "Content-Range", place);
    if (st != MB_OK) {
        close(fd);
        return st;
    }
    return answer_part(q, fd, first, count, 206, type);
}

static mb_status refuse_with(mb_http_request *q, int status, const char *what, const char *sentence)
{
    if (q->s->o.error != NULL)
        q->s->o.error(q->s->o.arg, q, status, what, sentence);
    if (q->response == NULL)
        return mb_http_answer(q, status, "text/plain; charset=utf-8", sentence, strlen(sentence));
    return MB_OK;
}

mb_status mb_http_refuse(mb_http_request *q, int status, const char *what, const char *fmt, ...)
{
    char sentence[600];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    return refuse_with(q, status, what, sentence);
}

/* Says what the recorded failure is. */
static mb_status refuse_failed(mb_http_request *q, mb_status failed, const char *sentence)
{
    char copy[600];

    snprintf(copy, sizeof copy, "%s", sentence);
    mb_status_clear();
    if (failed == MB_EARG)
        return refuse_with(q, 400, "bad_request", copy);
    if (failed == MB_EDENIED)
        return refuse_with(q, 403, "forbidden", copy);
    mb_log_warn("%s %s: %s", q->method, q->url.path, copy);
    return refuse_with(q, failed == MB_ENOMEM ? 503 : 500, "server_error", copy);
}

/* ---- the request -------------------------------------------------------------------------- */

const char *mb_http_method(const mb_http_request *q)
{
    return q->method;
}

const char *mb_http_path(const mb_http_request *q)
{
    return q->url.path;
}

const char *mb_http_part(const mb_http_request *q, const char *name)
{
    for (int i = 0; i < q->n_fills; i++)
        if (strlen(name) == q->fill[i].n_name && memcmp(name, q->fill[i].name, strlen(name)) == 0)
            return q->filled[i];
    return NULL;
}

const char *mb_http_query(const mb_http_request *q, const char *name)
{
    for (int i = 0; i < q->url.n_queries; i++)
        if (strcmp(q->url.query[i].name, name) == 0)
            return q->url.query[i].value;
    return NULL;
}

const char *mb_http_head(const mb_http_request *q, const char *name)
{
    return MHD_lookup_connection_value(q->c, MHD_HEADER_KIND, name);
}

const void *mb_http_whole(const mb_http_request *q, size_t *n)
{
    *n = q->n_body;
    return q->body != NULL ? q->body : "";
}

void *mb_http_state(const mb_http_request *q)
{
    return q->state;
}

const char *mb_http_origin(const mb_http_request *q)
{
    return q->origin;
}

const char *mb_http_peer(const mb_http_request *q)
{
    return q->peer;
}

/* ---- what a request passes first ---------------------------------------------------------- */

struct head_count {
    size_t bytes;
    int hosts, lengths, codings;
};

static enum MHD_Result count_header(void *arg, enum MHD_ValueKind kind, const char *name,
                                    const char *value)
{
    struct head_count *c = arg;

    c->bytes += strlen(name) + (value != NULL ? strlen(value) : 0) + 4;
    c->hosts += strcasecmp(name, "Host") == 0;
    c->lengths += strcasecmp(name, "Content-Length") == 0;
    c->codings += strcasecmp(name, "Transfer-Encoding") == 0;
    return MHD_YES;
}

static bool may_be_named(const mb_http *s, const char *name)
{
    if (mb_host_is_loopback(name) || strcmp(name, s->bound) == 0)
        return true;
    for (const char *const *h = s->o.hosts; h != NULL && *h != NULL; h++)
        if (strcasecmp(name, *h) == 0)
            return true;
    if (!s->any_address)
        return false;
    /* no DNS stands between an address and its machine */
    if (mb_host_is_number(name) || strcasecmp(name, s->machine) == 0)
        return true;
    const size_t n = strlen(s->machine);
    return strncasecmp(name, s->machine, n) == 0 && strcasecmp(name + n, ".local") == 0;
}

static mb_status check_names(mb_http_request *q)
{
    const char *host = mb_http_head(q, "Host"), *origin = mb_http_head(q, "Origin");
    char name[256];
    int port;

    if (host == NULL || !mb_host_split(host, name, sizeof name, &port))
        return mb_http_refuse(q, 400, "bad_request",
                              "the request's Host header is missing or wrong");
    if (!may_be_named(q->s, name))
        return mb_http_refuse(q, 403, "forbidden", "this server is not called %.100s", name);
    if (origin != NULL && !mb_origin_is_host(origin, host) &&
        !mb_origin_is_named(origin, q->s->o.hosts))
        return mb_http_refuse(q, 403, "forbidden", "requests from pages of %.100s are refused",
                              origin);
    snprintf(q->origin, sizeof q->origin, "http://%s", host);
    return MB_OK;
}

static mb_status check_head(mb_http_request *q)
{
    const char *coding = mb_http_head(q, "Transfer-Encoding");
    struct head_count c = {.bytes = strlen(q->raw)};

    MHD_get_connection_values(q->c, MHD_HEADER_KIND, count_header, &c);
    if (c.bytes > (size_t)q->s->o.head_max)
        return mb_http_refuse(q, 431, "head_too_large", "the request's head has more than %d bytes",
                              q->s->o.head_max);
    if (c.hosts > 1 || c.lengths > 1 || c.codings > 1 || (c.lengths > 0 && c.codings > 0))
        return mb_http_refuse(q, 400, "bad_request",
                              "the request has two of Host, Content-Length, Transfer-Encoding");
    if (coding != NULL && strcasecmp(coding, "chunked") != 0)
        return mb_http_refuse(q, 501, "not_implemented", "Transfer-Encoding can be chunked alone");
    return MB_OK;
}

/* Finds the route, or answers 404 or 405. */
static mb_status find_route(mb_http_request *q)
{
    const char *method = strcmp(q->method, "HEAD") == 0 ? "GET" : q->method;
    char allow[128] = "";
    size_t n = 0;

    for (const mb_http_route *r = q->s->o.routes; r->method != NULL; r++) {
        if ((q->url.slash && !(r->flags & MB_HTTP_SLASHES)) ||
            !mb_url_fits(&q->url, r->path, q->fill, &q->n_fills))
            continue;
        if (strcmp(r->method, method) == 0) {
            for (int i = 0; i < q->n_fills; i++)
                MB_TRY(mb_url_filled(&q->url, &q->fill[i], &q->filled[i]));
            q->route = r;
            return MB_OK;
        }
        if (strstr(allow, r->method) == NULL && n < sizeof allow - 32)
            n += (size_t)snprintf(allow + n, sizeof allow - n, "%s%s%s", n > 0 ? ", " : "",
                                  r->method, strcmp(r->method, "GET") == 0 ? ", HEAD" : "");
    }
    q->n_fills = 0;
    if (n == 0)
        return mb_http_refuse(q, 404, "not_found", "there is nothing at %.200s", q->url.path);
    MB_TRY(mb_http_add(q, "Allow", allow));
    return mb_http_refuse(q, 405, "method_not_allowed", "%.200s takes %s, not %s", q->url.path,
                          allow, q->method);
}

static bool has_body(const mb_http_request *q, int64_t *length)
{
    const char *text = mb_http_head(q, "Content-Length");
    char *end;

    *length = -1;
    if (mb_http_head(q, "Transfer-Encoding") != NULL)
        return true;
    if (text == NULL)
        return false;
    errno = 0;
    *length = strtoll(text, &end, 10); /* the library has refused what is no number */
    return *length != 0;
}

static mb_status check_body(mb_http_request *q, bool has, int64_t length)
{
    const mb_http_route *r = q->route;

    if (has && r->body == MB_HTTP_NONE)
        return mb_http_refuse(q, 400, "bad_request", "%.200s takes no body", q->url.path);
    if (has && length > r->body_max)
        return mb_http_refuse(q, 413, "too_large", "a body of %lld bytes; %.200s takes %lld",
                              (long long)length, q->url.path, (long long)r->body_max);
    if (r->body == MB_HTTP_PIECES && r->begin != NULL) {
        MB_TRY(r->begin(q->s->o.arg, q, &q->state));
        q->piecewise = q->response == NULL;
    }
    return MB_OK;
}

/* The checks in their order, until one has answered. */
static mb_status begin(mb_http_request *q, bool has, int64_t length)
{
    MB_TRY(check_head(q));
    if (q->response == NULL)
        MB_TRY(check_names(q));
    if (q->response == NULL)
        MB_TRY(mb_url_parse(q->raw, &q->url));
    if (q->response == NULL)
        MB_TRY(find_route(q));
    if (q->response == NULL && q->s->o.allow != NULL && !(q->route->flags & MB_HTTP_OPEN))
        MB_TRY(q->s->o.allow(q->s->o.arg, q));
    if (q->response == NULL)
        MB_TRY(check_body(q, has, length));
    return MB_OK;
}

/* ---- bodies ------------------------------------------------------------------------------- */

static mb_status keep(mb_http_request *q, const char *data, size_t n)
{
    const size_t before = q->body_capacity;

    if (q->body_capacity < q->n_body + n + 1) { /* a zero byte follows, for readers of text */
        MB_TRY(mb_grow((void **)&q->body, &q->body_capacity, q->n_body + n + 1, 1, "a body"));
        const int64_t held =
            atomic_fetch_add(&q->s->body_bytes, (long long)(q->body_capacity - before));
        if (held > q->s->o.bodies_max) {
            MB_TRY(mb_http_add(q, "Retry-After", "5"));
            return mb_http_refuse(q, 503, "busy", "too many requests are being received");
        }
    }
    memcpy(q->body + q->n_body, data, n);
    q->n_body += n;
    return MB_OK;
}

static void forget_body(mb_http_request *q)
{
    atomic_fetch_sub(&q->s->body_bytes, (long long)q->body_capacity);
    mb_free(q->body);
    q->body = NULL;
    q->n_body = q->body_capacity = 0;
}

static mb_status take_wanted(mb_http_request *q, const char *data, size_t n)
{
    const mb_http_route *r = q->route;

    q->drained += (int64_t)n;
    if (q->drained > r->body_max)
        return mb_http_refuse(q, 413, "too_large", "%.200s takes %lld bytes", q->url.path,
                              (long long)r->body_max);
    if (r->body == MB_HTTP_WHOLE)
        return keep(q, data, n);
    return r->piece(q->state, data, n);
}

/* One piece of the body. False: enough of it was read for nothing. */
static bool take(mb_http_request *q, const char *data, size_t n)
{
    mb_status st;

    if (!q->over) {
        st = take_wanted(q, data, n);
        if (st != MB_OK)
            refuse_failed(q, st, mb_status_sentence());
        mb_status_clear();
        if (q->response != NULL) {
            q->over = true;
            q->drained = 0;
            forget_body(q);
        }
        return true;
    }
    q->drained += (int64_t)n;
    return q->drained <= DRAIN_MAX;
}

/* ---- places: connections and how long they take ------------------------------------------- */

static int descriptor(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);

    return i != NULL ? i->connect_fd : -1;
}

static void enter(mb_http *s, struct MHD_Connection *c, phase p, int64_t bytes)
{
    const int fd = descriptor(c);

    pthread_mutex_lock(&s->lock);
    if (fd >= 0 && (size_t)fd < s->n_places) {
        struct place *at = &s->place[fd];

        if (at->phase != p)
            at->since = mb_clock();
        at->first = at->phase == CLOSED || (at->first && p != ANSWER);
        at->bytes = p == BODY && at->phase == BODY ? at->bytes + bytes : 0;
        at->turn += p == CLOSED;
        at->phase = p;
    }
    pthread_mutex_unlock(&s->lock);
}

static void on_connection(void *arg, struct MHD_Connection *c, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    const int one = 1;

    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        setsockopt(descriptor(c), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    enter(arg, c, what == MHD_CONNECTION_NOTIFY_STARTED ? HEAD : CLOSED, 0);
}

static void watch(mb_http *s, struct MHD_Connection *c, mb_http_reply *r)
{
    const int fd = descriptor(c);
    struct epoll_event e = {.events = EPOLLRDHUP};

    pthread_mutex_lock(&s->lock);
    if (fd >= 0 && (size_t)fd < s->n_places) {
        struct place *at = &s->place[fd];

        at->reply = r;
        at->turn++;
        e.data.u64 = (uint64_t)at->turn << 32 | (uint32_t)fd;
        epoll_ctl(s->epoll, r != NULL ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &e);
    }
    pthread_mutex_unlock(&s->lock);
}

static void note_gone(mb_http *s, uint64_t of)
{
    const uint32_t fd = (uint32_t)of;

    pthread_mutex_lock(&s->lock);
    if (fd < s->n_places && s->place[fd].turn == of >> 32 && s->place[fd].reply != NULL) {
        atomic_store(&s->place[fd].reply->gone, true);
        epoll_ctl(s->epoll, EPOLL_CTL_DEL, (int)fd, NULL); /* said once */
    }
    pthread_mutex_unlock(&s->lock);
}

static bool takes_too_long(const mb_http *s, const struct place *at, double now)
{
    const double seconds = now - at->since;

    if (at->phase == HEAD)
        return seconds > s->o.header_seconds + (at->first ? 0 : s->o.idle_seconds);
    return at->phase == BODY && seconds > BODY_GRACE_SECONDS &&
           (double)at->bytes < seconds * BODY_LEAST_RATE;
}

static void close_slow(mb_http *s)
{
    const double now = mb_clock();

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n_places; i++)
        if (takes_too_long(s, &s->place[i], now))
            shutdown((int)i, SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
}

static void *watch_clients(void *arg)
{
    mb_http *s = arg;
    struct epoll_event e[64];
    double swept = mb_clock();

    while (!atomic_load(&s->stopping)) {
        const int n = epoll_wait(s->epoll, e, 64, 250);

        for (int i = 0; i < n; i++)
            note_gone(s, e[i].data.u64);
        if (mb_clock() - swept > 0.5) {
            close_slow(s);
            swept = mb_clock();
        }
    }
    return NULL;
}

/* ---- answering later ---------------------------------------------------------------------- */

static void let_go(mb_http_reply *r)
{
    if (atomic_fetch_sub(&r->holders, 1) != 1)
        return;
    if (r->response != NULL)
        MHD_destroy_response(r->response);
    forget_added(r->added, &r->n_added);
    pthread_mutex_destroy(&r->lock);
    mb_free(r->data);
    mb_free(r);
}

/* With the lock held. */
static void resume(mb_http_reply *r)
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
    watch(q->s, q->c, r);
    r->suspended = true;
    MHD_suspend_connection(q->c);
    *out = r;
    return MB_OK;
}

void mb_http_reply_add(mb_http_reply *r, const char *name, const char *value)
{
    pthread_mutex_lock(&r->lock);
    if (add(r->added, &r->n_added, name, value) != MB_OK)
        mb_status_clear();
    pthread_mutex_unlock(&r->lock);
}

static void settle(mb_http_reply *r, int status, const char *type, struct MHD_Response *response)
{
    if (response == NULL) {
        r->dropped = true;
    } else {
        dress(r->s, response, type, r->added, r->n_added);
        r->response = response;
        r->status = status;
    }
    resume(r);
}

void mb_http_reply_send(mb_http_reply *r, int status, const char *type, const void *body, size_t n)
{
    pthread_mutex_lock(&r->lock);
    settle(r, status, type, plain(body, n));
    pthread_mutex_unlock(&r->lock);
    let_go(r);
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
    resume(r);
    pthread_mutex_unlock(&r->lock);
}

void mb_http_reply_end(mb_http_reply *r)
{
    pthread_mutex_lock(&r->lock);
    if (r->streams)
        r->ended = true;
    else
        r->dropped = true;
    resume(r);
    pthread_mutex_unlock(&r->lock);
    let_go(r);
}

bool mb_http_reply_gone(const mb_http_reply *r)
{
    return atomic_load(&r->gone);
}

void mb_http_reply_drop(mb_http_reply *r)
{
    pthread_mutex_lock(&r->lock);
    r->dropped = true;
    resume(r);
    pthread_mutex_unlock(&r->lock);
    let_go(r);
}

/* ---- the way of a request ----------------------------------------------------------------- */

static void *on_line(void *arg, const char *raw, struct MHD_Connection *c)
{
    mb_http_request *q = NULL;

    if (MB_NEW(&q) != MB_OK || mb_strdup(raw, &q->raw) != MB_OK) {
        mb_status_clear();
        mb_free(q);
        return NULL;
    }
    q->s = arg;
    q->c = c;
    return q;
}

static enum MHD_Result send_response(mb_http_request *q)
{
    const enum MHD_Result r = MHD_queue_response(q->c, (unsigned)q->status, q->response);

    MHD_destroy_response(q->response);
    q->response = NULL;
    enter(q->s, q->c, ANSWER, 0);
    return r;
}

static void note_peer(mb_http_request *q)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(q->c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

    if (i == NULL || i->client_addr == NULL)
        return;
    if (i->client_addr->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)i->client_addr)->sin_addr, q->peer,
                  sizeof q->peer);
    else if (i->client_addr->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)i->client_addr)->sin6_addr, q->peer,
                  sizeof q->peer);
}

static enum MHD_Result first_call(mb_http_request *q, const char *method)
{
    int64_t length;
    const bool has = has_body(q, &length);
    const char *expect = mb_http_head(q, "Expect");
    mb_status st;

    q->begun = true;
    note_peer(q);
    snprintf(q->method, sizeof q->method, "%s", method);
    enter(q->s, q->c, BODY, 0);
    st = begin(q, has, length);
    if (st != MB_OK && q->response == NULL)
        st = refuse_failed(q, st, mb_status_sentence());
    mb_status_clear();
    if (q->response == NULL)
        return st == MB_OK ? MHD_YES : MHD_NO;
    q->over = true;
    /* a client that is still writing would not read the answer */
    return has && expect == NULL && length <= DRAIN_MAX && q->status != 501 ? MHD_YES
                                                                            : send_response(q);
}

static enum MHD_Result last_call(mb_http_request *q)
{
    mb_status st = q->route->handler(q->s->o.arg, q);

    if (q->response == NULL && q->reply == NULL) {
        if (st == MB_OK)
            st = MB_RAISE(MB_EBUG, "nothing answers");
        st = refuse_failed(q, st, mb_status_sentence());
    }
    mb_status_clear();
    forget_body(q);
    if (q->response != NULL)
        return send_response(q);
    enter(q->s, q->c, ANSWER, 0);
    return q->reply != NULL ? MHD_YES : MHD_NO;
}

/* The connection is resumed: its answer is there, or there will be none. */
static enum MHD_Result resumed(mb_http_request *q)
{
    mb_http_reply *r = q->reply;
    enum MHD_Result result = MHD_NO;

    pthread_mutex_lock(&r->lock);
    if (r->response != NULL && !r->dropped)
        result = MHD_queue_response(q->c, (unsigned)r->status, r->response);
    pthread_mutex_unlock(&r->lock);
    return result;
}

static enum MHD_Result call(mb_http_request *q, const char *method, const char *data, size_t *n)
{
    if (!q->begun)
        return first_call(q, method);
    if (*n > 0) {
        const bool go_on = take(q, data, *n);

        enter(q->s, q->c, BODY, (int64_t)*n);
        *n = 0;
        return go_on ? MHD_YES : MHD_NO;
    }
    if (q->reply != NULL)
        return resumed(q);
    if (q->response != NULL)
        return send_response(q);
    return last_call(q);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **context)
{
    mb_http_request *q = *context;
    mb_http *s = arg;
    enum MHD_Result r;

    if (q == NULL)
        return MHD_NO;
    atomic_fetch_add(&s->inside, 1);
    if (atomic_load(&s->quiet) && q->reply == NULL && q->response == NULL) {
        if (!q->begun && *n == 0 &&
            mb_http_refuse(q, 503, "stopping", "the server is stopping") == MB_OK)
            r = send_response(q);
        else
            r = MHD_NO;
    } else {
        r = call(q, method, data, n);
    }
    atomic_fetch_sub(&s->inside, 1);
    return r;
}

static void on_completed(void *arg, struct MHD_Connection *c, void **context,
                         enum MHD_RequestTerminationCode why)
{
    mb_http_request *q = *context;
    mb_http_reply *r;

    if (q == NULL)
        return;
    *context = NULL;
    r = q->reply;
    if (r != NULL) {
        watch(q->s, c, NULL);
        pthread_mutex_lock(&r->lock);
        r->c = NULL;
        atomic_store(&r->gone, true);
        pthread_mutex_unlock(&r->lock);
        let_go(r);
    }
    enter(q->s, c, HEAD, 0);
    if (q->route != NULL && q->route->drop != NULL && q->piecewise)
        q->route->drop(q->state);
    if (q->response != NULL)
        MHD_destroy_response(q->response);
    forget_body(q);
    forget_added(q->added, &q->n_added);
    for (int i = 0; i < q->n_fills; i++)
        mb_free(q->filled[i]);
    mb_url_release(&q->url);
    mb_free(q->raw);
    mb_free(q);
    mb_status_clear();
}

/* ---- starting and stopping ---------------------------------------------------------------- */

static mb_status read_address(const mb_http_options *o, struct sockaddr_storage *to, socklen_t *n)
{
    const char *text = o->address != NULL ? o->address : "127.0.0.1";
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;

    if (strcmp(text, "localhost") == 0)
        text = "127.0.0.1";
    MB_REQUIRE(o->port >= 0 && o->port <= 65535, MB_EARG, "port %d is none: 0 to 65535", o->port);
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)o->port);
        *n = sizeof *v4;
        return MB_OK;
    }
    MB_REQUIRE(
        inet_pton(AF_INET6, text, &v6->sin6_addr) == 1, MB_EARG,
        "%.100s is not an address of this machine: write 127.0.0.1, 0.0.0.0, ::1 or the like",
        text);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)o->port);
    *n = sizeof *v6;
    return MB_OK;
}

static mb_status listen_at(mb_http *s, struct sockaddr_storage *at, socklen_t n, int *out)
{
    const int fd = socket(at->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int one = 1, zero = 0;
    const char *name = s->o.address != NULL ? s->o.address : "127.0.0.1";

    MB_REQUIRE(fd >= 0, MB_EARG, "no socket for %.100s: %s", name, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (at->ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (bind(fd, (struct sockaddr *)at, n) != 0 || listen(fd, 1024) != 0 ||
        getsockname(fd, (struct sockaddr *)at, &n) != 0) {
        const int why = errno;

        close(fd);
        return MB_RAISE(MB_EARG, "%.100s port %d cannot be listened on: %s", name, s->o.port,
                        strerror(why));
    }
    if (at->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (struct sockaddr_in *)at;

        s->port = ntohs(v4->sin_port);
        s->any_address = v4->sin_addr.s_addr == INADDR_ANY;
        inet_ntop(AF_INET, &v4->sin_addr, s->bound, sizeof s->bound);
    } else {
        const struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)at;

        s->port = ntohs(v6->sin6_port);
        s->any_address = IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr);
        inet_ntop(AF_INET6, &v6->sin6_addr, s->bound, sizeof s->bound);
    }
    *out = fd;
    return MB_OK;
}

/* As many descriptors as connections need; fewer connections where they are not to be had. */
static mb_status make_room(mb_http *s)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)s->o.max_connections + OTHER_DESCRIPTORS;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        limit.rlim_cur = limit.rlim_max = 1024;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur < wanted)
        s->o.max_connections = limit.rlim_cur > OTHER_DESCRIPTORS + 16
                                   ? (int)(limit.rlim_cur - OTHER_DESCRIPTORS)
                                   : 16;
    /* descriptors are the lowest free ones; other files of the process have theirs in between */
    s->n_places = (size_t)s->o.max_connections + 16 * OTHER_DESCRIPTORS;
    return MB_NEW_ARRAY(&s->place, s->n_places);
}

static mb_status start_daemon(mb_http *s, int fd, bool v6)
{
    const unsigned flags =
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_SUSPEND_RESUME | (v6 ? MHD_USE_IPv6 : 0);
    sigset_t all, before;
    int failed;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    s->daemon = MHD_start_daemon(
        flags, (uint16_t)s->port, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_URI_LOG_CALLBACK, on_line, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_THREAD_POOL_SIZE,
        (unsigned)s->o.threads, MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.max_connections,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)s->o.max_per_address,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)s->o.head_max + POOL_SPARE,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)s->o.idle_seconds, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_END);
    failed = s->daemon == NULL ? EAGAIN : pthread_create(&s->watcher, NULL, watch_clients, s);
    s->watches = failed == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (s->daemon == NULL)
        close(fd);
    MB_REQUIRE(failed == 0, MB_ENOMEM, "the server's threads cannot be started");
    return MB_OK;
}

mb_status mb_http_start(const mb_http_options *o, mb_http **out)
{
    struct sockaddr_storage at = {0};
    socklen_t n = 0;
    mb_status st;
    mb_http *s;
    int fd = -1;

    MB_TRY(MB_NEW(&s));
    s->o = *o;
#define DEFAULT(field, value) s->o.field = s->o.field > 0 ? s->o.field : (value)
    DEFAULT(threads, THREADS);
    DEFAULT(max_connections, CONNECTIONS);
    DEFAULT(max_per_address, s->o.max_connections);
    DEFAULT(head_max, HEAD_MAX);
    DEFAULT(idle_seconds, IDLE_SECONDS);
    DEFAULT(header_seconds, HEADER_SECONDS);
    DEFAULT(bodies_max, BODIES_MAX);
#undef DEFAULT
    pthread_mutex_init(&s->lock, NULL);
    if (gethostname(s->machine, sizeof s->machine - 1) != 0)
        s->machine[0] = '\0';
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    MB_TRY_GOTO(read_address(o, &at, &n), st, done);
    MB_TRY_GOTO(make_room(s), st, done);
    MB_TRY_GOTO(listen_at(s, &at, n, &fd), st, done);
    MB_TRY_GOTO(start_daemon(s, fd, at.ss_family == AF_INET6), st, done);
    *out = s;
done:
    if (st != MB_OK)
        mb_http_stop(s);
    return st;
}

int mb_http_port(const mb_http *s)
{
    return s->port;
}

void mb_http_quiesce(mb_http *s)
{
    const struct timespec moment = {.tv_nsec = 1000000};

    atomic_store(&s->quiet, true);
    while (atomic_load(&s->inside) > 0)
        nanosleep(&moment, NULL);
}

void mb_http_stop(mb_http *s)
{
    if (s == NULL)
        return;
    atomic_store(&s->stopping, true);
    if (s->watches)
        pthread_join(s->watcher, NULL);
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n_places && s->place != NULL; i++) {
        mb_http_reply *r = s->place[i].reply;

        if (r == NULL)
            continue;
        atomic_store(&r->gone, true);
        pthread_mutex_lock(&r->lock);
        resume(r);
        pthread_mutex_unlock(&r->lock);
    }
    pthread_mutex_unlock(&s->lock);
    if (s->daemon != NULL)
        MHD_stop_daemon(s->daemon);
    if (s->epoll >= 0)
        close(s->epoll);
    pthread_mutex_destroy(&s->lock);
    mb_free(s->place);
    mb_free(s);
}
