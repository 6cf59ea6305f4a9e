/* tests/unit/test_path.c - paths, whole files, atomic writing, removing trees. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "core/path_below.h"
#include "tests/unit/root_test.h"

static void joins_within_bounds(void **state)
{
    static const struct {
        const char *a, *b, *joined;
    } rows[] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"},
        {"", "b", "b"},    {"a", "/b", "/b"},  {"a/b", "c/d", "a/b/c/d"},
    };
    char out[8];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(mb_path_join(out, sizeof out, rows[i].a, rows[i].b), MB_OK);
        assert_string_equal(out, rows[i].joined);
    }
    assert_int_equal(mb_path_join(out, sizeof out, "123", "567"), MB_OK);
    expect(mb_path_join(out, sizeof out, "123", "5678"), MB_EARG, "longer than 7 bytes");
}

static void splits_into_folder_and_name(void **state)
{
    static const struct {
        const char *path, *dir, *base;
    } rows[] = {
        {"a/b", "a", "b"},
        {"b", ".", "b"},
        {"/b", "/", "b"},
        {"/a/b/c", "/a/b", "c"},
    };
    char out[16];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(mb_path_dir(out, sizeof out, rows[i].path), MB_OK);
        assert_string_equal(out, rows[i].dir);
        assert_string_equal(mb_path_base(rows[i].path), rows[i].base);
    }
    assert_true(mb_path_has_suffix("x.gguf", ".gguf"));
    assert_false(mb_path_has_suffix("gguf", ".gguf"));
}

static void names_from_files_must_be_one_component(void **state)
{
    static const char *const bad[] = {"",     ".",    "..",   "a/b",  "/etc/passwd",
                                      "../x", "a\\b", "a\nb", "\x7f", "x/"};
    static const char *const good[] = {"a", "model-00001-of-00002.safetensors", "...", ".a",
                                       "\xc3\xa9"};
    char name[257];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(mb_path_is_component(bad[i]));
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(mb_path_is_component(good[i]));
    memset(name, 'a', 256);
    name[256] = '\0';
    assert_false(mb_path_is_component(name));
    name[255] = '\0';
    assert_true(mb_path_is_component(name));
}

static void makes_lists_and_removes_trees(void **state)
{
    char **names;
    size_t n;

    assert_int_equal(mb_path_mkdirs(in_root("t/a/b/c")), MB_OK);
    assert_int_equal(mb_path_mkdirs(in_root("t/a/b/c/")), MB_OK);
    assert_int_equal(mb_path_mkdirs(in_root("t/z")), MB_OK);
    assert_int_equal(mb_file_write_atomic(in_root("t/file"), "x", 1), MB_OK);
    assert_int_equal(mb_file_write_atomic(in_root("t/B"), "x", 1), MB_OK);
    assert_int_equal(mb_file_write_atomic(in_root("kept"), "x", 1), MB_OK);
    assert_int_equal(mb_path_mkdirs(in_root("kept_dir")), MB_OK);
    assert_int_equal(mb_file_write_atomic(in_root("kept_dir/f"), "x", 1), MB_OK);
    assert_int_equal(symlink("../kept", in_root("t/link")), 0);
    assert_int_equal(symlink("../../kept_dir", in_root("t/a/dirlink")), 0);
    assert_int_equal(symlink("nowhere", in_root("t/dangling")), 0);

    assert_true(mb_path_is_dir(in_root("t/a")));
    assert_true(mb_path_is_file(in_root("t/file")));
    assert_false(mb_path_is_file(in_root("t/a")));
    assert_true(mb_path_exists(in_root("t/link")));
    assert_false(mb_path_exists(in_root("t/dangling")));
    assert_int_equal(mb_path_list(in_root("t"), &names, &n), MB_OK);
    assert_int_equal(n, 6);
    assert_string_equal(names[0], "B");
    assert_string_equal(names[1], "a");
    assert_string_equal(names[5], "z");
    mb_path_list_free(names, n);

    expect(mb_path_mkdirs(in_root("t/file")), MB_EIO, "cannot be made");
    expect(mb_path_mkdirs(in_root("t/file/x")), MB_EIO, "cannot be made");
    expect(mb_path_list(in_root("none"), &names, &n), MB_EIO, "cannot be read");
    assert_int_equal(mb_path_remove_tree(in_root("t")), MB_OK);
    assert_false(mb_path_exists(in_root("t")));
    assert_true(mb_path_exists(in_root("kept")));
    assert_true(mb_path_exists(in_root("kept_dir/f")));
    assert_int_equal(mb_path_remove_tree(in_root("t")), MB_OK); /* already gone */
    assert_int_equal(symlink("kept_dir", in_root("top")), 0);
    assert_int_equal(mb_path_remove_tree(in_root("top")), MB_OK);
    assert_true(mb_path_exists(in_root("kept_dir/f")));
}

