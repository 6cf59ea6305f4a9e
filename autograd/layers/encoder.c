/* autograd/layers/encoder.c - see autograd/layers/encoder.h. */
#include "autograd/layers/encoder.h"

static mb_status attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t l, mb_var *x,
                           mb_var **y)
{
    const mb_encoder_layer *w = mb_model_layer(m, l);
    mb_var *q, *k, *v, *h;

    MB_TRY(mb_layer_linear(t, m, b, x, w->q, w->q_bias, &q));
    MB_TRY(mb_layer_linear(t, m, b, x, w->k, w->k_bias, &k));
    MB_TRY(mb_layer_linear(t, m, b, x, w->v, w->v_bias, &v));
    MB_TRY(mb_layer_attention(t, m, b, l, q, k, v, false, 0.0f, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->o, w->o_bias, &h));
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_attention_out, mb_site(l, MB_SITE_ATTN_OUT), h,
                            &h));
    return mb_layer_add_layernorm(t, m, h, x, w->attn_norm, w->attn_norm_bias, &h, y);
}

static mb_status layer(mb_tape *t, mb_model *m, const mb_batch *b, int64_t l, mb_var *x, mb_var **y)
{
    const mb_encoder_layer *w = mb_model_layer(m, l);
    mb_var *h;

    MB_TRY(attention(t, m, b, l, x, &x));
    MB_TRY(mb_layer_linear(t, m, b, x, w->up, w->up_bias, &h)); /* (T,F) */
    MB_TRY(mb_activate(t, h, m->config.activation, &h));
    MB_TRY(mb_layer_linear(t, m, b, h, w->down, w->down_bias, &h)); /* (T,D) */
    MB_TRY(mb_layer_dropout(t, m, b, m->config.drop_hidden, mb_site(l, MB_SITE_MLP_OUT), h, &h));
    return mb_layer_add_layernorm(t, m, h, x, w->norm, w->norm_bias, &h, y);
}

static mb_status embed(mb_tape *t, mb_model *m, const mb_batch *b, const mb_encoder_embeddings *e,
                       mb_var **y)
{
    mb_var *x, *p, *s;

    MB_TRY(mb_layer_embedding(t, m, b, b->ids, e->word, &x));
    if (e->segment != NULL) {
        MB_TRY(mb_layer_embedding(t, m, b, b->segment, e->segment, &s));
        MB_TRY(mb_add(t, x, s, &x));
    }
    MB_TRY(
        mb_layer_embedding_from(t, m, b, b->position, e->position, m->config.first_position, &p));
    MB_TRY(mb_layer_add_layernorm(t, m, x, p, e->norm, e->norm_bias, &p, &x));
    return mb_layer_dropout(t, m, b, m->config.drop_embed, mb_site(-1, MB_SITE_EMBED), x, y);
}

mb_status mb_encode(mb_tape *t, mb_model *m, const mb_batch *b, const mb_encoder_embeddings *e,
                    mb_var **y)
{
    mb_var *x;

    MB_TRY(embed(t, m, b, e, &x));
    return mb_model_run_layers(t, m, b, layer, x, y);
}

mb_status mb_encoder_first(mb_tape *t, mb_model *m, const mb_batch *b, mb_var *x,
                           const mb_weight *w, const mb_weight *bias, mb_activation f, mb_var **y)
{
    const mb_tensor first = mb_tensor_1d(b->start, MB_DTYPE_I32, b->max_seq);

    MB_TRY(mb_gather_rows(t, x, &first, &x));
    MB_TRY(mb_layer_linear_pooled(t, m, b, x, w, bias, &x));
    return mb_activate(t, x, f, y);
}

mb_status mb_encoder_transform(mb_tape *t, mb_model *m, const mb_batch *b, mb_var *x,
                               const mb_weight *w, const mb_weight *bias, mb_activation f,
                               const mb_weight *norm, const mb_weight *norm_bias, mb_var **y)
{
    MB_TRY(mb_layer_linear(t, m, b, x, w, bias, &x));
    MB_TRY(mb_activate(t, x, f, &x));
    return mb_layer_layernorm(t, m, x, norm, norm_bias, y);
}

bool mb_head_is_sequence(const mb_model_config *c)
{
    return c->head == MB_HEAD_SEQUENCE;
}

bool mb_head_is_tokens(const mb_model_config *c)
{
    return c->head == MB_HEAD_TOKENS;
}

bool mb_head_is_classifier(const mb_model_config *c)
{
    return c->head == MB_HEAD_SEQUENCE || c->head == MB_HEAD_TOKENS;
}

bool mb_head_is_span(const mb_model_config *c)
{
    return c->head == MB_HEAD_SPAN;
}

bool mb_head_is_masked(const mb_model_config *c)
{
    return c->head == MB_HEAD_MASKED_LM;
}

bool mb_head_is_masked_untied(const mb_model_config *c)
{
    return c->head == MB_HEAD_MASKED_LM && !c->tied;
}
