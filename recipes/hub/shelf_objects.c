/* recipes/hub/shelf_objects.c - see recipes/hub/shelf_objects.h. */
#include "recipes/hub/shelf_objects.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"

enum { DAY = 24 * 3600, BUFFER = 1 << 20 };

struct mb_objects {
    char *objects, *incoming;
    atomic_llong next;
};

struct mb_incoming {
    mb_objects *store;
    mb_digest *digest;
    char *path; /* NULL once published */
    int fd;
    int64_t size, limit;
};

/* What was left by a process that died, once nobody can come back for it. */
static void sweep(const char *dir)
{
    char path[MB_PATH_MAX];
    char **names = NULL;
    size_t n = 0;
    struct stat s;

    if (mb_path_list(dir, &names, &n) != MB_OK)
        n = 0;
    for (size_t i = 0; i < n; i++)
        if (mb_path_join(path, sizeof path, dir, names[i]) == MB_OK && lstat(path, &s) == 0 &&
            s.st_mtime < time(NULL) - DAY && mb_path_remove_tree(path) != MB_OK)
            break;
    mb_path_list_free(names, n);
    mb_status_clear();
}

mb_status mb_objects_open(const char *dir, mb_objects **out)
{
    mb_objects *o;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW(&o));
    MB_TRY_GOTO(mb_asprintf(&o->objects, "%s/objects", dir), st, done);
    MB_TRY_GOTO(mb_asprintf(&o->incoming, "%s/incoming", dir), st, done);
    MB_TRY_GOTO(mb_path_mkdirs(o->objects), st, done);
    MB_TRY_GOTO(mb_path_mkdirs(o->incoming), st, done);
    sweep(o->incoming);
    *out = o;
    return MB_OK;
done:
    mb_objects_close(o);
    return st;
}

void mb_objects_close(mb_objects *o)
{
    if (o == NULL)
        return;
    mb_free(o->objects);
    mb_free(o->incoming);
    mb_free(o);
}

mb_status mb_objects_path(const mb_objects *o, const char *sha256, char *out, size_t size)
{
    MB_REQUIRE((size_t)snprintf(out, size, "%s/%.2s/%s", o->objects, sha256, sha256) < size, MB_EIO,
               "%s: the path is longer than %zu bytes", o->objects, size);
    return MB_OK;
}

bool mb_objects_has(const mb_objects *o, const char *sha256, int64_t *size)
{
    char path[MB_PATH_MAX];
    struct stat s;

    if (mb_objects_path(o, sha256, path, sizeof path) != MB_OK) {
        mb_status_clear();
        return false;
    }
    if (stat(path, &s) != 0 || !S_ISREG(s.st_mode))
        return false;
    *size = s.st_size;
    return true;
}

mb_status mb_objects_take(mb_objects *o, const char *path, const char *sha256, int64_t size)
{
    char to[MB_PATH_MAX], dir[MB_PATH_MAX];
    int64_t found;

    if (mb_objects_has(o, sha256, &found) && found == size)
        return MB_OK;
    MB_TRY(mb_objects_path(o, sha256, to, sizeof to));
    MB_TRY(mb_path_dir(dir, sizeof dir, to));
    MB_TRY(mb_path_mkdirs(dir));
    MB_REQUIRE(chmod(path, 0444) == 0 || errno == EPERM || errno == ENOTSUP, MB_EIO, "%s: %s", path,
               strerror(errno));
    MB_REQUIRE(rename(path, to) == 0, MB_EIO, "%s cannot be renamed to %s: %s", path, to,
               strerror(errno));
    return mb_path_sync_dir(dir);
}

mb_status mb_incoming_new(mb_objects *o, int64_t limit, mb_incoming **out)
{
    mb_incoming *in;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW(&in));
    *in = (mb_incoming){.store = o, .fd = -1, .limit = limit};
    MB_TRY_GOTO(mb_digest_new(&in->digest), st, done);
    MB_TRY_GOTO(mb_asprintf(&in->path, "%s/%ld-%lld", o->incoming, (long)getpid(),
                            (long long)atomic_fetch_add(&o->next, 1)),
                st, done);
    in->fd = open(in->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (in->fd < 0) {
        st = MB_RAISE(MB_EIO, "%s cannot be made: %s", in->path, strerror(errno));
        goto done;
    }
    *out = in;
    return MB_OK;
done:
    mb_incoming_free(in);
    return st;
}

void mb_incoming_free(mb_incoming *in)
{
    if (in == NULL)
        return;
    if (in->fd >= 0) {
        close(in->fd);
        unlink(in->path);
    }
    mb_digest_free(in->digest);
    mb_free(in->path);
    mb_free(in);
}

