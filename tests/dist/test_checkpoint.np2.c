/* tests/dist/test_checkpoint.np2.c - see checkpoint_cases.h. */
#include "checkpoint_cases.h"
