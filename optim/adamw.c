/* optim/adamw.c - AdamW (Loshchilov & Hutter, arXiv:1711.05101) as torch.optim.AdamW computes it.
 *
 * Decay is applied to the parameter before the update and never enters the moments; the bias
 * corrections are taken in double precision, as PyTorch does.
 */
#include <math.h>

#include "optim/optimizer.h"

enum { EXP_AVG, EXP_AVG_SQ };

static mb_status update(mb_exec *ex, const mb_optim_hyper *h, int64_t t, double lr, bool decay,
                        float grad_scale, mb_tensor *param, mb_tensor *state, const mb_tensor *grad)
{
    const mb_adamw a = {
        .lr = lr,
        .beta1 = h->beta1,
        .beta2 = h->beta2,
        .eps = h->eps,
        .weight_decay = decay ? h->weight_decay : 0.0,
        .correction1 = 1.0 - pow(h->beta1, (double)t),
        .correction2 = 1.0 - pow(h->beta2, (double)t),
        .grad_scale = grad_scale,
    };

    return MB_RUN(ex, adamw, param, &state[EXP_AVG], &state[EXP_AVG_SQ], grad, &a);
}

const mb_optim_kind mb_optim_adamw = {
    .name = "adamw",
    .n_states = 2,
    .state = {"exp_avg", "exp_avg_sq"},
    .update = update,
};
