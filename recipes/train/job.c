/* recipes/train/job.c - building a training run from a recipe; see recipes/train/job.h. */
#include "recipes/train/job.h"

#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/path.h"
#include "core/rng.h"
#include "dist/comm_nccl.h"
#include "recipes/config/model_path.h"
#include "recipes/data/transcript.h"
#include "recipes/export/adapter.h"
#include "recipes/export/sentence_files.h"
#include "recipes/train/answers.h"
#include "recipes/train/device.h"
#include "recipes/train/samples.h"
#include "recipes/train/share.h"

enum { BEHIND_FROM = 1 << 20 }; /* overlap_comm: auto; bytes of gradients */

void mb_job_session_options(const mb_recipe *r, const mb_task *task, int threads,
                            mb_session_options *o)
{
    *o = (mb_session_options){
        .path = r->model_name_or_path,
        .adapter_path = r->adapter_path,
        .head = task->head,
        .trained = MB_TRAINED_ALL,
        .lora = {.r = r->lora_r,
                 .alpha = r->lora_alpha,
                 .dropout = (float)r->lora_dropout,
                 .rslora = r->use_rslora,
                 .dora = r->use_dora,
                 .targets = (const char *const *)r->lora_target_modules.at,
                 .n_targets = (int)r->lora_target_modules.n,
                 .save = (const char *const *)r->lora_modules_to_save.at,
                 .n_save = (int)r->lora_modules_to_save.n},
        .token_ids = &r->trainable_token_indices,
        .token_modules = &r->trainable_token_modules,
        .layers = r->freeze_trainable_layers,
        .patterns = (const char *const *)r->trainable_parameters.at,
        .n_patterns = (int)r->trainable_parameters.n,
        .labels = task->head == MB_HEAD_SPAN ? 0 : r->num_labels,
        .has_loss = true,
        .loss = task->loss,
        .temperature = (float)r->embedding_temperature,
        .seed = (uint64_t)r->seed,
        .random = r->init == MB_INIT_RANDOM,
        .engine = {.threads = threads,
                   .exact = r->reduction == MB_REDUCTION_EXACT,
                   .recompute = r->gradient_checkpointing},
    };
    if (r->finetuning_type == MB_FINETUNING_FREEZE)
        o->trained = MB_TRAINED_SOME;
    if (r->finetuning_type == MB_FINETUNING_TOKENS)
        o->lora = (mb_lora_options){0};
    if (r->finetuning_type == MB_FINETUNING_LORA || r->finetuning_type == MB_FINETUNING_TOKENS)
        o->trained = r->adapter_path != NULL ? MB_TRAINED_ADAPTER : MB_TRAINED_LORA;
}

/* ---- batch sizes -------------------------------------------------------------------------- */

/* The global batch is fixed at the first start and kept by every resume. */
static mb_status batch_sizes(mb_job *j)
{
    const mb_recipe *r = j->recipe;
    char text[32];
    const int64_t micro = r->per_device_train_batch_size;
    int64_t global = r->global_batch_size;

    if (j->resumed_from != NULL)
        return MB_OK; /* taken from the checkpoint */
    if (global == 0)
        global = micro * r->gradient_accumulation_steps * j->comm->size;
    j->at.micro_units = micro;
    j->at.step_units = global;
    snprintf(text, sizeof text, "%lld", (long long)global);
    return mb_recipe_set(j->recipe, "global_batch_size", text, "the first start");
}

static mb_status enough_micro_batches(const mb_job *j)
{
    const int64_t n = (j->at.step_units + j->at.micro_units - 1) / j->at.micro_units;

    MB_REQUIRE(
        n >= j->comm->size, MB_EARG,
        "%d ranks for %lld micro-batches a step (global batch %lld, micro-batch %lld): use at "
        "most %lld ranks or a smaller per_device_train_batch_size",
        j->comm->size, (long long)n, (long long)j->at.step_units, (long long)j->at.micro_units,
        (long long)n);
    return MB_OK;
}

/* ---- opening ------------------------------------------------------------------------------ */

