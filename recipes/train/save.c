/* recipes/train/save.c - what of a job goes into a checkpoint beside tensors, and back.
 *
 * state.h5 holds one JSON text with the cursor and everything that must survive; the order of rows,
 * random numbers and the schedule are functions of it and the recipe. A resume compares the recipe
 * key by key (recipe.def says what may change), the base model's digest and the hardware class.
 */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/init.h"
#include "core/digest.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/train/job.h"

static const struct {
    const char *name;
    size_t offset;
} integers[] =
    {
#define I(field)                                   \
    {                                              \
#field, offsetof(mb_progress_state, field) \
    }
        I(step),      I(micro_units),      I(step_units),     I(tokens), I(seen),
        I(best_step), I(without_progress), I(evaluate_again), I(begun),
},
  reals[] = {
      I(seconds),          I(epoch),        I(best),           I(first_loss),  I(last_loss),
      I(last_eval_loss),   I(window.loss),  I(window.divisor), I(window.seen), I(window.seconds),
      I(window.grad_norm), I(window.steps),
#undef I
};

enum {
    N_INTEGERS = sizeof integers / sizeof integers[0],
    N_REALS = sizeof reals / sizeof reals[0]
};

const char *mb_job_hardware(const mb_job *j)
{
    return j->device != NULL ? j->device->class_ : mb_cpu_class();
}

static mb_status state_to_json(const mb_job *j, mb_json out)
{
    for (int i = 0; i < N_INTEGERS; i++)
        MB_TRY(mb_json_set_int(out, integers[i].name,
                               *(const int64_t *)((const char *)&j->at + integers[i].offset)));
    for (int i = 0; i < N_REALS; i++)
        MB_TRY(mb_json_set_real(out, reals[i].name,
                                *(const double *)((const char *)&j->at + reals[i].offset)));
    MB_TRY(mb_json_set_string(out, "base_digest", j->base_digest));
    MB_TRY(mb_json_set_string(out, "hardware", mb_job_hardware(j)));
    MB_TRY(mb_json_set_string(out, "computed_in", mb_dtype_name(j->dtype)));
    MB_TRY(mb_json_set_string(out, "data_digest", j->data->store->digest));
    return mb_json_set_string(out, "version", MB_VERSION);
}

static mb_status state_from_json(mb_job *j, mb_json in)
{
    for (int i = 0; i < N_INTEGERS; i++)
        MB_TRY(mb_json_get_int(in, integers[i].name, 0,
                               (int64_t *)((char *)&j->at + integers[i].offset)));
    for (int i = 0; i < N_REALS; i++) /* a value that was not finite is null */
        MB_TRY(
            mb_json_get_real(in, reals[i].name, NAN, (double *)((char *)&j->at + reals[i].offset)));
    return MB_OK;
}

static mb_status begin(mb_job *j, const char *state, bool async)
{
    mb_checkpoint_info info = {.step = j->at.step, .run_id = j->run_id, .state_json = state};
    char *recipe = NULL;
    mb_status st;

    MB_TRY(mb_recipe_text(j->recipe, true, &recipe));
    info.recipe_yaml = recipe;
    st = mb_checkpoints_begin(j->checkpoints, j->zero, &info, j->at.best_step, async);
    mb_free(recipe);
    return st;
}

mb_status mb_job_save(mb_job *j, bool wait)
{
    const bool async = !wait && j->save_aside;
    mb_json_doc *doc = NULL;
    mb_save_outcome outcome;
    char *text = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_checkpoints_wait(j->checkpoints, &outcome)); /* one at a time */
    MB_TRY(mb_job_saved(j, outcome));
    j->saving_step = j->at.step;
    MB_TRY_GOTO(mb_json_doc_new("state", &doc), st, done);
    MB_TRY_GOTO(state_to_json(j, mb_json_root(doc)), st, done);
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 0, &text, NULL), st, done);
    MB_TRY_GOTO(begin(j, text, async), st, done);
    if (!async)
        st = mb_checkpoints_wait(j->checkpoints, &outcome);
    if (!async && st == MB_OK)
        st = mb_job_saved(j, outcome);
    if (st == MB_OK && wait && outcome == MB_SAVE_FAILED)
        st = MB_RAISE(MB_EIO, "the checkpoint of step %lld could not be written: %s",
                      (long long)j->at.step, mb_checkpoints_failure(j->checkpoints));
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

mb_status mb_job_saved(mb_job *j, mb_save_outcome outcome)
{
    char path[MB_PATH_MAX];

    if (outcome != MB_SAVE_PUBLISHED || j->sinks == NULL)
        return MB_OK;
    MB_TRY(mb_checkpoint_path(j->recipe->output_dir, j->saving_step, path, sizeof path));
    if (j->saving_step == j->at.best_step)
        mb_sinks_best(j->sinks, j->at.best, path);
    if (mb_sinks_checkpoint(j->sinks, path, j->saving_step) != MB_OK) {
        mb_log_warn("%s", mb_status_sentence()); /* logs are not worth the run */
        mb_status_clear();
    }
    return MB_OK;
}

