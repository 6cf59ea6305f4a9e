/* recipes/hub/part.c - see recipes/hub/part.h. */
#include "recipes/hub/part.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/digest.h"
#include "core/json.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/lock.h"

enum { MOST_STATE = 256 << 20, BUFFER = 1 << 20 };
static const double save_seconds = 2.0, range_seconds = 0.25; /* between two states */

struct range {
    char hex[MB_DIGEST_HEX];
};

struct mb_part {
    char path[MB_PATH_MAX], state[MB_PATH_MAX];
    char digest[65], *url;
    int fd; /* -1: published or closed */
    int64_t size, have;
    mb_digest *whole, *range; /* of all bytes; of those since the last full range */
    struct range *ranges;     /* (have / MB_PART_RANGE) of them */
    size_t capacity;
    double saved_at;
    int64_t saved_have;
};

/* Is the file at `path` the one that is written here? */
static bool is_ours(const mb_part *p, const char *path)
{
    struct stat mine, there;

    return fstat(p->fd, &mine) == 0 && lstat(path, &there) == 0 && mine.st_dev == there.st_dev &&
           mine.st_ino == there.st_ino;
}

static mb_status check_ours(const mb_part *p)
{
    MB_REQUIRE(is_ours(p, p->path), MB_EIO,
               "%s is another process's now, or was removed: this one was thought dead", p->path);
    return MB_OK;
}

/* ---- the state ----------------------------------------------------------------------------- */

/* `owner`: who goes on writing; "": nobody. */
static mb_status save_as(mb_part *p, const char *owner)
{
    char boot[64], tail[MB_DIGEST_HEX];
    mb_json_doc *doc = NULL;
    mb_json root, list, last;
    mb_status st;

    MB_TRY(check_ours(p));
    MB_REQUIRE(fdatasync(p->fd) == 0, MB_EIO, "%s cannot be written to disk: %s", p->path,
               strerror(errno));
    mb_boot_id(boot, sizeof boot);
    MB_TRY(mb_json_doc_new(p->state, &doc));
    root = mb_json_root(doc);
    MB_TRY_GOTO(mb_json_set_string(root, "digest", p->digest), st, done);
    MB_TRY_GOTO(mb_json_set_int(root, "size", p->size), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "url", p->url), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "boot", boot), st, done);
    MB_TRY_GOTO(mb_json_set_string(root, "owner", owner), st, done);
    MB_TRY_GOTO(mb_json_set_int(root, "range", MB_PART_RANGE), st, done);
    MB_TRY_GOTO(mb_json_set_array(root, "ranges", &list), st, done);
    for (int64_t i = 0; i < p->have / MB_PART_RANGE; i++)
        MB_TRY_GOTO(mb_json_set_string(list, NULL, p->ranges[i].hex), st, done);
    MB_TRY_GOTO(mb_json_set_object(root, "tail", &last), st, done);
    MB_TRY_GOTO(mb_json_set_int(last, "bytes", p->have % MB_PART_RANGE), st, done);
    MB_TRY_GOTO(mb_digest_now_hex(p->range, tail), st, done);
    MB_TRY_GOTO(mb_json_set_string(last, "sha256", tail), st, done);
    MB_TRY_GOTO(mb_json_write(root, 0, p->state), st, done);
    p->saved_at = mb_clock();
    p->saved_have = p->have;
done:
    mb_json_free(doc);
    return st;
}

mb_status mb_part_save(mb_part *p)
{
    char owner[512];

    if (p->fd < 0 || p->saved_have == p->have)
        return MB_OK;
    mb_owner_here(owner, sizeof owner);
    return save_as(p, owner);
}

/* ---- adding -------------------------------------------------------------------------------- */

/* Bytes that are in the file already, or are being written: into the digests. At most to the end of a
 * range. */
static mb_status count(mb_part *p, const void *data, size_t n)
{
    MB_TRY(mb_digest_add(p->whole, data, n));
    MB_TRY(mb_digest_add(p->range, data, n));
    p->have += (int64_t)n;
    if (p->have % MB_PART_RANGE != 0)
        return MB_OK;
    MB_TRY(mb_grow((void **)&p->ranges, &p->capacity, (size_t)(p->have / MB_PART_RANGE),
                   sizeof *p->ranges, "the ranges of a file"));
    return mb_digest_end_hex(p->range, p->ranges[p->have / MB_PART_RANGE - 1].hex);
}

