/* recipes/bundle/bag.h - what is in a bundle: the files of a BagIt 1.0 bag (RFC 8493), in the order
 * of the archive, and where each lies in it.
 *
 * The tag files come first (bagit.txt, bag-info.txt, manifest-sha256.txt, payload-sizes.txt,
 * tagmanifest-sha256.txt), then the payload, sorted by the bytes of its paths. payload-sizes.txt has
 * a line "BYTES  PATH" for each line of the manifest: with it the first frames say everything about
 * the archive, and where each frame of it begins in the tar. The order is the format:
 *
 *     file      head (recipes/bundle/tar.h), content, zeros up to 512
 *     frames    each file begins one; a frame has MB_BAG_FRAME bytes, a file's last one the rest
 *     the end   a frame of MB_TAR_END zero bytes
 */
#ifndef MB_RECIPES_BUNDLE_BAG_H
#define MB_RECIPES_BUNDLE_BAG_H

#include <stdint.h>

#include "core/digest.h"
#include "recipes/bundle/tar.h"
#include "recipes/config/text.h"

enum {
    MB_BAG_FRAME = 8 << 20, /* bytes of tar in a frame, at most */
    MB_BAG_TAGS = 5,
    MB_BAG_MOST_FILES = 1 << 22,
    MB_BAG_MOST_FRAMES = 1 << 24,
    MB_BAG_MOST_TAG_BYTES = 1 << 28, /* of one tag file */
    MB_BAG_DEEPEST = 32              /* names in a path */
};

typedef struct mb_bag_file {
    char *path;   /* in the bag: "data/models/org/name/config.json"; owned */
    char *source; /* the file it is read from; NULL: `text`; owned */
    char *text;   /* what it holds when that was made here; owned */
    int64_t size;
    uint8_t digest[MB_DIGEST_BYTES];
    bool program;
    int64_t at;     /* of its head in the tar */
    int64_t frame;  /* number of its first frame */
    int64_t head_n; /* bytes of its head */
    int64_t frames; /* it has */
} mb_bag_file;

typedef struct mb_bag {
    mb_bag_file *file; /* tags, then the payload */
    size_t n, capacity;
    int64_t tar_bytes, frames; /* with the end's */
    int64_t payload_bytes;
} mb_bag;

/* Where a frame lies. `file` is NULL for the end's. */
typedef struct mb_bag_span {
    mb_bag_file *file;
    int64_t at; /* within the file's head, content and zeros */
    size_t n;
} mb_bag_span;

void mb_bag_release(mb_bag *b);

/* ---- making one: add files, sort, fill in digests, seal */

/* *out is borrowed until the next addition. MB_EARG: a path that no bag may have. */
mb_status mb_bag_add(mb_bag *b, const char *path, mb_bag_file **out) MB_MUST_USE;
/* By path. MB_EARG: two files of one path, or a file where others need a folder. */
mb_status mb_bag_sort(mb_bag *b) MB_MUST_USE;
/* Makes the tag files from sizes and digests, and lays out the archive. bag-info.txt gets `version`,
 * that of the program which makes it, and `info`: lines "Name: value\n". */
mb_status mb_bag_seal(mb_bag *b, const char *version, const char *info) MB_MUST_USE;

/* ---- reading one */

/* Names, in order, of the tag files. */
extern const char *const mb_bag_tag[MB_BAG_TAGS];
/* From the texts of the tag files (of n bytes each): paths, sizes, digests, places. MB_EDATA: wrong
 * in any way; nothing has been believed before it was checked. `name` is for messages. */
mb_status mb_bag_parse(const char *name, char *const text[MB_BAG_TAGS], const size_t n[MB_BAG_TAGS],
                       mb_bag *b) MB_MUST_USE;
mb_bag_span mb_bag_frame(const mb_bag *b, int64_t frame);

/* Why a bag may not have this path; NULL: it may. */
const char *mb_bag_path_fault(const char *path);

#endif
