/* tests/unit/test_store.c - what of a data set is kept, counted, cut, split and cached. */
#include <omp.h>

#include "data_test.h"
#include "recipes/data/store.h"

static mb_store_options options(const mb_tokenizer *t, const mb_source *source, int n)
{
    mb_store_options o = mb_store_defaults();

    o.source = source;
    o.n_sources = n;
    o.render.tokenizer = t;
    o.render.chat_template = "chatml";
    o.max_length = 64;
    o.vocab_size = mb_tokenizer_vocab_size(t);
    return o;
}

static mb_store *build(const mb_store_options *o)
{
    mb_store *s = NULL;

    OK(mb_store_build(o, mb_comm_self(), &s));
    return s;
}

static void refuse(const mb_store_options *o, mb_status want, const char *says)
{
    mb_store *s;

    expect(mb_store_build(o, mb_comm_self(), &s), want, says);
}

static const char *text_file(const char *name, const char *text)
{
    return write_file(name, text, strlen(text));
}

/* n rows of pairs; every tenth repeats the first. */
static const char *pairs_file(const char *name, int n)
{
    static char text[200000];
    size_t at = 0;

    for (int i = 0; i < n; i++) {
        const int k = i % 10 == 0 ? 0 : i;

        at +=
            (size_t)snprintf(text + at, sizeof text - at,
                             "{\"prompt\":\"word %d is\",\"completion\":\" neno %d\"}\n", k, k * 7);
    }
    return write_file(name, text, at);
}

static void rows_are_kept_in_order_with_their_places(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "</s>", NULL);
    const mb_source source = {.path = pairs_file("pairs.jsonl", 700)};
    mb_store_options o = options(t, &source, 1);
    mb_store *s = build(&o);
    char place[200], want[200], *text;

    assert_int_equal(s->n_rows, 700);
    assert_int_equal(s->stats.rows_read, 700);
    assert_int_equal(s->stats.duplicates, 69);
    assert_int_equal(s->stats.eos, 700);
    assert_int_equal(s->offset[700], s->n_tokens);
    for (int64_t r = 0; r < 700; r++) {
        const int64_t k = r % 10 == 0 ? 0 : r;
        int64_t trained = 0;

        snprintf(want, sizeof want, "word %lld is neno %lld</s>", (long long)k, (long long)k * 7);
        OK(mb_tokenizer_decode(t, s->ids + s->offset[r], (size_t)(s->offset[r + 1] - s->offset[r]),
                               false, &text, NULL));
        assert_string_equal(text, want);
        mb_free(text);
        assert_int_equal(s->line[r], r + 1);
        assert_int_equal(s->record[r], r);
        for (int64_t i = s->offset[r]; i < s->offset[r + 1]; i++)
            trained += s->flags[i] & MB_MARK_TRAINED;
        assert_int_equal(trained, s->trained[r]);
        assert_int_equal(s->label[r], -1);
    }
    assert_string_equal(mb_store_place(s, 4, place, sizeof place) + strlen(root), "/pairs.jsonl:5");
    mb_store_free(s);
    mb_tokenizer_free(t);
}

/* Of those left out, and of those that share a line. */
static void rows_know_how_many_records_are_before_theirs(void **state)
{
    static const char rows[] = "[{\"text\":\"a\"}, 5, {\"text\":\"b\"},\n{\"text\":\"c\"}, "
                               "{\"text\":\"d\"}]";
    mb_tokenizer *t = make_tokenizer(NULL, "</s>", NULL);
    const mb_source source = {
        .path = text_file("list.json", rows), .split = "train[3:]+train[:3]", .skip_bad = true};
    mb_store_options o = options(t, &source, 1);
    mb_store *s = build(&o);
    static const int64_t record[] = {3, 4, 0, 2}, line[] = {2, 2, 1, 1};

    assert_int_equal(s->n_rows, 4);
    assert_memory_equal(s->record, record, sizeof record);
    assert_memory_equal(s->line, line, sizeof line);
    mb_store_free(s);
    mb_tokenizer_free(t);
}

