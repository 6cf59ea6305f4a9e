/* core/cpu/contrast.c - contrastive loss over the vectors of a micro-batch.
 *
 *     cosine[i, s] = u_i . u_s,  u = e / max(|e|, 1e-12);   stats: 1/|e|, log-sum of an anchor's row,
 *                                                           log-sum of its candidate's column
 *     de_q = (sum_s g[q, s] u_s - u_q sum_s g[q, s] cosine[q, s]) / |e_q|,  g = d out / d cosine
 */
#include <math.h>

#include "core/cpu/rows.h"

struct contrast {
    const mb_tensor *e;
    const int32_t *row, *label, *len;
    const float *score;
    float temperature;
    mb_contrast_kind kind;
    int64_t n;
};

static bool is_anchor(const struct contrast *c, int64_t s)
{
    return c->row[s] >= 0;
}

static bool is_candidate(const struct contrast *c, int64_t s)
{
    return c->row[s] < 0 && c->len[s] > 0;
}

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* log of the sum of e^(cosine / temperature) over candidates of a row, or anchors of a column. */
static double log_sum(const struct contrast *c, const mb_tensor *cosine, int64_t at, bool column)
{
    double max = -INFINITY, sum = 0.0;

    for (int pass = 0; pass < 2; pass++) {
        for (int64_t s = 0; s < c->n; s++) {
            if (column ? !is_anchor(c, s) : !is_candidate(c, s))
                continue;
            const double x =
                (double)mb_row(cosine, column ? s : at)[column ? at : s] / (double)c->temperature;
            if (pass == 0)
                max = fmax(max, x);
            else
                sum += exp(x - max);
        }
    }
    return max + log(sum);
}

static float out_of(const struct contrast *c, const mb_tensor *cosine, const float *stats,
                    int64_t i)
{
    const double own = (double)mb_row(cosine, i)[c->label[i]];
    const double x = own / (double)c->temperature, gap = own - (double)c->score[i];

    if (c->kind == MB_CONTRAST_SCORE)
        return (float)(-gap * gap);
    if (c->kind == MB_CONTRAST_ONE_WAY)
        return (float)(x - (double)stats[c->n + i]);
    return (float)(x - 0.5 * (double)stats[c->n + i] - 0.5 * (double)stats[2 * c->n + i]);
}

static struct contrast contrast_of(const mb_tensor *e, const mb_tensor *row, const mb_tensor *label,
                                   const mb_tensor *len, const mb_tensor *score, float temperature,
                                   mb_contrast_kind kind)
{
    return (struct contrast){.e = e,
                             .row = mb_i32(row),
                             .label = mb_i32(label),
                             .len = mb_i32(len),
                             .score = mb_f32(score),
                             .temperature = temperature,
                             .kind = kind,
                             .n = mb_rows(e)};
}

mb_status mb_cpu_contrast_fwd(mb_exec *ex, mb_tensor *out, mb_tensor *cosine, mb_tensor *stats,
                              const mb_tensor *e, const mb_tensor *row, const mb_tensor *label,
                              const mb_tensor *len, const mb_tensor *score, float temperature,
                              mb_contrast_kind kind)
{
    const struct contrast c = contrast_of(e, row, label, len, score, temperature, kind);
    const int64_t d = mb_cols(e);
    const int team = mb_team(ex, c.n * c.n * d);
    float *inverse = mb_f32(stats);

    MB_ASSERT(mb_tensor_count(out) == c.n && mb_tensor_count(cosine) == c.n * c.n &&
              mb_tensor_count(stats) == 3 * c.n && e->dtype == MB_DTYPE_F32);
    for (int64_t s = 0; s < c.n; s++)
        inverse[s] = (float)(1.0 / fmax(sqrt(dot(mb_row(e, s), mb_row(e, s), d)), 1e-12));
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < c.n; i++) {
        for (int64_t s = 0; s < c.n; s++)
            mb_row(cosine, i)[s] = is_anchor(&c, i) && is_candidate(&c, s)
                                       ? (float)(dot(mb_row(e, i), mb_row(e, s), d) *
                                                 (double)inverse[i] * (double)inverse[s])
                                       : 0.0f;
    }
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < c.n; i++) {
        const bool soft = is_anchor(&c, i) && kind != MB_CONTRAST_SCORE;

        inverse[c.n + i] = soft ? (float)log_sum(&c, cosine, i, false) : 0.0f;
        inverse[2 * c.n + i] = soft ? (float)log_sum(&c, cosine, c.label[i], true) : 0.0f;
        mb_f32(out)[i] = is_anchor(&c, i) ? out_of(&c, cosine, inverse, i) : 0.0f;
    }
    return MB_OK;
}

