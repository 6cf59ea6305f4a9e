/* recipes/data/parquet.h - rows of a Parquet file, each as the text of a JSON object.
 *
 *     mb_parquet *p;
 *     MB_TRY(mb_parquet_open("train.parquet", &p));
 *     MB_TRY(mb_parquet_next(p, &text, &n, &more));    // borrowed until the next call
 *     mb_parquet_close(p);
 *
 * Read page by page: memory holds one page and one dictionary of each column. Lists and structs of
 * any depth are put together from their levels. Understood are pages of both versions; the
 * encodings PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY, RLE, DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY,
 * DELTA_BYTE_ARRAY and BYTE_STREAM_SPLIT (recipes/data/parquet_values.h); packed with snappy, gzip, Zstandard or
 * not at all; booleans, integers, reals, and texts. Columns of bytes that are no text (pictures) and
 * dates of 96 bits are null. Other encodings and codecs are MB_EDATA by name.
 *
 * Source: the Parquet format's specification (parquet.thrift, Encodings.md) and the Dremel paper
 * (Melnik et al. 2010) for levels.
 */
#ifndef MB_RECIPES_DATA_PARQUET_H
#define MB_RECIPES_DATA_PARQUET_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct mb_parquet mb_parquet;

mb_status mb_parquet_open(const char *path, mb_parquet **out) MB_MUST_USE;
void mb_parquet_close(mb_parquet *p); /* NULL is allowed */
mb_status mb_parquet_next(mb_parquet *p, const char **text, size_t *n, bool *more) MB_MUST_USE;

#endif
