/* tests/unit/test_quantise.c - numbers to GGUF blocks and back, and files of them.
 *
 * tests/peers/quantise.py and gguf_export.py hold the blocks against the gguf package and llama.cpp.
 */
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/cpu/quantise.h"
#include "core/formats/gguf.h"
#include "core/formats/gguf_write.h"
#include "core/path.h"
#include "kernel_test.h"

enum { N = 4096 };

/* Largest error of a number, as a part of its block's largest. */
static const struct {
    mb_dtype type;
    double worst;
} types[] = {
    {MB_DTYPE_F32, 0.0},       {MB_DTYPE_F16, 1.0 / 2048},  {MB_DTYPE_BF16, 1.0 / 256},
    {MB_DTYPE_Q4_0, 1.0 / 7},  {MB_DTYPE_Q4_1, 2.0 / 15},   {MB_DTYPE_Q5_0, 1.0 / 15},
    {MB_DTYPE_Q5_1, 2.0 / 31}, {MB_DTYPE_Q8_0, 0.75 / 127}, {MB_DTYPE_Q4_K, 1.0 / 7},
    {MB_DTYPE_Q5_K, 1.0 / 15}, {MB_DTYPE_Q6_K, 1.0 / 16},
};

static float waves(int i)
{
    return (float)(sin(0.7 * i) * (1.0 + 0.5 * cos(0.013 * i)));
}

static void back_from_blocks_is_near(void **state)
{
    mb_exec ex = exec_with(2);
    mb_tensor x = vector(N), y = vector(N);

    (void)state;
    for (int i = 0; i < N; i++)
        ((float *)x.data)[i] = waves(i);
    for (int k = 0; k < COUNT(types); k++) {
        const mb_tensor raw =
            mb_tensor_1d(take(mb_dtype_bytes(types[k].type, N)), types[k].type, N);

        assert_true(mb_quantises_to(types[k].type));
        assert_int_equal(mb_quantise(types[k].type, x.data, N, raw.data, 2), MB_OK);
        RUN(&ex, dequantise, &y, &raw);
        for (int i = 0; i < N; i++)
            if (fabs((double)((float *)y.data)[i] - (double)waves(i)) > 1.5 * types[k].worst)
                fail_msg("%s: %g became %g", mb_dtype_name(types[k].type), (double)waves(i),
                         (double)((float *)y.data)[i]);
    }
}

static void threads_do_not_change_a_bit(void **state)
{
    static float x[1 << 18];
    static uint8_t one[1 << 20], four[1 << 20];

    (void)state;
    for (int i = 0; i < COUNT(x); i++)
        x[i] = waves(i);
    for (int k = 0; k < COUNT(types); k++) {
        assert_int_equal(mb_quantise(types[k].type, x, COUNT(x), one, 1), MB_OK);
        assert_int_equal(mb_quantise(types[k].type, x, COUNT(x), four, 4), MB_OK);
        assert_memory_equal(one, four, (size_t)mb_dtype_bytes(types[k].type, COUNT(x)));
    }
}

static void what_has_no_blocks_is_said(void **state)
{
    float x[256] = {0};
    uint8_t y[1024];

    (void)state;
    x[7] = NAN;
    assert_int_equal(mb_quantise(MB_DTYPE_Q4_K, x, 256, y, 1), MB_ENUM);
    mb_status_clear();
    x[7] = 1e30f;
    assert_int_equal(mb_quantise(MB_DTYPE_Q8_0, x, 256, y, 1), MB_ENUM);
    mb_status_clear();
    assert_int_equal(mb_quantise(MB_DTYPE_F16, x, 256, y, 1), MB_ENUM);
    mb_status_clear();
    assert_int_equal(mb_quantise(MB_DTYPE_Q4_0, x, 33, y, 1), MB_ESHAPE);
    mb_status_clear();
    assert_int_equal(mb_quantise(MB_DTYPE_Q2_K, x, 256, y, 1), MB_ENOTSUP);
    mb_status_clear();
}

