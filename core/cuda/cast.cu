/* core/cuda/cast.cu - conversions between ordinary element types.
 *
 * Everything goes through f32 and is rounded to nearest even. Between f32, bf16 and f16 the bits are
 * those of the CPU, those of NaN included: the hardware makes one NaN of all, hence the extra look.
 * Other types occur when a model is loaded and take one plain kernel. A conversion that would have
 * to report values that do not fit (I64 to I32) needs the host and is refused.
 */
#include "core/cuda/each.h"

namespace {

MB_DEVICE bool is_nan(float f)
{
    return (mb_bits(f) & 0x7fffffffu) > 0x7f800000u;
}

MB_DEVICE float decode(float x)
{
    return x;
}

MB_DEVICE float decode(mb_bf16 x)
{
    return mb_from_bits((uint32_t)x.u << 16);
}

MB_DEVICE float decode(mb_f16 x)
{
    const uint32_t nan = 0x7f800000u | (uint32_t)(x.u & 0x3ffu) << 13;

    return (x.u & 0x7fffu) > 0x7c00u ? mb_from_bits((uint32_t)(x.u & 0x8000u) << 16 | nan)
                                     : mb_to_f32(x);
}

template <typename T> MB_DEVICE T encode(float f);

template <> MB_DEVICE float encode<float>(float f)
{
    return f;
}

template <> MB_DEVICE mb_bf16 encode<mb_bf16>(float f)
{
    return is_nan(f) ? mb_bf16{(uint16_t)(mb_bits(f) >> 16 | 0x40u)} : mb_from_f32<mb_bf16>(f);
}

template <> MB_DEVICE mb_f16 encode<mb_f16>(float f)
{
    return is_nan(f) ? mb_f16{(uint16_t)((mb_bits(f) >> 16 & 0x8000u) | 0x7e00u)}
                     : mb_from_f32<mb_f16>(f);
}

template <typename Y, typename X
> struct cast_each {
    mb_mat<Y> y;
    mb_mat < const X
    > x;

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        const mb_vec < X
        , N > in = *reinterpret_cast < const mb_vec < X
        , N > * > (x.row(row) + col);
        mb_vec<Y, N> out;

        MB_UNROLL
        for (int i = 0; i < N; i++)
            out.at[i] = encode<Y>(decode(in.at[i]));
        *reinterpret_cast<mb_vec<Y, N> *>(y.row(row) + col) = out;
    }
};

/* ---- any other type -------------------------------------------------------------------------- */

struct any_each {
    void *y;
    const void *x;
    int64_t y_stride, x_stride;
    mb_dtype to, from;

    MB_DEVICE float load(int64_t i) const
    {
        switch (from) {
        case MB_DTYPE_F16:
            return decode(static_cast<const mb_f16 *>(x)[i]);
        case MB_DTYPE_BF16:
            return decode(static_cast<const mb_bf16 *>(x)[i]);
        case MB_DTYPE_F64:
            return (float)static_cast<const double *>(x)[i];
        case MB_DTYPE_I8:
            return (float)static_cast<const int8_t *>(x)[i];
        case MB_DTYPE_U8:
            return (float)static_cast<const uint8_t *>(x)[i];
        case MB_DTYPE_I16:
            return (float)static_cast<const int16_t *>(x)[i];
        case MB_DTYPE_U16:
            return (float)static_cast<const uint16_t *>(x)[i];
        case MB_DTYPE_I32:
            return (float)static_cast<const int32_t *>(x)[i];
        case MB_DTYPE_U32:
            return (float)static_cast<const uint32_t *>(x)[i];
        case MB_DTYPE_I64:
            return (float)static_cast<const int64_t *>(x)[i];
        case MB_DTYPE_U64:
            return (float)static_cast<const uint64_t *>(x)[i];
        case MB_DTYPE_BOOL: /* whatever the byte holds, not zero is true */
            return static_cast<const uint8_t *>(x)[i] != 0 ? 1.0f : 0.0f;
        default:
            return static_cast<const float *>(x)[i];
        }
    }

    MB_DEVICE void store(int64_t i, float f) const
    {
        switch (to) {
        case MB_DTYPE_F16:
            static_cast<mb_f16 *>(y)[i] = encode<mb_f16>(f);
            break;
        case MB_DTYPE_BF16:
            static_cast<mb_bf16 *>(y)[i] = encode<mb_bf16>(f);
            break;
        case MB_DTYPE_F64:
            static_cast<double *>(y)[i] = (double)f;
            break;
        default:
            static_cast<float *>(y)[i] = f;
            break;
        }
    }

    template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
    {
        const int64_t in = row * x_stride + col, out = row * y_stride + col;

        if (to == MB_DTYPE_I64) /* from I32 */
            static_cast<int64_t *>(y)[out] = static_cast<const int32_t *>(x)[in];
        else
            store(out, load(in));
    }
};

bool is_float(mb_dtype d)
{
    return d == MB_DTYPE_F32 || d == MB_DTYPE_BF16 || d == MB_DTYPE_F16;
}

/* Of an I32 and wider F64 would get more than the f32 in between has. */
bool supported(mb_dtype to, mb_dtype from)
{
    if (to == MB_DTYPE_I64)
        return from == MB_DTYPE_I32;
    if (to == MB_DTYPE_F64 && (from == MB_DTYPE_I32 || from == MB_DTYPE_U32 ||
                               from == MB_DTYPE_I64 || from == MB_DTYPE_U64))
        return false;
    return (is_float(to) || to == MB_DTYPE_F64) && !mb_dtype_is_quantised(from);
}

template <typename Y, typename X
> mb_status cast_floats(const mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    const mb_tensor *const t[] = {y, x};
    mb_each e;

    MB_TRY(mb_each_of("cast", 2, t, 4, &e));
    return mb_each_run<4>(
        ex, e, cast_each<Y, X> {
            mb_mat_of<Y>(y), mb_mat_of < const X
            > (x)
        });
}

template <typename X
> mb_status cast_from(const mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    MB_CUDA_DISPATCH(y->dtype, return (cast_floats<T, X>(ex, y, x)));
    return MB_OK;
}

} // namespace

mb_status mb_cuda_cast(mb_exec *ex, mb_tensor *y, const mb_tensor *x)
{
    const mb_dtype to = y->dtype, from = x->dtype;
    const mb_tensor *const t[] = {y, x};
    mb_each e;

    if (to == from)
        return mb_cuda_copy(ex, y, x);
    MB_REQUIRE(supported(to, from), MB_ENOTSUP, "cast: no conversion from %s to %s",
               mb_dtype_name(from), mb_dtype_name(to));
    if (is_float(to) && is_float(from)) {
        MB_CUDA_DISPATCH(from, return cast_from<T>(ex, y, x));
        return MB_OK;
    }
    MB_TRY(mb_each_of("cast", 2, t, 1, &e));
    return mb_each_launch<1>(
        ex, e, any_each{y->data, x->data, mb_row_stride(y), mb_row_stride(x), to, from});
}
