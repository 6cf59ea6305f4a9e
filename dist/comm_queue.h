/* dist/comm_queue.h - collectives over host memory that run behind the computing.
 *
 *     MB_TRY(mb_comm_mpi_split(world, 0, world->rank, &inner));
 *     MB_TRY(mb_comm_queue_new(inner, world, "dp", &c));           // takes inner
 *     MB_TRY(c->ops->reduce_scatter(c, grad, at, MB_DTYPE_F32, work, work_bytes));  // returns at once
 *     ... kernels that do not touch grad ...
 *     MB_TRY(mb_comm_before(c, MB_STREAM_COMPUTE));                // the sum is there
 *
 * all_reduce, reduce_scatter and all_gather are queued; one thread of the process works the queues of
 * all its communicators off, in the order of the calls, like the comm stream of a device. Every rank
 * queues the same collectives in the same order, so which thread is slow or fast changes no result.
 * Buffers and staging stay as they are until a wait; ranges (`at`) are copied.
 *
 * One thread at a time is inside MPI (MPI_THREAD_SERIALIZED): a communicator over MPI that is used
 * directly first waits until nothing is queued (mb_comm_queue_idle). A collective that failed is told
 * by the next call or wait, with its sentence; what is queued behind it is dropped.
 *
 * The thread asks MPI in turns, and sleeps between them so that it takes next to nothing from the
 * threads that compute; while the computing waits for it, it only yields. Nothing is allocated after
 * mb_comm_queue_new.
 */
#ifndef MB_DIST_COMM_QUEUE_H
#define MB_DIST_COMM_QUEUE_H

#include "core/comm.h"

/* inner: for host memory, of this communicator's own; taken, also on failure. host: the same ranks,
 * used directly; borrowed, outlives *out, which the caller owns. name: a literal. All of a process are
 * made and used by one thread. */
mb_status mb_comm_queue_new(mb_comm *inner, mb_comm *host, const char *name,
                            mb_comm **out) MB_MUST_USE;

/* Waits until nothing is queued in this process; the failure of what was. MB_OK at once on the queue's
 * own thread, and where there is none. */
mb_status mb_comm_queue_idle(void) MB_MUST_USE;
/* Is this the queue's thread? */
bool mb_comm_queue_here(void);
/* On that thread, between two looks at what it waits for; `turn` counts them. MB_EPEER when the queue
 * was given up. */
mb_status mb_comm_queue_turn(int64_t turn) MB_MUST_USE;
/* The end: nothing more is queued or waited for, and the thread leaves MPI alone, if need be after a
 * fraction of a second. For a process that is about to abort. Any thread. */
void mb_comm_queue_halt(void);

#endif
