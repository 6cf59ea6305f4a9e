/* recipes/metrics/bleu_words.c - how BLEU cuts text into words.
 *
 * The rules of mteval-v13a.pl and mteval-v14.pl as sacrebleu has them, one pass over the letters per
 * rule; a pass looks at what the one before left, from left to right, pieces not overlapping.
 */
#include <stdio.h>
#include <string.h>

#include "recipes/metrics/translation.h"
#include "recipes/tokenizers/unicode.h"

/* ---- passes ------------------------------------------------------------------------------- */

typedef bool (*letter_class)(int32_t c);

static mb_status put(mb_symbols *to, int32_t a, int32_t b, int32_t c)
{
    MB_TRY(mb_symbols_push(to, a));
    MB_TRY(mb_symbols_push(to, b));
    return c != 0 ? mb_symbols_push(to, c) : MB_OK;
}

/* Spaces around every letter of a class. */
static mb_status around(mb_symbols *s, letter_class is)
{
    mb_symbols out = {0};
    mb_status st = MB_OK;

    for (size_t i = 0; i < s->n; i++)
        MB_TRY_GOTO(is(s->at[i]) ? put(&out, ' ', s->at[i], ' ') : mb_symbols_push(&out, s->at[i]),
                    st, done);
    mb_symbols_release(s);
    *s = out;
    out = (mb_symbols){0};
done:
    mb_symbols_release(&out);
    return st;
}

/* Where a letter of class a is followed by one of class b: a space before the second and after it
 * (`second`), or before the first and after it. */
static mb_status between(mb_symbols *s, letter_class a, letter_class b, bool second)
{
    mb_symbols out = {0};
    mb_status st = MB_OK;

    for (size_t i = 0; i < s->n; i++) {
        const int32_t c = s->at[i];
        if (i + 1 == s->n || !a(c) || !b(s->at[i + 1])) {
            MB_TRY_GOTO(mb_symbols_push(&out, c), st, done);
            continue;
        }
        const int32_t d = s->at[++i];
        MB_TRY_GOTO(second ? put(&out, c, ' ', d) : put(&out, ' ', c, ' '), st, done);
        MB_TRY_GOTO(mb_symbols_push(&out, second ? ' ' : d), st, done);
    }
    mb_symbols_release(s);
    *s = out;
    out = (mb_symbols){0};
done:
    mb_symbols_release(&out);
    return st;
}

/* Every stretch equal to `old` (ASCII) becomes `new`. */
static mb_status replace(mb_symbols *s, const char *old, const char *new)
{
    const size_t length = strlen(old);
    size_t n = 0;

    MB_ASSERT(strlen(new) <= length);
    for (size_t i = 0; i < s->n;) {
        size_t k = 0;
        while (k < length && i + k < s->n && s->at[i + k] == old[k])
            k++;
        if (k < length) {
            s->at[n++] = s->at[i++];
            continue;
        }
        for (const char *p = new; *p != '\0'; p++)
            s->at[n++] = *p;
        i += length;
    }
    s->n = n;
    return MB_OK;
}

/* ---- classes ------------------------------------------------------------------------------ */

static bool is_digit(int32_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_no_digit(int32_t c)
{
    return !is_digit(c);
}

static bool is_point(int32_t c)
{
    return c == '.' || c == ',';
}

static bool is_dash(int32_t c)
{
    return c == '-';
}

/* ASCII but letters, digits, the apostrophe, comma, dash and point. */
static bool is_symbol_13a(int32_t c)
{
    return (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') || c == '/' || (c >= ':' && c <= '@') ||
           (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

static bool is_punctuation(int32_t c)
{
    return mb_char_category((uint32_t)c) == 'P';
}

static bool is_symbol(int32_t c)
{
    return mb_char_category((uint32_t)c) == 'S';
}

static bool is_no_number(int32_t c)
{
    return mb_char_category((uint32_t)c) != 'N';
}

/* sacrebleu's list. It writes the two ranges beyond U+FFFF with four digits and a fifth letter, which
 * then are U+2001 to U+2A6D and U+2F81 to U+2FA1; parity matters more than the typo. */
static bool is_chinese(int32_t c)
{
    static const int32_t range[][2] = {
        {0x2001, 0x2a6d}, {0x2e80, 0x2eff}, {0x2f00, 0x2fdf}, {0x2ff0, 0x303f}, {0x3100, 0x312f},
        {0x31a0, 0x31bf}, {0x31c0, 0x31ef}, {0x3200, 0x4db5}, {0x4e00, 0x9fbb}, {0xf900, 0xfa2d},
        {0xfa30, 0xfa6a}, {0xfa70, 0xfad9}, {0xfe10, 0xfe1f}, {0xfe30, 0xfe4f}, {0xff00, 0xffef},
    };

    for (size_t k = 0; k < sizeof range / sizeof *range; k++)
        if (c >= range[k][0] && c <= range[k][1])
            return true;
    return false;
}

/* ---- tokenizers --------------------------------------------------------------------------- */

static mb_status western(mb_symbols *s)
{
    MB_TRY(around(s, is_symbol_13a));
    MB_TRY(between(s, is_no_digit, is_point, true));
    MB_TRY(between(s, is_point, is_no_digit, false));
    return between(s, is_digit, is_dash, true);
}

static mb_status tokenize_13a(mb_symbols *s)
{
    static const char *const entity[][2] = {
        {"<skipped>", ""}, {"-\n", ""},   {"\n", " "},   {"&quot;", "\""},
        {"&amp;", "&"},    {"&lt;", "<"}, {"&gt;", ">"},
    };

    for (size_t k = 0; k < sizeof entity / sizeof *entity; k++)
        MB_TRY(replace(s, entity[k][0], entity[k][1]));
    MB_TRY(mb_symbols_reserve(s, 2));
    memmove(s->at + 1, s->at, s->n * sizeof *s->at);
    s->at[0] = s->at[s->n + 1] = ' ';
    s->n += 2;
    return western(s);
}

static mb_status tokenize_intl(mb_symbols *s)
{
    MB_TRY(between(s, is_no_number, is_punctuation, true));
    MB_TRY(between(s, is_punctuation, is_no_number, false));
    return around(s, is_symbol);
}

static mb_status tokenize_zh(mb_symbols *s)
{
    mb_letters_strip(s);
    MB_TRY(around(s, is_chinese));
    return western(s);
}

static bool is_any(int32_t c)
{
    return true;
}

static mb_status tokenize_char(mb_symbols *s)
{
    return around(s, is_any);
}

static mb_status tokenize_none(mb_symbols *s)
{
    return MB_OK;
}

mb_status mb_bleu_tokenizer_find(const char *name, mb_bleu_tokenizer *out)
{
    static const struct {
        const char *name;
        mb_bleu_tokenizer tokenize;
    } known[] = {{"13a", tokenize_13a},
                 {"intl", tokenize_intl},
                 {"zh", tokenize_zh},
                 {"char", tokenize_char},
                 {"none", tokenize_none}};

    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (name == NULL || strcmp(known[k].name, name) == 0) {
            *out = known[k].tokenize;
            return MB_OK;
        }
    return MB_RAISE(MB_EARG, "bleu: no tokenizer \"%s\"; there are 13a, intl, zh, char and none",
                    name);
}
