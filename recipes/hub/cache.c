/* recipes/hub/cache.c - see recipes/hub/cache.h. */
#include "recipes/hub/cache.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/hub/cache_read.h"
#include "recipes/hub/cache_shared.h"
#include "recipes/hub/hub.h"
#include "recipes/hub/lock.h"

static const char *full_name(const mb_hub_name *n, char *text, size_t size)
{
    snprintf(text, size, "%s%s", n->is_dataset ? "dataset:" : "", n->id);
    return text;
}

/* The names of branches and tags that mean a commit, or its first digits where none does. */
static void add_names(const mb_cached *c, const char *commit, char *text, size_t size)
{
    size_t n = strlen(text);
    bool any = false;

    for (size_t i = 0; i < c->n_refs; i++) {
        if (strcmp(c->ref[i].commit, commit) != 0 || n + strlen(c->ref[i].name) + 3 >= size)
            continue;
        n += (size_t)snprintf(text + n, size - n, "%s%s", n > 0 ? ", " : "", c->ref[i].name);
        any = true;
    }
    if (!any && n + 12 < size)
        snprintf(text + n, size - n, "%s%.8s", n > 0 ? ", " : "", commit);
}

static mb_status print_line(const mb_hub_name *name, FILE *out, int64_t *bytes)
{
    char who[MB_HUB_ID_MAX + 16], size[32], partial[32], revisions[400] = "";
    mb_cached c;
    mb_status st;

    MB_TRY_GOTO(mb_cached_read(name, &c), st, done);
    for (size_t i = 0; i < c.n_commits; i++)
        add_names(&c, c.commit[i], revisions, sizeof revisions);
    fprintf(out, "%-48s %9s  %4zu files  %s", full_name(name, who, sizeof who),
            mb_hub_size(c.bytes, size, sizeof size), c.n_files, revisions);
    if (c.partial > 0)
        fprintf(out, "%s%s not whole yet", revisions[0] != '\0' ? "; " : "",
                mb_hub_size(c.partial, partial, sizeof partial));
    fputs("\n", out);
    *bytes += c.bytes;
done:
    mb_cached_release(&c);
    return st;
}

mb_status mb_cache_print(FILE *out)
{
    char cache[MB_PATH_MAX], size[32], **names = NULL;
    int64_t bytes = 0;
    size_t n = 0, found = 0;
    mb_hub_name name;
    mb_status st = MB_OK;

    MB_TRY(mb_hub_cache(cache, sizeof cache));
    if (mb_path_is_dir(cache))
        MB_TRY(mb_path_list(cache, &names, &n));
    for (size_t i = 0; i < n; i++) {
        if (!mb_cached_name(names[i], &name))
            continue;
        MB_TRY_GOTO(print_line(&name, out, &bytes), st, done);
        found++;
    }
    mb_log_info("%s in %zu repositories; the cache is %s", mb_hub_size(bytes, size, sizeof size),
                found, cache);
done:
    mb_path_list_free(names, n);
    return st;
}

mb_status mb_cache_print_one(const mb_hub_name *name, FILE *out)
{
    char commit[41], size[32], names[300];
    mb_cached c;
    mb_status st;

    MB_TRY_GOTO(mb_cached_read(name, &c), st, done);
    MB_TRY_GOTO(mb_hub_commit(name, commit), st, done);
    for (size_t i = 0; i < c.n_commits; i++) {
        if (name->revision[0] != '\0' && strcmp(commit, c.commit[i]) != 0)
            continue;
        names[0] = '\0';
        add_names(&c, c.commit[i], names, sizeof names);
        fprintf(out, "%s  %s  %s/snapshots/%s\n", c.commit[i], names, c.folder, c.commit[i]);
        for (size_t k = 0; k < c.n_files; k++)
            if (c.file[k].snapshot == (int)i)
                fprintf(out, "%10s  %s\n",
                        c.file[k].size < 0 ? "missing"
                                           : mb_hub_size(c.file[k].size, size, sizeof size),
                        c.file[k].path);
    }
    if (c.partial > 0)
        fprintf(out, "%10s  not whole yet; `mbuyu pull` goes on\n",
                mb_hub_size(c.partial, size, sizeof size));
done:
    mb_cached_release(&c);
    return st;
}

