/* tests/unit/test_records.c - data files as people have them: what is read, and what is said of the
 * ones that cannot be. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "dist/h5.h"
#include "recipes/data/records.h"
#include "tests/unit/root_test.h"

/* Writes a file into the root; its path. */
static const char *file_of(const char *name, const char *text, size_t n)
{
    static char path[200];

    snprintf(path, sizeof path, "%s/%s", root, name);
    assert_int_equal(mb_file_write_atomic(path, text, n), MB_OK);
    return path;
}

/* Reads a source to its end: the number of rows, or -1 with the sentence, less the folder. */
static int64_t read_all(const mb_source *source, int64_t *bad, char *sentence, size_t size)
{
    mb_records *r = NULL;
    mb_row_text row;
    int64_t n = 0;
    bool more = true;
    mb_status st = mb_records_open(source, &r);

    *bad = 0;
    sentence[0] = '\0';
    while (st == MB_OK && more) {
        mb_record rec;

        st = mb_records_next(r, &row, &more);
        if (st != MB_OK || !more)
            break;
        st = mb_records_parse(r, &row, &rec);
        if (st == MB_OK) {
            mb_record_release(&rec);
            n++;
        } else if (source->skip_bad) {
            mb_status_clear();
            st = MB_OK;
            (*bad)++;
        }
    }
    mb_records_close(r);
    if (st == MB_OK)
        return n;
    const char *s = mb_status_sentence();

    if (strncmp(s, root, strlen(root)) == 0)
        s += strlen(root) + 1;
    snprintf(sentence, size, "%s", s);
    mb_status_clear();
    return -1;
}

#define TEXT(s) .text = s, .n = sizeof(s) - 1

