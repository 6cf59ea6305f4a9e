/* recipes/serve/scheduler_memory.c - models, caches and places of a scheduler. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/data/collate.h"
#include "recipes/serve/scheduler_inside.h"

static int64_t columns_of(int64_t context)
{
    return (context + MB_BLOCK_TOKENS - 1) / MB_BLOCK_TOKENS;
}

/* ---- pools -------------------------------------------------------------------------------- */

static int64_t floats_per_block(const mb_pool *p, bool values)
{
    const int64_t width = (p->head_dim + 15) / 16 * 16; /* mb_kv_pages */

    return p->kv_heads * MB_BLOCK_TOKENS * (values ? width : p->head_dim);
}

static mb_status take_pages(mb_pool *p, int64_t blocks, mb_arena *a)
{
    for (int64_t l = 0; l < p->layers; l++) {
        void *k, *v;

        MB_TRY(mb_arena_take(a, (size_t)(blocks * floats_per_block(p, false)) * sizeof(float), &k));
        MB_TRY(mb_arena_take(a, (size_t)(blocks * floats_per_block(p, true)) * sizeof(float), &v));
        p->pages[l] = (mb_kv_pages){.k = k, .v = v};
    }
    return MB_OK;
}

static mb_status make_pool(mb_pool *p, const mb_model_config *c, int64_t blocks)
{
    mb_arena *counting = NULL;
    mb_status st;

    *p = (mb_pool){.layers = c->layers, .kv_heads = c->kv_heads, .head_dim = c->head_dim};
    MB_TRY(mb_blocks_new(blocks, &p->blocks));
    MB_TRY(MB_NEW_ARRAY(&p->pages, p->layers));
    MB_TRY(mb_arena_new("keys and values", SIZE_MAX, &counting));
    st = take_pages(p, blocks, counting);
    p->bytes = mb_arena_peak(counting);
    mb_arena_free(counting);
    MB_TRY(st);
    MB_TRY(mb_arena_new("keys and values", p->bytes + 4096, &p->memory));
    return take_pages(p, blocks, p->memory);
}

static mb_status find_pool(mb_scheduler *s, mb_served_model *m)
{
    const mb_model_config *c = &m->m.engine->model->config;
    const mb_pool *p;

    if (m->m.share < 0) {
        const int64_t tokens =
            m->m.cache_tokens > 0 ? m->m.cache_tokens : s->o.n_seq * m->m.context;

        MB_REQUIRE(tokens >= m->m.context, MB_EARG,
                   "a cache of %lld tokens cannot hold one context of %lld", (long long)tokens,
                   (long long)m->m.context);
        m->pool = s->n_pools++;
        return make_pool(&s->pool[m->pool], c, columns_of(tokens));
    }
    MB_REQUIRE(m->m.share < s->n_models, MB_EBUG, "a cache is shared with model %d of %d",
               m->m.share, s->n_models);
    m->pool = s->model[m->m.share].pool;
    p = &s->pool[m->pool];
    MB_REQUIRE(
        p->layers == c->layers && p->kv_heads == c->kv_heads && p->head_dim == c->head_dim &&
            mb_blocks_count(p->blocks) >= m->columns,
        MB_EARG, "a model of %lld layers and %lld heads cannot share a cache of %lld and %lld",
        (long long)c->layers, (long long)c->kv_heads, (long long)p->layers, (long long)p->kv_heads);
    return MB_OK;
}

/* ---- models ------------------------------------------------------------------------------- */

static mb_status check(const mb_scheduler *s, const mb_served *m)
{
    const mb_model *model = m->engine->model;

    MB_REQUIRE(s->n_models < MB_SCHEDULER_MODELS, MB_EARG, "there are %d models already",
               s->n_models);
    MB_REQUIRE(!s->started || m->context <= s->o.context, MB_EBUG,
               "a model of %lld tokens is added to a scheduler that has started with room for %lld",
               (long long)m->context, (long long)s->o.context);
    MB_REQUIRE(model->config.head == MB_HEAD_CAUSAL_LM && model->config.dec_layers == 0, MB_ENOTSUP,
               "%s does not continue texts: it cannot answer asks", model->family->name);
    MB_REQUIRE(mb_device_is_host(m->engine->device), MB_ENOTSUP,
               "models are served on the CPU: with device: cpu");
    MB_REQUIRE(m->context >= 2 && m->context <= model->max_positions, MB_EARG,
               "a context of %lld tokens; the model has %lld positions and the least is 2",
               (long long)m->context, (long long)model->max_positions);
    return MB_OK;
}

static mb_status build(mb_scheduler *s, mb_served_model *m)
{
    const int64_t n = s->o.n_seq, layers = m->m.engine->model->config.layers;
    const int64_t rows = n + MB_SCORE_ROWS;

    MB_TRY(find_pool(s, m));
    MB_TRY(MB_NEW_ARRAY(&m->table, n * m->columns));
    MB_TRY(MB_NEW_ARRAY(&m->pages, layers));
    memcpy(m->pages, s->pool[m->pool].pages, (size_t)layers * sizeof *m->pages);
    for (int64_t l = 0; l < layers; l++) {
        m->pages[l].table = m->table;
        m->pages[l].columns = m->columns;
    }
    m->cache = (mb_kv_cache){.layers = layers, .pages = m->pages};
    MB_TRY(MB_NEW_ARRAY(&m->score, m->vocab));
    MB_TRY(MB_NEW_ARRAY(&m->row, rows));
    MB_TRY(MB_NEW_ARRAY(&m->in, n));
    MB_TRY(mb_picker_new(m->vocab, &m->picker));
    MB_TRY(mb_batch_new(s->o.chunk, n, &m->batch));
    m->batch->cache = &m->cache;
    m->batch->n_seq = n;
    m->batch->max_len = m->m.context;
    m->m.engine->ex.rows_alike = true;
    return mb_engine_plan_logits(m->m.engine, m->batch, s->o.chunk, rows);
}

