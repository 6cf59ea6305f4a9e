/* recipes/main.c - the program: finds the verb, calls it, prints a failure once, makes the exit
 * code. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "dist/ranks.h"
#include "recipes/commands.h"

static void print_failure(mb_status st)
{
    const char *debug = getenv("MBUYU_DEBUG");

    fflush(stdout);
    fprintf(stderr, "mbuyu: %s\n", mb_status_sentence());
    if (debug != NULL && strcmp(debug, "0") != 0)
        fprintf(stderr, "%s: %s\n%s", mb_status_name(st), mb_status_meaning(st), mb_status_path());
}

/* A result that did not reach its reader is a failure, unless the reader left (mbuyu help | head). */
static mb_status finish_output(mb_status st)
{
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && errno != EPIPE && st == MB_OK)
        st = MB_RAISE(MB_EIO, "standard output cannot be written: %s",
                      errno != 0 ? strerror(errno) : "an error");
    return st;
}

/* The rank before MPI is asked, from what launchers leave in the environment; -1: none did. */
static long rank_of_launcher(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                        "MV2_COMM_WORLD_RANK"};
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS"), *task = getenv("SLURM_PROCID");

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (getenv(names[i]) != NULL)
            return strtol(getenv(names[i]), NULL, 10);
    /* a batch script has a SLURM_PROCID too, 0; only srun starts steps of several tasks */
    if (task != NULL && tasks != NULL && strtol(tasks, NULL, 10) > 1)
        return strtol(task, NULL, 10);
    return -1;
}

static bool is_other_rank(void)
{
    return rank_of_launcher() > 0;
}

static bool is_launched(void)
{
    return rank_of_launcher() >= 0;
}

static int run_alone(const mb_cmd *cmd, int argc, char **argv)
{
    mb_status st;

    if (is_other_rank())
        return 0;
    st = finish_output(cmd->alone(argc, argv));
    if (st != MB_OK)
        print_failure(st);
    return mb_status_exit_code(st);
}

/* Takes "--ranks N" out of the words; *ranks is 0 without it. */
static mb_status take_ranks(int *argc, char **argv, int *ranks)
{
    int n = 0;

    *ranks = 0;
    for (int i = 0; i < *argc; i++) {
        char *end = NULL;

        if (strcmp(argv[i], "--ranks") != 0) {
            argv[n++] = argv[i];
            continue;
        }
        const long wanted = i + 1 < *argc ? strtol(argv[++i], &end, 10) : 0;
        MB_REQUIRE(end != NULL && *end == '\0' && wanted >= 1 && wanted <= 4096, MB_EARG,
                   "--ranks wants how many ranks to start here, 1 to 4096, not \"%.40s\"",
                   end != NULL ? argv[i] : "");
        *ranks = (int)wanted;
    }
    *argc = n;
    argv[n] = NULL;
    return MB_OK;
}

static int run_on_ranks(const mb_cmd *cmd, int argc, char **argv)
{
    mb_launch launch;
    mb_status st = mb_launch_init(&argc, &argv, &launch);

    if (st != MB_OK)
        mb_launch_abort(&launch, st);
    st = cmd->ranks(&launch, argc, argv); /* all ranks have the same status and sentence */
    st = finish_output(st);
    if (st != MB_OK && launch.rank == 0)
        print_failure(st);
    mb_launch_end(&launch, MB_OK);
    return mb_status_exit_code(st);
}

static int explain(const mb_cmd *cmd)
{
    char *words[] = {"help", (char *)(uintptr_t)(cmd != NULL ? cmd->verb : NULL), NULL};

    return run_alone(mb_cmd_find("help"), cmd != NULL ? 2 : 1, words);
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int run(const mb_cmd *cmd, int argc, char **argv)
{
    int ranks = 0;
    mb_status st;

    if (cmd->ranks == NULL)
        return run_alone(cmd, argc - 1, argv + 1);
    st = take_ranks(&argc, argv, &ranks);
    if (st == MB_OK && ranks > 0 && is_launched())
        st = MB_RAISE(MB_EARG, "--ranks starts ranks, and so did the launcher that runs this: give "
                               "one of the two");
    if (st != MB_OK) {
        if (!is_other_rank())
            print_failure(st);
        return mb_status_exit_code(st);
    }
    return ranks > 0 ? mb_ranks_run(ranks, argv) : run_on_ranks(cmd, argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    const mb_cmd *cmd;

    mb_alloc_init();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        mb_cmd_print_overview(stderr);
        return mb_status_exit_code(MB_EARG);
    }
    if (is_help(argv[1]))
        return explain(NULL);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return run_alone(mb_cmd_find("version"), 1, argv + 1);
    cmd = mb_cmd_find(argv[1]);
    if (cmd == NULL) {
        const mb_status st = mb_cmd_unknown(argv[1]);

        if (!is_other_rank())
            print_failure(st);
        return mb_status_exit_code(st);
    }
    for (int i = 2; i < argc; i++)
        if (is_help(argv[i]))
            return explain(cmd);
    return run(cmd, argc, argv);
}
