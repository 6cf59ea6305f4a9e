/* recipes/data/parquet_values.h - private to parquet.c: how the values and levels of a page are encoded.
 *
 * The newer encodings are turned into what PLAIN has, so that values are taken from a page in one way:
 *
 *     DELTA_BINARY_PACKED        integers: blocks of differences, packed into as many bits as they need
 *     DELTA_LENGTH_BYTE_ARRAY    texts: their lengths so, then all their bytes
 *     DELTA_BYTE_ARRAY           texts: how much each has of the one before, then the rest so
 *     BYTE_STREAM_SPLIT          numbers: all first bytes, all second bytes ...
 *
 * Source: Encodings.md of the Parquet format's specification. Counts, widths and lengths are compared
 * with the bytes that are there before memory is taken for them.
 */
#ifndef MB_RECIPES_DATA_PARQUET_VALUES_H
#define MB_RECIPES_DATA_PARQUET_VALUES_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

enum mb_parquet_type { BOOLEAN, INT32, INT64, INT96, FLOAT, DOUBLE, BYTE_ARRAY, FIXED };

enum { MB_PARQUET_MOST_PAGE = 1 << 30 }; /* bytes, unpacked */

/* Bytes that are read one after the other; bad: they ended too early. */
struct thrift {
    const uint8_t *at, *end;
    bool bad;
};

uint64_t mb_parquet_varint(struct thrift *t);
int64_t mb_parquet_zigzag(struct thrift *t);

/* n integers of `width` bits in the RLE and bit-packed hybrid, into to8 or to32; false: they cannot be
 * read. */
bool mb_parquet_hybrid(const uint8_t *from, size_t bytes, int width, int64_t n, uint8_t *to8,
                       uint32_t *to32);

/* "DELTA_BYTE_ARRAY"; of what does not exist "something unknown". */
const char *mb_parquet_encoding(int64_t encoding);

/* Values as PLAIN has them. All zero is empty; freed with mb_free(p). */
struct mb_parquet_plain {
    uint8_t *p;
    size_t n, capacity;
};

/* Replaces *out by the n values of type (length: bytes of FIXED) that are encoded in `bytes` bytes.
 * MB_EDATA, without a place, for an encoding that the type does not have, and for bytes that make no
 * sense. */
mb_status mb_parquet_values(int64_t encoding, int type, int length, int64_t n, const uint8_t *from,
                            size_t bytes, struct mb_parquet_plain *out) MB_MUST_USE;

#endif
