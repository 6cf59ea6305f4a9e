/* tests/unit/test_yaml.c - the YAML reader: what it accepts, and hostile files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/alloc.h"
#include "recipes/config/yaml.h"

static mb_arena *arena;

static int set_up(void **state)
{
    return mb_arena_new("yaml test", 128 << 20, &arena) == MB_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    mb_arena_free(arena);
    mb_status_clear();
    return 0;
}

static mb_yaml *read_ok(const char *text)
{
    mb_yaml *y = NULL;
    const mb_status st = mb_yaml_parse(arena, "t.yaml", text, strlen(text), &y);

    if (st != MB_OK)
        print_error("%s\n", mb_status_sentence());
    assert_int_equal(st, MB_OK);
    return y;
}

/* The text is refused, with a sentence that has these parts. */
static void refuse(const char *text, size_t bytes, const char *place, const char *part)
{
    mb_yaml *y = NULL;

    mb_status_clear();
    assert_int_equal(mb_yaml_parse(arena, "t.yaml", text, bytes, &y), MB_EARG);
    if (strstr(mb_status_sentence(), place) != mb_status_sentence() ||
        strstr(mb_status_sentence(), part) == NULL)
        fail_msg("expected '%s...%s', got: %s", place, part, mb_status_sentence());
    mb_status_clear();
}

static void refuse_text(const char *text, const char *place, const char *part)
{
    refuse(text, strlen(text), place, part);
}

static void maps_lists_and_scalars_become_a_tree(void **state)
{
    const mb_yaml *y =
        read_ok("# c\na: 1\nb:\n  - x\n  - {k: 'v w', l: [1, 2]}\nc: |\n  two\n  lines\n");
    const mb_yaml *b = mb_yaml_child(y, "b"), *map = b->first->next;

    assert_int_equal(y->n, 3);
    assert_string_equal(mb_yaml_child(y, "a")->text, "1");
    assert_false(mb_yaml_child(y, "a")->quoted);
    assert_int_equal(b->kind, MB_YAML_LIST);
    assert_int_equal(b->n, 2);
    assert_string_equal(mb_yaml_child(map, "k")->text, "v w");
    assert_true(mb_yaml_child(map, "k")->quoted);
    assert_int_equal(mb_yaml_child(map, "l")->n, 2);
    assert_string_equal(mb_yaml_child(y, "c")->text, "two\nlines\n");
    assert_null(mb_yaml_child(y, "d"));
}

static void values_know_their_place(void **state)
{
    const mb_yaml *y = read_ok("a: 1\nlist:\n  - x\n  -   y\nm: {p: 2}\n");
    const mb_yaml *second = mb_yaml_child(y, "list")->first->next;
    const mb_yaml *p = mb_yaml_child(mb_yaml_child(y, "m"), "p");

    assert_int_equal(mb_yaml_child(y, "a")->line, 1);
    assert_int_equal(mb_yaml_child(y, "a")->column, 1);
    assert_int_equal(second->line, 4);
    assert_int_equal(second->column, 7);
    assert_int_equal(p->line, 5);
    assert_int_equal(p->column, 5);
}

static void nothing_is_an_empty_recipe(void **state)
{
    assert_null(read_ok(""));
    assert_null(read_ok("# only a comment\n"));
    assert_null(read_ok("---\n"));
    assert_null(read_ok("\xef\xbb\xbf"));
}

static void a_byte_order_mark_and_windows_line_ends_are_fine(void **state)
{
    const mb_yaml *y = read_ok("\xef\xbb\xbf"
                               "a: 1\r\nb: two words\r\nc:\r\n  - d\r\n");

    assert_string_equal(mb_yaml_child(y, "a")->text, "1");
    assert_string_equal(mb_yaml_child(y, "b")->text, "two words");
    assert_string_equal(mb_yaml_child(y, "c")->first->text, "d");
}

static void text_in_utf_16_is_refused(void **state)
{
    refuse("\xff\xfe"
           "a\0:\0 \0001\0",
           10, "t.yaml: ", "UTF-16");
}

static void bytes_that_are_no_text_are_refused(void **state)
{
    refuse_text("a: \xff\xfe\xfd\n", "t.yaml: ", "UTF-8");
    refuse_text("a: \x01\n", "t.yaml: ", "UTF-8");
    refuse("a: \0b\n", 6, "t.yaml: ", "UTF-8");
    refuse_text("a: \"x\\0y\"\n", "t.yaml:1:4: ", "NUL");
}

static void tabs_are_named(void **state)
{
    refuse_text("a:\n\tb: 1\n", "t.yaml:2:1: ", "tab");
    refuse_text("a:\n  - x\n\t- y\n", "t.yaml:3:1: ", "tab");
}

