/* tests/unit/test_gemm.c - matrix products under every provider: values against double precision,
 * bits against threads and against where a row stands. */
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/cpu/gemm.h"
#include "core/cpu/gemm_panels.h"
#include "core/cpu/gemm_rows.h"
#include "core/cpu/init.h"
#include "core/log.h"
#include "core/rng.h"
#include "tests/device/mirror.h"
#include "tests/unit/scratch_test.h"

static const char *const providers[] = {"openblas", "onednn", "own"};

static int n_providers(void)
{
    return mb_test_on_device() ? 1 : 3; /* a device has one of its own */
}

static float *numbers(int64_t n, uint64_t key)
{
    float *x;

    OK(mb_alloc((size_t)n * sizeof *x + 64, "numbers", (void **)&x));
    for (int64_t i = 0; i < n; i++)
        x[i] = mb_rng_unit(mb_philox(key, (uint32_t)i, 0, 0, 0).w[0]) * 2.0f - 1.0f;
    return x;
}

/* A (rows, cols) view inside a wider block. */
static mb_tensor strided(float *x, int64_t rows, int64_t cols, int64_t stride)
{
    mb_tensor t = mb_tensor_2d(x, MB_DTYPE_F32, rows, cols);

    t.stride[0] = stride;
    return t;
}

static void gemm(int threads, mb_tensor *c, const mb_tensor *a, bool ta, const mb_tensor *b,
                 bool tb, float alpha, float beta, const mb_tensor *bias)
{
    mb_exec ex = mb_test_exec(scratch, threads);

    OK(MB_RUN(&ex, gemm, c, a, ta, b, tb, alpha, beta, bias));
}

typedef struct shape {
    int64_t m, n, k;
} shape;

/* The last has tall tiles where there is one thread. */
static const shape shapes[] = {
    {1, 1, 1},       {1, 300, 100},   {3, 7, 5},     {15, 129, 67},   {16, 64, 64},    {17, 1, 33},
    {37, 40, 800},   {100, 400, 50},  {96, 384, 20}, {200, 10, 1600}, {16, 100, 2048}, {5, 5, 3000},
    {130, 777, 300}, {300, 20, 1000}, {2, 3, 0},     {20, 30, 0},     {390, 400, 70},
};

/* C, A and B with gaps between rows; the reference in double. */
static void check_values(shape s, bool ta, bool tb, float alpha, float beta, bool with_bias)
{
    const int64_t lda = (ta ? s.m : s.k) + 3, ldb = (tb ? s.k : s.n) + 5, ldc = s.n + 2;
    float *ad = numbers((ta ? s.k : s.m) * lda, 1), *bd = numbers((tb ? s.n : s.k) * ldb, 2);
    float *cd = numbers(s.m * ldc, 3), *c0 = numbers(s.m * ldc, 3), *bias = numbers(s.n, 4);
    const mb_tensor a = strided(ad, ta ? s.k : s.m, ta ? s.m : s.k, lda);
    const mb_tensor b = strided(bd, tb ? s.n : s.k, tb ? s.k : s.n, ldb);
    const mb_tensor bt = mb_tensor_1d(bias, MB_DTYPE_F32, s.n);
    mb_tensor c = strided(cd, s.m, s.n, ldc);

    if (beta == 0.0f)
        for (int64_t i = 0; i < s.m; i++)
            for (int64_t j = 0; j < s.n; j++)
                cd[i * ldc + j] = NAN;
    gemm(2, &c, &a, ta, &b, tb, alpha, beta, with_bias ? &bt : NULL);
    for (int64_t i = 0; i < s.m; i++) {
        for (int64_t j = 0; j < s.n; j++) {
            double sum = 0, size = 0;

            for (int64_t l = 0; l < s.k; l++) {
                const double t =
                    (double)ad[ta ? l * lda + i : i * lda + l] * bd[tb ? j * ldb + l : l * ldb + j];
                sum += t;
                size += fabs(t);
            }
            sum = alpha * sum + (with_bias ? bias[j] : 0);
            if (beta != 0.0f)
                sum += (double)beta * c0[i * ldc + j];
            if (!(fabs(cd[i * ldc + j] - sum) <= 1e-6 * (size + 2)))
                fail_msg("%s: %d x %d x %d, ta %d tb %d: C[%d,%d] = %g, expected %g",
                         mb_cpu_gemm_provider(), (int)s.m, (int)s.n, (int)s.k, ta, tb, (int)i,
                         (int)j, cd[i * ldc + j], sum);
        }
        for (int64_t j = s.n; j < ldc; j++)
            assert_true(cd[i * ldc + j] == c0[i * ldc + j]);
    }
    mb_free(ad);
    mb_free(bd);
    mb_free(cd);
    mb_free(c0);
    mb_free(bias);
}

