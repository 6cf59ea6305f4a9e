/* dist/shard.c - see dist/shard.h. */
#include "dist/shard.h"

#include <string.h>

#include "core/alloc.h"

enum { OUTER = 0, NOBODY = -1 }; /* units; layer l is unit 1 + l */

struct mb_shard {
    mb_comm *comm;
    mb_exec *ex;
    mb_flat *flat;
    int64_t *bounds, *at; /* size + 1: owners; of the range at hand */
    void *work;
    size_t work_bytes;
    bool windows_params, windows_grads; /* stage 3; stages 2 and 3 */
    bool overlap, lazy;                 /* behind the computing: stage 1; stages 1 and 2 */
    bool *here;                         /* units: parameters are gathered (or under way) */
    int in_window[MB_FLAT_WINDOWS];     /* unit whose parameters are in it */
    int reducing[MB_FLAT_WINDOWS];      /* unit whose reduction is under way in it */
    mb_shard_exact exact;
    bool last, *reduced; /* units: this step's reduction is queued */
};

mb_status mb_shard_new(mb_comm *comm, mb_exec *ex, mb_flat *flat, bool behind, void *work,
                       size_t work_bytes, mb_shard **out)
{
    mb_shard *s = NULL;
    mb_status st = MB_OK;

    MB_TRY(MB_NEW(&s));
    *s = (mb_shard){.comm = comm,
                    .ex = ex,
                    .flat = flat,
                    .work = work,
                    .work_bytes = work_bytes,
                    .windows_params = flat->stage == 3,
                    .windows_grads = flat->stage >= 2,
                    .lazy = (flat->stage == 1 || flat->stage == 2) && behind &&
                            mb_comm_queues(comm) && flat->n_units > 0};
    s->overlap = s->lazy && flat->stage == 1;
    MB_TRY_GOTO(MB_NEW_ARRAY(&s->bounds, comm->size + 1), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&s->at, comm->size + 1), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&s->here, flat->n_units + 1), st, fail);
    MB_TRY_GOTO(MB_NEW_ARRAY(&s->reduced, flat->n_units + 1), st, fail);
    mb_flat_bounds(flat, comm->size, s->bounds);
    for (int w = 0; w < MB_FLAT_WINDOWS; w++)
        s->in_window[w] = s->reducing[w] = NOBODY;
    for (int u = 0; u < flat->n_units; u++)
        s->here[u] = !s->windows_params; /* loaded alike everywhere */
    *out = s;
    return MB_OK;
fail:
    mb_shard_free(s);
    return st;
}

void mb_shard_free(mb_shard *s)
{
    if (s == NULL)
        return;
    mb_free(s->bounds);
    mb_free(s->at);
    mb_free(s->here);
    mb_free(s->reduced);
    mb_free(s);
}

bool mb_shard_moves_gradients(const mb_shard *s)
{
    return s->windows_grads || s->overlap;
}

bool mb_shard_moves_parameters(const mb_shard *s)
{
    return s->windows_params || s->lazy;
}

/* ---- ranges ------------------------------------------------------------------------------- */

static int64_t clamp(int64_t x, int64_t from, int64_t to)
{
    return x < from ? from : x > to ? to : x;
}

/* s->at: where the owners' parts of [from, to) start, counted from `from`. */
static const int64_t *owners(mb_shard *s, int64_t from, int64_t to)
{
    for (int r = 0; r <= s->comm->size; r++)
        s->at[r] = clamp(s->bounds[r], from, to) - from;
    return s->at;
}

/* The own part of range i of unit u: elements [*from, *to) of the flat order. */
static bool own_part(const mb_shard *s, const mb_flat_unit *u, int i, int64_t *from, int64_t *to)
{
    *from = clamp(s->flat->own_from, u->range[i].from, u->range[i].to);
    *to = clamp(s->flat->own_to, u->range[i].from, u->range[i].to);
    return *from < *to;
}

static mb_status fill(mb_shard *s, float *at, int64_t n)
{
    mb_tensor t = mb_tensor_1d(at, MB_DTYPE_F32, n);

    return n > 0 ? MB_RUN(s->ex, fill, &t, 0.0f) : MB_OK;
}

/* ---- parameters --------------------------------------------------------------------------- */

