/* recipes/jinja/eval.c - a tree is walked with values, and writes.
 *
 * Names are looked up from the inside out when they are read. A loop's body is a new scope each
 * time round; if and with share nothing outwards but what Jinja2 lets them: assignments of an if
 * stay in the scope around it, those of for, with, macro and call end with the block. A macro sees
 * the scope it was defined in, as it is when it is called.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/jinja/inside.h"

mb_status jx_fail(jx_run *r, const char *fmt, ...)
{
    char text[600];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return MB_RAISE(MB_EDATA, "%s:%d: %s", r->t->name, r->line, text);
}

mb_status jx_step(jx_run *r, size_t n)
{
    r->steps += (int64_t)n;
    if (r->steps > r->limits.steps)
        return jx_fail(r, "the template takes more than %lld steps", (long long)r->limits.steps);
    return MB_OK;
}

static mb_status enter(jx_run *r, const jx_node *n)
{
    r->line = n->line;
    if (++r->depth > r->limits.depth)
        return jx_fail(r, "the template is more than %lld levels deep in itself",
                       (long long)r->limits.depth);
    return jx_step(r, 1);
}

/* ---- names ---------------------------------------------------------------------------------- */

mb_status jx_bind(jx_run *r, jx_scope *s, const char *name, jx_value v)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->at[i].name == name) {
            s->at[i].value = v;
            return MB_OK;
        }
    }
    if (s->n == s->capacity) {
        const size_t capacity = s->capacity < 4 ? 6 : 2 * s->capacity;
        void *p;

        MB_TRY(jx_get(r, capacity * sizeof(jx_variable), &p));
        if (s->n > 0)
            memcpy(p, s->at, s->n * sizeof(jx_variable));
        s->at = p;
        s->capacity = capacity;
    }
    s->at[s->n++] = (jx_variable){name, v};
    return MB_OK;
}

static mb_status undefined_name(jx_run *r, const char *name, jx_value *out)
{
    void *p;

    MB_TRY(jx_get(r, sizeof(jx_str), &p));
    *(jx_str *)p = (jx_str){.p = name, .n = strlen(name)};
    *out = jx_undefined(p);
    return MB_OK;
}

static mb_status look_up(jx_run *r, const jx_scope *s, const char *name, jx_value *out)
{
    bool found;

    for (; s != NULL; s = s->up) {
        for (size_t i = 0; i < s->n; i++) {
            if (s->at[i].name == name) {
                *out = s->at[i].value;
                return MB_OK;
            }
        }
    }
    MB_TRY(jx_function_named(name, out, &found));
    return found ? MB_OK : undefined_name(r, name, out);
}

/* Says what is undefined, when a value that is gets used. */
static mb_status use_undefined(jx_run *r, jx_value v)
{
    const jx_str *name = jx_s(v);

    if (name == NULL)
        return jx_fail(r, "a value that is undefined is used");
    return jx_fail(r, "\"%.*s\" is undefined", (int)(name->n < 80 ? name->n : 80), name->p);
}

static mb_status assign(jx_run *r, jx_scope *s, const jx_node *target, jx_value v)
{
    const jx_list *items;
    size_t i = 0, n = 0;
    jx_value space, key;

    if (target->type == JX_NAME)
        return jx_bind(r, s, target->name, v);
    if (target->type == JX_ATTRIBUTE) {
        MB_TRY(look_up(r, s, target->a->name, &space));
        if (space.kind != JX_SPACE)
            return jx_fail(r, "only an attribute of a namespace can be set, and \"%s\" is a %s",
                           target->a->name, jx_type_name(space));
        MB_TRY(jx_literal(r, target->name, &key));
        return jx_dict_add(r, space, key, v);
    }
    for (const jx_node *t = target->body; t != NULL; t = t->next)
        n++;
    if (v.kind == JX_UNDEFINED)
        return use_undefined(r, v);
    MB_TRY(jx_iterate(r, v, &items));
    if (items->n != n)
        return jx_fail(r, "%zu values cannot be given to %zu names", items->n, n);
    for (const jx_node *t = target->body; t != NULL; t = t->next)
        MB_TRY(assign(r, s, t, items->at[i++]));
    return MB_OK;
}

/* ---- attributes and items ------------------------------------------------------------------- */

static mb_status loop_attribute(jx_run *r, jx_value v, const char *name, jx_value *out, bool *found)
{
    const jx_loop *l = v.as.p;
    const int64_t at = (int64_t)l->at, n = (int64_t)l->items->n;
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {
        {"index", at + 1}, {"index0", at},          {"revindex", n - at}, {"revindex0", n - at - 1},
        {"length", n},     {"depth", l->depth + 1}, {"depth0", l->depth},
    };

    *found = true;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            *out = mb_jinja_int(numbers[i].value);
            return MB_OK;
        }
    }
    if (strcmp(name, "first") == 0 || strcmp(name, "last") == 0) {
        *out = mb_jinja_bool(name[0] == 'f' ? at == 0 : at == n - 1);
        return MB_OK;
    }
    if (strcmp(name, "previtem") == 0 || strcmp(name, "nextitem") == 0) {
        const int64_t other = name[0] == 'p' ? at - 1 : at + 1;

        if (other >= 0 && other < n)
            *out = l->items->at[other];
        else
            MB_TRY(undefined_name(r, name, out));
        return MB_OK;
    }
    return jx_method_of(r, v, name, out, found);
}

