/* recipes/train/share.h - a model or data of a hub that one machine's cache has and another's lacks.
 *
 * On a cluster whose machines each have a cache of their own, `mbuyu pull` runs on one of them. The
 * lowest rank that has what the recipe names reads it, and the others receive it by MPI, a piece of
 * 8 MiB at a time: in every cache that lacks it one rank writes, checks digests, and publishes as
 * pull does. Nothing reaches a network beside MPI's.
 */
#ifndef MB_RECIPES_TRAIN_SHARE_H
#define MB_RECIPES_TRAIN_SHARE_H

#include "core/comm.h"
#include "core/path.h"
#include "recipes/config/recipe.h"

/* Afterwards the recipe's names of a hub are paths on all ranks where they were on any. The same
 * status on all ranks. Collective. */
mb_status mb_share_hub(mb_comm *comm, mb_recipe *r) MB_MUST_USE;

/* Publishes a file of a shared cache, of `size` bytes. A cache on a disk of several machines is written by
 * each of them: where another one was faster and took the temporary file away, what it left under that
 * name is as good. */
mb_status mb_share_publish(mb_newfile *f, int64_t size) MB_MUST_USE;

#endif