/* A model that is written twice within a second is another. */
static void when_it_changed_is_known_within_a_second(void **state)
{
    const struct timespec at[][2] = {{{7, 1}, {1000, 1}}, {{7, 1}, {1000, 2}}};

    (void)state;
    OK(mb_file_write_atomic(in_root("changed"), "x", 1));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(utimensat(AT_FDCWD, in_root("changed"), at[i], 0), 0);
        assert_true(mb_path_changed(in_root("changed")) == 1000000000001 + i);
    }
    assert_true(mb_path_changed(root) > 1000000000001);
    assert_true(mb_path_changed(in_root("no such file")) == 0);
}

static void what_is_below_a_folder_is_told_by_where_links_and_dots_lead(void **state)
{
    static const char sentence[] = "below the folders that may be read";
    char real[MB_PATH_MAX], folder[MB_PATH_MAX], link[MB_PATH_MAX];

    assert_int_equal(mb_path_mkdirs(in_root("in/side")), MB_OK);
    assert_int_equal(mb_path_mkdirs(in_root("inside")), MB_OK);
    assert_int_equal(mb_file_write_atomic(in_root("in/side/f"), "x", 1), MB_OK);
    assert_int_equal(mb_file_write_atomic(in_root("inside/f"), "x", 1), MB_OK);
    assert_int_equal(symlink("../inside/f", in_root("in/out")), 0);
    assert_int_equal(symlink("in", in_root("way")), 0);
    snprintf(folder, sizeof folder, "%s", in_root("in"));
    snprintf(link, sizeof link, "%s", in_root("way"));
    const char *const folders[] = {folder, NULL}, *const by_link[] = {"/none", link, NULL},
                      *const all[] = {"/", NULL}, *const none[] = {NULL};

    assert_int_equal(mb_path_real_below(in_root("in/side/f"), folders, real, sizeof real), MB_OK);
    assert_int_equal(mb_path_real_below(in_root("in/../in/side/f"), folders, real, sizeof real),
                     MB_OK);
    assert_string_equal(mb_path_base(real), "f");
    assert_null(strstr(real, ".."));
    assert_int_equal(mb_path_real_below(in_root("in"), folders, real, sizeof real), MB_OK);
    assert_int_equal(mb_path_real_below(in_root("way/side/f"), folders, real, sizeof real), MB_OK);
    assert_int_equal(mb_path_real_below(in_root("in/side/f"), by_link, real, sizeof real), MB_OK);
    assert_int_equal(mb_path_real_below(in_root("inside/f"), all, real, sizeof real), MB_OK);
    expect(mb_path_real_below(in_root("inside/f"), folders, real, sizeof real), MB_EARG, sentence);
    expect(mb_path_real_below(in_root("in/out"), folders, real, sizeof real), MB_EARG, sentence);
    expect(mb_path_real_below(in_root("in/../inside/f"), folders, real, sizeof real), MB_EARG,
           sentence);
    expect(mb_path_real_below(in_root("in/none"), folders, real, sizeof real), MB_EARG, sentence);
    expect(mb_path_real_below(in_root("in/side/f"), none, real, sizeof real), MB_EARG, sentence);
    expect(mb_path_real_below("", folders, real, sizeof real), MB_EARG, "file without a name");
}

