/* tests/unit/test_xet.c - uploads by Xet: hashes, xorbs and shards of the real client, and broken ones.
 *
 * tests/data/xet holds what hf-xet 1.8.0 sent for two pushes: three files (floats, noise, text), then
 * a folder in which one of them had ten bytes changed and one was new, made of both.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/hub/blake3.h"
#include "recipes/hub/xet_inside.h"
#include "tests/long.h"
#include "tests/unit/root_test.h"

#define FIRST  "246805ed876f5c159e5aa36d7429d640d6ea5acbc8da1b8dbaf8e9a506cc55a5"
#define SECOND "8d7ae996b8174080d5b2fd43f1df626215bb183ef53f5a514918ed514b378cb2"
#define FLOATS "02a8317ce323b63c9497b6da41c8bfaedea65d6b53cce5e733b26e3f87dedbcf"
#define NOISE  "c979acb140ed4a6dc63f47ddb71677925c9847ea5e5a417cd3c52be3164963b6"
#define TEXT   "95bee83d0b13df8278e47322a46e7b027e9110facb4bf21ac9c60d63b7354ca4"
#define EDITED "c8b8f7cdf4be91692b6b867ed8d821ffa50d991aab1be89b1ea4b4dd2808b6af"
#define WHOLE  "7c146cbb96e939ae58e3fae0715b0397ff659cd86d8be2dbdff68931c8caae1a"

struct bytes {
    uint8_t *p;
    size_t n;
};

static struct bytes first_xorb, second_xorb, first_shard, second_shard;

/* --- a place for objects: what was filed, each looked at again */
static struct {
    char name[64][MB_DIGEST_HEX];
    int64_t size[64];
    int n;
} filed;

static bool have_it(void *arg, const char sha256[MB_DIGEST_HEX], int64_t *size)
{
    for (int i = 0; i < filed.n; i++)
        if (strcmp(filed.name[i], sha256) == 0) {
            *size = filed.size[i];
            return true;
        }
    return false;
}

static bool was_filed(const char *sha256)
{
    int64_t size;

    return have_it(NULL, sha256, &size);
}

static mb_status file_it(void *arg, const char *path, const char sha256[MB_DIGEST_HEX],
                         int64_t size)
{
    uint8_t digest[MB_DIGEST_BYTES];
    char hex[MB_DIGEST_HEX];
    struct stat s;

    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_size, size);
    assert_int_equal(mb_digest_file(path, digest), MB_OK);
    mb_digest_hex(digest, hex);
    assert_string_equal(hex, sha256);
    assert_true(filed.n < 64);
    filed.size[filed.n] = size;
    memcpy(filed.name[filed.n++], hex, sizeof hex);
    return MB_OK;
}

static mb_xet *open_at(const char *name)
{
    char dir[256];
    mb_xet *x;

    snprintf(dir, sizeof dir, "%s/%s", root, name);
    assert_int_equal(
        mb_xet_open(&(mb_xet_options){.dir = dir, .file = file_it, .have = have_it}, &x), MB_OK);
    return x;
}

/* Sends a xorb in pieces of `step` bytes. */
static mb_status send_xorb(mb_xet *x, const char *name, const struct bytes *b, size_t step,
                           bool *inserted)
{
    mb_xet_coming *c;
    mb_status st = MB_OK;

    MB_TRY(mb_xet_coming_new(x, name, &c));
    for (size_t at = 0; at < b->n && st == MB_OK; at += step)
        st = mb_xet_coming_add(c, b->p + at, step < b->n - at ? step : b->n - at);
    if (st == MB_OK)
        st = mb_xet_coming_end(c, inserted);
    mb_xet_coming_free(c);
    return st;
}

static int scratch_files(const char *store)
{
    char dir[256], **names;
    size_t n;

    snprintf(dir, sizeof dir, "%s/%s/tmp", root, store);
    assert_int_equal(mb_path_list(dir, &names, &n), MB_OK);
    mb_path_list_free(names, n);
    return (int)n;
}

/* --- hashes */

