/* recipes/serve/http_url.c - the target of a request: path, query, and the route it fits. */
#include <string.h>

#include "core/alloc.h"
#include "recipes/serve/http_inside.h"
#include "recipes/tokenizers/unicode.h"

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes n bytes into `to`, with room for n + 1. */
static mb_status decode(const char *from, size_t n, bool plus, char *to, size_t *n_out)
{
    size_t out = 0, bad;

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)from[i];

        if (c == '%') {
            const int high = i + 2 < n ? digit(from[i + 1]) : -1;
            const int low = i + 2 < n ? digit(from[i + 2]) : -1;

            MB_REQUIRE(high >= 0 && low >= 0, MB_EARG,
                       "the request's path has a %% without two hex digits");
            c = (unsigned char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        MB_REQUIRE(c != 0, MB_EARG, "the request's path has a zero byte");
        MB_REQUIRE(plus || (c >= 0x20 && c != 0x7f), MB_EARG,
                   "the request's path has a control character");
        to[out++] = (char)c;
    }
    to[out] = '\0';
    MB_REQUIRE(mb_utf8_check(to, out, &bad), MB_EARG, "the request's path is not UTF-8");
    *n_out = out;
    return MB_OK;
}

/* Is there a part "." or ".." between the slashes of a decoded part? */
static bool climbs(const char *part)
{
    for (;;) {
        const size_t n = strcspn(part, "/\\");

        if ((n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.'))
            return true;
        if (part[n] == '\0')
            return false;
        part += n + 1;
    }
}

static mb_status parse_path(const char *raw, size_t n, mb_url *u)
{
    size_t at = 0, out = 0;

    MB_TRY(mb_alloc(n + 1, "a path", (void **)&u->path));
    MB_TRY(mb_alloc(n + 1, "a path's parts", (void **)&u->parts));
    while (at < n) { /* raw[at] is a slash */
        size_t end = at + 1, length = 0;
        char *part = u->parts + out + 1;

        while (end < n && raw[end] != '/')
            end++;
        MB_REQUIRE(u->n_parts < MB_URL_PARTS, MB_EARG, "the request's path has more than %d parts",
                   MB_URL_PARTS);
        u->path[out] = '/';
        MB_TRY(decode(raw + at + 1, end - at - 1, false, part, &length));
        MB_REQUIRE(!climbs(part), MB_EARG, "the request's path has a part \"%s\"",
                   strstr(part, "..") != NULL ? ".." : ".");
        u->slash = u->slash || strchr(part, '/') != NULL;
        memcpy(u->path + out + 1, part, length);
        u->part[u->n_parts++] = part;
        out += length + 1;
        at = end;
    }
    return MB_OK;
}

static mb_status parse_query(const char *raw, mb_url *u)
{
    const size_t n = strlen(raw);
    char *to;

    /* every piece takes at most its bytes and two zeros: a name alone has no '=' */
    MB_TRY(mb_alloc(2 * n + 2, "a query", (void **)&u->query_text));
    to = u->query_text;
    for (size_t at = 0; at < n;) {
        const size_t piece = strcspn(raw + at, "&");
        const char *equals = memchr(raw + at, '=', piece);
        const size_t n_name = equals != NULL ? (size_t)(equals - (raw + at)) : piece;
        size_t length = 0;

        if (piece > 0) {
            MB_REQUIRE(u->n_queries < MB_URL_QUERIES, MB_EARG,
                       "the request's query has more than %d parameters", MB_URL_QUERIES);
            u->query[u->n_queries].name = to;
            MB_TRY(decode(raw + at, n_name, true, to, &length));
            to += length + 1;
            u->query[u->n_queries++].value = to;
            MB_TRY(decode(raw + at + n_name + (equals != NULL), piece - n_name - (equals != NULL),
                          true, to, &length));
            to += length + 1;
        }
        at += piece + 1;
    }
    return MB_OK;
}

mb_status mb_url_parse(const char *raw, mb_url *out)
{
    const size_t n = strcspn(raw, "?");

    MB_REQUIRE(raw[0] == '/', MB_EARG, "the request's path does not begin with a slash");
    MB_REQUIRE(strchr(raw, '#') == NULL, MB_EARG, "the request's path has a '#'");
    MB_TRY(parse_path(raw, n, out));
    if (raw[n] == '?')
        MB_TRY(parse_query(raw + n + 1, out));
    return MB_OK;
}

void mb_url_release(mb_url *u)
{
    mb_free(u->path);
    mb_free(u->parts);
    mb_free(u->query_text);
    *u = (mb_url){0};
}

/* ---- routes */

struct piece {
    const char *text; /* of a literal or a name */
    size_t n;
    bool is_name, many;
};

static int cut_pattern(const char *pattern, struct piece piece[MB_URL_PARTS])
{
    int n = 0;

    for (const char *p = pattern; *p == '/' && n < MB_URL_PARTS; n++) {
        const char *text = p + 1;

        p = text + strcspn(text, "/");
        piece[n] = (struct piece){.text = text, .n = (size_t)(p - text)};
        if (*text == '{' && p[-1] == '}') {
            piece[n].is_name = true;
            piece[n].many = p[-2] == '*';
            piece[n].text++;
            piece[n].n -= piece[n].many ? 3 : 2;
        }
    }
    return n;
}

bool mb_url_fits(const mb_url *u, const char *pattern, mb_url_fill fill[MB_URL_FILLS], int *n_fills)
{
    struct piece piece[MB_URL_PARTS];
    const int n = cut_pattern(pattern, piece);
    int at = 0;

    *n_fills = 0;
    for (int i = 0; i < n; i++) {
        const int count = piece[i].many ? u->n_parts - at - (n - i - 1) : 1;

        if (count < 1 || at + count > u->n_parts)
            return false;
        if (piece[i].is_name) {
            for (int k = 0; k < count; k++)
                if (u->part[at + k][0] == '\0')
                    return false;
            if (*n_fills == MB_URL_FILLS)
                return false;
            fill[(*n_fills)++] = (mb_url_fill){piece[i].text, piece[i].n, at, count};
        } else if (strlen(u->part[at]) != piece[i].n ||
                   memcmp(u->part[at], piece[i].text, piece[i].n) != 0) {
            return false;
        }
        at += count;
    }
    return at == u->n_parts;
}

mb_status mb_url_filled(const mb_url *u, const mb_url_fill *f, char **out)
{
    const char *first = u->part[f->first], *last = u->part[f->first + f->count - 1];

    /* path and parts differ in their slashes alone */
    return mb_strndup(u->path + (first - u->parts), (size_t)(last + strlen(last) - first), out);
}
