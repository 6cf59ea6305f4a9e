/* recipes/hub/shelf_tree.h - a commit: who, when, what about, and the list of its files.
 *
 *     MB_TRY(mb_shelf_tree_new(&t));
 *     MB_TRY_GOTO(mb_shelf_tree_put(t, &file), st, done);       file.path is copied
 *     MB_TRY_GOTO(mb_shelf_tree_save(t, folder), st, done);     makes its id, writes folder/ID.json
 *     ...
 *     mb_shelf_tree_unref(t);
 *
 * Once it has an id a tree does not change, and any number of threads may read it; each holds a
 * reference. The id is the SHA-1 of the file's text, so that a damaged file is found when it is read.
 * It says nothing of the moment it was made but its date: the same files with the same words at the
 * same time have the same id on every machine.
 */
#ifndef MB_RECIPES_HUB_SHELF_TREE_H
#define MB_RECIPES_HUB_SHELF_TREE_H

#include <stdatomic.h>

#include "core/digest.h"
#include "recipes/hub/shelf_name.h"

enum { MB_SHELF_FILES_MAX = 100000 };

typedef struct mb_shelf_file {
    char *path;
    int64_t size;
    char oid[MB_SHELF_OID];     /* git's: of the file, or of its LFS pointer */
    char sha256[MB_DIGEST_HEX]; /* "" where nobody knows it: small files of another's cache */
    char last[MB_SHELF_OID];    /* the commit that changed it last; "" in a file: this one */
    bool lfs;                   /* clients know it by its sha256, not by git's name */
} mb_shelf_file;

typedef struct mb_shelf_tree {
    char commit[MB_SHELF_OID], parent[MB_SHELF_OID]; /* parent "": none */
    char *title, *message, *author;                  /* never NULL once saved or read */
    int64_t date;                                    /* seconds of Unix */
    mb_shelf_file *files;                            /* sorted by path */
    size_t n, capacity;
    char *card; /* the front matter of README.md as JSON; NULL: none */
    atomic_int refs;
} mb_shelf_tree;

mb_status mb_shelf_tree_new(mb_shelf_tree **out) MB_MUST_USE; /* one reference */
mb_shelf_tree *mb_shelf_tree_ref(mb_shelf_tree *t);           /* returns t */
void mb_shelf_tree_unref(mb_shelf_tree *t);                   /* NULL is allowed */
/* A copy of the list of files, to be changed. */
mb_status mb_shelf_tree_copy(const mb_shelf_tree *from, mb_shelf_tree **out) MB_MUST_USE;
mb_status mb_shelf_tree_words(mb_shelf_tree *t, const char *title, const char *message,
                              const char *author) MB_MUST_USE;

/* Adds or replaces. MB_EDATA: too many files, or a file where a folder is or the reverse. */
mb_status mb_shelf_tree_put(mb_shelf_tree *t, const mb_shelf_file *file) MB_MUST_USE;
/* Removes a file, or (folder) everything below `path`. False: nothing was there. */
bool mb_shelf_tree_remove(mb_shelf_tree *t, const char *path, bool folder);
const mb_shelf_file *mb_shelf_tree_find(const mb_shelf_tree *t, const char *path); /* NULL: none */
/* The first file whose path is not before `path`; t->n: none. */
size_t mb_shelf_tree_from(const mb_shelf_tree *t, const char *path);
bool mb_shelf_tree_has_folder(const mb_shelf_tree *t, const char *path); /* "": always */
/* The same paths with the same content? */
bool mb_shelf_tree_same(const mb_shelf_tree *a, const mb_shelf_tree *b);
/* The same content? By sha256 where both have it, else by git's name. */
bool mb_shelf_file_same(const mb_shelf_file *a, const mb_shelf_file *b);

/* Sets t->commit and writes `folder`/ID.json, whole or not at all. */
mb_status mb_shelf_tree_save(mb_shelf_tree *t, const char *folder) MB_MUST_USE;
/* MB_EDATA: the file is damaged or not one of ours; it says where. */
mb_status mb_shelf_tree_read(const char *folder, const char *commit,
                             mb_shelf_tree **out) MB_MUST_USE;

/* Git's name of the pointer that stands for an LFS file; and the bytes of that pointer. */
mb_status mb_shelf_pointer(const char *sha256, int64_t size, char oid[MB_SHELF_OID],
                           int64_t *bytes) MB_MUST_USE;
/* Is a file that begins so one for LFS? Large, or not text. */
bool mb_shelf_is_lfs(int64_t size, const void *start, size_t n);

#endif
