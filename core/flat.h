/* core/flat.h - every trained parameter of a run in one flat order that no rank count changes.
 *
 * The trained tensors stand one after the other in the order of the model's weight table (adapters
 * after their base), and the total is rounded up to a whole number of grains (MB_GRAIN elements;
 * the tail is zero). Gradients, the exact accumulator, optimizer state, shards and checkpoints all
 * use this order. Rank r of n owns the grains [G*r/n, G*(r+1)/n): mb_flat_bounds.
 *
 * Units. What is gathered and reduced together: unit 0 is what lies outside the layers, unit 1 + l is
 * layer l, each one to three ranges of the flat order. How much of it is in memory depends on the
 * stage of ZeRO (dist/zero.h):
 *
 *     stage      parameters               gradients                exact sums
 *     0, 1       all                      all                      all
 *     2          all                      own range, windows       own range, windows
 *     3          own range, windows       own range, windows       own range, windows
 *
 * A window holds one unit while it is in use: unit 0 has one for itself, layers take turns in two.
 */
#ifndef MB_CORE_FLAT_H
#define MB_CORE_FLAT_H

#include "core/device.h"

typedef struct mb_flat_segment {
    const char *name;      /* as on disk: HF name, or PEFT name for adapters; borrowed */
    int64_t offset, count; /* elements */
    int ndim;
    int64_t dim[MB_MAX_DIMS];
    bool decay;    /* weight decay applies */
    int64_t layer; /* -1: outside the layers */
} mb_flat_segment;

enum { MB_FLAT_RANGES = 4, MB_FLAT_WINDOWS = 3 };

typedef struct mb_flat_unit {
    int n_ranges;
    struct {
        int64_t from, to; /* elements of the flat order */
        int64_t at;       /* where it starts in the unit's window */
    } range[MB_FLAT_RANGES];
    int64_t count; /* elements of all ranges */
} mb_flat_unit;

typedef struct mb_flat {
    int64_t count; /* elements, a multiple of MB_GRAIN */
    int n_segments;
    mb_flat_segment *segment;
    mb_dtype dtype; /* what the model computes in: F32, BF16, F16 */
    /* Whole, NULL where the stage has windows instead. */
    float *param; /* count; what the model computes with, when that is f32 */
    void *half;   /* the same when it is not: rounded from the master copy */
    float *grad;  /* count; of the summed loss of the micro-batches since it was cleared */
    /* grad lies in the memory of micro-steps, each of which clears it first: what it holds is read
     * before the next begins (autograd/tape.h). */
    bool grad_in_step;
    int64_t *exact; /* count with `reduction: exact`, else NULL */

    mb_flat_unit *unit; /* n_units; none: everything is one unit and whole */
    int n_units;
    bool is_exact;
    int stage;
    int64_t own_from, own_to; /* this rank's range, set by mb_flat_shard */
    /* Of the own range: inside the whole arrays, or by themselves. own_param is the master copy, NULL
     * where `half` is BF16: then it is the upper half of the master copy and own_low the lower one
     * (split_bf16 in core/kernels.def). */
    float *own_param, *own_grad;
    uint16_t *own_low;
    int64_t *own_exact;
    void *param_window[MB_FLAT_WINDOWS]; /* of dtype */
    float *grad_window[MB_FLAT_WINDOWS];
    int64_t *exact_window[MB_FLAT_WINDOWS];
    /* While rank 0 writes the model: elements [from, from + n) of the master copies, whoever owns
     * them, into host memory. NULL otherwise. */
    mb_status (*fetch)(void *ctx, int64_t from, int64_t n, float *to);
    void *fetch_ctx;
} mb_flat;

/* Element i of an array of d; of blocks, the first of one. */
static inline void *mb_element(void *array, mb_dtype d, int64_t i)
{
    return (char *)array + mb_dtype_bytes(d, i);
}

/* What the model computes with, whole; NULL at stage 3. */
static inline void *mb_flat_values(const mb_flat *f)
{
    return f->dtype == MB_DTYPE_F32 ? f->param : f->half;
}

/* Is it in halves, once memory is bound? */
static inline bool mb_flat_in_halves(const mb_flat *f)
{
    return f->dtype == MB_DTYPE_BF16 && f->stage < 3;
}

/* Elements [from, from + n) of the flat order, which are this rank's own, from the master copy to host
 * memory; waits. */
mb_status mb_flat_read(mb_device *d, const mb_flat *f, int64_t from, int64_t n,
                       float *to) MB_MUST_USE;
/* Where the master copy is in halves: the upper ones of all these elements, and the lower ones of the
 * own among them. */
mb_status mb_flat_write_halves(mb_device *d, const mb_flat *f, int64_t from, int64_t n,
                               const float *x) MB_MUST_USE;

/* Is the master copy by itself, spread over ranks, beside or instead of whole parameters? */
static inline bool mb_flat_master_apart(const mb_flat *f)
{
    return f->stage == 3 || f->dtype != MB_DTYPE_F32;
}

/* Where rank's elements start when size ranks share all; of rank `size`: the end. Grain aligned. */
int64_t mb_flat_bound(const mb_flat *f, int size, int rank);
/* bounds[0..size]: those of all ranks. */
void mb_flat_bounds(const mb_flat *f, int size, int64_t *bounds);

/* Finds the units of `layers` layers; the caller frees f->unit. */
mb_status mb_flat_make_units(mb_flat *f, int64_t layers) MB_MUST_USE;
/* What this rank keeps. Call before memory is bound. */
void mb_flat_shard(mb_flat *f, int stage, int rank, int size);

/* The window unit u uses, and how many elements a window has. */
static inline int mb_flat_window_of(int unit)
{
    return unit == 0 ? 0 : 1 + unit % 2;
}
int64_t mb_flat_window_count(const mb_flat *f, int window);
/* Where element `offset` of the flat order, which belongs to a segment of `layer`, is in its unit's
 * window. */
int64_t mb_flat_window_at(const mb_flat *f, int64_t layer, int64_t offset);

#endif
