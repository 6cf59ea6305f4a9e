/* tests/unit/test_kernels_rope.c - rotary embedding: values, inverse, partial rotation. */
#include "kernel_test.h"

enum { POSITIONS = 64, HEADS = 5 };

struct tables {
    mb_tensor cosine, sine, positions;
};

static struct tables tables_of(int64_t rows, int64_t half)
{
    struct tables t = {matrix(POSITIONS, half, 0), matrix(POSITIONS, half, 0),
                       mb_tensor_1d(take(4 * rows), MB_DTYPE_I32, rows)};

    for (int64_t p = 0; p < POSITIONS; p++) {
        for (int64_t i = 0; i < half; i++) {
            const double angle = (double)p * pow(10000.0, -(double)i / (double)half);

            mb_row(&t.cosine, p)[i] = (float)cos(angle);
            mb_row(&t.sine, p)[i] = (float)sin(angle);
        }
    }
    for (int64_t r = 0; r < rows; r++)
        mb_i32(&t.positions)[r] = (int32_t)(r * 7 % POSITIONS);
    return t;
}

static void pairs_are_rotated_and_the_rest_is_copied(void **state)
{
    const int64_t dims[][2] = {{2, 1}, {64, 32}, {64, 16}, {10, 3}, {96, 48}};

    (void)state;
    for (int i = 0; i < 3 * COUNT(dims) * 4; i++) {
        mb_exec ex = exec_with(team_sizes[i % 3]);
        const int64_t hd = dims[i / 12][0], half = dims[i / 12][1], rows = 101;
        const bool inverse = i / 3 % 2 != 0, acc = i / 6 % 2 != 0;
        struct tables t = tables_of(rows, half);
        const int64_t gap = i % 2 != 0 ? 5 : 8;
        mb_tensor x = random_matrix(rows, HEADS * hd, gap, 1.0f);
        mb_tensor y =
            acc ? random_matrix(rows, HEADS * hd, gap, 1.0f) : matrix(rows, HEADS * hd, gap);
        mb_tensor old = copy_of(&y);

        RUN(&ex, rope, &y, &x, &t.cosine, &t.sine, &t.positions, hd, inverse, acc);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t p = mb_i32(&t.positions)[r];

            for (int64_t c = 0; c < HEADS * hd; c++) {
                const float *head = mb_row(&x, r) + c / hd * hd;
                const int64_t k = c % hd;
                double want = head[k];

                if (k < 2 * half) {
                    const double cs = mb_row(&t.cosine, p)[k % half];
                    const double sn = mb_row(&t.sine, p)[k % half] * (inverse ? -1.0 : 1.0);

                    want = k < half ? head[k] * cs - head[k + half] * sn
                                    : head[k] * cs + head[k - half] * sn;
                }
                check_near(mb_row(&y, r)[c], want + (acc ? mb_row(&old, r)[c] : 0.0), 2e-6);
            }
        }
        check_gaps(&y);
        mb_arena_reset(memory);
    }
}

static void inverse_in_place_gives_back_the_input(void **state)
{
    mb_exec ex = exec_with(2);
    struct tables t = tables_of(90, 20);
    mb_tensor x = random_matrix(90, HEADS * 64, 0, 1.0f), old = copy_of(&x);

    (void)state;
    RUN(&ex, rope, &x, &x, &t.cosine, &t.sine, &t.positions, 64, false, false);
    RUN(&ex, rope, &x, &x, &t.cosine, &t.sine, &t.positions, 64, true, false);
    for (int64_t i = 0; i < 90 * HEADS * 64; i++)
        check_near(mb_f32(&x)[i], mb_f32(&old)[i], 2e-6);
}

/* Heads of a row in several strips, and heads that are too wide for one. */
static void wide_rows_and_wide_heads(void **state)
{
    ON_THE_CPU_ONLY("it has strips");
    mb_exec ex = exec_with(2);

    (void)state;
    for (int64_t hd = 576; hd <= 1536; hd += 960) {
        struct tables t = tables_of(3, hd / 2);
        mb_tensor x = random_matrix(3, 3 * hd, 0, 1.0f), y = matrix(3, 3 * hd, 0), back = x;
        mb_tensor h = mb_tensor_2d(take(6 * 3 * hd), MB_DTYPE_BF16, 3, 3 * hd), want = h;

        RUN(&ex, cast, &h, &x), RUN(&ex, cast, &x, &h);
        RUN(&ex, rope, &y, &x, &t.cosine, &t.sine, &t.positions, hd, false, false);
        if (hd > 1024) {
            assert_int_equal(
                MB_RUN(&ex, rope, &h, &h, &t.cosine, &t.sine, &t.positions, hd, false, false),
                MB_ENOTSUP);
            continue;
        }
        want.data = take(6 * 3 * hd);
        RUN(&ex, cast, &want, &y);
        RUN(&ex, rope, &h, &h, &t.cosine, &t.sine, &t.positions, hd, false, false);
        assert_memory_equal(h.data, want.data, 6 * 3 * (size_t)hd);
        RUN(&ex, rope, &y, &y, &t.cosine, &t.sine, &t.positions, hd, true, false);
        for (int64_t i = 0; i < 3 * 3 * hd; i++)
            check_near(mb_f32(&y)[i], mb_f32(&back)[i], 4e-6);
    }
}

static void no_rows_is_fine(void **state)
{
    mb_exec ex = exec_with(2);
    struct tables t = tables_of(0, 4);
    mb_tensor x = matrix(0, 16, 0), y = matrix(0, 16, 0);

    (void)state;
    RUN(&ex, rope, &y, &x, &t.cosine, &t.sine, &t.positions, 8, false, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(pairs_are_rotated_and_the_rest_is_copied),
        KERNEL_TEST(inverse_in_place_gives_back_the_input),
        KERNEL_TEST(wide_rows_and_wide_heads),
        KERNEL_TEST(no_rows_is_fine),
    };

    return cmocka_run_group_tests_name("kernels: rope", tests, NULL, kernel_teardown);
}
