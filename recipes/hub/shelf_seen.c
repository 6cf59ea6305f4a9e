/* recipes/hub/shelf_seen.c - what a folder holds: names, sizes, times; and digests, read once. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/hub/shelf_inside.h"

enum { BUFFER = 1 << 20, DEEPEST = 32, START = 8192, SETTLED = 2 };

void mb_seen_release(mb_seen *s)
{
    for (size_t i = 0; i < s->n; i++)
        mb_free(s->files[i].file.path);
    mb_free(s->files);
    *s = (mb_seen){0};
}

static size_t from(const mb_seen *s, const char *path)
{
    size_t lo = 0, hi = s->n;

    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (strcmp(s->files[mid].file.path, path) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const mb_seen_file *mb_seen_find(const mb_seen *s, const char *path)
{
    const size_t i = from(s, path);

    return i < s->n && strcmp(s->files[i].file.path, path) == 0 ? &s->files[i] : NULL;
}

mb_status mb_seen_put(mb_seen *s, const mb_seen_file *f)
{
    const size_t i = from(s, f->file.path);
    mb_seen_file copy = *f;

    if (i < s->n && strcmp(s->files[i].file.path, f->file.path) == 0) {
        copy.file.path = s->files[i].file.path;
        s->files[i] = copy;
        return MB_OK;
    }
    MB_TRY(
        mb_grow((void **)&s->files, &s->capacity, s->n + 1, sizeof *s->files, "files of a folder"));
    MB_TRY(mb_strdup(f->file.path, &copy.file.path));
    memmove(s->files + i + 1, s->files + i, (s->n - i) * sizeof *s->files);
    s->files[i] = copy;
    s->n++;
    return MB_OK;
}

void mb_seen_remove(mb_seen *s, const char *path)
{
    const size_t i = from(s, path);

    if (i == s->n || strcmp(s->files[i].file.path, path) != 0)
        return;
    mb_free(s->files[i].file.path);
    memmove(s->files + i, s->files + i + 1, (s->n - 1 - i) * sizeof *s->files);
    s->n--;
}

static void note(mb_seen_file *f, const struct stat *s)
{
    f->file.size = s->st_size;
    f->mtime = mb_stat_changed(s);
    f->inode = (int64_t)s->st_ino;
}

/* What belongs to other programs' work in the folder, not to the repository. */
static bool is_left_out(const char *name, bool folder)
{
    static const char *const folders[] = {".git", ".cache", ".mbuyu-hub", "__pycache__"};
    static const char *const ends[] = {".tmp", ".part", ".incomplete", ".lock"};

    for (size_t i = 0; folder && i < sizeof folders / sizeof *folders; i++)
        if (strcmp(name, folders[i]) == 0)
            return true;
    for (size_t i = 0; !folder && i < sizeof ends / sizeof *ends; i++)
        if (mb_path_has_suffix(name, ends[i]))
            return true;
    return false;
}

bool mb_seen_is_left_out(const char *path)
{
    char part[MB_SHELF_FILE_MAX + 1];

    for (const char *slash; (slash = strchr(path, '/')) != NULL; path = slash + 1) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (is_left_out(part, true))
            return true;
    }
    return is_left_out(path, false);
}

/* ../../blobs/NAME, as the cache links: NAME, or "". */
static void blob_of(const char *path, char name[MB_DIGEST_HEX])
{
    char to[1024];
    const ssize_t n = readlink(path, to, sizeof to - 1);

    name[0] = '\0';
    if (n <= 0)
        return;
    to[n] = '\0';
    const char *base = mb_path_base(to);
    if (strstr(to, "/blobs/") != NULL && (mb_shelf_is_hex(base, 64) || mb_shelf_is_hex(base, 40)))
        snprintf(name, MB_DIGEST_HEX, "%s", base);
}

static mb_status walk(const char *dir, const char *prefix, int depth, mb_seen *out,
                      int64_t *skipped)
{
    char path[MB_PATH_MAX], inside[MB_PATH_MAX];
    char **names = NULL;
    size_t n = 0;
    struct stat s;
    mb_status st;

    MB_TRY(mb_path_join(path, sizeof path, dir, prefix));
    if (!mb_path_is_dir(path))
        return MB_OK;
    MB_TRY(mb_path_list(path, &names, &n));
    st = MB_OK;
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        mb_seen_file f = {0};
        MB_TRY_GOTO(mb_path_join(inside, sizeof inside, prefix, names[i]), st, done);
        MB_TRY_GOTO(mb_path_join(path, sizeof path, dir, inside), st, done);
        if (stat(path, &s) != 0)
            continue; /* a dangling link, or just removed */
        if (is_left_out(names[i], S_ISDIR(s.st_mode)))
            continue;
        if (!mb_shelf_is_path(inside) || depth == DEEPEST || out->n >= MB_SHELF_FILES_MAX) {
            (*skipped)++;
            continue;
        }
        if (S_ISDIR(s.st_mode)) {
            st = walk(dir, inside, depth + 1, out, skipped);
        } else if (S_ISREG(s.st_mode)) {
            f.file.path = inside;
            note(&f, &s);
            blob_of(path, f.link);
            st = mb_seen_put(out, &f);
        }
    }