static void blake3_gives_the_published_digests(void **state)
{
    static const uint8_t key[] = "whats the Elvish word for friend";
    static const struct {
        size_t n;
        const char *plain, *keyed;
    } rows[] = {
        /* of bytes 0, 1, ... 250, 0, 1, ... */
        {0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
         "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"},
        {64, "4eed7141ea4a5cd4b788606bd23f46e212af9cacebacdc7d1f4c6dc7f2511b98",
         "ba8ced36f327700d213f120b1a207a3b8c04330528586f414d09f2f7d9ccb7e6"},
        {65, "de1e5fa0be70df6d2be8fffd0e99ceaa8eb6e8c93a63f2d8d1c30ecb6b263dee",
         "c0a4edefa2d2accb9277c371ac12fcdbb52988a86edc54f0716e1591b4326e72"},
        {1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
         "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4"},
        {1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
         "357dc55de0c7e382c900fd6e320acc04146be01db6a8ce7210b7189bd664ea69"},
        {3073, "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3",
         "68dede9bef00ba89e43f31a6825f4cf433389fedae75c04ee9f0cf16a427c95a"},
        {102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
         "1c35d1a5811083fd7119f5d5d1ba027b4d01c0c6c49fb6ff2cf75393ea5db4a7"},
    };
    static uint8_t in[102400];
    uint8_t out[MB_BLAKE3_BYTES];
    char hex[MB_DIGEST_HEX];

    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i % 251);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mb_blake3(NULL, in, rows[i].n, out);
        mb_digest_hex(out, hex);
        assert_string_equal(hex, rows[i].plain);
        mb_blake3(key, in, rows[i].n, out);
        mb_digest_hex(out, hex);
        assert_string_equal(hex, rows[i].keyed);
    }
}

/* Values of the reference implementation's own test. */
static void trees_of_chunks_have_the_reference_hashes(void **state)
{
    static const char *const leaf[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "cfc5d07f6f03c29bbf424132963fe08d19a37d5757aaf520bf08119f05cd56d6",
        "c3e67584b5c4fc2a89837ec39e40f2c8a6bb0b2987ac94cd4b31e5fbdd210a72",
        "0d2beb91b9196929a5ddec9f6e306924ddf4a24268e3e59fd8464738d525af37",
        "adf8773496a9b7319b2e50dc98093f344053b17d8ad37100b9c07d9805988784",
        "4ac202caf347fc1e9c874b1ef6a1c5e619141eb775a6f43f0f0124ccd0060d9e",
        "b3b28636f65c149ea52eb1f94669466f70f033b54cea792824c696ba6ef3c389",
        "0e2c1a002aae913d2c0fc8ddfa4e9e14b7b311b3b0d458726d5d9f6a6318013c",
    };
    static const struct {
        const char *leaves, *hash;
    } rows[] = {
        {"1", "cfc5d07f6f03c29bbf424132963fe08d19a37d5757aaf520bf08119f05cd56d6"},
        {"123", "71ec1275fca074724e2dd666921b3277c7cee603e4d025bcab2d4050015be2bc"},
        {"1111", "89f2ada89ff8c96763c6b25010e6dd76a4c05b1466207633ea559acf2093211b"},
        {"0011223344556677", "636c65db520ec16e8166f9ec7a0cf9f74b26369077ac60160ec0221c86bc9f77"},
    };
    mb_xet_node nodes[16];
    uint8_t hash[MB_XET_HASH];
    char hex[MB_XET_HEX];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const size_t n = strlen(rows[i].leaves);
        for (size_t k = 0; k < n; k++) {
            const int which = rows[i].leaves[k] - '0';
            assert_true(mb_xet_unhex(leaf[which], nodes[k].hash));
            nodes[k].bytes = 100 * (uint64_t)which;
        }
        mb_xet_hash_tree(nodes, n, hash);
        mb_xet_hex(hash, hex);
        assert_string_equal(hex, rows[i].hash);
    }
}

static void only_64_small_hex_digits_are_a_hash(void **state)
{
    static const char *const wrong[] = {
        "",
        "ab",
        "..",
        FIRST "0",
        "../../" FIRST,
        "246805ED876f5c159e5aa36d7429d640d6ea5acbc8da1b8dbaf8e9a506cc55a5",
        "g46805ed876f5c159e5aa36d7429d640d6ea5acbc8da1b8dbaf8e9a506cc55a5"};
    uint8_t hash[MB_XET_HASH];
    char hex[MB_XET_HEX];

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(mb_xet_unhex(wrong[i], hash));
    assert_true(mb_xet_unhex(FIRST, hash));
    mb_xet_hex(hash, hex);
    assert_string_equal(hex, FIRST);
}

