/* recipes/bundle/tar.h - the head of a file in a pax tar (POSIX.1-2001), one way for every file.
 *
 * Owner 0, group 0, time 0, a mode by what the file is, and a pax head in front only where ustar has
 * no room: paths of more than 100 bytes or outside ASCII, sizes of 8 GiB and more. So the same path
 * and size give the same bytes everywhere, and a reader can compare a head with the one it expects
 * in place of believing it.
 */
#ifndef MB_RECIPES_BUNDLE_TAR_H
#define MB_RECIPES_BUNDLE_TAR_H

#include <stdint.h>

#include "core/status.h"

enum {
    MB_TAR_BLOCK = 512,
    MB_TAR_MOST_PATH = 1024,
    MB_TAR_MOST_HEAD = 4 * MB_TAR_BLOCK + MB_TAR_MOST_PATH,
    MB_TAR_END = 2 * MB_TAR_BLOCK /* zero bytes after the last file */
};

/* Writes the head (a multiple of MB_TAR_BLOCK) and returns its bytes; with head NULL it only counts.
 * The path has at most MB_TAR_MOST_PATH bytes. */
size_t mb_tar_head(const char *path, int64_t size, bool program, char head[MB_TAR_MOST_HEAD]);
/* Bytes of a file of this size with the zeros after it. */
int64_t mb_tar_padded(int64_t size);
/* The size that a head without pax says; -1 when it says none. */
int64_t mb_tar_size(const char head[MB_TAR_BLOCK]);

#endif
