/* recipes/hub/push_inside.h - the parts of a push: the folder, secrets, card, large files, commits. */
#ifndef MB_RECIPES_HUB_PUSH_INSIDE_H
#define MB_RECIPES_HUB_PUSH_INSIDE_H

#include "core/digest.h"
#include "recipes/hub/push.h"

enum { MB_PUSH_COMMIT = 41, MB_PUSH_GROUP = 256 };

typedef struct mb_push_file {
    char *name; /* in the repository */
    char *path; /* on this machine; NULL: `text` */
    char *text;
    int64_t size;
    char sha256[MB_DIGEST_HEX]; /* "" until it is needed */
    bool lfs;                   /* goes as a large file, its content before the commit */
    bool ignored;               /* the hub leaves it out (.gitignore) */
    bool same;                  /* the hub has it, under this name */
} mb_push_file;

typedef struct mb_push_list {
    mb_push_file *at; /* sorted by name */
    size_t n, capacity;
    int skipped; /* not regular files, patterns, what is never sent */
} mb_push_list;

typedef struct mb_push_run {
    const mb_hub *hub;
    const mb_push_options *o;
    const char *revision;
    char escaped[3 * MB_HUB_REVISION_MAX]; /* for addresses */
    char parent[MB_PUSH_COMMIT];           /* the branch's commit; "": nothing is there yet */
    mb_push_list files;
    int commits, added, same, had, sent; /* commits; files; contents of large files */
    int64_t sent_bytes;
} mb_push_run;

/* --- push_files.c */
mb_status mb_push_list_read(const mb_push_options *o, mb_push_list *out) MB_MUST_USE;
void mb_push_list_release(mb_push_list *l);
/* Takes the text. */
mb_status mb_push_list_add_text(mb_push_list *l, const char *name, char *text) MB_MUST_USE;
/* n bytes at `at`; MB_EIO also when the file is shorter by now. */
mb_status mb_push_file_read(const mb_push_file *f, int64_t at, void *to, size_t n) MB_MUST_USE;
mb_status mb_push_file_sha256(mb_push_file *f) MB_MUST_USE;
mb_status mb_push_file_git(const mb_push_file *f, char hex[MB_DIGEST_HEX]) MB_MUST_USE;

/* --- push_secrets.c: MB_EDATA names the first files that look like one. */
mb_status mb_push_secrets(const mb_push_options *o, const mb_push_list *l) MB_MUST_USE;

/* --- push_card.c: the card's text, for a folder without README.md; the caller owns it. */
mb_status mb_push_card(const mb_push_options *o, char **text) MB_MUST_USE;

/* --- push_lfs.c: contents of the large ones among n files, as far as the hub lacks them. */
mb_status mb_push_contents(mb_push_run *p, mb_push_file *const *files, size_t n) MB_MUST_USE;

/* --- push.c: the branch's commit goes to p->parent, "" when there is no such branch; *there: the
 * repository is. */
mb_status mb_push_look(mb_push_run *p, bool *there) MB_MUST_USE;

/* --- push_commit.c */
/* POST of a JSON document, answered by one (out NULL: it is not looked at). */
mb_status mb_push_post(mb_push_run *p, const char *url, const char *what, mb_json body, bool lfs,
                       mb_json_doc **out) MB_MUST_USE;
/* Asks which of n <= 256 files go how, and which are there already. */
mb_status mb_push_compare(mb_push_run *p, mb_push_file *files, size_t n) MB_MUST_USE;
/* One commit, or several when the small files among n are many bytes. */
mb_status mb_push_commit(mb_push_run *p, mb_push_file *const *files, size_t n,
                         const char *message) MB_MUST_USE;

#endif
