/* core/profile.h - where the time of training steps goes.
 *
 *     MB_TRY(mb_profile_new(&(mb_profile_options){0}, &p));
 *     mb_profile_exec(p, &ex);                    // its kernels are timed from now on
 *     MB_TRY(mb_profile_comm(p, comm));           // so are the collectives of this communicator
 *     mb_profile_start(p);                        // time 0 of the trace
 *     for each step:
 *         MB_TRY(mb_profile_step_begin(p));
 *         mb_profile_begin(p, MB_SPAN_DATA); ... mb_profile_end(p, MB_SPAN_DATA);
 *         ...
 *         MB_TRY(mb_profile_step_end(p));
 *     mb_profile_free(p);                         // communicators are as they were
 *
 * The kernel table of an exec and the operations of a communicator are replaced by ones that call the
 * old and note how long that took. Without a profile nothing is replaced and nothing costs anything.
 *
 * Calls are noted inside steps, from the one after the first MB_PROFILE_WARMUP on, in rows of a table of
 * fixed size: one per operation, shape and types. What finds no row goes to a common one. The first
 * MB_PROFILE_TRACED of these steps are also kept call by call, as far as there is room. All memory is
 * taken by mb_profile_new; a text is made by whoever asks at the end.
 *
 * On the CPU a call's time is that from its start to its end. On a device the host does not wait for
 * kernels; with a profile it does after each kernel and each collective, so that times are those of the
 * work, and steps are slower than without, as nothing overlaps. Collectives in host memory that run
 * behind the computing are queued in no time: what is counted is how long the step waits for them.
 *
 * Floating-point operations are those of matrix products, 2 M N K, and of attention: per head and pair
 * of a query and a key that its mask leaves 4 head_dim forward and 10 head_dim backward, which computes
 * the scores again. Bytes are the sizes of all tensors of a call, each once; of tables that are looked
 * up, no more rows than were looked up; of collectives, the payload this rank sent.
 *
 * For one thread, the one that runs steps.
 */
#ifndef MB_CORE_PROFILE_H
#define MB_CORE_PROFILE_H

#include "core/comm.h"

enum { MB_PROFILE_WARMUP = 2, MB_PROFILE_TRACED = 3 }; /* steps */

/* What a second is counted for. Every kernel has one (core/profile_wrap.c). */
typedef enum mb_profile_kind {
    MB_PROFILE_REST, /* of a step, what is in none of the others */
    MB_PROFILE_GEMM,
    MB_PROFILE_ATTENTION,
    MB_PROFILE_NORM,
    MB_PROFILE_ACTIVATION,
    MB_PROFILE_LOSS,
    MB_PROFILE_EMBEDDING,
    MB_PROFILE_ELEMENTWISE,
    MB_PROFILE_EXACT,
    MB_PROFILE_OPTIMIZER,
    MB_PROFILE_COMMUNICATION,
    MB_PROFILE_DATA,
    MB_PROFILE_KINDS
} mb_profile_kind;

/* Parts of a run. Those of a step follow one another; what comes after MB_SPAN_STEP_PARTS is between
 * steps. */
typedef enum mb_span {
    MB_SPAN_STEP,
    MB_SPAN_DATA,
    MB_SPAN_FORWARD,
    MB_SPAN_BACKWARD,
    MB_SPAN_REDUCE,     /* gradients of all micro-batches and ranks, and their norm */
    MB_SPAN_OPTIMIZER,  /* new master weights and states */
    MB_SPAN_PARAMETERS, /* the weights to compute with, on all ranks */
    MB_SPAN_STEP_PARTS,
    MB_SPAN_EVALUATION = MB_SPAN_STEP_PARTS,
    MB_SPAN_CHECKPOINT,
    MB_SPAN_COUNT
} mb_span;

