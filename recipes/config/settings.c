/* recipes/config/settings.c - see recipes/config/settings.h. */
#include "recipes/config/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

enum { PATH_BYTES = 256 };

static mb_status raise_unknown(const mb_yaml *y, const char *path)
{
    const char *nearest = mb_name_nearest(path);
    char place[256];

    mb_yaml_place(y, place, sizeof place);
    if (nearest == NULL)
        return MB_RAISE(MB_EARG, "%sunknown key '%.80s'; `mbuyu help keys` lists all", place, path);
    return MB_RAISE(MB_EARG, "%sunknown key '%.80s'; did you mean '%s'?", place, path, nearest);
}

bool mb_yaml_equal(const mb_yaml *x, const mb_yaml *y)
{
    double u, v;
    bool b, c;

    if (x->kind != y->kind || x->n != y->n)
        return false;
    if (x->kind == MB_YAML_SCALAR) {
        if (mb_yaml_to_num(x->text, &u) && mb_yaml_to_num(y->text, &v))
            return u == v;
        if (mb_yaml_to_bool(x->text, &b) && mb_yaml_to_bool(y->text, &c))
            return b == c;
        return strcmp(x->text, y->text) == 0;
    }
    x = x->first;
    for (y = y->first; x != NULL; x = x->next, y = y->next)
        if ((x->key != NULL && strcmp(x->key, y->key) != 0) || !mb_yaml_equal(x, y))
            return false;
    return true;
}

static mb_status raise_conflict(const mb_setting *old, const mb_yaml *y, const char *as,
                                const mb_key *key)
{
    char place[256], other[256], is[160], was[160];

    mb_yaml_place(y, place, sizeof place);
    mb_yaml_place(old->node, other, sizeof other);
    other[strlen(other) - 2] = '\0'; /* without ": " */
    return MB_RAISE(MB_EARG, "%s%s is %s, but %s is %s (%s); both mean %s: keep one", place, as,
                    mb_yaml_describe(y, is, sizeof is), old->as,
                    mb_yaml_describe(old->node, was, sizeof was), other, key->name);
}

/* Rewrites the value of an alias. *out is NULL when the value says nothing. */
static mb_status rewrite(mb_arena *a, const char *rules, mb_yaml *y, mb_yaml **out)
{
    char buf[128];
    const char *to = NULL;

    if (y->kind == MB_YAML_SCALAR)
        to = mb_values_rewrite(rules, mb_yaml_is_null(y) ? "null" : y->text, buf, sizeof buf);
    *out = y;
    if (to == NULL)
        return MB_OK;
    if (strcmp(to, "-") == 0) {
        *out = NULL;
        return MB_OK;
    }
    MB_TRY(mb_yaml_new(a, MB_YAML_SCALAR, y, out));
    return mb_arena_strdup(a, to, &(*out)->text);
}

static mb_status put(mb_settings *s, const mb_name *name, const char *as, mb_yaml *y, bool args)
{
    mb_setting *at = &s->at[name->key - mb_recipe_keys];

    MB_TRY(rewrite(s->arena, name->values, y, &y));
    if (y == NULL)
        return MB_OK;
    if (strcmp(as, name->key->name) != 0) /* our key may rewrite values itself */
        MB_TRY(rewrite(s->arena, mb_name_find(name->key->name).values, y, &y));
    if (at->node != NULL && at->from_args == args && strcmp(at->as, as) != 0 &&
        !mb_yaml_equal(at->node, y))
        return raise_conflict(at, y, as, name->key);
    *at = (mb_setting){.node = y, .from_args = args};
    return mb_arena_strdup(s->arena, as, &at->as);
}

static bool says_no(const mb_yaml *y)
{
    bool b;

    if (y->kind != MB_YAML_SCALAR)
        return y->n == 0;
    return mb_yaml_is_null(y) || (mb_yaml_to_bool(y->text, &b) && !b) ||
           strcmp(y->text, "0") == 0 || strcmp(y->text, "none") == 0;
}

