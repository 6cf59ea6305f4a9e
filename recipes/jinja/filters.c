/* recipes/jinja/filters.c - filters, a table by name; those of Jinja2 that chat templates use. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recipes/jinja/inside.h"

struct jx_filter {
    const char *name;
    mb_status (*apply)(jx_run *r, jx_value v, const jx_args *a, jx_value *out);
    const char *also; /* another name */
};

/* ---- arguments ------------------------------------------------------------------------------ */

bool jx_arg(const jx_args *a, size_t at, const char *name, jx_value *out)
{
    if (at < a->n) {
        *out = a->at[at];
        return true;
    }
    for (size_t i = 0; name != NULL && i < a->n_keywords; i++) {
        if (strcmp(a->keyword[i].name, name) == 0) {
            *out = a->keyword[i].value;
            return true;
        }
    }
    return false;
}

mb_status jx_arg_int(jx_run *r, const jx_args *a, size_t at, const char *name, int64_t otherwise,
                     int64_t *out)
{
    jx_value v;

    *out = otherwise;
    if (!jx_arg(a, at, name, &v) || v.kind == JX_NONE)
        return MB_OK;
    if (!jx_as_int(v, out))
        return jx_fail(r, "the argument %s must be an integer, not %s", name, jx_type_name(v));
    return MB_OK;
}

mb_status jx_arg_str(jx_run *r, const jx_args *a, size_t at, const char *name, const jx_str **out,
                     const char *whose)
{
    jx_value v;

    if (!jx_arg(a, at, name, &v) || v.kind != JX_STRING)
        return jx_fail(r, "%s wants a text as its argument %s", whose, name);
    *out = jx_s(v);
    return MB_OK;
}

static bool arg_truth(const jx_args *a, size_t at, const char *name, bool otherwise)
{
    jx_value v;

    return jx_arg(a, at, name, &v) ? jx_truth(v) : otherwise;
}

/* An integer or a decimal number. */
static bool is_index(const jx_str *s)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->p[i] < '0' || s->p[i] > '9')
            return false;
    }
    return s->n > 0 && s->n < 18;
}

/* v.attribute of a dotted path, v itself without one. */
static mb_status path_of(jx_run *r, jx_value v, jx_value path, jx_value *out)
{
    *out = v;
    if (path.kind == JX_INT)
        return jx_item(r, v, path, out);
    if (path.kind != JX_STRING)
        return MB_OK;
    for (jx_str rest = *jx_s(path); rest.n > 0;) {
        const jx_str dot = {.p = ".", .n = 1};
        const int64_t at = jx_find(&rest, &dot, 0, false);
        const size_t end = at < 0 ? rest.n : (size_t)at;
        const jx_str name = jx_part(&rest, 0, end);
        jx_value key;

        MB_TRY(jx_string_of(r, &name, &key));
        if (is_index(&name)) {
            int64_t i = 0;

            for (size_t k = 0; k < name.n; k++)
                i = 10 * i + (name.p[k] - '0');
            key = mb_jinja_int(i);
        }
        MB_TRY(jx_item(r, *out, key, out));
        rest = jx_part(&rest, at < 0 ? rest.n : end + 1, rest.n);
    }
    return MB_OK;
}

/* As sort and its friends see it: without regard to case. */
static mb_status folded(jx_run *r, jx_value v, bool sensitive, jx_value *out)
{
    *out = v;
    return v.kind == JX_STRING && !sensitive ? jx_recase(r, jx_s(v), JX_LOWER, out) : MB_OK;
}

/* ---- strings -------------------------------------------------------------------------------- */

static mb_status recase(jx_run *r, jx_value v, jx_case how, jx_value *out)
{
    const jx_str *s;

    MB_TRY(jx_to_str(r, v, &s));
    return jx_recase(r, s, how, out);
}

static mb_status f_lower(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return recase(r, v, JX_LOWER, out);
}

static mb_status f_upper(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return recase(r, v, JX_UPPER, out);
}

static mb_status f_title(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return recase(r, v, JX_TITLE_FILTER, out);
}

static mb_status f_capitalize(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return recase(r, v, JX_CAPITAL, out);
}

