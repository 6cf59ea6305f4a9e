/* recipes/metrics/translation.h - BLEU and chrF of a corpus, as sacrebleu computes them.
 *
 *     BLEU      Papineni et al. 2002, up to 4 words, smoothed as in mteval-v13a (an order without a
 *               match counts as 1/2, 1/4 ... of one n-gram), no effective order
 *     chrF      Popovic 2015: n-grams of 1 to 6 letters without white space, beta 2; chrF++ (2017)
 *               adds words and pairs of words. Orders that one side lacks do not count
 *
 * Statistics of sentences add up:
 *
 *     mb_bleu_stats sum = {0};
 *     MB_TRY(mb_bleu_add(tokenizer, false, said, references, n, &sum));   // for every sentence
 *     mb_bleu_score(&sum, false)
 */
#ifndef MB_RECIPES_METRICS_TRANSLATION_H
#define MB_RECIPES_METRICS_TRANSLATION_H

#include "recipes/metrics/symbols.h"

/* Puts spaces where words end; replaces the letters. sacrebleu's 13a, intl, zh, char and none. */
typedef mb_status (*mb_bleu_tokenizer)(mb_symbols *letters);
/* NULL stands for 13a. MB_EARG: no such tokenizer, with those there are. */
mb_status mb_bleu_tokenizer_find(const char *name, mb_bleu_tokenizer *out) MB_MUST_USE;

enum { MB_BLEU_ORDERS = 4, MB_CHRF_LETTERS = 6, MB_CHRF_WORDS = 2 };

typedef struct mb_bleu_stats {
    int64_t said, reference; /* words */
    int64_t match[MB_BLEU_ORDERS], total[MB_BLEU_ORDERS];
} mb_bleu_stats;

/* Adds a sentence; of the references the one nearest in length counts as the reference's length. */
mb_status mb_bleu_add(mb_bleu_tokenizer tokenize, bool lower, const char *said,
                      const char *const *reference, int n_references,
                      mb_bleu_stats *sum) MB_MUST_USE;
/* 0 to 100. `effective_order`: only orders that `said` has, for single sentences. */
double mb_bleu_score(const mb_bleu_stats *s, bool effective_order);
double mb_bleu_brevity(const mb_bleu_stats *s);

typedef struct mb_chrf_stats {
    int64_t said[MB_CHRF_LETTERS + MB_CHRF_WORDS], reference[MB_CHRF_LETTERS + MB_CHRF_WORDS];
    int64_t match[MB_CHRF_LETTERS + MB_CHRF_WORDS];
} mb_chrf_stats;

/* Adds a sentence against the reference with which it scores best. word_orders: 0, or 2 for chrF++. */
mb_status mb_chrf_add(int word_orders, bool lower, const char *said, const char *const *reference,
                      int n_references, mb_chrf_stats *sum) MB_MUST_USE;
/* 0 to 100. */
double mb_chrf_score(const mb_chrf_stats *s, int word_orders);

#endif
