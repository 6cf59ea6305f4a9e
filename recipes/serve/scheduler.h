/* recipes/serve/scheduler.h - many asks answered at once by one thread.
 *
 *     mb_scheduler *s;
 *     MB_TRY(mb_scheduler_new(&(mb_scheduler_options){.n_seq = 32, .queue = 256}, &s));
 *     MB_TRY(mb_scheduler_add(s, &(mb_served){.engine = e, .tokenizer = tok, .context = 2048,
 *                                             .cache_tokens = 32 * 2048, .share = -1}, &model));
 *     MB_TRY(mb_scheduler_start(s));
 *     MB_TRY(mb_scheduler_submit(s, &ask, &ticket));      any thread; callbacks tell the rest
 *     mb_scheduler_free(s);                               ends what is open, joins the thread
 *
 * The thread owns the compute threads: all forwards of all models run on it, one after the other.
 * Each forward computes one more token of every sequence that is answering and, in what room is left
 * of `chunk` rows, the next piece of prompts that are being read.
 *
 * What a sequence is answered depends on its ids, options and seed alone, to the bit: not on who else
 * is answered, how prompts were cut, or whether a prefix was found or computed. For that every row of
 * a product is one sum in one order (mb_exec.rows_alike) and attention goes through blocks of keys
 * that lie at the same places of every sequence.
 *
 * Keys and values lie in blocks of MB_BLOCK_TOKENS tokens. Blocks that are full are known by their
 * tokens and all before them; a prompt that begins with known ones does not compute them again, be it
 * a second choice, the next turn of a conversation or a common instruction. Blocks nobody uses are
 * kept until they are needed, the longest unused going first. When no block is left, the youngest
 * sequence gives up its own and goes on later, with the same bits; the oldest never waits, so all
 * end.
 *
 * Waiting asks are taken so that every client has about the same number of sequences at work;
 * those of one client in their order.
 *
 * Memory is taken in mb_scheduler_add; a token takes none.
 */
#ifndef MB_RECIPES_SERVE_SCHEDULER_H
#define MB_RECIPES_SERVE_SCHEDULER_H

#include "recipes/generate/generate.h"
#include "recipes/serve/blocks.h"

enum { MB_TOP_LOGPROBS = 20, MB_SCHEDULER_CHUNK = 256 };

typedef struct mb_scheduler mb_scheduler;

typedef struct mb_scheduler_options {
    int64_t n_seq; /* sequences at work at a time; >= 1 */
    int64_t queue; /* asks that may wait beside them; >= 1 */
    int64_t chunk; /* most rows of a forward; 0: MB_SCHEDULER_CHUNK, at least n_seq */
    int64_t
        context; /* most tokens of a sequence of a model that is added after the start; 0: none is */
    bool compute_anew; /* known prefixes are not looked for */
} mb_scheduler_options;

/* The caller owns *out. */
mb_status mb_scheduler_new(const mb_scheduler_options *o, mb_scheduler **out) MB_MUST_USE;
/* Asks that are open end with MB_FINISH_CANCELLED, on the thread, before this returns; calls not yet
 * made return MB_EPEER. NULL is allowed. */
void mb_scheduler_free(mb_scheduler *s);

/* A model that writes text. All borrowed until mb_scheduler_free. */
typedef struct mb_served {
    mb_engine *engine; /* its plan for logits becomes the scheduler's */
    const mb_tokenizer *tokenizer;
    int64_t context;      /* tokens of prompt and answer together; at most the model's positions */
    int64_t cache_tokens; /* room for keys and values, >= context; 0: n_seq * context */
    int share; /* a model added before whose blocks this one takes from (an adapter's base: same
                * layers and heads; nothing is found in the other's); -1: its own */
} mb_served;

/* Before mb_scheduler_start, or after it by mb_scheduler_call. Numbers models from 0. MB_EARG, MB_ENOTSUP for models and devices that
 * cannot be served so, MB_ENOMEM. */
mb_status mb_scheduler_add(mb_scheduler *s, const mb_served *m, int *number) MB_MUST_USE;
/* Starts the thread. */
mb_status mb_scheduler_start(mb_scheduler *s) MB_MUST_USE;
/* "32 sequences of 2048 tokens; 1024 blocks of 64 tokens: 2.8 GiB; forward of 256 rows: 0.1 GiB" */
void mb_scheduler_describe(const mb_scheduler *s, int model, char *text, size_t size);

/* ---- asking ------------------------------------------------------------------------------- */

typedef struct mb_logit_bias {
    int32_t id;
    float bias; /* added to the logit before anything else; -100 and below: never */
} mb_logit_bias;

/* A token with its log-probability: log softmax of the model's own logits, before bias, penalties
 * and temperature. */
typedef struct mb_token_prob {
    int32_t id;
    float logprob;
} mb_token_prob;

/* A token of an answer, or of the prompt (choice -1). Borrowed until the callback returns. */
typedef struct mb_said {
    int64_t choice;
    int64_t place;       /* its number in the answer, or in the prompt */
    mb_token_prob token; /* logprob is 0 when none were asked for and for the first of a prompt */
    const mb_token_prob *top; /* the likeliest, best first */
    int64_t n_top;            /* 0 also for the first of a prompt */
    bool ends;                /* an end token: is not part of the text */
} mb_said;

