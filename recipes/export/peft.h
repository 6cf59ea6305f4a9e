/* recipes/export/peft.h - adapter_config.json, the way PEFT writes and reads it.
 *
 *     delta W = scale * B A,  scale = lora_alpha / r, with rsLoRA lora_alpha / sqrt(r)
 *
 * Reading accepts every key that newer versions of PEFT may add, and refuses by name those that
 * would change the result: QALoRA, trained biases, replicated layers, initialisations that
 * altered the base weights. Which modules carry an adapter is decided by the tensors in
 * adapter_model.safetensors; the config says how they are scaled. PEFT lists both "classifier" and
 * "score" in modules_to_save of every classifier, so a name that the model lacks is no error.
 *
 * Rows of single tokens are LoRA's trainable_token_indices, a list for the input embedding or lists by
 * module, or stand alone under the peft_type TRAINABLE_TOKENS, which has one list for all its modules.
 */
#ifndef MB_RECIPES_EXPORT_PEFT_H
#define MB_RECIPES_EXPORT_PEFT_H

#include <stdint.h>

#include "autograd/lora.h"
#include "core/json.h"

typedef struct mb_peft_pattern {
    const char *pattern; /* a module's name, its end after a dot, or a regex for these */
    double value;
} mb_peft_pattern;

/* Strings are borrowed by a writer from its caller, by a reader from `doc`. */
typedef struct mb_peft {
    const char *task_type;       /* CAUSAL_LM, SEQ_CLS, ...; NULL: not known */
    const char *base, *revision; /* base_model_name_or_path; NULL: not known */
    int64_t r;
    double alpha, dropout;
    bool rslora, dora, fan_in_fan_out;
    const char *target_regex;               /* instead of the list: one regex, or "all-linear" */
    const char **target, **exclude, **save; /* modules; modules_to_save */
    int64_t n_target, n_exclude, n_save;
    const char *exclude_regex; /* instead of the list */
    mb_peft_pattern *rank_pattern, *alpha_pattern;
    int64_t n_rank_pattern, n_alpha_pattern;
    bool
        tokens_alone; /* peft_type TRAINABLE_TOKENS: what is above, but for task_type and base, is not there */
    mb_token_wish *tokens; /* alone: all have the same ids */
    int64_t n_tokens;
    mb_json_doc *doc; /* private to a reader */
} mb_peft;

/* What PEFT itself takes when a key is missing: r 8, alpha 8, no dropout. */
mb_peft mb_peft_defaults(void);

/* Reads dir/adapter_config.json; *out is set to be closed with mb_peft_close in any case. MB_EMODEL
 * and MB_ENOTSUP name the file and the key. */
mb_status mb_peft_read(const char *dir, mb_peft *out) MB_MUST_USE;
void mb_peft_close(mb_peft *p);
/* Are these numbers and lists an adapter? `where` begins the sentence. */
mb_status mb_peft_check(const mb_peft *p, const char *where) MB_MUST_USE;

/* Writes dir/adapter_config.json with every key that PEFT's LoraConfig (TrainableTokensConfig) has, lists
 * of names sorted. */
mb_status mb_peft_write(const char *dir, const mb_peft *p) MB_MUST_USE;

/* Does the whole of `name` match `pattern`? A regex engine of the caller's. */
typedef mb_status (*mb_peft_matcher)(void *ctx, const char *pattern, const char *name, bool *yes);

/* Rank and scale of a module (its path without "base_model.model." and without ".weight"), after
 * rank_pattern and alpha_pattern; the first pattern that fits counts. Patterns without regex
 * characters need no matcher; with them and no matcher it is MB_ENOTSUP. */
mb_status mb_peft_rank(const mb_peft *p, const char *module, mb_peft_matcher match, void *ctx,
                       int64_t *rank) MB_MUST_USE;
mb_status mb_peft_scale(const mb_peft *p, const char *module, mb_peft_matcher match, void *ctx,
                        double *scale) MB_MUST_USE;
/* Does this module of the base carry an adapter? `linear`: it is a matrix that all-linear means,
 * that is neither the output head nor an embedding. modules_to_save never do. */
mb_status mb_peft_targets(const mb_peft *p, const char *module, bool linear, mb_peft_matcher match,
                          void *ctx, bool *yes) MB_MUST_USE;
/* Is it one of modules_to_save, or inside one? */
bool mb_peft_saves(const mb_peft *p, const char *module);

#endif
