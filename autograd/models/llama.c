/* autograd/models/llama.c - Llama 2 and 3 and what has their shape: Mistral, SmolLM2, TinyLlama.
 *
 * Pre-norm decoder: RMSNorm, rotary grouped-query attention, SwiGLU (Touvron et al. 2023,
 * arXiv:2307.09288). Mistral adds a sliding window (arXiv:2310.06825).
 */
#include <stddef.h>
#include <string.h>

#include "autograd/layers.h"
#include "autograd/models/config.h"
#include "core/formats/gguf.h"

struct globals {
    mb_weight *embed, *norm, *head;
};

struct layer {
    mb_weight *attn_norm, *q, *k, *v, *o, *q_bias, *k_bias, *v_bias, *o_bias;
    mb_weight *ffn_norm, *gate, *up, *down, *gate_bias, *up_bias, *down_bias;
};

static bool untied(const mb_model_config *c)
{
    return !c->tied;
}

static bool qkv_bias(const mb_model_config *c)
{
    return c->qkv_bias;
}

static bool out_bias(const mb_model_config *c)
{
    return c->out_bias;
}

static bool mlp_bias(const mb_model_config *c)
{
    return c->mlp_bias;
}

// clang-format off
#define G(field) offsetof(struct globals, field)
#define L(field) offsetof(struct layer, field)
static const mb_weight_row globals[] = {
    {"model.embed_tokens.weight", "token_embd.weight", "V D", G(embed), MB_W_EMBED, 'r', NULL},
    {"model.norm.weight", "output_norm.weight", "D", G(norm), MB_W_NO_DECAY, '-', NULL},
    {"lm_head.weight", "output.weight", "V D", G(head), MB_W_LINEAR | MB_W_HEAD, 'r', untied},
    {0},
};
static const mb_weight_row layers[] = {
    {"model.layers.{l}.input_layernorm.weight", "blk.{l}.attn_norm.weight", "D", L(attn_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.self_attn.q_proj.weight", "blk.{l}.attn_q.weight", "H D", L(q), MB_W_LINEAR | MB_W_ROPE_Q, 'r', NULL},
    {"model.layers.{l}.self_attn.q_proj.bias", "blk.{l}.attn_q.bias", "H", L(q_bias), MB_W_NO_DECAY | MB_W_ROPE_Q, 'r', qkv_bias},
    {"model.layers.{l}.self_attn.k_proj.weight", "blk.{l}.attn_k.weight", "K D", L(k), MB_W_LINEAR | MB_W_ROPE_K, 'r', NULL},
    {"model.layers.{l}.self_attn.k_proj.bias", "blk.{l}.attn_k.bias", "K", L(k_bias), MB_W_NO_DECAY | MB_W_ROPE_K, 'r', qkv_bias},
    {"model.layers.{l}.self_attn.v_proj.weight", "blk.{l}.attn_v.weight", "K D", L(v), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.self_attn.v_proj.bias", "blk.{l}.attn_v.bias", "K", L(v_bias), MB_W_NO_DECAY, 'r', qkv_bias},
    {"model.layers.{l}.self_attn.o_proj.weight", "blk.{l}.attn_output.weight", "D H", L(o), MB_W_LINEAR, 'c', NULL},
    {"model.layers.{l}.self_attn.o_proj.bias", "blk.{l}.attn_output.bias", "D", L(o_bias), MB_W_NO_DECAY, '-', out_bias},
    {"model.layers.{l}.post_attention_layernorm.weight", "blk.{l}.ffn_norm.weight", "D", L(ffn_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.mlp.gate_proj.weight", "blk.{l}.ffn_gate.weight", "F D", L(gate), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.mlp.gate_proj.bias", "blk.{l}.ffn_gate.bias", "F", L(gate_bias), MB_W_NO_DECAY, 'r', mlp_bias},
    {"model.layers.{l}.mlp.up_proj.weight", "blk.{l}.ffn_up.weight", "F D", L(up), MB_W_LINEAR, 'r', NULL},
    {"model.layers.{l}.mlp.up_proj.bias", "blk.{l}.ffn_up.bias", "F", L(up_bias), MB_W_NO_DECAY, 'r', mlp_bias},
    {"model.layers.{l}.mlp.down_proj.weight", "blk.{l}.ffn_down.weight", "D F", L(down), MB_W_LINEAR, 'c', NULL},
    {"model.layers.{l}.mlp.down_proj.bias", "blk.{l}.ffn_down.bias", "D", L(down_bias), MB_W_NO_DECAY, '-', mlp_bias},
    {0},
};
// clang-format on

static mb_status config(mb_json json, mb_model_config *c)
{
    bool attention_bias;
    int64_t window;

    MB_TRY(mb_json_need_int(json, "hidden_size", 1, 1 << 20, &c->width));
    MB_TRY(mb_json_need_int(json, "intermediate_size", 1, 1 << 22, &c->ffn));
    MB_TRY(mb_json_need_int(json, "num_hidden_layers", 1, 4096, &c->layers));
    MB_TRY(mb_json_need_int(json, "num_attention_heads", 1, 4096, &c->heads));
    MB_TRY(mb_config_count(json, "num_key_value_heads", c->heads, 4096, &c->kv_heads));
    MB_TRY(mb_config_count(json, "head_dim", c->width / c->heads, 1 << 16, &c->head_dim));
    MB_TRY(mb_config_count(json, "max_position_embeddings", 2048, 1 << 24, &c->positions));
    MB_TRY(mb_config_real(json, "rms_norm_eps", 1e-6, &c->norm_eps));
    MB_TRY(mb_config_activation(json, "hidden_act", MB_ACT_SILU, &c->activation));
    MB_TRY(mb_json_get_bool(json, "tie_word_embeddings", false, &c->tied));
    MB_TRY(mb_json_get_bool(json, "attention_bias", false, &attention_bias));
    MB_TRY(mb_json_get_bool(json, "mlp_bias", false, &c->mlp_bias));
    MB_TRY(mb_config_real(json, "attention_dropout", 0.0, &c->drop_attention));
    c->qkv_bias = c->out_bias = attention_bias;
    if (strcmp(c->model_type, "mistral") == 0) {
        MB_TRY(mb_json_get_int(json, "sliding_window", 0, &window));
        c->window = window;
    }
    return mb_config_rope(json, c->head_dim, &c->rope);
}

static mb_status config_gguf(const mb_gguf *g, mb_json out)
{
    static const mb_config_gguf_key keys[] = {
        {"embedding_length", "hidden_size", true, false},
        {"feed_forward_length", "intermediate_size", true, false},
        {"block_count", "num_hidden_layers", true, false},
        {"attention.head_count", "num_attention_heads", true, false},
        {"attention.head_count_kv", "num_key_value_heads", false, false},
        {"attention.key_length", "head_dim", false, false},
        {"context_length", "max_position_embeddings", true, false},
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, true},
        {0},
    };

    MB_TRY(mb_json_set_string(out, "hidden_act", "silu"));
    MB_TRY(mb_config_from_gguf(g, "llama", keys, out));
    return mb_config_rope_from_gguf(g, "llama", out);
}

static mb_status attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l, mb_var *x,
                           mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *h, *q, *k, *v;

    MB_TRY(mb_layer_linear(t, m, b, x, w->q, w->q_bias, &q)); /* (T,H) */
    MB_TRY(mb_layer_linear(t, m, b, x, w->k, w->k_bias, &k)); /* (T,K) */
    MB_TRY(mb_layer_linear(t, m, b, x, w->v, w->v_bias, &v)); /* (T,K) */
    MB_TRY(mb_layer_rope(t, m, b, q, &q));
    MB_TRY(mb_layer_rope(t, m, b, k, &k));
    MB_TRY(mb_layer_attention(t, m, b, l, q, k, v, true, 0.0f, &h)); /* (T,H) */
    return mb_layer_linear(t, m, b, h, w->o, w->o_bias, y);          /* (T,D) */
}

static mb_status ffn(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l, mb_var *x,
                     mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *h, *gate, *up;

    MB_TRY(mb_layer_linear(t, m, b, x, w->gate, w->gate_bias, &gate)); /* (T,F) */
    MB_TRY(mb_layer_linear(t, m, b, x, w->up, w->up_bias, &up));       /* (T,F) */
    MB_TRY(mb_glu(t, gate, up, m->config.activation, &h));
    return mb_layer_linear(t, m, b, h, w->down, w->down_bias, y); /* (T,D) */
}

static mb_status layer(mb_tape *t, mb_model *m, const mb_batch *b, int64_t l, mb_var *x, mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *h;

    MB_TRY(mb_layer_rmsnorm(t, m, x, w->attn_norm, &h));
    MB_TRY(attention(t, m, b, l, h, &h));
    MB_TRY(mb_layer_add_rmsnorm(t, m, x, h, w->ffn_norm, &x, &h));
    MB_TRY(ffn(t, m, b, l, h, &h));
    return mb_add(t, x, h, y);
}

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    const struct globals *g = m->globals;
    mb_var *x;

    MB_TRY(mb_layer_embedding(t, m, b, b->ids, g->embed, &x));
    MB_TRY(mb_model_run_layers(t, m, b, layer, x, &x));
    MB_TRY(mb_layer_rmsnorm(t, m, x, g->norm, &x));
    *out = (mb_output){.hidden = x,
                       .features = x,
                       .head_w = m->config.tied ? g->embed : g->head,
                       .logit_scale = 1.0f};
    return MB_OK;
}

static const char *const model_types[] = {"llama", "mistral", NULL};
static const char *const ignore[] = {"rotary_emb.inv_freq", "rope_freqs.weight", NULL};
static const char *const rename_none[][2] = {{NULL, NULL}};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_llama = {
    .name = "llama",
    .model_types = model_types,
    .architecture = {[MB_HEAD_CAUSAL_LM] = "LlamaForCausalLM"},
    .gguf_arch = "llama",
    .prefix = "",
    .ignore = ignore,
    .rename = rename_none,
    .lora_default = lora_default,
    .globals = globals,
    .layer = layers,
    .globals_size = sizeof(struct globals),
    .layer_size = sizeof(struct layer),
    .config = config,
    .config_gguf = config_gguf,
    .forward = forward,
};
