/* tests/unit/test_kernels_cast.c - every half, boundaries of rounding, integers, refusals. */
#include "kernel_test.h"

static mb_tensor values(mb_dtype d, int64_t n)
{
    return mb_tensor_1d(take(mb_dtype_bytes(d, n)), d, n);
}

static uint32_t bits_of(float f)
{
    uint32_t u;

    memcpy(&u, &f, 4);
    return u;
}

static float float_of(uint32_t u)
{
    float f;

    memcpy(&f, &u, 4);
    return f;
}

static void every_half_is_decoded_as_the_scalar_functions_do(void **state)
{
    mb_exec ex = exec_with(2);
    mb_tensor h = values(MB_DTYPE_F16, 65536), b = values(MB_DTYPE_BF16, 65536);
    mb_tensor fh = vector(65536), fb = vector(65536);

    (void)state;
    for (int i = 0; i < 65536; i++)
        ((uint16_t *)h.data)[i] = ((uint16_t *)b.data)[i] = (uint16_t)i;
    RUN(&ex, cast, &fh, &h);
    RUN(&ex, cast, &fb, &b);
    for (int i = 0; i < 65536; i++) {
        assert_int_equal(bits_of(mb_f32(&fh)[i]), bits_of(mb_f16_to_f32((uint16_t)i)));
        assert_int_equal(bits_of(mb_f32(&fb)[i]), (uint32_t)i << 16);
    }
    /* and back: the same half, but for NaN, which stays one */
    RUN(&ex, cast, &h, &fh);
    for (int i = 0; i < 65536; i++) {
        const uint16_t back = ((uint16_t *)h.data)[i];

        if (isnan(mb_f32(&fh)[i]))
            assert_true(isnan(mb_f16_to_f32(back)));
        else
            assert_int_equal(back, i);
    }
}

/* Nearest half by search, ties to even: independent of bit tricks. */
static uint16_t nearest_half(float f)
{
    uint16_t best = 0;
    double least = INFINITY;

    if (fabs((double)f) >= 65520.0)
        return f < 0 ? 0xfc00 : 0x7c00;
    for (uint32_t i = 0; i < 0x7c00; i++) {
        const double d = fabs(fabs((double)f) - (double)mb_f16_to_f32((uint16_t)i));

        if (d < least || (d == least && i % 2 == 0)) {
            least = d;
            best = (uint16_t)i;
        }
    }
    return (uint16_t)(best | (signbit(f) ? 0x8000 : 0));
}

static void floats_round_to_the_nearest_half_ties_to_even(void **state)
{
    enum { N = 600 };
    mb_exec ex = exec_with(1);
    mb_tensor x = vector(N), h = values(MB_DTYPE_F16, N), b = values(MB_DTYPE_BF16, N);
    const float fixed[] = {0.0f,       -0.0f,     65504.0f,     65519.996f,   65520.0f,
                           -65520.0f,  0x1p-24f,  0x1p-25f,     -0x1p-25f,    0x1.000002p-25f,
                           0x1.8p-24f, 0x1p-14f,  0x1.ffcp-15f, 0x1.ffep-15f, 1e-30f,
                           INFINITY,   -INFINITY, 2049.0f,      2051.0f,      3.4e38f};

    (void)state;
    for (int i = 0; i < N; i++) {
        const int e = (int)mb_rng_below(1, (uint64_t)i, 46) - 28;

        mb_f32(&x)[i] = i < COUNT(fixed) ? fixed[i] : ldexpf(next_normal(), e);
    }
    /* exact ties of random halves */
    for (int i = 300; i < N; i++) {
        const uint16_t k = (uint16_t)mb_rng_below(2, (uint64_t)i, 0x7bff);
        const float a = mb_f16_to_f32(k), c = mb_f16_to_f32((uint16_t)(k + 1));

        mb_f32(&x)[i] = (a + c) / 2 * (i % 2 == 0 ? 1.0f : -1.0f);
    }
    RUN(&ex, cast, &h, &x);
    RUN(&ex, cast, &b, &x);
    for (int i = 0; i < N; i++) {
        const float f = mb_f32(&x)[i];
        const uint32_t low = bits_of(f) & ~0xffffu, rest = bits_of(f) & 0xffffu;
        const bool up = rest > 0x8000u || (rest == 0x8000u && (low >> 16 & 1) != 0);

        assert_int_equal(((uint16_t *)h.data)[i], nearest_half(f));
        assert_int_equal(((uint16_t *)h.data)[i], mb_f32_to_f16(f));
        assert_int_equal(((uint16_t *)b.data)[i], (low >> 16) + (up ? 1 : 0));
    }
}

