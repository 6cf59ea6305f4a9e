/* tests/unit/test_hub_path.c - names on a hub, and the places of the cache. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/path.h"
#include "recipes/config/hub_path.h"
#include "tests/unit/root_test.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

static void reads_names(void **state)
{
    static const struct {
        const char *text;
        bool dataset;
        const char *id, *revision, *file;
    } rows[] = {
        {"org/name", false, "org/name", "", ""},
        {"org/name@v1.0", false, "org/name", "v1.0", ""},
        {"org/name@refs/pr/3", false, "org/name", "refs/pr/3", ""},
        {"org/name@refs/pr/3/a/b.txt", false, "org/name", "refs/pr/3", "a/b.txt"},
        {"dataset:org/name@main/data/x.jsonl", true, "org/name", "main", "data/x.jsonl"},
        {"dataset:org/name/x y.jsonl", true, "org/name", "", "x y.jsonl"},
        {"gpt2", false, "gpt2", "", ""},
        {"gpt2@" COMMIT, false, "gpt2", COMMIT, ""},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mb_hub_name n;

        assert_int_equal(mb_hub_name_read(rows[i].text, true, &n), MB_OK);
        assert_int_equal(n.is_dataset, rows[i].dataset);
        assert_string_equal(n.id, rows[i].id);
        assert_string_equal(n.revision, rows[i].revision);
        assert_string_equal(n.file, rows[i].file);
    }
}

static void refuses_what_is_no_name(void **state)
{
    static const char *const texts[] = {
        "",
        "/",
        "org/",
        "/name",
        "../name",
        "org/..",
        "org/a--b",
        "org/a..b",
        "org/.name",
        "org/-name",
        "org/name.",
        "o rg/name",
        "org/n\xc3\xa9",
        "org/name@",
        "org/name@../x",
        "org/name@a..b",
        "org/name@-x",
        "org/name/",
        "org/name/../x",
        "org/name//x",
        "org/name/.git/x",
        "org/name@/x",
        "dataset:",
        "dataset:/x",
        "org/na\nme",
        "org/name@a b",
        "https://hub/org/name",
    };
    char longest[2000];
    mb_hub_name n;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (mb_hub_name_read(texts[i], true, &n) == MB_OK)
            fail_msg("'%s' passes for a name", texts[i]);
        assert_int_equal(mb_status_recorded(), MB_EARG);
        mb_status_clear();
    }
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_false(mb_hub_name_is(longest));
    longest[3] = '/';
    assert_false(mb_hub_name_is(longest));
    memcpy(longest, "org/name@", 9);
    assert_false(mb_hub_name_is(longest));
    memcpy(longest, "org/name/", 9);
    assert_false(mb_hub_name_is(longest));
    assert_int_equal(mb_hub_name_read("gpt2", false, &n), MB_EARG); /* a word is no name here */
    mb_status_clear();
}

static void finds_what_the_cache_has(void **state)
{
    char path[MB_PATH_MAX], text[2048];
    mb_hub_name n;

    setenv("HF_HUB_CACHE", root, 1);
    put_in_root("models--org--name/refs/main", COMMIT);
    put_in_root("models--org--name/refs/refs/pr/1", COMMIT "\n");
    put_in_root("models--org--name/refs/broken", "../../../../etc");
    put_in_root("models--org--name/snapshots/" COMMIT "/sub/file.txt", "x");
    put_in_root("datasets--org--rows/snapshots/" COMMIT "/rows.jsonl", "x");

    assert_int_equal(mb_hub_follow("org/name", path, sizeof path), MB_OK);
    assert_string_equal(path, in_root("models--org--name/snapshots/" COMMIT));
    assert_true(mb_hub_name_of_path(path, &n));
    assert_string_equal(n.id, "org/name");
    assert_string_equal(n.revision, COMMIT);
    assert_false(n.is_dataset);
    assert_string_equal(mb_hub_show(path, text, sizeof text), "org/name@" COMMIT);
    assert_int_equal(mb_hub_follow(text, path, sizeof path), MB_OK); /* and back */
    assert_string_equal(path, in_root("models--org--name/snapshots/" COMMIT));
    assert_int_equal(mb_hub_follow("org/name@refs/pr/1/sub/file.txt", path, sizeof path), MB_OK);
    assert_string_equal(path, in_root("models--org--name/snapshots/" COMMIT "/sub/file.txt"));
    assert_int_equal(mb_hub_follow("dataset:org/rows@" COMMIT "/rows.jsonl", path, sizeof path),
                     MB_OK);
    assert_string_equal(mb_hub_show(path, text, sizeof text),
                        "dataset:org/rows@" COMMIT "/rows.jsonl");

    static const char *const absent[] = {"org/name@broken",
                                         "org/name@other",
                                         "org/name/none.txt",
                                         "org/other",
                                         "dataset:org/name",
                                         "dataset:org/rows",
                                         "/tmp"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        assert_int_equal(mb_hub_follow(absent[i], path, sizeof path), MB_OK);
        assert_string_equal(path, "");
    }
    /* other machines' caches are paths like any other */
    assert_ptr_equal(
        mb_hub_show("/x/models--org--name/snapshots/" COMMIT, text, sizeof text) == text, false);
}

static void knows_the_places(void **state)
{
    char path[MB_PATH_MAX];

    unsetenv("HF_HUB_CACHE");
    unsetenv("HUGGINGFACE_HUB_CACHE");
    unsetenv("HF_HOME");
    setenv("XDG_CACHE_HOME", "/xdg", 1);
    assert_int_equal(mb_hub_cache(path, sizeof path), MB_OK);
    assert_string_equal(path, "/xdg/huggingface/hub");
    setenv("HF_HOME", "/hf", 1);
    assert_int_equal(mb_hub_cache(path, sizeof path), MB_OK);
    assert_string_equal(path, "/hf/hub");
    unsetenv("HF_HOME");
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", "/home/x", 1);
    assert_int_equal(mb_hub_cache(path, sizeof path), MB_OK);
    assert_string_equal(path, "/home/x/.cache/huggingface/hub");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_names),
        cmocka_unit_test(refuses_what_is_no_name),
        cmocka_unit_test(finds_what_the_cache_has),
        cmocka_unit_test(knows_the_places),
    };

    return cmocka_run_group_tests_name("hub_path", tests, make_root, remove_root);
}
