/* recipes/tokenizers/bytes.c - growable bytes, spans of them, and a map from bytes to ids.
 *
 * The map is an open-addressing table of entry numbers with the upper hash bits beside them; the
 * strings lie one after the other in one block, so a vocabulary of 262,144 tokens is four blocks.
 */
#include "recipes/tokenizers/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

mb_status mb_bytes_reserve(mb_bytes *t, size_t more)
{
    if (more <= t->capacity - t->n)
        return MB_OK;
    MB_REQUIRE(more < SIZE_MAX / 4 - t->n, MB_ENOMEM, "text: %zu more bytes after %zu", more, t->n);
    return mb_grow((void **)&t->p, &t->capacity, t->n + more, 1, "text");
}

mb_status mb_bytes_add(mb_bytes *t, const char *p, size_t n)
{
    if (n > t->capacity - t->n)
        MB_TRY(mb_bytes_reserve(t, n));
    if (n > 0)
        memcpy(t->p + t->n, p, n);
    t->n += n;
    return MB_OK;
}

mb_status mb_bytes_puts(mb_bytes *t, const char *s)
{
    return mb_bytes_add(t, s, strlen(s));
}

mb_status mb_bytes_printf(mb_bytes *t, const char *fmt, ...)
{
    char line[512];
    va_list args;

    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n < 0)
        MB_BUG("a piece of text cannot be formatted");
    if ((size_t)n < sizeof line)
        return mb_bytes_add(t, line, (size_t)n);
    MB_TRY(mb_bytes_reserve(t, (size_t)n + 1)); /* with the NUL that is written behind it */
    va_start(args, fmt);
    vsnprintf(t->p + t->n, (size_t)n + 1, fmt, args);
    va_end(args);
    t->n += (size_t)n;
    return MB_OK;
}

mb_status mb_bytes_json(mb_bytes *t, const char *s, size_t n)
{
    MB_TRY(mb_bytes_add(t, "\"", 1));
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            MB_TRY(mb_bytes_printf(t, "\\%c", c));
        else if (c < 0x20 || c == 0x7f)
            MB_TRY(mb_bytes_printf(t, "\\u%04x", c));
        else
            MB_TRY(mb_bytes_add(t, s + i, 1));
    }
    return mb_bytes_add(t, "\"", 1);
}

mb_status mb_bytes_base64(mb_bytes *t, const char *p, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < n; i += 3) {
        const size_t k = n - i < 3 ? n - i : 3;
        uint32_t bits = 0;
        char four[4];
        for (size_t b = 0; b < 3; b++)
            bits = bits << 8 | (b < k ? (uint8_t)p[i + b] : 0);
        for (size_t b = 0; b < 4; b++)
            four[b] = b <= k ? digit[bits >> (18 - 6 * b) & 63] : '=';
        MB_TRY(mb_bytes_add(t, four, 4));
    }
    return MB_OK;
}

mb_status mb_bytes_end(mb_bytes *t)
{
    MB_TRY(mb_bytes_reserve(t, 1));
    t->p[t->n] = '\0';
    return MB_OK;
}

void mb_bytes_release(mb_bytes *t)
{
    mb_free(t->p);
    *t = (mb_bytes){0};
}

mb_status mb_spans_grow(mb_spans *s)
{
    return mb_grow((void **)&s->at, &s->capacity, s->n + 64, sizeof *s->at, "spans");
}

void mb_spans_release(mb_spans *s)
{
    mb_free(s->at);
    *s = (mb_spans){0};
}

uint64_t mb_bytes_hash(const char *p, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ n, w;

    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&w, p, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    w = 0;
    for (size_t i = 0; i < n; i++)
        w = w << 8 | (unsigned char)p[i];
    h = (h ^ w) * 0xc4ceb9fe1a85ec53u;
    h ^= h >> 29;
    h *= 0xff51afd7ed558ccdu;
    return h ^ h >> 32;
}

struct entry {
    size_t at;
    uint32_t n;
    int32_t id;
};

