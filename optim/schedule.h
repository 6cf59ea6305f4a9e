/* optim/schedule.h - learning-rate schedules: a pure function of the step.
 *
 * The rate used for optimizer step `step` (from 0) is base_lr * factor(step); factor is one small
 * function per schedule, equal to the lambdas behind transformers' get_scheduler to 1e-9. Nothing
 * is stored between steps, so a resumed run needs only its step number.
 *
 *     mb_schedule_args a = mb_schedule_defaults();
 *     a.base_lr = 2e-4, a.total = steps;
 *     a.warmup = mb_schedule_warmup(warmup_steps, warmup_ratio, steps);
 *     MB_TRY(mb_schedule_set(&a, "num_cycles", "3"));       // lr_scheduler_kwargs, if any
 *     MB_TRY(mb_schedule_check(kind, &a));
 *     lr = mb_schedule_lr(kind, &a, step);
 */
#ifndef MB_OPTIM_SCHEDULE_H
#define MB_OPTIM_SCHEDULE_H

#include <stdint.h>

#include "core/status.h"

typedef enum mb_curve { MB_CURVE_LINEAR, MB_CURVE_COSINE, MB_CURVE_ONE_MINUS_SQRT } mb_curve;

/* NaN (a double) or -1 (a count) means "not given"; the schedule then uses its own default. */
typedef struct mb_schedule_args {
    double base_lr;
    int64_t warmup, total;  /* optimizer steps */
    double num_cycles;      /* cosine family: 0.5 half waves; cosine_with_restarts: 1 */
    double min_lr;          /* cosine_with_min_lr: an absolute rate ... */
    double min_lr_ratio;    /* ... or a share of base_lr; also warmup_stable_decay's floor (0) */
    double warmup_lr_ratio; /* cosine_warmup_with_min_lr: share of base_lr at step 0 */
    double lr_end, power;   /* polynomial: 1e-7, 1 */
    int64_t timescale;      /* inverse_sqrt: warmup, or 10000 without warm-up */
    int64_t stable, decay;  /* warmup_stable_decay: steps of each; decay has no default */
    mb_curve warmup_curve, decay_curve; /* warmup_stable_decay: linear, cosine */
} mb_schedule_args;

typedef struct mb_schedule_kind {
    const char *name, *alias; /* alias: optional, another name users type */
    double (*factor)(const mb_schedule_args *a, int64_t step);
    /* optional: what this schedule needs beyond the common checks */
    mb_status (*check)(const mb_schedule_args *a);
} mb_schedule_kind;

/* All kinds, ended by a NULL name; NULL when no kind has that name or alias. */
extern const mb_schedule_kind mb_schedule_kinds[];
const mb_schedule_kind *mb_schedule_find(const char *name);

mb_schedule_args mb_schedule_defaults(void);
/* Sets a keyword as lr_scheduler_kwargs names it ("min_lr", "min_lr_rate", "num_decay_steps",
 * "decay_type" ...). MB_EARG names the keyword and what it takes. */
mb_status mb_schedule_set(mb_schedule_args *a, const char *key, const char *value) MB_MUST_USE;
/* MB_EARG says which number does not fit. mb_schedule_lr needs checked arguments. */
mb_status mb_schedule_check(const mb_schedule_kind *k, const mb_schedule_args *a) MB_MUST_USE;

/* Warm-up steps out of the two ways to ask for them: `steps` >= 1 counts steps, `steps` in (0,1)
 * is a share of `total`, otherwise `ratio` is. A share is rounded up, as transformers does. */
int64_t mb_schedule_warmup(double steps, double ratio, int64_t total);

double mb_schedule_lr(const mb_schedule_kind *k, const mb_schedule_args *a, int64_t step);

#endif
