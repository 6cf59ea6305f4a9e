/* core/cuda/contrast.cu - contrastive loss over the vectors of a micro-batch; the equations are in
 * core/cpu/contrast.c.
 *
 * Vectors are few (tens to hundreds), so every matrix here is small: a block has one of its rows.
 */
#include "core/cuda/cuda.h"

namespace {

enum { BLOCK = 128 };

struct contrast {
    mb_mat<const float> e;
    const int32_t *own_row, *label, *len;
    const float *score;
    float temperature;
    mb_contrast_kind kind;

    MB_DEVICE bool is_anchor(int64_t s) const
    {
        return own_row[s] >= 0;
    }

    MB_DEVICE bool is_candidate(int64_t s) const
    {
        return own_row[s] < 0 && len[s] > 0;
    }
};

MB_DEVICE double warp_dot(const float *a, const float *b, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = mb_lane(); i < n; i += 32)
        sum += (double)a[i] * (double)b[i];
    return mb_warp_sum(sum);
}

MB_GLOBAL void MB_BOUNDS(32) norm_kernel(float *inverse, mb_mat<const float> e)
{
    const int64_t s = blockIdx.x;
    const double square = warp_dot(e.row(s), e.row(s), e.cols);

    if (mb_lane() == 0)
        inverse[s] = (float)(1.0 / fmax(sqrt(square), 1e-12));
}

MB_GLOBAL void MB_BOUNDS(BLOCK)
    cosine_kernel(mb_mat<float> cosine, const float *inverse, contrast c)
{
    const int64_t i = blockIdx.x;

    for (int64_t s = mb_warp(); s < c.e.rows; s += BLOCK / 32) {
        const double product = warp_dot(c.e.row(i), c.e.row(s), c.e.cols);

        if (mb_lane() == 0)
            cosine.row(i)[s] = c.is_anchor(i) && c.is_candidate(s)
                                   ? (float)(product * (double)inverse[i] * (double)inverse[s])
                                   : 0.0f;
    }
}

/* log of the sum of e^(cosine / temperature) over candidates of a row, or anchors of a column: of
 * the whole block. */
MB_DEVICE double log_sum(const contrast &c, const mb_mat<const float> &cosine, int64_t at,
                         bool column, float *part, double *parts)
{
    float max = -INFINITY;
    double sum = 0.0;

    for (int64_t s = threadIdx.x; s < c.e.rows; s += BLOCK)
        if (column ? c.is_anchor(s) : c.is_candidate(s))
            max = fmaxf(max, cosine.row(column ? s : at)[column ? at : s] / c.temperature);
    max = mb_block_max(max, part);
    for (int64_t s = threadIdx.x; s < c.e.rows; s += BLOCK)
        if (column ? c.is_anchor(s) : c.is_candidate(s))
            sum +=
                exp((double)cosine.row(column ? s : at)[column ? at : s] / (double)c.temperature -
                    (double)max);
    return (double)max + log(mb_block_sum(sum, parts));
}

MB_GLOBAL void MB_BOUNDS(BLOCK)
    contrast_fwd_kernel(float *out, float *stats, mb_mat<const float> cosine, contrast c)
{
    MB_SHARED(float, part, 32);
    MB_SHARED(double, parts, 32);
    const int64_t i = blockIdx.x, n = c.e.rows;
    const bool anchor = c.is_anchor(i), soft = anchor && c.kind != MB_CONTRAST_SCORE;
    double row = 0.0, column = 0.0;

    if (soft) { /* the whole block */
        row = log_sum(c, cosine, i, false, part, parts);
        __syncthreads();
        column = log_sum(c, cosine, c.label[i], true, part, parts);
    }
    if (threadIdx.x != 0)
        return;
    stats[n + i] = (float)row;
    stats[2 * n + i] = (float)column;
    out[i] = 0.0f;
    if (!anchor)
        return;
    const double own = (double)cosine.row(i)[c.label[i]], x = own / (double)c.temperature;
    const double gap = own - (double)c.score[i];
    out[i] = (float)(c.kind == MB_CONTRAST_SCORE ? -gap * gap
                     : c.kind == MB_CONTRAST_ONE_WAY
                         ? x - (double)(float)row
                         : x - 0.5 * (double)(float)row - 0.5 * (double)(float)column);
}

