/* recipes/train/answer_class.c - classes: what the likeliest is, and the probabilities of all. */
#include <math.h>

#include "recipes/train/answers.h"

static mb_status set_class(const mb_job *j, mb_json object, const char *key, int64_t class,
                           int64_t n_classes)
{
    const char *name = mb_answer_class_name(j, class, n_classes);

    return name != NULL ? mb_json_set_string(object, key, name)
                        : mb_json_set_int(object, key, class);
}

/* exp(x - max) / sum; the first of the largest wins. */
static mb_status set_shares(const mb_job *j, mb_json object, const float *logit, int64_t n,
                            int64_t best)
{
    const bool named = mb_answer_class_name(j, 0, n) != NULL;
    double sum = 0.0;
    mb_json shares;

    for (int64_t c = 0; c < n; c++)
        sum += exp((double)logit[c] - logit[best]);
    MB_TRY(named ? mb_json_set_object(object, "probabilities", &shares)
                 : mb_json_set_array(object, "probabilities", &shares));
    for (int64_t c = 0; c < n; c++)
        MB_TRY(mb_json_set_real(shares, named ? mb_answer_class_name(j, c, n) : NULL,
                                exp((double)logit[c] - logit[best]) / sum));
    return MB_OK;
}

static mb_status say(const mb_job *j, int64_t row, const float *logit, int64_t n, int64_t label,
                     mb_predictions *out)
{
    mb_json object;
    int64_t best = 0;

    for (int64_t c = 1; c < n; c++)
        if (logit[c] > logit[best])
            best = c;
    MB_TRY(mb_predictions_row(out, row, &object));
    MB_TRY(set_class(j, object, "prediction", best, n));
    if (mb_store_labelled(mb_answer_store(j), row))
        MB_TRY(set_class(j, object, "label", label, n));
    MB_TRY(set_shares(j, object, logit, n, best));
    return mb_answer_group(j, row, object);
}

mb_status mb_answer_class(mb_job *j, const mb_micro *micro, mb_predictions *out)
{
    const mb_batch *b = j->data->batch;
    const mb_tensor rows = mb_tensor_1d(b->target_row, MB_DTYPE_I32, b->n_targets);
    mb_tensor logits;

    MB_TRY(mb_engine_logits(j->engine, b, &rows, &logits));
    for (int64_t i = 0; i < b->n_targets; i++)
        MB_TRY(
            say(j, micro->row[i], mb_row(&logits, i), mb_cols(&logits), b->target_label[i], out));
    return MB_OK;
}
