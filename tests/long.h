/* The long form of a test's sweep: MB_LONG=1, as scripts/test.sh --long sets it. (Its short form sets
 * MB_LONG=0, so that the variable being there says nothing.) */
#ifndef MB_TESTS_LONG_H
#define MB_TESTS_LONG_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static inline bool is_long_run(void)
{
    const char *value = getenv("MB_LONG");

    return value != NULL && strcmp(value, "1") == 0;
}

#endif