/* A name that is known, whatever it stands for. */
static mb_status put_known(mb_settings *s, const mb_name *name, const char *path, mb_yaml *y,
                           bool args)
{
    char place[256];

    mb_yaml_place(y, place, sizeof place);
    switch (name->kind) {
    case MB_NAME_KEY:
        return put(s, name, path, y, args);
    case MB_NAME_AMBIGUOUS:
        return MB_RAISE(MB_EARG, "%s%s has two meanings: write %s", place, path, name->note);
    case MB_NAME_LATER:
        if (says_no(y))
            return MB_OK;
        return MB_RAISE(MB_EARG, "%s%s is not available in this version: %s", place, path,
                        name->note);
    case MB_NAME_IGNORED:
        mb_log_info("%s%s is not used: %s", place, path, name->note);
        return MB_OK;
    case MB_NAME_UNKNOWN:
        break;
    }
    return raise_unknown(y, path);
}

/* A map below a name can be the value of a key, or a block with keys inside. */
static bool is_block_here(const mb_name *name, const char *path, const mb_yaml *y)
{
    if (y->kind != MB_YAML_MAP || !mb_name_is_block(path))
        return false;
    if (name->kind == MB_NAME_KEY && name->key->type == MB_TYPE_DATASETS)
        return mb_yaml_child(y, "path") == NULL;
    return true;
}

static mb_status add_map(mb_settings *s, const mb_yaml *map, const char *prefix)
{
    for (mb_yaml *y = map->first; y != NULL; y = y->next) {
        char path[PATH_BYTES];
        mb_name name;

        snprintf(path, sizeof path, "%s%s%.100s", prefix, prefix[0] != '\0' ? "." : "", y->key);
        name = mb_name_find(path);
        if (is_block_here(&name, path, y))
            MB_TRY(add_map(s, y, path));
        else if (name.kind == MB_NAME_UNKNOWN && mb_name_is_block(path) && mb_yaml_is_null(y))
            continue;
        else
            MB_TRY(put_known(s, &name, path, y, false));
    }
    return MB_OK;
}

mb_status mb_settings_add_file(mb_settings *s, const mb_yaml *root)
{
    return root != NULL ? add_map(s, root, "") : MB_OK;
}

mb_status mb_arg_value(mb_arena *a, const mb_key *key, const char *value, mb_yaml **out)
{
    const mb_yaml place = {.source = "command line"};
    const bool text = key != NULL && key->type == MB_TYPE_STR;

    if (text && (value[0] == '[' || value[0] == '{' || value[0] == '\0')) {
        MB_TRY(mb_yaml_new(a, MB_YAML_SCALAR, &place, out));
        (*out)->text = value;
        (*out)->verbatim = true;
        (*out)->quoted = true;
        return MB_OK;
    }
    return mb_yaml_parse_value(a, place.source, value, out);
}

static mb_yaml *nth(const mb_yaml *list, int64_t i)
{
    mb_yaml *y = list->first;

    while (y != NULL && i-- > 0)
        y = y->next;
    return y;
}

static void replace_child(mb_yaml *parent, mb_yaml *old, mb_yaml *new)
{
    mb_yaml **at = &parent->first;

    while (*at != old)
        at = &(*at)->next;
    new->key = old->key;
    new->next = old->next;
    *at = new;
    if (parent->last == old)
        parent->last = new;
}

static void remove_child(mb_yaml *parent, const mb_yaml *old)
{
    mb_yaml **at = &parent->first;

    while (*at != old)
        at = &(*at)->next;
    *at = old->next;
    parent->n--;
    parent->last = NULL;
    for (mb_yaml *y = parent->first; y != NULL; y = y->next)
        parent->last = y;
}

