/* tests/unit/test_part.c - files that are not whole yet, locks, hours of the day, what pauses are. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/digest.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/fetch.h"
#include "recipes/hub/lock.h"
#include "recipes/hub/part.h"
#include "recipes/hub/window.h"
#include "tests/unit/root_test.h"

enum { SIZE = 2 * MB_PART_RANGE + 12345 };

static char base[MB_PATH_MAX], part[MB_PATH_MAX], state_file[MB_PATH_MAX], whole[MB_PATH_MAX];
static char *bytes, digest[MB_DIGEST_HEX];

static mb_part *opened(int64_t have)
{
    mb_part *p = NULL;

    assert_int_equal(mb_part_open(base, SIZE, digest, "http://hub/x", &p), MB_OK);
    assert_int_equal(mb_part_have(p), have);
    return p;
}

static void add(mb_part *p, int64_t to)
{
    const int64_t from = mb_part_have(p);

    for (int64_t at = from; at < to; at += 65536) {
        const int64_t n = to - at < 65536 ? to - at : 65536;

        assert_int_equal(mb_part_add(p, bytes + at, (size_t)n), MB_OK);
    }
}

static void spoil(const char *path, long at, const char *with)
{
    FILE *f = fopen(path, "r+b");

    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_true(fputs(with, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* The state as another boot of the machine would find it. */
static void after_a_power_cut(void)
{
    char *text = NULL, *boot;
    size_t n;

    assert_int_equal(mb_file_read(state_file, 1 << 20, &text, &n), MB_OK);
    boot = strstr(text, "\"boot\":\"");
    assert_non_null(boot);
    boot[8] = boot[8] == 'x' ? 'y' : 'x';
    assert_int_equal(mb_file_write_atomic(state_file, text, n), MB_OK);
    mb_free(text);
}

static void goes_on_where_it_was(void **state)
{
    char found[65];
    bool right;
    mb_part *p = opened(0);

    add(p, 100);
    mb_part_close(p);
    p = opened(100);
    add(p, MB_PART_RANGE + 77);
    mb_part_close(p);
    assert_int_equal(mb_part_kept(base, SIZE), MB_PART_RANGE + 77);
    p = opened(MB_PART_RANGE + 77);
    add(p, SIZE);
    assert_int_equal(mb_part_check(p, &right, found), MB_OK);
    assert_true(right);
    assert_string_equal(found, digest);
    assert_int_equal(mb_part_publish(p, whole), MB_OK);
    mb_part_close(p);
    assert_false(mb_path_exists(part));
    assert_false(mb_path_exists(state_file));
    assert_int_equal(mb_part_kept(base, SIZE), 0);
}

static void keeps_what_is_vouched_for(void **state)
{
    mb_part *p = opened(0);

    add(p, 2 * MB_PART_RANGE + 500);
    mb_part_close(p);
    after_a_power_cut();
    spoil(part, 2 * MB_PART_RANGE + 10, "torn"); /* the tail */
    p = opened(2 * MB_PART_RANGE);
    mb_part_close(p);
    spoil(part, MB_PART_RANGE + 10, "bad"); /* the second range */
    p = opened(MB_PART_RANGE);
    mb_part_close(p);
    spoil(part, 0, "bad"); /* the first */
    p = opened(0);
    add(p, 1000);
    mb_part_close(p);
}

static void trusts_its_own_boot_only(void **state)
{
    mb_part *p = opened(1000);

    mb_part_close(p);
    spoil(part, 1000, "written before the process was killed");
    p = opened(1037); /* the digest of the whole will say whether it is right */
    assert_int_equal(mb_part_restart(p), MB_OK);
    add(p, 1000);
    mb_part_close(p);
    spoil(part, 1000, "after a power cut it may be anything");
    after_a_power_cut();
    p = opened(1000);
    mb_part_close(p);
}

static void forgets_what_is_of_another_file(void **state)
{
    char other[MB_DIGEST_HEX];
    mb_part *p = NULL;

    snprintf(other, sizeof other, "%s", digest);
    other[0] = other[0] == 'a' ? 'b' : 'a';
    assert_int_equal(mb_part_open(base, SIZE, other, "", &p), MB_OK);
    assert_int_equal(mb_part_have(p), 0);
    add(p, 10);
    mb_part_close(p);
    assert_int_equal(mb_file_write_atomic(state_file, "{nonsense", 9), MB_OK);
    p = opened(0);
    add(p, 10);
    mb_part_close(p);
    assert_int_equal(unlink(state_file), 0);
    mb_part_close(opened(0));
    assert_int_equal(unlink(part), 0);
    assert_int_equal(symlink("/etc/passwd", part), 0); /* never through a link */
    expect(mb_part_open(base, SIZE, digest, "", &p), MB_EIO, "cannot be made");
    unlink(part);
}

