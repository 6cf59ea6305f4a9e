/* core/profile_wrap.c - kernels and collectives that note how long they took; see core/profile.h. */
#include "core/arguments.h"
#include "core/log.h"
#include "core/profile_inside.h"

/* What a kernel's time is counted for, and which of its tensors (by their order, from 0) are tables
 * that it looks rows up in. */
static const struct {
    mb_profile_kind kind;
    unsigned tables;
} of_kernel[MB_OPERATION_KERNELS] = {
    [MB_OPERATION_gemm] = {MB_PROFILE_GEMM, 0},
    [MB_OPERATION_gemm_adapted] = {MB_PROFILE_GEMM, 0},
    [MB_OPERATION_copy] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_axpy] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_fill] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_scale] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_add] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_bias_bwd] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_embedding_fwd] = {MB_PROFILE_EMBEDDING, 1 << 2},
    [MB_OPERATION_embedding_bwd] = {MB_PROFILE_EMBEDDING, 1 << 0},
    [MB_OPERATION_gather_rows] = {MB_PROFILE_ELEMENTWISE, 1 << 1},
    [MB_OPERATION_scatter_rows] = {MB_PROFILE_ELEMENTWISE, 1 << 0},
    [MB_OPERATION_unfold] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_unfold_bwd] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_rmsnorm_fwd] = {MB_PROFILE_NORM, 0},
    [MB_OPERATION_rmsnorm_bwd] = {MB_PROFILE_NORM, 0},
    [MB_OPERATION_add_rmsnorm_fwd] = {MB_PROFILE_NORM, 0},
    [MB_OPERATION_layernorm_fwd] = {MB_PROFILE_NORM, 0},
    [MB_OPERATION_layernorm_bwd] = {MB_PROFILE_NORM, 0},
    [MB_OPERATION_add_layernorm_fwd] = {MB_PROFILE_NORM, 0},
    [MB_OPERATION_rope] = {MB_PROFILE_ELEMENTWISE, 1 << 2 | 1 << 3},
    [MB_OPERATION_attention_fwd] = {MB_PROFILE_ATTENTION, 0},
    [MB_OPERATION_attention_bwd] = {MB_PROFILE_ATTENTION, 0},
    [MB_OPERATION_attention_bias_bwd] = {MB_PROFILE_ATTENTION, 0},
    [MB_OPERATION_bucket_bias_fwd] = {MB_PROFILE_EMBEDDING, 0},
    [MB_OPERATION_bucket_bias_bwd] = {MB_PROFILE_EMBEDDING, 0},
    [MB_OPERATION_activation_fwd] = {MB_PROFILE_ACTIVATION, 0},
    [MB_OPERATION_activation_bwd] = {MB_PROFILE_ACTIVATION, 0},
    [MB_OPERATION_glu_fwd] = {MB_PROFILE_ACTIVATION, 0},
    [MB_OPERATION_glu_bwd] = {MB_PROFILE_ACTIVATION, 0},
    [MB_OPERATION_dropout] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_magnitude_gain] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_scale_columns] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_scale_columns_bwd] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_softmax_xent] = {MB_PROFILE_LOSS, 0},
    [MB_OPERATION_row_loss_fwd] = {MB_PROFILE_LOSS, 0},
    [MB_OPERATION_row_loss_bwd] = {MB_PROFILE_LOSS, 0},
    [MB_OPERATION_span_xent_fwd] = {MB_PROFILE_LOSS, 0},
    [MB_OPERATION_span_xent_bwd] = {MB_PROFILE_LOSS, 0},
    [MB_OPERATION_mean_pool_fwd] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_mean_pool_bwd] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_contrast_fwd] = {MB_PROFILE_LOSS, 0},
    [MB_OPERATION_contrast_bwd] = {MB_PROFILE_LOSS, 0},
    [MB_OPERATION_cast] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_split_bf16] = {MB_PROFILE_OPTIMIZER, 0},
    [MB_OPERATION_join_bf16] = {MB_PROFILE_OPTIMIZER, 0},
    [MB_OPERATION_dequantise] = {MB_PROFILE_ELEMENTWISE, 0},
    [MB_OPERATION_grain_sumsq] = {MB_PROFILE_OPTIMIZER, 0},
    [MB_OPERATION_exact_add] = {MB_PROFILE_EXACT, 0},
    [MB_OPERATION_exact_merge] = {MB_PROFILE_EXACT, 0},
    [MB_OPERATION_exact_take] = {MB_PROFILE_EXACT, 0},
    [MB_OPERATION_absmax] = {MB_PROFILE_OPTIMIZER, 0},
    [MB_OPERATION_adamw] = {MB_PROFILE_OPTIMIZER, 0},
    [MB_OPERATION_adamw_bf16] = {MB_PROFILE_OPTIMIZER, 0},
    [MB_OPERATION_adamw_8bit] = {MB_PROFILE_OPTIMIZER, 0},
};

