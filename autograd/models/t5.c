/* autograd/models/t5.c - T5 and mT5 (Raffel et al. 2020, arXiv:1910.10683): v1.0 with ReLU and tied,
 * scaled logits, v1.1 (also Flan-T5, mT5) with a gated unit.
 *
 * Pre-norm encoder and decoder with RMSNorm and without biases; no scaling of attention's scores;
 * positions only as a bias by bucketed distance, which the first layer's weight gives for all layers.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "autograd/layers.h"
#include "autograd/models/config.h"
#include "core/formats/gguf.h"

enum { SITE_ENC_EMBED, SITE_ENC_END, SITE_DEC_EMBED, SITE_DEC_END }; /* outside the layers */
enum { SITE_SELF, SITE_SOURCE, SITE_INNER, SITE_FFN };

enum { MOST_POSITIONS = 1 << 17 }; /* T5 sets no bound */

struct globals {
    mb_weight *embed, *enc_bias, *dec_bias, *enc_norm, *dec_norm, *head;
};

struct ffn {
    mb_weight *norm, *gate, *up, *down;
};

struct enc_layer {
    mb_weight *norm, *q, *k, *v, *o;
    struct ffn ffn;
};

struct dec_layer {
    mb_weight *norm, *q, *k, *v, *o;
    mb_weight *cross_norm, *cross_q, *cross_k, *cross_v, *cross_o;
    struct ffn ffn;
};

static bool untied(const mb_model_config *c)
{
    return !c->tied;
}

static bool gated(const mb_model_config *c)
{
    return c->gated;
}

static bool plain(const mb_model_config *c)
{
    return !c->gated;
}

