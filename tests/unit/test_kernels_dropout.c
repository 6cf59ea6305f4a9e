/* tests/unit/test_kernels_dropout.c - the mask against the definition, element by element. */
#include "kernel_test.h"

static mb_dropout dropout_of(float p, int64_t rows)
{
    int32_t *ordinal = take(4 * rows), *position = take(4 * rows);

    for (int64_t r = 0; r < rows; r++) {
        ordinal[r] = (int32_t)(1000 + r / 5);
        position[r] = (int32_t)(r % 5);
    }
    return (mb_dropout){.p = p,
                        .seed = 42,
                        .site = MB_SITE_MODEL + 3,
                        .step = 17,
                        .ordinal = ordinal,
                        .position = position};
}

static bool kept(const mb_dropout *d, int64_t r, int64_t c)
{
    const mb_rng_block b = mb_philox(mb_rng_key(d->seed, d->site, 0), (uint32_t)d->ordinal[r],
                                     d->step, (uint32_t)d->position[r], (uint32_t)(c / 4));

    return mb_rng_unit(b.w[c % 4]) >= d->p;
}

static void the_mask_is_the_documented_function(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        mb_exec ex = exec_with(team_sizes[i]);

        FOR_EACH_SHAPE
        {
            const mb_dropout d = dropout_of(0.3f, rows);
            mb_tensor x = random_matrix(rows, cols, gap, 1.0f);
            mb_tensor y = acc ? random_matrix(rows, cols, gap, 1.0f) : matrix(rows, cols, gap);
            mb_tensor old = copy_of(&y);

            RUN(&ex, dropout, &y, &x, &d, acc);
            for (int64_t r = 0; r < rows; r++) {
                for (int64_t c = 0; c < cols; c++) {
                    const float part =
                        kept(&d, r, c) ? mb_row(&x, r)[c] * (1.0f / (1.0f - d.p)) : 0;

                    assert_true(acc ? mb_is_sum(mb_row(&y, r)[c], mb_row(&old, r)[c], part)
                                    : mb_row(&y, r)[c] == part);
                }
            }
            check_gaps(&y);
        }
    }
}

static void zero_keeps_all_one_keeps_none_half_keeps_half(void **state)
{
    mb_exec ex = exec_with(2);
    mb_tensor x = matrix(100, 1000, 0), y = matrix(100, 1000, 0);
    mb_dropout d = dropout_of(0.0f, 100);
    int64_t n = 0;

    (void)state;
    RUN(&ex, fill, &x, 3.0f);
    RUN(&ex, dropout, &y, &x, &d, false);
    check_same(&y, &x);
    d.p = 0.5f;
    RUN(&ex, dropout, &y, &x, &d, false);
    for (int64_t i = 0; i < 100000; i++)
        n += mb_f32(&y)[i] == 6.0f;
    assert_true(n > 49200 && n < 50800); /* five standard deviations */
    d.p = 1.0f;
    RUN(&ex, dropout, &x, &x, &d, false); /* in place */
    for (int64_t i = 0; i < 100000; i++)
        assert_true(mb_f32(&x)[i] == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(the_mask_is_the_documented_function),
        KERNEL_TEST(zero_keeps_all_one_keeps_none_half_keeps_half),
    };

    return cmocka_run_group_tests_name("kernels: dropout", tests, NULL, kernel_teardown);
}