static void any_number_of_threads_makes_the_same_store(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "</s>", NULL);
    const mb_source source = {.path = pairs_file("pairs.jsonl", 2000)};
    const mb_store_options o = options(t, &source, 1);
    const int had = omp_get_max_threads();
    mb_store *one, *many;

    omp_set_num_threads(1);
    one = build(&o);
    for (int threads = 2; threads <= 5; threads++) {
        omp_set_num_threads(threads);
        many = build(&o);
        assert_int_equal(many->n_rows, 2000);
        assert_int_equal(many->n_tokens, one->n_tokens);
        assert_memory_equal(many->ids, one->ids, (size_t)one->n_tokens * 4);
        assert_memory_equal(many->flags, one->flags, (size_t)one->n_tokens);
        assert_memory_equal(many->offset, one->offset, 2001 * 8);
        assert_memory_equal(many->line, one->line, 2000 * 8);
        assert_memory_equal(many->record, one->record, 2000 * 8);
        assert_memory_equal(many->hash, one->hash, 2000 * 8);
        assert_memory_equal(&many->stats, &one->stats, sizeof one->stats);
        mb_store_free(many);
    }
    omp_set_num_threads(had);
    mb_store_free(one);
    mb_tokenizer_free(t);
}

static void every_loss_of_a_row_is_counted(void **state)
{
    static const char rows[] =
        "{\"prompt\":\"a\",\"completion\":\" b\"}\n"
        "not json\n"
        "{\"prompt\":\"\",\"completion\":\"\"}\n"
        "{\"prompt\":\"x x x x x x x x x x x x x x x x x x x x x x\",\"completion\":\" y\"}\n"
        "{\"prompt\":\"x\",\"completion\":\" y y y y y y y y y y y y y y y y y y y y\"}\n"
        "{\"prompt\":\"no answer\",\"completion\":\"\"}\n"
        "{\"prompt\":\"a\",\"completion\":\" b\"}\n";
    mb_tokenizer *t = make_tokenizer(NULL, NULL, NULL);
    const mb_source source = {.path = text_file("odd.jsonl", rows), .skip_bad = true};
    mb_store_options o = options(t, &source, 1);
    mb_store *s;

    o.max_length = 16;
    s = build(&o);
    assert_int_equal(s->stats.rows_read, 7);
    assert_int_equal(s->stats.bad, 1);
    assert_int_equal(s->stats.empty, 1);
    assert_int_equal(s->stats.truncated, 2);
    assert_int_equal(s->stats.untrained, 2); /* one cut before its answer, one without answer */
    assert_int_equal(s->stats.duplicates, 1);
    assert_int_equal(s->n_rows, 3);
    assert_int_equal(s->stats.max_length, 16);
    mb_store_log(s, "test");
    mb_store_free(s);
    o.excess = MB_EXCESS_DROP;
    s = build(&o);
    assert_int_equal(s->stats.dropped, 2);
    assert_int_equal(s->n_rows, 2);
    mb_store_free(s);
    o.excess = MB_EXCESS_RAISE;
    refuse(&o, MB_EDATA, "odd.jsonl:4: the row has ");
    mb_tokenizer_free(t);
}

static void a_set_without_trained_tokens_is_refused_with_rows(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, NULL, NULL);
    const mb_source pairs = {
        .path = text_file("m.jsonl", "{\"prompt\":\"x x x x x x x\",\"completion\":\" y\"}\n\n"
                                     "{\"prompt\":\"x x x x x x x x\",\"completion\":\" y\"}\n")};
    const mb_source chat = {
        .path = text_file("u.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n")};
    mb_store_options o = options(t, &pairs, 1);

    o.max_length = 6;
    refuse(&o, MB_EDATA, "m.jsonl:1: its first max_length tokens hold nothing that is trained");
    refuse(&o, MB_EDATA, "m.jsonl:3: its first max_length");
    o = options(t, &chat, 1);
    refuse(&o, MB_EDATA, "no row has a trained token (1 of 1 rows)");
    refuse(&o, MB_EDATA, "u.jsonl:1: nothing in it is trained");
    mb_tokenizer_free(t);
}

