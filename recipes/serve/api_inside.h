/* recipes/serve/api_inside.h - private to api.c, work.c, offers.c and routes_state.c. */
#ifndef MB_RECIPES_SERVE_API_INSIDE_H
#define MB_RECIPES_SERVE_API_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "recipes/serve/api.h"
#include "recipes/serve/jobs.h"

enum { MB_API_COUNTED = 16 };

struct waiting {
    const mb_work *work;
    void *own;
    mb_http_reply *reply;
    size_t bytes; /* of its body, which what is kept of it is about as large as */
};

struct mb_api {
    mb_jobs *jobs; /* first: where its routes look for it */
    mb_api_options o;
    mb_scheduler *scheduler;
    mb_bases *bases;
    mb_http *http;
    mb_http_route *route;
    mb_offer **offer;
    atomic_int n_offers;    /* only grows; whoever sees it may use those before */
    pthread_mutex_t adding; /* one model at a time */
    atomic_bool running;
    double since; /* mb_clock at the start */
    pthread_mutex_t lock;
    /* work.c: a ring of o.queue places */
    pthread_cond_t changed;
    pthread_t worker;
    bool works, stops, busy;
    struct waiting *waiting;
    int64_t first, n_waiting;
    size_t bytes; /* of those that wait and the one at work */
    struct counted {
        const char *route;
        int64_t requests, tokens_in, tokens_out;
    } counted[MB_API_COUNTED];
};

/* The body as a JSON object; the caller frees *out. MB_EARG. */
mb_status mb_api_body(mb_http_request *q, mb_json_doc **out) MB_MUST_USE;

mb_status mb_api_work_start(mb_api *a) MB_MUST_USE;
/* Waits for what is at work; drops what waits. */
void mb_api_work_stop(mb_api *a);

/* api_jobs.c: uploads, runs and the page, which may offer what a run has made. */
mb_status mb_api_jobs_start(mb_api *a) MB_MUST_USE;

/* offers.c */
mb_status mb_offer_open(mb_api *a, const char *model, int n_words, char **word,
                        mb_offer **out) MB_MUST_USE;
void mb_offer_close(mb_offer *o);

#endif
