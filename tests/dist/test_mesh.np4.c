/* tests/dist/test_mesh.np4.c - four ranks as 2 x 2, 1 x 4 and 4 x 1, in host memory and on the
 * emulated GPU (where there is none, only the first). */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "dist/comm_mpi.h"
#include "dist/launch.h"
#include "dist/mesh.h"
#include "tests/check.h"

static mb_launch launch;
static mb_device *gpu;

static mb_mesh *mesh_of(int shard_size, mb_device *device)
{
    const mb_mesh_options o = {.shard_size = shard_size, .timeout = 20};
    mb_mesh *m = NULL;

    OK(mb_mesh_new(launch.world, device, &o, &m));
    return m;
}

/* The ranks of the world in c, as bits. */
static int members(mb_comm *c)
{
    int32_t bits = 1 << launch.rank;

    c = mb_comm_host(c);
    OK(c->ops->all_reduce(c, &bits, 1, MB_DTYPE_I32, MB_SUM));
    return bits;
}

static void two_by_two(void **state)
{
    mb_mesh *m = mesh_of(2, NULL);

    assert_int_equal(members(m->world), 15);
    assert_int_equal(members(m->parts), 15);
    assert_int_equal(m->parts->rank, launch.rank % 2 * 2 + launch.rank / 2);
    assert_int_equal(members(m->dp_inner), launch.rank < 2 ? 3 : 12);
    assert_int_equal(members(m->dp_outer), launch.rank % 2 == 0 ? 5 : 10);
    assert_int_equal(m->dp_inner->rank, launch.rank % 2);
    assert_int_equal(m->dp_outer->rank, launch.rank / 2);
    assert_string_equal(m->dp_inner->name, "dp inner");
    assert_string_equal(m->dp_outer->name, "dp outer");
    mb_mesh_free(m);
}

static void one_axis_may_be_everybody(void **state)
{
    const int shards[] = {MB_SHARD_ALL, MB_SHARD_NODE, 4, 1};

    for (int i = 0; i < 4; i++) { /* all on one node here */
        mb_mesh *m = mesh_of(shards[i], NULL);
        assert_int_equal(members(shards[i] == 1 ? m->dp_outer : m->dp_inner), 15);
        assert_int_equal(members(shards[i] == 1 ? m->dp_inner : m->dp_outer), 1 << launch.rank);
        assert_ptr_equal(m->parts, launch.world);
        mb_mesh_free(m);
    }
    mb_mesh_free(NULL);
}

static void sizes_that_do_not_fit_are_refused(void **state)
{
    const int wrong[] = {3, 8, -2};

    for (int i = 0; i < 3; i++) {
        const mb_mesh_options o = {.shard_size = wrong[i]};
        mb_mesh *m = NULL;
        assert_int_equal(mb_mesh_new(launch.world, NULL, &o, &m), MB_EARG);
        assert_non_null(strstr(mb_status_sentence(), wrong[i] < 0 ? "-2" : "divided into groups"));
        mb_status_clear();
    }
}

static void numbers(int64_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] =
            (int64_t)mb_rng_u32(mb_rng_key(3, 1, (uint64_t)launch.rank), (uint64_t)i) - (1ll << 31);
}

