/* dist/comm_mpi.h - communicators over MPI (the only wrapper of <mpi.h>; MPI-3.1 calls only).
 *
 * All arithmetic is ours: MPI moves bytes, sums are taken here in rank order. So results do not
 * depend on which algorithm an MPI library picks, nor on when messages come, and they repeat at a
 * fixed number of ranks and nodes; sums of integers and of values that only one rank holds do not
 * depend on those numbers either.
 *
 * Nodes. A reduce_scatter sums inside nodes first (every rank collects a part of the ranges, over the
 * node's shared memory), then each owner gets one contribution per node; with P ranks on each node a
 * network carries a P-th of what a direct exchange would send. Order: ranks within a node, then nodes
 * by their lowest rank. Inside one node, and with one rank per node, that is the plain rank order.
 *
 * Float32 sums may travel as bfloat16 (mb_comm.wire): a contribution x is rounded on its way to who
 * adds it, so a sum over R ranks is wrong by at most 2^-8 times the sum of all |x| but the owner's,
 * and, over several nodes, by as much again of what each other node sums to; beside float32 rounding.
 *
 * Bytes counted in mb_comm.bytes_sent for n ranks, T bytes in all, P(r) bytes in rank r's range, as
 * they travel:
 *
 *     all_reduce      (n-1) T             up to MB_COMM_SMALL bytes: everybody's values to all
 *                     a reduce_scatter and an all_gather over nearly equal ranges, when larger
 *     reduce_scatter  T - P(rank)         each range to its owner, on whatever way
 *     all_gather      T - P(rank+1 mod n) a ring: everything but what the right neighbour owns
 *     broadcast       (n-1) T             counted at the root, 0 elsewhere
 *     send            T
 *
 * One thread at a time takes part: the one that called mb_mpi_init, or, while that computes, the one
 * that works the queue off (dist/comm_queue.h).
 */
#ifndef MB_DIST_COMM_MPI_H
#define MB_DIST_COMM_MPI_H

#include "core/comm.h"

enum { MB_COMM_SMALL = 64 << 10 }; /* bytes of an all_reduce that goes to all at once */

/* Starts MPI; once per process, not after mb_mpi_finish. argc and argv are those of main. */
mb_status mb_mpi_init(int *argc, char ***argv) MB_MUST_USE;
bool mb_mpi_is_running(void);
/* Ends MPI, when it runs. Collective. */
void mb_mpi_finish(void);
/* Ends all ranks at once with this exit code; returns only when MPI does not run. */
void mb_mpi_abort(int exit_code);
/* Does MPI let another thread than the first work for it, one at a time? Else nothing can be queued. */
bool mb_mpi_may_queue(void);
/* "Open MPI v4.1.4", what the library calls itself; "" before mb_mpi_init. */
const char *mb_mpi_library(void);

/* All ranks. Without MPI running, mb_comm_self(). Owned by the caller. Collective. */
mb_status mb_comm_mpi_world(mb_comm **out) MB_MUST_USE;
/* The ranks of `parent` with the same color >= 0, ordered by key, then by rank. A negative color
 * belongs to none and gets NULL. Owned by the caller. Collective over parent. */
mb_status mb_comm_mpi_split(mb_comm *parent, int color, int key, mb_comm **out) MB_MUST_USE;
/* The ranks of `parent` that share this machine's memory. Owned by the caller. Collective. */
mb_status mb_comm_mpi_node(mb_comm *parent, mb_comm **out) MB_MUST_USE;

/* What an all_reduce of n elements adds to c->bytes_sent, by the rules above. */
int64_t mb_comm_mpi_all_reduce_bytes(const mb_comm *c, int64_t n, mb_dtype d);

#endif
