/* Generation against the same model without a cache, prompt by prompt against batches. */
#include <math.h>

#include "core/cpu/cpu.h"
#include "core/cpu/gemm.h"
#include "recipes/data/collate.h"
#include "recipes/generate/generate.h"
#include "recipes/train/session.h"
#include "tests/unit/data_test.h"

enum { CAPACITY = 96, NEW = 24, MOST_VOCAB = 384, MOST_ANSWERS = 16 };

static const char *const models[] = {"gpt2",  "llama",  "llama3-rope", "mistral-sliding", "qwen2",
                                     "qwen3", "gemma3", "olmo2",       "smollm3"};
enum { MODELS = sizeof models / sizeof models[0] };

static int vocab; /* of the subject that was opened last */

struct subject {
    mb_tokenizer *tok;
    mb_engine *cached, *plain; /* the same weights twice */
    mb_batch *batch;           /* of plain */
};

static void open_subject(const char *name, struct subject *s)
{
    char path[300];
    mb_session_options o = {.path = path, .quiet = true, .engine = {.threads = 2}};

    snprintf(path, sizeof path, "%s/reference/%s", MB_TEST_DATA, name);
    OK(mb_cpu_init());
    OK(mb_tokenizer_load(path, &s->tok));
    OK(mb_session_open(&o, &s->cached, NULL));
    OK(mb_session_open(&o, &s->plain, NULL));
    vocab = (int)s->plain->model->config.vocab;
    assert_true(vocab <= MOST_VOCAB);
    OK(mb_batch_new(CAPACITY, 1, &s->batch));
    s->batch->n_seq = 1;
    s->batch->max_len = CAPACITY;
    OK(mb_engine_reserve_for(s->plain, s->batch, false, 1));
}

static void close_subject(struct subject *s)
{
    mb_batch_free(s->batch);
    mb_engine_free(s->plain);
    mb_engine_free(s->cached);
    mb_tokenizer_free(s->tok);
}

/* The logits behind id[0..n), everything computed anew. */
static const float *plain_logits(struct subject *s, const int32_t *id, int64_t n)
{
    static int32_t last;
    mb_batch *b = s->batch;
    mb_tensor row = mb_tensor_1d(&last, MB_DTYPE_I32, 1), logits;

    b->tokens = b->used = n;
    memcpy(b->ids, id, (size_t)n * sizeof *id);
    for (int64_t i = 0; i < n; i++)
        b->position[i] = (int32_t)i;
    b->start[0] = b->k_start[0] = 0;
    b->len[0] = b->k_len[0] = (int32_t)n;
    last = (int32_t)n - 1;
    OK(mb_engine_logits(s->plain, b, &row, &logits));
    return mb_f32(&logits);
}

/* ---- what a run gave ---------------------------------------------------------------------- */

struct result {
    int32_t id[CAPACITY];
    int64_t n;
    char text[4096], streamed[4096];
    mb_finish finish;
    float logits[NEW][MOST_VOCAB]; /* vocab of each are used */
    int64_t n_logits;
};

struct results {
    struct result *at;
    int64_t first_count, last_count; /* allocations at the second token and at the last */
    int64_t answers;
};

/* Appends n bytes, which may be any: byte-level models write zeros, too. */
static void append(char *text, size_t room, const char *bytes, size_t n)
{
    size_t at = strlen(text);

    assert_true(at + n < room);
    for (size_t i = 0; i < n; i++)
        text[at++] = bytes[i] != '\0' ? bytes[i] : '\1';
    text[at] = '\0';
}

static mb_status on_text(void *arg, int64_t prompt, const char *text, size_t n)
{
    struct result *r = &((struct results *)arg)->at[prompt];

    assert_true(n > 0);
    append(r->streamed, sizeof r->streamed, text, n);
    return MB_OK;
}

static mb_status on_answer(void *arg, const mb_answer *a)
{
    struct result *r = &((struct results *)arg)->at[a->prompt];

    memcpy(r->id, a->id, (size_t)a->n * sizeof a->id[0]);
    r->n = a->n;
    r->finish = a->finish;
    assert_int_equal(a->text[a->n_text], '\0');
    r->text[0] = '\0';
    append(r->text, sizeof r->text, a->text, a->n_text);
    ((struct results *)arg)->answers++;
    return MB_OK;
}

static mb_status on_logits(void *arg, int64_t prompt, int64_t token, const float *logits, int64_t n)
{
    struct results *all = arg;

    assert_int_equal(n, vocab);
    if (token < NEW) {
        memcpy(all->at[prompt].logits[token], logits, (size_t)n * sizeof *logits);
        all->at[prompt].n_logits = token + 1;
    }
    if (token == 2)
        all->first_count = mb_alloc_count();
    all->last_count = mb_alloc_count();
    return MB_OK;
}

