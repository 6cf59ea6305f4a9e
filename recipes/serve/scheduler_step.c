/* recipes/serve/scheduler_step.c - one forward: who gets blocks and rows, and what comes of it. */
#include <stdio.h>
#include <string.h>

#include "recipes/serve/scheduler_inside.h"

static int64_t blocks_for(int64_t tokens)
{
    return (tokens + MB_BLOCK_TOKENS - 1) / MB_BLOCK_TOKENS;
}

static const mb_pool *pool_of(const mb_scheduler *s, const mb_place *p)
{
    return &s->pool[s->model[p->ask->a.model].pool];
}

static int64_t available(const mb_pool *p)
{
    return mb_blocks_count(p->blocks) - mb_blocks_held(p->blocks);
}

/* ---- blocks ------------------------------------------------------------------------------- */

/* The last first: what comes before is kept for longer. */
static void drop_blocks(const mb_scheduler *s, mb_place *p)
{
    while (p->n_blocks > 0)
        mb_blocks_drop(pool_of(s, p)->blocks, p->block[--p->n_blocks]);
    p->cached = p->known = 0;
    p->number = mb_blocks_root(p->ask->a.model);
}

/* Known blocks of its tokens; at least the last token is left to compute. */
static void find_prefix(const mb_scheduler *s, mb_place *p)
{
    mb_blocks *b = pool_of(s, p)->blocks;

    while (!s->o.compute_anew && !p->scores && (p->known + 1) * MB_BLOCK_TOKENS < p->n) {
        const int32_t found =
            mb_blocks_find(b, p->number, p->id + p->known * MB_BLOCK_TOKENS, &p->number);

        if (found < 0)
            return;
        p->block[p->n_blocks++] = found;
        p->cached = ++p->known * MB_BLOCK_TOKENS;
    }
}

static void publish(const mb_scheduler *s, mb_place *p)
{
    mb_blocks *b = pool_of(s, p)->blocks;

    for (; (p->known + 1) * MB_BLOCK_TOKENS <= p->cached && !s->o.compute_anew; p->known++)
        p->block[p->known] = mb_blocks_publish(b, p->block[p->known], p->number,
                                               p->id + p->known * MB_BLOCK_TOKENS, &p->number);
}

/* The youngest place behind number `at` of the order that holds blocks of this pool gives them up. */
static bool take_from_younger(mb_scheduler *s, int64_t at)
{
    for (int64_t i = s->n_order - 1; i > at; i--) {
        mb_place *p = s->order[i];

        if (p->n_blocks == 0 || pool_of(s, p) != pool_of(s, s->order[at]))
            continue;
        drop_blocks(s, p);
        p->stalled = true;
        s->stats.preempted++;
        return true;
    }
    return false;
}

/* Blocks for the next p->piece tokens, or for as many of them as there are. */
static void take_blocks(mb_scheduler *s, int64_t at)
{
    mb_place *p = s->order[at];

    while (p->n_blocks * MB_BLOCK_TOKENS < p->cached + p->piece) {
        const int32_t block = mb_blocks_take(pool_of(s, p)->blocks);

        if (block >= 0)
            p->block[p->n_blocks++] = block;
        else if (!take_from_younger(s, at))
            break;
    }
    if (p->cached + p->piece > p->n_blocks * MB_BLOCK_TOKENS)
        p->piece = p->n_blocks * MB_BLOCK_TOKENS - p->cached;
}

/* One that gave up its blocks goes on when it would not have to do so again at once. */
static bool may_go_on(mb_scheduler *s, int64_t at)
{
    mb_place *p = s->order[at];
    bool oldest = true;

    for (int64_t i = 0; i < at; i++)
        oldest = oldest && pool_of(s, s->order[i]) != pool_of(s, p);
    if (!p->stalled)
        return true;
    if (!oldest && available(pool_of(s, p)) < blocks_for(p->n + 1))
        return false;
    p->stalled = false;
    find_prefix(s, p);
    return true;
}

bool mb_scheduler_fits(const mb_scheduler *s, const mb_ask *a)
{
    const mb_pool *pool = &s->pool[s->model[a->model].pool];

    for (int64_t i = 0; i < s->n_order; i++)
        if (s->order[i]->stalled && pool_of(s, s->order[i]) == pool)
            return false;
    return available(pool) >= blocks_for(a->n_prompt + 1) || mb_blocks_held(pool->blocks) == 0;
}

/* ---- places ------------------------------------------------------------------------------- */

void mb_place_begin(mb_scheduler *s, mb_place *p, mb_open_ask *a, int64_t choice)
{
    p->ask = a;
    p->choice = choice;
    p->n = p->n_prompt = a->a.n_prompt;
    memcpy(p->id, a->a.prompt, (size_t)p->n * sizeof *p->id);
    p->n_blocks = p->scored = 0;
    p->stalled = false;
    p->scores = choice == 0 && a->a.prompt_logprobs >= 0;
    s->order[s->n_order++] = p;
    drop_blocks(s, p);
    find_prefix(s, p);
    s->stats.cached_tokens += p->cached;
    if (choice == 0) {
        a->started = mb_clock();
        a->usage.prompt_tokens = p->n;
        a->usage.cached_tokens = p->cached;
    }
    if (mb_place_ready(s, p) != MB_OK) {
        mb_place_fail(s, p);
        return;
    }
    if (p->scores)
        mb_place_score(s, p, NULL); /* nothing comes before the first */
}

