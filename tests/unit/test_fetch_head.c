/* tests/unit/test_fetch_head.c - headers of an answer, whole or cut off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "recipes/hub/fetch.h"

static void a_head_is_found_or_not(void **state)
{
    static const struct {
        const char *heads, *name, *want;
    } rows[] = {
        {"etag: \"x\"\nlink:  y \n", "link", "y"},
        {"etag: \"x\"\nlink:  y \n", "etag", "\"x\""},
        {"etag: \"x\"\nlink: y", "link", "y"}, /* no end of the line */
        {"etag: \"x\"", "link", NULL},
        {"etag:", "etag", ""},
        {"", "etag", NULL},
        {"etag: longer than there is room\n", "etag", NULL},
    };
    char text[16];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char heads[64];
        snprintf(heads, sizeof heads, "%s", rows[i].heads);
        const mb_fetch_answer a = {.heads = heads};
        const bool found = mb_fetch_head(&a, rows[i].name, text, sizeof text);
        assert_int_equal(found, rows[i].want != NULL);
        if (found)
            assert_string_equal(text, rows[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_head_is_found_or_not)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
