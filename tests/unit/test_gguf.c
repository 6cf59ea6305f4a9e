/* tests/unit/test_gguf.c - GGUF files: typed values, tensors, malformed ones.
 *
 * A file is written as a line of words, so that each case shows every byte that matters:
 *
 *     'abc  these letters        s:abc  u64 length and letters     z16  sixteen zero bytes
 *     b1    one byte             h1     u16                        @32  zeros up to a multiple of 32
 *     w1    u32 (-1: all ones)   q1     u64                        f1.5 d1.5  f32, f64
 */
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/formats/gguf.h"
#include "core/path.h"
#include "tests/unit/root_test.h"

static char file[MB_PATH_MAX]; /* root/t.gguf */

/* Assembles `words` into out; returns the bytes. */
static size_t assemble(const char *words, uint8_t *out, size_t size)
{
    size_t n = 0;

    memset(out, 0, size);
    while (*words != '\0') {
        const char *end = strchr(words, ' ');
        const size_t length = end != NULL ? (size_t)(end - words) : strlen(words);
        const char *arg = words + 1;
        const int64_t i = strtoll(arg, NULL, 0);
        const uint64_t u = *arg == '-' ? (uint64_t)i : strtoull(arg, NULL, 0);
        const double d = strtod(arg, NULL);
        const float f = (float)d;
        assert_true(n + length + 64 < size);
        switch (*words) {
        case '\'':
            memcpy(out + n, arg, length - 1);
            n += length - 1;
            break;
        case 's':
            n += 8;
            out[n - 8] = (uint8_t)(length - 2);
            memcpy(out + n, words + 2, length - 2);
            n += length - 2;
            break;
        case 'b':
        case 'h':
        case 'w':
        case 'q': {
            const size_t bytes = *words == 'b' ? 1 : *words == 'h' ? 2 : *words == 'w' ? 4 : 8;
            memcpy(out + n, &u, bytes);
            n += bytes;
            break;
        }
        case 'f':
            memcpy(out + n, &f, 4);
            n += 4;
            break;
        case 'd':
            memcpy(out + n, &d, 8);
            n += 8;
            break;
        case 'z':
            n += (size_t)u;
            break;
        case '@':
            n = (n + u - 1) / u * u;
            break;
        default:
            fail_msg("the test has the unknown word '%s'", words);
        }
        assert_true(n < size);
        words += length + (end != NULL);
    }
    return n;
}

static size_t write_file(const char *words)
{
    static uint8_t bytes[1 << 17];
    const size_t n = assemble(words, bytes, sizeof bytes);

    assert_int_equal(mb_file_write_atomic(file, bytes, n), MB_OK);
    return n;
}

static mb_tensor_file *opened(const char *words)
{
    mb_tensor_file *f = NULL;

    write_file(words);
    if (mb_tensor_file_open(file, &f) != MB_OK)
        fail_msg("%s", mb_status_sentence());
    return f;
}

/* One sentence on one line that names the file. */
static void expect_fault(mb_status st, mb_status wanted, const char *says)
{
    if (st != wanted || strstr(mb_status_sentence(), says) == NULL)
        fail_msg("expected %s '%s', got %s '%s'", mb_status_name(wanted), says, mb_status_name(st),
                 mb_status_sentence());
    assert_non_null(strstr(mb_status_sentence(), "t.gguf"));
    assert_null(strchr(mb_status_sentence(), '\n'));
    mb_status_clear();
}

/* Tensors t (f32, 8 elements, 32 bytes) and u (32 elements of q8_0, 34 bytes); one pair k. */
#define START(tensors, pairs) "'GGUF w3 q" #tensors " q" #pairs " "
#define PAIR                  "s:k w4 w7 "
#define T                     "s:t w2 q4 q2 w0 q0 "
#define U                     "s:u w1 q32 w8 q32 "

