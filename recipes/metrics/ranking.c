/* recipes/metrics/ranking.c - see ranking.h; and the metrics of rows of scores. */
#include "recipes/metrics/ranking.h"

#include "recipes/metrics/metric.h"

int64_t mb_rank_of(const double *score, int64_t n, int64_t right)
{
    int64_t rank = 1;

    for (int64_t i = 0; i < n; i++)
        rank += score[i] > score[right] || (score[i] == score[right] && i < right);
    return rank;
}

static int64_t rank_in(const mb_answers *r, int64_t i)
{
    return mb_rank_of(r->share + r->row[i].first, r->row[i].n, (int64_t)r->row[i].right.number);
}

static mb_status among_first(const mb_answers *r, const char *name, int64_t k, mb_scores *out)
{
    double found = 0.0;

    for (int64_t i = 0; i < r->n; i++)
        found += rank_in(r, i) <= k;
    mb_scores_add(out, name, found / (double)r->n);
    return MB_OK;
}

mb_status mb_metric_at_1(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    return among_first(rows, "accuracy@1", 1, out);
}

mb_status mb_metric_at_5(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    return among_first(rows, "accuracy@5", 5, out);
}

mb_status mb_metric_at_10(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    return among_first(rows, "accuracy@10", 10, out);
}

mb_status mb_metric_mrr(const mb_answers *rows, const mb_metric_options *o, mb_scores *out)
{
    double sum = 0.0;

    for (int64_t i = 0; i < rows->n; i++)
        sum += 1.0 / (double)rank_in(rows, i);
    mb_scores_add(out, "mrr", sum / (double)rows->n);
    return MB_OK;
}
