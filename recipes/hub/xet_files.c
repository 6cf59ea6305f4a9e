/* recipes/hub/xet_files.c - see recipes/hub/xet_inside.h. Runs in the store's own thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/xet_inside.h"

enum { OPEN_XORBS = 16 };

/* What stays the same from file to file. */
struct work {
    mb_xet *x;
    mb_xet_xorb xorbs[OPEN_XORBS];
    uint64_t clock;
    mb_xet_object object;
    mb_xet_covers covers;
    mb_xet_unpacker *unpacker;
    uint8_t *packed, *bytes;
    mb_digest *digest;
};

static mb_status xorb(struct work *w, const uint8_t hash[MB_XET_HASH], const mb_xet_xorb **out)
{
    mb_xet_xorb *oldest = &w->xorbs[0];

    for (int i = 0; i < OPEN_XORBS; i++) {
        mb_xet_xorb *b = &w->xorbs[i];
        if (b->fd >= 0 && memcmp(b->hash, hash, MB_XET_HASH) == 0) {
            b->used = ++w->clock;
            *out = b;
            return MB_OK;
        }
        if (b->used < oldest->used)
            oldest = b;
    }
    mb_xet_xorb_close(oldest);
    MB_TRY(mb_xet_xorb_open(w->x, hash, oldest));
    oldest->used = ++w->clock;
    *out = oldest;
    return MB_OK;
}

/* A term's chunks are there, as long as it says, and whoever wrote the shard knows their hashes. */
static mb_status term_check(struct work *w, const mb_xet_term *t)
{
    uint8_t proof[MB_XET_HASH];
    char hex[MB_XET_HEX];
    const mb_xet_xorb *b;
    uint64_t bytes = 0;

    MB_TRY(xorb(w, t->xorb, &b));
    mb_xet_hex(t->xorb, hex);
    MB_REQUIRE(t->end <= b->n, MB_EARG, "a shard names chunks %u to %u of xorb %s, which has %u",
               t->first, t->end, hex, b->n);
    for (uint32_t i = t->first; i < t->end; i++)
        bytes += b->place[i].bytes;
    MB_REQUIRE(bytes == t->bytes, MB_EARG,
               "a shard says that chunks %u to %u of xorb %s have %u bytes; they have %llu",
               t->first, t->end, hex, t->bytes, (unsigned long long)bytes);
    mb_xet_hash_range(b->hashes + (size_t)t->first * MB_XET_HASH, t->end - t->first, proof);
    MB_REQUIRE(memcmp(proof, t->proof, MB_XET_HASH) == 0, MB_EARG,
               "a shard's verification of chunks %u to %u of xorb %s is not that of the chunks",
               t->first, t->end, hex);
    return MB_OK;
}

/* A chunk of a xorb as it came, into w->bytes. */
static mb_status packed_chunk(struct work *w, const mb_xet_xorb *b, uint32_t i)
{
    const uint32_t from = i > 0 ? b->place[i - 1].end : 0, n = b->place[i].end - from;
    mb_xet_header h;
    mb_status st;

    MB_TRY(mb_pread_all(b->fd, w->packed, n, from, "a xorb"));
    st = mb_xet_header_read(w->packed, &h);
    if (st == MB_OK && h.packed + MB_XET_HEADER == n && h.bytes == b->place[i].bytes)
        st = mb_xet_unpack(w->unpacker, &h, w->packed + MB_XET_HEADER, w->bytes);
    else
        st = MB_EARG;
    if (st == MB_OK)
        return MB_OK;
    mb_status_clear(); /* it was good when it came */
    return MB_RAISE(MB_EIO, "a stored xorb is damaged at chunk %u", i);
}

/* The same of a bare one. */
static mb_status bare_chunk(struct work *w, const mb_xet_xorb *b, uint32_t i)
{
    const mb_xet_spot *s = &b->spot[i];
    mb_status st;

    MB_TRY(mb_xet_object_open(w->x, &w->object, b->object[s->object]));
    st = mb_xet_object_chunk(&w->object, (int64_t)s->at, b->place[i].bytes,
                             b->hashes + (size_t)i * MB_XET_HASH, w->bytes);
    if (st != MB_OK)
        mb_xet_xorb_forget(w->x, b);
    return st;
}

static mb_status term_write(struct work *w, const mb_xet_term *t, int fd, int64_t *at,
                            const char *path)
{
    const mb_xet_xorb *b;

    MB_TRY(xorb(w, t->xorb, &b));
    for (uint32_t i = t->first; i < t->end; i++) {
        MB_TRY(b->spot != NULL ? bare_chunk(w, b, i) : packed_chunk(w, b, i));
        MB_TRY(mb_digest_add(w->digest, w->bytes, b->place[i].bytes));
        MB_TRY(mb_pwrite_all(fd, w->bytes, b->place[i].bytes, *at, path));
        *at += b->place[i].bytes;
    }
    return MB_OK;
}

static mb_status room(const mb_xet *x, int64_t bytes)
{
    struct statvfs v;

    MB_REQUIRE(statvfs(x->dir, &v) == 0, MB_EIO, "%s: %s", x->dir, strerror(errno));
    const double free_bytes = (double)v.f_bavail * (double)v.f_frsize;
    MB_REQUIRE((double)bytes < free_bytes, MB_EIO,
               "a file of %lld bytes does not fit: the disk of %s has %.0f left", (long long)bytes,
               x->dir, free_bytes);
    return MB_OK;
}

