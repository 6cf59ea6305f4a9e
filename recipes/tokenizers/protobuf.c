/* recipes/tokenizers/protobuf.c - the wire format of protocol buffers, reading only. */
#include "recipes/tokenizers/protobuf.h"

#include <string.h>

bool mb_proto_more(const mb_proto *m)
{
    return m->at < m->end;
}

static mb_status varint(mb_proto *m, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        const uint8_t byte = (uint8_t)*m->at++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return MB_OK;
    }
    return MB_RAISE(MB_EMODEL, "%s: not a protocol buffer: a number does not end", m->where);
}

static mb_status fixed(mb_proto *m, size_t n, uint64_t *out)
{
    MB_REQUIRE((size_t)(m->end - m->at) >= n, MB_EMODEL,
               "%s: the file ends inside a number of %zu bytes", m->where, n);
    *out = 0;
    for (size_t i = 0; i < n; i++)
        *out |= (uint64_t)(uint8_t)m->at[i] << (8 * i);
    m->at += n;
    return MB_OK;
}

mb_status mb_proto_next(mb_proto *m, mb_field *f)
{
    uint64_t key, n;

    *f = (mb_field){0};
    MB_TRY(varint(m, &key));
    f->wire = (int)(key & 7);
    MB_REQUIRE(key >> 3 > 0 && key >> 3 < 1u << 29, MB_EMODEL,
               "%s: not a protocol buffer: a field has the number %llu", m->where,
               (unsigned long long)(key >> 3));
    f->number = (uint32_t)(key >> 3);
    switch (f->wire) {
    case MB_WIRE_VARINT:
        return varint(m, &f->value);
    case MB_WIRE_FIXED64:
        return fixed(m, 8, &f->value);
    case MB_WIRE_FIXED32:
        return fixed(m, 4, &f->value);
    case MB_WIRE_BYTES:
        MB_TRY(varint(m, &n));
        MB_REQUIRE(n <= (size_t)(m->end - m->at), MB_EMODEL,
                   "%s: field %u has %llu bytes, but only %zu follow", m->where,
                   (unsigned)f->number, (unsigned long long)n, (size_t)(m->end - m->at));
        f->p = m->at;
        f->n = (size_t)n;
        m->at += n;
        return MB_OK;
    default:
        return MB_RAISE(MB_EMODEL, "%s: not a protocol buffer: field %u has the wire type %d",
                        m->where, (unsigned)f->number, f->wire);
    }
}

float mb_field_float(const mb_field *f)
{
    const uint32_t bits = (uint32_t)f->value;
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}
