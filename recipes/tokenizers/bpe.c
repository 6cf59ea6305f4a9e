/* recipes/tokenizers/bpe.c - byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909).
 *
 * A word begins as a list of characters. As long as there is a neighbouring pair that the merge
 * table knows, the pair of lowest rank (the leftmost of them) becomes one symbol. Short words are
 * scanned for the lowest pair again and again; long ones keep a heap of pairs beside the linked
 * list of symbols, so n characters take n log n steps whatever they are. A heap entry whose rank is
 * no longer that of the pair at its place is stale.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/model.h"

enum { SHORT_WORD = 24, TABLE_CHARS = 512 };

struct merge {
    uint64_t pair; /* left id << 32 | right id; NONE is a free slot */
    uint32_t rank;
    int32_t id;
};
#define NONE UINT64_MAX

struct bpe {
    const mb_vocab *vocab;
    struct merge *merge; /* open addressing */
    size_t mask;
    int32_t of_char[TABLE_CHARS]; /* ids of one-character tokens, -1 when there is none */
    int32_t of_byte[256];         /* ids of "<0x00>".., byte_fallback only */
    mb_bytes unknown, prefix, suffix;
    int32_t unknown_id;
    bool fuse_unknown, byte_fallback, ignore_merges;
};

struct symbol {
    int32_t id;
    int32_t before, after; /* -1: none */
    bool dead;
};

struct work {
    struct symbol *symbol;
    size_t n, capacity;
    uint64_t *heap; /* rank << 32 | place: the smallest is the next to merge */
    size_t n_heap, heap_capacity;
    mb_bytes text;
};

static size_t hash_pair(uint64_t pair)
{
    pair *= 0x9e3779b97f4a7c15u;
    return (size_t)(pair ^ pair >> 32);
}

static const struct merge *find_merge(const struct bpe *b, int32_t left, int32_t right)
{
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    for (size_t s = hash_pair(pair) & b->mask;; s = (s + 1) & b->mask) {
        if (b->merge[s].pair == pair)
            return &b->merge[s];
        if (b->merge[s].pair == NONE)
            return NULL;
    }
}

/* A later merge of the same pair replaces the earlier one. */
static void put_merge(struct bpe *b, struct merge m)
{
    size_t s = hash_pair(m.pair) & b->mask;

    while (b->merge[s].pair != NONE && b->merge[s].pair != m.pair)
        s = (s + 1) & b->mask;
    b->merge[s] = m;
}

static void release(void *model)
{
    struct bpe *b = model;

    if (b == NULL)
        return;
    mb_free(b->merge);
    mb_bytes_release(&b->unknown);
    mb_bytes_release(&b->prefix);
    mb_bytes_release(&b->suffix);
    mb_free(b);
}

/* The two halves of a merge: "a b" or ["a", "b"]. */
static mb_status merge_halves(mb_json v, const char *half[2], size_t n[2])
{
    if (mb_json_is(v, MB_JSON_ARRAY)) {
        if (mb_json_count(v) != 2)
            return mb_json_fault(v, "must be a pair of tokens, not %zu", mb_json_count(v));
        MB_TRY(mb_json_string(mb_json_at(v, 0), &half[0], &n[0]));
        return mb_json_string(mb_json_at(v, 1), &half[1], &n[1]);
    }
    MB_TRY(mb_json_string(v, &half[0], &n[0]));
    const char *space = strchr(half[0], ' ');
    if (space == NULL || strchr(space + 1, ' ') != NULL)
        return mb_json_fault(v, "must be two tokens with one space between them");
    half[1] = space + 1;
    n[1] = n[0] - (size_t)(half[1] - half[0]);
    n[0] = (size_t)(space - half[0]);
    return MB_OK;
}

