/* optim/adamw.c - AdamW (Loshchilov & Hutter, arXiv:1711.05101) as torch.optim.AdamW computes it.
 *
 * Decay is applied to the parameter before the update and never enters the moments; the bias
 * corrections are taken in double precision, as PyTorch does. The kinds differ in how the moments are
 * kept between steps: f32; bf16, rounded by chance; blocks of 8 bits (core/code8.h).
 */
#include <math.h>

#include "core/rng.h"
#include "optim/optimizer.h"

enum { EXP_AVG, EXP_AVG_SQ };

static mb_adamw adamw_of(const mb_optim_hyper *h, const mb_optim_step *s)
{
    return (mb_adamw){
        .lr = s->lr,
        .beta1 = h->beta1,
        .beta2 = h->beta2,
        .eps = h->eps,
        .weight_decay = s->decay ? h->weight_decay : 0.0,
        .correction1 = 1.0 - pow(h->beta1, (double)s->t),
        .correction2 = 1.0 - pow(h->beta2, (double)s->t),
        .grad_scale = s->grad_scale,
        .key = mb_rng_key(h->seed, MB_SITE_OPTIM, 0),
        .step = s->t,
        .place = s->place,
    };
}

static mb_status update(mb_exec *ex, const mb_optim_hyper *h, const mb_optim_step *s,
                        mb_tensor *param, mb_tensor *state, const mb_tensor *grad)
{
    const mb_adamw a = adamw_of(h, s);

    return MB_RUN(ex, adamw, param, &state[EXP_AVG], &state[EXP_AVG_SQ], grad, &a);
}

static mb_status update_bf16(mb_exec *ex, const mb_optim_hyper *h, const mb_optim_step *s,
                             mb_tensor *param, mb_tensor *state, const mb_tensor *grad)
{
    const mb_adamw a = adamw_of(h, s);

    return MB_RUN(ex, adamw_bf16, param, &state[EXP_AVG], &state[EXP_AVG_SQ], grad, &a);
}

static mb_status update_8bit(mb_exec *ex, const mb_optim_hyper *h, const mb_optim_step *s,
                             mb_tensor *param, mb_tensor *state, const mb_tensor *grad)
{
    const mb_adamw a = adamw_of(h, s);

    return MB_RUN(ex, adamw_8bit, param, &state[EXP_AVG], &state[EXP_AVG_SQ], grad, &a);
}

#define STATES .n_states = 2, .state = {"exp_avg", "exp_avg_sq"}

const mb_optim_kind mb_optim_adamw = {
    .name = "adamw",
    STATES,
    .dtype = {MB_DTYPE_F32, MB_DTYPE_F32},
    .update = update,
};

const mb_optim_kind mb_optim_adamw_bf16 = {
    .name = "adamw_bf16",
    STATES,
    .dtype = {MB_DTYPE_BF16, MB_DTYPE_BF16},
    .update = update_bf16,
};

const mb_optim_kind mb_optim_adamw_8bit = {
    .name = "adamw_8bit",
    STATES,
    .dtype = {MB_DTYPE_DYN8, MB_DTYPE_DYNU8},
    .update = update_8bit,
};