/* Where in `parent` the word `part` points: a child, or NULL for one past the end or a new key. */
static mb_status find_part(const mb_yaml *parent, const char *part, const char *whole,
                           mb_yaml **child)
{
    int64_t i;

    if (parent->kind == MB_YAML_MAP) {
        *child = mb_yaml_child(parent, part);
        return MB_OK;
    }
    MB_REQUIRE(parent->kind == MB_YAML_LIST, MB_EARG,
               "command line: %.100s: '%.40s' points into a single value", whole, part);
    MB_REQUIRE(mb_yaml_to_int(part, &i) && i >= 0 && i <= parent->n, MB_EARG,
               "command line: %.100s: '%.40s' is not a place in a list of %lld; the first is 0",
               whole, part, (long long)parent->n);
    *child = nth(parent, i);
    return MB_OK;
}

/* Sets or removes what `path` ("0.path") points to inside `node`; makes maps on the way. */
static mb_status set_inside(mb_arena *a, mb_yaml *node, const char *path, const mb_arg *arg)
{
    const size_t n = strcspn(path, ".");
    const bool leaf = path[n] == '\0';
    char part[PATH_BYTES];
    mb_yaml *child = NULL, *value = NULL;

    MB_REQUIRE(n > 0 && n < sizeof part, MB_EARG, "command line: '%.100s' is not a key", arg->name);
    memcpy(part, path, n);
    part[n] = '\0';
    MB_TRY(find_part(node, part, arg->name, &child));
    MB_REQUIRE(arg->value != NULL || child != NULL, MB_EARG,
               "command line: ~%.100s: there is no '%.40s' to remove", arg->name, part);
    if (!leaf && child != NULL)
        return set_inside(a, child, path + n + 1, arg);
    if (arg->value == NULL) {
        remove_child(node, child);
        return MB_OK;
    }
    if (leaf)
        MB_TRY(mb_yaml_parse_value(a, "command line", arg->value, &value));
    else
        MB_TRY(mb_yaml_new(a, MB_YAML_MAP, &(mb_yaml){.source = "command line"}, &value));
    if (child != NULL) {
        replace_child(node, child, value);
    } else {
        MB_TRY(mb_arena_strdup(a, part, &value->key));
        if (node->kind == MB_YAML_LIST)
            value->key = NULL;
        mb_yaml_append(node, value);
    }
    return leaf ? MB_OK : set_inside(a, value, path + n + 1, arg);
}

/* "datasets.0.path": the key is the longest known beginning, the rest points into its value. */
static mb_status put_path(mb_settings *s, const mb_arg *arg)
{
    const mb_yaml here = {.source = "command line"};
    size_t n;
    const mb_name name = mb_name_find_beginning(arg->name, &n);
    mb_setting *at;

    MB_REQUIRE(strlen(arg->name) < PATH_BYTES, MB_EARG, "command line: '%.100s' is not a key",
               arg->name);
    if (name.kind != MB_NAME_KEY ||
        (name.key->type != MB_TYPE_LIST && name.key->type != MB_TYPE_MAP &&
         name.key->type != MB_TYPE_DATASETS))
        return raise_unknown(&here, arg->name);
    at = &s->at[name.key - mb_recipe_keys];
    if (at->node == NULL) {
        MB_TRY(mb_yaml_new(s->arena, name.key->type == MB_TYPE_MAP ? MB_YAML_MAP : MB_YAML_LIST,
                           &here, &at->node));
        at->as = name.key->name;
    }
    return set_inside(s->arena, at->node, arg->name + n + 1, arg);
}

mb_status mb_settings_add_args(mb_settings *s, const mb_args *args)
{
    for (int i = 0; i < args->n; i++) {
        const mb_arg *arg = &args->at[i];
        const mb_name name = mb_name_find(arg->name);
        mb_yaml *y;

        if (name.kind == MB_NAME_UNKNOWN) {
            MB_TRY(put_path(s, arg));
        } else if (arg->value != NULL) {
            MB_TRY(mb_arg_value(s->arena, name.key, arg->value, &y));
            MB_TRY(put_known(s, &name, arg->name, y, true));
        } else if (name.kind == MB_NAME_KEY) {
            s->at[name.key - mb_recipe_keys] = (mb_setting){.node = NULL};
        }
    }
    return MB_OK;
}
