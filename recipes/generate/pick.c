/* recipes/generate/pick.c - see recipes/generate/pick.h.
 *
 * What stays is kept in a heap with the worst at its root: the k best of a vocabulary are found
 * without sorting it, and taking roots off one by one sorts the rest best-first.
 */
#include "recipes/generate/pick.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "core/rng.h"

struct candidate {
    float score;
    int32_t id;
};

struct mb_picker {
    int64_t vocab;
    float *score;            /* (vocab) */
    struct candidate *stays; /* (vocab) */
    double *weight;          /* (vocab) e^(score - best) of stays */
    uint32_t *seen, now;     /* (vocab) seen[id] == now: penalised in this call */
};

mb_status mb_picker_new(int64_t vocab, mb_picker **out)
{
    mb_picker *p;
    mb_status st;

    MB_REQUIRE(vocab > 0 && vocab <= INT32_MAX, MB_EARG, "a vocabulary of %lld tokens",
               (long long)vocab);
    MB_TRY(MB_NEW(&p));
    p->vocab = vocab;
    MB_TRY_GOTO(MB_NEW_ARRAY(&p->score, vocab), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&p->stays, vocab), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&p->weight, vocab), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&p->seen, vocab), st, fail);
    *out = p;
    return MB_OK;
fail:
    mb_picker_free(p);
    return st;
}

void mb_picker_free(mb_picker *p)
{
    if (p == NULL)
        return;
    mb_free(p->score);
    mb_free(p->stays);
    mb_free(p->weight);
    mb_free(p->seen);
    mb_free(p);
}

mb_status mb_pick_check(const mb_pick_options *o)
{
    MB_REQUIRE(o->temperature > 0.0 && isfinite(o->temperature), MB_EARG,
               "temperature is %g; it must be above 0", o->temperature);
    MB_REQUIRE(o->top_k >= 0, MB_EARG, "top_k is %lld; it must be 0 (all) or more",
               (long long)o->top_k);
    MB_REQUIRE(o->top_p > 0.0 && o->top_p <= 1.0, MB_EARG,
               "top_p is %g; it must be above 0 and at most 1", o->top_p);
    MB_REQUIRE(o->repetition_penalty > 0.0 && isfinite(o->repetition_penalty), MB_EARG,
               "repetition_penalty is %g; it must be above 0", o->repetition_penalty);
    MB_REQUIRE(isfinite(o->frequency_penalty) && isfinite(o->presence_penalty), MB_EARG,
               "frequency_penalty is %g and presence_penalty %g; they must be numbers",
               o->frequency_penalty, o->presence_penalty);
    return MB_OK;
}

/* A fresh mark in `seen`. */
static void forget(mb_picker *p)
{
    if (++p->now == 0) { /* 2^32 calls */
        memset(p->seen, 0, (size_t)p->vocab * sizeof p->seen[0]);
        p->now = 1;
    }
}

static void penalise_frequent(mb_picker *p, const mb_pick_options *o, const mb_pick_place *at)
{
    const float frequency = (float)o->frequency_penalty, presence = (float)o->presence_penalty;

    forget(p);
    for (int64_t i = at->n_prompt; i < at->n; i++) {
        const int32_t id = at->id[i];

        if (id < 0 || id >= p->vocab)
            continue;
        p->score[id] -= p->seen[id] == p->now ? frequency : frequency + presence;
        p->seen[id] = p->now;
    }
}

static void penalise(mb_picker *p, const mb_pick_options *o, const mb_pick_place *at)
{
    const float r = (float)o->repetition_penalty;

    forget(p);
    for (int64_t i = 0; i < at->n; i++) {
        const int32_t id = at->id[i];

        if (id < 0 || id >= p->vocab || p->seen[id] == p->now)
            continue;
        p->seen[id] = p->now;
        p->score[id] = p->score[id] > 0.0f ? p->score[id] / r : p->score[id] * r;
    }
}

static int32_t largest(const float *x, int64_t n)
{
    int64_t best = 0;

    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return (int32_t)best;
}

/* ---- the heap ----------------------------------------------------------------------------- */

static bool worse(const struct candidate *a, const struct candidate *b)
{
    return a->score < b->score || (a->score == b->score && a->id > b->id);
}

static void sift_down(struct candidate *c, int64_t at, int64_t n)
{
    for (;;) {
        int64_t worst = at;

        for (int64_t child = 2 * at + 1; child <= 2 * at + 2 && child < n; child++)
            if (worse(&c[child], &c[worst]))
                worst = child;
        if (worst == at)
            return;
        const struct candidate swapped = c[at];
        c[at] = c[worst];
        c[worst] = swapped;
        at = worst;
    }
}

