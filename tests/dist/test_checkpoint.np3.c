/* tests/dist/test_checkpoint.np3.c - see checkpoint_cases.h. */
#include "checkpoint_cases.h"