mb_status jx_attribute(jx_run *r, jx_value v, const char *name, jx_value *out)
{
    char text[200];
    bool found = false;
    jx_value key;
    void *p;

    if (v.kind == JX_UNDEFINED)
        return use_undefined(r, v);
    if (v.kind == JX_LOOP)
        MB_TRY(loop_attribute(r, v, name, out, &found));
    else
        MB_TRY(jx_method_of(r, v, name, out, &found));
    if (!found && (v.kind == JX_DICT || v.kind == JX_SPACE)) {
        MB_TRY(jx_literal(r, name, &key));
        MB_TRY(jx_dict_find(r, v, key, out, &found));
    }
    if (found)
        return MB_OK;
    snprintf(text, sizeof text, "%.120s of a %s", name, jx_type_name(v));
    MB_TRY(jx_get(r, strlen(text) + 1, &p));
    memcpy(p, text, strlen(text) + 1);
    return undefined_name(r, p, out);
}

mb_status jx_item(jx_run *r, jx_value v, jx_value key, jx_value *out)
{
    bool found = false;
    int64_t i;

    if (v.kind == JX_UNDEFINED)
        return use_undefined(r, v);
    if (v.kind == JX_DICT) {
        MB_TRY(jx_dict_find(r, v, key, out, &found));
    } else if (v.kind == JX_LIST && v.flag <= JX_TUPLE && jx_as_int(key, &i)) {
        const int64_t n = (int64_t)jx_l(v)->n;

        i += i < 0 ? n : 0;
        found = i >= 0 && i < n;
        if (found)
            *out = jx_l(v)->at[i];
    } else if (v.kind == JX_STRING && jx_as_int(key, &i)) {
        const jx_str *s = jx_s(v);
        const int64_t n = (int64_t)jx_length_chars(s);

        i += i < 0 ? n : 0;
        found = i >= 0 && i < n;
        if (found) {
            const size_t from = jx_char_offset(s, (size_t)i);
            const jx_str rest = jx_part(s, from, s->n);
            const jx_str c = jx_part(&rest, 0, jx_char_offset(&rest, 1));

            MB_TRY(jx_string_of(r, &c, out));
        }
    }
    if (found)
        return MB_OK;
    if (key.kind == JX_STRING) { /* Jinja2 tries the attribute then */
        const jx_str *s = jx_s(key);
        void *p;

        MB_TRY(jx_get(r, s->n + 1, &p));
        memcpy(p, s->p, s->n);
        return jx_attribute(r, v, p, out);
    }
    return undefined_name(r, "an element", out);
}

static mb_status slice_bound(jx_run *r, jx_scope *s, const jx_node *n, bool *given, int64_t *out)
{
    jx_value v = mb_jinja_none();

    if (n != NULL)
        MB_TRY(jx_eval(r, s, n, &v));
    *given = v.kind != JX_NONE;
    if (*given && !jx_as_int(v, out))
        return jx_fail(r, "a slice wants integers, not %s", jx_type_name(v));
    return MB_OK;
}

static mb_status slice(jx_run *r, jx_scope *s, const jx_node *n, jx_value *out)
{
    int64_t from = 0, to = 0, step = 1, length;
    bool has_from, has_to, has_step;
    jx_value v;

    MB_TRY(jx_eval(r, s, n->a, &v));
    MB_TRY(slice_bound(r, s, n->b, &has_from, &from));
    MB_TRY(slice_bound(r, s, n->c, &has_to, &to));
    MB_TRY(slice_bound(r, s, n->d, &has_step, &step));
    if (v.kind == JX_UNDEFINED)
        return use_undefined(r, v);
    if ((v.kind != JX_STRING && v.kind != JX_LIST) || (v.kind == JX_LIST && v.flag > JX_TUPLE))
        return jx_fail(r, "a %s cannot be sliced", jx_type_name(v));
    if (has_step && step == 0)
        return jx_fail(r, "a slice cannot have the step 0");
    length = v.kind == JX_STRING ? (int64_t)jx_length_chars(jx_s(v)) : (int64_t)jx_l(v)->n;
    const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? length - 1 : length;
    if (from < 0)
        from = from < -length ? low : from + length;
    if (to < 0)
        to = to < -length ? low : to + length;
    from = !has_from ? (step < 0 ? high : low) : from > high ? high : from;
    to = !has_to ? (step < 0 ? low : high) : to > high ? high : to;
    if (v.kind == JX_STRING && step == 1) {
        const jx_str *all = jx_s(v);
        const size_t a = jx_char_offset(all, (size_t)from);
        const jx_str rest = jx_part(all, a, all->n);
        const jx_str part =
            jx_part(&rest, 0, jx_char_offset(&rest, to > from ? (size_t)(to - from) : 0));

        return jx_string_of(r, &part, out);
    }
    const jx_list *items;
    const uint8_t flavour = v.kind == JX_LIST ? v.flag : JX_PLAIN;
    jx_out text = {0};
    MB_TRY(jx_iterate(r, v, &items));
    MB_TRY(jx_new_list(r, 0, flavour, out));
    for (int64_t i = from; step < 0 ? i > to : i < to;) {
        MB_TRY(jx_push(r, *out, items->at[i]));
        if (v.kind == JX_STRING)
            MB_TRY(jx_write_str(r, &text, jx_s(items->at[i])));
        if (step > 0 ? step > to - i : step < to - i)
            break;
        i += step;
    }
    return v.kind == JX_STRING ? jx_finish(r, &text, out) : MB_OK;
}

