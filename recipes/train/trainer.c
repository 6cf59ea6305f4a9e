/* recipes/train/trainer.c - the training loop.
 *
 * One global step: the sampler says which rows; this rank runs its share of the micro-batches; the
 * gradients of the summed loss are reduced, divided by the trained tokens of all ranks, clipped,
 * and each rank updates its shard (dist/zero.h). A step ends applied, skipped (something was not
 * finite, on all ranks alike) or is repeated once (exact reduction). Stops, evaluations and saves
 * happen at the same step everywhere, because what decides rides in the step's own reduction.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/memory.h"
#include "recipes/train/samples.h"

static mb_status run_micro(mb_job *j, const mb_step *s, int64_t m, int64_t slot, bool last)
{
    mb_micro micro;

    mb_step_micro(s, m, &micro);
    mb_profile_begin(j->profile, MB_SPAN_DATA);
    MB_TRY(
        mb_collate(&j->data->collate, j->data->store, &micro, (uint32_t)s->step, j->data->batch));
    mb_profile_end(j->profile, MB_SPAN_DATA);
    MB_TRY(mb_zero_enter(j->zero, m, last));
    j->engine->grad_scale = (float)mb_zero_loss_scale(j->zero);
    MB_TRY(mb_engine_queue(j->engine, j->data->batch, slot));
    return mb_zero_micro(j->zero, m);
}

/* What came of it; the first to ask waits for all. */
static mb_status note_micro(mb_job *j, const mb_step *s, int64_t m, int64_t slot)
{
    double metric[MB_METRICS_PER_MICRO];
    mb_micro_result r;
    mb_micro micro;

    mb_step_micro(s, m, &micro);
    MB_TRY(mb_engine_result(j->engine, slot, &r));
    metric[MB_ZERO_LOSS] = r.loss;
    metric[MB_ZERO_TOKENS] = r.weight;
    metric[MB_METRIC_SEEN] = (double)micro.tokens;
    mb_zero_note(j->zero, m, metric);
    return MB_OK;
}

/* This rank's micro-batches. A failure here is this rank's alone and the others wait for it in the
 * reduction: they learn of it by the launcher (see mb_cmd_train). */
static mb_status run_micros(mb_job *j, const mb_step *s)
{
    int64_t from, to;

    MB_TRY(mb_zero_begin(j->zero, s->n_micro));
    mb_micro_range(s->n_micro, j->comm->rank, j->comm->size, &from, &to);
    MB_TRY(mb_data_expect(j->data, s, j->comm->rank, j->comm->size));
    MB_ASSERT(!j->engine->flat.grad_in_step || j->engine->flat.is_exact || to - from <= 1);
    if (j->engine->flat.grad_in_step && from == to) /* no step clears what others add */
        MB_TRY(mb_engine_zero_grad(j->engine));
    for (int64_t m = from; m < to; m++)
        MB_TRY(run_micro(j, s, m, m - from, m + 1 == to));
    for (int64_t m = from; m < to; m++)
        MB_TRY(note_micro(j, s, m, m - from));
    return MB_OK;
}

mb_status mb_job_step(mb_job *j, const mb_step *s, double *votes, mb_zero_result *r)
{
    const int64_t allocations = mb_alloc_count();
    const mb_zero_args args = {
        .lr = mb_schedule_lr(j->schedule_kind, &j->schedule, mb_zero_history_of(j->zero)->applied),
        .max_grad_norm = j->recipe->max_grad_norm,
    };

    int64_t sent;

    do {
        sent = mb_mesh_bytes_sent(j->mesh);
        MB_TRY(run_micros(j, s));
        votes[MB_VOTE_STOP] = mb_stop_poll() != MB_STOP_NO ? 1.0 : 0.0;
        if (j->checkpoints != NULL)
            mb_checkpoints_vote(j->checkpoints, votes + MB_VOTE_SAVE);
        MB_TRY(mb_zero_step(j->zero, &args, votes, r));
    } while (r->outcome == MB_ZERO_REPEAT);
    j->step_allocations += mb_alloc_count() - allocations;
    mb_log_debug("step %lld: %lld bytes sent, %lld by the formula", (long long)s->step + 1,
                 (long long)(mb_mesh_bytes_sent(j->mesh) - sent),
                 (long long)mb_zero_step_bytes(j->zero, s->n_micro));
    return MB_OK;
}

