/* autograd/tape.h - records what was computed, and differentiates it.
 *
 *     mb_tape_begin(t, ex, MB_TAPE_TRAIN);
 *     model->family->forward(t, model, batch, &out);
 *     mb_lm_head_ce(t, ...);
 *     mb_tape_backward(t);
 *     mb_tape_reset(t);
 *
 * Memory. Every value, saved tensor and activation gradient is a *buffer*: number 0, 1, 2 ... in the
 * order of creation. A step on a planning exec computes nothing; it notes each buffer's size and the
 * first and last moment it is touched, and mb_tape_plan packs them (largest first, best fit among
 * those alive at the same time). A real step of the same shapes creates the same buffers in the same
 * order and takes their places from the plan: no allocation, no free list, a peak known beforehand.
 * Without a plan the tape takes buffers from an arena one after the other (tests, tools).
 *
 * A weight's gradient is added to. It lives outside the step, or, where nobody reads what earlier steps
 * left (mb_tape_hold_gradients), in the step's own memory: a layer's from the moment the backward first
 * asks for one of them, so they lie where the activations of later layers were.
 *
 * Outputs of cheap ops (mb_op.remake: norms, activations) are not kept for the backward but made
 * again when it reads them, unless they leave their layer: a layer's weights may be gone by then.
 *
 * Recomputation. A layer is a function; mb_tape_layer runs it. With `recompute` on, the forward keeps
 * only the layer's input, and the backward runs the layer again, recording, just before it
 * differentiates it. Random numbers are functions of what they are for, so the bits are the same.
 */
#ifndef MB_AUTOGRAD_TAPE_H
#define MB_AUTOGRAD_TAPE_H

#include "autograd/op.h"
#include "core/flat.h"

typedef enum mb_tape_mode {
    MB_TAPE_EVAL,  /* nothing recorded, dropout off */
    MB_TAPE_TRAIN, /* recorded, dropout on */
} mb_tape_mode;

typedef struct mb_tape_plan {
    int n_buffers;
    size_t *offset, *bytes;
    size_t peak;
    size_t without_gradients; /* the peak if held gradients lay elsewhere */
} mb_tape_plan;

/* `memory`: the step arena that buffers without a plan are taken from, and, for a planned step, the
 * arena whose bytes from 0 to the plan's peak are used. Borrowed. */
mb_status mb_tape_new(mb_arena *memory, mb_tape **out) MB_MUST_USE;
void mb_tape_free(mb_tape *t);

/* Room for the calls and buffers of the largest of several planned steps, so that no step allocates.
 * `calls`: most recorded at once (mb_tape_calls_peak of the planning tape). */
mb_status mb_tape_reserve(mb_tape *t, size_t calls, size_t buffers) MB_MUST_USE;
size_t mb_tape_calls_peak(const mb_tape *t);

/* Gradients of weights are kept in the first bytes of a step's memory, in the order of `flat`
 * (borrowed). Those outside layers are cleared when a training step begins, a layer's when they are
 * first asked for, and what was not is zero after the backward. They are there until the next begin or
 * reset: whoever reads them does so before, and leaves nothing in them for later. For planned steps;
 * the plans are made by a tape that holds the same. */
mb_status mb_tape_hold_gradients(mb_tape *t, const mb_flat *flat) MB_MUST_USE;
/* Zeros instead of what a step would have given. */
mb_status mb_tape_clear_gradients(mb_tape *t, mb_exec *ex) MB_MUST_USE;

/* Starts a micro-step. `ex` is borrowed until the reset; `plan` may be NULL. `recompute`: layers are
 * recomputed in the backward. */
mb_status mb_tape_begin(mb_tape *t, mb_exec *ex, mb_tape_mode mode, bool recompute,
                        const mb_tape_plan *plan) MB_MUST_USE;
/* Differentiates everything recorded, from the last call to the first. Gradients must have been put
 * into some output by then (mb_tape_seed, or a head that computes them in its forward). */
mb_status mb_tape_backward(mb_tape *t) MB_MUST_USE;
void mb_tape_reset(mb_tape *t);

/* After a begin..backward on a planning exec: where each buffer goes. The caller owns the arrays
 * (mb_tape_plan_release). */
mb_status mb_tape_make_plan(mb_tape *t, mb_tape_plan *out) MB_MUST_USE;
void mb_tape_plan_release(mb_tape_plan *p);

