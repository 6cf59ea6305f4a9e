/* recipes/jinja/value.c - the values of a run: making, comparing, looking up. Python's rules. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/jinja/inside.h"
#include "recipes/tokenizers/unicode.h"

enum { BLOCK = 32 << 10, ALIGN = 16, MOST_DEPTH = 60 };

struct jx_block {
    struct jx_block *next;
    size_t n, used;
    _Alignas(ALIGN) char data[];
};

mb_status jx_take(jx_memory *m, size_t bytes, void **out)
{
    jx_block *b = m->block;

    MB_REQUIRE(bytes <= SIZE_MAX / 4, MB_EDATA, "a text in a template is too long");
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (b == NULL || b->n - b->used < bytes) {
        size_t n = m->used < BLOCK ? BLOCK / 8 : m->used < (1 << 20) ? BLOCK : BLOCK * 8;
        void *p;

        n = n < bytes ? bytes : n;
        MB_REQUIRE(m->most == 0 || (m->used <= m->most && n <= m->most - m->used), MB_EDATA,
                   "the template takes more than %zu MiB", m->most >> 20);
        MB_TRY(mb_alloc(sizeof *b + n, "a template's values", &p));
        b = p;
        b->n = n;
        b->next = m->block;
        m->block = b;
        m->used += n;
    }
    *out = b->data + b->used;
    b->used += bytes;
    return MB_OK;
}

void jx_memory_release(jx_memory *m)
{
    while (m->block != NULL) {
        jx_block *next = m->block->next;

        mb_free(m->block);
        m->block = next;
    }
    m->used = 0;
}

mb_status jx_get(jx_run *r, size_t bytes, void **out)
{
    return jx_take(r->rendering ? &r->made : &r->given, bytes, out);
}

/* ---- making --------------------------------------------------------------------------------- */

jx_value jx_undefined(const jx_str *name)
{
    return (jx_value){.kind = JX_UNDEFINED, .as.p = (void *)(uintptr_t)name};
}

mb_jinja_value mb_jinja_none(void)
{
    return (jx_value){.kind = JX_NONE};
}

mb_jinja_value mb_jinja_bool(bool b)
{
    return (jx_value){.kind = JX_BOOL, .as.b = b};
}

mb_jinja_value mb_jinja_int(int64_t i)
{
    return (jx_value){.kind = JX_INT, .as.i = i};
}

jx_value jx_real(double v)
{
    return (jx_value){.kind = JX_REAL, .as.r = v};
}

mb_status jx_string_of(jx_run *r, const jx_str *s, jx_value *out)
{
    void *p;

    MB_TRY(jx_get(r, sizeof *s, &p));
    *(jx_str *)p = *s;
    *out = (jx_value){.kind = JX_STRING, .as.p = p};
    return MB_OK;
}

mb_status jx_literal(jx_run *r, const char *s, jx_value *out)
{
    const jx_str str = {.p = s, .n = strlen(s)};

    return jx_string_of(r, &str, out);
}

mb_status mb_jinja_string(jx_run *r, const char *s, size_t n, uint16_t origin, jx_value *out)
{
    jx_str str = {.n = n, .from = origin};
    size_t bad;
    void *p;

    MB_REQUIRE(mb_utf8_check(s, n, &bad), MB_EDATA, "byte %zu of a text is not UTF-8", bad);
    MB_TRY(jx_get(r, n + 1, &p));
    memcpy(p, s, n);
    str.p = p;
    return jx_string_of(r, &str, out);
}

mb_status jx_new_list(jx_run *r, size_t capacity, int flavour, jx_value *out)
{
    jx_list *l;
    void *p;

    MB_TRY(jx_get(r, sizeof *l, &p));
    l = p;
    if (capacity > 0) {
        MB_REQUIRE(capacity <= SIZE_MAX / sizeof(jx_value) / 4, MB_EDATA, "a list is too long");
        MB_TRY(jx_get(r, capacity * sizeof(jx_value), &p));
        l->at = p;
        l->capacity = capacity;
    }
    *out = (jx_value){.kind = JX_LIST, .flag = (uint8_t)flavour, .as.p = l};
    return MB_OK;
}

mb_status mb_jinja_list(jx_run *r, jx_value *out)
{
    return jx_new_list(r, 0, JX_PLAIN, out);
}