static const struct {
    const char *words;
    mb_status st;
    const char *says;
} malformed[] = {
    /* the first 24 bytes */
    {"", MB_EMODEL, "inside its first bytes"},
    {"'GGU", MB_EMODEL, "inside its first bytes"},
    {"'GGML w3 q0 q0", MB_EMODEL, "does not begin with \"GGUF\""},
    {"'gguf w3 q0 q0", MB_EMODEL, "does not begin with \"GGUF\""},
    {"'GGUF w0 q0 q0", MB_ENOTSUP, "big-endian"},
    {"'GGUF w1 q0 q0", MB_ENOTSUP, "version 1 is not supported"},
    {"'GGUF w4 q0 q0", MB_EMODEL, "version 4 is unknown"},
    {"'GGUF w-1 q0 q0", MB_EMODEL, "version 4294967295 is unknown"},
    {"'GGUF w0x03000000 q0 q0", MB_ENOTSUP, "big-endian"},
    {"'GGUF w3 q1 q0", MB_EMODEL, "1 tensors and 0 keys do not fit"},
    {"'GGUF w3 q0 q1", MB_EMODEL, "0 tensors and 1 keys do not fit"},
    {"'GGUF w3 q-1 q0 z64", MB_EMODEL, "do not fit"},
    {"'GGUF w3 q0 q-1 z64", MB_EMODEL, "do not fit"},
    {"'GGUF w3 q0x4000000000000000 q0 z64", MB_EMODEL, "do not fit"},
    {"'GGUF w3 q0 q0x4000000000000000 z64", MB_EMODEL, "do not fit"},
    {"'GGUF w3 q0x80000000 q0x80000000 z64", MB_EMODEL, "do not fit"},
    {"'GGUF w3 q3 q0 z64", MB_EMODEL, "do not fit"},
    {"'GGUF w3 q0", MB_EMODEL, "inside its counts"},
    /* keys */
    {START(0, 1) "q-1 'k w4 w7", MB_EMODEL, "would have 18446744073709551615 bytes"},
    {START(0, 1) "q0x4000000000000000 'k w4 w7", MB_EMODEL, "the file has 9 more"},
    {START(0, 1) "q10 'k w4 w7", MB_EMODEL, "would have 10 bytes"},
    {START(0, 1) "s: w4 w7 z9", MB_EMODEL, "key 0 has 0 bytes"},
    {START(0, 1) "q1 b10 w4 w7", MB_EMODEL, "key 0 is not printable UTF-8"},
    {START(0, 1) "q1 b0 w4 w7", MB_EMODEL, "key 0 is not printable UTF-8"},
    {START(0, 1) "q1 b0xff w4 w7", MB_EMODEL, "key 0 is not printable UTF-8"},
    {START(0, 1) "q2 b0xc0 b0x80 w4 w7", MB_EMODEL, "key 0 is not printable UTF-8"},
    {START(0, 1) "q3 b0xed b0xa0 b0x80 w4 w7", MB_EMODEL, "key 0 is not printable UTF-8"},
    {START(0, 1) "q1 b0xe2 w4 w7", MB_EMODEL, "key 0 is not printable UTF-8"},
    {START(0, 2) PAIR PAIR, MB_EMODEL, "the key 'k' is there twice"},
    {START(0, 2) PAIR "s:k w8 s:x", MB_EMODEL, "the key 'k' is there twice"},
    {START(0, 1) "q65536 z65536 w4 w7", MB_EMODEL, "key 0 has 65536 bytes"},
    /* values */
    {START(0, 1) "s:k w13 z8", MB_EMODEL, "'k' has the unknown type 13"},
    {START(0, 1) "s:k w-1 z8", MB_EMODEL, "'k' has the unknown type 4294967295"},
    {START(0, 1) "s:k w4 h1", MB_EMODEL, "'k' would have 1 values of type u32"},
    {START(0, 1) "s:k w10 w1", MB_EMODEL, "'k' would have 1 values of type u64"},
    {START(0, 1) "s:key w12 b1 h1", MB_EMODEL, "'key' would have 1 values of type f64"},
    {START(0, 1) "s:k w7 b2", MB_EMODEL, "'k' has the boolean 2"},
    {START(0, 1) "s:k w7 b255", MB_EMODEL, "'k' has the boolean 255"},
    {START(0, 1) "s:k w8 q-1 'abc", MB_EMODEL, "a string value"},
    {START(0, 1) "s:k w8 q4 'abc", MB_EMODEL, "would have 4 bytes, the file has 3 more"},
    {START(0, 1) "s:k w8 w1", MB_EMODEL, "'k' would have 1 values of type string"},
    /* arrays */
    {START(0, 1) "s:k w9 h1", MB_EMODEL, "inside an array's type"},
    {START(0, 1) "s:k w9 w4 w1", MB_EMODEL, "inside an array's length"},
    {START(0, 1) "s:k w9 w9 q1 w4 q1 w1", MB_ENOTSUP, "'k' is an array of arrays"},
    {START(0, 1) "s:k w9 w13 q1 w1", MB_EMODEL, "'k' has the unknown type 13"},
    {START(0, 1) "s:k w9 w4 q-1 w1", MB_EMODEL, "'k' would have 18446744073709551615 values"},
    {START(0, 1) "s:k w9 w4 q0x4000000000000001 w1", MB_EMODEL, "'k' would have"},
    {START(0, 1) "s:k w9 w10 q0x2000000000000001 q1", MB_EMODEL, "'k' would have"},
    {START(0, 1) "s:k w9 w4 q2 w1", MB_EMODEL, "'k' would have 2 values of type u32"},
    {START(0, 1) "s:k w9 w8 q-1 s:a", MB_EMODEL, "'k' would have"},
    {START(0, 1) "s:k w9 w8 q0x80000000 s:a", MB_EMODEL, "'k' would have 2147483648 values"},
    {START(0, 1) "s:k w9 w8 q2 s:a h1 z5", MB_EMODEL, "inside a string value"},
    {START(0, 1) "s:k w9 w8 q2 s:a q5 'xyz", MB_EMODEL, "would have 5 bytes"},
    {START(0, 1) "s:k w9 w7 q3 b0 b1 b7", MB_EMODEL, "'k' has the boolean 7"},
    /* alignment, parts */
    {START(1, 1) "s:general.alignment w4 w0 " T "@32 z32", MB_EMODEL, "general.alignment is 0"},
    {START(1, 1) "s:general.alignment w4 w3 " T "@32 z32", MB_EMODEL, "general.alignment is 3"},
    {START(1, 1) "s:general.alignment w4 w48 " T "@32 z32", MB_EMODEL, "general.alignment is 48"},
    {START(1, 1) "s:general.alignment w4 w0x80000000 " T "@32 z32", MB_EMODEL, "2147483648"},
    {START(1, 1) "s:general.alignment w5 w-32 " T "@32 z32", MB_EMODEL, "general.alignment is -32"},
    {START(1, 1) "s:general.alignment w10 q-1 " T "@32 z32", MB_EMODEL, "more than 2^63"},
    {START(1, 1) "s:general.alignment w6 f32 " T "@32 z32", MB_EMODEL, "is of type f32"},
    {START(1, 1) "s:general.alignment w8 s:32 " T "@32 z32", MB_EMODEL, "is of type string"},
    {START(1, 1) "s:general.alignment w4 w4096 " T "@32 z32", MB_EMODEL, "it is not complete"},
    {START(0, 1) "s:split.count w2 h3", MB_ENOTSUP, "one of 3 parts of a split model"},
    {START(0, 1) "s:split.count w8 s:x", MB_EMODEL, "'split.count' is of type string"},
    /* tensor infos */
    {START(1, 0) "s: w1 q8 w0 q0 @32 z32", MB_EMODEL, "tensor name 0 has 0 bytes"},
    {START(1, 0) "s:12345678901234567890123456789012345678901234567890123456789012345 w1 q8 w0 q0 "
                 "@32 z32",
     MB_EMODEL, "tensor name 0 has 65 bytes"},
    {START(1, 0) "q1 b7 w1 q8 w0 q0 @32 z32", MB_EMODEL, "tensor name 0 is not printable"},
    {START(1, 0) "q-1 't w1 q8 w0 q0 @32 z32", MB_EMODEL, "would have 18446744073709551615"},
    {START(2, 0) T "s:t w1 q8 w0 q32 @32 z64", MB_EMODEL, "tensor 't' is there twice"},
    {START(1, 0) "s:t w5 q1 q1 q1 q1 q8 w0 q0 @32 z32", MB_EMODEL, "has 5 dimensions"},
    {START(1, 0) "s:t w-1 q8 w0 q0 @32 z32", MB_EMODEL, "has 4294967295 dimensions"},
    {START(1, 0) "s:t w1 q0 w0 q0 @32 z32", MB_EMODEL, "a dimension of 0"},
    {START(1, 0) "s:t w2 q8 q0 w0 q0 @32 z32", MB_EMODEL, "a dimension of 0"},
    {START(1, 0) "s:t w1 q-1 w0 q0 @32 z32", MB_EMODEL, "a dimension of 18446744073709551615"},
    {START(1, 0) "s:t w1 q0x7fffffffffffffff w0 q0 @32 z32", MB_EMODEL, "more than 2^63 bytes"},
    {START(1, 0) "s:t w2 q0x40000000001 q0x400000 w0 q0 @32 z32", MB_EMODEL, "more than 2^63"},
    {START(1, 0) "s:t w2 q0x100000000 q0x100000000 w0 q0 @32 z32", MB_EMODEL, "2^63 elements"},
    {START(1, 0) "s:t w1 q8 w4 q0 @32 z32", MB_EMODEL, "'t' has the unknown type 4"},
    {START(1, 0) "s:t w1 q8 w99 q0 @32 z32", MB_EMODEL, "'t' has the unknown type 99"},
    {START(1, 0) "s:t w1 q8 w-1 q0 @32 z32", MB_EMODEL, "'t' has the unknown type 4294967295"},
    {START(1, 0) "s:t w1 q256 w16 q0 @32 z320", MB_ENOTSUP, "'t' has type IQ2_XXS"},
    {START(1, 0) "s:t w1 q32 w9 q0 @32 z320", MB_ENOTSUP, "'t' has type Q8_1"},
    {START(1, 0) "s:t w1 q31 w8 q0 @32 z34", MB_EMODEL, "rows of 31 are no multiple of 32"},
    {START(1, 0) "s:t w2 q16 q2 w2 q0 @32 z34", MB_EMODEL, "rows of 16 are no multiple of 32"},
    {START(1, 0) "s:t w1 q128 w12 q0 @32 z320", MB_EMODEL, "rows of 128 are no multiple of 256"},
    {START(1, 0) "s:t w0 w8 q0 @32 z34", MB_EMODEL, "rows of 1 are no multiple of 32"},
    {START(1, 0) "s:t w2 q8 w0 q0", MB_EMODEL, "inside a tensor's offset"},
    /* data */
    {START(1, 0) "s:t w1 q8 w0 q-32 @32 z32", MB_EMODEL, "at offset 18446744073709551584"},
    {START(1, 0) "s:t w1 q8 w0 q1 @32 z64", MB_EMODEL, "at offset 1, 0 was expected"},
    {START(1, 0) "s:t w1 q8 w0 q32 @32 z64", MB_EMODEL, "at offset 32, 0 was expected"},
    {START(1, 0) "s:t w1 q8 w0 q0x7fffffffffffffe0 @32 z64", MB_EMODEL, "at offset"},
    {START(2, 0) T "s:u w1 q32 w8 q0 @32 z96", MB_EMODEL, "at offset 0, 32 was expected"},
    {START(2, 0) T "s:u w1 q32 w8 q64 @32 z128", MB_EMODEL, "at offset 64, 32 was expected"},
    {START(1, 0) T "@32 z31", MB_EMODEL, "it is not complete"},
    {START(1, 0) T, MB_EMODEL, "it is not complete"},
    {START(2, 0) T U "@32 z65", MB_EMODEL, "'u' needs 34 bytes"},
    {START(1, 0) "s:t w1 q0x100000000 w0 q0 @32 z64", MB_EMODEL, "needs 17179869184 bytes"},
};

