/* tests/unit/test_kernels_elementwise.c - copy, axpy, fill, scale, add, bias_bwd. */
#include "kernel_test.h"

static void copies_move_every_element_and_nothing_else(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    FOR_EACH_SHAPE
    {
        mb_tensor x = random_matrix(rows, cols, acc ? 5 : 0, 1.0f), y = matrix(rows, cols, gap);

        RUN(&ex, copy, &y, &x);
        check_same(&y, &x);
        check_gaps(&y);
    }
}

static void copies_other_types_too(void **state)
{
    mb_exec ex = exec_with(2);
    int64_t from[100], to[100] = {0};
    mb_tensor x = mb_tensor_2d(from, MB_DTYPE_I64, 4, 25),
              y = mb_tensor_2d(to, MB_DTYPE_I64, 4, 25);

    (void)state;
    for (int i = 0; i < 100; i++)
        from[i] = ((int64_t)i << 40) - 7;
    RUN(&ex, copy, &y, &x);
    assert_memory_equal(from, to, sizeof from);
}

static void arithmetic_is_rounded_once_per_operation(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    FOR_EACH_SHAPE
    {
        mb_tensor a = random_matrix(rows, cols, gap, 1.0f), b = random_matrix(rows, cols, 0, 1.0f);
        mb_tensor sum = matrix(rows, cols, gap), scaled = matrix(rows, cols, gap);
        mb_tensor grown = copy_of(&a), filled = matrix(rows, cols, gap);

        (void)acc;
        RUN(&ex, add, &sum, &a, &b);
        RUN(&ex, scale, &scaled, 0.3f, &b);
        RUN(&ex, axpy, &grown, -1.7f, &b);
        RUN(&ex, fill, &filled, 2.5f);
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t c = 0; c < cols; c++) {
                const volatile float product = -1.7f * mb_row(&b, r)[c];

                assert_true(mb_row(&sum, r)[c] == mb_row(&a, r)[c] + mb_row(&b, r)[c]);
                assert_true(mb_row(&scaled, r)[c] == 0.3f * mb_row(&b, r)[c]);
                assert_true(mb_is_sum(mb_row(&grown, r)[c], mb_row(&a, r)[c], product));
                assert_true(mb_row(&filled, r)[c] == 2.5f);
            }
        }
        check_gaps(&sum), check_gaps(&scaled), check_gaps(&grown), check_gaps(&filled);
    }
}

static void scale_and_add_work_in_place(void **state)
{
    mb_exec ex = exec_with(2);
    mb_tensor x = random_matrix(9, 1001, 0, 1.0f), old = copy_of(&x);

    (void)state;
    RUN(&ex, scale, &x, 3.0f, &x);
    RUN(&ex, add, &x, &x, &x);
    for (int64_t i = 0; i < 9 * 1001; i++)
        assert_true(mb_f32(&x)[i] == 2.0f * (3.0f * mb_f32(&old)[i]));
}

static void bias_gradient_is_added_to_what_was_there(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    FOR_EACH_SHAPE
    {
        mb_tensor dy = random_matrix(rows, cols, gap, 1.0f), db = random_vector(cols, 0.0f, 1.0f);
        mb_tensor before = copy_of(&db);

        (void)acc;
        RUN(&ex, bias_bwd, &db, &dy);
        for (int64_t c = 0; c < cols; c++) {
            double sum = mb_f32(&before)[c], size = fabs(sum);

            for (int64_t r = 0; r < rows; r++) {
                sum += mb_row(&dy, r)[c];
                size += fabs(mb_row(&dy, r)[c]);
            }
            check_near(mb_f32(&db)[c], sum, 1e-6 * size);
        }
    }
    mb_tensor dy = random_matrix(4, 4, 0, 1.0f);
    RUN(&ex, bias_bwd, NULL, &dy);
}

