/* recipes/config/schema.h - the tables made of recipe.def, dataset.def, choices.def, aliases.def.
 *
 * Internal to recipes/config/; others use recipes/config/recipe.h.
 */
#ifndef MB_RECIPES_CONFIG_SCHEMA_H
#define MB_RECIPES_CONFIG_SCHEMA_H

#include "recipes/config/recipe.h"

typedef enum mb_key_type {
    MB_TYPE_BOOL,
    MB_TYPE_TRI,
    MB_TYPE_INT,
    MB_TYPE_NUM,
    MB_TYPE_STEPS,
    MB_TYPE_TIME,
    MB_TYPE_SIZE,
    MB_TYPE_STR,
    MB_TYPE_CHOICE,
    MB_TYPE_WORD,
    MB_TYPE_LIST,
    MB_TYPE_MAP,
    MB_TYPE_DATASETS,
} mb_key_type;

typedef enum mb_section {
#define MB_KEY_AT(...)
#define MB_SECTION(name, title) MB_SECTION_##name,
#include "recipes/config/recipe.def"
    MB_SECTION_COUNT
} mb_section;

typedef enum mb_resume {
    MB_RESUME_MATCH,
    MB_RESUME_ADOPT,
    MB_RESUME_MAY,
    MB_RESUME_IGNORE
} mb_resume;

typedef struct mb_key {
    const char *name; /* with the block in front: "lr_scheduler_kwargs.min_lr" */
    mb_key_type type;
    size_t offset; /* of the field in mb_recipe or mb_dataset_spec */
    const char *deflt, *check, *help;
    mb_section section;
    mb_resume resume;
} mb_key;

enum {
    MB_N_KEYS = 0
#define MB_KEY_AT(...) +1
#include "recipes/config/recipe.def"
    ,
    MB_N_DATASET_KEYS = 0
#define MB_DATASET_KEY(...) +1
#include "recipes/config/dataset.def"
};

extern const mb_key mb_recipe_keys[MB_N_KEYS];
extern const mb_key mb_dataset_keys[MB_N_DATASET_KEYS];
extern const char *const mb_section_title[MB_SECTION_COUNT];

/* What a name on the left of a colon means. */
typedef enum mb_name_kind {
    MB_NAME_UNKNOWN,
    MB_NAME_KEY,       /* ours, or an alias of ours: `key`, `values` */
    MB_NAME_AMBIGUOUS, /* `note`: the candidates */
    MB_NAME_LATER,     /* `note`: what to do instead */
    MB_NAME_IGNORED,   /* `note`: why */
} mb_name_kind;

typedef struct mb_name {
    mb_name_kind kind;
    const mb_key *key;
    const char *values; /* rewriting rules, "" for none */
    const char *note;
} mb_name;

mb_name mb_name_find(const char *name);
/* The longest known beginning of a path such as "train_file.0.path", of *n bytes; unknown: *n is 0. */
mb_name mb_name_find_beginning(const char *path, size_t *n);
mb_name mb_dataset_name_find(const char *name);
/* Is it a block ("lr_scheduler_kwargs"), with keys or aliases inside? */
bool mb_name_is_block(const char *name);
/* The most similar known name, or NULL when none is similar. */
const char *mb_name_nearest(const char *name);
const char *mb_dataset_name_nearest(const char *name);
/* The most similar of n words got from word(i); NULL when none is similar. */
const char *mb_nearest(const char *name, int n, const char *(*word)(int i));

/* The new value that rules like "true=all false=-" give to `text`, NULL when none fits. Copied to
 * buf. */
const char *mb_values_rewrite(const char *rules, const char *text, char *buf, size_t size);

/* Words of CHOICE keys. */
typedef struct mb_choice_row {
    const char *key, *word;
    mb_choice value; /* MB_CHOICE_NONE: comes later */
    bool also;       /* another spelling */
} mb_choice_row;

extern const mb_choice_row mb_choice_rows[];
extern const int mb_n_choice_rows;

/* "full, lora or freeze": what a key accepts, for messages and help. */
void mb_key_expected(const mb_key *k, char *buf, size_t size);
const char *mb_key_type_name(mb_key_type t);
/* Does a value of it name files or folders; may it be the text instead? */
bool mb_key_is_path(const mb_key *k);
bool mb_key_is_path_or_text(const mb_key *k);
/* Are the values of it, or of its list, words of a table? */
bool mb_key_has_words(const mb_key *k);

#endif
