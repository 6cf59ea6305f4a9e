/* recipes/data/template_answers.c - where the answers of a conversation are in its rendered text.
 *
 * Every byte knows its message, so what a message wrote is known exactly; what the template adds
 * around it is told by rendering the conversation up to the answer and up to its end.
 */
#include <stdatomic.h>
#include <string.h>

#include "core/log.h"
#include "recipes/data/template_inside.h"

size_t mb_chat_token_at(const mb_chat *c, const char *text, size_t at, size_t n)
{
    size_t longest = 0;

    for (size_t i = 0; i < c->n_tokens; i++) {
        const char *token = c->token[i];

        if (token[0] != text[at])
            continue;
        const size_t length = strlen(token);
        if (length > longest && length <= n - at && memcmp(token, text + at, length) == 0)
            longest = length;
    }
    return longest;
}

/* The first and the last byte of a message; false when it wrote none. */
static bool extent(const uint16_t *origin, size_t n, uint16_t message, size_t *first, size_t *last)
{
    bool found = false;

    for (size_t i = 0; i < n; i++) {
        if ((origin[i] & MB_JINJA_MOST_ORIGINS) != message)
            continue;
        *first = found ? *first : i;
        *last = i;
        found = true;
    }
    return found;
}

static size_t common(const char *a, size_t n, const char *b, size_t m)
{
    size_t i = 0;

    while (i < n && i < m && a[i] == b[i])
        i++;
    return i;
}

/* Behind the last byte of [0, n) that is data. */
static size_t after_data(const uint16_t *origin, size_t n)
{
    while (n > 0 && (origin[n - 1] & MB_JINJA_MOST_ORIGINS) == MB_JINJA_TEMPLATE)
        n--;
    return n;
}

static void warn_once(const mb_chat_job *job, size_t k)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;

    if (!job->quiet && !atomic_flag_test_and_set(&said))
        mb_log_warn("chat template: the prompt for message %zu is not how a row with its answer "
                    "begins (a template may drop earlier thoughts, or open new ones); such answers "
                    "are found by their own text",
                    k + 1);
}

/* The last place in [.., at] where neither a special token nor a word is cut; -1 when none is near. */
static int64_t boundary(const mb_chat *c, const char *text, size_t at, size_t n)
{
    for (size_t back = 0; back <= at && back < 80; back++) {
        const size_t p = at - back;

        if (p == 0 || strchr(" \t\r\n", text[p - 1]) != NULL)
            return (int64_t)p;
        for (size_t k = 1; k <= p && k < 80; k++) {
            if (mb_chat_token_at(c, text, p - k, n) == k)
                return (int64_t)p;
        }
    }
    return -1;
}

/* Where the answer begins. */
static mb_status find_begin(mb_chat_job *job, const mb_chat_page *page, size_t k, bool written,
                            size_t first, mb_chat_span *out)
{
    mb_jinja_text before;
    mb_status st = mb_chat_job_render(job, k, true, &before);
    size_t same;

    if (st == MB_ENOMEM)
        return st;
    if (st != MB_OK) { /* a template may refuse half a conversation */
        mb_status_clear();
        warn_once(job, k);
        out->prompt = out->begin = written ? first : page->n;
        return MB_OK;
    }
    same = common(before.text, before.n, page->text, page->n);
    if (same == before.n) {
        out->prompt = out->begin = same;
        return MB_OK;
    }
    warn_once(job, k);
    if (!written) {
        out->prompt = out->begin = page->n;
        return MB_OK;
    }
    /* the same by what stands between the data before the answer and the answer */
    const size_t tail = after_data(before.origin, before.n), from = after_data(page->origin, first);
    const int64_t place = boundary(
        job->chat, page->text,
        from + common(before.text + tail, before.n - tail, page->text + from, first - from),
        page->n);
    out->prompt = out->begin =
        place >= (int64_t)from && (size_t)place <= first ? (size_t)place : first;
    return MB_OK;
}

