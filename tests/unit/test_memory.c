/* test_memory.c - reading /proc and cgroup limits, on this machine and on made-up ones. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/memory.h"
#include "tests/unit/root_test.h"

static void a_status_file_gives_bytes(void **state)
{
    mb_memory m;

    mb_memory_parse("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t     512 kB\n"
                    "RssFile:\t     500 kB\nRssShmem:\t      12 kB\nThreads:\t1\n",
                    &m);
    assert_int_equal(m.anon, 512 * 1024);
    assert_int_equal(m.shmem, 12 * 1024);
    assert_int_equal(m.file, 500 * 1024);
    assert_int_equal(m.rss, 1024 * 1024);
    assert_int_equal(m.peak, 2048 * 1024);
}

static void a_missing_field_is_zero(void **state)
{
    mb_memory m;

    mb_memory_parse("", &m);
    assert_int_equal(m.anon, 0);
    mb_memory_parse("XRssAnon: 5 kB\nRssAnonX: 6 kB", &m);
    assert_int_equal(m.anon, 0);
}

static void touching_pages_shows_in_own_memory(void **state)
{
    const size_t bytes = 64u << 20;
    mb_memory before, after;
    void *p;

    assert_int_equal(mb_memory_read(&before), MB_OK);
    assert_int_equal(mb_pages(bytes, "test pages", &p), MB_OK);
    memset(p, 1, bytes);
    assert_int_equal(mb_memory_read(&after), MB_OK);
    assert_true(after.anon - before.anon >= (int64_t)bytes * 9 / 10);
    assert_true(after.peak >= after.rss);
    assert_true(mb_memory_own() >= after.anon * 9 / 10);
    mb_pages_free(p, bytes);
    assert_true(mb_memory_own() < after.anon);
}

static void the_tightest_cgroup_around_us_counts(void **state)
{
    mb_memory_limit m;

    put_in_root("proc/meminfo", "MemTotal:  8000 kB\nMemAvailable:  6000 kB\n");
    put_in_root("proc/self/cgroup", "0::/job/step\n");
    put_in_root("sys/fs/cgroup/job/memory.max", "4096000\n");
    put_in_root("sys/fs/cgroup/job/memory.current", "1024000\n");
    put_in_root("sys/fs/cgroup/job/step/memory.max", "max\n");
    assert_int_equal(mb_memory_limits(root, &m), MB_OK);
    assert_int_equal(m.machine, 8000 * 1024);
    assert_int_equal(m.cgroup, 4096000);
    assert_int_equal(m.available, 4096000 - 1024000);
}

static void version_one_and_its_huge_number_for_no_limit(void **state)
{
    mb_memory_limit m;

    put_in_root("proc/meminfo", "MemTotal:  8000 kB\nMemAvailable:  6000 kB\n");
    put_in_root("proc/self/cgroup", "5:cpu:/a\n4:hugetlb,memory:/a\n");
    put_in_root("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put_in_root("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(mb_memory_limits(root, &m), MB_OK);
    assert_true(m.cgroup == INT64_MAX);
    assert_int_equal(m.available, 6000 * 1024);
    put_in_root("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2048000\n");
    assert_int_equal(mb_memory_limits(root, &m), MB_OK);
    assert_int_equal(m.cgroup, 2048000);
    assert_int_equal(m.available, 2048000);
}

static void this_machine_has_limits(void **state)
{
    mb_memory_limit m;

    assert_int_equal(mb_memory_limits("", &m), MB_OK);
    assert_true(m.machine > (1 << 20));
    assert_true(m.available > 0 && m.available <= m.machine);
    assert_int_equal(mb_memory_limits("/nowhere", &m), MB_EIO);
    assert_non_null(strstr(mb_status_sentence(), "/nowhere/proc/meminfo"));
    mb_status_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_status_file_gives_bytes),
        cmocka_unit_test(a_missing_field_is_zero),
        cmocka_unit_test(touching_pages_shows_in_own_memory),
        cmocka_unit_test_setup_teardown(the_tightest_cgroup_around_us_counts, make_root,
                                        remove_root),
        cmocka_unit_test_setup_teardown(version_one_and_its_huge_number_for_no_limit, make_root,
                                        remove_root),
        cmocka_unit_test(this_machine_has_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
