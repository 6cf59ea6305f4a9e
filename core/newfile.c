/* core/newfile.c - files that appear when they are complete; see core/path.h.
 *
 * The temporary name is PATH.mbuyu-HOST-N.tmp with the first N that is free, so that several may write
 * one path, from several machines too. A lock on it says that its writer lives: what a killed run left
 * has none, and makes room for the next one, so that such files do not pile up.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"

enum { NAMES = 1000, BASE_MAX = 200 }; /* a name may have 255 bytes */

static const char mark[] = ".mbuyu-";

bool mb_newfile_is_suffix(const char *text)
{
    const size_t n = sizeof mark - 1;

    if (strncmp(text, mark, n) != 0 || strspn(text + n, "0123456789abcdef") != 8)
        return false;
    text += n + 8;
    if (*text != '-' || strspn(text + 1, "0123456789") == 0)
        return false;
    return strcmp(text + 1 + strspn(text + 1, "0123456789"), ".tmp") == 0;
}

/* Eight digits for this machine: locks may not reach another that has the same disk. */
static unsigned host(void)
{
    char name[256] = "";
    unsigned h = 2166136261u;

    if (gethostname(name, sizeof name - 1) != 0)
        name[0] = '\0';
    for (const char *c = name; *c != '\0'; c++)
        h = (h ^ (unsigned char)*c) * 16777619u;
    return h;
}

/* True when nobody has it open: then it is gone. */
static bool remove_leftover(const char *path)
{
    const int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat a, b;
    bool gone = false;

    if (fd < 0)
        return false;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &a) == 0 && S_ISREG(a.st_mode) &&
        lstat(path, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev)
        gone = unlink(path) == 0;
    close(fd);
    return gone;
}

/* False: somebody took it for a leftover before it was locked. */
static bool is_ours(int fd)
{
    struct stat s;

    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return false;
    return fstat(fd, &s) == 0 && s.st_nlink > 0;
}

static int make(const char *path)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = open(path, flags, 0666);

    if (fd < 0 && errno == EEXIST && !remove_leftover(path)) {
        errno = EEXIST;
        return -1;
    }
    if (fd < 0)
        fd = open(path, flags, 0666);
    if (fd >= 0 && !is_ours(fd)) {
        close(fd);
        errno = EEXIST;
        return -1;
    }
    return fd;
}

mb_status mb_newfile_open(const char *path, mb_newfile *f)
{
    const size_t base = strlen(mb_path_base(path)), above = strlen(path) - base;
    const int n = (int)(above + (base < BASE_MAX ? base : BASE_MAX));
    const unsigned h = host();
    mb_status st;

    *f = (mb_newfile){.fd = -1, .lock = -1};
    MB_TRY(mb_strdup(path, &f->path));
    for (int i = 0; i < NAMES && f->fd < 0; i++) {
        mb_free(f->temporary);
        f->temporary = NULL;
        MB_TRY_GOTO(mb_asprintf(&f->temporary, "%.*s%s%08x-%d.tmp", n, path, mark, h, i), st, fail);
        f->fd = make(f->temporary);
        if (f->fd < 0 && errno != EEXIST)
            break;
    }
    if (f->fd >= 0)
        f->lock = fcntl(f->fd, F_DUPFD_CLOEXEC, 0); /* the same lock, until the file has its name */
    if (f->lock >= 0)
        return MB_OK;
    st = MB_RAISE(MB_EIO, "'%s' cannot be made: %s", f->temporary, strerror(errno));
    if (f->fd < 0) { /* it is another's, or not there */
        mb_free(f->temporary);
        f->temporary = NULL;
    }
fail:
    mb_newfile_abandon(f);
    return st;
}

mb_status mb_newfile_sync(mb_newfile *f)
{
    int failed = fsync(f->fd) != 0 ? errno : 0;

    /* a failed fsync is final: the kernel may have dropped the pages, so it is not tried again */
    if (close(f->fd) != 0 && failed == 0)
        failed = errno;
    f->fd = -1;
    MB_REQUIRE(failed == 0, MB_EIO, "'%s' cannot be flushed to disk: %s", f->temporary,
               strerror(failed));
    return MB_OK;
}

static void let_go(mb_newfile *f)
{
    if (f->temporary != NULL && f->lock >= 0)
        close(f->lock);
    mb_free(f->temporary);
    mb_free(f->path);
    *f = (mb_newfile){.fd = -1, .lock = -1};
}

mb_status mb_newfile_publish(mb_newfile *f)
{
    char dir[MB_PATH_MAX];

    MB_TRY(mb_path_dir(dir, sizeof dir, f->path));
    if (f->fd >= 0)
        MB_TRY(mb_newfile_sync(f));
    MB_REQUIRE(rename(f->temporary, f->path) == 0, MB_EIO, "'%s' cannot be renamed to '%s': %s",
               f->temporary, f->path, strerror(errno));
    let_go(f);
    return mb_path_sync_dir(dir);
}

void mb_newfile_abandon(mb_newfile *f)
{
    if (f->fd >= 0)
        close(f->fd);
    if (f->temporary != NULL)
        unlink(f->temporary);
    let_go(f);
}

mb_status mb_file_write_atomic(const char *path, const void *data, size_t n)
{
    mb_newfile f;
    mb_status st = MB_OK;

    MB_TRY(mb_newfile_open(path, &f));
    MB_TRY_GOTO(mb_pwrite_all(f.fd, data, n, 0, path), st, done);
    MB_TRY_GOTO(mb_newfile_publish(&f), st, done);
done:
    mb_newfile_abandon(&f);
    return st;
}
