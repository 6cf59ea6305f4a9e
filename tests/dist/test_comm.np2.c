/* tests/dist/test_comm.np2.c - see comm_cases.h. */
#include "comm_cases.h"
