/* recipes/train/job.h - everything one training run consists of.
 *
 *     mb_job_open     data, model, memory plan, optimizer, checkpoints, logs
 *     mb_job_train    the loop (recipes/train/trainer.c)
 *     mb_job_export   the model people use afterwards
 *
 * All ranks hold the same job; what differs is their shard and which micro-batches they run.
 */
#ifndef MB_RECIPES_TRAIN_JOB_H
#define MB_RECIPES_TRAIN_JOB_H

#include "core/profile.h"
#include "dist/checkpoint.h"
#include "dist/launch.h"
#include "dist/stop.h"
#include "optim/schedule.h"
#include "recipes/train/data.h"
#include "recipes/train/groups.h"
#include "recipes/train/metrics.h"
#include "recipes/train/session.h"

/* Per micro-batch, summed over all: after mb_zero's own two. */
enum { MB_METRIC_SEEN = MB_ZERO_METRICS_MIN, MB_METRICS_PER_MICRO };
enum { MB_JOB_METRICS = 20 }; /* of an evaluation, at most */
/* Votes of a rank in a step. */
enum { MB_VOTE_STOP, MB_VOTE_SAVE, MB_VOTES = MB_VOTE_SAVE + MB_CHECKPOINT_VOTES };

/* What goes on from checkpoint to checkpoint; in state.h5 as JSON. */
/* Sums since the last logged line. */
typedef struct mb_log_window {
    double loss, divisor, seen, seconds, grad_norm, steps;
} mb_log_window;

typedef struct mb_progress_state {
    int64_t step;  /* global steps done: the cursor of the sampler */
    int64_t begun; /* seconds since 1970: the present of chat templates, also after a resume */
    int64_t micro_units, step_units;
    int64_t tokens;        /* trained tokens so far */
    int64_t seen;          /* all tokens so far */
    double seconds, epoch; /* of training so far */
    double best;           /* metric of the best evaluation; NaN: none */
    mb_log_window window;
    int64_t evaluate_again;   /* an evaluation was given up for a stop */
    int64_t best_step;        /* -1: none */
    int64_t without_progress; /* evaluations in a row, for early stopping */
    double first_loss, last_loss, last_eval_loss;
} mb_progress_state;

typedef enum mb_job_use {
    MB_JOB_TRAIN,
    MB_JOB_EVAL,    /* no optimizer, no output: only mb_job_evaluate */
    MB_JOB_PREDICT, /* the same, of rows that may lack labels: only mb_job_predict */
    MB_JOB_PLAN,    /* no values, no output: only mb_job_memory and mb_job_probe */
    MB_JOB_EXPORT,  /* a checkpoint's weights: only mb_job_export; one rank */
} mb_job_use;

typedef struct mb_job {
    mb_job_use use;
    mb_recipe *recipe;         /* borrowed */
    const mb_launch *launch;   /* borrowed */
    const struct mb_job *like; /* borrowed; its data and device are this one's, too; NULL: none */
    mb_comm *comm;
    const mb_task *task;
    mb_task silent; /* the task without answers, where the recipe wants only the loss */
    struct mb_text_writer *writer; /* of seq2seq evaluations that write answers (answer_text.c) */
    struct mb_samples *samples;    /* of language models: answers to look at (samples.c) */
    const mb_metric *metric[MB_JOB_METRICS]; /* of an evaluation, beside the loss */
    int n_metrics;
    mb_groups *groups;   /* of metrics_by; NULL: none */
    char **group_metric; /* (groups, n_metrics + 1) eval_VALUE_METRIC, then eval_VALUE_rows */
    double *group_value; /* likewise */
    mb_data *data;
    mb_json_doc *config; /* the base model's config.json */
    int64_t base_labels; /* classes that the base tells apart; 0: it is no classifier */
    mb_device *device;   /* where steps run */
    mb_dtype dtype;      /* what they compute in */
    mb_dtype trained_in; /* MB_JOB_EXPORT: what the checkpoint's steps computed in */
    mb_mesh *mesh;       /* who shares gradients and parameters; NULL in MB_JOB_EXPORT */
    mb_engine *engine;
    mb_session_options session; /* what it was opened with */
    mb_zero *zero;
    mb_schedule_args schedule;
    const mb_schedule_kind *schedule_kind;
    mb_checkpoints *checkpoints;
    mb_sinks *sinks;     /* rank 0 */
    mb_profile *profile; /* NULL: none */
    mb_progress_state at;
    char *resumed_from; /* checkpoint this run goes on from, NULL: fresh */
    char run_id[40], base_digest[80], data_digest[80];
    int64_t total_steps, saving_step;
    int64_t steps_made;    /* by this process */
    int64_t library_bytes; /* of the process before anything was made */
    int64_t data_bytes; /* tokenizer, tokens, order and batch, measured before the plan is made */
    int64_t peak_bytes; /* measured, without libraries */
    int64_t step_allocations; /* requests for memory inside steps: 0 */
    bool save_aside;          /* checkpoints are written in the background, from a copy */
    bool fresh_output;        /* output_dir was not there, or empty */
    bool opened;              /* ready for the first step */
    bool stopped;             /* asked to stop: saved, to be requeued */
} mb_job;

