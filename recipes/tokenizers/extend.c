/* recipes/tokenizers/extend.c - more tokens for the tokenizer of a model. */
#include "recipes/tokenizers/extend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/learn.h"

enum { HOLD = 10, LEAST_PAIRS = 2 };

struct extender {
    const mb_tokenizer *t;
    tok_encoder encoder;
    bool bpe, unigram;
    uint8_t *fixed; /* by id: joined with nothing */
    mb_vocab *vocab;
    tok_words words;
    tok_merges merges;
    int64_t symbols; /* tokens of all words before */
    size_t *maker;   /* by new token: the merge that made it */
};

static bool may_join(void *with, int32_t id)
{
    const struct extender *x = with;

    if (id >= x->t->n_entries)
        return true;
    return x->bpe && !x->fixed[id]; /* the others would have found the token themselves */
}

static mb_status spell(void *with, const char *p, size_t n, mb_ids *out)
{
    struct extender *x = with;
    const size_t first = out->n;

    MB_TRY(tok_encoder_word(&x->encoder, p, n, x->t->barred, out));
    for (size_t i = first; i < out->n; i++)
        if (x->fixed[out->id[i]])
            out->id[i] = -1;
    return MB_OK;
}

static mb_status mark_fixed(struct extender *x)
{
    const mb_tokenizer *t = x->t;

    MB_TRY(MB_NEW_ARRAY(&x->fixed, t->n_entries));
    MB_TRY(mb_vocab_new((size_t)t->n_entries, &x->vocab));
    for (int32_t id = 0; id < t->n_entries; id++) {
        const tok_entry *e = &t->entry[id];
        bool added;
        if (e->token == NULL)
            continue;
        MB_TRY(mb_vocab_add(x->vocab, e->token, e->n, id, &added));
        x->fixed[id] = e->added >= 0 || e->special || id == t->role[MB_TOKEN_UNK] ||
                       tok_fallback_byte(e->token, e->n) >= 0;
    }
    return MB_OK;
}

static mb_status learn(struct extender *x, int64_t add, int64_t max_words, const char *const *files,
                       size_t n_files)
{
    mb_ids ids = {0};
    mb_status st = MB_OK;

    MB_TRY(mark_fixed(x));
    MB_TRY(tok_encoder_init(&x->encoder, x->t->model, x->t->model_data));
    MB_TRY(tok_words_count(x->t, files, n_files, x->bpe, HOLD, max_words, &x->words));
    MB_REQUIRE(x->words.n > 0, MB_EDATA, "the files have no words to learn from");
    for (size_t i = 0; i < x->words.n && st == MB_OK; i++) {
        ids.n = 0;
        st = spell(x, x->words.at[i].p, x->words.at[i].n, &ids);
        x->symbols += (int64_t)ids.n * x->words.at[i].count;
    }
    mb_ids_release(&ids);
    MB_TRY(st);
    const tok_bpe_input in = {.words = &x->words,
                              .vocab_size = x->t->n_entries + add,
                              .min_frequency = LEAST_PAIRS,
                              .spell = spell,
                              .may_join = may_join,
                              .with = x,
                              .prefix = x->bpe || x->unigram ? NULL : "##"};
    return tok_learn_bpe(&in, x->vocab, &x->merges);
}

static const char *text_of(const struct extender *x, int32_t id, size_t *n)
{
    int32_t found;

    /* Old ones lie in the order of ids without gaps for ids that have no token: search from there. */
    for (size_t i = (size_t)id < mb_vocab_count(x->vocab) ? (size_t)id
                                                          : mb_vocab_count(x->vocab) - 1;
         ; i--) {
        const char *p = mb_vocab_at(x->vocab, i, n, &found);
        if (found == id)
            return p;
        if (i == 0)
            MB_BUG("token %d is not there", (int)id);
    }
}

/* The merge that made each new token: its halves were there before. Others that give it came later. */
static mb_status find_makers(struct extender *x, mb_tok_extension *out)
{
    const int32_t first = x->t->n_entries;
    int32_t end = first;

    for (size_t i = 0; i < x->merges.n; i++)
        end = x->merges.at[i].id >= end ? x->merges.at[i].id + 1 : end;
    out->first = first;
    out->n = end - first;
    MB_TRY(MB_NEW_ARRAY(&x->maker, out->n + 1));
    for (size_t i = 0; i < x->merges.n; i++) {
        const tok_merge *m = &x->merges.at[i];
        if (m->id >= first && m->left < m->id && m->right < m->id)
            x->maker[m->id - first] = i;
    }
    return MB_OK;
}

/* The old tokens each new one is made of. */
static mb_status find_parts(struct extender *x, mb_tok_extension *out)
{
    MB_TRY(find_makers(x, out));
    MB_TRY(MB_NEW_ARRAY(&out->begin, out->n + 1));
    for (int32_t k = 0; k < out->n; k++) {
        const tok_merge *m = &x->merges.at[x->maker[k]];
        const int32_t half[2] = {m->left, m->right};
        for (int h = 0; h < 2; h++) {
            if (half[h] < out->first) {
                MB_TRY(mb_ids_push(&out->parts, half[h]));
                continue;
            }
            const size_t from = out->begin[half[h] - out->first],
                         to = out->begin[half[h] - out->first + 1];
            for (size_t j = from; j < to; j++)
                MB_TRY(mb_ids_push(&out->parts, out->parts.id[j]));
        }
        out->begin[k + 1] = out->parts.n;
    }
    return MB_OK;
}

