/* tests/dist/test_zero.np1.c - see zero_cases.h. */
#include "zero_cases.h"
