/* recipes/hub/shelf.c - see recipes/hub/shelf.h: what readers ask. shelf_open.c finds what is there. */
#include "recipes/hub/shelf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/path.h"
#include "recipes/hub/shelf_inside.h"

mb_objects *mb_shelf_objects(mb_shelf *s)
{
    return s->objects;
}

const char *mb_shelf_store(const mb_shelf *s)
{
    return s->store;
}

const char *mb_shelf_id(const mb_shelf *s)
{
    return s->id;
}

const char *mb_shelf_secret(const mb_shelf *s)
{
    return s->secret;
}

static int order(const mb_repo *r, mb_shelf_kind kind, const char *id)
{
    return r->kind != kind ? (r->kind < kind ? -1 : 1) : strcmp(r->id, id);
}

static size_t place(const mb_shelf *s, mb_shelf_kind kind, const char *id)
{
    size_t lo = 0, hi = s->n;

    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (order(s->repos[mid], kind, id) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

mb_repo *mb_shelf_repo(mb_shelf *s, mb_shelf_kind kind, const char *id)
{
    const size_t i = place(s, kind, id);

    return i < s->n && order(s->repos[i], kind, id) == 0 && !s->repos[i]->gone ? s->repos[i] : NULL;
}

mb_status mb_shelf_repo_add(mb_shelf *s, mb_shelf_kind kind, const char *id, mb_repo **out)
{
    const size_t i = place(s, kind, id);
    char flat[MB_SHELF_ID_MAX + 4];
    mb_repo *r = NULL;
    mb_status st = MB_OK;

    if (i < s->n && order(s->repos[i], kind, id) == 0) {
        MB_REQUIRE(!s->repos[i]->damaged, MB_EDATA, "the record of '%s', in %s, is damaged", id,
                   s->repos[i]->records);
        *out = s->repos[i]; /* one that was deleted comes back under its name */
        s->repos[i]->gone = false;
        return MB_OK;
    }
    const char *slash = strchr(id, '/');
    if (slash == NULL)
        snprintf(flat, sizeof flat, "%s", id);
    else
        snprintf(flat, sizeof flat, "%.*s--%s", (int)(slash - id), id, slash + 1);
    MB_TRY(mb_grow((void **)&s->repos, &s->capacity, s->n + 1, sizeof *s->repos, "repositories"));
    MB_TRY(MB_NEW(&r));
    r->kind = kind;
    MB_TRY_GOTO(mb_strdup(id, &r->id), st, done);
    MB_TRY_GOTO(mb_asprintf(&r->folder, "%s/%s/%s", s->dir, mb_shelf_kind_folder(kind), id), st,
                done);
    MB_TRY_GOTO(
        mb_asprintf(&r->records, "%s/repos/%s--%s", s->store, mb_shelf_kind_folder(kind), flat), st,
        done);
    memmove(s->repos + i + 1, s->repos + i, (s->n - i) * sizeof *s->repos);
    s->repos[i] = *out = r;
    s->n++;
    return MB_OK;
done:
    mb_free(r->id);
    mb_free(r->folder);
    mb_free(r);
    return st;
}

void mb_repo_keep(mb_repo *r, mb_shelf_tree *t)
{
    int i = 0;

    while (i < MB_SHELF_TREES - 1 && r->trees[i] != NULL &&
           strcmp(r->trees[i]->commit, t->commit) != 0)
        i++;
    mb_shelf_tree_ref(t);
    mb_shelf_tree_unref(r->trees[i]);
    memmove(r->trees + 1, r->trees, (size_t)i * sizeof *r->trees);
    r->trees[0] = t;
}

mb_shelf_tree *mb_repo_kept(mb_repo *r, const char *commit)
{
    for (int i = 0; i < MB_SHELF_TREES && r->trees[i] != NULL; i++) {
        mb_shelf_tree *t = r->trees[i];
        if (strcmp(t->commit, commit) != 0)
            continue;
        memmove(r->trees + 1, r->trees, (size_t)i * sizeof *r->trees);
        r->trees[0] = t;
        return mb_shelf_tree_ref(t);
    }
    return NULL;
}

/* A commit by its full id: from memory or the store. */
static mb_status tree_of(mb_shelf *s, mb_repo *r, const char *commit, mb_shelf_tree **out,
                         mb_shelf_miss *miss)
{
    char dir[MB_PATH_MAX], path[MB_PATH_MAX];
    mb_shelf_tree *t = NULL;

    pthread_mutex_lock(&s->lock);
    *out = mb_repo_kept(r, commit);
    pthread_mutex_unlock(&s->lock);
    if (*out != NULL)
        return MB_OK;
    MB_TRY(mb_path_join(dir, sizeof dir, r->records, "commits"));
    MB_REQUIRE((size_t)snprintf(path, sizeof path, "%s/%s.json", dir, commit) < sizeof path, MB_EIO,
               "%s: the path is too long", dir);
    if (r->cache || !mb_path_is_file(path)) {
        *miss = MB_SHELF_NO_REVISION;
        return MB_RAISE(MB_EDATA, "%s has no commit %s here", r->id, commit);
    }
    MB_TRY(mb_shelf_tree_read(dir, commit, &t));
    const mb_status st = mb_shelf_tree_card(s, r, t);
    if (st != MB_OK) {
        mb_shelf_tree_unref(t);
        return st;
    }
    pthread_mutex_lock(&s->lock);
    mb_repo_keep(r, t);
    pthread_mutex_unlock(&s->lock);
    *out = t;
    return MB_OK;
}

static mb_status find_repo(mb_shelf *s, mb_shelf_kind kind, const char *id, mb_repo **out,
                           mb_shelf_miss *miss)
{
    pthread_mutex_lock(&s->lock);
    *out = mb_shelf_repo(s, kind, id);
    pthread_mutex_unlock(&s->lock);
    if (*out != NULL)
        return MB_OK;
    *miss = MB_SHELF_NO_REPO;
    return MB_RAISE(MB_EDATA, "there is no %s '%s' here", mb_shelf_kind_name(kind), id);
}

/* A commit whose id begins so: as many digits as people copy. */
static bool by_beginning(const mb_repo *r, const char *rev, char commit[MB_SHELF_OID])
{
    const size_t n = strlen(rev);
    char dir[MB_PATH_MAX];
    char **names = NULL;
    size_t count = 0, found = 0;

    if (n < 7 || n > 40 || strspn(rev, "0123456789abcdef") != n)
        return false;
    if (n == 40) {
        memcpy(commit, rev, MB_SHELF_OID);
        return true;
    }
    if (mb_path_join(dir, sizeof dir, r->cache ? r->folder : r->records,
                     r->cache ? "snapshots" : "commits") != MB_OK ||
        mb_path_list(dir, &names, &count) != MB_OK)
        count = 0;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(names[i], rev, n) == 0 && strlen(names[i]) >= 40) {
            snprintf(commit, MB_SHELF_OID, "%.40s", names[i]);
            found++;
        }
    }
    mb_path_list_free(names, count);
    mb_status_clear();
    return found == 1;
}

