/* tests/ops/test_gradients.c - every registered op against finite differences.
 *
 * Nothing here names an op. An op joins by joining ops.def; its sample() says on what. For each
 * input x the derivative of L = sum_i p_i y_i is compared with the fourth-order difference quotient
 * of L, which is taken in double from the op's f32 outputs. The same gradients must come out, bit
 * for bit, of a step whose buffers lie where the planner put them and whose freed bytes are
 * poisoned: an op that reads in its backward what it did not name fails here.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "autograd/ops.h"
#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/plan/plan.h"
#include "tests/check.h"

enum { MEMORY = 8 << 20, GRADS = 1 << 16 };

struct bench {
    mb_arena *memory, *scratch, *counting, *counting_scratch;
    mb_tape *tape, *planner;
    mb_exec ex;
};

static int set_up(void **state)
{
    static struct bench b;

    OK(mb_cpu_init());
    OK(mb_arena_new("step", MEMORY, &b.memory));
    OK(mb_arena_new("scratch", MEMORY, &b.scratch));
    OK(mb_arena_new("counted step", SIZE_MAX, &b.counting));
    OK(mb_arena_new("counted scratch", SIZE_MAX, &b.counting_scratch));
    OK(mb_tape_new(b.memory, &b.tape));
    OK(mb_tape_new(b.counting, &b.planner));
    b.ex = mb_cpu_exec(b.scratch, 2);
    *state = &b;
    return 0;
}

static double projected(const mb_var *y)
{
    const int64_t n = mb_tensor_count(&y->value);
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)mb_sample_projection(i) * (double)mb_f32(&y->value)[i];
    return sum;
}

/* L with element `at` of sample input `input` moved by `by`. Ops read their inputs when they are
 * applied, so the sample is built, its input changed, and the calls run again by building once more
 * with the change remembered. */
static struct {
    int input;
    int64_t at;
    float by;
} nudge = {.input = -1};

static bool run(struct bench *b, const mb_op *op, int i, mb_tape *t, mb_exec *ex,
                const mb_tape_plan *plan, mb_var **y)
{
    OK(mb_tape_begin(t, ex, MB_TAPE_TRAIN, false, plan));
    mb_sample_nudge(t, nudge.input, nudge.at, nudge.by);
    OK(op->sample(t, i, y));
    return *y != NULL;
}

static double loss(struct bench *b, const mb_op *op, int i, int input, int64_t at, float by)
{
    mb_var *y;

    nudge.input = input;
    nudge.at = at;
    nudge.by = by;
    run(b, op, i, b->tape, &b->ex, NULL, &y);
    nudge.input = -1;
    return projected(y);
}

static double quotient(struct bench *b, const mb_op *op, int i, int input, int64_t at)
{
    const float h = 0.02f;
    const double near = loss(b, op, i, input, at, h) - loss(b, op, i, input, at, -h);
    const double far = loss(b, op, i, input, at, 2 * h) - loss(b, op, i, input, at, -2 * h);

    return (8.0 * near - far) / (12.0 * (double)h);
}

static void seed(struct bench *b, mb_tape *t, mb_exec *ex, mb_var *y)
{
    static float p[GRADS];
    mb_tensor g = y->value;

    for (int64_t i = 0; i < mb_tensor_count(&g); i++)
        p[i] = mb_sample_projection(i);
    g = mb_tensor_of(p, MB_DTYPE_F32, y->value.ndim, y->value.dim);
    OK(mb_tape_seed(t, y, 0.0f, &g));
}

/* Gradients of all sample inputs, one after the other; returns how many numbers. */
static int64_t gradients(struct bench *b, const mb_op *op, int i, const mb_tape_plan *plan,
                         float *out, int *n_inputs, int64_t *sizes)
{
    int64_t n = 0;
    mb_var *y;

    if (!run(b, op, i, b->tape, &b->ex, plan, &y))
        return -1;
    seed(b, b->tape, &b->ex, y);
    OK(mb_tape_backward(b->tape));
    *n_inputs = mb_sample_count(b->tape);
    for (int k = 0; k < *n_inputs; k++) {
        const mb_var *v = mb_sample_get(b->tape, k);
        sizes[k] = mb_tensor_count(&v->value);
        assert_true(n + sizes[k] <= GRADS);
        if (v->grad.data == NULL)
            fail_msg("%s, case %d: input %d got no gradient", op->name, i, k);
        memcpy(out + n, v->grad.data, (size_t)sizes[k] * sizeof(float));
        n += sizes[k];
    }
    return n;
}

