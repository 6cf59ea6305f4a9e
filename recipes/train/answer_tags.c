/* recipes/train/answer_tags.c - the likeliest class of each word. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "recipes/train/answers.h"

struct lists {
    mb_json words, said, right, sure;
    bool labelled;
};

static mb_status begin(const mb_job *j, int64_t row, mb_predictions *out, struct lists *l)
{
    mb_json object;

    l->labelled = mb_store_labelled(mb_answer_store(j), row);
    MB_TRY(mb_predictions_row(out, row, &object));
    MB_TRY(mb_answer_group(j, row, object));
    MB_TRY(mb_json_set_array(object, "tokens", &l->words));
    MB_TRY(mb_json_set_array(object, "prediction", &l->said));
    if (l->labelled)
        MB_TRY(mb_json_set_array(object, "label", &l->right));
    return mb_json_set_array(object, "probability", &l->sure);
}

static mb_status add_class(const mb_job *j, mb_json list, int64_t class, int64_t n)
{
    const char *name = mb_answer_class_name(j, class, n);
    char number[24];

    snprintf(number, sizeof number, "%lld", (long long)class);
    return mb_json_set_string(list, NULL, name != NULL ? name : number);
}

/* The text of the word whose first token is `at`, one of `n` of the row. */
static mb_status add_word(const mb_job *j, const mb_batch *b, const uint8_t *flags, int64_t first,
                          int64_t at, int64_t n, mb_json list)
{
    int64_t end = at + 1;
    char *text;
    size_t bytes;
    mb_status st;

    while (end < n && !(flags[end] & MB_MARK_TRAINED))
        end++;
    MB_TRY(mb_tokenizer_decode(j->data->tokenizer, b->ids + first + at, (size_t)(end - at), true,
                               &text, &bytes));
    st = mb_json_set_string(list, NULL, text + strspn(text, " "));
    mb_free(text);
    return st;
}

static mb_status add_tag(const mb_job *j, const struct lists *l, const float *logit, int64_t n,
                         int64_t right)
{
    int64_t best = 0;
    double sum = 0.0;

    for (int64_t c = 1; c < n; c++)
        if (logit[c] > logit[best])
            best = c;
    for (int64_t c = 0; c < n; c++)
        sum += exp((double)logit[c] - (double)logit[best]);
    MB_TRY(add_class(j, l->said, best, n));
    MB_TRY(mb_json_set_real(l->sure, NULL, 1.0 / sum));
    return l->labelled ? add_class(j, l->right, right, n) : MB_OK;
}

mb_status mb_answer_tags(mb_job *j, const mb_micro *micro, mb_predictions *out)
{
    const mb_batch *b = j->data->batch;
    const mb_store *s = mb_answer_store(j);
    const mb_tensor rows = mb_tensor_1d(b->target_row, MB_DTYPE_I32, b->n_targets);
    mb_tensor logits;
    struct lists l;

    MB_TRY(mb_engine_logits(j->engine, b, &rows, &logits));
    for (int64_t q = 0, i = 0; q < b->n_seq; q++) {
        const int64_t row = micro->row[q], end = b->start[q] + b->len[q];

        MB_TRY(begin(j, row, out, &l));
        for (; i < b->n_targets && b->target_row[i] < end; i++) {
            MB_TRY(add_word(j, b, s->flags + s->offset[row], b->start[q],
                            b->target_row[i] - b->start[q], b->len[q], l.words));
            MB_TRY(add_tag(j, &l, mb_row(&logits, i), mb_cols(&logits), b->target_label[i]));
        }
    }
    return MB_OK;
}
