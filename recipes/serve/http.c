/* recipes/serve/http.c - the server of http.h: the way of a request, starting and stopping. */
#include "recipes/serve/http.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "recipes/serve/http_server.h"

enum {
    THREADS = 2,
    CONNECTIONS = 4096,
    HEAD_MAX = 16 << 10,
    POOL_SPARE = 16 << 10, /* of a connection, for answers' heads */
    IDLE_SECONDS = 60,
    HEADER_SECONDS = 20,
    OTHER_DESCRIPTORS = 256,
};
static const int64_t BODIES_MAX = (int64_t)512 << 20;

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
    mb_http_enter(q->s, q->c, ANSWER, 0);
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
    const bool has = mb_http_has_body(q, &length);
    const char *expect = mb_http_head(q, "Expect");
    mb_status st;

    q->begun = true;
    note_peer(q);
    snprintf(q->method, sizeof q->method, "%s", method);
    mb_http_enter(q->s, q->c, BODY, 0);
    st = mb_http_begin(q, has, length);
    if (st != MB_OK && q->response == NULL)
        st = mb_http_refuse_failed(q, st, mb_status_sentence());
    mb_status_clear();
    if (q->response == NULL)
        return st == MB_OK ? MHD_YES : MHD_NO;
    q->over = true;
    /* a client that is still writing would not read the answer */
    return has && expect == NULL && length <= MB_HTTP_DRAIN_MAX && q->status != 501
               ? MHD_YES
               : send_response(q);
}

static enum MHD_Result last_call(mb_http_request *q)
{
    mb_status st = q->route->handler(q->s->o.arg, q);

    if (q->response == NULL && q->reply == NULL) {
        if (st == MB_OK)
            st = MB_RAISE(MB_EBUG, "nothing answers");
        st = mb_http_refuse_failed(q, st, mb_status_sentence());
    }
    mb_status_clear();
    mb_http_forget_body(q);
    if (q->response != NULL)
        return send_response(q);
    mb_http_enter(q->s, q->c, ANSWER, 0);
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
        const bool go_on = mb_http_take(q, data, *n);

        mb_http_enter(q->s, q->c, BODY, (int64_t)*n);
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
        mb_http_watch(q->s, c, NULL);
        pthread_mutex_lock(&r->lock);
        r->c = NULL;
        atomic_store(&r->gone, true);
        pthread_mutex_unlock(&r->lock);
        mb_http_reply_let_go(r);
    }
    mb_http_enter(q->s, c, HEAD, 0);
    if (q->route != NULL && q->route->drop != NULL && q->piecewise)
        q->route->drop(q->state);
    if (q->response != NULL)
        MHD_destroy_response(q->response);
    mb_http_forget_body(q);
    mb_http_forget_added(q->added, &q->n_added);
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
        MHD_OPTION_NOTIFY_CONNECTION, mb_http_on_connection, s, MHD_OPTION_THREAD_POOL_SIZE,
        (unsigned)s->o.threads, MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.max_connections,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)s->o.max_per_address,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)s->o.head_max + POOL_SPARE,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)s->o.idle_seconds, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_END);
    failed =
        s->daemon == NULL ? EAGAIN : pthread_create(&s->watcher, NULL, mb_http_watch_clients, s);
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
        mb_http_reply_resume(r);
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
