/* tests/unit/test_token_rows.c - rows of single tokens, trained beside a frozen table, compute what the whole
 * table would: the same log-probabilities bit for bit, and the gradient that its training gives these rows. In
 * families whose head is the embedding, and whose is not, in f32 and bf16, planned or not, layers recomputed or
 * not, through the fused head and the plain one. */
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

#include "autograd/load.h"
#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/rng.h"
#include "recipes/config/token_ids.h"
#include "recipes/data/collate.h"
#include "recipes/train/session.h"

/* The shortest context is RoBERTa's: 24 positions, of which two are no token's. */
enum { TOKENS = 96, SEQUENCES = 4, LENGTH = 22, USED = SEQUENCES * LENGTH };
enum { SEED = 7, N_IDS = 9, WIDTH_MAX = 256 };

/* Neighbours, single ones, not in order; row 1 is the padding of RoBERTa. */
static const int32_t ids[N_IDS] = {40, 41, 42, 7, 60, 61, 1, 2, 50};

static const struct subject {
    const char *folder;
    mb_head head;
    bool tied;
    const char *table, *head_table; /* names of modules; head_table NULL: tied */
} subjects[] = {
    {"llama", MB_HEAD_CAUSAL_LM, true, "embed_tokens", NULL},
    {"llama3-rope", MB_HEAD_CAUSAL_LM, false, "embed_tokens", "lm_head"},
    {"gpt2", MB_HEAD_CAUSAL_LM, true, "wte", NULL},
    {"gemma3", MB_HEAD_CAUSAL_LM, true, "embed_tokens", NULL},
    {"bert-mlm", MB_HEAD_MASKED_LM, true, "word_embeddings", NULL},
    {"roberta-mlm", MB_HEAD_MASKED_LM, true, "word_embeddings", NULL},
    {"distilbert-mlm", MB_HEAD_MASKED_LM, true, "word_embeddings", NULL},
};
enum { N_SUBJECTS = sizeof subjects / sizeof subjects[0] };

static char where[160];

static void ok(mb_status st)
{
    if (st != MB_OK)
        fail_msg("%s: %s\n%s", where, mb_status_sentence(), mb_status_path());
}

static mb_engine *open_engine(const struct subject *s, mb_dtype dtype, bool recompute, bool whole)
{
    char path[512], pattern[128];
    const char *patterns[] = {pattern};
    mb_token_wish wish[2] = {{.id = ids, .n = N_IDS}};
    mb_engine *e = NULL;
    mb_session_options o = {
        .path = path,
        .head = s->head,
        .trained = whole ? MB_TRAINED_SOME : MB_TRAINED_LORA,
        .layers = -1,
        .patterns = patterns,
        .n_patterns = 1,
        .lora = {.tokens = wish, .n_tokens = s->tied ? 1 : 2},
        .seed = SEED,
        .quiet = true,
        .engine = {.threads = 1, .dtype = dtype, .recompute = recompute},
    };

    if (!s->tied) {
        wish[0].module = s->table;
        wish[1] = (mb_token_wish){.module = s->head_table, .id = ids, .n = N_IDS};
    }
    snprintf(path, sizeof path, "%s/reference/%s", MB_TEST_DATA, s->folder);
    snprintf(pattern, sizeof pattern, ".*(%s|%s).weight", s->table,
             s->head_table != NULL ? s->head_table : s->table);
    ok(mb_session_open(&o, &e, NULL));
    mb_model_config *c = &e->model->config;
    c->drop_embed = c->drop_hidden = c->drop_attention = 0.0f;
    return e;
}

/* Sequences in which every token with a row occurs, is predicted, or both. */
static mb_batch *some_batch(const mb_engine *e)
{
    const mb_model_config *c = &e->model->config;
    mb_batch *b;

    ok(mb_batch_new(TOKENS, SEQUENCES, &b));
    b->seed = SEED;
    b->tokens = TOKENS;
    b->used = USED;
    b->n_seq = SEQUENCES;
    b->max_len = LENGTH;
    for (int32_t t = 0; t < USED; t++) {
        b->ids[t] = t % 3 == 0 ? ids[t / 3 % N_IDS]
                               : (int32_t)mb_rng_below(3, (uint64_t)t, (uint64_t)c->vocab);
        b->position[t] = t % LENGTH;
        b->ordinal[t] = t / LENGTH;
    }
    for (int32_t s = 0; s < SEQUENCES; s++) {
        b->start[s] = b->k_start[s] = LENGTH * s;
        b->len[s] = b->k_len[s] = LENGTH;
        b->seq_ordinal[s] = s;
    }
    for (int32_t t = 0; t < USED; t += 2) {
        b->target_row[b->n_targets] = t;
        b->target_label[b->n_targets] = b->ids[(t + 1) % USED];
        b->target_weight[b->n_targets++] = 0.5f + (float)t / (float)USED;
    }
    for (int64_t i = b->n_targets; i < (b->n_targets + MB_ROW_PAD - 1) / MB_ROW_PAD * MB_ROW_PAD;
         i++)
        b->target_row[i] = -1;
    return b;
}

