/* core/json.c - see core/json.h. The only user of jansson.
 *
 * An mb_json's node is a json_t. Where a value stands in its document is needed for messages only,
 * so nothing is kept for it: mb_json_path searches the document for the node.
 */
#include "core/json.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"

enum { KEY_PATH = 512 };

struct mb_json_doc {
    json_t *root;
    char *name;
    int64_t line; /* of a JSONL row, else 0 */
    mb_status code;
};

static const char *const kinds[] = {
    "absent", "null", "true or false", "an integer", "a number", "a string", "a list", "an object",
};

static mb_status doc_new(const char *name, int64_t line, mb_status code, mb_json_doc **out)
{
    mb_json_doc *doc;

    MB_TRY(MB_NEW(&doc));
    doc->line = line;
    doc->code = code;
    const mb_status st = mb_strdup(name, &doc->name);
    if (st != MB_OK) {
        mb_free(doc);
        return st;
    }
    *out = doc;
    return MB_OK;
}

/* The first place that nests deeper than allowed; jansson's own parser is recursive. */
static const char *too_deep(const char *text, size_t n)
{
    bool in_string = false;
    int64_t depth = 0;

    for (size_t i = 0; i < n; i++) {
        const char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > MB_JSON_MAX_DEPTH)
                return text + i;
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return NULL;
}

/* jansson quotes the text near an error: make that fit on one line of a terminal. */
static void one_line(char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 32 || *s == 127 || (*s & 0x80) != 0)
            *s = '?';
}

static mb_status parse(mb_json_doc *doc, const char *text, size_t n)
{
    const int64_t before = doc->line > 0 ? doc->line - 1 : 0;
    const char *deep = too_deep(text, n);
    json_error_t e;

    if (deep != NULL) {
        int64_t line = 1 + before, column = 1;
        for (const char *p = text; p < deep; p++) {
            line += *p == '\n';
            column = *p == '\n' ? 1 : column + 1;
        }
        return MB_RAISE(doc->code, "%s:%lld:%lld: JSON nested deeper than %d", doc->name,
                        (long long)line, (long long)column, MB_JSON_MAX_DEPTH);
    }
    MB_REQUIRE(n < 3 || memcmp(text, "\xef\xbb\xbf", 3) != 0, doc->code,
               "%s:%lld:1: JSON must not begin with a byte order mark", doc->name,
               (long long)(1 + before));
    doc->root = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (doc->root == NULL) {
        const bool zero = json_error_code(&e) == json_error_null_character;
        one_line(e.text);
        return MB_RAISE(doc->code, "%s:%lld:%d: not valid JSON: %s", doc->name,
                        (long long)(e.line > 0 ? e.line + before : 1 + before),
                        e.column > 0 ? e.column : 1,
                        zero ? "a string holds the zero character" : e.text);
    }
    return MB_OK;
}

mb_status mb_json_parse(const char *text, size_t n, const char *name, int64_t line, mb_status code,
                        mb_json_doc **out)
{
    mb_json_doc *doc = NULL;

    MB_TRY(doc_new(name, line, code, &doc));
    const mb_status st = parse(doc, text, n);
    if (st != MB_OK) {
        mb_json_free(doc);
        return st;
    }
    *out = doc;
    return MB_OK;
}

mb_status mb_json_read(const char *path, mb_status code, size_t max_bytes, mb_json_doc **out)
{
    char *text;
    size_t n;

    MB_TRY(mb_file_read_as(path, code, max_bytes, &text, &n));
    const mb_status st = mb_json_parse(text, n, path, 0, code, out);
    mb_free(text);
    return st;
}

static mb_status doc_of(const char *name, json_t *root, mb_json_doc **out)
{
    mb_json_doc *doc = NULL;
    mb_status st = MB_OK;

    if (root == NULL)
        return MB_RAISE(MB_ENOMEM, "not enough memory for JSON");
    st = doc_new(name, 0, MB_EBUG, &doc);
    if (st != MB_OK) {
        json_decref(root);
        return st;
    }
    doc->root = root;
    *out = doc;
    return MB_OK;
}

mb_status mb_json_doc_new(const char *name, mb_json_doc **out)
{
    return doc_of(name, json_object(), out);
}

mb_status mb_json_doc_new_array(const char *name, mb_json_doc **out)
{
    return doc_of(name, json_array(), out);
}

void mb_json_free(mb_json_doc *doc)
{
    if (doc == NULL)
        return;
    json_decref(doc->root);
    mb_free(doc->name);
    mb_free(doc);
}

mb_json mb_json_root(mb_json_doc *doc)
{
    return (mb_json){doc, doc->root};
}