static void check_all_values(void)
{
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (int ops = 0; ops < 4; ops++) {
            check_values(shapes[s], ops & 1, ops & 2, 1.0f, 0.0f, false);
            check_values(shapes[s], ops & 1, ops & 2, 0.75f, 0.5f, true);
            check_values(shapes[s], ops & 1, ops & 2, 1.0f, 1.0f, false);
            check_values(shapes[s], ops & 1, ops & 2, 2.0f, 0.0f, true);
        }
    }
}

static void products_equal_the_reference(void **state)
{
    for (int p = 0; p < n_providers(); p++) {
        OK(mb_cpu_gemm_use(providers[p]));
        check_all_values();
    }
    if (!mb_test_on_device() && mb_cpu_gemm_words_use(MB_WORDS_PLAIN))
        check_all_values(); /* our own, in plain C */
    mb_cpu_gemm_words_use(MB_WORDS_BEST);
}

/* Ranks an adapter may have, one longer than a block of k, odd ones; rows with gaps. */
static void adapters_add_to_the_same_sums(void **state)
{
    static const struct {
        int64_t m, n, k, r;
    } cases[] = {{1, 5, 8, 2},    {17, 70, 33, 3},   {50, 64, 40, 16},  {96, 130, 100, 48},
                 {33, 20, 10, 0}, {40, 48, 2200, 8}, {20, 100, 64, 600}};

    for (int p = 0; p < n_providers(); p++) {
        OK(mb_cpu_gemm_use(providers[p]));
        for (size_t s = 0; s < sizeof cases / sizeof *cases; s++) {
            for (int ops = 0; ops < 8; ops++) {
                const int64_t m = cases[s].m, n = cases[s].n, k = cases[s].k, r = cases[s].r;
                const bool tw = ops & 1, tb = ops & 2, adds = ops & 4;
                float *xd = numbers(m * (k + 1), 1), *wd = numbers(n * k, 2);
                float *hd = numbers(m * (r + 2) + 1, 3), *bd = numbers(n * r + 1, 4);
                float *cd = numbers(m * n, 5), *c0 = numbers(m * n, 5), *bias = numbers(n, 6);
                const mb_tensor x = strided(xd, m, k, k + 1), h = strided(hd, m, r, r + 2);
                const mb_tensor w = mb_tensor_2d(wd, MB_DTYPE_F32, tw ? n : k, tw ? k : n);
                const mb_tensor b = mb_tensor_2d(bd, MB_DTYPE_F32, tb ? n : r, tb ? r : n);
                const mb_tensor bt = mb_tensor_1d(bias, MB_DTYPE_F32, n);
                mb_tensor c = mb_tensor_2d(cd, MB_DTYPE_F32, m, n);
                mb_exec ex = mb_test_exec(scratch, 2);

                OK(MB_RUN(&ex, gemm_adapted, &c, &x, &w, tw, &h, &b, tb, adds ? 1.0f : 0.0f,
                          adds ? NULL : &bt));
                for (int64_t i = 0; i < m; i++) {
                    for (int64_t j = 0; j < n; j++) {
                        double sum = adds ? c0[i * n + j] : bias[j], size = 2;
                        for (int64_t l = 0; l < k; l++)
                            sum += (double)xd[i * (k + 1) + l] * wd[tw ? j * k + l : l * n + j];
                        for (int64_t l = 0; l < r; l++)
                            sum += (double)hd[i * (r + 2) + l] * bd[tb ? j * r + l : l * n + j];
                        size += (double)(k + r);
                        if (!(fabs(cd[i * n + j] - sum) <= 1e-6 * size))
                            fail_msg("%d x %d x %d + %d, tw %d tb %d: C[%d,%d] = %g, expected %g",
                                     (int)m, (int)n, (int)k, (int)r, tw, tb, (int)i, (int)j,
                                     cd[i * n + j], sum);
                    }
                }
                for (int i = 0; i < 7; i++)
                    mb_free((float *[]){xd, wd, hd, bd, cd, c0, bias}[i]);
            }
        }
    }
}

/* n numbers as bf16 */
static void round_all(uint16_t *to, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = mb_f32_to_bf16(x[i]);
}

