/* dist/comm_nccl.h - communicators over NCCL: collectives on GPU memory, one GPU per rank.
 *
 *     mb_comm *world, *dp;
 *     MB_TRY(mb_comm_mpi_world(&world));
 *     MB_TRY(mb_device_open(MB_DEVICE_CUDA, launch.local_rank, threads, &device));
 *     MB_TRY(mb_comm_nccl_new(world, device, 300.0, "dp", &dp));
 *
 * Everything but barrier is queued on the device's MB_STREAM_COMM (core/comm.h says who orders it).
 * MPI starts a communicator, carries barriers and whatever the host wants to agree on; it never
 * moves device memory, and no MPI call is open while this rank waits for NCCL.
 *
 * reduce_scatter and all_gather over equal ranges are NCCL's own; over unequal ones a group of
 * reductions to, or broadcasts from, the owners of the ranges that are not empty. Nothing needs
 * staging. How NCCL adds floats depends on it and on the machines; it is the same in every run.
 *
 * mb_comm.bytes_sent counts payload by the formulas of dist/comm_mpi.h, which are what a ring needs,
 * so that a step costs the same number on both. What NCCL's protocols and trees put on wires is not
 * seen from here.
 *
 * NCCL has no time limits and does not report a lost peer by itself. So every wait of the host
 * (mb_comm_wait, starting and ending a communicator) asks NCCL for asynchronous errors in turns with
 * the stream, and gives up after `timeout` seconds: the communicator is aborted, what was queued ends
 * somehow, and this and all later calls are MB_EPEER.
 *
 * The library is libnccl.so.2, or the file named by MBUYU_NCCL_LIBRARY; 2.18 or later, the same
 * version on all ranks.
 */
#ifndef MB_DIST_COMM_NCCL_H
#define MB_DIST_COMM_NCCL_H

#include "core/comm.h"

/* The ranks of `host` (a communicator for host memory) with their devices. Both are borrowed and
 * outlive *out, which the caller owns. One rank needs no NCCL and gets mb_comm_one. `timeout`: in
 * seconds, 0 for none. `name`: for messages, a literal. Call it on the thread that opened the device.
 * MB_ENOTSUP when a rank has no NCCL that will do, MB_EPEER when the ranks do not find each other.
 * Collective. */
mb_status mb_comm_nccl_new(mb_comm *host, mb_device *device, double timeout, const char *name,
                           mb_comm **out) MB_MUST_USE;

/* "NCCL 2.28.9", or why there is none; one line. */
void mb_nccl_probe(char *text, size_t size);

#endif
