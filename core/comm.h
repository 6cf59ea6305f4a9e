/* core/comm.h - communicators: what a group of ranks can do together.
 *
 * The interface is here, with the one-rank form; dist/ provides MPI and NCCL. Every function but
 * mb_comm_free is collective: all ranks of the communicator call it, in the same order, from the
 * same thread. Counts are int64_t; implementations cut messages below 2^31 bytes.
 *
 * Where buffers live. A communicator is for the memory of its `device`. In host memory (device NULL
 * or host_memory) a collective is done when the function returns, unless the communicator queues
 * (mb_comm_queues): then a thread of its own works behind the computing. In device memory collectives
 * are queued on MB_STREAM_COMM. The caller orders what is queued, with the edges it needs and no
 * others:
 *
 *     MB_TRY(mb_comm_after(c, MB_STREAM_COMPUTE));        // the gradient is there
 *     MB_TRY(c->ops->reduce_scatter(c, grad, at, MB_DTYPE_F32, NULL, 0));
 *     MB_TRY(mb_comm_before(c, MB_STREAM_COMPUTE));       // what comes next uses the sum
 *     ...
 *     MB_TRY(mb_comm_wait(c, MB_STREAM_COMPUTE));         // the host wants a number
 *
 * For host memory after does nothing, as kernels are done when they return; the other two wait for
 * all that is queued. While the host waits for a stream that waits for other ranks it must use
 * mb_comm_wait, which knows when a peer is lost, and must be inside no collective of another
 * communicator. What a rank needs from the host to get there (a vote over mb_comm_host) comes in the
 * same order on all ranks.
 */
#ifndef MB_CORE_COMM_H
#define MB_CORE_COMM_H

#include "core/device.h"
#include "core/dtype.h"

typedef enum mb_reduce { MB_SUM, MB_MAX, MB_MIN } mb_reduce;

typedef struct mb_comm mb_comm;

typedef struct mb_comm_ops {
    const char *name;
    /* In place. F32, F64, I32, I64, U8; on devices BF16 and F16 too. Float sums are repeatable for
     * a given size: in rank order in host memory; on devices in NCCL's order, which also depends on
     * how the machines are connected. In host memory MAX and MIN keep a NaN. */
    mb_status (*all_reduce)(mb_comm *c, void *buf, int64_t n, mb_dtype d, mb_reduce op);
    /* Element range [at[r], at[r+1]) of every rank's `buf` is summed into rank r's buf at the same
     * place, as all_reduce adds; the rest of buf is unspecified after. at has size+1 entries.
     * Float and I64. `work` holds work_bytes of staging (see mb_comm_work_bytes). */
    mb_status (*reduce_scatter)(mb_comm *c, void *buf, const int64_t *at, mb_dtype d, void *work,
                                size_t work_bytes);
    /* Every rank's range [at[r], at[r+1]) of buf reaches all ranks' buf. */
    mb_status (*all_gather)(mb_comm *c, void *buf, const int64_t *at, mb_dtype d);
    mb_status (*broadcast)(mb_comm *c, void *buf, int64_t bytes, int root);
    /* Not collective; each may wait for the other. */
    mb_status (*send)(mb_comm *c, const void *buf, int64_t bytes, int to);
    mb_status (*recv)(mb_comm *c, void *buf, int64_t bytes, int from);
    /* All ranks are here, and what this one queued is done. */
    mb_status (*barrier)(mb_comm *c);
    /* The next three may be NULL. Between begin and end, collectives are only noted; end queues
     * them as one. Their buffers do not overlap. */
    mb_status (*group_begin)(mb_comm *c);
    mb_status (*group_end)(mb_comm *c);
    /* See mb_comm_wait. */
    mb_status (*wait)(mb_comm *c, mb_stream s);
    /* Host memory, where collectives are queued: waits for them. Else NULL. */
    mb_status (*before)(mb_comm *c, mb_stream s);
    void (*free)(mb_comm *c);
} mb_comm_ops;

struct mb_comm {
    const mb_comm_ops *ops;
    int rank, size;
    mb_device *device; /* where its buffers live, borrowed; NULL: host memory */
    mb_comm *host;     /* the same ranks for host memory, borrowed; NULL: this one (mb_comm_host) */
    const char *name;  /* in messages: "dp inner"; a literal, may be NULL */
    int64_t
        bytes_sent; /* payload that left this rank through all_reduce/reduce_scatter/...; of what
                         * is queued in host memory: as of the last wait */
    /* What float32 sums travel as in reduce_scatter and in an all_reduce of more than MB_COMM_SMALL
     * bytes: F32, or in host memory BF16, to which every rank's contribution is rounded; they are
     * added in float32 (dist/comm_mpi.h). */
    mb_dtype wire;
};

/* The communicator of one rank; nothing is ever sent. Static, freeing it does nothing. */
mb_comm *mb_comm_self(void);
/* The same for buffers of a device (borrowed). The caller owns *out. */
mb_status mb_comm_one(mb_device *device, mb_comm **out) MB_MUST_USE;
/* Rank 0 of `size` ranks that are not there, for plans: collectives do nothing. The caller owns *out. */
mb_status mb_comm_on_paper(mb_device *device, int size, mb_comm **out) MB_MUST_USE;
void mb_comm_free(mb_comm *c); /* NULL is allowed */

/* The communicator of the same ranks for host memory. */
static inline mb_comm *mb_comm_host(mb_comm *c)
{
    return c->host != NULL ? c->host : c;
}

/* Are collectives queued, to run behind the computing? */
bool mb_comm_queues(const mb_comm *c);
/* Collectives from now on run after what is queued on s by now / what is queued on s from now on
 * runs after the collectives queued by now. */
mb_status mb_comm_after(mb_comm *c, mb_stream s) MB_MUST_USE;
mb_status mb_comm_before(mb_comm *c, mb_stream s) MB_MUST_USE;
/* The host waits until everything queued on stream s of the device is done. MB_EPEER, with what was
 * waited for, when another rank is lost or late: the communicator is of no use afterwards. */
mb_status mb_comm_wait(mb_comm *c, mb_stream s) MB_MUST_USE;
/* Collectives between the two are queued as one, where that makes a difference. */
mb_status mb_comm_group_begin(mb_comm *c) MB_MUST_USE;
mb_status mb_comm_group_end(mb_comm *c) MB_MUST_USE;

/* Staging that reduce_scatter of `bytes` in all wants: bounded, whatever the size; on devices
 * none. */
size_t mb_comm_work_bytes(const mb_comm *c, int64_t bytes);

/* All ranks get the worst status of any, and, where they had none, that rank's sentence with
 * "rank r: " in front. Nothing may branch on a local failure before this. Over mb_comm_host(c).
 * Collective. */
mb_status mb_comm_agree(mb_comm *c, mb_status st);

/* Sends a host string from root to all, over mb_comm_host(c); *text is owned by the caller on the
 * other ranks. All of them have it, or none. Collective. */
mb_status mb_comm_broadcast_string(mb_comm *c, char **text, int root) MB_MUST_USE;

#endif
