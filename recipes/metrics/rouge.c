/* recipes/metrics/rouge.c - see rouge.h. */
#include "recipes/metrics/rouge.h"

#include "core/alloc.h"
#include "recipes/metrics/metric.h"
#include "recipes/metrics/ngrams.h"

static bool is_of_word(int32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static mb_status words_of(const char *text, mb_vocab *words, mb_symbols *letters, mb_symbols *out)
{
    MB_TRY(mb_letters_of(text, true, letters));
    for (size_t i = 0; i < letters->n; i++)
        if (!is_of_word(letters->at[i]))
            letters->at[i] = ' ';
    return mb_words_of(letters, words, out);
}

/* length[j] of the first rows of a against the first j of b, a row of a after the other. */
static mb_status longest_common(const mb_symbols *a, const mb_symbols *b, int64_t *out)
{
    int64_t *length;

    MB_TRY(MB_NEW_ARRAY(&length, b->n + 1));
    for (size_t i = 0; i < a->n; i++) {
        int64_t corner = 0;
        for (size_t j = 1; j <= b->n; j++) {
            const int64_t above = length[j];
            if (a->at[i] == b->at[j - 1])
                length[j] = corner + 1;
            else if (length[j - 1] > above)
                length[j] = length[j - 1];
            corner = above;
        }
    }
    *out = length[b->n];
    mb_free(length);
    return MB_OK;
}

static mb_status common_of(int n, const mb_symbols *said, const mb_symbols *reference,
                           int64_t *common, int64_t *in_said, int64_t *in_reference)
{
    int64_t match[MB_NGRAM_ORDERS] = {0};

    *in_said = mb_ngram_count(said, n > 0 ? n : 1);
    *in_reference = mb_ngram_count(reference, n > 0 ? n : 1);
    if (n == 0)
        return longest_common(reference, said, common);
    MB_TRY(mb_ngram_matches(said, reference, 1, n, match));
    *common = match[n - 1];
    return MB_OK;
}

mb_status mb_rouge(int n, const char *said, const char *reference, double *out)
{
    mb_symbols letters = {0}, a = {0}, b = {0};
    int64_t common = 0, in_said, in_reference;
    mb_vocab *words = NULL;
    mb_status st = MB_OK;

    MB_TRY(mb_vocab_new(64, &words));
    MB_TRY_GOTO(words_of(said, words, &letters, &a), st, done);
    MB_TRY_GOTO(words_of(reference, words, &letters, &b), st, done);
    MB_TRY_GOTO(common_of(n, &a, &b, &common, &in_said, &in_reference), st, done);
    *out = common > 0 ? 2.0 * (double)common / (double)(in_said + in_reference) : 0.0;
done:
    mb_symbols_release(&letters);
    mb_symbols_release(&a);
    mb_symbols_release(&b);
    mb_vocab_free(words);
    return st;
}

static mb_status of_rows(const mb_answers *r, const char *name, int n, mb_scores *out)
{
    double sum = 0.0;

    for (int64_t i = 0; i < r->n; i++) {
        const mb_answer_row *row = &r->row[i];
        double best = 0.0, f;
        for (int64_t k = 0; k < row->right.n; k++) {
            MB_TRY(mb_rouge(n, mb_answers_text(r, r->id[row->said.first]),
                            mb_answers_text(r, r->id[row->right.first + k]), &f));
            best = f > best ? f : best;
        }
        sum += best;
    }
    mb_scores_add(out, name, sum / (double)r->n);
    return MB_OK;
}

#define OF_ROWS(fn, name, n)                                                         \
    mb_status fn(const mb_answers *rows, const mb_metric_options *o, mb_scores *out) \
    {                                                                                \
        return of_rows(rows, name, n, out);                                          \
    }
OF_ROWS(mb_metric_rouge1, "rouge1", 1)
OF_ROWS(mb_metric_rouge2, "rouge2", 2)
OF_ROWS(mb_metric_rougel, "rougeL", 0)
