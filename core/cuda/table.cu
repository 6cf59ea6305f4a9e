/* core/cuda/table.cu - the CUDA device's kernel table, one slot per line of core/kernels.def. */
#include "core/cuda/cuda.h"

const mb_kernels mb_cuda_kernels = {
    "cuda",
#define MB_KERNEL(name, params, args)    mb_cuda_##name,
#define MB_KERNEL_WS(name, params, args) mb_cuda_##name, mb_cuda_##name##_workspace,
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
};
