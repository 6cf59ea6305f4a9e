/* autograd/tape.c - see autograd/tape.h. */
#include "autograd/tape.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/rng.h"

enum { SAMPLES_MAX = 16 };

struct buffer {
    size_t bytes;
    int first, last; /* moments; a plan may overlap buffers whose intervals do not meet */
};

struct mb_tape {
    mb_arena *memory; /* buffers */
    mb_arena *notes;  /* vars, attributes: small, host only */
    mb_exec *ex;
    mb_tape_mode mode;
    bool recompute, recording;
    const mb_tape_plan *plan;
    char *base;    /* of a planned step */
    mb_call *call; /* recorded calls */
    size_t n_calls, calls_capacity, calls_peak;
    struct buffer *buffer;
    size_t n_buffers, buffers_capacity;
    int now; /* moment: one per forward or backward of a call */
    const mb_flat *held;
    int *asked; /* by unit of `held`: the moment its gradients were first asked for, -1: not yet */
    mb_layer_edge_fn edge;
    void *edge_ctx;
    mb_var *sample[SAMPLES_MAX];
    int n_samples;
    int nudge_input;
    int64_t nudge_at;
    float nudge_by;
};

/* Vars and attributes of a step: some 200 bytes each, a few thousand per step at most. Address space
 * only; pages are touched as far as they are used. */
#define NOTES_BYTES ((size_t)32 << 20)

mb_status mb_tape_new(mb_arena *memory, mb_tape **out)
{
    mb_tape *t = NULL;
    mb_status st;

    MB_TRY(MB_NEW(&t));
    t->memory = memory;
    st = mb_arena_new("tape", NOTES_BYTES, &t->notes);
    if (st != MB_OK) {
        mb_free(t);
        return st;
    }
    *out = t;
    return MB_OK;
}

void mb_tape_free(mb_tape *t)
{
    if (t == NULL)
        return;
    mb_arena_free(t->notes);
    mb_free(t->call);
    mb_free(t->buffer);
    mb_free(t->asked);
    mb_free(t);
}

mb_status mb_tape_reserve(mb_tape *t, size_t calls, size_t buffers)
{
    MB_TRY(
        mb_grow((void **)&t->call, &t->calls_capacity, calls, sizeof *t->call, "the tape's calls"));
    return mb_grow((void **)&t->buffer, &t->buffers_capacity, buffers, sizeof *t->buffer,
                   "the tape's buffers");
}

size_t mb_tape_calls_peak(const mb_tape *t)
{
    return t->calls_peak;
}

/* ---- held gradients ----------------------------------------------------------------------- */

static mb_status clear(mb_exec *ex, float *grad, int64_t n)
{
    mb_tensor t = mb_tensor_1d(grad, MB_DTYPE_F32, n);

    return n > 0 ? MB_RUN(ex, fill, &t, 0.0f) : MB_OK;
}

/* Elements of all segments; what follows fills the last grain. */
static int64_t held_by_segments(const mb_flat *f)
{
    const int n = f->n_segments;

    return n > 0 ? f->segment[n - 1].offset + f->segment[n - 1].count : 0;
}

static mb_status ask_for_unit(mb_tape *t, int unit)
{
    const mb_flat *f = t->held;
    const mb_flat_unit *u = &f->unit[unit];

    if (t->asked[unit] >= 0)
        return MB_OK;
    t->asked[unit] = t->now;
    for (int i = 0; i < u->n_ranges; i++)
        MB_TRY(clear(t->ex, f->grad + u->range[i].from, u->range[i].to - u->range[i].from));
    return MB_OK;
}

/* The backward is over: what it did not ask for is zero. */
static mb_status ask_for_all(mb_tape *t)
{
    const mb_flat *f = t->held;

    if (f == NULL)
        return MB_OK;
    for (int u = 0; u < f->n_units; u++)
        MB_TRY(ask_for_unit(t, u));
    return clear(t->ex, f->grad + held_by_segments(f), f->count - held_by_segments(f));
}

static void forget_asked(mb_tape *t)
{
    for (int u = 0; t->held != NULL && u < t->held->n_units; u++)
        t->asked[u] = -1;
}

