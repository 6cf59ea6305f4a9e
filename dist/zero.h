/* dist/zero.h - one optimizer step over all ranks: reduce, clip, update a shard, gather.
 *
 * ZeRO (Rajbhandari et al., arXiv:1910.02054). Rank r owns a range of the flat parameters, cut at
 * grains (mb_flat_bounds). Stage 1: only the owner has optimizer state for a range and updates it;
 * then everyone gets the new parameters. Stage 2: only the owner keeps gradients, too. Stage 3: only
 * the owner keeps parameters. Stage 0: everyone has all the state, gets the summed gradients and
 * updates everything. All give the same bits. How numbers move within a step is dist/shard.h's.
 *
 * With hybrid sharding (dist/mesh.h) ranks are those of a copy: its owners' sums are summed once more
 * over the copies, each of which then makes the same update.
 *
 *     mb_tape_on_edges(tape, mb_shard_edge, mb_zero_shard(z));
 *     mb_zero_begin(z, M);                             // M micro-batches in this step, all ranks
 *     for each micro-batch i of this rank:
 *         MB_TRY(mb_zero_enter(z, i, last));
 *         forward, backward                            // of the summed loss
 *         MB_TRY(mb_zero_micro(z, i));
 *         mb_zero_note(z, i, metrics);     // summed loss, trained tokens, ...; any time before the step
 *     MB_TRY(mb_zero_step(z, &args, votes, &result));  // on MB_ZERO_REPEAT: the loop once more
 *
 * Exact reduction (flat->exact not NULL): a micro-batch's gradient is added as integers, in units of
 * 2^-s, where s = 40 - ceil(log2 of the largest |g| in the last applied step's micro-batches), 36
 * without history. |g| 2^s must stay below 2^(62 - ceil(log2 M)); if not, the step is repeated with s
 * from the maxima just seen. Everything that decides is kept per micro-batch and summed with zeros
 * elsewhere, so neither numbers nor decisions depend on the layout. Norms are summed per grain, then
 * in grain order; metrics in micro-batch order.
 *
 * Bytes a rank sends in an applied step of n > 1 ranks, G grains, N = 4096 G elements, rank r owning
 * N(r) elements (mb_zero_step_bytes; e = 8 exact, else 4, or 2 where sums travel as bfloat16):
 *
 *     (n-1) 8 (votes + M (3 + metrics))   flags, metrics (up to 64 KiB; see comm_mpi.h)
 *     e (N - N(rank))                     gradients to their owners; stages 2 and 3: in each of R rounds
 *     8 (G - N(right)/4096)               norm partials
 *     p (N - N(right))                    parameters of p = 4 or 2 bytes (stage 0: gradients); stage
 *                                         3: per layer and round twice, less what is in a window
 *
 * where R = ceil(M / n), and N counts real parameters only where units move one by one. With hybrid
 * sharding the first line and R are of all ranks, the others of the n that share parameters, and an
 * all_reduce of N(rank) sums over the copies comes to them: (e + max(e, 4)) N(rank) (c-1)/c of c, in
 * all.
 *
 * Nothing is allocated after mb_zero_new. All functions but mb_zero_begin and the accessors are
 * collective; mb_zero_enter and mb_zero_micro only at stages 2 and 3.
 */
#ifndef MB_DIST_ZERO_H
#define MB_DIST_ZERO_H

#include "dist/mesh.h"
#include "dist/shard.h"
#include "optim/optimizer.h"

enum { MB_ZERO_LOSS, MB_ZERO_TOKENS, MB_ZERO_METRICS_MIN }; /* the first two metrics */
enum { MB_ZERO_SKIPS_MAX = 3 };                             /* in a row; then the run stops */

typedef struct mb_zero mb_zero;

typedef struct mb_zero_options {
    int stage;         /* 0 to 3; above 1 the flat order has units and is sharded alike */
    int n_metrics;     /* per micro-batch, at least MB_ZERO_METRICS_MIN */
    int n_votes;       /* per rank, summed over ranks with the flags; may be 0 */
    int64_t max_micro; /* most micro-batches of a global step */
    bool scale_loss;   /* f16: gradients are those of the loss times mb_zero_loss_scale */
    /* Where collectives can run behind the computing, stages 1 and 2 let them from so many bytes of
     * gradients on; fewer are moved at once, in fewer messages. */
    int64_t behind_from;
} mb_zero_options;

typedef struct mb_zero_args {
    double lr;
    double max_grad_norm; /* 0: no clipping */
    double divisor;       /* of the summed loss; 0: the sum of the MB_ZERO_TOKENS metric */
} mb_zero_args;

typedef enum mb_zero_outcome { MB_ZERO_APPLIED, MB_ZERO_SKIPPED, MB_ZERO_REPEAT } mb_zero_outcome;

typedef struct mb_zero_result {
    mb_zero_outcome outcome; /* the same on all ranks, as is everything here */
    double grad_norm;        /* of the mean gradient, before clipping; NaN when skipped */
    double loss;             /* summed loss / divisor */
    double divisor;
    const double *metric; /* n_metrics sums over all micro-batches; borrowed until the next step */
    int64_t bad_micro;    /* the first micro-batch with a non-finite value; -1: none known */
} mb_zero_result;

