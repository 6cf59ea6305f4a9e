/* recipes/serve/scheduler_answer.c - a token picked and told, its text, the end of a choice. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/generate/ends.h"
#include "recipes/serve/scheduler_inside.h"

enum { TRIES = 32 };

static const float never = -100.0f; /* a bias of so little */

/* ---- log-probabilities -------------------------------------------------------------------- */

/* log of the sum of e^x. */
static double log_sum(const float *x, int64_t n)
{
    float top = -INFINITY;
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    for (int64_t i = 0; i < n; i++)
        sum += (double)expf(x[i] - top);
    return (double)top + log(sum);
}

/* The k likeliest, best first; equal ones in the order of their ids. */
static void find_top(const float *logits, int64_t n, double sum, mb_token_prob *top, int64_t k)
{
    int64_t have = 0;

    for (int64_t i = 0; i < n && k > 0; i++) {
        int64_t at = have;

        if (have == k && !(logits[i] > top[k - 1].logprob))
            continue;
        while (at > 0 && logits[i] > top[at - 1].logprob)
            at--;
        have += have < k;
        memmove(top + at + 1, top + at, (size_t)(have - 1 - at) * sizeof *top);
        top[at] = (mb_token_prob){(int32_t)i, logits[i]};
    }
    for (int64_t i = 0; i < have; i++)
        top[i].logprob = (float)((double)top[i].logprob - sum);
}

static void tell(const mb_scheduler *s, const mb_place *p, mb_said *said, int wanted,
                 const float *logits)
{
    const mb_open_ask *a = p->ask;
    const int64_t vocab = s->model[a->a.model].vocab;
    mb_token_prob top[MB_TOP_LOGPROBS];

    if (a->a.on_token == NULL)
        return;
    if (wanted >= 0 && logits != NULL) {
        const double sum = log_sum(logits, vocab);

        said->token.logprob = (float)((double)logits[said->token.id] - sum);
        said->n_top = wanted < vocab ? wanted : vocab;
        find_top(logits, vocab, sum, top, said->n_top);
        said->top = top;
    }
    a->a.on_token(a->a.arg, said);
}

void mb_place_score(mb_scheduler *s, mb_place *p, const float *logits)
{
    mb_said said = {.choice = -1, .place = p->scored, .token = {.id = p->id[p->scored]}};

    p->scored++;
    tell(s, p, &said, p->ask->a.prompt_logprobs, logits);
}

/* ---- text --------------------------------------------------------------------------------- */

static bool has_text(const mb_ask *a)
{
    return a->on_text != NULL || a->n_stop > 0;
}

/* What can be told by now; all with stop NULL. */
static void tell_text(mb_place *p, const mb_stop_texts *stop)
{
    const mb_ask *a = &p->ask->a;
    size_t n;
    const char *text = mb_telling_take(&p->telling, stop, &n);

    if (n > 0 && a->on_text != NULL)
        a->on_text(a->arg, p->choice, text, n);
}

mb_status mb_place_ready(mb_scheduler *s, mb_place *p)
{
    const mb_ask *a = &p->ask->a;
    const int64_t most = s->model[a->model].m.context - p->n_prompt;

    if (!has_text(a))
        return MB_OK;
    return mb_telling_begin(&p->telling, p->detokenizer[a->model], p->id[p->n_prompt - 1],
                            a->max_new < most ? a->max_new : most);
}

/* ---- ends --------------------------------------------------------------------------------- */

void mb_ask_end(mb_scheduler *s, mb_open_ask *a)
{
    const double now = mb_clock();
    mb_open_ask **at;

    if (a->started == 0.0)
        a->started = now;
    if (a->first_token == 0.0)
        a->first_token = now;
    a->usage.waited = a->started - a->asked;
    a->usage.prompt_seconds = a->first_token - a->started;
    a->usage.answer_seconds = now - a->first_token;
    s->stats.ended++;
    s->stats.cancelled += atomic_load(&a->cancelled) && a->failure == NULL;
    s->stats.failed += a->failure != NULL;
    pthread_mutex_lock(&s->lock);
    for (at = &s->open; *at != a; at = &(*at)->next_open)
        ;
    *at = a->next_open;
    mb_scheduler_show(s); /* who is told of the end finds it counted */
    pthread_mutex_unlock(&s->lock);
    a->a.on_end(a->a.arg, &a->usage, a->failure);
    mb_free(a->memory);
    mb_free(a);
}

static void count_out(mb_scheduler *s, mb_place *p)
{
    mb_open_ask *a = p->ask;

    mb_place_leave(s, p);
    if (++a->ended == a->a.n)
        mb_ask_end(s, a);
}

