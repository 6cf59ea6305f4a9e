/* recipes/tokenizers/sentencepiece.c - what a SentencePiece file does to a text, and its decoder.
 *
 * The settings are those of NormalizerSpec (sentencepiece_model.proto) and are written as a step by
 * spm.c; the way they work together is that of the library's normalizer.cc: the longest rule of the
 * charsmap at each place, user-defined symbols left alone, runs of spaces made one and those at the
 * ends dropped, a space put in front, every space written as U+2581. The tokenizers library's
 * Precompiled is not the same: it goes by grapheme clusters.
 */
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/steps.h"
#include "recipes/tokenizers/trie.h"

static const char mark[] = "\xe2\x96\x81";
enum { MARK = sizeof mark - 1 };

struct normalizer {
    mb_charsmap charsmap;
    mb_trie user; /* user-defined symbols; no edges: none */
    bool prefix, shrink, escape, suffix;
};

void tok_spm_free_normalizer(void *data)
{
    struct normalizer *z = data;

    mb_charsmap_release(&z->charsmap);
    mb_trie_release(&z->user);
    mb_free(z);
}

mb_status tok_spm_read_normalizer(mb_json v, const char *where, tok_stage *s)
{
    const mb_json map = mb_json_get(v, "precompiled_charsmap");
    const mb_json user = mb_json_get(v, "user_defined");
    struct normalizer *z = NULL;
    const char *text;
    size_t n;

    MB_TRY(MB_NEW(&z));
    s->data = z;
    MB_TRY(mb_json_get_bool(v, "add_dummy_prefix", true, &z->prefix));
    MB_TRY(mb_json_get_bool(v, "remove_extra_whitespaces", true, &z->shrink));
    MB_TRY(mb_json_get_bool(v, "escape_whitespaces", true, &z->escape));
    MB_TRY(mb_json_get_bool(v, "treat_whitespace_as_suffix", false, &z->suffix));
    if (mb_json_is_set(map)) {
        MB_TRY(mb_json_string(map, &text, &n));
        MB_TRY(mb_charsmap_init_base64(&z->charsmap, text, n, where));
    }
    if (mb_json_count(user) > 0)
        MB_TRY(mb_trie_init(&z->user, mb_json_count(user) * 8));
    for (mb_json_it it = mb_json_first(user); mb_json_more(&it); mb_json_next(&it)) {
        MB_TRY(mb_json_string(it.value, &text, &n));
        MB_TRY(mb_trie_add(&z->user, text, n, 0));
    }
    return MB_OK;
}

/* What stands for the beginning of p[0..n), n > 0: *used bytes of it become the text returned. */
static const char *next_bit(const struct normalizer *z, const char *p, size_t n, size_t *used,
                            size_t *n_out)
{
    uint32_t node = 0, c;
    int32_t value;

    *used = 0;
    for (size_t i = 0; z->user.n > 0 && i < n && mb_trie_step(&z->user, &node, p[i], &value); i++)
        *used = value >= 0 ? i + 1 : *used;
    if (*used == 0 && z->charsmap.bytes != NULL) {
        const char *to = mb_charsmap_longest(&z->charsmap, p, n, used, n_out);
        if (to != NULL)
            return to;
        *used = 0;
    }
    if (*used == 0)
        *used = mb_utf8_get(p, p + n, &c);
    *n_out = *used;
    return p;
}

static mb_status add_space(const struct normalizer *z, mb_bytes *out)
{
    return z->escape ? mb_bytes_add(out, mark, MARK) : mb_bytes_add(out, " ", 1);
}

static mb_status add_bit(const struct normalizer *z, const char *bit, size_t n, mb_bytes *out)
{
    if (!z->escape)
        return mb_bytes_add(out, bit, n);
    for (const char *end = bit + n, *space; bit < end; bit = space + 1) {
        space = memchr(bit, ' ', (size_t)(end - bit));
        if (space == NULL)
            return mb_bytes_add(out, bit, (size_t)(end - bit));
        MB_TRY(mb_bytes_add(out, bit, (size_t)(space - bit)));
        MB_TRY(mb_bytes_add(out, mark, MARK));
    }
    return MB_OK;
}

