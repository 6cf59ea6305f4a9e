/* autograd/models/bert.c - BERT (Devlin et al. 2019, arXiv:1810.04805): sequence classification and
 * masked language modelling.
 *
 * Post-norm encoder with learned positions and segment embeddings. Old checkpoints call LayerNorm's
 * weight and bias gamma and beta, and may lack the "bert." prefix.
 */
#include <stddef.h>

#include "autograd/layers.h"
#include "autograd/models/config.h"

enum { SITE_EMBED = 0, SITE_ATTN_OUT = 1, SITE_MLP_OUT = 2, SITE_POOLED = 3 };

struct globals {
    mb_weight *word, *position, *segment, *norm, *norm_bias;
    mb_weight *pooler, *pooler_bias, *classifier, *classifier_bias;
    mb_weight *transform, *transform_bias, *transform_norm, *transform_norm_bias, *decoder,
        *decoder_bias;
};

struct layer {
    mb_weight *q, *q_bias, *k, *k_bias, *v, *v_bias, *o, *o_bias, *attn_norm, *attn_norm_bias;
    mb_weight *up, *up_bias, *down, *down_bias, *norm, *norm_bias;
};

static bool classifies(const mb_model_config *c)
{
    return c->head == MB_HEAD_SEQUENCE;
}

static bool predicts(const mb_model_config *c)
{
    return c->head == MB_HEAD_MASKED_LM;
}

static bool predicts_untied(const mb_model_config *c)
{
    return predicts(c) && !c->tied;
}

// clang-format off
#define G(field) offsetof(struct globals, field)
#define L(field) offsetof(struct layer, field)
#define NORM MB_W_NO_DECAY
static const mb_weight_row globals[] = {
    {"bert.embeddings.word_embeddings.weight", NULL, "V D", G(word), MB_W_EMBED, 'r', NULL},
    {"bert.embeddings.position_embeddings.weight", NULL, "P D", G(position), MB_W_EMBED, '-', NULL},
    {"bert.embeddings.token_type_embeddings.weight", NULL, "S D", G(segment), MB_W_EMBED, '-', NULL},
    {"bert.embeddings.LayerNorm.weight", NULL, "D", G(norm), NORM | MB_W_EMBED, '-', NULL},
    {"bert.embeddings.LayerNorm.bias", NULL, "D", G(norm_bias), NORM | MB_W_EMBED, '-', NULL},
    {"bert.pooler.dense.weight", NULL, "D D", G(pooler), MB_W_LINEAR | MB_W_NEW, '-', classifies},
    {"bert.pooler.dense.bias", NULL, "D", G(pooler_bias), MB_W_NO_DECAY | MB_W_NEW, '-', classifies},
    {"classifier.weight", NULL, "C D", G(classifier), MB_W_LINEAR | MB_W_HEAD | MB_W_NEW, '-', classifies},
    {"classifier.bias", NULL, "C", G(classifier_bias), MB_W_NO_DECAY | MB_W_HEAD | MB_W_NEW, '-', classifies},
    {"cls.predictions.transform.dense.weight", NULL, "D D", G(transform), MB_W_LINEAR | MB_W_NEW, '-', predicts},
    {"cls.predictions.transform.dense.bias", NULL, "D", G(transform_bias), MB_W_NO_DECAY | MB_W_NEW, '-', predicts},
    {"cls.predictions.transform.LayerNorm.weight", NULL, "D", G(transform_norm), NORM | MB_W_NEW, '-', predicts},
    {"cls.predictions.transform.LayerNorm.bias", NULL, "D", G(transform_norm_bias), NORM | MB_W_NEW, '-', predicts},
    {"cls.predictions.decoder.weight", NULL, "V D", G(decoder), MB_W_LINEAR | MB_W_HEAD, 'r', predicts_untied},
    {"cls.predictions.bias", NULL, "V", G(decoder_bias), MB_W_NO_DECAY | MB_W_HEAD | MB_W_NEW, 'r', predicts},
    {0},
};
static const mb_weight_row layers[] = {
    {"bert.encoder.layer.{l}.attention.self.query.weight", NULL, "H D", L(q), MB_W_LINEAR, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.self.query.bias", NULL, "H", L(q_bias), MB_W_NO_DECAY, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.self.key.weight", NULL, "H D", L(k), MB_W_LINEAR, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.self.key.bias", NULL, "H", L(k_bias), MB_W_NO_DECAY, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.self.value.weight", NULL, "H D", L(v), MB_W_LINEAR, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.self.value.bias", NULL, "H", L(v_bias), MB_W_NO_DECAY, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.output.dense.weight", NULL, "D H", L(o), MB_W_LINEAR, 'c', NULL},
    {"bert.encoder.layer.{l}.attention.output.dense.bias", NULL, "D", L(o_bias), MB_W_NO_DECAY, '-', NULL},
    {"bert.encoder.layer.{l}.attention.output.LayerNorm.weight", NULL, "D", L(attn_norm), NORM, '-', NULL},
    {"bert.encoder.layer.{l}.attention.output.LayerNorm.bias", NULL, "D", L(attn_norm_bias), NORM, '-', NULL},
    {"bert.encoder.layer.{l}.intermediate.dense.weight", NULL, "F D", L(up), MB_W_LINEAR, 'r', NULL},
    {"bert.encoder.layer.{l}.intermediate.dense.bias", NULL, "F", L(up_bias), MB_W_NO_DECAY, 'r', NULL},
    {"bert.encoder.layer.{l}.output.dense.weight", NULL, "D F", L(down), MB_W_LINEAR, 'c', NULL},
    {"bert.encoder.layer.{l}.output.dense.bias", NULL, "D", L(down_bias), MB_W_NO_DECAY, '-', NULL},
    {"bert.encoder.layer.{l}.output.LayerNorm.weight", NULL, "D", L(norm), NORM, '-', NULL},
    {"bert.encoder.layer.{l}.output.LayerNorm.bias", NULL, "D", L(norm_bias), NORM, '-', NULL},
    {0},
};
// clang-format on

