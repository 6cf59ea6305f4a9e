/* recipes/tokenizers/words.c - counting the words of text files.
 *
 * A block of lines is read, cut by all threads into tables of their own, and these are added up in
 * the order of the threads; sums of integers do not depend on it. When there are more distinct
 * words than allowed, those seen least often so far are dropped, which is decided after whole blocks
 * and so does not depend on the threads either.
 */
#include "recipes/tokenizers/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"

#ifdef _OPENMP
#include <omp.h>
#endif

enum { CHUNK = 1 << 20, BLOCK = 32 << 20, MAX_LINE = 256 << 20, HELD = 16 << 20 };

struct table {
    mb_vocab *vocab;
    int64_t *count;
    size_t capacity;
    int64_t too_long;
    mb_status st; /* of the thread that fills it */
    char sentence[512];
};

static mb_status table_new(struct table *t)
{
    *t = (struct table){0};
    return mb_vocab_new(1024, &t->vocab);
}

static void table_release(struct table *t)
{
    mb_vocab_free(t->vocab);
    mb_free(t->count);
    *t = (struct table){0};
}

static mb_status table_add(struct table *t, const char *p, size_t n, int64_t count)
{
    int32_t id = mb_vocab_find(t->vocab, p, n);
    bool added;

    if (id < 0) {
        id = (int32_t)mb_vocab_count(t->vocab);
        MB_TRY(mb_grow((void **)&t->count, &t->capacity, (size_t)id + 1, sizeof *t->count,
                       "word counts"));
        MB_TRY(mb_vocab_add(t->vocab, p, n, id, &added));
        t->count[id] = 0;
    }
    t->count[id] += count;
    return MB_OK;
}

static mb_status take_part(struct table *t, const char *p, size_t n)
{
    if (n <= TOK_MAX_TOKEN_BYTES)
        return table_add(t, p, n, 1);
    t->too_long++;
    return MB_OK;
}

/* A word, cut before every U+2581 that follows something else: that is where words begin for
 * tokenizers that do not cut them before. */
static mb_status take_word(void *with, const char *p, size_t n)
{
    static const char mark[] = "\xe2\x96\x81";
    size_t begin = 0;

    for (size_t i = 0; i + 3 <= n;) {
        if (memcmp(p + i, mark, 3) != 0) {
            i++;
            continue;
        }
        if (i > begin && (i < begin + 3 || memcmp(p + i - 3, mark, 3) != 0)) {
            MB_TRY(take_part(with, p + begin, i - begin));
            begin = i;
        }
        i += 3;
    }
    return take_part(with, p + begin, n - begin);
}

struct lines {
    const char *file;
    int64_t first; /* number of the first line, from 1 */
    mb_bytes text;
    mb_spans at;
};

static mb_status count_lines(const mb_tokenizer *t, const struct lines *l, size_t begin, size_t end,
                             struct table *table)
{
    for (size_t i = begin; i < end; i++) {
        const mb_span at = l->at.at[i];
        size_t bad;
        MB_REQUIRE(mb_utf8_check(l->text.p + at.begin, at.end - at.begin, &bad), MB_EDATA,
                   "%s: line %lld is not UTF-8 at byte %zu", l->file,
                   (long long)(l->first + (int64_t)i), bad);
        MB_TRY(tok_each_word(t, l->text.p + at.begin, at.end - at.begin, take_word, table));
    }
    return MB_OK;
}

/* The counts of a block, added to `all`. */
static mb_status count_block(const mb_tokenizer *t, const struct lines *l, struct table *all)
{
#ifdef _OPENMP
    const int threads = omp_get_max_threads();
#else
    const int threads = 1;
#endif
    struct table *part = NULL;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&part, threads));
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int k = 0; k < threads; k++) {
        const size_t n = l->at.n, begin = n * (size_t)k / (size_t)threads,
                     end = n * ((size_t)k + 1) / (size_t)threads;
        struct table *own = &part[k];
        mb_status mine = table_new(own);
        if (mine == MB_OK)
            mine = count_lines(t, l, begin, end, own);
        own->st = mine;
        if (mine != MB_OK)
            snprintf(own->sentence, sizeof own->sentence, "%s", mb_status_sentence());
    }
    for (int k = 0; k < threads && st == MB_OK; k++) {
        if (part[k].st != MB_OK) {
            mb_status_clear();
            st = MB_RAISE(part[k].st, "%s", part[k].sentence);
            break;
        }
        all->too_long += part[k].too_long;
        for (size_t i = 0; i < mb_vocab_count(part[k].vocab) && st == MB_OK; i++) {
            size_t n;
            int32_t id;
            const char *p = mb_vocab_at(part[k].vocab, i, &n, &id);
            st = table_add(all, p, n, part[k].count[id]);
        }
    }
    for (int k = 0; k < threads; k++)
        table_release(&part[k]);
    mb_free(part);
    return st;
}

/* Drops the words seen least often until at most `most` are left. */
static mb_status drop_rare(struct table *all, size_t most, int64_t *dropped)
{
    struct table kept = {0};
    int64_t floor = 1;
    size_t left;

    if (mb_vocab_count(all->vocab) <= most)
        return MB_OK;
    do {
        floor++;
        left = 0;
        for (size_t i = 0; i < mb_vocab_count(all->vocab); i++)
            left += all->count[i] >= floor;
    } while (left > most / 4 * 3);
    mb_status st = table_new(&kept);
    kept.too_long = all->too_long;
    for (size_t i = 0; i < mb_vocab_count(all->vocab) && st == MB_OK; i++) {
        size_t n;
        int32_t id;
        const char *p = mb_vocab_at(all->vocab, i, &n, &id);
        if (all->count[id] >= floor)
            st = table_add(&kept, p, n, all->count[id]);
        else
            *dropped += all->count[id];
    }
    table_release(all);
    *all = kept;
    return st;
}

