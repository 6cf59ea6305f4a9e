/* tests/dist/test_comm_nccl.np3.c - collectives on device memory: the same numbers and the same
 * counted bytes as over MPI, and what is said when ranks are late or do not call the same. Runs on
 * the emulated GPU and NCCL; 77 where there is none. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "dist/comm_mpi.h"
#include "dist/comm_nccl.h"
#include "dist/launch.h"
#include "tests/check.h"

static mb_launch launch;
static mb_device *device;
static mb_comm *host, *dp;

/* The same n elements in host memory and on the device. */
typedef struct twin {
    mb_dtype dtype;
    int64_t n;
    size_t bytes;
    char *here, *back;
    mb_tensor there;
} twin;

static void number(char *p, mb_dtype d, int64_t i, int rank)
{
    const uint64_t key = mb_rng_key(7, 1, (uint64_t)rank);
    const double v = (mb_rng_double(key, (uint64_t)i) - 0.5) * (i % 3 == 0 ? 1e6 : 1e-2);
    const uint32_t u = mb_rng_u32(key, (uint64_t)i);

    switch (d) {
    case MB_DTYPE_F32:
        ((float *)(void *)p)[i] = (float)v;
        break;
    case MB_DTYPE_F64:
        ((double *)(void *)p)[i] = v;
        break;
    case MB_DTYPE_I64:
        ((int64_t *)(void *)p)[i] = (int64_t)u * (1ll << 29) * (u % 2 == 0 ? 1 : -1);
        break;
    case MB_DTYPE_I32:
        ((int32_t *)(void *)p)[i] = (int32_t)(u >> 4);
        break;
    case MB_DTYPE_BF16:
        ((uint16_t *)(void *)p)[i] = mb_f32_to_bf16((float)(v * 1e-3));
        break;
    case MB_DTYPE_F16:
        ((uint16_t *)(void *)p)[i] = mb_f32_to_f16((float)(v * 1e-3));
        break;
    default:
        ((uint8_t *)p)[i] = (uint8_t)u;
        break;
    }
}

static twin twin_new(mb_dtype d, int64_t n)
{
    twin t = {.dtype = d, .n = n, .bytes = (size_t)mb_dtype_bytes(d, n)};
    void *p = NULL;

    t.here = calloc(1, t.bytes + 1);
    t.back = calloc(1, t.bytes + 1);
    for (int64_t i = 0; i < n; i++)
        number(t.here, d, i, launch.rank);
    OK(device->ops->alloc(device, t.bytes + 1, "a twin", &p));
    t.there = mb_tensor_1d(p, d, n);
    if (n > 0)
        OK(mb_device_write(device, &t.there, t.here));
    OK(mb_comm_after(dp, MB_STREAM_COMPUTE));
    return t;
}

/* What is on the device, after all that is queued for dp. */
static const void *twin_back(twin *t)
{
    OK(mb_comm_before(dp, MB_STREAM_COMPUTE));
    OK(mb_comm_wait(dp, MB_STREAM_COMPUTE));
    if (t->n > 0)
        OK(mb_device_read(device, t->back, &t->there));
    return t->back;
}

static void twin_free(twin *t)
{
    device->ops->free(device, t->there.data, t->bytes + 1);
    free(t->here);
    free(t->back);
}

static int64_t host_before, dp_before;

static void count_bytes(void)
{
    host_before = host->bytes_sent;
    dp_before = dp->bytes_sent;
}

static void bytes_are_equal(void)
{
    assert_int_equal(dp->bytes_sent - dp_before, host->bytes_sent - host_before);
}

