/* recipes/config/recipe.c - loading a recipe; see recipes/config/recipe.h. */
#include "recipes/config/recipe.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/config/model_path.h"
#include "recipes/config/private.h"
#include "recipes/config/settings.h"
#include "recipes/config/value.h"

/* Address space, touched as it is used: 100,000 nodes with their texts and lists fit. */
enum { ARENA_BYTES = 128 << 20 };

static mb_status new_recipe(mb_recipe **out)
{
    mb_recipe *r = NULL;
    mb_status st;

    MB_TRY_GOTO(MB_NEW(&r), st, fail);
    MB_TRY_GOTO(MB_NEW(&r->own), st, fail);
    MB_TRY_GOTO(mb_arena_new("the recipe", ARENA_BYTES, &r->own->arena), st, fail);
    for (int k = 0; k < MB_N_KEYS; k++)
        MB_TRY_GOTO(mb_value_default(r->own->arena, &mb_recipe_keys[k], r), st, fail);
    *out = r;
    return MB_OK;
fail:
    mb_recipe_free(r);
    return st;
}

void mb_recipe_free(mb_recipe *r)
{
    if (r == NULL)
        return;
    if (r->own != NULL)
        mb_arena_free(r->own->arena);
    mb_free(r->own);
    mb_free(r);
}

static mb_status copy(mb_arena *a, const char *text, size_t n, const char **out)
{
    void *p;

    MB_TRY(mb_arena_take(a, n + 1, &p));
    memcpy(p, text, n);
    ((char *)p)[n] = '\0';
    *out = p;
    return MB_OK;
}

/* Gives the key a value, unless it is null, and notes where it came from. */
static mb_status take_setting(mb_recipe *r, int k, const char *as, const mb_yaml *y)
{
    struct mb_recipe_origin *origin = &r->own->key[k];
    char place[256];

    if (mb_yaml_is_null(y))
        return MB_OK;
    MB_TRY(mb_value_read(r->own->arena, &mb_recipe_keys[k], as, y, r));
    mb_yaml_place(y, place, sizeof place);
    MB_TRY(copy(r->own->arena, place, strlen(place) - 2, &origin->where)); /* without ": " */
    origin->given = true;
    return MB_OK;
}

/* Defaults that are other keys' values. */
static void derive(mb_recipe *r)
{
    static const char *both[] = {"jsonl", "tensorboard"};

    if (!mb_recipe_is_set(r, "data_seed"))
        r->data_seed = r->seed;
    if (r->eval_steps == 0.0)
        r->eval_steps = r->logging_steps;
    if (mb_strings_have(&r->report_to, "all"))
        r->report_to = (mb_strings){both, 2, true};
    if (mb_strings_have(&r->report_to, "none"))
        r->report_to = (mb_strings){both, 0, true};
}

static bool has_suffix_of(const char *path, const char *const *suffixes)
{
    for (; *suffixes != NULL; suffixes++)
        if (mb_path_has_suffix(path, *suffixes))
            return true;
    return false;
}

/* The free word of a command line that is no recipe: what may have been meant. */
static mb_status explain(const char *verb, const char *word)
{
    static const char *const recipes[] = {".yaml", ".yml", NULL};
    const bool asks = strcmp(verb, "generate") == 0;

    MB_REQUIRE(!has_suffix_of(word, recipes), MB_EARG,
               "there is no recipe file %.200s; keys are written key=value", word);
    return MB_RAISE(MB_EARG, "there is no recipe, model folder or .gguf file %.200s; %s%.200s%s",
                    word,
                    asks ? "a text to continue is written prompt=\"" : "keys are written key=value",
                    asks ? word : "", asks ? "\"" : "");
}

static mb_status read_file(mb_arena *a, const char *verb, const char *path, mb_yaml **root)
{
    static const char *const data[] = {".jsonl", ".json", ".csv", ".tsv", ".txt", NULL};

    MB_REQUIRE(!has_suffix_of(path, data), MB_EARG,
               "%.200s looks like data, not like a recipe: use datasets=[%.200s]", path, path);
    if (!mb_path_exists(path))
        return explain(verb, path);
    return mb_yaml_read(a, path, root);
}

static mb_status load(const char *name, const char *text, size_t bytes, int argc, char **argv,
                      bool check, mb_recipe **out)
{
    mb_settings s = {.arena = NULL};
    mb_args args = {.n = 0};
    mb_yaml *root = NULL;
    mb_recipe *r = NULL;
    mb_status st;

    MB_TRY(new_recipe(&r));
    s.arena = r->own->arena;
    MB_TRY_GOTO(mb_args_read(s.arena, argc, argv, &args), st, done);
    if (text != NULL)
        MB_TRY_GOTO(mb_yaml_parse(s.arena, name, text, bytes, &root), st, done);
    else if (args.recipe != NULL)
        MB_TRY_GOTO(read_file(s.arena, argv[0], args.recipe, &root), st, done);
    MB_TRY_GOTO(mb_settings_add_file(&s, root), st, done);
    MB_TRY_GOTO(mb_settings_add_args(&s, &args), st, done);
    MB_TRY_GOTO(mb_settings_resolve(&s), st, done);
    for (int k = 0; k < MB_N_KEYS; k++)
        if (s.at[k].node != NULL)
            MB_TRY_GOTO(take_setting(r, k, s.at[k].as, s.at[k].node), st, done);
    derive(r);
    MB_TRY_GOTO(mb_recipe_follow_hub(r), st, done);
    if (check)
        MB_TRY_GOTO(mb_recipe_check(r), st, done);
    *out = r;
    return MB_OK;
done:
    mb_recipe_free(r);
    return st;
}