/* The own parts of a unit into its window. */
static mb_status place_own(mb_shard *s, const mb_flat_unit *u, void *window)
{
    const mb_dtype d = s->flat->dtype;

    for (int i = 0; i < u->n_ranges; i++) {
        int64_t from, to;
        if (!own_part(s, u, i, &from, &to))
            continue;
        const mb_tensor own =
            mb_tensor_1d(s->flat->own_param + (from - s->flat->own_from), MB_DTYPE_F32, to - from);
        const int64_t at = u->range[i].at + (from - u->range[i].from);
        mb_tensor place = mb_tensor_1d(mb_element(window, d, at), d, to - from);
        MB_TRY(d == MB_DTYPE_F32    ? MB_RUN(s->ex, copy, &place, &own)
               : d == MB_DTYPE_BF16 ? MB_RUN(s->ex, split_bf16, &place, NULL, &own)
                                    : MB_RUN(s->ex, cast, &place, &own));
    }
    return MB_OK;
}

/* Starts gathering a unit's parameters, unless they are there or under way. */
static mb_status gather(mb_shard *s, int unit)
{
    const mb_flat_unit *u = &s->flat->unit[unit];
    const int w = mb_flat_window_of(unit);

    if (s->here[unit])
        return MB_OK;
    if (s->windows_params) {
        if (s->in_window[w] != NOBODY)
            s->here[s->in_window[w]] = false;
        s->in_window[w] = unit;
        MB_TRY(place_own(s, u, s->flat->param_window[w]));
    }
    s->here[unit] = true;
    MB_TRY(mb_comm_after(s->comm, MB_STREAM_COMPUTE));
    MB_TRY(mb_comm_group_begin(s->comm));
    for (int i = 0; i < u->n_ranges; i++) {
        const mb_dtype d = s->flat->dtype;
        void *buf = s->windows_params ? mb_element(s->flat->param_window[w], d, u->range[i].at)
                                      : mb_element(mb_flat_values(s->flat), d, u->range[i].from);
        const int64_t *at = owners(s, u->range[i].from, u->range[i].to);
        MB_TRY(s->comm->ops->all_gather(s->comm, buf, at, d));
    }
    return mb_comm_group_end(s->comm);
}

/* A layer's parameters before it computes; those of the one that follows are on their way. */
static mb_status enter(mb_shard *s, int unit, int next)
{
    const bool waits = !s->here[unit];

    if (!s->windows_params && !s->lazy)
        return MB_OK;
    MB_TRY(gather(s, unit));
    if (waits || unit != OUTER)
        MB_TRY(mb_comm_before(s->comm, MB_STREAM_COMPUTE));
    return next != NOBODY ? gather(s, next) : MB_OK;
}

void mb_shard_changed(mb_shard *s)
{
    for (int u = 0; u < s->flat->n_units; u++)
        s->here[u] = !s->windows_params && !s->lazy;
    for (int w = 0; w < MB_FLAT_WINDOWS; w++)
        s->in_window[w] = NOBODY;
}

mb_status mb_shard_settle(mb_shard *s)
{
    for (int u = 0; u < s->flat->n_units && !s->windows_params; u++)
        MB_TRY(gather(s, u));
    MB_TRY(mb_comm_before(s->comm, MB_STREAM_COMPUTE));
    return mb_comm_wait(s->comm, MB_STREAM_COMPUTE);
}

/* ---- gradients ---------------------------------------------------------------------------- */

/* Sums whose reduction in window w has been waited for go to the own range. */
static mb_status take_in(mb_shard *s, int w)
{
    const mb_flat *f = s->flat;
    const mb_flat_unit *u = s->reducing[w] == NOBODY ? NULL : &f->unit[s->reducing[w]];

    s->reducing[w] = NOBODY;
    for (int i = 0; u != NULL && i < u->n_ranges; i++) {
        int64_t from, to;
        if (!own_part(s, u, i, &from, &to))
            continue;
        const int64_t n = to - from, own = from - f->own_from,
                      at = u->range[i].at + (from - u->range[i].from);
        if (f->is_exact) {
            mb_tensor sum = mb_tensor_1d(f->own_exact + own, MB_DTYPE_I64, n);
            const mb_tensor more = mb_tensor_1d(f->exact_window[w] + at, MB_DTYPE_I64, n);
            MB_TRY(MB_RUN(s->ex, exact_merge, &sum, &more));
        } else {
            mb_tensor sum = mb_tensor_1d(f->own_grad + own, MB_DTYPE_F32, n);
            const mb_tensor more = mb_tensor_1d(f->grad_window[w] + at, MB_DTYPE_F32, n);
            MB_TRY(MB_RUN(s->ex, axpy, &sum, 1.0f, &more));
        }
    }
    return MB_OK;
}

