/* dist/launch.c - see dist/launch.h. */
#include "dist/launch.h"

#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "dist/comm_mpi.h"

/* Any of these in the environment: a launcher started us and MPI will find its peers. */
static const char *const launchers[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE",
                                        "MV2_COMM_WORLD_SIZE"};
/* Any of these: the user chose how ranks are bound to processors. */
static const char *const binders[] = {"OMPI_MCA_hwloc_base_binding_policy",
                                      "OMPI_MCA_rmaps_base_mapping_policy_bind",
                                      "PRTE_MCA_hwloc_default_binding_policy",
                                      "PRTE_MCA_hwloc_base_binding_policy",
                                      "OMP_PROC_BIND",
                                      "OMP_PLACES",
                                      "GOMP_CPU_AFFINITY",
                                      "KMP_AFFINITY"};

static const char *first_set(const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (getenv(names[i]) != NULL)
            return names[i];
    return NULL;
}
#define FIRST_SET(names) first_set((names), sizeof(names) / sizeof *(names))

static long env_long(const char *name)
{
    const char *s = getenv(name);

    return s != NULL ? strtol(s, NULL, 10) : 0;
}

int mb_launch_threads(int cores, double quota, int ranks, int wanted)
{
    double share = cores;

    if (quota > 0 && quota < share)
        share = quota;
    int n = (int)(share / ranks);
    if (wanted > 0 && wanted < n)
        n = wanted;
    return n > 1 ? n : 1;
}

/* Reads up to two numbers from a file; how many there were. "max" counts as none. */
static int read_numbers(const char *path, double *a, double *b)
{
    FILE *f = fopen(path, "re");

    if (f == NULL)
        return 0;
    const int n = fscanf(f, "%lf %lf", a, b);
    fclose(f);
    return n < 0 ? 0 : n;
}

static double quota_of_folder(const char *dir, bool v2)
{
    char path[4800];
    double quota = 0, period = 0;

    if (v2) {
        snprintf(path, sizeof path, "%s/cpu.max", dir);
        return read_numbers(path, &quota, &period) == 2 && period > 0 ? quota / period : 0;
    }
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    if (read_numbers(path, &quota, &period) < 1 || quota <= 0)
        return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    return read_numbers(path, &period, &period) >= 1 && period > 0 ? quota / period : 0;
}

/* The tightest quota of a group and all groups above it. */
static double quota_upwards(const char *mount, char *group, bool v2)
{
    double least = 0;

    for (;;) {
        char dir[4700];
        snprintf(dir, sizeof dir, "%s%s", mount, group);
        const double q = quota_of_folder(dir, v2);
        if (q > 0 && (least == 0 || q < least))
            least = q;
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return least;
        *slash = '\0';
    }
}

double mb_launch_quota(const char *root)
{
    char path[512], line[4096];
    double least = 0;

    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL) { /* "4:cpu,cpuacct:/group" or "0::/group" */
        static const char *const mounts[] = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"};
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;

        if (group == NULL)
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        const bool v2 = controllers[1] == '\0';
        if (!v2 && strncmp(controllers + 1, "cpu", 3) != 0)
            continue;
        for (int i = 0; i < (v2 ? 1 : 2); i++) {
            char copy[4096];
            snprintf(path, sizeof path, "%s%s", root, v2 ? "/sys/fs/cgroup" : mounts[i]);
            snprintf(copy, sizeof copy, "%s", group);
            const double q = quota_upwards(path, copy, v2);
            if (q > 0 && (least == 0 || q < least))
                least = q;
        }
    }
    fclose(f);
    return least;
}

/* Whether `cpu` is the first of its core's hardware threads that are in `set`. */
static bool leads_core(int cpu, const cpu_set_t *set)
{
    char path[128], text[256] = "";
    int from, to;

    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return true;
    if (fgets(text, sizeof text, f) == NULL)
        text[0] = '\0';
    fclose(f);
    for (char *s = text; *s != '\0' && *s != '\n';) { /* "0,32" or "0-1" */
        from = to = (int)strtol(s, &s, 10);
        if (*s == '-')
            to = (int)strtol(s + 1, &s, 10);
        for (int i = from; i <= to && i < cpu; i++)
            if (i >= 0 && i < CPU_SETSIZE && CPU_ISSET(i, set))
                return false;
        if (*s != ',')
            break;
        s++;
    }
    return true;
}

static int count_cores(const cpu_set_t *set)
{
    int n = 0;

    for (int i = 0; i < CPU_SETSIZE; i++)
        n += CPU_ISSET(i, set) && leads_core(i, set);
    return n > 0 ? n : 1;
}

/* Every processor the system lets this process use; the mask it has stays as it is. */
static cpu_set_t allowed_processors(void)
{
    cpu_set_t had, all, allowed;

    CPU_ZERO(&had);
    if (sched_getaffinity(0, sizeof had, &had) != 0) {
        CPU_SET(0, &had);
        return had;
    }
    memset(&all, 0xff, sizeof all);
    allowed = had;
    if (sched_setaffinity(0, sizeof all, &all) == 0) {
        if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
            allowed = had;
        (void)!sched_setaffinity(0, sizeof had, &had);
    }
    return allowed;
}

