/* tests/dist/test_store.np3.c - see store_cases.h. */
#include "store_cases.h"
