/* recipes/tokenizers/decode.c - decoders: from a list of tokens to text. */
#include <string.h>

#include "recipes/tokenizers/steps.h"

void tok_tokens_clear(tok_tokens *t)
{
    t->text.n = t->span.n = 0;
}

mb_status tok_tokens_add(tok_tokens *t, const char *p, size_t n)
{
    const size_t begin = t->text.n;

    MB_TRY(mb_bytes_add(&t->text, p, n));
    return mb_spans_push(&t->span, begin, t->text.n, false);
}

void tok_tokens_release(tok_tokens *t)
{
    mb_bytes_release(&t->text);
    mb_bytes_release(&t->spare);
    mb_spans_release(&t->span);
    mb_spans_release(&t->spare_span);
}

/* A decoder writes the new tokens to `spare` and ends with this. */
static mb_status finish(tok_tokens *t)
{
    const mb_bytes text = t->text;
    const mb_spans span = t->span;

    t->text = t->spare;
    t->span = t->spare_span;
    t->spare = text;
    t->spare_span = span;
    t->spare.n = t->spare_span.n = 0;
    return MB_OK;
}

static mb_status end_token(tok_tokens *t, size_t begin)
{
    return mb_spans_push(&t->spare_span, begin, t->spare.n, false);
}

/* All tokens as one. */
static mb_status fuse(const tok_stage *s, tok_tokens *t)
{
    (void)s;
    MB_TRY(mb_bytes_add(&t->spare, t->text.p, t->text.n));
    MB_TRY(end_token(t, 0));
    return finish(t);
}

/* The bytes a token of the byte-level alphabet stands for; one with other characters (an added
 * token with a space in it) stands for itself. */
static mb_status add_bytes(mb_bytes *out, const char *p, size_t n)
{
    const size_t begin = out->n;
    const char *end = p + n;

    MB_TRY(mb_bytes_reserve(out, n));
    for (const char *at = p; at < end;) {
        uint32_t c;
        at += mb_utf8_get(at, end, &c);
        const int byte = tok_char_to_byte(c);
        if (byte < 0) {
            out->n = begin;
            return mb_bytes_add(out, p, n);
        }
        out->p[out->n++] = (char)byte;
    }
    return MB_OK;
}

static mb_status byte_level(const tok_stage *s, tok_tokens *t)
{
    (void)s;
    for (size_t i = 0; i < t->span.n; i++)
        MB_TRY(add_bytes(&t->spare, t->text.p + t->span.at[i].begin,
                         t->span.at[i].end - t->span.at[i].begin));
    if (!t->raw) {
        t->text.n = 0;
        MB_TRY(mb_utf8_add_lossy(&t->text, t->spare.p, t->spare.n));
        t->span.n = 0;
        return mb_spans_push(&t->span, 0, t->text.n, false);
    }
    MB_TRY(end_token(t, 0));
    return finish(t);
}

/* content = prefix, flag[0] = cleanup. */
static mb_status read_wordpiece(mb_json v, const char *where, tok_stage *s)
{
    (void)where;
    MB_TRY(tok_read_content(v, "prefix", "##", &s->content));
    return mb_json_get_bool(v, "cleanup", true, &s->flag[0]);
}

