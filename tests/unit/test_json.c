/* tests/unit/test_json.c - the JSON wrapper: limits, typed lookups, messages, writing. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/rng.h"
#include "tests/check.h"

static mb_json_doc *parsed(const char *text)
{
    mb_json_doc *doc = NULL;

    assert_int_equal(mb_json_parse(text, strlen(text), "t.json", 0, MB_EMODEL, &doc), MB_OK);
    return doc;
}

/* One sentence, one line, naming the document. */
static void expect_fault(mb_status st, mb_status wanted, const char *part)
{
    assert_non_null(strstr(mb_status_sentence(), "t.json"));
    assert_null(strchr(mb_status_sentence(), '\n'));
    expect(st, wanted, part);
}

static void malformed_text_is_refused_with_its_place(void **state)
{
    static const struct {
        const char *text, *says;
        size_t n; /* 0: strlen */
    } rows[] = {
        {"", "t.json:1:1:", 0},
        {" ", "t.json:1:", 0},
        {"{", "t.json:1:1:", 0},
        {"}", "t.json:1:1:", 0},
        {"[1,]", "t.json:1:4:", 0},
        {"[1 2]", "t.json:1:4:", 0},
        {"{\"a\":1,}", "t.json:1:8:", 0},
        {"{\"a\" 1}", "t.json:1:6:", 0},
        {"{a:1}", "t.json:1:2:", 0},
        {"{'a':1}", "t.json:1:2:", 0},
        {"{\n \"a\": 1,\n \"a\": 2}", "t.json:3:4: not valid JSON: duplicate object key", 0},
        {"{\"b\":{\"a\":1,\"a\":1}}", "duplicate", 0},
        {"{\"a\":1} x", "end of file expected", 0},
        {"{}{}", "end of file expected", 0},
        {"1 2", "end of file expected", 0},
        {"\xef\xbb\xbf{}", "byte order mark", 0},
        {"[1e999]", "overflow", 0},
        {"[-1e999]", "overflow", 0},
        {"[99999999999999999999]", "too big integer", 0},
        {"[-99999999999999999999]", "too big negative integer", 0},
        {"[01]", "t.json:1:", 0},
        {"[+1]", "t.json:1:", 0},
        {"[.5]", "t.json:1:", 0},
        {"[5.]", "t.json:1:", 0},
        {"[1e]", "t.json:1:", 0},
        {"[0x10]", "t.json:1:", 0},
        {"[NaN]", "t.json:1:", 0},
        {"[Infinity]", "t.json:1:", 0},
        {"[nul]", "t.json:1:", 0},
        {"[True]", "t.json:1:", 0},
        {"[\"\\ud800\"]", "t.json:1:", 0},
        {"[\"\\udc00\"]", "t.json:1:", 0},
        {"[\"\\ud800\\u0041\"]", "t.json:1:", 0},
        {"[\"\\ud800\\ud800\"]", "t.json:1:", 0},
        {"[\"\\u0000\"]", "a string holds the zero character", 0},
        {"{\"\\u0000\":1}", "NUL byte in object key", 0},
        {"[\"a\0b\"]", "t.json:1:", 7},
        {"[1]\0", "t.json:1:", 4},
        {"[\"\x01\"]", "control character", 0},
        {"[\"a\nb\"]", "t.json:1:", 0},
        {"[\"\\x41\"]", "t.json:1:", 0},
        {"[\"\\u12\"]", "t.json:1:", 0},
        {"[\"abc]", "t.json:1:", 0},
        {"[\"\xff\"]", "unable to decode byte", 0},
        {"[\"\xc0\x80\"]", "unable to decode byte", 0},
        {"[\"\xed\xa0\x80\"]", "unable to decode byte", 0},
        {"[\"\xf4\x90\x80\x80\"]", "unable to decode byte", 0},
        {"[\"\xe2\x82\"]", "unable to decode byte", 0},
        {"/* c */ []", "t.json:1:", 0},
        {"[] // c", "end of file expected", 0},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const size_t n = rows[i].n > 0 ? rows[i].n : strlen(rows[i].text);
        char *copy = malloc(n > 0 ? n : 1); /* exact, so that a read past the end is caught */
        mb_json_doc *doc = NULL;
        memcpy(copy, rows[i].text, n);
        expect_fault(mb_json_parse(copy, n, "t.json", 0, MB_EDATA, &doc), MB_EDATA, rows[i].says);
        assert_null(doc);
        free(copy);
    }
}

