/* recipes/hub/shelf_cache.c - a repository in the cache of Python's hub client: refs/, blobs/,
 * snapshots/COMMIT/. Read as it is; what is there of a commit is what is served of it. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/hub/shelf_inside.h"

/* The tree of a snapshot whose files were looked at. */
static mb_status tree_of(const mb_seen *seen, const char *commit, int64_t date, mb_shelf_tree **out)
{
    mb_shelf_tree *t;
    mb_status st;

    MB_TRY(mb_shelf_tree_new(&t));
    MB_TRY_GOTO(mb_shelf_tree_words(t, "copied from another hub", "", ""), st, done);
    snprintf(t->commit, sizeof t->commit, "%s", commit);
    t->date = date;
    for (size_t i = 0; i < seen->n; i++) {
        mb_shelf_file f = seen->files[i].file;
        snprintf(f.last, sizeof f.last, "%s", commit);
        MB_TRY_GOTO(mb_shelf_tree_put(t, &f), st, done);
    }
    *out = t;
    t = NULL;
done:
    mb_shelf_tree_unref(t);
    return st;
}

/* Files that are no links were copied there; what they are is remembered by their whole path. */
static void remember(mb_repo *r, const mb_seen *now)
{
    for (size_t i = 0; i < now->n; i++)
        if (now->files[i].link[0] == '\0' && mb_seen_put(&r->seen, &now->files[i]) != MB_OK)
            mb_status_clear();
}

static mb_status snapshot(mb_shelf *s, mb_repo *r, const char *commit)
{
    char dir[MB_PATH_MAX];
    mb_seen now = {0};
    mb_shelf_tree *t = NULL, *old;
    struct stat at;
    int64_t skipped, fresh;
    bool busy;
    mb_status st;

    MB_REQUIRE((size_t)snprintf(dir, sizeof dir, "%s/snapshots/%s", r->folder, commit) < sizeof dir,
               MB_EIO, "%s: the path is too long", r->folder);
    MB_TRY(mb_seen_walk(dir, &now, &skipped));
    MB_TRY_GOTO(mb_seen_digest(dir, &r->seen, &now, false, &busy, &fresh), st, done);
    if (busy)
        goto done;
    remember(r, &now);
    MB_TRY_GOTO(tree_of(&now, commit, stat(dir, &at) == 0 ? at.st_mtime : 0, &t), st, done);
    pthread_mutex_lock(&s->lock);
    old = mb_repo_kept(r, commit);
    pthread_mutex_unlock(&s->lock);
    if (old == NULL || !mb_shelf_tree_same(old, t)) {
        st = mb_shelf_tree_card(s, r, t);
        pthread_mutex_lock(&s->lock);
        if (st == MB_OK)
            mb_repo_keep(r, t);
        pthread_mutex_unlock(&s->lock);
    }
    mb_shelf_tree_unref(old);
done:
    mb_shelf_tree_unref(t);
    mb_seen_release(&now);
    return st;
}

struct found {
    mb_shelf_ref *refs;
    size_t n;
};

static mb_status add_ref(struct found *f, const char *name, const char *commit)
{
    mb_shelf_ref *more;
    size_t n;

    if (!mb_shelf_is_ref(name) || !mb_shelf_is_hex(commit, 40) || f->n >= MB_SHELF_REFS_MAX)
        return MB_OK;
    MB_TRY(mb_refs_with(f->refs, f->n, name, false, commit, &more, &n));
    mb_shelf_refs_free(f->refs, f->n);
    *f = (struct found){more, n};
    return MB_OK;
}

/* refs/main, refs/refs/pr/1: a file holds the commit. */
static mb_status find_refs(const char *dir, const char *prefix, int depth, struct found *f)
{
    char path[MB_PATH_MAX], name[MB_PATH_MAX];
    char **names = NULL, *text = NULL;
    size_t n = 0, bytes;
    mb_status st = MB_OK;

    MB_TRY(mb_path_join(path, sizeof path, dir, prefix));
    if (!mb_path_is_dir(path) || depth > 8)
        return MB_OK;
    MB_TRY(mb_path_list(path, &names, &n));
    for (size_t i = 0; i < n && st == MB_OK; i++) {
        MB_TRY_GOTO(mb_path_join(name, sizeof name, prefix, names[i]), st, done);
        MB_TRY_GOTO(mb_path_join(path, sizeof path, dir, name), st, done);
        if (mb_path_is_dir(path)) {
            st = find_refs(dir, name, depth + 1, f);
        } else if (mb_file_read(path, 100, &text, &bytes) == MB_OK) {
            text[strcspn(text, " \r\n")] = '\0';
            st = add_ref(f, name, text);
            mb_free(text);
        } else {
            mb_status_clear();
        }
    }
done:
    mb_path_list_free(names, n);
    return st;
}

/* Fetched by commit alone there is no refs/main: the latest snapshot is it. */
static mb_status without_main(const char *snapshots, char **names, size_t n, struct found *f)
{
    char path[MB_PATH_MAX];
    const char *newest = NULL;
    struct stat s;
    time_t at = 0;

    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->refs[i].name, "main") == 0)
            return MB_OK;
    for (size_t i = 0; i < n; i++) {
        MB_TRY(mb_path_join(path, sizeof path, snapshots, names[i]));
        if (mb_shelf_is_hex(names[i], 40) && stat(path, &s) == 0 &&
            (newest == NULL || s.st_mtime > at)) {
            newest = names[i];
            at = s.st_mtime;
        }
    }
    return newest != NULL ? add_ref(f, "main", newest) : MB_OK;
}

static bool same_refs(const mb_repo *r, const struct found *f)
{
    if (r->n_refs != f->n)
        return false;
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(r->refs[i].name, f->refs[i].name) != 0 ||
            strcmp(r->refs[i].commit, f->refs[i].commit) != 0)
            return false;
    return true;
}

mb_status mb_shelf_look_cache(mb_shelf *s, mb_repo *r)
{
    char refs[MB_PATH_MAX], snapshots[MB_PATH_MAX];
    struct found f = {0};
    char **names = NULL;
    size_t n = 0, taken = 0;
    mb_status st;

    MB_TRY(mb_path_join(refs, sizeof refs, r->folder, "refs"));
    MB_TRY(mb_path_join(snapshots, sizeof snapshots, r->folder, "snapshots"));
    if (!mb_path_is_dir(snapshots))
        return MB_OK;
    MB_TRY_GOTO(mb_path_list(snapshots, &names, &n), st, done);
    for (size_t i = 0; i < n && taken < MB_SHELF_TREES; i++) {
        if (!mb_shelf_is_hex(names[i], 40))
            continue;
        MB_TRY_GOTO(snapshot(s, r, names[i]), st, done);
        taken++;
    }
    MB_TRY_GOTO(find_refs(refs, "", 0, &f), st, done);
    MB_TRY_GOTO(without_main(snapshots, names, n, &f), st, done);
    if (!same_refs(r, &f)) {
        mb_repo_set_refs(s, r, f.refs, f.n);
        f = (struct found){0};
    }
done:
    mb_shelf_refs_free(f.refs, f.n);
    mb_path_list_free(names, n);
    return st;
}
