/* recipes/tokenizers/tokenizer.c - encoding, decoding and looking up.
 *
 *     text -> added tokens | stretches -> normalizer -> added tokens (normalised) | stretches
 *          -> pre-tokenizer -> words -> model -> ids -> truncation -> post-processor
 */
#include "recipes/tokenizers/tokenizer.h"

#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/model.h"

mb_status mb_ids_push(mb_ids *ids, int32_t id)
{
    if (ids->n == ids->capacity)
        MB_TRY(mb_grow((void **)&ids->id, &ids->capacity, ids->n + 1, sizeof *ids->id, "ids"));
    ids->id[ids->n++] = id;
    return MB_OK;
}

mb_status mb_ids_append(mb_ids *ids, const int32_t *id, size_t n)
{
    MB_TRY(mb_grow((void **)&ids->id, &ids->capacity, ids->n + n, sizeof *ids->id, "ids"));
    if (n > 0)
        memcpy(ids->id + ids->n, id, n * sizeof *id);
    ids->n += n;
    return MB_OK;
}

void mb_ids_clear(mb_ids *ids)
{
    ids->n = 0;
}

void mb_ids_release(mb_ids *ids)
{
    mb_free(ids->id);
    *ids = (mb_ids){0};
}

static void free_work(tok_work *w)
{
    if (w == NULL)
        return;
    tok_encoder_release(&w->encoder);
    tok_pieces_release(&w->pieces);
    mb_free(w->raw.at);
    mb_free(w->inner.at);
    mb_bytes_release(&w->normal);
    mb_bytes_release(&w->spare);
    mb_ids_release(&w->part[0]);
    mb_ids_release(&w->part[1]);
    mb_free(w);
}

void mb_tokenizer_free(mb_tokenizer *t)
{
    if (t == NULL)
        return;
    for (tok_work *w = t->idle, *next; w != NULL; w = next) {
        next = w->next;
        free_work(w);
    }
    if (t->model != NULL)
        t->model->free(t->model_data);
    mb_vocab_free(t->vocab);
    for (size_t i = 0; i < t->n_added; i++)
        mb_bytes_release(&t->added[i].content), mb_bytes_release(&t->added[i].shown);
    mb_free(t->added);
    tok_trie_free(t->raw);
    tok_trie_free(t->normalized);
    tok_chain_release(&t->normalizer);
    tok_chain_release(&t->pretokenizer);
    tok_chain_release(&t->decoder);
    tok_process_release(&t->process);
    mb_free(t->entry);
    mb_free(t->barred);
    mb_free(t->chat_template);
    for (size_t i = 0; i < t->n_files; i++)
        mb_free(t->file[i].text);
    mb_free(t->where);
    pthread_mutex_destroy(&t->lock);
    mb_free(t);
}

/* The list of idle work spaces is the only thing of a tokenizer that ever changes. */
static mb_status take_work(const mb_tokenizer *ct, tok_work **out)
{
    mb_tokenizer *t = (mb_tokenizer *)(uintptr_t)ct;

    pthread_mutex_lock(&t->lock);
    tok_work *w = t->idle;
    if (w != NULL)
        t->idle = w->next;
    pthread_mutex_unlock(&t->lock);
    if (w == NULL) {
        MB_TRY(MB_NEW(&w));
        const mb_status st = tok_encoder_init(&w->encoder, t->model, t->model_data);
        if (st != MB_OK) {
            mb_free(w);
            return st;
        }
    }
    *out = w;
    return MB_OK;
}

static void give_work(const mb_tokenizer *ct, tok_work *w)
{
    mb_tokenizer *t = (mb_tokenizer *)(uintptr_t)ct;

    pthread_mutex_lock(&t->lock);
    w->next = t->idle;
    t->idle = w;
    pthread_mutex_unlock(&t->lock);
}

/* How a text is encoded. */
struct manner {
    bool parse;          /* special tokens in it are tokens, */
    const uint8_t *data; /* but not where a byte is data; NULL: none is */
    bool goes_on;        /* it goes on after text that was encoded before */
};

