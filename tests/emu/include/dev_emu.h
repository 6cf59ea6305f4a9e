/* tests/emu/include/dev_emu.h - core/cuda/dev.h for the CPU: the same names, one exact twin each.
 *
 * Included by dev.h under MB_EMU. A thread of a block is a fiber of tests/emu/block.cc; a warp
 * function hands an mb_emu_op to mb_emu_collective, which returns when all 32 lanes have come to the
 * same source line and the last of them has done the work for all.
 */
#ifndef MB_TESTS_EMU_DEV_EMU_H
#define MB_TESTS_EMU_DEV_EMU_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#define MB_GLOBAL
#define MB_DEVICE inline
#define MB_BOUNDS(...)
#define MB_UNROLL
#define MB_ROLLED
#define MB_EMU_HIDDEN __attribute__((visibility("hidden")))

/* ---- where am I ------------------------------------------------------------------------------ */

struct mb_emu_index {
    unsigned x; /* one dimension only */
};
extern MB_EMU_HIDDEN mb_emu_index mb_emu_thread_index, mb_emu_block_index, mb_emu_block_size,
    mb_emu_grid_size;
#define threadIdx mb_emu_thread_index
#define blockIdx  mb_emu_block_index
#define blockDim  mb_emu_block_size
#define gridDim   mb_emu_grid_size

MB_EMU_HIDDEN void mb_emu_barrier(const char *file, int line);
#define __syncthreads() mb_emu_barrier(__FILE__, __LINE__)

/* ---- shared memory: poisoned per block, red zones around each array -------------------------- */

struct mb_emu_array {
    const char *name, *file;
    int line;
    size_t bytes, align;
    unsigned char *at; /* of block number `block` of the process */
    uint64_t block;
};
extern MB_EMU_HIDDEN uint64_t mb_emu_block_serial;
MB_EMU_HIDDEN void mb_emu_array_place(mb_emu_array *a);
MB_EMU_HIDDEN unsigned char *mb_emu_smem(size_t align);

inline void *mb_emu_array_at(mb_emu_array *a)
{
    if (a->block != mb_emu_block_serial)
        mb_emu_array_place(a);
    return a->at;
}