static mb_status f_string(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const jx_str *s;

    MB_TRY(jx_to_str(r, v, &s));
    return jx_string_of(r, s, out);
}

static mb_status f_trim(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const jx_str *s;
    jx_value chars;

    MB_TRY(jx_to_str(r, v, &s));
    const bool given = jx_arg(a, 0, "chars", &chars) && chars.kind == JX_STRING;
    const jx_str part = jx_strip(s, given ? jx_s(chars) : NULL, JX_LEFT | JX_RIGHT);
    return jx_string_of(r, &part, out);
}

static mb_status f_replace(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const jx_str *s, *old, *by;
    int64_t most;

    MB_TRY(jx_to_str(r, v, &s));
    MB_TRY(jx_arg_str(r, a, 0, "old", &old, "replace"));
    MB_TRY(jx_arg_str(r, a, 1, "new", &by, "replace"));
    MB_TRY(jx_arg_int(r, a, 2, "count", -1, &most));
    return jx_replace(r, s, old, by, most, out);
}

static mb_status f_format(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const jx_list list = {.at = a->at, .n = a->n};
    const jx_str *s;

    MB_TRY(jx_to_str(r, v, &s));
    return jx_format(r, s, &list, out);
}

static mb_status f_indent(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const bool first = arg_truth(a, 1, "first", false), blank = arg_truth(a, 2, "blank", false);
    const jx_str *s;
    jx_value by, lines;
    jx_str margin = {.p = "    ", .n = 4};
    jx_out o = {0}, m = {0};
    int64_t width;

    MB_TRY(jx_to_str(r, v, &s));
    if (jx_arg(a, 0, "width", &by) && by.kind == JX_STRING) {
        margin = *jx_s(by);
    } else {
        MB_TRY(jx_arg_int(r, a, 0, "width", 4, &width));
        for (int64_t i = 0; i < width; i++)
            MB_TRY(jx_puts(r, &m, " "));
        margin = (jx_str){.p = m.n > 0 ? m.p : "", .n = m.n};
    }
    MB_TRY(jx_lines(r, s, false, &lines));
    const jx_list *l = jx_l(lines);
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            MB_TRY(jx_puts(r, &o, "\n"));
        if (i == 0 ? first : jx_s(l->at[i])->n > 0 || blank)
            MB_TRY(jx_write_str(r, &o, &margin));
        MB_TRY(jx_write_str(r, &o, jx_s(l->at[i])));
    }
    if (s->n > 0 && s->p[s->n - 1] == '\n') { /* the last line is empty, and a line */
        MB_TRY(jx_puts(r, &o, "\n"));
        if (blank)
            MB_TRY(jx_write_str(r, &o, &margin));
    }
    return jx_finish(r, &o, out);
}

static mb_status f_wordcount(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const jx_str *s;
    jx_value words;

    MB_TRY(jx_to_str(r, v, &s));
    MB_TRY(jx_split(r, s, NULL, -1, false, &words));
    *out = mb_jinja_int((int64_t)jx_l(words)->n);
    return MB_OK;
}

static mb_status f_truncate(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const bool kill = arg_truth(a, 1, "killwords", false);
    const jx_str dots = {.p = "...", .n = 3}, space = {.p = " ", .n = 1};
    const jx_str *s, *end = &dots;
    int64_t length, leeway, at;
    jx_value e;
    jx_out o = {0};

    MB_TRY(jx_to_str(r, v, &s));
    MB_TRY(jx_arg_int(r, a, 0, "length", 255, &length));
    MB_TRY(jx_arg_int(r, a, 3, "leeway", 5, &leeway));
    if (jx_arg(a, 2, "end", &e))
        MB_TRY(jx_to_str(r, e, &end));
    const int64_t n = (int64_t)jx_length_chars(s), n_end = (int64_t)jx_length_chars(end);
    if (length < n_end || leeway < 0)
        return jx_fail(r, "truncate to %lld characters leaves no room for its end",
                       (long long)length);
    if (n <= length + leeway)
        return jx_string_of(r, s, out);
    jx_str part = jx_part(s, 0, jx_char_offset(s, (size_t)(length - n_end)));
    if (!kill && (at = jx_find(&part, &space, 0, true)) >= 0)
        part = jx_part(&part, 0, (size_t)at);
    MB_TRY(jx_write_str(r, &o, &part));
    MB_TRY(jx_write_str(r, &o, end));
    return jx_finish(r, &o, out);
}

