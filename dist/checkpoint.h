/* dist/checkpoint.h - saving a run so that nothing is lost, and reading it back on any ranks.
 *
 *     out/checkpoint-000200/              appears by one rename of checkpoint-000200.partial
 *       rank-00000-of-00002.000.h5 ...    this rank's slices: /param/<tensor>, /optim/<state>/<tensor>
 *       state.h5                          counters and the trainer's own state
 *       model.h5                          virtual datasets: every tensor whole, for h5py and h5dump
 *       recipe.yaml
 *       manifest.json                     written last: sizes and sha256 of every file and slice
 *
 * A slice is a range of one tensor's elements, cut where a rank's range or a piece ends; its dataset
 * is 1-D with the attributes from, shape and flat. Pieces are built in memory, written, fsynced and
 * renamed here, so a full disk never reaches HDF5, and a file is read only after its digest agreed.
 *
 * Saving. mb_checkpoints_begin copies the state aside and writes it from a thread of its own that
 * runs no collective, or, when not asynchronous, writes before it returns. Each rank's progress
 * rides in the step's votes; when all are done, mb_checkpoints_poll publishes:
 *
 *     mb_checkpoints_vote(c, votes);                    // two numbers, summed over ranks by the step
 *     MB_TRY(mb_checkpoints_poll(c, votes, &outcome));
 *
 * A save that fails (disk full, a value that is not finite) leaves no trace but a warning; the run
 * goes on and the caller decides. A process killed at any moment leaves the checkpoints that were
 * there, and the new one wholly or not at all.
 *
 * Reading. mb_checkpoint_find gives the newest one whose every byte is as it was written; others
 * are named and passed over. Ranges are matched by tensor name and element, so any number of ranks,
 * either ZeRO stage and any piece size read any checkpoint. Slices are f32 numbers whatever the states
 * are in memory: a run may go on with a kind of optimizer that has the same states in another type, and
 * with its own gets back the bits it had.
 */
#ifndef MB_DIST_CHECKPOINT_H
#define MB_DIST_CHECKPOINT_H

#include "dist/zero.h"

enum { MB_CHECKPOINT_VERSION = 1, MB_CHECKPOINT_VOTES = 2 };

typedef struct mb_checkpoints mb_checkpoints; /* the checkpoints of one output_dir, while it runs */

typedef struct mb_checkpoints_options {
    const char *output_dir;
    int keep;            /* save_total_limit: the newest so many, and the best; 0: all */
    int64_t piece_bytes; /* of data in one piece; 0: 32 MiB; at most 120 MiB */
} mb_checkpoints_options;

/* What a checkpoint holds beside tensors. Texts are borrowed by begin, owned after a read. */
typedef struct mb_checkpoint_info {
    int64_t step;
    const char *run_id;      /* one word for the life of a run */
    const char *state_json;  /* the trainer's: cursor, scales, metrics, library versions ... */
    const char *recipe_yaml; /* the resolved recipe */
    int ranks;               /* that saved it; set when read */
    mb_zero_history history; /* set when read; taken from the zero object when saved */
} mb_checkpoint_info;

typedef enum mb_save_outcome { MB_SAVE_NONE, MB_SAVE_PUBLISHED, MB_SAVE_FAILED } mb_save_outcome;

/* Makes the folder, locks it (rank 0; MB_EIO names who holds it) and removes what a killed run left.
 * The caller owns *out; comm is borrowed. Collective. */
mb_status mb_checkpoints_open(mb_comm *comm, const mb_checkpoints_options *options,
                              mb_checkpoints **out) MB_MUST_USE;
/* Waits for this rank's thread and gives up the lock. An unfinished save is not published. Local. */
void mb_checkpoints_close(mb_checkpoints *c); /* NULL is allowed */

/* Starts a save. z and its flat may change as soon as this returns. `best_step`: the checkpoint
 * that is kept beside the newest, -1: none. An error means that nothing was started, on all ranks.
 * Collective. */
mb_status mb_checkpoints_begin(mb_checkpoints *c, mb_zero *z, const mb_checkpoint_info *info,
                               int64_t best_step, bool async) MB_MUST_USE;
bool mb_checkpoints_is_saving(const mb_checkpoints *c);
/* votes[0]: this rank has no more to write; votes[1]: it failed. Local, never waits. */
void mb_checkpoints_vote(mb_checkpoints *c, double votes[MB_CHECKPOINT_VOTES]);
/* Given the sums of all ranks' votes: publishes or gives up when all are done. Collective. */
mb_status mb_checkpoints_poll(mb_checkpoints *c, const double votes[MB_CHECKPOINT_VOTES],
                              mb_save_outcome *outcome) MB_MUST_USE;
/* Waits for the save now running, if any, and ends it. Collective. */
mb_status mb_checkpoints_wait(mb_checkpoints *c, mb_save_outcome *outcome) MB_MUST_USE;
/* The most anonymous and shared memory the process had while it wrote the saves so far; 0: none. */
int64_t mb_checkpoints_peak(const mb_checkpoints *c);
/* Why the last failed save failed; "" when none did. */
const char *mb_checkpoints_failure(const mb_checkpoints *c);
/* After going back to `step` by hand: newer checkpoints belong to a past that is no longer this
 * run's and are renamed to *.superseded, with a line each. Collective. */
mb_status mb_checkpoints_supersede(mb_checkpoints *c, int64_t step) MB_MUST_USE;

/* "<output_dir>/checkpoint-000200". */
mb_status mb_checkpoint_path(const char *output_dir, int64_t step, char *path,
                             size_t size) MB_MUST_USE;
/* The steps that have a published folder, ascending; owned by the caller. Nothing is opened. */
mb_status mb_checkpoint_list(const char *output_dir, int64_t **steps, size_t *n) MB_MUST_USE;
/* Reads every byte of a checkpoint against its manifest, shared among the ranks. MB_EIO names the
 * file that is missing, cut short or changed. Collective. */
mb_status mb_checkpoint_verify(mb_comm *comm, const char *path) MB_MUST_USE;
/* The newest that verifies; *path is owned by the caller, NULL when there are none at all. Broken
 * ones are warned about; when all are broken, MB_EIO. Collective. */
mb_status mb_checkpoint_find(mb_comm *comm, const char *output_dir, char **path) MB_MUST_USE;

/* The texts and counters; before the model is built. Local. */
mb_status mb_checkpoint_read_info(const char *path, mb_checkpoint_info *out) MB_MUST_USE;
void mb_checkpoint_info_release(mb_checkpoint_info *info);
/* Parameters, optimizer states and history into z and its flat, on every rank. MB_EMODEL names a
 * tensor or state that does not fit, MB_EIO damage. Collective. */
mb_status mb_checkpoint_load(const char *path, mb_zero *z) MB_MUST_USE;

/* For the plan: the copy an asynchronous save holds while it runs, and what any save holds, the
 * largest file of the rank in memory, with its numbers where states or, unless there is a copy aside,
 * parameters are not kept in f32. */
size_t mb_checkpoint_aside_bytes(const mb_flat *flat, const mb_optim_kind *kind, int rank,
                                 int size);
size_t mb_checkpoint_image_bytes(const mb_checkpoints_options *options, const mb_flat *flat,
                                 const mb_optim_kind *kind, int rank, int size, bool aside);
/* What mb_checkpoint_load takes meanwhile: a file, whoever wrote it, and numbers that are kept in
 * another type than f32. */
size_t mb_checkpoint_load_bytes(const mb_flat *flat, const mb_optim_kind *kind);

#endif
