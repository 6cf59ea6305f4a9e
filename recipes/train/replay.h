/* recipes/train/replay.h - micro-steps recorded once and replayed: CUDA graphs.
 *
 * A small model's micro-step is hundreds of kernels of a few microseconds; starting them one by one
 * takes the host longer than running them takes the GPU. A planned micro-step of one shape queues the
 * same kernels with the same addresses every time, so it is recorded (the second time its shape is
 * seen) and replayed as a whole. What differs between micro-batches is data on the device. Never
 * needed for a result: without a graph, or with too many shapes, kernels are queued one by one.
 */
#ifndef MB_RECIPES_TRAIN_REPLAY_H
#define MB_RECIPES_TRAIN_REPLAY_H

#include "core/device.h"

typedef struct mb_replay mb_replay;

/* Everything a recorded micro-step depends on that the host decides. */
typedef struct mb_replay_key {
    int64_t tokens, source_tokens, targets;
    float grad_scale;
} mb_replay_key;

/* d is borrowed and has graphs; the caller owns *out. */
mb_status mb_replay_new(mb_device *d, mb_replay **out) MB_MUST_USE;
/* Waits for the device. NULL is allowed. */
void mb_replay_free(mb_replay *r);

typedef enum mb_replay_way {
    MB_REPLAY_EAGER,  /* queue kernels one by one */
    MB_REPLAY_RECORD, /* the same, between mb_replay_begin and mb_replay_end, which queues them */
    MB_REPLAY_DONE    /* it is queued; *result is what it was recorded with */
} mb_replay_way;

mb_status mb_replay_try(mb_replay *r, const mb_replay_key *key, mb_replay_way *way,
                        mb_tensor *result) MB_MUST_USE;
mb_status mb_replay_begin(mb_replay *r) MB_MUST_USE;
/* `failed`: recording is given up, nothing is queued. */
mb_status mb_replay_end(mb_replay *r, const mb_replay_key *key, const mb_tensor *result,
                        bool failed) MB_MUST_USE;

/* Micro-steps that were replayed so far. */
int64_t mb_replay_count(const mb_replay *r);

#endif
