/* recipes/serve/offers.c - from a path to a model on offer: which one it is, what it does, its name. */
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/config/model_path.h"
#include "recipes/serve/api_inside.h"

enum { MOST_WORDS = 256 };

static const struct {
    const char *task, *name;
    const mb_offer_ops *ops;
} kinds[MB_OFFER_KINDS] = {
    [MB_OFFER_TEXT] = {"text", "text", &mb_offer_text},
    [MB_OFFER_VECTORS] = {"embeddings", "embeddings", &mb_offer_vectors},
    [MB_OFFER_CLASSES] = {"text-classification", "classes of texts", &mb_offer_classes},
    [MB_OFFER_PICTURES] = {"image-classification", "classes of pictures", &mb_offer_pictures},
    [MB_OFFER_TRANSLATION] = {"translation", "translation", &mb_offer_translation},
    [MB_OFFER_SPEECH] = {"transcription", "transcription", &mb_offer_speech},
};

const char *mb_offer_kind_name(mb_offer_kind k)
{
    return kinds[k].name;
}

const char *mb_offer_task(mb_offer_kind k)
{
    return kinds[k].task;
}

static bool holds(const char *dir, const char *name)
{
    char path[MB_PATH_MAX];

    if (mb_path_join(path, sizeof path, dir, name) != MB_OK) {
        mb_status_clear();
        return false;
    }
    return mb_path_exists(path);
}

/* ---- names -------------------------------------------------------------------------------- */

/* The last part of a path that says something: of out/swahili/final it is swahili. */
static mb_status short_name(const char *path, char *out, size_t size)
{
    size_t n = strlen(path), from;

    while (n > 1 && path[n - 1] == '/')
        n--;
    if (n > 6 && strncmp(path + n - 6, "/final", 6) == 0)
        n -= 6;
    for (from = n; from > 0 && path[from - 1] != '/'; from--)
        ;
    MB_REQUIRE(n - from < size, MB_EARG, "the name of %.200s is too long", path);
    snprintf(out, size, "%.*s", (int)(n - from), path + from);
    if (mb_path_has_suffix(out, ".gguf"))
        out[n - from - 5] = '\0';
    return MB_OK;
}

static mb_status name_offer(mb_offer *o, const char *name, const char *path)
{
    char model[256], adapter[256];

    if (name != NULL)
        return mb_strdup(name, &o->id);
    if (o->recipe->adapter_path == NULL) {
        MB_TRY(short_name(path, model, sizeof model));
        return mb_strdup(model, &o->id);
    }
    MB_TRY(short_name(o->recipe->model_name_or_path, model, sizeof model));
    MB_TRY(short_name(o->recipe->adapter_path, adapter, sizeof adapter));
    return mb_asprintf(&o->id, "%s:%s", model, adapter);
}

/* ---- kinds -------------------------------------------------------------------------------- */

/* The head an adapter was trained for; `otherwise` where it does not say. */
static mb_head adapter_head(const char *adapter, mb_head otherwise)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;
    const char *task = NULL;
    mb_head head = otherwise;

    if (mb_path_join(path, sizeof path, adapter, "adapter_config.json") == MB_OK &&
        mb_json_read(path, MB_EMODEL, 1 << 24, &doc) == MB_OK &&
        mb_json_get_string(mb_json_root(doc), "task_type", NULL, &task) == MB_OK && task != NULL) {
        if (strcmp(task, "SEQ_CLS") == 0)
            head = MB_HEAD_SEQUENCE;
        else if (strcmp(task, "FEATURE_EXTRACTION") == 0)
            head = MB_HEAD_EMBED;
    }
    mb_status_clear();
    mb_json_free(doc);
    return head;
}

static bool can_be(mb_json_doc *doc, mb_head head, mb_model_config *c)
{
    const bool can = mb_model_config_parse(doc, head, c) == MB_OK;

    mb_status_clear();
    return can;
}

