/* tests/dist/test_comm.np1.c - see comm_cases.h. */
#include "comm_cases.h"
