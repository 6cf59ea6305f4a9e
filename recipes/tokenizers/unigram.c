/* recipes/tokenizers/unigram.c - the unigram language model (Kudo 2018, arXiv:1804.10959).
 *
 * Every piece has a log-probability; a word is cut so that the sum is largest (Viterbi over the
 * byte positions, pieces found by a trie). Where no piece is one character long, that character may
 * also be unknown, for 10 less than the worst piece. Of equal sums the one found first stays.
 *
 * "sentencepiece" (see pieces.h) means its library's arithmetic, sums kept as floats, and that only
 * normal and user-defined pieces are found in text, the latter before all others (as version 0.2.3
 * does it; earlier ones gave user-defined pieces another score).
 */
#include <float.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/pieces.h"
#include "recipes/tokenizers/trie.h"

static const double unknown_penalty = 10.0;

struct unigram {
    tok_piece_list list;
    mb_trie trie; /* to places in the list */
    double unknown_score;
};

struct node {
    double best;
    int32_t start; /* -1: not reached */
    int32_t piece; /* -1: unknown */
    int32_t next;  /* the end of the piece that begins here */
};

struct work {
    struct node *node; /* node[i] is the best way to the first i bytes */
    size_t capacity;
};

static void release(void *model)
{
    struct unigram *u = model;

    if (u == NULL)
        return;
    mb_trie_release(&u->trie);
    tok_piece_list_release(&u->list);
    mb_free(u);
}

static mb_status prepare(struct unigram *u)
{
    const tok_piece_list *l = &u->list;
    double least = DBL_MAX;

    MB_TRY(mb_trie_init(&u->trie, l->n * 8));
    for (size_t i = 0; i < l->n; i++) {
        const tok_piece *piece = &l->at[i];
        if (piece->type == TOK_PIECE_NORMAL)
            least = piece->score < least ? piece->score : least;
        if (piece->type == TOK_PIECE_NORMAL || piece->type == TOK_PIECE_USER)
            MB_TRY(mb_trie_add(&u->trie, piece->text, piece->n, (int32_t)i));
    }
    u->unknown_score =
        l->sentencepiece ? (float)least - (float)unknown_penalty : least - unknown_penalty;
    return MB_OK;
}

static mb_status load(mb_json model, const char *where, mb_vocab *vocab, void **out)
{
    struct unigram *u = NULL;

    (void)where;
    MB_TRY(MB_NEW(&u));
    mb_status st = tok_piece_list_read(model, vocab, &u->list);
    if (st == MB_OK)
        st = prepare(u);
    if (st != MB_OK)
        release(u);
    else
        *out = u;
    return st;
}

static void work_release(void *work)
{
    struct work *w = work;

    mb_free(w->node);
}

static void offer(struct node *to, double sum, size_t at, int32_t piece)
{
    if (to->start < 0 || sum > to->best)
        *to = (struct node){sum, (int32_t)at, piece, 0};
}

/* The best ways to every place that pieces beginning at `at` end at; *far is the farthest so far. */
static void reach(const struct unigram *u, struct node *node, const char *word, size_t n, size_t at,
                  size_t first_char, const uint8_t *barred, size_t *far)
{
    const bool floats = u->list.sentencepiece;
    const double here = node[at].best;
    bool single = false;
    uint32_t state = 0;
    int32_t k;

    for (size_t p = at; p < n && mb_trie_step(&u->trie, &state, word[p], &k); p++) {
        if (k < 0 || (barred != NULL && barred[u->list.at[k].id]))
            continue;
        const size_t len = p + 1 - at;
        const tok_piece *piece = &u->list.at[k];
        const double score = piece->type == TOK_PIECE_USER ? 0.1 * ((double)len - 1) : piece->score;
        offer(&node[p + 1], floats ? (float)score + (float)here : score + here, at, k);
        *far = p + 1 > *far ? p + 1 : *far;
        single = single || len == first_char;
    }
    if (single)
        return;
    const double unknown = u->unknown_score;
    offer(&node[at + first_char], floats ? (float)unknown + (float)here : unknown + here, at, -1);
    *far = at + first_char > *far ? at + first_char : *far;
}

/* Sums as floats are begun anew where they get large; so does sentencepiece since 0.2.3. */
static void rebase(struct node *node, size_t at, size_t far)
{
    const float base = (float)node[at].best;

    if (base >= -100000.0F && base <= 100000.0F)
        return;
    for (size_t i = at; i <= far; i++)
        if (i == at || node[i].start >= 0)
            node[i].best = (float)node[i].best - base;
}

/* tokenizer.json's library takes the unknown token written in the text for unknown text. */
static bool is_unknown(const struct unigram *u, const struct node *node)
{
    return node->piece < 0 ||
           (!u->list.sentencepiece && u->list.at[node->piece].id == u->list.unknown_id);
}

static mb_status encode(const void *model, void *work, const char *word, size_t n,
                        const uint8_t *barred, mb_ids *out)
{
    const struct unigram *u = model;
    struct work *w = work;
    uint32_t c;

    MB_REQUIRE(n < INT32_MAX, MB_EDATA, "a word of %zu bytes is too long for Unigram", n);
    MB_TRY(mb_grow((void **)&w->node, &w->capacity, n + 1, sizeof *w->node, "word"));
    w->node[0].best = 0;
    for (size_t i = 1; i <= n; i++)
        w->node[i].start = -1;
    for (size_t at = 0, far = 0, len; at < n; at += len) {
        len = mb_utf8_get(word + at, word + n, &c);
        if (u->list.sentencepiece)
            rebase(w->node, at, far);
        reach(u, w->node, word, n, at, len, barred, &far);
    }
    for (size_t end = n; end > 0; end = (size_t)w->node[end].start)
        w->node[w->node[end].start].next = (int32_t)end;
    for (size_t at = 0, end; at < n; at = end) {
        end = (size_t)w->node[at].next;
        if (!is_unknown(u, &w->node[end])) {
            MB_TRY(mb_ids_push(out, u->list.at[w->node[end].piece].id));
            continue;
        }
        while (end < n && is_unknown(u, &w->node[w->node[end].next]))
            end = (size_t)w->node[end].next;
        MB_TRY(tok_piece_unknown(&u->list, word + at, end - at, barred, out));
    }
    return MB_OK;
}

static const char *unknown(const void *model)
{
    return ((const struct unigram *)model)->list.unknown.p;
}

const tok_model mb_tok_unigram = {.type = "Unigram",
                                  .load = load,
                                  .free = release,
                                  .work_bytes = sizeof(struct work),
                                  .work_release = work_release,
                                  .encode = encode,
                                  .unknown = unknown};
