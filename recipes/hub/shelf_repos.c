/* recipes/hub/shelf_repos.c - making, moving and removing repositories, branches and tags. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/shelf_inside.h"

static mb_status wrong(mb_shelf_miss *miss, mb_shelf_miss why)
{
    *miss = why;
    return MB_EDATA;
}

/* A repository to change; with `writing` held. */
static mb_status to_change(mb_shelf *s, mb_shelf_kind kind, const char *id, mb_repo **out,
                           mb_shelf_miss *miss)
{
    pthread_mutex_lock(&s->lock);
    *out = mb_shelf_repo(s, kind, id);
    pthread_mutex_unlock(&s->lock);
    if (!s->writable)
        return MB_RAISE(wrong(miss, MB_SHELF_READ_ONLY), "this hub is read only");
    if (*out == NULL)
        return MB_RAISE(wrong(miss, MB_SHELF_NO_REPO), "there is no %s '%s' here",
                        mb_shelf_kind_name(kind), id);
    if ((*out)->cache)
        return MB_RAISE(wrong(miss, MB_SHELF_READ_ONLY), "%s is a copy of another hub's", id);
    return MB_OK;
}

/* Clients expect a new repository to have a commit; this one has no files. */
static mb_status first_commit(mb_shelf *s, mb_repo *r)
{
    mb_shelf_tree *t;
    mb_status st;

    MB_TRY(mb_shelf_tree_new(&t));
    t->date = r->created;
    st = mb_shelf_tree_words(t, "initial commit", "", "");
    if (st == MB_OK)
        st = mb_shelf_publish(s, r, "main", t, NULL);
    mb_shelf_tree_unref(t);
    return st;
}

static mb_status create(mb_shelf *s, mb_shelf_kind kind, const char *id, bool hidden,
                        mb_shelf_miss *miss)
{
    char path[MB_PATH_MAX];
    mb_repo *r;
    mb_status st;

    if (!s->writable)
        return MB_RAISE(wrong(miss, MB_SHELF_READ_ONLY), "this hub is read only");
    if (!mb_shelf_is_id(id))
        return MB_RAISE(wrong(miss, MB_SHELF_WRONG), "'%.100s' cannot be a repository's name", id);
    pthread_mutex_lock(&s->lock);
    const bool there = mb_shelf_repo(s, kind, id) != NULL;
    st = there ? MB_OK : mb_shelf_repo_add(s, kind, id, &r);
    pthread_mutex_unlock(&s->lock);
    if (there)
        return MB_RAISE(wrong(miss, MB_SHELF_EXISTS), "%s '%s' is there already",
                        mb_shelf_kind_name(kind), id);
    MB_TRY(st);
    st = mb_path_join(path, sizeof path, r->records, "state.json");
    if (st == MB_OK && mb_path_exists(path)) /* one that could not be read is not made anew */
        st = MB_RAISE(MB_EIO, "%s is there and cannot be read", path);
    if (st == MB_OK) {
        r->created = (int64_t)time(NULL);
        r->hidden = hidden;
        st = first_commit(s, r);
    }
    if (st != MB_OK)
        r->gone = true;
    return st;
}

mb_status mb_shelf_create(mb_shelf *s, mb_shelf_kind kind, const char *id, bool hidden,
                          mb_shelf_miss *miss)
{
    *miss = MB_SHELF_NO_MISS;
    pthread_mutex_lock(&s->writing);
    const mb_status st = create(s, kind, id, hidden, miss);
    pthread_mutex_unlock(&s->writing);
    return st;
}

static void forget(mb_shelf *s, mb_repo *r)
{
    pthread_mutex_lock(&s->lock);
    r->gone = true;
    r->hidden = false;
    r->created = 0;
    r->changes++;
    for (int i = 0; i < MB_SHELF_TREES; i++) {
        mb_shelf_tree_unref(r->trees[i]);
        r->trees[i] = NULL;
    }
    mb_seen_release(&r->seen);
    pthread_mutex_unlock(&s->lock);
    mb_repo_set_refs(s, r, NULL, 0);
}

mb_status mb_shelf_delete(mb_shelf *s, mb_shelf_kind kind, const char *id, mb_shelf_miss *miss)
{
    mb_repo *r;
    mb_status st;

    *miss = MB_SHELF_NO_MISS;
    pthread_mutex_lock(&s->writing);
    MB_TRY_GOTO(to_change(s, kind, id, &r, miss), st, done);
    /* the folder first: without it what is left of the records is an empty repository, not a ghost */
    MB_TRY_GOTO(mb_shelf_put_away(s, r->folder, "folder"), st, done);
    MB_TRY_GOTO(mb_shelf_put_away(s, r->records, "records"), st, done);
    forget(s, r);
done:
    pthread_mutex_unlock(&s->writing);
    return st;
}

static mb_status rename_dir(const char *from, const char *to)
{
    char dir[MB_PATH_MAX];

    if (!mb_path_is_dir(from))
        return MB_OK;
    MB_TRY(mb_path_dir(dir, sizeof dir, to));
    MB_TRY(mb_path_mkdirs(dir));
    MB_REQUIRE(rename(from, to) == 0, MB_EIO, "%s cannot be renamed to %s: %s", from, to,
               strerror(errno));
    return MB_OK;
}