mb_status jx_push(jx_run *r, jx_value list, jx_value v)
{
    jx_list *l = jx_l(list);

    if (l->n == l->capacity) {
        const size_t capacity = l->capacity < 4 ? 8 : 2 * l->capacity;
        void *p;

        MB_TRY(jx_get(r, capacity * sizeof(jx_value), &p));
        if (l->n > 0)
            memcpy(p, l->at, l->n * sizeof(jx_value));
        l->at = p;
        l->capacity = capacity;
    }
    l->at[l->n++] = v;
    return MB_OK;
}

mb_status mb_jinja_append(jx_run *r, jx_value list, jx_value v)
{
    return jx_push(r, list, v);
}

mb_status mb_jinja_head(jx_run *r, jx_value list, size_t n, jx_value *out)
{
    void *p;

    MB_TRY(jx_get(r, sizeof(jx_list), &p));
    *(jx_list *)p = (jx_list){.at = jx_l(list)->at, .n = n, .capacity = n};
    *out = (jx_value){.kind = JX_LIST, .as.p = p};
    return MB_OK;
}

mb_status jx_new_dict(jx_run *r, int kind, jx_value *out)
{
    void *p;

    MB_TRY(jx_get(r, sizeof(jx_dict), &p));
    *out = (jx_value){.kind = (uint8_t)kind, .as.p = p};
    return MB_OK;
}

mb_status mb_jinja_dict(jx_run *r, jx_value *out)
{
    return jx_new_dict(r, JX_DICT, out);
}

/* A member whose key is not there yet. */
static mb_status add_member(jx_run *r, jx_value dict, jx_value key, jx_value v)
{
    jx_dict *d = jx_d(dict);

    if (d->n == d->capacity) {
        const size_t capacity = d->capacity < 4 ? 8 : 2 * d->capacity;
        void *p;

        MB_TRY(jx_get(r, capacity * sizeof(jx_member), &p));
        if (d->n > 0)
            memcpy(p, d->at, d->n * sizeof(jx_member));
        d->at = p;
        d->capacity = capacity;
    }
    d->at[d->n++] = (jx_member){key, v};
    return MB_OK;
}

mb_status jx_dict_find(jx_run *r, jx_value dict, jx_value key, jx_value *out, bool *found)
{
    const jx_dict *d = jx_d(dict);

    *found = false;
    MB_TRY(jx_step(r, 1 + d->n / 16));
    for (size_t i = 0; i < d->n && !*found; i++) {
        if (d->at[i].key.kind == JX_STRING && key.kind == JX_STRING) { /* nearly always */
            const jx_str *a = jx_s(d->at[i].key), *b = jx_s(key);

            *found = a->n == b->n && memcmp(a->p, b->p, a->n) == 0;
        } else {
            MB_TRY(jx_equal(r, d->at[i].key, key, found));
        }
        if (*found)
            *out = d->at[i].value;
    }
    return MB_OK;
}

mb_status jx_dict_add(jx_run *r, jx_value dict, jx_value key, jx_value v)
{
    jx_dict *d = jx_d(dict);

    if (key.kind == JX_LIST ? key.flag != JX_TUPLE : key.kind > JX_STRING)
        return jx_fail(r, "a value of type %s cannot be a key", jx_type_name(key));
    MB_TRY(jx_step(r, 1 + d->n / 16));
    for (size_t i = 0; i < d->n; i++) {
        bool same;

        MB_TRY(jx_equal(r, d->at[i].key, key, &same));
        if (same) {
            d->at[i].value = v;
            return MB_OK;
        }
    }
    return add_member(r, dict, key, v);
}

mb_status mb_jinja_put(jx_run *r, jx_value dict, const char *key, uint16_t origin, jx_value v)
{
    jx_value k;

    MB_TRY(mb_jinja_string(r, key, strlen(key), origin, &k));
    return jx_dict_add(r, dict, k, v);
}

mb_status mb_jinja_json(jx_run *r, mb_json v, uint16_t origin, jx_value *out)
{
    const char *s;
    int64_t i;
    double d;
    size_t n;
    bool b;

    switch (mb_json_kind(v)) {
    case MB_JSON_NULL:
        *out = mb_jinja_none();
        return MB_OK;
    case MB_JSON_BOOL:
        MB_TRY(mb_json_bool(v, &b));
        *out = mb_jinja_bool(b);
        return MB_OK;
    case MB_JSON_INT:
        MB_TRY(mb_json_int(v, &i));
        *out = mb_jinja_int(i);
        return MB_OK;
    case MB_JSON_REAL:
        MB_TRY(mb_json_real(v, &d));
        *out = jx_real(d);
        return MB_OK;
    case MB_JSON_STRING:
        MB_TRY(mb_json_string(v, &s, &n));
        return mb_jinja_string(r, s, n, origin, out);
    case MB_JSON_ARRAY:
    case MB_JSON_OBJECT:
        break;
    default:
        *out = jx_undefined(NULL);
        return MB_OK;
    }

    const bool list = mb_json_is(v, MB_JSON_ARRAY);
    MB_TRY(list ? mb_jinja_list(r, out) : mb_jinja_dict(r, out));
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        jx_value item, key;

        MB_TRY(mb_jinja_json(r, it.value, origin, &item));
        if (list) {
            MB_TRY(jx_push(r, *out, item));
        } else { /* the parser lets no key stand twice */
            MB_TRY(mb_jinja_string(r, it.key, strlen(it.key), origin, &key));
            MB_TRY(add_member(r, *out, key, item));
        }
    }
    return MB_OK;
}