/* rows: how many are read; or error: what is said. `%s`-free, exact. */
static const struct {
    const char *name, *text;
    size_t n;
    int64_t rows;
    const char *error;
    const char *type;
    bool labelled, skip_bad;
    int64_t bad;
} files[] = {
    /* line ends and marks */
    {.name = "plain.jsonl", TEXT("{\"text\":\"a\"}\n{\"text\":\"b\"}\n"), .rows = 2},
    {.name = "bom.jsonl", TEXT("\xef\xbb\xbf{\"text\":\"a\"}\n"), .rows = 1},
    {.name = "crlf.jsonl", TEXT("{\"text\":\"a\"}\r\n{\"text\":\"b\"}\r\n"), .rows = 2},
    {.name = "no_last_newline.jsonl", TEXT("{\"text\":\"a\"}\n{\"text\":\"b\"}"), .rows = 2},
    {.name = "blank_lines.jsonl",
     TEXT("\n\n{\"text\":\"a\"}\n \t\r\n{\"text\":\"b\"}\n\n"),
     .rows = 2},
    {.name = "crlf_blank.jsonl", TEXT("{\"text\":\"a\"}\r\n\r\n"), .rows = 1},
    {.name = "empty.jsonl", TEXT(""), .error = "empty.jsonl: the file has no rows"},
    {.name = "newlines.jsonl", TEXT("\n\r\n\n"), .error = "newlines.jsonl: the file has no rows"},
    {.name = "only_bom.jsonl",
     TEXT("\xef\xbb\xbf"),
     .error = "only_bom.jsonl: the file has no rows"},
    {.name = "utf16.jsonl",
     TEXT("\xff\xfe{\0}\0"),
     .error = "utf16.jsonl: the file is UTF-16, it must be UTF-8"},
    /* what JSON forbids */
    {.name = "dup.jsonl",
     TEXT("{\"text\":\"a\"}\n{\"text\":\"a\",\"text\":\"b\"}\n"),
     .error = "dup.jsonl:2:"},
    {.name = "surrogate.jsonl", TEXT("{\"text\":\"\\ud800\"}\n"), .error = "surrogate.jsonl:1:"},
    {.name = "nul_escape.jsonl", TEXT("{\"text\":\"\\u0000\"}\n"), .error = "nul_escape.jsonl:1:"},
    {.name = "nul.jsonl", TEXT("{\"text\":\"a\"}\n{\"text\":\"\0\"}\n"), .error = "nul.jsonl:2:"},
    {.name = "utf8.jsonl",
     TEXT("{\"text\":\"a\"}\n\n{\"text\":\"\xc3(\"}\n"),
     .error = "utf8.jsonl:3:"},
    {.name = "pair.jsonl", TEXT("{\"text\":\"\\ud83c\\udf33\"}\n"), .rows = 1},
    {.name = "torn.jsonl", TEXT("{\"text\":\"a\"}\n{\"text\":\"b\"\n"), .error = "torn.jsonl:2:"},
    {.name = "two.jsonl", TEXT("{\"text\":\"a\"}{\"text\":\"b\"}\n"), .error = "two.jsonl:1:"},
    {.name = "array.jsonl",
     TEXT("[1,2]\n"),
     .error = "array.jsonl:1: a row must be a JSON object {...}"},
    {.name = "single_quotes.jsonl", TEXT("{'text':'a'}\n"), .error = "single_quotes.jsonl:1:"},
    {.name = "skip.jsonl",
     TEXT("nonsense\n{\"text\":\"a\"}\n{\"text\":3}\n{\"text\":\"b\"}\n"),
     .rows = 2,
     .skip_bad = true,
     .bad = 2},
    {.name = "all_bad.jsonl",
     TEXT("nonsense\nmore\n"),
     .skip_bad = true,
     .error = "all_bad.jsonl: the file has no rows"},
    /* types of values */
    {.name = "number.jsonl",
     TEXT("{\"text\":\"a\"}\n{\"text\":5}\n"),
     .error = "number.jsonl:2: text must be a string, not an integer"},
    {.name = "null.jsonl",
     TEXT("{\"text\":\"a\"}\n{\"text\":null}\n"),
     .error = "null.jsonl:2: the row has no text"},
    {.name = "missing.jsonl",
     TEXT("{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"a\"}\n"),
     .error = "missing.jsonl:2: the row has no completion"},
    {.name = "unknown.jsonl",
     TEXT("{\"foo\":\"a\",\"bar\":1}\n"),
     .error = "unknown.jsonl:1: the fields are foo, bar; known are messages | conversations | "
              "instruction, output | prompt, completion | text (field_map names other columns)"},
    {.name = "type.jsonl",
     TEXT("{\"text\":\"a\"}\n"),
     .type = "parquet",
     .error =
         "datasets: */type.jsonl: the type \"parquet\" is not known; known are auto, messages, "
         "sharegpt, alpaca, prompt_completion, text, tokens, classification, words, question, "
         "sentences, audiofolder, translation, summarization, pair"},
    {.name = "explicit.jsonl",
     TEXT("{\"text\":\"a\",\"prompt\":\"b\",\"completion\":\"c\"}\n"),
     .type = "text",
     .rows = 1},
    /* conversations */
    {.name = "chat.jsonl",
     TEXT("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
          "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"b\"}]}]}\n"),
     .rows = 1},
    {.name = "no_messages.jsonl",
     TEXT("{\"messages\":[]}\n"),
     .error = "no_messages.jsonl:1: messages is an empty list of messages"},
    {.name = "role.jsonl",
     TEXT("{\"messages\":[{\"role\":\"robot\",\"content\":\"a\"}]}\n"),
     .error = "role.jsonl:1: messages[0] has the role \"robot\"; known are system, user, "
              "assistant, tool, developer"},
    {.name = "image.jsonl",
     TEXT("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}\n"),
     .error = "image.jsonl:1: messages[0].content[0] is a part of type \"image\"; only text can be "
              "trained"},
    {.name = "tools.jsonl",
     TEXT("{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{}]}],"
          "\"tools\":\"[{}]\"}\n"),
     .rows = 1},
    {.name = "tokens.jsonl",
     TEXT("{\"input_ids\":[5,6,7],\"labels\":[-100,6,7],\"attention_mask\":[1,1,0]}\n"
          "{\"input_ids\":[5,6]}\n"),
     .rows = 2},
    {.name = "labels.jsonl",
     TEXT("{\"input_ids\":[5,6],\"labels\":[5,7]}\n"),
     .error = "labels.jsonl:1: label 1 is 7; it must be -100 or the id at its place, 6"},
    {.name = "short.jsonl",
     TEXT("{\"input_ids\":[5,6],\"labels\":[5]}\n"),
     .error = "short.jsonl:1: labels must be a list as long as input_ids"},
    {.name = "plain.jsonl.gz",
     TEXT("{\"text\":\"a\"}\n"),
     .error = "plain.jsonl.gz: is not a gzip file, or is damaged: incorrect header check"},
    {.name = "rows.h5",
     TEXT("x"),
     .error = "rows.h5: cannot open the file: HDF5 says: file signature not found"},
    {.name = "plain.parquet",
     TEXT("{\"text\":\"a\"}\n"),
     .error = "plain.parquet: is not a Parquet file, or is damaged: no PAR1 at its end"},
    /* a field that nobody knows: a map of 2^64 - 1 truth values */
    {.name = "endless_map.parquet",
     TEXT("PAR1\x7b\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x11\x01\x01"
          "\x0e\0\0\0PAR1"),
     .error =
         "endless_map.parquet: is not a Parquet file, or is damaged: its footer cannot be read"},
    {.name = "no_tools.jsonl",
     TEXT("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":{}}\n"),
     .error = "no_tools.jsonl:1: tools must be a list"},
    {.name = "call.jsonl",
     TEXT("{\"conversations\":[{\"from\":\"function_call\",\"value\":\"x\"}]}\n"),
     .error = "call.jsonl:1: conversations[0] is a function_call whose value is not JSON"},
    {.name = "content.jsonl",
     TEXT("{\"messages\":[{\"role\":\"user\"}]}\n"),
     .error = "content.jsonl:1: messages[0] has no content"},
    {.name = "text_messages.jsonl",
     TEXT("{\"messages\":\"hello\"}\n"),
     .error = "text_messages.jsonl:1: messages must be a list of messages"},
    {.name = "sharegpt.jsonl",
     TEXT("{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},"
          "{\"from\":\"gpt\",\"value\":\"b\"}],\"system\":\"c\"}\n"),
     .rows = 1},
    {.name = "alpaca.jsonl",
     TEXT("{\"instruction\":\"a\",\"input\":\"\",\"output\":\"b\",\"history\":[[\"q\",\"r\"]]}\n"),
     .rows = 1},
    {.name = "history.jsonl",
     TEXT("{\"instruction\":\"a\",\"output\":\"b\",\"history\":[[\"q\"]]}\n"),
     .error = "history.jsonl:1: history[0] must be a pair [question, answer]"},
    {.name = "mixed.jsonl",
     TEXT("{\"prompt\":[{\"role\":\"user\",\"content\":\"a\"}],\"completion\":\"b\"}\n"),
     .error = "mixed.jsonl:1: completion must be a list of messages"},
    /* .json */
    {.name = "list.json", TEXT("[\n {\"text\":\"a\"},\n {\"text\":\"]},[{\"}\n]\n"), .rows = 2},
    {.name = "data.json",
     TEXT("{\"version\":[1], \"data\" : [{\"text\":\"a\"},{\"text\":\"b\"}],"
          "\"n\":{\"x\":[2]}}"),
     .rows = 2},
    {.name = "lines.json", TEXT("{\"text\":\"a\"}\n{\"text\":\"data\"}\n"), .rows = 2},
    {.name = "pretty.json", TEXT("{\n\"text\":\n\"a\"\n}\n{\n\"text\": \"b\" }"), .rows = 2},
    {.name = "empty_list.json", TEXT("[ ]"), .error = "empty_list.json: the file has no rows"},
    {.name = "no_comma.json",
     TEXT("[{\"text\":\"a\"}\n{\"text\":\"b\"}]"),
     .error = "no_comma.json:2: found '{' where a comma or the end of the list was expected"},
    {.name = "trailing_comma.json",
     TEXT("[{\"text\":\"a\"},\n]"),
     .error = "trailing_comma.json:2: a JSON value is missing here"},
    {.name = "open_list.json",
     TEXT("[{\"text\":\"a\"}\n"),
     .error = "open_list.json:2: the file ends where a comma or the end of the list was expected"},
    {.name = "open_value.json",
     TEXT("[{\"text\":\"a\"},\n{\"text\":\"b"),
     .error = "open_value.json:2: the JSON value that begins here does not end"},
    {.name = "after.json",
     TEXT("[{\"text\":\"a\"}]\n7"),
     .error = "after.json:2: text after the end of the list"},
    {.name = "scalar.json",
     TEXT("3"),
     .error = "scalar.json:1: a JSON data file begins with [ or {, not with '3'"},
    {.name = "inner.json",
     TEXT("[\n{\"text\":\n 5}]"),
     .error = "inner.json:2: text must be a string, not an integer"},
    {.name = "deep.json", TEXT("[\n{\"text\":\n x}]"), .error = "deep.json:3:"},
    /* tables */
    {.name = "plain.csv", TEXT("text,label\na,0\nb,1\n"), .labelled = true, .rows = 2},
    {.name = "quoted.csv",
     TEXT("text,label\r\n\"a, \"\"b\"\"\nc\",x\r\n\"\",y"),
     .labelled = true,
     .rows = 2},
    {.name = "bom.csv", TEXT("\xef\xbb\xbftext\na\n"), .rows = 1},
    {.name = "ragged.csv",
     TEXT("prompt,completion\na,b\nc\n"),
     .error = "ragged.csv:3: the row has 1 fields, the header 2"},
    {.name = "wide.csv",
     TEXT("prompt,completion\n\"a\n\",b\nc,d,e\n"),
     .error = "wide.csv:4: the row has 3 fields, the header 2"},
    {.name = "unclosed.csv",
     TEXT("text\na\n\"b\nc\n"),
     .error = "unclosed.csv:3: a quote opened in this row is never closed"},
    {.name = "after_quote.csv",
     TEXT("text\n\"a\"b\n"),
     .error = "after_quote.csv:2: field 1 has text after its closing quote"},
    {.name = "inside.csv", TEXT("text\na \"quoted\" word\n"), .rows = 1},
    {.name = "header.csv", TEXT("text,label\n"), .error = "header.csv: the file has no rows"},
    {.name = "nothing.csv", TEXT(""), .error = "nothing.csv: the file has no rows"},
    {.name = "twice.csv",
     TEXT("text,text\na,b\n"),
     .error = "twice.csv:1: the header has the column \"text\" twice"},
    {.name = "latin1.csv",
     TEXT("text\nna\xefve\n"),
     .error = "latin1.csv:2: byte 3 of the row (0xef) is not UTF-8 text"},
    {.name = "label.csv",
     TEXT("sentence1,sentence2,label\na,b,\n"),
     .labelled = true,
     .error = "label.csv:2: the label is empty"},
    {.name = "negative.csv",
     TEXT("text,label\na,-1\n"),
     .labelled = true,
     .error = "negative.csv:2: the label is -1, it must be between 0 and 999999"},
    {.name = "unlabelled.csv",
     TEXT("text,y\na,1\n"),
     .labelled = true,
     .error = "unlabelled.csv:2: the fields are text, y; a labelled text has label and text, "
              "sentence or sentence1 (field_map names other columns)"},
    {.name = "tabs.tsv", TEXT("prompt\tcompletion\na, b\tc\n\n"), .rows = 1},
    {.name = "messages.csv",
     TEXT("messages\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"a\"\"}]\"\n"),
     .rows = 1},
    /* texts */
    {.name = "whole.txt", TEXT("a\n\nb\nc\n"), .rows = 1},
    {.name = "lines.txt", TEXT("a\n\nb\nc"), .type = "lines", .rows = 3},
    {.name = "paragraphs.txt", TEXT("\na\nb\n\n\nc\n"), .type = "paragraphs", .rows = 2},
    {.name = "blank.txt", TEXT(" \n\n"), .error = "blank.txt: the file has no rows"},
    {.name = "zero.txt",
     TEXT("a\0b"),
     .error = "zero.txt:1: byte 2 of the row (0x00) is not UTF-8 "
              "text"},
    {.name = "page.html",
     TEXT("<html>"),
     .error = "page.html: the name must end in .jsonl, .json, .csv, .tsv or .txt, perhaps with "
              ".gz or .zst behind it, or in .parquet, .h5 or .hdf5"},
};

