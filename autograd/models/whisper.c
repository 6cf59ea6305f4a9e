/* autograd/models/whisper.c - Whisper (Radford et al. 2022, arXiv:2212.04356): speech recognition.
 *
 * The encoder hears log-mel frames (recipes/media/mel.h), rows of the source's features: two
 * convolutions over time, of which the second halves their number, fixed waves as positions, pre-norm
 * layers. The decoder has learned positions and the embedding as its head. Keys have no bias. All
 * sources of a batch are equally long; shorter ones than 30 seconds see the first of the positions.
 */
#include <stddef.h>

#include "autograd/layers.h"
#include "autograd/models/config.h"

enum { SITE_EMBED = 0, SITE_ATTN_OUT = 1, SITE_MLP_OUT = 2, SITE_CROSS_OUT = 3, SITE_MLP = 4 };
enum { SITE_SOURCE = 5 }; /* outside the layers */

struct globals {
    mb_weight *conv1, *conv1_bias, *conv2, *conv2_bias, *heard_at, *heard_norm, *heard_norm_bias;
    mb_weight *embed, *position, *norm, *norm_bias, *head;
};

struct mlp {
    mb_weight *norm, *norm_bias, *up, *up_bias, *down, *down_bias;
};

struct attention {
    mb_weight *norm, *norm_bias, *q, *q_bias, *k, *v, *v_bias, *o, *o_bias;
};

struct layer {
    struct attention self;
    struct mlp mlp;
};

struct dec_layer {
    struct attention self, cross;
    struct mlp mlp;
};

static bool untied(const mb_model_config *c)
{
    return !c->tied;
}

// clang-format off
#define G(field) offsetof(struct globals, field)
#define FREE MB_W_NO_DECAY
static const mb_weight_row globals[] = {
    {"model.encoder.conv1.weight", NULL, "D M W", G(conv1), MB_W_EMBED, '-', NULL},
    {"model.encoder.conv1.bias", NULL, "D", G(conv1_bias), FREE | MB_W_EMBED, '-', NULL},
    {"model.encoder.conv2.weight", NULL, "D D W", G(conv2), MB_W_EMBED, '-', NULL},
    {"model.encoder.conv2.bias", NULL, "D", G(conv2_bias), FREE | MB_W_EMBED, '-', NULL},
    {"model.encoder.embed_positions.weight", NULL, "A D", G(heard_at), MB_W_EMBED | MB_W_FIXED, '-', NULL},
    {"model.encoder.layer_norm.weight", NULL, "D", G(heard_norm), FREE | MB_W_EMBED, '-', NULL},
    {"model.encoder.layer_norm.bias", NULL, "D", G(heard_norm_bias), FREE | MB_W_EMBED, '-', NULL},
    {"model.decoder.embed_tokens.weight", NULL, "V D", G(embed), MB_W_EMBED, 'r', NULL},
    {"model.decoder.embed_positions.weight", NULL, "P D", G(position), MB_W_EMBED, '-', NULL},
    {"model.decoder.layer_norm.weight", NULL, "D", G(norm), FREE, '-', NULL},
    {"model.decoder.layer_norm.bias", NULL, "D", G(norm_bias), FREE, '-', NULL},
    {"proj_out.weight", NULL, "V D", G(head), MB_W_LINEAR | MB_W_HEAD, 'r', untied},
    {0},
};

#define ATTENTION(at, type, part)                                                                      \
    {at "_layer_norm.weight", NULL, "D", offsetof(type, part.norm), FREE, '-', NULL},                  \
    {at "_layer_norm.bias", NULL, "D", offsetof(type, part.norm_bias), FREE, '-', NULL},               \
    {at ".q_proj.weight", NULL, "H D", offsetof(type, part.q), MB_W_LINEAR, 'r', NULL},                \
    {at ".q_proj.bias", NULL, "H", offsetof(type, part.q_bias), FREE, 'r', NULL},                      \
    {at ".k_proj.weight", NULL, "H D", offsetof(type, part.k), MB_W_LINEAR, 'r', NULL},                \
    {at ".v_proj.weight", NULL, "H D", offsetof(type, part.v), MB_W_LINEAR, 'r', NULL},                \
    {at ".v_proj.bias", NULL, "H", offsetof(type, part.v_bias), FREE, 'r', NULL},                      \
    {at ".out_proj.weight", NULL, "D H", offsetof(type, part.o), MB_W_LINEAR, 'c', NULL},              \
    {at ".out_proj.bias", NULL, "D", offsetof(type, part.o_bias), FREE, '-', NULL}
