/* recipes/serve/words.c - what a client asks for as the words of `mbuyu train`, `plan` or `inspect`.
 *
 * The recipe is one of the ready ones, or none: then the keys in `usual` stand for it. After it come the
 * model, the data, OpenAI's hyperparameters, and the client's settings, which are keys of recipes but
 * those that name files (config/strangers.c).
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/config/recipe.h"
#include "recipes/data/template.h"
#include "recipes/serve/jobs_inside.h"
#include "recipes/serve/page_files.h"

enum { SETTINGS_MAX = 64, VALUE_MAX = 2000 };

/* A fine-tune of a language model without a recipe: LoRA on every linear layer. */
static const char *const usual[] = {
    "finetuning_type=lora", "per_device_train_batch_size=4", "gradient_accumulation_steps=1",
    "num_train_epochs=3",   "learning_rate=2.0e-4",          "lr_scheduler_type=cosine",
    "warmup_ratio=0.03"};
static const double usual_rate = 2.0e-4;

static mb_status add(mb_json words, const char *fmt, ...) MB_PRINTF(2, 3);
static mb_status add(mb_json words, const char *fmt, ...)
{
    char text[MB_PATH_MAX * 2];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    MB_REQUIRE(n >= 0 && (size_t)n < sizeof text, MB_EARG, "a setting is too long");
    return mb_json_set_string(words, NULL, text);
}

static mb_status add_list(mb_json words, const char *key, mb_json list)
{
    char *text, *word = NULL;
    mb_status st;

    MB_TRY(mb_json_text(list, 0, &text, NULL));
    st = mb_asprintf(&word, "%s=%s", key, text);
    if (st == MB_OK)
        st = mb_json_set_string(words, NULL, word);
    mb_free(text);
    mb_free(word);
    return st;
}

/* key=path or key=["path"]: JSON strings are YAML's, too. */
static mb_status add_path(mb_json words, const char *key, const char *path, bool list)
{
    mb_json_doc *doc;
    mb_status st;

    MB_REQUIRE(strstr(path, "${") == NULL, MB_EARG, "%.200s: a path with ${ cannot be used", path);
    if (!list)
        return add(words, "%s=%s", key, path);
    MB_TRY(mb_json_doc_new_array("path", &doc));
    st = mb_json_set_string(mb_json_root(doc), NULL, path);
    if (st == MB_OK)
        st = add_list(words, key, mb_json_root(doc));
    mb_json_free(doc);
    return st;
}

/* What rows name is read from where a client may name things itself (mb_jobs_inside). */
static mb_status add_allowed(const mb_jobs *j, mb_json words)
{
    char *const *const given[] = {j->runs, j->folders};
    mb_json_doc *doc;
    mb_status st = MB_OK;

    MB_TRY(mb_json_doc_new_array("folders", &doc));
    for (int i = 0; i < 2; i++)
        for (char *const *folder = given[i]; *folder != NULL && st == MB_OK; folder++)
            st = mb_json_set_string(mb_json_root(doc), NULL, *folder);
    if (st == MB_OK)
        st = add_list(words, "allowed_local_media_path", mb_json_root(doc));
    mb_json_free(doc);
    return st;
}

/* ---- the recipe --------------------------------------------------------------------------- */

static const char *recipe_text(const char *name)
{
    char file[80];

    if (snprintf(file, sizeof file, "%s.yaml", name) >= (int)sizeof file)
        return NULL;
    for (const mb_page_file *f = mb_page_files; f->name != NULL; f++)
        if (strcmp(f->name, file) == 0)
            return f->plain;
    return NULL;
}

/* The text behind "key:" at the beginning of a line; NULL: there is none. */
static const char *key_in(const char *text, const char *key)
{
    const size_t n = strlen(key);

    for (const char *p = text; p != NULL; p = strchr(p, '\n')) {
        p += *p == '\n';
        if (strncmp(p, key, n) == 0 && p[n] == ':')
            return p + n + 1;
    }
    return NULL;
}

/* Positions of the model, for which rows are cut where no recipe says otherwise. */
static int64_t positions_of(const char *model)
{
    static const char *const keys[] = {"max_position_embeddings", "n_positions", "n_ctx"};
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    int64_t n = 0;

    if (mb_path_join(path, sizeof path, model, "config.json") == MB_OK && mb_path_is_file(path) &&
        mb_json_read(path, MB_EMODEL, MB_JOBS_JSON, &doc) == MB_OK)
        for (int i = 0; i < 3 && n == 0; i++)
            if (mb_json_get_int(mb_json_root(doc), keys[i], 0, &n) != MB_OK)
                n = 0;
    mb_json_free(doc);
    mb_status_clear();
    return n > 0 && n < 1024 ? n : 1024;
}

