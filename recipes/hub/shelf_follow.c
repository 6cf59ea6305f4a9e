/* recipes/hub/shelf_follow.c - a plain folder follows the commits that clients make; and what goes to
 * the store's "removed", so that nothing people put into a folder is ever lost by a push. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/shelf_inside.h"

/* FICLONE of linux/fs.h */
#define SHARE_BLOCKS _IOW(0x94, 9, int)

enum { BUFFER = 1 << 20, TRIES = 10000 };

/* True while no folder on the way is a link that leads elsewhere. */
static bool is_inside(const char *dir, const char *path)
{
    char part[MB_PATH_MAX];
    struct stat s;

    for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        if ((size_t)snprintf(part, sizeof part, "%s/%.*s", dir, (int)(slash - path), path) >=
            sizeof part)
            return false;
        if (lstat(part, &s) == 0 && !S_ISDIR(s.st_mode))
            return false;
    }
    return true;
}

/* The blocks are shared where the file system can; false: nothing was written. */
static bool share_blocks(int from, int to)
{
    return ioctl(to, SHARE_BLOCKS, from) == 0;
}

/* *shared NULL: bytes are copied where blocks cannot be shared; else it says whether they were. */
static mb_status copy_bytes(const char *from, const char *to, bool *shared)
{
    mb_newfile f = {.fd = -1};
    char *buffer = NULL;
    int64_t size;
    int fd;
    mb_status st;

    MB_TRY(mb_file_open(from, MB_EIO, &fd, &size));
    MB_TRY_GOTO(mb_alloc(BUFFER, "a buffer to copy", (void **)&buffer), st, done);
    MB_TRY_GOTO(mb_newfile_open(to, &f), st, done);
    const bool done = share_blocks(fd, f.fd);
    if (shared != NULL)
        *shared = done;
    if (!done && shared != NULL)
        goto done;
    for (int64_t at = 0; !done && at < size; at += BUFFER) {
        const size_t n = size - at < BUFFER ? (size_t)(size - at) : BUFFER;
        MB_TRY_GOTO(mb_pread_all(fd, buffer, n, at, from), st, done);
        MB_TRY_GOTO(mb_pwrite_all(f.fd, buffer, n, at, to), st, done);
    }
    MB_TRY_GOTO(mb_newfile_sync(&f), st, done);
    st = mb_newfile_publish(&f);
done:
    mb_newfile_abandon(&f);
    mb_free(buffer);
    close(fd);
    return st;
}

/* --- what is put away */

static mb_status free_name(const char *dir, const char *path, const char *what, char *to,
                           size_t size)
{
    char name[MB_PATH_MAX];

    MB_TRY(mb_path_mkdirs(dir));
    for (int i = 0; i < TRIES; i++) {
        snprintf(name, sizeof name, "%lld-%d-%s-%.200s", (long long)time(NULL), i, what,
                 mb_path_base(path));
        MB_TRY(mb_path_join(to, size, dir, name));
        if (!mb_path_exists(to))
            break;
    }
    return MB_OK;
}

/* A folder on another file system than the store is put away beside the repositories. */
static mb_status put_beside(mb_shelf *s, const char *path, const char *what)
{
    char dir[MB_PATH_MAX], to[MB_PATH_MAX];

    MB_TRY(mb_path_join(dir, sizeof dir, s->dir, ".mbuyu-removed"));
    MB_TRY(free_name(dir, path, what, to, sizeof to));
    MB_REQUIRE(rename(path, to) == 0, MB_EIO, "%s cannot be moved to %s: %s", path, to,
               strerror(errno));
    return MB_OK;
}

mb_status mb_shelf_put_away(mb_shelf *s, const char *path, const char *what)
{
    char dir[MB_PATH_MAX], to[MB_PATH_MAX];
    struct stat at;

    if (lstat(path, &at) != 0)
        return MB_OK;
    MB_TRY(mb_path_join(dir, sizeof dir, s->store, "removed"));
    MB_TRY(free_name(dir, path, what, to, sizeof to));
    if (rename(path, to) == 0)
        return MB_OK;
    MB_REQUIRE(errno == EXDEV, MB_EIO, "%s cannot be moved to %s: %s", path, to, strerror(errno));
    if (S_ISDIR(at.st_mode))
        return put_beside(s, path, what);
    MB_TRY(copy_bytes(path, to, NULL));
    MB_REQUIRE(unlink(path) == 0, MB_EIO, "'%s' cannot be removed: %s", path, strerror(errno));
    return MB_OK;
}

static mb_status digest_of(const char *path, char sha256[MB_DIGEST_HEX])
{
    uint8_t bytes[MB_DIGEST_BYTES];

    MB_TRY(mb_digest_file(path, bytes));
    mb_digest_hex(bytes, sha256);
    return MB_OK;
}

static bool is_stored(mb_shelf *s, const char *sha256, int64_t size)
{
    int64_t have;

    return mb_shelf_is_hex(sha256, 64) && mb_objects_has(s->objects, sha256, &have) && have == size;
}

/* Is the content of what lies at `path` in the store? As it was when it was looked at; else it is read
 * where its size is that of the file before or the one to come. */
static bool is_safe(mb_shelf *s, mb_repo *r, const char *name, const char *path,
                    const mb_shelf_file *before, const mb_shelf_file *next)
{
    char sha256[MB_DIGEST_HEX] = "";
    mb_seen_file now = {0};
    struct stat at;

    if (stat(path, &at) != 0 || !S_ISREG(at.st_mode))
        return false;
    if (mb_seen_one(r->folder, name, &now) == MB_OK) {
        pthread_mutex_lock(&s->lock);
        const mb_seen_file *seen = mb_seen_find(&r->seen, name);
        if (seen != NULL && seen->file.size == now.file.size && seen->mtime == now.mtime &&
            seen->inode == now.inode)
            memcpy(sha256, seen->file.sha256, sizeof sha256);
        pthread_mutex_unlock(&s->lock);
    }
    if (sha256[0] == '\0' &&
        ((before != NULL && before->size == at.st_size) ||
         (next != NULL && next->size == at.st_size)) &&
        digest_of(path, sha256) != MB_OK)
        sha256[0] = '\0';
    mb_status_clear();
    return is_stored(s, sha256, at.st_size);
}

