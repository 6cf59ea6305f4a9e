/* recipes/hub/markdown.c - model cards as HTML: a small part of Markdown, line by line. */
#include <string.h>

#include "recipes/hub/html.h"

enum { DEEPEST = 8, LINK_MAX = 2000 };

struct line {
    const char *s;
    size_t n;
};

struct reader {
    mb_bytes *h;
    const char *at, *end;
};

static mb_status inline_text(mb_bytes *h, const char *s, size_t n, int depth);

static bool next_line(struct reader *r, struct line *l)
{
    if (r->at >= r->end)
        return false;
    const char *newline = memchr(r->at, '\n', (size_t)(r->end - r->at));
    const char *stop = newline != NULL ? newline : r->end;
    *l = (struct line){r->at, (size_t)(stop - r->at)};
    while (l->n > 0 && (l->s[l->n - 1] == '\r' || l->s[l->n - 1] == ' '))
        l->n--;
    r->at = newline != NULL ? newline + 1 : r->end;
    return true;
}

static bool peek(const struct reader *r, struct line *l)
{
    struct reader copy = *r;

    return next_line(&copy, l);
}

static bool begins(const struct line *l, const char *with)
{
    const size_t n = strlen(with);

    return l->n >= n && memcmp(l->s, with, n) == 0;
}

/* Where `mark` comes again within [from, n); n: nowhere. */
static size_t find(const char *s, size_t from, size_t n, const char *mark)
{
    const size_t m = strlen(mark);

    for (size_t i = from; i + m <= n; i++)
        if (memcmp(s + i, mark, m) == 0)
            return i;
    return n;
}

/* `mark` text `mark` as an element; 0: it is none. */
static mb_status pair(mb_bytes *h, const char *s, size_t n, const char *mark, const char *element,
                      bool plain, int depth, size_t *taken)
{
    const size_t m = strlen(mark);

    *taken = 0;
    if (n < 2 * m + 1 || memcmp(s, mark, m) != 0 || s[m] == ' ')
        return MB_OK;
    const size_t end = find(s, m + 1, n, mark);
    if (end == n || s[end - 1] == ' ')
        return MB_OK;
    MB_TRY(mb_bytes_printf(h, "<%s>", element));
    MB_TRY(plain ? mb_html_bytes(h, s + m, end - m) : inline_text(h, s + m, end - m, depth + 1));
    *taken = end + m;
    return mb_bytes_printf(h, "</%s>", element);
}

static bool is_address(const char *s, size_t n)
{
    if (n > LINK_MAX ||
        !((n > 8 && memcmp(s, "https://", 8) == 0) || (n > 7 && memcmp(s, "http://", 7) == 0)))
        return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] <= 32)
            return false;
    return true;
}

/* [text](address), ![description](address) */
static mb_status link(mb_bytes *h, const char *s, size_t n, int depth, size_t *taken)
{
    const size_t bang = n > 0 && s[0] == '!';

    *taken = 0;
    if (n < bang + 4 || s[bang] != '[')
        return MB_OK;
    const size_t middle = find(s, bang + 1, n, "](");
    const size_t end = middle < n ? find(s, middle + 2, n, ")") : n;
    if (end == n)
        return MB_OK;
    const char *to = s + middle + 2;
    const bool good = bang == 0 && is_address(to, end - middle - 2);
    *taken = end + 1;
    if (good) {
        MB_TRY(mb_bytes_puts(h, "<a rel=\"noreferrer nofollow\" href=\""));
        MB_TRY(mb_html_bytes(h, to, end - middle - 2));
        MB_TRY(mb_bytes_puts(h, "\">"));
    }
    MB_TRY(inline_text(h, s + bang + 1, middle - bang - 1, depth + 1));
    return good ? mb_bytes_puts(h, "</a>") : MB_OK;
}

static mb_status inline_text(mb_bytes *h, const char *s, size_t n, int depth)
{
    static const struct {
        const char *mark, *element;
        bool plain;
    } pairs[] = {{"``", "code", true},
                 {"`", "code", true},
                 {"**", "strong", false},
                 {"__", "strong", false},
                 {"*", "em", false}};
    size_t from = 0;

    for (size_t i = 0; i < n && depth < DEEPEST;) {
        size_t taken = 0;
        if (strchr("`*_[!", s[i]) == NULL || s[i] == '\0') {
            i++;
            continue;
        }
        MB_TRY(mb_html_bytes(h, s + from, i - from));
        from = i;
        MB_TRY(link(h, s + i, n - i, depth, &taken));
        for (size_t k = 0; taken == 0 && k < sizeof pairs / sizeof *pairs; k++)
            MB_TRY(pair(h, s + i, n - i, pairs[k].mark, pairs[k].element, pairs[k].plain, depth,
                        &taken));
        i += taken > 0 ? taken : 1;
        if (taken > 0)
            from = i;
    }
    return mb_html_bytes(h, s + from, n - from);
}

static mb_status code_block(struct reader *r)
{
    struct line l;

    MB_TRY(mb_bytes_puts(r->h, "<pre><code>"));
    while (next_line(r, &l) && !begins(&l, "```")) {
        MB_TRY(mb_html_bytes(r->h, l.s, l.n));
        MB_TRY(mb_bytes_puts(r->h, "\n"));
    }
    return mb_bytes_puts(r->h, "</code></pre>\n");
}