static mb_status set_text(mb_json to, const char *key, const char *p, size_t n)
{
    char *copy = NULL;

    MB_TRY(mb_strndup(p, n, &copy));
    const mb_status st = mb_json_set_string(to, key, copy);
    mb_free(copy);
    return st;
}

static mb_status edit_bpe(const struct extender *x, mb_json model, const mb_tok_extension *out)
{
    const mb_json vocab = mb_json_get(model, "vocab"), merges = mb_json_get(model, "merges");
    const bool strings = mb_json_is(mb_json_at(merges, 0), MB_JSON_STRING);
    mb_bytes line = {0};
    mb_status st = MB_OK;
    size_t n, n2;

    for (int32_t id = out->first; id < out->first + out->n; id++) {
        const char *p = text_of(x, id, &n);
        line.n = 0;
        MB_TRY_GOTO(mb_bytes_add(&line, p, n), st, done);
        MB_TRY_GOTO(mb_bytes_end(&line), st, done);
        MB_TRY_GOTO(mb_json_set_int(vocab, line.p, id), st, done);
    }
    for (size_t i = 0; i < x->merges.n; i++) {
        const char *left = text_of(x, x->merges.at[i].left, &n);
        const char *right = text_of(x, x->merges.at[i].right, &n2);
        mb_json pair;
        if (strings) {
            line.n = 0;
            MB_TRY_GOTO(mb_bytes_add(&line, left, n), st, done);
            MB_TRY_GOTO(mb_bytes_add(&line, " ", 1), st, done);
            MB_TRY_GOTO(mb_bytes_add(&line, right, n2), st, done);
            MB_TRY_GOTO(set_text(merges, NULL, line.p, line.n), st, done);
            continue;
        }
        MB_TRY_GOTO(mb_json_set_array(merges, NULL, &pair), st, done);
        MB_TRY_GOTO(set_text(pair, NULL, left, n), st, done);
        MB_TRY_GOTO(set_text(pair, NULL, right, n2), st, done);
    }
done:
    mb_bytes_release(&line);
    return st;
}

static mb_status edit_wordpiece(const struct extender *x, mb_json model,
                                const mb_tok_extension *out)
{
    const mb_json vocab = mb_json_get(model, "vocab");
    size_t n;

    for (int32_t id = out->first; id < out->first + out->n; id++) {
        char *copy = NULL;
        const char *p = text_of(x, id, &n);
        MB_TRY(mb_strndup(p, n, &copy));
        const mb_status st = mb_json_set_int(vocab, copy, id);
        mb_free(copy);
        MB_TRY(st);
    }
    return MB_OK;
}

static mb_status add_piece(mb_json vocab, const char *p, size_t n, double score)
{
    mb_json pair;
    char digits[40];

    snprintf(digits, sizeof digits, "%.6f", score);
    MB_TRY(mb_json_set_array(vocab, NULL, &pair));
    MB_TRY(set_text(pair, NULL, p, n));
    return mb_json_set_real(pair, NULL, strtod(digits, NULL));
}

static mb_status edit_unigram(const struct extender *x, mb_json model, const mb_tok_extension *out)
{
    const mb_json vocab = mb_json_get(model, "vocab");
    const size_t n_old = mb_json_count(vocab);
    double *score = NULL, least = 0;
    size_t i = 0, n;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW_ARRAY(&score, n_old));
    for (mb_json_it it = mb_json_first(vocab); mb_json_more(&it); mb_json_next(&it), i++) {
        MB_TRY_GOTO(mb_json_real(mb_json_at(it.value, 1), &score[i]), st, done);
        least = score[i] < least ? score[i] : least;
    }
    /* A piece's place is its id: added tokens that come after the pieces become pieces too. */
    for (int32_t id = (int32_t)n_old; id < out->first; id++) {
        const tok_entry *e = &x->t->entry[id];
        if (e->token == NULL) {
            st = MB_RAISE(MB_ENOTSUP,
                          "%s: the id %d has no token; a Unigram tokenizer with gaps "
                          "cannot be extended",
                          x->t->where, (int)id);
            goto done;
        }
        MB_TRY_GOTO(add_piece(vocab, e->token, e->n, 0.0), st, done);
    }
    for (int32_t k = 0; k < out->n; k++) {
        double parts = 0.001;
        for (size_t j = out->begin[k]; j < out->begin[k + 1]; j++)
            parts += score[out->parts.id[j]];
        double own = log((double)x->merges.at[x->maker[k]].count / (double)x->symbols);
        own = own > parts ? own : parts;
        const char *p = text_of(x, out->first + k, &n);
        MB_TRY_GOTO(add_piece(vocab, p, n, own > least ? own : least), st, done);
    }
