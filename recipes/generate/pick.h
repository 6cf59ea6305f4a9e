/* recipes/generate/pick.h - the next token, chosen from a row of logits.
 *
 * What happens to the logits, in this order (as transformers' logits processors do):
 *
 *     repetition penalty r   of tokens already in prompt or answer, once each: x > 0 ? x / r : x * r
 *     frequency, presence    of tokens in the answer: x - times * f - p
 *     temperature t          x / t
 *     top_k                  only the k largest stay
 *     top_p                  only the largest whose probabilities reach p stay, at least one
 *     draw                   from the softmax of what stayed
 *
 * Greedy choice takes the largest after the penalty. Equal logits: the lower id is the larger, so
 * that top_k leaves exactly k and top_k 1 is the greedy choice. The random number of a draw is a
 * function of seed, sample and place in the answer (core/rng.h): it does not depend on what else is
 * generated, in which order, or by how many threads.
 */
#ifndef MB_RECIPES_GENERATE_PICK_H
#define MB_RECIPES_GENERATE_PICK_H

#include <stdint.h>

#include "core/status.h"

typedef struct mb_pick_options {
    bool sample;                                /* false: greedy */
    double temperature;                         /* > 0 */
    int64_t top_k;                              /* 0: all */
    double top_p;                               /* (0, 1] */
    double repetition_penalty;                  /* > 0; 1: none */
    double frequency_penalty, presence_penalty; /* 0: none */
    uint64_t seed;
} mb_pick_options;

/* What is picked for: the tokens so far, and which random number it is. */
typedef struct mb_pick_place {
    const int32_t *id; /* prompt and answer so far; ids at or above the vocabulary are ignored */
    int64_t n;
    int64_t n_prompt;       /* of them, tokens of the prompt */
    uint64_t sample, token; /* number of the sample; of the token in its answer */
} mb_pick_place;

typedef struct mb_picker mb_picker; /* work space for one vocabulary; one thread */

/* The caller owns *out. */
mb_status mb_picker_new(int64_t vocab, mb_picker **out) MB_MUST_USE;
void mb_picker_free(mb_picker *p); /* NULL is allowed */

/* MB_EARG for options out of range. */
mb_status mb_pick_check(const mb_pick_options *o) MB_MUST_USE;
/* One of [0, vocab). `logits` (vocab) is not changed; minus infinity: never, if there is another.
 * Allocates nothing. MB_ENUM when a logit is NaN or plus infinity. Options must have passed mb_pick_check. */
mb_status mb_pick(mb_picker *p, const mb_pick_options *o, const mb_pick_place *at,
                  const float *logits, int32_t *out) MB_MUST_USE;

#endif
