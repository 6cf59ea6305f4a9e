/* recipes/bundle/items_recipe.c - a recipe in a bundle: what it names goes with it, and its paths
 * become those of the bag, so that it runs in the bag's data folder. */
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/bundle/bundle.h"
#include "recipes/config/model_path.h"
#include "recipes/config/recipe.h"

/* Strings of the recipe that were put in place of its own. */
struct moved {
    char **at;
    size_t n, capacity;
};

static mb_status replace(struct moved *m, const char **field, const char *text)
{
    MB_TRY(mb_grow((void **)&m->at, &m->capacity, m->n + 1, sizeof *m->at, "paths of a recipe"));
    MB_TRY(mb_strdup(text, &m->at[m->n]));
    *field = m->at[m->n++];
    return MB_OK;
}

/* The path of something in the bundle; any other stays. */
static mb_status move(const mb_bundle_items *b, struct moved *m, const char **field, bool is_data)
{
    char place[MB_PATH_MAX];

    if (*field == NULL || !mb_bundle_find(b, *field, is_data, place, sizeof place))
        return MB_OK;
    return replace(m, field, place);
}

static mb_status move_datasets(const mb_bundle_items *b, struct moved *m, mb_datasets *d)
{
    for (int64_t i = 0; i < d->n; i++)
        MB_TRY(move(b, m, &d->at[i].path, true));
    return MB_OK;
}

static mb_status move_all(const mb_bundle_items *b, struct moved *m, mb_recipe *r)
{
    char out[MB_PATH_MAX];

    MB_TRY(move(b, m, &r->model_name_or_path, false));
    MB_TRY(move(b, m, &r->adapter_path, false));
    MB_TRY(move(b, m, &r->chat_template, false));
    MB_TRY(move(b, m, &r->prompts_file, true));
    MB_TRY(move_datasets(b, m, &r->datasets));
    MB_TRY(move_datasets(b, m, &r->eval_datasets));
    if (r->output_dir == NULL || r->output_dir[0] != '/')
        return MB_OK;
    MB_TRY(mb_path_join(out, sizeof out, "out", mb_path_base(r->output_dir)));
    return replace(m, &r->output_dir, out);
}

static mb_status take_datasets(mb_bundle_items *b, const mb_datasets *d)
{
    for (int64_t i = 0; i < d->n; i++)
        MB_TRY(mb_bundle_take_data(b, d->at[i].path));
    return MB_OK;
}

static mb_status take_named(mb_bundle_items *b, const mb_recipe *r)
{
    char place[MB_PATH_MAX];

    if (r->model_name_or_path != NULL) {
        MB_TRY(mb_recipe_check_model(r));
        MB_TRY(mb_bundle_take_model(b, r->model_name_or_path));
    }
    if (r->adapter_path != NULL)
        MB_TRY(mb_bundle_take_model(b, r->adapter_path));
    MB_TRY(take_datasets(b, &r->datasets));
    MB_TRY(take_datasets(b, &r->eval_datasets));
    if (r->prompts_file != NULL)
        MB_TRY(mb_bundle_take_data(b, r->prompts_file));
    if (r->chat_template == NULL || strchr(r->chat_template, '{') != NULL ||
        !mb_path_is_file(r->chat_template))
        return MB_OK;
    MB_TRY(mb_path_join(place, sizeof place, "data/recipes", mb_path_base(r->chat_template)));
    return mb_bundle_take(b, place, r->chat_template);
}

static mb_status add(mb_bundle_items *b, const mb_recipe *r, const char *base)
{
    char place[MB_PATH_MAX];
    char *text = NULL, *whole = NULL;
    mb_status st;

    MB_TRY(mb_path_join(place, sizeof place, "data/recipes", base));
    MB_TRY(mb_recipe_text(r, false, &text));
    st = mb_asprintf(&whole,
                     "# in a bundle of mbuyu's; its paths are those of the bag's data "
                     "folder, so run it there\n%s",
                     text);
    mb_free(text);
    MB_TRY(st);
    return mb_bundle_take_text(b, place, whole);
}

mb_status mb_bundle_take_recipe(mb_bundle_items *b, const char *path, bool whole)
{
    char file[MB_PATH_MAX];
    char verb[] = "bundle";
    char *argv[] = {verb, file};
    struct moved m = {0};
    mb_recipe *r = NULL;
    mb_status st;

    MB_TRY(mb_path_join(file, sizeof file, "", path));
    MB_REQUIRE(mb_path_is_file(file), MB_EARG, "there is no recipe '%s'", path);
    MB_TRY(mb_recipe_load(2, argv, &r));
    st = whole ? take_named(b, r) : MB_OK;
    if (st == MB_OK)
        st = move_all(b, &m, r);
    if (st == MB_OK)
        st = add(b, r, mb_path_base(path));
    mb_recipe_free(r);
    for (size_t i = 0; i < m.n; i++)
        mb_free(m.at[i]);
    mb_free(m.at);
    return st;
}
