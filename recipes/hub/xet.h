/* recipes/hub/xet.h - uploads by Xet: what huggingface_hub's clients push large files with.
 *
 * A client cuts a file into chunks, sends those that this store has not seen before in "xorbs" and
 * then a "shard" that says of which chunks each file is made. The store keeps xorbs, puts the files
 * together again, checks each against the sha256 the shard names and hands it over: the commit that
 * follows names that sha256, as with LFS.
 *
 *     struct mb_hub { mb_xet *xet; ... };            // first member: see mb_xet_routes
 *     MB_TRY(mb_xet_open(&(mb_xet_options){.dir = "hub/xet", .file = put, .arg = shelf}, &hub->xet));
 *     ... mb_xet_routes in the table given to mb_http_start, with .arg = hub ...
 *     ... GET /api/models/{org}/{name}/xet-write-token/{rev}, once the right to write is checked:
 *     return mb_xet_token(hub->xet, q);
 *     ...
 *     mb_xet_stop(hub->xet);
 *     mb_http_stop(server);
 *     mb_xet_free(hub->xet);
 *
 * What is stored outlives the process: a client remembers which chunks an address has and afterwards
 * only refers to them. The address therefore holds an id made with the folder. A folder that is
 * removed costs nothing but a second upload: the next one has another id, and clients start afresh.
 *
 *     DIR/id                 32 hex digits            DIR/key       what tokens are signed with, 0600
 *     DIR/xorbs/ab/ab...     a xorb as it came, then the hash and place of each of its chunks; or, once
 *                            the files of one shard hold all of them, only where they lie in objects
 *                            (options.object)
 *     DIR/tmp                uploads in progress; emptied by mb_xet_open
 *
 * Nothing is believed: chunks are hashed as they come and a xorb is kept under the name that its
 * chunks give; a shard may only name chunks that are here, and must know their hashes (the
 * verification entries); lengths are checked before anything is allocated; a file that would not fit
 * on the disk is refused before it is written.
 */
#ifndef MB_RECIPES_HUB_XET_H
#define MB_RECIPES_HUB_XET_H

#include "core/digest.h"
#include "recipes/serve/http.h"

typedef struct mb_xet mb_xet;

typedef struct mb_xet_options {
    const char *dir; /* made when missing; on the file system of the object store */
    /* Files an object: `path` (inside dir) holds `size` bytes whose digest is sha256, flushed to
     * disk; it is to be renamed to where it belongs (what is left at `path` is removed). Called by
     * one thread of the store's own, one file at a time. */
    mb_status (*file)(void *arg, const char *path, const char sha256[MB_DIGEST_HEX], int64_t size);
    /* Is this object there, and with how many bytes? A file that is there whole is not put together
     * again. NULL: no. */
    bool (*have)(void *arg, const char sha256[MB_DIGEST_HEX], int64_t *size);
    /* Where an object lies that was filed. Then bytes are kept once: xorbs give way to an index of where
     * their chunks lie in objects. Any thread; needs `have`. NULL: xorbs are kept. */
    mb_status (*object)(void *arg, const char sha256[MB_DIGEST_HEX], char *path, size_t size);
    void *arg;
    int token_seconds; /* how long a token is good; 0: 3600 */
} mb_xet_options;

/* MB_EIO: a folder that cannot be made or read; what belongs to another format. */
mb_status mb_xet_open(const mb_xet_options *o, mb_xet **out) MB_MUST_USE;
/* Answers no more: shards that wait are given up (their clients send them again). */
void mb_xet_stop(mb_xet *x);
void mb_xet_free(mb_xet *x); /* after mb_http_stop. NULL is allowed */

/* Answers {accessToken, exp, casUrl} and the headers of the same meaning. The caller has checked
 * that whoever asks may write. Any thread. */
mb_status mb_xet_token(mb_xet *x, mb_http_request *q);

/* For the server's table: they come first, their paths begin with /xet/, and they check their own
 * tokens (MB_HTTP_OPEN). The server's `arg` points to a struct whose first member is the mb_xet *;
 * while that is NULL all of them answer 404. */
enum { MB_XET_ROUTES = 4 };
extern const mb_http_route mb_xet_routes[MB_XET_ROUTES];

#endif