/* ---- asking --------------------------------------------------------------------------------- */

bool jx_truth(jx_value v)
{
    switch (v.kind) {
    case JX_UNDEFINED:
    case JX_NONE:
        return false;
    case JX_BOOL:
        return v.as.b;
    case JX_INT:
        return v.as.i != 0;
    case JX_REAL:
        return v.as.r != 0.0;
    case JX_STRING:
        return jx_s(v)->n > 0;
    case JX_LIST:
        return v.flag == JX_LAZY || jx_l(v)->n > 0;
    case JX_DICT:
        return jx_d(v)->n > 0;
    default:
        return true;
    }
}

const char *jx_type_name(jx_value v)
{
    static const char *const names[] = {
        [JX_UNDEFINED] = "Undefined", [JX_NONE] = "NoneType",
        [JX_BOOL] = "bool",           [JX_INT] = "int",
        [JX_REAL] = "float",          [JX_STRING] = "str",
        [JX_LIST] = "list",           [JX_DICT] = "dict",
        [JX_SPACE] = "Namespace",     [JX_LOOP] = "LoopContext",
        [JX_MACRO] = "Macro",         [JX_FUNCTION] = "function",
        [JX_METHOD] = "method",
    };

    if (v.kind == JX_LIST && v.flag != JX_PLAIN)
        return v.flag == JX_TUPLE ? "tuple" : v.flag == JX_LAZY ? "generator" : "dict view";
    return names[v.kind];
}

bool jx_is_number(jx_value v)
{
    return v.kind == JX_BOOL || v.kind == JX_INT || v.kind == JX_REAL;
}

double jx_as_real(jx_value v)
{
    return v.kind == JX_REAL ? v.as.r : v.kind == JX_INT ? (double)v.as.i : (double)v.as.b;
}

bool jx_as_int(jx_value v, int64_t *out)
{
    if (v.kind == JX_INT)
        *out = v.as.i;
    else if (v.kind == JX_BOOL)
        *out = v.as.b;
    return v.kind == JX_INT || v.kind == JX_BOOL;
}

static mb_status equal(jx_run *r, jx_value a, jx_value b, int depth, bool *out)
{
    int64_t i, j;

    *out = false;
    MB_TRY(jx_step(r, 1));
    if (depth > MOST_DEPTH)
        return jx_fail(r, "values nested more than %d deep are not compared", MOST_DEPTH);
    if (jx_is_number(a) && jx_is_number(b)) {
        *out = jx_as_int(a, &i) && jx_as_int(b, &j) ? i == j : jx_as_real(a) == jx_as_real(b);
        return MB_OK;
    }
    if (a.kind != b.kind)
        return MB_OK;
    if (a.kind <= JX_NONE) {
        *out = true;
    } else if (a.kind == JX_STRING) {
        const jx_str *s = jx_s(a), *t = jx_s(b);

        *out = s->n == t->n && (s->n == 0 || memcmp(s->p, t->p, s->n) == 0);
    } else if (a.kind == JX_LIST) {
        const jx_list *l = jx_l(a), *m = jx_l(b);

        *out = l->n == m->n && (a.flag == JX_TUPLE) == (b.flag == JX_TUPLE);
        for (size_t k = 0; k < l->n && *out; k++)
            MB_TRY(equal(r, l->at[k], m->at[k], depth + 1, out));
    } else if (a.kind == JX_DICT) {
        const jx_dict *d = jx_d(a);

        *out = d->n == jx_d(b)->n;
        for (size_t k = 0; k < d->n && *out; k++) {
            jx_value v;

            MB_TRY(jx_dict_find(r, b, d->at[k].key, &v, out));
            if (*out)
                MB_TRY(equal(r, d->at[k].value, v, depth + 1, out));
        }
    } else {
        *out = a.as.p == b.as.p;
    }
    return MB_OK;
}

