/* recipes/hub/shelf_objects.h - contents by their SHA-256, each a file that is whole or not there.
 *
 *     MB_TRY(mb_incoming_new(objects, size, &in));
 *     MB_TRY_GOTO(mb_incoming_add(in, data, n), st, done);           as it comes
 *     MB_TRY_GOTO(mb_incoming_end(in, sha256, &n), st, done);        compared, flushed, renamed
 * done:
 *     mb_incoming_free(in);                                          removes what was not ended
 *
 * What was not ended leaves a file in objects' "incoming", removed when the store is next opened
 * and it is a day old. Parts of a large upload stay there under the name of what they belong to, so
 * that they survive a restart. Thread-safe: several may receive the same content at once.
 */
#ifndef MB_RECIPES_HUB_SHELF_OBJECTS_H
#define MB_RECIPES_HUB_SHELF_OBJECTS_H

#include <stdint.h>

#include "core/digest.h"

typedef struct mb_objects mb_objects;
typedef struct mb_incoming mb_incoming;

/* `dir`/objects and `dir`/incoming are made where they are missing. */
mb_status mb_objects_open(const char *dir, mb_objects **out) MB_MUST_USE;
void mb_objects_close(mb_objects *o); /* NULL is allowed */

bool mb_objects_has(const mb_objects *o, const char *sha256, int64_t *size);
/* The path where it is or would be. */
mb_status mb_objects_path(const mb_objects *o, const char *sha256, char *out,
                          size_t size) MB_MUST_USE;

/* Takes a complete file, of that digest and size and flushed to disk, by renaming it. */
mb_status mb_objects_take(mb_objects *o, const char *path, const char *sha256,
                          int64_t size) MB_MUST_USE;

/* At most `limit` bytes will be accepted (MB_EDATA). */
mb_status mb_incoming_new(mb_objects *o, int64_t limit, mb_incoming **out) MB_MUST_USE;
mb_status mb_incoming_add(mb_incoming *in, const void *data, size_t n) MB_MUST_USE;
/* Publishes. `wanted` (or NULL) must be its digest, else MB_EDATA and nothing is kept. */
mb_status mb_incoming_end(mb_incoming *in, const char *wanted, char sha256[MB_DIGEST_HEX],
                          int64_t *size) MB_MUST_USE;
void mb_incoming_free(mb_incoming *in); /* NULL is allowed */

/* The n-th part (from 1) of an object to come: published as that part, of exactly `size` bytes. Its
 * digest is its name to the client. */
mb_status mb_incoming_end_part(mb_incoming *in, const char *of, int part, int64_t size,
                               char sha256[MB_DIGEST_HEX]) MB_MUST_USE;
/* Makes the object of `parts` parts and removes them. MB_EDATA: one is missing, or the digest or size
 * is another. */
mb_status mb_objects_join(mb_objects *o, const char *sha256, int64_t size, int parts) MB_MUST_USE;

#endif