static mb_status read_merge(struct bpe *b, mb_json v, uint32_t rank, mb_bytes *joined)
{
    const char *half[2];
    size_t n[2];
    int32_t id[3];

    MB_TRY(merge_halves(v, half, n));
    if (n[1] < b->prefix.n)
        return mb_json_fault(v, "has a second half shorter than continuing_subword_prefix");
    joined->n = 0;
    MB_TRY(mb_bytes_add(joined, half[0], n[0]));
    MB_TRY(mb_bytes_add(joined, half[1] + b->prefix.n, n[1] - b->prefix.n));
    MB_TRY(mb_bytes_end(joined));
    for (int i = 0; i < 3; i++) {
        const char *token = i < 2 ? half[i] : joined->p;
        const size_t bytes = i < 2 ? n[i] : joined->n;
        id[i] = mb_vocab_find(b->vocab, token, bytes);
        if (id[i] < 0)
            return mb_json_fault(v, "needs the token \"%.*s\", which is not in the vocab",
                                 (int)(bytes < 60 ? bytes : 60), token);
    }
    put_merge(b, (struct merge){(uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1], rank, id[2]});
    return MB_OK;
}

static mb_status read_merges(struct bpe *b, mb_json merges)
{
    const size_t n = mb_json_count(merges);
    size_t slots = 16, i = 0;
    mb_bytes joined = {0};
    mb_status st = MB_OK;

    if (n > INT32_MAX)
        return mb_json_fault(merges, "has %zu entries", n);
    while (slots < 2 * n + 2)
        slots *= 2;
    MB_TRY(MB_NEW_ARRAY(&b->merge, slots));
    b->mask = slots - 1;
    for (size_t s = 0; s < slots; s++)
        b->merge[s].pair = NONE;
    for (mb_json_it it = mb_json_first(merges); mb_json_more(&it); mb_json_next(&it))
        MB_TRY_GOTO(read_merge(b, it.value, (uint32_t)i++, &joined), st, done);
done:
    mb_bytes_release(&joined);
    return st;
}

static mb_status read_settings(mb_json model, const char *where, mb_vocab *vocab, struct bpe *b)
{
    mb_json v;
    double dropout;

    MB_TRY(mb_json_need(model, "vocab", MB_JSON_OBJECT, &v));
    MB_TRY(tok_vocab_read(v, vocab));
    b->vocab = vocab;
    MB_TRY(mb_json_get_real(model, "dropout", 0.0, &dropout));
    MB_REQUIRE(dropout == 0.0, MB_ENOTSUP, "%s: BPE dropout %g is not supported (only 0 or null)",
               where, dropout);
    MB_TRY(tok_read_content(model, "unk_token", "", &b->unknown));
    MB_TRY(mb_bytes_end(&b->unknown));
    MB_TRY(tok_read_content(model, "continuing_subword_prefix", "", &b->prefix));
    MB_TRY(tok_read_content(model, "end_of_word_suffix", "", &b->suffix));
    MB_TRY(mb_json_get_bool(model, "fuse_unk", false, &b->fuse_unknown));
    MB_TRY(mb_json_get_bool(model, "byte_fallback", false, &b->byte_fallback));
    MB_TRY(mb_json_get_bool(model, "ignore_merges", false, &b->ignore_merges));
    b->unknown_id = b->unknown.n == 0 ? -1 : mb_vocab_find(vocab, b->unknown.p, b->unknown.n);
    MB_TRY(mb_json_need(model, "merges", MB_JSON_ARRAY, &v));
    return read_merges(b, v);
}

static void fill_tables(struct bpe *b)
{
    char name[8];

    for (uint32_t c = 0; c < TABLE_CHARS; c++) {
        const size_t n = mb_utf8_put(c, name);
        b->of_char[c] = mb_vocab_find(b->vocab, name, n);
    }
    tok_byte_ids(b->vocab, b->of_byte);
}

static mb_status load(mb_json model, const char *where, mb_vocab *vocab, void **out)
{
    struct bpe *b = NULL;

    MB_TRY(MB_NEW(&b));
    const mb_status st = read_settings(model, where, vocab, b);
    if (st != MB_OK) {
        release(b);
        return st;
    }
    fill_tables(b);
    *out = b;
    return MB_OK;
}

static void work_release(void *work)
{
    struct work *w = work;

    mb_free(w->symbol);
    mb_free(w->heap);
    mb_bytes_release(&w->text);
}