/* ---- operators ------------------------------------------------------------------------------ */

mb_status jx_concat(jx_run *r, jx_value a, jx_value b, jx_value *out)
{
    const jx_str *s, *t;
    jx_out o = {0};

    MB_TRY(jx_to_str(r, a, &s));
    MB_TRY(jx_to_str(r, b, &t));
    if (s->n == 0)
        return jx_string_of(r, t, out);
    if (t->n == 0)
        return jx_string_of(r, s, out);
    if (s->origin == NULL && t->origin == NULL && s->from == t->from) {
        jx_str both = {.n = s->n + t->n, .from = s->from};
        void *p;

        MB_TRY(jx_step(r, both.n / 256));
        MB_TRY(jx_get(r, both.n, &p));
        memcpy(p, s->p, s->n);
        memcpy((char *)p + s->n, t->p, t->n);
        both.p = p;
        return jx_string_of(r, &both, out);
    }
    MB_TRY(jx_write_str(r, &o, s));
    MB_TRY(jx_write_str(r, &o, t));
    const jx_str both = {.p = o.p, .n = o.n, .origin = o.origin};
    return jx_string_of(r, &both, out);
}

static mb_status no_operator(jx_run *r, const char *op, jx_value a, jx_value b)
{
    if (a.kind == JX_UNDEFINED)
        return use_undefined(r, a);
    if (b.kind == JX_UNDEFINED)
        return use_undefined(r, b);
    return jx_fail(r, "%s and %s have no %s", jx_type_name(a), jx_type_name(b), op);
}

mb_status jx_add(jx_run *r, jx_value a, jx_value b, jx_value *out)
{
    int64_t i, j;

    if (a.kind == JX_STRING && b.kind == JX_STRING)
        return jx_concat(r, a, b, out);
    if (a.kind == JX_LIST && b.kind == JX_LIST && a.flag == b.flag && a.flag <= JX_TUPLE) {
        const jx_list *l = jx_l(a), *m = jx_l(b);

        MB_TRY(jx_step(r, (l->n + m->n) / 16));
        MB_TRY(jx_new_list(r, l->n + m->n, a.flag, out));
        for (size_t k = 0; k < l->n; k++)
            MB_TRY(jx_push(r, *out, l->at[k]));
        for (size_t k = 0; k < m->n; k++)
            MB_TRY(jx_push(r, *out, m->at[k]));
        return MB_OK;
    }
    if (!jx_is_number(a) || !jx_is_number(b))
        return no_operator(r, "sum", a, b);
    if (jx_as_int(a, &i) && jx_as_int(b, &j)) {
        *out = mb_jinja_int(0);
        return __builtin_add_overflow(i, j, &out->as.i) ? jx_fail(r, "an integer is too large")
                                                        : MB_OK;
    }
    *out = jx_real(jx_as_real(a) + jx_as_real(b));
    return MB_OK;
}

static mb_status repeat(jx_run *r, jx_value v, int64_t times, jx_value *out)
{
    jx_out o = {0};

    if (v.kind == JX_STRING) {
        for (int64_t i = 0; i < times && jx_s(v)->n > 0; i++)
            MB_TRY(jx_write_str(r, &o, jx_s(v)));
        return jx_finish(r, &o, out);
    }
    MB_TRY(jx_new_list(r, 0, v.flag, out));
    for (int64_t i = 0; i < times; i++) {
        MB_TRY(jx_step(r, 1));
        for (size_t k = 0; k < jx_l(v)->n; k++)
            MB_TRY(jx_push(r, *out, jx_l(v)->at[k]));
    }
    return MB_OK;
}

