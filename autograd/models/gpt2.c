/* autograd/models/gpt2.c - GPT-2 (Radford et al. 2019).
 *
 * Pre-norm decoder with learned positions, LayerNorm, tanh-GELU; its matrices are stored (in,out)
 * ("Conv1D"), and c_attn holds q, k and v side by side.
 */
#include <math.h>
#include <stddef.h>

#include "autograd/layers.h"
#include "autograd/models/config.h"

enum { SITE_EMBED = 0, SITE_ATTN_OUT = 1, SITE_MLP_OUT = 2 };

struct globals {
    mb_weight *wte, *wpe, *ln_f, *ln_f_bias, *head;
};

struct layer {
    mb_weight *ln_1, *ln_1_bias, *c_attn, *c_attn_bias, *c_proj, *c_proj_bias;
    mb_weight *ln_2, *ln_2_bias, *c_fc, *c_fc_bias, *mlp_proj, *mlp_proj_bias;
};

static bool untied(const mb_model_config *c)
{
    return !c->tied;
}

// clang-format off
#define G(field) offsetof(struct globals, field)
#define L(field) offsetof(struct layer, field)
static const mb_weight_row globals[] = {
    {"transformer.wte.weight", "token_embd.weight", "V D", G(wte), MB_W_EMBED, 'r', NULL},
    {"transformer.wpe.weight", "position_embd.weight", "P D", G(wpe), MB_W_EMBED, '-', NULL},
    {"transformer.ln_f.weight", "output_norm.weight", "D", G(ln_f), MB_W_NO_DECAY, '-', NULL},
    {"transformer.ln_f.bias", "output_norm.bias", "D", G(ln_f_bias), MB_W_NO_DECAY, '-', NULL},
    {"lm_head.weight", "output.weight", "V D", G(head), MB_W_LINEAR | MB_W_HEAD, 'r', untied},
    {0},
};
static const mb_weight_row layers[] = {
    {"transformer.h.{l}.ln_1.weight", "blk.{l}.attn_norm.weight", "D", L(ln_1), MB_W_NO_DECAY, '-', NULL},
    {"transformer.h.{l}.ln_1.bias", "blk.{l}.attn_norm.bias", "D", L(ln_1_bias), MB_W_NO_DECAY, '-', NULL},
    {"transformer.h.{l}.attn.c_attn.weight", "blk.{l}.attn_qkv.weight", "D 3", L(c_attn), MB_W_LINEAR | MB_W_CONV1D, 'c', NULL},
    {"transformer.h.{l}.attn.c_attn.bias", "blk.{l}.attn_qkv.bias", "3", L(c_attn_bias), MB_W_NO_DECAY, 'r', NULL},
    {"transformer.h.{l}.attn.c_proj.weight", "blk.{l}.attn_output.weight", "D D", L(c_proj), MB_W_LINEAR | MB_W_CONV1D, 'r', NULL},
    {"transformer.h.{l}.attn.c_proj.bias", "blk.{l}.attn_output.bias", "D", L(c_proj_bias), MB_W_NO_DECAY, '-', NULL},
    {"transformer.h.{l}.ln_2.weight", "blk.{l}.ffn_norm.weight", "D", L(ln_2), MB_W_NO_DECAY, '-', NULL},
    {"transformer.h.{l}.ln_2.bias", "blk.{l}.ffn_norm.bias", "D", L(ln_2_bias), MB_W_NO_DECAY, '-', NULL},
    {"transformer.h.{l}.mlp.c_fc.weight", "blk.{l}.ffn_up.weight", "D F", L(c_fc), MB_W_LINEAR | MB_W_CONV1D, 'c', NULL},
    {"transformer.h.{l}.mlp.c_fc.bias", "blk.{l}.ffn_up.bias", "F", L(c_fc_bias), MB_W_NO_DECAY, 'r', NULL},
    {"transformer.h.{l}.mlp.c_proj.weight", "blk.{l}.ffn_down.weight", "F D", L(mlp_proj), MB_W_LINEAR | MB_W_CONV1D, 'r', NULL},
    {"transformer.h.{l}.mlp.c_proj.bias", "blk.{l}.ffn_down.bias", "D", L(mlp_proj_bias), MB_W_NO_DECAY, '-', NULL},
    {0},
};
// clang-format on

