/* recipes/tokenizers/steps.c - reading steps and their settings; what families share. */
#include "recipes/tokenizers/steps.h"

#include <string.h>

#include "core/alloc.h"

static mb_status split_by_class(mb_char_class is, const char *text, size_t n, size_t base,
                                mb_spans *out)
{
    const char *end = text + n, *last = text;
    uint32_t c;

    for (const char *p = text; p < end;) {
        const size_t len = mb_utf8_get(p, end, &c);
        if (is(c)) {
            if (p > last)
                MB_TRY(mb_spans_push(out, base + (size_t)(last - text), base + (size_t)(p - text),
                                     false));
            MB_TRY(mb_spans_push(out, base + (size_t)(p - text), base + (size_t)(p - text) + len,
                                 true));
            last = p + len;
        }
        p += len;
    }
    return last < end ? mb_spans_push(out, base + (size_t)(last - text), base + n, false) : MB_OK;
}

static mb_status split_by_literal(const mb_bytes *what, const char *text, size_t n, size_t base,
                                  mb_spans *out)
{
    size_t last = 0;

    while (what->n > 0 && last < n) {
        const char *hit = memmem(text + last, n - last, what->p, what->n);
        if (hit == NULL)
            break;
        const size_t at = (size_t)(hit - text);
        if (at > last)
            MB_TRY(mb_spans_push(out, base + last, base + at, false));
        MB_TRY(mb_spans_push(out, base + at, base + at + what->n, true));
        last = at + what->n;
    }
    return last < n ? mb_spans_push(out, base + last, base + n, false) : MB_OK;
}

mb_status tok_pattern_split(const tok_pattern *p, const char *text, size_t n, size_t base,
                            mb_spans *out)
{
    if (p->is != NULL)
        return split_by_class(p->is, text, n, base, out);
    if (p->regex != NULL)
        return mb_regex_split(p->regex, text, n, base, out);
    return split_by_literal(&p->literal, text, n, base, out);
}

mb_status tok_replace(const tok_stage *s, const char *in, size_t n, mb_bytes *out)
{
    mb_spans found = {0};
    mb_status st = MB_OK;

    MB_TRY_GOTO(tok_pattern_split(&s->pattern, in, n, 0, &found), st, done);
    for (size_t i = 0; i < found.n; i++) {
        const mb_span *f = &found.at[i];
        if (f->match)
            MB_TRY_GOTO(mb_bytes_add(out, s->content.p, s->content.n), st, done);
        else
            MB_TRY_GOTO(mb_bytes_add(out, in + f->begin, f->end - f->begin), st, done);
    }
done:
    mb_spans_release(&found);
    return st;
}

mb_status tok_read_pattern(mb_json object, const char *where, tok_pattern *out)
{
    mb_json pattern;
    const char *text;
    size_t n;

    MB_TRY(mb_json_need(object, "pattern", MB_JSON_OBJECT, &pattern));
    const mb_json regex = mb_json_get(pattern, "Regex");
    if (mb_json_is_set(regex)) {
        MB_TRY(mb_json_string(regex, &text, &n));
        return mb_regex_new(text, n, where, &out->regex);
    }
    mb_json literal;
    MB_TRY(mb_json_need(pattern, "String", MB_JSON_STRING, &literal));
    MB_TRY(mb_json_string(literal, &text, &n));
    return mb_bytes_add(&out->literal, text, n);
}

mb_status tok_read_content(mb_json object, const char *key, const char *otherwise, mb_bytes *out)
{
    const char *text;

    MB_TRY(mb_json_get_string(object, key, otherwise, &text));
    return mb_bytes_puts(out, text);
}

mb_status tok_read_behavior(mb_json object, const char *where, enum tok_behavior otherwise,
                            enum tok_behavior *out)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name;

    *out = otherwise;
    MB_TRY(mb_json_get_string(object, "behavior", names[otherwise], &name));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum tok_behavior)i;
            return MB_OK;
        }
    }
    return MB_RAISE(MB_ENOTSUP, "%s: the split behavior \"%.60s\" is not known", where, name);
}