mb_status mb_incoming_add(mb_incoming *in, const void *data, size_t n)
{
    MB_REQUIRE((int64_t)n <= in->limit - in->size, MB_EDATA, "more than the %lld bytes announced",
               (long long)in->limit);
    MB_TRY(mb_pwrite_all(in->fd, data, n, in->size, in->path));
    in->size += (int64_t)n;
    return mb_digest_add(in->digest, data, n);
}

/* From its temporary name to `path`, durably. */
static mb_status publish(mb_incoming *in, const char *path)
{
    char dir[MB_PATH_MAX];

    MB_TRY(mb_path_dir(dir, sizeof dir, path));
    MB_TRY(mb_path_mkdirs(dir));
    MB_REQUIRE(fsync(in->fd) == 0, MB_EIO, "%s cannot be flushed to disk: %s", in->path,
               strerror(errno));
    /* never changed again: the folders of repositories hold links to it */
    MB_REQUIRE(fchmod(in->fd, 0444) == 0 || errno == EPERM || errno == ENOTSUP, MB_EIO, "%s: %s",
               in->path, strerror(errno));
    MB_REQUIRE(rename(in->path, path) == 0, MB_EIO, "%s cannot be renamed to %s: %s", in->path,
               path, strerror(errno));
    close(in->fd);
    in->fd = -1;
    return mb_path_sync_dir(dir);
}

mb_status mb_incoming_end(mb_incoming *in, const char *wanted, char sha256[MB_DIGEST_HEX],
                          int64_t *size)
{
    char path[MB_PATH_MAX];

    MB_TRY(mb_digest_end_hex(in->digest, sha256));
    MB_REQUIRE(wanted == NULL || strcmp(wanted, sha256) == 0, MB_EDATA,
               "the bytes that came have the sha256 %s, not %s", sha256, wanted);
    *size = in->size;
    MB_TRY(mb_objects_path(in->store, sha256, path, sizeof path));
    return publish(in, path);
}

static mb_status part_path(const mb_objects *o, const char *of, int part, char *out, size_t size)
{
    MB_REQUIRE((size_t)snprintf(out, size, "%s/%s/%d", o->incoming, of, part) < size, MB_EIO,
               "%s: the path is longer than %zu bytes", o->incoming, size);
    return MB_OK;
}

mb_status mb_incoming_end_part(mb_incoming *in, const char *of, int part, int64_t size,
                               char sha256[MB_DIGEST_HEX])
{
    char path[MB_PATH_MAX];

    MB_REQUIRE(in->size == size, MB_EDATA, "part %d has %lld bytes, not %lld", part,
               (long long)in->size, (long long)size);
    MB_TRY(mb_digest_end_hex(in->digest, sha256));
    MB_TRY(part_path(in->store, of, part, path, sizeof path));
    return publish(in, path);
}

static mb_status add_part(mb_incoming *in, const char *path, char *buffer)
{
    int64_t size;
    int fd;
    mb_status st = MB_OK;

    MB_TRY(mb_file_open(path, MB_EDATA, &fd, &size));
    for (int64_t at = 0; at < size && st == MB_OK; at += BUFFER) {
        const size_t n = size - at < BUFFER ? (size_t)(size - at) : BUFFER;
        st = mb_pread_all(fd, buffer, n, at, path);
        if (st == MB_OK)
            st = mb_incoming_add(in, buffer, n);
    }
    close(fd);
    return st;
}

mb_status mb_objects_join(mb_objects *o, const char *sha256, int64_t size, int parts)
{
    char path[MB_PATH_MAX], found[MB_DIGEST_HEX];
    mb_incoming *in = NULL;
    char *buffer = NULL;
    int64_t n;
    mb_status st = MB_OK;

    MB_REQUIRE(parts > 0, MB_EDATA, "an object of no parts is sent whole");
    MB_TRY_GOTO(mb_alloc(BUFFER, "a buffer to join parts", (void **)&buffer), st, done);
    MB_TRY_GOTO(mb_incoming_new(o, size, &in), st, done);
    for (int i = 1; i <= parts; i++) {
        MB_TRY_GOTO(part_path(o, sha256, i, path, sizeof path), st, done);
        MB_TRY_GOTO(add_part(in, path, buffer), st, done);
    }
    MB_TRY_GOTO(mb_incoming_end(in, sha256, found, &n), st, done);
    MB_TRY_GOTO(mb_path_dir(buffer, BUFFER, path), st, done);
    st = mb_path_remove_tree(buffer);
done:
    mb_incoming_free(in);
    mb_free(buffer);
    return st;
}
