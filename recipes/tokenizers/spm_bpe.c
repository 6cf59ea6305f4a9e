/* recipes/tokenizers/spm_bpe.c - byte-pair encoding as SentencePiece does it.
 *
 * There is no list of merges: any two neighbours whose text together is a piece may be joined, the
 * pair with the highest score first, of equals the leftmost. User-defined symbols are found first,
 * the longest at each place, and never joined. What is no piece in the end is unknown; unknown
 * neighbours count as one.
 *
 * A text is cut before every U+2581 that follows something else where no piece has one inside, so
 * that stretches repeat and can be remembered; no join could cross such a place.
 * Source: sentencepiece bpe_model.cc.
 */
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/pieces.h"
#include "recipes/tokenizers/trie.h"

struct bpe {
    tok_piece_list list;
    mb_vocab *piece; /* to places in the list: those that text can give */
    uint32_t *rank;  /* by place; equal scores, equal ranks */
    mb_trie user;
    bool cuts;
};

struct symbol {
    uint32_t at, n; /* text; n 0: joined to another */
    int32_t before, after;
    bool frozen;
};

struct work {
    struct symbol *symbol;
    size_t n, capacity;
    uint64_t *heap; /* rank << 32 | place of the left one */
    size_t n_heap, heap_capacity;
};

static const char mark[] = "\xe2\x96\x81";
enum { MARK = sizeof mark - 1 };

static void release(void *model)
{
    struct bpe *b = model;

    if (b == NULL)
        return;
    mb_vocab_free(b->piece);
    mb_free(b->rank);
    mb_trie_release(&b->user);
    tok_piece_list_release(&b->list);
    mb_free(b);
}

static bool is_mark(const char *p, const char *end)
{
    return end - p >= MARK && memcmp(p, mark, MARK) == 0;
}

/* A U+2581 after another character. */
static bool has_mark_inside(const char *p, size_t n)
{
    const char *end = p + n;
    bool seen = false;

    for (; p < end; p++) {
        if (is_mark(p, end)) {
            if (seen)
                return true;
            p += MARK - 1;
        } else {
            seen = true;
        }
    }
    return false;
}

struct scored {
    double score;
    uint32_t place;
};

static int by_score(const void *x, const void *y)
{
    const struct scored *a = x, *b = y;
    return a->score > b->score   ? -1
           : a->score < b->score ? 1
                                 : (a->place > b->place) - (a->place < b->place);
}

static mb_status rank_pieces(struct bpe *b)
{
    const size_t n = b->list.n;
    struct scored *order = NULL;

    MB_TRY(MB_NEW_ARRAY(&b->rank, n));
    MB_TRY(MB_NEW_ARRAY(&order, n));
    for (size_t i = 0; i < n; i++)
        order[i] = (struct scored){b->list.at[i].score, (uint32_t)i};
    qsort(order, n, sizeof *order, by_score);
    for (size_t i = 0; i < n; i++) {
        const bool same = i > 0 && order[i - 1].score == order[i].score;
        b->rank[order[i].place] = same ? b->rank[order[i - 1].place] : (uint32_t)i;
    }
    mb_free(order);
    return MB_OK;
}

static mb_status prepare(struct bpe *b, const char *where)
{
    bool added;

    MB_TRY(mb_vocab_new(b->list.n, &b->piece));
    MB_TRY(mb_trie_init(&b->user, 64));
    b->cuts = true;
    for (size_t i = 0; i < b->list.n; i++) {
        const tok_piece *piece = &b->list.at[i];
        MB_REQUIRE(piece->type != TOK_PIECE_UNUSED, MB_ENOTSUP,
                   "%s: BPE with unused pieces (\"%.60s\") is not supported", where, piece->text);
        if (piece->type != TOK_PIECE_NORMAL && piece->type != TOK_PIECE_USER)
            continue;
        MB_TRY(mb_vocab_add(b->piece, piece->text, piece->n, (int32_t)i, &added));
        if (piece->type == TOK_PIECE_USER)
            MB_TRY(mb_trie_add(&b->user, piece->text, piece->n, (int32_t)i));
        b->cuts = b->cuts && !has_mark_inside(piece->text, piece->n);
    }
    b->cuts = b->cuts && mb_vocab_find(b->piece, mark, MARK) >= 0;
    return rank_pieces(b);
}

static mb_status load(mb_json model, const char *where, mb_vocab *vocab, void **out)
{
    struct bpe *b = NULL;

    MB_TRY(MB_NEW(&b));
    mb_status st = tok_piece_list_read(model, vocab, &b->list);
    if (st == MB_OK)
        st = prepare(b, where);
    if (st != MB_OK)
        release(b);
    else
        *out = b;
    return st;
}

static void work_release(void *work)
{
    struct work *w = work;

    mb_free(w->symbol);
    mb_free(w->heap);
}

/* The longest user-defined symbol at p, or one character. */
static size_t symbol_len(const struct bpe *b, const char *p, const char *end, bool *frozen)
{
    uint32_t node = 0, c;
    int32_t value;
    size_t len = 0;

    for (size_t i = 0; b->user.n > 0 && p + i < end && mb_trie_step(&b->user, &node, p[i], &value);
         i++)
        len = value >= 0 ? i + 1 : len;
    *frozen = len > 0;
    return len > 0 ? len : mb_utf8_get(p, end, &c);
}

