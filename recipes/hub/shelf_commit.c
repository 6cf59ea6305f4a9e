/* recipes/hub/shelf_commit.c - commits that clients make: to the store; shelf_follow.c does the folder. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/shelf_inside.h"

enum { BUFFER = 1 << 20 };

static mb_status wrong(mb_shelf_miss *miss, mb_shelf_miss why)
{
    *miss = why;
    return MB_EDATA;
}

static mb_status put(mb_shelf *s, const mb_shelf_change *c, mb_shelf_tree *t, mb_shelf_miss *miss)
{
    mb_shelf_file f = {.path = c->path, .size = c->size, .lfs = c->lfs};
    int64_t size;

    if (!mb_objects_has(s->objects, c->sha256, &size) || size != c->size)
        return MB_RAISE(wrong(miss, MB_SHELF_WRONG),
                        "'%s': nothing of %lld bytes with the sha256 %s was uploaded", c->path,
                        (long long)c->size, c->sha256);
    snprintf(f.sha256, sizeof f.sha256, "%s", c->sha256);
    snprintf(f.oid, sizeof f.oid, "%s", c->oid);
    if (c->lfs)
        MB_TRY(mb_shelf_pointer(c->sha256, c->size, f.oid, &size));
    return mb_shelf_tree_put(t, &f);
}

/* Content that is only in the folder, and about to be replaced there or wanted elsewhere, is kept. */
static mb_status keep_content(mb_shelf *s, mb_repo *r, const mb_shelf_tree *parent,
                              const mb_shelf_file *f)
{
    char path[MB_PATH_MAX], sha256[MB_DIGEST_HEX], *buffer = NULL;
    mb_incoming *in = NULL;
    mb_shelf_miss miss;
    int64_t size;
    int fd;
    mb_status st;

    if (mb_objects_has(s->objects, f->sha256, &size))
        return MB_OK;
    st = mb_shelf_open_in(s, r, parent, f, &fd, &miss);
    if (st != MB_OK) { /* gone already */
        mb_status_clear();
        return MB_OK;
    }
    MB_TRY_GOTO(mb_path_join(path, sizeof path, r->folder, f->path), st, done);
    MB_TRY_GOTO(mb_alloc(BUFFER, "a buffer to copy", (void **)&buffer), st, done);
    MB_TRY_GOTO(mb_incoming_new(s->objects, f->size, &in), st, done);
    for (int64_t at = 0; at < f->size; at += BUFFER) {
        const size_t n = f->size - at < BUFFER ? (size_t)(f->size - at) : BUFFER;
        MB_TRY_GOTO(mb_pread_all(fd, buffer, n, at, path), st, done);
        MB_TRY_GOTO(mb_incoming_add(in, buffer, n), st, done);
    }
    st = mb_incoming_end(in, f->sha256, sha256, &size);
done:
    mb_incoming_free(in);
    mb_free(buffer);
    close(fd);
    return st;
}

static mb_status copy(mb_shelf *s, mb_repo *r, const mb_shelf_draft *d, const mb_shelf_change *c,
                      mb_shelf_tree *t, mb_shelf_miss *miss)
{
    mb_shelf_tree *from = NULL;
    int64_t size;
    mb_status st;

    MB_TRY(mb_shelf_tree_get(s, r->kind, r->id, c->from_rev != NULL ? c->from_rev : d->branch,
                             &from, miss));
    const mb_shelf_file *old = mb_shelf_tree_find(from, c->from);
    if (old == NULL) {
        st = MB_RAISE(wrong(miss, MB_SHELF_NO_FILE), "there is no '%s' to copy", c->from);
    } else {
        mb_shelf_file f = *old;
        f.path = c->path;
        st = keep_content(s, r, from, old); /* it has no other place under its new name */
        if (st == MB_OK && !mb_objects_has(s->objects, old->sha256, &size))
            st = MB_RAISE(wrong(miss, MB_SHELF_NO_FILE),
                          "the content of '%s' is no longer in the folder: it cannot be copied",
                          c->from);
        if (st == MB_OK)
            st = mb_shelf_tree_put(t, &f);
    }
    mb_shelf_tree_unref(from);
    return st;
}

