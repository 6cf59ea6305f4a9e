/* tests/dist/queue_cases.h - collectives that run behind the computing, for any number of ranks.
 * Included by test_queue.np<N>.c. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "core/rng.h"
#include "dist/comm_mpi.h"
#include "dist/comm_queue.h"
#include "dist/launch.h"
#include "tests/check.h"

enum { N = 40009, JOBS = 700 }; /* more than wait at once */

static mb_launch launch;

static mb_comm *queued(const char *name)
{
    mb_comm *inner = NULL, *c = NULL;

    OK(mb_comm_mpi_split(launch.world, 0, launch.rank, &inner));
    OK(mb_comm_queue_new(inner, launch.world, name, &c));
    assert_true(mb_comm_queues(c) == (c->size > 1));
    assert_ptr_equal(mb_comm_host(c), launch.world);
    return c;
}

static void numbers(float *x, int64_t n, int what)
{
    for (int64_t i = 0; i < n; i++)
        x[i] =
            (float)mb_rng_normal(mb_rng_key(5, (uint64_t)what, (uint64_t)launch.rank), (uint64_t)i);
}

static void thirds(int size, int64_t n, int64_t *at)
{
    for (int r = 0; r <= size; r++)
        at[r] = r == size ? n : n * r * r / (size * size);
}

/* Ranks are in a hurry at different times. */
static void dawdle(int i)
{
    if (mb_rng_u32(mb_rng_key(1, 2, (uint64_t)launch.rank), (uint64_t)i) % 16 == 0)
        usleep(300);
}

/* Job i of a sequence that all ranks make alike, on buf. */
static void job(mb_comm *c, int i, float *buf, int64_t n, const int64_t *at, void *work,
                size_t bytes)
{
    if (i % 3 == 0)
        OK(c->ops->reduce_scatter(c, buf, at, MB_DTYPE_F32, work, bytes));
    else if (i % 3 == 1)
        OK(c->ops->all_gather(c, buf, at, MB_DTYPE_F32));
    else
        OK(c->ops->all_reduce(c, buf, n, MB_DTYPE_F32, MB_MAX));
}

/* Two communicators in turns, each job on what the one before left; nothing is waited for in
 * between. */
static void a_queue_gives_the_bits_and_bytes_of_direct_calls(void **state)
{
    mb_comm *one = queued("one"), *two = queued("two"), *w = launch.world;
    float *x = malloc(N * sizeof *x), *want = malloc(N * sizeof *x);
    const size_t bytes = mb_comm_work_bytes(w, N * 4);
    void *work = malloc(bytes + 1);
    int64_t at[65];

    numbers(x, N, 1);
    memcpy(want, x, N * sizeof *x);
    const int64_t requests = mb_alloc_count();
    for (int i = 0; i < JOBS; i++) {
        const int64_t n = i % 7 == 0 ? N : 100 + i;
        thirds(w->size, n, at);
        dawdle(i);
        job(i % 5 < 3 ? one : two, i, x, n, at, work, bytes);
        memset(at, 0xff, sizeof at); /* ranges are copied */
    }
    OK(mb_comm_before(one, MB_STREAM_COMPUTE));
    assert_int_equal(mb_alloc_count(), requests);
    const int64_t before = w->bytes_sent;
    for (int i = 0; i < JOBS; i++) {
        const int64_t n = i % 7 == 0 ? N : 100 + i;
        thirds(w->size, n, at);
        job(w, i, want, n, at, work, bytes);
    }
    assert_memory_equal(x, want, N * sizeof *x);
    assert_int_equal(one->bytes_sent + two->bytes_sent, w->bytes_sent - before);
    mb_comm_free(one);
    mb_comm_free(two);
    free(x);
    free(want);
    free(work);
}