static mb_status integer_operator(jx_run *r, int op, int64_t i, int64_t j, jx_value *out)
{
    int64_t n = 1;
    bool over = false;

    *out = mb_jinja_int(0);
    if (op == '-') {
        over = __builtin_sub_overflow(i, j, &out->as.i);
    } else if (op == '*') {
        over = __builtin_mul_overflow(i, j, &out->as.i);
    } else if (op == '%' || op == JX_T_FLOOR) {
        if (j == 0)
            return jx_fail(r, "a division by zero");
        if (j == -1) {
            over = op == JX_T_FLOOR && __builtin_sub_overflow((int64_t)0, i, &out->as.i);
        } else {
            const int64_t rest = i % j, wrong = rest != 0 && (rest < 0) != (j < 0);

            out->as.i = op == '%' ? rest + (wrong ? j : 0) : i / j - wrong;
        }
    } else { /* a power */
        if (j < 0) {
            *out = jx_real(pow((double)i, (double)j));
            return MB_OK;
        }
        for (int64_t k = 0; k < j && !over && n != 0 && !(i == 1) && k < 64; k++)
            over = __builtin_mul_overflow(n, i, &n);
        if (i == -1)
            n = j % 2 == 0 ? 1 : -1, over = false;
        out->as.i = n;
    }
    return over ? jx_fail(r, "an integer is too large") : MB_OK;
}

static mb_status real_operator(jx_run *r, int op, double a, double b, jx_value *out)
{
    if ((op == '/' || op == '%' || op == JX_T_FLOOR) && b == 0.0)
        return jx_fail(r, "a division by zero");
    if (op == '-')
        *out = jx_real(a - b);
    else if (op == '*')
        *out = jx_real(a * b);
    else if (op == '/')
        *out = jx_real(a / b);
    else if (op == JX_T_FLOOR)
        *out = jx_real(floor(a / b));
    else if (op == '%')
        *out = jx_real(a - b * floor(a / b));
    else
        *out = jx_real(pow(a, b));
    return MB_OK;
}

static mb_status binary(jx_run *r, int op, jx_value a, jx_value b, jx_value *out)
{
    char name[2] = {(char)op, 0};
    int64_t i, j;

    if (op == '~')
        return jx_concat(r, a, b, out);
    if (op == '+')
        return jx_add(r, a, b, out);
    if (op == '%' && a.kind == JX_STRING) {
        jx_list one = {.at = &b, .n = 1};

        return jx_format(r, jx_s(a), b.kind == JX_LIST && b.flag == JX_TUPLE ? jx_l(b) : &one, out);
    }
    if (op == '*' && (a.kind == JX_STRING || a.kind == JX_LIST) && jx_as_int(b, &j))
        return repeat(r, a, j, out);
    if (op == '*' && (b.kind == JX_STRING || b.kind == JX_LIST) && jx_as_int(a, &i))
        return repeat(r, b, i, out);
    if (!jx_is_number(a) || !jx_is_number(b))
        return no_operator(r, op < 128 ? name : "quotient or power", a, b);
    if (op != '/' && jx_as_int(a, &i) && jx_as_int(b, &j))
        return integer_operator(r, op, i, j, out);
    return real_operator(r, op, jx_as_real(a), jx_as_real(b), out);
}

static mb_status contains(jx_run *r, jx_value in, jx_value what, bool *out)
{
    const jx_list *items;
    jx_value v;

    *out = false;
    if (in.kind == JX_STRING) {
        if (what.kind != JX_STRING)
            return what.kind == JX_UNDEFINED
                       ? use_undefined(r, what)
                       : jx_fail(r, "a %s cannot be in a text", jx_type_name(what));
        MB_TRY(jx_step(r, jx_s(in)->n / 64));
        *out = jx_find(jx_s(in), jx_s(what), 0, false) >= 0;
        return MB_OK;
    }
    if (in.kind == JX_DICT)
        return jx_dict_find(r, in, what, &v, out);
    MB_TRY(jx_iterate(r, in, &items));
    for (size_t i = 0; i < items->n && !*out; i++)
        MB_TRY(jx_equal(r, items->at[i], what, out));
    return MB_OK;
}

mb_status jx_compare(jx_run *r, int op, jx_value a, jx_value b, bool *out)
{
    int c;

    if (op == JX_T_IN || op == JX_T_NOT_IN) {
        MB_TRY(contains(r, b, a, out));
        *out = *out == (op == JX_T_IN);
        return MB_OK;
    }
    if (op == JX_T_EQ || op == JX_T_NE) {
        MB_TRY(jx_equal(r, a, b, out));
        *out = *out == (op == JX_T_EQ);
        return MB_OK;
    }
    if (a.kind == JX_UNDEFINED || b.kind == JX_UNDEFINED)
        return no_operator(r, "order", a, b);
    MB_TRY(jx_order(r, a, b, &c));
    *out = op == '<' ? c < 0 : op == '>' ? c > 0 : op == JX_T_LE ? c <= 0 : c >= 0;
    return MB_OK;
}

/* ---- calls ---------------------------------------------------------------------------------- */

static mb_status add_argument(jx_run *r, jx_args *a, jx_value v)
{
    if (a->n == a->capacity) {
        const size_t capacity = a->capacity < 4 ? 4 : 2 * a->capacity;
        void *p;

        MB_TRY(jx_get(r, capacity * sizeof(jx_value), &p));
        if (a->n > 0)
            memcpy(p, a->at, a->n * sizeof(jx_value));
        a->at = p;
        a->capacity = capacity;
    }
    a->at[a->n++] = v;
    return MB_OK;
}

