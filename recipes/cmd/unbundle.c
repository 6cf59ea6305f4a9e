/* recipes/cmd/unbundle.c - `mbuyu unbundle`: what `mbuyu bundle` made, checked and unpacked.
 *
 *     mbuyu unbundle NAME.sha256 [PLACE ...] [--to DIR] [--only PATTERN ...] [--list] [--max-size SIZE]
 *
 * Parts are looked for beside NAME.sha256 and in every PLACE.
 */
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/bundle/bundle.h"
#include "recipes/commands.h"
#include "recipes/config/recipe.h"
#include "recipes/train/engine.h"

enum { MOST_PLACES = 256 };

struct wishes {
    mb_unbundle_options how;
    char sums[MB_PATH_MAX];
    const char *place[MOST_PLACES], *only[MOST_PLACES];
};

/* An archive or part of it stands for the NAME.sha256 beside it. */
static mb_status take_sums(struct wishes *w, const char *path)
{
    const char *end = strstr(mb_path_base(path), ".mbuyu.tar.zst");
    const size_t n = end != NULL ? (size_t)(end - path) : strlen(path);

    MB_REQUIRE(n + 8 < sizeof w->sums, MB_EARG, "the path '%.80s...' is too long", path);
    memcpy(w->sums, path, n);
    memcpy(w->sums + n, end != NULL ? ".sha256" : "", end != NULL ? 8 : 1);
    w->how.sums = w->sums;
    return MB_OK;
}

static mb_status option(struct wishes *w, const char *name, const char *value)
{
    if (strcmp(name, "--to") == 0) {
        w->how.to = value;
    } else if (strcmp(name, "--only") == 0) {
        MB_REQUIRE(w->how.n_only < MOST_PLACES, MB_EARG, "more than %d patterns", MOST_PLACES);
        w->only[w->how.n_only++] = value;
    } else if (strcmp(name, "--max-size") == 0) {
        MB_REQUIRE(mb_recipe_size(value, &w->how.most) && w->how.most > 0, MB_EARG,
                   "--max-size is \"%s\", not a size such as 40GB", value);
    } else {
        return MB_RAISE(MB_EARG,
                        "unbundle has no option %s; there are --to, --only, --list and --max-size",
                        name);
    }
    return MB_OK;
}

static mb_status parse(int argc, char **argv, struct wishes *w)
{
    char name[32];

    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *equals = strchr(arg, '=');
        if (strcmp(arg, "--list") == 0) {
            w->how.list = true;
        } else if (strncmp(arg, "--", 2) == 0) {
            const size_t n = equals != NULL ? (size_t)(equals - arg) : strlen(arg);
            const char *value = equals != NULL ? equals + 1 : argv[++i];
            MB_REQUIRE(value != NULL && value[0] != '\0', MB_EARG, "%.40s wants a value", arg);
            snprintf(name, sizeof name, "%.*s", (int)n, arg);
            MB_TRY(option(w, name, value));
        } else if (w->how.sums == NULL) {
            MB_TRY(take_sums(w, arg));
        } else {
            MB_REQUIRE(w->how.n_places < MOST_PLACES && mb_path_is_dir(arg), MB_EARG,
                       "there is no folder '%s' to look for parts in", arg);
            w->place[w->how.n_places++] = arg;
        }
    }
    MB_REQUIRE(w->how.sums != NULL, MB_EARG,
               "unbundle: of what? usage: mbuyu unbundle NAME.sha256 [PLACE ...] [--to DIR]");
    return MB_OK;
}

mb_status mb_cmd_unbundle(int argc, char **argv)
{
    struct wishes *w;
    mb_status st;

    MB_TRY(MB_NEW(&w));
    w->how.place = w->place;
    w->how.only = w->only;
    w->how.threads = mb_default_threads();
    st = parse(argc, argv, w);
    if (st == MB_OK)
        st = mb_unbundle(&w->how);
    mb_free(w);
    return st;
}
