/* recipes/tokenizers/protobuf.h - the wire format of protocol buffers, reading only.
 *
 * A message is a list of fields, each a number, a wire type and a value; unknown ones are passed
 * over. Everything points into the bytes given; nothing is allocated.
 * Source: protobuf.dev/programming-guides/encoding.
 *
 *     mb_proto m = {p, p + n, where};
 *     mb_field f;
 *     while (mb_proto_more(&m)) {
 *         MB_TRY(mb_proto_next(&m, &f));
 *         if (f.number == 1 && f.wire == MB_WIRE_BYTES)
 *             ...
 *     }
 */
#ifndef MB_RECIPES_TOKENIZERS_PROTOBUF_H
#define MB_RECIPES_TOKENIZERS_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

enum { MB_WIRE_VARINT = 0, MB_WIRE_FIXED64 = 1, MB_WIRE_BYTES = 2, MB_WIRE_FIXED32 = 5 };

typedef struct mb_proto {
    const char *at, *end;
    const char *where; /* begins messages */
} mb_proto;

typedef struct mb_field {
    uint32_t number;
    int wire;
    uint64_t value; /* VARINT, FIXED32, FIXED64 */
    const char *p;  /* BYTES: p[0..n), inside the message */
    size_t n;
} mb_field;

bool mb_proto_more(const mb_proto *m);
/* MB_EMODEL: the bytes end early, or are no protocol buffer. */
mb_status mb_proto_next(mb_proto *m, mb_field *f) MB_MUST_USE;
float mb_field_float(const mb_field *f); /* of a FIXED32 */

#endif
