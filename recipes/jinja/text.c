/* recipes/jinja/text.c - what filters and methods do to strings. Every byte keeps its origin. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/jinja/inside.h"
#include "recipes/tokenizers/unicode.h"

static bool has_char(const jx_str *chars, const char *p, size_t n)
{
    const jx_str c = {.p = p, .n = n};

    return jx_find(chars, &c, 0, false) >= 0;
}

static size_t char_before(const jx_str *s, size_t end)
{
    do
        end--;
    while (end > 0 && ((unsigned char)s->p[end] & 0xc0) == 0x80);
    return end;
}

jx_str jx_strip(const jx_str *s, const jx_str *chars, int sides)
{
    size_t from = 0, to = s->n;
    uint32_t c;

    while ((sides & JX_LEFT) && from < to) {
        const size_t n = mb_utf8_get(s->p + from, s->p + to, &c);

        if (chars != NULL ? !has_char(chars, s->p + from, n) : !jx_is_space(c))
            break;
        from += n;
    }
    while ((sides & JX_RIGHT) && to > from) {
        const size_t at = char_before(s, to);

        mb_utf8_get(s->p + at, s->p + to, &c);
        if (chars != NULL ? !has_char(chars, s->p + at, to - at) : !jx_is_space(c))
            break;
        to = at;
    }
    return jx_part(s, from, to);
}

int64_t jx_find(const jx_str *s, const jx_str *what, size_t from, bool last)
{
    int64_t found = -1;

    if (what->n == 0)
        return last ? (int64_t)s->n : from <= s->n ? (int64_t)from : -1;
    for (size_t at = from; at + what->n <= s->n; at++) {
        if (s->p[at] == what->p[0] && memcmp(s->p + at, what->p, what->n) == 0) {
            found = (int64_t)at;
            if (!last)
                break;
        }
    }
    return found;
}

static mb_status push_part(jx_run *r, jx_value list, const jx_str *s, size_t from, size_t to)
{
    const jx_str part = jx_part(s, from, to);
    jx_value v;

    MB_TRY(jx_string_of(r, &part, &v));
    return jx_push(r, list, v);
}

/* At white space, runs of it as one; nothing at the ends. */
static mb_status split_words(jx_run *r, const jx_str *whole, int64_t most, jx_value out)
{
    jx_str s = jx_strip(whole, NULL, JX_LEFT);

    while (s.n > 0) {
        size_t end = 0;
        uint32_t c;

        while (end < s.n) {
            const size_t n = mb_utf8_get(s.p + end, s.p + s.n, &c);

            if (jx_is_space(c) && most != 0)
                break;
            end += n;
        }
        const jx_str word = jx_part(&s, 0, end);
        const jx_str shown = most == 0 ? jx_strip(&word, NULL, JX_RIGHT) : word;
        MB_TRY(push_part(r, out, &shown, 0, shown.n));
        most -= most > 0;
        s = jx_part(&s, end, s.n);
        s = jx_strip(&s, NULL, JX_LEFT);
    }
    return MB_OK;
}

mb_status jx_split(jx_run *r, const jx_str *s, const jx_str *at, int64_t most, bool right,
                   jx_value *out)
{
    size_t from = 0, to = s->n;
    int64_t place;

    MB_TRY(jx_step(r, s->n / 64));
    MB_TRY(jx_new_list(r, 0, JX_PLAIN, out));
    if (at == NULL && (!right || most < 0))
        return split_words(r, s, most, *out);
    if (at == NULL)
        return jx_fail(r, "rsplit with a limit wants a separator");
    if (at->n == 0)
        return jx_fail(r, "split wants a separator that is not empty");
    if (!right || most < 0) {
        while (most != 0 && (place = jx_find(s, at, from, false)) >= 0) {
            MB_TRY(push_part(r, *out, s, from, (size_t)place));
            from = (size_t)place + at->n;
            most -= most > 0;
        }
        return push_part(r, *out, s, from, s->n);
    }
    while (most-- > 0) {
        const jx_str head = jx_part(s, 0, to);

        if ((place = jx_find(&head, at, 0, true)) < 0)
            break;
        MB_TRY(push_part(r, *out, s, (size_t)place + at->n, to));
        to = (size_t)place;
    }
    MB_TRY(push_part(r, *out, s, 0, to));
    jx_list *l = jx_l(*out);
    for (size_t i = 0; i < l->n / 2; i++) {
        const jx_value v = l->at[i];

        l->at[i] = l->at[l->n - 1 - i];
        l->at[l->n - 1 - i] = v;
    }
    return MB_OK;
}

