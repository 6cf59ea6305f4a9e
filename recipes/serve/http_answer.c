/* recipes/serve/http_answer.c - answers that are there at once, refusals, files and their parts. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/serve/http_server.h"

void mb_http_forget_added(struct added *a, int *n)
{
    for (int i = 0; i < *n; i++) {
        mb_free(a[i].name);
        mb_free(a[i].value);
    }
    *n = 0;
}

void mb_http_dress(const mb_http *s, struct MHD_Response *r, const char *type,
                   const struct added *a, int n)
{
    if (type != NULL)
        MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    for (const mb_http_header *h = s->o.headers; h != NULL && h->name != NULL; h++)
        MHD_add_response_header(r, h->name, h->value);
    for (int i = 0; i < n; i++)
        MHD_add_response_header(r, a[i].name, a[i].value);
}

struct MHD_Response *mb_http_plain(const void *body, size_t n)
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
    mb_http_dress(q->s, r, type, q->added, q->n_added);
    q->response = r;
    q->status = status;
    return MB_OK;
}

mb_status mb_http_answer(mb_http_request *q, int status, const char *type, const void *body,
                         size_t n)
{
    return set_response(q, status, type, mb_http_plain(body, n));
}

mb_status mb_http_add_to(struct added *list, int *n, const char *name, const char *value)
{
    struct added *a = &list[*n];

    MB_REQUIRE(*n < MB_HTTP_ADDED, MB_EBUG, "more than %d headers for one answer", MB_HTTP_ADDED);
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
    return mb_http_add_to(q->added, &q->n_added, name, value);
}

static mb_status answer_part(mb_http_request *q, int fd, int64_t first, int64_t count, int status,
                             const char *type)
{
    struct MHD_Response *r;

    if (count == 0) {
        close(fd);
        return set_response(q, status, type, mb_http_plain("", 0));
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
        return st != MB_OK ? st : set_response(q, 304, NULL, mb_http_plain("", 0));
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
mb_status mb_http_refuse_failed(mb_http_request *q, mb_status failed, const char *sentence)
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