static void malformed_files_are_refused_with_a_sentence(void **state)
{
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        mb_tensor_file *f = NULL;
        write_file(malformed[i].words);
        expect_fault(mb_tensor_file_open(file, &f), malformed[i].st, malformed[i].says);
        assert_null(f);
    }
    assert_true(sizeof malformed / sizeof malformed[0] >= 60);
}

/* Every type of value, as array too, and two tensors. */
#define ALL_TYPES                                                                            \
    START(2, 20)                                                                             \
    "s:u8 w0 b200 s:i8 w1 b-3 s:u16 w2 h60000 s:i16 w3 h-300 s:u32 w4 w4000000000 "          \
    "s:i32 w5 w-70000 s:f32 w6 f1.5 s:yes w7 b1 s:no w7 b0 s:text w8 s:hello s:empty w8 s: " \
    "s:u64 w10 q-1 s:i64 w11 q-5 s:f64 w12 d0.1 s:words w9 w8 q3 s:one s: s:three "          \
    "s:ints w9 w5 q3 w-1 w0 w7 s:longs w9 w10 q2 q5 q-1 s:reals w9 w6 q2 f0.5 f-2 "          \
    "s:bools w9 w7 q2 b1 b0 s:none w9 w8 q0 " T U "@32 z32 'abc z31"