/* One product of bf16 by the processor's instructions of a kind and in plain C, with an adapter of rank r
 * or none; C in f32 or bf16. Both sums go over k in order, so only their roundings differ. */
static void check_twins(mb_words_kind kind, shape s, int64_t r, bool ta, bool tb, bool to_bf16)
{
    const mb_dtype d = to_bf16 ? MB_DTYPE_BF16 : MB_DTYPE_F32;
    float *x = numbers((s.m + s.n) * (s.k + r) + 2 * s.n, 1), *c[2];
    uint16_t *ab = (uint16_t *)numbers((s.m + s.n) * (s.k + r), 2), *at = ab;
    const mb_tensor bias = mb_tensor_1d(x, MB_DTYPE_F32, s.n);
    mb_tensor out[2];

    round_all(ab, x, (s.m + s.n) * (s.k + r));
    const mb_tensor a = mb_tensor_2d(at, MB_DTYPE_BF16, ta ? s.k : s.m, ta ? s.m : s.k);
    at += s.m * s.k;
    const mb_tensor b = mb_tensor_2d(at, MB_DTYPE_BF16, tb ? s.n : s.k, tb ? s.k : s.n);
    at += s.n * s.k;
    const mb_tensor h = mb_tensor_2d(at, MB_DTYPE_BF16, s.m, r);
    at += s.m * r;
    const mb_tensor hb = mb_tensor_2d(at, MB_DTYPE_BF16, tb ? s.n : r, tb ? r : s.n);
    for (int plain = 0; plain < 2; plain++) {
        mb_exec ex = mb_cpu_exec(scratch, 2);

        c[plain] = numbers(s.m * s.n, 3);
        out[plain] = mb_tensor_2d(c[plain], d, s.m, s.n);
        mb_cpu_gemm_words_use(plain == 0 ? kind : MB_WORDS_PLAIN);
        if (r > 0)
            OK(MB_RUN(&ex, gemm_adapted, &out[plain], &a, &b, tb, &h, &hb, tb, 0.0f, &bias));
        else
            OK(MB_RUN(&ex, gemm, &out[plain], &a, ta, &b, tb, 0.75f, to_bf16 ? 0.0f : 0.5f, &bias));
    }
    mb_cpu_gemm_words_use(MB_WORDS_BEST);
    for (int64_t i = 0; i < s.m * s.n; i++) {
        const float got = to_bf16 ? mb_bf16_to_f32(((uint16_t *)c[0])[i]) : c[0][i];
        const float want = to_bf16 ? mb_bf16_to_f32(((uint16_t *)c[1])[i]) : c[1][i];
        const double step = to_bf16 ? fabs(want) / 128 : 0; /* one place of bf16 */
        if (!(fabs((double)got - want) <= 1e-6 * (double)(s.k + r + 2) + step))
            fail_msg("%d x %d x %d + %d, ta %d tb %d: number %d is %g, plain %g", (int)s.m,
                     (int)s.n, (int)s.k, (int)r, ta, tb, (int)i, got, want);
    }
    mb_free(x);
    mb_free(ab);
    mb_free(c[0]);
    mb_free(c[1]);
}

static void instructions_agree_with_plain_code(void **state)
{
    static const shape all[] = {{1, 1, 2},    {16, 16, 64},  {17, 15, 33},  {31, 32, 10},
                                {25, 47, 96}, {13, 64, 128}, {50, 100, 34}, {7, 130, 2050}};

    if (mb_test_on_device() || !mb_cpu_gemm_words_use(MB_WORDS_WIDE))
        skip();
    for (int kind = MB_WORDS_PAIRS; kind < MB_WORDS_PLAIN; kind++) {
        if (!mb_cpu_gemm_words_use((mb_words_kind)kind))
            continue;
        for (size_t s = 0; s < sizeof all / sizeof *all; s++) {
            for (int ops = 0; ops < 8; ops++)
                check_twins((mb_words_kind)kind, all[s], 0, ops & 1, ops & 2, ops & 4);
            for (int ops = 0; ops < 4; ops++)
                check_twins((mb_words_kind)kind, all[s], 6, false, ops & 1, ops & 2);
        }
    }
}

/* Calls test() under every way in which this processor can multiply bf16. */
static void with_every_kind(void (*test)(void))
{
    if (mb_test_on_device())
        skip();
    for (int kind = MB_WORDS_PAIRS; kind < MB_WORDS_KINDS; kind++)
        if (mb_cpu_gemm_words_use((mb_words_kind)kind)) {
            print_message("  %s\n", mb_cpu_gemm_words(MB_DTYPE_BF16, false)->name);
            test();
        }
    mb_cpu_gemm_words_use(MB_WORDS_BEST);
}

