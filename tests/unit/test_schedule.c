/* test_schedule.c - schedules against transformers' get_scheduler (tests/data/schedules.json).
 *
 * That file lists, per schedule, warm-up and keywords, the hundred rates of a run of 100 steps at
 * base rate 1e-3. The few numbers it leaves out are written here as transformers 5.23 gives them.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "optim/schedule.h"

#define assert_near(a, b)                                             \
    do {                                                              \
        if (!(fabs((a) - (b)) <= 1e-9))                               \
            fail_msg("%.17g is not %.17g", (double)(a), (double)(b)); \
    } while (0)

static char text[65536];

static void read_reference(void)
{
    FILE *f = fopen(MB_TEST_DATA "/schedules.json", "r");

    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
}

/* Compares the list of numbers that follows `key` with what the schedule gives. */
static void compare(const char *key, const char *name, mb_schedule_args a)
{
    char quoted[256];
    const mb_schedule_kind *k = mb_schedule_find(name);

    assert_non_null(k);
    a.base_lr = 1e-3;
    a.total = 100;
    assert_int_equal(mb_schedule_check(k, &a), MB_OK);
    snprintf(quoted, sizeof quoted, "\"%s\": [", key);

    char *at = strstr(text, quoted);

    assert_non_null(at);
    at += strlen(quoted);
    for (int s = 0; s < 100; s++) {
        assert_near(mb_schedule_lr(k, &a, s), strtod(at, &at));
        at++; /* the comma, at last the bracket */
    }
    assert_int_equal(at[-1], ']');
}

static void every_schedule_equals_transformers(void **state)
{
    static const struct {
        const char *key, *name;
        int warmup;
        const char *keyword, *value;
    } cases[] = {
        {"constant/warmup=0", "constant", 0, NULL, NULL},
        {"constant_with_warmup/warmup=10", "constant_with_warmup", 10, NULL, NULL},
        {"linear/warmup=10", "linear", 10, NULL, NULL},
        {"cosine/warmup=10", "cosine", 10, NULL, NULL},
        {"cosine/warmup=0", "cosine", 0, NULL, NULL},
        {"cosine_with_restarts/warmup=10/{\\\"num_cycles\\\": 3}", "cosine_with_restarts", 10,
         "num_cycles", "3"},
        {"polynomial/warmup=10", "polynomial", 10, NULL, NULL},
        {"inverse_sqrt/warmup=10", "inverse_sqrt", 10, NULL, NULL},
        {"cosine_with_min_lr/warmup=10/{\\\"min_lr\\\": 1e-05}", "cosine_with_min_lr", 10, "min_lr",
         "1e-05"},
        {"warmup_stable_decay/warmup=10/{\\\"num_decay_steps\\\": 30}", "warmup_stable_decay", 10,
         "num_decay_steps", "30"},
    };

    read_reference();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_schedule_args a = mb_schedule_defaults();

        a.warmup = cases[i].warmup;
        if (cases[i].keyword != NULL)
            assert_int_equal(mb_schedule_set(&a, cases[i].keyword, cases[i].value), MB_OK);
        compare(cases[i].key, cases[i].name, a);
    }
}

static double rate(const char *name, int step, int warmup, const char *const *keywords)
{
    const mb_schedule_kind *k = mb_schedule_find(name);
    mb_schedule_args a = mb_schedule_defaults();

    assert_non_null(k);
    a.base_lr = 1e-3, a.total = 100, a.warmup = warmup;
    for (; *keywords != NULL; keywords += 2)
        assert_int_equal(mb_schedule_set(&a, keywords[0], keywords[1]), MB_OK);
    assert_int_equal(mb_schedule_check(k, &a), MB_OK);
    return mb_schedule_lr(k, &a, step);
}