/* --- what the real client sent */

static void two_pushes_become_their_files(void **state)
{
    mb_xet *x = open_at("real");
    bool inserted;

    filed.n = 0;
    assert_int_equal(send_xorb(x, FIRST, &first_xorb, 1000, &inserted), MB_OK);
    assert_true(inserted);
    assert_int_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
    assert_int_equal(filed.n, 3);
    assert_true(was_filed(FLOATS) && was_filed(NOISE) && was_filed(TEXT));

    /* The second shard refers to the first xorb, after a restart too. */
    char id[33];
    memcpy(id, x->id, sizeof id);
    mb_xet_free(x);
    x = open_at("real");
    assert_string_equal(x->id, id);
    assert_int_equal(send_xorb(x, SECOND, &second_xorb, 7, &inserted), MB_OK);
    assert_true(inserted);
    assert_int_equal(mb_xet_files(x, second_shard.p, second_shard.n), MB_OK);
    assert_int_equal(filed.n, 5); /* what was there is not made again */
    assert_true(was_filed(EDITED) && was_filed(WHOLE));

    assert_int_equal(send_xorb(x, FIRST, &first_xorb, first_xorb.n, &inserted), MB_OK);
    assert_false(inserted);
    assert_int_equal(scratch_files("real"), 0);
    mb_xet_free(x);
}

static void an_older_clients_footer_is_left_out(void **state)
{
    struct bytes b = {malloc(first_xorb.n + 300), first_xorb.n + 300};
    mb_xet *x = open_at("footer");
    bool inserted;

    memset(b.p, 7, b.n);
    memcpy(b.p, first_xorb.p, first_xorb.n);
    memcpy(b.p + first_xorb.n, "XETBLOB\1", 8);
    filed.n = 0;
    assert_int_equal(send_xorb(x, FIRST, &b, 13, &inserted), MB_OK);
    assert_true(inserted);
    assert_int_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
    assert_int_equal(filed.n, 3);
    mb_xet_free(x);
    free(b.p);
}

/* --- what is wrong is refused */

static void a_xorb_has_the_name_of_its_chunks(void **state)
{
    const struct bytes cut = {first_xorb.p, first_xorb.n - 1}, none = {first_xorb.p, 0};
    mb_xet *x = open_at("names");
    bool inserted;

    expect(send_xorb(x, SECOND, &first_xorb, 4096, &inserted), MB_EARG, FIRST);
    expect(send_xorb(x, FIRST, &cut, 4096, &inserted), MB_EARG, "ends within a chunk");
    expect(send_xorb(x, FIRST, &none, 4096, &inserted), MB_EARG, "no chunks");
    expect(send_xorb(x, "../../../etc/passwd", &first_xorb, 4096, &inserted), MB_EARG,
           "not the name");
    assert_int_equal(scratch_files("names"), 0);
    mb_xet_free(x);
}

static void a_shard_needs_its_xorbs(void **state)
{
    mb_xet *x = open_at("missing");
    bool inserted;

    filed.n = 0;
    expect(mb_xet_files(x, second_shard.p, second_shard.n), MB_EARG, "no xorb");
    assert_int_equal(send_xorb(x, SECOND, &second_xorb, 4096, &inserted), MB_OK);
    expect(mb_xet_files(x, second_shard.p, second_shard.n), MB_EARG, "no xorb " FIRST);
    mb_xet_free(x);
}

static void headers_that_promise_too_much_are_refused(void **state)
{
    static const struct {
        uint8_t raw[MB_XET_HEADER];
        const char *part;
    } rows[] = {
        {{1, 1, 0, 0, 0, 1, 0, 0}, "version 1"},
        {{0, 1, 0, 0, 3, 1, 0, 0}, "in way 3"},
        {{0, 1, 0, 0, 1, 0, 0, 0}, "a chunk of 0 bytes"},
        {{0, 1, 0, 0, 1, 1, 0, 2}, "a chunk of 131073 bytes"},
        {{0, 255, 255, 255, 1, 1, 0, 0}, "16777215 packed bytes"},
        {{0, 2, 0, 0, 0, 1, 0, 0}, "says that it has 1"},
    };
    mb_xet_header h;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        expect(mb_xet_header_read(rows[i].raw, &h), MB_EARG, rows[i].part);
}

