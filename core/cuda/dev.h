/* core/cuda/dev.h - the language kernels are written in: everything of the GPU that is not plain C++.
 *
 * Kernels use threadIdx, blockIdx, blockDim, gridDim (.x only), __syncthreads(), and what is below;
 * PTX stands here and nowhere else. Under MB_EMU the same kernels are compiled for the CPU and
 * tests/emu/dev_emu.h gives every name here an exact twin. To stay within what that can check:
 *
 *     blocks are one-dimensional, a multiple of 32, at most 1024 threads; grids are one-dimensional
 *     shared memory only by MB_SHARED and MB_SMEM
 *     warp functions are called by all 32 lanes of a warp, together
 *     no atomics on floats, no printf, no allocation, no dynamic parallelism, no managed memory
 *
 * Sums have a fixed order: nothing depends on which block runs first.
 */
#ifndef MB_CORE_CUDA_DEV_H
#define MB_CORE_CUDA_DEV_H

#include <stdint.h>

/* 16-bit floats: storage only; arithmetic is f32. */
struct mb_bf16 {
    uint16_t u;
};
struct mb_f16 {
    uint16_t u;
};

/* N elements moved at once; the address must be aligned to their size. */
template <typename T, int N> struct alignas(sizeof(T) * N) mb_vec {
    T at[N];
};

#ifdef MB_EMU
#include "dev_emu.h"
#else

#define MB_GLOBAL                    __global__
#define MB_DEVICE                    __device__ __forceinline__
#define MB_BOUNDS(...)               __launch_bounds__(__VA_ARGS__)
/* An array of the block, of a size known at compile time / of the rest of the launch's bytes. */
#define MB_SHARED(type, name, count) __shared__ type name[count]
#define MB_SMEM(type, name)                                    \
    extern __shared__ __align__(128) unsigned char mb_smem_[]; \
    type *name = reinterpret_cast<type *>(mb_smem_)
#define MB_UNROLL _Pragma("unroll")
#define MB_ROLLED _Pragma("unroll 1")

/* ---- 16-bit floats: round to nearest even, NaN stays NaN ------------------------------------ */

MB_DEVICE float mb_to_f32(float x)
{
    return x;
}

MB_DEVICE float mb_to_f32(mb_bf16 x)
{
    return __uint_as_float((uint32_t)x.u << 16);
}

MB_DEVICE float mb_to_f32(mb_f16 x)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x.u));
    return f;
}

template <typename T> MB_DEVICE T mb_from_f32(float f);

template <> MB_DEVICE float mb_from_f32<float>(float f)
{
    return f;
}

template <> MB_DEVICE mb_bf16 mb_from_f32<mb_bf16>(float f)
{
    mb_bf16 h;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h.u) : "f"(f));
#else
    const uint32_t u = __float_as_uint(f);
    h.u = (u & 0x7fffffffu) > 0x7f800000u ? (uint16_t)((u >> 16) | 0x40u)
                                          : (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
#endif
    return h;
}

template <> MB_DEVICE mb_f16 mb_from_f32<mb_f16>(float f)
{
    mb_f16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.u) : "f"(f));
    return h;
}

/* ---- warps: all 32 lanes take part ---------------------------------------------------------- */

MB_DEVICE int mb_lane()
{
    return (int)(threadIdx.x & 31u);
}

MB_DEVICE int mb_warp()
{
    return (int)(threadIdx.x >> 5);
}

template <typename T> /* 4 or 8 bytes */
MB_DEVICE T mb_shfl_xor(T v, int mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

template <typename T> MB_DEVICE T mb_shfl(T v, int lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}

template <typename T> /* lane i gets lane i-by's; lanes below `by` keep their own */
MB_DEVICE T mb_shfl_up(T v, int by)
{
    return __shfl_up_sync(0xffffffffu, v, by);
}

MB_DEVICE uint32_t mb_ballot(bool p)
{
    return __ballot_sync(0xffffffffu, p);
}

MB_DEVICE void mb_syncwarp()
{
    __syncwarp();
}

/* ---- atomics on integers, whose order cannot matter ------------------------------------------ */

MB_DEVICE void mb_atomic_max(uint32_t *at, uint32_t v)
{
    atomicMax(at, v);
}

MB_DEVICE void mb_atomic_or(uint32_t *at, uint32_t v)
{
    atomicOr(at, v);
}

/* ---- shared memory filled asynchronously, 16 bytes at a time (before sm_80: at once) -------- */

/* 16 bytes from global to shared memory, both aligned to 16; zeros when !there. Visible to this
 * thread after mb_cp_wait, to others after a barrier that follows it. */
MB_DEVICE void mb_cp_async(void *shared, const void *global, bool there)
{
#if __CUDA_ARCH__ >= 800
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes)
                 : "memory");
#else
    *reinterpret_cast<uint4 *>(shared) =
        there ? *reinterpret_cast<const uint4 *>(global) : make_uint4(0, 0, 0, 0);
#endif
}