/* A is so large that a unit takes several panels, the last of them narrow; a few of its rows alone are
 * taken panel by panel. */
static void check_large(void)
{
    const int64_t m = 3000, n = 96, k = 2900, few = 40;
    int threads = 1;

    for (int tb = 0; tb < 2; tb++) {
        float *x = numbers((m + n) * k, 1), *whole = numbers(m * n, 2),
              *alone = numbers(few * n, 3);
        uint16_t *ab = (uint16_t *)numbers((m + n) * k, 2);

        round_all(ab, x, (m + n) * k);
        const mb_tensor a = mb_tensor_2d(ab, MB_DTYPE_BF16, m, k);
        const mb_tensor b = mb_tensor_2d(ab + m * k, MB_DTYPE_BF16, tb ? n : k, tb ? k : n);
        mb_tensor c = mb_tensor_2d(whole, MB_DTYPE_F32, m, n);
        gemm(3, &c, &a, false, &b, tb, 1.0f, 0.0f, NULL);
        for (int64_t row = 0; row < m; row += m - few) {
            const mb_tensor some = mb_tensor_2d(ab + row * k, MB_DTYPE_BF16, few, k);
            c = mb_tensor_2d(alone, MB_DTYPE_F32, few, n);
            gemm(threads++, &c, &some, false, &b, tb, 1.0f, 0.0f, NULL);
            assert_memory_equal(alone, whole + row * n, (size_t)(few * n) * sizeof *alone);
        }
        mb_free(x);
        mb_free(ab);
        mb_free(whole);
        mb_free(alone);
    }
}

static void a_large_product_has_the_bits_of_its_rows_alone(void **state)
{
    with_every_kind(check_large);
}

/* Gradients of an adapter's B: C is computed across. A bias, of zeros, keeps it from that. */
static void check_across(void)
{
    static const shape all[] = {
        {300, 16, 2050}, {256, 64, 48}, {67, 5, 31}, {1000, 33, 4100}, {4, 1, 2}};

    for (size_t s = 0; s < 2 * sizeof all / sizeof *all; s++) {
        const shape d = all[s / 2];
        const int64_t stride = d.n + 3;
        float *x = numbers((d.m + d.n) * d.k, 1), *zeros = numbers(d.n, 1);
        float *got = numbers(d.m * stride, 2), *want = numbers(d.m * stride, 2);
        uint16_t *ab = (uint16_t *)numbers((d.m + d.n) * d.k, 2);

        round_all(ab, x, (d.m + d.n) * d.k);
        memset(zeros, 0, (size_t)d.n * sizeof *zeros);
        const mb_tensor a = mb_tensor_2d(ab, MB_DTYPE_BF16, d.k, d.m);
        const mb_tensor b = mb_tensor_2d(ab + d.m * d.k, MB_DTYPE_BF16, d.k, d.n);
        const mb_tensor bias = mb_tensor_1d(zeros, MB_DTYPE_F32, d.n);
        mb_tensor c = strided(got, d.m, d.n, stride);
        gemm(2, &c, &a, true, &b, false, 1.0f, s % 2 ? 1.0f : 0.0f, NULL);
        c = strided(want, d.m, d.n, stride);
        gemm(1, &c, &a, true, &b, false, 1.0f, s % 2 ? 1.0f : 0.0f, &bias);
        assert_memory_equal(got, want, (size_t)(d.m * stride) * sizeof *got);
        mb_free(x);
        mb_free(zeros);
        mb_free(got);
        mb_free(want);
        mb_free(ab);
    }
}

static void a_narrow_gradient_computed_across_has_the_same_bits(void **state)
{
    with_every_kind(check_across);
}