static mb_status f_escape(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    static const char from[] = "&<>\"'";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
    const jx_str *s;
    jx_out o = {0};

    MB_TRY(jx_to_str(r, v, &s));
    for (size_t i = 0; i < s->n; i++) {
        const char *k = s->p[i] != '\0' ? strchr(from, s->p[i]) : NULL;
        const char *text = k != NULL ? to[k - from] : s->p + i;

        MB_TRY(jx_write(r, &o, text, k != NULL ? strlen(text) : 1, NULL, jx_origin_at(s, i)));
    }
    return jx_finish(r, &o, out);
}

static mb_status f_tojson(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    jx_json_style style = {.indent = -1, .item = ", ", .key = ": "};
    jx_value indent, separators;
    int64_t width;
    jx_out o = {0};

    style.ascii = arg_truth(a, 0, "ensure_ascii", false);
    style.sort = arg_truth(a, 3, "sort_keys", false);
    if (jx_arg(a, 1, "indent", &indent) && indent.kind != JX_NONE) {
        MB_TRY(jx_arg_int(r, a, 1, "indent", 0, &width));
        if (width > 64)
            return jx_fail(r, "tojson with an indent of %lld", (long long)width);
        style.indent = width < 0 ? 0 : (int)width;
        style.item = ",";
    }
    if (jx_arg(a, 2, "separators", &separators) && separators.kind == JX_LIST) {
        const jx_list *l = jx_l(separators);
        const char *text[2];

        if (l->n != 2 || l->at[0].kind != JX_STRING || l->at[1].kind != JX_STRING)
            return jx_fail(r, "tojson wants two texts as separators");
        for (int i = 0; i < 2; i++) {
            const jx_str *s = jx_s(l->at[i]);
            void *p;

            MB_TRY(jx_get(r, s->n + 1, &p));
            memcpy(p, s->p, s->n);
            text[i] = p;
        }
        style.item = text[0];
        style.key = text[1];
    }
    MB_TRY(jx_write_json(r, &o, v, &style, 0));
    return jx_finish(r, &o, out);
}

/* ---- numbers -------------------------------------------------------------------------------- */

static bool number_of(const jx_str *whole, double *out)
{
    const jx_str s = jx_strip(whole, NULL, JX_LEFT | JX_RIGHT);
    char text[64], *end;

    if (s.n == 0 || s.n >= sizeof text)
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    if (strpbrk(text, "xXpP") != NULL)
        return false;
    *out = strtod(text, &end);
    return *end == '\0';
}

static mb_status f_int(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    int64_t otherwise, i, base;
    double d = NAN;

    MB_TRY(jx_arg_int(r, a, 0, "default", 0, &otherwise));
    MB_TRY(jx_arg_int(r, a, 1, "base", 10, &base));
    *out = mb_jinja_int(otherwise);
    if (jx_as_int(v, &i)) {
        *out = mb_jinja_int(i);
        return MB_OK;
    }
    if (v.kind == JX_STRING && (base == 16 || base == 8 || base == 2)) {
        const jx_str s = jx_strip(jx_s(v), NULL, JX_LEFT | JX_RIGHT);
        char text[72], *end;

        if (s.n == 0 || s.n >= sizeof text)
            return MB_OK;
        memcpy(text, s.p, s.n);
        text[s.n] = '\0';
        i = strtoll(text, &end, (int)base);
        if (*end == '\0')
            *out = mb_jinja_int(i);
        return MB_OK;
    }
    if (v.kind == JX_STRING && jx_s(v)->n < 19) {
        const jx_str s = jx_strip(jx_s(v), NULL, JX_LEFT | JX_RIGHT);
        const jx_str digits = s.n > 0 && s.p[0] == '-' ? jx_part(&s, 1, s.n) : s;

        if (is_index(&digits)) {
            char text[24];

            memcpy(text, s.p, s.n);
            text[s.n] = '\0';
            *out = mb_jinja_int(strtoll(text, NULL, 10));
            return MB_OK;
        }
    }
    if (v.kind == JX_REAL)
        d = v.as.r;
    else if (v.kind != JX_STRING || !number_of(jx_s(v), &d))
        return MB_OK;
    if (d > -9e18 && d < 9e18)
        *out = mb_jinja_int((int64_t)d);
    return MB_OK;
}