/* ---- logs --------------------------------------------------------------------------------- */

static mb_status log_metrics(mb_job *j, const mb_metrics *m)
{
    return j->sinks != NULL ? mb_sinks_log(j->sinks, m) : MB_OK;
}

static double rate(const mb_log_window *w)
{
    return w->seconds > 0.0 ? w->seen / w->seconds : NAN;
}

static mb_status log_window(mb_job *j, const mb_step *s, mb_log_window *w, double lr)
{
    mb_metrics m = {.step = j->at.step, .epoch = s->epochs_done};

    if (w->steps == 0.0)
        return MB_OK;
    mb_metrics_add(&m, "loss", w->loss / w->divisor);
    mb_metrics_add(&m, "grad_norm", w->grad_norm);
    mb_metrics_add(&m, "learning_rate", lr);
    mb_metrics_add(&m, "num_tokens", (double)j->at.seen);
    mb_metrics_add(&m, "num_trained_tokens", (double)j->at.tokens);
    mb_metrics_add(&m, "tokens_per_second", rate(w));
    mb_metrics_add(&m, "step_time", w->seconds / w->steps);
    mb_metrics_add(&m, "num_memory_bytes", (double)mb_memory_own());
    *w = (mb_log_window){0};
    return log_metrics(j, &m);
}

static void note_memory(mb_job *j, int64_t own)
{
    if (own > j->peak_bytes)
        j->peak_bytes = own;
}

static void note_step(mb_job *j, const mb_step *s, const mb_zero_result *r, double seconds,
                      double lr, mb_log_window *w)
{
    const mb_progress p = {.step = j->at.step,
                           .total = j->total_steps,
                           .loss = r->loss,
                           .learning_rate = lr,
                           .tokens_per_second = r->metric[MB_METRIC_SEEN] / seconds};

    note_memory(j, mb_memory_own());
    j->at.seconds += seconds;
    j->at.seen += (int64_t)r->metric[MB_METRIC_SEEN];
    if (r->outcome == MB_ZERO_APPLIED) {
        j->at.tokens += (int64_t)r->metric[MB_ZERO_TOKENS];
        j->at.last_loss = r->loss;
        if (isnan(j->at.first_loss))
            j->at.first_loss = r->loss;
        w->loss += r->metric[MB_ZERO_LOSS];
        w->divisor += r->divisor;
        w->grad_norm = r->grad_norm;
        w->steps += 1.0;
    } else {
        mb_log_info("step %lld skipped: a loss or gradient is not finite (micro-batch %lld)",
                    (long long)s->step + 1, (long long)r->bad_micro);
    }
    w->seen += r->metric[MB_METRIC_SEEN];
    w->seconds += seconds;
    if (j->sinks != NULL)
        mb_sinks_progress(j->sinks, &p);
}

/* ---- evaluation and what follows from it -------------------------------------------------- */

/* The metric's full name ("loss" and "eval_loss" are the same) and whether more of it is better; NULL:
 * this task's evaluation has none of that name. */
static const char *metric_name(const mb_job *j, bool *greater)
{
    const char *wanted = j->recipe->metric_for_best_model;
    const mb_metric *m;

    *greater = false;
    if (strcmp(wanted, "eval_loss") == 0 || strcmp(wanted, "loss") == 0)
        return "eval_loss";
    if (j->task->answer == NULL &&
        (strcmp(wanted, "eval_perplexity") == 0 || strcmp(wanted, "perplexity") == 0))
        return "eval_perplexity";
    if (!mb_job_has_metric(j, wanted, &m))
        return NULL;
    *greater = m->greater_is_better;
    return m->eval_name;
}

static bool better(const mb_job *j, double value)
{
    bool greater;

    metric_name(j, &greater);
    if (j->recipe->greater_is_better != MB_AUTO)
        greater = j->recipe->greater_is_better == MB_YES;
    const double gain = greater ? value - j->at.best : j->at.best - value;

    return isnan(j->at.best) || gain > j->recipe->early_stopping_threshold;
}

