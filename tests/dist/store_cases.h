/* tests/dist/store_cases.h - a token store is the same on every rank and on any number of them.
 *
 * Each rank builds it with all and compares with what it builds alone. Run on 1 to 4 ranks.
 */
#include <unistd.h>

#include "../unit/data_test.h"
#include "dist/launch.h"
#include "recipes/data/store.h"
#include "tests/long.h"

static mb_launch launch;
static char shared[200];

/* Rank 0 writes, all read. */
static const char *shared_file(const char *name, const char *text, size_t n)
{
    static char path[400];

    snprintf(path, sizeof path, "%s/%s", shared, name);
    if (launch.rank == 0)
        OK(mb_file_write_atomic(path, text, n));
    OK(launch.world->ops->barrier(launch.world));
    return path;
}

static mb_store_options options(const mb_tokenizer *t, const mb_source *source)
{
    mb_store_options o = mb_store_defaults();

    o.source = source;
    o.n_sources = 1;
    o.render.tokenizer = t;
    o.max_length = 24;
    return o;
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
    assert_memory_equal(a->record, b->record, (size_t)a->n_rows * 8);
    assert_memory_equal(a->hash, b->hash, (size_t)a->n_rows * 8);
    assert_memory_equal(&a->stats, &b->stats, sizeof a->stats);
    assert_int_equal(a->n_media, b->n_media);
    assert_memory_equal(a->media, b->media, (size_t)a->n_media);
    assert_memory_equal(a->media_at, b->media_at, (size_t)(a->n_rows + 1) * 8);
    assert_int_equal(a->n_labels, b->n_labels);
    for (int i = 0; i < a->n_labels; i++)
        assert_string_equal(a->label_name[i], b->label_name[i]);
    assert_string_equal(a->digest, b->digest);
}

static char text[400000];

static size_t pairs(int n)
{
    size_t at = 0;

    for (int i = 0; i < n; i++) {
        if (i % 97 == 13)
            at += (size_t)snprintf(text + at, sizeof text - at, "not a row\n");
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "{\"prompt\":\"word %d %.*s is\",\"completion\":\" neno %d\"}\n", i,
                               i % 40, "xyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxy", i * 7 % 50);
    }
    return at;
}

static void all_ranks_have_the_store_of_one(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "</s>", NULL);

    for (int n = 1; n < 3000; n = n * 5 + 1) { /* less than a chunk, and many */
        const size_t bytes = pairs(n);
        const mb_source source = {.path = shared_file("pairs.jsonl", text, bytes),
                                  .skip_bad = true};
        const mb_store_options o = options(t, &source);
        mb_store *alone, *together;

        OK(mb_store_build(&o, mb_comm_self(), &alone));
        OK(mb_store_build(&o, launch.world, &together));
        assert_same(alone, together);
        assert_true(n < 100 || alone->stats.truncated > 0);
        mb_store_free(alone);
        mb_store_free(together);
        OK(launch.world->ops->barrier(launch.world));
    }
    mb_tokenizer_free(t);
}

static void labels_agree_whoever_met_them(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, NULL, NULL);
    size_t at = (size_t)snprintf(text, sizeof text, "text,label\n");

    for (int i = 0; i < 1500; i++) /* labels come late and in no order */
        at += (size_t)snprintf(text + at, sizeof text - at, "row %d,label %d\n", i,
                               (i / 100) * 7 % 15);
    const mb_source source = {.path = shared_file("labels.csv", text, at)};
    mb_store_options o = options(t, &source);
    mb_store *alone, *together;

    o.rows = MB_WANT_CLASS;
    OK(mb_store_build(&o, mb_comm_self(), &alone));
    OK(mb_store_build(&o, launch.world, &together));
    assert_int_equal(alone->n_labels, 15);
    assert_same(alone, together);
    mb_store_free(alone);
    mb_store_free(together);
    mb_tokenizer_free(t);
}

static void paths_of_sounds_agree_whoever_read_them(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "</s>", NULL);
    size_t at = (size_t)snprintf(text, sizeof text, "file_name,text\n");

    for (int i = 0; i < 900; i++) {
        char name[32];

        snprintf(name, sizeof name, "%0*d.wav", 1 + i % 3, i % 7);
        if (i < 42)
            shared_file(name, "", 0);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s,said %d\n", name, i);
    }
    const mb_source source = {.path = shared_file("sounds.csv", text, at)};
    mb_store_options o = options(t, &source);
    mb_store *alone, *together;

    o.rows = MB_WANT_SOUND;
    o.render.prompt_ids[0] = 3;
    o.render.prompt_ids[1] = 4;
    o.render.n_prompt_ids = 2;
    OK(mb_store_build(&o, mb_comm_self(), &alone));
    OK(mb_store_build(&o, launch.world, &together));
    assert_same(alone, together);
    assert_true(mb_path_has_suffix(mb_store_media(together, 13), "06.wav"));
    mb_store_free(alone);
    mb_store_free(together);
    mb_tokenizer_free(t);
}

