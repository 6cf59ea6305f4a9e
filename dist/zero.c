/* dist/zero.c - see dist/zero.h. */
#include "dist/zero.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/profile.h"
#include "dist/comm_mpi.h"

/* What the exact path notes of each micro-batch, in front of the caller's metrics. */
enum { NOT_FINITE, TOO_LARGE, MAX_ABS, N_NOTES };
enum { SCALE_START = 65536, SCALE_MOST = 1 << 24, SCALE_GROWS_AFTER = 2000 };
enum { SHIFT_START = 36, SHIFT_TARGET = 40, SUM_BITS = 62 };
enum { PIECE = 1 << 20 }; /* parameters that go to rank 0 at once */

struct mb_zero {
    mb_mesh mesh;
    mb_comm *comm; /* dp_inner: those who share parameters */
    mb_exec *ex;
    mb_flat *flat;
    const mb_optim_kind *kind;
    mb_optim_hyper hyper;
    mb_zero_options o;
    int64_t *bounds; /* size + 1, elements */
    int64_t *grains; /* size + 1, grains */
    int64_t *saved;  /* copies + 1: what each saves of the own range, elements from its start */
    int64_t *bytes;  /* as many as the longer of bounds and saved: for gather_grains */
    int64_t state_from, state_count;
    mb_tensor state[MB_OPTIM_STATES_MAX]; /* state_count each */
    mb_arena *memory;                     /* of states, partial_there, seen, joined */
    float *joined;                        /* parts of parameters that are in halves */
    double *partial, *partial_there;      /* one per grain of the whole flat: host, device */
    float *seen, *seen_here; /* exact: max_micro times what exact_add saw: device, host */
    mb_shard *shard;
    void *work;
    size_t work_bytes;
    double *table;           /* votes, then (N_NOTES + n_metrics) per micro-batch */
    double *sum;             /* n_metrics */
    int64_t n_micro, rounds; /* of the step; of this rank so far */
    int shift;
    bool again; /* this is the repetition of a step */
    mb_zero_history history;
};

static int64_t columns(const mb_zero_options *o)
{
    return N_NOTES + o->n_metrics;
}

static double *row_of(const mb_zero *z, int64_t micro)
{
    return z->table + z->o.n_votes + micro * columns(&z->o);
}

/* The least e with 2^e >= x, x > 0. */
static int ceil_log2(double x)
{
    int e;

    return frexp(x, &e) == 0.5 ? e - 1 : e;
}

static int shift_for(double max_abs)
{
    return max_abs > 0 ? SHIFT_TARGET - ceil_log2(max_abs) : SHIFT_START;
}

/* Parameters in halves are updated a part at a time. */
static int64_t joined(const mb_flat *f)
{
    if (!mb_flat_in_halves(f))
        return 0;
    return f->count < MB_OPTIM_JOINED ? f->count : MB_OPTIM_JOINED;
}

size_t mb_zero_state_bytes(const mb_flat *flat, const mb_optim_kind *kind, int stage, int rank,
                           int size)
{
    const int64_t own = mb_flat_bound(flat, size, rank + 1) - mb_flat_bound(flat, size, rank);

    return mb_optim_state_bytes(kind, stage == 0 ? flat->count : own) +
           (size_t)joined(flat) * sizeof(float);
}

size_t mb_zero_work_bytes(const mb_comm *comm, const mb_flat *flat, const mb_zero_options *o)
{
    const int64_t el = flat->is_exact ? 8 : 4;

    return mb_comm_work_bytes(comm, flat->count * el) +
           sizeof(double) *
               (size_t)(2 * flat->count / MB_GRAIN + o->n_votes + o->max_micro * (columns(o) + 3));
}

/* Arrays that were made without a stage in mind are whole. */
static void own_ranges(mb_zero *z)
{
    mb_flat *f = z->flat;

    if (f->own_param != NULL || f->own_low != NULL)
        return;
    mb_flat_shard(f, z->o.stage, z->comm->rank, z->comm->size);
    f->is_exact = f->exact != NULL;
    f->own_param = f->param + f->own_from;
    f->own_grad = f->grad + f->own_from;
    f->own_exact = f->exact != NULL ? f->exact + f->own_from : NULL;
}

