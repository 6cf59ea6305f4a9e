/* recipes/serve/jobs.h - what the server does besides answering for models: files that are uploaded,
 * runs that are started, watched and stopped, and the page that shows all of it.
 *
 *     MB_TRY(mb_jobs_open(&(mb_jobs_options){.runs = folders, .offer = offer, .arg = a}, &jobs));
 *     ... routes: mb_routes_page, mb_routes_files, mb_routes_tuning, mb_routes_runs, mb_routes_made
 *     mb_jobs_close(jobs);
 *
 * The arg of those routes must be a struct whose first member is the mb_jobs *.
 *
 *     GET  /, /NAME                       the page (page_files.h)
 *     /v1/files, /v1/fine_tuning/jobs     OpenAI's routes
 *     /mbuyu/info, choices, runs, run/..., inspect, plan      what the page asks besides
 *
 * A run is `mbuyu train` as a child process, one at a time, others wait. It goes on when the server
 * ends: what is known of files and jobs lies in RUNS/.serve, and a server that is started again finds
 * them there. Paths that a client names must lie below the folders given. Thread-safe.
 */
#ifndef MB_RECIPES_SERVE_JOBS_H
#define MB_RECIPES_SERVE_JOBS_H

#include "recipes/serve/http.h"

typedef struct mb_jobs mb_jobs;

typedef struct mb_jobs_options {
    const char *const
        *runs; /* folders of runs, NULL-terminated; new ones go into the first, which is
                                   made; NULL or none: nothing is started and nothing uploaded */
    const char *const
        *folders;        /* where models and data may lie besides; NULL-terminated, or NULL */
    int64_t upload_max;  /* bytes of an uploaded file; 0: 512 MiB */
    int64_t uploads_max; /* bytes of all of them; 0: 16 GiB */
    int64_t files_max;   /* how many; 0: 1000 */
    int64_t jobs_max; /* ended jobs that are remembered: the oldest are forgotten, their runs stay;
                          * 0: 500 */
    void *arg;
    /* The folder or file of the model that is served under this id, and of its adapter ("": none);
     * false: there is no such id. Optional: none is served. */
    bool (*path_of)(void *arg, const char *id, char *model, char *adapter, size_t size);
    /* A model that was made: to be served, perhaps under the name of its run; the id it got. Called by
     * threads that may wait. Optional: none is. */
    mb_status (*offer)(void *arg, const char *path, const char *name, char *id, size_t size);
} mb_jobs_options;

/* Strings are copied. The caller owns *out. MB_EARG: a folder that is not there. */
mb_status mb_jobs_open(const mb_jobs_options *o, mb_jobs **out) MB_MUST_USE;
/* Children go on. NULL is allowed. */
void mb_jobs_close(mb_jobs *j);

extern const mb_http_route mb_routes_page[], mb_routes_files[], mb_routes_tuning[],
    mb_routes_runs[], mb_routes_made[]; /* each ended by {0} */

#endif
