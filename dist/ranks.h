/* dist/ranks.h - this program on several ranks of this machine, as `mpirun -np N` starts it.
 *
 * What mpirun does with Ctrl-C saves nothing (dist/stop.h), so it is kept from the terminal: it runs
 * in a process group of its own, and this process stays behind as its keeper.
 *
 *     SIGINT, SIGTERM, SIGHUP   the first: SIGUSR1 to mpirun, which hands it to all ranks: they stop
 *                               after a step and save. A second SIGINT or SIGTERM: SIGTERM, which
 *                               ends them within two seconds; exit code 130 or 143
 *     SIGUSR1                   is passed on
 *     death of the keeper       mpirun gets SIGTERM
 */
#ifndef MB_DIST_RANKS_H
#define MB_DIST_RANKS_H

/* argv as main got it, without the option that asked for ranks. Returns the exit code: that of the
 * ranks. Prints why when mpirun cannot be started. */
int mb_ranks_run(int ranks, char **argv);

#endif
