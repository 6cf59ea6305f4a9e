/* core/flat.h - every trained parameter of a run in one flat order that no rank count changes.
 *
 * The trained tensors stand one after the other in the order of the model's weight table (adapters
 * after their base), and the total is rounded up to a whole number of grains (MB_GRAIN elements;
 * the tail is zero). Gradients, the exact accumulator, optimizer state, shards and checkpoints all
 * use this order. Rank r of n owns the grains [G*r/n, G*(r+1)/n): mb_flat_bounds.
 */
#ifndef MB_CORE_FLAT_H
#define MB_CORE_FLAT_H

#include "core/tensor.h"

typedef struct mb_flat_segment {
    const char *name;      /* as on disk: HF name, or PEFT name for adapters; borrowed */
    int64_t offset, count; /* elements */
    int ndim;
    int64_t dim[MB_MAX_DIMS];
    bool decay; /* weight decay applies */
} mb_flat_segment;

typedef struct mb_flat {
    int64_t count; /* elements, a multiple of MB_GRAIN */
    int n_segments;
    mb_flat_segment *segment;
    float *param;   /* count; what the model computes with (f32) */
    float *grad;    /* count; of the summed loss of the micro-batches so far */
    int64_t *exact; /* count with `reduction: exact`, else NULL */
} mb_flat;

/* bounds[0..size]: the element ranges of all ranks, grain aligned. */
void mb_flat_bounds(const mb_flat *f, int size, int64_t *bounds);

#endif
