/* recipes/hub/xet_xorb.c - see recipes/hub/xet_inside.h.
 *
 * A stored xorb is a file:
 *     the chunks as they came, headers and all
 *     n x {hash 32, end u32, bytes u32}    where each chunk ends in the file; what it unpacks to
 *     "mbuyuxet", version u32 (1), n u32
 * all little-endian; what it becomes once its chunks lie in objects is in xet_bare.c. A client
 * remembers for good that a xorb is here, so it is flushed to disk before it gets its name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/xet_inside.h"

enum { ENTRY = MB_XET_HASH + 8, PATH_BYTES = MB_PATH_MAX };

static const char magic[8] = {'m', 'b', 'u', 'y', 'u', 'x', 'e', 't'};
static const char old_footer[7] = {'X', 'E', 'T', 'B', 'L', 'O', 'B'};

struct mb_xet_coming {
    mb_xet *x;
    char hex[MB_XET_HEX];
    char path[PATH_BYTES]; /* in DIR/tmp; "" once published */
    int fd;
    bool known;     /* is here already: what comes is not looked at */
    bool after;     /* behind the chunks, in an older client's footer */
    int64_t footer; /* bytes of it */
    mb_xet_unpacker *unpacker;
    uint8_t *packed, *bytes; /* header and body of the chunk that is coming in; unpacked */
    size_t have, need;
    int64_t written;
    uint8_t *index; /* [capacity][ENTRY] */
    size_t n, capacity;
};

mb_status mb_xet_coming_new(mb_xet *x, const char *hex, mb_xet_coming **out)
{
    uint8_t hash[MB_XET_HASH];
    mb_xet_coming *c;
    mb_status st;

    MB_REQUIRE(mb_xet_unhex(hex, hash), MB_EARG, "'%.80s' is not the name of a xorb", hex);
    MB_TRY(MB_NEW(&c));
    c->x = x;
    c->fd = -1;
    memcpy(c->hex, hex, sizeof c->hex);
    c->known = mb_xet_xorb_is_whole(x, hash);
    if (!c->known) {
        c->need = MB_XET_HEADER;
        MB_TRY_GOTO(mb_xet_unpacker_new(&c->unpacker), st, failed);
        MB_TRY_GOTO(
            mb_alloc(MB_XET_HEADER + MB_XET_PACKED_MAX, "a packed chunk", (void **)&c->packed), st,
            failed);
        MB_TRY_GOTO(mb_alloc(MB_XET_CHUNK_MAX, "a chunk", (void **)&c->bytes), st, failed);
        MB_TRY_GOTO(mb_xet_scratch(x, c->path, sizeof c->path, &c->fd), st, failed);
    }
    *out = c;
    return MB_OK;
failed:
    mb_xet_coming_free(c);
    return st;
}

void mb_xet_coming_free(mb_xet_coming *c)
{
    if (c == NULL)
        return;
    if (c->fd >= 0)
        close(c->fd);
    if (c->path[0] != '\0')
        unlink(c->path);
    mb_xet_unpacker_free(c->unpacker);
    mb_free(c->packed);
    mb_free(c->bytes);
    mb_free(c->index);
    mb_free(c);
}

/* A chunk is there whole: unpacked, hashed, written. */
static mb_status chunk(mb_xet_coming *c, const mb_xet_header *h)
{
    uint8_t *entry;

    MB_REQUIRE(c->n < MB_XET_CHUNKS_MAX, MB_EARG, "xorb %s has more than %d chunks", c->hex,
               MB_XET_CHUNKS_MAX);
    MB_TRY(mb_xet_unpack(c->unpacker, h, c->packed + MB_XET_HEADER, c->bytes));
    MB_TRY(mb_grow((void **)&c->index, &c->capacity, c->n + 1, ENTRY, "a xorb's index"));
    MB_TRY(mb_pwrite_all(c->fd, c->packed, c->need, c->written, c->path));
    c->written += (int64_t)c->need;
    entry = c->index + c->n++ * ENTRY;
    mb_xet_hash_chunk(c->bytes, h->bytes, entry);
    mb_xet_put32(entry + MB_XET_HASH, (uint32_t)c->written);
    mb_xet_put32(entry + MB_XET_HASH + 4, h->bytes);
    return MB_OK;
}

