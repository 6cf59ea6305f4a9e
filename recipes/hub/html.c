/* recipes/hub/html.c - see recipes/hub/html.h. markdown.c has mb_html_markdown. */
#include "recipes/hub/html.h"

#include <string.h>

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

mb_status mb_html_bytes(mb_bytes *h, const char *text, size_t n)
{
    size_t from = 0;

    for (size_t i = 0; i < n; i++) {
        const char *name = name_of(text[i]);
        if (name == NULL)
            continue;
        MB_TRY(mb_bytes_add(h, text + from, i - from));
        MB_TRY(mb_bytes_puts(h, name));
        from = i + 1;
    }
    return mb_bytes_add(h, text + from, n - from);
}

mb_status mb_html_text(mb_bytes *h, const char *text)
{
    return mb_html_bytes(h, text, strlen(text));
}
