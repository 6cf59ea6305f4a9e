/* recipes/serve/http_inside.h - what a request's line and head mean, without sockets. */
#ifndef MB_RECIPES_SERVE_HTTP_INSIDE_H
#define MB_RECIPES_SERVE_HTTP_INSIDE_H

#include <stdint.h>

#include "core/status.h"

/* ---- http_url.c: the request's target */

enum { MB_URL_PARTS = 64, MB_URL_QUERIES = 64, MB_URL_FILLS = 8 };

typedef struct mb_url {
    char *path;                     /* decoded: "/a/b" */
    char *parts;                    /* the same, zero bytes for slashes */
    const char *part[MB_URL_PARTS]; /* "a", "b"; one empty part for "/" */
    int n_parts;
    bool slash; /* a part holds a slash, which came as %2F */
    char *query_text;
    struct {
        const char *name, *value;
    } query[MB_URL_QUERIES];
    int n_queries;
} mb_url;

/* Decodes "/path?name=value". MB_EARG: not a path, %xx that is none, control characters, bytes that are
 * not UTF-8, parts "." and "..", too many parts. The caller releases *out, also after a failure. */
mb_status mb_url_parse(const char *raw, mb_url *out) MB_MUST_USE;
void mb_url_release(mb_url *u);

/* A {name} of a pattern and the parts it stands for. */
typedef struct mb_url_fill {
    const char *name; /* borrowed from the pattern */
    size_t n_name;
    int first, count;
} mb_url_fill;

/* Does the path fit a route's pattern (http.h)? */
bool mb_url_fits(const mb_url *u, const char *pattern, mb_url_fill fill[MB_URL_FILLS],
                 int *n_fills);
/* The parts of a fill, with slashes between them, owned by the caller. */
mb_status mb_url_filled(const mb_url *u, const mb_url_fill *f, char **out) MB_MUST_USE;

/* ---- http_names.c: who is spoken to, and from where */

/* "name", "name:80", "[::1]:80" in two: the name in lower case and without brackets, the port or -1. */
bool mb_host_split(const char *host, char *name, size_t size, int *port);
/* localhost and names under it, 127.0.0.0/8, ::1. */
bool mb_host_is_loopback(const char *name);
bool mb_host_is_number(const char *name); /* an IP address */
/* Is `origin` (of a browser) http or https to `host`, its port included? */
bool mb_origin_is_host(const char *origin, const char *host);
/* The same, with any port, to one of `names` (NULL-terminated or NULL). */
bool mb_origin_is_named(const char *origin, const char *const *names);

/* ---- http_range.c */

typedef enum mb_range_kind { MB_RANGE_ALL, MB_RANGE_PART, MB_RANGE_BEYOND } mb_range_kind;

/* What a Range header (or NULL) asks of `size` bytes: everything for what is not one range of bytes. */
mb_range_kind mb_range_read(const char *header, int64_t size, int64_t *first, int64_t *count);
/* Does a list of entity tags ("*", W/"x", "y") hold `etag` (without quotes)? */
bool mb_etag_listed(const char *list, const char *etag);

#endif
