/* recipes/hub/pull.h - a repository of a hub becomes files here, over a link that may break at any
 * byte.
 *
 *     mb_pull_options o = {.name = name, .jobs = 4};
 *     MB_TRY(mb_pull(hub, &o, stdout));
 *
 * Files go into the Hugging Face cache (recipes/config/hub_path.h), where Python's programs find them
 * too, or below a folder. Each is fetched from the commit that the listing named, from the byte on
 * that is here already (recipes/hub/part.h), checked against the digest of the listing while it is
 * written, and appears under its name when it is whole and right. The cache's name for a branch
 * (refs/main) is written last.
 *
 * Errors: recipes/hub/fetch.h's; MB_EDATA names both digests of a file that came wrong twice.
 */
#ifndef MB_RECIPES_HUB_PULL_H
#define MB_RECIPES_HUB_PULL_H

#include <stdio.h>

#include "recipes/hub/hub.h"
#include "recipes/hub/window.h"

enum { MB_PULL_MAX_MIRRORS = 15, MB_PULL_MAX_PATTERNS = 64, MB_PULL_MAX_JOBS = 64 };

typedef struct mb_pull_options {
    mb_hub_name name;
    char *include[MB_PULL_MAX_PATTERNS], *exclude[MB_PULL_MAX_PATTERNS]; /* borrowed */
    size_t n_include, n_exclude;
    char *mirror[MB_PULL_MAX_MIRRORS]; /* addresses asked when the hub's own fails; borrowed */
    size_t n_mirrors;
    const char *to; /* a folder; NULL: the cache */
    int jobs;       /* files fetched at once */
    mb_window window;
    bool dry_run; /* only print what would be fetched */
    bool check;   /* hash what is here already, and fetch what is wrong again */
} mb_pull_options;

/* Prints the path of what was fetched as one line. */
mb_status mb_pull(const mb_hub *hub, const mb_pull_options *o, FILE *out) MB_MUST_USE;
/* The same without a network: the path of what the cache has of it, or MB_ENET. */
mb_status mb_pull_offline(const mb_pull_options *o, FILE *out) MB_MUST_USE;

#endif