done:
    mb_path_list_free(names, n);
    return st;
}

mb_status mb_seen_walk(const char *dir, mb_seen *out, int64_t *skipped)
{
    *skipped = 0;
    const mb_status st = walk(dir, "", 0, out, skipped);
    if (st != MB_OK)
        mb_seen_release(out);
    return st;
}

/* SHA-256 of all, and git's name: of the file when it is small text, of its pointer else. */
static mb_status digest(int fd, const char *path, char *buffer, mb_shelf_file *f)
{
    mb_digest *whole = NULL, *blob = NULL;
    char hex[MB_DIGEST_HEX];
    int64_t pointer;
    mb_status st = MB_OK;

    MB_TRY_GOTO(mb_digest_new(&whole), st, done);
    MB_TRY_GOTO(mb_digest_new_git_blob(f->size, &blob), st, done);
    f->lfs = false;
    for (int64_t at = 0; at < f->size; at += BUFFER) {
        const size_t n = f->size - at < BUFFER ? (size_t)(f->size - at) : BUFFER;
        MB_TRY_GOTO(mb_pread_all(fd, buffer, n, at, path), st, done);
        if (at == 0)
            f->lfs = mb_shelf_is_lfs(f->size, buffer, n < START ? n : START);
        MB_TRY_GOTO(mb_digest_add(whole, buffer, n), st, done);
        if (!f->lfs)
            MB_TRY_GOTO(mb_digest_add(blob, buffer, n), st, done);
    }
    MB_TRY_GOTO(mb_digest_end_hex(whole, f->sha256), st, done);
    if (f->lfs) {
        MB_TRY_GOTO(mb_shelf_pointer(f->sha256, f->size, f->oid, &pointer), st, done);
    } else {
        MB_TRY_GOTO(mb_digest_end_hex(blob, hex), st, done);
        snprintf(f->oid, sizeof f->oid, "%.40s", hex);
    }
done:
    mb_digest_free(whole);
    mb_digest_free(blob);
    return st;
}

/* True when what was read is what is there. */
static mb_status read_one(const char *dir, mb_seen_file *f, char *buffer, bool *steady)
{
    char path[MB_PATH_MAX];
    mb_seen_file after = *f;
    struct stat s;
    int64_t size;
    int fd;

    MB_TRY(mb_path_join(path, sizeof path, dir, f->file.path));
    MB_TRY(mb_file_open(path, MB_EIO, &fd, &size));
    mb_status st = size == f->file.size ? digest(fd, path, buffer, &f->file) : MB_OK;
    *steady = size == f->file.size && fstat(fd, &s) == 0;
    close(fd);
    if (st == MB_OK && *steady) {
        note(&after, &s);
        *steady =
            after.file.size == f->file.size && after.mtime == f->mtime && after.inode == f->inode;
    }
    return st;
}

/* A blob of the cache says by its name what it is. */
static mb_status by_name(mb_seen_file *f)
{
    int64_t pointer;

    f->file.lfs = strlen(f->link) == 64;
    if (!f->file.lfs) {
        snprintf(f->file.oid, sizeof f->file.oid, "%.40s", f->link);
        return MB_OK;
    }
    snprintf(f->file.sha256, sizeof f->file.sha256, "%s", f->link);
    return mb_shelf_pointer(f->link, f->file.size, f->file.oid, &pointer);
}

static bool is_settled(const mb_seen_file *f)
{
    return f->mtime / 1000000000 + SETTLED <= (int64_t)time(NULL);
}

