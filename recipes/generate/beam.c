/* recipes/generate/beam.c - see recipes/generate/beam.h. Scores are f32, as transformers' are. */
#include "recipes/generate/beam.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"

#define NONE (-1e9f)

/* A sequence: open or finished. */
struct answer {
    int32_t *id;
    int64_t n, parent;
    float score;
    bool finished;
};

/* A continuation: beam, token, sum of log-probabilities. */
struct candidate {
    int64_t beam;
    int32_t id;
    float score;
    bool ends;
};

struct mb_beam {
    mb_beam_options o;
    const mb_rules *rules;
    int64_t vocab, capacity, most, n_prompt, n; /* n: tokens of every open beam */
    int64_t running;                            /* 1 before the first step */
    bool improvable, stuck;                     /* a better answer is possible; nothing goes on */
    struct answer *open, *next;                 /* (beams) */
    struct answer *done, *merged;               /* (beams), best first */
    struct candidate *best;                     /* (keep) */
    int64_t keep;
    float *score; /* (vocab) of a beam */
    uint8_t *seen;
    int32_t *ids; /* of all sequences */
};

mb_status mb_beam_new(const mb_beam_options *o, const mb_rules *rules, int64_t vocab, int64_t most,
                      mb_beam **out)
{
    const int64_t ends = (int64_t)rules->end.n;
    mb_beam *b;
    mb_status st = MB_OK;

    MB_REQUIRE(o->beams >= 1 && o->beams <= 64, MB_EARG, "num_beams is %lld; 1 to 64 are possible",
               (long long)o->beams);
    MB_TRY(MB_NEW(&b));
    b->o = *o;
    b->rules = rules;
    b->vocab = vocab;
    b->capacity = most;
    b->keep = (1 + ends > 2 ? 1 + ends : 2) * o->beams;
    if (b->keep > vocab)
        b->keep = vocab; /* of the only beam that there is at the start */
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->open, 4 * o->beams), st, fail);
    b->next = b->open + o->beams;
    b->done = b->next + o->beams;
    b->merged = b->done + o->beams;
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->best, b->keep), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->score, vocab), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->seen, vocab), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&b->ids, 4 * o->beams * most), st, fail);
    for (int64_t i = 0; i < 4 * o->beams; i++)
        b->open[i].id = b->ids + i * most;
    *out = b;
    return MB_OK;
fail:
    mb_beam_free(b);
    return st;
}

void mb_beam_free(mb_beam *b)
{
    if (b == NULL)
        return;
    struct answer *first = b->open;
    for (int i = 0; i < 3; i++) { /* they take turns: the array begins with the lowest */
        struct answer *other = i == 0 ? b->next : i == 1 ? b->done : b->merged;
        first = other != NULL && other < first ? other : first;
    }
    mb_free(first);
    mb_free(b->best);
    mb_free(b->score);
    mb_free(b->seen);
    mb_free(b->ids);
    mb_free(b);
}

void mb_beam_start(mb_beam *b, const int32_t *prompt, int64_t n, int64_t most)
{
    b->most = most < b->capacity ? most : b->capacity;
    b->n = b->n_prompt = n;
    b->running = 1;
    b->improvable = true;
    b->stuck = false;
    for (int64_t j = 0; j < b->o.beams; j++) {
        memcpy(b->open[j].id, prompt, (size_t)n * sizeof *prompt);
        b->open[j].n = n;
        b->open[j].score = 0.0f;
        b->open[j].parent = 0;
        b->done[j].n = 0;
        b->done[j].score = NONE;
        b->done[j].finished = false;
    }
}

static bool all_finished(const mb_beam *b)
{
    for (int64_t j = 0; j < b->o.beams; j++)
        if (!b->done[j].finished)
            return false;
    return true;
}

bool mb_beam_is_done(const mb_beam *b)
{
    return b->n >= b->most || !b->improvable || b->stuck ||
           (b->o.early == MB_EARLY_YES && all_finished(b));
}

int64_t mb_beam_running(const mb_beam *b)
{
    return b->running;
}

const int32_t *mb_beam_ids(const mb_beam *b, int64_t j, int64_t *n)
{
    *n = b->open[j].n;
    return b->open[j].id;
}

int64_t mb_beam_parent(const mb_beam *b, int64_t j)
{
    return b->open[j].parent;
}

/* Log-probabilities of what follows beam j, as the rules want them. */
static void score_beam(mb_beam *b, int64_t j, const float *logits)
{
    float top = -INFINITY;
    double sum = 0.0;

    for (int64_t i = 0; i < b->vocab; i++)
        top = logits[i] > top ? logits[i] : top;
    for (int64_t i = 0; i < b->vocab; i++)
        sum += exp((double)logits[i] - (double)top);
    const float norm = (float)log(sum);
    for (int64_t i = 0; i < b->vocab; i++)
        b->score[i] = (logits[i] - top) - norm;
    mb_rules_apply(b->rules, b->open[j].id, b->n, b->n_prompt, b->most, b->score, b->vocab,
                   b->seen);
}

