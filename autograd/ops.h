/* autograd/ops.h - the front functions of all ops, and what the larger ones are called with.
 *
 * Activations are 2-D: rows are tokens (or sequences), columns features. Every function fails with
 * MB_ESHAPE and a sentence when shapes do not fit.
 */
#ifndef MB_AUTOGRAD_OPS_H
#define MB_AUTOGRAD_OPS_H

#include "autograd/live_rows.h"
#include "autograd/tape.h"

/* W(out,in), or (in,out) when `transposed` (GPT-2's Conv1D). A(r,in), B(out,r): low-rank adapter,
 * both NULL when there is none; `drop` acts on the adapter's input only (p 0: none). */
typedef struct mb_linear_args {
    mb_var *w, *bias, *lora_a, *lora_b;
    bool transposed;
    float lora_scale;
    mb_dropout drop;
} mb_linear_args;

/* DoRA (arXiv:2402.09353): u is what W and its adapter give without bias; m(out), the rest as in
 * mb_linear_args. The lengths of the rows are constants to the backward, as in PEFT. */
typedef struct mb_magnitude_args {
    mb_var *m, *w, *lora_a, *lora_b, *bias;
    bool transposed;
    float lora_scale;
} mb_magnitude_args;

typedef struct mb_rmsnorm_args {
    float eps, offset; /* offset is added to the weight: 0, or 1 where a file holds weights so */
} mb_rmsnorm_args;

/* logits = logit_scale * (hidden W^T + bias), soft-capped; logprob[i] = log softmax(logits of row
 * row[i])[label[i]]. Training computes, in the same pass and chunk by chunk, the gradient of
 * grad_scale * sum_i weight[i] * -logprob[i] with respect to hidden, W and bias, so that logits
 * are never whole. Otherwise only log-probabilities. Arrays as in mb_batch, `capacity` long. */
typedef struct mb_head_args {
    mb_var *w, *bias;    /* W(V,D); bias(V) or NULL */
    int64_t n, capacity; /* a multiple of MB_ROW_PAD, not 0 */
    const int32_t *row, *label;
    const float *weight;
    float grad_scale, softcap, logit_scale;
} mb_head_args;

/* Of S vectors: row >= 0 marks anchors, label is an anchor's own candidate, len 0 a vector that is not
 * there, score what SCORE wants. All 1-D of S entries; see mb_contrast_kind. */
typedef struct mb_contrast_args {
    mb_tensor row, label, len, score;
    float temperature;
    mb_contrast_kind kind;
} mb_contrast_args;

#define MB_OP(name, params)          \
    extern const mb_op mb_op_##name; \
    mb_status mb_##name params MB_MUST_USE;
#include "autograd/ops.def"
#undef MB_OP

extern const mb_op *const mb_ops[]; /* all, NULL-terminated */

#endif
