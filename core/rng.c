/* core/rng.c - plain streams over the counter; see core/rng.h. */
#include "core/rng.h"

#include <math.h>

static mb_rng_block block(uint64_t key, uint64_t n)
{
    return mb_philox(key, (uint32_t)n, (uint32_t)(n >> 32), 0x6d627579u, 0);
}

uint32_t mb_rng_u32(uint64_t key, uint64_t n)
{
    return block(key, n).w[0];
}

static double unit53(uint32_t hi, uint32_t lo)
{
    return (double)((((uint64_t)hi << 32) | lo) >> 11) * 0x1p-53;
}

double mb_rng_double(uint64_t key, uint64_t n)
{
    const mb_rng_block b = block(key, n);

    return unit53(b.w[0], b.w[1]);
}

double mb_rng_normal(uint64_t key, uint64_t n)
{
    const mb_rng_block b = block(key, n);
    const double u = 1.0 - unit53(b.w[0], b.w[1]); /* (0, 1] */
    const double v = unit53(b.w[2], b.w[3]);

    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

uint64_t mb_rng_below(uint64_t key, uint64_t n, uint64_t bound)
{
    const mb_rng_block b = block(key, n);
    const uint64_t r = ((uint64_t)b.w[0] << 32) | b.w[1];

    return (uint64_t)(((unsigned __int128)r * bound) >> 64);
}
