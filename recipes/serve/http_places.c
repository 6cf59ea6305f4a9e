/* recipes/serve/http_places.c - connections: how long they may take, and clients that hang up. */
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "core/log.h"
#include "recipes/serve/http_server.h"

enum {
    BODY_GRACE_SECONDS = 30,
    BODY_LEAST_RATE = 256, /* bytes per second */
};

static int descriptor(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);

    return i != NULL ? i->connect_fd : -1;
}

void mb_http_enter(mb_http *s, struct MHD_Connection *c, phase p, int64_t bytes)
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

void mb_http_on_connection(void *arg, struct MHD_Connection *c, void **context,
                           enum MHD_ConnectionNotificationCode what)
{
    const int one = 1;

    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        setsockopt(descriptor(c), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    mb_http_enter(arg, c, what == MHD_CONNECTION_NOTIFY_STARTED ? HEAD : CLOSED, 0);
}

void mb_http_watch(mb_http *s, struct MHD_Connection *c, mb_http_reply *r)
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

void *mb_http_watch_clients(void *arg)
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
