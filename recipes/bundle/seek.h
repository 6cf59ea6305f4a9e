/* recipes/bundle/seek.h - the seek table of zstd's seekable format, version 0.1: in a frame at the
 * end, which decompressors skip, the packed and unpacked bytes of every frame before it and the
 * checksum of what is in it.
 */
#ifndef MB_RECIPES_BUNDLE_SEEK_H
#define MB_RECIPES_BUNDLE_SEEK_H

#include <stdint.h>

#include "core/status.h"

enum { MB_SEEK_HEAD = 8, MB_SEEK_ENTRY = 12, MB_SEEK_FOOT = 9 };

typedef struct mb_seek_frame {
    int64_t at; /* in the archive */
    uint32_t packed, content, checksum;
} mb_seek_frame;

/* Bytes of the table of n frames. */
int64_t mb_seek_bytes(int64_t n);
/* The table; `out` has mb_seek_bytes(n). */
void mb_seek_write(const mb_seek_frame *frame, int64_t n, void *out);
/* How many frames the last bytes of an archive say; -1: they are none of a seek table with
 * checksums. */
int64_t mb_seek_count(const void *foot);
/* Fills frame[0..n) with their places. MB_EDATA: damaged, or the frames do not end where the table
 * begins, at byte `end`. */
mb_status mb_seek_read(const void *table, int64_t n, int64_t end, mb_seek_frame *frame) MB_MUST_USE;

#endif
