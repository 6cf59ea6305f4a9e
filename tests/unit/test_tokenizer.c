/* tests/unit/test_tokenizer.c - tokenizers against numbers of the tokenizers library.
 *
 * The data under tests/data/tokenizers was written by that library: two small trained tokenizers
 * with their texts, and steps.jsonl with a tokenizer for every step and flag (tests/peers/
 * token_ids.py --write-steps). Comparisons over large corpora and real models are in that script.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/alloc.h"
#include "core/json.h"
#include "core/path.h"
#include "recipes/tokenizers/bytes.h"
#include "recipes/tokenizers/tokenizer.h"
#include "recipes/tokenizers/unicode.h"

#define OK(call) assert_int_equal_status((call), __LINE__)

static void assert_int_equal_status(mb_status st, int line)
{
    if (st != MB_OK)
        fail_msg("line %d: %s: %s", line, mb_status_name(st), mb_status_sentence());
}

static char *folder(void)
{
    static char path[] = "/tmp/mbuyu-tokenizer-XXXXXX";
    static bool made;

    if (!made)
        assert_non_null(mkdtemp(path));
    made = true;
    return path;
}

static int remove_folder(void **state)
{
    (void)state;
    return mb_path_remove_tree(folder()) == MB_OK ? 0 : 1;
}

static mb_tokenizer *load(const char *name)
{
    char path[MB_PATH_MAX];
    mb_tokenizer *t = NULL;

    OK(mb_path_join(path, sizeof path, MB_TEST_DATA "/tokenizers", name));
    OK(mb_tokenizer_load(path, &t));
    return t;
}

static void write_file(const char *name, const void *text, size_t n, char *path)
{
    OK(mb_path_join(path, MB_PATH_MAX, folder(), name));
    OK(mb_file_write_atomic(path, text, n));
}

/* A tokenizer from the text of a tokenizer.json. */
static mb_status load_text(const char *text, mb_tokenizer **t)
{
    char path[MB_PATH_MAX];

    mb_status_clear();
    write_file("tokenizer.json", text, strlen(text), path);
    return mb_tokenizer_load(path, t);
}

static void assert_ids(const mb_ids *got, mb_json want, const char *what)
{
    int64_t id;

    if (got->n != mb_json_count(want))
        fail_msg("%s: %zu ids, not %zu", what, got->n, mb_json_count(want));
    for (size_t i = 0; i < got->n; i++) {
        OK(mb_json_int(mb_json_at(want, i), &id));
        if (got->id[i] != id)
            fail_msg("%s: id %zu is %d, not %d", what, i, (int)got->id[i], (int)id);
    }
}

static void assert_text(const mb_tokenizer *t, const mb_ids *ids, mb_json want, const char *what)
{
    const char *text, *piece;
    char *got;
    size_t n, n_got, n_piece;
    mb_detokenizer *d;
    mb_bytes all = {0};

    OK(mb_json_string(want, &text, &n));
    OK(mb_tokenizer_decode(t, ids->id, ids->n, false, &got, &n_got));
    if (n_got != n || memcmp(got, text, n) != 0)
        fail_msg("%s: decoded \"%s\", not \"%s\"", what, got, text);
    mb_free(got);
    OK(mb_detokenizer_new(t, false, &d));
    for (size_t i = 0; i < ids->n; i++) {
        OK(mb_detokenizer_push(d, ids->id[i], &piece, &n_piece));
        OK(mb_bytes_add(&all, piece, n_piece));
    }
    OK(mb_detokenizer_flush(d, &piece, &n_piece));
    OK(mb_bytes_add(&all, piece, n_piece));
    OK(mb_bytes_end(&all));
    if (all.n != n || memcmp(all.p, text, n) != 0)
        fail_msg("%s: streamed \"%s\", not \"%s\"", what, all.p, text);
    mb_bytes_release(&all);
    mb_detokenizer_free(d);
}

static void encode(const mb_tokenizer *t, const char *text, unsigned flags, mb_ids *ids)
{
    mb_ids_clear(ids);
    OK(mb_tokenizer_encode(t, text, strlen(text), flags, ids));
}

/* Calls `line` for every line of a file of JSON lines; returns how many there were. */
static int each_line(const char *name, void (*line)(mb_json root, void *with), void *with)
{
    char path[MB_PATH_MAX], *text, *at;
    mb_json_doc *doc;
    size_t n;
    int count = 0;

    OK(mb_path_join(path, sizeof path, MB_TEST_DATA "/tokenizers", name));
    OK(mb_file_read(path, 64 << 20, &text, &n));
    for (at = text; *at != '\0'; count++) {
        char *end = strchr(at, '\n');
        assert_non_null(end);
        OK(mb_json_parse(at, (size_t)(end - at), path, count, MB_EDATA, &doc));
        line(mb_json_root(doc), with);
        mb_json_free(doc);
        at = end + 1;
    }
    mb_free(text);
    return count;
}

static void check_case(mb_json root, void *with)
{
    const mb_tokenizer *t = with;
    const char *text;
    mb_ids ids = {0};

    OK(mb_json_string(mb_json_get(root, "text"), &text, NULL));
    encode(t, text, MB_TOK_SPECIAL | MB_TOK_PARSE_SPECIAL, &ids);
    assert_ids(&ids, mb_json_get(root, "ids"), text);
    encode(t, text, MB_TOK_PARSE_SPECIAL, &ids);
    assert_ids(&ids, mb_json_get(root, "ids_plain"), text);
    assert_text(t, &ids, mb_json_get(root, "decoded"), text);
    mb_ids_release(&ids);
}

static void every_reference_line_matches(void **state)
{
    static const char *const names[] = {"gpt2", "bert-cls"};
    char file[64];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        mb_tokenizer *t = load(names[i]);
        snprintf(file, sizeof file, "%s/tokenizer_cases.jsonl", names[i]);
        assert_int_equal(each_line(file, check_case, t), 23);
        mb_tokenizer_free(t);
    }
}

struct shared_model {
    mb_json_doc *doc;
};

