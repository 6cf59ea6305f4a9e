/* recipes/config/settings.h - what a recipe file and a command line say, by canonical key.
 *
 * The steps of loading are: file and arguments become settings (names resolved, aliases rewritten,
 * the command line over the file), references ${...} are replaced, then values get types
 * (recipes/config/value.h). Internal to recipes/config/.
 */
#ifndef MB_RECIPES_CONFIG_SETTINGS_H
#define MB_RECIPES_CONFIG_SETTINGS_H

#include "recipes/config/schema.h"
#include "recipes/config/yaml.h"

typedef struct mb_setting {
    mb_yaml *node;  /* NULL: not given */
    const char *as; /* the name it was given under */
    bool from_args;
    char state; /* of the references in it */
} mb_setting;

typedef struct mb_settings {
    mb_arena *arena;
    mb_setting at[MB_N_KEYS];
} mb_settings;

/* One argument: `name` `value`, or ~name (remove). */
typedef struct mb_arg {
    const char *name, *value; /* value NULL: remove */
} mb_arg;

typedef struct mb_args {
    mb_arg *at;
    int n;
    const char *recipe; /* path of the recipe file, or NULL */
} mb_args;

/* Takes the arguments after argv[0] apart. Borrows argv. */
mb_status mb_args_read(mb_arena *a, int argc, char **argv, mb_args *out) MB_MUST_USE;

mb_status mb_settings_add_file(mb_settings *s, const mb_yaml *root) MB_MUST_USE;
mb_status mb_settings_add_args(mb_settings *s, const mb_args *args) MB_MUST_USE;
/* The value of an argument for `key` (NULL: for a place inside one): flow YAML, but for texts only
 * quotes are special. `value` is borrowed. */
mb_status mb_arg_value(mb_arena *a, const mb_key *key, const char *value,
                       mb_yaml **out) MB_MUST_USE;
/* ${key}, ${env:VAR}, ${env:VAR,otherwise}; $${ is a plain ${. */
mb_status mb_settings_resolve(mb_settings *s) MB_MUST_USE;

/* Same scalars (numbers by value), same lists, same maps. */
bool mb_yaml_equal(const mb_yaml *x, const mb_yaml *y);

#endif
