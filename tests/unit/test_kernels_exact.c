/* tests/unit/test_kernels_exact.c - grain norms, exact accumulation, largest magnitude. */
#include "kernel_test.h"

static mb_tensor integers(int64_t n)
{
    return mb_tensor_1d(take(8 * n), MB_DTYPE_I64, n);
}

static mb_tensor zeros(int64_t n)
{
    return mb_tensor_1d(take(4 * n), MB_DTYPE_F32, n);
}

static void grains_are_summed_in_f64_on_any_number_of_threads(void **state)
{
    const int64_t n = 40 * MB_GRAIN + 777;
    mb_tensor x = random_vector(n, 0.0f, 2.0f);
    double first[41];

    (void)state;
    for (int i = 0; i < 3; i++) {
        mb_exec ex = exec_with(team_sizes[i]);
        double got[41];
        mb_tensor out = mb_tensor_1d(got, MB_DTYPE_F64, 41);

        RUN(&ex, grain_sumsq, &out, &x);
        if (i == 0)
            memcpy(first, got, sizeof got);
        assert_memory_equal(got, first, sizeof got);
        for (int g = 0; g < 41; g++) {
            double want = 0;

            for (int64_t k = g * MB_GRAIN; k < n && k < (g + 1) * MB_GRAIN; k++)
                want += (double)mb_f32(&x)[k] * mb_f32(&x)[k];
            check_near(got[g], want, 1e-12 * want);
        }
    }
}

static void parts_in_any_order_give_the_same_integers(void **state)
{
    const int64_t n = 50001;
    mb_tensor part[3], sum[2];

    (void)state;
    for (int k = 0; k < 3; k++)
        part[k] = random_vector(n, 0.0f, 1e-3f);
    for (int order = 0; order < 2; order++) {
        mb_exec ex = exec_with(team_sizes[order + 1]);
        mb_tensor out = zeros(3);

        sum[order] = integers(n);
        for (int k = 0; k < 3; k++) {
            mb_tensor g = copy_of(&part[order == 0 ? k : 2 - k]);

            RUN(&ex, exact_add, &sum[order], &g, 40, 0x1p60, &out);
            for (int64_t i = 0; i < n; i++)
                assert_true(mb_f32(&g)[i] == 0.0f);
        }
        assert_true(mb_f32(&out)[1] == 0.0f && mb_f32(&out)[2] == 0.0f);
    }
    assert_memory_equal(sum[0].data, sum[1].data, 8 * (size_t)n);

    mb_exec ex = exec_with(2);
    mb_tensor g = vector(n);
    RUN(&ex, exact_take, &g, &sum[0], 0x1p-40);
    for (int64_t i = 0; i < n; i++) {
        double want = 0;

        for (int k = 0; k < 3; k++)
            want += rint((double)mb_f32(&part[k])[i] * 0x1p40) * 0x1p-40;
        assert_true(mb_f32(&g)[i] == (float)want);
        assert_true(((int64_t *)sum[0].data)[i] == 0);
    }
}

static void rounding_is_to_even(void **state)
{
    mb_exec ex = exec_with(1);
    mb_tensor g = vector(6), acc = integers(6), out = zeros(3);
    const float x[] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 0.49999997f};

    (void)state;
    memcpy(g.data, x, sizeof x);
    ((int64_t *)acc.data)[1] = 1ll << 50;
    RUN(&ex, exact_add, &acc, &g, 0, 0x1p62, &out);
    assert_memory_equal(acc.data, ((int64_t[]){0, (1ll << 50) + 2, 2, 0, -2, 0}), 48);
    assert_true(mb_f32(&out)[0] == 2.5f);
}

static void bad_values_add_nothing_and_raise_flags(void **state)
{
    const float bad[] = {INFINITY, -INFINITY, NAN};

    (void)state;
    for (int k = 0; k < 3; k++) {
        mb_exec ex = exec_with(2);
        mb_tensor g = random_vector(40000, 0.0f, 1.0f), acc = integers(40000), out = zeros(3);

        mb_f32(&g)[23456] = bad[k];
        mb_f32(&out)[0] = 3.0f;
        RUN(&ex, exact_add, &acc, &g, 20, 0x1p50, &out);
        assert_true(mb_f32(&out)[0] >= 3.0f && isfinite(mb_f32(&out)[0]));
        assert_true(mb_f32(&out)[1] == 1.0f && mb_f32(&out)[2] == 0.0f);
        assert_true(((int64_t *)acc.data)[23456] == 0 && mb_f32(&g)[23456] == 0.0f);
        assert_true(((int64_t *)acc.data)[23455] != 0);
        mb_arena_reset(memory);
    }
    mb_exec ex = exec_with(1);
    mb_tensor g = zeros(4), acc = integers(4), out = zeros(3);
    mb_f32(&g)[0] = 1024.0f;
    mb_f32(&g)[1] = -1024.0f;
    mb_f32(&g)[2] = 1023.9f;
    mb_f32(&g)[3] = 3e38f;
    RUN(&ex, exact_add, &acc, &g, 10, 0x1p20, &out);
    assert_memory_equal(acc.data, ((int64_t[]){0, 0, 1048474, 0}), 32);
    assert_true(mb_f32(&out)[0] == 3e38f && mb_f32(&out)[1] == 0.0f && mb_f32(&out)[2] == 1.0f);
}