/* ---- removing ------------------------------------------------------------------------------ */

static bool is_named_elsewhere(const mb_cached *c, const char *blob, int snapshot)
{
    for (size_t i = 0; i < c->n_files; i++)
        if (c->file[i].snapshot != snapshot && strcmp(c->file[i].blob, blob) == 0)
            return true;
    return false;
}

/* A blob that only this snapshot has a name for. */
static bool is_only_here(const mb_cached *c, const char *blob, int snapshot)
{
    for (size_t i = 0; i < c->n_files; i++)
        if (c->file[i].snapshot == snapshot && strcmp(c->file[i].blob, blob) == 0)
            return !is_named_elsewhere(c, blob, snapshot);
    return false;
}

/* By removing a snapshot, or (-1) all of it. */
static int64_t freed_by(const mb_cached *c, int snapshot)
{
    int64_t n = 0;

    if (snapshot < 0) {
        for (size_t i = 0; i < c->n_blobs; i++)
            n += c->blob[i].shared_needed ? c->blob[i].size : 0;
        return c->bytes - n;
    }
    for (size_t i = 0; i < c->n_blobs; i++)
        if (!c->blob[i].shared_needed && is_only_here(c, c->blob[i].path, snapshot))
            n += c->blob[i].size;
    for (size_t i = 0; i < c->n_files; i++)
        if (c->file[i].snapshot == snapshot && c->file[i].blob[0] == '\0' && c->file[i].size > 0)
            n += c->file[i].size;
    return n;
}

/* Names first: what is left after a crash is bytes without a name, never a name without bytes. */
static mb_status remove_snapshot(const mb_cached *c, int snapshot)
{
    const char *commit = c->commit[snapshot];
    char dir[MB_PATH_MAX], path[MB_PATH_MAX];

    for (size_t i = 0; i < c->n_refs; i++) {
        if (strcmp(c->ref[i].commit, commit) != 0)
            continue;
        MB_TRY(mb_path_join(dir, sizeof dir, c->folder, "refs"));
        MB_TRY(mb_path_join(path, sizeof path, dir, c->ref[i].name));
        MB_TRY(mb_path_remove_tree(path));
    }
    MB_TRY(mb_path_join(dir, sizeof dir, c->folder, "snapshots"));
    MB_TRY(mb_path_join(path, sizeof path, dir, commit));
    MB_TRY(mb_path_remove_tree(path));
    MB_TRY(mb_path_join(dir, sizeof dir, c->folder, "blobs"));
    for (size_t i = 0; i < c->n_blobs; i++) {
        if (!is_only_here(c, c->blob[i].path, snapshot))
            continue;
        MB_TRY(mb_path_join(path, sizeof path, dir, c->blob[i].path));
        MB_REQUIRE(unlink(path) == 0 || errno == ENOENT, MB_EIO, "%s cannot be removed: %s", path,
                   strerror(errno));
        if (c->blob[i].shared[0] != '\0')
            mb_shared_sweep(c->cache, c->blob[i].shared);
    }
    /* what Python's client knows to be in it, and not to be */
    MB_REQUIRE(snprintf(path, sizeof path, "%s/trees/%s.json", c->folder, commit) < MB_PATH_MAX &&
                   snprintf(dir, sizeof dir, "%s/.no_exist/%s", c->folder, commit) < MB_PATH_MAX,
               MB_EARG, "the path '%.80s...' is too long", c->folder);
    MB_TRY(mb_path_remove_tree(path));
    return mb_path_remove_tree(dir);
}

static mb_status remove_whole(const mb_cached *c)
{
    MB_TRY(mb_path_remove_tree(c->folder));
    for (size_t i = 0; i < c->n_blobs; i++)
        if (c->blob[i].shared[0] != '\0')
            mb_shared_sweep(c->cache, c->blob[i].shared);
    return MB_OK;
}

