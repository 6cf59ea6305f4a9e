/* autograd/models/gemma3.c - Gemma 3, what reads and writes text (arXiv:2503.19786).
 *
 * Norms before and after each half of a layer, and on each head of q and k, all with weights stored
 * less 1; embeddings times sqrt(D); most layers see a window and rotate by a base of their own.
 */
#include <math.h>

#include "autograd/layers/decoder.h"
#include "autograd/models/config.h"
#include "core/formats/gguf.h"

struct layer {
    mb_weight *attn_norm, *attn_post_norm, *ffn_norm, *ffn_post_norm;
    mb_self_attention attn;
    mb_gated_ffn ffn;
};

enum { NORM = MB_W_NO_DECAY | MB_W_GGUF_PLUS_1, PATTERN = 6 };

// clang-format off
/* As mb_decoder_globals, but for the norm that GGUF stores with 1 added. */
static const mb_weight_row globals[] = {
    {"model.embed_tokens.weight", "token_embd.weight", "V D", MB_DECODER(embed), MB_W_EMBED, 'r', NULL},
    {"model.norm.weight", "output_norm.weight", "D", MB_DECODER(norm), NORM, '-', NULL},
    {"lm_head.weight", "output.weight", "V D", MB_DECODER(head), MB_W_LINEAR | MB_W_HEAD, 'r', mb_has_head},
    {0},
};
#define L(field) offsetof(struct layer, field)
static const mb_weight_row layers[] = {
    {"model.layers.{l}.input_layernorm.weight", "blk.{l}.attn_norm.weight", "D", L(attn_norm), NORM, '-', NULL},
    {"model.layers.{l}.self_attn.q_proj.weight", "blk.{l}.attn_q.weight", "H D", L(attn.q), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.q_proj.bias", NULL, "H", L(attn.q_bias), MB_W_NO_DECAY, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.k_proj.weight", "blk.{l}.attn_k.weight", "K D", L(attn.k), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.k_proj.bias", NULL, "K", L(attn.k_bias), MB_W_NO_DECAY, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.v_proj.weight", "blk.{l}.attn_v.weight", "K D", L(attn.v), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.v_proj.bias", NULL, "K", L(attn.v_bias), MB_W_NO_DECAY, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.q_norm.weight", "blk.{l}.attn_q_norm.weight", "h", L(attn.q_norm), NORM, '-', NULL},
    {"model.layers.{l}.self_attn.k_norm.weight", "blk.{l}.attn_k_norm.weight", "h", L(attn.k_norm), NORM, '-', NULL},
    {"model.layers.{l}.self_attn.o_proj.weight", "blk.{l}.attn_output.weight", "D H", L(attn.o), MB_W_LINEAR, 'c', NULL},
    {"model.layers.{l}.self_attn.o_proj.bias", NULL, "D", L(attn.o_bias), MB_W_NO_DECAY, '-', mb_has_out_bias},
    {"model.layers.{l}.post_attention_layernorm.weight", "blk.{l}.post_attention_norm.weight", "D", L(attn_post_norm), NORM, '-', NULL},
    {"model.layers.{l}.pre_feedforward_layernorm.weight", "blk.{l}.ffn_norm.weight", "D", L(ffn_norm), NORM, '-', NULL},
    {"model.layers.{l}.mlp.gate_proj.weight", "blk.{l}.ffn_gate.weight", "F D", L(ffn.gate), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.mlp.up_proj.weight", "blk.{l}.ffn_up.weight", "F D", L(ffn.up), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.mlp.down_proj.weight", "blk.{l}.ffn_down.weight", "D F", L(ffn.down), MB_W_LINEAR, 'c', NULL},
    {"model.layers.{l}.post_feedforward_layernorm.weight", "blk.{l}.post_ffw_norm.weight", "D", L(ffn_post_norm), NORM, '-', NULL},
    {0},
};
// clang-format on

/* Every sixth layer sees everything, where layer_types does not say which. */
static mb_status layer_types(mb_json json, mb_model_config *c)
{
    mb_layer_set full = {0};
    int64_t pattern;

    MB_TRY(mb_config_count(json, "_sliding_window_pattern", PATTERN, MB_MAX_LAYERS, &pattern));
    MB_TRY(mb_config_count(json, "sliding_window_pattern", pattern, MB_MAX_LAYERS, &pattern));
    for (int64_t l = pattern - 1; l < c->layers; l += pattern)
        mb_layer_set_add(&full, l);
    return mb_config_layer_types(json, &full, c);
}