static mb_status add_symbol(struct work *w, int32_t id)
{
    if (w->n == w->capacity)
        MB_TRY(mb_grow((void **)&w->symbol, &w->capacity, w->n + 1, sizeof *w->symbol, "word"));
    w->symbol[w->n] = (struct symbol){id, (int32_t)w->n - 1, (int32_t)w->n + 1, false};
    w->n++;
    return MB_OK;
}

/* The id of the character at p[0..n), with prefix and suffix where they belong. */
static mb_status char_id(const struct bpe *b, struct work *w, const char *p, size_t n, bool first,
                         bool last, const char **token, size_t *bytes, int32_t *id)
{
    *token = p;
    *bytes = n;
    if ((!first && b->prefix.n > 0) || (last && b->suffix.n > 0)) {
        w->text.n = 0;
        if (!first)
            MB_TRY(mb_bytes_add(&w->text, b->prefix.p, b->prefix.n));
        MB_TRY(mb_bytes_add(&w->text, p, n));
        if (last)
            MB_TRY(mb_bytes_add(&w->text, b->suffix.p, b->suffix.n));
        *token = w->text.p;
        *bytes = w->text.n;
    } else if (n <= 2) {
        uint32_t c;
        mb_utf8_get(p, p + n, &c);
        if (c < TABLE_CHARS) {
            *id = b->of_char[c];
            return MB_OK;
        }
    }
    *id = mb_vocab_find(b->vocab, *token, *bytes);
    return MB_OK;
}

/* All bytes of a token as "<0x..>" tokens, if each of them exists. */
static mb_status fall_back(const struct bpe *b, struct work *w, const char *p, size_t n, bool *done)
{
    *done = false;
    for (size_t i = 0; i < n; i++)
        if (b->of_byte[(uint8_t)p[i]] < 0)
            return MB_OK;
    for (size_t i = 0; i < n; i++)
        MB_TRY(add_symbol(w, b->of_byte[(uint8_t)p[i]]));
    *done = true;
    return MB_OK;
}

/* The word as symbols. A character that is in no way known becomes the unknown token (fused with
 * its neighbours if so set) or, without one, nothing. */
static mb_status spell(const struct bpe *b, struct work *w, const char *word, size_t n)
{
    const char *end = word + n, *token;
    bool pending = false, done;
    size_t bytes = 0;
    int32_t id = -1;

    w->n = 0;
    for (const char *p = word; p < end;) {
        uint32_t c;
        const size_t len = mb_utf8_get(p, end, &c);
        MB_TRY(char_id(b, w, p, len, p == word, p + len == end, &token, &bytes, &id));
        p += len;
        if (id >= 0) {
            if (pending)
                MB_TRY(add_symbol(w, b->unknown_id));
            pending = false;
            MB_TRY(add_symbol(w, id));
            continue;
        }
        if (b->byte_fallback) {
            MB_TRY(fall_back(b, w, token, bytes, &done));
            if (done)
                continue;
        }
        if (b->unknown.n == 0)
            continue;
        MB_REQUIRE(b->unknown_id >= 0, MB_EMODEL,
                   "the tokenizer's unknown token \"%.60s\" is needed but not in its vocab",
                   b->unknown.p);
        if (pending && !b->fuse_unknown)
            MB_TRY(add_symbol(w, b->unknown_id));
        pending = true;
    }
    if (pending)
        MB_TRY(add_symbol(w, b->unknown_id));
    if (w->n > 0)
        w->symbol[w->n - 1].after = -1;
    return MB_OK;
}

static void merge_short(const struct bpe *b, struct work *w)
{
    struct symbol *s = w->symbol;
    const struct merge *pair[SHORT_WORD];
    size_t n = w->n;

    for (size_t i = 0; i + 1 < n; i++)
        pair[i] = find_merge(b, s[i].id, s[i + 1].id);
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++)
            if (pair[i] != NULL && (best == n || pair[i]->rank < pair[best]->rank))
                best = i;
        if (best == n)
            break;
        s[best].id = pair[best]->id;
        n--;
        for (size_t i = best + 1; i < n; i++) {
            s[i].id = s[i + 1].id;
            pair[i - 1] = pair[i];
        }
        if (best > 0)
            pair[best - 1] = find_merge(b, s[best - 1].id, s[best].id);
        if (best + 1 < n)
            pair[best] = find_merge(b, s[best].id, s[best + 1].id);
    }
    w->n = n;
}