static void a_bad_row_fails_on_all_ranks_with_its_place(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "</s>", NULL);
    const size_t bytes = pairs(1200);
    const mb_source source = {.path = shared_file("bad.jsonl", text, bytes)};
    const mb_store_options o = options(t, &source);
    mb_store *s;

    assert_int_equal(mb_store_build(&o, launch.world, &s), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "bad.jsonl:14:"));
    mb_status_clear();
    mb_tokenizer_free(t);
}

/* Builds with all, the last rank's n-th request for memory failing; all must agree on what came of it.
 * False when there were fewer requests. */
static bool build_with_a_fault(const mb_store_options *o, int64_t n, const mb_store *alone)
{
    const int last = launch.size - 1;
    int64_t seen[3] = {0}; /* ranks that failed, that ran out of memory, that named the last one */
    char name[32];
    mb_store *s = NULL;

    alarm(60); /* who hangs is found */
    if (launch.rank == last)
        mb_alloc_fail_at(n);
    const mb_status st = mb_store_build(o, launch.world, &s);
    mb_alloc_fail_at(0);
    snprintf(name, sizeof name, "rank %d: ", last);
    seen[0] = st != MB_OK;
    seen[1] = st == MB_ENOMEM;
    seen[2] = strncmp(mb_status_sentence(), name, strlen(name)) == 0;
    OK(launch.world->ops->all_reduce(launch.world, seen, 3, MB_DTYPE_I64, MB_SUM));
    alarm(0);
    if (st == MB_OK) {
        assert_int_equal(seen[0], 0);
        assert_same(alone, s);
        mb_store_free(s);
        return false;
    }
    assert_int_equal(seen[0], launch.size);
    assert_int_equal(seen[1], launch.size);
    assert_int_equal(seen[2], launch.size - 1);
    mb_status_clear();
    return true;
}

/* Wherever one rank alone runs out of memory, every rank ends with its sentence, and none hangs. */
static void no_rank_waits_for_one_that_failed(void **state)
{
    static const mb_want kinds[] = {MB_WANT_TEXT, MB_WANT_CLASS, MB_WANT_SOUND};
    const int64_t stride = is_long_run() ? 1 : 97;
    mb_tokenizer *t = make_tokenizer(NULL, "</s>", NULL);
    size_t at = (size_t)snprintf(text, sizeof text, "file_name,text,label\n");

    for (int i = 0; i < 520; i++) {
        char name[32];

        snprintf(name, sizeof name, "%d.wav", i % 7);
        if (i < 7)
            shared_file(name, "", 0);
        at +=
            (size_t)snprintf(text + at, sizeof text - at, "%s,said %d,label %d\n", name, i, i % 9);
    }
    const mb_source source = {.path = shared_file("faults.csv", text, at)};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        mb_store_options o = options(t, &source);
        int64_t n = 1, faults = 0, end;
        mb_store *alone;

        o.rows = kinds[k];
        OK(mb_store_build(&o, mb_comm_self(), &alone));
        while (build_with_a_fault(&o, n, alone)) /* to the end in strides, then from there back */
            n += stride, faults++;
        for (end = n; n > 0 && n > end - 160 && stride > 1; n--)
            faults += build_with_a_fault(&o, n, alone);
        assert_true(faults > 40);
        mb_store_free(alone);
    }
    mb_tokenizer_free(t);
}

static void the_cache_of_some_ranks_serves_others(void **state)
{
    mb_tokenizer *t = make_tokenizer(NULL, "</s>", NULL);
    const size_t bytes = pairs(800);
    const mb_source source = {.path = shared_file("c.jsonl", text, bytes), .skip_bad = true};
    mb_store_options o = options(t, &source);
    mb_store *a, *b, *c;
    char dir[400];

    snprintf(dir, sizeof dir, "%s/cache", shared);
    o.cache_dir = dir;
    OK(mb_store_build(&o, launch.world, &a));
    assert_false(a->from_cache);
    OK(mb_store_build(&o, launch.world, &b));
    assert_true(b->from_cache);
    assert_same(a, b);
    OK(mb_store_build(&o, mb_comm_self(), &c));
    assert_true(c->from_cache);
    assert_same(a, c);
    mb_store_free(a);
    mb_store_free(b);
    mb_store_free(c);
    mb_tokenizer_free(t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_ranks_have_the_store_of_one),
        cmocka_unit_test(labels_agree_whoever_met_them),
        cmocka_unit_test(paths_of_sounds_agree_whoever_read_them),
        cmocka_unit_test(a_bad_row_fails_on_all_ranks_with_its_place),
        cmocka_unit_test(no_rank_waits_for_one_that_failed),
        cmocka_unit_test(the_cache_of_some_ranks_serves_others),
    };
    int failed;

    if (mb_launch_init(&argc, &argv, &launch) != MB_OK || make_root(NULL) != 0)
        return 1;
    snprintf(shared, sizeof shared, "%s", root);
    if (launch.world->ops->broadcast(launch.world, shared, sizeof shared, 0) != MB_OK)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (launch.world->ops->barrier(launch.world) != MB_OK) /* the others may still read */
        failed = 1;
    if (remove_root(NULL) != 0)
        failed = 1;
    return mb_launch_end(&launch, MB_OK) != 0 || failed != 0;
}
