/* autograd/models/roberta.h - what RoBERTa's relatives take from it. */
#ifndef MB_AUTOGRAD_MODELS_ROBERTA_H
#define MB_AUTOGRAD_MODELS_ROBERTA_H

#include "autograd/layers/encoder.h"

/* dense, out: of the head, whichever it is. */
struct mb_roberta_weights {
    mb_encoder_embeddings embed;
    mb_weight *dense, *dense_bias, *head_norm, *head_norm_bias, *out, *out_bias;
};

extern const mb_weight_row mb_roberta_globals[], mb_roberta_layers[];
extern const char *const mb_roberta_ignore[], *const mb_roberta_rename[][2],
                                                  *const mb_roberta_lora[];

/* Of a GGUF of llama.cpp's "bert" whose tokenizer is RoBERTa's. */
mb_status mb_roberta_config_gguf(const struct mb_gguf *g, mb_json out) MB_MUST_USE;
mb_status mb_roberta_config(mb_json json, mb_model_config *c) MB_MUST_USE;
mb_status mb_roberta_forward(mb_tape *t, mb_model *m, const mb_batch *b,
                             mb_output *out) MB_MUST_USE;

#endif