// clang-format off
#define G(field) offsetof(struct globals, field)
#define E(field) offsetof(struct enc_layer, field)
#define D(field) offsetof(struct dec_layer, field)
static const mb_weight_row globals[] = {
    {"shared.weight", "token_embd.weight", "V D", G(embed), MB_W_EMBED, 'r', NULL},
    {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "enc.blk.0.attn_rel_b.weight", "B N", G(enc_bias), MB_W_EMBED, '-', NULL},
    {"decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "dec.blk.0.attn_rel_b.weight", "B N", G(dec_bias), MB_W_EMBED, '-', NULL},
    {"encoder.final_layer_norm.weight", "enc.output_norm.weight", "D", G(enc_norm), MB_W_NO_DECAY, '-', NULL},
    {"decoder.final_layer_norm.weight", "dec.output_norm.weight", "D", G(dec_norm), MB_W_NO_DECAY, '-', NULL},
    {"lm_head.weight", "output.weight", "V D", G(head), MB_W_LINEAR | MB_W_HEAD, 'r', untied},
    {0},
};
static const mb_weight_row enc_layers[] = {
    {"encoder.block.{l}.layer.0.layer_norm.weight", "enc.blk.{l}.attn_norm.weight", "D", E(norm), MB_W_NO_DECAY, '-', NULL},
    {"encoder.block.{l}.layer.0.SelfAttention.q.weight", "enc.blk.{l}.attn_q.weight", "H D", E(q), MB_W_LINEAR, 'r', NULL},
    {"encoder.block.{l}.layer.0.SelfAttention.k.weight", "enc.blk.{l}.attn_k.weight", "H D", E(k), MB_W_LINEAR, 'r', NULL},
    {"encoder.block.{l}.layer.0.SelfAttention.v.weight", "enc.blk.{l}.attn_v.weight", "H D", E(v), MB_W_LINEAR, 'r', NULL},
    {"encoder.block.{l}.layer.0.SelfAttention.o.weight", "enc.blk.{l}.attn_o.weight", "D H", E(o), MB_W_LINEAR, 'c', NULL},
    {"encoder.block.{l}.layer.1.layer_norm.weight", "enc.blk.{l}.ffn_norm.weight", "D", E(ffn.norm), MB_W_NO_DECAY, '-', NULL},
    {"encoder.block.{l}.layer.1.DenseReluDense.wi.weight", "enc.blk.{l}.ffn_up.weight", "F D", E(ffn.up), MB_W_LINEAR, 'r', plain},
    {"encoder.block.{l}.layer.1.DenseReluDense.wi_0.weight", "enc.blk.{l}.ffn_gate.weight", "F D", E(ffn.gate), MB_W_LINEAR, 'r', gated},
    {"encoder.block.{l}.layer.1.DenseReluDense.wi_1.weight", "enc.blk.{l}.ffn_up.weight", "F D", E(ffn.up), MB_W_LINEAR, 'r', gated},
    {"encoder.block.{l}.layer.1.DenseReluDense.wo.weight", "enc.blk.{l}.ffn_down.weight", "D F", E(ffn.down), MB_W_LINEAR, 'c', NULL},
    {0},
};
static const mb_weight_row dec_layers[] = {
    {"decoder.block.{l}.layer.0.layer_norm.weight", "dec.blk.{l}.attn_norm.weight", "D", D(norm), MB_W_NO_DECAY, '-', NULL},
    {"decoder.block.{l}.layer.0.SelfAttention.q.weight", "dec.blk.{l}.attn_q.weight", "H D", D(q), MB_W_LINEAR, 'r', NULL},
    {"decoder.block.{l}.layer.0.SelfAttention.k.weight", "dec.blk.{l}.attn_k.weight", "H D", D(k), MB_W_LINEAR, 'r', NULL},
    {"decoder.block.{l}.layer.0.SelfAttention.v.weight", "dec.blk.{l}.attn_v.weight", "H D", D(v), MB_W_LINEAR, 'r', NULL},
    {"decoder.block.{l}.layer.0.SelfAttention.o.weight", "dec.blk.{l}.attn_o.weight", "D H", D(o), MB_W_LINEAR, 'c', NULL},
    {"decoder.block.{l}.layer.1.layer_norm.weight", "dec.blk.{l}.cross_attn_norm.weight", "D", D(cross_norm), MB_W_NO_DECAY, '-', NULL},
    {"decoder.block.{l}.layer.1.EncDecAttention.q.weight", "dec.blk.{l}.cross_attn_q.weight", "H D", D(cross_q), MB_W_LINEAR, 'r', NULL},
    {"decoder.block.{l}.layer.1.EncDecAttention.k.weight", "dec.blk.{l}.cross_attn_k.weight", "H D", D(cross_k), MB_W_LINEAR, 'r', NULL},
    {"decoder.block.{l}.layer.1.EncDecAttention.v.weight", "dec.blk.{l}.cross_attn_v.weight", "H D", D(cross_v), MB_W_LINEAR, 'r', NULL},
    {"decoder.block.{l}.layer.1.EncDecAttention.o.weight", "dec.blk.{l}.cross_attn_o.weight", "D H", D(cross_o), MB_W_LINEAR, 'c', NULL},
    {"decoder.block.{l}.layer.2.layer_norm.weight", "dec.blk.{l}.ffn_norm.weight", "D", D(ffn.norm), MB_W_NO_DECAY, '-', NULL},
    {"decoder.block.{l}.layer.2.DenseReluDense.wi.weight", "dec.blk.{l}.ffn_up.weight", "G D", D(ffn.up), MB_W_LINEAR, 'r', plain},
    {"decoder.block.{l}.layer.2.DenseReluDense.wi_0.weight", "dec.blk.{l}.ffn_gate.weight", "G D", D(ffn.gate), MB_W_LINEAR, 'r', gated},
    {"decoder.block.{l}.layer.2.DenseReluDense.wi_1.weight", "dec.blk.{l}.ffn_up.weight", "G D", D(ffn.up), MB_W_LINEAR, 'r', gated},
    {"decoder.block.{l}.layer.2.DenseReluDense.wo.weight", "dec.blk.{l}.ffn_down.weight", "D G", D(ffn.down), MB_W_LINEAR, 'c', NULL},
    {0},
};
// clang-format on

static bool is_mt5(const mb_model_config *c)
{
    return strcmp(c->model_type, "mt5") == 0;
}

/* "relu", "gated-gelu" (which is the tanh form), "gated-silu" ... */
static mb_status feed_forward(mb_json json, mb_model_config *c)
{
    const char *kind;

    MB_TRY(mb_json_get_string(json, "feed_forward_proj", is_mt5(c) ? "gated-gelu" : "relu", &kind));
    c->gated = strncmp(kind, "gated-", 6) == 0;
    if (strcmp(kind, "gated-gelu") == 0) {
        c->activation = MB_ACT_GELU_TANH;
        return MB_OK;
    }
    return mb_config_activation_named(json, "feed_forward_proj", kind + (c->gated ? 6 : 0),
                                      &c->activation);
}

/* transformers 5 ties all T5 models it makes and says by another key whether logits are scaled; before
 * it, an untied head was the sign that they are not. Those of mT5 never are. */
static mb_status logits(mb_json json, mb_model_config *c)
{
    bool tied, scaled;

    MB_TRY(mb_json_get_bool(json, "tie_word_embeddings", true, &tied));
    MB_TRY(mb_json_get_bool(json, "scale_decoder_outputs", tied, &scaled));
    c->tied = tied;
    c->logit_scale = scaled && !is_mt5(c) ? (float)(1.0 / sqrt((double)c->width)) : 0.0f;
    return MB_OK;
}

static mb_status config(mb_json json, mb_model_config *c)
{
    MB_TRY(mb_json_need_int(json, "d_model", 1, 1 << 20, &c->width));
    MB_TRY(mb_json_need_int(json, "d_kv", 1, 1 << 16, &c->head_dim));
    MB_TRY(mb_json_need_int(json, "d_ff", 1, 1 << 22, &c->ffn));
    MB_TRY(mb_json_need_int(json, "num_layers", 1, 4096, &c->layers));
    MB_TRY(mb_config_count(json, "num_decoder_layers", c->layers, 4096, &c->dec_layers));
    MB_TRY(mb_json_need_int(json, "num_heads", 1, 4096, &c->heads));
    MB_TRY(mb_config_count(json, "relative_attention_num_buckets", 32, 1 << 16, &c->buckets));
    MB_TRY(
        mb_config_count(json, "relative_attention_max_distance", 128, 1 << 24, &c->max_distance));
    if (c->buckets % 2 != 0 || c->buckets < 4 || c->max_distance <= c->buckets / 2)
        return mb_json_fault(json, "has %lld buckets for distances up to %lld",
                             (long long)c->buckets, (long long)c->max_distance);
    MB_TRY(mb_config_real(json, "layer_norm_epsilon", 1e-6, &c->norm_eps));
    MB_TRY(mb_config_real(json, "dropout_rate", 0.1, &c->drop_hidden));
    MB_TRY(feed_forward(json, c));
    MB_TRY(logits(json, c));
    c->drop_embed = c->drop_attention = c->drop_activation = c->drop_hidden;
    c->kv_heads = c->heads;
    c->dec_ffn = c->ffn;
    c->positions = MOST_POSITIONS;
    if (c->decoder_start_id < 0)
        c->decoder_start_id = c->pad_id;
    return MB_OK;
}

/* llama.cpp has one feed-forward form by name less than T5: tensors say whether it is gated, and what its
 * graphs compute is ReLU or the tanh form of GELU. Logits are never scaled: mbuyu writes a scaled head. */
static mb_status config_gguf(const mb_gguf *g, mb_json out)
{
    static const mb_config_gguf_key keys[] = {
        {"embedding_length", "d_model", true, false},
        {"feed_forward_length", "d_ff", true, false},
        {"block_count", "num_layers", true, false},
        {"decoder_block_count", "num_decoder_layers", false, false},
        {"attention.head_count", "num_heads", true, false},
        {"attention.key_length", "d_kv", true, false},
        {"attention.relative_buckets_count", "relative_attention_num_buckets", true, false},
        {"attention.layer_norm_rms_epsilon", "layer_norm_epsilon", true, true},
        {"decoder_start_token_id", "decoder_start_token_id", false, false},
        {0},
    };
    const bool gate = mb_gguf_has_tensor(g, "enc.blk.0.ffn_gate.weight");

    MB_TRY(mb_config_from_gguf(g, "t5", keys, out));
    MB_TRY(mb_json_set_string(out, "feed_forward_proj", gate ? "gated-gelu" : "relu"));
    return mb_json_set_bool(out, "scale_decoder_outputs", false);
}

/* As T5 was made: by what a row of the matrix is multiplied with; init_std is a factor. Scores are not
 * scaled by the size of a head, so queries start that much smaller. */
static double init_std(const mb_model_config *c, const mb_weight_row *row)
{
    const double factor = c->init_std > 0.0f ? (double)c->init_std : 1.0;
    const double d = (double)c->width;
    const bool query = strstr(row->name, "Attention.q.") != NULL;

    if (strcmp(row->name, "shared.weight") == 0 || strcmp(row->name, "lm_head.weight") == 0)
        return factor;
    if (query)
        return factor / sqrt(d * (double)c->head_dim);
    if (strstr(row->name, "Attention.o.") != NULL)
        return factor / sqrt((double)(c->heads * c->head_dim));
    if (strstr(row->name, ".wo.") != NULL)
        return factor / sqrt((double)c->ffn);
    return factor / sqrt(d);
}

static mb_status drop(mb_tape *t, const mb_model *m, const mb_batch *b, uint64_t site, mb_var *x,
                      mb_var **y)
{
    return mb_layer_dropout(t, m, b, m->config.drop_hidden, site, x, y);
}

/* x is the normed input; its dropped output is to be added to the stream. */
static mb_status ffn(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l,
                     const struct ffn *w, mb_var *x, mb_var **y)
{
    mb_var *h, *gate;

    MB_TRY(mb_layer_linear(t, m, b, x, w->up, NULL, &h)); /* (T,F) */
    if (w->gate != NULL) {
        MB_TRY(mb_layer_linear(t, m, b, x, w->gate, NULL, &gate)); /* (T,F) */
        MB_TRY(mb_glu(t, gate, h, m->config.activation, &h));
    } else {
        MB_TRY(mb_activate(t, h, m->config.activation, &h));
    }
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_activation, mb_site(l, SITE_INNER), h, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->down, NULL, &h)); /* (T,D) */
    return drop(t, m, b, mb_site(l, SITE_FFN), h, y);
}

