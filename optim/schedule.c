/* optim/schedule.c - the schedules, one row each in the table at the end.
 *
 * Notation: s step, w warm-up steps, n total steps, p = (s - w) / (n - w) progress after warm-up.
 */
#include "optim/schedule.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

static double or_default(double given, double fallback)
{
    return isnan(given) ? fallback : given;
}

static double at_least_one(int64_t n)
{
    return n > 1 ? (double)n : 1.0;
}

static double warm(const mb_schedule_args *a, int64_t s)
{
    return (double)s / at_least_one(a->warmup);
}

static double progress(const mb_schedule_args *a, int64_t s)
{
    return (double)(s - a->warmup) / at_least_one(a->total - a->warmup);
}

static double wave(double cycles, double p)
{
    return 0.5 * (1.0 + cos(pi * cycles * 2.0 * p));
}

static double constant(const mb_schedule_args *a, int64_t s)
{
    return 1.0;
}

static double constant_with_warmup(const mb_schedule_args *a, int64_t s)
{
    return s < a->warmup ? warm(a, s) : 1.0;
}

static double linear(const mb_schedule_args *a, int64_t s)
{
    if (s < a->warmup)
        return warm(a, s);
    return fmax(0.0, (double)(a->total - s) / at_least_one(a->total - a->warmup));
}

static double cosine(const mb_schedule_args *a, int64_t s)
{
    if (s < a->warmup)
        return warm(a, s);
    return fmax(0.0, wave(or_default(a->num_cycles, 0.5), progress(a, s)));
}

static double cosine_with_restarts(const mb_schedule_args *a, int64_t s)
{
    if (s < a->warmup)
        return warm(a, s);

    const double p = progress(a, s);

    if (p >= 1.0)
        return 0.0;
    return fmax(0.0, 0.5 * (1.0 + cos(pi * fmod(or_default(a->num_cycles, 1.0) * p, 1.0))));
}

static double polynomial(const mb_schedule_args *a, int64_t s)
{
    const double end = or_default(a->lr_end, 1e-7);

    if (s < a->warmup)
        return warm(a, s);
    if (s > a->total)
        return end / a->base_lr;

    const double left = 1.0 - progress(a, s);

    return ((a->base_lr - end) * pow(left, or_default(a->power, 1.0)) + end) / a->base_lr;
}

static double inverse_sqrt(const mb_schedule_args *a, int64_t s)
{
    const int64_t fallback = a->warmup > 0 ? a->warmup : 10000;
    const int64_t scale = a->timescale > 0 ? a->timescale : fallback;

    if (s < a->warmup)
        return warm(a, s);
    return 1.0 / sqrt((double)(s + scale - a->warmup) / (double)scale);
}

static double floor_ratio(const mb_schedule_args *a)
{
    return isnan(a->min_lr) ? or_default(a->min_lr_ratio, 0.0) : a->min_lr / a->base_lr;
}

static double raised(double factor, double floor)
{
    return fmax(0.0, factor * (1.0 - floor) + floor);
}

static double cosine_with_min_lr(const mb_schedule_args *a, int64_t s)
{
    if (s < a->warmup)
        return warm(a, s);
    return raised(wave(or_default(a->num_cycles, 0.5), progress(a, s)), floor_ratio(a));
}

/* As above, but the first step already has a rate above zero and the last one the floor. */
static double cosine_warmup_with_min_lr(const mb_schedule_args *a, int64_t s)
{
    if (s < a->warmup && isnan(a->warmup_lr_ratio))
        return (double)(s + 1) / at_least_one(a->warmup);
    if (s < a->warmup)
        return a->warmup_lr_ratio +
               (1.0 - a->warmup_lr_ratio) * (double)s / at_least_one(a->warmup - 1);

    const double p = (double)(s - a->warmup + 1) / at_least_one(a->total - a->warmup);

    return raised(wave(or_default(a->num_cycles, 0.5), p), floor_ratio(a));
}