static mb_status config(mb_json json, mb_model_config *c)
{
    static const mb_config_fixed fixed[] = {{"use_bidirectional_attention", false}, {NULL, false}};
    const mb_json softcap = mb_json_get(json, "attn_logit_softcapping");
    double scalar;

    MB_TRY(mb_config_require(json, fixed));
    if (mb_json_is_set(softcap))
        return mb_json_fault(softcap, "is set; a cap on attention scores is not supported");
    MB_TRY(mb_config_decoder(json, c));
    MB_TRY(mb_config_count(json, "head_dim", 256, 1 << 16, &c->head_dim));
    MB_TRY(mb_config_count(json, "max_position_embeddings", 131072, 1 << 24, &c->positions));
    MB_TRY(mb_config_activation(json, "hidden_activation", MB_ACT_GELU_TANH, &c->activation));
    MB_TRY(mb_json_get_bool(json, "tie_word_embeddings", true, &c->tied));
    MB_TRY(mb_json_get_bool(json, "attention_bias", false, &c->qkv_bias));
    MB_TRY(mb_json_get_real(json, "query_pre_attn_scalar", 256.0, &scalar));
    MB_TRY(mb_config_real(json, "final_logit_softcapping", 0.0, &c->head_softcap));
    MB_TRY(mb_json_get_int(json, "sliding_window", 4096, &c->window));
    if (!(scalar > 0.0))
        return mb_json_fault(mb_json_get(json, "query_pre_attn_scalar"), "must be positive");
    if (!(c->head_softcap >= 0.0f))
        return mb_json_fault(mb_json_get(json, "final_logit_softcapping"), "must be positive");
    c->out_bias = c->qkv_bias;
    c->attention_scale = (float)(1.0 / sqrt(scalar));
    c->embed_scale = (float)sqrt((double)c->width);
    c->norm_offset = 1.0f;
    MB_TRY(layer_types(json, c));
    return mb_config_rope_by_layer(json, 1e6, 1e4, c);
}

/* What llama.cpp does not store: 27B (62 layers) scales by D / heads, not by the head's size; layers
 * with a window rotate by base 10000. */
static mb_status config_gguf(const mb_gguf *g, mb_json out)
{
    static const mb_config_gguf_key keys[] = {
        {"attention.sliding_window", "sliding_window", true, false},
        {"final_logit_softcapping", "final_logit_softcapping", false, true},
        {0},
    };
    int64_t blocks, width, heads, head_dim;

    MB_TRY(mb_config_decoder_gguf(g, "gemma3", out));
    MB_TRY(mb_config_from_gguf(g, "gemma3", keys, out));
    MB_TRY(mb_json_set_string(out, "hidden_activation", "gelu_pytorch_tanh"));
    MB_TRY(mb_json_set_int(out, "sliding_window_pattern", PATTERN));
    MB_TRY(mb_json_set_real(out, "rope_local_base_freq", 1e4));
    MB_TRY(mb_json_need_int(out, "num_hidden_layers", 1, MB_MAX_LAYERS, &blocks));
    MB_TRY(mb_json_need_int(out, "hidden_size", 1, 1 << 20, &width));
    MB_TRY(mb_json_need_int(out, "num_attention_heads", 1, 4096, &heads));
    MB_TRY(mb_config_count(out, "head_dim", 256, 1 << 16, &head_dim));
    MB_TRY(mb_json_set_int(out, "head_dim", head_dim));
    return mb_json_set_int(out, "query_pre_attn_scalar", blocks == 62 ? width / heads : head_dim);
}

static mb_status layer(mb_tape *t, mb_model *m, const mb_batch *b, int64_t l, mb_var *x, mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *h;

    MB_TRY(mb_layer_rmsnorm(t, m, x, w->attn_norm, &h));
    MB_TRY(mb_decoder_attention(t, m, b, l, h, &w->attn, &h));
    MB_TRY(mb_layer_rmsnorm(t, m, h, w->attn_post_norm, &h));
    MB_TRY(mb_layer_add_rmsnorm(t, m, x, h, w->ffn_norm, &x, &h));
    MB_TRY(mb_decoder_ffn(t, m, b, h, &w->ffn, &h));
    MB_TRY(mb_layer_rmsnorm(t, m, h, w->ffn_post_norm, &h));
    return mb_add(t, x, h, y);
}

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    return mb_decoder_run(t, m, b, layer, out);
}

static const char *const model_types[] = {"gemma3_text", NULL};
static const char *const ignore[] = {"rotary_emb.inv_freq", NULL};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_gemma3 = {
    .name = "gemma3",
    .model_types = model_types,
    .architecture = {[MB_HEAD_CAUSAL_LM] = "Gemma3ForCausalLM"},
    .gguf_arch = "gemma3",
    .prefix = "",
    .ignore = ignore,
    .lora_default = lora_default,
    .globals = globals,
    .layer = layers,
    .globals_size = sizeof(mb_decoder),
    .layer_size = sizeof(struct layer),
    .config = config,
    .config_gguf = config_gguf,
    .forward = forward,
};
