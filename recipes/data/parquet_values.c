/* recipes/data/parquet_values.c - see recipes/data/parquet_values.h. */
#include "recipes/data/parquet_values.h"

#include <string.h>

#include "core/alloc.h"

enum { DELTA_BINARY_PACKED = 5, DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY, BYTE_STREAM_SPLIT = 9 };

uint64_t mb_parquet_varint(struct thrift *t)
{
    uint64_t v = 0;

    for (int shift = 0; shift < 64; shift += 7) {
        if (t->at >= t->end)
            break;
        const uint8_t b = *t->at++;

        v |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            return v;
    }
    t->bad = true;
    return 0;
}

int64_t mb_parquet_zigzag(struct thrift *t)
{
    const uint64_t v = mb_parquet_varint(t);

    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

bool mb_parquet_hybrid(const uint8_t *from, size_t bytes, int width, int64_t n, uint8_t *to8,
                       uint32_t *to32)
{
    struct thrift t = {from, from + bytes, false};
    int64_t done = 0;

    if (width < 0 || width > 32)
        return false;
    while (done < n) {
        const uint64_t head = width == 0 ? (uint64_t)n << 1 : mb_parquet_varint(&t);
        const int value_bytes = (width + 7) / 8;

        if (t.bad || head >> 1 == 0)
            return false;
        if (head & 1) {
            uint64_t bits = 0;
            int have = 0;

            for (uint64_t k = 0; k < (head >> 1) * 8; k++) {
                while (have < width) {
                    if (t.at >= t.end)
                        return done >= n;
                    bits |= (uint64_t)*t.at++ << have;
                    have += 8;
                }
                const uint32_t v = (uint32_t)(bits & ((UINT64_C(1) << width) - 1));
                bits >>= width;
                have -= width;
                if (done < n && to8 != NULL)
                    to8[done] = (uint8_t)v;
                else if (done < n)
                    to32[done] = v;
                done++;
            }
        } else {
            uint32_t v = 0;

            if (t.end - t.at < value_bytes)
                return false;
            for (int k = 0; k < value_bytes; k++)
                v |= (uint32_t)*t.at++ << (8 * k);
            for (uint64_t k = head >> 1; k > 0 && done < n; k--, done++) {
                if (to8 != NULL)
                    to8[done] = (uint8_t)v;
                else
                    to32[done] = v;
            }
        }
    }
    return true;
}

const char *mb_parquet_encoding(int64_t encoding)
{
    static const char *const names[] = {
        "PLAIN",          "GROUP_VAR_INT",       "PLAIN_DICTIONARY",        "RLE",
        "BIT_PACKED",     "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY",
        "RLE_DICTIONARY", "BYTE_STREAM_SPLIT"};
    const int64_t n = sizeof names / sizeof names[0];

    return encoding >= 0 && encoding < n ? names[encoding] : "something unknown";
}

static mb_status nonsense(const char *what)
{
    return MB_RAISE(MB_EDATA, "a page's values cannot be read: %s", what);
}

/* Room for `more` bytes behind what is there. */
static mb_status room(struct mb_parquet_plain *out, size_t more)
{
    MB_REQUIRE(more <= MB_PARQUET_MOST_PAGE && out->n + more <= MB_PARQUET_MOST_PAGE, MB_EDATA,
               "a page has more than %d MiB of values", MB_PARQUET_MOST_PAGE >> 20);
    return mb_grow((void **)&out->p, &out->capacity, out->n + more + 1, 1, "a page");
}

/* ---- differences ---------------------------------------------------------------------------- */

/* Integers as they are taken from their blocks. */
struct delta {
    struct thrift *in;
    uint64_t per_block, per_mini, value, least;
    const uint8_t *width; /* of the block's miniblocks */
};

/* `width` bits from bit `at` on. */
static uint64_t bits(const uint8_t *p, uint64_t at, int width)
{
    uint64_t v = 0;

    for (int got = 0; got < width;) {
        const int from = (int)(at & 7);
        const int n = 8 - from < width - got ? 8 - from : width - got;

        v |= ((uint64_t)p[at >> 3] >> from & ((1u << n) - 1)) << got;
        got += n;
        at += (uint64_t)n;
    }
    return v;
}

static mb_status begin_delta(struct delta *d, int64_t n)
{
    d->per_block = mb_parquet_varint(d->in);
    const uint64_t minis = mb_parquet_varint(d->in), count = mb_parquet_varint(d->in);

    d->value = (uint64_t)mb_parquet_zigzag(d->in);
    if (d->in->bad)
        return nonsense("they are cut off");
    if (d->per_block == 0 || d->per_block > INT32_MAX || minis == 0 || minis > d->per_block ||
        d->per_block % minis != 0 || d->per_block / minis % 32 != 0)
        return nonsense("their blocks have no sensible size");
    if (count != (uint64_t)n)
        return nonsense("there are not as many as the page says");
    const uint64_t blocks = ((uint64_t)n - 1 + d->per_block - 1) / d->per_block;
    if (blocks > (uint64_t)(d->in->end - d->in->at) / (1 + minis)) /* least, and widths */
        return nonsense("they are cut off");
    d->per_mini = d->per_block / minis;
    return MB_OK;
}

static mb_status begin_block(struct delta *d)
{
    const uint64_t minis = d->per_block / d->per_mini;

    d->least = (uint64_t)mb_parquet_zigzag(d->in);
    if (d->in->bad || minis > (uint64_t)(d->in->end - d->in->at))
        return nonsense("they are cut off");
    d->width = d->in->at;
    d->in->at += minis;
    return MB_OK;
}

static void put_integer(uint8_t *to, int64_t i, size_t size, uint64_t value)
{
    const uint32_t small = (uint32_t)value;

    memcpy(to + (size_t)i * size, size == 4 ? (const void *)&small : &value, size);
}

/* Values [i, i+n) of a miniblock. */
static mb_status miniblock(struct delta *d, int width, int64_t i, uint64_t n, size_t size,
                           uint8_t *to)
{
    const uint64_t left = (uint64_t)(d->in->end - d->in->at);

    if (width > 64)
        return nonsense("a number has more than 64 bits");
    if ((n * (uint64_t)width + 7) / 8 > left)
        return nonsense("they are cut off");
    for (uint64_t k = 0; k < n; k++) {
        d->value += d->least + bits(d->in->at, k * (uint64_t)width, width);
        put_integer(to, i + (int64_t)k, size, d->value);
    }
    const uint64_t all = d->per_mini / 8 * (uint64_t)width;
    d->in->at += all < left ? all : left; /* the last one may end with what is needed */
    return MB_OK;
}

/* n > 0 integers of `size` bytes, 4 or 8, behind what *out has. */
static mb_status integers(struct thrift *in, int64_t n, size_t size, struct mb_parquet_plain *out)
{
    struct delta d = {.in = in};
    uint8_t *to;

    MB_TRY(begin_delta(&d, n));
    MB_TRY(room(out, (size_t)n * size));
    to = out->p + out->n;
    put_integer(to, 0, size, d.value);
    for (int64_t i = 1; i < n;) {
        MB_TRY(begin_block(&d));
        for (uint64_t m = 0; m < d.per_block / d.per_mini && i < n; m++) {
            const uint64_t left = (uint64_t)(n - i), some = left < d.per_mini ? left : d.per_mini;

            MB_TRY(miniblock(&d, d.width[m], i, some, size, to));
            i += (int64_t)some;
        }
    }
    out->n += (size_t)n * size;
    return MB_OK;
}

/* ---- texts ---------------------------------------------------------------------------------- */

/* Lengths are integers of 4 bytes that are not negative. */
static mb_status lengths(struct thrift *in, int64_t n, struct mb_parquet_plain *out)
{
    int32_t length;

    MB_TRY(integers(in, n, sizeof length, out));
    for (int64_t i = 0; i < n; i++) {
        memcpy(&length, out->p + (size_t)i * sizeof length, sizeof length);
        if (length < 0)
            return nonsense("a length is negative");
    }
    return MB_OK;
}

static size_t length_at(const struct mb_parquet_plain *lengths, int64_t i)
{
    int32_t length = 0;

    if (lengths->n > 0)
        memcpy(&length, lengths->p + (size_t)i * sizeof length, sizeof length);
    return (size_t)length;
}

/* One text: `kept` bytes of the one before, which begins at `before`, and the next `n` of the page. */
static mb_status text(struct thrift *in, int type, int length, size_t before, size_t kept, size_t n,
                      struct mb_parquet_plain *out)
{
    const uint32_t all = (uint32_t)(kept + n);

    if (n > (size_t)(in->end - in->at))
        return nonsense("they are cut off");
    if (type == FIXED && kept + n != (size_t)length)
        return nonsense("one has not the length of its type");
    MB_TRY(room(out, sizeof all + kept + n));
    if (type == BYTE_ARRAY) {
        memcpy(out->p + out->n, &all, sizeof all);
        out->n += sizeof all;
    }
    memmove(out->p + out->n, out->p + before, kept);
    memcpy(out->p + out->n + kept, in->at, n);
    out->n += kept + n;
    in->at += n;
    return MB_OK;
}

/* `kept` may be empty: nothing is of the text before. */
static mb_status texts(struct thrift *in, int type, int length, int64_t n,
                       const struct mb_parquet_plain *kept, struct mb_parquet_plain *rest,
                       struct mb_parquet_plain *out)
{
    size_t before = 0, bytes = 0;

    MB_TRY(lengths(in, n, rest));
    for (int64_t i = 0; i < n; i++) {
        const size_t same = length_at(kept, i), more = length_at(rest, i);

        if (same > bytes)
            return nonsense("one has more of the one before than that is long");
        MB_TRY(text(in, type, length, before, same, more, out));
        bytes = same + more;
        before = out->n - bytes;
    }
    return MB_OK;
}

static mb_status delta_texts(struct thrift *in, bool prefixed, int type, int length, int64_t n,
                             struct mb_parquet_plain *out)
{
    struct mb_parquet_plain kept = {0}, rest = {0};
    mb_status st = prefixed ? lengths(in, n, &kept) : MB_OK;

    if (st == MB_OK)
        st = texts(in, type, length, n, &kept, &rest, out);
    mb_free(kept.p);
    mb_free(rest.p);
    return st;
}

/* ---- streams of bytes ----------------------------------------------------------------------- */

static mb_status streams(const struct thrift *in, size_t size, int64_t n,
                         struct mb_parquet_plain *out)
{
    const size_t have = (size_t)(in->end - in->at);

    if (size == 0 || (uint64_t)n > have / size)
        return nonsense("they are cut off");
    MB_TRY(room(out, (size_t)n * size));
    for (size_t k = 0; k < size; k++)
        for (int64_t i = 0; i < n; i++)
            out->p[(size_t)i * size + k] = in->at[k * (size_t)n + (size_t)i];
    out->n = (size_t)n * size;
    return MB_OK;
}

mb_status mb_parquet_values(int64_t encoding, int type, int length, int64_t n, const uint8_t *from,
                            size_t bytes, struct mb_parquet_plain *out)
{
    static const uint8_t size[] = {
        [INT32] = 4, [INT64] = 8, [FLOAT] = 4, [DOUBLE] = 8, [FIXED] = 0};
    const bool whole = type == INT32 || type == INT64;
    struct thrift in = {from, from + bytes, false};

    out->n = 0;
    if (n == 0)
        return MB_OK;
    if (encoding == DELTA_BINARY_PACKED && whole)
        return integers(&in, n, size[type], out);
    if (encoding == DELTA_LENGTH_BYTE_ARRAY && type == BYTE_ARRAY)
        return delta_texts(&in, false, type, length, n, out);
    if (encoding == DELTA_BYTE_ARRAY && (type == BYTE_ARRAY || type == FIXED))
        return delta_texts(&in, true, type, length, n, out);
    if (encoding == BYTE_STREAM_SPLIT && (whole || type == FLOAT || type == DOUBLE))
        return streams(&in, size[type], n, out);
    if (encoding == BYTE_STREAM_SPLIT && type == FIXED)
        return streams(&in, (size_t)length, n, out);
    return MB_RAISE(MB_EDATA, "is encoded as %s, which is not read for its type",
                    mb_parquet_encoding(encoding));
}
