/* tests/unit/test_digest.c - SHA-256 against the examples of FIPS 180-4, SHA-1 against git. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/digest.h"
#include "core/path.h"

static const struct {
    const char *text, *hex;
} known[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
};

static void equals_the_published_examples(void **state)
{
    uint8_t d[MB_DIGEST_BYTES];
    char hex[MB_DIGEST_HEX];

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        assert_int_equal(mb_digest_memory(known[i].text, strlen(known[i].text), d), MB_OK);
        mb_digest_hex(d, hex);
        assert_string_equal(hex, known[i].hex);
    }
}

static void streaming_a_million_letters_and_using_it_again(void **state)
{
    char piece[1000], hex[MB_DIGEST_HEX];
    uint8_t d[MB_DIGEST_BYTES];
    mb_digest *s;

    memset(piece, 'a', sizeof piece);
    assert_int_equal(mb_digest_new(&s), MB_OK);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 1000; i++) {
            assert_int_equal(mb_digest_add(s, piece, 337), MB_OK);
            assert_int_equal(mb_digest_add(s, piece, 663), MB_OK);
        }
        assert_int_equal(mb_digest_end(s, d), MB_OK);
        mb_digest_hex(d, hex);
        assert_string_equal(hex,
                            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
    mb_digest_free(s);
}

static void a_file_larger_than_the_buffer(void **state)
{
    const size_t n = (5u << 20) / 2 + 7;
    char path[] = "/tmp/mb_digest_XXXXXX", *data = malloc(n);
    uint8_t a[MB_DIGEST_BYTES], b[MB_DIGEST_BYTES];
    const int fd = mkstemp(path);

    for (size_t i = 0; i < n; i++)
        data[i] = (char)(i * 31 >> 3);
    close(fd);
    assert_int_equal(mb_file_write_atomic(path, data, n), MB_OK);
    assert_int_equal(mb_digest_file(path, a), MB_OK);
    assert_int_equal(mb_digest_memory(data, n, b), MB_OK);
    assert_memory_equal(a, b, sizeof a);
    unlink(path);
    free(data);
    assert_int_equal(mb_digest_file(path, a), MB_EIO);
    mb_status_clear();
    assert_int_equal(mb_digest_file("/dev/zero", a), MB_EIO);
    mb_status_clear();
}

/* `printf "habari\n" | git hash-object --stdin`, and of nothing */
static void a_git_blob_has_the_name_git_gives_it(void **state)
{
    static const struct {
        const char *text, *name;
    } blobs[] = {{"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"},
                 {"habari\n", "a9dc8f24a3785b6b923f1795f99857c9e174e4c9"}};
    char hex[MB_DIGEST_HEX];
    mb_digest *d;

    for (size_t i = 0; i < sizeof blobs / sizeof *blobs; i++) {
        const size_t n = strlen(blobs[i].text);
        assert_int_equal(mb_digest_new_git_blob((int64_t)n, &d), MB_OK);
        assert_int_equal(mb_digest_add(d, blobs[i].text, n), MB_OK);
        assert_int_equal(mb_digest_end_hex(d, hex), MB_OK);
        assert_string_equal(hex, blobs[i].name);
        mb_digest_free(d);
    }
    assert_int_equal(mb_digest_new_sha1(&d), MB_OK);
    assert_int_equal(mb_digest_add(d, "abc", 3), MB_OK);
    assert_int_equal(mb_digest_end_hex(d, hex), MB_OK);
    assert_string_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
    mb_digest_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_published_examples),
        cmocka_unit_test(streaming_a_million_letters_and_using_it_again),
        cmocka_unit_test(a_file_larger_than_the_buffer),
        cmocka_unit_test(a_git_blob_has_the_name_git_gives_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
