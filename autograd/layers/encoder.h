/* autograd/layers/encoder.h - what BERT and its relatives share: a post-norm encoder with learned
 * positions, and the ways a head reads it.
 *
 * The families differ in names, in whether they have token types, in where positions begin and in
 * what stands before their classifier.
 */
#ifndef MB_AUTOGRAD_LAYERS_ENCODER_H
#define MB_AUTOGRAD_LAYERS_ENCODER_H

#include "autograd/layers.h"

/* Sites of dropouts outside the layers are the family's from MB_SITE_HEAD on. */
enum { MB_SITE_EMBED = 0, MB_SITE_ATTN_OUT = 1, MB_SITE_MLP_OUT = 2, MB_SITE_HEAD = 3 };

typedef struct mb_encoder_embeddings {
    mb_weight *word, *position, *segment, *norm, *norm_bias; /* segment NULL: no token types */
} mb_encoder_embeddings;

/* A family's struct of a layer. */
typedef struct mb_encoder_layer {
    mb_weight *q, *q_bias, *k, *k_bias, *v, *v_bias, *o, *o_bias, *attn_norm, *attn_norm_bias;
    mb_weight *up, *up_bias, *down, *down_bias, *norm, *norm_bias;
} mb_encoder_layer;

/* Embeddings and all layers: (tokens, D). */
mb_status mb_encode(mb_tape *t, mb_model *m, const mb_batch *b, const mb_encoder_embeddings *e,
                    mb_var **y) MB_MUST_USE;
/* f(W x + bias) of each sequence's first token: (max_seq, D). */
mb_status mb_encoder_first(mb_tape *t, mb_model *m, const mb_batch *b, mb_var *x,
                           const mb_weight *w, const mb_weight *bias, mb_activation f,
                           mb_var **y) MB_MUST_USE;
/* norm(f(W x + bias)) of every token: what a masked language model's decoder reads. */
mb_status mb_encoder_transform(mb_tape *t, mb_model *m, const mb_batch *b, mb_var *x,
                               const mb_weight *w, const mb_weight *bias, mb_activation f,
                               const mb_weight *norm, const mb_weight *norm_bias,
                               mb_var **y) MB_MUST_USE;

/* For weight tables: the head that has a row. */
bool mb_head_is_sequence(const mb_model_config *c);
bool mb_head_is_tokens(const mb_model_config *c);
bool mb_head_is_classifier(const mb_model_config *c); /* of sequences or tokens */
bool mb_head_is_span(const mb_model_config *c);
bool mb_head_is_masked(const mb_model_config *c);
bool mb_head_is_masked_untied(const mb_model_config *c);

#endif
