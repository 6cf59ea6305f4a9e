/* core/cuda/norm.h - rows as RMSNorm and LayerNorm see them on a GPU.
 *
 * A row belongs to a team: a warp when it is narrow, a block when it is wide. It is cut into pieces
 * of 16 bytes, dealt to the team's threads in turn; a thread adds up its pieces in order, the team
 * adds its threads in one fixed tree. Whether a piece moves as one vector or element by element
 * (rows that are not aligned) changes no order, so a row's bits depend on its contents, width and
 * type alone.
 *
 * A thread takes a tile of PIECES pieces at a time. A row of one tile (NARROW, WIDE) is read once
 * and kept in registers; a LONG one is read again by every pass.
 */
#ifndef MB_CORE_CUDA_NORM_H
#define MB_CORE_CUDA_NORM_H

#include "core/cuda/piece.h"

namespace {

enum norm_rows { NARROW, WIDE, LONG };

enum {
    NARROW_COLS = 1024,
    WIDE_VALUES = 16,    /* of a row, held by a thread of a block */
    FORWARD_WARPS = 4,   /* narrow rows of a block */
    BACKWARD_WARPS = 8,  /* likewise */
    FORWARD_MOST = 1024, /* threads of a block that has one row */
    BACKWARD_MOST = 512, /* likewise */
    PARTIALS = 256,      /* blocks whose sums over rows a second launch adds, at most */
    PARTIAL_WARPS = 8
};

/* The threads that share a row. */
template <norm_rows R> struct norm_team {
    static constexpr bool WARP = R == NARROW;
    float *part; /* 64 floats of shared memory, for blocks */

    MB_DEVICE int size() const
    {
        return WARP ? 32 : (int)blockDim.x;
    }
    MB_DEVICE int rank() const
    {
        return WARP ? mb_lane() : (int)threadIdx.x;
    }
    /* Of the teams of this block. */
    MB_DEVICE int index() const
    {
        return WARP ? mb_warp() : 0;
    }
    MB_DEVICE int count() const
    {
        return WARP ? (int)blockDim.x / 32 : 1;
    }
    MB_DEVICE float sum(float v) const
    {
        return WARP ? mb_warp_sum(v) : mb_block_sum(v, part);
    }
    /* Two sums with one exchange. */
    MB_DEVICE void sum(float *a, float *b) const
    {
        *a = mb_warp_sum(*a);
        *b = mb_warp_sum(*b);
        if (WARP)
            return;
        __syncthreads();
        if (mb_lane() == 0) {
            part[mb_warp()] = *a;
            part[32 + mb_warp()] = *b;
        }
        __syncthreads();
        *a = part[0];
        *b = part[32];
        for (int w = 1; w < (int)blockDim.x / 32; w++) {
            *a += part[w];
            *b += part[32 + w];
        }
    }
};

template <typename T, norm_rows R>
constexpr int norm_pieces = (R == NARROW ? NARROW_COLS / 32 : WIDE_VALUES) / piece<T>::LENGTH;

/* One tile of a row: this thread's piece k begins at column first + k * step. */
template <typename T, int PIECES>
MB_DEVICE void norm_read_tile(piece<T> (&x)[PIECES], const T *row, int first, int step, int n,
                              bool vector)
{
    MB_UNROLL
    for (int k = 0; k < PIECES; k++)
        x[k] = read_piece(row + first + k * step, n - first - k * step, vector);
}

/* sum = x = x + other, rounded to T. */
template <typename T, int PIECES>
MB_DEVICE void norm_add_tile(T *sum, piece<T> (&x)[PIECES], const piece<T> (&other)[PIECES],
                             int first, int step, int n, bool vector)
{
    MB_UNROLL
    for (int k = 0; k < PIECES; k++) {
        const int c = first + k * step;
        float f[piece<T>::LENGTH];

        MB_UNROLL
        for (int i = 0; i < piece<T>::LENGTH; i++)
            f[i] = x[k].at(i) + other[k].at(i);
        x[k] = pack_piece<T>(f);
        write_piece(sum + c, x[k], n - c, vector);
    }
}

/* This thread's columns of a sum over the rows of a block, into the block's row of the workspace.
 * Warps have one each: added in their order through `shared` (BACKWARD_WARPS rows of NARROW_COLS). */
template <norm_rows R, int PIECES, int W>
MB_DEVICE void norm_write_sums(float *out, const float (&sum)[PIECES][W], float *shared, int n)
{
    const norm_team<R> team = {nullptr};
    const int first = team.rank() * W, step = team.size() * W;

    if (R == NARROW)
        __syncthreads(); /* it may still be read from a call before */
    MB_UNROLL
    for (int k = 0; k < PIECES; k++) {
        MB_UNROLL
        for (int i = 0; i < W; i++) {
            const int c = first + k * step + i;

            if (c < n)
                (R == NARROW ? shared + team.index() * NARROW_COLS : out)[c] = sum[k][i];
        }
    }
    if (R != NARROW)
        return;
    __syncthreads();
    for (int c = (int)threadIdx.x; c < n; c += (int)blockDim.x) {
        float all = shared[c];

        for (int w = 1; w < team.count(); w++)
            all += shared[w * NARROW_COLS + c];
        out[c] = all;
    }
}

/* out[c] += the sum of partial[0..blocks)[c]: a warp takes every eighth row of 32 columns, then the
 * warps are added in their order. */
MB_GLOBAL MB_BOUNDS(32 * PARTIAL_WARPS) void norm_add_partials(float *out, const float *partial,
                                                               int blocks, int n)
{
    MB_SHARED(float, part, 32 * PARTIAL_WARPS);
    const int c = (int)blockIdx.x * 32 + mb_lane();
    float sum = 0.0f;

    if (c < n) {
        MB_UNROLL
        for (int b = mb_warp(); b < blocks; b += PARTIAL_WARPS)
            sum += partial[(int64_t)b * n + c];
    }
    part[threadIdx.x] = sum;
    __syncthreads();
    if (mb_warp() != 0 || c >= n)
        return;
    for (int w = 1; w < PARTIAL_WARPS; w++)
        sum += part[w * 32 + mb_lane()];
    out[c] += sum;
}

inline norm_rows norm_rows_of(int64_t cols, int most)
{
    return cols <= NARROW_COLS ? NARROW : cols <= most * WIDE_VALUES ? WIDE : LONG;
}

/* Threads of a block that has one row. */
inline int norm_block(int64_t cols, int most)
{
    int block = 128;

    while (block < most && block * WIDE_VALUES < cols)
        block *= 2;
    return block;
}

/* Rows of a block whose contributions to the gradient of a weight are added together. */
inline int64_t norm_rows_per_block(int64_t rows, int64_t cols)
{
    const int64_t least = cols <= NARROW_COLS ? BACKWARD_WARPS : 4;
    const int64_t per = mb_div_up(rows, PARTIALS);

    return per < least ? least : per;
}

inline int64_t norm_blocks(int64_t rows, int64_t cols)
{
    return mb_div_up(rows, norm_rows_per_block(rows, cols));
}

/* Rows, columns and type of `t`, which may be NULL, are those of x. */
inline bool norm_fits(const mb_tensor *t, const mb_tensor *x)
{
    return t == nullptr ||
           (mb_rows(t) == mb_rows(x) && mb_cols(t) == mb_cols(x) && t->dtype == x->dtype);
}

/* `t`, which may be NULL, has n elements of this type. */
inline bool norm_vector_fits(const mb_tensor *t, int64_t n, mb_dtype dtype)
{
    return t == nullptr || (mb_tensor_count(t) == n && t->dtype == dtype);
}

inline float *norm_f32(const mb_tensor *t)
{
    return t == nullptr ? nullptr : mb_f32(t);
}

} // namespace

#endif
