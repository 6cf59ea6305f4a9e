/* recipes/serve/parts.c - see recipes/serve/parts.h. */
#include "recipes/serve/parts.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/alloc.h"
#include "recipes/tokenizers/bytes.h"

enum { BOUNDARY_MAX = 70 /* RFC 2046 */, LINE_SPACES = 256 };

enum state {
    BEFORE, /* what stands before the first boundary: nothing, or to be left out */
    LINE,   /* behind a boundary: two dashes or the end of the line */
    HEAD,
    BODY,
    AFTER, /* whatever follows the last one */
};

struct mb_parts {
    mb_parts_calls calls;
    char mark[BOUNDARY_MAX + 5]; /* "\r\n--boundary" */
    size_t n_mark;
    enum state state;
    bool fresh; /* a body whose first held bytes are the end of its header's last line */
    mb_bytes held;
    int parts;
};

/* The value of `key` in "...; key=value; key2=\"va\\\"lue\"" into out; false: there is none. */
static bool parameter(const char *text, const char *key, char *out, size_t size, bool *fits)
{
    const size_t n_key = strlen(key);

    for (const char *p = strchr(text, ';'); p != NULL;) {
        size_t n = 0;
        bool quoted, ours;

        p += 1 + strspn(p + 1, " \t");
        ours = strncasecmp(p, key, n_key) == 0 && p[n_key] == '=';
        p += strcspn(p, "=;");
        if (*p == '\0' || *p == ';') {
            p = *p == ';' ? p : NULL;
            continue;
        }
        quoted = *++p == '"';
        p += quoted;
        for (; *p != '\0' && (quoted ? *p != '"' : *p != ';'); p++) {
            if (quoted && *p == '\\' && (p[1] == '"' || p[1] == '\\'))
                p++;
            if (ours && n + 1 < size)
                out[n] = *p;
            n++;
        }
        if (ours) {
            *fits = n < size;
            out[n < size ? n : size - 1] = '\0';
            return true;
        }
        p = strchr(p, ';');
    }
    return false;
}

static mb_status read_boundary(mb_parts *m, const char *type)
{
    char boundary[BOUNDARY_MAX + 1];
    bool fits = false;

    MB_REQUIRE(type != NULL && strncasecmp(type, "multipart/form-data", 19) == 0, MB_EARG,
               "the body must be multipart/form-data, not %.80s",
               type != NULL ? type : "of no named type");
    MB_REQUIRE(parameter(type, "boundary", boundary, sizeof boundary, &fits) && fits &&
                   boundary[0] != '\0',
               MB_EARG, "multipart/form-data without a boundary of 1 to %d bytes", BOUNDARY_MAX);
    m->n_mark = (size_t)snprintf(m->mark, sizeof m->mark, "\r\n--%s", boundary);
    return MB_OK;
}

mb_status mb_parts_new(const char *type, const mb_parts_calls *calls, mb_parts **out)
{
    mb_parts *m;
    mb_status st;

    MB_TRY(MB_NEW(&m));
    m->calls = *calls;
    MB_TRY_GOTO(read_boundary(m, type), st, fail);
    MB_TRY_GOTO(mb_bytes_puts(&m->held, "\r\n"), st, fail); /* the first needs no line before it */
    *out = m;
    return MB_OK;
fail:
    mb_parts_free(m);
    return st;
}

void mb_parts_free(mb_parts *m)
{
    if (m == NULL)
        return;
    mb_bytes_release(&m->held);
    mb_free(m);
}

static void drop(mb_parts *m, size_t n)
{
    memmove(m->held.p, m->held.p + n, m->held.n - n);
    m->held.n -= n;
}

static bool plain(const char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 32 || *s == 127)
            return false;
    return true;
}

/* The lines of a part's header, the last one ended too. */
static mb_status begin_part(mb_parts *m, char *head)
{
    static const char wanted[] = "Content-Disposition:";
    char name[MB_PARTS_NAME], filename[MB_PARTS_NAME], *rest;
    bool name_fits = false, file_fits = true, is_file;

    MB_REQUIRE(++m->parts <= MB_PARTS_MOST, MB_EARG, "the form has more than %d parts",
               MB_PARTS_MOST);
    for (char *line = strtok_r(head, "\r\n", &rest); line != NULL;
         line = strtok_r(NULL, "\r\n", &rest)) {
        if (strncasecmp(line, wanted, sizeof wanted - 1) != 0)
            continue;
        MB_REQUIRE(
            parameter(line, "name", name, sizeof name, &name_fits) && name_fits && plain(name),
            MB_EARG, "a part of the form has no name of at most %d bytes", MB_PARTS_NAME - 1);
        is_file = parameter(line, "filename", filename, sizeof filename, &file_fits);
        MB_REQUIRE(file_fits && (!is_file || plain(filename)), MB_EARG,
                   "the file name of part \"%.60s\" is too long or has control characters", name);
        return m->calls.begin(m->calls.arg, name, is_file ? filename : NULL);
    }
    return MB_RAISE(MB_EARG, "a part of the form has no Content-Disposition");
}

