/* recipes/cmd/env.c - `mbuyu env`: what decides how fast mbuyu is and which bits it computes. */
#include <sys/utsname.h>

#include "core/cpu/cpu.h"
#include "core/cpu/gemm.h"
#include "core/cpu/init.h"
#include "core/device.h"
#include "core/memory.h"
#include "dist/comm_mpi.h"
#include "dist/comm_nccl.h"
#include "dist/h5.h"
#include "recipes/commands.h"

static void line(const char *what, const char *value)
{
    printf("%-12s %s\n", what, value);
}

static void print_machine(const mb_launch *launch)
{
    const double quota = mb_launch_quota("");
    struct utsname u;

    if (uname(&u) == 0)
        printf("%-12s %s %s %s\n", "system", u.sysname, u.release, u.machine);
    line("processor", mb_cpu_class());
    printf("%-12s %d", "cores", launch->cores);
    if (quota > 0.0)
        printf(", of which a control group allows %g", quota);
    printf(", %d thread(s) per rank\n", launch->threads);
}

static mb_status print_memory(void)
{
    const double gib = 1073741824.0;
    mb_memory_limit m;

    MB_TRY(mb_memory_limits("", &m));
    printf("%-12s %.1f GiB, %.1f available", "memory", (double)m.machine / gib,
           (double)m.available / gib);
    if (m.cgroup != INT64_MAX)
        printf(", a control group allows %.1f", (double)m.cgroup / gib);
    printf("\n");
    return MB_OK;
}

static mb_status print_all(const mb_launch *launch)
{
    const bool mpi = mb_mpi_is_running();
    char text[512];

    line("mbuyu", MB_VERSION);
#if defined(__clang__)
    line("compiler", "clang " __clang_version__);
#else
    line("compiler", "gcc " __VERSION__);
#endif
    print_machine(launch);
    MB_TRY(print_memory());
    line("gemm", mb_cpu_gemm_provider());
    snprintf(text, sizeof text, "%s, %s", mb_mpi_library(),
             mb_mpi_may_queue()
                 ? "collectives run behind the computing"
                 : "which one thread alone may use: nothing runs behind the computing");
    line("mpi", mpi ? text : "not started: there is no launcher such as mpirun");
    line("hdf5", mb_h5_library());
    line("ranks", launch->text);
    mb_device_probe(text, sizeof text);
    line("cuda", text);
    mb_nccl_probe(text, sizeof text);
    line("nccl", text);
    return MB_OK;
}

mb_status mb_cmd_env(mb_launch *launch, int argc, char **argv)
{
    mb_status st = MB_OK;

    if (argc > 1)
        st = MB_RAISE(MB_EARG, "env takes no arguments, found '%.60s'", argv[1]);
    if (st == MB_OK)
        st = mb_cpu_init();
    if (st == MB_OK && launch->rank == 0)
        st = print_all(launch);
    return mb_comm_agree(launch->world, st);
}
