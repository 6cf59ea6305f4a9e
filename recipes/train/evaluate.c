/* recipes/train/evaluate.c - loss per trained token, and metrics of what the model says, over the
 * evaluation rows.
 *
 * Every micro-batch's sums go into its own place of one array, which all ranks add up with zeros
 * elsewhere; the places are then summed in order. So the numbers depend neither on ranks nor on how
 * the last batch falls, and no row counts twice.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/train/answers.h"

enum { LOSS, WEIGHT, SUMS };
enum { ROUND = 8 }; /* micro-batches of a rank between two looks at its neighbours */

/* ---- which metrics ------------------------------------------------------------------------ */

static mb_status add_metric(mb_job *j, const char *name, const char *where)
{
    const mb_metric *m = mb_metric_find(name, j->task->reads);
    char names[512];

    MB_REQUIRE(j->task->answer != NULL, MB_EARG,
               "%s: metrics has '%s'; evaluations of this task measure the loss only", where, name);
    MB_REQUIRE(m != NULL, MB_EARG, "%s: metrics has '%s'; of this task there are %s", where, name,
               mb_metric_names(j->task->reads, names, sizeof names));
    MB_REQUIRE(j->n_metrics < MB_JOB_METRICS, MB_EARG, "%s: more than %d metrics", where,
               MB_JOB_METRICS);
    j->metric[j->n_metrics++] = m;
    return MB_OK;
}

mb_status mb_job_choose_metrics(mb_job *j)
{
    const mb_strings *wanted = &j->recipe->metrics;
    char text[128], *rest, *name;

    for (int64_t i = 0; i < wanted->n; i++)
        MB_TRY(add_metric(j, wanted->at[i], mb_recipe_where(j->recipe, "metrics")));
    if (wanted->n > 0)
        return MB_OK;
    snprintf(text, sizeof text, "%s", j->task->metrics);
    for (name = strtok_r(text, ",", &rest); name != NULL; name = strtok_r(NULL, ",", &rest))
        MB_TRY(add_metric(j, name, "tasks.def"));
    return MB_OK;
}

bool mb_job_has_metric(const mb_job *j, const char *name, const mb_metric **out)
{
    *out = NULL;
    for (int i = 0; i < j->n_metrics; i++)
        if (strcmp(name, j->metric[i]->name) == 0 || strcmp(name, j->metric[i]->eval_name) == 0) {
            *out = j->metric[i];
            return true;
        }
    return false;
}

/* ---- groups ------------------------------------------------------------------------------- */

/* eval_sw_f1, eval_sw_rows: names as datasets of their own have them in transformers. */
static mb_status name_groups(mb_job *j)
{
    const int each = j->n_metrics + 1;

    MB_TRY(MB_NEW_ARRAY(&j->group_value, j->groups->n * each));
    MB_TRY(MB_NEW_ARRAY(&j->group_metric, j->groups->n * each));
    for (int i = 0; i < j->groups->n * each; i++)
        MB_TRY(mb_asprintf(&j->group_metric[i], "eval_%s_%s", j->groups->name[i / each],
                           i % each < j->n_metrics ? j->metric[i % each]->name : "rows"));
    return MB_OK;
}

mb_status mb_job_open_groups(mb_job *j)
{
    const mb_recipe *r = j->recipe;
    const bool evaluates =
        j->use == MB_JOB_TRAIN || j->use == MB_JOB_EVAL || j->use == MB_JOB_PREDICT;

    if (r->metrics_by == NULL || !evaluates || mb_data_eval_rows(j->data) == 0)
        return MB_OK;
    MB_REQUIRE(j->task->answer != NULL && j->n_metrics > 0, MB_EARG,
               "%s: metrics_by: evaluations of this task measure the loss only",
               mb_recipe_where(r, "metrics_by"));
    MB_TRY(mb_groups_open(r, j->task, j->data, j->comm, &j->groups));
    return mb_comm_agree(j->comm, name_groups(j));
}

void mb_job_close_groups(mb_job *j)
{
    for (int i = 0; j->group_metric != NULL && i < j->groups->n * (j->n_metrics + 1); i++)
        mb_free(j->group_metric[i]);
    mb_free(j->group_metric);
    mb_free(j->group_value);
    mb_groups_free(j->groups);
}

/* A line for each group, a column for each metric. */
static void log_groups(const mb_job *j)
{
    const int each = j->n_metrics + 1;
    int widest = 0;

    for (int g = 0; g < j->groups->n; g++) {
        const int n = (int)strlen(j->groups->name[g]);
        widest = n > widest ? n : widest;
    }
    for (int g = 0; g < j->groups->n; g++) {
        const double *v = j->group_value + g * each;
        char line[1024];
        size_t at = 0;

        for (int i = 0; i < j->n_metrics && at < sizeof line; i++)
            at += (size_t)snprintf(line + at, sizeof line - at, "  %s %.4g", j->metric[i]->name,
                                   v[i]);
        mb_log_info("%s %-*s  rows %.0f%s", j->recipe->metrics_by, widest, j->groups->name[g],
                    v[j->n_metrics], line);
    }
}

