/* tests/dist/comm_cases.h - what every communicator must do, for any number of ranks. Included by
 * test_comm.np<N>.c; the world is started once in main. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/rng.h"
#include "dist/comm_mpi.h"
#include "dist/launch.h"
#include "tests/check.h"

static mb_launch launch;

/* Rank r's i-th value: of very different sizes, so that another order of additions shows. */
static float value_of(int r, int64_t i)
{
    const uint64_t key = mb_rng_key(7, 1, (uint64_t)r);
    const double v = mb_rng_double(key, (uint64_t)i) - 0.5;

    return (float)(v * (i % 3 == 0 ? 1e6 : i % 3 == 1 ? 1.0 : 1e-3));
}

static int64_t integer_of(int r, int64_t i)
{
    return (int64_t)mb_rng_u32(mb_rng_key(9, 1, (uint64_t)r), (uint64_t)i) * (r + 1) - (1ll << 40);
}

/* ((x0 + x1) + x2) + ... */
static float sum_of(int size, int64_t i)
{
    float s = value_of(0, i);

    for (int r = 1; r < size; r++)
        s += value_of(r, i);
    return s;
}

static void all_reduce_sums_floats_in_rank_order(void **state)
{
    const int64_t sizes[] = {1, 3, 100, MB_COMM_SMALL / 4, MB_COMM_SMALL / 4 + 1, 300007};
    mb_comm *c = launch.world;

    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const int64_t n = sizes[k];
        float *x = malloc((size_t)n * sizeof *x);
        for (int64_t i = 0; i < n; i++)
            x[i] = value_of(c->rank, i);
        const int64_t before = c->bytes_sent;
        OK(c->ops->all_reduce(c, x, n, MB_DTYPE_F32, MB_SUM));
        for (int64_t i = 0; i < n; i++) {
            const float want = sum_of(c->size, i);
            assert_memory_equal(&x[i], &want, sizeof want);
        }
        if (n * 4 <= MB_COMM_SMALL)
            assert_int_equal(c->bytes_sent - before, (c->size - 1) * n * 4);
        if (c->size > 1)
            assert_int_equal(c->bytes_sent - before,
                             mb_comm_mpi_all_reduce_bytes(c, n, MB_DTYPE_F32));
        free(x);
    }
}

static void all_reduce_takes_extremes_and_keeps_nan(void **state)
{
    mb_comm *c = launch.world;
    double x[3] = {c->rank, -c->rank, c->rank == c->size - 1 ? NAN : 1.0};
    int32_t i[2] = {c->rank, 100 - c->rank};
    uint8_t u = (uint8_t)(c->rank == 0);

    OK(c->ops->all_reduce(c, x, 3, MB_DTYPE_F64, MB_MAX));
    assert_true(x[0] == c->size - 1 && x[1] == 0.0 && x[2] != x[2]);
    OK(c->ops->all_reduce(c, i, 2, MB_DTYPE_I32, MB_MIN));
    assert_true(i[0] == 0 && i[1] == 100 - (c->size - 1));
    OK(c->ops->all_reduce(c, &u, 1, MB_DTYPE_U8, MB_MAX));
    assert_int_equal(u, 1);
}

/* Ranges of very unequal length, one of them empty when there are three ranks or more. */
static void uneven(int size, int64_t n, int64_t *at)
{
    for (int r = 0; r <= size; r++)
        at[r] = r == size ? n : n * r * r / (size * size);
    if (size >= 3)
        at[2] = at[1];
}

static void reduce_scatter_is_ordered_and_counts_its_bytes(void **state)
{
    mb_comm *c = launch.world;
    const int64_t n = 400003;
    int64_t at[65];
    float *x = malloc(n * sizeof *x);

    uneven(c->size, n, at);
    for (size_t work_bytes = 4096; work_bytes <= (4u << 20); work_bytes *= 32) {
        void *work = malloc(work_bytes);
        for (int64_t i = 0; i < n; i++)
            x[i] = value_of(c->rank, i);
        const int64_t before = c->bytes_sent;
        OK(c->ops->reduce_scatter(c, x, at, MB_DTYPE_F32, work, work_bytes));
        for (int64_t i = at[c->rank]; i < at[c->rank + 1]; i++) {
            const float want = sum_of(c->size, i);
            assert_memory_equal(&x[i], &want, sizeof want);
        }
        assert_int_equal(c->bytes_sent - before,
                         c->size == 1 ? 0 : 4 * (n - (at[c->rank + 1] - at[c->rank])));
        free(work);
    }
    free(x);
}

