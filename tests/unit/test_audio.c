/* tests/unit/test_audio.c - sound files of every kind that is written here, the resampler against
 * exact sines, damaged files. FLAC, OGG and MP3 are in tests/peers/speech.py. */
#include <math.h>

#include "recipes/media/audio.h"
#include "tests/unit/data_test.h"

static void put(char **at, const void *x, size_t n)
{
    memcpy(*at, x, n);
    *at += n;
}

static void put32(char **at, uint32_t x)
{
    put(at, &x, 4);
}

static void put16(char **at, uint32_t x)
{
    put(at, &x, 2);
}

/* A WAV of n frames, 16 bits or float; the data chunk claims `claim` bytes (0: what it has). */
static const char *write_wav(const char *name, int rate, int channels, bool real, const float *x,
                             int64_t n, uint32_t claim)
{
    const int bytes = real ? 4 : 2;
    const uint32_t size = (uint32_t)(n * channels * bytes);
    char *text = malloc(44 + size), *at = text;

    put(&at, "RIFF", 4);
    put32(&at, 36 + size);
    put(&at, "WAVEfmt ", 8);
    put32(&at, 16);
    put16(&at, real ? 3 : 1);
    put16(&at, (uint32_t)channels);
    put32(&at, (uint32_t)rate);
    put32(&at, (uint32_t)(rate * channels * bytes));
    put16(&at, (uint32_t)(channels * bytes));
    put16(&at, (uint32_t)(8 * bytes));
    put(&at, "data", 4);
    put32(&at, claim != 0 ? claim : size);
    for (int64_t i = 0; i < n * channels; i++) {
        const int16_t s = (int16_t)lrintf(x[i] * 32767.0f);

        put(&at, real ? (const void *)&x[i] : (const void *)&s, (size_t)bytes);
    }
    const char *path = write_file(name, text, (size_t)(at - text));

    free(text);
    return path;
}

static float *sine(double hz, int rate, int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x);

    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(0.5 * sin(2.0 * M_PI * hz * (double)i / rate));
    return x;
}

/* The largest difference from the exact sine at 16 kHz, away from the ends, in dB of its size; hz 0:
 * the largest sample. */
static double error_db(const float *x, int64_t n, double hz)
{
    double worst = 0.0;

    for (int64_t i = 800; i < n - 800; i++)
        worst = fmax(worst, fabs((double)x[i] - 0.5 * sin(2.0 * M_PI * hz * (double)i / 16000.0)));
    return 20.0 * log10(worst / 0.5 + 1e-30);
}

static void a_sine_at_any_rate_is_the_same_sine_at_16_khz(void **state)
{
    static const int rates[] = {8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000};

    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++)
        for (double hz = 200.0; hz < 7300.0 && hz < 0.45 * rates[i]; hz += 800.0) {
            float *x = sine(hz, rates[i], rates[i]), *y;
            const char *path = write_wav("sine.wav", rates[i], 1, true, x, rates[i], 0);
            int64_t n;

            OK(mb_audio_read(path, 2.0, &y, &n));
            assert_int_equal(n, 16000);
            if (error_db(y, n, hz) > (hz < 3000.0 ? -110.0 : -60.0)) /* -60 dB: 0.01 dB of gain */
                fail_msg("%g Hz at %d Hz: %.1f dB", hz, rates[i], error_db(y, n, hz));
            mb_free(y);
            free(x);
        }
}

static void what_would_alias_is_gone(void **state)
{
    static const double tones[] = {8800.0, 10000.0, 15000.0, 21000.0};

    for (size_t i = 0; i < sizeof tones / sizeof tones[0]; i++) {
        float *x = sine(tones[i], 44100, 44100), *y;
        const char *path = write_wav("high.wav", 44100, 1, true, x, 44100, 0);
        int64_t n;

        OK(mb_audio_read(path, 2.0, &y, &n));
        assert_true(error_db(y, n, 0.0) < -100.0);
        mb_free(y);
        free(x);
    }
}

static void channels_are_averaged(void **state)
{
    static const float x[] = {0.5f, -0.25f, 1.0f, 0.5f, -0.5f, 0.5f};
    float *y;
    int64_t n;

    OK(mb_audio_read(write_wav("stereo.wav", 16000, 2, true, x, 3, 0), 1.0, &y, &n));
    assert_int_equal(n, 3);
    assert_true(y[0] == 0.125f && y[1] == 0.75f && y[2] == 0.0f);
    mb_free(y);
}

