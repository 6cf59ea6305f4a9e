/* tests/unit/test_labelled_rows.c - classes, numbers, tags, answers and sentences on their way from a
 * file to a batch.
 */
#include "data_test.h"
#include "recipes/data/collate.h"
#include "recipes/data/words.h"

static mb_tokenizer *tok;

static const char *text_file(const char *name, const char *text)
{
    return write_file(name, text, strlen(text));
}

static int open_tokenizer(void **state)
{
    if (make_root(state) != 0)
        return 1;
    OK(mb_tokenizer_load(MB_TEST_DATA "/reference/bert-cls", &tok));
    return 0;
}

static int close_tokenizer(void **state)
{
    mb_tokenizer_free(tok);
    return remove_root(state);
}

static mb_store_options options(const mb_source *source, mb_want rows)
{
    mb_store_options o = mb_store_defaults();

    o.source = source;
    o.n_sources = 1;
    o.rows = rows;
    o.render.tokenizer = tok;
    o.max_length = 64;
    return o;
}

static mb_store *build(const mb_store_options *o)
{
    mb_store *s = NULL;

    OK(mb_store_build(o, mb_comm_self(), &s));
    return s;
}

static void refused(mb_want rows, const char *name, const char *text, const char *why)
{
    const mb_source source = {.path = text_file(name, text), .rows = rows};
    const mb_store_options o = options(&source, rows);
    mb_store *s = NULL;

    assert_int_equal(mb_store_build(&o, mb_comm_self(), &s), MB_EDATA);
    if (strstr(mb_status_sentence(), why) == NULL)
        fail_msg("no \"%s\" in: %s", why, mb_status_sentence());
    mb_status_clear();
}

/* The micro-batch of all rows, in order. */
static mb_batch *collate(const mb_store *s, mb_target_kind kind, int64_t n_values)
{
    static int64_t row[8];
    static int32_t ordinal[8];
    const mb_collate_options o = {
        .kind = kind, .largest = s->n_tokens, .n_values = n_values, .segments = 2};
    const mb_micro micro = {
        .n_rows = s->n_rows, .tokens = s->n_tokens, .row = row, .ordinal = ordinal};
    mb_batch *b = NULL;

    assert_true(s->n_rows <= 8);
    for (int32_t i = 0; i < s->n_rows; i++)
        row[i] = ordinal[i] = i;
    OK(mb_batch_new(s->n_tokens, s->n_rows * s->n_sentences, &b));
    OK(mb_batch_reserve_values(b, n_values));
    OK(mb_collate(&o, s, &micro, 0, b));
    return b;
}

static void a_word_is_labelled_at_its_first_token(void **state)
{
    (void)state;
    const mb_source source = {.path = text_file("words.jsonl",
                                                "{\"tokens\":[\"maji\",\"unbelievable\",\"mti\"],"
                                                "\"ner_tags\":[\"B\",\"O\",\"B\"]}\n")};
    const mb_store_options o = options(&source, MB_WANT_WORDS);
    mb_store *s = build(&o);
    int64_t labelled = 0;

    assert_int_equal(s->n_labels, 2);
    assert_string_equal(s->label_name[1], "O");
    assert_true(s->n_tokens > 5); /* the long word has several tokens */
    assert_int_equal(s->extra_offset[1], s->n_tokens);
    assert_int_equal(s->trained[0], 3);
    for (int64_t t = 0; t < s->n_tokens; t++) {
        assert_true((s->extra[t] >= 0) == ((s->flags[t] & MB_MARK_TRAINED) != 0));
        labelled += s->extra[t] >= 0;
    }
    assert_int_equal(labelled, 3);
    mb_batch *b = collate(s, MB_TARGET_TOKENS, 0);
    assert_int_equal(b->n_targets, 3);
    assert_true(b->target_row[0] == 1 && b->target_label[0] == 0 && b->target_label[1] == 1);
    assert_true(b->target_row[b->n_targets] == -1 && b->target_weight[b->n_targets] == 0.0f);
    mb_batch_free(b);
    mb_store_free(s);
}

