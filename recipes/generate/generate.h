/* recipes/generate/generate.h - prompts in, answers out, through a cache of keys and values.
 *
 *     mb_generator *g;
 *     MB_TRY(mb_generator_new(engine, tokenizer, &(mb_generator_options){.n_seq = 8,
 *                                                                       .capacity = 1024}, &g));
 *     MB_TRY(mb_generator_run(g, prompt, n_prompts, &options));     // calls options.on_answer
 *
 * A generator has n_seq places, each with a cache of `capacity` tokens. Prompts wait for a free
 * place; what is behind a place's last token is computed in forwards of at most `chunk` tokens (many
 * prompts together, each cut from its own start), then all places that are answering advance by one
 * token per forward. Memory is taken and planned in mb_generator_new; a token takes none.
 *
 * What a prompt is answered does not depend on the other prompts, to the bit: forwards over prompts
 * have at least 16 rows and forwards of single tokens at most 15, because below 16 rows the products
 * are computed in another way (core/cpu/gemm_tiles.h), which differs in the last bits. For the same reason
 * logits with a cache and without agree only within rounding.
 *
 * With `keep`, places keep what they computed: a prompt that begins like an earlier one (the next
 * turn of a conversation) is computed only from where it differs.
 *
 * An answer ends with an end token (which is its last id, but not in its text), before a stop text,
 * after max_new_tokens, or when the place is full. Text is given out as it comes; what could be the
 * beginning of a stop text, or of a character, is held back.
 */
#ifndef MB_RECIPES_GENERATE_GENERATE_H
#define MB_RECIPES_GENERATE_GENERATE_H

#include <signal.h>

#include "recipes/generate/pick.h"
#include "recipes/tokenizers/tokenizer.h"
#include "recipes/train/engine.h"

enum { MB_GENERATOR_SEQ_MAX = 15, MB_GENERATOR_CHUNK = 512 };

typedef struct mb_generator mb_generator;

typedef struct mb_generator_options {
    int64_t n_seq;    /* places, 1 to MB_GENERATOR_SEQ_MAX */
    int64_t capacity; /* tokens of prompt and answer together; at most the model's positions */
    int64_t chunk;    /* most tokens of a forward; 0: MB_GENERATOR_CHUNK */
} mb_generator_options;

/* Engine and tokenizer are borrowed. The engine's plan for logits becomes the generator's. The
 * caller owns *out. MB_EARG: a capacity the model has no positions for. */
mb_status mb_generator_new(mb_engine *e, const mb_tokenizer *tok, const mb_generator_options *o,
                           mb_generator **out) MB_MUST_USE;
void mb_generator_free(mb_generator *g); /* NULL is allowed */

typedef struct mb_prompt {
    const int32_t *id; /* borrowed during the run */
    int64_t n;         /* 1 to capacity - 1 */
    uint64_t sample;   /* whose random numbers are used */
} mb_prompt;

typedef enum mb_finish {
    MB_FINISH_END,     /* an end token */
    MB_FINISH_STOP,    /* a stop text */
    MB_FINISH_LENGTH,  /* max_new_tokens */
    MB_FINISH_CONTEXT, /* the place is full */
    MB_FINISH_CANCELLED,
} mb_finish;

/* "stop" for the first two, "length", "context", "cancelled". */
const char *mb_finish_name(mb_finish f);

/* Borrowed until the callback returns. */
typedef struct mb_answer {
    int64_t prompt; /* its number in the run */
    const int32_t *id;
    int64_t n;
    const char *text; /* zero-terminated, without end token and stop text */
    size_t n_text;
    mb_finish finish;
} mb_answer;

typedef struct mb_generate_options {
    int64_t max_new_tokens;
    mb_pick_options pick;
    const int32_t *end; /* end tokens */
    int64_t n_end;
    const char *const *stop; /* stop texts, not empty */
    int64_t n_stop;
    bool keep;
    const volatile sig_atomic_t *cancel; /* optional: not 0 ends all answers at the next token */

    void *arg; /* of the callbacks, which are optional */
    mb_status (*on_text)(void *arg, int64_t prompt, const char *text, size_t n);
    mb_status (*on_answer)(void *arg, const mb_answer *a); /* in the order of their ends */
    /* The logits (vocab) that token `token` of the answer is picked from. */
    mb_status (*on_logits)(void *arg, int64_t prompt, int64_t token, const float *logits,
                           int64_t vocab);
} mb_generate_options;

/* Answers all prompts. MB_EDATA names a prompt that is empty or too long. A callback's failure ends
 * the run and is returned. */
mb_status mb_generator_run(mb_generator *g, const mb_prompt *prompt, int64_t n,
                           const mb_generate_options *o) MB_MUST_USE;

typedef struct mb_generator_stats {
    int64_t prompt_tokens, answer_tokens; /* computed; picked */
    int64_t kept_tokens;                  /* of prompts, found in the cache */
    double prompt_seconds, answer_seconds;
} mb_generator_stats;

/* Of the last run. */
mb_generator_stats mb_generator_last(const mb_generator *g);

/* Vocabulary that is picked from: what the model and the tokenizer both know. */
int64_t mb_generator_vocab(const mb_generator *g);

#endif
