/* tests/unit/test_kernels_norm.c - RMSNorm and LayerNorm, forward and backward, against f64. */
#include "kernel_test.h"

static const float eps = 1e-5f;

/* What one row gives in f64. mean is 0 for RMSNorm. */
struct row_stats {
    double mean, rstd, g_mean, gh_mean;
};

static struct row_stats stats_of(const float *x, const float *dy, const float *w, int64_t n,
                                 bool centred)
{
    struct row_stats s = {0};
    double var = 0;

    for (int64_t c = 0; centred && c < n; c++)
        s.mean += x[c] / (double)n;
    for (int64_t c = 0; c < n; c++)
        var += (x[c] - s.mean) * (x[c] - s.mean) / (double)n;
    s.rstd = 1.0 / sqrt(var + (double)eps);
    for (int64_t c = 0; c < n; c++) {
        const double g = (double)w[c] * dy[c];

        s.g_mean += centred ? g / (double)n : 0.0;
        s.gh_mean += g * (x[c] - s.mean) * s.rstd / (double)n;
    }
    return s;
}

struct problem {
    mb_tensor x, dy, w, b, y, mean, rstd, dx, dw, db, dx0, dw0, db0;
};

static struct problem problem_of(int64_t rows, int64_t cols, int64_t gap, bool acc)
{
    struct problem p = {
        .x = random_matrix(rows, cols, gap, 2.0f),
        .dy = random_matrix(rows, cols, 0, 1.0f),
        .w = random_vector(cols, 1.0f, 0.2f),
        .b = random_vector(cols, 0.0f, 0.5f),
        .y = matrix(rows, cols, gap),
        .mean = vector(rows),
        .rstd = vector(rows),
        .dx = acc ? random_matrix(rows, cols, gap, 1.0f) : matrix(rows, cols, gap),
        .dw = random_vector(cols, 0.0f, 1.0f),
        .db = random_vector(cols, 0.0f, 1.0f),
    };

    p.dx0 = copy_of(&p.dx);
    p.dw0 = copy_of(&p.dw);
    p.db0 = copy_of(&p.db);
    return p;
}

static void check(const struct problem *p, bool centred, bool acc)
{
    const int64_t rows = mb_rows(&p->x), n = mb_cols(&p->x);
    const float *w = mb_f32(&p->w);
    double *dw = take(8 * n), *db = take(8 * n), *size = take(8 * n);

    for (int64_t r = 0; r < rows; r++) {
        const float *x = mb_row(&p->x, r), *dy = mb_row(&p->dy, r);
        const struct row_stats s = stats_of(x, dy, w, n, centred);

        check_near(mb_f32(&p->rstd)[r], s.rstd, 2e-6 * s.rstd);
        if (centred)
            check_near(mb_f32(&p->mean)[r], s.mean, 1e-6);
        for (int64_t c = 0; c < n; c++) {
            const double h = (x[c] - s.mean) * s.rstd, b = centred ? mb_f32(&p->b)[c] : 0.0;
            const double dx = s.rstd * (w[c] * (double)dy[c] - s.g_mean - h * s.gh_mean);

            check_near(mb_row(&p->y, r)[c], w[c] * h + b, 1e-5 * (1 + fabs(h)));
            check_near(mb_row(&p->dx, r)[c], dx + (acc ? mb_row(&p->dx0, r)[c] : 0.0),
                       1e-5 * (1 + s.rstd) * (1 + fabs(dy[c])));
            dw[c] += dy[c] * h;
            db[c] += dy[c];
            size[c] += fabs(dy[c]) * (1 + fabs(h));
        }
    }
    for (int64_t c = 0; c < n; c++) {
        check_near(mb_f32(&p->dw)[c], mb_f32(&p->dw0)[c] + dw[c], 1e-6 + 2e-6 * size[c]);
        if (centred)
            check_near(mb_f32(&p->db)[c], mb_f32(&p->db0)[c] + db[c], 1e-6 + 2e-6 * size[c]);
    }
    check_gaps(&p->y), check_gaps(&p->dx);
}