static mb_weight *table_of(const mb_engine *e, const char *module)
{
    for (int i = 0; i < e->model->n_weights; i++) {
        mb_weight *w = &e->model->weight[i];
        if (w->row != NULL && w->value.ndim == 2 && strcmp(w->row->shape, "V D") == 0 &&
            mb_weight_is_called(w, module))
            return w;
    }
    fail_msg("%s: no %s", where, module);
    return NULL;
}

/* A trained bf16 number is rounded away from zero where it is half-way, a frozen one to the even. */
static void same_table(const mb_engine *a, const mb_engine *b, const char *module)
{
    const mb_weight *from = table_of(b, module);
    const int64_t d = from->value.dim[1];
    float row[WIDTH_MAX];

    assert_true(d <= WIDTH_MAX);
    for (int64_t i = 0; i < from->value.dim[0]; i++) {
        ok(mb_weight_read(b->model, from, i * d, d, row));
        ok(mb_weight_write(a->model, table_of(a, module), i * d, d, row));
    }
}

/* As if they had been trained for a while; in both engines. */
static void move_rows(const mb_engine *e, const mb_weight *table)
{
    const int64_t d = table->value.dim[1];
    float row[WIDTH_MAX];

    assert_true(d <= WIDTH_MAX);
    for (int64_t i = 0; i < N_IDS; i++) {
        for (int64_t k = 0; k < d; k++)
            row[k] = 0.3f *
                     (float)mb_rng_normal(mb_rng_key(SEED, MB_SITE_INIT, 1), (uint64_t)(i * d + k));
        if (table->token_rows != NULL)
            ok(mb_weight_write(e->model, table->token_rows->values, i * d, d, row));
        else
            ok(mb_weight_write(e->model, table, ids[i] * d, d, row));
    }
}

static void compare_rows(const mb_engine *a, const mb_engine *b, const char *module, double most)
{
    const mb_weight *whole = table_of(a, module), *table = table_of(b, module);
    const mb_weight *rows = table->token_rows->values;
    const int64_t d = whole->value.dim[1];
    double largest = 0.0, off = 0.0;

    assert_null(table->grad.data);
    for (int64_t i = 0; i < N_IDS * d; i++) {
        const double want = mb_f32(&whole->grad)[ids[i / d] * d + i % d];
        largest = fmax(largest, fabs(want));
        off = fmax(off, fabs(want - (double)mb_f32(&rows->grad)[i]));
    }
    assert_true(largest > 1e-3);
    if (!(off <= most * largest))
        fail_msg("%s: the rows' gradient is off by %.3g of %.3g", where, off, largest);
}

static void check_subject(const struct subject *s, mb_dtype dtype, bool recompute)
{
    mb_engine *a = open_engine(s, dtype, false, true), *b = open_engine(s, dtype, recompute, false);
    mb_batch *batch = some_batch(a);
    mb_micro_result ra, rb;

    same_table(a, b, s->table);
    move_rows(a, table_of(a, s->table));
    move_rows(b, table_of(b, s->table));
    if (!s->tied) {
        same_table(a, b, s->head_table);
        move_rows(a, table_of(a, s->head_table));
        move_rows(b, table_of(b, s->head_table));
    }
    ok(mb_engine_reserve_for(a, batch, true, 0));
    ok(mb_engine_plan(b, batch, TOKENS, true));
    ok(mb_engine_reserve(b));
    ok(mb_engine_zero_grad(a));
    ok(mb_engine_zero_grad(b));
    ok(mb_engine_micro(a, batch, true, &ra));
    ok(mb_engine_micro(b, batch, true, &rb));
    for (int64_t i = 0; i < batch->n_targets; i++)
        if (memcmp(&ra.logprob[i], &rb.logprob[i], sizeof(float)) != 0)
            fail_msg("%s: log-probability %lld is %.9g with the whole table, %.9g with rows", where,
                     (long long)i, (double)ra.logprob[i], (double)rb.logprob[i]);
    assert_true(mb_model_parameters(b->model, true) ==
                (s->tied ? 1 : 2) * N_IDS * b->model->config.width);
    compare_rows(a, b, s->table, 1e-5);
    if (!s->tied)
        compare_rows(a, b, s->head_table, 1e-5);
    mb_batch_free(batch);
    mb_engine_free(a);
    mb_engine_free(b);
}

