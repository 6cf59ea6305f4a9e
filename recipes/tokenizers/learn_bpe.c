/* recipes/tokenizers/learn_bpe.c - learning merges (Sennrich et al. 2016, arXiv:1508.07909).
 *
 * The most frequent pair of neighbours becomes a token, of equals the one with the smaller ids; and
 * so on. A heap holds pairs with the words they occur in; what a merge changes is counted up and
 * down, and a heap entry whose count is no longer true is put back with the true one. In all of
 * this, tokens that two merges make included, the order of merges is that of BpeTrainer of the
 * tokenizers library 0.23, which users know.
 */
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/learn.h"

/* Words of one step's new pairs; freed when no heap entry looks at it. */
struct block {
    size_t live;
    uint32_t word[];
};

struct entry {
    int64_t count;
    uint64_t pair;
    struct block *block;
    uint32_t *word;
    size_t n;
};

struct counted {
    uint64_t pair;
    int64_t count;
    bool used;
};

struct seen {
    uint64_t pair;
    uint32_t word;
};

struct learner {
    mb_ids symbols; /* of all words, one after the other */
    size_t *begin;  /* word i is symbols[begin[i] ..) */
    uint32_t *length;
    const tok_words *words;
    struct counted *pair; /* open addressing */
    size_t mask, n_pairs;
    struct entry *heap;
    size_t n_heap, heap_capacity;
    struct seen *fresh;
    size_t n_fresh, fresh_capacity;
};

static uint64_t pair_of(int32_t a, int32_t b)
{
    return (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
}

static struct counted *slot_of(const struct learner *l, uint64_t pair)
{
    uint64_t h = pair * 0x9e3779b97f4a7c15u;
    size_t s = (size_t)(h ^ h >> 32) & l->mask;

    while (l->pair[s].used && l->pair[s].pair != pair)
        s = (s + 1) & l->mask;
    return &l->pair[s];
}

static mb_status resize(struct learner *l, size_t slots)
{
    struct counted *old = l->pair;
    const size_t n = old == NULL ? 0 : l->mask + 1;

    l->pair = NULL;
    const mb_status st = MB_NEW_ARRAY(&l->pair, slots);
    if (st != MB_OK) {
        l->pair = old;
        return st;
    }
    l->mask = slots - 1;
    for (size_t i = 0; i < n; i++)
        if (old[i].used)
            *slot_of(l, old[i].pair) = old[i];
    mb_free(old);
    return MB_OK;
}

static mb_status count_pair(struct learner *l, uint64_t pair, int64_t by)
{
    if (l->n_pairs * 2 >= l->mask)
        MB_TRY(resize(l, (l->mask + 1) * 2));
    struct counted *c = slot_of(l, pair);
    l->n_pairs += !c->used;
    *c = (struct counted){pair, c->count + by, true};
    return MB_OK;
}

static mb_status see(struct learner *l, uint64_t pair, uint32_t word)
{
    if (l->n_fresh == l->fresh_capacity)
        MB_TRY(mb_grow((void **)&l->fresh, &l->fresh_capacity, l->n_fresh + 1, sizeof *l->fresh,
                       "pairs"));
    l->fresh[l->n_fresh++] = (struct seen){pair, word};
    return MB_OK;
}

static bool before(const struct entry *a, const struct entry *b)
{
    return a->count != b->count ? a->count > b->count : a->pair < b->pair;
}

static mb_status push(struct learner *l, struct entry e)
{
    if (l->n_heap == l->heap_capacity)
        MB_TRY(
            mb_grow((void **)&l->heap, &l->heap_capacity, l->n_heap + 1, sizeof *l->heap, "pairs"));
    size_t i = l->n_heap++;
    for (; i > 0 && before(&e, &l->heap[(i - 1) / 2]); i = (i - 1) / 2)
        l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = e;
    return MB_OK;
}

static struct entry pop(struct learner *l)
{
    const struct entry top = l->heap[0], last = l->heap[--l->n_heap];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < l->n_heap;) {
        if (child + 1 < l->n_heap && before(&l->heap[child + 1], &l->heap[child]))
            child++;
        if (!before(&l->heap[child], &last))
            break;
        l->heap[i] = l->heap[child];
        i = child;
    }
    l->heap[i] = last;
    return top;
}

