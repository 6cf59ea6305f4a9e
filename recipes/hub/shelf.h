/* recipes/hub/shelf.h - repositories of models, datasets and spaces on disk, with revisions.
 *
 *     MB_TRY(mb_shelf_open(&(mb_shelf_options){.dir = "/srv/models"}, &shelf));
 *     MB_TRY(mb_shelf_tree_get(shelf, MB_SHELF_MODEL, "org/name", "main", &tree, &miss));
 *     MB_TRY(mb_shelf_file_open(shelf, MB_SHELF_MODEL, "org/name", tree, file, &fd));
 *     ...
 *     mb_shelf_tree_unref(tree);
 *     mb_shelf_close(shelf);
 *
 * What is found below `dir` (below its data/, where it is an unpacked bag):
 *
 *     models/org/name/...               a plain folder, as `mbuyu bundle` and people make them; so for
 *                                       datasets and spaces; "name" without "org" when it holds files
 *     models--org--name/...             the cache of Python's hub client, also below hub/: its commits,
 *                                       revisions and blobs are served as they are, and take no commits
 *
 * A plain folder gets revisions from a store of our own: content by SHA-256, a file for each commit,
 * one for the state of each repository. The folder is looked at when the shelf is opened and every few
 * seconds; files that were added, changed or removed since the last look become a commit. Digests are
 * kept with size, time and inode of what they are of, so that nothing is read twice. Commits made
 * through mb_shelf_commit go to the store and to the folder: as shared blocks, links or copies.
 *
 * The store is `dir`/.mbuyu-hub where that is there or writes are wanted; otherwise a folder below the
 * user's cache, so that a stick or an archive is not changed by being served.
 *
 * A commit exists when the state of its repository names it; that file is replaced by rename after
 * everything it needs is on disk. Thread-safe; writers wait for one another. One process at a time
 * has a store open.
 */
#ifndef MB_RECIPES_HUB_SHELF_H
#define MB_RECIPES_HUB_SHELF_H

#include "recipes/hub/shelf_objects.h"
#include "recipes/hub/shelf_tree.h"

typedef struct mb_shelf mb_shelf;

typedef struct mb_shelf_options {
    const char *dir;
    const char *store; /* NULL: as said above */
    bool writable;
    double look_again; /* seconds between looks; 0: 3; negative: never */
} mb_shelf_options;

/* Why something was not given. What is not said by it is a failure of the disk. */
typedef enum mb_shelf_miss {
    MB_SHELF_NO_MISS,
    MB_SHELF_NO_REPO,
    MB_SHELF_NO_REVISION,
    MB_SHELF_NO_FILE,
    MB_SHELF_EXISTS,    /* a repository, branch or tag of that name is there */
    MB_SHELF_MOVED_ON,  /* the commit to build upon is no longer the last */
    MB_SHELF_READ_ONLY, /* of a cache, or the shelf was not opened for writing */
    MB_SHELF_WRONG,     /* names or content that cannot be */
} mb_shelf_miss;

/* Everything is looked at before it returns: new files are read once. */
mb_status mb_shelf_open(const mb_shelf_options *o, mb_shelf **out) MB_MUST_USE;
void mb_shelf_close(mb_shelf *s); /* NULL is allowed */
mb_objects *mb_shelf_objects(mb_shelf *s);
const char *mb_shelf_store(const mb_shelf *s); /* its folder */
/* 32 hexadecimal digits that stay with the store; and 64 that nobody else should know. */
const char *mb_shelf_id(const mb_shelf *s);
const char *mb_shelf_secret(const mb_shelf *s);
/* Looks at all folders now. */
mb_status mb_shelf_look(mb_shelf *s) MB_MUST_USE;

/* A repository as it stands. `main` is a reference of the caller's. */
typedef struct mb_shelf_brief {
    char id[MB_SHELF_ID_MAX];
    mb_shelf_kind kind;
    bool hidden; /* private: shown to those with the token */
    bool copy;   /* of another hub: takes no commits */
    int64_t created, modified;
    mb_shelf_tree *main; /* NULL: no commit yet */
} mb_shelf_brief;
void mb_shelf_brief_release(mb_shelf_brief *b);