/* A curve that rises from 0 to 1 as p does; `cycles` bends the cosine. */
static double rise(mb_curve curve, double p)
{
    switch (curve) {
    case MB_CURVE_LINEAR:
        return p;
    case MB_CURVE_COSINE:
        return 0.5 * (1.0 - cos(pi * p));
    case MB_CURVE_ONE_MINUS_SQRT:
        return 1.0 - sqrt(1.0 - p);
    }
    return p;
}

static double fall(mb_curve curve, double p, double cycles)
{
    switch (curve) {
    case MB_CURVE_LINEAR:
        return 1.0 - p;
    case MB_CURVE_COSINE:
        return wave(cycles, p);
    case MB_CURVE_ONE_MINUS_SQRT:
        return 1.0 - sqrt(p);
    }
    return 1.0 - p;
}

static double warmup_stable_decay(const mb_schedule_args *a, int64_t s)
{
    const int64_t stable = a->stable >= 0 ? a->stable : a->total - a->warmup - a->decay;
    const int64_t falling = s - a->warmup - stable;

    if (s < a->warmup)
        return raised(rise(a->warmup_curve, warm(a, s)), floor_ratio(a));
    if (falling < 0)
        return 1.0;
    if (falling < a->decay)
        return raised(fall(a->decay_curve, (double)falling / at_least_one(a->decay),
                           or_default(a->num_cycles, 0.5)),
                      floor_ratio(a));
    return floor_ratio(a);
}

static mb_status check_polynomial(const mb_schedule_args *a)
{
    const double end = or_default(a->lr_end, 1e-7);

    MB_REQUIRE(a->base_lr > end, MB_EARG,
               "lr_scheduler_type polynomial: lr_end %g must be below the learning rate %g", end,
               a->base_lr);
    return MB_OK;
}

static mb_status check_floor(const mb_schedule_args *a)
{
    MB_REQUIRE(
        isnan(a->min_lr) != isnan(a->min_lr_ratio), MB_EARG,
        "lr_scheduler_type cosine_with_min_lr: give one of min_lr and min_lr_ratio, found %s",
        isnan(a->min_lr) ? "neither" : "both");
    return MB_OK;
}

static mb_status check_stable(const mb_schedule_args *a)
{
    MB_REQUIRE(a->decay >= 0, MB_EARG,
               "lr_scheduler_type warmup_stable_decay: lr_scheduler_kwargs needs num_decay_steps");
    MB_REQUIRE(a->stable >= 0 || a->warmup + a->decay <= a->total, MB_EARG,
               "lr_scheduler_type warmup_stable_decay: %lld warm-up and %lld decay steps are more "
               "than the %lld steps of the run",
               (long long)a->warmup, (long long)a->decay, (long long)a->total);
    return MB_OK;
}

// clang-format off
const mb_schedule_kind mb_schedule_kinds[] = {
    {.name = "linear",                    .factor = linear},
    {.name = "constant",                  .factor = constant},
    {.name = "constant_with_warmup",      .factor = constant_with_warmup},
    {.name = "cosine",                    .factor = cosine},
    {.name = "cosine_with_restarts",      .factor = cosine_with_restarts},
    {.name = "polynomial",                .factor = polynomial,   .check = check_polynomial},
    {.name = "inverse_sqrt",              .factor = inverse_sqrt},
    {.name = "cosine_with_min_lr",        .factor = cosine_with_min_lr, .check = check_floor},
    {.name = "cosine_warmup_with_min_lr", .factor = cosine_warmup_with_min_lr, .check = check_floor},
    {.name = "warmup_stable_decay", .alias = "wsd", .factor = warmup_stable_decay,
     .check = check_stable},
    {.name = NULL},
};
// clang-format on

const mb_schedule_kind *mb_schedule_find(const char *name)
{
    for (const mb_schedule_kind *k = mb_schedule_kinds; k->name != NULL; k++)
        if (strcmp(k->name, name) == 0 || (k->alias != NULL && strcmp(k->alias, name) == 0))
            return k;
    return NULL;
}

mb_schedule_args mb_schedule_defaults(void)
{
    return (mb_schedule_args){
        .num_cycles = NAN,
        .min_lr = NAN,
        .min_lr_ratio = NAN,
        .warmup_lr_ratio = NAN,
        .lr_end = NAN,
        .power = NAN,
        .timescale = -1,
        .stable = -1,
        .decay = -1,
        .warmup_curve = MB_CURVE_LINEAR,
        .decay_curve = MB_CURVE_COSINE,
    };
}