static void nesting_is_limited_to_64(void **state)
{
    static char text[200001];
    mb_json_doc *doc = NULL;

    for (int depth = 63; depth <= 66; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        const mb_status st = mb_json_parse(text, 2 * (size_t)depth, "t.json", 0, MB_EMODEL, &doc);
        if (depth <= MB_JSON_MAX_DEPTH) {
            assert_int_equal(st, MB_OK);
            mb_json_free(doc);
        } else {
            expect_fault(st, MB_EMODEL, "t.json:1:65: JSON nested deeper than 64");
        }
    }
    memset(text, '[', 200000);
    expect_fault(mb_json_parse(text, 200000, "t.json", 0, MB_EMODEL, &doc), MB_EMODEL, "deeper");
    for (int i = 0; i + 5 <= 200000; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    expect_fault(mb_json_parse(text, 200000, "t.json", 0, MB_EMODEL, &doc), MB_EMODEL, "deeper");
    /* brackets inside a string are text */
    memset(text, '[', 1000);
    text[0] = text[999] = '"';
    text[500] = '\\';
    text[501] = '"';
    assert_int_equal(mb_json_parse(text, 1000, "t.json", 0, MB_EMODEL, &doc), MB_OK);
    mb_json_free(doc);
}

static void a_row_of_a_file_is_named_by_its_line(void **state)
{
    mb_json_doc *doc = NULL;

    assert_int_equal(mb_json_parse("{\"a\":}", 6, "d.jsonl", 17, MB_EDATA, &doc), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "d.jsonl:17:6: "));
    mb_status_clear();
    assert_int_equal(mb_json_parse("{\"a\":[1,{}]}", 12, "d.jsonl", 17, MB_EDATA, &doc), MB_OK);
    const mb_json v = mb_json_at(mb_json_get(mb_json_root(doc), "a"), 1);
    int64_t n;
    assert_int_equal(mb_json_int(v, &n), MB_EDATA);
    assert_string_equal(mb_status_sentence(), "d.jsonl:17: a[1] must be an integer, not an object");
    mb_status_clear();
    mb_json_free(doc);
}

static void lookups_have_types_defaults_and_key_paths(void **state)
{
    mb_json_doc *doc = parsed("{\"i\":7,\"r\":2.5,\"whole\":4.0,\"s\":\"x\",\"n\":null,\"b\":true,"
                              "\"o\":{\"list\":[1,{\"deep\":\"y\"}]},\"big\":9223372036854775807,"
                              "\"min\":-9223372036854775808}");
    const mb_json root = mb_json_root(doc);
    const char *s;
    int64_t i;
    double r;
    bool b;
    mb_json v;

    assert_int_equal(mb_json_get_int(root, "i", 0, &i), MB_OK);
    assert_int_equal(i, 7);
    assert_int_equal(mb_json_get_int(root, "whole", 0, &i), MB_OK);
    assert_int_equal(i, 4);
    assert_int_equal(mb_json_get_int(root, "big", 0, &i), MB_OK);
    assert_true(i == INT64_MAX);
    assert_int_equal(mb_json_get_int(root, "min", 0, &i), MB_OK);
    assert_true(i == INT64_MIN);
    assert_int_equal(mb_json_get_int(root, "none", -3, &i), MB_OK);
    assert_int_equal(i, -3);
    assert_int_equal(mb_json_get_int(root, "n", -4, &i), MB_OK);
    assert_int_equal(i, -4);
    assert_int_equal(mb_json_get_real(root, "i", 0, &r), MB_OK);
    assert_true(r == 7.0);
    assert_int_equal(mb_json_get_bool(root, "b", false, &b), MB_OK);
    assert_true(b);
    assert_int_equal(mb_json_get_string(root, "s", "d", &s), MB_OK);
    assert_string_equal(s, "x");
    assert_int_equal(mb_json_get_string(root, "z", "d", &s), MB_OK);
    assert_string_equal(s, "d");
    /* asking nothing for something gives nothing */
    v = mb_json_get(mb_json_at(mb_json_get(root, "none"), 3), "x");
    assert_true(mb_json_is(v, MB_JSON_ABSENT));
    assert_int_equal(mb_json_count(v), 0);

    expect_fault(mb_json_get_int(root, "r", 0, &i), MB_EMODEL, "t.json: r must be an integer");
    expect_fault(mb_json_get_int(root, "s", 0, &i), MB_EMODEL,
                 "s must be an integer, not a string");
    expect_fault(mb_json_get_bool(root, "i", 0, &b), MB_EMODEL,
                 "i must be true or false, not an integer");
    expect_fault(mb_json_need(root, "none", MB_JSON_STRING, &v), MB_EMODEL,
                 "t.json: none is missing, it must be a string");
    assert_int_equal(mb_json_need(root, "o", MB_JSON_OBJECT, &v), MB_OK);
    expect_fault(mb_json_need(v, "hole", MB_JSON_ARRAY, &v), MB_EMODEL, "o.hole is missing");
    v = mb_json_at(mb_json_get(v, "list"), 1);
    expect_fault(mb_json_get_real(v, "deep", 0, &r), MB_EMODEL,
                 "t.json: o.list[1].deep must be a number, not a string");
    expect_fault(mb_json_fault(v, "is %d", 5), MB_EMODEL, "t.json: o.list[1] is 5");
    expect_fault(mb_json_need_int(root, "i", 8, 10, &i), MB_EMODEL,
                 "i is 7, it must be within 8 and 10");
    expect_fault(mb_json_need(mb_json_get(root, "s"), "x", MB_JSON_INT, &v), MB_EMODEL,
                 "t.json: s must be an object, not a string");
    mb_json_free(doc);
}