mb_status mb_tape_hold_gradients(mb_tape *t, const mb_flat *flat)
{
    MB_REQUIRE(flat->n_units > 0 && flat->stage < 2, MB_EBUG,
               "a step can hold whole gradients in units");
    MB_TRY(MB_NEW_ARRAY(&t->asked, flat->n_units));
    t->held = flat;
    forget_asked(t);
    return MB_OK;
}

mb_status mb_tape_clear_gradients(mb_tape *t, mb_exec *ex)
{
    void *p;

    mb_tape_reset(t);
    MB_TRY(mb_arena_take(t->memory, (size_t)t->held->count * sizeof(float), &p));
    return clear(ex, p, t->held->count);
}

mb_status mb_tape_begin(mb_tape *t, mb_exec *ex, mb_tape_mode mode, bool recompute,
                        const mb_tape_plan *plan)
{
    mb_tape_reset(t);
    MB_REQUIRE(t->held == NULL || mode != MB_TAPE_TRAIN || plan != NULL || ex->planning, MB_EBUG,
               "a training step that holds gradients has no plan");
    t->ex = ex;
    t->mode = mode;
    t->recording = mode == MB_TAPE_TRAIN;
    t->recompute = recompute;
    t->plan = plan;
    if (plan != NULL) {
        void *p;
        MB_TRY(mb_arena_take(t->memory, plan->peak, &p));
        t->base = p;
    }
    return t->held != NULL && t->recording ? ask_for_unit(t, 0) : MB_OK;
}

void mb_tape_reset(mb_tape *t)
{
    t->n_calls = t->n_buffers = 0;
    t->n_samples = 0;
    t->nudge_input = -1;
    t->now = 0;
    t->plan = NULL;
    t->base = NULL;
    forget_asked(t);
    mb_arena_reset(t->notes);
    mb_arena_reset(t->memory);
}

mb_exec *mb_tape_exec(mb_tape *t)
{
    return t->ex;
}

bool mb_tape_is_training(const mb_tape *t)
{
    return t->mode == MB_TAPE_TRAIN;
}

/* ---- buffers ------------------------------------------------------------------------------ */

static mb_status new_buffer(mb_tape *t, size_t bytes, int *id, void **data)
{
    const int n = (int)t->n_buffers;

    MB_TRY(mb_grow((void **)&t->buffer, &t->buffers_capacity, t->n_buffers + 1, sizeof *t->buffer,
                   "the tape's buffers"));
    t->buffer[n] = (struct buffer){.bytes = bytes, .first = t->now, .last = t->now};
    t->n_buffers++;
    *id = n;
    if (t->plan == NULL)
        return mb_arena_take(t->memory, bytes, data);
    if (n >= t->plan->n_buffers || bytes > t->plan->bytes[n])
        MB_BUG("buffer %d of %zu bytes is not in the step's plan of %d buffers", n, bytes,
               t->plan->n_buffers);
    *data = t->base + t->plan->offset[n];
    return MB_OK;
}

static void touch(mb_tape *t, int id)
{
    if (id >= 0 && t->buffer[id].last < t->now)
        t->buffer[id].last = t->now;
}

static void touch_value(mb_tape *t, const mb_var *v)
{
    if (v != NULL)
        touch(t, v->buffer);
}

static mb_status tensor_in_buffer(mb_tape *t, mb_dtype d, int ndim, const int64_t *dim, int *id,
                                  mb_tensor *out)
{
    *out = mb_tensor_of(NULL, d, ndim, dim);
    return new_buffer(t, (size_t)mb_tensor_bytes(out), id, &out->data);
}

static mb_status new_var(mb_tape *t, mb_var **out)
{
    void *p;

    MB_TRY(mb_arena_take(t->notes, sizeof(mb_var), &p));
    *out = p;
    **out = (mb_var){.unit = -1, .buffer = -1, .grad_buffer = -1, .maker = -1};
    return MB_OK;
}

mb_status mb_tape_value(mb_tape *t, mb_dtype d, int ndim, const int64_t *dim, mb_var **out)
{
    MB_TRY(new_var(t, out));
    return tensor_in_buffer(t, d, ndim, dim, &(*out)->buffer, &(*out)->value);
}