done:
    mb_free(score);
    return st;
}

/* The old tokenizer.json with the new tokens, read again; its other files come along, but not those
 * of older formats, which would say something else. */
static mb_status make_tokenizer(const struct extender *x, mb_tok_extension *out)
{
    static const char *const stale[] = {"vocab.json", "merges.txt", "vocab.txt"};
    const mb_tokenizer *t = x->t;
    mb_json_doc *doc = NULL;
    char *text = NULL;
    size_t n;
    mb_status st = MB_OK;

    MB_TRY_GOTO(mb_json_parse(t->file[0].text, t->file[0].n, t->where, 0, MB_EMODEL, &doc), st,
                done);
    const mb_json model = mb_json_get(mb_json_root(doc), "model");
    st = x->bpe       ? edit_bpe(x, model, out)
         : x->unigram ? edit_unigram(x, model, out)
                      : edit_wordpiece(x, model, out);
    if (st != MB_OK)
        goto done;
    MB_TRY_GOTO(mb_json_text(mb_json_root(doc), 0, &text, &n), st, done);
    MB_TRY_GOTO(tok_from_text(text, n, t->where, &out->tokenizer), st, done);
    MB_TRY_GOTO(tok_keep_file(out->tokenizer, "tokenizer.json", text, n), st, done);
    text = NULL;
    for (size_t i = 1; i < t->n_files && st == MB_OK; i++) {
        bool old = false;
        for (size_t k = 0; k < sizeof stale / sizeof *stale; k++)
            old = old || strcmp(t->file[i].name, stale[k]) == 0;
        if (old)
            continue;
        char *copy = NULL;
        MB_TRY_GOTO(mb_strndup(t->file[i].text, t->file[i].n, &copy), st, done);
        st = tok_keep_file(out->tokenizer, t->file[i].name, copy, t->file[i].n);
    }
done:
    mb_free(text);
    mb_json_free(doc);
    return st;
}

/* Tokens of the held-out lines with both, and their words. */
static mb_status compare(const struct extender *x, mb_tok_extension *out)
{
    const mb_bytes *held = &x->words.held;
    mb_ids ids = {0};
    mb_status st = MB_OK;
    size_t bad;

    if (!mb_utf8_check(held->p, held->n, &bad))
        return MB_RAISE(MB_EDATA, "a line of the text is not UTF-8");
    for (size_t at = 0; at < held->n;) {
        const char *end = memchr(held->p + at, '\n', held->n - at);
        const size_t n = end == NULL ? held->n - at : (size_t)(end - held->p) - at;
        bool in_word = false;
        for (size_t i = 0; i < n; i++) {
            const bool space = strchr(" \t\r\v\f", held->p[at + i]) != NULL;
            out->held_words += !space && !in_word;
            in_word = !space;
        }
        ids.n = 0;
        MB_TRY_GOTO(mb_tokenizer_encode(x->t, held->p + at, n, 0, &ids), st, done);
        out->tokens_before += (int64_t)ids.n;
        ids.n = 0;
        MB_TRY_GOTO(mb_tokenizer_encode(out->tokenizer, held->p + at, n, 0, &ids), st, done);
        out->tokens_after += (int64_t)ids.n;
        at += n + 1;
    }
done:
    mb_ids_release(&ids);
    return st;
}

mb_status mb_tokenizer_extend(const mb_tokenizer *t, int64_t add, int64_t max_words,
                              const char *const *files, size_t n_files, mb_tok_extension *out)
{
    struct extender x = {.t = t};
    mb_status st = MB_OK;

    *out = (mb_tok_extension){0};
    MB_REQUIRE(
        strcmp(t->file[0].name, "tokenizer.json") == 0, MB_ENOTSUP,
        "%s: a SentencePiece file cannot be extended; a tokenizer.json saved by transformers "
        "can",
        t->where);
    MB_REQUIRE(add > 0 && add < 1 << 22, MB_EARG, "%lld tokens cannot be added", (long long)add);
    x.bpe = strcmp(t->model->type, "BPE") == 0;
    x.unigram = strcmp(t->model->type, "Unigram") == 0;
    st = learn(&x, add, max_words, files, n_files);
    if (st == MB_OK)
        st = find_parts(&x, out);
    if (st == MB_OK && out->n == 0)
        st = MB_RAISE(MB_EDATA, "no two tokens of the text occur together twice");
    if (st == MB_OK)
        st = make_tokenizer(&x, out);
    if (st == MB_OK)
        st = compare(&x, out);
    out->lines = x.words.lines;
    tok_encoder_release(&x.encoder);
    mb_free(x.fixed);
    mb_free(x.maker);
    mb_free(x.merges.at);
    mb_vocab_free(x.vocab);
    tok_words_release(&x.words);
    if (st != MB_OK)
        mb_tok_extension_release(out);
    return st;
}

void mb_tok_extension_release(mb_tok_extension *x)
{
    mb_tokenizer_free(x->tokenizer);
    mb_ids_release(&x->parts);
    mb_free(x->begin);
    *x = (mb_tok_extension){0};
}
