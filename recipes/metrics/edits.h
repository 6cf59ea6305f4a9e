/* recipes/metrics/edits.h - the fewest edits between two sequences, and error rates.
 *
 * Wagner & Fischer 1974. Of alignments with equally few edits the one is taken that the jiwer package
 * (rapidfuzz) takes, so that its counts are ours, too: back from the end, a deletion where one is
 * possible, else an insertion, else what is left. Long sequences are cut in two where the two halves
 * need least (Hirschberg 1975), as there.
 */
#ifndef MB_RECIPES_METRICS_EDITS_H
#define MB_RECIPES_METRICS_EDITS_H

#include "recipes/metrics/symbols.h"

typedef struct mb_edits {
    int64_t hits, substitutions, deletions, insertions;
} mb_edits;

/* What makes `reference` into `said`; adds to *out. Time and, up to a bound, memory are the product of
 * the lengths. */
mb_status mb_edits_count(const mb_symbols *reference, const mb_symbols *said,
                         mb_edits *out) MB_MUST_USE;
/* Edits per symbol of the references; without any, the insertions. */
double mb_error_rate(const mb_edits *e);
/* Words as jiwer splits them: runs of white space are one space, words lie between spaces. */
mb_status mb_spoken_words(const char *text, bool lower, mb_vocab *words, mb_symbols *letters,
                          mb_symbols *out) MB_MUST_USE;

#endif