mb_status mb_tape_saved(mb_tape *t, mb_call *c, int slot, mb_dtype d, int ndim, const int64_t *dim)
{
    MB_ASSERT(slot < MB_OP_SAVED);
    if (slot >= c->n_saved)
        c->n_saved = slot + 1;
    return tensor_in_buffer(t, d, ndim, dim, &c->saved_buffer[slot], &c->saved[slot]);
}

mb_status mb_tape_temporary(mb_tape *t, mb_dtype d, int ndim, const int64_t *dim, mb_tensor *out)
{
    int id;

    return tensor_in_buffer(t, d, ndim, dim, &id, out);
}

mb_status mb_tape_attr(mb_tape *t, const void *attr, size_t bytes, const void **out)
{
    void *p;

    MB_TRY(mb_arena_take(t->notes, bytes, &p));
    memcpy(p, attr, bytes);
    *out = p;
    return MB_OK;
}

void mb_tape_read(mb_tape *t, const mb_var *v)
{
    touch_value(t, v);
}

void mb_tape_keep(mb_tape *t, const mb_var *v)
{
    if (v->buffer >= 0)
        t->buffer[v->buffer].last = INT_MAX;
}

mb_status mb_tape_constant(mb_tape *t, const mb_tensor *value, mb_var **out)
{
    MB_TRY(new_var(t, out));
    (*out)->value = *value;
    return MB_OK;
}

mb_status mb_tape_weight(mb_tape *t, const mb_tensor *value, const mb_tensor *grad, int64_t layer,
                         mb_var **out)
{
    MB_TRY(new_var(t, out));
    (*out)->value = *value;
    (*out)->unit = (int)layer + 1;
    if (grad != NULL && grad->data != NULL) {
        (*out)->grad = *grad;
        (*out)->needs_grad = true;
    }
    return MB_OK;
}

mb_status mb_tape_columns(mb_tape *t, mb_var *x, int64_t from, int64_t n, mb_var **out)
{
    mb_var *base = x->base != NULL ? x->base : x;

    MB_TRY(new_var(t, out));
    (*out)->value = mb_tensor_columns(&x->value, from, n);
    (*out)->buffer = x->buffer;
    (*out)->needs_grad = x->needs_grad;
    (*out)->base = base;
    (*out)->column = (x->base != NULL ? x->column : 0) + from;
    return MB_OK;
}

/* ---- recording ---------------------------------------------------------------------------- */

static bool wants_grad(const mb_call *c)
{
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i] != NULL && c->in[i]->needs_grad)
            return true;
    return false;
}

static void touch_forward(mb_tape *t, const mb_call *c)
{
    for (int i = 0; i < c->n_in; i++)
        touch_value(t, c->in[i]);
    for (int i = 0; i < c->n_out; i++)
        touch_value(t, c->out[i]);
    for (int i = 0; i < c->n_saved; i++)
        touch(t, c->saved_buffer[i]);
}

static void count_slots(mb_call *c)
{
    c->n_in = c->n_out = 0;
    for (int i = 0; i < MB_OP_IN; i++)
        if (c->in[i] != NULL)
            c->n_in = i + 1;
    for (int i = 0; i < MB_OP_OUT; i++)
        if (c->out[i] != NULL)
            c->n_out = i + 1;
}

static mb_status record(mb_tape *t, const mb_call *c)
{
    MB_TRY(mb_grow((void **)&t->call, &t->calls_capacity, t->n_calls + 1, sizeof *t->call,
                   "the tape's calls"));
    t->call[t->n_calls++] = *c;
    if (t->n_calls > t->calls_peak)
        t->calls_peak = t->n_calls;
    if (c->op->remake != NULL)
        c->out[c->op->again]->maker = (int)t->n_calls - 1;
    return MB_OK;
}

mb_status mb_tape_apply(mb_tape *t, mb_call *c)
{
    count_slots(c);
    const bool keep = t->recording && wants_grad(c);
    for (int i = 0; keep && i < c->n_out; i++)
        if (c->out[i] != NULL)
            c->out[i]->needs_grad = true;
    MB_TRY(c->op->forward(t, c));
    touch_forward(t, c);
    t->now++;
    return keep && c->op->backward != NULL ? record(t, c) : MB_OK;
}

/* ---- gradients ---------------------------------------------------------------------------- */

