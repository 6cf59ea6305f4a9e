/* tests/unit/test_engine.c - what a micro-batch computes must not depend on how it is run: on what
 * lies beside a row, on the shape class, on recomputation, planning or threads. Bit for bit, with
 * dropout 0.5, for every family and under every provider of matrix products. Also: gradients against
 * finite differences through whole models, the fused head against the plain one, and that a step
 * touches what is trained and nothing else. */
// clang-format off
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
// clang-format on

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/cpu/gemm.h"
#include "core/cpu/gemm_tiles.h"
#include "core/rng.h"
#include "dist/zero.h"
#include "recipes/data/collate.h"
#include "recipes/train/session.h"

enum { MAX_ROWS = 6, MAX_TOKENS = 336, THREADS = 3, SEED = 5 };

typedef struct subject {
    const char *folder;
    mb_head head;
    mb_trained trained;
    const char *save; /* trained whole beside the adapters; NULL: nothing */
    int64_t longest;
    bool dora;
} subject;

static const subject subjects[] = {
    {"gpt2", MB_HEAD_CAUSAL_LM, MB_TRAINED_ALL, NULL, 120, false},
    {"llama", MB_HEAD_CAUSAL_LM, MB_TRAINED_ALL, NULL, 120, false},
    {"mistral-sliding", MB_HEAD_CAUSAL_LM, MB_TRAINED_ALL, NULL, 120, false},
    {"qwen2", MB_HEAD_CAUSAL_LM, MB_TRAINED_ALL, NULL, 120, false},
    {"qwen3", MB_HEAD_CAUSAL_LM, MB_TRAINED_ALL, NULL, 120, false},
    {"gemma3", MB_HEAD_CAUSAL_LM, MB_TRAINED_ALL, NULL, 120, false},
    {"phi3", MB_HEAD_CAUSAL_LM, MB_TRAINED_ALL, NULL, 64, false},
    {"olmo2", MB_HEAD_CAUSAL_LM, MB_TRAINED_ALL, NULL, 120, false},
    {"smollm3", MB_HEAD_CAUSAL_LM, MB_TRAINED_ALL, NULL, 120, false},
    {"bert-mlm", MB_HEAD_MASKED_LM, MB_TRAINED_ALL, NULL, 60, false},
    {"bert-cls", MB_HEAD_SEQUENCE, MB_TRAINED_ALL, NULL, 60, false},
    {"llama", MB_HEAD_CAUSAL_LM, MB_TRAINED_LORA, NULL, 120, false},
    {"gpt2", MB_HEAD_CAUSAL_LM, MB_TRAINED_LORA, NULL, 120, false},
    {"gpt2", MB_HEAD_CAUSAL_LM, MB_TRAINED_LORA, NULL, 120, true},
    {"qwen2", MB_HEAD_CAUSAL_LM, MB_TRAINED_LORA, NULL, 120, true},
    {"qwen3", MB_HEAD_CAUSAL_LM, MB_TRAINED_LORA, NULL, 120, false},
    {"gemma3", MB_HEAD_CAUSAL_LM, MB_TRAINED_LORA, NULL, 120, false},
    {"phi3", MB_HEAD_CAUSAL_LM, MB_TRAINED_LORA, NULL, 64, false},
    {"bert-cls", MB_HEAD_SEQUENCE, MB_TRAINED_LORA, "classifier", 60, false},
    {"llama", MB_HEAD_CAUSAL_LM, MB_TRAINED_SOME, NULL, 120, false},
};
enum { N_SUBJECTS = sizeof subjects / sizeof subjects[0] };

typedef struct row {
    int32_t len, ordinal;
    uint32_t text; /* which tokens */
} row;

static char where[160]; /* for messages */

static void ok(mb_status st)
{
    if (st != MB_OK)
        fail_msg("%s: %s\n%s", where, mb_status_sentence(), mb_status_path());
}

/* ---- subjects ----------------------------------------------------------------------------- */

