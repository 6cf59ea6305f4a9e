/* autograd/models/olmo2.c - OLMo 2 (arXiv:2501.00656): norms behind each half of a layer, none before
 * it, and of q and k as wholes.
 */
#include "autograd/layers/decoder.h"
#include "autograd/models/config.h"

struct layer {
    mb_weight *attn_post_norm, *ffn_post_norm;
    mb_self_attention attn;
    mb_gated_ffn ffn;
};

// clang-format off
#define L(field) offsetof(struct layer, field)
static const mb_weight_row layers[] = {
    {"model.layers.{l}.self_attn.q_proj.weight", "blk.{l}.attn_q.weight", "H D", L(attn.q), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.q_proj.bias", NULL, "H", L(attn.q_bias), MB_W_NO_DECAY, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.k_proj.weight", "blk.{l}.attn_k.weight", "K D", L(attn.k), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.k_proj.bias", NULL, "K", L(attn.k_bias), MB_W_NO_DECAY, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.v_proj.weight", "blk.{l}.attn_v.weight", "K D", L(attn.v), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.v_proj.bias", NULL, "K", L(attn.v_bias), MB_W_NO_DECAY, 'r', mb_has_qkv_bias},
    {"model.layers.{l}.self_attn.q_norm.weight", "blk.{l}.attn_q_norm.weight", "H", L(attn.q_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.self_attn.k_norm.weight", "blk.{l}.attn_k_norm.weight", "K", L(attn.k_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.self_attn.o_proj.weight", "blk.{l}.attn_output.weight", "D H", L(attn.o), MB_W_LINEAR, 'c', NULL},
    {"model.layers.{l}.self_attn.o_proj.bias", NULL, "D", L(attn.o_bias), MB_W_NO_DECAY, '-', mb_has_out_bias},
    {"model.layers.{l}.post_attention_layernorm.weight", "blk.{l}.post_attention_norm.weight", "D", L(attn_post_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.mlp.gate_proj.weight", "blk.{l}.ffn_gate.weight", "F D", L(ffn.gate), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.mlp.up_proj.weight", "blk.{l}.ffn_up.weight", "F D", L(ffn.up), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.mlp.down_proj.weight", "blk.{l}.ffn_down.weight", "D F", L(ffn.down), MB_W_LINEAR, 'c', NULL},
    {"model.layers.{l}.post_feedforward_layernorm.weight", "blk.{l}.post_ffw_norm.weight", "D", L(ffn_post_norm), MB_W_NO_DECAY, '-', NULL},
    {0},
};
// clang-format on

static mb_status config(mb_json json, mb_model_config *c)
{
    MB_TRY(mb_config_decoder(json, c));
    MB_TRY(mb_config_real(json, "rms_norm_eps", 1e-5, &c->norm_eps));
    MB_TRY(mb_json_get_bool(json, "attention_bias", false, &c->qkv_bias));
    c->out_bias = c->qkv_bias;
    return mb_config_rope(json, c);
}

static mb_status config_gguf(const struct mb_gguf *g, mb_json out)
{
    return mb_config_decoder_gguf(g, "olmo2", out);
}

static mb_status layer(mb_tape *t, mb_model *m, const mb_batch *b, int64_t l, mb_var *x, mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *h;

    MB_TRY(mb_decoder_attention(t, m, b, l, x, &w->attn, &h));
    MB_TRY(mb_layer_rmsnorm(t, m, h, w->attn_post_norm, &h));
    MB_TRY(mb_add(t, x, h, &x));
    MB_TRY(mb_decoder_ffn(t, m, b, x, &w->ffn, &h));
    MB_TRY(mb_layer_rmsnorm(t, m, h, w->ffn_post_norm, &h));
    return mb_add(t, x, h, y);
}

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    return mb_decoder_run(t, m, b, layer, out);
}

static const char *const model_types[] = {"olmo2", NULL};
static const char *const ignore[] = {"rotary_emb.inv_freq", NULL};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_olmo2 = {
    .name = "olmo2",
    .model_types = model_types,
    .architecture = {[MB_HEAD_CAUSAL_LM] = "Olmo2ForCausalLM"},
    .gguf_arch = "olmo2",
    .prefix = "",
    .ignore = ignore,
    .lora_default = lora_default,
    .globals = mb_decoder_globals,
    .layer = layers,
    .globals_size = sizeof(mb_decoder),
    .layer_size = sizeof(struct layer),
    .config = config,
    .config_gguf = config_gguf,
    .forward = forward,
};
