/* recipes/train/engine.h - a model with memory, ready to run micro-batches.
 *
 * What a command does with a model, once it is built and it is decided what is trained:
 *
 *     mb_engine_new(model, &options, &e)         takes the model; measures, then takes run memory
 *     mb_model_load(e->model, file, ...)         values
 *     mb_engine_plan(e, batch, true)             for the largest batch and every shape class below
 *     mb_engine_micro(e, batch, true, &result)   forward, loss, backward into flat.grad
 *
 * After mb_engine_plan a micro-step allocates nothing: its buffers lie where the plan put them.
 * Without a plan (tools, tests) they are taken one after the other from a step arena that
 * mb_engine_reserve sized. Nothing here is collective.
 */
#ifndef MB_RECIPES_TRAIN_ENGINE_H
#define MB_RECIPES_TRAIN_ENGINE_H

#include "autograd/lora.h"
#include "autograd/model.h"
#include "recipes/train/bases.h"
#include "recipes/train/feed.h"
#include "recipes/train/replay.h"

typedef struct mb_engine_options {
    mb_device *device; /* borrowed; NULL: host memory, kernels of the CPU */
    int threads;       /* of the host */
    mb_dtype dtype;    /* what is computed in: F32, BF16, F16 */
    bool exact;        /* room for the exact accumulator */
    int zero_stage;    /* what this rank keeps of the flat order (core/flat.h) ... */
    int rank, size;    /* ... of these ranks; size 0: all of it */
    bool recompute;    /* gradient checkpointing */
    /* Nobody needs a micro-step's gradients once the next begins: at stages 0 and 1 they may lie where
     * activations were (autograd/tape.h). */
    bool grads_in_step;
    int64_t max_positions; /* longest sequence; 0: the model's */
    mb_base *base;         /* taken: lends its weights; NULL: the model has all of its own */
} mb_engine_options;

typedef struct mb_engine_class {
    int64_t tokens, max_len;
    int64_t source_tokens, source_max_len; /* 0: no source */
    bool train;
    mb_tape_plan plan;
    size_t scratch, calls;
} mb_engine_class;

typedef struct mb_micro_result {
    double loss;          /* sum over targets of weight * -log p */
    double weight;        /* sum of weights */
    const float *logprob; /* (n_targets), borrowed until the next micro-step */
} mb_micro_result;

typedef struct mb_engine {
    mb_model *model;
    mb_flat flat;
    mb_device *device;
    mb_exec ex;                     /* of the device: what steps run on */
    mb_exec host;                   /* of the host: for loading and saving */
    mb_arena *run, *step, *scratch; /* run: NULL where mb_base_keep took it */
    mb_base *base;
    mb_feed *feed; /* NULL: host memory */
    float *wide;   /* results that were of another type, in host memory */
    size_t wide_capacity;
    mb_replay *replay; /* NULL: kernels are always queued one by one */
    mb_tape *tape;
    bool recompute;
    float grad_scale; /* gradients are those of the loss times this: 1, or the scale of f16 */
    size_t run_bytes, step_bytes, scratch_bytes, batch_bytes; /* as planned */
    mb_engine_class *class_plan;
    int n_classes;
    mb_engine_class
        logits_plan[2];      /* of sources to be encoded or without one, of cached ones; tokens
                                     * 0: none */
    mb_micro_result *queued; /* host memory: results by slot */
    float *queued_weight;    /* device: weights and ... */
    int64_t *queued_targets; /* ... number of targets by slot */
    int64_t n_queued, queue_targets;
    bool queue_waited;
    int64_t logits_rows[2];
} mb_engine;

/* Takes the model and the base (gives them up also on failure). */
mb_status mb_engine_new(mb_model *m, const mb_engine_options *o, mb_engine **out) MB_MUST_USE;
void mb_engine_free(mb_engine *e); /* NULL is allowed */

/* Plans steps of `tokens` tokens with the buffers of `b` (its arrays are not read) and the tokens of
 * its source, if it has one, and makes room for them. Call once per shape class and mode, before the first micro-step. */
mb_status mb_engine_plan(mb_engine *e, mb_batch *b, int64_t tokens, bool train) MB_MUST_USE;
/* Takes the memory that all plans so far need. */
mb_status mb_engine_reserve(mb_engine *e) MB_MUST_USE;
/* Gives it back: there will be no more steps. Weights stay. */
void mb_engine_rest(mb_engine *e);
/* For unplanned use: memory for one step like `b`, with whole logits of `logit_rows` rows. */
mb_status mb_engine_reserve_for(mb_engine *e, mb_batch *b, bool train,
                                int64_t logit_rows) MB_MUST_USE;

/* Plans mb_engine_logits for batches of 1 to `tokens` tokens with a list of 1 to `rows` rows, with the
 * buffers of `b` (its arrays are not read), and takes the memory: such calls allocate nothing. */
mb_status mb_engine_plan_logits(mb_engine *e, mb_batch *b, int64_t tokens,
                                int64_t rows) MB_MUST_USE;

/* One micro-batch. train: gradients of the summed loss are added to flat.grad, or, with
 * grads_in_step, are what it then holds. */
mb_status mb_engine_micro(mb_engine *e, const mb_batch *b, bool train,
                          mb_micro_result *out) MB_MUST_USE;

/* The same for training without waiting for the result, which is asked for later by `slot`: a step
 * runs all its micro-batches and then looks at them. mb_engine_reserve_queue makes room for `slots` of
 * them with up to `targets` targets each. */
mb_status mb_engine_reserve_queue(mb_engine *e, int64_t slots, int64_t targets) MB_MUST_USE;
/* Queued micro-steps are recorded and replayed from now on, where the device can and nothing in them
 * changes from step to step (dropout does). Only for steps in which nobody follows the tape's edges. */
mb_status mb_engine_replay(mb_engine *e) MB_MUST_USE;
mb_status mb_engine_queue(mb_engine *e, const mb_batch *b, int64_t slot) MB_MUST_USE;
/* Waits for what was queued; out->logprob is not kept. */
mb_status mb_engine_result(mb_engine *e, int64_t slot, mb_micro_result *out) MB_MUST_USE;

/* Forward without loss; *logits (rows, V or labels) of the feature rows listed in `rows` (i32), or of
 * all when NULL; of an embedder its vectors. Borrowed until the next step. */
mb_status mb_engine_logits(mb_engine *e, const mb_batch *b, const mb_tensor *rows,
                           mb_tensor *logits) MB_MUST_USE;
/* The plain path, of engines without grads_in_step: whole logits on the tape, cross_entropy, backward
 * with d(loss)/d(logprob) = -weight/divisor. For verify and tests. */
mb_status mb_engine_plain(mb_engine *e, const mb_batch *b, double divisor, mb_tensor *logits,
                          mb_micro_result *out) MB_MUST_USE;

/* Zeros in flat.grad; until the next micro-step, where gradients lie in one. */
mb_status mb_engine_zero_grad(mb_engine *e) MB_MUST_USE;

/* Threads for a command that is not started under MPI: the processors it may use, or
 * OMP_NUM_THREADS. */
int mb_default_threads(void);

#endif
