/* recipes/train/answer_vectors.c - how near each anchor is to the texts of its micro-batch, or to its
 * own.
 */
#include <math.h>

#include "core/alloc.h"
#include "recipes/train/answers.h"

/* The vectors of all sequences of the batch. */
static mb_status vectors(mb_job *j, mb_tensor *out)
{
    const mb_batch *b = j->data->batch;
    int32_t *list = NULL;
    mb_status st;

    MB_TRY(MB_NEW_ARRAY(&list, b->n_seq));
    for (int64_t q = 0; q < b->n_seq; q++)
        list[q] = (int32_t)q;
    const mb_tensor rows = mb_tensor_1d(list, MB_DTYPE_I32, b->n_seq);
    st = mb_engine_logits(j->engine, b, &rows, out);
    mb_free(list);
    return st;
}

static double cosine(const float *a, const float *b, int64_t n)
{
    double ab = 0.0, aa = 0.0, bb = 0.0;

    for (int64_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / (fmax(sqrt(aa), 1e-12) * fmax(sqrt(bb), 1e-12));
}

mb_status mb_answer_rank(mb_job *j, const mb_micro *micro, mb_predictions *out)
{
    const mb_batch *b = j->data->batch;
    mb_json object, scores;
    mb_tensor v;

    MB_TRY(vectors(j, &v));
    for (int64_t i = 0; i < b->n_targets; i++) {
        MB_TRY(mb_predictions_row(out, micro->row[i], &object));
        MB_TRY(mb_json_set_array(object, "scores", &scores));
        for (int64_t q = b->n_targets; q < b->n_seq; q++)
            MB_TRY(
                mb_json_set_real(scores, NULL, cosine(mb_row(&v, i), mb_row(&v, q), mb_cols(&v))));
        MB_TRY(mb_json_set_int(object, "label", b->target_label[i] - b->n_targets));
        MB_TRY(mb_answer_group(j, micro->row[i], object));
    }
    return MB_OK;
}

mb_status mb_answer_cosine(mb_job *j, const mb_micro *micro, mb_predictions *out)
{
    const mb_batch *b = j->data->batch;
    mb_json object;
    mb_tensor v;

    MB_TRY(vectors(j, &v));
    for (int64_t i = 0; i < b->n_targets; i++) {
        MB_TRY(mb_predictions_row(out, micro->row[i], &object));
        MB_TRY(
            mb_json_set_real(object, "prediction",
                             cosine(mb_row(&v, i), mb_row(&v, b->target_label[i]), mb_cols(&v))));
        if (mb_answer_store(j)->scored)
            MB_TRY(mb_json_set_real(object, "label", (double)b->target_value[i]));
        MB_TRY(mb_answer_group(j, micro->row[i], object));
    }
    return MB_OK;
}