static mb_generate_options greedy(struct results *r)
{
    return (mb_generate_options){
        .max_new_tokens = NEW,
        .pick = {.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0},
        .arg = r,
        .on_text = on_text,
        .on_answer = on_answer,
        .on_logits = on_logits,
    };
}

static struct results new_results(void)
{
    struct results r = {.at = calloc(MOST_ANSWERS, sizeof(struct result))};

    assert_non_null(r.at);
    return r;
}

static mb_generator *new_generator(struct subject *s, int64_t n_seq, int64_t chunk)
{
    const mb_generator_options o = {.n_seq = n_seq, .capacity = CAPACITY, .chunk = chunk};
    mb_generator *g;

    OK(mb_generator_new(s->cached, s->tok, &o, &g));
    return g;
}

/* Runs with a generator of its own. */
static void generate(struct subject *s, int64_t n_seq, int64_t chunk, const mb_prompt *p, int64_t n,
                     const mb_generate_options *o)
{
    mb_generator *g = new_generator(s, n_seq, chunk);

    OK(mb_generator_run(g, p, n, o));
    mb_generator_free(g);
}

static int32_t prompt_ids[MOST_ANSWERS][CAPACITY];

/* Prompts of different lengths: 1, 5, 9, 23, 61, 2, 17, ... tokens. */
static void make_prompts(mb_prompt *p, int64_t n)
{
    static const int64_t lengths[] = {5, 1, 23, 61, 9, 2, 17};

    for (int64_t i = 0; i < n; i++) {
        p[i] = (mb_prompt){.id = prompt_ids[i], .n = lengths[i % 7], .sample = (uint64_t)i};
        for (int64_t j = 0; j < p[i].n; j++)
            prompt_ids[i][j] = (int32_t)(3 + (i * 101 + j * 37) % (vocab - 4));
    }
}

static double worst_logit(const float *a, const float *b)
{
    double worst = 0.0, size = 1.0;

    for (int v = 0; v < vocab; v++) {
        worst = fmax(worst, fabs((double)a[v] - (double)b[v]));
        size = fmax(size, fabs((double)a[v]));
    }
    return worst / size;
}

static void same_answer(const struct result *a, const struct result *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->id, b->id, (size_t)a->n * sizeof a->id[0]);
    assert_string_equal(a->text, b->text);
    assert_int_equal(a->finish, b->finish);
    assert_int_equal(a->n_logits, b->n_logits);
}

static void close_logits(const struct result *a, const struct result *b, double bound)
{
    for (int64_t i = 0; i < a->n_logits; i++)
        assert_true(worst_logit(a->logits[i], b->logits[i]) <= bound);
}

/* ---- models ------------------------------------------------------------------------------- */

static void with_a_cache_as_without(void **state)
{
    for (int m = 0; m < MODELS; m++) {
        struct subject s;
        struct results r = new_results();
        mb_prompt p[5];
        double worst = 0.0;

        open_subject(models[m], &s);
        make_prompts(p, 5);
        const mb_generate_options o = greedy(&r);
        generate(&s, 5, 0, p, 5, &o);
        for (int i = 0; i < 5; i++) {
            int32_t all[CAPACITY];

            assert_int_equal(r.at[i].n, NEW);
            assert_int_equal(r.at[i].finish, MB_FINISH_LENGTH);
            memcpy(all, p[i].id, (size_t)p[i].n * sizeof all[0]);
            for (int64_t j = 0; j < NEW; j++) {
                const float *y = plain_logits(&s, all, p[i].n + j);
                int best = 0;

                worst = fmax(worst, worst_logit(y, r.at[i].logits[j]));
                for (int v = 1; v < vocab; v++)
                    best = y[v] > y[best] ? v : best;
                assert_int_equal(best, r.at[i].id[j]);
                all[p[i].n + j] = best;
            }
        }
        print_message("%s: logits with and without a cache differ by at most %.2g\n", models[m],
                      worst);
        assert_true(worst <= 1e-5);
        free(r.at);
        close_subject(&s);
    }
}

