/* recipes/generate/generate.c - see recipes/generate/generate.h. */
#include "recipes/generate/generate.h"

#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/data/collate.h"
#include "recipes/generate/ends.h"
#include "recipes/generate/telling.h"

enum { LEAST_PROMPT_ROWS = MB_GENERATOR_SEQ_MAX + 1 };

struct place {
    int64_t prompt;      /* the number of the one that is answered here, -1: free */
    int32_t *id;         /* (capacity) prompt and answer */
    int64_t n_prompt, n; /* tokens of the prompt; of both */
    int64_t cached;      /* the cache holds keys and values of id[0..cached) */
    mb_detokenizer *detokenizer;
    mb_telling telling;
};

struct mb_generator {
    mb_engine *engine;
    int64_t n_seq, capacity, chunk, vocab;
    mb_arena *memory; /* of the cache, the device's */
    int32_t *ids;     /* of the places */
    mb_kv_cache cache;
    mb_batch *batch;
    struct place *place;
    mb_picker *picker;
    mb_generator_stats stats;
    /* of the run */
    const mb_prompt *prompt;
    const mb_generate_options *o;
    mb_stop_texts stop;
    int64_t n_prompts, next;                /* prompts given to a place so far */
    struct place *in[MB_GENERATOR_SEQ_MAX]; /* sequences of the batch */
    int32_t row[MB_GENERATOR_SEQ_MAX];
};

const char *mb_finish_name(mb_finish f)
{
    static const char *const names[] = {"stop", "stop", "length", "context", "cancelled"};

    return names[f];
}

mb_generator_stats mb_generator_last(const mb_generator *g)
{
    return g->stats;
}

int64_t mb_generator_vocab(const mb_generator *g)
{
    return g->vocab;
}

/* ---- memory ------------------------------------------------------------------------------- */

/* Keys and values; from a counting arena: only measures. */
static mb_status take_cache(mb_generator *g, mb_arena *a)
{
    const mb_model_config *c = &g->engine->model->config;
    const int64_t rows = g->n_seq * g->capacity, cols = c->kv_heads * c->head_dim;
    void *p;

    for (int64_t l = 0; l < 2 * c->layers; l++) {
        mb_tensor *t = l < c->layers ? &g->cache.k[l] : &g->cache.v[l - c->layers];

        *t = mb_tensor_2d(NULL, g->engine->model->dtype, rows, cols);
        MB_TRY(mb_arena_take(a, (size_t)mb_tensor_bytes(t), &p));
        t->data = p;
    }
    return MB_OK;
}

static mb_status take_places(mb_generator *g)
{
    MB_TRY(MB_NEW_ARRAY(&g->ids, g->n_seq * g->capacity));
    for (int64_t s = 0; s < g->n_seq; s++)
        g->place[s].id = g->ids + s * g->capacity;
    return MB_OK;
}

static mb_status make_cache(mb_generator *g)
{
    const int64_t layers = g->engine->model->config.layers;
    mb_arena *counting = NULL;
    size_t bytes = 0;
    mb_status st;

    g->cache = (mb_kv_cache){.layers = layers, .capacity = g->capacity, .n_seq = g->n_seq};
    MB_TRY(MB_NEW_ARRAY(&g->cache.k, layers));
    MB_TRY(MB_NEW_ARRAY(&g->cache.v, layers));
    MB_TRY(mb_arena_new("keys and values", SIZE_MAX, &counting));
    st = take_cache(g, counting);
    bytes = mb_arena_peak(counting);
    mb_arena_free(counting);
    MB_TRY(st);
    MB_TRY(mb_device_arena(g->engine->device, "keys and values", bytes + 4096, &g->memory));
    MB_TRY(take_cache(g, g->memory));
    return take_places(g);
}

static mb_status make_places(mb_generator *g, const mb_tokenizer *tok)
{
    MB_TRY(MB_NEW_ARRAY(&g->place, g->n_seq));
    for (int64_t s = 0; s < g->n_seq; s++) {
        g->place[s].prompt = -1;
        MB_TRY(mb_detokenizer_new(tok, true, &g->place[s].detokenizer));
    }
    return MB_OK;
}

