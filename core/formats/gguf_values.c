/* core/formats/gguf_values.c - the key-value pairs of core/formats/gguf.h: lookups with types. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/formats/gguf_store.h"

const struct gguf_type mb_gguf_types[GGUF_N_TYPES] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

uint64_t mb_gguf_count(const mb_gguf *g)
{
    return g->n_pairs;
}

const char *mb_gguf_key(const mb_gguf *g, uint64_t i)
{
    MB_ASSERT(i < g->n_pairs);
    return g->head + g->pair[i].key;
}

static const struct gguf_pair *find(const mb_gguf *g, const char *key)
{
    size_t lo = 0, hi = g->n_pairs;

    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        const struct gguf_pair *p = &g->pair[g->by_key[mid]];
        const int order = strcmp(key, g->head + p->key);
        if (order == 0)
            return p;
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

bool mb_gguf_has(const mb_gguf *g, const char *key)
{
    return find(g, key) != NULL;
}

static mb_status need(const mb_gguf *g, const char *key, const struct gguf_pair **out)
{
    const struct gguf_pair *p = find(g, key);

    MB_REQUIRE(p != NULL, MB_EMODEL, "%s: the key '%.200s' is missing", g->path, key);
    *out = p;
    return MB_OK;
}

static mb_status wrong_type(const mb_gguf *g, const char *key, const struct gguf_pair *p,
                            const char *wanted)
{
    return MB_RAISE(MB_EMODEL, "%s: '%.200s' is %s%s, %s is needed", g->path, key,
                    p->is_array ? "an array of " : "of type ", mb_gguf_types[p->type].name, wanted);
}

/* A number of a pair or array: as i64 (u64 as its bits), or as double. */
static int64_t load_int(const mb_gguf *g, uint32_t type, size_t at)
{
    union {
        uint64_t u64;
        int64_t i64;
        uint32_t u32;
        int32_t i32;
        uint16_t u16;
        int16_t i16;
        uint8_t u8;
        int8_t i8;
    } v = {0};

    memcpy(&v, g->head + at, mb_gguf_types[type].bytes);
    switch (type) {
    case GGUF_I8:
        return v.i8;
    case GGUF_I16:
        return v.i16;
    case GGUF_I32:
        return v.i32;
    default:
        return v.i64; /* unsigned: zero-extended */
    }
}

static bool is_int(uint32_t type)
{
    return type <= GGUF_I32 || type == GGUF_U64 || type == GGUF_I64;
}

static bool is_number(uint32_t type)
{
    return is_int(type) || type == GGUF_F32 || type == GGUF_F64;
}

static double load_real(const mb_gguf *g, uint32_t type, size_t at)
{
    double d;
    float f;

    if (type == GGUF_F32) {
        memcpy(&f, g->head + at, sizeof f);
        return f;
    }
    if (type == GGUF_F64) {
        memcpy(&d, g->head + at, sizeof d);
        return d;
    }
    const int64_t i = load_int(g, type, at);
    return type == GGUF_U64 ? (double)(uint64_t)i : (double)i;
}

static mb_status get_int(const mb_gguf *g, const char *key, const struct gguf_pair **p,
                         int64_t *out)
{
    MB_TRY(need(g, key, p));
    if ((*p)->is_array || !is_int((*p)->type))
        return wrong_type(g, key, *p, "an integer");
    *out = load_int(g, (*p)->type, (*p)->at);
    return MB_OK;
}

mb_status mb_gguf_u64(const mb_gguf *g, const char *key, uint64_t *out)
{
    const struct gguf_pair *p = NULL;
    int64_t v = 0;

    MB_TRY(get_int(g, key, &p, &v));
    MB_REQUIRE(v >= 0 || p->type == GGUF_U64, MB_EMODEL,
               "%s: '%.200s' is %lld, it must not be "
               "negative",
               g->path, key, (long long)v);
    *out = (uint64_t)v;
    return MB_OK;
}

mb_status mb_gguf_i64(const mb_gguf *g, const char *key, int64_t *out)
{
    const struct gguf_pair *p = NULL;
    int64_t v = 0;

    MB_TRY(get_int(g, key, &p, &v));
    MB_REQUIRE(v >= 0 || p->type != GGUF_U64, MB_EMODEL,
               "%s: '%.200s' is %" PRIu64 ", which is more than 2^63", g->path, key, (uint64_t)v);
    *out = v;
    return MB_OK;
}

mb_status mb_gguf_f64(const mb_gguf *g, const char *key, double *out)
{
    const struct gguf_pair *p = NULL;

    MB_TRY(need(g, key, &p));
    if (p->is_array || !is_number(p->type))
        return wrong_type(g, key, p, "a number");
    *out = load_real(g, p->type, p->at);
    return MB_OK;
}

mb_status mb_gguf_bool(const mb_gguf *g, const char *key, bool *out)
{
    const struct gguf_pair *p = NULL;

    MB_TRY(need(g, key, &p));
    if (p->is_array || p->type != GGUF_BOOL)
        return wrong_type(g, key, p, "a boolean");
    *out = g->head[p->at] != 0;
    return MB_OK;
}