/* What a name means in the cache at a moment. */
struct removal {
    mb_cached c;
    bool whole; /* all of it goes */
    int at;     /* else: this snapshot */
    char what[MB_PATH_MAX];
};

static mb_status find(const mb_hub_name *name, struct removal *x)
{
    char who[MB_HUB_ID_MAX + 16], size[32], commit[41] = "";
    const bool all = name->revision[0] == '\0';

    MB_TRY(mb_cached_read(name, &x->c));
    full_name(name, who, sizeof who);
    if (!all)
        MB_TRY(mb_hub_commit(name, commit));
    x->at = -1;
    for (size_t i = 0; i < x->c.n_commits; i++)
        if (strcmp(x->c.commit[i], commit) == 0)
            x->at = (int)i;
    MB_REQUIRE(all || x->at >= 0, MB_EARG, "the cache has no revision %s of %s", name->revision,
               who);
    x->whole = all || x->c.n_commits == 1;
    mb_hub_size(freed_by(&x->c, x->whole ? -1 : x->at), size, sizeof size);
    snprintf(x->what, sizeof x->what, "%s%s%s, %s", who, all ? "" : "@", commit, size);
    return MB_OK;
}

static bool is_same(const struct removal *a, const struct removal *b)
{
    return a->whole == b->whole && strcmp(a->what, b->what) == 0 && a->c.bytes == b->c.bytes &&
           a->c.n_commits == b->c.n_commits && a->c.n_files == b->c.n_files;
}

/* With the lock: of what is there now. *removed stays false when that is not what was agreed to. */
static mb_status remove_locked(const mb_hub_name *name, const struct removal *agreed,
                               const mb_lock *lock, bool *removed)
{
    struct removal now = {.at = -1};
    mb_status st;

    MB_TRY_GOTO(find(name, &now), st, done);
    if (!is_same(agreed, &now))
        goto done;
    MB_TRY_GOTO(mb_lock_beat(lock), st, done);
    st = now.whole ? remove_whole(&now.c) : remove_snapshot(&now.c, now.at);
    *removed = st == MB_OK;
done:
    mb_cached_release(&now.c);
    return st;
}

/* The person thinks without the lock, so that nobody waits for that. */
static mb_status ask_and_remove(const mb_hub_name *name, const char *locks,
                                bool (*agreed)(const char *what), FILE *out, bool *removed)
{
    char path[MB_PATH_MAX], who[MB_HUB_ID_MAX + 16];
    mb_lock lock = {.path = ""};
    struct removal x = {.at = -1};
    mb_status st;

    full_name(name, who, sizeof who);
    MB_TRY_GOTO(find(name, &x), st, done);
    if (!agreed(x.what))
        MB_TRY_GOTO(MB_RAISE(MB_EARG, "nothing was removed: %s is still there", who), st, done);
    MB_TRY_GOTO(mb_path_join(path, sizeof path, locks, "mbuyu.lock"), st, done);
    MB_TRY_GOTO(mb_lock_take(path, who, &lock), st, done);
    st = remove_locked(name, &x, &lock, removed);
    mb_lock_give(&lock);
    if (*removed && x.whole)
        rmdir(locks); /* unless others have locks in it: theirs to remove */
    if (*removed)
        fprintf(out, "removed %s\n", x.what);
done:
    mb_cached_release(&x.c);
    return st;
}

mb_status mb_cache_remove(const mb_hub_name *name, bool (*agreed)(const char *what), FILE *out)
{
    char cache[MB_PATH_MAX], folder[MB_PATH_MAX], all[MB_PATH_MAX], locks[MB_PATH_MAX];
    bool removed = false;

    MB_TRY(mb_hub_cache(cache, sizeof cache));
    MB_TRY(mb_hub_folder(name, folder, sizeof folder));
    MB_TRY(mb_path_join(all, sizeof all, cache, ".locks"));
    MB_TRY(mb_path_join(locks, sizeof locks, all, mb_path_base(folder)));
    while (!removed)
        MB_TRY(ask_and_remove(name, locks, agreed, out, &removed));
    return MB_OK;
}
