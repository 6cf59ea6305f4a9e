/* tests/dist/zero_cases.h - steps on synthetic gradients, on any number of ranks, against the same
 * steps on one rank in this process. Included by test_zero.np<N>.c.
 *
 * The gradient of micro-batch m is a function of (step, m, element) and of the parameters as they
 * are, so that a difference in one step grows in those after it. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/log.h"
#include "core/rng.h"
#include "dist/comm_mpi.h"
#include "dist/launch.h"
#include "dist/zero.h"
#include "tests/check.h"

enum { MICROS = 7, METRICS = 3, VOTES = 2 };

static mb_launch launch;

/* The kernels a step needs; a table of its own, so that the others need not be linked. */
static const mb_kernels kernels = {
    .device = "cpu",
    .fill = mb_cpu_fill,
    .exact_add = mb_cpu_exact_add,
    .exact_take = mb_cpu_exact_take,
    .grain_sumsq = mb_cpu_grain_sumsq,
    .scale = mb_cpu_scale,
    .adamw = mb_cpu_adamw,
    .adamw_bf16 = mb_cpu_adamw_bf16,
    .adamw_8bit = mb_cpu_adamw_8bit,
};

static const char *optim = "adamw"; /* of the problems made next */

/* What goes wrong in which step. */
typedef struct faults {
    int huge_step;     /* one micro-batch's gradient is far too large for the shift */
    int nan_step;      /* one element of one micro-batch is NaN */
    int inf_loss_step; /* one loss is infinite */
} faults;

typedef struct problem {
    mb_comm *comm; /* all ranks */
    mb_exec ex;
    mb_flat flat;
    mb_flat_segment segment[6];
    mb_zero *zero;
    double max_norm;
    faults f;
    float *state[2]; /* whole, after finish */
} problem;

static void *zeros(size_t n, size_t size)
{
    void *p = calloc(n, size);

    assert_non_null(p);
    return p;
}

/* Ranks that share copies as in mesh. */
static void problem_on(problem *p, const mb_mesh *mesh, bool exact, int stage, int64_t scale)
{
    const int64_t count[6] = {3 * scale + 17, scale, 5, 10 * scale + 1, 64, 2 * scale + 4000};
    const mb_optim_hyper hyper = {
        .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f, .seed = 7};
    const mb_zero_options o = {
        .stage = stage, .n_metrics = METRICS, .n_votes = VOTES, .max_micro = MICROS + 2};
    int64_t n = 0;

    memset(p, 0, sizeof *p);
    p->comm = mesh->world;
    p->ex = (mb_exec){.kernels = &kernels, .threads = launch.threads};
    for (int i = 0; i < 6; i++) {
        p->segment[i] = (mb_flat_segment){
            .name = "x", .offset = n, .count = count[i], .ndim = 1, .decay = i % 2 == 0};
        n += count[i];
    }
    n = (n + MB_GRAIN - 1) / MB_GRAIN * MB_GRAIN;
    p->flat = (mb_flat){.count = n, .n_segments = 6, .segment = p->segment};
    p->flat.param = zeros(n, 4);
    p->flat.grad = zeros(n, 4);
    p->flat.exact = exact ? zeros(n, 8) : NULL;
    for (int i = 0; i < 6; i++)
        for (int64_t j = 0; j < count[i]; j++)
            p->flat.param[p->segment[i].offset + j] =
                (float)mb_rng_normal(mb_rng_key(3, 1, i), (uint64_t)j) * 0.1f;
    p->max_norm = 1.0;
    p->f = (faults){-1, -1, -1};
    OK(mb_zero_new(mesh, &p->ex, &p->flat, mb_optim_find(optim), &hyper, &o, &p->zero));
}

static void problem_new(problem *p, mb_comm *comm, bool exact, int stage, int64_t scale)
{
    const mb_mesh mesh = mb_mesh_of_one_axis(comm);

    problem_on(p, &mesh, exact, stage, scale);
}

