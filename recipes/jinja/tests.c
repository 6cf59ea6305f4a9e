/* recipes/jinja/tests.c - what stands behind `is`, a table by name. */
#include <string.h>

#include "recipes/jinja/inside.h"

struct jx_check {
    const char *name;
    int n_args;
    int op; /* of a comparison */
    mb_status (*check)(jx_run *r, jx_value v, const jx_args *a, bool *out);
    const char *also[3];
};

#define KIND_TEST(name, condition)                                            \
    static mb_status name(jx_run *r, jx_value v, const jx_args *a, bool *out) \
    {                                                                         \
        *out = (condition);                                                   \
        return MB_OK;                                                         \
    }

KIND_TEST(t_defined, v.kind != JX_UNDEFINED)
KIND_TEST(t_undefined, v.kind == JX_UNDEFINED)
KIND_TEST(t_none, v.kind == JX_NONE)
KIND_TEST(t_boolean, v.kind == JX_BOOL)
KIND_TEST(t_true, v.kind == JX_BOOL && v.as.b)
KIND_TEST(t_false, v.kind == JX_BOOL && !v.as.b)
KIND_TEST(t_integer, v.kind == JX_INT)
KIND_TEST(t_float, v.kind == JX_REAL)
KIND_TEST(t_number, jx_is_number(v))
KIND_TEST(t_string, v.kind == JX_STRING)
KIND_TEST(t_mapping, v.kind == JX_DICT)
KIND_TEST(t_iterable,
          v.kind == JX_STRING || v.kind == JX_LIST || v.kind == JX_DICT || v.kind == JX_UNDEFINED)
KIND_TEST(t_sequence, v.kind == JX_STRING || v.kind == JX_DICT || v.kind == JX_UNDEFINED ||
                          (v.kind == JX_LIST && v.flag <= JX_TUPLE))
KIND_TEST(t_callable, v.kind == JX_MACRO || v.kind == JX_FUNCTION || v.kind == JX_METHOD)

static mb_status t_case(jx_run *r, jx_value v, jx_case how, bool *out)
{
    const jx_str *s;
    jx_value same, other;

    MB_TRY(jx_to_str(r, v, &s));
    MB_TRY(jx_recase(r, s, how, &same));
    MB_TRY(jx_recase(r, s, how == JX_UPPER ? JX_LOWER : JX_UPPER, &other));
    *out = s->n == jx_s(same)->n && memcmp(s->p, jx_s(same)->p, s->n) == 0 &&
           !(s->n == jx_s(other)->n && memcmp(s->p, jx_s(other)->p, s->n) == 0);
    return MB_OK;
}

static mb_status t_lower(jx_run *r, jx_value v, const jx_args *a, bool *out)
{
    return t_case(r, v, JX_LOWER, out);
}

static mb_status t_upper(jx_run *r, jx_value v, const jx_args *a, bool *out)
{
    return t_case(r, v, JX_UPPER, out);
}

static mb_status remainder_of(jx_run *r, jx_value v, jx_value by, int64_t *out)
{
    int64_t i, j;

    if (!jx_as_int(v, &i) || !jx_as_int(by, &j) || j == 0)
        return jx_fail(r, "odd, even and divisibleby want integers");
    *out = j == -1 ? 0 : i % j;
    return MB_OK;
}

static mb_status t_odd(jx_run *r, jx_value v, const jx_args *a, bool *out)
{
    int64_t rest = 0;

    MB_TRY(remainder_of(r, v, mb_jinja_int(2), &rest));
    *out = rest != 0;
    return MB_OK;
}

static mb_status t_even(jx_run *r, jx_value v, const jx_args *a, bool *out)
{
    MB_TRY(t_odd(r, v, a, out));
    *out = !*out;
    return MB_OK;
}

static mb_status t_divisible(jx_run *r, jx_value v, const jx_args *a, bool *out)
{
    int64_t rest = 0;

    MB_TRY(remainder_of(r, v, a->at[0], &rest));
    *out = rest == 0;
    return MB_OK;
}

