/* recipes/serve/answering_heard.c - what the scheduler's thread calls back while an answer is made: tokens,
 * texts and ends become pieces of streams or are kept.
 */
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/generate/ends.h"
#include "recipes/serve/answering_inside.h"

/* ---- failing, hanging up ------------------------------------------------------------------ */

static void cancel_all(mb_answering *g)
{
    for (int64_t i = 0; i < g->n_asked; i++) {
        const mb_ticket t = atomic_load(&g->asked[i].ticket);

        if (t != 0)
            mb_scheduler_cancel(mb_api_scheduler(g->api), t);
    }
}

void mb_answering_fail(mb_answering *g, mb_status st, const char *sentence)
{
    pthread_mutex_lock(&g->lock);
    if (g->failed == MB_OK) {
        g->failed = st;
        snprintf(g->sentence, sizeof g->sentence, "%s", sentence);
    }
    pthread_mutex_unlock(&g->lock);
}

/* What a callback could not do. */
static void check(mb_answering *g, mb_status st)
{
    if (st == MB_OK)
        return;
    mb_answering_fail(g, st, mb_status_sentence());
    mb_status_clear();
    g->broken = true;
    cancel_all(g);
}

static bool listens(mb_answering *g)
{
    if (!g->broken && mb_http_reply_gone(g->reply))
        g->broken = true;
    if (g->broken)
        cancel_all(g); /* again: a ticket may not have been known the last time */
    return !g->broken;
}

/* ---- streams ------------------------------------------------------------------------------ */

void mb_answering_begin_stream(mb_answering *g)
{
    if (!g->begun)
        mb_http_reply_begin(g->reply, 200, "text/event-stream");
    g->begun = true;
}

static mb_status add_chunk(mb_answering *g, int64_t i, const char *text, size_t n,
                           const char *finish, mb_bytes *out)
{
    struct choice *c = &g->choice[i];

    if (!c->begun && g->chat) {
        const int64_t held = c->lp.n; /* tokens go with text */
        mb_status st;

        c->lp.n = 0;
        st = mb_answering_chunk(g, i, "", 0, NULL, true, out);
        c->lp.n = held;
        MB_TRY(st);
    }
    c->begun = true;
    return mb_answering_chunk(g, i, text, n, finish, false, out);
}

/* Sends chunks, if there are any, and releases them. */
static mb_status send_all(mb_answering *g, mb_bytes *chunks, mb_status st)
{
    if (st == MB_OK && chunks->n > 0) {
        mb_answering_begin_stream(g);
        mb_http_reply_write(g->reply, chunks->p, chunks->n);
    }
    mb_bytes_release(chunks);
    return st;
}

static mb_status send_chunk(mb_answering *g, int64_t i, const char *text, size_t n,
                            const char *finish)
{
    mb_bytes out = {0};

    return send_all(g, &out, add_chunk(g, i, text, n, finish, &out));
}

static mb_status tell(mb_answering *g, int64_t i, const char *text, size_t n)
{
    if (g->p.stream)
        return send_chunk(g, i, text, n, NULL);
    MB_TRY(mb_answering_count(g, n, 1));
    return mb_bytes_add(&g->choice[i].text, text, n);
}

/* ---- callbacks ---------------------------------------------------------------------------- */

static int64_t characters(const char *p, size_t n)
{
    int64_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)p[i] & 0xc0) != 0x80;
    return count;
}

/* The oldest of the tokens that wait goes to the lists. */
static mb_status keep_first(mb_answering *g, struct choice *c)
{
    struct item *it = &c->item[c->first];
    const int64_t of = (c - g->choice) / g->p.n;

    if (!g->p.stream)
        MB_TRY(mb_answering_count(g, it->json[0].n + it->json[1].n + it->json[2].n, 1));
    MB_TRY(mb_answering_keep(g, &c->lp, g->asked[of].lp.characters, it));
    if (++c->first == c->n_items)
        c->first = c->n_items = 0;
    return MB_OK;
}

static mb_status keep_told(mb_answering *g, struct choice *c, bool all, bool begun)
{
    while (c->first < c->n_items && (all || c->item[c->first].end <= c->told ||
                                     (begun && c->item[c->first].begin < c->told)))
        MB_TRY(keep_first(g, c));
    return MB_OK;
}

static mb_status push_item(mb_answering *g, struct choice *c, const mb_said *t, const char *p,
                           size_t n)
{
    struct item *it;

    MB_TRY(mb_grow((void **)&c->item, &c->capacity, c->n_items + 1, sizeof *c->item, "logprobs"));
    it = &c->item[c->n_items];
    for (int k = 0; k < 3; k++)
        it->json[k].n = 0;
    it->begin = c->said;
    it->end = c->said + n;
    it->characters = characters(p, n);
    MB_TRY(mb_answering_token_json(g, t, it->json));
    c->n_items++;
    return MB_OK;
}

