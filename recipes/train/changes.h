/* recipes/train/changes.h - what to change in a run that does not fit into memory.
 *
 * A table of changes (changes.c). Each is planned for real: the recipe is read again with the changed
 * keys and opened as a plan over the same rows, on paper where it has another number of ranks. No
 * value is read, nothing is written.
 */
#ifndef MB_RECIPES_TRAIN_CHANGES_H
#define MB_RECIPES_TRAIN_CHANGES_H

#include "recipes/train/job.h"

typedef struct mb_proposal {
    char keys[320];      /* as for a command line: "gradient_checkpointing=true --ranks 2" */
    char note[160];      /* what else it means; may be empty */
    mb_memory_plan plan; /* of rank 0 */
    mb_memory_room room; /* of a rank, after the change */
    double time;         /* of a step, 1 as it is now; an estimate */
    bool more_machines;  /* than now */
} mb_proposal;

/* The recipe as it was given, to be changed. The caller frees *out. */
typedef mb_status (*mb_recipe_again)(void *ctx, mb_recipe **out);

/* Those that fit into `room` (of a rank of j), the least time first and those on more machines last; a
 * combination where no single change is enough. The caller frees *out; *n may be 0. On one rank. */
mb_status mb_job_changes(const mb_job *j, const mb_memory_room *room, mb_recipe_again again,
                         void *ctx, mb_proposal **out, int *n) MB_MUST_USE;

#endif