/* A view's gradient is the same columns of its base's gradient, which starts as zeros because its
 * other columns may arrive later or never. */
static mb_status view_grad(mb_tape *t, mb_var *v)
{
    mb_tensor *whole;
    bool acc;

    MB_TRY(mb_tape_grad(t, v->base, &whole, &acc));
    if (!acc)
        MB_TRY(MB_RUN(t->ex, fill, whole, 0.0f));
    v->grad = mb_tensor_columns(whole, v->column, mb_cols(&v->value));
    v->grad_buffer = v->base->grad_buffer;
    return MB_OK;
}

mb_status mb_tape_grad(mb_tape *t, mb_var *v, mb_tensor **grad, bool *acc)
{
    *grad = &v->grad;
    *acc = true;
    if (v->base != NULL) {
        MB_TRY(view_grad(t, v));
    } else if (v->unit >= 0 && t->held != NULL) {
        MB_TRY(ask_for_unit(t, v->unit));
    } else if (v->grad.data == NULL) {
        *acc = false;
        MB_TRY(tensor_in_buffer(t, v->value.dtype, v->value.ndim, v->value.dim, &v->grad_buffer,
                                &v->grad));
    }
    touch(t, v->grad_buffer);
    return MB_OK;
}

mb_status mb_tape_seed(mb_tape *t, mb_var *v, float value, const mb_tensor *grad)
{
    mb_tensor *g;
    bool acc;

    MB_TRY(mb_tape_grad(t, v, &g, &acc));
    if (grad != NULL)
        return MB_RUN(t->ex, copy, g, grad);
    return MB_RUN(t->ex, fill, g, value);
}

/* Looks up, in a view's base, whether its gradient has arrived. */
static mb_tensor *arrived(mb_var *v)
{
    if (v == NULL)
        return NULL;
    if (v->base != NULL && v->base->grad.data != NULL && v->grad.data == NULL)
        v->grad = mb_tensor_columns(&v->base->grad, v->column, mb_cols(&v->value));
    return v->grad.data != NULL ? &v->grad : NULL;
}

static void touch_backward(mb_tape *t, const mb_call *c)
{
    for (int i = 0; i < c->n_in; i++) {
        if (c->needs_in >> i & 1)
            touch_value(t, c->in[i]);
        if (c->d_in[i] != NULL)
            touch(t, c->in[i]->grad_buffer);
    }
    for (int i = 0; i < c->n_out; i++) {
        if (c->needs_out >> i & 1)
            touch_value(t, c->out[i]);
        if (c->d_out[i] != NULL)
            touch(t,
                  c->out[i]->base != NULL ? c->out[i]->base->grad_buffer : c->out[i]->grad_buffer);
    }
    for (int i = 0; i < c->n_saved; i++)
        touch(t, c->saved_buffer[i]);
}

static mb_status remake(mb_tape *t, mb_var *v);

/* The values a call's backward, or the making again of its output, reads are there. */
static mb_status remake_needed(mb_tape *t, const mb_call *c)
{
    for (int i = 0; i < c->n_in; i++)
        if (c->needs_in >> i & 1 && c->in[i] != NULL)
            MB_TRY(remake(t, c->in[i]));
    for (int i = 0; i < c->n_out; i++)
        if (c->needs_out >> i & 1 && c->out[i] != NULL)
            MB_TRY(remake(t, c->out[i]));
    return MB_OK;
}

/* v gets a new buffer; the old one has been given up after the forward. */
static mb_status remake(mb_tape *t, mb_var *v)
{
    if (v->maker < 0)
        return MB_OK;
    mb_call *c = &t->call[v->maker];
    v->maker = -1;
    MB_TRY(remake_needed(t, c));
    MB_TRY(tensor_in_buffer(t, v->value.dtype, v->value.ndim, v->value.dim, &v->buffer, &v->value));
    MB_TRY(c->op->remake(t, c));
    touch_backward(t, c);
    return MB_OK;
}

static const mb_op layer_op, edge_op;

