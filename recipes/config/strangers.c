/* recipes/config/strangers.c - what somebody may set who must not see this machine's files.
 *
 * Keys that name files are marked in recipe.def. They are found as the command line finds them, so that
 * an alias or a place inside a value is no way around. Values are looked at as they are after
 * quotes and escapes.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/config/settings.h"

enum { ARENA_BYTES = 8 << 20 };

static mb_status check_key(const char *name, const mb_name *known, size_t n)
{
    if (known->kind != MB_NAME_KEY)
        return MB_OK; /* sets nothing, or is an error that says more */
    MB_REQUIRE(!mb_key_is_path(known->key), MB_EARG,
               "%.100s%s%s names a file or folder, which the server chooses", name,
               strcmp(name, known->key->name) == 0 ? "" : " is ",
               strcmp(name, known->key->name) == 0 ? "" : known->key->name);
    MB_REQUIRE(!mb_key_is_path_or_text(known->key) || name[n] == '\0', MB_EARG,
               "%.100s points into a single value", name);
    return MB_OK;
}

static mb_status check_text(const char *name, const char *text)
{
    MB_REQUIRE(strstr(text, "${") == NULL, MB_EARG,
               "%.100s: a value from outside refers to nothing by ${...}", name);
    return MB_OK;
}

static mb_status check_node(const char *name, const mb_yaml *y)
{
    if (y->kind == MB_YAML_SCALAR)
        return check_text(name, y->text);
    for (const mb_yaml *child = y->first; child != NULL; child = child->next)
        MB_TRY(check_node(name, child));
    return MB_OK;
}

mb_status mb_recipe_check_stranger(const char *name, const char *value, char **text)
{
    size_t n;
    const mb_name known = mb_name_find_beginning(name, &n);
    mb_arena *a = NULL;
    mb_yaml *y;
    mb_status st;

    *text = NULL;
    MB_TRY(check_key(name, &known, n));
    MB_TRY(check_text(name, value));
    MB_TRY(mb_arena_new("a setting", ARENA_BYTES, &a));
    MB_TRY_GOTO(mb_arg_value(a, name[n] == '\0' ? known.key : NULL, value, &y), st, done);
    MB_TRY_GOTO(check_node(name, y), st, done);
    if (known.kind == MB_NAME_KEY && mb_key_is_path_or_text(known.key) && !mb_yaml_is_null(y)) {
        if (y->kind == MB_YAML_SCALAR)
            st = mb_strdup(y->text, text);
        else
            st = MB_RAISE(MB_EARG, "%.100s must be a text", name);
    }
done:
    mb_arena_free(a);
    return st;
}
