/* recipes/generate/search.c - see recipes/generate/search.h. */
#include "recipes/generate/search.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/data/collate.h"

/* A prompt on its way: with one beam `id` grows, with more `beam` does. */
struct item {
    mb_beam *beam;
    int32_t *id;
    int64_t n, n_prompt, most, cached;
    int64_t *slot; /* (beams) where the keys of each open beam are */
    bool done;
};

struct mb_search {
    mb_engine *engine;
    mb_search_options o;
    const mb_rules *rules;
    const mb_search_prompt *prompt;
    int64_t n, vocab, slots; /* slots: prompts * beams */
    struct item *item;
    mb_kv_cache cache;
    mb_arena *memory;
    mb_batch *batch, *source; /* source: where each row's source is, once it is cached */
    mb_picker *picker;
    int32_t *row;         /* (slots) whose logits are wanted */
    const float **logits; /* (beams) */
    float *score;         /* (vocab) */
    uint8_t *seen;
    int64_t *moved; /* (2 beams) */
    bool *taken;    /* (beams) */
    int32_t *ids;
    int64_t *slot_of;
    void (*between)(void *arg);
    void *between_arg;
};

/* ---- memory ------------------------------------------------------------------------------- */

static mb_status take(mb_search *s, mb_arena *memory, int64_t rows, mb_tensor *t)
{
    const mb_model_config *c = &s->engine->model->config;
    void *p;

    *t = mb_tensor_2d(NULL, s->engine->model->dtype, rows, c->kv_heads * c->head_dim);
    MB_TRY(mb_arena_take(memory, (size_t)mb_tensor_bytes(t), &p));
    t->data = p;
    return MB_OK;
}

static mb_status take_cache(mb_search *s, mb_arena *memory)
{
    mb_kv_cache *c = &s->cache;

    for (int64_t l = 0; l < c->layers; l++) {
        MB_TRY(take(s, memory, c->n_seq * c->capacity, &c->k[l]));
        MB_TRY(take(s, memory, c->n_seq * c->capacity, &c->v[l]));
        if (c->source_rows == 0)
            continue;
        MB_TRY(take(s, memory, c->source_rows, &c->source_k[l]));
        MB_TRY(take(s, memory, c->source_rows, &c->source_v[l]));
    }
    return MB_OK;
}

static mb_status make_cache(mb_search *s, const mb_batch *source)
{
    const mb_model_config *c = &s->engine->model->config;
    mb_kv_cache *k = &s->cache;
    mb_arena *counting = NULL;
    mb_status st;

    *k = (mb_kv_cache){.layers = c->dec_layers > 0 ? c->dec_layers : c->layers,
                       .capacity = s->o.capacity,
                       .n_seq = s->slots,
                       .source_rows = source != NULL ? source->tokens : 0};
    MB_TRY(MB_NEW_ARRAY(&k->k, 4 * k->layers));
    k->v = k->k + k->layers;
    k->source_k = k->v + k->layers;
    k->source_v = k->source_k + k->layers;
    MB_TRY(mb_arena_new("keys and values", SIZE_MAX, &counting));
    st = take_cache(s, counting);
    const size_t bytes = mb_arena_peak(counting);
    mb_arena_free(counting);
    MB_TRY(st);
    MB_TRY(mb_device_arena(s->engine->device, "keys and values", bytes + 4096, &s->memory));
    return take_cache(s, s->memory);
}

static mb_status make_items(mb_search *s)
{
    const int64_t n = s->o.prompts, beams = s->o.beam.beams;

    MB_TRY(MB_NEW_ARRAY(&s->item, n));
    MB_TRY(MB_NEW_ARRAY(&s->ids, n * s->o.capacity));
    MB_TRY(MB_NEW_ARRAY(&s->slot_of, s->slots));
    for (int64_t i = 0; i < n; i++) {
        s->item[i].id = s->ids + i * s->o.capacity;
        s->item[i].slot = s->slot_of + i * beams;
    }
    MB_TRY(MB_NEW_ARRAY(&s->row, s->slots));
    MB_TRY(MB_NEW_ARRAY(&s->logits, beams));
    MB_TRY(MB_NEW_ARRAY(&s->moved, 2 * beams));
    MB_TRY(MB_NEW_ARRAY(&s->taken, beams));
    MB_TRY(MB_NEW_ARRAY(&s->score, s->vocab));
    MB_TRY(MB_NEW_ARRAY(&s->seen, s->vocab));
    return mb_picker_new(s->vocab, &s->picker);
}

/* Two kinds of forwards: prompts with their sources, then a row per beam. Without sources they are
 * one. */
