/* tests/dist/test_comm.np4.c - see comm_cases.h. */
#include "comm_cases.h"