static void members_come_in_the_order_of_the_file(void **state)
{
    mb_json_doc *doc = parsed("{\"zeta\":0,\"alpha\":1,\"mid\":2,\"\":3}");
    static const char *const keys[] = {"zeta", "alpha", "mid", ""};
    size_t n = 0;

    for (mb_json_it it = mb_json_first(mb_json_root(doc)); mb_json_more(&it); mb_json_next(&it)) {
        int64_t v;
        assert_string_equal(it.key, keys[it.index]);
        assert_int_equal(mb_json_int(it.value, &v), MB_OK);
        assert_int_equal(v, n++);
    }
    assert_int_equal(n, 4);
    mb_json_free(doc);
    doc = parsed("[]");
    mb_json_it it = mb_json_first(mb_json_root(doc));
    assert_false(mb_json_more(&it));
    mb_json_free(doc);
}

static void text_is_what_python_writes(void **state)
{
    mb_json_doc *doc = NULL;
    mb_json list, inner;
    char *text;
    size_t n;

    assert_int_equal(mb_json_doc_new("new", &doc), MB_OK);
    const mb_json root = mb_json_root(doc);
    assert_int_equal(mb_json_set_int(root, "min", INT64_MIN), MB_OK);
    assert_int_equal(mb_json_set_real(root, "tenth", 0.1), MB_OK);
    assert_int_equal(mb_json_set_real(root, "eps", 1e-5), MB_OK);
    assert_int_equal(mb_json_set_real(root, "theta", 10000), MB_OK);
    assert_int_equal(mb_json_set_real(root, "nan", NAN), MB_OK);
    assert_int_equal(mb_json_set_string(root, "s", "\"\\\n\t\x01\xc3\xa9/"), MB_OK);
    assert_int_equal(mb_json_set_array(root, "list", &list), MB_OK);
    assert_int_equal(mb_json_set_bool(list, NULL, true), MB_OK);
    assert_int_equal(mb_json_set_object(list, NULL, &inner), MB_OK);
    assert_int_equal(mb_json_set_null(inner, "x"), MB_OK);
    assert_int_equal(mb_json_set_object(root, "empty", &inner), MB_OK);
    assert_int_equal(mb_json_set_int(root, "min", 5), MB_OK); /* replaced where it stands */

    assert_int_equal(mb_json_text(root, 0, &text, &n), MB_OK);
    assert_string_equal(text, "{\"min\":5,\"tenth\":0.1,\"eps\":1e-05,\"theta\":10000.0,"
                              "\"nan\":null,\"s\":\"\\\"\\\\\\n\\t\\u0001\xc3\xa9/\","
                              "\"list\":[true,{\"x\":null}],\"empty\":{}}");
    assert_int_equal(n, strlen(text));
    mb_free(text);
    mb_json_remove(root, "s");
    mb_json_remove(root, "nan");
    mb_json_remove(root, "never there");
    assert_int_equal(mb_json_text(root, 2, &text, NULL), MB_OK);
    assert_string_equal(text, "{\n  \"min\": 5,\n  \"tenth\": 0.1,\n  \"eps\": 1e-05,\n"
                              "  \"theta\": 10000.0,\n  \"list\": [\n    true,\n    {\n"
                              "      \"x\": null\n    }\n  ],\n  \"empty\": {}\n}\n");
    mb_free(text);
    mb_json_free(doc);
}

