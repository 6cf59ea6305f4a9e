/* recipes/cmd/bundle.c - `mbuyu bundle`: models, data and recipes in one checksummed archive.
 *
 *     mbuyu bundle RECIPE.yaml ... [--model [ORG/NAME=]DIR|FILE.gguf] [--data [ORG/NAME=]PATH]
 *                  [--recipe FILE] [--run DIR] [--program[=FILE]] [--name NAME] [--to DIR] [--split SIZE]
 *
 * A recipe brings the model, adapter and data it names; --recipe FILE comes alone. All but --name,
 * --to and --split may be given several times.
 */
#include "recipes/bundle/bundle.h"

#include <string.h>

#include "core/log.h"
#include "core/path.h"
#include "recipes/commands.h"
#include "recipes/config/recipe.h"
#include "recipes/train/engine.h"

struct wishes {
    mb_bundle_items items;
    mb_bundle_options how;
    char name[256];
};

static mb_status take_whole_recipe(mb_bundle_items *b, const char *path)
{
    return mb_bundle_take_recipe(b, path, true);
}

static mb_status take_recipe(mb_bundle_items *b, const char *path)
{
    return mb_bundle_take_recipe(b, path, false);
}

static const struct {
    const char *option;
    mb_status (*take)(mb_bundle_items *b, const char *what);
} sources[] = {{"--model", mb_bundle_take_model}, {"--data", mb_bundle_take_data},
               {"--run", mb_bundle_take_run},     {"--program", mb_bundle_take_program},
               {"--recipe", take_recipe}, /* after what it may name */
               {NULL, take_whole_recipe}};
enum { N_SOURCES = sizeof sources / sizeof *sources };

/* The first thing given names the bundle. */
static void name_after(struct wishes *w, const char *what)
{
    const char *base = mb_path_base(what);
    const char *dot = strrchr(base, '.');
    const size_t n =
        dot != NULL && dot > base && mb_path_is_file(what) ? (size_t)(dot - base) : strlen(base);
    if (w->how.name == NULL && n > 0 && n < sizeof w->name) {
        snprintf(w->name, sizeof w->name, "%.*s", (int)n, base);
        w->how.name = w->name;
    }
}

static mb_status option(struct wishes *w, const char *name, const char *value)
{
    if (strcmp(name, "--to") == 0) {
        w->how.dir = value;
    } else if (strcmp(name, "--name") == 0) {
        w->how.name = value;
    } else if (strcmp(name, "--split") == 0) {
        MB_REQUIRE(mb_recipe_size(value, &w->how.split), MB_EARG,
                   "--split is \"%s\", not a size such as 4GB or 700MiB", value);
    } else {
        return MB_RAISE(MB_EARG,
                        "bundle has no option %s; there are --model, --data, --recipe, --run, "
                        "--program, --name, --to and --split",
                        name);
    }
    return MB_OK;
}

static int source_of(const char *arg, size_t n)
{
    for (int k = 0; k < N_SOURCES - 1; k++)
        if (strlen(sources[k].option) == n && strncmp(arg, sources[k].option, n) == 0)
            return k;
    return -1;
}

/* Visits the arguments: options of the bundle when `kind` is -1, else what `kind` takes. */
static mb_status visit(int argc, char **argv, int kind, struct wishes *w)
{
    char name[32];

    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *equals = strchr(arg, '=');
        if (strncmp(arg, "--", 2) != 0) {
            if (kind == N_SOURCES - 1)
                MB_TRY(take_whole_recipe(&w->items, arg));
            else if (kind < 0)
                name_after(w, arg);
            continue;
        }
        const size_t n = equals != NULL ? (size_t)(equals - arg) : strlen(arg);
        const int source = source_of(arg, n);
        const bool self = source >= 0 && sources[source].take == mb_bundle_take_program;
        const char *value = equals != NULL ? equals + 1 : self ? "/proc/self/exe" : argv[++i];
        MB_REQUIRE(value != NULL && value[0] != '\0', MB_EARG, "%.40s wants a value", arg);
        if (source >= 0 && source == kind)
            MB_TRY(sources[source].take(&w->items, value));
        snprintf(name, sizeof name, "%.*s", (int)n, arg);
        if (kind < 0 && source < 0)
            MB_TRY(option(w, name, value));
    }
    return MB_OK;
}

/* The name of the first thing taken, where no recipe gave one. */
static void name_after_item(struct wishes *w)
{
    const mb_bag *b = &w->items.bag;

    if (w->items.n > 0)
        name_after(w, w->items.item[0].place);
    else if (b->n > 0)
        name_after(w, b->file[0].path);
}

mb_status mb_cmd_bundle(int argc, char **argv)
{
    struct wishes w = {.how = {.dir = ".", .threads = mb_default_threads()}};
    mb_status st;

    MB_TRY_GOTO(visit(argc, argv, -1, &w), st, done);
    for (int kind = 0; kind < N_SOURCES; kind++)
        MB_TRY_GOTO(visit(argc, argv, kind, &w), st, done);
    if (w.items.bag.n == 0) {
        st = MB_RAISE(MB_EARG, "bundle: of what? usage: mbuyu bundle RECIPE.yaml | --model DIR "
                               "[--data PATH] [--run DIR] ... [--to DIR]");
        goto done;
    }
    name_after_item(&w);
    if (w.items.hidden > 0)
        mb_log_info("%lld hidden or temporary files and folders are left out",
                    (long long)w.items.hidden);
    st = mb_bundle_write(&w.items, &w.how);
done:
    mb_bundle_items_release(&w.items);
    return st;
}