static mb_status find_kind(mb_offer *o)
{
    const char *path = o->recipe->model_name_or_path;
    mb_head head = mb_model_config_head(o->config, MB_HEAD_CAUSAL_LM);
    mb_model_config c;

    if (o->recipe->adapter_path != NULL)
        head = adapter_head(o->recipe->adapter_path, head);
    if (head == MB_HEAD_CAUSAL_LM && holds(path, "modules.json") &&
        can_be(o->config, MB_HEAD_EMBED, &c))
        head = MB_HEAD_EMBED; /* of sentence-transformers */
    if ((head == MB_HEAD_CAUSAL_LM && !can_be(o->config, head, &c)) || head == MB_HEAD_MASKED_LM)
        head = MB_HEAD_EMBED;
    MB_REQUIRE(head != MB_HEAD_TOKENS && head != MB_HEAD_SPAN, MB_ENOTSUP,
               "%s tags words or finds answers in texts, which has no route: mbuyu predict does it",
               path);
    MB_TRY(mb_model_config_parse(o->config, head, &c));
    if (head == MB_HEAD_SEQ2SEQ)
        o->kind = c.mel_bins > 0 ? MB_OFFER_SPEECH : MB_OFFER_TRANSLATION;
    else if (head == MB_HEAD_SEQUENCE)
        o->kind = c.patch > 0 ? MB_OFFER_PICTURES : MB_OFFER_CLASSES;
    else
        o->kind = head == MB_HEAD_EMBED ? MB_OFFER_VECTORS : MB_OFFER_TEXT;
    return MB_OK;
}

/* ---- open, close -------------------------------------------------------------------------- */

/* A run's model, the path itself where it is none. */
static mb_status model_of(const char *path, char *out, size_t size)
{
    if (!holds(path, "config.json") && !holds(path, "adapter_config.json") &&
        holds(path, "recipe.resolved.yaml") && holds(path, "final"))
        return mb_path_join(out, size, path, "final");
    MB_REQUIRE(strlen(path) < size, MB_EARG, "the path %.100s... is too long", path);
    snprintf(out, size, "%s", path);
    return MB_OK;
}

static mb_status read_recipe(mb_offer *o, char *path, int n_words, char **word)
{
    char verb[] = "serve", *argv[MOST_WORDS + 3];
    mb_status st;

    MB_REQUIRE(n_words <= MOST_WORDS, MB_EARG, "more than %d keys", MOST_WORDS);
    argv[0] = verb;
    argv[1] = path;
    for (int i = 0; i < n_words; i++)
        argv[2 + i] = word[i];
    argv[2 + n_words] = NULL;
    st = mb_recipe_load(2 + n_words, argv, &o->recipe);
    if (st == MB_OK)
        st = mb_recipe_require(o->recipe, "serve", "model_name_or_path", NULL);
    if (st == MB_OK)
        st = mb_recipe_follow_adapter(o->recipe);
    return st == MB_OK ? mb_recipe_check_model(o->recipe) : st;
}

static mb_status open_offer(mb_api *a, mb_offer *o, const char *name, const char *given,
                            int n_words, char **word)
{
    char path[MB_PATH_MAX];
    const double t = mb_clock();

    MB_TRY(mb_strdup(given, &o->path));
    o->changed = mb_path_changed(given);
    MB_TRY(model_of(given, path, sizeof path));
    MB_TRY(read_recipe(o, path, n_words, word));
    MB_TRY(name_offer(o, name, path));
    MB_REQUIRE(mb_api_find(a, o->id) == NULL, MB_EARG,
               "two models are called %s: give one a name of its own, NAME=PATH", o->id);
    MB_TRY(mb_model_config_doc(o->recipe->model_name_or_path, &o->config));
    MB_TRY(find_kind(o));
    o->created = mb_path_changed(o->recipe->model_name_or_path) / 1000000000;
    MB_TRY(kinds[o->kind].ops->open(a, o));
    mb_log_info("%s: %s, read in %.1f s; weights of all bases: %.2f GiB", o->id,
                kinds[o->kind].name, mb_clock() - t,
                (double)mb_bases_bytes(mb_api_bases(a)) / (double)(1 << 30));
    return MB_OK;
}

mb_status mb_offer_open(mb_api *a, const char *model, int n_words, char **word, mb_offer **out)
{
    const char *equals = strchr(model, '=');
    char name[256];
    mb_offer *o;
    mb_status st;

    MB_REQUIRE(equals == NULL || ((size_t)(equals - model) < sizeof name && equals > model),
               MB_EARG, "%.100s: a model is written PATH or NAME=PATH", model);
    if (equals != NULL)
        snprintf(name, sizeof name, "%.*s", (int)(equals - model), model);
    MB_TRY(MB_NEW(&o));
    st = open_offer(a, o, equals != NULL ? name : NULL, equals != NULL ? equals + 1 : model,
                    n_words, word);
    if (st != MB_OK) {
        mb_offer_close(o);
        return st;
    }
    *out = o;
    return MB_OK;
}

void mb_offer_close(mb_offer *o)
{
    if (o == NULL)
        return;
    kinds[o->kind].ops->close(o);
    mb_json_free(o->config);
    mb_recipe_free(o->recipe);
    mb_free(o->path);
    mb_free(o->id);
    mb_free(o);
}