static mb_status build(mb_generator *g, const mb_tokenizer *tok)
{
    const int64_t rows = g->chunk > LEAST_PROMPT_ROWS ? g->chunk : LEAST_PROMPT_ROWS;

    MB_TRY(make_places(g, tok));
    MB_TRY(make_cache(g));
    MB_TRY(mb_picker_new(g->vocab, &g->picker));
    MB_TRY(mb_batch_new(rows, g->n_seq, &g->batch));
    g->batch->cache = &g->cache;
    g->batch->n_seq = g->n_seq;
    g->batch->max_len = g->capacity;
    return mb_engine_plan_logits(g->engine, g->batch, rows, g->n_seq);
}

mb_status mb_generator_new(mb_engine *e, const mb_tokenizer *tok, const mb_generator_options *o,
                           mb_generator **out)
{
    const int64_t known = mb_tokenizer_vocab_size(tok), vocab = e->model->config.vocab;
    mb_generator *g;
    mb_status st;

    MB_REQUIRE(o->n_seq >= 1 && o->n_seq <= MB_GENERATOR_SEQ_MAX, MB_EARG,
               "%lld answers at a time; 1 to %d are possible", (long long)o->n_seq,
               MB_GENERATOR_SEQ_MAX);
    MB_REQUIRE(o->capacity >= 2 && o->capacity <= e->model->max_positions, MB_EARG,
               "room for %lld tokens of prompt and answer was asked for; the model has %lld "
               "positions and the least is 2",
               (long long)o->capacity, (long long)e->model->max_positions);
    MB_REQUIRE(o->capacity <= INT32_MAX / o->n_seq, MB_EARG, "%lld x %lld tokens are too many",
               (long long)o->n_seq, (long long)o->capacity);
    MB_TRY(MB_NEW(&g));
    g->engine = e;
    g->n_seq = o->n_seq;
    g->capacity = o->capacity;
    g->chunk = o->chunk > 0 ? o->chunk : MB_GENERATOR_CHUNK;
    g->chunk = g->chunk < g->capacity * g->n_seq ? g->chunk : g->capacity * g->n_seq;
    g->vocab = known < vocab ? known : vocab;
    st = build(g, tok);
    if (st != MB_OK) {
        mb_generator_free(g);
        return st;
    }
    *out = g;
    return MB_OK;
}

void mb_generator_free(mb_generator *g)
{
    if (g == NULL)
        return;
    for (int64_t s = 0; g->place != NULL && s < g->n_seq; s++) {
        mb_detokenizer_free(g->place[s].detokenizer);
        mb_telling_release(&g->place[s].telling);
    }
    mb_free(g->place);
    mb_free(g->cache.k);
    mb_free(g->cache.v);
    mb_arena_free(g->memory);
    mb_free(g->ids);
    mb_picker_free(g->picker);
    mb_batch_free(g->batch);
    mb_free(g);
}

/* ---- answers ------------------------------------------------------------------------------ */

/* What can be told by now; all with stop NULL. */
static mb_status tell(mb_generator *g, struct place *s, const mb_stop_texts *stop)
{
    size_t n;
    const char *text = mb_telling_take(&s->telling, stop, &n);

    if (n == 0 || g->o->on_text == NULL)
        return MB_OK;
    return g->o->on_text(g->o->arg, s->prompt, text, n);
}

static mb_status finish(mb_generator *g, struct place *s, mb_finish why)
{
    mb_answer a = {
        .prompt = s->prompt, .id = s->id + s->n_prompt, .n = s->n - s->n_prompt, .finish = why};

    MB_TRY(mb_telling_end(&s->telling, why == MB_FINISH_STOP));
    MB_TRY(tell(g, s, NULL));
    a.text = s->telling.text.p;
    a.n_text = s->telling.text.n;
    if (g->o->on_answer != NULL)
        MB_TRY(g->o->on_answer(g->o->arg, &a));
    s->prompt = -1;
    return MB_OK;
}

/* The place's answer grows by a token. */
static mb_status accept(mb_generator *g, struct place *s, int32_t id)
{
    bool stopped;

    s->id[s->n++] = id;
    g->stats.answer_tokens++;
    if (mb_is_end(g->o->end, g->o->n_end, id))
        return finish(g, s, MB_FINISH_END);
    MB_TRY(mb_telling_add(&s->telling, id, &g->stop, &stopped));
    if (stopped)
        return finish(g, s, MB_FINISH_STOP);
    MB_TRY(tell(g, s, &g->stop));
    if (s->n - s->n_prompt >= g->o->max_new_tokens)
        return finish(g, s, MB_FINISH_LENGTH);
    return s->n == g->capacity ? finish(g, s, MB_FINISH_CONTEXT) : MB_OK;
}

