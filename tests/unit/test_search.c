/* Beam search, and what rules leave of it, against the ids that transformers' generate() gave. */
#include "core/cpu/cpu.h"
#include "core/json.h"
#include "recipes/data/collate.h"
#include "recipes/generate/seq2seq.h"
#include "recipes/train/session.h"
#include "tests/unit/data_test.h"

enum { PROMPTS = 8, MOST = 32, ANSWERS = 4, MOST_CONFIG = 1 << 20 };

static const char *const models[] = {"t5", "t5-v1-relu-tied", "marian", "m2m100"};

struct result {
    int32_t id[PROMPTS][ANSWERS][MOST];
    int64_t n[PROMPTS][ANSWERS];
    double score[PROMPTS][ANSWERS];
};

static mb_status keep(void *arg, int64_t number, int64_t rank, const int32_t *id, int64_t n,
                      double score)
{
    struct result *r = arg;

    assert_true(number < PROMPTS && rank < ANSWERS && n <= MOST);
    memcpy(r->id[number][rank], id, (size_t)n * sizeof *id);
    r->n[number][rank] = n;
    r->score[number][rank] = score;
    return MB_OK;
}

struct subject {
    char path[300];
    mb_engine *engine;
    mb_ids source[PROMPTS];
    int64_t n;
    int32_t start;
    mb_json_doc *wanted;
};

static void open_subject(const char *name, struct subject *s)
{
    mb_session_options o = {
        .path = s->path, .head = MB_HEAD_SEQ2SEQ, .quiet = true, .engine = {.threads = 2}};
    char file[400];

    *s = (struct subject){0};
    snprintf(s->path, sizeof s->path, "%s/reference/%s", MB_TEST_DATA, name);
    snprintf(file, sizeof file, "%s/generate.json", s->path);
    OK(mb_cpu_init());
    OK(mb_session_open(&o, &s->engine, NULL));
    OK(mb_json_read(file, MB_EDATA, MOST_CONFIG, &s->wanted));
    s->start = (int32_t)s->engine->model->config.decoder_start_id;
    const mb_json rows = mb_json_get(mb_json_root(s->wanted), "sources");
    for (mb_json_it it = mb_json_first(rows); mb_json_more(&it); mb_json_next(&it), s->n++)
        for (mb_json_it t = mb_json_first(it.value); mb_json_more(&t); mb_json_next(&t)) {
            int64_t id;
            OK(mb_json_int(t.value, &id));
            OK(mb_ids_push(&s->source[s->n], (int32_t)id));
        }
}

static void close_subject(struct subject *s)
{
    for (int i = 0; i < PROMPTS; i++)
        mb_ids_release(&s->source[i]);
    mb_json_free(s->wanted);
    mb_engine_free(s->engine);
}

static mb_early early_of(mb_json options)
{
    const mb_json v = mb_json_get(options, "early_stopping");
    bool yes = false;

    if (!mb_json_is_set(v))
        return MB_EARLY_NO;
    if (mb_json_is(v, MB_JSON_STRING))
        return MB_EARLY_NEVER;
    OK(mb_json_bool(v, &yes));
    return yes ? MB_EARLY_YES : MB_EARLY_NO;
}