static mb_status f_float(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    jx_value otherwise;
    double d;

    *out = jx_real(0.0);
    if (jx_arg(a, 0, "default", &otherwise))
        *out = otherwise;
    if (jx_is_number(v))
        *out = jx_real(jx_as_real(v));
    else if (v.kind == JX_STRING && number_of(jx_s(v), &d))
        *out = jx_real(d);
    return MB_OK;
}

static mb_status f_abs(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    int64_t i;

    if (!jx_is_number(v))
        return jx_fail(r, "abs wants a number, not %s", jx_type_name(v));
    if (!jx_as_int(v, &i))
        *out = jx_real(fabs(v.as.r));
    else if (i == INT64_MIN)
        return jx_fail(r, "an integer is too large");
    else
        *out = mb_jinja_int(i < 0 ? -i : i);
    return MB_OK;
}

static mb_status f_round(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    jx_value method;
    int64_t digits;
    double scale, d;

    MB_TRY(jx_arg_int(r, a, 0, "precision", 0, &digits));
    if (!jx_is_number(v) || digits > 15 || digits < -15)
        return jx_fail(r, "round wants a number and at most 15 digits");
    const bool named = jx_arg(a, 1, "method", &method) && method.kind == JX_STRING;
    const bool up = named && jx_str_is(jx_s(method), "ceil");
    const bool down = named && jx_str_is(jx_s(method), "floor");
    scale = pow(10.0, (double)digits);
    d = jx_as_real(v);
    if (up || down) {
        *out = jx_real((up ? ceil(d * scale) : floor(d * scale)) / scale);
    } else if (v.kind == JX_REAL) {
        char text[400]; /* as Python: the decimal number nearest, halves to even */

        snprintf(text, sizeof text, "%.*f", digits > 0 ? (int)digits : 0, d);
        *out = jx_real(digits >= 0 ? strtod(text, NULL) : rint(d * scale) / scale);
    } else {
        *out = digits >= 0 ? v : mb_jinja_int((int64_t)(rint(d * scale) / scale));
    }
    return MB_OK;
}

/* ---- lists ---------------------------------------------------------------------------------- */

static mb_status f_length(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    size_t n = 0;

    if (v.kind == JX_STRING)
        n = jx_length_chars(jx_s(v));
    else if (v.kind == JX_LIST && v.flag != JX_LAZY)
        n = jx_l(v)->n;
    else if (v.kind == JX_DICT)
        n = jx_d(v)->n;
    else if (v.kind != JX_UNDEFINED)
        return jx_fail(r, "a %s has no length", jx_type_name(v));
    *out = mb_jinja_int((int64_t)n);
    return MB_OK;
}

static mb_status f_list(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const jx_list *items;

    MB_TRY(jx_iterate(r, v, &items));
    MB_TRY(jx_new_list(r, items->n, JX_PLAIN, out));
    for (size_t i = 0; i < items->n; i++)
        MB_TRY(jx_push(r, *out, items->at[i]));
    return MB_OK;
}

static mb_status end_of(jx_run *r, jx_value v, bool last, jx_value *out)
{
    const jx_list *items;

    MB_TRY(jx_iterate(r, v, &items));
    *out = items->n == 0 ? jx_undefined(NULL) : items->at[last ? items->n - 1 : 0];
    return MB_OK;
}

static mb_status f_first(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return end_of(r, v, false, out);
}

static mb_status f_last(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return end_of(r, v, true, out);
}

static mb_status f_reverse(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const jx_list *items;
    jx_out o = {0};

    MB_TRY(jx_iterate(r, v, &items));
    MB_TRY(jx_new_list(r, items->n, JX_LAZY, out));
    for (size_t i = items->n; i > 0; i--) {
        MB_TRY(jx_push(r, *out, items->at[i - 1]));
        if (v.kind == JX_STRING)
            MB_TRY(jx_write_str(r, &o, jx_s(items->at[i - 1])));
    }
    return v.kind == JX_STRING ? jx_finish(r, &o, out) : MB_OK;
}