void mb_place_leave(mb_scheduler *s, mb_place *p)
{
    int64_t at = 0;

    drop_blocks(s, p);
    p->ask->read = true; /* nobody else will read it for the others */
    p->ask = NULL;
    while (s->order[at] != p)
        at++;
    s->n_order--;
    memmove(s->order + at, s->order + at + 1, (size_t)(s->n_order - at) * sizeof *s->order);
}

/* ---- a forward ---------------------------------------------------------------------------- */

/* Everybody's pieces: one token for those that are answering, for the others what room is left, the
 * oldest first. Returns whether there is any. */
static bool plan(mb_scheduler *s, int model)
{
    int64_t room = s->o.chunk, score_room = MB_SCORE_ROWS;
    bool any = false;

    for (int64_t i = 0; i < s->n_order; i++) {
        const mb_place *p = s->order[i];
        room -= p->ask->a.model == model && p->n - p->cached == 1;
    }
    for (int64_t i = 0; i < s->n_order; i++) {
        mb_place *p = s->order[i];
        const bool single = p->n - p->cached == 1;

        if (p->ask->a.model != model)
            continue;
        p->piece = 0;
        if (!may_go_on(s, i))
            continue;
        p->piece = p->n - p->cached;
        if (!single && p->piece > room)
            p->piece = room;
        if (p->scores && p->scored < p->n_prompt && p->piece > score_room)
            p->piece = score_room;
        take_blocks(s, i);
        room -= single ? 0 : p->piece;
        score_room -= p->scores && p->scored < p->n_prompt ? p->piece : 0;
        any = any || p->piece > 0;
    }
    return any;
}

/* The place's piece joins the batch, and the rows whose logits are wanted. */
static void join(mb_served_model *m, mb_place *p, int64_t *rows)
{
    mb_batch *b = m->batch;
    const int64_t s = b->n_seq;

    b->start[s] = (int32_t)b->used;
    b->len[s] = (int32_t)p->piece;
    b->k_start[s] = 0;
    b->k_len[s] = (int32_t)(p->cached + p->piece);
    memcpy(m->table + s * m->columns, p->block, (size_t)p->n_blocks * sizeof *p->block);
    for (int64_t i = 0; i < p->piece; i++) {
        const int64_t at = p->cached + i;

        b->ids[b->used + i] = p->id[at];
        b->position[b->used + i] = (int32_t)at;
        if (at + 1 == p->n || (p->scores && at + 1 < p->n_prompt && at + 1 >= p->scored))
            m->row[(*rows)++] = (int32_t)(b->used + i);
    }
    m->in[b->n_seq++] = p;
    b->used += p->piece;
}

static int64_t gather(mb_scheduler *s, int model)
{
    mb_served_model *m = &s->model[model];
    int64_t rows = 0;

    m->batch->used = m->batch->n_seq = 0;
    for (int64_t i = 0; i < s->n_order; i++)
        if (s->order[i]->ask->a.model == model && s->order[i]->piece > 0 &&
            s->order[i]->n_blocks > 0)
            join(m, s->order[i], &rows);
    m->batch->tokens = m->batch->used;
    return rows;
}

/* What comes of a place's piece; its rows of logits begin at `row`. Returns how many there were. */
static int64_t take_results(mb_scheduler *s, mb_place *p, const mb_tensor *logits, int64_t row)
{
    const int64_t first = row;

    p->cached += p->piece;
    publish(s, p);
    while (p->scores && p->scored < p->n_prompt && p->scored <= p->cached)
        mb_place_score(s, p, mb_row(logits, row++));
    if (p->cached < p->n)
        return row - first;
    p->ask->read = true;
    mb_place_pick(s, p, mb_row(logits, row++));
    return row - first;
}

static bool reads(const mb_served_model *m)
{
    for (int64_t i = 0; i < m->batch->n_seq; i++)
        if (m->in[i]->cached < m->in[i]->n_prompt)
            return true;
    return false;
}

static void count(mb_scheduler *s, const mb_served_model *m, bool reading, double seconds)
{
    for (int64_t i = 0; i < m->batch->n_seq; i++) {
        const mb_place *p = m->in[i];
        const int64_t left = p->n_prompt - p->cached;

        if (left > 0)
            s->stats.prompt_tokens += left < p->piece ? left : p->piece;
    }
    s->stats.forwards++;
    s->stats.rows += m->batch->used;
    *(reading ? &s->stats.prompt_seconds : &s->stats.answer_seconds) += seconds;
}

static void fail_all(mb_scheduler *s, const mb_served_model *m)
{
    const mb_status st = mb_status_recorded();
    char sentence[512];

    snprintf(sentence, sizeof sentence, "%s", mb_status_sentence());
    for (int64_t i = 0; i < m->batch->n_seq; i++) {
        mb_status_set(st, sentence);
        mb_place_fail(s, m->in[i]);
    }
}

void mb_scheduler_step(mb_scheduler *s, int model, bool *ran)
{
    mb_served_model *m = &s->model[model];
    const double before = mb_clock();
    mb_tensor logits, list;
    int64_t rows, row = 0;

    *ran = plan(s, model);
    if (!*ran)
        return;
    rows = gather(s, model);
    if (rows == 0)
        m->row[0] = 0; /* a plan has the head in it: one row for nobody */
    list = mb_tensor_1d(m->row, MB_DTYPE_I32, rows > 0 ? rows : 1);
    if (mb_engine_logits(m->m.engine, m->batch, &list, &logits) != MB_OK) {
        fail_all(s, m);
        return;
    }
    count(s, m, reads(m), mb_clock() - before);
    for (int64_t i = 0; i < m->batch->n_seq; i++)
        row += take_results(s, m->in[i], &logits, row);
}