static void rmsnorm_agrees_with_f64(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    for (int plus = 0; plus < 2; plus++) {
        const float offset = (float)plus;

        FOR_EACH_SHAPE
        {
            struct problem p = problem_of(rows, cols, gap, acc);

            RUN(&ex, rmsnorm_fwd, &p.y, &p.rstd, &p.x, &p.w, offset, eps);
            RUN(&ex, rmsnorm_bwd, &p.dx, &p.dw, &p.dy, &p.x, &p.w, offset, &p.rstd, acc);
            for (int64_t c = 0; c < cols; c++)
                mb_f32(&p.w)[c] += offset;
            check(&p, false, acc);
        }
    }
}

static void layernorm_agrees_with_f64(void **state)
{
    mb_exec ex = exec_with(2);

    (void)state;
    FOR_EACH_SHAPE
    {
        struct problem p = problem_of(rows, cols, gap, acc);

        RUN(&ex, layernorm_fwd, &p.y, &p.mean, &p.rstd, &p.x, &p.w, &p.b, eps);
        RUN(&ex, layernorm_bwd, &p.dx, &p.dw, &p.db, &p.dy, &p.x, &p.w, &p.mean, &p.rstd, acc);
        check(&p, true, acc);
    }
}

static void layernorm_of_a_constant_row_is_the_bias(void **state)
{
    mb_exec ex = exec_with(1);
    struct problem p = problem_of(1, 100, 0, false);

    (void)state;
    RUN(&ex, fill, &p.x, 1000.0f);
    RUN(&ex, layernorm_fwd, &p.y, &p.mean, &p.rstd, &p.x, &p.w, &p.b, eps);
    assert_memory_equal(p.y.data, p.b.data, 400);
}

static void absent_weights_and_gradients_are_left_out(void **state)
{
    mb_test_bits(true);
    mb_exec ex = exec_with(2);
    struct problem p = problem_of(131, 65, 3, false), q = problem_of(131, 65, 3, false);
    mb_tensor dx = matrix(131, 65, 3);

    (void)state;
    /* without w and b: as with ones and zeros */
    RUN(&ex, layernorm_fwd, &p.y, NULL, NULL, &p.x, NULL, NULL, eps);
    RUN(&ex, fill, &p.w, 1.0f);
    RUN(&ex, fill, &p.b, 0.0f);
    RUN(&ex, layernorm_fwd, &q.y, &p.mean, &p.rstd, &p.x, &p.w, &p.b, eps);
    check_same(&p.y, &q.y);
    RUN(&ex, layernorm_bwd, &dx, NULL, NULL, &p.dy, &p.x, NULL, &p.mean, &p.rstd, false);
    RUN(&ex, layernorm_bwd, &p.dx, &p.dw, &p.db, &p.dy, &p.x, &p.w, &p.mean, &p.rstd, false);
    check_same(&dx, &p.dx);

    /* db alone, dw alone */
    mb_tensor dw = copy_of(&p.dw0), db = copy_of(&p.db0);
    RUN(&ex, layernorm_bwd, NULL, NULL, &db, &p.dy, &p.x, &p.w, &p.mean, &p.rstd, false);
    RUN(&ex, layernorm_bwd, NULL, &dw, NULL, &p.dy, &p.x, &p.w, &p.mean, &p.rstd, false);
    assert_memory_equal(db.data, p.db.data, 65 * 4);
    assert_memory_equal(dw.data, p.dw.data, 65 * 4);

    RUN(&ex, rmsnorm_fwd, &p.y, NULL, &p.x, &p.w, 0.0f, eps);
    RUN(&ex, rmsnorm_fwd, &q.y, &p.rstd, &p.x, &p.w, 0.0f, eps);
    check_same(&p.y, &q.y);
    RUN(&ex, rmsnorm_bwd, &p.dx, NULL, &p.dy, &p.x, &p.w, 0.0f, &p.rstd, false);
    RUN(&ex, rmsnorm_bwd, &q.dx, &q.dw, &p.dy, &p.x, &p.w, 0.0f, &p.rstd, false);
    check_same(&p.dx, &q.dx);
    RUN(&ex, rmsnorm_bwd, NULL, &q.dw0, &p.dy, &p.x, &p.w, 0.0f, &p.rstd, false);
    assert_memory_equal(q.dw.data, q.dw0.data, 65 * 4);
}

