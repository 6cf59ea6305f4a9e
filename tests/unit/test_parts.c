/* tests/unit/test_parts.c - forms of browsers and clients, cut at every place, and bad ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "recipes/serve/parts.h"
#include "recipes/tokenizers/bytes.h"

struct seen {
    char text[2048];
    size_t n;
};

static void note(struct seen *s, const char *data, size_t n)
{
    assert_true(s->n + n < sizeof s->text);
    memcpy(s->text + s->n, data, n);
    s->n += n;
    s->text[s->n] = '\0';
}

static mb_status begin(void *arg, const char *name, const char *filename)
{
    char line[600];

    note(arg, line,
         (size_t)snprintf(line, sizeof line, "<%s|%s>", name, filename != NULL ? filename : "-"));
    return MB_OK;
}

static mb_status data(void *arg, const void *p, size_t n)
{
    note(arg, p, n);
    return MB_OK;
}

static mb_status end(void *arg)
{
    note(arg, "$", 1);
    return MB_OK;
}

/* The form given in pieces of `step` bytes. */
static mb_status read_form(const char *type, const char *form, size_t n, size_t step,
                           struct seen *s)
{
    const mb_parts_calls calls = {s, begin, data, end};
    mb_parts *m;
    mb_status st = mb_parts_new(type, &calls, &m);

    *s = (struct seen){0};
    if (st != MB_OK)
        return st;
    for (size_t at = 0; at < n && st == MB_OK; at += step)
        st = mb_parts_add(m, form + at, n - at < step ? n - at : step);
    if (st == MB_OK)
        st = mb_parts_end(m);
    mb_parts_free(m);
    return st;
}

static const char type[] = "multipart/form-data; charset=utf-8; boundary=\"--x y\"";
static const char form[] =
    "left out\r\n----x y\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n"
    "----x y  \r\ncontent-type: text/plain\r\ncontent-disposition: form-data; name=file; "
    "filename=\"a \\\"b\\\".jsonl\"\r\n\r\nline\r\n--\r\n----x\r\n----x yz\r\n"
    "Content-Disposition: form-data; name=\"none\"\r\n\r\n\r\n----x y--\r\n";

static void any_cut_gives_the_same(void **state)
{
    /* "----x yz" is a boundary with something behind it */
    static const char whole[] = "<purpose|->fine-tune$<file|a \"b\".jsonl>line\r\n--\r\n----x$";
    struct seen s;

    (void)state;
    for (size_t step = 1; step <= sizeof form; step++) {
        const mb_status st = read_form(type, form, sizeof form - 1, step, &s);
        assert_memory_equal(s.text, whole, sizeof whole - 1);
        assert_int_equal(st, MB_EARG);
        assert_non_null(strstr(mb_status_sentence(), "not at the end of a line"));
        mb_status_clear();
    }
}

static void empty_parts_are_parts(void **state)
{
    static const char text[] =
        "--b\r\nContent-Disposition: form-data; name=\"none\"\r\n\r\n\r\n--b\r\n"
        "Content-Disposition: form-data; filename=\"\"; name=\"bare\"\r\n\r\n--b--\r\n";
    struct seen s;

    (void)state;
    for (size_t step = 1; step <= sizeof text; step++) {
        assert_int_equal(
            read_form("multipart/form-data;boundary=b", text, sizeof text - 1, step, &s), MB_OK);
        assert_string_equal(s.text, "<none|->$<bare|>$");
    }
}

static void refused(const char *ctype, const char *text, const char *why)
{
    struct seen s;

    assert_int_equal(read_form(ctype, text, strlen(text), 7, &s), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), why));
    mb_status_clear();
}

static void bad_forms_are_refused(void **state)
{
    const char *b = "multipart/form-data; boundary=b";
    char many[9000];

    (void)state;
    refused(NULL, "", "must be multipart/form-data");
    refused("application/json", "{}", "not application/json");
    refused("multipart/form-data", "", "without a boundary");
    refused("multipart/form-data; boundary=", "", "without a boundary");
    refused(b, "", "ends before its last boundary");
    refused(b, "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx", "ends before");
    refused(b, "--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--", "no Content-Disposition");
    refused(b, "--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", "no name");
    refused(b, "--b\r\nContent-Disposition: form-data; name=\"a\001\"\r\n\r\nx\r\n--b--",
            "no name");
    refused(b,
            "--b\r\nContent-Disposition: form-data; name=\"a\"; filename=\"\033[2J\"\r\n\r\n--b--",
            "control characters");
    memset(many, 'x', sizeof many);
    memcpy(many, "--b\r\n", 5);
    many[sizeof many - 1] = '\0';
    refused(b, many, "header of more than");
    memset(many + 3, ' ', sizeof many - 4);
    refused(b, many, "more than 256 spaces");
    refused("multipart/form-data; boundary="
            "12345678901234567890123456789012345678901234567890123456789012345678901",
            "", "1 to 70 bytes");
}

static void a_formatted_piece_has_any_length(void **state)
{
    char word[2000];
    mb_bytes t = {0};

    (void)state;
    memset(word, 'w', sizeof word - 1);
    for (size_t n = 500; n < sizeof word; n += n < 520 ? 1 : 1479) { /* around the line of 512 */
        word[n] = '\0';
        t.n = 0;
        assert_int_equal(mb_bytes_printf(&t, "%d:%s", 7, word), MB_OK);
        assert_int_equal(t.n, n + 2);
        assert_memory_equal(t.p, "7:w", 3);
        assert_memory_equal(t.p + 2, word, n);
        word[n] = 'w';
    }
    mb_bytes_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_cut_gives_the_same),
        cmocka_unit_test(empty_parts_are_parts),
        cmocka_unit_test(bad_forms_are_refused),
        cmocka_unit_test(a_formatted_piece_has_any_length),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