static bool out_of_patience(const mb_job *j)
{
    return j->recipe->early_stopping_patience > 0 &&
           j->at.without_progress >= j->recipe->early_stopping_patience;
}

mb_status mb_job_metric_exists(const mb_job *j)
{
    char names[512];
    size_t n = (size_t)snprintf(names, sizeof names, "eval_loss%s",
                                j->task->answer == NULL ? " and eval_perplexity" : "");
    bool greater;

    for (int i = 0; i < j->n_metrics && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s",
                              i + 1 < j->n_metrics ? ", " : " and ", j->metric[i]->eval_name);
    MB_REQUIRE(metric_name(j, &greater) != NULL, MB_EARG,
               "%s: metric_for_best_model is '%s'; this task's evaluation has %s",
               mb_recipe_where(j->recipe, "metric_for_best_model"),
               j->recipe->metric_for_best_model, names);
    return MB_OK;
}

/* *save: a new best that must be kept. *stop: no progress for too long, or asked to. */
static mb_status evaluate(mb_job *j, double epoch, bool *save, bool *stop)
{
    mb_metrics m = {.step = j->at.step, .epoch = epoch};
    bool given_up, greater;
    double loss;

    mb_profile_begin(j->profile, MB_SPAN_EVALUATION);
    MB_TRY(mb_job_evaluate(j, &m, &loss, &given_up));
    mb_profile_end(j->profile, MB_SPAN_EVALUATION);
    note_memory(j, mb_memory_own());
    j->at.evaluate_again = given_up;
    if (given_up) {
        j->stopped = true;
        return MB_OK;
    }
    j->at.last_eval_loss = loss;
    MB_TRY(mb_comm_agree(j->comm, log_metrics(j, &m)));
    MB_TRY(mb_samples_write(j));
    const double value = *mb_metrics_get(&m, metric_name(j, &greater));
    if (!better(j, value)) {
        j->at.without_progress++;
        *stop = out_of_patience(j);
        return MB_OK;
    }
    j->at.without_progress = 0;
    j->at.best = value;
    if (j->recipe->save_strategy == MB_SAVE_BEST || j->recipe->load_best_model_at_end) {
        *save = true;
        j->at.best_step = j->at.step;
    }
    return MB_OK;
}

static mb_status save_now(mb_job *j, bool wait)
{
    mb_profile_begin(j->profile, MB_SPAN_CHECKPOINT);
    MB_TRY(mb_job_save(j, wait));
    mb_profile_end(j->profile, MB_SPAN_CHECKPOINT);
    return MB_OK;
}

/* ---- when --------------------------------------------------------------------------------- */

static bool every(double steps, int64_t total, int64_t step)
{
    const int64_t n = mb_recipe_steps(steps, total);

    return n > 0 && step % n == 0;
}

static bool epoch_ends(const mb_step *s)
{
    return s->step_in_epoch + 1 == s->steps_in_epoch;
}

static bool time_to_evaluate(const mb_job *j, const mb_step *s)
{
    const mb_recipe *r = j->recipe;
    const double steps = r->eval_steps > 0.0 ? r->eval_steps : r->logging_steps;

    if (j->data->eval == NULL || r->eval_strategy == MB_EVAL_NO)
        return false;
    if (j->at.step == j->total_steps)
        return true;
    return r->eval_strategy == MB_EVAL_EPOCH ? epoch_ends(s)
                                             : every(steps, j->total_steps, j->at.step);
}

static bool time_to_save(const mb_job *j, const mb_step *s)
{
    const mb_recipe *r = j->recipe;

    if (r->save_first_step && j->at.step == 1)
        return true;
    if (r->save_strategy == MB_SAVE_EPOCH)
        return epoch_ends(s) || j->at.step == j->total_steps;
    return r->save_strategy == MB_SAVE_STEPS &&
           (every(r->save_steps, j->total_steps, j->at.step) || j->at.step == j->total_steps);
}

