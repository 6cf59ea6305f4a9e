/* recipes/tokenizers/unigram.c - the unigram language model (Kudo 2018, arXiv:1804.10959).
 *
 * Every piece has a log-probability; a word is cut so that the sum is largest (Viterbi over the
 * byte positions, pieces found by a trie). Where no piece is one character long, that character may
 * also be unknown, for 10 less than the worst piece. Of equal sums the one found first stays.
 *
 * The file is tokenizer.json's: "vocab": [[piece, score], ...], where the place is the id. What
 * spm.c makes of a SentencePiece file has two more, [piece, score, type, id], and
 * "sentencepiece": true: its library's arithmetic (sums kept as floats), its rules for which pieces
 * text can give (normal, user-defined), and no fusing of what byte_fallback spells out.
 */
#include <float.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/cache.h"
#include "recipes/tokenizers/model.h"
#include "recipes/tokenizers/trie.h"

static const double unknown_penalty = 10.0;

struct piece {
    double score;
    int32_t id;
    bool user; /* user-defined: its score grows with its length */
};

struct unigram {
    const mb_vocab *vocab;
    mb_trie trie; /* to entries of `piece` */
    struct piece *piece;
    size_t n;
    int32_t of_byte[256];
    int32_t unknown_id; /* -1: none */
    mb_bytes unknown;
    double unknown_score, bonus;
    bool byte_fallback, sentencepiece;
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
    tok_cache cache;
};

static void release(void *model)
{
    struct unigram *u = model;

    if (u == NULL)
        return;
    mb_trie_release(&u->trie);
    mb_bytes_release(&u->unknown);
    mb_free(u->piece);
    mb_free(u);
}

/* [piece, score] or [piece, score, type, id]; `i` is its place. */
static mb_status read_piece(struct unigram *u, mb_json v, size_t i, mb_vocab *vocab, int64_t unk)
{
    const char *text;
    size_t n;
    double score;
    int64_t type = TOK_PIECE_NORMAL, id = (int64_t)i;
    bool added;

    if (!mb_json_is(v, MB_JSON_ARRAY) || mb_json_count(v) < (u->sentencepiece ? 4u : 2u))
        return mb_json_fault(v, "must be [piece, score]");
    MB_TRY(mb_json_string(mb_json_at(v, 0), &text, &n));
    MB_TRY(mb_json_real(mb_json_at(v, 1), &score));
    if (u->sentencepiece) {
        MB_TRY(mb_json_int(mb_json_at(v, 2), &type));
        MB_TRY(mb_json_int(mb_json_at(v, 3), &id));
    }
    if (n > TOK_MAX_TOKEN_BYTES || id < 0 || id > INT32_MAX / 2)
        return mb_json_fault(v, "is a piece of %zu bytes with the id %lld", n, (long long)id);
    u->piece[i] = (struct piece){score, (int32_t)id, type == TOK_PIECE_USER};
    MB_TRY(mb_vocab_add(vocab, text, n, (int32_t)id, &added));
    if (!added && !u->sentencepiece)
        return mb_json_fault(v, "gives the piece \"%.60s\" a second id", text);
    if ((int64_t)i == unk) {
        u->unknown_id = (int32_t)id;
        MB_TRY(mb_bytes_add(&u->unknown, text, n));
    }
    if (u->sentencepiece && type != TOK_PIECE_NORMAL && type != TOK_PIECE_USER)
        return MB_OK;
    if (type == TOK_PIECE_NORMAL) {
        u->unknown_score = score < u->unknown_score ? score : u->unknown_score;
        u->bonus = score > u->bonus ? score : u->bonus;
    }
    return mb_trie_add(&u->trie, text, n, (int32_t)i);
}

static mb_status read_settings(mb_json model, mb_vocab *vocab, struct unigram *u)
{
    mb_json v;
    int64_t unk;
    size_t i = 0;

    MB_TRY(mb_json_need(model, "vocab", MB_JSON_ARRAY, &v));
    u->n = mb_json_count(v);
    if (u->n == 0 || u->n > INT32_MAX / 2)
        return mb_json_fault(v, "has %zu pieces", u->n);
    MB_TRY(mb_json_get_bool(model, "sentencepiece", false, &u->sentencepiece));
    MB_TRY(mb_json_get_bool(model, "byte_fallback", false, &u->byte_fallback));
    MB_TRY(mb_json_get_int(model, "unk_id", -1, &unk));
    if (unk < -1 || unk >= (int64_t)u->n)
        return mb_json_fault(mb_json_get(model, "unk_id"), "is %lld, but there are %zu pieces",
                             (long long)unk, u->n);
    MB_TRY(MB_NEW_ARRAY(&u->piece, u->n));
    MB_TRY(mb_trie_init(&u->trie, u->n * 8));
    u->unknown_id = -1;
    u->unknown_score = DBL_MAX;
    u->bonus = FLT_MIN; /* as in sentencepiece, where it is meant to be the least float */
    for (mb_json_it it = mb_json_first(v); mb_json_more(&it); mb_json_next(&it))
        MB_TRY(read_piece(u, it.value, i++, vocab, unk));
    u->unknown_score -= unknown_penalty;
    if (u->sentencepiece)
        u->unknown_score = (float)u->unknown_score;
    u->vocab = vocab;
    tok_byte_ids(vocab, u->of_byte);
    return mb_bytes_end(&u->unknown);
}

