/* recipes/media/mel.c - see recipes/media/mel.h.
 *
 * Everything up to the logarithm is in double: it keeps bins 80 dB below the loudest, and there a
 * transform in float is off by more than 1e-4 of the result. Debian's kissfft is built for float only,
 * and 400 = 20 * 20 makes the one transform we need two loops (Cooley & Tukey 1965): with
 * t = 20 a + b, k = c + 20 d and w = exp(-2 pi i / 400),
 *
 *     X[c + 20 d] = sum_b  w^(20 b d) w^(b c)  sum_a x[20 a + b] w^(20 a c)
 *
 * 30 seconds take about 50 ms on one core.
 */
#include "recipes/media/mel.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"

enum { N = MB_MEL_WINDOW, R = 20, HALF = R / 2, FREQUENCIES = N / 2 + 1 };

struct band {
    int from, n; /* frequencies that the filter weighs */
    int weight;  /* the first of its weights */
};

struct mb_mel {
    int64_t bins;
    double window[N];
    double cos20[R][R], sin20[R][R]; /* of 2 pi i j / 20 */
    double cosN[R][R], sinN[R][R];   /* of 2 pi i j / 400 */
    struct band band[MB_MEL_MOST_BINS];
    double *weight;
};

static double to_mel(double hz)
{
    return hz < 1000.0 ? 3.0 * hz / 200.0 : 15.0 + log(hz / 1000.0) * 27.0 / log(6.4);
}

static double to_hz(double mel)
{
    return mel < 15.0 ? 200.0 * mel / 3.0 : 1000.0 * exp(log(6.4) / 27.0 * (mel - 15.0));
}

/* The edges of filter i are points i, i + 1 and i + 2 of bins + 2, equally far apart in mel. */
static void make_filters(mb_mel *m)
{
    const double top = to_mel(8000.0), step = top / (double)(m->bins + 1);
    int at = 0;

    for (int64_t i = 0; i < m->bins; i++) {
        const double low = to_hz((double)i * step), middle = to_hz((double)(i + 1) * step),
                     high = to_hz((double)(i + 2) * step);
        struct band *b = &m->band[i];

        *b = (struct band){.weight = at};
        for (int k = 0; k < FREQUENCIES; k++) {
            const double hz = 8000.0 * k / (FREQUENCIES - 1);
            const double w = fmin((hz - low) / (middle - low), (high - hz) / (high - middle));

            if (w <= 0.0)
                continue;
            if (b->n == 0)
                b->from = k;
            b->n++;
            m->weight[at++] = w * 2.0 / (high - low);
        }
    }
}

mb_status mb_mel_new(int64_t bins, mb_mel **out)
{
    mb_mel *m = NULL;
    mb_status st;

    MB_REQUIRE(bins >= 1 && bins <= MB_MEL_MOST_BINS, MB_EMODEL,
               "%lld mel bins, expected 1 to %d (Whisper has 80 or 128)", (long long)bins,
               MB_MEL_MOST_BINS);
    MB_TRY(MB_NEW(&m));
    m->bins = bins;
    MB_TRY_GOTO(MB_NEW_ARRAY(&m->weight, 2 * FREQUENCIES), st, fail);
    for (int i = 0; i < N; i++)
        m->window[i] = 0.5 - 0.5 * cos(2.0 * M_PI * i / N);
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++) {
            m->cos20[i][j] = cos(2.0 * M_PI * (i * j % R) / R);
            m->sin20[i][j] = sin(2.0 * M_PI * (i * j % R) / R);
            m->cosN[i][j] = cos(2.0 * M_PI * (i * j) / N);
            m->sinN[i][j] = sin(2.0 * M_PI * (i * j) / N);
        }
    make_filters(m);
    *out = m;
    return MB_OK;
fail:
    mb_mel_free(m);
    return st;
}

void mb_mel_free(mb_mel *m)
{
    if (m == NULL)
        return;
    mb_free(m->weight);
    mb_free(m);
}

/* Sample i of a signal of `length` samples that begins with x(n), goes on with zeros and is reflected at
 * both ends. */
static double sample(const float *x, int64_t n, int64_t length, int64_t i)
{
    if (i < 0)
        i = -i;
    else if (i >= length)
        i = 2 * (length - 1) - i;
    return i < n ? (double)x[i] : 0.0;
}

/* power[k] = |X[k]|^2 */
MB_CPU_CLONES static void spectrum(const mb_mel *m, const double *restrict x,
                                   double *restrict power)
{
    double re[R][R], im[R][R]; /* [c][b] */

    for (int c = 0; c <= HALF; c++) {
        double sr[R] = {0}, si[R] = {0};

        for (int a = 0; a < R; a++)
            for (int b = 0; b < R; b++) {
                sr[b] += x[R * a + b] * m->cos20[a][c];
                si[b] -= x[R * a + b] * m->sin20[a][c];
            }
        memcpy(re[c], sr, sizeof sr);
        memcpy(im[c], si, sizeof si);
    }
    for (int c = HALF + 1; c < R; c++) /* x is real */
        for (int b = 0; b < R; b++) {
            re[c][b] = re[R - c][b];
            im[c][b] = -im[R - c][b];
        }
    for (int c = 0; c < R; c++) {
        double sr[HALF + 1] = {0}, si[HALF + 1] = {0};

        for (int b = 0; b < R; b++) {
            const double tr = re[c][b] * m->cosN[b][c] + im[c][b] * m->sinN[b][c];
            const double ti = im[c][b] * m->cosN[b][c] - re[c][b] * m->sinN[b][c];

            for (int d = 0; d <= HALF; d++) {
                sr[d] += tr * m->cos20[b][d] + ti * m->sin20[b][d];
                si[d] += ti * m->cos20[b][d] - tr * m->sin20[b][d];
            }
        }
        for (int d = 0; d <= HALF && c + R * d < FREQUENCIES; d++)
            power[c + R * d] = sr[d] * sr[d] + si[d] * si[d];
    }
}

static void frame(const mb_mel *m, const double *x, float *out)
{
    double power[FREQUENCIES];

    spectrum(m, x, power);
    for (int64_t i = 0; i < m->bins; i++) {
        const struct band *b = &m->band[i];
        double sum = 0.0;

        for (int k = 0; k < b->n; k++)
            sum += m->weight[b->weight + k] * power[b->from + k];
        out[i] = (float)log10(fmax(sum, 1e-10));
    }
}

void mb_mel_compute(const mb_mel *m, const float *x, int64_t n, int64_t frames, float *out)
{
    const int64_t length = frames * MB_MEL_HOP, count = frames * m->bins;
    float top = -10.0f;
    double part[N];

    MB_ASSERT(frames >= 2);
    if (n > length)
        n = length;
    for (int64_t f = 0; f < frames; f++) {
        const int64_t at = f * MB_MEL_HOP - N / 2;
        float *row = out + f * m->bins;

        if (f > 0 && at >= n && at + N <= length) { /* silence, as most of a padded clip is */
            for (int64_t i = 0; i < m->bins; i++)
                row[i] = -10.0f;
            continue;
        }
        for (int i = 0; i < N; i++)
            part[i] = m->window[i] * sample(x, n, length, at + i);
        frame(m, part, row);
    }
    for (int64_t i = 0; i < count; i++)
        top = fmaxf(top, out[i]);
    for (int64_t i = 0; i < count; i++)
        out[i] = (fmaxf(out[i], top - 8.0f) + 4.0f) / 4.0f;
}
