/* recipes/serve/http.h - an HTTP/1.1 server: routes, limits, answers now, later or piece by piece.
 *
 *     static const mb_http_route routes[] = {
 *         {"GET", "/health", health, .flags = MB_HTTP_OPEN},
 *         {"GET", "/v1/models/{id*}", model},
 *         {"POST", "/v1/chat/completions", chat, .body = MB_HTTP_WHOLE, .body_max = 4 << 20},
 *         {0},
 *     };
 *     MB_TRY(mb_http_start(&(mb_http_options){.address = "127.0.0.1", .routes = routes}, &server));
 *     ...                                       handlers run on the server's threads
 *     mb_http_stop(server);
 *
 * A handler is called once the request (with MB_HTTP_WHOLE: and its body) is there, on one of a few
 * threads that serve all connections: it must not wait. It answers with mb_http_answer or
 * mb_http_answer_file, or takes an mb_http_reply that any thread answers later. A handler that
 * returns a failure without having answered has the failure's sentence sent as an error: MB_EARG as
 * 400, others as 500.
 *
 * What every request passes before any handler: the limits below; Host must be a loopback name, the
 * address bound to (with "0.0.0.0" or "::" any address, and this machine's name), or one of `hosts`
 * (against DNS rebinding); an Origin, if any, must be that Host with its port, or one of `hosts`; the
 * key, unless the route is MB_HTTP_OPEN. HEAD is answered wherever GET is. An unknown path is 404, a
 * known one with another method 405 with Allow. Closed are connections that are silent for
 * idle_seconds, take longer than header_seconds over a request's head, or whose body comes with less
 * than 256 bytes a second. Paths are decoded; one with a part "." or "..", a zero byte, a control
 * character or bytes that are not UTF-8 is 400.
 *
 * Every answer carries X-Content-Type-Options: nosniff, and what `headers` adds.
 */
#ifndef MB_RECIPES_SERVE_HTTP_H
#define MB_RECIPES_SERVE_HTTP_H

#include <stdint.h>

#include "core/status.h"

typedef struct mb_http mb_http;
typedef struct mb_http_request mb_http_request; /* valid until its handler has answered */
typedef struct mb_http_reply mb_http_reply;

typedef mb_status (*mb_http_handler)(void *arg, mb_http_request *q);

enum {
    MB_HTTP_OPEN = 1,    /* needs no key */
    MB_HTTP_SLASHES = 2, /* its parts may hold slashes that came as %2F; elsewhere these are 404 */
};

typedef enum mb_http_body {
    MB_HTTP_NONE,   /* a request with a body is refused */
    MB_HTTP_WHOLE,  /* in memory before the handler is called; at most body_max bytes, else 413 */
    MB_HTTP_PIECES, /* given to `piece` as it comes; at most body_max bytes in all */
} mb_http_body;

typedef struct mb_http_route {
    const char *method;
    const char *path; /* "/v1/files/{id}": one part; "{name*}" at any one place: one or more parts,
                         with their slashes. The first route that fits is taken. */
    mb_http_handler handler;
    mb_http_body body;
    int64_t body_max; /* bytes */
    unsigned flags;
    /* MB_HTTP_PIECES. `begin` is called before the first byte and may refuse (then neither of the
     * others is called) or leave its state in *state; `piece` gets the bytes; `handler` is called
     * after the last. `drop` frees the state in the end, whatever happened. */
    mb_status (*begin)(void *arg, mb_http_request *q, void **state);
    mb_status (*piece)(void *state, const void *data, size_t n);
    void (*drop)(void *state);
} mb_http_route;

typedef struct mb_http_header {
    const char *name, *value;
} mb_http_header;

