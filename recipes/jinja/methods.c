/* recipes/jinja/methods.c - methods of strings, lists and dicts, and the functions a template finds
 * without being given them. Those that would change a value are there to be refused by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "recipes/jinja/inside.h"
#include "recipes/tokenizers/unicode.h"

enum { MOST_RANGE = 100000 }; /* as Jinja2's sandbox */

typedef mb_status (*method_fn)(jx_run *r, jx_value self, const jx_args *a, jx_value *out);

struct method {
    enum jx_kind kind;
    const char *name;
    method_fn call; /* NULL: it would change the value */
};

/* ---- strings -------------------------------------------------------------------------------- */

static mb_status strip(jx_run *r, jx_value self, const jx_args *a, int sides, jx_value *out)
{
    jx_value chars;
    const bool given = jx_arg(a, 0, "chars", &chars) && chars.kind == JX_STRING;
    const jx_str part = jx_strip(jx_s(self), given ? jx_s(chars) : NULL, sides);

    MB_TRY(jx_step(r, 1 + jx_s(self)->n / 256));
    return jx_string_of(r, &part, out);
}

static mb_status m_strip(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return strip(r, self, a, JX_LEFT | JX_RIGHT, out);
}

static mb_status m_lstrip(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return strip(r, self, a, JX_LEFT, out);
}

static mb_status m_rstrip(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return strip(r, self, a, JX_RIGHT, out);
}

static mb_status split(jx_run *r, jx_value self, const jx_args *a, bool right, jx_value *out)
{
    const jx_str *at = NULL;
    int64_t most;
    jx_value v;

    if (jx_arg(a, 0, "sep", &v) && v.kind != JX_NONE)
        MB_TRY(jx_arg_str(r, a, 0, "sep", &at, "split"));
    MB_TRY(jx_arg_int(r, a, 1, "maxsplit", -1, &most));
    return jx_split(r, jx_s(self), at, most, right, out);
}

static mb_status m_split(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return split(r, self, a, false, out);
}

static mb_status m_rsplit(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return split(r, self, a, true, out);
}

static mb_status m_splitlines(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    jx_value keep;

    return jx_lines(r, jx_s(self), jx_arg(a, 0, "keepends", &keep) && jx_truth(keep), out);
}

/* At the first (last) separator: (before, separator, after). */
static mb_status partition(jx_run *r, jx_value self, const jx_args *a, bool last, jx_value *out)
{
    const jx_str *s = jx_s(self), *at;
    jx_value v;

    MB_TRY(jx_arg_str(r, a, 0, "sep", &at, "partition"));
    if (at->n == 0)
        return jx_fail(r, "partition wants a separator that is not empty");
    const int64_t place = jx_find(s, at, 0, last);
    const size_t n = s->n, k = place < 0 ? (last ? 0 : n) : (size_t)place;
    const size_t after = place < 0 ? k : k + at->n;
    const jx_str part[3] = {jx_part(s, 0, k), jx_part(s, k, after), jx_part(s, after, n)};
    MB_TRY(jx_new_list(r, 3, JX_TUPLE, out));
    for (int i = 0; i < 3; i++) {
        MB_TRY(jx_string_of(r, &part[i], &v));
        MB_TRY(jx_push(r, *out, v));
    }
    return MB_OK;
}

static mb_status m_partition(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return partition(r, self, a, false, out);
}

static mb_status m_rpartition(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return partition(r, self, a, true, out);
}

static bool stands_at_end(const jx_str *s, const jx_str *what, bool front)
{
    return s->n >= what->n &&
           (what->n == 0 || memcmp(front ? s->p : s->p + s->n - what->n, what->p, what->n) == 0);
}

static mb_status ends(jx_run *r, jx_value self, const jx_args *a, bool front, jx_value *out)
{
    const jx_str *what;
    jx_value v;
    bool yes = false;

    if (jx_arg(a, 0, NULL, &v) && v.kind == JX_LIST && v.flag == JX_TUPLE) {
        for (size_t i = 0; i < jx_l(v)->n && !yes; i++)
            yes = jx_l(v)->at[i].kind == JX_STRING &&
                  stands_at_end(jx_s(self), jx_s(jx_l(v)->at[i]), front);
    } else {
        MB_TRY(jx_arg_str(r, a, 0, "prefix", &what, front ? "startswith" : "endswith"));
        yes = stands_at_end(jx_s(self), what, front);
    }
    *out = mb_jinja_bool(yes);
    return MB_OK;
}

