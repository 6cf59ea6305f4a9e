/* recipes/train/answer_values.c - several classes at once (those of probability 1/2 and more), and
 * numbers.
 */
#include <math.h>
#include <stdio.h>

#include "recipes/train/answers.h"

/* Logits of the batch's sequences. */
static mb_status outputs(mb_job *j, mb_tensor *logits)
{
    const mb_batch *b = j->data->batch;
    const mb_tensor rows = mb_tensor_1d(b->target_row, MB_DTYPE_I32, b->n_targets);

    return mb_engine_logits(j->engine, b, &rows, logits);
}

static mb_status add_class(const mb_job *j, mb_json list, int64_t class, int64_t n)
{
    const char *name = mb_answer_class_name(j, class, n);

    return name != NULL ? mb_json_set_string(list, NULL, name) : mb_json_set_int(list, NULL, class);
}

static mb_status say_sets(const mb_job *j, int64_t row, const float *logit, const float *right,
                          int64_t n, mb_predictions *out)
{
    mb_json object, said, labels, shares;
    const bool named = mb_answer_class_name(j, 0, n) != NULL;

    MB_TRY(mb_predictions_row(out, row, &object));
    MB_TRY(mb_json_set_array(object, "prediction", &said));
    MB_TRY(named ? mb_json_set_object(object, "probabilities", &shares)
                 : mb_json_set_array(object, "probabilities", &shares));
    for (int64_t c = 0; c < n; c++) {
        if (logit[c] >= 0.0f)
            MB_TRY(add_class(j, said, c, n));
        MB_TRY(mb_json_set_real(shares, named ? mb_answer_class_name(j, c, n) : NULL,
                                1.0 / (1.0 + exp(-(double)logit[c]))));
    }
    if (mb_store_labelled(mb_answer_store(j), row)) {
        MB_TRY(mb_json_set_array(object, "label", &labels));
        for (int64_t c = 0; c < n; c++)
            if (right[c] > 0.0f)
                MB_TRY(add_class(j, labels, c, n));
    }
    return mb_answer_group(j, row, object);
}

mb_status mb_answer_sets(mb_job *j, const mb_micro *micro, mb_predictions *out)
{
    const mb_batch *b = j->data->batch;
    mb_tensor logits;

    MB_TRY(outputs(j, &logits));
    for (int64_t i = 0; i < b->n_targets; i++)
        MB_TRY(say_sets(j, micro->row[i], mb_row(&logits, i), b->target_value + i * b->n_values,
                        b->n_values, out));
    return MB_OK;
}

/* Several numbers of a row are lines of their own: their place is the group, unless there are others. */
static mb_status say_number(const mb_job *j, int64_t row, int64_t place, int64_t n, float said,
                            float right, mb_predictions *out)
{
    char group[32];
    mb_json object;

    MB_TRY(mb_predictions_row(out, row, &object));
    MB_TRY(mb_json_set_real(object, "prediction", (double)said));
    if (mb_store_labelled(mb_answer_store(j), row))
        MB_TRY(mb_json_set_real(object, "label", (double)right));
    if (n == 1 || j->groups != NULL)
        return mb_answer_group(j, row, object);
    snprintf(group, sizeof group, "number %lld", (long long)place);
    return mb_json_set_string(object, "group", group);
}

mb_status mb_answer_number(mb_job *j, const mb_micro *micro, mb_predictions *out)
{
    const mb_batch *b = j->data->batch;
    mb_tensor logits;

    MB_TRY(outputs(j, &logits));
    for (int64_t i = 0; i < b->n_targets; i++)
        for (int64_t k = 0; k < b->n_values; k++)
            MB_TRY(say_number(j, micro->row[i], k, b->n_values, mb_row(&logits, i)[k],
                              b->target_value[i * b->n_values + k], out));
    return MB_OK;
}
