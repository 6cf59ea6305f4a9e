/* recipes/train/probe.c - how fast a run will be: some of its steps, timed. */
#include "core/log.h"
#include "core/memory.h"
#include "recipes/train/job.h"

enum { WARMUP = 2, EVALUATED = 8 }; /* steps that are not timed; micro-batches of a rank */

/* Of the first epoch, which others are like. */
static double tokens_per_step(const mb_job *j)
{
    const mb_data *d = j->data;
    double tokens = 0;

    for (int64_t i = 0; i < d->n_train; i++)
        tokens +=
            (double)(d->store->offset[d->train_rows[i] + 1] - d->store->offset[d->train_rows[i]]);
    return tokens / (double)mb_sampler_steps_per_epoch(d->train);
}

/* The slowest rank's, so that all say the same. */
static mb_status agree_on(const mb_job *j, double *seconds)
{
    return j->comm->ops->all_reduce(j->comm, seconds, 1, MB_DTYPE_F64, MB_MAX);
}

static mb_status time_steps(mb_job *j, int64_t steps, mb_probe *out)
{
    const int64_t skip = steps > 2 * WARMUP ? WARMUP : steps > 1 ? 1 : 0;
    double votes[MB_VOTES], seconds = 0, tokens = 0;
    mb_zero_result r;
    mb_step s;

    for (int64_t i = 0; i < steps; i++) {
        const double before = mb_clock();
        MB_TRY(mb_sampler_step(j->data->train, i, &s));
        MB_TRY(mb_job_step(j, &s, votes, &r));
        if (mb_memory_own() - j->library_bytes > out->peak_bytes)
            out->peak_bytes = mb_memory_own() - j->library_bytes;
        if (i < skip)
            continue;
        seconds += mb_clock() - before;
        tokens += (double)s.tokens;
    }
    MB_TRY(agree_on(j, &seconds));
    MB_TRY(j->comm->ops->all_reduce(j->comm, &out->peak_bytes, 1, MB_DTYPE_I64, MB_MAX));
    out->steps = steps;
    out->timed = steps - skip;
    out->step_seconds = seconds / (double)out->timed;
    out->tokens_per_second = tokens / seconds;
    out->train_hours = tokens_per_step(j) * (double)j->total_steps / out->tokens_per_second / 3600;
    return MB_OK;
}

static mb_status time_evaluation(mb_job *j, mb_probe *out)
{
    const double before = mb_clock();
    double share, seconds;

    MB_TRY(mb_job_evaluate_part(j, EVALUATED, &share));
    seconds = mb_clock() - before;
    MB_TRY(agree_on(j, &seconds));
    out->evaluation_seconds = seconds / share;
    return MB_OK;
}

mb_status mb_job_probe(mb_job *j, int64_t steps, mb_probe *out)
{
    const mb_optim_kind *kind = mb_optim_find(j->recipe->optim);
    const mb_flat *f = &j->engine->flat;

    *out = (mb_probe){0};
    MB_TRY(mb_job_prepare(j));
    MB_TRY(time_steps(j, steps < j->total_steps ? steps : j->total_steps, out));
    mb_job_due(j, &out->evaluations, &out->saves);
    if (out->evaluations > 0)
        MB_TRY(time_evaluation(j, out));
    out->save_bytes = f->count * (int64_t)sizeof(float) * (1 + kind->n_states);
    out->hours = out->train_hours + (double)out->evaluations * out->evaluation_seconds / 3600;
    return MB_OK;
}