static void reduce_scatter_of_integers_is_exact(void **state)
{
    mb_comm *c = launch.world;
    const int64_t n = 70001;
    int64_t at[65], *x = malloc(n * sizeof *x);
    const size_t work_bytes = mb_comm_work_bytes(c, n * 8);
    void *work = malloc(work_bytes + 1);

    uneven(c->size, n, at);
    for (int64_t i = 0; i < n; i++)
        x[i] = integer_of(c->rank, i);
    OK(c->ops->reduce_scatter(c, x, at, MB_DTYPE_I64, work, work_bytes));
    for (int64_t i = at[c->rank]; i < at[c->rank + 1]; i++) {
        int64_t want = 0;
        for (int r = 0; r < c->size; r++)
            want += integer_of(r, i);
        assert_int_equal(x[i], want);
    }
    free(x);
    free(work);
}

/* ---- nodes and types on the wire: the same, written down once more -------------------------- */

static float rounded(float x, mb_dtype wire)
{
    return wire == MB_DTYPE_BF16 ? mb_bf16_to_f32(mb_f32_to_bf16(x)) : x;
}

/* The sum for `owner`, when rank r is on node[r]: inside nodes by their members, who give what they
 * have to the one of them at the owner's place; then node by node. Sets *sum_abs for the error bound. */
static float sum_by_nodes(int size, const int *node, int owner, int64_t i, mb_dtype wire,
                          double *sum_abs)
{
    float total = 0;
    int place = 0, counted = 0;

    *sum_abs = 0;
    for (int r = 0; r < owner; r++)
        place += node[r] == node[owner];
    for (int leader = 0; leader < size; leader++) {
        int mates[64], n = 0;
        float sum = 0;
        for (int r = 0; r < size; r++)
            if (node[r] == node[leader])
                mates[n++] = r;
        if (mates[0] != leader)
            continue;
        for (int k = 0; k < n; k++) {
            float x = value_of(mates[k], i);
            *sum_abs += fabs(x);
            if (mates[k] != mates[place % n])
                x = rounded(x, wire);
            sum = k == 0 ? x : sum + x;
        }
        if (node[leader] != node[owner]) {
            *sum_abs += fabs(sum);
            sum = rounded(sum, wire);
        }
        total = counted++ == 0 ? sum : total + sum;
    }
    return total;
}

static void reduce_scatter_sums_inside_nodes_first(void **state)
{
    const struct {
        const char *text;
        int node[4];
    } layouts[] = {{"0,0,0,0", {0, 0, 0, 0}}, {"0,0,1,1", {0, 0, 1, 1}}, {"0,1,0,1", {0, 1, 0, 1}},
                   {"0,1,1,1", {0, 1, 1, 1}}, {"3,2,2,0", {3, 2, 2, 0}}, {"0,1,2,3", {0, 1, 2, 3}}};
    const int64_t n = 20011;
    float *x = malloc(n * sizeof *x);
    int64_t at[65], *whole = malloc(n * sizeof *whole);

    for (size_t k = 0; k < 2 * sizeof layouts / sizeof *layouts; k++) {
        const int *node = layouts[k / 2].node;
        const mb_dtype wire = k % 2 == 0 ? MB_DTYPE_F32 : MB_DTYPE_BF16;
        const size_t work_bytes = 4096 << k % 3 * 4;
        void *work = malloc(work_bytes);
        mb_comm *c = NULL;
        setenv("MBUYU_TEST_NODES", layouts[k / 2].text, 1);
        OK(mb_comm_mpi_split(launch.world, 0, launch.rank, &c));
        unsetenv("MBUYU_TEST_NODES");
        if (c->size > 1)
            c->wire = wire;
        const int me = c->rank;
        uneven(c->size, n, at);
        for (int64_t i = 0; i < n; i++)
            x[i] = value_of(me, i);
        int64_t before = c->bytes_sent;
        OK(c->ops->reduce_scatter(c, x, at, MB_DTYPE_F32, work, work_bytes));
        for (int64_t i = at[me]; i < at[me + 1] && c->size > 1; i++) {
            double sum_abs;
            const float want = sum_by_nodes(c->size, node, me, i, wire, &sum_abs);
            assert_memory_equal(&x[i], &want, sizeof want);
            assert_true(fabs((double)sum_of(c->size, i) - want) <=
                        (wire == MB_DTYPE_BF16 ? (0x1p-8 + 0x1p-20) : 0x1p-22) * sum_abs);
        }
        assert_int_equal(c->bytes_sent - before,
                         c->size == 1 ? 0 : mb_dtype_bytes(wire, 1) * (n - (at[me + 1] - at[me])));
        for (int64_t i = 0; i < n; i++)
            whole[i] = integer_of(me, i);
        before = c->bytes_sent;
        OK(c->ops->reduce_scatter(c, whole, at, MB_DTYPE_I64, work, work_bytes));
        for (int64_t i = at[me]; i < at[me + 1]; i++) {
            int64_t want = 0;
            for (int r = 0; r < c->size; r++)
                want += integer_of(r, i);
            assert_int_equal(whole[i], want);
        }
        assert_int_equal(c->bytes_sent - before,
                         c->size == 1 ? 0 : 8 * (n - (at[me + 1] - at[me])));
        if (c != mb_comm_self())
            mb_comm_free(c);
        free(work);
    }
    free(x);
    free(whole);
}

