/* recipes/hub/pull_place.c - where files of a pull go: the shared cache, or a folder; see
 * recipes/hub/pull_inside.h.
 *
 *     cache    blobs/DIGEST, and snapshots/COMMIT/NAME -> ../../blobs/DIGEST
 *     folder   NAME, and .cache/huggingface/download/NAME.metadata (commit, digest, time), which
 *              Python's huggingface_hub reads and writes too
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/digest.h"
#include "recipes/hub/pull_inside.h"

enum { BUFFER = 1 << 20, MOST_NOTE = 4096 };

mb_status mb_place_open(const mb_pull_options *o, const char *commit, mb_place *p)
{
    char dir[MB_PATH_MAX];

    p->is_cache = o->to == NULL;
    if (!p->is_cache) {
        MB_TRY(mb_path_join(p->root, sizeof p->root, "", o->to));
        MB_TRY(mb_path_join(p->snapshot, sizeof p->snapshot, "", o->to));
        return mb_path_join(p->parts, sizeof p->parts, p->root, ".cache/mbuyu");
    }
    MB_TRY(mb_hub_folder(&o->name, p->root, sizeof p->root));
    MB_TRY(mb_path_join(p->parts, sizeof p->parts, p->root, "blobs"));
    MB_TRY(mb_path_join(dir, sizeof dir, p->root, "snapshots"));
    return mb_path_join(p->snapshot, sizeof p->snapshot, dir, commit);
}

mb_status mb_place_make(const mb_place *p)
{
    MB_TRY(mb_path_mkdirs(p->parts));
    return mb_path_mkdirs(p->snapshot);
}

mb_status mb_place_part(const mb_place *p, const mb_hub_file *f, char *path)
{
    return mb_path_join(path, MB_PATH_MAX, p->parts, f->digest);
}

static mb_status make_dir_of(const char *path)
{
    char dir[MB_PATH_MAX];

    MB_TRY(mb_path_dir(dir, sizeof dir, path));
    return mb_path_mkdirs(dir);
}

mb_status mb_place_whole(const mb_place *p, const mb_hub_file *f, char *path)
{
    if (p->is_cache)
        return mb_path_join(path, MB_PATH_MAX, p->parts, f->digest);
    MB_TRY(mb_path_join(path, MB_PATH_MAX, p->snapshot, f->path));
    return make_dir_of(path);
}

/* ---- what is here -------------------------------------------------------------------------- */

static mb_status has_digest(const char *path, const mb_hub_file *f, bool *has)
{
    char found[MB_DIGEST_HEX];
    mb_digest *d = NULL;
    int64_t size;
    int fd;
    mb_status st;

    MB_TRY(mb_file_open(path, MB_EIO, &fd, &size));
    MB_TRY_GOTO(strlen(f->digest) == 64 ? mb_digest_new(&d) : mb_digest_new_git_blob(size, &d), st,
                done);
    MB_TRY_GOTO(mb_digest_add_file(d, fd, 0, size, path), st, done);
    MB_TRY_GOTO(mb_digest_end_hex(d, found), st, done);
    *has = strcmp(found, f->digest) == 0;
done:
    mb_digest_free(d);
    close(fd);
    return st;
}

static mb_status note_path(const mb_place *p, const mb_hub_file *f, char *path)
{
    char dir[MB_PATH_MAX], name[1100];

    MB_TRY(mb_path_join(dir, sizeof dir, p->root, ".cache/huggingface/download"));
    snprintf(name, sizeof name, "%s.metadata", f->path);
    return mb_path_join(path, MB_PATH_MAX, dir, name);
}

/* Does the note say that the file, unchanged since, has this digest? */
static bool is_noted(const mb_place *p, const mb_hub_file *f, const struct stat *s)
{
    char path[MB_PATH_MAX], *text = NULL, digest[80] = "";
    double when = 0.0;
    size_t n;

    if (note_path(p, f, path) != MB_OK || !mb_path_is_file(path) ||
        mb_file_read(path, MOST_NOTE, &text, &n) != MB_OK) {
        mb_status_clear();
        return false;
    }
    if (sscanf(text, "%*40s %79s %lf", digest, &when) != 2)
        digest[0] = '\0';
    mb_free(text);
    return strcmp(digest, f->digest) == 0 && (double)s->st_mtim.tv_sec <= when + 1.0;
}

mb_status mb_place_has(const mb_place *p, const mb_hub_file *f, const char *commit, bool check,
                       bool *has)
{
    char path[MB_PATH_MAX];
    struct stat s;

    *has = false;
    MB_TRY(p->is_cache ? mb_path_join(path, sizeof path, p->parts, f->digest)
                       : mb_path_join(path, sizeof path, p->snapshot, f->path));
    if (stat(path, &s) != 0 || !S_ISREG(s.st_mode) || s.st_size != f->size)
        return MB_OK;
    *has = true;
    if (check || (!p->is_cache && !is_noted(p, f, &s)))
        MB_TRY(has_digest(path, f, has));
    return MB_OK;
}

