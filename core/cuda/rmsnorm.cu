/* core/cuda/rmsnorm.cu - RMSNorm (Zhang & Sennrich, arXiv:1910.07467), alone and after a residual
 * addition.
 *
 *     y = v * x * rstd,  v = offset + w,  rstd = 1/sqrt(mean(x^2) + eps)
 *     dx = rstd * (v*dy - x * rstd^2 * mean(v*dy*x)),  dw += sum over rows of dy * x * rstd
 *
 * Rows are shared out as in core/cuda/norm.h. The backward gives a block a run of rows: dx row by
 * row, dw in registers over the run.
 */
#include "core/cuda/norm.h"

namespace {

/* x = a, or, when fused, sum = x = a + b, rounded as `add` would. */
template <typename T, norm_rows R, bool FUSED>
MB_GLOBAL MB_BOUNDS(R == NARROW ? 32 * FORWARD_WARPS : FORWARD_MOST,
                    1) void rmsnorm_fwd(mb_mat<T> y, mb_mat<T> sum, float *rstd, mb_mat<T> a,
                                        mb_mat<T> b, const T *w, float offset, float eps,
                                        bool vector)
{
    constexpr int W = piece<T>::LENGTH, PIECES = norm_pieces<T, R>;
    MB_SHARED(float, part, 64);
    const norm_team<R> team = {part};
    const int64_t r = (int64_t)blockIdx.x * team.count() + team.index();
    const int n = (int)a.cols, first = team.rank() * W, step = team.size() * W;
    piece<T> x[PIECES];
    float squares = 0.0f;

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
                squares += x[k].at(i) * x[k].at(i);
        }
    }
    const float s = 1.0f / sqrtf(team.sum(squares) / (float)n + eps);

    if (rstd != nullptr && team.rank() == 0)
        rstd[r] = s;
    for (int at = first, once = 1; R == LONG ? at < n : once; at += PIECES * step, once = 0) {
        if (R == LONG)
            norm_read_tile(x, (FUSED ? sum : a).row(r), at, step, n, vector);
        MB_UNROLL
        for (int k = 0; k < PIECES; k++) {
            const int c = at + k * step;
            const piece<T> weight = read_piece(w + c, n - c, vector);
            float f[W];

            MB_UNROLL
            for (int i = 0; i < W; i++)
                f[i] = (offset + weight.at(i)) * (x[k].at(i) * s);
            write_piece(y.row(r) + c, pack_piece<T>(f), n - c, vector);
        }
    }
}

/* dx (+)= s * ((offset + w) * dy) - slope * x */
template <typename T, int PIECES>
MB_DEVICE void rmsnorm_dx(T *dx, const piece<T> (&dy)[PIECES], const piece<T> (&x)[PIECES],
                          const T *w, float offset, float s, float slope, bool acc, int at,
                          int step, int n, bool vector)
{
    MB_UNROLL
    for (int k = 0; k < PIECES; k++) {
        const int c = at + k * step;
        const piece<T> weight = read_piece(w + c, n - c, vector);
        piece<T> old = {};
        float f[piece<T>::LENGTH];

        if (acc)
            old = read_piece(dx + c, n - c, vector);
        MB_UNROLL
        for (int i = 0; i < piece<T>::LENGTH; i++) {
            const float d = s * ((offset + weight.at(i)) * dy[k].at(i)) - slope * x[k].at(i);

            f[i] = acc ? old.at(i) + d : d;
        }
        write_piece(dx + c, pack_piece<T>(f), n - c, vector);
    }
}

