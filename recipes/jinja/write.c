/* recipes/jinja/write.c - values become text: str(), repr() and json.dumps() of Python. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recipes/jinja/inside.h"
#include "recipes/tokenizers/unicode.h"

enum { MOST_DEPTH = 100 };

static mb_status reserve(jx_run *r, jx_out *o, size_t more)
{
    size_t capacity;
    void *p;

    if (o->n + more <= o->capacity)
        return MB_OK;
    if (r->limits.output > 0 && o->n + more > (size_t)r->limits.output)
        return jx_fail(r, "the template writes more than %lld MiB",
                       (long long)(r->limits.output >> 20));
    capacity = o->n + more < 256 ? 512 : 2 * (o->n + more);
    MB_TRY(jx_get(r, capacity * 3, &p)); /* the origins first: they are aligned */
    if (o->n > 0) {
        memcpy(p, o->origin, o->n * sizeof(uint16_t));
        memcpy((char *)p + 2 * capacity, o->p, o->n);
    }
    o->origin = p;
    o->p = (char *)p + 2 * capacity;
    o->capacity = capacity;
    return MB_OK;
}

mb_status jx_write(jx_run *r, jx_out *o, const char *p, size_t n, const uint16_t *origin,
                   uint16_t from)
{
    if (n == 0)
        return MB_OK;
    MB_TRY(jx_step(r, n / 256));
    MB_TRY(reserve(r, o, n));
    memcpy(o->p + o->n, p, n);
    for (size_t i = 0; i < n; i++)
        o->origin[o->n + i] = (uint16_t)((origin != NULL ? origin[i] : from) | r->generated);
    o->n += n;
    return MB_OK;
}

mb_status jx_write_str(jx_run *r, jx_out *o, const jx_str *s)
{
    return jx_write(r, o, s->p, s->n, s->origin, s->from);
}

mb_status jx_puts(jx_run *r, jx_out *o, const char *s)
{
    return jx_write(r, o, s, strlen(s), NULL, MB_JINJA_TEMPLATE);
}

mb_status jx_finish(jx_run *r, const jx_out *o, jx_value *out)
{
    jx_str s = {.p = o->n > 0 ? o->p : "", .n = o->n, .origin = o->origin};
    bool uniform = true;

    for (size_t i = 1; i < o->n && uniform; i++)
        uniform = o->origin[i] == o->origin[0];
    if (uniform) {
        s.origin = NULL;
        s.from = o->n > 0 ? o->origin[0] : MB_JINJA_TEMPLATE;
    }
    return jx_string_of(r, &s, out);
}

