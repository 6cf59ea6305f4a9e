/* recipes/metrics/bleu.c - BLEU; see translation.h. */
#include <math.h>
#include <stdlib.h>

#include "core/alloc.h"
#include "recipes/metrics/metric.h"
#include "recipes/metrics/ngrams.h"
#include "recipes/metrics/translation.h"

struct sentence {
    mb_vocab *words;
    mb_symbols letters, said;
    mb_symbols *reference; /* (n) */
    int n;
};

static mb_status words_of(mb_bleu_tokenizer tokenize, bool lower, const char *text,
                          struct sentence *s, mb_symbols *out)
{
    MB_TRY(mb_letters_of(text, lower, &s->letters));
    mb_letters_rstrip(&s->letters);
    MB_TRY(tokenize(&s->letters));
    return mb_words_of(&s->letters, s->words, out);
}

static mb_status read_sentence(mb_bleu_tokenizer tokenize, bool lower, const char *said,
                               const char *const *reference, struct sentence *s)
{
    MB_TRY(mb_vocab_new(64, &s->words));
    MB_TRY(MB_NEW_ARRAY(&s->reference, s->n));
    MB_TRY(words_of(tokenize, lower, said, s, &s->said));
    for (int k = 0; k < s->n; k++)
        MB_TRY(words_of(tokenize, lower, reference[k], s, &s->reference[k]));
    return MB_OK;
}

static void release(struct sentence *s)
{
    mb_vocab_free(s->words);
    mb_symbols_release(&s->letters);
    mb_symbols_release(&s->said);
    for (int k = 0; s->reference != NULL && k < s->n; k++)
        mb_symbols_release(&s->reference[k]);
    mb_free(s->reference);
}

/* The length nearest to that of `said`; the shorter of two equally near. */
static int64_t nearest_length(const struct sentence *s)
{
    const int64_t said = (int64_t)s->said.n;
    int64_t best = (int64_t)s->reference[0].n;

    for (int k = 1; k < s->n; k++) {
        const int64_t n = (int64_t)s->reference[k].n;
        const int64_t gain = llabs(said - best) - llabs(said - n);
        if (gain > 0 || (gain == 0 && n < best))
            best = n;
    }
    return best;
}

mb_status mb_bleu_add(mb_bleu_tokenizer tokenize, bool lower, const char *said,
                      const char *const *reference, int n_references, mb_bleu_stats *sum)
{
    struct sentence s = {.n = n_references};
    mb_status st = MB_OK;

    MB_TRY_GOTO(read_sentence(tokenize, lower, said, reference, &s), st, done);
    MB_TRY_GOTO(mb_ngram_matches(&s.said, s.reference, s.n, MB_BLEU_ORDERS, sum->match), st, done);
    for (int k = 0; k < MB_BLEU_ORDERS; k++)
        sum->total[k] += mb_ngram_count(&s.said, k + 1);
    sum->said += (int64_t)s.said.n;
    sum->reference += nearest_length(&s);
done:
    release(&s);
    return st;
}

double mb_bleu_brevity(const mb_bleu_stats *s)
{
    if (s->said >= s->reference)
        return 1.0;
    return s->said > 0 ? exp(1.0 - (double)s->reference / (double)s->said) : 0.0;
}

static bool matches(const mb_bleu_stats *s)
{
    for (int k = 0; k < MB_BLEU_ORDERS; k++)
        if (s->match[k] > 0)
            return true;
    return false;
}

/* In percent, smoothed; all zero where nothing matches; *orders: those that count. */
static void precisions(const mb_bleu_stats *s, bool effective_order, double *precision, int *orders)
{
    double smooth = 1.0;

    *orders = MB_BLEU_ORDERS;
    if (!matches(s))
        return;
    for (int k = 0; k < MB_BLEU_ORDERS && s->total[k] > 0; k++) {
        if (effective_order)
            *orders = k + 1;
        if (s->match[k] == 0)
            smooth *= 2.0;
        precision[k] = s->match[k] > 0 ? 100.0 * (double)s->match[k] / (double)s->total[k]
                                       : 100.0 / (smooth * (double)s->total[k]);
    }
}

double mb_bleu_score(const mb_bleu_stats *s, bool effective_order)
{
    const double nothing = -9999999999.0; /* sacrebleu's log of 0 */
    double precision[MB_BLEU_ORDERS] = {0}, logs = 0.0;
    int orders;

    if (!matches(s))
        return 0.0;
    precisions(s, effective_order, precision, &orders);
    for (int k = 0; k < orders; k++)
        logs += precision[k] > 0 ? log(precision[k]) : nothing;
    return mb_bleu_brevity(s) * exp(logs / orders);
}

static mb_status add_row(const mb_answers *r, const mb_answer_row *row, mb_bleu_tokenizer tokenize,
                         bool lower, mb_bleu_stats *sum)
{
    const char **reference;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&reference, row->right.n));
    for (int64_t k = 0; k < row->right.n; k++)
        reference[k] = mb_answers_text(r, r->id[row->right.first + k]);
    st = mb_bleu_add(tokenize, lower, mb_answers_text(r, r->id[row->said.first]), reference,
                     (int)row->right.n, sum);
    mb_free(reference);
    return st;
}

mb_status mb_metric_bleu(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    static const char *const names[] = {"precision_1", "precision_2", "precision_3", "precision_4"};
    double precision[MB_BLEU_ORDERS] = {0};
    mb_bleu_tokenizer tokenize;
    mb_bleu_stats sum = {0};
    int orders;

    MB_TRY(mb_bleu_tokenizer_find(o->tokenize, &tokenize));
    for (int64_t i = 0; i < rows->n; i++)
        MB_TRY(add_row(rows, &rows->row[i], tokenize, o->lowercase, &sum));
    mb_scores_add(out, "bleu", mb_bleu_score(&sum, false));
    precisions(&sum, false, precision, &orders);
    for (int k = 0; k < MB_BLEU_ORDERS; k++)
        mb_scores_add(out, names[k], precision[k]);
    mb_scores_add(out, "brevity_penalty", mb_bleu_brevity(&sum));
    mb_scores_count(out, "said_length", sum.said);
    mb_scores_count(out, "reference_length", sum.reference);
    return MB_OK;
}