/* Everything up to the first step. Collective; fails on all ranks or none. */
mb_status mb_job_open(mb_recipe *r, const mb_launch *launch, mb_job_use use,
                      mb_job **out) MB_MUST_USE;
/* A plan of a changed recipe for the data of `like`, as rank 0 of launch->size ranks that need not be
 * there (launch->world is not used). Not collective. */
mb_status mb_job_open_like(const mb_job *like, mb_recipe *r, const mb_launch *launch,
                           mb_job **out) MB_MUST_USE;
void mb_job_close(mb_job *j); /* NULL is allowed */

/* Runs to the end, to a stop, or to a failure; MB_EREQUEUE after a stop. Collective. */
mb_status mb_job_train(mb_job *j) MB_MUST_USE;

/* Loss per trained token (or row), and the task's or recipe's metrics of what the model says, over all
 * evaluation rows; adds eval_* to m and writes predictions_file. Collective; the numbers do not depend on the number of ranks. *given_up: a rank was asked to stop
 * meanwhile, there are no numbers. */
mb_status mb_job_evaluate(mb_job *j, mb_metrics *m, double *loss, bool *given_up) MB_MUST_USE;

/* What the model says of all evaluation rows, labelled or not, on rank 0 (recipes/train/predictions.h),
 * which the caller frees; on other ranks none. Collective. */
struct mb_predictions;
mb_status mb_job_predict(mb_job *j, struct mb_predictions **out) MB_MUST_USE;

/* Writes <output_dir>/final: an HF folder, or a PEFT adapter folder beside which the base is named.
 * Rank 0 writes. Collective. */
mb_status mb_job_export(mb_job *j) MB_MUST_USE;

/* Of a plan: reads the model, makes the first `steps` steps of the run and part of an evaluation, and
 * times them. Nothing is written. Once per job; MB_ENOMEM where the run does not fit. Collective. */
typedef struct mb_probe {
    int64_t steps, timed; /* made, and of them in the figures */
    double step_seconds, tokens_per_second;
    double train_hours; /* of the whole run */
    int64_t evaluations;
    double evaluation_seconds; /* of one; 0: none */
    int64_t saves, save_bytes; /* of all ranks, one save; not timed */
    double hours;              /* training and evaluations */
    int64_t peak_bytes;        /* measured after steps, without libraries; the most of any rank */
} mb_probe;
mb_status mb_job_probe(mb_job *j, int64_t steps, mb_probe *out) MB_MUST_USE;
/* job.c: memory and values for the steps of a plan. */
mb_status mb_job_prepare(mb_job *j) MB_MUST_USE;

/* The type a recipe wants exported weights in. */
mb_dtype mb_job_export_dtype(const mb_recipe *r);

/* ---- parts -------------------------------------------------------------------------------- */

/* save.c: state <-> checkpoint. */
mb_status mb_job_resume(mb_job *j) MB_MUST_USE; /* finds, compares, reads counters */
/* The class of what computes the steps: bits are promised within it. */
const char *mb_job_hardware(const mb_job *j);
bool mb_job_resumes_itself(const mb_recipe *r);          /* resume_from_checkpoint: auto */
mb_status mb_job_restore(mb_job *j) MB_MUST_USE;         /* fills parameters and states */
mb_status mb_job_save(mb_job *j, bool wait) MB_MUST_USE; /* starts a checkpoint of this moment */
/* The data of a resumed run is the data it was started with. */
mb_status mb_job_same_data(mb_job *j) MB_MUST_USE;
/* trainer.c: one step, with what ranks vote in it. */
mb_status mb_job_step(mb_job *j, const mb_step *s, double *votes, mb_zero_result *r) MB_MUST_USE;
/* How often a run that goes to its end evaluates and saves. */
void mb_job_due(const mb_job *j, int64_t *evaluations, int64_t *saves);
/* evaluate.c: the first micro-batches of an evaluation, at most `most` of each rank; *share: of all. */
mb_status mb_job_evaluate_part(mb_job *j, int64_t most, double *share) MB_MUST_USE;
/* evaluate.c: the recipe's metrics, or the task's. MB_EARG: the task has none of that name. */
mb_status mb_job_choose_metrics(mb_job *j) MB_MUST_USE;
/* evaluate.c: what the recipe's metrics_by asks for. Collective. */
mb_status mb_job_open_groups(mb_job *j) MB_MUST_USE;
void mb_job_close_groups(mb_job *j);
/* "f1" or "eval_f1" is among them. */
bool mb_job_has_metric(const mb_job *j, const char *name, const mb_metric **out);
/* trainer.c: metric_for_best_model is one this task's evaluation has. */
mb_status mb_job_metric_exists(const mb_job *j) MB_MUST_USE;
/* After a poll or wait: a published checkpoint gets the logs' trainer_state.json beside it. */
mb_status mb_job_saved(mb_job *j, mb_save_outcome outcome) MB_MUST_USE;
mb_status mb_job_base_digest(mb_job *j) MB_MUST_USE;

