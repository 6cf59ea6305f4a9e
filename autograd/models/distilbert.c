/* autograd/models/distilbert.c - DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT without token
 * types and pooler, under other names, and without dropout on what attention gives.
 */
#include <stddef.h>

#include "autograd/layers/encoder.h"
#include "autograd/models/config.h"

struct globals {
    mb_encoder_embeddings embed;
    mb_weight *dense, *dense_bias, *head_norm, *head_norm_bias, *out, *out_bias;
};

// clang-format off
#define G(field) offsetof(struct globals, field)
#define L(field) offsetof(mb_encoder_layer, field)
#define NORM MB_W_NO_DECAY
#define HEAD (MB_W_HEAD | MB_W_NEW)
static const mb_weight_row globals[] = {
    {"distilbert.embeddings.word_embeddings.weight", NULL, "V D", G(embed.word), MB_W_EMBED, 'r', NULL},
    {"distilbert.embeddings.position_embeddings.weight", NULL, "P D", G(embed.position), MB_W_EMBED, '-', NULL},
    {"distilbert.embeddings.LayerNorm.weight", NULL, "D", G(embed.norm), NORM | MB_W_EMBED, '-', NULL},
    {"distilbert.embeddings.LayerNorm.bias", NULL, "D", G(embed.norm_bias), NORM | MB_W_EMBED, '-', NULL},
    {"pre_classifier.weight", NULL, "D D", G(dense), MB_W_LINEAR | HEAD, '-', mb_head_is_sequence},
    {"pre_classifier.bias", NULL, "D", G(dense_bias), MB_W_NO_DECAY | HEAD, '-', mb_head_is_sequence},
    {"classifier.weight", NULL, "C D", G(out), MB_W_LINEAR | HEAD, '-', mb_head_is_classifier},
    {"classifier.bias", NULL, "C", G(out_bias), MB_W_NO_DECAY | HEAD, '-', mb_head_is_classifier},
    {"qa_outputs.weight", NULL, "C D", G(out), MB_W_LINEAR | HEAD, '-', mb_head_is_span},
    {"qa_outputs.bias", NULL, "C", G(out_bias), MB_W_NO_DECAY | HEAD, '-', mb_head_is_span},
    {"vocab_transform.weight", NULL, "D D", G(dense), MB_W_LINEAR | MB_W_NEW, '-', mb_head_is_masked},
    {"vocab_transform.bias", NULL, "D", G(dense_bias), MB_W_NO_DECAY | MB_W_NEW, '-', mb_head_is_masked},
    {"vocab_layer_norm.weight", NULL, "D", G(head_norm), NORM | MB_W_NEW, '-', mb_head_is_masked},
    {"vocab_layer_norm.bias", NULL, "D", G(head_norm_bias), NORM | MB_W_NEW, '-', mb_head_is_masked},
    {"vocab_projector.weight", NULL, "V D", G(out), MB_W_LINEAR | MB_W_HEAD, 'r', mb_head_is_masked_untied},
    {"vocab_projector.bias", NULL, "V", G(out_bias), MB_W_NO_DECAY | HEAD, 'r', mb_head_is_masked},
    {0},
};
static const mb_weight_row layers[] = {
    {"distilbert.transformer.layer.{l}.attention.q_lin.weight", NULL, "H D", L(q), MB_W_LINEAR, 'r', NULL},
    {"distilbert.transformer.layer.{l}.attention.q_lin.bias", NULL, "H", L(q_bias), MB_W_NO_DECAY, 'r', NULL},
    {"distilbert.transformer.layer.{l}.attention.k_lin.weight", NULL, "H D", L(k), MB_W_LINEAR, 'r', NULL},
    {"distilbert.transformer.layer.{l}.attention.k_lin.bias", NULL, "H", L(k_bias), MB_W_NO_DECAY, 'r', NULL},
    {"distilbert.transformer.layer.{l}.attention.v_lin.weight", NULL, "H D", L(v), MB_W_LINEAR, 'r', NULL},
    {"distilbert.transformer.layer.{l}.attention.v_lin.bias", NULL, "H", L(v_bias), MB_W_NO_DECAY, 'r', NULL},
    {"distilbert.transformer.layer.{l}.attention.out_lin.weight", NULL, "D H", L(o), MB_W_LINEAR, 'c', NULL},
    {"distilbert.transformer.layer.{l}.attention.out_lin.bias", NULL, "D", L(o_bias), MB_W_NO_DECAY, '-', NULL},
    {"distilbert.transformer.layer.{l}.sa_layer_norm.weight", NULL, "D", L(attn_norm), NORM, '-', NULL},
    {"distilbert.transformer.layer.{l}.sa_layer_norm.bias", NULL, "D", L(attn_norm_bias), NORM, '-', NULL},
    {"distilbert.transformer.layer.{l}.ffn.lin1.weight", NULL, "F D", L(up), MB_W_LINEAR, 'r', NULL},
    {"distilbert.transformer.layer.{l}.ffn.lin1.bias", NULL, "F", L(up_bias), MB_W_NO_DECAY, 'r', NULL},
    {"distilbert.transformer.layer.{l}.ffn.lin2.weight", NULL, "D F", L(down), MB_W_LINEAR, 'c', NULL},
    {"distilbert.transformer.layer.{l}.ffn.lin2.bias", NULL, "D", L(down_bias), MB_W_NO_DECAY, '-', NULL},
    {"distilbert.transformer.layer.{l}.output_layer_norm.weight", NULL, "D", L(norm), NORM, '-', NULL},
    {"distilbert.transformer.layer.{l}.output_layer_norm.bias", NULL, "D", L(norm_bias), NORM, '-', NULL},
    {0},
};
// clang-format on

