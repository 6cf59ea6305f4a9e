/* tests/dist/test_store.np2.c - see store_cases.h. */
#include "store_cases.h"