static mb_status m_startswith(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return ends(r, self, a, true, out);
}

static mb_status m_endswith(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return ends(r, self, a, false, out);
}

static mb_status without(jx_run *r, jx_value self, const jx_args *a, bool front, jx_value *out)
{
    const jx_str *s = jx_s(self), *what;

    MB_TRY(jx_arg_str(r, a, 0, "prefix", &what, front ? "removeprefix" : "removesuffix"));
    const size_t n = stands_at_end(s, what, front) ? what->n : 0;
    const jx_str part = jx_part(s, front ? n : 0, front ? s->n : s->n - n);
    return jx_string_of(r, &part, out);
}

static mb_status m_removeprefix(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return without(r, self, a, true, out);
}

static mb_status m_removesuffix(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return without(r, self, a, false, out);
}

static mb_status m_replace(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    const jx_str *old, *by;
    int64_t most;

    MB_TRY(jx_arg_str(r, a, 0, "old", &old, "replace"));
    MB_TRY(jx_arg_str(r, a, 1, "new", &by, "replace"));
    MB_TRY(jx_arg_int(r, a, 2, "count", -1, &most));
    return jx_replace(r, jx_s(self), old, by, most, out);
}

static mb_status m_upper(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return jx_recase(r, jx_s(self), JX_UPPER, out);
}

static mb_status m_lower(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return jx_recase(r, jx_s(self), JX_LOWER, out);
}

static mb_status m_title(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return jx_recase(r, jx_s(self), JX_TITLE_METHOD, out);
}

static mb_status m_capitalize(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return jx_recase(r, jx_s(self), JX_CAPITAL, out);
}

static mb_status m_join(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    const jx_list *items;
    jx_out o = {0};
    jx_value v;

    if (!jx_arg(a, 0, NULL, &v))
        return jx_fail(r, "join wants a list");
    MB_TRY(jx_iterate(r, v, &items));
    for (size_t i = 0; i < items->n; i++) {
        if (items->at[i].kind != JX_STRING)
            return jx_fail(r, "join wants texts, not %s", jx_type_name(items->at[i]));
        if (i > 0)
            MB_TRY(jx_write_str(r, &o, jx_s(self)));
        MB_TRY(jx_write_str(r, &o, jx_s(items->at[i])));
    }
    return jx_finish(r, &o, out);
}

/* The characters before a byte. */
static int64_t char_index(const jx_str *s, int64_t at)
{
    const jx_str head = jx_part(s, 0, at < 0 ? 0 : (size_t)at);

    return at < 0 ? -1 : (int64_t)jx_length_chars(&head);
}

static mb_status find(jx_run *r, jx_value self, const jx_args *a, bool last, bool must,
                      jx_value *out)
{
    const jx_str *what, *s = jx_s(self);
    int64_t from;

    MB_TRY(jx_arg_str(r, a, 0, "sub", &what, "find"));
    MB_TRY(jx_arg_int(r, a, 1, "start", 0, &from));
    MB_TRY(jx_step(r, s->n / 64));
    if (from < 0)
        from += (int64_t)jx_length_chars(s);
    const size_t begin = jx_char_offset(s, from < 0 ? 0 : (size_t)from);
    const int64_t at = char_index(s, jx_find(s, what, begin, last));
    if (must && at < 0)
        return jx_fail(r, "index: the text is not there");
    *out = mb_jinja_int(at);
    return MB_OK;
}

static mb_status m_find(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return find(r, self, a, false, false, out);
}

static mb_status m_rfind(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return find(r, self, a, true, false, out);
}

static mb_status m_index(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return find(r, self, a, false, true, out);
}

static mb_status m_count(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    const jx_str *what, *s = jx_s(self);
    int64_t n = 0, at = 0;

    MB_TRY(jx_arg_str(r, a, 0, "sub", &what, "count"));
    if (what->n == 0)
        n = (int64_t)jx_length_chars(s) + 1;
    while (what->n > 0 && (at = jx_find(s, what, (size_t)at, false)) >= 0)
        n++, at += (int64_t)what->n;
    *out = mb_jinja_int(n);
    return MB_OK;
}