static mb_status config(mb_json json, mb_model_config *c)
{
    static const mb_config_fixed fixed[] = {
        {"is_decoder", false}, {"add_cross_attention", false}, {0}};
    const char *kind;

    MB_TRY(mb_config_require(json, fixed));
    MB_TRY(mb_json_get_string(json, "position_embedding_type", "absolute", &kind));
    MB_TRY(mb_config_expect(json, "position_embedding_type", "absolute"));
    MB_TRY(mb_json_need_int(json, "hidden_size", 1, 1 << 20, &c->width));
    MB_TRY(mb_json_need_int(json, "num_hidden_layers", 1, 4096, &c->layers));
    MB_TRY(mb_json_need_int(json, "num_attention_heads", 1, 4096, &c->heads));
    MB_TRY(mb_json_need_int(json, "intermediate_size", 1, 1 << 22, &c->ffn));
    MB_TRY(mb_json_need_int(json, "max_position_embeddings", 1, 1 << 24, &c->positions));
    MB_TRY(mb_config_count(json, "type_vocab_size", 2, 1 << 16, &c->segments));
    MB_TRY(mb_config_real(json, "layer_norm_eps", 1e-12, &c->norm_eps));
    MB_TRY(mb_config_activation(json, "hidden_act", MB_ACT_GELU, &c->activation));
    MB_TRY(mb_config_real(json, "hidden_dropout_prob", 0.1, &c->drop_hidden));
    MB_TRY(mb_config_real(json, "attention_probs_dropout_prob", 0.1, &c->drop_attention));
    MB_TRY(mb_config_real(json, "classifier_dropout", (double)c->drop_hidden, &c->drop_classifier));
    MB_TRY(mb_json_get_bool(json, "tie_word_embeddings", true, &c->tied));
    c->drop_embed = c->drop_hidden;
    c->kv_heads = c->heads;
    c->head_dim = c->width / c->heads;
    return mb_config_labels(json, &c->labels);
}

static mb_status attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l, mb_var *x,
                           mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *q, *k, *v, *h;

    MB_TRY(mb_layer_linear(t, m, b, x, w->q, w->q_bias, &q));
    MB_TRY(mb_layer_linear(t, m, b, x, w->k, w->k_bias, &k));
    MB_TRY(mb_layer_linear(t, m, b, x, w->v, w->v_bias, &v));
    MB_TRY(mb_layer_attention(t, m, b, l, q, k, v, false, 0.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->o, w->o_bias, &h));
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_hidden, mb_site(l, SITE_ATTN_OUT), h, &h));
    return mb_layer_add_layernorm(t, m, h, x, w->attn_norm, w->attn_norm_bias, &h, y);
}

