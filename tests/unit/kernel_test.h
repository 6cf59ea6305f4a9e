/* tests/unit/kernel_test.h - what the tests of kernels share: memory, random matrices with and
 * without gaps between rows, comparison with f64 references, and runs on several thread counts.
 *
 * With MB_TEST_DEVICE the same tests run on a device (tests/device/mirror.h).
 */
#ifndef MB_TESTS_KERNEL_TEST_H
#define MB_TESTS_KERNEL_TEST_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/cpu/cpu.h"
#include "core/rng.h"
#include "tests/check.h"
#include "tests/device/mirror.h"

#define RUN(ex, name, ...) OK(MB_RUN(ex, name, __VA_ARGS__))
#define COUNT(a)           ((int64_t)(sizeof(a) / sizeof *(a)))

/* What lies between rows; a kernel that writes there is caught by check_gaps. */
static const float gap_value = 12345.0f;

static mb_arena *memory, *scratch; /* reset before every test */
static uint64_t random_at;

static inline int kernel_setup(void **state)
{
    (void)state;
    if (memory == NULL) {
        assert_int_equal(mb_arena_new("test data", (size_t)1 << 30, &memory), MB_OK);
        assert_int_equal(mb_arena_new("scratch", (size_t)1 << 28, &scratch), MB_OK);
    }
    mb_arena_reset(memory);
    random_at = 0;
    mb_test_bits(false);
    return 0;
}

static inline int kernel_teardown(void **state)
{
    (void)state;
    mb_arena_free(memory);
    mb_arena_free(scratch);
    memory = scratch = NULL;
    return 0;
}

#define KERNEL_TEST(f) cmocka_unit_test_setup(f, kernel_setup)

static inline void *take(int64_t bytes)
{
    void *p;

    assert_int_equal(mb_arena_take(memory, (size_t)bytes, &p), MB_OK);
    memset(p, 0, (size_t)bytes);
    return p;
}

static inline mb_exec exec_with(int threads)
{
    return mb_test_exec(scratch, threads);
}

static inline float next_normal(void)
{
    return (float)mb_rng_normal(2026, random_at++);
}

/* rows x cols of NaN with `gap` elements between rows. */
static inline mb_tensor matrix(int64_t rows, int64_t cols, int64_t gap)
{
    mb_tensor whole = mb_tensor_2d(take(4 * rows * (cols + gap)), MB_DTYPE_F32, rows, cols + gap);
    mb_tensor t = mb_tensor_columns(&whole, 0, cols);

    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols + gap; c++)
            mb_row(&t, r)[c] = c < cols ? NAN : gap_value;
    return t;
}

static inline mb_tensor random_matrix(int64_t rows, int64_t cols, int64_t gap, float spread)
{
    mb_tensor t = matrix(rows, cols, gap);

    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            mb_row(&t, r)[c] = spread * next_normal();
    return t;
}

static inline mb_tensor vector(int64_t n)
{
    mb_tensor t = mb_tensor_1d(take(4 * n), MB_DTYPE_F32, n);

    for (int64_t i = 0; i < n; i++)
        mb_f32(&t)[i] = NAN;
    return t;
}

static inline mb_tensor random_vector(int64_t n, float mean, float spread)
{
    mb_tensor t = vector(n);

    for (int64_t i = 0; i < n; i++)
        mb_f32(&t)[i] = mean + spread * next_normal();
    return t;
}

/* A copy with the same gaps. */
static inline mb_tensor copy_of(const mb_tensor *t)
{
    mb_tensor c = *t;
    const int64_t n = t->ndim > 1 ? mb_rows(t) * mb_row_stride(t) : mb_tensor_count(t);

    c.data = take(4 * n);
    memcpy(c.data, t->data, 4 * (size_t)n);
    return c;
}

static inline void check_gaps(const mb_tensor *t)
{
    for (int64_t r = 0; r < mb_rows(t); r++)
        for (int64_t c = mb_cols(t); c < mb_row_stride(t); c++)
            assert_true(mb_row(t, r)[c] == gap_value);
}

static inline void check_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("got %.9g, wanted %.9g within %.3g", got, want, tolerance);
}

/* The same bits in rows of equal width. */
static inline void check_same(const mb_tensor *a, const mb_tensor *b)
{
    assert_int_equal(mb_rows(a), mb_rows(b));
    for (int64_t r = 0; r < mb_rows(a); r++)
        assert_memory_equal(mb_row(a, r), mb_row(b, r), 4 * (size_t)mb_cols(a));
}

/* Shapes that every row kernel is tried on: nothing, one element, odd widths, more than one block
 * of rows, enough work for several threads. */
static const struct {
    int64_t rows, cols;
} shapes[] = {{0, 8}, {1, 1}, {1, 576}, {3, 7}, {5, 33}, {2, 1030}, {70, 100}, {131, 573}};
static const int64_t gaps[] = {0, 3};
static const int team_sizes[] = {1, 2, 5};

/* for (each shape, gap, acc): `rows`, `cols`, `gap`, `acc` are in scope */
#define FOR_EACH_SHAPE                                                       \
    for (int64_t i_ = 0; i_ < COUNT(shapes) * 4; i_++)                       \
        for (int64_t rows = shapes[i_ / 4].rows, cols = shapes[i_ / 4].cols, \
                     gap = gaps[i_ / 2 % 2], acc = i_ % 2, once_ = 1;        \
             once_ != 0; once_ = 0, mb_arena_reset(memory))

#endif
