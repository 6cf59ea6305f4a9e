/* recipes/hub/xet_inside.h - the parts of uploads by Xet: hashes, chunks, xorbs, shards, files.
 *
 * The formats are those of the hub's documentation (docs/xet). Failures whose cause is what a client
 * sent are MB_EARG, which the server answers with 400; the disk's are MB_EIO.
 */
#ifndef MB_RECIPES_HUB_XET_INSIDE_H
#define MB_RECIPES_HUB_XET_INSIDE_H

#include <endian.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "recipes/hub/xet.h"

enum {
    MB_XET_HASH = 32,
    MB_XET_HEX = 65,               /* with the final zero */
    MB_XET_HEADER = 8,             /* of a chunk */
    MB_XET_CHUNK_MAX = 128 << 10,  /* bytes of a chunk, unpacked */
    MB_XET_PACKED_MAX = 132 << 10, /* as sent: a chunk that does not get smaller goes plain */
    MB_XET_CHUNKS_MAX = 8 << 10,   /* of a xorb */
    /* bytes of a xorb as sent: 64 MiB of chunks that do not get smaller, and their headers */
    MB_XET_XORB_MAX = (64 << 20) + MB_XET_HEADER * MB_XET_CHUNKS_MAX,
    MB_XET_FOOTER_MAX = 1 << 20, /* bytes that older clients send after the chunks */
    MB_XET_SHARD_MAX = 64 << 20,
};

/* Little-endian numbers of all these formats. */
static inline void mb_xet_put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, 4);
}

static inline uint32_t mb_xet_get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return le32toh(v);
}

/* --- xet_hash.c: hashes, and as text: four little-endian numbers of 64 bits. */
typedef struct mb_xet_node {
    uint8_t hash[MB_XET_HASH];
    uint64_t bytes;
} mb_xet_node;

void mb_xet_hex(const uint8_t hash[MB_XET_HASH], char out[MB_XET_HEX]);
/* False unless `hex` is 64 lower-case digits. */
bool mb_xet_unhex(const char *hex, uint8_t hash[MB_XET_HASH]);
void mb_xet_hash_chunk(const void *data, size_t n, uint8_t hash[MB_XET_HASH]);
/* Of the chunks of a xorb; overwrites nodes. All zeros for n = 0. */
void mb_xet_hash_tree(mb_xet_node *nodes, size_t n, uint8_t hash[MB_XET_HASH]);
/* Of n chunk hashes one after the other: what a shard proves to know them with. */
void mb_xet_hash_range(const uint8_t *hashes, size_t n, uint8_t hash[MB_XET_HASH]);

/* --- xet_chunk.c: a chunk as it is sent. */
typedef struct mb_xet_unpacker mb_xet_unpacker; /* one thread at a time */

typedef struct mb_xet_header {
    uint32_t packed, bytes;
    uint8_t kind;
} mb_xet_header;

mb_status mb_xet_unpacker_new(mb_xet_unpacker **out) MB_MUST_USE;
void mb_xet_unpacker_free(mb_xet_unpacker *u); /* NULL is allowed */
/* Checks version, kind and lengths. */
mb_status mb_xet_header_read(const uint8_t raw[MB_XET_HEADER], mb_xet_header *out) MB_MUST_USE;
/* h->packed bytes become h->bytes at out. */
mb_status mb_xet_unpack(mb_xet_unpacker *u, const mb_xet_header *h, const uint8_t *packed,
                        uint8_t *out) MB_MUST_USE;

/* --- xet_xorb.c: coming in, and read again. */
typedef struct mb_xet_coming mb_xet_coming;

/* `hex` is the name it has to have. */
mb_status mb_xet_coming_new(mb_xet *x, const char *hex, mb_xet_coming **out) MB_MUST_USE;
mb_status mb_xet_coming_add(mb_xet_coming *c, const void *data, size_t n) MB_MUST_USE;
/* Checks the name, publishes. *inserted: it was not there yet. */
mb_status mb_xet_coming_end(mb_xet_coming *c, bool *inserted) MB_MUST_USE;
void mb_xet_coming_free(mb_xet_coming *c); /* NULL is allowed */

typedef struct mb_xet_place {
    uint32_t end;   /* where the chunk ends in the file; it begins where the one before ends */
    uint32_t bytes; /* unpacked */
} mb_xet_place;

/* Of a chunk that lies in an object. */
typedef struct mb_xet_spot {
    uint64_t at;
    uint32_t object; /* its number */
} mb_xet_spot;

typedef struct mb_xet_xorb {
    uint8_t hash[MB_XET_HASH];
    int fd;
    uint32_t n;
    mb_xet_place *place; /* [n] */
    uint8_t *hashes;     /* [n][32] */
    mb_xet_spot *spot;   /* [n] of a bare one, whose places have no end; else NULL */
    char (*object)[MB_DIGEST_HEX];
    int64_t *reach; /* [n_objects]: where the last chunk in it ends */
    uint32_t n_objects;
    uint64_t used; /* for the one who keeps a few of them open */
} mb_xet_xorb;

/* MB_EARG: there is none of this name, or a bare one of which an object is gone or cut short. */
mb_status mb_xet_xorb_open(mb_xet *x, const uint8_t hash[MB_XET_HASH],
                           mb_xet_xorb *out) MB_MUST_USE;