/* What lives where the gradients live: states, norm partials, what exact_add saw. */
static mb_status allocate_beside(mb_zero *z)
{
    const size_t states = mb_optim_state_bytes(z->kind, z->state_count),
                 partial = (size_t)(z->flat->count / MB_GRAIN + 1) * sizeof(double),
                 seen = 3 * (size_t)z->o.max_micro * sizeof(float),
                 parts = (size_t)joined(z->flat) * sizeof(float);
    void *p;

    MB_TRY(mb_device_arena(z->ex->device, "optimizer state", states + partial + seen + parts + 4096,
                           &z->memory));
    for (int i = 0; i < z->kind->n_states; i++) {
        const mb_dtype d = z->kind->dtype[i];
        MB_TRY(mb_arena_take(z->memory, (size_t)mb_dtype_bytes(d, z->state_count), &p));
        z->state[i] = mb_tensor_1d(p, d, z->state_count);
    }
    MB_TRY(mb_arena_take(z->memory, partial, &p));
    z->partial_there = p;
    MB_TRY(mb_arena_take(z->memory, seen, &p));
    z->seen = p;
    if (parts > 0) {
        MB_TRY(mb_arena_take(z->memory, parts, &p));
        z->joined = p;
    }
    return MB_OK;
}

static mb_status allocate(mb_zero *z)
{
    const int64_t el = z->flat->is_exact ? 8 : 4, n = z->flat->count;
    const int size = z->comm->size, rank = z->comm->rank, copies = z->mesh.dp_outer->size;

    MB_TRY(MB_NEW_ARRAY(&z->bounds, size + 1));
    MB_TRY(MB_NEW_ARRAY(&z->grains, size + 1));
    MB_TRY(MB_NEW_ARRAY(&z->saved, copies + 1));
    MB_TRY(MB_NEW_ARRAY(&z->bytes, (size > copies ? size : copies) + 1));
    mb_flat_bounds(z->flat, size, z->bounds);
    for (int r = 0; r <= size; r++)
        z->grains[r] = z->bounds[r] / MB_GRAIN;
    for (int c = 0; c <= copies; c++)
        z->saved[c] = mb_flat_bound(z->flat, size * copies, rank * copies + c) - z->bounds[rank];
    z->state_from = z->o.stage == 0 ? 0 : z->bounds[rank];
    z->state_count = z->o.stage == 0 ? n : z->bounds[rank + 1] - z->bounds[rank];
    MB_TRY(allocate_beside(z));
    MB_TRY(MB_NEW_ARRAY(&z->partial, n / MB_GRAIN + 1));
    MB_TRY(MB_NEW_ARRAY(&z->seen_here, 3 * z->o.max_micro));
    MB_TRY(MB_NEW_ARRAY(&z->table, z->o.n_votes + z->o.max_micro * columns(&z->o)));
    MB_TRY(MB_NEW_ARRAY(&z->sum, z->o.n_metrics));
    z->work_bytes = mb_comm_work_bytes(z->comm, n * el);
    MB_TRY(mb_alloc(z->work_bytes, "staging of the gradient reduction", &z->work));
    return mb_shard_new(z->comm, z->ex, z->flat, n * (int64_t)sizeof(float) >= z->o.behind_from,
                        z->work, z->work_bytes, &z->shard);
}

mb_status mb_zero_new(const mb_mesh *mesh, mb_exec *ex, mb_flat *flat, const mb_optim_kind *kind,
                      const mb_optim_hyper *hyper, const mb_zero_options *options, mb_zero **out)
{
    mb_zero *z = NULL;

    MB_REQUIRE(options->stage >= 0 && options->stage <= 3, MB_EARG,
               "zero_stage must be 0 to 3, not %d", options->stage);
    MB_REQUIRE(
        options->stage > 0 || flat->dtype == MB_DTYPE_F32, MB_ENOTSUP,
        "zero_stage 0 keeps all state on all ranks and computes in float32; use zero_stage 1");
    MB_REQUIRE(options->stage > 0 || mesh->dp_outer->size == 1, MB_EARG,
               "zero_stage 0 shares nothing that dp_shard_size could divide");
    MB_REQUIRE(options->stage < 2 || (flat->n_units > 0 && flat->stage == options->stage), MB_EBUG,
               "zero: stage %d of parameters laid out for stage %d", options->stage, flat->stage);
    MB_REQUIRE(options->n_metrics >= MB_ZERO_METRICS_MIN && options->n_votes >= 0 &&
                   options->max_micro > 0 && kind->n_states <= MB_OPTIM_STATES_MAX,
               MB_EBUG, "zero: %d metrics, %d votes, %lld micro-batches, %d states",
               options->n_metrics, options->n_votes, (long long)options->max_micro, kind->n_states);
    MB_TRY(MB_NEW(&z));
    z->mesh = *mesh;
    z->comm = mesh->dp_inner;
    z->ex = ex;
    z->flat = flat;
    z->kind = kind;
    z->hyper = *hyper;
    z->o = *options;
    own_ranges(z);
    mb_status st = allocate(z);
    if (st == MB_OK)
        st = mb_zero_begin(z, 1);
    if (st != MB_OK) {
        mb_zero_free(z);
        return st;
    }
    *out = z;
    return MB_OK;
}

