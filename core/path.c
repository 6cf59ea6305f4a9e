/* core/path.c - see core/path.h. */
#include "core/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"

enum { DEEPEST_TREE = 64, CHUNK = 1 << 30 };

mb_status mb_path_join(char *out, size_t size, const char *a, const char *b)
{
    const size_t n = strlen(a);
    const bool alone = n == 0 || b[0] == '/';
    const char *slash = n > 0 && a[n - 1] == '/' ? "" : "/";
    const int need =
        alone ? snprintf(out, size, "%s", b) : snprintf(out, size, "%s%s%s", a, slash, b);

    MB_REQUIRE(need >= 0 && (size_t)need < size, MB_EARG,
               "the path '%.80s.../%.80s' is longer than %zu bytes", a, b, size - 1);
    return MB_OK;
}

const char *mb_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

mb_status mb_path_dir(char *out, size_t size, const char *path)
{
    const size_t base = (size_t)(mb_path_base(path) - path);
    const size_t n = base > 1 ? base - 1 : base;

    if (n == 0)
        return mb_path_join(out, size, "", ".");
    MB_REQUIRE(n < size, MB_EARG, "the path '%.80s...' is longer than %zu bytes", path, size - 1);
    memcpy(out, path, n);
    out[n] = '\0';
    return MB_OK;
}

bool mb_path_has_suffix(const char *path, const char *suffix)
{
    const size_t n = strlen(path), m = strlen(suffix);

    return n >= m && memcmp(path + n - m, suffix, m) == 0;
}

mb_status mb_path_real(const char *path, char *out, size_t size)
{
    char real[PATH_MAX];

    MB_REQUIRE(realpath(path, real) != NULL, MB_EIO, "%s: %s", path, strerror(errno));
    MB_REQUIRE((size_t)snprintf(out, size, "%s", real) < size, MB_EIO,
               "%s: the absolute path is longer than %zu bytes", path, size);
    return MB_OK;
}

bool mb_path_exists(const char *path)
{
    struct stat s;

    return stat(path, &s) == 0;
}

bool mb_path_is_dir(const char *path)
{
    struct stat s;

    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

bool mb_path_is_file(const char *path)
{
    struct stat s;

    return stat(path, &s) == 0 && S_ISREG(s.st_mode);
}

int64_t mb_stat_changed(const struct stat *s)
{
    return (int64_t)s->st_mtim.tv_sec * 1000000000 + s->st_mtim.tv_nsec;
}

int64_t mb_path_changed(const char *path)
{
    struct stat s;

    return stat(path, &s) == 0 ? mb_stat_changed(&s) : 0;
}

bool mb_path_is_component(const char *name)
{
    const size_t n = strlen(name);

    if (n == 0 || n > 255 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)name[i];
        if (c < 32 || c == 127 || c == '/' || c == '\\')
            return false;
    }
    return true;
}

mb_status mb_path_mkdirs(const char *path)
{
    char part[MB_PATH_MAX];

    MB_TRY(mb_path_join(part, sizeof part, "", path));
    MB_REQUIRE(part[0] != '\0', MB_EARG, "a folder's path is empty");
    for (char *p = part + 1;; p++) {
        const char c = *p;
        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (mkdir(part, 0777) != 0) {
            const int e = errno;
            MB_REQUIRE(e == EEXIST || mb_path_is_dir(part), MB_EIO,
                       "the folder '%s' cannot be made: %s", part, strerror(e));
        }
        *p = c;
        if (c == '\0')
            break;
    }
    MB_REQUIRE(mb_path_is_dir(path), MB_EIO,
               "the folder '%s' cannot be made: something else has that name", path);
    return MB_OK;
}

/* Everything below the open folder `fd`, which is closed. Names are resolved against the folder's
 * descriptor, so nobody can swap a parent for a link while we work. */
static mb_status empty_folder(int fd, const char *path, int depth)
{
    DIR *dir = fdopendir(fd);
    mb_status st = MB_OK;

    if (dir == NULL) {
        st = MB_RAISE(MB_EIO, "the folder '%s' cannot be read: %s", path, strerror(errno));
        close(fd);
        return st;
    }
    for (const struct dirent *e; st == MB_OK && (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        const int sub = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub >= 0 && depth == DEEPEST_TREE) {
            close(sub);
            st = MB_RAISE(MB_EIO, "'%s' is nested deeper than %d folders", path, DEEPEST_TREE);
        } else if (sub >= 0) {
            st = empty_folder(sub, path, depth + 1);
        }
        if (st == MB_OK && unlinkat(fd, e->d_name, sub >= 0 ? AT_REMOVEDIR : 0) != 0 &&
            errno != ENOENT)
            st = MB_RAISE(MB_EIO, "'%s' in '%s' cannot be removed: %s", e->d_name, path,
                          strerror(errno));
    }
    closedir(dir);
    return st;
}

