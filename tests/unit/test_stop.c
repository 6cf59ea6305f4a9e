/* test_stop.c - each way of asking a run to stop, in child processes where it ends them. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
/* cmocka.h wants the headers above first */
#include <cmocka.h>

#include "dist/stop.h"

static void start(const char *file, double limit, double margin)
{
    const mb_stop_options o = {.file = file, .time_limit = limit, .slurm_margin = margin};

    assert_int_equal(mb_stop_init(&o), MB_OK);
}

static void nothing_is_asked_at_first(void **state)
{
    start(NULL, 0, -1);
    assert_int_equal(mb_stop_poll(), MB_STOP_NO);
    assert_string_equal(mb_stop_text(), "");
    mb_stop_release();
}

static void usr1_asks_any_number_of_times(void **state)
{
    start(NULL, 0, -1);
    for (int i = 0; i < 5; i++)
        raise(SIGUSR1);
    assert_int_equal(mb_stop_poll(), MB_STOP_SIGNAL);
    assert_string_equal(mb_stop_text(), "SIGUSR1");
    mb_stop_release();
    assert_int_equal(mb_stop_poll(), MB_STOP_NO);
}

/* The exit code of a child that gets these two signals; 99 when it lived through both. */
static int child_with(int first, int second)
{
    int status;
    const pid_t pid = fork();

    if (pid == 0) {
        start(NULL, 0, -1);
        raise(first);
        if (mb_stop_poll() != MB_STOP_SIGNAL)
            _exit(98);
        raise(second);
        _exit(99);
    }
    assert_true(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void the_second_hard_signal_ends_at_once(void **state)
{
    assert_int_equal(child_with(SIGTERM, SIGTERM), 143);
    assert_int_equal(child_with(SIGINT, SIGINT), 130);
    assert_int_equal(child_with(SIGUSR1, SIGTERM), 99);
    assert_int_equal(child_with(SIGTERM, SIGUSR1), 99);
}

/* Matrix kernels do not keep to the stack: no handler may run on theirs. */
static void handlers_have_a_stack_of_their_own(void **state)
{
    static const int numbers[] = {SIGUSR1, SIGTERM, SIGINT};
    struct sigaction sa;
    stack_t stack;

    start(NULL, 0, -1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sigaction(numbers[i], NULL, &sa), 0);
        assert_true((sa.sa_flags & SA_ONSTACK) != 0);
    }
    assert_int_equal(sigaltstack(NULL, &stack), 0);
    assert_int_equal(stack.ss_flags & SS_DISABLE, 0);
    mb_stop_release();
}

static void lost_terminals_and_full_disks_do_not_end_it(void **state)
{
    start(NULL, 0, -1);
    raise(SIGHUP);
    raise(SIGPIPE);
    raise(SIGXFSZ);
    assert_int_equal(mb_stop_poll(), MB_STOP_NO);
    mb_stop_release();
}

static void a_stop_file_is_seen_and_removed(void **state)
{
    char dir[] = "/tmp/mb_stop_XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/STOP", dir);

    fclose(fopen(path, "w")); /* left over: not meant for this run */
    start(path, 0, -1);
    assert_int_equal(mb_stop_poll(), MB_STOP_NO);
    mb_stop_release();
    start(path, 0, -1);
    fclose(fopen(path, "w"));
    assert_int_equal(mb_stop_poll(), MB_STOP_FILE);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(mb_stop_poll(), MB_STOP_FILE);
    assert_non_null(strstr(mb_stop_text(), path));
    mb_stop_release();
    rmdir(dir);
}

static void time_limits_pass(void **state)
{
    char end[32];

    start(NULL, 0.02, -1);
    assert_int_equal(mb_stop_poll(), MB_STOP_NO);
    usleep(30000);
    assert_int_equal(mb_stop_poll(), MB_STOP_TIME);
    mb_stop_release();
    snprintf(end, sizeof end, "%lld", (long long)time(NULL) + 100);
    setenv("SLURM_JOB_END_TIME", end, 1);
    start(NULL, 0, 30);
    assert_int_equal(mb_stop_poll(), MB_STOP_NO);
    start(NULL, 0, 120);
    assert_int_equal(mb_stop_poll(), MB_STOP_TIME);
    start(NULL, 0, -1);
    assert_int_equal(mb_stop_poll(), MB_STOP_NO);
    unsetenv("SLURM_JOB_END_TIME");
    mb_stop_release();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_asked_at_first),
        cmocka_unit_test(usr1_asks_any_number_of_times),
        cmocka_unit_test(the_second_hard_signal_ends_at_once),
        cmocka_unit_test(handlers_have_a_stack_of_their_own),
        cmocka_unit_test(lost_terminals_and_full_disks_do_not_end_it),
        cmocka_unit_test(a_stop_file_is_seen_and_removed),
        cmocka_unit_test(time_limits_pass),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
