/* recipes/train/tfevents.h - the bytes of a TensorBoard event file.
 *
 * A file is a sequence of TFRecords (all integers little-endian):
 *
 *     u64 n, u32 masked_crc(those 8 bytes), n bytes, u32 masked_crc(those n bytes)
 *     masked_crc(x) = rotate_right(crc32c(x), 15) + 0xa282ead8
 *
 * and the bytes of each record are one Event in protobuf's wire format: key = number << 3 | type
 * (0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes).
 *
 *     Event   { 1 double wall_time, 2 int64 step, 3 string file_version, 5 Summary, 7 SessionLog }
 *     Summary { 1 repeated Value { 1 string tag, 2 float simple_value } }
 *     SessionLog { 1 enum status (1 = START) }
 *
 * A SessionLog START at step s tells readers to forget what earlier files hold from s on: so a
 * resumed run replaces the steps it repeats.
 */
#ifndef MB_RECIPES_TRAIN_TFEVENTS_H
#define MB_RECIPES_TRAIN_TFEVENTS_H

#include <stdint.h>

#include "core/status.h"

/* Bytes that grow; zero-initialised to begin with, freed with mb_free(data). */
typedef struct mb_bytes {
    uint8_t *data;
    size_t n, capacity;
} mb_bytes;

/* CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected): of "123456789" it is 0xe3069283. */
uint32_t mb_crc32c(const void *data, size_t n);

/* Each appends one whole record. */
mb_status mb_tfevents_version(mb_bytes *out, double wall_time) MB_MUST_USE;
mb_status mb_tfevents_start(mb_bytes *out, double wall_time, int64_t step) MB_MUST_USE;
/* n scalars of one step; tags are UTF-8. */
mb_status mb_tfevents_scalars(mb_bytes *out, double wall_time, int64_t step, int n,
                              const char *const *tags, const double *values) MB_MUST_USE;

#endif
