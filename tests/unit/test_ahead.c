/* tests/unit/test_ahead.c - rows made ahead: the same ones, in order, whoever makes them. */
#include <unistd.h>

#include "data_test.h"
#include "recipes/data/ahead.h"

enum { FLOATS = 5, THREADS = 3 };

static int made[THREADS + 1]; /* by each thread, and by who takes */

static mb_status make(void *ctx, int thread, const mb_ahead_row *row, float *to)
{
    const int64_t *bad = ctx;

    __atomic_add_fetch(&made[thread], 1, __ATOMIC_RELAXED);
    usleep((unsigned)(row->row * 7 % 5) * 100); /* the later ones are ready first */
    MB_REQUIRE(row->row != *bad, MB_EDATA, "row %lld is bad", (long long)row->row);
    for (int i = 0; i < FLOATS; i++)
        to[i] = (float)(row->row * 100 + (int64_t)row->step * 10 + i);
    return MB_OK;
}

static void takes(mb_ahead *a, int64_t r, uint32_t step)
{
    const mb_ahead_row row = {.row = r, .step = step};
    float x[FLOATS];

    OK(mb_ahead_take(a, &row, x));
    for (int i = 0; i < FLOATS; i++)
        assert_true(x[i] == (float)(r * 100 + (int64_t)step * 10 + i));
}

static void expected_rows_come_in_order_from_the_threads(void **state)
{
    int64_t bad = -1;
    mb_ahead *a;

    memset(made, 0, sizeof made);
    OK(mb_ahead_new(make, &bad, FLOATS, 8, THREADS, &a));
    for (uint32_t step = 0; step < 20; step++) {
        for (int64_t r = 0; r < 8; r++)
            assert_true(mb_ahead_expect(a, &(mb_ahead_row){.row = r, .step = step}));
        assert_false(mb_ahead_expect(a, &(mb_ahead_row){.row = 9, .step = step}));
        for (int64_t r = 0; r < 8; r++)
            takes(a, r, step);
        assert_true(mb_ahead_idle(a));
    }
    assert_int_equal(made[0] + made[1] + made[2], 160);
    assert_int_equal(made[THREADS], 0);
    mb_ahead_free(a);
}

static void others_are_made_by_who_takes_them(void **state)
{
    int64_t bad = -1;
    mb_ahead *a;

    memset(made, 0, sizeof made);
    OK(mb_ahead_new(make, &bad, FLOATS, 4, THREADS, &a));
    takes(a, 3, 1);
    assert_true(mb_ahead_expect(a, &(mb_ahead_row){.row = 5}));
    takes(a, 4, 0); /* not the one that is next */
    assert_false(mb_ahead_idle(a));
    takes(a, 5, 0);
    assert_int_equal(made[THREADS], 2);
    for (int64_t r = 0; r < 4; r++)
        assert_true(mb_ahead_expect(a, &(mb_ahead_row){.row = r}));
    mb_ahead_forget(a);
    assert_true(mb_ahead_idle(a));
    takes(a, 2, 2);
    assert_true(mb_ahead_expect(a, &(mb_ahead_row){.row = 1})); /* and left there */
    mb_ahead_free(a);
}

static void a_row_that_cannot_be_made_says_so_when_it_is_taken(void **state)
{
    int64_t bad = 1;
    float x[FLOATS];
    mb_ahead *a;

    OK(mb_ahead_new(make, &bad, FLOATS, 4, THREADS, &a));
    for (int64_t r = 0; r < 3; r++)
        assert_true(mb_ahead_expect(a, &(mb_ahead_row){.row = r}));
    takes(a, 0, 0);
    assert_int_equal(mb_ahead_take(a, &(mb_ahead_row){.row = 1}, x), MB_EDATA);
    assert_string_equal(mb_status_sentence(), "row 1 is bad");
    mb_status_clear();
    takes(a, 2, 0);
    mb_ahead_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expected_rows_come_in_order_from_the_threads),
        cmocka_unit_test(others_are_made_by_who_takes_them),
        cmocka_unit_test(a_row_that_cannot_be_made_says_so_when_it_is_taken),
    };

    return cmocka_run_group_tests_name("ahead", tests, NULL, NULL);
}
