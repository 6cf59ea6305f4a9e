/* core/cpu/sizes.h - how sizes are cut. */
#ifndef MB_CORE_CPU_SIZES_H
#define MB_CORE_CPU_SIZES_H

#include <stdint.h>

static inline int64_t mb_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* a >= 0, b > 0 */
static inline int64_t mb_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t mb_round_up(int64_t a, int64_t b)
{
    return mb_ceil_div(a, b) * b;
}

#endif
