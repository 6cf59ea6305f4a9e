/* tests/unit/test_kernels_magnitude.c - lengths of adapted rows, and columns scaled, against f64. */
#include "kernel_test.h"

static const struct {
    int64_t out, in, rank;
} layers[] = {{1, 1, 1}, {7, 3, 2}, {33, 70, 8}, {1030, 40, 3}, {64, 1100, 16}};

/* Row j of W + s B A, column c. */
static double adapted(const mb_tensor *w, bool tw, const mb_tensor *a, const mb_tensor *b, double s,
                      int64_t j, int64_t c)
{
    double sum = tw ? mb_row(w, c)[j] : mb_row(w, j)[c];

    for (int64_t k = 0; k < mb_cols(b); k++)
        sum += s * (double)mb_row(b, j)[k] * (double)mb_row(a, k)[c];
    return sum;
}

static void gains_are_magnitudes_over_lengths(void **state)
{
    (void)state;
    OK(mb_cpu_init()); /* for products */
    for (int i = 0; i < 2 * COUNT(layers); i++) {
        const int64_t out = layers[i / 2].out, in = layers[i / 2].in, rank = layers[i / 2].rank;
        const bool tw = i % 2 != 0;
        const float s = 1.5f;
        mb_exec ex = exec_with(team_sizes[i % 3]);
        mb_tensor w = random_matrix(tw ? in : out, tw ? out : in, 0, 1.0f);
        mb_tensor a = random_matrix(rank, in, 0, 0.3f), b = random_matrix(out, rank, 0, 0.3f);
        mb_tensor m = random_vector(out, 2.0f, 1.0f), gain = vector(out), rnorm = vector(out);
        mb_tensor wa = matrix(out, rank, 0), aa = matrix(rank, rank, 0);

        RUN(&ex, gemm, &wa, &w, tw, &a, true, 1.0f, 0.0f, NULL);
        RUN(&ex, gemm, &aa, &a, false, &a, true, 1.0f, 0.0f, NULL);
        RUN(&ex, magnitude_gain, &gain, &rnorm, &m, &w, tw, &b, &wa, &aa, s);
        for (int64_t j = 0; j < out; j++) {
            double squares = 0.0;

            for (int64_t c = 0; c < in; c++)
                squares += pow(adapted(&w, tw, &a, &b, s, j, c), 2);
            const double want = 1.0 / sqrt(squares);
            check_near(mb_f32(&rnorm)[j], want, 2e-5 * want);
            check_near(mb_f32(&gain)[j], mb_f32(&m)[j] * want, 1e-4 * want);
        }
        mb_arena_reset(memory);
    }
}

static void columns_are_scaled_and_their_products_added(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    FOR_EACH_SHAPE
    {
        mb_tensor x = random_matrix(rows, cols, gap, 1.0f),
                  dy = random_matrix(rows, cols, gap, 1.0f);
        mb_tensor y = acc ? random_matrix(rows, cols, gap, 1.0f) : matrix(rows, cols, gap);
        mb_tensor gain = random_vector(cols, 1.0f, 0.5f), bias = random_vector(cols, 0.0f, 1.0f);
        mb_tensor dm = random_vector(cols, 0.0f, 1.0f), old = copy_of(&y), dm0 = copy_of(&dm);
        const bool with_bias = !acc;

        RUN(&ex, scale_columns, &y, &x, &gain, with_bias ? &bias : NULL, acc);
        RUN(&ex, scale_columns_bwd, &dm, &dy, &x, &gain);
        for (int64_t c = 0; c < cols; c++) {
            double sum = 0.0, size = 1.0;

            for (int64_t r = 0; r < rows; r++) {
                const double product = (double)mb_row(&dy, r)[c] * mb_row(&x, r)[c];

                check_near(mb_row(&y, r)[c],
                           (acc ? mb_row(&old, r)[c] : 0.0) +
                               (double)mb_row(&x, r)[c] * mb_f32(&gain)[c] +
                               (with_bias ? mb_f32(&bias)[c] : 0.0),
                           2e-6 * (1 + fabs(mb_row(&x, r)[c])));
                sum += product;
                size += fabs(product);
            }
            check_near(mb_f32(&dm)[c], mb_f32(&dm0)[c] + sum * mb_f32(&gain)[c], 3e-6 * size);
        }
        check_gaps(&y);
    }
}

static void threads_do_not_change_bits(void **state)
{
    (void)state;
    mb_test_bits(true);
    mb_tensor x = random_matrix(131, 573, 0, 1.0f), dy = random_matrix(131, 573, 0, 1.0f);
    mb_tensor w = random_matrix(1030, 40, 0, 1.0f), b = random_matrix(1030, 3, 0, 1.0f);
    mb_tensor wa = random_matrix(1030, 3, 0, 1.0f), aa = random_matrix(3, 3, 0, 1.0f);
    mb_tensor m = random_vector(1030, 1.0f, 0.1f), g = random_vector(573, 1.0f, 0.1f);
    mb_tensor gain[3], dm[3];

    for (int i = 0; i < 3; i++) {
        mb_exec ex = exec_with(team_sizes[i]);
        mb_tensor rnorm = vector(1030);

        gain[i] = vector(1030);
        dm[i] = vector(573);
        RUN(&ex, fill, &dm[i], 0.0f);
        RUN(&ex, magnitude_gain, &gain[i], &rnorm, &m, &w, false, &b, &wa, &aa, 0.1f);
        RUN(&ex, scale_columns_bwd, &dm[i], &dy, &x, &g);
        check_same(&gain[0], &gain[i]);
        check_same(&dm[0], &dm[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(gains_are_magnitudes_over_lengths),
        KERNEL_TEST(columns_are_scaled_and_their_products_added),
        KERNEL_TEST(threads_do_not_change_bits),
    };

    return cmocka_run_group_tests(tests, NULL, kernel_teardown);
}