/* The state as one who may still be writing left it: a process of another host. */
static void owned_by(const char *owner)
{
    char *text = NULL, now[1 << 16], *at;
    size_t n;

    assert_int_equal(mb_file_read(state_file, 1 << 20, &text, &n), MB_OK);
    at = strstr(text, "\"owner\":\"\"");
    assert_non_null(at); /* who closed it writes no more */
    n = (size_t)snprintf(now, sizeof now, "%.*s\"owner\":\"%s\"%s", (int)(at - text), text, owner,
                         at + strlen("\"owner\":\"\""));
    assert_true(n < sizeof now);
    assert_int_equal(mb_file_write_atomic(state_file, now, n), MB_OK);
    mb_free(text);
}

static int64_t inode_of(const char *path)
{
    struct stat s;

    return stat(path, &s) == 0 ? (int64_t)s.st_ino : -1;
}

/* One process slept, was thought dead, and wakes up while another goes on with its part. */
static void takes_over_from_a_sleeper(void **state)
{
    char found[65], aside[MB_PATH_MAX + 32];
    int64_t inode;
    bool right;
    mb_part *sleeper = opened(0), *p;

    unlink(whole);
    add(sleeper, MB_PART_RANGE + 1000);
    assert_int_equal(mb_part_save(sleeper), MB_OK);
    after_a_power_cut(); /* to another host it is a boot like any */
    {
        char *text = NULL;
        size_t n;

        assert_int_equal(mb_file_read(state_file, 1 << 20, &text, &n), MB_OK);
        assert_null(strstr(text, "\"owner\":\"\"")); /* it says who writes */
        mb_free(text);
    }
    inode = inode_of(part);
    p = opened(MB_PART_RANGE + 1000); /* here it is this very process: its own file */
    assert_int_equal(inode_of(part), inode);
    mb_part_close(p);
    owned_by("elsewhere/x/y 1 1");
    snprintf(aside, sizeof aside, "%s.new.part", part);
    assert_int_equal(mb_file_write_atomic(aside, "a copy that was killed", 22), MB_OK);
    p = opened(MB_PART_RANGE + 1000); /* nothing is lost */
    assert_int_not_equal(inode_of(part), inode);
    assert_false(mb_path_exists(aside));
    /* the sleeper goes on: into a file without a name, and not for long */
    assert_int_equal(mb_part_add(sleeper, "wrong bytes", 11), MB_OK);
    expect(mb_part_save(sleeper), MB_EIO, "another process's now");
    expect(mb_part_restart(sleeper), MB_EIO, "another process's now");
    expect(mb_part_publish(sleeper, whole), MB_EIO, "another process's now");
    mb_part_close(sleeper);
    assert_false(mb_path_exists(whole));
    add(p, SIZE);
    assert_int_equal(mb_part_check(p, &right, found), MB_OK);
    assert_true(right);
    assert_int_equal(mb_part_publish(p, whole), MB_OK);
    mb_part_close(p);
    {
        char *text = NULL;
        size_t n;

        assert_int_equal(mb_file_read(whole, SIZE, &text, &n), MB_OK);
        assert_int_equal(n, SIZE);
        assert_memory_equal(text, bytes, SIZE);
        mb_free(text);
    }
    unlink(whole);
}

