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
            RUN(&ex, embedding_bwd, &dw, &ids, &dy, -1);
            check_same(&dw, &want);
            RUN(&ex, embedding_bwd, NULL, &ids, &dy, -1);
            for (int64_t c = 0; c < cols; c++) /* id 3 gets nothing, the others the same again */
                for (int64_t id = 0; id < mb_rows(&want); id++)
                    mb_row(&want, id)[c] = id == 3 ? mb_row(&dw, id)[c] : 0.0f;
            for (int64_t id = 0; id < mb_rows(&dw); id++)
                for (int64_t c = 0; c < cols && id != 3; c++)
                    mb_row(&dw, id)[c] = 0.0f;
            for (int64_t r = 0; r < rows; r++)
                for (int64_t c = 0; c < cols && mb_i32(&ids)[r] != 3; c++)
                    mb_row(&want, mb_i32(&ids)[r])[c] += mb_row(&dy, r)[c];
            RUN(&ex, embedding_bwd, &dw, &ids, &dy, 3);
            check_same(&dw, &want);
        }
    }
}

/* Runs of one id that are longer than what a device adds in one go, and just as long; a table whose
 * ids take several digits of a sort. */
static void frequent_ids_get_all_their_rows(void **state)
{
    enum { ROWS = 1500, WIDE = 70000 };
    static double want[2 * 12];
    mb_exec ex = exec_with(2);

    (void)state;
    for (int i = 0; i < 4; i++) {
        const int64_t cols = i % 2 == 0 ? 12 : 7;
        mb_tensor dy = random_matrix(ROWS, cols, 0, 1.0f), ids = indices(ROWS);
        mb_tensor dw = matrix(WIDE, cols, 0), again = matrix(WIDE, cols, 0);

        memset(want, 0, sizeof want);
        memset(dw.data, 0, (size_t)mb_tensor_bytes(&dw));
        memset(again.data, 0, (size_t)mb_tensor_bytes(&again));
        for (int64_t r = 0; r < ROWS; r++) {
            /* most rows 7 or, 64 of them, 65536 + 7: the same low digit; others once, some never */
            const int32_t id = r % 23 == 22 && r < 64 * 23 ? 65543
                               : r % 5 == 4                ? (int32_t)(WIDE - 1 - r)
                               : r % 11 == 3               ? -1
                                                           : 7;

            mb_i32(&ids)[r] = id;
            for (int64_t c = 0; c < cols; c++)
                want[(id == 7 ? 0 : 12) + c] += id == 7 || id == 65543 ? mb_row(&dy, r)[c] : 0.0;
        }
        RUN(&ex, embedding_bwd, &dw, &ids, &dy, -1);
        for (int64_t c = 0; c < cols; c++) {
            check_near(mb_row(&dw, 7)[c], want[c], 1e-4);
            check_near(mb_row(&dw, 65543)[c], want[12 + c], 1e-5);
            assert_true(mb_row(&dw, 8)[c] == 0.0f);
        }
        for (int64_t r = 0; r < ROWS; r++)
            if (mb_i32(&ids)[r] > 65543)
                assert_memory_equal(mb_row(&dw, mb_i32(&ids)[r]), mb_row(&dy, r), 4 * (size_t)cols);
        /* what an id gets does not depend on the rows of others */
        for (int64_t r = 0; r < ROWS; r++)
            if (mb_i32(&ids)[r] != 7)
                mb_i32(&ids)[r] = i / 2 == 0 ? 3 : -1;
        RUN(&ex, embedding_bwd, &again, &ids, &dy, -1);
        assert_memory_equal(mb_row(&again, 7), mb_row(&dw, 7), 4 * (size_t)cols);
        mb_arena_reset(memory);
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

/* A bias per head and distance from one per bucket, and its gradient, added to what is there. */
static void buckets_become_distances(void **state)
{
    enum { BUCKETS = 6, HEADS = 5, N = 300 };
    mb_exec ex = exec_with(2);
    mb_tensor w = random_matrix(BUCKETS, HEADS, 3, 1.0f), y = matrix(HEADS, N, 2);
    mb_tensor dw = random_matrix(BUCKETS, HEADS, 1, 1.0f), dy = random_matrix(HEADS, N, 4, 1.0f);
    mb_tensor ids = mb_tensor_1d(take(4 * N), MB_DTYPE_I32, N);
    double want[BUCKETS][HEADS];

    (void)state;
    for (int m = 0; m < N; m++)
        mb_i32(&ids)[m] = m * m % 7 < BUCKETS - 1 ? m * m % 7 : 0; /* the last never occurs */
    for (int b = 0; b < BUCKETS; b++)
        for (int h = 0; h < HEADS; h++)
            want[b][h] = (double)mb_row(&dw, b)[h];
    for (int m = 0; m < N; m++)
        for (int h = 0; h < HEADS; h++)
            want[mb_i32(&ids)[m]][h] += (double)mb_row(&dy, h)[m];
    RUN(&ex, bucket_bias_fwd, &y, &ids, &w);
    RUN(&ex, bucket_bias_bwd, &dw, &ids, &dy);
    for (int m = 0; m < N; m++)
        for (int h = 0; h < HEADS; h++)
            check_near(mb_row(&y, h)[m], mb_row(&w, mb_i32(&ids)[m])[h], 1e-6);
    for (int b = 0; b < BUCKETS; b++)
        for (int h = 0; h < HEADS; h++)
            check_near(mb_row(&dw, b)[h], want[b][h], 1e-4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(buckets_become_distances),
        KERNEL_TEST(rows_are_looked_up),
        KERNEL_TEST(table_gradient_adds_rows_in_order),
        KERNEL_TEST(frequent_ids_get_all_their_rows),
        KERNEL_TEST(gather_and_scatter_skip_negative_indices),
    };

    return cmocka_run_group_tests_name("kernels: embedding", tests, NULL, kernel_teardown);
}