/* Any byte of a xorb: whoever changes it is found out, unless it changes nothing that is kept. */
static void a_flipped_byte_of_a_xorb_is_found(void **state)
{
    const size_t stride = is_long_run() ? 1 : 61;
    struct bytes b = {malloc(first_xorb.n), first_xorb.n};
    mb_xet *x = open_at("flips");
    char path[MB_PATH_MAX];
    int refused = 0, tried = 0;

    for (size_t at = 0; at < b.n; at += at < 64 ? 1 : stride) {
        bool inserted = false;
        memcpy(b.p, first_xorb.p, b.n);
        b.p[at] ^= (uint8_t)(1u << at % 8);
        const mb_status st = send_xorb(x, FIRST, &b, 5000, &inserted);
        tried++;
        if (st != MB_OK) {
            assert_int_equal(st, MB_EARG);
            mb_status_clear();
            refused++;
        } else {
            filed.n = 0;
            assert_int_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
            assert_int_equal(filed.n, 3);
            assert_int_equal(mb_xet_xorb_path(x, FIRST, false, path, sizeof path), MB_OK);
            assert_int_equal(unlink(path), 0);
        }
    }
    mb_xet_free(x);
    assert_true(refused >= tried - 8);
    free(b.p);
}

/* Any byte of a shard, any length: refused, or files that are what they are called. */
static void a_broken_shard_makes_no_wrong_file(void **state)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xff};
    uint8_t *copy = malloc(second_shard.n);
    mb_xet *x = open_at("real"); /* has both xorbs */
    int refused = 0;

    filed.n = 0;
    assert_int_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
    assert_int_equal(mb_xet_files(x, second_shard.p, second_shard.n), MB_OK);
    for (size_t at = 0; at < second_shard.n; at++)
        for (size_t m = 0; m < sizeof masks; m++) {
            memcpy(copy, second_shard.p, second_shard.n);
            copy[at] ^= masks[m];
            const mb_status st = mb_xet_files(x, copy, second_shard.n);
            assert_true(st == MB_OK || st == MB_EARG);
            assert_int_equal(filed.n, 5); /* another name would have been filed */
            refused += st != MB_OK;
            mb_status_clear();
        }
    assert_true(refused > 1000);
    for (size_t n = 0; n < second_shard.n; n++) {
        uint8_t *exact = malloc(n + 1); /* so that a sanitizer sees its end */
        memcpy(exact, second_shard.p, n);
        const mb_status st = mb_xet_files(x, exact, n);
        assert_true(st == MB_EARG || n >= second_shard.n - 240); /* what is about xorbs may lack */
        mb_status_clear();
        free(exact);
    }
    assert_int_equal(scratch_files("real"), 0);
    mb_xet_free(x);
    free(copy);
}

/* A damaged disk: a stored xorb with any byte changed gives an error, never a wrong file. */
static void a_damaged_store_makes_no_wrong_file(void **state)
{
    char path[MB_PATH_MAX];
    mb_xet *x = open_at("real");
    uint8_t *whole;
    size_t n;

    assert_int_equal(mb_xet_xorb_path(x, FIRST, false, path, sizeof path), MB_OK);
    assert_int_equal(mb_file_read(path, 1 << 20, (char **)&whole, &n), MB_OK);
    for (size_t at = 0; at < n; at += at + 100 < n ? 1999 : 3) {
        whole[at] ^= 0x10;
        assert_int_equal(mb_file_write_atomic(path, whole, n), MB_OK);
        filed.n = 0;
        const mb_status st = mb_xet_files(x, first_shard.p, first_shard.n);
        if (st == MB_OK)
            assert_int_equal(filed.n, 3);
        mb_status_clear();
        whole[at] ^= 0x10;
    }
    for (size_t cut = 0; cut < n; cut += n / 20) {
        assert_int_equal(mb_file_write_atomic(path, whole, cut), MB_OK);
        assert_int_not_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
        mb_status_clear();
    }
    assert_int_equal(mb_file_write_atomic(path, whole, n), MB_OK);
    mb_free(whole);
    mb_xet_free(x);
}

