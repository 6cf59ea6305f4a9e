/* autograd/models/config.h - reading config.json: what several families share. */
#ifndef MB_AUTOGRAD_MODELS_CONFIG_H
#define MB_AUTOGRAD_MODELS_CONFIG_H

#include "autograd/model.h"

/* A number as float. */
mb_status mb_config_real(mb_json json, const char *key, double otherwise, float *out) MB_MUST_USE;
/* A whole number from 1 to `most`; `otherwise` when the key is not there. */
mb_status mb_config_count(mb_json json, const char *key, int64_t otherwise, int64_t most,
                          int64_t *out) MB_MUST_USE;
/* "silu", "gelu", "gelu_new" ...; MB_ENOTSUP names another. */
mb_status mb_config_activation(mb_json json, const char *key, mb_activation otherwise,
                               mb_activation *out) MB_MUST_USE;
/* The same of a name that the key's value holds. */
mb_status mb_config_activation_named(mb_json json, const char *key, const char *name,
                                     mb_activation *out) MB_MUST_USE;
/* c->rope from rope_parameters (v5), or rope_theta and rope_scaling. MB_ENOTSUP names an unknown type.
 * longrope: c->positions becomes what the model was trained on before it was stretched. */
mb_status mb_config_rope(mb_json json, mb_model_config *c) MB_MUST_USE;
/* The same where partial_rotary_factor may leave columns of a head as they are. */
mb_status mb_config_rope_part(mb_json json, mb_model_config *c) MB_MUST_USE;
/* What config.json calls alike for every decoder since Llama: widths, counts, rms_norm_eps,
 * hidden_act, tie_word_embeddings, attention_dropout. Biases, windows and rotation are the family's. */
mb_status mb_config_decoder(mb_json json, mb_model_config *c) MB_MUST_USE;
/* layer_types: layers that are "full_attention" look past c->window; where the list is absent, those
 * in `otherwise`. Another type than that and "sliding_attention" is MB_EMODEL. */
mb_status mb_config_layer_types(mb_json json, const mb_layer_set *otherwise,
                                mb_model_config *c) MB_MUST_USE;
/* use_sliding_window, sliding_window, max_window_layers, layer_types, as Qwen has them. */
mb_status mb_config_upper_window(mb_json json, mb_model_config *c) MB_MUST_USE;
/* The same of windowed layers and of others: rope_parameters' "sliding_attention" and
 * "full_attention", or rope_local_base_freq beside the older names. */
mb_status mb_config_rope_by_layer(mb_json json, double theta, double theta_window,
                                  mb_model_config *c) MB_MUST_USE;
/* id2label or num_labels; 2 when neither is there. */
mb_status mb_config_labels(mb_json json, int64_t *labels) MB_MUST_USE;

/* Keys that change what a model computes and that mbuyu knows with one value only. */
typedef struct mb_config_fixed {
    const char *key;
    bool value;
} mb_config_fixed;
mb_status mb_config_require(mb_json json, const mb_config_fixed *fixed) MB_MUST_USE;
mb_status mb_config_expect(mb_json json, const char *key, const char *value) MB_MUST_USE;

/* All of a BERT's config.json. */
mb_status mb_config_bert(mb_json json, mb_model_config *c) MB_MUST_USE;

/* GGUF key ("{arch}." before it) -> config.json key. */
typedef struct mb_config_gguf_key {
    const char *gguf, *json;
    bool required, real;
} mb_config_gguf_key;
mb_status mb_config_from_gguf(const struct mb_gguf *g, const char *arch,
                              const mb_config_gguf_key *keys, mb_json out) MB_MUST_USE;
/* The inverse of mb_config_bert. */
mb_status mb_config_bert_gguf(const struct mb_gguf *g, mb_json out) MB_MUST_USE;
/* The inverse of mb_config_decoder, with hidden_act "silu", and of mb_config_rope. */
mb_status mb_config_decoder_gguf(const struct mb_gguf *g, const char *arch,
                                 mb_json out) MB_MUST_USE;
/* rope_theta, rope_scaling and rope_parameters from rope.freq_base and rope.scaling.*. */
mb_status mb_config_rope_from_gguf(const struct mb_gguf *g, const char *arch,
                                   mb_json out) MB_MUST_USE;

#endif
