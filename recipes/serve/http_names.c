/* recipes/serve/http_names.c - the names in Host and Origin.
 *
 * A page of a foreign site can make a browser send requests here: under its own name, after having
 * its DNS point that name to this address (then Host is that name), or from its own place (then Origin
 * is). Both are seen by comparing names; nothing is resolved.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "recipes/serve/http_inside.h"

bool mb_host_split(const char *host, char *name, size_t size, int *port)
{
    const bool brackets = host[0] == '[';
    const char *from = host + brackets;
    const size_t n = strcspn(from, brackets ? "]" : ":");
    const char *after = from + n;

    *port = -1;
    if (n == 0 || n >= size)
        return false;
    if (brackets && *after++ != ']')
        return false;
    for (size_t i = 0; i < n; i++) {
        const char c = from[i];

        if (c <= ' ' || strchr("/\\?#@[]%\"<>", c) != NULL || (unsigned char)c >= 0x7f)
            return false;
        name[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    name[n] = '\0';
    if (n > 1 && name[n - 1] == '.') /* "localhost." is localhost */
        name[n - 1] = '\0';
    if (*after == '\0')
        return true;
    if (*after != ':' || strlen(after + 1) > 5 ||
        strspn(after + 1, "0123456789") != strlen(after + 1))
        return false;
    if (after[1] != '\0')
        *port = (int)strtol(after + 1, NULL, 10);
    return *port <= 65535;
}

bool mb_host_is_number(const char *name)
{
    struct in_addr v4;
    struct in6_addr v6;

    return inet_pton(AF_INET, name, &v4) == 1 || inet_pton(AF_INET6, name, &v6) == 1;
}

bool mb_host_is_loopback(const char *name)
{
    const size_t n = strlen(name);
    struct in_addr v4;
    struct in6_addr v6;

    if (strcmp(name, "localhost") == 0 || (n > 10 && strcmp(name + n - 10, ".localhost") == 0))
        return true;
    if (inet_pton(AF_INET, name, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, name, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* The host of an origin and its port, the scheme's where it says none. */
static bool split_origin(const char *origin, char *name, size_t size, int *port, int *usual)
{
    if (strncasecmp(origin, "http://", 7) == 0)
        *usual = 80;
    else if (strncasecmp(origin, "https://", 8) == 0)
        *usual = 443;
    else
        return false;
    if (!mb_host_split(origin + (*usual == 80 ? 7 : 8), name, size, port))
        return false;
    if (*port < 0)
        *port = *usual;
    return true;
}

bool mb_origin_is_host(const char *origin, const char *host)
{
    char a[256], b[256];
    int port_a, port_b, usual;

    if (!split_origin(origin, a, sizeof a, &port_a, &usual) ||
        !mb_host_split(host, b, sizeof b, &port_b))
        return false;
    return strcmp(a, b) == 0 && port_a == (port_b < 0 ? usual : port_b);
}

bool mb_origin_is_named(const char *origin, const char *const *names)
{
    char name[256];
    int port, usual;

    if (names == NULL || !split_origin(origin, name, sizeof name, &port, &usual))
        return false;
    for (; *names != NULL; names++)
        if (strcasecmp(name, *names) == 0)
            return true;
    return false;
}
