/* autograd/models/marian.c - Marian's translation models (Junczys-Dowmunt et al. 2018,
 * arXiv:1804.00344), and M2M-100 and NLLB (Fan et al. 2020, arXiv:2010.11125), which share their
 * names.
 *
 * Encoder and decoder of Vaswani et al. 2017 with waves as positions: Marian's norms come after each
 * block, those of M2M-100 before it and at the end of each stack. Encoder, decoder and head share one
 * embedding; Marian adds a fixed bias to the logits.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "autograd/layers.h"
#include "autograd/models/config.h"

enum { SITE_ENC_EMBED, SITE_DEC_EMBED }; /* outside the layers */
enum { SITE_SELF, SITE_SOURCE, SITE_INNER, SITE_FFN };

struct globals {
    mb_weight *embed, *logits_bias;
    mb_weight *enc_norm, *enc_norm_bias, *dec_norm, *dec_norm_bias;
};

struct attention {
    mb_weight *q, *q_bias, *k, *k_bias, *v, *v_bias, *o, *o_bias, *norm, *norm_bias;
};

struct ffn {
    mb_weight *up, *up_bias, *down, *down_bias, *norm, *norm_bias;
};

struct layer { /* cross: of decoder layers */
    struct attention self, cross;
    struct ffn ffn;
};

static bool pre_norm(const mb_model_config *c)
{
    return c->pre_norm;
}

static bool post_norm(const mb_model_config *c)
{
    return !c->pre_norm;
}

// clang-format off
#define G(field) offsetof(struct globals, field)
#define L(field) offsetof(struct layer, field)
#define NORM MB_W_NO_DECAY
#define ATTENTION(name, norm_name, slot) \
    {name ".q_proj.weight", NULL, "H D", L(slot.q), MB_W_LINEAR, 'r', NULL}, \
    {name ".q_proj.bias", NULL, "H", L(slot.q_bias), MB_W_NO_DECAY, 'r', NULL}, \
    {name ".k_proj.weight", NULL, "H D", L(slot.k), MB_W_LINEAR, 'r', NULL}, \
    {name ".k_proj.bias", NULL, "H", L(slot.k_bias), MB_W_NO_DECAY, 'r', NULL}, \
    {name ".v_proj.weight", NULL, "H D", L(slot.v), MB_W_LINEAR, 'r', NULL}, \
    {name ".v_proj.bias", NULL, "H", L(slot.v_bias), MB_W_NO_DECAY, 'r', NULL}, \
    {name ".out_proj.weight", NULL, "D H", L(slot.o), MB_W_LINEAR, 'c', NULL}, \
    {name ".out_proj.bias", NULL, "D", L(slot.o_bias), MB_W_NO_DECAY, '-', NULL}, \
    {norm_name ".weight", NULL, "D", L(slot.norm), NORM, '-', NULL}, \
    {norm_name ".bias", NULL, "D", L(slot.norm_bias), NORM, '-', NULL}
#define FFN(name, wide) \
    {name ".fc1.weight", NULL, wide " D", L(ffn.up), MB_W_LINEAR, 'r', NULL}, \
    {name ".fc1.bias", NULL, wide, L(ffn.up_bias), MB_W_NO_DECAY, 'r', NULL}, \
    {name ".fc2.weight", NULL, "D " wide, L(ffn.down), MB_W_LINEAR, 'c', NULL}, \
    {name ".fc2.bias", NULL, "D", L(ffn.down_bias), MB_W_NO_DECAY, '-', NULL}, \
    {name ".final_layer_norm.weight", NULL, "D", L(ffn.norm), NORM, '-', NULL}, \
    {name ".final_layer_norm.bias", NULL, "D", L(ffn.norm_bias), NORM, '-', NULL}
static const mb_weight_row globals[] = {
    {"model.shared.weight", NULL, "V D", G(embed), MB_W_EMBED, 'r', NULL},
    {"model.encoder.layer_norm.weight", NULL, "D", G(enc_norm), NORM, '-', pre_norm},
    {"model.encoder.layer_norm.bias", NULL, "D", G(enc_norm_bias), NORM, '-', pre_norm},
    {"model.decoder.layer_norm.weight", NULL, "D", G(dec_norm), NORM, '-', pre_norm},
    {"model.decoder.layer_norm.bias", NULL, "D", G(dec_norm_bias), NORM, '-', pre_norm},
    {"final_logits_bias", NULL, "1 V", G(logits_bias), MB_W_FIXED | MB_W_HEAD, 'r', post_norm},
    {0},
};
static const mb_weight_row enc_layers[] = {
    ATTENTION("model.encoder.layers.{l}.self_attn", "model.encoder.layers.{l}.self_attn_layer_norm", self),
    FFN("model.encoder.layers.{l}", "F"),
    {0},
};
static const mb_weight_row dec_layers[] = {
    ATTENTION("model.decoder.layers.{l}.self_attn", "model.decoder.layers.{l}.self_attn_layer_norm", self),
    ATTENTION("model.decoder.layers.{l}.encoder_attn", "model.decoder.layers.{l}.encoder_attn_layer_norm", cross),
    FFN("model.decoder.layers.{l}", "G"),
    {0},
};
// clang-format on