enum keyword_type { NUMBER, COUNT, CURVE };

static const struct keyword {
    const char *name;
    enum keyword_type type;
    size_t offset;
} keywords[] = {
    {"num_cycles", NUMBER, offsetof(mb_schedule_args, num_cycles)},
    {"min_lr", NUMBER, offsetof(mb_schedule_args, min_lr)},
    {"min_lr_rate", NUMBER, offsetof(mb_schedule_args, min_lr_ratio)},
    {"min_lr_ratio", NUMBER, offsetof(mb_schedule_args, min_lr_ratio)},
    {"warmup_lr_rate", NUMBER, offsetof(mb_schedule_args, warmup_lr_ratio)},
    {"lr_end", NUMBER, offsetof(mb_schedule_args, lr_end)},
    {"power", NUMBER, offsetof(mb_schedule_args, power)},
    {"timescale", COUNT, offsetof(mb_schedule_args, timescale)},
    {"num_stable_steps", COUNT, offsetof(mb_schedule_args, stable)},
    {"num_decay_steps", COUNT, offsetof(mb_schedule_args, decay)},
    {"warmup_type", CURVE, offsetof(mb_schedule_args, warmup_curve)},
    {"decay_type", CURVE, offsetof(mb_schedule_args, decay_curve)},
};

static mb_status set_curve(mb_curve *out, const char *key, const char *value)
{
    static const char *const names[] = {"linear", "cosine", "1-sqrt"};

    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], value) == 0) {
            *out = (mb_curve)i;
            return MB_OK;
        }
    }
    return MB_RAISE(MB_EARG, "lr_scheduler_kwargs: %s is \"%s\", expected linear, cosine or 1-sqrt",
                    key, value);
}

static mb_status set_keyword(const struct keyword *k, void *field, const char *value)
{
    char *end;

    if (k->type == CURVE)
        return set_curve(field, k->name, value);
    errno = 0;

    const double v = strtod(value, &end);

    MB_REQUIRE(end != value && *end == '\0' && errno == 0 && isfinite(v) && v >= 0.0, MB_EARG,
               "lr_scheduler_kwargs: %s is \"%s\", expected a number from 0", k->name, value);
    if (k->type == NUMBER) {
        *(double *)field = v;
        return MB_OK;
    }
    MB_REQUIRE(v == floor(v) && v < 9e15, MB_EARG,
               "lr_scheduler_kwargs: %s is \"%s\", expected a whole number of steps", k->name,
               value);
    *(int64_t *)field = (int64_t)v;
    return MB_OK;
}

mb_status mb_schedule_set(mb_schedule_args *a, const char *key, const char *value)
{
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
        if (strcmp(keywords[i].name, key) == 0)
            return set_keyword(&keywords[i], (char *)a + keywords[i].offset, value);
    return MB_RAISE(MB_EARG, "lr_scheduler_kwargs: no schedule takes \"%s\"", key);
}

mb_status mb_schedule_check(const mb_schedule_kind *k, const mb_schedule_args *a)
{
    MB_REQUIRE(isfinite(a->base_lr) && a->base_lr >= 0.0, MB_EARG,
               "learning_rate is %g, expected a number from 0", a->base_lr);
    MB_REQUIRE(a->warmup >= 0 && a->total >= 0, MB_EARG,
               "%s: warm-up of %lld in %lld steps is not a schedule", k->name, (long long)a->warmup,
               (long long)a->total);
    return k->check != NULL ? k->check(a) : MB_OK;
}

int64_t mb_schedule_warmup(double steps, double ratio, int64_t total)
{
    if (steps >= 1.0)
        return (int64_t)steps;
    return (int64_t)ceil((double)total * (steps > 0.0 ? steps : fmax(ratio, 0.0)));
}

double mb_schedule_lr(const mb_schedule_kind *k, const mb_schedule_args *a, int64_t step)
{
    return a->base_lr * k->factor(a, step);
}