static mb_status pick(mb_generator *g, struct place *s, const float *logits)
{
    const mb_pick_place at = {.id = s->id,
                              .n = s->n,
                              .sample = g->prompt[s->prompt].sample,
                              .token = (uint64_t)(s->n - s->n_prompt)};
    int32_t id;

    if (g->o->on_logits != NULL)
        MB_TRY(g->o->on_logits(g->o->arg, s->prompt, (int64_t)at.token, logits, g->vocab));
    MB_TRY(mb_pick(g->picker, &g->o->pick, &at, logits, &id));
    return accept(g, s, id);
}

/* ---- forwards ----------------------------------------------------------------------------- */

static bool is_answering(const struct place *s)
{
    return s->prompt >= 0 && s->n > s->n_prompt;
}

static bool is_reading(const struct place *s)
{
    return s->prompt >= 0 && s->n == s->n_prompt;
}

/* The place's next n tokens join the batch. */
static void join(mb_generator *g, struct place *s, int64_t n)
{
    mb_batch *b = g->batch;

    b->start[b->n_seq] = (int32_t)b->used;
    b->len[b->n_seq] = (int32_t)n;
    b->k_start[b->n_seq] = (int32_t)((s - g->place) * g->capacity);
    b->k_len[b->n_seq] = (int32_t)(s->cached + n);
    memcpy(b->ids + b->used, s->id + s->cached, (size_t)n * sizeof(int32_t));
    for (int64_t i = 0; i < n; i++)
        b->position[b->used + i] = (int32_t)(s->cached + i);
    g->in[b->n_seq++] = s;
    b->used += n;
}

/* Prompts are cut at multiples of `chunk` from where they begin to be read, whoever else reads. */
static void gather_prompts(mb_generator *g)
{
    mb_batch *b = g->batch;

    b->used = b->n_seq = 0;
    for (int64_t i = 0; i < g->n_seq; i++) {
        struct place *s = &g->place[i];
        const int64_t left = s->n - s->cached, n = left < g->chunk ? left : g->chunk;

        if (is_reading(s) && b->used + n <= g->chunk)
            join(g, s, n);
    }
    b->tokens = b->used > LEAST_PROMPT_ROWS ? b->used : LEAST_PROMPT_ROWS;
    for (int64_t i = b->used; i < b->tokens; i++)
        b->ids[i] = b->position[i] = 0;
    g->stats.prompt_tokens += b->used;
}

static void gather_answers(mb_generator *g)
{
    mb_batch *b = g->batch;

    b->used = b->n_seq = 0;
    for (int64_t i = 0; i < g->n_seq; i++)
        if (is_answering(&g->place[i]))
            join(g, &g->place[i], 1);
    b->tokens = b->used;
}

/* Computes the batch; every place whose tokens are all in the cache then picks one more. */
static mb_status advance(mb_generator *g)
{
    const mb_batch *b = g->batch;
    mb_tensor rows = mb_tensor_1d(g->row, MB_DTYPE_I32, 0), logits;
    struct place *ready[MB_GENERATOR_SEQ_MAX];
    int64_t n = 0;

    for (int64_t i = 0; i < b->n_seq; i++) {
        struct place *s = g->in[i];

        s->cached += b->len[i];
        if (s->cached == s->n) {
            g->row[n] = b->start[i] + b->len[i] - 1;
            ready[n++] = s;
        }
    }
    if (n == 0)
        g->row[0] = 0; /* a plan has the head in it: one row for nobody */
    rows = mb_tensor_1d(g->row, MB_DTYPE_I32, n > 0 ? n : 1);
    MB_TRY(mb_engine_logits(g->engine, b, &rows, &logits));
    for (int64_t i = 0; i < n; i++)
        MB_TRY(pick(g, ready[i], mb_row(&logits, i)));
    return MB_OK;
}

/* ---- the run ------------------------------------------------------------------------------ */

static int64_t common_prefix(const struct place *s, const mb_prompt *p)
{
    int64_t n = 0;

    while (n < s->cached && n < p->n - 1 && s->id[n] == p->id[n])
        n++;
    return n;
}

/* The free place that has computed most of the prompt; NULL: none is free. */
static struct place *find_place(mb_generator *g, const mb_prompt *p)
{
    struct place *best = NULL;