static mb_engine *open_as(const subject *s, float dropout, bool recompute, bool grads_in_step)
{
    static const char *const all_linear[] = {"all-linear"};
    char path[512];
    mb_engine *e = NULL;
    mb_session_options o = {
        .path = path,
        .head = s->head,
        .trained = s->trained,
        .lora = {.r = 4,
                 .alpha = 8,
                 .dropout = dropout,
                 .dora = s->dora,
                 .targets = all_linear,
                 .n_targets = 1,
                 .save = &s->save,
                 .n_save = s->save != NULL},
        .layers = 1,
        .seed = SEED,
        .quiet = true,
        .engine = {.threads = THREADS, .recompute = recompute, .grads_in_step = grads_in_step},
    };

    snprintf(path, sizeof path, "%s/reference/%s", MB_TEST_DATA, s->folder);
    ok(mb_session_open(&o, &e, NULL));
    mb_model_config *c = &e->model->config;
    c->drop_embed = c->drop_hidden = c->drop_attention = c->drop_classifier = dropout;
    return e;
}

static mb_engine *open_subject(const subject *s, float dropout, bool recompute)
{
    return open_as(s, dropout, recompute, false);
}

/* B is zero at the start, and with it all of A's gradients: so that nothing is hidden by that. */
static void fill_lora_b(mb_engine *e)
{
    for (int i = 0; i < e->model->n_weights; i++) {
        const mb_weight *b = e->model->weight[i].lora_b;
        for (int64_t k = 0; b != NULL && k < mb_tensor_count(&b->value); k++)
            mb_f32(&b->value)[k] =
                0.05f * (float)mb_rng_normal(mb_rng_key(SEED, MB_SITE_INIT, i), (uint64_t)k);
    }
}

/* ---- batches ------------------------------------------------------------------------------ */

static mb_batch *new_batch(void)
{
    mb_batch *b;

    ok(mb_batch_new(MAX_TOKENS, MAX_ROWS, &b));
    b->seed = SEED;
    b->step = 11;
    return b;
}

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static void add_target(mb_batch *b, int64_t at, int32_t label, float weight)
{
    b->target_row[b->n_targets] = (int32_t)at;
    b->target_label[b->n_targets] = label;
    b->target_weight[b->n_targets] = weight;
    b->n_targets++;
}

static void add_row(mb_batch *b, const mb_model_config *c, const row *r)
{
    const int64_t at = b->used, s = b->n_seq++;

    for (int32_t t = 0; t < r->len; t++) {
        b->ids[at + t] = (int32_t)mb_rng_below(r->text, (uint64_t)t, (uint64_t)c->vocab);
        b->position[at + t] = t;
        b->segment[at + t] = c->segments > 1 && t > r->len / 2;
        b->ordinal[at + t] = r->ordinal;
    }
    b->start[s] = b->k_start[s] = (int32_t)at;
    b->len[s] = b->k_len[s] = r->len;
    b->seq_ordinal[s] = r->ordinal;
    b->seq_zero[s] = 0;
    for (int32_t t = 0; t < r->len && c->head != MB_HEAD_SEQUENCE; t++) {
        if (c->head == MB_HEAD_CAUSAL_LM && t + 1 < r->len)
            add_target(b, at + t, b->ids[at + t + 1], 1.0f);
        if (c->head == MB_HEAD_MASKED_LM && t % 3 == 0)
            add_target(b, at + t, (b->ids[at + t] + 5) % (int32_t)c->vocab, 0.5f);
    }
    if (c->head == MB_HEAD_SEQUENCE)
        add_target(b, s, r->ordinal % (int32_t)c->labels, 1.0f);
    if (r->len > b->max_len)
        b->max_len = r->len;
    b->used += r->len;
}

/* `tokens` 0: the smallest class. */
static void fill(mb_batch *b, const mb_engine *e, const row *rows, int n, int64_t tokens)
{
    const size_t room = MAX_TOKENS * sizeof(int32_t);

    b->used = b->n_seq = b->n_targets = b->max_len = 0;
    memset(b->ids, 0, room);
    memset(b->position, 0, room);
    memset(b->segment, 0, room);
    memset(b->ordinal, 0, room);
    for (int i = 0; i < n; i++)
        add_row(b, &e->model->config, &rows[i]);
    b->tokens = tokens > 0 ? tokens : mb_shape_class(b->used, MAX_TOKENS);
    for (int64_t i = b->n_targets; i < round_up(b->n_targets, MB_ROW_PAD); i++) {
        b->target_row[i] = -1;
        b->target_label[i] = 0;
        b->target_weight[i] = 0.0f;
    }
}