mb_exec *mb_tape_exec(mb_tape *t);
bool mb_tape_is_training(const mb_tape *t);

/* For front functions. A new value of the tape; its contents are undefined. */
mb_status mb_tape_value(mb_tape *t, mb_dtype d, int ndim, const int64_t *dim,
                        mb_var **out) MB_MUST_USE;
/* A tensor that lives from forward to backward (saved) or only inside the call (temporary: with
 * c NULL). */
mb_status mb_tape_saved(mb_tape *t, mb_call *c, int slot, mb_dtype d, int ndim,
                        const int64_t *dim) MB_MUST_USE;
mb_status mb_tape_temporary(mb_tape *t, mb_dtype d, int ndim, const int64_t *dim,
                            mb_tensor *out) MB_MUST_USE;
/* v's value is read now, by what is no call. */
void mb_tape_read(mb_tape *t, const mb_var *v);
/* v's value stays readable until the reset: for results the host reads after the backward. */
void mb_tape_keep(mb_tape *t, const mb_var *v);
/* Copies an attribute struct; valid until the reset. */
mb_status mb_tape_attr(mb_tape *t, const void *attr, size_t bytes, const void **out) MB_MUST_USE;
/* Runs the call and, when recording and an input needs a gradient, keeps it. Outputs then need one
 * too. */
mb_status mb_tape_apply(mb_tape *t, mb_call *c) MB_MUST_USE;

/* Columns [from, from+n) of x; gradients flow into x. No copy. */
mb_status mb_tape_columns(mb_tape *t, mb_var *x, int64_t from, int64_t n, mb_var **out) MB_MUST_USE;
/* A value that is not the tape's: a constant, or a weight of a layer (-1: of none) with its gradient
 * (NULL: frozen). Borrowed. */
mb_status mb_tape_constant(mb_tape *t, const mb_tensor *value, mb_var **out) MB_MUST_USE;
mb_status mb_tape_weight(mb_tape *t, const mb_tensor *value, const mb_tensor *grad, int64_t layer,
                         mb_var **out) MB_MUST_USE;

/* The gradient buffer of v, for writing now: *acc says whether it already holds something. Used by
 * heads that compute gradients in their forward. */
mb_status mb_tape_grad(mb_tape *t, mb_var *v, mb_tensor **grad, bool *acc) MB_MUST_USE;
/* d(loss)/d(v) = `value` everywhere, or a copy of `grad` when that is not NULL. */
mb_status mb_tape_seed(mb_tape *t, mb_var *v, float value, const mb_tensor *grad) MB_MUST_USE;

/* Someone may follow a step from layer to layer: to gather a layer's weights before they are used,
 * and to reduce its gradients once they are complete. With recomputation the layer's forward runs
 * again inside its backward. Not called on a planning exec. */
typedef enum mb_layer_edge {
    MB_FORWARD_BEGIN,
    MB_FORWARD_END,
    MB_BACKWARD_BEGIN,
    MB_BACKWARD_END
} mb_layer_edge;
typedef mb_status (*mb_layer_edge_fn)(void *ctx, int64_t layer, mb_layer_edge edge);
void mb_tape_on_edges(mb_tape *t, mb_layer_edge_fn fn, void *ctx); /* fn NULL: nobody */

/* Runs fn(t, arg, layer, x, &y) as one layer. */
typedef mb_status (*mb_layer_fn)(mb_tape *t, const void *arg, int64_t layer, mb_var *x, mb_var **y);
mb_status mb_tape_layer(mb_tape *t, mb_layer_fn fn, const void *arg, int64_t layer, mb_var *x,
                        mb_var **y) MB_MUST_USE;

/* For samples: a leaf of random numbers about 1 in size that gets a gradient, registered so that the
 * test finds it. rows 0 makes it 1-D. */
mb_status mb_sample_var(mb_tape *t, int64_t rows, int64_t cols, mb_var **out) MB_MUST_USE;
/* The next sample's input `input` has element `at` moved by `by`; input < 0: none. */
void mb_sample_nudge(mb_tape *t, int input, int64_t at, float by);
int mb_sample_count(const mb_tape *t);
mb_var *mb_sample_get(const mb_tape *t, int i);
/* The test differentiates sum_i projection(i) * y[i]. */
float mb_sample_projection(int64_t i);

#endif