/* g[i, s] for one anchor's row. */
static void row_slopes(const struct contrast *c, const mb_tensor *cosine, const float *stats,
                       const float *dout, int64_t i, float *g)
{
    const double half = c->kind == MB_CONTRAST_SYMMETRIC ? 0.5 : 1.0, t = (double)c->temperature;
    const float *row = mb_row(cosine, i);

    for (int64_t s = 0; s < c->n; s++) {
        const double p = is_anchor(c, i) && is_candidate(c, s) && c->kind != MB_CONTRAST_SCORE
                             ? exp((double)row[s] / t - (double)stats[c->n + i])
                             : 0.0;
        g[s] = (float)(-half * (double)dout[i] * p / t);
    }
    if (!is_anchor(c, i))
        return;
    const int64_t own = c->label[i];
    if (c->kind == MB_CONTRAST_SCORE)
        g[own] = -2.0f * dout[i] * (row[own] - c->score[i]);
    else
        g[own] += (float)((double)dout[i] / t); /* of both halves */
    for (int64_t k = 0; k < c->n && c->kind == MB_CONTRAST_SYMMETRIC; k++)
        if (is_anchor(c, k))
            g[c->label[k]] -=
                (float)(0.5 * (double)dout[k] / t *
                        exp((double)row[c->label[k]] / t - (double)stats[2 * c->n + k]));
}

mb_status mb_cpu_contrast_bwd(mb_exec *ex, mb_tensor *de, mb_tensor *dcosine, const mb_tensor *dout,
                              const mb_tensor *cosine, const mb_tensor *stats, const mb_tensor *e,
                              const mb_tensor *row, const mb_tensor *label, const mb_tensor *len,
                              const mb_tensor *score, float temperature, mb_contrast_kind kind)
{
    if (de == NULL)
        return MB_OK;
    const struct contrast c = contrast_of(e, row, label, len, score, temperature, kind);
    const float *inverse = mb_f32(stats);
    const int64_t d = mb_cols(e);
    const int team = mb_team(ex, c.n * c.n * d);

#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < c.n; i++)
        row_slopes(&c, cosine, inverse, mb_f32(dout), i, mb_row(dcosine, i));
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t q = 0; q < c.n; q++) {
        float *to = mb_row(de, q);
        double along = 0.0;

        for (int64_t k = 0; k < d; k++)
            to[k] = 0.0f;
        for (int64_t s = 0; s < c.n; s++) {
            const int64_t i = is_anchor(&c, q) ? q : s, other = is_anchor(&c, q) ? s : q;
            const float g = mb_row(dcosine, i)[other];

            if (!is_anchor(&c, i) || !is_candidate(&c, other))
                continue;
            along += (double)g * (double)mb_row(cosine, i)[other];
            for (int64_t k = 0; k < d; k++)
                to[k] += g * inverse[s] * mb_row(e, s)[k];
        }
        for (int64_t k = 0; k < d; k++)
            to[k] = inverse[q] * (to[k] - (float)along * inverse[q] * mb_row(e, q)[k]);
    }
    return MB_OK;
}