/* Puts c among the n best, which are in order; equal scores keep the order of coming. */
static int64_t insert(struct candidate *best, int64_t n, int64_t most, struct candidate c)
{
    int64_t at = n < most ? n : most - 1;

    if (n == most && !(c.score > best[most - 1].score))
        return n;
    for (; at > 0 && c.score > best[at - 1].score; at--)
        best[at] = best[at - 1];
    best[at] = c;
    return n < most ? n + 1 : n;
}

static int64_t best_continuations(mb_beam *b, const float *const *logits)
{
    int64_t n = 0;

    for (int64_t j = 0; j < b->running; j++) {
        score_beam(b, j, logits[j]);
        for (int64_t i = 0; i < b->vocab; i++)
            n = insert(b->best, n, b->keep,
                       (struct candidate){j, (int32_t)i, b->score[i] + b->open[j].score, false});
    }
    for (int64_t i = 0; i < n; i++)
        b->best[i].ends = mb_rules_ends(b->rules, b->best[i].id) || b->n + 1 >= b->most;
    return n;
}

static void extend(const mb_beam *b, struct answer *to, const struct candidate *c)
{
    memcpy(to->id, b->open[c->beam].id, (size_t)b->n * sizeof *to->id);
    to->id[b->n] = c->id;
    to->n = b->n + 1;
    to->parent = c->beam;
    to->score = c->score;
}

static void copy_answer(struct answer *to, const struct answer *from)
{
    memcpy(to->id, from->id, (size_t)from->n * sizeof *to->id);
    to->n = from->n;
    to->score = from->score;
    to->finished = from->finished;
}

/* The finished ones and what has just been finished, best first. */
static void finish(mb_beam *b, int64_t n)
{
    const bool closed = (b->o.early == MB_EARLY_YES && all_finished(b)) || !b->improvable;
    const float length = (float)pow((double)(b->n + 1 - b->n_prompt), b->o.length_penalty);
    int64_t old = 0, fresh = 0;

    for (int64_t j = 0; j < b->o.beams; j++) {
        for (; fresh < n && fresh < b->o.beams && (closed || !b->best[fresh].ends); fresh++) {
        }
        const bool have = fresh < n && fresh < b->o.beams;
        const float score = have ? b->best[fresh].score / length : NONE;
        /* among equals the earlier one stays in front */
        if (have && score > b->done[old].score) {
            extend(b, &b->merged[j], &b->best[fresh++]);
            b->merged[j].score = score;
            b->merged[j].finished = true;
        } else {
            copy_answer(&b->merged[j], &b->done[old++]);
        }
    }
    struct answer *swap = b->done;
    b->done = b->merged;
    b->merged = swap;
}

/* The best that do not end, in their order. */
static void go_on(mb_beam *b, int64_t n)
{
    int64_t j = 0;

    for (int pass = 0; pass < 2; pass++) /* those that end only where there are no others */
        for (int64_t i = 0; i < n && j < b->o.beams; i++)
            if (b->best[i].ends == (pass == 1)) {
                extend(b, &b->next[j], &b->best[i]);
                b->next[j++].score += pass == 1 ? NONE : 0.0f;
            }
    struct answer *swap = b->open;
    b->open = b->next;
    b->next = swap;
    b->running = j;
}

static bool may_improve(const mb_beam *b)
{
    const int64_t at = b->o.early == MB_EARLY_NEVER && b->o.length_penalty > 0.0 ? b->most : b->n;
    const float length = (float)pow((double)(at - b->n_prompt), b->o.length_penalty);
    float worst = INFINITY;

    for (int64_t j = 0; j < b->o.beams; j++)
        worst = fminf(worst, b->done[j].finished ? b->done[j].score : NONE);
    if (!all_finished(b))
        worst = NONE;
    return b->open[0].score / length > worst;
}

void mb_beam_step(mb_beam *b, const float *const *logits)
{
    const int64_t n = best_continuations(b, logits);

    b->stuck = true;
    for (int64_t i = 0; i < n; i++)
        b->stuck = b->stuck && b->best[i].ends;
    finish(b, n);
    go_on(b, n);
    b->n++;
    b->improvable = b->improvable && may_improve(b);
}

const int32_t *mb_beam_answer(const mb_beam *b, int64_t i, int64_t *n, double *score)
{
    if (i >= b->o.beams || b->done[i].n == 0)
        return NULL;
    *n = b->done[i].n;
    *score = (double)b->done[i].score;
    return b->done[i].id;
}