typedef struct mb_ask_usage {
    int64_t prompt_tokens, answer_tokens; /* answers: of all choices, end tokens included */
    int64_t cached_tokens;                /* of the prompt, found; of the first choice */
    double waited, prompt_seconds,
        answer_seconds; /* until work began, until the first token, after */
} mb_ask_usage;

typedef struct mb_ask {
    int model;
    uint64_t client; /* who asks, for fairness */

    const int32_t *prompt;
    int64_t n_prompt; /* 1 to context, less than context when max_new > 0 */
    int64_t n;        /* choices, 1 to 128 */
    int64_t max_new; /* most tokens of an answer; 0: only the prompt is scored; at most what fits */
    mb_pick_options pick;
    uint64_t sample;    /* choice c draws as sample + c */
    const int32_t *end; /* end tokens */
    int64_t n_end;
    const char *const *stop; /* stop texts, not empty */
    int64_t n_stop;
    const mb_logit_bias *bias;
    int64_t n_bias;
    int top_logprobs; /* of answers' tokens; -1: none, 0: only the token's own, to MB_TOP_LOGPROBS */
    int prompt_logprobs; /* of the prompt's, likewise; such a prompt is always computed */

    /* Callbacks, on the scheduler's thread, which waits for them: they must be short and must not
     * wait for locks held around mb_scheduler calls. All but on_end are optional. */
    void *arg;
    /* May token `id` come next in this choice? Asked for any token any number of times. */
    bool (*may)(void *arg, int64_t choice, int32_t id);
    /* Does nobody wait for the answer any more? Asked before every forward, also while it waits; then it
     * ends as if it were cancelled. Under the scheduler's lock: only a look. */
    bool (*gone)(void *arg);
    void (*on_token)(void *arg,
                     const mb_said *t); /* prompt's tokens, then each answer's, in order */
    /* What can be told of a choice's text, after the on_token of the tokens it came from. Never a
     * stop text or a part of one, always whole characters. */
    void (*on_text)(void *arg, int64_t choice, const char *text, size_t n);
    /* A choice has ended. MB_FINISH_LENGTH also for max_new 0. */
    void (*on_finish)(void *arg, int64_t choice, mb_finish why);
    /* Last, once per ask that was submitted. failure: NULL, or the sentence of what went wrong
     * (choices then may have no on_finish). */
    void (*on_end)(void *arg, const mb_ask_usage *usage, const char *failure);
} mb_ask;

typedef uint64_t mb_ticket; /* never 0, never given twice */

typedef struct mb_submitted {
    mb_ticket ticket;
    bool full;          /* the queue is: nothing was taken, come again ... */
    double retry_after; /* ... in about so many seconds */
} mb_submitted;

/* Any thread. Copies all but the callbacks' arg, which must live until on_end. MB_EARG names what is
 * out of range, MB_EDATA: a prompt that does not fit; MB_OK with out->full when there is no room. */
mb_status mb_scheduler_submit(mb_scheduler *s, const mb_ask *a, mb_submitted *out) MB_MUST_USE;
/* All of n asks or none; their tickets follow each other from out->ticket. More than the queue holds are
 * taken while nobody waits. */
mb_status mb_scheduler_submit_all(mb_scheduler *s, const mb_ask *a, int64_t n,
                                  mb_submitted *out) MB_MUST_USE;
/* Any thread, also from callbacks. Its choices finish as MB_FINISH_CANCELLED before the next
 * forward. Nothing happens for a ticket that has ended. */
void mb_scheduler_cancel(mb_scheduler *s, mb_ticket t);

/* Runs fn(arg) on the scheduler's thread between two forwards and returns what it returns, with its
 * sentence: for other models' forwards (vectors, classes, transcripts). Any thread but the
 * scheduler's. MB_EPEER once the scheduler ends. Calls are taken in turn with forwards. */
mb_status mb_scheduler_call(mb_scheduler *s, mb_status (*fn)(void *arg), void *arg) MB_MUST_USE;

/* From within a call, on the scheduler's thread: takes asks that wait and makes one forward for those at work,
 * as between calls. A call that takes long says so wherever others may go on; theirs are the same bits. */
void mb_scheduler_let_others(mb_scheduler *s);

/* ---- what goes on ------------------------------------------------------------------------- */

typedef struct mb_scheduler_stats {
    int64_t n_seq, running, queue, waiting; /* sequences; asks */
    int64_t blocks, used, kept;             /* of all caches: in use, unused but known */
    /* since the start */
    int64_t asks, ended, cancelled, failed, refused, preempted;
    int64_t prompt_tokens, answer_tokens, cached_tokens;
    int64_t forwards, rows;
    double prompt_seconds, answer_seconds; /* of forwards with and without pieces of prompts */
} mb_scheduler_stats;

/* Any thread, also from callbacks. As of the last forward; an ask that on_end tells of is counted as ended
 * and holds nothing any more. */
mb_scheduler_stats mb_scheduler_read(mb_scheduler *s);
/* Vocabulary that is picked from: what the model and the tokenizer both know. */
int64_t mb_scheduler_vocab(const mb_scheduler *s, int model);

#endif
