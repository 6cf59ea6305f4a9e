/* recipes/generate/rules.h - which tokens may come next, as transformers' logits processors say.
 *
 * In their order: repetition penalty (of tokens already there, once each: x > 0 ? x / r : x * r), no
 * repeated n-grams, bad words, a least length, a forced first and last token, suppressed tokens. What
 * is forbidden becomes minus infinity.
 */
#ifndef MB_RECIPES_GENERATE_RULES_H
#define MB_RECIPES_GENERATE_RULES_H

#include <stdint.h>

#include "core/json.h"
#include "recipes/tokenizers/tokenizer.h"

typedef struct mb_rules {
    double repetition_penalty; /* > 0; 1: none */
    int64_t no_repeat_ngram;   /* 0: any may be repeated */
    int64_t min_new_tokens;    /* none of `end` before */
    int32_t forced_first;      /* -1: none; only behind a prompt of one token */
    mb_ids forced_last;        /* empty: none */
    mb_ids end;                /* tokens that end an answer */
    mb_ids suppress, begin_suppress;
    mb_ids bad_words; /* each with its length in front */
} mb_rules;

/* Takes what generation_config.json or, for old models, config.json says (root objects) into *r, which
 * holds defaults; a key that is not there changes nothing. MB_EMODEL. */
mb_status mb_rules_read(mb_rules *r, mb_json config) MB_MUST_USE;
void mb_rules_release(mb_rules *r);

/* Does `id` end an answer? */
bool mb_rules_ends(const mb_rules *r, int32_t id);

/* Changes `score` (vocab) of what follows id[0..n), of which the first n_prompt were given, in an
 * answer that has at most `most` tokens with its prompt. `seen` (vocab) is work space, all zero before
 * and after. */
void mb_rules_apply(const mb_rules *r, const int32_t *id, int64_t n, int64_t n_prompt, int64_t most,
                    float *score, int64_t vocab, uint8_t *seen);

#endif
