/* recipes/bundle/extract.h - the frames that are here become files, and files are checked. */
#ifndef MB_RECIPES_BUNDLE_EXTRACT_H
#define MB_RECIPES_BUNDLE_EXTRACT_H

#include "recipes/bundle/archive.h"
#include "recipes/bundle/journal.h"

typedef struct mb_extract {
    mb_archive *archive; /* borrowed, as the next two */
    mb_journal *journal;
    const bool *wanted; /* of each file of the bag */
    bool end;           /* the end's frame is wanted */
    int threads;
    bool *done;    /* of each frame: its content is written */
    int64_t *left; /* of each file: frames that are not done */
    bool *old;     /* of each file: some of its frames are of an earlier process */
} mb_extract;

/* Allocates, and takes what the journal has. */
mb_status mb_extract_open(mb_extract *x) MB_MUST_USE;
void mb_extract_close(mb_extract *x);

/* Content that is still to be written. */
int64_t mb_extract_bytes(const mb_extract *x);
/* Writes everything that is here; when nothing is left, *is_last, every file has been read again and
 * has the right sha256. MB_EDATA: a frame or a file is not what the tag files say. */
mb_status mb_extract_run(mb_extract *x, bool *is_last) MB_MUST_USE;

#endif