/* ---- names --------------------------------------------------------------------------------- */

static mb_status copy_file(const char *from, const char *to)
{
    mb_newfile f = {.fd = -1};
    void *buffer = NULL;
    int64_t size;
    int fd;
    mb_status st;

    MB_TRY(mb_file_open(from, MB_EIO, &fd, &size));
    MB_TRY_GOTO(mb_newfile_open(to, &f), st, done);
    MB_TRY_GOTO(mb_alloc(BUFFER, "a read buffer", &buffer), st, done);
    for (int64_t at = 0; at < size; at += BUFFER) {
        const size_t n = size - at < BUFFER ? (size_t)(size - at) : BUFFER;

        MB_TRY_GOTO(mb_pread_all(fd, buffer, n, at, from), st, done);
        MB_TRY_GOTO(mb_pwrite_all(f.fd, buffer, n, at, to), st, done);
    }
    MB_TRY_GOTO(mb_newfile_sync(&f), st, done);
    MB_TRY_GOTO(mb_newfile_publish(&f), st, done);
done:
    mb_newfile_abandon(&f);
    mb_free(buffer);
    close(fd);
    return st;
}

static bool wants_links(void)
{
    const char *no = getenv("HF_HUB_DISABLE_SYMLINKS");

    return no == NULL || no[0] == '\0' || strcmp(no, "0") == 0 || strcasecmp(no, "false") == 0;
}

/* snapshots/COMMIT/a/b -> ../../../blobs/DIGEST; where there are no links a second name, or a copy. */
static mb_status link_blob(const mb_place *p, const mb_hub_file *f, const char *path)
{
    char target[MB_PATH_MAX], there[MB_PATH_MAX], aside[MB_PATH_MAX + 32];
    size_t n = 0;
    ssize_t got;

    for (const char *c = f->path; c != NULL; c = strchr(c + 1, '/'))
        n += (size_t)snprintf(target + n, sizeof target - n, "../");
    snprintf(target + n, sizeof target - n, "../blobs/%s", f->digest);
    got = readlink(path, there, sizeof there - 1);
    if (got > 0) {
        there[got] = '\0';
        if (strcmp(there, target) == 0)
            return MB_OK;
    }
    snprintf(aside, sizeof aside, "%s.%ld", path, (long)getpid());
    unlink(aside);
    if (wants_links() && symlink(target, aside) == 0) {
        MB_REQUIRE(rename(aside, path) == 0, MB_EIO, "%s cannot be made: %s", path,
                   strerror(errno));
        return MB_OK;
    }
    MB_TRY(mb_path_join(there, sizeof there, p->parts, f->digest));
    if (link(there, aside) == 0 && rename(aside, path) == 0)
        return MB_OK;
    unlink(aside);
    return copy_file(there, path);
}

static mb_status note(const mb_place *p, const mb_hub_file *f, const char *commit)
{
    char path[MB_PATH_MAX], text[256];
    struct timespec now;

    MB_TRY(note_path(p, f, path));
    MB_TRY(make_dir_of(path));
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(text, sizeof text, "%s\n%s\n%lld.%06ld\n", commit, f->digest, (long long)now.tv_sec,
             now.tv_nsec / 1000);
    return mb_file_write_atomic(path, text, strlen(text));
}

mb_status mb_place_name(const mb_place *p, const mb_hub_file *f, const char *commit)
{
    char path[MB_PATH_MAX];

    if (!p->is_cache)
        return note(p, f, commit);
    MB_TRY(mb_path_join(path, sizeof path, p->snapshot, f->path));
    MB_TRY(make_dir_of(path));
    return link_blob(p, f, path);
}

mb_status mb_place_again(const mb_place *p, const mb_hub_file *from, const mb_hub_file *f,
                         const char *commit)
{
    char a[MB_PATH_MAX], b[MB_PATH_MAX];

    if (!p->is_cache) {
        MB_TRY(mb_place_whole(p, from, a));
        MB_TRY(mb_place_whole(p, f, b));
        MB_TRY(copy_file(a, b));
    }
    return mb_place_name(p, f, commit);
}

mb_status mb_place_ref(const mb_place *p, const mb_hub_name *name, const char *commit)
{
    const char *revision = name->revision[0] != '\0' ? name->revision : "main";
    char refs[MB_PATH_MAX], path[MB_PATH_MAX];

    if (!p->is_cache || mb_hub_commit_is(revision))
        return MB_OK;
    MB_TRY(mb_path_join(refs, sizeof refs, p->root, "refs"));
    MB_TRY(mb_path_join(path, sizeof path, refs, revision));
    MB_TRY(make_dir_of(path));
    return mb_file_write_atomic(path, commit, strlen(commit));
}