/* With goes_on the text follows other text: its beginning is no beginning. */
static mb_status normalize(const struct normalizer *z, bool goes_on, const mb_bytes *in,
                           mb_bytes *out)
{
    const char *p = in->p, *end = p + in->n, *bit;
    const size_t begin = out->n;
    size_t used, n;

    while (z->shrink && !goes_on && p < end) {
        bit = next_bit(z, p, (size_t)(end - p), &used, &n);
        if (n != 1 || *bit != ' ')
            break;
        p += used;
    }
    if (p == end)
        return MB_OK;
    if (z->prefix && !z->suffix && !goes_on)
        MB_TRY(add_space(z, out));
    for (bool after_space = z->shrink && !goes_on; p < end; p += used) {
        bit = next_bit(z, p, (size_t)(end - p), &used, &n);
        for (; after_space && n > 0 && *bit == ' '; bit++)
            n--;
        if (n > 0) {
            MB_TRY(add_bit(z, bit, n, out));
            after_space = z->shrink && bit[n - 1] == ' ';
        }
    }
    const char *space = z->escape ? mark : " ";
    const size_t width = z->escape ? MARK : 1;
    while (z->shrink && out->n - begin >= width &&
           memcmp(out->p + out->n - width, space, width) == 0)
        out->n -= width;
    return z->prefix && z->suffix ? add_space(z, out) : MB_OK;
}

mb_status tok_spm_normalize(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    return normalize(s->data, false, in, out);
}

mb_status tok_spm_normalize_on(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    return normalize(s->data, true, in, out);
}

/* content: the unknown token; pattern.literal: what it shows as; flag[0], flag[1]: the normalizer
 * put a space in front, dropped spaces; flag[2]: tokens that are bytes. */
mb_status tok_spm_read_decoder(mb_json v, const char *where, tok_stage *s)
{
    (void)where;
    MB_TRY(tok_read_content(v, "unknown", "", &s->content));
    MB_TRY(tok_read_content(v, "surface", " \xe2\x81\x87 ", &s->pattern.literal));
    MB_TRY(mb_json_get_bool(v, "add_dummy_prefix", true, &s->flag[0]));
    MB_TRY(mb_json_get_bool(v, "remove_extra_whitespaces", true, &s->flag[1]));
    return mb_json_get_bool(v, "byte_fallback", false, &s->flag[2]);
}

/* Bytes that are not UTF-8 show as one U+FFFD each. */
static mb_status add_run(tok_tokens *t, const mb_bytes *run)
{
    size_t bad;

    if (t->raw)
        return mb_bytes_add(&t->spare, run->p, run->n);
    for (size_t at = 0; at < run->n;) {
        if (mb_utf8_check(run->p + at, run->n - at, &bad))
            return mb_bytes_add(&t->spare, run->p + at, run->n - at);
        MB_TRY(mb_bytes_add(&t->spare, run->p + at, bad));
        MB_TRY(mb_bytes_puts(&t->spare, "\xef\xbf\xbd"));
        at += bad + 1;
    }
    return MB_OK;
}

static mb_status add_piece(const tok_stage *s, tok_tokens *t, const char *p, size_t n, bool *begins)
{
    if (n == s->content.n && n > 0 && memcmp(p, s->content.p, n) == 0)
        return mb_bytes_add(&t->spare, s->pattern.literal.p, s->pattern.literal.n);
    if (*begins && (s->flag[0] || s->flag[1]) && n >= MARK && memcmp(p, mark, MARK) == 0) {
        p += MARK;
        n -= MARK;
        *begins = s->flag[1]; /* where spaces are dropped, all in front are */
    }
    for (const char *end = p + n; p < end;) {
        if (end - p >= MARK && memcmp(p, mark, MARK) == 0) {
            MB_TRY(mb_bytes_add(&t->spare, " ", 1));
            p += MARK;
        } else {
            MB_TRY(mb_bytes_add(&t->spare, p++, 1));
        }
    }
    return MB_OK;
}

mb_status tok_spm_decode(const tok_stage *s, tok_tokens *t)
{
    mb_bytes run = {0};
    bool begins = true; /* nothing has been shown yet */
    mb_status st = MB_OK;

    for (size_t i = 0; i < t->span.n; i++) {
        const char *p = t->text.p + t->span.at[i].begin;
        const size_t n = t->span.at[i].end - t->span.at[i].begin;
        const int byte = s->flag[2] ? tok_fallback_byte(p, n) : -1;
        if (byte >= 0) {
            const char c = (char)byte;
            MB_TRY_GOTO(mb_bytes_add(&run, &c, 1), st, done);
            continue;
        }
        MB_TRY_GOTO(add_run(t, &run), st, done);
        run.n = 0;
        begins = begins && t->spare.n == 0;
        MB_TRY_GOTO(add_piece(s, t, p, n, &begins), st, done);
    }
    MB_TRY_GOTO(add_run(t, &run), st, done);
    t->text.n = 0;
    MB_TRY_GOTO(mb_bytes_add(&t->text, t->spare.p, t->spare.n), st, done);
    t->span.n = 0;
    t->spare.n = 0;
    st = mb_spans_push(&t->span, 0, t->text.n, false);
done:
    mb_bytes_release(&run);
    return st;
}