/* The bytes before the text of a list's item; 0: it is none. */
static size_t item_at(const struct line *l, bool *numbered)
{
    size_t i = 0;

    while (i < l->n && l->s[i] == ' ')
        i++;
    *numbered = false;
    if (i + 1 < l->n && strchr("-*+", l->s[i]) != NULL && l->s[i + 1] == ' ')
        return i + 2;
    const size_t digits = i;
    while (i < l->n && l->s[i] >= '0' && l->s[i] <= '9')
        i++;
    *numbered = true;
    return i > digits && i + 1 < l->n && l->s[i] == '.' && l->s[i + 1] == ' ' ? i + 2 : 0;
}

static mb_status list(struct reader *r, struct line l, bool numbered)
{
    const char *element = numbered ? "ol" : "ul";
    bool same;
    size_t at;

    MB_TRY(mb_bytes_printf(r->h, "<%s>\n", element));
    while ((at = item_at(&l, &same)) > 0 && same == numbered) {
        MB_TRY(mb_bytes_puts(r->h, "<li>"));
        MB_TRY(inline_text(r->h, l.s + at, l.n - at, 0));
        MB_TRY(mb_bytes_puts(r->h, "</li>\n"));
        if (!peek(r, &l) || item_at(&l, &same) == 0 || same != numbered)
            break;
        next_line(r, &l);
    }
    return mb_bytes_printf(r->h, "</%s>\n", element);
}

static mb_status row(mb_bytes *h, const struct line *l, const char *cell)
{
    size_t i = l->n > 0 && l->s[0] == '|';

    MB_TRY(mb_bytes_puts(h, "<tr>"));
    while (i < l->n) {
        size_t end = find(l->s, i, l->n, "|");
        MB_TRY(mb_bytes_printf(h, "<%s>", cell));
        MB_TRY(inline_text(h, l->s + i, end - i, 0));
        MB_TRY(mb_bytes_printf(h, "</%s>", cell));
        i = end + 1;
    }
    return mb_bytes_puts(h, "</tr>\n");
}

/* |---|:--:| */
static bool is_rule(const struct line *l)
{
    size_t dashes = 0;

    for (size_t i = 0; i < l->n; i++) {
        if (strchr("-|: ", l->s[i]) == NULL || l->s[i] == '\0')
            return false;
        dashes += l->s[i] == '-';
    }
    return dashes > 0;
}

static mb_status table(struct reader *r, struct line head)
{
    struct line l;

    MB_TRY(mb_bytes_puts(r->h, "<div class=\"wide\"><table>\n"));
    MB_TRY(row(r->h, &head, "th"));
    next_line(r, &l); /* the rule */
    while (peek(r, &l) && begins(&l, "|")) {
        MB_TRY(row(r->h, &l, "td"));
        next_line(r, &l);
    }
    return mb_bytes_puts(r->h, "</table></div>\n");
}

static size_t heading_of(const struct line *l)
{
    size_t n = 0;

    while (n < l->n && n < 7 && l->s[n] == '#')
        n++;
    return n > 0 && n < 7 && n < l->n && l->s[n] == ' ' ? n : 0;
}

static bool starts_other(const struct line *l)
{
    bool numbered;

    return l->n == 0 || heading_of(l) > 0 || begins(l, "```") || begins(l, "|") ||
           item_at(l, &numbered) > 0;
}

static mb_status paragraph(struct reader *r, struct line l)
{
    MB_TRY(mb_bytes_puts(r->h, "<p>"));
    for (;;) {
        MB_TRY(inline_text(r->h, l.s, l.n, 0));
        if (!peek(r, &l) || starts_other(&l))
            break;
        MB_TRY(mb_bytes_puts(r->h, "\n"));
        next_line(r, &l);
    }
    return mb_bytes_puts(r->h, "</p>\n");
}

static mb_status block(struct reader *r, struct line l)
{
    const size_t level = heading_of(&l);
    struct line after;
    bool numbered;

    if (l.n == 0)
        return MB_OK;
    if (level > 0) { /* the page has its own h1 */
        const int h = level < 5 ? (int)level + 1 : 6;
        MB_TRY(mb_bytes_printf(r->h, "<h%d>", h));
        MB_TRY(inline_text(r->h, l.s + level + 1, l.n - level - 1, 0));
        return mb_bytes_printf(r->h, "</h%d>\n", h);
    }
    if (begins(&l, "```"))
        return code_block(r);
    if (begins(&l, "|") && peek(r, &after) && is_rule(&after))
        return table(r, l);
    if (item_at(&l, &numbered) > 0)
        return list(r, l, numbered);
    return paragraph(r, l);
}

mb_status mb_html_markdown(mb_bytes *h, const char *text, size_t n)
{
    struct reader r = {.h = h, .at = text, .end = text + n};
    struct line l;

    if (peek(&r, &l) && l.n == 3 && memcmp(l.s, "---", 3) == 0) {
        struct reader inside = r;
        next_line(&inside, &l);
        while (next_line(&inside, &l) && !(l.n == 3 && memcmp(l.s, "---", 3) == 0))
            continue;
        r = inside;
    }
    while (next_line(&r, &l))
        MB_TRY(block(&r, l));
    return MB_OK;
}