static mb_status config(mb_json json, mb_model_config *c)
{
    const char *dropout = c->head == MB_HEAD_SPAN ? "qa_dropout" : "seq_classif_dropout";

    MB_TRY(mb_json_need_int(json, "dim", 1, 1 << 20, &c->width));
    MB_TRY(mb_json_need_int(json, "n_layers", 1, 4096, &c->layers));
    MB_TRY(mb_json_need_int(json, "n_heads", 1, 4096, &c->heads));
    MB_TRY(mb_json_need_int(json, "hidden_dim", 1, 1 << 22, &c->ffn));
    MB_TRY(mb_json_need_int(json, "max_position_embeddings", 1, 1 << 24, &c->positions));
    MB_TRY(mb_config_activation(json, "activation", MB_ACT_GELU, &c->activation));
    MB_TRY(mb_config_real(json, "dropout", 0.1, &c->drop_hidden));
    MB_TRY(mb_config_real(json, "attention_dropout", 0.1, &c->drop_attention));
    MB_TRY(mb_config_real(json, dropout, c->head == MB_HEAD_SPAN ? 0.1 : 0.2, &c->drop_classifier));
    MB_TRY(mb_json_get_bool(json, "tie_word_embeddings", true, &c->tied));
    if (c->head == MB_HEAD_TOKENS)
        c->drop_classifier = c->drop_hidden;
    c->norm_eps = 1e-12f;
    c->drop_embed = c->drop_hidden;
    c->kv_heads = c->heads;
    c->head_dim = c->width / c->heads;
    return mb_config_labels(json, &c->labels);
}

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    const struct globals *g = m->globals;
    const mb_model_config *c = &m->config;
    const uint64_t site = mb_site(-1, MB_SITE_HEAD);
    mb_var *x;

    MB_TRY(mb_encode(t, m, b, &g->embed, &x));
    *out = (mb_output){
        .hidden = x, .features = x, .head_w = g->out, .head_b = g->out_bias, .logit_scale = 1.0f};
    switch (c->head) {
    case MB_HEAD_SEQUENCE:
        MB_TRY(mb_encoder_first(t, m, b, x, g->dense, g->dense_bias, MB_ACT_RELU, &x));
        return mb_layer_dropout_pooled(t, m, b, c->drop_classifier, site, x, &out->features);
    case MB_HEAD_TOKENS:
    case MB_HEAD_SPAN:
        return mb_layer_dropout(t, m, b, c->drop_classifier, site, x, &out->features);
    case MB_HEAD_EMBED:
        return MB_OK;
    default:
        if (c->tied)
            out->head_w = g->embed.word;
        return mb_encoder_transform(t, m, b, x, g->dense, g->dense_bias, c->activation,
                                    g->head_norm, g->head_norm_bias, &out->features);
    }
}

static const char *const model_types[] = {"distilbert", NULL};
static const char *const ignore[] = {"position_ids", NULL};
static const char *const lora_default[] = {"q_lin", "v_lin", NULL};

const mb_model_family mb_model_distilbert = {
    .name = "distilbert",
    .model_types = model_types,
    .architecture = {[MB_HEAD_MASKED_LM] = "DistilBertForMaskedLM",
                     [MB_HEAD_SEQUENCE] = "DistilBertForSequenceClassification",
                     [MB_HEAD_TOKENS] = "DistilBertForTokenClassification",
                     [MB_HEAD_SPAN] = "DistilBertForQuestionAnswering",
                     [MB_HEAD_EMBED] = "DistilBertModel"},
    .prefix = "distilbert.",
    .ignore = ignore,
    .lora_default = lora_default,
    .globals = globals,
    .layer = layers,
    .globals_size = sizeof(struct globals),
    .layer_size = sizeof(mb_encoder_layer),
    .config = config,
    .forward = forward,
};
