/* core/rng.h - counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
 *
 * No generator has state. A number is a function of what it is for:
 *
 *     key      seed and site (which dropout, which initialisation, the sampler ...)
 *     counter  sample ordinal, step, and two words of element address
 *
 * so nothing depends on ranks, threads, packing or recomputation. For token activations the address
 * is (position, column / 4) and the column picks one of the four words; in attention it is
 * (query, key / 4) and the head is folded into the site with mb_rng_key(seed, site, head).
 */
#ifndef MB_CORE_RNG_H
#define MB_CORE_RNG_H

#include <stdint.h>

/* Functions that CUDA kernels (core/cuda/) use as well. */
#ifdef __CUDACC__
#define MB_HOST_DEVICE __host__ __device__
#else
#define MB_HOST_DEVICE
#endif

typedef struct mb_rng_block {
    uint32_t w[4];
} mb_rng_block;

/* Sites below 1000 are fixed uses; models number their dropouts from MB_SITE_MODEL upwards. */
enum {
    MB_SITE_SHUFFLE = 1,
    MB_SITE_INIT = 2,
    MB_SITE_SAMPLING = 3,
    MB_SITE_MLM = 4,
    MB_SITE_SPLIT = 5,
    MB_SITE_OPTIM = 6,
    MB_SITE_BINS = 7,
    MB_SITE_AUGMENT = 8,
    MB_SITE_MODEL = 1000
};

/* The 64-bit key of one use: seed, site and a sub-index (head, parameter number, epoch ...). */
MB_HOST_DEVICE static inline uint64_t mb_rng_key(uint64_t seed, uint64_t site, uint64_t sub)
{
    /* splitmix64's finaliser over three words: neighbouring sites get unrelated keys */
    uint64_t z = seed + 0x9e3779b97f4a7c15ull * (site + 1) + 0xd1b54a32d192ed03ull * sub;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

MB_HOST_DEVICE static inline mb_rng_block mb_philox(uint64_t key, uint32_t c0, uint32_t c1,
                                                    uint32_t c2, uint32_t c3)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);

    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53u * c0;
        const uint64_t b = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        const uint32_t n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;

        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    mb_rng_block out = {{c0, c1, c2, c3}};
    return out;
}

/* [0, 1) with 24 bits: exact in f32. */
MB_HOST_DEVICE static inline float mb_rng_unit(uint32_t w)
{
    return (float)(w >> 8) * 0x1p-24f;
}

/* The float of these bits as bf16, rounded by chance: up or down in proportion to how near each is,
 * given a random number of 16 bits. What is exact stays; what is beyond bf16's largest is cut, never
 * infinite; NaN stays NaN. */
MB_HOST_DEVICE static inline uint16_t mb_rng_bf16(uint32_t bits, uint32_t random)
{
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t cut = magnitude > 0x7f800000u ? bits | 0x400000u : bits;

    return (uint16_t)((magnitude < 0x7f7f0000u ? bits + random : cut) >> 16);
}

/* The n-th number of a plain stream, for hosts: shuffles, sampling, initialisation. */
uint32_t mb_rng_u32(uint64_t key, uint64_t n);
double mb_rng_double(uint64_t key, uint64_t n);                  /* [0, 1), 53 bits */
double mb_rng_normal(uint64_t key, uint64_t n);                  /* Box-Muller on two doubles */
uint64_t mb_rng_below(uint64_t key, uint64_t n, uint64_t bound); /* unbiased enough: 64-bit mul */

#endif
