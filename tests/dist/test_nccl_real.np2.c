/* tests/dist/test_nccl_real.np2.c - NVIDIA's own library, where the build found one: our declarations
 * are those of its header, it loads, takes our configuration and, without a GPU, says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "core/log.h"
#include "dist/comm_mpi.h"
#include "dist/comm_nccl.h"
#include "dist/launch.h"
#include "dist/nccl_abi.h"

#ifdef MB_NCCL_HEADER
#include <nccl.h>

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours)
SAME(MB_NCCL_SUCCESS, ncclSuccess);
SAME(MB_NCCL_UNHANDLED_CUDA_ERROR, ncclUnhandledCudaError);
SAME(MB_NCCL_SYSTEM_ERROR, ncclSystemError);
SAME(MB_NCCL_INTERNAL_ERROR, ncclInternalError);
SAME(MB_NCCL_INVALID_ARGUMENT, ncclInvalidArgument);
SAME(MB_NCCL_INVALID_USAGE, ncclInvalidUsage);
SAME(MB_NCCL_REMOTE_ERROR, ncclRemoteError);
SAME(MB_NCCL_IN_PROGRESS, ncclInProgress);
SAME(MB_NCCL_SUM, ncclSum);
SAME(MB_NCCL_MAX, ncclMax);
SAME(MB_NCCL_MIN, ncclMin);
SAME(MB_NCCL_I8, ncclInt8);
SAME(MB_NCCL_U8, ncclUint8);
SAME(MB_NCCL_I32, ncclInt32);
SAME(MB_NCCL_U32, ncclUint32);
SAME(MB_NCCL_I64, ncclInt64);
SAME(MB_NCCL_U64, ncclUint64);
SAME(MB_NCCL_F16, ncclFloat16);
SAME(MB_NCCL_F32, ncclFloat32);
SAME(MB_NCCL_F64, ncclFloat64);
SAME(MB_NCCL_BF16, ncclBfloat16);
SAME(sizeof(mb_nccl_id), sizeof(ncclUniqueId));
SAME(sizeof(mb_nccl_result), sizeof(ncclResult_t));
SAME(sizeof(mb_nccl_op), sizeof(ncclRedOp_t));
SAME(sizeof(mb_nccl_type), sizeof(ncclDataType_t));
SAME(sizeof(void *), sizeof(cudaStream_t));
#define SAME_PLACE(ours, theirs) \
    SAME(offsetof(mb_nccl_config, ours), offsetof(ncclConfig_t, theirs))
SAME_PLACE(size, size);
SAME_PLACE(magic, magic);
SAME_PLACE(version, version);
SAME_PLACE(blocking, blocking);
SAME_PLACE(cga_cluster_size, cgaClusterSize);
SAME_PLACE(min_ctas, minCTAs);
SAME_PLACE(max_ctas, maxCTAs);
SAME_PLACE(net_name, netName);
SAME_PLACE(split_share, splitShare);
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
SAME_PLACE(traffic_class, trafficClass);
#endif
_Static_assert(sizeof(mb_nccl_config) <= sizeof(ncclConfig_t), "a part of the configuration");

/* The functions' parameters, with NCCL's names for the types: a mistake is an error here. */
#define AS(ret, name, ...) \
    __attribute__((unused)) static ret (*const check_##name)(__VA_ARGS__) = name
AS(ncclResult_t, ncclGetVersion, int *);
AS(ncclResult_t, ncclGetUniqueId, ncclUniqueId *);
AS(ncclResult_t, ncclCommInitRankConfig, ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *);
AS(ncclResult_t, ncclCommFinalize, ncclComm_t);
AS(ncclResult_t, ncclCommDestroy, ncclComm_t);
AS(ncclResult_t, ncclCommAbort, ncclComm_t);
AS(ncclResult_t, ncclCommGetAsyncError, ncclComm_t, ncclResult_t *);
AS(ncclResult_t, ncclGroupStart, void);
AS(ncclResult_t, ncclGroupEnd, void);
AS(ncclResult_t, ncclAllReduce, const void *, void *, size_t, ncclDataType_t, ncclRedOp_t,
   ncclComm_t, cudaStream_t);
AS(ncclResult_t, ncclReduce, const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, int,
   ncclComm_t, cudaStream_t);
AS(ncclResult_t, ncclReduceScatter, const void *, void *, size_t, ncclDataType_t, ncclRedOp_t,
   ncclComm_t, cudaStream_t);
AS(ncclResult_t, ncclAllGather, const void *, void *, size_t, ncclDataType_t, ncclComm_t,
   cudaStream_t);
AS(ncclResult_t, ncclBroadcast, const void *, void *, size_t, ncclDataType_t, int, ncclComm_t,
   cudaStream_t);
AS(ncclResult_t, ncclSend, const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
AS(ncclResult_t, ncclRecv, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
AS(const char *, ncclGetErrorString, ncclResult_t);
AS(const char *, ncclGetLastError, ncclComm_t);
#endif

#ifndef MB_NCCL_REAL
#define MB_NCCL_REAL ""
#endif
static const char real[] = MB_NCCL_REAL; /* its file */
static mb_launch launch;

static mb_status ready(mb_device *d, mb_stream s, bool *out)
{
    *out = true;
    return MB_OK;
}

static const mb_device_ops no_ops = {.ready = ready};
static mb_device no_device = {.ops = &no_ops, .kind = MB_DEVICE_CUDA, .name = "none"};

static void it_loads_and_tells_its_version(void **state)
{
    char text[512];

    mb_nccl_probe(text, sizeof text);
    if (launch.rank == 0)
        print_message("%s\n", text);
    assert_true(strncmp(text, "NCCL 2.", 7) == 0);
}

static void without_a_gpu_it_says_so(void **state)
{
    mb_comm *c = NULL;
    const mb_status st = mb_comm_nccl_new(launch.world, &no_device, 60.0, "dp", &c);

    if (st == MB_OK) { /* a GPU for every rank, or two ranks on one */
        mb_comm_free(c);
        skip();
    }
    if (launch.rank == 0)
        print_message("%s\n", mb_status_sentence());
    assert_int_equal(st, MB_EPEER);
    assert_non_null(strstr(mb_status_sentence(), "nccl"));
    mb_status_clear();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_loads_and_tells_its_version),
        cmocka_unit_test(without_a_gpu_it_says_so),
    };

    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    if (real[0] == '\0') {
        mb_log_info("skipped: the build found no NCCL");
        mb_mpi_finish();
        return 77;
    }
    setenv("MBUYU_NCCL_LIBRARY", real, 1);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed != 0) /* a rank that failed alone leaves others waiting */
        mb_mpi_abort(1);
    return mb_launch_end(&launch, MB_OK);
}
