/* dist/nccl_abi.h - the part of NCCL 2's binary interface that comm_nccl.c uses.
 *
 * NCCL is loaded at run time, so that one program runs with and without it and with whatever version
 * a machine has. These are our own declarations of what has been the same since 2.18;
 * tests/dist/test_nccl_real.np2.c compares them with nccl.h where there is one.
 */
#ifndef MB_DIST_NCCL_ABI_H
#define MB_DIST_NCCL_ABI_H

#include <limits.h>
#include <stddef.h>

enum { MB_NCCL_VERSION_MIN = 21800 }; /* 2.18.0 */

typedef struct mb_nccl_comm mb_nccl_comm; /* what ncclComm_t points to */
typedef struct mb_nccl_id {
    char bytes[128];
} mb_nccl_id;

typedef enum mb_nccl_result {
    MB_NCCL_SUCCESS = 0,
    MB_NCCL_UNHANDLED_CUDA_ERROR = 1,
    MB_NCCL_SYSTEM_ERROR = 2,
    MB_NCCL_INTERNAL_ERROR = 3,
    MB_NCCL_INVALID_ARGUMENT = 4,
    MB_NCCL_INVALID_USAGE = 5,
    MB_NCCL_REMOTE_ERROR = 6,
    MB_NCCL_IN_PROGRESS = 7
} mb_nccl_result;

typedef enum mb_nccl_op { MB_NCCL_SUM = 0, MB_NCCL_MAX = 2, MB_NCCL_MIN = 3 } mb_nccl_op;

typedef enum mb_nccl_type {
    MB_NCCL_I8 = 0,
    MB_NCCL_U8 = 1,
    MB_NCCL_I32 = 2,
    MB_NCCL_U32 = 3,
    MB_NCCL_I64 = 4,
    MB_NCCL_U64 = 5,
    MB_NCCL_F16 = 6,
    MB_NCCL_F32 = 7,
    MB_NCCL_F64 = 8,
    MB_NCCL_BF16 = 9
} mb_nccl_type;

/* The configuration as of 2.18: `size` and `version` tell a newer library where it ends. The last
 * member lies where 2.18 has padding and later versions the traffic class. */
typedef struct mb_nccl_config {
    size_t size;
    unsigned int magic;
    unsigned int version;
    int blocking;
    int cga_cluster_size;
    int min_ctas;
    int max_ctas;
    const char *net_name;
    int split_share;
    int traffic_class;
} mb_nccl_config;

#define MB_NCCL_CONFIG                                                                      \
    {                                                                                       \
        sizeof(mb_nccl_config), 0xcafebeef, MB_NCCL_VERSION_MIN, INT_MIN, INT_MIN, INT_MIN, \
            INT_MIN, NULL, INT_MIN, INT_MIN                                                 \
    }

/* F(name, parameters): every function that is looked up, all returning ncclResult_t. `stream` is a
 * cudaStream_t. */
#define MB_NCCL_FUNCTIONS(F)                                                                      \
    F(GetVersion, (int *version))                                                                 \
    F(GetUniqueId, (mb_nccl_id * id))                                                             \
    F(CommInitRankConfig,                                                                         \
      (mb_nccl_comm * *comm, int size, mb_nccl_id id, int rank, mb_nccl_config *config))          \
    F(CommFinalize, (mb_nccl_comm * comm))                                                        \
    F(CommDestroy, (mb_nccl_comm * comm))                                                         \
    F(CommAbort, (mb_nccl_comm * comm))                                                           \
    F(CommGetAsyncError, (mb_nccl_comm * comm, mb_nccl_result * error))                           \
    F(GroupStart, (void))                                                                         \
    F(GroupEnd, (void))                                                                           \
    F(AllReduce, (const void *from, void *to, size_t n, mb_nccl_type type, mb_nccl_op op,         \
                  mb_nccl_comm *comm, void *stream))                                              \
    F(Reduce, (const void *from, void *to, size_t n, mb_nccl_type type, mb_nccl_op op, int root,  \
               mb_nccl_comm *comm, void *stream))                                                 \
    F(ReduceScatter, (const void *from, void *to, size_t n_out, mb_nccl_type type, mb_nccl_op op, \
                      mb_nccl_comm *comm, void *stream))                                          \
    F(AllGather, (const void *from, void *to, size_t n_in, mb_nccl_type type, mb_nccl_comm *comm, \
                  void *stream))                                                                  \
    F(Broadcast, (const void *from, void *to, size_t n, mb_nccl_type type, int root,              \
                  mb_nccl_comm *comm, void *stream))                                              \
    F(Send,                                                                                       \
      (const void *from, size_t n, mb_nccl_type type, int to, mb_nccl_comm *comm, void *stream))  \
    F(Recv, (void *to, size_t n, mb_nccl_type type, int from, mb_nccl_comm *comm, void *stream))

#endif