/* All ranks end with the same numbers, whatever they travelled as. */
static void a_large_all_reduce_may_travel_as_bf16(void **state)
{
    const int64_t n = 100003;
    float *x = malloc(n * sizeof *x), *first = malloc(n * sizeof *x);
    mb_comm *c = NULL;

    OK(mb_comm_mpi_split(launch.world, 0, launch.rank, &c));
    for (int64_t i = 0; i < n; i++)
        x[i] = value_of(c->rank, i);
    if (c->size > 1)
        c->wire = MB_DTYPE_BF16;
    const int64_t before = c->bytes_sent;
    OK(c->ops->all_reduce(c, x, n, MB_DTYPE_F32, MB_SUM));
    if (c->size > 1)
        assert_int_equal(c->bytes_sent - before, mb_comm_mpi_all_reduce_bytes(c, n, MB_DTYPE_F32));
    memcpy(first, x, n * sizeof *x);
    OK(c->ops->broadcast(c, first, n * sizeof *x, 0));
    assert_memory_equal(x, first, n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        double sum_abs = 0;
        for (int r = 0; r < c->size; r++)
            sum_abs += fabs(value_of(r, i));
        assert_true(fabs((double)sum_of(c->size, i) - x[i]) <= (0x1p-8 + 0x1p-20) * sum_abs);
    }
    mb_comm_free(c);
    free(x);
    free(first);
}

static void all_gather_brings_every_range_to_all(void **state)
{
    mb_comm *c = launch.world;
    const int64_t n = 50021;
    int64_t at[65];
    float *x = malloc(n * sizeof *x);

    uneven(c->size, n, at);
    for (int64_t i = 0; i < n; i++)
        x[i] = i >= at[c->rank] && i < at[c->rank + 1] ? (float)i : -1.0f;
    const int64_t before = c->bytes_sent;
    OK(c->ops->all_gather(c, x, at, MB_DTYPE_F32));
    for (int64_t i = 0; i < n; i++)
        assert_true(x[i] == (float)i);
    const int right = (c->rank + 1) % c->size;
    assert_int_equal(c->bytes_sent - before,
                     c->size == 1 ? 0 : 4 * (n - (at[right + 1] - at[right])));
    free(x);
}

