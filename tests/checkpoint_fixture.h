/* tests/checkpoint_fixture.h - a small run to save and load: tensors of odd shapes whose every value
 * is known from (set, element, salt). Used by unit/test_checkpoint.c and dist/test_checkpoint.*.c.
 */
#ifndef MB_TESTS_CHECKPOINT_FIXTURE_H
#define MB_TESTS_CHECKPOINT_FIXTURE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/log.h"
#include "core/path.h"
#include "core/rng.h"
#include "dist/checkpoint.h"
#include "tests/check.h"

#define REFUSED(call, code)                   \
    do {                                      \
        assert_int_equal((call), (code));     \
        assert_true(mb_status_sentence()[0]); \
        mb_status_clear();                    \
    } while (0)

enum { N_TENSORS = 7 };

static const struct {
    const char *name;
    int ndim;
    int64_t dim[MB_MAX_DIMS];
} tensors[N_TENSORS] = {
    {"model.embed.weight", 2, {301, 37}},      {"model.layers.0.norm.weight", 1, {37}},
    {"model.layers.0.conv", 4, {3, 5, 7, 11}}, {"model.layers.0.bias", 1, {1}},
    {"model.layers.1.w", 3, {9, 41, 13}},      {"model.layers.1.b", 2, {1, 77}},
    {"lm_head.weight", 2, {37, 211}},
};

typedef struct run {
    mb_comm *comm;
    mb_exec ex;
    mb_flat flat;
    mb_flat_segment segment[N_TENSORS];
    mb_zero *zero;
} run;

static float value_of(int set, int64_t flat, int salt)
{
    const uint64_t key = mb_rng_key(77, (uint64_t)salt, (uint64_t)set);

    return mb_rng_unit(mb_rng_u32(key, (uint64_t)flat)) - 0.25f;
}

static const char *optim = "adamw"; /* of the runs made next */

static void run_new(run *r, mb_comm *comm, int stage)
{
    static const mb_kernels none = {.device = "none"};
    const mb_optim_hyper hyper = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    const mb_zero_options o = {.stage = stage, .n_metrics = 2, .max_micro = 1};
    const mb_mesh mesh = mb_mesh_of_one_axis(comm);
    int64_t n = 0;

    memset(r, 0, sizeof *r);
    r->comm = comm;
    r->ex = (mb_exec){.kernels = &none, .threads = 1};
    for (int i = 0; i < N_TENSORS; i++) {
        mb_flat_segment *s = &r->segment[i];
        *s = (mb_flat_segment){
            .name = tensors[i].name, .offset = n, .count = 1, .ndim = tensors[i].ndim};
        for (int k = 0; k < s->ndim; k++) {
            s->dim[k] = tensors[i].dim[k];
            s->count *= s->dim[k];
        }
        n += s->count;
    }
    n = (n + MB_GRAIN - 1) / MB_GRAIN * MB_GRAIN;
    r->flat = (mb_flat){.count = n, .n_segments = N_TENSORS, .segment = r->segment};
    r->flat.param = calloc((size_t)n, 4);
    r->flat.grad = calloc((size_t)n, 4);
    OK(mb_zero_new(&mesh, &r->ex, &r->flat, mb_optim_find(optim), &hyper, &o, &r->zero));
}

static void run_free(run *r)
{
    mb_zero_free(r->zero);
    free(r->flat.param);
    free(r->flat.grad);
}

/* Of a set that is kept in f32. */
static float *own_numbers(run *r, int set)
{
    const mb_tensor t = mb_zero_own_set(r->zero, set);

    assert_int_equal(t.dtype, MB_DTYPE_F32);
    return mb_f32(&t);
}

/* Elements that belong to a tensor; the rest is padding. */
static int64_t used(const run *r)
{
    return r->segment[N_TENSORS - 1].offset + r->segment[N_TENSORS - 1].count;
}

/* Of this rank's range of a set; the caller frees them. */
static float *values(run *r, int set, int salt)
{
    int64_t from, to;

    mb_zero_own(r->zero, &from, &to);
    float *x = calloc((size_t)(to - from) + 1, sizeof *x);
    for (int64_t i = from; i < to && i < used(r); i++)
        x[i - from] = value_of(set, i, salt);
    return x;
}

static void run_fill(run *r, int salt)
{
    for (int64_t i = 0; i < used(r); i++)
        r->flat.param[i] = value_of(0, i, salt);
    for (int set = 1; set <= 2; set++) {
        const mb_tensor own = mb_zero_own_set(r->zero, set);
        float *x = values(r, set, salt);
        OK(mb_device_write_f32(NULL, &own, x));
        free(x);
    }
    *mb_zero_history_of(r->zero) = (mb_zero_history){.applied = 1000 + salt,
                                                     .max_abs = 0.5 + salt,
                                                     .skipped = 3,
                                                     .skipped_row = 1,
                                                     .repeated = 2};
}

static void run_check(run *r, int salt)
{
    const mb_zero_history *h = mb_zero_history_of(r->zero);
    int64_t from, to;

    mb_zero_own(r->zero, &from, &to);
    for (int64_t i = 0; i < r->flat.count; i++)
        assert_true(r->flat.param[i] == (i < used(r) ? value_of(0, i, salt) : 0.0f));
    for (int set = 1; set <= 2; set++) {
        const mb_tensor own = mb_zero_own_set(r->zero, set);
        float *x = values(r, set, salt);
        mb_tensor want = own;
        want.data = calloc((size_t)(to - from) + 1, 4);
        OK(mb_device_write_f32(NULL, &want, x));
        assert_memory_equal(own.data, want.data, (size_t)mb_tensor_bytes(&own));
        free(want.data);
        free(x);
    }
    assert_true(h->applied == 1000 + salt && h->max_abs == 0.5 + salt && h->skipped == 3 &&
                h->skipped_row == 1 && h->repeated == 2);
}

/* Zeroes everything, so that a check after a load can fail. */
static void run_wipe(run *r)
{
    memset(r->flat.param, 0, (size_t)r->flat.count * 4);
    for (int set = 1; set <= 2; set++) {
        const mb_tensor own = mb_zero_own_set(r->zero, set);
        memset(own.data, 0, (size_t)mb_tensor_bytes(&own));
    }
    memset(mb_zero_history_of(r->zero), 0, sizeof(mb_zero_history));
}

static mb_checkpoint_info info_of(int64_t step)
{
    return (mb_checkpoint_info){.step = step,
                                .run_id = "0123456789abcdef",
                                .state_json = "{\"cursor\": 17}",
                                .recipe_yaml = "model: x\n"};
}

/* Fills with `salt` and saves as `step`, all in one; the outcome. */
static mb_save_outcome save(mb_checkpoints *c, run *r, int64_t step, int salt, int64_t best)
{
    const mb_checkpoint_info info = info_of(step);
    mb_save_outcome outcome;

    run_fill(r, salt);
    OK(mb_checkpoints_begin(c, r->zero, &info, best, false));
    OK(mb_checkpoints_wait(c, &outcome));
    return outcome;
}

static mb_checkpoints *folder_open(mb_comm *comm, const char *dir, int keep, int64_t piece_bytes)
{
    const mb_checkpoints_options o = {.output_dir = dir, .keep = keep, .piece_bytes = piece_bytes};
    mb_checkpoints *c = NULL;

    OK(mb_checkpoints_open(comm, &o, &c));
    return c;
}

#endif