mb_profile_kind mb_profile_kind_of(int operation)
{
    if (operation < 0 || operation >= MB_OPERATION_SPANS)
        return MB_PROFILE_REST;
    return operation < MB_OPERATION_KERNELS ? of_kernel[operation].kind : MB_PROFILE_COMMUNICATION;
}

/* ---- arguments of a kernel ---------------------------------------------------------------- */

enum { TENSORS = 12 };

struct note {
    const mb_tensor *tensor[TENSORS]; /* in their order, NULL where none was passed */
    int n;
    unsigned flags, n_flags; /* bools, the first in bit 0 */
    const mb_attention *attention;
};

static void note_in(struct note *n, const mb_tensor *t)
{
    n->tensor[n->n++] = t;
}

static void note_out(struct note *n, mb_tensor *t)
{
    note_in(n, t);
}

static void note_flag(struct note *n, bool on)
{
    n->flags |= (unsigned)on << n->n_flags++;
}

static void note_attention(struct note *n, const mb_attention *at)
{
    n->attention = at;
}

static void note_nothing(struct note *n, ...)
{
    (void)n;
}

#define NOTE(x) \
    _Generic((x), mb_tensor *          \
             : note_out, const mb_tensor * \
             : note_in, const mb_attention * \
             : note_attention, bool    \
             : note_flag, default      \
             : note_nothing)(&note_, x)

/* The pairs of a query and a key that a sequence's mask leaves. */
static double pairs(const mb_attention *at, int64_t q_len, int64_t k_len)
{
    double n = 0;

    for (int64_t i = 0; i < q_len; i++) {
        const int64_t position = k_len - q_len + i;
        int64_t from = 0, last = at->causal ? position : k_len - 1;
        if (at->window > 0 && position - at->window + 1 > from)
            from = position - at->window + 1;
        if (at->window > 0 && !at->causal && position + at->window - 1 < last)
            last = position + at->window - 1;
        n += last >= from ? (double)(last - from + 1) : 0;
    }
    return n;
}

/* Lengths may be in the memory of a device. */
static mb_status all_pairs(mb_device *d, const mb_attention *at, double *out)
{
    enum { SOME = 256 };
    int32_t q[SOME], k[SOME];

    *out = 0;
    for (int64_t from = 0; from < at->n_seq; from += SOME) {
        const int64_t n = at->n_seq - from < SOME ? at->n_seq - from : SOME;
        union { /* a tensor's data may be written, in general */
            const int32_t *from;
            void *data;
        } of_q = {at->q_len + from}, of_k = {at->k_len + from};
        const mb_tensor tq = mb_tensor_1d(of_q.data, MB_DTYPE_I32, n),
                        tk = mb_tensor_1d(of_k.data, MB_DTYPE_I32, n);
        MB_TRY(mb_device_read(d, q, &tq));
        MB_TRY(mb_device_read(d, k, &tk));
        for (int64_t s = 0; s < n; s++)
            *out += pairs(at, q[s], k[s]);
    }
    return MB_OK;
}

static bool is_table(int kernel, int tensor)
{
    return of_kernel[kernel].tables >> tensor & 1;
}

/* The tensor whose shape stands for the call's: the largest that is not a table. */
static const mb_tensor *main_tensor(int kernel, const struct note *note)
{
    const mb_tensor *t = NULL;

    for (int i = 0; i < note->n; i++)
        if (note->tensor[i] != NULL && !is_table(kernel, i) &&
            (t == NULL || mb_tensor_count(note->tensor[i]) > mb_tensor_count(t)))
            t = note->tensor[i];
    return t;
}

static double bytes_of(int kernel, const struct note *note, const mb_tensor *main)
{
    double bytes = 0;

    for (int i = 0; i < note->n; i++) {
        const mb_tensor *t = note->tensor[i];
        if (t == NULL)
            continue;
        const int64_t rows = mb_rows(t), looked_up = mb_rows(main);
        const double share =
            is_table(kernel, i) && looked_up < rows ? (double)looked_up / (double)rows : 1.0;
        bytes += share * (double)mb_tensor_bytes(t);
    }
    return bytes;
}