/* --- bytes are kept once */

static char objects[256];

static mb_status object_path(void *arg, const char sha256[MB_DIGEST_HEX], char *path, size_t size)
{
    return mb_path_join(path, size, objects, sha256);
}

static mb_status keep_it(void *arg, const char *path, const char sha256[MB_DIGEST_HEX],
                         int64_t size)
{
    char to[MB_PATH_MAX];

    assert_int_equal(file_it(arg, path, sha256, size), MB_OK);
    assert_int_equal(object_path(arg, sha256, to, sizeof to), MB_OK);
    assert_int_equal(rename(path, to), 0);
    return MB_OK;
}

static bool is_kept(void *arg, const char sha256[MB_DIGEST_HEX], int64_t *size)
{
    char path[MB_PATH_MAX];
    struct stat s;

    assert_int_equal(object_path(arg, sha256, path, sizeof path), MB_OK);
    if (stat(path, &s) != 0)
        return false;
    *size = s.st_size;
    return true;
}

/* An object with one bit changed in place. */
static void flip_bit(const char *sha256, int64_t at)
{
    char path[MB_PATH_MAX];
    uint8_t one;

    assert_int_equal(object_path(NULL, sha256, path, sizeof path), MB_OK);
    const int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &one, 1, at), 1);
    one ^= 1;
    assert_int_equal(pwrite(fd, &one, 1, at), 1);
    close(fd);
}

static mb_xet *open_with_objects(const char *name)
{
    char dir[256];
    mb_xet *x;

    snprintf(objects, sizeof objects, "%s/%s-objects", root, name);
    snprintf(dir, sizeof dir, "%s/%s", root, name);
    assert_int_equal(mb_path_mkdirs(objects), MB_OK);
    assert_int_equal(
        mb_xet_open(
            &(mb_xet_options){.dir = dir, .file = keep_it, .have = is_kept, .object = object_path},
            &x),
        MB_OK);
    return x;
}

static int64_t size_of_xorb(mb_xet *x, const char *name)
{
    char path[MB_PATH_MAX];
    struct stat s;

    assert_int_equal(mb_xet_xorb_path(x, name, false, path, sizeof path), MB_OK);
    assert_int_equal(stat(path, &s), 0);
    return s.st_size;
}

static void push_first(mb_xet *x)
{
    bool inserted;

    filed.n = 0;
    assert_int_equal(send_xorb(x, FIRST, &first_xorb, 4096, &inserted), MB_OK);
    assert_int_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
    assert_int_equal(filed.n, 3);
}

/* A shard of one file that nobody has sent: the second chunk of the first xorb, then its first. */
static void mixed_shard(mb_xet *x, struct bytes *out)
{
    static uint8_t shard[8 * 48], content[2 * MB_XET_CHUNK_MAX];
    uint8_t digest[MB_DIGEST_BYTES], hash[MB_XET_HASH], *p = shard + 48;
    char hex[MB_DIGEST_HEX];
    mb_xet_object o = {.fd = -1};
    size_t n = 0;
    mb_xet_xorb b;

    assert_true(mb_xet_unhex(FIRST, hash));
    assert_int_equal(mb_xet_xorb_open(x, hash, &b), MB_OK);
    assert_non_null(b.spot);
    memset(shard, 0, sizeof shard);
    memcpy(shard, first_shard.p, 48);
    mb_xet_put32(p + 32, 0xc0000000u);
    mb_xet_put32(p + 36, 2);
    p += 48;
    for (uint32_t i = 2; i-- > 0; p += 48) {
        memcpy(p, hash, MB_XET_HASH);
        mb_xet_put32(p + 36, b.place[i].bytes);
        mb_xet_put32(p + 40, i);
        mb_xet_put32(p + 44, i + 1);
        mb_xet_hash_range(b.hashes + (size_t)i * MB_XET_HASH, 1, p + 96);
        assert_int_equal(mb_xet_object_open(x, &o, b.object[b.spot[i].object]), MB_OK);
        assert_int_equal(mb_xet_object_chunk(&o, (int64_t)b.spot[i].at, b.place[i].bytes,
                                             b.hashes + (size_t)i * MB_XET_HASH, content + n),
                         MB_OK);
        n += b.place[i].bytes;
    }
    assert_int_equal(mb_digest_memory(content, n, digest), MB_OK);
    mb_digest_hex(digest, hex);
    assert_true(mb_xet_unhex(hex, p + 96));
    memset(p + 144, 0xff, 32);
    mb_xet_object_close(&o);
    mb_xet_xorb_close(&b);
    *out = (struct bytes){shard, sizeof shard};
}

