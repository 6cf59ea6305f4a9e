/* recipes/hub/depot_inside.h - the hub's server, for the files that make it up. */
#ifndef MB_RECIPES_HUB_DEPOT_INSIDE_H
#define MB_RECIPES_HUB_DEPOT_INSIDE_H

#include <pthread.h>

#include "core/json.h"
#include "recipes/hub/depot.h"
#include "recipes/hub/xet.h"
#include "recipes/serve/http.h"

typedef struct mb_depot_job mb_depot_job;

struct mb_depot {
    mb_xet *xet; /* first: mb_xet_routes ask for it there */
    mb_shelf *shelf;
    mb_http *http;
    char *name, *token;
    bool writable, closed;
    /* one thread for what takes its time */
    pthread_t worker;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    mb_depot_job *first, *last;
    bool working, stop;
};

/* --- asking and answering (depot.c) */

bool mb_depot_knows(const mb_depot *d, const mb_http_request *q); /* it has the token */
/* Answers 401 or 403 and says false. */
bool mb_depot_may_write(const mb_depot *d, mb_http_request *q);
/* A failure of the shelf as the clients want it: status, X-Error-Code. Forgets the record. */
mb_status mb_depot_missed(mb_http_request *q, mb_status st, mb_shelf_miss miss);
mb_status mb_depot_json(mb_http_request *q, int status, mb_json_doc *doc); /* frees doc */
/* "models" in the path; false: 404 was answered. */
bool mb_depot_kind(mb_http_request *q, const char *word, mb_shelf_kind *kind);
/* A repository whoever asks may see. MB_OK and *found, or answered. */
mb_status mb_depot_repo(mb_depot *d, mb_http_request *q, mb_shelf_kind kind, const char *id,
                        mb_shelf_brief *out, bool *found);
/* {kind} and {repo*} of the path, then as above; `write`: the right to do so first. */
mb_status mb_depot_asked(mb_depot *d, mb_http_request *q, bool write, mb_shelf_brief *out,
                         bool *found);
/* "2026-11-29T16:00:00.000Z" */
const char *mb_depot_time(int64_t seconds, char text[32]);
/* The address of a repository or of what is below it. */
mb_status mb_depot_url(const mb_http_request *q, mb_shelf_kind kind, const char *id,
                       const char *below, char **out) MB_MUST_USE;
/* Percent-encoding of all but letters, digits and "-._~/". Owned by the caller. */
mb_status mb_depot_quote(const char *text, char **out) MB_MUST_USE;
int64_t mb_depot_number(const mb_http_request *q, const char *query, int64_t lo, int64_t hi,
                        int64_t otherwise);
bool mb_depot_yes(const mb_http_request *q, const char *query); /* true, True, 1 */
/* A body of JSON, an object. */
mb_status mb_depot_body(const mb_http_request *q, mb_json_doc **out) MB_MUST_USE;
/* MB_EARG: absent. */
mb_status mb_depot_text(mb_json o, const char *key, const char **out) MB_MUST_USE;

/* --- what takes its time (depot_work.c): `run` is called by the worker and must end the reply;
 * `drop` frees `state` afterwards, or when the server stops before. */
mb_status mb_depot_later(mb_depot *d, mb_http_request *q,
                         void (*run)(mb_depot *d, mb_http_reply *r, void *state),
                         void (*drop)(void *state), void *state) MB_MUST_USE;
mb_status mb_depot_work_start(mb_depot *d) MB_MUST_USE;
void mb_depot_work_stop(mb_depot *d);
/* The recorded failure, or a document, as the end of a reply. Frees doc. */
void mb_depot_reply_failed(mb_http_reply *r, mb_status st, mb_shelf_miss miss);
void mb_depot_reply_json(mb_http_reply *r, int status, mb_json_doc *doc);
int mb_depot_miss_status(mb_status st, mb_shelf_miss miss, const char **code);
/* {"error": sentence} in a new document. */
mb_status mb_depot_error_body(const char *sentence, char **out, size_t *n) MB_MUST_USE;

/* --- documents (depot_info.c) */
mb_status mb_depot_set_repo(mb_json to, const mb_shelf_brief *b, const mb_shelf_tree *t,
                            bool full) MB_MUST_USE;
mb_status mb_depot_set_siblings(mb_json to, const mb_shelf_tree *t, bool blobs) MB_MUST_USE;
mb_status mb_depot_set_file(mb_json to, const mb_shelf_file *f, bool tree_form) MB_MUST_USE;
/* What its card or its files say it is for; NULL: they do not. Borrowed from doc, or a literal. */
const char *mb_depot_pipeline(mb_json card);
const char *mb_depot_library(mb_json card, const mb_shelf_tree *t);
/* The card as a document; an empty object where there is none. */
mb_status mb_depot_card(const mb_shelf_tree *t, mb_json_doc **out) MB_MUST_USE;
/* Does a repository fit a search, an author, a filter? */
bool mb_depot_fits(const mb_shelf_brief *b, const char *search, const char *author,
                   const char *filter);
/* Those whoever asks may see and that fit, sorted; released by mb_depot_list_free. */
mb_status mb_depot_list(mb_depot *d, const mb_http_request *q, mb_shelf_kind kind,
                        mb_shelf_brief **out, size_t *n) MB_MUST_USE;
void mb_depot_list_free(mb_shelf_brief *list, size_t n);

/* --- handlers */
#define MB_DEPOT_HANDLER(name) mb_status mb_depot_##name(void *arg, mb_http_request *q)
MB_DEPOT_HANDLER(whoami);
MB_DEPOT_HANDLER(repos);
MB_DEPOT_HANDLER(rest_of_repo);
MB_DEPOT_HANDLER(revision);
MB_DEPOT_HANDLER(refs);
MB_DEPOT_HANDLER(commits);
MB_DEPOT_HANDLER(auth_check);
MB_DEPOT_HANDLER(paths_info);
MB_DEPOT_HANDLER(any_path);
MB_DEPOT_HANDLER(validate_yaml);
MB_DEPOT_HANDLER(create);
MB_DEPOT_HANDLER(delete);
MB_DEPOT_HANDLER(move);
MB_DEPOT_HANDLER(settings);
MB_DEPOT_HANDLER(tag);
MB_DEPOT_HANDLER(branch);
MB_DEPOT_HANDLER(untag);
MB_DEPOT_HANDLER(unbranch);
MB_DEPOT_HANDLER(preupload);
MB_DEPOT_HANDLER(xet_token);
MB_DEPOT_HANDLER(commit);
mb_status mb_depot_commit_begin(void *arg, mb_http_request *q, void **state);
mb_status mb_depot_commit_piece(void *state, const void *data, size_t n);
void mb_depot_commit_drop(void *state);
MB_DEPOT_HANDLER(lfs_batch);
MB_DEPOT_HANDLER(lfs_verify);
MB_DEPOT_HANDLER(lfs_complete);
MB_DEPOT_HANDLER(lfs_put);
mb_status mb_depot_lfs_begin(void *arg, mb_http_request *q, void **state);
mb_status mb_depot_lfs_piece(void *state, const void *data, size_t n);
void mb_depot_lfs_drop(void *state);
MB_DEPOT_HANDLER(home);
MB_DEPOT_HANDLER(style);
/* "REV[/FOLDER]" of a repository: its files. */
mb_status mb_depot_tree(mb_depot *d, mb_http_request *q, const mb_shelf_brief *b, const char *rest);
/* The page of a repository; `id` as in the path, with the kind's prefix taken off. */
mb_status mb_depot_page(mb_depot *d, mb_http_request *q, mb_shelf_kind kind, const char *id);

#endif