static void planned(mb_engine *e, mb_batch *b)
{
    b->n_seq = 0;
    for (int64_t tokens = MB_ROW_PAD; tokens <= MAX_TOKENS; tokens += MB_ROW_PAD) {
        b->max_len = tokens < 128 ? tokens : 128;
        ok(mb_engine_plan(e, b, tokens, true));
        ok(mb_engine_plan(e, b, tokens, false));
    }
    ok(mb_engine_reserve(e));
}

/* Rows of very unequal length. */
static int some_rows(const subject *s, row *r)
{
    const int32_t len[] = {3, (int32_t)s->longest, 17, 1, 64 < s->longest ? 64 : 33, 20};

    for (int i = 0; i < MAX_ROWS; i++)
        r[i] = (row){.len = len[i], .ordinal = 40 + 3 * i, .text = 900u + (unsigned)i};
    return MAX_ROWS;
}

/* ---- running ------------------------------------------------------------------------------ */

/* Log-probabilities of all targets into out; returns the loss. */
static double run(mb_engine *e, const mb_batch *b, bool train, float *out)
{
    mb_micro_result r;

    ok(mb_engine_micro(e, b, train, &r));
    if (out != NULL)
        memcpy(out, r.logprob, (size_t)b->n_targets * sizeof *out);
    return r.loss;
}

static float *gradients(mb_engine *e, const mb_batch *b, float *logprob)
{
    const size_t bytes = (size_t)e->flat.count * sizeof(float);
    float *g;

    ok(mb_engine_zero_grad(e));
    run(e, b, true, logprob);
    ok(mb_alloc(bytes, "gradients", (void **)&g));
    memcpy(g, e->flat.grad, bytes);
    return g;
}

static void same_bits(const float *a, const float *b, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: %s differ, first at %lld of %lld: %.9g and %.9g", where, what,
                     (long long)i, (long long)n, (double)a[i], (double)b[i]);
}

static bool differs(const float *a, const float *b, int64_t n)
{
    return memcmp(a, b, (size_t)n * sizeof *a) != 0;
}

/* check(s) for every subject under every provider that gives a row its bits wherever it stands. */
static void everywhere(void (*check)(const subject *s))
{
    static const char *const providers[] = {"own", "onednn", "openblas"};
    char first[32];
    int checked = 0;

    sscanf(mb_cpu_gemm_provider(), "%31s", first);
    for (int p = 0; p < 3; p++) {
        if (!mb_cpu_gemm_available(providers[p]))
            continue;
        ok(mb_cpu_gemm_use(providers[p]));
        if (!mb_cpu_gemm_rows_exact()) {
            printf("  %s left out: a row's bits depend on its place\n", mb_cpu_gemm_provider());
            continue;
        }
        for (int i = 0; i < N_SUBJECTS; i++) {
            snprintf(where, sizeof where, "%s%s, %s", subjects[i].folder,
                     subjects[i].trained == MB_TRAINED_LORA   ? " with LoRA"
                     : subjects[i].trained == MB_TRAINED_SOME ? ", last layer"
                                                              : "",
                     providers[p]);
            check(&subjects[i]);
            checked++;
        }
    }
    ok(mb_cpu_gemm_use(first));
    if (checked == 0)
        skip();
}

/* ---- rows and what lies beside them ------------------------------------------------------- */

/* Rows alone must be multiplied as they are among others. */
_Static_assert((int)MB_GEMM_FEW_ROWS <= (int)MB_ROW_PAD,
               "rows are made up to where products do not change");

static void check_packing(const subject *s)
{
    mb_engine *e = open_subject(s, 0.5f, false);
    mb_batch *b = new_batch();
    float packed[MAX_TOKENS], other[MAX_TOKENS], alone[MAX_TOKENS];
    row r[MAX_ROWS];
    const int n = some_rows(s, r);
    int64_t from = 0;

    fill_lora_b(e);
    planned(e, b);
    fill(b, e, r, n, 0);
    run(e, b, true, packed);
    const int64_t targets = b->n_targets;
    b->step++;
    run(e, b, true, other);
    b->step--;
    assert_true(differs(packed, other, targets)); /* dropout is on */
    for (int i = 0; i < n; from += b->n_targets, i++) {
        fill(b, e, &r[i], 1, 0);
        if (b->n_targets == 0)
            continue;
        run(e, b, true, alone);
        same_bits(packed + from, alone, b->n_targets, "log-probabilities in a pack and alone");
    }
    assert_int_equal(from, targets);
    mb_batch_free(b);
    mb_engine_free(e);
}