static void rows_compute_what_the_whole_table_would(void **state)
{
    static const mb_dtype types[] = {MB_DTYPE_F32, MB_DTYPE_BF16};

    (void)state;
    for (int i = 0; i < N_SUBJECTS; i++)
        for (int t = 0; t < 2; t++)
            for (int recompute = 0; recompute < 2; recompute++) {
                snprintf(where, sizeof where, "%s, %s%s", subjects[i].folder,
                         mb_dtype_name(types[t]), recompute ? ", recomputed" : "");
                check_subject(&subjects[i], types[t], recompute);
            }
}

static void the_plain_head_gives_rows_the_gradient_of_the_fused_one(void **state)
{
    (void)state;
    for (int i = 0; i < N_SUBJECTS; i++) {
        snprintf(where, sizeof where, "%s, plain", subjects[i].folder);
        mb_engine *a = open_engine(&subjects[i], MB_DTYPE_F32, false, false);
        mb_batch *batch = some_batch(a);
        mb_micro_result r;
        mb_tensor logits;
        float *fused;
        double largest = 0.0, off = 0.0;

        ok(mb_engine_reserve_for(a, batch, true, 0));
        ok(MB_NEW_ARRAY(&fused, a->flat.count));
        ok(mb_engine_zero_grad(a));
        ok(mb_engine_micro(a, batch, true, &r));
        memcpy(fused, a->flat.grad, (size_t)a->flat.count * sizeof *fused);
        ok(mb_engine_zero_grad(a));
        ok(mb_engine_plain(a, batch, 1.0, &logits, &r));
        for (int64_t k = 0; k < a->flat.count; k++) {
            largest = fmax(largest, fabs((double)fused[k]));
            off = fmax(off, fabs((double)fused[k] - (double)a->flat.grad[k]));
        }
        assert_true(largest > 1e-3 && off <= 1e-5 * largest);
        mb_free(fused);
        mb_batch_free(batch);
        mb_engine_free(a);
    }
}

/* Bytes of the logits of all tokens, without training. */
static float *logits_of(mb_engine *e, const mb_batch *b, int64_t *n)
{
    mb_tensor logits;
    float *copy;

    ok(mb_engine_logits(e, b, NULL, &logits));
    *n = mb_tensor_count(&logits);
    ok(MB_NEW_ARRAY(&copy, *n));
    memcpy(copy, mb_f32(&logits), (size_t)*n * sizeof *copy);
    return copy;
}

static void merging_leaves_a_plain_table_with_the_rows_in_it(void **state)
{
    const struct subject *s = &subjects[1];
    mb_engine *e = open_engine(s, MB_DTYPE_F32, false, false);
    mb_batch *b = some_batch(e);
    int64_t n;

    (void)state;
    snprintf(where, sizeof where, "merging");
    ok(mb_engine_reserve_for(e, b, false, TOKENS));
    float *untrained = logits_of(e, b, &n);
    move_rows(e, table_of(e, s->table));
    move_rows(e, table_of(e, s->head_table));
    float *before = logits_of(e, b, &n);
    assert_memory_not_equal(before, untrained, (size_t)n * sizeof *before);
    mb_free(untrained);
    assert_true(mb_model_has_adapter(e->model));
    ok(mb_model_merge_lora(e->model, &e->ex));
    assert_false(mb_model_has_adapter(e->model));
    float *after = logits_of(e, b, &n);
    assert_memory_equal(before, after, (size_t)n * sizeof *before);
    mb_free(before);
    mb_free(after);
    mb_batch_free(b);
    mb_engine_free(e);
}

/* Adds these rows to a model of this folder; the sentence of the failure. */
static const char *refusal(const char *folder, mb_head head, const mb_token_wish *wish, int n,
                           int64_t r)
{
    static const char *const save[] = {"embed_tokens"};
    char path[512];
    mb_json_doc *doc = NULL;
    mb_model_config c;
    mb_model *m;

    mb_status_clear();
    snprintf(path, sizeof path, "%s/reference/%s", MB_TEST_DATA, folder);
    ok(mb_model_config_doc(path, &doc));
    ok(mb_model_config_parse(doc, head, &c));
    if (strcmp(folder, "t5") == 0)
        c.tied = false; /* as in T5 v1.1 */
    ok(mb_model_new(&c, &m));
    const mb_lora_options o = {.r = r < 0 ? 4 : r,
                               .alpha = 8,
                               .tokens = wish,
                               .n_tokens = n,
                               .save = save,
                               .n_save = r < 0};
    if (mb_model_add_lora(m, &o) == MB_OK)
        fail_msg("%s: no refusal of %d tables with r %lld", folder, n, (long long)r);
    mb_model_free(m);
    mb_json_free(doc);
    return mb_status_sentence();
}