static bool commit_of(mb_shelf *s, mb_repo *r, const char *rev, char commit[MB_SHELF_OID])
{
    static const char *const prefixes[] = {"", "refs/heads/", "refs/tags/"};
    bool found = false;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; !found && i < sizeof prefixes / sizeof *prefixes; i++) {
        const size_t n = strlen(prefixes[i]);
        const mb_shelf_ref *ref =
            strncmp(rev, prefixes[i], n) == 0 ? mb_repo_ref(r, rev + n) : NULL;
        found = ref != NULL;
        if (found)
            memcpy(commit, ref->commit, MB_SHELF_OID);
    }
    pthread_mutex_unlock(&s->lock);
    return found || by_beginning(r, rev, commit);
}

mb_status mb_shelf_tree_get(mb_shelf *s, mb_shelf_kind kind, const char *id, const char *rev,
                            mb_shelf_tree **out, mb_shelf_miss *miss)
{
    char commit[MB_SHELF_OID];
    mb_repo *r;

    *miss = MB_SHELF_NO_MISS;
    MB_TRY(find_repo(s, kind, id, &r, miss));
    if (!commit_of(s, r, rev, commit)) {
        *miss = MB_SHELF_NO_REVISION;
        return MB_RAISE(MB_EDATA, "%s has no revision '%.100s'", id, rev);
    }
    return tree_of(s, r, commit, out, miss);
}

