/* tests/dist/test_queue.np3.c - see queue_cases.h. */
#include "queue_cases.h"