/* isdigit and its like: there is a character, and all are of the class. */
static mb_status all_are(jx_run *r, jx_value self, bool (*is)(uint32_t c), jx_value *out)
{
    const jx_str *s = jx_s(self);
    bool all = s->n > 0;

    for (size_t at = 0; at < s->n && all;) {
        uint32_t c;

        at += mb_utf8_get(s->p + at, s->p + s->n, &c);
        all = is(c);
    }
    *out = mb_jinja_bool(all);
    return MB_OK;
}

static bool is_digit(uint32_t c)
{
    return c < 128 ? c >= '0' && c <= '9' : mb_char_is_number(c);
}

static bool is_alpha(uint32_t c)
{
    return c < 128 ? (c | 32) >= 'a' && (c | 32) <= 'z'
                   : mb_char_is_word(c) && !mb_char_is_number(c) && !mb_char_is_mark(c);
}

static bool is_alnum(uint32_t c)
{
    return is_digit(c) || is_alpha(c);
}

static mb_status m_isdigit(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return all_are(r, self, is_digit, out);
}

static mb_status m_isalpha(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return all_are(r, self, is_alpha, out);
}

static mb_status m_isalnum(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return all_are(r, self, is_alnum, out);
}

static mb_status m_isspace(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return all_are(r, self, jx_is_space, out);
}

static mb_status cased(jx_run *r, jx_value self, const char *test, jx_value *out)
{
    const jx_args none = {0};
    bool yes;

    MB_TRY(jx_test(r, jx_test_named(test), self, &none, &yes));
    *out = mb_jinja_bool(yes);
    return MB_OK;
}

static mb_status m_isupper(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return cased(r, self, "upper", out);
}

static mb_status m_islower(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return cased(r, self, "lower", out);
}

/* ljust, rjust, center, zfill */
static mb_status padded(jx_run *r, jx_value self, const jx_args *a, char how, jx_value *out)
{
    const jx_str *s = jx_s(self), zero = {.p = "0", .n = 1}, blank = {.p = " ", .n = 1};
    const jx_str *fill = how == 'z' ? &zero : &blank;
    int64_t width, left = 0, right = 0;
    jx_value v;
    jx_out o = {0};
    size_t sign = 0;

    MB_TRY(jx_arg_int(r, a, 0, "width", 0, &width));
    if (how != 'z' && jx_arg(a, 1, "fillchar", &v) && v.kind == JX_STRING)
        fill = jx_s(v);
    width -= (int64_t)jx_length_chars(s);
    if (width > 0) {
        left = how == 'l'   ? 0
               : how == 'c' ? width / 2 + (width & (width + (int64_t)jx_length_chars(s)) & 1)
                            : width;
        right = width - left;
    }
    if (how == 'z' && s->n > 0 && (s->p[0] == '-' || s->p[0] == '+'))
        sign = 1;
    const jx_str head = jx_part(s, 0, sign), tail = jx_part(s, sign, s->n);
    MB_TRY(jx_write_str(r, &o, &head));
    for (int64_t i = 0; i < left; i++)
        MB_TRY(jx_write_str(r, &o, fill));
    MB_TRY(jx_write_str(r, &o, &tail));
    for (int64_t i = 0; i < right; i++)
        MB_TRY(jx_write_str(r, &o, fill));
    return jx_finish(r, &o, out);
}

static mb_status m_ljust(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return padded(r, self, a, 'l', out);
}

static mb_status m_rjust(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return padded(r, self, a, 'r', out);
}

static mb_status m_center(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return padded(r, self, a, 'c', out);
}

static mb_status m_zfill(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return padded(r, self, a, 'z', out);
}

/* "{} {0} {name}".format(...) without anything behind the names. */
static mb_status m_format(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    const jx_str *s = jx_s(self);
    size_t next = 0;
    jx_out o = {0};

    for (size_t at = 0; at < s->n; at++) {
        const char c = s->p[at];
        char name[40];
        size_t n = 0;
        jx_value v;

        if ((c == '{' || c == '}') && at + 1 < s->n && s->p[at + 1] == c)
            at++;
        else if (c == '{') {
            for (at++; at < s->n && s->p[at] != '}' && n + 1 < sizeof name; at++)
                name[n++] = s->p[at];
            name[n] = '\0';
            if (at >= s->n || s->p[at] != '}' || strpbrk(name, ".[!:{") != NULL)
                return jx_fail(r, "format understands {}, {0} and {name} only");
            const bool number = n > 0 && strspn(name, "0123456789") == n;
            if (!jx_arg(a,
                        n == 0   ? next++
                        : number ? (size_t)strtoul(name, NULL, 10)
                                 : SIZE_MAX,
                        number || n == 0 ? NULL : name, &v))
                return jx_fail(r, "format has no value for {%s}", name);
            MB_TRY(jx_write_value(r, &o, v));
            continue;
        }
        MB_TRY(jx_write(r, &o, s->p + at, 1, NULL, jx_origin_at(s, at)));
    }
    return jx_finish(r, &o, out);
}