static mb_status enc_layer(mb_tape *t, mb_model *m, const mb_batch *b, const mb_shared_vars *with,
                           int64_t l, mb_var *x, mb_var **y)
{
    const struct enc_layer *w = mb_model_layer(m, l);
    mb_var *h, *q, *k, *v;

    MB_TRY(mb_layer_rmsnorm(t, m, x, w->norm, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->q, NULL, &q)); /* (T,H) */
    MB_TRY(mb_layer_linear(t, m, b, h, w->k, NULL, &k));
    MB_TRY(mb_layer_linear(t, m, b, h, w->v, NULL, &v));
    MB_TRY(mb_layer_attention_biased(t, m, b, l, q, k, v, with->bias, false, 1.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->o, NULL, &h)); /* (T,D) */
    MB_TRY(drop(t, m, b, mb_site(l, SITE_SELF), h, &h));
    MB_TRY(mb_layer_add_rmsnorm(t, m, x, h, w->ffn.norm, &x, &h));
    MB_TRY(ffn(t, m, b, l, &w->ffn, h, &h));
    return mb_add(t, x, h, y);
}

static mb_status dec_layer(mb_tape *t, mb_model *m, const mb_batch *b, const mb_shared_vars *with,
                           int64_t l, mb_var *x, mb_var **y)
{
    const struct dec_layer *w = mb_model_layer(m, l);
    const mb_cross_weights cross = {.k = w->cross_k, .v = w->cross_v};
    mb_var *h, *q, *k, *v;

    MB_TRY(mb_layer_rmsnorm(t, m, x, w->norm, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->q, NULL, &q)); /* (T,H) */
    MB_TRY(mb_layer_linear(t, m, b, h, w->k, NULL, &k));
    MB_TRY(mb_layer_linear(t, m, b, h, w->v, NULL, &v));
    MB_TRY(mb_layer_attention_biased(t, m, b, l, q, k, v, with->bias, true, 1.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->o, NULL, &h)); /* (T,D) */
    MB_TRY(drop(t, m, b, mb_site(l, SITE_SELF), h, &h));
    MB_TRY(mb_layer_add_rmsnorm(t, m, x, h, w->cross_norm, &x, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->cross_q, NULL, &q)); /* (T,H) */
    MB_TRY(mb_layer_cross_attention(t, m, b, l, q, with->source, &cross, 1.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->cross_o, NULL, &h)); /* (T,D) */
    MB_TRY(drop(t, m, b, mb_site(l, SITE_SOURCE), h, &h));
    MB_TRY(mb_layer_add_rmsnorm(t, m, x, h, w->ffn.norm, &x, &h));
    MB_TRY(ffn(t, m, b, l, &w->ffn, h, &h));
    return mb_add(t, x, h, y);
}