/* Whose bytes are copied, and whose are taken as they are. */
static void knows_who_may_write(void **state)
{
    char mine[512], other[600];
    size_t host;
    pid_t child;

    mb_owner_here(mine, sizeof mine);
    assert_false(mb_owner_may_write(mine));
    assert_false(mb_owner_may_write(""));
    assert_true(mb_owner_may_write("elsewhere/x/y 1 1"));
    assert_true(mb_owner_may_write("no name of a process"));
    host = strcspn(mine, "/");
    snprintf(other, sizeof other, "%.*s/another-boot/y 1 1", (int)host, mine);
    assert_false(mb_owner_may_write(other)); /* this host was started anew since */
    snprintf(other, sizeof other, "%.*sx/%s", (int)host, mine, mine + host + 1);
    assert_true(mb_owner_may_write(other));
    child = fork();
    if (child == 0)
        _exit(0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    snprintf(other, sizeof other, "%.*s %ld 1", (int)strcspn(mine, " "), mine, (long)child);
    assert_false(mb_owner_may_write(other)); /* gone */
}

/* ---- locks --------------------------------------------------------------------------------- */

static void locks_once(void **state)
{
    char path[MB_PATH_MAX];
    mb_lock lock, second;
    int status, waits[2];
    char byte = 0;
    pid_t child;

    snprintf(path, sizeof path, "%s/lock", root);
    assert_int_equal(pipe(waits), 0);
    child = fork();   /* while there is one thread */
    if (child == 0) { /* another process waits until it is given back */
        double since;

        while (!mb_path_exists(path))
            mb_fetch_sleep(0.01);
        since = mb_clock();
        if (write(waits[1], &byte, 1) != 1)
            _exit(2);
        if (mb_lock_take(path, "x", &second) != MB_OK || mb_clock() - since < 0.5)
            _exit(1);
        _exit(0); /* without giving it back */
    }
    assert_int_equal(mb_lock_take(path, "x", &lock), MB_OK);
    assert_int_equal(mb_lock_beat(&lock), MB_OK);
    assert_int_equal(read(waits[0], &byte, 1), 1);
    mb_fetch_sleep(1.0);
    mb_lock_give(&lock);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(waits[0]);
    close(waits[1]);
    assert_true(mb_path_exists(path)); /* the dead one's */
    assert_int_equal(mb_lock_take(path, "x", &lock), MB_OK);
    assert_int_equal(mb_file_write_atomic(path, "somebody else", 13), MB_OK);
    expect(mb_lock_beat(&lock), MB_EIO, "another process's now");
    mb_lock_give(&lock);
    assert_true(mb_path_exists(path)); /* not ours to remove */
    unlink(path);
}

/* The lock of a process that cannot be seen from here: waited for, then taken. */
static void takes_over_what_lies_untouched(void **state)
{
    char path[MB_PATH_MAX];
    double since = mb_clock();
    mb_lock lock;
    pid_t child;

    snprintf(path, sizeof path, "%s/not/there/yet/lock", root);
    setenv("MBUYU_LOCK_SECONDS", "1", 1);
    assert_int_equal(mb_lock_take(path, "x", &lock), MB_OK); /* makes the folder */
    mb_lock_give(&lock);
    assert_int_equal(mb_file_write_atomic(path, "elsewhere/x/y 1 1", 17), MB_OK);
    child = fork();
    if (child == 0) { /* it lives for a while: touches the file */
        for (int i = 0; i < 8; i++) {
            utimensat(AT_FDCWD, path, NULL, 0);
            mb_fetch_sleep(0.25);
        }
        _exit(0);
    }
    since = mb_clock();
    assert_int_equal(mb_lock_take(path, "x", &lock), MB_OK);
    assert_true(mb_clock() - since > 2.0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(mb_lock_beat(&lock), MB_OK);
    mb_lock_give(&lock);
    assert_false(mb_path_exists(path));
    unsetenv("MBUYU_LOCK_SECONDS");
}

/* While it is held it is touched, whatever its holder does: a thread does it every ten seconds. */
static void is_touched_while_held(void **state)
{
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    char path[MB_PATH_MAX];
    struct stat s;
    mb_lock lock;

    snprintf(path, sizeof path, "%s/lock", root);
    assert_int_equal(mb_lock_take(path, "x", &lock), MB_OK);
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    mb_fetch_sleep(11.0); /* as a person who is asked something, or a large file that is read */
    assert_int_equal(stat(path, &s), 0);
    assert_true(s.st_mtim.tv_sec > 1000);
    mb_lock_give(&lock);
    assert_false(mb_path_exists(path));
}

/* ---- hours, pauses ------------------------------------------------------------------------- */

static void knows_the_hours(void **state)
{
    static const char *const wrong[] = {
        "", "22-06", "22:00", "24:00-06:00", "22:60-06:00", "22:00-06:00x", "a:b-c:d"};
    static const struct {
        const char *text;
        int at; /* minutes after midnight */
        double wait;
    } rows[] = {
        {"22:00-06:00", 23 * 60, 0.0},      {"22:00-06:00", 5 * 60 + 59, 0.0},
        {"22:00-06:00", 6 * 60, 16 * 3600}, {"22:00-06:00", 21 * 60 + 30, 1800.0},
        {"01:00-02:00", 90, 0.0},           {"01:00-02:00", 120, 23 * 3600},
        {"00:00-24:00", 777, 0.0},          {"20:00-24:00", 1439, 0.0},
    };
    mb_window w;

    setenv("TZ", "UTC", 1);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        expect(mb_window_read(wrong[i], &w), MB_EARG, "--at");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(mb_window_read(rows[i].text, &w), MB_OK);
        assert_true(mb_window_wait(&w, 86400 * 100 + rows[i].at * 60) == rows[i].wait);
    }
}

static void knows_origins(void **state)
{
    static const struct {
        const char *url, *origin;
    } rows[] = {
        {"https://huggingface.co", "https://huggingface.co:443"},
        {"HTTPS://HuggingFace.co/x?y", "https://huggingface.co:443"},
        {"http://127.0.0.1:80/", "http://127.0.0.1:80"},
        {"http://[::1]:8080/a", "http://[::1]:8080"},
    };
    static const char *const wrong[] = {"",
                                        "hub",
                                        "ftp://x/",
                                        "file:///etc/passwd",
                                        "https://user@host/",
                                        "https://a:b@host/",
                                        "https://"};
    char text[512];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(mb_fetch_origin(rows[i].url, text, sizeof text), MB_OK);
        assert_string_equal(text, rows[i].origin);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        expect(mb_fetch_origin(wrong[i], text, sizeof text), MB_EARG, "");
}

static void waits_as_told(void **state)
{
    mb_fetch_answer a = {.status = 503};
    mb_fetcher *f = NULL;

    assert_int_equal(
        mb_fetcher_new(&(mb_fetch_options){.endpoint = "https://x", .first_pause = 2.0}, &f),
        MB_OK);
    assert_true(mb_fetch_pause(f, &a, 1) >= 2.0 && mb_fetch_pause(f, &a, 1) < 2.5);
    assert_true(mb_fetch_pause(f, &a, 3) >= 8.0 && mb_fetch_pause(f, &a, 3) < 9.7);
    assert_true(mb_fetch_pause(f, &a, 100) <= 36.1);
    a.wait = 7.0;
    assert_true(mb_fetch_pause(f, &a, 1) == 7.0);
    a.wait = 3600.0;
    assert_true(mb_fetch_pause(f, &a, 1) < 0.0);
    mb_fetcher_free(f);
}

static int prepare(void **state)
{
    uint64_t x = 1;
    uint8_t sum[MB_DIGEST_BYTES];

    if (make_root(state) != 0 || mb_alloc(SIZE, "test", (void **)&bytes) != MB_OK)
        return -1;
    for (int i = 0; i < SIZE; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (char)(x >> 56);
    }
    if (mb_digest_memory(bytes, SIZE, sum) != MB_OK)
        return -1;
    mb_digest_hex(sum, digest);
    snprintf(base, sizeof base, "%s/x", root);
    snprintf(part, sizeof part, "%s/x.mbuyu.part", root);
    snprintf(state_file, sizeof state_file, "%s/x.mbuyu.json", root);
    snprintf(whole, sizeof whole, "%s/whole", root);
    return 0;
}

static int clean(void **state)
{
    mb_free(bytes);
    return remove_root(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on_where_it_was),
        cmocka_unit_test(keeps_what_is_vouched_for),
        cmocka_unit_test(trusts_its_own_boot_only),
        cmocka_unit_test(forgets_what_is_of_another_file),
        cmocka_unit_test(takes_over_from_a_sleeper),
        cmocka_unit_test(knows_who_may_write),
        cmocka_unit_test(locks_once),
        cmocka_unit_test(takes_over_what_lies_untouched),
        cmocka_unit_test(is_touched_while_held),
        cmocka_unit_test(knows_the_hours),
        cmocka_unit_test(knows_origins),
        cmocka_unit_test(waits_as_told),
    };
    mb_log_level_set(MB_LOG_ERROR);
    return cmocka_run_group_tests_name("part", tests, prepare, clean);
}