static mb_status brief(mb_shelf *s, mb_repo *r, mb_shelf_brief *b)
{
    mb_shelf_miss miss = MB_SHELF_NO_MISS;
    char commit[MB_SHELF_OID] = "";

    pthread_mutex_lock(&s->lock);
    *b = (mb_shelf_brief){.kind = r->kind,
                          .hidden = r->hidden,
                          .copy = r->cache,
                          .created = r->created,
                          .modified = r->created};
    snprintf(b->id, sizeof b->id, "%s", r->id);
    const mb_shelf_ref *main_branch = mb_repo_ref(r, "main");
    if (main_branch != NULL)
        memcpy(commit, main_branch->commit, sizeof commit);
    pthread_mutex_unlock(&s->lock);
    if (commit[0] == '\0')
        return MB_OK;
    const mb_status st = tree_of(s, r, commit, &b->main, &miss);
    if (st != MB_OK && miss == MB_SHELF_NO_REVISION) { /* a cache whose main was never fetched */
        mb_status_clear();
        return MB_OK;
    }
    MB_TRY(st);
    b->modified = b->main->date;
    if (b->created == 0)
        b->created = b->main->date;
    return MB_OK;
}

void mb_shelf_brief_release(mb_shelf_brief *b)
{
    mb_shelf_tree_unref(b->main);
    b->main = NULL;
}

mb_status mb_shelf_find(mb_shelf *s, mb_shelf_kind kind, const char *id, mb_shelf_brief *out,
                        mb_shelf_miss *miss)
{
    mb_repo *r;

    *miss = MB_SHELF_NO_MISS;
    MB_TRY(find_repo(s, kind, id, &r, miss));
    return brief(s, r, out);
}

mb_status mb_shelf_list(mb_shelf *s, mb_shelf_kind kind, mb_shelf_brief **out, size_t *n)
{
    mb_repo **repos = NULL;
    mb_shelf_brief *list = NULL;
    size_t count = 0, made = 0;
    mb_status st;

    pthread_mutex_lock(&s->lock);
    st = MB_NEW_ARRAY(&repos, s->n + 1);
    for (size_t i = 0; st == MB_OK && i < s->n; i++)
        if (s->repos[i]->kind == kind && !s->repos[i]->gone)
            repos[count++] = s->repos[i];
    pthread_mutex_unlock(&s->lock);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&list, count + 1);
    for (size_t i = 0; st == MB_OK && i < count; i++) {
        st = brief(s, repos[i], &list[made]);
        made += st == MB_OK;
        if (st == MB_EDATA || st == MB_EIO) { /* the others are listed all the same */
            if (!atomic_exchange(&repos[i]->told, true))
                mb_log_warn("%s is left out of lists: %s", repos[i]->id, mb_status_sentence());
            mb_status_clear();
            st = MB_OK;
        }
    }
    mb_free(repos);
    if (st != MB_OK) {
        for (size_t i = 0; i < made; i++)
            mb_shelf_brief_release(&list[i]);
        mb_free(list);
        return st;
    }
    *out = list;
    *n = made;
    return MB_OK;
}