static void several_prompts_as_each_alone(void **state)
{
    for (int m = 0; m < MODELS; m++) {
        struct subject s;
        struct results together = new_results(), waiting = new_results();
        mb_prompt p[7];

        open_subject(models[m], &s);
        make_prompts(p, 7);
        mb_generate_options o = greedy(&together);
        generate(&s, 7, 0, p, 7, &o);
        o.arg = &waiting;
        generate(&s, 3, 0, p, 7, &o); /* the last four wait for a place */
        for (int i = 0; i < 7; i++) {
            struct results alone = new_results();

            o.arg = &alone;
            generate(&s, 1, 0, &p[i], 1, &o);
            same_answer(&together.at[i], &alone.at[0]);
            same_answer(&waiting.at[i], &alone.at[0]);
            if (mb_cpu_gemm_rows_exact()) {
                assert_memory_equal(together.at[i].logits, alone.at[0].logits,
                                    sizeof alone.at[0].logits);
                assert_memory_equal(waiting.at[i].logits, alone.at[0].logits,
                                    sizeof alone.at[0].logits);
            }
            close_logits(&together.at[i], &alone.at[0], 1e-5);
            free(alone.at);
        }
        free(together.at);
        free(waiting.at);
        close_subject(&s);
    }
}

static void a_prompt_in_pieces_as_at_once(void **state)
{
    static const int64_t chunks[] = {1, 7, 16, 20, 64};

    for (int m = 0; m < MODELS; m++) {
        struct subject s;
        struct results whole = new_results();
        mb_prompt p[5];

        open_subject(models[m], &s);
        make_prompts(p, 5);
        mb_generate_options o = greedy(&whole);
        generate(&s, 5, 0, p, 5, &o);
        for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
            struct results pieces = new_results();

            o.arg = &pieces;
            generate(&s, 5, chunks[c], p, 5, &o);
            for (int i = 0; i < 5; i++) {
                same_answer(&whole.at[i], &pieces.at[i]);
                close_logits(&whole.at[i], &pieces.at[i], 1e-5);
            }
            free(pieces.at);
        }
        free(whole.at);
        close_subject(&s);
    }
}

static void a_token_takes_no_memory(void **state)
{
    struct subject s;
    struct results r = new_results();
    mb_prompt p[3];
    mb_generator *g;

    open_subject("llama", &s);
    make_prompts(p, 3);
    mb_generate_options o = greedy(&r);
    o.pick.sample = true;
    o.pick.top_k = 20;
    o.pick.top_p = 0.9;
    o.pick.repetition_penalty = 1.1;
    g = new_generator(&s, 3, 0);
    OK(mb_generator_run(g, p, 3, &o));
    assert_true(r.first_count > 0);
    OK(mb_generator_run(g, p, 3, &o)); /* detokenizers have their buffers now */
    assert_int_equal(r.first_count, r.last_count);
    mb_generator_free(g);
    free(r.at);
    close_subject(&s);
}

static void the_next_turn_computes_what_is_new(void **state)
{
    struct subject s;
    struct results first = new_results(), kept = new_results(), fresh = new_results();
    int32_t longer[CAPACITY], other[CAPACITY];
    mb_prompt p[1], q = {.id = longer}, u = {.id = other};
    mb_generator *g;

    open_subject("llama3-rope", &s);
    make_prompts(p, 1);
    g = new_generator(&s, 1, 0);
    mb_generate_options o = greedy(&first);
    o.keep = true;
    OK(mb_generator_run(g, p, 1, &o));
    assert_int_equal(mb_generator_last(g).kept_tokens, 0);
    assert_int_equal(mb_generator_last(g).prompt_tokens, p[0].n);
    memcpy(longer, p[0].id, (size_t)p[0].n * sizeof longer[0]);
    memcpy(longer + p[0].n, first.at[0].id, NEW * sizeof longer[0]);
    q.n = p[0].n + NEW;
    for (int i = 0; i < 12; i++)
        longer[q.n++] = 50 + i;
    o.arg = &kept;
    OK(mb_generator_run(g, &q, 1, &o));
    assert_int_equal(mb_generator_last(g).kept_tokens, p[0].n + NEW - 1); /* not the last one */
    assert_int_equal(mb_generator_last(g).prompt_tokens, 13);
    o.arg = &fresh;
    o.keep = false;
    generate(&s, 1, 0, &q, 1, &o);
    same_answer(&kept.at[0], &fresh.at[0]);
    close_logits(&kept.at[0], &fresh.at[0], 1e-5);
    /* another ending: back to what is common, and the same prompt again: all but its last token */
    memcpy(other, longer, sizeof other);
    other[8] = other[8] == 9 ? 10 : 9;
    u.n = 20;
    o.keep = true;
    o.arg = &kept;
    OK(mb_generator_run(g, &u, 1, &o));
    assert_int_equal(mb_generator_last(g).kept_tokens, 8);
    memset(kept.at, 0, sizeof *kept.at);
    OK(mb_generator_run(g, &u, 1, &o));
    assert_int_equal(mb_generator_last(g).kept_tokens, 19);
    o.keep = false;
    memset(fresh.at, 0, sizeof *fresh.at);
    o.arg = &fresh;
    generate(&s, 1, 0, &u, 1, &o);
    same_answer(&kept.at[0], &fresh.at[0]);
    close_logits(&kept.at[0], &fresh.at[0], 1e-5);
    mb_generator_free(g);
    free(first.at);
    free(kept.at);
    free(fresh.at);
    close_subject(&s);
}

