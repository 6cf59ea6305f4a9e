/* recipes/jinja/lex.c - a template becomes tokens, with trim_blocks and lstrip_blocks on.
 *
 * White space follows Jinja2: "-" takes all of it on its side; a block or comment that stands first
 * on its line takes the blanks before it unless it begins with "+"; the newline right behind a block
 * or comment goes unless it ends with "+".
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/jinja/inside.h"
#include "recipes/tokenizers/unicode.h"

mb_status jx_syntax(const mb_jinja *t, int line, const char *fmt, ...)
{
    char text[400];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return MB_RAISE(MB_EMODEL, "%s:%d: %s", t->name, line, text);
}

static bool at_text(const jx_lexer *x, size_t at, const char *s)
{
    const size_t n = strlen(s);

    return x->t->n - at >= n && memcmp(x->t->text + at, s, n) == 0;
}

/* Moves over white space, counting lines. */
static void skip_space(jx_lexer *x)
{
    uint32_t c;

    while (x->at < x->t->n) {
        const size_t n = mb_utf8_get(x->t->text + x->at, x->t->text + x->t->n, &c);

        if (!jx_is_space(c))
            return;
        x->line += c == '\n';
        x->at += n;
    }
}

static int count_lines(const char *p, size_t n)
{
    int lines = 0;

    for (size_t i = 0; i < n; i++)
        lines += p[i] == '\n';
    return lines;
}

/* The end of text [from, to) when white space at its end is cut off; `blanks` only back to the
 * start of its line, and only if nothing else is on it. */
static size_t cut_end(const jx_lexer *x, size_t from, size_t to, bool line_only)
{
    const jx_str s = {x->t->text + from, to - from, NULL, 0};
    size_t begin = 0;

    if (!line_only)
        return from + jx_strip(&s, NULL, JX_RIGHT).n;
    for (size_t i = s.n; i > 0 && begin == 0; i--)
        begin = s.p[i - 1] == '\n' ? i : 0;
    if (begin == 0 && !x->line_start)
        return to;
    const jx_str tail = jx_part(&s, begin, s.n);
    return jx_strip(&tail, NULL, JX_RIGHT).n == 0 ? from + begin : to;
}

/* Behind a block or comment that was closed: its newline goes (trim). */
static void after_tag(jx_lexer *x, char sign)
{
    if (sign == '-')
        skip_space(x);
    else if (sign != '+' && x->at < x->t->n && x->t->text[x->at] == '\n')
        x->at++, x->line++;
    x->line_start = x->at > 0 && x->t->text[x->at - 1] == '\n';
}

/* {% raw %} at `at`? Returns the offset behind its tag, 0 when it is not one. */
static size_t raw_tag(const jx_lexer *x, size_t at, const char *word, char *sign)
{
    const char *p = x->t->text, *end = p + x->t->n, *s = p + at + 2;

    *sign = 0;
    s += s < end && (*s == '-' || *s == '+');
    while (s < end && jx_is_space((unsigned char)*s))
        s++;
    if ((size_t)(end - s) < strlen(word) || memcmp(s, word, strlen(word)) != 0)
        return 0;
    s += strlen(word);
    while (s < end && jx_is_space((unsigned char)*s))
        s++;
    if (s < end && (*s == '-' || *s == '+'))
        *sign = *s++;
    return end - s >= 2 && s[0] == '%' && s[1] == '}' ? (size_t)(s + 2 - p) : 0;
}

static mb_status lex_raw(jx_lexer *x, size_t behind, char sign, jx_token *out)
{
    char closing;

    x->line += count_lines(x->t->text + x->at, behind - x->at);
    x->at = behind;
    if (sign == '-')
        skip_space(x);
    out->kind = JX_T_TEXT;
    out->line = x->line;
    x->line_start = false;
    for (size_t at = x->at; at < x->t->n; at++) {
        size_t end;

        if (!at_text(x, at, "{%") || (end = raw_tag(x, at, "endraw", &closing)) == 0)
            continue;
        const char open = x->t->text[at + 2];
        size_t to = at;

        if (open != '+')
            to = cut_end(x, x->at, at, open != '-');
        out->p = x->t->text + x->at;
        out->n = to - x->at;
        x->line += count_lines(x->t->text + x->at, end - x->at);
        x->at = end;
        after_tag(x, closing);
        return MB_OK;
    }
    return jx_syntax(x->t, out->line, "{%% raw %%} is never closed by {%% endraw %%}");
}

