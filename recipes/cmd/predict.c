/* recipes/cmd/predict.c - mbuyu predict: what a model says of rows, which need no labels. */
#include "recipes/commands.h"
#include "recipes/train/job.h"
#include "recipes/train/predictions.h"

static mb_status print(const mb_predictions *said)
{
    for (int64_t i = 0; i < mb_predictions_count(said); i++) {
        size_t n;
        const char *line = mb_predictions_line(said, i, &n);

        fwrite(line, 1, n, stdout);
        fputc('\n', stdout);
    }
    MB_REQUIRE(fflush(stdout) == 0 && !ferror(stdout), MB_EIO,
               "the predictions cannot be written to standard output");
    return MB_OK;
}

static mb_status tell(const mb_recipe *r, const mb_predictions *said)
{
    return r->predictions_file != NULL ? mb_predictions_write(said, r->predictions_file)
                                       : print(said);
}

static mb_status run(mb_launch *launch, mb_recipe *r, void *ctx)
{
    mb_predictions *said = NULL;
    mb_job *j = NULL;
    mb_status st;

    MB_TRY(mb_job_open(r, launch, MB_JOB_PREDICT, &j));
    st = mb_job_predict(j, &said);
    if (st == MB_OK)
        st = mb_comm_agree(launch->world, launch->rank == 0 ? tell(r, said) : MB_OK);
    mb_predictions_free(said);
    mb_job_close(j);
    return st;
}

mb_status mb_cmd_predict(mb_launch *launch, int argc, char **argv)
{
    return mb_job_verb(launch, argc, argv, run, NULL);
}