mb_status mb_gguf_string(const mb_gguf *g, const char *key, const char **out, size_t *bytes)
{
    const struct gguf_pair *p = NULL;

    MB_TRY(need(g, key, &p));
    if (p->is_array || p->type != GGUF_STRING)
        return wrong_type(g, key, p, "a string");
    *out = g->head + g->strings[p->at];
    if (bytes != NULL)
        *bytes = mb_gguf_length(g, g->strings[p->at]);
    return MB_OK;
}

/* The body of every mb_gguf_opt_<type>. */
#define OR(read)              \
    if (find(g, key) != NULL) \
        return read;          \
    *out = otherwise;         \
    return MB_OK

mb_status mb_gguf_opt_i64(const mb_gguf *g, const char *key, int64_t otherwise, int64_t *out)
{
    OR(mb_gguf_i64(g, key, out));
}

mb_status mb_gguf_opt_f64(const mb_gguf *g, const char *key, double otherwise, double *out)
{
    OR(mb_gguf_f64(g, key, out));
}

mb_status mb_gguf_opt_bool(const mb_gguf *g, const char *key, bool otherwise, bool *out)
{
    OR(mb_gguf_bool(g, key, out));
}

mb_status mb_gguf_opt_string(const mb_gguf *g, const char *key, const char *otherwise,
                             const char **out)
{
    OR(mb_gguf_string(g, key, out, NULL));
}

static void set_array(const mb_gguf *g, const struct gguf_pair *p, mb_gguf_array *out)
{
    *out = (mb_gguf_array){.n = p->n, .g = g, .type = p->type, .at = p->at};
}

mb_status mb_gguf_strings(const mb_gguf *g, const char *key, mb_gguf_array *out)
{
    const struct gguf_pair *p = NULL;

    MB_TRY(need(g, key, &p));
    if (!p->is_array || p->type != GGUF_STRING)
        return wrong_type(g, key, p, "an array of strings");
    set_array(g, p, out);
    return MB_OK;
}

mb_status mb_gguf_ints(const mb_gguf *g, const char *key, mb_gguf_array *out)
{
    const struct gguf_pair *p = NULL;

    MB_TRY(need(g, key, &p));
    if (!p->is_array || !(is_int(p->type) || p->type == GGUF_BOOL))
        return wrong_type(g, key, p, "an array of integers");
    set_array(g, p, out);
    return MB_OK;
}

mb_status mb_gguf_reals(const mb_gguf *g, const char *key, mb_gguf_array *out)
{
    const struct gguf_pair *p = NULL;

    MB_TRY(need(g, key, &p));
    if (!p->is_array || !is_number(p->type))
        return wrong_type(g, key, p, "an array of numbers");
    set_array(g, p, out);
    return MB_OK;
}

const char *mb_gguf_string_at(const mb_gguf_array *a, uint64_t i, size_t *bytes)
{
    MB_ASSERT(i < a->n && a->type == GGUF_STRING);
    const size_t at = a->g->strings[a->at + i];
    if (bytes != NULL)
        *bytes = mb_gguf_length(a->g, at);
    return a->g->head + at;
}

int64_t mb_gguf_int_at(const mb_gguf_array *a, uint64_t i)
{
    MB_ASSERT(i < a->n && (is_int(a->type) || a->type == GGUF_BOOL));
    const int64_t v = load_int(a->g, a->type, a->at + (size_t)i * mb_gguf_types[a->type].bytes);
    return a->type == GGUF_U64 && v < 0 ? INT64_MAX : v;
}

double mb_gguf_real_at(const mb_gguf_array *a, uint64_t i)
{
    MB_ASSERT(i < a->n && is_number(a->type));
    return load_real(a->g, a->type, a->at + (size_t)i * mb_gguf_types[a->type].bytes);
}

const char *mb_gguf_describe(const mb_gguf *g, uint64_t i, char *text, size_t size)
{
    MB_ASSERT(i < g->n_pairs);
    const struct gguf_pair *p = &g->pair[i];

    if (p->is_array)
        snprintf(text, size, "%" PRIu64 " values of type %s", p->n, mb_gguf_types[p->type].name);
    else if (p->type == GGUF_STRING)
        snprintf(text, size, "%s", g->head + g->strings[p->at]);
    else if (p->type == GGUF_BOOL)
        snprintf(text, size, "%s", g->head[p->at] != 0 ? "true" : "false");
    else if (p->type == GGUF_U64)
        snprintf(text, size, "%" PRIu64, (uint64_t)load_int(g, p->type, p->at));
    else if (is_int(p->type))
        snprintf(text, size, "%" PRId64, load_int(g, p->type, p->at));
    else
        snprintf(text, size, "%.9g", load_real(g, p->type, p->at));
    for (char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < 32 || *c == 127)
            *c = ' ';
    return text;
}
