/* autograd/models/vit.c - Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929): images.
 *
 * Pre-norm encoder over the patches of an image with learned positions and a class token, on which
 * the classifier sits. The patches' convolution, whose kernels do not overlap, is a linear layer over
 * flattened patches.
 */
#include "autograd/models/vit.h"

#include "autograd/models/config.h"

enum { SITE_EMBED = 0, SITE_ATTN_OUT = 1, SITE_MLP_OUT = 2 };

const char *const mb_vit_modules[][2] = {
    {"encoder.layer.", "layers."},
    {"attention.attention.query", "attention.q_proj"},
    {"attention.attention.key", "attention.k_proj"},
    {"attention.attention.value", "attention.v_proj"},
    {"attention.output.dense", "attention.o_proj"},
    {"intermediate.dense", "mlp.fc1"},
    {"output.dense", "mlp.fc2"},
    {NULL, NULL},
};

bool mb_vit_has_qkv_bias(const mb_model_config *c)
{
    return c->qkv_bias;
}

/* A number, or a list of height and width. */
static mb_status side(mb_json json, const char *key, int64_t otherwise, int64_t *height,
                      int64_t *width)
{
    const mb_json v = mb_json_get(json, key);

    if (!mb_json_is(v, MB_JSON_ARRAY)) {
        MB_TRY(mb_config_count(json, key, otherwise, 1 << 14, height));
        *width = *height;
        return MB_OK;
    }
    MB_TRY(mb_json_int(mb_json_at(v, 0), height));
    MB_TRY(mb_json_int(mb_json_at(v, 1), width));
    if (mb_json_count(v) != 2 || *height < 1 || *width < 1 || *height > 1 << 14 || *width > 1 << 14)
        return mb_json_fault(v, "is not a height and a width of 1 to 16384");
    return MB_OK;
}

static mb_status image_shape(mb_json json, int64_t prefix, mb_model_config *c)
{
    int64_t wide;

    MB_TRY(side(json, "image_size", 224, &c->image_height, &c->image_width));
    MB_TRY(side(json, "patch_size", 16, &c->patch, &wide));
    MB_TRY(mb_config_count(json, "num_channels", 3, 3, &c->channels));
    if (wide != c->patch)
        return mb_json_fault(json, "has patches of %lld by %lld; only square ones are supported",
                             (long long)c->patch, (long long)wide);
    if (c->image_height < c->patch || c->image_width < c->patch)
        return mb_json_fault(json, "has images of %lld by %lld and patches of %lld",
                             (long long)c->image_height, (long long)c->image_width,
                             (long long)c->patch);
    if (c->channels == 2)
        return mb_json_fault(json, "has images of 2 channels; 1 and 3 are supported");
    c->image_prefix = prefix;
    c->positions = prefix + (c->image_height / c->patch) * (c->image_width / c->patch);
    return MB_OK;
}

mb_status mb_vit_config(mb_json json, int64_t prefix, mb_model_config *c)
{
    MB_TRY(image_shape(json, prefix, c));
    MB_TRY(mb_config_count(json, "hidden_size", 768, 1 << 20, &c->width));
    MB_TRY(mb_config_count(json, "num_hidden_layers", 12, 4096, &c->layers));
    MB_TRY(mb_config_count(json, "num_attention_heads", 12, 4096, &c->heads));
    MB_TRY(mb_config_count(json, "intermediate_size", 3072, 1 << 22, &c->ffn));
    MB_TRY(mb_config_real(json, "layer_norm_eps", 1e-12, &c->norm_eps));
    MB_TRY(mb_config_activation(json, "hidden_act", MB_ACT_GELU, &c->activation));
    MB_TRY(mb_config_real(json, "hidden_dropout_prob", 0.0, &c->drop_hidden));
    MB_TRY(mb_config_real(json, "attention_probs_dropout_prob", 0.0, &c->drop_attention));
    MB_TRY(mb_json_get_bool(json, "qkv_bias", true, &c->qkv_bias));
    c->drop_embed = c->drop_hidden;
    c->kv_heads = c->heads;
    if (c->width % c->heads != 0)
        return mb_json_fault(json, "has a hidden_size of %lld for %lld attention heads",
                             (long long)c->width, (long long)c->heads);
    c->head_dim = c->width / c->heads;
    return mb_config_labels(json, &c->labels);
}