mb_status mb_xet_coming_add(mb_xet_coming *c, const void *data, size_t n)
{
    const uint8_t *p = data;
    mb_xet_header h;

    while (n > 0 && !c->known && !c->after) {
        const size_t take = n < c->need - c->have ? n : c->need - c->have;
        memcpy(c->packed + c->have, p, take);
        c->have += take;
        p += take;
        n -= take;
        if (c->have < c->need)
            return MB_OK;
        if (memcmp(c->packed, old_footer, sizeof old_footer) == 0) {
            c->after = true;
            c->have = 0;
            break;
        }
        MB_TRY(mb_xet_header_read(c->packed, &h));
        if (c->need == MB_XET_HEADER) {
            c->need += h.packed;
            MB_REQUIRE(c->written + (int64_t)c->need <= MB_XET_XORB_MAX, MB_EARG,
                       "xorb %s has more than %d bytes", c->hex, MB_XET_XORB_MAX);
            continue;
        }
        MB_TRY(chunk(c, &h));
        c->have = 0;
        c->need = MB_XET_HEADER;
    }
    c->footer += c->after ? (int64_t)n : 0;
    MB_REQUIRE(c->footer <= MB_XET_FOOTER_MAX, MB_EARG,
               "xorb %s has more than %d bytes behind its chunks", c->hex, MB_XET_FOOTER_MAX);
    return MB_OK;
}

/* Is it what it is called? */
static mb_status named(const mb_xet_coming *c)
{
    uint8_t hash[MB_XET_HASH];
    char hex[MB_XET_HEX];
    mb_xet_node *nodes;

    MB_TRY(MB_NEW_ARRAY(&nodes, c->n));
    for (size_t i = 0; i < c->n; i++) {
        const uint8_t *entry = c->index + i * ENTRY;
        memcpy(nodes[i].hash, entry, MB_XET_HASH);
        nodes[i].bytes = mb_xet_get32(entry + MB_XET_HASH + 4);
    }
    mb_xet_hash_tree(nodes, c->n, hash);
    mb_free(nodes);
    mb_xet_hex(hash, hex);
    MB_REQUIRE(strcmp(hex, c->hex) == 0, MB_EARG, "the xorb sent as %s is %s by its chunks", c->hex,
               hex);
    return MB_OK;
}

void mb_xet_put_tail(uint8_t tail[MB_XET_TAIL], uint32_t version, uint32_t n)
{
    memcpy(tail, magic, sizeof magic);
    mb_xet_put32(tail + 8, version);
    mb_xet_put32(tail + 12, n);
}

mb_status mb_xet_xorb_publish(mb_xet *x, const char *hex, int fd, char *scratch)
{
    char path[PATH_BYTES], dir[PATH_BYTES];

    MB_REQUIRE(fsync(fd) == 0, MB_EIO, "%s: %s", scratch, strerror(errno));
    MB_TRY(mb_xet_xorb_path(x, hex, true, path, sizeof path));
    MB_REQUIRE(rename(scratch, path) == 0, MB_EIO, "%s: %s", path, strerror(errno));
    scratch[0] = '\0';
    MB_TRY(mb_path_dir(dir, sizeof dir, path));
    return mb_path_sync_dir(dir);
}

mb_status mb_xet_coming_end(mb_xet_coming *c, bool *inserted)
{
    uint8_t tail[MB_XET_TAIL];
    mb_status st;

    *inserted = false;
    if (c->known)
        return MB_OK;
    MB_REQUIRE(c->have == 0, MB_EARG, "xorb %s ends within a chunk", c->hex);
    MB_REQUIRE(c->n > 0, MB_EARG, "xorb %s has no chunks", c->hex);
    MB_TRY(named(c));

    mb_xet_put_tail(tail, MB_XET_WHOLE, (uint32_t)c->n);
    MB_TRY(mb_pwrite_all(c->fd, c->index, c->n * ENTRY, c->written, c->path));
    MB_TRY(mb_pwrite_all(c->fd, tail, MB_XET_TAIL, c->written + (int64_t)(c->n * ENTRY), c->path));
    st = mb_xet_xorb_publish(c->x, c->hex, c->fd, c->path);
    *inserted = c->path[0] == '\0';
    return st;
}

