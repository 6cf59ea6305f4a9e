/* recipes/hub/push_card.c - a model card from what a folder and its run say; see
 * recipes/hub/push_inside.h.
 *
 * A run leaves recipe.resolved.yaml and trainer_state.json above its final/ (or in the folder itself);
 * a model its config.json, an adapter its adapter_config.json. What is not known is left out. Paths of
 * this machine are not published: of a base or a dataset that is no hub id, the last part is told.
 */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/config/recipe.h"
#include "recipes/export/card.h"
#include "recipes/hub/push_inside.h"

enum { SETS = 16, MOST_TEXT = 4 << 20 };

struct facts {
    mb_card_facts card;
    char base[MB_PATH_MAX], base_shown[MB_HUB_ID_MAX + 64], license[80];
    char set[SETS][MB_HUB_ID_MAX]; /* ids of datasets */
    const char *sets[SETS + 1];
    int n_sets;
    const char *pipeline;
    bool is_adapter;
    mb_recipe *recipe;
};

/* "org/name" of a hub id or of a path in the hub's cache, else the last part of a path. */
static void shown(const char *path, char *text, size_t size, bool *is_id)
{
    mb_hub_name name;
    char copy[MB_PATH_MAX];

    *is_id = true;
    if (mb_hub_name_of_path(path, &name) || (!mb_path_exists(path) && mb_hub_name_is(path) &&
                                             mb_hub_name_read(path, false, &name) == MB_OK)) {
        snprintf(text, size, "%s", name.id);
        return;
    }
    mb_status_clear();
    *is_id = false;
    snprintf(copy, sizeof copy, "%s", path);
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = '\0';
    snprintf(text, size, "%s", mb_path_base(copy));
}

/* --- the base's licence: "license: NAME" between the first two lines of --- */

static void read_license(const char *readme, char *to, size_t size)
{
    static const char key[] = "\nlicense:";
    char *text;
    size_t n;

    if (mb_file_read(readme, MOST_TEXT, &text, &n) != MB_OK) {
        mb_status_clear();
        return;
    }
    char *end = strncmp(text, "---\n", 4) == 0 ? strstr(text + 3, "\n---") : NULL;
    if (end != NULL) {
        *end = '\0';
        const char *at = strstr(text, key);
        if (at != NULL) {
            at += sizeof key - 1;
            at += strspn(at, " \t'\"");
            snprintf(to, size, "%.*s", (int)strcspn(at, "'\"\r\n \t#"), at);
        }
    }
    mb_free(text);
}

static void base_license(struct facts *f)
{
    char readme[MB_PATH_MAX], dir[MB_PATH_MAX] = "";
    mb_hub_name name;

    if (mb_path_is_dir(f->base))
        snprintf(dir, sizeof dir, "%s", f->base);
    else if (mb_hub_name_is(f->base) && mb_hub_name_read(f->base, false, &name) == MB_OK)
        if (mb_hub_path(&name, dir, sizeof dir) != MB_OK)
            dir[0] = '\0';
    mb_status_clear();
    if (dir[0] != '\0' && mb_path_join(readme, sizeof readme, dir, "README.md") == MB_OK &&
        mb_path_is_file(readme))
        read_license(readme, f->license, sizeof f->license);
    mb_status_clear();
}

/* --- the folder */

/* A document of the folder, or NULL: a card does without what it cannot read. */
static mb_json_doc *document(const char *dir, const char *name)
{
    char path[MB_PATH_MAX];
    mb_json_doc *doc = NULL;

    if (mb_path_join(path, sizeof path, dir, name) != MB_OK || !mb_path_is_file(path) ||
        mb_json_read(path, MB_EDATA, MOST_TEXT, &doc) != MB_OK)
        doc = NULL;
    mb_status_clear();
    return doc;
}

static void take_string(mb_json object, const char *key, char *to, size_t size)
{
    const char *value;

    if (mb_json_get_string(object, key, "", &value) == MB_OK && value[0] != '\0')
        snprintf(to, size, "%s", value);
    mb_status_clear();
}

/* What models are for, by the end of their class's name. */
static const char *pipeline_of(const char *class_name)
{
    static const char *const ends[][2] = {
        {"ForCausalLM", "text-generation"},
        {"LMHeadModel", "text-generation"},
        {"ForSequenceClassification", "text-classification"},
        {"ForTokenClassification", "token-classification"},
        {"ForQuestionAnswering", "question-answering"},
        {"ForMaskedLM", "fill-mask"},
        {"ForImageClassification", "image-classification"},
        {"WhisperForConditionalGeneration", "automatic-speech-recognition"},
        {"MarianMTModel", "translation"},
    };

    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (mb_path_has_suffix(class_name, ends[i][0]))
            return ends[i][1];
    return NULL;
}

static void from_folder(struct facts *f, const char *dir)
{
    mb_json_doc *config = document(dir, "config.json"),
                *adapter = document(dir, "adapter_config.json");
    char name[200] = "", task[64] = "";

    if (config != NULL) {
        const char *first;
        const mb_json classes = mb_json_get(mb_json_root(config), "architectures");
        if (mb_json_is(mb_json_at(classes, 0), MB_JSON_STRING) &&
            mb_json_string(mb_json_at(classes, 0), &first, NULL) == MB_OK)
            snprintf(name, sizeof name, "%s", first);
        f->pipeline = pipeline_of(name);
    }
    if (adapter != NULL) {
        f->is_adapter = true;
        take_string(mb_json_root(adapter), "base_model_name_or_path", f->base, sizeof f->base);
        take_string(mb_json_root(adapter), "task_type", task, sizeof task);
        if (strcmp(task, "CAUSAL_LM") == 0)
            f->pipeline = "text-generation";
        if (strcmp(task, "SEQ_CLS") == 0)
            f->pipeline = "text-classification";
    }
    mb_json_free(config);
    mb_json_free(adapter);
}