/* ---- lists and dicts ------------------------------------------------------------------------ */

static mb_status m_list_count(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    int64_t n = 0;
    jx_value v;
    bool same;

    if (!jx_arg(a, 0, NULL, &v))
        return jx_fail(r, "count wants a value");
    for (size_t i = 0; i < jx_l(self)->n; i++) {
        MB_TRY(jx_equal(r, jx_l(self)->at[i], v, &same));
        n += same;
    }
    *out = mb_jinja_int(n);
    return MB_OK;
}

static mb_status m_list_index(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    jx_value v;
    bool same;

    if (!jx_arg(a, 0, NULL, &v))
        return jx_fail(r, "index wants a value");
    for (size_t i = 0; i < jx_l(self)->n; i++) {
        MB_TRY(jx_equal(r, jx_l(self)->at[i], v, &same));
        if (same) {
            *out = mb_jinja_int((int64_t)i);
            return MB_OK;
        }
    }
    return jx_fail(r, "index: the value is not in the list");
}

static mb_status m_list_copy(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    const jx_args none = {0};

    return jx_apply(r, jx_filter_named("list"), self, &none, out);
}

enum part { KEYS = 1, VALUES = 2 };

static mb_status view(jx_run *r, jx_value self, int parts, jx_value *out)
{
    const jx_dict *d = jx_d(self);

    MB_TRY(jx_step(r, d->n));
    MB_TRY(jx_new_list(r, d->n, JX_VIEW, out));
    for (size_t i = 0; i < d->n; i++) {
        jx_value v = parts == KEYS ? d->at[i].key : d->at[i].value;

        if (parts == (KEYS | VALUES)) {
            MB_TRY(jx_new_list(r, 2, JX_TUPLE, &v));
            MB_TRY(jx_push(r, v, d->at[i].key));
            MB_TRY(jx_push(r, v, d->at[i].value));
        }
        MB_TRY(jx_push(r, *out, v));
    }
    return MB_OK;
}

static mb_status m_keys(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return view(r, self, KEYS, out);
}

static mb_status m_values(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return view(r, self, VALUES, out);
}

static mb_status m_items(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    return view(r, self, KEYS | VALUES, out);
}

static mb_status m_get(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    jx_value key;
    bool found;

    if (a->n < 1 || a->n > 2)
        return jx_fail(r, "get wants a key and perhaps a default");
    key = a->at[0];
    MB_TRY(jx_dict_find(r, self, key, out, &found));
    if (!found)
        *out = a->n == 2 ? a->at[1] : mb_jinja_none();
    return MB_OK;
}

static mb_status m_dict_copy(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    *out = self; /* nothing can change either */
    return MB_OK;
}

/* ---- loops ---------------------------------------------------------------------------------- */

static mb_status m_cycle(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    const jx_loop *l = self.as.p;

    if (a->n == 0)
        return jx_fail(r, "cycle wants values");
    *out = a->at[l->at % a->n];
    return MB_OK;
}

static mb_status m_changed(jx_run *r, jx_value self, const jx_args *a, jx_value *out)
{
    jx_loop *l = self.as.p;
    jx_value now;
    bool same = false;

    MB_TRY(jx_new_list(r, a->n, JX_TUPLE, &now));
    for (size_t i = 0; i < a->n; i++)
        MB_TRY(jx_push(r, now, a->at[i]));
    if (l->has_changed)
        MB_TRY(jx_equal(r, l->changed, now, &same));
    l->changed = now;
    l->has_changed = true;
    *out = mb_jinja_bool(!same);
    return MB_OK;
}