/* Block i has the rows from i * per on. partial: a row for each block, or NULL; dx.data may be NULL. */
template <typename T, norm_rows R>
MB_GLOBAL MB_BOUNDS(R == NARROW ? 32 * BACKWARD_WARPS : BACKWARD_MOST,
                    1) void rmsnorm_bwd(mb_mat<T> dx, float *partial, mb_mat<T> dy, mb_mat<T> x,
                                        const T *w, float offset, const float *rstd, int64_t per,
                                        bool acc, bool vector)
{
    constexpr int W = piece<T>::LENGTH, PIECES = norm_pieces<T, R>;
    MB_SHARED(float, shared, R == NARROW ? BACKWARD_WARPS * NARROW_COLS : 64);
    const norm_team<R> team = {shared};
    const int n = (int)x.cols, first = team.rank() * W, step = team.size() * W;
    const int64_t begin = (int64_t)blockIdx.x * per;
    const int64_t end = begin + per < x.rows ? begin + per : x.rows;
    float *out = partial == nullptr ? nullptr : partial + (int64_t)blockIdx.x * n;
    piece<T> px[PIECES], pdy[PIECES];
    float dw[PIECES][W] = {};

    for (int64_t r = begin + team.index(); r < end; r += team.count()) {
        const float s = rstd[r];
        float dot = 0.0f;

        for (int at = first, once = 1; R == LONG ? at < n : once; at += PIECES * step, once = 0) {
            norm_read_tile(px, x.row(r), at, step, n, vector);
            norm_read_tile(pdy, dy.row(r), at, step, n, vector);
            MB_UNROLL
            for (int k = 0; k < PIECES; k++) {
                const int c = at + k * step;
                const piece<T> weight = read_piece(w + c, n - c, vector);

                MB_UNROLL
                for (int i = 0; i < W; i++) {
                    const float product = pdy[k].at(i) * (px[k].at(i) * s);

                    dot += (offset + weight.at(i)) * pdy[k].at(i) * px[k].at(i);
                    if (R != LONG)
                        dw[k][i] += product;
                    else if (out != nullptr && c + i < n)
                        out[c + i] = (r == begin ? 0.0f : out[c + i]) + product;
                }
            }
        }
        if (dx.data == nullptr)
            continue;
        const float slope = team.sum(dot) * s * s * s / (float)n;
        for (int at = first, once = 1; R == LONG ? at < n : once; at += PIECES * step, once = 0) {
            if (R == LONG) {
                norm_read_tile(px, x.row(r), at, step, n, vector);
                norm_read_tile(pdy, dy.row(r), at, step, n, vector);
            }
            rmsnorm_dx(dx.row(r), pdy, px, w, offset, s, slope, acc, at, step, n, vector);
        }
    }
    if (R != LONG && out != nullptr)
        norm_write_sums<R>(out, dw, shared, n);
}

template <typename T, bool FUSED>
mb_status forward(mb_exec *ex, mb_tensor *y, mb_tensor *sum, mb_tensor *rstd, const mb_tensor *a,
                  const mb_tensor *b, const mb_tensor *w, float offset, float eps)
{
    const int64_t rows = mb_rows(a), n = mb_cols(a);
    const mb_tensor *const all[] = {y, sum, a, b, w};
    const bool vector = whole_pieces<T>(all);
    const mb_mat<T> ym = mb_mat_of<T>(y), sm = mb_mat_of<T>(sum), am = mb_mat_of<T>(a);
    const mb_mat<T> bm = mb_mat_of<T>(b);
    const T *weight = static_cast<const T *>(w->data);
    const int block = norm_block(n, FORWARD_MOST);

    switch (norm_rows_of(n, FORWARD_MOST)) {
    case NARROW:
        MB_LAUNCH(ex, (rmsnorm_fwd<T, NARROW, FUSED>), mb_div_up(rows, FORWARD_WARPS),
                  32 * FORWARD_WARPS, 0, ym, sm, norm_f32(rstd), am, bm, weight, offset, eps,
                  vector);
        break;
    case WIDE:
        MB_LAUNCH(ex, (rmsnorm_fwd<T, WIDE, FUSED>), rows, block, 0, ym, sm, norm_f32(rstd), am, bm,
                  weight, offset, eps, vector);
        break;
    case LONG:
        MB_LAUNCH(ex, (rmsnorm_fwd<T, LONG, FUSED>), rows, block, 0, ym, sm, norm_f32(rstd), am, bm,
                  weight, offset, eps, vector);
        break;
    }
    return MB_OK;
}