static mb_status plan(mb_search *s, mb_batch *source)
{
    const int64_t rows = s->o.prompt_rows > s->slots ? s->o.prompt_rows : s->slots;
    mb_batch *b = s->batch;

    b->cache = &s->cache;
    b->max_len = s->o.capacity;
    if (source == NULL) {
        b->n_seq = s->slots;
        return mb_engine_plan_logits(s->engine, b, rows, s->slots);
    }
    b->n_seq = s->o.prompts;
    b->source = source;
    b->source_cached = false;
    MB_TRY(mb_engine_plan_logits(s->engine, b, s->o.prompt_rows, s->o.prompts));
    b->n_seq = s->slots;
    b->source = s->source;
    b->source_cached = true;
    return mb_engine_plan_logits(s->engine, b, s->slots, s->slots);
}

static mb_status build(mb_search *s, mb_batch *source)
{
    const int64_t rows = s->o.prompt_rows > s->slots ? s->o.prompt_rows : s->slots;

    MB_TRY(make_items(s));
    MB_TRY(make_cache(s, source));
    MB_TRY(mb_batch_new(rows, s->slots, &s->batch));
    if (source != NULL) {
        MB_TRY(mb_batch_new(1, s->slots, &s->source));
        s->source->max_len = source->max_len;
    }
    return plan(s, source);
}

mb_status mb_search_new(mb_engine *e, const mb_search_options *o, mb_batch *source, mb_search **out)
{
    mb_search *s;
    mb_status st;

    MB_REQUIRE(o->answers >= 1 && o->answers <= o->beam.beams, MB_EARG,
               "%lld answers of %lld beams were asked for", (long long)o->answers,
               (long long)o->beam.beams);
    MB_REQUIRE(o->capacity >= 2 && o->capacity <= e->model->max_positions, MB_EARG,
               "answers of %lld tokens were asked for; the model has %lld positions",
               (long long)o->capacity, (long long)e->model->max_positions);
    MB_TRY(mb_pick_check(&o->pick));
    MB_TRY(MB_NEW(&s));
    s->engine = e;
    s->o = *o;
    s->slots = o->prompts * o->beam.beams;
    s->vocab = e->model->config.vocab;
    st = build(s, source);
    if (st != MB_OK) {
        mb_search_free(s);
        return st;
    }
    *out = s;
    return MB_OK;
}

void mb_search_free(mb_search *s)
{
    if (s == NULL)
        return;
    for (int64_t i = 0; s->item != NULL && i < s->o.prompts; i++)
        mb_beam_free(s->item[i].beam);
    mb_free(s->item);
    mb_free(s->ids);
    mb_free(s->slot_of);
    mb_free(s->cache.k);
    mb_arena_free(s->memory);
    mb_free(s->row);
    mb_free(s->logits);
    mb_free(s->moved);
    mb_free(s->taken);
    mb_free(s->score);
    mb_free(s->seen);
    mb_picker_free(s->picker);
    mb_batch_free(s->batch);
    mb_batch_free(s->source);
    mb_free(s);
}

/* ---- the next token ----------------------------------------------------------------------- */

static bool is_search(const mb_search *s)
{
    return s->o.beam.beams > 1;
}

/* With one beam: the likeliest, or drawn. */
static mb_status pick(mb_search *s, struct item *it, int64_t number, const float *logits)
{
    const mb_pick_place at = {.id = it->id,
                              .n = it->n,
                              .sample = s->prompt[number].sample,
                              .token = (uint64_t)(it->n - it->n_prompt)};
    float least = INFINITY;
    int32_t id;

    memcpy(s->score, logits, (size_t)s->vocab * sizeof *s->score);
    mb_rules_apply(s->rules, it->id, it->n, it->n_prompt, it->most, s->score, s->vocab, s->seen);
    for (int64_t i = 0; i < s->vocab; i++)
        least = isfinite(s->score[i]) && s->score[i] < least ? s->score[i] : least;
    for (int64_t i = 0; i < s->vocab; i++) /* the picker wants numbers: what is forbidden is last */
        if (isinf(s->score[i]) && s->score[i] < 0.0f)
            s->score[i] = (isinf(least) ? 0.0f : least) - 1e30f;
    MB_TRY(mb_pick(s->picker, &s->o.pick, &at, s->score, &id));
    it->id[it->n++] = id;
    it->done = mb_rules_ends(s->rules, id) || it->n >= it->most;
    return MB_OK;
}