/* profile.c: memory before the plan is made, noting from when all else is open, and what came of it.
 * All three do nothing unless the recipe says profile; start and tell are collective. */
mb_status mb_job_profile_reserve(mb_job *j) MB_MUST_USE;
mb_status mb_job_profile_start(mb_job *j) MB_MUST_USE;
mb_status mb_job_profile_tell(mb_job *j) MB_MUST_USE;

/* plan.c: bytes of this rank, by what they are for and when. Pages that a phase touched stay, so an
 * evaluation has training's activations, too; only the model's last writing has given them back. */
typedef enum mb_memory_part {
    MB_PART_WEIGHTS,
    MB_PART_GRADIENTS,
    MB_PART_EXACT, /* integer sums of reduction: exact */
    MB_PART_OPTIMIZER,
    MB_PART_ACTIVATIONS,
    MB_PART_WORKSPACE,
    MB_PART_COMMUNICATION,
    MB_PART_FILES, /* a checkpoint or model being read or written, and the copy it is made from */
    MB_PART_DATA,  /* tokenizer, tokens, order, a batch */
    MB_MEMORY_PARTS
} mb_memory_part;

typedef enum mb_memory_phase {
    MB_PHASE_LOADING, /* the base model */
    MB_PHASE_TRAINING,
    MB_PHASE_EVALUATION,
    MB_PHASE_SAVING,
    MB_PHASE_RESUMING, /* from a checkpoint */
    MB_PHASE_FINAL,    /* writing the model */
    MB_MEMORY_PHASES
} mb_memory_phase;

typedef struct mb_memory_plan {
    int64_t bytes[MB_MEMORY_PHASES][MB_MEMORY_PARTS];
    bool happens[MB_MEMORY_PHASES]; /* in this run; resuming: could */
    int64_t total[MB_MEMORY_PHASES];
    mb_memory_phase peak; /* the phase that takes most */
    int64_t most;         /* of it */
    int64_t host,
        device; /* the most in host memory; of the device, 0 where its memory is the host's */
} mb_memory_plan;
extern const char *const mb_memory_part_names[MB_MEMORY_PARTS];
extern const char *const mb_memory_phase_names[MB_MEMORY_PHASES];

void mb_job_memory(const mb_job *j, mb_memory_plan *out);
/* What there is for this rank: its share of the machine's memory (`given` bytes, 0: what is free now),
 * or of a GPU's. */
typedef struct mb_memory_room {
    int64_t host, device;
    int64_t device_all; /* used or not */
} mb_memory_room;
mb_status mb_job_room(const mb_job *j, int64_t given, mb_memory_room *out) MB_MUST_USE;
bool mb_memory_fits(const mb_memory_plan *p, const mb_memory_room *room);
/* As mb_job_memory; gives up save_aside where save_async is auto and there is no room for it. */
void mb_job_memory_in(mb_job *j, const mb_memory_room *room, mb_memory_plan *out);
/* MB_ENOMEM, with both numbers, when the plan exceeds what the machine has for this rank. Called before
 * the memory is touched. */
mb_status mb_job_fits(mb_job *j) MB_MUST_USE;
void mb_job_log_memory(const mb_job *j);

/* For verbs on ranks: loads the recipe on all, applies `threads`, calls run. Collective. */
typedef mb_status (*mb_recipe_fn)(mb_launch *launch, mb_recipe *r, void *ctx);
mb_status mb_job_verb(mb_launch *launch, int argc, char **argv, mb_recipe_fn run,
                      void *ctx) MB_MUST_USE;

/* Session options as a recipe gives them. */
void mb_job_session_options(const mb_recipe *r, const mb_task *task, int threads,
                            mb_session_options *o);

#endif
