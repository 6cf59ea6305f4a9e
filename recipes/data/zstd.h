/* recipes/data/zstd.h - Zstandard (RFC 8878): the only user of libzstd.
 *
 *     MB_TRY(mb_zstd_new(&z));                              // frames one after the other, streamed
 *     MB_TRY(mb_zstd_read(z, from, n, &used, to, room, &got));
 *     mb_zstd_free(z);
 *
 *     MB_TRY(mb_zstd_pack(data, n, frame, mb_zstd_bound(n), &bytes));   // one frame with a checksum
 *     MB_TRY(mb_zstd_unpack(frame, bytes, data, n));
 *
 * Damaged bytes are MB_EDATA, without a place: callers say which file. Windows of up to 128 MiB are
 * accepted, as the zstd program does. Different objects may be used by different threads.
 */
#ifndef MB_RECIPES_DATA_ZSTD_H
#define MB_RECIPES_DATA_ZSTD_H

#include <stdint.h>

#include "core/status.h"

typedef struct mb_zstd mb_zstd;

mb_status mb_zstd_new(mb_zstd **out) MB_MUST_USE;
void mb_zstd_free(mb_zstd *z); /* NULL is allowed */
/* Takes *used of n bytes and gives *got of at most `room`. */
mb_status mb_zstd_read(mb_zstd *z, const void *from, size_t n, size_t *used, void *to, size_t room,
                       size_t *got) MB_MUST_USE;
/* A frame has begun and not ended. */
bool mb_zstd_is_inside(const mb_zstd *z);

/* Frames whose size is known: exactly n_to bytes, from all of `from`. */
mb_status mb_zstd_unpack(const void *from, size_t n, void *to, size_t n_to) MB_MUST_USE;
/* The first `room` bytes of the frame that `from` begins with, which may be cut off after them. */
mb_status mb_zstd_peek(const void *from, size_t n, void *to, size_t room) MB_MUST_USE;
/* Of the frame that `from` begins with: its own bytes, of n at most, and those it unpacks to, which
 * must be written in its head. */
mb_status mb_zstd_measure(const void *from, size_t n, size_t *packed,
                          uint64_t *content) MB_MUST_USE;

/* One frame at zstd's default level 3, with its content's size in front and a checksum (the low 32
 * bits of XXH64) in its last four bytes. The bytes depend on the data and on libzstd's version
 * alone: neither on threads nor on what was packed before. */
mb_status mb_zstd_pack(const void *from, size_t n, void *to, size_t room,
                       size_t *packed) MB_MUST_USE;
size_t mb_zstd_bound(size_t n); /* room for a frame of n bytes */

const char *mb_zstd_version(void); /* "1.5.4" */

#endif
