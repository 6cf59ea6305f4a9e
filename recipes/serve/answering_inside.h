/* recipes/serve/answering_inside.h - private to answering*.c. */
#ifndef MB_RECIPES_SERVE_ANSWERING_INSIDE_H
#define MB_RECIPES_SERVE_ANSWERING_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "recipes/serve/answering.h"
#include "recipes/serve/json_rule.h"
#include "recipes/serve/vocab_bytes.h"

enum {
    MB_ANSWERING_STOPS = 16,
    MB_ANSWERING_PROMPTS = 128,
    MB_ANSWERING_BYTES = 64 << 20 /* most of one answer, all its choices together */
};

/* A token whose text has not been told yet; its JSON: chat one piece, else name, logprob, top. */
struct item {
    size_t begin, end; /* bytes of the answer's tokens before and with it */
    int64_t characters;
    mb_bytes json[3];
};

/* Pieces of JSON lists, with commas between. */
struct logprobs {
    mb_bytes list[4]; /* chat: content; else tokens, token_logprobs, top_logprobs, text_offset */
    int64_t n;
    int64_t characters; /* of the tokens so far */
};

struct choice {
    mb_bytes text; /* of a whole answer */
    size_t told, said;
    struct item *item;
    size_t first, n_items, capacity;
    struct logprobs lp;
    mb_finish finish;
    mb_json_rule rule;
    bool begun, ended;
    bool scored; /* the prompt's logprobs are written */
};

/* A prompt and its n choices. */
struct asked {
    struct mb_answering *g;
    mb_ids ids;
    char *text;         /* for echo */
    struct logprobs lp; /* of the prompt, for echo: written with each of its choices */
    int64_t first;      /* choice */
    atomic_ullong ticket;
    bool ended;
};

struct mb_answering {
    mb_api *api;
    mb_offer *offer;
    mb_params p;
    bool chat, json, include_usage;
    int top; /* -1: no logprobs */
    char id[64];
    int64_t created;
    uint64_t client;
    char *stop[MB_ANSWERING_STOPS];
    int64_t n_stop;
    mb_logit_bias *bias;
    int64_t n_bias;
    char *user;

    struct asked *asked;
    int64_t n_asked;
    struct choice *choice;
    int64_t n_choices;

    mb_http_reply *reply;
    pthread_mutex_t lock;
    int open;         /* asks that have not ended, and whoever submits */
    bool begun;       /* of a stream: the head is sent */
    bool broken;      /* by a failure of our own (memory) or because nobody listens */
    mb_status failed; /* MB_OK, or what is sent in place of an answer */
    mb_fault fault;
    char sentence[600];
    double first_token;
    int64_t tokens; /* of answers, so far */
    size_t bytes;   /* of what is kept, or written more than once */
    mb_ask_usage usage;
};

/* answering_heard.c */
/* Sets the callbacks of an ask but on_end. */
void mb_answering_hear(const struct mb_answering *g, mb_ask *ask);
/* The first failure is what is sent in place of an answer. Any thread. */
void mb_answering_fail(struct mb_answering *g, mb_status st, const char *sentence);
void mb_answering_begin_stream(struct mb_answering *g); /* once */

/* answering_json.c: what is sent. All add to *out. */
mb_status mb_answering_token_json(const struct mb_answering *g, const mb_said *t,
                                  mb_bytes json[3]) MB_MUST_USE;
/* Counts bytes of the answer. MB_EARG: there are too many. */
mb_status mb_answering_count(struct mb_answering *g, size_t n, int64_t times) MB_MUST_USE;
/* Moves an item's JSON to the lists, whose first character has number `from` in the text. */
mb_status mb_answering_keep(const struct mb_answering *g, struct logprobs *lp, int64_t from,
                            struct item *it) MB_MUST_USE;
mb_status mb_answering_chunk(struct mb_answering *g, int64_t index, const char *text, size_t n,
                             const char *finish, bool role, mb_bytes *out) MB_MUST_USE;
mb_status mb_answering_usage_chunk(struct mb_answering *g, mb_bytes *out) MB_MUST_USE;
mb_status mb_answering_whole(struct mb_answering *g, mb_bytes *out) MB_MUST_USE;
const char *mb_answering_finish(mb_finish f);

#endif