static void make_heap(struct candidate *c, int64_t n)
{
    for (int64_t i = n / 2 - 1; i >= 0; i--)
        sift_down(c, i, n);
}

/* A heap becomes a list, best first. */
static void sort_heap(struct candidate *c, int64_t n)
{
    for (int64_t last = n - 1; last > 0; last--) {
        const struct candidate worst = c[0];
        c[0] = c[last];
        c[last] = worst;
        sift_down(c, 0, last);
    }
}

/* ---- what stays --------------------------------------------------------------------------- */

static int64_t take_all(mb_picker *p)
{
    for (int64_t i = 0; i < p->vocab; i++)
        p->stays[i] = (struct candidate){p->score[i], (int32_t)i};
    return p->vocab;
}

/* The k best, best first. */
static int64_t take_top_k(mb_picker *p, int64_t k)
{
    struct candidate *c = p->stays;

    for (int64_t i = 0; i < k; i++)
        c[i] = (struct candidate){p->score[i], (int32_t)i};
    make_heap(c, k);
    for (int64_t i = k; i < p->vocab; i++) {
        const struct candidate x = {p->score[i], (int32_t)i};

        if (worse(&c[0], &x)) {
            c[0] = x;
            sift_down(c, 0, k);
        }
    }
    sort_heap(c, k);
    return k;
}

/* weight[i] = e^((score - best) / t); returns their sum. */
static double weigh(mb_picker *p, int64_t n, double temperature)
{
    double best = -INFINITY, sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        best = (double)p->stays[i].score > best ? (double)p->stays[i].score : best;
    for (int64_t i = 0; i < n; i++) {
        p->weight[i] = exp(((double)p->stays[i].score - best) / temperature);
        sum += p->weight[i];
    }
    return sum;
}

/* Before sorting a whole vocabulary: n tokens of at most (1 - p) / n each cannot reach 1 - p
 * together, so top_p would drop every one of them. Returns what they hold. */
static double drop_small(mb_picker *p, int64_t *n, double sum, double top_p)
{
    const double limit = (1.0 - top_p) / (double)*n * sum;
    double dropped = 0.0;
    int64_t stay = 0;

    for (int64_t i = 0; i < *n; i++) {
        if (p->weight[i] <= limit)
            dropped += p->weight[i];
        else
            p->stays[stay++] = p->stays[i];
    }
    *n = stay;
    return dropped;
}

static int64_t take_top_p(mb_picker *p, const mb_pick_options *o, int64_t n, bool sorted)
{
    double sum = weigh(p, n, o->temperature), tail = 0.0;

    if (!sorted) {
        tail = drop_small(p, &n, sum, o->top_p);
        make_heap(p->stays, n);
        sort_heap(p->stays, n);
        (void)weigh(p, n, o->temperature);
    }
    for (; n > 1; n--) {
        tail += p->weight[n - 1];
        if (tail > (1.0 - o->top_p) * sum)
            break;
    }
    return n;
}

static int32_t draw(const mb_picker *p, const mb_pick_options *o, const mb_pick_place *at,
                    int64_t n, double sum)
{
    const uint64_t key = mb_rng_key(o->seed, MB_SITE_SAMPLING, at->sample);
    double left = mb_rng_double(key, at->token) * sum;
    int64_t chosen = 0;

    for (int64_t i = 0; i < n; i++) {
        if (p->weight[i] <= 0.0)
            continue;
        chosen = i;
        left -= p->weight[i];
        if (left < 0.0)
            break;
    }
    return p->stays[chosen].id;
}

mb_status mb_pick(mb_picker *p, const mb_pick_options *o, const mb_pick_place *at,
                  const float *logits, int32_t *out)
{
    const int64_t k = o->top_k > 0 && o->top_k < p->vocab ? o->top_k : 0;
    int64_t n;

    for (int64_t i = 0; i < p->vocab; i++)
        MB_REQUIRE(isfinite(logits[i]) || logits[i] == -INFINITY, MB_ENUM,
                   "the model's logits are not finite: that of token %lld is %g", (long long)i,
                   (double)logits[i]);
    memcpy(p->score, logits, (size_t)p->vocab * sizeof(float));
    if (o->repetition_penalty != 1.0)
        penalise(p, o, at);
    if (o->frequency_penalty != 0.0 || o->presence_penalty != 0.0)
        penalise_frequent(p, o, at);
    if (!o->sample || k == 1) {
        *out = largest(p->score, p->vocab);
        return MB_OK;
    }
    n = k > 0 ? take_top_k(p, k) : take_all(p);
    if (o->top_p < 1.0)
        n = take_top_p(p, o, n, k > 0);
    *out = draw(p, o, at, n, weigh(p, n, o->temperature));
    return MB_OK;
}
