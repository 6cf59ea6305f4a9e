/* core/cpu/softmax_xent.c - softmax cross-entropy over a vocabulary, gradient in place.
 *
 *     s = cap tanh(scale x / cap)  (or scale x without a cap),  p = softmax(s)
 *     logprob = s[label] - max - log(sum e^(s - max))
 *     dx[j] = weight grad_scale (p[j] - [j = label]) * scale * (1 - (s[j]/cap)^2)
 *
 * A row of 49152 columns (192 KiB) stays in the second-level cache through the passes: maximum, sum,
 * gradient. Without a cap the second pass leaves the exponentials in place of the logits. Sums are
 * f32 lanes within a strip and f64 across strips.
 */
#include <math.h>

#include "core/cpu/rows.h"

enum { STRIP = 1024 };

struct xent {
    float softcap, scale, grad_scale;
};

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

MB_CPU_CLONES static float strip_max(const float *x, int64_t n)
{
    return mb_maxf(x, n);
}

/* e = exp(s - max) in place; returns the sum */
MB_CPU_CLONES static float strip_exp(float *s, float max, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        s[i] = mb_expf(s[i] - max);
    return mb_sumf(s, n);
}

/* x = e * factor */
MB_CPU_CLONES static void strip_scale(float *x, const float *e, float factor, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        x[i] = e[i] * factor;
}

/* x = exp(s - max) * factor * (1 - (s/cap)^2) */
MB_CPU_CLONES static void strip_capped(float *x, const float *s, float max, float factor, float cap,
                                       int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float t = s[i] / cap;

        x[i] = mb_expf(s[i] - max) * factor * (1.0f - t * t);
    }
}

static int64_t strip_length(int64_t n, int64_t from)
{
    return n - from < STRIP ? n - from : STRIP;
}

static float row_max(const float *x, const struct xent *k, int64_t n)
{
    float s[STRIP], max = -INFINITY;

    for (int64_t i = 0; i < n; i += STRIP) {
        const int64_t m = strip_length(n, i);

        scores(s, x + i, k, m);
        const float here = strip_max(s, m);
        max = here > max ? here : max;
    }
    return max;
}

/* Sum of exp(s - max); with `keep` the exponentials replace x. */
static double row_sum(float *x, const struct xent *k, float max, bool keep, int64_t n)
{
    float strip[STRIP];
    double sum = 0.0;

    for (int64_t i = 0; i < n; i += STRIP) {
        const int64_t m = strip_length(n, i);
        float *s = keep ? x + i : strip;

        scores(s, x + i, k, m);
        sum += (double)strip_exp(s, max, m);
    }
    return sum;
}

/* x holds exp(s - max) without a cap, the logits with one. */
static void row_gradient(float *x, const struct xent *k, float max, float factor, int64_t n)
{
    float s[STRIP];

    for (int64_t i = 0; i < n; i += STRIP) {
        const int64_t m = strip_length(n, i);

        if (k->softcap > 0.0f) {
            scores(s, x + i, k, m);
            strip_capped(x + i, s, max, factor, k->softcap, m);
        } else {
            strip_scale(x + i, x + i, factor, m);
        }
    }
}

/* Returns the log-probability of the label. */
static float row_xent(float *x, const struct xent *k, int32_t label, float weight, int64_t n)
{
    const bool grad = k->grad_scale != 0.0f;
    float s_label;

    scores(&s_label, x + label, k, 1);
    const float max = row_max(x, k, n);
    const double sum = row_sum(x, k, max, grad && k->softcap <= 0.0f, n);

    if (grad) {
        const float outer = weight * k->grad_scale * k->scale;
        const float t = k->softcap > 0.0f ? s_label / k->softcap : 0.0f;
        const double p = exp((double)(s_label - max)) / sum;

        row_gradient(x, k, max, (float)((double)outer / sum), n);
        x[label] = (float)((double)outer * (p - 1.0)) * (1.0f - t * t);
    }
    return (float)((double)s_label - (double)max - log(sum));
}

mb_status mb_cpu_softmax_xent(mb_exec *ex, mb_tensor *logits, mb_tensor *logprob,
                              const mb_tensor *label, const mb_tensor *weight, float grad_scale,
                              float softcap, float logit_scale)
{
    const int64_t rows = mb_rows(logits), n = mb_cols(logits);
    const struct xent k = {.softcap = softcap, .scale = logit_scale, .grad_scale = grad_scale};

    MB_ASSERT(mb_tensor_count(label) == rows);
    const int team = mb_team(ex, rows * n);

#pragma omp parallel for num_threads(team) schedule(dynamic, 4)
    for (int64_t r = 0; r < rows; r++) {
        const float w = weight == NULL ? 1.0f : mb_f32(weight)[r];
        float *x = mb_row(logits, r), lp = 0.0f;

        if (w != 0.0f) {
            MB_ASSERT(mb_i32(label)[r] >= 0 && mb_i32(label)[r] < n);
            lp = row_xent(x, &k, mb_i32(label)[r], w, n);
        } else if (grad_scale != 0.0f) {
            memset(x, 0, sizeof *x * (size_t)n);
        }
        if (logprob != NULL)
            mb_f32(logprob)[r] = lp;
    }
    return MB_OK;
}