void mb_xet_xorb_close(mb_xet_xorb *b);
bool mb_xet_xorb_is_whole(mb_xet *x, const uint8_t hash[MB_XET_HASH]);
/* Removes one of which a chunk was found damaged, so that it is taken when it is sent again; logs the
 * error that found it. */
void mb_xet_xorb_forget(mb_xet *x, const mb_xet_xorb *b);

/* --- xet_shard.c: of which chunks files are made. */
typedef struct mb_xet_term {
    uint8_t xorb[MB_XET_HASH], proof[MB_XET_HASH];
    uint32_t bytes, first, end; /* chunks [first, end) */
} mb_xet_term;

typedef struct mb_xet_file {
    char sha256[MB_DIGEST_HEX];
    uint32_t n;
    int64_t bytes;                   /* of all terms */
    const uint8_t *entries, *proofs; /* [n] of 48 bytes each, in the shard */
} mb_xet_file;

/* Steps from file to file: *at is 0 at first. *more is false after the last. */
mb_status mb_xet_shard_next(const uint8_t *shard, size_t n, size_t *at, mb_xet_file *out,
                            bool *more) MB_MUST_USE;
mb_xet_term mb_xet_file_term(const mb_xet_file *f, uint32_t i);

/* --- xet_bare.c: xorbs whose chunks lie in objects. */

/* Of a xorb whose file is open and has b->n chunks; mb_xet_xorb_open does. */
mb_status mb_xet_bare_read(mb_xet_xorb *b, int64_t size, const char *path) MB_MUST_USE;
/* All objects are there and reach as far as the chunks; what is in them is seen when it is read. */
bool mb_xet_bare_is_whole(const mb_xet *x, const mb_xet_xorb *b);

/* An object that is read, one at a time. */
typedef struct mb_xet_object {
    int fd; /* -1: none */
    char sha256[MB_DIGEST_HEX];
} mb_xet_object;

mb_status mb_xet_object_open(mb_xet *x, mb_xet_object *o, const char *sha256) MB_MUST_USE;
void mb_xet_object_close(mb_xet_object *o);
/* MB_EIO: there is another chunk. */
mb_status mb_xet_object_chunk(mb_xet_object *o, int64_t at, uint32_t bytes,
                              const uint8_t hash[MB_XET_HASH], uint8_t *out) MB_MUST_USE;

/* Terms that are known to lie in objects, from `at` on. */
typedef struct mb_xet_cover {
    uint8_t xorb[MB_XET_HASH];
    uint32_t first, end, object;
    int64_t at;
} mb_xet_cover;

typedef struct mb_xet_covers {
    mb_xet_cover *cover;
    char (*object)[MB_DIGEST_HEX];
    size_t n, n_objects, capacity, object_capacity;
} mb_xet_covers;

mb_status mb_xet_covers_add(mb_xet_covers *c, const mb_xet_term *t, const char *sha256,
                            int64_t at) MB_MUST_USE;
/* Xorbs that they cover whole become bare. One with which that fails stays, with a warning. */
void mb_xet_covers_apply(mb_xet *x, mb_xet_covers *c);
void mb_xet_covers_release(mb_xet_covers *c);

/* --- xet_files.c: all files of a shard, put together, checked and handed over. */
mb_status mb_xet_files(mb_xet *x, const uint8_t *shard, size_t n) MB_MUST_USE;

/* --- xet.c: the folder. */
struct mb_xet {
    char *dir;
    char id[33];
    uint8_t key[MB_XET_HASH];
    mb_xet_options o;
    atomic_ullong names; /* of temporary files */
    /* xet_routes.c: shards that wait for the one thread that puts files together */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t worker;
    bool started, stopping;
    struct mb_xet_job *first, **last;
    int waiting;
};

/* A new file in DIR/tmp; its path goes to `path`. */
mb_status mb_xet_scratch(mb_xet *x, char *path, size_t size, int *fd) MB_MUST_USE;
/* DIR/xorbs/ab/ab...; with make, the folder it is in is there. */
mb_status mb_xet_xorb_path(mb_xet *x, const char *hex, bool make, char *out,
                           size_t size) MB_MUST_USE;
/* The last bytes of a xorb's file: "mbuyuxet", version u32, number of chunks u32. */
enum { MB_XET_TAIL = 16, MB_XET_WHOLE = 1, MB_XET_BARE = 2 };
void mb_xet_put_tail(uint8_t tail[MB_XET_TAIL], uint32_t version, uint32_t n);
/* A file in DIR/tmp that is all there, open as fd, becomes the xorb's: on disk before it gets its name.
 * scratch is "" once it has. */
mb_status mb_xet_xorb_publish(mb_xet *x, const char *hex, int fd, char *scratch) MB_MUST_USE;
/* A token, good until `until` (seconds since 1970); is this one of ours, and good now? */
enum { MB_XET_TOKEN = 96 };
void mb_xet_token_make(const mb_xet *x, int64_t until, char out[MB_XET_TOKEN]);
bool mb_xet_token_good(const mb_xet *x, const char *token, int64_t now);

mb_status mb_xet_worker_start(mb_xet *x) MB_MUST_USE;

#endif
