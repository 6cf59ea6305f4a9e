/* recipes/hub/shelf_inside.h - a shelf in memory, for the files that make it up.
 *
 * `lock` guards what is in memory and is held for moments; `writing` is held by whoever changes
 * something on disk, and taken first. Trees are immutable and counted.
 */
#ifndef MB_RECIPES_HUB_SHELF_INSIDE_H
#define MB_RECIPES_HUB_SHELF_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/json.h"
#include "recipes/hub/shelf.h"

enum {
    MB_SHELF_README_MAX = 1 << 20,
    MB_SHELF_REFS_MAX = 1000,
    MB_SHELF_TREES = 64, /* kept in memory, of each repository */
};

/* What a folder held at the last look, sorted by path: how to know a file again, and what it is. */
typedef struct mb_seen_file {
    mb_shelf_file file;
    int64_t mtime, inode;     /* nanoseconds; */
    char link[MB_DIGEST_HEX]; /* a cache's blob that it links to; "" else */
} mb_seen_file;

typedef struct mb_seen {
    mb_seen_file *files;
    size_t n, capacity;
} mb_seen;

void mb_seen_release(mb_seen *s);
const mb_seen_file *mb_seen_find(const mb_seen *s, const char *path);
/* What is in a folder now, without content. Hidden folders are left out, names that cannot be served
 * too (`skipped` counts). A folder that is missing is empty. */
mb_status mb_seen_walk(const char *dir, mb_seen *out, int64_t *skipped) MB_MUST_USE;
/* Fills in digests: from `before` where size, time and inode are the same, else by reading. `fresh`
 * counts files that were read; *busy: one changed meanwhile or was changed in the last 2 seconds and
 * `patient`. */
mb_status mb_seen_digest(const char *dir, const mb_seen *before, mb_seen *now, bool patient,
                         bool *busy, int64_t *fresh) MB_MUST_USE;
mb_status mb_seen_one(const char *dir, const char *path, mb_seen_file *f) MB_MUST_USE;
mb_status mb_seen_put(mb_seen *s, const mb_seen_file *f) MB_MUST_USE; /* path copied */
void mb_seen_remove(mb_seen *s, const char *path);
/* Is a path one that looks at folders leave out: other programs' work, unless somebody pushed it? */
bool mb_seen_is_left_out(const char *path);
mb_status mb_seen_save(const mb_seen *s, const char *path) MB_MUST_USE;
/* A missing or damaged file is nothing seen. */
mb_status mb_seen_load(const char *path, mb_seen *out) MB_MUST_USE;

typedef struct mb_repo {
    mb_shelf_kind kind;
    char *id;
    char *folder;  /* plain folder, or the cache's; where it is or would be */
    char *records; /* its folder in the store */
    bool cache, hidden, gone;
    bool
        damaged; /* its record: left out, and neither made nor found anew until the hub starts again */
    atomic_bool told; /* that its last commit cannot be read */
    int64_t created;
    mb_shelf_ref *refs;
    size_t n_refs;
    mb_shelf_tree *trees[MB_SHELF_TREES]; /* those last used, newest first */
    mb_seen seen;
    uint64_t changes; /* counts what was done to folder or refs */
} mb_repo;

struct mb_shelf {
    char *dir, *store;
    char id[33], secret[65];
    bool writable;
    double look_again;
    mb_objects *objects;
    pthread_mutex_t lock, writing;
    mb_repo **repos; /* sorted by kind and id; never freed before the shelf is */
    size_t n, capacity;
    int lock_fd;
    pthread_t watcher;
    pthread_cond_t wake;
    bool watching, stop;
};

/* With `lock` held. */
mb_repo *mb_shelf_repo(mb_shelf *s, mb_shelf_kind kind, const char *id);
/* MB_EDATA: its record is damaged. */
mb_status mb_shelf_repo_add(mb_shelf *s, mb_shelf_kind kind, const char *id, mb_repo **out);
const mb_shelf_ref *mb_repo_ref(const mb_repo *r, const char *name);
void mb_repo_keep(mb_repo *r, mb_shelf_tree *t);             /* takes a reference of its own */
mb_shelf_tree *mb_repo_kept(mb_repo *r, const char *commit); /* a new reference, or NULL */

/* The front matter of its README into t->card; nothing that is wrong in it is an error. */
mb_status mb_shelf_tree_card(mb_shelf *s, mb_repo *r, mb_shelf_tree *t) MB_MUST_USE;
mb_status mb_shelf_open_in(mb_shelf *s, mb_repo *r, const mb_shelf_tree *t, const mb_shelf_file *f,
                           int *fd, mb_shelf_miss *miss) MB_MUST_USE;

/* state.json of a repository, of which refs, hidden, created are read or written. */
mb_status mb_repo_save(const mb_repo *r, const mb_shelf_ref *refs, size_t n_refs,
                       bool hidden) MB_MUST_USE;
mb_status mb_repo_load(mb_repo *r) MB_MUST_USE;
/* Copies with one ref set to a commit, or (commit NULL) removed. */
mb_status mb_refs_with(const mb_shelf_ref *refs, size_t n, const char *name, bool tag,
                       const char *commit, mb_shelf_ref **out, size_t *n_out) MB_MUST_USE;
/* Puts new refs, already saved, into memory; takes them. */
void mb_repo_set_refs(mb_shelf *s, mb_repo *r, mb_shelf_ref *refs, size_t n);

/* Looks at one folder; with `writing` not held. */
mb_status mb_shelf_look_folder(mb_shelf *s, mb_repo *r, bool patient) MB_MUST_USE;
mb_status mb_shelf_look_cache(mb_shelf *s, mb_repo *r) MB_MUST_USE;
/* Brings the folder from what `old` (NULL: nothing) has to what `now` has; with `writing` held. What the
 * store does not have is put away first. */
mb_status mb_shelf_follow(mb_shelf *s, mb_repo *r, const mb_shelf_tree *old,
                          const mb_shelf_tree *now) MB_MUST_USE;
/* A file or folder to the store's "removed", under a name that says when; beside the repositories where
 * the store is on another file system. Nothing there is fine. */
mb_status mb_shelf_put_away(mb_shelf *s, const char *path, const char *what) MB_MUST_USE;
/* Makes `t` (its files, words and date set) the commit after the branch's, saved and named; with
 * `writing` held. */
mb_status mb_shelf_publish(mb_shelf *s, mb_repo *r, const char *branch, mb_shelf_tree *t,
                           const mb_shelf_tree *parent) MB_MUST_USE;

#endif