static void problem_free(problem *p)
{
    mb_zero_free(p->zero);
    free(p->flat.param);
    free(p->flat.grad);
    free(p->flat.exact);
    free(p->state[0]);
    free(p->state[1]);
}

/* Adds the gradient of one micro-batch, as a backward pass would. */
static void add_gradient(const problem *p, int step, int m, float *grad)
{
    const uint64_t key = mb_rng_key(11, (uint64_t)step, (uint64_t)m);
    const mb_flat_segment *last = &p->segment[5];
    const int64_t n = last->offset + last->count;
    const float size = step == p->f.huge_step && m == 4 ? 1e12f : (float)(1 + m);

    for (int64_t i = 0; i < n; i += 4) {
        const mb_rng_block b = mb_philox(key, (uint32_t)i, 0, 0, 0);
        for (int64_t j = i; j < i + 4 && j < n; j++)
            grad[j] += size * ((mb_rng_unit(b.w[j - i]) - 0.5f) + 0.05f * p->flat.param[j]);
    }
    if (step == p->f.nan_step && m == 2)
        grad[n / 2] = NAN;
}

static void metrics_of(const problem *p, int step, int m, double *metric)
{
    metric[MB_ZERO_LOSS] = 10.0 / (1 + step) + 0.1 * m;
    metric[MB_ZERO_TOKENS] = 30 + m;
    metric[2] = 1e-3 * m;
    if (step == p->f.inf_loss_step && m == 1)
        metric[MB_ZERO_LOSS] = INFINITY;
}

/* One attempt; micro-batches go round the ranks backwards, so that no rank has a tidy range. */
static mb_status attempt(problem *p, int step, double *votes, mb_zero_result *r)
{
    const mb_zero_args args = {.lr = 1e-2f, .max_grad_norm = p->max_norm};

    OK(mb_zero_begin(p->zero, MICROS));
    for (int m = MICROS - 1; m >= 0; m--) {
        double metric[METRICS];
        if (m % p->comm->size != p->comm->rank)
            continue;
        add_gradient(p, step, m, p->flat.grad);
        metrics_of(p, step, m, metric);
        OK(mb_zero_micro(p->zero, m));
        mb_zero_note(p->zero, m, metric);
    }
    return mb_zero_step(p->zero, &args, votes, r);
}

static mb_zero_outcome one_step(problem *p, int step, mb_zero_result *r)
{
    double votes[VOTES] = {0};

    OK(attempt(p, step, votes, r));
    if (r->outcome == MB_ZERO_REPEAT)
        OK(attempt(p, step, votes, r));
    return r->outcome;
}

/* The optimizer state of all ranks, whole. */
static void finish(problem *p)
{
    mb_comm *parts = mb_zero_parts(p->zero);
    int64_t *bounds = zeros((size_t)parts->size + 1, 8), from, to;

    mb_flat_bounds(&p->flat, parts->size, bounds);
    mb_zero_own(p->zero, &from, &to);
    for (int i = 0; i < 2; i++) {
        p->state[i] = zeros(p->flat.count, 4);
        const mb_tensor own = mb_zero_own_set(p->zero, 1 + i);
        OK(mb_device_read_f32(NULL, p->state[i] + from, &own));
        OK(parts->ops->all_gather(parts, p->state[i], bounds, MB_DTYPE_F32));
    }
    free(bounds);
}

static void assert_same_bits(const problem *a, const problem *b)
{
    assert_int_equal(a->flat.count, b->flat.count);
    assert_memory_equal(a->flat.param, b->flat.param, (size_t)a->flat.count * 4);
    for (int i = 0; i < 2; i++)
        assert_memory_equal(a->state[i], b->state[i], (size_t)a->flat.count * 4);
}