static const mb_tensor *first_tensor(const struct note *note)
{
    int i = 0;

    while (i + 1 < note->n && note->tensor[i] == NULL)
        i++;
    return note->tensor[i];
}

static mb_status describe(mb_device *d, int kernel, const struct note *note, mb_profile_row *out)
{
    const mb_tensor *main = main_tensor(kernel, note), *first = first_tensor(note);
    mb_profile_key *k = &out->key;

    *out = (mb_profile_row){.key = {.operation = kernel}};
    if (main == NULL || first == NULL)
        return MB_OK;
    k->dtype[0] = main->dtype;
    k->dtype[1] = first->dtype;
    k->dim[0] = mb_rows(main);
    k->dim[1] = mb_cols(main);
    out->bytes = bytes_of(kernel, note, main);
    if (of_kernel[kernel].kind == MB_PROFILE_GEMM) {
        const mb_tensor *c = note->tensor[0], *a = note->tensor[1], *b = note->tensor[2];
        const bool adapted = kernel == MB_OPERATION_gemm_adapted;
        const unsigned flags = adapted ? (note->flags & 1) << 1 : note->flags & 3;
        *k = (mb_profile_key){.operation = kernel,
                              .flags = flags,
                              .dtype = {a->dtype, b->dtype, c->dtype},
                              .dim = {mb_rows(c), mb_cols(c), flags & 1 ? mb_rows(a) : mb_cols(a)}};
        if (adapted)
            k->dim[2] += mb_cols(note->tensor[3]);
        out->flop = 2.0 * (double)k->dim[0] * (double)k->dim[1] * (double)k->dim[2];
    } else if (note->attention != NULL) {
        const mb_attention *at = note->attention;
        const bool backward = kernel == MB_OPERATION_attention_bwd;
        double n;
        k->dim[1] = at->heads;
        k->dim[2] = at->kv_heads;
        k->dim[3] = at->head_dim;
        MB_TRY(all_pairs(d, at, &n));
        out->flop = (backward ? 10.0 : 4.0) * (double)at->head_dim * (double)at->heads * n;
    }
    return MB_OK;
}

/* The kernel has returned; on a device it is waited for. */
static mb_status leave(mb_exec *ex, int kernel, const struct note *note, double from, mb_status st)
{
    mb_profile *p = ex->profile;
    mb_profile_row call;

    if (st == MB_OK && !mb_device_is_host(ex->device))
        st = ex->device->ops->wait(ex->device, MB_STREAM_COMPUTE);
    if (st != MB_OK) {
        p->busy = false;
        return st;
    }
    const double to = mb_clock();
    st = describe(ex->device, kernel, note, &call);
    mb_profile_leave(p, from, to, &call);
    return st;
}

/* ---- kernels ------------------------------------------------------------------------------ */

