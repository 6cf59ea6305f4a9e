/* recipes/data/unpack.h - bytes of a file as they were before gzip or Zstandard packed them.
 *
 *     mb_unpack *u;
 *     MB_TRY(mb_unpack_open("rows.jsonl.gz", &u));       // plain files too: they are passed on
 *     MB_TRY(mb_unpack_read(u, buffer, sizeof buffer, &n)); // 0 at the end
 *     mb_unpack_close(u);
 *
 * Streamed: memory does not grow with the file (a Zstandard window may have up to 128 MiB). Several
 * members or frames, one after the other, are one text, as gzip -d and zstd -d have it. What is cut
 * off or damaged is MB_EDATA. RFC 1952, RFC 8878.
 */
#ifndef MB_RECIPES_DATA_UNPACK_H
#define MB_RECIPES_DATA_UNPACK_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mb_unpack mb_unpack;

/* By the name's ending: .gz, .zst, anything else. A regular file; the caller owns *out. */
mb_status mb_unpack_open(const char *path, mb_unpack **out) MB_MUST_USE;
void mb_unpack_close(mb_unpack *u); /* NULL is allowed */
/* At most n bytes; *got is 0 only at the end. */
mb_status mb_unpack_read(mb_unpack *u, char *to, size_t n, size_t *got) MB_MUST_USE;
/* Bytes of a path without .gz or .zst; all of them when it has neither. */
size_t mb_unpack_stem(const char *path);

/* One block whose unpacked size is known, as in column files. `kind`: 'g' gzip or zlib, 'z'
 * Zstandard, 's' snappy. MB_EDATA: damaged, or of another size. */
mb_status mb_unpack_block(char kind, const void *from, size_t n, void *to, size_t n_to) MB_MUST_USE;

#endif
