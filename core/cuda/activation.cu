/* core/cuda/activation.cu - activation functions and gated units.
 *
 *     silu x/(1+e^-x);  gelu x/2 (1+erf(x/sqrt 2));  gelu_tanh x/2 (1+tanh(sqrt(2/pi)(x+0.044715
 *     x^3)));  relu max(x, 0), slope 0 at 0;  tanh
 *
 * The kernels move memory; which function it is costs them one branch that a whole grid takes
 * alike.
 */
#include "core/cuda/each.h"

namespace {

/* ---- the functions: of x the value v and the slope s ------------------------------------------ */

MB_DEVICE float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

struct silu {
    static MB_DEVICE void at(float x, float &v, float &s)
    {
        const float g = sigmoid(x);

        v = x * g;
        s = g * (1.0f + x * (1.0f - g));
    }
};

struct gelu {
    static MB_DEVICE void at(float x, float &v, float &s)
    {
        const float root_half = 0.70710678f, density = 0.39894228f; /* 1/sqrt(2 pi) */
        const float cdf = 0.5f * (1.0f + erff(x * root_half));

        v = x * cdf;
        s = cdf + x * density * expf(-0.5f * x * x);
    }
};

/* (1 + tanh u)/2 is sigmoid(2u), which needs one exponential and keeps small values exact. Beyond
 * 16 both ends are reached; the bound keeps the cubic from overflowing, and NaN as it is. */
struct gelu_tanh {
    static MB_DEVICE void at(float x, float &v, float &s)
    {
        const float k = 1.59576912f, cubic = 0.044715f; /* k = 2 sqrt(2/pi) */
        const float low = x < -16.0f ? -16.0f : x, c = low > 16.0f ? 16.0f : low;
        const float g = sigmoid(k * (c + cubic * c * c * c));

        v = x * g;
        s = g + c * g * (1.0f - g) * (k * (1.0f + 3.0f * cubic * c * c));
    }
};

struct relu {
    static MB_DEVICE void at(float x, float &v, float &s)
    {
        v = x < 0.0f ? 0.0f : x;
        s = x > 0.0f ? 1.0f : 0.0f;
    }
};

struct hyperbolic {
    static MB_DEVICE void at(float x, float &v, float &s)
    {
        v = tanhf(x);
        s = 1.0f - v * v;
    }
};

template <typename A, int N>
MB_DEVICE void each_of(const float (&x)[N], float (&v)[N], float (&s)[N])
{
    MB_UNROLL
    for (int i = 0; i < N; i++)
        A::at(x[i], v[i], s[i]);
}

template <int N>
MB_DEVICE void activate(mb_activation f, const float (&x)[N], float (&v)[N], float (&s)[N])
{
    switch (f) {
    case MB_ACT_SILU:
        return each_of<silu>(x, v, s);
    case MB_ACT_GELU:
        return each_of<gelu>(x, v, s);
    case MB_ACT_GELU_TANH:
        return each_of<gelu_tanh>(x, v, s);
    case MB_ACT_RELU:
        return each_of<relu>(x, v, s);
    default:
        return each_of<hyperbolic>(x, v, s);
    }
}

/* ---- the kernels ----------------------------------------------------------------------------- */

/* to (+)= what */
template <int N, typename T> MB_DEVICE void put(T *to, float (&what)[N], bool acc)
{
    if (acc) {
        float old[N];

        mb_load<N>(old, to);
        MB_UNROLL
        for (int i = 0; i < N; i++)
            what[i] = old[i] + what[i];
    }
    mb_store<N>(to, what);
}

template <typename T> struct activation_fwd_each {
    mb_mat<T> y;
    mb_mat<const T> x;
    mb_activation f;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        float in[N], value[N], slope[N];

        mb_load<N>(in, x.row(row) + col);
        activate<N>(f, in, value, slope);
        mb_store<N>(y.row(row) + col, value);
    }
};

template <typename T> struct activation_bwd_each {
    mb_mat<T> dx;
    mb_mat<const T> dy, x;
    mb_activation f;
    bool acc;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        float in[N], g[N], value[N], slope[N];

        mb_load<N>(in, x.row(row) + col);
        mb_load<N>(g, dy.row(row) + col);
        activate<N>(f, in, value, slope);
        MB_UNROLL
        for (int i = 0; i < N; i++)
            g[i] = mb_mul(g[i], slope[i]);
        put<N>(dx.row(row) + col, g, acc);
    }
};

template <typename T> struct glu_fwd_each {
    mb_mat<T> y;
    mb_mat<const T> gate, up;
    mb_activation f;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        float in[N], u[N], value[N], slope[N];

        mb_load<N>(in, gate.row(row) + col);
        mb_load<N>(u, up.row(row) + col);
        activate<N>(f, in, value, slope);
        MB_UNROLL
        for (int i = 0; i < N; i++)
            value[i] *= u[i];
        mb_store<N>(y.row(row) + col, value);
    }
};