static mb_status heads(mb_json json, mb_model_config *c)
{
    int64_t dec_heads;

    MB_TRY(mb_json_need_int(json, "encoder_attention_heads", 1, 4096, &c->heads));
    MB_TRY(mb_json_need_int(json, "decoder_attention_heads", 1, 4096, &dec_heads));
    if (dec_heads != c->heads)
        return mb_json_fault(json,
                             "has %lld heads in its encoder and %lld in its decoder; only "
                             "the same number is supported",
                             (long long)c->heads, (long long)dec_heads);
    if (c->width % c->heads != 0)
        return mb_json_fault(json, "shares a width of %lld among %lld heads", (long long)c->width,
                             (long long)c->heads);
    c->kv_heads = c->heads;
    c->head_dim = c->width / c->heads;
    return MB_OK;
}

static mb_status config(mb_json json, mb_model_config *c)
{
    static const mb_config_fixed fixed[] = {{"share_encoder_decoder_embeddings", true},
                                            {"tie_word_embeddings", true},
                                            {"normalize_before", false},
                                            {"normalize_embedding", false},
                                            {0}};
    const bool m2m = strcmp(c->model_type, "m2m_100") == 0;
    bool scale;

    MB_TRY(mb_config_require(json, fixed));
    MB_TRY(mb_json_need_int(json, "d_model", 1, 1 << 20, &c->width));
    MB_TRY(mb_json_need_int(json, "encoder_layers", 1, 4096, &c->layers));
    MB_TRY(mb_json_need_int(json, "decoder_layers", 1, 4096, &c->dec_layers));
    MB_TRY(mb_json_need_int(json, "encoder_ffn_dim", 1, 1 << 22, &c->ffn));
    MB_TRY(mb_json_need_int(json, "decoder_ffn_dim", 1, 1 << 22, &c->dec_ffn));
    MB_TRY(mb_json_need_int(json, "max_position_embeddings", 1, 1 << 24, &c->positions));
    MB_TRY(heads(json, c));
    MB_TRY(mb_config_activation(json, "activation_function", m2m ? MB_ACT_RELU : MB_ACT_GELU,
                                &c->activation));
    MB_TRY(mb_config_real(json, "dropout", 0.1, &c->drop_hidden));
    MB_TRY(mb_config_real(json, "attention_dropout", m2m ? 0.1 : 0.0, &c->drop_attention));
    MB_TRY(mb_config_real(json, "activation_dropout", 0.0, &c->drop_activation));
    MB_TRY(mb_json_get_bool(json, "scale_embedding", m2m, &scale));
    c->padding_row = c->pad_id; /* as torch's padding_idx */
    c->embed_scale = scale ? (float)sqrt((double)c->width) : 0.0f;
    c->drop_embed = c->drop_hidden;
    c->norm_eps = 1e-5f;
    c->tied = true;
    c->pre_norm = m2m;
    c->sinusoid = m2m ? MB_SINUSOID_FAIRSEQ : MB_SINUSOID_HALF;
    c->first_position = m2m ? (c->pad_id >= 0 ? c->pad_id : 1) + 1 : 0;
    return MB_OK;
}

static mb_status drop(mb_tape *t, const mb_model *m, const mb_batch *b, uint64_t site, mb_var *x,
                      mb_var **y)
{
    return mb_layer_dropout(t, m, b, m->config.drop_hidden, site, x, y);
}

/* A block between its norms: pre-norm reads h, the norm of the stream x; post-norm reads x itself. In
 * the end x and h are what the next block takes: the stream, and its norm or the stream again. */
static mb_status finish_block(mb_tape *t, const mb_model *m, mb_var *out, const mb_weight *norm,
                              const mb_weight *norm_bias, mb_var **x, mb_var **h)
{
    MB_TRY(mb_layer_add_layernorm(t, m, *x, out, norm, norm_bias, x, h));
    if (!m->config.pre_norm)
        *x = *h;
    return MB_OK;
}

static mb_status self_attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l,
                                const struct attention *w, bool causal, mb_var *x, mb_var **y)
{
    mb_var *q, *k, *v, *h;

    MB_TRY(mb_layer_linear(t, m, b, x, w->q, w->q_bias, &q)); /* (T,D) */
    MB_TRY(mb_layer_linear(t, m, b, x, w->k, w->k_bias, &k));
    MB_TRY(mb_layer_linear(t, m, b, x, w->v, w->v_bias, &v));
    MB_TRY(mb_layer_attention(t, m, b, l, q, k, v, causal, 0.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->o, w->o_bias, &h));
    return drop(t, m, b, mb_site(l, SITE_SELF), h, y);
}

