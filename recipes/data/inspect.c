/* recipes/data/inspect.c - see recipes/data/inspect.h. */
#include "recipes/data/inspect.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/path.h"
#include "recipes/data/collate.h"

static const char *const GREEN = "\033[32m";
static const char *const PLAIN = "\033[0m";

mb_inspect mb_inspect_to(FILE *out)
{
    const char *no = getenv("NO_COLOR");

    return (mb_inspect){.out = out, .colour = isatty(fileno(out)) && (no == NULL || no[0] == '\0')};
}

/* Text of other people on a terminal: control characters but newline and tab are shown as escapes. */
static void print_text(FILE *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)s[i];

        if (c == '\n')
            fputs("\n    ", out);
        else if ((c < 32 && c != '\t') || c == 127)
            fprintf(out, "\\x%02x", c);
        else
            fputc(c, out);
    }
}

/* Tokens [from, to) of a row, which are all trained or all not. */
static mb_status print_span(const mb_inspect *to, const mb_tokenizer *tok, const int32_t *id,
                            size_t n, bool trained)
{
    const char *open = to->colour ? GREEN : "[", *close = to->colour ? PLAIN : "]";
    char *text;
    size_t bytes;

    MB_TRY(mb_tokenizer_decode(tok, id, n, false, &text, &bytes));
    if (trained)
        fputs(open, to->out);
    print_text(to->out, text, bytes);
    if (trained)
        fputs(close, to->out);
    mb_free(text);
    return MB_OK;
}

static void print_tokens(const mb_inspect *to, const mb_store *s, const mb_tokenizer *tok,
                         int64_t from, int64_t n)
{
    for (int64_t t = 0; t < n; t++) {
        const uint8_t f = s->flags[from + t];
        const char *token = mb_tokenizer_id_to_token(tok, s->ids[from + t]);

        fprintf(to->out, "    %5lld %7d %s%s%s  ", (long long)t, s->ids[from + t],
                f & MB_MARK_TRAINED ? "trained" : "      -", f & MB_MARK_SPECIAL ? " special" : "",
                f & MB_MARK_SECOND ? " second" : "");
        if (token != NULL)
            print_text(to->out, token, strlen(token));
        fputc('\n', to->out);
    }
}

void mb_inspect_labels(FILE *out, const mb_store *s, int64_t r)
{
    const int32_t *extra = s->extra != NULL ? s->extra + s->extra_offset[r] : NULL;
    const int64_t n = extra != NULL ? s->extra_offset[r + 1] - s->extra_offset[r] : 0;

    switch (s->rows) {
    case MB_WANT_CLASS:
        fprintf(out, ", label %d (%s)", s->label[r], s->label_name[s->label[r]]);
        return;
    case MB_WANT_CLASSES:
        fputs(n == 0 ? ", no label" : ", labels", out);
        for (int64_t i = 0; i < n; i++)
            fprintf(out, "%s %d (%s)", i > 0 ? "," : "", extra[i], s->label_name[extra[i]]);
        return;
    case MB_WANT_NUMBERS:
        for (int64_t i = 0; i < n; i++)
            fprintf(out, "%s %g", i > 0 ? "," : ", value", (double)mb_store_value(s, r, i));
        return;
    case MB_WANT_QUESTIONS:
        if (extra[0] == 0)
            fputs(", no answer here", out);
        else
            fprintf(out, ", answer in tokens %d to %d", extra[0], extra[1]);
        return;
    case MB_WANT_SENTENCES:
        fprintf(out, " in %lld texts", (long long)(n - s->scored));
        if (s->scored)
            fprintf(out, ", score %g", (double)mb_store_value(s, r, 0));
        return;
    case MB_WANT_WORDS:
    case MB_WANT_PAIRS:
    case MB_WANT_SOUND:
    case MB_WANT_TEXT:
        fprintf(out, ", %d trained", s->trained[r]);
    }
}

/* Words with their labels, or one text a line. */
static mb_status print_parts(const mb_inspect *to, const mb_store *s, const mb_tokenizer *tok,
                             int64_t r)
{
    const int32_t *extra = s->extra + s->extra_offset[r], *id = s->ids + s->offset[r];
    const uint8_t *f = s->flags + s->offset[r];
    const int64_t n = s->offset[r + 1] - s->offset[r];
    const bool words = s->rows == MB_WANT_WORDS;

    for (int64_t a = 0, b, k = 0; a < n; a = b, k++) {
        for (b = words ? a + 1 : a + extra[k]; words && b < n && !(f[b] & MB_MARK_TRAINED); b++)
            ;
        MB_TRY(print_span(to, tok, id + a, (size_t)(b - a), false));
        if (words && (f[a] & MB_MARK_TRAINED) && extra[a] >= 0)
            fprintf(to->out, " [%s]", s->label_name[extra[a]]);
        if (b < n)
            fputs("\n    ", to->out);
    }
    fputc('\n', to->out);
    if (to->tokens)
        print_tokens(to, s, tok, s->offset[r], n);
    fputc('\n', to->out);
    return MB_OK;
}

/* How many rows (of words: tokens) have a class. */
static int64_t count_class(const mb_store *s, int32_t k)
{
    int64_t count = 0;

    if (s->rows == MB_WANT_CLASS)
        for (int64_t r = 0; r < s->n_rows; r++)
            count += s->label[r] == k;
    else
        for (int64_t i = 0; i < s->extra_offset[s->n_rows]; i++)
            count += s->extra[i] == k;
    return count;
}

