/* core/cuda/dequantise.cu - GGUF blocks to f32, bf16 or f16.
 *
 * Formats as in ggml-common.h (ggml-org/ggml); core/cpu/dequantise.c describes the bytes of each.
 * The f32 values are the CPU's bit for bit: products and sums in its order, built without contraction
 * to fused multiply-add. 16-bit types are these values, rounded.
 *
 * A thread writes 16 bytes: 4 or 8 neighbours, which always lie within one group and half of a block.
 * Neighbouring threads share a block's bytes through the first-level cache; blocks are of odd sizes,
 * so their bytes are read one by one.
 */
#include "core/cuda/cuda.h"

namespace {

enum { BLOCK = 256, QK = 32, QK_K = 256 };

MB_DEVICE float half_at(const uint8_t *x)
{
    const mb_f16 h = {(uint16_t)(x[0] | x[1] << 8)};

    return mb_to_f32(h);
}

/* Each type: elements and bytes of a block, and `values`: elements at .. at + N - 1 of block x. */

/* d, 16 bytes: d (q - 8) */
struct q4_0 {
    enum { LENGTH = QK, BYTES = 18 };
    template <int N> static MB_DEVICE void values(float (&y)[N], const uint8_t *x, int at)
    {
        const float d = half_at(x);
        const int shift = at / 16 * 4;

        MB_UNROLL
        for (int i = 0; i < N; i++)
            y[i] = d * (float)((x[2 + at % 16 + i] >> shift & 15) - 8);
    }
};

/* d, m, 16 bytes: d q + m */
struct q4_1 {
    enum { LENGTH = QK, BYTES = 20 };
    template <int N> static MB_DEVICE void values(float (&y)[N], const uint8_t *x, int at)
    {
        const float d = half_at(x), m = half_at(x + 2);
        const int shift = at / 16 * 4;

        MB_UNROLL
        for (int i = 0; i < N; i++)
            y[i] = d * (float)(x[4 + at % 16 + i] >> shift & 15) + m;
    }
};

/* The fifth bit of element at + i, as 16 or 0; `x`: 32 bits, `at` a multiple of 4. */
MB_DEVICE int fifth_bit(const uint8_t *x, int at, int i)
{
    return (x[(at + i) / 8] >> (at + i) % 8 & 1) << 4;
}

/* d, 32 fifth bits, 16 bytes: d (q - 16) */
struct q5_0 {
    enum { LENGTH = QK, BYTES = 22 };
    template <int N> static MB_DEVICE void values(float (&y)[N], const uint8_t *x, int at)
    {
        const float d = half_at(x);
        const int shift = at / 16 * 4;

        MB_UNROLL
        for (int i = 0; i < N; i++)
            y[i] = d * (float)(((x[6 + at % 16 + i] >> shift & 15) | fifth_bit(x + 2, at, i)) - 16);
    }
};

/* d, m, 32 fifth bits, 16 bytes: d q + m */
struct q5_1 {
    enum { LENGTH = QK, BYTES = 24 };
    template <int N> static MB_DEVICE void values(float (&y)[N], const uint8_t *x, int at)
    {
        const float d = half_at(x), m = half_at(x + 2);
        const int shift = at / 16 * 4;

        MB_UNROLL
        for (int i = 0; i < N; i++)
            y[i] = d * (float)((x[8 + at % 16 + i] >> shift & 15) | fifth_bit(x + 4, at, i)) + m;
    }
};

/* d, 32 signed bytes: q d */
struct q8_0 {
    enum { LENGTH = QK, BYTES = 34 };
    template <int N> static MB_DEVICE void values(float (&y)[N], const uint8_t *x, int at)
    {
        const float d = half_at(x);

        MB_UNROLL
        for (int i = 0; i < N; i++)
            y[i] = (float)(int8_t)x[2 + at + i] * d;
    }
};

/* 16 bytes of 4-bit scale and minimum, 64 bytes of 2-bit q, d, dmin: (d sc) q - (dmin mn), groups
 * of 16. */
struct q2_k {
    enum { LENGTH = QK_K, BYTES = 84 };
    template <int N> static MB_DEVICE void values(float (&y)[N], const uint8_t *x, int at)
    {
        const int g = at / 16, shift = g % 8 / 2 * 2;
        const float dl = half_at(x + 80) * (float)(x[g] & 15);
        const float ml = half_at(x + 82) * (float)(x[g] >> 4);
        const uint8_t *from = x + 16 + g / 8 * 32 + at % 32;

        MB_UNROLL
        for (int i = 0; i < N; i++)
            y[i] = dl * (float)(from[i] >> shift & 3) - ml;
    }
};

/* 32 bytes of third bits, 64 bytes of 2-bit q, 12 bytes of sixteen 6-bit scales, d:
 * d (sc - 32) (q - 4 [bit clear]), groups of 16. */
struct q3_k {
    enum { LENGTH = QK_K, BYTES = 110 };
    template <int N> static MB_DEVICE void values(float (&y)[N], const uint8_t *x, int at)
    {
        const int g = at / 16, shift = g % 8 / 2 * 2;
        const uint8_t *packed = x + 96;
        const int low = packed[g % 8] >> (g / 8 * 4) & 15;
        const int high = packed[8 + g % 4] >> (g / 4 * 2) & 3;
        const float dl = half_at(x + 108) * (float)((low | high << 4) - 32);
        const uint8_t *from = x + 32 + g / 8 * 32 + at % 32, *bit = x + at % 32;

        MB_UNROLL
        for (int i = 0; i < N; i++)
            y[i] = dl * (float)((from[i] >> shift & 3) - ((bit[i] >> (g / 2) & 1) != 0 ? 0 : 4));
    }
};

/* Scale and minimum of a group of Q4_K and Q5_K, 6 bits each. */
MB_DEVICE void scale_min(float *dl, float *ml, const uint8_t *x, int g)
{
    const uint8_t *s = x + 4;
    const int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | (s[g - 4] >> 2 & 48);
    const int min = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | (s[g] >> 2 & 48);

    *dl = half_at(x) * (float)scale;
    *ml = half_at(x + 2) * (float)min;
}

/* d, dmin, 12 bytes of scales, 128 bytes: (d sc) q - (dmin mn), groups of 32. */
struct q4_k {
    enum { LENGTH = QK_K, BYTES = 144 };
    template <int N> static MB_DEVICE void values(float (&y)[N], const uint8_t *x, int at)
    {
        const int g = at / 32, shift = g % 2 * 4;
        const uint8_t *from = x + 16 + g / 2 * 32 + at % 32;
        float dl, ml;

        scale_min(&dl, &ml, x, g);
        MB_UNROLL
        for (int i = 0; i < N; i++)
            y[i] = dl * (float)(from[i] >> shift & 15) - ml;
    }
};

/* As Q4_K with 32 bytes of fifth bits (bit g of byte i for group g) before the nibbles. */
struct q5_k {
    enum { LENGTH = QK_K, BYTES = 176 };
    template <int N> static MB_DEVICE void values(float (&y)[N], const uint8_t *x, int at)
    {
        const int g = at / 32, shift = g % 2 * 4;
        const uint8_t *from = x + 48 + g / 2 * 32 + at % 32, *high = x + 16 + at % 32;
        float dl, ml;

        scale_min(&dl, &ml, x, g);
        MB_UNROLL
        for (int i = 0; i < N; i++)
            y[i] = dl * (float)((from[i] >> shift & 15) | (high[i] >> g & 1) << 4) - ml;
    }
};

/* 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, d: (d sc) (q - 32), groups
 * of 16. */
struct q6_k {
    enum { LENGTH = QK_K, BYTES = 210 };
    template <int N> static MB_DEVICE void values(float (&y)[N], const uint8_t *x, int at)
    {
        const int g = at / 16, half = g / 8, part = g % 8;
        const float dl = half_at(x + 208) * (float)(int8_t)x[192 + g];
        const uint8_t *l = x + 64 * half + at % 64, *h = x + 128 + 32 * half + at % 32;
        const int shift = part / 4 * 4, pair = part / 2 * 2;

        MB_UNROLL
        for (int i = 0; i < N; i++)
            y[i] = dl * (float)(((l[i] >> shift & 15) | (h[i] >> pair & 3) << 4) - 32);
    }
};

/* A row of blocks takes `row_bytes`; a thread block has BLOCK * N columns of a row, `parts` of these
 * make a row. */
template <typename Q, typename T>
MB_GLOBAL MB_BOUNDS(BLOCK) void dequantise_kernel(mb_mat<T> y, const uint8_t *x, int64_t row_bytes,
                                                  uint32_t parts, bool vector)
{
    constexpr int N = 16 / (int)sizeof(T);
    const int64_t r = blockIdx.x / parts;
    const int64_t c = ((int64_t)(blockIdx.x % parts) * BLOCK + threadIdx.x) * N;
    float f[N];

    if (c >= y.cols)
        return;
    Q::values(f, x + r * row_bytes + c / Q::LENGTH * Q::BYTES, (int)(c % Q::LENGTH));
    if (vector) {
        mb_store(y.row(r) + c, f);
        return;
    }
    MB_UNROLL
    for (int i = 0; i < N; i++)
        y.row(r)[c + i] = mb_from_f32<T>(f[i]);
}

template <typename Q, typename T> mb_status launch(mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    constexpr int N = 16 / (int)sizeof(T);
    const mb_tensor *const all[] = {y};
    mb_mat<T> m = mb_mat_of<T>(y);
    int64_t row_bytes = mb_row_stride(x) / Q::LENGTH * Q::BYTES;

    MB_REQUIRE(m.cols % Q::LENGTH == 0, MB_ESHAPE,
               "dequantise: rows of %lld elements are not whole blocks of %s (%lld)",
               (long long)m.cols, mb_dtype_name(x->dtype), (long long)Q::LENGTH);
    if (mb_tensor_is_contiguous(y) && mb_tensor_is_contiguous(x)) {
        m.cols *= m.rows;
        m.rows = 1;
        row_bytes = 0;
    }
    const int64_t parts = mb_div_up(m.cols, BLOCK * N);

    MB_LAUNCH(ex, (dequantise_kernel<Q, T>), m.rows * parts, BLOCK, 0, m,
              static_cast<const uint8_t *>(x->data), row_bytes, (uint32_t)parts,
              mb_vec_width<T>(1, all, N) == N);
    return MB_OK;
}

template <typename T> mb_status dequantise(mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    switch (x->dtype) {
    case MB_DTYPE_Q4_0:
        return launch<q4_0, T>(ex, y, x);
    case MB_DTYPE_Q4_1:
        return launch<q4_1, T>(ex, y, x);
    case MB_DTYPE_Q5_0:
        return launch<q5_0, T>(ex, y, x);
    case MB_DTYPE_Q5_1:
        return launch<q5_1, T>(ex, y, x);
    case MB_DTYPE_Q8_0:
        return launch<q8_0, T>(ex, y, x);
    case MB_DTYPE_Q2_K:
        return launch<q2_k, T>(ex, y, x);
    case MB_DTYPE_Q3_K:
        return launch<q3_k, T>(ex, y, x);
    case MB_DTYPE_Q4_K:
        return launch<q4_k, T>(ex, y, x);
    case MB_DTYPE_Q5_K:
        return launch<q5_k, T>(ex, y, x);
    case MB_DTYPE_Q6_K:
        return launch<q6_k, T>(ex, y, x);
    default:
        return MB_RAISE(MB_ENOTSUP, "dequantise: no kernel for %s", mb_dtype_name(x->dtype));
    }
}

} // namespace

extern "C" mb_status mb_cuda_dequantise(mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    if (!mb_dtype_is_quantised(x->dtype))
        return mb_cuda_cast(ex, y, x);
    MB_REQUIRE(mb_rows(y) == mb_rows(x) && mb_cols(y) == mb_cols(x), MB_EBUG,
               "dequantise: shapes do not fit");
    if (mb_tensor_count(y) == 0)
        return MB_OK;
    MB_CUDA_DISPATCH(y->dtype, MB_TRY(dequantise<T>(ex, y, x)));
    return MB_OK;
}
