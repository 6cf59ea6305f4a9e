/* Tokens picked against tables worked out by hand, and against the rules written down once more. */
#include <math.h>

#include "recipes/generate/pick.h"
#include "tests/unit/data_test.h"

static mb_pick_options plain_pick(void)
{
    return (mb_pick_options){
        .sample = true, .temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0, .seed = 5};
}

static int32_t pick_one(mb_picker *p, const mb_pick_options *o, const float *x, const int32_t *id,
                        int64_t n, uint64_t sample)
{
    const mb_pick_place at = {.id = id, .n = n, .sample = sample, .token = 3};
    int32_t got;

    OK(mb_pick(p, o, &at, x, &got));
    return got;
}

static void a_penalty_as_by_hand(void **state)
{
    /* penalty 2: 4 -> 2, 3 stays, -1 -> -2, 2.5 -> 1.25 (named twice, penalised once) */
    static const float x[6] = {4.0f, 3.0f, -1.0f, 2.5f, -1.5f, -8.0f};
    static const int32_t used[] = {0, 2, 3, 3, 9, -1};
    static const struct {
        double penalty;
        int64_t n_used;
        int32_t best;
    } cases[] = {{1.0, 6, 0}, {2.0, 0, 0}, {2.0, 1, 1}, {1.3, 6, 0}, {1.34, 6, 1}, {0.5, 4, 0}};
    static const float low[3] = {-1.0f, -1.5f, -3.0f};
    mb_pick_options o = plain_pick();
    mb_picker *p;

    OK(mb_picker_new(6, &p));
    o.sample = false;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        o.repetition_penalty = cases[i].penalty;
        assert_int_equal(pick_one(p, &o, x, used, cases[i].n_used, 0), cases[i].best);
    }
    mb_picker_free(p);
    OK(mb_picker_new(3, &p)); /* negative ones are multiplied: -1 -> -2 */
    o.repetition_penalty = 2.0;
    assert_int_equal(pick_one(p, &o, low, used, 1, 0), 1);
    o.repetition_penalty = 1.4;
    assert_int_equal(pick_one(p, &o, low, used, 1, 0), 0);
    mb_picker_free(p);
}

/* Shares of 20000 draws. */
static void draw_many(const mb_pick_options *o, const float *x, int n, double *share)
{
    mb_picker *p;

    OK(mb_picker_new(n, &p));
    for (int i = 0; i < n; i++)
        share[i] = 0.0;
    for (uint64_t i = 0; i < 20000; i++)
        share[pick_one(p, o, x, NULL, 0, i)] += 1.0 / 20000.0;
    mb_picker_free(p);
}

static void draws_have_the_right_shares(void **state)
{
    /* softmax of log p is p; p sums to 1 */
    static const double prob[6] = {0.05, 0.4, 0.02, 0.25, 0.18, 0.1};
    static const struct {
        double t, top_p;
        int64_t k;
        double want[6];
    } cases[] = {
        {1.0, 1.0, 0, {0.05, 0.4, 0.02, 0.25, 0.18, 0.1}},
        {1.0, 1.0, 6, {0.05, 0.4, 0.02, 0.25, 0.18, 0.1}},
        {1.0, 1.0, 2, {0, 0.4 / 0.65, 0, 0.25 / 0.65, 0, 0}},
        {1.0, 0.8, 0, {0, 0.4 / 0.83, 0, 0.25 / 0.83, 0.18 / 0.83, 0}}, /* 0.65 < 0.8 <= 0.83 */
        {1.0, 0.84, 0, {0, 0.4 / 0.93, 0, 0.25 / 0.93, 0.18 / 0.93, 0.1 / 0.93}},
        {1.0, 0.39, 0, {0, 1, 0, 0, 0, 0}},
        {1.0, 0.01, 0, {0, 1, 0, 0, 0, 0}},
        {1.0, 0.7, 3, {0, 0.4 / 0.65, 0, 0.25 / 0.65, 0, 0}}, /* of 0.83: 0.783 reach 0.7 */
        {0.5,
         1.0,
         0,
         {0.0025 / 0.2678, 0.16 / 0.2678, 0.0004 / 0.2678, 0.0625 / 0.2678, 0.0324 / 0.2678,
          0.01 / 0.2678}},
        {1e-6, 1.0, 0, {0, 1, 0, 0, 0, 0}},
    };
    float x[6];

    for (int i = 0; i < 6; i++)
        x[i] = (float)log(prob[i]) + 3.0f;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        mb_pick_options o = plain_pick();
        double share[6];

        o.temperature = cases[c].t;
        o.top_p = cases[c].top_p;
        o.top_k = cases[c].k;
        draw_many(&o, x, 6, share);
        for (int i = 0; i < 6; i++) {
            const double w = cases[c].want[i];

            assert_true(w > 0.0 || share[i] == 0.0);
            assert_true(fabs(share[i] - w) <= 5.0 * sqrt(w * (1.0 - w) / 20000.0) + 1e-9);
        }
    }
}

