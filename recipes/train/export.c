/* recipes/train/export.c - the end of a run: <output_dir>/final, read again and ready to use.
 *
 * Full fine-tuning gives a Hugging Face folder. LoRA gives a PEFT adapter folder; a GGUF base is then
 * written as a Hugging Face folder too (<output_dir>/base), for the adapter to point at.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/config/hub_path.h"
#include "recipes/data/template.h"
#include "recipes/export/model.h"
#include "recipes/export/reread.h"
#include "recipes/generate/ends.h"
#include "recipes/train/job.h"

enum { TARGETS_MAX = 64 };

static void gather_data(const mb_job *j, mb_card_facts *f)
{
    const mb_store_stats *s = &j->data->store->stats;

    mb_card_add(f, f->data, "training rows", "%lld", (long long)j->data->n_train);
    if (s->truncated + s->dropped > 0)
        mb_card_add(f, f->data, "rows truncated, dropped", "%lld, %lld", (long long)s->truncated,
                    (long long)s->dropped);
}

static const char *precision(const mb_job *j)
{
    const mb_dtype d = j->use == MB_JOB_EXPORT ? j->trained_in : j->dtype;

    return d == MB_DTYPE_BF16  ? "bfloat16, float32 master weights"
           : d == MB_DTYPE_F16 ? "float16, float32 master weights"
                               : "float32";
}

/* In all tables together. */
static int64_t token_rows(const mb_job *j)
{
    const mb_model *m = j->engine->model;
    int64_t n = 0;

    for (int i = 0; i < m->n_weights; i++)
        if (m->weight[i].token_rows != NULL)
            n += m->weight[i].token_rows->values->value.dim[0];
    return n;
}

static void gather(const mb_job *j, mb_card_facts *f)
{
    const mb_recipe *r = j->recipe;

    mb_card_add(f, f->training, "method", "%s", mb_choice_word(r->finetuning_type));
    if (r->trainable_token_indices.n > 0)
        mb_card_add(f, f->training, "trained rows of tokens", "%lld", (long long)token_rows(j));
    if (r->finetuning_type == MB_FINETUNING_LORA)
        mb_card_add(f, f->training, "LoRA", "r %lld, alpha %g, dropout %g%s%s",
                    (long long)r->lora_r, r->lora_alpha, r->lora_dropout,
                    r->use_rslora ? ", rsLoRA" : "", r->use_dora ? ", DoRA" : "");
    mb_card_add(f, f->training, "optimizer", "%s, learning rate %g, weight decay %g", r->optim,
                r->learning_rate, r->weight_decay);
    mb_card_add(f, f->training, "schedule", "%s, %lld warm-up steps", r->lr_scheduler_type,
                (long long)j->schedule.warmup);
    mb_card_add(f, f->training, "steps", "%lld of %lld rows", (long long)j->at.step,
                (long long)j->at.step_units);
    mb_card_add(f, f->training, "precision", "%s", precision(j));
    mb_card_add(f, f->training, "seed", "%lld", (long long)r->seed);
    mb_card_add(f, f->training, "made with", "mbuyu %s", MB_VERSION);
    mb_card_add(f, f->data, "trained tokens seen", "%lld", (long long)j->at.tokens);
    if (j->data->store != NULL)
        gather_data(j, f);
    if (!isnan(j->at.first_loss))
        mb_card_add(f, f->results, "first training loss", "%.4f", j->at.first_loss);
    if (!isnan(j->at.last_loss))
        mb_card_add(f, f->results, "last training loss", "%.4f", j->at.last_loss);
    if (!isnan(j->at.last_eval_loss))
        mb_card_add(f, f->results, "evaluation loss", "%.4f", j->at.last_eval_loss);
}

