/* recipes/tokenizers/normalize.c - normalizers: what is done to a text before it is cut up. */
#include <string.h>

#include "recipes/tokenizers/steps.h"

static mb_status read_bert(mb_json v, const char *where, tok_stage *s)
{
    (void)where;
    MB_TRY(mb_json_get_bool(v, "clean_text", true, &s->flag[0]));
    MB_TRY(mb_json_get_bool(v, "handle_chinese_chars", true, &s->flag[1]));
    MB_TRY(mb_json_get_bool(v, "lowercase", true, &s->flag[3]));
    return mb_json_get_bool(v, "strip_accents", s->flag[3], &s->flag[2]); /* null: as lowercase */
}

/* Cleaned and ideographs set apart by spaces, one pass. */
static mb_status bert_clean(const tok_stage *s, const char *p, const char *end, mb_bytes *out)
{
    for (uint32_t c; p < end;) {
        const size_t len = mb_utf8_get(p, end, &c);
        if (s->flag[0] && (c == 0 || c == 0xfffd || mb_char_is_control(c))) {
            p += len;
            continue;
        }
        if (s->flag[0] && mb_char_is_space(c))
            MB_TRY(mb_bytes_add(out, " ", 1));
        else if (s->flag[1] && mb_char_is_cjk(c)) {
            MB_TRY(mb_bytes_add(out, " ", 1));
            MB_TRY(mb_bytes_add(out, p, len));
            MB_TRY(mb_bytes_add(out, " ", 1));
        } else
            MB_TRY(mb_bytes_add(out, p, len));
        p += len;
    }
    return MB_OK;
}

static mb_status keep_not(mb_char_class drop, const mb_bytes *in, mb_bytes *out)
{
    uint32_t c;

    for (const char *p = in->p, *end = p + in->n; p < end;) {
        const size_t len = mb_utf8_get(p, end, &c);
        if (!drop(c))
            MB_TRY(mb_bytes_add(out, p, len));
        p += len;
    }
    return MB_OK;
}

static mb_status lowercase(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    uint32_t c;

    (void)s;
    for (const char *p = in->p, *end = p + in->n; p < end;) {
        p += mb_utf8_get(p, end, &c);
        MB_TRY(mb_lower_add(out, c));
    }
    return MB_OK;
}

static mb_status bert(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    mb_bytes a = {0}, b = {0};
    mb_status st = MB_OK;

    MB_TRY_GOTO(bert_clean(s, in->p, in->p + in->n, &a), st, done);
    if (s->flag[2]) {
        MB_TRY_GOTO(mb_normal_form_add(&b, a.p, a.n, MB_NFD), st, done);
        a.n = 0;
        MB_TRY_GOTO(keep_not(mb_char_is_nonspacing, &b, &a), st, done);
    }
    st = s->flag[3] ? lowercase(s, &a, out) : mb_bytes_add(out, a.p, a.n);
done:
    mb_bytes_release(&a);
    mb_bytes_release(&b);
    return st;
}

static mb_status nfc(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    (void)s;
    return mb_normal_form_add(out, in->p, in->n, MB_NFC);
}

static mb_status nfd(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    (void)s;
    return mb_normal_form_add(out, in->p, in->n, MB_NFD);
}

static mb_status nfkc(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    (void)s;
    return mb_normal_form_add(out, in->p, in->n, MB_NFKC);
}

static mb_status nfkd(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    (void)s;
    return mb_normal_form_add(out, in->p, in->n, MB_NFKD);
}

static mb_status strip_accents(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    (void)s;
    return keep_not(mb_char_is_mark, in, out);
}

static mb_status read_strip(mb_json v, const char *where, tok_stage *s)
{
    (void)where;
    MB_TRY(mb_json_get_bool(v, "strip_left", true, &s->flag[0]));
    return mb_json_get_bool(v, "strip_right", true, &s->flag[1]);
}

static mb_status strip(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    const char *end = in->p + in->n, *first = end, *last = in->p;
    uint32_t c;

    for (const char *p = in->p; p < end;) {
        const size_t len = mb_utf8_get(p, end, &c);
        if (!mb_char_is_space(c)) {
            first = first == end ? p : first;
            last = p + len;
        }
        p += len;
    }
    if (!s->flag[0])
        first = in->p;
    if (!s->flag[1])
        last = end;
    return first < last ? mb_bytes_add(out, first, (size_t)(last - first)) : MB_OK;
}

static mb_status read_replace(mb_json v, const char *where, tok_stage *s)
{
    MB_TRY(tok_read_pattern(v, where, &s->pattern));
    return tok_read_content(v, "content", "", &s->content);
}

static mb_status replace(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    return tok_replace(s, in->p, in->n, out);
}

static mb_status read_prepend(mb_json v, const char *where, tok_stage *s)
{
    (void)where;
    return tok_read_content(v, "prepend", "", &s->content);
}

