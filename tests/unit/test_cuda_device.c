/* tests/unit/test_cuda_device.c - the GPU of core/device.h, or its emulator: memory, order between
 * streams, graphs, the stored choice of algorithms, and what is said when something is missing.
 * Skipped where no device opens. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/alloc.h"
#include "core/cpu/cpu.h"
#include "core/device.h"
#include "core/rng.h"
#include "tests/check.h"

enum { MANY = 1500, SCRATCH = 80 << 20 };

static mb_device *open_device(void)
{
    mb_device *d = NULL;

    if (mb_device_open(MB_DEVICE_CUDA, 0, 1, &d) != MB_OK) {
        print_message("no device: %s\n", mb_status_sentence());
        mb_status_clear();
        skip();
    }
    return d;
}

static float *device_floats(mb_device *d, int64_t n)
{
    void *p = NULL;

    OK(d->ops->alloc(d, (size_t)n * sizeof(float), "test numbers", &p));
    assert_int_equal((uintptr_t)p % 256, 0);
    return p;
}

static float *host_floats(mb_device *d, int64_t n, uint64_t key)
{
    float *x = NULL;

    OK(d->ops->alloc_host(d, (size_t)n * sizeof *x, "test numbers", (void **)&x));
    for (int64_t i = 0; i < n; i++)
        x[i] = key == 0 ? 0.0f : mb_rng_unit(mb_philox(key, (uint32_t)i, 0, 0, 0).w[0]) * 2 - 1;
    return x;
}

/* ---- memory and order ---------------------------------------------------------------------- */

static void memory_is_zeroed_copied_and_counted(void **state)
{
    enum { N = 1000 };
    mb_device *d = open_device();
    float *there = device_floats(d, N), *a = host_floats(d, N, 1), *b = host_floats(d, N, 2);
    int64_t available = 0, total = 0;

    OK(d->ops->copy(d, MB_STREAM_COPY, b, there, N * sizeof *b));
    OK(d->ops->wait(d, MB_STREAM_COPY));
    for (int i = 0; i < N; i++)
        assert_true(b[i] == 0.0f);
    OK(d->ops->copy(d, MB_STREAM_COPY, there, a, N * sizeof *a));
    OK(d->ops->zero(d, MB_STREAM_COPY, there + 10, 4 * sizeof *a));
    OK(d->ops->copy(d, MB_STREAM_COPY, b, there, N * sizeof *b));
    OK(d->ops->wait(d, MB_STREAM_COPY));
    for (int i = 0; i < N; i++)
        assert_true(b[i] == (i >= 10 && i < 14 ? 0.0f : a[i]));
    OK(d->ops->memory(d, &available, &total));
    assert_true(available > 0 && available <= total);
    d->ops->free(d, there, N * sizeof *there);
    d->ops->free_host(d, a, N * sizeof *a);
    d->ops->free_host(d, b, N * sizeof *b);
    mb_device_close(d);
}

/* Numbers walk host, copy stream, compute stream, comm stream and back, often: one edge left out
 * and some round reads what is not there yet. */
static void streams_wait_for_one_another_where_asked(void **state)
{
    enum { N = 64, ROUNDS = 40 };
    static const mb_stream way[] = {MB_STREAM_COPY, MB_STREAM_COMPUTE, MB_STREAM_COMM,
                                    MB_STREAM_COPY};
    mb_device *d = open_device();
    float *at[4], *a = host_floats(d, N * ROUNDS, 1), *b = host_floats(d, N * ROUNDS, 0);
    bool ready = false;

    for (int i = 0; i < 4; i++)
        at[i] = device_floats(d, N);
    for (int round = 0; round < ROUNDS; round++) {
        OK(d->ops->copy(d, way[0], at[0], a + round * N, N * sizeof *a));
        for (int i = 1; i < 4; i++) {
            OK(d->ops->after(d, way[i], way[i - 1]));
            OK(d->ops->copy(d, way[i], at[i], at[i - 1], N * sizeof *a));
        }
        OK(d->ops->copy(d, MB_STREAM_COPY, b + round * N, at[3], N * sizeof *b));
    }
    OK(d->ops->wait(d, MB_STREAM_COPY));
    OK(d->ops->ready(d, MB_STREAM_COPY, &ready));
    assert_true(ready);
    assert_memory_equal(a, b, N * ROUNDS * sizeof *a);
    for (int i = 0; i < 4; i++)
        d->ops->free(d, at[i], N * sizeof *a);
    d->ops->free_host(d, a, N * ROUNDS * sizeof *a);
    d->ops->free_host(d, b, N * ROUNDS * sizeof *b);
    mb_device_close(d);
}

/* ---- graphs -------------------------------------------------------------------------------- */

