/* recipes/tokenizers/charsmap.c - reading and searching a precompiled_charsmap. */
#include "recipes/tokenizers/charsmap.h"

#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/unicode.h"

static uint32_t unit_at(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static mb_status take(mb_charsmap *m, char *bytes, size_t n, const char *where)
{
    m->bytes = bytes;
    MB_REQUIRE(n >= 4, MB_EMODEL, "%s: a precompiled_charsmap of %zu bytes", where, n);
    const uint32_t size = unit_at(bytes);
    MB_REQUIRE(size % 4 == 0 && size > 0 && size <= n - 4, MB_EMODEL,
               "%s: the precompiled_charsmap has %zu bytes, but its trie %u", where, n,
               (unsigned)size);
    m->unit = bytes + 4;
    m->n_units = size / 4;
    m->text = bytes + 4 + size;
    m->n_text = n - 4 - size;
    size_t bad;
    MB_REQUIRE(mb_utf8_check(m->text, m->n_text, &bad), MB_EMODEL,
               "%s: the precompiled_charsmap's replacements are not UTF-8 at byte %zu of %zu",
               where, bad, m->n_text);
    return MB_OK;
}

mb_status mb_charsmap_init(mb_charsmap *m, const char *bytes, size_t n, const char *where)
{
    char *copy = NULL;

    *m = (mb_charsmap){0};
    MB_TRY(MB_NEW_ARRAY(&copy, n + 1)); /* the zero at the end ends the last replacement */
    memcpy(copy, bytes, n);
    const mb_status st = take(m, copy, n, where);
    if (st != MB_OK)
        mb_charsmap_release(m);
    return st;
}

static int base64_digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

mb_status mb_charsmap_init_base64(mb_charsmap *m, const char *text, size_t n, const char *where)
{
    char *bytes = NULL;
    size_t out = 0, end = n;
    uint32_t bits = 0;
    mb_status st = MB_OK;

    *m = (mb_charsmap){0};
    MB_TRY(MB_NEW_ARRAY(&bytes, n / 4 * 3 + 4));
    while (end > 0 && end + 2 > n && text[end - 1] == '=')
        end--;
    for (size_t i = 0; i < end && st == MB_OK; i++) {
        const int digit = base64_digit(text[i]);
        if (digit < 0 || n % 4 != 0) {
            st =
                MB_RAISE(MB_EMODEL, "%s: the precompiled_charsmap is not base64 at byte %zu of %zu",
                         where, i, n);
            break;
        }
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 > 0)
            bytes[out++] = (char)(bits >> (6 - 2 * (i % 4)) & 0xff);
    }
    if (st != MB_OK) {
        mb_free(bytes);
        return st;
    }
    bytes[out] = '\0';
    st = take(m, bytes, out, where);
    if (st != MB_OK)
        mb_charsmap_release(m);
    return st;
}

void mb_charsmap_release(mb_charsmap *m)
{
    mb_free(m->bytes);
    *m = (mb_charsmap){0};
}

static uint32_t children(uint32_t unit)
{
    return (unit >> 10) << ((unit & 0x200) >> 6);
}

/* Walks down; after each byte that ends a rule, *value and *used are set. Stops at the first rule
 * or goes on for the longest. */
static bool search(const mb_charsmap *m, const char *p, size_t n, bool longest, uint32_t *value,
                   size_t *used)
{
    size_t at = children(unit_at(m->unit));
    bool found = false;

    for (size_t i = 0; i < n; i++) {
        const uint8_t byte = (uint8_t)p[i];
        at ^= byte;
        if (at >= m->n_units)
            break;
        const uint32_t unit = unit_at(m->unit + 4 * at);
        if ((unit & 0x800000ff) != byte)
            break;
        at ^= children(unit);
        if ((unit >> 8 & 1) == 0)
            continue;
        if (at >= m->n_units)
            break;
        *value = unit_at(m->unit + 4 * at) & 0x7fffffff;
        *used = i + 1;
        found = true;
        if (!longest)
            break;
    }
    return found;
}

static const char *replacement(const mb_charsmap *m, uint32_t value, size_t *n_out)
{
    /* A broken file, as if there were no rule: past the end, or in the middle of a character. */
    if (value > m->n_text || ((unsigned char)m->text[value] & 0xc0) == 0x80)
        return NULL;
    *n_out = strlen(m->text + value);
    return m->text + value;
}

const char *mb_charsmap_shortest(const mb_charsmap *m, const char *p, size_t n, size_t *n_out)
{
    uint32_t value;
    size_t used;

    return search(m, p, n, false, &value, &used) ? replacement(m, value, n_out) : NULL;
}

const char *mb_charsmap_longest(const mb_charsmap *m, const char *p, size_t n, size_t *used,
                                size_t *n_out)
{
    uint32_t value;

    return search(m, p, n, true, &value, used) ? replacement(m, value, n_out) : NULL;
}
