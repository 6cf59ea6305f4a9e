/* autograd/layers/attention.c - attention over the sequences of a batch, with or without a cache, and
 * of a decoder to its source. */
#include <math.h>

#include "autograd/layers.h"

enum { SITE_ATTENTION = 15, SITE_CROSS = 14 };

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

/* Caches are a decoder's. */
static int64_t cache_layer(const mb_model *m, int64_t layer)
{
    return m->config.dec_layers > 0 ? layer - m->config.layers : layer;
}

static mb_attention attention_of(const mb_model *m, const mb_batch *b, const mb_var *q,
                                 const mb_var *k, float scale, uint64_t site)
{
    const mb_model_config *c = &m->config;

    return (mb_attention){
        .heads = mb_cols(&q->value) / c->head_dim, /* this rank's, not the config's */
        .kv_heads = mb_cols(&k->value) / c->head_dim,
        .head_dim = c->head_dim,
        .scale = scale != 0.0f ? scale : (float)(1.0 / sqrt((double)c->head_dim)),
        .n_seq = b->n_seq,
        .q_start = b->start,
        .q_len = b->len,
        .k_start = b->k_start,
        .k_len = b->k_len,
        .max_len = b->max_len,
        .dropout = c->drop_attention * m->dropout_scale,
        .seed = b->seed,
        .site = site,
        .step = b->step,
        .ordinal = b->ordinal,
    };
}

mb_status mb_layer_attention_biased(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                                    mb_var *q, mb_var *k, mb_var *v, mb_var *bias, bool causal,
                                    float scale, mb_var **o)
{
    mb_attention at = attention_of(m, b, q, k, scale, mb_site(layer, SITE_ATTENTION));

    at.causal = causal;
    at.window = mb_layer_set_has(&m->config.full, layer) ? 0 : m->config.window;
    if (b->cache != NULL && b->cache->pages != NULL)
        at.pages = &b->cache->pages[cache_layer(m, layer)];
    else if (b->cache != NULL)
        MB_TRY(through_cache(t, b, cache_layer(m, layer), &k, &v));
    return mb_attend(t, q, k, v, bias, &at, o);
}

mb_status mb_layer_attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                             mb_var *q, mb_var *k, mb_var *v, bool causal, float scale, mb_var **o)
{
    return mb_layer_attention_biased(t, m, b, layer, q, k, v, NULL, causal, scale, o);
}

/* Keys or values of the source, from the encoder's output or from the cache's tensor `known`. */
static mb_status source_rows(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var *source,
                             const mb_weight *w, const mb_weight *bias, const mb_tensor *known,
                             mb_var **out)
{
    if (!b->source_cached)
        MB_TRY(mb_layer_linear(t, m, b->source, source, w, bias, out));
    if (known == NULL)
        return MB_OK;
    if (!b->source_cached)
        mb_tape_read(t, *out);
    if (!b->source_cached && !mb_tape_exec(t)->planning) {
        mb_tensor to = mb_tensor_rows(known, 0, mb_rows(&(*out)->value));
        MB_TRY(MB_RUN(mb_tape_exec(t), copy, &to, &(*out)->value));
    }
    return mb_tape_constant(t, known, out);
}

mb_status mb_layer_cross_attention(mb_tape *t, const mb_model *m, const mb_batch *b, int64_t layer,
                                   mb_var *q, mb_var *source, const mb_cross_weights *w,
                                   float scale, mb_var **o)
{
    const mb_batch *s = b->source;
    const int64_t at_layer = cache_layer(m, layer);
    const mb_kv_cache *cache = b->cache;
    mb_var *k, *v;

    MB_REQUIRE(!b->source_cached || cache != NULL, MB_EBUG, "a source is cached without a cache");
    MB_TRY(source_rows(t, m, b, source, w->k, w->k_bias,
                       cache != NULL ? &cache->source_k[at_layer] : NULL, &k));
    MB_TRY(source_rows(t, m, b, source, w->v, w->v_bias,
                       cache != NULL ? &cache->source_v[at_layer] : NULL, &v));
    mb_attention at = attention_of(m, b, q, k, scale, mb_site(layer, SITE_CROSS));

    at.k_start = s->start;
    at.k_len = s->len;
    at.max_len = s->max_len > b->max_len ? s->max_len : b->max_len;
    return mb_attend(t, q, k, v, NULL, &at, o);
}

mb_status mb_layer_bucket_bias(mb_tape *t, const mb_model *m, const mb_batch *b, bool both_ways,
                               const mb_weight *w, mb_var **y)
{
    const mb_tensor *all = &m->buckets[both_ways ? 0 : 1];
    const int64_t n = 2 * b->max_len - 1;
    mb_var *wv;

    MB_REQUIRE(b->max_len > 0 && b->max_len <= m->max_positions, MB_EBUG,
               "a bias for %lld positions of %lld", (long long)b->max_len,
               (long long)m->max_positions);
    const mb_tensor ids = mb_tensor_1d(
        mb_element(all->data, MB_DTYPE_I32, m->max_positions - b->max_len), MB_DTYPE_I32, n);
    MB_TRY(mb_weight_var(t, m, w, &wv));
    return mb_bucket_bias(t, &ids, wv, y);
}
