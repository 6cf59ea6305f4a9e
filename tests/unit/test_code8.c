/* tests/unit/test_code8.c - 8-bit blocks against the paper's map, and that coding what was decoded
 * gives the same block.
 */
#include <float.h>

#include "core/code8.h"
#include "kernel_test.h"

enum { BLOCK = MB_CODE8_BLOCK };

static const mb_dtype types[] = {MB_DTYPE_DYN8, MB_DTYPE_DYNU8};

/* The values of the paper's signed and unsigned maps, in double precision. */
static int paper_map(bool is_signed, double map[BLOCK])
{
    int n = 0;

    map[n++] = 0.0;
    map[n++] = 1.0;
    for (int e = 0; e < 7; e++) {
        const int items = is_signed ? 1 << e : 2 << e;

        for (int i = 0; i < items; i++) {
            const double from = 0.1 + 0.9 * i / items, to = 0.1 + 0.9 * (i + 1) / items;

            map[n++] = pow(10.0, e - 6) * (from + to) / 2.0;
            if (is_signed) {
                map[n] = -map[n - 1];
                n++;
            }
        }
    }
    return n;
}

static double nearest_in(const double *map, double x)
{
    double best = map[0];

    for (int i = 1; i < BLOCK; i++)
        if (fabs(map[i] - x) < fabs(best - x))
            best = map[i];
    return best;
}

static void the_values_are_the_papers(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        const bool is_signed = types[t] == MB_DTYPE_DYN8;
        double map[BLOCK];

        assert_int_equal(paper_map(is_signed, map), BLOCK);
        for (int c = 0; c < BLOCK; c++) {
            const float v = is_signed ? mb_code8_signed(c) : mb_code8_unsigned(c);

            check_near((double)v, nearest_in(map, (double)v), 1e-6 * fabs((double)v));
            assert_int_equal(is_signed ? mb_code8_from_signed(v) : mb_code8_from_unsigned(v), c);
        }
    }
}

static void a_number_gets_the_nearest_value(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        const bool is_signed = types[t] == MB_DTYPE_DYN8;
        double map[BLOCK];

        paper_map(is_signed, map);
        for (int i = 0; i < 200000; i++) {
            const uint32_t w = mb_rng_u32(5, (uint64_t)i);
            const float a = i % 2 == 0 ? mb_rng_unit(w) : expf(-16.0f * mb_rng_unit(w));
            const float x = is_signed && w % 2 != 0 ? -a : a;
            const double got = (double)(is_signed ? mb_code8_signed(mb_code8_from_signed(x))
                                                  : mb_code8_unsigned(mb_code8_from_unsigned(x)));
            const double best = nearest_in(map, (double)x);

            if (!is_signed && best == 0.0)
                assert_true((got > 0.0) == (x > 0.0f)); /* nothing vanishes */
            else if (fabs(fabs(got - (double)x) - fabs(best - (double)x)) > 4e-6 * fabs((double)x))
                fail_msg("%.9g became %.9g, nearer is %.9g", (double)x, got, best);
        }
    }
}

static void check_block(const float *x, mb_dtype d)
{
    const bool is_signed = d == MB_DTYPE_DYN8;
    float once[BLOCK], twice[BLOCK], most = 0.0f;
    mb_code8 a, b;

    for (int i = 0; i < BLOCK; i++)
        most = fmaxf(most, is_signed ? fabsf(x[i]) : x[i]);
    mb_code8_write(&a, d, x, BLOCK);
    mb_code8_read(once, &a, d, BLOCK);
    mb_code8_write(&b, d, once, BLOCK);
    mb_code8_read(twice, &b, d, BLOCK);
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_equal(once, twice, sizeof once);
    assert_true(fabsf(a.scale) == (most < 0x1p-100f ? 0.0f : most));
    for (int i = 0; i < BLOCK; i++) {
        const double want = is_signed || x[i] > 0.0f ? (double)x[i] : 0.0;
        /* half a step is 0.007 in the highest decade, and 0.0225 where it begins, seen from below */
        const double room = most < 0x1p-100f ? 0x1p-100 : 0.0075 * (double)most;

        check_near((double)once[i], want, room);
        assert_true(fabsf(once[i]) <= most);
        if (!is_signed && most >= 0x1p-100f)
            assert_true((once[i] > 0.0f) == (x[i] > 0.0f));
    }
}