static mb_status add_keyword(jx_run *r, jx_args *a, const char *name, jx_value v)
{
    for (size_t i = 0; i < a->n_keywords; i++) {
        if (strcmp(a->keyword[i].name, name) == 0)
            return jx_fail(r, "the argument %s is given twice", name);
    }
    if (a->n_keywords == a->keyword_capacity) {
        const size_t capacity = a->keyword_capacity < 4 ? 4 : 2 * a->keyword_capacity;
        void *p;

        MB_TRY(jx_get(r, capacity * sizeof(jx_keyword), &p));
        if (a->n_keywords > 0)
            memcpy(p, a->keyword, a->n_keywords * sizeof(jx_keyword));
        a->keyword = p;
        a->keyword_capacity = capacity;
    }
    a->keyword[a->n_keywords++] = (jx_keyword){name, v};
    return MB_OK;
}

static mb_status add_keywords(jx_run *r, jx_args *a, jx_value v)
{
    if (v.kind != JX_DICT)
        return jx_fail(r, "** wants a dict, not a %s", jx_type_name(v));
    for (size_t i = 0; i < jx_d(v)->n; i++) {
        const jx_value key = jx_d(v)->at[i].key;
        void *p;

        if (key.kind != JX_STRING)
            return jx_fail(r, "** wants names as keys");
        MB_TRY(jx_get(r, jx_s(key)->n + 1, &p));
        memcpy(p, jx_s(key)->p, jx_s(key)->n);
        /* parameters are compared by pointer */
        const char *name = jx_interned(r->t, p);
        MB_TRY(add_keyword(r, a, name != NULL ? name : p, jx_d(v)->at[i].value));
    }
    return MB_OK;
}

static mb_status arguments(jx_run *r, jx_scope *s, const jx_node *list, jx_args *out)
{
    const jx_list *items;
    jx_value v;

    *out = (jx_args){0};
    for (const jx_node *n = list; n != NULL; n = n->next) {
        const bool named = n->type == JX_KEYWORD || n->type == JX_STAR || n->type == JX_STAR_STAR;

        MB_TRY(jx_eval(r, s, named ? n->a : n, &v));
        if (n->type == JX_KEYWORD) {
            MB_TRY(add_keyword(r, out, n->name, v));
        } else if (n->type == JX_STAR_STAR) {
            MB_TRY(add_keywords(r, out, v));
        } else if (n->type == JX_STAR) {
            MB_TRY(jx_iterate(r, v, &items));
            for (size_t i = 0; i < items->n; i++)
                MB_TRY(add_argument(r, out, items->at[i]));
        } else {
            MB_TRY(add_argument(r, out, v));
        }
    }
    return MB_OK;
}

/* Gives parameters their arguments or defaults; what is left over becomes varargs and kwargs. */
static mb_status bind_parameters(jx_run *r, jx_scope *s, const jx_node *parameters,
                                 const jx_args *a)
{
    const char *varargs = jx_interned(r->t, "varargs"), *kwargs = jx_interned(r->t, "kwargs");
    size_t at = 0, used = 0;
    jx_value rest, named, key;

    for (const jx_node *p = parameters; p != NULL; p = p->next, at++) {
        jx_value v = jx_undefined(NULL);
        bool given = at < a->n;

        if (given)
            v = a->at[at];
        for (size_t k = 0; k < a->n_keywords; k++) {
            if (strcmp(a->keyword[k].name, p->name) != 0)
                continue;
            if (given)
                return jx_fail(r, "the argument %s is given twice", p->name);
            given = true;
            used++;
            v = a->keyword[k].value;
        }
        if (!given && p->a != NULL)
            MB_TRY(jx_eval(r, s, p->a, &v));
        else if (!given)
            MB_TRY(undefined_name(r, p->name, &v));
        MB_TRY(jx_bind(r, s, p->name, v));
    }
    if (a->n > at && varargs == NULL)
        return jx_fail(r, "a macro of %zu arguments is given %zu", at, a->n);
    for (size_t k = 0; k < a->n_keywords; k++)
        used += strcmp(a->keyword[k].name, "caller") == 0;
    if (used < a->n_keywords && kwargs == NULL)
        return jx_fail(r, "a macro is given %zu named arguments that it has not",
                       a->n_keywords - used);
    if (varargs != NULL) {
        MB_TRY(jx_new_list(r, 0, JX_TUPLE, &rest));
        for (; at < a->n; at++)
            MB_TRY(jx_push(r, rest, a->at[at]));
        MB_TRY(jx_bind(r, s, varargs, rest));
    }
    for (size_t k = 0; k < a->n_keywords; k++) { /* the block of {% call %} */
        if (strcmp(a->keyword[k].name, "caller") == 0 && jx_interned(r->t, "caller") != NULL)
            MB_TRY(jx_bind(r, s, jx_interned(r->t, "caller"), a->keyword[k].value));
    }
    if (kwargs == NULL)
        return MB_OK;
    MB_TRY(jx_new_dict(r, JX_DICT, &named));
    for (size_t k = 0; k < a->n_keywords; k++) {
        bool known = strcmp(a->keyword[k].name, "caller") == 0;

        for (const jx_node *p = parameters; p != NULL; p = p->next)
            known |= strcmp(p->name, a->keyword[k].name) == 0;
        if (known)
            continue;
        MB_TRY(jx_literal(r, a->keyword[k].name, &key));
        MB_TRY(jx_dict_add(r, named, key, a->keyword[k].value));
    }
    return jx_bind(r, s, kwargs, named);
}