/* Words of text[0..n), which has no added token in it. */
static mb_status encode_stretch(const mb_tokenizer *t, tok_work *w, const char *text, size_t n,
                                bool at_start, bool goes_on, const uint8_t *barred, mb_ids *out)
{
    tok_pieces *p = &w->pieces;

    p->text = text;
    p->n = n;
    p->at_start = at_start && !goes_on;
    p->goes_on = at_start && goes_on;
    MB_TRY(tok_cut(&t->pretokenizer, p));
    for (size_t i = 0; i < p->span.n; i++) {
        const mb_span at = p->span.at[i];
        if (at.end > at.begin)
            MB_TRY(
                tok_encoder_word(&w->encoder, p->text + at.begin, at.end - at.begin, barred, out));
    }
    return MB_OK;
}

static bool has_data(const uint8_t *data, size_t begin, size_t end)
{
    for (size_t i = begin; data != NULL && i < end; i++) {
        if (data[i] != 0)
            return true;
    }
    return false;
}

/* Normalises the stretch [begin, end) and looks for the added tokens that are matched in normalised
 * text; there, special ones only if no byte of the stretch is data. */
static mb_status encode_between(const mb_tokenizer *t, tok_work *w, const char *text, size_t begin,
                                size_t end, const struct manner *how, mb_ids *out)
{
    const bool parse = how->parse && !has_data(how->data, begin, end), start = begin == 0;
    const uint8_t *barred = parse ? NULL : t->barred;
    size_t n = end - begin;

    text += begin;
    if (t->normalizer.n > 0) {
        MB_TRY(
            tok_normalize(&t->normalizer, text, n, start && how->goes_on, &w->normal, &w->spare));
        text = w->normal.p;
        n = w->normal.n;
    }
    if (t->normalized == NULL)
        return encode_stretch(t, w, text, n, start, how->goes_on, barred, out);
    w->inner.n = 0;
    MB_TRY(tok_trie_cut(t->normalized, text, n, parse, NULL, &w->inner));
    for (size_t i = 0; i < w->inner.n; i++) {
        const tok_stretch s = w->inner.at[i];
        if (s.id >= 0)
            MB_TRY(mb_ids_push(out, s.id));
        else
            MB_TRY(encode_stretch(t, w, text + s.begin, s.end - s.begin, start && s.begin == 0,
                                  how->goes_on, barred, out));
    }
    return MB_OK;
}

static mb_status encode_text(const mb_tokenizer *t, tok_work *w, const char *text, size_t n,
                             const struct manner *how, mb_ids *out)
{
    size_t bad;

    out->n = 0;
    MB_REQUIRE(mb_utf8_check(text, n, &bad), MB_EDATA,
               "the text is not UTF-8: byte %zu of %zu (0x%02x) is not part of a character", bad, n,
               (unsigned)(unsigned char)text[bad]);
    w->raw.n = 0;
    MB_TRY(tok_trie_cut(t->raw, text, n, how->parse, how->data, &w->raw));
    for (size_t i = 0; i < w->raw.n; i++) {
        const tok_stretch s = w->raw.at[i];
        if (s.id >= 0)
            MB_TRY(mb_ids_push(out, s.id));
        else
            MB_TRY(encode_between(t, w, text, s.begin, s.end, how, out));
    }
    return MB_OK;
}

mb_status tok_each_word(const mb_tokenizer *t, const char *text, size_t n,
                        mb_status (*take)(void *with, const char *word, size_t n_word), void *with)
{
    tok_work *w = NULL;
    mb_status st = MB_OK;

    MB_TRY(take_work(t, &w));
    if (t->normalizer.n > 0)
        MB_TRY_GOTO(tok_normalize(&t->normalizer, text, n, false, &w->normal, &w->spare), st, done);
    tok_pieces *p = &w->pieces;
    p->text = t->normalizer.n > 0 ? w->normal.p : text;
    p->n = t->normalizer.n > 0 ? w->normal.n : n;
    p->at_start = true;
    p->goes_on = false;
    MB_TRY_GOTO(tok_cut(&t->pretokenizer, p), st, done);
    for (size_t i = 0; i < p->span.n; i++) {
        const mb_span at = p->span.at[i];
        if (at.end > at.begin)
            MB_TRY_GOTO(take(with, p->text + at.begin, at.end - at.begin), st, done);
    }
done:
    give_work(t, w);
    return st;
}