mb_status mb_part_add(mb_part *p, const void *data, size_t n)
{
    const char *from = data;

    MB_REQUIRE((int64_t)n <= p->size - p->have, MB_EBUG, "more bytes than the file has");
    while (n > 0) {
        const int64_t left = MB_PART_RANGE - p->have % MB_PART_RANGE;
        const size_t now = (int64_t)n < left ? n : (size_t)left;
        double age;

        MB_TRY(mb_pwrite_all(p->fd, from, now, p->have, p->path));
        MB_TRY(count(p, from, now));
        from += now;
        n -= now;
        age = mb_clock() - p->saved_at;
        if (age > save_seconds || (age > range_seconds && p->have % MB_PART_RANGE == 0))
            MB_TRY(mb_part_save(p));
    }
    return MB_OK;
}

static mb_status new_digests(mb_part *p)
{
    mb_digest_free(p->whole);
    mb_digest_free(p->range);
    p->whole = p->range = NULL;
    MB_TRY(strlen(p->digest) == 64 ? mb_digest_new(&p->whole)
                                   : mb_digest_new_git_blob(p->size, &p->whole));
    return mb_digest_new(&p->range);
}

mb_status mb_part_restart(mb_part *p)
{
    MB_TRY(check_ours(p));
    MB_TRY(new_digests(p));
    p->have = 0;
    p->saved_have = -1;
    MB_REQUIRE(ftruncate(p->fd, 0) == 0, MB_EIO, "%s cannot be emptied: %s", p->path,
               strerror(errno));
    return mb_part_save(p);
}

/* ---- opening ------------------------------------------------------------------------------- */

/* What the state vouches for. */
struct vouched {
    mb_json_doc *doc; /* NULL: for nothing */
    mb_json ranges;
    int64_t tail;
    const char *tail_hex, *owner;
    bool this_boot; /* what follows was written since the machine started */
};

static mb_status read_fields(const mb_part *p, struct vouched *v)
{
    const mb_json root = mb_json_root(v->doc);
    const char *digest, *boot;
    char now[64];
    mb_json tail;
    int64_t size, range;

    MB_TRY(mb_json_get_string(root, "digest", "", &digest));
    MB_TRY(mb_json_get_int(root, "size", -1, &size));
    MB_TRY(mb_json_get_int(root, "range", -1, &range));
    MB_TRY(mb_json_get_string(root, "boot", "", &boot));
    MB_TRY(mb_json_get_string(root, "owner", "", &v->owner));
    MB_TRY(mb_json_need(root, "ranges", MB_JSON_ARRAY, &v->ranges));
    MB_TRY(mb_json_need(root, "tail", MB_JSON_OBJECT, &tail));
    MB_TRY(mb_json_need_int(tail, "bytes", 0, MB_PART_RANGE - 1, &v->tail));
    MB_TRY(mb_json_get_string(tail, "sha256", "", &v->tail_hex));
    MB_REQUIRE(strcmp(digest, p->digest) == 0 && size == p->size && range == MB_PART_RANGE,
               MB_EDATA, "%s is of another file", p->state);
    mb_boot_id(now, sizeof now);
    v->this_boot = boot[0] != '\0' && strcmp(boot, now) == 0;
    return MB_OK;
}

/* A state that cannot be used is one that vouches for nothing. */
static void read_state(const mb_part *p, struct vouched *v)
{
    mb_status st;

    if (!mb_path_exists(p->state))
        return;
    st = mb_json_read(p->state, MB_EDATA, MOST_STATE, &v->doc);
    if (st == MB_OK)
        st = read_fields(p, v);
    if (st == MB_OK)
        return;
    mb_log_debug("%s", mb_status_sentence());
    mb_status_clear();
    mb_json_free(v->doc);
    *v = (struct vouched){0};
}

/* The next `n` bytes of the file, at most a range; counted if their digest is `hex` (NULL: they are
 * taken as they are). */