static void threads_change_no_bit(void **state)
{
    static const int threads[] = {1, 2, 3, 8};
    const int runs = mb_test_on_device() ? 2 : 4;

    mb_test_bits(true);
    for (int p = 0; p < n_providers(); p++) {
        OK(mb_cpu_gemm_use(providers[p]));
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            const shape d = shapes[s];
            float *first = numbers(d.m * d.n, 3);

            for (int i = 0; i < 4 * runs; i++) {
                const bool ta = i / runs & 1, tb = i / runs & 2;
                float *ad = numbers(d.m * d.k, 1), *bd = numbers(d.n * d.k, 2);
                float *cd = numbers(d.m * d.n, 3);
                const mb_tensor a = mb_tensor_2d(ad, MB_DTYPE_F32, ta ? d.k : d.m, ta ? d.m : d.k);
                const mb_tensor b = mb_tensor_2d(bd, MB_DTYPE_F32, tb ? d.n : d.k, tb ? d.k : d.n);
                mb_tensor c = mb_tensor_2d(cd, MB_DTYPE_F32, d.m, d.n);

                gemm(threads[i % runs], &c, &a, ta, &b, tb, 1.0f, 0.5f, NULL);
                if (i % runs == 0)
                    memcpy(first, cd, (size_t)(d.m * d.n) * sizeof *cd);
                assert_memory_equal(first, cd, (size_t)(d.m * d.n) * sizeof *cd);
                mb_free(ad);
                mb_free(bd);
                mb_free(cd);
            }
            mb_free(first);
        }
    }
}

/* Rows [from, from+rows) of a (m, k) batch are moved to `to` of a (m2, k) batch of other rows. */
static void check_moved(int64_t m, int64_t from, int64_t m2, int64_t to, int64_t rows, int64_t n,
                        int64_t k, bool tb, float beta)
{
    float *a1 = numbers(m * k, 1), *a2 = numbers(m2 * k, 5), *w = numbers(n * k, 2);
    float *c1 = numbers(m * n, 6), *c2 = numbers(m2 * n, 7);
    const mb_tensor ta1 = mb_tensor_2d(a1, MB_DTYPE_F32, m, k);
    const mb_tensor ta2 = mb_tensor_2d(a2, MB_DTYPE_F32, m2, k);
    const mb_tensor tw = mb_tensor_2d(w, MB_DTYPE_F32, tb ? n : k, tb ? k : n);
    mb_tensor tc1 = mb_tensor_2d(c1, MB_DTYPE_F32, m, n);
    mb_tensor tc2 = mb_tensor_2d(c2, MB_DTYPE_F32, m2, n);

    memcpy(a2 + to * k, a1 + from * k, (size_t)(rows * k) * sizeof *a1);
    memcpy(c2 + to * n, c1 + from * n, (size_t)(rows * n) * sizeof *a1);
    gemm(2, &tc1, &ta1, false, &tw, tb, 1.5f, beta, NULL);
    gemm(1, &tc2, &ta2, false, &tw, tb, 1.5f, beta, NULL);
    if (memcmp(c1 + from * n, c2 + to * n, (size_t)(rows * n) * sizeof *c1) != 0)
        fail_msg("%s: rows %d..%d of %d moved to %d of %d change (n %d, k %d, tb %d, beta %g)",
                 mb_cpu_gemm_provider(), (int)from, (int)(from + rows), (int)m, (int)to, (int)m2,
                 (int)n, (int)k, tb, beta);
    mb_free(a1);
    mb_free(a2);
    mb_free(w);
    mb_free(c1);
    mb_free(c2);
}

static void a_row_has_the_same_bits_wherever_it_stands(void **state)
{
    static const int64_t ns[] = {1, 16, 100, 389, 576}, ks[] = {7, 64, 300, 576, 1000};

    ON_THE_CPU_ONLY("its library does not promise this across different numbers of rows");

    for (int p = 0; p < n_providers(); p++) {
        OK(mb_cpu_gemm_use(providers[p]));
        if (!mb_cpu_gemm_rows_exact()) {
            print_message("%s: not promised, not tested\n", mb_cpu_gemm_provider());
            continue;
        }
        for (int i = 0; i < 5 * 5 * 4; i++) {
            const int64_t n = ns[i % 5], k = ks[i / 5 % 5];
            const bool tb = i / 25 & 1;
            const float beta = i / 50 ? 0.5f : 0.0f;

            check_moved(64, 5, 112, 21, 32, n, k, tb, beta); /* other place, other M */
            check_moved(64, 0, 256, 16, 64, n, k, tb, beta); /* packed after 16 rows */
            check_moved(16, 0, 1000, 977, 16, n, k, tb, beta);
            check_moved(200, 100, 101, 1, 100, n, k, tb, beta); /* across tiles */
            check_moved(1, 0, 15, 3, 1, n, k, tb, beta);        /* few rows among themselves */
        }
    }
}