/* How much of what follows the message belongs to it: what also follows when it is the last. */
static mb_status find_tail(mb_chat_job *job, const mb_chat_page *page, size_t k, bool written,
                           size_t from, size_t *to)
{
    const uint16_t message = (uint16_t)(k + job->shift + 1);
    size_t first, last, begin;
    mb_jinja_text alone;
    mb_status st;

    *to = from;
    while (*to < page->n && (page->origin[*to] & MB_JINJA_MOST_ORIGINS) == MB_JINJA_TEMPLATE)
        ++*to; /* at most up to the next message */
    if (k + 1 == (size_t)job->talk->n)
        return MB_OK;
    st = mb_chat_job_render(job, k + 1, false, &alone);
    if (st != MB_OK) {
        if (st != MB_ENOMEM)
            mb_status_clear();
        return st == MB_ENOMEM ? st : MB_OK;
    }
    if (extent(alone.origin, alone.n, message, &first, &last))
        begin = last + 1;
    else if (!written && from <= alone.n && common(alone.text, alone.n, page->text, from) == from)
        begin = from;
    else
        return MB_OK;
    *to = from + common(page->text + from, *to - from, alone.text + begin, alone.n - begin);
    return MB_OK;
}

/* In page[from, to): the first run of special tokens; its last one ends the turn. Without any, the
 * text itself does, but for the white space at its end. */
static void find_turn_end(const mb_chat *c, const mb_chat_page *page, size_t from, size_t to,
                          mb_chat_span *out)
{
    size_t at = from, n = 0;

    while (at < to && (n = mb_chat_token_at(c, page->text, at, to)) == 0)
        at++;
    out->token = at < to;
    out->end = from;
    if (!out->token) {
        while (to > from && strchr(" \t\r\n", page->text[to - 1]) != NULL)
            to--;
        out->turn_end = to;
        return;
    }
    for (; n > 0; n = at < to ? mb_chat_token_at(c, page->text, at, to) : 0) {
        out->end = at;
        out->turn_end = at + n;
        at += n;
    }
}

/* The stretch of {% generation %} around a byte. */
static void generated(const mb_chat_page *page, size_t at, size_t *from, size_t *to)
{
    *from = *to = at;
    while (*from > 0 && (page->origin[*from - 1] & MB_JINJA_GENERATED))
        --*from;
    while (*to < page->n && (page->origin[*to] & MB_JINJA_GENERATED))
        ++*to;
}

mb_status mb_chat_find_answer(mb_chat_job *job, const mb_chat_page *page, size_t k,
                              mb_chat_span *out)
{
    const uint16_t message = (uint16_t)(k + job->shift + 1);
    size_t first = 0, last = 0, to;
    const bool written =
        message < MB_CHAT_DATA && extent(page->origin, page->n, message, &first, &last);

    *out = (mb_chat_span){0};
    MB_TRY(find_begin(job, page, k, written, first, out));
    const size_t from = written ? last + 1 : out->begin;
    if (written && mb_jinja_generates(job->chat->jinja)) {
        size_t begin, end;

        if (!(page->origin[last] & MB_JINJA_GENERATED)) { /* nothing of it is to be trained */
            out->begin = out->end = out->turn_end = from;
            return MB_OK;
        }
        generated(page, last, &begin, &end);
        if (out->prompt < begin || out->prompt > first) { /* else the prompt opens the block */
            out->prompt = out->prompt < begin ? out->prompt : begin;
            out->begin = begin;
        }
        find_turn_end(job->chat, page, from, end, out);
        if (!out->token) /* behind a token that ends the turn nothing is trained, here too */
            out->end = out->turn_end = end;
        return MB_OK;
    }
    MB_TRY(find_tail(job, page, k, written, from, &to));
    find_turn_end(job->chat, page, from, to, out);
    return MB_OK;
}
