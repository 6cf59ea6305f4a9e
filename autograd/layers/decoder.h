/* autograd/layers/decoder.h - what decoders since Llama share: the weights of a block, its two
 * halves, and the whole of a pre-norm decoder.
 *
 * A family's weight table puts its weights into these structs; a weight it has not stays NULL. Where
 * a family does something else, it writes a layer function of its own out of the halves.
 */
#ifndef MB_AUTOGRAD_LAYERS_DECODER_H
#define MB_AUTOGRAD_LAYERS_DECODER_H

#include <stddef.h>

#include "autograd/layers.h"

typedef struct mb_self_attention {
    mb_weight *q, *k, *v, *o; /* (H,D) (K,D) (K,D) (D,H) */
    mb_weight *q_bias, *k_bias, *v_bias, *o_bias;
    mb_weight *q_norm, *k_norm; /* RMSNorm before the rotation: of each head, or of all as one */
} mb_self_attention;

typedef struct mb_gated_ffn {
    mb_weight *gate, *up, *down; /* (F,D) (F,D) (D,F) */
    mb_weight *gate_bias, *up_bias, *down_bias;
} mb_gated_ffn;

typedef struct mb_decoder_layer {
    mb_weight *attn_norm, *ffn_norm;
    mb_self_attention attn;
    mb_gated_ffn ffn;
} mb_decoder_layer;

typedef struct mb_decoder {
    mb_weight *embed, *norm, *head; /* head NULL: tied */
} mb_decoder;

/* The table of a decoder's globals: Hugging Face's names, and llama.cpp's. */
extern const mb_weight_row mb_decoder_globals[];
/* For weight tables: the slots, and what a weight's presence hangs on. */
#define MB_DECODER(field)       offsetof(mb_decoder, field)
#define MB_DECODER_LAYER(field) offsetof(mb_decoder_layer, field)
bool mb_has_head(const mb_model_config *c);
bool mb_has_qkv_bias(const mb_model_config *c);
bool mb_has_out_bias(const mb_model_config *c);
bool mb_has_mlp_bias(const mb_model_config *c);

/* x (T,D) -> y (T,D): projections, norms of q and k, rotation, causal attention, output. */
mb_status mb_decoder_attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                               mb_var *x, const mb_self_attention *w, mb_var **y) MB_MUST_USE;
/* The same from q (T,H), k and v (T,K) on. */
mb_status mb_decoder_heads(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                           mb_var *q, mb_var *k, mb_var *v, const mb_self_attention *w,
                           mb_var **y) MB_MUST_USE;
/* x (T,D) -> y (T,D): down(f(gate x) * up x). */
mb_status mb_decoder_ffn(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var *x,
                         const mb_gated_ffn *w, mb_var **y) MB_MUST_USE;

/* A pre-norm layer of mb_decoder_layer. */
mb_status mb_decoder_prenorm(mb_tape *t, mb_model *m, const mb_batch *b, int64_t layer, mb_var *x,
                             mb_var **y) MB_MUST_USE;
/* Embedding, layers, last norm, head, of a family whose globals are mb_decoder. */
mb_status mb_decoder_run(mb_tape *t, mb_model *m, const mb_batch *b, mb_model_layer_fn layer,
                         mb_output *out) MB_MUST_USE;
/* A family's whole forward, where its layers are mb_decoder_prenorm. */
mb_status mb_decoder_forward(mb_tape *t, mb_model *m, const mb_batch *b,
                             mb_output *out) MB_MUST_USE;

#endif
