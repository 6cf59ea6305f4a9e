/* recipes/hub/blake3.h - BLAKE3, the digest of Xet's chunks; Debian has no C library of it.
 *
 * Plain C for one block of memory at a time. The paper: O'Connor, Aumasson, Neves, Wilcox-O'Hearn,
 * "BLAKE3: one function, fast everywhere" (2020); the names of steps are its names.
 */
#ifndef MB_RECIPES_HUB_BLAKE3_H
#define MB_RECIPES_HUB_BLAKE3_H

#include <stddef.h>
#include <stdint.h>

enum { MB_BLAKE3_BYTES = 32 };

/* The digest of n bytes, keyed unless key is NULL. Any thread. */
void mb_blake3(const uint8_t key[MB_BLAKE3_BYTES], const void *data, size_t n,
               uint8_t out[MB_BLAKE3_BYTES]);

#endif