static mb_status call_backward(mb_tape *t, mb_call *c)
{
    if (c->op == &edge_op)
        return c->op->backward(t, c);
    /* A layer's input gets its gradient from the calls inside the layer. */
    const int n_in = c->op == &layer_op ? 0 : c->n_in;
    bool any = false;

    for (int i = 0; i < c->n_out; i++) {
        c->d_out[i] = arrived(c->out[i]);
        any = any || c->d_out[i] != NULL;
    }
    if (!any)
        return MB_OK; /* nothing downstream used it */
    for (int i = 0; i < n_in; i++) {
        c->d_in[i] = NULL;
        if (c->in[i] != NULL && c->in[i]->needs_grad)
            MB_TRY(mb_tape_grad(t, c->in[i], &c->d_in[i], &c->acc[i]));
    }
    if (c->op != &layer_op)
        MB_TRY(remake_needed(t, c));
    MB_TRY(c->op->backward(t, c));
    touch_backward(t, c);
    t->now++;
    return MB_OK;
}

/* Calls from the last down to number `down_to`. A layer's backward records more calls above and
 * takes them off again, so the call is copied out of the array first. */
static mb_status backward_to(mb_tape *t, size_t down_to)
{
    while (t->n_calls > down_to) {
        mb_call c = t->call[--t->n_calls];

        MB_TRY(call_backward(t, &c));
    }
    return MB_OK;
}

mb_status mb_tape_backward(mb_tape *t)
{
    MB_REQUIRE(t->mode == MB_TAPE_TRAIN, MB_EBUG, "backward of a tape that records nothing");
    t->recording = false;
    MB_TRY(backward_to(t, 0));
    return ask_for_all(t);
}

/* ---- layers ------------------------------------------------------------------------------- */

void mb_tape_on_edges(mb_tape *t, mb_layer_edge_fn fn, void *ctx)
{
    t->edge = fn;
    t->edge_ctx = ctx;
}

static mb_status edge(mb_tape *t, int64_t layer, mb_layer_edge e)
{
    if (e == MB_BACKWARD_END && t->held != NULL) /* complete, though none may have been asked for */
        MB_TRY(ask_for_unit(t, (int)layer + 1));
    return t->edge != NULL && !t->ex->planning ? t->edge(t->edge_ctx, layer, e) : MB_OK;
}

/* An edge that the backward passes: recorded among the calls, computing nothing. */
struct edge_attr {
    int64_t layer;
    mb_layer_edge edge;
};

static mb_status edge_backward(mb_tape *t, mb_call *c)
{
    const struct edge_attr *a = c->attr;

    return edge(t, a->layer, a->edge);
}

static const mb_op edge_op = {.name = "edge", .backward = edge_backward};

static mb_status record_edge(mb_tape *t, int64_t layer, mb_layer_edge e)
{
    const struct edge_attr a = {.layer = layer, .edge = e};
    mb_call c = {.op = &edge_op};

    if (!t->recording)
        return MB_OK;
    MB_TRY(mb_tape_attr(t, &a, sizeof a, &c.attr));
    return record(t, &c);
}

struct layer_attr {
    mb_layer_fn fn;
    const void *arg;
    int64_t layer;
};

static mb_status layer_forward(mb_tape *t, mb_call *c)
{
    (void)t, (void)c;
    return MB_OK; /* mb_tape_layer has already run it */
}

static mb_status layer_backward(mb_tape *t, mb_call *c)
{
    const struct layer_attr *a = c->attr;
    const size_t from = t->n_calls;
    mb_var *y;

    MB_TRY(edge(t, a->layer, MB_BACKWARD_BEGIN));
    t->recording = true;
    MB_TRY(a->fn(t, a->arg, a->layer, c->in[0], &y));
    t->recording = false;
    y->grad = c->out[0]->grad;
    y->grad_buffer = c->out[0]->grad_buffer;
    MB_TRY(backward_to(t, from));
    return edge(t, a->layer, MB_BACKWARD_END);
}

static const mb_op layer_op = {
    .name = "layer", .forward = layer_forward, .backward = layer_backward};

