/* recipes/data/words.c - see recipes/data/words.h. */
#include "recipes/data/words.h"

#include <string.h>

#include "core/alloc.h"

mb_status mb_words_for(const mb_tokenizer *t, mb_words *out)
{
    mb_ids plain = {0}, spaced = {0};
    mb_status st = MB_OK;

    *out = (mb_words){.tokenizer = t};
    MB_TRY_GOTO(mb_tokenizer_encode(t, "a", 1, 0, &plain), st, done);
    MB_TRY_GOTO(mb_tokenizer_encode(t, " a", 2, 0, &spaced), st, done);
    out->spaced =
        plain.n != spaced.n || memcmp(plain.id, spaced.id, plain.n * sizeof *plain.id) != 0;
    const char *first = spaced.n > 0 ? mb_tokenizer_id_to_token(t, spaced.id[0]) : NULL;
    out->bytes =
        first != NULL && strncmp(first, "\u0120", 2) == 0; /* a space as byte-level BPE shows it */
done:
    mb_ids_release(&plain);
    mb_ids_release(&spaced);
    return st;
}

mb_status mb_words_encode(const mb_words *w, const char *word, size_t n, bool space, mb_ids *out)
{
    char *with = NULL;
    mb_status st;

    if (!space || !w->spaced)
        return mb_tokenizer_encode(w->tokenizer, word, n, 0, out);
    MB_TRY(mb_alloc(n + 2, "a word", (void **)&with));
    with[0] = ' ';
    memcpy(with + 1, word, n);
    st = mb_tokenizer_encode(w->tokenizer, with, n + 1, 0, out);
    mb_free(with);
    return st;
}

static bool begins_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

static size_t characters(const char *s, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += begins_character(s[i]);
    return count;
}

int64_t mb_text_bytes(const char *text, int64_t n)
{
    int64_t at = 0;

    for (; n > 0 && text[at] != '\0'; n--) {
        at++;
        while (!begins_character(text[at]))
            at++;
    }
    return n == 0 ? at : -1;
}

/* Characters of a token that come from the text: without what marks its place in a word. */
static size_t token_length(const char *token)
{
    static const char *const marks[] = {"##", "\u2581", "\u0120"};

    if (token == NULL)
        return 0;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (strncmp(token, marks[i], strlen(marks[i])) == 0 && token[strlen(marks[i])] != '\0')
            return characters(token + strlen(marks[i]), strlen(token + strlen(marks[i])));
    return strcmp(token, "\u2581") == 0 ? 0 : characters(token, strlen(token));
}

/* Places of the tokens of one word, text[from, to). */
static mb_status place(const mb_words *w, const char *text, size_t from, size_t to,
                       const int32_t *id, size_t n, mb_ids *places)
{
    size_t sum = 0, at = from;

    for (size_t i = 0; i < n; i++)
        sum += token_length(mb_tokenizer_id_to_token(w->tokenizer, id[i]));
    const bool exact = sum == (w->bytes ? to - from : characters(text + from, to - from));
    for (size_t i = 0; i < n; i++) {
        const size_t units = token_length(mb_tokenizer_id_to_token(w->tokenizer, id[i]));
        const size_t next =
            w->bytes || !exact ? at + units : at + (size_t)mb_text_bytes(text + at, (int64_t)units);
        MB_TRY(mb_ids_push(places, (int32_t)(exact ? at : from)));
        MB_TRY(mb_ids_push(places, (int32_t)(exact ? next : to)));
        at = next;
    }
    return MB_OK;
}

mb_status mb_words_encode_text(const mb_words *w, const char *text, mb_ids *out, mb_ids *places)
{
    static const char blanks[] = " \t\r\n\v\f";
    size_t at = strspn(text, blanks);
    mb_ids word = {0};
    mb_status st = MB_OK;

    MB_REQUIRE(strlen(text) < INT32_MAX, MB_EDATA, "the context has more than 2 GB");
    while (text[at] != '\0' && st == MB_OK) {
        const size_t n = strcspn(text + at, blanks);

        mb_ids_clear(&word);
        MB_TRY_GOTO(mb_words_encode(w, text + at, n, at > 0, &word), st, done);
        MB_TRY_GOTO(mb_ids_append(out, word.id, word.n), st, done);
        st = place(w, text, at, at + n, word.id, word.n, places);
        at += n + strspn(text + at + n, blanks);
    }
done:
    mb_ids_release(&word);
    return st;
}
