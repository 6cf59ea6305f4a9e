/* dist/shard.h - which parameters and gradients are where, while a step goes through the layers.
 *
 * Follows a micro-batch from layer to layer (mb_tape_on_edges) and moves units of the flat order
 * (core/flat.h) over the communicator. What it does depends on the stage, and on whether collectives
 * run behind the computing (mb_comm_queues: on devices, and in host memory where that was asked for
 * and there is enough to move):
 *
 *     stage 0, and 1 otherwise     nothing here: all is reduced and gathered at once (dist/zero.c)
 *     stage 1 behind the computing a unit's gradients are reduced as soon as the last micro-batch's
 *                                  backward has left it
 *     stage 1, 2 behind it         parameters are gathered one layer ahead of the next forward
 *     stage 2                      each micro-batch's gradients are reduced unit by unit out of
 *                                  windows, and added to the own range
 *     stage 3                      parameters too are gathered unit by unit into windows, in the
 *                                  forward and again in the backward, one layer ahead
 *
 * Owners. A rank owns one range of the flat order, so most units belong to one or two ranks; a
 * reduction goes to the owners and a gathering comes from them. Over a ring that sends the same bytes
 * as cutting every unit into equal parts would.
 *
 * Rounds. At stages 2 and 3 every rank takes part in every micro-batch's collectives: ranks that have
 * fewer micro-batches than others go through the same edges with zeros (mb_shard_idle). All ranks go
 * through the same edges in the same order, so collectives match.
 *
 * Collectives run on the comm stream of a device, or on a thread of their own (dist/comm_queue.h): in
 * the same order, through the same calls. A layer's gradients are under way while the layer below
 * computes, parameters of the next while this one does.
 */
#ifndef MB_DIST_SHARD_H
#define MB_DIST_SHARD_H

#include "autograd/model.h"
#include "autograd/tape.h"
#include "core/comm.h"
#include "core/flat.h"

typedef struct mb_shard mb_shard;

/* comm, ex, flat are borrowed; work: staging for reduce_scatter. behind: stages 1 and 2 move what can
 * run behind the computing unit by unit. The caller owns *out. */
mb_status mb_shard_new(mb_comm *comm, mb_exec *ex, mb_flat *flat, bool behind, void *work,
                       size_t work_bytes, mb_shard **out) MB_MUST_USE;
void mb_shard_free(mb_shard *s); /* NULL is allowed */

/* Does this move gradients, or are they whole when a micro-batch ends? */
bool mb_shard_moves_gradients(const mb_shard *s);
/* Does this gather parameters when they are needed? */
bool mb_shard_moves_parameters(const mb_shard *s);

/* What exact reduction needs to know in a round: the shift, the limit, where to note what was seen
 * (mb_run_exact_add). */
typedef struct mb_shard_exact {
    int shift;
    double limit;
    mb_tensor seen;
} mb_shard_exact;

/* Around a micro-batch of a step; `last`: this rank has no further one in the step. Collective at
 * stages 2 and 3. */
mb_status mb_shard_begin(mb_shard *s, const mb_shard_exact *exact, bool last) MB_MUST_USE;
mb_status mb_shard_end(mb_shard *s) MB_MUST_USE;
/* A round without a micro-batch. Collective. */
mb_status mb_shard_idle(mb_shard *s, const mb_shard_exact *exact) MB_MUST_USE;
/* The same for a forward without a backward (evaluation): `idle` when this rank has none. */
mb_status mb_shard_look(mb_shard *s, bool idle) MB_MUST_USE;
/* An mb_layer_edge_fn; ctx is the mb_shard. */
mb_status mb_shard_edge(void *ctx, int64_t layer, mb_layer_edge edge);

/* The own range of gradients (flat->own_grad, or own_exact) holds the sum over all micro-batches and
 * ranks when what was queued is done; called once all ranks' rounds of a step are over. Collective. */
mb_status mb_shard_reduced(mb_shard *s) MB_MUST_USE;
/* The owners have new parameters. */
void mb_shard_changed(mb_shard *s);
/* All parameters are in mb_flat_values on this rank (stages 0 to 2). Waits. Collective. */
mb_status mb_shard_settle(mb_shard *s) MB_MUST_USE;
/* Payload bytes this rank sends in `rounds` rounds that start with no parameter gathered, by the
 * formulas of dist/zero.h. */
int64_t mb_shard_round_bytes(const mb_shard *s, int64_t rounds);

#endif