static void cut_ids(mb_ids *ids, size_t n, bool left)
{
    if (ids->n <= n)
        return;
    if (left)
        memmove(ids->id, ids->id + (ids->n - n), n * sizeof *ids->id);
    ids->n = n;
}

/* The lengths to which A and B are cut, as the tokenizers library computes them. */
static mb_status truncate(const mb_tokenizer *t, tok_work *w, bool pair, size_t n_special)
{
    const mb_tok_limits *l = &t->limits;
    mb_ids *a = &w->part[0], *b = &w->part[1];
    size_t n1 = a->n, n2 = pair ? b->n : 0;

    if (l->max_length == 0)
        return MB_OK;
    MB_REQUIRE((size_t)l->max_length >= n_special, MB_EMODEL,
               "%s: truncation to %lld leaves no room for %zu special tokens", t->where,
               (long long)l->max_length, n_special);
    const size_t room = (size_t)l->max_length - n_special;
    if (n1 + n2 <= room)
        return MB_OK;
    if (strcmp(l->strategy, "LongestFirst") == 0 && pair) {
        const size_t shorter = n1 < n2 ? n1 : n2;
        size_t lo = shorter, hi = shorter > room
                                      ? shorter
                                      : (room - shorter > shorter ? room - shorter : shorter);
        if (lo + hi > room) {
            lo = room / 2;
            hi = lo + room % 2;
        }
        cut_ids(a, n1 <= n2 ? lo : hi, l->truncate_left);
        cut_ids(b, n1 <= n2 ? hi : lo, l->truncate_left);
        return MB_OK;
    }
    mb_ids *target = strcmp(l->strategy, "OnlySecond") == 0 ? b : a;
    const size_t over = n1 + n2 - room;
    MB_REQUIRE(target->n > over && (target == a || pair), MB_EDATA,
               "the text to truncate (%s) has %zu tokens, %zu would have to go", l->strategy,
               target == b && !pair ? (size_t)0 : target->n, over);
    cut_ids(target, target->n - over, l->truncate_left);
    return MB_OK;
}

static mb_status assemble(const mb_tokenizer *t, const tok_work *w, bool pair, bool special,
                          mb_ids *out, mb_ids *types)
{
    const tok_template *parts = pair ? &t->process.pair : &t->process.single;

    for (size_t i = 0; i < parts->n; i++) {
        const tok_part part = parts->at[i];
        if (part.id >= 0 && !special)
            continue;
        const mb_ids *text = part.id < 0 ? &w->part[-1 - part.id] : NULL;
        const size_t n = text != NULL ? text->n : 1;
        MB_TRY(mb_ids_append(out, text != NULL ? text->id : &part.id, n));
        for (size_t k = 0; types != NULL && k < n; k++)
            MB_TRY(mb_ids_push(types, part.type));
    }
    return MB_OK;
}

mb_status mb_tokenizer_frame(const mb_tokenizer *t, const mb_ids *a, const mb_ids *b, mb_ids *out,
                             mb_ids *type_ids, size_t at[2])
{
    const tok_template *parts = b != NULL ? &t->process.pair : &t->process.single;

    at[0] = at[1] = 0;
    for (size_t i = 0; i < parts->n; i++) {
        const tok_part part = parts->at[i];
        const mb_ids *text = part.id >= 0 ? NULL : part.id == -1 ? a : b;
        const size_t n = text != NULL ? text->n : 1;

        if (text != NULL)
            at[-1 - part.id] = out->n;
        MB_TRY(mb_ids_append(out, text != NULL ? text->id : &part.id, n));
        for (size_t k = 0; k < n; k++)
            MB_TRY(mb_ids_push(type_ids, part.type));
    }
    return MB_OK;
}

static mb_status encode_both(const mb_tokenizer *t, tok_work *w, const char *a, size_t n_a,
                             const char *b, size_t n_b, unsigned flags, mb_ids *out, mb_ids *types)
{
    const tok_template *parts = b != NULL ? &t->process.pair : &t->process.single;
    const bool special = (flags & MB_TOK_SPECIAL) != 0;
    const struct manner how = {.parse = (flags & MB_TOK_PARSE_SPECIAL) != 0};
    size_t n_special = 0;

    MB_TRY(encode_text(t, w, a, n_a, &how, &w->part[0]));
    if (b != NULL)
        MB_TRY(encode_text(t, w, b, n_b, &how, &w->part[1]));
    for (size_t i = 0; special && i < parts->n; i++)
        n_special += parts->at[i].id >= 0;
    if ((flags & MB_TOK_TRUNCATE) != 0)
        MB_TRY(truncate(t, w, b != NULL, n_special));
    return assemble(t, w, b != NULL, special, out, types);
}

