/* autograd/layers.h - what model families are made of: ops with their weights.
 *
 * Shapes: tokens are rows. Every function takes weights through handles, so adapters, packing and
 * sharding stay out of the families.
 */
#ifndef MB_AUTOGRAD_LAYERS_H
#define MB_AUTOGRAD_LAYERS_H

#include "autograd/model.h"

/* Each dropout of a model has a site: layer (-1: outside) and a small number within it. */
static inline uint64_t mb_site(int64_t layer, int which)
{
    return 1000u + (uint64_t)(layer + 1) * 16u + (uint64_t)which;
}

/* A weight as a value on the tape. MB_EBUG when its layer is not open. NULL weight: NULL var. */
mb_status mb_weight_var(mb_tape *t, const mb_model *m, const mb_weight *w, mb_var **v) MB_MUST_USE;

/* y = x w^T + bias, plus w's adapter. bias may be NULL. x's rows are the batch's tokens; `pooled`:
 * its sequences (max_seq rows). They differ in what keys the adapter's dropout. */
mb_status mb_layer_linear(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var *x,
                          const mb_weight *w, const mb_weight *bias, mb_var **y) MB_MUST_USE;
mb_status mb_layer_linear_pooled(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var *x,
                                 const mb_weight *w, const mb_weight *bias, mb_var **y) MB_MUST_USE;
/* w's length divides x's columns: each stretch of that many is normalised on its own (heads). */
mb_status mb_layer_rmsnorm(mb_tape *t, const mb_model *m, mb_var *x, const mb_weight *w,
                           mb_var **y) MB_MUST_USE;
mb_status mb_layer_layernorm(mb_tape *t, const mb_model *m, mb_var *x, const mb_weight *w,
                             const mb_weight *bias, mb_var **y) MB_MUST_USE;
/* sum = a + b and y = the norm of sum. */
mb_status mb_layer_add_rmsnorm(mb_tape *t, const mb_model *m, mb_var *a, mb_var *b,
                               const mb_weight *w, mb_var **sum, mb_var **y) MB_MUST_USE;
mb_status mb_layer_add_layernorm(mb_tape *t, const mb_model *m, mb_var *a, mb_var *b,
                                 const mb_weight *w, const mb_weight *bias, mb_var **sum,
                                 mb_var **y) MB_MUST_USE;
/* The batch's features through a weight (out, ...) whose other dimensions make up a row of them, as
 * a convolution does whose kernels lie side by side: one row per token, zeros where it has none. */
mb_status mb_layer_features(mb_tape *t, const mb_model *m, const mb_batch *b, const mb_weight *w,
                            const mb_weight *bias, mb_var **y) MB_MUST_USE;
/* The batch's features, all rows of them, in the type the model computes in. */
mb_status mb_layer_feature_rows(mb_tape *t, const mb_model *m, const mb_batch *b,
                                mb_var **x) MB_MUST_USE;
/* torch.nn.Conv1d over the rows of sequences of `length` rows, w (out, in, kernel), an odd kernel; as
 * many zeros on both sides as leave length/stride rows (rounded up). */
mb_status mb_layer_convolution(mb_tape *t, const mb_model *m, mb_var *x, const mb_weight *w,
                               const mb_weight *bias, int64_t length, int64_t stride,
                               mb_var **y) MB_MUST_USE;
/* w[ids]; ids is (tokens); zeros where an id is negative. w has as many columns as its last
 * dimension. */
mb_status mb_layer_embedding(mb_tape *t, const mb_model *m, const mb_batch *b, const int32_t *ids,
                             const mb_weight *w, mb_var **y) MB_MUST_USE;
/* w[first + ids]. */
mb_status mb_layer_embedding_from(mb_tape *t, const mb_model *m, const mb_batch *b,
                                  const int32_t *ids, const mb_weight *w, int64_t first,
                                  mb_var **y) MB_MUST_USE;
/* Dropout with one key per token; `pooled`: per sequence. */
mb_status mb_layer_dropout(mb_tape *t, const mb_model *m, const mb_batch *b, float p, uint64_t site,
                           mb_var *x, mb_var **y) MB_MUST_USE;
