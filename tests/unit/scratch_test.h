/* tests/unit/scratch_test.h - kernels and the scratch memory they are called with, for all tests of a
 * group. */
#ifndef MB_TESTS_UNIT_SCRATCH_TEST_H
#define MB_TESTS_UNIT_SCRATCH_TEST_H

#include "core/arena.h"
#include "core/cpu/cpu.h"
#include "tests/check.h"

static mb_arena *scratch;

static inline int make_scratch(void **state)
{
    (void)state;
    OK(mb_cpu_init());
    OK(mb_arena_new("scratch", (size_t)1 << 30, &scratch));
    return 0;
}

static inline int drop_scratch(void **state)
{
    (void)state;
    mb_arena_free(scratch);
    return 0;
}

#endif
