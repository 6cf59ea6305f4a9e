/* core/cuda/halves.cu - a float as two halves, of which the upper one is a bf16 number by itself. */
#include "core/cuda/each.h"

namespace {

/* lo may be NULL. The device's NaN, all ones, would carry into hi's sign: NaN is another one. */
struct split_each {
    uint16_t *hi, *lo;
    const float *x;

    template <int N> MB_DEVICE void at(int64_t, int64_t col) const
    {
        MB_UNROLL
        for (int i = 0; i < N; i++) {
            const float v = x[col + i];
            const uint32_t bits = v == v ? mb_bits(v) : 0x7fc00000u;

            hi[col + i] = (uint16_t)((bits + 0x8000u) >> 16);
            if (lo != nullptr)
                lo[col + i] = (uint16_t)bits;
        }
    }
};

struct join_each {
    float *x;
    const uint16_t *hi, *lo;

    template <int N> MB_DEVICE void at(int64_t, int64_t col) const
    {
        MB_UNROLL
        for (int i = 0; i < N; i++)
            x[col + i] = mb_from_bits(((uint32_t)hi[col + i] << 16) +
                                      (uint32_t)(int32_t)(int16_t)lo[col + i]);
    }
};

mb_status one_row(const char *kernel, const mb_tensor *x, const mb_tensor *hi, const mb_tensor *lo,
                  mb_each *e)
{
    const mb_tensor *const all[] = {x, hi, lo};

    MB_TRY(mb_each_of(kernel, 3, all, 1, e));
    MB_REQUIRE(e->rows <= 1 && x->dtype == MB_DTYPE_F32 && hi->dtype == MB_DTYPE_BF16, MB_EBUG,
               "%s: gaps between rows, or other types", kernel);
    return MB_OK;
}

} // namespace

mb_status mb_cuda_split_bf16(mb_exec *ex, mb_tensor *hi, mb_tensor *lo, const mb_tensor *x)
{
    const split_each f = {static_cast<uint16_t *>(hi->data),
                          lo != nullptr ? static_cast<uint16_t *>(lo->data) : nullptr,
                          static_cast<const float *>(x->data)};
    mb_each e;

    MB_TRY(one_row("split_bf16", x, hi, lo, &e));
    return mb_each_launch<1>(ex, e, f);
}

mb_status mb_cuda_join_bf16(mb_exec *ex, mb_tensor *x, const mb_tensor *hi, const mb_tensor *lo)
{
    const join_each f = {static_cast<float *>(x->data), static_cast<const uint16_t *>(hi->data),
                         static_cast<const uint16_t *>(lo->data)};
    mb_each e;

    MB_TRY(one_row("join_bf16", x, hi, lo, &e));
    return mb_each_launch<1>(ex, e, f);
}