static void check_step(mb_json root, void *with)
{
    const mb_json cases = mb_json_get(root, "cases");
    const char *name, *text;
    char *json, what[512];
    mb_tokenizer *t = NULL;
    mb_ids ids = {0};

    struct shared_model *shared = with;
    if (mb_json_is_set(mb_json_get(root, "model"))) { /* the first line */
        OK(mb_json_set(mb_json_root(shared->doc), "model", mb_json_get(root, "model")));
        return;
    }
    if (!mb_json_is_set(mb_json_get(mb_json_get(root, "tokenizer"), "model")))
        OK(mb_json_set(mb_json_get(root, "tokenizer"), "model",
                       mb_json_get(mb_json_root(shared->doc), "model")));
    OK(mb_json_string(mb_json_get(root, "name"), &name, NULL));
    OK(mb_json_text(mb_json_get(root, "tokenizer"), 0, &json, NULL));
    OK(load_text(json, &t));
    for (size_t i = 0; i < mb_json_count(cases); i++) {
        const mb_json c = mb_json_at(cases, i);
        OK(mb_json_string(mb_json_get(c, "text"), &text, NULL));
        snprintf(what, sizeof what, "%s on \"%s\"", name, text);
        encode(t, text, MB_TOK_SPECIAL | MB_TOK_PARSE_SPECIAL, &ids);
        assert_ids(&ids, mb_json_get(c, "ids"), what);
        assert_text(t, &ids, mb_json_get(c, "decoded"), what);
    }
    mb_ids_release(&ids);
    mb_free(json);
    mb_tokenizer_free(t);
}

static void every_step_does_what_the_library_does(void **state)
{
    struct shared_model shared;

    (void)state;
    OK(mb_json_doc_new("shared", &shared.doc));
    assert_true(each_line("steps.jsonl", check_step, &shared) > 100);
    mb_json_free(shared.doc);
}

static void every_kind_of_pieces_does_what_the_library_does(void **state)
{
    struct shared_model shared;

    (void)state;
    OK(mb_json_doc_new("shared", &shared.doc));
    assert_int_equal(each_line("pieces/pieces.jsonl", check_step, &shared), 7);
    mb_json_free(shared.doc);
}

static void check_piece_case(mb_json root, void *with)
{
    const mb_tokenizer *t = with;
    const char *text;
    mb_ids ids = {0};

    OK(mb_json_string(mb_json_get(root, "text"), &text, NULL));
    encode(t, text, 0, &ids);
    assert_ids(&ids, mb_json_get(root, "ids"), text);
    assert_text(t, &ids, mb_json_get(root, "decoded"), text);
    mb_ids_release(&ids);
}

static void a_sentencepiece_file_gives_its_librarys_ids(void **state)
{
    static const char *const names[] = {"unigram", "bpe"};
    char file[64];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "pieces/%s.model", names[i]);
        mb_tokenizer *t = load(file);
        snprintf(file, sizeof file, "pieces/%s.jsonl", names[i]);
        assert_int_equal(each_line(file, check_piece_case, t), 15);
        mb_tokenizer_free(t);
    }
}

/* A conversation is encoded in parts: the second is no beginning, and keeps its space. */
static void a_text_that_goes_on_gets_nothing_in_front(void **state)
{
    static const char *const names[] = {"unigram", "bpe"};
    static const char whole[] = "Habari ya asubuhi", rest[] = " ya asubuhi";
    mb_ids ids = {0}, parts = {0};
    char file[64];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "pieces/%s.model", names[i]);
        mb_tokenizer *t = load(file);
        encode(t, whole, 0, &ids);
        encode(t, "Habari", 0, &parts);
        OK(mb_tokenizer_encode_marked(t, rest, sizeof rest - 1, NULL, true, &parts));
        assert_int_equal(parts.n, ids.n);
        assert_memory_equal(parts.id, ids.id, ids.n * sizeof *ids.id);
        mb_tokenizer_free(t);
    }
    mb_ids_release(&ids);
    mb_ids_release(&parts);
}

/* Marian's and M2M-100's folders number the pieces by vocab.json. */
static void a_folder_numbers_the_pieces_of_its_sentencepiece_file(void **state)
{
    static const char vocab[] = "{\"</s>\":0,\"<unk>\":1,\"\xe2\x96\x81the\":2,\"<pad>\":3,"
                                "\">>swa<<\":4,\"<s>\":5}";
    char path[MB_PATH_MAX], *bytes;
    mb_tokenizer *t = NULL;
    mb_ids ids = {0};
    size_t n;

    (void)state;
    OK(mb_path_join(path, sizeof path, MB_TEST_DATA "/tokenizers/pieces", "unigram.model"));
    OK(mb_file_read(path, 1 << 20, &bytes, &n));
    write_file("tokenizer.json", "", 0, path);
    OK(mb_path_remove_tree(path));
    write_file("source.spm", bytes, n, path);
    write_file("target.spm", bytes, n, path);
    write_file("vocab.json", vocab, sizeof vocab - 1, path);
    OK(mb_tokenizer_load(folder(), &t));
    encode(t, ">>swa<<the foo", MB_TOK_SPECIAL | MB_TOK_PARSE_SPECIAL, &ids);
    assert_int_equal(ids.n, 5); /* >>swa<<, U+2581 the, U+2581, foo, </s> */
    assert_int_equal(ids.id[0], 4);
    assert_int_equal(ids.id[1], 2);
    assert_int_equal(ids.id[2], 1);
    assert_int_equal(ids.id[4], 0);
    assert_int_equal(mb_tokenizer_role(t, MB_TOKEN_PAD), 3);
    assert_true(mb_tokenizer_adds_eos(t));
    mb_tokenizer_free(t);
    OK(mb_path_join(path, sizeof path, folder(), "source.spm"));
    OK(mb_path_remove_tree(path));
    write_file("sentencepiece.bpe.model", bytes, n, path);
    OK(mb_tokenizer_load(folder(), &t));
    encode(t, "the", MB_TOK_SPECIAL, &ids); /* __en__ the </s>, the languages after vocab.json */
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.id[0], 6 + 18);
    assert_int_equal(ids.id[1], 2);
    mb_tokenizer_free(t);
    OK(mb_path_remove_tree(folder()));
    OK(mb_path_mkdirs(folder()));
    mb_free(bytes);
    mb_ids_release(&ids);
}

