/* optim/optimizer.h - what an optimizer is: named flat states and an update.
 *
 * An optimizer is one file with one `mb_optim_kind` and one line in optimizers.def. It never sees
 * ranks: whoever owns a range of the flat parameters calls mb_optim_update on that range, which calls
 * update() on pieces of one weight decay. A state is a number for each parameter; how it is kept in
 * memory is its type's, in checkpoints it is f32 (mb_device_read_f32), so kinds whose states have the
 * same names can go on from each other's.
 */
#ifndef MB_OPTIM_OPTIMIZER_H
#define MB_OPTIM_OPTIMIZER_H

#include "core/flat.h"
#include "core/kernels.h"

enum { MB_OPTIM_STATES_MAX = 4 };

typedef struct mb_optim_hyper {
    double beta1, beta2, eps, weight_decay;
    uint64_t seed; /* of rounding by chance */
} mb_optim_hyper;

/* One step, and where in the flat order a piece of it begins. */
typedef struct mb_optim_step {
    int64_t t; /* counts applied steps from 1 */
    double lr;
    float grad_scale; /* the gradient is grad * grad_scale */
    bool decay;       /* false: weight_decay does not apply to this piece */
    int64_t place;
} mb_optim_step;

typedef struct mb_optim_kind {
    const char *name; /* the recipe's `optim` value */
    int n_states;
    const char *state[MB_OPTIM_STATES_MAX]; /* names in checkpoints: "exp_avg", "exp_avg_sq" */
    mb_dtype dtype[MB_OPTIM_STATES_MAX];    /* with blocks that divide MB_GRAIN */
    /* One piece: param and grad are 1-D f32 of equal length; state[i] is as long, rounded up to whole
     * blocks, and a piece begins where a block does. */
    mb_status (*update)(mb_exec *ex, const mb_optim_hyper *h, const mb_optim_step *s,
                        mb_tensor *param, mb_tensor *state, const mb_tensor *grad);
} mb_optim_kind;

/* All kinds, NULL-terminated; NULL when no kind has that name or alias ("adamw_torch" = adamw). */
extern const mb_optim_kind *const mb_optim_kinds[];
const mb_optim_kind *mb_optim_find(const char *name);

/* Bytes of n elements of all states, n in whole blocks. */
size_t mb_optim_state_bytes(const mb_optim_kind *k, int64_t n);
/* The states `state` of n elements from `from` on, both whole blocks, as tensors in `out`. */
void mb_optim_states(const mb_optim_kind *k, const mb_tensor *state, int64_t from, int64_t n,
                     mb_tensor *out);

/* Where a range's parameters are: f32, or two halves (split_bf16 in core/kernels.def), which pass
 * through `joined`, room for MB_OPTIM_JOINED numbers, on their way. */
enum { MB_OPTIM_JOINED = 1 << 20 };
typedef struct mb_optim_param {
    float *whole;      /* NULL: in halves */
    uint16_t *hi, *lo; /* hi is BF16 */
    float *joined;
} mb_optim_param;

/* Updates the elements [from, to) of the flat order, whole grains, that belong to a segment. param,
 * grad and state are of that range; s->decay and s->place are not read. The bits do not depend on
 * how the flat order is cut into ranges, nor on where the parameters are. */
mb_status mb_optim_update(const mb_optim_kind *k, mb_exec *ex, const mb_optim_hyper *h,
                          const mb_optim_step *s, const mb_flat *flat, int64_t from, int64_t to,
                          const mb_optim_param *param, const mb_tensor *state,
                          float *grad) MB_MUST_USE;

#endif