static void all_reduce_is_that_of_the_host(void **state)
{
    const struct {
        mb_dtype dtype;
        mb_reduce op;
        int64_t n;
    } cases[] = {
        {MB_DTYPE_F32, MB_SUM, 1},  {MB_DTYPE_F32, MB_SUM, 1001},  {MB_DTYPE_F32, MB_SUM, 70001},
        {MB_DTYPE_F32, MB_MAX, 33}, {MB_DTYPE_F32, MB_MIN, 33},    {MB_DTYPE_F64, MB_SUM, 100},
        {MB_DTYPE_F64, MB_MAX, 5},  {MB_DTYPE_I64, MB_SUM, 30000}, {MB_DTYPE_I64, MB_MIN, 77},
        {MB_DTYPE_I32, MB_SUM, 10}, {MB_DTYPE_I32, MB_MAX, 10},    {MB_DTYPE_U8, MB_SUM, 100},
        {MB_DTYPE_U8, MB_MAX, 100}, {MB_DTYPE_F32, MB_SUM, 0}};

    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        twin t = twin_new(cases[k].dtype, cases[k].n);
        count_bytes();
        OK(host->ops->all_reduce(host, t.here, t.n, t.dtype, cases[k].op));
        OK(dp->ops->all_reduce(dp, t.there.data, t.n, t.dtype, cases[k].op));
        bytes_are_equal();
        assert_memory_equal(twin_back(&t), t.here, t.bytes);
        twin_free(&t);
    }
}

static void small_floats_are_added(void **state)
{
    const mb_dtype types[] = {MB_DTYPE_BF16, MB_DTYPE_F16};

    for (size_t k = 0; k < 2; k++) {
        const int64_t n = 1000;
        twin t = twin_new(types[k], n);
        float *want = calloc((size_t)n, sizeof *want);
        for (int r = 0; r < dp->size; r++) {
            for (int64_t i = 0; i < n; i++) {
                number(t.here, t.dtype, i, r);
                const uint16_t u = ((uint16_t *)(void *)t.here)[i];
                want[i] += k == 0 ? mb_bf16_to_f32(u) : mb_f16_to_f32(u);
            }
        }
        OK(dp->ops->all_reduce(dp, t.there.data, n, t.dtype, MB_SUM));
        const uint16_t *got = twin_back(&t);
        for (int64_t i = 0; i < n; i++) {
            const float g = k == 0 ? mb_bf16_to_f32(got[i]) : mb_f16_to_f32(got[i]);
            assert_true(fabsf(g - want[i]) <= fabsf(want[i]) / 100 + 1e-4f);
        }
        free(want);
        twin_free(&t);
    }
}

/* Equal ranges, unequal ones, one rank with none, all with none, one rank with all. */
static const int64_t ranges[][4] = {{0, 1024, 2048, 3072},
                                    {0, 5, 4096, 7001},
                                    {0, 300, 300, 12289},
                                    {0, 0, 0, 0},
                                    {0, 0, 20000, 20000}};
enum { N_RANGES = sizeof ranges / sizeof *ranges };

static void reduce_scatter_is_that_of_the_host(void **state)
{
    const mb_dtype types[] = {MB_DTYPE_F32, MB_DTYPE_I64, MB_DTYPE_F64};
    const size_t work_bytes = 1 << 20;
    void *work = malloc(work_bytes);

    assert_int_equal(mb_comm_work_bytes(dp, 1 << 20), 0);
    for (size_t k = 0; k < N_RANGES * 3; k++) {
        const int64_t *at = ranges[k % N_RANGES];
        twin t = twin_new(types[k / N_RANGES], at[3]);
        const int64_t el = mb_dtype_bytes(t.dtype, 1), from = at[dp->rank] * el;
        count_bytes();
        OK(host->ops->reduce_scatter(host, t.here, at, t.dtype, work, work_bytes));
        OK(dp->ops->reduce_scatter(dp, t.there.data, at, t.dtype, NULL, 0));
        bytes_are_equal();
        const char *got = twin_back(&t);
        assert_memory_equal(got + from, t.here + from, (at[dp->rank + 1] * el - from));
        twin_free(&t);
    }
    free(work);
}

static void all_gather_is_that_of_the_host(void **state)
{
    const mb_dtype types[] = {MB_DTYPE_F32, MB_DTYPE_BF16, MB_DTYPE_I64};

    for (size_t k = 0; k < N_RANGES * 3; k++) {
        const int64_t *at = ranges[k % N_RANGES];
        twin t = twin_new(types[k / N_RANGES], at[3]);
        count_bytes();
        OK(host->ops->all_gather(host, t.here, at, t.dtype));
        OK(dp->ops->all_gather(dp, t.there.data, at, t.dtype));
        bytes_are_equal();
        assert_memory_equal(twin_back(&t), t.here, t.bytes);
        twin_free(&t);
    }
}