static void broken_yaml_has_a_place(void **state)
{
    refuse_text("a: [1, 2\nb: 3\n", "t.yaml:", "not YAML");
    refuse_text("a: 'no end\n", "t.yaml:", "not YAML");
    refuse_text("a: 1\n b: 2\n", "t.yaml:2:", "not YAML");
    refuse_text("a: b: c\n", "t.yaml:1:", "not YAML");
    refuse_text("a: }\n", "t.yaml:1:4: ", "not YAML");
    refuse_text("%YAML 9.9\n---\na: 1\n", "t.yaml:1:", "not YAML");
}

static void aliases_anchors_tags_and_merges_are_refused(void **state)
{
    refuse_text("a: &x 1\n", "t.yaml:1:4: ", "anchor '&x'");
    refuse_text("a: *x\n", "t.yaml:1:4: ", "alias '*x'");
    refuse_text("a: &x [*x]\n", "t.yaml:1:4: ", "anchor");
    refuse_text("a: &x {b: 1}\n", "t.yaml:1:4: ", "anchor");
    refuse_text("a: !!python/object/apply:os.system [x]\n", "t.yaml:1:4: ", "tag");
    refuse_text("a: !!str 5\n", "t.yaml:1:4: ", "tag");
    refuse_text("a: !local {b: 1}\n", "t.yaml:1:4: ", "tag '!local'");
    refuse_text("<<: {a: 1}\n", "t.yaml:1:1: ", "merge keys");
}

static void an_alias_bomb_ends_at_its_first_anchor(void **state)
{
    refuse_text("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n"
                "c: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n",
                "t.yaml:1:4: ", "anchor");
}

static void one_document_only(void **state)
{
    refuse_text("a: 1\n---\nb: 2\n", "t.yaml:2:1: ", "second document");
    read_ok("---\na: 1\n...\n");
}

static void keys_are_words_and_unique(void **state)
{
    refuse_text("a: 1\nb: 2\na: 3\n", "t.yaml:3:1: ", "'a' is given twice, first at line 1");
    refuse_text("x: {p: 1, p: 1}\n", "t.yaml:1:11: ", "'p' is given twice");
    refuse_text("? [a, b]\n: 1\n", "t.yaml:1:3: ", "must be a word");
    refuse_text("{a: 1}: 2\n", "t.yaml:1:1: ", "must be a word");
}

static void a_recipe_is_a_map(void **state)
{
    refuse_text("- a\n- b\n", "t.yaml:1:1: ", "this is a list");
    refuse_text("just words\n", "t.yaml:1:1: ", "this is a text");
}

/* 100,000 brackets cost libyaml minutes when it is allowed to go on. */
static void depth_is_bounded_while_reading(void **state)
{
    enum { DEPTH = 100000 };
    char *text;
    const clock_t start = clock();

    assert_int_equal(MB_NEW_ARRAY(&text, DEPTH + 4), MB_OK);
    memcpy(text, "a: ", 3);
    memset(text + 3, '[', DEPTH);
    refuse(text, DEPTH + 3, "t.yaml:1:", "deeper than 64");
    memset(text + 3, '{', DEPTH);
    refuse(text, DEPTH + 3, "t.yaml:1:", "");
    for (int i = 0; i < DEPTH / 2; i++)
        memcpy(text + 2 * i, "- ", 2);
    refuse(text, DEPTH, "t.yaml:1:", "deeper than 64");
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 2.0);
    mb_free(text);
}

static void depth_64_is_allowed(void **state)
{
    char text[256] = "a: ";

    memset(text + 3, '[', 63);
    memset(text + 66, ']', 63);
    read_ok(text);
    memset(text + 3, '[', 64);
    memset(text + 67, ']', 64);
    refuse_text(text, "t.yaml:1:", "deeper than 64");
}

static void size_and_number_of_values_are_bounded(void **state)
{
    enum { BYTES = 2 << 20 };
    char *text;

    assert_int_equal(MB_NEW_ARRAY(&text, BYTES), MB_OK);
    memset(text, 'x', BYTES);
    refuse(text, BYTES, "t.yaml: ", "2097152 bytes");
    memcpy(text, "a: [", 4);
    for (int i = 0; i < 200000; i++)
        memcpy(text + 4 + 2 * i, "x,", 2);
    refuse(text, 400004, "t.yaml:1:", "more than 100000 values");
    mb_free(text);
}

static void a_map_of_many_keys_is_bounded(void **state)
{
    char *text;
    size_t n = 0;

    assert_int_equal(MB_NEW_ARRAY(&text, 1 << 20), MB_OK);
    for (int i = 0; i < 50000; i++)
        n += (size_t)snprintf(text + n, 32, "k%d: 1\n", i);
    refuse(text, n, "t.yaml:4097:1: ", "more than 4096 keys");
    mb_free(text);
}