static mb_status assemble(struct work *w, const mb_xet_file *f, int fd, const char *path)
{
    uint8_t digest[MB_DIGEST_BYTES];
    char hex[MB_DIGEST_HEX];
    int64_t at = 0;

    for (uint32_t i = 0; i < f->n; i++) {
        const mb_xet_term t = mb_xet_file_term(f, i);
        MB_TRY(term_write(w, &t, fd, &at, path));
    }
    MB_TRY(mb_digest_end(w->digest, digest));
    mb_digest_hex(digest, hex);
    MB_REQUIRE(strcmp(hex, f->sha256) == 0, MB_EARG,
               "the file that a shard calls %s is %s when put together", f->sha256, hex);
    MB_REQUIRE(fsync(fd) == 0, MB_EIO, "%s: %s", path, strerror(errno));
    return MB_OK;
}

/* The file is an object now: its chunks need not be kept in xorbs. */
static mb_status note_covers(struct work *w, const mb_xet_file *f)
{
    const mb_xet_xorb *b;
    int64_t at = 0;

    if (w->x->o.object == NULL)
        return MB_OK;
    for (uint32_t i = 0; i < f->n; i++) {
        const mb_xet_term t = mb_xet_file_term(f, i);

        MB_TRY(xorb(w, t.xorb, &b));
        if (b->spot == NULL)
            MB_TRY(mb_xet_covers_add(&w->covers, &t, f->sha256, at));
        at += t.bytes;
    }
    return MB_OK;
}

/* An object that was there before: is a term of it what the shard says? */
static mb_status term_compare(struct work *w, const mb_xet_term *t, int64_t at)
{
    const mb_xet_xorb *b;

    MB_TRY(xorb(w, t->xorb, &b));
    if (b->spot != NULL)
        return MB_OK;
    for (uint32_t i = t->first; i < t->end; i++) {
        MB_TRY(mb_xet_object_chunk(&w->object, at, b->place[i].bytes,
                                   b->hashes + (size_t)i * MB_XET_HASH, w->bytes));
        at += b->place[i].bytes;
    }
    return MB_OK;
}

/* A hub that was killed between a file and its xorbs, or one that kept xorbs, has both: a shard that
 * comes again shows which bytes are there twice. One that says wrong things of an object shows none. */
static mb_status known_file(struct work *w, const mb_xet_file *f)
{
    mb_status st;
    int64_t at = 0;

    if (w->x->o.object == NULL)
        return MB_OK;
    st = mb_xet_object_open(w->x, &w->object, f->sha256);
    for (uint32_t i = 0; i < f->n && st == MB_OK; i++) {
        const mb_xet_term t = mb_xet_file_term(f, i);

        st = term_compare(w, &t, at);
        at += t.bytes;
    }
    if (st == MB_OK)
        return note_covers(w, f);
    mb_log_debug("xet: %s", mb_status_sentence());
    mb_status_clear();
    return MB_OK;
}

/* An object of another size is damaged: its file is made again. */
static bool is_known(const mb_xet *x, const mb_xet_file *f)
{
    int64_t size;

    return x->o.have != NULL && x->o.have(x->o.arg, f->sha256, &size) && size == f->bytes;
}

static mb_status file(struct work *w, const mb_xet_file *f)
{
    char path[MB_PATH_MAX];
    mb_status st;
    int fd;

    for (uint32_t i = 0; i < f->n; i++) {
        const mb_xet_term t = mb_xet_file_term(f, i);
        MB_TRY(term_check(w, &t));
    }
    if (is_known(w->x, f))
        return known_file(w, f);
    MB_TRY(room(w->x, f->bytes));
    MB_TRY(mb_xet_scratch(w->x, path, sizeof path, &fd));
    st = assemble(w, f, fd, path);
    close(fd);
    if (st == MB_OK)
        st = w->x->o.file(w->x->o.arg, path, f->sha256, f->bytes);
    unlink(path);
    return st == MB_OK ? note_covers(w, f) : st;
}

static mb_status each(struct work *w, const uint8_t *shard, size_t n)
{
    mb_xet_file f;
    size_t at = 0;
    bool more;

    for (;;) {
        MB_TRY(mb_xet_shard_next(shard, n, &at, &f, &more));
        if (!more)
            return MB_OK;
        MB_TRY(file(w, &f));
    }
}

mb_status mb_xet_files(mb_xet *x, const uint8_t *shard, size_t n)
{
    struct work w = {.x = x, .object.fd = -1};
    mb_status st;

    for (int i = 0; i < OPEN_XORBS; i++)
        w.xorbs[i].fd = -1;
    MB_TRY_GOTO(mb_xet_unpacker_new(&w.unpacker), st, done);
    MB_TRY_GOTO(mb_digest_new(&w.digest), st, done);
    MB_TRY_GOTO(mb_alloc(MB_XET_CHUNK_MAX, "a chunk", (void **)&w.bytes), st, done);
    MB_TRY_GOTO(mb_alloc(MB_XET_HEADER + MB_XET_PACKED_MAX, "a packed chunk", (void **)&w.packed),
                st, done);
    st = each(&w, shard, n);
done:
    for (int i = 0; i < OPEN_XORBS; i++)
        mb_xet_xorb_close(&w.xorbs[i]);
    mb_xet_object_close(&w.object);
    if (st == MB_OK)
        mb_xet_covers_apply(x, &w.covers);
    mb_xet_covers_release(&w.covers);
    mb_xet_unpacker_free(w.unpacker);
    mb_digest_free(w.digest);
    mb_free(w.bytes);
    mb_free(w.packed);
    return st;
}
