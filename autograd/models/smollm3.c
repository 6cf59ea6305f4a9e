/* autograd/models/smollm3.c - SmolLM3 (huggingface.co/blog/smollm3): Llama with every fourth layer not
 * rotated (arXiv:2501.18795), and, by choice, a window in those.
 */
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

/* no_rope_layers says 1 for a layer that is rotated; without it, no_rope_layer_interval. */
static mb_status unrotated(mb_json json, mb_model_config *c)
{
    const mb_json list = mb_json_get(json, "no_rope_layers");
    int64_t interval;

    MB_TRY(mb_config_count(json, "no_rope_layer_interval", 4, MB_MAX_LAYERS, &interval));
    if (mb_json_is_set(list) && mb_json_count(list) < (size_t)c->layers)
        return mb_json_fault(list, "names %zu layers, the model has %lld", mb_json_count(list),
                             (long long)c->layers);
    for (int64_t l = 0; l < c->layers; l++) {
        int64_t rotated = (l + 1) % interval != 0;

        if (mb_json_is_set(list))
            MB_TRY(mb_json_int(mb_json_at(list, (size_t)l), &rotated));
        if (rotated == 0)
            mb_layer_set_add(&c->unrotated, l);
    }
    return MB_OK;
}

static mb_status config(mb_json json, mb_model_config *c)
{
    mb_layer_set full = {0};
    bool use;

    MB_TRY(mb_config_decoder(json, c));
    MB_TRY(mb_json_get_bool(json, "tie_word_embeddings", true, &c->tied));
    MB_TRY(mb_json_get_bool(json, "attention_bias", false, &c->qkv_bias));
    MB_TRY(mb_json_get_bool(json, "mlp_bias", false, &c->mlp_bias));
    MB_TRY(mb_json_get_bool(json, "use_sliding_window", false, &use));
    MB_TRY(mb_json_get_int(json, "sliding_window", 0, &c->window));
    c->out_bias = c->qkv_bias;
    MB_TRY(unrotated(json, c));
    for (int64_t l = 0; l < c->layers; l++)
        if (!use || !mb_layer_set_has(&c->unrotated, l)) /* where layer_types does not say */
            mb_layer_set_add(&full, l);
    MB_TRY(mb_config_layer_types(json, &full, c));
    return mb_config_rope(json, c);
}

static mb_status config_gguf(const struct mb_gguf *g, mb_json out)
{
    return mb_config_decoder_gguf(g, "smollm3", out);
}

static const char *const model_types[] = {"smollm3", NULL};
static const char *const ignore[] = {"rotary_emb.inv_freq", NULL};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_smollm3 = {
    .name = "smollm3",
    .model_types = model_types,
    .architecture = {[MB_HEAD_CAUSAL_LM] = "SmolLM3ForCausalLM"},
    .gguf_arch = "smollm3",
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