static mb_status config(mb_json json, mb_model_config *c)
{
    static const mb_config_fixed fixed[] = {
        {"scale_attn_weights", true},
        {"scale_attn_by_inverse_layer_idx", false},
        {"add_cross_attention", false},
        {0},
    };

    MB_TRY(mb_config_require(json, fixed));
    MB_TRY(mb_json_need_int(json, "n_embd", 1, 1 << 20, &c->width));
    MB_TRY(mb_json_need_int(json, "n_layer", 1, 4096, &c->layers));
    MB_TRY(mb_json_need_int(json, "n_head", 1, 4096, &c->heads));
    MB_TRY(mb_json_need_int(json, "n_positions", 1, 1 << 24, &c->positions));
    MB_TRY(mb_config_count(json, "n_inner", 4 * c->width, 1 << 22, &c->ffn));
    MB_TRY(mb_config_real(json, "layer_norm_epsilon", 1e-5, &c->norm_eps));
    MB_TRY(mb_config_activation(json, "activation_function", MB_ACT_GELU_TANH, &c->activation));
    MB_TRY(mb_config_real(json, "embd_pdrop", 0.1, &c->drop_embed));
    MB_TRY(mb_config_real(json, "resid_pdrop", 0.1, &c->drop_hidden));
    MB_TRY(mb_config_real(json, "attn_pdrop", 0.1, &c->drop_attention));
    MB_TRY(mb_json_get_bool(json, "tie_word_embeddings", true, &c->tied));
    c->kv_heads = c->heads;
    c->head_dim = c->width / c->heads;
    return MB_OK;
}

static mb_status config_gguf(const struct mb_gguf *g, mb_json out)
{
    static const mb_config_gguf_key keys[] = {
        {"embedding_length", "n_embd", true, false},
        {"feed_forward_length", "n_inner", true, false},
        {"block_count", "n_layer", true, false},
        {"attention.head_count", "n_head", true, false},
        {"context_length", "n_positions", true, false},
        {"attention.layer_norm_epsilon", "layer_norm_epsilon", true, true},
        {0},
    };

    return mb_config_from_gguf(g, "gpt2", keys, out);
}

static mb_status attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l, mb_var *x,
                           mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *h, *qkv, *part[3];

    MB_TRY(mb_layer_linear(t, m, b, x, w->c_attn, w->c_attn_bias, &qkv)); /* (T,3D) */
    const int64_t d = mb_cols(&qkv->value) / 3;
    for (int i = 0; i < 3; i++)
        MB_TRY(mb_tape_columns(t, qkv, i * d, d, &part[i]));
    MB_TRY(mb_layer_attention(t, m, b, l, part[0], part[1], part[2], true, 0.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->c_proj, w->c_proj_bias, &h));
    return mb_layer_dropout(t, m, b, m->config.drop_hidden, mb_site(l, SITE_ATTN_OUT), h, y);
}

static mb_status layer(mb_tape *t, mb_model *m, const mb_batch *b, int64_t l, mb_var *x, mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *h;

    MB_TRY(mb_layer_layernorm(t, m, x, w->ln_1, w->ln_1_bias, &h));
    MB_TRY(attention(t, m, b, l, h, &h));
    MB_TRY(mb_layer_add_layernorm(t, m, x, h, w->ln_2, w->ln_2_bias, &x, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->c_fc, w->c_fc_bias, &h)); /* (T,F) */
    MB_TRY(mb_activate(t, h, m->config.activation, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->mlp_proj, w->mlp_proj_bias, &h)); /* (T,D) */
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_hidden, mb_site(l, SITE_MLP_OUT), h, &h));
    return mb_add(t, x, h, y);
}

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    const struct globals *g = m->globals;
    mb_var *x, *p;

    MB_TRY(mb_layer_embedding(t, m, b, b->ids, g->wte, &x));
    MB_TRY(mb_layer_embedding(t, m, b, b->position, g->wpe, &p));
    MB_TRY(mb_add(t, x, p, &x));
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_embed, mb_site(-1, SITE_EMBED), x, &x));
    MB_TRY(mb_model_run_layers(t, m, b, layer, x, &x));
    MB_TRY(mb_layer_layernorm(t, m, x, g->ln_f, g->ln_f_bias, &x));
    *out = (mb_output){.hidden = x,
                       .features = x,
                       .head_w = m->config.tied ? g->wte : g->head,
                       .logit_scale = 1.0f};
    return MB_OK;
}

static const char *const model_types[] = {"gpt2", NULL};
static const char *const ignore[] = {".attn.bias", ".attn.masked_bias", NULL};
static const char *const lora_default[] = {"c_attn", NULL};

const mb_model_family mb_model_gpt2 = {
    .name = "gpt2",
    .model_types = model_types,
    .architecture = {[MB_HEAD_CAUSAL_LM] = "GPT2LMHeadModel"},
    .gguf_arch = "gpt2",
    .prefix = "transformer.",
    .ignore = ignore,
    .lora_default = lora_default,
    .globals = globals,
    .layer = layers,
    .globals_size = sizeof(struct globals),
    .layer_size = sizeof(struct layer),
    .config = config,
    .config_gguf = config_gguf,
    .forward = forward,
};
