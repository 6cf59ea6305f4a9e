/* tests/emu/include/cuda_runtime_api.h - the same for C. */
#include "cuda_runtime.h"