/* `add`, then the norm, in one pass: the same bits, wherever the sum goes. */
static void a_norm_after_an_addition_gives_the_bits_of_both(void **state)
{
    (void)state;
    FOR_EACH_SHAPE
    {
        mb_exec ex = exec_with(team_sizes[i_ % 3]);
        struct problem p = problem_of(rows, cols, gap, acc), q = problem_of(rows, cols, gap, acc);
        mb_tensor sum = matrix(rows, cols, gap), fused = acc ? q.x : matrix(rows, cols, gap);

        RUN(&ex, add, &sum, &q.x, &p.dy);
        mb_tensor a = copy_of(&q.x);
        if (!acc) /* else the sum takes the place of a */
            q.x = a;
        RUN(&ex, rmsnorm_fwd, &p.y, &p.rstd, &sum, &p.w, 1.0f, eps);
        RUN(&ex, add_rmsnorm_fwd, &q.y, &fused, &q.rstd, &q.x, &p.dy, &p.w, 1.0f, eps);
        check_same(&q.y, &p.y), check_same(&fused, &sum), check_same(&q.rstd, &p.rstd);
        check_gaps(&q.y), check_gaps(&fused);

        mb_tensor sum2 = matrix(rows, cols, gap);
        RUN(&ex, layernorm_fwd, &p.y, &p.mean, &p.rstd, &sum, &p.w, &p.b, eps);
        RUN(&ex, add_layernorm_fwd, &q.y, &sum2, &q.mean, &q.rstd, &a, &p.dy, &p.w, &p.b, eps);
        check_same(&q.y, &p.y), check_same(&sum2, &sum);
        check_same(&q.mean, &p.mean), check_same(&q.rstd, &p.rstd);
        RUN(&ex, layernorm_fwd, &p.y, NULL, NULL, &sum, NULL, NULL, eps);
        RUN(&ex, add_layernorm_fwd, &q.y, &a, NULL, NULL, &a, &p.dy, NULL, NULL, eps);
        check_same(&q.y, &p.y), check_same(&a, &sum);
        check_gaps(&q.y), check_gaps(&a);
    }
}

/* Of f32 values; bf16 or f16 with `gap` elements between rows. */
static mb_tensor rounded(const mb_tensor *x, mb_dtype type, int64_t gap)
{
    const int64_t rows = mb_rows(x), cols = mb_cols(x);
    mb_tensor whole = mb_tensor_2d(take(2 * rows * (cols + gap)), type, rows, cols + gap);
    mb_tensor t = mb_tensor_columns(&whole, 0, cols);

    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            ((uint16_t *)t.data)[r * (cols + gap) + c] = type == MB_DTYPE_BF16
                                                             ? mb_f32_to_bf16(mb_row(x, r)[c])
                                                             : mb_f32_to_f16(mb_row(x, r)[c]);
    return t;
}

static void check_same_16(const mb_tensor *a, const mb_tensor *b)
{
    for (int64_t r = 0; r < mb_rows(a); r++)
        assert_memory_equal((uint16_t *)a->data + r * mb_row_stride(a),
                            (uint16_t *)b->data + r * mb_row_stride(b), 2 * (size_t)mb_cols(a));
}

