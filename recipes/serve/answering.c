/* recipes/serve/answering.c - see recipes/serve/answering.h: asking, and the end.
 *
 * After mb_answering_go everything but `open` and the tickets belongs to the scheduler's thread, until
 * the last ask has ended and the submitter has let go: then whoever is last sends and frees.
 */
#include "recipes/serve/answering.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "core/alloc.h"
#include "core/log.h"
#include "recipes/serve/answering_inside.h"

/* ---- made and freed ----------------------------------------------------------------------- */

static uint64_t draw(void)
{
    uint64_t x = 0;

    if (getrandom(&x, sizeof x, 0) != (ssize_t)sizeof x)
        x = (uint64_t)(mb_clock() * 1e9);
    return x;
}

mb_status mb_answering_new(mb_api *a, mb_offer *o, bool chat, const mb_params *p,
                           mb_answering **out)
{
    mb_answering *g;

    MB_TRY(MB_NEW(&g));
    pthread_mutex_init(&g->lock, NULL);
    g->api = a;
    g->offer = o;
    g->p = *p;
    g->chat = chat;
    g->top = chat ? (p->want_logprobs ? (int)p->top_logprobs : -1) : (int)p->logprobs;
    if (!p->has_seed)
        g->p.seed = (int64_t)draw();
    g->created = time(NULL);
    snprintf(g->id, sizeof g->id, "%s-%016llx", chat ? "chatcmpl" : "cmpl",
             (unsigned long long)draw());
    *out = g;
    return MB_OK;
}

static void forget_logprobs(struct logprobs *lp)
{
    for (int i = 0; i < 4; i++)
        mb_bytes_release(&lp->list[i]);
}

static void forget_choice(struct choice *c)
{
    mb_bytes_release(&c->text);
    for (size_t i = 0; i < c->capacity; i++)
        for (int k = 0; k < 3; k++)
            mb_bytes_release(&c->item[i].json[k]);
    mb_free(c->item);
    forget_logprobs(&c->lp);
}

void mb_answering_free(mb_answering *g)
{
    if (g == NULL)
        return;
    for (int64_t i = 0; i < g->n_asked; i++) {
        mb_ids_release(&g->asked[i].ids);
        mb_free(g->asked[i].text);
        forget_logprobs(&g->asked[i].lp);
    }
    for (int64_t i = 0; i < g->n_choices; i++)
        forget_choice(&g->choice[i]);
    for (int64_t i = 0; i < g->n_stop; i++)
        mb_free(g->stop[i]);
    pthread_mutex_destroy(&g->lock);
    mb_free(g->asked);
    mb_free(g->choice);
    mb_free(g->bias);
    mb_free(g->user);
    mb_free(g);
}

/* ---- the end ------------------------------------------------------------------------------ */

static void send_failure(mb_answering *g)
{
    mb_bytes text = {0}, event = {0};
    const int status = g->fault.status != 0 ? g->fault.status : g->failed == MB_EARG ? 400 : 500;
    mb_status st = mb_api_error_text(&text, status, g->fault.code, g->fault.param, g->sentence);

    if (!g->begun) {
        mb_http_reply_send(g->reply, status, "application/json", text.p, st == MB_OK ? text.n : 0);
    } else {
        if (st == MB_OK)
            st = mb_bytes_puts(&event, "data: ");
        if (st == MB_OK)
            st = mb_bytes_add(&event, text.p, text.n);
        if (st == MB_OK)
            st = mb_bytes_puts(&event, "\n\n");
        if (st == MB_OK)
            mb_http_reply_write(g->reply, event.p, event.n);
        mb_http_reply_end(g->reply);
    }
    mb_bytes_release(&text);
    mb_bytes_release(&event);
}

static mb_status send_end(mb_answering *g)
{
    mb_bytes out = {0};
    mb_status st = MB_OK;

    if (!g->p.stream) {
        st = mb_answering_whole(g, &out);
        if (st == MB_OK)
            mb_http_reply_send(g->reply, 200, "application/json", out.p, out.n);
    } else {
        if (g->include_usage)
            st = mb_answering_usage_chunk(g, &out);
        if (st == MB_OK)
            st = mb_bytes_puts(&out, "data: [DONE]\n\n");
        if (st == MB_OK) {
            mb_answering_begin_stream(g);
            mb_http_reply_write(g->reply, out.p, out.n);
            mb_http_reply_end(g->reply);
        }
    }
    mb_bytes_release(&out);
    return st;
}

static bool is_cancelled(const mb_answering *g)
{
    for (int64_t i = 0; i < g->n_choices; i++)
        if (g->choice[i].finish == MB_FINISH_CANCELLED || !g->choice[i].ended)
            return true;
    return false;
}

/* Whoever is last: sends the end and frees. */
static void let_go(mb_answering *g)
{
    bool last;

    pthread_mutex_lock(&g->lock);
    last = --g->open == 0;
    pthread_mutex_unlock(&g->lock);
    if (!last)
        return;
    mb_api_count(g->api, g->chat ? "chat" : "completions", g->usage.prompt_tokens,
                 g->usage.answer_tokens);
    if (g->failed != MB_OK) {
        send_failure(g);
    } else if (g->broken || is_cancelled(g)) {
        mb_http_reply_drop(g->reply);
    } else if (send_end(g) != MB_OK) {
        mb_status_clear();
        mb_http_reply_drop(g->reply);
    }
    mb_answering_free(g);
}