/* Scatter inside, sum outside, gather inside: the sum over all, with fewer bytes going outside. */
static void hybrid(mb_mesh *m, mb_device *device)
{
    enum { N = 10007 };
    const int64_t at[] = {0, 6000, N};
    const int me = m->dp_inner->rank;
    int64_t *want = malloc(N * sizeof *want), *x = malloc(N * sizeof *x), own = at[me + 1] - at[me];
    const size_t work_bytes = mb_comm_work_bytes(m->dp_inner, N * 8);
    void *work = malloc(work_bytes + 1), *p = x;
    mb_tensor t;

    numbers(x, N);
    memcpy(want, x, N * sizeof *x);
    OK(m->world->ops->all_reduce(m->world, want, N, MB_DTYPE_I64, MB_SUM));
    if (device != NULL)
        OK(device->ops->alloc(device, N * sizeof *x, "numbers", &p));
    t = mb_tensor_1d(p, MB_DTYPE_I64, N);
    if (device != NULL)
        OK(mb_device_write(device, &t, x));
    int64_t *mine = (int64_t *)p + at[me];
    const int64_t outside = m->dp_outer->bytes_sent, inside = m->dp_inner->bytes_sent;
    OK(mb_comm_after(m->dp_inner, MB_STREAM_COMPUTE));
    OK(m->dp_inner->ops->reduce_scatter(m->dp_inner, p, at, MB_DTYPE_I64, work, work_bytes));
    OK(m->dp_outer->ops->all_reduce(m->dp_outer, mine, own, MB_DTYPE_I64, MB_SUM));
    OK(m->dp_inner->ops->all_gather(m->dp_inner, p, at, MB_DTYPE_I64));
    OK(mb_comm_before(m->dp_inner, MB_STREAM_COMPUTE));
    OK(mb_comm_wait(m->dp_inner, MB_STREAM_COMPUTE));
    assert_int_equal(m->dp_outer->bytes_sent - outside,
                     mb_comm_mpi_all_reduce_bytes(m->dp_outer, own, MB_DTYPE_I64));
    assert_int_equal(m->dp_inner->bytes_sent - inside, 8 * (N - own) + 8 * own);
    if (device != NULL) {
        OK(mb_device_read(device, x, &t));
        device->ops->free(device, p, N * sizeof *x);
    }
    assert_memory_equal(x, want, N * sizeof *x);
    free(work);
    free(want);
    free(x);
}

static void sums_go_over_both_axes(void **state)
{
    mb_mesh *m = mesh_of(2, NULL);

    hybrid(m, NULL);
    mb_mesh_free(m);
}

static void sums_go_over_both_axes_on_devices(void **state)
{
    if (gpu == NULL)
        skip();
    mb_mesh *m = mesh_of(2, gpu);
    assert_ptr_equal(m->dp_inner->device, gpu);
    assert_int_equal(members(m->dp_inner), launch.rank < 2 ? 3 : 12);
    for (int i = 0; i < 8; i++)
        hybrid(m, gpu);
    OK(m->dp_inner->ops->barrier(m->dp_inner));
    mb_mesh_free(m);
    m = mesh_of(MB_SHARD_ALL, gpu);
    assert_int_equal(m->dp_outer->size, 1);
    assert_ptr_equal(m->dp_outer->device, gpu);
    OK(mb_comm_wait(m->dp_outer, MB_STREAM_COMPUTE));
    mb_mesh_free(m);
}

/* Ranks 1 and 2 wait for 3, and 0 for 2. */
static void a_lost_rank_brings_down_both_axes(void **state)
{
    const mb_mesh_options o = {.shard_size = 2, .timeout = 0.5};
    mb_mesh *m = NULL;
    void *p = NULL;

    if (gpu == NULL)
        skip();
    OK(mb_mesh_new(launch.world, gpu, &o, &m));
    OK(gpu->ops->alloc(gpu, 4096, "numbers", &p));
    if (launch.rank != 3) {
        OK(m->dp_inner->ops->all_reduce(m->dp_inner, p, 8, MB_DTYPE_F32, MB_SUM));
        OK(m->dp_outer->ops->all_reduce(m->dp_outer, p, 8, MB_DTYPE_F32, MB_SUM));
        assert_int_equal(mb_comm_wait(m->dp_inner, MB_STREAM_COMM), MB_EPEER);
        assert_non_null(strstr(mb_status_sentence(), "all_reduce of 8 F32"));
        assert_int_equal(mb_comm_wait(m->dp_outer, MB_STREAM_COMM), MB_EPEER);
        mb_status_clear();
    }
    OK(launch.world->ops->barrier(launch.world));
    mb_mesh_free(m);
    gpu->ops->free(gpu, p, 4096);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_by_two),
        cmocka_unit_test(one_axis_may_be_everybody),
        cmocka_unit_test(sizes_that_do_not_fit_are_refused),
        cmocka_unit_test(sums_go_over_both_axes),
        cmocka_unit_test(sums_go_over_both_axes_on_devices),
        cmocka_unit_test(a_lost_rank_brings_down_both_axes),
    };

    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    if (mb_device_open(MB_DEVICE_CUDA, launch.local_rank, 1, &gpu) != MB_OK) {
        mb_log_info("without a device: %s", mb_status_sentence());
        mb_status_clear();
        gpu = NULL;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed != 0) /* a rank that failed alone leaves others waiting */
        mb_mpi_abort(1);
    mb_device_close(gpu);
    return mb_launch_end(&launch, MB_OK);
}
