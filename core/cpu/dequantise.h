/* core/cpu/dequantise.h - GGUF blocks as f32, for kernels that read them as they go. */
#ifndef MB_CORE_CPU_DEQUANTISE_H
#define MB_CORE_CPU_DEQUANTISE_H

#include "core/dtype.h"

/* Does it know this block type? */
bool mb_cpu_dequantises(mb_dtype type);
/* n numbers, whole blocks, in the calling thread; bits as the kernel `dequantise` gives. */
void mb_cpu_dequantise_blocks(mb_dtype type, float *y, const void *x, int64_t n);
/* The same bits without instructions of one processor, for the test that they are the same. */
void mb_cpu_dequantise_blocks_plainly(mb_dtype type, float *y, const void *x, int64_t n);

#endif