static void rows_in_sixteen_lanes_have_the_bits_of_twice_eight(void **state)
{
    static const int64_t ms[] = {1, 2, 3, 5, 6, 10, 24, 31}, ns[] = {1, 3, 4, 135},
                         ks[] = {16, 17, 576};

    (void)state;
    ON_THE_CPU_ONLY("this is about the CPU's instructions");
    for (int i = 0; i < 8 * 4 * 3; i++) {
        const int64_t m = ms[i % 8], n = ns[i / 8 % 4], k = ks[i / 32];
        float *x = numbers(m * k, 1), *w = numbers(n * k, 2);
        float *a = numbers(m * n, 3), *b = numbers(m * n, 3);
        mb_gemm_rows p = {.m = m, .n = n, .k = k, .x = x, .bias = w, .w = w, .c = a, .tw = true};

        p.ldx = p.ldw = k;
        p.ldc = n;
        p.alpha = 1.5f;
        p.beta = 0.5f;
        mb_cpu_gemm_rows(&p, 2);
        p.by_eight = true;
        p.c = b;
        mb_cpu_gemm_rows(&p, 1);
        assert_memory_equal(a, b, (size_t)(m * n) * sizeof *a);
        mb_free(x);
        mb_free(w);
        mb_free(a);
        mb_free(b);
    }
}

/* Weight-gradient shapes must not depend on threads either way they are cut; workspace is bounded
 * by a function of shape and threads. */
static void workspace_is_a_function_of_shape_and_threads(void **state)
{
    const mb_tensor a = mb_tensor_2d(NULL, MB_DTYPE_F32, 2048, 16);
    const mb_tensor b = mb_tensor_2d(NULL, MB_DTYPE_F32, 2048, 576);
    mb_tensor c = mb_tensor_2d(NULL, MB_DTYPE_F32, 16, 576);
    mb_exec ex = mb_cpu_exec(scratch, 4);

    ON_THE_CPU_ONLY("this is about the CPU's workspace");
    OK(mb_cpu_gemm_use("onednn"));
    const size_t w = mb_cpu_gemm_workspace(&ex, &c, &a, true, &b, false, 1.0f, 1.0f, NULL);

    assert_true(w > 0 && w <= 8u * 16 * 576 * sizeof(float));
    ex.threads = 1;
    assert_int_equal(w, mb_cpu_gemm_workspace(&ex, &c, &a, true, &b, false, 1.0f, 1.0f, NULL));
    OK(mb_cpu_gemm_use("own"));
    const size_t one = mb_cpu_gemm_workspace(&ex, &c, &a, true, &b, false, 1.0f, 1.0f, NULL);
    ex.threads = 3;
    const size_t three = mb_cpu_gemm_workspace(&ex, &c, &a, true, &b, false, 1.0f, 1.0f, NULL);
    assert_true(one > 0 && three > one && three <= 3 * one);
}

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* Were the provider to use threads of its own, the process would burn more than the wall clock. */
static void one_thread_is_one_thread(void **state)
{
    const int64_t n = 768;
    const int before = omp_get_max_threads();

    ON_THE_CPU_ONLY("this is about the CPU's threads");
    for (int p = 0; p < n_providers(); p++) {
        float *ad = numbers(n * n, 1), *bd = numbers(n * n, 2), *cd = numbers(n * n, 3);
        const mb_tensor a = mb_tensor_2d(ad, MB_DTYPE_F32, n, n);
        const mb_tensor b = mb_tensor_2d(bd, MB_DTYPE_F32, n, n);
        mb_tensor c = mb_tensor_2d(cd, MB_DTYPE_F32, n, n);
        double wall, cpu;

        omp_set_num_threads(4);
        OK(mb_cpu_gemm_use(providers[p]));
        gemm(1, &c, &a, false, &b, true, 1.0f, 0.0f, NULL);
        wall = mb_clock();
        cpu = cpu_seconds();
        for (int i = 0; i < 20; i++)
            gemm(1, &c, &a, false, &b, true, 1.0f, 0.0f, NULL);
        wall = mb_clock() - wall;
        cpu = cpu_seconds() - cpu;
        assert_int_equal(omp_get_max_threads(), 4); /* the caller's setting is left alone */
        print_message("%s: %.3f s of processor in %.3f s\n", mb_cpu_gemm_provider(), cpu, wall);
        assert_true(cpu < wall * 1.25 + 0.05);
        mb_free(ad);
        mb_free(bd);
        mb_free(cd);
    }
    omp_set_num_threads(before);
}