mb_dtype mb_job_export_dtype(const mb_recipe *r)
{
    static const struct {
        mb_choice word;
        mb_dtype dtype;
    } types[] = {{MB_EXPORT_F32, MB_DTYPE_F32},   {MB_EXPORT_BF16, MB_DTYPE_BF16},
                 {MB_EXPORT_F16, MB_DTYPE_F16},   {MB_EXPORT_Q8_0, MB_DTYPE_Q8_0},
                 {MB_EXPORT_Q4_0, MB_DTYPE_Q4_0}, {MB_EXPORT_Q4_1, MB_DTYPE_Q4_1},
                 {MB_EXPORT_Q4_K, MB_DTYPE_Q4_K}};

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].word == r->export_dtype)
            return types[i].dtype;
    return MB_DTYPE_F32;
}

static mb_status export_model(const mb_job *j, const mb_export *e, const char *dir)
{
    MB_TRY(mb_export_hf(e, dir));
    return j->recipe->export_check ? mb_export_reread_hf(e, dir) : MB_OK;
}

/* Where PEFT finds the base: its folder, its name on a hub, or the folder written here for a GGUF. */
static mb_status base_folder(const mb_job *j, const mb_export *e, char *path, size_t size,
                             mb_hub_name *hub)
{
    char config[MB_PATH_MAX], written[MB_PATH_MAX];

    MB_TRY(mb_path_join(config, sizeof config, j->recipe->model_name_or_path, "config.json"));
    if (mb_path_exists(config) && mb_hub_name_of_path(j->recipe->model_name_or_path, hub)) {
        snprintf(path, size, "%s", hub->id);
        return MB_OK;
    }
    if (mb_path_exists(config))
        return mb_path_real(j->recipe->model_name_or_path, path, size);
    MB_TRY(mb_path_join(written, sizeof written, j->recipe->output_dir, "base"));
    MB_TRY(export_model(j, e, written));
    mb_log_info("the base model, as a Hugging Face folder: %s", written);
    return mb_path_real(written, path, size);
}

struct adapter {
    mb_peft peft;
    const char *target[TARGETS_MAX], *save[TARGETS_MAX];
    mb_token_wish tokens[TARGETS_MAX];
};

static mb_status describe_targets(const mb_job *j, struct adapter *a)
{
    const mb_strings *t = &j->recipe->lora_target_modules;
    const mb_model *m = j->engine->model;
    mb_peft *p = &a->peft;

    p->target = a->target;
    if (mb_strings_have(t, "all-linear") || mb_strings_have(t, "all") ||
        m->family->modules != NULL) /* users may have written the files' names */
        return mb_export_targets(m, a->target, TARGETS_MAX, &p->n_target);
    if (t->n == 1 && !mb_model_has_module(m, t->at[0])) {
        p->target_regex = t->at[0];
        return MB_OK;
    }
    p->target = t->at;
    p->n_target = t->n;
    return MB_OK;
}

/* The modules of a head that belongs to the task, by their first names: "classifier". */
static mb_status save_head(const mb_job *j, struct adapter *a)
{
    const mb_model *m = j->engine->model;

    for (int i = 0; i < m->n_weights && mb_head_is_task(j->task->head); i++) {
        const mb_weight *w = &m->weight[i];
        const size_t n = strcspn(w->name, ".");
        bool there = false;
        void *p;

        if (w->row == NULL || (w->row->flags & MB_W_HEAD) == 0)
            continue;
        for (int k = 0; k < a->peft.n_save; k++)
            there = there || (strncmp(a->save[k], w->name, n) == 0 && a->save[k][n] == '\0');
        if (there || a->peft.n_save == TARGETS_MAX)
            continue;
        MB_TRY(mb_arena_take(m->strings, n + 1, &p));
        memcpy(p, w->name, n);
        ((char *)p)[n] = '\0';
        a->save[a->peft.n_save++] = p;
    }
    return MB_OK;
}

