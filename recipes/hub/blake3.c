/* recipes/hub/blake3.c - see recipes/hub/blake3.h. */
#include "recipes/hub/blake3.h"

#include <endian.h>
#include <string.h>

enum { BLOCK = 64, CHUNK = 1024, WORDS = 8 };
enum { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8, KEYED = 16 };

static const uint32_t iv[WORDS] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* Which word of the message goes where, round after round. */
static const uint8_t schedule[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
    {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
    {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

static inline uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

#define G(a, b, c, d, x, y)           \
    do {                              \
        v[a] += v[b] + (x);           \
        v[d] = rotr(v[d] ^ v[a], 16); \
        v[c] += v[d];                 \
        v[b] = rotr(v[b] ^ v[c], 12); \
        v[a] += v[b] + (y);           \
        v[d] = rotr(v[d] ^ v[a], 8);  \
        v[c] += v[d];                 \
        v[b] = rotr(v[b] ^ v[c], 7);  \
    } while (0)

/* The first half of the compression function's output, into cv. */
static void compress(uint32_t cv[WORDS], const uint8_t block[BLOCK], uint32_t length,
                     uint64_t counter, uint32_t flags)
{
    uint32_t m[16], v[16];

    memcpy(m, block, BLOCK);
    for (int i = 0; i < 16; i++)
        m[i] = le32toh(m[i]);
    memcpy(v, cv, 32);
    memcpy(v + 8, iv, 16);
    v[12] = (uint32_t)counter;
    v[13] = (uint32_t)(counter >> 32);
    v[14] = length;
    v[15] = flags;
    for (int r = 0; r < 7; r++) {
        const uint8_t *s = schedule[r];
        G(0, 4, 8, 12, m[s[0]], m[s[1]]);
        G(1, 5, 9, 13, m[s[2]], m[s[3]]);
        G(2, 6, 10, 14, m[s[4]], m[s[5]]);
        G(3, 7, 11, 15, m[s[6]], m[s[7]]);
        G(0, 5, 10, 15, m[s[8]], m[s[9]]);
        G(1, 6, 11, 12, m[s[10]], m[s[11]]);
        G(2, 7, 8, 13, m[s[12]], m[s[13]]);
        G(3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < WORDS; i++)
        cv[i] = v[i] ^ v[i + 8];
}

/* A leaf: at most CHUNK bytes, block after block. */
static void chunk(const uint32_t key[WORDS], const uint8_t *data, size_t n, uint64_t counter,
                  uint32_t flags, uint32_t root, uint32_t cv[WORDS])
{
    uint32_t start = CHUNK_START;

    memcpy(cv, key, 32);
    while (n > BLOCK) {
        compress(cv, data, BLOCK, counter, flags | start);
        data += BLOCK;
        n -= BLOCK;
        start = 0;
    }
    uint8_t last[BLOCK] = {0};
    if (n > 0)
        memcpy(last, data, n);
    compress(cv, last, (uint32_t)n, counter, flags | start | CHUNK_END | root);
}

/* A part of the tree: its left side is the largest power of two of chunks that leaves something to
 * the right. Depth: log2(n / CHUNK). */
static void tree(const uint32_t key[WORDS], const uint8_t *data, size_t n, uint64_t counter,
                 uint32_t flags, uint32_t root, uint32_t cv[WORDS])
{
    if (n <= CHUNK) {
        chunk(key, data, n, counter, flags, root, cv);
        return;
    }
    size_t left = CHUNK;
    while (left < n - left)
        left *= 2;

    uint32_t both[2 * WORDS];
    uint8_t block[BLOCK];
    tree(key, data, left, counter, flags, 0, both);
    tree(key, data + left, n - left, counter + left / CHUNK, flags, 0, both + WORDS);
    for (int i = 0; i < 2 * WORDS; i++)
        both[i] = htole32(both[i]);
    memcpy(block, both, BLOCK);
    memcpy(cv, key, 32);
    compress(cv, block, BLOCK, 0, flags | PARENT | root);
}

void mb_blake3(const uint8_t key[MB_BLAKE3_BYTES], const void *data, size_t n,
               uint8_t out[MB_BLAKE3_BYTES])
{
    uint32_t words[WORDS], cv[WORDS];

    memcpy(words, iv, sizeof words);
    if (key != NULL) {
        memcpy(words, key, sizeof words);
        for (int i = 0; i < WORDS; i++)
            words[i] = le32toh(words[i]);
    }
    tree(words, data, n, 0, key != NULL ? KEYED : 0, ROOT, cv);
    for (int i = 0; i < WORDS; i++)
        cv[i] = htole32(cv[i]);
    memcpy(out, cv, MB_BLAKE3_BYTES);
}