static void coding_what_was_decoded_changes_nothing(void **state)
{
    static const float scales[] = {1.0f,      3.4e38f,          FLT_MAX,    1e-30f,    1e-31f,
                                   0x1p-100f, 0x1.fffffep-101f, 0x1p-126f,  0x1p-149f, 1e-12f,
                                   0.1f,      1.00000012f,      0.99999994f};
    float x[BLOCK];

    (void)state;
    for (int t = 0; t < 2; t++)
        for (int s = 0; s < COUNT(scales); s++)
            for (int round = 0; round < 400; round++) {
                const uint64_t key = mb_rng_key(9, (uint64_t)s, (uint64_t)round);

                for (int i = 0; i < BLOCK; i++) {
                    const uint32_t w = mb_rng_u32(key, (uint64_t)i);
                    const float u = mb_rng_unit(w);
                    const float a = round % 3 == 0 ? u : expf(-20.0f * u * (float)(round % 5));

                    x[i] = (w % 2 != 0 ? -a : a) * scales[s];
                }
                check_block(x, types[t]);
            }
}

static void make_hard(int which, int at, float *x)
{
    for (int i = 0; i < BLOCK; i++) {
        switch (which) {
        case 3: /* one huge among small ones */
            x[i] = i == at ? -1e20f : 1e-6f * (float)(i - 128);
            break;
        case 6: /* all alike */
            x[i] = -0.7f;
            break;
        case 7: /* subnormal numbers, alone and beside normal ones */
            x[i] = (float)(i - 100) * 0x1p-149f;
            break;
        case 8:
            x[i] = i == at ? 0x1p-100f : (float)(i - 100) * 0x1p-149f;
            break;
        case 9:
            x[i] = -0.0f;
            break;
        case 10: /* all values, and the middles between them */
            x[i] = (mb_code8_signed(i) + mb_code8_signed((i + at) % BLOCK)) * 0.5f;
            break;
        case 11:
            x[i] = mb_code8_unsigned(i) * 3.7f;
            break;
        default: /* 0: all zero */
            x[i] = 0.0f;
        }
    }
    if (which == 1 || which == 2) /* one huge */
        x[at] = which == 1 ? FLT_MAX : -FLT_MAX;
    if (which == 4 || which == 5) { /* equal magnitudes, either sign first */
        x[at] = which == 4 ? 2.5f : -2.5f;
        x[(at + 1) % BLOCK] = -x[at];
    }
}

static void hard_blocks_too(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++)
        for (int which = 0; which < 12; which++)
            for (int at = 0; at < BLOCK; at += 51) {
                float x[BLOCK];

                make_hard(which, at, x);
                check_block(x, types[t]);
            }
}

static void numbers_and_blocks_may_share_their_end(void **state)
{
    float x[4 * BLOCK], want[4 * BLOCK], got[4 * BLOCK];
    mb_code8 code[4];
    mb_tensor t = mb_tensor_1d(code, MB_DTYPE_DYN8, 4 * BLOCK);

    (void)state;
    for (int i = 0; i < 4 * BLOCK; i++)
        x[i] = next_normal();
    assert_int_equal(mb_tensor_bytes(&t), sizeof code);
    OK(mb_device_write_f32(NULL, &t, x));
    mb_code8_read(want, code, MB_DTYPE_DYN8, 4 * BLOCK);
    OK(mb_device_read_f32(NULL, got, &t));
    assert_memory_equal(got, want, sizeof want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(the_values_are_the_papers),
        KERNEL_TEST(a_number_gets_the_nearest_value),
        KERNEL_TEST(coding_what_was_decoded_changes_nothing),
        KERNEL_TEST(hard_blocks_too),
        KERNEL_TEST(numbers_and_blocks_may_share_their_end),
    };

    return cmocka_run_group_tests_name("8-bit blocks", tests, NULL, kernel_teardown);
}