static void write_some(mb_gguf_writer *w, const float *x)
{
    uint8_t q[34];

    assert_int_equal(mb_gguf_put_string(w, "general.architecture", "llama"), MB_OK);
    assert_int_equal(mb_gguf_put_u32(w, "a.whole", 4000000000u), MB_OK);
    assert_int_equal(mb_gguf_put_f32(w, "a.real", 0.5f), MB_OK);
    assert_int_equal(mb_gguf_put_bool(w, "a.truth", true), MB_OK);
    assert_int_equal(mb_gguf_begin_array(w, "a.list", MB_GGUF_STRINGS, 2), MB_OK);
    assert_int_equal(mb_gguf_add_string(w, "", 0), MB_OK);
    assert_int_equal(mb_gguf_add_string(w, "a\0b", 3), MB_OK);
    assert_int_equal(mb_gguf_declare(w, "one", MB_DTYPE_F32, 1, (int64_t[]){5}), MB_OK);
    assert_int_equal(mb_gguf_declare(w, "two", MB_DTYPE_Q8_0, 2, (int64_t[]){1, 32}), MB_OK);
    assert_int_equal(mb_gguf_append(w, x, 8), MB_OK);
    assert_int_equal(mb_gguf_append(w, x + 2, 12), MB_OK);
    assert_int_equal(mb_quantise(MB_DTYPE_Q8_0, x, 32, q, 1), MB_OK);
    assert_int_equal(mb_gguf_append(w, q, sizeof q), MB_OK);
}

static void what_is_written_is_read(void **state)
{
    char path[] = "/tmp/mb_quantise_test.gguf";
    float x[32], back[5];
    mb_gguf_writer *w;
    mb_tensor_file *f;
    mb_gguf_array list;
    uint64_t whole;
    size_t n;

    (void)state;
    for (int i = 0; i < 32; i++)
        x[i] = waves(i);
    assert_int_equal(mb_gguf_writer_new(path, &w), MB_OK);
    write_some(w, x);
    assert_false(mb_path_exists(path)); /* not before it is whole */
    assert_int_equal(mb_gguf_writer_finish(w), MB_OK);
    mb_gguf_writer_free(w);
    assert_int_equal(mb_tensor_file_open(path, &f), MB_OK);
    const mb_gguf *g = mb_tensor_file_gguf(f);
    assert_int_equal(mb_gguf_u64(g, "a.whole", &whole), MB_OK);
    assert_true(whole == 4000000000u);
    assert_int_equal(mb_gguf_strings(g, "a.list", &list), MB_OK);
    assert_memory_equal(mb_gguf_string_at(&list, 1, &n), "a\0b", 3);
    assert_int_equal(n, 3);
    const mb_tensor_info *two = mb_tensor_file_info(f, mb_tensor_file_find(f, "two"));
    assert_int_equal(two->dtype, MB_DTYPE_Q8_0);
    assert_int_equal(two->dim[1], 32);
    assert_int_equal(mb_tensor_file_read(f, mb_tensor_file_find(f, "one"), back, 0, 20), MB_OK);
    assert_memory_equal(back, x, 20);
    mb_tensor_file_close(f);
    assert_int_equal(mb_path_remove_tree(path), MB_OK);
}

static void a_file_that_is_given_up_leaves_nothing(void **state)
{
    char path[] = "/tmp/mb_quantise_none.gguf";
    mb_gguf_writer *w;
    glob_t left = {0};

    (void)state;
    assert_int_equal(mb_gguf_writer_new(path, &w), MB_OK);
    assert_int_equal(mb_gguf_put_u32(w, "twice", 1), MB_OK);
    assert_int_equal(mb_gguf_put_u32(w, "twice", 1), MB_EBUG);
    mb_status_clear();
    mb_gguf_writer_free(w);
    assert_false(mb_path_exists(path));
    assert_int_equal(glob("/tmp/mb_quantise_none.gguf.*", 0, NULL, &left), GLOB_NOMATCH);
    globfree(&left);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KERNEL_TEST(back_from_blocks_is_near),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(what_has_no_blocks_is_said),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_file_that_is_given_up_leaves_nothing),
    };
    return cmocka_run_group_tests_name("quantise", tests, NULL, kernel_teardown);
}
