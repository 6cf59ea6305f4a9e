/* recipes/hub/xet_bare.c - xorbs whose chunks all lie in objects, so that their bytes are kept once.
 * They become so by one shard, whose files hold all chunks: what earlier shards had is not noted.
 *
 * Such a xorb is a file:
 *     n x {hash 32, bytes u32, object u32, at u64}    a chunk is `bytes` of that object, from `at` on
 *     m x {sha256, 64 hex digits}                     the objects
 *     m u32, 4 unused, "mbuyuxet", version u32 (2), n u32
 * all little-endian. It takes the place of the xorb that came, by rename, once the objects are on disk:
 * whoever kills the hub leaves the one or the other.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/xet_inside.h"

enum { ENTRY = MB_XET_HASH + 16, NAME = 64, COUNT = 8 };

static void put64(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, 8);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return le64toh(v);
}

/* ---- reading ------------------------------------------------------------------------------ */

static mb_status chunks_read(mb_xet_xorb *b, const uint8_t *raw, const char *path)
{
    for (uint32_t i = 0; i < b->n; i++) {
        const uint8_t *entry = raw + (size_t)i * ENTRY;
        const uint32_t bytes = mb_xet_get32(entry + MB_XET_HASH);
        const mb_xet_spot s = {get64(entry + MB_XET_HASH + 8),
                               mb_xet_get32(entry + MB_XET_HASH + 4)};

        MB_REQUIRE(bytes > 0 && bytes <= MB_XET_CHUNK_MAX && s.object < b->n_objects &&
                       s.at <= INT64_MAX - MB_XET_CHUNK_MAX,
                   MB_EIO, "%s: damaged at chunk %u", path, i);
        memcpy(b->hashes + (size_t)i * MB_XET_HASH, entry, MB_XET_HASH);
        b->place[i].bytes = bytes;
        b->spot[i] = s;
        if (b->reach[s.object] < (int64_t)s.at + bytes)
            b->reach[s.object] = (int64_t)s.at + bytes;
    }
    return MB_OK;
}

static mb_status names_read(mb_xet_xorb *b, const uint8_t *raw, const char *path)
{
    uint8_t hash[MB_XET_HASH];

    for (uint32_t i = 0; i < b->n_objects; i++) {
        memcpy(b->object[i], raw + (size_t)i * NAME, NAME);
        b->object[i][NAME] = '\0';
        MB_REQUIRE(mb_xet_unhex(b->object[i], hash), MB_EIO, "%s: object %u has no name", path, i);
    }
    return MB_OK;
}

mb_status mb_xet_bare_read(mb_xet_xorb *b, int64_t size, const char *path)
{
    const int64_t chunks = (int64_t)b->n * ENTRY;
    uint8_t count[4], *raw = NULL;
    mb_status st;

    MB_REQUIRE(size >= chunks + COUNT + MB_XET_TAIL, MB_EIO, "%s: is cut short", path);
    MB_TRY(mb_pread_all(b->fd, count, 4, size - MB_XET_TAIL - COUNT, path));
    b->n_objects = mb_xet_get32(count);
    MB_REQUIRE(size == chunks + (int64_t)b->n_objects * NAME + COUNT + MB_XET_TAIL, MB_EIO,
               "%s: %lld bytes are not a xorb of %u chunks in %u objects", path, (long long)size,
               b->n, b->n_objects);
    MB_TRY(mb_alloc((size_t)size, "a xorb's index", (void **)&raw));
    MB_TRY_GOTO(mb_pread_all(b->fd, raw, (size_t)size, 0, path), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->place, b->n), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->hashes, b->n * MB_XET_HASH), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->spot, b->n), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->object, b->n_objects), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->reach, b->n_objects), st, done);
    MB_TRY_GOTO(names_read(b, raw + chunks, path), st, done);
    st = chunks_read(b, raw, path);
done:
    mb_free(raw);
    return st;
}

bool mb_xet_bare_is_whole(const mb_xet *x, const mb_xet_xorb *b)
{
    int64_t size;

    for (uint32_t i = 0; i < b->n_objects; i++)
        if (x->o.object == NULL || !x->o.have(x->o.arg, b->object[i], &size) || size < b->reach[i])
            return false;
    return true;
}

mb_status mb_xet_object_open(mb_xet *x, mb_xet_object *o, const char *sha256)
{
    char path[MB_PATH_MAX];
    int64_t size;

    if (o->fd >= 0 && strcmp(o->sha256, sha256) == 0)
        return MB_OK;
    mb_xet_object_close(o);
    MB_TRY(x->o.object(x->o.arg, sha256, path, sizeof path));
    MB_TRY(mb_file_open(path, MB_EIO, &o->fd, &size));
    snprintf(o->sha256, sizeof o->sha256, "%s", sha256);
    return MB_OK;
}

void mb_xet_object_close(mb_xet_object *o)
{
    if (o->fd >= 0)
        close(o->fd);
    o->fd = -1;
}

mb_status mb_xet_object_chunk(mb_xet_object *o, int64_t at, uint32_t bytes,
                              const uint8_t hash[MB_XET_HASH], uint8_t *out)
{
    uint8_t found[MB_XET_HASH];

    MB_TRY(mb_pread_all(o->fd, out, bytes, at, o->sha256));
    mb_xet_hash_chunk(out, bytes, found);
    MB_REQUIRE(memcmp(found, hash, MB_XET_HASH) == 0, MB_EIO,
               "the object %s has not the chunk at byte %lld that it had", o->sha256,
               (long long)at);
    return MB_OK;
}

/* ---- making ------------------------------------------------------------------------------- */