static mb_status take(mb_part *p, void *buffer, int64_t n, const char *hex, bool *right)
{
    const int64_t from = p->have;
    char found[MB_DIGEST_HEX];
    mb_digest *d = NULL;
    mb_status st = MB_OK;

    *right = true;
    if (hex != NULL) {
        MB_TRY(mb_digest_new(&d));
        MB_TRY_GOTO(mb_digest_add_file(d, p->fd, from, n, p->path), st, done);
        MB_TRY_GOTO(mb_digest_end_hex(d, found), st, done);
        *right = strcmp(found, hex) == 0;
    }
    for (int64_t at = 0; *right && at < n; at += BUFFER) {
        const size_t now = n - at < BUFFER ? (size_t)(n - at) : BUFFER;

        MB_TRY_GOTO(mb_pread_all(p->fd, buffer, now, from + at, p->path), st, done);
        MB_TRY_GOTO(count(p, buffer, now), st, done);
    }
done:
    mb_digest_free(d);
    return st;
}

static mb_status take_all(mb_part *p, const struct vouched *v, int64_t there, void *buffer)
{
    const size_t n = mb_json_count(v->ranges);
    bool right = true;
    const char *hex;

    for (size_t i = 0; right && i < n && there - p->have >= MB_PART_RANGE; i++) {
        MB_TRY(mb_json_string(mb_json_at(v->ranges, i), &hex, NULL));
        MB_TRY(take(p, buffer, MB_PART_RANGE, hex, &right));
    }
    if (right && (int64_t)n == p->have / MB_PART_RANGE && v->tail > 0 && there - p->have >= v->tail)
        MB_TRY(take(p, buffer, v->tail, v->tail_hex, &right));
    while (right && v->this_boot && there > p->have) {
        const int64_t left = MB_PART_RANGE - p->have % MB_PART_RANGE;

        MB_TRY(take(p, buffer, there - p->have < left ? there - p->have : left, NULL, &right));
    }
    return MB_OK;
}

/* What is in another's file, at most `size` bytes; where there is none, nothing. */
static mb_status copy_from(const char *path, int64_t size, int to)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    void *buffer = NULL;
    ssize_t got = 1;
    mb_status st = MB_OK;

    if (fd < 0)
        return MB_OK;
    MB_TRY_GOTO(mb_alloc(BUFFER, "a read buffer", &buffer), st, done);
    for (int64_t at = 0; at < size && got > 0; at += got) {
        got = pread(fd, buffer, size - at < BUFFER ? (size_t)(size - at) : BUFFER, (off_t)at);
        if (got > 0)
            MB_TRY_GOTO(mb_pwrite_all(to, buffer, (size_t)got, at, path), st, done);
    }
done:
    mb_free(buffer);
    close(fd);
    return st;
}

/* A file nobody else has open, in the place of one that somebody may. One name for what is being
 * copied, so that a copy that was killed is gone with the next. */