static mb_status begin(mb_json request, const char *model, const char *recipe_path, mb_json words,
                       double *rate)
{
    const char *name = mb_jobs_text(request, "recipe"), *text;

    *rate = usual_rate;
    if (name[0] == '\0') {
        for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
            MB_TRY(mb_json_set_string(words, NULL, usual[i]));
        return add(words, "max_length=%lld", (long long)positions_of(model));
    }
    text = recipe_text(name);
    MB_REQUIRE(text != NULL, MB_EARG, "recipe: there is no ready recipe \"%.60s\"", name);
    MB_TRY(mb_file_write_atomic(recipe_path, text, strlen(text)));
    if (key_in(text, "learning_rate") != NULL)
        *rate = strtod(key_in(text, "learning_rate"), NULL);
    MB_TRY(mb_json_set_string(words, NULL, recipe_path));
    if (key_in(text, "eval_datasets") != NULL &&
        mb_jobs_text(request, "validation_file")[0] == '\0') {
        MB_TRY(mb_json_set_string(words, NULL, "~eval_datasets"));
        if (key_in(text, "eval_strategy") != NULL && key_in(text, "val_set_size") == NULL)
            MB_TRY(mb_json_set_string(words, NULL, "val_set_size=0.1"));
    }
    return MB_OK;
}

/* ---- hyperparameters and settings --------------------------------------------------------- */

/* A positive number; absent, null or "auto": *out stays. */
static mb_status hyper(mb_json h, const char *key, double *out, bool *given)
{
    const mb_json v = mb_json_get(h, key);

    *given = mb_json_is_set(v) &&
             !(mb_json_is(v, MB_JSON_STRING) && strcmp(mb_jobs_text(h, key), "auto") == 0);
    if (!*given)
        return MB_OK;
    MB_REQUIRE(mb_json_is_number(v), MB_EARG, "%s must be a number or \"auto\"", key);
    MB_TRY(mb_json_real(v, out));
    MB_REQUIRE(*out > 0 && *out < 1e9, MB_EARG, "%s must be above 0", key);
    return MB_OK;
}

static mb_status hyperparameters(mb_json request, double rate, mb_json words)
{
    mb_json h =
        mb_json_get(mb_json_get(mb_json_get(request, "method"), "supervised"), "hyperparameters");
    double epochs = 0, batch = 0, times = 0;
    bool has_epochs, has_batch, has_times;

    if (!mb_json_is_set(h))
        h = mb_json_get(request, "hyperparameters"); /* where older clients say it */
    MB_TRY(hyper(h, "n_epochs", &epochs, &has_epochs));
    MB_TRY(hyper(h, "batch_size", &batch, &has_batch));
    MB_TRY(hyper(h, "learning_rate_multiplier", &times, &has_times));
    if (has_epochs)
        MB_TRY(add(words, "num_train_epochs=%g", epochs));
    if (has_batch)
        MB_TRY(add(words, "per_device_train_batch_size=%lld", (long long)(batch + 0.5)));
    if (has_times)
        MB_TRY(add(words, "learning_rate=%g", rate * times));
    return MB_OK;
}

static mb_status check_key(const char *key)
{
    const size_t n = strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_.");

    MB_REQUIRE(n > 0 && key[n] == '\0' && n < 80 && islower((unsigned char)key[0]), MB_EARG,
               "settings: \"%.60s\" is no key of a recipe", key);
    return MB_OK;
}

/* A known name, or the template itself, as template.c tells them from files. */
static bool is_template(const char *text)
{
    static const char *const others[] = {"", "auto", "none", "tokenizer_default"};

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(text, others[i]) == 0)
            return true;
    return mb_chat_named(text) != NULL || strstr(text, "{{") != NULL || strstr(text, "{%") != NULL;
}

static mb_status check_value(const char *key, const char *value)
{
    char *text;
    bool good;

    MB_REQUIRE(strlen(value) < VALUE_MAX, MB_EARG, "settings: %s is longer than %d bytes", key,
               VALUE_MAX);
    for (const char *p = value; *p != '\0'; p++)
        MB_REQUIRE((unsigned char)*p >= 32 && *p != 127, MB_EARG,
                   "settings: %s holds a control character", key);
    MB_TRY(mb_recipe_check_stranger(key, value, &text));
    good = text == NULL || is_template(text);
    mb_free(text);
    MB_REQUIRE(good, MB_EARG, "settings: %s must be a template's text or one of auto, none, %s",
               key, mb_chat_names());
    return MB_OK;
}

