/* tests/unit/test_bundle.c - the format of bundles, and archives that somebody made to do harm. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/bundle/bundle.h"
#include "recipes/bundle/seek.h"
#include "recipes/data/zstd.h"
#include "tests/unit/root_test.h"

/* ---- heads and tag files ------------------------------------------------------------------ */

static void heads_are_ustar_unless_they_cannot_be(void **state)
{
    char head[MB_TAR_MOST_HEAD], name[128];

    assert_int_equal(mb_tar_head("data/a.txt", 5, false, head), 512);
    assert_string_equal(head, "data/a.txt");
    assert_string_equal(head + 124, "00000000005");
    assert_string_equal(head + 100, "0000644");
    assert_memory_equal(head + 257,
                        "ustar\0"
                        "00",
                        8);
    assert_int_equal(mb_tar_size(head), 5);
    mb_tar_head("data/bin/mbuyu", 5, true, head);
    assert_string_equal(head + 100, "0000755");

    assert_int_equal(mb_tar_head("data/kit\xc3\xa1"
                                 "bu",
                                 1, false, head),
                     3 * 512);
    assert_int_equal(head[156], 'x');
    assert_string_equal(head + 512, "21 path=data/kit\xc3\xa1"
                                    "bu\n");
    assert_int_equal(mb_tar_head("data/big", (int64_t)1 << 33, false, head), 3 * 512);
    assert_string_equal(head + 512, "19 size=8589934592\n");
    memset(name, 'n', 101);
    name[101] = '\0';
    assert_int_equal(mb_tar_head(name, 1, false, head), 3 * 512);
    assert_memory_equal(head + 512, "111 path=nnn", 12); /* the length counts its own digits */
    assert_int_equal(head[512 + 110], '\n');
}

