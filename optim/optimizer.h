/* optim/optimizer.h - what an optimizer is: named flat f32 states and an update.
 *
 * An optimizer is one file with one `mb_optim_kind` and one line in optimizers.def. It never
 * sees ranks: whoever owns a range of the flat parameters calls update() on that range, one segment
 * piece at a time (a piece has one weight decay).
 */
#ifndef MB_OPTIM_OPTIMIZER_H
#define MB_OPTIM_OPTIMIZER_H

#include "core/kernels.h"

enum { MB_OPTIM_STATES_MAX = 4 };

typedef struct mb_optim_hyper {
    double beta1, beta2, eps, weight_decay;
} mb_optim_hyper;

typedef struct mb_optim_kind {
    const char *name; /* the recipe's `optim` value */
    int n_states;
    const char *state[MB_OPTIM_STATES_MAX]; /* names in checkpoints: "exp_avg", "exp_avg_sq" */
    /* One piece: param, grad and state[i] are 1-D f32 of equal length. t counts applied steps from
     * 1. The gradient is grad * grad_scale. decay false: weight_decay does not apply here. */
    mb_status (*update)(mb_exec *ex, const mb_optim_hyper *h, int64_t t, double lr, bool decay,
                        float grad_scale, mb_tensor *param, mb_tensor *state,
                        const mb_tensor *grad);
} mb_optim_kind;

/* All kinds, NULL-terminated; NULL when no kind has that name or alias ("adamw_torch" = adamw). */
extern const mb_optim_kind *const mb_optim_kinds[];
const mb_optim_kind *mb_optim_find(const char *name);

#endif
