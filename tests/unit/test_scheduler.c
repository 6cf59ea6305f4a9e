/* tests/unit/test_scheduler.c - many asks at once against each alone: bits, blocks, ends, places. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/cpu/cpu.h"
#include "recipes/data/collate.h"
#include "recipes/serve/scheduler.h"
#include "recipes/train/session.h"
#include "tests/long.h"
#include "tests/unit/data_test.h"

enum { CONTEXT = 256, NEW = 40, MOST_ANSWER = 256, MOST_CHOICES = 4, MANY = 40 };

static const char *const models[] = {"llama",  "gpt2",  "mistral-sliding", "qwen3",
                                     "gemma3", "olmo2", "smollm3"};
enum { MODELS = sizeof models / sizeof models[0] };

/* ---- what is served ------------------------------------------------------------------------ */

struct shop {
    mb_tokenizer *tok;
    mb_engine *engine;
    mb_scheduler *s;
    int64_t vocab, context;
};

/* A copy of the reference model with more positions, where they are turned and not learned. */
static void lengthen(const char *name, char *path, size_t size)
{
    static const char *const files[] = {"model.safetensors", "tokenizer.json"};
    const char *key = "\"max_position_embeddings\": 128";
    char from[300], to[300], text[8192];
    FILE *f;

    snprintf(path, size, "%s/%s", root, name);
    if (mkdir(path, 0700) != 0)
        return; /* it is there */
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/reference/%s/%s", MB_TEST_DATA, name, files[i]);
        snprintf(to, sizeof to, "%s/%s", path, files[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    snprintf(from, sizeof from, "%s/reference/%s/config.json", MB_TEST_DATA, name);
    f = fopen(from, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    snprintf(to, sizeof to, "%s/config.json", path);
    f = fopen(to, "w");
    assert_non_null(f);
    const char *at = strstr(text, key);
    const int64_t before = at != NULL ? at - text : 0;
    fprintf(f, "%.*s", (int)before, text);
    if (at != NULL)
        fprintf(f, "\"max_position_embeddings\": %d%s", CONTEXT, at + strlen(key));
    else
        fputs(text, f);
    fclose(f);
}

static void open_adapter(const char *name, const char *adapter, mb_bases *bases, int threads,
                         struct shop *shop)
{
    char path[300], of[400];
    mb_session_options o = {.path = path,
                            .adapter_path = adapter != NULL ? of : NULL,
                            .bases = bases,
                            .quiet = true,
                            .engine = {.threads = threads}};

    lengthen(name, path, sizeof path);
    snprintf(of, sizeof of, "%s/reference/%s/%s", MB_TEST_DATA, name,
             adapter != NULL ? adapter : "");
    OK(mb_cpu_init());
    OK(mb_tokenizer_load(path, &shop->tok));
    OK(mb_session_open(&o, &shop->engine, NULL));
}

static void open_model(const char *name, int threads, struct shop *shop)
{
    open_adapter(name, NULL, NULL, threads, shop);
}

static void open_shop(struct shop *shop, mb_scheduler_options o, int64_t cache_tokens)
{
    const int64_t positions = shop->engine->model->max_positions;
    int number;

    shop->context = positions < CONTEXT ? positions : CONTEXT;
    OK(mb_scheduler_new(&o, &shop->s));
    OK(mb_scheduler_add(shop->s,
                        &(mb_served){.engine = shop->engine,
                                     .tokenizer = shop->tok,
                                     .context = shop->context,
                                     .cache_tokens = cache_tokens,
                                     .share = -1},
                        &number));
    OK(mb_scheduler_start(shop->s));
    shop->vocab = mb_scheduler_vocab(shop->s, number);
}

static void close_shop(struct shop *shop)
{
    mb_scheduler_free(shop->s);
    shop->s = NULL;
}

static void close_model(struct shop *shop)
{
    close_shop(shop);
    mb_engine_free(shop->engine);
    mb_tokenizer_free(shop->tok);
}

/* ---- what is answered ---------------------------------------------------------------------- */

struct choice {
    int32_t id[MOST_ANSWER];
    float logprob[MOST_ANSWER];
    int64_t n, n_text;
    char text[4096];
    mb_finish why;
    int finishes;
};

struct heard {
    struct choice choice[MOST_CHOICES];
    float prompt[CONTEXT];
    int64_t n_prompt;
    mb_ask_usage usage;
    mb_scheduler_stats left; /* as its end was told */
    char failure[300];
    int64_t cancel_after; /* tokens; 0: never */
    mb_scheduler *s;
    _Atomic mb_ticket ticket;
    bool (*may)(int32_t id);
    atomic_int ended;
    atomic_bool gone;
};

static void on_token(void *arg, const mb_said *t)
{
    struct heard *h = arg;

    if (t->choice < 0) {
        assert_int_equal(t->place, h->n_prompt);
        h->prompt[h->n_prompt++] = t->token.logprob;
        return;
    }
    struct choice *c = &h->choice[t->choice];

    assert_int_equal(t->place, c->n);
    assert_true(c->n < MOST_ANSWER);
    for (int64_t i = 1; i < t->n_top; i++)
        assert_true(t->top[i].logprob <= t->top[i - 1].logprob);
    c->logprob[c->n] = t->token.logprob;
    c->id[c->n++] = t->token.id;
    if (c->n == h->cancel_after)
        mb_scheduler_cancel(h->s, h->ticket);
}

static void on_text(void *arg, int64_t choice, const char *text, size_t n)
{
    struct choice *c = &((struct heard *)arg)->choice[choice];

    assert_true(n > 0 && (size_t)c->n_text + n < sizeof c->text);
    memcpy(c->text + c->n_text, text, n);
    c->n_text += (int64_t)n;
}

static void on_finish(void *arg, int64_t choice, mb_finish why)
{
    struct choice *c = &((struct heard *)arg)->choice[choice];

    c->why = why;
    c->finishes++;
}

static void on_end(void *arg, const mb_ask_usage *usage, const char *failure)
{
    struct heard *h = arg;

    h->usage = *usage;
    if (h->s != NULL)
        h->left = mb_scheduler_read(h->s);
    if (failure != NULL)
        snprintf(h->failure, sizeof h->failure, "%s", failure);
    atomic_store(&h->ended, 1);
}

static bool may(void *arg, int64_t choice, int32_t id)
{
    (void)choice;
    return ((struct heard *)arg)->may(id);
}

/* Prompt number `i`: of a length and tokens of its own; every third begins like the others of its
 * kind. */
static int64_t make_prompt(int i, const struct shop *shop, int32_t *id)
{
    const int64_t n = 3 + (i * 29) % (shop->context * 2 / 3), alike = shop->context / 2 + 2;

    for (int64_t k = 0; k < n; k++)
        id[k] =
            (int32_t)((i % 3 == 0 && k < alike ? 7 + k * 5 : 11 + k * (i + 3) + i) % shop->vocab);
    return n;
}

static mb_ask ask_of(struct heard *h, const int32_t *prompt, int64_t n, int i)
{
    return (mb_ask){.client = (uint64_t)i % 3,
                    .prompt = prompt,
                    .n_prompt = n,
                    .n = 1,
                    .max_new = NEW,
                    .pick = {.sample = i % 2 == 1,
                             .temperature = 1.3,
                             .top_k = i % 4 == 1 ? 20 : 0,
                             .top_p = i % 4 == 3 ? 0.9 : 1.0,
                             .repetition_penalty = i % 5 == 4 ? 1.2 : 1.0,
                             .frequency_penalty = i % 7 == 6 ? 0.5 : 0.0,
                             .seed = 5},
                    .sample = (uint64_t)i,
                    .top_logprobs = 3,
                    .prompt_logprobs = -1,
                    .arg = h,
                    .on_token = on_token,
                    .on_text = on_text,
                    .on_finish = on_finish,
                    .on_end = on_end};
}

static void submit(struct shop *shop, mb_ask *a)
{
    mb_submitted got;

    ((struct heard *)a->arg)->s = shop->s;
    OK(mb_scheduler_submit(shop->s, a, &got));
    assert_false(got.full);
    assert_true(got.ticket != 0);
    ((struct heard *)a->arg)->ticket = got.ticket;
}

static void wait_end(struct heard *h)
{
    for (int i = 0; !atomic_load(&h->ended); i++) {
        assert_true(i < 200000);
        usleep(500);
    }
}

/* ---- bits ---------------------------------------------------------------------------------- */

static void ask_many(struct shop *shop, struct heard *h, int n, bool together)
{
    int32_t prompt[CONTEXT];

    memset(h, 0, (size_t)n * sizeof *h);
    for (int i = 0; i < n; i++) {
        const int64_t len = make_prompt(i, shop, prompt);
        mb_ask a = ask_of(&h[i], prompt, len, i);

        submit(shop, &a);
        if (together)
            continue;
        wait_end(&h[i]);
        assert_int_equal(h[i].left.ended, h[0].left.ended + i);
        assert_int_equal(h[i].left.running, 0);
        assert_int_equal(h[i].left.used, 0);
    }
    for (int i = 0; i < n; i++) {
        wait_end(&h[i]);
        assert_string_equal(h[i].failure, "");
        assert_int_equal(h[i].choice[0].finishes, 1);
        assert_true(h[i].choice[0].n == NEW || h[i].choice[0].why == MB_FINISH_CONTEXT);
    }
}

static void assert_same(const struct heard *a, const struct heard *b, int n, const char *model,
                        const char *how)
{
    for (int i = 0; i < n; i++) {
        const struct choice *x = &a[i].choice[0], *y = &b[i].choice[0];

        if (x->n != y->n || x->n_text != y->n_text || memcmp(x->id, y->id, sizeof x->id) != 0 ||
            memcmp(x->logprob, y->logprob, sizeof x->logprob) != 0 ||
            memcmp(x->text, y->text, sizeof x->text) != 0)
            fail_msg("%s: answer %d differs %s", model, i, how);
    }
}

static void alone_and_together_are_equal(void **state)
{
    static struct heard alone[MANY], other[MANY];

    (void)state;
    for (int m = 0; m < MODELS; m++) {
        struct shop shop = {0};

        open_model(models[m], 1 + (m == 0), &shop);
        open_shop(&shop, (mb_scheduler_options){.n_seq = 1, .queue = 4, .compute_anew = true}, 0);
        ask_many(&shop, alone, MANY, false);
        close_shop(&shop);

        open_shop(&shop, (mb_scheduler_options){.n_seq = 32, .queue = MANY, .compute_anew = true},
                  0);
        ask_many(&shop, other, MANY, true);
        assert_same(alone, other, MANY, models[m], "among 32");
        close_shop(&shop);

        open_shop(&shop, (mb_scheduler_options){.n_seq = 32, .queue = MANY, .chunk = 70}, 0);
        ask_many(&shop, other, MANY, true);
        assert_same(alone, other, MANY, models[m], "with prefixes found");
        ask_many(&shop, other, MANY, true);
        assert_same(alone, other, MANY, models[m], "with its own prompt found");
        assert_true(mb_scheduler_read(shop.s).cached_tokens > 500);
        close_shop(&shop);

        /* so few blocks that sequences give up theirs */
        open_shop(&shop, (mb_scheduler_options){.n_seq = 12, .queue = MANY}, CONTEXT + 3 * 64);
        ask_many(&shop, other, MANY, true);
        assert_same(alone, other, MANY, models[m], "with few blocks");
        assert_int_equal(mb_scheduler_read(shop.s).used, 0);
        if (m == 0)
            assert_true(mb_scheduler_read(shop.s).preempted > 0);
        close_model(&shop);
    }
}

/* The logits of a plain forward, for the log-probabilities of a prompt and the first tokens. */
static void scores_equal_a_plain_forward(void **state)
{
    static struct heard h[3];

    (void)state;
    for (int m = 0; m < MODELS; m++) {
        struct shop shop = {0}, plain = {0};
        int32_t prompt[CONTEXT], row[CONTEXT];
        mb_batch *b;
        mb_tensor list, logits;

        open_model(models[m], 1 + (m == 0), &plain);
        open_model(models[m], 1 + (m == 0), &shop);
        open_shop(&shop, (mb_scheduler_options){.n_seq = 4, .queue = 8}, 0);
        const int64_t n = make_prompt(5, &shop, prompt);

        memset(h, 0, sizeof h);
        for (int i = 0; i < 3; i++) { /* twice the prompt alone, once with an answer */
            mb_ask a = ask_of(&h[i], prompt, n, 0);

            a.prompt_logprobs = 1;
            a.max_new = i < 2 ? 0 : 4;
            submit(&shop, &a);
        }
        OK(mb_batch_new(CONTEXT, 1, &b));
        b->n_seq = 1;
        b->max_len = b->tokens = b->used = n;
        for (int64_t i = 0; i < n; i++)
            b->position[i] = row[i] = (int32_t)i;
        memcpy(b->ids, prompt, (size_t)n * sizeof *prompt);
        b->len[0] = b->k_len[0] = (int32_t)n;
        list = mb_tensor_1d(row, MB_DTYPE_I32, n);
        OK(mb_engine_reserve_for(plain.engine, b, false, n));
        OK(mb_engine_logits(plain.engine, b, &list, &logits));
        for (int i = 0; i < 3; i++) {
            wait_end(&h[i]);
            assert_string_equal(h[i].failure, "");
            assert_int_equal(h[i].n_prompt, n);
            assert_int_equal(h[i].choice[0].n, i < 2 ? 0 : 4);
            assert_int_equal(h[i].choice[0].why, MB_FINISH_LENGTH);
            assert_memory_equal(h[i].prompt, h[0].prompt, sizeof h[0].prompt);
            for (int64_t t = 1; t < n; t++) {
                const float *x = mb_row(&logits, t - 1);
                double sum = 0;

                for (int64_t v = 0; v < shop.vocab; v++)
                    sum += exp((double)x[v]);
                assert_true(fabs((double)x[prompt[t]] - log(sum) - (double)h[i].prompt[t]) < 2e-4);
            }
        }
        mb_batch_free(b);
        close_model(&shop);
        close_model(&plain);
    }
}

/* ---- choices, stops, biases, constraints ---------------------------------------------------- */

static void choices_share_the_prompt_and_draw_apart(void **state)
{
    static struct heard h[3];
    struct shop shop = {0};
    int32_t prompt[CONTEXT];

    (void)state;
    open_model("llama", 1, &shop);
    open_shop(&shop, (mb_scheduler_options){.n_seq = 3, .queue = 8}, 0);
    memset(h, 0, sizeof h);
    for (int64_t i = 0; i < 150; i++)
        prompt[i] = (int32_t)((i * 7 + 3) % shop.vocab);
    mb_ask a = ask_of(&h[0], prompt, 150, 1);

    a.n = 4; /* more than there are places */
    submit(&shop, &a);
    wait_end(&h[0]);
    assert_int_equal(h[0].usage.answer_tokens, 4 * NEW);
    assert_int_equal(h[0].usage.prompt_tokens, 150);
    assert_int_equal(mb_scheduler_read(shop.s).cached_tokens, 3 * 128);
    for (int c = 1; c < 4; c++)
        assert_memory_not_equal(h[0].choice[c].id, h[0].choice[0].id, NEW * sizeof(int32_t));
    /* choice c is what sample + c gives alone */
    a.arg = &h[1];
    a.n = 1;
    a.sample += 2;
    submit(&shop, &a);
    wait_end(&h[1]);
    assert_memory_equal(h[1].choice[0].id, h[0].choice[2].id, NEW * sizeof(int32_t));
    /* no prompt: nothing is shared, all is answered */
    a.arg = &h[2];
    a.n = 3;
    a.n_prompt = 1;
    submit(&shop, &a);
    wait_end(&h[2]);
    for (int c = 0; c < 3; c++)
        assert_int_equal(h[2].choice[c].n, NEW);
    close_model(&shop);
}

static bool is_even(int32_t id)
{
    return id % 2 == 0;
}

static bool is_rare(int32_t id)
{
    return id == 9 || id == 10;
}

static bool is_nothing(int32_t id)
{
    (void)id;
    return false;
}

static void ends_stops_biases_and_formats_hold(void **state)
{
    static struct heard h[8];
    struct shop shop = {0};
    int32_t prompt[CONTEXT], end;

    (void)state;
    open_model("llama", 1, &shop);
    open_shop(&shop, (mb_scheduler_options){.n_seq = 8, .queue = 8}, 0);
    memset(h, 0, sizeof h);
    const int64_t n = make_prompt(4, &shop, prompt);
    mb_ask a = ask_of(&h[0], prompt, n, 0);

    submit(&shop, &a);
    wait_end(&h[0]);
    const struct choice *free_one = &h[0].choice[0];

    /* the sixth token as the end */
    end = free_one->id[5];
    a.arg = &h[1];
    a.end = &end;
    a.n_end = 1;
    submit(&shop, &a);
    wait_end(&h[1]);
    assert_int_equal(h[1].choice[0].why, MB_FINISH_END);
    assert_true(h[1].choice[0].n <= 6);
    assert_int_equal(h[1].choice[0].id[h[1].choice[0].n - 1], end);

    /* two bytes in the midst of the text */
    char stop[3] = {free_one->text[10], free_one->text[11], 0};
    const char *stops[] = {stop};

    if (stop[0] != 0 && stop[1] != 0 && stop[0] != (char)0xef) {
        a.arg = &h[2];
        a.n_end = 0;
        a.stop = stops;
        a.n_stop = 1;
        submit(&shop, &a);
        wait_end(&h[2]);
        assert_int_equal(h[2].choice[0].why, MB_FINISH_STOP);
        assert_true(h[2].choice[0].n_text <= 10);
        assert_null(memmem(h[2].choice[0].text, (size_t)h[2].choice[0].n_text, stop, 2));
        assert_memory_equal(h[2].choice[0].text, free_one->text, (size_t)h[2].choice[0].n_text);
        a.n_stop = 0;
    }

    /* a token forbidden, another wanted */
    const mb_logit_bias never = {free_one->id[0], -100}, always = {3, 1000};
    a.arg = &h[3];
    a.bias = &never;
    a.n_bias = 1;
    submit(&shop, &a);
    a.arg = &h[4];
    a.bias = &always;
    submit(&shop, &a);
    a.n_bias = 0;
    a.arg = &h[5];
    a.may = may;
    h[5].may = is_even;
    submit(&shop, &a);
    a.arg = &h[6];
    h[6].may = is_nothing;
    submit(&shop, &a);
    a.arg = &h[7];
    h[7].may = is_rare; /* more are refused than are tried one by one */
    submit(&shop, &a);
    for (int i = 3; i < 8; i++)
        wait_end(&h[i]);
    for (int t = 0; t < NEW; t++) {
        assert_int_not_equal(h[3].choice[0].id[t], free_one->id[0]);
        assert_int_equal(h[4].choice[0].id[t], 3);
        assert_true(is_even(h[5].choice[0].id[t]));
        assert_true(is_rare(h[7].choice[0].id[t]));
    }
    assert_non_null(strstr(h[6].failure, "no token may come next"));
    close_model(&shop);
}

/* ---- the queue ------------------------------------------------------------------------------ */

static void a_full_queue_says_so(void **state)
{
    static struct heard h[40];
    struct shop shop = {0};
    int32_t prompt[CONTEXT];
    mb_submitted got;
    int taken = 0, full = 0;

    (void)state;
    open_model("llama", 1, &shop);
    open_shop(&shop, (mb_scheduler_options){.n_seq = 2, .queue = 3}, 0);
    memset(h, 0, sizeof h);
    for (int i = 0; i < 40; i++) {
        mb_ask a = ask_of(&h[i], prompt, make_prompt(i, &shop, prompt), 0);

        OK(mb_scheduler_submit(shop.s, &a, &got));
        taken += !got.full;
        full += got.full;
        if (got.full) {
            assert_true(got.retry_after >= 1.0);
            assert_int_equal(got.ticket, 0);
            atomic_store(&h[i].ended, 1);
        }
    }
    assert_true(full > 0 && taken >= 3);
    for (int i = 0; i < 40; i++)
        wait_end(&h[i]);
    const mb_scheduler_stats t = mb_scheduler_read(shop.s);
    assert_int_equal(t.refused, full);
    assert_int_equal(t.asks, taken);

    mb_ask bad = ask_of(&h[0], prompt, 0, 0);
    assert_int_equal(mb_scheduler_submit(shop.s, &bad, &got), MB_EDATA);
    mb_status_clear();
    bad.n_prompt = CONTEXT + 1;
    assert_int_equal(mb_scheduler_submit(shop.s, &bad, &got), MB_EDATA);
    mb_status_clear();
    prompt[0] = (int32_t)shop.vocab;
    bad.n_prompt = 1;
    assert_int_equal(mb_scheduler_submit(shop.s, &bad, &got), MB_EDATA);
    mb_status_clear();
    prompt[0] = 1;
    bad.pick.temperature = -1;
    assert_int_equal(mb_scheduler_submit(shop.s, &bad, &got), MB_EARG);
    mb_status_clear();
    close_model(&shop);
}

/* Asks that are cut at every place of their lives lose no place and no block. */
/* For answers that take their time: 200 tokens more than a second. */
static bool is_slow(int32_t id)
{
    (void)id;
    usleep(8000);
    return true;
}

/* All of a list or none of it; more than the queue holds while it is empty. */
static void a_list_is_taken_whole(void **state)
{
    static struct heard h[12];
    struct shop shop = {0};
    int32_t prompt[CONTEXT];
    mb_submitted got;
    mb_ask list[6];

    (void)state;
    open_model("llama", 1, &shop);
    open_shop(&shop, (mb_scheduler_options){.n_seq = 1, .queue = 3}, 0);
    memset(h, 0, sizeof h);
    const int64_t n = make_prompt(4, &shop, prompt);

    for (int i = 0; i < 6; i++)
        list[i] = ask_of(&h[i], prompt, n, 0);
    list[0].may = may;
    h[0].may = is_slow;
    OK(mb_scheduler_submit_all(shop.s, list, 6, &got));
    assert_false(got.full);
    for (int i = 0; i < 6; i++)
        list[i].arg = &h[6 + i];
    OK(mb_scheduler_submit_all(shop.s, list, 2, &got)); /* five wait */
    assert_true(got.full);
    list[1].n_prompt = 0;
    assert_int_equal(mb_scheduler_submit_all(shop.s, list, 2, &got), MB_EDATA);
    mb_status_clear();
    for (int i = 0; i < 6; i++) {
        wait_end(&h[i]);
        assert_int_equal(h[i].choice[0].n, NEW);
        assert_int_equal(h[6 + i].choice[0].n, 0);
    }
    assert_int_equal(mb_scheduler_read(shop.s).asks, 6);
    assert_int_equal(mb_scheduler_read(shop.s).refused, 2);
    close_model(&shop);
}

static bool is_gone(void *arg)
{
    return atomic_load(&((struct heard *)arg)->gone);
}

/* Who hung up gives a place in the queue, or at work, to others. */
static void who_is_gone_is_not_answered(void **state)
{
    static struct heard h[5];
    struct shop shop = {0};
    int32_t prompt[CONTEXT];
    mb_submitted got;

    (void)state;
    for (int i = 0; i < CONTEXT; i++)
        prompt[i] = 3 + i % 50;
    open_model("llama", 1, &shop);
    open_shop(&shop, (mb_scheduler_options){.n_seq = 1, .queue = 2}, 0);
    memset(h, 0, sizeof h);
    for (int i = 0; i < 5; i++) {
        mb_ask a = ask_of(&h[i], prompt, 4, 0);

        a.max_new = 200;
        a.gone = is_gone;
        a.may = i == 0 ? may : NULL;
        h[i].may = is_slow;
        if (i == 3) { /* the queue is full, until the first that waits is gone */
            OK(mb_scheduler_submit(shop.s, &a, &got));
            assert_true(got.full);
            atomic_store(&h[1].gone, true);
            wait_end(&h[1]);
            assert_int_equal(atomic_load(&h[0].ended), 0);
        }
        submit(&shop, &a);
        while (i == 0 && mb_scheduler_read(shop.s).waiting > 0)
            usleep(100);
        if (i == 3) {
            atomic_store(&h[0].gone, true);
            wait_end(&h[0]);
            while (mb_scheduler_read(shop.s).waiting > 1)
                usleep(100);
        }
    }
    for (int i = 0; i < 5; i++)
        wait_end(&h[i]);
    assert_true(h[0].choice[0].n < 200);
    assert_int_equal(h[1].choice[0].n, 0);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(h[i].choice[0].finishes, 1);
        assert_int_equal(h[i].choice[0].why == MB_FINISH_CANCELLED, i < 2);
    }
    close_model(&shop);
}

static void cancelled_asks_lose_nothing(void **state)
{
    enum { ASKS = 1000, AT_ONCE = 50 };
    static struct heard h[AT_ONCE];
    struct shop shop = {0};
    int32_t prompt[CONTEXT];
    int64_t cut = 0;

    (void)state;
    open_model("llama", 1, &shop);
    open_shop(&shop, (mb_scheduler_options){.n_seq = 8, .queue = AT_ONCE}, CONTEXT * 3);
    for (int round = 0; round < ASKS / AT_ONCE; round++) {
        memset(h, 0, sizeof h);
        for (int i = 0; i < AT_ONCE; i++) {
            const int kind = (round * 7 + i) % 5;
            mb_ask a = ask_of(&h[i], prompt, make_prompt(round + i, &shop, prompt), i);

            a.n = 1 + i % 3;
            if (kind == 1)
                h[i].cancel_after = 1 + i % 9;
            submit(&shop, &a);
            if (kind == 2)
                mb_scheduler_cancel(shop.s, h[i].ticket);
            if (kind == 3 && i > 3)
                mb_scheduler_cancel(shop.s, h[i - 3].ticket);
        }
        mb_scheduler_cancel(shop.s, h[AT_ONCE - 1].ticket + 1000); /* nobody's */
        for (int i = 0; i < AT_ONCE; i++) {
            wait_end(&h[i]);
            assert_string_equal(h[i].failure, "");
            for (int c = 0; c < 1 + i % 3; c++) {
                assert_int_equal(h[i].choice[c].finishes, 1);
                cut += h[i].choice[c].why == MB_FINISH_CANCELLED;
            }
        }
    }
    assert_true(cut > ASKS / 4);
    const mb_scheduler_stats t = mb_scheduler_read(shop.s);
    assert_int_equal(t.ended, ASKS);
    assert_int_equal(mb_scheduler_read(shop.s).running, 0);
    assert_int_equal(mb_scheduler_read(shop.s).used, 0);
    assert_int_equal(mb_scheduler_read(shop.s).waiting, 0);
    /* what is open at the end is ended */
    memset(h, 0, sizeof h);
    for (int i = 0; i < 20; i++) {
        mb_ask a = ask_of(&h[i], prompt, make_prompt(i, &shop, prompt), i);
        submit(&shop, &a);
    }
    close_shop(&shop);
    for (int i = 0; i < 20; i++)
        assert_int_equal(atomic_load(&h[i].ended), 1);
    close_model(&shop);
}

static mb_status add_one(void *arg)
{
    return ++*(int *)arg < 100 ? MB_OK : MB_RAISE(MB_EDATA, "a hundred");
}

static void calls_are_made_between_forwards(void **state)
{
    static struct heard h;
    struct shop shop = {0};
    int32_t prompt[CONTEXT];
    int n = 0;

    (void)state;
    open_model("llama", 1, &shop);
    open_shop(&shop, (mb_scheduler_options){.n_seq = 8, .queue = 8}, 0);
    memset(&h, 0, sizeof h);
    mb_ask a = ask_of(&h, prompt, make_prompt(1, &shop, prompt), 1);
    submit(&shop, &a);
    for (int i = 0; i < 99; i++)
        OK(mb_scheduler_call(shop.s, add_one, &n));
    assert_int_equal(mb_scheduler_call(shop.s, add_one, &n), MB_EDATA);
    assert_string_equal(mb_status_sentence(), "a hundred");
    mb_status_clear();
    wait_end(&h);
    close_model(&shop);
}

struct patient {
    struct shop *shop;
    mb_ask *ask;
    int turns;
};

/* An ask comes while the call is made, and is answered before it comes back. */
static mb_status take_long(void *arg)
{
    struct patient *p = arg;
    const struct heard *h = p->ask->arg;

    submit(p->shop, p->ask);
    for (; !atomic_load(&h->ended) && p->turns < 1000; p->turns++) {
        const int64_t before = h->choice[0].n;

        mb_scheduler_let_others(p->shop->s);
        assert_true(h->choice[0].n <= before + 1);
    }
    mb_scheduler_let_others(p->shop->s); /* with nobody there */
    return MB_OK;
}

static void a_long_call_lets_others_go_on(void **state)
{
    static struct heard alone, within;
    struct shop shop = {0};
    int32_t prompt[CONTEXT];
    struct patient p = {.shop = &shop};
    mb_ask a;

    (void)state;
    open_model("llama", 1, &shop);
    open_shop(&shop, (mb_scheduler_options){.n_seq = 4, .queue = 4}, 0);
    memset(&alone, 0, sizeof alone);
    memset(&within, 0, sizeof within);
    a = ask_of(&alone, prompt, make_prompt(4, &shop, prompt), 5);
    submit(&shop, &a);
    wait_end(&alone);
    a.arg = &within;
    p.ask = &a;
    OK(mb_scheduler_call(shop.s, take_long, &p));
    assert_true(atomic_load(&within.ended));
    assert_in_range(p.turns, NEW, NEW + 4); /* a token each, and the prompt */
    assert_same(&alone, &within, 1, "llama", "within a call");
    close_model(&shop);
}

/* Two models in one scheduler, the second with its blocks from the first's cache. */
static void models_share_a_cache_and_find_only_their_own(void **state)
{
    static struct heard h[3][12];
    struct shop a = {0}, b = {0};
    int32_t prompt[CONTEXT];
    int number;

    (void)state;
    open_model("llama", 1, &a);
    open_model("llama", 1, &b);
    mb_weight *w = mb_model_find(b.engine->model, "model.layers.0.self_attn.q_proj.weight");
    assert_non_null(w);
    mb_f32(&w->value)[0] += 1.0f;             /* so that it is another model */
    for (int round = 0; round < 3; round++) { /* the first alone, the second alone, both */
        OK(mb_scheduler_new(&(mb_scheduler_options){.n_seq = 12, .queue = 40}, &a.s));
        for (int m = 0; m < 2; m++)
            if (round == 2 || m == round)
                OK(mb_scheduler_add(a.s,
                                    &(mb_served){.engine = m == 0 ? a.engine : b.engine,
                                                 .tokenizer = a.tok,
                                                 .context = CONTEXT,
                                                 .share = round == 2 && m == 1 ? 0 : -1},
                                    &number));
        OK(mb_scheduler_start(a.s));
        a.vocab = mb_scheduler_vocab(a.s, 0);
        a.context = CONTEXT;
        memset(h[round], 0, sizeof h[round]);
        for (int i = 0; i < 12; i++) {
            mb_ask q = ask_of(&h[round][i], prompt, make_prompt(i / 2, &a, prompt), 0);

            q.model = round == 2 ? i % 2 : 0;
            submit(&a, &q);
        }
        for (int i = 0; i < 12; i++)
            wait_end(&h[round][i]);
        close_shop(&a);
    }
    for (int i = 0; i < 12; i++)
        assert_same(&h[i % 2][i], &h[2][i], 1, "llama", "beside another");
    close_model(&a);
    close_model(&b);
}

/* A base and its adapters, whose weights are one set in memory, asked at once and told apart by the ask. */
static void adapters_share_weights_and_answer_as_alone(void **state)
{
    static const char *const names[] = {NULL, "adapter-before", "adapter-after-10-steps"};
    static struct heard alone[3][12], mixed[36];
    struct shop at[3] = {0};
    int32_t prompt[CONTEXT];
    mb_bases *bases;
    int number;

    (void)state;
    for (int m = 0; m < 3; m++) {
        struct shop one = {0};

        open_adapter("lora-llama", names[m], NULL, 1, &one);
        open_shop(&one, (mb_scheduler_options){.n_seq = 12, .queue = 40}, 0);
        ask_many(&one, alone[m], 12, true);
        close_model(&one);
    }
    OK(mb_bases_new(&bases));
    OK(mb_scheduler_new(&(mb_scheduler_options){.n_seq = 12, .queue = 40}, &at[0].s));
    for (int m = 0; m < 3; m++) {
        open_adapter("lora-llama", names[m], bases, 1, &at[m]);
        assert_ptr_equal(at[m].engine->base, at[0].engine->base);
        OK(mb_scheduler_add(at[0].s,
                            &(mb_served){.engine = at[m].engine,
                                         .tokenizer = at[m].tok,
                                         .context = CONTEXT,
                                         .share = m == 0 ? -1 : 0},
                            &number));
    }
    OK(mb_scheduler_start(at[0].s));
    at[0].vocab = mb_scheduler_vocab(at[0].s, 0);
    at[0].context = CONTEXT;
    for (int i = 0; i < 36; i++) {
        const int64_t n = make_prompt(i / 3, &at[0], prompt);
        mb_ask a = ask_of(&mixed[i], prompt, n, i / 3);

        a.model = i % 3;
        submit(&at[0], &a);
    }
    for (int i = 0; i < 36; i++) {
        wait_end(&mixed[i]);
        assert_string_equal(mixed[i].failure, "");
        assert_same(&alone[i % 3][i / 3], &mixed[i], 1, "lora-llama", "among adapters");
    }
    close_shop(&at[0]);
    for (int m = 0; m < 3; m++)
        close_model(&at[m]);
    mb_bases_free(bases);
}

/* Over many asks nothing grows; a token allocates nothing. */
static void memory_stays_flat(void **state)
{
    const int asks = is_long_run() ? 100000 : 1500;
    static struct heard h[24];
    struct shop shop = {0};
    int32_t prompt[CONTEXT];
    int64_t live = 0;

    (void)state;
    open_model("llama", 1, &shop);
    open_shop(&shop, (mb_scheduler_options){.n_seq = 16, .queue = 24}, CONTEXT * 6);
    for (int i = 0; i < asks; i += 24) {
        memset(h, 0, sizeof h);
        for (int k = 0; k < 24; k++) {
            mb_ask a = ask_of(&h[k], prompt, make_prompt(i + k, &shop, prompt), k);

            a.max_new = 1 + (i + k) % 5;
            a.top_logprobs = -1;
            submit(&shop, &a);
        }
        for (int k = 0; k < 24; k++)
            wait_end(&h[k]);
        usleep(300); /* the last is freed after it was told of */
        if (i == 600)
            live = mb_alloc_live();
    }
    usleep(20000);
    assert_true(mb_alloc_live() <= live + 4096);
    assert_int_equal(mb_scheduler_read(shop.s).used, 0);
    close_model(&shop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_and_together_are_equal),
        cmocka_unit_test(scores_equal_a_plain_forward),
        cmocka_unit_test(choices_share_the_prompt_and_draw_apart),
        cmocka_unit_test(ends_stops_biases_and_formats_hold),
        cmocka_unit_test(a_full_queue_says_so),
        cmocka_unit_test(a_list_is_taken_whole),
        cmocka_unit_test(who_is_gone_is_not_answered),
        cmocka_unit_test(cancelled_asks_lose_nothing),
        cmocka_unit_test(calls_are_made_between_forwards),
        cmocka_unit_test(a_long_call_lets_others_go_on),
        cmocka_unit_test(models_share_a_cache_and_find_only_their_own),
        cmocka_unit_test(adapters_share_weights_and_answer_as_alone),
        cmocka_unit_test(memory_stays_flat),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}