    for (int64_t i = 0; i < g->n_seq; i++) {
        struct place *s = &g->place[i];

        if (s->prompt < 0 && (best == NULL || common_prefix(s, p) > common_prefix(best, p)))
            best = s;
    }
    return best;
}

static mb_status start(mb_generator *g, struct place *s, int64_t number)
{
    const mb_prompt *p = &g->prompt[number];
    const int64_t most = g->capacity - p->n, n = g->o->max_new_tokens;

    s->cached = g->o->keep ? common_prefix(s, p) : 0;
    g->stats.kept_tokens += s->cached;
    memcpy(s->id, p->id, (size_t)p->n * sizeof(int32_t));
    s->n = s->n_prompt = p->n;
    s->prompt = number;
    return mb_telling_begin(&s->telling, s->detokenizer, p->id[p->n - 1], n < most ? n : most);
}

static mb_status fill_places(mb_generator *g)
{
    while (g->next < g->n_prompts) {
        struct place *s = find_place(g, &g->prompt[g->next]);

        if (s == NULL)
            return MB_OK;
        MB_TRY(start(g, s, g->next));
        g->next++;
    }
    return MB_OK;
}

static mb_status cancel(mb_generator *g)
{
    for (int64_t i = 0; i < g->n_seq; i++)
        if (g->place[i].prompt >= 0)
            MB_TRY(finish(g, &g->place[i], MB_FINISH_CANCELLED));
    g->next = g->n_prompts;
    return MB_OK;
}

static bool any(const mb_generator *g, bool (*is)(const struct place *))
{
    for (int64_t i = 0; i < g->n_seq; i++)
        if (is(&g->place[i]))
            return true;
    return false;
}

static mb_status run(mb_generator *g)
{
    for (;;) {
        MB_TRY(fill_places(g));
        const double before = mb_clock();
        const bool reading = any(g, is_reading);

        if (!reading && !any(g, is_answering))
            return MB_OK;
        if (g->o->cancel != NULL && *g->o->cancel != 0) {
            MB_TRY(cancel(g));
            continue;
        }
        if (reading)
            gather_prompts(g);
        else
            gather_answers(g);
        MB_TRY(advance(g));
        *(reading ? &g->stats.prompt_seconds : &g->stats.answer_seconds) += mb_clock() - before;
    }
}

static mb_status check(const mb_generator *g, const mb_prompt *p, int64_t n,
                       const mb_generate_options *o)
{
    MB_TRY(mb_pick_check(&o->pick));
    MB_REQUIRE(o->max_new_tokens >= 1, MB_EARG, "max_new_tokens is %lld; it must be 1 or more",
               (long long)o->max_new_tokens);
    for (int64_t i = 0; i < o->n_stop; i++)
        MB_REQUIRE(o->stop[i][0] != '\0', MB_EARG, "stop: an empty text ends nothing");
    for (int64_t i = 0; i < n; i++) {
        MB_REQUIRE(p[i].n >= 1, MB_EDATA, "prompt %lld is empty: there is nothing to continue",
                   (long long)(i + 1));
        MB_REQUIRE(
            p[i].n < g->capacity, MB_EDATA,
            "prompt %lld has %lld tokens; with an answer at most %lld fit (max_length, or the "
            "model's positions)",
            (long long)(i + 1), (long long)p[i].n, (long long)g->capacity);
        for (int64_t j = 0; j < p[i].n; j++)
            MB_REQUIRE(p[i].id[j] >= 0 && p[i].id[j] < g->vocab, MB_EDATA,
                       "prompt %lld: token %d is not among the model's %lld", (long long)(i + 1),
                       p[i].id[j], (long long)g->vocab);
    }
    return MB_OK;
}

mb_status mb_generator_run(mb_generator *g, const mb_prompt *prompt, int64_t n,
                           const mb_generate_options *o)
{
    mb_status st;

    MB_TRY(check(g, prompt, n, o));
    g->prompt = prompt;
    g->n_prompts = n;
    g->next = 0;
    g->o = o;
    g->stats = (mb_generator_stats){0};
    g->stop = (mb_stop_texts){o->stop, o->n_stop};
    st = run(g);
    for (int64_t i = 0; i < g->n_seq; i++) {
        g->place[i].prompt = -1;
        if (st != MB_OK)
            g->place[i].cached = 0;
    }
    return st;
}
