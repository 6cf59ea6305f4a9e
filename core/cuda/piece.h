/* core/cuda/piece.h - 16 bytes of a row at a time.
 *
 * Kernels that add up rows cut them into pieces and deal these to threads. A piece moves as one
 * vector where all rows of the call are aligned to it and whole pieces wide, else element by
 * element: who has which element, and so the order of additions, is the same.
 */
#ifndef MB_CORE_CUDA_PIECE_H
#define MB_CORE_CUDA_PIECE_H

#include <string.h>

#include "core/cuda/cuda.h"

namespace {

/* 16 bytes of a row, kept as words: 16-bit elements take half a register each. */
template <typename T> struct piece {
    static constexpr int LENGTH = 16 / (int)sizeof(T);
    static constexpr int BITS = 8 * (int)sizeof(T), PER_WORD = 32 / BITS;
    uint32_t word[4];

    MB_DEVICE float at(int i) const
    {
        const uint32_t bits = word[i / PER_WORD] >> i % PER_WORD * BITS;
        T v;

        memcpy(&v, &bits, sizeof v);
        return mb_to_f32(v);
    }
    /* Element i, which is zero so far. */
    MB_DEVICE void put(int i, T v)
    {
        uint32_t bits = 0;

        memcpy(&bits, &v, sizeof v);
        word[i / PER_WORD] |= bits << i % PER_WORD * BITS;
    }
};

/* `left` elements from here to the end of the row; zeros behind it. */
template <typename T> MB_DEVICE piece<T> read_piece(const T *from, int left, bool vector)
{
    constexpr int W = piece<T>::LENGTH;
    piece<T> p = {};

    if (vector) {
        if (left > 0) {
            const mb_vec<T, W> v = *reinterpret_cast<const mb_vec<T, W> *>(from);

            memcpy(p.word, &v, sizeof v);
        }
    } else {
        MB_UNROLL
        for (int i = 0; i < W; i++)
            if (i < left)
                p.put(i, from[i]);
    }
    return p;
}

template <typename T> MB_DEVICE void write_piece(T *to, const piece<T> &p, int left, bool vector)
{
    constexpr int W = piece<T>::LENGTH;
    mb_vec<T, W> v;

    memcpy(&v, p.word, sizeof v);
    if (vector) {
        if (left > 0)
            *reinterpret_cast<mb_vec<T, W> *>(to) = v;
    } else {
        MB_UNROLL
        for (int i = 0; i < W; i++)
            if (i < left)
                to[i] = v.at[i];
    }
}

/* The piece of these values. */
template <typename T, int W> MB_DEVICE piece<T> pack_piece(const float (&f)[W])
{
    piece<T> p = {};

    MB_UNROLL
    for (int i = 0; i < W; i++)
        p.put(i, mb_from_f32<T>(f[i]));
    return p;
}

/* Whether pieces of all of these move as vectors. */
template <typename T, int N> bool whole_pieces(const mb_tensor *const (&t)[N])
{
    return mb_vec_width<T>(N, t, piece<T>::LENGTH) == piece<T>::LENGTH;
}

} // namespace

#endif