static void packed_rows_have_the_bits_of_rows_alone(void **state)
{
    (void)state;
    everywhere(check_packing);
}

static void check_neighbours(const subject *s)
{
    mb_engine *e = open_subject(s, 0.5f, false);
    mb_batch *b = new_batch();
    float before[MAX_TOKENS], after[MAX_TOKENS];
    row r[MAX_ROWS];
    const int n = some_rows(s, r);
    int64_t at[MAX_ROWS + 1] = {0};

    fill_lora_b(e);
    planned(e, b);
    for (int i = 0; i < n; i++) {
        fill(b, e, &r[i], 1, 0);
        at[i + 1] = at[i] + b->n_targets;
    }
    fill(b, e, r, n, 0);
    run(e, b, true, before);
    for (int i = 0; i < n; i++) {
        const row old = r[i];
        r[i].text += 77;
        r[i].ordinal += 1000;
        fill(b, e, r, n, 0);
        run(e, b, true, after);
        r[i] = old;
        same_bits(before, after, at[i], "log-probabilities before a row that changed");
        same_bits(before + at[i + 1], after + at[i + 1], at[n] - at[i + 1],
                  "log-probabilities behind a row that changed");
        if (at[i + 1] > at[i])
            assert_true(differs(before + at[i], after + at[i], at[i + 1] - at[i]));
    }
    mb_batch_free(b);
    mb_engine_free(e);
}

static void a_row_that_changes_changes_no_bit_of_others(void **state)
{
    (void)state;
    everywhere(check_neighbours);
}

/* A causal model's token knows nothing of those after it. */
static void check_future(const subject *s)
{
    mb_engine *e = open_subject(s, 0.5f, false);
    mb_batch *b = new_batch();
    float before[MAX_TOKENS], after[MAX_TOKENS];
    const row r = {.len = (int32_t)s->longest, .ordinal = 4, .text = 31};

    if (s->head == MB_HEAD_CAUSAL_LM) {
        fill_lora_b(e);
        planned(e, b);
        fill(b, e, &r, 1, 0);
        run(e, b, true, before);
        for (int32_t t = 1; t < r.len; t += 17) {
            const int32_t old = b->ids[t];
            b->ids[t] = (old + 1) % (int32_t)e->model->config.vocab;
            run(e, b, true, after);
            b->ids[t] = old;
            same_bits(before, after, t, "log-probabilities before a token that changed");
            if (t < b->n_targets)
                assert_true(differs(before + t, after + t, 1));
        }
    }
    mb_batch_free(b);
    mb_engine_free(e);
}

static void a_token_that_changes_changes_no_bit_before_it(void **state)
{
    (void)state;
    everywhere(check_future);
}

static void check_classes(const subject *s)
{
    mb_engine *e = open_subject(s, 0.5f, false);
    mb_batch *b = new_batch();
    float small[MAX_TOKENS], large[MAX_TOKENS];
    row r[MAX_ROWS];

    some_rows(s, r);
    fill_lora_b(e);
    planned(e, b);
    fill(b, e, r, 1, 0);
    run(e, b, true, small);
    for (int64_t tokens = 9 * MB_ROW_PAD; tokens <= MAX_TOKENS; tokens += MB_ROW_PAD) {
        fill(b, e, r, 1, tokens);
        run(e, b, true, large);
        same_bits(small, large, b->n_targets, "log-probabilities in a larger shape class");
        run(e, b, false, NULL); /* evaluation lies between steps */
    }
    mb_batch_free(b);
    mb_engine_free(e);
}

static void a_larger_shape_class_changes_no_bit(void **state)
{
    (void)state;
    everywhere(check_classes);
}

/* ---- ways to run -------------------------------------------------------------------------- */

