/* tests/unit/test_dequantise.c - GGUF blocks against the gguf package, bit for bit.
 *
 * tests/data/dequantise.bin is made by scripts/make_dequantise_fixture.py; tests/peers/dequantise.py
 * compares many more random blocks with the package itself.
 */
#include <stdio.h>

#include "core/cpu/dequantise.h"
#include "core/cpu/init.h"
#include "kernel_test.h"

static const mb_dtype types[] = {
    MB_DTYPE_Q4_0, MB_DTYPE_Q4_1, MB_DTYPE_Q5_0, MB_DTYPE_Q5_1, MB_DTYPE_Q8_0,
    MB_DTYPE_Q2_K, MB_DTYPE_Q3_K, MB_DTYPE_Q4_K, MB_DTYPE_Q5_K, MB_DTYPE_Q6_K,
};

struct sample {
    mb_tensor raw, values; /* 1-D */
};

static void read_bytes(FILE *f, void *to, int64_t n)
{
    assert_int_equal(fread(to, 1, (size_t)n, f), n);
}

static struct sample sample_of(FILE *f, mb_dtype type)
{
    char name[8];
    uint32_t blocks;

    read_bytes(f, name, 8);
    read_bytes(f, &blocks, 4);
    assert_string_equal(name, mb_dtype_name(type));
    const int64_t n = blocks * mb_dtype_block(type), bytes = mb_dtype_bytes(type, n);
    struct sample s = {mb_tensor_1d(take(bytes), type, n),
                       mb_tensor_1d(take(4 * n), MB_DTYPE_F32, n)};
    read_bytes(f, s.raw.data, bytes);
    read_bytes(f, s.values.data, 4 * n);
    return s;
}

static void every_type_gives_the_bits_of_the_gguf_package(void **state)
{
    FILE *f = fopen(MB_TEST_DATA "/dequantise.bin", "rb");
    mb_exec ex = exec_with(2);

    (void)state;
    assert_non_null(f);
    for (int i = 0; i < COUNT(types); i++) {
        const struct sample s = sample_of(f, types[i]);
        mb_tensor y = vector(mb_tensor_count(&s.raw));

        RUN(&ex, dequantise, &y, &s.raw);
        assert_memory_equal(y.data, s.values.data, 4 * (size_t)mb_tensor_count(&y));
        const unsigned fewer[] = {0, mb_cpu_features() & MB_CPU_AVX2};
        for (int k = 0; k < COUNT(fewer); k++) {
            mb_tensor by = vector(mb_tensor_count(&s.raw));
            mb_cpu_dequantise_blocks_by(fewer[k], types[i], by.data, s.raw.data,
                                        mb_tensor_count(&y));
            assert_memory_equal(by.data, s.values.data, 4 * (size_t)mb_tensor_count(&y));
        }
    }
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
}

/* Many copies of the blocks as a matrix whose destination has gaps; a part of its rows. */
static void rows_spans_and_threads_give_the_same_bits(void **state)
{
    enum { ROWS = 6, COPIES = 20 };

    (void)state;
    for (int team = 0; team < 3; team++) {
        FILE *f = fopen(MB_TEST_DATA "/dequantise.bin", "rb");
        mb_exec ex = exec_with(team_sizes[team]);

        assert_non_null(f);
        for (int i = 0; i < COUNT(types); i++) {
            const struct sample s = sample_of(f, types[i]);
            const int64_t n = mb_tensor_count(&s.raw), bytes = mb_tensor_bytes(&s.raw);
            mb_tensor x = mb_tensor_2d(take(ROWS * COPIES * bytes), types[i], ROWS, COPIES * n);

            for (int k = 0; k < ROWS * COPIES; k++)
                memcpy((char *)x.data + k * bytes, s.raw.data, (size_t)bytes);
            for (int64_t gap = 0; gap < 4; gap += 3) {
                mb_tensor y = matrix(ROWS, COPIES * n, gap), part = matrix(2, COPIES * n, gap);
                mb_tensor some = mb_tensor_rows(&x, 3, 2);

                RUN(&ex, dequantise, &y, &x);
                RUN(&ex, dequantise, &part, &some);
                for (int64_t k = 0; k < ROWS * COPIES; k++)
                    assert_memory_equal(mb_row(&y, k / COPIES) + k % COPIES * n, s.values.data,
                                        4 * (size_t)n);
                check_gaps(&y), check_gaps(&part);
                assert_memory_equal(mb_row(&part, 1), mb_row(&y, 4), 4 * (size_t)(COPIES * n));
            }
        }
        fclose(f);
        mb_arena_reset(memory);
    }
}