static mb_status encode(mb_tape *t, mb_model *m, const mb_batch *b, mb_var **y)
{
    const struct globals *g = m->globals;
    mb_shared_vars with = {0};
    mb_var *x;

    MB_TRY(mb_layer_embedding(t, m, b, b->ids, g->embed, &x));
    MB_TRY(drop(t, m, b, mb_site(-1, SITE_ENC_EMBED), x, &x));
    MB_TRY(mb_layer_bucket_bias(t, m, b, true, g->enc_bias, &with.bias));
    MB_TRY(mb_model_run_encoder(t, m, b, enc_layer, &with, x, &x));
    MB_TRY(mb_layer_rmsnorm(t, m, x, g->enc_norm, &x));
    return drop(t, m, b, mb_site(-1, SITE_ENC_END), x, y);
}

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    const struct globals *g = m->globals;
    const mb_model_config *c = &m->config;
    mb_shared_vars with = {0};
    mb_var *x;

    if (!b->source_cached)
        MB_TRY(encode(t, m, b->source, &with.source));
    MB_TRY(mb_layer_embedding(t, m, b, b->ids, g->embed, &x));
    MB_TRY(drop(t, m, b, mb_site(-1, SITE_DEC_EMBED), x, &x));
    MB_TRY(mb_layer_bucket_bias(t, m, b, false, g->dec_bias, &with.bias));
    MB_TRY(mb_model_run_decoder(t, m, b, dec_layer, &with, x, &x));
    MB_TRY(mb_layer_rmsnorm(t, m, x, g->dec_norm, &x));
    MB_TRY(drop(t, m, b, mb_site(-1, SITE_DEC_END), x, &x));
    *out = (mb_output){.hidden = x,
                       .features = x,
                       .head_w = c->tied ? g->embed : g->head,
                       .logit_scale = c->logit_scale != 0.0f ? c->logit_scale : 1.0f};
    return MB_OK;
}

static const char *const model_types[] = {"t5", "mt5", NULL};
static const char *const ignore[] = {"coder.embed_tokens.weight",
                                     "EncDecAttention.relative_attention_bias.weight", NULL};
static const char *const lora_default[] = {"q", "v", NULL};

const mb_model_family mb_model_t5 = {
    .name = "t5",
    .model_types = model_types,
    .architecture = {[MB_HEAD_SEQ2SEQ] = "T5ForConditionalGeneration"},
    .gguf_arch = "t5",
    .prefix = "",
    .ignore = ignore,
    .lora_default = lora_default,
    .globals = globals,
    .layer = enc_layers,
    .dec_layer = dec_layers,
    .globals_size = sizeof(struct globals),
    .layer_size = sizeof(struct enc_layer),
    .dec_layer_size = sizeof(struct dec_layer),
    .config = config,
    .config_gguf = config_gguf,
    .init_std = init_std,
    .forward = forward,
};
