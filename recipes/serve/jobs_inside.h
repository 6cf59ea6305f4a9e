/* recipes/serve/jobs_inside.h - what the files behind jobs.h share. */
#ifndef MB_RECIPES_SERVE_JOBS_INSIDE_H
#define MB_RECIPES_SERVE_JOBS_INSIDE_H

#include <pthread.h>

#include "core/json.h"
#include "core/path.h"
#include "recipes/serve/child.h"
#include "recipes/serve/jobs.h"

enum {
    MB_JOBS_ID = 40,
    MB_JOBS_JSON = 1 << 20, /* bytes of a request's or job's JSON */
    MB_JOBS_QUEUED = 64,    /* jobs that wait */
    MB_CHORES_MAX = 8,      /* questions to child processes that wait */
};

/* A job: its document is what lies in .serve/jobs/ID.json. */
typedef struct mb_tuning {
    mb_json_doc *doc;
    mb_child child;
    double asked; /* to stop, by mb_clock; 0: not */
    int signals;  /* sent since */
} mb_tuning;

/* What takes time, mostly a question that a child process answers, and who waits for it. */
typedef struct mb_chore {
    mb_http_reply *reply;
    char **words; /* owned, NULL-terminated */
    const char *type;
    char *file;   /* what to answer with instead of what is printed; removed after; NULL */
    char *folder; /* no question: a run whose model is to be served; NULL */
} mb_chore;

struct mb_jobs {
    mb_jobs_options o;
    char **runs, **folders; /* real paths, NULL-terminated */
    char *state;            /* RUNS/.serve; NULL: nothing is started */
    pthread_mutex_t lock;   /* of what follows */
    pthread_cond_t wake;
    int64_t n_files, upload_bytes; /* uploads, those that are coming with what there is of them */
    mb_tuning **job;               /* by number: in the order of creation */
    size_t n_jobs, jobs_capacity;
    mb_chore chore[MB_CHORES_MAX];
    int n_chores;
    mb_child exporter; /* made.c: pid 0: none */
    bool own_export;   /* this server began it */
    char exported[MB_PATH_MAX];
    atomic_bool ending;
    bool threads; /* keeper and asker were started */
    pthread_t keeper, asker;
};

mb_jobs *mb_jobs_of(void *route_arg);

/* ---- jobs.c */
/* "file-..." with 24 random letters. */
mb_status mb_jobs_new_id(const char *prefix, char out[MB_JOBS_ID]) MB_MUST_USE;
/* prefix, then letters and digits only: fit to be part of a path. */
bool mb_jobs_is_id(const char *id, const char *prefix);
/* state/what/id + suffix. */
mb_status mb_jobs_path(const mb_jobs *j, const char *what, const char *id, const char *suffix,
                       char out[MB_PATH_MAX]) MB_MUST_USE;
/* The real path of something below the folders given. MB_EARG: it is not, or not there. */
mb_status mb_jobs_inside(const mb_jobs *j, const char *path, char out[MB_PATH_MAX]) MB_MUST_USE;
/* A model: an id that is served, or a path. Data: an uploaded file's id, or a path. */
mb_status mb_jobs_model(const mb_jobs *j, const char *what, char out[MB_PATH_MAX],
                        char adapter[MB_PATH_MAX]) MB_MUST_USE;
