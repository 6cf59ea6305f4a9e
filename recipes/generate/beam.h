/* recipes/generate/beam.h - beam search over one answer, without a model.
 *
 * What is kept, when it ends and how lengths count are those of transformers 5's _beam_search: of all
 * continuations the best (ends + 1) * beams, at least 2 * beams, are looked at; those among the first
 * `beams` that end are finished, with score / length^length_penalty; the best of the others go on.
 *
 *     mb_beam_start(b, prompt, n)
 *     while (!mb_beam_is_done(b)) {
 *         for each j < mb_beam_running(b): log-probabilities of what follows mb_beam_ids(b, j)
 *         mb_beam_step(b, scores)      mb_beam_parent(b, j): whose keys and values beam j goes on with
 *     }
 *     mb_beam_answer(b, 0, &n)         the best
 */
#ifndef MB_RECIPES_GENERATE_BEAM_H
#define MB_RECIPES_GENERATE_BEAM_H

#include <stdint.h>

#include "recipes/generate/rules.h"

typedef enum mb_early {
    MB_EARLY_NO,   /* goes on while the best open beam may become better than the worst finished */
    MB_EARLY_YES,  /* ends with the first `beams` finished answers */
    MB_EARLY_NEVER /* as NO, judged at the greatest length where that is rewarded */
} mb_early;

typedef struct mb_beam_options {
    int64_t beams;         /* 1 to 64 */
    double length_penalty; /* above 0 favours long answers */
    mb_early early;
} mb_beam_options;

typedef struct mb_beam mb_beam;

/* Answers of at most `most` tokens, prompt included. `rules` is borrowed. The caller owns *out. */
mb_status mb_beam_new(const mb_beam_options *o, const mb_rules *rules, int64_t vocab, int64_t most,
                      mb_beam **out) MB_MUST_USE;
void mb_beam_free(mb_beam *b); /* NULL is allowed */

/* `most` may be less than at the beginning. */
void mb_beam_start(mb_beam *b, const int32_t *prompt, int64_t n, int64_t most);
bool mb_beam_is_done(const mb_beam *b);
/* Beams to be continued: 1 at the start, then all. */
int64_t mb_beam_running(const mb_beam *b);
const int32_t *mb_beam_ids(const mb_beam *b, int64_t j, int64_t *n);
int64_t mb_beam_parent(const mb_beam *b, int64_t j);
/* logits[j] (vocab): of beam j; not changed. */
void mb_beam_step(mb_beam *b, const float *const *logits);
/* The i-th best answer with its prompt, and its score; NULL: there are fewer. */
const int32_t *mb_beam_answer(const mb_beam *b, int64_t i, int64_t *n, double *score);

#endif