static void reads_regular_files_only_and_within_a_limit(void **state)
{
    char *text;
    size_t n;

    assert_int_equal(mb_file_write_atomic(in_root("r"), "hello\0x", 7), MB_OK);
    assert_int_equal(mb_file_read(in_root("r"), 7, &text, &n), MB_OK);
    assert_int_equal(n, 7);
    assert_memory_equal(text, "hello\0x", 8); /* with the zero after it */
    mb_free(text);
    assert_int_equal(mb_file_write_atomic(in_root("empty"), "", 0), MB_OK);
    assert_int_equal(mb_file_read(in_root("empty"), 0, &text, &n), MB_OK);
    assert_int_equal(n, 0);
    mb_free(text);
    expect(mb_file_read(in_root("r"), 6, &text, &n), MB_EIO, "has 7 bytes, at most 6 are read");
    expect(mb_file_read_as(in_root("none"), MB_EARG, 6, &text, &n), MB_EARG, "cannot be opened");
    expect(mb_file_read(root, 6, &text, &n), MB_EIO, "is a folder");
    expect(mb_file_read("/dev/zero", 6, &text, &n), MB_EIO, "is a pipe or device");
    assert_int_equal(mkfifo(in_root("fifo"), 0600), 0);
    expect(mb_file_read(in_root("fifo"), 6, &text, &n), MB_EIO, "is a pipe or device");
}

static void reading_past_the_end_is_an_error(void **state)
{
    char b[8];
    int64_t size;
    int fd;

    assert_int_equal(mb_file_write_atomic(in_root("short"), "12345", 5), MB_OK);
    assert_int_equal(mb_file_open(in_root("short"), MB_EIO, &fd, &size), MB_OK);
    assert_int_equal(size, 5);
    assert_int_equal(mb_pread_all(fd, b, 3, 2, "short"), MB_OK);
    assert_memory_equal(b, "345", 3);
    expect(mb_pread_all(fd, b, 4, 2, "short"), MB_EIO, "'short' was cut short: 1 bytes");
    close(fd);
}

static void a_new_file_appears_only_when_published(void **state)
{
    mb_newfile f;
    char *text, temporary[MB_PATH_MAX];
    size_t n;

    assert_int_equal(mb_file_write_atomic(in_root("pub"), "old", 3), MB_OK);
    assert_int_equal(mb_newfile_open(in_root("pub"), &f), MB_OK);
    assert_int_equal(mb_pwrite_all(f.fd, "new!", 4, 0, "pub"), MB_OK);
    mb_newfile_abandon(&f);
    assert_int_equal(mb_file_read(in_root("pub"), 9, &text, &n), MB_OK);
    assert_string_equal(text, "old");
    mb_free(text);

    /* a leftover of a killed run, even a link, is in nobody's way and is not written through */
    assert_int_equal(mb_newfile_open(in_root("pub"), &f), MB_OK);
    snprintf(temporary, sizeof temporary, "%s", f.temporary);
    mb_newfile_abandon(&f);
    assert_false(mb_path_exists(temporary));
    assert_int_equal(symlink("pub", temporary), 0);
    assert_int_equal(mb_newfile_open(in_root("pub"), &f), MB_OK);
    assert_int_equal(mb_pwrite_all(f.fd, "new!", 4, 0, "pub"), MB_OK);
    assert_int_equal(mb_newfile_sync(&f), MB_OK);
    assert_int_equal(mb_file_read(in_root("pub"), 9, &text, &n), MB_OK);
    assert_string_equal(text, "old");
    mb_free(text);
    assert_int_equal(mb_newfile_publish(&f), MB_OK);
    mb_newfile_abandon(&f);
    assert_int_equal(mb_file_read(in_root("pub"), 9, &text, &n), MB_OK);
    assert_string_equal(text, "new!");
    mb_free(text);
    expect(mb_newfile_open(in_root("no/such/folder"), &f), MB_EIO, "cannot be made");
    expect(mb_file_write_atomic("/dev/full/x", "1", 1), MB_EIO, "cannot be made");
}