mb_status mb_tape_layer(mb_tape *t, mb_layer_fn fn, const void *arg, int64_t layer, mb_var *x,
                        mb_var **y)
{
    const struct layer_attr a = {.fn = fn, .arg = arg, .layer = layer};
    mb_call c = {.op = &layer_op, .in = {x}, .needs_in = 1};

    MB_TRY(edge(t, layer, MB_FORWARD_BEGIN));
    if (!t->recording || !t->recompute) {
        MB_TRY(record_edge(t, layer, MB_BACKWARD_END));
        MB_TRY(fn(t, arg, layer, x, y));
        (*y)->maker = -1;
        MB_TRY(record_edge(t, layer, MB_BACKWARD_BEGIN));
        return edge(t, layer, MB_FORWARD_END);
    }
    t->recording = false;
    MB_TRY(fn(t, arg, layer, x, y));
    t->recording = true;
    MB_TRY(edge(t, layer, MB_FORWARD_END));
    c.out[0] = *y;
    (*y)->needs_grad = true;
    MB_TRY(mb_tape_attr(t, &a, sizeof a, &c.attr));
    count_slots(&c);
    return record(t, &c);
}

/* ---- planning ----------------------------------------------------------------------------- */

struct placed {
    int id;
    size_t bytes, offset;
    int first, last;
};

/* What is to be placed, and what is, in order of offsets. */
struct places {
    struct placed *p, **at, *held;
    size_t n, n_held, peak;
};

static int larger_first(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;

    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* The smallest gap that holds p among the already placed buffers alive at the same time, which come
 * in order of their offsets. */
static size_t find_gap(const struct placed *p, struct placed *const *at, size_t n)
{
    size_t best = SIZE_MAX, best_size = SIZE_MAX, end = 0;

    for (size_t i = 0; i < n; i++) {
        if (at[i]->first > p->last || p->first > at[i]->last)
            continue;
        if (at[i]->offset > end && at[i]->offset - end >= p->bytes &&
            at[i]->offset - end < best_size) {
            best = end;
            best_size = at[i]->offset - end;
        }
        if (at[i]->offset + at[i]->bytes > end)
            end = at[i]->offset + at[i]->bytes;
    }
    return best != SIZE_MAX ? best : end;
}

static void put_at(struct places *s, struct placed *x, size_t placed)
{
    size_t k = placed;

    for (; k > 0 && s->at[k - 1]->offset > x->offset; k--)
        s->at[k] = s->at[k - 1];
    s->at[k] = x;
    if (x->offset + x->bytes > s->peak)
        s->peak = x->offset + x->bytes;
}

/* By themselves, or around what is held. Quadratic in the buffers of one step (a few thousand); runs
 * at most three times per shape class. */
static void place_all(struct places *s, bool around)
{
    const size_t n_held = around ? s->n_held : 0;

    s->peak = 0;
    for (size_t i = 0; i < n_held; i++)
        put_at(s, &s->held[i], i);
    for (size_t i = 0; i < s->n; i++) {
        s->p[i].offset = find_gap(&s->p[i], s->at, n_held + i);
        put_at(s, &s->p[i], n_held + i);
    }
}

/* Elements [from, to) of the held gradients; whole lines. */
static void hold(struct places *s, int64_t from, int64_t to, int first)
{
    const size_t begin = (size_t)from * sizeof(float) / 64 * 64,
                 end = ((size_t)to * sizeof(float) + 63) / 64 * 64;

    if (from < to)
        s->held[s->n_held++] =
            (struct placed){.bytes = end - begin, .offset = begin, .first = first, .last = INT_MAX};
}

static mb_status list_held(const mb_tape *t, struct places *s)
{
    const mb_flat *f = t->held;

    MB_TRY(MB_NEW_ARRAY(&s->held, (size_t)f->n_units * MB_FLAT_RANGES + 1));
    for (int u = 0; u < f->n_units; u++)
        for (int i = 0; i < f->unit[u].n_ranges; i++)
            hold(s, f->unit[u].range[i].from, f->unit[u].range[i].to, t->asked[u]);
    hold(s, held_by_segments(f), f->count, t->now);
    return MB_OK;
}

static mb_status list_buffers(mb_tape *t, struct places *s)
{
    s->n = t->n_buffers;
    MB_TRY(MB_NEW_ARRAY(&s->p, s->n + 1));
    for (int i = 0; i < t->n_samples; i++) {
        mb_tape_keep(t, t->sample[i]);
        if (t->sample[i]->grad_buffer >= 0)
            t->buffer[t->sample[i]->grad_buffer].last = INT_MAX;
    }
    for (size_t i = 0; i < s->n; i++)
        s->p[i] = (struct placed){.id = (int)i,
                                  .bytes = (t->buffer[i].bytes + 63) / 64 * 64,
                                  .first = t->buffer[i].first,
                                  .last = t->buffer[i].last};
    qsort(s->p, s->n, sizeof *s->p, larger_first);
    return MB_OK;
}

/* Around the held gradients, or all behind them where that takes less; `alone`: the peak without. */
static void place_around(struct places *s, size_t gradients, size_t alone)
{
    place_all(s, true);
    if (s->peak <= alone + gradients)
        return;
    place_all(s, false);
    for (size_t i = 0; i < s->n; i++)
        s->p[i].offset += gradients;
    s->peak += gradients;
}

mb_status mb_tape_make_plan(mb_tape *t, mb_tape_plan *out)
{
    const bool holds = t->held != NULL && t->mode == MB_TAPE_TRAIN;
    mb_tape_plan plan = {.n_buffers = (int)t->n_buffers};
    struct places s = {0};
    mb_status st = MB_OK;

    MB_TRY_GOTO(list_buffers(t, &s), st, done);
    if (holds)
        MB_TRY_GOTO(list_held(t, &s), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&s.at, s.n_held + s.n + 1), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&plan.offset, s.n + 1), st, done);
    MB_TRY_GOTO(MB_NEW_ARRAY(&plan.bytes, s.n + 1), st, done);
    place_all(&s, false);
    plan.without_gradients = s.peak;
    if (holds)
        place_around(&s, (size_t)t->held->count * sizeof(float), plan.without_gradients);
    plan.peak = s.peak;
    if (plan.peak < plan.without_gradients) /* best fit is not always best */
        plan.without_gradients = plan.peak;
    for (size_t i = 0; i < s.n; i++) {
        plan.offset[s.p[i].id] = s.p[i].offset;
        plan.bytes[s.p[i].id] = s.p[i].bytes;
    }
    *out = plan;