mb_json_type mb_json_kind(mb_json v)
{
    if (v.node == NULL)
        return MB_JSON_ABSENT;
    switch (json_typeof((json_t *)v.node)) {
    case JSON_OBJECT:
        return MB_JSON_OBJECT;
    case JSON_ARRAY:
        return MB_JSON_ARRAY;
    case JSON_STRING:
        return MB_JSON_STRING;
    case JSON_INTEGER:
        return MB_JSON_INT;
    case JSON_REAL:
        return MB_JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return MB_JSON_BOOL;
    case JSON_NULL:
        break;
    }
    return MB_JSON_NULL;
}

bool mb_json_is(mb_json v, mb_json_type type)
{
    return mb_json_kind(v) == type;
}

bool mb_json_is_set(mb_json v)
{
    return mb_json_kind(v) > MB_JSON_NULL;
}

bool mb_json_is_number(mb_json v)
{
    return mb_json_is(v, MB_JSON_INT) || mb_json_is(v, MB_JSON_REAL);
}

size_t mb_json_count(mb_json v)
{
    return mb_json_is(v, MB_JSON_OBJECT) ? json_object_size(v.node) : json_array_size(v.node);
}

mb_json mb_json_get(mb_json object, const char *key)
{
    return (mb_json){object.doc, json_object_get(object.node, key)};
}

mb_json mb_json_at(mb_json array, size_t i)
{
    return (mb_json){array.doc, json_array_get(array.node, i)};
}

static void settle(mb_json_it *it)
{
    it->value.doc = it->of.doc;
    if (mb_json_is(it->of, MB_JSON_OBJECT)) {
        it->key = it->at != NULL ? json_object_iter_key(it->at) : NULL;
        it->value.node = it->at != NULL ? json_object_iter_value(it->at) : NULL;
    } else {
        it->value = mb_json_at(it->of, it->index);
    }
}

mb_json_it mb_json_first(mb_json v)
{
    mb_json_it it = {.of = v, .at = v.node != NULL ? json_object_iter(v.node) : NULL};

    settle(&it);
    return it;
}

bool mb_json_more(const mb_json_it *it)
{
    return it->value.node != NULL;
}

void mb_json_next(mb_json_it *it)
{
    it->index++;
    if (it->at != NULL)
        it->at = json_object_iter_next(it->of.node, it->at);
    settle(it);
}

static bool find(mb_json in, const void *node, char *text, size_t size, size_t used)
{
    if (in.node == node)
        return true;
    for (mb_json_it it = mb_json_first(in); mb_json_more(&it); mb_json_next(&it)) {
        if (used < size) {
            if (it.key != NULL)
                snprintf(text + used, size - used, "%s%.64s", used > 0 ? "." : "", it.key);
            else
                snprintf(text + used, size - used, "[%zu]", it.index);
        }
        if (find(it.value, node, text, size, used + strlen(text + used)))
            return true;
        text[used] = '\0';
    }
    return false;
}

const char *mb_json_path(mb_json v, char *text, size_t size)
{
    text[0] = '\0';
    if (v.node != NULL)
        find(mb_json_root(v.doc), v.node, text, size, 0);
    return text;
}

/* "file: " or "file:line: ", then the key path and a blank unless it is the root. */
static void place(mb_json v, const char *key, char *out, size_t size)
{
    char path[KEY_PATH], line[32] = "";

    mb_json_path(v, path, sizeof path);
    if (v.doc->line > 0)
        snprintf(line, sizeof line, ":%lld", (long long)v.doc->line);
    snprintf(out, size, "%s%s: %s%s%s", v.doc->name, line, path,
             key != NULL && path[0] != '\0' ? "." : "", key != NULL ? key : "");
    one_line(out);
}