static void samples_are_functions_of_seed_and_number(void **state)
{
    struct subject s;
    struct results a = new_results(), b = new_results(), c = new_results();
    mb_prompt p[6];
    int different = 0;

    open_subject("gpt2", &s);
    make_prompts(p, 6);
    for (int i = 0; i < 6; i++)
        p[i] = (mb_prompt){.id = prompt_ids[0], .n = 5, .sample = (uint64_t)i};
    mb_generate_options o = greedy(&a);
    o.pick.sample = true;
    o.pick.seed = 7;
    generate(&s, 6, 0, p, 6, &o);
    o.arg = &b;
    generate(&s, 2, 0, p, 6, &o);
    o.pick.seed = 8;
    o.arg = &c;
    generate(&s, 6, 0, p, 6, &o);
    for (int i = 0; i < 6; i++) {
        same_answer(&a.at[i], &b.at[i]);
        assert_memory_not_equal(a.at[i].id, c.at[i].id, NEW * sizeof a.at[i].id[0]);
        for (int j = 0; j < i; j++)
            different += memcmp(a.at[i].id, a.at[j].id, NEW * sizeof a.at[i].id[0]) != 0;
    }
    assert_int_equal(different, 15);
    /* the likeliest of one is the likeliest */
    memset(a.at, 0, MOST_ANSWERS * sizeof *a.at);
    memset(b.at, 0, MOST_ANSWERS * sizeof *b.at);
    o.arg = &a;
    o.pick.top_k = 1;
    generate(&s, 6, 0, p, 6, &o);
    o.arg = &b;
    o.pick.sample = false;
    generate(&s, 6, 0, p, 6, &o);
    same_answer(&a.at[3], &b.at[3]);
    free(a.at);
    free(b.at);
    free(c.at);
    close_subject(&s);
}

static void answers_end_where_they_should(void **state)
{
    struct subject s;
    struct results whole = new_results(), r = new_results();
    volatile sig_atomic_t cancelled = 1;
    mb_prompt p[4];
    mb_generator *g;

    open_subject("mistral-sliding", &s);
    make_prompts(p, 4);
    mb_generate_options o = greedy(&whole);
    generate(&s, 1, 0, &p[0], 1, &o);
    assert_string_equal(whole.at[0].text, whole.at[0].streamed);
    o.arg = &r;

    /* an end token is the last id and not in the text */
    const int32_t end[] = {vocab + 5, whole.at[0].id[9]};
    o.end = end;
    o.n_end = 2;
    generate(&s, 1, 0, &p[0], 1, &o);
    assert_int_equal(r.at[0].finish, MB_FINISH_END);
    assert_true(r.at[0].n <= 10 && r.at[0].id[r.at[0].n - 1] == end[1]);
    assert_true(strlen(r.at[0].text) < strlen(whole.at[0].text));
    assert_memory_equal(r.at[0].text, whole.at[0].text, strlen(r.at[0].text));
    assert_string_equal(r.at[0].text, r.at[0].streamed);
    o.n_end = 0;

    /* the place is full */
    memset(r.at, 0, MOST_ANSWERS * sizeof *r.at);
    o.max_new_tokens = 1000;
    generate(&s, 1, 0, &p[3], 1, &o);
    assert_int_equal(r.at[0].finish, MB_FINISH_CONTEXT);
    assert_int_equal(r.at[0].n, CAPACITY - p[3].n);

    /* cancelled before the first token */
    memset(r.at, 0, MOST_ANSWERS * sizeof *r.at);
    r.answers = 0;
    o.cancel = &cancelled;
    g = new_generator(&s, 2, 0);
    OK(mb_generator_run(g, p, 4, &o));
    assert_int_equal(r.answers, 2);
    assert_int_equal(r.at[0].finish, MB_FINISH_CANCELLED);
    assert_int_equal(r.at[0].n, 0);
    o.cancel = NULL;
    OK(mb_generator_run(g, p, 4, &o)); /* and it goes on being usable */
    assert_int_equal(r.answers, 6);
    mb_generator_free(g);
    free(whole.at);
    free(r.at);
    close_subject(&s);
}