/* The rules once more, by sorting everything, on many random rows. */
struct entry {
    double score;
    int32_t id;
};

static int better_first(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->id - y->id;
}

static bool stays(const float *x, int n, const mb_pick_options *o, int32_t id)
{
    struct entry e[200];
    double sum = 0.0, before = 0.0;
    int kept = o->top_k > 0 && o->top_k < n ? (int)o->top_k : n;

    for (int i = 0; i < n; i++)
        e[i] = (struct entry){(double)x[i], i};
    qsort(e, (size_t)n, sizeof e[0], better_first);
    for (int i = 0; i < kept; i++)
        sum += exp((e[i].score - e[0].score) / o->temperature);
    for (int i = 0; i < kept; i++) { /* stays while what is before it has not reached top_p */
        if (e[i].id == id)
            return i == 0 || before / sum < o->top_p + 1e-9;
        before += exp((e[i].score - e[0].score) / o->temperature);
    }
    return false;
}

static void only_what_stays_is_drawn(void **state)
{
    enum { N = 200 };
    mb_picker *p;
    float x[N];

    OK(mb_picker_new(N, &p));
    for (uint64_t i = 0; i < 3000; i++) {
        mb_pick_options o = plain_pick();
        int32_t got;

        for (uint64_t j = 0; j < N; j++) /* with many ties */
            x[j] = (float)((int)((i * 7919 + j * j * 104729 + i * j) % 41) - 20) * 0.25f;
        o.temperature = 0.3 + (double)(i % 9) * 0.3;
        o.top_k = (int64_t)(i % 5 == 0 ? 0 : i % 60);
        o.top_p = i % 4 == 0 ? 1.0 : 0.05 + (double)(i % 19) * 0.05;
        got = pick_one(p, &o, x, NULL, 0, i);
        assert_true(got >= 0 && got < N);
        assert_true(stays(x, N, &o, got));
    }
    mb_picker_free(p);
}

static void logits_that_are_not_numbers_are_refused(void **state)
{
    const mb_pick_options o = plain_pick();
    const mb_pick_place at = {.sample = 1};
    float x[3] = {1.0f, NAN, 2.0f};
    int32_t got;
    mb_picker *p;

    OK(mb_picker_new(3, &p));
    assert_int_equal(mb_pick(p, &o, &at, x, &got), MB_ENUM);
    assert_non_null(strstr(mb_status_sentence(), "token 1"));
    mb_status_clear();
    x[1] = INFINITY;
    assert_int_equal(mb_pick(p, &o, &at, x, &got), MB_ENUM);
    mb_status_clear();
    mb_picker_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_penalty_as_by_hand),
        cmocka_unit_test(draws_have_the_right_shares),
        cmocka_unit_test(only_what_stays_is_drawn),
        cmocka_unit_test(logits_that_are_not_numbers_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
