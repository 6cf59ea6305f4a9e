/* core/cpu/dequantise.h - GGUF blocks as f32, for kernels that read them as they go. */
#ifndef MB_CORE_CPU_DEQUANTISE_H
#define MB_CORE_CPU_DEQUANTISE_H

#include "core/dtype.h"

/* Does it know this block type? */
bool mb_cpu_dequantises(mb_dtype type);
/* n numbers, whole blocks, in the calling thread; bits as the kernel `dequantise` gives. */
void mb_cpu_dequantise_blocks(mb_dtype type, float *y, const void *x, int64_t n);
/* The same bits with fewer of the processor's features (core/cpu/init.h; 0: none), for the test that
 * they are the same. */
void mb_cpu_dequantise_blocks_by(unsigned features, mb_dtype type, float *y, const void *x,
                                 int64_t n);

#endif