#define MLP(at, f, type)                                                                               \
    {at "fc1.weight", NULL, f " D", offsetof(type, mlp.up), MB_W_LINEAR, 'r', NULL},                   \
    {at "fc1.bias", NULL, f, offsetof(type, mlp.up_bias), FREE, 'r', NULL},                            \
    {at "fc2.weight", NULL, "D " f, offsetof(type, mlp.down), MB_W_LINEAR, 'c', NULL},                 \
    {at "fc2.bias", NULL, "D", offsetof(type, mlp.down_bias), FREE, '-', NULL},                        \
    {at "final_layer_norm.weight", NULL, "D", offsetof(type, mlp.norm), FREE, '-', NULL},              \
    {at "final_layer_norm.bias", NULL, "D", offsetof(type, mlp.norm_bias), FREE, '-', NULL}
static const mb_weight_row layers[] = {
    ATTENTION("model.encoder.layers.{l}.self_attn", struct layer, self),
    MLP("model.encoder.layers.{l}.", "F", struct layer),
    {0},
};
static const mb_weight_row dec_layers[] = {
    ATTENTION("model.decoder.layers.{l}.self_attn", struct dec_layer, self),
    ATTENTION("model.decoder.layers.{l}.encoder_attn", struct dec_layer, cross),
    MLP("model.decoder.layers.{l}.", "G", struct dec_layer),
    {0},
};
// clang-format on

static mb_status config(mb_json json, mb_model_config *c)
{
    static const mb_config_fixed fixed[] = {
        {"scale_embedding", false}, {"use_weighted_layer_sum", false}, {0}};
    int64_t heads;

    MB_TRY(mb_config_require(json, fixed));
    MB_TRY(mb_json_need_int(json, "d_model", 1, 1 << 20, &c->width));
    MB_TRY(mb_json_need_int(json, "encoder_layers", 1, 4096, &c->layers));
    MB_TRY(mb_json_need_int(json, "decoder_layers", 1, 4096, &c->dec_layers));
    MB_TRY(mb_json_need_int(json, "encoder_attention_heads", 1, 4096, &c->heads));
    MB_TRY(mb_json_need_int(json, "decoder_attention_heads", 1, 4096, &heads));
    MB_TRY(mb_json_need_int(json, "encoder_ffn_dim", 1, 1 << 22, &c->ffn));
    MB_TRY(mb_json_need_int(json, "decoder_ffn_dim", 1, 1 << 22, &c->dec_ffn));
    MB_TRY(mb_json_need_int(json, "max_source_positions", 1, 1 << 16, &c->source_positions));
    MB_TRY(mb_json_need_int(json, "max_target_positions", 1, 1 << 16, &c->positions));
    MB_TRY(mb_config_count(json, "num_mel_bins", 80, 256, &c->mel_bins));
    MB_TRY(mb_config_activation(json, "activation_function", MB_ACT_GELU, &c->activation));
    MB_TRY(mb_config_real(json, "dropout", 0.0, &c->drop_hidden));
    MB_TRY(mb_config_real(json, "attention_dropout", 0.0, &c->drop_attention));
    MB_TRY(mb_config_real(json, "activation_dropout", 0.0, &c->drop_activation));
    MB_TRY(mb_json_get_bool(json, "tie_word_embeddings", true, &c->tied));
    if (heads != c->heads || c->width % heads != 0)
        return mb_json_fault(
            json,
            "has %lld attention heads in the encoder and %lld in the decoder for a "
            "width of %lld; equal numbers that divide it are supported",
            (long long)c->heads, (long long)heads, (long long)c->width);
    c->norm_eps = 1e-5f;
    c->drop_embed = c->drop_hidden;
    c->kv_heads = c->heads;
    c->head_dim = c->width / c->heads;
    return MB_OK;
}

static mb_status mlp(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l,
                     const struct mlp *w, mb_var *x, mb_var *h, mb_var **y)
{
    const mb_model_config *c = &m->config;

    MB_TRY(mb_layer_linear(t, m, b, h, w->up, w->up_bias, &h)); /* (T,F) */
    MB_TRY(mb_activate(t, h, c->activation, &h));
    MB_TRY(mb_layer_dropout(t, m, b, c->drop_activation, mb_site(l, SITE_MLP), h, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->down, w->down_bias, &h)); /* (T,D) */
    MB_TRY(mb_layer_dropout(t, m, b, c->drop_hidden, mb_site(l, SITE_MLP_OUT), h, &h));
    return mb_add(t, x, h, y);
}

static mb_status self_attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l,
                                const struct attention *w, bool causal, mb_var *x, mb_var **y)
{
    mb_var *q, *k, *v, *h;

    MB_TRY(mb_layer_linear(t, m, b, x, w->q, w->q_bias, &q));
    MB_TRY(mb_layer_linear(t, m, b, x, w->k, NULL, &k));
    MB_TRY(mb_layer_linear(t, m, b, x, w->v, w->v_bias, &v));
    MB_TRY(mb_layer_attention(t, m, b, l, q, k, v, causal, 0.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->o, w->o_bias, &h));
    return mb_layer_dropout(t, m, b, m->config.drop_hidden, mb_site(l, SITE_ATTN_OUT), h, y);
}

