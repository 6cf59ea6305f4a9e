/* recipes/config/references.c - ${key}, ${env:VAR} and ${env:VAR,otherwise} inside values.
 *
 * A key is resolved once, before what refers to it; one that is met again while it is being resolved
 * is a circle. Texts are bounded, so references cannot multiply without end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/config/settings.h"

enum { TEXT_MAX = 65536, NAME_MAX_BYTES = 256 };
enum { FRESH, BUSY, DONE };

struct expansion {
    mb_settings *s;
    char place[256];
    char *buf; /* TEXT_MAX bytes */
    size_t n;
};

static mb_status resolve_key(mb_settings *s, int k);

static mb_status append(struct expansion *e, const char *text, size_t n)
{
    MB_REQUIRE(n < TEXT_MAX - e->n, MB_EARG, "%sa text of more than %d bytes after ${...}",
               e->place, TEXT_MAX);
    memcpy(e->buf + e->n, text, n);
    e->n += n;
    return MB_OK;
}

static mb_status append_env(struct expansion *e, char *name)
{
    char *otherwise = strchr(name, ',');
    const char *value;

    if (otherwise != NULL)
        *otherwise++ = '\0';
    value = getenv(name);
    if (value == NULL)
        value = otherwise;
    MB_REQUIRE(value != NULL, MB_EARG,
               "%s${env:%s}: the environment has no %s; ${env:%s,value} gives one for that case",
               e->place, name, name, name);
    return append(e, value, strlen(value));
}

static mb_status append_key(struct expansion *e, const char *name)
{
    const mb_name known = mb_name_find(name);
    const char *nearest = mb_name_nearest(name);
    mb_yaml *y;
    int k;

    MB_REQUIRE(known.kind == MB_NAME_KEY, MB_EARG,
               "%s${%s} refers to a key that does not exist%s%s%s; for a plain '${' write '$${'",
               e->place, name, nearest != NULL ? ", did you mean '" : "",
               nearest != NULL ? nearest : "", nearest != NULL ? "'" : "");
    k = (int)(known.key - mb_recipe_keys);
    y = e->s->at[k].node;
    if (y != NULL)
        MB_TRY(resolve_key(e->s, k));
    else
        MB_TRY(mb_yaml_parse_value(e->s->arena, "default", known.key->deflt, &y));
    MB_REQUIRE(y->kind == MB_YAML_SCALAR && !mb_yaml_is_null(y), MB_EARG, "%s${%s}: %s %s",
               e->place, name, known.key->name,
               y->kind == MB_YAML_SCALAR ? "has no value" : "is not a single value");
    return append(e, y->text, strlen(y->text));
}

static mb_status expand(struct expansion *e, const char *text)
{
    char name[NAME_MAX_BYTES];

    while (*text != '\0') {
        const char *dollar = strstr(text, "${"), *end;

        if (dollar == NULL)
            return append(e, text, strlen(text));
        if (dollar > text && dollar[-1] == '$') {
            MB_TRY(append(e, text, (size_t)(dollar - 1 - text)));
            MB_TRY(append(e, "${", 2));
            text = dollar + 2;
            continue;
        }
        MB_TRY(append(e, text, (size_t)(dollar - text)));
        end = strchr(dollar, '}');
        MB_REQUIRE(end != NULL && end - dollar - 2 < NAME_MAX_BYTES, MB_EARG,
                   "%s'${' without a '}' soon after it; for a plain '${' write '$${'", e->place);
        snprintf(name, sizeof name, "%.*s", (int)(end - dollar - 2), dollar + 2);
        if (strncmp(name, "env:", 4) == 0)
            MB_TRY(append_env(e, name + 4));
        else
            MB_TRY(append_key(e, name));
        text = end + 1;
    }
    return MB_OK;
}

static mb_status resolve_node(mb_settings *s, mb_yaml *y)
{
    struct expansion e = {.s = s};
    mb_status st;
    void *p;

    for (mb_yaml *child = y->first; child != NULL; child = child->next)
        MB_TRY(resolve_node(s, child));
    if (y->kind != MB_YAML_SCALAR || strstr(y->text, "${") == NULL)
        return MB_OK;
    mb_yaml_place(y, e.place, sizeof e.place);
    MB_TRY(MB_NEW_ARRAY(&e.buf, TEXT_MAX));
    MB_TRY_GOTO(expand(&e, y->text), st, done);
    MB_TRY_GOTO(mb_arena_take(s->arena, e.n + 1, &p), st, done);
    memcpy(p, e.buf, e.n);
    ((char *)p)[e.n] = '\0';
    y->text = p;
done:
    mb_free(e.buf);
    return st;
}

static mb_status resolve_key(mb_settings *s, int k)
{
    mb_setting *at = &s->at[k];
    char place[256];

    if (at->node == NULL || at->state == DONE)
        return MB_OK;
    MB_REQUIRE(at->state != BUSY, MB_EARG, "%s%s refers to itself through ${...}",
               mb_yaml_place(at->node, place, sizeof place), mb_recipe_keys[k].name);
    at->state = BUSY;
    MB_TRY(resolve_node(s, at->node));
    at->state = DONE;
    return MB_OK;
}

mb_status mb_settings_resolve(mb_settings *s)
{
    for (int k = 0; k < MB_N_KEYS; k++)
        MB_TRY(resolve_key(s, k));
    return MB_OK;
}