static const struct method methods[] = {
    {JX_STRING, "strip", m_strip},
    {JX_STRING, "lstrip", m_lstrip},
    {JX_STRING, "rstrip", m_rstrip},
    {JX_STRING, "split", m_split},
    {JX_STRING, "rsplit", m_rsplit},
    {JX_STRING, "splitlines", m_splitlines},
    {JX_STRING, "partition", m_partition},
    {JX_STRING, "rpartition", m_rpartition},
    {JX_STRING, "startswith", m_startswith},
    {JX_STRING, "endswith", m_endswith},
    {JX_STRING, "removeprefix", m_removeprefix},
    {JX_STRING, "removesuffix", m_removesuffix},
    {JX_STRING, "replace", m_replace},
    {JX_STRING, "upper", m_upper},
    {JX_STRING, "lower", m_lower},
    {JX_STRING, "title", m_title},
    {JX_STRING, "capitalize", m_capitalize},
    {JX_STRING, "join", m_join},
    {JX_STRING, "find", m_find},
    {JX_STRING, "rfind", m_rfind},
    {JX_STRING, "index", m_index},
    {JX_STRING, "count", m_count},
    {JX_STRING, "isdigit", m_isdigit},
    {JX_STRING, "isnumeric", m_isdigit},
    {JX_STRING, "isdecimal", m_isdigit},
    {JX_STRING, "isalpha", m_isalpha},
    {JX_STRING, "isalnum", m_isalnum},
    {JX_STRING, "isspace", m_isspace},
    {JX_STRING, "isupper", m_isupper},
    {JX_STRING, "islower", m_islower},
    {JX_STRING, "ljust", m_ljust},
    {JX_STRING, "rjust", m_rjust},
    {JX_STRING, "center", m_center},
    {JX_STRING, "zfill", m_zfill},
    {JX_STRING, "format", m_format},
    {JX_LIST, "count", m_list_count},
    {JX_LIST, "index", m_list_index},
    {JX_LIST, "copy", m_list_copy},
    {JX_LIST, "append", NULL},
    {JX_LIST, "clear", NULL},
    {JX_LIST, "extend", NULL},
    {JX_LIST, "insert", NULL},
    {JX_LIST, "pop", NULL},
    {JX_LIST, "remove", NULL},
    {JX_LIST, "reverse", NULL},
    {JX_LIST, "sort", NULL},
    {JX_DICT, "keys", m_keys},
    {JX_DICT, "values", m_values},
    {JX_DICT, "items", m_items},
    {JX_DICT, "get", m_get},
    {JX_DICT, "copy", m_dict_copy},
    {JX_DICT, "clear", NULL},
    {JX_DICT, "pop", NULL},
    {JX_DICT, "popitem", NULL},
    {JX_DICT, "setdefault", NULL},
    {JX_DICT, "update", NULL},
    {JX_LOOP, "cycle", m_cycle},
    {JX_LOOP, "changed", m_changed},
};

mb_status jx_method_of(jx_run *r, jx_value v, const char *name, jx_value *out, bool *found)
{
    *found = false;
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        void *p;

        if (methods[i].kind != (enum jx_kind)v.kind || strcmp(methods[i].name, name) != 0)
            continue;
        MB_TRY(jx_get(r, sizeof(jx_method), &p));
        *(jx_method *)p = (jx_method){v, &methods[i]};
        *out = (jx_value){.kind = JX_METHOD, .as.p = p};
        *found = true;
        return MB_OK;
    }
    return MB_OK;
}

mb_status jx_method_call(jx_run *r, const jx_method *m, const jx_args *args, jx_value *out)
{
    const struct method *f = m->of;

    if (f->call == NULL)
        return jx_fail(r, "%s would change a %s, and values of a template never change", f->name,
                       jx_type_name(m->self));
    MB_TRY(jx_step(r, 1));
    return f->call(r, m->self, args, out);
}

/* ---- functions ------------------------------------------------------------------------------ */

struct function {
    const char *name;
    mb_status (*call)(jx_run *r, const jx_args *a, jx_value *out);
};

static mb_status raise(jx_run *r, const jx_args *a, jx_value *out)
{
    const jx_str *s;
    jx_value v;

    if (!jx_arg(a, 0, "message", &v))
        return jx_fail(r, "raise_exception wants a message");
    MB_TRY(jx_to_str(r, v, &s));
    return jx_fail(r, "the template refuses: %.*s", (int)(s->n < 400 ? s->n : 400), s->p);
}