/* An expectation that ends in ':' is a beginning; '*' stands for the folder. */
static bool says(const char *sentence, const char *want)
{
    const char *star = strchr(want, '*');
    const size_t n = strlen(want);
    char full[1000];

    if (star != NULL) {
        snprintf(full, sizeof full, "%.*s%s%s", (int)(star - want), want, root, star + 1);
        return strcmp(sentence, full) == 0;
    }
    return want[n - 1] == ':' ? strncmp(sentence, want, n) == 0 : strcmp(sentence, want) == 0;
}

static void odd_files_give_their_rows_or_one_sentence(void **state)
{
    int wrong = 0;

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const mb_source source = {
            .path = file_of(files[i].name, files[i].text, files[i].n),
            .type = files[i].type,
            .rows = files[i].labelled ? MB_WANT_CLASS : MB_WANT_TEXT,
            .skip_bad = files[i].skip_bad,
        };
        char sentence[1000];
        int64_t bad;
        const int64_t rows = read_all(&source, &bad, sentence, sizeof sentence);
        const bool good = files[i].error != NULL ? rows < 0 && says(sentence, files[i].error)
                                                 : rows == files[i].rows && bad == files[i].bad;

        if (!good) {
            print_error("%s: %lld rows, %lld bad, \"%s\"; expected %lld or \"%s\"\n", files[i].name,
                        (long long)rows, (long long)bad, sentence, (long long)files[i].rows,
                        files[i].error ? files[i].error : "");
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
    assert_true(sizeof files / sizeof files[0] >= 40);
}

/* The first record of a file of one row. */
static void first_record(const mb_source *source, mb_record *rec)
{
    mb_records *r;
    mb_row_text row;
    bool more;

    if (mb_records_open(source, &r) != MB_OK)
        fail_msg("%s", mb_status_sentence());
    assert_int_equal(mb_records_next(r, &row, &more), MB_OK);
    assert_true(more);
    if (mb_records_parse(r, &row, rec) != MB_OK)
        fail_msg("%s", mb_status_sentence());
    mb_records_close(r);
}

static void expect_messages(const mb_record *rec, const char *want)
{
    char got[400];
    size_t at = 0;

    assert_int_equal(rec->kind, MB_RECORD_CHAT);
    for (int64_t i = 0; i < rec->n_messages; i++)
        at += (size_t)snprintf(got + at, sizeof got - at, "%s=%s%s|",
                               mb_role_name(rec->message[i].role), rec->message[i].content,
                               rec->message[i].completion ? "!" : "");
    assert_string_equal(got, want);
}

static void formats_become_the_same_conversation(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":"
         "[{\"type\":\"text\",\"text\":\"u\"},\"v\"]},{\"role\":\"assistant\",\"content\":\"a\"}]}",
         "system=s|user=uv|assistant=a|"},
        {"{\"conversations\":[{\"from\":\"human\",\"value\":\"u\"},{\"from\":\"gpt\",\"value\":"
         "\"a\"}],\"system\":\"s\"}",
         "system=s|user=u|assistant=a|"},
        {"{\"instruction\":\"u\",\"input\":\"v\",\"output\":\"a\",\"system\":\"s\",\"history\":"
         "[[\"q\",\"r\"]]}",
         "system=s|user=q|assistant=r|user=u\nv|assistant=a|"},
        {"{\"instruction\":\"u\",\"input\":null,\"output\":\"a\"}", "user=u|assistant=a|"},
        {"{\"prompt\":[{\"role\":\"user\",\"content\":\"u\"}],\"completion\":[{\"role\":"
         "\"assistant\",\"content\":\"a\"}]}",
         "user=u|assistant=a!|"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const mb_source source = {.path = file_of("one.jsonl", rows[i].text, strlen(rows[i].text))};
        mb_record rec;

        first_record(&source, &rec);
        expect_messages(&rec, rows[i].want);
        mb_record_release(&rec);
    }
}