static void on_end(void *arg, const mb_ask_usage *u, const char *failure)
{
    struct asked *a = arg;
    mb_answering *g = a->g;

    g->usage.prompt_tokens += u->prompt_tokens;
    g->usage.answer_tokens += u->answer_tokens;
    g->usage.cached_tokens += u->cached_tokens;
    g->usage.prompt_seconds += u->prompt_seconds;
    g->usage.answer_seconds += u->answer_seconds;
    if (failure != NULL) {
        mb_log_warn("%s: %s", g->offer->id, failure);
        mb_answering_fail(g, MB_EBUG, failure);
    }
    let_go(g);
}

/* ---- asking ------------------------------------------------------------------------------- */

static mb_ask ask_of(const mb_answering *g, struct asked *a, int64_t number)
{
    const mb_offer *o = g->offer;
    const int64_t room = o->context - (int64_t)a->ids.n;
    const bool greedy = g->p.temperature == 0.0 || g->p.top_p == 0.0;

    mb_ask ask = {.model = o->number,
                  .client = g->client,
                  .prompt = a->ids.id,
                  .n_prompt = (int64_t)a->ids.n,
                  .n = g->p.n,
                  .max_new = g->p.max_tokens < 0 || g->p.max_tokens > room ? room : g->p.max_tokens,
                  .pick = {.sample = !greedy,
                           .temperature = greedy ? 1.0 : g->p.temperature,
                           .top_k = g->p.top_k,
                           .top_p = greedy ? 1.0 : g->p.top_p,
                           .repetition_penalty = g->p.repetition_penalty,
                           .frequency_penalty = g->p.frequency_penalty,
                           .presence_penalty = g->p.presence_penalty,
                           .seed = (uint64_t)g->p.seed},
                  .sample = (uint64_t)(number * g->p.n),
                  .end = o->writer.end.id,
                  .n_end = (int64_t)o->writer.end.n,
                  .stop = (const char *const *)g->stop,
                  .n_stop = g->n_stop,
                  .bias = g->bias,
                  .n_bias = g->n_bias,
                  .top_logprobs = g->top,
                  .prompt_logprobs = g->p.echo ? g->top : -1,
                  .arg = a,
                  .on_end = on_end};

    mb_answering_hear(g, &ask);
    return ask;
}

static void refuse_full(mb_answering *g, const mb_submitted *s)
{
    char seconds[24];

    snprintf(seconds, sizeof seconds, "%.0f", fmax(1.0, ceil(s->retry_after)));
    mb_http_reply_add(g->reply, "Retry-After", seconds);
    mb_fault_set(&g->fault, 429, "rate_limit_exceeded", NULL);
    mb_answering_fail(g, MB_EARG, "too many requests wait: come again");
}

/* All prompts or none; then g->failed says why. */
static void submit(mb_answering *g)
{
    mb_submitted done = {0};
    mb_ask *ask = NULL;
    mb_status st = MB_NEW_ARRAY(&ask, g->n_asked);

    for (int64_t i = 0; i < g->n_asked && st == MB_OK; i++)
        ask[i] = ask_of(g, &g->asked[i], i);
    g->open = 1 + (int)g->n_asked;
    if (st == MB_OK)
        st = mb_scheduler_submit_all(mb_api_scheduler(g->api), ask, g->n_asked, &done);
    mb_free(ask);
    if (st == MB_OK && !done.full) {
        for (int64_t i = 0; i < g->n_asked; i++)
            atomic_store(&g->asked[i].ticket, done.ticket + (mb_ticket)i);
        return;
    }
    g->open = 1; /* nobody else has it */
    if (st == MB_OK) {
        refuse_full(g, &done);
        return;
    }
    mb_answering_fail(g, st == MB_EDATA ? MB_EARG : st, mb_status_sentence());
    mb_status_clear();
}

static mb_status make_choices(mb_answering *g)
{
    g->n_choices = g->n_asked * g->p.n;
    MB_TRY(MB_NEW_ARRAY(&g->choice, g->n_choices));
    for (int64_t i = 0; i < g->n_choices; i++)
        mb_json_rule_begin(&g->choice[i].rule);
    for (int64_t i = 0; i < g->n_asked; i++) {
        g->asked[i].g = g;
        g->asked[i].first = i * g->p.n;
    }
    return MB_OK;
}

mb_status mb_answering_go(mb_answering *g, mb_http_request *q)
{
    const char *peer = mb_http_peer(q);
    mb_status st = make_choices(g);

    g->client = mb_bytes_hash(peer, strlen(peer));
    if (g->user != NULL)
        g->client ^= mb_bytes_hash(g->user, strlen(g->user));
    if (st == MB_OK)
        st = mb_http_add(q, "Cache-Control", "no-store");
    if (st == MB_OK)
        st = mb_http_later(q, &g->reply);
    if (st != MB_OK) {
        mb_answering_free(g);
        return st;
    }
    submit(g);
    let_go(g);
    return MB_OK;
}