static void broadcasts_and_messages_arrive(void **state)
{
    const int right = (dp->rank + 1) % dp->size, left = (dp->rank + dp->size - 1) % dp->size;

    for (int root = 0; root < dp->size; root++) {
        twin t = twin_new(MB_DTYPE_U8, 4099);
        count_bytes();
        OK(host->ops->broadcast(host, t.here, t.n, root));
        OK(dp->ops->broadcast(dp, t.there.data, t.n, root));
        bytes_are_equal();
        assert_memory_equal(twin_back(&t), t.here, t.bytes);
        twin_free(&t);
    }
    /* round the ring: rank 0 sends first */
    twin t = twin_new(MB_DTYPE_F32, 999);
    count_bytes();
    if (dp->rank > 0)
        OK(dp->ops->recv(dp, t.there.data, t.n * 4, left));
    OK(dp->ops->send(dp, t.there.data, t.n * 4, right));
    if (dp->rank == 0)
        OK(dp->ops->recv(dp, t.there.data, t.n * 4, left));
    assert_int_equal(dp->bytes_sent - dp_before, t.n * 4);
    for (int64_t i = 0; i < t.n; i++)
        number(t.here, t.dtype, i, 0);
    assert_memory_equal(twin_back(&t), t.here, t.bytes);
    twin_free(&t);
    OK(dp->ops->barrier(dp));
}

static void a_group_is_queued_as_one(void **state)
{
    twin a = twin_new(MB_DTYPE_F32, 5000), b = twin_new(MB_DTYPE_I64, 7001);
    const int64_t *at = ranges[1];

    OK(host->ops->all_reduce(host, a.here, a.n, a.dtype, MB_SUM));
    OK(host->ops->all_gather(host, b.here, at, b.dtype));
    OK(mb_comm_group_begin(dp));
    OK(dp->ops->all_reduce(dp, a.there.data, a.n, a.dtype, MB_SUM));
    OK(dp->ops->all_gather(dp, b.there.data, at, b.dtype));
    OK(mb_comm_group_end(dp));
    assert_memory_equal(twin_back(&a), a.here, a.bytes);
    assert_memory_equal(twin_back(&b), b.here, b.bytes);
    twin_free(&a);
    twin_free(&b);
    OK(mb_comm_group_begin(host)); /* nothing, in host memory */
    OK(mb_comm_group_end(host));
}

static void what_comes_next_sees_the_sum(void **state)
{
    /* sum, copy away on another stream, sum again: only edges keep them apart */
    twin t = twin_new(MB_DTYPE_I64, 3000), kept = twin_new(MB_DTYPE_I64, 3000);

    OK(host->ops->all_reduce(host, t.here, t.n, t.dtype, MB_SUM));
    OK(dp->ops->all_reduce(dp, t.there.data, t.n, t.dtype, MB_SUM));
    OK(mb_comm_before(dp, MB_STREAM_COPY));
    OK(device->ops->copy(device, MB_STREAM_COPY, kept.there.data, t.there.data, t.bytes));
    OK(mb_comm_after(dp, MB_STREAM_COPY));
    OK(dp->ops->all_reduce(dp, t.there.data, t.n, t.dtype, MB_SUM));
    assert_memory_equal(twin_back(&kept), t.here, t.bytes);
    OK(host->ops->all_reduce(host, t.here, t.n, t.dtype, MB_SUM));
    assert_memory_equal(twin_back(&t), t.here, t.bytes);
    twin_free(&t);
    twin_free(&kept);
}

static void agreement_is_made_on_the_host(void **state)
{
    mb_status st = MB_OK;

    OK(mb_comm_agree(dp, MB_OK));
    if (dp->rank == 1)
        st = MB_RAISE(MB_EDATA, "row %d is odd", 17);
    assert_int_equal(mb_comm_agree(dp, st), MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "row 17 is odd"));
    mb_status_clear();
}

static void one_rank_needs_no_nccl(void **state)
{
    mb_comm *one;
    twin t = twin_new(MB_DTYPE_F32, 100);

    OK(mb_comm_nccl_new(mb_comm_self(), device, 1.0, "one", &one));
    assert_int_equal(one->size, 1);
    assert_ptr_equal(one->device, device);
    OK(one->ops->all_reduce(one, t.there.data, t.n, t.dtype, MB_SUM));
    OK(mb_comm_wait(one, MB_STREAM_COMM));
    assert_memory_equal(twin_back(&t), t.here, t.bytes);
    assert_int_equal(one->bytes_sent, 0);
    mb_comm_free(one);
    twin_free(&t);
}