/* The tables that have rows of tokens by the names they were given; the input embedding without one is what a list is for. */
static mb_status describe_tokens(const mb_job *j, struct adapter *a)
{
    const mb_model *m = j->engine->model;
    const bool named = j->recipe->trainable_token_modules.n > 0;
    mb_peft *p = &a->peft;
    char module[384];

    p->tokens = a->tokens;
    for (int i = 0; i < m->n_weights && p->n_tokens < TARGETS_MAX; i++) {
        const mb_token_rows *r = m->weight[i].token_rows;
        mb_token_wish *t = &a->tokens[p->n_tokens];

        if (r == NULL)
            continue;
        *t = (mb_token_wish){.id = r->id, .n = r->values->value.dim[0]};
        p->n_tokens++;
        if (!named)
            continue;
        mb_weight_module(&m->weight[i], module, sizeof module);
        MB_TRY(mb_arena_strdup(m->strings, module, &t->module));
    }
    return MB_OK;
}

/* A new adapter, as PEFT says it. */
static mb_status describe(const mb_job *j, struct adapter *a)
{
    const mb_recipe *r = j->recipe;
    const mb_model *m = j->engine->model;
    mb_peft *p = &a->peft;

    *p = mb_peft_defaults();
    p->task_type = j->task->peft_task;
    MB_TRY(describe_tokens(j, a));
    p->tokens_alone = r->finetuning_type == MB_FINETUNING_TOKENS;
    if (p->tokens_alone)
        return MB_OK;
    p->r = r->lora_r;
    p->alpha = r->lora_alpha;
    p->dropout = r->lora_dropout;
    p->rslora = r->use_rslora;
    p->dora = r->use_dora;
    for (int i = 0; i < m->n_weights; i++)
        if (m->weight[i].lora_a != NULL)
            p->fan_in_fan_out = (m->weight[i].row->flags & MB_W_CONV1D) != 0;
    p->save = a->save;
    for (int64_t i = 0; i < r->lora_modules_to_save.n && i < TARGETS_MAX - 1; i++)
        a->save[p->n_save++] = r->lora_modules_to_save.at[i];
    MB_TRY(save_head(j, a));
    return describe_targets(j, a);
}

static mb_status export_adapter(const mb_job *j, mb_export *e, mb_card *card, const char *dir)
{
    struct adapter a = {0};
    mb_hub_name hub = {.id = ""};
    char base[4096];
    mb_status st;

    e->card = NULL;
    MB_TRY(base_folder(j, e, base, sizeof base, &hub));
    card->library_name = "peft";
    card->base_model = base;
    e->card = card;
    if (j->recipe->adapter_path != NULL) /* a continued adapter keeps its own shape */
        st = mb_peft_read(j->recipe->adapter_path, &a.peft);
    else
        st = describe(j, &a);
    a.peft.base = base;
    a.peft.revision = hub.id[0] != '\0' ? hub.revision : NULL;
    if (st == MB_OK)
        st = mb_export_peft(e, &a.peft, dir);
    if (st == MB_OK && j->recipe->export_check)
        st = mb_export_reread_peft(e, dir);
    mb_peft_close(&a.peft);
    return st;
}

/* How conversations are written and where answers end, for whoever asks the model later: the template
 * that the recipe names, or else the model's own. */
static mb_status find_talk(const mb_job *j, mb_export *e, mb_chat **chat, mb_ids *ends)
{
    const char *choice = j->recipe->chat_template;
    const bool named = choice != NULL && choice[0] != '\0' && strcmp(choice, "auto") != 0 &&
                       strcmp(choice, "none") != 0;
    const mb_chat_options o = {.tokenizer = e->tokenizer, .choice = named ? choice : NULL};

    if (j->task->head != MB_HEAD_CAUSAL_LM)
        return MB_OK;
    if (named || mb_tokenizer_chat_template(e->tokenizer) != NULL)
        MB_TRY(mb_chat_open(&o, chat));
    MB_TRY(mb_answer_ends(j->recipe->model_name_or_path, e->tokenizer, *chat, ends));
    e->ends = ends;
    e->chat_template = named ? mb_chat_source(*chat) : NULL;
    return MB_OK;
}