#define MB_KERNEL(name, params, args)                                                        \
    static mb_status timed_##name params                                                     \
    {                                                                                        \
        struct note note_ = {0};                                                             \
                                                                                             \
        if (!mb_profile_enter(ex->profile))                                                  \
            return ex->profile->inner->name args;                                            \
        MB_EACH(NOTE, args);                                                                 \
        const double from_ = mb_clock();                                                     \
        return leave(ex, MB_OPERATION_##name, &note_, from_, ex->profile->inner->name args); \
    }
#define MB_KERNEL_WS(name, params, args) MB_KERNEL(name, params, args)
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS

void mb_profile_exec(mb_profile *p, mb_exec *ex)
{
    const mb_kernels *inner = ex->kernels;

    p->inner = inner;
    p->device = ex->device;
    p->kernels = (mb_kernels)
    {
        .device = inner->device,
#define MB_KERNEL(name, params, args) .name = inner->name != NULL ? timed_##name : NULL,
#define MB_KERNEL_WS(name, params, args) \
    MB_KERNEL(name, params, args)        \
    .name##_workspace = inner->name##_workspace,
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
    };
    ex->kernels = &p->kernels;
    ex->profile = p;
}

/* ---- collectives -------------------------------------------------------------------------- */

struct sending {
    double from;
    int64_t sent;
};

static const struct mb_profile_comm *of(const mb_comm *c)
{
    return (const struct mb_profile_comm *)c->ops;
}

static bool begin(mb_comm *c, struct sending *s)
{
    if (!mb_profile_enter(of(c)->profile))
        return false;
    *s = (struct sending){mb_clock(), c->bytes_sent};
    return true;
}

static mb_status end(mb_comm *c, const struct sending *s, int operation, int64_t bytes,
                     mb_status st)
{
    mb_profile *p = of(c)->profile;
    mb_profile_row call = {.key = {.operation = operation, .dim = {bytes, c->size}}};

    if (st == MB_OK && !mb_device_is_host(c->device))
        st = mb_comm_wait(c, MB_STREAM_COMM);
    if (st != MB_OK) {
        p->busy = false;
        return st;
    }
    call.bytes = (double)(c->bytes_sent - s->sent);
    mb_profile_leave(p, s->from, mb_clock(), &call);
    return MB_OK;
}

#define TIMED(name, bytes, params, args)                                         \
    static mb_status timed_##name params                                         \
    {                                                                            \
        struct sending s_;                                                       \
                                                                                 \
        if (!begin(c, &s_))                                                      \
            return of(c)->inner->name args;                                      \
        return end(c, &s_, MB_OPERATION_##name, bytes, of(c)->inner->name args); \
    }
TIMED(all_reduce, mb_dtype_bytes(d, n),
      (mb_comm * c, void *buf, int64_t n, mb_dtype d, mb_reduce op), (c, buf, n, d, op))
TIMED(reduce_scatter, mb_dtype_bytes(d, at[c->size] - at[0]),
      (mb_comm * c, void *buf, const int64_t *at, mb_dtype d, void *work, size_t work_bytes),
      (c, buf, at, d, work, work_bytes))
TIMED(all_gather, mb_dtype_bytes(d, at[c->size] - at[0]),
      (mb_comm * c, void *buf, const int64_t *at, mb_dtype d), (c, buf, at, d))
TIMED(broadcast, bytes, (mb_comm * c, void *buf, int64_t bytes, int root), (c, buf, bytes, root))
TIMED(send, bytes, (mb_comm * c, const void *buf, int64_t bytes, int to), (c, buf, bytes, to))
TIMED(recv, bytes, (mb_comm * c, void *buf, int64_t bytes, int from), (c, buf, bytes, from))
TIMED(barrier, 0, (mb_comm * c), (c))

static mb_status timed_before(mb_comm *c, mb_stream stream)
{
    struct sending s;

    if (!begin(c, &s))
        return of(c)->inner->before(c, stream);
    return end(c, &s, MB_OPERATION_wait, 0, of(c)->inner->before(c, stream));
}

/* What is queued as one is one call. */
static mb_status timed_group_begin(mb_comm *c)
{
    mb_profile *p = of(c)->profile;
    struct sending s;

    p->grouped = begin(c, &s);
    if (p->grouped) {
        p->group_from = s.from;
        p->group_sent = s.sent;
    }
    return of(c)->inner->group_begin(c);
}

static mb_status timed_group_end(mb_comm *c)
{
    mb_profile *p = of(c)->profile;
    const struct sending s = {p->group_from, p->group_sent};
    const mb_status st = of(c)->inner->group_end(c);

    if (!p->grouped)
        return st;
    p->grouped = false;
    return end(c, &s, MB_OPERATION_group, c->bytes_sent - s.sent, st);
}

mb_status mb_profile_comm(mb_profile *p, mb_comm *c)
{
    struct mb_profile_comm *t = &p->comm[p->n_comms];

    if (c->size == 1 || c->ops->barrier == timed_barrier)
        return MB_OK;
    MB_REQUIRE(p->n_comms < MB_PROFILE_COMMS, MB_EBUG, "a profile of more than %d communicators",
               MB_PROFILE_COMMS);
    *t = (struct mb_profile_comm){.ops = *c->ops, .inner = c->ops, .comm = c, .profile = p};
    t->ops.all_reduce = timed_all_reduce;
    t->ops.reduce_scatter = timed_reduce_scatter;
    t->ops.all_gather = timed_all_gather;
    t->ops.broadcast = timed_broadcast;
    t->ops.send = timed_send;
    t->ops.recv = timed_recv;
    t->ops.barrier = timed_barrier;
    if (c->ops->group_begin != NULL) {
        t->ops.group_begin = timed_group_begin;
        t->ops.group_end = timed_group_end;
    }
    if (c->ops->before != NULL)
        t->ops.before = timed_before;
    c->ops = &t->ops;
    p->n_comms++;
    if (!mb_device_is_host(c->device))
        p->peers = c;
    return MB_OK;
}

void mb_profile_unwrap(mb_profile *p)
{
    for (int i = 0; i < p->n_comms; i++)
        p->comm[i].comm->ops = p->comm[i].inner;
    p->n_comms = 0;
}
