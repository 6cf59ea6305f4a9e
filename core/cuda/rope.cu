/* core/cuda/rope.cu - rotary position embedding (Su et al., arXiv:2104.09864), half layout.
 *
 * In each head, for i < half:  y[i] = x[i] cos - x[i+half] sin,  y[i+half] = x[i+half] cos +
 * x[i] sin, with the angles of the row's position. The inverse is the rotation by -angle.
 *
 * A thread has N neighbouring pairs and treats them in a few heads of the row, so that the angles
 * are read once for these. Neighbouring threads have neighbouring pairs, then the next heads.
 */
#include "core/cuda/each.h"

namespace {

enum { HEADS = 4 }; /* per thread */

struct angles {
    mb_mat<const float> cosine, sine;
    const int32_t *position;
};

struct layout {
    int head_dim, half, heads;
    int units;  /* threads per head */
    float sign; /* -1: backwards */
};

template <int N, typename T> MB_DEVICE void put(T *to, float (&what)[N], bool acc)
{
    if (acc) {
        float old[N];

        mb_load<N>(old, to);
        MB_UNROLL
        for (int i = 0; i < N; i++)
            what[i] += old[i];
    }
    mb_store<N>(to, what);
}

template <int N, typename T>
MB_DEVICE void rotate(T *y, const T *x, const float (&c)[N], const float (&s)[N], int half,
                      bool acc)
{
    float a[N], b[N], low[N], high[N];

    mb_load<N>(a, x);
    mb_load<N>(b, x + half);
    MB_UNROLL
    for (int i = 0; i < N; i++) {
        low[i] = mb_mul(a[i], c[i]) - mb_mul(b[i], s[i]);
        high[i] = mb_mul(b[i], c[i]) + mb_mul(a[i], s[i]);
    }
    put<N>(y, low, acc);
    put<N>(y + half, high, acc);
}

template <typename T, int N>
MB_GLOBAL void MB_BOUNDS(MB_EACH_BLOCK)
    rope_kernel(mb_mat<T> y, mb_mat<const T> x, angles an, layout l, bool acc, mb_walk w)
{
    for (auto p = w.first(); w.more(p); w.next(p)) {
        const int group = (int)p.unit / l.units, pair = ((int)p.unit - group * l.units) * N;
        const int from = group * HEADS, to = from + HEADS < l.heads ? from + HEADS : l.heads;
        const T *in = x.row(p.row);
        T *out = y.row(p.row);

        if (pair < l.half) {
            const int64_t angle = an.position[p.row];
            float c[N], s[N];

            mb_load<N>(c, an.cosine.row(angle) + pair);
            mb_load<N>(s, an.sine.row(angle) + pair);
            MB_UNROLL
            for (int k = 0; k < N; k++)
                s[k] *= l.sign;
            MB_UNROLL_BY(2)
            for (int h = from; h < to; h++) {
                const int64_t at = (int64_t)h * l.head_dim + pair;

                rotate<N>(out + at, in + at, c, s, l.half, acc);
            }
        } else { /* what is not rotated */
            for (int h = from; h < to; h++) {
                const int64_t at = (int64_t)h * l.head_dim + l.half + pair;
                float v[N];

                mb_load<N>(v, in + at);
                put<N>(out + at, v, acc);
            }
        }
    }
}

template <typename T, int N>
mb_status launch(const mb_exec *ex, mb_tensor *y, const mb_tensor *x, const angles &an, layout l,
                 bool acc)
{
    l.units = (l.head_dim - l.half) / N;
    const mb_walk w = mb_walk_of(mb_rows(x), mb_div_up(l.heads, HEADS) * l.units);

    MB_LAUNCH(ex, (rope_kernel<T, N>), w.blocks, MB_EACH_BLOCK, 0, mb_mat_of<T>(y),
              mb_mat_of<const T>(x), an, l, acc, w);
    return MB_OK;
}

} // namespace

mb_status mb_cuda_rope(mb_exec *ex, mb_tensor *y, const mb_tensor *x, const mb_tensor *cos_table,
                       const mb_tensor *sin_table, const mb_tensor *positions, int64_t head_dim,
                       bool inverse, bool acc)
{
    const int64_t rows = mb_rows(x), n = mb_cols(x), half = mb_cols(cos_table);
    const mb_tensor *const t[] = {y, x}, *const tables[] = {cos_table, sin_table};
    const layout l = {(int)head_dim, (int)half, head_dim > 0 ? (int)(n / head_dim) : 0, 0,
                      inverse ? -1.0f : 1.0f};
    const angles an = {mb_mat_of<const float>(cos_table), mb_mat_of<const float>(sin_table),
                       mb_i32(positions)};

    MB_REQUIRE(n < INT32_MAX && head_dim > 0 && n % head_dim == 0 && half > 0 &&
                   2 * half <= head_dim,
               MB_EBUG, "rope: the heads do not fit the tables");
    MB_REQUIRE(mb_rows(y) == rows && mb_cols(y) == n && mb_tensor_count(positions) == rows &&
                   mb_cols(sin_table) == half,
               MB_EBUG, "rope: shapes that do not fit");
    MB_REQUIRE(cos_table->dtype == MB_DTYPE_F32 && sin_table->dtype == MB_DTYPE_F32, MB_EBUG,
               "rope: tables must be F32");
    MB_TRY(mb_each_alike("rope", 2, t));
    MB_CUDA_DISPATCH(x->dtype, {
        constexpr int most = mb_each_wide<T>;

        if (half % most == 0 && head_dim % most == 0 && mb_vec_width<T>(2, t, most) == most &&
            mb_vec_width<float>(2, tables, most) == most)
            return launch<T, most>(ex, y, x, an, l, acc);
        return launch<T, 1>(ex, y, x, an, l, acc);
    });
    return MB_OK;
}
