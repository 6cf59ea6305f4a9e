/* recipes/metrics/numbers.h - numbers against numbers, and vectors against vectors. */
#ifndef MB_RECIPES_METRICS_NUMBERS_H
#define MB_RECIPES_METRICS_NUMBERS_H

#include <stdint.h>

#include "core/status.h"

double mb_mean_squared_error(const double *x, const double *y, int64_t n);
double mb_mean_absolute_error(const double *x, const double *y, int64_t n);
/* NaN when one side does not vary. */
double mb_pearson(const double *x, const double *y, int64_t n);
/* Pearson's of ranks; equal numbers have the mean of their ranks. */
mb_status mb_spearman(const double *x, const double *y, int64_t n, double *out) MB_MUST_USE;
/* cosine[i] of row i of a and of b, both (n,d); 0 where one is all zero. */
void mb_cosine_of_rows(const float *a, const float *b, int64_t n, int64_t d, double *cosine);

#endif
