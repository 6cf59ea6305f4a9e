/* tests/unit/test_parquet_values.c - encodings of a Parquet page: the specification's example, and counts,
 * widths and lengths that lie. What pyarrow writes is in tests/peers/datafiles.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/alloc.h"
#include "recipes/data/parquet_values.h"

enum { DELTA = 5, LENGTHS = 6, PREFIXES = 7, STREAMS = 9 };

#define BYTES(...) \
    .bytes = (const uint8_t[]){__VA_ARGS__}, .n_bytes = sizeof((const uint8_t[]){__VA_ARGS__})

static void the_example_of_the_specification_is_read(void **state)
{
    /* 7, 5, 3, 1, 2, 3, 4, 5: first 7, least difference -2, widths 2 and nothing else of the block */
    static const uint8_t bytes[] = {128, 1, 4, 8, 14, 3, 2, 0, 0, 0, 0xc0, 0x3f, 0, 0, 0, 0, 0, 0};
    static const int32_t want[] = {7, 5, 3, 1, 2, 3, 4, 5};
    struct mb_parquet_plain out = {0};

    assert_int_equal(mb_parquet_values(DELTA, INT32, 0, 8, bytes, sizeof bytes, &out), MB_OK);
    assert_int_equal(out.n, sizeof want);
    assert_memory_equal(out.p, want, sizeof want);
    mb_free(out.p);
}

static void texts_are_put_together_from_the_one_before(void **state)
{
    /* axis, axle, babble: kept 0, 2, 0 and the rest axis, le, babble */
    static const uint8_t bytes[] = {
        128, 1,   4,   3,   0,   3,   3,   0,   0,   0,   0x04, 0,
        0,   0,   0,   0,   0,   0,   0,   0,   0,   0, /* 4 - 2, 0 - 2 */
        128, 1,   4,   3,   8,   3,   3,   0,   0,   0,   0x30, 0,
        0,   0,   0,   0,   0,   0,   0,   0,   0,   0, /* 0 - 2, 6 - 2 */
        'a', 'x', 'i', 's', 'l', 'e', 'b', 'a', 'b', 'b', 'l',  'e'};
    static const char want[] = "\4\0\0\0axis\4\0\0\0axle\6\0\0\0babble";
    struct mb_parquet_plain out = {0};

    if (mb_parquet_values(PREFIXES, BYTE_ARRAY, 0, 3, bytes, sizeof bytes, &out) != MB_OK)
        fail_msg("%s", mb_status_sentence());
    assert_int_equal(out.n, sizeof want - 1);
    assert_memory_equal(out.p, want, sizeof want - 1);
    mb_free(out.p);
}

static const struct {
    int encoding, type, length;
    int64_t n;
    const uint8_t *bytes;
    size_t n_bytes;
    const char *error;
} lies[] = {
    {DELTA, INT32, 0, 8, BYTES(128, 1, 4), "they are cut off"},
    {DELTA, INT32, 0, 8, BYTES(128, 1, 4, 9, 14), "there are not as many as the page says"},
    {DELTA, INT64, 0, 1 << 28,
     BYTES(128, 1, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 14),
     "there are not as many as the page says"},
    {DELTA, INT32, 0, 8, BYTES(0, 4, 8, 14), "their blocks have no sensible size"},
    {DELTA, INT32, 0, 8, BYTES(128, 1, 0, 8, 14), "their blocks have no sensible size"},
    {DELTA, INT32, 0, 8, BYTES(128, 1, 3, 8, 14), "their blocks have no sensible size"},
    {DELTA, INT32, 0, 8, BYTES(128, 1, 8, 8, 14), "their blocks have no sensible size"},
    {DELTA, INT32, 0, 8, BYTES(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 8, 14),
     "their blocks have no sensible size"},
    {DELTA, INT32, 0, 8, BYTES(128, 1, 4, 8, 14, 3, 65, 0, 0, 0, 1),
     "a number has more than 64 bits"},
    {DELTA, INT32, 0, 8, BYTES(128, 1, 4, 8, 14, 3, 20, 0, 0, 0, 1), "they are cut off"},
    {DELTA, INT32, 0, 8, BYTES(128, 1, 4, 8, 14, 3, 20, 0), "they are cut off"},
    {DELTA, INT64, 0, 1 << 27, BYTES(128, 1, 4, 0x80, 0x80, 0x80, 0x40, 14), "they are cut off"},
    {DELTA, INT64, 0, 1 << 28, /* one block of equal differences */
     BYTES(0x80, 0x80, 0x80, 0x80, 1, 1, 0x80, 0x80, 0x80, 0x80, 1, 14, 0, 0),
     "a page has more than 1024 MiB of values"},
    {LENGTHS, BYTE_ARRAY, 0, 1, BYTES(128, 1, 4, 1, 1), "a length is negative"},
    {LENGTHS, BYTE_ARRAY, 0, 1, BYTES(128, 1, 4, 1, 10, 'a'), "they are cut off"},
    {LENGTHS, BYTE_ARRAY, 0, 1, BYTES(128, 1, 4, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 'a'),
     "they are cut off"},
    {PREFIXES, BYTE_ARRAY, 0, 1, BYTES(128, 1, 4, 1, 2, 128, 1, 4, 1, 2, 'a'),
     "one has more of the one before than that is long"},
    {PREFIXES, FIXED, 4, 1, BYTES(128, 1, 4, 1, 0, 128, 1, 4, 1, 2, 'a'),
     "one has not the length of its type"},
    {STREAMS, DOUBLE, 0, 2, BYTES(1, 2, 3, 4, 5, 6, 7, 8, 9), "they are cut off"},
    {STREAMS, FIXED, 0, 2, BYTES(1), "they are cut off"},
    {STREAMS, BYTE_ARRAY, 0, 2, BYTES(1),
     "is encoded as BYTE_STREAM_SPLIT, which is not read for its type"},
    {42, INT32, 0, 2, BYTES(1), "is encoded as something unknown, which is not read for its type"},
};

static void counts_widths_and_lengths_that_lie_are_refused_before_memory_is_taken(void **state)
{
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct mb_parquet_plain out = {0};

        assert_int_equal(mb_parquet_values(lies[i].encoding, lies[i].type, lies[i].length,
                                           lies[i].n, lies[i].bytes, lies[i].n_bytes, &out),
                         MB_EDATA);
        if (strstr(mb_status_sentence(), lies[i].error) == NULL)
            fail_msg("%zu: \"%s\", not \"%s\"", i, mb_status_sentence(), lies[i].error);
        assert_true(out.capacity < 1 << 20);
        mb_status_clear();
        mb_free(out.p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_the_specification_is_read),
        cmocka_unit_test(texts_are_put_together_from_the_one_before),
        cmocka_unit_test(counts_widths_and_lengths_that_lie_are_refused_before_memory_is_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
