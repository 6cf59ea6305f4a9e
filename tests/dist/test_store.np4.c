/* tests/dist/test_store.np4.c - see store_cases.h. */
#include "store_cases.h"
