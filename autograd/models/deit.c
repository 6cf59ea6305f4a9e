/* autograd/models/deit.c - Data-efficient image Transformer (Touvron et al. 2021, arXiv:2012.12877).
 *
 * A ViT with a second token in front, which learned from a teacher. The classifier sits on the class
 * token, as in transformers' DeiTForImageClassification; a checkpoint with a second one for the
 * distillation token (...WithTeacher) is refused by name, because its heads would be lost.
 */
#include "autograd/models/vit.h"

static const mb_weight_row globals[] = {
    MB_VIT_EMBEDDINGS("deit."),
    {"deit.embeddings.distillation_token", NULL, "1 1 D", MB_VIT_G(distillation), MB_W_EMBED, '-',
     NULL},
    MB_VIT_END("deit."),
    {0},
};
static const mb_weight_row layers[] = {MB_VIT_LAYER("deit."), {0}};

static mb_status config(mb_json json, mb_model_config *c)
{
    return mb_vit_config(json, 2, c);
}

static const char *const model_types[] = {"deit", NULL};
static const char *const ignore[] = {"pooler.dense.", "embeddings.mask_token", NULL};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_deit = {
    .name = "deit",
    .model_types = model_types,
    .architecture = {[MB_HEAD_SEQUENCE] = "DeiTForImageClassification"},
    .prefix = "deit.",
    .ignore = ignore,
    .lora_default = lora_default,
    .globals = globals,
    .layer = layers,
    .globals_size = sizeof(mb_vit_globals),
    .layer_size = sizeof(mb_vit_layer),
    .modules = mb_vit_modules,
    .sees_images = true,
    .config = config,
    .forward = mb_vit_forward,
};
