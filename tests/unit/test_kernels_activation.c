/* tests/unit/test_kernels_activation.c - activations and gated units against f64 formulas. */
#include "kernel_test.h"

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static double value(mb_activation f, double x)
{
    switch (f) {
    case MB_ACT_SILU:
        return x * sigmoid(x);
    case MB_ACT_GELU:
        return 0.5 * x * erfc(-x / sqrt(2.0));
    case MB_ACT_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case MB_ACT_RELU:
        return x > 0 ? x : 0;
    default:
        return tanh(x);
    }
}

/* Central difference in f64; relu's corner is never hit by the inputs. */
static double slope(mb_activation f, double x)
{
    const double h = 1e-6;

    return (value(f, x + h) - value(f, x - h)) / (2 * h);
}

static void functions_and_slopes_agree_with_f64(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    for (int f = 0; f < MB_ACT_COUNT; f++) {
        FOR_EACH_SHAPE
        {
            mb_tensor x = random_matrix(rows, cols, gap, 3.0f), y = matrix(rows, cols, gap);
            mb_tensor dy = random_matrix(rows, cols, 0, 1.0f);
            mb_tensor dx = acc ? random_matrix(rows, cols, gap, 1.0f) : matrix(rows, cols, gap);
            mb_tensor old = copy_of(&dx);

            RUN(&ex, activation_fwd, &y, &x, (mb_activation)f);
            RUN(&ex, activation_bwd, &dx, &dy, &x, (mb_activation)f, acc);
            for (int64_t r = 0; r < rows; r++) {
                for (int64_t c = 0; c < cols; c++) {
                    const double in = mb_row(&x, r)[c], g = mb_row(&dy, r)[c];

                    check_near(mb_row(&y, r)[c], value(f, in), 4e-7 * (1 + fabs(in)));
                    check_near(mb_row(&dx, r)[c],
                               g * slope(f, in) + (acc ? mb_row(&old, r)[c] : 0.0),
                               2e-6 * (1 + fabs(g)));
                }
            }
            check_gaps(&y), check_gaps(&dx);
        }
    }
}

static void gated_units_agree_with_f64(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    for (int f = 0; f < MB_ACT_COUNT; f++) {
        FOR_EACH_SHAPE
        {
            mb_tensor gate = random_matrix(rows, cols, gap, 2.0f);
            mb_tensor up = random_matrix(rows, cols, gap, 1.0f), y = matrix(rows, cols, 0);
            mb_tensor dy = random_matrix(rows, cols, gap, 1.0f);
            mb_tensor dg = acc ? random_matrix(rows, cols, gap, 1.0f) : matrix(rows, cols, gap);
            mb_tensor du = acc ? random_matrix(rows, cols, 0, 1.0f) : matrix(rows, cols, 0);
            mb_tensor dg0 = copy_of(&dg), du0 = copy_of(&du);

            RUN(&ex, glu_fwd, &y, &gate, &up, (mb_activation)f);
            RUN(&ex, glu_bwd, &dg, &du, &dy, &gate, &up, (mb_activation)f, acc);
            for (int64_t r = 0; r < rows; r++) {
                for (int64_t c = 0; c < cols; c++) {
                    const double a = mb_row(&gate, r)[c], b = mb_row(&up, r)[c];
                    const double g = mb_row(&dy, r)[c];
                    const double size = (1 + fabs(a)) * (1 + fabs(b)) * (1 + fabs(g));

                    check_near(mb_row(&y, r)[c], value(f, a) * b, 1e-6 * size);
                    check_near(mb_row(&dg, r)[c],
                               g * b * slope(f, a) + (acc ? mb_row(&dg0, r)[c] : 0.0), 2e-6 * size);
                    check_near(mb_row(&du, r)[c],
                               g * value(f, a) + (acc ? mb_row(&du0, r)[c] : 0.0), 2e-6 * size);
                }
            }
            check_gaps(&dg);
        }
    }
}

static void extremes_stay_finite_and_nan_stays_nan(void **state)
{
    mb_exec ex = exec_with(1);
    const float in[] = {-1e30f, -200.0f, -89.0f, -0.0f, 0.0f, 89.0f, 200.0f, 1e10f};
    mb_tensor x = mb_tensor_2d(take(36), MB_DTYPE_F32, 1, 9), y = matrix(1, 9, 0);
    mb_tensor dy = matrix(1, 9, 0), dx = matrix(1, 9, 0);

    (void)state;
    memcpy(x.data, in, sizeof in);
    mb_f32(&x)[8] = NAN;
    RUN(&ex, fill, &dy, 1.0f);
    for (int f = 0; f < MB_ACT_COUNT; f++) {
        RUN(&ex, activation_fwd, &y, &x, (mb_activation)f);
        RUN(&ex, activation_bwd, &dx, &dy, &x, (mb_activation)f, false);
        for (int i = 0; i < 8; i++) {
            check_near(mb_f32(&y)[i], value(f, in[i]), 1e-6 * fabs(in[i]));
            if (f != MB_ACT_RELU || in[i] != 0.0f)
                check_near(mb_f32(&dx)[i],
                           in[i] > 80    ? (f == MB_ACT_TANH ? 0 : 1)
                           : in[i] < -80 ? 0
                                         : slope(f, in[i]),
                           1e-5);
        }
        assert_true(isnan(mb_f32(&y)[8]));
    }
}