mb_status mb_json_fault(mb_json v, const char *fmt, ...)
{
    char where[KEY_PATH + MB_PATH_MAX], what[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    place(v, NULL, where, sizeof where);
    const size_t n = strlen(where);
    return MB_RAISE(v.doc->code, "%s%s%s", where, where[n - 1] == ' ' ? "" : " ", what);
}

static mb_status wrong_kind(mb_json v, mb_json_type wanted)
{
    MB_REQUIRE(v.node != NULL, MB_EBUG, "an absent JSON value was read as %s", kinds[wanted]);
    return mb_json_fault(v, "must be %s, not %s", kinds[wanted], kinds[mb_json_kind(v)]);
}

mb_status mb_json_int(mb_json v, int64_t *out)
{
    if (mb_json_is(v, MB_JSON_REAL)) {
        const double x = json_real_value(v.node);
        if (floor(x) == x && fabs(x) <= 0x1p53) {
            *out = (int64_t)x;
            return MB_OK;
        }
        return mb_json_fault(v, "must be an integer, not %g", x);
    }
    if (!mb_json_is(v, MB_JSON_INT))
        return wrong_kind(v, MB_JSON_INT);
    *out = json_integer_value(v.node);
    return MB_OK;
}

mb_status mb_json_real(mb_json v, double *out)
{
    if (!mb_json_is_number(v))
        return wrong_kind(v, MB_JSON_REAL);
    *out = json_number_value(v.node);
    return MB_OK;
}

mb_status mb_json_bool(mb_json v, bool *out)
{
    if (!mb_json_is(v, MB_JSON_BOOL))
        return wrong_kind(v, MB_JSON_BOOL);
    *out = json_is_true((json_t *)v.node);
    return MB_OK;
}

mb_status mb_json_string(mb_json v, const char **out, size_t *n)
{
    if (!mb_json_is(v, MB_JSON_STRING))
        return wrong_kind(v, MB_JSON_STRING);
    *out = json_string_value(v.node);
    if (n != NULL)
        *n = json_string_length(v.node);
    return MB_OK;
}

/* The body of every mb_json_get_<type>: the member through `read`, or `otherwise`. */
#define GET_OR(read)                            \
    const mb_json v = mb_json_get(object, key); \
    if (mb_json_is_set(v))                      \
        return read;                            \
    *out = otherwise;                           \
    return MB_OK

mb_status mb_json_get_int(mb_json object, const char *key, int64_t otherwise, int64_t *out)
{
    GET_OR(mb_json_int(v, out));
}

mb_status mb_json_get_real(mb_json object, const char *key, double otherwise, double *out)
{
    GET_OR(mb_json_real(v, out));
}

mb_status mb_json_get_bool(mb_json object, const char *key, bool otherwise, bool *out)
{
    GET_OR(mb_json_bool(v, out));
}

mb_status mb_json_get_string(mb_json object, const char *key, const char *otherwise,
                             const char **out)
{
    GET_OR(mb_json_string(v, out, NULL));
}

mb_status mb_json_need(mb_json object, const char *key, mb_json_type type, mb_json *out)
{
    const mb_json v = mb_json_get(object, key);
    char where[KEY_PATH + MB_PATH_MAX];
    int64_t integer;

    if (v.node == NULL) {
        MB_REQUIRE(object.node != NULL, MB_EBUG, "'%s' was looked up in an absent JSON value", key);
        if (!mb_json_is(object, MB_JSON_OBJECT))
            return wrong_kind(object, MB_JSON_OBJECT);
        place(object, key, where, sizeof where);
        return MB_RAISE(object.doc->code, "%s is missing, it must be %s", where, kinds[type]);
    }
    if (type == MB_JSON_INT)
        MB_TRY(mb_json_int(v, &integer));
    else if (type == MB_JSON_REAL ? !mb_json_is_number(v) : !mb_json_is(v, type))
        return wrong_kind(v, type);
    *out = v;
    return MB_OK;
}

mb_status mb_json_need_int(mb_json object, const char *key, int64_t lo, int64_t hi, int64_t *out)
{
    int64_t n;
    mb_json v;

    MB_TRY(mb_json_need(object, key, MB_JSON_INT, &v));
    MB_TRY(mb_json_int(v, &n));
    if (n < lo || n > hi)
        return mb_json_fault(v, "is %lld, it must be within %lld and %lld", (long long)n,
                             (long long)lo, (long long)hi);
    *out = n;
    return MB_OK;
}

/* Gives `node`, which is taken, to an object or array. */
static mb_status put(mb_json to, const char *key, json_t *node)
{
    MB_REQUIRE(node != NULL, MB_EBUG, "the JSON value for '%s' is not UTF-8 or memory ran out",
               key != NULL ? key : "a list");
    const int failed = key != NULL ? json_object_set_new(to.node, key, node)
                                   : json_array_append_new(to.node, node);
    MB_REQUIRE(failed == 0, MB_EBUG, "'%s' cannot be set in %s", key != NULL ? key : "an element",
               kinds[mb_json_kind(to)]);
    return MB_OK;
}

mb_status mb_json_set_int(mb_json to, const char *key, int64_t v)
{
    return put(to, key, json_integer(v));
}

mb_status mb_json_set_real(mb_json to, const char *key, double v)
{
    return put(to, key, isfinite(v) ? json_real(v) : json_null());
}

mb_status mb_json_set_bool(mb_json to, const char *key, bool v)
{
    return put(to, key, json_boolean(v));
}

mb_status mb_json_set_string(mb_json to, const char *key, const char *v)
{
    return put(to, key, json_string(v));
}

mb_status mb_json_set_null(mb_json to, const char *key)
{
    return put(to, key, json_null());
}

mb_status mb_json_set(mb_json to, const char *key, mb_json v)
{
    return put(to, key, json_deep_copy(v.node));
}

mb_status mb_json_set_object(mb_json to, const char *key, mb_json *out)
{
    json_t *node = json_object();

    MB_TRY(put(to, key, node));
    *out = (mb_json){to.doc, node};
    return MB_OK;
}

mb_status mb_json_set_array(mb_json to, const char *key, mb_json *out)
{
    json_t *node = json_array();

    MB_TRY(put(to, key, node));
    *out = (mb_json){to.doc, node};
    return MB_OK;
}

void mb_json_remove(mb_json object, const char *key)
{
    json_object_del(object.node, key);
}

struct text {
    char *s;
    size_t n, capacity;
    int indent;
    mb_status st; /* the first failure; nothing is added after it */
};

static void add(struct text *t, const char *s, size_t n)
{
    if (t->st != MB_OK)
        return;
    t->st = mb_grow((void **)&t->s, &t->capacity, t->n + n + 1, 1, "JSON text");
    if (t->st != MB_OK)
        return;
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = '\0';
}

static void add_string(struct text *t, const char *s, size_t n)
{
    size_t from = 0;

    add(t, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)s[i];
        const char *const found = strchr("\"\"\\\\\bb\ff\nn\rr\tt", c);
        char escape[8];

        if (c >= 32 && c != '"' && c != '\\')
            continue;
        add(t, s + from, i - from);
        from = i + 1;
        if (c != '\0' && found != NULL)
            add(t, escape, (size_t)snprintf(escape, sizeof escape, "\\%c", found[1]));
        else
            add(t, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", c));
    }
    add(t, s + from, n - from);
    add(t, "\"", 1);
}

static void add_real(struct text *t, double x)
{
    char s[40];
    int n = 0;

    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(s, sizeof s - 2, "%.*g", digits, x);
        if (strtod(s, NULL) == x)
            break;
    }
    if (strpbrk(s, ".e") == NULL) {
        memcpy(s + n, ".0", 3);
        n += 2;
    }
    add(t, s, (size_t)n);
}