static mb_status attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l, mb_var *x,
                           mb_var **y)
{
    const mb_vit_layer *w = mb_model_layer(m, l);
    mb_var *q, *k, *v, *h;

    MB_TRY(mb_layer_linear(t, m, b, x, w->q, w->q_bias, &q));
    MB_TRY(mb_layer_linear(t, m, b, x, w->k, w->k_bias, &k));
    MB_TRY(mb_layer_linear(t, m, b, x, w->v, w->v_bias, &v));
    MB_TRY(mb_layer_attention(t, m, b, l, q, k, v, false, 0.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->o, w->o_bias, &h));
    return mb_layer_dropout(t, m, b, m->config.drop_hidden, mb_site(l, SITE_ATTN_OUT), h, y);
}

static mb_status layer(mb_tape *t, mb_model *m, const mb_batch *b, int64_t l, mb_var *x, mb_var **y)
{
    const mb_vit_layer *w = mb_model_layer(m, l);
    mb_var *h;

    MB_TRY(mb_layer_layernorm(t, m, x, w->before, w->before_bias, &h));
    MB_TRY(attention(t, m, b, l, h, &h));
    MB_TRY(mb_layer_add_layernorm(t, m, x, h, w->after, w->after_bias, &x, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->up, w->up_bias, &h)); /* (T,F) */
    MB_TRY(mb_activate(t, h, m->config.activation, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->down, w->down_bias, &h)); /* (T,D) */
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_hidden, mb_site(l, SITE_MLP_OUT), h, &h));
    return mb_add(t, x, h, y);
}

/* Patches through the convolution, the tokens in front of them, and all positions. */
static mb_status embed(mb_tape *t, mb_model *m, const mb_batch *b, mb_var **y)
{
    const mb_vit_globals *g = m->globals;
    mb_var *x, *p;

    MB_TRY(mb_layer_features(t, m, b, g->patch, g->patch_bias, &x));
    MB_TRY(mb_layer_embedding(t, m, b, b->ids, g->cls, &p));
    MB_TRY(mb_add(t, x, p, &x));
    if (g->distillation != NULL) {
        MB_TRY(mb_layer_embedding(t, m, b, b->segment, g->distillation, &p));
        MB_TRY(mb_add(t, x, p, &x));
    }
    MB_TRY(mb_layer_embedding(t, m, b, b->position, g->position, &p));
    MB_TRY(mb_add(t, x, p, &x));
    return mb_layer_dropout(t, m, b, m->config.drop_embed, mb_site(-1, SITE_EMBED), x, y);
}

mb_status mb_vit_forward(mb_tape *t, mb_model *m, const mb_batch *b, mb_output *out)
{
    const mb_vit_globals *g = m->globals;
    const mb_tensor first = mb_tensor_1d(b->start, MB_DTYPE_I32, b->max_seq);
    mb_var *x, *h;

    MB_TRY(embed(t, m, b, &x));
    MB_TRY(mb_model_run_layers(t, m, b, layer, x, &x));
    *out = (mb_output){.head_w = g->classifier, .head_b = g->classifier_bias, .logit_scale = 1.0f};
    MB_TRY(mb_gather_rows(t, x, &first, &h)); /* a norm looks at one row at a time */
    return mb_layer_layernorm(t, m, h, g->norm, g->norm_bias, &out->features);
}

static const mb_weight_row globals[] = {MB_VIT_EMBEDDINGS("vit."), MB_VIT_END("vit."), {0}};
static const mb_weight_row layers[] = {MB_VIT_LAYER("vit."), {0}};

static mb_status config(mb_json json, mb_model_config *c)
{
    return mb_vit_config(json, 1, c);
}

static const char *const model_types[] = {"vit", NULL};
static const char *const ignore[] = {"pooler.dense.", "embeddings.mask_token", NULL};
static const char *const lora_default[] = {"q_proj", "v_proj", NULL};

const mb_model_family mb_model_vit = {
    .name = "vit",
    .model_types = model_types,
    .architecture = {[MB_HEAD_SEQUENCE] = "ViTForImageClassification"},
    .prefix = "vit.",
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
