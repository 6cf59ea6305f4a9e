/* dist/stop.c - see dist/stop.h. Handlers set flags, say so (and, the second time, end the process). */
#include "dist/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/sigstack.h"

static const int handled[] = {SIGUSR1, SIGTERM, SIGINT, SIGXFSZ, SIGPIPE, SIGHUP};
enum { N_HANDLED = sizeof handled / sizeof *handled, N_GRACEFUL = 3 };

static volatile sig_atomic_t signal_seen; /* its number */
static volatile sig_atomic_t hard_seen;   /* SIGTERM or SIGINT came before */

static struct {
    bool on, announce;
    pid_t mpirun; /* whose SIGTERM comes before a SIGKILL; 0: none */
    struct sigaction before[N_HANDLED];
    char file[4096];
    double deadline; /* on mb_clock; 0: none */
    double next_look;
    mb_stop_why why;
    char text[4200];
} state;

/* A step can take minutes: whoever asked must not wait for it to learn that he was heard. */
static void answer(int number, pid_t sender)
{
    static const char once[] = "\nmbuyu: stopping after this step and saving\n";
    static const char twice[] = "\nmbuyu: stopping after this step and saving; again: ends at once "
                                "without saving\n";
    static const char killed[] =
        "\nmbuyu: mpirun ends its ranks within a second, saved or not. To stop and save, start with "
        "--ranks N in place of mpirun -np N, or send mpirun SIGUSR1 (`mbuyu help exit-codes`)\n";

    if (number == SIGUSR1)
        (void)!write(STDERR_FILENO, once, sizeof once - 1);
    else if (number == SIGTERM && state.mpirun != 0 && sender == state.mpirun)
        (void)!write(STDERR_FILENO, killed, sizeof killed - 1);
    else
        (void)!write(STDERR_FILENO, twice, sizeof twice - 1);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    const int before = errno;

    (void)context;
    if (number != SIGUSR1) {
        if (hard_seen)
            _exit(128 + number);
        hard_seen = 1;
    }
    if (state.announce && (signal_seen == 0 || number != SIGUSR1))
        answer(number, info->si_pid);
    signal_seen = number;
    errno = before;
}

static double deadline_of(const mb_stop_options *o)
{
    const char *end = getenv("SLURM_JOB_END_TIME");
    const double now = mb_clock();
    double deadline = o->time_limit > 0 ? now + o->time_limit : 0;

    if (end != NULL && o->slurm_margin >= 0) {
        const double left = strtod(end, NULL) - (double)time(NULL) - o->slurm_margin;
        if (deadline == 0 || now + left < deadline)
            deadline = now + left;
    }
    return deadline;
}

mb_status mb_stop_init(const mb_stop_options *o)
{
    if (state.on)
        mb_stop_release();
    MB_REQUIRE(o->file == NULL || strlen(o->file) < sizeof state.file, MB_EARG,
               "the stop file's path has %zu characters, at most %zu are allowed", strlen(o->file),
               sizeof state.file - 1);
    memset(&state, 0, sizeof state);
    signal_seen = hard_seen = 0;
    if (o->file != NULL) {
        snprintf(state.file, sizeof state.file, "%s", o->file);
        if (unlink(state.file) == 0)
            mb_log_warn("removed the stop file %s, left over from before the start", state.file);
    }
    state.deadline = deadline_of(o);
    state.announce = o->announce;
    state.mpirun = getenv("OMPI_COMM_WORLD_SIZE") != NULL ? getppid() : 0;
    mb_signal_stack();
    for (int i = 0; i < N_HANDLED; i++) {
        struct sigaction sa = {.sa_flags = SA_RESTART | SA_ONSTACK};
        if (i < N_GRACEFUL) {
            sa.sa_flags |= SA_SIGINFO;
            sa.sa_sigaction = on_signal;
        } else {
            sa.sa_handler = SIG_IGN;
        }
        sigemptyset(&sa.sa_mask);
        sigaction(handled[i], &sa, &state.before[i]);
    }
    state.on = true;
    return MB_OK;
}

static const char *signal_name(int number)
{
    return number == SIGUSR1 ? "SIGUSR1" : number == SIGTERM ? "SIGTERM" : "SIGINT";
}

static mb_stop_why look(double now)
{
    if (signal_seen) {
        snprintf(state.text, sizeof state.text, "%s", signal_name(signal_seen));
        return MB_STOP_SIGNAL;
    }
    if (state.deadline != 0 && now >= state.deadline) {
        snprintf(state.text, sizeof state.text, "the time limit");
        return MB_STOP_TIME;
    }
    if (state.file[0] != '\0' && now >= state.next_look) {
        state.next_look = now + 1.0;
        if (access(state.file, F_OK) == 0) {
            snprintf(state.text, sizeof state.text, "the stop file %s", state.file);
            (void)!unlink(state.file);
            return MB_STOP_FILE;
        }
    }
    return MB_STOP_NO;
}

mb_stop_why mb_stop_poll(void)
{
    if (state.on && state.why == MB_STOP_NO)
        state.why = look(mb_clock());
    return state.why;
}

const char *mb_stop_text(void)
{
    return state.text;
}

void mb_stop_release(void)
{
    for (int i = 0; state.on && i < N_HANDLED; i++)
        sigaction(handled[i], &state.before[i], NULL);
    memset(&state, 0, sizeof state);
    signal_seen = hard_seen = 0;
}