void mb_zero_free(mb_zero *z)
{
    if (z == NULL)
        return;
    mb_shard_free(z->shard);
    mb_arena_free(z->memory);
    mb_free(z->seen_here);
    mb_free(z->bounds);
    mb_free(z->grains);
    mb_free(z->saved);
    mb_free(z->bytes);
    mb_free(z->partial);
    mb_free(z->table);
    mb_free(z->sum);
    mb_free(z->work);
    mb_free(z);
}

static mb_comm *host(const mb_zero *z)
{
    return mb_comm_host(z->comm);
}

mb_status mb_zero_begin(mb_zero *z, int64_t n_micro)
{
    mb_tensor seen = mb_tensor_1d(z->seen, MB_DTYPE_F32, 3 * z->o.max_micro);

    MB_ASSERT(n_micro > 0 && n_micro <= z->o.max_micro);
    z->n_micro = n_micro;
    z->rounds = 0;
    if (!z->again)
        z->shift = shift_for(z->history.max_abs);
    memset(z->table, 0, sizeof(double) * (size_t)(z->o.n_votes + z->o.max_micro * columns(&z->o)));
    return z->flat->is_exact ? MB_RUN(z->ex, fill, &seen, 0.0f) : MB_OK;
}

/* How exact_add counts; what it sees goes to place `index`. */
static mb_shard_exact exact_of(const mb_zero *z, int64_t index)
{
    return (mb_shard_exact){.shift = z->shift,
                            .limit = ldexp(1.0, SUM_BITS - ceil_log2((double)z->n_micro)),
                            .seen = mb_tensor_1d(z->seen + 3 * index, MB_DTYPE_F32, 3)};
}

mb_status mb_zero_enter(mb_zero *z, int64_t index, bool last)
{
    const mb_shard_exact e = exact_of(z, index);

    MB_ASSERT(index >= 0 && index < z->n_micro);
    z->rounds++;
    mb_profile_begin(z->ex->profile, MB_SPAN_PARAMETERS);
    MB_TRY(mb_shard_begin(z->shard, z->flat->is_exact ? &e : NULL, last));
    mb_profile_end(z->ex->profile, MB_SPAN_PARAMETERS);
    return MB_OK;
}

void mb_zero_note(mb_zero *z, int64_t index, const double *metric)
{
    MB_ASSERT(index >= 0 && index < z->n_micro);
    memcpy(row_of(z, index) + N_NOTES, metric, sizeof(double) * (size_t)z->o.n_metrics);
}

static mb_status count_exactly(mb_zero *z, int64_t index)
{
    mb_shard_exact e = exact_of(z, index);
    mb_tensor acc = mb_tensor_1d(z->flat->exact, MB_DTYPE_I64, z->flat->count);
    mb_tensor grad = mb_tensor_1d(z->flat->grad, MB_DTYPE_F32, z->flat->count);

    return MB_RUN(z->ex, exact_add, &acc, &grad, e.shift, e.limit, &e.seen);
}

mb_status mb_zero_micro(mb_zero *z, int64_t index)
{
    MB_ASSERT(index >= 0 && index < z->n_micro);
    mb_profile_begin(z->ex->profile, MB_SPAN_REDUCE);
    if (mb_shard_moves_gradients(z->shard))
        MB_TRY(mb_shard_end(z->shard));
    else if (z->flat->is_exact)
        MB_TRY(count_exactly(z, index));
    mb_profile_end(z->ex->profile, MB_SPAN_REDUCE);
    return MB_OK;
}

/* Rounds that this rank has no micro-batch for. */
static mb_status idle_rounds(mb_zero *z)
{
    const int64_t n = z->mesh.world->size, rounds = (z->n_micro + n - 1) / n;
    const mb_shard_exact e = exact_of(z, z->o.max_micro - 1); /* zeros show nothing there */

    for (; z->flat->stage >= 2 && z->rounds < rounds; z->rounds++)
        MB_TRY(mb_shard_idle(z->shard, z->flat->is_exact ? &e : NULL));
    return MB_OK;
}