static mb_status spell(const struct bpe *b, struct work *w, const char *word, size_t n)
{
    bool frozen;

    w->n = 0;
    for (size_t at = 0; at < n;) {
        const size_t len = symbol_len(b, word + at, word + n, &frozen);
        MB_TRY(mb_grow((void **)&w->symbol, &w->capacity, w->n + 1, sizeof *w->symbol, "word"));
        w->symbol[w->n] = (struct symbol){(uint32_t)at, (uint32_t)len, (int32_t)w->n - 1,
                                          (int32_t)w->n + 1, frozen};
        w->n++;
        at += len;
    }
    w->symbol[w->n - 1].after = -1;
    return MB_OK;
}

/* The rank of two neighbours' join; false when they have none. */
static bool pair_rank(const struct bpe *b, const struct work *w, const char *word, int32_t left,
                      int32_t right, uint32_t *rank)
{
    if (left < 0 || right < 0)
        return false;
    const struct symbol *l = &w->symbol[left], *r = &w->symbol[right];
    if (l->frozen || r->frozen || l->n + r->n > mb_vocab_longest(b->piece))
        return false;
    const int32_t place = mb_vocab_find(b->piece, word + l->at, (size_t)l->n + r->n);
    if (place < 0)
        return false;
    *rank = b->rank[place];
    return true;
}

static mb_status push_pair(const struct bpe *b, struct work *w, const char *word, int32_t left,
                           int32_t right)
{
    uint32_t rank;

    if (!pair_rank(b, w, word, left, right, &rank))
        return MB_OK;
    MB_TRY(mb_grow((void **)&w->heap, &w->heap_capacity, w->n_heap + 1, sizeof *w->heap, "word"));
    const uint64_t x = (uint64_t)rank << 32 | (uint32_t)left;
    size_t i = w->n_heap++;
    for (; i > 0 && x < w->heap[(i - 1) / 4]; i = (i - 1) / 4)
        w->heap[i] = w->heap[(i - 1) / 4];
    w->heap[i] = x;
    return MB_OK;
}

static uint64_t pop_pair(struct work *w)
{
    const uint64_t top = w->heap[0], x = w->heap[--w->n_heap];
    const size_t n = w->n_heap;
    size_t i = 0;

    for (size_t child; (child = 4 * i + 1) < n;) {
        const size_t end = child + 4 < n ? child + 4 : n;
        size_t least = child;
        for (size_t k = child + 1; k < end; k++)
            least = w->heap[k] < w->heap[least] ? k : least;
        if (w->heap[least] >= x)
            break;
        w->heap[i] = w->heap[least];
        i = least;
    }
    w->heap[i] = x;
    return top;
}

static mb_status join(const struct bpe *b, struct work *w, const char *word)
{
    struct symbol *s = w->symbol;
    uint32_t rank;

    w->n_heap = 0;
    for (size_t i = 0; i + 1 < w->n; i++)
        MB_TRY(push_pair(b, w, word, (int32_t)i, (int32_t)i + 1));
    while (w->n_heap > 0) {
        const uint64_t top = pop_pair(w);
        const int32_t at = (int32_t)(uint32_t)top, right = s[at].after;
        /* Stale if one of the two has been joined since; then its rank is another's. */
        if (s[at].n == 0 || !pair_rank(b, w, word, at, right, &rank) || rank != top >> 32)
            continue;
        s[at].n += s[right].n;
        s[at].after = s[right].after;
        s[right].n = 0;
        if (s[at].after >= 0)
            s[s[at].after].before = at;
        MB_TRY(push_pair(b, w, word, s[at].before, at));
        MB_TRY(push_pair(b, w, word, at, s[at].after));
    }
    return MB_OK;
}

static mb_status encode(const void *model, void *work, const char *word, size_t n,
                        const uint8_t *barred, mb_ids *out)
{
    const struct bpe *b = model;
    struct work *w = work;
    size_t unknown = SIZE_MAX; /* where a run of unknown text began */

    MB_TRY(spell(b, w, word, n));
    MB_TRY(join(b, w, word));
    for (int32_t i = 0; i >= 0; i = w->symbol[i].after) {
        const struct symbol *s = &w->symbol[i];
        const int32_t place = mb_vocab_find(b->piece, word + s->at, s->n);
        if (place < 0) {
            unknown = unknown == SIZE_MAX ? s->at : unknown;
            continue;
        }
        if (unknown != SIZE_MAX)
            MB_TRY(tok_piece_unknown(&b->list, word + unknown, s->at - unknown, barred, out));
        unknown = SIZE_MAX;
        MB_TRY(mb_ids_push(out, b->list.at[place].id));
    }
    return unknown == SIZE_MAX
               ? MB_OK
               : tok_piece_unknown(&b->list, word + unknown, n - unknown, barred, out);
}

/* To the next U+2581 that follows something else. */
static mb_status part(const void *model, const char *word, size_t n, size_t *len)
{
    const struct bpe *b = model;
    size_t at = 0;

    MB_REQUIRE(n < INT32_MAX, MB_EDATA, "a text of %zu bytes is too long for BPE", n);
    while (b->cuts && is_mark(word + at, word + n))
        at += MARK;
    while (at < n && !(b->cuts && is_mark(word + at, word + n)))
        at++;
    *len = at;
    return MB_OK;
}

static const char *unknown(const void *model)
{
    return ((const struct bpe *)model)->list.unknown.p;
}

const tok_model mb_tok_spm_bpe = {.type = "SentencePieceBPE",
                                  .load = load,
                                  .free = release,
                                  .work_bytes = sizeof(struct work),
                                  .work_release = work_release,
                                  .part = part,
                                  .encode = encode,
                                  .unknown = unknown};
