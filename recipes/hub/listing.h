/* recipes/hub/listing.h - what a repository holds at one commit: names, sizes, digests.
 *
 * Two requests, however many files there are (and one for every further page of a long listing):
 * the revision's commit, then the tree of that commit. Everything is fetched from the commit
 * afterwards, so that a change on the branch in between cannot mix two versions.
 *
 * A listing comes from a network. One name that could leave the folder it is written to, or two that
 * cannot be in one folder, and the whole repository is refused.
 */
#ifndef MB_RECIPES_HUB_LISTING_H
#define MB_RECIPES_HUB_LISTING_H

#include "recipes/hub/hub.h"

typedef struct mb_hub_file {
    char *path;      /* owned; fit for mb_path_join below a folder (mb_hub_file_is) */
    char digest[65]; /* SHA-256 (64 digits) of large files, git's SHA-1 (40) of others */
    int64_t size;
    bool wanted; /* true until mb_hub_listing_choose */
} mb_hub_file;

typedef struct mb_hub_listing {
    char commit[41];
    mb_hub_file *file; /* sorted by path */
    size_t n, capacity;
} mb_hub_listing;

/* Of `name` at its revision, as `endpoint` (the hub's own or a mirror's) has it. MB_EDATA: an answer
 * that is no listing, or a name in it that is refused; otherwise errors of recipes/hub/fetch.h. */
mb_status mb_hub_listing_read(const mb_hub *hub, const char *endpoint, const mb_hub_name *name,
                              mb_hub_listing *out) MB_MUST_USE;
void mb_hub_listing_release(mb_hub_listing *l);

/* Wanted are files that match one of `include` (all when there are none) and none of `exclude`:
 * patterns of a shell where * matches / too, and "folder/" everything in it. */
void mb_hub_listing_choose(mb_hub_listing *l, char *const *include, size_t n_include,
                           char *const *exclude, size_t n_exclude);

#endif
