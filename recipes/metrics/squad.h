/* recipes/metrics/squad.h - answers to questions: exact match and F1 of words.
 *
 * Rajpurkar et al. 2016 (arXiv:1606.05250) and 2018, with their normalisation: lower case, without
 * ASCII punctuation, without the words a, an, the; white space does not count. Of several references
 * the best counts. Where both sides have no word left they agree, as in version 2's script; a
 * question without an answer has the reference "".
 */
#ifndef MB_RECIPES_METRICS_SQUAD_H
#define MB_RECIPES_METRICS_SQUAD_H

#include "recipes/metrics/symbols.h"

/* Both between 0 and 1, of one answer and one reference. */
mb_status mb_squad_scores(const char *answer, const char *reference, double *exact,
                          double *f1) MB_MUST_USE;

#endif