static mb_status prepend(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    if (in->n > 0)
        MB_TRY(mb_bytes_add(out, s->content.p, s->content.n));
    return mb_bytes_add(out, in->p, in->n);
}

static mb_status byte_level(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    (void)s;
    for (size_t i = 0; i < in->n; i++)
        MB_TRY(mb_utf8_add(out, tok_byte_to_char((uint8_t)in->p[i])));
    return MB_OK;
}

/* SentencePiece's rules as the tokenizers library applies them: a grapheme cluster of at most five
 * bytes is replaced whole by the shortest rule it begins with, otherwise character by character. */
static mb_status read_precompiled(mb_json v, const char *where, tok_stage *s)
{
    mb_json map;
    const char *text;
    size_t n;

    MB_TRY(mb_json_need(v, "precompiled_charsmap", MB_JSON_STRING, &map));
    MB_TRY(mb_json_string(map, &text, &n));
    return n == 0 ? MB_OK : mb_charsmap_init_base64(&s->charsmap, text, n, where);
}

static mb_status precompiled(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    enum { LONGEST_CLUSTER = 5 };
    const mb_charsmap *map = &s->charsmap;
    uint32_t c;
    size_t n, len;

    if (map->bytes == NULL)
        return mb_bytes_add(out, in->p, in->n);
    for (const char *p = in->p, *end = p + in->n; p < end;) {
        const size_t cluster = mb_grapheme_len(p, end, LONGEST_CLUSTER);
        const char *to =
            cluster <= LONGEST_CLUSTER ? mb_charsmap_shortest(map, p, cluster, &n) : NULL;
        if (to != NULL) {
            MB_TRY(mb_bytes_add(out, to, n));
            p += cluster;
            continue;
        }
        for (const char *stop = p + cluster; p < stop; p += len) {
            len = mb_utf8_get(p, end, &c);
            to = mb_charsmap_shortest(map, p, len, &n);
            MB_TRY(to != NULL ? mb_bytes_add(out, to, n) : mb_bytes_add(out, p, len));
        }
    }
    return MB_OK;
}

/* What SentencePiece's nmt rules drop, and what they take for a space. */
static bool nmt_drops(uint32_t c)
{
    return (c >= 0x01 && c <= 0x08) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f ||
           c == 0x8f || c == 0x9f;
}

static bool nmt_space(uint32_t c)
{
    return c == 0x09 || c == 0x0a || c == 0x0c || c == 0x0d || c == 0x1680 ||
           (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xfeff || c == 0xfffd;
}

static mb_status nmt(const tok_stage *s, const mb_bytes *in, mb_bytes *out)
{
    uint32_t c;

    (void)s;
    for (const char *p = in->p, *end = p + in->n; p < end;) {
        const size_t len = mb_utf8_get(p, end, &c);
        if (nmt_space(c))
            MB_TRY(mb_bytes_add(out, " ", 1));
        else if (!nmt_drops(c))
            MB_TRY(mb_bytes_add(out, p, len));
        p += len;
    }
    return MB_OK;
}

static const tok_step steps[] = {
    {.type = "BertNormalizer", .read = read_bert, .normalize = bert},
    {.type = "NFC", .normalize = nfc},
    {.type = "NFD", .normalize = nfd},
    {.type = "NFKC", .normalize = nfkc},
    {.type = "NFKD", .normalize = nfkd},
    {.type = "Nmt", .normalize = nmt},
    {.type = "Precompiled", .read = read_precompiled, .normalize = precompiled},
    {.type = "Lowercase", .normalize = lowercase},
    {.type = "StripAccents", .normalize = strip_accents},
    {.type = "SentencePiece",
     .read = tok_spm_read_normalizer,
     .normalize = tok_spm_normalize,
     .free = tok_spm_free_normalizer},
    {.type = "Strip", .read = read_strip, .normalize = strip},
    {.type = "Replace", .read = read_replace, .normalize = replace},
    {.type = "Prepend", .read = read_prepend, .normalize = prepend},
    {.type = "ByteLevel", .normalize = byte_level},
};

const tok_family tok_normalizers = {"normalizer", "normalizers", steps,
                                    sizeof steps / sizeof *steps};

mb_status tok_normalize(const tok_chain *c, const char *text, size_t n, bool goes_on, mb_bytes *out,
                        mb_bytes *spare)
{
    out->n = 0;
    MB_TRY(mb_bytes_add(out, text, n));
    for (size_t i = 0; i < c->n; i++) {
        if (goes_on && c->at[i].step->normalize == prepend)
            continue;
        spare->n = 0;
        MB_TRY(mb_bytes_reserve(out, 1)); /* so that out->p is not NULL */
        const bool on = goes_on && c->at[i].step->normalize == tok_spm_normalize;
        MB_TRY(on ? tok_spm_normalize_on(&c->at[i], out, spare)
                  : c->at[i].step->normalize(&c->at[i], out, spare));
        const mb_bytes swap = *out;
        *out = *spare;
        *spare = swap;
    }
    return MB_OK;
}
