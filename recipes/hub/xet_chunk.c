/* recipes/hub/xet_chunk.c - see recipes/hub/xet_inside.h. The only user of LZ4 frames.
 *
 * A chunk: version 0, packed length (24 bits), kind, length (24 bits), all little-endian, then the
 * packed bytes. Floats pack better when all their first bytes come first, then all second ones.
 */
#include <lz4frame.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/hub/xet_inside.h"

enum { PLAIN, LZ4, GROUPED, KINDS };

struct mb_xet_unpacker {
    LZ4F_dctx *lz4;
    uint8_t *grouped; /* [MB_XET_CHUNK_MAX] */
};

mb_status mb_xet_unpacker_new(mb_xet_unpacker **out)
{
    mb_xet_unpacker *u;
    mb_status st;

    MB_TRY(MB_NEW(&u));
    MB_TRY_GOTO(mb_alloc(MB_XET_CHUNK_MAX, "a chunk", (void **)&u->grouped), st, failed);
    if (LZ4F_isError(LZ4F_createDecompressionContext(&u->lz4, LZ4F_VERSION))) {
        st = MB_RAISE(MB_ENOMEM, "the LZ4 library cannot begin");
        goto failed;
    }
    *out = u;
    return MB_OK;
failed:
    mb_xet_unpacker_free(u);
    return st;
}

void mb_xet_unpacker_free(mb_xet_unpacker *u)
{
    if (u == NULL)
        return;
    LZ4F_freeDecompressionContext(u->lz4);
    mb_free(u->grouped);
    mb_free(u);
}

static uint32_t u24(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
}

mb_status mb_xet_header_read(const uint8_t raw[MB_XET_HEADER], mb_xet_header *out)
{
    const mb_xet_header h = {.packed = u24(raw + 1), .kind = raw[4], .bytes = u24(raw + 5)};

    MB_REQUIRE(raw[0] == 0, MB_EARG, "a chunk has version %d, expected 0", raw[0]);
    MB_REQUIRE(h.kind < KINDS, MB_EARG, "a chunk is packed in way %d, expected 0 to %d", h.kind,
               KINDS - 1);
    MB_REQUIRE(h.bytes > 0 && h.bytes <= MB_XET_CHUNK_MAX, MB_EARG,
               "a chunk of %u bytes, expected 1 to %d", h.bytes, MB_XET_CHUNK_MAX);
    MB_REQUIRE(h.packed > 0 && h.packed <= MB_XET_PACKED_MAX, MB_EARG,
               "a chunk of %u packed bytes, expected 1 to %d", h.packed, MB_XET_PACKED_MAX);
    MB_REQUIRE(h.kind != PLAIN || h.packed == h.bytes, MB_EARG,
               "a plain chunk of %u bytes says that it has %u", h.packed, h.bytes);
    *out = h;
    return MB_OK;
}

/* One frame, all of it, and nothing after it. */
static mb_status frame(mb_xet_unpacker *u, const mb_xet_header *h, const uint8_t *packed,
                       uint8_t *out)
{
    size_t in = 0, made = 0, hint = 1;

    LZ4F_resetDecompressionContext(u->lz4);
    while (hint != 0) {
        size_t from = h->packed - in, to = h->bytes - made;
        hint = LZ4F_decompress(u->lz4, out + made, &to, packed + in, &from, NULL);
        MB_REQUIRE(!LZ4F_isError(hint), MB_EARG, "a chunk's LZ4 frame is broken: %s",
                   LZ4F_getErrorName(hint));
        in += from;
        made += to;
        MB_REQUIRE(hint == 0 || from > 0 || to > 0, MB_EARG,
                   "a chunk's LZ4 frame does not end within %u bytes, or holds more than %u",
                   h->packed, h->bytes);
    }
    MB_REQUIRE(in == h->packed && made == h->bytes, MB_EARG,
               "a chunk's LZ4 frame takes %zu of %u bytes and holds %zu of %u", in, h->packed, made,
               h->bytes);
    return MB_OK;
}

/* Groups of bytes 0, 1, 2, 3 of each four; the first ones have the rest of n / 4. */
static void ungroup(const uint8_t *from, uint32_t n, uint8_t *to)
{
    for (uint32_t g = 0; g < 4; g++) {
        const uint32_t count = n / 4 + (g < n % 4);
        for (uint32_t i = 0; i < count; i++)
            to[4 * i + g] = from[i];
        from += count;
    }
}

mb_status mb_xet_unpack(mb_xet_unpacker *u, const mb_xet_header *h, const uint8_t *packed,
                        uint8_t *out)
{
    switch (h->kind) {
    case PLAIN:
        memcpy(out, packed, h->bytes);
        return MB_OK;
    case LZ4:
        return frame(u, h, packed, out);
    default:
        MB_TRY(frame(u, h, packed, u->grouped));
        ungroup(u->grouped, h->bytes, out);
        return MB_OK;
    }
}