/* dy may be the place of dgate or dup: everything is loaded before anything is stored. */
template <typename T> struct glu_bwd_each {
    mb_mat<T> dgate, dup;
    mb_mat<const T> dy, gate, up;
    mb_activation f;
    bool acc;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        float in[N], u[N], g[N], value[N], slope[N];

        mb_load<N>(in, gate.row(row) + col);
        mb_load<N>(u, up.row(row) + col);
        mb_load<N>(g, dy.row(row) + col);
        activate<N>(f, in, value, slope);
        MB_UNROLL
        for (int i = 0; i < N; i++) {
            slope[i] = mb_mul(mb_mul(g[i], u[i]), slope[i]);
            value[i] = mb_mul(g[i], value[i]);
        }
        if (dgate.data != nullptr)
            put<N>(dgate.row(row) + col, slope, acc);
        if (dup.data != nullptr)
            put<N>(dup.row(row) + col, value, acc);
    }
};

mb_status known(const char *kernel, mb_activation f)
{
    MB_REQUIRE((int)f >= 0 && f < MB_ACT_COUNT, MB_EBUG, "%s: no activation %d", kernel, (int)f);
    return MB_OK;
}

} // namespace

mb_status mb_cuda_activation_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *x, mb_activation f)
{
    const mb_tensor *const t[] = {y, x};
    mb_each e;

    MB_TRY(known("activation_fwd", f));
    MB_TRY(mb_each_alike("activation_fwd", 2, t));
    MB_CUDA_DISPATCH(x->dtype, {
        MB_TRY(mb_each_of("activation_fwd", 2, t, mb_each_wide<T>, &e));
        return mb_each_run<mb_each_wide<T>>(
            ex, e, activation_fwd_each<T>{mb_mat_of<T>(y), mb_mat_of<const T>(x), f});
    });
    return MB_OK;
}

mb_status mb_cuda_activation_bwd(mb_exec *ex, mb_tensor *dx, const mb_tensor *dy,
                                 const mb_tensor *x, mb_activation f, bool acc)
{
    const mb_tensor *const t[] = {x, dy, dx};
    mb_each e;

    if (dx == nullptr)
        return MB_OK;
    MB_TRY(known("activation_bwd", f));
    MB_TRY(mb_each_alike("activation_bwd", 3, t));
    MB_CUDA_DISPATCH(x->dtype, {
        MB_TRY(mb_each_of("activation_bwd", 3, t, mb_each_wide<T>, &e));
        return mb_each_run<mb_each_wide<T>>(ex, e,
                                            activation_bwd_each<T>{mb_mat_of<T>(dx),
                                                                   mb_mat_of<const T>(dy),
                                                                   mb_mat_of<const T>(x), f, acc});
    });
    return MB_OK;
}

mb_status mb_cuda_glu_fwd(mb_exec *ex, mb_tensor *y, const mb_tensor *gate, const mb_tensor *up,
                          mb_activation f)
{
    const mb_tensor *const t[] = {y, gate, up};
    mb_each e;

    MB_TRY(known("glu_fwd", f));
    MB_TRY(mb_each_alike("glu_fwd", 3, t));
    MB_CUDA_DISPATCH(y->dtype, {
        MB_TRY(mb_each_of("glu_fwd", 3, t, mb_each_wide<T>, &e));
        return mb_each_run<mb_each_wide<T>>(
            ex, e,
            glu_fwd_each<T>{mb_mat_of<T>(y), mb_mat_of<const T>(gate), mb_mat_of<const T>(up), f});
    });
    return MB_OK;
}

mb_status mb_cuda_glu_bwd(mb_exec *ex, mb_tensor *dgate, mb_tensor *dup, const mb_tensor *dy,
                          const mb_tensor *gate, const mb_tensor *up, mb_activation f, bool acc)
{
    const mb_tensor *const t[] = {gate, up, dy, dgate, dup};
    mb_each e;

    if (dgate == nullptr && dup == nullptr)
        return MB_OK;
    MB_TRY(known("glu_bwd", f));
    MB_TRY(mb_each_alike("glu_bwd", 5, t));
    MB_CUDA_DISPATCH(gate->dtype, {
        MB_TRY(mb_each_of("glu_bwd", 5, t, mb_each_wide<T>, &e));
        return mb_each_run<mb_each_wide<T>>(
            ex, e,
            glu_bwd_each<T>{mb_mat_of<T>(dgate), mb_mat_of<T>(dup), mb_mat_of<const T>(dy),
                            mb_mat_of<const T>(gate), mb_mat_of<const T>(up), f, acc});
    });
    return MB_OK;
}
