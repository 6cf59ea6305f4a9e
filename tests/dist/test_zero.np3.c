/* tests/dist/test_zero.np3.c - see zero_cases.h. */
#include "zero_cases.h"
