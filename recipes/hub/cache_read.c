/* recipes/hub/cache_read.c - see recipes/hub/cache_read.h. */
#include "recipes/hub/cache_read.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "recipes/hub/cache_shared.h"

enum { MOST_DEPTH = 32, MOST_REF = 256 };

void mb_cached_release(mb_cached *c)
{
    for (size_t i = 0; i < c->n_files; i++)
        mb_free(c->file[i].path);
    for (size_t i = 0; i < c->n_blobs; i++)
        mb_free(c->blob[i].path);
    for (size_t i = 0; i < c->n_refs; i++)
        mb_free(c->ref[i].name);
    mb_free(c->file);
    mb_free(c->blob);
    mb_free(c->ref);
    mb_path_list_free(c->commit, c->n_commits);
    *c = (mb_cached){.folder = ""};
}

bool mb_cached_name(const char *folder, mb_hub_name *out)
{
    char path[MB_PATH_MAX];

    /* as if it were a path in a snapshot */
    snprintf(path, sizeof path, "%.255s/snapshots/%040d", folder, 0);
    if (!mb_hub_name_of_path(path, out))
        return false;
    out->revision[0] = '\0';
    return true;
}

/* What is called for each file below a folder: its path from there, and the path that opens it. */
typedef mb_status (*visit_fn)(mb_cached *c, int snapshot, const char *name, const char *path);

static mb_status walk(mb_cached *c, int snapshot, const char *root, const char *below, int depth,
                      visit_fn visit)
{
    char dir[MB_PATH_MAX], name[MB_PATH_MAX], path[MB_PATH_MAX], **list = NULL;
    size_t n = 0;
    struct stat s;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(dir, sizeof dir, root, below));
    if (!mb_path_is_dir(dir) || depth > MOST_DEPTH)
        return MB_OK;
    MB_TRY(mb_path_list(dir, &list, &n));
    for (size_t i = 0; i < n; i++) {
        MB_TRY_GOTO(mb_path_join(name, sizeof name, below, list[i]), st, done);
        MB_TRY_GOTO(mb_path_join(path, sizeof path, root, name), st, done);
        if (lstat(path, &s) == 0 && S_ISDIR(s.st_mode))
            st = walk(c, snapshot, root, name, depth + 1, visit);
        else
            st = visit(c, snapshot, name, path);
        if (st != MB_OK)
            break;
    }
done:
    mb_path_list_free(list, n);
    return st;
}

static mb_status add_ref(mb_cached *c, int snapshot, const char *name, const char *path)
{
    mb_cached_ref *r;
    char *text = NULL;
    size_t n;

    MB_TRY(mb_grow((void **)&c->ref, &c->ref_room, c->n_refs + 1, sizeof *c->ref, "branches"));
    MB_TRY(mb_file_read(path, MOST_REF, &text, &n));
    r = &c->ref[c->n_refs];
    snprintf(r->commit, sizeof r->commit, "%.40s", text);
    mb_free(text);
    MB_TRY(mb_strdup(name, &r->name));
    c->n_refs++;
    return MB_OK;
}

static mb_status add_file(mb_cached *c, int snapshot, const char *name, const char *path)
{
    char target[MB_PATH_MAX];
    const ssize_t got = readlink(path, target, sizeof target - 1);
    mb_cached_file f = {.snapshot = snapshot};
    struct stat s;

    f.size = stat(path, &s) == 0 ? (int64_t)s.st_size : -1; /* a link to nothing */
    if (got > 0) {
        target[got] = '\0';
        snprintf(f.blob, sizeof f.blob, "%.71s", mb_path_base(target));
    } else if (f.size > 0 && s.st_nlink == 1) {
        c->bytes += f.size;
    }
    MB_TRY(mb_grow((void **)&c->file, &c->file_room, c->n_files + 1, sizeof f, "files"));
    MB_TRY(mb_strdup(name, &f.path));
    c->file[c->n_files++] = f;
    return MB_OK;
}

static mb_status add_blob(mb_cached *c, int snapshot, const char *name, const char *path)
{
    mb_cached_file f = {.snapshot = -1};
    struct stat s;

    if (lstat(path, &s) != 0)
        return MB_OK;
    if (S_ISLNK(s.st_mode) && mb_shared_hash(c->cache, mb_path_base(c->folder), name, f.shared)) {
        f.shared_needed = mb_shared_is_needed(c->cache, f.shared, mb_path_base(c->folder), name);
        if (stat(path, &s) != 0)
            s.st_size = 0;
    }
    f.size = s.st_size;
    c->bytes += f.size;
    if (mb_path_has_suffix(name, ".part") || mb_path_has_suffix(name, ".incomplete"))
        c->partial += f.size;
    MB_TRY(mb_grow((void **)&c->blob, &c->blob_room, c->n_blobs + 1, sizeof f, "blobs"));
    MB_TRY(mb_strdup(name, &f.path));
    c->blob[c->n_blobs++] = f;
    return MB_OK;
}

mb_status mb_cached_read(const mb_hub_name *name, mb_cached *c)
{
    char dir[MB_PATH_MAX], one[MB_PATH_MAX];

    *c = (mb_cached){.folder = ""};
    MB_TRY(mb_hub_folder(name, c->folder, sizeof c->folder));
    MB_TRY(mb_path_dir(c->cache, sizeof c->cache, c->folder));
    MB_REQUIRE(mb_path_is_dir(c->folder), MB_EARG, "nothing of %s%s is in the cache (%s)",
               name->is_dataset ? "dataset:" : "", name->id, c->folder);
    MB_TRY(mb_path_join(dir, sizeof dir, c->folder, "refs"));
    MB_TRY(walk(c, -1, dir, "", 0, add_ref));
    MB_TRY(mb_path_join(dir, sizeof dir, c->folder, "blobs"));
    MB_TRY(walk(c, -1, dir, "", 0, add_blob));
    MB_TRY(mb_path_join(dir, sizeof dir, c->folder, "snapshots"));
    if (!mb_path_is_dir(dir))
        return MB_OK;
    MB_TRY(mb_path_list(dir, &c->commit, &c->n_commits));
    for (size_t i = 0; i < c->n_commits; i++) {
        MB_TRY(mb_path_join(one, sizeof one, dir, c->commit[i]));
        MB_TRY(walk(c, (int)i, one, "", 0, add_file));
    }
    return MB_OK;
}