static void a_type_that_nccl_does_not_add_is_a_defect(void **state)
{
    twin t = twin_new(MB_DTYPE_I16, 10);

    assert_int_equal(dp->ops->all_reduce(dp, t.there.data, t.n, t.dtype, MB_SUM), MB_EBUG);
    mb_status_clear();
    twin_free(&t);
}

/* Everything says MB_EPEER, and the same sentence, from now on. */
static void assert_given_up(mb_comm *c, twin *t, const char *part)
{
    char sentence[1024];

    assert_non_null(strstr(mb_status_sentence(), part));
    snprintf(sentence, sizeof sentence, "%s", mb_status_sentence());
    mb_status_clear();
    assert_int_equal(c->ops->all_reduce(c, t->there.data, t->n, t->dtype, MB_SUM), MB_EPEER);
    assert_string_equal(mb_status_sentence(), sentence);
    mb_status_clear();
    assert_int_equal(mb_comm_group_begin(c), MB_EPEER);
    assert_int_equal(mb_comm_wait(c, MB_STREAM_COMM), MB_EPEER);
    mb_status_clear();
}

/* What the real NCCL answers by hanging or worse. */
static void only_emulated(void)
{
    const char *library = getenv("MBUYU_NCCL_LIBRARY");

    if (library == NULL || strstr(library, "emu") == NULL)
        skip();
}

static void calls_that_differ_are_found(void **state)
{
    const char *const parts[] = {"AllReduce of", "number 2", "AllGather"};

    only_emulated();
    for (int k = 0; k < 3; k++) {
        mb_comm *c;
        twin t = twin_new(MB_DTYPE_F32, 96);
        const int64_t at[] = {0, 32, 64, 96};
        OK(mb_comm_nccl_new(host, device, 20.0, "odd", &c));
        if (k > 0)
            OK(c->ops->all_reduce(c, t.there.data, t.n, t.dtype, MB_SUM));
        if (k < 2) /* another count; another operation */
            OK(c->ops->all_reduce(c, t.there.data, t.n - (k == 0 && c->rank == 1), t.dtype,
                                  k == 1 && c->rank == 2 ? MB_MAX : MB_SUM));
        else if (c->rank == 0)
            OK(c->ops->all_gather(c, t.there.data, at, t.dtype));
        else
            OK(c->ops->reduce_scatter(c, t.there.data, at, t.dtype, NULL, 0));
        assert_int_equal(mb_comm_wait(c, MB_STREAM_COMM), MB_EPEER);
        assert_non_null(strstr(mb_status_sentence(), "do not call the same"));
        if (launch.rank == 0)
            print_message("%s\n", mb_status_sentence());
        assert_given_up(c, &t, parts[k]);
        /* all that share the stream fall together; a new one can be made */
        assert_int_equal(mb_comm_wait(dp, MB_STREAM_COMM), MB_EPEER);
        mb_status_clear();
        mb_comm_free(c);
        mb_comm_free(dp);
        OK(host->ops->barrier(host));
        OK(mb_comm_nccl_new(host, device, 20.0, "dp", &dp));
        twin_free(&t);
    }
}

static void host_memory_is_refused(void **state)
{
    mb_comm *c;
    float here[4] = {0};

    only_emulated();
    OK(mb_comm_nccl_new(host, device, 20.0, "host", &c));
    assert_int_equal(c->ops->all_reduce(c, here, 4, MB_DTYPE_F32, MB_SUM), MB_EPEER);
    assert_non_null(strstr(mb_status_sentence(), "is host memory"));
    mb_status_clear();
    mb_comm_free(c);
    mb_comm_free(dp);
    OK(host->ops->barrier(host));
    OK(mb_comm_nccl_new(host, device, 20.0, "dp", &dp));
}