static void every_type_of_value_is_read(void **state)
{
    mb_tensor_file *f = opened(ALL_TYPES);
    const mb_gguf *g = mb_tensor_file_gguf(f);
    static const struct {
        const char *key;
        int64_t v;
    } ints[] = {{"u8", 200},         {"i8", -3},      {"u16", 60000}, {"i16", -300},
                {"u32", 4000000000}, {"i32", -70000}, {"i64", -5}};
    const char *s;
    size_t n;
    int64_t i;
    uint64_t u;
    double d;
    bool b;

    for (size_t k = 0; k < sizeof ints / sizeof ints[0]; k++) {
        assert_int_equal(mb_gguf_i64(g, ints[k].key, &i), MB_OK);
        assert_true(i == ints[k].v);
        assert_int_equal(mb_gguf_f64(g, ints[k].key, &d), MB_OK);
        assert_true(d == (double)ints[k].v);
        if (ints[k].v >= 0) {
            assert_int_equal(mb_gguf_u64(g, ints[k].key, &u), MB_OK);
            assert_true(u == (uint64_t)ints[k].v);
        } else {
            expect_fault(mb_gguf_u64(g, ints[k].key, &u), MB_EMODEL, "must not be negative");
        }
    }
    assert_int_equal(mb_gguf_u64(g, "u64", &u), MB_OK);
    assert_true(u == UINT64_MAX);
    expect_fault(mb_gguf_i64(g, "u64", &i), MB_EMODEL, "more than 2^63");
    assert_int_equal(mb_gguf_f64(g, "u64", &d), MB_OK);
    assert_true(d == 0x1p64);
    assert_int_equal(mb_gguf_f64(g, "f32", &d), MB_OK);
    assert_true(d == 1.5);
    assert_int_equal(mb_gguf_f64(g, "f64", &d), MB_OK);
    assert_true(d == 0.1);
    assert_int_equal(mb_gguf_bool(g, "yes", &b), MB_OK);
    assert_true(b);
    assert_int_equal(mb_gguf_bool(g, "no", &b), MB_OK);
    assert_false(b);
    assert_int_equal(mb_gguf_string(g, "text", &s, &n), MB_OK);
    assert_string_equal(s, "hello");
    assert_int_equal(n, 5);
    assert_int_equal(mb_gguf_string(g, "empty", &s, &n), MB_OK);
    assert_string_equal(s, "");
    assert_int_equal(n, 0);
    mb_tensor_file_close(f);
}