/* g[i, s] of one anchor. */
MB_GLOBAL void MB_BOUNDS(BLOCK)
    slopes_kernel(mb_mat<float> g, const float *dout, const float *stats,
                  mb_mat<const float> cosine, contrast c)
{
    const int64_t i = blockIdx.x, n = c.e.rows;
    const double t = (double)c.temperature, half = c.kind == MB_CONTRAST_SYMMETRIC ? 0.5 : 1.0;

    for (int64_t s = threadIdx.x; s < n; s += BLOCK) {
        const double x = (double)cosine.row(i)[s];
        const bool own = c.is_anchor(i) && c.label[i] == s;
        double sum = 0.0;

        if (c.is_anchor(i) && c.is_candidate(s)) {
            if (c.kind == MB_CONTRAST_SCORE)
                sum = own ? -2.0 * (double)dout[i] * (x - (double)c.score[i]) : 0.0;
            else
                sum = (double)dout[i] / t *
                      ((own ? 1.0 : 0.0) - half * exp(x / t - (double)stats[n + i]));
            for (int64_t k = 0; k < n && c.kind == MB_CONTRAST_SYMMETRIC; k++)
                if (c.is_anchor(k) && c.label[k] == s)
                    sum -= 0.5 * (double)dout[k] / t * exp(x / t - (double)stats[2 * n + k]);
        }
        g.row(i)[s] = (float)sum;
    }
}

MB_GLOBAL void MB_BOUNDS(BLOCK)
    contrast_bwd_kernel(mb_mat<float> de, mb_mat<const float> g, const float *inverse,
                        mb_mat<const float> cosine, contrast c)
{
    const int64_t q = blockIdx.x;
    const bool anchor = c.is_anchor(q);

    for (int64_t k = threadIdx.x; k < c.e.cols; k += BLOCK) {
        double along = 0.0, sum = 0.0;

        for (int64_t s = 0; s < c.e.rows; s++) {
            const int64_t i = anchor ? q : s, other = anchor ? s : q;
            const double slope = (double)g.row(i)[other];

            if (!c.is_anchor(i) || !c.is_candidate(other))
                continue;
            along += slope * (double)cosine.row(i)[other];
            sum += slope * (double)inverse[s] * (double)c.e.row(s)[k];
        }
        de.row(q)[k] = (float)((double)inverse[q] *
                               (sum - along * (double)inverse[q] * (double)c.e.row(q)[k]));
    }
}

contrast contrast_of(const mb_tensor *e, const mb_tensor *row, const mb_tensor *label,
                     const mb_tensor *len, const mb_tensor *score, float temperature,
                     mb_contrast_kind kind)
{
    return {mb_mat_of<const float>(e),
            mb_i32(row),
            mb_i32(label),
            mb_i32(len),
            mb_f32(score),
            temperature,
            kind};
}

} // namespace

mb_status mb_cuda_contrast_fwd(mb_exec *ex, mb_tensor *out, mb_tensor *cosine, mb_tensor *stats,
                               const mb_tensor *e, const mb_tensor *row, const mb_tensor *label,
                               const mb_tensor *len, const mb_tensor *score, float temperature,
                               mb_contrast_kind kind)
{
    const int64_t n = mb_rows(e);
    const contrast c = contrast_of(e, row, label, len, score, temperature, kind);

    MB_REQUIRE(e->dtype == MB_DTYPE_F32 && mb_tensor_count(out) == n &&
                   mb_tensor_count(cosine) == n * n && mb_tensor_count(stats) == 3 * n,
               MB_EBUG, "contrast: shapes or types do not fit");
    MB_LAUNCH(ex, norm_kernel, n, 32, 0, mb_f32(stats), mb_mat_of<const float>(e));
    MB_LAUNCH(ex, cosine_kernel, n, BLOCK, 0, mb_mat_of<float>(cosine), mb_f32(stats), c);
    MB_LAUNCH(ex, contrast_fwd_kernel, n, BLOCK, 0, mb_f32(out), mb_f32(stats),
              mb_mat_of<const float>(cosine), c);
    return MB_OK;
}

mb_status mb_cuda_contrast_bwd(mb_exec *ex, mb_tensor *de, mb_tensor *dcosine,
                               const mb_tensor *dout, const mb_tensor *cosine,
                               const mb_tensor *stats, const mb_tensor *e, const mb_tensor *row,
                               const mb_tensor *label, const mb_tensor *len, const mb_tensor *score,
                               float temperature, mb_contrast_kind kind)
{
    if (de == nullptr)
        return MB_OK;
    const contrast c = contrast_of(e, row, label, len, score, temperature, kind);

    MB_LAUNCH(ex, slopes_kernel, mb_rows(e), BLOCK, 0, mb_mat_of<float>(dcosine), mb_f32(dout),
              mb_f32(stats), mb_mat_of<const float>(cosine), c);
    MB_LAUNCH(ex, contrast_bwd_kernel, mb_rows(e), BLOCK, 0, mb_mat_of<float>(de),
              mb_mat_of<const float>(dcosine), mb_f32(stats), mb_mat_of<const float>(cosine), c);
    return MB_OK;
}
