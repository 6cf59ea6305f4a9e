/* recipes/serve/scheduler.c - asking, waiting, and the thread that answers. */
#include "recipes/serve/scheduler.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/serve/scheduler_inside.h"

enum { MOST_CHOICES = 128, MOST_STOPS = 64, LEAST_READ_ROWS = 32 };

mb_status mb_scheduler_new(const mb_scheduler_options *o, mb_scheduler **out)
{
    const int64_t least = o->n_seq + LEAST_READ_ROWS;
    mb_scheduler *s;

    MB_REQUIRE(o->n_seq >= 1 && o->n_seq <= 4096, MB_EARG,
               "%lld sequences at a time; 1 to 4096 are possible", (long long)o->n_seq);
    MB_REQUIRE(o->queue >= 1 && o->queue <= 1 << 20, MB_EARG,
               "a queue of %lld asks; 1 to %d are possible", (long long)o->queue, 1 << 20);
    MB_TRY(MB_NEW(&s));
    s->o = *o;
    s->o.chunk = o->chunk > 0 ? o->chunk : MB_SCHEDULER_CHUNK;
    s->o.chunk = s->o.chunk < least ? least : s->o.chunk;
    s->waiting_end = &s->waiting;
    s->calls_end = &s->calls;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->done, NULL);
    *out = s;
    return MB_OK;
}

/* ---- asking ------------------------------------------------------------------------------- */

static mb_status check_prompt(const mb_served_model *m, const mb_ask *a)
{
    const int64_t most = m->m.context - (a->max_new > 0);

    MB_REQUIRE(a->n_prompt >= 1, MB_EDATA, "the prompt is empty: there is nothing to continue");
    MB_REQUIRE(a->n_prompt <= most, MB_EDATA,
               "the prompt has %lld tokens; the context of %lld has room for %lld",
               (long long)a->n_prompt, (long long)m->m.context, (long long)most);
    for (int64_t i = 0; i < a->n_prompt; i++)
        MB_REQUIRE(a->prompt[i] >= 0 && a->prompt[i] < m->vocab, MB_EDATA,
                   "the prompt's token %d is not among the model's %lld", a->prompt[i],
                   (long long)m->vocab);
    return MB_OK;
}

static mb_status check(const mb_scheduler *s, const mb_ask *a)
{
    MB_REQUIRE(a->model >= 0 && a->model < s->n_models && a->on_end != NULL, MB_EBUG,
               "an ask of model %d of %d", a->model, s->n_models);
    MB_TRY(check_prompt(&s->model[a->model], a));
    MB_TRY(mb_pick_check(&a->pick));
    MB_REQUIRE(a->n >= 1 && a->n <= MOST_CHOICES, MB_EARG, "%lld choices; 1 to %d are possible",
               (long long)a->n, MOST_CHOICES);
    MB_REQUIRE(a->max_new >= 0, MB_EARG, "at most %lld new tokens; it must be 0 or more",
               (long long)a->max_new);
    MB_REQUIRE(a->n_stop >= 0 && a->n_stop <= MOST_STOPS, MB_EARG,
               "%lld stop texts; at most %d are possible", (long long)a->n_stop, MOST_STOPS);
    for (int64_t i = 0; i < a->n_stop; i++)
        MB_REQUIRE(a->stop[i][0] != '\0', MB_EARG, "stop: an empty text ends nothing");
    for (int64_t i = 0; i < a->n_bias; i++)
        MB_REQUIRE(a->bias[i].id >= 0 && a->bias[i].id < s->model[a->model].vocab &&
                       isfinite(a->bias[i].bias),
                   MB_EARG, "a bias of %g for token %d; the model has %lld",
                   (double)a->bias[i].bias, a->bias[i].id, (long long)s->model[a->model].vocab);
    MB_REQUIRE(a->top_logprobs >= -1 && a->top_logprobs <= MB_TOP_LOGPROBS &&
                   a->prompt_logprobs >= -1 && a->prompt_logprobs <= MB_TOP_LOGPROBS,
               MB_EARG, "log-probabilities of %d and %d tokens; at most %d are told",
               a->top_logprobs, a->prompt_logprobs, MB_TOP_LOGPROBS);
    return MB_OK;
}

static void *take(char **at, const void *from, size_t n)
{
    void *to = *at;

    if (n > 0)
        memcpy(to, from, n);
    *at += (n + 7) / 8 * 8;
    return to;
}

