/* recipes/hub/fetch_where.c - the hub's address and the token; see recipes/hub/fetch.h. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/config/hub_path.h"
#include "recipes/hub/fetch_inside.h"

enum { MOST_TOKEN = 4096 };

mb_status mb_fetch_endpoint(char *text, size_t size)
{
    const char *given = getenv("HF_ENDPOINT");
    char origin[MB_ORIGIN_MAX];
    size_t n;

    if (given == NULL || given[0] == '\0')
        given = "https://huggingface.co";
    MB_REQUIRE(strlen(given) < size && strpbrk(given, "?#") == NULL, MB_EARG,
               "HF_ENDPOINT is no address of a hub: %.200s", given);
    snprintf(text, size, "%s", given);
    for (n = strlen(text); n > 0 && text[n - 1] == '/'; n--)
        text[n - 1] = '\0';
    if (mb_fetch_origin(text, origin, sizeof origin) != MB_OK)
        return mb_status_prefix(MB_EARG, "HF_ENDPOINT: ");
    return MB_OK;
}

static mb_status take(const char *text, char **out)
{
    const char *end;

    while (isspace((unsigned char)*text))
        text++;
    end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        end--;
    for (const char *c = text; c < end; c++)
        MB_REQUIRE(*c > ' ' && *c < 0x7f, MB_EARG,
                   "the token holds characters that no token has (byte %d of it)",
                   (int)(c - text) + 1);
    return end > text ? mb_strndup(text, (size_t)(end - text), out) : MB_OK;
}

static mb_status take_file(const char *path, char **out)
{
    char *text = NULL;
    size_t n;
    mb_status st;

    if (!mb_path_exists(path))
        return MB_OK;
    MB_TRY(mb_file_read(path, MOST_TOKEN, &text, &n));
    st = take(text, out);
    explicit_bzero(text, n);
    mb_free(text);
    return st == MB_OK ? MB_OK : mb_status_prefix(st, "%s: ", path);
}

mb_status mb_fetch_token(const char *given, char **out)
{
    static const char *const names[] = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"};
    const char *file = getenv("HF_TOKEN_PATH");
    char home[MB_PATH_MAX], path[MB_PATH_MAX];

    *out = NULL;
    if (given != NULL)
        return take(given, out);
    for (size_t i = 0; i < 2; i++) {
        given = getenv(names[i]);
        if (given != NULL && given[0] != '\0')
            return take(given, out);
    }
    if (file != NULL && file[0] != '\0')
        return take_file(file, out);
    MB_TRY(mb_hub_home(home, sizeof home));
    MB_TRY(mb_path_join(path, sizeof path, home, "token"));
    return take_file(path, out);
}

mb_status mb_fetch_escape(const char *part, bool slashes, char *text, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;

    for (const unsigned char *c = (const unsigned char *)part; *c != '\0'; c++) {
        const bool as_is = isalnum(*c) ? *c < 0x80 : strchr("-._~", *c) != NULL;

        MB_REQUIRE(n + 4 <= size, MB_EARG, "a name of more than %zu bytes: %.100s...", size, part);
        if (as_is || (slashes && *c == '/')) {
            text[n++] = (char)*c;
            continue;
        }
        text[n++] = '%';
        text[n++] = digits[*c >> 4];
        text[n++] = digits[*c & 15];
    }
    MB_REQUIRE(n < size, MB_EARG, "a name of more than %zu bytes: %.100s...", size, part);
    text[n] = '\0';
    return MB_OK;
}
