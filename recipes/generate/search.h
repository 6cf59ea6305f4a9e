/* recipes/generate/search.h - answers of an encoder-decoder model, or by beam search.
 *
 *     mb_search *s;
 *     MB_TRY(mb_search_new(engine, &options, source, &s));   plans and takes memory
 *     MB_TRY(mb_search_run(s, source, prompt, n, rules, on_answer, arg));
 *
 * All n prompts are read at once, with their sources; then they go on together, a row per open beam.
 * Keys and values of a source are computed once and shared by its beams; those of answers stay where
 * they are when a beam goes on, and are copied when it splits.
 */
#ifndef MB_RECIPES_GENERATE_SEARCH_H
#define MB_RECIPES_GENERATE_SEARCH_H

#include "recipes/generate/beam.h"
#include "recipes/generate/pick.h"
#include "recipes/train/engine.h"

typedef struct mb_search_options {
    int64_t prompts;     /* at most at a time */
    int64_t prompt_rows; /* tokens of all prompts of a run, at most */
    int64_t capacity; /* tokens of an answer with its prompt, at most; <= the model's positions */
    mb_beam_options beam;
    mb_pick_options pick; /* with 1 beam */
    int64_t max_new_tokens;
    int64_t answers; /* to a prompt: the best so many beams; at most `beams` */
} mb_search_options;

typedef struct mb_search_prompt {
    const int32_t *id; /* of an encoder-decoder model: what starts the decoder */
    int64_t n;
    uint64_t sample; /* number of the sample, for draws */
} mb_search_prompt;

/* Answer `rank` (0: the best) to prompt `number`: ids behind the prompt, the end token included.
 * Borrowed until it returns. */
typedef mb_status (*mb_search_fn)(void *arg, int64_t number, int64_t rank, const int32_t *id,
                                  int64_t n, double score);

typedef struct mb_search mb_search;

/* `source`: a batch like those that runs will get, its tokens and max_len the most they will have;
 * NULL: the model has no encoder. e is borrowed; its plans for whole logits are replaced. */
mb_status mb_search_new(mb_engine *e, const mb_search_options *o, mb_batch *source,
                        mb_search **out) MB_MUST_USE;
void mb_search_free(mb_search *s); /* NULL is allowed */
/* Runs call fn(arg) before every token but the first: others may have the processors meanwhile. NULL: nobody. */
void mb_search_between(mb_search *s, void (*fn)(void *arg), void *arg);

/* source: sequence i is that of prompt[i]. fn is called for each prompt in order once all have
 * ended. MB_EDATA when prompts or sources do not fit. */
mb_status mb_search_run(mb_search *s, mb_batch *source, const mb_search_prompt *prompt, int64_t n,
                        const mb_rules *rules, mb_search_fn fn, void *arg) MB_MUST_USE;

#endif
