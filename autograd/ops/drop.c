/* autograd/ops/drop.c - dropout (Srivastava et al. 2014): y = x * mask / (1-p).
 *
 * The mask is a function of what it falls on (see core/rng.h), so nothing is saved: the backward
 * applies the same kernel to the gradient.
 */
#include "autograd/ops.h"
#include "core/rng.h"

static mb_status forward(mb_tape *t, mb_call *c)
{
    return MB_RUN(mb_tape_exec(t), dropout, mb_out(c, 0), mb_in(c, 0), c->attr, false);
}

static mb_status backward(mb_tape *t, mb_call *c)
{
    return MB_RUN(mb_tape_exec(t), dropout, c->d_in[0], c->d_out[0], c->attr, c->acc[0]);
}

mb_status mb_drop(mb_tape *t, mb_var *x, const mb_dropout *d, mb_var **y)
{
    mb_call c = {.op = &mb_op_drop, .in = {x}};

    MB_REQUIRE(d->p >= 0.0f && d->p < 1.0f, MB_EARG, "dropout %g is not in [0, 1)", (double)d->p);
    *y = x;
    if (d->p == 0.0f || !mb_tape_is_training(t))
        return MB_OK;
    MB_TRY(mb_tape_attr(t, d, sizeof *d, &c.attr));
    MB_TRY(mb_tape_value(t, x->value.dtype, x->value.ndim, x->value.dim, &c.out[0]));
    MB_TRY(mb_tape_apply(t, &c));
    *y = c.out[0];
    return MB_OK;
}

static mb_status sample(mb_tape *t, int i, mb_var **y)
{
    static const int32_t ordinal[] = {0, 0, 0, 1, 1}, position[] = {0, 1, 2, 0, 1};
    const mb_dropout d = {.p = 0.4f,
                          .seed = 5,
                          .site = MB_SITE_MODEL + 1,
                          .step = 3,
                          .ordinal = ordinal,
                          .position = position};
    mb_var *x;

    *y = NULL;
    if (i > 1)
        return MB_OK;
    MB_TRY(mb_sample_var(t, 5, i == 0 ? 9 : 32, &x));
    return mb_drop(t, x, &d, y);
}

const mb_op mb_op_drop = {
    .name = "drop", .forward = forward, .backward = backward, .sample = sample};
