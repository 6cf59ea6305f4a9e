/* core/cpu/init.h - what processor this is. mb_cpu_init itself is declared in core/cpu/cpu.h.
 *
 * The class is stored in checkpoints and printed by `mbuyu env`: bits are promised within a class.
 */
#ifndef MB_CORE_CPU_INIT_H
#define MB_CORE_CPU_INIT_H

typedef enum mb_cpu_feature {
    MB_CPU_AVX2 = 1,        /* AVX2 and FMA: kernels compiled for x86-64-v3 */
    MB_CPU_AVX512 = 2,      /* F, BW, CD, DQ, VL: kernels compiled for x86-64-v4 */
    MB_CPU_AVX512_BF16 = 4, /* dot products of bf16 pairs */
    MB_CPU_AVX512_VNNI = 8, /* dot products of bytes */
    MB_CPU_FAST_PAIRS = 16, /* ... of bf16 pairs, faster than as many products of f32 */
} mb_cpu_feature;

/* Features as a set of bits; needs no mb_cpu_init. */
unsigned mb_cpu_features(void);

/* "x86-64-v4 avx512_bf16, gemm own AVX-512": instruction set ("widened": bf16 is multiplied as f32, which
 * is faster), and the provider in use.
 * Valid until the provider changes; "... gemm none" before mb_cpu_init. */
const char *mb_cpu_class(void);

#endif
