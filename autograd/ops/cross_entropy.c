/* autograd/ops/cross_entropy.c - logprob(R) = log softmax(s)[label], s = soft-capped scaled logits.
 *
 *     d logits = d logprob * (onehot(label) - softmax(s)) * ds/dlogits
 *
 * The plain path beside lm_head_ce: the whole logits are on the tape.
 */
#include "autograd/ops.h"

struct attr {
    mb_tensor label, weight;
    float softcap, logit_scale;
};

static mb_status forward(mb_tape *t, mb_call *c)
{
    const struct attr *a = c->attr;
    mb_tensor *logits = &c->in[0]->value; /* grad_scale 0 leaves it as it is */

    return MB_RUN(mb_tape_exec(t), softmax_xent, logits, mb_out(c, 0), &a->label, &a->weight, 0.0f,
                  a->softcap, a->logit_scale);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const struct attr *a = c->attr;
    mb_exec *ex = mb_tape_exec(t);
    const mb_tensor *logits = mb_in(c, 0);
    mb_tensor work, weight, ignored;

    MB_TRY(mb_tape_temporary(t, logits->dtype, 2, logits->dim, &work));
    MB_TRY(mb_tape_temporary(t, MB_DTYPE_F32, 1, logits->dim, &weight));
    MB_TRY(mb_tape_temporary(t, MB_DTYPE_F32, 1, logits->dim, &ignored));
    MB_TRY(MB_RUN(ex, copy, &work, logits));
    MB_TRY(MB_RUN(ex, scale, &weight, -1.0f, c->d_out[0])); /* loss = sum weight * -logprob */
    MB_TRY(MB_RUN(ex, softmax_xent, &work, &ignored, &a->label, &weight, 1.0f, a->softcap,
                  a->logit_scale));
    if (c->acc[0])
        return MB_RUN(ex, axpy, c->d_in[0], 1.0f, &work);
    return MB_RUN(ex, copy, c->d_in[0], &work);
}

mb_status mb_cross_entropy(mb_tape *t, mb_var *logits, const mb_tensor *label,
                           const mb_tensor *weight, float softcap, float logit_scale,
                           mb_var **logprob)
{
    const struct attr a = {
        .label = *label, .weight = *weight, .softcap = softcap, .logit_scale = logit_scale};
    mb_call c = {.op = &mb_op_cross_entropy, .in = {logits}, .needs_in = 1};

    MB_REQUIRE(mb_tensor_count(label) == mb_rows(&logits->value), MB_ESHAPE,
               "cross_entropy: %lld labels for %lld rows", (long long)mb_tensor_count(label),
               (long long)mb_rows(&logits->value));
    MB_TRY(mb_tape_attr(t, &a, sizeof a, &c.attr));
    MB_TRY(mb_tape_value(t, MB_DTYPE_F32, 1, logits->value.dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *logprob = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const struct {
        int64_t rows, classes;
        float softcap, scale;
    } cases[] = {{1, 2, 0, 1}, {5, 37, 0, 1}, {4, 19, 2.5f, 1}, {3, 8, 0, 0.3f}};
    static int32_t labels[] = {1, 0, 5, 7, 2};
    static float weights[] = {1, 1, 1, 1, 1};
    mb_var *x;

    *y = NULL;
    if (i >= (int)(sizeof cases / sizeof cases[0]))
        return MB_OK;
    const mb_tensor label = mb_tensor_1d(labels, MB_DTYPE_I32, cases[i].rows);
    const mb_tensor weight = mb_tensor_1d(weights, MB_DTYPE_F32, cases[i].rows);
    MB_TRY(mb_sample_var(t, cases[i].rows, cases[i].classes, &x));
    return mb_cross_entropy(t, x, &label, &weight, cases[i].softcap, cases[i].scale, y);
}

const mb_op mb_op_cross_entropy = {
    .name = "cross_entropy", .forward = forward, .backward = backward, .sample = sample};