/* --- the run */

static void from_recipe(struct facts *f, const mb_recipe *r)
{
    snprintf(f->base, sizeof f->base, "%s",
             r->model_name_or_path != NULL ? r->model_name_or_path : "");
    mb_card_add(&f->card, f->card.training, "task", "%s", mb_choice_word(r->task));
    mb_card_add(&f->card, f->card.training, "method", "%s", mb_choice_word(r->finetuning_type));
    if (r->finetuning_type == MB_FINETUNING_LORA)
        mb_card_add(&f->card, f->card.training, "LoRA", "r %lld, alpha %g, dropout %g",
                    (long long)r->lora_r, r->lora_alpha, r->lora_dropout);
    mb_card_add(&f->card, f->card.training, "optimizer", "%s, learning rate %g, weight decay %g",
                r->optim, r->learning_rate, r->weight_decay);
    mb_card_add(&f->card, f->card.training, "schedule", "%s", r->lr_scheduler_type);
    mb_card_add(&f->card, f->card.training, "seed", "%lld", (long long)r->seed);
    for (int64_t i = 0; i < r->datasets.n; i++) {
        char text[MB_HUB_ID_MAX];
        bool is_id;
        shown(r->datasets.at[i].path, text, sizeof text, &is_id);
        mb_card_add(&f->card, f->card.data, i == 0 ? "datasets" : "", "%s", text);
        if (is_id && f->n_sets < SETS) {
            memcpy(f->set[f->n_sets], text, sizeof text);
            f->sets[f->n_sets] = f->set[f->n_sets];
            f->n_sets++;
        }
    }
}

/* The last value of each number of an evaluation, and of the loss. */
static void from_history(struct facts *f, mb_json state)
{
    static const char *const keys[] = {"loss",      "eval_loss", "eval_accuracy", "eval_f1",
                                       "eval_bleu", "eval_chrf", "eval_wer",      "perplexity"};
    static const char *const names[] = {
        "training loss", "evaluation loss", "accuracy", "F1", "BLEU", "chrF", "WER", "perplexity"};
    const mb_json history = mb_json_get(state, "log_history");
    int64_t steps = 0;

    if (mb_json_get_int(state, "global_step", 0, &steps) == MB_OK && steps > 0)
        mb_card_add(&f->card, f->card.training, "steps", "%lld", (long long)steps);
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        double value = 0.0;
        bool known = false;
        for (mb_json_it it = mb_json_first(history); mb_json_more(&it); mb_json_next(&it)) {
            const mb_json v = mb_json_get(it.value, keys[k]);
            if (mb_json_is_number(v) && mb_json_real(v, &value) == MB_OK)
                known = true;
        }
        if (known)
            mb_card_add(&f->card, f->card.results, names[k], "%.4f", value);
    }
    mb_status_clear();
}

static void from_run(struct facts *f, const char *dir)
{
    char path[MB_PATH_MAX], verb[] = "push";
    char *argv[] = {verb, path, NULL};
    mb_json_doc *state;

    if (mb_path_join(path, sizeof path, dir, "recipe.resolved.yaml") != MB_OK ||
        !mb_path_is_file(path) || mb_recipe_load(2, argv, &f->recipe) != MB_OK)
        f->recipe = NULL;
    mb_status_clear();
    if (f->recipe != NULL)
        from_recipe(f, f->recipe);
    state = document(dir, "trainer_state.json");
    if (state != NULL)
        from_history(f, mb_json_root(state));
    mb_json_free(state);
}

mb_status mb_push_card(const mb_push_options *o, char **text)
{
    char above[MB_PATH_MAX], recipe[MB_PATH_MAX];
    struct facts *f;
    bool is_id = false;
    mb_status st;

    MB_TRY(MB_NEW(&f));
    MB_TRY_GOTO(mb_path_join(recipe, sizeof recipe, o->dir, "recipe.resolved.yaml"), st, done);
    MB_TRY_GOTO(mb_path_join(above, sizeof above, o->dir, ".."), st, done);
    from_run(f, mb_path_is_file(recipe) ? o->dir : above);
    from_folder(f, o->dir);
    if (f->base[0] != '\0') {
        shown(f->base, f->base_shown, sizeof f->base_shown, &is_id);
        base_license(f);
    }
    st = mb_card_text(&(mb_card){.title = strchr(o->to.id, '/') + 1,
                                 .base_model = f->base[0] != '\0' ? f->base_shown : NULL,
                                 .library_name = f->is_adapter ? "peft" : "transformers",
                                 .pipeline_tag = f->pipeline,
                                 .license = o->license != NULL ? o->license : f->license,
                                 .datasets = f->sets,
                                 .training = f->card.training,
                                 .data = f->card.data,
                                 .results = f->card.results},
                      text);
done:
    mb_recipe_free(f->recipe);
    mb_free(f);
    return st;
}
