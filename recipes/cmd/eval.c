/* recipes/cmd/eval.c - mbuyu eval: loss (and accuracy) of a model, with or without an adapter. */
#include "core/alloc.h"
#include "recipes/commands.h"
#include "recipes/train/job.h"

static mb_status print(const mb_metrics *m)
{
    mb_json_doc *doc = NULL;
    char *text = NULL;
    mb_status st = MB_OK;

    MB_TRY_GOTO(mb_json_doc_new("metrics", &doc), st, done);
    MB_TRY_GOTO(mb_metrics_to_json(m, mb_json_root(doc)), st, done);
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 2, &text, NULL), st, done);
    fputs(text, stdout);
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

static mb_status run(mb_launch *launch, mb_recipe *r, void *ctx)
{
    mb_metrics m = {0};
    mb_job *j = NULL;
    double loss;
    bool given_up;
    mb_status st;

    MB_TRY(mb_job_open(r, launch, MB_JOB_EVAL, &j));
    st = mb_job_evaluate(j, &m, &loss, &given_up);
    if (st == MB_OK)
        st = mb_comm_agree(launch->world, launch->rank == 0 ? print(&m) : MB_OK);
    mb_job_close(j);
    return st;
}

mb_status mb_cmd_eval(mb_launch *launch, int argc, char **argv)
{
    return mb_job_verb(launch, argc, argv, run, NULL);
}
