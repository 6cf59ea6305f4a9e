/* recipes/train/tfevents.c - encoding for recipes/train/tfevents.h. */
#include "recipes/train/tfevents.h"

#include <string.h>

#include "core/alloc.h"

uint32_t mb_crc32c(const void *data, size_t n)
{
    /* crc of each half byte: 64 bytes of table, and a log needs no more speed */
    static const uint32_t nibble[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
                                        0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    const uint8_t *p = data;
    uint32_t crc = 0xffffffffu;

    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return ~crc;
}

static uint32_t masked(const void *data, size_t n)
{
    const uint32_t crc = mb_crc32c(data, n);

    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static mb_status put(mb_bytes *b, const void *data, size_t n)
{
    MB_TRY(mb_grow((void **)&b->data, &b->capacity, b->n + n, 1, "event bytes"));
    if (n > 0)
        memcpy(b->data + b->n, data, n);
    b->n += n;
    return MB_OK;
}

static mb_status put_little(mb_bytes *b, uint64_t v, size_t bytes)
{
    uint8_t raw[8];

    for (size_t i = 0; i < bytes; i++)
        raw[i] = (uint8_t)(v >> (8 * i));
    return put(b, raw, bytes);
}

static mb_status put_varint(mb_bytes *b, uint64_t v)
{
    uint8_t raw[10];
    size_t n = 0;

    for (; v > 127; v >>= 7)
        raw[n++] = (uint8_t)(v | 128);
    raw[n++] = (uint8_t)v;
    return put(b, raw, n);
}

enum wire { VARINT = 0, EIGHT = 1, BYTES = 2, FOUR = 5 };

static mb_status put_key(mb_bytes *b, unsigned number, enum wire type)
{
    return put_varint(b, (uint64_t)number << 3 | (uint64_t)type);
}

static mb_status put_block(mb_bytes *b, unsigned number, const void *data, size_t n)
{
    MB_TRY(put_key(b, number, BYTES));
    MB_TRY(put_varint(b, n));
    return put(b, data, n);
}

/* wall_time and, unless it is 0, the step: protobuf leaves out what equals its default. */
static mb_status put_head(mb_bytes *b, double wall_time, int64_t step)
{
    uint64_t bits;

    memcpy(&bits, &wall_time, sizeof bits);
    MB_TRY(put_key(b, 1, EIGHT));
    MB_TRY(put_little(b, bits, 8));
    if (step == 0)
        return MB_OK;
    MB_TRY(put_key(b, 2, VARINT));
    return put_varint(b, (uint64_t)step);
}

static mb_status put_value(mb_bytes *b, const char *tag, double value)
{
    const float single = (float)value;
    uint32_t bits;

    memcpy(&bits, &single, sizeof bits);
    MB_TRY(put_block(b, 1, tag, strlen(tag)));
    MB_TRY(put_key(b, 2, FOUR));
    return put_little(b, bits, 4);
}

static mb_status put_record(mb_bytes *out, const mb_bytes *event)
{
    const size_t at = out->n;

    MB_TRY(put_little(out, event->n, 8));
    MB_TRY(put_little(out, masked(out->data + at, 8), 4));
    MB_TRY(put(out, event->data, event->n));
    return put_little(out, masked(event->data, event->n), 4);
}

/* An event with one length-delimited field; payload is freed. */
static mb_status finish(mb_bytes *out, double wall_time, int64_t step, unsigned number,
                        mb_bytes *payload)
{
    mb_bytes event = {0};
    mb_status st;

    MB_TRY_GOTO(put_head(&event, wall_time, step), st, done);
    MB_TRY_GOTO(put_block(&event, number, payload->data, payload->n), st, done);
    MB_TRY_GOTO(put_record(out, &event), st, done);
done:
    mb_free(event.data);
    mb_free(payload->data);
    return st;
}

mb_status mb_tfevents_version(mb_bytes *out, double wall_time)
{
    static const char version[] = "brain.Event:2";
    mb_bytes payload = {0};
    mb_status st;

    MB_TRY_GOTO(put(&payload, version, sizeof version - 1), st, failed);
    return finish(out, wall_time, 0, 3, &payload);
failed:
    mb_free(payload.data);
    return st;
}

mb_status mb_tfevents_start(mb_bytes *out, double wall_time, int64_t step)
{
    mb_bytes payload = {0};
    mb_status st;

    MB_TRY_GOTO(put_key(&payload, 1, VARINT), st, failed);
    MB_TRY_GOTO(put_varint(&payload, 1), st, failed);
    return finish(out, wall_time, step, 7, &payload);
failed:
    mb_free(payload.data);
    return st;
}

mb_status mb_tfevents_scalars(mb_bytes *out, double wall_time, int64_t step, int n,
                              const char *const *tags, const double *values)
{
    mb_bytes summary = {0}, value = {0};
    mb_status st = MB_OK;

    for (int i = 0; i < n; i++) {
        value.n = 0;
        MB_TRY_GOTO(put_value(&value, tags[i], values[i]), st, failed);
        MB_TRY_GOTO(put_block(&summary, 1, value.data, value.n), st, failed);
    }
    mb_free(value.data);
    return finish(out, wall_time, step, 5, &summary);
failed:
    mb_free(value.data);
    mb_free(summary.data);
    return st;
}
