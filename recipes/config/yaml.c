/* recipes/config/yaml.c - see recipes/config/yaml.h. The only file that includes <yaml.h>.
 *
 * Only libyaml's event stream is used: its document loader expands aliases and has no limits. Depth
 * is counted while events arrive, because libyaml's cost grows with the square of it.
 */
#include "recipes/config/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "core/alloc.h"
#include "core/path.h"

enum { MAP_KEYS_MAX = 4096 };

struct reader {
    mb_arena *arena;
    const char *source;
    const char *text; /* what is parsed; for messages */
    size_t bytes;
    yaml_parser_t parser;
    int64_t n_nodes;
};

static mb_status take_text(mb_arena *a, const char *s, size_t n, const char **out)
{
    void *p;

    MB_TRY(mb_arena_take(a, n + 1, &p));
    memcpy(p, s, n);
    ((char *)p)[n] = '\0';
    *out = p;
    return MB_OK;
}

static mb_status new_node(struct reader *r, mb_yaml_kind kind, yaml_mark_t at, mb_yaml **out)
{
    const mb_yaml place = {
        .source = r->source, .line = (int)at.line + 1, .column = (int)at.column + 1};

    MB_REQUIRE(++r->n_nodes <= MB_YAML_NODES_MAX, MB_EARG,
               "%s:%d:%d: more than %d values in one file", place.source, place.line, place.column,
               MB_YAML_NODES_MAX);
    return mb_yaml_new(r->arena, kind, &place, out);
}

/* libyaml's problem as our sentence; tabs and bad bytes, the usual ones, in words people know. */
static mb_status raise_problem(const struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    const int line = (int)p->problem_mark.line + 1, column = (int)p->problem_mark.column + 1;
    const size_t at = p->problem_mark.index;

    if (p->error == YAML_MEMORY_ERROR)
        return MB_RAISE(MB_ENOMEM, "%s: not enough memory for reading it", r->source);
    if (p->error == YAML_READER_ERROR)
        return MB_RAISE(MB_EARG, "%s: byte %zu is not text in UTF-8 (%s)", r->source,
                        p->problem_offset, p->problem);
    if (at < r->bytes && r->text[at] == '\t')
        return MB_RAISE(MB_EARG, "%s:%d:%d: a tab: YAML is indented with spaces only", r->source,
                        line, column);
    return MB_RAISE(MB_EARG, "%s:%d:%d: not YAML: %s%s%s", r->source, line, column, p->problem,
                    p->context != NULL ? " " : "", p->context != NULL ? p->context : "");
}

static mb_status refuse_extras(const struct reader *r, const yaml_event_t *e, const char *anchor,
                               const char *tag)
{
    const int line = (int)e->start_mark.line + 1, column = (int)e->start_mark.column + 1;

    MB_REQUIRE(anchor == NULL, MB_EARG,
               "%s:%d:%d: anchor '&%.40s': anchors and aliases are not allowed; write ${key} to "
               "use another key's value",
               r->source, line, column, anchor);
    MB_REQUIRE(tag == NULL, MB_EARG, "%s:%d:%d: tag '%.60s': tags are not allowed", r->source, line,
               column, tag);
    return MB_OK;
}

static mb_status read_scalar(struct reader *r, const yaml_event_t *e, mb_yaml **out)
{
    const char *value = (const char *)e->data.scalar.value;
    const size_t n = e->data.scalar.length;

    MB_TRY(
        refuse_extras(r, e, (const char *)e->data.scalar.anchor, (const char *)e->data.scalar.tag));
    MB_REQUIRE(memchr(value, '\0', n) == NULL, MB_EARG,
               "%s:%d:%d: a text with a NUL character in it", r->source,
               (int)e->start_mark.line + 1, (int)e->start_mark.column + 1);
    MB_TRY(new_node(r, MB_YAML_SCALAR, e->start_mark, out));
    (*out)->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return take_text(r->arena, value, n, &(*out)->text);
}

/* A node that is a map's key becomes the name of the value that follows. */
static mb_status check_key(const mb_yaml *map, const mb_yaml *key)
{
    const mb_yaml *twin;

    MB_REQUIRE(key->kind == MB_YAML_SCALAR, MB_EARG, "%s:%d:%d: a map's key must be a word",
               key->source, key->line, key->column);
    MB_REQUIRE(strcmp(key->text, "<<") != 0 || key->quoted, MB_EARG,
               "%s:%d:%d: merge keys '<<' are not allowed", key->source, key->line, key->column);
    MB_REQUIRE(map->n < MAP_KEYS_MAX, MB_EARG, "%s:%d:%d: a map with more than %d keys",
               key->source, key->line, key->column, MAP_KEYS_MAX);
    twin = mb_yaml_child(map, key->text);
    MB_REQUIRE(twin == NULL, MB_EARG, "%s:%d:%d: key '%.60s' is given twice, first at line %d",
               key->source, key->line, key->column, key->text, twin->line);
    return MB_OK;
}

/* State while events arrive: the open collections, and the key that waits for its value. */
struct build {
    mb_yaml *open[MB_YAML_DEPTH_MAX];
    mb_yaml *key[MB_YAML_DEPTH_MAX];
    int depth;
    mb_yaml *root;
};

