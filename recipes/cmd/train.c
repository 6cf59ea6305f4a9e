/* recipes/cmd/train.c - mbuyu train: one recipe, one run, from data to a model ready to use. */
#include "core/path.h"
#include "recipes/commands.h"
#include "recipes/train/job.h"

static mb_status run(mb_launch *launch, mb_recipe *r, void *ctx)
{
    mb_stop_options stop = {
        .time_limit = r->time_limit, .slurm_margin = 120.0, .announce = launch->rank == 0};
    char file[MB_PATH_MAX];
    mb_job *j = NULL;
    mb_status st = MB_OK;

    if (r->output_dir != NULL)
        st = mb_path_join(file, sizeof file, r->output_dir, "stop");
    if (launch->rank == 0) /* one rank is enough: wishes are summed */
        stop.file = r->stop_file != NULL ? r->stop_file : r->output_dir != NULL ? file : NULL;
    MB_TRY(mb_comm_agree(launch->world, st == MB_OK ? mb_stop_init(&stop) : st));
    MB_TRY_GOTO(mb_job_open(r, launch, MB_JOB_TRAIN, &j), st, done);
    st = mb_job_train(j);
    if (st != MB_OK && st != MB_EREQUEUE)
        mb_launch_abort(launch, st); /* may be this rank's alone, with the others waiting for it */
    if (st == MB_OK && !r->dry_run)
        st = mb_job_export(j);
done:
    mb_job_close(j);
    mb_stop_release();
    return st;
}

mb_status mb_cmd_train(mb_launch *launch, int argc, char **argv)
{
    return mb_job_verb(launch, argc, argv, run, NULL);
}
