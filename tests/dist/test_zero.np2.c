/* tests/dist/test_zero.np2.c - see zero_cases.h. */
#include "zero_cases.h"
