/* recipes/bundle/journal.h - what an unbundle has done so far, in a file that is only added to, so
 * that one killed anywhere goes on where it was.
 *
 *     TO.unbundling/journal    this file: records of 48 bytes, each with a check
 *     TO.unbundling/bag/       files as far as they are; becomes TO
 *     TO.unbundling/kept/      pieces of parts (parts.h)
 *
 * A record is added after what it speaks of was written. It may be on disk before that is when the
 * power fails; hence files are read once more before they are put in their place, and the frames of
 * one that is not right are forgotten.
 */
#ifndef MB_RECIPES_BUNDLE_JOURNAL_H
#define MB_RECIPES_BUNDLE_JOURNAL_H

#include <stdint.h>

#include "core/path.h"

typedef enum mb_record_kind {
    MB_RECORD_SIZES = 1, /* a, b: bytes of a part, of the last; -1: not known */
    MB_RECORD_PART,      /* a: part b..e: its mark; it was good */
    MB_RECORD_FRAME,     /* a: number b: place c: bytes; its content is written */
    MB_RECORD_FORGET,    /* a: index; its frames are not written after all */
} mb_record_kind;

typedef struct mb_record {
    uint32_t kind, check;
    uint64_t a, b, c, d, e;
} mb_record;

typedef struct mb_journal {
    char dir[MB_PATH_MAX], bag[MB_PATH_MAX], kept[MB_PATH_MAX];
    int fd;      /* -1: not open */
    bool is_new; /* nothing was there before */
    mb_record *record;
    size_t n, capacity; /* read when it was opened, and added since */
    size_t written;
} mb_journal;

/* `to` is the folder to become, `id` says of which bundle and wishes. MB_EIO: another process works in
 * it; MB_EARG: it belongs to another bundle. */
mb_status mb_journal_open(const char *to, const char id[65], mb_journal *j) MB_MUST_USE;
/* Takes a note, and puts all notes so far on disk. */
mb_status mb_journal_add(mb_journal *j, const mb_record *r) MB_MUST_USE;
mb_status mb_journal_write(mb_journal *j) MB_MUST_USE;
void mb_journal_close(mb_journal *j);
/* Where `to`.unbundling is, for those who do not open it. */
mb_status mb_journal_dir(const char *to, char *dir, size_t size) MB_MUST_USE;

#endif