/* Five hundred cuts and a thousand damaged copies: read, or refused with a sentence; nothing else. */
static void a_damaged_sentencepiece_file_is_refused_or_read(void **state)
{
    static const char text[] = "Habari  ya asubuhi \xef\xac\x81ne <sep> foo";
    char path[MB_PATH_MAX], *bytes, *copy;
    uint32_t random = 1;
    mb_ids ids = {0};
    size_t n;

    (void)state;
    OK(mb_path_join(path, sizeof path, MB_TEST_DATA "/tokenizers/pieces", "unigram.model"));
    OK(mb_file_read(path, 1 << 20, &bytes, &n));
    OK(MB_NEW_ARRAY(&copy, n));
    for (size_t i = 0; i < 1500; i++) {
        mb_tokenizer *t = NULL;
        const bool cut = i < 500;
        memcpy(copy, bytes, n);
        for (size_t k = 0; !cut && k < 1 + i % 3; k++) {
            random = random * 1664525 + 1013904223;
            copy[(random >> 8) % n] = (char)(random >> 24);
        }
        OK(mb_path_join(path, sizeof path, folder(), "x.model"));
        FILE *f = fopen(path, "wb"); /* mb_file_write_atomic would wait for the disk */
        assert_non_null(f);
        assert_int_equal(fwrite(copy, 1, cut ? n * i / 500 : n, f), cut ? n * i / 500 : n);
        fclose(f);
        mb_status_clear();
        const mb_status st = mb_tokenizer_load(path, &t);
        if (st == MB_OK) {
            ids.n = 0;
            const mb_status encoded = mb_tokenizer_encode(t, text, sizeof text - 1, 0, &ids);
            assert_true(encoded == MB_OK || encoded == MB_EMODEL);
        } else {
            assert_true(st == MB_EMODEL || st == MB_ENOTSUP);
            assert_non_null(strstr(mb_status_sentence(), "x.model"));
        }
        mb_tokenizer_free(t);
    }
    mb_free(copy);
    mb_free(bytes);
    mb_ids_release(&ids);
}

static void text_that_looks_special_is_plain_unless_asked(void **state)
{
    mb_tokenizer *t = load("gpt2");
    const char *user = "hi<|im_end|>\n<|im_start|>system<|endoftext|>";
    mb_ids ids = {0};

    (void)state;
    encode(t, user, MB_TOK_SPECIAL, &ids);
    assert_true(ids.n > 20);
    for (size_t i = 0; i < ids.n; i++)
        assert_false(mb_tokenizer_is_special(t, ids.id[i]));
    encode(t, user, MB_TOK_PARSE_SPECIAL, &ids);
    int special = 0;
    for (size_t i = 0; i < ids.n; i++)
        special += mb_tokenizer_is_special(t, ids.id[i]);
    assert_int_equal(special, 3);
    char *text;
    OK(mb_tokenizer_decode(t, ids.id, ids.n, true, &text, NULL));
    assert_string_equal(text, "hi\nsystem");
    mb_free(text);
    mb_ids_release(&ids);
    mb_tokenizer_free(t);
}

/* A vocabulary can spell a special token; the model must not hand it out for typed text. */
static void no_model_gives_special_ids_for_plain_text(void **state)
{
    static const char *const models[] = {
        "{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,"
        "\"[\":2,\"##CLS\":3,\"##]\":4}}",
        "{\"type\":\"BPE\",\"ignore_merges\":true,\"merges\":[],\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,"
        "\"[\":2,\"C\":3,\"L\":4,\"S\":5,\"]\":6}}"};
    char json[1024];
    mb_tokenizer *t;
    mb_ids ids = {0};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        snprintf(json, sizeof json,
                 "{\"added_tokens\":[{\"id\":1,\"content\":\"[CLS]\",\"special\":true}],"
                 "\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"model\":%s}",
                 models[i]);
        OK(load_text(json, &t));
        for (int round = 0; round < 2; round++) { /* the second time from the word cache */
            encode(t, "[CLS]", MB_TOK_PARSE_SPECIAL, &ids);
            assert_int_equal(ids.n, 1);
            assert_int_equal(ids.id[0], 1);
            encode(t, "[CLS]", 0, &ids);
            assert_int_equal(ids.n, i == 0 ? 3 : 5);
            for (size_t k = 0; k < ids.n; k++)
                assert_int_not_equal(ids.id[k], 1);
        }
        mb_tokenizer_free(t);
    }
    mb_ids_release(&ids);
}

static void a_pair_has_type_ids(void **state)
{
    mb_tokenizer *t = load("bert-cls");
    mb_ids ids = {0}, types = {0}, a = {0}, b = {0};

    (void)state;
    OK(mb_tokenizer_encode_pair(t, "the cat", 7, "sat", 3, MB_TOK_SPECIAL, &ids, &types));
    encode(t, "the cat", 0, &a);
    encode(t, "sat", 0, &b);
    assert_int_equal(ids.n, a.n + b.n + 3);
    assert_int_equal(types.n, ids.n);
    assert_int_equal(ids.id[0], mb_tokenizer_role(t, MB_TOKEN_CLS));
    assert_int_equal(ids.id[a.n + 1], mb_tokenizer_role(t, MB_TOKEN_SEP));
    assert_int_equal(ids.id[ids.n - 1], mb_tokenizer_role(t, MB_TOKEN_SEP));
    assert_memory_equal(ids.id + 1, a.id, a.n * sizeof *a.id);
    assert_memory_equal(ids.id + 2 + a.n, b.id, b.n * sizeof *b.id);
    for (size_t i = 0; i < types.n; i++)
        assert_int_equal(types.id[i], i > a.n + 1);
    mb_ids_release(&ids);
    mb_ids_release(&types);
    mb_ids_release(&a);
    mb_ids_release(&b);
    mb_tokenizer_free(t);
}