/* English spacing put back, token by token, in this order. */
static const struct {
    const char *from, *to;
} cleanups[] = {
    {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
    {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
    {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

static mb_status clean_up(mb_bytes *word)
{
    for (size_t i = 0; i < sizeof cleanups / sizeof *cleanups; i++) {
        const size_t n = strlen(cleanups[i].from), m = strlen(cleanups[i].to);
        for (size_t at = 0; at + n <= word->n; at++) {
            if (memcmp(word->p + at, cleanups[i].from, n) != 0)
                continue;
            /* Every replacement is at most as long as what it replaces. */
            memcpy(word->p + at, cleanups[i].to, m);
            memmove(word->p + at + m, word->p + at + n, word->n - at - n);
            word->n -= n - m;
            at += m - 1;
        }
    }
    return MB_OK;
}

static mb_status wordpiece(const tok_stage *s, tok_tokens *t)
{
    mb_bytes word = {0};
    mb_status st = MB_OK;

    for (size_t i = 0; i < t->span.n; i++) {
        const char *p = t->text.p + t->span.at[i].begin;
        size_t n = t->span.at[i].end - t->span.at[i].begin;
        const size_t begin = t->spare.n;
        word.n = 0;
        if (i > 0 && s->content.n <= n && memcmp(p, s->content.p, s->content.n) == 0) {
            p += s->content.n;
            n -= s->content.n;
        } else if (i > 0) {
            MB_TRY_GOTO(mb_bytes_add(&word, " ", 1), st, done);
        }
        MB_TRY_GOTO(mb_bytes_add(&word, p, n), st, done);
        if (s->flag[0])
            MB_TRY_GOTO(clean_up(&word), st, done);
        MB_TRY_GOTO(mb_bytes_add(&t->spare, word.p, word.n), st, done);
        MB_TRY_GOTO(end_token(t, begin), st, done);
    }
    st = finish(t);
done:
    mb_bytes_release(&word);
    return st;
}

static mb_status metaspace(const tok_stage *s, tok_tokens *t)
{
    const mb_bytes *mark = &s->content;

    for (size_t i = 0; i < t->span.n; i++) {
        const size_t begin = t->spare.n, end = t->span.at[i].end;
        for (size_t at = t->span.at[i].begin; at < end;) {
            if (mark->n > 0 && end - at >= mark->n &&
                memcmp(t->text.p + at, mark->p, mark->n) == 0) {
                if (i > 0 || !s->flag[0])
                    MB_TRY(mb_bytes_add(&t->spare, " ", 1));
                at += mark->n;
            } else {
                MB_TRY(mb_bytes_add(&t->spare, t->text.p + at++, 1));
            }
        }
        MB_TRY(end_token(t, begin));
    }
    return finish(t);
}

/* The suffix that ends a word becomes a space, or nothing in the last token. */
static mb_status read_bpe(mb_json v, const char *where, tok_stage *s)
{
    (void)where;
    return tok_read_content(v, "suffix", "</w>", &s->pattern.literal);
}

static mb_status bpe(const tok_stage *s, tok_tokens *t)
{
    tok_stage with = *s;

    for (size_t i = 0; i < t->span.n; i++) {
        const size_t begin = t->spare.n;
        const mb_span at = t->span.at[i];
        static char space[] = " ";
        with.content = (mb_bytes){space, i + 1 < t->span.n, 1};
        MB_TRY(tok_replace(&with, t->text.p + at.begin, at.end - at.begin, &t->spare));
        MB_TRY(end_token(t, begin));
    }
    return finish(t);
}

static mb_status read_replace(mb_json v, const char *where, tok_stage *s)
{
    MB_TRY(tok_read_pattern(v, where, &s->pattern));
    return tok_read_content(v, "content", "", &s->content);
}

static mb_status replace(const tok_stage *s, tok_tokens *t)
{
    for (size_t i = 0; i < t->span.n; i++) {
        const size_t begin = t->spare.n;
        const mb_span at = t->span.at[i];
        MB_TRY(tok_replace(s, t->text.p + at.begin, at.end - at.begin, &t->spare));
        MB_TRY(end_token(t, begin));
    }
    return finish(t);
}

static mb_status read_strip(mb_json v, const char *where, tok_stage *s)
{
    int64_t start, stop;

    (void)where;
    MB_TRY(tok_read_content(v, "content", " ", &s->content));
    MB_TRY(mb_json_get_int(v, "start", 0, &start));
    MB_TRY(mb_json_get_int(v, "stop", 0, &stop));
    if (start < 0 || stop < 0)
        return mb_json_fault(v, "has a negative start or stop");
    s->start = (size_t)start;
    s->stop = (size_t)stop;
    return MB_OK;
}

static mb_status strip(const tok_stage *s, tok_tokens *t)
{
    const mb_bytes *c = &s->content;

    for (size_t i = 0; i < t->span.n; i++) {
        const size_t begin = t->spare.n;
        mb_span at = t->span.at[i];
        for (size_t k = 0; k < s->start && at.end - at.begin >= c->n && c->n > 0 &&
                           memcmp(t->text.p + at.begin, c->p, c->n) == 0;
             k++)
            at.begin += c->n;
        for (size_t k = 0; k < s->stop && at.end - at.begin >= c->n && c->n > 0 &&
                           memcmp(t->text.p + at.end - c->n, c->p, c->n) == 0;
             k++)
            at.end -= c->n;
        MB_TRY(mb_bytes_add(&t->spare, t->text.p + at.begin, at.end - at.begin));
        MB_TRY(end_token(t, begin));
    }
    return finish(t);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

int tok_fallback_byte(const char *p, size_t n)
{
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>')
        return -1;
    const int hi = hex_digit(p[3]), lo = hex_digit(p[4]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

/* A run of byte tokens is one token: its text, or a U+FFFD for each byte if it is not UTF-8. */
static mb_status end_run(tok_tokens *t, mb_bytes *run)
{
    const size_t begin = t->spare.n;
    size_t bad;

    if (run->n == 0)
        return MB_OK;
    if (t->raw || mb_utf8_check(run->p, run->n, &bad)) {
        MB_TRY(mb_bytes_add(&t->spare, run->p, run->n));
    } else {
        for (size_t i = 0; i < run->n; i++)
            MB_TRY(mb_bytes_puts(&t->spare, "\xef\xbf\xbd"));
    }
    run->n = 0;
    return end_token(t, begin);
}

static mb_status byte_fallback(const tok_stage *s, tok_tokens *t)
{
    mb_bytes run = {0};
    mb_status st = MB_OK;

    (void)s;
    for (size_t i = 0; i < t->span.n; i++) {
        const char *p = t->text.p + t->span.at[i].begin;
        const size_t n = t->span.at[i].end - t->span.at[i].begin;
        const int byte = tok_fallback_byte(p, n);
        if (byte >= 0) {
            const char c = (char)byte;
            MB_TRY_GOTO(mb_bytes_add(&run, &c, 1), st, done);
            continue;
        }
        MB_TRY_GOTO(end_run(t, &run), st, done);
        const size_t begin = t->spare.n;
        MB_TRY_GOTO(mb_bytes_add(&t->spare, p, n), st, done);
        MB_TRY_GOTO(end_token(t, begin), st, done);
    }
    MB_TRY_GOTO(end_run(t, &run), st, done);
    st = finish(t);
done:
    mb_bytes_release(&run);
    return st;
}

static const tok_step steps[] = {
    {.type = "BPEDecoder", .read = read_bpe, .decode = bpe},
    {.type = "ByteFallback", .decode = byte_fallback},
    {.type = "ByteLevel", .decode = byte_level},
    {.type = "Fuse", .decode = fuse},
    {.type = "Metaspace", .read = tok_read_metaspace, .decode = metaspace},
    {.type = "Replace", .read = read_replace, .decode = replace},
    {.type = "SentencePiece", .read = tok_spm_read_decoder, .decode = tok_spm_decode},
    {.type = "Strip", .read = read_strip, .decode = strip},
    {.type = "WordPiece", .read = read_wordpiece, .decode = wordpiece},
};

const tok_family tok_decoders = {"decoder", "decoders", steps, sizeof steps / sizeof *steps};

static mb_status join_with_spaces(tok_tokens *t)
{
    for (size_t i = 0; i < t->span.n; i++) {
        if (i > 0)
            MB_TRY(mb_bytes_add(&t->spare, " ", 1));
        MB_TRY(mb_bytes_add(&t->spare, t->text.p + t->span.at[i].begin,
                            t->span.at[i].end - t->span.at[i].begin));
    }
    return finish(t);
}

mb_status tok_decode(const tok_chain *c, tok_tokens *t)
{
    t->spare.n = t->spare_span.n = 0;
    MB_TRY(mb_bytes_reserve(&t->text, 1));
    if (c->n == 0)
        return join_with_spaces(t);
    for (size_t i = 0; i < c->n; i++)
        MB_TRY(c->at[i].step->decode(&c->at[i], t));
    return MB_OK;
}