static mb_status place_node(struct build *b, mb_yaml *node)
{
    mb_yaml *parent, **key;

    if (b->depth == 0) {
        b->root = node;
        return MB_OK;
    }
    parent = b->open[b->depth - 1];
    key = &b->key[b->depth - 1];
    if (parent->kind == MB_YAML_MAP && *key == NULL) {
        MB_TRY(check_key(parent, node));
        *key = node;
        return MB_OK;
    }
    if (parent->kind == MB_YAML_MAP) {
        node->key = (*key)->text;
        node->line = (*key)->line;
        node->column = (*key)->column;
        *key = NULL;
    }
    mb_yaml_append(parent, node);
    return MB_OK;
}

static mb_status open_collection(struct reader *r, const yaml_event_t *e, struct build *b)
{
    const bool list = e->type == YAML_SEQUENCE_START_EVENT;
    mb_yaml *node;

    MB_TRY(refuse_extras(
        r, e, (const char *)(list ? e->data.sequence_start.anchor : e->data.mapping_start.anchor),
        (const char *)(list ? e->data.sequence_start.tag : e->data.mapping_start.tag)));
    MB_REQUIRE(b->depth < MB_YAML_DEPTH_MAX, MB_EARG, "%s:%d:%d: nested deeper than %d levels",
               r->source, (int)e->start_mark.line + 1, (int)e->start_mark.column + 1,
               MB_YAML_DEPTH_MAX);
    MB_TRY(new_node(r, list ? MB_YAML_LIST : MB_YAML_MAP, e->start_mark, &node));
    MB_TRY(place_node(b, node));
    b->open[b->depth] = node;
    b->key[b->depth] = NULL;
    b->depth++;
    return MB_OK;
}

static mb_status take_event(struct reader *r, const yaml_event_t *e, struct build *b, int *n_docs)
{
    mb_yaml *node;

    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        MB_REQUIRE(++*n_docs <= 1, MB_EARG,
                   "%s:%d:%d: a second document ('---'): a recipe is one document", r->source,
                   (int)e->start_mark.line + 1, (int)e->start_mark.column + 1);
        return MB_OK;
    case YAML_ALIAS_EVENT:
        return MB_RAISE(MB_EARG,
                        "%s:%d:%d: alias '*%.40s': anchors and aliases are not allowed; write "
                        "${key} to use another key's value",
                        r->source, (int)e->start_mark.line + 1, (int)e->start_mark.column + 1,
                        (const char *)e->data.alias.anchor);
    case YAML_SCALAR_EVENT:
        MB_TRY(read_scalar(r, e, &node));
        return place_node(b, node);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        return open_collection(r, e, b);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        b->depth--;
        return MB_OK;
    default:
        return MB_OK;
    }
}

static mb_status read_events(struct reader *r, mb_yaml **root)
{
    struct build b = {.depth = 0};
    int n_docs = 0;
    bool more = true;

    while (more) {
        yaml_event_t e;
        mb_status st;

        if (!yaml_parser_parse(&r->parser, &e))
            return raise_problem(r);
        more = e.type != YAML_STREAM_END_EVENT;
        st = take_event(r, &e, &b, &n_docs);
        yaml_event_delete(&e);
        MB_TRY(st);
    }
    *root = b.root;
    return MB_OK;
}

static mb_status parse(mb_arena *a, const char *source, const char *text, size_t bytes,
                       mb_yaml **out)
{
    struct reader r = {.arena = a};
    mb_status st;

    MB_TRY(take_text(a, source, strlen(source), &r.source));
    MB_REQUIRE(bytes <= MB_YAML_BYTES_MAX, MB_EARG, "%s: %zu bytes; a recipe has at most %d",
               source, bytes, MB_YAML_BYTES_MAX);
    MB_REQUIRE(bytes < 2 || (memcmp(text, "\xff\xfe", 2) != 0 && memcmp(text, "\xfe\xff", 2) != 0),
               MB_EARG, "%s: text in UTF-16; a recipe is text in UTF-8", source);
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        bytes -= 3;
    }
    r.text = text;
    r.bytes = bytes;
    MB_REQUIRE(yaml_parser_initialize(&r.parser), MB_ENOMEM, "%s: not enough memory", source);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, bytes);
    st = read_events(&r, out);
    yaml_parser_delete(&r.parser);
    return st;
}

mb_status mb_yaml_parse(mb_arena *a, const char *source, const char *text, size_t bytes,
                        mb_yaml **out)
{
    mb_yaml *root = NULL;

    MB_TRY(parse(a, source, text, bytes, &root));
    if (root != NULL && mb_yaml_is_null(root))
        root = NULL;
    MB_REQUIRE(root == NULL || root->kind == MB_YAML_MAP, MB_EARG,
               "%s:%d:%d: a recipe is a map of 'key: value' lines, this is %s", root->source,
               root->line, root->column, root->kind == MB_YAML_LIST ? "a list" : "a text");
    *out = root;
    return MB_OK;
}