static void truncation_is_applied_only_when_asked(void **state)
{
    static const char json[] =
        "{\"truncation\":{\"direction\":\"Right\",\"max_length\":5,\"strategy\":\"LongestFirst\","
        "\"stride\":0},\"padding\":{\"strategy\":{\"Fixed\":128},\"direction\":\"Right\","
        "\"pad_id\":7,\"pad_type_id\":0,\"pad_token\":\"p\"},"
        "\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},"
        "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"s\",5],\"cls\":[\"c\",6]},"
        "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"u\",\"vocab\":{\"a\":0,\"b\":1,\"c\":6,"
        "\"s\":5,\"u\":2,\"p\":7}}}";
    mb_tokenizer *t;
    mb_ids ids = {0}, types = {0};

    (void)state;
    OK(load_text(json, &t));
    assert_int_equal(mb_tokenizer_limits(t)->max_length, 5);
    assert_int_equal(mb_tokenizer_limits(t)->pad_fixed, 128);
    assert_int_equal(mb_tokenizer_limits(t)->pad_id, 7);
    encode(t, "a a a a a a a a", MB_TOK_SPECIAL, &ids);
    assert_int_equal(ids.n, 10);
    encode(t, "a a a a a a a a", MB_TOK_SPECIAL | MB_TOK_TRUNCATE, &ids);
    assert_int_equal(ids.n, 5);
    assert_int_equal(ids.id[4], 5);
    mb_ids_clear(&ids);
    OK(mb_tokenizer_encode_pair(t, "a a a a", 7, "b", 1, MB_TOK_SPECIAL | MB_TOK_TRUNCATE, &ids,
                                &types));
    assert_memory_equal(ids.id, ((int32_t[]){6, 0, 5, 1, 5}), 5 * sizeof(int32_t));
    mb_ids_release(&ids);
    mb_ids_release(&types);
    mb_tokenizer_free(t);
}

static void bad_utf8_is_refused_with_its_offset(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        const char *says;
    } bad[] = {{"ab\xff", 3, "byte 2 of 3 (0xff)"},    {"\xc0\xaf", 2, "byte 0 of 2"},
               {"ok \xed\xa0\x80", 6, "byte 3 of 6"},  {"12345678\xe2\x82", 10, "byte 8 of 10"},
               {"\xf4\x90\x80\x80", 4, "byte 0 of 4"}, {"\x80", 1, "byte 0 of 1"}};
    mb_tokenizer *t = load("gpt2");
    mb_ids ids = {0};

    (void)state;
    OK(mb_ids_push(&ids, 42));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mb_status_clear();
        assert_int_equal(mb_tokenizer_encode(t, bad[i].text, bad[i].n, 0, &ids), MB_EDATA);
        assert_non_null(strstr(mb_status_sentence(), bad[i].says));
        assert_int_equal(ids.n, 1);
    }
    mb_status_clear();
    mb_ids_clear(&ids);
    OK(mb_tokenizer_encode(t, "a\0b", 3, 0, &ids)); /* NUL is a character */
    char *text;
    size_t n;
    OK(mb_tokenizer_decode(t, ids.id, ids.n, false, &text, &n));
    assert_int_equal(n, 3);
    assert_memory_equal(text, "a\0b", 4);
    mb_free(text);
    mb_ids_release(&ids);
    mb_tokenizer_free(t);
}

static void an_id_outside_the_vocabulary_is_refused(void **state)
{
    static const int32_t wrong[] = {-1, 384, INT32_MAX, INT32_MIN};
    mb_tokenizer *t = load("gpt2");
    char *text;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        mb_status_clear();
        assert_int_equal(mb_tokenizer_decode(t, &wrong[i], 1, false, &text, NULL), MB_EDATA);
        assert_null(mb_tokenizer_id_to_token(t, wrong[i]));
        assert_false(mb_tokenizer_is_special(t, wrong[i]));
    }
    mb_status_clear();
    mb_tokenizer_free(t);
}

static void streaming_holds_back_unfinished_characters(void **state)
{
    mb_tokenizer *t = load("gpt2");
    mb_detokenizer *d;
    mb_ids ids = {0};
    const char *piece;
    size_t n, silent = 0;

    (void)state;
    encode(t, "\xf0\x9f\x98\x80", 0, &ids); /* four bytes, no merges: four tokens */
    assert_int_equal(ids.n, 4);
    OK(mb_detokenizer_new(t, true, &d));
    for (size_t i = 0; i < 4; i++) {
        OK(mb_detokenizer_push(d, ids.id[i], &piece, &n));
        silent += n == 0;
    }
    assert_int_equal(silent, 3);
    assert_string_equal(piece, "\xf0\x9f\x98\x80");
    OK(mb_detokenizer_push(d, ids.id[0], &piece, &n));
    assert_int_equal(n, 0);
    OK(mb_detokenizer_flush(d, &piece, &n));
    assert_string_equal(piece, "\xef\xbf\xbd");
    OK(mb_detokenizer_push(d, 2, &piece, &n)); /* <|im_end|>, skipped */
    assert_int_equal(n, 0);
    mb_ids_release(&ids);
    mb_detokenizer_free(d);
    mb_tokenizer_free(t);
}

static void saving_writes_the_same_bytes(void **state)
{
    static const char config[] =
        "{\"bos_token\": \"<|endoftext|>\", \"eos_token\": {\"__type\": \"AddedToken\", "
        "\"content\": \"<|im_end|>\"}, \"pad_token\": null, "
        "\"model_max_length\": 1000000000000000019884624838656, \"chat_template\": \"{{ 1 }}\"}\n";
    char path[MB_PATH_MAX], from[MB_PATH_MAX], to[MB_PATH_MAX], *a, *b;
    size_t n_a, n_b;
    mb_tokenizer *t = load("gpt2"), *again;

    (void)state;
    OK(mb_path_join(from, sizeof from, folder(), "a"));
    OK(mb_path_join(to, sizeof to, folder(), "b/c"));
    OK(mb_tokenizer_save(t, from));
    OK(mb_path_join(path, sizeof path, from, "tokenizer_config.json"));
    OK(mb_file_write_atomic(path, config, sizeof config - 1));
    OK(mb_tokenizer_load(from, &again));
    assert_int_equal(mb_tokenizer_role(again, MB_TOKEN_BOS), 0);
    assert_int_equal(mb_tokenizer_role(again, MB_TOKEN_EOS), 2);
    assert_int_equal(mb_tokenizer_role(again, MB_TOKEN_PAD), -1);
    assert_int_equal(mb_tokenizer_max_length(again), -1);
    assert_string_equal(mb_tokenizer_chat_template(again), "{{ 1 }}");
    assert_string_equal(mb_tokenizer_sha256(again), mb_tokenizer_sha256(t));
    OK(mb_path_remove_tree(from)); /* the source may be gone by then */
    OK(mb_tokenizer_save(again, to));
    OK(mb_path_join(path, sizeof path, to, "tokenizer_config.json"));
    OK(mb_file_read(path, 1 << 20, &a, &n_a));
    assert_int_equal(n_a, sizeof config - 1);
    assert_memory_equal(a, config, n_a);
    mb_free(a);
    OK(mb_path_join(path, sizeof path, to, "tokenizer.json"));
    OK(mb_file_read(path, 1 << 20, &a, &n_a));
    OK(mb_file_read(MB_TEST_DATA "/tokenizers/gpt2/tokenizer.json", 1 << 20, &b, &n_b));
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    mb_free(a);
    mb_free(b);
    mb_tokenizer_free(t);
    mb_tokenizer_free(again);
}

