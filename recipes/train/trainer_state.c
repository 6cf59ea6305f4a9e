/* recipes/train/trainer_state.c - trainer_state.json, as transformers' Trainer writes it.
 *
 * Plot scripts and notebooks read it: log_history holds every record so far, in order, each with
 * its epoch and step. One is written into every checkpoint and, at the end, into output_dir. A
 * resumed run goes on from the one in its checkpoint.
 */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/train/metrics.h"

enum { STATE_MAX_BYTES = 1 << 30 };

static const char *const file_name = "trainer_state.json";

struct state {
    char *output_dir;
    mb_json_doc *doc;
    mb_json history;
    int64_t last_step;
    bool unwritten;
};

static mb_status fresh(struct state *s, const mb_metric_run *run)
{
    mb_json root = mb_json_root(s->doc);

    MB_TRY(mb_json_set_null(root, "best_global_step"));
    MB_TRY(mb_json_set_null(root, "best_metric"));
    MB_TRY(mb_json_set_null(root, "best_model_checkpoint"));
    MB_TRY(mb_json_set_real(root, "epoch", 0.0));
    MB_TRY(mb_json_set_int(root, "eval_steps", run->eval_steps));
    MB_TRY(mb_json_set_int(root, "global_step", 0));
    MB_TRY(mb_json_set_bool(root, "is_hyper_param_search", false));
    MB_TRY(mb_json_set_bool(root, "is_local_process_zero", true));
    MB_TRY(mb_json_set_bool(root, "is_world_process_zero", true));
    MB_TRY(mb_json_set_array(root, "log_history", &s->history));
    MB_TRY(mb_json_set_int(root, "logging_steps", run->logging_steps));
    MB_TRY(mb_json_set_int(root, "max_steps", run->max_steps));
    MB_TRY(mb_json_set_int(root, "num_input_tokens_seen", 0));
    MB_TRY(mb_json_set_real(root, "num_train_epochs", run->num_train_epochs));
    MB_TRY(mb_json_set_int(root, "save_steps", run->save_steps));
    MB_TRY(mb_json_set_real(root, "total_flos", 0.0));
    MB_TRY(mb_json_set_int(root, "train_batch_size", run->train_batch_size));
    MB_TRY(mb_json_set_null(root, "trial_name"));
    return mb_json_set_null(root, "trial_params");
}

/* Takes the history over; a record past the step of the checkpoint cannot be in it. */
static mb_status resumed(struct state *s, const mb_metric_run *run)
{
    static const char *const kept[] = {"best_global_step",      "best_metric",
                                       "best_model_checkpoint", "epoch",
                                       "global_step",           "num_input_tokens_seen"};
    char path[MB_PATH_MAX];
    mb_status st = MB_OK;
    mb_json_doc *old;
    mb_json root = mb_json_root(s->doc);

    MB_TRY(mb_path_join(path, sizeof path, run->resume_dir, file_name));
    if (!mb_path_is_file(path))
        return MB_OK; /* a checkpoint is whole without it */
    MB_TRY(mb_json_read(path, MB_EIO, STATE_MAX_BYTES, &old));
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        if (mb_json_is_set(mb_json_get(mb_json_root(old), kept[i])))
            MB_TRY_GOTO(mb_json_set(root, kept[i], mb_json_get(mb_json_root(old), kept[i])), st,
                        done);
    for (mb_json_it it = mb_json_first(mb_json_get(mb_json_root(old), "log_history"));
         mb_json_more(&it); mb_json_next(&it)) {
        int64_t step;

        MB_TRY_GOTO(mb_json_get_int(it.value, "step", 0, &step), st, done);
        if (step <= run->resume_step)
            MB_TRY_GOTO(mb_json_set(s->history, NULL, it.value), st, done);
    }
done:
    mb_json_free(old);
    return st;
}

static mb_status state_write(struct state *s, const char *dir)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_path_join(path, sizeof path, dir, file_name));
    return mb_json_write(mb_json_root(s->doc), 2, path);
}

static mb_status state_close(void *state)
{
    struct state *s = state;
    const mb_status st = s->unwritten ? state_write(s, s->output_dir) : MB_OK;

    mb_json_free(s->doc);
    mb_free(s->output_dir);
    mb_free(s);
    return st;
}

static mb_status state_open(const mb_metric_run *run, void **state)
{
    mb_status st = MB_OK;
    struct state *s;

    MB_TRY(MB_NEW(&s));
    MB_TRY_GOTO(mb_strdup(run->output_dir, &s->output_dir), st, failed);
    MB_TRY_GOTO(mb_json_doc_new(file_name, &s->doc), st, failed);
    MB_TRY_GOTO(fresh(s, run), st, failed);
    if (run->resume_dir != NULL)
        MB_TRY_GOTO(resumed(s, run), st, failed);
    *state = s;
    return MB_OK;
failed:
    s->unwritten = false;
    state_close(s);
    return st;
}

static mb_status state_log(void *state, const mb_metrics *m)
{
    struct state *s = state;
    mb_json root = mb_json_root(s->doc), entry;
    const double *tokens = mb_metrics_get(m, "num_tokens");

    s->unwritten = true;
    s->last_step = m->step;
    MB_TRY(mb_json_set_object(s->history, NULL, &entry));
    MB_TRY(mb_json_set_real(entry, "epoch", m->epoch));
    MB_TRY(mb_metrics_to_json(m, entry));
    MB_TRY(mb_json_set_int(entry, "step", m->step));
    MB_TRY(mb_json_set_real(root, "epoch", m->epoch));
    MB_TRY(mb_json_set_int(root, "global_step", m->step));
    if (tokens != NULL)
        MB_TRY(mb_json_set_int(root, "num_input_tokens_seen", (int64_t)*tokens));
    return MB_OK;
}

static void state_best(void *state, double metric, const char *checkpoint)
{
    struct state *s = state;
    mb_json root = mb_json_root(s->doc);

    /* A note for readers: without memory for it the run goes on. */
    if (mb_json_set_real(root, "best_metric", metric) != MB_OK ||
        mb_json_set_int(root, "best_global_step", s->last_step) != MB_OK ||
        mb_json_set_string(root, "best_model_checkpoint", checkpoint) != MB_OK)
        mb_status_clear();
}

/* A save in the background may end after later records; the file says the step it belongs to. */
static mb_status state_checkpoint(void *state, const char *dir, int64_t step)
{
    struct state *s = state;
    mb_json root = mb_json_root(s->doc);
    mb_status st;

    MB_TRY(mb_json_set_int(root, "global_step", step));
    st = state_write(s, dir);
    MB_TRY(mb_json_set_int(root, "global_step", s->last_step > step ? s->last_step : step));
    return st;
}

const mb_sink_kind mb_sink_trainer_state = {
    .name = "trainer_state",
    .always = true,
    .open = state_open,
    .log = state_log,
    .best = state_best,
    .checkpoint = state_checkpoint,
    .close = state_close,
};