mb_status mb_layer_dropout_pooled(mb_tape *t, const mb_model *m, const mb_batch *b, float p,
                                  uint64_t site, mb_var *x, mb_var **y) MB_MUST_USE;
/* Rotates x's heads by the batch's positions, in layers that do. */
mb_status mb_layer_rope(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer, mb_var *x,
                        mb_var **y) MB_MUST_USE;
/* y = x plus the fixed table of positions (mb_model_config.sinusoid). */
mb_status mb_layer_waves(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var *x,
                         mb_var **y) MB_MUST_USE;
/* Attention's bias by distance for this batch, from w(buckets, heads). */
mb_status mb_layer_bucket_bias(mb_tape *t, const mb_model *m, const mb_batch *b, bool both_ways,
                               const mb_weight *w, mb_var **y) MB_MUST_USE;
/* Attention of the batch's sequences, through its cache when it has one. scale 0: 1/sqrt(head). */
mb_status mb_layer_attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                             mb_var *q, mb_var *k, mb_var *v, bool causal, float scale,
                             mb_var **o) MB_MUST_USE;

/* The same with a bias by distance. */
mb_status mb_layer_attention_biased(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                                    mb_var *q, mb_var *k, mb_var *v, mb_var *bias, bool causal,
                                    float scale, mb_var **o) MB_MUST_USE;
/* The weights of keys and values; biases may be NULL. */
typedef struct mb_cross_weights {
    const mb_weight *k, *k_bias, *v, *v_bias;
} mb_cross_weights;
/* Attention of a decoder's queries to the encoder's output `source` (rows of b->source), every query
 * to every row of its source. With a cache, keys and values are put there the first time and taken
 * from there when b->source_cached; source is NULL then. */
mb_status mb_layer_cross_attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                                   mb_var *q, mb_var *source, const mb_cross_weights *w,
                                   float scale, mb_var **o) MB_MUST_USE;
/* What the head makes of the output: logits (rows of features, V or labels), or vectors
 * (max_seq, D) f32 of an embedder. */
mb_status mb_layer_result(mb_tape *t, const mb_model *m, const mb_batch *b, const mb_output *o,
                          mb_var **result) MB_MUST_USE;
/* The log-likelihood of each of the batch's targets, in their order, given the result; beyond them
 * numbers that mean nothing. */
mb_status mb_layer_loss(mb_tape *t, const mb_model *m, const mb_batch *b, const mb_output *o,
                        mb_var *result, mb_var **logprob) MB_MUST_USE;

/* Runs fn over all layers, each between layer begin and end, recomputed when the tape says so. */
typedef mb_status (*mb_model_layer_fn)(mb_tape *t, mb_model *m, const mb_batch *b, int64_t layer,
                                       mb_var *x, mb_var **y);
mb_status mb_model_run_layers(mb_tape *t, mb_model *m, const mb_batch *b, mb_model_layer_fn fn,
                              mb_var *x, mb_var **y) MB_MUST_USE;

/* What the layers of an encoder or a decoder share beside their input. */
typedef struct mb_shared_vars {
    mb_var *source; /* a decoder's: the encoder's output; NULL: it is cached */
    mb_var *bias;   /* of self attention by distance, or NULL */
} mb_shared_vars;
typedef mb_status (*mb_stack_layer_fn)(mb_tape *t, mb_model *m, const mb_batch *b,
                                       const mb_shared_vars *with, int64_t layer, mb_var *x,
                                       mb_var **y);
/* The same for the layers of one stack: the encoder's (b is a source), or the decoder's. */
mb_status mb_model_run_encoder(mb_tape *t, mb_model *m, const mb_batch *b, mb_stack_layer_fn fn,
                               const mb_shared_vars *with, mb_var *x, mb_var **y) MB_MUST_USE;
mb_status mb_model_run_decoder(mb_tape *t, mb_model *m, const mb_batch *b, mb_stack_layer_fn fn,
                               const mb_shared_vars *with, mb_var *x, mb_var **y) MB_MUST_USE;

#endif
