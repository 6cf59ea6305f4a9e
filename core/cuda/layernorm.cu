/* core/cuda/layernorm.cu - LayerNorm (Ba, Kiros & Hinton, arXiv:1607.06450), alone and after a
 * residual addition.
 *
 *     h = (x - mean) * rstd,  y = w*h + b,  rstd = 1/sqrt(var + eps), var over D (not D-1)
 *     dx = rstd * (w*dy - mean(w*dy) - h * mean(w*dy*h)),  dw += sum dy*h,  db += sum dy
 *
 * The variance is taken around the mean in a second pass over the registers. w and b may be NULL
 * (1 and 0). Rows are shared out as in core/cuda/norm.h, the backward as in core/cuda/rmsnorm.cu.
 */
#include "core/cuda/norm.h"

namespace {

/* `none` where there is no such weight. */
template <typename T>
MB_DEVICE void read_weight(float (&to)[piece<T>::LENGTH], const T *w, float none, int c, int n,
                           bool vector)
{
    piece<T> p = {};

    if (w != nullptr)
        p = read_piece(w + c, n - c, vector);
    MB_UNROLL
    for (int i = 0; i < piece<T>::LENGTH; i++)
        to[i] = w != nullptr ? p.at(i) : none;
}

/* x = a, or, when fused, sum = x = a + b, rounded as `add` would. */
template <typename T, norm_rows R, bool FUSED>
MB_GLOBAL MB_BOUNDS(R == NARROW ? 32 * FORWARD_WARPS : FORWARD_MOST,
                    1) void layernorm_fwd(mb_mat<T> y, mb_mat<T> sum, float *mean, float *rstd,
                                          mb_mat<T> a, mb_mat<T> b, const T *w, const T *bias,
                                          float eps, bool vector)
{
    constexpr int W = piece<T>::LENGTH, PIECES = norm_pieces<T, R>;
    MB_SHARED(float, part, 64);
    const norm_team<R> team = {part};
    const int64_t r = (int64_t)blockIdx.x * team.count() + team.index();
    const int n = (int)a.cols, first = team.rank() * W, step = team.size() * W;
    piece<T> x[PIECES];
    float total = 0.0f, squares = 0.0f;

    if (r >= a.rows) /* only whole warps */
        return;
    for (int at = first, once = 1; R == LONG ? at < n : once; at += PIECES * step, once = 0) {
        norm_read_tile(x, a.row(r), at, step, n, vector);
        if (FUSED) {
            piece<T> other[PIECES];

            norm_read_tile(other, b.row(r), at, step, n, vector);
            norm_add_tile(sum.row(r), x, other, at, step, n, vector);
        }
        MB_UNROLL
        for (int k = 0; k < PIECES; k++) {
            MB_UNROLL
            for (int i = 0; i < W; i++)
                total += x[k].at(i);
        }
    }
    const float m = team.sum(total) / (float)n;

    for (int at = first, once = 1; R == LONG ? at < n : once; at += PIECES * step, once = 0) {
        if (R == LONG)
            norm_read_tile(x, (FUSED ? sum : a).row(r), at, step, n, vector);
        MB_UNROLL
        for (int k = 0; k < PIECES; k++) {
            MB_UNROLL
            for (int i = 0; i < W; i++) {
                const float d = at + k * step + i < n ? x[k].at(i) - m : 0.0f;

                squares += d * d;
            }
        }
    }
    const float s = 1.0f / sqrtf(team.sum(squares) / (float)n + eps);

    if (mean != nullptr && team.rank() == 0)
        mean[r] = m;
    if (rstd != nullptr && team.rank() == 0)
        rstd[r] = s;
    for (int at = first, once = 1; R == LONG ? at < n : once; at += PIECES * step, once = 0) {
        if (R == LONG)
            norm_read_tile(x, (FUSED ? sum : a).row(r), at, step, n, vector);
        MB_UNROLL
        for (int k = 0; k < PIECES; k++) {
            const int c = at + k * step;
            float f[W], weight[W], shift[W];

            read_weight<T>(weight, w, 1.0f, c, n, vector);
            read_weight<T>(shift, bias, 0.0f, c, n, vector);
            MB_UNROLL
            for (int i = 0; i < W; i++)
                f[i] = (x[k].at(i) - m) * s * weight[i] + shift[i];
            write_piece(y.row(r) + c, pack_piece<T>(f), n - c, vector);
        }
    }
}

struct row_stats {
    float mean, rstd;
    float g_mean; /* mean(w*dy) */
    float slope;  /* mean(w*dy*h) * rstd: what multiplies (x - mean) */
};

/* dx (+)= rstd * (w * dy - g_mean - (x - mean) * slope) */
template <typename T, int PIECES>
MB_DEVICE void layernorm_dx(T *dx, const piece<T> (&dy)[PIECES], const piece<T> (&x)[PIECES],
                            const T *w, const row_stats &k, bool acc, int at, int step, int n,
                            bool vector)
{
    constexpr int W = piece<T>::LENGTH;

    MB_UNROLL
    for (int p = 0; p < PIECES; p++) {
        const int c = at + p * step;
        piece<T> old = {};
        float f[W], weight[W];

        read_weight<T>(weight, w, 1.0f, c, n, vector);
        if (acc)
            old = read_piece(dx + c, n - c, vector);
        MB_UNROLL
        for (int i = 0; i < W; i++) {
            const float d =
                k.rstd * (dy[p].at(i) * weight[i] - k.g_mean - (x[p].at(i) - k.mean) * k.slope);

            f[i] = acc ? old.at(i) + d : d;
        }
        write_piece(dx + c, pack_piece<T>(f), n - c, vector);
    }
}

/* Block i has the rows from i * per on. pw, pb: a row for each block, or NULL; dx.data may be NULL. */
template <typename T, norm_rows R>
MB_GLOBAL MB_BOUNDS(R == NARROW ? 32 * BACKWARD_WARPS : BACKWARD_MOST,
                    1) void layernorm_bwd(mb_mat<T> dx, float *pw, float *pb, mb_mat<T> dy,
                                          mb_mat<T> x, const T *w, const float *mean,
                                          const float *rstd, int64_t per, bool acc, bool vector)
{
    constexpr int W = piece<T>::LENGTH, PIECES = norm_pieces<T, R>;
    MB_SHARED(float, shared, R == NARROW ? BACKWARD_WARPS * NARROW_COLS : 64);
    const norm_team<R> team = {shared};
    const int n = (int)x.cols, first = team.rank() * W, step = team.size() * W;
    const int64_t begin = (int64_t)blockIdx.x * per;
    const int64_t end = begin + per < x.rows ? begin + per : x.rows;
    float *out_w = pw == nullptr ? nullptr : pw + (int64_t)blockIdx.x * n;
    float *out_b = pb == nullptr ? nullptr : pb + (int64_t)blockIdx.x * n;
    piece<T> px[PIECES], pdy[PIECES];
    float dw[PIECES][W] = {}, db[PIECES][W] = {};

    for (int64_t r = begin + team.index(); r < end; r += team.count()) {
        row_stats stats = {mean[r], rstd[r], 0.0f, 0.0f};
        float total = 0.0f, dot = 0.0f;

        for (int at = first, once = 1; R == LONG ? at < n : once; at += PIECES * step, once = 0) {
            norm_read_tile(px, x.row(r), at, step, n, vector);
            norm_read_tile(pdy, dy.row(r), at, step, n, vector);
            MB_UNROLL
            for (int k = 0; k < PIECES; k++) {
                const int c = at + k * step;
                float weight[W];

                /* dy is 0 behind the end of the row */
                read_weight<T>(weight, w, 1.0f, c, n, vector);
                MB_UNROLL
                for (int i = 0; i < W; i++) {
                    const float d = px[k].at(i) - stats.mean, g = weight[i] * pdy[k].at(i);
                    const float product = pdy[k].at(i) * (d * stats.rstd);

                    total += g;
                    dot += g * d;
                    if (R != LONG) {
                        dw[k][i] += product;
                        db[k][i] += pdy[k].at(i);
                    } else if (c + i < n) {
                        if (out_w != nullptr)
                            out_w[c + i] = (r == begin ? 0.0f : out_w[c + i]) + product;
                        if (out_b != nullptr)
                            out_b[c + i] = (r == begin ? 0.0f : out_b[c + i]) + pdy[k].at(i);
                    }
                }
            }
        }
        if (dx.data == nullptr)
            continue;
        team.sum(&total, &dot);
        stats.g_mean = total / (float)n;
        stats.slope = dot / (float)n * stats.rstd * stats.rstd;
        for (int at = first, once = 1; R == LONG ? at < n : once; at += PIECES * step, once = 0) {
            if (R == LONG) {
                norm_read_tile(px, x.row(r), at, step, n, vector);
                norm_read_tile(pdy, dy.row(r), at, step, n, vector);
            }
            layernorm_dx(dx.row(r), pdy, px, w, stats, acc, at, step, n, vector);
        }
    }
    if (R != LONG && out_w != nullptr)
        norm_write_sums<R>(out_w, dw, shared, n);
    if (R != LONG && out_b != nullptr)
        norm_write_sums<R>(out_b, db, shared, n);
}

template <typename T> const T *values(const mb_tensor *t)
{
    return t == nullptr ? nullptr : static_cast<const T *>(t->data);
}

template <typename T, bool FUSED>
mb_status forward(mb_exec *ex, mb_tensor *y, mb_tensor *sum, mb_tensor *mean, mb_tensor *rstd,
                  const mb_tensor *a, const mb_tensor *b, const mb_tensor *w, const mb_tensor *bias,
                  float eps)
{
    const int64_t rows = mb_rows(a), n = mb_cols(a);
    const mb_tensor *const all[] = {y, sum, a, b, w, bias};
    const bool vector = whole_pieces<T>(all);
    const mb_mat<T> ym = mb_mat_of<T>(y), sm = mb_mat_of<T>(sum), am = mb_mat_of<T>(a);
    const mb_mat<T> bm = mb_mat_of<T>(b);
    float *const m = norm_f32(mean), *const s = norm_f32(rstd);
    const int block = norm_block(n, FORWARD_MOST);

    switch (norm_rows_of(n, FORWARD_MOST)) {
    case NARROW:
        MB_LAUNCH(ex, (layernorm_fwd<T, NARROW, FUSED>), mb_div_up(rows, FORWARD_WARPS),
                  32 * FORWARD_WARPS, 0, ym, sm, m, s, am, bm, values<T>(w), values<T>(bias), eps,
                  vector);
        break;
    case WIDE:
        MB_LAUNCH(ex, (layernorm_fwd<T, WIDE, FUSED>), rows, block, 0, ym, sm, m, s, am, bm,
                  values<T>(w), values<T>(bias), eps, vector);
        break;
    case LONG:
        MB_LAUNCH(ex, (layernorm_fwd<T, LONG, FUSED>), rows, block, 0, ym, sm, m, s, am, bm,
                  values<T>(w), values<T>(bias), eps, vector);
        break;
    }
    return MB_OK;
}

template <typename T>
mb_status backward(mb_exec *ex, mb_tensor *dx, float *pw, float *pb, const mb_tensor *dy,
                   const mb_tensor *x, const mb_tensor *w, const mb_tensor *mean,
                   const mb_tensor *rstd, bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);
    const mb_tensor *const all[] = {dx, dy, x, w};
    const bool vector = whole_pieces<T>(all);
    const mb_mat<T> dxm = mb_mat_of<T>(dx), dym = mb_mat_of<T>(dy), xm = mb_mat_of<T>(x);
    const int block = norm_block(n, BACKWARD_MOST);
    const int64_t teams = n <= NARROW_COLS ? BACKWARD_WARPS : 1;
    const int64_t per = pw == nullptr && pb == nullptr ? teams : norm_rows_per_block(rows, n);
    const int64_t blocks = mb_div_up(rows, per);

