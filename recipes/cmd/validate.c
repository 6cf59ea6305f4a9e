/* recipes/cmd/validate.c - `mbuyu validate`: would `mbuyu train` accept this recipe, as far as can be
 * seen without reading a model or a row? */
#include "core/path.h"
#include "recipes/commands.h"
#include "recipes/config/model_path.h"
#include "recipes/tasks/task.h"

/* Pictures and sounds come in folders. */
static bool takes_folders(const mb_recipe *r)
{
    return r->task == MB_TASK_IMAGE_CLASSIFICATION || r->task == MB_TASK_SPEECH_RECOGNITION;
}

static mb_status check_datasets(const mb_recipe *r, const mb_datasets *sets)
{
    for (int64_t i = 0; i < sets->n; i++) {
        const mb_dataset_spec *d = &sets->at[i];

        MB_TRY(mb_recipe_check_data(d));
        MB_REQUIRE(mb_path_exists(d->path), MB_EDATA, "%s: there is no file %.300s", d->where,
                   d->path);
        MB_REQUIRE(mb_path_is_file(d->path) || (takes_folders(r) && mb_path_is_dir(d->path)),
                   MB_EDATA, "%s: %.300s is not a file", d->where, d->path);
    }
    return MB_OK;
}

static mb_status validate(mb_recipe *r)
{
    MB_TRY(mb_recipe_require(r, "train", "model_name_or_path", "datasets", "output_dir", NULL));
    MB_TRY(mb_recipe_check_model(r));
    MB_TRY(mb_task_adopt(r));
    MB_TRY(mb_recipe_expand_folders(r));
    MB_TRY(mb_recipe_check_start(r));
    MB_TRY(check_datasets(r, &r->datasets));
    return check_datasets(r, &r->eval_datasets);
}

mb_status mb_cmd_validate(int argc, char **argv)
{
    mb_recipe *r = NULL;
    mb_status st;

    MB_TRY(mb_recipe_load(argc, argv, &r));
    st = validate(r);
    if (st == MB_OK)
        printf("the recipe is in order: %s of %s on %lld file(s), results in %s\n",
               mb_choice_word(r->finetuning_type), r->model_name_or_path, (long long)r->datasets.n,
               r->output_dir);
    mb_recipe_free(r);
    return st;
}
