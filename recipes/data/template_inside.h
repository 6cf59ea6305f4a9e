/* recipes/data/template_inside.h - what the files template*.c share. */
#ifndef MB_RECIPES_DATA_TEMPLATE_INSIDE_H
#define MB_RECIPES_DATA_TEMPLATE_INSIDE_H

#include <time.h>

#include "recipes/data/template.h"
#include "recipes/jinja/jinja.h"

struct mb_chat {
    char *name, *source;
    mb_jinja *jinja;
    const mb_tokenizer *tok;
    char *system;        /* for conversations without one; NULL: none */
    mb_json_doc *values; /* chat_template_kwargs: an object */
    char *identity;
    time_t now;         /* what strftime_now says */
    const char **token; /* the special tokens; their texts are the tokenizer's */
    size_t n_tokens, token_capacity;
    int32_t turn_end; /* the special token that ends an answer, -1: none */
};

/* A text as it was rendered, owned. */
typedef struct mb_chat_page {
    char *text;
    uint16_t *origin; /* low bits: 1 + the message, or DATA; see recipes/jinja/jinja.h */
    size_t n;
} mb_chat_page;

enum { MB_CHAT_DATA = MB_JINJA_MOST_ORIGINS };

/* A conversation while it is rendered: whole, and up to each of its answers. */
typedef struct mb_chat_job {
    const mb_chat *chat;
    const mb_conversation *talk;
    mb_jinja_run *run;
    mb_jinja_value messages; /* the list, perhaps with a system message put in front */
    size_t shift;            /* 1 if so */
    bool quiet;              /* nothing is said about prompts that do not fit */
} mb_chat_job;

mb_status mb_chat_job_open(const mb_chat *c, const mb_conversation *talk,
                           mb_chat_job *job) MB_MUST_USE;
void mb_chat_job_close(mb_chat_job *job);
/* The first n messages; borrowed until the next one. */
mb_status mb_chat_job_render(mb_chat_job *job, size_t n, bool prompt,
                             mb_jinja_text *out) MB_MUST_USE;

/* Where an answer is, in bytes of the whole text. */
typedef struct mb_chat_span {
    size_t prompt;   /* the text up to here is what generation is given */
    size_t begin;    /* the first trained byte */
    size_t end;      /* behind the last one of the answer */
    size_t turn_end; /* behind the end-of-turn token, == end when there is none */
    bool token;      /* that is a special token */
} mb_chat_span;

/* The span of message k, an assistant's, in `page`. */
mb_status mb_chat_find_answer(mb_chat_job *job, const mb_chat_page *page, size_t k,
                              mb_chat_span *out) MB_MUST_USE;
/* The special token that text[at..n) begins with, its length; 0 when there is none. */
size_t mb_chat_token_at(const mb_chat *c, const char *text, size_t at, size_t n);

#endif
