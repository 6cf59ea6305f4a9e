/* recipes/config/recipe.h - a recipe: what a run shall do, as typed fields.
 *
 *     mb_recipe *r = NULL;
 *     MB_TRY_GOTO(mb_recipe_load(argc, argv, &r), st, done);    // argv[0] is the verb
 *     MB_TRY_GOTO(mb_recipe_require(r, "train", "model_name_or_path", "datasets", NULL), st, done);
 *     ... r->learning_rate, r->task == MB_TASK_CAUSAL_LM, r->datasets.at[0].path ...
 * done:
 *     mb_recipe_free(r);
 *
 * The command line wins over the file, the file over the defaults of recipe.def, where every key
 * is one line. Keys of other trainers are accepted under their names (aliases.def). After loading,
 * everything has the right type and range, and keys fit together (mb_recipe_check ran).
 * Failures are MB_EARG with a sentence that begins with the place: "my.yaml:3:1: ...".
 *
 * All texts and lists belong to the recipe and live until mb_recipe_free. Not collective: each rank
 * reads the recipe by itself; mb_recipe_digest lets ranks compare.
 */
#ifndef MB_RECIPES_CONFIG_RECIPE_H
#define MB_RECIPES_CONFIG_RECIPE_H

#include <stdint.h>
#include <stdio.h>

#include "core/status.h"
#include "optim/schedule.h"

typedef enum mb_tri { MB_AUTO = -1, MB_NO = 0, MB_YES = 1 } mb_tri;

/* All words of all CHOICE keys: MB_TASK_CAUSAL_LM, MB_STAGE_SFT, ... Each value is used once. */
typedef enum mb_choice {
    MB_CHOICE_NONE,
#define MB_CHOICE(key, id, word) MB_##id,
#include "recipes/config/choices.def"
    MB_CHOICE_COUNT
} mb_choice;

typedef struct mb_strings {
    const char **at;
    int64_t n;
    bool is_list; /* written as a list; false: as one text (for LoRA targets: a regex) */
} mb_strings;

typedef struct mb_pairs {
    const char **name, **value;
    int64_t n;
} mb_pairs;

#define MB_FIELD_BOOL     bool
#define MB_FIELD_TRI      mb_tri
#define MB_FIELD_INT      int64_t
#define MB_FIELD_NUM      double
#define MB_FIELD_STEPS    double
#define MB_FIELD_TIME     double
#define MB_FIELD_SIZE     int64_t
#define MB_FIELD_STR      const char *
#define MB_FIELD_CHOICE   mb_choice
#define MB_FIELD_WORD     const char *
#define MB_FIELD_LIST     mb_strings
#define MB_FIELD_MAP      mb_pairs
#define MB_FIELD_DATASETS mb_datasets

/* One block of `datasets`: dataset.def says what the fields are. */
typedef struct mb_dataset_spec {
#define MB_DATASET_KEY(type, name, deflt, check, help) MB_FIELD_##type name;
#include "recipes/config/dataset.def"
    const char *where; /* "my.yaml:12:5", for messages */
} mb_dataset_spec;

typedef struct mb_datasets {
    mb_dataset_spec *at;
    int64_t n;
} mb_datasets;

struct mb_recipe_own; /* where each key was set, and the memory behind it */

/* Every key of recipe.def under its name; keys inside lr_scheduler_kwargs as lr_<name>. */
typedef struct mb_recipe {
#define MB_KEY_AT(type, field, path, ...) MB_FIELD_##type field;
#include "recipes/config/recipe.def"
    struct mb_recipe_own *own;
} mb_recipe;

/* Reads what follows a verb: a recipe file (optional), `key=value`, `a.b=value`, `~key`,
 * `--kebab-key value`, `--kebab-key=value`, `--config file`. argv[0] (the verb) is skipped. A model
 * directory or .gguf file in the place of the recipe file sets model_name_or_path. */
mb_status mb_recipe_load(int argc, char **argv, mb_recipe **out) MB_MUST_USE;
/* The same from a text in memory; `name` stands for the file in messages; argv may be NULL. */
mb_status mb_recipe_load_text(const char *name, const char *text, size_t bytes, int argc,
                              char **argv, mb_recipe **out) MB_MUST_USE;
void mb_recipe_free(mb_recipe *r); /* NULL is allowed */

/* Do the keys fit together? Called by the loading functions; call it again after mb_recipe_set. */
mb_status mb_recipe_check(const mb_recipe *r) MB_MUST_USE;
/* What matters only to a run that is about to start. */
mb_status mb_recipe_check_start(const mb_recipe *r) MB_MUST_USE;
/* The named keys (a list ended by NULL) must have been given; `verb` is for the message. */
mb_status mb_recipe_require(const mb_recipe *r, const char *verb, ...) MB_MUST_USE;

/* Sets one key, as if the recipe had said so; `why` is its origin in mb_recipe_where. */
mb_status mb_recipe_set(mb_recipe *r, const char *key, const char *value,
                        const char *why) MB_MUST_USE;
/* Was the key given (file, command line, mb_recipe_set)? */
bool mb_recipe_is_set(const mb_recipe *r, const char *key);
/* "my.yaml:3:1", "command line: lora_r=8", "default"; borrowed from the recipe. */
const char *mb_recipe_where(const mb_recipe *r, const char *key);

/* May somebody who must not see this machine's files set `name` to `value`, both as on a command
 * line? MB_EARG: the key, under whatever alias and with whatever place inside it, names files or
 * folders, or the value refers to a key or to the environment. Of a key that takes a path or a text
 * *text is what the value says, owned by the caller, who refuses what is no text; else NULL. */
mb_status mb_recipe_check_stranger(const char *name, const char *value, char **text) MB_MUST_USE;

/* A size as recipes have it, "8GiB" or "500 MB"; false when it is none. */
bool mb_recipe_size(const char *text, int64_t *bytes);

/* The resolved recipe as YAML under canonical names; all: also the keys that were not given.
 * The caller owns *text. Reading it again gives the same recipe. */
mb_status mb_recipe_text(const mb_recipe *r, bool all, char **text) MB_MUST_USE;
mb_status mb_recipe_print(const mb_recipe *r, bool all, FILE *out) MB_MUST_USE;
/* One line per given key: name, place, value. */
mb_status mb_recipe_print_where(const mb_recipe *r, FILE *out) MB_MUST_USE;
/* sha256 of the text with all keys, as 64 hex digits. */
mb_status mb_recipe_digest(const mb_recipe *r, char hex[65]) MB_MUST_USE;

/* May a run that was started with the recipe in `old_text` (called old_name in messages) go on
 * with `now`? MB_EARG lists every key that must not change with both values. ADOPT keys that
 * `now` does not give are taken from the old one. *changes (owned by the caller, NULL when there
 * are none) is a text with one line per key that changed and may. */
mb_status mb_recipe_compare_for_resume(const char *old_name, const char *old_text, mb_recipe *now,
                                       char **changes) MB_MUST_USE;

/* A *_steps value as a number of steps: below 1 it is a fraction of all (rounded up), 0 stays 0. */
int64_t mb_recipe_steps(double steps, int64_t total);
/* The schedule of a run of `total` steps, its arguments checked. */
mb_status mb_recipe_schedule(const mb_recipe *r, int64_t total, const mb_schedule_kind **kind,
                             mb_schedule_args *args) MB_MUST_USE;
bool mb_strings_have(const mb_strings *list, const char *word);
/* The word of a choice, "" for MB_CHOICE_NONE. */
const char *mb_choice_word(mb_choice c);

#endif
