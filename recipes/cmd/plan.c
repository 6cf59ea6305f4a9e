/* recipes/cmd/plan.c - mbuyu plan: what a run will take, before it takes it. */
#include "core/memory.h"
#include "recipes/commands.h"
#include "recipes/train/job.h"

static void line(const char *what, int64_t bytes)
{
    printf("  %-34s %10.1f MiB\n", what, (double)bytes / 1048576.0);
}

static mb_status print(const mb_job *j)
{
    const mb_model *m = j->engine->model;
    const mb_store_stats *s = &j->data->store->stats;
    mb_memory_limit limit;
    mb_memory_plan p;

    mb_job_memory(j, &p);
    MB_TRY(mb_memory_limits("", &limit));
    printf("%s (%s), %s\n", j->recipe->model_name_or_path, m->family->name,
           mb_choice_word(j->recipe->finetuning_type));
    printf("  parameters %lld, trained %lld\n", (long long)mb_model_parameters(m, false),
           (long long)mb_model_parameters(m, true));
    printf("  rows %lld, trained tokens %lld, longest row %lld\n", (long long)j->data->n_train,
           (long long)s->trained, (long long)s->max_length);
    printf("  steps %lld of %lld %s, micro-batches of %lld, largest of %lld tokens\n",
           (long long)j->total_steps, (long long)j->at.step_units,
           j->recipe->packing ? "bins" : "rows", (long long)j->at.micro_units,
           (long long)j->data->largest);
    printf("memory of each of %d %s:\n", j->comm->size, j->comm->size == 1 ? "rank" : "ranks");
    line("weights", p.weights);
    line("gradients", p.gradients);
    if (p.exact > 0)
        line("exact accumulator", p.exact);
    line("optimizer state (this rank's share)", p.optimizer);
    line("activations of a micro-batch", p.activations);
    line("workspace of kernels", p.workspace);
    line("communication", p.communication);
    line("checkpoint or model being written", p.checkpoints);
    line("data", p.data);
    line("total", p.total);
    line("this machine has", limit.available);
    return MB_OK;
}

static mb_status run(mb_launch *launch, mb_recipe *r)
{
    mb_job *j = NULL;
    mb_status st;

    MB_TRY(mb_job_open(r, launch, MB_JOB_PLAN, &j));
    st = mb_comm_agree(launch->world, launch->rank == 0 ? print(j) : MB_OK);
    mb_job_close(j);
    return st;
}

mb_status mb_cmd_plan(mb_launch *launch, int argc, char **argv)
{
    return mb_job_verb(launch, argc, argv, run);
}