static mb_status count_exactly(mb_shard *s, int64_t *sums, float *grad, int64_t n)
{
    mb_tensor acc = mb_tensor_1d(sums, MB_DTYPE_I64, n);
    mb_tensor g = mb_tensor_1d(grad, MB_DTYPE_F32, n);

    return n > 0
               ? MB_RUN(s->ex, exact_add, &acc, &g, s->exact.shift, s->exact.limit, &s->exact.seen)
               : MB_OK;
}

/* The unit's gradients of this micro-batch are complete: into units of the exact sums. */
static mb_status settle_unit(mb_shard *s, int unit)
{
    const mb_flat *f = s->flat;
    const mb_flat_unit *u = &f->unit[unit];
    const int w = mb_flat_window_of(unit);

    if (!f->is_exact)
        return MB_OK;
    if (s->windows_grads)
        return count_exactly(s, f->exact_window[w], f->grad_window[w], u->count);
    for (int i = 0; i < u->n_ranges; i++)
        MB_TRY(count_exactly(s, f->exact + u->range[i].from, f->grad + u->range[i].from,
                             u->range[i].to - u->range[i].from));
    return MB_OK;
}

static mb_status reduce_range(mb_shard *s, const mb_flat_unit *u, int i, int w)
{
    const mb_flat *f = s->flat;
    const int64_t from = u->range[i].from, at = u->range[i].at;
    const mb_dtype d = f->is_exact ? MB_DTYPE_I64 : MB_DTYPE_F32;
    void *buf =
        f->is_exact
            ? (s->windows_grads ? (void *)(f->exact_window[w] + at) : (void *)(f->exact + from))
            : (s->windows_grads ? (void *)(f->grad_window[w] + at) : (void *)(f->grad + from));

    return s->comm->ops->reduce_scatter(s->comm, buf, owners(s, from, u->range[i].to), d, s->work,
                                        s->work_bytes);
}

/* Starts reducing a unit. */
static mb_status reduce(mb_shard *s, int unit)
{
    const mb_flat_unit *u = &s->flat->unit[unit];
    const int w = mb_flat_window_of(unit);

    MB_TRY(mb_comm_after(s->comm, MB_STREAM_COMPUTE));
    MB_TRY(mb_comm_group_begin(s->comm));
    for (int i = 0; i < u->n_ranges; i++)
        MB_TRY(reduce_range(s, u, i, w));
    MB_TRY(mb_comm_group_end(s->comm));
    s->reduced[unit] = true;
    if (s->windows_grads)
        s->reducing[w] = unit;
    return MB_OK;
}

/* A window's gradients and sums start from zero. */
static mb_status clear_window(mb_shard *s, int unit)
{
    const int w = mb_flat_window_of(unit);
    const int64_t n = s->flat->unit[unit].count;

    MB_TRY(fill(s, s->flat->grad_window[w], n));
    return s->flat->is_exact ? fill(s, (float *)s->flat->exact_window[w], 2 * n) : MB_OK;
}

/* Backward leaves a unit. What is waited for here was queued a layer ago. */
static mb_status leave(mb_shard *s, int unit)
{
    if (!mb_shard_moves_gradients(s)) /* mb_zero_micro takes them, whole */
        return MB_OK;
    MB_TRY(settle_unit(s, unit));
    if (s->overlap)
        return s->last ? reduce(s, unit) : MB_OK;
    MB_TRY(mb_comm_before(s->comm, MB_STREAM_COMPUTE));
    for (int w = 0; w < MB_FLAT_WINDOWS; w++)
        MB_TRY(take_in(s, w));
    return reduce(s, unit);
}

/* ---- edges -------------------------------------------------------------------------------- */

mb_status mb_shard_edge(void *ctx, int64_t layer, mb_layer_edge edge)
{
    mb_shard *s = ctx;
    const int unit = (int)layer + 1, most = s->flat->n_units - 1;

    switch (edge) {
    case MB_FORWARD_BEGIN:
        return enter(s, unit, unit < most ? unit + 1 : NOBODY);
    case MB_FORWARD_END:
        return MB_OK;
    case MB_BACKWARD_BEGIN:
        if (s->windows_params)
            MB_TRY(enter(s, unit, unit > 1 ? unit - 1 : NOBODY));
        return s->windows_grads ? clear_window(s, unit) : MB_OK;
    case MB_BACKWARD_END:
        return leave(s, unit);
    }
    return MB_OK;
}