static void field_map_names_the_columns(void **state)
{
    static const mb_field_map map[] = {{"prompt", "en"}, {"completion", "sw"}};
    static const char text[] = "en,sw,text\nwater,maji,x\n";
    const mb_source source = {
        .path = file_of("map.csv", text, sizeof text - 1), .field = map, .n_fields = 2};
    mb_record rec;

    first_record(&source, &rec);
    assert_int_equal(rec.kind, MB_RECORD_PAIR);
    assert_string_equal(rec.text, "water");
    assert_string_equal(rec.text2, "maji");
    mb_record_release(&rec);
}

static void labels_are_integers_or_words(void **state)
{
    static const struct {
        const char *name, *text, *label;
        int64_t id;
    } rows[] = {
        {"l.csv", "text,label\na,3\n", NULL, 3},
        {"l.csv", "text,label\na,good\n", "good", 0},
        {"l.jsonl", "{\"sentence\":\"a\",\"label\":2}", NULL, 2},
        {"l.jsonl", "{\"sentence1\":\"a\",\"sentence2\":\"b\",\"label\":\"3\"}", "3", 0},
        {"l.jsonl", "{\"text\":\"a\",\"label\":true}", NULL, 1},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const mb_source source = {.path = file_of(rows[i].name, rows[i].text, strlen(rows[i].text)),
                                  .rows = MB_WANT_CLASS};
        mb_record rec;

        first_record(&source, &rec);
        assert_int_equal(rec.kind, MB_RECORD_CLASS);
        assert_true(rec.n_labels == 1 && rec.labelled);
        if (rows[i].label != NULL)
            assert_string_equal(rec.label->name, rows[i].label);
        else
            assert_true(rec.label->name == NULL && rec.label->id == rows[i].id);
        mb_record_release(&rec);
    }
}