/* Prompts [from, to) with the options of one run of generate.json. */
static void search(struct subject *s, mb_json options, int64_t from, int64_t to, struct result *r)
{
    mb_search_options o = {.prompts = to - from,
                           .prompt_rows = to - from,
                           .capacity = MOST,
                           .beam = {.beams = 1, .length_penalty = 1.0, .early = early_of(options)},
                           .pick = {.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0},
                           .max_new_tokens = 14,
                           .answers = 1};
    mb_rules rules = {.repetition_penalty = 1.0, .forced_first = -1};
    const mb_ids *rows[PROMPTS];
    mb_search_prompt prompt[PROMPTS];
    mb_json_doc *config = NULL;
    mb_batch *source;
    mb_search *m;
    char file[400];
    int64_t tokens = 0;

    snprintf(file, sizeof file, "%s/config.json", s->path);
    OK(mb_json_read(file, MB_EDATA, MOST_CONFIG, &config));
    OK(mb_rules_read(&rules, mb_json_root(config)));
    OK(mb_rules_read(&rules, options));
    OK(mb_json_get_int(options, "num_beams", 1, &o.beam.beams));
    OK(mb_json_get_int(options, "num_return_sequences", 1, &o.answers));
    OK(mb_json_get_real(options, "length_penalty", 1.0, &o.beam.length_penalty));
    for (int64_t i = from; i < to; i++) {
        rows[i - from] = &s->source[i];
        prompt[i - from] = (mb_search_prompt){.id = &s->start, .n = 1, .sample = (uint64_t)i};
        tokens += (int64_t)s->source[i].n;
    }
    OK(mb_source_batch(rows, to - from, tokens, to - from, &source));
    OK(mb_search_new(s->engine, &o, source, &m));
    memset(r, 0, sizeof *r);
    OK(mb_search_run(m, source, prompt, to - from, &rules, keep, r));
    mb_search_free(m);
    mb_batch_free(source);
    mb_rules_release(&rules);
    mb_json_free(config);
}

/* generate() pads what ended early, and begins with the start token. */
static void compare(const char *what, const int32_t *id, int64_t n, mb_json wanted, int64_t pad)
{
    const int64_t m = (int64_t)mb_json_count(wanted) - 1;

    for (int64_t i = 0; i < (n > m ? n : m); i++) {
        int64_t want = -1;
        if (i < m)
            OK(mb_json_int(mb_json_at(wanted, (size_t)i + 1), &want));
        if (i < n ? id[i] != want : want != pad)
            fail_msg("%s: token %d is %d, expected %d", what, (int)i, i < n ? id[i] : -1,
                     (int)want);
    }
}

static void ids_are_those_of_transformers(void **state)
{
    static struct result r;

    (void)state;
    for (size_t k = 0; k < sizeof models / sizeof models[0]; k++) {
        struct subject s;

        open_subject(models[k], &s);
        const mb_json runs = mb_json_get(mb_json_root(s.wanted), "runs");
        assert_true(mb_json_count(runs) >= 12);
        for (mb_json_it it = mb_json_first(runs); mb_json_more(&it); mb_json_next(&it)) {
            const mb_json options = mb_json_get(it.value, "options");
            const mb_json ids = mb_json_get(it.value, "ids");
            const int64_t each = (int64_t)mb_json_count(ids) / s.n;

            search(&s, options, 0, s.n, &r);
            for (int64_t i = 0; i < s.n * each; i++) {
                char what[200], *text;

                OK(mb_json_text(options, 0, &text, NULL));
                snprintf(what, sizeof what, "%s %s, answer %d", models[k], text, (int)i);
                compare(what, r.id[i / each][i % each], r.n[i / each][i % each],
                        mb_json_at(ids, (size_t)i), s.engine->model->config.pad_id);
                mb_free(text);
            }
        }
        close_subject(&s);
    }
}

/* Alone, or beside others. */
static void neighbours_change_nothing(void **state)
{
    static struct result all, one;
    struct subject s;

    (void)state;
    open_subject("m2m100", &s);
    const mb_json runs = mb_json_get(mb_json_root(s.wanted), "runs");
    for (size_t k = 0; k < mb_json_count(runs); k += 5) {
        const mb_json options = mb_json_get(mb_json_at(runs, k), "options");

        search(&s, options, 0, s.n, &all);
        for (int64_t i = 0; i < s.n; i++) {
            search(&s, options, i, i + 1, &one);
            assert_int_equal(one.n[0][0], all.n[i][0]);
            assert_memory_equal(one.id[0][0], all.id[i][0], (size_t)one.n[0][0] * sizeof(int32_t));
        }
    }
    close_subject(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_transformers),
        cmocka_unit_test(neighbours_change_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