static void the_header_says_what_reading_gives(void **state)
{
    static const int rates[] = {8000, 11025, 22050, 44100, 47999};
    mb_audio_info info;

    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++)
        for (int64_t n = 1; n < 3000; n = n * 3 + 1) {
            float *x = sine(440.0, rates[i], n), *y;
            const char *path = write_wav("short.wav", rates[i], 1, false, x, n, 0);
            int64_t got;

            OK(mb_audio_look(path, &info));
            OK(mb_audio_read(path, 2.0, &y, &got));
            assert_int_equal(info.frames, n);
            assert_int_equal(info.rate, rates[i]);
            assert_int_equal(info.channels, 1);
            assert_int_equal(info.samples, got);
            mb_free(y);
            free(x);
        }
}

static void refused(mb_status st, const char *words)
{
    expect(st, MB_EDATA, words);
}

static void files_that_are_not_whole_sound_are_refused_with_one_sentence(void **state)
{
    float *x = sine(440.0, 16000, 16000), *y, nan[100] = {0};
    mb_audio_info info;
    char path[MB_PATH_MAX];
    int64_t n;

    refused(mb_audio_read(write_wav("cut.wav", 16000, 1, false, x, 8000, 32000), 2.0, &y, &n),
            "cut.wav is cut short: its header promises 32000 bytes of sound, it holds 16000");
    refused(mb_audio_look(write_wav("cut.wav", 16000, 1, false, x, 8000, 32000), &info),
            "is cut short");
    refused(mb_audio_read(write_wav("long.wav", 16000, 1, false, x, 16000, 0), 0.5, &y, &n),
            "long.wav lasts 1.0 seconds, expected at most 0.5");
    refused(mb_audio_read(write_wav("none.wav", 16000, 1, false, x, 0, 0), 1.0, &y, &n),
            "none.wav holds no sound");
    refused(mb_audio_read(write_file("text.wav", "no sound at all", 15), 1.0, &y, &n),
            "text.wav cannot be read as sound");
    refused(mb_audio_read(write_file("empty.wav", "", 0), 1.0, &y, &n), "empty.wav is empty");
    refused(mb_audio_read(write_wav("slow.wav", 100, 1, false, x, 100, 0), 2.0, &y, &n),
            "slow.wav has 100 samples a second");
    refused(mb_audio_read(write_wav("many.wav", 16000, 65, false, x, 100, 0), 2.0, &y, &n),
            "many.wav has 65 channels");
    snprintf(path, sizeof path, "%s/missing.wav", root);
    refused(mb_audio_read(path, 1.0, &y, &n), "missing.wav");
    refused(mb_audio_read(root, 1.0, &y, &n), root);
    nan[50] = NAN;
    refused(mb_audio_read(write_wav("nan.wav", 16000, 1, true, nan, 100, 0), 1.0, &y, &n),
            "nan.wav holds samples that are not numbers");
    free(x);
}

static void a_size_that_a_pipe_could_not_know_is_no_fault(void **state)
{
    float *x = sine(440.0, 16000, 1600), *y;
    int64_t n;

    OK(mb_audio_read(write_wav("pipe.wav", 16000, 1, false, x, 1600, 0xffffffffu), 1.0, &y, &n));
    assert_int_equal(n, 1600);
    mb_free(y);
    free(x);
}

static void no_prefix_of_a_file_does_harm(void **state)
{
    float *x = sine(440.0, 16000, 40), *y;
    char *text;
    size_t size;
    int64_t n;

    OK(mb_file_read(write_wav("whole.wav", 16000, 1, false, x, 40, 0), 1 << 20, &text, &size));
    for (size_t k = 0; k < size; k++)
        refused(mb_audio_read(write_file("prefix.wav", text, k), 1.0, &y, &n), "prefix.wav");
    mb_free(text);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sine_at_any_rate_is_the_same_sine_at_16_khz),
        cmocka_unit_test(what_would_alias_is_gone),
        cmocka_unit_test(channels_are_averaged),
        cmocka_unit_test(the_header_says_what_reading_gives),
        cmocka_unit_test(files_that_are_not_whole_sound_are_refused_with_one_sentence),
        cmocka_unit_test(a_size_that_a_pipe_could_not_know_is_no_fault),
        cmocka_unit_test(no_prefix_of_a_file_does_harm),
    };

    return cmocka_run_group_tests_name("audio", tests, make_root, remove_root);
}
