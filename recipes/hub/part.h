/* recipes/hub/part.h - a file that is not whole yet, kept across processes, kills and power cuts.
 *
 *     MB_TRY(mb_part_open(base, size, digest, url, &p));    base.part and base.json
 *     ... ask for the bytes from mb_part_have(p) on ...
 *     MB_TRY(mb_part_add(p, data, n));
 *     MB_TRY(mb_part_check(p, &right));                     when all are there
 *     MB_TRY(mb_part_publish(p, path));                     under its name, at once
 *
 * base.json says what the file will be and vouches for what is there: the SHA-256 of every range of
 * 8 MiB, and of the bytes after the last one. It is written every two seconds or so, after the bytes
 * are on disk. Opening reads the file once, keeps what the ranges' digests say is right, and leaves
 * the digest of the whole running, so that no byte is read twice. Bytes nobody vouches for are kept if
 * they were written since this machine started (the process was killed, the disk was not), and
 * dropped otherwise (after a power cut they may be anything).
 *
 * One process at a time (recipes/hub/lock.h); one thread per part. A process that was thought dead may
 * wake up and write: base.json says who writes, and where that one may still live the bytes are
 * copied to a file of one's own. The one that woke up finds another file under the name, and saving,
 * restarting and publishing fail with MB_EIO. So nobody but its opener ever writes to a part.
 */
#ifndef MB_RECIPES_HUB_PART_H
#define MB_RECIPES_HUB_PART_H

#include <stdint.h>

#include "core/status.h"

enum { MB_PART_RANGE = 8 << 20 };

typedef struct mb_part mb_part;

/* `digest` as in mb_hub_file. `url` is noted for people. The caller owns *out. */
mb_status mb_part_open(const char *base, int64_t size, const char *digest, const char *url,
                       mb_part **out) MB_MUST_USE;
/* Bytes that opening would keep at most, without reading them; for plans. */
int64_t mb_part_kept(const char *base, int64_t size);
int64_t mb_part_have(const mb_part *p);
/* Appends; no more than `size` in all. */
mb_status mb_part_add(mb_part *p, const void *data, size_t n) MB_MUST_USE;
/* Writes the state of now. */
mb_status mb_part_save(mb_part *p) MB_MUST_USE;
/* Forgets all bytes. */
mb_status mb_part_restart(mb_part *p) MB_MUST_USE;
/* Of a whole file: is its digest the announced one? found[65] gets it. */
mb_status mb_part_check(mb_part *p, bool *right, char *found) MB_MUST_USE;
/* To disk, renamed to `path`, the state removed; nothing is left to do but close. */
mb_status mb_part_publish(mb_part *p, const char *path) MB_MUST_USE;
/* Removes what is left of a part whose file is there. */
void mb_part_forget(const char *base);
/* Saves (as well as it can) what is not published. NULL is allowed. */
void mb_part_close(mb_part *p);

#endif