/* What was asked for since the last commit becomes one group. */
MB_DEVICE void mb_cp_commit()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Waits until at most `pending` of this thread's newest groups are unfinished. */
template <int pending> MB_DEVICE void mb_cp_wait()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

/* ---- tensor cores --------------------------------------------------------------------------- */

/* Four 8x8 matrices of 16-bit elements from shared memory: lane i gives the address of row i % 8 of
 * matrix i / 8 (16 bytes, aligned). r[j] holds of matrix j the elements (lane/4, 2*(lane%4)) and the
 * next; with `transposed` those of the transposed matrix. */
template <bool transposed> MB_DEVICE void mb_ldmatrix(uint32_t (&r)[4], const void *row)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
}

/* c(16x8, f32) += a(16x16) b(16x8), T = mb_bf16 or mb_f16, in the fragments of PTX's
 * mma.m16n8k16: g = lane/4, t = lane%4;
 *     a[0] (g, 2t..)   a[1] (g+8, 2t..)   a[2] (g, 2t+8..)   a[3] (g+8, 2t+8..)
 *     b[0] (2t.., g)   b[1] (2t+8.., g)   c[0..1] (g, 2t..)  c[2..3] (g+8, 2t..)
 * Before sm_80 there is no bf16: such a kernel must not be launched (mb_cuda_has_bf16). */
template <typename T>
MB_DEVICE void mb_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
MB_DEVICE void mb_mma<mb_bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

template <>
MB_DEVICE void mb_mma<mb_f16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif __CUDA_ARCH__ >= 750
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

/* 2^x to about 2 ulp; results below the normal range may be 0. */
MB_DEVICE float mb_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* x, of which the compiler knows nothing: what follows from it is not computed ahead of a loop, where
 * that would cost registers. */
MB_DEVICE int mb_opaque(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

/* The bits of a float and back. */
MB_DEVICE uint32_t mb_bits(float f)
{
    return __float_as_uint(f);
}

MB_DEVICE float mb_from_bits(uint32_t u)
{
    return __uint_as_float(u);
}

#endif

/* ---- the same on both ------------------------------------------------------------------------ */

/* The loop that follows, n times per turn. */
#ifdef MB_EMU
#define MB_UNROLL_BY(n)
#else
#define MB_PRAGMA(x)    _Pragma(#x)
#define MB_UNROLL_BY(n) MB_PRAGMA(unroll n)
#endif

/* a * b rounded on its own, never part of a fused multiply-add. */
MB_DEVICE float mb_mul(float a, float b)
{
#ifdef MB_EMU
    return a * b;
#else
    return __fmul_rn(a, b);
#endif
}

/* How many bits are set. */
MB_DEVICE int mb_popcount(uint32_t u)
{
#ifdef MB_EMU
    return __builtin_popcount(u);
#else
    return __popc(u);
#endif
}

/* Two values as one 16-bit pair, the first in the low half. */
template <typename T> MB_DEVICE uint32_t mb_pair(float low, float high)
{
    return (uint32_t)mb_from_f32<T>(low).u | (uint32_t)mb_from_f32<T>(high).u << 16;
}

template <typename T> MB_DEVICE T mb_warp_sum(T v)
{
    for (int m = 16; m > 0; m /= 2)
        v += mb_shfl_xor(v, m);
    return v;
}

MB_DEVICE float mb_warp_max(float v)
{
    for (int m = 16; m > 0; m /= 2)
        v = fmaxf(v, mb_shfl_xor(v, m));
    return v;
}

/* The sum over the block, for every thread. `part` is 32 elements of shared memory that nobody else
 * uses; all threads call it. */
template <typename T> MB_DEVICE T mb_block_sum(T v, T *part)
{
    const int warps = (int)blockDim.x / 32;

    v = mb_warp_sum(v);
    __syncthreads(); /* part may still be read from a call before */
    if (mb_lane() == 0)
        part[mb_warp()] = v;
    __syncthreads();
    T sum = part[0];
    for (int w = 1; w < warps; w++)
        sum += part[w];
    return sum;
}

MB_DEVICE float mb_block_max(float v, float *part)
{
    const int warps = (int)blockDim.x / 32;

    v = mb_warp_max(v);
    __syncthreads();
    if (mb_lane() == 0)
        part[mb_warp()] = v;
    __syncthreads();
    float most = part[0];
    for (int w = 1; w < warps; w++)
        most = fmaxf(most, part[w]);
    return most;
}

/* N elements from / to memory as floats; the address must be aligned to N elements. */
template <int N, typename T> MB_DEVICE void mb_load(float (&to)[N], const T *from)
{
    const mb_vec<T, N> v = *reinterpret_cast<const mb_vec<T, N> *>(from);
    MB_UNROLL
    for (int i = 0; i < N; i++)
        to[i] = mb_to_f32(v.at[i]);
}

template <int N, typename T> MB_DEVICE void mb_store(T *to, const float (&from)[N])
{
    mb_vec<T, N> v;
    MB_UNROLL
    for (int i = 0; i < N; i++)
        v.at[i] = mb_from_f32<T>(from[i]);
    *reinterpret_cast<mb_vec<T, N> *>(to) = v;
}

#endif