static void a_broken_file_is_a_sentence(void **state)
{
#define MODEL(vocab, merges) \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}}"
#define WITH(part) "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}," part "}"
#define PIECES(vocab, unk) \
    "{\"model\":{\"type\":\"Unigram\",\"vocab\":" vocab ",\"unk_id\":" unk "}}"
#define CHARSMAP(text) \
    WITH("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":" text "}")
    static const struct {
        const char *json;
        mb_status st;
        const char *says;
    } bad[] = {
        {"", MB_EMODEL, "tokenizer.json"},
        {"[]", MB_EMODEL, "tokenizer.json"},
        {"{}", MB_EMODEL, "model"},
        {"{\"model\":null}", MB_EMODEL, "model"},
        {"{\"model\":[]}", MB_EMODEL, "model"},
        {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}}", MB_ENOTSUP, "WordLevel"},
        {PIECES("{\"a\":0}", "null"), MB_EMODEL, "vocab"},
        {PIECES("[]", "null"), MB_EMODEL, "vocab has 0 pieces"},
        {PIECES("[\"a\"]", "null"), MB_EMODEL, "vocab[0]"},
        {PIECES("[[\"a\"]]", "null"), MB_EMODEL, "vocab[0]"},
        {PIECES("[[\"a\",\"b\"]]", "null"), MB_EMODEL, "vocab[0][1]"},
        {PIECES("[[3,0]]", "null"), MB_EMODEL, "vocab[0][0]"},
        {PIECES("[[\"a\",0],[\"a\",0]]", "null"), MB_EMODEL, "a second id"},
        {PIECES("[[\"a\",0]]", "1"), MB_EMODEL, "unk_id is 1"},
        {PIECES("[[\"a\",0]]", "-2"), MB_EMODEL, "unk_id is -2"},
        {"{\"model\":{\"type\":\"Unigram\",\"sentencepiece\":true,\"by_name\":true,"
         "\"vocab\":[[\"a\",0,1,-1]]}}",
         MB_EMODEL, "which piece is the unknown one"},
        {"{\"model\":{\"type\":7}}", MB_EMODEL, "type"},
        {MODEL("{}", "[]"), MB_EMODEL, "vocab is empty"},
        {MODEL("[]", "[]"), MB_EMODEL, "vocab"},
        {MODEL("{\"a\":0}", "null"), MB_EMODEL, "merges"},
        {MODEL("{\"a\":0}", "{}"), MB_EMODEL, "merges"},
        {MODEL("{\"a\":-1}", "[]"), MB_EMODEL, "-1"},
        {MODEL("{\"a\":2147483648}", "[]"), MB_EMODEL, "2147483648"},
        {MODEL("{\"a\":2147483647}", "[]"), MB_EMODEL, "2147483647"},
        {MODEL("{\"a\":99999999999999999999}", "[]"), MB_EMODEL, "tokenizer.json"},
        {MODEL("{\"a\":\"0\"}", "[]"), MB_EMODEL, "vocab.a"},
        {MODEL("{\"a\":0.5}", "[]"), MB_EMODEL, "vocab.a"},
        {MODEL("{\"a\":0,\"b\":0}", "[]"), MB_EMODEL, "two tokens"},
        {MODEL("{\"a\":0,\"a\":1}", "[]"), MB_EMODEL, "tokenizer.json"},
        {MODEL("{\"a\":0,\"b\":1}", "[\"a b\"]"), MB_EMODEL, "\"ab\""},
        {MODEL("{\"a\":0,\"ab\":1}", "[\"a b\"]"), MB_EMODEL, "\"b\""},
        {MODEL("{\"a\":0,\"b\":1,\"ab\":2}", "[\"ab\"]"), MB_EMODEL, "merges[0]"},
        {MODEL("{\"a\":0,\"b\":1,\"ab\":2}", "[\"a  b\"]"), MB_EMODEL, "merges[0]"},
        {MODEL("{\"a\":0,\"b\":1,\"ab\":2}", "[[\"a\"]]"), MB_EMODEL, "merges[0]"},
        {MODEL("{\"a\":0,\"b\":1,\"ab\":2}", "[[\"a\",3]]"), MB_EMODEL, "merges[0]"},
        {MODEL("{\"a\":0}", "[7]"), MB_EMODEL, "merges[0]"},
        {WITH("\"added_tokens\":[{\"id\":0,\"content\":\"b\"}]"), MB_EMODEL, "\"b\""},
        {WITH("\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]"), MB_EMODEL, "\"a\""},
        {WITH("\"added_tokens\":[{\"id\":1,\"content\":\"b\"},{\"id\":1,\"content\":\"c\"}]"),
         MB_EMODEL, "id 1"},
        {WITH("\"added_tokens\":[{\"id\":-1,\"content\":\"b\"}]"), MB_EMODEL, "id"},
        {WITH("\"added_tokens\":[{\"id\":4294967296,\"content\":\"b\"}]"), MB_EMODEL, "id"},
        {WITH("\"added_tokens\":[{\"id\":9000000,\"content\":\"b\"}]"), MB_EMODEL, "9000000"},
        {WITH("\"added_tokens\":[7]"), MB_EMODEL, "added_tokens[0]"},
        {WITH("\"normalizer\":{\"type\":\"Unheard\"}"), MB_ENOTSUP, "\"Unheard\""},
        {WITH("\"normalizer\":{\"type\":\"Precompiled\"}"), MB_EMODEL, "precompiled_charsmap"},
        {CHARSMAP("7"), MB_EMODEL, "precompiled_charsmap"},
        {CHARSMAP("\"AAA\""), MB_EMODEL, "not base64"},
        {CHARSMAP("\"AA-A\""), MB_EMODEL, "not base64 at byte 2"},
        {CHARSMAP("\"AAA=\""), MB_EMODEL, "of 2 bytes"},
        {CHARSMAP("\"/////w==\""), MB_EMODEL, "has 4 bytes"},
        {CHARSMAP("\"AAAAAA==\""), MB_EMODEL, "has 4 bytes, but its trie 0"},
        {CHARSMAP("\"BAAAAAAAAAD/\""), MB_EMODEL, "not UTF-8"},
        {WITH("\"normalizer\":{}"), MB_EMODEL, "type"},
        {WITH("\"normalizer\":{\"type\":\"Sequence\"}"), MB_EMODEL, "normalizers"},
        {WITH("\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}"), MB_ENOTSUP, "\"UnicodeScripts\""},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},"
              "\"behavior\":\"Isolated\"}"),
         MB_EMODEL, "pattern"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"},"
              "\"behavior\":\"Isolated\"}"),
         MB_ENOTSUP, "&&"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},"
              "\"behavior\":\"Eaten\"}"),
         MB_ENOTSUP, "Eaten"},
        {WITH("\"decoder\":{\"type\":\"CTC\"}"), MB_ENOTSUP, "\"CTC\""},
        {WITH("\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}"),
         MB_EMODEL, "decoder"},
        {WITH(
             "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
             "{\"SpecialToken\":{\"id\":\"x\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{}}"),
         MB_EMODEL, "special_tokens"},
        {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
              "{\"Sequence\":{\"id\":\"B\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{}}"),
         MB_EMODEL, "\"A\""},
        {WITH("\"truncation\":{\"max_length\":-4}"), MB_EMODEL, "max_length"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mb_tokenizer *t = NULL;
        const mb_status st = load_text(bad[i].json, &t);
        if (st != bad[i].st || strstr(mb_status_sentence(), bad[i].says) == NULL)
            fail_msg("%s: %s: %s", bad[i].json, mb_status_name(st), mb_status_sentence());
    }
    mb_status_clear();
}

