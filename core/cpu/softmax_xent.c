/* core/cpu/softmax_xent.c - softmax cross-entropy over a vocabulary, gradient in place.
 *
 *     s = cap tanh(scale x / cap)  (or scale x without a cap),  p = softmax(s)
 *     logprob = s[label] - max - log(sum e^(s - max))
 *     dx[j] = weight grad_scale (p[j] - [j = label]) * scale * (1 - (s[j]/cap)^2)
 *
 * A row of 49152 columns (192 KiB) stays in the second-level cache through the passes: maximum, sum,
 * gradient. With a gradient an f32 row itself holds what the next pass needs: s, then (without a
 * cap) e^(s - max). Without one, and in 16 bits, the logits stay and strips are worked out in each
 * pass. Sums are f32 lanes within a strip and f64 across strips.
 */
#include <math.h>

#include "core/cpu/rows.h"
#include "core/cpu/strip.h"

struct xent {
    float softcap, scale, grad_scale;
    bool plain; /* s is x: no cap, scale 1 */
};

/* e^x for x <= 0 (or NaN) as mb_expf, but 0 below -87: one power of two, no overflow. */
static inline float exp_below_0(float x)
{
    const float magic = 0x1.8p23f, c = x < -87.0f ? -87.0f : x;
    const float shifted = c * 1.44269504f + magic, n = shifted - magic;
    const float power = mb_float_of_bits((mb_bits_of_float(shifted) + 127u) << 23);
    const float r = (c - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.395297e-03f;

    p = p * r + 8.3703216e-03f;
    p = p * r + 4.1666168e-02f;
    p = p * r + 1.6666507e-01f;
    p = p * r + 0.5f;
    p = (p * r) * r + r;
    return x < -87.0f ? 0.0f : p * power + power;
}

/* s of a strip into `out` (may be x). */
MB_CPU_CLONES static void scores(float *out, const float *x, const struct xent *k, int64_t n)
{
    const float scale = k->scale, cap = k->softcap;

    if (cap > 0.0f) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] = cap * mb_tanhf(x[i] * scale / cap);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] = x[i] * scale;
    }
}

/* Any order gives the same maximum: 64 lanes. NaN is passed over, exp will find it. */
MB_CPU_CLONES static float strip_max(const float *x, int64_t n)
{
    float lane[64];
    int64_t i = 0;

    for (int l = 0; l < 64; l++)
        lane[l] = -INFINITY;
    for (; i + 64 <= n; i += 64)
        for (int l = 0; l < 64; l++)
            lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    for (int l = 0; i + l < n; l++)
        lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
    return mb_maxf(lane, 64);
}

/* out = exp(s - max), out may be s; returns the sum. */
MB_CPU_CLONES static float strip_exp(float *out, const float *s, float max, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        out[i] = exp_below_0(s[i] - max);
    return mb_sumf(out, n);
}