/* One plan per shape class of micro-batches up to `largest` tokens. */
static mb_status plan_classes(mb_job *j, int64_t largest, bool train)
{
    mb_batch *b = j->data->batch;
    const mb_pictures *pictures = j->data->pictures;
    const int64_t longest = pictures != NULL
                                ? mb_patches_tokens(&mb_pictures_are(pictures)->patches)
                                : j->recipe->max_length;

    for (int64_t tokens = 1; tokens <= largest;) {
        const int64_t c = mb_shape_class(tokens, largest);
        b->max_len = c < longest ? c : longest;
        MB_TRY(mb_engine_plan(j->engine, b, c, train));
        tokens = c + 1;
    }
    return MB_OK;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The same for two sides: every pair of their classes that some micro-batch may have. */
static mb_status plan_sides(mb_job *j, const mb_collate_options *o, bool train)
{
    const mb_recipe *r = j->recipe;
    mb_batch *b = j->data->batch, *source = j->data->source;
    const int64_t saved = source->tokens;

    for (int64_t n = 1, c; n <= o->source_largest; n = c + 1) {
        c = mb_side_class(n, o->source_largest);
        source->tokens = c;
        source->max_len = least(c, r->max_length);
        for (int64_t m = 1, k; m <= o->largest; m = k + 1) {
            k = mb_side_class(m, o->largest);
            b->max_len = least(k, r->max_target_length + 1);
            if (n + m <= o->both_largest)
                MB_TRY(mb_engine_plan(j->engine, b, k, train));
        }
    }
    source->tokens = saved;
    return MB_OK;
}

static mb_status plan_steps(mb_job *j)
{
    const mb_data *d = j->data;
    const int64_t eval = d->eval_collate.largest, tokens = mb_shape_class(eval, eval);
    const bool each_token = j->task->rows == MB_WANT_WORDS || j->task->rows == MB_WANT_QUESTIONS;

    if (d->collate.kind == MB_TARGET_SECOND) {
        MB_TRY(plan_sides(j, &d->collate, true));
        MB_TRY(plan_sides(j, &d->eval_collate, false));
    } else {
        MB_TRY(plan_classes(j, d->collate.largest, true));
        MB_TRY(plan_classes(j, eval, false));
    }
    if (d->eval == NULL || j->task->answer == NULL)
        return mb_samples_open(j);
    if (j->task->head == MB_HEAD_SEQ2SEQ)
        return j->writer == NULL ? mb_answer_text_open(j) : MB_OK;
    return mb_engine_plan_logits(j->engine, d->batch, tokens, /* what is told from whole logits */
                                 each_token ? tokens : d->batch->max_seq);
}

/* Looks at rows: no optimizer, nothing of a run. */
static bool only_reads(const mb_job *j)
{
    return j->use == MB_JOB_EVAL || j->use == MB_JOB_PREDICT;
}

static const char *verb_of(const mb_job *j)
{
    static const char *const verbs[] = {[MB_JOB_TRAIN] = "train",
                                        [MB_JOB_EVAL] = "eval",
                                        [MB_JOB_PREDICT] = "predict",
                                        [MB_JOB_PLAN] = "plan",
                                        [MB_JOB_EXPORT] = "export"};

    return verbs[j->use];
}

/* The head has an output for each class or number. */
static bool has_labels(const mb_task *t)
{
    return t->head == MB_HEAD_SEQUENCE || t->head == MB_HEAD_TOKENS;
}

/* Are the model's classes given? A model that starts from nothing, and whose configuration names
 * none, takes those of the data. */
static bool names_labels(const mb_job *j, mb_json config)
{
    return j->recipe->init != MB_INIT_RANDOM || mb_json_is_set(mb_json_get(config, "id2label")) ||
           mb_json_is_set(mb_json_get(config, "num_labels"));
}

static void choose_task(mb_job *j)
{
    j->task = mb_task_of(j->recipe);
    if (j->task->head == MB_HEAD_SEQ2SEQ && !j->recipe->predict_with_generate) {
        j->silent = *j->task;
        j->silent.answer = NULL;
        j->silent.metrics = "";
        j->task = &j->silent;
    }
}

static mb_status read_config(mb_job *j, mb_model_config *c)
{
    mb_json_doc *doc = NULL;
    mb_status st;

    MB_TRY(mb_recipe_require(j->recipe, verb_of(j), "model_name_or_path", NULL));
    MB_TRY(mb_recipe_check_model(j->recipe));
    MB_TRY(mb_task_adopt(j->recipe));
    MB_TRY(mb_recipe_expand_folders(j->recipe));
    choose_task(j);
    st = mb_model_config_doc(j->recipe->model_name_or_path, &doc);
    if (st == MB_OK)
        st = mb_model_config_parse(doc, j->task->head, c);
    if (st == MB_OK)
        st = mb_task_fits(j->task, c, j->recipe->model_name_or_path);
    if (st == MB_OK && j->task->head == MB_HEAD_EMBED)
        st = mb_sentence_files_check(j->recipe->model_name_or_path);
    if (st == MB_OK)
        st = mb_data_adopt_labels(j->recipe, j->task, doc);
    if (st == MB_OK && has_labels(j->task) &&
        mb_model_config_head(doc, MB_HEAD_CAUSAL_LM) == j->task->head &&
        names_labels(j, mb_json_root(doc)))
        j->base_labels = c->labels;
    mb_json_free(doc);
    if (st == MB_OK && has_labels(j->task) && j->recipe->adapter_path != NULL) {
        int64_t labels;
        MB_TRY(mb_adapter_labels(j->recipe->adapter_path, &labels));
        if (labels > 0)
            j->base_labels = labels;
    }
    return st;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t outputs(const mb_store *s)
{
    return s == NULL ? 0 : s->rows == MB_WANT_NUMBERS ? s->n_values : s->n_labels;
}

/* The classes of the model: num_labels, or those of a base that is a classifier, or those in the
 * data. */
static mb_status count_labels(const mb_job *j, int64_t *labels)
{
    const mb_data *d = j->data;
    const int64_t wanted = j->recipe->num_labels,
                  seen = most(outputs(d->store), outputs(d->eval_store));

    MB_REQUIRE(wanted == 0 || seen <= wanted, MB_EDATA,
               "the data has %lld classes, num_labels is %lld", (long long)seen, (long long)wanted);
    MB_REQUIRE(wanted > 0 || j->base_labels == 0 || seen <= j->base_labels, MB_EDATA,
               "the data has %lld classes, %s tells %lld apart", (long long)seen,
               j->recipe->model_name_or_path, (long long)j->base_labels);
    *labels = wanted > 0           ? wanted
              : j->base_labels > 0 ? j->base_labels
                                   : most(seen, j->task->rows == MB_WANT_NUMBERS ? 1 : 2);
    return MB_OK;
}

/* The classes become part of the recipe, and so of every checkpoint: whoever resumes or exports one
 * needs no data to know them. */
static mb_status keep_labels(mb_job *j, int64_t labels)
{
    const mb_store *s = j->data->store != NULL ? j->data->store : j->data->eval_store;
    mb_json_doc *names = NULL;
    char number[24], *text = NULL;
    bool named = false;
    mb_status st = MB_OK;

    snprintf(number, sizeof number, "%lld", (long long)labels);
    MB_TRY(mb_recipe_set(j->recipe, "num_labels", number, "the data"));
    if (j->recipe->label_names.n > 0 || s == NULL || !mb_task_has_classes(j->task) ||
        s->n_labels != labels)
        return MB_OK;
    MB_TRY_GOTO(mb_json_doc_new_array("label names", &names), st, done);
    for (int i = 0; i < s->n_labels; i++) {
        snprintf(number, sizeof number, "%d", i);
        named = named || strcmp(s->label_name[i], number) != 0;
        MB_TRY_GOTO(mb_json_set_string(mb_json_root(names), NULL, s->label_name[i]), st, done);
    }
    MB_TRY_GOTO(mb_json_text(mb_json_root(names), 0, &text, NULL), st, done);
    if (named)
        st = mb_recipe_set(j->recipe, "label_names", text, "the data");
done:
    mb_free(text);
    mb_json_free(names);
    return st;
}

/* Who shares parameters with whom; over NCCL where there are GPUs. */
static mb_status open_mesh(mb_job *j)
{
    const int64_t wanted = j->recipe->dp_shard_size;
    const bool bf16 = j->recipe->communication_data_type == MB_SENT_AS_BF16;
    const mb_mesh_options o = {.shard_size = wanted > INT_MAX ? INT_MAX : (int)wanted,
                               .timeout = j->recipe->comm_timeout,
                               .queue = j->recipe->overlap_comm != MB_NO,
                               .wire = bf16 ? MB_DTYPE_BF16 : MB_DTYPE_F32};

    MB_REQUIRE(wanted == MB_SHARD_ALL || j->recipe->zero_stage > 0, MB_EARG,
               "dp_shard_size %lld: zero_stage 0 shares nothing; use zero_stage 1, 2 or 3",
               (long long)wanted);
    MB_REQUIRE(
        !bf16 || mb_device_is_host(j->device), MB_ENOTSUP,
        "communication_data_type: bf16 is for ranks on CPUs; GPUs send gradients as they are");
    if (j->like != NULL)
        return mb_mesh_on_paper(j->comm, j->device, j->launch->local_size, &o, &j->mesh);
    return mb_mesh_new(j->comm, j->device, &o, &j->mesh);
}

/* The device steps run on, the same kind on all ranks, and what moves its numbers between them. */
static mb_status open_device(mb_job *j)
{
    int32_t cuda;

    if (j->like != NULL) {
        j->device = j->like->device;
        MB_TRY(mb_recipe_dtype(j->recipe, j->device, true, &j->dtype));
        return open_mesh(j);
    }
    MB_TRY(mb_comm_agree(j->comm, mb_recipe_open_device(j->recipe, j->launch->local_rank,
                                                        j->launch->threads, &j->device)));
    cuda = j->device->kind == MB_DEVICE_CUDA;
    MB_TRY(j->comm->ops->all_reduce(j->comm, &cuda, 1, MB_DTYPE_I32, MB_MIN));
    if (!cuda && j->device->kind == MB_DEVICE_CUDA) {
        mb_log_warn("another rank has no GPU: this one's is not used");
        mb_device_close(j->device);
        j->device = NULL;
        MB_TRY(mb_device_cpu(j->launch->threads, &j->device));
    }
    MB_TRY(
        mb_comm_agree(j->comm, mb_recipe_dtype(j->recipe, j->device, !only_reads(j), &j->dtype)));
    if (cuda)
        mb_log_info("computing in %s on %s (%s)", mb_dtype_name(j->dtype), j->device->name,
                    j->device->class_);
    return open_mesh(j);
}

/* Exact sums take each micro-batch's gradients at once; else a step of one micro-batch per rank does. */
static bool gradients_end_with_micro(const mb_job *j)
{
    const int64_t most = mb_sampler_max_micro(j->data->train), size = j->comm->size;

    return j->recipe->reduction == MB_REDUCTION_EXACT || most <= size;
}

static mb_status open_model(mb_job *j)
{
    const mb_recipe *r = j->recipe;
    mb_session_options o;

    mb_job_session_options(r, j->task, j->launch->threads, &o);
    o.engine.device = j->device;
    o.engine.dtype = j->dtype;
    if (!only_reads(j) && j->use != MB_JOB_EXPORT) {
        o.engine.grads_in_step = gradients_end_with_micro(j);
        o.engine.zero_stage = (int)r->zero_stage;
        o.engine.rank = j->mesh->dp_inner->rank;
        o.engine.size = j->mesh->dp_inner->size;
    }
    o.quiet = j->comm->rank != 0;
    if (only_reads(j)) {
        o.trained = MB_TRAINED_NOTHING;
        o.random = false; /* what a run from scratch gave is a model like others */
    }
    o.engine.max_positions = r->max_length;
    if (j->task->id ==
        MB_TASK_SPEECH_RECOGNITION) /* answers of max_length follow what opens them */
        o.engine.max_positions += MB_TRANSCRIPT_PROMPT;
    else if (j->task->head == MB_HEAD_SEQ2SEQ)
        o.engine.max_positions = most(r->max_length, r->max_target_length + 1);
    if (has_labels(j->task)) {
        MB_TRY(count_labels(j, &o.labels));
        MB_TRY(keep_labels(j, o.labels));
    }
    if (j->task->target == MB_TARGET_VALUES || j->task->target == MB_TARGET_SENTENCES)
        MB_TRY(mb_data_values(j->data, j->task->target == MB_TARGET_VALUES ? o.labels : 1));
    mb_json_free(j->config);
    j->config = NULL;
    j->session = o;
    o.no_values = true; /* first it must be known to fit */
    return mb_session_open(&o, &j->engine, &j->config);
}

static mb_status load_model(mb_job *j)
{
    return mb_session_load(j->engine, &j->session);
}

static mb_status open_optimizer(mb_job *j)
{
    const mb_recipe *r = j->recipe;
    const mb_optim_hyper hyper = {.beta1 = r->adam_beta1,
                                  .beta2 = r->adam_beta2,
                                  .eps = r->adam_epsilon,
                                  .weight_decay = r->weight_decay,
                                  .seed = (uint64_t)r->seed};
    const mb_zero_options o = {
        .stage = (int)r->zero_stage,
        .n_metrics = MB_METRICS_PER_MICRO,
        .n_votes = MB_VOTES,
        .max_micro = mb_sampler_max_micro(j->data->train),
        .scale_loss = j->dtype == MB_DTYPE_F16,
        .behind_from =
            mb_device_is_host(j->device) && r->overlap_comm == MB_AUTO ? BEHIND_FROM : 0};

    MB_TRY(mb_zero_new(j->mesh, &j->engine->ex, &j->engine->flat, mb_optim_find(r->optim), &hyper,
                       &o, &j->zero));
    const int64_t most = mb_sampler_max_micro(j->data->train);
    MB_TRY(mb_engine_reserve_queue(j->engine, (most + j->comm->size - 1) / j->comm->size,
                                   j->data->batch->max_targets));
    if (r->cuda_graphs && j->profile == NULL && !mb_shard_moves_gradients(mb_zero_shard(j->zero)) &&
        !mb_shard_moves_parameters(mb_zero_shard(j->zero)))
        MB_TRY(mb_engine_replay(j->engine));
    mb_tape_on_edges(j->engine->tape, mb_shard_edge, mb_zero_shard(j->zero));
    if (j->engine->feed != NULL)
        mb_feed_watch(j->engine->feed, j->mesh->dp_inner);
    return MB_OK;
}

static mb_status open_sinks(mb_job *j)
{
    const mb_recipe *r = j->recipe;
    const char *names[16] = {NULL};
    const mb_metric_run run = {
        .output_dir = r->output_dir,
        .resume_dir = j->resumed_from,
        .resume_step = j->at.step,
        .max_steps = j->total_steps,
        .train_batch_size = r->per_device_train_batch_size,
        .logging_steps = mb_recipe_steps(r->logging_steps, j->total_steps),
        .eval_steps = mb_recipe_steps(r->eval_steps, j->total_steps),
        .save_steps = mb_recipe_steps(r->save_steps, j->total_steps),
        .num_train_epochs = r->num_train_epochs,
        .terminal = STDERR_FILENO,
    };

    if (j->comm->rank != 0)
        return MB_OK;
    for (int64_t i = 0; i < r->report_to.n && i < 15; i++)
        names[i] = r->report_to.at[i];
    return mb_sinks_open(&run, names, &j->sinks);
}

static mb_status write_resolved_recipe(const mb_job *j)
{
    char path[4096], *text = NULL;
    mb_status st;

    if (j->comm->rank != 0)
        return MB_OK;
    MB_TRY(mb_path_join(path, sizeof path, j->recipe->output_dir, "recipe.resolved.yaml"));
    MB_TRY(mb_recipe_text(j->recipe, true, &text));
    st = mb_file_write_atomic(path, text, strlen(text));
    mb_free(text);
    return st;
}

static mb_status new_run_id(mb_job *j)
{
    if (j->comm->rank == 0)
        snprintf(j->run_id, sizeof j->run_id, "%016llx",
                 (unsigned long long)mb_rng_key((uint64_t)time(NULL), (uint64_t)getpid(),
                                                (uint64_t)(mb_clock() * 1e9)));
    return j->comm->ops->broadcast(j->comm, j->run_id, sizeof j->run_id, 0);
}

static mb_status open_data(mb_job *j, const mb_model_config *c, int64_t micro_units,
                           int64_t step_units)
{
    const int64_t live = mb_alloc_live(), own = mb_memory_own();
    int64_t taken;

    if (j->at.begun == 0) /* not resumed */
        j->at.begun = mb_chat_today();
    MB_TRY(j->comm->ops->broadcast(j->comm, &j->at.begun, sizeof j->at.begun, 0));
    if (j->like != NULL)
        MB_TRY(mb_comm_agree(j->comm, mb_data_borrow(j->like->data, &j->data)));
    else
        MB_TRY(mb_data_open(j->recipe, j->task, c, j->use == MB_JOB_PREDICT, j->at.begun, j->comm,
                            &j->data));
    j->data->reads_ahead = j->device != NULL && !mb_device_is_host(j->device);
    MB_TRY(mb_comm_agree(j->comm, mb_data_order(j->data, j->recipe, micro_units, step_units)));
    mb_alloc_trim();
    taken =
        mb_memory_own() - own; /* with what malloc adds; some of it may not have been touched yet */
    taken = most(taken, mb_alloc_live() - live);
    if (j->data->pictures != NULL)
        taken += mb_pictures_library_bytes(j->data->pictures);
    j->data_bytes = j->like != NULL ? j->like->data_bytes : taken;
    return MB_OK;
}

static mb_status look_at_output(mb_job *j)
{
    char **names = NULL;
    size_t n = 0;

    if (mb_path_is_dir(j->recipe->output_dir))
        MB_TRY(mb_path_list(j->recipe->output_dir, &names, &n));
    mb_path_list_free(names, n);
    j->fresh_output = n == 0;
    return MB_OK;
}

/* A run that never began leaves nothing in a folder that was empty; after a dry run the rows stay. */
static mb_status clear_output(const mb_job *j)
{
    const char *dir = j->recipe->output_dir;
    char path[MB_PATH_MAX];

    if (j->use != MB_JOB_TRAIN || j->checkpoints == NULL || !j->fresh_output ||
        (j->opened && !j->recipe->dry_run))
        return MB_OK;
    if (!j->opened) {
        MB_TRY(mb_path_join(path, sizeof path, dir, "cache"));
        MB_TRY(mb_path_remove_tree(path));
    }
    MB_TRY(mb_path_join(path, sizeof path, dir, ".lock"));
    MB_TRY(mb_path_remove_tree(path));
    rmdir(dir); /* unless something is in it */
    return MB_OK;
}

/* The folder is locked before anything is read from it, and before the model is loaded. */
static mb_status open_output(mb_job *j)
{
    const mb_checkpoints_options o = {.output_dir = j->recipe->output_dir,
                                      .keep = (int)j->recipe->save_total_limit};

    MB_TRY(mb_comm_agree(j->comm, j->comm->rank == 0 ? look_at_output(j) : MB_OK));
    MB_TRY(mb_checkpoints_open(j->mesh->parts, &o, &j->checkpoints));
    MB_TRY(mb_comm_agree(j->comm, mb_job_resume(j)));
    if (j->resumed_from != NULL)
        return MB_OK;
    /* checkpoints of an overwritten run must not be taken for this one's by a later resume */
    MB_TRY(mb_checkpoints_supersede(j->checkpoints, 0));
    return new_run_id(j);
}

static mb_status check_run(mb_job *j, const mb_model_config *c)
{
    MB_TRY(batch_sizes(j));
    MB_TRY(enough_micro_batches(j));
    MB_TRY(mb_job_metric_exists(j));
    MB_REQUIRE(c->family->sees_images || j->recipe->max_length <= c->positions, MB_EARG,
               "max_length %lld is beyond the %lld positions of %s",
               (long long)j->recipe->max_length, (long long)c->positions,
               j->recipe->model_name_or_path);
    return MB_OK;
}

static mb_status fill(mb_job *j, const mb_model_config *c)
{
    MB_TRY(check_run(j, c));
    MB_TRY(open_data(j, c, j->at.micro_units, j->at.step_units));
    MB_TRY(mb_comm_agree(j->comm, mb_job_same_data(j)));
    j->total_steps = mb_sampler_steps(j->data->train);
    MB_TRY(mb_recipe_schedule(j->recipe, j->total_steps, &j->schedule_kind, &j->schedule));
    MB_TRY(mb_comm_agree(j->comm, open_model(j)));
    MB_TRY(mb_comm_agree(j->comm, plan_steps(j)));
    MB_TRY(mb_comm_agree(j->comm, mb_job_profile_reserve(j)));
    MB_TRY(mb_comm_agree(j->comm, mb_job_base_digest(j)));
    MB_TRY(mb_comm_agree(j->comm, mb_job_fits(j)));
    MB_TRY(mb_comm_agree(j->comm, load_model(j)));
    MB_TRY(mb_comm_agree(j->comm, mb_engine_reserve(j->engine)));
    MB_TRY(mb_comm_agree(j->comm, open_optimizer(j)));
    if (j->resumed_from != NULL)
        MB_TRY(mb_job_restore(j));
    if (j->recipe->dry_run)
        return MB_OK;
    MB_TRY(mb_comm_agree(j->comm, open_sinks(j)));
    MB_TRY(mb_comm_agree(j->comm, write_resolved_recipe(j)));
    return mb_job_profile_start(j);
}

static mb_status open_train(mb_job *j, const mb_model_config *c)
{
    MB_TRY(mb_recipe_require(j->recipe, "train", "model_name_or_path", "datasets", "output_dir",
                             NULL));
    MB_TRY(mb_comm_agree(j->comm, mb_recipe_check_start(j->recipe)));
    MB_TRY(open_output(j));
    return fill(j, c);
}

/* ---- other uses --------------------------------------------------------------------------- */

/* Data, shapes and plans of a run, without reading the model's values or touching the output. */
static mb_status open_plan(mb_job *j, const mb_model_config *c)
{
    MB_TRY(mb_recipe_require(j->recipe, "plan", "model_name_or_path", "datasets", NULL));
    MB_TRY(check_run(j, c));
    MB_TRY(open_data(j, c, j->at.micro_units, j->at.step_units));
    j->total_steps = mb_sampler_steps(j->data->train);
    MB_TRY(mb_comm_agree(j->comm, open_model(j)));
    MB_TRY(mb_comm_agree(j->comm, mb_job_profile_reserve(j)));
    return mb_comm_agree(j->comm, plan_steps(j));
}

mb_status mb_job_prepare(mb_job *j)
{
    MB_TRY(mb_recipe_schedule(j->recipe, j->total_steps, &j->schedule_kind, &j->schedule));
    MB_TRY(mb_comm_agree(j->comm, mb_job_fits(j)));
    MB_TRY(mb_comm_agree(j->comm, load_model(j)));
    MB_TRY(mb_comm_agree(j->comm, mb_engine_reserve(j->engine)));
    return mb_comm_agree(j->comm, open_optimizer(j));
}

/* Evaluates eval_datasets, or the validation rows of datasets, or, when there is neither, all of
 * datasets. */
/* mbuyu predict says what evaluations find out about rows; of text and vectors others speak. */
static mb_status predicts(const mb_job *j)
{
    const mb_head head = j->task->head;

    MB_REQUIRE(
        j->task->answer != NULL && head != MB_HEAD_SEQ2SEQ && head != MB_HEAD_EMBED, MB_EARG,
        "mbuyu predict says classes, numbers, tags and answers; for task %s there is mbuyu %s",
        mb_choice_word(j->recipe->task),
        j->task->id == MB_TASK_SPEECH_RECOGNITION                      ? "transcribe"
        : head == MB_HEAD_EMBED || j->task->target == MB_TARGET_MASKED ? "eval"
                                                                       : "generate");
    return MB_OK;
}

static mb_status open_eval(mb_job *j, const mb_model_config *c)
{
    mb_recipe *r = j->recipe;

    MB_TRY(mb_recipe_require(r, verb_of(j), "model_name_or_path", NULL));
    if (j->use == MB_JOB_PREDICT)
        MB_TRY(predicts(j));
    MB_REQUIRE(r->datasets.n + r->eval_datasets.n > 0, MB_EARG,
               "mbuyu %s needs eval_datasets (files to look at) or datasets", verb_of(j));
    if (r->eval_datasets.n == 0 && (r->val_set_size == 0.0 || j->use == MB_JOB_PREDICT)) {
        const mb_datasets swap = r->eval_datasets;
        if (j->use == MB_JOB_EVAL)
            mb_log_info(
                "there are no eval_datasets and no val_set_size: these are the rows of datasets, "
                "which a model trained on them has seen");
        r->eval_datasets = r->datasets;
        r->datasets = swap;
    } else if (r->eval_datasets.n > 0) {
        r->datasets.n = 0;
    }
    MB_TRY(open_data(j, c, 1, 0));
    MB_TRY(mb_comm_agree(j->comm, open_model(j)));
    MB_TRY(mb_comm_agree(j->comm, plan_steps(j)));
    MB_TRY(mb_comm_agree(j->comm, load_model(j)));
    return mb_comm_agree(j->comm, mb_engine_reserve(j->engine));
}

/* A checkpoint's weights and nothing of its run: no data, no logs, no lock. One rank. */
static mb_status open_export(mb_job *j, const mb_model_config *c)
{
    const mb_zero_options o = {
        .stage = 1, .n_metrics = MB_METRICS_PER_MICRO, .n_votes = MB_VOTES, .max_micro = 1};
    const mb_optim_hyper hyper = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    const mb_mesh alone = mb_mesh_of_one_axis(j->comm);

    MB_TRY(mb_recipe_require(j->recipe, "export", "model_name_or_path", "output_dir", NULL));
    MB_TRY(mb_job_resume(j));
    MB_TRY(mb_data_open_tokenizer(j->recipe, &j->data));
    MB_TRY(open_model(j));
    MB_TRY(mb_job_base_digest(j));
    MB_TRY(load_model(j));
    MB_TRY(mb_zero_new(&alone, &j->engine->ex, &j->engine->flat, mb_optim_find(j->recipe->optim),
                       &hyper, &o, &j->zero));
    return mb_checkpoint_load(j->resumed_from, j->zero);
}

/* `otherwise` is the error of a rank whose recipe is not rank 0's. */
static mb_status same_recipe_everywhere(mb_comm *comm, const mb_recipe *r, const char *otherwise)
{
    char mine[65], first[65];

    MB_TRY(mb_comm_agree(comm, mb_recipe_digest(r, mine)));
    memcpy(first, mine, sizeof first);
    MB_TRY(comm->ops->broadcast(comm, first, sizeof first, 0));
    return mb_comm_agree(comm,
                         strcmp(mine, first) == 0 ? MB_OK : MB_RAISE(MB_EARG, "%s", otherwise));
}

/* Bits are promised per class of what computes; a mixture is worth a word. */
static mb_status compare_hardware(const mb_job *j)
{
    const char *mine = mb_job_hardware(j);
    char first[256] = "";

    snprintf(first, sizeof first, "%s", mine);
    MB_TRY(j->comm->ops->broadcast(j->comm, first, sizeof first, 0));
    if (strcmp(first, mine) != 0)
        mb_log_warn("this rank computes on %s, rank 0 on %s: results agree within rounding, and "
                    "depend on which rank does what",
                    mine, first);
    return MB_OK;
}

static mb_status open_for(mb_job *j)
{
    static mb_status (*const open[])(mb_job *,
                                     const mb_model_config *) = {[MB_JOB_TRAIN] = open_train,
                                                                 [MB_JOB_EVAL] = open_eval,
                                                                 [MB_JOB_PREDICT] = open_eval,
                                                                 [MB_JOB_PLAN] = open_plan,
                                                                 [MB_JOB_EXPORT] = open_export};
    mb_model_config c;

    if (j->use != MB_JOB_EXPORT)
        MB_TRY(open_device(j));
    j->library_bytes = mb_memory_own();
    MB_TRY(compare_hardware(j));
    MB_TRY(mb_comm_agree(j->comm, read_config(j, &c)));
    MB_TRY(same_recipe_everywhere(j->comm, j->recipe,
                                  "the folders that datasets name, or the model's config.json, are "
                                  "not the same on this rank as on rank 0"));
    MB_TRY(mb_comm_agree(j->comm, mb_job_choose_metrics(j)));
    MB_TRY(open[j->use](j, &c));
    return mb_job_open_groups(j);
}

/* Everything that is set before anything is looked at. */
static mb_status new_job(mb_recipe *r, const mb_launch *launch, mb_job_use use, mb_job **out)
{
    mb_job *j = NULL;

    MB_TRY(MB_NEW(&j));
    j->recipe = r;
    j->use = use;
    j->launch = launch;
    j->comm = launch->world;
    choose_task(j);
    j->save_aside = r->save_async != MB_NO;
    j->at.best = NAN;
    j->at.best_step = -1;
    j->at.first_loss = j->at.last_loss = j->at.last_eval_loss = NAN;
    *out = j;
    return MB_OK;
}

static mb_status finish_open(mb_job *j, mb_status st, mb_job **out)
{
    if (st == MB_OK)
        st = open_for(j);
    j->opened = st == MB_OK;
    if (st == MB_OK)
        *out = j;
    else
        mb_job_close(j);
    return st;
}

mb_status mb_job_open(mb_recipe *r, const mb_launch *launch, mb_job_use use, mb_job **out)
{
    mb_job *j = NULL;
    mb_status st;

    st = mb_comm_agree(launch->world, new_job(r, launch, use, &j));
    if (st != MB_OK) {
        mb_free(j);
        return st;
    }
    st = same_recipe_everywhere(j->comm, r, "this rank has another recipe than rank 0");
    if (st == MB_OK)
        st = mb_comm_agree(j->comm, mb_cpu_init());
    return finish_open(j, st, out);
}

mb_status mb_job_open_like(const mb_job *like, mb_recipe *r, const mb_launch *launch, mb_job **out)
{
    mb_job *j = NULL;

    MB_TRY(new_job(r, launch, MB_JOB_PLAN, &j));
    j->like = like;
    return finish_open(j, mb_comm_on_paper(NULL, launch->size, &j->comm), out);
}

void mb_job_close(mb_job *j)
{
    if (j == NULL)
        return;
    if (j->sinks != NULL && mb_sinks_close(&j->sinks) != MB_OK)
        mb_log_warn("%s", mb_status_sentence());
    if (clear_output(j) != MB_OK && j->opened)
        mb_log_warn("%s", mb_status_sentence());
    mb_checkpoints_close(j->checkpoints);
    mb_profile_free(j->profile);
    mb_zero_free(j->zero);
    mb_answer_text_close(j);
    mb_job_close_groups(j);
    mb_samples_close(j);
    mb_engine_free(j->engine);
    mb_mesh_free(j->mesh);
    if (j->like == NULL)
        mb_device_close(j->device);
    else
        mb_comm_free(j->comm);
    mb_data_free(j->data);
    mb_json_free(j->config);
    mb_free(j->resumed_from);
    mb_free(j);
}

mb_status mb_job_verb(mb_launch *launch, int argc, char **argv, mb_recipe_fn run, void *ctx)
{
    mb_recipe *r = NULL;
    mb_status st = mb_comm_agree(launch->world, mb_recipe_load(argc, argv, &r));

    if (st == MB_OK)
        st = mb_share_hub(launch->world, r);
    if (st == MB_OK && r->threads > 0) {
        launch->threads = (int)r->threads;
        omp_set_num_threads(launch->threads); /* rows are tokenised by as many */
    }
    if (st == MB_OK)
        st = run(launch, r, ctx);
    mb_recipe_free(r);
    return st;
}
