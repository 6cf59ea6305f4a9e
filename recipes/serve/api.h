/* recipes/serve/api.h - models behind OpenAI's API: what is on offer, and who answers.
 *
 *     mb_api *a;
 *     MB_TRY(mb_api_new(&(mb_api_options){.n_seq = 8}, &a));
 *     MB_TRY(mb_api_offer(a, "models/smollm2", n_words, words));   // reads the model
 *     MB_TRY(mb_api_start(a, &(mb_http_options){.port = 8080}));    // listens
 *     ...
 *     mb_api_free(a);
 *
 * Handlers (routes_*.c) run on the server's threads and must not wait. Text comes from the scheduler
 * (scheduler.h), whose thread calls them back; everything else is a piece of work (mb_api_work) for one
 * thread of ours, which lends the scheduler's for each forward.
 *
 * Every answer carries a content security policy and no-store; errors have OpenAI's shape.
 */
#ifndef MB_RECIPES_SERVE_API_H
#define MB_RECIPES_SERVE_API_H

#include "recipes/generate/open.h"
#include "recipes/serve/fault.h"
#include "recipes/serve/http.h"
#include "recipes/serve/multipart.h"
#include "recipes/serve/scheduler.h"
#include "recipes/tokenizers/bytes.h"

enum { MB_API_CONTEXT = 4096 }; /* most tokens of a text unless it is said otherwise */

typedef struct mb_api mb_api;
typedef struct mb_offer mb_offer;

/* What a model does for its callers. */
typedef enum mb_offer_kind {
    MB_OFFER_TEXT,        /* chat, completions */
    MB_OFFER_VECTORS,     /* embeddings */
    MB_OFFER_CLASSES,     /* of texts */
    MB_OFFER_PICTURES,    /* classes of pictures */
    MB_OFFER_TRANSLATION, /* text to text */
    MB_OFFER_SPEECH,      /* sound to text */
    MB_OFFER_KINDS
} mb_offer_kind;
const char *mb_offer_kind_name(mb_offer_kind k); /* for people: "classes of texts" */
/* "text", "embeddings", "text-classification", "image-classification", "translation", "transcription" */
const char *mb_offer_task(mb_offer_kind k);

struct mb_offer {
    char *id;   /* "smollm2", or "base:adapter" */
    char *path; /* as it was given */
    mb_offer_kind kind;
    int64_t created; /* seconds since 1970: of the model's file */
    int64_t changed; /* mb_path_changed of the path, before it was read */
    mb_recipe *recipe;
    mb_json_doc *config; /* config.json */
    int64_t context;     /* most tokens of a prompt with its answer; of others of what is read */
    mb_writer writer;    /* TEXT */
    int number;          /* TEXT: the scheduler's */
    struct mb_vocab_bytes *pieces;
    void *own; /* other kinds: of their file */
};

typedef struct mb_api_options {
    int64_t n_seq;        /* answers at work; 0: 8 */
    int64_t queue;        /* asks that may wait; 0: 64 */
    int64_t context;      /* 0: the model's positions, at most 4096 */
    int64_t cache_tokens; /* of all sequences together; 0: half of n_seq contexts, at least one */
    const char *key;      /* NULL: none is asked for */
    /* jobs.h: folders of runs, folders with models and data; NULL-terminated lists, or NULL */
    const char *const *runs, *const *folders;
    int64_t upload_max, uploads_max, files_max, jobs_max; /* 0: as jobs.h says */
    int n_words;                                          /* recipe keys of models that runs make */
    char **word;                                          /* borrowed */
} mb_api_options;

/* The caller owns *out. */
mb_status mb_api_new(const mb_api_options *o, mb_api **out) MB_MUST_USE;
/* Opens "PATH" or "NAME=PATH": a model's folder, a .gguf, an adapter, or a run's folder (its final model);
 * `word` are recipe keys for it. */