mb_status mb_shard_begin(mb_shard *s, const mb_shard_exact *exact, bool last)
{
    if (exact != NULL)
        s->exact = *exact;
    s->last = last;
    if (s->windows_grads)
        MB_TRY(clear_window(s, OUTER));
    return enter(s, OUTER, NOBODY);
}

mb_status mb_shard_end(mb_shard *s)
{
    MB_TRY(leave(s, OUTER));
    if (!s->windows_grads)
        return MB_OK;
    MB_TRY(mb_comm_before(s->comm, MB_STREAM_COMPUTE));
    return take_in(s, mb_flat_window_of(OUTER));
}

mb_status mb_shard_look(mb_shard *s, bool idle)
{
    MB_TRY(enter(s, OUTER, NOBODY));
    for (int64_t l = 0; idle && l < s->flat->n_units - 1; l++)
        MB_TRY(mb_shard_edge(s, l, MB_FORWARD_BEGIN));
    return MB_OK;
}

mb_status mb_shard_idle(mb_shard *s, const mb_shard_exact *exact)
{
    MB_TRY(mb_shard_begin(s, exact, false));
    for (int64_t l = 0; l < s->flat->n_units - 1; l++)
        MB_TRY(mb_shard_edge(s, l, MB_FORWARD_BEGIN));
    for (int64_t l = s->flat->n_units - 2; l >= 0; l--) {
        MB_TRY(mb_shard_edge(s, l, MB_BACKWARD_BEGIN));
        MB_TRY(mb_shard_edge(s, l, MB_BACKWARD_END));
    }
    return mb_shard_end(s);
}

mb_status mb_shard_reduced(mb_shard *s)
{
    if (s->overlap) { /* what a rank without a micro-batch has not queued yet, in the same order */
        MB_TRY(mb_shard_settle(s));
        for (int u = s->flat->n_units - 1; u >= 0; u--)
            if (!s->reduced[u])
                MB_TRY(reduce(s, u));
    }
    memset(s->reduced, 0, (size_t)s->flat->n_units * sizeof *s->reduced);
    return mb_comm_before(s->comm, MB_STREAM_COMPUTE);
}

/* ---- bytes -------------------------------------------------------------------------------- */

/* Elements of a unit that rank r owns. */
static int64_t owned(const mb_shard *s, const mb_flat_unit *u, int r)
{
    int64_t n = 0;

    for (int i = 0; i < u->n_ranges; i++)
        n += clamp(s->bounds[r + 1], u->range[i].from, u->range[i].to) -
             clamp(s->bounds[r], u->range[i].from, u->range[i].to);
    return n;
}

/* How often a layer's parameters are gathered in `rounds` rounds: twice each, but the two layers that
 * a forward or backward ends with are still in their windows when the next begins there. */
static int64_t gatherings(const mb_shard *s, int unit, int64_t rounds)
{
    const int layers = s->flat->n_units - 1;

    if (!s->windows_params)
        return s->lazy;
    if (unit == OUTER || layers <= 2)
        return rounds > 0;
    const bool ends_forward = unit > layers - 2, ends_backward = unit <= 2;
    return 2 * rounds - (ends_forward ? rounds : 0) - (ends_backward ? rounds - 1 : 0);
}

int64_t mb_shard_round_bytes(const mb_shard *s, int64_t rounds)
{
    const int rank = s->comm->rank, right = (rank + 1) % s->comm->size;
    const int64_t el = mb_dtype_bytes(s->flat->is_exact ? MB_DTYPE_I64 : s->comm->wire, 1);
    const int64_t value = mb_dtype_bytes(s->flat->dtype, 1);
    int64_t bytes = 0;

    for (int n = 0; n < s->flat->n_units && s->comm->size > 1; n++) {
        const mb_flat_unit *u = &s->flat->unit[n];
        if (s->windows_grads)
            bytes += rounds * el * (u->count - owned(s, u, rank));
        if (s->overlap)
            bytes += el * (u->count - owned(s, u, rank));
        bytes += gatherings(s, n, rounds) * value * (u->count - owned(s, u, right));
    }
    return bytes;
}
