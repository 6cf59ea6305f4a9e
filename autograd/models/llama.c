/* autograd/models/llama.c - Llama 2 and 3 and what has their shape: Mistral, SmolLM2, TinyLlama.
 *
 * Pre-norm decoder: RMSNorm, rotary grouped-query attention, SwiGLU (Touvron et al. 2023,
 * arXiv:2307.09288). Mistral adds a sliding window (arXiv:2310.06825).
 */
#include <string.h>

#include "autograd/layers/decoder.h"
#include "autograd/models/config.h"

// clang-format off
#define L(field) MB_DECODER_LAYER(field)
static const mb_weight_row layers[] = {
    {"model.layers.{l}.input_layernorm.weight", "blk.{l}.attn_norm.weight", "D", L(attn_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.self_attn.q_proj.weight", "blk.{l}.attn_q.weight", "H D", L(attn.q), MB_W_LINEAR | MB_W_ROPE_Q, 'r', NULL},
    {"model.layers.{l}.self_attn.q_proj.bias", "blk.{l}.attn_q.bias", "H", L(attn.q_bias), MB_W_NO_DECAY | MB_W_ROPE_Q, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.k_proj.weight", "blk.{l}.attn_k.weight", "K D", L(attn.k), MB_W_LINEAR | MB_W_ROPE_K, 'r', NULL},
    {"model.layers.{l}.self_attn.k_proj.bias", "blk.{l}.attn_k.bias", "K", L(attn.k_bias), MB_W_NO_DECAY | MB_W_ROPE_K, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.v_proj.weight", "blk.{l}.attn_v.weight", "K D", L(attn.v), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.v_proj.bias", "blk.{l}.attn_v.bias", "K", L(attn.v_bias), MB_W_NO_DECAY, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.o_proj.weight", "blk.{l}.attn_output.weight", "D H", L(attn.o), MB_W_LINEAR, 'c', NULL},
    {"model.layers.{l}.self_attn.o_proj.bias", "blk.{l}.attn_output.bias", "D", L(attn.o_bias), MB_W_NO_DECAY, '-', mb_has_out_bias},
    {"model.layers.{l}.post_attention_layernorm.weight", "blk.{l}.ffn_norm.weight", "D", L(ffn_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.mlp.gate_proj.weight", "blk.{l}.ffn_gate.weight", "F D", L(ffn.gate), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.mlp.gate_proj.bias", "blk.{l}.ffn_gate.bias", "F", L(ffn.gate_bias), MB_W_NO_DECAY, 'r', mb_has_mlp_bias},
    {"model.layers.{l}.mlp.up_proj.weight", "blk.{l}.ffn_up.weight", "F D", L(ffn.up), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.mlp.up_proj.bias", "blk.{l}.ffn_up.bias", "F", L(ffn.up_bias), MB_W_NO_DECAY, 'r', mb_has_mlp_bias},
    {"model.layers.{l}.mlp.down_proj.weight", "blk.{l}.ffn_down.weight", "D F", L(ffn.down), MB_W_LINEAR, 'c', NULL},
    {"model.layers.{l}.mlp.down_proj.bias", "blk.{l}.ffn_down.bias", "D", L(ffn.down_bias), MB_W_NO_DECAY, '-', mb_has_mlp_bias},
    {0},
};
// clang-format on

static mb_status config(mb_json json, mb_model_config *c)
{
    bool attention_bias;

    MB_TRY(mb_config_decoder(json, c));
    MB_TRY(mb_json_get_bool(json, "attention_bias", false, &attention_bias));
    MB_TRY(mb_json_get_bool(json, "mlp_bias", false, &c->mlp_bias));
    c->qkv_bias = c->out_bias = attention_bias;
    if (strcmp(c->model_type, "mistral") == 0)
        MB_TRY(mb_json_get_int(json, "sliding_window", 0, &c->window));
    return mb_config_rope(json, c);
}

static mb_status config_gguf(const struct mb_gguf *g, mb_json out)
{
    return mb_config_decoder_gguf(g, "llama", out);
}

static const char *const model_types[] = {"llama", "mistral", NULL};
static const char *const ignore[] = {"rotary_emb.inv_freq", "rope_freqs.weight", NULL};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_llama = {
    .name = "llama",
    .model_types = model_types,
    .architecture = {[MB_HEAD_CAUSAL_LM] = "LlamaForCausalLM"},
    .gguf_arch = "llama",
    .prefix = "",
    .ignore = ignore,
    .lora_default = lora_default,
    .globals = mb_decoder_globals,
    .layer = layers,
    .globals_size = sizeof(mb_decoder),
    .layer_size = sizeof(mb_decoder_layer),
    .config = config,
    .config_gguf = config_gguf,
    .forward = mb_decoder_forward,
};