static mb_status f_join(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    jx_value by, attribute = mb_jinja_none(), item;
    const jx_list *items;
    const jx_str *s, *between = NULL;
    jx_out o = {0};

    if (jx_arg(a, 0, "d", &by))
        MB_TRY(jx_to_str(r, by, &between));
    jx_arg(a, 1, "attribute", &attribute);
    MB_TRY(jx_iterate(r, v, &items));
    for (size_t i = 0; i < items->n; i++) {
        if (i > 0 && between != NULL)
            MB_TRY(jx_write_str(r, &o, between));
        MB_TRY(path_of(r, items->at[i], attribute, &item));
        MB_TRY(jx_to_str(r, item, &s));
        MB_TRY(jx_write_str(r, &o, s));
    }
    return jx_finish(r, &o, out);
}

/* Stable, by keys. */
static mb_status merge_sort(jx_run *r, jx_member *at, jx_member *spare, size_t n, bool down)
{
    const size_t half = n / 2;
    size_t i = 0, j = half, k = 0;
    int c;

    if (n < 2)
        return MB_OK;
    MB_TRY(merge_sort(r, at, spare, half, down));
    MB_TRY(merge_sort(r, at + half, spare, n - half, down));
    while (i < half && j < n) {
        MB_TRY(jx_order(r, at[i].key, at[j].key, &c));
        spare[k++] = (down ? c >= 0 : c <= 0) ? at[i++] : at[j++];
    }
    while (i < half)
        spare[k++] = at[i++];
    while (j < n)
        spare[k++] = at[j++];
    memcpy(at, spare, n * sizeof *at);
    return MB_OK;
}

static mb_status sorted(jx_run *r, const jx_list *items, jx_value attribute, bool sensitive,
                        bool down, jx_member **out)
{
    jx_member *m;
    void *p;

    MB_TRY(jx_step(r, items->n));
    MB_TRY(jx_get(r, (2 * items->n + 1) * sizeof(jx_member), &p));
    m = p;
    for (size_t i = 0; i < items->n; i++) {
        m[i].value = items->at[i];
        MB_TRY(path_of(r, items->at[i], attribute, &m[i].key));
        MB_TRY(folded(r, m[i].key, sensitive, &m[i].key));
    }
    MB_TRY(merge_sort(r, m, m + items->n, items->n, down));
    *out = m;
    return MB_OK;
}

static mb_status f_sort(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    jx_value attribute = mb_jinja_none();
    const jx_list *items;
    jx_member *m;

    jx_arg(a, 2, "attribute", &attribute);
    MB_TRY(jx_iterate(r, v, &items));
    MB_TRY(sorted(r, items, attribute, arg_truth(a, 1, "case_sensitive", false),
                  arg_truth(a, 0, "reverse", false), &m));
    MB_TRY(jx_new_list(r, items->n, JX_PLAIN, out));
    for (size_t i = 0; i < items->n; i++)
        MB_TRY(jx_push(r, *out, m[i].value));
    return MB_OK;
}

static mb_status pairs_of(jx_run *r, jx_value v, int flavour, jx_value *out)
{
    const jx_dict *d = jx_d(v);

    MB_TRY(jx_new_list(r, d->n, flavour, out));
    for (size_t i = 0; i < d->n; i++) {
        jx_value pair;

        MB_TRY(jx_new_list(r, 2, JX_TUPLE, &pair));
        MB_TRY(jx_push(r, pair, d->at[i].key));
        MB_TRY(jx_push(r, pair, d->at[i].value));
        MB_TRY(jx_push(r, *out, pair));
    }
    return MB_OK;
}

