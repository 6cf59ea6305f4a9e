/* recipes/bundle/unbundle_inside.h - an unbundle at work, for unbundle*.c alone. */
#ifndef MB_RECIPES_BUNDLE_UNBUNDLE_INSIDE_H
#define MB_RECIPES_BUNDLE_UNBUNDLE_INSIDE_H

#include "recipes/bundle/bundle.h"
#include "recipes/bundle/extract.h"

struct mb_unbundling {
    const mb_unbundle_options *o;
    char to[MB_PATH_MAX];
    mb_parts parts;
    mb_archive archive;
    mb_journal journal;
    mb_extract extract;
    bool *wanted;    /* of each file */
    bool all;        /* are wanted */
    bool has_doubts; /* parts are in use whose sha256 was not looked at just now */
    bool is_waiting; /* for parts */
};

/* What the journal says of parts; `careful`: but not that any is good. */
mb_status mb_unbundling_recall(struct mb_unbundling *w, bool careful) MB_MUST_USE;
/* Uses the parts that are good (with `check`), or those that are there: then `has_doubts`. */
mb_status mb_unbundling_use(struct mb_unbundling *w, bool check) MB_MUST_USE;
/* Names every part that is needed and not here. MB_OK: none is. */
mb_status mb_unbundling_missing(struct mb_unbundling *w) MB_MUST_USE;
/* Keeps what is in parts that may be gone the next time, and cannot be used yet. */
mb_status mb_unbundling_keep(struct mb_unbundling *w) MB_MUST_USE;

#endif