static void bytes_that_lie_in_objects_are_kept_once(void **state)
{
    mb_xet *x = open_with_objects("once");
    struct bytes mixed;
    bool inserted;

    push_first(x);
    assert_true(size_of_xorb(x, FIRST) < (int64_t)first_xorb.n / 20);
    mb_xet_free(x);
    x = open_with_objects("once"); /* what is left is enough for what refers to it */
    assert_int_equal(send_xorb(x, FIRST, &first_xorb, 4096, &inserted), MB_OK);
    assert_false(inserted);
    assert_int_equal(send_xorb(x, SECOND, &second_xorb, 4096, &inserted), MB_OK);
    assert_int_equal(mb_xet_files(x, second_shard.p, second_shard.n), MB_OK);
    assert_int_equal(filed.n, 5);
    assert_true(was_filed(EDITED) && was_filed(WHOLE));
    assert_true(size_of_xorb(x, SECOND) < (int64_t)second_xorb.n / 2);
    mixed_shard(x, &mixed);
    assert_int_equal(mb_xet_files(x, mixed.p, mixed.n), MB_OK);
    assert_int_equal(filed.n, 6);
    assert_int_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
    assert_int_equal(filed.n, 6);
    assert_int_equal(scratch_files("once"), 0);
    mb_xet_free(x);
}

/* The second push alone: its files hold no more than a part of the first xorb. */
static void a_xorb_of_which_something_lies_nowhere_else_stays(void **state)
{
    mb_xet *x = open_with_objects("parts");
    const int64_t whole = (int64_t)first_xorb.n;
    bool inserted;

    filed.n = 0;
    assert_int_equal(send_xorb(x, FIRST, &first_xorb, 4096, &inserted), MB_OK);
    assert_int_equal(send_xorb(x, SECOND, &second_xorb, 4096, &inserted), MB_OK);
    assert_int_equal(mb_xet_files(x, second_shard.p, second_shard.n), MB_OK);
    assert_true(size_of_xorb(x, SECOND) < (int64_t)second_xorb.n / 2);
    assert_true(size_of_xorb(x, FIRST) > whole);
    assert_int_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
    assert_true(size_of_xorb(x, FIRST) < whole / 20);
    mb_xet_free(x);
}

static void a_shard_that_comes_again_clears_up_after_a_hub_that_was_killed(void **state)
{
    char path[MB_PATH_MAX];
    mb_xet *x = open_with_objects("killed");
    bool inserted;

    push_first(x);
    assert_int_equal(mb_xet_xorb_path(x, FIRST, false, path, sizeof path), MB_OK);
    assert_int_equal(unlink(path), 0); /* as before the xorb gave way */
    assert_int_equal(send_xorb(x, FIRST, &first_xorb, 4096, &inserted), MB_OK);
    assert_true(inserted && size_of_xorb(x, FIRST) > (int64_t)first_xorb.n);
    assert_int_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
    assert_int_equal(filed.n, 3);
    assert_true(size_of_xorb(x, FIRST) < (int64_t)first_xorb.n / 20);

    /* An object that is not what the shard says it is does not take a xorb's place. */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(send_xorb(x, FIRST, &first_xorb, 4096, &inserted), MB_OK);
    flip_bit(NOISE, 0);
    assert_int_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
    assert_true(size_of_xorb(x, FIRST) > (int64_t)first_xorb.n);
    mb_xet_free(x);
}

/* After an object of the first push became unusable: it is made again of the xorb that comes again. */
static void push_first_again(mb_xet *x, int64_t noise_bytes)
{
    bool inserted;
    int64_t size = 0;

    expect(mb_xet_files(x, first_shard.p, first_shard.n), MB_EARG, "no xorb " FIRST);
    assert_int_equal(send_xorb(x, FIRST, &first_xorb, 4096, &inserted), MB_OK);
    assert_true(inserted);
    assert_int_equal(mb_xet_files(x, first_shard.p, first_shard.n), MB_OK);
    assert_int_equal(filed.n, 4);
    assert_true(is_kept(NULL, NOISE, &size));
    assert_int_equal(size, noise_bytes);
    assert_true(size_of_xorb(x, FIRST) < (int64_t)first_xorb.n / 20);
}

