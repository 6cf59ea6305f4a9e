/* recipes/bundle/parts.h - an archive as it comes: in parts, from several places, some not there.
 *
 * All parts but the last have one size, so a place in the archive is known as soon as one of those has
 * been seen. Bytes of parts that are gone again may lie in a folder of kept pieces.
 */
#ifndef MB_RECIPES_BUNDLE_PARTS_H
#define MB_RECIPES_BUNDLE_PARTS_H

#include <stdint.h>

#include "core/digest.h"
#include "recipes/bundle/progress.h"

typedef struct mb_part {
    char *name; /* owned */
    char hex[MB_DIGEST_HEX];
    char *path;   /* where it is; owned; NULL: nowhere */
    int fd;       /* -1: not used */
    int64_t size; /* of path */
    bool is_bad;  /* found, but with other bytes */
} mb_part;

/* Bytes of a part in a file of their own. */
typedef struct mb_kept {
    int64_t part, at, n;
    int fd;
} mb_kept;

typedef struct mb_parts {
    const char *sums;       /* borrowed */
    char *name;             /* "NAME"; owned */
    char id[MB_DIGEST_HEX]; /* of NAME.sha256 */
    mb_part *part;
    int64_t n;
    const char **place; /* folders to look in; the array is owned */
    size_t n_places;
    char *home;         /* the folder of NAME.sha256; owned */
    int64_t full, last; /* bytes of every part but the last, and of the last; -1: not known */
    mb_kept *kept;
    size_t n_kept, kept_capacity;
    char *kept_dir; /* owned; NULL: none */
} mb_parts;

/* Reads NAME.sha256; nothing is looked for yet. MB_EDATA: it is not one of a bundle. */
mb_status mb_parts_open(const char *sums, const char *const *place, size_t n_places,
                        mb_parts *p) MB_MUST_USE;
void mb_parts_close(mb_parts *p);

/* Opens part i where it is; with `check` where it has the right sha256. Neither a part that is not
 * there nor a bad one is a failure: part[i].fd is -1 then. MB_EDATA: it has another size than parts
 * have. */
mb_status mb_parts_use(mb_parts *p, int64_t i, bool check, mb_progress *progress) MB_MUST_USE;
/* The part was good when it was looked at before: use it as it is if it is still the same. */
typedef struct mb_part_mark {
    uint64_t device, inode, size, time;
} mb_part_mark;
bool mb_part_mark_of(const char *path, mb_part_mark *mark);
mb_status mb_parts_trust(mb_parts *p, int64_t i, const mb_part_mark *mark) MB_MUST_USE;

/* No part is in use any more. */
void mb_parts_drop(mb_parts *p);

/* Sizes that were seen before. */
mb_status mb_parts_sizes(mb_parts *p, int64_t full, int64_t last) MB_MUST_USE;
/* Bytes of the whole archive; -1: not known. */
int64_t mb_parts_total(const mb_parts *p);
/* The part that has this byte, -1 when that is not known. */
int64_t mb_parts_of(const mb_parts *p, int64_t at);
/* How many bytes from `at` on can be read without a gap, at most n. */
int64_t mb_parts_there(const mb_parts *p, int64_t at, int64_t n);
mb_status mb_parts_read(const mb_parts *p, int64_t at, void *to, size_t n) MB_MUST_USE;

/* The folder of kept pieces, which need not be there; and another piece of a used part into it. */
mb_status mb_parts_kept(mb_parts *p, const char *dir) MB_MUST_USE;
mb_status mb_parts_keep(mb_parts *p, int64_t part, int64_t at, int64_t n) MB_MUST_USE;

#endif
