/* recipes/config/text.c - see recipes/config/text.h. */
#include "recipes/config/text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/config/yaml.h"

void mb_text_add(mb_text *t, const char *fmt, ...)
{
    va_list ap, again;
    void *p = t->s;
    int n;

    if (t->st != MB_OK)
        return;
    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    t->st = mb_grow(&p, &t->capacity, t->n + (size_t)n + 1, 1, "a text");
    t->s = p;
    if (t->st == MB_OK)
        t->n += (size_t)vsnprintf(t->s + t->n, t->capacity - t->n, fmt, again);
    va_end(again);
}

/* Plain scalars: words that no YAML reader takes for anything but text. */
static bool is_plain(const char *s)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ./_";
    static const char rest[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./_-+";
    const mb_yaml as_node = {.kind = MB_YAML_SCALAR, .text = s};
    double num;
    bool b;

    return s[0] != '\0' && strchr(first, s[0]) != NULL && s[strspn(s, rest)] == '\0' &&
           strcasecmp(s, "y") != 0 && strcasecmp(s, "n") != 0 && strcasecmp(s, ".inf") != 0 &&
           strcasecmp(s, ".nan") != 0 && !mb_yaml_is_null(&as_node) && !mb_yaml_to_bool(s, &b) &&
           !mb_yaml_to_num(s, &num);
}

void mb_text_add_yaml(mb_text *t, const char *value)
{
    if (is_plain(value)) {
        mb_text_add(t, "%s", value);
        return;
    }
    mb_text_add(t, "\"");
    for (const unsigned char *c = (const unsigned char *)value; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            mb_text_add(t, "\\%c", *c);
        else if (*c == '\n')
            mb_text_add(t, "\\n");
        else if (*c == '\t')
            mb_text_add(t, "\\t");
        else if (*c == '$' && c[1] == '{')
            mb_text_add(t, "$$");
        else if (*c < 32 || *c == 127)
            mb_text_add(t, "\\x%02x", *c);
        else
            mb_text_add(t, "%c", *c);
    }
    mb_text_add(t, "\"");
}

/* 5e-05 -> 5.0e-05: without the point some YAML readers take it for text. */
void mb_text_add_num(mb_text *t, double v)
{
    char buf[40];
    size_t digits;

    for (int precision = 1; precision <= 17; precision++) {
        snprintf(buf, sizeof buf, "%.*g", precision, v);
        if (strtod(buf, NULL) == v)
            break;
    }
    digits = strspn(buf, "-0123456789");
    if (buf[digits] == '.')
        mb_text_add(t, "%s", buf);
    else
        mb_text_add(t, "%.*s.0%s", (int)digits, buf, buf + digits);
}

mb_status mb_text_take(mb_text *t, char **out)
{
    mb_text_add(t, "%s", ""); /* an empty text is a text */
    if (t->st != MB_OK) {
        const mb_status st = t->st;

        mb_text_release(t);
        return st;
    }
    *out = t->s;
    *t = (mb_text){0};
    return MB_OK;
}

void mb_text_release(mb_text *t)
{
    mb_free(t->s);
    *t = (mb_text){0};
}