    switch (norm_rows_of(n, BACKWARD_MOST)) {
    case NARROW:
        MB_LAUNCH(ex, (layernorm_bwd<T, NARROW>), blocks, 32 * BACKWARD_WARPS, 0, dxm, pw, pb, dym,
                  xm, values<T>(w), mb_f32(mean), mb_f32(rstd), per, acc, vector);
        break;
    case WIDE:
        MB_LAUNCH(ex, (layernorm_bwd<T, WIDE>), blocks, block, 0, dxm, pw, pb, dym, xm,
                  values<T>(w), mb_f32(mean), mb_f32(rstd), per, acc, vector);
        break;
    case LONG:
        MB_LAUNCH(ex, (layernorm_bwd<T, LONG>), blocks, block, 0, dxm, pw, pb, dym, xm,
                  values<T>(w), mb_f32(mean), mb_f32(rstd), per, acc, vector);
        break;
    }
    return MB_OK;
}

} // namespace

extern "C" mb_status mb_cuda_layernorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *mean,
                                           mb_tensor *rstd, const mb_tensor *x, const mb_tensor *w,
                                           const mb_tensor *b, float eps)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);

    MB_REQUIRE(norm_fits(y, x) && norm_vector_fits(mean, rows, MB_DTYPE_F32) &&
                   norm_vector_fits(rstd, rows, MB_DTYPE_F32) && norm_vector_fits(w, n, x->dtype) &&
                   norm_vector_fits(b, n, x->dtype),
               MB_EBUG, "layernorm_fwd: shapes or types do not fit");
    if (rows * n == 0)
        return MB_OK;
    MB_CUDA_DISPATCH(
        x->dtype, MB_TRY((forward<T, false>(ex, y, nullptr, mean, rstd, x, nullptr, w, b, eps))));
    return MB_OK;
}

