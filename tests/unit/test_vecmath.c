/* tests/unit/test_vecmath.c - exp, tanh and erf against libm in double precision. */
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
static void all_three(float *restrict e, float *restrict t, float *restrict r,
                      const float *restrict x, int n)
{
    for (int i = 0; i < n; i++)
        e[i] = mb_expf(x[i]);
    for (int i = 0; i < n; i++)
        t[i] = mb_tanhf(x[i]);
    for (int i = 0; i < n; i++)
        r[i] = mb_erff(x[i]);
}

static double ulps(float got, double want)
{
    const float next = nextafterf((float)fabs(want), INFINITY);

    return fabs((double)got - want) / (double)(next - (float)fabs(want));
}

static void values_agree_with_libm(void **state)
{
    static float x[CHUNK], e[CHUNK], t[CHUNK], r[CHUNK];
    double worst_e = 0, worst_t = 0, worst_r = 0, worst_trel = 0;

    /* every 512th float from -128 to 128 */
    for (uint32_t top = 0; top < 2; top++) {
        for (uint32_t from = 0; from < 0x43000000u; from += 512u * CHUNK) {
            for (uint32_t i = 0; i < CHUNK; i++)
                x[i] = mb_float_of_bits((from + 512u * i) | top << 31);
            all_three(e, t, r, x, CHUNK);
            for (int i = 0; i < CHUNK; i++) {
                const double v = x[i];

                if (v > -87.3 && v < 88.7)
                    worst_e = fmax(worst_e, ulps(e[i], exp(v)));
                if (v < -104)
                    assert_true(e[i] == 0.0f);
                worst_t = fmax(worst_t, fabs(t[i] - tanh(v)));
                if (fabs(v) > 1e-30)
                    worst_trel = fmax(worst_trel, fabs(t[i] / tanh(v) - 1));
                worst_r = fmax(worst_r, fabs(r[i] - erf(v)));
            }
        }
    }
    print_message("exp %.2f ulp, tanh %.2e (relative %.2e), erf %.2e\n", worst_e, worst_t,
                  worst_trel, worst_r);
    assert_true(worst_e < 2.0);
    assert_true(worst_t < 1.0e-7);
    assert_true(worst_trel < 4e-7);
    assert_true(worst_r < 1.0e-7);
}

static void special_values(void **state)
{
    assert_true(mb_expf(-INFINITY) == 0.0f);
    assert_true(mb_expf(0.0f) == 1.0f);
    assert_true(isinf(mb_expf(INFINITY)) && isinf(mb_expf(89.0f)));
    assert_true(isnan(mb_expf(NAN)) && isnan(mb_tanhf(NAN)) && isnan(mb_erff(NAN)));
    assert_true(mb_tanhf(INFINITY) == 1.0f && mb_tanhf(-INFINITY) == -1.0f);
    assert_true(mb_erff(INFINITY) == 1.0f && mb_erff(-INFINITY) == -1.0f);
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
