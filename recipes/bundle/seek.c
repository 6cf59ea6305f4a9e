/* recipes/bundle/seek.c - see recipes/bundle/seek.h. Numbers are little-endian. */
#include "recipes/bundle/seek.h"

static const uint32_t SKIPPABLE = 0x184D2A5E, SEEKABLE = 0x8F92EAB1;
enum { HAS_CHECKSUMS = 1 << 7 };

static void put(uint8_t *to, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get(const uint8_t *from)
{
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

int64_t mb_seek_bytes(int64_t n)
{
    return MB_SEEK_HEAD + n * MB_SEEK_ENTRY + MB_SEEK_FOOT;
}

void mb_seek_write(const mb_seek_frame *frame, int64_t n, void *out)
{
    uint8_t *p = out;

    put(p, SKIPPABLE);
    put(p + 4, (uint32_t)(mb_seek_bytes(n) - MB_SEEK_HEAD));
    p += MB_SEEK_HEAD;
    for (int64_t i = 0; i < n; i++, p += MB_SEEK_ENTRY) {
        put(p, frame[i].packed);
        put(p + 4, frame[i].content);
        put(p + 8, frame[i].checksum);
    }
    put(p, (uint32_t)n);
    p[4] = HAS_CHECKSUMS;
    put(p + 5, SEEKABLE);
}

int64_t mb_seek_count(const void *foot)
{
    const uint8_t *p = foot;

    return get(p + 5) == SEEKABLE && p[4] == HAS_CHECKSUMS ? (int64_t)get(p) : -1;
}

mb_status mb_seek_read(const void *table, int64_t n, int64_t end, mb_seek_frame *frame)
{
    const uint8_t *p = table;
    int64_t at = 0;

    MB_REQUIRE(get(p) == SKIPPABLE && get(p + 4) == (uint64_t)mb_seek_bytes(n) - MB_SEEK_HEAD,
               MB_EDATA, "the seek table's head is damaged");
    p += MB_SEEK_HEAD;
    for (int64_t i = 0; i < n; i++, p += MB_SEEK_ENTRY) {
        frame[i] = (mb_seek_frame){at, get(p), get(p + 4), get(p + 8)};
        at += frame[i].packed;
    }
    MB_REQUIRE(at == end, MB_EDATA,
               "the seek table speaks of %lld bytes of frames, and there are %lld", (long long)at,
               (long long)end);
    return MB_OK;
}
