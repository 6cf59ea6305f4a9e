/* recipes/bundle/archive.h - the frames of an archive, as far as its parts are here.
 *
 * Where frames lie is in the seek table, when the last part is here; else each is found after the one
 * before it. What is in them is in the tag files, which come first.
 */
#ifndef MB_RECIPES_BUNDLE_ARCHIVE_H
#define MB_RECIPES_BUNDLE_ARCHIVE_H

#include "recipes/bundle/bag.h"
#include "recipes/bundle/parts.h"
#include "recipes/bundle/seek.h"

typedef struct mb_archive {
    mb_parts *parts; /* borrowed */
    mb_bag bag;      /* n == 0: not read yet */
    mb_seek_frame *frame;
    size_t n, capacity; /* frames whose place is known; all, with the table */
    bool has_table;
    char *buffer; /* for a packed frame */
} mb_archive;

mb_status mb_archive_open(mb_parts *parts, mb_archive *a) MB_MUST_USE;
void mb_archive_close(mb_archive *a);

/* Reads the table if it is here, and the tag files: afterwards bag.n > 0, unless the parts they are in
 * are not here. MB_EDATA: what is here is not the beginning of a bundle, or not laid out like one. */
mb_status mb_archive_read_tags(mb_archive *a) MB_MUST_USE;
/* Notes the place of a frame that was read earlier; frames in order. */
mb_status mb_archive_note(mb_archive *a, int64_t frame, int64_t at, int64_t packed) MB_MUST_USE;
/* The place of a frame, when it and all its bytes are here. MB_EDATA: there is no frame there. */
mb_status mb_archive_find(mb_archive *a, int64_t frame, mb_seek_frame *out, bool *here) MB_MUST_USE;
/* The first bytes of each file are the head it must have? MB_EDATA: not. Only of frames that are
 * here, and of files with frames left to write. */
mb_status mb_archive_check_heads(mb_archive *a, const int64_t *left) MB_MUST_USE;

#endif
