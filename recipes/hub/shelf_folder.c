/* recipes/hub/shelf_folder.c - a plain folder: what changed in it since the last look becomes a commit.
 *
 * Only the difference to the last look is applied to main, so that a folder that lags behind a push
 * takes nothing back. Looking twice at the same change gives the same tree and no second commit, which
 * makes it safe to die anywhere in here.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/shelf_inside.h"

enum { WORTH_SAYING = 256 << 20 };

mb_status mb_shelf_publish(mb_shelf *s, mb_repo *r, const char *branch, mb_shelf_tree *t,
                           const mb_shelf_tree *parent)
{
    char dir[MB_PATH_MAX];
    mb_shelf_ref *refs = NULL;
    size_t n = 0;

    for (size_t i = 0; i < t->n; i++) {
        const mb_shelf_file *old =
            parent != NULL ? mb_shelf_tree_find(parent, t->files[i].path) : NULL;
        const bool same = old != NULL && mb_shelf_file_same(old, &t->files[i]);
        snprintf(t->files[i].last, MB_SHELF_OID, "%s", same ? old->last : "");
    }
    snprintf(t->parent, sizeof t->parent, "%s", parent != NULL ? parent->commit : "");
    if (r->created == 0)
        r->created = t->date;
    MB_TRY(mb_repo_save(r, r->refs, r->n_refs, r->hidden)); /* makes the folders */
    MB_TRY(mb_path_join(dir, sizeof dir, r->records, "commits"));
    MB_TRY(mb_shelf_tree_save(t, dir));
    MB_TRY(mb_shelf_tree_card(s, r, t));
    MB_TRY(mb_refs_with(r->refs, r->n_refs, branch, false, t->commit, &refs, &n));
    const mb_status st = mb_repo_save(r, refs, n, r->hidden);
    if (st != MB_OK) {
        mb_shelf_refs_free(refs, n);
        return st;
    }
    pthread_mutex_lock(&s->lock);
    mb_repo_keep(r, t);
    pthread_mutex_unlock(&s->lock);
    mb_repo_set_refs(s, r, refs, n);
    return MB_OK;
}

struct difference {
    int64_t added, changed, removed, newest;
};

/* Applies what is new in `now` against what was seen. */
static mb_status apply(const mb_repo *r, const mb_seen *now, mb_shelf_tree *t, struct difference *d)
{
    for (size_t i = 0; i < r->seen.n; i++) {
        const char *path = r->seen.files[i].file.path;
        if (mb_seen_find(now, path) == NULL && !mb_seen_is_left_out(path))
            d->removed += mb_shelf_tree_remove(t, path, false);
    }
    for (size_t i = 0; i < now->n; i++) {
        const mb_seen_file *f = &now->files[i];
        const mb_seen_file *old = mb_seen_find(&r->seen, f->file.path);
        if (old != NULL && mb_shelf_file_same(&old->file, &f->file))
            continue;
        const mb_shelf_file *has = mb_shelf_tree_find(t, f->file.path);
        if (has != NULL && mb_shelf_file_same(has, &f->file))
            continue;
        mb_shelf_tree_remove(t, f->file.path, true); /* a folder that became a file */
        *(has != NULL ? &d->changed : &d->added) += 1;
        if (f->mtime / 1000000000 > d->newest)
            d->newest = f->mtime / 1000000000;
        MB_TRY(mb_shelf_tree_put(t, &f->file));
    }
    return MB_OK;
}

static mb_status title_of(const struct difference *d, bool first, char *out, size_t size)
{
    if (first)
        snprintf(out, size, "%lld files in the folder", (long long)d->added);
    else
        snprintf(out, size, "in the folder: %lld added, %lld changed, %lld removed",
                 (long long)d->added, (long long)d->changed, (long long)d->removed);
    return MB_OK;
}

static mb_status main_of(mb_shelf *s, mb_repo *r, mb_shelf_tree **out)
{
    mb_shelf_miss miss;

    *out = NULL;
    if (mb_repo_ref(r, "main") == NULL)
        return MB_OK;
    return mb_shelf_tree_get(s, r->kind, r->id, "main", out, &miss);
}

static void replace_seen(mb_shelf *s, mb_repo *r, mb_seen *now)
{
    pthread_mutex_lock(&s->lock);
    mb_seen old = r->seen;
    r->seen = *now;
    pthread_mutex_unlock(&s->lock);
    mb_seen_release(&old);
    *now = (mb_seen){0};
}