static void check_ways(const subject *s)
{
    mb_engine *e = open_subject(s, 0.5f, false), *again = open_subject(s, 0.5f, true);
    mb_engine *free_form = open_subject(s, 0.5f, false);
    mb_batch *b = new_batch();
    float logprob[MAX_TOKENS], other[MAX_TOKENS], *kept, *g;
    row r[MAX_ROWS];
    const int n = some_rows(s, r);

    fill_lora_b(e);
    fill_lora_b(again);
    fill_lora_b(free_form);
    planned(e, b);
    planned(again, b);
    fill(b, e, r, n, 0);
    ok(mb_engine_reserve_for(free_form, b, true, 0));
    kept = gradients(e, b, logprob);
    g = gradients(again, b, other);
    same_bits(logprob, other, b->n_targets, "log-probabilities with recomputation");
    same_bits(kept, g, e->flat.count, "gradients kept and recomputed");
    mb_free(g);
    g = gradients(free_form, b, other);
    same_bits(logprob, other, b->n_targets, "log-probabilities without a plan");
    same_bits(kept, g, e->flat.count, "gradients planned and not");
    mb_free(g);
    for (e->ex.threads = 1; e->ex.threads <= THREADS; e->ex.threads++) {
        g = gradients(e, b, other);
        same_bits(logprob, other, b->n_targets, "log-probabilities of other threads");
        same_bits(kept, g, e->flat.count, "gradients of other threads");
        mb_free(g);
    }
    if (s->trained != MB_TRAINED_SOME) /* one layer alone has nothing to give back */
        assert_true(again->step_bytes < e->step_bytes); /* that is what it is for */
    mb_free(kept);
    mb_batch_free(b);
    mb_engine_free(free_form);
    mb_engine_free(again);
    mb_engine_free(e);
}

static void recomputing_planning_and_threads_change_no_bit(void **state)
{
    (void)state;
    everywhere(check_ways);
}

/* Of a large step, and of a small one after it and an evaluation, which leave their traces in the
 * memory. */
static void same_gradients(mb_engine *apart, mb_engine *inside, mb_batch *b)
{
    const size_t bytes = (size_t)apart->flat.count * sizeof(float);
    float logprob[MAX_TOKENS], other[MAX_TOKENS], *g = gradients(apart, b, logprob);

    run(inside, b, true, other);
    same_bits(logprob, other, b->n_targets, "log-probabilities with gradients in the step");
    same_bits(g, inside->flat.grad, apart->flat.count, "gradients in the step and apart");
    run(inside, b, false, NULL);
    ok(mb_engine_zero_grad(inside));
    memset(g, 0, bytes);
    same_bits(g, inside->flat.grad, apart->flat.count, "zeros");
    mb_free(g);
}

static int fits, checks; /* in how many of them gradients take less memory than by themselves */

static void check_gradients_in_step(const subject *s)
{
    mb_batch *b = new_batch();
    row r[MAX_ROWS];
    const int n = some_rows(s, r);

    for (int recompute = 0; recompute < 2; recompute++) {
        mb_engine *apart = open_as(s, 0.5f, recompute, false);
        mb_engine *inside = open_as(s, 0.5f, recompute, true);
        const size_t bytes = (size_t)apart->flat.count * sizeof(float);

        fill_lora_b(apart);
        fill_lora_b(inside);
        planned(apart, b);
        planned(inside, b);
        fill(b, apart, r, n, 0);
        same_gradients(apart, inside, b);
        fill(b, apart, r, 1, 0);
        same_gradients(apart, inside, b);
        assert_true(inside->run_bytes + bytes <= apart->run_bytes + 64);
        assert_true(inside->step_bytes <= apart->step_bytes + bytes);
        fits += inside->step_bytes < apart->step_bytes + bytes;
        checks++;
        mb_engine_free(inside);
        mb_engine_free(apart);
    }
    mb_batch_free(b);
}

static void gradients_in_the_steps_memory_have_the_same_bits(void **state)
{
    (void)state;
    everywhere(check_gradients_in_step);
    assert_true(fits > checks / 2);
}

/* ---- the fused head ----------------------------------------------------------------------- */

static void check_head(const subject *s)
{
    mb_engine *e = open_subject(s, 0.5f, false);
    mb_batch *b = new_batch();
    float fused[MAX_TOKENS], *g;
    mb_micro_result plain;
    mb_tensor logits;
    row r[MAX_ROWS];
    double largest = 0.0, worst = 0.0;

    some_rows(s, r);
    fill_lora_b(e);
    fill(b, e, r, MAX_ROWS, 0);
    ok(mb_engine_reserve_for(e, b, true, 0));
    g = gradients(e, b, fused);
    ok(mb_engine_zero_grad(e));
    ok(mb_engine_plain(e, b, 1.0, &logits, &plain));
    for (int64_t i = 0; i < b->n_targets; i++)
        if (fabs((double)fused[i] - (double)plain.logprob[i]) >
            1e-5 * fmax(1.0, fabs((double)fused[i])))
            fail_msg("%s: target %lld has %.7g, by the plain head %.7g", where, (long long)i,
                     (double)fused[i], (double)plain.logprob[i]);
    for (int64_t i = 0; i < e->flat.count; i++) {
        largest = fmax(largest, fabs((double)g[i]));
        worst = fmax(worst, fabs((double)g[i] - (double)e->flat.grad[i]));
    }
    assert_true(largest > 0.0);
    if (worst > 1e-5 * largest)
        fail_msg("%s: gradients differ by %.3g, the largest is %.3g", where, worst, largest);
    mb_free(g);
    mb_batch_free(b);
    mb_engine_free(e);
}