static void bad_rows_stop_with_their_place(void **state)
{
    static const char rows[] = "{\"text\":\"a b\"}\n{\"text\":\"c\nd\"}\n";
    mb_tokenizer *t = make_tokenizer(NULL, NULL, NULL);
    mb_source source = {.path = text_file("bad.jsonl", rows)};
    mb_store_options o = options(t, &source, 1);

    refuse(&o, MB_EDATA, "bad.jsonl:2:");
    source.path = "/nonexistent/x.jsonl";
    refuse(&o, MB_EDATA, "/nonexistent/x.jsonl");
    o.n_sources = 0;
    refuse(&o, MB_EARG, "datasets is empty");
    source.path = text_file("ok.jsonl", "{\"text\":\"a b\"}\n");
    o = options(t, &source, 1);
    o.vocab_size = 10;
    refuse(&o, MB_EMODEL, "the tokenizer is not this model's");
    o = options(t, &source, 1);
    o.rows = MB_WANT_CLASS;
    refuse(&o, MB_EDATA, "a labelled text has label");
    mb_tokenizer_free(t);
}

static void texts_are_cut_into_pieces_and_lose_nothing(void **state)
{
    char text[4000], *whole;
    size_t n = 0;
    mb_tokenizer *t = make_tokenizer("<s>", NULL, NULL);
    mb_ids all = {0}, joined = {0};

    for (int i = 0; i < 300; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "line %d\n", i);
    const mb_source source = {.path = write_file("book.txt", text, n)};
    mb_store_options o = options(t, &source, 1);

    for (int bos = 0; bos < 2; bos++) {
        mb_store *s;

        o.render.add_bos = bos;
        o.max_length = 50;
        s = build(&o);
        mb_ids_clear(&joined);
        for (int64_t r = 0; r < s->n_rows; r++) {
            const int64_t from = s->offset[r] + bos, len = s->offset[r + 1] - from;

            assert_true(len + bos <= 50);
            if (bos)
                assert_int_equal(s->ids[s->offset[r]], mb_tokenizer_role(t, MB_TOKEN_BOS));
            OK(mb_ids_append(&joined, s->ids + from, (size_t)len));
        }
        mb_ids_clear(&all);
        OK(mb_tokenizer_encode(t, text, n, 0, &all));
        assert_true(joined.n == all.n || joined.n + 1 == all.n); /* a last piece of one token */
        assert_memory_equal(joined.id, all.id, joined.n * sizeof(int32_t));
        OK(mb_tokenizer_decode(t, joined.id, joined.n, false, &whole, NULL));
        assert_memory_equal(whole, text, joined.n == all.n ? n : n - 1);
        mb_free(whole);
        mb_store_free(s);
    }
    mb_ids_release(&all);
    mb_ids_release(&joined);
    mb_tokenizer_free(t);
}

