/* tests/unit/test_json_rule.c - the machine of JSON mode agrees with the parser: every beginning of a
 * document is taken, and what is taken to its end is a document. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/json.h"
#include "core/rng.h"
#include "recipes/serve/json_rule.h"

static const char *const documents[] = {
    "{}",
    " {\n} ",
    "{\"a\":1}",
    "{\"a\": [1, -2.5, 0, 1e9, 0.5E-3, 10], \"b\": {\"c\": null}, \"d\": [[], {}]}",
    "{\"t\":true,\"f\":false,\"n\":null}",
    "{\"esc\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"}",
    "{\"caf\xc3\xa9\":\"\xe2\x82\xac\xf0\x9f\x98\x80\"}",
    "{\"\":[\"\",[\"a\",[{\"b\":[0]}]]]}",
};

static const char *const wrong[] = {
    "[1]",
    "1",
    "\"a\"",
    "{a:1}",
    "{\"a\" 1}",
    "{\"a\":1,}",
    "{,}",
    "{\"a\":01}",
    "{\"a\":+1}",
    "{\"a\":.5}",
    "{\"a\":5.}",
    "{\"a\":1e}",
    "{\"a\":--1}",
    "{\"a\":-}",
    "{\"a\":tru}",
    "{\"a\":nul}",
    "{\"a\":\"\n\"}",
    "{\"a\":\"\\x\"}",
    "{\"a\":\"\\u12g4\"}",
    "{\"a\":[1,]}",
    "{\"a\":[1 2]}",
    "{\"a\":1}}",
    "{\"a\":{]}",
    "{\"a\":\"\xc3(\"}",
    "{\"a\":'b'}",
    "{} {",
    "{\"a\":NaN}",
};

static void documents_are_taken_byte_by_byte(void **state)
{
    for (size_t i = 0; i < sizeof documents / sizeof documents[0]; i++) {
        size_t n = strlen(documents[i]);
        mb_json_rule r;

        while (documents[i][n - 1] == ' ') /* nothing may follow */
            n--;
        mb_json_rule_begin(&r);
        for (size_t at = 0; at < n; at++) {
            assert_false(mb_json_rule_complete(&r));
            if (!mb_json_rule_take(&r, documents[i] + at, 1))
                fail_msg("%s: refused at byte %zu", documents[i], at);
        }
        assert_true(mb_json_rule_complete(&r));
        assert_false(mb_json_rule_take(&r, "x", 1));
    }
}

static void what_is_no_object_is_not_taken(void **state)
{
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        mb_json_rule r;

        mb_json_rule_begin(&r);
        if (mb_json_rule_take(&r, wrong[i], strlen(wrong[i])) && mb_json_rule_complete(&r))
            fail_msg("%s was taken", wrong[i]);
    }
}

/* Random bytes that the rule lets pass, to the end: the parser reads what comes out. */
static void what_is_complete_is_a_document(void **state)
{
    static const char alphabet[] = "{}[]\",:0123456789.-+eE\\/bfnrtu atrlsnul\xc3\xa9";
    int complete = 0, read = 0;
    uint64_t x = 88172645463325252u;

    for (int round = 0; round < 20000; round++) {
        char text[400];
        size_t n = 0;
        mb_json_rule r;

        mb_json_rule_begin(&r);
        for (int tries = 0; tries < 3000 && n < sizeof text - 1 && !mb_json_rule_complete(&r);
             tries++) {
            mb_json_rule next = r;

            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            const char c = alphabet[x % (sizeof alphabet - 1)];
            if (!mb_json_rule_take(&next, &c, 1))
                continue;
            r = next;
            text[n++] = c;
        }
        if (mb_json_rule_complete(&r)) {
            mb_json_doc *doc;
            const mb_status st = mb_json_parse(text, n, "t", 0, MB_EDATA, &doc);

            complete++;
            read += st == MB_OK;
            if (st == MB_OK)
                mb_json_free(doc);
            else if (strstr(mb_status_sentence(), "duplicate") ==
                         NULL && /* stricter than RFC 8259 */
                     strstr(mb_status_sentence(), "zero character") == NULL &&
                     strstr(mb_status_sentence(), "NUL") == NULL &&
                     strstr(mb_status_sentence(), "\\u") == NULL &&
                     strstr(mb_status_sentence(), "overflow") == NULL &&
                     strstr(mb_status_sentence(), "too big") == NULL)
                fail_msg("%.*s: %s", (int)n, text, mb_status_sentence());
            mb_status_clear();
        }
    }
    print_message("%d documents, %d read\n", complete, read);
    assert_true(read > 1000);
}

static void depth_and_spaces_are_bounded(void **state)
{
    mb_json_rule r;
    int n = 0;

    mb_json_rule_begin(&r);
    assert_true(mb_json_rule_take(&r, "{\"a\":", 5));
    while (mb_json_rule_take(&r, "[", 1))
        n++;
    assert_int_equal(n, MB_JSON_RULE_DEPTH - 1);
    mb_json_rule_begin(&r);
    for (n = 0; mb_json_rule_take(&r, " ", 1); n++)
        ;
    assert_true(n >= 10 && n <= 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_are_taken_byte_by_byte),
        cmocka_unit_test(what_is_no_object_is_not_taken),
        cmocka_unit_test(what_is_complete_is_a_document),
        cmocka_unit_test(depth_and_spaces_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