static void the_fused_head_is_the_plain_one(void **state)
{
    (void)state;
    everywhere(check_head);
}

/* ---- finite differences ------------------------------------------------------------------- */

static double loss_at(mb_engine *e, const mb_batch *b, float *x, float by)
{
    const float old = *x;
    float logprob[MAX_TOKENS];
    double sum = 0.0;

    *x = old + by;
    run(e, b, true, logprob);
    *x = old;
    for (int64_t i = 0; i < b->n_targets; i++)
        sum -= (double)b->target_weight[i] * (double)logprob[i];
    return sum;
}

/* Fourth order. */
static double quotient(mb_engine *e, const mb_batch *b, float *x, float h)
{
    const double near = loss_at(e, b, x, h) - loss_at(e, b, x, -h);
    const double far = loss_at(e, b, x, 2 * h) - loss_at(e, b, x, -2 * h);

    return (8.0 * near - far) / (12.0 * (double)h);
}

static bool check_segment(mb_engine *e, const mb_batch *b, const float *g,
                          const mb_flat_segment *seg)
{
    int64_t at = seg->offset;

    for (int64_t i = seg->offset; i < seg->offset + seg->count; i++)
        if (fabsf(g[i]) > fabsf(g[at]))
            at = i;
    if (fabsf(g[at]) < 0.05f) /* lost in the rounding of a loss about 1000 */
        return false;
    const double q = quotient(e, b, &e->flat.param[at], 4e-3f);
    if (fabs(q - (double)g[at]) > 0.01 * fabs((double)g[at]) + 0.01)
        fail_msg("%s: %s element %lld: derivative %.5f, backward says %.5f", where, seg->name,
                 (long long)(at - seg->offset), q, (double)g[at]);
    return true;
}

static void check_differences(const subject *s)
{
    mb_engine *e;
    mb_batch *b;
    row r[MAX_ROWS];
    float *g;
    int checked = 0, looked_at = 0;

    if (s->dora) /* lengths are constants to its gradients, not to differences */
        return;
    e = open_subject(s, 0.3f, true);
    b = new_batch();
    some_rows(s, r);
    fill_lora_b(e);
    planned(e, b);
    fill(b, e, r, MAX_ROWS, 0);
    g = gradients(e, b, NULL);
    for (int i = 0; i < e->flat.n_segments; i += 3, looked_at++)
        checked += check_segment(e, b, g, &e->flat.segment[i]);
    if (checked * 4 < looked_at * 3)
        fail_msg("%s: only %d of %d derivatives were large enough", where, checked, looked_at);
    mb_free(g);
    mb_batch_free(b);
    mb_engine_free(e);
}

static void gradients_of_models_match_finite_differences(void **state)
{
    (void)state;
    everywhere(check_differences);
}

/* ---- touch -------------------------------------------------------------------------------- */

typedef struct copies {
    float **value;
    int n;
} copies;

static copies copy_all(const mb_model *m)
{
    copies c = {.n = m->n_weights};

    ok(MB_NEW_ARRAY(&c.value, c.n));
    for (int i = 0; i < c.n; i++) {
        const mb_tensor *t = &m->weight[i].value;
        ok(MB_NEW_ARRAY(&c.value[i], mb_tensor_count(t)));
        memcpy(c.value[i], t->data, (size_t)mb_tensor_bytes(t));
    }
    return c;
}

static void free_copies(copies *c)
{
    for (int i = 0; i < c->n; i++)
        mb_free(c->value[i]);
    mb_free(c->value);
}

