/* recipes/serve/vocab_bytes.c - see recipes/serve/vocab_bytes.h.
 *
 * A token between two that are plain letters is decoded with them, and they are taken away: what is left
 * are its bytes, with the spaces that a decoder puts around it. Where that is not UTF-8 by itself (half a
 * character, which decodes to U+FFFD), the token's own name says its bytes: in the alphabet of byte-level
 * BPE, or as <0xE2>.
 */
#include "recipes/serve/vocab_bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/bytes.h"
#include "recipes/tokenizers/model.h"
#include "recipes/tokenizers/unicode.h"

struct mb_vocab_bytes {
    mb_bytes all;
    size_t *at; /* (n + 1) */
    int32_t n;
};

/* The bytes a name stands for. False: it is in neither alphabet. */
static bool bytes_of_name(const char *name, mb_bytes *out)
{
    const char *p = name, *end = name + strlen(name);
    unsigned byte;
    char after;

    if (sscanf(name, "<0x%2X%c", &byte, &after) == 2 && after == '>') {
        const char c = (char)byte;
        return mb_bytes_add(out, &c, 1) == MB_OK;
    }
    while (p < end) {
        uint32_t c;
        int value;
        char put;

        p += mb_utf8_get(p, end, &c);
        value = tok_char_to_byte(c);
        if (value < 0)
            return false;
        put = (char)value;
        if (mb_bytes_add(out, &put, 1) != MB_OK)
            return false;
    }
    return true;
}

static mb_status add_token(mb_vocab_bytes *v, const mb_tokenizer *t, int32_t before, int32_t id)
{
    const char *name = mb_tokenizer_id_to_token(t, id);
    const int32_t ids[3] = {before, id, before};
    char *text = NULL, *alone = NULL;
    size_t n, n_alone;
    mb_status st = MB_OK;

    if (name == NULL || mb_tokenizer_is_special(t, id))
        return MB_OK;
    if (before < 0) {
        MB_TRY(mb_tokenizer_decode(t, &id, 1, false, &text, &n));
        n_alone = 0;
        MB_TRY_GOTO(mb_strdup("", &alone), st, done);
    } else {
        MB_TRY(mb_tokenizer_decode(t, ids, 2, false, &text, &n));
        MB_TRY_GOTO(mb_tokenizer_decode(t, &before, 1, false, &alone, &n_alone), st, done);
    }
    if (n >= n_alone && memcmp(text, alone, n_alone) == 0 &&
        strstr(text + n_alone, "\xef\xbf\xbd") == NULL) {
        st = mb_bytes_add(&v->all, text + n_alone, n - n_alone);
    } else {
        const size_t keep = v->all.n;

        if (!bytes_of_name(name, &v->all)) {
            v->all.n = keep;
            st = mb_bytes_puts(&v->all, name);
        }
    }
done:
    mb_free(text);
    mb_free(alone);
    return st;
}

mb_status mb_vocab_bytes_new(const mb_tokenizer *t, mb_vocab_bytes **out)
{
    static const char *const plain[] = {"a", "e", "i", "A", "x", "1"};
    mb_vocab_bytes *v;
    int32_t before = -1;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW(&v));
    v->n = mb_tokenizer_vocab_size(t);
    MB_TRY_GOTO(MB_NEW_ARRAY(&v->at, (size_t)v->n + 1), st, done);
    for (size_t i = 0; i < sizeof plain / sizeof plain[0] && before < 0; i++)
        before = mb_tokenizer_token_to_id(t, plain[i], 1);
    for (int32_t id = 0; id < v->n && st == MB_OK; id++) {
        v->at[id] = v->all.n;
        st = add_token(v, t, before, id);
    }
    v->at[v->n] = v->all.n;
done:
    if (st != MB_OK) {
        mb_vocab_bytes_free(v);
        return st;
    }
    *out = v;
    return MB_OK;
}

void mb_vocab_bytes_free(mb_vocab_bytes *v)
{
    if (v == NULL)
        return;
    mb_bytes_release(&v->all);
    mb_free(v->at);
    mb_free(v);
}

const char *mb_vocab_bytes_of(const mb_vocab_bytes *v, int32_t id, size_t *n)
{
    *n = 0;
    if (id < 0 || id >= v->n)
        return NULL;
    *n = v->at[id + 1] - v->at[id];
    return v->all.p + v->at[id];
}

int32_t mb_vocab_bytes_count(const mb_vocab_bytes *v)
{
    return v->n;
}