struct slot {
    uint32_t entry; /* number + 1; 0 is free */
    uint32_t tag;   /* upper half of the hash */
};

struct mb_vocab {
    struct entry *entry;
    size_t n, capacity;
    struct slot *slot;
    size_t mask;
    mb_bytes text;
    size_t longest;
};

static mb_status rehash(mb_vocab *v, size_t slots)
{
    struct slot *fresh = NULL;

    MB_TRY(MB_NEW_ARRAY(&fresh, slots));
    for (size_t i = 0; i < v->n; i++) {
        const uint64_t h = mb_bytes_hash(v->text.p + v->entry[i].at, v->entry[i].n);
        size_t s = h & (slots - 1);
        while (fresh[s].entry != 0)
            s = (s + 1) & (slots - 1);
        fresh[s] = (struct slot){(uint32_t)i + 1, (uint32_t)(h >> 32)};
    }
    mb_free(v->slot);
    v->slot = fresh;
    v->mask = slots - 1;
    return MB_OK;
}

mb_status mb_vocab_new(size_t expected, mb_vocab **out)
{
    mb_vocab *v = NULL;
    size_t slots = 16;

    MB_TRY(MB_NEW(&v));
    while (slots < expected * 2)
        slots *= 2;
    mb_status st = rehash(v, slots);
    if (st != MB_OK) {
        mb_free(v);
        return st;
    }
    *out = v;
    return MB_OK;
}

void mb_vocab_free(mb_vocab *v)
{
    if (v == NULL)
        return;
    mb_free(v->entry);
    mb_free(v->slot);
    mb_bytes_release(&v->text);
    mb_free(v);
}

static struct slot *slot_of(const mb_vocab *v, const char *p, size_t n)
{
    const uint64_t h = mb_bytes_hash(p, n);

    for (size_t s = h & v->mask;; s = (s + 1) & v->mask) {
        if (v->slot[s].entry == 0)
            return &v->slot[s];
        if (v->slot[s].tag != (uint32_t)(h >> 32))
            continue;
        const struct entry *e = &v->entry[v->slot[s].entry - 1];
        if (e->n == n && memcmp(v->text.p + e->at, p, n) == 0)
            return &v->slot[s];
    }
}

mb_status mb_vocab_add(mb_vocab *v, const char *p, size_t n, int32_t id, bool *added)
{
    *added = false;
    if (slot_of(v, p, n)->entry != 0)
        return MB_OK;
    MB_REQUIRE(v->n < INT32_MAX / 2 && n < UINT32_MAX, MB_EMODEL,
               "a vocabulary of more than %zu tokens", v->n);
    if (v->n * 2 >= v->mask)
        MB_TRY(rehash(v, (v->mask + 1) * 2));
    if (v->n == v->capacity)
        MB_TRY(mb_grow((void **)&v->entry, &v->capacity, v->n + 1, sizeof *v->entry, "vocabulary"));
    const size_t at = v->text.n;
    MB_TRY(mb_bytes_add(&v->text, p, n));
    MB_TRY(mb_bytes_add(&v->text, "", 1));
    v->entry[v->n] = (struct entry){at, (uint32_t)n, id};
    *slot_of(v, p, n) = (struct slot){(uint32_t)++v->n, (uint32_t)(mb_bytes_hash(p, n) >> 32)};
    if (n > v->longest)
        v->longest = n;
    *added = true;
    return MB_OK;
}

int32_t mb_vocab_find(const mb_vocab *v, const char *p, size_t n)
{
    const struct slot *s = slot_of(v, p, n);
    return s->entry == 0 ? -1 : v->entry[s->entry - 1].id;
}

size_t mb_vocab_count(const mb_vocab *v)
{
    return v->n;
}

size_t mb_vocab_longest(const mb_vocab *v)
{
    return v->longest;
}

const char *mb_vocab_at(const mb_vocab *v, size_t i, size_t *n, int32_t *id)
{
    *n = v->entry[i].n;
    *id = v->entry[i].id;
    return v->text.p + v->entry[i].at;
}