static void sums_in_f32_take_halves(void **state)
{
    const int64_t cols[] = {5, 576};

    (void)state;
    if (getenv("MB_TEST_DTYPE") != NULL)
        skip();
    mb_exec ex = exec_with(1);
    for (int i = 0; i < 4; i++) {
        const int64_t rows = 9, n = cols[i / 2];
        const mb_dtype type = i % 2 == 0 ? MB_DTYPE_BF16 : MB_DTYPE_F16;
        mb_tensor x = random_matrix(rows, n, 0, 1.0f), y = random_matrix(rows, n, 0, 1.0f);
        mb_tensor h = mb_tensor_2d(take(2 * rows * n), type, rows, n), old = copy_of(&y);

        RUN(&ex, cast, &h, &x);
        RUN(&ex, cast, &x, &h);
        RUN(&ex, axpy, &y, 0.5f, &h);
        for (int64_t k = 0; k < rows * n; k++)
            assert_true(mb_f32(&y)[k] == mb_f32(&old)[k] + 0.5f * mb_f32(&x)[k]);
    }
}

/* Computed in f32 of the widened operands, whatever else the row holds. */
static void halves_are_rounded_once(void **state)
{
    enum { ROWS = 3, COLS = 12345 };

    (void)state;
    if (getenv("MB_TEST_DTYPE") != NULL)
        skip();
    for (int i = 0; i < 6; i++) {
        const mb_dtype type = i % 2 == 0 ? MB_DTYPE_BF16 : MB_DTYPE_F16;
        mb_exec ex = exec_with(team_sizes[i / 2]);
        mb_tensor a = random_matrix(ROWS, COLS, 0, 1.0f), b = random_matrix(ROWS, COLS, 0, 1.0f);
        mb_tensor want = matrix(ROWS, COLS, 0), x[6];
        uint16_t *h[6];

        for (int k = 0; k < 6; k++) {
            h[k] = take(2 * ROWS * COLS);
            x[k] = mb_tensor_2d(h[k], type, ROWS, COLS);
        }
        RUN(&ex, cast, &x[0], &a), RUN(&ex, cast, &x[1], &b);
        RUN(&ex, cast, &a, &x[0]), RUN(&ex, cast, &b, &x[1]);
        RUN(&ex, add, &want, &a, &b), RUN(&ex, cast, &x[3], &want);
        RUN(&ex, add, &x[2], &x[0], &x[1]);
        assert_memory_equal(h[2], h[3], 2 * ROWS * COLS);
        RUN(&ex, scale, &want, 0.3f, &a), RUN(&ex, cast, &x[3], &want);
        RUN(&ex, scale, &x[2], 0.3f, &x[0]);
        assert_memory_equal(h[2], h[3], 2 * ROWS * COLS);
        RUN(&ex, axpy, &a, -1.7f, &b), RUN(&ex, cast, &x[3], &a);
        RUN(&ex, axpy, &x[0], -1.7f, &x[1]);
        assert_memory_equal(h[0], h[3], 2 * ROWS * COLS);
        RUN(&ex, fill, &want, 0.1f), RUN(&ex, cast, &x[3], &want);
        RUN(&ex, fill, &x[2], 0.1f);
        assert_memory_equal(h[2], h[3], 2 * ROWS * COLS);
        mb_arena_reset(memory);
    }
}

static void threads_do_not_change_bits(void **state)
{
    mb_test_bits(true);
    (void)state;
    mb_tensor dy = random_matrix(700, 333, 3, 1.0f), first = vector(333);

    for (int i = 0; i < 3; i++) {
        mb_exec ex = exec_with(team_sizes[i]);
        mb_tensor db = vector(333);

        RUN(&ex, fill, &db, 0.25f);
        RUN(&ex, bias_bwd, &db, &dy);
        if (i == 0)
            first = copy_of(&db);
        assert_memory_equal(db.data, first.data, 333 * 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(copies_move_every_element_and_nothing_else),
        KERNEL_TEST(copies_other_types_too),
        KERNEL_TEST(arithmetic_is_rounded_once_per_operation),
        KERNEL_TEST(scale_and_add_work_in_place),
        KERNEL_TEST(bias_gradient_is_added_to_what_was_there),
        KERNEL_TEST(sums_in_f32_take_halves),
        KERNEL_TEST(halves_are_rounded_once),
        KERNEL_TEST(threads_do_not_change_bits),
    };

    return cmocka_run_group_tests_name("kernels: elementwise", tests, NULL, kernel_teardown);
}
