/* recipes/cmd/plan.c - mbuyu plan: what a run will take, before it takes it. */
#include "core/memory.h"
#include "recipes/commands.h"
#include "recipes/train/job.h"

enum { NAME = 16, COLUMN = 12 };

static double mib(int64_t bytes)
{
    return (double)bytes / 1048576.0;
}

/* Parts by phases; the total of the phase that takes most is marked. */
static void print_memory(const mb_memory_plan *p)
{
    printf("%-*s", NAME, "");
    for (int i = 0; i < MB_MEMORY_PHASES; i++)
        printf("%*s", COLUMN, mb_memory_phase_names[i]);
    for (int k = 0; k < MB_MEMORY_PARTS; k++) {
        int64_t most = 0;
        for (int i = 0; i < MB_MEMORY_PHASES; i++)
            most = p->bytes[i][k] > most ? p->bytes[i][k] : most;
        if (k == MB_PART_EXACT && most == 0)
            continue;
        printf("\n  %-*s", NAME - 2, mb_memory_part_names[k]);
        for (int i = 0; i < MB_MEMORY_PHASES; i++)
            printf("%*.1f", COLUMN, mib(p->bytes[i][k]));
    }
    printf("\n  %-*s", NAME - 2, "total");
    for (int i = 0; i < MB_MEMORY_PHASES; i++)
        printf("%*.1f", COLUMN, mib(p->total[i]));
    printf("\n  the most: %.1f MiB, in %s\n", mib(p->most), mb_memory_phase_names[p->peak]);
}

static mb_status print(const mb_job *j)
{
    const mb_model *m = j->engine->model;
    const mb_store_stats *s = &j->data->store->stats;
    mb_memory_room room;
    mb_memory_plan p;

    mb_job_memory(j, &p);
    MB_TRY(mb_job_room(j, 0, &room));
    printf("%s (%s), %s, %s\n", j->recipe->model_name_or_path, m->family->name,
           mb_choice_word(j->recipe->finetuning_type), mb_dtype_name(j->dtype));
    printf("  parameters %lld, trained %lld\n", (long long)mb_model_parameters(m, false),
           (long long)mb_model_parameters(m, true));
    printf("  rows %lld, trained tokens %lld, longest row %lld\n", (long long)j->data->n_train,
           (long long)s->trained, (long long)s->max_length);
    printf("  steps %lld of %lld %s, micro-batches of %lld, largest of %lld tokens\n",
           (long long)j->total_steps, (long long)j->at.step_units,
           j->recipe->packing ? "bins" : "rows", (long long)j->at.micro_units,
           (long long)j->data->collate.largest);
    printf("memory of each of %d %s, MiB:\n", j->comm->size, j->comm->size == 1 ? "rank" : "ranks");
    print_memory(&p);
    printf("  this machine has %.1f MiB for each\n", mib(room.host));
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