MB_CPU_CLONES static void row_scale(float *x, float factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

/* x = exp(s - max) * factor * (1 - (s/cap)^2), where x holds s */
MB_CPU_CLONES static void row_capped(float *x, float max, float factor, float cap, int64_t n)
{
    const float inverse = 1.0f / cap;

    for (int64_t i = 0; i < n; i++) {
        const float t = x[i] * inverse;

        x[i] = exp_below_0(x[i] - max) * factor * (1.0f - t * t);
    }
}

/* s of columns [col, col + n): what lies there, or `strip`. `keep`: s replaces x. */
static const float *row_scores(float *strip, const mb_tensor *t, int64_t r, int64_t col,
                               const struct xent *k, bool keep, int64_t n)
{
    const float *x = mb_strip_read(strip, t, r, col, n);
    float *s = keep ? mb_row(t, r) + col : strip;

    if (k->plain)
        return x;
    scores(s, x, k, n);
    return s;
}

static float row_max(const mb_tensor *t, int64_t r, const struct xent *k, bool keep)
{
    const int64_t n = mb_cols(t);
    mb_strip strip;
    float max = -INFINITY;

    for (int64_t i = 0; i < n; i += MB_STRIP) {
        const int64_t m = mb_strip_length(n, i);
        const float here = strip_max(row_scores(strip, t, r, i, k, keep, m), m);

        max = here > max ? here : max;
    }
    return max;
}

/* Sum of exp(s - max). `have`: the row holds s already; `keep`: the exponentials replace it. */
static double row_sum(const mb_tensor *t, int64_t r, const struct xent *k, float max, bool have,
                      bool keep)
{
    const int64_t n = mb_cols(t);
    mb_strip strip;
    double sum = 0.0;

    for (int64_t i = 0; i < n; i += MB_STRIP) {
        const int64_t m = mb_strip_length(n, i);
        const float *s = have ? mb_row(t, r) + i : row_scores(strip, t, r, i, k, false, m);

        sum += (double)strip_exp(keep ? mb_row(t, r) + i : strip, s, max, m);
    }
    return sum;
}

/* The gradient in 16 bits, where the row still holds x. */
static void row_gradient(const mb_tensor *t, int64_t r, const struct xent *k, float max,
                         float factor)
{
    const int64_t n = mb_cols(t);
    mb_strip strip;

    for (int64_t i = 0; i < n; i += MB_STRIP) {
        const int64_t m = mb_strip_length(n, i);

        row_scores(strip, t, r, i, k, false, m);
        if (k->softcap > 0.0f) {
            row_capped(strip, max, factor, k->softcap, m);
        } else {
            strip_exp(strip, strip, max, m);
            row_scale(strip, factor, m);
        }
        mb_strip_close(strip, t, r, i, m);
    }
}

static void set_one(const mb_tensor *t, int64_t r, int64_t col, float value)
{
    float strip[1], *to = mb_strip_open(strip, t, r, col, 1, false);

    *to = value;
    mb_strip_close(to, t, r, col, 1);
}

/* Returns the log-probability of the label. */
static float row_xent(const mb_tensor *t, int64_t r, const struct xent *k, int32_t label,
                      float weight)
{
    const bool grad = k->grad_scale != 0.0f, capped = k->softcap > 0.0f;
    const bool keep = grad && t->dtype == MB_DTYPE_F32;
    float one[1];

    const float s_label = *row_scores(one, t, r, label, k, false, 1);
    const float max = row_max(t, r, k, keep);
    const double sum = row_sum(t, r, k, max, keep, keep && !capped);

    if (grad) {
        const double outer = (double)weight * (double)k->grad_scale * (double)k->scale;
        const float u = capped ? s_label / k->softcap : 0.0f;
        const double p = exp((double)s_label - (double)max) / sum;

        if (!keep)
            row_gradient(t, r, k, max, (float)(outer / sum));
        else if (capped)
            row_capped(mb_row(t, r), max, (float)(outer / sum), k->softcap, mb_cols(t));
        else
            row_scale(mb_row(t, r), (float)(outer / sum), mb_cols(t));
        set_one(t, r, label, (float)(outer * (p - 1.0)) * (1.0f - u * u));
    }
    return (float)((double)s_label - (double)max - log(sum));
}

static void clear_row(const mb_tensor *t, int64_t r)
{
    const int64_t size = mb_dtype_block_bytes(t->dtype);

    memset((char *)t->data + r * mb_row_stride(t) * size, 0, (size_t)(mb_cols(t) * size));
}

mb_status mb_cpu_softmax_xent(mb_exec *ex, mb_tensor *logits, mb_tensor *logprob,
                              const mb_tensor *label, const mb_tensor *weight, float grad_scale,
                              float softcap, float logit_scale)
{
    const int64_t rows = mb_rows(logits), n = mb_cols(logits);
    const struct xent k = {.softcap = softcap,
                           .scale = logit_scale,
                           .grad_scale = grad_scale,
                           .plain = softcap <= 0.0f && logit_scale == 1.0f};

    MB_ASSERT(mb_tensor_count(label) == rows);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(dynamic, 4)
    for (int64_t r = 0; r < rows; r++) {
        const float w = weight == NULL ? 1.0f : mb_f32(weight)[r];
        float lp = 0.0f;

        if (w != 0.0f) {
            MB_ASSERT(mb_i32(label)[r] >= 0 && mb_i32(label)[r] < n);
            lp = row_xent(logits, r, &k, mb_i32(label)[r], w);
        } else if (grad_scale != 0.0f) {
            clear_row(logits, r);
        }
        if (logprob != NULL)
            mb_f32(logprob)[r] = lp;
    }
    return MB_OK;
}