static mb_status setting(const char *key, mb_json v, mb_json words)
{
    char *text = NULL;
    const char *value;
    mb_status st;

    MB_TRY(check_key(key));
    if (mb_json_is(v, MB_JSON_STRING)) {
        value = NULL;
        MB_TRY(mb_json_string(v, &value, NULL));
    } else {
        MB_TRY(mb_json_text(v, 0, &text, NULL));
        value = text;
    }
    st = check_value(key, value);
    if (st == MB_OK)
        st = add(words, "%s=%s", key, value);
    mb_free(text);
    return st;
}

static mb_status settings(mb_json request, mb_json words)
{
    const mb_json all = mb_json_get(request, "settings");

    MB_REQUIRE(!mb_json_is_set(all) || mb_json_is(all, MB_JSON_OBJECT), MB_EARG,
               "settings must be an object of recipe keys");
    MB_REQUIRE(mb_json_count(all) <= SETTINGS_MAX, MB_EARG, "settings: more than %d keys",
               SETTINGS_MAX);
    for (mb_json_it it = mb_json_first(all); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(setting(it.key, it.value, words));
    return MB_OK;
}

mb_status mb_jobs_words(const mb_jobs *j, mb_json request, const char *recipe_path, mb_json words)
{
    const char *data = mb_jobs_text(request, "data"),
               *eval = mb_jobs_text(request, "validation_file");
    char path[MB_PATH_MAX], adapter[MB_PATH_MAX];
    int64_t seed;
    double rate;

    if (data[0] == '\0')
        data = mb_jobs_text(request, "training_file");
    MB_REQUIRE(mb_jobs_text(request, "model")[0] != '\0', MB_EARG, "model: which one to train");
    MB_REQUIRE(data[0] != '\0', MB_EARG, "training_file: what to train on");
    MB_TRY(mb_jobs_model(j, mb_jobs_text(request, "model"), path, adapter));
    MB_TRY(begin(request, path, recipe_path, words, &rate));
    MB_TRY(add_path(words, "model_name_or_path", path, false));
    if (adapter[0] != '\0') /* goes on with it */
        MB_TRY(add_path(words, "adapter_path", adapter, false));
    MB_TRY(mb_jobs_data(j, data, path));
    MB_TRY(add_path(words, "datasets", path, true));
    if (eval[0] != '\0') {
        MB_TRY(mb_jobs_data(j, eval, path));
        MB_TRY(add_path(words, "eval_datasets", path, true));
        MB_TRY(add(words, "eval_strategy=steps"));
        MB_TRY(add(words, "eval_steps=0.1"));
    }
    MB_TRY(add_allowed(j, words));
    MB_TRY(add(words, "logging_steps=1"));
    MB_TRY(add(words, "eval_samples=3"));
    MB_TRY(add(words, "max_new_tokens=48"));
    MB_TRY(mb_json_get_int(request, "seed", -1, &seed));
    if (seed >= 0)
        MB_TRY(add(words, "seed=%lld", (long long)seed));
    MB_TRY(hyperparameters(request, rate, words));
    return settings(request, words);
}

/* ---- as a child gets them ----------------------------------------------------------------- */

void mb_jobs_argv_free(char **argv)
{
    for (char **s = argv; s != NULL && *s != NULL; s++)
        mb_free(*s);
    mb_free(argv);
}

mb_status mb_jobs_argv(const char *verb, mb_json words, const char *more, char ***out)
{
    size_t n = 0;
    char **argv;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&argv, mb_json_count(words) + 3));
    MB_TRY_GOTO(mb_strdup(verb, &argv[n]), st, fail);
    n++;
    for (mb_json_it it = mb_json_first(words); mb_json_more(&it); mb_json_next(&it)) {
        const char *word;

        MB_TRY_GOTO(mb_json_string(it.value, &word, NULL), st, fail);
        MB_TRY_GOTO(mb_strdup(word, &argv[n]), st, fail);
        n++;
    }
    if (more != NULL)
        MB_TRY_GOTO(mb_strdup(more, &argv[n]), st, fail);
    *out = argv;
    return MB_OK;
fail:
    mb_jobs_argv_free(argv);
    return st;
}