mb_status mb_inspect_row(const mb_inspect *to, const mb_store *s, const mb_tokenizer *tok,
                         int64_t r)
{
    const int64_t from = s->offset[r], n = s->offset[r + 1] - from;
    const uint8_t *f = s->flags + from;
    char place[4200];

    fprintf(to->out, "row %lld, %s: %lld tokens", (long long)r,
            mb_store_place(s, r, place, sizeof place), (long long)n);
    mb_inspect_labels(to->out, s, r);
    fputs("\n    ", to->out);
    if (s->rows == MB_WANT_WORDS || s->rows == MB_WANT_SENTENCES)
        return print_parts(to, s, tok, r);
    for (int64_t a = 0, b; a < n; a = b) {
        const bool trained = (f[a] & MB_MARK_TRAINED) != 0;

        for (b = a + 1; b < n && ((f[b] & MB_MARK_TRAINED) != 0) == trained; b++)
            ;
        MB_TRY(print_span(to, tok, s->ids + from + a, (size_t)(b - a), trained));
    }
    fputc('\n', to->out);
    if (to->tokens)
        print_tokens(to, s, tok, from, n);
    fputc('\n', to->out);
    return MB_OK;
}

/* Numbers as the model reads them, as bytes again: (height, width, 3). */
static void as_bytes(const mb_image_processor *p, const float *planes, int64_t n, uint8_t *rgb)
{
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < 3; c++) {
            const int64_t k = c < p->channels ? c : 0;
            double v = (double)planes[k * n + i];
            if (p->do_normalize)
                v = v * p->std[k] + p->mean[k];
            if (p->do_rescale)
                v /= p->rescale_factor;
            rgb[i * 3 + c] = (uint8_t)(v <= 0.0 ? 0.0 : v >= 255.0 ? 255.0 : v + 0.5);
        }
}

static mb_status save_picture(const mb_inspect *to, const mb_store *s, int64_t r)
{
    const mb_pictures_options *o = mb_pictures_are(to->pictures);
    const mb_patches *p = &o->patches;
    const int64_t n = p->height * p->width;
    const int32_t ordinal = (int32_t)r;
    const mb_micro micro = {.n_rows = 1, .row = &r, .ordinal = &ordinal};
    char name[32], path[MB_PATH_MAX];
    float *planes = NULL;
    uint8_t *rgb = NULL;
    mb_batch *b = NULL;
    mb_status st;

    snprintf(name, sizeof name, "%06lld.png", (long long)r);
    MB_TRY(mb_path_mkdirs(to->save));
    MB_TRY(mb_path_join(path, sizeof path, to->save, name));
    MB_TRY(mb_batch_new(mb_patches_tokens(p), 1, &b));
    MB_TRY_GOTO(mb_patches_reserve(p, b), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&planes, n * p->channels), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&rgb, n * 3), st, done);
    MB_TRY_GOTO(mb_pictures_fill(to->pictures, s, &micro, to->seed, 0, true, b), st, done);
    mb_patches_join(p, b->features, planes);
    as_bytes(&o->processor, planes, n, rgb);
    st = mb_image_write_png(path, p->width, p->height, rgb);
done:
    mb_batch_free(b);
    mb_free(planes);
    mb_free(rgb);
    return st;
}

mb_status mb_inspect_picture(const mb_inspect *to, const mb_store *s, int64_t r)
{
    char place[4200];

    fprintf(to->out, "row %lld, %s: %lld by %lld pixels, label %d (%s)\n", (long long)r,
            mb_store_place(s, r, place, sizeof place), (long long)s->picture[r].width,
            (long long)s->picture[r].height, s->label[r], s->label_name[s->label[r]]);
    return to->save != NULL ? save_picture(to, s, r) : MB_OK;
}

bool mb_inspect_count(const mb_store *s, int i, char what[MB_INSPECT_WHAT], double *n)
{
    const mb_store_stats *c = &s->stats;
    const struct {
        const char *what;
        int64_t n;
    } lines[MB_INSPECT_COUNTS] = {
        {"rows read", c->rows_read},
        {"rows kept", s->n_rows},
        {"skipped, could not be read", c->bad},
        {"left out, empty", c->empty},
        {"left out, nothing trained", c->untrained},
        {"left out, longer than max_length", c->dropped},
        {"cut to max_length", c->truncated},
        {"duplicates among the kept", c->duplicates},
        {"BOS tokens", c->bos},
        {"EOS tokens", c->eos},
        {"doubled BOS left out", c->double_bos},
        {"tokens", s->n_tokens},
        {"trained tokens", c->trained},
        {"shortest row", c->min_length},
        {"longest row", c->max_length},
    };
    const int k = i - MB_INSPECT_COUNTS;

    if (k >= s->n_labels)
        return false;
    if (k >= 0)
        snprintf(what, MB_INSPECT_WHAT, "label %3d %-24.24s", k, s->label_name[k]);
    else
        snprintf(what, MB_INSPECT_WHAT, "%s", lines[i].what);
    *n = (double)(k >= 0 ? count_class(s, k) : lines[i].n);
    return true;
}

void mb_inspect_counts(const mb_inspect *to, const mb_store *s)
{
    const double rows = (double)(s->n_rows > 0 ? s->n_rows : 1),
                 tokens = (double)(s->n_tokens > 0 ? s->n_tokens : 1);
    char what[MB_INSPECT_WHAT];
    double n;

    for (int i = 0; i < MB_INSPECT_COUNTS && mb_inspect_count(s, i, what, &n); i++)
        fprintf(to->out, "%-34s %12.0f\n", what, n);
    fprintf(to->out, "%-34s %12.1f\n", "mean length", (double)s->n_tokens / rows);
    if (s->n_labels == 0)
        fprintf(to->out, "%-34s %11.1f%%\n", "fraction trained",
                100.0 * (double)s->stats.trained / tokens);
    for (int i = MB_INSPECT_COUNTS; mb_inspect_count(s, i, what, &n); i++)
        fprintf(to->out, "%s %12.0f\n", what, n);
}
