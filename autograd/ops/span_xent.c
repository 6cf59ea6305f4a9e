/* autograd/ops/span_xent.c - logprob(2S): of the first and last token of an answer, each by softmax
 * over the tokens of its sequence; x(T,2). */
#include "autograd/ops.h"

struct attr {
    mb_tensor label, start, len;
};

static mb_status forward(mb_tape *t, mb_call *c)
{
    const struct attr *a = c->attr;

    return MB_RUN(mb_tape_exec(t), span_xent_fwd, mb_out(c, 0), mb_in(c, 0), &a->label, &a->start,
                  &a->len);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    const struct attr *a = c->attr;

    return MB_RUN(mb_tape_exec(t), span_xent_bwd, c->d_in[0], c->d_out[0], mb_in(c, 0), &a->label,
                  &a->start, &a->len, c->acc[0]);
}

mb_status mb_span_xent(mb_tape *t, mb_var *x, const mb_tensor *label, const mb_tensor *start,
                       const mb_tensor *len, mb_var **logprob)
{
    const struct attr a = {.label = *label, .start = *start, .len = *len};
    const int64_t n = mb_tensor_count(label);
    mb_call c = {.op = &mb_op_span_xent, .in = {x}, .needs_in = 1};

    MB_REQUIRE(mb_cols(&x->value) == 2 && n == 2 * mb_tensor_count(start), MB_ESHAPE,
               "span_xent: %lld columns, %lld labels of %lld sequences",
               (long long)mb_cols(&x->value), (long long)n, (long long)mb_tensor_count(start));
    MB_TRY(mb_tape_attr(t, &a, sizeof a, &c.attr));
    MB_TRY(mb_tape_value(t, MB_DTYPE_F32, 1, &n, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *logprob = c.out[0];
    return MB_OK;
}

/* The last sequence has no rows, and three rows have no sequence. */
static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static int32_t start[] = {0, 1, 15, -1}, len[] = {1, 14, 150, 0};
    static int32_t label[] = {0, 0, 13, 2, 0, 149, 0, 0};
    const mb_tensor labels = mb_tensor_1d(label, MB_DTYPE_I32, 8);
    const mb_tensor starts = mb_tensor_1d(start, MB_DTYPE_I32, 4);
    const mb_tensor lens = mb_tensor_1d(len, MB_DTYPE_I32, 4);
    mb_var *x;

    *y = NULL;
    if (i > 0)
        return MB_OK;
    MB_TRY(mb_sample_var(t, 168, 2, &x));
    return mb_span_xent(t, x, &labels, &starts, &lens, y);
}

const mb_op mb_op_span_xent = {
    .name = "span_xent", .forward = forward, .backward = backward, .sample = sample};