/* ---- over the rows ------------------------------------------------------------------------ */

/* Before a forward: parameters that are spread over ranks are gathered as it goes. */
static mb_status look(mb_job *j, bool idle)
{
    return j->zero != NULL ? mb_shard_look(mb_zero_shard(j->zero), idle) : MB_OK;
}

/* Forwards of other ranks in which this one has no part but its parameters. */
static mb_status idle(mb_job *j)
{
    MB_TRY(look(j, true));
    return j->task->answer != NULL ? look(j, true) : MB_OK;
}

/* An evaluation under way: sums by micro-batch, and what the model said. */
struct evaluation {
    double *sums;
    mb_predictions *said;
};

static mb_status run_micro(mb_job *j, const mb_step *s, int64_t m, const struct evaluation *e)
{
    const mb_store *store = mb_answer_store(j);
    double *sums = e->sums + m * SUMS;
    mb_batch *b = j->data->batch;
    mb_micro_result r;
    mb_micro micro;

    mb_step_micro(s, m, &micro);
    /* the evaluation of a masked-lm always masks the same tokens */
    MB_TRY(mb_collate(&j->data->eval_collate, store, &micro, UINT32_MAX, b));
    if (j->use != MB_JOB_PREDICT) { /* of rows that may lack labels there is no loss */
        MB_TRY(look(j, false));
        MB_TRY(mb_engine_micro(j->engine, b, false, &r));
        sums[LOSS] = r.loss;
        sums[WEIGHT] = r.weight;
    }
    if (j->task->answer == NULL)
        return MB_OK;
    MB_TRY(look(j, false));
    return j->task->answer(j, &micro, e->said);
}

/* Micro-batches [from, to), in a round in which some rank has `most`. */
static mb_status some_micros(mb_job *j, const struct evaluation *e, const mb_step *s, int64_t from,
                             int64_t to, int64_t most)
{
    for (int64_t m = from; m < to; m++)
        MB_TRY(run_micro(j, s, m, e));
    for (int64_t m = to; m < from + most; m++)
        MB_TRY(idle(j));
    return mb_comm_wait(j->mesh->dp_inner,
                        MB_STREAM_COMPUTE); /* nothing open: the ranks talk next */
}

/* In rounds, after each of which the ranks ask one another whether to go on: an evaluation may be
 * longer than what a batch system grants between its signal and the end. */
static mb_status all_micros(mb_job *j, const struct evaluation *e, const mb_step *s, bool *given_up)
{
    const int64_t share = (s->n_micro + j->comm->size - 1) / j->comm->size; /* the most of a rank */
    const int64_t rounds = (share + ROUND - 1) / ROUND;
    int64_t from, to;

    mb_micro_range(s->n_micro, j->comm->rank, j->comm->size, &from, &to);
    for (int64_t r = 0; r < rounds && !*given_up; r++) {
        const int64_t end = from + ROUND < to ? from + ROUND : to;
        double stop;
        const int64_t left = share - r * ROUND;
        MB_TRY(
            mb_comm_agree(j->comm, some_micros(j, e, s, from, end, left < ROUND ? left : ROUND)));
        from = end;
        stop = j->use == MB_JOB_TRAIN && mb_stop_poll() != MB_STOP_NO ? 1.0 : 0.0;
        MB_TRY(j->comm->ops->all_reduce(j->comm, &stop, 1, MB_DTYPE_F64, MB_MAX));
        *given_up = stop > 0.0 && r + 1 < rounds;
    }
    return MB_OK;
}

static mb_status begin(mb_step *s, mb_job *j, struct evaluation *e)
{
    MB_TRY(mb_sampler_step(j->data->eval, 0, s));
    MB_TRY(MB_NEW_ARRAY(&e->sums, s->n_micro * SUMS));
    return mb_predictions_new(&e->said);
}

static void end(struct evaluation *e)
{
    mb_predictions_free(e->said);
    mb_free(e->sums);
}

