/* tests/dist/test_queue.np2.c - see queue_cases.h. */
#include "queue_cases.h"