static void a_rank_that_does_not_come_is_waited_for_with_a_limit(void **state)
{
    const double limit = 0.5;
    mb_comm *c;
    twin t = twin_new(MB_DTYPE_F32, 4096);

    OK(mb_comm_nccl_new(host, device, limit, "late", &c));
    OK(c->ops->all_reduce(c, t.there.data, t.n, t.dtype, MB_SUM));
    OK(mb_comm_wait(c, MB_STREAM_COMM));
    if (c->rank != 2) {
        OK(c->ops->broadcast(c, t.there.data, 16, 2));
        OK(mb_comm_before(c, MB_STREAM_COMPUTE));
        const double since = mb_clock();
        /* the host waits for a kernel that waits for the collective */
        assert_int_equal(mb_comm_wait(c, MB_STREAM_COMPUTE), MB_EPEER);
        const double waited = mb_clock() - since;
        if (launch.rank == 0)
            print_message("%s\n", mb_status_sentence());
        assert_true(waited >= limit && waited < limit + 3.0);
        assert_non_null(strstr(mb_status_sentence(), "broadcast of 16 U8"));
        assert_given_up(c, &t, "in collective 2");
        OK(device->ops->wait(device, MB_STREAM_COMPUTE)); /* the aborted one has ended */
    }
    OK(host->ops->barrier(host));
    mb_comm_free(c);
    mb_comm_free(dp);
    OK(host->ops->barrier(host));
    OK(mb_comm_nccl_new(host, device, 20.0, "dp", &dp));
    twin_free(&t);
}

static void many_seeds_give_the_same(void **state)
{
    const int64_t *at = ranges[2];

    for (int k = 0; k < 20; k++) {
        twin t = twin_new(MB_DTYPE_I64, at[3]), u = twin_new(MB_DTYPE_F32, 100 + k);
        const size_t work_bytes = 1 << 20;
        void *work = malloc(work_bytes);
        OK(host->ops->reduce_scatter(host, t.here, at, t.dtype, work, work_bytes));
        OK(host->ops->all_gather(host, t.here, at, t.dtype));
        OK(host->ops->all_reduce(host, u.here, u.n, u.dtype, MB_SUM));
        OK(dp->ops->reduce_scatter(dp, t.there.data, at, t.dtype, NULL, 0));
        OK(dp->ops->all_reduce(dp, u.there.data, u.n, u.dtype, MB_SUM));
        if ((k + dp->rank) % 2 == 0)
            OK(mb_comm_wait(dp, MB_STREAM_COPY)); /* ranks differ in when they look */
        OK(dp->ops->all_gather(dp, t.there.data, at, t.dtype));
        assert_memory_equal(twin_back(&t), t.here, t.bytes);
        assert_memory_equal(twin_back(&u), u.here, u.bytes);
        twin_free(&t);
        twin_free(&u);
        free(work);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_reduce_is_that_of_the_host),
        cmocka_unit_test(small_floats_are_added),
        cmocka_unit_test(reduce_scatter_is_that_of_the_host),
        cmocka_unit_test(all_gather_is_that_of_the_host),
        cmocka_unit_test(broadcasts_and_messages_arrive),
        cmocka_unit_test(a_group_is_queued_as_one),
        cmocka_unit_test(what_comes_next_sees_the_sum),
        cmocka_unit_test(agreement_is_made_on_the_host),
        cmocka_unit_test(one_rank_needs_no_nccl),
        cmocka_unit_test(a_type_that_nccl_does_not_add_is_a_defect),
        cmocka_unit_test(many_seeds_give_the_same),
        cmocka_unit_test(calls_that_differ_are_found),
        cmocka_unit_test(host_memory_is_refused),
        cmocka_unit_test(a_rank_that_does_not_come_is_waited_for_with_a_limit),
    };

    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    host = launch.world;
    if (mb_device_open(MB_DEVICE_CUDA, launch.local_rank, 1, &device) != MB_OK) {
        mb_log_info("skipped: %s", mb_status_sentence());
        mb_mpi_finish();
        return getenv("MB_NEED_DEVICE") != NULL ? 1 : 77;
    }
    if (mb_comm_nccl_new(host, device, 20.0, "dp", &dp) != MB_OK) {
        mb_log_error("%s", mb_status_sentence());
        mb_mpi_abort(1);
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed != 0) /* a rank that failed alone leaves others waiting */
        mb_mpi_abort(1);
    mb_comm_free(dp);
    mb_device_close(device);
    return mb_launch_end(&launch, MB_OK);
}