mb_status mb_xet_covers_add(mb_xet_covers *c, const mb_xet_term *t, const char *sha256, int64_t at)
{
    if (c->n_objects == 0 || strcmp(c->object[c->n_objects - 1], sha256) != 0) {
        MB_TRY(mb_grow((void **)&c->object, &c->object_capacity, c->n_objects + 1,
                       sizeof *c->object, "names of objects"));
        snprintf(c->object[c->n_objects++], MB_DIGEST_HEX, "%s", sha256);
    }
    MB_TRY(
        mb_grow((void **)&c->cover, &c->capacity, c->n + 1, sizeof *c->cover, "places of chunks"));
    mb_xet_cover *one = &c->cover[c->n++];
    *one = (mb_xet_cover){
        .first = t->first, .end = t->end, .object = (uint32_t)c->n_objects - 1, .at = at};
    memcpy(one->xorb, t->xorb, MB_XET_HASH);
    return MB_OK;
}

void mb_xet_covers_release(mb_xet_covers *c)
{
    mb_free(c->cover);
    mb_free(c->object);
    *c = (mb_xet_covers){0};
}

static int by_xorb(const void *a, const void *b)
{
    return memcmp(((const mb_xet_cover *)a)->xorb, ((const mb_xet_cover *)b)->xorb, MB_XET_HASH);
}

/* Where each chunk lies, by some of the covers; *all: none is without a place. */
static void find_spots(const mb_xet_xorb *b, const mb_xet_cover *c, size_t n, mb_xet_spot *spot,
                       bool *all)
{
    for (uint32_t i = 0; i < b->n; i++)
        spot[i].object = UINT32_MAX;
    for (size_t k = 0; k < n; k++) {
        int64_t at = c[k].at;

        for (uint32_t i = c[k].first; i < c[k].end && i < b->n; i++) {
            spot[i] = (mb_xet_spot){(uint64_t)at, c[k].object};
            at += b->place[i].bytes;
        }
    }
    *all = true;
    for (uint32_t i = 0; i < b->n; i++)
        *all = *all && spot[i].object != UINT32_MAX;
}

/* The objects in use, from 0 on in the order of chunks, into `used`; spots are numbered by it. */
static uint32_t number_objects(mb_xet_spot *spot, uint32_t n, uint32_t *used)
{
    uint32_t many = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = many;

        while (k > 0 && used[k - 1] != spot[i].object)
            k--;
        if (k == 0)
            used[k = many++] = spot[i].object;
        else
            k--;
        spot[i].object = k;
    }
    return many;
}

static mb_status publish(mb_xet *x, const uint8_t hash[MB_XET_HASH], const uint8_t *raw, size_t n)
{
    char scratch[MB_PATH_MAX], hex[MB_XET_HEX];
    mb_status st;
    int fd;

    mb_xet_hex(hash, hex);
    MB_TRY(mb_xet_scratch(x, scratch, sizeof scratch, &fd));
    st = mb_pwrite_all(fd, raw, n, 0, scratch);
    if (st == MB_OK)
        st = mb_xet_xorb_publish(x, hex, fd, scratch);
    close(fd);
    if (scratch[0] != '\0')
        unlink(scratch);
    return st;
}

static mb_status write_bare(mb_xet *x, const mb_xet_covers *c, const mb_xet_xorb *b,
                            mb_xet_spot *spot, uint32_t *used)
{
    const uint32_t m = number_objects(spot, b->n, used);
    const size_t n = (size_t)b->n * ENTRY + (size_t)m * NAME + COUNT + MB_XET_TAIL;
    uint8_t *raw = NULL, *p;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&raw, n));
    p = raw;
    for (uint32_t i = 0; i < b->n; i++, p += ENTRY) {
        memcpy(p, b->hashes + (size_t)i * MB_XET_HASH, MB_XET_HASH);
        mb_xet_put32(p + MB_XET_HASH, b->place[i].bytes);
        mb_xet_put32(p + MB_XET_HASH + 4, spot[i].object);
        put64(p + MB_XET_HASH + 8, spot[i].at);
    }
    for (uint32_t i = 0; i < m; i++, p += NAME)
        memcpy(p, c->object[used[i]], NAME);
    mb_xet_put32(p, m);
    mb_xet_put_tail(p + COUNT, MB_XET_BARE, b->n);
    st = publish(x, b->hash, raw, n);
    mb_free(raw);
    return st;
}

/* Of a xorb all of whose chunks the covers hold. One of which they hold only some stays as it is. */
static mb_status make_bare(mb_xet *x, const mb_xet_covers *c, const mb_xet_cover *of, size_t n)
{
    mb_xet_spot *spot = NULL;
    uint32_t *used = NULL;
    mb_xet_xorb b;
    bool all = false;
    mb_status st;

    MB_TRY(mb_xet_xorb_open(x, of->xorb, &b));
    if (b.spot != NULL) {
        mb_xet_xorb_close(&b);
        return MB_OK;
    }
    MB_TRY_GOTO(MB_NEW_ARRAY(&spot, b.n), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&used, b.n), st, done);
    find_spots(&b, of, n, spot, &all);
    if (all)
        st = write_bare(x, c, &b, spot, used);
done:
    mb_xet_xorb_close(&b);
    mb_free(spot);
    mb_free(used);
    return st;
}

void mb_xet_covers_apply(mb_xet *x, mb_xet_covers *c)
{
    if (c->n > 1)
        qsort(c->cover, c->n, sizeof *c->cover, by_xorb);
    for (size_t i = 0, k; i < c->n; i = k) {
        for (k = i + 1; k < c->n && by_xorb(&c->cover[i], &c->cover[k]) == 0; k++)
            ;
        if (make_bare(x, c, &c->cover[i], k - i) != MB_OK) { /* it stays as it came */
            mb_log_warn("xet: %s", mb_status_sentence());
            mb_status_clear();
        }
    }
}
