/* recipes/export/model.h - a model in memory becomes a folder that transformers or PEFT load. */
#ifndef MB_RECIPES_EXPORT_MODEL_H
#define MB_RECIPES_EXPORT_MODEL_H

#include "autograd/lora.h"
#include "recipes/export/card.h"
#include "recipes/export/peft.h"
#include "recipes/tokenizers/tokenizer.h"

typedef struct mb_export {
    const mb_model *model;
    mb_exec *ex;                   /* of the host */
    mb_json config;                /* the base's config.json, or one made from a GGUF */
    const char *base;              /* path of the base: a folder, or a .gguf */
    const mb_tokenizer *tokenizer; /* NULL where the model reads pictures */
    mb_dtype dtype;                /* of the written weights: F32, BF16, F16 */
    int64_t max_shard_bytes;
    const char *const
        *label; /* names of a classifier's classes; NULL: the base's, or LABEL_0 ... */
    const char *language, *speech_task; /* that a speech model was tuned for; NULL: the base's */
    const mb_ids *ends;                 /* optional: tokens that end an answer */
    const char *chat_template; /* optional: Jinja text it was trained with; NULL: the tokenizer's */
    const mb_card *card;       /* optional */
} mb_export;

/* MB_EARG when `dir` is the base model's own folder. */
mb_status mb_export_not_the_base(const mb_export *e, const char *dir) MB_MUST_USE;

/* Weights, config.json, tokenizer, generation settings, card. Adapters are not written: merge them
 * before, or write the base alone. `dir` must not be the base itself (MB_EARG). */
mb_status mb_export_hf(const mb_export *e, const char *dir) MB_MUST_USE;
/* adapter_config.json, adapter_model.safetensors, tokenizer, card. */
mb_status mb_export_peft(const mb_export *e, const mb_peft *p, const char *dir) MB_MUST_USE;

/* For the plan: what either takes while it runs. */
size_t mb_export_bytes(const mb_model *m);

/* What PEFT calls target_modules: for every module with an adapter the shortest ending of its path
 * that names no module without one, each once. `names` has room for `most`, more is MB_ENOTSUP;
 * *count says how many. Borrowed from the model. */
mb_status mb_export_targets(const mb_model *m, const char **names, int most,
                            int64_t *count) MB_MUST_USE;

#endif
