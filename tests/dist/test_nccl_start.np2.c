/* tests/dist/test_nccl_start.np2.c - ranks that cannot start NCCL say why, all of them. Each case
 * needs a library that nobody has loaded yet, so their order matters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/log.h"
#include "dist/comm_mpi.h"
#include "dist/comm_nccl.h"
#include "dist/launch.h"

static mb_launch launch;
static const char *emulated; /* the emulated library */

static mb_status ready(mb_device *d, mb_stream s, bool *out)
{
    *out = true;
    return MB_OK;
}

/* No collective is ever queued on it. */
static const mb_device_ops no_ops = {.ready = ready};
static mb_device no_device = {.ops = &no_ops, .kind = MB_DEVICE_CUDA, .name = "none"};

/* Starting fails on all ranks with these words. */
static void refused(mb_status want, const char *words)
{
    mb_comm *c = NULL;
    const mb_status st = mb_comm_nccl_new(launch.world, &no_device, 20.0, "dp", &c);

    if (launch.rank == 0)
        print_message("%s\n", mb_status_sentence());
    assert_int_equal(st, want);
    if (strstr(mb_status_sentence(), words) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", words, mb_status_sentence());
    mb_status_clear();
}

/* On rank 1 alone; the other has the emulated one. */
static void library_of_rank_1(const char *path)
{
    setenv("MBUYU_NCCL_LIBRARY", launch.rank == 1 ? path : emulated, 1);
}

static void a_rank_without_the_library_is_named(void **state)
{
    char text[512];

    library_of_rank_1("/nowhere/libnccl.so.2");
    if (launch.rank == 1) {
        mb_nccl_probe(text, sizeof text);
        assert_non_null(strstr(text, "/nowhere/libnccl.so.2"));
    }
    refused(MB_ENOTSUP, "/nowhere/libnccl.so.2");
    library_of_rank_1("libm.so.6");
    refused(MB_ENOTSUP, "it has no ncclGetVersion");
}

static void old_and_unequal_versions_are_refused(void **state)
{
    library_of_rank_1(emulated);
    if (launch.rank == 1)
        setenv("MBUYU_EMU_NCCL_VERSION", "21702", 1);
    refused(MB_ENOTSUP, "is NCCL 2.17.2; mbuyu needs 2.18 or a later 2");
    if (launch.rank == 1)
        setenv("MBUYU_EMU_NCCL_VERSION", "2708", 1); /* how it was counted up to 2.8 */
    refused(MB_ENOTSUP, "is NCCL 2.7.8;");
    if (launch.rank == 1)
        setenv("MBUYU_EMU_NCCL_VERSION", "21903", 1);
    refused(MB_ENOTSUP, "from 2.19.3 to 2.28.9");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_without_the_library_is_named),
        cmocka_unit_test(old_and_unequal_versions_are_refused),
    };

    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    emulated = getenv("MBUYU_NCCL_LIBRARY");
    if (emulated == NULL || access(emulated, R_OK) != 0) {
        mb_log_info("skipped: MBUYU_NCCL_LIBRARY names no file");
        mb_mpi_finish();
        return 77;
    }
    emulated = strdup(emulated);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed != 0) /* a rank that failed alone leaves others waiting */
        mb_mpi_abort(1);
    return mb_launch_end(&launch, MB_OK);
}
