/* recipes/serve/http_range.c - Range and lists of entity tags (RFC 9110, 13 and 14). */
#include <string.h>
#include <strings.h>

#include "recipes/serve/http_inside.h"

/* A number of at most 18 digits; -1: none here. */
static int64_t number(const char **p)
{
    int64_t v = 0;
    int n = 0;

    for (; **p >= '0' && **p <= '9'; (*p)++, n++)
        if (n < 18)
            v = v * 10 + (**p - '0');
    return n == 0 || n > 18 ? -1 : v;
}

mb_range_kind mb_range_read(const char *header, int64_t size, int64_t *first, int64_t *count)
{
    int64_t from, to = -1;

    *first = 0;
    *count = size;
    if (header == NULL || strncasecmp(header, "bytes=", 6) != 0)
        return MB_RANGE_ALL;
    header += 6;
    if (*header == '-') { /* the last so many */
        header++;
        to = number(&header);
        if (to < 0 || *header != '\0')
            return MB_RANGE_ALL;
        if (to == 0 || size == 0)
            return MB_RANGE_BEYOND;
        *count = to < size ? to : size;
        *first = size - *count;
        return MB_RANGE_PART;
    }
    from = number(&header);
    if (from < 0 || *header++ != '-')
        return MB_RANGE_ALL;
    if (*header != '\0') {
        to = number(&header);
        if (to < from || *header != '\0')
            return MB_RANGE_ALL;
    }
    if (from >= size)
        return MB_RANGE_BEYOND;
    *first = from;
    *count = (to < 0 || to >= size ? size : to + 1) - from;
    return MB_RANGE_PART;
}

bool mb_etag_listed(const char *list, const char *etag)
{
    const size_t n = strlen(etag);

    while (*list != '\0') {
        list += strspn(list, " \t,");
        if (*list == '*')
            return true;
        if (strncmp(list, "W/", 2) == 0)
            list += 2;
        if (*list == '"') {
            const size_t length = strcspn(++list, "\"");

            if (length == n && memcmp(list, etag, n) == 0)
                return true;
            list += length + (list[length] == '"');
        } else {
            list += strcspn(list, ",");
        }
    }
    return false;
}