static mb_status add_line(struct lines *l, const char *p, size_t n, bool ends)
{
    const size_t begin = l->text.n;

    if (!ends)
        while (n > 0 && (p[n - 1] == '\n' || p[n - 1] == '\r'))
            n--;
    MB_TRY(mb_bytes_add(&l->text, p, n));
    return mb_spans_push(&l->at, begin, l->text.n, false);
}

/* Counts the lines gathered so far. */
static mb_status settle(const mb_tokenizer *t, struct lines *l, size_t most, struct table *all,
                        tok_words *out)
{
    MB_TRY(count_block(t, l, all));
    MB_TRY(drop_rare(all, most, &out->dropped));
    l->first += (int64_t)l->at.n;
    l->text.n = l->at.n = 0;
    return MB_OK;
}

/* Takes the whole lines of `raw`, at the end of the file also the last one without an end. */
static mb_status take_lines(struct lines *l, mb_bytes *raw, bool last, bool ends, int hold,
                            tok_words *out)
{
    size_t at = 0;

    while (at < raw->n) {
        const char *end = memchr(raw->p + at, '\n', raw->n - at);
        if (end == NULL && !last)
            break;
        const size_t n = end == NULL ? raw->n - at : (size_t)(end - raw->p) + 1 - at;
        out->lines++;
        const bool held = hold > 0 && out->lines % hold == 0;
        MB_TRY(add_line(l, raw->p + at, held ? 0 : n, ends));
        if (held && out->held.n + n <= HELD)
            MB_TRY(mb_bytes_add(&out->held, raw->p + at, n));
        out->bytes += (int64_t)n;
        at += n;
    }
    raw->n -= at;
    if (raw->n > 0)
        memmove(raw->p, raw->p + at, raw->n);
    return MB_OK;
}

static mb_status count_file(const mb_tokenizer *t, const char *path, bool ends, int hold,
                            size_t most, struct table *all, tok_words *out)
{
    struct lines l = {.file = path, .first = 1};
    mb_bytes raw = {0};
    size_t got;
    mb_status st = MB_OK;
    FILE *f = fopen(path, "rb");

    MB_REQUIRE(f != NULL, MB_EDATA, "'%s' cannot be opened", path);
    do {
        MB_TRY_GOTO(mb_bytes_reserve(&raw, CHUNK), st, done);
        got = fread(raw.p + raw.n, 1, CHUNK, f);
        raw.n += got;
        MB_TRY_GOTO(take_lines(&l, &raw, got < CHUNK, ends, hold, out), st, done);
        if (raw.n > MAX_LINE) {
            st = MB_RAISE(MB_EDATA, "%s: line %lld has more than %d bytes", path,
                          (long long)(l.first + (int64_t)l.at.n), MAX_LINE);
            goto done;
        }
        if (l.at.n > 0 && (l.text.n >= BLOCK || got < CHUNK))
            MB_TRY_GOTO(settle(t, &l, most, all, out), st, done);
    } while (got == CHUNK);
    if (ferror(f))
        st = MB_RAISE(MB_EDATA, "'%s' cannot be read to its end", path);
done:
    fclose(f);
    mb_bytes_release(&raw);
    mb_bytes_release(&l.text);
    mb_spans_release(&l.at);
    return st;
}

static int frequent_first(const void *x, const void *y)
{
    const tok_word *a = x, *b = y;

    if (a->count != b->count)
        return a->count > b->count ? -1 : 1;
    const int order = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    return order != 0 ? order : (a->n > b->n) - (a->n < b->n);
}

mb_status tok_words_count(const mb_tokenizer *t, const char *const *files, size_t n_files,
                          bool ends, int hold, int64_t max_words, tok_words *out)
{
    struct table all = {0};
    mb_status st = table_new(&all);

    *out = (tok_words){0};
    for (size_t i = 0; i < n_files && st == MB_OK; i++)
        st = count_file(t, files[i], ends, hold, (size_t)max_words, &all, out);
    if (st == MB_OK)
        st = MB_NEW_ARRAY(&out->at, mb_vocab_count(all.vocab) + 1);
    if (st != MB_OK) {
        table_release(&all);
        tok_words_release(out);
        return st;
    }
    out->n = mb_vocab_count(all.vocab);
    for (size_t i = 0; i < out->n; i++) {
        size_t n;
        int32_t id;
        const char *p = mb_vocab_at(all.vocab, i, &n, &id);
        out->at[i] = (tok_word){p, (uint32_t)n, all.count[id]};
    }
    qsort(out->at, out->n, sizeof *out->at, frequent_first);
    out->vocab = all.vocab;
    out->count = all.count;
    out->too_long = all.too_long;
    return MB_OK;
}

void tok_words_release(tok_words *w)
{
    mb_vocab_free(w->vocab);
    mb_free(w->count);
    mb_free(w->at);
    mb_bytes_release(&w->held);
    *w = (tok_words){0};
}