mb_status mb_seen_digest(const char *dir, const mb_seen *before, mb_seen *now, bool patient,
                         bool *busy, int64_t *fresh)
{
    char *buffer = NULL;
    mb_status st = MB_OK;

    *busy = false;
    *fresh = 0;
    for (size_t i = 0; i < now->n && st == MB_OK && !*busy; i++) {
        mb_seen_file *f = &now->files[i];
        const mb_seen_file *old = mb_seen_find(before, f->file.path);
        bool steady = true;
        if (f->link[0] != '\0') {
            st = by_name(f);
        } else if (old != NULL && old->file.size == f->file.size && old->mtime == f->mtime &&
                   old->inode == f->inode) {
            char *path = f->file.path;
            f->file = old->file;
            f->file.path = path;
        } else if (patient && !is_settled(f)) {
            *busy = true;
        } else {
            if (buffer == NULL)
                MB_TRY_GOTO(mb_alloc(BUFFER, "a read buffer", (void **)&buffer), st, done);
            st = read_one(dir, f, buffer, &steady);
            *busy = st == MB_OK && !steady;
            (*fresh)++;
        }
    }
done:
    mb_free(buffer);
    return st;
}

mb_status mb_seen_one(const char *dir, const char *path, mb_seen_file *f)
{
    char whole[MB_PATH_MAX];
    struct stat s;

    MB_TRY(mb_path_join(whole, sizeof whole, dir, path));
    MB_REQUIRE(stat(whole, &s) == 0, MB_EIO, "%s: %s", whole, strerror(errno));
    note(f, &s);
    return MB_OK;
}

static mb_status set_file(mb_json list, const mb_seen_file *f)
{
    mb_json o;

    MB_TRY(mb_json_set_object(list, NULL, &o));
    MB_TRY(mb_json_set_string(o, "path", f->file.path));
    MB_TRY(mb_json_set_int(o, "size", f->file.size));
    MB_TRY(mb_json_set_int(o, "mtime", f->mtime));
    MB_TRY(mb_json_set_int(o, "inode", f->inode));
    MB_TRY(mb_json_set_string(o, "oid", f->file.oid));
    MB_TRY(mb_json_set_string(o, "sha256", f->file.sha256));
    return mb_json_set_bool(o, "lfs", f->file.lfs);
}

mb_status mb_seen_save(const mb_seen *s, const char *path)
{
    mb_json_doc *doc = NULL;
    mb_json list;
    mb_status st;

    MB_TRY_GOTO(mb_json_doc_new("files of a folder", &doc), st, done);
    MB_TRY_GOTO(mb_json_set_array(mb_json_root(doc), "files", &list), st, done);
    for (size_t i = 0; i < s->n; i++)
        MB_TRY_GOTO(set_file(list, &s->files[i]), st, done);
    st = mb_json_write(mb_json_root(doc), 0, path);
done:
    mb_json_free(doc);
    return st;
}

static mb_status get_file(mb_json o, mb_seen *out)
{
    mb_seen_file f = {0};
    const char *path, *oid, *sha256;

    MB_TRY(mb_json_get_string(o, "path", "", &path));
    MB_TRY(mb_json_get_string(o, "oid", "", &oid));
    MB_TRY(mb_json_get_string(o, "sha256", "", &sha256));
    MB_TRY(mb_json_need_int(o, "size", 0, INT64_MAX, &f.file.size));
    MB_TRY(mb_json_need_int(o, "mtime", INT64_MIN / 2, INT64_MAX, &f.mtime));
    MB_TRY(mb_json_need_int(o, "inode", INT64_MIN / 2, INT64_MAX, &f.inode));
    MB_TRY(mb_json_get_bool(o, "lfs", false, &f.file.lfs));
    if (!mb_shelf_is_path(path) || !mb_shelf_is_hex(oid, 40) || !mb_shelf_is_hex(sha256, 64))
        return mb_json_fault(o, "is no file of a folder");
    snprintf(f.file.oid, sizeof f.file.oid, "%s", oid);
    snprintf(f.file.sha256, sizeof f.file.sha256, "%s", sha256);
    MB_TRY(mb_strdup(path, &f.file.path));
    const mb_status st = mb_seen_put(out, &f);
    mb_free(f.file.path);
    return st;
}

mb_status mb_seen_load(const char *path, mb_seen *out)
{
    mb_json_doc *doc = NULL;
    mb_status st;

    if (!mb_path_is_file(path))
        return MB_OK;
    st = mb_json_read(path, MB_EDATA, 64 << 20, &doc);
    if (st == MB_OK)
        for (mb_json_it it = mb_json_first(mb_json_get(mb_json_root(doc), "files"));
             st == MB_OK && mb_json_more(&it); mb_json_next(&it))
            st = get_file(it.value, out);
    mb_json_free(doc);
    if (st == MB_EDATA) { /* only time is lost: everything is read again */
        mb_status_clear();
        mb_seen_release(out);
        st = MB_OK;
    }
    return st;
}