static void splits_slice_as_datasets_does(void **state)
{
    static const struct {
        const char *split;
        int64_t n, from, to; /* from -1: an error */
    } cases[] = {
        {"train", 10, 0, 10},
        {"train[:3]", 10, 0, 3},
        {"train[3:]", 10, 3, 10},
        {"train[-2:]", 10, 8, 10},
        {"train[:-2]", 10, 0, 8},
        {"train[:95%]", 3101, 0, 2946},
        {"train[95%:]", 3101, 2946, 3101},
        {"train[10%:20%]", 10, 1, 2},
        {"train[:50%]", 5, 0, 2},
        {"train[:50%]", 7, 0, 4},
        {"train[-10%:]", 20, 18, 20},
        {"train[:200]", 10, 0, 10},
        {"train[5]", 10, -1, 0},
        {"train[a:]", 10, -1, 0},
        {"train[:101%]", 10, -1, 0},
        {"train[:5", 10, -1, 0},
        {"train[:5]x", 10, -1, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t from, to;
        const mb_status st = mb_split_bounds(cases[i].split, cases[i].n, &from, &to);

        if (cases[i].from < 0) {
            assert_int_equal(st, MB_EARG);
            mb_status_clear();
            continue;
        }
        assert_int_equal(st, MB_OK);
        assert_int_equal(from, cases[i].from);
        assert_int_equal(to, cases[i].to);
    }
}

static void a_split_of_a_file_is_those_rows(void **state)
{
    char text[2000], sentence[300];
    size_t n = 0;
    int64_t bad;

    for (int i = 0; i < 100; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "{\"text\":\"%d\"}\n", i);
    const char *path = file_of("hundred.jsonl", text, n);
    mb_source source = {.path = path, .split = "train[90%:]"};
    mb_record rec;

    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), 10);
    first_record(&source, &rec);
    assert_string_equal(rec.text, "90");
    mb_record_release(&rec);
    source.split = "train[98%:] + train[:1%]+train[3:5]";
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), 5);
    first_record(&source, &rec);
    assert_string_equal(rec.text, "98");
    mb_record_release(&rec);
    source.split = "train[:5]+train[7:7]";
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), -1);
    assert_string_equal(sentence, "hundred.jsonl: split \"train[7:7]\" of 100 rows is empty");
    source.split = "train[50:50]";
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), -1);
    assert_string_equal(sentence, "hundred.jsonl: split \"train[50:50]\" of 100 rows is empty");
}