static mb_status layer(mb_tape *t, mb_model *m, const mb_batch *b, const mb_shared_vars *with,
                       int64_t l, mb_var *x, mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *h;

    (void)with;
    MB_TRY(mb_layer_layernorm(t, m, x, w->self.norm, w->self.norm_bias, &h));
    MB_TRY(self_attention(t, m, b, l, &w->self, false, h, &h));
    MB_TRY(mb_layer_add_layernorm(t, m, x, h, w->mlp.norm, w->mlp.norm_bias, &x, &h));
    return mlp(t, m, b, l, &w->mlp, x, h, y);
}

static mb_status dec_layer(mb_tape *t, mb_model *m, const mb_batch *b, const mb_shared_vars *with,
                           int64_t l, mb_var *x, mb_var **y)
{
    const struct dec_layer *w = mb_model_layer(m, l);
    const struct attention *cross = &w->cross;
    const mb_cross_weights kv = {.k = cross->k, .v = cross->v, .v_bias = cross->v_bias};
    mb_var *h;

    MB_TRY(mb_layer_layernorm(t, m, x, w->self.norm, w->self.norm_bias, &h));
    MB_TRY(self_attention(t, m, b, l, &w->self, true, h, &h));
    MB_TRY(mb_layer_add_layernorm(t, m, x, h, cross->norm, cross->norm_bias, &x, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, cross->q, cross->q_bias, &h));
    MB_TRY(mb_layer_cross_attention(t, m, b, l, h, with->source, &kv, 0.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, cross->o, cross->o_bias, &h));
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_hidden, mb_site(l, SITE_CROSS_OUT), h, &h));
    MB_TRY(mb_layer_add_layernorm(t, m, x, h, w->mlp.norm, w->mlp.norm_bias, &x, &h));
    return mlp(t, m, b, l, &w->mlp, x, h, y);
}

/* b: a source, of which every sequence has max_len tokens, and twice as many frames. */
static mb_status encode(mb_tape *t, mb_model *m, const mb_batch *b, mb_var **y)
{
    const struct globals *g = m->globals;
    const mb_shared_vars with = {0};
    mb_var *x, *p;

    MB_REQUIRE(b->feature_rows == 2 * b->tokens, MB_EBUG, "%lld frames for %lld tokens",
               (long long)b->feature_rows, (long long)b->tokens);
    MB_TRY(mb_layer_feature_rows(t, m, b, &x));
    MB_TRY(mb_layer_convolution(t, m, x, g->conv1, g->conv1_bias, 2 * b->max_len, 1, &x));
    MB_TRY(mb_activate(t, x, MB_ACT_GELU, &x));
    MB_TRY(mb_layer_convolution(t, m, x, g->conv2, g->conv2_bias, 2 * b->max_len, 2, &x));
    MB_TRY(mb_activate(t, x, MB_ACT_GELU, &x));
    MB_TRY(mb_layer_embedding(t, m, b, b->position, g->heard_at, &p));
    MB_TRY(mb_add(t, x, p, &x));
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_embed, mb_site(-1, SITE_SOURCE), x, &x));
    MB_TRY(mb_model_run_encoder(t, m, b, layer, &with, x, &x));
    return mb_layer_layernorm(t, m, x, g->heard_norm, g->heard_norm_bias, y);
}

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    const struct globals *g = m->globals;
    mb_shared_vars with = {0};
    mb_var *x, *p;

    if (!b->source_cached)
        MB_TRY(encode(t, m, b->source, &with.source));
    MB_TRY(mb_layer_embedding(t, m, b, b->ids, g->embed, &x));
    MB_TRY(mb_layer_embedding(t, m, b, b->position, g->position, &p));
    MB_TRY(mb_add(t, x, p, &x));
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_embed, mb_site(-1, SITE_EMBED), x, &x));
    MB_TRY(mb_model_run_decoder(t, m, b, dec_layer, &with, x, &x));
    MB_TRY(mb_layer_layernorm(t, m, x, g->norm, g->norm_bias, &x));
    *out = (mb_output){.hidden = x,
                       .features = x,
                       .head_w = m->config.tied ? g->embed : g->head,
                       .logit_scale = 1.0f};
    return MB_OK;
}

static const char *const model_types[] = {"whisper", NULL};
static const char *const ignore[] = {NULL};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_whisper = {
    .name = "whisper",
    .model_types = model_types,
    .architecture = {[MB_HEAD_SEQ2SEQ] = "WhisperForConditionalGeneration"},
    .prefix = "model.",
    .ignore = ignore,
    .lora_default = lora_default,
    .globals = globals,
    .layer = layers,
    .dec_layer = dec_layers,
    .globals_size = sizeof(struct globals),
    .layer_size = sizeof(struct layer),
    .dec_layer_size = sizeof(struct dec_layer),
    .config = config,
    .forward = forward,
};