static void add_break(struct text *t, int depth)
{
    if (t->indent == 0)
        return;
    add(t, "\n", 1);
    for (int i = 0; i < depth * t->indent; i++)
        add(t, " ", 1);
}

static void add_value(struct text *t, mb_json v, int depth)
{
    const mb_json_type kind = mb_json_kind(v);
    char number[32];

    switch (kind) {
    case MB_JSON_STRING:
        add_string(t, json_string_value(v.node), json_string_length(v.node));
        return;
    case MB_JSON_INT:
        add(t, number,
            (size_t)snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v.node)));
        return;
    case MB_JSON_REAL:
        add_real(t, json_real_value(v.node));
        return;
    case MB_JSON_BOOL:
        add(t, json_is_true((json_t *)v.node) ? "true" : "false",
            json_is_true((json_t *)v.node) ? 4 : 5);
        return;
    case MB_JSON_NULL:
    case MB_JSON_ABSENT:
        add(t, "null", 4);
        return;
    case MB_JSON_ARRAY:
    case MB_JSON_OBJECT:
        break;
    }
    const bool object = kind == MB_JSON_OBJECT;
    add(t, object ? "{" : "[", 1);
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it)) {
        if (it.index > 0)
            add(t, ",", 1);
        add_break(t, depth + 1);
        if (object) {
            add_string(t, it.key, strlen(it.key));
            add(t, ": ", t->indent > 0 ? 2 : 1);
        }
        add_value(t, it.value, depth + 1);
    }
    if (mb_json_count(v) > 0)
        add_break(t, depth);
    add(t, object ? "}" : "]", 1);
}

mb_status mb_json_text(mb_json v, int indent, char **out, size_t *n)
{
    struct text t = {.indent = indent, .st = MB_OK};

    add_value(&t, v, 0);
    if (indent > 0)
        add(&t, "\n", 1);
    if (t.st != MB_OK) {
        mb_free(t.s);
        return t.st;
    }
    *out = t.s;
    if (n != NULL)
        *n = t.n;
    return MB_OK;
}

mb_status mb_json_write(mb_json v, int indent, const char *path)
{
    char *text;
    size_t n;

    MB_TRY(mb_json_text(v, indent, &text, &n));
    const mb_status st = mb_file_write_atomic(path, text, n);
    mb_free(text);
    return st;
}