static void every_double_survives_writing(void **state)
{
    mb_json_doc *doc = NULL, *again = NULL;
    uint64_t x = 88172645463325252u; /* xorshift64: any bits will do */
    char *text;
    size_t n;

    assert_int_equal(mb_json_doc_new_array("new", &doc), MB_OK);
    for (int i = 0; i < 20000; i++) {
        union {
            uint64_t u;
            double d;
        } v;
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        v.u = x;
        if (isfinite(v.d))
            assert_int_equal(mb_json_set_real(mb_json_root(doc), NULL, v.d), MB_OK);
    }
    assert_int_equal(mb_json_set_real(mb_json_root(doc), NULL, -0.0), MB_OK);
    assert_int_equal(mb_json_text(mb_json_root(doc), 0, &text, &n), MB_OK);
    assert_int_equal(mb_json_parse(text, n, "t.json", 0, MB_EMODEL, &again), MB_OK);
    assert_int_equal(mb_json_count(mb_json_root(again)), mb_json_count(mb_json_root(doc)));
    for (size_t i = 0; i < mb_json_count(mb_json_root(doc)); i++) {
        double a, b;
        const mb_json w = mb_json_at(mb_json_root(again), i);
        assert_true(mb_json_is(w, MB_JSON_REAL)); /* never turned into an integer */
        assert_int_equal(mb_json_real(mb_json_at(mb_json_root(doc), i), &a), MB_OK);
        assert_int_equal(mb_json_real(w, &b), MB_OK);
        assert_memory_equal(&a, &b, sizeof a);
    }
    mb_free(text);
    mb_json_free(doc);
    mb_json_free(again);
}

static void copies_do_not_share(void **state)
{
    mb_json_doc *from = parsed("{\"a\":{\"b\":[1,2]}}"), *to = NULL;
    char *text;

    assert_int_equal(mb_json_doc_new("new", &to), MB_OK);
    assert_int_equal(mb_json_set(mb_json_root(to), "c", mb_json_get(mb_json_root(from), "a")),
                     MB_OK);
    mb_json_free(from);
    assert_int_equal(mb_json_text(mb_json_root(to), 0, &text, NULL), MB_OK);
    assert_string_equal(text, "{\"c\":{\"b\":[1,2]}}");
    mb_free(text);
    mb_json_free(to);
}

static void files_are_read_with_a_limit_and_written(void **state)
{
    char path[] = "/tmp/mb_json_t.json_XXXXXX";
    mb_json_doc *doc = parsed("[1.5,\"x\"]"), *again = NULL;
    const int fd = mkstemp(path);
    char *text;

    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(mb_json_write(mb_json_root(doc), 2, path), MB_OK);
    assert_int_equal(mb_json_read(path, MB_EMODEL, 100, &again), MB_OK);
    assert_int_equal(mb_json_text(mb_json_root(again), 0, &text, NULL), MB_OK);
    assert_string_equal(text, "[1.5,\"x\"]");
    mb_free(text);
    mb_json_free(doc);
    mb_json_free(again);
    expect_fault(mb_json_read(path, MB_EMODEL, 10, &again), MB_EMODEL, "at most 10 are read");
    unlink(path);
    expect_fault(mb_json_read(path, MB_EMODEL, 10, &again), MB_EMODEL, "cannot be opened");
    expect_fault(mb_json_read("/tmp/../tmp/./t.json/none", MB_EARG, 10, &again), MB_EARG,
                 "cannot be opened");
}

static void random_damage_never_crashes(void **state)
{
    static const char valid[] =
        "{\"model\":{\"vocab\":{\"a\":0,\"\\u00e9\":1},\"merges\":[[\"a\",\"b\"]]},\"x\":[1.5e-3,"
        "-12,true,null,\"\\ud83d\\ude00\\n\"]}";
    uint64_t x = 12345;
    int accepted = 0;

    for (int i = 0; i < 20000; i++) {
        char *copy = malloc(sizeof valid - 1);
        mb_json_doc *doc = NULL;
        memcpy(copy, valid, sizeof valid - 1);
        for (int k = 0; k <= i % 4; k++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            copy[(x >> 33) % (sizeof valid - 1)] = (char)(x >> 25);
        }
        if (mb_json_parse(copy, sizeof valid - 1, "t.json", 0, MB_EMODEL, &doc) == MB_OK)
            accepted++;
        mb_json_free(doc);
        mb_status_clear();
        free(copy);
    }
    assert_in_range(accepted, 1, 19999);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_text_is_refused_with_its_place),
        cmocka_unit_test(nesting_is_limited_to_64),
        cmocka_unit_test(a_row_of_a_file_is_named_by_its_line),
        cmocka_unit_test(lookups_have_types_defaults_and_key_paths),
        cmocka_unit_test(members_come_in_the_order_of_the_file),
        cmocka_unit_test(text_is_what_python_writes),
        cmocka_unit_test(every_double_survives_writing),
        cmocka_unit_test(copies_do_not_share),
        cmocka_unit_test(files_are_read_with_a_limit_and_written),
        cmocka_unit_test(random_damage_never_crashes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
