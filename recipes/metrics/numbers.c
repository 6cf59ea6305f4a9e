/* recipes/metrics/numbers.c - see numbers.h; and the metrics of rows with a number. */
#include "recipes/metrics/numbers.h"

#include <math.h>
#include <stdlib.h>

#include "core/alloc.h"
#include "recipes/metrics/metric.h"

double mb_mean_squared_error(const double *x, const double *y, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += (x[i] - y[i]) * (x[i] - y[i]);
    return sum / (double)n;
}

double mb_mean_absolute_error(const double *x, const double *y, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += fabs(x[i] - y[i]);
    return sum / (double)n;
}

static double mean(const double *x, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum / (double)n;
}

static bool varies(const double *x, int64_t n)
{
    for (int64_t i = 1; i < n; i++)
        if (x[i] != x[0])
            return true;
    return false;
}

double mb_pearson(const double *x, const double *y, int64_t n)
{
    const double mx = mean(x, n), my = mean(y, n);
    double xx = 0.0, yy = 0.0, xy = 0.0;

    if (!varies(x, n) || !varies(y, n))
        return (double)NAN;
    for (int64_t i = 0; i < n; i++) {
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    return fmax(-1.0, fmin(1.0, xy / (sqrt(xx) * sqrt(yy))));
}

struct placed {
    double x;
    int64_t i;
};

static int by_x(const void *a, const void *b)
{
    const double x = ((const struct placed *)a)->x, y = ((const struct placed *)b)->x;

    return (x > y) - (x < y);
}

static void ranks_of(const double *x, int64_t n, struct placed *p, double *rank)
{
    for (int64_t i = 0; i < n; i++)
        p[i] = (struct placed){x[i], i};
    qsort(p, (size_t)n, sizeof *p, by_x);
    for (int64_t i = 0, j; i < n; i = j) {
        for (j = i; j < n && p[j].x == p[i].x; j++)
            ;
        for (int64_t k = i; k < j; k++)
            rank[p[k].i] = 0.5 * (double)(i + j + 1);
    }
}

mb_status mb_spearman(const double *x, const double *y, int64_t n, double *out)
{
    struct placed *p = NULL;
    double *rank = NULL;
    mb_status st = MB_OK;

    for (int64_t i = 0; i < n; i++)
        if (isnan(x[i]) || isnan(y[i])) {
            *out = (double)NAN;
            return MB_OK;
        }
    MB_TRY_GOTO(MB_NEW_ARRAY(&p, n), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&rank, 2 * n), st, done);
    ranks_of(x, n, p, rank);
    ranks_of(y, n, p, rank + n);
    *out = mb_pearson(rank, rank + n, n);
done:
    mb_free(rank);
    mb_free(p);
    return st;
}

void mb_cosine_of_rows(const float *a, const float *b, int64_t n, int64_t d, double *cosine)
{
    for (int64_t i = 0; i < n; i++) {
        double aa = 0.0, bb = 0.0, ab = 0.0;
        for (int64_t k = i * d; k < (i + 1) * d; k++) {
            aa += (double)a[k] * a[k];
            bb += (double)b[k] * b[k];
            ab += (double)a[k] * b[k];
        }
        cosine[i] = aa > 0 && bb > 0 ? ab / (sqrt(aa) * sqrt(bb)) : 0.0;
    }
}

/* ---- of rows ------------------------------------------------------------------------------ */

enum kind { MSE, RMSE, MAE, PEARSON, SPEARMAN };

static mb_status compute(enum kind kind, const double *x, const double *y, int64_t n, double *out)
{
    switch (kind) {
    case MSE:
        *out = mb_mean_squared_error(x, y, n);
        return MB_OK;
    case RMSE:
        *out = sqrt(mb_mean_squared_error(x, y, n));
        return MB_OK;
    case MAE:
        *out = mb_mean_absolute_error(x, y, n);
        return MB_OK;
    case PEARSON:
        *out = mb_pearson(x, y, n);
        return MB_OK;
    default:
        return mb_spearman(x, y, n, out);
    }
}

static mb_status of_numbers(const mb_answers *r, const char *name, enum kind kind, mb_scores *out)
{
    double *x, value = 0.0;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&x, 2 * r->n));
    for (int64_t i = 0; i < r->n; i++) {
        x[i] = r->row[i].said.number;
        x[r->n + i] = r->row[i].right.number;
    }
    st = compute(kind, x, x + r->n, r->n, &value);
    mb_free(x);
    if (st == MB_OK)
        mb_scores_add(out, name, value);
    return st;
}

#define OF_NUMBERS(fn, name, kind)                                                   \
    mb_status fn(const mb_answers *rows, const mb_metric_options *o, mb_scores *out) \
    {                                                                                \
        return of_numbers(rows, name, kind, out);                                    \
    }
OF_NUMBERS(mb_metric_mse, "mse", MSE)
OF_NUMBERS(mb_metric_rmse, "rmse", RMSE)
OF_NUMBERS(mb_metric_mae, "mae", MAE)
OF_NUMBERS(mb_metric_pearson, "pearson", PEARSON)
OF_NUMBERS(mb_metric_spearman, "spearman", SPEARMAN)