static mb_status load(mb_json model, const char *where, mb_vocab *vocab, void **out)
{
    struct unigram *u = NULL;

    (void)where;
    MB_TRY(MB_NEW(&u));
    const mb_status st = read_settings(model, vocab, u);
    if (st != MB_OK)
        release(u);
    else
        *out = u;
    return st;
}

static void work_free(void *work)
{
    struct work *w = work;

    if (w == NULL)
        return;
    tok_cache_release(&w->cache);
    mb_free(w->node);
    mb_free(w);
}

static mb_status work_new(const void *model, void **work)
{
    struct work *w = NULL;

    (void)model;
    MB_TRY(MB_NEW(&w));
    const mb_status st = tok_cache_init(&w->cache);
    if (st != MB_OK)
        work_free(w);
    else
        *work = w;
    return st;
}

/* The best ways to every place that pieces beginning at `at` end at. */
static void reach(const struct unigram *u, struct node *node, const char *word, size_t n, size_t at,
                  size_t first_char, const uint8_t *barred)
{
    const double here = node[at].best;
    bool single = false;
    uint32_t state = 0;
    int32_t k;

    for (size_t p = at; p < n && mb_trie_step(&u->trie, &state, word[p], &k); p++) {
        if (k < 0 || (barred != NULL && barred[u->piece[k].id]))
            continue;
        const size_t len = p + 1 - at;
        const struct piece *piece = &u->piece[k];
        const double score = u->sentencepiece && piece->user
                                 ? (double)((float)len * (float)u->bonus) - 0.1
                                 : piece->score;
        struct node *to = &node[p + 1];
        if (to->start < 0 || score + here > to->best)
            *to = (struct node){u->sentencepiece ? (float)(score + here) : score + here,
                                (int32_t)at, k, 0};
        single = single || len == first_char;
    }
    struct node *to = &node[at + first_char];
    const double unknown =
        u->sentencepiece ? (float)u->unknown_score + (float)here : u->unknown_score + here;
    if (!single && (to->start < 0 || unknown > to->best))
        *to = (struct node){unknown, (int32_t)at, -1, 0};
}

/* What no piece covers: bytes, if each has a token, or the unknown token. */
static mb_status spell_unknown(const struct unigram *u, const char *p, size_t n,
                               const uint8_t *barred, mb_ids *out)
{
    bool bytes = u->byte_fallback;

    if (!u->sentencepiece) { /* several unknown characters can make up a piece */
        const int32_t id = mb_vocab_find(u->vocab, p, n);
        if (id >= 0 && (barred == NULL || !barred[id]))
            return mb_ids_push(out, id);
    }
    for (size_t i = 0; bytes && i < n; i++)
        bytes = u->of_byte[(uint8_t)p[i]] >= 0;
    if (bytes) {
        for (size_t i = 0; i < n; i++)
            MB_TRY(mb_ids_push(out, u->of_byte[(uint8_t)p[i]]));
        return MB_OK;
    }
    MB_REQUIRE(u->unknown_id >= 0, MB_EMODEL,
               "the text has \"%.*s\", for which the tokenizer has no piece, and it has no "
               "unknown token",
               (int)(n < 60 ? n : 60), p);
    return mb_ids_push(out, u->unknown_id);
}

static bool is_unknown(const struct unigram *u, const struct node *node)
{
    return node->piece < 0 || u->piece[node->piece].id == u->unknown_id;
}

static mb_status encode_word(const struct unigram *u, struct work *w, const char *word, size_t n,
                             const uint8_t *barred, mb_ids *out)
{
    uint32_t c;

    MB_REQUIRE(n < INT32_MAX, MB_EDATA, "a word of %zu bytes is too long for Unigram", n);
    MB_TRY(mb_grow((void **)&w->node, &w->capacity, n + 1, sizeof *w->node, "word"));
    w->node[0].best = 0;
    for (size_t i = 1; i <= n; i++)
        w->node[i].start = -1;
    for (size_t at = 0, len; at < n; at += len) {
        len = mb_utf8_get(word + at, word + n, &c);
        reach(u, w->node, word, n, at, len, barred);
    }
    for (size_t end = n; end > 0; end = (size_t)w->node[end].start)
        w->node[w->node[end].start].next = (int32_t)end;
    for (size_t at = 0, end; at < n; at = end) {
        end = (size_t)w->node[at].next;
        if (!is_unknown(u, &w->node[end])) {
            MB_TRY(mb_ids_push(out, u->piece[w->node[end].piece].id));
            continue;
        }
        while (end < n && is_unknown(u, &w->node[w->node[end].next]))
            end = (size_t)w->node[end].next;
        MB_TRY(spell_unknown(u, word + at, end - at, barred, out));
    }
    return MB_OK;
}

static mb_status encode(const void *model, void *work, const char *word, size_t n,
                        const uint8_t *barred, mb_ids *out)
{
    const struct unigram *u = model;
    struct work *w = work;

    const tok_cached *c = tok_cache_get(&w->cache, word, n, barred != NULL);
    if (c != NULL)
        return mb_ids_append(out, c->id, c->n);
    const size_t first = out->n;
    MB_TRY(encode_word(u, w, word, n, barred, out));
    tok_cache_put(&w->cache, word, n, barred != NULL, out->id + first, out->n - first);
    return MB_OK;
}

static const char *unknown(const void *model)
{
    return ((const struct unigram *)model)->unknown.p;
}

const tok_model mb_tok_unigram = {"Unigram", load, release, work_new, work_free, encode, unknown};
