/* tests/unit/test_strip.c - conversions of rows to f32 and back (core/cpu/strip.h). */
#include "core/cpu/strip.h"
#include "kernel_test.h"

static const mb_dtype halves[] = {MB_DTYPE_BF16, MB_DTYPE_F16};

static float widened(uint16_t h, mb_dtype type)
{
    return type == MB_DTYPE_BF16 ? mb_bf16_to_f32(h) : mb_f16_to_f32(h);
}

static uint16_t narrowed(float f, mb_dtype type)
{
    return type == MB_DTYPE_BF16 ? mb_f32_to_bf16(f) : mb_f32_to_f16(f);
}

static void every_half_is_widened_exactly(void **state)
{
    enum { ALL = 1 << 16 };
    uint16_t *h = take(2 * ALL);
    float *f = take(4 * ALL);

    (void)state;
    for (int i = 0; i < ALL; i++)
        h[i] = (uint16_t)i;
    for (int k = 0; k < COUNT(halves); k++) {
        mb_cpu_widen(f, h, halves[k], ALL);
        for (int i = 0; i < ALL; i++) {
            const float want = widened(h[i], halves[k]);

            assert_memory_equal(&f[i], &want, sizeof want);
        }
    }
}

/* Ties, one below and one above them, and any bits at all, which have NaNs and subnormal numbers. */
static void floats_are_rounded_as_one_by_one(void **state)
{
    enum { SIZE = 1 << 20 };
    float *f = take(4 * SIZE);
    uint16_t *h = take(2 * SIZE);

    (void)state;
    for (uint32_t i = 0; i < SIZE; i++) {
        const mb_rng_block any = mb_philox(7, i, 0, 0, 0);
        const uint32_t near = (i & 0xffffu) << 16 | 0x7fffu, half = (any.w[1] & ~0x1fffu) | 0xfffu;
        const uint32_t bits = i % 3 == 0 ? any.w[0] : (i % 3 == 1 ? near : half) + (i >> 16) % 3;

        memcpy(&f[i], &bits, sizeof bits);
    }
    for (int k = 0; k < COUNT(halves); k++) {
        mb_cpu_narrow(h, halves[k], f, SIZE);
        for (int i = 0; i < SIZE; i++)
            assert_int_equal(h[i], narrowed(f[i], halves[k]));
    }
}

/* Vectors and what is left over round alike, and nothing beyond is written. */
static void any_length_from_any_place_gives_the_same(void **state)
{
    float f[200], back[200];
    uint16_t h[200];

    (void)state;
    for (int i = 0; i < 200; i++)
        f[i] = (float)(i * 7919 % 2003) / 1000.0f - 1.0f;
    for (int k = 0; k < COUNT(halves); k++) {
        for (int n = 0; n <= 130; n++) {
            for (int from = 0; from < 20; from += 3) {
                memset(h, 0xff, sizeof h), memset(back, 0xff, sizeof back);
                mb_cpu_narrow(h + from, halves[k], f + from, n);
                mb_cpu_widen(back + from, h + from, halves[k], n);
                for (int i = 0; i < 200; i++) {
                    const bool in = i >= from && i < from + n;

                    assert_int_equal(h[i], in ? narrowed(f[i], halves[k]) : 0xffff);
                    assert_true(in ? back[i] == widened(h[i], halves[k]) : isnan(back[i]));
                }
            }
        }
    }
}

static void a_strip_of_f32_is_the_tensor_itself(void **state)
{
    mb_tensor t = random_matrix(3, 40, 2, 1.0f);
    mb_strip strip;
    mb_kept kept = {.from = NULL};

    (void)state;
    assert_ptr_equal(mb_strip_read(strip, &t, 2, 7, 30), mb_row(&t, 2) + 7);
    assert_ptr_equal(mb_kept_read(&kept, &t, 2, 7, 30), mb_row(&t, 2) + 7);
    assert_ptr_equal(mb_strip_open(strip, &t, 1, 0, 40, true), mb_row(&t, 1));
    assert_null(mb_strip_read(strip, NULL, 0, 0, 1));
    assert_null(mb_kept_read(&kept, NULL, 0, 0, 1));
    assert_null(mb_strip_open(strip, NULL, 0, 0, 1, true));
}

static void what_is_written_into_a_strip_is_rounded_when_it_is_closed(void **state)
{
    uint16_t data[2 * 8] = {0};
    mb_tensor t = mb_tensor_2d(data, MB_DTYPE_BF16, 2, 8);
    mb_strip strip;
    mb_kept kept = {.from = NULL};

    (void)state;
    for (int round = 0; round < 2; round++) {
        float *y = mb_strip_open(strip, &t, 1, 3, 2, round == 1);

        for (int i = 0; i < 2; i++)
            y[i] = (round == 1 ? y[i] : 0.0f) + 1.0f / 3.0f;
        mb_strip_close(y, &t, 1, 3, 2);
    }
    const float third = mb_bf16_to_f32(mb_f32_to_bf16(1.0f / 3.0f));
    const uint16_t want = mb_f32_to_bf16(third + 1.0f / 3.0f);
    for (int i = 0; i < 16; i++)
        assert_int_equal(data[i], i == 11 || i == 12 ? want : 0);
    /* kept: read once */
    assert_true(mb_kept_read(&kept, &t, 1, 3, 2)[1] == mb_bf16_to_f32(want));
    data[12] = 0;
    assert_true(mb_kept_read(&kept, &t, 1, 3, 2)[1] == mb_bf16_to_f32(want));
    assert_true(mb_kept_read(&kept, &t, 1, 4, 1)[0] == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(every_half_is_widened_exactly),
        KERNEL_TEST(floats_are_rounded_as_one_by_one),
        KERNEL_TEST(any_length_from_any_place_gives_the_same),
        KERNEL_TEST(a_strip_of_f32_is_the_tensor_itself),
        KERNEL_TEST(what_is_written_into_a_strip_is_rounded_when_it_is_closed),
    };

    return cmocka_run_group_tests_name("strips", tests, NULL, kernel_teardown);
}