static void in_16_bits_a_norm_after_an_addition_gives_the_bits_of_both(void **state)
{
    static const int64_t widths[] = {7, 64, 1024, 1030, 2048, 8200, 16400};

    (void)state;
    for (int i = 0; i < COUNT(widths) * 4; i++) {
        const mb_dtype type = i % 2 == 0 ? MB_DTYPE_BF16 : MB_DTYPE_F16;
        const int64_t n = widths[i / 4], gap = i / 2 % 2 * 3;
        mb_exec ex = mb_test_on_device() ? mb_mirror_exec(scratch) : exec_with(team_sizes[i % 3]);
        struct problem p = problem_of(5, n, 0, false);
        mb_tensor a = rounded(&p.x, type, gap), b = rounded(&p.dy, type, 0);
        mb_tensor w = rounded(&p.w, type, 0), bias = rounded(&p.b, type, 0);
        mb_tensor y[2], sum[2], mean[2] = {p.mean, vector(5)}, rstd[2] = {p.rstd, vector(5)};

        w = mb_tensor_1d(w.data, type, n), bias = mb_tensor_1d(bias.data, type, n);
        for (int k = 0; k < 2; k++)
            y[k] = rounded(&p.x, type, gap), sum[k] = rounded(&p.x, type, gap);
        RUN(&ex, add, &sum[0], &a, &b);
        RUN(&ex, rmsnorm_fwd, &y[0], &rstd[0], &sum[0], &w, 0.0f, eps);
        RUN(&ex, add_rmsnorm_fwd, &y[1], &sum[1], &rstd[1], &a, &b, &w, 0.0f, eps);
        check_same_16(&y[0], &y[1]), check_same_16(&sum[0], &sum[1]);
        check_same(&rstd[0], &rstd[1]);
        RUN(&ex, layernorm_fwd, &y[0], &mean[0], &rstd[0], &sum[0], &w, &bias, eps);
        RUN(&ex, add_layernorm_fwd, &y[1], &sum[1], &mean[1], &rstd[1], &a, &b, &w, &bias, eps);
        check_same_16(&y[0], &y[1]), check_same_16(&sum[0], &sum[1]);
        check_same(&rstd[0], &rstd[1]), check_same(&mean[0], &mean[1]);
        mb_arena_reset(memory);
    }
}

/* Widths on both sides of every border between ways of sharing a row out. */
static void rows_of_any_width_agree_with_f64(void **state)
{
    static const int64_t widths[] = {1023, 1024, 1025, 2048, 2056, 4096, 8192, 8200, 16384, 16400};

    (void)state;
    for (int i = 0; i < COUNT(widths); i++) {
        mb_exec ex = exec_with(2);
        struct problem p = problem_of(11, widths[i], 0, i % 2 == 1);

        RUN(&ex, rmsnorm_fwd, &p.y, &p.rstd, &p.x, &p.w, 0.0f, eps);
        RUN(&ex, rmsnorm_bwd, &p.dx, &p.dw, &p.dy, &p.x, &p.w, 0.0f, &p.rstd, i % 2 == 1);
        check(&p, false, i % 2 == 1);
        p = problem_of(11, widths[i], 0, i % 2 == 1);
        RUN(&ex, layernorm_fwd, &p.y, &p.mean, &p.rstd, &p.x, &p.w, &p.b, eps);
        RUN(&ex, layernorm_bwd, &p.dx, &p.dw, &p.db, &p.dy, &p.x, &p.w, &p.mean, &p.rstd,
            i % 2 == 1);
        check(&p, true, i % 2 == 1);
        mb_arena_reset(memory);
    }
}

