/* core/cpu/quantise_k.c - blocks of 256 numbers in groups with small integer scales of their own.
 *
 * A group of 32 is d q - m (Q4_K, Q5_K), one of 16 is d q (Q6_K). For some roundings around the plain
 * one, d and m are what least squares gives for those q, and the rounding with the least error is kept.
 * Larger numbers weigh more: errors of the product with an activation grow with both. The method and its
 * weights are those of llama.cpp's reference quantisers (ggml-quants.c, MIT), so that files are as good as
 * its own.
 */
#include <math.h>
#include <string.h>

#include "core/cpu/quantise.h"

enum { BLOCK = 256, GROUP = 32, GROUPS = BLOCK / GROUP, SMALL = 16, SMALLS = BLOCK / SMALL };

/* The whole number nearest to x, ties to even, from least to most; of NaN the least. */
static inline int lattice(float x, float least, float most)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: its neighbours are whole numbers */

    x = x > least ? x : least;
    x = x < most ? x : most;
    return (int)((x + magic) - magic);
}

static void put_half(uint8_t *y, float x)
{
    const uint16_t h = mb_f32_to_f16(x);

    y[0] = (uint8_t)h;
    y[1] = (uint8_t)(h >> 8);
}

static float half(float x)
{
    return mb_f16_to_f32(mb_f32_to_f16(x));
}

/* ---- a scale and a minimum ------------------------------------------------------------------ */

/* How roundings are tried: with (first + i * step + most) / (max - min) for i = 0 .. steps, where min is
 * the best that was found before. */
struct search {
    int most; /* the largest q */
    float first, step;
    int steps;
};

static const struct search search4 = {15, -1.0f, 0.1f, 20}, search5 = {31, -0.5f, 0.1f, 15};

struct fit {
    float scale, low; /* x is about scale q + low, low <= 0 */
};

static float error_of(const float *x, const float *w, const int *q, struct fit f)
{
    float sum = 0.0f;

    for (int i = 0; i < GROUP; i++) {
        const float off = f.scale * (float)q[i] + f.low - x[i];
        sum += w[i] * (off * off);
    }
    return sum;
}

/* The least squares of given q; false where they say nothing. */
static bool solve(const float *x, const float *w, const int *q, float sum_w, float sum_x,
                  struct fit *f)
{
    float l = 0.0f, ll = 0.0f, xl = 0.0f;

    for (int i = 0; i < GROUP; i++) {
        const float wq = w[i] * (float)q[i];
        l += wq;
        ll += wq * (float)q[i];
        xl += wq * x[i];
    }
    const float det = sum_w * ll - l * l;
    if (!(det > 0.0f))
        return false;
    f->scale = (sum_w * xl - sum_x * l) / det;
    f->low = (ll * sum_x - l * xl) / det;
    if (f->low > 0.0f) {
        f->low = 0.0f;
        f->scale = xl / ll;
    }
    return true;
}

static void round_all(const float *x, float low, float inverse, int most, int *q)
{
    for (int i = 0; i < GROUP; i++)
        q[i] = lattice(inverse * (x[i] - low), 0.0f, (float)most);
}

static struct fit fit_group(const float *x, const struct search *s)
{
    float w[GROUP], squares = 0.0f, sum_w = 0.0f, sum_x = 0.0f, low = x[0], high = x[0];
    int q[GROUP];

