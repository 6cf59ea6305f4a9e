/* autograd/models/qwen3.c - Qwen 3 (arXiv:2505.09388): Llama with RMSNorm on each head of q and k and a
 * head size of its own.
 */
#include "autograd/layers/decoder.h"
#include "autograd/models/config.h"

// clang-format off
#define L(field) MB_DECODER_LAYER(field)
static const mb_weight_row layers[] = {
    {"model.layers.{l}.input_layernorm.weight", "blk.{l}.attn_norm.weight", "D", L(attn_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.self_attn.q_proj.weight", "blk.{l}.attn_q.weight", "H D", L(attn.q), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.q_proj.bias", "blk.{l}.attn_q.bias", "H", L(attn.q_bias), MB_W_NO_DECAY, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.k_proj.weight", "blk.{l}.attn_k.weight", "K D", L(attn.k), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.k_proj.bias", "blk.{l}.attn_k.bias", "K", L(attn.k_bias), MB_W_NO_DECAY, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.v_proj.weight", "blk.{l}.attn_v.weight", "K D", L(attn.v), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.v_proj.bias", "blk.{l}.attn_v.bias", "K", L(attn.v_bias), MB_W_NO_DECAY, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.q_norm.weight", "blk.{l}.attn_q_norm.weight", "h", L(attn.q_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.self_attn.k_norm.weight", "blk.{l}.attn_k_norm.weight", "h", L(attn.k_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.self_attn.o_proj.weight", "blk.{l}.attn_output.weight", "D H", L(attn.o), MB_W_LINEAR, 'c', NULL},
    {"model.layers.{l}.self_attn.o_proj.bias", "blk.{l}.attn_output.bias", "D", L(attn.o_bias), MB_W_NO_DECAY, '-', mb_has_out_bias},
    {"model.layers.{l}.post_attention_layernorm.weight", "blk.{l}.ffn_norm.weight", "D", L(ffn_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.mlp.gate_proj.weight", "blk.{l}.ffn_gate.weight", "F D", L(ffn.gate), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.mlp.up_proj.weight", "blk.{l}.ffn_up.weight", "F D", L(ffn.up), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.mlp.down_proj.weight", "blk.{l}.ffn_down.weight", "D F", L(ffn.down), MB_W_LINEAR, 'c', NULL},
    {0},
};
// clang-format on

static mb_status config(mb_json json, mb_model_config *c)
{
    MB_TRY(mb_config_decoder(json, c));
    MB_TRY(mb_config_count(json, "head_dim", 128, 1 << 16, &c->head_dim));
    MB_TRY(mb_json_get_bool(json, "attention_bias", false, &c->qkv_bias));
    c->out_bias = c->qkv_bias;
    MB_TRY(mb_config_upper_window(json, c));
    return mb_config_rope(json, c);
}

static mb_status config_gguf(const struct mb_gguf *g, mb_json out)
{
    return mb_config_decoder_gguf(g, "qwen3", out);
}

static const char *const model_types[] = {"qwen3", NULL};
static const char *const ignore[] = {"rotary_emb.inv_freq", NULL};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_qwen3 = {
    .name = "qwen3",
    .model_types = model_types,
    .architecture = {[MB_HEAD_CAUSAL_LM] = "Qwen3ForCausalLM"},
    .gguf_arch = "qwen3",
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