static void paths_that_no_bag_may_have(void **state)
{
    static const char *const bad[] = {
        "/data/x",   "data/../x", "data//x",    "data/",     "data/./x",  "x",         "data",
        "data/a\nb", "data/a\\b", "data/a%0Ab", "data/\xff", "../data/x", "data/x/..", "data/\x7f",
    };
    char deep[2 * 40 + 8] = "data";

    assert_null(mb_bag_path_fault("data/models/org/name/config.json"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (mb_bag_path_fault(bad[i]) == NULL)
            fail_msg("'%s' passes", bad[i]);
    for (int i = 0; i < 40; i++)
        strcat(deep, "/d");
    assert_non_null(mb_bag_path_fault(deep));
}

/* ---- forged archives ---------------------------------------------------------------------- */

struct forgery {
    const char *name;
    const char *path[3];      /* of files; "data/a" when none is given */
    int64_t size;             /* that the tag files say of the first; 0: the right one */
    const char *version;      /* line of bag-info.txt, in place of 1 */
    void (*head)(char *head); /* changes the head of the first file */
    void (*frame)(mb_seek_frame *frame, int64_t n); /* changes the seek table */
    bool wrong_digest, wrong_tags, swapped;
    const char *says;
};

static void recount(char *head)
{
    unsigned sum = 0;

    memset(head + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)head[i];
    snprintf(head + 148, 8, "%06o", sum);
}

static void link_head(char *head)
{
    head[156] = '2';
    strcpy(head + 157, "/etc/passwd");
    recount(head);
}

static void hard_link_head(char *head)
{
    head[156] = '1';
    strcpy(head + 157, "../../x");
    recount(head);
}

static void device_head(char *head)
{
    head[156] = '3';
    recount(head);
}

static void climbing_head(char *head)
{
    memset(head, 0, 100);
    strcpy(head, "data/../../x");
    recount(head);
}

static void setuid_head(char *head)
{
    strcpy(head + 100, "0004755");
    recount(head);
}

static void large_head(char *head)
{
    strcpy(head + 124, "77777777777");
    recount(head);
}

static void pax_head(char *head)
{
    head[156] = 'x';
    recount(head);
}

static void longer_frames(mb_seek_frame *frame, int64_t n)
{
    frame[MB_BAG_TAGS].content += 512;
}

static void huge_frame(mb_seek_frame *frame, int64_t n)
{
    frame[MB_BAG_TAGS].content = UINT32_MAX;
}

static void shifted_frames(mb_seek_frame *frame, int64_t n)
{
    frame[2].packed += 1;
    frame[3].packed -= 1;
}

static void short_table(mb_seek_frame *frame, int64_t n)
{
    frame[n - 1].packed += 10;
}

struct growing {
    char bytes[1 << 20];
    size_t n;
    mb_seek_frame frame[64];
    int64_t frames;
};

static void add_frame(struct growing *g, const char *tar, size_t n)
{
    size_t packed;

    assert_int_equal(mb_zstd_pack(tar, n, g->bytes + g->n, sizeof g->bytes - g->n, &packed), MB_OK);
    g->frame[g->frames++] = (mb_seek_frame){(int64_t)g->n, (uint32_t)packed, (uint32_t)n, 0};
    g->n += packed;
}

static void add_file(struct growing *g, const mb_bag_file *f, const struct forgery *y, bool first)
{
    static char tar[1 << 18];
    const size_t head = mb_tar_head(f->path, f->size, f->program, tar);
    const size_t n = (size_t)mb_tar_padded((int64_t)strlen(f->text));

    memset(tar + head, 0, n);
    memcpy(tar + head, f->text, strlen(f->text));
    if (first && y->head != NULL)
        y->head(tar);
    if (y->wrong_tags && f->path[0] == 'm') /* manifest-sha256.txt */
        tar[head] ^= 1;
    add_frame(g, tar, head + n);
}

static void write_parts(const struct growing *g, const char *name)
{
    char path[64], hex[MB_DIGEST_HEX], line[256];
    uint8_t digest[MB_DIGEST_BYTES];

    snprintf(path, sizeof path, "%s.mbuyu.tar.zst", name);
    assert_int_equal(mb_file_write_atomic(in_root(path), g->bytes, g->n), MB_OK);
    assert_int_equal(mb_digest_memory(g->bytes, g->n, digest), MB_OK);
    mb_digest_hex(digest, hex);
    snprintf(line, sizeof line, "%s  %s\n", hex, path);
    snprintf(path, sizeof path, "%s.sha256", name);
    assert_int_equal(mb_file_write_atomic(in_root(path), line, strlen(line)), MB_OK);
}

static void fill_bag(mb_bag *b, const struct forgery *y)
{
    mb_bag_file *f;

    for (int i = 0; i < 3 && (i == 0 || y->path[i] != NULL); i++) {
        assert_int_equal(mb_bag_add(b, y->path[i] != NULL ? y->path[i] : "data/a", &f), MB_OK);
        assert_int_equal(mb_strdup("hello\n", &f->text), MB_OK);
        f->size = 6;
        assert_int_equal(mb_digest_memory(f->text, 6, f->digest), MB_OK);
        f->digest[0] ^= y->wrong_digest;
    }
    if (y->size != 0)
        b->file[0].size = y->size;
}

static void forge(const struct forgery *y)
{
    static struct growing g;
    char zeros[MB_TAR_END] = {0};
    mb_bag b = {0};

    g.n = 0;
    g.frames = 0;
    fill_bag(&b, y);
    assert_int_equal(
        mb_bag_seal(&b, y->version != NULL ? y->version : "0", "Mbuyu-Content: none\n"), MB_OK);
    for (size_t i = 0; i < b.n; i++)
        add_file(&g, &b.file[i], y, i == MB_BAG_TAGS);
    add_frame(&g, zeros, sizeof zeros);
    if (y->frame != NULL)
        y->frame(g.frame, g.frames);
    mb_seek_write(g.frame, g.frames, g.bytes + g.n);
    g.n += (size_t)mb_seek_bytes(g.frames);
    mb_bag_release(&b);
    write_parts(&g, y->name);
}

static mb_status unbundle(const char *name, const char *to)
{
    char sums[64];

    snprintf(sums, sizeof sums, "%s.sha256", name);
    return mb_unbundle(
        &(mb_unbundle_options){.sums = in_root(sums), .to = in_root(to), .threads = 2});
}

/* What is in `root` but for the archives themselves. */
static size_t others_in_root(void)
{
    char **names;
    size_t n, others = 0;

    assert_int_equal(mb_path_list(root, &names, &n), MB_OK);
    for (size_t i = 0; i < n; i++)
        others += !mb_path_has_suffix(names[i], ".zst") && !mb_path_has_suffix(names[i], ".sha256");
    mb_path_list_free(names, n);
    return others;
}

static const struct forgery forgeries[] = {
    {.name = "up", .path = {"data/../../x"}, .says = "no file name"},
    {.name = "absolute", .path = {"/tmp/x"}, .says = "outside data/"},
    {.name = "outside", .path = {"bin/x"}, .says = "outside data/"},
    {.name = "tag", .path = {"tagmanifest-sha256.txt"}, .says = "outside data/"},
    {.name = "deep",
     .path = {"data/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d"},
     .says = "nested deeper"},
    {.name = "twice", .path = {"data/a", "data/a"}, .says = "twice or out of order"},
    {.name = "order", .path = {"data/b", "data/a"}, .says = "twice or out of order"},
    {.name = "below", .path = {"data/a", "data/a-b", "data/a/b"}, .says = "needs a folder"},
    {.name = "control", .path = {"data/a\x1b[2J"}, .says = "no file name"},
    {.name = "huge", .size = (int64_t)1 << 49, .says = "more than 16777216 frames"},
    {.name = "beyond", .size = (int64_t)1 << 60, .says = "no size of a file"},
    {.name = "bomb", .size = (int64_t)1 << 40, .says = "frames are not those"},
    {.name = "longer", .size = 600, .says = "frames are not those"},
    {.name = "shorter", .size = 5, .says = "followed by bytes that are no zeros"},
    {.name = "link", .head = link_head, .says = "not the one of this file"},
    {.name = "hardlink", .head = hard_link_head, .says = "not the one of this file"},
    {.name = "device", .head = device_head, .says = "not the one of this file"},
    {.name = "climbing", .head = climbing_head, .says = "not the one of this file"},
    {.name = "setuid", .head = setuid_head, .says = "not the one of this file"},
    {.name = "large", .head = large_head, .says = "not the one of this file"},
    {.name = "pax", .head = pax_head, .says = "not the one of this file"},
    {.name = "frames", .frame = longer_frames, .says = "frames are not those"},
    {.name = "frame", .frame = huge_frame, .says = "are not those"},
    {.name = "shifted", .frame = shifted_frames, .says = "frame 2"},
    {.name = "table", .frame = short_table, .says = "the seek table speaks of"},
    {.name = "digest", .wrong_digest = true, .says = "the bundle was made wrong"},
    {.name = "tags", .wrong_tags = true, .says = "manifest-sha256.txt"},
    {.name = "version", .version = "9\nMbuyu-Bundle-Format: 2", .says = "Mbuyu-Bundle-Format"},
};

static void what_is_forged_well_unpacks(void **state)
{
    forge(&(struct forgery){.name = "good", .path = {"data/a", "data/a-b", "data/b/c"}});
    assert_int_equal(unbundle("good", "good"), MB_OK);
    assert_true(mb_path_is_file(in_root("good/data/b/c")));
    assert_int_equal(mb_path_remove_tree(in_root("good")), MB_OK);
}

static void hostile_archives_leave_nothing(void **state)
{
    for (size_t i = 0; i < sizeof forgeries / sizeof *forgeries; i++) {
        const struct forgery *y = &forgeries[i];

        forge(y);
        const mb_status st = unbundle(y->name, "to");
        if (st != MB_EDATA && st != MB_ENOTSUP)
            fail_msg("%s: %s (%s)", y->name, mb_status_name(st), mb_status_sentence());
        if (strstr(mb_status_sentence(), y->says) == NULL)
            fail_msg("%s: '%s' does not say '%s'", y->name, mb_status_sentence(), y->says);
        mb_status_clear();
        if (others_in_root() != 0)
            fail_msg("%s: something was left in %s", y->name, root);
    }
}

/* A file of zeros is small when packed; the limit is asked for, not guessed from the disk. */
static void what_grows_too_much_is_refused(void **state)
{
    struct forgery y = {.name = "grows"};

    forge(&y);
    const mb_status st = mb_unbundle(&(mb_unbundle_options){
        .sums = in_root("grows.sha256"), .to = in_root("to"), .most = 5, .threads = 1});
    assert_int_equal(st, MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "give --max-size"));
    mb_status_clear();
    assert_int_equal(others_in_root(), 0);
}

static void sums_that_are_none_are_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "nothing\n",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  ../x.mbuyu.tar.zst\n",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  x.tar.zst\n",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  x.mbuyu.tar.zst.001\n",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  x.mbuyu.tar.zst.000\n"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  y.mbuyu.tar.zst.001\n",
    };

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(mb_file_write_atomic(in_root("s.sha256"), texts[i], strlen(texts[i])),
                         MB_OK);
        assert_int_equal(unbundle("s", "to"), MB_EDATA);
        mb_status_clear();
    }
    assert_int_equal(others_in_root(), 0);
}