static mb_status layer(mb_tape *t, mb_model *m, const mb_batch *b, int64_t l, mb_var *x, mb_var **y)
{
    const struct layer *w = mb_model_layer(m, l);
    mb_var *h;

    MB_TRY(attention(t, m, b, l, x, &x));
    MB_TRY(mb_layer_linear(t, m, b, x, w->up, w->up_bias, &h)); /* (T,F) */
    MB_TRY(mb_activate(t, h, m->config.activation, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->down, w->down_bias, &h)); /* (T,D) */
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_hidden, mb_site(l, SITE_MLP_OUT), h, &h));
    return mb_layer_add_layernorm(t, m, h, x, w->norm, w->norm_bias, &h, y);
}

static mb_status embed(mb_tape *t, mb_model *m, const mb_batch *b, mb_var **y)
{
    const struct globals *g = m->globals;
    mb_var *x, *p, *s;

    MB_TRY(mb_layer_embedding(t, m, b, b->ids, g->word, &x));
    MB_TRY(mb_layer_embedding(t, m, b, b->segment, g->segment, &s));
    MB_TRY(mb_layer_embedding(t, m, b, b->position, g->position, &p));
    MB_TRY(mb_add(t, x, s, &x));
    MB_TRY(mb_layer_add_layernorm(t, m, x, p, g->norm, g->norm_bias, &p, &x));
    return mb_layer_dropout(t, m, b, m->config.drop_embed, mb_site(-1, SITE_EMBED), x, y);
}

/* tanh(W x[first token]), one row per sequence. */
static mb_status pool(mb_tape *t, mb_model *m, const mb_batch *b, mb_var *x, mb_var **y)
{
    const struct globals *g = m->globals;
    const mb_tensor first = mb_tensor_1d(b->start, MB_DTYPE_I32, b->max_seq);

    MB_TRY(mb_gather_rows(t, x, &first, &x));
    MB_TRY(mb_layer_linear_pooled(t, m, b, x, g->pooler, g->pooler_bias, &x));
    MB_TRY(mb_activate(t, x, MB_ACT_TANH, &x));
    return mb_layer_dropout_pooled(t, m, b, m->config.drop_classifier, mb_site(-1, SITE_POOLED), x,
                                   y);
}

static mb_status transform(mb_tape *t, mb_model *m, const mb_batch *b, mb_var *x, mb_var **y)
{
    const struct globals *g = m->globals;

    MB_TRY(mb_layer_linear(t, m, b, x, g->transform, g->transform_bias, &x));
    MB_TRY(mb_activate(t, x, m->config.activation, &x));
    return mb_layer_layernorm(t, m, x, g->transform_norm, g->transform_norm_bias, y);
}

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    const struct globals *g = m->globals;
    mb_var *x;

    MB_TRY(embed(t, m, b, &x));
    MB_TRY(mb_model_run_layers(t, m, b, layer, x, &x));
    *out = (mb_output){.hidden = x, .features = x, .logit_scale = 1.0f};
    if (m->config.head == MB_HEAD_SEQUENCE) {
        out->head_w = g->classifier;
        out->head_b = g->classifier_bias;
        return pool(t, m, b, x, &out->features);
    }
    out->head_w = m->config.tied ? g->word : g->decoder;
    out->head_b = g->decoder_bias;
    return transform(t, m, b, x, &out->features);
}

static const char *const model_types[] = {"bert", NULL};
static const char *const ignore[] = {"position_ids", "cls.seq_relationship.",
                                     "cls.predictions.decoder.bias", NULL};
static const char *const rename_old[][2] = {
    {"LayerNorm.gamma", "LayerNorm.weight"}, {"LayerNorm.beta", "LayerNorm.bias"}, {NULL, NULL}};
static const char *const lora_default[] = {"query", "value", NULL};

const mb_model_family mb_model_bert = {
    .name = "bert",
    .model_types = model_types,
    .architecture = {[MB_HEAD_MASKED_LM] = "BertForMaskedLM",
                     [MB_HEAD_SEQUENCE] = "BertForSequenceClassification"},
    .prefix = "bert.",
    .ignore = ignore,
    .rename = rename_old,
    .lora_default = lora_default,
    .globals = globals,
    .layer = layers,
    .globals_size = sizeof(struct globals),
    .layer_size = sizeof(struct layer),
    .config = config,
    .forward = forward,
};
