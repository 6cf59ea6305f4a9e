/* recipes/cmd/config.c - `mbuyu config`: the recipe as mbuyu understands it, in canonical names.
 *
 * Without options the keys that were given, so that a recipe of another trainer becomes one of ours;
 * --all adds the defaults, --where says where each key was set, --digest prints the sha256.
 */
#include <string.h>

#include "recipes/commands.h"
#include "recipes/config/recipe.h"

static mb_status print_all(const mb_recipe *r)
{
    return mb_recipe_print(r, true, stdout);
}

static mb_status print_given(const mb_recipe *r)
{
    return mb_recipe_print(r, false, stdout);
}

static mb_status print_where(const mb_recipe *r)
{
    return mb_recipe_print_where(r, stdout);
}

static mb_status print_digest(const mb_recipe *r)
{
    char hex[65];

    MB_TRY(mb_recipe_digest(r, hex));
    printf("%s\n", hex);
    return MB_OK;
}

static const struct {
    const char *option;
    mb_status (*print)(const mb_recipe *r);
} forms[] = {{"--all", print_all}, {"--where", print_where}, {"--digest", print_digest}};

mb_status mb_cmd_config(int argc, char **argv)
{
    mb_status (*print)(const mb_recipe *r) = print_given;
    mb_recipe *r = NULL;
    mb_status st;
    int n = 0;

    for (int i = 0; i < argc; i++) {
        bool taken = false;

        for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++)
            if (strcmp(argv[i], forms[f].option) == 0) {
                print = forms[f].print;
                taken = true;
            }
        if (!taken)
            argv[n++] = argv[i];
    }
    MB_TRY(mb_recipe_load(n, argv, &r));
    st = print(r);
    mb_recipe_free(r);
    return st;
}
