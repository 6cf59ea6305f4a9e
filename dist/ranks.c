/* dist/ranks.c - see dist/ranks.h. */
#include "dist/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"

static const int passed[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
enum { N_PASSED = sizeof passed / sizeof *passed, FAILED = 70 };

static volatile pid_t mpirun;
static volatile sig_atomic_t asked, forced; /* a signal's number */

static void pass_on(int number)
{
    const int before = errno;
    const bool hard = number == SIGINT || number == SIGTERM;

    if (hard && asked)
        forced = number;
    if (number != SIGUSR1 && asked == 0)
        asked = number;
    if (mpirun > 0)
        kill(mpirun, forced != 0 ? SIGTERM : SIGUSR1);
    errno = before;
}

static void watch(void)
{
    struct sigaction sa = {.sa_handler = pass_on, .sa_flags = SA_RESTART};

    sigemptyset(&sa.sa_mask);
    for (int i = 0; i < N_PASSED; i++)
        sigaddset(&sa.sa_mask, passed[i]);
    for (int i = 0; i < N_PASSED; i++)
        sigaction(passed[i], &sa, NULL);
}

/* In the child. Ranks may be more than cores, and root may start them: it is only ourselves. */
static void become_mpirun(char **words, pid_t keeper)
{
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != keeper)
        _exit(FAILED);
    if (nothing >= 0)
        dup2(nothing, STDIN_FILENO);
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 0);
    if (geteuid() == 0) {
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
    }
    execvp(words[0], words);
    fprintf(stderr, "mbuyu: --ranks needs mpirun, which cannot be started: %s\n", strerror(errno));
    _exit(127);
}

static int wait_for(pid_t child)
{
    int status = 0;

    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return FAILED;
    if (forced != 0)
        return 128 + forced;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* mpirun -q -np N PROGRAM ARGUMENTS..., zero-ended; the caller frees it. */
static mb_status command(char *count, char *self, char **argv, char ***out)
{
    char *const head[] = {"mpirun", "-q", "-np", count, self};
    enum { HEAD = sizeof head / sizeof *head };
    int n = 1;

    while (argv[n] != NULL)
        n++;
    MB_TRY(MB_NEW_ARRAY(out, HEAD + n));
    memcpy(*out, head, sizeof head);
    memcpy(*out + HEAD, argv + 1, sizeof *argv * (size_t)n);
    return MB_OK;
}

int mb_ranks_run(int ranks, char **argv)
{
    const pid_t keeper = getpid();
    char count[16], self[4096], **words = NULL;
    sigset_t all, before;
    ssize_t n;

    snprintf(count, sizeof count, "%d", ranks);
    n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0 || command(count, (self[n] = '\0', self), argv, &words) != MB_OK) {
        mb_log_error("--ranks: this program's own file cannot be found");
        return FAILED;
    }
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before); /* none is lost between fork and the handlers */
    const pid_t child = fork();
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        become_mpirun(words, keeper);
    }
    if (child > 0) {
        setpgid(child, child);
        mpirun = child;
        watch();
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    mb_free(words);
    if (child < 0) {
        mb_log_error("--ranks: no process can be made: %s", strerror(errno));
        return FAILED;
    }
    return wait_for(child);
}