mb_status mb_path_remove_tree(const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return MB_OK;
    if (fd >= 0)
        MB_TRY(empty_folder(fd, path, 0));
    if ((fd >= 0 ? rmdir(path) : unlink(path)) != 0 && errno != ENOENT)
        return MB_RAISE(MB_EIO, "'%s' cannot be removed: %s", path, strerror(errno));
    return MB_OK;
}

mb_status mb_path_sync_dir(const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    MB_REQUIRE(fd >= 0, MB_EIO, "the folder '%s' cannot be opened: %s", path, strerror(errno));
    const int failed = fsync(fd) != 0 ? errno : 0;
    close(fd);
    /* EINVAL: a file system that has nothing to flush for folders */
    MB_REQUIRE(failed == 0 || failed == EINVAL, MB_EIO,
               "the folder '%s' cannot be flushed to disk: %s", path, strerror(failed));
    return MB_OK;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

mb_status mb_path_list(const char *dir, char ***names, size_t *n)
{
    DIR *d = opendir(dir);
    char **list = NULL;
    size_t count = 0, capacity = 0;
    mb_status st = MB_OK;

    MB_REQUIRE(d != NULL, MB_EIO, "the folder '%s' cannot be read: %s", dir, strerror(errno));
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        MB_TRY_GOTO(mb_grow((void **)&list, &capacity, count + 1, sizeof *list, "a file list"), st,
                    done);
        MB_TRY_GOTO(mb_strdup(e->d_name, &list[count]), st, done);
        count++;
    }
    if (count > 0)
        qsort(list, count, sizeof *list, by_bytes);
    *names = list;
    *n = count;
    list = NULL;
    count = 0;
done:
    mb_path_list_free(list, count);
    closedir(d);
    return st;
}

void mb_path_list_free(char **names, size_t n)
{
    for (size_t i = 0; names != NULL && i < n; i++)
        mb_free(names[i]);
    mb_free(names);
}

mb_status mb_file_open(const char *path, mb_status code, int *fd, int64_t *size)
{
    /* O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever */
    const int f = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat s;

    MB_REQUIRE(f >= 0, code, "'%s' cannot be opened: %s", path, strerror(errno));
    if (fstat(f, &s) != 0 || !S_ISREG(s.st_mode)) {
        close(f);
        return MB_RAISE(code, "'%s' is %s, a regular file is needed", path,
                        S_ISDIR(s.st_mode) ? "a folder" : "a pipe or device");
    }
    *fd = f;
    *size = (int64_t)s.st_size;
    return MB_OK;
}

mb_status mb_file_read_as(const char *path, mb_status code, size_t max_bytes, char **text,
                          size_t *n)
{
    int fd;
    int64_t size;
    char *p = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_file_open(path, code, &fd, &size));
    if ((uint64_t)size > max_bytes) {
        st = MB_RAISE(code, "'%s' has %lld bytes, at most %zu are read", path, (long long)size,
                      max_bytes);
        goto done;
    }
    MB_TRY_GOTO(mb_alloc((size_t)size + 1, path, (void **)&p), st, done);
    MB_TRY_GOTO(mb_pread_all(fd, p, (size_t)size, 0, path), st, done);
    *text = p;
    *n = (size_t)size;
    p = NULL;
done:
    mb_free(p);
    close(fd);
    return st;
}

mb_status mb_file_read(const char *path, size_t max_bytes, char **text, size_t *n)
{
    return mb_file_read_as(path, MB_EIO, max_bytes, text, n);
}

mb_status mb_pread_all(int fd, void *dst, size_t n, int64_t offset, const char *path)
{
    for (char *p = dst; n > 0;) {
        const ssize_t got = pread(fd, p, n < CHUNK ? n : CHUNK, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        MB_REQUIRE(got >= 0, MB_EIO, "'%s' cannot be read at byte %lld: %s", path,
                   (long long)offset, strerror(errno));
        MB_REQUIRE(got > 0, MB_EIO, "'%s' was cut short: %zu bytes are missing from byte %lld on",
                   path, n, (long long)offset);
        p += got;
        n -= (size_t)got;
        offset += got;
    }
    return MB_OK;
}

mb_status mb_pwrite_all(int fd, const void *src, size_t n, int64_t offset, const char *path)
{
    for (const char *p = src; n > 0;) {
        const ssize_t put = pwrite(fd, p, n < CHUNK ? n : CHUNK, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        MB_REQUIRE(put > 0, MB_EIO, "'%s' cannot be written at byte %lld: %s", path,
                   (long long)offset, put < 0 ? strerror(errno) : "the system took no bytes");
        p += put;
        n -= (size_t)put;
        offset += put;
    }
    return MB_OK;
}
