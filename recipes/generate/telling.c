/* recipes/generate/telling.c - see recipes/generate/telling.h. */
#include "recipes/generate/telling.h"

#include <string.h>

enum { TEXT_PER_TOKEN = 16 };

mb_status mb_telling_begin(mb_telling *t, mb_detokenizer *d, int32_t last_of_prompt,
                           int64_t most_tokens)
{
    const char *text;
    size_t bytes;

    t->detokenizer = d;
    t->text.n = t->told = 0;
    MB_TRY(mb_bytes_reserve(&t->text, (size_t)most_tokens * TEXT_PER_TOKEN + 1));
    MB_TRY(mb_bytes_end(&t->text));
    MB_TRY(mb_detokenizer_flush(d, &text, &bytes));
    return mb_detokenizer_push(d, last_of_prompt, &text, &bytes);
}

static mb_status add_text(mb_telling *t, const char *text, size_t n)
{
    MB_TRY(mb_bytes_add(&t->text, text, n));
    return mb_bytes_end(&t->text);
}

/* Where the first stop text begins that ends in what came after `old` bytes; t->n: none. */
static size_t find_stop(const mb_bytes *t, const mb_stop_texts *stop, size_t old)
{
    size_t first = t->n;

    for (int64_t i = 0; i < stop->n; i++) {
        const char *text = stop->text[i];
        const size_t n = strlen(text), from = old >= n ? old - (n - 1) : 0;
        const char *found = memmem(t->p + from, t->n - from, text, n);

        if (found != NULL && (size_t)(found - t->p) < first)
            first = (size_t)(found - t->p);
    }
    return first;
}

mb_status mb_telling_add(mb_telling *t, int32_t id, const mb_stop_texts *stop, bool *stopped)
{
    const size_t old = t->text.n;
    const char *text;
    size_t n;

    MB_TRY(mb_detokenizer_push(t->detokenizer, id, &text, &n));
    MB_TRY(add_text(t, text, n));
    n = find_stop(&t->text, stop, old);
    *stopped = n < t->text.n;
    t->text.n = n;
    return mb_bytes_end(&t->text);
}

/* How much of the text's end is the beginning of a stop text. */
static size_t held_back(const mb_bytes *t, const mb_stop_texts *stop)
{
    size_t most = 0;

    for (int64_t i = 0; i < stop->n; i++) {
        const size_t n = strlen(stop->text[i]);

        for (size_t h = n - 1 < t->n ? n - 1 : t->n; h > most; h--)
            if (memcmp(t->p + t->n - h, stop->text[i], h) == 0)
                most = h;
    }
    return most;
}

const char *mb_telling_take(mb_telling *t, const mb_stop_texts *stop, size_t *n)
{
    const size_t from = t->told, until = t->text.n - (stop != NULL ? held_back(&t->text, stop) : 0);

    *n = until > from ? until - from : 0;
    t->told += *n;
    return t->text.p + from;
}

mb_status mb_telling_end(mb_telling *t, bool stopped)
{
    const char *rest;
    size_t n;

    MB_TRY(mb_detokenizer_flush(t->detokenizer, &rest, &n));
    return stopped ? MB_OK : add_text(t, rest, n);
}

void mb_telling_release(mb_telling *t)
{
    mb_bytes_release(&t->text);
    *t = (mb_telling){0};
}