mb_status mb_api_offer(mb_api *a, const char *model, int n_words, char **word) MB_MUST_USE;
/* Adds a model to the scheduler, whether it has started or not. Not from its thread. */
mb_status mb_api_schedule(mb_api *a, const mb_served *served, int *number) MB_MUST_USE;
/* Starts everything. address, port and hosts are taken from `o`. */
mb_status mb_api_start(mb_api *a, const mb_http_options *o) MB_MUST_USE;
int mb_api_port(const mb_api *a);
/* Ends what is open. NULL is allowed. */
void mb_api_free(mb_api *a);

/* ---- for handlers ------------------------------------------------------------------------- */

const mb_api_options *mb_api_has(const mb_api *a);
mb_scheduler *mb_api_scheduler(const mb_api *a);
mb_bases *mb_api_bases(const mb_api *a); /* of all models on offer */
int mb_api_offers(const mb_api *a);
mb_offer *mb_api_offer_at(const mb_api *a, int i);
mb_offer *mb_api_find(const mb_api *a, const char *id); /* NULL: there is none */
/* The offer of this kind that `id` names; the first of the kind where it is NULL. MB_EARG: none (404), or
 * one of another kind. */
mb_status mb_api_choose(const mb_api *a, const char *id, mb_offer_kind kind, mb_offer **out,
                        mb_fault *f) MB_MUST_USE;
/* The one that the member `model` of a request names. */
mb_status mb_api_choose_in(const mb_api *a, mb_json request, mb_offer_kind kind, mb_offer **out,
                           mb_fault *f) MB_MUST_USE;

/* A request whose body is a JSON object, `request`: `ask` answers it, or has it answered. A failure is
 * refused as the fault says. Handlers end with it. */
typedef mb_status (*mb_api_asker)(mb_api *a, mb_http_request *q, mb_json request, mb_fault *f);
mb_status mb_api_ask(mb_api *a, mb_http_request *q, mb_api_asker ask);
/* Answers with the JSON `text`, which it releases, unless `st` is a failure: that is returned. */
mb_status mb_api_answer(mb_http_request *q, mb_status st, mb_bytes *text);
/* Answers in OpenAI's shape what is recorded, as the fault says; `st` is the failure. Handlers end with
 * it; MB_OK is returned. */
mb_status mb_api_refuse(mb_http_request *q, mb_status st, const mb_fault *f);
/* {"error":{...}} */
mb_status mb_api_error_text(mb_bytes *out, int status, const char *code, const char *param,
                            const char *sentence);
/* Sends `text`, which it releases; where `st` is a failure what is recorded, which it clears. */
void mb_api_reply(mb_http_reply *r, mb_status st, const char *type, mb_bytes *text);

/* What only takes time: `json` or `form` reads from the body what is asked, `own`; then run on a thread of
 * its own, one after the other, which gets the reply and must end it; forwards go through
 * mb_scheduler_call. */
typedef struct mb_work {
    size_t bytes; /* of own, zeros before it is read */
    /* NULL: such bodies are not expected. A failure is refused as the fault says. */
    mb_status (*json)(mb_api *a, mb_json request, void *own, mb_fault *f);
    mb_status (*form)(mb_api *a, const mb_form *form, void *own, mb_fault *f);
    void (*run)(mb_api *a, void *own, mb_http_reply *r);
    void (*release)(void *own); /* what own holds, in any case */
} mb_work;
/* 429 when too many wait, or more than 512 MiB of bodies. Handlers end with it. */
mb_status mb_api_work(mb_api *a, mb_http_request *q, const mb_work *work) MB_MUST_USE;

/* Counts for /metrics. */
void mb_api_count(mb_api *a, const char *route, int64_t tokens_in, int64_t tokens_out);

/* ---- kinds: offer_<kind>.c. open: after the recipe and config are there; close: own is NULL or not. */
typedef struct mb_offer_ops {
    mb_status (*open)(mb_api *a, mb_offer *o);
    void (*close)(mb_offer *o);
} mb_offer_ops;
extern const mb_offer_ops mb_offer_text, mb_offer_vectors, mb_offer_classes, mb_offer_pictures,
    mb_offer_translation, mb_offer_speech;

#define MB_ROUTES(name) extern const mb_http_route mb_routes_##name[];
#include "recipes/serve/routes.def"

#endif
