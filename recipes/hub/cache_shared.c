/* recipes/hub/cache_shared.c - see recipes/hub/cache_shared.h. */
#include "recipes/hub/cache_shared.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/fetch.h"

enum { HASH = 64, MOST_REFS = 64 << 20 };
static const double lock_seconds = 10.0;

static bool is_regular(const char *path)
{
    struct stat s;

    return lstat(path, &s) == 0 && S_ISREG(s.st_mode);
}

/* CACHE/blobs/ab/HASH and what is beside it. */
static bool path_of(const char *cache, const char *hash, const char *suffix, char *path)
{
    return snprintf(path, MB_PATH_MAX, "%s/blobs/%.2s/%s%s", cache, hash, hash, suffix) <
           MB_PATH_MAX;
}

/* A store of the layout that is known here. */
static bool is_store(const char *cache)
{
    char path[MB_PATH_MAX], *text = NULL;
    bool known;
    size_t n;

    if (snprintf(path, sizeof path, "%s/blobs/.huggingface-shared-blobs", cache) >= MB_PATH_MAX ||
        !is_regular(path))
        return false;
    if (mb_file_read(path, 64, &text, &n) != MB_OK) {
        mb_status_clear();
        return false;
    }
    known = strcmp(text, "1\n") == 0;
    mb_free(text);
    return known;
}

bool mb_shared_hash(const char *cache, const char *repo, const char *blob, char *hash)
{
    static const char up[] = "../../blobs/";
    char path[MB_PATH_MAX], to[256];
    const char *found = to + strlen(up) + 3;
    ssize_t n;

    if (snprintf(path, sizeof path, "%s/%s/blobs/%s", cache, repo, blob) >= MB_PATH_MAX)
        return false;
    n = readlink(path, to, sizeof to - 1);
    if (n != (ssize_t)strlen(up) + 3 + HASH)
        return false;
    to[n] = '\0';
    if (strncmp(to, up, strlen(up)) != 0 || found[-1] != '/' || strncmp(found, found - 3, 2) != 0 ||
        strspn(found, "0123456789abcdef") != HASH || !is_store(cache))
        return false;
    memcpy(hash, found, HASH + 1);
    return true;
}

/* "REPO/blobs/NAME" cut into its names. */
static bool cut(char *line, char **repo, char **blob)
{
    char *slash = strchr(line, '/');

    if (slash == NULL || strncmp(slash, "/blobs/", 7) != 0 || strstr(line, "--") == NULL ||
        line[0] == '.')
        return false;
    *slash = '\0';
    *repo = line;
    *blob = slash + 7;
    return (*blob)[0] != '\0' && strchr(*blob, '/') == NULL;
}

bool mb_shared_is_needed(const char *cache, const char *hash, const char *repo, const char *blob)
{
    char path[MB_PATH_MAX], there[HASH + 1], *text = NULL, *next, *r, *b;
    bool needed = false;
    size_t n;

    if (!path_of(cache, hash, ".refs", path) || !is_regular(path))
        return true;
    if (mb_file_read(path, MOST_REFS, &text, &n) != MB_OK) {
        mb_status_clear();
        return true;
    }
    for (char *line = text; line != NULL && !needed; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        if (cut(line, &r, &b) && (strcmp(r, repo) != 0 || strcmp(b, blob) != 0))
            needed = mb_shared_hash(cache, r, b, there) && strcmp(there, hash) == 0;
    }
    mb_free(text);
    return needed;
}

/* -1: others hold it, or there are none here that can be trusted. */
static int take_lock(const char *cache, const char *hash)
{
    const double until = mb_clock() + lock_seconds;
    char path[MB_PATH_MAX];
    int fd;

    if (!path_of(cache, hash, ".lock.soft", path) || mb_path_exists(path) ||
        !path_of(cache, hash, ".lock", path))
        return -1;
    fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (mb_clock() > until) {
            close(fd);
            return -1;
        }
        mb_fetch_sleep(0.05);
    }
    return fd;
}

void mb_shared_sweep(const char *cache, const char *hash)
{
    char path[MB_PATH_MAX], refs[MB_PATH_MAX];
    const int fd = is_store(cache) ? take_lock(cache, hash) : -1;

    if (fd < 0)
        return;
    if (!mb_shared_is_needed(cache, hash, "", "") && path_of(cache, hash, "", path) &&
        path_of(cache, hash, ".refs", refs) && is_regular(path) && unlink(path) == 0)
        unlink(refs);
    close(fd); /* the lock's file stays, as that library leaves it */
}