mb_status jx_lines(jx_run *r, const jx_str *s, bool keep_ends, jx_value *out)
{
    size_t from = 0, at = 0;

    MB_TRY(jx_new_list(r, 0, JX_PLAIN, out));
    while (at < s->n) {
        uint32_t c;
        size_t end = at + mb_utf8_get(s->p + at, s->p + s->n, &c);

        if ((c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 ||
            c == 0x2029) {
            if (c == '\r' && end < s->n && s->p[end] == '\n')
                end++;
            MB_TRY(push_part(r, *out, s, from, keep_ends ? end : at));
            from = end;
        }
        at = end;
    }
    return from < s->n ? push_part(r, *out, s, from, s->n) : MB_OK;
}

mb_status jx_replace(jx_run *r, const jx_str *s, const jx_str *old, const jx_str *by, int64_t most,
                     jx_value *out)
{
    jx_out o = {0};
    size_t from = 0;
    int64_t at;

    MB_TRY(jx_step(r, s->n / 64));
    if (old->n == 0) { /* before every character and at the end */
        for (size_t end; most != 0; from = end) {
            MB_TRY(jx_write_str(r, &o, by));
            most -= most > 0;
            if (from >= s->n)
                break;
            for (end = from + 1; end < s->n && ((unsigned char)s->p[end] & 0xc0) == 0x80;)
                end++;
            const jx_str part = jx_part(s, from, end);
            MB_TRY(jx_write_str(r, &o, &part));
        }
    } else {
        while (most != 0 && (at = jx_find(s, old, from, false)) >= 0) {
            const jx_str part = jx_part(s, from, (size_t)at);

            MB_TRY(jx_write_str(r, &o, &part));
            MB_TRY(jx_write_str(r, &o, by));
            from = (size_t)at + old->n;
            most -= most > 0;
        }
    }
    if (from < s->n) {
        const jx_str part = jx_part(s, from, s->n);
        MB_TRY(jx_write_str(r, &o, &part));
    }
    return jx_finish(r, &o, out);
}

static bool is_letter(uint32_t c)
{
    return c < 128 ? isalpha((int)c) != 0
                   : mb_char_is_word(c) && !mb_char_is_number(c) && !mb_char_is_mark(c);
}

mb_status jx_recase(jx_run *r, const jx_str *s, jx_case how, jx_value *out)
{
    mb_bytes form = {0};
    jx_out o = {0};
    bool start = true;
    mb_status st = MB_OK;

    for (size_t at = 0, n; at < s->n && st == MB_OK; at += n) {
        bool upper = how == JX_UPPER || (how != JX_LOWER && start);
        uint32_t c;

        n = mb_utf8_get(s->p + at, s->p + s->n, &c);
        form.n = 0;
        st = upper ? mb_upper_add(&form, c) : mb_lower_add(&form, c);
        if (st == MB_OK)
            st = jx_write(r, &o, form.p, form.n, NULL, jx_origin_at(s, at));
        if (how == JX_CAPITAL)
            start = false;
        else if (how == JX_TITLE_METHOD)
            start = !is_letter(c);
        else
            start = jx_is_space(c) || (c < 128 && c != 0 && strchr("-({[<", (int)c) != NULL);
    }
    mb_bytes_release(&form);
    return st == MB_OK ? jx_finish(r, &o, out) : st;
}

/* ---- the % operator ------------------------------------------------------------------------- */

/* A width may make a text of any length: as in Python nothing is cut. */
static mb_status put_formatted(jx_run *r, jx_out *o, const char *format, ...)
{
    va_list args, again;
    void *text = NULL;
    mb_status st;

    va_start(args, format);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    st = mb_alloc((size_t)n + 1, "a number in a format", &text);
    if (st == MB_OK) {
        vsnprintf(text, (size_t)n + 1, format, again);
        st = jx_puts(r, o, text);
    }
    mb_free(text);
    va_end(again);
    va_end(args);
    return st;
}

static mb_status format_one(jx_run *r, jx_out *o, const char *spec, char kind, jx_value v)
{
    char full[40];
    const jx_str *s;
    int64_t i = 0;

    if (kind == 's' || kind == 'r') {
        MB_TRY(jx_to_str(r, v, &s));
        if (spec[0] == '\0')
            return jx_write_str(r, o, s);
        return jx_fail(r, "%%%s%c: widths of texts are not supported in a format", spec, kind);
    }
    if (!jx_is_number(v))
        return jx_fail(r, "%%%c wants a number, not %s", kind, jx_type_name(v));
    if (strchr("dixX", kind) != NULL) {
        if (!jx_as_int(v, &i)) {
            if (v.as.r < -9e18 || v.as.r > 9e18 || v.as.r != v.as.r || strchr("xX", kind))
                return jx_fail(r, "%%%c wants an integer", kind);
            i = (int64_t)v.as.r;
        }
        snprintf(full, sizeof full, "%%%sll%c", spec, kind == 'i' ? 'd' : kind);
    } else {
        snprintf(full, sizeof full, "%%%s%c", spec, kind);
    }
    return strchr("dixX", kind) != NULL ? put_formatted(r, o, full, (long long)i)
                                        : put_formatted(r, o, full, jx_as_real(v));
}

mb_status jx_format(jx_run *r, const jx_str *s, const jx_list *args, jx_value *out)
{
    jx_out o = {0};
    size_t next = 0;

    for (size_t at = 0; at < s->n;) {
        size_t end = at;
        char spec[16];
        size_t k = 0;

        while (end < s->n && s->p[end] != '%')
            end++;
        const jx_str part = jx_part(s, at, end);
        MB_TRY(jx_write_str(r, &o, &part));
        at = end + 1;
        if (end >= s->n)
            break;
        if (at < s->n && s->p[at] == '%') {
            MB_TRY(jx_write(r, &o, "%", 1, NULL, jx_origin_at(s, at)));
            at++;
            continue;
        }
        while (at < s->n && strchr("+- 0123456789.", s->p[at]) != NULL && k + 1 < 6)
            spec[k++] = s->p[at++];
        spec[k] = '\0';
        if (at >= s->n || s->p[at] == '\0' || strchr("sdixXfeEgGr", s->p[at]) == NULL)
            return jx_fail(r, "the format \"%.*s\" cannot be read", (int)(s->n < 60 ? s->n : 60),
                           s->p);
        if (next >= args->n)
            return jx_fail(r, "the format wants more than %zu values", args->n);
        MB_TRY(format_one(r, &o, spec, s->p[at], args->at[next++]));
        at++;
    }
    if (next < args->n)
        return jx_fail(r, "the format has %zu values too many", args->n - next);
    return jx_finish(r, &o, out);
}
