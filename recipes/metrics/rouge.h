/* recipes/metrics/rouge.h - summaries: words, pairs of words and the longest sequence in common.
 *
 * Lin 2004, as the rouge-score package has it without its stemmer: words are runs of a-z and 0-9 in
 * lower case, F of precision and recall, of several references the best.
 */
#ifndef MB_RECIPES_METRICS_ROUGE_H
#define MB_RECIPES_METRICS_ROUGE_H

#include "recipes/metrics/symbols.h"

/* F between 0 and 1 of n-grams of n words; n 0: of the longest common subsequence (ROUGE-L). */
mb_status mb_rouge(int n, const char *said, const char *reference, double *out) MB_MUST_USE;

#endif