static void compare(struct bench *b, const mb_op *op, int i, const float *grad, int n_inputs,
                    const int64_t *sizes)
{
    int64_t from = 0;

    for (int k = 0; k < n_inputs; from += sizes[k++]) {
        double largest = 0.0, worst = 0.0;
        int64_t step = sizes[k] / 40 + 1, where = 0;

        for (int64_t e = 0; e < sizes[k]; e++)
            largest = fmax(largest, fabs((double)grad[from + e]));
        for (int64_t e = 0; e < sizes[k]; e += step) {
            const double d = fabs(quotient(b, op, i, k, e) - (double)grad[from + e]);
            if (d > worst) {
                worst = d;
                where = e;
            }
        }
        if (worst > 2e-3 * (largest + 0.1))
            fail_msg("%s, case %d, input %d, element %lld: derivative %.6f, backward says %.6f",
                     op->name, i, k, (long long)where, quotient(b, op, i, k, where),
                     (double)grad[from + where]);
    }
}

static void same_when_planned(struct bench *b, const mb_op *op, int i, const float *grad, int64_t n)
{
    static float planned[GRADS];
    mb_kernels table;
    mb_exec ex = mb_plan_exec(&b->ex, &table, b->counting_scratch);
    mb_tape_plan plan;
    int64_t sizes[16];
    int n_inputs;
    mb_var *y;
    void *all;

    run(b, op, i, b->planner, &ex, NULL, &y);
    seed(b, b->planner, &ex, y);
    OK(mb_tape_backward(b->planner));
    OK(mb_tape_make_plan(b->planner, &plan));
    mb_arena_reset(b->memory);
    OK(mb_arena_take(b->memory, plan.peak, &all));
    memset(all, 0xff, plan.peak); /* NaNs wherever nothing was written */
    assert_int_equal(gradients(b, op, i, &plan, planned, &n_inputs, sizes), n);
    if (memcmp(planned, grad, (size_t)n * sizeof(float)) != 0)
        fail_msg("%s, case %d: gradients differ when buffers are placed by the plan", op->name, i);
    mb_tape_plan_release(&plan);
}

static void backward_matches_finite_differences(void **state)
{
    static float grad[GRADS];
    struct bench *b = *state;
    int64_t sizes[16];
    int n_inputs;

    for (int o = 0; mb_ops[o] != NULL; o++) {
        int i = 0;
        for (;; i++) {
            const int64_t n = gradients(b, mb_ops[o], i, NULL, grad, &n_inputs, sizes);
            if (n < 0)
                break;
            compare(b, mb_ops[o], i, grad, n_inputs, sizes);
            same_when_planned(b, mb_ops[o], i, grad, n);
        }
        if (i == 0)
            fail_msg("op %s has no samples", mb_ops[o]->name);
        printf("  %-14s %d cases\n", mb_ops[o]->name, i);
    }
}

static void bits_do_not_depend_on_threads(void **state)
{
    static float one[GRADS], many[GRADS];
    struct bench *b = *state;
    int64_t sizes[16];
    int n_inputs;

    for (int o = 0; mb_ops[o] != NULL; o++) {
        for (int i = 0;; i++) {
            b->ex.threads = 1;
            const int64_t n = gradients(b, mb_ops[o], i, NULL, one, &n_inputs, sizes);
            if (n < 0)
                break;
            b->ex.threads = 3;
            gradients(b, mb_ops[o], i, NULL, many, &n_inputs, sizes);
            if (memcmp(one, many, (size_t)n * sizeof(float)) != 0)
                fail_msg("%s, case %d: 1 and 3 threads give different bits", mb_ops[o]->name, i);
        }
    }
    b->ex.threads = 2;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backward_matches_finite_differences),
        cmocka_unit_test(bits_do_not_depend_on_threads),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