static mb_status change(mb_shelf *s, mb_repo *r, const mb_shelf_draft *d, const mb_shelf_change *c,
                        mb_shelf_tree *t, mb_shelf_miss *miss)
{
    if (!mb_shelf_is_path(c->path))
        return MB_RAISE(wrong(miss, MB_SHELF_WRONG), "'%.200s' cannot be a file's path", c->path);
    switch (c->what) {
    case MB_SHELF_PUT:
        return put(s, c, t, miss);
    case MB_SHELF_COPY:
        return copy(s, r, d, c, t, miss);
    case MB_SHELF_DELETE:
        if (!mb_shelf_tree_remove(t, c->path, false))
            return MB_RAISE(wrong(miss, MB_SHELF_NO_FILE), "there is no '%s' to delete", c->path);
        return MB_OK;
    default:
        mb_shelf_tree_remove(t, c->path, true);
        return MB_OK;
    }
}

static mb_status keep_replaced(mb_shelf *s, mb_repo *r, const mb_shelf_tree *parent,
                               const mb_shelf_tree *t)
{
    for (size_t i = 0; parent != NULL && i < parent->n; i++) {
        const mb_shelf_file *now = mb_shelf_tree_find(t, parent->files[i].path);
        if (now == NULL || !mb_shelf_file_same(now, &parent->files[i]))
            MB_TRY(keep_content(s, r, parent, &parent->files[i]));
    }
    return MB_OK;
}

static mb_status make(mb_shelf *s, mb_repo *r, const mb_shelf_draft *d, mb_shelf_tree **out,
                      mb_shelf_miss *miss)
{
    mb_shelf_tree *parent = NULL, *t = NULL;
    const bool is_main = strcmp(d->branch, "main") == 0;
    mb_status st = MB_OK;

    const mb_shelf_ref *ref = mb_repo_ref(r, d->branch);
    if ((ref == NULL && !is_main) || (ref != NULL && ref->tag))
        return MB_RAISE(wrong(miss, MB_SHELF_NO_REVISION), "%s has no branch '%.100s'", r->id,
                        d->branch);
    if (ref != NULL)
        MB_TRY(mb_shelf_tree_get(s, r->kind, r->id, d->branch, &parent, miss));
    if (d->parent != NULL && strcmp(d->parent, parent != NULL ? parent->commit : "") != 0) {
        st = MB_RAISE(wrong(miss, MB_SHELF_MOVED_ON),
                      "the last commit of %s is %.40s, no longer %.40s: somebody else was faster",
                      r->id, parent != NULL ? parent->commit : "none", d->parent);
        goto done;
    }
    st = parent != NULL ? mb_shelf_tree_copy(parent, &t) : mb_shelf_tree_new(&t);
    MB_TRY_GOTO(st, st, done);
    for (size_t i = 0; i < d->n; i++) {
        st = change(s, r, d, &d->changes[i], t, miss);
        if (st == MB_EDATA && *miss == MB_SHELF_NO_MISS)
            *miss = MB_SHELF_WRONG;
        MB_TRY_GOTO(st, st, done);
    }
    if (parent != NULL && mb_shelf_tree_same(parent, t)) {
        *out = mb_shelf_tree_ref(parent);
        goto done;
    }
    t->date = (int64_t)time(NULL);
    MB_TRY_GOTO(mb_shelf_tree_words(t, d->title, d->message, d->author), st, done);
    if (is_main)
        MB_TRY_GOTO(keep_replaced(s, r, parent, t), st, done);
    MB_TRY_GOTO(mb_shelf_publish(s, r, d->branch, t, parent), st, done);
    *out = mb_shelf_tree_ref(t);
    if (is_main && mb_shelf_follow(s, r, parent, t) != MB_OK) { /* the commit stands all the same */
        mb_log_warn("%s: the folder does not follow: %s", r->id, mb_status_sentence());
        mb_status_clear();
    }
done:
    mb_shelf_tree_unref(parent);
    mb_shelf_tree_unref(t);
    return st;
}

mb_status mb_shelf_commit(mb_shelf *s, mb_shelf_kind kind, const char *id, const mb_shelf_draft *d,
                          mb_shelf_tree **out, mb_shelf_miss *miss)
{
    mb_repo *r;
    mb_status st;

    *miss = MB_SHELF_NO_MISS;
    pthread_mutex_lock(&s->writing);
    pthread_mutex_lock(&s->lock);
    r = mb_shelf_repo(s, kind, id);
    pthread_mutex_unlock(&s->lock);
    if (r == NULL)
        st = MB_RAISE(wrong(miss, MB_SHELF_NO_REPO), "there is no %s '%s' here",
                      mb_shelf_kind_name(kind), id);
    else if (r->cache || !s->writable)
        st = MB_RAISE(wrong(miss, MB_SHELF_READ_ONLY),
                      r->cache ? "%s is a copy of another hub's; push under a name of your own"
                               : "%s: this hub is read only",
                      id);
    else
        st = make(s, r, d, out, miss);
    pthread_mutex_unlock(&s->writing);
    return st;
}
