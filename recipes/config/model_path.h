/* recipes/config/model_path.h - is there a model where the recipe says so, and what is meant when
 * there is none?
 *
 * Every verb asks here, so that a wrong path has one sentence: a name on the Hugging Face hub, the
 * folder of a run, and an adapter without its base each get what to write instead.
 */
#ifndef MB_RECIPES_CONFIG_MODEL_PATH_H
#define MB_RECIPES_CONFIG_MODEL_PATH_H

#include "recipes/config/recipe.h"

/* model_name_or_path is a folder or a .gguf file, adapter_path (where given) a folder; else
 * MB_EMODEL. Weights and configuration are not read. */
mb_status mb_recipe_check_model(const mb_recipe *r) MB_MUST_USE;

/* Names on a hub (recipes/config/hub_path.h) in model_name_or_path, adapter_path and paths of datasets
 * become where the cache has them; those it does not have stay, for mb_recipe_check_model and readers
 * of data to say so. Called when a recipe is loaded. */
mb_status mb_recipe_follow_hub(mb_recipe *r) MB_MUST_USE;

/* A block of datasets whose path is a folder of data files becomes one for each file of its split
 * (recipes/config/dataset_files.h, where the errors are); not where the task or the block's type has folders
 * of pictures or sounds. For verbs that read rows, once the task is known and every rank's cache has
 * them. */
mb_status mb_recipe_expand_folders(mb_recipe *r) MB_MUST_USE;

/* MB_EDATA when a block's path is "dataset:ORG/NAME" still: the command that fetches it. */
mb_status mb_recipe_check_data(const mb_dataset_spec *d) MB_MUST_USE;

/* mb_recipe_set of a key whose value is a path, whatever is in its name. */
mb_status mb_recipe_set_path(mb_recipe *r, const char *key, const char *path,
                             const char *why) MB_MUST_USE;

/* For verbs that use a model: a model_name_or_path that is a PEFT adapter's folder becomes the
 * adapter_path, and the base it names (or ../base, when that has moved with it) the model. */
mb_status mb_recipe_follow_adapter(mb_recipe *r) MB_MUST_USE;

#endif
