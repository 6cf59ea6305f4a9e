/* test_launch.c - threads per rank, and processor quotas of made-up control groups. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/path.h"
#include "dist/launch.h"
#include "tests/unit/root_test.h"

static void threads_are_the_least_of_share_quota_and_wish(void **state)
{
    assert_int_equal(mb_launch_threads(16, 0, 2, 0), 8);
    assert_int_equal(mb_launch_threads(16, 0, 3, 0), 5);
    assert_int_equal(mb_launch_threads(16, 0, 2, 3), 3);
    assert_int_equal(mb_launch_threads(16, 0, 2, 30), 8);
    assert_int_equal(mb_launch_threads(16, 4.5, 2, 0), 2);
    assert_int_equal(mb_launch_threads(16, 64, 2, 0), 8);
    assert_int_equal(mb_launch_threads(2, 0, 8, 0), 1);
    assert_int_equal(mb_launch_threads(2, 0.5, 1, 0), 1);
}

static void no_group_means_no_quota(void **state)
{
    assert_true(mb_launch_quota(root) == 0);
    put_in_root("proc/self/cgroup", "0::/\n");
    assert_true(mb_launch_quota(root) == 0);
    put_in_root("sys/fs/cgroup/cpu.max", "max 100000\n");
    assert_true(mb_launch_quota(root) == 0);
}

static void the_tightest_group_above_counts(void **state)
{
    put_in_root("proc/self/cgroup", "0::/slurm/job_7/step_0\n");
    put_in_root("sys/fs/cgroup/slurm/job_7/step_0/cpu.max", "max 100000\n");
    put_in_root("sys/fs/cgroup/slurm/job_7/cpu.max", "350000 100000\n");
    put_in_root("sys/fs/cgroup/slurm/cpu.max", "800000 100000\n");
    assert_true(mb_launch_quota(root) == 3.5);
}

static void version_1_groups_are_read_too(void **state)
{
    put_in_root("proc/self/cgroup", "5:cpuset:/\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n");
    put_in_root("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "200000\n");
    put_in_root("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    assert_true(mb_launch_quota(root) == 2.0);
    put_in_root("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
    assert_true(mb_launch_quota(root) == 0);
}

static void odd_files_do_no_harm(void **state)
{
    put_in_root("proc/self/cgroup", "\n0\n0:\n0::\nx::y::z\n0::/a\n");
    put_in_root("sys/fs/cgroup/a/cpu.max", "100000 0\n");
    assert_true(mb_launch_quota(root) == 0);
    put_in_root("sys/fs/cgroup/a/cpu.max", "nonsense");
    assert_true(mb_launch_quota(root) == 0);
    put_in_root("sys/fs/cgroup/a/cpu.max", "");
    assert_true(mb_launch_quota(root) == 0);
}

static void slurm_tasks_without_mpi_are_refused(void **state)
{
    mb_launch l;
    int argc = 0;
    char **argv = NULL;

    unsetenv("OMPI_COMM_WORLD_SIZE");
    setenv("SLURM_NTASKS", "4", 1);
    setenv("SLURM_PROCID", "0", 1);
    assert_int_equal(mb_launch_init(&argc, &argv, &l), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "srun --mpi=pmix"));
    mb_status_clear();
    unsetenv("SLURM_NTASKS");
    unsetenv("SLURM_PROCID");
    assert_int_equal(mb_launch_init(&argc, &argv, &l), MB_OK);
    assert_true(l.size == 1 && l.rank == 0 && l.local_size == 1 && l.threads >= 1);
    assert_string_equal(l.world->ops->name, "self");
    assert_int_equal(mb_launch_end(&l, MB_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_are_the_least_of_share_quota_and_wish),
        cmocka_unit_test_setup_teardown(no_group_means_no_quota, make_root, remove_root),
        cmocka_unit_test_setup_teardown(the_tightest_group_above_counts, make_root, remove_root),
        cmocka_unit_test_setup_teardown(version_1_groups_are_read_too, make_root, remove_root),
        cmocka_unit_test_setup_teardown(odd_files_do_no_harm, make_root, remove_root),
        cmocka_unit_test(slurm_tasks_without_mpi_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
