/* recipes/hub/pull_inside.h - what the files of recipes/hub/pull.h share. */
#ifndef MB_RECIPES_HUB_PULL_INSIDE_H
#define MB_RECIPES_HUB_PULL_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/path.h"
#include "recipes/hub/listing.h"
#include "recipes/hub/lock.h"
#include "recipes/hub/pull.h"

/* ---- where files go: pull_place.c */
typedef struct mb_place {
    bool is_cache;
    char root[MB_PATH_MAX];     /* the repository's folder in the cache, or the one given */
    char snapshot[MB_PATH_MAX]; /* where names are; the path for people */
    char parts[MB_PATH_MAX];    /* where what is not whole yet is */
} mb_place;

mb_status mb_place_open(const mb_pull_options *o, const char *commit, mb_place *out) MB_MUST_USE;
/* Makes the folders. */
mb_status mb_place_make(const mb_place *p) MB_MUST_USE;
/* The base of a part, and where a whole file goes, for mb_part_publish. */
mb_status mb_place_part(const mb_place *p, const mb_hub_file *f, char *path) MB_MUST_USE;
mb_status mb_place_whole(const mb_place *p, const mb_hub_file *f, char *path) MB_MUST_USE;
/* Is the file here, of the right size, and (check) with the right digest? */
mb_status mb_place_has(const mb_place *p, const mb_hub_file *f, const char *commit, bool check,
                       bool *has) MB_MUST_USE;
/* After publishing: the name in the snapshot, or the note beside. */
mb_status mb_place_name(const mb_place *p, const mb_hub_file *f, const char *commit) MB_MUST_USE;
/* Another name for the bytes of `from`. */
mb_status mb_place_again(const mb_place *p, const mb_hub_file *from, const mb_hub_file *f,
                         const char *commit) MB_MUST_USE;
/* The branch's commit; a cache only. */
mb_status mb_place_ref(const mb_place *p, const mb_hub_name *name, const char *commit) MB_MUST_USE;

/* ---- one pull: pull.c */
typedef struct mb_pull_job {
    const mb_hub_file *file;
    const mb_hub_file *twin; /* another file with the same bytes, fetched in its place; or NULL */
    bool has;                /* it is here */
    int64_t kept;            /* bytes of it that are here */
} mb_pull_job;

typedef struct mb_pull_run {
    const mb_hub *hub;
    const mb_pull_options *o;
    const char *base[MB_PULL_MAX_MIRRORS + 1]; /* the hub's own address, then the mirrors' */
    size_t n_bases;
    mb_hub_listing listing;
    mb_place place;
    mb_lock lock;     /* of the place */
    mb_pull_job *job; /* one for each wanted file */
    size_t n_jobs;
    int64_t bytes; /* of all wanted files */

    /* Shared by threads. */
    atomic_size_t next;    /* the next job to take */
    atomic_size_t base_at; /* the base that worked last */
    atomic_bool stop;
    atomic_int running;
    atomic_int_fast64_t here; /* bytes that are here */
    atomic_int_fast64_t wire; /* bytes that came in this run */
    atomic_size_t whole;      /* files that are here */
    pthread_mutex_t mutex;    /* of the two below */
    mb_status st;             /* the first failure */
    char sentence[2048];
} mb_pull_run;

/* Fetches and publishes one file; pull_file.c. */
mb_status mb_pull_file(mb_pull_run *r, const mb_pull_job *j) MB_MUST_USE;

/* Draws how far it is, now and then: called often by one thread, between the other two, which are
 * called while there is only one. pull_show.c. */
void mb_pull_show_begin(void);
void mb_pull_show(const mb_pull_run *r);
void mb_pull_show_end(void);

#endif