/* On a command line quotes are quotes only when they enclose everything. */
static bool looks_like_yaml(const char *text)
{
    const size_t n = strlen(text);

    if (text[0] == '[' || text[0] == '{')
        return true;
    return n >= 2 && (text[0] == '"' || text[0] == '\'') && text[n - 1] == text[0];
}

mb_status mb_yaml_parse_value(mb_arena *a, const char *source, const char *text, mb_yaml **out)
{
    const mb_yaml place = {.source = source};
    mb_yaml *y = NULL;

    if (!looks_like_yaml(text)) {
        MB_TRY(mb_yaml_new(a, MB_YAML_SCALAR, &place, &y));
        MB_TRY(take_text(a, text, strlen(text), &y->text));
    } else {
        MB_TRY(parse(a, source, text, strlen(text), &y));
        y->line = y->column = 0; /* the place is the source */
    }
    y->verbatim = true;
    *out = y;
    return MB_OK;
}

mb_status mb_yaml_read(mb_arena *a, const char *path, mb_yaml **out)
{
    char *text;
    size_t bytes;
    mb_status st;

    MB_TRY(mb_file_read_as(path, MB_EARG, MB_YAML_BYTES_MAX, &text, &bytes));
    st = mb_yaml_parse(a, path, text, bytes, out);
    mb_free(text);
    return st;
}

mb_status mb_yaml_new(mb_arena *a, mb_yaml_kind kind, const mb_yaml *at, mb_yaml **out)
{
    void *p;

    MB_TRY(mb_arena_take(a, sizeof **out, &p));
    *out = p;
    **out = (mb_yaml){
        .kind = kind, .text = "", .source = at->source, .line = at->line, .column = at->column};
    return MB_OK;
}

void mb_yaml_append(mb_yaml *to, mb_yaml *child)
{
    if (to->last == NULL)
        to->first = child;
    else
        to->last->next = child;
    to->last = child;
    to->n++;
}

mb_yaml *mb_yaml_child(const mb_yaml *map, const char *key)
{
    mb_yaml *y = map->first;

    while (y != NULL && (y->key == NULL || strcmp(y->key, key) != 0))
        y = y->next;
    return y;
}

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

bool mb_yaml_is_null(const mb_yaml *y)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};

    return y->kind == MB_YAML_SCALAR && !y->quoted && is_one_of(y->text, words);
}

bool mb_yaml_to_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes",
                                      "YES",  "on",   "On",   "ON",  NULL};
    static const char *const no[] = {"false", "False", "FALSE", "no",  "No",
                                     "NO",    "off",   "Off",   "OFF", NULL};

    if (!is_one_of(text, yes) && !is_one_of(text, no))
        return false;
    *out = is_one_of(text, yes);
    return true;
}

static size_t count_digits(const char *s)
{
    return strspn(s, "0123456789");
}

bool mb_yaml_to_int(const char *text, int64_t *out)
{
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    const size_t n = count_digits(digits);
    long long v;

    if (n == 0 || digits[n] != '\0' || (n > 1 && digits[0] == '0'))
        return false;
    errno = 0;
    v = strtoll(text, NULL, 10);
    *out = v;
    return errno == 0;
}

bool mb_yaml_to_num(const char *text, double *out)
{
    const char *s = text + (text[0] == '-' || text[0] == '+');
    size_t before, after = 0;

    before = count_digits(s);
    if (before > 1 && s[0] == '0')
        return false;
    s += before;
    if (*s == '.') {
        after = count_digits(s + 1);
        s += 1 + after;
    }
    if (before + after == 0)
        return false;
    if (*s == 'e' || *s == 'E') {
        s += 1 + (s[1] == '-' || s[1] == '+');
        if (count_digits(s) == 0)
            return false;
        s += count_digits(s);
    }
    if (*s != '\0')
        return false;
    *out = strtod(text, NULL); /* the program never changes its locale, so '.' is the point */
    return isfinite(*out);
}

const char *mb_yaml_place(const mb_yaml *y, char *buf, size_t size)
{
    if (y->line > 0 && strcmp(y->source, "command line") != 0)
        snprintf(buf, size, "%.200s:%d:%d: ", y->source, y->line, y->column);
    else
        snprintf(buf, size, "%.200s: ", y->source);
    return buf;
}

const char *mb_yaml_describe(const mb_yaml *y, char *buf, size_t size)
{
    double v;
    bool b;

    if (y->kind == MB_YAML_MAP)
        snprintf(buf, size, "a map of %lld", (long long)y->n);
    else if (y->kind == MB_YAML_LIST)
        snprintf(buf, size, "a list of %lld", (long long)y->n);
    else if (!y->quoted && mb_yaml_is_null(y))
        snprintf(buf, size, "nothing");
    else if (!y->quoted && mb_yaml_to_num(y->text, &v))
        snprintf(buf, size, "the number %.60s", y->text);
    else if (!y->quoted && mb_yaml_to_bool(y->text, &b))
        snprintf(buf, size, "the boolean %.60s", y->text);
    else
        snprintf(buf, size, "the text '%.60s'", y->text);
    return buf;
}