extern "C" mb_status mb_cuda_add_layernorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *sum,
                                               mb_tensor *mean, mb_tensor *rstd, const mb_tensor *a,
                                               const mb_tensor *b, const mb_tensor *w,
                                               const mb_tensor *bias, float eps)
{
    const int64_t rows = mb_rows(a), n = mb_cols(a);

    MB_REQUIRE(norm_fits(y, a) && norm_fits(sum, a) && norm_fits(b, a) &&
                   norm_vector_fits(mean, rows, MB_DTYPE_F32) &&
                   norm_vector_fits(rstd, rows, MB_DTYPE_F32) && norm_vector_fits(w, n, a->dtype) &&
                   norm_vector_fits(bias, n, a->dtype),
               MB_EBUG, "add_layernorm_fwd: shapes or types do not fit");
    if (rows * n == 0)
        return MB_OK;
    MB_CUDA_DISPATCH(a->dtype,
                     MB_TRY((forward<T, true>(ex, y, sum, mean, rstd, a, b, w, bias, eps))));
    return MB_OK;
}

extern "C" size_t mb_cuda_layernorm_bwd_workspace(mb_exec *, mb_tensor *, mb_tensor *dw,
                                                  mb_tensor *db, const mb_tensor *dy,
                                                  const mb_tensor *, const mb_tensor *,
                                                  const mb_tensor *, const mb_tensor *, bool)
{
    const int64_t n = mb_cols(dy), sums = (dw != nullptr) + (db != nullptr);

    return sizeof(float) * (size_t)(sums * norm_blocks(mb_rows(dy), n) * n);
}

