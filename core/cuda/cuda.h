/* core/cuda/cuda.h - the CUDA device seen from the host side of its kernels.
 *
 * Every .cu file includes this. A kernel of core/kernels.def has here its body mb_cuda_<name>, in the
 * file that has the basename of its CPU twin. Bodies only enqueue: they check shapes, choose a grid
 * from shapes alone and launch; they never wait.
 *
 * Types. Activations, their gradients and weights are f32, bf16 or f16, all of one call the same
 * (MB_CUDA_DISPATCH); statistics (rstd, mean, lse, logprob) and gradients of weights are f32.
 */
#ifndef MB_CORE_CUDA_CUDA_H
#define MB_CORE_CUDA_CUDA_H

#include <cuda_runtime.h>

#include "core/cuda/dev.h"

extern "C" {
#include "core/device.h"

#define MB_KERNEL(name, params, args) mb_status mb_cuda_##name params __attribute__((weak));
#define MB_KERNEL_WS(name, params, args)                   \
    mb_status mb_cuda_##name params __attribute__((weak)); \
    size_t mb_cuda_##name##_workspace params __attribute__((weak));
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS

extern const mb_kernels mb_cuda_kernels;
}

/* A CUDA call that must succeed: a sentence with the library's own words, MB_ENOMEM for memory. */
mb_status mb_cuda_failed(cudaError_t e, const char *call, const char *file, int line);
#define MB_CUDA_TRY(call)                                            \
    do {                                                             \
        const cudaError_t mb_e_ = (call);                            \
        if (mb_e_ != cudaSuccess)                                    \
            return mb_cuda_failed(mb_e_, #call, __FILE__, __LINE__); \
    } while (0)

/* The device: what kernels may ask about it. `products` belongs to gemm.cu. */
struct mb_products;
struct mb_cuda {
    mb_device base;
    int ordinal;
    int major, minor; /* compute capability */
    int multiprocessors;
    size_t shared_limit; /* bytes of shared memory that one block may ask for */
    mb_products *products;
};

static inline mb_cuda *mb_cuda_of(const mb_exec *ex)
{
    return reinterpret_cast<mb_cuda *>(ex->device);
}

/* The part of a device that multiplies: opened after the fields above are set. */
mb_status mb_cuda_gemm_open(mb_cuda *d);
void mb_cuda_gemm_close(mb_cuda *d); /* never opened is allowed */
int mb_cuda_gemm_version();          /* of cuBLASLt */

static inline cudaStream_t mb_cuda_stream(const mb_exec *ex)
{
    return static_cast<cudaStream_t>(ex->stream);
}

/* Queues kernel<<<grid, block, smem>>>(arguments) on ex's stream and returns its status from the
 * body. A grid of 0 blocks is no launch. Template arguments with commas need parentheses around the
 * kernel. More than 48 KiB of shared memory is asked for here.
 *
 *     MB_LAUNCH(ex, (rmsnorm_kernel<T, 4>), rows, 256, 0, y, x, w, cols);
 */
#ifdef MB_EMU
#define MB_LAUNCH(ex, kernel, grid, block, smem, ...)                                     \
    MB_CUDA_TRY(mb_emu_launch(#kernel, mb_cuda_stream(ex), (int64_t)(grid), (int)(block), \
                              (size_t)(smem), kernel, __VA_ARGS__))
#else
template <typename... P, typename... A>
cudaError_t mb_cuda_launch(void (*kernel)(P...), cudaStream_t stream, int64_t grid, int block,
                           size_t smem, A... args)
{
    if (grid == 0)
        return cudaSuccess;
    if (smem > 48 * 1024) {
        const cudaError_t e =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)smem);
        if (e != cudaSuccess)
            return e;
    }
    kernel<<<(unsigned)grid, (unsigned)block, smem, stream>>>(static_cast<P>(args)...);
    return cudaPeekAtLastError();
}
#define MB_LAUNCH(ex, kernel, grid, block, smem, ...)                                     \
    MB_CUDA_TRY(mb_cuda_launch(kernel, mb_cuda_stream(ex), (int64_t)(grid), (int)(block), \
                               (size_t)(smem), __VA_ARGS__))
#endif

/* Runs the statement with T as the type that `dtype` names: f32, bf16, f16. Others are a defect of
 * the caller. */
#define MB_CUDA_DISPATCH(dtype, ...)                                                               \
    do {                                                                                           \
        switch (dtype) {                                                                           \
        case MB_DTYPE_F32: {                                                                       \
            using T = float;                                                                       \
            __VA_ARGS__;                                                                           \
        } break;                                                                                   \
        case MB_DTYPE_BF16: {                                                                      \
            using T = mb_bf16;                                                                     \
            __VA_ARGS__;                                                                           \
        } break;                                                                                   \
        case MB_DTYPE_F16: {                                                                       \
            using T = mb_f16;                                                                      \
            __VA_ARGS__;                                                                           \
        } break;                                                                                   \
        default:                                                                                   \
            return MB_RAISE(MB_EBUG, "%s: no CUDA kernel for %s", __func__, mb_dtype_name(dtype)); \
        }                                                                                          \
    } while (0)

/* A tensor as kernels take it: rows `stride` elements apart. */
template <typename T> struct mb_mat {
    T *data;
    int64_t rows, cols, stride;

    MB_DEVICE T *row(int64_t r) const
    {
        return data + r * stride;
    }
};

/* Of NULL: data NULL, no rows. */
template <typename T> static inline mb_mat<T> mb_mat_of(const mb_tensor *t)
{
    mb_mat<T> m = {nullptr, 0, 0, 0};

    if (t != nullptr) {
        m.data = static_cast<T *>(t->data);
        m.rows = mb_rows(t);
        m.cols = mb_cols(t);
        m.stride = mb_row_stride(t);
    }
    return m;
}

static inline int64_t mb_div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* How many elements may be moved at once for all of these: rows start and strides are multiples, and
 * widths too. 1 when nothing fits. most: 16 bytes over the element size, or less. */
template <typename T> static inline int mb_vec_width(int n, const mb_tensor *const *t, int most)
{
    int width = most;

    for (int i = 0; i < n; i++) {
        if (t[i] == nullptr)
            continue;
        while (width > 1 && (mb_cols(t[i]) % width != 0 ||
                             (mb_rows(t[i]) > 1 && mb_row_stride(t[i]) % width != 0) ||
                             reinterpret_cast<uintptr_t>(t[i]->data) % (sizeof(T) * width) != 0))
            width /= 2;
    }
    return width;
}

#endif