static mb_status cross_attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l,
                                 const struct attention *w, mb_var *source, mb_var *x, mb_var **y)
{
    const mb_cross_weights kv = {w->k, w->k_bias, w->v, w->v_bias};
    mb_var *q, *h;

    MB_TRY(mb_layer_linear(t, m, b, x, w->q, w->q_bias, &q)); /* (T,D) */
    MB_TRY(mb_layer_cross_attention(t, m, b, l, q, source, &kv, 0.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->o, w->o_bias, &h));
    return drop(t, m, b, mb_site(l, SITE_SOURCE), h, y);
}

static mb_status ffn(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l,
                     const struct ffn *w, mb_var *x, mb_var **y)
{
    mb_var *h;

    MB_TRY(mb_layer_linear(t, m, b, x, w->up, w->up_bias, &h)); /* (T,F) */
    MB_TRY(mb_activate(t, h, m->config.activation, &h));
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_activation, mb_site(l, SITE_INNER), h, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->down, w->down_bias, &h)); /* (T,D) */
    return drop(t, m, b, mb_site(l, SITE_FFN), h, y);
}

/* The norms stand before their blocks (x is the stream) or after them. */
static mb_status layer(mb_tape *t, mb_model *m, const mb_batch *b, const mb_shared_vars *with,
                       int64_t l, mb_var *x, mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    const bool pre = m->config.pre_norm, decodes = l >= m->config.layers;
    const struct attention *last = decodes ? &w->cross : &w->self;
    mb_var *h = x, *out;

    if (pre)
        MB_TRY(mb_layer_layernorm(t, m, x, w->self.norm, w->self.norm_bias, &h));
    MB_TRY(self_attention(t, m, b, l, &w->self, decodes, h, &out));
    if (decodes) {
        const struct attention *norm = pre ? &w->cross : &w->self;

        MB_TRY(finish_block(t, m, out, norm->norm, norm->norm_bias, &x, &h));
        MB_TRY(cross_attention(t, m, b, l, &w->cross, with->source, h, &out));
    }
    MB_TRY(finish_block(t, m, out, pre ? w->ffn.norm : last->norm,
                        pre ? w->ffn.norm_bias : last->norm_bias, &x, &h));
    MB_TRY(ffn(t, m, b, l, &w->ffn, h, &out));
    if (pre)
        return mb_add(t, x, out, y);
    return mb_layer_add_layernorm(t, m, x, out, w->ffn.norm, w->ffn.norm_bias, &x, y);
}

static mb_status embed(mb_tape *t, mb_model *m, const mb_batch *b, int site, mb_var **y)
{
    const struct globals *g = m->globals;
    mb_var *x;

    MB_TRY(mb_layer_embedding(t, m, b, b->ids, g->embed, &x));
    if (m->config.embed_scale != 0.0f)
        MB_TRY(mb_scale(t, x, m->config.embed_scale, &x));
    MB_TRY(mb_layer_waves(t, m, b, x, &x));
    return drop(t, m, b, mb_site(-1, site), x, y);
}

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    const struct globals *g = m->globals;
    const bool pre = m->config.pre_norm;
    mb_shared_vars with = {0};
    mb_var *x;

    if (!b->source_cached) {
        MB_TRY(embed(t, m, b->source, SITE_ENC_EMBED, &x));
        MB_TRY(mb_model_run_encoder(t, m, b->source, layer, &with, x, &x));
        if (pre)
            MB_TRY(mb_layer_layernorm(t, m, x, g->enc_norm, g->enc_norm_bias, &x));
        with.source = x;
    }
    MB_TRY(embed(t, m, b, SITE_DEC_EMBED, &x));
    MB_TRY(mb_model_run_decoder(t, m, b, layer, &with, x, &x));
    if (pre)
        MB_TRY(mb_layer_layernorm(t, m, x, g->dec_norm, g->dec_norm_bias, &x));
    *out = (mb_output){.hidden = x,
                       .features = x,
                       .head_w = g->embed,
                       .head_b = g->logits_bias,
                       .logit_scale = 1.0f};
    return MB_OK;
}

static const char *const model_types[] = {"marian", "m2m_100", NULL};
static const char *const ignore[] = {"embed_positions.weight", "coder.embed_tokens.weight",
                                     "lm_head.weight", NULL};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_marian = {
    .name = "marian",
    .model_types = model_types,
    .architecture = {[MB_HEAD_SEQ2SEQ] = "MarianMTModel"},
    .prefix = "",
    .ignore = ignore,
    .lora_default = lora_default,
    .globals = globals,
    .layer = enc_layers,
    .dec_layer = dec_layers,
    .globals_size = sizeof(struct globals),
    .layer_size = sizeof(struct layer),
    .dec_layer_size = sizeof(struct layer),
    .config = config,
    .forward = forward,
};
