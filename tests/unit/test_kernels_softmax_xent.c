/* tests/unit/test_kernels_softmax_xent.c - cross-entropy and its gradient against f64. */
#include "kernel_test.h"

struct problem {
    mb_tensor logits, start, logprob, label, weight;
};

/* Every third row has weight 0 and an impossible label. */
static struct problem problem_of(int64_t rows, int64_t cols, int64_t gap, float spread)
{
    struct problem p = {
        .logits = random_matrix(rows, cols, gap, spread),
        .logprob = vector(rows),
        .label = mb_tensor_1d(take(4 * rows), MB_DTYPE_I32, rows),
        .weight = random_vector(rows, 1.0f, 0.1f),
    };

    p.start = copy_of(&p.logits);
    for (int64_t r = 0; r < rows; r++) {
        mb_i32(&p.label)[r] = r % 3 == 2 ? -100 : (int32_t)((r * 7919 + cols / 2) % cols);
        if (r % 3 == 2)
            mb_f32(&p.weight)[r] = 0.0f;
    }
    return p;
}

static double score(double x, double cap, double scale)
{
    return cap > 0 ? cap * tanh(x * scale / cap) : x * scale;
}

static void check(const struct problem *p, double grad_scale, double cap, double scale)
{
    const int64_t n = mb_cols(&p->logits);

    for (int64_t r = 0; r < mb_rows(&p->logits); r++) {
        const float *x = mb_row(&p->start, r), *got = mb_row(&p->logits, r);
        const double w = mb_f32(&p->weight)[r];
        const int32_t label = mb_i32(&p->label)[r];
        double max = -INFINITY, sum = 0;

        for (int64_t c = 0; c < n; c++)
            max = fmax(max, score(x[c], cap, scale));
        for (int64_t c = 0; c < n; c++)
            sum += exp(score(x[c], cap, scale) - max);
        const double want = w == 0 ? 0 : score(x[label], cap, scale) - max - log(sum);
        check_near(mb_f32(&p->logprob)[r], want, 3e-6 + 3e-7 * (fabs(want) + fabs(max)));
        for (int64_t c = 0; c < n; c++) {
            const double s = score(x[c], cap, scale);
            const double slope = scale * (cap > 0 ? 1 - s / cap * (s / cap) : 1);
            const double q = exp(s - max) / sum;
            const double dx = w * grad_scale * (q - (c == label)) * slope;

            if (grad_scale == 0)
                assert_true(got[c] == x[c]);
            else
                check_near(got[c], dx,
                           w * grad_scale * scale * (2e-6 * q * (1 + fabs(max)) + 3e-7));
        }
    }
    check_gaps(&p->logits);
}

static void loss_and_gradient_agree_with_f64(void **state)
{
    const float variants[][3] = {
        /* grad_scale, softcap, logit_scale */
        {0.0f, 0.0f, 1.0f},  {1.0f, 0.0f, 1.0f},  {0.25f, 0.0f, 0.125f},
        {0.0f, 30.0f, 1.0f}, {2.0f, 30.0f, 1.0f}, {1.0f, 5.0f, 3.0f},
    };

    (void)state;
    for (int v = 0; v < COUNT(variants); v++) {
        mb_exec ex = exec_with(team_sizes[v % 3]);

        FOR_EACH_SHAPE
        {
            struct problem p = problem_of(rows, cols, gap, acc ? 1.0f : 10.0f);

            RUN(&ex, softmax_xent, &p.logits, &p.logprob, &p.label, &p.weight, variants[v][0],
                variants[v][1], variants[v][2]);
            check(&p, variants[v][0], variants[v][1], variants[v][2]);
        }
        struct problem p = problem_of(3, 49152, 0, 3.0f);
        RUN(&ex, softmax_xent, &p.logits, &p.logprob, &p.label, &p.weight, variants[v][0],
            variants[v][1], variants[v][2]);
        check(&p, variants[v][0], variants[v][1], variants[v][2]);
        mb_arena_reset(memory);
    }
}

static void huge_logits_do_not_overflow(void **state)
{
    mb_exec ex = exec_with(1);
    struct problem p = problem_of(1, 4, 0, 1.0f);
    const float x[] = {1e30f, -1e30f, 1e30f, -INFINITY};

    (void)state;
    memcpy(p.logits.data, x, sizeof x);
    mb_i32(&p.label)[0] = 0;
    mb_f32(&p.weight)[0] = 1.0f;
    RUN(&ex, softmax_xent, &p.logits, &p.logprob, &p.label, &p.weight, 1.0f, 0.0f, 1.0f);
    check_near(mb_f32(&p.logprob)[0], -log(2.0), 1e-6);
    check_near(mb_f32(&p.logits)[0], -0.5, 1e-6);
    check_near(mb_f32(&p.logits)[1], 0, 0);
    check_near(mb_f32(&p.logits)[2], 0.5, 1e-6);
    check_near(mb_f32(&p.logits)[3], 0, 0);
}

static void nan_shows_in_the_loss(void **state)
{
    mb_exec ex = exec_with(1);
    struct problem p = problem_of(1, 100, 0, 1.0f);

    (void)state;
    mb_f32(&p.logits)[3] = NAN;
    RUN(&ex, softmax_xent, &p.logits, &p.logprob, &p.label, &p.weight, 1.0f, 0.0f, 1.0f);
    assert_true(isnan(mb_f32(&p.logprob)[0]));
    assert_true(isnan(mb_f32(&p.logits)[50]));
}

static void rows_do_not_depend_on_place_or_threads(void **state)
{
    mb_test_bits(true);
    (void)state;
    for (int i = 0; i < 3; i++) {
        mb_exec ex = exec_with(team_sizes[i]);
        random_at = 0;
        struct problem p = problem_of(40, 3001, 0, 3.0f);

        RUN(&ex, softmax_xent, &p.logits, &p.logprob, &p.label, &p.weight, 1.0f, 0.0f, 1.0f);
        for (int64_t r = 0; r < 40; r++) {
            mb_tensor x = mb_tensor_rows(&p.start, r, 1), lp = vector(1), row = copy_of(&x);
            mb_tensor label = mb_tensor_rows(&p.label, r, 1), w = mb_tensor_rows(&p.weight, r, 1);

            RUN(&ex, softmax_xent, &row, &lp, &label, &w, 1.0f, 0.0f, 1.0f);
            assert_memory_equal(row.data, mb_row(&p.logits, r), 3001 * 4);
            assert_true(mb_f32(&lp)[0] == mb_f32(&p.logprob)[r]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(loss_and_gradient_agree_with_f64),
        KERNEL_TEST(huge_logits_do_not_overflow),
        KERNEL_TEST(nan_shows_in_the_loss),
        KERNEL_TEST(rows_do_not_depend_on_place_or_threads),
    };

    return cmocka_run_group_tests_name("kernels: softmax_xent", tests, NULL, kernel_teardown);
}
