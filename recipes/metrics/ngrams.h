/* recipes/metrics/ngrams.h - n-grams that two sequences have in common. */
#ifndef MB_RECIPES_METRICS_NGRAMS_H
#define MB_RECIPES_METRICS_NGRAMS_H

#include "recipes/metrics/symbols.h"

enum { MB_NGRAM_ORDERS = 6 };

/* match[k] += the n-grams of k+1 symbols (k < orders <= MB_NGRAM_ORDERS) in `said` that a reference
 * has, each at most as often as in the reference that has it most. */
mb_status mb_ngram_matches(const mb_symbols *said, const mb_symbols *reference, int n_references,
                           int orders, int64_t *match) MB_MUST_USE;
/* The n-grams of n symbols in a sequence. */
int64_t mb_ngram_count(const mb_symbols *s, int n);

#endif
