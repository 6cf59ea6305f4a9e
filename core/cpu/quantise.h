/* core/cpu/quantise.h - f32 to the blocks of GGUF files, what core/cpu/dequantise.c reads.
 *
 * Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 are bit for bit those of the gguf Python package and llama.cpp. Q4_K,
 * Q5_K and Q6_K search a group's scale (and minimum) for the least squared error, weighted as llama.cpp
 * does without measured importances. F32, F16 and BF16 are rounded. Results do not depend on threads or
 * machine: no fused multiply-add, no order of sums but the one written.
 */
#ifndef MB_CORE_CPU_QUANTISE_H
#define MB_CORE_CPU_QUANTISE_H

#include "core/dtype.h"

/* Is `d` a type that mb_quantise writes? */
bool mb_quantises_to(mb_dtype d);

/* n finite numbers, a multiple of mb_dtype_block(to), into mb_dtype_bytes(to, n) bytes at y. MB_ENUM
 * when a number is not finite, or too large for the scale of its block, which is an F16. */
mb_status mb_quantise(mb_dtype to, const float *x, int64_t n, void *y, int threads) MB_MUST_USE;

/* Private to quantise.c and quantise_k.c: one block of 256. */
void mb_quantise_q4_k(const float *x, uint8_t *y);
void mb_quantise_q5_k(const float *x, uint8_t *y);
void mb_quantise_q6_k(const float *x, uint8_t *y);

#endif
