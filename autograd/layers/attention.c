/* autograd/layers/attention.c - attention over the sequences of a batch, with or without a cache. */
#include <math.h>

#include "autograd/layers.h"

enum { SITE_ATTENTION = 15 };

/* Puts this batch's rows of k or v behind the earlier ones of their sequences. */
static mb_status append(mb_tape *t, const mb_batch *b, const mb_var *x, const mb_tensor *cache)
{
    const mb_batch *h = b->host != NULL ? b->host : b;

    mb_tape_read(t, x);
    for (int64_t s = 0; s < b->n_seq && !mb_tape_exec(t)->planning; s++) {
        const int64_t n = h->len[s];
        const mb_tensor from = mb_tensor_rows(&x->value, h->start[s], n);
        mb_tensor to = mb_tensor_rows(cache, h->k_start[s] + h->k_len[s] - n, n);

        MB_TRY(MB_RUN(mb_tape_exec(t), copy, &to, &from));
    }
    return MB_OK;
}

static mb_status through_cache(mb_tape *t, const mb_batch *b, int64_t layer, mb_var **k, mb_var **v)
{
    MB_TRY(append(t, b, *k, &b->cache->k[layer]));
    MB_TRY(append(t, b, *v, &b->cache->v[layer]));
    MB_TRY(mb_tape_constant(t, &b->cache->k[layer], k));
    return mb_tape_constant(t, &b->cache->v[layer], v);
}

mb_status mb_layer_attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                             mb_var *q, mb_var *k, mb_var *v, bool causal, float scale, mb_var **o)
{
    const mb_model_config *c = &m->config;
    const mb_attention at = {
        .heads = mb_cols(&q->value) / c->head_dim, /* this rank's, not the config's */
        .kv_heads = mb_cols(&k->value) / c->head_dim,
        .head_dim = c->head_dim,
        .scale = scale != 0.0f ? scale : (float)(1.0 / sqrt((double)c->head_dim)),
        .causal = causal,
        .window = mb_layer_set_has(&c->full, layer) ? 0 : c->window,
        .n_seq = b->n_seq,
        .q_start = b->start,
        .q_len = b->len,
        .k_start = b->k_start,
        .k_len = b->k_len,
        .max_len = b->max_len,
        .dropout = c->drop_attention * m->dropout_scale,
        .seed = b->seed,
        .site = mb_site(layer, SITE_ATTENTION),
        .step = b->step,
        .ordinal = b->ordinal,
    };

    if (b->cache != NULL)
        MB_TRY(through_cache(t, b, layer, &k, &v));
    return mb_attend(t, q, k, v, &at, o);
}