/* This rank's contiguous part of the cores in `set`: the first hardware thread of each. */
static cpu_set_t part_of(const cpu_set_t *set, int cores, int local_rank, int local_size)
{
    const int from = (int)((int64_t)cores * local_rank / local_size);
    const int to = (int)((int64_t)cores * (local_rank + 1) / local_size);
    cpu_set_t part;
    int core = -1;

    CPU_ZERO(&part);
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, set))
            continue;
        if (leads_core(i, set) && ++core >= from && core < to)
            CPU_SET(i, &part);
    }
    return CPU_COUNT(&part) > 0 ? part : *set;
}

/* Open MPI binds one or two ranks to one core each unless told otherwise: such a mask is widened to
 * the rank's share of the node. A mask somebody chose is kept, and bounds the threads. */
static void choose_processors(mb_launch *l)
{
    const char *chosen = FIRST_SET(binders);
    const bool may_widen = getenv("OMPI_COMM_WORLD_SIZE") != NULL && chosen == NULL;
    const char *how = "";
    cpu_set_t had;

    CPU_ZERO(&had);
    if (sched_getaffinity(0, sizeof had, &had) != 0)
        CPU_SET(0, &had);
    const cpu_set_t allowed = may_widen ? allowed_processors() : had;
    const double quota = mb_launch_quota("");
    const int wanted = (int)env_long("OMP_NUM_THREADS");
    const bool own_mask =
        l->local_size > 1 && !may_widen && CPU_COUNT(&had) < sysconf(_SC_NPROCESSORS_ONLN);

    l->cores = count_cores(&allowed);
    /* a mask of the rank's own is not shared again */
    l->threads = mb_launch_threads(own_mask ? l->cores * l->local_size : l->cores, quota,
                                   l->local_size, wanted);
    if (may_widen && count_cores(&had) < l->threads) {
        const cpu_set_t part = l->cores >= l->local_size
                                   ? part_of(&allowed, l->cores, l->local_rank, l->local_size)
                                   : allowed;
        if (sched_setaffinity(0, sizeof part, &part) == 0)
            how = ", binding by mpirun widened";
    } else if (chosen != NULL) {
        how = ", bound as asked";
    }
    omp_set_num_threads(l->threads);
    snprintf(l->text, sizeof l->text,
             "%d rank%s (%d on this node), %d thread%s each of %d core%s%s%s", l->size,
             l->size == 1 ? "" : "s", l->local_size, l->threads, l->threads == 1 ? "" : "s",
             l->cores, l->cores == 1 ? "" : "s",
             quota > 0 && quota < l->cores ? " (limited by a control group)" : "", how);
}

static void abort_hook(int exit_code)
{
    mb_mpi_abort(exit_code);
}

mb_status mb_launch_init(int *argc, char ***argv, mb_launch *out)
{
    mb_comm *node = NULL;

    *out = (mb_launch){.world = mb_comm_self(), .size = 1, .local_size = 1, .threads = 1};
    if (FIRST_SET(launchers) != NULL) {
        /* a rank that waits gives its core to those that compute and to the thread that saves */
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
        MB_TRY(mb_mpi_init(argc, argv));
        mb_bug_hook_set(abort_hook);
        MB_TRY(mb_comm_mpi_world(&out->world));
        MB_TRY(mb_comm_mpi_node(out->world, &node));
        out->rank = out->world->rank;
        out->size = out->world->size;
        out->local_rank = node->rank;
        out->local_size = node->size;
        mb_comm_free(node);
    }
    mb_log_rank_set(out->rank, out->size);
    MB_REQUIRE(out->size > 1 || env_long("SLURM_NTASKS") <= 1 || getenv("SLURM_PROCID") == NULL,
               MB_EARG,
               "Slurm gave this job %ld tasks but MPI sees one rank: start it with "
               "'srun --mpi=pmix mbuyu ...' (or 'mpirun mbuyu ...' inside the job)",
               env_long("SLURM_NTASKS"));
    choose_processors(out);
    return MB_OK;
}

static void print_failure(mb_status st)
{
    mb_log_error("%s (%s)", mb_status_sentence(), mb_status_name(st));
    mb_log_debug("where:\n%s", mb_status_path());
}

int mb_launch_end(mb_launch *l, mb_status st)
{
    if (st != MB_OK && l->rank == 0)
        print_failure(st);
    if (l->world != NULL)
        mb_comm_free(l->world);
    l->world = NULL;
    mb_mpi_finish();
    return mb_status_exit_code(st);
}

_Noreturn void mb_launch_abort(mb_launch *l, mb_status st)
{
    /* Often every rank fails alike (a file that is not there). Rank 0 speaks at once; its abort ends
     * the others, with SIGTERM first, while they wait their turn. */
    signal(SIGTERM, SIG_DFL);
    if (l->rank > 0)
        usleep(500000);
    print_failure(st);
    fflush(NULL);
    mb_mpi_abort(mb_status_exit_code(st));
    _exit(mb_status_exit_code(st));
}