/* All lists of an ask in one block. */
static mb_status copy(const mb_ask *a, mb_open_ask **out)
{
    const size_t stops = (size_t)a->n_stop * sizeof(char *);
    size_t bytes = stops + (size_t)(a->n_prompt + a->n_end) * sizeof(int32_t) +
                   (size_t)a->n_bias * sizeof *a->bias + 64;
    mb_open_ask *x;
    char *at;
    mb_status st;

    for (int64_t i = 0; i < a->n_stop; i++)
        bytes += strlen(a->stop[i]) + 1 + 8;
    MB_TRY(MB_NEW(&x));
    st = mb_alloc(bytes, "an ask", &x->memory);
    if (st != MB_OK) {
        mb_free(x);
        return st;
    }
    at = x->memory;
    x->a = *a;
    const char **stop = take(&at, a->stop, stops);
    x->a.stop = stop;
    x->a.prompt = take(&at, a->prompt, (size_t)a->n_prompt * sizeof *a->prompt);
    x->a.end = take(&at, a->end, (size_t)a->n_end * sizeof *a->end);
    x->a.bias = take(&at, a->bias, (size_t)a->n_bias * sizeof *a->bias);
    for (int64_t i = 0; i < a->n_stop; i++)
        stop[i] = take(&at, a->stop[i], strlen(a->stop[i]) + 1);
    x->stop = (mb_stop_texts){stop, a->n_stop};
    x->asked = mb_clock();
    *out = x;
    return MB_OK;
}

/* When about one more of those that wait will have begun. */
static double retry_after(const mb_scheduler *s)
{
    const mb_scheduler_stats *t = &s->shown;
    const double each =
        t->ended > 0 ? (t->prompt_seconds + t->answer_seconds) / (double)t->ended : 1.0;
    const double wait = each * (double)s->n_waiting / 2.0;

    return wait < 1.0 ? 1.0 : wait > 60.0 ? 60.0 : wait;
}

static void forget_copies(mb_open_ask *first)
{
    for (mb_open_ask *x = first, *next; x != NULL; x = next) {
        next = x->next_waiting;
        mb_free(x->memory);
        mb_free(x);
    }
}

/* A chain of copies by next_waiting; *first is NULL after a failure. */
static mb_status copy_all(const mb_scheduler *s, const mb_ask *a, int64_t n, mb_open_ask **first)
{
    mb_open_ask **end = first;
    mb_status st = MB_OK;

    *first = NULL;
    for (int64_t i = 0; i < n && st == MB_OK; i++) {
        st = check(s, &a[i]);
        if (st == MB_OK)
            st = copy(&a[i], end);
        if (st == MB_OK)
            end = &(*end)->next_waiting;
    }
    if (st != MB_OK) {
        *end = NULL;
        forget_copies(*first);
        *first = NULL;
    }
    return st;
}

/* The chain goes to those that wait. With the lock held. */
static void take_chain(mb_scheduler *s, mb_open_ask *first, mb_submitted *out)
{
    out->ticket = s->tickets + 1;
    *s->waiting_end = first;
    for (mb_open_ask *x = first; x != NULL; x = x->next_waiting) {
        x->ticket = ++s->tickets;
        x->next_open = s->open;
        s->open = x;
        s->waiting_end = &x->next_waiting;
        s->n_waiting++;
        s->asks++;
    }
    pthread_cond_signal(&s->work);
}

mb_status mb_scheduler_submit_all(mb_scheduler *s, const mb_ask *a, int64_t n, mb_submitted *out)
{
    mb_open_ask *first;
    bool ends;

    MB_REQUIRE(n >= 1, MB_EBUG, "no ask is submitted");
    MB_TRY(copy_all(s, a, n, &first));
    pthread_mutex_lock(&s->lock);
    ends = s->ends || !s->started;
    *out = (mb_submitted){.full = s->n_waiting > 0 && s->n_waiting + n > s->o.queue};
    if (!ends && !out->full) {
        take_chain(s, first, out);
        first = NULL;
    } else {
        out->retry_after = retry_after(s);
        s->refused += ends ? 0 : n;
    }
    pthread_mutex_unlock(&s->lock);
    forget_copies(first);
    MB_REQUIRE(!ends, MB_EPEER, "the server is closing");
    return MB_OK;
}

mb_status mb_scheduler_submit(mb_scheduler *s, const mb_ask *a, mb_submitted *out)
{
    return mb_scheduler_submit_all(s, a, 1, out);
}

void mb_scheduler_cancel(mb_scheduler *s, mb_ticket t)
{
    pthread_mutex_lock(&s->lock);
    for (mb_open_ask *a = s->open; a != NULL; a = a->next_open)
        if (a->ticket == t) {
            atomic_store(&a->cancelled, true);
            s->any_cancelled = true;
            pthread_cond_signal(&s->work);
        }
    pthread_mutex_unlock(&s->lock);
}