static mb_status make_detokenizers(mb_scheduler *s, int m)
{
    for (int64_t i = 0; i < s->o.n_seq; i++)
        MB_TRY(mb_detokenizer_new(s->model[m].m.tokenizer, true, &s->place[i].detokenizer[m]));
    return MB_OK;
}

static void drop_pool(mb_pool *p)
{
    mb_blocks_free(p->blocks);
    mb_arena_free(p->memory);
    mb_free(p->pages);
    *p = (mb_pool){0};
}

static void drop_model(mb_scheduler *s, int number)
{
    mb_served_model *m = &s->model[number];

    for (int64_t i = 0; s->place != NULL && i < s->o.n_seq; i++) {
        mb_detokenizer_free(s->place[i].detokenizer[number]);
        s->place[i].detokenizer[number] = NULL;
    }
    m->m.engine->ex.rows_alike = false;
    mb_free(m->table);
    mb_free(m->pages);
    mb_free(m->score);
    mb_free(m->row);
    mb_free(m->in);
    mb_picker_free(m->picker);
    mb_batch_free(m->batch);
    *m = (mb_served_model){0};
}

mb_status mb_scheduler_add(mb_scheduler *s, const mb_served *served, int *number)
{
    mb_served_model *m = &s->model[s->n_models];
    const int pools = s->n_pools;
    mb_status st;

    MB_TRY(check(s, served));
    const int64_t known = mb_tokenizer_vocab_size(served->tokenizer);
    const int64_t vocab = served->engine->model->config.vocab;

    *m = (mb_served_model){.m = *served,
                           .vocab = known < vocab ? known : vocab,
                           .columns = columns_of(served->context)};
    st = build(s, m);
    if (st == MB_OK && s->started)
        st = make_detokenizers(s, s->n_models);
    if (st != MB_OK) { /* leaves nothing behind */
        drop_model(s, s->n_models);
        while (s->n_pools > pools)
            drop_pool(&s->pool[--s->n_pools]);
        return st;
    }
    pthread_mutex_lock(&s->lock); /* others ask how many there are */
    *number = s->n_models++;
    pthread_mutex_unlock(&s->lock);
    return MB_OK;
}

static double gib(size_t bytes)
{
    return (double)bytes / (double)(1 << 30);
}

void mb_scheduler_describe(const mb_scheduler *s, int number, char *text, size_t size)
{
    const mb_served_model *m = &s->model[number];
    const mb_pool *p = &s->pool[m->pool];

    snprintf(text, size,
             "%lld sequences of up to %lld tokens; keys and values of %lld tokens: %.2f GiB%s; "
             "forwards of up to %lld rows: %.2f GiB",
             (long long)s->o.n_seq, (long long)m->m.context,
             (long long)mb_blocks_count(p->blocks) * MB_BLOCK_TOKENS, gib(p->bytes),
             m->m.share >= 0 ? " (shared)" : "", (long long)s->o.chunk,
             gib(m->m.engine->step_bytes + m->m.engine->scratch_bytes));
}

int64_t mb_scheduler_vocab(const mb_scheduler *s, int model)
{
    return s->model[model].vocab;
}

/* ---- places ------------------------------------------------------------------------------- */

mb_status mb_scheduler_take_places(mb_scheduler *s)
{
    int64_t context = s->o.context, columns;

    for (int m = 0; m < s->n_models; m++)
        context = s->model[m].m.context > context ? s->model[m].m.context : context;
    columns = columns_of(context);
    MB_TRY(MB_NEW_ARRAY(&s->place, s->o.n_seq));
    MB_TRY(MB_NEW_ARRAY(&s->order, s->o.n_seq));
    MB_TRY(MB_NEW_ARRAY(&s->ids, s->o.n_seq * context));
    MB_TRY(MB_NEW_ARRAY(&s->columns, s->o.n_seq * columns));
    for (int64_t i = 0; i < s->o.n_seq; i++) {
        s->place[i].id = s->ids + i * context;
        s->place[i].block = s->columns + i * columns;
    }
    for (int m = 0; m < s->n_models; m++)
        MB_TRY(make_detokenizers(s, m));
    return MB_OK;
}

void mb_scheduler_release(mb_scheduler *s)
{
    for (int i = 0; i < s->n_models; i++)
        drop_model(s, i);
    for (int64_t i = 0; s->place != NULL && i < s->o.n_seq; i++)
        mb_telling_release(&s->place[i].telling);
    mb_free(s->place);
    mb_free(s->order);
    mb_free(s->ids);
    mb_free(s->columns);
    for (int i = 0; i < s->n_pools; i++)
        drop_pool(&s->pool[i]);
}
