/* tests/unit/test_lm_head_ce.c - the output head in 16 bits, where gradients wait for several chunks of
 * targets (its samples, in tests/ops, are of f32, where none do).
 */
#include <math.h>
#include <stdint.h>

#include "autograd/batch.h"
#include "autograd/ops.h"
#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/dtype.h"
#include "tests/check.h"

/* More targets than dW waits for, and those are more than the hidden rows' gradient alone does. */
enum { ROWS = 1400, TARGETS = 1300, CAPACITY = 1312, D = 8, V = 24, MEMORY = 8 << 20 };

static mb_arena *memory, *scratch;
static mb_tape *tape;
static int32_t row[CAPACITY], label[CAPACITY];
static float weight[CAPACITY];

static int set_up(void **state)
{
    OK(mb_cpu_init());
    OK(mb_arena_new("step", MEMORY, &memory));
    OK(mb_arena_new("scratch", MEMORY, &scratch));
    OK(mb_tape_new(memory, &tape));
    assert_int_equal(CAPACITY % MB_ROW_PAD, 0);
    for (int j = 0; j < CAPACITY; j++) {
        row[j] = j < TARGETS ? ROWS - 1 - j : -1;
        label[j] = j * 7 % V;
        weight[j] = j < TARGETS ? 0.5f + (float)(j % 11) / 8 : 0.0f;
    }
    return 0;
}

/* Numbers in [-1, 1) that bf16 holds. */
static float number(int64_t i)
{
    return (float)(i * 73 % 127 - 63) / 64;
}

static mb_tensor numbers(void *data, mb_dtype d, int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < rows * cols; i++)
        if (d == MB_DTYPE_F32)
            ((float *)data)[i] = number(i);
        else
            ((uint16_t *)data)[i] = mb_f32_to_bf16(number(i));
    return mb_tensor_2d(data, d, rows, cols);
}

/* Gradients of hidden rows, in `type` as the hidden rows are, and of W: f32, or none. */
static void differentiate(mb_dtype type, void *d_hidden, float *d_w)
{
    static float hidden[ROWS * D], w[V * D];
    const mb_tensor h = numbers(hidden, type, ROWS, D), head = numbers(w, type, V, D);
    const mb_tensor dh = mb_tensor_2d(d_hidden, type, ROWS, D);
    const mb_tensor dw = mb_tensor_2d(d_w, MB_DTYPE_F32, V, D);
    mb_exec ex = mb_cpu_exec(scratch, 2);
    mb_head_args a = {.n = TARGETS,
                      .capacity = CAPACITY,
                      .row = row,
                      .label = label,
                      .weight = weight,
                      .grad_scale = 1.0f,
                      .logit_scale = 1.0f};
    mb_var *x, *logprob;

    memset(d_hidden, 0, mb_dtype_bytes(type, ROWS * D));
    OK(mb_tape_begin(tape, &ex, MB_TAPE_TRAIN, false, NULL));
    OK(mb_tape_weight(tape, &h, &dh, -1, &x));
    if (d_w != NULL) {
        memset(d_w, 0, V * D * sizeof *d_w);
        OK(mb_tape_weight(tape, &head, &dw, -1, &a.w));
    } else {
        OK(mb_tape_weight(tape, &head, NULL, -1, &a.w));
    }
    OK(mb_lm_head_ce(tape, x, &a, &logprob));
    OK(mb_tape_backward(tape));
    mb_tape_reset(tape);
}

static void gradients_that_waited_are_those_of_f32(void **state)
{
    static float want[ROWS * D], want_w[V * D], got_w[V * D];
    static uint16_t got[ROWS * D];
    double largest = 0.0;

    differentiate(MB_DTYPE_F32, want, want_w);
    for (int i = 0; i < V * D; i++)
        largest = fmax(largest, fabs((double)want_w[i]));
    for (int trained = 0; trained < 2; trained++) {
        differentiate(MB_DTYPE_BF16, got, trained ? got_w : NULL);
        for (int i = 0; i < ROWS * D; i++)
            if (!(fabsf(mb_bf16_to_f32(got[i]) - want[i]) < 0.02f))
                fail_msg("head %s: gradient of row %d, column %d is %g, in f32 %g",
                         trained ? "trained" : "frozen", i / D, i % D,
                         (double)mb_bf16_to_f32(got[i]), (double)want[i]);
    }
    for (int i = 0; i < V * D; i++)
        if (!(fabs((double)got_w[i] - (double)want_w[i]) < 0.01 * largest))
            fail_msg("dW: number %d is %g, in f32 %g", i, (double)got_w[i], (double)want_w[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_that_waited_are_those_of_f32),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
