/* recipes/tokenizers/bytes.h - growable bytes, spans of them, and a map from bytes to ids. */
#ifndef MB_RECIPES_TOKENIZERS_BYTES_H
#define MB_RECIPES_TOKENIZERS_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* Bytes; all zero is empty. Not NUL-terminated unless mb_bytes_end was called. */
typedef struct mb_bytes {
    char *p;
    size_t n, capacity;
} mb_bytes;

mb_status mb_bytes_reserve(mb_bytes *t, size_t more) MB_MUST_USE; /* room for `more` bytes */
mb_status mb_bytes_add(mb_bytes *t, const char *p, size_t n) MB_MUST_USE;
mb_status mb_bytes_puts(mb_bytes *t, const char *s) MB_MUST_USE;
mb_status mb_bytes_printf(mb_bytes *t, const char *fmt, ...) MB_PRINTF(2, 3) MB_MUST_USE;
/* Adds s as a JSON string with its quotes. */
mb_status mb_bytes_json(mb_bytes *t, const char *s, size_t n) MB_MUST_USE;
/* Adds p[0..n) in base64 (RFC 4648, padded). */
mb_status mb_bytes_base64(mb_bytes *t, const char *p, size_t n) MB_MUST_USE;
mb_status mb_bytes_end(mb_bytes *t) MB_MUST_USE; /* puts a NUL after the bytes, not counted */
void mb_bytes_release(mb_bytes *t);

/* A stretch of a text; `match` is what a pattern said of it. */
typedef struct mb_span {
    size_t begin, end;
    bool match;
} mb_span;

typedef struct mb_spans {
    mb_span *at;
    size_t n, capacity;
} mb_spans;

mb_status mb_spans_grow(mb_spans *s) MB_MUST_USE; /* room for one more */
static inline mb_status mb_spans_push(mb_spans *s, size_t begin, size_t end, bool match)
{
    if (s->n == s->capacity)
        MB_TRY(mb_spans_grow(s));
    s->at[s->n++] = (mb_span){begin, end, match};
    return MB_OK;
}
void mb_spans_release(mb_spans *s);

uint64_t mb_bytes_hash(const char *p, size_t n);

/* Distinct byte strings, each with an id >= 0. The strings are copied. */
typedef struct mb_vocab mb_vocab;
mb_status mb_vocab_new(size_t expected, mb_vocab **out) MB_MUST_USE;
void mb_vocab_free(mb_vocab *v);
/* *added is false when the string is there already. */
mb_status mb_vocab_add(mb_vocab *v, const char *p, size_t n, int32_t id, bool *added) MB_MUST_USE;
int32_t mb_vocab_find(const mb_vocab *v, const char *p, size_t n); /* -1 when not there */
size_t mb_vocab_count(const mb_vocab *v);
size_t mb_vocab_longest(const mb_vocab *v); /* bytes */
/* The i-th string added (i < count), NUL-terminated, borrowed until the next add. */
const char *mb_vocab_at(const mb_vocab *v, size_t i, size_t *n, int32_t *id);

#endif
