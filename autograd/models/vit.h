/* autograd/models/vit.h - what the vision transformers share: their layer, configuration and front.
 *
 * An image is a sequence: `image_prefix` tokens of its own, then its patches row by row. In a batch,
 * ids is 0 at the class token, segment 0 at the distillation token, and both are negative elsewhere;
 * feature_row says which patch a token is.
 */
#ifndef MB_AUTOGRAD_MODELS_VIT_H
#define MB_AUTOGRAD_MODELS_VIT_H

#include <stddef.h>

#include "autograd/layers.h"

typedef struct mb_vit_globals {
    mb_weight *cls, *distillation, *position, *patch, *patch_bias, *norm, *norm_bias;
    mb_weight *classifier, *classifier_bias;
} mb_vit_globals;

typedef struct mb_vit_layer {
    mb_weight *q, *q_bias, *k, *k_bias, *v, *v_bias, *o, *o_bias, *before, *before_bias;
    mb_weight *after, *after_bias, *up, *up_bias, *down, *down_bias;
} mb_vit_layer;

extern const char *const mb_vit_modules[][2]; /* of mb_model_family */
bool mb_vit_has_qkv_bias(const mb_model_config *c);

// clang-format off
#define MB_VIT_G(field) offsetof(mb_vit_globals, field)
#define MB_VIT_L(field) offsetof(mb_vit_layer, field)
/* Rows of the weight tables; a family's tables end with {0}. */
#define MB_VIT_EMBEDDINGS(prefix) \
    {prefix "embeddings.cls_token", NULL, "1 1 D", MB_VIT_G(cls), MB_W_EMBED, '-', NULL}, \
    {prefix "embeddings.position_embeddings", NULL, "1 P D", MB_VIT_G(position), MB_W_EMBED, '-', NULL}, \
    {prefix "embeddings.patch_embeddings.projection.weight", NULL, "D I Q Q", MB_VIT_G(patch), MB_W_EMBED, '-', NULL}, \
    {prefix "embeddings.patch_embeddings.projection.bias", NULL, "D", MB_VIT_G(patch_bias), MB_W_EMBED | MB_W_NO_DECAY, '-', NULL}
#define MB_VIT_END(prefix) \
    {prefix "layernorm.weight", NULL, "D", MB_VIT_G(norm), MB_W_NO_DECAY, '-', NULL}, \
    {prefix "layernorm.bias", NULL, "D", MB_VIT_G(norm_bias), MB_W_NO_DECAY, '-', NULL}, \
    {"classifier.weight", NULL, "C D", MB_VIT_G(classifier), MB_W_LINEAR | MB_W_HEAD | MB_W_NEW, '-', NULL}, \
    {"classifier.bias", NULL, "C", MB_VIT_G(classifier_bias), MB_W_NO_DECAY | MB_W_HEAD | MB_W_NEW, '-', NULL}
#define MB_VIT_LAYER(prefix) \
    {prefix "encoder.layer.{l}.attention.attention.query.weight", NULL, "H D", MB_VIT_L(q), MB_W_LINEAR, 'r', NULL}, \
    {prefix "encoder.layer.{l}.attention.attention.query.bias", NULL, "H", MB_VIT_L(q_bias), MB_W_NO_DECAY, 'r', mb_vit_has_qkv_bias}, \
    {prefix "encoder.layer.{l}.attention.attention.key.weight", NULL, "H D", MB_VIT_L(k), MB_W_LINEAR, 'r', NULL}, \
    {prefix "encoder.layer.{l}.attention.attention.key.bias", NULL, "H", MB_VIT_L(k_bias), MB_W_NO_DECAY, 'r', mb_vit_has_qkv_bias}, \
    {prefix "encoder.layer.{l}.attention.attention.value.weight", NULL, "H D", MB_VIT_L(v), MB_W_LINEAR, 'r', NULL}, \
    {prefix "encoder.layer.{l}.attention.attention.value.bias", NULL, "H", MB_VIT_L(v_bias), MB_W_NO_DECAY, 'r', mb_vit_has_qkv_bias}, \
    {prefix "encoder.layer.{l}.attention.output.dense.weight", NULL, "D H", MB_VIT_L(o), MB_W_LINEAR, 'c', NULL}, \
    {prefix "encoder.layer.{l}.attention.output.dense.bias", NULL, "D", MB_VIT_L(o_bias), MB_W_NO_DECAY, '-', NULL}, \
    {prefix "encoder.layer.{l}.layernorm_before.weight", NULL, "D", MB_VIT_L(before), MB_W_NO_DECAY, '-', NULL}, \
    {prefix "encoder.layer.{l}.layernorm_before.bias", NULL, "D", MB_VIT_L(before_bias), MB_W_NO_DECAY, '-', NULL}, \
    {prefix "encoder.layer.{l}.layernorm_after.weight", NULL, "D", MB_VIT_L(after), MB_W_NO_DECAY, '-', NULL}, \
    {prefix "encoder.layer.{l}.layernorm_after.bias", NULL, "D", MB_VIT_L(after_bias), MB_W_NO_DECAY, '-', NULL}, \
    {prefix "encoder.layer.{l}.intermediate.dense.weight", NULL, "F D", MB_VIT_L(up), MB_W_LINEAR, 'r', NULL}, \
    {prefix "encoder.layer.{l}.intermediate.dense.bias", NULL, "F", MB_VIT_L(up_bias), MB_W_NO_DECAY, 'r', NULL}, \
    {prefix "encoder.layer.{l}.output.dense.weight", NULL, "D F", MB_VIT_L(down), MB_W_LINEAR, 'c', NULL}, \
    {prefix "encoder.layer.{l}.output.dense.bias", NULL, "D", MB_VIT_L(down_bias), MB_W_NO_DECAY, '-', NULL}
// clang-format on

/* Reads config.json; `prefix`: tokens in front of the patches. */
mb_status mb_vit_config(mb_json json, int64_t prefix, mb_model_config *c) MB_MUST_USE;
/* Embeddings, layers, last norm, and the classifier on the class token. */
mb_status mb_vit_forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out) MB_MUST_USE;

#endif