static void nan_stays_nan(void **state)
{
    mb_exec ex = exec_with(1);
    const uint32_t nan[] = {0x7f800001u, 0x7fc00000u, 0xff8fffffu, 0xffffffffu, 0x7f80ffffu};
    mb_tensor x = vector(5), h = values(MB_DTYPE_F16, 5), b = values(MB_DTYPE_BF16, 5);

    (void)state;
    for (int i = 0; i < 5; i++)
        mb_f32(&x)[i] = float_of(nan[i]);
    memcpy(x.data, nan, sizeof nan);
    RUN(&ex, cast, &h, &x);
    RUN(&ex, cast, &b, &x);
    for (int i = 0; i < 5; i++) {
        assert_true(isnan(mb_f16_to_f32(((uint16_t *)h.data)[i])));
        assert_true(isnan(mb_bf16_to_f32(((uint16_t *)b.data)[i])));
    }
}

static void doubles_and_integers_become_floats(void **state)
{
    mb_exec ex = exec_with(1);
    mb_tensor y = vector(3), d = values(MB_DTYPE_F64, 3), back = values(MB_DTYPE_F64, 3);
    const double doubles[] = {1.0 + 0x1p-24, 1.0 + 0x1.8p-23, -1e300};
    const struct {
        mb_dtype type;
        const void *data;
        float want[3];
    } cases[] = {
        {MB_DTYPE_F64, doubles, {1.0f, 1.0f + 0x1p-22f, -INFINITY}},
        {MB_DTYPE_I8, (int8_t[]){-128, 127, 5}, {-128, 127, 5}},
        {MB_DTYPE_U8, (uint8_t[]){255, 0, 7}, {255, 0, 7}},
        {MB_DTYPE_I16, (int16_t[]){-32768, 32767, 1}, {-32768, 32767, 1}},
        {MB_DTYPE_U16, (uint16_t[]){65535, 2, 3}, {65535, 2, 3}},
        {MB_DTYPE_I32, (int32_t[]){INT32_MIN, 16777217, 9}, {-2147483648.0f, 16777216, 9}},
        {MB_DTYPE_U32, (uint32_t[]){UINT32_MAX, 1, 2}, {4294967296.0f, 1, 2}},
        {MB_DTYPE_I64, (int64_t[]){INT64_MIN, 1ll << 40, -3}, {-0x1p63f, 0x1p40f, -3}},
        {MB_DTYPE_U64, (uint64_t[]){UINT64_MAX, 4, 5}, {0x1p64f, 4, 5}},
        {MB_DTYPE_BOOL, (uint8_t[]){1, 0, 1}, {1, 0, 1}},
    };

    (void)state;
    for (int i = 0; i < COUNT(cases); i++) {
        mb_tensor x = values(cases[i].type, 3);

        memcpy(x.data, cases[i].data, (size_t)mb_tensor_bytes(&x));
        RUN(&ex, cast, &y, &x);
        assert_memory_equal(y.data, cases[i].want, 12);
    }
    RUN(&ex, cast, &back, &y);
    assert_true(((double *)back.data)[0] == 1.0);
    RUN(&ex, cast, &d, &back);
    assert_memory_equal(d.data, back.data, 24);
}

static void integers_change_width_or_say_what_is_lost(void **state)
{
    mb_exec ex = exec_with(1);
    mb_tensor narrow = values(MB_DTYPE_I32, 3), wide = values(MB_DTYPE_I64, 3);
    mb_tensor f64 = values(MB_DTYPE_F64, 3);

    (void)state;
    memcpy(narrow.data, (int32_t[]){-5, INT32_MAX, INT32_MIN}, 12);
    RUN(&ex, cast, &wide, &narrow);
    assert_memory_equal(wide.data, ((int64_t[]){-5, INT32_MAX, INT32_MIN}), 24);

    ON_THE_CPU_ONLY("a kernel cannot say that a value does not fit");
    memset(narrow.data, 0, 12);
    RUN(&ex, cast, &narrow, &wide);
    assert_memory_equal(narrow.data, ((int32_t[]){-5, INT32_MAX, INT32_MIN}), 12);

    ((int64_t *)wide.data)[1] = 1ll << 31;
    assert_int_equal(MB_RUN(&ex, cast, &narrow, &wide), MB_EDATA);
    assert_string_equal(mb_status_sentence(), "cast: a value of the I64 tensor does not fit I32");
    mb_status_clear();
    assert_int_equal(MB_RUN(&ex, cast, &f64, &wide), MB_ENOTSUP);
    assert_string_equal(mb_status_sentence(), "cast: no conversion from I64 to F64");
    mb_status_clear();
}