static void exact_steps_on(const mb_mesh *mesh, int64_t scale, int stage)
{
    const faults f = {.huge_step = 7, .nan_step = 11, .inf_loss_step = 13};
    problem all, one;

    problem_on(&all, mesh, true, stage, scale);
    problem_new(&one, mb_comm_self(), true, 1, scale);
    one.ex.threads = 1;
    all.f = one.f = f;
    for (int step = 0; step < 20; step++) {
        mb_zero_result ra, ro;
        const mb_zero_outcome a = one_step(&all, step, &ra), o = one_step(&one, step, &ro);
        assert_int_equal(a, o);
        assert_int_equal(a, step == 11 || step == 13 ? MB_ZERO_SKIPPED : MB_ZERO_APPLIED);
        assert_int_equal(ra.bad_micro, step == 11 ? 2 : step == 13 ? 1 : -1);
        assert_memory_equal(&ra.loss, &ro.loss, sizeof ra.loss);
        assert_memory_equal(ra.metric, ro.metric, METRICS * sizeof(double));
        if (a == MB_ZERO_APPLIED)
            assert_memory_equal(&ra.grad_norm, &ro.grad_norm, sizeof ra.grad_norm);
        assert_int_equal(mb_zero_shift(all.zero), mb_zero_shift(one.zero));
        for (int64_t i = 0; i < all.flat.count; i++)
            assert_true(all.flat.grad[i] == 0 && all.flat.exact[i] == 0);
    }
    assert_int_equal(mb_zero_history_of(all.zero)->applied, 18);
    assert_int_equal(mb_zero_history_of(all.zero)->skipped, 2);
    assert_int_equal(mb_zero_history_of(all.zero)->repeated, 1);
    finish(&all);
    finish(&one);
    assert_same_bits(&all, &one);
    problem_free(&all);
    problem_free(&one);
}

static void exact_steps_have_the_bits_of_one_rank(int64_t scale, int stage)
{
    const mb_mesh mesh = mb_mesh_of_one_axis(launch.world);

    exact_steps_on(&mesh, scale, stage);
}

static void copies_that_are_shared_give_the_bits_of_one_rank(void **state)
{
    for (int shard = 1; shard < launch.size; shard++) {
        const mb_mesh_options o = {.shard_size = shard};
        mb_mesh *mesh = NULL;
        if (launch.size % shard != 0)
            continue;
        OK(mb_mesh_new(launch.world, NULL, &o, &mesh));
        exact_steps_on(mesh, 3000, 1);
        mb_mesh_free(mesh);
    }
}

static void exact_reduction_gives_the_bits_of_one_rank(void **state)
{
    exact_steps_have_the_bits_of_one_rank(5000, 1);
}

static void stage_0_gives_the_bits_of_stage_1(void **state)
{
    exact_steps_have_the_bits_of_one_rank(1500, 0);
}

/* Their segments end within blocks of 8-bit states, with and without weight decay. */
static void states_of_fewer_bits_give_the_bits_of_one_rank(void **state)
{
    static const char *const kinds[] = {"adamw_bf16", "adamw_8bit"};

    for (int k = 0; k < 2; k++) {
        optim = kinds[k];
        exact_steps_have_the_bits_of_one_rank(3000, 1);
        exact_steps_have_the_bits_of_one_rank(20, 0);
        copies_that_are_shared_give_the_bits_of_one_rank(state);
    }
    optim = "adamw";
}

static void ranks_without_a_grain_take_part(void **state)
{
    exact_steps_have_the_bits_of_one_rank(20, 1); /* two grains */
}

