/* core/cuda/softmax_xent.cu - softmax cross-entropy over a vocabulary, gradient in place.
 *
 *     s = cap tanh(scale x / cap)  (or scale x without a cap),  p = softmax(s)
 *     logprob = s[label] - max - log(sum e^(s - max))
 *     dx[j] = weight grad_scale (p[j] - [j = label]) * scale * (1 - (s[j]/cap)^2)
 *
 * A block has a row and goes over it twice: maximum and sum at once (Milakov & Gimelshein,
 * arXiv:1805.02867), each thread rescaling its sum when its maximum grows; then the gradient. The
 * second reading comes from the second-level cache. Threads' sums are f32, the block's f64.
 */
#include "core/cuda/piece.h"

namespace {

enum { AHEAD = 4, MOST = 512 }; /* pieces that are read before one is used; threads */

struct xent {
    float softcap, scale, grad_scale;
};

MB_DEVICE float score(float x, const xent &k)
{
    return k.softcap > 0.0f ? k.softcap * tanhf(x * k.scale / k.softcap) : x * k.scale;
}

template <typename T>
MB_DEVICE void read_ahead(piece<T> (&x)[AHEAD], const T *row, int first, int step, int n,
                          bool vector)
{
    MB_UNROLL
    for (int u = 0; u < AHEAD; u++)
        x[u] = read_piece(row + first + u * step, n - first - u * step, vector);
}

/* This thread's maximum of s and its sum of e^(s - max); NaN goes into the sum. */
template <typename T>
MB_DEVICE void take_piece(float *max, float *sum, const piece<T> &x, int left, const xent &k)
{
    constexpr int W = piece<T>::LENGTH;
    float s[W], top = *max;

    MB_UNROLL
    for (int i = 0; i < W; i++) {
        s[i] = i < left ? score(x.at(i), k) : -INFINITY;
        top = fmaxf(top, s[i]);
    }
    if (top > *max) {
        *sum *= expf(*max - top);
        *max = top;
    }
    /* nothing but -inf so far: e^(s - 0) is 0, or NaN */
    const float from = top == -INFINITY ? 0.0f : top;
    MB_UNROLL
    for (int i = 0; i < W; i++)
        *sum += i < left ? expf(s[i] - from) : 0.0f;
}

template <typename T>
MB_GLOBAL MB_BOUNDS(MOST) void xent_kernel(mb_mat<T> logits, float *logprob, const int32_t *labels,
                                           const float *weights, xent k, bool vector)
{
    constexpr int W = piece<T>::LENGTH;
    MB_SHARED(float, part, 32);
    MB_SHARED(double, parts, 32);
    const int64_t r = (int64_t)blockIdx.x;
    const int n = (int)logits.cols, first = (int)threadIdx.x * W, step = (int)blockDim.x * W;
    const float weight = weights == nullptr ? 1.0f : weights[r];
    T *row = logits.row(r);
    float max = -INFINITY, sum = 0.0f;
    piece<T> x[AHEAD];

    if (weight == 0.0f) { /* of the whole block */
        const piece<T> zeros = {};

        if (k.grad_scale != 0.0f)
            for (int c = first; c < n; c += step)
                write_piece(row + c, zeros, n - c, vector);
        if (threadIdx.x == 0 && logprob != nullptr)
            logprob[r] = 0.0f;
        return;
    }
    for (int at = first; at < n; at += AHEAD * step) {
        read_ahead(x, row, at, step, n, vector);
        MB_UNROLL
        for (int u = 0; u < AHEAD; u++)
            if (at + u * step < n)
                take_piece(&max, &sum, x[u], n - at - u * step, k);
    }
    /* a label that is none is a defect of the batch: it shows as NaN and writes nothing */
    const int label = labels[r];
    const bool known = label >= 0 && label < n;
    const float s_label = known ? score(mb_to_f32(row[label]), k) : NAN;
    const float top = mb_block_max(max, part);
    /* a thread without columns, or with -inf only, adds nothing, but NaN stays */
    const float share = max == top ? sum : sum * expf(max - top);
    const double all = mb_block_sum((double)share, parts);

    if (threadIdx.x == 0 && logprob != nullptr)
        logprob[r] = (float)((double)(s_label - top) - (double)logf((float)all));
    if (k.grad_scale == 0.0f)
        return;

    const float outer = weight * k.grad_scale * k.scale;
    const float factor = (float)((double)outer / all);
    for (int at = first; at < n; at += AHEAD * step) {
        read_ahead(x, row, at, step, n, vector);
        MB_UNROLL
        for (int u = 0; u < AHEAD; u++) {
            const int c = at + u * step;
            float f[W];

            MB_UNROLL
            for (int i = 0; i < W; i++) {
                const float s = score(x[u].at(i), k);
                const float t = k.softcap > 0.0f ? s / k.softcap : 0.0f; /* s may be -inf */
                const float e = expf(s - top) * factor;

                f[i] = (c + i == label ? e - outer : e) * (1.0f - t * t);
            }
            write_piece(row + c, pack_piece<T>(f), n - c, vector);
        }
    }
}

template <typename T>
mb_status launch(mb_exec *ex, mb_tensor *logits, mb_tensor *logprob, const mb_tensor *label,
                 const mb_tensor *weight, const xent &k)
{
    const int64_t n = mb_cols(logits);
    const mb_tensor *const all[] = {logits};
    const int block = n <= 2048 ? 128 : n <= 8192 ? 256 : MOST;

    MB_LAUNCH(ex, (xent_kernel<T>), mb_rows(logits), block, 0, mb_mat_of<T>(logits),
              logprob == nullptr ? nullptr : mb_f32(logprob), mb_i32(label),
              weight == nullptr ? nullptr : mb_f32(weight), k, whole_pieces<T>(all));
    return MB_OK;
}

} // namespace

extern "C" mb_status mb_cuda_softmax_xent(mb_exec *ex, mb_tensor *logits, mb_tensor *logprob,
                                          const mb_tensor *label, const mb_tensor *weight,
                                          float grad_scale, float softcap, float logit_scale)
{
    const int64_t rows = mb_rows(logits);
    const xent k = {softcap, logit_scale, grad_scale};

    MB_REQUIRE(mb_tensor_count(label) == rows && label->dtype == MB_DTYPE_I32 &&
                   (logprob == nullptr || mb_tensor_count(logprob) == rows) &&
                   (weight == nullptr || mb_tensor_count(weight) == rows),
               MB_EBUG, "softmax_xent: shapes or types do not fit");
    if (mb_tensor_count(logits) == 0)
        return MB_OK;
    MB_CUDA_DISPATCH(logits->dtype, MB_TRY(launch<T>(ex, logits, logprob, label, weight, k)));
    return MB_OK;
}