static void messages_and_broadcasts_arrive(void **state)
{
    mb_comm *c = launch.world;
    const int root = c->size - 1;
    char text[100] = "", *s = NULL;
    int64_t token = 41;

    if (c->rank == root)
        snprintf(text, sizeof text, "from rank %d", root);
    OK(c->ops->broadcast(c, text, sizeof text, root));
    char want[100];
    snprintf(want, sizeof want, "from rank %d", root);
    assert_string_equal(text, want);
    if (c->rank == 0)
        OK(mb_strdup("hello", &s));
    OK(mb_comm_broadcast_string(c, &s, 0));
    assert_string_equal(s, "hello");
    mb_free(s);
    if (c->size > 1) { /* a token round the ring */
        if (c->rank > 0)
            OK(c->ops->recv(c, &token, sizeof token, c->rank - 1));
        token++;
        OK(c->ops->send(c, &token, sizeof token, (c->rank + 1) % c->size));
        if (c->rank == 0) {
            OK(c->ops->recv(c, &token, sizeof token, c->size - 1));
            assert_int_equal(token, 41 + c->size);
        }
    }
    OK(c->ops->barrier(c));
}

static void agreement_spreads_the_first_failure(void **state)
{
    mb_comm *c = launch.world;
    const int culprit = c->size - 1;
    mb_status st = MB_OK;

    OK(mb_comm_agree(c, MB_OK));
    if (c->rank == culprit)
        st = MB_RAISE(MB_EDATA, "row %d is odd", 17);
    st = mb_comm_agree(c, st);
    assert_int_equal(st, MB_EDATA);
    assert_non_null(strstr(mb_status_sentence(), "row 17 is odd"));
    if (c->rank != culprit) {
        char want[64];
        snprintf(want, sizeof want, "rank %d: ", culprit);
        assert_non_null(strstr(mb_status_sentence(), want));
    }
    mb_status_clear();
}

static void splits_are_communicators(void **state)
{
    mb_comm *c = launch.world, *half = NULL, *none = NULL;
    int32_t n = 1;

    OK(mb_comm_mpi_split(c, c->rank % 2, -c->rank, &half));
    OK(half->ops->all_reduce(half, &n, 1, MB_DTYPE_I32, MB_SUM));
    assert_int_equal(n, half->size);
    assert_int_equal(half->size, c->rank % 2 == 0 ? (c->size + 1) / 2 : c->size / 2);
    if (c->size >= 3 && c->rank % 2 == 0) /* ordered by the key: backwards */
        assert_int_equal(half->rank, half->size - 1 - c->rank / 2);
    mb_comm_free(half);
    OK(mb_comm_mpi_split(c, c->rank == 0 && mb_mpi_is_running() ? -1 : 0, 0, &none));
    assert_true((none == NULL) == (c->rank == 0 && mb_mpi_is_running()));
    mb_comm_free(none);
    mb_comm_free(NULL);
}

static void launch_knows_ranks_and_threads(void **state)
{
    assert_int_equal(launch.local_size, launch.size);
    assert_true(launch.rank >= 0 && launch.rank < launch.size);
    assert_true(launch.threads >= 1 && launch.threads <= 2); /* OMP_NUM_THREADS=2 in the tests */
    assert_true(launch.size * launch.threads <= launch.cores || launch.threads == 1);
    assert_int_equal(mb_launch_threads(16, 0, 2, 0), 8);
    assert_int_equal(mb_launch_threads(16, 0, 2, 3), 3);
    assert_int_equal(mb_launch_threads(16, 4.5, 2, 0), 2);
    assert_int_equal(mb_launch_threads(2, 0, 8, 0), 1);
    assert_int_equal(mb_launch_threads(2, 0.5, 1, 0), 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_reduce_sums_floats_in_rank_order),
        cmocka_unit_test(all_reduce_takes_extremes_and_keeps_nan),
        cmocka_unit_test(reduce_scatter_is_ordered_and_counts_its_bytes),
        cmocka_unit_test(reduce_scatter_of_integers_is_exact),
        cmocka_unit_test(reduce_scatter_sums_inside_nodes_first),
        cmocka_unit_test(a_large_all_reduce_may_travel_as_bf16),
        cmocka_unit_test(all_gather_brings_every_range_to_all),
        cmocka_unit_test(messages_and_broadcasts_arrive),
        cmocka_unit_test(agreement_spreads_the_first_failure),
        cmocka_unit_test(splits_are_communicators),
        cmocka_unit_test(launch_knows_ranks_and_threads),
    };

    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    mb_log_info("%s", launch.text);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed != 0) /* a rank that failed alone leaves others waiting */
        mb_mpi_abort(1);
    return mb_launch_end(&launch, MB_OK);
}
