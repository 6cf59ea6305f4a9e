/* recipes/tokenizers/regex.c - the patterns of tokenizer files; the user of PCRE2.
 *
 * What Oniguruma means by a class, and so what is put in its place:
 *
 *     \s  White_Space (PCRE2's own adds U+180E)      \w  Alphabetic, M, Nd, Pc
 *     \d  Nd                                         \h  a hexadecimal digit
 *     \p{Han}  the script itself (PCRE2 would take script extensions)
 *     ^ $ are about lines; (?m) is what others write as (?s)
 *
 * Just-in-time compiled code runs first; where its stack does not suffice the interpreter does the
 * match, with its memory on the heap and limited.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "recipes/tokenizers/regex.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

struct mb_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
    char *source;
    char *where;
};

/* Outside a class Oniguruma has a table of its own for Latin-1, where superscripts and fractions
 * belong to words. */
#define WORD   "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define LATIN1 "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

/* An escape letter: what stands for it outside a class and inside one. */
static const struct {
    char letter;
    const char *outside, *inside;
} escapes[] = {
    {'s', "\\p{White_Space}", "\\p{White_Space}"},
    {'S', "\\P{White_Space}", "\\P{White_Space}"},
    {'d', "\\p{Nd}", "\\p{Nd}"},
    {'D', "\\P{Nd}", "\\P{Nd}"},
    {'w', "[" WORD LATIN1 "]", WORD},
    {'W', "[^" WORD LATIN1 "]", NULL},
    {'h', "[0-9a-fA-F]", "0-9a-fA-F"},
    {'H', "[^0-9a-fA-F]", NULL},
};

/* POSIX brackets, [:alpha:]. */
static const struct {
    const char *name, *inside;
} brackets[] = {
    {"alpha", "\\p{Alphabetic}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"digit", "\\p{Nd}"},
    {"lower", "\\p{Lowercase}"},
    {"upper", "\\p{Uppercase}"},
    {"punct", "\\p{P}\\p{S}"},
    {"word", WORD},
    {"space", "\\p{White_Space}"},
    {"xdigit", "0-9a-fA-F"},
};

/* True if PCRE2 knows \p{sc:NAME}: NAME is a script. */
static bool is_script(const char *name, size_t n)
{
    char probe[80];
    int error;
    PCRE2_SIZE at;

    if (n <= 2 || n > 60)
        return false;
    const int len = snprintf(probe, sizeof probe, "\\p{sc:%.*s}", (int)n, name);
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)probe, (PCRE2_SIZE)len, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    pcre2_code_free(code);
    return code != NULL;
}

/* What is being translated. */
struct pattern {
    const char *p, *end;
    const char *where;
    mb_bytes *to;
    bool in_class, counted; /* counted: a {n,m} has just ended */
};

static mb_status refuse(const struct pattern *s, const char *what)
{
    return MB_RAISE(MB_ENOTSUP, "%s: a pattern uses %s, which is not supported", s->where, what);
}

static mb_status translate_escape(struct pattern *s)
{
    if (s->p + 1 >= s->end) /* PCRE2 says what is wrong with it */
        return mb_bytes_add(s->to, s->p++, 1);
    const char letter = s->p[1];
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        if (escapes[i].letter != letter)
            continue;
        s->p += 2;
        if (s->in_class && escapes[i].inside == NULL)
            return refuse(s, "\\W or \\H inside a class");
        return mb_bytes_puts(s->to, s->in_class ? escapes[i].inside : escapes[i].outside);
    }
    if ((letter == 'p' || letter == 'P') && s->p + 2 < s->end && s->p[2] == '{') {
        const char *name = s->p + 3;
        const char *close = memchr(name, '}', (size_t)(s->end - name));
        if (close != NULL) {
            const char *bare = *name == '^' ? name + 1 : name;
            MB_TRY(mb_bytes_add(s->to, s->p, (size_t)(bare - s->p)));
            if (is_script(bare, (size_t)(close - bare)))
                MB_TRY(mb_bytes_puts(s->to, "sc:"));
            MB_TRY(mb_bytes_add(s->to, bare, (size_t)(close + 1 - bare)));
            s->p = close + 1;
            return MB_OK;
        }
    }
    MB_TRY(mb_bytes_add(s->to, s->p, 2));
    s->p += 2;
    return MB_OK;
}

/* "(?flags" up to its ':' or ')'. */
static mb_status translate_flags(struct pattern *s)
{
    MB_TRY(mb_bytes_add(s->to, s->p, 2));
    for (s->p += 2; s->p < s->end && strchr("imx-", *s->p) != NULL && *s->p != '\0'; s->p++)
        MB_TRY(mb_bytes_add(s->to, *s->p == 'm' ? "s" : s->p, 1));
    return MB_OK;
}

static mb_status translate_bracket(struct pattern *s)
{
    const char *name = s->p + 2;
    const char *close = memmem(name, (size_t)(s->end - name), ":]", 2);

    for (size_t i = 0; close != NULL && i < sizeof brackets / sizeof *brackets; i++) {
        const size_t n = strlen(brackets[i].name);
        if ((size_t)(close - name) != n || memcmp(name, brackets[i].name, n) != 0)
            continue;
        s->p = close + 2;
        return mb_bytes_puts(s->to, brackets[i].inside);
    }
    return refuse(s, "a POSIX bracket that is not known");
}

static mb_status translate_in_class(struct pattern *s)
{
    const size_t left = (size_t)(s->end - s->p);

    if (left >= 2 && s->p[0] == '&' && s->p[1] == '&')
        return refuse(s, "a class intersection (&&)");
    if (left >= 2 && s->p[0] == '[' && s->p[1] == ':')
        return translate_bracket(s);
    if (s->p[0] == '[')
        return refuse(s, "a class inside a class");
    if (s->p[0] == ']')
        s->in_class = false;
    return mb_bytes_add(s->to, s->p++, 1);
}