mb_status mb_tokenizer_encode_pair(const mb_tokenizer *t, const char *a, size_t n_a, const char *b,
                                   size_t n_b, unsigned flags, mb_ids *out, mb_ids *type_ids)
{
    const size_t n = out->n, n_types = type_ids != NULL ? type_ids->n : 0;
    tok_work *w = NULL;

    MB_TRY(take_work(t, &w));
    const mb_status st = encode_both(t, w, a, n_a, b, n_b, flags, out, type_ids);
    give_work(t, w);
    if (st != MB_OK) {
        out->n = n;
        if (type_ids != NULL)
            type_ids->n = n_types;
    }
    return st;
}

mb_status mb_tokenizer_encode(const mb_tokenizer *t, const char *text, size_t n, unsigned flags,
                              mb_ids *out)
{
    return mb_tokenizer_encode_pair(t, text, n, NULL, 0, flags, out, NULL);
}

mb_status mb_tokenizer_encode_marked(const mb_tokenizer *t, const char *text, size_t n,
                                     const uint8_t *data, bool goes_on, mb_ids *out)
{
    const struct manner how = {.parse = true, .data = data, .goes_on = goes_on};
    tok_work *w = NULL;
    mb_status st;

    MB_TRY(take_work(t, &w));
    st = encode_text(t, w, text, n, &how, &w->part[0]);
    if (st == MB_OK)
        st = mb_ids_append(out, w->part[0].id, w->part[0].n);
    give_work(t, w);
    return st;
}

/* Adds the token of an id to `to`, unless it is special and those are skipped. */
static mb_status add_token(const mb_tokenizer *t, int32_t id, bool skip_special, tok_tokens *to)
{
    MB_REQUIRE(id >= 0 && id < t->n_entries && t->entry[id].token != NULL, MB_EDATA,
               "%s: the id %d is not in the vocabulary of %d tokens", t->where, (int)id,
               (int)t->n_entries);
    const tok_entry *e = &t->entry[id];
    if (e->special && skip_special)
        return MB_OK;
    if (e->added >= 0)
        return tok_tokens_add(to, t->added[e->added].shown.p, t->added[e->added].shown.n);
    return tok_tokens_add(to, e->token, e->n);
}

mb_status mb_tokenizer_decode(const mb_tokenizer *t, const int32_t *id, size_t n, bool skip_special,
                              char **text, size_t *n_text)
{
    tok_tokens tokens = {0};
    mb_status st = MB_OK;

    for (size_t i = 0; i < n; i++)
        MB_TRY_GOTO(add_token(t, id[i], skip_special, &tokens), st, done);
    MB_TRY_GOTO(tok_decode(&t->decoder, &tokens), st, done);
    MB_TRY_GOTO(mb_bytes_end(&tokens.text), st, done);
    if (n_text != NULL)
        *n_text = tokens.text.n;
    *text = tokens.text.p;
    tokens.text = (mb_bytes){0};
done:
    tok_tokens_release(&tokens);
    return st;
}

/* What a new token adds depends, for some decoders, on the one before it (WordPiece's space) and on
 * being the first (Metaspace's). So the last token and the new one are decoded together, and what
 * the last one alone gave is taken away. If that is nothing (a space, which at the beginning is
 * dropped), the last one that shows something, the anchor, goes before it. Bytes stay raw until a
 * UTF-8 sequence is complete. */
struct mb_detokenizer {
    const mb_tokenizer *t;
    bool skip_special;
    int32_t anchor, last; /* -1: none */
    tok_tokens before, both;
    mb_bytes pending, ready;
};

mb_status mb_detokenizer_new(const mb_tokenizer *t, bool skip_special, mb_detokenizer **out)
{
    mb_detokenizer *d = NULL;

    MB_TRY(MB_NEW(&d));
    d->t = t;
    d->skip_special = skip_special;
    d->anchor = d->last = -1;
    d->before.raw = d->both.raw = true;
    *out = d;
    return MB_OK;
}