extern "C" mb_status mb_cuda_layernorm_bwd(mb_exec *ex, mb_tensor *dx, mb_tensor *dw, mb_tensor *db,
                                           const mb_tensor *dy, const mb_tensor *x,
                                           const mb_tensor *w, const mb_tensor *mean,
                                           const mb_tensor *rstd, bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x), blocks = norm_blocks(rows, n);
    float *const partial = static_cast<float *>(ex->workspace);
    float *const pw = dw == nullptr ? nullptr : partial;
    float *const pb = db == nullptr ? nullptr : partial + (dw == nullptr ? 0 : blocks * n);

    MB_REQUIRE(norm_fits(dx, x) && norm_fits(dy, x) && norm_vector_fits(w, n, x->dtype) &&
                   norm_vector_fits(mean, rows, MB_DTYPE_F32) &&
                   norm_vector_fits(rstd, rows, MB_DTYPE_F32) &&
                   norm_vector_fits(dw, n, MB_DTYPE_F32) && norm_vector_fits(db, n, MB_DTYPE_F32),
               MB_EBUG, "layernorm_bwd: shapes or types do not fit");
    if (rows * n == 0 || (dx == nullptr && dw == nullptr && db == nullptr))
        return MB_OK;
    MB_CUDA_DISPATCH(x->dtype, MB_TRY(backward<T>(ex, dx, pw, pb, dy, x, w, mean, rstd, acc)));
    if (dw != nullptr)
        MB_LAUNCH(ex, norm_add_partials, mb_div_up(n, 32), 32 * PARTIAL_WARPS, 0, mb_f32(dw), pw,
                  (int)blocks, (int)n);
    if (db != nullptr)
        MB_LAUNCH(ex, norm_add_partials, mb_div_up(n, 32), 32 * PARTIAL_WARPS, 0, mb_f32(db), pb,
                  (int)blocks, (int)n);
    return MB_OK;
}