template <typename T>
mb_status backward(mb_exec *ex, mb_tensor *dx, float *partial, const mb_tensor *dy,
                   const mb_tensor *x, const mb_tensor *w, float offset, const mb_tensor *rstd,
                   bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);
    const mb_tensor *const all[] = {dx, dy, x, w};
    const bool vector = whole_pieces<T>(all);
    const mb_mat<T> dxm = mb_mat_of<T>(dx), dym = mb_mat_of<T>(dy), xm = mb_mat_of<T>(x);
    const T *weight = static_cast<const T *>(w->data);
    const int block = norm_block(n, BACKWARD_MOST);
    const int64_t teams = n <= NARROW_COLS ? BACKWARD_WARPS : 1;
    const int64_t per = partial == nullptr ? teams : norm_rows_per_block(rows, n);
    const int64_t blocks = mb_div_up(rows, per);

    switch (norm_rows_of(n, BACKWARD_MOST)) {
    case NARROW:
        MB_LAUNCH(ex, (rmsnorm_bwd<T, NARROW>), blocks, 32 * BACKWARD_WARPS, 0, dxm, partial, dym,
                  xm, weight, offset, mb_f32(rstd), per, acc, vector);
        break;
    case WIDE:
        MB_LAUNCH(ex, (rmsnorm_bwd<T, WIDE>), blocks, block, 0, dxm, partial, dym, xm, weight,
                  offset, mb_f32(rstd), per, acc, vector);
        break;
    case LONG:
        MB_LAUNCH(ex, (rmsnorm_bwd<T, LONG>), blocks, block, 0, dxm, partial, dym, xm, weight,
                  offset, mb_f32(rstd), per, acc, vector);
        break;
    }
    return MB_OK;
}

} // namespace

extern "C" mb_status mb_cuda_rmsnorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *rstd,
                                         const mb_tensor *x, const mb_tensor *w, float offset,
                                         float eps)
{
    MB_REQUIRE(norm_fits(y, x) && norm_vector_fits(rstd, mb_rows(x), MB_DTYPE_F32) &&
                   norm_vector_fits(w, mb_cols(x), x->dtype),
               MB_EBUG, "rmsnorm_fwd: shapes or types do not fit");
    if (mb_tensor_count(x) == 0)
        return MB_OK;
    MB_CUDA_DISPATCH(x->dtype,
                     MB_TRY((forward<T, false>(ex, y, nullptr, rstd, x, nullptr, w, offset, eps))));
    return MB_OK;
}

extern "C" mb_status mb_cuda_add_rmsnorm_fwd(mb_exec *ex, mb_tensor *y, mb_tensor *sum,
                                             mb_tensor *rstd, const mb_tensor *a,
                                             const mb_tensor *b, const mb_tensor *w, float offset,
                                             float eps)
{
    MB_REQUIRE(norm_fits(y, a) && norm_fits(sum, a) && norm_fits(b, a) &&
                   norm_vector_fits(rstd, mb_rows(a), MB_DTYPE_F32) &&
                   norm_vector_fits(w, mb_cols(a), a->dtype),
               MB_EBUG, "add_rmsnorm_fwd: shapes or types do not fit");
    if (mb_tensor_count(a) == 0)
        return MB_OK;
    MB_CUDA_DISPATCH(a->dtype, MB_TRY((forward<T, true>(ex, y, sum, rstd, a, b, w, offset, eps))));
    return MB_OK;
}

extern "C" size_t mb_cuda_rmsnorm_bwd_workspace(mb_exec *, mb_tensor *, mb_tensor *dw,
                                                const mb_tensor *dy, const mb_tensor *,
                                                const mb_tensor *, float, const mb_tensor *, bool)
{
    const int64_t n = mb_cols(dy);

    return dw == nullptr ? 0 : sizeof(float) * (size_t)(norm_blocks(mb_rows(dy), n) * n);
}

extern "C" mb_status mb_cuda_rmsnorm_bwd(mb_exec *ex, mb_tensor *dx, mb_tensor *dw,
                                         const mb_tensor *dy, const mb_tensor *x,
                                         const mb_tensor *w, float offset, const mb_tensor *rstd,
                                         bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x);
    float *partial = dw == nullptr ? nullptr : static_cast<float *>(ex->workspace);

    MB_REQUIRE(norm_fits(dx, x) && norm_fits(dy, x) && norm_vector_fits(w, n, x->dtype) &&
                   norm_vector_fits(rstd, rows, MB_DTYPE_F32) &&
                   norm_vector_fits(dw, n, MB_DTYPE_F32),
               MB_EBUG, "rmsnorm_bwd: shapes or types do not fit");
    if (rows * n == 0 || (dx == nullptr && dw == nullptr))
        return MB_OK;
    MB_CUDA_DISPATCH(x->dtype, MB_TRY(backward<T>(ex, dx, partial, dy, x, w, offset, rstd, acc)));
    if (dw != nullptr)
        MB_LAUNCH(ex, norm_add_partials, mb_div_up(n, 32), 32 * PARTIAL_WARPS, 0, mb_f32(dw),
                  partial, (int)norm_blocks(rows, n), (int)n);
    return MB_OK;
}
