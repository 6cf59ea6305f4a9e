/* autograd/models/roberta.c - RoBERTa (Liu et al. 2019, arXiv:1907.11692) and, of the same tables,
 * XLM-RoBERTa (autograd/models/xlm_roberta.c).
 *
 * As BERT, but: positions begin at pad_token_id + 1 of their table, there is one token type or none,
 * and a classifier is two layers on the first token.
 */
#include "autograd/models/roberta.h"

#include <stddef.h>

#include "autograd/layers/encoder.h"
#include "autograd/models/config.h"

// clang-format off
#define G(field) offsetof(struct mb_roberta_weights, field)
#define L(field) offsetof(mb_encoder_layer, field)
#define NORM MB_W_NO_DECAY
#define HEAD (MB_W_HEAD | MB_W_NEW)
const mb_weight_row mb_roberta_globals[] = {
    {"roberta.embeddings.word_embeddings.weight", "token_embd.weight", "V D", G(embed.word), MB_W_EMBED, 'r', NULL},
    {"roberta.embeddings.position_embeddings.weight", "position_embd.weight", "P D", G(embed.position), MB_W_EMBED | MB_W_GGUF_BEHIND, '-', NULL},
    {"roberta.embeddings.token_type_embeddings.weight", "token_types.weight", "S D", G(embed.segment), MB_W_EMBED, '-', NULL},
    {"roberta.embeddings.LayerNorm.weight", "token_embd_norm.weight", "D", G(embed.norm), NORM | MB_W_EMBED, '-', NULL},
    {"roberta.embeddings.LayerNorm.bias", "token_embd_norm.bias", "D", G(embed.norm_bias), NORM | MB_W_EMBED, '-', NULL},
    {"classifier.dense.weight", NULL, "D D", G(dense), MB_W_LINEAR | HEAD, '-', mb_head_is_sequence},
    {"classifier.dense.bias", NULL, "D", G(dense_bias), MB_W_NO_DECAY | HEAD, '-', mb_head_is_sequence},
    {"classifier.out_proj.weight", NULL, "C D", G(out), MB_W_LINEAR | HEAD, '-', mb_head_is_sequence},
    {"classifier.out_proj.bias", NULL, "C", G(out_bias), MB_W_NO_DECAY | HEAD, '-', mb_head_is_sequence},
    {"classifier.weight", NULL, "C D", G(out), MB_W_LINEAR | HEAD, '-', mb_head_is_tokens},
    {"classifier.bias", NULL, "C", G(out_bias), MB_W_NO_DECAY | HEAD, '-', mb_head_is_tokens},
    {"qa_outputs.weight", NULL, "C D", G(out), MB_W_LINEAR | HEAD, '-', mb_head_is_span},
    {"qa_outputs.bias", NULL, "C", G(out_bias), MB_W_NO_DECAY | HEAD, '-', mb_head_is_span},
    {"lm_head.dense.weight", NULL, "D D", G(dense), MB_W_LINEAR | MB_W_NEW, '-', mb_head_is_masked},
    {"lm_head.dense.bias", NULL, "D", G(dense_bias), MB_W_NO_DECAY | MB_W_NEW, '-', mb_head_is_masked},
    {"lm_head.layer_norm.weight", NULL, "D", G(head_norm), NORM | MB_W_NEW, '-', mb_head_is_masked},
    {"lm_head.layer_norm.bias", NULL, "D", G(head_norm_bias), NORM | MB_W_NEW, '-', mb_head_is_masked},
    {"lm_head.decoder.weight", NULL, "V D", G(out), MB_W_LINEAR | MB_W_HEAD, 'r', mb_head_is_masked_untied},
    {"lm_head.bias", NULL, "V", G(out_bias), MB_W_NO_DECAY | HEAD, 'r', mb_head_is_masked},
    {0},
};
const mb_weight_row mb_roberta_layers[] = {
    {"roberta.encoder.layer.{l}.attention.self.query.weight", "blk.{l}.attn_q.weight", "H D", L(q), MB_W_LINEAR, 'r', NULL},
    {"roberta.encoder.layer.{l}.attention.self.query.bias", "blk.{l}.attn_q.bias", "H", L(q_bias), MB_W_NO_DECAY, 'r', NULL},
    {"roberta.encoder.layer.{l}.attention.self.key.weight", "blk.{l}.attn_k.weight", "H D", L(k), MB_W_LINEAR, 'r', NULL},
    {"roberta.encoder.layer.{l}.attention.self.key.bias", "blk.{l}.attn_k.bias", "H", L(k_bias), MB_W_NO_DECAY, 'r', NULL},
    {"roberta.encoder.layer.{l}.attention.self.value.weight", "blk.{l}.attn_v.weight", "H D", L(v), MB_W_LINEAR, 'r', NULL},
    {"roberta.encoder.layer.{l}.attention.self.value.bias", "blk.{l}.attn_v.bias", "H", L(v_bias), MB_W_NO_DECAY, 'r', NULL},
    {"roberta.encoder.layer.{l}.attention.output.dense.weight", "blk.{l}.attn_output.weight", "D H", L(o), MB_W_LINEAR, 'c', NULL},
    {"roberta.encoder.layer.{l}.attention.output.dense.bias", "blk.{l}.attn_output.bias", "D", L(o_bias), MB_W_NO_DECAY, '-', NULL},
    {"roberta.encoder.layer.{l}.attention.output.LayerNorm.weight", "blk.{l}.attn_output_norm.weight", "D", L(attn_norm), NORM, '-', NULL},
    {"roberta.encoder.layer.{l}.attention.output.LayerNorm.bias", "blk.{l}.attn_output_norm.bias", "D", L(attn_norm_bias), NORM, '-', NULL},
    {"roberta.encoder.layer.{l}.intermediate.dense.weight", "blk.{l}.ffn_up.weight", "F D", L(up), MB_W_LINEAR, 'r', NULL},
    {"roberta.encoder.layer.{l}.intermediate.dense.bias", "blk.{l}.ffn_up.bias", "F", L(up_bias), MB_W_NO_DECAY, 'r', NULL},
    {"roberta.encoder.layer.{l}.output.dense.weight", "blk.{l}.ffn_down.weight", "D F", L(down), MB_W_LINEAR, 'c', NULL},
    {"roberta.encoder.layer.{l}.output.dense.bias", "blk.{l}.ffn_down.bias", "D", L(down_bias), MB_W_NO_DECAY, '-', NULL},
    {"roberta.encoder.layer.{l}.output.LayerNorm.weight", "blk.{l}.layer_output_norm.weight", "D", L(norm), NORM, '-', NULL},
    {"roberta.encoder.layer.{l}.output.LayerNorm.bias", "blk.{l}.layer_output_norm.bias", "D", L(norm_bias), NORM, '-', NULL},
    {0},
};
// clang-format on