/* Python's repr: the fewest digits that read back as the same number. */
static void real_text(double v, char *to, size_t size)
{
    char digits[40], *e;
    int precision = 0, exponent, n = 0;

    if (!isfinite(v)) {
        snprintf(to, size, "%s", isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
        return;
    }
    do
        snprintf(digits, sizeof digits, "%.*e", precision, v);
    while (strtod(digits, NULL) != v && ++precision < 17);
    e = strchr(digits, 'e');
    exponent = (int)strtol(e + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) {
        *e = '\0';
        snprintf(to, size, "%se%s%02d", digits, exponent < 0 ? "-" : "+", abs(exponent));
    } else {
        n = precision - exponent;
        snprintf(to, size, "%.*f", n < 1 ? 1 : n, v);
    }
}

static mb_status write_number(jx_run *r, jx_out *o, jx_value v)
{
    char text[400];

    if (v.kind == JX_INT)
        snprintf(text, sizeof text, "%lld", (long long)v.as.i);
    else
        real_text(v.as.r, text, sizeof text);
    return jx_puts(r, o, text);
}

/* One character of a text, or what stands for it; its origin stays. */
static mb_status write_as(jx_run *r, jx_out *o, const char *p, size_t n, const jx_str *s, size_t at)
{
    return jx_write(r, o, p, n, NULL, jx_origin_at(s, at));
}

static mb_status write_repr_str(jx_run *r, jx_out *o, const jx_str *s)
{
    const bool doubles = memchr(s->p, '\'', s->n) != NULL && memchr(s->p, '"', s->n) == NULL;
    const char quote[2] = {doubles ? '"' : '\'', 0};

    MB_TRY(jx_puts(r, o, quote));
    for (size_t at = 0, n; at < s->n; at += n) {
        char text[16];
        uint32_t c;

        n = mb_utf8_get(s->p + at, s->p + s->n, &c);
        if (c == '\\' || c == (uint32_t)quote[0])
            snprintf(text, sizeof text, "\\%c", (int)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (c < 0x20 || (c >= 0x7f && c <= 0xa0) || c == 0xad)
            snprintf(text, sizeof text, "\\x%02x", c);
        else if ((c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || c == 0xfeff ||
                 (c != ' ' && jx_is_space(c)))
            snprintf(text, sizeof text, "\\u%04x", c);
        else
            text[0] = '\0';
        MB_TRY(text[0] != '\0' ? write_as(r, o, text, strlen(text), s, at)
                               : write_as(r, o, s->p + at, n, s, at));
    }
    return jx_puts(r, o, quote);
}

static mb_status write_repr(jx_run *r, jx_out *o, jx_value v, int depth);

static mb_status write_list(jx_run *r, jx_out *o, jx_value v, int depth)
{
    static const char *const open[] = {"[", "(", "[", "dict_view(["};
    static const char *const close[] = {"]", ")", "]", "])"};
    const jx_list *l = jx_l(v);

    MB_TRY(jx_puts(r, o, open[v.flag]));
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            MB_TRY(jx_puts(r, o, ", "));
        MB_TRY(write_repr(r, o, l->at[i], depth + 1));
    }
    if (v.flag == JX_TUPLE && l->n == 1)
        MB_TRY(jx_puts(r, o, ","));
    return jx_puts(r, o, close[v.flag]);
}

static mb_status write_repr(jx_run *r, jx_out *o, jx_value v, int depth)
{
    const jx_dict *d;

    MB_TRY(jx_step(r, 1));
    if (depth > MOST_DEPTH)
        return jx_fail(r, "a value is nested more than %d deep", MOST_DEPTH);
    switch (v.kind) {
    case JX_UNDEFINED:
        return jx_puts(r, o, "Undefined");
    case JX_NONE:
        return jx_puts(r, o, "None");
    case JX_BOOL:
        return jx_puts(r, o, v.as.b ? "True" : "False");
    case JX_INT:
    case JX_REAL:
        return write_number(r, o, v);
    case JX_STRING:
        return write_repr_str(r, o, jx_s(v));
    case JX_LIST:
        return write_list(r, o, v, depth);
    case JX_DICT:
        d = jx_d(v);
        MB_TRY(jx_puts(r, o, "{"));
        for (size_t i = 0; i < d->n; i++) {
            if (i > 0)
                MB_TRY(jx_puts(r, o, ", "));
            MB_TRY(write_repr(r, o, d->at[i].key, depth + 1));
            MB_TRY(jx_puts(r, o, ": "));
            MB_TRY(write_repr(r, o, d->at[i].value, depth + 1));
        }
        return jx_puts(r, o, "}");
    default:
        return jx_fail(r, "a %s has no text", jx_type_name(v));
    }
}

mb_status jx_write_value(jx_run *r, jx_out *o, jx_value v)
{
    if (v.kind == JX_STRING)
        return jx_write_str(r, o, jx_s(v));
    return v.kind == JX_UNDEFINED ? MB_OK : write_repr(r, o, v, 0);
}

mb_status jx_to_str(jx_run *r, jx_value v, const jx_str **out)
{
    jx_out o = {0};

    if (v.kind != JX_STRING) {
        MB_TRY(jx_write_value(r, &o, v));
        MB_TRY(jx_finish(r, &o, &v));
    }
    *out = jx_s(v);
    return MB_OK;
}

/* ---- json.dumps ----------------------------------------------------------------------------- */

static mb_status json_string(jx_run *r, jx_out *o, const jx_str *s, bool ascii)
{
    static const char special[] = "\"\\\n\r\t\f\b", letter[] = "\"\\nrtfb";
    size_t plain = 0; /* where what can be copied begins */

    MB_TRY(jx_puts(r, o, "\""));
    for (size_t at = 0, n; at < s->n; at += n) {
        char text[16];
        const char *k;
        uint32_t c;

        n = mb_utf8_get(s->p + at, s->p + s->n, &c);
        k = c != 0 && c < 128 ? strchr(special, (int)c) : NULL;
        if (k == NULL && c >= 32 && (c < 127 || !ascii))
            continue;
        if (k != NULL)
            snprintf(text, sizeof text, "\\%c", letter[k - special]);
        else if (c == 127)
            snprintf(text, sizeof text, "\x7f");
        else if (c < 0x10000)
            snprintf(text, sizeof text, "\\u%04x", c);
        else
            snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                     0xdc00 + ((c - 0x10000) & 0x3ff));
        const jx_str part = jx_part(s, plain, at);
        MB_TRY(jx_write_str(r, o, &part));
        MB_TRY(write_as(r, o, text, strlen(text), s, at));
        plain = at + n;
    }
    const jx_str part = jx_part(s, plain, s->n);
    MB_TRY(jx_write_str(r, o, &part));
    return jx_puts(r, o, "\"");
}

/* The newline and blanks between elements, when there is an indent. */
static mb_status json_break(jx_run *r, jx_out *o, const jx_json_style *style, int level)
{
    if (style->indent < 0)
        return MB_OK;
    MB_TRY(jx_puts(r, o, "\n"));
    for (int i = 0; i < style->indent * level; i++)
        MB_TRY(jx_puts(r, o, " "));
    return MB_OK;
}

static mb_status json_key(jx_run *r, jx_out *o, jx_value key, const jx_json_style *style)
{
    if (key.kind == JX_STRING)
        return json_string(r, o, jx_s(key), style->ascii);
    if (key.kind > JX_STRING || key.kind == JX_UNDEFINED)
        return jx_fail(r, "a key of type %s cannot be written as JSON", jx_type_name(key));
    MB_TRY(jx_puts(r, o, "\""));
    MB_TRY(jx_write_json(r, o, key, style, 0));
    return jx_puts(r, o, "\"");
}

static mb_status json_dict(jx_run *r, jx_out *o, const jx_dict *d, const jx_json_style *style,
                           int level)
{
    size_t *at;
    void *p;

    if (d->n == 0)
        return jx_puts(r, o, "{}");
    MB_TRY(jx_get(r, d->n * sizeof *at, &p));
    at = p;
    for (size_t i = 0; i < d->n; i++) { /* sorted when asked for, by insertion: keys are few */
        size_t k = i;
        int c = 1;

        for (; style->sort && k > 0 && c > 0; k -= c > 0) {
            MB_TRY(jx_order(r, d->at[at[k - 1]].key, d->at[i].key, &c));
            if (c > 0)
                at[k] = at[k - 1];
        }
        at[k] = i;
    }
    MB_TRY(jx_puts(r, o, "{"));
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0)
            MB_TRY(jx_puts(r, o, style->item));
        MB_TRY(json_break(r, o, style, level + 1));
        MB_TRY(json_key(r, o, d->at[at[i]].key, style));
        MB_TRY(jx_puts(r, o, style->key));
        MB_TRY(jx_write_json(r, o, d->at[at[i]].value, style, level + 1));
    }
    MB_TRY(json_break(r, o, style, level));
    return jx_puts(r, o, "}");
}