static int by_pair(const void *x, const void *y)
{
    const struct seen *a = x, *b = y;

    if (a->pair != b->pair)
        return a->pair < b->pair ? -1 : 1;
    return (a->word > b->word) - (a->word < b->word);
}

/* Heap entries for the pairs seen since the last time. */
static mb_status flush(struct learner *l)
{
    struct block *block = NULL;
    size_t n = 0;

    if (l->n_fresh == 0)
        return MB_OK;
    qsort(l->fresh, l->n_fresh, sizeof *l->fresh, by_pair);
    MB_TRY(mb_alloc(sizeof *block + l->n_fresh * sizeof block->word[0], "words of pairs",
                    (void **)&block));
    block->live = 1;
    mb_status st = MB_OK;
    for (size_t i = 0; i < l->n_fresh && st == MB_OK;) {
        const uint64_t pair = l->fresh[i].pair;
        const size_t first = n;
        for (; i < l->n_fresh && l->fresh[i].pair == pair; i++)
            if (n == first || block->word[n - 1] != l->fresh[i].word)
                block->word[n++] = l->fresh[i].word;
        const int64_t count = slot_of(l, pair)->count;
        if (count <= 0)
            continue;
        st = push(l, (struct entry){count, pair, block, block->word + first, n - first});
        block->live += st == MB_OK;
    }
    l->n_fresh = 0;
    if (--block->live == 0)
        mb_free(block);
    return st;
}

static mb_status begin(const tok_bpe_input *in, struct learner *l)
{
    const tok_words *w = in->words;

    l->words = w;
    MB_REQUIRE(w->n < UINT32_MAX, MB_EDATA, "%zu distinct words are too many", w->n);
    MB_TRY(MB_NEW_ARRAY(&l->begin, w->n + 1));
    MB_TRY(MB_NEW_ARRAY(&l->length, w->n + 1));
    MB_TRY(resize(l, 1 << 16));
    for (size_t i = 0; i < w->n; i++) {
        l->begin[i] = l->symbols.n;
        MB_TRY(in->spell(in->with, w->at[i].p, w->at[i].n, &l->symbols));
        l->length[i] = (uint32_t)(l->symbols.n - l->begin[i]);
        const int32_t *s = l->symbols.id + l->begin[i];
        for (uint32_t k = 0; k + 1 < l->length[i]; k++) {
            if (s[k] < 0 || s[k + 1] < 0)
                continue;
            MB_TRY(count_pair(l, pair_of(s[k], s[k + 1]), w->at[i].count));
            MB_TRY(see(l, pair_of(s[k], s[k + 1]), (uint32_t)i));
        }
    }
    return flush(l);
}

/* Joins a pair wherever it is in a word, left to right. */
static mb_status join_in(struct learner *l, uint32_t word, int32_t left, int32_t right, int32_t id)
{
    int32_t *s = l->symbols.id + l->begin[word];
    const int64_t count = l->words->at[word].count;
    uint32_t n = l->length[word];

    for (uint32_t i = 0; i + 1 < n; i++) {
        if (s[i] != left || s[i + 1] != right)
            continue;
        if (i > 0 && s[i - 1] >= 0) {
            MB_TRY(count_pair(l, pair_of(s[i - 1], left), -count));
            MB_TRY(count_pair(l, pair_of(s[i - 1], id), count));
            MB_TRY(see(l, pair_of(s[i - 1], id), word));
        }
        if (i + 2 < n && s[i + 2] >= 0) {
            MB_TRY(count_pair(l, pair_of(right, s[i + 2]), -count));
            MB_TRY(count_pair(l, pair_of(id, s[i + 2]), count));
            MB_TRY(see(l, pair_of(id, s[i + 2]), word));
        }
        s[i] = id;
        memmove(s + i + 1, s + i + 2, (n - i - 2) * sizeof *s);
        n--;
    }
    l->length[word] = n;
    return MB_OK;
}