static mb_status range(jx_run *r, const jx_args *a, jx_value *out)
{
    int64_t v[3] = {0, 0, 1}, n;

    if (a->n < 1 || a->n > 3 || a->n_keywords > 0)
        return jx_fail(r, "range wants one to three integers");
    for (size_t i = 0; i < a->n; i++) {
        if (!jx_as_int(a->at[i], &v[i]))
            return jx_fail(r, "range wants integers, not %s", jx_type_name(a->at[i]));
    }
    if (a->n == 1)
        v[1] = v[0], v[0] = 0;
    if (v[2] == 0)
        return jx_fail(r, "range cannot have the step 0");
    if (v[0] < -(1LL << 40) || v[0] > 1LL << 40 || v[1] < -(1LL << 40) || v[1] > 1LL << 40 ||
        v[2] < -(1LL << 40) || v[2] > 1LL << 40)
        return jx_fail(r, "a range is too large");
    n = v[2] > 0 ? (v[1] - v[0] + v[2] - 1) / v[2] : (v[0] - v[1] - v[2] - 1) / -v[2];
    if (n > MOST_RANGE)
        return jx_fail(r, "a range has more than %d numbers", MOST_RANGE);
    n = n > 0 ? n : 0;
    MB_TRY(jx_step(r, (size_t)n / 16));
    MB_TRY(jx_new_list(r, (size_t)n, JX_PLAIN, out));
    for (int64_t i = 0; i < n; i++)
        MB_TRY(jx_push(r, *out, mb_jinja_int(v[0] + i * v[2])));
    return MB_OK;
}

/* dict(other, a=1) and namespace(a=1): the members of a dict, then the named ones. */
static mb_status make(jx_run *r, const jx_args *a, int kind, jx_value *out)
{
    jx_value key;

    MB_TRY(jx_new_dict(r, kind, out));
    for (size_t i = 0; i < a->n; i++) {
        const jx_list *items;

        if (a->at[i].kind == JX_DICT) {
            for (size_t k = 0; k < jx_d(a->at[i])->n; k++)
                MB_TRY(
                    jx_dict_add(r, *out, jx_d(a->at[i])->at[k].key, jx_d(a->at[i])->at[k].value));
            continue;
        }
        MB_TRY(jx_iterate(r, a->at[i], &items));
        for (size_t k = 0; k < items->n; k++) {
            const jx_list *pair;

            MB_TRY(jx_iterate(r, items->at[k], &pair));
            if (pair->n != 2)
                return jx_fail(r, "dict wants pairs of a key and a value");
            MB_TRY(jx_dict_add(r, *out, pair->at[0], pair->at[1]));
        }
    }
    for (size_t i = 0; i < a->n_keywords; i++) {
        MB_TRY(jx_literal(r, a->keyword[i].name, &key));
        MB_TRY(jx_dict_add(r, *out, key, a->keyword[i].value));
    }
    return MB_OK;
}

static mb_status make_dict(jx_run *r, const jx_args *a, jx_value *out)
{
    return make(r, a, JX_DICT, out);
}

static mb_status make_space(jx_run *r, const jx_args *a, jx_value *out)
{
    return make(r, a, JX_SPACE, out);
}

static mb_status strftime_now(jx_run *r, const jx_args *a, jx_value *out)
{
    const time_t now = r->has_now ? r->now : time(NULL);
    char format[100], text[400];
    const jx_str *s;
    struct tm t;

    MB_TRY(jx_arg_str(r, a, 0, "format", &s, "strftime_now"));
    if (s->n >= sizeof format || memchr(s->p, 0, s->n) != NULL)
        return jx_fail(r, "the format of strftime_now is too long");
    memcpy(format, s->p, s->n);
    format[s->n] = '\0';
    localtime_r(&now, &t);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    const size_t n = strftime(text, sizeof text, format, &t);
#pragma GCC diagnostic pop
    return mb_jinja_string(r, text, n, MB_JINJA_TEMPLATE, out);
}

static const struct function functions[] = {
    {"dict", make_dict}, {"namespace", make_space},      {"raise_exception", raise},
    {"range", range},    {"strftime_now", strftime_now},
};

mb_status jx_function_named(const char *name, jx_value *out, bool *found)
{
    *found = false;
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        if (strcmp(functions[i].name, name) != 0)
            continue;
        *out = (jx_value){.kind = JX_FUNCTION, .as.p = (void *)(uintptr_t)&functions[i]};
        *found = true;
    }
    return MB_OK;
}

mb_status jx_function_call(jx_run *r, jx_value f, const jx_args *args, jx_value *out)
{
    return ((const struct function *)f.as.p)->call(r, args, out);
}