static void absmax_sees_the_largest_finite_value(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        mb_exec ex = exec_with(team_sizes[i]);
        mb_tensor x = random_matrix(120, 333, 3, 1.0f), out = zeros(2);

        mb_row(&x, 77)[331] = -42.0f;
        RUN(&ex, absmax, &out, &x);
        assert_true(mb_f32(&out)[0] == 42.0f && mb_f32(&out)[1] == 0.0f);
        mb_row(&x, 3)[3] = NAN;
        mb_row(&x, 77)[331] = 1.0f;
        RUN(&ex, absmax, &out, &x);
        assert_true(mb_f32(&out)[0] == 42.0f && mb_f32(&out)[1] == 1.0f);
    }
}

/* Whatever runs this test gives the CPU's bits: the 16 lanes of a grain, rounding, maxima, flags. */
static void bits_are_those_of_the_cpu(void **state)
{
    const int64_t n = 3 * MB_GRAIN + 1003;
    mb_exec ex[] = {mb_cpu_exec(scratch, 1), exec_with(1)};
    mb_tensor x = random_vector(n, 0.0f, 1.0f);
    mb_tensor sum[2][2], acc[2], g[2], taken[2], out[2], most[2];

    (void)state;
    for (int64_t i = 0; i < n; i++)
        mb_f32(&x)[i] *= expf(20.0f * next_normal());
    mb_f32(&x)[17] = 1e-45f, mb_f32(&x)[18] = -0.0f, mb_f32(&x)[19] = INFINITY;
    for (int k = 0; k < 2; k++) {
        /* addresses that are not those of whole vectors, too */
        for (int64_t off = 0; off < 2; off++) {
            mb_tensor from = mb_tensor_1d(mb_f32(&x) + 20 + off, MB_DTYPE_F32, n - 20 - off);

            sum[k][off] = mb_tensor_1d(take(8 * 4), MB_DTYPE_F64, 4);
            RUN(&ex[k], grain_sumsq, &sum[k][off], &from);
            assert_memory_equal(sum[k][off].data, sum[0][off].data, 32);
        }
        acc[k] = integers(n), g[k] = copy_of(&x), out[k] = zeros(3), most[k] = zeros(2);
        taken[k] = vector(n);
        RUN(&ex[k], absmax, &most[k], &x);
        RUN(&ex[k], exact_add, &acc[k], &g[k], 30, 0x1p61, &out[k]);
        g[k] = copy_of(&x);
        RUN(&ex[k], exact_add, &acc[k], &g[k], 29, 0x1p60, &out[k]);
    }
    assert_memory_equal(acc[1].data, acc[0].data, 8 * (size_t)n);
    for (int k = 0; k < 2; k++)
        RUN(&ex[k], exact_take, &taken[k], &acc[k], 0x1.123456789p-30);
    check_same(&taken[1], &taken[0]), check_same(&g[1], &g[0]);
    check_same(&out[1], &out[0]), check_same(&most[1], &most[0]);
    assert_true(mb_f32(&out[0])[1] == 1.0f && mb_f32(&out[0])[2] == 1.0f);
}

static void merged_sums_are_those_of_all_parts(void **state)
{
    const int64_t n = 5003;
    mb_exec ex = exec_with(3);
    mb_tensor a = integers(n), b = integers(n), whole = integers(n), out = zeros(3);

    (void)state;
    for (int part = 0; part < 2; part++) {
        mb_tensor g = random_vector(n, 0.0f, 1.0f), same = copy_of(&g);
        RUN(&ex, exact_add, part == 0 ? &a : &b, &g, 40, 0x1p61, &out);
        RUN(&ex, exact_add, &whole, &same, 40, 0x1p61, &out);
    }
    RUN(&ex, exact_merge, &a, &b);
    assert_memory_equal(a.data, whole.data, 8 * (size_t)n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(grains_are_summed_in_f64_on_any_number_of_threads),
        KERNEL_TEST(parts_in_any_order_give_the_same_integers),
        KERNEL_TEST(rounding_is_to_even),
        KERNEL_TEST(bad_values_add_nothing_and_raise_flags),
        KERNEL_TEST(absmax_sees_the_largest_finite_value),
        KERNEL_TEST(bits_are_those_of_the_cpu),
        KERNEL_TEST(merged_sums_are_those_of_all_parts),
    };

    return cmocka_run_group_tests_name("kernels: exact", tests, NULL, kernel_teardown);
}