/* The rows that slot `from` has of an item's tokens, to slot `to`. */
static mb_status copy_slot(mb_search *s, int64_t from, int64_t to, int64_t rows)
{
    const mb_kv_cache *c = &s->cache;

    for (int64_t l = 0; l < 2 * c->layers; l++) { /* keys, then values */
        mb_tensor a = mb_tensor_rows(&c->k[l], to * c->capacity, rows);
        const mb_tensor b = mb_tensor_rows(&c->k[l], from * c->capacity, rows);
        MB_TRY(MB_RUN(&s->engine->ex, copy, &a, &b));
    }
    return MB_OK;
}

/* The first beam that goes on from another keeps that one's slot; those that split off get slots of
 * beams that nobody goes on from, and a copy. */
static mb_status move(mb_search *s, struct item *it, int64_t number)
{
    const int64_t beams = s->o.beam.beams, first = number * beams;
    int64_t *now = s->moved, free_slot = 0;

    memset(s->taken, 0, (size_t)beams * sizeof *s->taken);
    for (int64_t j = 0; j < mb_beam_running(it->beam); j++) {
        const int64_t old = it->slot[mb_beam_parent(it->beam, j)];

        now[j] = s->taken[old - first] ? -1 : old;
        s->taken[old - first] = true;
    }
    for (int64_t j = 0; j < mb_beam_running(it->beam); j++) {
        if (now[j] >= 0)
            continue;
        while (s->taken[free_slot])
            free_slot++;
        s->taken[free_slot] = true;
        now[j] = first + free_slot;
        MB_TRY(copy_slot(s, it->slot[mb_beam_parent(it->beam, j)], now[j], it->cached));
    }
    memcpy(it->slot, now, (size_t)mb_beam_running(it->beam) * sizeof *now);
    return MB_OK;
}

static int64_t open_beams(const mb_search *s, const struct item *it)
{
    return is_search(s) ? mb_beam_running(it->beam) : 1;
}

/* Logits from row `at` on are those of the item's beams. */
static mb_status advance(mb_search *s, int64_t number, const mb_tensor *logits, int64_t at)
{
    struct item *it = &s->item[number];

    if (!is_search(s))
        return pick(s, it, number, mb_row(logits, at));
    for (int64_t j = 0; j < mb_beam_running(it->beam); j++)
        s->logits[j] = mb_row(logits, at + j);
    mb_beam_step(it->beam, s->logits);
    it->done = mb_beam_is_done(it->beam);
    return it->done ? MB_OK : move(s, it, number);
}

/* ---- forwards ----------------------------------------------------------------------------- */

/* n tokens in `slot`, of which the first comes behind the `cached` that are there. */
static void join(mb_search *s, int64_t slot, const int32_t *id, int64_t n, int64_t cached)
{
    mb_batch *b = s->batch;

    b->start[b->n_seq] = (int32_t)b->used;
    b->len[b->n_seq] = (int32_t)n;
    b->k_start[b->n_seq] = (int32_t)(slot * s->o.capacity);
    b->k_len[b->n_seq] = (int32_t)(cached + n);
    for (int64_t i = 0; i < n; i++) {
        b->ids[b->used + i] = id[i];
        b->position[b->used + i] = (int32_t)(cached + i);
    }
    b->used += n;
    s->row[b->n_seq++] = (int32_t)(b->used - 1);
}

static mb_status forward(mb_search *s, mb_tensor *logits)
{
    mb_batch *b = s->batch;
    const mb_tensor rows = mb_tensor_1d(s->row, MB_DTYPE_I32, b->n_seq);

    b->tokens = b->used;
    return mb_engine_logits(s->engine, b, &rows, logits);
}

static mb_status read_prompts(mb_search *s, mb_batch *source)
{
    mb_batch *b = s->batch;
    mb_tensor logits;

    b->used = b->n_seq = 0;
    b->source = source;
    b->source_cached = false;
    for (int64_t i = 0; i < s->n; i++) {
        join(s, s->item[i].slot[0], s->prompt[i].id, s->prompt[i].n, 0);
        s->item[i].cached = s->prompt[i].n;
    }
    MB_TRY(forward(s, &logits));
    for (int64_t i = 0; i < s->n; i++)
        MB_TRY(advance(s, i, &logits, i));
    return MB_OK;
}

static void join_beams(mb_search *s, const mb_batch *source, int64_t number)
{
    struct item *it = &s->item[number];

    for (int64_t j = 0; j < open_beams(s, it); j++) {
        int64_t n = it->n;
        const int32_t *id = is_search(s) ? mb_beam_ids(it->beam, j, &n) : it->id;

        if (source != NULL) {
            s->source->start[s->batch->n_seq] = source->start[number];
            s->source->len[s->batch->n_seq] = source->len[number];
        }
        join(s, it->slot[j], id + it->cached, n - it->cached, it->cached);
    }
}