static void a_doubled_bos_is_left_out_and_counted(void **state)
{
    /* a system prompt in the text of llama2's form begins with BOS; add_bos would double it */
    mb_tokenizer *t = make_tokenizer("<s>", "</s>", NULL);
    const mb_source source = {
        .path = text_file("c.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                                     "{\"role\":\"assistant\",\"content\":\"b\"}]}\n")};
    mb_store_options o = options(t, &source, 1);
    mb_store *s;

    o.render.chat_template = "llama2";
    o.render.add_bos = 1;
    s = build(&o);
    assert_int_equal(s->stats.bos, 1); /* the format owns BOS */
    assert_int_equal(s->ids[0], mb_tokenizer_role(t, MB_TOKEN_BOS));
    assert_int_not_equal(s->ids[1], mb_tokenizer_role(t, MB_TOKEN_BOS));
    mb_store_free(s);
    mb_tokenizer_free(t);
}

static void labels_get_numbers(void **state)
{
    static const char *const model[] = {"neutral", "good", "bad"};
    mb_tokenizer *t = make_tokenizer(NULL, NULL, NULL);
    mb_source source = {.path = text_file("w.csv", "text,label\na b,good\nc d,bad\ne f,good\n")};
    mb_store_options o = options(t, &source, 1);
    mb_store *s;

    o.rows = MB_WANT_CLASS;
    s = build(&o);
    assert_int_equal(s->n_labels, 2);
    assert_string_equal(s->label_name[0], "bad");
    assert_string_equal(s->label_name[1], "good");
    assert_int_equal(s->label[0], 1);
    assert_int_equal(s->label[1], 0);
    mb_store_free(s);
    o.label_names = model;
    o.n_label_names = 3;
    s = build(&o);
    assert_int_equal(s->label[0], 1);
    assert_int_equal(s->label[1], 2);
    mb_store_free(s);
    o.n_label_names = 2;
    refuse(&o, MB_EDATA, "the label \"bad\" is not one of the model's 2");
    source.path = text_file("n.csv", "text,label\na b,2\nc d,0\n");
    refuse(&o, MB_EDATA, "the label 2 is outside the model's 2 labels");
    o.label_names = NULL, o.n_label_names = 0;
    s = build(&o);
    assert_int_equal(s->n_labels, 3);
    assert_string_equal(s->label_name[2], "2");
    assert_int_equal(s->label[0], 2);
    mb_store_free(s);
    source.path = text_file("x.csv", "text,label\na b,2\nc d,good\n");
    refuse(&o, MB_EDATA, "some labels are numbers and some are words");
    mb_tokenizer_free(t);
}

static bool contains(const int64_t *list, int64_t n, int64_t v)
{
    for (int64_t i = 0; i < n; i++) {
        if (list[i] == v)
            return true;
    }
    return false;
}

static void validation_never_shares_a_row_with_training(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "</s>", NULL);
    const mb_source source = {.path = pairs_file("split.jsonl", 300)};
    mb_store_options o = options(t, &source, 1);
    mb_store *s = build(&o);

    for (uint64_t seed = 0; seed < 20; seed++) {
        int64_t *train, *val, *again, *other, n, v, n2, v2;

        OK(mb_store_split(s, seed % 2 ? 0.1 : 30, seed, &train, &n, &val, &v));
        assert_int_equal(n + v, 300);
        assert_true(v >= 30 && v <= 60); /* the 30 equal rows go one way together */
        for (int64_t i = 0; i < v; i++) {
            assert_false(contains(train, n, val[i]));
            for (int64_t k = 0; k < n; k++)
                assert_true(s->hash[train[k]] != s->hash[val[i]]);
        }
        OK(mb_store_split(s, seed % 2 ? 0.1 : 30, seed, &again, &n2, &other, &v2));
        assert_true(v2 == v && memcmp(other, val, (size_t)v * 8) == 0);
        mb_free(train), mb_free(val), mb_free(again), mb_free(other);
    }
    int64_t *train, *val, n, v;

    assert_int_equal(mb_store_split(s, 300, 1, &train, &n, &val, &v), MB_EDATA);
    mb_status_clear();
    OK(mb_store_split(s, 0, 1, &train, &n, &val, &v));
    assert_int_equal(v, 0);
    mb_free(train), mb_free(val);
    mb_store_free(s);
    mb_tokenizer_free(t);
}

static void assert_same(const mb_store *a, const mb_store *b)
{
    assert_int_equal(a->n_rows, b->n_rows);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n_tokens * 4);
    assert_memory_equal(a->flags, b->flags, (size_t)a->n_tokens);
    assert_memory_equal(a->offset, b->offset, (size_t)(a->n_rows + 1) * 8);
    assert_memory_equal(a->trained, b->trained, (size_t)a->n_rows * 4);
    assert_memory_equal(a->label, b->label, (size_t)a->n_rows * 4);
    assert_memory_equal(a->line, b->line, (size_t)a->n_rows * 8);
    assert_memory_equal(a->hash, b->hash, (size_t)a->n_rows * 8);
    assert_memory_equal(&a->stats, &b->stats, sizeof a->stats);
    assert_int_equal(a->n_labels, b->n_labels);
    for (int i = 0; i < a->n_labels; i++)
        assert_string_equal(a->label_name[i], b->label_name[i]);
    assert_string_equal(a->digest, b->digest);
}