mb_status mb_recipe_load(int argc, char **argv, mb_recipe **out)
{
    return load(NULL, NULL, 0, argc, argv, true, out);
}

mb_status mb_recipe_load_text(const char *name, const char *text, size_t bytes, int argc,
                              char **argv, mb_recipe **out)
{
    return load(name, text, bytes, argv != NULL ? argc : 0, argv, true, out);
}

mb_status mb_recipe_load_stored(const char *name, const char *text, mb_recipe **out)
{
    return load(name, text, strlen(text), 0, NULL, false, out);
}

static int find(const char *key)
{
    const mb_name name = mb_name_find(key);

    if (name.kind != MB_NAME_KEY)
        MB_BUG("'%s' is not a key of recipe.def", key);
    return (int)(name.key - mb_recipe_keys);
}

mb_status mb_recipe_set(mb_recipe *r, const char *key, const char *value, const char *why)
{
    const int k = find(key);
    const char *source = NULL;
    mb_yaml *y;

    MB_TRY(copy(r->own->arena, why, strlen(why), &source));
    MB_TRY(mb_yaml_parse_value(r->own->arena, source, value, &y));
    MB_TRY(take_setting(r, k, key, y));
    derive(r);
    return mb_recipe_follow_hub(r);
}

bool mb_recipe_is_set(const mb_recipe *r, const char *key)
{
    return r->own->key[find(key)].given;
}

const char *mb_recipe_where(const mb_recipe *r, const char *key)
{
    const struct mb_recipe_origin *origin = &r->own->key[find(key)];

    return origin->given ? origin->where : "default";
}

mb_status mb_recipe_require(const mb_recipe *r, const char *verb, ...)
{
    const char *key;
    mb_status st = MB_OK;
    va_list ap;

    va_start(ap, verb);
    while (st == MB_OK && (key = va_arg(ap, const char *)) != NULL)
        if (!mb_recipe_is_set(r, key))
            st = MB_RAISE(MB_EARG,
                          "mbuyu %s needs %s (%.*s); write '%s: ...' in the recipe or %s=... "
                          "on the command line",
                          verb, key, (int)strcspn(mb_recipe_keys[find(key)].help, ";"),
                          mb_recipe_keys[find(key)].help, key, key);
    va_end(ap);
    return st;
}

int64_t mb_recipe_steps(double steps, int64_t total)
{
    return steps < 1.0 ? (int64_t)ceil(steps * (double)total) : (int64_t)steps;
}

mb_status mb_recipe_schedule(const mb_recipe *r, int64_t total, const mb_schedule_kind **kind,
                             mb_schedule_args *args)
{
    static const mb_curve curves[] = {
        [MB_LR_WARMUP_LINEAR] = MB_CURVE_LINEAR,       [MB_LR_WARMUP_COSINE] = MB_CURVE_COSINE,
        [MB_LR_WARMUP_SQRT] = MB_CURVE_ONE_MINUS_SQRT, [MB_LR_DECAY_LINEAR] = MB_CURVE_LINEAR,
        [MB_LR_DECAY_COSINE] = MB_CURVE_COSINE,        [MB_LR_DECAY_SQRT] = MB_CURVE_ONE_MINUS_SQRT,
    };
    mb_schedule_args a = mb_schedule_defaults();
    const mb_schedule_kind *k = mb_schedule_find(r->lr_scheduler_type);

    MB_REQUIRE(k != NULL, MB_EBUG, "no schedule is called %s", r->lr_scheduler_type);
    a.base_lr = r->learning_rate;
    a.total = total;
    a.warmup = mb_schedule_warmup(r->warmup_steps, r->warmup_ratio, total);
    a.warmup_curve = curves[r->lr_warmup_type];
    a.decay_curve = curves[r->lr_decay_type];
    a.lr_end = r->lr_end;
    a.power = r->lr_power;
    if (mb_recipe_is_set(r, "lr_scheduler_kwargs.min_lr"))
        a.min_lr = r->lr_min;
    if (mb_recipe_is_set(r, "lr_scheduler_kwargs.min_lr_ratio"))
        a.min_lr_ratio = r->lr_min_ratio;
    if (mb_recipe_is_set(r, "lr_scheduler_kwargs.warmup_lr_rate"))
        a.warmup_lr_ratio = r->lr_warmup_ratio;
    if (mb_recipe_is_set(r, "lr_scheduler_kwargs.num_cycles"))
        a.num_cycles = r->lr_num_cycles;
    if (mb_recipe_is_set(r, "lr_scheduler_kwargs.timescale"))
        a.timescale = r->lr_timescale;
    if (mb_recipe_is_set(r, "lr_scheduler_kwargs.num_stable_steps"))
        a.stable = mb_recipe_steps(r->lr_num_stable_steps, total);
    if (mb_recipe_is_set(r, "lr_scheduler_kwargs.num_decay_steps"))
        a.decay = mb_recipe_steps(r->lr_num_decay_steps, total);
    MB_TRY(mb_schedule_check(k, &a));
    *kind = k;
    *args = a;
    return MB_OK;
}

bool mb_strings_have(const mb_strings *list, const char *word)
{
    for (int64_t i = 0; i < list->n; i++)
        if (strcmp(list->at[i], word) == 0)
            return true;
    return false;
}