static mb_status write_final(mb_job *j)
{
    const mb_recipe *r = j->recipe;
    mb_card_facts f = {0};
    mb_chat *chat = NULL;
    mb_ids ends = {0};
    mb_status st;
    mb_hub_name hub;
    char dir[4096];
    mb_card card = {.title = r->run_name != NULL ? r->run_name : mb_path_base(r->output_dir),
                    .base_model = mb_hub_name_of_path(r->model_name_or_path, &hub)
                                      ? hub.id
                                      : r->model_name_or_path,
                    .library_name = "transformers",
                    .pipeline_tag = j->task->pipeline_tag,
                    .training = f.training,
                    .data = f.data,
                    .results = f.results};
    mb_export e = {.language = j->recipe->language,
                   .speech_task = j->recipe->speech_task,
                   .model = j->engine->model,
                   .ex = &j->engine->host,
                   .config = mb_json_root(j->config),
                   .base = r->model_name_or_path,
                   .tokenizer = j->data->tokenizer,
                   .dtype = mb_job_export_dtype(r),
                   .max_shard_bytes = r->max_shard_size,
                   .label = r->label_names.n == j->engine->model->config.labels
                                ? (const char *const *)r->label_names.at
                                : NULL,
                   .card = &card};

    gather(j, &f);
    MB_TRY(mb_path_join(dir, sizeof dir, r->output_dir, "final"));
    st = find_talk(j, &e, &chat, &ends);
    if (st == MB_OK)
        st = mb_model_has_adapter(j->engine->model) ? export_adapter(j, &e, &card, dir)
                                                    : export_model(j, &e, dir);
    mb_chat_free(chat);
    mb_ids_release(&ends);
    if (st == MB_OK)
        mb_log_info("the model is in %s", dir);
    return st;
}

/* A best that could not be saved, or lies in another folder, is not there: then the last one. */
static mb_status best_or_last(mb_job *j)
{
    char path[MB_PATH_MAX];

    if (j->use == MB_JOB_EXPORT || !j->recipe->load_best_model_at_end || j->at.best_step < 0 ||
        j->at.best_step == j->at.step)
        return MB_OK;
    MB_TRY(mb_checkpoint_path(j->recipe->output_dir, j->at.best_step, path, sizeof path));
    int32_t there = mb_path_is_dir(path);
    MB_TRY(j->comm->ops->broadcast(j->comm, &there, sizeof there, 0));
    if (!there) {
        if (j->comm->rank == 0)
            mb_log_warn("%s, the best checkpoint, is not there: the last step is exported", path);
        return MB_OK;
    }
    mb_log_info("exporting the best model, of step %lld (%s %.4f)", (long long)j->at.best_step,
                j->recipe->metric_for_best_model, j->at.best);
    return mb_checkpoint_load(path, j->zero);
}

/* Rank 0 writes; the others give it their part of what is spread over ranks. */
static mb_status write_spread(mb_job *j)
{
    mb_flat *f = &j->engine->flat;
    mb_status st;

    if (j->comm->rank != 0)
        return mb_zero_serve(j->zero);
    f->fetch = mb_zero_fetch;
    f->fetch_ctx = j->zero;
    st = write_final(j);
    f->fetch = NULL;
    const mb_status told = mb_zero_served(j->zero);
    return st != MB_OK ? st : told;
}

mb_status mb_job_export(mb_job *j)
{
    const bool apart = mb_flat_master_apart(&j->engine->flat);

    MB_TRY(best_or_last(j));
    if (!apart)
        MB_TRY(mb_shard_settle(mb_zero_shard(j->zero)));
    mb_engine_rest(j->engine);
    if (apart)
        return mb_comm_agree(j->comm, write_spread(j));
    return mb_comm_agree(j->comm, j->comm->rank == 0 ? write_final(j) : MB_OK);
}