static void arrays_are_read_by_type(void **state)
{
    mb_tensor_file *f = opened(ALL_TYPES);
    const mb_gguf *g = mb_tensor_file_gguf(f);
    mb_gguf_array a;
    size_t n;

    assert_int_equal(mb_gguf_strings(g, "words", &a), MB_OK);
    assert_int_equal(a.n, 3);
    assert_string_equal(mb_gguf_string_at(&a, 0, &n), "one");
    assert_int_equal(n, 3);
    assert_string_equal(mb_gguf_string_at(&a, 1, &n), "");
    assert_int_equal(n, 0);
    assert_string_equal(mb_gguf_string_at(&a, 2, NULL), "three");
    assert_int_equal(mb_gguf_strings(g, "none", &a), MB_OK);
    assert_int_equal(a.n, 0);
    assert_int_equal(mb_gguf_ints(g, "ints", &a), MB_OK);
    assert_int_equal(a.n, 3);
    assert_int_equal(mb_gguf_int_at(&a, 0), -1);
    assert_int_equal(mb_gguf_int_at(&a, 2), 7);
    assert_int_equal(mb_gguf_ints(g, "bools", &a), MB_OK);
    assert_int_equal(mb_gguf_int_at(&a, 0), 1);
    assert_int_equal(mb_gguf_ints(g, "longs", &a), MB_OK);
    assert_int_equal(mb_gguf_int_at(&a, 0), 5);
    assert_true(mb_gguf_int_at(&a, 1) == INT64_MAX);
    assert_int_equal(mb_gguf_reals(g, "reals", &a), MB_OK);
    assert_true(mb_gguf_real_at(&a, 0) == 0.5 && mb_gguf_real_at(&a, 1) == -2.0);
    assert_int_equal(mb_gguf_reals(g, "ints", &a), MB_OK);
    assert_true(mb_gguf_real_at(&a, 0) == -1.0);
    mb_tensor_file_close(f);
}