static mb_status f_dictsort(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    jx_value pairs, by;
    jx_member *m;

    if (v.kind != JX_DICT)
        return jx_fail(r, "dictsort wants a dict, not a %s", jx_type_name(v));
    MB_TRY(pairs_of(r, v, JX_PLAIN, &pairs));
    const bool value =
        jx_arg(a, 1, "by", &by) && by.kind == JX_STRING && jx_str_is(jx_s(by), "value");
    MB_TRY(sorted(r, jx_l(pairs), mb_jinja_int(value), arg_truth(a, 0, "case_sensitive", false),
                  arg_truth(a, 2, "reverse", false), &m));
    for (size_t i = 0; i < jx_l(pairs)->n; i++)
        jx_l(pairs)->at[i] = m[i].value;
    *out = pairs;
    return MB_OK;
}

static mb_status f_items(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    if (v.kind == JX_UNDEFINED)
        return jx_new_list(r, 0, JX_LAZY, out);
    if (v.kind != JX_DICT)
        return jx_fail(r, "items wants a dict, not a %s", jx_type_name(v));
    return pairs_of(r, v, JX_LAZY, out);
}

static mb_status extreme(jx_run *r, jx_value v, const jx_args *a, bool most, jx_value *out)
{
    jx_value attribute = mb_jinja_none();
    const jx_list *items;
    jx_member *m;

    jx_arg(a, 1, "attribute", &attribute);
    MB_TRY(jx_iterate(r, v, &items));
    *out = jx_undefined(NULL);
    if (items->n == 0)
        return MB_OK;
    MB_TRY(sorted(r, items, attribute, arg_truth(a, 0, "case_sensitive", false), most, &m));
    *out = m[0].value;
    return MB_OK;
}

static mb_status f_min(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return extreme(r, v, a, false, out);
}

static mb_status f_max(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return extreme(r, v, a, true, out);
}

static mb_status f_sum(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    jx_value attribute = mb_jinja_none(), start, item;
    const jx_list *items;

    jx_arg(a, 0, "attribute", &attribute);
    *out = jx_arg(a, 1, "start", &start) ? start : mb_jinja_int(0);
    MB_TRY(jx_iterate(r, v, &items));
    for (size_t i = 0; i < items->n; i++) {
        MB_TRY(path_of(r, items->at[i], attribute, &item));
        MB_TRY(jx_add(r, *out, item, out));
    }
    return MB_OK;
}

static mb_status f_unique(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const bool sensitive = arg_truth(a, 0, "case_sensitive", false);
    jx_value attribute = mb_jinja_none(), seen, key;
    const jx_list *items;

    jx_arg(a, 1, "attribute", &attribute);
    MB_TRY(jx_iterate(r, v, &items));
    MB_TRY(jx_new_list(r, 0, JX_PLAIN, &seen));
    MB_TRY(jx_new_list(r, 0, JX_LAZY, out));
    for (size_t i = 0; i < items->n; i++) {
        bool known = false;

        MB_TRY(path_of(r, items->at[i], attribute, &key));
        MB_TRY(folded(r, key, sensitive, &key));
        for (size_t k = 0; k < jx_l(seen)->n && !known; k++)
            MB_TRY(jx_equal(r, jx_l(seen)->at[k], key, &known));
        if (known)
            continue;
        MB_TRY(jx_push(r, seen, key));
        MB_TRY(jx_push(r, *out, items->at[i]));
    }
    return MB_OK;
}

static mb_status f_batch(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const jx_list *items;
    jx_value row = {0}, fill;
    int64_t n;

    MB_TRY(jx_arg_int(r, a, 0, "linecount", 0, &n));
    if (n < 1)
        return jx_fail(r, "batch wants a number above 0");
    MB_TRY(jx_iterate(r, v, &items));
    MB_TRY(jx_new_list(r, 0, JX_LAZY, out));
    for (size_t i = 0; i < items->n; i++) {
        if (i % (size_t)n == 0) {
            MB_TRY(jx_new_list(r, 0, JX_PLAIN, &row));
            MB_TRY(jx_push(r, *out, row));
        }
        MB_TRY(jx_push(r, row, items->at[i]));
    }
    if (items->n > 0 && jx_arg(a, 1, "fill_with", &fill) && fill.kind != JX_NONE) {
        while (jx_l(row)->n < (size_t)n) {
            MB_TRY(jx_step(r, 1));
            MB_TRY(jx_push(r, row, fill));
        }
    }
    return MB_OK;
}

