/* core/cpu/philox.c - many blocks of random words side by side; see core/rng.h. */
#include "core/cpu/rows.h"
#include "core/rng.h"

MB_CPU_CLONES void mb_cpu_philox(uint32_t *restrict word, uint64_t key, uint32_t c0, uint32_t c1,
                                 uint32_t c2, uint32_t first)
{
#pragma omp simd
    for (int j = 0; j < MB_PHILOX_BLOCKS; j++) {
        const mb_rng_block b = mb_philox(key, c0, c1, c2, first + (uint32_t)j);

        word[4 * j] = b.w[0];
        word[4 * j + 1] = b.w[1];
        word[4 * j + 2] = b.w[2];
        word[4 * j + 3] = b.w[3];
    }
}
