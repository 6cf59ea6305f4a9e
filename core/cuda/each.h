/* core/cuda/each.h - kernels that treat every element alike.
 *
 * Such a kernel is a struct that holds its matrices and has a method
 *
 *     template <int N> MB_DEVICE void at(int64_t row, int64_t col) const
 *
 * for N neighbouring elements; mb_each_run calls it for all of them. Every element is read and
 * written by one thread, loads first, so outputs may stand where inputs stood. Contiguous tensors
 * are one long row. 16-byte moves need aligned starts and strides only: the odd end of a row is
 * done one by one.
 */
#ifndef MB_CORE_CUDA_EACH_H
#define MB_CORE_CUDA_EACH_H

#include "core/cuda/cuda.h"

/* The grid's bound leaves each thread enough work on long arrays and the last wave small. */
constexpr int MB_EACH_BLOCK = 256;
constexpr int64_t MB_EACH_GRID = 16384;

/* How the threads of a grid of `blocks` share rows of `per_row` units. Only the first place of a
 * thread needs a division, and that one fits 32 bits. */
struct mb_walk {
    int64_t rows, per_row;
    int64_t step_rows, step_units; /* of all threads together */
    int64_t blocks;

    struct place {
        int64_t row, unit;
    };

    MB_DEVICE place first() const
    {
        const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;

        if (i < per_row)
            return {0, i};
        return {i / (uint32_t)per_row, i % (uint32_t)per_row};
    }

    MB_DEVICE bool more(const place &p) const
    {
        return p.row < rows;
    }

    MB_DEVICE void next(place &p) const
    {
        p.row += step_rows;
        p.unit += step_units;
        if (p.unit >= per_row) {
            p.unit -= per_row;
            p.row++;
        }
    }
};

static inline mb_walk mb_walk_of(int64_t rows, int64_t per_row)
{
    const int64_t wanted = mb_div_up(rows * per_row, MB_EACH_BLOCK);
    const int64_t blocks = wanted < MB_EACH_GRID ? wanted : MB_EACH_GRID;
    const int64_t step = blocks * MB_EACH_BLOCK, divisor = per_row > 0 ? per_row : 1;

    return {rows, per_row, step / divisor, step % divisor, blocks};
}

struct mb_each {
    int64_t rows = 0, cols = 0;
    int width = 1; /* elements moved at once: what was asked for, or 1 */
};

/* Of n tensors of the same shape; NULL entries are skipped, the first must be there. */
static inline mb_status mb_each_of(const char *kernel, int n, const mb_tensor *const *t, int most,
                                   mb_each *out)
{
    mb_each e = {mb_rows(t[0]), mb_cols(t[0]), most};
    bool merged = true;

    for (int i = 0; i < n; i++) {
        if (t[i] == nullptr)
            continue;
        MB_REQUIRE(mb_rows(t[i]) == e.rows && mb_cols(t[i]) == e.cols, MB_EBUG,
                   "%s: tensors of different shapes", kernel);
        merged = merged && (e.rows <= 1 || mb_tensor_is_contiguous(t[i]));
    }
    if (merged) {
        e.cols *= e.rows;
        e.rows = 1;
    }
    for (int i = 0; i < n; i++) {
        if (t[i] == nullptr)
            continue;
        const int64_t bytes = mb_dtype_block_bytes(t[i]->dtype) * most;

        if (reinterpret_cast<uintptr_t>(t[i]->data) % (uintptr_t)bytes != 0 ||
            (e.rows > 1 && mb_row_stride(t[i]) % most != 0))
            e.width = 1;
    }
    *out = e;
    return MB_OK;
}

/* All of one type, NULL entries skipped. */
static inline mb_status mb_each_alike(const char *kernel, int n, const mb_tensor *const *t)
{
    for (int i = 1; i < n; i++)
        MB_REQUIRE(t[i] == nullptr || t[i]->dtype == t[0]->dtype, MB_EBUG,
                   "%s: tensors of types %s and %s", kernel, mb_dtype_name(t[0]->dtype),
                   mb_dtype_name(t[i]->dtype));
    return MB_OK;
}

template <int N, typename F>
MB_GLOBAL void MB_BOUNDS(MB_EACH_BLOCK) mb_each_kernel(const F f, mb_walk w, int64_t cols)
{
    for (auto p = w.first(); w.more(p); w.next(p)) {
        const int64_t col = p.unit * N;

        if (N == 1 || col + N <= cols)
            f.template at<N>(p.row, col);
        else
            for (int64_t c = col; c < cols; c++)
                f.template at<1>(p.row, c);
    }
}

template <int N, typename F>
static mb_status mb_each_launch(const mb_exec *ex, const mb_each &e, const F &f)
{
    const mb_walk w = mb_walk_of(e.rows, mb_div_up(e.cols, N));

    MB_LAUNCH(ex, (mb_each_kernel<N, F>), w.blocks, MB_EACH_BLOCK, 0, f, w, e.cols);
    return MB_OK;
}

/* `most` is what mb_each_of was asked for. */
template <int most, typename F>
static mb_status mb_each_run(const mb_exec *ex, const mb_each &e, const F &f)
{
    return e.width == most ? mb_each_launch<most>(ex, e, f) : mb_each_launch<1>(ex, e, f);
}

/* Elements of T in 16 bytes. */
template <typename T> constexpr int mb_each_wide = 16 / (int)sizeof(T);

/* ---- rows as bytes, of any type -------------------------------------------------------------- */

/* How many bytes at once, 1 to 16, starts, strides and rows of `bytes` allow for all n tensors. */
static inline int mb_byte_width(int64_t rows, int64_t bytes, int n, const mb_tensor *const *t)
{
    int width = 16;

    for (int i = 0; i < n; i++) {
        const int64_t stride = mb_dtype_bytes(t[i]->dtype, mb_row_stride(t[i]));

        while (bytes % width != 0 || (rows > 1 && stride % width != 0) ||
               reinterpret_cast<uintptr_t>(t[i]->data) % (uintptr_t)width != 0)
            width /= 2;
    }
    return width;
}

/* Runs the statement with U as a type of `width` bytes. */
#define MB_BYTE_DISPATCH(width, ...)       \
    do {                                   \
        switch (width) {                   \
        case 16: {                         \
            using U = mb_vec<uint32_t, 4>; \
            __VA_ARGS__;                   \
        } break;                           \
        case 8: {                          \
            using U = mb_vec<uint32_t, 2>; \
            __VA_ARGS__;                   \
        } break;                           \
        case 4: {                          \
            using U = uint32_t;            \
            __VA_ARGS__;                   \
        } break;                           \
        case 2: {                          \
            using U = uint16_t;            \
            __VA_ARGS__;                   \
        } break;                           \
        default: {                         \
            using U = uint8_t;             \
            __VA_ARGS__;                   \
        } break;                           \
        }                                  \
    } while (0)

#endif