static mb_status f_groupby(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    jx_value attribute, key, group = {0}, list = {0}, last = {0};
    const jx_list *items;
    jx_member *m;

    if (!jx_arg(a, 0, "attribute", &attribute))
        return jx_fail(r, "groupby wants an attribute");
    MB_TRY(jx_iterate(r, v, &items));
    MB_TRY(sorted(r, items, attribute, false, false, &m));
    MB_TRY(jx_new_list(r, 0, JX_PLAIN, out));
    for (size_t i = 0; i < items->n; i++) {
        bool same = false;

        if (i > 0)
            MB_TRY(jx_equal(r, m[i].key, last, &same));
        last = m[i].key;
        if (!same) {
            MB_TRY(path_of(r, m[i].value, attribute, &key));
            MB_TRY(jx_new_list(r, 2, JX_TUPLE, &group));
            MB_TRY(jx_new_list(r, 0, JX_PLAIN, &list));
            MB_TRY(jx_push(r, group, key));
            MB_TRY(jx_push(r, group, list));
            MB_TRY(jx_push(r, *out, group));
        }
        MB_TRY(jx_push(r, list, m[i].value));
    }
    return MB_OK;
}

/* ---- map, select, reject -------------------------------------------------------------------- */

/* The arguments behind the first `n`. */
static jx_args rest_of(const jx_args *a, size_t n)
{
    jx_args rest = *a;

    rest.at = a->at != NULL ? a->at + (n < a->n ? n : a->n) : NULL;
    rest.n = n < a->n ? a->n - n : 0;
    return rest;
}

static mb_status name_of(jx_run *r, jx_value v, const char *what, char text[40])
{
    if (v.kind != JX_STRING || jx_s(v)->n >= 40)
        return jx_fail(r, "%s wants a name as its argument", what);
    memcpy(text, jx_s(v)->p, jx_s(v)->n);
    text[jx_s(v)->n] = '\0';
    return MB_OK;
}

static mb_status f_map(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const jx_args rest = rest_of(a, 1);
    const jx_filter *filter = NULL;
    jx_value attribute = mb_jinja_none(), otherwise, item;
    const jx_list *items;
    bool has_default = false;
    char name[40];

    if (a->n > 0) {
        MB_TRY(name_of(r, a->at[0], "map", name));
        filter = jx_filter_named(name);
        if (filter == NULL)
            return jx_fail(r, "there is no filter \"%s\"", name);
    } else if (jx_arg(a, 0, "attribute", &attribute)) {
        has_default = jx_arg(a, 1, "default", &otherwise);
    } else {
        return jx_fail(r, "map wants a filter or an attribute");
    }
    MB_TRY(jx_iterate(r, v, &items));
    MB_TRY(jx_new_list(r, items->n, JX_LAZY, out));
    for (size_t i = 0; i < items->n; i++) {
        MB_TRY(jx_step(r, 1));
        if (filter != NULL)
            MB_TRY(jx_apply(r, filter, items->at[i], &rest, &item));
        else
            MB_TRY(path_of(r, items->at[i], attribute, &item));
        if (has_default && item.kind == JX_UNDEFINED)
            item = otherwise;
        MB_TRY(jx_push(r, *out, item));
    }
    return MB_OK;
}

static mb_status pick(jx_run *r, jx_value v, const jx_args *a, bool by_attribute, bool want,
                      jx_value *out)
{
    const size_t skip = by_attribute ? 1 : 0;
    const jx_args rest = rest_of(a, skip + 1);
    const jx_check *check = NULL;
    const jx_list *items;
    char name[40];

    if (a->n < skip)
        return jx_fail(r, "selectattr and rejectattr want an attribute");
    if (a->n > skip) {
        MB_TRY(name_of(r, a->at[skip], "a selection", name));
        check = jx_test_named(name);
        if (check == NULL)
            return jx_fail(r, "there is no test \"%s\"", name);
    }
    MB_TRY(jx_iterate(r, v, &items));
    MB_TRY(jx_new_list(r, 0, JX_LAZY, out));
    for (size_t i = 0; i < items->n; i++) {
        jx_value item = items->at[i];
        bool yes;

        MB_TRY(jx_step(r, 1));
        if (by_attribute)
            MB_TRY(path_of(r, item, a->at[0], &item));
        yes = jx_truth(item);
        if (check != NULL)
            MB_TRY(jx_test(r, check, item, &rest, &yes));
        if (yes == want)
            MB_TRY(jx_push(r, *out, items->at[i]));
    }
    return MB_OK;
}

