/* recipes/data/inspect_json.c - see recipes/data/inspect.h. */
#include <string.h>

#include "core/alloc.h"
#include "recipes/data/collate.h"
#include "recipes/data/inspect.h"

/* Text of tokens that may be cut inside a letter: what is no UTF-8 is shown as question marks. */
static mb_status set_text(mb_json to, const char *key, char *text)
{
    if (mb_json_set_string(to, key, text) == MB_OK)
        return MB_OK;
    mb_status_clear();
    for (char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p >= 128)
            *p = '?';
    return mb_json_set_string(to, key, text);
}

static mb_status add_span(const mb_tokenizer *tok, const int32_t *id, int64_t n, bool trained,
                          const char *behind, mb_json spans)
{
    char *text, *all = NULL;
    size_t bytes;
    mb_json span;
    mb_status st;

    MB_TRY(mb_tokenizer_decode(tok, id, (size_t)n, false, &text, &bytes));
    st = mb_asprintf(&all, "%s%s", text, behind);
    mb_free(text);
    if (st == MB_OK)
        st = mb_json_set_object(spans, NULL, &span);
    if (st == MB_OK)
        st = set_text(span, "text", all);
    if (st == MB_OK)
        st = mb_json_set_bool(span, "trained", trained);
    mb_free(all);
    return st;
}

/* Words with their labels, or texts, each on a line of its own. */
static mb_status add_parts(const mb_store *s, const mb_tokenizer *tok, int64_t r, mb_json spans)
{
    const int32_t *extra = s->extra + s->extra_offset[r], *id = s->ids + s->offset[r];
    const uint8_t *f = s->flags + s->offset[r];
    const int64_t n = s->offset[r + 1] - s->offset[r];
    const bool words = s->rows == MB_WANT_WORDS;

    for (int64_t a = 0, b, k = 0; a < n; a = b, k++) {
        char behind[300] = "\n";
        bool labelled;

        for (b = words ? a + 1 : a + extra[k]; words && b < n && !(f[b] & MB_MARK_TRAINED); b++)
            ;
        labelled = words && (f[a] & MB_MARK_TRAINED) && extra[a] >= 0;
        if (labelled)
            snprintf(behind, sizeof behind, " [%s]\n", s->label_name[extra[a]]);
        MB_TRY(add_span(tok, id + a, b - a, labelled, behind, spans));
    }
    return MB_OK;
}

static mb_status add_spans(const mb_store *s, const mb_tokenizer *tok, int64_t r, mb_json spans)
{
    const int64_t from = s->offset[r], n = s->offset[r + 1] - from;
    const uint8_t *f = s->flags + from;

    if (s->rows == MB_WANT_WORDS || s->rows == MB_WANT_SENTENCES)
        return add_parts(s, tok, r, spans);
    for (int64_t a = 0, b; a < n; a = b) {
        const bool trained = (f[a] & MB_MARK_TRAINED) != 0;

        for (b = a + 1; b < n && ((f[b] & MB_MARK_TRAINED) != 0) == trained; b++)
            ;
        MB_TRY(add_span(tok, s->ids + from + a, b - a, trained, "", spans));
    }
    return MB_OK;
}

/* The line above the row's text. */
static mb_status place(const mb_store *s, int64_t r, char **out)
{
    char where[4200], line[8192] = "";
    FILE *f = fmemopen(line, sizeof line, "w"); /* as much as fits of a list of labels */

    MB_REQUIRE(f != NULL, MB_ENOMEM, "no memory for a line");
    fprintf(f, "%s: ", mb_store_place(s, r, where, sizeof where));
    if (s->picture != NULL)
        fprintf(f, "%lld × %lld, label %d (%s)", (long long)s->picture[r].width,
                (long long)s->picture[r].height, s->label[r], s->label_name[s->label[r]]);
    else
        fprintf(f, "%lld tokens", (long long)(s->offset[r + 1] - s->offset[r]));
    if (s->picture == NULL)
        mb_inspect_labels(f, s, r);
    fclose(f);
    line[sizeof line - 1] = '\0';
    return mb_strdup(line, out);
}

mb_status mb_inspect_row_json(const mb_store *s, const mb_tokenizer *tok, int64_t r, mb_json to)
{
    mb_json row, spans;
    char *line = NULL;
    mb_status st;

    MB_TRY(mb_json_set_object(to, NULL, &row));
    MB_TRY(mb_json_set_int(row, "row", r));
    MB_TRY(place(s, r, &line));
    st = set_text(row, "place", line);
    mb_free(line);
    MB_TRY(st);
    if (s->picture != NULL)
        return MB_OK;
    MB_TRY(mb_json_set_array(row, "spans", &spans));
    return add_spans(s, tok, r, spans);
}

mb_status mb_inspect_counts_json(const mb_store *s, mb_json to)
{
    char what[MB_INSPECT_WHAT];
    mb_json count;
    double n;

    for (int i = 0; mb_inspect_count(s, i, what, &n); i++) {
        MB_TRY(mb_json_set_object(to, NULL, &count));
        MB_TRY(set_text(count, "what", what));
        MB_TRY(mb_json_set_int(count, "n", (int64_t)n));
    }
    return MB_OK;
}