static void a_token_of_ten_megabytes_is_refused(void **state)
{
    mb_bytes json = {0};
    mb_tokenizer *t;

    (void)state;
    OK(mb_bytes_puts(&json, "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\""));
    OK(mb_bytes_reserve(&json, 10 << 20));
    memset(json.p + json.n, 'a', 10 << 20);
    json.n += 10 << 20;
    OK(mb_bytes_puts(&json, "\":0}}}"));
    OK(mb_bytes_end(&json));
    assert_int_equal(load_text(json.p, &t), MB_EMODEL);
    assert_non_null(strstr(mb_status_sentence(), "10485760 bytes"));
    mb_status_clear();
    mb_bytes_release(&json);
}

/* The content of a file cut anywhere is an error, never a crash. */
static void a_file_cut_short_is_refused(void **state)
{
    char *text;
    size_t n;
    mb_tokenizer *t;

    (void)state;
    OK(mb_file_read(MB_TEST_DATA "/tokenizers/bert-cls/tokenizer.json", 1 << 20, &text, &n));
    for (size_t cut = 0; cut < n - 1; cut += 97) {
        char path[MB_PATH_MAX];
        mb_status_clear();
        write_file("cut.json", text, cut, path);
        assert_int_equal(mb_tokenizer_load(path, &t), MB_EMODEL);
    }
    mb_status_clear();
    mb_free(text);
}

static double seconds_to_encode(const mb_tokenizer *t, const char *unit)
{
    const size_t n = 1 << 20, k = strlen(unit);
    mb_bytes text = {0};
    mb_ids ids = {0};

    while (text.n + k <= n)
        OK(mb_bytes_add(&text, unit, k));
    const clock_t start = clock();
    OK(mb_tokenizer_encode(t, text.p, text.n, MB_TOK_SPECIAL, &ids));
    const double s = (double)(clock() - start) / CLOCKS_PER_SEC;
    assert_true(ids.n > 0);
    mb_bytes_release(&text);
    mb_ids_release(&ids);
    return s;
}

static void a_megabyte_of_anything_takes_less_than_a_second(void **state)
{
    static const char *const units[] = {"a",
                                        "h",
                                        " ",
                                        "\n",
                                        "  x",
                                        "1",
                                        "'",
                                        "\xcc\x81",
                                        "\xcc\x81\xcc\xa7",
                                        "e\xcc\x81",
                                        "\xe3\x81\x82",
                                        "<",
                                        "<|im",
                                        "\xf0\x9f\x98\x80",
                                        "\xe1\x84\x80\xe1\x85\xa1"};
    static const char nfkc[] =
        "{\"normalizer\":{\"type\":\"NFKC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":"
        "[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
        "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"
        "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":false,\"use_regex\":false}]},\"model\":{\"type\":\"BPE\",\"unk_token\":\"a\","
        "\"vocab\":{\"a\":0,\"aa\":1,\"aaaa\":2,\"\xc4\xa0\":3,\"\xc4\xa0\xc4\xa0\":4,"
        "\"\xc4\xa0\xc4\xa0\xc4\xa0\xc4\xa0\":5,\"aaaaaaaa\":6},\"merges\":[\"a a\",\"aa aa\","
        "\"\xc4\xa0 \xc4\xa0\",\"\xc4\xa0\xc4\xa0 \xc4\xa0\xc4\xa0\",\"aaaa aaaa\"]}}";
    mb_tokenizer *t[3] = {load("gpt2"), load("bert-cls"), NULL};
#if defined(__SANITIZE_ADDRESS__)
    const double limit = 20;
#else
    const double limit = 1;
#endif

    (void)state;
    OK(load_text(nfkc, &t[2]));
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            const double s = seconds_to_encode(t[k], units[i]);
            if (s > limit)
                fail_msg("tokenizer %zu needs %.2f s for a megabyte of \"%s\"", k, s, units[i]);
        }
        mb_tokenizer_free(t[k]);
    }
}

struct job {
    const mb_tokenizer *t;
    const char *text;
    size_t n;
    mb_ids ids;
    mb_status st;
};