static void several_classes_and_numbers_are_values(void **state)
{
    (void)state;
    mb_source source = {.path = text_file("c.jsonl", "{\"text\":\"a b\",\"labels\":[\"y\",\"x\"]}\n"
                                                     "{\"text\":\"c\",\"labels\":[]}\n")};
    mb_store_options o = options(&source, MB_WANT_CLASSES);
    mb_store *s = build(&o);
    mb_batch *b = collate(s, MB_TARGET_VALUES, 2);

    assert_int_equal(s->n_labels, 2);
    assert_true(b->n_targets == 2 && b->target_weight[1] == 1.0f);
    assert_true(b->target_value[0] == 1.0f && b->target_value[1] == 1.0f);
    assert_true(b->target_value[2] == 0.0f && b->target_value[3] == 0.0f);
    mb_batch_free(b);
    mb_store_free(s);

    source.path = text_file("n.csv", "sentence1,sentence2,score\na,b,0.5\nc,d,-2\n");
    o = options(&source, MB_WANT_NUMBERS);
    s = build(&o);
    b = collate(s, MB_TARGET_VALUES, 1);
    assert_int_equal(s->n_values, 1);
    assert_true(b->target_value[0] == 0.5f && b->target_value[1] == -2.0f);
    mb_batch_free(b);
    mb_store_free(s);
}

static const char question[] =
    "{\"question\":\"who\",\"context\":\"Caf\\u00e9 a b c d e f g h i j k l m n. Hurry, hurry has "
    "no blessing o p q r s t\",\"answers\":{\"text\":[\"hurry\"],\"answer_start\":[41]}}\n";

static void an_answer_is_found_in_each_window_that_has_it(void **state)
{
    (void)state;
    const mb_source source = {.path = text_file("q.jsonl", question)};
    mb_store_options o = options(&source, MB_WANT_QUESTIONS);
    int with = 0;

    o.max_length = 24;
    o.doc_stride = 8;
    mb_store *s = build(&o);
    assert_true(s->n_rows > 2);
    for (int64_t r = 0; r < s->n_rows; r++) {
        const int32_t *x = s->extra + s->extra_offset[r];
        const int64_t n = s->offset[r + 1] - s->offset[r];

        assert_true(n <= 24 && s->extra_offset[r + 1] - s->extra_offset[r] == 2 + 2 * n);
        assert_int_equal(s->hash[r], s->hash[0]);
        if (x[0] == 0) {
            assert_int_equal(x[1], 0);
            continue;
        }
        with++;
        assert_int_equal(x[2 + 2 * x[0]], 42); /* bytes: the e with its accent has two */
        assert_int_equal(x[2 + 2 * x[1] + 1], 47);
    }
    assert_true(with >= 1 && with < s->n_rows);
    mb_store_free(s);
    o.max_length = 12;
    assert_int_equal(mb_store_build(&o, mb_comm_self(), &s), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "doc_stride 8"));
    mb_status_clear();
}

