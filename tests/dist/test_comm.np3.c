/* tests/dist/test_comm.np3.c - see comm_cases.h. */
#include "comm_cases.h"