static void the_cache_gives_the_same_store_and_damage_is_seen(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "</s>", NULL);
    const mb_source source = {.path = pairs_file("cached.jsonl", 300)};
    mb_store_options o = options(t, &source, 1);
    mb_store *fresh = build(&o), *s;
    char dir[200], path[400], *bytes;
    size_t n;

    snprintf(dir, sizeof dir, "%s/cache/deep", root);
    o.cache_dir = dir;
    s = build(&o);
    assert_false(s->from_cache);
    assert_same(fresh, s);
    mb_store_free(s);
    s = build(&o);
    assert_true(s->from_cache);
    assert_same(fresh, s);
    mb_store_free(s);
    /* any damage: as if there were no cache, which is then made again */
    snprintf(path, sizeof path, "%s/%s.h5", dir, fresh->digest);
    for (int kind = 0; kind < 3; kind++) {
        OK(mb_file_read(path, 1 << 24, &bytes, &n));
        if (kind == 0)
            bytes[n / 2] ^= 1;
        OK(mb_file_write_atomic(path, bytes, kind == 1 ? n / 3 : kind == 2 ? 0 : n));
        mb_free(bytes);
        s = build(&o);
        assert_false(s->from_cache);
        assert_same(fresh, s);
        mb_store_free(s);
        s = build(&o);
        assert_true(s->from_cache);
        mb_store_free(s);
    }
    /* other options are another store */
    o.max_length = 63;
    s = build(&o);
    assert_false(s->from_cache);
    assert_string_not_equal(s->digest, fresh->digest);
    mb_store_free(s);
    o.max_length = 64;
    o.render.completion_suffix = "\n";
    s = build(&o);
    assert_false(s->from_cache);
    mb_store_free(s);
    /* so are other rows under the same name */
    o.render.completion_suffix = NULL;
    pairs_file("cached.jsonl", 299);
    s = build(&o);
    assert_false(s->from_cache);
    assert_int_equal(s->n_rows, 299);
    mb_store_free(s);
    mb_store_free(fresh);
    mb_tokenizer_free(t);
}

static void a_labelled_store_is_cached_with_its_names(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, NULL, NULL);
    const mb_source source = {.path =
                                  text_file("lab.csv", "text,label\na b,good\nc d,\"b,\"\"d\"\n")};
    mb_store_options o = options(t, &source, 1);
    mb_store *a, *b;
    char dir[200];

    snprintf(dir, sizeof dir, "%s/labels", root);
    o.rows = MB_WANT_CLASS;
    o.cache_dir = dir;
    a = build(&o);
    b = build(&o);
    assert_true(b->from_cache);
    assert_same(a, b);
    assert_string_equal(b->label_name[0], "b,\"d");
    mb_store_free(a);
    mb_store_free(b);
    mb_tokenizer_free(t);
}

static mb_store_options sound_options(const mb_tokenizer *t, const mb_source *source)
{
    mb_store_options o = options(t, source, 1);

    o.rows = MB_WANT_SOUND;
    o.render.prompt_ids[0] = 3;
    o.render.prompt_ids[1] = 4;
    o.render.prompt_ids[2] = 5;
    o.render.n_prompt_ids = 3;
    return o;
}

static void rows_about_sounds_have_their_files_and_a_prompt(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "<|im_end|>", NULL);
    const int32_t end = mb_tokenizer_role(t, MB_TOKEN_EOS);
    const char *rows = "{\"audio\":\"clips/a.wav\",\"sentence\":\"same\"}\n"
                       "{\"audio\":{\"path\":\"clips/bee.wav\"},\"text\":\"same\"}\n";
    char dir[200], at[300], want[400];
    const mb_source source = {.path = at};
    mb_store_options o = sound_options(t, &source);
    mb_store *a, *b;

    snprintf(dir, sizeof dir, "%s/sound/clips", root);
    OK(mb_path_mkdirs(dir));
    text_file("sound/clips/a.wav", "not looked into");
    text_file("sound/clips/bee.wav", "not looked into");
    text_file("sound/metadata.jsonl", rows);
    snprintf(at, sizeof at, "%s/sound", root);
    snprintf(dir, sizeof dir, "%s/sound/cache", root);
    o.cache_dir = dir;
    a = build(&o);
    b = build(&o);
    assert_true(!a->from_cache && b->from_cache);
    assert_same(a, b);
    assert_int_equal(b->n_rows, 2);
    assert_int_equal(b->stats.duplicates, 0); /* what is said twice is two sounds */
    snprintf(want, sizeof want, "%s/clips/a.wav", at);
    assert_string_equal(mb_store_media(b, 0), want);
    snprintf(want, sizeof want, "%s/clips/bee.wav", at);
    assert_string_equal(mb_store_media(b, 1), want);
    assert_int_equal(b->ids[0], 3);
    assert_int_equal(b->ids[2], 5);
    assert_int_equal(b->ids[b->offset[1] - 1], end);
    assert_int_equal(b->trained[0], b->offset[1] - 1); /* all but the first */
    mb_store_free(a);
    mb_store_free(b);
    mb_tokenizer_free(t);
}