done:
    if (st != MB_OK)
        mb_tape_plan_release(&plan);
    mb_free(s.p);
    mb_free(s.held);
    mb_free(s.at);
    return st;
}

void mb_tape_plan_release(mb_tape_plan *p)
{
    mb_free(p->offset);
    mb_free(p->bytes);
    *p = (mb_tape_plan){0};
}

/* ---- samples ------------------------------------------------------------------------------ */

mb_status mb_sample_var(mb_tape *t, int64_t rows, int64_t cols, mb_var **out)
{
    const uint64_t key = mb_rng_key(7, MB_SITE_INIT, (uint64_t)t->n_samples);
    const int64_t dim[2] = {rows, cols};

    MB_REQUIRE(t->n_samples < SAMPLES_MAX, MB_EBUG, "more than %d sample inputs", SAMPLES_MAX);
    MB_TRY(mb_tape_value(t, MB_DTYPE_F32, rows > 0 ? 2 : 1, rows > 0 ? dim : dim + 1, out));
    (*out)->needs_grad = true;
    const int64_t n = mb_tensor_count(&(*out)->value);
    for (int64_t i = 0; !t->ex->planning && i < n; i++) {
        const double x = mb_rng_normal(key, (uint64_t)i);
        /* away from 0, where some functions have a kink */
        mb_f32(&(*out)->value)[i] = (float)(x < 0.0 ? x - 0.1 : x + 0.1);
    }
    if (!t->ex->planning && t->n_samples == t->nudge_input)
        mb_f32(&(*out)->value)[t->nudge_at] += t->nudge_by;
    t->sample[t->n_samples++] = *out;
    return MB_OK;
}

void mb_sample_nudge(mb_tape *t, int input, int64_t at, float by)
{
    t->nudge_input = input;
    t->nudge_at = at;
    t->nudge_by = by;
}

int mb_sample_count(const mb_tape *t)
{
    return t->n_samples;
}

float mb_sample_projection(int64_t i)
{
    return (float)mb_rng_normal(mb_rng_key(11, MB_SITE_INIT, 0), (uint64_t)i);
}

mb_var *mb_sample_get(const mb_tape *t, int i)
{
    return t->sample[i];
}