static void a_bare_xorb_without_its_object_is_sent_again(void **state)
{
    char path[MB_PATH_MAX];
    mb_xet *x = open_with_objects("gone");
    int64_t size = 0;

    push_first(x);
    assert_true(is_kept(NULL, NOISE, &size));
    assert_int_equal(object_path(NULL, NOISE, path, sizeof path), MB_OK);
    assert_int_equal(unlink(path), 0);
    push_first_again(x, size);
    mb_xet_free(x);
}

static void a_bare_xorb_over_an_object_cut_short_is_sent_again(void **state)
{
    char path[MB_PATH_MAX];
    mb_xet *x = open_with_objects("short");
    int64_t size = 0;

    push_first(x);
    assert_true(is_kept(NULL, NOISE, &size));
    assert_int_equal(object_path(NULL, NOISE, path, sizeof path), MB_OK);
    assert_int_equal(truncate(path, size - 1), 0);
    push_first_again(x, size);
    mb_xet_free(x);
}

/* Nothing tells before the chunk is read. Then its xorb is not here any more. */
static void a_bare_xorb_over_a_changed_object_is_sent_again(void **state)
{
    mb_xet *x = open_with_objects("changed");
    uint8_t hash[MB_XET_HASH];
    struct bytes mixed;
    bool inserted;
    mb_xet_xorb b;

    push_first(x);
    mixed_shard(x, &mixed);
    assert_true(mb_xet_unhex(FIRST, hash));
    assert_int_equal(mb_xet_xorb_open(x, hash, &b), MB_OK);
    flip_bit(b.object[b.spot[0].object], (int64_t)b.spot[0].at);
    mb_xet_xorb_close(&b);

    assert_int_equal(send_xorb(x, FIRST, &first_xorb, 4096, &inserted), MB_OK);
    assert_false(inserted);
    expect(mb_xet_files(x, mixed.p, mixed.n), MB_EIO, "has not the chunk at byte");
    expect(mb_xet_files(x, mixed.p, mixed.n), MB_EARG, "no xorb " FIRST);
    assert_int_equal(send_xorb(x, FIRST, &first_xorb, 4096, &inserted), MB_OK);
    assert_true(inserted);
    assert_int_equal(mb_xet_files(x, mixed.p, mixed.n), MB_OK);
    assert_int_equal(filed.n, 4);
    assert_int_equal(scratch_files("changed"), 0);
    mb_xet_free(x);
}

static void a_damaged_object_or_index_makes_no_wrong_file(void **state)
{
    char path[MB_PATH_MAX];
    mb_xet *x = open_with_objects("damaged");
    struct bytes mixed;
    uint8_t *whole;
    int refused = 0;
    size_t n;

    push_first(x);
    mixed_shard(x, &mixed);
    assert_int_equal(mb_xet_xorb_path(x, FIRST, false, path, sizeof path), MB_OK);
    assert_int_equal(mb_file_read(path, 1 << 20, (char **)&whole, &n), MB_OK);
    for (size_t at = 0; at < n; at++) {
        whole[at] ^= 0x10;
        assert_int_equal(mb_file_write_atomic(path, whole, n), MB_OK);
        filed.n = 0; /* keep_it looks at what it is given */
        refused += mb_xet_files(x, mixed.p, mixed.n) != MB_OK;
        mb_status_clear();
        whole[at] ^= 0x10;
        for (int i = 0; i < filed.n; i++) {
            char object[MB_PATH_MAX];
            assert_int_equal(object_path(NULL, filed.name[i], object, sizeof object), MB_OK);
            assert_int_equal(unlink(object), 0);
        }
    }
    assert_true(refused > (int)n / 2);
    for (size_t cut = 0; cut < n; cut += 7) {
        assert_int_equal(mb_file_write_atomic(path, whole, cut), MB_OK);
        assert_int_not_equal(mb_xet_files(x, mixed.p, mixed.n), MB_OK);
        mb_status_clear();
    }
    assert_int_equal(mb_file_write_atomic(path, whole, n), MB_OK);
    mb_free(whole);

    filed.n = 0;
    for (const char *const *name = (const char *const[]){FLOATS, NOISE, TEXT, NULL}; *name != NULL;
         name++) {
        assert_int_equal(object_path(NULL, *name, path, sizeof path), MB_OK);
        assert_int_equal(mb_file_read(path, 1 << 20, (char **)&whole, &n), MB_OK);
        for (size_t at = 0; at < n; at++)
            whole[at] ^= 1;
        assert_int_equal(mb_file_write_atomic(path, whole, n), MB_OK);
        mb_free(whole);
    }
    expect(mb_xet_files(x, mixed.p, mixed.n), MB_EIO, "has not the chunk");
    assert_int_equal(scratch_files("damaged"), 0);
    mb_xet_free(x);
}