mb_status mb_roberta_config(mb_json json, mb_model_config *c)
{
    MB_TRY(mb_config_bert(json, c));
    c->first_position = c->pad_id >= 0 ? c->pad_id + 1 : 2;
    c->positions -= c->first_position;
    if (c->positions < 1)
        return mb_json_fault(json, "has no position beyond those before pad_token_id");
    return MB_OK;
}

/* llama.cpp counts positions from the first that a token can have. */
mb_status mb_roberta_config_gguf(const struct mb_gguf *g, mb_json out)
{
    int64_t positions, pad;

    MB_TRY(mb_config_bert_gguf(g, out));
    MB_TRY(mb_json_need_int(out, "max_position_embeddings", 1, 1 << 24, &positions));
    MB_TRY(mb_json_get_int(out, "pad_token_id", 1, &pad));
    return mb_json_set_int(out, "max_position_embeddings", positions + pad + 1);
}

/* Dropout, dense, tanh, dropout; the last layer is the head's. */
static mb_status classifier(mb_tape *t, mb_model *m, const mb_batch *b, mb_var *x, mb_var **y)
{
    const struct mb_roberta_weights *g = m->globals;
    const mb_tensor first = mb_tensor_1d(b->start, MB_DTYPE_I32, b->max_seq);
    const float p = m->config.drop_classifier;

    MB_TRY(mb_gather_rows(t, x, &first, &x));
    MB_TRY(mb_layer_dropout_pooled(t, m, b, p, mb_site(-1, MB_SITE_HEAD), x, &x));
    MB_TRY(mb_layer_linear_pooled(t, m, b, x, g->dense, g->dense_bias, &x));
    MB_TRY(mb_activate(t, x, MB_ACT_TANH, &x));
    return mb_layer_dropout_pooled(t, m, b, p, mb_site(-1, MB_SITE_HEAD + 1), x, y);
}

mb_status mb_roberta_forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    const struct mb_roberta_weights *g = m->globals;
    const mb_model_config *c = &m->config;
    mb_var *x;

    MB_TRY(mb_encode(t, m, b, &g->embed, &x));
    *out = (mb_output){
        .hidden = x, .features = x, .head_w = g->out, .head_b = g->out_bias, .logit_scale = 1.0f};
    switch (c->head) {
    case MB_HEAD_SEQUENCE:
        return classifier(t, m, b, x, &out->features);
    case MB_HEAD_TOKENS:
        return mb_layer_dropout(t, m, b, c->drop_classifier, mb_site(-1, MB_SITE_HEAD), x,
                                &out->features);
    case MB_HEAD_SPAN:
    case MB_HEAD_EMBED:
        return MB_OK;
    default:
        if (c->tied)
            out->head_w = g->embed.word;
        return mb_encoder_transform(t, m, b, x, g->dense, g->dense_bias, MB_ACT_GELU, g->head_norm,
                                    g->head_norm_bias, &out->features);
    }
}

static const char *const model_types[] = {"roberta", NULL};
const char *const mb_roberta_ignore[] = {"position_ids", "pooler.dense.", "lm_head.decoder.bias",
                                         NULL};
const char *const mb_roberta_rename[][2] = {
    {"LayerNorm.gamma", "LayerNorm.weight"}, {"LayerNorm.beta", "LayerNorm.bias"}, {NULL, NULL}};
const char *const mb_roberta_lora[] = {"query", "value", NULL};

const mb_model_family mb_model_roberta = {
    .name = "roberta",
    .model_types = model_types,
    .architecture = {[MB_HEAD_MASKED_LM] = "RobertaForMaskedLM",
                     [MB_HEAD_SEQUENCE] = "RobertaForSequenceClassification",
                     [MB_HEAD_TOKENS] = "RobertaForTokenClassification",
                     [MB_HEAD_SPAN] = "RobertaForQuestionAnswering",
                     [MB_HEAD_EMBED] = "RobertaModel"},
    .gguf_arch = "bert",
    .gguf_tokenizer = "gpt2",
    .prefix = "roberta.",
    .ignore = mb_roberta_ignore,
    .rename = mb_roberta_rename,
    .lora_default = mb_roberta_lora,
    .globals = mb_roberta_globals,
    .layer = mb_roberta_layers,
    .globals_size = sizeof(struct mb_roberta_weights),
    .layer_size = sizeof(mb_encoder_layer),
    .config = mb_roberta_config,
    .config_gguf = mb_roberta_config_gguf,
    .forward = mb_roberta_forward,
};