static void a_graph_repeats_what_was_recorded(void **state)
{
    enum { N = 64 };
    mb_device *d = open_device();
    float *a = device_floats(d, N), *b = device_floats(d, N), *c = device_floats(d, N);
    float *x = host_floats(d, N, 1), *y = host_floats(d, N, 0);
    void *graph = NULL;

    OK(d->ops->graph_begin(d));
    OK(d->ops->copy(d, MB_STREAM_COMPUTE, b, a, N * sizeof *a));
    OK(d->ops->after(d, MB_STREAM_COMM, MB_STREAM_COMPUTE));
    OK(d->ops->copy(d, MB_STREAM_COMM, c, b, N * sizeof *a));
    OK(d->ops->after(d, MB_STREAM_COMPUTE, MB_STREAM_COMM));
    OK(d->ops->zero(d, MB_STREAM_COMPUTE, b, N * sizeof *a));
    OK(d->ops->graph_end(d, &graph));
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < N; i++)
            x[i] = (float)(round * i + 1);
        OK(d->ops->copy(d, MB_STREAM_COMPUTE, a, x, N * sizeof *a));
        OK(d->ops->graph_launch(d, graph));
        OK(d->ops->copy(d, MB_STREAM_COMPUTE, y, c, N * sizeof *a));
        OK(d->ops->wait(d, MB_STREAM_COMPUTE));
        assert_memory_equal(x, y, N * sizeof *x);
        OK(d->ops->copy(d, MB_STREAM_COMPUTE, y, b, N * sizeof *a));
        OK(d->ops->wait(d, MB_STREAM_COMPUTE));
        for (int i = 0; i < N; i++)
            assert_true(y[i] == 0.0f);
    }
    d->ops->graph_free(d, graph);
    d->ops->free(d, a, N * sizeof *a);
    d->ops->free(d, b, N * sizeof *a);
    d->ops->free(d, c, N * sizeof *a);
    d->ops->free_host(d, x, N * sizeof *x);
    d->ops->free_host(d, y, N * sizeof *y);
    mb_device_close(d);
}

static void after_a_recording_that_failed_work_goes_on(void **state)
{
    enum { N = 64 };
    mb_device *d = open_device();
    float *a = device_floats(d, N), *x = host_floats(d, N, 1), *y = host_floats(d, N, 0);
    void *graph = NULL;

    OK(d->ops->graph_begin(d));
    OK(d->ops->after(d, MB_STREAM_COMM, MB_STREAM_COMPUTE));
    OK(d->ops->zero(d, MB_STREAM_COMM, a, N * sizeof *a)); /* and nothing waits for it */
    expect(d->ops->graph_end(d, &graph), MB_EBUG, "cudaStreamEndCapture");
    assert_null(graph);
    OK(d->ops->copy(d, MB_STREAM_COMPUTE, a, x, N * sizeof *a));
    OK(d->ops->copy(d, MB_STREAM_COMPUTE, y, a, N * sizeof *a));
    OK(d->ops->wait(d, MB_STREAM_COMPUTE));
    assert_memory_equal(x, y, N * sizeof *x);
    d->ops->free(d, a, N * sizeof *a);
    d->ops->free_host(d, x, N * sizeof *x);
    d->ops->free_host(d, y, N * sizeof *y);
    mb_device_close(d);
}

/* ---- matrix products ----------------------------------------------------------------------- */

typedef struct products {
    mb_device *d;
    mb_arena *scratch;
    mb_exec ex;
    float *a, *b, *c; /* SIDE x SIDE each */
    float *ha, *hb, *hc;
} products;

enum { SIDE = 48, FLOATS = SIDE * SIDE };

static products products_open(void)
{
    products p = {.d = open_device()};
    void *first;

    OK(mb_device_arena(p.d, "scratch", SCRATCH, &p.scratch));
    OK(mb_arena_take(p.scratch, 1, &first)); /* workspace begins 64 bytes further on */
    p.ex = mb_device_exec(p.d, p.scratch);
    p.a = device_floats(p.d, FLOATS);
    p.b = device_floats(p.d, FLOATS);
    p.c = device_floats(p.d, FLOATS);
    p.ha = host_floats(p.d, FLOATS, 1);
    p.hb = host_floats(p.d, FLOATS, 2);
    p.hc = host_floats(p.d, FLOATS, 0);
    OK(p.d->ops->copy(p.d, MB_STREAM_COMPUTE, p.a, p.ha, FLOATS * sizeof *p.a));
    OK(p.d->ops->copy(p.d, MB_STREAM_COMPUTE, p.b, p.hb, FLOATS * sizeof *p.b));
    OK(p.d->ops->wait(p.d, MB_STREAM_COMPUTE));
    return p;
}

static void products_close(products *p)
{
    float *const there[] = {p->a, p->b, p->c}, *const here[] = {p->ha, p->hb, p->hc};

    for (int i = 0; i < 3; i++) {
        p->d->ops->free(p->d, there[i], FLOATS * sizeof(float));
        p->d->ops->free_host(p->d, here[i], FLOATS * sizeof(float));
    }
    mb_arena_free(p->scratch);
    mb_device_close(p->d);
}

