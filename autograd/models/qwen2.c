/* autograd/models/qwen2.c - Qwen 2 and 2.5 (arXiv:2407.10671): Llama with biases on q, k and v, and, by
 * choice, a sliding window in the upper layers.
 */
#include "autograd/layers/decoder.h"
#include "autograd/models/config.h"

// clang-format off
#define L(field) MB_DECODER_LAYER(field)
static const mb_weight_row layers[] = {
    {"model.layers.{l}.input_layernorm.weight", "blk.{l}.attn_norm.weight", "D", L(attn_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.self_attn.q_proj.weight", "blk.{l}.attn_q.weight", "H D", L(attn.q), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.q_proj.bias", "blk.{l}.attn_q.bias", "H", L(attn.q_bias), MB_W_NO_DECAY, 'r', NULL},
    {"model.layers.{l}.self_attn.k_proj.weight", "blk.{l}.attn_k.weight", "K D", L(attn.k), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.k_proj.bias", "blk.{l}.attn_k.bias", "K", L(attn.k_bias), MB_W_NO_DECAY, 'r', NULL},
    {"model.layers.{l}.self_attn.v_proj.weight", "blk.{l}.attn_v.weight", "K D", L(attn.v), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.v_proj.bias", "blk.{l}.attn_v.bias", "K", L(attn.v_bias), MB_W_NO_DECAY, 'r', NULL},
    {"model.layers.{l}.self_attn.o_proj.weight", "blk.{l}.attn_output.weight", "D H", L(attn.o), MB_W_LINEAR, 'c', NULL},
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
    MB_TRY(mb_config_upper_window(json, c));
    return mb_config_rope(json, c);
}

static mb_status config_gguf(const struct mb_gguf *g, mb_json out)
{
    return mb_config_decoder_gguf(g, "qwen2", out);
}

static const char *const model_types[] = {"qwen2", NULL};
static const char *const ignore[] = {"rotary_emb.inv_freq", NULL};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_qwen2 = {
    .name = "qwen2",
    .model_types = model_types,
    .architecture = {[MB_HEAD_CAUSAL_LM] = "Qwen2ForCausalLM"},
    .gguf_arch = "qwen2",
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