/* Votes and barriers of the thread that computes come when nothing is queued. */
static void direct_calls_wait_for_what_is_queued(void **state)
{
    mb_comm *c = queued("dp");
    int64_t *x = calloc(N, sizeof *x);
    int32_t vote = 1;

    for (int round = 0; round < 20; round++) {
        for (int64_t i = 0; i < N; i++)
            x[i] = i + launch.rank;
        dawdle(round);
        OK(c->ops->all_reduce(c, x, N, MB_DTYPE_I64, MB_SUM));
        OK(launch.world->ops->all_reduce(launch.world, &vote, 1, MB_DTYPE_I32, MB_MAX));
        const int64_t n = c->size;
        for (int64_t i = 0; i < N; i++)
            assert_int_equal(x[i], n * i + n * (n - 1) / 2);
    }
    OK(c->ops->barrier(c));
    mb_comm_free(c);
    free(x);
}

static void computing_goes_on_meanwhile(void **state)
{
    mb_comm *c = queued("dp");
    float *x = calloc(N, sizeof *x);

    if (launch.rank == 0)
        usleep(200000);
    const double from = mb_clock();
    OK(c->ops->all_reduce(c, x, N, MB_DTYPE_F32, MB_SUM));
    assert_true(mb_clock() - from < 0.1); /* the others do not wait for rank 0 here */
    OK(mb_comm_wait(c, MB_STREAM_COMPUTE));
    mb_comm_free(c);
    free(x);
}

/* The sentence comes with the next wait, what is behind is dropped, and all can start again. */
static void a_failure_is_told_and_drops_what_is_behind_it(void **state)
{
    for (int again = 0; again < 2; again++) {
        mb_comm *c = queued("dp");
        float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        OK(c->ops->all_reduce(c, x, 4, MB_DTYPE_BF16, MB_SUM));
        mb_status st = c->ops->all_reduce(c, x + 4, 4, MB_DTYPE_F32, MB_SUM); /* or told already */
        if (st == MB_OK)
            st = mb_comm_before(c, MB_STREAM_COMPUTE);
        assert_int_equal(st, MB_EBUG);
        assert_non_null(strstr(mb_status_sentence(), "BF16 values cannot be reduced"));
        assert_true(x[4] == 5);
        mb_status_clear();
        assert_int_equal(c->ops->all_reduce(c, x, 4, MB_DTYPE_F32, MB_SUM), MB_EBUG);
        assert_int_equal(launch.world->ops->barrier(launch.world), MB_EBUG);
        mb_comm_free(c);
        mb_status_clear();
        OK(launch.world->ops->barrier(launch.world));
    }
}

/* Rank 0 waits for numbers that never come. */
static void a_queue_can_be_given_up(void **state)
{
    mb_comm *c = queued("dp");
    float *x = calloc(N, sizeof *x);
    const size_t bytes = mb_comm_work_bytes(launch.world, N * 4);
    void *work = malloc(bytes + 1);
    int64_t at[65];

    for (int r = 1; r <= c->size; r++)
        at[r] = N;
    at[0] = 0; /* all of it is rank 0's */
    if (launch.rank == 0) {
        const double from = mb_clock();
        OK(c->ops->reduce_scatter(c, x, at, MB_DTYPE_F32, work, bytes));
        usleep(20000);
        mb_comm_queue_halt();
        assert_int_equal(mb_comm_queue_idle(), MB_EPEER);
        assert_non_null(strstr(mb_status_sentence(), "given up"));
        assert_true(mb_clock() - from < 2.0);
    }
    mb_comm_free(c);
    mb_status_clear();
    OK(launch.world->ops->barrier(launch.world));
    free(x);
    free(work);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_queue_gives_the_bits_and_bytes_of_direct_calls),
        cmocka_unit_test(direct_calls_wait_for_what_is_queued),
        cmocka_unit_test(computing_goes_on_meanwhile),
        cmocka_unit_test(a_failure_is_told_and_drops_what_is_behind_it),
        cmocka_unit_test(a_queue_can_be_given_up),
    };

    if (mb_launch_init(&argc, &argv, &launch) != MB_OK)
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed != 0) /* a rank that failed alone leaves others waiting */
        mb_mpi_abort(1);
    return mb_launch_end(&launch, MB_OK);
}
