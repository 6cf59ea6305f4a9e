/* recipes/hub/xet_hash.c - see recipes/hub/xet_inside.h; docs/xet/hashing.md of the hub. */
#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "recipes/hub/blake3.h"
#include "recipes/hub/xet_inside.h"

enum { BRANCHES = 4, LEAST = 2, MOST = 2 * BRANCHES + 1, LINE = 64 + 3 + 20 + 1 };

static const uint8_t chunk_key[MB_XET_HASH] = {
    102, 151, 245, 119, 91,  149, 80, 222, 49,  53,  203, 172, 165, 151, 24,  28,
    157, 228, 33,  16,  155, 235, 43, 88,  180, 208, 176, 75,  147, 173, 242, 41};
static const uint8_t node_key[MB_XET_HASH] = {1,   126, 197, 199, 165, 71,  41,  150, 253, 148, 102,
                                              102, 180, 138, 2,   230, 93,  221, 83,  111, 55,  199,
                                              109, 210, 248, 99,  82,  230, 74,  83,  113, 63};
static const uint8_t range_key[MB_XET_HASH] = {
    127, 24,  87, 214, 206, 86,  237, 102, 18, 127, 249, 19,  231, 165, 195, 243,
    164, 205, 38, 213, 181, 219, 73,  230, 65, 36,  152, 127, 40,  251, 148, 195};

static uint64_t word(const uint8_t hash[MB_XET_HASH], int i)
{
    uint64_t w;

    memcpy(&w, hash + 8 * i, 8);
    return le64toh(w);
}

void mb_xet_hex(const uint8_t hash[MB_XET_HASH], char out[MB_XET_HEX])
{
    snprintf(out, MB_XET_HEX, "%016" PRIx64 "%016" PRIx64 "%016" PRIx64 "%016" PRIx64,
             word(hash, 0), word(hash, 1), word(hash, 2), word(hash, 3));
}

bool mb_xet_unhex(const char *hex, uint8_t hash[MB_XET_HASH])
{
    static const char digits[] = "0123456789abcdef";

    if (strlen(hex) != 2 * MB_XET_HASH || strspn(hex, digits) != 2 * MB_XET_HASH)
        return false;
    for (int i = 0; i < MB_XET_HASH; i++) {
        const int at = i / 8 * 8 + 7 - i % 8;
        hash[at] = (uint8_t)((strchr(digits, hex[2 * i]) - digits) << 4 |
                             (strchr(digits, hex[2 * i + 1]) - digits));
    }
    return true;
}

void mb_xet_hash_chunk(const void *data, size_t n, uint8_t hash[MB_XET_HASH])
{
    mb_blake3(chunk_key, data, n, hash);
}

void mb_xet_hash_range(const uint8_t *hashes, size_t n, uint8_t hash[MB_XET_HASH])
{
    mb_blake3(range_key, hashes, n * MB_XET_HASH, hash);
}

/* How many of the n nodes become one: cuts are where a hash says so, as with chunks. */
static size_t cut(const mb_xet_node *nodes, size_t n)
{
    if (n <= LEAST)
        return n;
    const size_t most = n < MOST ? n : MOST;
    for (size_t i = LEAST; i < most; i++)
        if (word(nodes[i].hash, 3) % BRANCHES == 0)
            return i + 1;
    return most;
}

static mb_xet_node merge(const mb_xet_node *nodes, size_t n)
{
    char text[MOST * LINE + 1], hex[MB_XET_HEX];
    mb_xet_node one = {.bytes = 0};
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        mb_xet_hex(nodes[i].hash, hex);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s : %" PRIu64 "\n", hex,
                               nodes[i].bytes);
        one.bytes += nodes[i].bytes;
    }
    mb_blake3(node_key, text, at, one.hash);
    return one;
}

void mb_xet_hash_tree(mb_xet_node *nodes, size_t n, uint8_t hash[MB_XET_HASH])
{
    while (n > 1) {
        size_t made = 0;
        for (size_t at = 0; at < n;) {
            const size_t take = cut(nodes + at, n - at);
            nodes[made++] = merge(nodes + at, take);
            at += take;
        }
        n = made;
    }
    memset(hash, 0, MB_XET_HASH);
    if (n == 1)
        memcpy(hash, nodes[0].hash, MB_XET_HASH);
}