mb_status jx_equal(jx_run *r, jx_value a, jx_value b, bool *out)
{
    return equal(r, a, b, 0, out);
}

static int compare_bytes(const jx_str *a, const jx_str *b)
{
    const size_t n = a->n < b->n ? a->n : b->n;
    const int c = n > 0 ? memcmp(a->p, b->p, n) : 0; /* UTF-8 sorts as its code points do */

    return c != 0 ? (c < 0 ? -1 : 1) : a->n < b->n ? -1 : a->n > b->n;
}

static mb_status order(jx_run *r, jx_value a, jx_value b, int depth, int *out)
{
    int64_t i, j;

    MB_TRY(jx_step(r, 1));
    if (jx_is_number(a) && jx_is_number(b)) {
        if (jx_as_int(a, &i) && jx_as_int(b, &j))
            *out = i < j ? -1 : i > j;
        else
            *out = jx_as_real(a) < jx_as_real(b) ? -1 : jx_as_real(a) > jx_as_real(b);
        return MB_OK;
    }
    if (a.kind == JX_STRING && b.kind == JX_STRING) {
        *out = compare_bytes(jx_s(a), jx_s(b));
        return MB_OK;
    }
    if (a.kind == JX_LIST && b.kind == JX_LIST && a.flag == b.flag && depth < MOST_DEPTH) {
        const jx_list *l = jx_l(a), *m = jx_l(b);

        for (size_t k = 0; k < l->n && k < m->n; k++) {
            MB_TRY(order(r, l->at[k], m->at[k], depth + 1, out));
            if (*out != 0)
                return MB_OK;
        }
        *out = l->n < m->n ? -1 : l->n > m->n;
        return MB_OK;
    }
    return jx_fail(r, "values of type %s and %s have no order", jx_type_name(a), jx_type_name(b));
}

mb_status jx_order(jx_run *r, jx_value a, jx_value b, int *out)
{
    return order(r, a, b, 0, out);
}

/* ---- strings -------------------------------------------------------------------------------- */

bool jx_str_is(const jx_str *s, const char *text)
{
    return s->n == strlen(text) && memcmp(s->p, text, s->n) == 0;
}

uint16_t jx_origin_at(const jx_str *s, size_t i)
{
    return s->origin != NULL ? s->origin[i] : s->from;
}

jx_str jx_part(const jx_str *s, size_t from, size_t to)
{
    return (jx_str){s->p + from, to - from, s->origin != NULL ? s->origin + from : NULL, s->from};
}

size_t jx_length_chars(const jx_str *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n; i++)
        n += ((unsigned char)s->p[i] & 0xc0) != 0x80;
    return n;
}

size_t jx_char_offset(const jx_str *s, size_t i)
{
    size_t at = 0;

    while (at < s->n && i > 0) {
        at++;
        while (at < s->n && ((unsigned char)s->p[at] & 0xc0) == 0x80)
            at++;
        i--;
    }
    return at;
}

bool jx_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

mb_status jx_iterate(jx_run *r, jx_value v, const jx_list **out)
{
    static const jx_list none;
    jx_value list;

    if (v.kind == JX_LIST) {
        *out = jx_l(v);
        return MB_OK;
    }
    if (v.kind == JX_UNDEFINED) {
        *out = &none;
        return MB_OK;
    }
    if (v.kind == JX_DICT) {
        const jx_dict *d = jx_d(v);

        MB_TRY(jx_new_list(r, d->n, JX_PLAIN, &list));
        for (size_t i = 0; i < d->n; i++)
            MB_TRY(jx_push(r, list, d->at[i].key));
    } else if (v.kind == JX_STRING) {
        const jx_str *s = jx_s(v);

        MB_TRY(jx_step(r, s->n / 8));
        MB_TRY(jx_new_list(r, jx_length_chars(s), JX_PLAIN, &list));
        for (size_t at = 0, end; at < s->n; at = end) {
            jx_str part;
            jx_value c;

            for (end = at + 1; end < s->n && ((unsigned char)s->p[end] & 0xc0) == 0x80;)
                end++;
            part = jx_part(s, at, end);
            MB_TRY(jx_string_of(r, &part, &c));
            MB_TRY(jx_push(r, list, c));
        }
    } else {
        return jx_fail(r, "a value of type %s cannot be iterated", jx_type_name(v));
    }
    *out = jx_l(list);
    return MB_OK;
}