/* Opens `path` if it is a regular file of that size. */
static bool open_as(const char *path, int64_t size, int *fd)
{
    int64_t found;

    if (mb_file_open(path, MB_EDATA, fd, &found) != MB_OK) {
        mb_status_clear();
        return false;
    }
    if (found == size)
        return true;
    close(*fd);
    return false;
}

mb_status mb_shelf_open_in(mb_shelf *s, mb_repo *r, const mb_shelf_tree *t, const mb_shelf_file *f,
                           int *fd, mb_shelf_miss *miss)
{
    char path[MB_PATH_MAX];
    mb_seen_file now = {0};
    bool same = false;

    if (r->cache) {
        if ((size_t)snprintf(path, sizeof path, "%s/snapshots/%s/%s", r->folder, t->commit,
                             f->path) < sizeof path &&
            open_as(path, f->size, fd))
            return MB_OK;
    } else {
        MB_TRY(mb_objects_path(s->objects, f->sha256, path, sizeof path));
        if (open_as(path, f->size, fd))
            return MB_OK;
        /* in the folder, if it is what it was when it was read */
        if (mb_seen_one(r->folder, f->path, &now) == MB_OK) {
            pthread_mutex_lock(&s->lock);
            const mb_seen_file *seen = mb_seen_find(&r->seen, f->path);
            same = seen != NULL && strcmp(seen->file.sha256, f->sha256) == 0 &&
                   seen->file.size == now.file.size && seen->mtime == now.mtime &&
                   seen->inode == now.inode;
            pthread_mutex_unlock(&s->lock);
        }
        mb_status_clear();
        MB_TRY(mb_path_join(path, sizeof path, r->folder, f->path));
        if (same && open_as(path, f->size, fd))
            return MB_OK;
    }
    *miss = MB_SHELF_NO_FILE;
    return MB_RAISE(MB_EDATA, "the content of '%s' of %s at %.8s is no longer in the folder",
                    f->path, r->id, t->commit);
}

mb_status mb_shelf_file_open(mb_shelf *s, mb_shelf_kind kind, const char *id,
                             const mb_shelf_tree *t, const mb_shelf_file *f, int *fd,
                             mb_shelf_miss *miss)
{
    mb_repo *r;

    *miss = MB_SHELF_NO_MISS;
    MB_TRY(find_repo(s, kind, id, &r, miss));
    return mb_shelf_open_in(s, r, t, f, fd, miss);
}

mb_status mb_shelf_file_text(mb_shelf *s, mb_shelf_kind kind, const char *id,
                             const mb_shelf_tree *t, const char *path, size_t most, char **out,
                             size_t *n)
{
    const mb_shelf_file *f = mb_shelf_tree_find(t, path);
    mb_shelf_miss miss;
    char *text = NULL;
    int fd;
    mb_status st;

    MB_REQUIRE(f != NULL, MB_EDATA, "there is no '%s'", path);
    MB_REQUIRE((uint64_t)f->size <= most, MB_EDATA, "'%s' has %lld bytes, more than %zu", path,
               (long long)f->size, most);
    MB_TRY(mb_shelf_file_open(s, kind, id, t, f, &fd, &miss));
    st = mb_alloc((size_t)f->size + 1, "a small file", (void **)&text);
    if (st == MB_OK)
        st = mb_pread_all(fd, text, (size_t)f->size, 0, path);
    close(fd);
    if (st != MB_OK) {
        mb_free(text);
        return st;
    }
    *out = text;
    *n = (size_t)f->size;
    return MB_OK;
}

mb_status mb_shelf_refs(mb_shelf *s, mb_shelf_kind kind, const char *id, mb_shelf_ref **out,
                        size_t *n, mb_shelf_miss *miss)
{
    mb_repo *r;

    *miss = MB_SHELF_NO_MISS;
    MB_TRY(find_repo(s, kind, id, &r, miss));
    pthread_mutex_lock(&s->lock);
    const mb_status st = mb_refs_with(r->refs, r->n_refs, "", false, NULL, out, n);
    pthread_mutex_unlock(&s->lock);
    return st;
}