/* What exact_add saw goes into the table, of this rank's micro-batches; the others' rows stay zero. */
static mb_status note_seen(mb_zero *z)
{
    const mb_tensor seen = mb_tensor_1d(z->seen, MB_DTYPE_F32, 3 * z->o.max_micro);

    if (!z->flat->is_exact)
        return MB_OK;
    MB_TRY(mb_device_read(z->ex->device, z->seen_here, &seen));
    for (int64_t m = 0; m < z->n_micro; m++) {
        const float *saw = z->seen_here + 3 * m;
        row_of(z, m)[MAX_ABS] = (double)saw[0];
        row_of(z, m)[NOT_FINITE] = saw[1] != 0.0f;
        row_of(z, m)[TOO_LARGE] = saw[2] != 0.0f;
    }
    return MB_OK;
}

/* What the reduced table says about the whole step. */
struct verdict {
    bool finite, fits;
    double max_abs;
};

static struct verdict judge(mb_zero *z, mb_zero_result *out)
{
    struct verdict v = {.finite = true, .fits = true};

    out->bad_micro = -1;
    memset(z->sum, 0, sizeof(double) * (size_t)z->o.n_metrics);
    for (int64_t m = 0; m < z->n_micro; m++) {
        const double *row = row_of(z, m);
        for (int i = 0; i < z->o.n_metrics; i++)
            z->sum[i] += row[N_NOTES + i];
        if (row[NOT_FINITE] != 0 || !isfinite(row[N_NOTES + MB_ZERO_LOSS])) {
            v.finite = false;
            if (out->bad_micro < 0)
                out->bad_micro = m;
        }
        v.fits = v.fits && row[TOO_LARGE] == 0;
        v.max_abs = row[MAX_ABS] > v.max_abs ? row[MAX_ABS] : v.max_abs;
    }
    return v;
}

static mb_status clear_sums(mb_zero *z)
{
    const mb_flat *f = z->flat;
    const bool whole = f->exact != NULL;
    mb_tensor sums = mb_tensor_1d(whole ? (float *)f->exact : (float *)f->own_exact, MB_DTYPE_F32,
                                  2 * (whole ? f->count : f->own_to - f->own_from));

    return f->is_exact && mb_tensor_count(&sums) > 0 ? MB_RUN(z->ex, fill, &sums, 0.0f) : MB_OK;
}

static mb_status clear_gradients(mb_zero *z)
{
    const mb_flat *f = z->flat;
    const bool whole = f->grad != NULL;
    mb_tensor grad = mb_tensor_1d(whole ? f->grad : f->own_grad, MB_DTYPE_F32,
                                  whole ? f->count : f->own_to - f->own_from);

    return mb_tensor_count(&grad) > 0 && !f->grad_in_step ? MB_RUN(z->ex, fill, &grad, 0.0f)
                                                          : MB_OK;
}

/* A collective over device memory between what computed its input and what uses its result. */
static mb_status reduce_all(mb_zero *z, void *buf, mb_dtype d)
{
    MB_TRY(mb_comm_after(z->comm, MB_STREAM_COMPUTE));
    MB_TRY(z->comm->ops->reduce_scatter(z->comm, buf, z->bounds, d, z->work, z->work_bytes));
    return mb_comm_before(z->comm, MB_STREAM_COMPUTE);
}

/* Sums of the own range over all copies. */
static mb_status reduce_copies(mb_zero *z)
{
    const mb_flat *f = z->flat;
    mb_comm *outer = z->mesh.dp_outer;
    void *own = f->is_exact ? (void *)f->own_exact : (void *)f->own_grad;

    if (outer->size == 1)
        return MB_OK;
    MB_TRY(mb_comm_after(outer, MB_STREAM_COMPUTE));
    MB_TRY(outer->ops->all_reduce(outer, own, f->own_to - f->own_from,
                                  f->is_exact ? MB_DTYPE_I64 : MB_DTYPE_F32, MB_SUM));
    return mb_comm_before(outer, MB_STREAM_COMPUTE);
}

/* Whole grains of all ranks of c, of a type that may have blocks: as bytes. */
static mb_status gather_grains(mb_zero *z, mb_comm *c, void *buf, const int64_t *at, mb_dtype d)
{
    for (int r = 0; r <= c->size; r++)
        z->bytes[r] = mb_dtype_bytes(d, at[r]);
    MB_TRY(mb_comm_after(c, MB_STREAM_COMPUTE));
    MB_TRY(c->ops->all_gather(c, buf, z->bytes, MB_DTYPE_U8));
    return mb_comm_before(c, MB_STREAM_COMPUTE);
}