mb_status jx_write_json(jx_run *r, jx_out *o, jx_value v, const jx_json_style *style, int level)
{
    const jx_list *l;

    MB_TRY(jx_step(r, 1));
    if (level > MOST_DEPTH)
        return jx_fail(r, "a value is nested more than %d deep", MOST_DEPTH);
    switch (v.kind) {
    case JX_NONE:
        return jx_puts(r, o, "null");
    case JX_BOOL:
        return jx_puts(r, o, v.as.b ? "true" : "false");
    case JX_REAL:
        if (!isfinite(v.as.r))
            return jx_puts(r, o, isnan(v.as.r) ? "NaN" : v.as.r > 0 ? "Infinity" : "-Infinity");
        return write_number(r, o, v);
    case JX_INT:
        return write_number(r, o, v);
    case JX_STRING:
        return json_string(r, o, jx_s(v), style->ascii);
    case JX_DICT:
        return json_dict(r, o, jx_d(v), style, level);
    case JX_LIST:
        if (v.flag > JX_TUPLE)
            break;
        l = jx_l(v);
        if (l->n == 0)
            return jx_puts(r, o, "[]");
        MB_TRY(jx_puts(r, o, "["));
        for (size_t i = 0; i < l->n; i++) {
            if (i > 0)
                MB_TRY(jx_puts(r, o, style->item));
            MB_TRY(json_break(r, o, style, level + 1));
            MB_TRY(jx_write_json(r, o, l->at[i], style, level + 1));
        }
        MB_TRY(json_break(r, o, style, level));
        return jx_puts(r, o, "]");
    default:
        break;
    }
    return jx_fail(r, "a value of type %s cannot be written as JSON", jx_type_name(v));
}
