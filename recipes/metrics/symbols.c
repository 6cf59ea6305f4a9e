/* recipes/metrics/symbols.c - see symbols.h. */
#include "recipes/metrics/symbols.h"

#include <string.h>

#include "core/alloc.h"
#include "recipes/tokenizers/unicode.h"

enum { SIGMA = 0x3a3, SMALL_SIGMA = 0x3c3, FINAL_SIGMA = 0x3c2 };

mb_status mb_symbols_reserve(mb_symbols *s, size_t more)
{
    if (more <= s->capacity - s->n)
        return MB_OK;
    return mb_grow((void **)&s->at, &s->capacity, s->n + more, sizeof *s->at, "symbols");
}

mb_status mb_symbols_push(mb_symbols *s, int32_t x)
{
    MB_TRY(mb_symbols_reserve(s, 1));
    s->at[s->n++] = x;
    return MB_OK;
}

void mb_symbols_release(mb_symbols *s)
{
    mb_free(s->at);
    *s = (mb_symbols){0};
}

bool mb_is_space(int32_t c)
{
    return (c >= 0x1c && c <= 0x1f) || mb_char_is_space((uint32_t)c);
}

static bool is_letter(int32_t c)
{
    return mb_char_category((uint32_t)c) == 'L';
}

bool mb_is_alphanumeric(int32_t c)
{
    return strchr("LN", mb_char_category((uint32_t)c)) != NULL;
}

/* A sigma after a letter and not before one is the one of word ends; marks and apostrophes between
 * do not count (Unicode, Final_Sigma). */
static bool ends_word(const mb_symbols *s, size_t i)
{
    size_t j = i;

    while (j > 0 && (mb_char_category((uint32_t)s->at[j - 1]) == 'M' || s->at[j - 1] == '\''))
        j--;
    if (j == 0 || !is_letter(s->at[j - 1]))
        return false;
    j = i + 1;
    while (j < s->n && (mb_char_category((uint32_t)s->at[j]) == 'M' || s->at[j] == '\''))
        j++;
    return j == s->n || !is_letter(s->at[j]);
}

static mb_status decode(const char *text, mb_symbols *out)
{
    const char *end = text + strlen(text);

    out->n = 0;
    MB_TRY(mb_symbols_reserve(out, (size_t)(end - text)));
    while (text < end) {
        uint32_t c;
        text += mb_utf8_get(text, end, &c);
        out->at[out->n++] = (int32_t)c;
    }
    return MB_OK;
}

mb_status mb_letters_of(const char *text, bool lower, mb_symbols *out)
{
    mb_bytes bytes = {0};
    mb_symbols given = {0};
    mb_status st = MB_OK;

    if (!lower)
        return decode(text, out);
    MB_TRY_GOTO(decode(text, &given), st, done);
    for (size_t i = 0; i < given.n; i++)
        MB_TRY_GOTO(given.at[i] == SIGMA
                        ? mb_utf8_add(&bytes, ends_word(&given, i) ? FINAL_SIGMA : SMALL_SIGMA)
                        : mb_lower_add(&bytes, (uint32_t)given.at[i]),
                    st, done);
    MB_TRY_GOTO(mb_bytes_end(&bytes), st, done);
    MB_TRY_GOTO(decode(bytes.p, out), st, done);
done:
    mb_symbols_release(&given);
    mb_bytes_release(&bytes);
    return st;
}

void mb_letters_rstrip(mb_symbols *s)
{
    while (s->n > 0 && mb_is_space(s->at[s->n - 1]))
        s->n--;
}

void mb_letters_strip(mb_symbols *s)
{
    size_t from = 0;

    mb_letters_rstrip(s);
    while (from < s->n && mb_is_space(s->at[from]))
        from++;
    s->n -= from;
    if (from > 0)
        memmove(s->at, s->at + from, s->n * sizeof *s->at);
}

void mb_letters_squeeze(mb_symbols *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n; i++)
        if (!mb_is_space(s->at[i]))
            s->at[n++] = s->at[i];
    s->n = n;
}

mb_status mb_word_push(mb_vocab *words, const mb_symbols *letters, size_t from, size_t to,
                       mb_symbols *out)
{
    const char *p = (const char *)(letters->at + from);
    const size_t n = (to - from) * sizeof *letters->at;
    int32_t id = mb_vocab_find(words, p, n);
    bool added;

    if (id < 0) {
        id = (int32_t)mb_vocab_count(words);
        MB_TRY(mb_vocab_add(words, p, n, id, &added));
    }
    return mb_symbols_push(out, id);
}

mb_status mb_words_of(const mb_symbols *letters, mb_vocab *words, mb_symbols *out)
{
    size_t from = 0;

    out->n = 0;
    while (from < letters->n) {
        size_t to = from;
        while (to < letters->n && !mb_is_space(letters->at[to]))
            to++;
        if (to > from)
            MB_TRY(mb_word_push(words, letters, from, to, out));
        from = to + 1;
    }
    return MB_OK;
}
