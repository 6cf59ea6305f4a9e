/* core/cpu/init.c - looks at the processor once per process.
 *
 * Kernels marked MB_CPU_CLONES are chosen by the loader with the same tests as here, so the class
 * names what runs: the same class, the same bits.
 */
#include "core/cpu/init.h"

#include <stdatomic.h>
#include <stdio.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "core/cpu/cpu.h"
#include "core/cpu/gemm.h"

#if defined(__x86_64__)
/* Intel's processors that have AMX (and avx512_fp16, which is not hidden from guests where AMX is) make
 * 32 products of pairs in two cycles, and 64 of f32: Emerald Rapids measured 86 and 175 GFLOP/s. Zen 4:
 * 232 and 116. */
static bool pairs_are_fast(void)
{
    unsigned a, b, c, d = 0;

    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        d = 0;
    return !(__builtin_cpu_is("intel") && (d & 1u << 23) != 0);
}
#endif

static unsigned look(void)
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
    if ((found & MB_CPU_AVX512) != 0 && __builtin_cpu_supports("avx512bf16"))
        found |= MB_CPU_AVX512_BF16 | (pairs_are_fast() ? MB_CPU_FAST_PAIRS : 0);
    if (__builtin_cpu_supports("avx512vnni"))
        found |= MB_CPU_AVX512_VNNI;
#endif
    return found;
}

unsigned mb_cpu_features(void)
{
    enum { KNOWN = 1 << 30 };
    static atomic_uint known; /* looking leaves a virtual machine: once */
    unsigned found = atomic_load_explicit(&known, memory_order_relaxed);

    if (found == 0) {
        found = look() | KNOWN;
        atomic_store_explicit(&known, found, memory_order_relaxed);
    }
    return found & ~(unsigned)KNOWN;
}

static const char *instruction_set(unsigned features)
{
#if defined(__x86_64__)
    if (features & MB_CPU_FAST_PAIRS)
        return "x86-64-v4 avx512_bf16";
    if (features & MB_CPU_AVX512)
        return features & MB_CPU_AVX512_BF16 ? "x86-64-v4 avx512_bf16 widened" : "x86-64-v4";
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
