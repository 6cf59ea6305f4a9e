/* recipes/bundle/out.h - an archive on its way to disk: cut into parts, each with its sha256.
 *
 * A part appears under its name when it is whole, NAME.sha256 when all of them are there. One part
 * alone is NAME.mbuyu.tar.zst, several are NAME.mbuyu.tar.zst.000 and so on.
 */
#ifndef MB_RECIPES_BUNDLE_OUT_H
#define MB_RECIPES_BUNDLE_OUT_H

#include "core/digest.h"
#include "core/path.h"
#include "recipes/config/text.h"

typedef struct mb_bundle_out {
    char stem[MB_PATH_MAX]; /* DIR/NAME.mbuyu.tar.zst */
    int64_t split, bytes;   /* of a part, at most; of all so far */
    int64_t in_part;
    int digits, parts; /* of a part's number; begun */
    mb_newfile file;
    mb_digest *digest;
    mb_text sums; /* lines of NAME.sha256 */
    bool is_open, is_done;
} mb_bundle_out;

/* Makes the folder and removes parts that have no NAME.sha256. `most`: bytes there will be at most,
 * for the width of numbers. MB_EARG: NAME.sha256 is there, or NAME is no file name. */
mb_status mb_bundle_out_open(mb_bundle_out *o, const char *dir, const char *name, int64_t split,
                             int64_t most) MB_MUST_USE;
mb_status mb_bundle_out_write(mb_bundle_out *o, const void *data, size_t n) MB_MUST_USE;
/* The last part and NAME.sha256. */
mb_status mb_bundle_out_finish(mb_bundle_out *o) MB_MUST_USE;
/* Releases; what was not finished is removed. */
void mb_bundle_out_close(mb_bundle_out *o);

#endif