static void absent_gradients_are_left_out(void **state)
{
    mb_test_bits(true);
    mb_exec ex = exec_with(2);
    mb_tensor gate = random_matrix(40, 500, 0, 1.0f), up = random_matrix(40, 500, 0, 1.0f);
    mb_tensor dy = random_matrix(40, 500, 0, 1.0f);
    mb_tensor a = matrix(40, 500, 0), b = matrix(40, 500, 0), a2 = copy_of(&a), b2 = copy_of(&b);

    (void)state;
    RUN(&ex, glu_bwd, &a, &b, &dy, &gate, &up, MB_ACT_SILU, false);
    RUN(&ex, glu_bwd, &a2, NULL, &dy, &gate, &up, MB_ACT_SILU, false);
    RUN(&ex, glu_bwd, NULL, &b2, &dy, &gate, &up, MB_ACT_SILU, false);
    RUN(&ex, activation_bwd, NULL, &dy, &gate, MB_ACT_SILU, false);
    check_same(&a, &a2);
    check_same(&b, &b2);
}

/* A packed batch is one long array; alone, the row begins at another element of a vector. */
static void a_row_does_not_depend_on_its_place(void **state)
{
    (void)state;
    ON_THE_CPU_ONLY("a device has one type in a call");
    for (int f = 0; f < MB_ACT_COUNT; f++) {
        mb_tensor x = random_matrix(103, 333, 0, 3.0f), y = matrix(103, 333, 0);
        mb_tensor dy = random_matrix(103, 333, 0, 1.0f), dx = matrix(103, 333, 0);

        for (int i = 0; i < 3; i++) {
            mb_exec ex = exec_with(team_sizes[i]);

            RUN(&ex, activation_fwd, &y, &x, (mb_activation)f);
            RUN(&ex, activation_bwd, &dx, &dy, &x, (mb_activation)f, false);
            for (int64_t r = 0; r < 103; r++) {
                mb_tensor x1 = mb_tensor_rows(&x, r, 1), dy1 = mb_tensor_rows(&dy, r, 1);
                mb_tensor y1 = matrix(1, 333, 0), dx1 = matrix(1, 333, 0);

                RUN(&ex, activation_fwd, &y1, &x1, (mb_activation)f);
                RUN(&ex, activation_bwd, &dx1, &dy1, &x1, (mb_activation)f, false);
                assert_memory_equal(y1.data, mb_row(&y, r), 333 * 4);
                assert_memory_equal(dx1.data, mb_row(&dx, r), 333 * 4);
            }
        }
        mb_arena_reset(memory);
    }
}

/* Where all is bf16, numbers stay in registers; what is computed from the same numbers in f32, and
 * rounded after, goes by strips. In place, and with a part of the gradients, too. */
static void bf16_directly_gives_the_bits_of_strips(void **state)
{
    enum { ROWS = 37, COLS = 1111 };
    const int64_t n = ROWS * COLS;

    (void)state;
    ON_THE_CPU_ONLY("a device has one type in a call");
    for (int f = 0; f < MB_ACT_COUNT; f++) {
        mb_exec ex = exec_with(team_sizes[f % 3]);
        mb_tensor wide[3], in[3], out[2], half[2];

        for (int i = 0; i < 3; i++) {
            wide[i] = random_matrix(ROWS, COLS, 0, i == 0 ? 4.0f : 1.0f);
            in[i] = mb_tensor_2d(take(2 * n), MB_DTYPE_BF16, ROWS, COLS);
            RUN(&ex, cast, &in[i], &wide[i]);
            RUN(&ex, cast, &wide[i], &in[i]);
        }
        for (int i = 0; i < 2; i++) {
            out[i] = mb_tensor_2d(take(2 * n), MB_DTYPE_BF16, ROWS, COLS);
            half[i] = mb_tensor_2d(take(2 * n), MB_DTYPE_BF16, ROWS, COLS);
        }
        RUN(&ex, glu_fwd, &out[0], &in[0], &in[1], (mb_activation)f);
        RUN(&ex, glu_fwd, &half[0], &wide[0], &wide[1], (mb_activation)f);
        assert_memory_equal(out[0].data, half[0].data, (size_t)(2 * n));
        RUN(&ex, activation_fwd, &out[0], &in[0], (mb_activation)f);
        RUN(&ex, activation_fwd, &half[0], &wide[0], (mb_activation)f);
        assert_memory_equal(out[0].data, half[0].data, (size_t)(2 * n));
        RUN(&ex, activation_bwd, &out[0], &in[2], &in[0], (mb_activation)f, false);
        RUN(&ex, activation_bwd, &half[0], &wide[2], &wide[0], (mb_activation)f, false);
        assert_memory_equal(out[0].data, half[0].data, (size_t)(2 * n));
        for (int i = 0; i < 2; i++)
            RUN(&ex, glu_bwd, i == 0 ? &half[0] : NULL, i == 1 ? &half[1] : NULL, &wide[2],
                &wide[0], &wide[1], (mb_activation)f, false);
        RUN(&ex, glu_bwd, &in[2], &out[1], &in[2], &in[0], &in[1], (mb_activation)f, false);
        assert_memory_equal(in[2].data, half[0].data, (size_t)(2 * n));
        assert_memory_equal(out[1].data, half[1].data, (size_t)(2 * n));
        mb_arena_reset(memory);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(functions_and_slopes_agree_with_f64),
        KERNEL_TEST(gated_units_agree_with_f64),
        KERNEL_TEST(extremes_stay_finite_and_nan_stays_nan),
        KERNEL_TEST(absent_gradients_are_left_out),
        KERNEL_TEST(a_row_does_not_depend_on_its_place),
        KERNEL_TEST(bf16_directly_gives_the_bits_of_strips),
    };

    return cmocka_run_group_tests_name("kernels: activation", tests, NULL, kernel_teardown);
}
