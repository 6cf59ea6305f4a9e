/* tests/unit/test_kernels_unfold.c - windows of a convolution, and the way back. */
#include "kernel_test.h"

/* Sequences of odd lengths, one window only, windows larger than the stride and smaller, rows that end
 * within a sequence. */
static const struct {
    int64_t rows;
    mb_unfold u;
} cases[] = {
    {1, {1, 1, 3, 1, 1}},      {6, {6, 6, 3, 1, 1}},    {100, {100, 50, 3, 2, 1}},
    {303, {101, 51, 3, 2, 1}}, {70, {20, 10, 3, 2, 1}}, {35, {7, 3, 2, 2, 0}},
    {64, {16, 4, 8, 4, 3}},
};
static const int64_t widths[] = {1, 7, 80, 384, 1031};

/* for (each case, width, gap): `u`, `rows`, `cols`, `gap`, `out` are in scope */
#define FOR_EACH_CASE                                                                           \
    for (int64_t i_ = 0; i_ < COUNT(cases) * COUNT(widths) * 2; i_++)                           \
        for (int64_t rows = cases[i_ / 10].rows, cols = widths[i_ / 2 % 5], gap = gaps[i_ % 2], \
                     out = output_rows(&cases[i_ / 10].u, rows), once_ = 1;                     \
             once_ != 0; once_ = 0, mb_arena_reset(memory))

static int64_t output_rows(const mb_unfold *u, int64_t rows)
{
    return rows / u->in_len * u->out_len + (rows % u->in_len + u->stride - 1) / u->stride;
}

/* The row of x that window i has at place j; -1: none. */
static int64_t place(const mb_unfold *u, int64_t rows, int64_t i, int64_t j)
{
    const int64_t s = i / u->out_len, r = i % u->out_len * u->stride + j - u->pad;

    return r < 0 || r >= u->in_len || s * u->in_len + r >= rows ? -1 : s * u->in_len + r;
}

static void windows_lie_side_by_side(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    FOR_EACH_CASE
    {
        const mb_unfold *u = &cases[i_ / 10].u;
        mb_tensor x = random_matrix(rows, cols, gap, 1.0f), y = matrix(out, cols * u->kernel, gap);

        RUN(&ex, unfold, &y, &x, u);
        for (int64_t i = 0; i < out; i++)
            for (int64_t c = 0; c < cols * u->kernel; c++) {
                const int64_t r = place(u, rows, i, c % u->kernel);

                assert_true(mb_row(&y, i)[c] == (r < 0 ? 0.0f : mb_row(&x, r)[c / u->kernel]));
            }
        check_gaps(&y);
    }
}

static void a_row_gets_back_what_its_windows_hold(void **state)
{
    (void)state;
    for (int team = 0; team < 3; team++)
        for (int acc = 0; acc < 2; acc++) {
            mb_exec ex = exec_with(team_sizes[team]);

            FOR_EACH_CASE
            {
                const mb_unfold *u = &cases[i_ / 10].u;
                mb_tensor dy = random_matrix(out, cols * u->kernel, gap, 1.0f);
                mb_tensor dx = acc ? random_matrix(rows, cols, gap, 1.0f) : matrix(rows, cols, gap);
                mb_tensor want = copy_of(&dx);

                for (int64_t r = 0; r < rows && !acc; r++)
                    memset(mb_row(&want, r), 0, 4 * (size_t)cols);
                for (int64_t j = 0; j < u->kernel; j++)
                    for (int64_t i = 0; i < out; i++) {
                        const int64_t r = place(u, rows, i, j);

                        for (int64_t c = 0; c < cols && r >= 0; c++)
                            mb_row(&want, r)[c] += mb_row(&dy, i)[c * u->kernel + j];
                    }
                RUN(&ex, unfold_bwd, &dx, &dy, u, acc != 0);
                check_same(&dx, &want);
                check_gaps(&dx);
                RUN(&ex, unfold_bwd, NULL, &dy, u, acc != 0);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(windows_lie_side_by_side),
        KERNEL_TEST(a_row_gets_back_what_its_windows_hold),
    };

    return cmocka_run_group_tests_name("kernels_unfold", tests, NULL, kernel_teardown);
}