static mb_status move(mb_shelf *s, mb_repo *r, const char *to, mb_shelf_miss *miss)
{
    mb_repo *new = NULL;
    mb_status st;

    if (!mb_shelf_is_id(to))
        return MB_RAISE(wrong(miss, MB_SHELF_WRONG), "'%.100s' cannot be a repository's name", to);
    pthread_mutex_lock(&s->lock);
    const bool there = mb_shelf_repo(s, r->kind, to) != NULL;
    st = there ? MB_OK : mb_shelf_repo_add(s, r->kind, to, &new);
    pthread_mutex_unlock(&s->lock);
    if (there)
        return MB_RAISE(wrong(miss, MB_SHELF_EXISTS), "'%s' is there already", to);
    MB_TRY(st);
    new->gone = true; /* until it is complete */
    MB_TRY(rename_dir(r->records, new->records));
    st = rename_dir(r->folder, new->folder);
    if (st != MB_OK) { /* both or none: the records go back to the folder they are of */
        if (mb_path_is_dir(new->records) && rename(new->records, r->records) != 0)
            mb_log_warn("%s cannot be renamed back to %s: %s", new->records, r->records,
                        strerror(errno));
        return st;
    }
    pthread_mutex_lock(&s->lock);
    new->seen = r->seen;
    r->seen = (mb_seen){0};
    new->refs = r->refs;
    new->n_refs = r->n_refs;
    r->refs = NULL;
    r->n_refs = 0;
    new->created = r->created;
    new->hidden = r->hidden;
    memcpy(new->trees, r->trees, sizeof new->trees);
    memset(r->trees, 0, sizeof r->trees);
    new->changes++;
    r->changes++;
    r->gone = true;
    new->gone = false;
    pthread_mutex_unlock(&s->lock);
    return mb_repo_save(new, new->refs, new->n_refs, new->hidden);
}

mb_status mb_shelf_move(mb_shelf *s, mb_shelf_kind kind, const char *id, const char *to,
                        mb_shelf_miss *miss)
{
    mb_repo *r;
    mb_status st;

    *miss = MB_SHELF_NO_MISS;
    pthread_mutex_lock(&s->writing);
    st = to_change(s, kind, id, &r, miss);
    if (st == MB_OK)
        st = move(s, r, to, miss);
    pthread_mutex_unlock(&s->writing);
    return st;
}

mb_status mb_shelf_hide(mb_shelf *s, mb_shelf_kind kind, const char *id, bool hidden,
                        mb_shelf_miss *miss)
{
    mb_repo *r;
    mb_status st;

    *miss = MB_SHELF_NO_MISS;
    pthread_mutex_lock(&s->writing);
    MB_TRY_GOTO(to_change(s, kind, id, &r, miss), st, done);
    MB_TRY_GOTO(mb_repo_save(r, r->refs, r->n_refs, hidden), st, done);
    pthread_mutex_lock(&s->lock);
    r->hidden = hidden;
    pthread_mutex_unlock(&s->lock);
done:
    pthread_mutex_unlock(&s->writing);
    return st;
}

static mb_status set_ref(mb_shelf *s, mb_repo *r, const char *name, bool tag, const char *commit)
{
    mb_shelf_ref *refs;
    size_t n;

    MB_TRY(mb_refs_with(r->refs, r->n_refs, name, tag, commit, &refs, &n));
    const mb_status st = mb_repo_save(r, refs, n, r->hidden);
    if (st != MB_OK) {
        mb_shelf_refs_free(refs, n);
        return st;
    }
    mb_repo_set_refs(s, r, refs, n);
    return MB_OK;
}

mb_status mb_shelf_ref_new(mb_shelf *s, mb_shelf_kind kind, const char *id, const char *name,
                           bool tag, const char *rev, mb_shelf_miss *miss)
{
    mb_shelf_tree *t = NULL;
    mb_repo *r;
    mb_status st;

    *miss = MB_SHELF_NO_MISS;
    pthread_mutex_lock(&s->writing);
    MB_TRY_GOTO(to_change(s, kind, id, &r, miss), st, done);
    if (!mb_shelf_is_ref(name) || mb_shelf_is_hex(name, 40)) {
        st = MB_RAISE(wrong(miss, MB_SHELF_WRONG), "'%.100s' cannot be a branch or tag", name);
        goto done;
    }
    if (mb_repo_ref(r, name) != NULL) {
        st =
            MB_RAISE(wrong(miss, MB_SHELF_EXISTS), "%s has a branch or tag '%s' already", id, name);
        goto done;
    }
    MB_TRY_GOTO(mb_shelf_tree_get(s, kind, id, rev, &t, miss), st, done);
    st = set_ref(s, r, name, tag, t->commit);
done:
    pthread_mutex_unlock(&s->writing);
    mb_shelf_tree_unref(t);
    return st;
}

mb_status mb_shelf_ref_delete(mb_shelf *s, mb_shelf_kind kind, const char *id, const char *name,
                              bool tag, mb_shelf_miss *miss)
{
    mb_repo *r;
    mb_status st;

    *miss = MB_SHELF_NO_MISS;
    pthread_mutex_lock(&s->writing);
    MB_TRY_GOTO(to_change(s, kind, id, &r, miss), st, done);
    const mb_shelf_ref *ref = mb_repo_ref(r, name);
    if (ref == NULL || ref->tag != tag || strcmp(name, "main") == 0) {
        st = MB_RAISE(wrong(miss, MB_SHELF_NO_REVISION), "%s has no %s '%.100s' to delete", id,
                      tag ? "tag" : "branch", name);
        goto done;
    }
    st = set_ref(s, r, name, tag, NULL);
done:
    pthread_mutex_unlock(&s->writing);
    return st;
}