static void a_row_does_not_depend_on_its_place(void **state)
{
    mb_test_bits(true);
    mb_exec ex = exec_with(2);

    (void)state;
    for (int k = 0; k < 4; k++) { /* layernorm and rmsnorm, one strip of a row and several */
        const int64_t n = k < 2 ? 577 : 3001;
        struct problem p = problem_of(131, n, 0, false);
        mb_tensor y = matrix(1, n, 0), dx = matrix(1, n, 0), mean = vector(1), rstd = vector(1);

        if (k % 2 == 0) {
            RUN(&ex, layernorm_fwd, &p.y, &p.mean, &p.rstd, &p.x, &p.w, &p.b, eps);
            RUN(&ex, layernorm_bwd, &p.dx, NULL, NULL, &p.dy, &p.x, &p.w, &p.mean, &p.rstd, false);
        } else {
            RUN(&ex, rmsnorm_fwd, &p.y, &p.rstd, &p.x, &p.w, 0.0f, eps);
            RUN(&ex, rmsnorm_bwd, &p.dx, NULL, &p.dy, &p.x, &p.w, 0.0f, &p.rstd, false);
        }
        for (int64_t r = 0; r < 131; r += 13) {
            mb_tensor x = mb_tensor_rows(&p.x, r, 1), dy = mb_tensor_rows(&p.dy, r, 1);

            if (k % 2 == 0) {
                RUN(&ex, layernorm_fwd, &y, &mean, &rstd, &x, &p.w, &p.b, eps);
                RUN(&ex, layernorm_bwd, &dx, NULL, NULL, &dy, &x, &p.w, &mean, &rstd, false);
            } else {
                RUN(&ex, rmsnorm_fwd, &y, &rstd, &x, &p.w, 0.0f, eps);
                RUN(&ex, rmsnorm_bwd, &dx, NULL, &dy, &x, &p.w, 0.0f, &rstd, false);
            }
            assert_memory_equal(y.data, mb_row(&p.y, r), 4 * (size_t)n);
            assert_memory_equal(dx.data, mb_row(&p.dx, r), 4 * (size_t)n);
        }
        mb_arena_reset(memory);
    }
}

static void threads_do_not_change_bits(void **state)
{
    mb_test_bits(true);
    struct problem p = problem_of(500, 577, 0, false);
    mb_tensor dw[3], db[3], rw[3], ly[3], ldx[3], ry[3], rdx[3];

    (void)state;
    for (int i = 0; i < 3; i++) {
        mb_exec ex = exec_with(team_sizes[i]);

        dw[i] = copy_of(&p.dw0), db[i] = copy_of(&p.db0), rw[i] = copy_of(&p.dw0);
        RUN(&ex, layernorm_fwd, &p.y, &p.mean, &p.rstd, &p.x, &p.w, &p.b, eps);
        RUN(&ex, layernorm_bwd, &p.dx, &dw[i], &db[i], &p.dy, &p.x, &p.w, &p.mean, &p.rstd, false);
        ly[i] = copy_of(&p.y), ldx[i] = copy_of(&p.dx);
        RUN(&ex, rmsnorm_fwd, &p.y, &p.rstd, &p.x, &p.w, 0.0f, eps);
        RUN(&ex, rmsnorm_bwd, &p.dx, &rw[i], &p.dy, &p.x, &p.w, 0.0f, &p.rstd, false);
        ry[i] = copy_of(&p.y), rdx[i] = copy_of(&p.dx);
        assert_memory_equal(dw[i].data, dw[0].data, 577 * 4);
        assert_memory_equal(db[i].data, db[0].data, 577 * 4);
        assert_memory_equal(rw[i].data, rw[0].data, 577 * 4);
        check_same(&ly[i], &ly[0]), check_same(&ldx[i], &ldx[0]);
        check_same(&ry[i], &ry[0]), check_same(&rdx[i], &rdx[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(rmsnorm_agrees_with_f64),
        KERNEL_TEST(layernorm_agrees_with_f64),
        KERNEL_TEST(layernorm_of_a_constant_row_is_the_bias),
        KERNEL_TEST(absent_weights_and_gradients_are_left_out),
        KERNEL_TEST(a_norm_after_an_addition_gives_the_bits_of_both),
        KERNEL_TEST(in_16_bits_a_norm_after_an_addition_gives_the_bits_of_both),
        KERNEL_TEST(rows_of_any_width_agree_with_f64),
        KERNEL_TEST(a_row_does_not_depend_on_its_place),
        KERNEL_TEST(threads_do_not_change_bits),
    };

    return cmocka_run_group_tests_name("kernels: norms", tests, NULL, kernel_teardown);
}