static bool time_to_log(const mb_job *j)
{
    return every(j->recipe->logging_steps, j->total_steps, j->at.step) ||
           j->at.step == j->total_steps || (j->recipe->logging_first_step && j->at.step == 1);
}

/* Every n steps and at the end. */
static int64_t times(int64_t total, int64_t n)
{
    return n > 0 ? (total + n - 1) / n : 1;
}

void mb_job_due(const mb_job *j, int64_t *evaluations, int64_t *saves)
{
    const mb_recipe *r = j->recipe;
    const int64_t total = j->total_steps, epoch = mb_sampler_steps_per_epoch(j->data->train);
    const double steps = r->eval_steps > 0.0 ? r->eval_steps : r->logging_steps;

    *evaluations = *saves = 0;
    if (j->data->eval != NULL && r->eval_strategy != MB_EVAL_NO)
        *evaluations =
            times(total, r->eval_strategy == MB_EVAL_EPOCH ? epoch : mb_recipe_steps(steps, total));
    if (j->data->eval != NULL && r->eval_on_start)
        *evaluations += 1;
    if (r->save_strategy == MB_SAVE_EPOCH)
        *saves = times(total, epoch);
    if (r->save_strategy == MB_SAVE_STEPS)
        *saves = times(total, mb_recipe_steps(r->save_steps, total));
    if (r->save_first_step)
        *saves += 1;
}

/* ---- the loop ----------------------------------------------------------------------------- */

static mb_status after_step(mb_job *j, const mb_step *s, const double *votes, mb_log_window *w,
                            double lr, bool *done)
{
    mb_save_outcome outcome;
    bool save = time_to_save(j, s), no_progress = false;

    MB_TRY(mb_checkpoints_poll(j->checkpoints, votes + MB_VOTE_SAVE, &outcome));
    MB_TRY(mb_job_saved(j, outcome));
    if (time_to_log(j))
        MB_TRY(mb_comm_agree(j->comm, log_window(j, s, w, lr)));
    if (time_to_evaluate(j, s))
        MB_TRY(evaluate(j, s->epochs_done, &save, &no_progress));
    j->stopped = j->stopped || (votes[MB_VOTE_STOP] > 0.0 && j->at.step < j->total_steps);
    if (no_progress)
        mb_log_info("step %lld: no progress in %lld evaluations, training ends here",
                    (long long)j->at.step, (long long)j->at.without_progress);
    if (save || j->stopped)
        MB_TRY(save_now(j, j->stopped));
    *done = no_progress || j->stopped;
    return MB_OK;
}

static mb_status loop(mb_job *j)
{
    double votes[MB_VOTES];
    bool done = false, save = false;

    if (j->at.evaluate_again) /* what a stop cut short */
        MB_TRY(evaluate(j, j->at.epoch, &save, &done));
    done = done || out_of_patience(j);
    while (!done && j->at.step < j->total_steps) {
        const double before = mb_clock();
        const double lr =
            mb_schedule_lr(j->schedule_kind, &j->schedule, mb_zero_history_of(j->zero)->applied);
        mb_zero_result r;
        mb_step s;

        MB_TRY(mb_profile_step_begin(j->profile));
        mb_profile_begin(j->profile, MB_SPAN_DATA);
        MB_TRY(mb_sampler_step(j->data->train, j->at.step, &s));
        mb_profile_end(j->profile, MB_SPAN_DATA);
        MB_TRY(mb_job_step(j, &s, votes, &r));
        MB_TRY(mb_profile_step_end(j->profile));
        j->at.step++;
        j->steps_made++;
        j->at.epoch = s.epochs_done;
        note_step(j, &s, &r, mb_clock() - before, lr, &j->at.window);
        MB_TRY(after_step(j, &s, votes, &j->at.window, lr, &done));
    }
    return MB_OK;
}