static void files_that_are_none_are_refused(void **state)
{
    mb_yaml *y;

    assert_int_equal(mb_yaml_read(arena, "/nowhere/x.yaml", &y), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "/nowhere/x.yaml"));
    mb_status_clear();
    assert_int_equal(mb_yaml_read(arena, "/tmp", &y), MB_EARG);
    mb_status_clear();
    assert_int_equal(mb_yaml_read(arena, "/dev/zero", &y), MB_EARG);
    mb_status_clear();
}

/* Every beginning of a good file, and every file with one byte changed, is read or refused. */
static void damaged_files_never_crash(void **state)
{
    static const char good[] =
        "a: {b: [1, \"two\\n\", 'x'], c: ~}\nd:\n- e\n- f: |\n    g\n? h\n: i\n";
    char text[sizeof good];
    mb_yaml *y;

    for (size_t n = 0; n < sizeof good; n++) {
        mb_status_clear();
        if (mb_yaml_parse(arena, "t", good, n, &y) != MB_OK)
            assert_true(mb_status_sentence()[0] != '\0');
    }
    for (size_t at = 0; at + 1 < sizeof good; at++)
        for (int c = 0; c < 256; c += 3) {
            memcpy(text, good, sizeof good);
            text[at] = (char)c;
            mb_status_clear();
            if (mb_yaml_parse(arena, "t", text, sizeof good - 1, &y) != MB_OK)
                assert_int_equal(mb_status_recorded(), MB_EARG);
            mb_arena_reset(arena);
        }
}

static void numbers_are_those_of_the_core_schema(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        double value;
    } cases[] = {
        {"1", true, 1},         {"-1", true, -1},       {"+2", true, 2},     {"2e-5", true, 2e-5},
        {"2.0e-4", true, 2e-4}, {"1E3", true, 1000},    {".5", true, 0.5},   {"5.", true, 5},
        {"0", true, 0},         {"0.0", true, 0},       {"1_000", false, 0}, {"0x10", false, 0},
        {"0o17", false, 0},     {"017", false, 0},      {"nan", false, 0},   {".inf", false, 0},
        {"1e999", false, 0},    {"", false, 0},         {"-", false, 0},     {"1e", false, 0},
        {"1 2", false, 0},      {"1:30", false, 0},     {"e5", false, 0},    {".", false, 0},
        {"1.2.3", false, 0},    {"infinity", false, 0}, {"0x1p3", false, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double v = 0;

        if (mb_yaml_to_num(cases[i].text, &v) != cases[i].ok ||
            v != (cases[i].ok ? cases[i].value : v))
            fail_msg("'%s' as a number: %g", cases[i].text, v);
    }
}

static void whole_numbers_end_at_64_bits(void **state)
{
    int64_t i;

    assert_true(mb_yaml_to_int("9223372036854775807", &i));
    assert_int_equal(i, INT64_MAX);
    assert_false(mb_yaml_to_int("9223372036854775808", &i));
    assert_false(mb_yaml_to_int("1.0", &i));
    assert_false(mb_yaml_to_int("01", &i));
}

static void command_line_values_are_flow_yaml_or_plain_text(void **state)
{
    mb_yaml *y;

    assert_int_equal(mb_yaml_parse_value(arena, "cl", "[a, \"b c\"]", &y), MB_OK);
    assert_int_equal(y->n, 2);
    assert_int_equal(mb_yaml_parse_value(arena, "cl", "\"\\n\"", &y), MB_OK);
    assert_string_equal(y->text, "\n");
    assert_int_equal(mb_yaml_parse_value(arena, "cl", "what: is # this?", &y), MB_OK);
    assert_string_equal(y->text, "what: is # this?");
    assert_int_equal(mb_yaml_parse_value(arena, "cl", "'tis", &y), MB_OK);
    assert_string_equal(y->text, "'tis");
    assert_int_equal(mb_yaml_parse_value(arena, "cl", "[a", &y), MB_EARG);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(maps_lists_and_scalars_become_a_tree),
        TEST(values_know_their_place),
        TEST(nothing_is_an_empty_recipe),
        TEST(a_byte_order_mark_and_windows_line_ends_are_fine),
        TEST(text_in_utf_16_is_refused),
        TEST(bytes_that_are_no_text_are_refused),
        TEST(tabs_are_named),
        TEST(broken_yaml_has_a_place),
        TEST(aliases_anchors_tags_and_merges_are_refused),
        TEST(an_alias_bomb_ends_at_its_first_anchor),
        TEST(one_document_only),
        TEST(keys_are_words_and_unique),
        TEST(a_recipe_is_a_map),
        TEST(depth_is_bounded_while_reading),
        TEST(depth_64_is_allowed),
        TEST(size_and_number_of_values_are_bounded),
        TEST(a_map_of_many_keys_is_bounded),
        TEST(files_that_are_none_are_refused),
        TEST(damaged_files_never_crash),
        TEST(numbers_are_those_of_the_core_schema),
        TEST(whole_numbers_end_at_64_bits),
        TEST(command_line_values_are_flow_yaml_or_plain_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
