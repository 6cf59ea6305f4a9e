/* autograd/models/bert.c - BERT (Devlin et al. 2019, arXiv:1810.04805) and what has its shape: MiniLM,
 * BGE, E5 and other embedders.
 *
 * Old checkpoints call LayerNorm's
 * weight and bias gamma and beta, and may lack the "bert." prefix.
 */
#include <stddef.h>

#include "autograd/layers/encoder.h"
#include "autograd/models/config.h"

struct globals {
    mb_encoder_embeddings embed;
    mb_weight *pooler, *pooler_bias, *classifier, *classifier_bias, *qa, *qa_bias;
    mb_weight *transform, *transform_bias, *transform_norm, *transform_norm_bias, *decoder,
        *decoder_bias;
};

// clang-format off
#define G(field) offsetof(struct globals, field)
#define L(field) offsetof(mb_encoder_layer, field)
#define NORM MB_W_NO_DECAY
static const mb_weight_row globals[] = {
    {"bert.embeddings.word_embeddings.weight", "token_embd.weight", "V D", G(embed.word), MB_W_EMBED, 'r', NULL},
    {"bert.embeddings.position_embeddings.weight", "position_embd.weight", "P D", G(embed.position), MB_W_EMBED, '-', NULL},
    {"bert.embeddings.token_type_embeddings.weight", "token_types.weight", "S D", G(embed.segment), MB_W_EMBED, '-', NULL},
    {"bert.embeddings.LayerNorm.weight", "token_embd_norm.weight", "D", G(embed.norm), NORM | MB_W_EMBED, '-', NULL},
    {"bert.embeddings.LayerNorm.bias", "token_embd_norm.bias", "D", G(embed.norm_bias), NORM | MB_W_EMBED, '-', NULL},
    {"bert.pooler.dense.weight", NULL, "D D", G(pooler), MB_W_LINEAR | MB_W_NEW, '-', mb_head_is_sequence},
    {"bert.pooler.dense.bias", NULL, "D", G(pooler_bias), MB_W_NO_DECAY | MB_W_NEW, '-', mb_head_is_sequence},
    {"classifier.weight", NULL, "C D", G(classifier), MB_W_LINEAR | MB_W_HEAD | MB_W_NEW, '-', mb_head_is_classifier},
    {"classifier.bias", NULL, "C", G(classifier_bias), MB_W_NO_DECAY | MB_W_HEAD | MB_W_NEW, '-', mb_head_is_classifier},
    {"qa_outputs.weight", NULL, "C D", G(qa), MB_W_LINEAR | MB_W_HEAD | MB_W_NEW, '-', mb_head_is_span},
    {"qa_outputs.bias", NULL, "C", G(qa_bias), MB_W_NO_DECAY | MB_W_HEAD | MB_W_NEW, '-', mb_head_is_span},
    {"cls.predictions.transform.dense.weight", NULL, "D D", G(transform), MB_W_LINEAR | MB_W_NEW, '-', mb_head_is_masked},
    {"cls.predictions.transform.dense.bias", NULL, "D", G(transform_bias), MB_W_NO_DECAY | MB_W_NEW, '-', mb_head_is_masked},
    {"cls.predictions.transform.LayerNorm.weight", NULL, "D", G(transform_norm), NORM | MB_W_NEW, '-', mb_head_is_masked},
    {"cls.predictions.transform.LayerNorm.bias", NULL, "D", G(transform_norm_bias), NORM | MB_W_NEW, '-', mb_head_is_masked},
    {"cls.predictions.decoder.weight", NULL, "V D", G(decoder), MB_W_LINEAR | MB_W_HEAD, 'r', mb_head_is_masked_untied},
    {"cls.predictions.bias", NULL, "V", G(decoder_bias), MB_W_NO_DECAY | MB_W_HEAD | MB_W_NEW, 'r', mb_head_is_masked},
    {0},
};
static const mb_weight_row layers[] = {
    {"bert.encoder.layer.{l}.attention.self.query.weight", "blk.{l}.attn_q.weight", "H D", L(q), MB_W_LINEAR, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.self.query.bias", "blk.{l}.attn_q.bias", "H", L(q_bias), MB_W_NO_DECAY, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.self.key.weight", "blk.{l}.attn_k.weight", "H D", L(k), MB_W_LINEAR, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.self.key.bias", "blk.{l}.attn_k.bias", "H", L(k_bias), MB_W_NO_DECAY, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.self.value.weight", "blk.{l}.attn_v.weight", "H D", L(v), MB_W_LINEAR, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.self.value.bias", "blk.{l}.attn_v.bias", "H", L(v_bias), MB_W_NO_DECAY, 'r', NULL},
    {"bert.encoder.layer.{l}.attention.output.dense.weight", "blk.{l}.attn_output.weight", "D H", L(o), MB_W_LINEAR, 'c', NULL},
    {"bert.encoder.layer.{l}.attention.output.dense.bias", "blk.{l}.attn_output.bias", "D", L(o_bias), MB_W_NO_DECAY, '-', NULL},
    {"bert.encoder.layer.{l}.attention.output.LayerNorm.weight", "blk.{l}.attn_output_norm.weight", "D", L(attn_norm), NORM, '-', NULL},
    {"bert.encoder.layer.{l}.attention.output.LayerNorm.bias", "blk.{l}.attn_output_norm.bias", "D", L(attn_norm_bias), NORM, '-', NULL},
    {"bert.encoder.layer.{l}.intermediate.dense.weight", "blk.{l}.ffn_up.weight", "F D", L(up), MB_W_LINEAR, 'r', NULL},
    {"bert.encoder.layer.{l}.intermediate.dense.bias", "blk.{l}.ffn_up.bias", "F", L(up_bias), MB_W_NO_DECAY, 'r', NULL},
    {"bert.encoder.layer.{l}.output.dense.weight", "blk.{l}.ffn_down.weight", "D F", L(down), MB_W_LINEAR, 'c', NULL},
    {"bert.encoder.layer.{l}.output.dense.bias", "blk.{l}.ffn_down.bias", "D", L(down_bias), MB_W_NO_DECAY, '-', NULL},
    {"bert.encoder.layer.{l}.output.LayerNorm.weight", "blk.{l}.layer_output_norm.weight", "D", L(norm), NORM, '-', NULL},
    {"bert.encoder.layer.{l}.output.LayerNorm.bias", "blk.{l}.layer_output_norm.bias", "D", L(norm_bias), NORM, '-', NULL},
    {0},
};
// clang-format on

static mb_status forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    const struct globals *g = m->globals;
    const mb_model_config *c = &m->config;
    const uint64_t site = mb_site(-1, MB_SITE_HEAD);
    mb_var *x;

    MB_TRY(mb_encode(t, m, b, &g->embed, &x));
    *out = (mb_output){.hidden = x, .features = x, .logit_scale = 1.0f};
    switch (c->head) {
    case MB_HEAD_SEQUENCE:
        out->head_w = g->classifier;
        out->head_b = g->classifier_bias;
        MB_TRY(mb_encoder_first(t, m, b, x, g->pooler, g->pooler_bias, MB_ACT_TANH, &x));
        return mb_layer_dropout_pooled(t, m, b, c->drop_classifier, site, x, &out->features);
    case MB_HEAD_TOKENS:
        out->head_w = g->classifier;
        out->head_b = g->classifier_bias;
        return mb_layer_dropout(t, m, b, c->drop_classifier, site, x, &out->features);
    case MB_HEAD_SPAN:
        out->head_w = g->qa;
        out->head_b = g->qa_bias;
        return MB_OK;
    case MB_HEAD_EMBED:
        return MB_OK;
    default:
        out->head_w = c->tied ? g->embed.word : g->decoder;
        out->head_b = g->decoder_bias;
        return mb_encoder_transform(t, m, b, x, g->transform, g->transform_bias, c->activation,
                                    g->transform_norm, g->transform_norm_bias, &out->features);
    }
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
                     [MB_HEAD_SEQUENCE] = "BertForSequenceClassification",
                     [MB_HEAD_TOKENS] = "BertForTokenClassification",
                     [MB_HEAD_SPAN] = "BertForQuestionAnswering",
                     [MB_HEAD_EMBED] = "BertModel"},
    .gguf_arch = "bert",
    .gguf_tokenizer = "bert",
    .prefix = "bert.",
    .ignore = ignore,
    .rename = rename_old,
    .lora_default = lora_default,
    .globals = globals,
    .layer = layers,
    .globals_size = sizeof(struct globals),
    .layer_size = sizeof(mb_encoder_layer),
    .config = mb_config_bert,
    .config_gguf = mb_config_bert_gguf,
    .forward = forward,
};