static void a_folder_has_a_file_for_each_split(void **state)
{
    static const char row[] = "{\"text\":\"a\"}\n", two[] = "{\"text\":\"b\"}\n{\"text\":\"c\"}\n";
    char dir[300], sentence[400];
    int64_t bad;

    snprintf(dir, sizeof dir, "%s/set/data", root);
    assert_int_equal(mb_path_mkdirs(dir), MB_OK);
    file_of("set/train.jsonl", row, sizeof row - 1);
    file_of("set/dev.jsonl", two, sizeof two - 1);
    file_of("set/training_notes.txt", row, sizeof row - 1);
    file_of("set/data/test-00000-of-00001.jsonl", two, sizeof two - 1);
    snprintf(dir, sizeof dir, "%s/set", root);
    mb_source source = {.path = dir};
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), 1);
    source.split = "validation[:50%]";
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), 1);
    source.split = "test";
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), 2);
    source.split = "other";
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), -1);
    assert_non_null(strstr(sentence, "without a data file of the split other (other.jsonl, "));
    file_of("set/train.csv", row, sizeof row - 1);
    source.split = NULL;
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), -1);
    assert_non_null(strstr(sentence, "set has 2 files of the split train; name each of them"));
}

static void rows_longer_than_the_buffer_are_read_and_a_limit_holds(void **state)
{
    const size_t n = 5 << 20;
    char *text, sentence[300];
    void *p;
    int64_t bad;

    assert_int_equal(mb_alloc(n + 100, "a long row", &p), MB_OK);
    text = p;
    memset(text, 'x', n + 40);
    memcpy(text, "{\"text\":\"", 9);
    memcpy(text + n, "\"}\n{\"text\":\"b\"}\n", 16);
    mb_source source = {.path = file_of("long.jsonl", text, n + 16)};

    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), 2);
    mb_free(p);
}

