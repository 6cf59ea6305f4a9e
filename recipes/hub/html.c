/* recipes/hub/html.c - see recipes/hub/html.h. markdown.c has mb_html_markdown. */
#include "recipes/hub/html.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

void mb_html_release(mb_html *h)
{
    mb_free(h->text);
    *h = (mb_html){0};
}

static mb_status raw(mb_html *h, const char *text, size_t n)
{
    MB_TRY(mb_grow((void **)&h->text, &h->capacity, h->n + n + 1, 1, "a page"));
    memcpy(h->text + h->n, text, n);
    h->n += n;
    h->text[h->n] = '\0';
    return MB_OK;
}

mb_status mb_html_add(mb_html *h, const char *fmt, ...)
{
    char small[4096];
    va_list ap;

    va_start(ap, fmt);
    const int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    MB_REQUIRE(n >= 0 && (size_t)n < sizeof small, MB_EBUG, "a piece of a page is too long");
    return raw(h, small, (size_t)n);
}

static const char *name_of(char c)
{
    switch (c) {
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '&':
        return "&amp;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return (unsigned char)c < 32 && c != '\n' && c != '\t' ? " " : NULL;
    }
}

mb_status mb_html_bytes(mb_html *h, const char *text, size_t n)
{
    size_t from = 0;

    for (size_t i = 0; i < n; i++) {
        const char *name = name_of(text[i]);
        if (name == NULL)
            continue;
        MB_TRY(raw(h, text + from, i - from));
        MB_TRY(raw(h, name, strlen(name)));
        from = i + 1;
    }
    return raw(h, text + from, n - from);
}

mb_status mb_html_text(mb_html *h, const char *text)
{
    return mb_html_bytes(h, text, strlen(text));
}