typedef struct mb_http_options {
    const char *address; /* "127.0.0.1", "::1", "0.0.0.0", "::"; NULL: 127.0.0.1 */
    int port;            /* 0: a free one */
    const mb_http_route *routes;
    void *arg;                     /* of handlers and callbacks */
    const char *const *hosts;      /* more names that Host may say; NULL-terminated, or NULL */
    const mb_http_header *headers; /* of every answer; ended by {0}; or NULL */
    /* May this request (method, path, headers) be made? Not called for MB_HTTP_OPEN. Answering in
     * it refuses; NULL: everything may. */
    mb_http_handler allow;
    /* Writes an error: mb_http_answer with a body in the protocol's form. `what` is a short word
     * ("not_found"), `sentence` says it. NULL: plain text. */
    void (*error)(void *arg, mb_http_request *q, int status, const char *what,
                  const char *sentence);
    int threads;         /* 0: 2 */
    int max_connections; /* 0: 4096 */
    int max_per_address; /* 0: max_connections */
    int head_max;        /* bytes of a request's head; 0: 16 KiB */
    int idle_seconds;    /* 0: 60 */
    int header_seconds;  /* 0: 20 */
    int64_t bodies_max;  /* bytes of MB_HTTP_WHOLE bodies held at one time, else 503; 0: 512 MiB */
} mb_http_options;

/* Listens when it returns. MB_EARG: an address or port that cannot be had, with why. */
mb_status mb_http_start(const mb_http_options *o, mb_http **out) MB_MUST_USE;
int mb_http_port(const mb_http *s);
/* From now on requests are answered 503; when it returns no handler runs any more. Before whatever handlers
 * use is taken down. */
void mb_http_quiesce(mb_http *s);
/* Ends open streams, waits for handlers, closes. Replies not yet answered must have been given up
 * (mb_http_reply_drop) before. NULL is allowed. */
void mb_http_stop(mb_http *s);

/* --- the request. Strings are borrowed from it, decoded (%xx), without zero bytes. */
const char *mb_http_method(const mb_http_request *q);
const char *mb_http_path(const mb_http_request *q);
const char *mb_http_part(const mb_http_request *q, const char *name);  /* of the path; NULL: none */
const char *mb_http_query(const mb_http_request *q, const char *name); /* NULL: absent */
const char *mb_http_head(const mb_http_request *q, const char *name);  /* a header; NULL: absent */
const void *mb_http_whole(const mb_http_request *q, size_t *n);        /* the body */
void *mb_http_state(const mb_http_request *q);                         /* of MB_HTTP_PIECES */
/* "http://host:port" as the client named this server. */
const char *mb_http_origin(const mb_http_request *q);
/* The client's address, "192.0.2.7". */
const char *mb_http_peer(const mb_http_request *q);

/* --- answering, once. Body and headers are copied. */
mb_status mb_http_answer(mb_http_request *q, int status, const char *type, const void *body,
                         size_t n);
/* Adds a header to the answer to come; before answering. */
mb_status mb_http_add(mb_http_request *q, const char *name, const char *value);
/* A file from `fd` (taken, closed in any case), honouring Range (one range, suffix ranges, If-Range;
 * 416 with bytes * slash size) and If-None-Match against `etag` (without quotes; NULL: none). */
mb_status mb_http_answer_file(mb_http_request *q, int fd, int64_t size, const char *type,
                              const char *etag);
/* mb_http_options.error, for what a handler finds wrong itself. */
mb_status mb_http_refuse(mb_http_request *q, int status, const char *what, const char *fmt, ...)
    MB_PRINTF(4, 5);

/* --- answering later. Takes the request out of its handler; the reply must be ended by
 * mb_http_reply_send, mb_http_reply_end or mb_http_reply_drop, each of which frees it. Everything
 * below may be called by any thread, one at a time per reply. Headers added before count. */
mb_status mb_http_later(mb_http_request *q, mb_http_reply **out) MB_MUST_USE;
void mb_http_reply_add(mb_http_reply *r, const char *name, const char *value);
void mb_http_reply_send(mb_http_reply *r, int status, const char *type, const void *body, size_t n);
/* A stream: head now, bytes as they come, ended by mb_http_reply_end. Bytes wait in memory until the
 * client takes them; more than 1 MiB waiting counts as gone. What is written by 256 KiB or more at once
 * is not counted, up to 128 MiB in all. */
void mb_http_reply_begin(mb_http_reply *r, int status, const char *type);
void mb_http_reply_write(mb_http_reply *r, const void *data, size_t n);
void mb_http_reply_end(mb_http_reply *r);
/* Nobody is waiting any more: the client hung up (also when it closed its side only), or the server
 * stops. Seen within milliseconds, whether or not anything is written. */
bool mb_http_reply_gone(const mb_http_reply *r);
/* Closes the connection without an answer. */
void mb_http_reply_drop(mb_http_reply *r);

#endif
