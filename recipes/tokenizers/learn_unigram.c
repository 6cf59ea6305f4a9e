/* recipes/tokenizers/learn_unigram.c - learning a unigram model (Kudo 2018, arXiv:1804.10959).
 *
 * 1. Seeds: the characters, and the n-grams of 2 to 16 characters within words that occur at least
 *    twice, the best by count times length. They are counted by length: an n-gram can only be
 *    frequent if both its parts one character shorter are, so the tables stay small.
 * 2. Twice EM: expected counts of the pieces over all ways to cut each word (forward, backward),
 *    then scores digamma(count) - digamma(sum), the Bayesian estimate; pieces expected less than
 *    half a time go.
 * 3. Pruning: for each piece, what the likelihood loses if its occurrences in the best cuts are
 *    written with its second-best cut; three quarters of the pieces are kept. 2 and 3 repeat until
 *    there are at most a tenth too many; the best of the last scores stay.
 *
 * Steps 2 and 3 and their constants are those of sentencepiece's trainer. Expected counts are summed
 * as integers (2^-20ths), so that no result depends on how threads share the words.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/learn.h"
#include "recipes/tokenizers/trie.h"

enum { LONGEST = 16, SEEDS = 1000000, EM_ROUNDS = 2, FRACTION_BITS = 20 };
static const double keep_share = 0.75, surplus = 1.1, least_expected = 0.5, unknown_penalty = 10;

struct piece {
    size_t at; /* in text */
    uint32_t n;
    bool single; /* a character: never dropped */
    double score;
};

struct learner {
    const tok_words *words;
    struct piece *piece;
    size_t n, capacity;
    mb_bytes text;
    mb_trie trie;
    double unknown; /* score of a character without a piece */
};

static mb_status add_piece(struct learner *l, const char *p, size_t n, bool single, double score)
{
    MB_TRY(mb_grow((void **)&l->piece, &l->capacity, l->n + 1, sizeof *l->piece, "pieces"));
    l->piece[l->n++] = (struct piece){l->text.n, (uint32_t)n, single, score};
    return mb_bytes_add(&l->text, p, n);
}