/* ---- resuming ----------------------------------------------------------------------------- */

bool mb_job_resumes_itself(const mb_recipe *r)
{
    const char *wanted = r->resume_from_checkpoint;

    return wanted != NULL && (strcmp(wanted, "auto") == 0 || strcmp(wanted, "true") == 0 ||
                              strcmp(wanted, "yes") == 0);
}

static mb_status find(mb_job *j, char **path)
{
    const char *wanted = j->recipe->resume_from_checkpoint;

    *path = NULL;
    if (wanted == NULL || strcmp(wanted, "false") == 0 || strcmp(wanted, "no") == 0)
        return MB_OK;
    if (mb_job_resumes_itself(j->recipe))
        return mb_checkpoint_find(j->comm, j->recipe->output_dir, path);
    MB_TRY(mb_checkpoint_verify(j->comm, wanted));
    return mb_strdup(wanted, path);
}

/* A run that starts anew in a folder with checkpoints would mix two runs. */
static mb_status must_be_empty(const mb_job *j)
{
    char log[MB_PATH_MAX];
    int64_t *steps = NULL;
    size_t n = 0;

    MB_TRY(mb_checkpoint_list(j->recipe->output_dir, &steps, &n));
    const int64_t newest = n > 0 ? steps[n - 1] : 0;
    mb_free(steps);
    MB_REQUIRE(
        n == 0 || j->recipe->overwrite_output_dir, MB_EIO,
        "%s holds checkpoints up to step %lld of an earlier run: set resume_from_checkpoint=auto "
        "to continue it, or overwrite_output_dir=true to start anew",
        j->recipe->output_dir, (long long)newest);
    MB_TRY(mb_path_join(log, sizeof log, j->recipe->output_dir, "logs/train.jsonl"));
    if (n == 0 && mb_path_is_file(log))
        mb_log_info("an earlier run in %s saved no checkpoint: training starts at step 0",
                    j->recipe->output_dir);
    return MB_OK;
}

static mb_status same_hardware(const mb_job *j, mb_json state, const char *path)
{
    const char *now = mb_job_hardware(j), *then;

    MB_TRY(mb_json_get_string(state, "hardware", now, &then));
    if (strcmp(then, now) == 0 || j->use == MB_JOB_EXPORT) /* which computes nothing */
        return MB_OK;
    MB_REQUIRE(!j->recipe->resume_strict, MB_EARG,
               "%s was saved on other hardware (%s; this is %s) and resume_strict is set", path,
               then, now);
    mb_log_info("%s was saved on other hardware (%s; this is %s): the run goes on within rounding, "
                "not to the same bits",
                path, then, now);
    return MB_OK;
}

/* A run goes on in the type it began in, where the recipe leaves that open: another start may say
 * zero_stage 0, and another machine may be without bf16 instructions. */
static mb_status same_type(mb_job *j, mb_json in, const char *path)
{
    const bool open = j->recipe->bf16 == MB_AUTO && j->recipe->fp16 == MB_AUTO;
    const bool host = mb_device_is_host(j->device);
    const char *was = NULL;
    mb_dtype d;

    MB_TRY(mb_json_get_string(in, "computed_in", "", &was));
    if (!mb_dtype_from_name(was, &d))
        return MB_OK;
    j->trained_in = d;
    if (j->use != MB_JOB_TRAIN || !open || d == j->dtype)
        return MB_OK;
    if ((host && d == MB_DTYPE_F16) || (!host && d == MB_DTYPE_BF16 && !j->device->has_bf16)) {
        mb_log_warn("%s was computed in %s, which is not to be had here: the run goes on in %s",
                    path, was, mb_dtype_name(j->dtype));
        return MB_OK;
    }
    j->dtype = d;
    return MB_OK;
}

static mb_status take_state(mb_job *j, const mb_checkpoint_info *info, const char *path)
{
    mb_json_doc *doc = NULL;
    const char *base, *data;
    mb_status st = MB_OK;

    MB_TRY(mb_json_parse(info->state_json, strlen(info->state_json), path, 0, MB_EIO, &doc));
    MB_TRY_GOTO(state_from_json(j, mb_json_root(doc)), st, done);
    MB_TRY_GOTO(same_hardware(j, mb_json_root(doc), path), st, done);
    MB_TRY_GOTO(same_type(j, mb_json_root(doc), path), st, done);
    MB_TRY_GOTO(mb_json_get_string(mb_json_root(doc), "base_digest", "", &base), st, done);
    MB_TRY_GOTO(mb_json_get_string(mb_json_root(doc), "data_digest", "", &data), st, done);
    snprintf(j->data_digest, sizeof j->data_digest, "%s", data);
    snprintf(j->base_digest, sizeof j->base_digest, "%s", base);
    snprintf(j->run_id, sizeof j->run_id, "%s", info->run_id);
done:
    mb_json_free(doc);
    return st;
}