static void what_cannot_be_trained_so_is_refused_by_name(void **state)
{
    static const int32_t twice[] = {4, 9, 4}, beyond[] = {3, 384};
    const mb_token_wish plain = {.id = ids, .n = 4}, empty = {.id = ids};
    const mb_token_wish tied[] = {plain, {.module = "lm_head", .id = twice, .n = 2}};
    const mb_token_wish same[] = {plain, {.module = "embed_tokens", .id = ids, .n = 2}};

    (void)state;
    snprintf(where, sizeof where, "refusals");
#define REFUSED(part, ...)                          \
    if (strstr(refusal(__VA_ARGS__), part) == NULL) \
    fail_msg("no '%s' in: %s", part, mb_status_sentence())
    REFUSED("384 is no row of model.embed_tokens.weight, which has 384", "llama", MB_HEAD_CAUSAL_LM,
            &(mb_token_wish){.id = beyond, .n = 2}, 1, 0);
    REFUSED("4 is there twice", "llama", MB_HEAD_CAUSAL_LM, &(mb_token_wish){.id = twice, .n = 3},
            1, 0);
    REFUSED("names no token", "llama", MB_HEAD_CAUSAL_LM, &empty, 1, 0);
    REFUSED("no table of tokens called q_proj", "llama", MB_HEAD_CAUSAL_LM,
            &(mb_token_wish){.module = "q_proj", .id = ids, .n = 1}, 1, 4);
    REFUSED("no table of tokens", "vit-cls", MB_HEAD_SEQUENCE, &plain, 1, 4);
    REFUSED("named twice", "llama", MB_HEAD_CAUSAL_LM, same, 2, 4);
    REFUSED("'lm_head' is tied to the embedding", "llama", MB_HEAD_CAUSAL_LM, tied, 2, 4);
    REFUSED("is trained whole already", "llama3-rope", MB_HEAD_CAUSAL_LM, &plain, 1, -1);
    REFUSED("a copy for each side", "m2m100", MB_HEAD_SEQ2SEQ, &plain, 1, 0);
    REFUSED("encoder alone", "marian", MB_HEAD_SEQ2SEQ, &plain, 1, 4);
    REFUSED("would train neither side's", "t5", MB_HEAD_SEQ2SEQ, &plain, 1, 4);
    REFUSED("head of a classifier", "bert-cls", MB_HEAD_SEQUENCE, &plain, 1, 0);
#undef REFUSED
    mb_status_clear();
}

/* ---- what recipes say --------------------------------------------------------------------- */

static void entries_are_ids_ranges_and_the_new_ones(void **state)
{
    const char *words[] = {"9", "new", "3..5"};
    const mb_strings list = {.at = words, .n = 3};
    const int32_t want[] = {3, 4, 5, 9, 20, 21, 22};
    mb_json_doc *doc;
    int32_t *got = NULL;
    int64_t n;

    (void)state;
    ok(mb_json_doc_new("config.json", &doc));
    assert_int_equal(mb_token_ids(&list, mb_json_root(doc), "m", 64, &got, &n), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "m does not say which of its tokens are new"));
    mb_status_clear();
    ok(mb_token_ids_note(mb_json_root(doc), 20, 22));
    ok(mb_token_ids(&list, mb_json_root(doc), "m", 64, &got, &n));
    assert_int_equal(n, 7);
    assert_memory_equal(got, want, sizeof want);
    mb_free(got);
    assert_int_equal(mb_token_ids(&list, mb_json_root(doc), "m", 22, &got, &n), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "rows for the ids 0 to 21, none for 22"));
    mb_status_clear();
    mb_json_free(doc);
}

static void an_entry_of_another_kind_is_named(void **state)
{
    static const char *const bad[] = {"",    "x",     "-3",         "5..",  "..5", "7..3",
                                      "4.5", "1...3", "9999999999", "news", "3 4"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const mb_strings list = {.at = (const char **)(uintptr_t)&bad[i], .n = 1};
        assert_int_equal(mb_token_ids_check(&list), MB_EARG);
        mb_status_clear();
    }
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
        cmocka_unit_test(rows_compute_what_the_whole_table_would),
        cmocka_unit_test(the_plain_head_gives_rows_the_gradient_of_the_fused_one),
        cmocka_unit_test(merging_leaves_a_plain_table_with_the_rows_in_it),
        cmocka_unit_test(what_cannot_be_trained_so_is_refused_by_name),
        cmocka_unit_test(entries_are_ids_ranges_and_the_new_ones),
        cmocka_unit_test(an_entry_of_another_kind_is_named),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