static void a_stop_text_is_never_shown(void **state)
{
    struct subject s;
    struct results whole = new_results();
    mb_prompt p[1];
    int tried = 0;

    open_subject("llama", &s);
    make_prompts(p, 1);
    mb_generate_options o = greedy(&whole);
    generate(&s, 1, 0, p, 1, &o);
    const char *text = whole.at[0].text;
    const size_t n = strlen(text);

    /* every piece of the text of 1 to 5 bytes as stop text, together with one that only begins */
    for (size_t at = 0; at < n; at++) {
        for (size_t bytes = 1; bytes <= 5 && at + bytes <= n; bytes++) {
            struct results r = new_results();
            char stop[8], begins[16];
            const char *stops[2] = {begins, stop};

            snprintf(stop, sizeof stop, "%.*s", (int)bytes, text + at);
            snprintf(begins, sizeof begins, "%.*s~no~", (int)bytes, text + at);
            o.stop = stops;
            o.n_stop = 2;
            o.arg = &r;
            generate(&s, 1, 0, p, 1, &o);
            const size_t first = (size_t)(strstr(text, stop) - text);
            assert_int_equal(r.at[0].finish, MB_FINISH_STOP);
            assert_int_equal(strlen(r.at[0].text), first);
            assert_memory_equal(r.at[0].text, text, first);
            assert_string_equal(r.at[0].text, r.at[0].streamed);
            free(r.at);
            tried++;
            if (tried % 7 != 0)
                continue;
            struct results only = new_results(); /* held back, then given out after all */
            o.n_stop = 1;
            o.arg = &only;
            generate(&s, 1, 0, p, 1, &o);
            assert_string_equal(only.at[0].text, text);
            assert_string_equal(only.at[0].streamed, text);
            free(only.at);
        }
        at += at < 30 ? 0 : 9;
    }
    assert_true(tried > 50);
    free(whole.at);
    close_subject(&s);
}

static void refuse(mb_generator *g, const mb_prompt *p, const mb_generate_options *o, mb_status st,
                   const char *what)
{
    assert_int_equal(mb_generator_run(g, p, 1, o), st);
    if (strstr(mb_status_sentence(), what) == NULL)
        fail_msg("'%s' is not in: %s", what, mb_status_sentence());
    mb_status_clear();
}

static void what_cannot_be_is_refused(void **state)
{
    static const int32_t ids[CAPACITY] = {1, 2, MOST_VOCAB, -1};
    struct subject s;
    struct results r = new_results();
    mb_generator_options big = {.n_seq = 1, .capacity = 129};
    mb_generator *g;
    mb_prompt p = {.id = ids, .n = 0};

    open_subject("gpt2", &s);
    assert_int_equal(mb_generator_new(s.cached, s.tok, &big, &g), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "128 positions"));
    mb_status_clear();
    big = (mb_generator_options){.n_seq = 16, .capacity = 64};
    assert_int_equal(mb_generator_new(s.cached, s.tok, &big, &g), MB_EARG);
    mb_status_clear();
    g = new_generator(&s, 1, 0);
    mb_generate_options o = greedy(&r);
    refuse(g, &p, &o, MB_EDATA, "empty");
    p.n = CAPACITY;
    refuse(g, &p, &o, MB_EDATA, "96 tokens");
    p.n = 3;
    refuse(g, &p, &o, MB_EDATA, "token 384");
    p.n = 2;
    o.pick.top_p = 0.0;
    refuse(g, &p, &o, MB_EARG, "top_p");
    o.pick.top_p = 1.0;
    o.pick.temperature = 0.0;
    refuse(g, &p, &o, MB_EARG, "temperature");
    o.pick.temperature = 1.0;
    o.pick.repetition_penalty = -1.0;
    refuse(g, &p, &o, MB_EARG, "repetition_penalty");
    o.pick.repetition_penalty = 1.0;
    o.stop = (const char *const[]){""};
    o.n_stop = 1;
    refuse(g, &p, &o, MB_EARG, "stop");
    o.n_stop = 0;
    OK(mb_generator_run(g, &p, 1, &o));
    mb_generator_free(g);
    free(r.at);
    close_subject(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_a_cache_as_without),
        cmocka_unit_test(several_prompts_as_each_alone),
        cmocka_unit_test(a_prompt_in_pieces_as_at_once),
        cmocka_unit_test(a_token_takes_no_memory),
        cmocka_unit_test(the_next_turn_computes_what_is_new),
        cmocka_unit_test(samples_are_functions_of_seed_and_number),
        cmocka_unit_test(answers_end_where_they_should),
        cmocka_unit_test(a_stop_text_is_never_shown),
        cmocka_unit_test(what_cannot_be_is_refused),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