static mb_status translate_outside(struct pattern *s)
{
    const size_t left = (size_t)(s->end - s->p);
    const bool counted = s->counted;

    s->counted = false;
    if (left >= 3 && s->p[0] == '(' && s->p[1] == '?' && strchr("imx-", s->p[2]) != NULL)
        return translate_flags(s);
    if (counted && s->p[0] == '+')
        return refuse(s, "{n,m}+");
    if (s->p[0] == '}')
        s->counted = true;
    if (s->p[0] == '[') {
        s->in_class = true;
        MB_TRY(mb_bytes_add(s->to, s->p++, 1));
        if (s->p < s->end && *s->p == '^')
            MB_TRY(mb_bytes_add(s->to, s->p++, 1));
        if (s->p < s->end && *s->p == ']') /* a literal ] may come first */
            MB_TRY(mb_bytes_add(s->to, s->p++, 1));
        return MB_OK;
    }
    return mb_bytes_add(s->to, s->p++, 1);
}

static mb_status translate(const char *pattern, size_t n, const char *where, mb_bytes *to)
{
    struct pattern s = {pattern, pattern + n, where, to, false, false};

    while (s.p < s.end) {
        if (*s.p == '\\') {
            s.counted = false;
            MB_TRY(translate_escape(&s));
        } else if (s.in_class) {
            MB_TRY(translate_in_class(&s));
        } else {
            MB_TRY(translate_outside(&s));
        }
    }
    return MB_OK;
}

static mb_status compile(mb_regex *re, const mb_bytes *source)
{
    int error;
    PCRE2_SIZE at;
    PCRE2_UCHAR why[128];
    pcre2_compile_context *how = pcre2_compile_context_create(NULL);

    MB_REQUIRE(how != NULL, MB_ENOMEM, "%s: no memory for a pattern", re->where);
    pcre2_set_newline(how, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(how, 100);
    re->code = pcre2_compile((PCRE2_SPTR)source->p, source->n,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &at, how);
    pcre2_compile_context_free(how);
    if (re->code == NULL) {
        pcre2_get_error_message(error, why, sizeof why);
        return MB_RAISE(MB_EMODEL, "%s: the pattern \"%.200s\" is not understood: %s", re->where,
                        re->source, (const char *)why);
    }
    pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE); /* without it the interpreter does the work */
    re->limits = pcre2_match_context_create(NULL);
    MB_REQUIRE(re->limits != NULL, MB_ENOMEM, "%s: no memory for a pattern", re->where);
    /* A match over a megabyte of one kind of character needs a few steps per byte. */
    pcre2_set_match_limit(re->limits, 100000000);
    pcre2_set_heap_limit(re->limits, 1 << 20); /* KiB */
    return MB_OK;
}

mb_status mb_regex_new(const char *pattern, size_t n, const char *where, mb_regex **out)
{
    mb_bytes source = {0};
    mb_regex *re = NULL;
    mb_status st = MB_OK;

    MB_REQUIRE(n <= 1 << 16, MB_EMODEL, "%s: a pattern of %zu bytes", where, n);
    MB_TRY(MB_NEW(&re));
    MB_TRY_GOTO(mb_strndup(pattern, n, &re->source), st, done);
    MB_TRY_GOTO(mb_strdup(where, &re->where), st, done);
    MB_TRY_GOTO(translate(pattern, n, where, &source), st, done);
    MB_TRY_GOTO(mb_bytes_end(&source), st, done);
    MB_TRY_GOTO(compile(re, &source), st, done);
    *out = re;
    re = NULL;
done:
    mb_bytes_release(&source);
    mb_regex_free(re);
    return st;
}

void mb_regex_free(mb_regex *re)
{
    if (re == NULL)
        return;
    pcre2_match_context_free(re->limits);
    pcre2_code_free(re->code);
    mb_free(re->source);
    mb_free(re->where);
    mb_free(re);
}

static mb_status split(const mb_regex *re, pcre2_match_data *found, const char *text, size_t n,
                       size_t base, mb_spans *out)
{
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(found);
    size_t from = 0, last = 0;

    while (from <= n) {
        int rc =
            pcre2_match(re->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, found, re->limits);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(re->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                             found, re->limits);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        MB_REQUIRE(rc >= 0, MB_EMODEL,
                   "%s: the pattern \"%.200s\" gave up on a text of %zu bytes (PCRE2 error %d)",
                   re->where, re->source, n, rc);
        if (at[0] > last)
            MB_TRY(mb_spans_push(out, base + last, base + at[0], false));
        if (at[1] > at[0]) {
            MB_TRY(mb_spans_push(out, base + at[0], base + at[1], true));
            from = at[1];
        } else { /* an empty match only cuts; the search goes on after the next character */
            from = at[1] + 1;
            while (from < n && ((unsigned char)text[from] & 0xc0) == 0x80)
                from++;
        }
        last = at[1] > at[0] ? at[1] : at[0];
    }
    if (last < n)
        MB_TRY(mb_spans_push(out, base + last, base + n, false));
    return MB_OK;
}

mb_status mb_regex_split(const mb_regex *re, const char *text, size_t n, size_t base, mb_spans *out)
{
    pcre2_match_data *found = pcre2_match_data_create(1, NULL);

    MB_REQUIRE(found != NULL, MB_ENOMEM, "%s: no memory to match a pattern", re->where);
    const mb_status st = split(re, found, text, n, base, out);
    pcre2_match_data_free(found);
    return st;
}
