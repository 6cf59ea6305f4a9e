/* tests/unit/test_vecmath.c - exp, tanh and the normal distribution against libm in double precision. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/cpu/cpu.h"
#include "core/cpu/vecmath.h"

enum { CHUNK = 4096 };

MB_CPU_CLONES
static void all_of_them(float *restrict e, float *restrict t, float *restrict r,
                        float *restrict density, const float *restrict x, int n)
{
    for (int i = 0; i < n; i++)
        e[i] = mb_expf(x[i]);
    for (int i = 0; i < n; i++)
        t[i] = mb_tanhf(x[i]);
    for (int i = 0; i < n; i++)
        r[i] = mb_normalf(x[i], density + i);
}

static double ulps(float got, double want)
{
    const float next = nextafterf((float)fabs(want), INFINITY);

    return fabs((double)got - want) / (double)(next - (float)fabs(want));
}

static void values_agree_with_libm(void **state)
{
    static float x[CHUNK], e[CHUNK], t[CHUNK], r[CHUNK], d[CHUNK];
    double worst_e = 0, worst_t = 0, worst_r = 0, worst_trel = 0, worst_rrel = 0, worst_d = 0;

    /* every 512th float from -128 to 128 */
    for (uint32_t top = 0; top < 2; top++) {
        for (uint32_t from = 0; from < 0x43000000u; from += 512u * CHUNK) {
            for (uint32_t i = 0; i < CHUNK; i++)
                x[i] = mb_float_of_bits((from + 512u * i) | top << 31);
            all_of_them(e, t, r, d, x, CHUNK);
            for (int i = 0; i < CHUNK; i++) {
                const double v = x[i];

                if (v > -87.3 && v < 88.7)
                    worst_e = fmax(worst_e, ulps(e[i], exp(v)));
                if (v < -104)
                    assert_true(e[i] == 0.0f);
                worst_t = fmax(worst_t, fabs(t[i] - tanh(v)));
                if (fabs(v) > 1e-30)
                    worst_trel = fmax(worst_trel, fabs(t[i] / tanh(v) - 1));
                const double below = 0.5 * erfc(-v * M_SQRT1_2);

                worst_r = fmax(worst_r, fabs(r[i] - below));
                if (below > 1e-18)
                    worst_rrel = fmax(worst_rrel, fabs(r[i] / below - 1));
                worst_d = fmax(worst_d, fabs(d[i] - exp(-0.5 * v * v) / sqrt(2 * M_PI)));
            }
        }
    }
    print_message("exp %.2f ulp, tanh %.2e (relative %.2e), normal %.2e (relative %.2e, density "
                  "%.2e)\n",
                  worst_e, worst_t, worst_trel, worst_r, worst_rrel, worst_d);
    assert_true(worst_e < 2.0);
    assert_true(worst_t < 1.0e-7);
    assert_true(worst_trel < 4e-7);
    assert_true(worst_r < 2.0e-7);
    assert_true(worst_rrel < 3e-6);
    assert_true(worst_d < 1.0e-7);
}

static void special_values(void **state)
{
    float density;

    assert_true(mb_expf(-INFINITY) == 0.0f);
    assert_true(mb_expf(0.0f) == 1.0f);
    assert_true(isinf(mb_expf(INFINITY)) && isinf(mb_expf(89.0f)));
    assert_true(isnan(mb_expf(NAN)) && isnan(mb_tanhf(NAN)) && isnan(mb_normalf(NAN, &density)));
    assert_true(mb_tanhf(INFINITY) == 1.0f && mb_tanhf(-INFINITY) == -1.0f);
    assert_true(mb_normalf(INFINITY, &density) == 1.0f && density == 0.0f);
    assert_true(mb_normalf(-INFINITY, &density) == 0.0f && density == 0.0f);
    assert_true(mb_normalf(0.0f, &density) == 0.5f && mb_normalf(-0.0f, &density) == 0.5f);
    assert_true(mb_expf(-88.0f) > 0.0f && mb_expf(-103.0f) > 0.0f);
}

static void lane_sums_are_sums(void **state)
{
    float a[100], b[100];
    double dot = 0, sum = 0;

    for (int n = 0; n <= 100; n++) {
        dot = sum = 0;
        for (int i = 0; i < n; i++) {
            a[i] = sinf((float)i * 1.7f);
            b[i] = cosf((float)i * 0.3f);
            dot += (double)a[i] * b[i];
            sum += a[i];
        }
        assert_true(fabs(mb_dotf(a, b, n) - dot) < 1e-5);
        assert_true(fabs(mb_sumf(a, n) - sum) < 1e-5);
    }
    a[77] = 9.0f;
    assert_true(mb_maxf(a, 100) == 9.0f && mb_maxf(a, 77) < 1.5f);
    assert_true(isinf(mb_maxf(a, 0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_agree_with_libm),
        cmocka_unit_test(special_values),
        cmocka_unit_test(lane_sums_are_sums),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