/* A scope in the run's memory: a macro that is defined in it may keep it. */
static mb_status new_scope(jx_run *r, jx_scope *up, jx_scope **out)
{
    void *p;

    MB_TRY(jx_get(r, sizeof **out, &p));
    *out = p;
    (*out)->up = up;
    return MB_OK;
}

/* What a body writes, as a value. */
static mb_status capture(jx_run *r, jx_scope *s, const jx_node *body, jx_value *out)
{
    jx_out *before = r->out, mine = {0};
    mb_status st;

    r->out = &mine;
    st = jx_exec(r, s, body);
    r->out = before;
    MB_TRY(st);
    return jx_finish(r, &mine, out);
}

static mb_status call_macro(jx_run *r, const jx_macro *m, const jx_args *a, jx_value *out)
{
    const int line = r->line;
    jx_scope *s = NULL;

    MB_TRY(enter(r, m->node));
    r->line = line;
    MB_TRY(new_scope(r, m->scope, &s));
    MB_TRY(bind_parameters(r, s, m->node->parameters, a));
    MB_TRY(capture(r, s, m->node->body, out));
    r->line = line;
    r->depth--;
    return MB_OK;
}

static mb_status run_loop(jx_run *r, jx_scope *s, const jx_node *n, jx_value over, int64_t depth);

/* loop(children) of a recursive loop. */
static mb_status call_loop(jx_run *r, const jx_loop *l, const jx_args *a, jx_value *out)
{
    jx_out *before = r->out, mine = {0};
    mb_status st;

    if (!l->node->recursive || a->n != 1)
        return jx_fail(r, "loop(...) wants one list, in a loop that is marked recursive");
    MB_TRY(enter(r, l->node));
    r->out = &mine;
    st = run_loop(r, l->scope, l->node, a->at[0], l->depth + 1);
    r->out = before;
    MB_TRY(st);
    r->depth--;
    return jx_finish(r, &mine, out);
}

mb_status jx_call(jx_run *r, jx_value f, const jx_args *args, jx_value *out)
{
    switch (f.kind) {
    case JX_FUNCTION:
        return jx_function_call(r, f, args, out);
    case JX_METHOD:
        return jx_method_call(r, f.as.p, args, out);
    case JX_MACRO:
        return call_macro(r, f.as.p, args, out);
    case JX_LOOP:
        return call_loop(r, f.as.p, args, out);
    case JX_UNDEFINED:
        return use_undefined(r, f);
    default:
        return jx_fail(r, "a %s cannot be called", jx_type_name(f));
    }
}

/* ---- expressions ---------------------------------------------------------------------------- */

static mb_status collect(jx_run *r, jx_scope *s, const jx_node *n, jx_value *out)
{
    jx_value v;

    MB_TRY(jx_new_list(r, 0, n->type == JX_TUPLE_OF ? JX_TUPLE : JX_PLAIN, out));
    for (const jx_node *e = n->body; e != NULL; e = e->next) {
        MB_TRY(jx_eval(r, s, e, &v));
        MB_TRY(jx_push(r, *out, v));
    }
    return MB_OK;
}

static mb_status collect_dict(jx_run *r, jx_scope *s, const jx_node *n, jx_value *out)
{
    jx_value key, v;

    MB_TRY(jx_new_dict(r, JX_DICT, out));
    for (const jx_node *e = n->body; e != NULL; e = e->next->next) {
        MB_TRY(jx_eval(r, s, e, &key));
        MB_TRY(jx_eval(r, s, e->next, &v));
        MB_TRY(jx_dict_add(r, *out, key, v));
    }
    return MB_OK;
}

static mb_status compare_chain(jx_run *r, jx_scope *s, const jx_node *n, jx_value *out)
{
    jx_value left, right;
    bool holds = true;

    MB_TRY(jx_eval(r, s, n->a, &left));
    for (const jx_node *o = n->body; o != NULL && holds; o = o->next) {
        MB_TRY(jx_eval(r, s, o->a, &right));
        r->line = o->line;
        MB_TRY(jx_compare(r, o->op, left, right, &holds));
        left = right;
    }
    *out = mb_jinja_bool(holds);
    return MB_OK;
}

static mb_status unary(jx_run *r, const jx_node *n, jx_value v, jx_value *out)
{
    int64_t i;

    if (!jx_is_number(v))
        return v.kind == JX_UNDEFINED ? use_undefined(r, v)
                                      : jx_fail(r, "a %s has no sign", jx_type_name(v));
    if (!jx_as_int(v, &i))
        *out = jx_real(n->type == JX_NEGATE ? -v.as.r : v.as.r);
    else if (n->type == JX_NEGATE && i == INT64_MIN)
        return jx_fail(r, "an integer is too large");
    else
        *out = mb_jinja_int(n->type == JX_NEGATE ? -i : i);
    return MB_OK;
}