static void which_folders_may_be_read_changes_rows_about_sounds_alone(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "<|im_end|>", NULL);
    char other[200], cache[200];
    const char *const here[] = {root, NULL}, *const both[] = {other, root, NULL},
                      *const elsewhere[] = {other, NULL};
    mb_source source = {.path = pairs_file("within.jsonl", 30)};
    mb_store_options o = options(t, &source, 1);
    mb_store *anywhere, *s;

    snprintf(other, sizeof other, "%s/elsewhere", root);
    snprintf(cache, sizeof cache, "%s/within-cache", root);
    OK(mb_path_mkdirs(other));
    o.cache_dir = cache;
    for (int sound = 0; sound < 2; sound++) {
        const char *const *const given[] = {here, both};

        if (sound) {
            text_file("heard.wav", "not looked into");
            source = (mb_source){.path = text_file("heard.csv", "file_name,text\nheard.wav,a\n")};
            o = sound_options(t, &source);
            o.cache_dir = cache;
        }
        anywhere = build(&o);
        for (int i = 0; i < 2; i++) {
            source.within = given[i];
            s = build(&o);
            assert_int_equal(s->from_cache, !sound);
            assert_int_equal(strcmp(s->digest, anywhere->digest) == 0, !sound);
            mb_store_free(s);
        }
        source.within = elsewhere; /* nor from the cache */
        refuse(&o, MB_EDATA, "below the folders that may be read");
        mb_store_free(anywhere);
    }
    mb_tokenizer_free(t);
}

static void rows_about_sounds_that_are_not_there_are_refused(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "<|im_end|>", NULL);
    mb_source source = {.path = text_file("gone.csv", "file_name,text\ngone.wav,what\n")};
    mb_store_options o = sound_options(t, &source);

    refuse(&o, MB_EDATA, "gone.csv:2: there is no file ");
    source.path = text_file("nothing.csv", "file_name,label\ngone.wav,what\n");
    refuse(&o, MB_EDATA, "nothing.csv:2: the fields are file_name, label; a sound has audio or");
    source.path = root;
    refuse(&o, MB_EDATA, "is a folder without metadata.jsonl");
    mb_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_about_sounds_have_their_files_and_a_prompt),
        cmocka_unit_test(which_folders_may_be_read_changes_rows_about_sounds_alone),
        cmocka_unit_test(rows_about_sounds_that_are_not_there_are_refused),
        cmocka_unit_test(rows_are_kept_in_order_with_their_places),
        cmocka_unit_test(rows_know_how_many_records_are_before_theirs),
        cmocka_unit_test(any_number_of_threads_makes_the_same_store),
        cmocka_unit_test(every_loss_of_a_row_is_counted),
        cmocka_unit_test(a_set_without_trained_tokens_is_refused_with_rows),
        cmocka_unit_test(bad_rows_stop_with_their_place),
        cmocka_unit_test(texts_are_cut_into_pieces_and_lose_nothing),
        cmocka_unit_test(a_doubled_bos_is_left_out_and_counted),
        cmocka_unit_test(labels_get_numbers),
        cmocka_unit_test(validation_never_shares_a_row_with_training),
        cmocka_unit_test(the_cache_gives_the_same_store_and_damage_is_seen),
        cmocka_unit_test(a_labelled_store_is_cached_with_its_names),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