static void wrong_calls_are_refused(void **state)
{
    float x[64] = {0};
    const mb_tensor a = mb_tensor_2d(x, MB_DTYPE_F32, 4, 5);
    const mb_tensor b = mb_tensor_2d(x, MB_DTYPE_F32, 6, 3);
    mb_tensor c = mb_tensor_2d(x, MB_DTYPE_F32, 4, 3);
    mb_exec ex = mb_cpu_exec(scratch, 1);

    ON_THE_CPU_ONLY("this is about the CPU's providers");
    assert_int_equal(MB_RUN(&ex, gemm, &c, &a, false, &b, false, 1.0f, 0.0f, NULL), MB_ESHAPE);
    mb_status_clear();
    assert_int_equal(mb_cpu_gemm_use("mkl"), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "mkl"));
    mb_status_clear();
    setenv("MBUYU_GEMM", "fast", 1);
    assert_int_equal(mb_cpu_init(), MB_EARG);
    assert_non_null(strstr(mb_status_sentence(), "fast"));
    mb_status_clear();
    setenv("MBUYU_GEMM", "openblas", 1);
    OK(mb_cpu_init());
    assert_non_null(strstr(mb_cpu_gemm_provider(), "openblas"));
    unsetenv("MBUYU_GEMM");
    OK(mb_cpu_init());
    print_message("%s\n", mb_cpu_class());
    assert_non_null(strstr(mb_cpu_class(), mb_cpu_gemm_provider()));
}

/* With mb_exec.rows_alike, of 400 rows, of a few and of one. */
static void rows_are_alike_however_many_there_are(void **state)
{
    static const shape all[] = {{400, 130, 64}, {97, 7, 577},    {70, 129, 48}, {50, 64, 8},
                                {3, 5, 0},      {33, 301, 1536}, {16, 384, 32}};

    if (mb_test_on_device())
        skip();
    for (size_t s = 0; s < sizeof all / sizeof *all; s++)
        for (int tb = 0; tb < 2; tb++) {
            const int64_t m = all[s].m, n = all[s].n, k = all[s].k, ldc = n + 3;
            float *ad = numbers(m * (k + 5), 1), *bd = numbers(n * k, 2), *bias = numbers(n, 4);
            float *whole = numbers(m * ldc, 3), *part = numbers(m * ldc, 3);
            const mb_tensor b = mb_tensor_2d(bd, MB_DTYPE_F32, tb ? n : k, tb ? k : n);
            const mb_tensor bt = mb_tensor_1d(bias, MB_DTYPE_F32, n);
            const mb_tensor a = strided(ad, m, k, k + 5);
            mb_tensor c = strided(whole, m, n, ldc);
            mb_exec ex = mb_cpu_exec(scratch, 3);

            ex.rows_alike = true;
            OK(MB_RUN(&ex, gemm, &c, &a, false, &b, tb, 1.25f, 0.5f, &bt));
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < n; j++) {
                    const float before =
                        mb_rng_unit(mb_philox(3, (uint32_t)(i * ldc + j), 0, 0, 0).w[0]);
                    double sum = 0.5 * (before * 2.0 - 1.0) + bias[j];
                    for (int64_t l = 0; l < k; l++)
                        sum += 1.25 * ad[i * (k + 5) + l] * bd[tb ? j * k + l : l * n + j];
                    if (!(fabs(whole[i * ldc + j] - sum) <= 1e-6 * (double)(k + 2)))
                        fail_msg("%d x %d x %d, tb %d: C[%d,%d] = %g, expected %g", (int)m, (int)n,
                                 (int)k, tb, (int)i, (int)j, whole[i * ldc + j], sum);
                }
            for (int64_t rows = 1; rows < m; rows = 3 * rows + rows % 2) {
                memcpy(part, whole, (size_t)(m * ldc) * sizeof *part);
                for (int64_t i = 0; i < m; i += rows) {
                    const int64_t r = m - i < rows ? m - i : rows;
                    const mb_tensor some = strided(ad + i * (k + 5), r, k, k + 5);
                    mb_tensor out = strided(part + i * ldc, r, n, ldc);

                    for (int64_t x = i * ldc; x < (i + r) * ldc; x++)
                        part[x] =
                            mb_rng_unit(mb_philox(3, (uint32_t)x, 0, 0, 0).w[0]) * 2.0f - 1.0f;
                    ex.threads = 1 + (int)(rows % 2);
                    OK(MB_RUN(&ex, gemm, &out, &some, false, &b, tb, 1.25f, 0.5f, &bt));
                }
                if (memcmp(part, whole, (size_t)(m * ldc) * sizeof *part) != 0)
                    fail_msg("%d x %d x %d, tb %d: bits depend on there being %d rows", (int)m,
                             (int)n, (int)k, tb, (int)rows);
            }
            for (int i = 0; i < 5; i++)
                mb_free((float *[]){ad, bd, bias, whole, part}[i]);
        }
}

