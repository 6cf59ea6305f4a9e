/* recipes/serve/http_request.c - what is asked of a request; the checks it passes first; its body. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/serve/http_server.h"

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

bool mb_http_has_body(const mb_http_request *q, int64_t *length)
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
mb_status mb_http_begin(mb_http_request *q, bool has, int64_t length)
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

void mb_http_forget_body(mb_http_request *q)
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
bool mb_http_take(mb_http_request *q, const char *data, size_t n)
{
    mb_status st;

    if (!q->over) {
        st = take_wanted(q, data, n);
        if (st != MB_OK)
            mb_http_refuse_failed(q, st, mb_status_sentence());
        mb_status_clear();
        if (q->response != NULL) {
            q->over = true;
            q->drained = 0;
            mb_http_forget_body(q);
        }
        return true;
    }
    q->drained += (int64_t)n;
    return q->drained <= MB_HTTP_DRAIN_MAX;
}
