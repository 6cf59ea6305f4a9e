/* recipes/metrics/chrf.c - chrF and chrF++; see translation.h. */
#include <string.h>

#include "core/alloc.h"
#include "recipes/metrics/metric.h"
#include "recipes/metrics/ngrams.h"
#include "recipes/metrics/translation.h"

enum { ORDERS = MB_CHRF_LETTERS + MB_CHRF_WORDS };

/* A side: letters without white space, and words. */
struct side {
    mb_symbols letters, words;
};

static void release(struct side *s)
{
    mb_symbols_release(&s->letters);
    mb_symbols_release(&s->words);
}

static bool is_punctuation(int32_t c)
{
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
           (c >= 123 && c <= 126);
}

/* A punctuation mark at the end of a word of two letters or more is a word of its own; if there is
 * none, one at the beginning is. */
static mb_status add_word(mb_vocab *words, const mb_symbols *l, size_t from, size_t to,
                          mb_symbols *out)
{
    size_t cut = to;

    if (to - from > 1)
        cut = is_punctuation(l->at[to - 1]) ? to - 1 : is_punctuation(l->at[from]) ? from + 1 : to;
    MB_TRY(mb_word_push(words, l, from, cut, out));
    return cut < to ? mb_word_push(words, l, cut, to, out) : MB_OK;
}

static mb_status read_side(const char *text, bool lower, mb_vocab *words, struct side *s)
{
    size_t from = 0;

    MB_TRY(mb_letters_of(text, lower, &s->letters));
    s->words.n = 0;
    while (from < s->letters.n) {
        size_t to = from;
        while (to < s->letters.n && !mb_is_space(s->letters.at[to]))
            to++;
        if (to > from)
            MB_TRY(add_word(words, &s->letters, from, to, &s->words));
        from = to + 1;
    }
    mb_letters_squeeze(&s->letters);
    return MB_OK;
}

static mb_status compare(const struct side *said, const struct side *reference, int word_orders,
                         mb_chrf_stats *out)
{
    memset(out, 0, sizeof *out);
    MB_TRY(mb_ngram_matches(&said->letters, &reference->letters, 1, MB_CHRF_LETTERS, out->match));
    MB_TRY(mb_ngram_matches(&said->words, &reference->words, 1, word_orders,
                            out->match + MB_CHRF_LETTERS));
    for (int k = 0; k < MB_CHRF_LETTERS + word_orders; k++) {
        const bool letters = k < MB_CHRF_LETTERS;
        const int order = letters ? k + 1 : k + 1 - MB_CHRF_LETTERS;
        out->reference[k] =
            mb_ngram_count(letters ? &reference->letters : &reference->words, order);
        /* what the reference is too short for does not count */
        if (out->reference[k] > 0)
            out->said[k] = mb_ngram_count(letters ? &said->letters : &said->words, order);
    }
    return MB_OK;
}

double mb_chrf_score(const mb_chrf_stats *s, int word_orders)
{
    const double factor = 4.0; /* beta squared */
    double precision = 0.0, recall = 0.0;
    int orders = 0;

    for (int k = 0; k < MB_CHRF_LETTERS + word_orders; k++) {
        if (s->said[k] == 0 || s->reference[k] == 0)
            continue;
        precision += (double)s->match[k] / (double)s->said[k];
        recall += (double)s->match[k] / (double)s->reference[k];
        orders++;
    }
    if (precision + recall == 0.0)
        return 0.0;
    precision /= orders;
    recall /= orders;
    return 100.0 * ((1.0 + factor) * precision * recall / (factor * precision + recall));
}

static void add(const mb_chrf_stats *s, mb_chrf_stats *sum)
{
    for (int k = 0; k < ORDERS; k++) {
        sum->said[k] += s->said[k];
        sum->reference[k] += s->reference[k];
        sum->match[k] += s->match[k];
    }
}

mb_status mb_chrf_add(int word_orders, bool lower, const char *said, const char *const *reference,
                      int n_references, mb_chrf_stats *sum)
{
    struct side own = {0}, other = {0};
    mb_chrf_stats best = {0}, here;
    mb_vocab *words = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_vocab_new(64, &words));
    MB_TRY_GOTO(read_side(said, lower, words, &own), st, done);
    for (int k = 0; k < n_references; k++) {
        MB_TRY_GOTO(read_side(reference[k], lower, words, &other), st, done);
        MB_TRY_GOTO(compare(&own, &other, word_orders, &here), st, done);
        if (k == 0 || mb_chrf_score(&here, word_orders) > mb_chrf_score(&best, word_orders))
            best = here;
    }
    add(&best, sum);
done:
    release(&own);
    release(&other);
    mb_vocab_free(words);
    return st;
}

static mb_status add_row(const mb_answers *r, const mb_answer_row *row, int word_orders, bool lower,
                         mb_chrf_stats *sum)
{
    const char **reference;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&reference, row->right.n));
    for (int64_t k = 0; k < row->right.n; k++)
        reference[k] = mb_answers_text(r, r->id[row->right.first + k]);
    st = mb_chrf_add(word_orders, lower, mb_answers_text(r, r->id[row->said.first]), reference,
                     (int)row->right.n, sum);
    mb_free(reference);
    return st;
}

static mb_status of_rows(const mb_answers *r, const char *name, int word_orders,
                         const mb_metric_options *o, mb_scores *out)
{
    mb_chrf_stats sum = {0};

    for (int64_t i = 0; i < r->n; i++)
        MB_TRY(add_row(r, &r->row[i], word_orders, o->lowercase, &sum));
    mb_scores_add(out, name, mb_chrf_score(&sum, word_orders));
    return MB_OK;
}

mb_status mb_metric_chrf(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    return of_rows(rows, "chrf", 0, o, out);
}

mb_status mb_metric_chrf_words(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    return of_rows(rows, "chrf++", MB_CHRF_WORDS, o, out);
}
