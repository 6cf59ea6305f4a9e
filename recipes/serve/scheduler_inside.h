/* recipes/serve/scheduler_inside.h - what the files of the scheduler share.
 *
 *     scheduler.c          asking, waiting, the thread
 *     scheduler_memory.c   models, caches, places
 *     scheduler_step.c     who gets blocks and rows of a forward; what is found of a prompt
 *     scheduler_answer.c   a token picked, told, its text, the end
 *
 * Only `waiting`, `open`, calls, flags and `shown` are read by other threads, under the lock; the rest is
 * the scheduler's thread's own.
 */
#ifndef MB_RECIPES_SERVE_SCHEDULER_INSIDE_H
#define MB_RECIPES_SERVE_SCHEDULER_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/log.h"
#include "recipes/generate/telling.h"
#include "recipes/serve/scheduler.h"

enum { MB_SCHEDULER_MODELS = 64, MB_SCORE_ROWS = 64 };

/* An ask as it is kept. */
typedef struct mb_open_ask {
    mb_ask a; /* its lists are in `memory` */
    void *memory;
    mb_stop_texts stop;
    mb_ticket ticket;
    atomic_bool cancelled;
    struct mb_open_ask *next_waiting, *next_open;
    /* of the thread */
    int64_t begun, ended; /* choices */
    bool read;            /* a choice has read the prompt: others find it */
    double asked, started, first_token;
    mb_ask_usage usage;
    const char *failure; /* of one of its choices */
    char sentence[512];
} mb_open_ask;

/* Where a choice is answered. */
typedef struct mb_place {
    mb_open_ask *ask; /* NULL: free */
    int64_t choice;
    int32_t *id; /* (most context) prompt and answer */
    int64_t n_prompt, n;
    int64_t cached;   /* keys and values of id[0..cached) are in its blocks */
    int32_t *block;   /* (most columns) */
    int64_t n_blocks; /* of them held */
    int64_t known;    /* blocks that are known, or were found; `number` stands for them */
    uint64_t number;
    bool stalled; /* gave up its blocks */
    bool scores;  /* the prompt's tokens are told */
    int64_t scored;
    int64_t piece; /* tokens in the forward that is being made */
    mb_detokenizer *detokenizer[MB_SCHEDULER_MODELS];
    mb_telling telling; /* where somebody wants the text */
} mb_place;

/* Keys and values of models that share them. */
typedef struct mb_pool {
    mb_blocks *blocks;
    mb_arena *memory;
    size_t bytes;
    mb_kv_pages *pages; /* per layer; tables are the models' */
    int64_t layers, kv_heads, head_dim;
} mb_pool;

typedef struct mb_served_model {
    mb_served m;
    int pool;
    int64_t vocab, columns;
    mb_kv_cache cache;
    mb_kv_pages *pages;
    int32_t *table; /* (n_seq, columns) of the forward */
    mb_batch *batch;
    mb_picker *picker;
    float *score;  /* (vocab) */
    int32_t *row;  /* logits wanted */
    mb_place **in; /* (n_seq) sequences of the forward */
} mb_served_model;

typedef struct mb_waiting_call {
    mb_status (*fn)(void *arg);
    void *arg;
    mb_status st;
    bool done;
    char sentence[1024];
    struct mb_waiting_call *next;
} mb_waiting_call;

struct mb_scheduler {
    mb_scheduler_options o;
    int n_models, n_pools;
    mb_served_model model[MB_SCHEDULER_MODELS];
    mb_pool pool[MB_SCHEDULER_MODELS];
    mb_place *place;  /* (n_seq) */
    int32_t *ids;     /* theirs */
    int32_t *columns; /* theirs */
    mb_place **order; /* those at work, the oldest ask first */
    int64_t n_order;
    int turn;                 /* the model whose forward comes next */
    mb_scheduler_stats stats; /* of the thread; `shown` is a copy */

    pthread_mutex_t lock;
    pthread_cond_t work, done; /* there is some; a call was made */
    pthread_t thread;
    bool started, ends, any_cancelled;
    mb_open_ask *waiting, **waiting_end, *open; /* open: all, waiting ones too */
    int64_t n_waiting;                          /* asks of which no choice has begun */
    mb_waiting_call *calls, **calls_end;
    mb_ticket tickets;
    int64_t asks, refused;
    mb_scheduler_stats shown;
};

/* scheduler.c */
/* What goes on now is what others read. The scheduler's thread, with the lock held. */
void mb_scheduler_show(mb_scheduler *s);

/* scheduler_memory.c */
mb_status mb_scheduler_take_places(mb_scheduler *s) MB_MUST_USE;
void mb_scheduler_release(mb_scheduler *s);

/* scheduler_step.c */
/* One forward of model `m`, if any of its sequences can go on; *ran. */
void mb_scheduler_step(mb_scheduler *s, int m, bool *ran);
/* Room for the prompt, without anybody giving up blocks? */
bool mb_scheduler_fits(const mb_scheduler *s, const mb_ask *a);
/* The choice's place begins to read. */
void mb_place_begin(mb_scheduler *s, mb_place *p, mb_open_ask *a, int64_t choice);
/* Gives back its blocks and itself. */
void mb_place_leave(mb_scheduler *s, mb_place *p);

/* scheduler_answer.c */
/* Tells of a token of the prompt: number p->scored, by the logits before it. */
void mb_place_score(mb_scheduler *s, mb_place *p, const float *logits);
/* The next token of the answer, by the logits of the last. May end the choice. */
void mb_place_pick(mb_scheduler *s, mb_place *p, const float *logits);
void mb_place_finish(mb_scheduler *s, mb_place *p, mb_finish why);
/* Something went wrong (the recorded sentence, which is forgotten): the whole ask ends. */
void mb_place_fail(mb_scheduler *s, mb_place *p);
/* Ends an ask all of whose places have left. */
void mb_ask_end(mb_scheduler *s, mb_open_ask *a);
mb_status mb_place_ready(mb_scheduler *s, mb_place *p) MB_MUST_USE;

#endif