static mb_status take(mb_job *j, const char *path)
{
    mb_checkpoint_info info = {0};
    char *changes = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_checkpoint_read_info(path, &info));
    MB_TRY_GOTO(mb_recipe_compare_for_resume(path, info.recipe_yaml, j->recipe, &changes), st,
                done);
    if (changes != NULL)
        mb_log_info("changed since the checkpoint:\n%s", changes);
    MB_TRY_GOTO(take_state(j, &info, path), st, done);
    mb_log_info("resuming from %s (step %lld, saved by %d %s)", path, (long long)info.step,
                info.ranks, info.ranks == 1 ? "rank" : "ranks");
done:
    mb_free(changes);
    mb_checkpoint_info_release(&info);
    return st;
}

mb_status mb_job_resume(mb_job *j)
{
    char *path = NULL;
    mb_status st;

    MB_TRY(mb_comm_agree(j->comm, find(j, &path)));
    if (path == NULL)
        return must_be_empty(j);
    st = take(j, path);
    if (st == MB_OK)
        j->resumed_from = path;
    else
        mb_free(path);
    return st;
}

mb_status mb_job_restore(mb_job *j)
{
    MB_TRY(mb_checkpoint_load(j->resumed_from, j->zero));
    return mb_checkpoints_supersede(j->checkpoints, j->at.step);
}

mb_status mb_job_same_data(mb_job *j)
{
    const char *now = j->data->store->digest;

    MB_REQUIRE(
        j->data_digest[0] == '\0' || strcmp(j->data_digest, now) == 0, MB_EDATA,
        "the training data is not what %s was trained on (sha256 %.12s..., expected %.12s...): "
        "a file, the tokenizer or how rows are made has changed",
        j->resumed_from, now, j->data_digest);
    return MB_OK;
}

/* ---- the base ----------------------------------------------------------------------------- */

static mb_status add_files(mb_digest *d, const char *dir, char **names, size_t n)
{
    uint8_t one[MB_DIGEST_BYTES];
    char file[4096];

    for (size_t i = 0; i < n; i++) {
        if (!mb_path_has_suffix(names[i], ".safetensors") && !mb_path_has_suffix(names[i], ".gguf"))
            continue;
        MB_TRY(mb_path_join(file, sizeof file, dir, names[i]));
        MB_TRY(mb_digest_file(file, one));
        MB_TRY(mb_digest_add(d, one, sizeof one));
    }
    return MB_OK;
}

/* sha256 of a file, or of the digests of a folder's weight files in order of their names. */
static mb_status digest_of(const char *path, char *hex)
{
    uint8_t bytes[MB_DIGEST_BYTES];
    char **names = NULL;
    size_t n = 0;
    mb_digest *d = NULL;
    mb_status st = MB_OK;

    if (mb_path_is_dir(path)) {
        MB_TRY(mb_path_list(path, &names, &n));
        MB_TRY_GOTO(mb_digest_new(&d), st, done);
        MB_TRY_GOTO(add_files(d, path, names, n), st, done);
        MB_TRY_GOTO(mb_digest_end(d, bytes), st, done);
    } else {
        MB_TRY(mb_digest_file(path, bytes));
    }
    mb_digest_hex(bytes, hex);
done:
    mb_digest_free(d);
    mb_path_list_free(names, n);
    return st;
}

/* Only what is not in the checkpoint comes from the base again; full fine-tuning needs none. */
mb_status mb_job_base_digest(mb_job *j)
{
    char now[MB_DIGEST_HEX] = "";

    if (mb_model_parameters(j->engine->model, false) == mb_model_parameters(j->engine->model, true))
        return MB_OK;
    MB_TRY(mb_comm_agree(j->comm, j->comm->rank == 0 ? digest_of(j->recipe->model_name_or_path, now)
                                                     : MB_OK));
    MB_TRY(j->comm->ops->broadcast(j->comm, now, sizeof now, 0));
    MB_REQUIRE(j->base_digest[0] == '\0' || strcmp(j->base_digest, now) == 0, MB_EMODEL,
               "%s is not the base model this run was started from (sha256 %.12s..., expected "
               "%.12s...)",
               j->recipe->model_name_or_path, now, j->base_digest);
    snprintf(j->base_digest, sizeof j->base_digest, "%s", now);
    return MB_OK;
}