mb_status mb_scheduler_call(mb_scheduler *s, mb_status (*fn)(void *arg), void *arg)
{
    mb_waiting_call c = {.fn = fn, .arg = arg, .st = MB_EPEER};

    pthread_mutex_lock(&s->lock);
    if (!s->ends && s->started) {
        *s->calls_end = &c;
        s->calls_end = &c.next;
        pthread_cond_signal(&s->work);
        while (!c.done)
            pthread_cond_wait(&s->done, &s->lock);
    } else {
        snprintf(c.sentence, sizeof c.sentence, "the server is closing");
    }
    pthread_mutex_unlock(&s->lock);
    if (c.st != MB_OK)
        mb_status_set(c.st, c.sentence);
    return c.st;
}

mb_scheduler_stats mb_scheduler_read(mb_scheduler *s)
{
    mb_scheduler_stats t;

    pthread_mutex_lock(&s->lock);
    t = s->shown;
    t.n_seq = s->o.n_seq;
    t.queue = s->o.queue;
    t.waiting = s->n_waiting;
    t.asks = s->asks;
    t.refused = s->refused;
    pthread_mutex_unlock(&s->lock);
    return t;
}

/* ---- the thread: who is next -------------------------------------------------------------- */

static int64_t at_work_for(const mb_scheduler *s, uint64_t client)
{
    int64_t n = 0;

    for (int64_t i = 0; i < s->n_order; i++)
        n += s->order[i]->ask->a.client == client;
    return n;
}

/* The first of those whose clients have the fewest sequences at work; where it is linked from. A second
 * choice waits until the first has read the prompt. */
static mb_open_ask **next_ask(mb_scheduler *s)
{
    mb_open_ask **best = NULL;
    int64_t least = 0;

    for (mb_open_ask **at = &s->waiting; *at != NULL; at = &(*at)->next_waiting) {
        const mb_open_ask *a = *at;
        const int64_t n = at_work_for(s, a->a.client);

        if (atomic_load(&a->cancelled) || (a->begun > 0 && !a->read && !s->o.compute_anew))
            continue;
        if (best == NULL || n < least) {
            best = at;
            least = n;
        }
        if (least == 0)
            break;
    }
    return best;
}

static void unlink_waiting(mb_scheduler *s, mb_open_ask **at)
{
    mb_open_ask *a = *at;

    *at = a->next_waiting;
    if (s->waiting_end == &a->next_waiting)
        s->waiting_end = at;
}

static mb_place *free_place(mb_scheduler *s)
{
    for (int64_t i = 0; i < s->o.n_seq; i++)
        if (s->place[i].ask == NULL)
            return &s->place[i];
    return NULL;
}

/* A choice that waits gets a free place; false when none waits, or there is no place or no room. */
static bool admit(mb_scheduler *s)
{
    mb_place *p = free_place(s);
    mb_open_ask **at, *a = NULL;
    int64_t choice = 0;

    if (p == NULL)
        return false;
    pthread_mutex_lock(&s->lock);
    at = next_ask(s);
    if (at != NULL && mb_scheduler_fits(s, &(*at)->a)) {
        a = *at;
        s->n_waiting -= a->begun == 0;
        choice = a->begun++;
        if (a->begun == a->a.n)
            unlink_waiting(s, at);
    }
    pthread_mutex_unlock(&s->lock);
    if (a != NULL)
        mb_place_begin(s, p, a, choice);
    return a != NULL;
}

/* ---- the thread: ends --------------------------------------------------------------------- */

/* The choices of a cancelled ask that have not begun. */
static void end_unbegun(mb_scheduler *s, mb_open_ask *a)
{
    while (a->begun < a->a.n) {
        const int64_t choice = a->begun++;

        if (a->a.on_finish != NULL && a->failure == NULL)
            a->a.on_finish(a->a.arg, choice, MB_FINISH_CANCELLED);
        a->ended++;
    }
}

static mb_open_ask *cancelled_waiting(mb_scheduler *s)
{
    mb_open_ask **at, *a;

    pthread_mutex_lock(&s->lock);
    for (at = &s->waiting; *at != NULL && !atomic_load(&(*at)->cancelled);
         at = &(*at)->next_waiting)
        ;
    a = *at;
    if (a != NULL) {
        unlink_waiting(s, at);
        s->n_waiting -= a->begun == 0;
    }
    pthread_mutex_unlock(&s->lock);
    return a;
}

static void end_cancelled(mb_scheduler *s)
{
    mb_open_ask *a;

    while ((a = cancelled_waiting(s)) != NULL) {
        end_unbegun(s, a);
        if (a->ended == a->a.n)
            mb_ask_end(s, a);
    }
    for (int64_t i = s->n_order - 1; i >= 0; i--) /* one that leaves moves those behind it */
        if (atomic_load(&s->order[i]->ask->cancelled))
            mb_place_finish(s, s->order[i], MB_FINISH_CANCELLED);
}

/* ---- the thread --------------------------------------------------------------------------- */

