/* recipes/config/model_path.c - see recipes/config/model_path.h. */
#include "recipes/config/model_path.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/config/text.h"

enum { MOST_CONFIG_BYTES = 1 << 24 };

static bool holds(const char *dir, const char *name)
{
    char path[MB_PATH_MAX];

    if (mb_path_join(path, sizeof path, dir, name) != MB_OK) {
        mb_status_clear();
        return false;
    }
    return mb_path_exists(path);
}

/* ORG/NAME, where ORG is no folder here. */
static bool is_hub_name(const char *path)
{
    const char *slash = strchr(path, '/');
    char first[256];

    if (slash == NULL || slash == path || slash[1] == '\0' || strchr(slash + 1, '/') != NULL ||
        path[0] == '.' || path[0] == '~' || mb_path_has_suffix(path, ".gguf"))
        return false;
    snprintf(first, sizeof first, "%.*s", (int)(slash - path), path);
    return strcmp(first, "models") != 0 && strcmp(first, "out") != 0 && !mb_path_exists(first);
}

static mb_status not_there(const char *where, const char *path)
{
    if (is_hub_name(path))
        return MB_RAISE(MB_EMODEL,
                        "%s: there is no folder %.300s; mbuyu does not download models yet: "
                        "`hf download %.300s --local-dir models/%.200s` does",
                        where, path, path, mb_path_base(path));
    if (strncmp(path, "models/", 7) == 0 && !mb_path_has_suffix(path, ".gguf"))
        return MB_RAISE(
            MB_EMODEL,
            "%s: there is no model folder or .gguf file %.300s; `hf download ORG/%.200s "
            "--local-dir %.300s` would put one there",
            where, path, mb_path_base(path), path);
    return MB_RAISE(MB_EMODEL, "%s: there is no model folder or .gguf file %.300s", where, path);
}

static mb_status check_folder(const char *where, const char *path)
{
    const bool run = holds(path, "recipe.resolved.yaml");

    if (holds(path, "config.json") || (!run && !holds(path, "adapter_config.json")))
        return MB_OK; /* what else is wrong is for those who read it */
    MB_REQUIRE(
        !run, MB_EMODEL, "%s: %.300s is the folder of a run; %s%.300s%s", where, path,
        holds(path, "final") ? "its model is " : "its training has not ended: `mbuyu export ", path,
        holds(path, "final") ? "/final" : "/checkpoint-... output_dir=DIR` writes a model");
    return MB_RAISE(MB_EMODEL,
                    "%s: %.300s is an adapter: give its base as model_name_or_path, and "
                    "adapter_path=%.300s",
                    where, path, path);
}

mb_status mb_recipe_check_model(const mb_recipe *r)
{
    const char *path = r->model_name_or_path;
    const char *where = mb_recipe_where(r, "model_name_or_path");

    if (!mb_path_exists(path))
        return not_there(where, path);
    MB_REQUIRE(mb_path_is_dir(path) || mb_path_has_suffix(path, ".gguf"), MB_EMODEL,
               "%s: %.300s is neither a model folder nor a .gguf file", where, path);
    if (mb_path_is_dir(path))
        MB_TRY(check_folder(where, path));
    MB_REQUIRE(r->adapter_path == NULL || mb_path_is_dir(r->adapter_path), MB_EMODEL,
               "%s: there is no adapter folder %.300s", mb_recipe_where(r, "adapter_path"),
               r->adapter_path);
    return MB_OK;
}

/* ---- adapters ----------------------------------------------------------------------------- */

static mb_status set_path(mb_recipe *r, const char *key, const char *path, const char *why)
{
    mb_text quoted = {0};
    char *text = NULL;
    mb_status st;

    mb_text_add_yaml(&quoted, path);
    MB_TRY(mb_text_take(&quoted, &text));
    st = mb_recipe_set(r, key, text, why);
    mb_free(text);
    return st;
}

static mb_status use_base(mb_recipe *r, const char *base)
{
    const char *adapter = r->model_name_or_path;
    char beside[MB_PATH_MAX];

    MB_TRY(mb_path_join(beside, sizeof beside, adapter, "../base"));
    if ((base == NULL || !mb_path_exists(base)) && holds(beside, "config.json"))
        base = beside;
    MB_REQUIRE(base != NULL && mb_path_exists(base), MB_EMODEL,
               "%s is an adapter of %s, which is not there: give the base model and "
               "adapter_path=%s",
               adapter, base != NULL ? base : "a model it does not name", adapter);
    MB_TRY(set_path(r, "adapter_path", adapter, "the model given"));
    return set_path(r, "model_name_or_path", base, "the adapter's base");
}

mb_status mb_recipe_follow_adapter(mb_recipe *r)
{
    char config[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    const char *base;
    mb_status st;

    if (r->model_name_or_path == NULL || r->adapter_path != NULL ||
        holds(r->model_name_or_path, "config.json") ||
        !holds(r->model_name_or_path, "adapter_config.json"))
        return MB_OK;
    MB_TRY(mb_path_join(config, sizeof config, r->model_name_or_path, "adapter_config.json"));
    MB_TRY(mb_json_read(config, MB_EMODEL, MOST_CONFIG_BYTES, &doc));
    st = mb_json_get_string(mb_json_root(doc), "base_model_name_or_path", NULL, &base);
    if (st == MB_OK)
        st = use_base(r, base);
    mb_json_free(doc);
    return st;
}