mb_status mb_job_evaluate_part(mb_job *j, int64_t most, double *share)
{
    struct evaluation e = {0};
    int64_t from, to, each;
    mb_step s;
    mb_status st;

    MB_TRY_GOTO(mb_comm_agree(j->comm, begin(&s, j, &e)), st, done);
    mb_micro_range(s.n_micro, j->comm->rank, j->comm->size, &from, &to);
    each = (s.n_micro + j->comm->size - 1) / j->comm->size;
    each = each < most ? each : most;
    to = from + each < to ? from + each : to;
    st = mb_comm_agree(j->comm, some_micros(j, &e, &s, from, to, each));
    *share = fmin((double)(each * j->comm->size) / (double)s.n_micro, 1.0);
done:
    end(&e);
    return st;
}

/* What was said of windows becomes what is said of contexts. */
static mb_status join(mb_job *j, mb_predictions **said)
{
    mb_predictions *joined = NULL;
    mb_status st;

    MB_TRY(mb_predictions_new(&joined));
    st = mb_answer_join(j, *said, joined);
    if (st == MB_OK) /* closes the last row, on this rank only */
        st = mb_predictions_gather(joined, mb_comm_self());
    if (st != MB_OK) {
        mb_predictions_free(joined);
        return st;
    }
    mb_predictions_free(*said);
    *said = joined;
    return MB_OK;
}

/* What all ranks' rows are said to be, on rank 0. */
static mb_status collect(mb_job *j, mb_predictions **said)
{
    MB_TRY(mb_predictions_gather(*said, j->comm));
    return j->task->rows == MB_WANT_QUESTIONS ? mb_comm_agree(j->comm, join(j, said)) : MB_OK;
}

static void add_groups(const mb_job *j, mb_metrics *out)
{
    for (int i = 0; i < j->groups->n * (j->n_metrics + 1); i++)
        mb_metrics_add_of_group(out, j->group_metric[i], j->group_value[i]);
    if (j->comm->rank == 0)
        log_groups(j);
}

/* The metrics of what was said, and the file it goes to. */
static mb_status judge(mb_job *j, mb_predictions **heard, mb_metrics *out)
{
    mb_predictions *said;
    const mb_metric_options o = {.tokenize = j->recipe->bleu_tokenize};
    const char *path = j->recipe->predictions_file;
    double value[MB_JOB_METRICS];
    mb_group_scores groups;

    if (j->task->answer == NULL)
        return MB_OK;
    MB_TRY(collect(j, heard));
    said = *heard;
    if (j->groups != NULL)
        groups = (mb_group_scores){j->groups->name, j->groups->n, j->group_value};
    MB_TRY(mb_predictions_score(said, j->comm, j->metric, j->n_metrics, &o, value,
                                j->groups != NULL ? &groups : NULL));
    for (int i = 0; i < j->n_metrics; i++)
        mb_metrics_add(out, j->metric[i]->eval_name, value[i]);
    if (j->groups != NULL)
        add_groups(j, out);
    if (path == NULL)
        return MB_OK;
    return mb_comm_agree(j->comm, j->comm->rank == 0 ? mb_predictions_write(said, path) : MB_OK);
}

mb_status mb_job_evaluate(mb_job *j, mb_metrics *out, double *loss, bool *given_up)
{
    const double before = mb_clock();
    double total[SUMS] = {0};
    struct evaluation e = {0};
    mb_step s;
    mb_status st = MB_OK;

    *given_up = false;
    MB_TRY_GOTO(mb_comm_agree(j->comm, begin(&s, j, &e)), st, done);
    MB_TRY_GOTO(all_micros(j, &e, &s, given_up), st, done);
    if (*given_up)
        goto done;
    MB_TRY_GOTO(j->comm->ops->all_reduce(j->comm, e.sums, s.n_micro * SUMS, MB_DTYPE_F64, MB_SUM),
                st, done);
    for (int64_t m = 0; m < s.n_micro; m++)
        for (int k = 0; k < SUMS; k++)
            total[k] += e.sums[m * SUMS + k];
    *loss = total[LOSS] / total[WEIGHT];
    mb_metrics_add(out, "eval_loss", *loss);
    if (j->task->answer == NULL)
        mb_metrics_add(out, "eval_perplexity", exp(*loss));
    MB_TRY_GOTO(judge(j, &e.said, out), st, done);
    mb_metrics_add(out, "num_eval_tokens", total[WEIGHT]);
    mb_metrics_add(out, "eval_runtime", mb_clock() - before);
done:
    end(&e);
    return st;
}

mb_status mb_job_predict(mb_job *j, mb_predictions **out)
{
    struct evaluation e = {0};
    bool given_up = false;
    mb_step s;
    mb_status st;

    MB_TRY_GOTO(mb_comm_agree(j->comm, begin(&s, j, &e)), st, done);
    MB_TRY_GOTO(all_micros(j, &e, &s, &given_up), st, done);
    MB_TRY_GOTO(collect(j, &e.said), st, done);
    *out = e.said;
    e.said = NULL;
done:
    end(&e);
    return st;
}