/* A heap in which every node has four children: half as deep as one with two. */
static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    const uint64_t x = heap[i];

    for (size_t child; (child = 4 * i + 1) < n;) {
        const size_t end = child + 4 < n ? child + 4 : n;
        size_t least = child;
        for (size_t k = child + 1; k < end; k++)
            least = heap[k] < heap[least] ? k : least;
        if (heap[least] >= x)
            break;
        heap[i] = heap[least];
        i = least;
    }
    heap[i] = x;
}

static mb_status push_pair(const struct bpe *b, struct work *w, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return MB_OK;
    const struct merge *m = find_merge(b, w->symbol[left].id, w->symbol[right].id);
    if (m == NULL)
        return MB_OK;
    if (w->n_heap == w->heap_capacity)
        MB_TRY(
            mb_grow((void **)&w->heap, &w->heap_capacity, w->n_heap + 1, sizeof *w->heap, "word"));
    const uint64_t x = (uint64_t)m->rank << 32 | (uint32_t)left;
    size_t i = w->n_heap++;
    for (; i > 0 && x < w->heap[(i - 1) / 4]; i = (i - 1) / 4)
        w->heap[i] = w->heap[(i - 1) / 4];
    w->heap[i] = x;
    return MB_OK;
}

static mb_status merge_long(const struct bpe *b, struct work *w)
{
    struct symbol *s = w->symbol;

    w->n_heap = 0;
    for (size_t i = 0; i + 1 < w->n; i++)
        MB_TRY(push_pair(b, w, (int32_t)i, (int32_t)i + 1));
    while (w->n_heap > 0) {
        const uint64_t top = w->heap[0];
        const int32_t at = (int32_t)(uint32_t)top;
        w->heap[0] = w->heap[--w->n_heap];
        if (w->n_heap > 0)
            sift_down(w->heap, w->n_heap, 0);
        struct symbol *left = &s[at];
        if (left->dead || left->after < 0)
            continue;
        struct symbol *right = &s[left->after];
        const struct merge *m = find_merge(b, left->id, right->id);
        if (m == NULL || m->rank != top >> 32)
            continue;
        left->id = m->id;
        left->after = right->after;
        right->dead = true;
        if (left->after >= 0)
            s[left->after].before = at;
        MB_TRY(push_pair(b, w, left->before, at));
        MB_TRY(push_pair(b, w, at, left->after));
    }
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++)
        if (!s[i].dead)
            s[n++].id = s[i].id;
    w->n = n;
    return MB_OK;
}

static mb_status merge_word(const struct bpe *b, struct work *w, const char *word, size_t n,
                            mb_ids *out)
{
    MB_REQUIRE(n < INT32_MAX, MB_EDATA, "a word of %zu bytes is too long for BPE", n);
    MB_TRY(spell(b, w, word, n));
    if (w->n <= SHORT_WORD)
        merge_short(b, w);
    else
        MB_TRY(merge_long(b, w));
    for (size_t i = 0; i < w->n; i++)
        MB_TRY(mb_ids_push(out, w->symbol[i].id));
    return MB_OK;
}

static mb_status encode(const void *model, void *work, const char *word, size_t n,
                        const uint8_t *barred, mb_ids *out)
{
    const struct bpe *b = model;

    if (b->ignore_merges) {
        const int32_t id = mb_vocab_find(b->vocab, word, n);
        if (id >= 0 && (barred == NULL || !barred[id]))
            return mb_ids_push(out, id);
    }
    return merge_word(b, work, word, n, out);
}

static const char *unknown(const void *model)
{
    return ((const struct bpe *)model)->unknown.p;
}

const tok_model mb_tok_bpe = {.type = "BPE",
                              .load = load,
                              .free = release,
                              .work_bytes = sizeof(struct work),
                              .work_release = work_release,
                              .encode = encode,
                              .unknown = unknown};
