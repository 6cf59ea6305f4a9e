/* recipes/metrics/ranking.h - where the right one is among candidates. */
#ifndef MB_RECIPES_METRICS_RANKING_H
#define MB_RECIPES_METRICS_RANKING_H

#include <stdint.h>

/* From 1: one more than the candidates with a higher score, or with the same and a lower number. */
int64_t mb_rank_of(const double *score, int64_t n, int64_t right);

#endif