static void *encode_many(void *p)
{
    struct job *j = p;

    for (int i = 0; i < 50 && j->st == MB_OK; i++) {
        mb_ids_clear(&j->ids);
        j->st = mb_tokenizer_encode(j->t, j->text, j->n, MB_TOK_SPECIAL, &j->ids);
    }
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    mb_tokenizer *t = load("gpt2");
    struct job job[4] = {0};
    pthread_t thread[4];
    char *text;
    size_t n;
    mb_ids want = {0};

    (void)state;
    OK(mb_file_read(MB_TEST_DATA "/tokenizers/gpt2/tokenizer_cases.jsonl", 1 << 20, &text, &n));
    OK(mb_tokenizer_encode(t, text, n, MB_TOK_SPECIAL, &want));
    for (int i = 0; i < 4; i++) {
        job[i] = (struct job){.t = t, .text = text, .n = n};
        assert_int_equal(pthread_create(&thread[i], NULL, encode_many, &job[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(job[i].st, MB_OK);
        assert_int_equal(job[i].ids.n, want.n);
        assert_memory_equal(job[i].ids.id, want.id, want.n * sizeof *want.id);
        mb_ids_release(&job[i].ids);
    }
    mb_ids_release(&want);
    mb_free(text);
    mb_tokenizer_free(t);
}

/* A GGUF file with pairs and no tensors. */
struct gguf {
    mb_bytes b;
    uint64_t pairs;
};

static void put(struct gguf *g, const void *p, size_t n)
{
    OK(mb_bytes_add(&g->b, p, n));
}

static void put_u32(struct gguf *g, uint32_t v)
{
    put(g, &v, 4);
}

static void put_string(struct gguf *g, const char *s)
{
    const uint64_t n = strlen(s);
    put(g, &n, 8);
    put(g, s, n);
}

static void put_pair(struct gguf *g, const char *key, uint32_t type)
{
    put_string(g, key);
    put_u32(g, type);
    g->pairs++;
}

static void put_text(struct gguf *g, const char *key, const char *value)
{
    put_pair(g, key, 8);
    put_string(g, value);
}

static void put_number(struct gguf *g, const char *key, uint32_t value)
{
    put_pair(g, key, 4);
    put_u32(g, value);
}

static void put_array(struct gguf *g, const char *key, uint32_t type, uint64_t n)
{
    put_pair(g, key, 9);
    put_u32(g, type);
    put(g, &n, 8);
}

static mb_status load_gguf(struct gguf *g, mb_tokenizer **t)
{
    static const uint32_t version = 3;
    static const uint64_t tensors = 0;
    struct gguf whole = {0};
    char path[MB_PATH_MAX];

    put(&whole, "GGUF", 4);
    put(&whole, &version, 4);
    put(&whole, &tensors, 8);
    put(&whole, &g->pairs, 8);
    put(&whole, g->b.p, g->b.n);
    while (whole.b.n % 32 != 0)
        put(&whole, "", 1);
    mb_status_clear();
    write_file("small.gguf", whole.b.p, whole.b.n, path);
    mb_bytes_release(&whole.b);
    mb_bytes_release(&g->b);
    return mb_tokenizer_load(path, t);
}

/* 256 byte tokens, "\n\n", one control and one user-defined token. */
static void begin_bpe(struct gguf *g, const char *pre)
{
    static const char *const extra[] = {"\xc4\x8a\xc4\x8a", "<|end|>", "<tool>"};

    put_text(g, "general.architecture", "llama");
    put_number(g, "llama.context_length", 77);
    put_text(g, "tokenizer.ggml.model", "gpt2");
    put_text(g, "tokenizer.ggml.pre", pre);
    put_text(g, "tokenizer.chat_template", "{{ \"a\\n\" }}\n");
    put_number(g, "tokenizer.ggml.eos_token_id", 257);
    put_array(g, "tokenizer.ggml.tokens", 8, 259);
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; b++) {
        const bool prints = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
        char token[5] = "";
        mb_utf8_put(prints ? b : next, token);
        next += !prints;
        put_string(g, token);
    }
    for (size_t i = 0; i < 3; i++)
        put_string(g, extra[i]);
    put_array(g, "tokenizer.ggml.token_type", 5, 259);
    for (uint32_t i = 0; i < 259; i++)
        put_u32(g, i == 257 ? 3 : i == 258 ? 4 : 1);
    put_array(g, "tokenizer.ggml.merges", 8, 1);
    put_string(g, "\xc4\x8a \xc4\x8a");
}

static void a_gguf_file_is_cut_as_its_pre_says(void **state)
{
    static const struct {
        const char *pre, *text;
        size_t n;
        int32_t ids[6];
    } cases[] = {{"smollm", "1\n\n2", 3, {'1', 256, '2'}},
                 {"gpt-2", "1\n\n2", 4, {'1', 10, 10, '2'}},
                 {"llama-bpe", "1\n\n2", 3, {'1', 256, '2'}},
                 {"qwen2", "1\n\n2", 3, {'1', 256, '2'}},
                 {"default", "1\n\n2", 4, {'1', 10, 10, '2'}},
                 {"smollm", "<tool>\n\n<|end|>", 3, {258, 256, 257}}};
    mb_ids ids = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf g = {0};
        mb_tokenizer *t;
        begin_bpe(&g, cases[i].pre);
        OK(load_gguf(&g, &t));
        encode(t, cases[i].text, MB_TOK_PARSE_SPECIAL | MB_TOK_SPECIAL, &ids);
        assert_int_equal(ids.n, cases[i].n);
        assert_memory_equal(ids.id, cases[i].ids, ids.n * sizeof *ids.id);
        assert_int_equal(mb_tokenizer_role(t, MB_TOKEN_EOS), 257);
        assert_int_equal(mb_tokenizer_max_length(t), 77);
        assert_string_equal(mb_tokenizer_chat_template(t), "{{ \"a\\n\" }}\n");
        assert_true(mb_tokenizer_is_special(t, 257));
        assert_false(mb_tokenizer_is_special(t, 258));
        char dir[MB_PATH_MAX];
        mb_tokenizer *saved;
        OK(mb_path_join(dir, sizeof dir, folder(), "from-gguf"));
        OK(mb_tokenizer_save(t, dir));
        OK(mb_tokenizer_load(dir, &saved));
        assert_string_equal(mb_tokenizer_sha256(saved), mb_tokenizer_sha256(t));
        assert_string_equal(mb_tokenizer_chat_template(saved), mb_tokenizer_chat_template(t));
        assert_int_equal(mb_tokenizer_role(saved, MB_TOKEN_EOS), 257);
        mb_tokenizer_free(saved);
        mb_tokenizer_free(t);
    }
    mb_ids_release(&ids);
}

static void a_bert_gguf_is_put_back_into_wordpiece(void **state)
{
    static const char *const tokens[] = {"[PAD]",  "[UNK]",          "[CLS]", "[SEP]",
                                         "[MASK]", "\xe2\x96\x81un", "able",  "\xe2\x96\x81."};
    struct gguf g = {0};
    mb_tokenizer *t;
    mb_ids ids = {0};

    (void)state;
    put_text(&g, "general.architecture", "bert");
    put_text(&g, "tokenizer.ggml.model", "bert");
    put_number(&g, "tokenizer.ggml.cls_token_id", 2);
    put_number(&g, "tokenizer.ggml.seperator_token_id", 3);
    put_array(&g, "tokenizer.ggml.tokens", 8, 8);
    for (size_t i = 0; i < 8; i++)
        put_string(&g, tokens[i]);
    put_array(&g, "tokenizer.ggml.token_type", 5, 8);
    for (uint32_t i = 0; i < 8; i++)
        put_u32(&g, i == 1 ? 2 : i < 5 ? 3 : 1);
    OK(load_gguf(&g, &t));
    assert_string_equal(mb_tokenizer_id_to_token(t, 6), "##able");
    assert_string_equal(mb_tokenizer_kind(t), "WordPiece");
    encode(t, "Unable.", MB_TOK_SPECIAL, &ids);
    assert_int_equal(ids.n, 5);
    assert_memory_equal(ids.id, ((int32_t[]){2, 5, 6, 7, 3}), 5 * sizeof(int32_t));
    assert_int_equal(mb_tokenizer_role(t, MB_TOKEN_UNK), 1);
    mb_ids_release(&ids);
    mb_tokenizer_free(t);
}

/* Scores instead of merges: the pair with the higher one first, whatever the order of the tokens. */
static void a_sentencepiece_gguf_joins_by_score(void **state)
{
    static const char *const tokens[] = {"<unk>",
                                         "<s>",
                                         "</s>",
                                         "<0x41>",
                                         "\xe2\x96\x81",
                                         "a",
                                         "b",
                                         "c",
                                         "bc",
                                         "ab",
                                         "\xe2\x96\x81"
                                         "a"};
    static const uint32_t types[] = {2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 4};
    static const float scores[] = {0, 0, 0, 0, -9, -9, -9, -9, -1, -2, -3};
    struct gguf g = {0};
    mb_tokenizer *t;
    mb_ids ids = {0};

    (void)state;
    put_text(&g, "general.architecture", "llama");
    put_text(&g, "tokenizer.ggml.model", "llama");
    put_number(&g, "tokenizer.ggml.bos_token_id", 1);
    put_array(&g, "tokenizer.ggml.tokens", 8, 11);
    for (size_t i = 0; i < 11; i++)
        put_string(&g, tokens[i]);
    put_array(&g, "tokenizer.ggml.token_type", 5, 11);
    put(&g, types, sizeof types);
    put_array(&g, "tokenizer.ggml.scores", 6, 11);
    put(&g, scores, sizeof scores);
    OK(load_gguf(&g, &t));
    encode(t, "abcA", MB_TOK_SPECIAL, &ids); /* <s> U+2581 a, bc, <0x41> */
    assert_int_equal(ids.n, 4);
    assert_memory_equal(ids.id, ((int32_t[]){1, 10, 8, 3}), 4 * sizeof(int32_t));
    mb_ids_release(&ids);
    mb_tokenizer_free(t);
}

static void other_gguf_tokenizers_are_refused_by_name(void **state)
{
    struct gguf g = {0};
    mb_tokenizer *t;

    (void)state;
    put_text(&g, "tokenizer.ggml.model", "rwkv");
    put_array(&g, "tokenizer.ggml.tokens", 8, 1);
    put_string(&g, "a");
    assert_int_equal(load_gguf(&g, &t), MB_ENOTSUP);
    assert_non_null(strstr(mb_status_sentence(), "\"rwkv\""));
    g = (struct gguf){0};
    put_text(&g, "tokenizer.ggml.model", "llama");
    put_array(&g, "tokenizer.ggml.tokens", 8, 1);
    put_string(&g, "a");
    assert_int_equal(load_gguf(&g, &t), MB_EMODEL);
    assert_non_null(strstr(mb_status_sentence(), "tokenizer.ggml.scores"));
    g = (struct gguf){0};
    begin_bpe(&g, "falcon");
    assert_int_equal(load_gguf(&g, &t), MB_ENOTSUP);
    assert_non_null(strstr(mb_status_sentence(), "\"falcon\""));
    mb_status_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reference_line_matches),
        cmocka_unit_test(every_step_does_what_the_library_does),
        cmocka_unit_test(every_kind_of_pieces_does_what_the_library_does),
        cmocka_unit_test(a_sentencepiece_file_gives_its_librarys_ids),
        cmocka_unit_test(a_text_that_goes_on_gets_nothing_in_front),
        cmocka_unit_test(a_folder_numbers_the_pieces_of_its_sentencepiece_file),
        cmocka_unit_test(a_damaged_sentencepiece_file_is_refused_or_read),
        cmocka_unit_test(text_that_looks_special_is_plain_unless_asked),
        cmocka_unit_test(no_model_gives_special_ids_for_plain_text),
        cmocka_unit_test(a_pair_has_type_ids),
        cmocka_unit_test(truncation_is_applied_only_when_asked),
        cmocka_unit_test(bad_utf8_is_refused_with_its_offset),
        cmocka_unit_test(an_id_outside_the_vocabulary_is_refused),
        cmocka_unit_test(streaming_holds_back_unfinished_characters),
        cmocka_unit_test(saving_writes_the_same_bytes),
        cmocka_unit_test(a_broken_file_is_a_sentence),
        cmocka_unit_test(a_token_of_ten_megabytes_is_refused),
        cmocka_unit_test(a_file_cut_short_is_refused),
        cmocka_unit_test(a_megabyte_of_anything_takes_less_than_a_second),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(a_gguf_file_is_cut_as_its_pre_says),
        cmocka_unit_test(a_bert_gguf_is_put_back_into_wordpiece),
        cmocka_unit_test(a_sentencepiece_gguf_joins_by_score),
        cmocka_unit_test(other_gguf_tokenizers_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
