/* tests/unit/test_mel.c - log-mel features against the sums they stand for. How they compare with those
 * of transformers is in tests/peers/speech.py. */
#include <math.h>

#include "core/rng.h"
#include "data_test.h"
#include "recipes/media/mel.h"
#include "recipes/media/mel_config.h"

enum { FRAMES = 12, SAMPLES = FRAMES * MB_MEL_HOP };

static double to_hz(double mel)
{
    return mel < 15.0 ? 200.0 * mel / 3.0 : 1000.0 * pow(6.4, (mel - 15.0) / 27.0);
}

/* log10 of frame f's filter i, as the formula says it. */
static double plain(const double *x, int f, int i, int bins)
{
    const double step = (15.0 + 27.0 * log(8.0) / log(6.4)) / (bins + 1);
    const double low = to_hz(i * step), mid = to_hz((i + 1) * step), high = to_hz((i + 2) * step);
    double sum = 0.0;

    for (int k = 0; k <= 200; k++) {
        const double hz = 40.0 * k;
        const double w = fmax(0.0, fmin((hz - low) / (mid - low), (high - hz) / (high - mid)));
        double re = 0.0, im = 0.0;

        for (int n = 0; n < 400 && w > 0.0; n++) {
            int at = f * MB_MEL_HOP + n - 200;

            at = at < 0 ? -at : at >= SAMPLES ? 2 * (SAMPLES - 1) - at : at;
            const double y = x[at] * (0.5 - 0.5 * cos(2.0 * M_PI * n / 400.0));
            re += y * cos(2.0 * M_PI * k * n / 400.0);
            im -= y * sin(2.0 * M_PI * k * n / 400.0);
        }
        sum += w * 2.0 / (high - low) * (re * re + im * im);
    }
    return log10(fmax(sum, 1e-10));
}

static void compare(int bins, int64_t n, const float *sound)
{
    static double x[SAMPLES], want[FRAMES * 128];
    static float got[FRAMES * 128];
    double top = -10.0;
    mb_mel *m;

    for (int i = 0; i < SAMPLES; i++)
        x[i] = i < n ? (double)sound[i] : 0.0;
    for (int f = 0; f < FRAMES; f++)
        for (int i = 0; i < bins; i++)
            top = fmax(top, want[f * bins + i] = plain(x, f, i, bins));
    OK(mb_mel_new(bins, &m));
    mb_mel_compute(m, sound, n, FRAMES, got);
    for (int i = 0; i < FRAMES * bins; i++)
        if (!(fabs(got[i] - (fmax(want[i], top - 8.0) + 4.0) / 4.0) <= 1e-6))
            fail_msg("%d bins, %lld samples, frame %d, bin %d: %g, not %g", bins, (long long)n,
                     i / bins, i % bins, (double)got[i], (fmax(want[i], top - 8.0) + 4.0) / 4.0);
    mb_mel_free(m);
}

static void features_are_the_sums_of_the_formula(void **state)
{
    static const int64_t lengths[] = {SAMPLES, SAMPLES - 1, 700, 161, 1, 0};
    static float x[SAMPLES];

    for (int i = 0; i < SAMPLES; i++)
        x[i] = (float)(0.1 * mb_rng_normal(1, (uint64_t)i) + 0.5 * sin(0.3 * i));
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        compare(80, lengths[i], x);
        compare(128, lengths[i], x);
        compare(7, lengths[i], x);
    }
}

static void what_lies_behind_the_frames_does_not_count(void **state)
{
    static float x[SAMPLES + 500], a[FRAMES * 80], b[FRAMES * 80];
    mb_mel *m;

    for (int i = 0; i < SAMPLES + 500; i++)
        x[i] = (float)mb_rng_normal(2, (uint64_t)i);
    OK(mb_mel_new(80, &m));
    mb_mel_compute(m, x, SAMPLES, FRAMES, a);
    mb_mel_compute(m, x, SAMPLES + 500, FRAMES, b);
    assert_memory_equal(a, b, sizeof a);
    mb_mel_free(m);
}

static void a_number_of_bins_that_cannot_be_is_refused(void **state)
{
    mb_mel *m;

    assert_int_equal(mb_mel_new(0, &m), MB_EMODEL);
    mb_status_clear();
    assert_int_equal(mb_mel_new(257, &m), MB_EMODEL);
    assert_non_null(strstr(mb_status_sentence(), "257 mel bins, expected 1 to 256"));
    mb_status_clear();
}

static void a_processor_that_is_written_is_one_that_is_read(void **state)
{
    const char *odd = "{\"feature_size\": 80, \"n_fft\": 512}";

    OK(mb_mel_config_check(root, 80)); /* there is none */
    OK(mb_mel_config_write(NULL, 128, 30, root));
    OK(mb_mel_config_check(root, 128));
    assert_int_equal(mb_mel_config_check(root, 80), MB_ENOTSUP);
    assert_non_null(strstr(mb_status_sentence(), "feature_size is 128; 80 is supported"));
    mb_status_clear();
    write_file("preprocessor_config.json", odd, strlen(odd));
    assert_int_equal(mb_mel_config_check(root, 80), MB_ENOTSUP);
    assert_non_null(strstr(mb_status_sentence(), "n_fft is 512; 400 is supported"));
    mb_status_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_are_the_sums_of_the_formula),
        cmocka_unit_test(what_lies_behind_the_frames_does_not_count),
        cmocka_unit_test(a_number_of_bins_that_cannot_be_is_refused),
        cmocka_unit_test(a_processor_that_is_written_is_one_that_is_read),
    };

    return cmocka_run_group_tests_name("mel", tests, make_root, remove_root);
}