/* What each copy has of the own range, in the order of mesh.parts, to all copies. */
static mb_status gather_copies(mb_zero *z, const mb_tensor *own)
{
    mb_comm *outer = z->mesh.dp_outer;

    return outer->size > 1 ? gather_grains(z, outer, own->data, z->saved, own->dtype) : MB_OK;
}

/* The own range of gradients becomes the sum over all micro-batches. */
static mb_status reduce(mb_zero *z)
{
    const mb_flat *f = z->flat;
    const int64_t n = f->own_to - f->own_from;

    if (!mb_shard_moves_gradients(z->shard))
        MB_TRY(f->is_exact ? reduce_all(z, f->exact, MB_DTYPE_I64)
                           : reduce_all(z, f->grad, MB_DTYPE_F32));
    MB_TRY(reduce_copies(z));
    if (!f->is_exact)
        return MB_OK;
    mb_tensor grad = mb_tensor_1d(f->own_grad, MB_DTYPE_F32, n);
    mb_tensor acc = mb_tensor_1d(f->own_exact, MB_DTYPE_I64, n);
    if (n > 0)
        MB_TRY(MB_RUN(z->ex, exact_take, &grad, &acc, ldexp(1.0, -z->shift)));
    return z->mesh.world->size > 1 ? clear_sums(z) : MB_OK;
}

/* The sum of all squared gradients: per grain by its owner, then over grains in their order. */
static mb_status sum_of_squares(mb_zero *z, double *out)
{
    const mb_flat *f = z->flat;
    const int64_t first = f->own_from / MB_GRAIN, n = f->own_to - f->own_from;
    const int64_t grains = f->count / MB_GRAIN;
    mb_tensor grad = mb_tensor_1d(f->own_grad, MB_DTYPE_F32, n);
    mb_tensor part = mb_tensor_1d(z->partial_there + first, MB_DTYPE_F64, n / MB_GRAIN);
    double total = 0;

    if (n > 0) {
        MB_TRY(MB_RUN(z->ex, grain_sumsq, &part, &grad));
        MB_TRY(mb_comm_wait(z->comm, MB_STREAM_COMPUTE));
        MB_TRY(mb_device_read(z->ex->device, z->partial + first, &part));
    }
    MB_TRY(host(z)->ops->all_gather(host(z), z->partial, z->grains, MB_DTYPE_F64));
    for (int64_t g = 0; g < grains; g++)
        total += z->partial[g];
    *out = total;
    return MB_OK;
}

/* The optimizer on the range this rank keeps state for. */
static mb_status update(mb_zero *z, double lr, float grad_scale)
{
    const mb_optim_step step = {.t = z->history.applied + 1, .lr = lr, .grad_scale = grad_scale};
    mb_flat *f = z->flat;
    mb_optim_param param = {.whole = z->o.stage == 0 ? f->param : f->own_param};

    if (f->own_low != NULL)
        param = (mb_optim_param){
            .hi = (uint16_t *)f->half + f->own_from, .lo = f->own_low, .joined = z->joined};
    return mb_optim_update(z->kind, z->ex, &z->hyper, &step, f, z->state_from,
                           z->state_from + z->state_count, &param, z->state,
                           z->o.stage == 0 ? f->grad : f->own_grad);
}

double mb_zero_loss_scale(const mb_zero *z)
{
    if (!z->o.scale_loss)
        return 1.0;
    return z->history.loss_scale > 0.0 ? z->history.loss_scale : SCALE_START;
}

/* A gradient that overflowed asks for a smaller scale. */
static bool scale_down(mb_zero *z)
{
    const double scale = mb_zero_loss_scale(z);

    if (scale <= 1.0)
        return false;
    z->history.loss_scale = scale / 2.0;
    z->history.unscaled = 0;
    return true;
}

static void scale_up(mb_zero *z)
{
    const double scale = mb_zero_loss_scale(z);

    if (!z->o.scale_loss || ++z->history.unscaled < SCALE_GROWS_AFTER || scale >= SCALE_MOST)
        return;
    z->history.loss_scale = 2.0 * scale;
    z->history.unscaled = 0;
}

