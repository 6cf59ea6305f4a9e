/* recipes/hub/cache.h - what the shared cache holds, and taking things out of it. No network.
 *
 * A repository's bytes are in blobs/, once; snapshots are names for them. Removing a revision removes
 * its names, the branches that mean it, and the blobs no other snapshot has a name for.
 */
#ifndef MB_RECIPES_HUB_CACHE_H
#define MB_RECIPES_HUB_CACHE_H

#include <stdio.h>

#include "recipes/config/hub_path.h"

/* One line for each repository: name, size, files, revisions. */
mb_status mb_cache_print(FILE *out) MB_MUST_USE;
/* The revisions of one, each with its files. MB_EARG: the cache has nothing of it. */
mb_status mb_cache_print_one(const mb_hub_name *name, FILE *out) MB_MUST_USE;
/* Removes the repository, or (with a revision) one commit of it. `agreed` is asked with what will be
 * removed, and again when that became something else meanwhile (a pull ended); MB_EARG when it says no,
 * or when there is no such thing. Waits for a pull of the repository. */
mb_status mb_cache_remove(const mb_hub_name *name, bool (*agreed)(const char *what),
                          FILE *out) MB_MUST_USE;

#endif