static mb_status skip_comment(jx_lexer *x)
{
    const int line = x->line;

    for (size_t at = x->at + 2; at + 1 < x->t->n; at++) {
        if (!at_text(x, at, "#}"))
            continue;
        const char before = x->t->text[at - 1];
        const char sign = at > x->at + 2 && (before == '-' || before == '+') ? before : 0;

        x->line += count_lines(x->t->text + x->at, at - x->at);
        x->at = at + 2;
        after_tag(x, sign);
        return MB_OK;
    }
    return jx_syntax(x->t, line, "the comment {# is never closed by #}");
}

/* Text up to the next tag; an empty token when there is none before it. */
static mb_status lex_text(jx_lexer *x, jx_token *out)
{
    const mb_jinja *t = x->t;
    size_t at = x->at, to;

    while (at < t->n && !(t->text[at] == '{' && at + 1 < t->n && strchr("{%#", t->text[at + 1])))
        at++;
    *out = (jx_token){.kind = JX_T_TEXT, .line = x->line, .p = t->text + x->at};
    to = at;
    if (at + 2 < t->n && t->text[at + 2] == '-')
        to = cut_end(x, x->at, at, false);
    else if (at < t->n && t->text[at + 1] != '{' && !(at + 2 < t->n && t->text[at + 2] == '+'))
        to = cut_end(x, x->at, at, true);
    out->n = to - x->at;
    x->line += count_lines(t->text + x->at, at - x->at);
    x->at = at;
    return MB_OK;
}

static bool is_name_start(unsigned char c)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static mb_status lex_number(jx_lexer *x, jx_token *out)
{
    const char *p = x->t->text;
    char text[64];
    size_t n = 0, at = x->at;
    bool real = false;
    int base = 10;
    char *end;

    if (p[at] == '0' && at + 1 < x->t->n && strchr("xXoObB", p[at + 1]) != NULL) {
        base = (p[at + 1] | 32) == 'x' ? 16 : (p[at + 1] | 32) == 'o' ? 8 : 2;
        at += 2;
    }
    while (at < x->t->n && n + 1 < sizeof text) {
        const char c = p[at];
        const char next = at + 1 < x->t->n ? p[at + 1] : 0;

        if (is_digit(c) || (base == 16 && ((c | 32) >= 'a' && (c | 32) <= 'f')))
            text[n++] = c;
        else if (base == 10 && c == '.' && is_digit(next) && !real)
            text[n++] = c, real = true;
        else if (base == 10 && (c | 32) == 'e' && (is_digit(next) || next == '-' || next == '+')) {
            text[n++] = c, real = true;
            if (!is_digit(next))
                text[n++] = next, at++;
        } else if (c != '_' || !is_digit(next))
            break;
        at++;
    }
    text[n] = '\0';
    errno = 0;
    out->kind = real ? JX_T_REAL : JX_T_INT;
    if (real)
        out->r = strtod(text, &end);
    else
        out->i = strtoll(text, &end, base);
    if (errno != 0 || *end != '\0' || n == 0 || n + 1 >= sizeof text || (real && !isfinite(out->r)))
        return jx_syntax(x->t, x->line, "the number %s... cannot be read", text);
    x->at = at;
    return MB_OK;
}

static mb_status lex_quoted(jx_lexer *x, jx_token *out)
{
    const char *p = x->t->text, quote = p[x->at];

    for (size_t at = x->at + 1; at < x->t->n; at++) {
        if (p[at] == '\\') {
            at++;
        } else if (p[at] == quote) {
            *out = (jx_token){JX_T_STRING, x->line, p + x->at + 1, at - x->at - 1, 0, 0};
            x->line += count_lines(out->p, out->n);
            x->at = at + 1;
            return MB_OK;
        }
    }
    return jx_syntax(x->t, x->line, "a string is not closed by %c", quote);
}