/* Products and tables of blocks have the bits of those of their numbers. */
static void products_and_tables_read_blocks(void **state)
{
    enum { ROWS = 21, MOST = 70 };
    static const int64_t tokens[] = {1, 7, MOST};
    FILE *f = fopen(MB_TEST_DATA "/dequantise.bin", "rb");
    mb_exec ex = mb_cpu_exec(scratch, 2);

    if (mb_test_on_device())
        skip();
    assert_non_null(f);
    OK(mb_cpu_init());
    ex.rows_alike = true;
    for (int i = 0; i < COUNT(types); i++) {
        const struct sample s = sample_of(f, types[i]);
        const int64_t n = mb_tensor_count(&s.raw), block = mb_dtype_block(types[i]);
        const int64_t cols = 5 * block, bytes = mb_dtype_bytes(types[i], block);
        mb_tensor w = mb_tensor_2d(take(ROWS * 5 * bytes), types[i], ROWS, cols);
        mb_tensor numbers = matrix(ROWS, cols, 0), x = matrix(MOST, cols, 3);
        const mb_tensor ids = mb_tensor_1d((int32_t[]){20, 0, -1, 3, 3}, MB_DTYPE_I32, 5);

        for (int64_t k = 0; k < ROWS * 5; k++)
            memcpy((char *)w.data + k * bytes,
                   (const char *)s.raw.data + k * 7 % (n / block) * bytes, (size_t)bytes);
        RUN(&ex, dequantise, &numbers, &w);
        for (int k = 0; k < COUNT(tokens); k++) {
            const mb_tensor some = mb_tensor_rows(&x, 0, tokens[k]);
            mb_tensor a = matrix(tokens[k], ROWS, 2), b = matrix(tokens[k], ROWS, 0);

            RUN(&ex, gemm, &a, &some, false, &numbers, true, 1.0f, 0.0f, NULL);
            RUN(&ex, gemm, &b, &some, false, &w, true, 1.0f, 0.0f, NULL);
            check_gaps(&a);
            for (int64_t r = 0; r < tokens[k]; r++)
                assert_memory_equal(mb_row(&a, r), mb_row(&b, r), ROWS * sizeof(float));
        }
        mb_tensor a = matrix(5, cols, 0), b = matrix(5, cols, 0);
        RUN(&ex, embedding_fwd, &a, &ids, &numbers);
        RUN(&ex, embedding_fwd, &b, &ids, &w);
        assert_memory_equal(a.data, b.data, (size_t)(5 * cols) * sizeof(float));
        assert_int_equal(MB_RUN(&ex, gemm, &a, &w, false, &numbers, true, 1.0f, 0.0f, NULL),
                         MB_ENOTSUP);
        mb_status_clear();
    }
    fclose(f);
}

static void values_for_16_bits_are_rounded_once(void **state)
{
    const mb_dtype to[] = {MB_DTYPE_BF16, MB_DTYPE_F16};
    const char *device = getenv("MB_TEST_DEVICE");

    (void)state;
    if (device == NULL || strcmp(device, "cuda") != 0) {
        print_message("the CPU has f32 only\n");
        skip();
    }
    for (int k = 0; k < COUNT(to); k++) {
        FILE *f = fopen(MB_TEST_DATA "/dequantise.bin", "rb");
        mb_exec ex = exec_with(1);

        assert_non_null(f);
        for (int i = 0; i < COUNT(types); i++) {
            const struct sample s = sample_of(f, types[i]);
            const int64_t n = mb_tensor_count(&s.raw);
            const float *want = mb_f32(&s.values);
            mb_tensor y = mb_tensor_1d(take(2 * n), to[k], n);

            RUN(&ex, dequantise, &y, &s.raw);
            for (int64_t e = 0; e < n; e++)
                if (!isnan(want[e]))
                    assert_int_equal(((uint16_t *)y.data)[e],
                                     k == 0 ? mb_f32_to_bf16(want[e]) : mb_f32_to_f16(want[e]));
        }
        fclose(f);
    }
}

static void ordinary_types_are_cast(void **state)
{
    mb_exec ex = exec_with(1);
    mb_tensor h = mb_tensor_1d((uint16_t[]){0x3c00, 0xc000, 0x0001}, MB_DTYPE_F16, 3);
    mb_tensor b = mb_tensor_1d((uint16_t[]){0x3f80, 0xc000, 0x0001}, MB_DTYPE_BF16, 3);
    mb_tensor s = mb_tensor_1d((float[]){1, -2, 3}, MB_DTYPE_F32, 3), y = vector(3);

    (void)state;
    RUN(&ex, dequantise, &y, &h);
    assert_memory_equal(y.data, ((float[]){1.0f, -2.0f, 0x1p-24f}), 12);
    RUN(&ex, dequantise, &y, &b);
    assert_memory_equal(y.data, ((float[]){1.0f, -2.0f, 0x1p-133f}), 12);
    RUN(&ex, dequantise, &y, &s);
    assert_memory_equal(y.data, s.data, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(every_type_gives_the_bits_of_the_gguf_package),
        KERNEL_TEST(rows_spans_and_threads_give_the_same_bits),
        KERNEL_TEST(products_and_tables_read_blocks),
        KERNEL_TEST(values_for_16_bits_are_rounded_once),
        KERNEL_TEST(ordinary_types_are_cast),
    };

    return cmocka_run_group_tests_name("dequantise", tests, NULL, kernel_teardown);
}