static mb_status t_same(jx_run *r, jx_value v, const jx_args *a, bool *out)
{
    const jx_value w = a->at[0];

    *out = v.kind == w.kind &&
           (v.kind <= JX_NONE || (v.kind == JX_BOOL && v.as.b == w.as.b) ||
            (v.kind == JX_INT && v.as.i == w.as.i) || (v.kind >= JX_STRING && v.as.p == w.as.p));
    return MB_OK;
}

static mb_status t_filter(jx_run *r, jx_value v, const jx_args *a, bool *out)
{
    char name[40] = "";

    if (v.kind == JX_STRING && jx_s(v)->n < sizeof name)
        memcpy(name, jx_s(v)->p, jx_s(v)->n);
    *out = jx_filter_named(name) != NULL;
    return MB_OK;
}

static mb_status t_test(jx_run *r, jx_value v, const jx_args *a, bool *out)
{
    char name[40] = "";

    if (v.kind == JX_STRING && jx_s(v)->n < sizeof name)
        memcpy(name, jx_s(v)->p, jx_s(v)->n);
    *out = jx_test_named(name) != NULL;
    return MB_OK;
}

static const jx_check tests[] = {
    {"boolean", 0, 0, t_boolean, {NULL}},
    {"callable", 0, 0, t_callable, {NULL}},
    {"defined", 0, 0, t_defined, {NULL}},
    {"divisibleby", 1, 0, t_divisible, {NULL}},
    {"eq", 1, JX_T_EQ, NULL, {"equalto", "==", NULL}},
    {"even", 0, 0, t_even, {NULL}},
    {"false", 0, 0, t_false, {NULL}},
    {"filter", 0, 0, t_filter, {NULL}},
    {"float", 0, 0, t_float, {NULL}},
    {"ge", 1, JX_T_GE, NULL, {">=", NULL}},
    {"gt", 1, '>', NULL, {"greaterthan", ">", NULL}},
    {"in", 1, JX_T_IN, NULL, {NULL}},
    {"integer", 0, 0, t_integer, {NULL}},
    {"iterable", 0, 0, t_iterable, {NULL}},
    {"le", 1, JX_T_LE, NULL, {"<=", NULL}},
    {"lower", 0, 0, t_lower, {NULL}},
    {"lt", 1, '<', NULL, {"lessthan", "<", NULL}},
    {"mapping", 0, 0, t_mapping, {NULL}},
    {"ne", 1, JX_T_NE, NULL, {"!=", NULL}},
    {"none", 0, 0, t_none, {NULL}},
    {"number", 0, 0, t_number, {NULL}},
    {"odd", 0, 0, t_odd, {NULL}},
    {"sameas", 1, 0, t_same, {NULL}},
    {"sequence", 0, 0, t_sequence, {NULL}},
    {"string", 0, 0, t_string, {NULL}},
    {"test", 0, 0, t_test, {NULL}},
    {"true", 0, 0, t_true, {NULL}},
    {"undefined", 0, 0, t_undefined, {NULL}},
    {"upper", 0, 0, t_upper, {NULL}},
};

const jx_check *jx_test_named(const char *name)
{
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (strcmp(tests[i].name, name) == 0)
            return &tests[i];
        for (int k = 0; k < 3 && tests[i].also[k] != NULL; k++) {
            if (strcmp(tests[i].also[k], name) == 0)
                return &tests[i];
        }
    }
    return NULL;
}

mb_status jx_test(jx_run *r, const jx_check *f, jx_value v, const jx_args *args, bool *out)
{
    MB_TRY(jx_step(r, 1));
    if ((int)args->n != f->n_args || args->n_keywords > 0)
        return jx_fail(r, "the test %s wants %d arguments and is given %zu", f->name, f->n_args,
                       args->n + args->n_keywords);
    return f->op != 0 ? jx_compare(r, f->op, v, args->at[0], out) : f->check(r, v, args, out);
}