/* With `writing` held and `now` complete. */
static mb_status take(mb_shelf *s, mb_repo *r, mb_seen *now)
{
    char title[100], path[MB_PATH_MAX];
    mb_shelf_tree *parent = NULL, *t = NULL;
    struct difference d = {0};
    mb_seen before;
    mb_status st = MB_OK;

    MB_TRY(main_of(s, r, &parent));
    st = parent != NULL ? mb_shelf_tree_copy(parent, &t) : mb_shelf_tree_new(&t);
    MB_TRY_GOTO(st, st, done);
    MB_TRY_GOTO(apply(r, now, t, &d), st, done);
    if (d.added + d.changed + d.removed > 0) {
        /* its README is read from the folder as it is now */
        pthread_mutex_lock(&s->lock);
        before = r->seen;
        r->seen = *now;
        pthread_mutex_unlock(&s->lock);
        t->date = parent == NULL ? d.newest : (int64_t)time(NULL);
        st = title_of(&d, parent == NULL, title, sizeof title);
        if (st == MB_OK)
            st = mb_shelf_tree_words(t, title, "", "");
        if (st == MB_OK)
            st = mb_shelf_publish(s, r, "main", t, parent);
        pthread_mutex_lock(&s->lock);
        r->seen = before;
        pthread_mutex_unlock(&s->lock);
        MB_TRY_GOTO(st, st, done);
    }
    MB_TRY_GOTO(mb_path_mkdirs(r->records), st, done);
    MB_TRY_GOTO(mb_path_join(path, sizeof path, r->records, "seen.json"), st, done);
    MB_TRY_GOTO(mb_seen_save(now, path), st, done);
    replace_seen(s, r, now);
done:
    mb_shelf_tree_unref(parent);
    mb_shelf_tree_unref(t);
    return st;
}

static bool same_seen(const mb_seen *a, const mb_seen *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const mb_seen_file *x = &a->files[i], *y = &b->files[i];
        if (x->file.size != y->file.size || x->mtime != y->mtime || x->inode != y->inode ||
            strcmp(x->file.path, y->file.path) != 0)
            return false;
    }
    return true;
}

/* A copy, so that reading may take its time without a lock. */
static mb_status copy_seen(mb_shelf *s, mb_repo *r, mb_seen *out, uint64_t *changes)
{
    mb_status st = MB_OK;

    pthread_mutex_lock(&s->lock);
    *changes = r->changes;
    for (size_t i = 0; st == MB_OK && i < r->seen.n; i++)
        st = mb_seen_put(out, &r->seen.files[i]);
    pthread_mutex_unlock(&s->lock);
    return st;
}

/* Reading much takes its time, and once only. */
static void announce(const mb_repo *r, const mb_seen *before, const mb_seen *now)
{
    int64_t bytes = 0;

    for (size_t i = 0; i < now->n; i++) {
        const mb_seen_file *f = &now->files[i];
        const mb_seen_file *old = mb_seen_find(before, f->file.path);
        if (old == NULL || old->file.size != f->file.size || old->mtime != f->mtime ||
            old->inode != f->inode)
            bytes += f->file.size;
    }
    if (bytes >= WORTH_SAYING)
        mb_log_info("%s: reading %lld MB once, for their digests", r->id,
                    (long long)(bytes / 1000000));
}

mb_status mb_shelf_look_folder(mb_shelf *s, mb_repo *r, bool patient)
{
    mb_seen before = {0}, now = {0};
    int64_t skipped, fresh = 0;
    uint64_t changes;
    bool busy = false;
    mb_status st;

    MB_TRY_GOTO(copy_seen(s, r, &before, &changes), st, done);
    MB_TRY_GOTO(mb_seen_walk(r->folder, &now, &skipped), st, done);
    for (size_t i = 0; i < now.n; i++)
        if (!mb_shelf_is_hex(now.files[i].link, 64))
            now.files[i].link[0] =
                '\0'; /* git's name alone does not say where content is: it is read */
    if (same_seen(&before, &now))
        goto done;
    /* files of one that was here a moment ago: an unplugged stick is no wish to remove them */
    if (now.n == 0 && !mb_path_is_dir(r->folder))
        goto done;
    announce(r, &before, &now);
    MB_TRY_GOTO(mb_seen_digest(r->folder, &before, &now, patient, &busy, &fresh), st, done);
    if (busy)
        goto done;
    if (skipped > 0)
        mb_log_warn("%s: %lld files are left out: their names cannot be served", r->id,
                    (long long)skipped);
    pthread_mutex_lock(&s->writing);
    if (r->changes == changes &&
        !r->gone) /* else somebody wrote meanwhile: the next look decides */
        st = take(s, r, &now);
    pthread_mutex_unlock(&s->writing);
done:
    mb_seen_release(&before);
    mb_seen_release(&now);
    return st;
}