/* A prompt's token belongs to each of its choices, but is kept once. */
static mb_status prompt_token(struct asked *a, const mb_said *t)
{
    mb_answering *g = a->g;
    struct item it = {0};
    size_t n;
    const char *p = mb_vocab_bytes_of(g->offer->pieces, t->token.id, &n);
    mb_status st;

    it.characters = characters(p, n);
    st = mb_answering_token_json(g, t, it.json);
    if (st == MB_OK)
        st = mb_answering_count(g, it.json[0].n + it.json[1].n + it.json[2].n, g->p.n);
    if (st == MB_OK)
        st = mb_answering_keep(g, &a->lp, 0, &it);
    for (int k = 0; k < 3; k++)
        mb_bytes_release(&it.json[k]);
    return st;
}

static mb_status answer_token(struct asked *a, const mb_said *t)
{
    mb_answering *g = a->g;
    struct choice *c = &g->choice[a->first + t->choice];
    size_t n;
    const char *p = mb_vocab_bytes_of(g->offer->pieces, t->token.id, &n);

    if (g->tokens++ == 0)
        g->first_token = mb_clock();
    if (t->ends && g->chat)
        return MB_OK; /* the old lists have a place for every token that was counted */
    if (g->json)
        mb_json_rule_take(&c->rule, p, n);
    if (g->top >= 0)
        MB_TRY(push_item(g, c, t, p, n));
    c->said += n;
    return MB_OK;
}

static void on_token(void *arg, const mb_said *t)
{
    struct asked *a = arg;

    if (!listens(a->g))
        return;
    check(a->g, t->choice < 0 ? (a->g->p.echo && a->g->top >= 0 ? prompt_token(a, t) : MB_OK)
                              : answer_token(a, t));
}

static mb_status take_text(mb_answering *g, int64_t i, const char *text, size_t n)
{
    struct choice *c = &g->choice[i];

    c->told += n;
    if (g->top >= 0)
        MB_TRY(keep_told(g, c, false, false));
    return tell(g, i, text, n);
}

/* With echo the prompt is a text like any other, in front. All choices get it at once: the client cannot
 * have read that of one before the next is written. */
static mb_status give_back(mb_answering *g, const struct asked *a)
{
    mb_bytes out = {0};
    mb_status st = MB_OK;

    for (int64_t k = a->first; k < a->first + g->p.n && st == MB_OK && g->p.echo; k++) {
        const size_t n = strlen(a->text);

        if (g->choice[k].begun)
            continue;
        st = mb_answering_count(g, n, 1);
        if (st == MB_OK)
            st = g->p.stream ? add_chunk(g, k, a->text, n, NULL, &out)
                             : mb_bytes_add(&g->choice[k].text, a->text, n);
        g->choice[k].begun = true;
    }
    return send_all(g, &out, st);
}

static void on_text(void *arg, int64_t choice, const char *text, size_t n)
{
    struct asked *a = arg;
    mb_answering *g = a->g;

    if (!listens(g))
        return;
    check(g, give_back(g, a));
    check(g, take_text(g, a->first + choice, text, n));
}

static void on_finish(void *arg, int64_t choice, mb_finish why)
{
    struct asked *a = arg;
    mb_answering *g = a->g;
    struct choice *c = &g->choice[a->first + choice];

    c->finish = why;
    c->ended = true;
    if (why == MB_FINISH_CANCELLED || !listens(g))
        return;
    check(g, give_back(g, a));
    if (g->top >= 0)
        check(g, keep_told(g, c, why != MB_FINISH_STOP, true));
    if (g->p.stream)
        check(g, send_chunk(g, a->first + choice, "", 0, mb_answering_finish(why)));
}

static bool may(void *arg, int64_t choice, int32_t id)
{
    const struct asked *a = arg;
    const mb_answering *g = a->g;
    mb_json_rule next = g->choice[a->first + choice].rule;
    const char *p;
    size_t n;

    if (mb_is_end(g->offer->writer.end.id, (int64_t)g->offer->writer.end.n, id))
        return mb_json_rule_complete(&next);
    p = mb_vocab_bytes_of(g->offer->pieces, id, &n);
    return n > 0 && mb_json_rule_take(&next, p, n);
}

static bool gone(void *arg)
{
    const struct asked *a = arg;

    return mb_http_reply_gone(a->g->reply);
}

void mb_answering_hear(const struct mb_answering *g, mb_ask *ask)
{
    ask->may = g->json ? may : NULL;
    ask->gone = gone;
    ask->on_token = on_token;
    ask->on_text = on_text;
    ask->on_finish = on_finish;
}