void mb_place_finish(mb_scheduler *s, mb_place *p, mb_finish why)
{
    const mb_ask *a = &p->ask->a;

    if (has_text(a)) {
        if (mb_telling_end(&p->telling, why == MB_FINISH_STOP) != MB_OK)
            mb_status_clear(); /* the last character of a text is lost for want of memory */
        tell_text(p, NULL);
    }
    if (a->on_finish != NULL)
        a->on_finish(a->arg, p->choice, why);
    count_out(s, p);
}

void mb_place_fail(mb_scheduler *s, mb_place *p)
{
    mb_open_ask *a = p->ask;

    if (a->failure == NULL) {
        snprintf(a->sentence, sizeof a->sentence, "%s", mb_status_sentence());
        a->failure = a->sentence;
        atomic_store(&a->cancelled, true); /* its other choices end */
        pthread_mutex_lock(&s->lock);
        s->any_cancelled = true;
        pthread_mutex_unlock(&s->lock);
    }
    mb_status_clear();
    count_out(s, p);
}

/* ---- a token ------------------------------------------------------------------------------ */

/* Its text; *stopped: the choice ends with it. */
static mb_status add_token_text(mb_place *p, int32_t id, bool *stopped)
{
    *stopped = false;
    if (!has_text(&p->ask->a))
        return MB_OK;
    MB_TRY(mb_telling_add(&p->telling, id, &p->ask->stop, stopped));
    if (!*stopped)
        tell_text(p, &p->ask->stop);
    return MB_OK;
}

static void accept(mb_scheduler *s, mb_place *p, int32_t id, const float *logits)
{
    const mb_ask *a = &p->ask->a;
    mb_said said = {.choice = p->choice,
                    .place = p->n - p->n_prompt,
                    .token = {.id = id},
                    .ends = mb_is_end(a->end, a->n_end, id)};
    bool stopped;

    if (p->ask->first_token == 0.0)
        p->ask->first_token = mb_clock();
    p->id[p->n++] = id;
    p->ask->usage.answer_tokens++;
    s->stats.answer_tokens++;
    tell(s, p, &said, a->top_logprobs, logits);
    if (said.ends) {
        mb_place_finish(s, p, MB_FINISH_END);
        return;
    }
    if (add_token_text(p, id, &stopped) != MB_OK)
        mb_place_fail(s, p);
    else if (stopped)
        mb_place_finish(s, p, MB_FINISH_STOP);
    else if (p->n - p->n_prompt >= a->max_new)
        mb_place_finish(s, p, MB_FINISH_LENGTH);
    else if (p->n == s->model[a->model].m.context)
        mb_place_finish(s, p, MB_FINISH_CONTEXT);
}

/* ---- picking ------------------------------------------------------------------------------ */

static void forbid_refused(mb_served_model *m, const mb_place *p)
{
    const mb_ask *a = &p->ask->a;

    for (int64_t i = 0; i < m->vocab; i++)
        if (m->score[i] > -INFINITY && !a->may(a->arg, p->choice, (int32_t)i))
            m->score[i] = -INFINITY;
}

/* Tokens that may not come are forbidden: all of them before a draw; for the largest those that would be
 * picked, and all once that has been tried a few times. */
static mb_status pick_allowed(mb_served_model *m, const mb_place *p, const mb_pick_place *at,
                              int32_t *id)
{
    const mb_ask *a = &p->ask->a;
    bool clean = a->may == NULL;

    for (int tries = 0;; tries++) {
        if (!clean && (a->pick.sample || tries == TRIES)) {
            forbid_refused(m, p);
            clean = true;
        }
        MB_TRY(mb_pick(m->picker, &a->pick, at, m->score, id));
        if (m->score[*id] == -INFINITY)
            break;
        if (clean || a->may(a->arg, p->choice, *id))
            return MB_OK;
        m->score[*id] = -INFINITY;
    }
    return MB_RAISE(MB_EDATA, "no token may come next: biases or the wanted format forbid all %lld",
                    (long long)m->vocab);
}

void mb_place_pick(mb_scheduler *s, mb_place *p, const float *logits)
{
    const mb_ask *a = &p->ask->a;
    mb_served_model *m = &s->model[a->model];
    const mb_pick_place at = {.id = p->id,
                              .n = p->n,
                              .n_prompt = p->n_prompt,
                              .sample = a->sample + (uint64_t)p->choice,
                              .token = (uint64_t)(p->n - p->n_prompt)};
    int32_t id;

    if (a->max_new == 0) {
        mb_place_finish(s, p, MB_FINISH_LENGTH);
        return;
    }
    memcpy(m->score, logits, (size_t)m->vocab * sizeof(float));
    for (int64_t i = 0; i < a->n_bias; i++)
        m->score[a->bias[i].id] =
            a->bias[i].bias <= never ? -INFINITY : m->score[a->bias[i].id] + a->bias[i].bias;
    if (pick_allowed(m, p, &at, &id) != MB_OK)
        mb_place_fail(s, p);
    else
        accept(s, p, id, logits);
}