    for (int i = 0; i < GROUP; i++) {
        squares += x[i] * x[i];
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    const float mean = sqrtf(squares / GROUP);
    for (int i = 0; i < GROUP; i++) {
        w[i] = mean + fabsf(x[i]);
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    low = low > 0.0f ? 0.0f : low;
    if (high == low)
        return (struct fit){0.0f, low};
    const float range = high - low;
    struct fit best = {range / (float)s->most, low};
    round_all(x, low, (float)s->most / range, s->most, q);
    float least = error_of(x, w, q, best);
    for (int k = 0; k <= s->steps; k++) {
        struct fit f;
        round_all(x, best.low, (s->first + s->step * (float)k + (float)s->most) / (high - best.low),
                  s->most, q);
        if (!solve(x, w, q, sum_w, sum_x, &f))
            continue;
        const float e = error_of(x, w, q, f);
        if (e < least) {
            least = e;
            best = f;
        }
    }
    return best;
}

/* The 6-bit scales and minima of eight groups, as Q4_K and Q5_K pack them. */
static void pack_scales(const int *scale, const int *min, uint8_t *y)
{
    memset(y, 0, 12);
    for (int g = 0; g < 4; g++) {
        y[g] = (uint8_t)(scale[g] | scale[g + 4] >> 4 << 6);
        y[g + 4] = (uint8_t)(min[g] | min[g + 4] >> 4 << 6);
        y[g + 8] = (uint8_t)((scale[g + 4] & 15) | (min[g + 4] & 15) << 4);
    }
}

/* d, dmin and 12 bytes of scales to y; what each number becomes to q. */
static void scale_and_min(const float *x, const struct search *s, uint8_t *y, int *q)
{
    struct fit fit[GROUPS];
    float scale = 0.0f, min = 0.0f;
    int ls[GROUPS], lm[GROUPS];

    for (int g = 0; g < GROUPS; g++) {
        fit[g] = fit_group(x + g * GROUP, s);
        scale = fit[g].scale > scale ? fit[g].scale : scale;
        min = -fit[g].low > min ? -fit[g].low : min;
    }
    for (int g = 0; g < GROUPS; g++) {
        ls[g] = scale > 0.0f ? lattice(63.0f / scale * fit[g].scale, 0.0f, 63.0f) : 0;
        lm[g] = min > 0.0f ? lattice(63.0f / min * -fit[g].low, 0.0f, 63.0f) : 0;
    }
    put_half(y, scale / 63.0f);
    put_half(y + 2, min / 63.0f);
    pack_scales(ls, lm, y + 4);
    for (int i = 0; i < BLOCK; i++) {
        const float d = half(scale / 63.0f) * (float)ls[i / GROUP];
        const float m = half(min / 63.0f) * (float)lm[i / GROUP];

        q[i] = d > 0.0f ? lattice((x[i] + m) / d, 0.0f, (float)s->most) : 0;
    }
}

void mb_quantise_q4_k(const float *x, uint8_t *y)
{
    int q[BLOCK];

    scale_and_min(x, &search4, y, q);
    for (int h = 0; h < 4; h++)
        for (int i = 0; i < 32; i++)
            y[16 + 32 * h + i] = (uint8_t)(q[64 * h + i] | q[64 * h + 32 + i] << 4);
}

void mb_quantise_q5_k(const float *x, uint8_t *y)
{
    int q[BLOCK];

    scale_and_min(x, &search5, y, q);
    memset(y + 16, 0, 32);
    for (int g = 0; g < GROUPS; g++)
        for (int i = 0; i < 32; i++)
            y[16 + i] = (uint8_t)(y[16 + i] | q[32 * g + i] >> 4 << g);
    for (int h = 0; h < 4; h++)
        for (int i = 0; i < 32; i++)
            y[48 + 32 * h + i] = (uint8_t)((q[64 * h + i] & 15) | (q[64 * h + 32 + i] & 15) << 4);
}

/* ---- a scale alone -------------------------------------------------------------------------- */

enum { Q6 = 32, TRIES = 9 };
static const float nothing = 1e-15f;

static float fit_small(const float *x)
{
    float most = 0.0f, at = 0.0f, scale = 0.0f, best = 0.0f;

    for (int i = 0; i < SMALL; i++)
        if (fabsf(x[i]) > most) {
            most = fabsf(x[i]);
            at = x[i];
        }
    if (most < nothing)
        return 0.0f;
    for (int n = 0; n <= 2 * TRIES; n++) {
        const int k = n == 0 ? 0 : n <= TRIES ? n - TRIES - 1 : n - TRIES; /* 0, -9..-1, 1..9 */
        const float inverse = -((float)Q6 + 0.1f * (float)k) / at;
        float xl = 0.0f, ll = 0.0f;

        for (int i = 0; i < SMALL; i++) {
            const int l = lattice(inverse * x[i], -Q6, Q6 - 1);
            const float w = x[i] * x[i];
            xl += w * x[i] * (float)l;
            ll += w * (float)l * (float)l;
        }
        if (ll > 0.0f && (n == 0 || xl * xl > best * ll)) {
            scale = xl / ll;
            best = scale * xl;
        }
    }
    return scale;
}

static void pack_q6(const int *q, uint8_t *y)
{
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 32; i++) {
            const int *from = q + 128 * h + i;

            y[64 * h + i] = (uint8_t)((from[0] & 15) | (from[64] & 15) << 4);
            y[64 * h + 32 + i] = (uint8_t)((from[32] & 15) | (from[96] & 15) << 4);
            y[128 + 32 * h + i] = (uint8_t)(from[0] >> 4 | from[32] >> 4 << 2 | from[64] >> 4 << 4 |
                                            from[96] >> 4 << 6);
        }
}

void mb_quantise_q6_k(const float *x, uint8_t *y)
{
    float scale[SMALLS], most = 0.0f, at = 0.0f;
    int q[BLOCK];

    for (int g = 0; g < SMALLS; g++) {
        scale[g] = fit_small(x + g * SMALL);
        if (fabsf(scale[g]) > most) {
            most = fabsf(scale[g]);
            at = scale[g];
        }
    }
    memset(y, 0, 210);
    if (most < nothing)
        return;
    const float inverse = -128.0f / at, d = half(1.0f / inverse);
    put_half(y + 208, 1.0f / inverse);
    for (int i = 0; i < BLOCK; i++) {
        const int g = i / SMALL, s = lattice(inverse * scale[g], -128.0f, 127.0f);
        const float dl = d * (float)s;

        y[192 + g] = (uint8_t)(int8_t)s;
        q[i] = dl != 0.0f ? lattice(x[i] / dl, -Q6, Q6 - 1) + Q6 : Q6;
    }
    pack_q6(q, y);
}