/* Parts of an archive that is cut off anywhere are missed or refused, never unpacked. */
static void cut_archives_are_refused(void **state)
{
    static char whole[1 << 20];
    char *text;
    size_t n;

    forge(&(struct forgery){.name = "cut"});
    assert_int_equal(mb_file_read(in_root("cut.mbuyu.tar.zst"), sizeof whole, &text, &n), MB_OK);
    for (size_t at = 1; at < n; at += 13) {
        static struct growing g;
        memcpy(g.bytes, text, at);
        g.n = at;
        write_parts(&g, "cut"); /* with the digest that fits */
        if (unbundle("cut", "to") != MB_EDATA || others_in_root() != 0)
            fail_msg("cut at %zu of %zu: %s", at, n, mb_status_sentence());
        mb_status_clear();
    }
    mb_free(text);
}

static int make_quiet_root(void **state)
{
    mb_log_level_set(MB_LOG_ERROR);
    return make_root(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_ustar_unless_they_cannot_be),
        cmocka_unit_test(paths_that_no_bag_may_have),
        cmocka_unit_test(what_is_forged_well_unpacks),
        cmocka_unit_test(hostile_archives_leave_nothing),
        cmocka_unit_test(what_grows_too_much_is_refused),
        cmocka_unit_test(sums_that_are_none_are_refused),
        cmocka_unit_test(cut_archives_are_refused),
    };

    return cmocka_run_group_tests(tests, make_quiet_root, remove_root);
}