static void what_is_not_a_regular_file_is_refused(void **state)
{
    char path[200], sentence[300];
    int64_t bad;
    mb_source source = {.path = path};

    snprintf(path, sizeof path, "%s/none.jsonl", root);
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), -1);
    assert_non_null(strstr(sentence, "none.jsonl"));
    snprintf(path, sizeof path, "%s/dir.jsonl", root);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), -1);
    assert_non_null(strstr(sentence, "dir.jsonl"));
    snprintf(path, sizeof path, "%s/pipe.jsonl", root);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), -1);
    assert_non_null(strstr(sentence, "pipe.jsonl"));
}

static void messages_of_a_command_are_parsed(void **state)
{
    static const char good[] = "[{\"role\":\"user\",\"content\":\"a\"}]";
    static const char bad[] = "{\"role\":\"user\"}";
    mb_record rec;

    assert_int_equal(mb_messages_parse(good, sizeof good - 1, "--messages", &rec), MB_OK);
    expect_messages(&rec, "user=a|");
    mb_record_release(&rec);
    assert_int_equal(mb_messages_parse(bad, sizeof bad - 1, "--messages", &rec), MB_EARG);
    mb_status_clear();
}

/* train.sw beside train.en: lines belong together by their numbers, also of packed files. */
static void two_files_are_sides_of_pairs(void **state)
{
    static const char sw[] = "maji\n\n \"mti\"\tmrefu\r\nmoto",
                      en[] = "water\n\na tall tree\nfire\n";
    static const char *const want[][2] = {
        {"maji", "water"}, {" \"mti\"\tmrefu", "a tall tree"}, {"moto", "fire"}};
    mb_source source = {.rows = MB_WANT_PAIRS, .source_lang = "sw", .target_lang = "en"};

    file_of("t.en", en, sizeof en - 1);
    for (int named = 0; named < 2; named++) { /* either of them may be */
        mb_records *r;
        mb_row_text row;
        bool more;
        int n = 0;

        source.path =
            named == 0 ? file_of("t.sw", sw, sizeof sw - 1) : file_of("t.en", en, sizeof en - 1);
        assert_int_equal(mb_records_open(&source, &r), MB_OK);
        for (;; n++) {
            assert_int_equal(mb_records_next(r, &row, &more), MB_OK);
            if (!more)
                break;
            mb_record rec = {0};
            assert_int_equal(mb_records_parse(r, &row, &rec), MB_OK);
            assert_int_equal(rec.kind, MB_RECORD_PAIR);
            assert_string_equal(rec.text, want[n][0]);
            assert_string_equal(rec.text2, want[n][1]);
            assert_int_equal(row.line, n + 1 + (n > 0));
            mb_record_release(&rec);
        }
        assert_int_equal(n, 3);
        mb_records_close(r);
    }
}

static void sides_of_other_lengths_are_refused(void **state)
{
    mb_source source = {.rows = MB_WANT_PAIRS, .source_lang = "sw", .target_lang = "en"};
    mb_records *r;
    mb_row_text row;
    bool more;

    file_of("u.en", "c\n", 2);
    source.path = file_of("u.sw", "a\nb\n", 4);
    assert_int_equal(mb_records_open(&source, &r), MB_OK);
    assert_int_equal(mb_records_next(r, &row, &more), MB_OK);
    assert_int_equal(mb_records_next(r, &row, &more), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "u.en has 1 lines and "));
    mb_status_clear();
    mb_records_close(r);
    source.path = file_of("v.sw", "a\n", 2);
    assert_int_equal(mb_records_open(&source, &r), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "v.en"));
    mb_status_clear();
    source.target_lang = NULL; /* then it is a file whose name says nothing */
    assert_int_equal(mb_records_open(&source, &r), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "the name must end in"));
    mb_status_clear();
}

enum { HDF5_ROWS = 300000 };