/* SQuAD's own file, of articles, and the flat one that Hugging Face makes of it. */
static void nested_questions_are_rows(void **state)
{
    static const char nested[] =
        "{\"version\": \"v2.0\", \"data\": [\n"
        " {\"title\": \"A\", \"paragraphs\": [\n"
        "  {\"context\": \"maji ni uhai\", \"qas\": [\n"
        "   {\"id\": \"1\", \"question\": \"nini\", \"answers\": [{\"text\": \"maji\", \"answer_start\": 0}],"
        " \"is_impossible\": false},\n"
        "   {\"id\": \"2\", \"question\": \"nani\", \"answers\": [], \"is_impossible\": true,"
        " \"plausible_answers\": [{\"text\": \"uhai\", \"answer_start\": 8}]}]},\n"
        "  {\"context\": \"tupu\", \"qas\": []}]},\n"
        " {\"title\": \"B\", \"paragraphs\": []},\n"
        " {\"title\": \"C\", \"paragraphs\": [{\"context\": \"mti mrefu\", \"qas\": [\n"
        "   {\"question\": \"vipi\", \"answers\": [{\"answer_start\": 4, \"text\": \"mrefu\"}]}]}]}]}\n";
    static const char flat[] =
        "{\"context\": \"maji ni uhai\", \"question\": \"nini\", \"answers\": {\"text\": [\"maji\"], "
        "\"answer_start\": [0]}}\n"
        "{\"context\": \"maji ni uhai\", \"question\": \"nani\", \"answers\": {\"text\": [], "
        "\"answer_start\": []}}\n"
        "{\"context\": \"mti mrefu\", \"question\": \"vipi\", \"answers\": {\"text\": [\"mrefu\"], "
        "\"answer_start\": [4]}}\n";

    (void)state;
    const mb_source source[] = {{.path = text_file("squad.json", nested)},
                                {.path = text_file("flat.jsonl", flat)}};
    mb_store *s[2];

    for (int i = 0; i < 2; i++) {
        const mb_store_options o = options(&source[i], MB_WANT_QUESTIONS);
        s[i] = build(&o);
        assert_int_equal(s[i]->n_rows, 3);
    }
    assert_int_equal(s[0]->n_tokens, s[1]->n_tokens);
    assert_memory_equal(s[0]->ids, s[1]->ids, (size_t)s[0]->n_tokens * sizeof *s[0]->ids);
    assert_memory_equal(s[0]->extra, s[1]->extra,
                        (size_t)s[0]->extra_offset[3] * sizeof *s[0]->extra);
    assert_true(s[0]->line[0] == 2 && s[0]->line[1] == 2 && s[0]->line[2] == 8);
    mb_store_free(s[0]);
    mb_store_free(s[1]);
    refused(MB_WANT_QUESTIONS, "squad.json",
            "{\"data\": [{\"paragraphs\": [{\"context\": \"a\", \"qas\": [1]}]}]}",
            "must be an object");
    refused(MB_WANT_QUESTIONS, "squad.json",
            "{\"data\": [{\"paragraphs\": [{\"context\": \"a\", \"qas\": [{\"answers\": []}]}]}]}",
            "question");
}

static void words_one_by_one_are_the_ids_of_the_text(void **state)
{
    static const char text[] =
        "  Haraka haraka haina baraka.\tMti  hauendi (ila) kwa\nnyenzo! Sh1,500";
    mb_ids whole = {0}, ids = {0}, places = {0};
    mb_words w;

    (void)state;
    OK(mb_words_for(tok, &w));
    OK(mb_tokenizer_encode(tok, text, strlen(text), 0, &whole));
    OK(mb_words_encode_text(&w, text, &ids, &places));
    assert_int_equal(ids.n, whole.n);
    assert_memory_equal(ids.id, whole.id, ids.n * sizeof *ids.id);
    for (size_t i = 0; i < ids.n; i++)
        assert_true(places.id[2 * i] < places.id[2 * i + 1] &&
                    (i == 0 || places.id[2 * i] >= places.id[2 * i - 2]));
    assert_int_equal(places.id[2 * ids.n - 1], strlen(text));
    mb_ids_release(&whole);
    mb_ids_release(&ids);
    mb_ids_release(&places);
}

static void anchors_come_first_and_know_their_own(void **state)
{
    (void)state;
    const mb_source source = {
        .path = text_file("s.jsonl",
                          "{\"anchor\":\"maji\",\"positive\":\"water a b\",\"negative\":[\"x\"]}\n"
                          "{\"anchor\":\"mti\",\"positive\":\"tree\"}\n")};
    mb_store_options o = options(&source, MB_WANT_SENTENCES);
    mb_store *s = build(&o);
    mb_batch *b = collate(s, MB_TARGET_SENTENCES, 1);

    assert_int_equal(s->n_sentences, 3);
    assert_true(b->n_seq == 5 && b->max_seq == 6 && b->n_targets == 2);
    assert_true(b->target_label[0] == 2 && b->target_label[1] == 3);
    assert_true(b->len[5] == 0 && b->len[0] == s->extra[0] && b->len[4] == s->extra[2]);
    assert_true(b->seq_ordinal[0] != b->seq_ordinal[2]);
    for (int64_t q = 0, at = 0; q < b->n_seq; at += b->len[q++])
        assert_true(b->start[q] == at && b->ids[at] == mb_tokenizer_role(tok, MB_TOKEN_CLS));
    mb_batch_free(b);
    mb_store_free(s);
}