/* c(m,n) = a(m,k) b(k,n) of the first numbers. */
static void product(products *p, int64_t m, int64_t n, int64_t k)
{
    const mb_tensor a = mb_tensor_2d(p->a, MB_DTYPE_F32, m, k);
    const mb_tensor b = mb_tensor_2d(p->b, MB_DTYPE_F32, k, n);
    mb_tensor c = mb_tensor_2d(p->c, MB_DTYPE_F32, m, n);

    OK(MB_RUN(&p->ex, gemm, &c, &a, false, &b, false, 1.0f, 0.0f, NULL));
}

static void check_product(products *p, int64_t m, int64_t n, int64_t k)
{
    OK(p->d->ops->copy(p->d, MB_STREAM_COMPUTE, p->hc, p->c, (size_t)(m * n) * sizeof(float)));
    OK(p->d->ops->wait(p->d, MB_STREAM_COMPUTE));
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0, off;

            for (int64_t l = 0; l < k; l++)
                sum += (double)p->ha[i * k + l] * p->hb[l * n + j];
            off = p->hc[i * n + j] - sum;
            if (!(off <= 1e-5 && off >= -1e-5))
                fail_msg("%d x %d x %d: C[%d,%d] = %g, expected %g", (int)m, (int)n, (int)k, (int)i,
                         (int)j, p->hc[i * n + j], sum);
        }
    }
}

static void more_shapes_than_are_kept_cost_no_memory(void **state)
{
    products p = products_open();
    int64_t m = 1, n = 1, k = 1, before;

    product(&p, 3, 4, 5);
    before = mb_alloc_count();
    for (int i = 0; i < MANY; i++) {
        m = 1 + i % 12;
        n = 1 + i / 12 % 12;
        k = 1 + i / 144;
        product(&p, m, n, k);
        if (i % 100 == 0)
            check_product(&p, m, n, k);
    }
    product(&p, 3, 4, 5); /* forgotten by now, or not */
    check_product(&p, 3, 4, 5);
    assert_int_equal(mb_alloc_count(), before);
    products_close(&p);
}

static void a_bias_of_another_type_is_added_apart(void **state)
{
    enum { M = 5, N = 7, K = 3 };
    products p = products_open();
    uint16_t *half = (uint16_t *)p.hc, got[M * N];
    const mb_tensor a = mb_tensor_2d(p.a, MB_DTYPE_BF16, M, K);
    const mb_tensor b = mb_tensor_2d(p.a + 32, MB_DTYPE_BF16, K, N);
    const mb_tensor bias = mb_tensor_1d(p.b, MB_DTYPE_F32, N);
    mb_tensor c = mb_tensor_2d(p.c, MB_DTYPE_BF16, M, N);

    for (int i = 0; i < FLOATS; i++)
        half[i] = mb_f32_to_bf16((float)(i % 5 - 2)); /* sums are exact */
    OK(p.d->ops->copy(p.d, MB_STREAM_COMPUTE, p.a, half, FLOATS * sizeof *half));
    OK(MB_RUN(&p.ex, gemm, &c, &a, false, &b, false, 1.0f, 0.0f, &bias));
    OK(p.d->ops->wait(p.d, MB_STREAM_COMPUTE));
    OK(mb_device_read(p.d, got, &c));
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            float sum = 0;

            for (int l = 0; l < K; l++)
                sum += mb_bf16_to_f32(half[i * K + l]) * mb_bf16_to_f32(half[64 + l * N + j]);
            assert_int_equal(got[i * N + j], mb_f32_to_bf16(sum + p.hb[j]));
        }
    }
    products_close(&p);
}

/* ---- what is said -------------------------------------------------------------------------- */

static void what_cannot_be_had_is_a_sentence(void **state)
{
    mb_device *d = open_device(), *other = NULL;
    char text[400];
    void *p = NULL;

    assert_true(strlen(d->name) > 0 && strlen(d->class_) > strlen(d->name));
    expect(mb_device_open(MB_DEVICE_CUDA, 99, 1, &other), MB_ENOTSUP, "99");
    expect(d->ops->alloc(d, (size_t)1 << 50, "a petabyte", &p), MB_ENOMEM, "a petabyte");
    assert_null(p);
    mb_device_probe(text, sizeof text);
    assert_non_null(strstr(text, "GPU"));
    mb_device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_copied_and_counted),
        cmocka_unit_test(streams_wait_for_one_another_where_asked),
        cmocka_unit_test(a_graph_repeats_what_was_recorded),
        cmocka_unit_test(after_a_recording_that_failed_work_goes_on),
        cmocka_unit_test(more_shapes_than_are_kept_cost_no_memory),
        cmocka_unit_test(a_bias_of_another_type_is_added_apart),
        cmocka_unit_test(what_cannot_be_had_is_a_sentence),
    };

    if (mb_cpu_init() != MB_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
