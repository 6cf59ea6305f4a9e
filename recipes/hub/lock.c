/* recipes/hub/lock.c - see recipes/hub/lock.h. */
#include "recipes/hub/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/hub/fetch.h"

static const double untouched = 90.0, empty = 10.0, look = 0.3, between_beats = 10.0; /* seconds */

struct mb_lock_beats {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool stop;
    mb_lock lock; /* a copy, without beats */
};

/* How long a lock of a process that cannot be seen must lie untouched. */
static double patience(void)
{
    const char *text = getenv("MBUYU_LOCK_SECONDS");
    const double said = text != NULL ? strtod(text, NULL) : 0.0;

    return said >= 1.0 ? said : untouched;
}

/* The first line of a file of the system; "" when there is none. */
static void read_line(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "re");

    text[0] = '\0';
    if (f == NULL)
        return;
    if (fgets(text, (int)size, f) == NULL)
        text[0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    fclose(f);
}

void mb_boot_id(char *text, size_t size)
{
    read_line("/proc/sys/kernel/random/boot_id", text, size);
}

/* When a process started, in ticks since boot; 0: it is not there. */
static unsigned long long started(long pid)
{
    char path[64], line[1024], *at;
    unsigned long long ticks = 0;

    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    read_line(path, line, sizeof line);
    at = strrchr(line, ')'); /* the name before it may hold anything */
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (at != NULL)
        ticks = strtoull(at, NULL, 10);
    return ticks;
}

/* Where processes have these numbers: host, boot, namespace; no spaces in any. */
static void here(char *text, size_t size)
{
    char host[128] = "", boot[64], space[64];
    const ssize_t n = readlink("/proc/self/ns/pid", space, sizeof space - 1);

    space[n > 0 ? n : 0] = '\0';
    gethostname(host, sizeof host - 1);
    mb_boot_id(boot, sizeof boot);
    snprintf(text, size, "%s/%s/%s", host, boot, space);
    for (char *c = text; *c != '\0'; c++)
        if (*c == ' ')
            *c = '_';
}

void mb_owner_here(char *text, size_t size)
{
    char place[300];

    here(place, sizeof place);
    snprintf(text, size, "%s %ld %llu", place, (long)getpid(), started((long)getpid()));
}

enum life { UNKNOWN, ALIVE, GONE };

/* Of the owner's process, where it can be seen from here. */
static enum life life_of(const char *owner)
{
    char place[300], theirs[300];
    unsigned long long ticks;
    long pid;

    here(place, sizeof place);
    if (sscanf(owner, "%299s %ld %llu", theirs, &pid, &ticks) != 3 || strcmp(place, theirs) != 0 ||
        pid <= 0)
        return UNKNOWN;
    return (kill((pid_t)pid, 0) != 0 && errno == ESRCH) || started(pid) != ticks ? GONE : ALIVE;
}

bool mb_owner_may_write(const char *owner)
{
    char mine[512];
    size_t host;

    mb_owner_here(mine, sizeof mine);
    if (owner[0] == '\0' || strcmp(owner, mine) == 0 || life_of(owner) == GONE)
        return false;
    /* what ran on this host before it was started anew is gone too */
    host = strcspn(mine, "/");
    if (host == 0 || strcspn(owner, "/") != host || strncmp(owner, mine, host) != 0)
        return true;
    return strncmp(owner + host + 1, mine + host + 1, strcspn(mine + host + 1, "/")) == 0;
}

/* Renaming takes a lock from others for sure; one that was not the dead one goes back. */
static void remove_stale(const char *path, const char *owner)
{
    char aside[MB_PATH_MAX + 32], now[512];

    snprintf(aside, sizeof aside, "%s.%ld", path, (long)getpid());
    if (rename(path, aside) != 0)
        return;
    read_line(aside, now, sizeof now);
    if (strcmp(now, owner) != 0 && link(aside, path) != 0)
        mb_log_debug("a lock of %s was lost", now);
    unlink(aside);
}