/* A call, filter or test: its value, its arguments, then what it does. */
static mb_status apply(jx_run *r, jx_scope *s, const jx_node *n, jx_value *out)
{
    jx_args args;
    jx_value v;
    bool yes;

    MB_TRY(jx_eval(r, s, n->a, &v));
    MB_TRY(arguments(r, s, n->body, &args));
    r->line = n->line;
    if (n->type == JX_CALL)
        return jx_call(r, v, &args, out);
    if (n->type == JX_FILTER)
        return jx_apply(r, n->of, v, &args, out);
    MB_TRY(jx_test(r, n->of, v, &args, &yes));
    *out = mb_jinja_bool(yes);
    return MB_OK;
}

static mb_status eval(jx_run *r, jx_scope *s, const jx_node *n, jx_value *out)
{
    jx_value v, w;

    switch (n->type) {
    case JX_CONST:
        *out = n->value;
        return MB_OK;
    case JX_NAME:
        return look_up(r, s, n->name, out);
    case JX_LIST_OF:
    case JX_TUPLE_OF:
        return collect(r, s, n, out);
    case JX_DICT_OF:
        return collect_dict(r, s, n, out);
    case JX_ATTRIBUTE:
        MB_TRY(jx_eval(r, s, n->a, &v));
        return jx_attribute(r, v, n->name, out);
    case JX_ITEM:
        MB_TRY(jx_eval(r, s, n->a, &v));
        MB_TRY(jx_eval(r, s, n->b, &w));
        return jx_item(r, v, w, out);
    case JX_SLICE:
        return slice(r, s, n, out);
    case JX_CALL:
    case JX_FILTER:
    case JX_TEST:
        return apply(r, s, n, out);
    case JX_NEGATE:
    case JX_POSITIVE:
        MB_TRY(jx_eval(r, s, n->a, &v));
        return unary(r, n, v, out);
    case JX_NOT:
        MB_TRY(jx_eval(r, s, n->a, &v));
        *out = mb_jinja_bool(!jx_truth(v));
        return MB_OK;
    case JX_AND:
    case JX_OR:
        MB_TRY(jx_eval(r, s, n->a, out));
        return jx_truth(*out) == (n->type == JX_AND) ? jx_eval(r, s, n->b, out) : MB_OK;
    case JX_BINARY:
        MB_TRY(jx_eval(r, s, n->a, &v));
        MB_TRY(jx_eval(r, s, n->b, &w));
        r->line = n->line;
        return binary(r, n->op, v, w, out);
    case JX_COMPARE:
        return compare_chain(r, s, n, out);
    case JX_IF_ELSE:
        MB_TRY(jx_eval(r, s, n->b, &v));
        if (jx_truth(v))
            return jx_eval(r, s, n->a, out);
        if (n->c != NULL)
            return jx_eval(r, s, n->c, out);
        *out = jx_undefined(NULL);
        return MB_OK;
    default:
        return jx_fail(r, "this cannot be computed");
    }
}

mb_status jx_eval(jx_run *r, jx_scope *s, const jx_node *n, jx_value *out)
{
    MB_TRY(enter(r, n));
    MB_TRY(eval(r, s, n, out));
    r->depth--;
    return MB_OK;
}

/* ---- statements ----------------------------------------------------------------------------- */

/* The elements for which the loop's condition holds. */
static mb_status chosen(jx_run *r, jx_scope *s, const jx_node *n, const jx_list *items,
                        const jx_list **out)
{
    jx_value kept, v;

    *out = items;
    if (n->c == NULL)
        return MB_OK;
    MB_TRY(jx_new_list(r, 0, JX_PLAIN, &kept));
    MB_TRY(jx_step(r, items->n));
    for (size_t i = 0; i < items->n; i++) {
        jx_scope inner = {.up = s};

        MB_TRY(assign(r, &inner, n->a, items->at[i]));
        MB_TRY(jx_eval(r, &inner, n->c, &v));
        if (jx_truth(v))
            MB_TRY(jx_push(r, kept, items->at[i]));
    }
    *out = jx_l(kept);
    return MB_OK;
}

static mb_status run_loop(jx_run *r, jx_scope *s, const jx_node *n, jx_value over, int64_t depth)
{
    const char *name = jx_interned(r->t, "loop");
    const jx_list *items;
    jx_loop *loop;
    void *p;

    MB_TRY(jx_iterate(r, over, &items));
    MB_TRY(chosen(r, s, n, items, &items));
    if (items->n == 0)
        return jx_exec(r, s, n->other);
    MB_TRY(jx_get(r, sizeof *loop, &p));
    loop = p;
    *loop = (jx_loop){.node = n, .scope = s, .items = items, .depth = depth};
    for (size_t i = 0; i < items->n; i++) {
        jx_scope *inner = NULL;

        MB_TRY(jx_step(r, 1));
        MB_TRY(new_scope(r, s, &inner));
        loop->at = i;
        if (name != NULL)
            MB_TRY(jx_bind(r, inner, name, (jx_value){.kind = JX_LOOP, .as.p = loop}));
        MB_TRY(assign(r, inner, n->a, items->at[i]));
        MB_TRY(jx_exec(r, inner, n->body));
        if (r->jump == JX_BREAK) {
            r->jump = 0;
            break;
        }
        r->jump = 0;
    }
    return MB_OK;
}