/* The id of left and right together; a new one if there is no such token. */
static mb_status token_of(const tok_bpe_input *in, mb_vocab *vocab, const mb_ids *place,
                          int32_t left, int32_t right, mb_bytes *text, int32_t *id, bool *added)
{
    const size_t prefix = in->prefix == NULL ? 0 : strlen(in->prefix);
    size_t n;
    int32_t same;

    text->n = 0;
    const char *p = mb_vocab_at(vocab, (size_t)place->id[left], &n, &same);
    MB_TRY(mb_bytes_add(text, p, n));
    p = mb_vocab_at(vocab, (size_t)place->id[right], &n, &same);
    const size_t skip =
        n >= prefix && prefix > 0 && memcmp(p, in->prefix, prefix) == 0 ? prefix : 0;
    MB_TRY(mb_bytes_add(text, p + skip, n - skip));
    *added = false;
    *id = mb_vocab_find(vocab, text->p, text->n);
    if (*id >= 0)
        return MB_OK;
    *id = (int32_t)place->n;
    return mb_vocab_add(vocab, text->p, text->n, *id, added);
}

static mb_status learn(const tok_bpe_input *in, struct learner *l, mb_vocab *vocab, tok_merges *out)
{
    mb_ids place = {0}; /* id -> place in the vocabulary */
    mb_bytes text = {0};
    mb_status st = MB_OK;

    MB_TRY_GOTO(begin(in, l), st, done);
    for (size_t i = 0, n; i < mb_vocab_count(vocab); i++) {
        int32_t id;
        mb_vocab_at(vocab, i, &n, &id);
        while (place.n <= (size_t)id)
            MB_TRY_GOTO(mb_ids_push(&place, 0), st, done);
        place.id[id] = (int32_t)i;
    }
    while ((int64_t)place.n < in->vocab_size && l->n_heap > 0) {
        struct entry top = pop(l);
        const int64_t count = slot_of(l, top.pair)->count;
        if (top.count != count && count > 0) {
            top.count = count;
            st = push(l, top);
            if (st != MB_OK)
                goto done;
            continue;
        }
        int32_t id = 0;
        bool added = false;
        bool stop = count < 1 || count < in->min_frequency;
        const bool end = stop && count >= 1;
        const int32_t left = (int32_t)(top.pair >> 32), right = (int32_t)(uint32_t)top.pair;
        if (!stop)
            st = token_of(in, vocab, &place, left, right, &text, &id, &added);
        if (st == MB_OK && !stop && !added && in->may_join != NULL)
            stop = !in->may_join(in->with, id);
        if (st == MB_OK && added)
            st = mb_ids_push(&place, (int32_t)mb_vocab_count(vocab) - 1);
        if (st == MB_OK && !stop)
            st = mb_grow((void **)&out->at, &out->capacity, out->n + 1, sizeof *out->at, "merges");
        if (st == MB_OK && !stop)
            out->at[out->n++] = (tok_merge){left, right, id, count};
        for (size_t i = 0; i < top.n && st == MB_OK && !stop; i++)
            st = join_in(l, top.word[i], left, right, id);
        if (--top.block->live == 0)
            mb_free(top.block);
        if (st == MB_OK && !stop)
            st = flush(l);
        if (st != MB_OK || end)
            break;
    }
done:
    mb_ids_release(&place);
    mb_bytes_release(&text);
    return st;
}

/* Of a pair that was merged twice only the later one counts, as for those who read merges. */
static mb_status drop_repeats(tok_merges *m)
{
    mb_vocab *seen = NULL;
    size_t kept = m->n;
    mb_status st = MB_OK;
    bool fresh;

    MB_TRY(mb_vocab_new(m->n, &seen));
    for (size_t i = m->n; i-- > 0 && st == MB_OK;) {
        const int32_t pair[2] = {m->at[i].left, m->at[i].right};
        st = mb_vocab_add(seen, (const char *)pair, sizeof pair, 0, &fresh);
        if (fresh)
            m->at[--kept] = m->at[i];
    }
    memmove(m->at, m->at + kept, (m->n - kept) * sizeof *m->at);
    m->n -= kept;
    mb_vocab_free(seen);
    return st;
}

mb_status tok_learn_bpe(const tok_bpe_input *in, mb_vocab *vocab, tok_merges *out)
{
    struct learner l = {0};
    mb_status st = learn(in, &l, vocab, out);

    for (size_t i = 0; i < l.n_heap; i++)
        if (--l.heap[i].block->live == 0)
            mb_free(l.heap[i].block);
    mb_free(l.heap);
    mb_free(l.fresh);
    mb_free(l.pair);
    mb_free(l.begin);
    mb_free(l.length);
    mb_ids_release(&l.symbols);
    if (st == MB_OK && out->n > 0)
        st = drop_repeats(out);
    return st;
}
