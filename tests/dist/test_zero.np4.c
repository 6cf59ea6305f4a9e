/* tests/dist/test_zero.np4.c - see zero_cases.h. */
#include "zero_cases.h"
