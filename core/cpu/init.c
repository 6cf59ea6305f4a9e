/* core/cpu/init.c - looks at the processor once per process.
 *
 * Kernels marked MB_CPU_CLONES are chosen by the loader with the same tests as here, so the class
 * names what runs: the same class, the same bits.
 */
#include "core/cpu/init.h"

#include <stdio.h>

#include "core/cpu/cpu.h"
#include "core/cpu/gemm.h"

unsigned mb_cpu_features(void)
{
    unsigned found = 0;

#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        found |= MB_CPU_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        found |= MB_CPU_AVX512;
    if (__builtin_cpu_supports("avx512bf16"))
        found |= MB_CPU_AVX512_BF16;
    if (__builtin_cpu_supports("avx512vnni"))
        found |= MB_CPU_AVX512_VNNI;
#endif
    return found;
}

static const char *instruction_set(unsigned features)
{
#if defined(__x86_64__)
    if (features & MB_CPU_AVX512)
        return features & MB_CPU_AVX512_BF16 ? "x86-64-v4 avx512_bf16" : "x86-64-v4";
    return features & MB_CPU_AVX2 ? "x86-64-v3" : "x86-64";
#elif defined(__aarch64__)
    return "aarch64";
#else
    return "generic";
#endif
}

const char *mb_cpu_class(void)
{
    static _Thread_local char text[192];

    snprintf(text, sizeof text, "%s, gemm %s", instruction_set(mb_cpu_features()),
             mb_cpu_gemm_provider());
    return text;
}

mb_status mb_cpu_init(void)
{
    return mb_cpu_gemm_init();
}