static mb_status start(mb_job *j)
{
    const mb_recipe *r = j->recipe;
    bool save = false, stop = false;

    mb_log_info("%lld steps of %lld %s in micro-batches of %lld, %lld rows, %s reduction",
                (long long)j->total_steps, (long long)j->at.step_units,
                r->packing ? "bins" : "rows", (long long)j->at.micro_units,
                (long long)j->data->n_train,
                r->reduction == MB_REDUCTION_EXACT ? "exact" : "default");
    mb_job_log_memory(j);
    if (!r->eval_on_start || j->at.step > 0 || j->data->eval == NULL)
        return MB_OK;
    MB_TRY(evaluate(j, 0.0, &save, &stop));
    return save ? save_now(j, false) : MB_OK;
}

static mb_status finish(mb_job *j)
{
    mb_metrics m = {.step = j->at.step, .epoch = j->at.epoch};
    mb_save_outcome outcome;
    mb_memory_plan plan;
    char now[48] = "";

    mb_job_memory(j, &plan);
    MB_TRY(mb_checkpoints_wait(j->checkpoints, &outcome));
    MB_TRY(mb_job_saved(j, outcome));
    if (j->steps_made == 0) /* a finished run, started again: there is nothing new to say */
        return MB_OK;
    note_memory(j, mb_checkpoints_peak(j->checkpoints));
    int64_t peak = j->peak_bytes - j->library_bytes; /* of the rank that had most */
    MB_TRY(j->comm->ops->all_reduce(j->comm, &peak, 1, MB_DTYPE_I64, MB_MAX));
    mb_metrics_add(&m, "train_runtime", j->at.seconds);
    mb_metrics_add(&m, "num_tokens", (double)j->at.seen);
    mb_metrics_add(&m, "train_tokens_per_second", (double)j->at.seen / j->at.seconds);
    mb_metrics_add(&m, "num_skipped_steps", (double)mb_zero_history_of(j->zero)->skipped);
    mb_metrics_add(&m, "num_repeated_steps", (double)mb_zero_history_of(j->zero)->repeated);
    mb_metrics_add(&m, "num_step_allocations", (double)j->step_allocations);
    if (j->engine->replay != NULL)
        mb_metrics_add(&m, "num_replayed_micro_steps", (double)mb_replay_count(j->engine->replay));
    mb_metrics_add(&m, "num_bytes_sent", (double)mb_mesh_bytes_sent(j->mesh));
    mb_metrics_add(&m, "num_library_bytes", (double)j->library_bytes);
    mb_metrics_add(&m, "num_peak_bytes", (double)peak);
    mb_metrics_add(&m, "num_planned_bytes", (double)plan.most);
    MB_TRY(mb_comm_agree(j->comm, log_metrics(j, &m)));
    if (j->steps_made < j->at.step)
        snprintf(now, sizeof now, ", of which %lld now", (long long)j->steps_made);
    mb_log_info("%lld steps%s, %.0f s, %.1f tokens/s, at most %.0f MiB on a rank beside libraries",
                (long long)j->at.step, now, j->at.seconds, (double)j->at.seen / j->at.seconds,
                (double)peak / 1048576.0);
    return mb_job_profile_tell(j);
}

/* Saved is not resumed: without the key the same command would refuse to mix two runs. */
static mb_status stopped(const mb_job *j)
{
    const char *by = mb_stop_text()[0] != '\0' ? mb_stop_text() : "another rank";
    const char *how = "the same command continues";

    if (j->recipe->overwrite_output_dir)
        how = "to continue: the same command with resume_from_checkpoint=auto, and without "
              "overwrite_output_dir";
    else if (!mb_job_resumes_itself(j->recipe))
        how = "to continue: the same command with resume_from_checkpoint=auto";
    return MB_RAISE(MB_EREQUEUE, "stopped at step %lld of %lld by %s, and saved; %s",
                    (long long)j->at.step, (long long)j->total_steps, by, how);
}

mb_status mb_job_train(mb_job *j)
{
    MB_TRY(start(j));
    if (j->recipe->dry_run) {
        mb_log_info("dry run: nothing was trained or written but %s/cache, the rows as tokens",
                    j->recipe->output_dir);
        return MB_OK;
    }
    MB_TRY(loop(j));
    MB_TRY(finish(j));
    return j->stopped ? stopped(j) : MB_OK;
}
