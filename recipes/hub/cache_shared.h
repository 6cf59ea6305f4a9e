/* recipes/hub/cache_shared.h - contents that several repositories of the cache share.
 *
 * huggingface_hub 2.4 keeps what it fetched by Xet once: CACHE/blobs/ab/ab...(64 digits) is the file,
 * blobs/DIGEST of each repository a link to it (../../blobs/ab/...), ab....refs lists those links
 * ("models--org--name/blobs/DIGEST", one a line, to be believed only where the link is there), and
 * ab....lock is held (flock) while one of them changes. mbuyu reads such links like files, makes none,
 * and, when it removes the last one, removes the contents as that library does.
 */
#ifndef MB_RECIPES_HUB_CACHE_SHARED_H
#define MB_RECIPES_HUB_CACHE_SHARED_H

#include <stdbool.h>

/* Does `blob`, a name in blobs/ of the folder `repo` of the cache, link to shared contents? hash[65]. */
bool mb_shared_hash(const char *cache, const char *repo, const char *blob, char *hash);
/* Does another blob link to them, or can that not be known? */
bool mb_shared_is_needed(const char *cache, const char *hash, const char *repo, const char *blob);
/* Removes contents no link leads to any more. What is in doubt stays: `hf cache prune` finds it. */
void mb_shared_sweep(const char *cache, const char *hash);

#endif
