/* autograd/layers/decoder.c - see autograd/layers/decoder.h. */
#include "autograd/layers/decoder.h"

// clang-format off
const mb_weight_row mb_decoder_globals[] = {
    {"model.embed_tokens.weight", "token_embd.weight", "V D", MB_DECODER(embed), MB_W_EMBED, 'r', NULL},
    {"model.norm.weight", "output_norm.weight", "D", MB_DECODER(norm), MB_W_NO_DECAY, '-', NULL},
    {"lm_head.weight", "output.weight", "V D", MB_DECODER(head), MB_W_LINEAR | MB_W_HEAD, 'r', mb_has_head},
    {0},
};
// clang-format on

bool mb_has_head(const mb_model_config *c)
{
    return !c->tied;
}

bool mb_has_qkv_bias(const mb_model_config *c)
{
    return c->qkv_bias;
}

bool mb_has_out_bias(const mb_model_config *c)
{
    return c->out_bias;
}

bool mb_has_mlp_bias(const mb_model_config *c)
{
    return c->mlp_bias;
}

mb_status mb_decoder_heads(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                           mb_var *q, mb_var *k, mb_var *v, const mb_self_attention *w, mb_var **y)
{
    mb_var *h;

    if (w->q_norm != NULL)
        MB_TRY(mb_layer_rmsnorm(t, m, q, w->q_norm, &q));
    if (w->k_norm != NULL)
        MB_TRY(mb_layer_rmsnorm(t, m, k, w->k_norm, &k));
    MB_TRY(mb_layer_rope(t, m, b, layer, q, &q));
    MB_TRY(mb_layer_rope(t, m, b, layer, k, &k));
    MB_TRY(mb_layer_attention(t, m, b, layer, q, k, v, true, m->config.attention_scale,
                              &h));                         /* (T,H) */
    return mb_layer_linear(t, m, b, h, w->o, w->o_bias, y); /* (T,D) */
}

mb_status mb_decoder_attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                               mb_var *x, const mb_self_attention *w, mb_var **y)
{
    mb_var *q, *k, *v;

    MB_TRY(mb_layer_linear(t, m, b, x, w->q, w->q_bias, &q)); /* (T,H) */
    MB_TRY(mb_layer_linear(t, m, b, x, w->k, w->k_bias, &k)); /* (T,K) */
    MB_TRY(mb_layer_linear(t, m, b, x, w->v, w->v_bias, &v)); /* (T,K) */
    return mb_decoder_heads(t, m, b, layer, q, k, v, w, y);
}

mb_status mb_decoder_ffn(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var *x,
                         const mb_gated_ffn *w, mb_var **y)
{
    mb_var *h, *gate, *up;

    MB_TRY(mb_layer_linear(t, m, b, x, w->gate, w->gate_bias, &gate)); /* (T,F) */
    MB_TRY(mb_layer_linear(t, m, b, x, w->up, w->up_bias, &up));       /* (T,F) */
    MB_TRY(mb_glu(t, gate, up, m->config.activation, &h));
    return mb_layer_linear(t, m, b, h, w->down, w->down_bias, y); /* (T,D) */
}

mb_status mb_decoder_prenorm(mb_tape *t, mb_model *m, const mb_batch *b, int64_t layer, mb_var *x,
                             mb_var **y)
{
    const mb_decoder_layer *w = mb_model_layer(m, layer);
    mb_var *h;

    MB_TRY(mb_layer_rmsnorm(t, m, x, w->attn_norm, &h));
    MB_TRY(mb_decoder_attention(t, m, b, layer, h, &w->attn, &h));
    MB_TRY(mb_layer_add_rmsnorm(t, m, x, h, w->ffn_norm, &x, &h));
    MB_TRY(mb_decoder_ffn(t, m, b, h, &w->ffn, &h));
    return mb_add(t, x, h, y);
}

/* A scale that a file's framework holds in the model's own type. */
static float rounded(float x, mb_dtype d)
{
    switch (d) {
    case MB_DTYPE_BF16:
        return mb_bf16_to_f32(mb_f32_to_bf16(x));
    case MB_DTYPE_F16:
        return mb_f16_to_f32(mb_f32_to_f16(x));
    default:
        return x;
    }
}

mb_status mb_decoder_run(mb_tape *t, mb_model *m, const mb_batch *b, mb_model_layer_fn layer,
                         mb_output *out)
{
    const mb_decoder *g = m->globals;
    mb_var *x;

    MB_TRY(mb_layer_embedding(t, m, b, b->ids, g->embed, &x));
    if (m->config.embed_scale != 0.0f)
        MB_TRY(mb_scale(t, x, rounded(m->config.embed_scale, m->dtype), &x));
    MB_TRY(mb_model_run_layers(t, m, b, layer, x, &x));
    MB_TRY(mb_layer_rmsnorm(t, m, x, g->norm, &x));
    *out = (mb_output){.hidden = x,
                       .features = x,
                       .head_w = m->config.tied ? g->embed : g->head,
                       .softcap = m->config.head_softcap,
                       .logit_scale = 1.0f};
    return MB_OK;
}

mb_status mb_decoder_forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    return mb_decoder_run(t, m, b, mb_decoder_prenorm, out);
}
