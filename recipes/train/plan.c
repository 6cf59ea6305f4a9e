/* recipes/train/plan.c - the memory of a job, known before it is touched. */
#include <stdio.h>

#include "core/log.h"
#include "core/memory.h"
#include "recipes/train/job.h"

/* While a checkpoint is written: a file of it, and the copy of the state that a save in the background
 * is made from. Later, while rank 0 writes the model: all parameters that it does not have whole. */
static int64_t checkpoint_bytes(const mb_job *j)
{
    const mb_flat *f = &j->engine->flat;
    const mb_optim_kind *kind = mb_optim_find(j->recipe->optim);
    const mb_checkpoints_options o = {.output_dir = ""};
    const int rank = j->mesh->parts->rank, size = j->mesh->parts->size;
    int64_t whole = 0, saved = 0;

    if (j->comm->rank == 0 && mb_flat_master_apart(f))
        whole = f->count * (int64_t)sizeof(float);
    if (j->recipe->save_strategy != MB_SAVE_NO)
        saved = (int64_t)mb_checkpoint_image_bytes(&o, f, kind, rank, size);
    if (j->recipe->save_strategy != MB_SAVE_NO && j->save_aside)
        saved += (int64_t)mb_checkpoint_aside_bytes(f, kind, rank, size);
    return saved > whole ? saved : whole;
}

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

void mb_job_memory(const mb_job *j, mb_memory_plan *p)
{
    const mb_flat *f = &j->engine->flat;
    const mb_optim_kind *kind = mb_optim_find(j->recipe->optim);
    const mb_zero_options z = {.stage = (int)j->recipe->zero_stage,
                               .n_metrics = MB_METRICS_PER_MICRO,
                               .n_votes = MB_VOTES,
                               .max_micro = mb_sampler_max_micro(j->data->train)};

    *p = (mb_memory_plan){0};
    p->gradients = gradient_elements(f) * (int64_t)sizeof(float);
    p->exact = f->is_exact ? gradient_elements(f) * (int64_t)sizeof(int64_t) : 0;
    p->weights = (int64_t)j->engine->run_bytes - p->gradients - p->exact;
    p->optimizer = (int64_t)mb_zero_state_bytes(f, kind, z.stage, j->mesh->dp_inner->rank,
                                                j->mesh->dp_inner->size);
    p->communication = (int64_t)mb_zero_work_bytes(j->mesh->dp_inner, f, &z);
    p->activations = (int64_t)j->engine->step_bytes;
    p->workspace = (int64_t)j->engine->scratch_bytes;
    p->checkpoints = checkpoint_bytes(j);
    p->data = j->data_bytes + mb_profile_bytes(j->profile);
    p->total = p->weights + p->gradients + p->exact + p->optimizer + p->activations + p->workspace +
               p->communication + p->checkpoints + p->data;
    if (mb_device_is_host(j->device))
        return;
    const int64_t pinned = (int64_t)mb_feed_pinned_bytes(
        j->engine->batch_bytes, (z.max_micro + j->comm->size - 1) / j->comm->size,
        j->data->batch->max_targets);
    p->communication += pinned;
    p->activations += (int64_t)j->engine->batch_bytes;
    p->total += pinned + (int64_t)j->engine->batch_bytes;
    p->on_device =
        p->weights + p->gradients + p->exact + p->optimizer + p->activations + p->workspace;
}

static double mib(int64_t bytes)
{
    return (double)bytes / 1048576.0;
}

static mb_status fits_on_device(const mb_job *j, const mb_memory_plan *p)
{
    int64_t available, all;
    char stage[24] = "";

    if (p->on_device == 0)
        return MB_OK;
    MB_TRY(j->device->ops->memory(j->device, &available, &all));
    if (j->comm->size > 1 && j->recipe->zero_stage < 3)
        snprintf(stage, sizeof stage, ", zero_stage=%d", j->recipe->zero_stage < 2 ? 2 : 3);
    MB_REQUIRE(
        p->on_device <= available, MB_ENOMEM,
        "this run needs %.0f MiB on each GPU, %.0f of %.0f MiB of %s are free: try "
        "gradient_checkpointing=true, a smaller per_device_train_batch_size or max_length%s%s",
        mib(p->on_device), mib(available), mib(all), j->device->name, stage,
        j->recipe->finetuning_type == MB_FINETUNING_LORA ? "" : ", or finetuning_type=lora");
    return MB_OK;
}

mb_status mb_job_fits(mb_job *j)
{
    mb_memory_limit limit;
    mb_memory_plan p;

    mb_job_memory(j, &p);
    MB_TRY(mb_memory_limits("", &limit));
    const int64_t have = limit.available / j->launch->local_size;
    if (p.total - p.on_device > have && j->save_aside && j->recipe->save_async == MB_AUTO) {
        j->save_aside = false;
        mb_job_memory(j, &p);
        mb_log_info("no memory for a copy of the state: steps wait while a checkpoint is written");
    }
    MB_TRY(fits_on_device(j, &p));
    MB_REQUIRE(
        p.total - p.on_device <= have, MB_ENOMEM,
        "this run needs %.0f MiB on each rank, %.0f MiB are there (%d %s on this machine): try "
        "gradient_checkpointing=true, a smaller per_device_train_batch_size or max_length%s, "
        "or fewer ranks here",
        mib(p.total - p.on_device), mib(have), j->launch->local_size,
        j->launch->local_size == 1 ? "rank" : "ranks",
        j->recipe->finetuning_type == MB_FINETUNING_LORA ? "" : ", finetuning_type=lora");
    return MB_OK;
}

void mb_job_log_memory(const mb_job *j)
{
    mb_memory_plan p;

    mb_job_memory(j, &p);
    mb_log_info(
        "memory per rank: %.0f MiB planned (weights %.0f, gradients %.0f, optimizer %.0f, "
        "activations %.0f, workspace %.0f, communication %.0f, checkpoints %.0f, data %.0f%s)",
        mib(p.total), mib(p.weights), mib(p.gradients + p.exact), mib(p.optimizer),
        mib(p.activations), mib(p.workspace), mib(p.communication), mib(p.checkpoints), mib(p.data),
        p.exact > 0 ? "; gradients include the exact accumulator" : "");
}