/* The end of a block or of an expression, when it is there. */
static bool lex_close(jx_lexer *x, jx_token *out)
{
    const bool block = x->inside == JX_T_BLOCK_BEGIN;
    const char first = block ? '%' : '}', *p = x->t->text + x->at;
    const size_t left = x->t->n - x->at;
    const size_t sign = *p == '-' || (block && *p == '+') ? 1 : 0;

    if (x->open > 0 || left < sign + 2 || p[sign] != first || p[sign + 1] != '}')
        return false;
    out->kind = block ? JX_T_BLOCK_END : JX_T_PRINT_END;
    x->at += sign + 2;
    x->inside = 0;
    if (block)
        after_tag(x, sign ? *p : 0);
    else if (sign)
        skip_space(x);
    if (!block)
        x->line_start = x->t->text[x->at - 1] == '\n';
    return true;
}

static mb_status lex_operator(jx_lexer *x, jx_token *out)
{
    static const struct {
        char text[3];
        int kind;
    } pairs[] = {{"==", JX_T_EQ}, {"!=", JX_T_NE},    {"<=", JX_T_LE},
                 {">=", JX_T_GE}, {"//", JX_T_FLOOR}, {"**", JX_T_POWER}};
    const char c = x->t->text[x->at];

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (at_text(x, x->at, pairs[i].text)) {
            out->kind = pairs[i].kind;
            x->at += 2;
            return MB_OK;
        }
    }
    if (strchr("+-/*%~[](){}<>=.:|,;", c) == NULL || c == '\0')
        return jx_syntax(x->t, x->line, "the character %s%c%s (0x%02x) means nothing here",
                         c < 32 ? "" : "\"", c < 32 ? ' ' : c, c < 32 ? "" : "\"",
                         (unsigned char)c);
    if (strchr("([{", c) != NULL) {
        if (x->open >= (int)sizeof x->bracket)
            return jx_syntax(x->t, x->line, "more than %d open brackets", x->open);
        x->bracket[x->open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c) != NULL) {
        if (x->open == 0 || x->bracket[x->open - 1] != c)
            return jx_syntax(x->t, x->line, "\"%c\" closes no bracket", c);
        x->open--;
    }
    out->kind = (unsigned char)c;
    x->at++;
    return MB_OK;
}

/* Opens what begins at `at`, which is one of {{ {% {#. */
static mb_status lex_open(jx_lexer *x, jx_token *out, bool *found)
{
    const char *p = x->t->text;
    char sign;
    size_t behind;

    *found = true;
    if (p[x->at + 1] == '%' && (behind = raw_tag(x, x->at, "raw", &sign)) != 0)
        return lex_raw(x, behind, sign, out);
    if (p[x->at + 1] == '#') {
        *found = false;
        return skip_comment(x);
    }
    out->kind = x->inside = p[x->at + 1] == '%' ? JX_T_BLOCK_BEGIN : JX_T_PRINT_BEGIN;
    x->at += 2;
    x->at += x->at < x->t->n && (p[x->at] == '-' || p[x->at] == '+');
    x->open = 0;
    x->line_start = false;
    return MB_OK;
}

mb_status jx_lex(jx_lexer *x, jx_token *out)
{
    const mb_jinja *t = x->t;

    while (x->inside == 0) {
        bool found;

        *out = (jx_token){.kind = JX_T_END, .line = x->line};
        if (x->at >= t->n)
            return MB_OK;
        MB_TRY(lex_text(x, out));
        if (out->n > 0) {
            x->line_start = false; /* what is before a tag decides no more */
            return MB_OK;
        }
        if (x->at >= t->n)
            continue;
        *out = (jx_token){.line = x->line};
        MB_TRY(lex_open(x, out, &found));
        if (found)
            return MB_OK;
    }
    skip_space(x);
    *out = (jx_token){.line = x->line};
    if (x->at >= t->n)
        return jx_syntax(t, x->line, "the template ends inside %s",
                         x->inside == JX_T_BLOCK_BEGIN ? "{%" : "{{");
    if (lex_close(x, out))
        return MB_OK;

    const char c = t->text[x->at];
    if (is_name_start((unsigned char)c)) {
        size_t at = x->at;

        while (at < t->n && (is_name_start((unsigned char)t->text[at]) || is_digit(t->text[at])))
            at++;
        *out = (jx_token){JX_T_NAME, x->line, t->text + x->at, at - x->at, 0, 0};
        x->at = at;
        return MB_OK;
    }
    if (is_digit(c))
        return lex_number(x, out);
    if (c == '\'' || c == '"')
        return lex_quoted(x, out);
    return lex_operator(x, out);
}