mb_status mb_jobs_data(const mb_jobs *j, const char *what, char out[MB_PATH_MAX]) MB_MUST_USE;
/* MB_EARG unless runs can be started. */
mb_status mb_jobs_can_train(const mb_jobs *j) MB_MUST_USE;
/* The body as JSON; the caller frees *out. MB_EARG. */
mb_status mb_jobs_body(mb_http_request *q, mb_json_doc **out) MB_MUST_USE;
/* Answers with a document, which is freed, unless `st` is a failure: that is returned. */
mb_status mb_jobs_answer(mb_http_request *q, mb_status st, mb_json_doc *doc);
/* A new document {"object": "list", "data": [...]}, and its data. */
mb_status mb_jobs_list(mb_json_doc **doc, mb_json *data) MB_MUST_USE;
/* has_more, first_id, last_id. */
mb_status mb_jobs_list_end(mb_json list, mb_json data, bool more) MB_MUST_USE;
/* limit (20, at most 1000) and after of a list's query. */
int64_t mb_jobs_limit(const mb_http_request *q);
/* "pid" and "begun" of a child, for the next server; pid 0: none is noted, or none that there can be. */
mb_status mb_jobs_note_child(mb_json object, const mb_child *c) MB_MUST_USE;
mb_status mb_jobs_noted_child(mb_json object, mb_child *out) MB_MUST_USE;
/* A member's string, "" where it is not one. */
const char *mb_jobs_text(mb_json object, const char *key);

/* ---- words.c: from {"model", "data"|"training_file", "recipe", "settings", ...} to the words of a
 * command line, {"verb", ...}, without output_dir; the recipe is written to `recipe_path`. */
mb_status mb_jobs_words(const mb_jobs *j, mb_json request, const char *recipe_path,
                        mb_json words) MB_MUST_USE;
/* words -> owned strings behind `verb`, for child.h. */
mb_status mb_jobs_argv(const char *verb, mb_json words, const char *more, char ***out) MB_MUST_USE;
void mb_jobs_argv_free(char **argv);

/* ---- keeper.c: the thread that starts jobs and sees them end, which takes the lock itself; all else with
 * the lock held, or while no other thread runs. */
void *mb_jobs_keep(void *jobs);
mb_status mb_jobs_load(mb_jobs *j) MB_MUST_USE; /* what was there when the last server ended */
/* MB_EARG: it is larger than what mb_jobs_load reads. */
mb_status mb_tuning_save(const mb_jobs *j, const mb_tuning *t) MB_MUST_USE;
/* Its place in the order of creation, which no clock tells: larger than that of all before it. */
int64_t mb_tuning_number(const mb_tuning *t);
void mb_tuning_free(mb_tuning *t);
/* Of one that is refused or forgotten: what was written of it is removed, too. */
void mb_tuning_drop(const mb_jobs *j, mb_tuning *t);
mb_tuning *mb_tuning_find(const mb_jobs *j, const char *id);          /* NULL */
mb_tuning *mb_tuning_of_folder(const mb_jobs *j, const char *folder); /* the latest; NULL */

/* ---- files.c */
/* What is there when the server starts. */
mb_status mb_jobs_count_files(mb_jobs *j) MB_MUST_USE;
/* The object of an upload, which the caller frees; NULL: there is none, or not all of it. */
mb_json_doc *mb_jobs_file(const mb_jobs *j, const char *id);

/* ---- made.c: the export that goes on, also since before a restart. With the lock held, or while no other
 * thread runs. */
void mb_export_load(mb_jobs *j);
bool mb_export_runs(mb_jobs *j); /* asked often: who has ended is forgotten */
/* Ends one that this server began; what it has not published is removed. */
void mb_export_end(mb_jobs *j);

/* ---- chores.c: takes the chore's words, file and folder in any case. */
mb_status mb_jobs_ask(mb_jobs *j, mb_http_request *q, mb_chore c);
void *mb_jobs_ask_keep(void *jobs);
void mb_jobs_chores_drop(mb_jobs *j);

/* ---- runs.c */
/* The folder that a run's id names. False: none, or not one of runs. */
bool mb_run_folder(const mb_jobs *j, const char *id, char out[MB_PATH_MAX]);
/* The last bytes of a file as text, at most `most`, from a line's beginning; "" where there is none. The
 * caller frees *out. */
mb_status mb_jobs_tail(const char *path, size_t most, char **out, size_t *n) MB_MUST_USE;
/* The model of a run that can be used: its folder `final`; false: there is none. */
bool mb_run_model(const char *folder, char out[MB_PATH_MAX]);
/* The run's last checkpoint. */
bool mb_run_checkpoint(const char *folder, char out[MB_PATH_MAX]);

#endif