/* Before the file at `path` is replaced or removed: what the store does not have is put away. */
static mb_status save(mb_shelf *s, mb_repo *r, const char *name, const char *path,
                      const mb_shelf_file *before, const mb_shelf_file *next)
{
    struct stat at;

    if (lstat(path, &at) != 0 || S_ISDIR(at.st_mode) || is_safe(s, r, name, path, before, next))
        return MB_OK;
    MB_TRY(mb_shelf_put_away(s, path, "file"));
    mb_log_warn(
        "%s: '%s' was changed in the folder and by a push: the folder's is now in %s/removed",
        r->id, name, s->store);
    return MB_OK;
}

/* --- following */

/* A link to the object, under a name that no look at the folder takes for content. */
static mb_status place_link(const char *object, const char *dir, const char *path, bool *placed)
{
    static atomic_llong next;
    char temporary[MB_PATH_MAX];

    *placed = false;
    for (int i = 0; i < TRIES; i++) {
        MB_REQUIRE((size_t)snprintf(temporary, sizeof temporary, "%s/.mbuyu-%ld-%lld.tmp", dir,
                                    (long)getpid(),
                                    (long long)atomic_fetch_add(&next, 1)) < sizeof temporary,
                   MB_EIO, "%s: the path is too long", path);
        if (link(object, temporary) == 0)
            break;
        if (errno != EEXIST)
            return MB_OK; /* a file system without links, or another than the store's */
    }
    const bool renamed = rename(temporary, path) == 0;
    const int why = errno;
    unlink(temporary); /* rename leaves it when both were the same file */
    MB_REQUIRE(renamed, MB_EIO, "%s: %s", path, strerror(why));
    *placed = true;
    return MB_OK;
}

/* Blocks are shared where that can be. A link is for those who cannot write to it: the object is read
 * only, which does not keep root from changing it in place. */
static mb_status place_bytes(const char *object, const char *dir, const char *path)
{
    bool placed;

    MB_TRY(copy_bytes(object, path, &placed));
    if (!placed && geteuid() != 0)
        MB_TRY(place_link(object, dir, path, &placed));
    return placed ? MB_OK : copy_bytes(object, path, NULL);
}

static mb_status place(mb_shelf *s, mb_repo *r, const mb_shelf_file *before, const mb_shelf_file *f)
{
    char object[MB_PATH_MAX], path[MB_PATH_MAX], dir[MB_PATH_MAX];
    mb_seen_file seen = {.file = *f};

    MB_TRY(mb_objects_path(s->objects, f->sha256, object, sizeof object));
    MB_TRY(mb_path_join(path, sizeof path, r->folder, f->path));
    MB_TRY(mb_path_dir(dir, sizeof dir, path));
    MB_REQUIRE(is_inside(r->folder, f->path), MB_EIO, "'%s' leads out of the folder", path);
    MB_REQUIRE(mb_path_is_file(object), MB_EIO, "%s, the content of '%s', is missing", object,
               f->path);
    MB_TRY(mb_path_mkdirs(dir));
    MB_TRY(save(s, r, f->path, path, before, f));
    MB_TRY(place_bytes(object, dir, path));
    if (mb_seen_is_left_out(f->path))
        return MB_OK;
    MB_TRY(mb_seen_one(r->folder, f->path, &seen));
    pthread_mutex_lock(&s->lock);
    const mb_status st = mb_seen_put(&r->seen, &seen);
    pthread_mutex_unlock(&s->lock);
    return st;
}

static mb_status displace(mb_shelf *s, mb_repo *r, const mb_shelf_file *gone)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_path_join(path, sizeof path, r->folder, gone->path));
    if (is_inside(r->folder, gone->path)) {
        MB_TRY(save(s, r, gone->path, path, gone, NULL));
        MB_REQUIRE(unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR, MB_EIO,
                   "'%s' cannot be removed: %s", path, strerror(errno));
    }
    for (char *slash; (slash = strrchr(path, '/')) - path > (ptrdiff_t)strlen(r->folder);) {
        *slash = '\0';
        if (rmdir(path) != 0)
            break; /* not empty */
    }
    pthread_mutex_lock(&s->lock);
    mb_seen_remove(&r->seen, gone->path);
    pthread_mutex_unlock(&s->lock);
    return MB_OK;
}

mb_status mb_shelf_follow(mb_shelf *s, mb_repo *r, const mb_shelf_tree *old,
                          const mb_shelf_tree *now)
{
    char path[MB_PATH_MAX];

    for (size_t i = 0; old != NULL && i < old->n; i++)
        if (mb_shelf_tree_find(now, old->files[i].path) == NULL)
            MB_TRY(displace(s, r, &old->files[i]));
    for (size_t i = 0; i < now->n; i++) {
        const mb_shelf_file *before =
            old != NULL ? mb_shelf_tree_find(old, now->files[i].path) : NULL;
        if (before == NULL || !mb_shelf_file_same(before, &now->files[i]))
            MB_TRY(place(s, r, before, &now->files[i]));
    }
    MB_TRY(mb_path_join(path, sizeof path, r->records, "seen.json"));
    return mb_seen_save(&r->seen, path);
}