static void one_type_is_never_taken_for_another(void **state)
{
    mb_tensor_file *f = opened(ALL_TYPES);
    const mb_gguf *g = mb_tensor_file_gguf(f);
    mb_gguf_array a;
    const char *s;
    uint64_t u;
    int64_t i;
    double d;
    bool b;

    expect_fault(mb_gguf_u64(g, "absent", &u), MB_EMODEL, "the key 'absent' is missing");
    expect_fault(mb_gguf_u64(g, "f32", &u), MB_EMODEL,
                 "'f32' is of type f32, an integer is needed");
    expect_fault(mb_gguf_u64(g, "yes", &u), MB_EMODEL,
                 "'yes' is of type bool, an integer is needed");
    expect_fault(mb_gguf_u64(g, "text", &u), MB_EMODEL, "an integer is needed");
    expect_fault(mb_gguf_u64(g, "ints", &u), MB_EMODEL, "'ints' is an array of i32");
    expect_fault(mb_gguf_f64(g, "text", &d), MB_EMODEL, "a number is needed");
    expect_fault(mb_gguf_f64(g, "reals", &d), MB_EMODEL, "a number is needed");
    expect_fault(mb_gguf_bool(g, "u8", &b), MB_EMODEL, "a boolean is needed");
    expect_fault(mb_gguf_string(g, "u8", &s, NULL), MB_EMODEL, "a string is needed");
    expect_fault(mb_gguf_string(g, "words", &s, NULL), MB_EMODEL, "a string is needed");
    expect_fault(mb_gguf_strings(g, "text", &a), MB_EMODEL, "an array of strings is needed");
    expect_fault(mb_gguf_strings(g, "ints", &a), MB_EMODEL, "an array of strings is needed");
    expect_fault(mb_gguf_ints(g, "reals", &a), MB_EMODEL, "an array of integers is needed");
    expect_fault(mb_gguf_ints(g, "u8", &a), MB_EMODEL, "an array of integers is needed");
    expect_fault(mb_gguf_reals(g, "words", &a), MB_EMODEL, "an array of numbers is needed");
    expect_fault(mb_gguf_reals(g, "bools", &a), MB_EMODEL, "an array of numbers is needed");
    expect_fault(mb_gguf_opt_i64(g, "text", 4, &i), MB_EMODEL, "an integer is needed");

    assert_int_equal(mb_gguf_opt_i64(g, "absent", 4, &i), MB_OK);
    assert_int_equal(i, 4);
    assert_int_equal(mb_gguf_opt_i64(g, "u8", 4, &i), MB_OK);
    assert_int_equal(i, 200);
    assert_int_equal(mb_gguf_opt_f64(g, "absent", 0.25, &d), MB_OK);
    assert_true(d == 0.25);
    assert_int_equal(mb_gguf_opt_bool(g, "absent", true, &b), MB_OK);
    assert_true(b);
    assert_int_equal(mb_gguf_opt_string(g, "absent", NULL, &s), MB_OK);
    assert_null(s);
    mb_tensor_file_close(f);
}