/* ... and of bf16, whose products are of pairs then, where there are such. */
static void rows_of_bf16_are_alike_however_many_there_are(void **state)
{
    static const int64_t rows[] = {1, 2, 15, 16, 17, 48, 96};
    const int64_t m = 96, n = 70, k = 1100;
    float *x = numbers((m + n) * k, 1), *whole = numbers(m * n, 2), *part = numbers(m * n, 3);
    uint16_t *ab = (uint16_t *)numbers((m + n) * k, 2);
    mb_exec ex = mb_cpu_exec(scratch, 2);

    if (mb_test_on_device())
        skip();
    ex.rows_alike = true;
    round_all(ab, x, (m + n) * k);
    const mb_tensor b = mb_tensor_2d(ab + m * k, MB_DTYPE_BF16, n, k);
    const mb_tensor a = mb_tensor_2d(ab, MB_DTYPE_BF16, m, k);
    mb_tensor c = mb_tensor_2d(whole, MB_DTYPE_F32, m, n);
    OK(MB_RUN(&ex, gemm, &c, &a, false, &b, true, 1.0f, 0.0f, NULL));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const mb_tensor some = mb_tensor_2d(ab, MB_DTYPE_BF16, rows[i], k);
        c = mb_tensor_2d(part, MB_DTYPE_F32, rows[i], n);
        OK(MB_RUN(&ex, gemm, &c, &some, false, &b, true, 1.0f, 0.0f, NULL));
        assert_memory_equal(part, whole, (size_t)(rows[i] * n) * sizeof *part);
    }
    mb_free(x);
    mb_free(ab);
    mb_free(whole);
    mb_free(part);
}

/* What is planned for many rows is enough for fewer. */
static void workspace_grows_with_rows(void **state)
{
    static const int64_t ns[] = {16, 64, 1024, 8192}, ks[] = {512, 1500, 4096};
    const mb_dtype types[] = {MB_DTYPE_F32, MB_DTYPE_BF16};

    if (mb_test_on_device())
        skip();
    OK(mb_cpu_gemm_use("own"));
    for (int kind = MB_WORDS_BEST; kind < MB_WORDS_KINDS; kind++)
        for (int i = 0; i < 4 * 3 * 2 * 3 && mb_cpu_gemm_words_use((mb_words_kind)kind); i++) {
            const mb_dtype d = types[i / 12 % 2];
            const int64_t n = ns[i % 4], k = ks[i / 4 % 3];
            const mb_tensor b = mb_tensor_2d(NULL, d, n, k);
            mb_exec ex = mb_cpu_exec(scratch, 1 + 3 * (i / 24));
            size_t before = 0;

            for (int64_t m = 16; m < 5000; m += 1 + m / 16) {
                const mb_tensor a = mb_tensor_2d(NULL, d, m, k);
                mb_tensor c = mb_tensor_2d(NULL, d, m, n);
                const size_t w =
                    mb_cpu_gemm_workspace(&ex, &c, &a, false, &b, true, 1.0f, 0.0f, NULL);

                if (w < before)
                    fail_msg("%d rows x %d x %d, kind %d: %zu bytes, of fewer rows %zu", (int)m,
                             (int)n, (int)k, kind, w, before);
                before = w;
            }
        }
    mb_cpu_gemm_words_use(MB_WORDS_BEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_equal_the_reference),
        cmocka_unit_test(adapters_add_to_the_same_sums),
        cmocka_unit_test(instructions_agree_with_plain_code),
        cmocka_unit_test(rows_of_bf16_are_alike_however_many_there_are),
        cmocka_unit_test(workspace_grows_with_rows),
        cmocka_unit_test(a_large_product_has_the_bits_of_its_rows_alone),
        cmocka_unit_test(a_narrow_gradient_computed_across_has_the_same_bits),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(a_row_has_the_same_bits_wherever_it_stands),
        cmocka_unit_test(rows_are_alike_however_many_there_are),
        cmocka_unit_test(rows_in_sixteen_lanes_have_the_bits_of_twice_eight),
        cmocka_unit_test(workspace_is_a_function_of_shape_and_threads),
        cmocka_unit_test(one_thread_is_one_thread),
        cmocka_unit_test(wrong_calls_are_refused),
    };

    return cmocka_run_group_tests(tests, make_scratch, drop_scratch);
}
