/* recipes/export/hf_folder.h - the files around the weights of a Hugging Face model folder.
 *
 *     config.json             the base's, with what training changed
 *     generation_config.json  the base's, or the token ids of config.json
 *     tokenizer.json ...      copied from the base, or written by whoever read them from a GGUF
 *     README.md               the model card
 *
 * The weights are written by the caller. Every file is written whole or not at all.
 */
#ifndef MB_RECIPES_EXPORT_HF_FOLDER_H
#define MB_RECIPES_EXPORT_HF_FOLDER_H

#include <stdint.h>

#include "core/json.h"
#include "recipes/export/card.h"

/* What training changed in config.json; zero or NULL: as it was. */
typedef struct mb_hf_edits {
    const char *dtype;        /* of the weights: "float32", "bfloat16", "float16" */
    const char *architecture; /* "LlamaForCausalLM" */
    const char *problem_type;
    int64_t num_labels;       /* of a classifier */
    const char *const *label; /* num_labels names; NULL: the base's, or LABEL_0 ... */
    int64_t vocab_size;
    int tied; /* tie_word_embeddings: 1 true, -1 false, 0 as it was */
} mb_hf_edits;

typedef mb_status (*mb_hf_writer)(void *ctx, const char *dir);

typedef struct mb_hf_folder {
    mb_json config;       /* the base's config.json, or one made for a GGUF */
    const char *base_dir; /* optional: where the base's other files are */
    mb_hf_edits edits;
    mb_hf_writer write_tokenizer; /* optional: NULL copies the base's files */
    void *tokenizer_ctx;
    const mb_card *card; /* optional */
} mb_hf_folder;

/* Makes `dir` if needed and writes all of the above into it. */
mb_status mb_hf_write_folder(const char *dir, const mb_hf_folder *f) MB_MUST_USE;

/* One by one. config.json says the dtype under both names (dtype, torch_dtype) and the rotation
 * under both (rope_theta with rope_scaling, and rope_parameters), so that transformers 4 and 5 read
 * the same. */
mb_status mb_hf_write_config(const char *dir, mb_json base, const mb_hf_edits *e) MB_MUST_USE;
mb_status mb_hf_write_generation_config(const char *dir, const char *base_dir,
                                        mb_json config) MB_MUST_USE;
/* Copies what is there of tokenizer.json, tokenizer_config.json, special_tokens_map.json,
 * added_tokens.json, vocab.txt, vocab.json, merges.txt, chat_template.jinja ... */
mb_status mb_hf_copy_tokenizer(const char *dir, const char *base_dir) MB_MUST_USE;

#endif
