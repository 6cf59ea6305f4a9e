/* recipes/hub/push.h - a folder goes to a repository of a hub.
 *
 * What the hub has already is not sent: files are compared by digest, large ones (which the hub tells
 * apart) are asked for by their SHA-256, so a push that was cut is gone on with by running it again.
 * At most 256 files make a commit; a large folder makes several. Files that are in the repository
 * and not in the folder stay.
 *
 * Before anything is sent every file is looked at: one that looks like a key or a token ends the push.
 * Without a README.md a model card is made from what is there: the run's recipe and log, the base.
 *
 * Errors: those of recipes/hub/fetch.h; MB_EDATA: a file that looks like a secret, an answer that
 * makes no sense; MB_EARG: a folder or name that is wrong, a repository that changed meanwhile.
 */
#ifndef MB_RECIPES_HUB_PUSH_H
#define MB_RECIPES_HUB_PUSH_H

#include <stdio.h>

#include "recipes/hub/hub.h"

enum { MB_PUSH_PATTERNS = 64 };

typedef struct mb_push_patterns {
    const char *at[MB_PUSH_PATTERNS]; /* of a shell, for the whole path in the repository */
    int n;
} mb_push_patterns;

typedef enum mb_push_upload {
    MB_PUSH_ANY, /* as the hub likes */
    MB_PUSH_LFS, /* large files in one piece each */
    MB_PUSH_MULTIPART,
} mb_push_upload;

typedef struct mb_push_options {
    const char *dir;
    mb_hub_name to;      /* its revision is a branch, made when it is missing; "": main */
    const char *message; /* NULL: one that says what was done */
    const char *license; /* for the card; NULL: the base's */
    bool is_private;     /* of a repository that is made; one that is there and public is refused */
    bool dry_run;
    mb_push_upload upload;
    mb_push_patterns include, exclude; /* include.n = 0: everything */
    mb_push_patterns allow;            /* what may look like a secret */
} mb_push_options;

/* Says on `out` what was done, or with dry_run would be. */
mb_status mb_push(const mb_hub *hub, const mb_push_options *o, FILE *out) MB_MUST_USE;

#endif
