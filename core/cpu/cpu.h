/* core/cpu/cpu.h - the CPU device: prototypes of its kernels, generated from core/kernels.def.
 *
 * The CPU is the reference for every other device: each line of kernels.def has a body here.
 */
#ifndef MB_CORE_CPU_CPU_H
#define MB_CORE_CPU_CPU_H

#include "core/kernels.h"

/* The table of this device. Valid after mb_cpu_init. */
extern const mb_kernels mb_cpu_kernels;

/* Looks at the processor, picks a provider of f32 products and checks it on small ones (see
 * core/cpu/gemm.h). Once per process, before any kernel. MB_ENOTSUP when the one that MBUYU_GEMM names is
 * wrong. */
mb_status mb_cpu_init(void) MB_MUST_USE;

/* An exec for this device. `scratch` is borrowed. */
mb_exec mb_cpu_exec(mb_arena *scratch, int threads);

#define MB_KERNEL(name, params, args) mb_status mb_cpu_##name params;
#define MB_KERNEL_WS(name, params, args) \
    mb_status mb_cpu_##name params;      \
    size_t mb_cpu_##name##_workspace params;
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS

/* Functions marked MB_CPU_CLONES are compiled for AVX-512, AVX2 and the base instruction set, and
 * chosen when the program is loaded. Sanitizers cannot run before the choice, hence off there. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MB_CPU_CLONED 1
#define MB_CPU_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MB_CPU_CLONED 0
#define MB_CPU_CLONES
#endif

#endif