static void tensors_have_reversed_shapes_and_raw_blocks(void **state)
{
    mb_tensor_file *f = opened(ALL_TYPES);
    char got[34];

    assert_int_equal(mb_tensor_file_count(f), 2);
    const mb_tensor_info *t = mb_tensor_file_info(f, mb_tensor_file_find(f, "t"));
    assert_int_equal(t->ndim, 2);
    assert_int_equal(t->dim[0], 2);
    assert_int_equal(t->dim[1], 4);
    assert_int_equal(t->dtype, MB_DTYPE_F32);
    assert_int_equal(t->bytes, 32);
    const int64_t u = mb_tensor_file_find(f, "u");
    assert_int_equal(mb_tensor_file_info(f, u)->dtype, MB_DTYPE_Q8_0);
    assert_int_equal(mb_tensor_file_info(f, u)->bytes, 34);
    assert_int_equal(mb_tensor_file_read(f, u, got, 0, 34), MB_OK);
    assert_memory_equal(got, "abc\0", 4);
    mb_tensor_file_close(f);

    /* version 2, another alignment, a scalar, four dimensions, a string with a zero inside */
    f = opened("'GGUF w2 q2 q2 s:general.alignment w4 w64 s:z w8 q3 'a b0 'b s:a w0 w0 q0 "
               "s:b w4 q2 q1 q3 q1 w24 q64 @64 f7 @64 z6");
    assert_int_equal(mb_tensor_file_info(f, 0)->ndim, 0);
    assert_int_equal(mb_tensor_file_info(f, 0)->bytes, 4);
    t = mb_tensor_file_info(f, 1);
    assert_int_equal(t->ndim, 4);
    assert_int_equal(t->dim[0], 1);
    assert_int_equal(t->dim[1], 3);
    assert_int_equal(t->dim[3], 2);
    assert_int_equal(t->dtype, MB_DTYPE_I8);
    float x;
    assert_int_equal(mb_tensor_file_read(f, 0, &x, 0, 4), MB_OK);
    assert_true(x == 7.0f);
    const char *s;
    size_t n;
    assert_int_equal(mb_gguf_string(mb_tensor_file_gguf(f), "z", &s, &n), MB_OK);
    assert_int_equal(n, 3);
    assert_memory_equal(s, "a\0b", 4);
    mb_tensor_file_close(f);
}

static void values_can_be_shown(void **state)
{
    static const char *const shown[] = {
        "200",
        "-3",
        "60000",
        "-300",
        "4000000000",
        "-70000",
        "1.5",
        "true",
        "false",
        "hello",
        "",
        "18446744073709551615",
        "-5",
        "0.1",
        "3 values of type string",
        "3 values of type i32",
    };
    mb_tensor_file *f = opened(ALL_TYPES);
    const mb_gguf *g = mb_tensor_file_gguf(f);
    char text[64];

    assert_int_equal(mb_gguf_count(g), 20);
    assert_string_equal(mb_gguf_key(g, 0), "u8");
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
        assert_string_equal(mb_gguf_describe(g, i, text, sizeof text), shown[i]);
    assert_true(mb_gguf_has(g, "none"));
    assert_false(mb_gguf_has(g, "non"));
    mb_tensor_file_close(f);
}

static void a_file_cut_at_any_length_is_refused(void **state)
{
    const size_t whole =
        write_file(START(2, 3) PAIR "s:w w9 w8 q2 s:ab s:c s:n w9 w5 q2 w1 w2 " T U "@32 z32 z34");
    mb_tensor_file *f = NULL;

    assert_int_equal(mb_tensor_file_open(file, &f), MB_OK);
    mb_tensor_file_close(f);
    for (size_t n = whole; n-- > 0;) {
        assert_int_equal(truncate(file, (off_t)n), 0);
        f = NULL;
        expect_fault(mb_tensor_file_open(file, &f), MB_EMODEL, "");
        assert_null(f);
    }
}