mb_status tok_read_metaspace(mb_json v, const char *where, tok_stage *s)
{
    const char *scheme;
    bool prefix_space;

    MB_TRY(tok_read_content(v, "replacement", "\xe2\x96\x81", &s->content));
    MB_TRY(mb_json_get_bool(v, "add_prefix_space", true, &prefix_space));
    MB_TRY(mb_json_get_string(v, "prepend_scheme", prefix_space ? "always" : "never", &scheme));
    MB_TRY(mb_json_get_bool(v, "split", true, &s->flag[2]));
    s->flag[0] = strcmp(scheme, "never") != 0;
    s->flag[1] = strcmp(scheme, "first") == 0;
    MB_REQUIRE(!s->flag[0] || s->flag[1] || strcmp(scheme, "always") == 0, MB_ENOTSUP,
               "%s: the Metaspace prepend_scheme \"%.60s\" is not known", where, scheme);
    return MB_OK;
}

static mb_status chain_read(const tok_family *f, mb_json v, const char *where, int depth,
                            tok_chain *out)
{
    const char *type;
    mb_json item;

    if (!mb_json_is_set(v))
        return MB_OK;
    MB_TRY(mb_json_need(v, "type", MB_JSON_STRING, &item));
    MB_TRY(mb_json_string(item, &type, NULL));
    if (strcmp(type, "Sequence") == 0) {
        MB_REQUIRE(depth < 16, MB_EMODEL, "%s: Sequences nested more than 16 deep in \"%s\"", where,
                   f->name);
        MB_TRY(mb_json_need(v, f->plural, MB_JSON_ARRAY, &item));
        for (size_t i = 0; i < mb_json_count(item); i++)
            MB_TRY(chain_read(f, mb_json_at(item, i), where, depth + 1, out));
        return MB_OK;
    }
    for (size_t i = 0; i < f->n; i++) {
        if (strcmp(type, f->step[i].type) != 0)
            continue;
        MB_TRY(mb_grow((void **)&out->at, &out->capacity, out->n + 1, sizeof *out->at, f->name));
        tok_stage *s = &out->at[out->n++];
        s->step = &f->step[i];
        return s->step->read == NULL ? MB_OK : s->step->read(v, where, s);
    }
    return MB_RAISE(MB_ENOTSUP, "%s: the %s \"%.60s\" is not supported", where, f->name, type);
}

mb_status tok_chain_read(const tok_family *f, mb_json v, const char *where, tok_chain *out)
{
    return chain_read(f, v, where, 0, out);
}

void tok_chain_release(tok_chain *c)
{
    for (size_t i = 0; i < c->n; i++) {
        mb_regex_free(c->at[i].pattern.regex);
        mb_bytes_release(&c->at[i].pattern.literal);
        mb_bytes_release(&c->at[i].content);
        mb_charsmap_release(&c->at[i].charsmap);
        if (c->at[i].data != NULL)
            c->at[i].step->free(c->at[i].data);
    }
    mb_free(c->at);
    *c = (tok_chain){0};
}

/* GPT-2's alphabet: the printable Latin-1 bytes stand for themselves, the 68 others for U+0100.. */
static bool prints_itself(unsigned b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

uint32_t tok_byte_to_char(uint8_t byte)
{
    if (prints_itself(byte))
        return byte;
    if (byte <= 32)
        return 0x100u + byte;
    return byte == 173 ? 0x143u : 0x121u + byte - 127u; /* 127..160 */
}

int tok_char_to_byte(uint32_t c)
{
    if (c < 0x100)
        return prints_itself(c) ? (int)c : -1;
    if (c <= 0x120)
        return (int)(c - 0x100);
    if (c <= 0x142)
        return (int)(c - 0x121 + 127);
    return c == 0x143 ? 173 : -1;
}

void tok_byte_ids(const mb_vocab *vocab, int32_t of_byte[256])
{
    static const char digit[] = "0123456789ABCDEF";

    for (unsigned byte = 0; byte < 256; byte++) {
        const char token[6] = {'<', '0', 'x', digit[byte >> 4], digit[byte & 15], '>'};
        of_byte[byte] = mb_vocab_find(vocab, token, sizeof token);
    }
}
