/* recipes/train/evaluate.c - loss per trained token, and accuracy, over the evaluation rows.
 *
 * Every micro-batch's sums go into its own place of one array, which all ranks add up with zeros
 * elsewhere; the places are then summed in order. So the numbers depend neither on ranks nor on how
 * the last batch falls, and no row counts twice.
 */
#include <math.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/train/job.h"

enum { LOSS, WEIGHT, RIGHT, SUMS };
enum { ROUND = 8 }; /* micro-batches of a rank between two looks at its neighbours */

static int64_t count_right(const mb_batch *b, const mb_tensor *logits)
{
    int64_t right = 0;

    for (int64_t i = 0; i < b->n_targets; i++) {
        const float *row = mb_row(logits, i);
        int64_t best = 0;
        for (int64_t c = 1; c < mb_cols(logits); c++)
            if (row[c] > row[best])
                best = c;
        right += best == b->target_label[i];
    }
    return right;
}

/* Before a forward: parameters that are spread over ranks are gathered as it goes. */
static mb_status look(mb_job *j, bool idle)
{
    return j->zero != NULL ? mb_shard_look(mb_zero_shard(j->zero), idle) : MB_OK;
}

/* Forwards of other ranks in which this one has no part but its parameters. */
static mb_status idle(mb_job *j)
{
    MB_TRY(look(j, true));
    return j->task->accuracy ? look(j, true) : MB_OK;
}

static mb_status run_micro(mb_job *j, const mb_step *s, int64_t m, double *sums)
{
    const mb_store *store = j->data->eval_store != NULL ? j->data->eval_store : j->data->store;
    mb_batch *b = j->data->batch;
    mb_micro_result r;
    mb_micro micro;

    mb_step_micro(s, m, &micro);
    /* the evaluation of a masked-lm always masks the same tokens */
    MB_TRY(mb_collate(&j->data->eval_collate, store, &micro, UINT32_MAX, b));
    MB_TRY(look(j, false));
    MB_TRY(mb_engine_micro(j->engine, b, false, &r));
    sums[LOSS] = r.loss;
    sums[WEIGHT] = r.weight;
    if (j->task->accuracy) {
        const mb_tensor rows = mb_tensor_1d(b->target_row, MB_DTYPE_I32, b->n_targets);
        mb_tensor logits;
        MB_TRY(look(j, false));
        MB_TRY(mb_engine_logits(j->engine, b, &rows, &logits));
        sums[RIGHT] = (double)count_right(b, &logits);
    }
    return MB_OK;
}

/* Micro-batches [from, to), in a round in which some rank has `most`. */
static mb_status some_micros(mb_job *j, double *sums, const mb_step *s, int64_t from, int64_t to,
                             int64_t most)
{
    for (int64_t m = from; m < to; m++)
        MB_TRY(run_micro(j, s, m, sums + m * SUMS));
    for (int64_t m = to; m < from + most; m++)
        MB_TRY(idle(j));
    return mb_comm_wait(j->mesh->dp_inner,
                        MB_STREAM_COMPUTE); /* nothing open: the ranks talk next */
}

/* In rounds, after each of which the ranks ask one another whether to go on: an evaluation may be
 * longer than what a batch system grants between its signal and the end. */
static mb_status all_micros(mb_job *j, double *sums, const mb_step *s, bool *given_up)
{
    const int64_t share = (s->n_micro + j->comm->size - 1) / j->comm->size; /* the most of a rank */
    const int64_t rounds = (share + ROUND - 1) / ROUND;
    int64_t from, to;

    mb_micro_range(s->n_micro, j->comm->rank, j->comm->size, &from, &to);
    for (int64_t r = 0; r < rounds && !*given_up; r++) {
        const int64_t end = from + ROUND < to ? from + ROUND : to;
        double stop;
        const int64_t left = share - r * ROUND;
        MB_TRY(mb_comm_agree(j->comm,
                             some_micros(j, sums, s, from, end, left < ROUND ? left : ROUND)));
        from = end;
        stop = j->use == MB_JOB_TRAIN && mb_stop_poll() != MB_STOP_NO ? 1.0 : 0.0;
        MB_TRY(j->comm->ops->all_reduce(j->comm, &stop, 1, MB_DTYPE_F64, MB_MAX));
        *given_up = stop > 0.0 && r + 1 < rounds;
    }
    return MB_OK;
}

mb_status mb_job_evaluate_part(mb_job *j, int64_t most, double *share)
{
    double *sums = NULL;
    int64_t from, to, each;
    mb_step s;
    mb_status st;

    MB_TRY(mb_sampler_step(j->data->eval, 0, &s));
    MB_TRY(mb_comm_agree(j->comm, MB_NEW_ARRAY(&sums, s.n_micro * SUMS)));
    mb_micro_range(s.n_micro, j->comm->rank, j->comm->size, &from, &to);
    each = (s.n_micro + j->comm->size - 1) / j->comm->size;
    each = each < most ? each : most;
    to = from + each < to ? from + each : to;
    st = mb_comm_agree(j->comm, some_micros(j, sums, &s, from, to, each));
    *share = fmin((double)(each * j->comm->size) / (double)s.n_micro, 1.0);
    mb_free(sums);
    return st;
}

mb_status mb_job_evaluate(mb_job *j, mb_metrics *out, double *loss, bool *given_up)
{
    const double before = mb_clock();
    double *sums = NULL, total[SUMS] = {0};
    mb_step s;
    mb_status st = MB_OK;

    MB_TRY(mb_sampler_step(j->data->eval, 0, &s));
    MB_TRY(MB_NEW_ARRAY(&sums, s.n_micro * SUMS));
    *given_up = false;
    MB_TRY_GOTO(all_micros(j, sums, &s, given_up), st, done);
    if (*given_up)
        goto done;
    MB_TRY_GOTO(j->comm->ops->all_reduce(j->comm, sums, s.n_micro * SUMS, MB_DTYPE_F64, MB_SUM), st,
                done);
    for (int64_t m = 0; m < s.n_micro; m++)
        for (int k = 0; k < SUMS; k++)
            total[k] += sums[m * SUMS + k];
    *loss = total[LOSS] / total[WEIGHT];
    mb_metrics_add(out, "eval_loss", *loss);
    if (j->task->target != MB_TARGET_CLASS)
        mb_metrics_add(out, "eval_perplexity", exp(*loss));
    if (j->task->accuracy)
        mb_metrics_add(out, "eval_accuracy", total[RIGHT] / total[WEIGHT]);
    mb_metrics_add(out, "num_eval_tokens", total[WEIGHT]);
    mb_metrics_add(out, "eval_runtime", mb_clock() - before);
done:
    mb_free(sums);
    return st;
}
