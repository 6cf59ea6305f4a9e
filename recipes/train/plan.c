/* recipes/train/plan.c - the memory of a job, known before it is touched. */
#include <stdio.h>

#include "autograd/load.h"
#include "core/cpu/gemm.h"
#include "core/log.h"
#include "core/memory.h"
#include "recipes/export/model.h"
#include "recipes/train/samples.h"

const char *const mb_memory_part_names[MB_MEMORY_PARTS] = {
    "weights",   "gradients",     "exact sums", "optimizer", "activations",
    "workspace", "communication", "files",      "data"};
const char *const mb_memory_phase_names[MB_MEMORY_PHASES] = {"loading", "training", "evaluation",
                                                             "saving",  "resuming", "final model"};

/* Whole, or the own range and a window of each kind. */
static int64_t gradient_elements(const mb_flat *f)
{
    int64_t n = f->own_to - f->own_from;

    if (f->stage < 2)
        return f->count;
    for (int w = 0; w < MB_FLAT_WINDOWS; w++)
        n += mb_flat_window_count(f, w);
    return n;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Activations and workspace of the largest micro-batch. Gradients that lie in its memory are what they
 * add to it. */
static void training_step(const mb_engine *e, int64_t *bytes)
{
    int64_t peak = 0;

    for (int i = 0; i < e->n_classes; i++) {
        const mb_engine_class *c = &e->class_plan[i];
        if (!c->train)
            continue;
        peak = most(peak, (int64_t)c->plan.peak);
        bytes[MB_PART_ACTIVATIONS] =
            most(bytes[MB_PART_ACTIVATIONS], (int64_t)c->plan.without_gradients);
        bytes[MB_PART_WORKSPACE] = most(bytes[MB_PART_WORKSPACE], (int64_t)c->scratch);
    }
    if (e->flat.grad_in_step)
        bytes[MB_PART_GRADIENTS] = peak - bytes[MB_PART_ACTIVATIONS];
}

/* Evaluations use the memory of training steps, and more where they need it. */
static void evaluation_step(const mb_engine *e, const mb_engine_class *c, int64_t *bytes)
{
    const int64_t lent = e->flat.grad_in_step ? bytes[MB_PART_GRADIENTS] : 0;

    bytes[MB_PART_ACTIVATIONS] = most(bytes[MB_PART_ACTIVATIONS], (int64_t)c->plan.peak - lent);
    bytes[MB_PART_WORKSPACE] = most(bytes[MB_PART_WORKSPACE], (int64_t)c->scratch);
}

static void evaluation_steps(const mb_engine *e, int64_t *bytes)
{
    for (int i = 0; i < e->n_classes; i++)
        if (!e->class_plan[i].train)
            evaluation_step(e, &e->class_plan[i], bytes);
    for (int i = 0; i < 2; i++)
        evaluation_step(e, &e->logits_plan[i], bytes);
}

/* What every phase has, and training with it. */
static void training(const mb_job *j, const mb_zero_options *z, int64_t *bytes)
{
    const mb_flat *f = &j->engine->flat;

    bytes[MB_PART_GRADIENTS] = f->grad_in_step ? 0 : gradient_elements(f) * (int64_t)sizeof(float);
    bytes[MB_PART_EXACT] = f->is_exact ? gradient_elements(f) * (int64_t)sizeof(int64_t) : 0;
    bytes[MB_PART_WEIGHTS] =
        (int64_t)j->engine->run_bytes - bytes[MB_PART_GRADIENTS] - bytes[MB_PART_EXACT];
    bytes[MB_PART_OPTIMIZER] =
        (int64_t)mb_zero_state_bytes(f, mb_optim_find(j->recipe->optim), z->stage,
                                     j->mesh->dp_inner->rank, j->mesh->dp_inner->size);
    bytes[MB_PART_COMMUNICATION] = (int64_t)mb_zero_work_bytes(j->mesh->dp_inner, f, z);
    bytes[MB_PART_DATA] = j->data_bytes + mb_profile_bytes(j->profile) + mb_samples_bytes(j);
    training_step(j->engine, bytes);
}

static void copy(int64_t *to, const int64_t *from, bool steps)
{
    for (int i = 0; i < MB_MEMORY_PARTS; i++)
        to[i] = from[i];
    if (!steps)
        to[MB_PART_ACTIVATIONS] = to[MB_PART_WORKSPACE] = 0;
}

/* A checkpoint's files while it is written, and the copy of the state that a save in the background is
 * made from. */
static int64_t saving_bytes(const mb_job *j)
{
    const mb_flat *f = &j->engine->flat;
    const mb_optim_kind *kind = mb_optim_find(j->recipe->optim);
    const mb_checkpoints_options o = {.output_dir = ""};
    const int rank = j->mesh->parts->rank, size = j->mesh->parts->size;

    return (int64_t)mb_checkpoint_image_bytes(&o, f, kind, rank, size, j->save_aside) +
           (j->save_aside ? (int64_t)mb_checkpoint_aside_bytes(f, kind, rank, size) : 0);
}

/* A provider of f32 products packs what it multiplies into memory of its own. */
static int64_t provider_bytes(const mb_job *j)
{
    const bool has = mb_device_is_host(j->device) && j->dtype == MB_DTYPE_F32;

    return has ? (int64_t)mb_cpu_gemm_library_bytes(j->device->threads) : 0;
}

static void phases(const mb_job *j, const mb_zero_options *z, mb_memory_plan *p)
{
    const mb_optim_kind *kind = mb_optim_find(j->recipe->optim);
    const bool saves = j->recipe->save_strategy != MB_SAVE_NO || j->recipe->save_first_step;
    int64_t(*b)[MB_MEMORY_PARTS] = p->bytes;

    training(j, z, b[MB_PHASE_TRAINING]);
    copy(b[MB_PHASE_EVALUATION], b[MB_PHASE_TRAINING], true);
    evaluation_steps(j->engine, b[MB_PHASE_EVALUATION]);
    copy(b[MB_PHASE_SAVING], b[MB_PHASE_EVALUATION], true);
    b[MB_PHASE_SAVING][MB_PART_FILES] = saving_bytes(j);
    copy(b[MB_PHASE_RESUMING], b[MB_PHASE_TRAINING], false);
    b[MB_PHASE_RESUMING][MB_PART_GRADIENTS] = b[MB_PHASE_RESUMING][MB_PART_EXACT] = 0;
    b[MB_PHASE_RESUMING][MB_PART_FILES] = (int64_t)mb_checkpoint_load_bytes(&j->engine->flat, kind);
    copy(b[MB_PHASE_LOADING], b[MB_PHASE_RESUMING], false);
    b[MB_PHASE_LOADING][MB_PART_OPTIMIZER] = b[MB_PHASE_LOADING][MB_PART_COMMUNICATION] = 0;
    b[MB_PHASE_LOADING][MB_PART_FILES] = (int64_t)mb_model_load_bytes(j->engine->model);
    copy(b[MB_PHASE_FINAL], b[MB_PHASE_TRAINING], false);
    if (j->engine->flat.grad_in_step)
        b[MB_PHASE_FINAL][MB_PART_GRADIENTS] = 0;
    if (j->comm->rank == 0)
        b[MB_PHASE_FINAL][MB_PART_FILES] = (int64_t)mb_export_bytes(j->engine->model);
    for (int i = MB_PHASE_TRAINING; i <= MB_PHASE_SAVING; i++)
        b[i][MB_PART_WORKSPACE] += provider_bytes(j);
    for (int i = 0; i < MB_MEMORY_PHASES; i++)
        p->happens[i] = true;
    p->happens[MB_PHASE_EVALUATION] =
        j->data->eval != NULL &&
        (j->recipe->eval_strategy != MB_EVAL_NO || j->recipe->eval_on_start);
    p->happens[MB_PHASE_SAVING] = saves;
    p->happens[MB_PHASE_RESUMING] = j->use == MB_JOB_PLAN ? saves : j->resumed_from != NULL;
}

/* What lies beside the host's memory. */
static int64_t on_device(const mb_job *j, const int64_t *bytes)
{
    int64_t n = 0;

    for (int i = MB_PART_WEIGHTS; i <= MB_PART_WORKSPACE && !mb_device_is_host(j->device); i++)
        n += bytes[i];
    return n;
}

/* The batch there, and the pinned memory it goes through. */
static void add_feed(const mb_job *j, const mb_zero_options *z, int64_t *bytes)
{
    const int64_t n = (z->max_micro + j->comm->size - 1) / j->comm->size;

    bytes[MB_PART_COMMUNICATION] +=
        (int64_t)mb_feed_pinned_bytes(j->engine->batch_bytes, n, j->data->batch->max_targets);
    bytes[MB_PART_ACTIVATIONS] += (int64_t)j->engine->batch_bytes;
}

void mb_job_memory(const mb_job *j, mb_memory_plan *p)
{
    const mb_zero_options z = {.stage = (int)j->recipe->zero_stage,
                               .n_metrics = MB_METRICS_PER_MICRO,
                               .n_votes = MB_VOTES,
                               .max_micro = mb_sampler_max_micro(j->data->train)};

    *p = (mb_memory_plan){0};
    phases(j, &z, p);
    for (int i = 0; i < MB_MEMORY_PHASES; i++) {
        if (!mb_device_is_host(j->device) && i != MB_PHASE_LOADING)
            add_feed(j, &z, p->bytes[i]);
        for (int k = 0; k < MB_MEMORY_PARTS; k++)
            p->total[i] += p->bytes[i][k];
        if (!p->happens[i])
            continue;
        const int64_t there = on_device(j, p->bytes[i]);
        p->device = most(p->device, there);
        p->host = most(p->host, p->total[i] - there);
        if (p->total[i] > p->most) {
            p->most = p->total[i];
            p->peak = (mb_memory_phase)i;
        }
    }
}

static double mib(int64_t bytes)
{
    return (double)bytes / 1048576.0;
}

/* Tokens and tokenizer are in the plan and already taken. */
mb_status mb_job_room(const mb_job *j, int64_t given, mb_memory_room *out)
{
    mb_memory_limit limit;

    *out = (mb_memory_room){.device = INT64_MAX};
    MB_TRY(mb_memory_limits("", &limit));
    out->host = limit.available / j->launch->local_size + j->data_bytes;
    if (!mb_device_is_host(j->device))
        MB_TRY(j->device->ops->memory(j->device, &out->device, &out->device_all));
    if (given > 0 && mb_device_is_host(j->device))
        out->host = given / j->launch->local_size;
    else if (given > 0)
        out->device = given;
    return MB_OK;
}

bool mb_memory_fits(const mb_memory_plan *p, const mb_memory_room *room)
{
    return p->host <= room->host && p->device <= room->device;
}

void mb_job_memory_in(mb_job *j, const mb_memory_room *room, mb_memory_plan *out)
{
    mb_job_memory(j, out);
    if (out->host <= room->host || !j->save_aside || j->recipe->save_async != MB_AUTO)
        return;
    j->save_aside = false;
    mb_job_memory(j, out);
}

mb_status mb_job_fits(mb_job *j)
{
    const int n = j->launch->local_size;
    const bool aside = j->save_aside;
    mb_memory_room room;
    mb_memory_plan p;

    MB_TRY(mb_job_room(j, 0, &room));
    mb_job_memory_in(j, &room, &p);
    if (aside && !j->save_aside)
        mb_log_info("no memory for a copy of the state: steps wait while a checkpoint is written");
    MB_REQUIRE(p.device <= room.device, MB_ENOMEM,
               "this run needs %.0f MiB on each GPU, %.0f of %.0f MiB of %s are free; `mbuyu plan` "
               "lists changes that make it fit",
               mib(p.device), mib(room.device), mib(room.device_all), j->device->name);
    MB_REQUIRE(p.host <= room.host, MB_ENOMEM,
               "this run needs %.0f MiB on each rank, %.0f MiB are there (%d %s on this machine); "
               "`mbuyu plan` lists changes that make it fit",
               mib(p.host), mib(room.host), n, n == 1 ? "rank" : "ranks");
    return MB_OK;
}

void mb_job_log_memory(const mb_job *j)
{
    mb_memory_plan p;

    mb_job_memory(j, &p);
    const int64_t *b = p.bytes[p.peak];
    mb_log_info("memory per rank: %.0f MiB planned (weights %.0f, gradients %.0f, optimizer %.0f, "
                "activations %.0f, workspace %.0f, communication %.0f, files %.0f, data %.0f%s)",
                mib(p.most), mib(b[MB_PART_WEIGHTS]), mib(b[MB_PART_GRADIENTS] + b[MB_PART_EXACT]),
                mib(b[MB_PART_OPTIMIZER]), mib(b[MB_PART_ACTIVATIONS]), mib(b[MB_PART_WORKSPACE]),
                mib(b[MB_PART_COMMUNICATION]), mib(b[MB_PART_FILES]), mib(b[MB_PART_DATA]),
                b[MB_PART_EXACT] > 0 ? "; gradients include the exact accumulator" : "");
}