/* One more token for every prompt that has not ended; *any: there was one. */
static mb_status next_tokens(mb_search *s, const mb_batch *source, bool *any)
{
    mb_batch *b = s->batch;
    mb_tensor logits;
    int64_t at = 0;

    b->used = b->n_seq = 0;
    for (int64_t i = 0; i < s->n; i++)
        if (!s->item[i].done)
            join_beams(s, source, i);
    *any = b->n_seq > 0;
    if (!*any)
        return MB_OK;
    b->source = source != NULL ? s->source : NULL;
    b->source_cached = source != NULL;
    if (source != NULL)
        s->source->n_seq = b->n_seq;
    MB_TRY(forward(s, &logits));
    for (int64_t i = 0; i < s->n; i++) {
        struct item *it = &s->item[i];
        const int64_t beams = open_beams(s, it);

        if (it->done)
            continue;
        it->cached++;
        MB_TRY(advance(s, i, &logits, at));
        at += beams;
    }
    return MB_OK;
}

/* ---- the run ------------------------------------------------------------------------------ */

static mb_status start(mb_search *s, int64_t i)
{
    const mb_search_prompt *p = &s->prompt[i];
    const int64_t wanted = p->n + s->o.max_new_tokens;
    struct item *it = &s->item[i];

    it->most = wanted < s->o.capacity ? wanted : s->o.capacity;
    it->n = it->n_prompt = p->n;
    it->cached = 0;
    it->done = false;
    it->slot[0] = i * s->o.beam.beams;
    memcpy(it->id, p->id, (size_t)p->n * sizeof *p->id);
    if (!is_search(s))
        return MB_OK;
    mb_beam_free(it->beam); /* its rules are those of an earlier run */
    it->beam = NULL;
    MB_TRY(mb_beam_new(&s->o.beam, s->rules, s->vocab, s->o.capacity, &it->beam));
    mb_beam_start(it->beam, p->id, p->n, it->most);
    return MB_OK;
}

static mb_status check(const mb_search *s, const mb_batch *source)
{
    int64_t rows = 0;

    MB_REQUIRE(s->n <= s->o.prompts, MB_EBUG, "%lld prompts where %lld were planned",
               (long long)s->n, (long long)s->o.prompts);
    for (int64_t i = 0; i < s->n; i++) {
        const mb_search_prompt *p = &s->prompt[i];

        MB_REQUIRE(p->n >= 1 && p->n < s->o.capacity, MB_EDATA,
                   "prompt %lld has %lld tokens; with an answer at most %lld fit",
                   (long long)(i + 1), (long long)p->n, (long long)s->o.capacity);
        for (int64_t j = 0; j < p->n; j++)
            MB_REQUIRE(p->id[j] >= 0 && p->id[j] < s->vocab, MB_EDATA,
                       "prompt %lld: token %d is not among the model's %lld", (long long)(i + 1),
                       p->id[j], (long long)s->vocab);
        rows += p->n;
    }
    MB_REQUIRE(
        rows <= s->o.prompt_rows &&
            (source == NULL || (source->n_seq == s->n && source->tokens <= s->cache.source_rows)),
        MB_EBUG, "prompts of %lld tokens, or their sources, where fewer were planned",
        (long long)rows);
    return MB_OK;
}

static mb_status give_out(mb_search *s, int64_t i, mb_search_fn fn, void *arg)
{
    const struct item *it = &s->item[i];
    double score = 0.0;
    int64_t n;

    if (!is_search(s))
        return fn(arg, i, 0, it->id + it->n_prompt, it->n - it->n_prompt, score);
    for (int64_t k = 0; k < s->o.answers; k++) {
        const int32_t *id = mb_beam_answer(it->beam, k, &n, &score);

        if (id != NULL)
            MB_TRY(fn(arg, i, k, id + it->n_prompt, n - it->n_prompt, score));
    }
    return MB_OK;
}

void mb_search_between(mb_search *s, void (*fn)(void *arg), void *arg)
{
    s->between = fn;
    s->between_arg = arg;
}

mb_status mb_search_run(mb_search *s, mb_batch *source, const mb_search_prompt *prompt, int64_t n,
                        const mb_rules *rules, mb_search_fn fn, void *arg)
{
    bool any = true;

    s->prompt = prompt;
    s->n = n;
    s->rules = rules;
    MB_TRY(check(s, source));
    for (int64_t i = 0; i < n; i++)
        MB_TRY(start(s, i));
    MB_TRY(read_prompts(s, source));
    while (any) {
        if (s->between != NULL)
            s->between(s->between_arg);
        MB_TRY(next_tokens(s, source, &any));
    }
    for (int64_t i = 0; i < n; i++)
        MB_TRY(give_out(s, i, fn, arg));
    return MB_OK;
}
