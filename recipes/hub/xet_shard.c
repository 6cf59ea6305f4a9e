/* recipes/hub/xet_shard.c - see recipes/hub/xet_inside.h; docs/xet/shard.md of the hub.
 *
 * A header of 48 bytes, then of each file: {hash 32, flags u32, n u32, 8 unused}, n terms {xorb 32,
 * flags u32, bytes u32, first u32, end u32}, n proofs {hash 32, 16 unused}, {sha256 32, 16 unused};
 * 32 bytes FF and 16 of 00 end the files. What follows, about xorbs, we know from the xorbs.
 */
#include <string.h>

#include "recipes/hub/xet_inside.h"

enum { RECORD = 48, VERSION = 2 };
#define WITH_PROOFS 0x80000000u
#define WITH_SHA256 0x40000000u

static const uint8_t tag[32] = {'H', 'F', 'R', 'e', 'p', 'o', 'M', 'e', 't', 'a', 'D',
                                'a', 't', 'a', 0,   85,  105, 103, 69,  106, 123, 129,
                                87,  131, 165, 189, 217, 92,  205, 209, 74,  169};

static mb_status header(const uint8_t *shard, size_t n)
{
    MB_REQUIRE(n >= RECORD && memcmp(shard, tag, sizeof tag) == 0, MB_EARG,
               "these %zu bytes do not begin as a shard does", n);
    MB_REQUIRE(mb_xet_get32(shard + 32) == VERSION && mb_xet_get32(shard + 36) == 0, MB_EARG,
               "a shard of version %u, expected %d", mb_xet_get32(shard + 32), VERSION);
    return MB_OK;
}

static bool is_end(const uint8_t *record)
{
    for (int i = 0; i < MB_XET_HASH; i++)
        if (record[i] != 0xff)
            return false;
    return true;
}

mb_xet_term mb_xet_file_term(const mb_xet_file *f, uint32_t i)
{
    const uint8_t *p = f->entries + (size_t)i * RECORD;
    mb_xet_term t = {
        .bytes = mb_xet_get32(p + 36), .first = mb_xet_get32(p + 40), .end = mb_xet_get32(p + 44)};

    memcpy(t.xorb, p, MB_XET_HASH);
    memcpy(t.proof, f->proofs + (size_t)i * RECORD, MB_XET_HASH);
    return t;
}

static mb_status terms_check(mb_xet_file *f)
{
    for (uint32_t i = 0; i < f->n; i++) {
        const mb_xet_term t = mb_xet_file_term(f, i);
        MB_REQUIRE(t.first < t.end && t.end <= MB_XET_CHUNKS_MAX, MB_EARG,
                   "file %.12s: chunks %u to %u of a xorb", f->sha256, t.first, t.end);
        f->bytes += t.bytes;
    }
    return MB_OK;
}

mb_status mb_xet_shard_next(const uint8_t *shard, size_t n, size_t *at, mb_xet_file *out,
                            bool *more)
{
    if (*at == 0) {
        MB_TRY(header(shard, n));
        *at = RECORD;
    }
    MB_REQUIRE(n - *at >= RECORD, MB_EARG, "a shard of %zu bytes ends before its files do", n);

    const uint8_t *head = shard + *at;
    *more = !is_end(head);
    if (!*more)
        return MB_OK;

    const uint32_t flags = mb_xet_get32(head + 32);
    mb_xet_file f = {.n = mb_xet_get32(head + 36)};
    const size_t left = (n - *at) / RECORD - 1;
    MB_REQUIRE((flags & (WITH_PROOFS | WITH_SHA256)) == (WITH_PROOFS | WITH_SHA256), MB_EARG,
               "a file in a shard without its verification or sha256 (flags %08x)", flags);
    MB_REQUIRE(left >= 1 && f.n <= (left - 1) / 2, MB_EARG,
               "a file of %u parts in a shard of %zu bytes", f.n, n);
    f.entries = head + RECORD;
    f.proofs = f.entries + (size_t)f.n * RECORD;
    mb_xet_hex(f.proofs + (size_t)f.n * RECORD, f.sha256);
    MB_TRY(terms_check(&f));
    *at += (2 + 2 * (size_t)f.n) * RECORD;
    *out = f;
    return MB_OK;
}