/* Failures of the functions below have *miss set. */
mb_status mb_shelf_find(mb_shelf *s, mb_shelf_kind kind, const char *id, mb_shelf_brief *out,
                        mb_shelf_miss *miss) MB_MUST_USE;
/* All of a kind, sorted by id. The caller releases each and frees the list with mb_free. */
mb_status mb_shelf_list(mb_shelf *s, mb_shelf_kind kind, mb_shelf_brief **out,
                        size_t *n) MB_MUST_USE;
/* `rev`: a branch, a tag, "refs/heads/...", a commit or the first 7 or more digits of one. */
mb_status mb_shelf_tree_get(mb_shelf *s, mb_shelf_kind kind, const char *id, const char *rev,
                            mb_shelf_tree **out, mb_shelf_miss *miss) MB_MUST_USE;
/* The content of a file of that tree; the caller closes *fd. MB_SHELF_NO_FILE: it was in a folder and
 * is no longer there. */
mb_status mb_shelf_file_open(mb_shelf *s, mb_shelf_kind kind, const char *id,
                             const mb_shelf_tree *t, const mb_shelf_file *f, int *fd,
                             mb_shelf_miss *miss) MB_MUST_USE;
/* The same in memory; MB_EDATA above `most` bytes. */
mb_status mb_shelf_file_text(mb_shelf *s, mb_shelf_kind kind, const char *id,
                             const mb_shelf_tree *t, const char *path, size_t most, char **out,
                             size_t *n) MB_MUST_USE;

typedef struct mb_shelf_ref {
    char *name;
    bool tag;
    char commit[MB_SHELF_OID];
} mb_shelf_ref;
mb_status mb_shelf_refs(mb_shelf *s, mb_shelf_kind kind, const char *id, mb_shelf_ref **out,
                        size_t *n, mb_shelf_miss *miss) MB_MUST_USE;
void mb_shelf_refs_free(mb_shelf_ref *refs, size_t n);

/* --- writing. Done, on disk, when they return. */
mb_status mb_shelf_create(mb_shelf *s, mb_shelf_kind kind, const char *id, bool hidden,
                          mb_shelf_miss *miss) MB_MUST_USE;
/* What a plain folder held is moved below the store's "removed". */
mb_status mb_shelf_delete(mb_shelf *s, mb_shelf_kind kind, const char *id,
                          mb_shelf_miss *miss) MB_MUST_USE;
mb_status mb_shelf_move(mb_shelf *s, mb_shelf_kind kind, const char *id, const char *to,
                        mb_shelf_miss *miss) MB_MUST_USE;
mb_status mb_shelf_hide(mb_shelf *s, mb_shelf_kind kind, const char *id, bool hidden,
                        mb_shelf_miss *miss) MB_MUST_USE;
/* A new branch or tag at a revision. */
mb_status mb_shelf_ref_new(mb_shelf *s, mb_shelf_kind kind, const char *id, const char *name,
                           bool tag, const char *rev, mb_shelf_miss *miss) MB_MUST_USE;
mb_status mb_shelf_ref_delete(mb_shelf *s, mb_shelf_kind kind, const char *id, const char *name,
                              bool tag, mb_shelf_miss *miss) MB_MUST_USE;

typedef struct mb_shelf_change {
    enum { MB_SHELF_PUT, MB_SHELF_COPY, MB_SHELF_DELETE, MB_SHELF_DELETE_FOLDER } what;
    char *path;
    char sha256[MB_DIGEST_HEX]; /* PUT: of an object that is in the store */
    char oid[MB_SHELF_OID];     /* PUT, unless lfs: git's name of it */
    int64_t size;
    bool lfs;
    char *from, *from_rev; /* COPY: a path, at a revision (NULL: the branch) */
} mb_shelf_change;

typedef struct mb_shelf_draft {
    const char *branch; /* "main" exists always */
    const char *parent; /* the commit it must follow, or NULL */
    const char *title, *message, *author;
    const mb_shelf_change *changes;
    size_t n;
} mb_shelf_draft;

/* *out is the new commit, or the last one when nothing is changed. */
mb_status mb_shelf_commit(mb_shelf *s, mb_shelf_kind kind, const char *id, const mb_shelf_draft *d,
                          mb_shelf_tree **out, mb_shelf_miss *miss) MB_MUST_USE;

#endif