/* The index, held against the file's size. */
static mb_status index_read(mb_xet_xorb *b, int64_t size, const char *path)
{
    uint8_t tail[MB_XET_TAIL], *raw = NULL;
    uint32_t before = 0;
    mb_status st;

    MB_REQUIRE(size >= MB_XET_TAIL, MB_EIO, "%s: %lld bytes are not a xorb", path, (long long)size);
    MB_TRY(mb_pread_all(b->fd, tail, MB_XET_TAIL, size - MB_XET_TAIL, path));
    b->n = mb_xet_get32(tail + 12);
    const uint32_t version = mb_xet_get32(tail + 8);
    MB_REQUIRE(memcmp(tail, magic, sizeof magic) == 0 &&
                   (version == MB_XET_WHOLE || version == MB_XET_BARE) && b->n > 0 &&
                   b->n <= MB_XET_CHUNKS_MAX && (int64_t)b->n * ENTRY + MB_XET_TAIL < size,
               MB_EIO, "%s: is not a xorb of this version, or damaged", path);
    if (version == MB_XET_BARE)
        return mb_xet_bare_read(b, size, path);

    const int64_t chunks = size - MB_XET_TAIL - (int64_t)b->n * ENTRY;
    MB_TRY(MB_NEW_ARRAY(&raw, b->n * ENTRY));
    MB_TRY_GOTO(mb_pread_all(b->fd, raw, b->n * ENTRY, chunks, path), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->place, b->n), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->hashes, b->n * MB_XET_HASH), st, done);
    for (uint32_t i = 0; i < b->n; i++) {
        const uint8_t *entry = raw + (size_t)i * ENTRY;
        const mb_xet_place p = {mb_xet_get32(entry + MB_XET_HASH),
                                mb_xet_get32(entry + MB_XET_HASH + 4)};
        const uint32_t most = MB_XET_HEADER + MB_XET_PACKED_MAX;
        if (p.end <= before || p.end - before <= MB_XET_HEADER || p.end - before > most ||
            p.end > chunks || p.bytes == 0 || p.bytes > MB_XET_CHUNK_MAX) {
            st = MB_RAISE(MB_EIO, "%s: damaged at chunk %u", path, i);
            goto done;
        }
        b->place[i] = p;
        memcpy(b->hashes + (size_t)i * MB_XET_HASH, entry, MB_XET_HASH);
        before = p.end;
    }
done:
    mb_free(raw);
    return st;
}

static mb_status none_here(const char *hex)
{
    return MB_RAISE(MB_EARG,
                    "there is no xorb %s here; a client that thinks so has to forget this address: "
                    "remove its cache HF_HOME/xet",
                    hex);
}

mb_status mb_xet_xorb_open(mb_xet *x, const uint8_t hash[MB_XET_HASH], mb_xet_xorb *out)
{
    char hex[MB_XET_HEX], path[PATH_BYTES];
    mb_xet_xorb b = {.fd = -1};
    int64_t size;
    mb_status st;

    mb_xet_hex(hash, hex);
    MB_TRY(mb_xet_xorb_path(x, hex, false, path, sizeof path));
    if (!mb_path_is_file(path))
        return none_here(hex);
    MB_TRY(mb_file_open(path, MB_EIO, &b.fd, &size));
    memcpy(b.hash, hash, MB_XET_HASH);
    st = index_read(&b, size, path);
    if (st == MB_OK && b.spot != NULL && !mb_xet_bare_is_whole(x, &b))
        st = none_here(hex);
    if (st != MB_OK)
        mb_xet_xorb_close(&b);
    else
        *out = b;
    return st;
}

void mb_xet_xorb_close(mb_xet_xorb *b)
{
    if (b->fd >= 0)
        close(b->fd);
    mb_free(b->place);
    mb_free(b->hashes);
    mb_free(b->spot);
    mb_free(b->object);
    mb_free(b->reach);
    *b = (mb_xet_xorb){.fd = -1};
}

/* One that cannot be read is sent again, too. */
bool mb_xet_xorb_is_whole(mb_xet *x, const uint8_t hash[MB_XET_HASH])
{
    mb_xet_xorb b;

    if (mb_xet_xorb_open(x, hash, &b) != MB_OK) {
        mb_status_clear();
        return false;
    }
    mb_xet_xorb_close(&b);
    return true;
}

void mb_xet_xorb_forget(mb_xet *x, const mb_xet_xorb *b)
{
    char hex[MB_XET_HEX], path[PATH_BYTES];

    mb_xet_hex(b->hash, hex);
    mb_log_warn("xet: %s; xorb %s has to be sent again", mb_status_sentence(), hex);
    if (mb_xet_xorb_path(x, hex, false, path, sizeof path) == MB_OK)
        unlink(path);
}