static void default_reduction_repeats_and_is_close_to_one_rank(void **state)
{
    problem a, b, one;

    problem_new(&a, launch.world, false, 1, 3000);
    problem_new(&b, launch.world, false, 0, 3000);
    problem_new(&one, mb_comm_self(), false, 1, 3000);
    a.f.nan_step = b.f.nan_step = one.f.nan_step = 4;
    for (int step = 0; step < 10; step++) {
        mb_zero_result ra, rb, ro;
        const mb_zero_outcome o = one_step(&one, step, &ro);
        assert_int_equal(one_step(&a, step, &ra), o);
        assert_int_equal(one_step(&b, step, &rb), o);
        assert_int_equal(o, step == 4 ? MB_ZERO_SKIPPED : MB_ZERO_APPLIED);
        if (o == MB_ZERO_APPLIED)
            assert_true(fabs(ra.grad_norm - ro.grad_norm) <= 1e-5 * ro.grad_norm);
    }
    finish(&a);
    finish(&b);
    assert_same_bits(&a, &b);
    for (int64_t i = 0; i < a.flat.count; i++)
        assert_true(fabsf(a.flat.param[i] - one.flat.param[i]) < 2e-3f);
    problem_free(&a);
    problem_free(&b);
    problem_free(&one);
}

/* The first step in plain double arithmetic. */
static void the_first_step_is_adamw_on_the_clipped_mean(void **state)
{
    for (int exact = 0; exact < 2; exact++) {
        problem p, q;
        mb_zero_result r;
        double total = 0, tokens = 0;

        problem_new(&p, launch.world, exact, 1, 900);
        problem_new(&q, mb_comm_self(), exact, 1, 900); /* the parameters before */
        p.max_norm = 0.05;
        double *g = zeros(p.flat.count, sizeof *g);
        for (int m = 0; m < MICROS; m++) {
            double metric[METRICS];
            memset(q.flat.grad, 0, (size_t)q.flat.count * 4);
            add_gradient(&q, 0, m, q.flat.grad);
            for (int64_t i = 0; i < q.flat.count; i++)
                g[i] += q.flat.grad[i];
            metrics_of(&q, 0, m, metric);
            tokens += metric[MB_ZERO_TOKENS];
        }
        for (int64_t i = 0; i < p.flat.count; i++)
            total += g[i] * g[i];
        assert_int_equal(one_step(&p, 0, &r), MB_ZERO_APPLIED);
        assert_true(r.divisor == tokens);
        assert_true(fabs(r.grad_norm - sqrt(total) / tokens) < 1e-6 * r.grad_norm);
        assert_true(r.grad_norm > p.max_norm);
        const double clip = p.max_norm / (sqrt(total) / tokens + 1e-6);
        for (int s = 0; s < 6; s++)
            for (int64_t j = 0; j < p.segment[s].count; j++) {
                const int64_t i = p.segment[s].offset + j;
                const double d = g[i] / tokens * clip, lr = (double)1e-2f;
                double w = q.flat.param[i];
                w -= lr * (double)(p.segment[s].decay ? 0.1f : 0.0f) * w;
                w -= lr * d / (fabs(d) + 1e-8);
                assert_true(fabs(w - p.flat.param[i]) < (fabs(d) > 1e-6 ? 2e-6 : 2e-4));
            }
        free(g);
        problem_free(&p);
        problem_free(&q);
    }
}

