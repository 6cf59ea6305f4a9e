/* recipes/hub/cache_read.h - a repository of the cache, as it lies on the disk. */
#ifndef MB_RECIPES_HUB_CACHE_READ_H
#define MB_RECIPES_HUB_CACHE_READ_H

#include "core/path.h"
#include "recipes/config/hub_path.h"

typedef struct mb_cached_file {
    char *path;    /* in the snapshot; of a blob: its name */
    char blob[72]; /* what it is a name for; "": the file itself is in the snapshot */
    char shared
        [65]; /* of a blob: the contents it shares with other repositories (cache_shared.h); "" */
    bool shared_needed; /* by another than this one */
    int64_t size;
    int snapshot; /* which; -1: a blob */
} mb_cached_file;

typedef struct mb_cached_ref {
    char *name, commit[41];
} mb_cached_ref;

typedef struct mb_cached {
    char folder[MB_PATH_MAX], cache[MB_PATH_MAX]; /* the repository's; the one it is in */
    char **commit;                                /* of snapshots, sorted */
    mb_cached_file *file, *blob;
    mb_cached_ref *ref;
    size_t n_commits, n_files, n_blobs, n_refs;
    size_t file_room, blob_room, ref_room;
    int64_t bytes;   /* of blobs, and of files that are none's name */
    int64_t partial; /* of what is not whole, in them */
} mb_cached;

/* MB_EARG: the cache has nothing of it. mb_cached_release in any case. */
mb_status mb_cached_read(const mb_hub_name *name, mb_cached *out) MB_MUST_USE;
void mb_cached_release(mb_cached *c);
/* The name of a folder in the cache, "models--org--name"; false: it is none. */
bool mb_cached_name(const char *folder, mb_hub_name *out);

#endif