static mb_status define(jx_run *r, jx_scope *s, const jx_node *n, jx_value *out)
{
    void *p;

    MB_TRY(jx_get(r, sizeof(jx_macro), &p));
    *(jx_macro *)p = (jx_macro){.node = n, .scope = s};
    *out = (jx_value){.kind = JX_MACRO, .as.p = p};
    return MB_OK;
}

static mb_status call_block(jx_run *r, jx_scope *s, const jx_node *n)
{
    jx_value f, block, v;
    jx_args args;

    MB_TRY(jx_eval(r, s, n->a->a, &f));
    MB_TRY(arguments(r, s, n->a->body, &args));
    MB_TRY(define(r, s, n, &block));
    MB_TRY(add_keyword(r, &args, "caller", block));
    MB_TRY(jx_call(r, f, &args, &v));
    return jx_write_value(r, r->out, v);
}

/* The filters of {% filter %} and {% set %}: a chain of JX_FILTER whose innermost has no `a`. */
static mb_status filter_chain(jx_run *r, jx_scope *s, const jx_node *n, jx_value v, jx_value *out)
{
    jx_args args;

    if (n == NULL) {
        *out = v;
        return MB_OK;
    }
    MB_TRY(enter(r, n));
    MB_TRY(filter_chain(r, s, n->a, v, &v));
    MB_TRY(arguments(r, s, n->body, &args));
    MB_TRY(jx_apply(r, n->of, v, &args, out));
    r->depth--;
    return MB_OK;
}

static mb_status with(jx_run *r, jx_scope *s, const jx_node *n)
{
    jx_scope *inner = NULL;
    jx_value v;

    MB_TRY(new_scope(r, s, &inner));
    for (const jx_node *k = n->parameters; k != NULL; k = k->next) {
        MB_TRY(jx_eval(r, s, k->a, &v));
        MB_TRY(jx_bind(r, inner, k->name, v));
    }
    return jx_exec(r, inner, n->body);
}

/* What is written inside counts as the assistant's. */
static mb_status generation(jx_run *r, jx_scope *s, const jx_node *n)
{
    const uint16_t before = r->generated;
    jx_scope *inner = NULL;
    mb_status st;

    MB_TRY(new_scope(r, s, &inner));
    r->generated = MB_JINJA_GENERATED;
    st = jx_exec(r, inner, n->body);
    r->generated = before;
    return st;
}

static mb_status exec(jx_run *r, jx_scope *s, const jx_node *n)
{
    jx_scope *inner = NULL;
    jx_value v;

    switch (n->type) {
    case JX_TEXT:
        return jx_write_str(r, r->out, jx_s(n->value));
    case JX_PRINT:
        MB_TRY(jx_eval(r, s, n->a, &v));
        return jx_write_value(r, r->out, v);
    case JX_DO:
        return jx_eval(r, s, n->a, &v);
    case JX_IF:
        MB_TRY(jx_eval(r, s, n->a, &v));
        return jx_exec(r, s, jx_truth(v) ? n->body : n->other);
    case JX_FOR:
        MB_TRY(jx_eval(r, s, n->b, &v));
        return run_loop(r, s, n, v, 0);
    case JX_SET:
        MB_TRY(jx_eval(r, s, n->b, &v));
        return assign(r, s, n->a, v);
    case JX_SET_BLOCK:
        MB_TRY(new_scope(r, s, &inner));
        MB_TRY(capture(r, inner, n->body, &v));
        MB_TRY(filter_chain(r, s, n->b, v, &v));
        return assign(r, s, n->a, v);
    case JX_DEFINE:
        MB_TRY(define(r, s, n, &v));
        return jx_bind(r, s, n->name, v);
    case JX_CALL_BLOCK:
        return call_block(r, s, n);
    case JX_FILTER_BLOCK:
        MB_TRY(new_scope(r, s, &inner));
        MB_TRY(capture(r, inner, n->body, &v));
        MB_TRY(filter_chain(r, s, n->b, v, &v));
        return jx_write_value(r, r->out, v);
    case JX_WITH:
        return with(r, s, n);
    case JX_GENERATION:
        return generation(r, s, n);
    case JX_BREAK:
    case JX_CONTINUE:
        r->jump = (int)n->type;
        return MB_OK;
    default:
        return jx_fail(r, "this is no statement");
    }
}

mb_status jx_exec(jx_run *r, jx_scope *s, const jx_node *body)
{
    for (const jx_node *n = body; n != NULL && r->jump == 0; n = n->next) {
        MB_TRY(enter(r, n));
        MB_TRY(exec(r, s, n));
        r->depth--;
    }
    return MB_OK;
}