static void state_and_messages_are_as_small_as_promised(void **state)
{
    for (int exact = 0; exact < 2; exact++) {
        problem p;
        mb_zero_result r;
        int64_t from, to, bounds[65];
        const int64_t n_ranks = launch.size, right = (launch.rank + 1) % n_ranks;

        problem_new(&p, launch.world, exact, 1, 4000);
        mb_zero_own(p.zero, &from, &to);
        const int64_t bytes = (int64_t)mb_zero_state_bytes(&p.flat, mb_optim_find("adamw"), 1,
                                                           launch.rank, launch.size);
        assert_int_equal(bytes, (to - from) * 8);
        assert_true(bytes <= p.flat.count * 8 / n_ranks + MB_GRAIN * 8);
        assert_int_equal(
            mb_zero_state_bytes(&p.flat, mb_optim_find("adamw_bf16"), 1, launch.rank, launch.size),
            bytes / 2);
        assert_int_equal(
            mb_zero_state_bytes(&p.flat, mb_optim_find("adamw_8bit"), 1, launch.rank, launch.size),
            bytes / 4 + (to - from) / 32);
        one_step(&p, 0, &r);
        const int64_t sent = p.comm->bytes_sent, requests = mb_alloc_count();
        one_step(&p, 1, &r);
        assert_int_equal(mb_alloc_count(), requests);
        mb_flat_bounds(&p.flat, (int)n_ranks, bounds);
        const int64_t n = p.flat.count, grains = n / MB_GRAIN;
        const int64_t theirs = bounds[right + 1] - bounds[right];
        const int64_t want = (n_ranks - 1) * 8 * (VOTES + MICROS * (3 + METRICS)) +
                             (exact ? 8 : 4) * (n - (to - from)) +
                             8 * (grains - theirs / MB_GRAIN) + 4 * (n - theirs);
        assert_int_equal(p.comm->bytes_sent - sent, n_ranks == 1 ? 0 : want);
        assert_int_equal(mb_zero_step_bytes(p.zero, MICROS), n_ranks == 1 ? 0 : want);
        problem_free(&p);
    }
}

static void votes_are_counted(void **state)
{
    problem p;
    mb_zero_result r;
    double votes[VOTES] = {launch.rank == 0, 1};

    problem_new(&p, launch.world, true, 1, 100);
    OK(attempt(&p, 0, votes, &r));
    assert_true(votes[0] == 1 && votes[1] == launch.size);
    problem_free(&p);
}

static void three_skips_in_a_row_stop_the_run(void **state)
{
    problem p;
    mb_zero_result r;
    double votes[VOTES] = {0};

    problem_new(&p, launch.world, true, 1, 100);
    for (int i = 0; i < 3; i++) {
        p.f.nan_step = i;
        const mb_status st = attempt(&p, i, votes, &r);
        assert_int_equal(st, i < 2 ? MB_OK : MB_ENUM);
    }
    assert_non_null(strstr(mb_status_sentence(), "3 steps in a row"));
    mb_status_clear();
    assert_int_equal(mb_zero_history_of(p.zero)->applied, 0);
    problem_free(&p);
}

static void no_trained_token_is_an_error(void **state)
{
    problem p;
    mb_zero_result r;
    double votes[VOTES] = {0};
    const mb_zero_args args = {.lr = 1e-2f};
    const double metric[METRICS] = {0};

    problem_new(&p, launch.world, true, 1, 100);
    OK(mb_zero_begin(p.zero, 1));
    if (launch.rank == 0) {
        OK(mb_zero_micro(p.zero, 0));
        mb_zero_note(p.zero, 0, metric);
    }
    assert_int_equal(mb_zero_step(p.zero, &args, votes, &r), MB_EDATA);
    mb_status_clear();
    problem_free(&p);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_reduction_gives_the_bits_of_one_rank),
        cmocka_unit_test(copies_that_are_shared_give_the_bits_of_one_rank),
        cmocka_unit_test(stage_0_gives_the_bits_of_stage_1),
        cmocka_unit_test(states_of_fewer_bits_give_the_bits_of_one_rank),
        cmocka_unit_test(ranks_without_a_grain_take_part),
        cmocka_unit_test(default_reduction_repeats_and_is_close_to_one_rank),
        cmocka_unit_test(the_first_step_is_adamw_on_the_clipped_mean),
        cmocka_unit_test(state_and_messages_are_as_small_as_promised),
        cmocka_unit_test(votes_are_counted),
        cmocka_unit_test(three_skips_in_a_row_stop_the_run),
        cmocka_unit_test(no_trained_token_is_an_error),
    };

    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed != 0) /* a rank that failed alone leaves others waiting */
        mb_mpi_abort(1);
    return mb_launch_end(&launch, MB_OK);
}