/* A vocabulary as large as a real one, larger than the first read. */
static void many_strings_and_scores_are_read(void **state)
{
    enum { N = 120000 };
    const uint64_t n = N, one = 1, two = 2, zero = 0;
    const uint32_t version = 3, array = 9, string = 8, f32 = 6;
    char *p = malloc(N * 32 + 200), *q = p, text[32];
    mb_tensor_file *f = NULL;
    mb_gguf_array words, scores;

#define PUT(v) (memcpy(q, &(v), sizeof(v)), q += sizeof(v))
    memcpy(q, "GGUF", 4), q += 4;
    PUT(version), PUT(zero), PUT(two);
    PUT(one), *q++ = 'w', PUT(array), PUT(string), PUT(n);
    for (int i = 0; i < N; i++) {
        const uint64_t length = (uint64_t)sprintf(text, "%d-word", i);
        PUT(length);
        memcpy(q, text, length), q += length;
    }
    PUT(one), *q++ = 's', PUT(array), PUT(f32), PUT(n);
    for (int i = 0; i < N; i++) {
        const float score = (float)-i;
        PUT(score);
    }
    assert_int_equal(mb_file_write_atomic(file, p, (size_t)(q - p)), MB_OK);
    free(p);
    const int64_t before = mb_alloc_count();
    assert_int_equal(mb_tensor_file_open(file, &f), MB_OK);
    assert_in_range(mb_alloc_count() - before, 1, 100);
    const mb_gguf *g = mb_tensor_file_gguf(f);
    assert_int_equal(mb_gguf_strings(g, "w", &words), MB_OK);
    assert_int_equal(mb_gguf_reals(g, "s", &scores), MB_OK);
    assert_int_equal(words.n, N);
    for (int i = 0; i < N; i++) {
        size_t bytes;
        sprintf(text, "%d-word", i);
        assert_string_equal(mb_gguf_string_at(&words, (uint64_t)i, &bytes), text);
        assert_int_equal(bytes, strlen(text));
        assert_true(mb_gguf_real_at(&scores, (uint64_t)i) == -i);
    }
    mb_tensor_file_close(f);
}

static void random_damage_never_crashes(void **state)
{
    static const uint8_t likely[] = {0, 1, 2, 4, 7, 8, 9, 12, 13, 127, 128, 255};
    const size_t n = write_file(ALL_TYPES);
    uint64_t x = 20260102;
    uint8_t whole[4096], copy[4096];
    int accepted = 0;

    const int fd = open(file, O_RDWR);
    assert_int_equal(pread(fd, whole, sizeof whole, 0), (ssize_t)n);
    for (int i = 0; i < 20000; i++) {
        mb_tensor_file *f = NULL;
        char text[16], bytes[64];
        memcpy(copy, whole, n);
        for (int k = 0; k <= i % 4; k++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            copy[(x >> 33) % n] =
                (x & 1024) != 0 ? likely[(x >> 20) % sizeof likely] : (uint8_t)(x >> 25);
        }
        assert_int_equal(pwrite(fd, copy, n, 0), (ssize_t)n);
        if (mb_tensor_file_open(file, &f) == MB_OK) {
            const mb_gguf *g = mb_tensor_file_gguf(f);
            accepted++;
            for (int64_t t = 0; t < mb_tensor_file_count(f); t++)
                assert_int_equal(
                    mb_tensor_file_read(f, t, bytes, 0, mb_tensor_file_info(f, t)->bytes), MB_OK);
            for (uint64_t k = 0; g != NULL && k < mb_gguf_count(g); k++) {
                mb_gguf_array a;
                mb_gguf_describe(g, k, text, sizeof text);
                if (mb_gguf_strings(g, mb_gguf_key(g, k), &a) == MB_OK)
                    for (uint64_t e = 0; e < a.n; e++) {
                        size_t length;
                        const char *s = mb_gguf_string_at(&a, e, &length);
                        assert_int_equal(s[length], 0);
                    }
            }
        } else {
            assert_true(mb_status_sentence()[0] != '\0');
        }
        mb_tensor_file_close(f);
        mb_status_clear();
    }
    close(fd);
    assert_in_range(accepted, 1, 19999);
}

static int make_file(void **state)
{
    return make_root(state) != 0 || mb_path_join(file, sizeof file, root, "t.gguf") != MB_OK;
}

static int remove_file(void **state)
{
    return remove_root(state) != 0 || mb_alloc_live() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_files_are_refused_with_a_sentence),
        cmocka_unit_test(every_type_of_value_is_read),
        cmocka_unit_test(arrays_are_read_by_type),
        cmocka_unit_test(one_type_is_never_taken_for_another),
        cmocka_unit_test(tensors_have_reversed_shapes_and_raw_blocks),
        cmocka_unit_test(values_can_be_shown),
        cmocka_unit_test(a_file_cut_at_any_length_is_refused),
        cmocka_unit_test(many_strings_and_scores_are_read),
        cmocka_unit_test(random_damage_never_crashes),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}
