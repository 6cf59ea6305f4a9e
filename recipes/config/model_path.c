/* recipes/config/model_path.c - see recipes/config/model_path.h. */
#include "recipes/config/model_path.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/config/dataset_files.h"
#include "recipes/config/hub_path.h"
#include "recipes/config/private.h"
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

static mb_status not_there(const char *where, const char *path)
{
    char command[512];

    if (mb_hub_is_meant(path))
        return MB_RAISE(
            MB_EMODEL,
            "%s: there is no folder %.300s, and the cache does not have that model: `%s` "
            "fetches it",
            where, path, mb_hub_pull_command(path, command, sizeof command));
    if (strncmp(path, "models/", 7) == 0 && !mb_path_has_suffix(path, ".gguf"))
        return MB_RAISE(MB_EMODEL,
                        "%s: there is no model folder or .gguf file %.300s; `mbuyu pull ORG/%.200s "
                        "--to %.300s` would put one there",
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

static mb_status check_adapter(const mb_recipe *r)
{
    const char *path = r->adapter_path;
    char command[512];

    if (path == NULL || mb_path_is_dir(path) ||
        (mb_path_has_suffix(path, ".gguf") && mb_path_is_file(path)))
        return MB_OK;
    MB_REQUIRE(!mb_hub_is_meant(path), MB_EMODEL,
               "%s: there is no adapter folder %.300s, nor does the cache have it: `%s` fetches it",
               mb_recipe_where(r, "adapter_path"), path,
               mb_hub_pull_command(path, command, sizeof command));
    return MB_RAISE(MB_EMODEL, "%s: there is no adapter folder %.300s",
                    mb_recipe_where(r, "adapter_path"), path);
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
    return check_adapter(r);
}

/* ---- names on a hub ----------------------------------------------------------------------- */

/* The only data file below a folder into `file`; *n counts them. */
static mb_status find_data(const char *dir, int depth, char *file, int *n)
{
    char **name = NULL, path[MB_PATH_MAX];
    size_t count = 0;
    mb_status st = MB_OK;

    MB_TRY(mb_path_list(dir, &name, &count));
    for (size_t i = 0; i < count && *n < 2; i++) {
        if (name[i][0] == '.' || strcmp(name[i], "dataset_infos.json") == 0)
            continue;
        MB_TRY_GOTO(mb_path_join(path, sizeof path, dir, name[i]), st, done);
        if (mb_path_is_dir(path) && depth < 4) {
            MB_TRY_GOTO(find_data(path, depth + 1, file, n), st, done);
        } else if (mb_dataset_is_file(name[i])) {
            ++*n;
            snprintf(file, MB_PATH_MAX, "%s", path);
        }
    }
done:
    mb_path_list_free(name, count);
    return st;
}

/* *field, in the recipe's memory, becomes where the cache has what it names. */
static mb_status follow(mb_recipe *r, const char **field, bool is_dataset)
{
    char path[MB_PATH_MAX], file[MB_PATH_MAX];
    int n = 0;

    if (*field == NULL || (is_dataset && strncmp(*field, "dataset:", 8) != 0))
        return MB_OK;
    MB_TRY(mb_hub_follow(*field, path, sizeof path));
    if (path[0] == '\0')
        return MB_OK;
    if (is_dataset && mb_path_is_dir(path)) {
        MB_TRY(find_data(path, 0, file, &n));
        /* several: the folder, which is right for pictures, sounds and shards */
        if (n == 1 && mb_dataset_shards(file) <= 1)
            snprintf(path, sizeof path, "%s", file);
    }
    return mb_arena_strdup(r->own->arena, path, field);
}

mb_status mb_recipe_follow_hub(mb_recipe *r)
{
    mb_datasets *const sets[] = {&r->datasets, &r->eval_datasets};

    MB_TRY(follow(r, &r->model_name_or_path, false));
    MB_TRY(follow(r, &r->adapter_path, false));
    for (int i = 0; i < 2; i++)
        for (int64_t k = 0; k < sets[i]->n; k++)
            MB_TRY(follow(r, &sets[i]->at[k].path, true));
    return MB_OK;
}

/* ---- folders of data files ------------------------------------------------------------------ */

/* What a block becomes: one for each of n files, or for n 0 itself. */
struct split_files {
    const char **file;
    int64_t n;
};

static mb_status find_files(const mb_recipe *r, const mb_dataset_spec *d, struct split_files *out)
{
    char metadata[MB_PATH_MAX];

    if (d->type == MB_ROWS_AUDIOFOLDER || !mb_path_is_dir(d->path) ||
        mb_dataset_metadata(d->path, metadata, sizeof metadata))
        return MB_OK;
    MB_TRY(mb_dataset_files(r->own->arena, d->path, d->split, &out->file, &out->n));
    MB_REQUIRE(
        out->n < 2 || strchr(d->split, '[') == NULL, MB_EDATA,
        "%s: the split %s is of %lld files of %s; a part can be taken of each, named in a block "
        "of its own",
        d->where, d->split, (long long)out->n, d->path);
    return MB_OK;
}

static mb_status expand_into(const mb_recipe *r, mb_datasets *sets, struct split_files *files)
{
    mb_datasets all = {0};
    int64_t n = 0;
    void *p;

    for (int64_t i = 0; i < sets->n; i++) {
        MB_TRY(find_files(r, &sets->at[i], &files[i]));
        n += files[i].n > 0 ? files[i].n : 1;
    }
    MB_TRY(mb_arena_take(r->own->arena, (size_t)n * sizeof *all.at, &p));
    all.at = p;
    for (int64_t i = 0; i < sets->n; i++) {
        for (int64_t k = 0; k < files[i].n || k < 1; k++) {
            all.at[all.n] = sets->at[i];
            if (files[i].n > 0)
                all.at[all.n].path = files[i].file[k];
            all.n++;
        }
    }
    *sets = all;
    return MB_OK;
}

static mb_status expand(const mb_recipe *r, mb_datasets *sets)
{
    struct split_files *files = NULL;
    int64_t folders = 0;
    mb_status st;

    for (int64_t i = 0; i < sets->n; i++)
        folders += mb_path_is_dir(sets->at[i].path);
    if (folders == 0)
        return MB_OK;
    MB_TRY(MB_NEW_ARRAY(&files, sets->n));
    st = expand_into(r, sets, files);
    mb_free(files);
    return st;
}

mb_status mb_recipe_expand_folders(mb_recipe *r)
{
    if (r->task == MB_TASK_IMAGE_CLASSIFICATION || r->task == MB_TASK_SPEECH_RECOGNITION)
        return MB_OK; /* their folders hold pictures and sounds */
    MB_TRY(expand(r, &r->datasets));
    return expand(r, &r->eval_datasets);
}

mb_status mb_recipe_check_data(const mb_dataset_spec *d)
{
    char command[512];

    if (d->path == NULL || strncmp(d->path, "dataset:", 8) != 0 || mb_path_exists(d->path))
        return MB_OK;
    return MB_RAISE(MB_EDATA, "%s: the cache does not have %.300s: `%s` fetches it", d->where,
                    d->path, mb_hub_pull_command(d->path, command, sizeof command));
}

/* ---- adapters ----------------------------------------------------------------------------- */

mb_status mb_recipe_set_path(mb_recipe *r, const char *key, const char *path, const char *why)
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

/* The base as the adapter names it: a folder, or a model of a hub that the cache has, at the commit
 * it was trained on when that is there. */
static mb_status find_base(const char **base, const char *revision, char *found)
{
    char exact[MB_HUB_ID_MAX + MB_HUB_REVISION_MAX + 2];

    found[0] = '\0';
    if (*base == NULL || mb_path_exists(*base))
        return MB_OK;
    snprintf(exact, sizeof exact, "%.200s@%.250s", *base, revision);
    if (revision[0] != '\0')
        MB_TRY(mb_hub_follow(exact, found, MB_PATH_MAX));
    if (found[0] == '\0')
        MB_TRY(mb_hub_follow(*base, found, MB_PATH_MAX));
    if (found[0] != '\0')
        *base = found;
    return MB_OK;
}

static mb_status use_base(mb_recipe *r, const char *base, const char *revision)
{
    const char *adapter = r->model_name_or_path;
    char beside[MB_PATH_MAX], found[MB_PATH_MAX], command[600] = "";

    MB_TRY(find_base(&base, revision, found));
    if (base != NULL && mb_hub_is_meant(base)) {
        char pull[512];

        snprintf(command, sizeof command, " (`%s` fetches it)",
                 mb_hub_pull_command(base, pull, sizeof pull));
    }

    MB_TRY(mb_path_join(beside, sizeof beside, adapter, "../base"));
    if ((base == NULL || !mb_path_exists(base)) && holds(beside, "config.json"))
        base = beside;
    MB_REQUIRE(base != NULL && mb_path_exists(base), MB_EMODEL,
               "%s is an adapter of %s, which is not there%s: give the base model and "
               "adapter_path=%s",
               adapter, base != NULL ? base : "a model it does not name", command, adapter);
    MB_TRY(mb_recipe_set_path(r, "adapter_path", adapter, "the model given"));
    return mb_recipe_set_path(r, "model_name_or_path", base, "the adapter's base");
}

mb_status mb_recipe_follow_adapter(mb_recipe *r)
{
    char config[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    const char *base, *revision = "";
    mb_status st;

    if (r->model_name_or_path == NULL || r->adapter_path != NULL ||
        holds(r->model_name_or_path, "config.json") ||
        !holds(r->model_name_or_path, "adapter_config.json"))
        return MB_OK;
    MB_TRY(mb_path_join(config, sizeof config, r->model_name_or_path, "adapter_config.json"));
    MB_TRY(mb_json_read(config, MB_EMODEL, MOST_CONFIG_BYTES, &doc));
    st = mb_json_get_string(mb_json_root(doc), "base_model_name_or_path", NULL, &base);
    if (st == MB_OK)
        st = mb_json_get_string(mb_json_root(doc), "revision", "", &revision);
    if (st == MB_OK)
        st = use_base(r, base, revision);
    mb_json_free(doc);
    return st;
}
