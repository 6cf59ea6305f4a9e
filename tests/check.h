/* tests/check.h - cmocka, and what tests expect of calls that return a status. */
#ifndef MB_TESTS_CHECK_H
#define MB_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/status.h"

#define OK(call) expect_ok((call), #call)

static inline void expect_ok(mb_status st, const char *call)
{
    if (st != MB_OK)
        fail_msg("%s: %s\n%s", call, mb_status_sentence(), mb_status_path());
}

/* A call that had to fail, and a part of what it says. */
static inline void expect(mb_status st, mb_status wanted, const char *part)
{
    assert_int_equal(st, wanted);
    if (strstr(mb_status_sentence(), part) == NULL)
        fail_msg("'%s' does not say '%s'", mb_status_sentence(), part);
    mb_status_clear();
}

#endif