static mb_status f_select(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return pick(r, v, a, false, true, out);
}

static mb_status f_reject(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return pick(r, v, a, false, false, out);
}

static mb_status f_selectattr(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return pick(r, v, a, true, true, out);
}

static mb_status f_rejectattr(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    return pick(r, v, a, true, false, out);
}

static mb_status f_default(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    const bool falsy = arg_truth(a, 1, "boolean", false);

    *out = v;
    if (v.kind != JX_UNDEFINED && !(falsy && !jx_truth(v)))
        return MB_OK;
    return jx_arg(a, 0, "default_value", out) ? MB_OK : jx_literal(r, "", out);
}

static mb_status f_attr(jx_run *r, jx_value v, const jx_args *a, jx_value *out)
{
    char name[40];
    jx_value which;
    void *p;

    if (!jx_arg(a, 0, "name", &which))
        return jx_fail(r, "attr wants a name");
    MB_TRY(name_of(r, which, "attr", name));
    MB_TRY(jx_get(r, sizeof name, &p));
    memcpy(p, name, sizeof name);
    if (v.kind == JX_DICT) { /* the attributes of a dict are its methods only */
        bool found;

        MB_TRY(jx_method_of(r, v, p, out, &found));
        if (!found)
            *out = jx_undefined(NULL);
        return MB_OK;
    }
    return jx_attribute(r, v, p, out);
}

/* ---- the table ------------------------------------------------------------------------------ */

static const jx_filter filters[] = {
    {"abs", f_abs, NULL},           {"attr", f_attr, NULL},
    {"batch", f_batch, NULL},       {"capitalize", f_capitalize, NULL},
    {"default", f_default, "d"},    {"dictsort", f_dictsort, NULL},
    {"escape", f_escape, "e"},      {"first", f_first, NULL},
    {"float", f_float, NULL},       {"format", f_format, NULL},
    {"groupby", f_groupby, NULL},   {"indent", f_indent, NULL},
    {"int", f_int, NULL},           {"items", f_items, NULL},
    {"join", f_join, NULL},         {"last", f_last, NULL},
    {"length", f_length, "count"},  {"list", f_list, NULL},
    {"lower", f_lower, NULL},       {"map", f_map, NULL},
    {"max", f_max, NULL},           {"min", f_min, NULL},
    {"reject", f_reject, NULL},     {"rejectattr", f_rejectattr, NULL},
    {"replace", f_replace, NULL},   {"reverse", f_reverse, NULL},
    {"round", f_round, NULL},       {"safe", f_string, NULL},
    {"select", f_select, NULL},     {"selectattr", f_selectattr, NULL},
    {"sort", f_sort, NULL},         {"string", f_string, NULL},
    {"sum", f_sum, NULL},           {"title", f_title, NULL},
    {"tojson", f_tojson, NULL},     {"trim", f_trim, NULL},
    {"truncate", f_truncate, NULL}, {"unique", f_unique, NULL},
    {"upper", f_upper, NULL},       {"wordcount", f_wordcount, NULL},
};

const jx_filter *jx_filter_named(const char *name)
{
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        if (strcmp(filters[i].name, name) == 0 ||
            (filters[i].also != NULL && strcmp(filters[i].also, name) == 0))
            return &filters[i];
    }
    return NULL;
}

mb_status jx_apply(jx_run *r, const jx_filter *f, jx_value v, const jx_args *args, jx_value *out)
{
    mb_status st;

    /* map can name map: this nests without nesting in the tree */
    if (++r->depth > r->limits.depth)
        return jx_fail(r, "the template is more than %lld levels deep in itself",
                       (long long)r->limits.depth);
    MB_TRY(jx_step(r, 1));
    st = f->apply(r, v, args, out);
    r->depth--;
    return st;
}