static void gaps_between_rows_are_respected(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    FOR_EACH_SHAPE
    {
        mb_tensor x = random_matrix(rows, cols, gap, 1.0f), y = matrix(rows, cols, 3);
        mb_tensor whole = mb_tensor_2d(take(2 * rows * (cols + 2)), MB_DTYPE_BF16, rows, cols + 2);
        mb_tensor h = mb_tensor_columns(&whole, 1, cols);

        (void)acc;
        RUN(&ex, cast, &h, &x);
        RUN(&ex, cast, &y, &h);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++)
                assert_true(mb_row(&y, r)[c] == mb_bf16_to_f32(mb_f32_to_bf16(mb_row(&x, r)[c])));
        check_gaps(&y);
    }
}

static void floats_split_into_halves_and_back(void **state)
{
    enum { N = 5003 };
    static const uint32_t odd[] = {0,           0x80000000u, 0x3f808000u, 0x3f818000u, 0x3f807fffu,
                                   0xbf808000u, 0x7f7fffffu, 0x7f800000u, 1,           0x00008000u};
    static const uint16_t nearest[] = {0,      0x8000, 0x3f81, 0x3f82, 0x3f80,
                                       0xbf81, 0x7f80, 0x7f80, 0,      1};

    (void)state;
    for (int threads = 1; threads <= 3; threads += 2) {
        mb_exec ex = exec_with(threads);
        mb_tensor x = random_matrix(1, N, 0, 3.0f), back = matrix(1, N, 0);
        mb_tensor hi = values(MB_DTYPE_BF16, N), lo = values(MB_DTYPE_U16, N);
        mb_tensor alone = values(MB_DTYPE_BF16, N);

        x = mb_tensor_1d(x.data, MB_DTYPE_F32, N);
        back = mb_tensor_1d(back.data, MB_DTYPE_F32, N);
        memcpy(x.data, odd, sizeof odd);
        RUN(&ex, split_bf16, &hi, &lo, &x);
        RUN(&ex, split_bf16, &alone, NULL, &x);
        RUN(&ex, join_bf16, &back, &hi, &lo);
        assert_memory_equal(back.data, x.data, N * sizeof(float));
        assert_memory_equal(alone.data, hi.data, N * sizeof(uint16_t));
        assert_memory_equal(hi.data, nearest, sizeof nearest);
        for (int i = COUNT(odd); i < N; i++) {
            const float was = mb_f32(&x)[i], rounded = mb_bf16_to_f32(((uint16_t *)hi.data)[i]);

            assert_true(fabsf(rounded - was) <= 0x1p-8f * fabsf(was));
        }
    }
}

/* Whatever its bits: a device makes NaN of all ones, which must not round up to a zero. */
static void nan_stays_nan_in_halves(void **state)
{
    static const uint32_t nan[] = {0x7fc00000u, 0xffc00000u, 0x7fffffffu, 0xffffffffu,
                                   0x7f800001u, 0xff800001u, 0x7fff8000u, 0x7fbfffffu};
    enum { N = COUNT(nan) };
    mb_exec ex = exec_with(1);
    mb_tensor x = matrix(1, N, 0), back = matrix(1, N, 0);
    mb_tensor hi = values(MB_DTYPE_BF16, N), lo = values(MB_DTYPE_U16, N);
    mb_tensor alone = values(MB_DTYPE_BF16, N);

    (void)state;
    x = mb_tensor_1d(x.data, MB_DTYPE_F32, N);
    back = mb_tensor_1d(back.data, MB_DTYPE_F32, N);
    memcpy(x.data, nan, sizeof nan);
    RUN(&ex, split_bf16, &hi, &lo, &x);
    RUN(&ex, split_bf16, &alone, NULL, &x);
    RUN(&ex, join_bf16, &back, &hi, &lo);
    for (int i = 0; i < N; i++) {
        assert_true(isnan(mb_f32(&back)[i]));
        assert_true(isnan(mb_bf16_to_f32(((uint16_t *)hi.data)[i])));
        assert_true(isnan(mb_bf16_to_f32(((uint16_t *)alone.data)[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(every_half_is_decoded_as_the_scalar_functions_do),
        KERNEL_TEST(floats_round_to_the_nearest_half_ties_to_even),
        KERNEL_TEST(nan_stays_nan),
        KERNEL_TEST(doubles_and_integers_become_floats),
        KERNEL_TEST(integers_change_width_or_say_what_is_lost),
        KERNEL_TEST(gaps_between_rows_are_respected),
        KERNEL_TEST(floats_split_into_halves_and_back),
        KERNEL_TEST(nan_stays_nan_in_halves),
    };

    return cmocka_run_group_tests_name("kernels: cast", tests, NULL, kernel_teardown);
}