/* A of an adapter has no gradient while B is zero. */
static void audit(const mb_model *m, const copies *old, bool a_moves)
{
    int moved = 0;

    for (int i = 0; i < old->n; i++) {
        const mb_weight *w = &m->weight[i];
        const bool expected = w->trained && (a_moves || strstr(w->name, "lora_A") == NULL);
        const bool moves = differs(old->value[i], mb_f32(&w->value), mb_tensor_count(&w->value));
        moved += moves;
        if (moves != expected)
            fail_msg("%s: %s is %s and %s", where, w->name, w->trained ? "trained" : "frozen",
                     moves ? "changed" : "did not change");
    }
    assert_true(moved > 0);
}

static void one_step(mb_engine *e, mb_zero *z, const mb_batch *b)
{
    const mb_zero_args args = {.lr = 1e-3, .max_grad_norm = 1.0};
    mb_micro_result r;
    mb_zero_result result;

    ok(mb_zero_begin(z, 1));
    ok(mb_engine_micro(e, b, true, &r));
    ok(mb_zero_micro(z, 0));
    mb_zero_note(z, 0, (const double[]){r.loss, r.weight});
    ok(mb_zero_step(z, &args, NULL, &result));
    assert_int_equal(result.outcome, MB_ZERO_APPLIED);
}

static void check_touch(const subject *s)
{
    mb_engine *e = open_subject(s, 0.0f, false);
    mb_batch *b = new_batch();
    const mb_optim_hyper hyper = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    const mb_zero_options o = {.stage = 1, .n_metrics = 2, .max_micro = 1};
    const mb_mesh alone = mb_mesh_of_one_axis(mb_comm_self());
    mb_zero *z;
    row r[MAX_ROWS];

    some_rows(s, r);
    planned(e, b);
    fill(b, e, r, MAX_ROWS, 0);
    ok(mb_zero_new(&alone, &e->ex, &e->flat, mb_optim_find("adamw"), &hyper, &o, &z));
    for (int step = 0; step < 2; step++) {
        copies old = copy_all(e->model);
        one_step(e, z, b);
        audit(e->model, &old, step > 0);
        free_copies(&old);
    }
    mb_zero_free(z);
    mb_batch_free(b);
    mb_engine_free(e);
}

static void a_step_changes_what_is_trained_and_nothing_else(void **state)
{
    (void)state;
    everywhere(check_touch);
}

/* A new adapter changes nothing yet. */
static void check_new_adapter(const subject *s)
{
    subject frozen = *s;
    mb_engine *e, *base;
    mb_batch *b;
    float with[MAX_TOKENS], without[MAX_TOKENS];
    row r[MAX_ROWS];

    if (s->trained != MB_TRAINED_LORA || s->dora) /* lengths over lengths are 1 but for rounding */
        return;
    frozen.trained = MB_TRAINED_NOTHING;
    e = open_subject(s, 0.5f, false);
    base = open_subject(&frozen, 0.5f, false);
    b = new_batch();
    some_rows(s, r);
    planned(e, b);
    b->n_seq = 0;
    b->max_len = 128;
    for (int64_t tokens = MB_ROW_PAD; tokens <= MAX_TOKENS; tokens += MB_ROW_PAD)
        ok(mb_engine_plan(base, b, tokens, false));
    ok(mb_engine_reserve(base));
    fill(b, e, r, MAX_ROWS, 0);
    run(e, b, false, with);
    run(base, b, false, without);
    same_bits(with, without, b->n_targets, "log-probabilities with a new adapter and without");
    mb_batch_free(b);
    mb_engine_free(base);
    mb_engine_free(e);
}

static void a_new_adapter_changes_no_bit(void **state)
{
    (void)state;
    everywhere(check_new_adapter);
}

static int set_up(void **state)
{
    (void)state;
    setenv("MBUYU_LOG", "warn", 0);
    return mb_cpu_init() != MB_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_rows_have_the_bits_of_rows_alone),
        cmocka_unit_test(a_row_that_changes_changes_no_bit_of_others),
        cmocka_unit_test(a_token_that_changes_changes_no_bit_before_it),
        cmocka_unit_test(a_larger_shape_class_changes_no_bit),
        cmocka_unit_test(recomputing_planning_and_threads_change_no_bit),
        cmocka_unit_test(gradients_in_the_steps_memory_have_the_same_bits),
        cmocka_unit_test(the_fused_head_is_the_plain_one),
        cmocka_unit_test(gradients_of_models_match_finite_differences),
        cmocka_unit_test(a_step_changes_what_is_trained_and_nothing_else),
        cmocka_unit_test(a_new_adapter_changes_no_bit),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
