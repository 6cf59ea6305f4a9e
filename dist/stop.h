/* dist/stop.h - wishes to stop early: signals, a stop file, a time limit.
 *
 * mb_stop_poll() says whether this rank has been asked to stop. It is a local wish: the trainer adds
 * it to the flags all ranks reduce in every step, so that all of them stop at the same one, save
 * and end with exit code 75.
 *
 *     SIGUSR1            stop gracefully; the one to use with mpirun, which passes it on to all ranks
 *     SIGTERM, SIGINT    the first: stop gracefully; the second of either: exit at once, 143 or 130
 *     stop file          as SIGUSR1; removed when seen
 *     time limit         seconds since mb_stop_init, or SLURM_JOB_END_TIME less a margin
 *
 * Open MPI's mpirun answers SIGINT and SIGTERM by SIGTERM to its ranks a second later and SIGKILL
 * after one more, so neither is a way to get a checkpoint; dist/ranks.h turns them into SIGUSR1.
 * SIGXFSZ, SIGPIPE and SIGHUP are ignored: a full disk, a closed pipe and a lost
 * terminal do not end a run. The state belongs to the process, as signals do.
 */
#ifndef MB_DIST_STOP_H
#define MB_DIST_STOP_H

#include "core/status.h"

typedef enum mb_stop_why { MB_STOP_NO, MB_STOP_SIGNAL, MB_STOP_FILE, MB_STOP_TIME } mb_stop_why;

typedef struct mb_stop_options {
    const char *file;    /* NULL: none. Copied. One rank is enough; a left-over one is removed. */
    double time_limit;   /* seconds; 0: none */
    double slurm_margin; /* seconds before SLURM_JOB_END_TIME; negative: do not look at it */
    bool announce;       /* a signal is answered on standard error at once; one rank is enough */
} mb_stop_options;

mb_status mb_stop_init(const mb_stop_options *options) MB_MUST_USE;
/* Asks the system for the stop file at most once a second. Once it has said yes it stays. */
mb_stop_why mb_stop_poll(void);
/* "SIGUSR1", "the stop file out/STOP", "the time limit": for the log; "" while nobody asked. */
const char *mb_stop_text(void);
/* Restores the handlers found by mb_stop_init and forgets every wish. */
void mb_stop_release(void);

#endif
