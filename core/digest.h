/* core/digest.h - SHA-256 (FIPS 180-4) and git's SHA-1 of a file, streamed; the only user of the crypto
 * library's digests.
 *
 *     MB_TRY(mb_digest_new(&d));
 *     MB_TRY_GOTO(mb_digest_add(d, data, n), st, done);
 *     MB_TRY_GOTO(mb_digest_end(d, bytes), st, done);
 *     mb_digest_hex(bytes, hex);
 */
#ifndef MB_CORE_DIGEST_H
#define MB_CORE_DIGEST_H

#include <stdint.h>

#include "core/status.h"

enum {
    MB_DIGEST_BYTES = 32,
    MB_DIGEST_HEX = 65, /* with the final zero */
    MB_DIGEST_SHA1_HEX = 41,
};

typedef struct mb_digest mb_digest;

/* The caller owns *out. */
mb_status mb_digest_new(mb_digest **out) MB_MUST_USE;
/* SHA-1, alone or of what git puts before a file of so many bytes: its name as a blob. SHA-1 names
 * things that others named so; nothing is trusted because of it. */
mb_status mb_digest_new_sha1(mb_digest **out) MB_MUST_USE;
mb_status mb_digest_new_git_blob(int64_t size, mb_digest **out) MB_MUST_USE;
void mb_digest_free(mb_digest *d); /* NULL is allowed */
mb_status mb_digest_add(mb_digest *d, const void *data, size_t n) MB_MUST_USE;
/* As mb_digest_add for `n` bytes of an open file, from byte `at` on; `path` is only for messages. */
mb_status mb_digest_add_file(mb_digest *d, int fd, int64_t at, int64_t n,
                             const char *path) MB_MUST_USE;
/* The digest of everything added; the object then starts afresh (SHA-1 without git's words). The
 * second gives 64 hexadecimal digits, or 40 of a SHA-1. */
mb_status mb_digest_end(mb_digest *d, uint8_t out[MB_DIGEST_BYTES]) MB_MUST_USE;
mb_status mb_digest_end_hex(mb_digest *d, char out[MB_DIGEST_HEX]) MB_MUST_USE;
/* The digest so far; more may be added. */
mb_status mb_digest_now_hex(const mb_digest *d, char out[MB_DIGEST_HEX]) MB_MUST_USE;

void mb_digest_hex(const uint8_t digest[MB_DIGEST_BYTES], char out[MB_DIGEST_HEX]);
/* In one call: of a block of memory, of a regular file (errors are MB_EIO). */
mb_status mb_digest_memory(const void *data, size_t n, uint8_t out[MB_DIGEST_BYTES]) MB_MUST_USE;
mb_status mb_digest_file(const char *path, uint8_t out[MB_DIGEST_BYTES]) MB_MUST_USE;

#endif