/* Rows of ids in the groups train and val, more than a slab has; a lonely column in another. */
static const char *hdf5_file(void)
{
    static char path[200];
    static int32_t id[HDF5_ROWS][2];
    const int64_t from[2] = {0, 0}, size[2] = {HDF5_ROWS, 2}, few[2] = {5, 2};
    mb_h5 *f;

    for (int32_t i = 0; i < HDF5_ROWS; i++)
        id[i][0] = i, id[i][1] = 7;
    snprintf(path, sizeof path, "%s/ids.h5", root);
    assert_int_equal(mb_h5_create(path, &f), MB_OK);
    assert_int_equal(mb_h5_make(f, "/train/input_ids", MB_DTYPE_I32, 2, size), MB_OK);
    assert_int_equal(mb_h5_write(f, "/train/input_ids", MB_DTYPE_I32, 2, from, size, id), MB_OK);
    assert_int_equal(mb_h5_make(f, "/val/input_ids", MB_DTYPE_I32, 2, few), MB_OK);
    assert_int_equal(mb_h5_write(f, "/val/input_ids", MB_DTYPE_I32, 2, from, few, id), MB_OK);
    assert_int_equal(mb_h5_put(f, "/odd/input_ids", MB_DTYPE_I32, 4, id), MB_OK);
    assert_int_equal(mb_h5_put(f, "/odd/labels", MB_DTYPE_I32, 6, id), MB_OK);
    assert_int_equal(mb_h5_close(f), MB_OK);
    return path;
}

static void groups_of_an_hdf5_file_are_splits_or_named(void **state)
{
    const char *const path = hdf5_file();
    char inner[300], sentence[1000];
    const struct {
        const char *group, *split;
        int64_t rows, first;
    } cases[] = {
        {"", NULL, HDF5_ROWS, 0},
        {"", "validation", 5, 0},
        {"", "train[131070:131080]", 10, 131070},
        {"/val", NULL, 5, 0},
        {"/val", "train[-2:]", 2, 3},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mb_source source = {.path = inner, .split = cases[i].split};
        int64_t bad;
        mb_record rec;

        snprintf(inner, sizeof inner, "%s%s", path, cases[i].group);
        assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), cases[i].rows);
        first_record(&source, &rec);
        assert_int_equal(rec.n_ids, 2);
        assert_int_equal(rec.ids[0], cases[i].first);
        assert_int_equal(rec.ids[1], 7);
        mb_record_release(&rec);
    }
}

static void an_hdf5_file_that_is_no_table_is_one_sentence(void **state)
{
    const char *const path = hdf5_file();
    char inner[300], sentence[1000], *bytes;
    int64_t bad;
    size_t n;
    const struct {
        const char *group, *split, *error;
    } cases[] = {
        {"", "test",
         "ids.h5: the group / has no datasets, which would be the columns, and no group test of the "
         "split; its groups: odd, train, val"},
        {"/nothing", NULL, "ids.h5: there is no group /nothing; links are not followed"},
        {"/odd", NULL,
         "ids.h5/odd: the columns do not have the same rows: input_ids has 4, labels 6"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mb_source source = {.path = inner, .split = cases[i].split};

        snprintf(inner, sizeof inner, "%s%s", path, cases[i].group);
        assert_int_equal(read_all(&source, &bad, sentence, sizeof sentence), -1);
        assert_string_equal(sentence, cases[i].error);
    }
    assert_int_equal(mb_file_read(path, 1 << 30, &bytes, &n), MB_OK);
    const mb_source cut = {.path = file_of("cut.h5", bytes, n / 2)};
    mb_free(bytes);
    assert_int_equal(read_all(&cut, &bad, sentence, sizeof sentence), -1);
    assert_non_null(strstr(sentence, "cut.h5: cannot open the file: HDF5 says: truncated file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_of_an_hdf5_file_are_splits_or_named),
        cmocka_unit_test(an_hdf5_file_that_is_no_table_is_one_sentence),
        cmocka_unit_test(two_files_are_sides_of_pairs),
        cmocka_unit_test(sides_of_other_lengths_are_refused),
        cmocka_unit_test(odd_files_give_their_rows_or_one_sentence),
        cmocka_unit_test(formats_become_the_same_conversation),
        cmocka_unit_test(field_map_names_the_columns),
        cmocka_unit_test(labels_are_integers_or_words),
        cmocka_unit_test(splits_slice_as_datasets_does),
        cmocka_unit_test(a_split_of_a_file_is_those_rows),
        cmocka_unit_test(a_folder_has_a_file_for_each_split),
        cmocka_unit_test(rows_longer_than_the_buffer_are_read_and_a_limit_holds),
        cmocka_unit_test(what_is_not_a_regular_file_is_refused),
        cmocka_unit_test(messages_of_a_command_are_parsed),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
