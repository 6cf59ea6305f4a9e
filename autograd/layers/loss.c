/* autograd/layers/loss.c - what a batch's targets say about a model's output, on the tape.
 *
 * Each loss gives one log-likelihood per target; the engine weighs and sums them alike, whatever they
 * are. The large softmax over a vocabulary has a way of its own, without whole logits
 * (autograd/ops/lm_head_ce.c).
 */
#include "autograd/layers.h"

static mb_tensor per_target(const void *at, mb_dtype dtype, int64_t n)
{
    return mb_tensor_1d((void *)(uintptr_t)at, dtype, n);
}

static mb_status logits_of(mb_tape *t, const mb_model *m, const mb_output *o, mb_var **logits)
{
    mb_linear_args a = {0};

    MB_TRY(mb_weight_var(t, m, o->head_w, &a.w));
    MB_TRY(mb_weight_var(t, m, o->head_b, &a.bias));
    return mb_linear(t, o->features, &a, logits);
}

mb_status mb_layer_result(mb_tape *t, const mb_model *m, const mb_batch *b, const mb_output *o,
                          mb_var **result)
{
    const mb_tensor start = mb_tensor_1d(b->start, MB_DTYPE_I32, b->max_seq);
    const mb_tensor len = mb_tensor_1d(b->len, MB_DTYPE_I32, b->max_seq);

    if (m->config.head == MB_HEAD_EMBED)
        return mb_mean_pool(t, o->features, &start, &len, result);
    return logits_of(t, m, o, result);
}

static mb_status softmax(mb_tape *t, const mb_batch *b, const mb_output *o, mb_var *logits,
                         mb_var **logprob)
{
    const int64_t n = (b->n_targets + MB_ROW_PAD - 1) / MB_ROW_PAD * MB_ROW_PAD;
    const mb_tensor rows = per_target(b->target_row, MB_DTYPE_I32, n);
    const mb_tensor label = per_target(b->target_label, MB_DTYPE_I32, n);
    const mb_tensor weight = per_target(b->target_weight, MB_DTYPE_F32, n);
    mb_var *y;

    MB_TRY(mb_gather_rows(t, logits, &rows, &y));
    return mb_cross_entropy(t, y, &label, &weight, o->softcap, o->logit_scale, logprob);
}

static mb_status span(mb_tape *t, const mb_batch *b, mb_var *logits, mb_var **logprob)
{
    const mb_tensor start = mb_tensor_1d(b->start, MB_DTYPE_I32, b->max_seq);
    const mb_tensor len = mb_tensor_1d(b->len, MB_DTYPE_I32, b->max_seq);
    const mb_tensor label = per_target(b->target_label, MB_DTYPE_I32, 2 * b->max_seq);

    return mb_span_xent(t, logits, &label, &start, &len, logprob);
}

static mb_status contrast(mb_tape *t, const mb_model *m, const mb_batch *b, mb_var *vectors,
                          mb_var **logprob)
{
    const int64_t n = b->max_seq;
    const mb_contrast_args a = {
        .row = per_target(b->target_row, MB_DTYPE_I32, n),
        .label = per_target(b->target_label, MB_DTYPE_I32, n),
        .score = per_target(b->target_value, MB_DTYPE_F32, n),
        .len = mb_tensor_1d(b->len, MB_DTYPE_I32, n),
        .temperature = m->config.temperature,
        .kind = m->config.loss == MB_LOSS_SCORE       ? MB_CONTRAST_SCORE
                : m->config.loss == MB_LOSS_SYMMETRIC ? MB_CONTRAST_SYMMETRIC
                                                      : MB_CONTRAST_ONE_WAY,
    };

    return mb_contrast(t, vectors, &a, logprob);
}

mb_status mb_layer_loss(mb_tape *t, const mb_model *m, const mb_batch *b, const mb_output *o,
                        mb_var *result, mb_var **logprob)
{
    const int64_t values = b->max_seq * mb_cols(&result->value);
    mb_tensor y;

    switch (m->config.loss) {
    case MB_LOSS_SIGMOID:
    case MB_LOSS_SQUARED:
        y = per_target(b->target_value, MB_DTYPE_F32, values);
        return mb_row_losses(
            t, result, &y,
            m->config.loss == MB_LOSS_SIGMOID ? MB_ROW_LOSS_SIGMOID : MB_ROW_LOSS_SQUARED, logprob);
    case MB_LOSS_SPAN:
        return span(t, b, result, logprob);
    case MB_LOSS_CONTRAST:
    case MB_LOSS_SYMMETRIC:
    case MB_LOSS_SCORE:
        return contrast(t, m, b, result, logprob);
    case MB_LOSS_SOFTMAX:
        break;
    }
    return softmax(t, b, o, result, logprob);
}
