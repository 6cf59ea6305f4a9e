/* autograd/models/phi3.c - Phi-3, Phi-3.5 and Phi-4-mini (arXiv:2404.14219): Llama with q, k and v in one
 * matrix and gate and up in another, a window, and by choice only a part of each head rotated.
 */
#include "autograd/layers/decoder.h"
#include "autograd/models/config.h"
#include "core/formats/gguf.h"

struct layer {
    mb_weight *attn_norm, *qkv, *ffn_norm, *gate_up, *down;
    mb_self_attention attn;
};

enum { SITE_ATTENTION_OUT = 1, SITE_FFN_OUT };

// clang-format off
#define L(field) offsetof(struct layer, field)
static const mb_weight_row layers[] = {
    {"model.layers.{l}.input_layernorm.weight", "blk.{l}.attn_norm.weight", "D", L(attn_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.self_attn.qkv_proj.weight", "blk.{l}.attn_qkv.weight", "q D", L(qkv), MB_W_LINEAR, '-', NULL},
    {"model.layers.{l}.self_attn.o_proj.weight", "blk.{l}.attn_output.weight", "D H", L(attn.o), MB_W_LINEAR, 'c', NULL},
    {"model.layers.{l}.post_attention_layernorm.weight", "blk.{l}.ffn_norm.weight", "D", L(ffn_norm), MB_W_NO_DECAY, '-', NULL},
    {"model.layers.{l}.mlp.gate_up_proj.weight", "blk.{l}.ffn_up.weight", "2 D", L(gate_up), MB_W_LINEAR, '-', NULL},
    {"model.layers.{l}.mlp.down_proj.weight", "blk.{l}.ffn_down.weight", "D F", L(down), MB_W_LINEAR, 'c', NULL},
    {0},
};
// clang-format on

static mb_status config(mb_json json, mb_model_config *c)
{
    MB_TRY(mb_config_decoder(json, c));
    MB_TRY(mb_config_count(json, "max_position_embeddings", 4096, 1 << 24, &c->positions));
    MB_TRY(mb_config_real(json, "rms_norm_eps", 1e-5, &c->norm_eps));
    MB_TRY(mb_config_real(json, "resid_pdrop", 0.0, &c->drop_hidden));
    MB_TRY(mb_json_get_int(json, "sliding_window", 0, &c->window));
    return mb_config_rope_part(json, c);
}

static mb_status config_gguf(const mb_gguf *g, mb_json out)
{
    static const mb_config_gguf_key keys[] = {
        {"attention.sliding_window", "sliding_window", false, false},
        {0},
    };
    int64_t width, heads, head_dim, rotated;

    MB_TRY(mb_config_decoder_gguf(g, "phi3", out));
    MB_TRY(mb_config_from_gguf(g, "phi3", keys, out));
    MB_TRY(mb_json_need_int(out, "hidden_size", 1, 1 << 20, &width));
    MB_TRY(mb_json_need_int(out, "num_attention_heads", 1, 4096, &heads));
    MB_TRY(mb_config_count(out, "head_dim", width / heads, 1 << 16, &head_dim));
    MB_TRY(mb_gguf_opt_i64(g, "phi3.rope.dimension_count", head_dim, &rotated));
    if (rotated == head_dim)
        return MB_OK;
    return mb_json_set_real(mb_json_get(out, "rope_parameters"), "partial_rotary_factor",
                            (double)rotated / (double)head_dim);
}

static mb_status attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l, mb_var *x,
                           mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    const int64_t wide = m->config.heads * m->config.head_dim,
                  narrow = m->config.kv_heads * m->config.head_dim;
    mb_var *all, *q, *k, *v;

    MB_TRY(mb_layer_linear(t, m, b, x, w->qkv, NULL, &all)); /* (T, H + 2 K) */
    MB_TRY(mb_tape_columns(t, all, 0, wide, &q));
    MB_TRY(mb_tape_columns(t, all, wide, narrow, &k));
    MB_TRY(mb_tape_columns(t, all, wide + narrow, narrow, &v));
    return mb_decoder_heads(t, m, b, l, q, k, v, &w->attn, y);
}

static mb_status ffn(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l, mb_var *x,
                     mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *all, *gate, *up, *h;

    MB_TRY(mb_layer_linear(t, m, b, x, w->gate_up, NULL, &all)); /* (T, 2 F) */
    MB_TRY(mb_tape_columns(t, all, 0, m->config.ffn, &gate));
    MB_TRY(mb_tape_columns(t, all, m->config.ffn, m->config.ffn, &up));
    MB_TRY(mb_glu(t, gate, up, m->config.activation, &h));
    return mb_layer_linear(t, m, b, h, w->down, NULL, y);
}

static mb_status layer(mb_tape *t, mb_model *m, const mb_batch *b, int64_t l, mb_var *x, mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    const float p = m->config.drop_hidden;
    mb_var *h;

    MB_TRY(mb_layer_rmsnorm(t, m, x, w->attn_norm, &h));
    MB_TRY(attention(t, m, b, l, h, &h));
    MB_TRY(mb_layer_dropout(t, m, b, p, mb_site(l, SITE_ATTENTION_OUT), h, &h));
    MB_TRY(mb_layer_add_rmsnorm(t, m, x, h, w->ffn_norm, &x, &h));
    MB_TRY(ffn(t, m, b, l, h, &h));
    MB_TRY(mb_layer_dropout(t, m, b, p, mb_site(l, SITE_FFN_OUT), h, &h));
    return mb_add(t, x, h, y);
}

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    return mb_decoder_run(t, m, b, layer, out);
}

static const char *const model_types[] = {"phi3", NULL};
static const char *const ignore[] = {"rotary_emb.inv_freq", NULL};
static const char *const lora_default[] = {"qkv_proj", NULL};

const mb_model_family mb_model_phi3 = {
    .name = "phi3",
    .model_types = model_types,
    .architecture = {[MB_HEAD_CAUSAL_LM] = "Phi3ForCausalLM"},
    .gguf_arch = "phi3",
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