static size_t char_len(const char *p)
{
    const unsigned char c = (unsigned char)*p;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* One length of n-grams. */
struct grams {
    mb_vocab *vocab;
    int64_t *count;
    size_t capacity;
};

static void grams_release(struct grams *g)
{
    mb_vocab_free(g->vocab);
    mb_free(g->count);
    *g = (struct grams){0};
}

static mb_status count_gram(struct grams *g, const char *p, size_t n, int64_t by)
{
    int32_t id = mb_vocab_find(g->vocab, p, n);
    bool added;

    if (id < 0) {
        id = (int32_t)mb_vocab_count(g->vocab);
        MB_TRY(
            mb_grow((void **)&g->count, &g->capacity, (size_t)id + 1, sizeof *g->count, "n-grams"));
        MB_TRY(mb_vocab_add(g->vocab, p, n, id, &added));
        g->count[id] = 0;
    }
    g->count[id] += by;
    return MB_OK;
}

static bool frequent(const struct grams *g, const char *p, size_t n)
{
    const int32_t id = mb_vocab_find(g->vocab, p, n);
    return id >= 0 && g->count[id] >= 2;
}

/* The n-grams of `length` characters both of whose halves are frequent; of the characters alone
 * when there are no shorter ones. */
static mb_status count_length(const struct learner *l, const mb_vocab *chars,
                              const struct grams *shorter, size_t length, struct grams *out)
{
    size_t at[LONGEST + 1];

    MB_TRY(mb_vocab_new(1024, &out->vocab));
    for (size_t i = 0; i < l->words->n; i++) {
        const tok_word *w = &l->words->at[i];
        size_t begin = 0;
        while (begin < w->n) {
            size_t n = 0, end = begin;
            at[0] = begin;
            while (n < length && end < w->n) {
                end += char_len(w->p + end);
                at[++n] = end;
            }
            if (n < length)
                break;
            const bool good = shorter == NULL
                                  ? mb_vocab_find(chars, w->p + begin, end - begin) >= 0
                                  : frequent(shorter, w->p + begin, at[length - 1] - begin) &&
                                        frequent(shorter, w->p + at[1], end - at[1]);
            if (good)
                MB_TRY(count_gram(out, w->p + begin, end - begin, w->count));
            begin = at[1];
        }
    }
    return MB_OK;
}

static mb_status take_grams(struct learner *l, const struct grams *g, size_t length, bool *any)
{
    *any = false;
    for (size_t i = 0; i < mb_vocab_count(g->vocab); i++) {
        size_t n;
        int32_t id;
        const char *p = mb_vocab_at(g->vocab, i, &n, &id);
        if (length > 1 && g->count[id] < 2)
            continue;
        *any = true;
        MB_TRY(add_piece(l, p, n, length == 1, (double)g->count[id] * (double)length));
    }
    return MB_OK;
}

/* Characters first, then by score; of equals by bytes. */
static int best_first(const void *x, const void *y, void *with)
{
    const struct piece *a = x, *b = y;
    const char *text = with;

    if (a->single != b->single)
        return a->single ? -1 : 1;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    const int order = memcmp(text + a->at, text + b->at, a->n < b->n ? a->n : b->n);
    return order != 0 ? order : (a->n > b->n) - (a->n < b->n);
}

static void sort_pieces(struct learner *l)
{
    if (l->n > 0)
        qsort_r(l->piece, l->n, sizeof *l->piece, best_first, l->text.p);
}

/* Scores that are counts become log-probabilities. */
static void normalise(struct learner *l)
{
    double sum = 0;

    for (size_t i = 0; i < l->n; i++)
        sum += l->piece[i].score;
    for (size_t i = 0; i < l->n; i++)
        l->piece[i].score = log(l->piece[i].score) - log(sum);
}

/* A text may spell out a special token, which has an id already. */
static void drop_taken(struct learner *l, const mb_vocab *taken)
{
    size_t n = 0;

    for (size_t i = 0; i < l->n; i++)
        if (mb_vocab_find(taken, l->text.p + l->piece[i].at, l->piece[i].n) < 0)
            l->piece[n++] = l->piece[i];
    l->n = n;
}

static mb_status seed(struct learner *l, const mb_vocab *chars, const mb_vocab *taken)
{
    struct grams last = {0}, now = {0};
    bool any = true;
    mb_status st = MB_OK;

    for (size_t length = 1; length <= LONGEST && any && st == MB_OK; length++) {
        st = count_length(l, chars, length == 1 ? NULL : &last, length, &now);
        if (st == MB_OK)
            st = take_grams(l, &now, length, &any);
        grams_release(&last);
        last = now;
        now = (struct grams){0};
    }
    grams_release(&last);
    MB_TRY(st);
    drop_taken(l, taken);
    sort_pieces(l);
    l->n = l->n < SEEDS ? l->n : SEEDS;
    normalise(l);
    return MB_OK;
}

static mb_status index_pieces(struct learner *l)
{
    double least = 0;

    mb_trie_release(&l->trie);
    MB_TRY(mb_trie_init(&l->trie, l->n * 8));
    for (size_t i = 0; i < l->n; i++) {
        MB_TRY(mb_trie_add(&l->trie, l->text.p + l->piece[i].at, l->piece[i].n, (int32_t)i));
        least = l->piece[i].score < least ? l->piece[i].score : least;
    }
    l->unknown = least - unknown_penalty;
    return MB_OK;
}

static double add_logs(double a, double b)
{
    const double hi = a > b ? a : b, lo = a > b ? b : a;
    return hi - lo > 50 ? hi : hi + log1p(exp(lo - hi));
}

/* A piece at a place of a word. */
struct edge {
    int32_t at, end, piece;
};

/* Work space of one thread. */
struct lattice {
    struct edge *edge;
    size_t n_edges, edge_capacity;
    double *alpha, *beta;
    int32_t *start, *piece;
    size_t capacity, more[3];
};

static mb_status lattice_size(struct lattice *a, size_t n)
{
    MB_TRY(mb_grow((void **)&a->alpha, &a->capacity, n + 1, sizeof *a->alpha, "lattice"));
    MB_TRY(mb_grow((void **)&a->beta, &a->more[0], n + 1, sizeof *a->beta, "lattice"));
    MB_TRY(mb_grow((void **)&a->start, &a->more[1], n + 1, sizeof *a->start, "lattice"));
    return mb_grow((void **)&a->piece, &a->more[2], n + 1, sizeof *a->piece, "lattice");
}

static void lattice_release(struct lattice *a)
{
    mb_free(a->edge);
    mb_free(a->alpha);
    mb_free(a->beta);
    mb_free(a->start);
    mb_free(a->piece);
}

/* Every piece that begins at `at`: calls nothing, but gives its end and number one by one. */
struct walk {
    const struct learner *l;
    const char *p;
    size_t n, at, end;
    uint32_t node;
    bool single, done;
};

static struct walk walk_from(const struct learner *l, const char *p, size_t n, size_t at)
{
    return (struct walk){l, p, n, at, at, 0, false, false};
}

/* The next piece (-1: the unknown character, if no piece is that character alone). */
static bool walk_next(struct walk *w, int32_t *piece)
{
    const size_t first = char_len(w->p + w->at);

    while (!w->done && w->end < w->n && mb_trie_step(&w->l->trie, &w->node, w->p[w->end], piece)) {
        w->end++;
        if (*piece < 0)
            continue;
        w->single = w->single || w->end - w->at == first;
        return true;
    }
    if (w->done || w->single)
        return false;
    w->done = true;
    w->end = w->at + first;
    *piece = -1;
    return true;
}

static double score_of(const struct learner *l, int32_t piece)
{
    return piece < 0 ? l->unknown : l->piece[piece].score;
}

/* All edges of a word, by where they begin. */
static mb_status find_edges(const struct learner *l, const tok_word *word, struct lattice *a)
{
    int32_t piece;

    a->n_edges = 0;
    for (size_t at = 0; at < word->n; at += char_len(word->p + at))
        for (struct walk w = walk_from(l, word->p, word->n, at); walk_next(&w, &piece);) {
            if (a->n_edges == a->edge_capacity)
                MB_TRY(mb_grow((void **)&a->edge, &a->edge_capacity, a->n_edges + 1,
                               sizeof *a->edge, "lattice"));
            a->edge[a->n_edges++] = (struct edge){(int32_t)at, (int32_t)w.end, piece};
        }
    return MB_OK;
}

/* Adds the expected counts of a word's pieces, times its count. */
static mb_status expect(const struct learner *l, const tok_word *word, struct lattice *a,
                        int64_t *expected)
{
    const size_t n = word->n;

    MB_TRY(lattice_size(a, n));
    MB_TRY(find_edges(l, word, a));
    for (size_t i = 0; i <= n; i++)
        a->alpha[i] = a->beta[i] = -INFINITY;
    a->alpha[0] = a->beta[n] = 0;
    for (size_t i = 0; i < a->n_edges; i++) {
        const struct edge e = a->edge[i];
        const double way = a->alpha[e.at] + score_of(l, e.piece);
        a->alpha[e.end] = a->alpha[e.end] == -INFINITY ? way : add_logs(a->alpha[e.end], way);
    }
    for (size_t i = a->n_edges; i-- > 0;) {
        const struct edge e = a->edge[i];
        const double way = score_of(l, e.piece) + a->beta[e.end];
        a->beta[e.at] = a->beta[e.at] == -INFINITY ? way : add_logs(a->beta[e.at], way);
    }
    for (size_t i = 0; i < a->n_edges; i++) {
        const struct edge e = a->edge[i];
        if (e.piece < 0)
            continue;
        const double p = exp(a->alpha[e.at] + score_of(l, e.piece) + a->beta[e.end] - a->alpha[n]);
        expected[e.piece] += llrint(p * (double)word->count * (1 << FRACTION_BITS));
    }
    return MB_OK;
}

/* Adds word->count to the pieces of the best cut. */
static mb_status best_cut(const struct learner *l, const tok_word *word, struct lattice *a,
                          int64_t *used)
{
    const size_t n = word->n;
    int32_t piece;

    MB_TRY(lattice_size(a, n));
    for (size_t i = 0; i <= n; i++)
        a->start[i] = -1;
    a->alpha[0] = 0;
    for (size_t at = 0; at < n; at += char_len(word->p + at))
        for (struct walk w = walk_from(l, word->p, n, at); walk_next(&w, &piece);) {
            const double way = a->alpha[at] + score_of(l, piece);
            if (a->start[w.end] >= 0 && way <= a->alpha[w.end])
                continue;
            a->alpha[w.end] = way;
            a->start[w.end] = (int32_t)at;
            a->piece[w.end] = piece;
        }
    for (size_t end = n; end > 0; end = (size_t)a->start[end])
        if (a->piece[end] >= 0)
            used[a->piece[end]] += word->count;
    return MB_OK;
}

/* Runs one of the two over all words; the sums of the threads are added up. */
static mb_status over_words(const struct learner *l,
                            mb_status (*each)(const struct learner *l, const tok_word *word,
                                              struct lattice *a, int64_t *sum),
                            int64_t *sum)
{
    mb_status st = MB_OK;

#pragma omp parallel
    {
        struct lattice a = {0};
        int64_t *own = NULL;
        mb_status mine = MB_NEW_ARRAY(&own, l->n);
#pragma omp for schedule(dynamic, 512)
        for (size_t i = 0; i < l->words->n; i++)
            if (mine == MB_OK)
                mine = each(l, &l->words->at[i], &a, own);
#pragma omp critical
        {
            for (size_t i = 0; i < l->n && mine == MB_OK; i++)
                sum[i] += own[i];
            st = mine != MB_OK ? mine : st;
        }
        lattice_release(&a);
        mb_free(own);
    }
    return st;
}

/* Euler's digamma, by its asymptotic series from 7 on (Bernardo 1976). */
static double digamma(double x)
{
    double sum = 0;

    for (; x < 7; x++)
        sum -= 1 / x;
    x -= 0.5;
    const double y = 1 / (x * x);
    return sum + log(x) + y / 24 - y * y * 7 / 960 + y * y * y * 31 / 8064 -
           y * y * y * y * 127 / 30720;
}

static mb_status em(struct learner *l)
{
    int64_t *expected = NULL;
    double sum = 0;
    size_t kept = 0;

    MB_TRY(index_pieces(l));
    MB_TRY(MB_NEW_ARRAY(&expected, l->n));
    const mb_status st = over_words(l, expect, expected);
    for (size_t i = 0; i < l->n && st == MB_OK; i++) {
        const double count = (double)expected[i] / (1 << FRACTION_BITS);
        if (count < least_expected && !l->piece[i].single)
            continue;
        l->piece[kept] = l->piece[i];
        l->piece[kept].score = count < least_expected ? least_expected : count;
        sum += l->piece[kept++].score;
    }
    mb_free(expected);
    MB_TRY(st);
    l->n = kept;
    for (size_t i = 0; i < kept; i++)
        l->piece[i].score = digamma(l->piece[i].score) - digamma(sum);
    return MB_OK;
}

/* The best cut of a piece without using it whole: pieces in *parts; 0 if there is none. */
static size_t second_cut(const struct learner *l, size_t k, struct lattice *a, int32_t *parts)
{
    const char *p = l->text.p + l->piece[k].at;
    const size_t n = l->piece[k].n;
    size_t count = 0;
    int32_t piece;

    for (size_t i = 0; i <= n; i++)
        a->start[i] = -1;
    a->alpha[0] = 0;
    for (size_t at = 0; at < n; at += char_len(p + at)) {
        if (at > 0 && a->start[at] < 0)
            continue;
        for (struct walk w = walk_from(l, p, n, at); walk_next(&w, &piece);) {
            const double way = a->alpha[at] + score_of(l, piece);
            if (piece < 0 || piece == (int32_t)k ||
                (a->start[w.end] >= 0 && way <= a->alpha[w.end]))
                continue;
            a->alpha[w.end] = way;
            a->start[w.end] = (int32_t)at;
            a->piece[w.end] = piece;
        }
    }
    if (a->start[n] < 0)
        return 0;
    for (size_t end = n; end > 0; end = (size_t)a->start[end])
        parts[count++] = a->piece[end];
    return count;
}

/* What is lost without piece k, per occurrence of anything; infinite for what must stay. */
static double loss(const struct learner *l, size_t k, const int64_t *used, double total,
                   struct lattice *a)
{
    int32_t parts[LONGEST];
    const struct piece *piece = &l->piece[k];

    if (piece->single)
        return INFINITY;
    const size_t n = second_cut(l, k, a, parts);
    /* Its parts together are better than it: it is never used. */
    if (n > 0 && a->alpha[piece->n] >= piece->score)
        return -INFINITY;
    if (used[k] == 0)
        return -INFINITY;
    if (n == 0)
        return INFINITY;
    const double f = (double)used[k];
    const double now = log(f) - log(total);
    const double sum = log(total + f * (double)(n - 1));
    double then = 0;
    for (size_t i = 0; i < n; i++)
        then += log((double)used[parts[i]] + f) - sum;
    return f / total * (now - then);
}

struct candidate {
    double loss;
    size_t piece;
};

static int costly_first(const void *x, const void *y)
{
    const struct candidate *a = x, *b = y;

    if (a->loss != b->loss)
        return a->loss > b->loss ? -1 : 1;
    return (a->piece > b->piece) - (a->piece < b->piece);
}

static mb_status prune(struct learner *l, size_t least)
{
    int64_t *used = NULL;
    struct candidate *c = NULL;
    struct piece *kept = NULL;
    struct lattice a = {0};
    double total = 0;
    size_t n = 0, want = (size_t)((double)l->n * keep_share);
    mb_status st = MB_OK;

    want = want > least ? want : least;
    MB_TRY_GOTO(index_pieces(l), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&used, l->n), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&c, l->n), st, done);
    MB_TRY_GOTO(over_words(l, best_cut, used), st, done);
    MB_TRY_GOTO(lattice_size(&a, 4 * LONGEST), st, done);
    for (size_t i = 0; i < l->n; i++)
        total += (double)used[i];
    for (size_t i = 0; i < l->n; i++)
        c[i] = (struct candidate){loss(l, i, used, total, &a), i};
    qsort(c, l->n, sizeof *c, costly_first);
    MB_TRY_GOTO(MB_NEW_ARRAY(&kept, l->n), st, done);
    for (size_t i = 0; i < l->n && (c[i].loss == INFINITY || (n < want && c[i].loss > -INFINITY));
         i++)
        kept[n++] = l->piece[c[i].piece];
    memcpy(l->piece, kept, n * sizeof *kept);
    l->n = n;