static mb_status skip(mb_zero *z, mb_zero_result *out)
{
    mb_zero_history *h = &z->history;

    out->outcome = MB_ZERO_SKIPPED;
    out->grad_norm = (double)NAN;
    h->skipped++;
    h->skipped_row += !scale_down(z);
    z->again = false;
    MB_TRY(clear_sums(z));
    MB_TRY(clear_gradients(z));
    if (h->skipped_row < MB_ZERO_SKIPS_MAX)
        return MB_OK;
    if (out->bad_micro >= 0)
        return MB_RAISE(
            MB_ENUM,
            "%lld steps in a row had a loss or gradient that is not finite (the last in "
            "micro-batch %lld of the step); lower learning_rate or look at the data",
            (long long)h->skipped_row, (long long)out->bad_micro);
    return MB_RAISE(MB_ENUM,
                    "%lld steps in a row had a gradient that is not finite; lower learning_rate or "
                    "look at the data",
                    (long long)h->skipped_row);
}

static mb_status repeat(mb_zero *z, double max_abs, mb_zero_result *out)
{
    MB_REQUIRE(!z->again, MB_ENUM,
               "exact reduction: the gradients of %lld micro-batches of up to %g do not fit in 64 "
               "bits even after the step was repeated",
               (long long)z->n_micro, max_abs);
    out->outcome = MB_ZERO_REPEAT;
    out->grad_norm = (double)NAN;
    z->again = true;
    z->shift = shift_for(max_abs);
    z->history.repeated++;
    MB_TRY(clear_sums(z));
    return clear_gradients(z);
}

/* Owners have updated theirs: everyone gets them, now or when a layer needs them. */
static mb_status new_parameters(mb_zero *z)
{
    if (z->o.stage == 0)
        return MB_OK;
    mb_shard_changed(z->shard);
    MB_TRY(mb_flat_round(z->ex, z->flat));
    return mb_shard_moves_parameters(z->shard)
               ? MB_OK
               : gather_grains(z, z->comm, mb_flat_values(z->flat), z->bounds, z->flat->dtype);
}

/* At stage 0 everybody updates everything. */
static mb_status gather_sums(mb_zero *z)
{
    if (z->o.stage > 0)
        return MB_OK;
    mb_profile_begin(z->ex->profile, MB_SPAN_REDUCE);
    MB_TRY(gather_grains(z, z->comm, z->flat->grad, z->bounds, MB_DTYPE_F32));
    mb_profile_end(z->ex->profile, MB_SPAN_REDUCE);
    return MB_OK;
}

static mb_status apply(mb_zero *z, const mb_zero_args *args, double max_abs, mb_zero_result *out)
{
    const double loss_scale = mb_zero_loss_scale(z);
    double total = 0, scale = 1.0 / (out->divisor * loss_scale);

    mb_profile_begin(z->ex->profile, MB_SPAN_REDUCE);
    MB_TRY(reduce(z));
    MB_TRY(sum_of_squares(z, &total));
    mb_profile_end(z->ex->profile, MB_SPAN_REDUCE);
    if (!isfinite(total)) /* every rank added the same numbers */
        return skip(z, out);
    out->grad_norm = sqrt(total) / (out->divisor * loss_scale);
    if (args->max_grad_norm > 0) { /* as torch.nn.utils.clip_grad_norm_ */
        const double clip = args->max_grad_norm / (out->grad_norm + 1e-6);
        scale *= clip < 1.0 ? clip : 1.0;
    }
    MB_TRY(gather_sums(z));
    mb_profile_begin(z->ex->profile, MB_SPAN_OPTIMIZER);
    MB_TRY(update(z, args->lr, (float)scale));
    mb_profile_end(z->ex->profile, MB_SPAN_OPTIMIZER);
    mb_profile_begin(z->ex->profile, MB_SPAN_PARAMETERS);
    MB_TRY(new_parameters(z));
    mb_profile_end(z->ex->profile, MB_SPAN_PARAMETERS);
    scale_up(z);
    z->history.applied++;
    z->history.skipped_row = 0;
    z->history.max_abs = max_abs;
    z->again = false;
    out->outcome = MB_ZERO_APPLIED;
    return clear_gradients(z);
}