/* Gives on what cannot be part of a boundary. *more: there may be more to do with what is held. */
static mb_status take_body(mb_parts *m, bool *more)
{
    const char *at;
    const size_t keep = m->n_mark - 1;
    size_t n;

    if (m->fresh) { /* a boundary may share that end of a line: then the body is empty */
        *more = m->held.n >= m->n_mark;
        if (!*more)
            return MB_OK;
        m->fresh = false;
        if (memcmp(m->held.p, m->mark, m->n_mark) != 0)
            drop(m, 2);
    }
    at = memmem(m->held.p, m->held.n, m->mark, m->n_mark);
    n = at != NULL ? (size_t)(at - m->held.p) : m->held.n <= keep ? 0 : m->held.n - keep;

    if (n > 0 && m->state == BODY)
        MB_TRY(m->calls.data(m->calls.arg, m->held.p, n));
    if (at != NULL && m->state == BODY)
        MB_TRY(m->calls.end(m->calls.arg));
    drop(m, at != NULL ? n + m->n_mark : n);
    *more = at != NULL;
    if (at != NULL)
        m->state = LINE;
    return MB_OK;
}

static mb_status take_line(mb_parts *m, bool *more)
{
    const char *end;
    size_t n;

    if (m->held.n >= 2 && memcmp(m->held.p, "--", 2) == 0) {
        m->state = AFTER;
        *more = true;
        return MB_OK;
    }
    end = memmem(m->held.p, m->held.n, "\r\n", 2);
    *more = end != NULL;
    n = end != NULL ? (size_t)(end - m->held.p) : m->held.n;
    for (size_t i = 0; i < n; i++) /* the second of two dashes, or the end, may still be to come */
        MB_REQUIRE(m->held.p[i] == ' ' || m->held.p[i] == '\t' ||
                       (end == NULL && n == 1 && m->held.p[0] == '-') ||
                       (end == NULL && i + 1 == n && m->held.p[i] == '\r'),
                   MB_EARG, "a boundary of the form is not at the end of a line");
    MB_REQUIRE(n <= LINE_SPACES, MB_EARG,
               "a boundary of the form is followed by more than %d spaces", LINE_SPACES);
    if (end == NULL)
        return MB_OK;
    drop(m, (size_t)(end - m->held.p)); /* its end may be that of an empty header, too */
    m->state = HEAD;
    return MB_OK;
}

static mb_status take_head(mb_parts *m, bool *more)
{
    char *end = memmem(m->held.p, m->held.n, "\r\n\r\n", 4);
    size_t n;

    *more = end != NULL;
    MB_REQUIRE((end != NULL ? (size_t)(end - m->held.p) : m->held.n) <= MB_PARTS_HEAD, MB_EARG,
               "a part of the form has a header of more than %d bytes", MB_PARTS_HEAD);
    if (end == NULL)
        return MB_OK;
    n = (size_t)(end - m->held.p);
    MB_REQUIRE(memchr(m->held.p, '\0', n) == NULL, MB_EARG, "a zero byte in the header of a part");
    *end = '\0';
    MB_TRY(begin_part(m, m->held.p));
    drop(m, n + 2);
    m->state = BODY;
    m->fresh = true;
    return MB_OK;
}

mb_status mb_parts_add(mb_parts *m, const void *data, size_t n)
{
    bool more = true;

    if (m->state == AFTER)
        return MB_OK;
    MB_TRY(mb_bytes_add(&m->held, data, n));
    while (more) {
        switch (m->state) {
        case BEFORE:
        case BODY:
            MB_TRY(take_body(m, &more));
            break;
        case LINE:
            MB_TRY(take_line(m, &more));
            break;
        case HEAD:
            MB_TRY(take_head(m, &more));
            break;
        case AFTER:
            m->held.n = 0;
            return MB_OK;
        }
    }
    return MB_OK;
}

mb_status mb_parts_end(const mb_parts *m)
{
    MB_REQUIRE(m->state == AFTER, MB_EARG, "the form ends before its last boundary");
    return MB_OK;
}