void mb_scheduler_show(mb_scheduler *s)
{
    s->stats.running = s->n_order;
    s->stats.blocks = s->stats.used = s->stats.kept = 0;
    for (int i = 0; i < s->n_pools; i++) {
        s->stats.blocks += mb_blocks_count(s->pool[i].blocks);
        s->stats.used += mb_blocks_held(s->pool[i].blocks);
        s->stats.kept += mb_blocks_known(s->pool[i].blocks);
    }
    s->shown = s->stats;
}

/* One waiting call, if there is any. */
static void make_call(mb_scheduler *s)
{
    mb_waiting_call *c;

    pthread_mutex_lock(&s->lock);
    c = s->calls;
    if (c != NULL) {
        s->calls = c->next;
        if (s->calls == NULL)
            s->calls_end = &s->calls;
    }
    pthread_mutex_unlock(&s->lock);
    if (c == NULL)
        return;
    c->st = c->fn(c->arg);
    if (c->st != MB_OK)
        snprintf(c->sentence, sizeof c->sentence, "%s", mb_status_sentence());
    mb_status_clear();
    pthread_mutex_lock(&s->lock);
    c->done = true;
    pthread_cond_broadcast(&s->done);
    pthread_mutex_unlock(&s->lock);
}

/* Asks nobody waits for are cancelled. With the lock held. */
static void note_gone(mb_scheduler *s)
{
    for (mb_open_ask *a = s->open; a != NULL; a = a->next_open)
        if (a->a.gone != NULL && !atomic_load(&a->cancelled) && a->a.gone(a->a.arg)) {
            atomic_store(&a->cancelled, true);
            s->any_cancelled = true;
        }
}

/* Notes who is gone; has anybody to end? With the lock held. */
static bool look(mb_scheduler *s)
{
    bool cancelled;

    note_gone(s);
    for (mb_open_ask *a = s->open; a != NULL && s->ends; a = a->next_open)
        atomic_store(&a->cancelled, true);
    cancelled = s->any_cancelled || s->ends;
    s->any_cancelled = false;
    return cancelled;
}

/* Waits until there is something to do; false at the end. */
static bool wait_for_work(mb_scheduler *s, bool *cancelled)
{
    bool ends;

    pthread_mutex_lock(&s->lock);
    mb_scheduler_show(s);
    while (!s->ends && s->waiting == NULL && s->calls == NULL && s->n_order == 0)
        pthread_cond_wait(&s->work, &s->lock);
    ends = s->ends;
    *cancelled = look(s);
    pthread_mutex_unlock(&s->lock);
    return !ends;
}

/* Who is gone leaves, who waits is taken. */
static void change_places(mb_scheduler *s, bool cancelled)
{
    if (cancelled)
        end_cancelled(s);
    while (admit(s))
        ;
}

/* A forward of the next model that has something to do. */
static void advance(mb_scheduler *s)
{
    bool ran = false;

    for (int i = 0; i < s->n_models && !ran; i++) {
        s->turn = (s->turn + 1) % s->n_models;
        mb_scheduler_step(s, s->turn, &ran);
    }
}

void mb_scheduler_let_others(mb_scheduler *s)
{
    bool cancelled, ends;

    pthread_mutex_lock(&s->lock);
    mb_scheduler_show(s);
    ends = s->ends;
    cancelled = look(s);
    pthread_mutex_unlock(&s->lock);
    if (ends) /* run() ends what is open once the call has come back */
        return;
    change_places(s, cancelled);
    advance(s);
}

static void refuse_calls(mb_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    for (mb_waiting_call *c = s->calls, *next; c != NULL; c = next) {
        next = c->next;
        snprintf(c->sentence, sizeof c->sentence, "the server is closing");
        c->done = true;
    }
    s->calls = NULL;
    pthread_cond_broadcast(&s->done);
    pthread_mutex_unlock(&s->lock);
}

static void *run(void *arg)
{
    mb_scheduler *s = arg;
    bool cancelled;

    while (wait_for_work(s, &cancelled)) {
        change_places(s, cancelled);
        make_call(s);
        advance(s);
    }
    end_cancelled(s);
    refuse_calls(s);
    return NULL;
}

mb_status mb_scheduler_start(mb_scheduler *s)
{
    MB_REQUIRE(!s->started, MB_EBUG, "a scheduler is started twice");
    MB_TRY(mb_scheduler_take_places(s));
    s->started = true;
    if (pthread_create(&s->thread, NULL, run, s) != 0) {
        s->started = false;
        return MB_RAISE(MB_ENOMEM, "no thread could be started to answer with");
    }
    return MB_OK;
}

void mb_scheduler_free(mb_scheduler *s)
{
    if (s == NULL)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->ends = true;
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    mb_scheduler_release(s);
    pthread_cond_destroy(&s->done);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    mb_free(s);
}
