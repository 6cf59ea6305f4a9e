/* recipes/serve/http_server.h - what the files of the server share that speak with libmicrohttpd.
 *
 *     http.c           starting and stopping; the way of a request through the library's calls
 *     http_request.c   what is asked of a request; the checks it passes first; its body
 *     http_answer.c    answers that are there at once, refusals, files and their parts
 *     http_reply.c     answers that come later, whole or as streams
 *     http_places.c    connections: how long they may take, and clients that hang up
 *
 * A few threads with epoll serve all connections. A request that is answered later is suspended: its
 * connection is then in nobody's epoll, so a thread of ours watches its socket for the client hanging
 * up. The same thread closes connections that take too long (the library's own limit begins anew with
 * every byte).
 *
 * Locks: server.lock (places), then reply.lock. The library's are taken inside both.
 */
#ifndef MB_RECIPES_SERVE_HTTP_SERVER_H
#define MB_RECIPES_SERVE_HTTP_SERVER_H

#include <arpa/inet.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "recipes/serve/http.h"
#include "recipes/serve/http_inside.h"

enum {
    MB_HTTP_ADDED = 16,          /* headers of one answer */
    MB_HTTP_DRAIN_MAX = 8 << 20, /* of a refused body, so that the client reads why */
};

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
    struct added added[MB_HTTP_ADDED];
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
    struct added added[MB_HTTP_ADDED];
    int n_added;
    struct MHD_Response *response;
    int status;
    char *data;
    size_t at, n, capacity;
    size_t large; /* until here data is of large writes, and what stood before them */
};

/* http_answer.c */
void mb_http_forget_added(struct added *a, int *n);
/* One more header; MB_EARG: it would hold a line break. */
mb_status mb_http_add_to(struct added *list, int *n, const char *name,
                         const char *value) MB_MUST_USE;
/* The headers of every answer, and those that were added to this one. type may be NULL. */
void mb_http_dress(const mb_http *s, struct MHD_Response *r, const char *type,
                   const struct added *a, int n);
struct MHD_Response *mb_http_plain(const void *body, size_t n); /* copies; NULL: no memory */
/* Says what the recorded failure is. */
mb_status mb_http_refuse_failed(mb_http_request *q, mb_status failed, const char *sentence);

/* http_request.c */
/* Is a body announced? *length: -1 where it is not said. */
bool mb_http_has_body(const mb_http_request *q, int64_t *length);
/* The checks in their order, until one has answered. */
mb_status mb_http_begin(mb_http_request *q, bool has, int64_t length) MB_MUST_USE;
/* One piece of the body. False: enough of it was read for nothing. */
bool mb_http_take(mb_http_request *q, const char *data, size_t n);
void mb_http_forget_body(mb_http_request *q);

/* http_places.c */
/* The connection's request is in this phase now, or `bytes` of its body have come. */
void mb_http_enter(mb_http *s, struct MHD_Connection *c, phase p, int64_t bytes);
void mb_http_on_connection(void *server, struct MHD_Connection *c, void **context,
                           enum MHD_ConnectionNotificationCode what);
/* Its client is watched for hanging up, for this reply; NULL: no longer. */
void mb_http_watch(mb_http *s, struct MHD_Connection *c, mb_http_reply *r);
void *mb_http_watch_clients(void *server); /* the watching thread */

/* http_reply.c */
void mb_http_reply_let_go(mb_http_reply *r); /* the last of two holders frees it */
void mb_http_reply_resume(mb_http_reply *r); /* with its lock held */

#endif