static void expect_file(const char *path, const char *want)
{
    char *text;
    size_t n;

    assert_int_equal(mb_file_read(path, 100, &text, &n), MB_OK);
    assert_string_equal(text, want);
    mb_free(text);
}

/* No writer takes away another's file, and none a file that is somebody's own. */
static void several_write_one_path(void **state)
{
    mb_newfile a, b;
    char left[MB_PATH_MAX], name[256];
    int status;

    assert_int_equal(mb_file_write_atomic(in_root("own.tmp"), "mine", 4), MB_OK);
    assert_int_equal(mb_newfile_open(in_root("own"), &a), MB_OK);
    assert_int_equal(mb_newfile_open(in_root("own"), &b), MB_OK);
    assert_string_not_equal(a.temporary, b.temporary);
    assert_true(mb_newfile_is_suffix(mb_path_base(a.temporary) + strlen("own")));
    assert_int_equal(mb_pwrite_all(a.fd, "a", 1, 0, "own"), MB_OK);
    assert_int_equal(mb_pwrite_all(b.fd, "b", 1, 0, "own"), MB_OK);
    assert_int_equal(mb_newfile_sync(&a), MB_OK); /* closed, and still its own */
    snprintf(left, sizeof left, "%s", a.temporary);
    assert_int_equal(mb_newfile_publish(&b), MB_OK);
    expect_file(in_root("own"), "b");
    assert_int_equal(mb_file_write_atomic(in_root("own"), "c", 1), MB_OK);
    assert_int_equal(mb_newfile_publish(&a), MB_OK);
    expect_file(in_root("own"), "a");
    expect_file(in_root("own.tmp"), "mine");

    /* what a killed run left is used again */
    const pid_t child = fork();
    if (child == 0) {
        if (mb_newfile_open(in_root("own"), &a) == MB_OK)
            _exit(0);
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(mb_path_exists(left));
    assert_int_equal(mb_file_write_atomic(in_root("own"), "d", 1), MB_OK);
    assert_false(mb_path_exists(left));
    expect_file(in_root("own"), "d");

    memset(name, 'n', 255);
    name[255] = '\0';
    assert_int_equal(mb_file_write_atomic(in_root(name), "long", 4), MB_OK);
    expect_file(in_root(name), "long");
    assert_false(mb_newfile_is_suffix(".tmp") || mb_newfile_is_suffix(".mbuyu-0-1.tmp") ||
                 mb_newfile_is_suffix(".mbuyu-00000000-.tmp"));
}

static void a_full_disk_is_an_error_with_a_place(void **state)
{
    const int fd = open("/dev/full", O_WRONLY);

    assert_true(fd >= 0);
    expect(mb_pwrite_all(fd, "x", 1, 12, "out.bin"), MB_EIO,
           "'out.bin' cannot be written at byte 12: No space left on device");
    close(fd);
}

static int root_is_gone(void **state)
{
    return remove_root(state) != 0 || mb_path_exists(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_within_bounds),
        cmocka_unit_test(splits_into_folder_and_name),
        cmocka_unit_test(names_from_files_must_be_one_component),
        cmocka_unit_test(makes_lists_and_removes_trees),
        cmocka_unit_test(when_it_changed_is_known_within_a_second),
        cmocka_unit_test(what_is_below_a_folder_is_told_by_where_links_and_dots_lead),
        cmocka_unit_test(reads_regular_files_only_and_within_a_limit),
        cmocka_unit_test(reading_past_the_end_is_an_error),
        cmocka_unit_test(a_new_file_appears_only_when_published),
        cmocka_unit_test(several_write_one_path),
        cmocka_unit_test(a_full_disk_is_an_error_with_a_place),
    };

    return cmocka_run_group_tests(tests, make_root, root_is_gone);
}
