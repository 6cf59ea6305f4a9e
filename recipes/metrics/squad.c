/* recipes/metrics/squad.c - see squad.h. */
#include "recipes/metrics/squad.h"

#include <string.h>

#include "recipes/metrics/metric.h"
#include "recipes/metrics/ngrams.h"

static bool is_ascii_punctuation(int32_t c)
{
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
           (c >= 123 && c <= 126);
}

static bool is_article(const mb_symbols *s, size_t from, size_t to)
{
    static const char *const article[] = {"a", "an", "the"};

    for (int k = 0; k < 3; k++) {
        size_t i = 0;
        while (from + i < to && article[k][i] != '\0' && s->at[from + i] == article[k][i])
            i++;
        if (from + i == to && article[k][i] == '\0')
            return true;
    }
    return false;
}

/* An article ends where letters and digits do, which need not be at white space; it leaves a gap. */
static void drop_articles(mb_symbols *s)
{
    size_t from = 0;

    while (from < s->n) {
        size_t to = from;
        while (to < s->n && mb_is_alphanumeric(s->at[to]))
            to++;
        if (is_article(s, from, to))
            for (size_t i = from; i < to; i++)
                s->at[i] = ' ';
        from = to > from ? to : from + 1;
    }
}

static mb_status normal_words(const char *text, mb_vocab *words, mb_symbols *letters,
                              mb_symbols *out)
{
    size_t n = 0;

    MB_TRY(mb_letters_of(text, true, letters));
    for (size_t i = 0; i < letters->n; i++)
        if (!is_ascii_punctuation(letters->at[i]))
            letters->at[n++] = letters->at[i];
    letters->n = n;
    drop_articles(letters);
    return mb_words_of(letters, words, out);
}

static mb_status compare(const mb_symbols *a, const mb_symbols *b, double *exact, double *f1)
{
    int64_t common = 0;

    *exact = a->n == b->n && (a->n == 0 || memcmp(a->at, b->at, a->n * sizeof *a->at) == 0);
    if (a->n == 0 || b->n == 0) {
        *f1 = *exact;
        return MB_OK;
    }
    MB_TRY(mb_ngram_matches(a, b, 1, 1, &common));
    const double precision = (double)common / (double)a->n, recall = (double)common / (double)b->n;
    *f1 = common > 0 ? 2.0 * precision * recall / (precision + recall) : 0.0;
    return MB_OK;
}

mb_status mb_squad_scores(const char *answer, const char *reference, double *exact, double *f1)
{
    mb_symbols letters = {0}, a = {0}, b = {0};
    mb_vocab *words = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_vocab_new(64, &words));
    MB_TRY_GOTO(normal_words(answer, words, &letters, &a), st, done);
    MB_TRY_GOTO(normal_words(reference, words, &letters, &b), st, done);
    MB_TRY_GOTO(compare(&a, &b, exact, f1), st, done);
done:
    mb_symbols_release(&letters);
    mb_symbols_release(&a);
    mb_symbols_release(&b);
    mb_vocab_free(words);
    return st;
}

/* Mean over rows of the best over references, in percent. */
static mb_status of_rows(const mb_answers *r, double *exact, double *f1)
{
    *exact = *f1 = 0.0;
    for (int64_t i = 0; i < r->n; i++) {
        const mb_answer_row *row = &r->row[i];
        double most_exact = 0.0, most_f1 = 0.0;
        for (int64_t k = 0; k < row->right.n; k++) {
            double e, f;
            MB_TRY(mb_squad_scores(mb_answers_text(r, r->id[row->said.first]),
                                   mb_answers_text(r, r->id[row->right.first + k]), &e, &f));
            most_exact = e > most_exact ? e : most_exact;
            most_f1 = f > most_f1 ? f : most_f1;
        }
        *exact += most_exact;
        *f1 += most_f1;
    }
    *exact = 100.0 * *exact / (double)r->n;
    *f1 = 100.0 * *f1 / (double)r->n;
    return MB_OK;
}

mb_status mb_metric_exact_match(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    double exact, f1;

    MB_TRY(of_rows(rows, &exact, &f1));
    mb_scores_add(out, "exact_match", exact);
    return MB_OK;
}

mb_status mb_metric_answer_f1(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    double exact, f1;

    MB_TRY(of_rows(rows, &exact, &f1));
    mb_scores_add(out, "f1", f1);
    return MB_OK;
}