/* --- tokens */

static void tokens_end_and_belong_to_their_folder(void **state)
{
    mb_xet *x = open_at("tokens"), *other = open_at("others");
    char token[MB_XET_TOKEN], changed[MB_XET_TOKEN];

    assert_string_not_equal(x->id, other->id);
    mb_xet_token_make(x, 1000, token);
    assert_true(mb_xet_token_good(x, token, 999));
    assert_false(mb_xet_token_good(x, token, 1000));
    assert_false(mb_xet_token_good(other, token, 999));
    for (size_t i = 0; i < strlen(token); i++) {
        strcpy(changed, token);
        changed[i] = changed[i] == '0' ? '1' : '0';
        assert_false(mb_xet_token_good(x, changed, 0));
        changed[i] = '\0';
        assert_false(mb_xet_token_good(x, changed, 0));
    }
    mb_xet_free(x);
    x = open_at("tokens"); /* a restart in the middle of a push */
    assert_true(mb_xet_token_good(x, token, 999));
    mb_xet_free(x);
    mb_xet_free(other);
}

static struct bytes data(const char *name)
{
    char path[512], *text;
    struct bytes b;

    snprintf(path, sizeof path, "%s/xet/%s", MB_TEST_DATA, name);
    assert_int_equal(mb_file_read(path, 1 << 20, &text, &b.n), MB_OK);
    b.p = (uint8_t *)text;
    return b;
}

static int setup(void **state)
{
    assert_int_equal(make_root(state), 0);
    first_xorb = data("first.xorb");
    second_xorb = data("second.xorb");
    first_shard = data("first.shard");
    second_shard = data("second.shard");
    return 0;
}

static int teardown(void **state)
{
    mb_free(first_xorb.p);
    mb_free(second_xorb.p);
    mb_free(first_shard.p);
    mb_free(second_shard.p);
    return remove_root(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blake3_gives_the_published_digests),
        cmocka_unit_test(trees_of_chunks_have_the_reference_hashes),
        cmocka_unit_test(only_64_small_hex_digits_are_a_hash),
        cmocka_unit_test(two_pushes_become_their_files),
        cmocka_unit_test(an_older_clients_footer_is_left_out),
        cmocka_unit_test(a_xorb_has_the_name_of_its_chunks),
        cmocka_unit_test(a_shard_needs_its_xorbs),
        cmocka_unit_test(headers_that_promise_too_much_are_refused),
        cmocka_unit_test(a_flipped_byte_of_a_xorb_is_found),
        cmocka_unit_test(a_broken_shard_makes_no_wrong_file),
        cmocka_unit_test(a_damaged_store_makes_no_wrong_file),
        cmocka_unit_test(bytes_that_lie_in_objects_are_kept_once),
        cmocka_unit_test(a_xorb_of_which_something_lies_nowhere_else_stays),
        cmocka_unit_test(a_shard_that_comes_again_clears_up_after_a_hub_that_was_killed),
        cmocka_unit_test(a_bare_xorb_without_its_object_is_sent_again),
        cmocka_unit_test(a_bare_xorb_over_an_object_cut_short_is_sent_again),
        cmocka_unit_test(a_bare_xorb_over_a_changed_object_is_sent_again),
        cmocka_unit_test(a_damaged_object_or_index_makes_no_wrong_file),
        cmocka_unit_test(tokens_end_and_belong_to_their_folder),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