/* What a checkpoint keeps beside the states. */
typedef struct mb_zero_history {
    int64_t applied;     /* updates so far: the optimizer's t */
    double max_abs;      /* largest |g| of any micro-batch of the last applied step; 0: none */
    int64_t skipped_row; /* skipped steps since the last applied one */
    int64_t skipped, repeated; /* in all */
    double loss_scale;         /* f16; 0: not yet chosen */
    int64_t unscaled;          /* applied steps since it was last changed */
} mb_zero_history;

/* What mesh names, ex, flat and kind are borrowed and outlive *out, which the caller owns. */
mb_status mb_zero_new(const mb_mesh *mesh, mb_exec *ex, mb_flat *flat, const mb_optim_kind *kind,
                      const mb_optim_hyper *hyper, const mb_zero_options *options,
                      mb_zero **out) MB_MUST_USE;
void mb_zero_free(mb_zero *z); /* NULL is allowed */

/* Starts (or starts again) a step of n_micro micro-batches over all ranks. */
mb_status mb_zero_begin(mb_zero *z, int64_t n_micro) MB_MUST_USE;
/* Before the forward of micro-batch `index`; `last`: this rank's last one of the step. */
mb_status mb_zero_enter(mb_zero *z, int64_t index, bool last) MB_MUST_USE;
/* The gradients of micro-batch `index` of the global step are complete, or will be when what is queued
 * is done. With exact reduction they are zero afterwards. */
mb_status mb_zero_micro(mb_zero *z, int64_t index) MB_MUST_USE;
/* Its n_metrics numbers. */
void mb_zero_note(mb_zero *z, int64_t index, const double *metric);
/* Ends the step. votes: n_votes numbers of this rank, on return their sums over ranks. Gradients are
 * zero afterwards whatever the outcome, or, where micro-steps clear them (flat->grad_in_step), anything;
 * a rank without a micro-batch then clears its own before this. MB_ENUM when too many steps in a row
 * were not finite, MB_EDATA when the divisor is zero. Collective. */
mb_status mb_zero_step(mb_zero *z, const mb_zero_args *args, double *votes,
                       mb_zero_result *out) MB_MUST_USE;

/* After a load filled what mb_zero_own says: parameters and states to all ranks that have them.
 * Collective. */
mb_status mb_zero_spread(mb_zero *z) MB_MUST_USE;
/* For writing the model: rank 0 gets elements [from, from + n) of the master copies, in host memory, of
 * whoever owns them. The others answer in mb_zero_serve until rank 0 calls mb_zero_served; nothing
 * else may be asked of them meanwhile. `z` is a void * so that flat->fetch can be this. */
mb_status mb_zero_fetch(void *z, int64_t from, int64_t n, float *to) MB_MUST_USE;
mb_status mb_zero_serve(mb_zero *z) MB_MUST_USE;
mb_status mb_zero_served(mb_zero *z) MB_MUST_USE;
/* What follows a step's layers. */
mb_shard *mb_zero_shard(mb_zero *z);

mb_zero_history *mb_zero_history_of(mb_zero *z);
/* What the loss of the step now running is to be multiplied by before its gradients are taken; a power
 * of two, 1 without scale_loss. Halved when a gradient overflows (the step is skipped, which does not
 * count towards MB_ZERO_SKIPS_MAX), doubled after 2000 steps that went well (Micikevicius et al.,
 * arXiv:1710.03740). Norms, losses and updates are of the loss as it is. */
double mb_zero_loss_scale(const mb_zero *z);
/* What this rank saves and loads of the flat parameters, in elements: its own range, or its share
 * of that among the copies. */
void mb_zero_own(const mb_zero *z, int64_t *from, int64_t *to);
/* Set 0: the parameters of that, without data where they are in halves (core/flat.h); 1 + i: state i
 * of it, in the kind's type. to - from numbers of the device. */
mb_tensor mb_zero_own_set(mb_zero *z, int set);
mb_device *mb_zero_device(const mb_zero *z); /* NULL: host memory */
const mb_optim_kind *mb_zero_kind(const mb_zero *z);
mb_flat *mb_zero_flat(mb_zero *z);
/* All ranks, in the order of what mb_zero_own gives them. */
mb_comm *mb_zero_parts(mb_zero *z);
/* The shift s the step now running uses. */
int mb_zero_shift(const mb_zero *z);

/* Optimizer state on this rank, staging and tables: for the plan, before anything is made. */
size_t mb_zero_state_bytes(const mb_flat *flat, const mb_optim_kind *kind, int stage, int rank,
                           int size);
size_t mb_zero_work_bytes(const mb_comm *comm, const mb_flat *flat, const mb_zero_options *options);
/* The formula above for an applied step. */
int64_t mb_zero_step_bytes(const mb_zero *z, int64_t n_micro);

#endif
