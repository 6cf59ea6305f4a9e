/* tests/unit/test_kernels_embedding.c - embedding tables, gather and scatter of rows. */
#include "kernel_test.h"

static mb_tensor indices(int64_t n)
{
    return mb_tensor_1d(take(4 * n), MB_DTYPE_I32, n);
}

static void rows_are_looked_up(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    FOR_EACH_SHAPE
    {
        mb_tensor w = random_matrix(50, cols, 0, 1.0f), ids = indices(rows);
        mb_tensor y = matrix(rows, cols, gap);

        (void)acc;
        for (int64_t r = 0; r < rows; r++)
            mb_i32(&ids)[r] = (int32_t)((r * 17 + 3) % 50);
        RUN(&ex, embedding_fwd, &y, &ids, &w);
        for (int64_t r = 0; r < rows; r++)
            assert_memory_equal(mb_row(&y, r), mb_row(&w, mb_i32(&ids)[r]), 4 * (size_t)cols);
        check_gaps(&y);
    }
}

static void table_gradient_adds_rows_in_order(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        mb_exec ex = exec_with(team_sizes[i]);

        FOR_EACH_SHAPE
        {
            mb_tensor dy = random_matrix(rows, cols, gap, 1.0f), ids = indices(rows);
            mb_tensor dw = random_matrix(9, cols, 0, 1.0f), want = copy_of(&dw);

            (void)acc;
            for (int64_t r = 0; r < rows; r++) {
                const int32_t id = mb_i32(&ids)[r] = (int32_t)(r * 5 % 8); /* 8 never occurs */

                for (int64_t c = 0; c < cols; c++)
                    mb_row(&want, id)[c] += mb_row(&dy, r)[c];
            }
            RUN(&ex, embedding_bwd, &dw, &ids, &dy);
            check_same(&dw, &want);
            RUN(&ex, embedding_bwd, NULL, &ids, &dy);
        }
    }
}

static void gather_and_scatter_skip_negative_indices(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        mb_exec ex = exec_with(team_sizes[i]);
        mb_tensor x = random_matrix(200, 203, 3, 1.0f), index = indices(150);
        mb_tensor y = matrix(150, 203, 1), dx = random_matrix(200, 203, 3, 1.0f);
        mb_tensor before = copy_of(&dx);

        for (int64_t r = 0; r < 150; r++)
            mb_i32(&index)[r] = r % 7 == 0 ? -1 : (int32_t)(r * 59 % 200);
        RUN(&ex, gather_rows, &y, &x, &index);
        RUN(&ex, scatter_rows, &dx, &y, &index);
        for (int64_t r = 0; r < 150; r++) {
            const int32_t from = mb_i32(&index)[r];

            for (int64_t c = 0; c < 203; c++) {
                assert_true(mb_row(&y, r)[c] == (from < 0 ? 0.0f : mb_row(&x, from)[c]));
                if (from >= 0)
                    mb_row(&before, from)[c] += mb_row(&x, from)[c];
            }
        }
        check_same(&dx, &before);
        check_gaps(&y), check_gaps(&dx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(rows_are_looked_up),
        KERNEL_TEST(table_gradient_adds_rows_in_order),
        KERNEL_TEST(gather_and_scatter_skip_negative_indices),
    };

    return cmocka_run_group_tests_name("kernels: embedding", tests, NULL, kernel_teardown);
}