/* Values printed by get_scheduler(...).get_last_lr() of transformers 5.23. */
static void keywords_bend_the_curves_as_in_transformers(void **state)
{
    static const char *const wsd[] = {
        "num_decay_steps", "20",     "min_lr_ratio",     "0.1", "warmup_type", "cosine",
        "decay_type",      "1-sqrt", "num_stable_steps", "50",  NULL};
    static const char *const power[] = {"power", "2", "lr_end", "1e-5", NULL};
    static const char *const ratio[] = {"min_lr_rate", "0.1", NULL};
    static const char *const scale[] = {"timescale", "40", NULL};

    assert_near(rate("warmup_stable_decay", 3, 8, wsd), 0.0003777924554357096);
    assert_near(rate("warmup_stable_decay", 30, 8, wsd), 0.001);
    assert_near(rate("warmup_stable_decay", 63, 8, wsd), 0.00055);
    assert_near(rate("warmup_stable_decay", 90, 8, wsd), 0.0001);
    assert_near(rate("polynomial", 5, 10, power), 0.0005);
    assert_near(rate("polynomial", 47, 10, power), 0.0003533222222222223);
    assert_near(rate("polynomial", 99, 10, power), 1.0122222222222222e-05);
    assert_near(rate("cosine_with_min_lr", 2, 5, ratio), 0.0004);
    assert_near(rate("cosine_with_min_lr", 60, 5, ratio), 0.00043953153078664045);
    assert_near(rate("cosine_with_min_lr", 99, 5, ratio), 0.0001002460341965833);
    assert_near(rate("cosine_warmup_with_min_lr", 0, 5, ratio), 0.0002);
    assert_near(rate("cosine_warmup_with_min_lr", 60, 5, ratio), 0.00042516869105717006);
    assert_near(rate("cosine_warmup_with_min_lr", 99, 5, ratio), 0.0001);
    assert_near(rate("inverse_sqrt", 3, 10, scale), 0.0003);
    assert_near(rate("inverse_sqrt", 77, 10, scale), 0.0006114178405157431);
}

static void a_share_of_the_steps_is_rounded_up(void **state)
{
    assert_int_equal(mb_schedule_warmup(0, 0.03, 368), 12); /* 11.04 */
    assert_int_equal(mb_schedule_warmup(0.03, 0, 368), 12);
    assert_int_equal(mb_schedule_warmup(7, 0.5, 368), 7);
    assert_int_equal(mb_schedule_warmup(0, 0, 368), 0);
    assert_int_equal(mb_schedule_warmup(0, 0.5, 3), 2);
}

static void wrong_keywords_are_named(void **state)
{
    mb_schedule_args a = mb_schedule_defaults();

    mb_status_clear();
    assert_int_equal(mb_schedule_set(&a, "num_cycle", "3"), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "num_cycle"));
    mb_status_clear();
    assert_int_equal(mb_schedule_set(&a, "decay_type", "sine"), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "sine"));
    mb_status_clear();
    assert_int_equal(mb_schedule_set(&a, "timescale", "1.5"), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "1.5"));
    mb_status_clear();
}

static void schedules_that_need_more_say_so(void **state)
{
    mb_schedule_args a = mb_schedule_defaults();

    a.base_lr = 1e-3, a.total = 100, a.warmup = 10;
    mb_status_clear();
    assert_int_equal(mb_schedule_check(mb_schedule_find("wsd"), &a), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "num_decay_steps"));
    mb_status_clear();
    assert_int_equal(mb_schedule_check(mb_schedule_find("cosine_with_min_lr"), &a), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "neither"));
    mb_status_clear();
    a.base_lr = 1e-8;
    assert_int_equal(mb_schedule_check(mb_schedule_find("polynomial"), &a), MB_EARG);
    mb_status_clear();
    assert_null(mb_schedule_find("greedy"));
}

static void rates_stay_finite_past_the_end_and_with_nothing_to_do(void **state)
{
    for (const mb_schedule_kind *k = mb_schedule_kinds; k->name != NULL; k++) {
        for (int total = 0; total < 3; total++) {
            mb_schedule_args a = mb_schedule_defaults();

            a.base_lr = 1e-3, a.total = total, a.warmup = total, a.decay = 0;
            if (strncmp(k->name, "cosine_w", 8) == 0 && strstr(k->name, "min_lr") != NULL)
                a.min_lr = 0.0;
            assert_int_equal(mb_schedule_check(k, &a), MB_OK);
            for (int s = 0; s < 5; s++)
                assert_true(isfinite(mb_schedule_lr(k, &a, s)));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_schedule_equals_transformers),
        cmocka_unit_test(keywords_bend_the_curves_as_in_transformers),
        cmocka_unit_test(a_share_of_the_steps_is_rounded_up),
        cmocka_unit_test(wrong_keywords_are_named),
        cmocka_unit_test(schedules_that_need_more_say_so),
        cmocka_unit_test(rates_stay_finite_past_the_end_and_with_nothing_to_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