static void a_cached_store_is_the_same(void **state)
{
    (void)state;
    const mb_source source = {.path = text_file("q.jsonl", question)};
    mb_store_options o = options(&source, MB_WANT_QUESTIONS);

    o.max_length = 24, o.doc_stride = 8;
    o.cache_dir = text_file("cache", "");
    OK(mb_path_remove_tree(o.cache_dir));
    mb_store *a = build(&o), *b = build(&o);
    assert_true(!a->from_cache && b->from_cache && a->n_rows == b->n_rows);
    assert_memory_equal(a->extra_offset, b->extra_offset, (size_t)(a->n_rows + 1) * 8);
    assert_memory_equal(a->extra, b->extra, (size_t)a->extra_offset[a->n_rows] * 4);
    assert_memory_equal(a->hash, b->hash, (size_t)a->n_rows * 8);
    mb_store_free(a);
    mb_store_free(b);
}

static void bad_rows_are_refused_in_one_sentence(void **state)
{
    (void)state;
    refused(MB_WANT_WORDS, "w1.jsonl", "{\"tokens\":[\"a\",\"b\"],\"ner_tags\":[\"O\"]}\n",
            "w1.jsonl:1: the row has 2 tokens and 1 ner_tags");
    refused(MB_WANT_WORDS, "w2.jsonl", "{\"tokens\":\"a\",\"ner_tags\":[0]}\n",
            "w2.jsonl:1: tokens must be a list of words");
    refused(MB_WANT_NUMBERS, "n1.jsonl", "{\"text\":\"a\",\"label\":\"good\"}\n",
            "label must be a number");
    refused(MB_WANT_NUMBERS, "n2.jsonl",
            "{\"text\":\"a\",\"label\":[1,2]}\n{\"text\":\"b\",\"label\":1}\n",
            "n2.jsonl:2: the row has 1 numbers, rows before it have 2");
    refused(MB_WANT_QUESTIONS, "q1.jsonl",
            "{\"question\":\"a\",\"context\":\"b c\",\"answers\":{\"text\":[\"c\"],"
            "\"answer_start\":[0]}}\n",
            "q1.jsonl:1: the context does not have the answer \"c\" at character 0");
    refused(MB_WANT_QUESTIONS, "q2.jsonl",
            "{\"question\":\"a\",\"context\":\"b\",\"answers\":{\"text\":[\"b\"]}}\n",
            "the lists text and answer_start");
    refused(MB_WANT_SENTENCES, "s1.jsonl",
            "{\"sentence1\":\"a\",\"sentence2\":\"b\",\"score\":1}\n"
            "{\"sentence1\":\"a\",\"sentence2\":\"b\"}\n",
            "s1.jsonl:2: some rows have a score and this one has none");
    refused(MB_WANT_SENTENCES, "s2.jsonl", "{\"text\":\"a\"}\n",
            "known are anchor, positive | sentence1, sentence2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_word_is_labelled_at_its_first_token),
        cmocka_unit_test(several_classes_and_numbers_are_values),
        cmocka_unit_test(an_answer_is_found_in_each_window_that_has_it),
        cmocka_unit_test(nested_questions_are_rows),
        cmocka_unit_test(words_one_by_one_are_the_ids_of_the_text),
        cmocka_unit_test(anchors_come_first_and_know_their_own),
        cmocka_unit_test(a_cached_store_is_the_same),
        cmocka_unit_test(bad_rows_are_refused_in_one_sentence),
    };

    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