void mb_detokenizer_free(mb_detokenizer *d)
{
    if (d == NULL)
        return;
    tok_tokens_release(&d->before);
    tok_tokens_release(&d->both);
    mb_bytes_release(&d->pending);
    mb_bytes_release(&d->ready);
    mb_free(d);
}

static mb_status give_out(mb_detokenizer *d, size_t n, const char **text, size_t *n_text)
{
    d->ready.n = 0;
    if (n > 0) {
        MB_TRY(mb_utf8_add_lossy(&d->ready, d->pending.p, n));
        memmove(d->pending.p, d->pending.p + n, d->pending.n - n);
        d->pending.n -= n;
    }
    MB_TRY(mb_bytes_end(&d->ready));
    *text = d->ready.p;
    *n_text = d->ready.n;
    return MB_OK;
}

static mb_status add_last(mb_detokenizer *d, tok_tokens *to)
{
    tok_tokens_clear(to);
    if (d->anchor >= 0)
        MB_TRY(add_token(d->t, d->anchor, false, to));
    return d->last >= 0 ? add_token(d->t, d->last, false, to) : MB_OK;
}

mb_status mb_detokenizer_push(mb_detokenizer *d, int32_t id, const char **text, size_t *n)
{
    MB_TRY(add_last(d, &d->before));
    MB_TRY(add_last(d, &d->both));
    const size_t tokens = d->both.span.n;
    MB_TRY(add_token(d->t, id, d->skip_special, &d->both));
    if (d->both.span.n == tokens) /* a special token that is skipped */
        return give_out(d, 0, text, n);
    MB_TRY(tok_decode(&d->t->decoder, &d->before));
    MB_TRY(tok_decode(&d->t->decoder, &d->both));
    size_t same = 0;
    while (same < d->before.text.n && same < d->both.text.n &&
           d->before.text.p[same] == d->both.text.p[same])
        same++;
    MB_TRY(mb_bytes_add(&d->pending, d->both.text.p + same, d->both.text.n - same));
    tok_tokens_clear(&d->before);
    MB_TRY(add_token(d->t, id, false, &d->before));
    MB_TRY(tok_decode(&d->t->decoder, &d->before));
    if (d->before.text.n > 0)
        d->anchor = -1;
    else if (d->anchor < 0)
        d->anchor = d->last;
    d->last = id;
    return give_out(d, d->pending.n - mb_utf8_unfinished(d->pending.p, d->pending.n), text, n);
}

mb_status mb_detokenizer_flush(mb_detokenizer *d, const char **text, size_t *n)
{
    d->anchor = d->last = -1;
    return give_out(d, d->pending.n, text, n);
}

int32_t mb_tokenizer_vocab_size(const mb_tokenizer *t)
{
    return t->n_entries;
}

int32_t mb_tokenizer_token_to_id(const mb_tokenizer *t, const char *token, size_t n)
{
    return tok_find(t, token, n);
}

const char *mb_tokenizer_id_to_token(const mb_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_entries ? t->entry[id].token : NULL;
}

bool mb_tokenizer_is_special(const mb_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_entries && t->entry[id].special;
}

int32_t mb_tokenizer_role(const mb_tokenizer *t, mb_token_role role)
{
    return t->role[role];
}

bool mb_tokenizer_adds_bos(const mb_tokenizer *t)
{
    return t->process.single.at[0].id >= 0;
}

bool mb_tokenizer_adds_eos(const mb_tokenizer *t)
{
    return t->process.single.at[t->process.single.n - 1].id >= 0;
}

int64_t mb_tokenizer_max_length(const mb_tokenizer *t)
{
    return t->max_length;
}

const mb_tok_limits *mb_tokenizer_limits(const mb_tokenizer *t)
{
    return &t->limits;
}

const char *mb_tokenizer_kind(const mb_tokenizer *t)
{
    return t->model->type;
}

const char *mb_tokenizer_sha256(const mb_tokenizer *t)
{
    return t->sha256;
}

const char *mb_tokenizer_chat_template(const mb_tokenizer *t)
{
    return t->chat_template;
}