/* Operations: kernels in the order of core/kernels.def, then collectives, then spans. */
enum {
#define MB_KERNEL(name, params, args)    MB_OPERATION_##name,
#define MB_KERNEL_WS(name, params, args) MB_OPERATION_##name,
#include "core/kernels.def"
#undef MB_KERNEL
#undef MB_KERNEL_WS
    MB_OPERATION_KERNELS,
    MB_OPERATION_all_reduce = MB_OPERATION_KERNELS,
    MB_OPERATION_reduce_scatter,
    MB_OPERATION_all_gather,
    MB_OPERATION_broadcast,
    MB_OPERATION_send,
    MB_OPERATION_recv,
    MB_OPERATION_barrier,
    MB_OPERATION_group, /* several, queued as one */
    MB_OPERATION_wait,  /* for what runs behind the computing, in host memory */
    MB_OPERATION_SPANS,
    MB_OPERATION_COUNT = MB_OPERATION_SPANS + MB_SPAN_COUNT
};

/* What calls share that are counted together.
 *
 *     gemm          dim M, N, K; types of A, B, C; flags 1: A transposed, 2: B
 *     attention     dim rows, heads, kv_heads, head_dim; type of the activations, of the first output
 *     other kernels dim rows, columns of the largest tensor; its type, that of the first output
 *     collectives   dim bytes in all, ranks
 */
typedef struct mb_profile_key {
    int operation; /* -1: others, what found no row */
    unsigned flags;
    mb_dtype dtype[3];
    int64_t dim[4];
} mb_profile_key;

typedef struct mb_profile_row {
    mb_profile_key key;
    int64_t calls;
    double seconds, flop, bytes;
} mb_profile_row;

/* One call or span; seconds on mb_profile_start's clock. */
typedef struct mb_profile_event {
    double from, to;
    int32_t operation;
    int32_t row; /* of kernels and collectives; -1: none */
} mb_profile_event;

typedef struct mb_profile mb_profile;

typedef struct mb_profile_options {
    int rows, events; /* room for; 0: as many as usual */
} mb_profile_options;

mb_status mb_profile_new(const mb_profile_options *o, mb_profile **out) MB_MUST_USE;
/* Gives communicators that are not freed yet their own operations again; NULL is allowed. The exec's
 * kernels must not run any more. */
void mb_profile_free(mb_profile *p);
/* Bytes that it holds; 0 for NULL. */
int64_t mb_profile_bytes(const mb_profile *p);

/* One exec, and some communicators (those of one rank are left as they are, and so are those that are
 * already noted), all borrowed. */
void mb_profile_exec(mb_profile *p, mb_exec *ex);
mb_status mb_profile_comm(mb_profile *p, mb_comm *c) MB_MUST_USE;
void mb_profile_start(mb_profile *p);

/* p NULL: nothing. */
mb_status mb_profile_step_begin(mb_profile *p) MB_MUST_USE;
mb_status mb_profile_step_end(mb_profile *p) MB_MUST_USE;
void mb_profile_span_begin(mb_profile *p, mb_span s);
void mb_profile_span_end(mb_profile *p, mb_span s);

static inline void mb_profile_begin(mb_profile *p, mb_span s)
{
    if (p != NULL)
        mb_profile_span_begin(p, s);
}

static inline void mb_profile_end(mb_profile *p, mb_span s)
{
    if (p != NULL)
        mb_profile_span_end(p, s);
}

/* ---- what was noted ------------------------------------------------------------------------- */

int64_t mb_profile_steps(const mb_profile *p); /* counted ones */
/* All rows; the first one is that of what found none. */
const mb_profile_row *mb_profile_rows(const mb_profile *p, int *n);
/* In the order of their begin. *lost: how many found no room. */
const mb_profile_event *mb_profile_events(const mb_profile *p, int *n, int64_t *lost);
/* Sums of calls and seconds: of a span; of a kind, MB_PROFILE_REST being what is left of the steps. */
double mb_profile_span_seconds(const mb_profile *p, mb_span s, int64_t *calls);
double mb_profile_kind_seconds(const mb_profile *p, mb_profile_kind k);

mb_profile_kind mb_profile_kind_of(int operation);
const char *mb_profile_kind_name(mb_profile_kind k);  /* "attention" */
const char *mb_profile_operation_name(int operation); /* "rmsnorm_fwd", "all_gather", "backward" */
/* "2048x1536x576 f32 x f32 -> f32" into `text`, which is returned. */
const char *mb_profile_shape(const mb_profile_key *key, char *text, size_t size);

#endif
