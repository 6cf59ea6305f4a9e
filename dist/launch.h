/* dist/launch.h - who am I: ranks, threads and processors of this process.
 *
 *     mb_launch launch;
 *     MB_TRY(mb_launch_init(&argc, &argv, &launch));
 *     ... launch.world, launch.threads ...
 *     return mb_launch_end(&launch, st);        // from main
 *
 * MPI is started only under a launcher (mpirun, srun --mpi=pmix, mpiexec), so a plain start costs
 * nothing and needs no network. Threads per rank: the least of the control group's processor quota
 * and this node's cores, shared by the ranks of the node, and OMP_NUM_THREADS.
 */
#ifndef MB_DIST_LAUNCH_H
#define MB_DIST_LAUNCH_H

#include "core/comm.h"

typedef struct mb_launch {
    mb_comm *world; /* all ranks; mb_comm_self() when alone */
    int rank, size;
    int local_rank, local_size; /* among the ranks on this machine */
    int cores;                  /* this machine's, as far as the process may use them */
    int threads;                /* for this rank; already given to OpenMP */
    char text[192];             /* "2 ranks on this node, 4 threads each, ..." for the log */
} mb_launch;

/* Starts MPI when there is a launcher, chooses threads and processors and logs the choice.
 * MB_EARG when Slurm started several tasks that MPI does not join. Collective. */
mb_status mb_launch_init(int *argc, char ***argv, mb_launch *out) MB_MUST_USE;

/* The end of main, and what it returns: prints the failure (once: the ranks agree on it before) and
 * ends MPI. Collective: only for a status that all ranks share (mb_comm_agree). */
int mb_launch_end(mb_launch *l, mb_status st);

/* The end for a rank that failed alone while others may wait for it: prints its sentence and brings
 * all ranks down with the status's exit code. When all fail alike, only one of them prints. */
_Noreturn void mb_launch_abort(mb_launch *l, mb_status st);

/* Threads that fit: cores and quota (in processors; 0: none) shared by `ranks`, at most `wanted`
 * (0: no wish), at least 1. */
int mb_launch_threads(int cores, double quota, int ranks, int wanted);

/* The processor quota of this process's control groups below `root` ("" for the system), in
 * processors; 0 when there is none. Versions 1 and 2. */
double mb_launch_quota(const char *root);

#endif
