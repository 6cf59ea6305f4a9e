/* recipes/train/session.h - from a model's path and what shall be trained to a loaded engine.
 *
 * The one way every command opens a model.
 */
#ifndef MB_RECIPES_TRAIN_SESSION_H
#define MB_RECIPES_TRAIN_SESSION_H

#include "core/comm.h"
#include "recipes/config/recipe.h"
#include "recipes/train/engine.h"

typedef enum mb_trained {
    MB_TRAINED_NOTHING, /* evaluation, generation; adapters are applied */
    MB_TRAINED_ALL,
    MB_TRAINED_SOME,
    MB_TRAINED_LORA,    /* new adapters, rows of tokens, or both */
    MB_TRAINED_ADAPTER, /* go on with the adapters of adapter_path */
} mb_trained;

typedef struct mb_session_options {
    const char *path;         /* HF folder or .gguf */
    const char *adapter_path; /* NULL: none */
    mb_head head;
    mb_trained trained;
    mb_lora_options lora;
    const mb_strings *token_ids,
        *token_modules; /* trainable_token_indices and _modules; NULL: none */
    int64_t layers;     /* MB_TRAINED_SOME: the last n, and */
    const char *const *patterns;
    int n_patterns; /* these */
    int64_t labels; /* of a classifier; 0: as the model says */
    bool has_loss;  /* else the model's own */
    mb_loss loss;
    float temperature; /* of contrast */
    uint64_t seed;
    bool random;      /* training starts from scratch: no weights are read */
    bool quiet;       /* no log lines */
    bool keep_blocks; /* of a GGUF that is only asked, on a CPU in F32 (mb_model_keep_blocks) */
    mb_bases *bases;  /* of models that are only asked, in host memory; NULL: weights of its own */
    bool no_values;   /* shapes only, nothing is read: for plans */
    mb_engine_options engine;
} mb_session_options;

/* Opens, builds, binds, loads. *config (optional) receives the model's config.json for exports; the
 * caller frees it. mb_cpu_init must have run. Not collective. */
mb_status mb_session_open(const mb_session_options *o, mb_engine **e,
                          mb_json_doc **config) MB_MUST_USE;

/* What mb_session_open leaves out with no_values: reads the model into the engine. */
mb_status mb_session_load(mb_engine *e, const mb_session_options *o) MB_MUST_USE;

#endif