mb_status mb_zero_step(mb_zero *z, const mb_zero_args *args, double *votes, mb_zero_result *out)
{
    const int64_t n = z->o.n_votes + z->n_micro * columns(&z->o);

    mb_profile_begin(z->ex->profile, MB_SPAN_REDUCE);
    MB_TRY(idle_rounds(z));
    if (mb_shard_moves_gradients(z->shard))
        MB_TRY(mb_shard_reduced(z->shard));
    MB_TRY(mb_comm_wait(z->comm, MB_STREAM_COMPUTE));
    MB_TRY(note_seen(z));
    if (z->o.n_votes > 0)
        memcpy(z->table, votes, sizeof(double) * (size_t)z->o.n_votes);
    /* Sums, but each number of a micro-batch has one owner and zeros elsewhere. */
    MB_TRY(z->mesh.world->ops->all_reduce(z->mesh.world, z->table, n, MB_DTYPE_F64, MB_SUM));
    if (z->o.n_votes > 0)
        memcpy(votes, z->table, sizeof(double) * (size_t)z->o.n_votes);
    mb_profile_end(z->ex->profile, MB_SPAN_REDUCE);

    const struct verdict v = judge(z, out);
    out->metric = z->sum;
    out->divisor = args->divisor > 0 ? args->divisor : z->sum[MB_ZERO_TOKENS];
    out->loss = z->sum[MB_ZERO_LOSS] / out->divisor;
    if (!v.finite)
        return skip(z, out);
    MB_REQUIRE(out->divisor > 0, MB_EDATA, "a step of %lld micro-batches has no trained token",
               (long long)z->n_micro);
    if (!v.fits)
        return repeat(z, v.max_abs, out);
    return apply(z, args, v.max_abs, out);
}

/* Elements [from, from + n) of the own range of the parameters (set 0) or of a state (1, 2 ...). No
 * data: they are in halves. */
static mb_tensor own_part(mb_zero *z, int set, int64_t from, int64_t n)
{
    mb_tensor part[MB_OPTIM_STATES_MAX];

    if (set == 0)
        return mb_tensor_1d(z->flat->own_low == NULL ? z->flat->own_param + from : NULL,
                            MB_DTYPE_F32, n);
    mb_optim_states(z->kind, z->state, z->flat->own_from - z->state_from + from, n, part);
    return part[set - 1];
}

mb_status mb_zero_spread(mb_zero *z)
{
    const mb_flat *f = z->flat;
    const int64_t n = f->own_to - f->own_from;

    mb_shard_changed(z->shard);
    for (int set = f->own_low == NULL ? 0 : 1; set <= z->kind->n_states; set++) {
        const mb_tensor own = own_part(z, set, 0, n);
        MB_TRY(gather_copies(z, &own));
    }
    if (f->own_low != NULL) { /* moved as they are */
        const mb_tensor hi = mb_tensor_1d((uint16_t *)f->half + f->own_from, MB_DTYPE_BF16, n);
        const mb_tensor lo = mb_tensor_1d(f->own_low, MB_DTYPE_BF16, n);
        MB_TRY(gather_copies(z, &hi));
        MB_TRY(gather_copies(z, &lo));
    }
    MB_TRY(mb_flat_round(z->ex, z->flat));
    if (z->o.stage < 3)
        MB_TRY(gather_grains(z, z->comm, mb_flat_values(z->flat), z->bounds, z->flat->dtype));
    if (mb_shard_moves_parameters(z->shard))
        MB_TRY(mb_shard_settle(z->shard));
    for (int i = 0; z->o.stage == 0 && i < z->kind->n_states; i++)
        MB_TRY(gather_grains(z, z->comm, z->state[i].data, z->bounds, z->kind->dtype[i]));
    return mb_comm_wait(z->comm, MB_STREAM_COMPUTE);
}

/* What rank 0 wants of another's range; n 0: nothing more. */
struct want {
    int64_t from, n;
};

/* In pieces, so that a device's numbers need no more than one of host memory. */
static int64_t piece_bytes(int64_t left)
{
    return (left < PIECE ? left : PIECE) * (int64_t)sizeof(float);
}

static mb_status ask(mb_zero *z, int rank, struct want w)
{
    return host(z)->ops->send(host(z), &w, sizeof w, rank);
}

mb_status mb_zero_fetch(void *zero, int64_t from, int64_t n, float *to)
{
    mb_zero *z = zero;

    for (int r = 0; r < z->comm->size; r++) {
        const int64_t a = from > z->bounds[r] ? from : z->bounds[r],
                      b = from + n < z->bounds[r + 1] ? from + n : z->bounds[r + 1];
        if (a >= b)
            continue;
        if (r == z->comm->rank) {
            MB_TRY(mb_flat_read(z->ex->device, z->flat, a, b - a, to + (a - from)));
            continue;
        }
        MB_TRY(ask(z, r, (struct want){a, b - a}));
        for (int64_t at = a; at < b; at += PIECE)
            MB_TRY(host(z)->ops->recv(host(z), to + (at - from), piece_bytes(b - at), r));
    }
    return MB_OK;
}