done:
    mb_free(used);
    mb_free(c);
    mb_free(kept);
    lattice_release(&a);
    return st;
}

static mb_status finish(struct learner *l, size_t size, tok_scored_list *out)
{
    sort_pieces(l);
    const size_t n = l->n < size ? l->n : size;
    for (size_t i = 0; i < n; i++)
        l->piece[i].single = false;
    l->n = n;
    sort_pieces(l);
    MB_TRY(MB_NEW_ARRAY(&out->at, n + 1));
    out->text = l->text;
    l->text = (mb_bytes){0};
    out->n = n;
    for (size_t i = 0; i < n; i++)
        out->at[i] = (tok_scored){out->text.p + l->piece[i].at, l->piece[i].n, l->piece[i].score};
    return MB_OK;
}

static mb_status learn(struct learner *l, const mb_vocab *chars, const mb_vocab *taken, size_t size,
                       tok_scored_list *out)
{
    const size_t least = (size_t)((double)size * surplus);

    MB_TRY(seed(l, chars, taken));
    for (bool last = false; !last;) {
        for (int round = 0; round < EM_ROUNDS; round++)
            MB_TRY(em(l));
        const size_t before = l->n;
        if (before > least)
            MB_TRY(prune(l, least));
        last = before <= least || l->n == before;
    }
    return finish(l, size, out);
}

mb_status tok_learn_unigram(const tok_words *words, const mb_vocab *chars, const mb_vocab *taken,
                            size_t size, tok_scored_list *out)
{
    struct learner l = {.words = words};
    const mb_status st = learn(&l, chars, taken, size, out);

    mb_free(l.piece);
    mb_bytes_release(&l.text);
    mb_trie_release(&l.trie);
    return st;
}

void tok_scored_release(tok_scored_list *l)
{
    mb_free(l->at);
    mb_bytes_release(&l->text);
    *l = (tok_scored_list){0};
}
