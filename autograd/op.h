/* autograd/op.h - what an op is.
 *
 * An op is one file in autograd/ops/ holding its equation, a forward, a backward, a front function
 * that checks shapes and records the call, and samples for its own gradient test; plus one line in
 * ops.def. Nothing else knows its name.
 *
 * Forward and backward see an mb_call: inputs and outputs (values and gradients), tensors saved by
 * the forward, a typed attribute struct. The front function says which values the backward will
 * read (needs_in, needs_out: bit i for in[i], out[i]); the planner frees the others early, and an op
 * that reads a value it did not name reads freed memory, which tests poison.
 *
 * Backward writes d_in[i] when it is not NULL: y = ... when acc[i] is false, y += ... when true.
 * d_out[i] is read by nobody after it, so it may work in there.
 */
#ifndef MB_AUTOGRAD_OP_H
#define MB_AUTOGRAD_OP_H

#include "core/kernels.h"

enum { MB_OP_IN = 8, MB_OP_OUT = 3, MB_OP_SAVED = 4 };

typedef struct mb_tape mb_tape;
typedef struct mb_var mb_var;
typedef struct mb_call mb_call;
typedef struct mb_op mb_op;

/* A value on the tape. Borrowed from the tape until mb_tape_reset. */
struct mb_var {
    mb_tensor value;
    mb_tensor grad;  /* data NULL: nothing has arrived yet */
    bool needs_grad; /* someone wants d(loss)/d(value) */
    int unit; /* a weight's, in the flat order (core/flat.h): grad is added to; -1: of the step */
    mb_var *base; /* not NULL: columns of `base`, from column `column` */
    int64_t column;
    int buffer, grad_buffer; /* the tape's buffers, -1: not the tape's */
    int maker;               /* the recorded call that can make the value again; -1: it is kept */
    const struct mb_live_rows *live; /* of a frozen table: rows trained by themselves; NULL: none */
};

struct mb_call {
    const mb_op *op;
    mb_var *in[MB_OP_IN], *out[MB_OP_OUT];
    mb_tensor saved[MB_OP_SAVED];
    int saved_buffer[MB_OP_SAVED];
    int n_in, n_out, n_saved;
    unsigned needs_in, needs_out;
    const void *attr;
    /* valid during backward only */
    mb_tensor *d_in[MB_OP_IN]; /* NULL: not wanted */
    bool acc[MB_OP_IN];
    mb_tensor *d_out[MB_OP_OUT]; /* NULL: no gradient arrived at this output */
};

struct mb_op {
    const char *name;
    mb_status (*forward)(mb_tape *t, mb_call *c);
    mb_status (*backward)(mb_tape *t, mb_call *c); /* optional: NULL when forward did it all */
    /* Optional, for ops that cost about as much as reading what they read: computes out[again] once
     * more, from values the backward needs anyway. The tape then does not keep that output for the
     * backwards that read it. */
    mb_status (*remake)(mb_tape *t, mb_call *c);
    int again;
    /* Builds case i on a tape from mb_sample_* inputs; *y is what the test differentiates. Sets *y
     * to NULL when there is no case i. */
    mb_status (*sample)(mb_tape *t, int i, mb_var **y);
};

/* The value of input i, output i in the backward. */
static inline const mb_tensor *mb_in(const mb_call *c, int i)
{
    return c->in[i] != NULL ? &c->in[i]->value : NULL;
}

static inline mb_tensor *mb_out(const mb_call *c, int i)
{
    return c->out[i] != NULL ? &c->out[i]->value : NULL;
}

#endif