static mb_status answer(mb_zero *z, const struct want *w, float *piece)
{
    mb_comm *c = host(z);

    for (int64_t at = 0; at < w->n; at += PIECE) {
        const int64_t n = w->n - at < PIECE ? w->n - at : PIECE;
        const mb_tensor own = own_part(z, 0, w->from + at - z->flat->own_from, n);
        if (piece != NULL)
            MB_TRY(mb_flat_read(z->ex->device, z->flat, w->from + at, n, piece));
        MB_TRY(c->ops->send(c, piece != NULL ? piece : own.data, piece_bytes(w->n - at), 0));
    }
    return MB_OK;
}

/* Only ranks of the first copy, and not rank 0, have anything to give. */
mb_status mb_zero_serve(mb_zero *z)
{
    struct want w = {.n = 1};
    float *piece = NULL;
    mb_status st = MB_OK;

    if (z->mesh.dp_outer->rank != 0 || z->comm->rank == 0)
        return MB_OK;
    if (!mb_device_is_host(z->ex->device) || z->flat->own_low != NULL)
        MB_TRY(mb_pages(PIECE * sizeof(float), "parameters on their way", (void **)&piece));
    while (w.n > 0) {
        MB_TRY_GOTO(host(z)->ops->recv(host(z), &w, sizeof w, 0), st, done);
        MB_TRY_GOTO(answer(z, &w, piece), st, done);
    }
done:
    mb_pages_free(piece, PIECE * sizeof(float));
    return st;
}

mb_status mb_zero_served(mb_zero *z)
{
    for (int r = 1; r < z->comm->size; r++)
        MB_TRY(ask(z, r, (struct want){0, 0}));
    return MB_OK;
}

mb_shard *mb_zero_shard(mb_zero *z)
{
    return z->shard;
}

mb_zero_history *mb_zero_history_of(mb_zero *z)
{
    return &z->history;
}

void mb_zero_own(const mb_zero *z, int64_t *from, int64_t *to)
{
    const int copy = z->mesh.dp_outer->rank;

    *from = z->flat->own_from + z->saved[copy];
    *to = z->flat->own_from + z->saved[copy + 1];
}

mb_tensor mb_zero_own_set(mb_zero *z, int set)
{
    const int64_t *at = z->saved + z->mesh.dp_outer->rank;

    return own_part(z, set, at[0], at[1] - at[0]);
}

mb_device *mb_zero_device(const mb_zero *z)
{
    return z->ex->device;
}

const mb_optim_kind *mb_zero_kind(const mb_zero *z)
{
    return z->kind;
}

mb_flat *mb_zero_flat(mb_zero *z)
{
    return z->flat;
}

mb_comm *mb_zero_parts(mb_zero *z)
{
    return z->mesh.parts;
}

int mb_zero_shift(const mb_zero *z)
{
    return z->shift;
}

int64_t mb_zero_step_bytes(const mb_zero *z, int64_t n_micro)
{
    const mb_comm *world = z->mesh.world, *outer = z->mesh.dp_outer;
    const int size = z->comm->size, rank = z->comm->rank, right = (rank + 1) % size;
    const int64_t el = mb_dtype_bytes(z->flat->is_exact ? MB_DTYPE_I64 : z->comm->wire, 1);
    const int64_t n = z->flat->count;
    const int64_t table = z->o.n_votes + n_micro * columns(&z->o);
    int64_t bytes = 0;

    if (world->size > 1)
        bytes += mb_comm_mpi_all_reduce_bytes(world, table, MB_DTYPE_F64);
    if (outer->size > 1)
        bytes += mb_comm_mpi_all_reduce_bytes(outer, z->bounds[rank + 1] - z->bounds[rank],
                                              z->flat->is_exact ? MB_DTYPE_I64 : MB_DTYPE_F32);
    if (size == 1)
        return bytes;
    bytes += 8 * (n / MB_GRAIN - (z->grains[right + 1] - z->grains[right]));
    bytes += mb_shard_round_bytes(z->shard, (n_micro + world->size - 1) / world->size);
    if (!mb_shard_moves_gradients(z->shard))
        bytes += el * (n - (z->bounds[rank + 1] - z->bounds[rank]));
    if (!mb_shard_moves_parameters(z->shard))
        bytes +=
            mb_dtype_bytes(z->flat->dtype, 1) * (n - (z->bounds[right + 1] - z->bounds[right]));
    return bytes;
}