static mb_status try_take(mb_lock *lock, bool *taken)
{
    const int fd = open(lock->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    const size_t n = strlen(lock->owner);
    char dir[MB_PATH_MAX];
    mb_status st = MB_OK;

    *taken = fd >= 0;
    if (fd < 0 && errno == ENOENT) { /* not there yet, or removed with all that was in it */
        MB_TRY(mb_path_dir(dir, sizeof dir, lock->path));
        return mb_path_mkdirs(dir);
    }
    if (fd < 0) {
        MB_REQUIRE(errno == EEXIST, MB_EIO, "%s cannot be made: %s", lock->path, strerror(errno));
        return MB_OK;
    }
    st = mb_pwrite_all(fd, lock->owner, n, 0, lock->path);
    if (close(fd) != 0 && st == MB_OK)
        st = MB_RAISE(MB_EIO, "%s cannot be written: %s", lock->path, strerror(errno));
    if (st != MB_OK)
        unlink(lock->path);
    return st;
}

/* Which process is waited for, for people: the host and the number. */
static void say_waiting(const char *path, const char *owner, const char *what)
{
    long pid = 0;

    if (sscanf(owner, "%*s %ld", &pid) != 1)
        pid = 0;
    mb_log_info("waiting for process %ld on %.*s, which is fetching %s (%s)", pid,
                (int)strcspn(owner, "/"), owner, what, path);
}

/* ---- beats --------------------------------------------------------------------------------- */

static void *beat_on(void *arg)
{
    struct mb_lock_beats *b = arg;
    struct timespec until;
    bool mine = true;

    pthread_mutex_lock(&b->mutex);
    while (!b->stop && mine) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t)between_beats;
        if (pthread_cond_timedwait(&b->wake, &b->mutex, &until) != ETIMEDOUT)
            continue;
        mine = mb_lock_beat(&b->lock) == MB_OK; /* who asks next is told */
        mb_status_clear();
    }
    pthread_mutex_unlock(&b->mutex);
    return NULL;
}

static mb_status start_beats(mb_lock *lock)
{
    struct mb_lock_beats *b = NULL;
    pthread_condattr_t clock;
    int failed;

    MB_TRY(MB_NEW(&b));
    b->lock = *lock;
    pthread_mutex_init(&b->mutex, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&b->wake, &clock);
    pthread_condattr_destroy(&clock);
    failed = pthread_create(&b->thread, NULL, beat_on, b);
    if (failed == 0) {
        lock->beats = b;
        return MB_OK;
    }
    pthread_cond_destroy(&b->wake);
    pthread_mutex_destroy(&b->mutex);
    mb_free(b);
    return MB_RAISE(MB_ENOMEM, "no thread can be started to keep %s: %s", lock->path,
                    strerror(failed));
}

static void stop_beats(mb_lock *lock)
{
    struct mb_lock_beats *b = lock->beats;

    if (b == NULL)
        return;
    pthread_mutex_lock(&b->mutex);
    b->stop = true;
    pthread_cond_signal(&b->wake);
    pthread_mutex_unlock(&b->mutex);
    pthread_join(b->thread, NULL);
    pthread_cond_destroy(&b->wake);
    pthread_mutex_destroy(&b->mutex);
    mb_free(b);
    lock->beats = NULL;
}

/* ---- taking and giving --------------------------------------------------------------------- */

mb_status mb_lock_take(const char *path, const char *what, mb_lock *out)
{
    const double untouched_for = patience();
    mb_lock lock = {.path = ""};
    char owner[512], before[512] = "";
    struct timespec touched = {0};
    double since = mb_clock();
    bool said = false, taken;

    MB_REQUIRE(strlen(path) < sizeof lock.path, MB_EARG, "the path of a lock is too long");
    snprintf(lock.path, sizeof lock.path, "%s", path);
    mb_owner_here(lock.owner, sizeof lock.owner);
    for (;;) {
        enum life life;
        struct stat s;

        MB_TRY(try_take(&lock, &taken));
        if (taken)
            break;
        if (stat(path, &s) != 0)
            continue;
        read_line(path, owner, sizeof owner);
        if (strcmp(owner, before) != 0 || memcmp(&touched, &s.st_mtim, sizeof touched) != 0) {
            since = mb_clock();
            touched = s.st_mtim;
            snprintf(before, sizeof before, "%s", owner);
        }
        life = life_of(owner);
        if (life == GONE ||
            (life == UNKNOWN && mb_clock() - since > (owner[0] == '\0' ? empty : untouched_for))) {
            remove_stale(path, owner);
            continue;
        }
        if (!said && owner[0] != '\0')
            say_waiting(path, owner, what);
        said = said || owner[0] != '\0';
        mb_fetch_sleep(look);
    }
    *out = lock;
    if (start_beats(out) == MB_OK)
        return MB_OK;
    mb_lock_give(out);
    return mb_status_recorded();
}

mb_status mb_lock_beat(const mb_lock *lock)
{
    char owner[512];

    read_line(lock->path, owner, sizeof owner);
    MB_REQUIRE(strcmp(owner, lock->owner) == 0, MB_EIO,
               "%s is another process's now: this one was thought dead", lock->path);
    utimensat(AT_FDCWD, lock->path, NULL, 0);
    return MB_OK;
}

void mb_lock_give(mb_lock *lock)
{
    char owner[512];

    if (lock->path[0] == '\0')
        return;
    stop_beats(lock);
    read_line(lock->path, owner, sizeof owner);
    if (strcmp(owner, lock->owner) == 0)
        unlink(lock->path);
    lock->path[0] = '\0';
}