static mb_status open_anew(mb_part *p, int64_t keep)
{
    char aside[MB_PATH_MAX + 32];
    mb_status st;

    snprintf(aside, sizeof aside, "%s.new.part", p->path);
    unlink(aside);
    p->fd = open(aside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    MB_REQUIRE(p->fd >= 0, MB_EIO, "%s cannot be made: %s", aside, strerror(errno));
    st = copy_from(p->path, keep, p->fd);
    if (st == MB_OK && rename(aside, p->path) != 0)
        st = MB_RAISE(MB_EIO, "%s cannot be made: %s", p->path, strerror(errno));
    if (st != MB_OK)
        unlink(aside);
    return st;
}

static mb_status open_file(mb_part *p, const struct vouched *v)
{
    if (v->doc == NULL)
        return open_anew(p, 0);
    if (mb_owner_may_write(v->owner))
        return open_anew(p, p->size);
    p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    MB_REQUIRE(p->fd >= 0, MB_EIO, "%s cannot be made: %s", p->path, strerror(errno));
    return MB_OK;
}

static mb_status take_what_is_right(mb_part *p)
{
    struct vouched v = {.doc = NULL};
    struct stat s;
    void *buffer = NULL;
    mb_status st;

    read_state(p, &v);
    MB_TRY_GOTO(open_file(p, &v), st, done);
    if (fstat(p->fd, &s) != 0)
        MB_TRY_GOTO(MB_RAISE(MB_EIO, "%s: %s", p->path, strerror(errno)), st, done);
    MB_TRY_GOTO(mb_alloc(BUFFER, "a read buffer", &buffer), st, done);
    if (v.doc != NULL)
        MB_TRY_GOTO(take_all(p, &v, s.st_size < p->size ? s.st_size : p->size, buffer), st, done);
    if (s.st_size != p->have && ftruncate(p->fd, p->have) != 0)
        MB_TRY_GOTO(MB_RAISE(MB_EIO, "%s cannot be cut: %s", p->path, strerror(errno)), st, done);
    p->saved_have = -1; /* this boot vouches for it now */
    st = mb_part_save(p);
done:
    mb_free(buffer);
    mb_json_free(v.doc);
    return st;
}

static mb_status names(const char *base, char *part, char *state)
{
    MB_REQUIRE(snprintf(part, MB_PATH_MAX, "%s.mbuyu.part", base) < MB_PATH_MAX &&
                   snprintf(state, MB_PATH_MAX, "%s.mbuyu.json", base) < MB_PATH_MAX,
               MB_EARG, "the path '%.80s...' is too long", base);
    return MB_OK;
}

mb_status mb_part_open(const char *base, int64_t size, const char *digest, const char *url,
                       mb_part **out)
{
    mb_part *p = NULL;
    mb_status st;

    MB_TRY(MB_NEW(&p));
    p->fd = -1;
    p->size = size;
    snprintf(p->digest, sizeof p->digest, "%s", digest);
    MB_TRY_GOTO(mb_strdup(url, &p->url), st, fail);
    MB_TRY_GOTO(names(base, p->path, p->state), st, fail);
    MB_TRY_GOTO(new_digests(p), st, fail);
    MB_TRY_GOTO(take_what_is_right(p), st, fail);
    *out = p;
    return MB_OK;
fail:
    mb_part_close(p);
    return st;
}

int64_t mb_part_kept(const char *base, int64_t size)
{
    char path[MB_PATH_MAX], state[MB_PATH_MAX];
    struct stat s;

    if (names(base, path, state) != MB_OK || stat(path, &s) != 0 || !mb_path_exists(state)) {
        mb_status_clear();
        return 0;
    }
    return s.st_size < size ? s.st_size : size;
}

void mb_part_forget(const char *base)
{
    char path[MB_PATH_MAX], state[MB_PATH_MAX];

    if (names(base, path, state) != MB_OK) {
        mb_status_clear();
        return;
    }
    unlink(path);
    unlink(state);
}

int64_t mb_part_have(const mb_part *p)
{
    return p->have;
}

/* ---- the end ------------------------------------------------------------------------------- */

mb_status mb_part_check(mb_part *p, bool *right, char *found)
{
    MB_TRY(mb_digest_now_hex(p->whole, found));
    *right = strcmp(found, p->digest) == 0;
    return MB_OK;
}

mb_status mb_part_publish(mb_part *p, const char *path)
{
    char dir[MB_PATH_MAX];
    const int fd = p->fd;

    MB_REQUIRE(fsync(fd) == 0, MB_EIO, "%s cannot be written to disk: %s", p->path,
               strerror(errno));
    MB_TRY(check_ours(p));
    MB_REQUIRE(rename(p->path, path) == 0, MB_EIO, "%s cannot be renamed to %s: %s", p->path, path,
               strerror(errno));
    if (!is_ours(p, path)) { /* it became another's at this very moment: back with it */
        MB_REQUIRE(rename(path, p->path) == 0, MB_EIO, "%s cannot be renamed to %s: %s", path,
                   p->path, strerror(errno));
        return check_ours(p);
    }
    p->fd = -1;
    close(fd);
    unlink(p->state);
    MB_TRY(mb_path_dir(dir, sizeof dir, path));
    return mb_path_sync_dir(dir);
}

void mb_part_close(mb_part *p)
{
    if (p == NULL)
        return;
    if (p->fd >= 0) {
        const mb_status before = mb_status_recorded();

        if (save_as(p, "") != MB_OK && before == MB_OK)
            mb_status_clear();
        close(p->fd);
    }
    mb_digest_free(p->whole);
    mb_digest_free(p->range);
    mb_free(p->ranges);
    mb_free(p->url);
    mb_free(p);
}