#define MB_SHARED(type, name, count)                                                   \
    static_assert(std::is_trivial<type>::value, "shared memory has no constructors");  \
    static mb_emu_array mb_emu_array_##name = {                                        \
        #name, __FILE__, __LINE__, sizeof(type) * (count), alignof(type), nullptr, 0}; \
    type(&name)[count] = *static_cast<type(*)[count]>(mb_emu_array_at(&mb_emu_array_##name))
#define MB_SMEM(type, name) type *name = reinterpret_cast<type *>(mb_emu_smem(alignof(type)))

/* ---- 16-bit floats --------------------------------------------------------------------------- */

inline uint32_t mb_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

inline float mb_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

inline float mb_to_f32(float x)
{
    return x;
}

inline float mb_to_f32(mb_bf16 x)
{
    return mb_from_bits((uint32_t)x.u << 16);
}

inline float mb_to_f32(mb_f16 x)
{
#if defined(__F16C__)
    return _cvtsh_ss(x.u);
#else
    const uint32_t sign = (x.u & 0x8000u) << 16, rest = (x.u & 0x7fffu) << 13;

    if ((x.u & 0x7c00u) == 0x7c00u) /* infinite or NaN */
        return mb_from_bits(sign | 0x7f800000u | rest);
    return mb_from_bits(sign | mb_bits(mb_from_bits(rest) * 0x1p112f)); /* exact, subnormals too */
#endif
}

template <typename T> T mb_from_f32(float f);

template <> inline float mb_from_f32<float>(float f)
{
    return f;
}

template <> inline mb_bf16 mb_from_f32<mb_bf16>(float f)
{
    const uint32_t u = mb_bits(f);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return {0x7fff};
    return {(uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

template <> inline mb_f16 mb_from_f32<mb_f16>(float f)
{
    const uint32_t u = mb_bits(f), size = u & 0x7fffffffu, sign = (u >> 16) & 0x8000u;

    if (size > 0x7f800000u)
        return {0x7fff};
#if defined(__F16C__)
    return {_cvtss_sh(f, 0)};
#endif
    if (size >= 0x477ff000u) /* 65520 and more */
        return {(uint16_t)(sign | 0x7c00u)};
    if (size < 0x38800000u) /* below 2^-14: the last place of 0.5 is 2^-24, that of a subnormal */
        return {(uint16_t)(sign | (mb_bits(mb_from_bits(size) + 0.5f) - 0x3f000000u))};
    const uint32_t r = size - (112u << 23);
    return {(uint16_t)(sign | ((r + 0xfffu + ((r >> 13) & 1u)) >> 13))};
}

/* ---- warps ----------------------------------------------------------------------------------- */

enum mb_emu_kind {
    MB_EMU_SHUFFLE,
    MB_EMU_BALLOT,
    MB_EMU_SYNCWARP,
    MB_EMU_LDMATRIX,
    MB_EMU_LDMATRIX_T,
    MB_EMU_MMA_BF16,
    MB_EMU_MMA_F16
};

/* One lane's part of a warp function. */
struct mb_emu_op {
    mb_emu_kind kind;
    int line;
    const char *file;
    int from;          /* shuffle: the lane whose value it gets */
    uint64_t value;    /* shuffle, ballot */
    uint64_t result;   /* shuffle, ballot */
    const void *row;   /* ldmatrix */
    uint32_t *r;       /* ldmatrix */
    const uint32_t *a; /* mma */
    uint32_t b[2];     /* mma */
    float *c;          /* mma */
};
MB_EMU_HIDDEN void mb_emu_collective(mb_emu_op *op);

#define MB_EMU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline int mb_lane()
{
    return (int)(threadIdx.x & 31u);
}

inline int mb_warp()
{
    return (int)(threadIdx.x >> 5);
}

template <typename T> T mb_emu_shuffle(T v, int from, const char *file, int line)
{
    static_assert((sizeof(T) == 4 || sizeof(T) == 8) && std::is_arithmetic<T>::value,
                  "numbers of 4 or 8 bytes");
    mb_emu_op op;
    op.kind = MB_EMU_SHUFFLE;
    op.file = file;
    op.line = line;
    op.from = from;
    op.value = 0;
    memcpy(&op.value, &v, sizeof v);
    mb_emu_collective(&op);
    memcpy(&v, &op.result, sizeof v);
    return v;
}

template <typename T> inline T mb_shfl_xor(T v, int mask, MB_EMU_SITE)
{
    return mb_emu_shuffle(v, mb_lane() ^ mask, file, line);
}

template <typename T> inline T mb_shfl(T v, int lane, MB_EMU_SITE)
{
    return mb_emu_shuffle(v, lane, file, line);
}

template <typename T> inline T mb_shfl_up(T v, int by, MB_EMU_SITE)
{
    return mb_emu_shuffle(v, mb_lane() >= by ? mb_lane() - by : mb_lane(), file, line);
}

inline uint32_t mb_ballot(bool p, MB_EMU_SITE)
{
    mb_emu_op op;
    op.kind = MB_EMU_BALLOT;
    op.file = file;
    op.line = line;
    op.value = p;
    mb_emu_collective(&op);
    return (uint32_t)op.result;
}

inline void mb_syncwarp(MB_EMU_SITE)
{
    mb_emu_op op;
    op.kind = MB_EMU_SYNCWARP;
    op.file = file;
    op.line = line;
    mb_emu_collective(&op);
}

/* ---- asynchronous copies: they land at the wait that covers them, or at any time before ------- */

MB_EMU_HIDDEN void mb_emu_cp_async(void *shared, const void *global, bool there, const char *file,
                                   int line);
MB_EMU_HIDDEN void mb_emu_cp_commit();
MB_EMU_HIDDEN void mb_emu_cp_wait(int pending);

inline void mb_cp_async(void *shared, const void *global, bool there, MB_EMU_SITE)
{
    mb_emu_cp_async(shared, global, there, file, line);
}

inline void mb_cp_commit()
{
    mb_emu_cp_commit();
}

template <int pending> inline void mb_cp_wait()
{
    mb_emu_cp_wait(pending);
}

/* ---- tensor cores ---------------------------------------------------------------------------- */

template <bool transposed> inline void mb_ldmatrix(uint32_t (&r)[4], const void *row, MB_EMU_SITE)
{
    mb_emu_op op;
    op.kind = transposed ? MB_EMU_LDMATRIX_T : MB_EMU_LDMATRIX;
    op.file = file;
    op.line = line;
    op.row = row;
    op.r = r;
    mb_emu_collective(&op);
}

template <typename T>
inline void mb_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, MB_EMU_SITE)
{
    static_assert(std::is_same<T, mb_bf16>::value || std::is_same<T, mb_f16>::value, "bf16 or f16");
    mb_emu_op op;
    op.kind = std::is_same<T, mb_bf16>::value ? MB_EMU_MMA_BF16 : MB_EMU_MMA_F16;
    op.file = file;
    op.line = line;
    op.a = a;
    op.b[0] = b0;
    op.b[1] = b1;
    op.c = c;
    mb_emu_collective(&op);
}

/* ---- atomics: one thread runs at a time ------------------------------------------------------- */

inline void mb_atomic_max(uint32_t *at, uint32_t v)
{
    if (*at < v)
        *at = v;
}

inline void mb_atomic_or(uint32_t *at, uint32_t v)
{
    *at |= v;
}

/* ---- mathematics that CUDA has and C has not --------------------------------------------------- */

inline float rsqrtf(float x)
{
    return (float)(1.0 / sqrt((double)x));
}

inline int mb_opaque(int x)
{
    return x;
}

inline float mb_exp2(float x)
{
    return exp2f(x);
}

inline double rsqrt(double x)
{
    return 1.0 / sqrt(x);
}

#define __expf(x)          expf(x)
#define __logf(x)          logf(x)
#define __fdividef(x, y)   ((float)(x) / (float)(y))
#define __fmaf_rn(a, b, c) fmaf(a, b, c)
#define __fmul_rn(a, b)    mb_emu_mul((a), (b))
#define __fadd_rn(a, b)    mb_emu_add((a), (b))
#define __fsub_rn(a, b)    mb_emu_add((a), -(b))

/* Not to be contracted into fused multiply-adds. */
inline float mb_emu_mul(float a, float b)
{
    volatile float p = a * b;
    return p;
}

inline float mb_emu_add(float a, float b)
{
    volatile float s = a + b;
    return s;
}

#define MB_EMU_MIN_MAX(T)     \
    inline T min(T a, T b)    \
    {                         \
        return b < a ? b : a; \
    }                         \
    inline T max(T a, T b)    \
    {                         \
        return a < b ? b : a; \
    }
MB_EMU_MIN_MAX(int)
MB_EMU_MIN_MAX(unsigned)
MB_EMU_MIN_MAX(long)
MB_EMU_MIN_MAX(unsigned long)
MB_EMU_MIN_MAX(long long)
MB_EMU_MIN_MAX(unsigned long long)

#endif
